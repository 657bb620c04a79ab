//! wgpu against flex: the same weights must give the same numbers on both.
//!
//! Off unless `PATCHWORD_TEST_WGPU=1`: on a software adapter every kernel takes seconds to compile, and
//! autotune tries several for each shape. `.ci/run` has the command, which keeps it to few. Where the
//! tests are on, an adapter must be there.
//!
//! Sizes are kept equal throughout, as a new shape may be a new kernel.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use patchword::data::{Batch, LoaderConfig};
use patchword::device::{BackendKind, DeviceRequest, resolve};
use patchword::generate::{GenerateConfig, Generated, generate_from_memory};
use patchword::image::PreprocessConfig;
use patchword::model::{
    Activation, AttentionTrace, Captioner, CaptionerConfig, DecoderConfig, EncoderConfig,
    EncoderStage, HeadKind, NormPlacement, PatchSource, initialize,
};
use patchword::text::SpecialTokens;
use patchword::train::{AdamW, AdamWConfig, Regularization, forward_loss};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::SafeTensors;

/// As the default config smooths labels.
const SMOOTHED: Regularization = Regularization { label_smoothing: 0.1, r_drop: 0.0 };

const IMAGES: usize = 2;
const CAPTIONS: usize = 2;
const SEQ: usize = 8;
const SIDE: usize = 32;
const VOCAB: usize = 300;
const BEGIN: u32 = 1;
const END: u32 = 2;
/// What `patchword` rounds lengths up to on wgpu.
const BUCKET: usize = 8;

/// Largest difference allowed in values, as a share of their size.
const TOLERANCE: f64 = 1e-4;

/// The two devices; held by one test at a time, as each uses all cores.
struct Devices {
    flex: Device,
    wgpu: Device,
    _turn: MutexGuard<'static, ()>,
}

fn devices() -> Option<Devices> {
    static TURN: Mutex<()> = Mutex::new(());
    if std::env::var("PATCHWORD_TEST_WGPU").as_deref() != Ok("1") {
        eprintln!("skipped: set PATCHWORD_TEST_WGPU=1 to test wgpu against flex");
        return None;
    }
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let open = |request| match resolve(&request) {
        Ok(resolved) => resolved,
        Err(error) => panic!("PATCHWORD_TEST_WGPU=1, but {request} does not open: {error}"),
    };
    let wgpu = open(DeviceRequest::Wgpu(None));
    assert!(matches!(wgpu.kind, BackendKind::Wgpu(_)), "{}", wgpu.name);
    Some(Devices { flex: open(DeviceRequest::Flex).device, wgpu: wgpu.device, _turn: turn })
}

/// Our own kind of model.
fn own_model() -> CaptionerConfig {
    CaptionerConfig {
        encoder: EncoderConfig {
            image_height: SIDE,
            image_width: SIDE,
            patch_size: 8,
            d_model: 32,
            num_layers: 2,
            num_heads: 2,
            d_ff: 64,
            ..EncoderConfig::default()
        },
        decoder: DecoderConfig {
            vocab_size: VOCAB,
            max_positions: 24,
            d_model: 32,
            num_layers: 2,
            num_heads: 2,
            d_ff: 64,
            dropout: 0.0,
            ..DecoderConfig::default()
        },
    }
}

/// What our own kind has not, as in BLIP, BERT and GPT-2.
fn foreign_model() -> CaptionerConfig {
    let own = own_model();
    CaptionerConfig {
        encoder: EncoderConfig { prefix_tokens: 1, qkv_bias: false, d_model: 48, ..own.encoder },
        decoder: DecoderConfig {
            norm: NormPlacement::Post,
            embedding_norm: true,
            final_norm: false,
            activation: Activation::GeluTanh,
            layer_norm_epsilon: 1e-12,
            position_offset: 2,
            memory_projection: true,
            head: HeadKind::TransformTied,
            head_bias: true,
            ..own.decoder
        },
    }
}

/// A model whose patches come from a narrow MobileNetV2, four of them.
fn hybrid_model() -> CaptionerConfig {
    let own = own_model();
    CaptionerConfig {
        encoder: EncoderConfig {
            image_height: 2 * SIDE,
            image_width: 2 * SIDE,
            patch_size: SIDE,
            patches: PatchSource::MobileNetV2 { width: 0.1 },
            ..own.encoder
        },
        ..own
    }
}

/// The same with GELU's tanh form.
fn without_gelu(mut config: CaptionerConfig) -> CaptionerConfig {
    config.encoder.activation = Activation::GeluTanh;
    config.decoder.activation = Activation::GeluTanh;
    config
}

/// A model at the start of training, the same on every device.
fn fresh(config: &CaptionerConfig, device: &Device) -> Captioner {
    initialize(Captioner::new(config, device).unwrap(), 5)
}

/// [`fresh`], and then every weight moved, as if it had been trained: no bias is 0, no norm is 1, and
/// logits differ enough from one token to the next to decode something.
fn stirred(config: &CaptionerConfig, device: &Device) -> Captioner {
    struct Stir(ChaCha8Rng);
    impl ModuleMapper for Stir {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| {
                let (dims, device) = (tensor.dims(), tensor.device());
                let tracked = tensor.is_require_grad();
                let noise = noise(&mut self.0, dims.iter().product(), 0.3);
                let moved: Vec<f32> = values(tensor)
                    .into_iter()
                    .zip(noise)
                    .map(|(weight, noise)| weight + noise)
                    .collect();
                Tensor::from_data(TensorData::new(moved, dims), &device).set_require_grad(tracked)
            })
        }
    }
    fresh(config, device).map(&mut Stir(ChaCha8Rng::seed_from_u64(6)))
}

/// Uniform in `-bound..bound`.
fn noise(rng: &mut ChaCha8Rng, count: usize, bound: f32) -> Vec<f32> {
    (0..count).map(|_| (rng.random::<f32>() * 2.0 - 1.0) * bound).collect()
}

/// Normalised pixels, `[IMAGES, 3, side, side]`.
fn pixels(seed: u64, side: usize) -> Vec<f32> {
    noise(&mut ChaCha8Rng::seed_from_u64(seed), IMAGES * 3 * side * side, 1.0)
}

fn encode(model: &Captioner, device: &Device) -> Tensor<3> {
    let side = model.config().encoder.image_height;
    let pixels = TensorData::new(pixels(1, side), [IMAGES, 3, side, side]);
    model.encode(Tensor::from_data(pixels, device))
}

/// A batch as the loader makes it for a GPU: short rows, and targets padded to a round number.
fn batch(seed: u64, config: &CaptionerConfig) -> Batch {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut batch = Batch {
        images: IMAGES,
        captions_per_image: CAPTIONS,
        seq: SEQ,
        encoder_inputs: pixels(seed, config.encoder.image_height),
        ..Batch::default()
    };
    for length in [SEQ - 1, 4, 6, 2] {
        let start = batch.inputs.len();
        // Few different words, so that there is something to learn.
        let words: Vec<i32> = (0..length).map(|_| rng.random_range(3..20)).collect();
        batch.inputs.push(BEGIN as i32);
        batch.inputs.extend(&words);
        batch.inputs.resize(start + SEQ, 0);
        batch.positions.extend((start..=start + length).map(|at| at as i32));
        batch.targets.extend(&words);
        batch.targets.push(END as i32);
    }
    batch.tokens = batch.targets.len();
    batch.positions.resize(IMAGES * CAPTIONS * SEQ, 0);
    batch.targets.resize(IMAGES * CAPTIONS * SEQ, 0);
    batch
}

fn loader(config: &CaptionerConfig) -> LoaderConfig {
    let side = config.encoder.image_height;
    let preprocess = PreprocessConfig { height: side, width: side, ..Default::default() };
    let special = SpecialTokens { bos: BEGIN, eos: END, pad: 0 };
    LoaderConfig {
        batch_size: IMAGES,
        captions_per_image: CAPTIONS,
        bucket: BUCKET,
        ..LoaderConfig::plain(preprocess, special, SEQ)
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().unwrap()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// The norm of the difference as a share of the norm of `expected`.
fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().chain(expected).all(|value| value.is_finite()), "not all are numbers");
    let difference = found.iter().zip(expected).map(|(a, b)| f64::from(a - b));
    norm(difference) / norm(expected.iter().map(|&b| f64::from(b))).max(f64::MIN_POSITIVE)
}

/// Checks values as a whole (see [`distance`]) and one by one: each within `tolerance` of its own
/// size, or of the root mean square where it is smaller.
fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f64) {
    let distance = distance(found, expected);
    eprintln!("{what}: {} values, distance {distance:.1e}", found.len());
    assert!(distance <= tolerance, "{what}: distance {distance:e}");
    let mean = norm(expected.iter().map(|&b| f64::from(b))) / (expected.len() as f64).sqrt();
    for (index, (&a, &b)) in found.iter().zip(expected).enumerate() {
        let allowed = tolerance * f64::from(b.abs()).max(mean);
        assert!(f64::from((a - b).abs()) <= allowed, "{what}: value {index} is {a}, not {b}");
    }
}

/// Checks that each of several tensors is within `tolerance` of its expected norm.
fn assert_all_close(
    what: &str,
    found: &BTreeMap<String, Vec<f32>>,
    expected: &BTreeMap<String, Vec<f32>>,
    tolerance: f64,
) {
    assert!(found.keys().eq(expected.keys()), "{what}: {:?}", found.keys());
    let distances = found.iter().map(|(name, found)| (distance(found, &expected[name]), name));
    let (worst, name) = distances.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    eprintln!("{what}: {} tensors, the farthest {worst:.1e} ({name})", found.len());
    assert!(worst <= tolerance, "{what}: distance {worst:e} ({name})");
}

/// Everything a forward pass gives, by name.
fn forward(config: &CaptionerConfig, device: &Device) -> BTreeMap<String, Vec<f32>> {
    let model = stirred(config, device);
    let ids: Vec<i32> = batch(1, config).inputs;
    let ids: Tensor<2, Int> =
        Tensor::from_data(TensorData::new(ids, [IMAGES * CAPTIONS, SEQ]), device);
    let memory = encode(&model, device);
    let logits = model.decode(ids.clone(), memory.clone());
    let mut trace = AttentionTrace::new();
    let seen = model.decode_with_trace(ids, memory.clone(), &mut trace);
    let mut found = BTreeMap::from([
        ("memory".to_string(), values(memory)),
        ("logits".to_string(), values(logits)),
        ("logits, looking".to_string(), values(seen)),
    ]);
    for (layer, weights) in trace.self_attention.into_iter().enumerate() {
        found.insert(format!("self-attention of layer {layer}"), values(weights.weights));
    }
    for (layer, weights) in trace.cross_attention.into_iter().enumerate() {
        found.insert(format!("cross-attention of layer {layer}"), values(weights.weights));
    }
    found
}

fn assert_same_forward(config: &CaptionerConfig) {
    let Some(devices) = devices() else { return };
    let expected = forward(config, &devices.flex);
    let found = forward(config, &devices.wgpu);
    assert_eq!(found.len(), 3 + 2 * config.decoder.num_layers);
    for (what, found) in &found {
        assert_close(what, found, &expected[what], TOLERANCE);
    }
    // Both ways through attention, on the same device.
    assert_close("looking or not", &found["logits, looking"], &found["logits"], TOLERANCE);
}

#[test]
fn the_forward_pass_agrees() {
    assert_same_forward(&own_model());
}

#[test]
fn the_forward_pass_of_a_hybrid_agrees() {
    assert_same_forward(&hybrid_model());
}

#[test]
fn the_forward_pass_of_a_foreign_model_agrees() {
    assert_same_forward(&foreign_model());
}

/// Weights, or their gradients, by path.
#[derive(Default)]
struct Collect {
    path: Vec<String>,
    grads: Option<GradientsParams>,
    found: BTreeMap<String, Vec<f32>>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let taken = match &mut self.grads {
            Some(grads) => grads.remove::<D>(param.id).map(values),
            None => Some(values(param.val())),
        };
        if let Some(taken) = taken {
            self.found.insert(self.path.join("."), taken);
        }
    }
}

fn weights(model: &Captioner) -> BTreeMap<String, Vec<f32>> {
    let mut collect = Collect::default();
    model.visit(&mut collect);
    collect.found
}

/// The loss of a batch and its gradient for every weight that has one.
fn gradients(
    config: &CaptionerConfig,
    device: &Device,
    frozen: EncoderStage,
) -> (f32, BTreeMap<String, Vec<f32>>) {
    let device = device.clone().autodiff();
    let model = stirred(config, &device);
    let loss = forward_loss(&model, batch(1, config), &loader(config), SMOOTHED, frozen, &device);
    let value = values(loss.clone())[0];
    let grads = GradientsParams::from_grads(loss.backward(), &model);
    let mut collect = Collect { grads: Some(grads), ..Collect::default() };
    model.visit(&mut collect);
    (value, collect.found)
}

fn assert_same_gradients(config: &CaptionerConfig, frozen: EncoderStage, tolerance: f64) {
    let Some(devices) = devices() else { return };
    let (expected_loss, expected) = gradients(config, &devices.flex, frozen);
    let (loss, found) = gradients(config, &devices.wgpu, frozen);
    assert_close("loss", &[loss], &[expected_loss], TOLERANCE);
    let mut names: Vec<String> = weights(&fresh(config, &devices.flex)).into_keys().collect();
    names.retain(|name| match frozen {
        EncoderStage::States => !name.starts_with("encoder."),
        EncoderStage::Block(blocks) => {
            let parts = (0..blocks).map(|block| format!("blocks.{block}."));
            let before =
                parts.chain(["stem.".into()]).map(|part| format!("encoder.backbone.{part}"));
            before.into_iter().all(|part| !name.starts_with(&part))
        }
        _ => true,
    });
    assert!(names.iter().eq(expected.keys()), "flex: gradients of {:?}", expected.keys());
    assert_all_close("gradient", &found, &expected, tolerance);
}

#[test]
fn gradients_of_every_weight_agree() {
    assert_same_gradients(&without_gelu(own_model()), EncoderStage::Pixels, TOLERANCE);
}

#[test]
fn gradients_with_a_frozen_encoder_agree() {
    assert_same_gradients(&without_gelu(own_model()), EncoderStage::States, TOLERANCE);
}

#[test]
fn gradients_behind_the_first_blocks_of_a_backbone_agree() {
    // Where ReLU6 bends, a last digit decides.
    assert_same_gradients(&without_gelu(hybrid_model()), EncoderStage::Block(14), 3.0 * TOLERANCE);
}

#[test]
fn gradients_of_a_foreign_model_agree() {
    assert_same_gradients(&without_gelu(foreign_model()), EncoderStage::Pixels, TOLERANCE);
}

#[test]
fn gradients_through_gelu_agree() {
    assert_same_gradients(&own_model(), EncoderStage::Pixels, TOLERANCE);
}

/// What ten steps of training leave.
struct Trained {
    losses: Vec<f32>,
    end: BTreeMap<String, Vec<f32>>,
    averages: BTreeMap<String, Vec<f32>>,
}

fn train_ten_steps(config: &CaptionerConfig, device: &Device) -> Trained {
    let device = device.clone().autodiff();
    let mut model = fresh(config, &device);
    let mut optimizer = AdamW::new(&AdamWConfig { ema_decay: 0.9, ..AdamWConfig::default() });
    let mut losses = Vec::new();
    for step in 0..10 {
        let (batch, loader) = (batch(step % 2, config), loader(config));
        let loss = forward_loss(&model, batch, &loader, SMOOTHED, EncoderStage::Pixels, &device);
        losses.push(values(loss.clone().inner())[0]);
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        let rate_of = |path: &str| if path.starts_with("encoder.") { 2e-3 } else { 4e-3 };
        (model, _) = optimizer.step(model, grads, &rate_of);
    }
    let averages = weights(&optimizer.averaged(model.valid()));
    Trained { losses, end: weights(&model), averages }
}

/// How far training moved each weight. A key's bias adds the same to all scores of a query, which
/// softmax takes away: its gradient is rounding error, Adam makes steps of it, and it is left out.
fn moves(
    start: &BTreeMap<String, Vec<f32>>,
    end: &BTreeMap<String, Vec<f32>>,
) -> BTreeMap<String, Vec<f32>> {
    let moved = |(name, end): (&String, &Vec<f32>)| {
        let skipped = if name.ends_with("key_value.bias") { end.len() / 2 } else { 0 };
        let moves = start[name].iter().zip(end).skip(skipped).map(|(start, end)| end - start);
        (name.clone(), moves.collect())
    };
    end.iter().map(moved).collect()
}

fn assert_same_training(config: &CaptionerConfig, tolerance: f64) {
    let Some(devices) = devices() else { return };
    let expected = train_ten_steps(config, &devices.flex);
    let found = train_ten_steps(config, &devices.wgpu);
    let start = weights(&fresh(config, &devices.flex));
    assert_eq!(start, weights(&fresh(config, &devices.wgpu)));
    eprintln!("losses: {:?}", expected.losses);
    assert!(expected.losses[9] < 0.9 * expected.losses[0], "{:?}", expected.losses);
    for (step, (found, expected)) in found.losses.iter().zip(&expected.losses).enumerate() {
        assert_close(&format!("loss of step {step}"), &[*found], &[*expected], TOLERANCE);
    }
    for (what, found, expected) in
        [("weight", &found.end, &expected.end), ("average", &found.averages, &expected.averages)]
    {
        let (found, expected) = (moves(&start, found), moves(&start, expected));
        // Adam divides by the size of a gradient, and with it what is lost to rounding.
        assert_all_close(what, &found, &expected, tolerance);
    }
}

#[test]
fn ten_steps_of_training_agree() {
    assert_same_training(&without_gelu(own_model()), 1e-3);
}

#[test]
fn ten_steps_of_training_with_gelu_agree() {
    assert_same_training(&own_model(), 1e-3);
}

fn decode(
    device: &Device,
    prompt: &[u32],
    config: &GenerateConfig,
    bucket: usize,
) -> Vec<Generated> {
    let model = stirred(&own_model(), device);
    let memory = encode(&model, device);
    generate_from_memory(&model, &memory, prompt, END, config, bucket).unwrap()
}

fn assert_same_decoding(prompt: &[u32], config: &GenerateConfig) {
    let Some(devices) = devices() else { return };
    let expected = decode(&devices.flex, prompt, config, 1);
    let found = decode(&devices.wgpu, prompt, config, BUCKET);
    assert_eq!(found.len(), IMAGES);
    for (found, expected) in found.iter().zip(&expected) {
        eprintln!("{:?}", expected.ids);
        assert!(expected.ids.len() > BUCKET + 1, "one bucket only: {:?}", expected.ids);
        assert_eq!(found.ids, expected.ids);
        for (a, b) in found.log_probabilities.iter().zip(&expected.log_probabilities) {
            assert!((a - b).abs() <= 1e-3, "log-probability {a}, not {b}");
        }
        assert!((found.score - expected.score).abs() <= 1e-3, "score {}", found.score);
    }
    assert_ne!(expected[0].ids, expected[1].ids, "the image plays no part");
}

#[test]
fn cached_greedy_decoding_agrees() {
    assert_same_decoding(&[BEGIN], &GenerateConfig::greedy(12));
}

#[test]
fn cached_beam_search_agrees() {
    let config = GenerateConfig { num_beams: 3, max_new_tokens: 12, ..GenerateConfig::default() };
    // A prompt of several tokens is fed at once, behind a mask.
    assert_same_decoding(&[BEGIN, 17, 4], &config);
}

/// Public architectures with random weights: their logits, and what they say.
#[test]
fn public_models_agree() {
    let Some(devices) = devices() else { return };
    for case in ["blip", "vit-roberta", "deit-gpt2"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity").join(case);
        let compute = |device: &Device, bucket: usize| {
            let checkpoint = patchword::checkpoint::load(&folder, device).unwrap();
            let model = &checkpoint.model;
            let encoder = &model.config().encoder;
            let (height, width) = (encoder.image_height, encoder.image_width);
            let pixels = noise(&mut ChaCha8Rng::seed_from_u64(5), 2 * 3 * height * width, 2.0);
            let pixels =
                Tensor::<4>::from_data(TensorData::new(pixels, [2, 3, height, width]), device);
            let memory = model.encode(pixels);
            let ids = Tensor::<2, Int>::from_data(
                TensorData::new((0..14).map(|id| 3 + 5 * id).collect::<Vec<i32>>(), [2, 7]),
                device,
            );
            let logits = values(model.decode(ids, memory.clone()));
            let special = checkpoint.tokenizer.special_tokens();
            let greedy = GenerateConfig::greedy(8);
            let said =
                generate_from_memory(model, &memory, &[special.bos], special.eos, &greedy, bucket)
                    .unwrap();
            (logits, said.into_iter().map(|caption| caption.ids).collect::<Vec<_>>())
        };
        let (expected, said) = compute(&devices.flex, 1);
        let (found, heard) = compute(&devices.wgpu, BUCKET);
        // Random weights spread rounding over the logits: single ones are no measure.
        let apart = distance(&found, &expected);
        eprintln!("{case}: logits differ by {apart:.1e}");
        assert!(apart <= 1e-4, "{case}: logits differ by {apart:.1e}");
        assert_eq!(heard, said, "{case}");
    }
}

/// The three larger cases, where they are at hand: logits, and what is said, as transformers has them.
#[test]
fn parity_cases_are_those_of_transformers() {
    let Some(devices) = devices() else { return };
    let shared = std::env::var_os("PATCHWORD_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"),
        std::path::PathBuf::from,
    );
    for case in ["blip", "vit-gpt2", "vit-bert"] {
        let folder = shared.join("parity").join(case);
        if !folder.is_dir() {
            eprintln!("skipped: shared/parity/{case} is not here");
            continue;
        }
        let bytes = fs::read(folder.join("expected.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let floats = |name: &str| -> (Vec<f32>, Vec<usize>) {
            let view = file.tensor(name).unwrap();
            let bytes = view.data().as_chunks::<4>().0.iter();
            (bytes.map(|&bytes| f32::from_le_bytes(bytes)).collect(), view.shape().into())
        };
        let checkpoint = patchword::checkpoint::load(&folder, &devices.wgpu).unwrap();
        let model = &checkpoint.model;
        let (pixels, shape) = floats("pixel_values");
        let pixels = TensorData::new(pixels, shape);
        let memory = model.encode(Tensor::<4>::from_data(pixels, &devices.wgpu));
        let ids = file.tensor("input_ids").unwrap();
        let tokens = ids.data().as_chunks::<8>().0.iter();
        let tokens: Vec<i32> = tokens.map(|&id| i64::from_le_bytes(id) as i32).collect();
        let tokens = TensorData::new(tokens, ids.shape().to_vec());
        let tokens = Tensor::<2, Int>::from_data(tokens, &devices.wgpu);
        let logits = values(model.decode(tokens, memory.clone()));
        // Transformers' own f32 logits are up to 2.5e-4 of the largest one from exact ones here.
        let apart = distance(&logits, &floats("logits").0);
        eprintln!("{case}: logits differ by {apart:.1e}");
        assert!(apart <= 1e-4, "{case}: logits differ by {apart:.1e}");

        let said = fs::read(folder.join("expected.json")).unwrap();
        let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
        let special = checkpoint.tokenizer.special_tokens();
        let greedy = GenerateConfig { num_beams: 1, max_new_tokens: 16, ..checkpoint.generate };
        let heard =
            generate_from_memory(model, &memory, &[special.bos], special.eos, &greedy, BUCKET);
        for (image, heard) in heard.unwrap().iter().enumerate() {
            let ids = said["greedy"]["ids"][image].clone();
            let mut ids: Vec<u32> = serde_json::from_value(ids).unwrap();
            // A row that ended early is filled up.
            if let Some(at) = ids[1..].iter().position(|&id| id == special.eos) {
                ids.truncate(at + 2);
            }
            assert_eq!(heard.ids, ids, "{case}, image {image}");
        }
    }
}

/// Where the adapter computes in f16: what is said is as on flex in f32.
#[test]
fn cached_decoding_in_f16_agrees() {
    let Some(devices) = devices() else { return };
    if !devices.wgpu.supports_dtype(burn::tensor::FloatDType::F16) {
        eprintln!("skipped: this adapter does not compute in f16");
        return;
    }
    let config = GenerateConfig::greedy(12);
    let expected = decode(&devices.flex, &[BEGIN], &config, 1);
    let model = stirred(&own_model(), &devices.wgpu).into_f16();
    let memory = encode(&model, &devices.wgpu);
    let found = generate_from_memory(&model, &memory, &[BEGIN], END, &config, BUCKET).unwrap();
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.ids, expected.ids);
        for (a, b) in found.log_probabilities.iter().zip(&expected.log_probabilities) {
            assert!((a - b).abs() <= 0.05, "log-probability {a}, not {b}");
        }
    }
}

const CONFIG: &str = r#"
seed = 1

[data]
captions_per_image = 2

[image]
height = 32
width = 32
resize = "squash"
filter = "bicubic"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]

[augment]
crop_scale = [1.0, 1.0]
flip = 0.0

[tokenizer]
kind = "bpe"
vocab_size = 300

[model.encoder]
patch_size = 8
d_model = 32
num_layers = 1
num_heads = 2
d_ff = 64

[model.decoder]
max_positions = 24
d_model = 32
num_layers = 1
num_heads = 2
d_ff = 64
dropout = 0.0

[optimizer]
ema_decay = 0.5

[schedule]
learning_rate = 1e-2
warmup_steps = 2

[train]
max_steps = 6
batch_size = 4
log_every = 1
validation_images = 2
samples = 1

[generate]
num_beams = 2
max_new_tokens = 10
"#;

/// Runs patchword, which must succeed; gives what it wrote to stdout and stderr.
fn patchword(arguments: &[&str]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patchword"));
    command.args(arguments);
    for name in ["PATCHWORD_DEVICE", "NO_COLOR", "RUST_BACKTRACE", "RAYON_NUM_THREADS"] {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    eprintln!("patchword {}\n{stderr}", arguments.join(" "));
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
    (stdout, stderr)
}

fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A folder with drawn scenes and a config, in which the program trains.
struct Scenes(tempfile::TempDir);

impl Scenes {
    fn new(config: &str) -> Self {
        let scenes = Self(tempfile::tempdir().unwrap());
        fs::write(scenes.path("config.toml"), config).unwrap();
        patchword(&[
            "data",
            "shapes",
            &scenes.path("shapes"),
            "--images",
            "40",
            "--image-size",
            "32",
        ]);
        scenes
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().into()
    }

    /// Trains into a folder named as the device; gives the lines of its metrics, in order.
    fn train(&self, device: &str) -> Vec<serde_json::Value> {
        let (config, data, run) =
            (self.path("config.toml"), self.path("shapes"), self.path(device));
        let (_, stderr) =
            patchword(&["train", &config, "--data", &data, "--output", &run, "--device", device]);
        assert!(stderr.contains(&format!("device: {device}")), "{stderr}");
        json_lines(&fs::read_to_string(Path::new(&run).join("metrics.jsonl")).unwrap())
    }
}

#[test]
fn the_program_trains_and_captions_the_same() {
    let Some(_devices) = devices() else { return };
    let scenes = Scenes::new(CONFIG);
    let losses = |device: &str| -> Vec<f64> {
        scenes.train(device).iter().map(|line| line["loss"].as_f64().unwrap()).collect()
    };
    let (expected, found) = (losses("flex"), losses("wgpu"));
    assert!(expected.len() > 6, "{expected:?}");
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() <= 1e-3 * expected, "loss {found}, not {expected}");
    }
    assert_eq!(found.len(), expected.len());

    let model = scenes.path("wgpu");
    let images = &scenes.path("shapes/validation");
    let captions = |device: &str| {
        let words = ["caption", images, "--model", &model, "--format", "jsonl", "--device", device];
        json_lines(&patchword(&words).0)
    };
    let (found, expected) = (captions("wgpu"), captions("flex"));
    assert!(expected.len() >= 2, "{expected:?}");
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        for key in ["path", "caption", "token_ids"] {
            assert_eq!(found[key], expected[key], "{key}");
        }
        let (found, expected) = (&found["score"], &expected["score"]);
        let difference = found.as_f64().unwrap() - expected.as_f64().unwrap();
        assert!(difference.abs() <= 1e-3, "score {found}, not {expected}");
    }
}

#[test]
fn the_program_trains_on_the_score_the_same() {
    let Some(_devices) = devices() else { return };
    let scst = "\n[phase.scst]\nmax_steps = 4\nbatch_size = 4\nsamples = 4\n";
    let scenes = Scenes::new(&format!("{CONFIG}{scst}"));
    let rewards = |device: &str| -> Vec<f64> {
        scenes.train(device).iter().filter_map(|line| line["reward"].as_f64()).collect()
    };
    let (found, expected) = (rewards("wgpu"), rewards("flex"));
    eprintln!("rewards {found:?}, {expected:?}");
    assert_eq!((found.len(), expected.len()), (4, 4));
    // The same captions were sampled, or nearly: they are drawn on the host from either's words.
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() <= 1e-3, "reward {found}, not {expected}");
    }
    assert!(expected.iter().sum::<f64>() > 1e-3, "{expected:?}");
}
