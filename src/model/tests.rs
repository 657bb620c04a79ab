//! Numbers that can be checked by hand, and properties that every shape of model must have.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

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

fn tiny() -> CaptionerConfig {
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
    config.encoder.stem = vec![5];
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
    config.encoder.backbone = Some(Backbone::MobileNetV2);
    config.encoder.backbone_width = 0.1;
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

/// One head over `d_model` = 2 whose projections are given, without biases.
fn attention_by_hand(query: [f32; 4], key_value: [f32; 8], output: [f32; 4]) -> Attention {
    let config = AttentionConfig { d_model: 2, d_memory: 2, num_heads: 1, qkv_bias: false };
    let module = Attention::new(&config, &Device::flex());
    let host = |shape: &[usize], values: &[f32]| HostTensor {
        shape: shape.to_vec(),
        values: values.to_vec(),
    };
    let weights: HostTensors = [
        ("query.weight", host(&[2, 2], &query)),
        ("key_value.weight", host(&[2, 4], &key_value)),
        ("output.weight", host(&[2, 2], &output)),
        ("output.bias", host(&[2], &[0.0, 0.0])),
    ]
    .map(|(name, tensor)| (name.to_string(), tensor))
    .into();
    apply(module, weights, Path::new("test")).unwrap()
}

#[test]
fn cross_attention_gives_what_a_hand_computes() {
    // Queries and keys are taken as they are; values are ten times the first channel and twenty
    // times the second. A row of the matrix reads one input channel.
    let module = attention_by_hand(
        [1.0, 0.0, 0.0, 1.0],
        [
            1.0, 0.0, 10.0, 0.0, //
            0.0, 1.0, 0.0, 20.0,
        ],
        [1.0, 0.0, 0.0, 1.0],
    );
    let queries = tensor(&[1.0, 0.0, 0.0, 2.0], [1, 2, 2]);
    let memory = tensor(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], [1, 3, 2]);
    // Keys are (1,0), (0,1), (1,1) and values (10,0), (0,20), (10,20). Query (1,0) scores
    // (1, 0, 1)/√2, so its weights go as e^0.7071 = 2.0281, 1, 2.0281 with sum 5.0562. Query (0,2)
    // scores (0, 2, 2)/√2: 1, e^1.4142 = 4.1133, 4.1133 with sum 9.2265.
    let expected_weights = [0.401112, 0.197776, 0.401112, 0.108383, 0.445808, 0.445808];
    // 10 × (0.401112 + 0.401112), 20 × (0.197776 + 0.401112), and so on.
    let expected = [8.02224, 11.97776, 5.54192, 17.83233];
    let key_value = module.key_value(memory);
    assert_eq!(key_value.key.dims(), [1, 1, 3, 2]);
    assert_close(&values(key_value.key.clone()), &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], 0.0);
    assert_close(&values(key_value.value.clone()), &[10.0, 0.0, 0.0, 20.0, 10.0, 20.0], 0.0);
    let (out, weights) =
        module.attend_with_weights(queries.clone(), key_value.clone(), &AttentionMask::None);
    assert_close(&values(weights), &expected_weights, 2e-6);
    assert_close(&values(out), &expected, 2e-5);
    let fused = module.attend(queries.clone(), key_value.clone(), &AttentionMask::None);
    assert_close(&values(fused), &expected, 2e-5);

    // With the third key hidden from the first query, (1, 0)/√2 is left: 2.0281 and 1 of 3.0281.
    let hidden = TensorData::new(vec![false, false, true, false, false, false], [1, 1, 2, 3]);
    let mask = AttentionMask::Hidden(Tensor::<4, Bool>::from_data(hidden, &Device::flex()));
    let (out, weights) = module.attend_with_weights(queries, key_value, &mask);
    assert_close(&values(weights)[..3], &[0.669761, 0.330239, 0.0], 2e-6);
    assert_close(&values(out)[..2], &[6.697615, 6.604769], 2e-5);
}

#[test]
fn heads_are_parts_of_the_width_and_each_has_its_own_weights() {
    // Two heads of width 2. With the output map the identity, the first head fills channels 0 and 1.
    let config = AttentionConfig { d_model: 4, d_memory: 4, num_heads: 2, qkv_bias: true };
    let module = Attention::new(&config, &Device::flex());
    let mut weights = parameters(&module);
    for (index, (_, weight)) in weights.iter_mut().enumerate() {
        weight.values = random(weight.values.len(), 1.0, index as u64);
    }
    let identity: Vec<f32> = (0..16).map(|at| f32::from(at % 5 == 0)).collect();
    weights.get_mut("output.weight").unwrap().values = identity;
    weights.get_mut("output.bias").unwrap().values = vec![0.0; 4];
    let module = apply(module, weights, Path::new("test")).unwrap();
    let x = tensor(&random(2 * 3 * 4, 1.0, 20), [2, 3, 4]);
    let memory = tensor(&random(2 * 5 * 4, 1.0, 21), [2, 5, 4]);
    let key_value = module.key_value(memory);
    let (out, weights) = module.attend_with_weights(x, key_value.clone(), &AttentionMask::None);
    assert_eq!((out.dims(), weights.dims()), ([2, 3, 4], [2, 2, 3, 5]));
    for row in values(weights.clone()).chunks(5) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{row:?}");
        assert!(row.iter().all(|weight| (0.0..=1.0).contains(weight)), "{row:?}");
    }
    // The output is each head's weighted sum of its values, head by head.
    let (out, weights, value) = (values(out), values(weights), values(key_value.value));
    for image in 0..2 {
        for head in 0..2 {
            for query in 0..3 {
                for channel in 0..2 {
                    let sum: f32 = (0..5)
                        .map(|key| {
                            let weight = weights[((image * 2 + head) * 3 + query) * 5 + key];
                            weight * value[((image * 2 + head) * 5 + key) * 2 + channel]
                        })
                        .sum();
                    let found = out[(image * 3 + query) * 4 + head * 2 + channel];
                    assert!((found - sum).abs() < 1e-6, "{found} is not {sum}");
                }
            }
        }
    }
}

#[test]
fn fused_attention_equals_the_explicit_one_under_every_mask() {
    let device = Device::flex();
    let config = AttentionConfig { d_model: 16, d_memory: 12, num_heads: 4, qkv_bias: true };
    let module = Attention::new(&config, &device);
    let memory = tensor(&random(2 * 7 * 12, 2.0, 1), [2, 7, 12]);
    let key_value = module.key_value(memory);
    for seq in [1, 3, 7] {
        let x = tensor(&random(2 * seq * 16, 2.0, 2), [2, seq, 16]);
        let ragged: Vec<bool> = (0..seq * 7).map(|at| at % 7 > 1 && at % 3 == 0).collect();
        let ragged = Tensor::from_data(TensorData::new(ragged, [1, 1, seq, 7]), &device);
        let mut masks = vec![
            AttentionMask::None,
            AttentionMask::Causal,
            AttentionMask::Hidden(ragged),
            AttentionMask::causal_from(7 - seq, seq, 7, &device),
        ];
        if seq < 7 {
            masks.push(AttentionMask::causal_from(0, seq, 7, &device));
        }
        for mask in masks {
            let fused = module.attend(x.clone(), key_value.clone(), &mask);
            let (explicit, _) = module.attend_with_weights(x.clone(), key_value.clone(), &mask);
            assert_close(&values(fused), &values(explicit), 1e-5);
        }
    }
}

#[test]
fn a_causal_mask_shows_each_query_the_keys_up_to_its_own_position() {
    let device = Device::flex();
    let module = Attention::new(
        &AttentionConfig { d_model: 4, d_memory: 4, num_heads: 1, qkv_bias: true },
        &device,
    );
    let key_value = module.key_value(tensor(&random(24, 1.0, 1), [1, 6, 4]));
    let seen = |start: usize, seq: usize| -> Vec<usize> {
        let x = tensor(&random(seq * 4, 1.0, 2), [1, seq, 4]);
        let mask = AttentionMask::causal_from(start, seq, 6, &device);
        let (_, weights) = module.attend_with_weights(x, key_value.clone(), &mask);
        let weights = values(weights);
        for row in weights.chunks(6) {
            let count = row.iter().filter(|&&weight| weight > 0.0).count();
            assert!(row[..count].iter().all(|&weight| weight > 0.0), "{row:?}");
        }
        weights.chunks(6).map(|row| row.iter().filter(|&&w| w > 0.0).count()).collect()
    };
    assert_eq!(seen(0, 6), [1, 2, 3, 4, 5, 6]);
    assert_eq!(seen(4, 2), [5, 6]);
    assert_eq!(seen(5, 1), [6]);
    assert_eq!(seen(2, 2), [3, 4]);
    assert_eq!(seen(3, 1), [4]);
}

// --- The decoder ---

#[test]
fn a_token_changes_no_logits_before_it_by_a_single_bit() {
    let device = Device::flex();
    for config in [tiny(), other()] {
        let model = shaken(&config, 1, &device);
        let memory = model.encode(images(1, &config, &device));
        let sequence = [1u32, 4, 9, 2, 6, 3, 8];
        let before = values(model.decode(ids(&[&sequence], &device), memory.clone()));
        for at in 0..sequence.len() {
            let mut changed = sequence;
            changed[at] = (changed[at] + 5) % VOCAB as u32;
            let after = values(model.decode(ids(&[&changed], &device), memory.clone()));
            assert_eq!(bits(&before[..at * VOCAB]), bits(&after[..at * VOCAB]), "token {at}");
            assert_ne!(before[at * VOCAB..], after[at * VOCAB..], "token {at} has no effect");
        }
    }
}

#[test]
fn padding_on_the_right_changes_nothing_before_it() {
    let device = Device::flex();
    let config = tiny();
    let model = shaken(&config, 2, &device);
    let memory = model.encode(images(1, &config, &device));
    let alone = values(model.decode(ids(&[&[1, 4, 9, 2]], &device), memory.clone()));
    let padded = values(model.decode(ids(&[&[1, 4, 9, 2, 0, 0, 0]], &device), memory.clone()));
    assert_close(&padded[..4 * VOCAB], &alone, 1e-5);
    let other = values(model.decode(ids(&[&[1, 4, 9, 2, 5, 0, 7]], &device), memory));
    assert_eq!(bits(&other[..4 * VOCAB]), bits(&padded[..4 * VOCAB]));
}

#[test]
fn captions_that_share_an_image_equal_captions_of_its_copies() {
    let device = Device::flex();
    for config in [tiny(), other()] {
        let model = shaken(&config, 3, &device);
        let memory = model.encode(images(2, &config, &device));
        let [_, patches, width] = memory.dims();
        let captions: [&[u32]; 6] =
            [&[1, 4, 9], &[1, 2, 3], &[1, 8, 8], &[1, 5, 6], &[1, 3, 0], &[1, 10, 2]];
        let captions = ids(&captions, &device);
        let copies: Tensor<4> = memory.clone().reshape([2, 1, patches, width]);
        let copies = copies.expand([2, 3, patches, width]).reshape([6, patches, width]);
        let folded = values(model.decode(captions.clone(), memory.clone()));
        let repeated = values(model.decode(captions.clone(), copies.clone()));
        assert_close(&folded, &repeated, 1e-5);
        assert_ne!(folded[..3 * VOCAB], folded[9 * VOCAB..12 * VOCAB], "the image has no effect");

        let (logits, trace) = model.decode_with_trace(captions.clone(), memory.clone());
        assert_close(&values(logits), &folded, 1e-5);
        let (_, trace_of_copies) = model.decode_with_trace(captions.clone(), copies);
        for (one, other) in trace.cross_attention.into_iter().zip(trace_of_copies.cross_attention) {
            assert_close(&values(one), &values(other), 1e-5);
        }

        // Chosen positions are rows of the whole.
        let positions = Tensor::from_data(TensorData::new(vec![17i32, 0, 4], [3]), &device);
        let chosen = values(model.decode_at(captions, memory, positions));
        for (row, at) in chosen.chunks(VOCAB).zip([17, 0, 4]) {
            assert_close(row, &folded[at * VOCAB..(at + 1) * VOCAB], 1e-5);
        }
    }
}

// --- Cached decoding ---

#[test]
fn cached_decoding_equals_teacher_forcing() {
    let device = Device::flex();
    let rows: [&[u32]; 4] = [
        &[1, 4, 9, 2, 6, 3, 8, 8, 10, 5],
        &[1, 2, 2, 7, 0, 5, 1, 9, 3, 3],
        &[3, 10, 6, 2, 4, 4, 4, 0, 1, 2],
        &[5, 0, 7, 1, 9, 8, 2, 6, 6, 1],
    ];
    for config in [tiny(), other()] {
        let model = shaken(&config, 4, &device);
        let memory = model.encode(images(2, &config, &device));
        let whole = values(model.decode(ids(&rows, &device), memory.clone()));
        for bucket in [1, 8] {
            // Tokens fed at each step: one by one; a prompt first; more than one again later on.
            for steps in [vec![1; 10], vec![4, 1, 1, 1, 1, 1, 1], vec![3, 2, 1, 4], vec![10]] {
                let mut cache = model.start(&memory, 2, 16, bucket);
                assert!(cache.is_empty());
                let mut end = 0;
                for added in steps {
                    let fed: Vec<&[u32]> = rows.iter().map(|row| &row[end..end + added]).collect();
                    let logits = values(model.step(ids(&fed, &device), &mut cache));
                    end += added;
                    assert_eq!((cache.len(), cache.capacity()), (end, 16));
                    for (row, logits) in logits.chunks(VOCAB).enumerate() {
                        let at = (row * 10 + end - 1) * VOCAB;
                        assert_close(logits, &whole[at..at + VOCAB], 1e-4);
                    }
                }
            }
        }
    }
}

#[test]
fn greedy_decoding_with_a_cache_chooses_what_recomputation_chooses() {
    let device = Device::flex();
    for config in [tiny(), other()] {
        let model = shaken(&config, 5, &device);
        let memory = model.encode(images(3, &config, &device));
        let end = 0;
        let settings = GenerateConfig::greedy(15);
        let mut recomputed = Vec::new();
        for image in 0..3 {
            let own = memory.clone().narrow(0, image, 1);
            let mut sequence = vec![1u32, 6];
            for _ in 0..settings.max_new_tokens {
                let logits = values(model.decode(ids(&[&sequence], &device), own.clone()));
                let last = &logits[logits.len() - VOCAB..];
                let best = (1..VOCAB).fold(0, |a, b| if last[b] > last[a] { b } else { a });
                sequence.push(best as u32);
                if best == end {
                    break;
                }
            }
            recomputed.push(sequence);
        }
        for bucket in [1, 8] {
            let cached =
                generate_from_memory(&model, &memory, &[1, 6], end as u32, &settings, bucket);
            let cached: Vec<Vec<u32>> = cached.unwrap().into_iter().map(|out| out.ids).collect();
            assert_eq!(cached, recomputed, "bucket {bucket}");
        }
    }
}

#[test]
fn images_that_are_left_go_on_as_if_the_others_were_there() {
    let device = Device::flex();
    let config = tiny();
    let model = shaken(&config, 5, &device);
    let memory = model.encode(images(3, &config, &device));
    let step = |rows: &[u32], cache: &mut DecoderCache| {
        let columns: Vec<&[u32]> = rows.iter().map(std::slice::from_ref).collect();
        values(model.step(ids(&columns, &device), cache))
    };
    let mut all = model.start(&memory, 2, 4, 1);
    let mut fewer = model.start(&memory, 2, 4, 1);
    for cache in [&mut all, &mut fewer] {
        step(&[1, 2, 3, 4, 5, 6], cache);
    }
    assert_eq!(fewer.keep_images(&[0, 2]), 4);
    let expected = step(&[6, 5, 4, 3, 2, 1], &mut all);
    let found = step(&[6, 5, 2, 1], &mut fewer);
    assert_close(&found[..2 * VOCAB], &expected[..2 * VOCAB], 1e-6);
    assert_close(&found[2 * VOCAB..], &expected[4 * VOCAB..], 1e-6);
    assert_eq!(fewer.keep_images(&[1]), 2);
    let expected = step(&[2; 6], &mut all);
    assert_close(&step(&[2; 2], &mut fewer), &expected[4 * VOCAB..], 1e-6);
}

#[test]
fn samples_carry_the_models_own_log_probabilities() {
    let device = Device::flex();
    let config = tiny();
    let model = shaken(&config, 5, &device);
    let memory = model.encode(images(2, &config, &device));
    let plain = GenerateConfig::sampling(3, 8, 9);
    // What the draws are made from is no matter.
    let cut =
        GenerateConfig { temperature: 0.7, top_k: 5, repetition_penalty: 1.2, ..plain.clone() };
    for settings in [plain, cut] {
        let samples = generate_from_memory(&model, &memory, &[1, 6], 0, &settings, 1).unwrap();
        assert_eq!(samples.len(), 6, "three for each of two images");
        assert_ne!(samples[0].ids, samples[1].ids);
        for (index, sample) in samples.iter().enumerate() {
            let own = memory.clone().narrow(0, index / 3, 1);
            let logits = model.decode(ids(&[&sample.ids], &device), own);
            let expected = values(burn::tensor::activation::log_softmax(logits, 2));
            assert_eq!(sample.log_probabilities.len() + 2, sample.ids.len());
            for (at, &found) in sample.log_probabilities.iter().enumerate() {
                let expected = expected[(at + 1) * VOCAB + sample.ids[at + 2] as usize];
                assert!((found - expected).abs() < 1e-4, "{found}, not {expected}");
            }
            let sum: f32 = sample.log_probabilities.iter().sum();
            assert!((sample.score - sum / sample.log_probabilities.len() as f32).abs() < 1e-5);
        }
    }
}

#[test]
fn reordering_a_cache_moves_its_rows() {
    let device = Device::flex();
    let config = tiny();
    let model = shaken(&config, 6, &device);
    let memory = model.encode(images(2, &config, &device));
    let mut cache = model.start(&memory, 2, 8, 1);
    model.step(ids(&[&[1, 4, 9], &[1, 2, 3], &[1, 5, 5], &[1, 7, 0]], &device), &mut cache);
    // The first image's rows change places; both rows of the second go on from its second.
    cache.reorder(&[1, 0, 3, 3]);
    let next: [&[u32]; 4] = [&[6], &[8], &[2], &[10]];
    let moved = values(model.step(ids(&next, &device), &mut cache));
    let whole: [&[u32]; 4] = [&[1, 2, 3, 6], &[1, 4, 9, 8], &[1, 7, 0, 2], &[1, 7, 0, 10]];
    let expected = values(model.decode(ids(&whole, &device), memory).narrow(1, 3, 1));
    assert_close(&moved, &expected, 1e-4);
}

// --- Gradients ---

/// The gradient of every parameter that has one, by name.
pub(crate) fn gradients_by_name<M: Module>(
    module: &M,
    grads: GradientsParams,
) -> BTreeMap<String, Vec<f32>> {
    let mut collected = Collected { path: Vec::new(), grads, found: BTreeMap::new() };
    module.visit(&mut collected);
    collected.found
}

struct Collected {
    path: Vec<String>,
    grads: GradientsParams,
    found: BTreeMap<String, Vec<f32>>,
}

impl ModuleVisitor for Collected {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            self.found.insert(self.path.join("."), values(grad));
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

#[test]
fn gradients_equal_finite_differences_for_every_kind_of_parameter() {
    let device = Device::flex();
    let trained = device.clone().autodiff();
    let mut tied = other();
    tied.decoder.head = HeadKind::TransformTied;
    for (config, least) in [(tiny(), 80), (other(), 80), (tied, 80)] {
        let model = shaken_by(0.4, &config, 8, &trained);
        let grads = GradientsParams::from_grads(loss(&model, &trained).backward(), &model);
        let gradients = gradients_by_name(&model, grads);
        let weights = parameters(&model);
        assert!(weights.len() >= least, "{} parameters", weights.len());
        let missing: Vec<&String> =
            weights.keys().filter(|k| !gradients.contains_key(*k)).collect();
        assert!(missing.is_empty(), "no gradient reaches {missing:?}");

        // Along a direction of length 1 the loss changes as the gradient's part in it.
        let still = shaken_by(0.4, &config, 8, &device);
        let slope = |name: &str, direction: &[f32], step: f32| -> f64 {
            let at = |step: f32| -> f64 {
                let mut weights = weights.clone();
                let moved = &mut weights.get_mut(name).unwrap().values;
                moved.iter_mut().zip(direction).for_each(|(x, d)| *x += step * d);
                let model = apply(still.clone(), weights, Path::new("test")).unwrap();
                f64::from(values(loss(&model, &device))[0])
            };
            // Five points: the error falls with the fourth power, so that steps can be large enough
            // for f32.
            let near = at(step) - at(-step);
            let far = at(2.0 * step) - at(-2.0 * step);
            (8.0 * near - far) / (12.0 * f64::from(step))
        };
        // Where the loss bends sharply a step must be short: halved until the slope stays the same.
        // Returns it with what is uncertain about it, the loss being known to about 5e-7.
        let settled = |name: &str, direction: &[f32]| -> (f64, f64) {
            let mut step = 0.04;
            let mut last = slope(name, direction, step);
            loop {
                step /= 2.0;
                let next = slope(name, direction, step);
                let noise = 5e-7 / f64::from(step);
                if (next - last).abs() <= 2e-3 * next.abs() + noise {
                    return (next, noise);
                }
                assert!(step > 5e-4, "{name}: differences say {last}, then {next}");
                last = next;
            }
        };
        for (name, gradient) in &gradients {
            let norm = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
            let check = |what: &str, direction: Vec<f32>| {
                let expected: f64 = gradient
                    .iter()
                    .zip(&direction)
                    .map(|(&g, &d)| f64::from(g) * f64::from(d))
                    .sum();
                let (found, noise) = settled(name, &direction);
                let allowed = 2e-2 * expected.abs().max(found.abs()) + noise;
                assert!(
                    (found - expected).abs() <= allowed,
                    "{name}, {what}: the gradient says {expected}, differences {found}"
                );
            };
            if norm > 1e-6 {
                check("along the gradient", gradient.iter().map(|g| g / norm).collect());
            }
            let mut drawn = random(gradient.len(), 1.0, 9);
            let length = drawn.iter().map(|d| d * d).sum::<f32>().sqrt();
            drawn.iter_mut().for_each(|d| *d /= length);
            check("along a random direction", drawn);
            let largest = (0..gradient.len())
                .max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs()))
                .unwrap();
            let single = (0..gradient.len()).map(|at| f32::from(at == largest)).collect();
            check("its largest element", single);
        }
    }
}

#[test]
fn a_frozen_encoder_gets_no_gradient_and_gives_the_same_memory() {
    let device = Device::flex().autodiff();
    let config = other();
    let model = shaken(&config, 10, &device);
    let pixels = images(2, &config, &device);
    let stage = EncoderStage::States;
    let frozen = model.encode_from(model.encode_until(pixels.clone(), stage).autodiff(), stage);
    assert_close(&values(frozen.clone().inner()), &values(model.encode(pixels).inner()), 1e-5);
    let logits = model.decode(ids(&[&[1, 2, 3], &[1, 4, 5]], &device), frozen);
    let grads = GradientsParams::from_grads(logits.square().mean().backward(), &model);
    let gradients = gradients_by_name(&model, grads);
    assert!(gradients.keys().all(|name| !name.starts_with("encoder.")));
    assert!(gradients.contains_key("memory_projection.weight"));
}

#[test]
fn an_encoder_cut_at_any_stage_gives_the_same_memory() {
    use EncoderStage::{Block, Patches, Pixels, States};
    let device = Device::flex().autodiff();
    let stem = other();
    let mut of_blocks = tiny();
    hybrid(&mut of_blocks);
    let cuts = [Pixels, Block(0), Block(1), Block(4), Block(14), Block(17), Patches, States];
    for (config, cuts) in [(stem, &[Pixels, Patches, States][..]), (of_blocks, &cuts[..])] {
        let model = shaken(&config, 10, &device);
        let pixels = images(2, &config, &device);
        let whole = values(model.encode(pixels.clone()).inner());
        let mut before = usize::MAX;
        for &stage in cuts {
            let features = model.encode_until(pixels.clone(), stage);
            let [batch, a, b] = features.dims();
            assert_eq!((batch, [a, b]), (2, config.encoder.stage_shape(stage)), "{stage:?}");
            let memory = model.encode_from(features.autodiff(), stage);
            assert_close(&values(memory.clone().inner()), &whole, 1e-4);
            // What comes before the cut has no gradient, all that comes after it has.
            let logits = model.decode(ids(&[&[1, 2, 3], &[1, 4, 5]], &device), memory);
            let grads = GradientsParams::from_grads(logits.square().mean().backward(), &model);
            let learned = gradients_by_name(&model, grads).len();
            assert!(learned < before, "{stage:?}: {learned} gradients, {before} one stage earlier");
            before = learned;
        }
    }
}

// --- Every shape of model ---

#[test]
fn every_kind_of_config_builds_and_has_the_right_shapes() {
    type Change = fn(&mut CaptionerConfig);
    let changes: [(&str, Change); 20] = [
        ("plain", |_| {}),
        ("stem", |c| c.encoder.stem = vec![4, 6]),
        ("hybrid", hybrid),
        ("hybrid without layers", |c| {
            hybrid(c);
            c.encoder.num_layers = 0;
        }),
        ("no patch bias", |c| c.encoder.patch_bias = false),
        ("norm before the encoder", |c| c.encoder.embedding_norm = true),
        ("layer scale", |c| c.encoder.layer_scale = true),
        ("quick GELU", |c| c.encoder.activation = Activation::QuickGelu),
        ("post-norm", |c| {
            c.decoder.norm = NormPlacement::Post;
            c.decoder.final_norm = false;
        }),
        ("embedding norm", |c| c.decoder.embedding_norm = true),
        ("transform head", |c| c.decoder.head = HeadKind::TransformTied),
        ("untied transform head with bias", |c| {
            c.decoder.head = HeadKind::TransformUntied;
            c.decoder.head_bias = true;
        }),
        ("untied", |c| c.decoder.head = HeadKind::Untied),
        ("class token", |c| c.encoder.prefix_tokens = 1),
        ("class and distillation tokens", |c| c.encoder.prefix_tokens = 2),
        ("sin-cos", |c| c.encoder.positions = PatchPositions::SinCos),
        ("class token and sin-cos", |c| {
            c.encoder.prefix_tokens = 1;
            c.encoder.positions = PatchPositions::SinCos;
        }),
        ("memory projection", |c| c.decoder.memory_projection = true),
        ("position offset", |c| c.decoder.position_offset = 2),
        ("relu, no biases, no final norms", |c| {
            c.encoder.activation = Activation::Relu;
            c.decoder.activation = Activation::Relu;
            c.encoder.qkv_bias = false;
            c.encoder.final_norm = false;
            c.decoder.final_norm = false;
        }),
    ];
    let device = Device::flex();
    let mut seen = BTreeMap::new();
    for (name, change) in changes {
        let mut config = tiny();
        change(&mut config);
        let model = shaken(&config, 11, &device);
        let patches = 6 + config.encoder.num_prefix();
        let memory = model.encode(images(2, &config, &device));
        assert_eq!(memory.dims(), [2, patches, config.memory_width()], "{name}");
        let captions = ids(&[&[1, 2, 3], &[1, 4, 5], &[1, 6, 7], &[1, 8, 9]], &device);
        let (logits, trace) = model.decode_with_trace(captions.clone(), memory.clone());
        assert_eq!(logits.dims(), [4, 3, VOCAB], "{name}");
        assert_close(&values(logits.clone()), &values(model.decode(captions, memory)), 1e-5);
        assert_eq!((trace.self_attention.len(), trace.cross_attention.len()), (2, 2), "{name}");
        for weights in trace.self_attention {
            assert_eq!(weights.dims(), [4, 2, 3, 3], "{name}");
            assert_close(&values(weights.sum_dim(3)), &[1.0; 24], 1e-5);
        }
        for weights in trace.cross_attention {
            assert_eq!(weights.dims(), [4, 2, 3, patches], "{name}");
            assert_close(&values(weights.sum_dim(3)), &[1.0; 24], 1e-5);
        }
        let logits = values(logits);
        assert!(logits.iter().all(|x| x.is_finite()), "{name}");
        let same = seen.insert(bits(&logits), name);
        assert_eq!(same, None, "{name} computes what another config computes");
    }
}

#[test]
fn a_config_that_cannot_be_built_names_its_key() {
    type Change = fn(&mut CaptionerConfig);
    let changes: [(&str, Change); 16] = [
        ("encoder.stem", |c| c.encoder.stem = vec![4, 4, 4]),
        ("encoder.stem", |c| {
            hybrid(c);
            c.encoder.stem = vec![4];
        }),
        ("encoder.patch_size", |c| c.encoder.backbone = Some(Backbone::MobileNetV2)),
        ("encoder.backbone_width", |c| c.encoder.backbone_width = f64::NAN),
        ("encoder.patch_size", |c| c.encoder.patch_size = 0),
        ("encoder.image_width", |c| c.encoder.image_width = 13),
        ("encoder.image_height", |c| c.encoder.image_height = 0),
        ("encoder.num_heads", |c| c.encoder.num_heads = 5),
        ("encoder.num_layers", |c| c.encoder.num_layers = 0),
        ("encoder.dropout", |c| c.encoder.dropout = 1.0),
        ("encoder.drop_path", |c| c.encoder.drop_path = f64::NAN),
        ("encoder.d_model", |c| {
            c.encoder.d_model = 6;
            c.encoder.positions = PatchPositions::SinCos;
        }),
        ("decoder.vocab_size", |c| c.decoder.vocab_size = 0),
        ("decoder.max_positions", |c| c.decoder.max_positions = 1),
        ("decoder.num_heads", |c| c.decoder.num_heads = 0),
        ("decoder.layer_norm_epsilon", |c| c.decoder.layer_norm_epsilon = f64::NAN),
    ];
    for (key, change) in changes {
        let mut config = tiny();
        change(&mut config);
        let error = Captioner::new(&config, &Device::flex()).unwrap_err();
        assert_eq!(error.key, key, "{error}");
    }
}

#[test]
fn configs_of_before_backbones_and_layer_scale_still_load() {
    let old = r#"{
        "image_height": 224, "image_width": 224, "patch_size": 16, "stem": [], "d_model": 384,
        "num_layers": 6, "num_heads": 6, "d_ff": 1536, "class_token": false, "final_norm": true,
        "qkv_bias": true, "activation": "gelu", "layer_norm_epsilon": 1e-6, "positions": "learned",
        "position_temperature": 10000.0, "dropout": 0.0, "drop_path": 0.0
    }"#;
    assert_eq!(serde_json::from_str::<EncoderConfig>(old).unwrap(), EncoderConfig::default());
    // And what is written can be read, with a backbone and without.
    let mut config = CaptionerConfig::default();
    for change in [|_: &mut CaptionerConfig| (), hybrid] {
        change(&mut config);
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<CaptionerConfig>(&json).unwrap(), config);
        let toml = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<CaptionerConfig>(&toml).unwrap(), config);
    }
}

#[test]
fn a_patch_reads_its_own_square_of_pixels_and_no_other() {
    // Without layers between, a patch's feature would depend on its square alone; attention mixes
    // them, so look at the keys of the first layer's input instead: with identity-free weights the
    // easiest witness is that changing a pixel changes the patch that holds it the most.
    let device = Device::flex();
    let mut config = tiny();
    config.encoder.num_layers = 1;
    let model = shaken(&config, 12, &device);
    let mut weights = parameters(&model);
    for (name, weight) in &mut weights {
        // Residual branches that give nothing: each position keeps its own patch embedding.
        if name.starts_with("encoder.layers.") && name.contains(".output.") {
            weight.values.fill(0.0);
        }
    }
    let model = apply(model, weights, Path::new("test")).unwrap();
    let [height, width] = [8, 12];
    let base = random(3 * height * width, 1.0, 13);
    let encode = |pixels: &[f32]| values(model.encode(tensor(pixels, [1, 3, height, width])));
    let before = encode(&base);
    for (row, col) in [(0, 0), (3, 3), (3, 4), (5, 11), (7, 8)] {
        let mut changed = base.clone();
        changed[(height + row) * width + col] += 0.5;
        let after = encode(&changed);
        let patch = row / 4 * 3 + col / 4;
        for (index, (a, b)) in before.chunks(12).zip(after.chunks(12)).enumerate() {
            assert_eq!(a != b, index == patch, "pixel ({row}, {col}), patch {index}");
        }
    }
}

// --- Weights and noise ---

#[test]
fn the_same_seed_gives_the_same_weights_on_every_device() {
    let config = other();
    let device = Device::flex();
    let make = |seed: u64, device: &Device| {
        parameters(&initialize(Captioner::new(&config, device).unwrap(), seed))
    };
    let first = make(1, &device);
    assert_eq!(first, make(1, &device));
    assert_eq!(first, make(1, &device.clone().autodiff()));
    assert_ne!(first, make(2, &device));
    for (name, weight) in &first {
        let expected = if name.ends_with("gamma") { Some(1.0) } else { None };
        let expected = expected.or(name.ends_with("_scale").then_some(0.1));
        let expected = expected.or((weight.shape.len() == 1).then_some(0.0));
        match expected {
            Some(constant) => assert!(weight.values.iter().all(|&x| x == constant), "{name}"),
            None => assert!(weight.values.iter().any(|&x| x != weight.values[0]), "{name}"),
        }
    }
}

#[test]
fn dropout_and_drop_path_do_nothing_without_autodiff() {
    let device = Device::flex();
    let mut noisy = tiny();
    noisy.encoder.dropout = 0.4;
    noisy.encoder.drop_path = 0.4;
    noisy.decoder.dropout = 0.4;
    let run = |config: &CaptionerConfig, device: &Device| {
        let model = shaken(config, 14, device);
        let memory = model.encode(images(2, config, device));
        let logits = model.decode(ids(&[&[1, 2, 3], &[1, 4, 5]], device), memory);
        bits(&values(if device.is_autodiff() { logits.inner() } else { logits }))
    };
    let quiet = run(&tiny(), &device);
    assert_eq!(run(&noisy, &device), quiet);
    assert_eq!(run(&noisy, &device), quiet);

    // With autodiff they do something. (That a seed repeats it is shown by tests/resume.rs: here
    // other tests draw from the device's generator too.)
    let trained = device.autodiff();
    let first = run(&noisy, &trained);
    assert_ne!(first, quiet);
    assert_ne!(first, run(&noisy, &trained));
}

#[test]
fn prefix_tokens_are_a_count_and_were_a_flag() {
    let read = |text: &str| serde_json::from_str::<EncoderConfig>(text).map(|c| c.prefix_tokens);
    assert_eq!(read("{}").unwrap(), 0);
    assert_eq!(read(r#"{"prefix_tokens": 2}"#).unwrap(), 2);
    assert_eq!(read(r#"{"class_token": true}"#).unwrap(), 1);
    assert_eq!(read(r#"{"class_token": false}"#).unwrap(), 0);
    assert!(read(r#"{"class_token": "yes"}"#).is_err());
    assert!(read(r#"{"prefix_tokens": -1}"#).is_err());
    let mut config = tiny();
    config.encoder.prefix_tokens = 1000;
    assert_eq!(config.validate().unwrap_err().key, "encoder.prefix_tokens");
    let text = toml::from_str::<EncoderConfig>("class_token = true").unwrap();
    assert_eq!(text.prefix_tokens, 1);
}

#[test]
fn another_image_size_changes_the_positions_only() {
    let device = Device::flex();
    for positions in [PatchPositions::Learned, PatchPositions::SinCos] {
        let mut config = tiny();
        config.encoder.prefix_tokens = 2;
        config.encoder.positions = positions;
        let model = shaken(&config, 5, &device);
        let patch = config.encoder.patch_size;
        let mut larger = config.clone();
        larger.encoder.image_height = 5 * patch;
        larger.encoder.image_width = 3 * patch;
        let other = model.clone().with_image_size(5 * patch, 3 * patch).unwrap();
        assert_eq!(*other.config(), larger);
        let memory = other.encode(images(1, &larger, &device));
        assert_eq!(memory.dims(), [1, 2 + 15, larger.memory_width()]);
        assert!(values(memory).iter().all(|x| x.is_finite()));
        // Its parameters are those of a model built for that size, by name and shape.
        let shapes = |model: &Captioner| -> Vec<(String, Vec<usize>)> {
            let all = crate::checkpoint::tensors::parameters(model);
            all.into_iter().map(|(name, tensor)| (name, tensor.shape)).collect()
        };
        assert_eq!(shapes(&other), shapes(&Captioner::new(&larger, &device).unwrap()));
        let same = (config.encoder.image_height, config.encoder.image_width);
        let same = model.clone().with_image_size(same.0, same.1).unwrap();
        let pixels = images(2, &config, &device);
        let (a, b) = (model.encode(pixels.clone()), same.encode(pixels));
        assert_eq!(bits(&values(a)), bits(&values(b)));
        let error = model.with_image_size(patch + 1, patch).unwrap_err();
        assert_eq!(error.key, "encoder.image_height");
    }
}
