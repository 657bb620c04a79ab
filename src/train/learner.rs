//! What a training step is made of, put together in one way for the loop, for `bench train` and for estimates:
//! the weights that training starts from, frozen or with adapters as the config says, their gradients and the
//! optimizer.

use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;

use super::config::{SelectBy, TrainConfig};
use super::gradients::Gradients;
use super::init::Start;
use super::optimizer::AdamW;
use super::plan::Plan;
use super::schedule::ScheduleConfig;
use super::trained::Trained;
use super::{TrainError, score, validate};
use crate::data::{Example, LoaderConfig, TrainLoader};
use crate::model::{Captioner, EncoderStage};

/// The gradients of a step and the optimizer that applies them; the model itself goes through the steps.
pub struct Learner {
    /// Gradients, summed over the micro-batches of a step.
    pub gradients: Gradients,
    pub(super) optimizer: AdamW,
    schedule: ScheduleConfig,
}

impl Learner {
    /// The model before the first step, on `device` (with autodiff), and what trains it. `loader` is how
    /// batches were read.
    ///
    /// # Errors
    /// Weights that do not fit the config; a system that has no threads left.
    pub fn new(
        config: &TrainConfig,
        start: Start,
        trained: &Trained,
        loader: &LoaderConfig,
        device: &Device,
    ) -> Result<(Self, Captioner), TrainError> {
        let model = trained.apply(start.model(config, device)?, config);
        let learner = Self {
            gradients: Gradients::new(&config.train, trained.frozen_until, loader, device)?,
            optimizer: AdamW::new(&config.optimizer),
            schedule: config.schedule.clone(),
        };
        Ok((learner, model))
    }

    /// Applies the gradients that were added since the last call, at the learning rate `rate`, which parts of
    /// the model have in the schedule's shares; returns the global norm of the gradients where it was at hand
    /// without waiting for the device.
    pub fn update(&mut self, model: Captioner, rate: f64) -> (Captioner, Option<f64>) {
        let grads = self.gradients.take();
        let rate_of = |path: &str| rate * self.schedule.factor(path);
        self.optimizer.step(model, grads, &rate_of)
    }
}

/// How long a run will take, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimeEstimate {
    /// A step on captions.
    pub step: f64,
    /// A validation with its samples.
    pub validation: f64,
    /// Keeping the features of all images, where that is asked for.
    pub features: f64,
    /// All steps on captions, validations and features.
    pub total: f64,
}

impl TimeEstimate {
    /// Takes a step or two of the run of `plan`, which begins with `start`, and throws them away. Nothing is
    /// written.
    ///
    /// # Errors
    /// Images that cannot be read at all; a failing device.
    pub fn measure(
        plan: &Plan,
        start: Start,
        device: &Device,
        bucket: usize,
    ) -> Result<Self, TrainError> {
        /// A first step that takes longer is measure enough: compiling kernels is little beside it.
        const LONG: f64 = 15.0;
        let config = &plan.config;
        let device = device.clone().autodiff();
        let loader = plan.loader(bucket);
        let (mut learner, mut model) =
            Learner::new(config, start, &plan.trained, &loader, &device)?;
        let mut batches = TrainLoader::new(plan.train.clone(), loader.clone(), 0);
        let mut step = f64::INFINITY;
        for number in 0..3 {
            let begin = Instant::now();
            for micro in 0..config.train.accumulation as u64 {
                let batch = batches.next_batch().ok_or(TrainError::LoaderDied)?;
                if batch.tokens > 0 {
                    learner.gradients.add(&model, batch, number * 1000 + micro);
                }
            }
            (model, _) = learner.update(model, plan.learning_rate(0));
            device.sync().map_err(|error| TrainError::Device(error.to_string()))?;
            step = step.min(begin.elapsed().as_secs_f64());
            if step > LONG {
                break;
            }
        }
        drop(batches);
        let model = learner.optimizer.averaged(model.valid());
        let validation = time_of_validation(plan, &learner, &model, &loader, &device)?;
        let mut features = 0.0;
        if config.data.cache_features.is_some() {
            let frozen = time_of_frozen(plan, &model, &device)?;
            step = (step - frozen * loader.batch_size as f64).max(step / 20.0);
            let views = f64::from(config.data.cache_views);
            features = frozen * (views * plan.train.len() as f64 + plan.val.len() as f64);
        }
        let validations =
            (1..=plan.caption_steps).filter(|&step| plan.validates_after(step)).count();
        let validations = validations + usize::from(config.init.model.is_some());
        let total = features + step * plan.caption_steps as f64 + validation * validations as f64;
        Ok(Self { step, validation, features, total })
    }
}

/// Seconds of a validation, from its first batch.
fn time_of_validation(
    plan: &Plan,
    learner: &Learner,
    model: &Captioner,
    loader: &LoaderConfig,
    device: &Device,
) -> Result<f64, TrainError> {
    let few = &plan.val[..plan.val.len().min(loader.batch_size)];
    let share = plan.val.len() as f64 / few.len() as f64;
    let begin = Instant::now();
    validate(model, few, loader, plan.trained.frozen_until, device)?;
    let loss = begin.elapsed().as_secs_f64() * share;
    let captioned = match plan.config.train.select_by {
        SelectBy::Loss => plan.config.train.samples.min(plan.val.len()),
        SelectBy::Cider => plan.val.len(),
    };
    let some: Vec<&Example> = few.iter().take(captioned).collect();
    if some.is_empty() {
        return Ok(loss);
    }
    let begin = Instant::now();
    let shares = &learner.gradients.shares;
    score::captions(model, plan, loader, &some, &plan.decoding(), shares, device)?;
    Ok(loss + begin.elapsed().as_secs_f64() * captioned as f64 / some.len() as f64)
}

/// Seconds that the frozen part of the encoder takes for an image.
fn time_of_frozen(plan: &Plan, model: &Captioner, device: &Device) -> Result<f64, TrainError> {
    const IMAGES: usize = 4;
    if plan.trained.frozen_until == EncoderStage::Pixels {
        return Ok(0.0);
    }
    let image = &plan.config.image;
    let device = device.clone().inner();
    let shape = [IMAGES, 3, image.height, image.width];
    let pixels = burn::tensor::Tensor::<4>::zeros(shape, &device);
    let begin = Instant::now();
    let features = model.encode_until(pixels, plan.trained.frozen_until);
    drop(features.into_data());
    Ok(begin.elapsed().as_secs_f64() / IMAGES as f64)
}
