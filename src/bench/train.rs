//! The training step, timed.

use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::flops::{StepShape, training_step};
use super::{BenchError, Timing, matmul_rate, peak_memory};
use crate::data::{Batch, LoaderConfig, TrainLoader};
use crate::model::{Captioner, CaptionerConfig, EncoderStage};
use crate::text::SpecialTokens;
use crate::train::{Learner, Plan, Start, TrainConfig, TrainError, Trained};

/// What is measured.
#[derive(Debug, Clone)]
pub struct TrainBench {
    /// Steps that are timed, at least 1.
    pub steps: usize,
    /// Steps before them: kernels are compiled, buffers taken.
    pub warmup: usize,
    /// Where batches come from.
    pub data: BenchData,
    /// Lengths are rounded up to a multiple of this (GPUs); 1 = exactly.
    pub bucket: usize,
}

/// Where batches come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BenchData {
    /// Random pixels and token ids in memory: captions of this many tokens.
    Synthetic {
        /// Tokens a caption, the begin token included.
        tokens: usize,
    },
    /// The data set of the config, read as training reads it.
    Config,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainReport {
    /// Parameters of the model.
    pub parameters: usize,
    /// Steps timed.
    pub steps: usize,
    /// Steps taken before.
    pub warmup: usize,
    /// Images a step, on average.
    pub images_per_step: f64,
    /// Predicted tokens a step, on average.
    pub tokens_per_step: f64,
    /// Seconds a step, waiting for data included.
    pub step_seconds: Timing,
    /// Images a second over all timed steps.
    pub images_per_second: f64,
    /// Predicted tokens a second over all timed steps.
    pub tokens_per_second: f64,
    /// Share of the time spent waiting for data; none with synthetic batches.
    pub data_wait_share: Option<f64>,
    /// Loss of the last step in nats a token: tells two builds that compute different things.
    pub loss: f64,
    /// FLOPs a step, counted from shapes (see [`training_step`]), on average.
    pub flops_per_step: f64,
    /// FLOPs a second that the steps reached.
    pub flops_per_second: f64,
    /// FLOPs a second of the device's own matrix product (see [`matmul_rate`]).
    pub matmul_flops_per_second: f64,
    /// The former over the latter.
    pub share_of_matmul: f64,
    /// Most memory resident, in bytes; none where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
}

/// Times training steps of `config` on `device` (autodiff is added here). Nothing is written.
/// `file` is named in errors; `each` hears of every step: its seconds, and whether it counts.
///
/// # Errors
/// Bad configs and data; a failing device.
pub fn bench_train(
    config: &TrainConfig,
    file: &Path,
    device: &Device,
    bench: &TrainBench,
    each: &mut dyn FnMut(f64, bool),
) -> Result<TrainReport, BenchError> {
    if bench.steps == 0 {
        return Err(BenchError::Value { key: "steps", problem: "0; expected at least 1".into() });
    }
    let (config, start, mut batches) = prepare(config, file, bench)?;
    let shape = Captioner::new(&config.model, &Device::flex())?;
    let parameters = shape.num_params();
    let trained = Trained::new(&config, file, &shape).map_err(TrainError::from)?;
    let matmul = matmul_rate(device)?;
    let device = device.clone().autodiff();
    let (mut learner, mut model) =
        Learner::new(&config, start, &trained, batches.loader(), &device)?;
    let is_frozen = trained.frozen_until == EncoderStage::States;
    let mut timed = Vec::with_capacity(bench.steps);
    let mut total = Totals::default();
    let mut loss = Tensor::zeros([1], &device.clone().inner());
    for index in 0..bench.warmup + bench.steps {
        let counts = index >= bench.warmup;
        if index == bench.warmup {
            batches.take_waited();
        }
        let mut seconds = 0.0;
        for _ in 0..config.train.accumulation {
            // What a loader would have made is made outside of the clock.
            let ready = batches.ready();
            let start = Instant::now();
            let batch = match ready {
                Some(batch) => batch,
                None => batches.wait()?,
            };
            if batch.tokens > 0 {
                total.add(&config.model, &batch, counts, is_frozen);
                loss = learner.gradients.add(&model, batch, index as u64);
            }
            seconds += start.elapsed().as_secs_f64();
        }
        let start = Instant::now();
        (model, _) = learner.update(model, config.schedule.learning_rate);
        device.sync().map_err(BenchError::device)?;
        seconds += start.elapsed().as_secs_f64();
        if counts {
            timed.push(seconds);
        }
        each(seconds, counts);
    }
    let seconds: f64 = timed.iter().sum::<f64>().max(1e-9);
    let waited = batches.take_waited();
    let peak_memory_bytes = peak_memory();
    // Taken twice: whatever else the machine was doing at the start may have ended.
    let matmul = matmul.max(matmul_rate(&device)?);
    let steps = timed.len() as f64;
    let loss: f32 = loss.try_into_scalar().map_err(BenchError::device)?;
    Ok(TrainReport {
        parameters,
        steps: timed.len(),
        warmup: bench.warmup,
        images_per_step: total.images / steps,
        tokens_per_step: total.tokens / steps,
        step_seconds: Timing::of(&timed),
        images_per_second: total.images / seconds,
        tokens_per_second: total.tokens / seconds,
        data_wait_share: waited.map(|waited| waited / seconds),
        loss: f64::from(loss),
        flops_per_step: total.flops / steps,
        flops_per_second: total.flops / seconds,
        matmul_flops_per_second: matmul,
        share_of_matmul: total.flops / seconds / matmul,
        peak_memory_bytes,
    })
}

/// Sums over the timed steps.
#[derive(Default)]
struct Totals {
    images: f64,
    tokens: f64,
    flops: f64,
}

impl Totals {
    fn add(&mut self, model: &CaptionerConfig, batch: &Batch, counts: bool, is_frozen: bool) {
        if !counts {
            return;
        }
        self.images += batch.images as f64;
        self.tokens += batch.tokens as f64;
        let shape = StepShape {
            images: batch.images,
            captions: batch.images * batch.captions_per_image,
            seq: batch.seq,
            targets: batch.positions.len(),
        };
        self.flops += training_step(model, &shape, is_frozen);
    }
}

/// The batches, and how they were made.
enum Batches {
    Synthetic { batch: Box<Batch>, loader: Box<LoaderConfig> },
    Loaded { stream: TrainLoader, loader: Box<LoaderConfig> },
}

impl Batches {
    fn loader(&self) -> &LoaderConfig {
        match self {
            Self::Synthetic { loader, .. } | Self::Loaded { loader, .. } => loader,
        }
    }

    /// A batch that costs nothing to get.
    fn ready(&self) -> Option<Batch> {
        match self {
            Self::Synthetic { batch, .. } => Some((**batch).clone()),
            Self::Loaded { .. } => None,
        }
    }

    fn wait(&mut self) -> Result<Batch, BenchError> {
        match self {
            Self::Synthetic { batch, .. } => Ok((**batch).clone()),
            Self::Loaded { stream, .. } => Ok(stream.next_batch().ok_or(TrainError::LoaderDied)?),
        }
    }

    /// Seconds waited since the last call; none where there is nothing to wait for.
    fn take_waited(&mut self) -> Option<f64> {
        match self {
            Self::Synthetic { .. } => None,
            Self::Loaded { stream, .. } => Some(stream.take_waited().as_secs_f64()),
        }
    }
}

fn prepare(
    config: &TrainConfig,
    file: &Path,
    bench: &TrainBench,
) -> Result<(TrainConfig, Start, Batches), BenchError> {
    let mut config = config.clone();
    let start = Start::new(&config)?;
    // A config must name these, and nothing here uses them.
    if config.output.as_os_str().is_empty() {
        config.output = "unused".into();
    }
    match bench.data {
        BenchData::Config => {
            let plan = Plan::new(&config, file, &start)?;
            let loader = plan.loader(bench.bucket);
            let stream = TrainLoader::new(plan.train, loader.clone(), 0);
            Ok((plan.config, start, Batches::Loaded { stream, loader: Box::new(loader) }))
        }
        BenchData::Synthetic { tokens } => {
            config.data.path = "unused".into();
            if !start.complete(&mut config) && config.tokenizer.file.is_none() {
                config.model.decoder.vocab_size = config.tokenizer.vocab_size;
            }
            config.validate(file).map_err(TrainError::from)?;
            config.validate_model(file).map_err(TrainError::from)?;
            let most = config.model.decoder.max_positions;
            if tokens == 0 || tokens > most {
                let problem = format!("{tokens}; expected 1 to {most}, the model's positions");
                return Err(BenchError::Value { key: "tokens", problem });
            }
            let batch = Box::new(synthetic_batch(&config, tokens));
            let loader = Box::new(synthetic_loader(&config, bench.bucket));
            Ok((config, start, Batches::Synthetic { batch, loader }))
        }
    }
}

/// Random pixels and token ids in the shape of the config.
fn synthetic_batch(config: &TrainConfig, tokens: usize) -> Batch {
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let images = config.train.batch_size;
    let length = images * config.data.captions_per_image * tokens;
    let vocab = config.model.decoder.vocab_size as u32;
    let mut ids = || (0..length).map(|_| rng.random_range(0..vocab) as i32).collect::<Vec<i32>>();
    let (inputs, targets) = (ids(), ids());
    let pixels = images * 3 * config.image.height * config.image.width;
    Batch {
        images,
        captions_per_image: config.data.captions_per_image,
        seq: tokens,
        encoder_inputs: (0..pixels).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect(),
        inputs,
        positions: (0..length as i32).collect(),
        targets,
        tokens: length,
        examples: Vec::new(),
        skipped: Vec::new(),
    }
}

fn synthetic_loader(config: &TrainConfig, bucket: usize) -> LoaderConfig {
    let special = SpecialTokens { bos: 0, eos: 0, pad: 0 };
    LoaderConfig {
        batch_size: config.train.batch_size,
        captions_per_image: config.data.captions_per_image,
        bucket,
        seed: config.seed,
        ..LoaderConfig::plain(config.image.clone(), special, config.model.decoder.max_positions)
    }
}
