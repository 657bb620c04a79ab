//! Numbers that can be checked by hand, and properties that every shape of model must have.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

mod attention;
mod configs;
mod decoding;
mod encoder;
mod gradients;
mod trace;

use super::*;
use crate::checkpoint::tensors::{HostTensor, HostTensors, apply, parameters};
use crate::generate::{GenerateConfig, generate_from_memory};
use crate::train::cross_entropy;

const VOCAB: usize = 11;

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().unwrap()
}

fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
}

fn ids(rows: &[&[u32]], device: &Device) -> Tensor<2, Int> {
    let shape = [rows.len(), rows[0].len()];
    let ids: Vec<i32> = rows.concat().iter().map(|&id| id as i32).collect();
    Tensor::from_data(TensorData::new(ids, shape), device)
}

fn random(count: usize, bound: f32, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| (rng.random::<f32>() * 2.0 - 1.0) * bound).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "at {index}: {a} is not {b} within {tolerance}");
    }
}

pub(super) fn tiny() -> CaptionerConfig {
    CaptionerConfig {
        encoder: EncoderConfig {
            image_height: 8,
            image_width: 12,
            patch_size: 4,
            d_model: 12,
            num_layers: 2,
            num_heads: 3,
            d_ff: 16,
            ..EncoderConfig::default()
        },
        decoder: DecoderConfig {
            vocab_size: VOCAB,
            max_positions: 20,
            d_model: 8,
            num_layers: 2,
            num_heads: 2,
            d_ff: 16,
            dropout: 0.0,
            ..DecoderConfig::default()
        },
    }
}

/// As unlike [`tiny`] as the configuration allows.
fn other() -> CaptionerConfig {
    let mut config = tiny();
    config.encoder.patches = PatchSource::Stem(vec![5]);
    config.encoder.prefix_tokens = 1;
    config.encoder.qkv_bias = false;
    config.encoder.final_norm = false;
    config.encoder.patch_bias = false;
    config.encoder.embedding_norm = true;
    config.encoder.layer_scale = true;
    config.encoder.activation = Activation::QuickGelu;
    config.encoder.positions = PatchPositions::SinCos;
    config.decoder.norm = NormPlacement::Post;
    config.decoder.embedding_norm = true;
    config.decoder.final_norm = false;
    config.decoder.activation = Activation::GeluTanh;
    config.decoder.position_offset = 2;
    config.decoder.memory_projection = true;
    config.decoder.head = HeadKind::TransformUntied;
    config.decoder.head_bias = true;
    config
}

/// Six patches from a narrow MobileNetV2.
fn hybrid(config: &mut CaptionerConfig) {
    config.encoder.patches = PatchSource::MobileNetV2 { width: 0.1 };
    config.encoder.patch_size = 32;
    (config.encoder.image_height, config.encoder.image_width) = (64, 96);
}

/// A model in which every parameter, biases and norms too, is drawn at random: fresh weights would
/// hide a bias that is left out.
fn shaken(config: &CaptionerConfig, seed: u64, device: &Device) -> Captioner {
    shaken_by(0.6, config, seed, device)
}

fn shaken_by(most: f32, config: &CaptionerConfig, seed: u64, device: &Device) -> Captioner {
    let model = Captioner::new(config, device).unwrap();
    let mut weights = parameters(&model);
    for (index, (name, weight)) in weights.iter_mut().enumerate() {
        let bound = if weight.shape.len() == 1 { most / 2.0 } else { most };
        let drawn = random(weight.values.len(), bound, seed * 1000 + index as u64);
        let middle = if name.ends_with("gamma") { 1.0 } else { 0.0 };
        weight.values = drawn.into_iter().map(|value| middle + value).collect();
    }
    apply(model, weights, Path::new("test")).unwrap()
}

fn images(count: usize, config: &CaptionerConfig, device: &Device) -> Tensor<4> {
    let shape = [count, 3, config.encoder.image_height, config.encoder.image_width];
    let drawn = random(shape.iter().product(), 1.0, 7);
    Tensor::from_data(TensorData::new(drawn, shape), device)
}

// --- Attention ---

/// The gradient of every parameter that has one, by name.
pub(crate) fn gradients_by_name<M: Module>(
    module: &M,
    grads: GradientsParams,
) -> BTreeMap<String, Vec<f32>> {
    let mut collected = Collected { grads, found: BTreeMap::new() };
    visit_parameters(module, &mut collected);
    collected.found
}

struct Collected {
    grads: GradientsParams,
    found: BTreeMap<String, Vec<f32>>,
}

impl VisitParameters for Collected {
    fn visit<const D: usize>(&mut self, path: &ParameterPath, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            self.found.insert(path.dotted(), values(grad));
        }
    }
}

/// A loss that every parameter has a part in: two captions for each of two images, with padding.
fn loss(model: &Captioner, device: &Device) -> Tensor<1> {
    let config = model.config().clone();
    let memory = model.encode(images(2, &config, device));
    let captions: [&[u32]; 4] = [&[1, 4, 9, 2], &[1, 2, 3, 0], &[1, 5, 5, 8], &[1, 7, 0, 0]];
    let positions: Vec<i32> = vec![0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 0];
    let targets: Vec<i32> = vec![4, 9, 2, 10, 2, 3, 10, 5, 5, 8, 10, 7, 10, 0];
    let count = positions.len();
    let weights: Vec<f32> = (0..count).map(|at| f32::from(at + 1 < count)).collect();
    let positions = Tensor::from_data(TensorData::new(positions, [count]), device);
    let targets = Tensor::from_data(TensorData::new(targets, [count]), device);
    let weights = Tensor::from_data(TensorData::new(weights, [count]), device);
    let logits = model.decode_at(ids(&captions, device), memory, positions);
    cross_entropy(log_softmax(logits, 1), targets, Some(weights), 0.1)
}
