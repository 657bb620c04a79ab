//! The loss of a batch and its gradients; on a CPU the batch is cut into shares of images that are
//! computed side by side.

use std::ops::Range;

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::TrainError;
use super::config::LoopConfig;
use super::loss::{consistency, cross_entropy, policy_gradient};
use super::shares::{Shares, ranges};
use super::validate::pixels;
use crate::data::{Batch, LoaderConfig, mix};
use crate::model::{Captioner, EncoderStage, hold_noise, seed_noise};

/// What is asked of the distribution of the next token, besides the token. The default is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Regularization {
    /// Label smoothing, in `[0, 1)`.
    pub label_smoothing: f64,
    /// The weight of R-Drop, 0 or more.
    pub r_drop: f64,
}

/// The loss of one batch. With R-Drop every caption is read twice, with other noise in the decoder: the loss is
/// the mean cross-entropy of both, and half the weight times their divergence (half of what Liang et al. 2021
/// write, who add the two).
///
/// # Shapes
/// Result `[1]`, nats a token.
pub fn forward_loss(
    model: &Captioner,
    mut batch: Batch,
    loader: &LoaderConfig,
    regularization: Regularization,
    frozen_until: EncoderStage,
    device: &Device,
) -> Tensor<1> {
    let memory = memory(model, &mut batch, loader, frozen_until, device);
    let padded = batch.positions.len();
    let weights = (batch.tokens < padded).then(|| {
        let weights: Vec<f32> = (0..padded).map(|i| f32::from(i < batch.tokens)).collect();
        Tensor::from_data(TensorData::new(weights, [padded]), device)
    });
    let Regularization { label_smoothing, r_drop } = regularization;
    let text = Text::new(batch, device);
    let read = |memory: Tensor<3>| log_softmax(text.logits(model, memory), 1);
    let loss = |said: &Tensor<2>| {
        cross_entropy(said.clone(), text.targets.clone(), weights.clone(), label_smoothing)
    };
    if r_drop == 0.0 {
        return loss(&read(memory));
    }
    let (first, second) = (read(memory.clone()), read(memory));
    let losses = (loss(&first) + loss(&second)).mul_scalar(0.5);
    losses + consistency(first, second, weights).mul_scalar(0.5 * r_drop)
}

/// The captions of a batch, on a device.
struct Text {
    /// `[captions, seq]`.
    ids: Tensor<2, Int>,
    /// Which of them to go on from, `[positions]`.
    positions: Tensor<1, Int>,
    /// What comes there, `[positions]`.
    targets: Tensor<1, Int>,
}

impl Text {
    fn new(batch: Batch, device: &Device) -> Self {
        let rows = batch.images * batch.captions_per_image;
        let padded = batch.positions.len();
        Self {
            ids: Tensor::from_data(TensorData::new(batch.inputs, [rows, batch.seq]), device),
            positions: Tensor::from_data(TensorData::new(batch.positions, [padded]), device),
            targets: Tensor::from_data(TensorData::new(batch.targets, [padded]), device),
        }
    }

    /// What `model` expects at each position, `[positions, vocab]`.
    fn logits(&self, model: &Captioner, memory: Tensor<3>) -> Tensor<2> {
        model.decode_at(self.ids.clone(), memory, self.positions.clone())
    }
}

/// Sampled captions, and what is learned of them.
pub struct Said {
    /// A batch without pixels, the captions of an image side by side.
    pub text: Batch,
    /// For each of its positions how much better than expected the caption is; 0 at padding.
    pub advantages: Vec<f32>,
    /// The sum of the images' rewards.
    pub reward: f64,
}

/// What cross-attention reads of a batch's images, which are features from `frozen_until` where the loader has
/// them; up to there is no graph.
///
/// # Shapes
/// Result `[images, patches, memory_width]`.
pub(super) fn memory(
    model: &Captioner,
    batch: &mut Batch,
    loader: &LoaderConfig,
    frozen_until: EncoderStage,
    device: &Device,
) -> Tensor<3> {
    let features = match &loader.features {
        Some(features) => {
            let [positions, width] = features.shape();
            let values = std::mem::take(&mut batch.encoder_inputs);
            let data = TensorData::new(values, [batch.images, positions, width]);
            Tensor::from_data(data, device)
        }
        None => {
            let pixels = pixels(batch, loader, device);
            if frozen_until == EncoderStage::Pixels {
                return model.encode(pixels);
            }
            let features = model.encode_until(pixels, frozen_until);
            if device.is_autodiff() { features.autodiff() } else { features }
        }
    };
    model.encode_from(features, frozen_until)
}

/// Sums the gradients of a step's (micro-)batches.
pub struct Gradients {
    settings: LoopConfig,
    frozen_until: EncoderStage,
    loader: LoaderConfig,
    device: Device,
    pub(super) shares: Shares,
    accumulator: GradientsAccumulator<Captioner>,
}

impl Gradients {
    /// Divides the cores among `train.data_parallel` shares.
    ///
    /// # Errors
    /// When the system has no threads left.
    pub fn new(
        settings: &LoopConfig,
        frozen_until: EncoderStage,
        loader: &LoaderConfig,
        device: &Device,
    ) -> Result<Self, TrainError> {
        Ok(Self {
            settings: settings.clone(),
            frozen_until,
            loader: loader.clone(),
            device: device.clone(),
            shares: Shares::new(settings.data_parallel.min(settings.batch_size), device)?,
            accumulator: GradientsAccumulator::new(),
        })
    }

    /// From now on batches are those of `loader`: features, for instance, in place of pixels.
    pub(super) fn read_as(&mut self, loader: &LoaderConfig) {
        self.loader = loader.clone();
    }

    /// Adds the gradients of a (micro-)batch with at least one target and returns its loss, `[1]`,
    /// without a graph. Noise of training is a function of `seed`.
    pub fn add(&mut self, model: &Captioner, batch: Batch, seed: u64) -> Tensor<1> {
        let tokens = batch.tokens as f64;
        let shares = split(batch, self.shares.count());
        let (settings, loader, device) = (&self.settings, &self.loader, &self.device);
        let frozen_until = self.frozen_until;
        let models = self.models(model, shares.len());
        let items = models.into_iter().zip(shares).collect();
        let results = self.shares.map(items, |index, (model, share): (Captioner, Batch)| {
            seed_noise(device, mix(seed, index as u64));
            let weight = share.tokens as f64 / tokens;
            let regularization = Regularization {
                label_smoothing: settings.label_smoothing,
                r_drop: settings.r_drop,
            };
            let loss = forward_loss(&model, share, loader, regularization, frozen_until, device);
            let scale = |loss: Tensor<1>, by: f64| if by == 1.0 { loss } else { loss * by };
            let value = scale(loss.clone().inner(), weight);
            let loss = scale(loss, weight / settings.accumulation as f64);
            (value, GradientsParams::from_grads(loss.backward(), &model))
        });
        self.sum(model, results)
    }

    /// Adds the gradients of captions that `say` makes of a batch's images and weighs, and returns the loss,
    /// `[1]`, without a graph, and the mean reward. `say` is given the model and what cross-attention reads,
    /// both without autodiff, and the places in the batch of the images that they are of. `temperature` is
    /// that of the samples.
    ///
    /// Noise is held while captions are said and learned: the gradient of a caption is that of the very
    /// network that said it.
    pub fn add_said<E: Send>(
        &mut self,
        model: &Captioner,
        batch: &Batch,
        seed: u64,
        temperature: f64,
        say: impl Fn(&Captioner, &Tensor<3>, Range<usize>) -> Result<Said, E> + Sync,
    ) -> Result<(Tensor<1>, f64), E> {
        let images = batch.images as f64;
        let size = batch.encoder_inputs.len() / batch.images;
        let parts: Vec<Range<usize>> = ranges(batch.images, self.shares.count()).collect();
        let models = self.models(model, parts.len());
        let (loader, device) = (&self.loader, &self.device);
        let frozen_until = self.frozen_until;
        let items = models.into_iter().zip(parts).collect();
        let results = self.shares.map(items, |index, (model, part): (Captioner, Range<usize>)| {
            let pixels = batch.encoder_inputs[part.start * size..part.end * size].to_vec();
            let mut share =
                Batch { images: part.len(), encoder_inputs: pixels, ..Batch::default() };
            let weight = part.len() as f64 / images;
            let seed = mix(seed, index as u64);
            seed_noise(device, seed);
            let memory = memory(&model, &mut share, loader, frozen_until, device);
            let _held = hold_noise(seed);
            let said = say(&model.valid(), &memory.clone().inner(), part)?;
            let captions = said.text.images * said.text.captions_per_image;
            let text = Text::new(said.text, device);
            let logits = text.logits(&model, memory);
            let count = said.advantages.len();
            let advantages = Tensor::from_data(TensorData::new(said.advantages, [count]), device);
            let loss = policy_gradient(logits, text.targets, advantages, captions, temperature);
            let loss = loss.mul_scalar(weight);
            let value = loss.clone().inner();
            Ok((value, GradientsParams::from_grads(loss.backward(), &model), said.reward))
        });
        let mut rewards = 0.0;
        let mut learned = Vec::with_capacity(results.len());
        for result in results {
            let (loss, grads, reward) = result?;
            learned.push((loss, grads));
            rewards += reward;
        }
        Ok((self.sum(model, learned), rewards / images))
    }

    /// Adds the shares' gradients, and sums their losses.
    fn sum(&mut self, model: &Captioner, shares: Vec<(Tensor<1>, GradientsParams)>) -> Tensor<1> {
        // In the order of the shares, whichever came first: sums of floats depend on it.
        let mut losses = Vec::with_capacity(shares.len());
        for (loss, grads) in shares {
            losses.push(loss);
            self.accumulator.accumulate(model, grads);
        }
        Tensor::cat(losses, 0).sum()
    }

    /// The model for each of `count` shares.
    fn models(&self, model: &Captioner, count: usize) -> Vec<Captioner> {
        // Leaves of its own, or the shares would be one graph behind one lock.
        let own = |_| match count {
            1 => model.clone(),
            _ => model.clone().fork(&self.device),
        };
        (0..count).map(own).collect()
    }

    /// The sum of all that was added since the last call.
    pub fn take(&mut self) -> GradientsParams {
        self.accumulator.grads()
    }
}

/// Cuts a batch into at most `count` shares of about as many images, in order, each with a target.
fn split(batch: Batch, count: usize) -> Vec<Batch> {
    // Padding lies at the end, where it would be the last share's alone.
    if count.min(batch.images) <= 1 || batch.tokens < batch.positions.len() {
        return vec![batch];
    }
    let pixels = batch.encoder_inputs.len() / batch.images;
    let row = batch.captions_per_image * batch.seq;
    ranges(batch.images, count)
        .filter_map(|images| {
            let (first, last) = (images.start, images.end);
            let (from, to) = ((first * row) as i32, (last * row) as i32);
            let start = batch.positions.partition_point(|&at| at < from);
            let end = batch.positions.partition_point(|&at| at < to);
            (end > start).then(|| Batch {
                images: last - first,
                captions_per_image: batch.captions_per_image,
                seq: batch.seq,
                encoder_inputs: batch.encoder_inputs[first * pixels..last * pixels].to_vec(),
                inputs: batch.inputs[first * row..last * row].to_vec(),
                positions: batch.positions[start..end].iter().map(|&at| at - from).collect(),
                targets: batch.targets[start..end].to_vec(),
                examples: batch.examples.get(first..last).unwrap_or_default().to_vec(),
                tokens: end - start,
                skipped: Vec::new(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use burn::module::ModuleVisitor;
    use burn::module::Param;

    use super::super::scst::weighted;
    use super::*;
    use crate::generate::{GenerateConfig, GenerateError, generate_images};
    use crate::image::PreprocessConfig;
    use crate::model::{CaptionerConfig, DecoderConfig, EncoderConfig, PatchSource, initialize};
    use crate::text::SpecialTokens;

    fn model(dropout: f64, device: &Device) -> Captioner {
        let config = CaptionerConfig {
            encoder: EncoderConfig {
                image_height: 16,
                image_width: 16,
                patch_size: 8,
                patches: PatchSource::Stem(vec![4]),
                d_model: 16,
                num_layers: 2,
                num_heads: 2,
                d_ff: 32,
                dropout,
                drop_path: dropout,
                ..EncoderConfig::default()
            },
            decoder: DecoderConfig {
                vocab_size: 20,
                max_positions: 8,
                d_model: 16,
                num_layers: 1,
                num_heads: 2,
                d_ff: 32,
                dropout,
                ..DecoderConfig::default()
            },
        };
        initialize(Captioner::new(&config, device).unwrap(), 5)
    }

    /// Five images with two captions each, the second image with one; lengths differ.
    fn batch() -> Batch {
        let (images, seq) = (5, 6);
        let rows = images * 2;
        let lengths = [6, 3, 4, 0, 2, 5, 1, 6, 3, 3];
        let positions: Vec<i32> = (0..rows)
            .flat_map(|row| (0..lengths[row]).map(move |at| (row * seq + at) as i32))
            .collect();
        Batch {
            images,
            captions_per_image: 2,
            seq,
            encoder_inputs: (0..images * 3 * 16 * 16)
                .map(|i| (i % 23) as f32 / 11.5 - 1.0)
                .collect(),
            inputs: (0..rows * seq).map(|i| (i * 7 % 20) as i32).collect(),
            targets: positions.iter().map(|at| at * 3 % 20).collect(),
            tokens: positions.len(),
            positions,
            examples: Vec::new(),
            skipped: Vec::new(),
        }
    }

    fn loader() -> LoaderConfig {
        let preprocess = PreprocessConfig { height: 16, width: 16, ..PreprocessConfig::default() };
        let special = SpecialTokens { bos: 1, eos: 2, pad: 0 };
        LoaderConfig {
            batch_size: 5,
            captions_per_image: 2,
            ..LoaderConfig::plain(preprocess, special, 8)
        }
    }

    /// The loss and every gradient, one after the other.
    fn gradients(data_parallel: usize, accumulation: usize, dropout: f64) -> (f32, Vec<f32>) {
        struct All<'a>(&'a GradientsParams, Vec<f32>);
        impl ModuleVisitor for All<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let grad: Tensor<D> = self.0.get(param.id).expect("a gradient");
                self.1.extend(grad.into_data().iter::<f32>());
            }
        }
        let device = Device::flex().autodiff();
        let model = model(dropout, &device);
        let settings =
            LoopConfig { data_parallel, accumulation, batch_size: 5, ..LoopConfig::default() };
        let mut sum = Gradients::new(&settings, EncoderStage::Pixels, &loader(), &device).unwrap();
        let mut loss = 0.0;
        for micro in 0..accumulation {
            let value = sum.add(&model, batch(), 9 + micro as u64);
            loss += value.into_scalar::<f32>() / accumulation as f32;
        }
        let grads = sum.take();
        let mut all = All(&grads, Vec::new());
        model.visit(&mut all);
        (loss, all.1)
    }

    #[test]
    fn shares_of_a_batch_give_the_gradients_of_the_whole() {
        let (loss, whole) = gradients(1, 1, 0.0);
        let norm = whole.iter().map(|g| g * g).sum::<f32>().sqrt();
        assert!(norm > 0.1, "{norm}");
        for (shares, micro) in [(2, 1), (3, 1), (5, 1), (8, 1), (1, 3), (2, 3)] {
            let (cut_loss, cut) = gradients(shares, micro, 0.0);
            let apart = whole.iter().zip(&cut).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
            assert!(apart < 1e-5 * norm, "{shares} shares, {micro} batches: {apart} of {norm}");
            assert!((loss - cut_loss).abs() < 1e-5 * loss, "{loss} {cut_loss}");
        }
    }

    #[test]
    fn r_drop_asks_two_thinned_decoders_to_agree() {
        let device = Device::flex().autodiff();
        let loss = |dropout: f64, r_drop: f64| {
            seed_noise(&device, 3);
            let regularization = Regularization { label_smoothing: 0.1, r_drop };
            let model = model(dropout, &device);
            let until = EncoderStage::Pixels;
            let loss = forward_loss(&model, batch(), &loader(), regularization, until, &device);
            f64::from(loss.into_scalar::<f32>())
        };
        // The same network twice agrees with itself.
        assert!((loss(0.0, 4.0) - loss(0.0, 0.0)).abs() < 1e-5);
        // What two networks disagree on counts by the weight.
        let at = [1e-6, 2.0, 4.0].map(|r_drop| loss(0.4, r_drop));
        assert!(at[1] - at[0] > 1e-3, "{at:?}");
        assert!((at[2] - 2.0 * at[1] + at[0]).abs() < 1e-5, "{at:?}");
    }

    #[test]
    fn noise_is_a_function_of_the_seed_whatever_the_threads_do() {
        let first = gradients(3, 1, 0.3);
        for _ in 0..5 {
            assert_eq!(gradients(3, 1, 0.3), first);
        }
        assert_ne!(gradients(3, 1, 0.0).1, first.1);
        assert_ne!(gradients(2, 1, 0.3).1, first.1);
    }

    #[test]
    fn the_network_that_said_a_caption_is_the_one_that_learns() {
        let device = Device::flex().autodiff();
        let model = model(0.4, &device);
        let loss_of = |data_parallel: usize, seed: u64| {
            let settings = LoopConfig { data_parallel, batch_size: 5, ..LoopConfig::default() };
            let mut sum =
                Gradients::new(&settings, EncoderStage::Pixels, &loader(), &device).unwrap();
            let said = |model: &Captioner, memory: &Tensor<3>, images: Range<usize>| {
                let config = GenerateConfig::sampling(3, 6, 11);
                let captions =
                    generate_images(model, memory, images.start as u64.., &[1], 2, &config, 1)?;
                let sum: f32 = captions.iter().flat_map(|caption| &caption.log_probabilities).sum();
                let all = vec![1.0; captions.len()];
                Ok::<_, GenerateError>(weighted(&captions, &all, f64::from(sum), 1, 3, 0, 1))
            };
            let (loss, said) = sum.add_said(&model, &batch(), seed, 1.0, said).unwrap();
            let norm = GradientsParams::len(&sum.take());
            assert!(norm > 20, "{norm} gradients");
            // An image's three captions: the loss is a caption's mean, what was said an image's.
            (f64::from(loss.into_scalar::<f32>()), -said / 3.0)
        };
        for shares in [1, 2, 5] {
            let (learned, said) = loss_of(shares, 4);
            assert!(
                (learned - said).abs() < 1e-4 * said,
                "{shares} shares: {learned}, said {said}"
            );
        }
        // There is noise: another seed is another network.
        assert!((loss_of(1, 4).0 - loss_of(1, 5).0).abs() > 1e-2);
        // And it ends with the step.
        let clean = || {
            let text = forward_loss(
                &model.valid(),
                batch(),
                &loader(),
                Regularization::default(),
                EncoderStage::Pixels,
                &Device::flex(),
            );
            text.into_scalar::<f32>()
        };
        let before = clean();
        loss_of(1, 4);
        assert_eq!(clean(), before);
    }
}
