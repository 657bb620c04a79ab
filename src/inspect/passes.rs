//! Passes of the model that an inspection needs: one caption over one photo, over many changed photos, and
//! with gradients.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::InspectError;
use super::methods::{GradientAttention, HostAttention, encoder_relevance, to_host};
use crate::checkpoint::Checkpoint;
use crate::model::{AttentionTrace, silence_noise};

/// Photos that are encoded together.
const BATCH: usize = 8;

/// One caption and the model that reads it.
#[derive(Clone, Copy)]
pub(super) struct Passes<'a> {
    pub checkpoint: &'a Checkpoint,
    pub device: &'a Device,
    /// From the begin token to the end token, if it came: at least two.
    pub ids: &'a [u32],
}

/// What a backward pass gave.
pub(super) struct Backward {
    pub attention: GradientAttention,
    /// Cross-attention, the same for every target.
    pub cross: HostAttention,
    /// Relevance through the encoder; none where it has no layers.
    pub encoder: Option<Tensor<2>>,
}

impl Passes<'_> {
    /// Steps of the decoder: one a token but the last.
    pub fn seq(&self) -> usize {
        self.ids.len() - 1
    }

    /// `[rows, seq]`, the caption again and again.
    fn inputs(&self, rows: usize, device: &Device) -> Tensor<2, Int> {
        let once: Vec<i32> = self.ids[..self.seq()].iter().map(|&id| id as i32).collect();
        Tensor::from_data(TensorData::new(once.repeat(rows), [rows, self.seq()]), device)
    }

    /// Memory of `count` images of normalised pixels.
    pub fn encode(&self, pixels: Vec<f32>, count: usize) -> Tensor<3> {
        self.checkpoint.model.encode(self.images(pixels, count, self.device))
    }

    /// `[count, 3, height, width]`.
    pub fn images(&self, pixels: Vec<f32>, count: usize, device: &Device) -> Tensor<4> {
        let preprocess = &self.checkpoint.preprocess;
        let shape = [count, 3, preprocess.height, preprocess.width];
        Tensor::from_data(TensorData::new(pixels, shape), device)
    }

    /// Log-probabilities of every next token, `[seq, vocab]` row by row, and the decoder's attention.
    pub fn decode(&self, memory: Tensor<3>) -> Result<(Vec<f32>, AttentionTrace), InspectError> {
        let mut trace = AttentionTrace::new();
        let inputs = self.inputs(1, self.device);
        let logits = self.checkpoint.model.decode_with_trace(inputs, memory, &mut trace);
        let [_, seq, vocab] = logits.dims();
        let rows = to_host(log_softmax(logits.reshape([seq, vocab]), 1))?;
        Ok((rows, trace))
    }

    /// Log-probability of the caption's token after each step, for each image of `memory`.
    pub fn log_probabilities(&self, memory: Tensor<3>) -> Result<Vec<Vec<f32>>, InspectError> {
        let ([images, _, _], seq) = (memory.dims(), self.seq());
        let logits = self.checkpoint.model.decode(self.inputs(images, self.device), memory);
        let targets: Vec<i32> = self.ids[1..].iter().map(|&id| id as i32).collect();
        let targets = TensorData::new(targets.repeat(images), [images, seq, 1]);
        let targets: Tensor<3, Int> = Tensor::from_data(targets, self.device);
        let chosen = to_host(log_softmax(logits, 2).gather(2, targets))?;
        Ok(chosen.chunks(seq).map(<[f32]>::to_vec).collect())
    }

    /// Log-probabilities for photos that `change` makes of `pixels`, one for each of `changes`; `progress` is
    /// told how many are done.
    pub fn with_changes<T>(
        &self,
        pixels: &[f32],
        changes: &[T],
        change: impl Fn(&mut [f32], &T),
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f32>>, InspectError> {
        let mut out = Vec::with_capacity(changes.len());
        for part in changes.chunks(BATCH) {
            let mut batch = pixels.repeat(part.len());
            for (image, what) in batch.chunks_mut(pixels.len()).zip(part) {
                change(image, what);
            }
            out.extend(self.log_probabilities(self.encode(batch, part.len()))?);
            progress(part.len());
        }
        Ok(out)
    }

    /// Gradients, at all attention, of a target for each of `targets`: the sum of the log-probabilities of the
    /// tokens after those steps. The encoder's are those of all targets together.
    pub fn backward(
        &self,
        pixels: &[f32],
        targets: &[Vec<usize>],
    ) -> Result<Backward, InspectError> {
        let model = self.checkpoint.model.with_gated_gradients();
        let device = self.device.clone().autodiff();
        let _quiet = silence_noise();
        let mut trace = AttentionTrace::gated();
        let images = self.images(pixels.to_vec(), 1, self.device);
        let memory = model.encode_with_trace(images, &mut trace);
        let inputs = self.inputs(targets.len(), &device);
        let logits = model.decode_with_trace(inputs, memory, &mut trace);
        let [rows, seq, vocab] = logits.dims();
        let (mut places, mut tokens) = (Vec::new(), Vec::new());
        for (row, steps) in targets.iter().enumerate() {
            places.extend(steps.iter().map(|step| (row * seq + step) as i32));
            tokens.extend(steps.iter().map(|step| self.ids[step + 1] as i32));
        }
        let count = places.len();
        let places = Tensor::<1, Int>::from_data(TensorData::new(places, [count]), &device);
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, [count, 1]), &device);
        let chosen = logits.reshape([rows * seq, vocab]).select(0, places);
        let gradients = log_softmax(chosen, 1).gather(1, tokens).sum().backward();
        Ok(Backward {
            attention: GradientAttention::read(&trace, &gradients)?,
            cross: HostAttention::weights(&trace.cross_attention)?,
            encoder: encoder_relevance(&trace.encoder, &gradients),
        })
    }
}
