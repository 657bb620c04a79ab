//! Parity with what others compute with the same weights: torchvision's MobileNetV2
//! (`tests/fixtures/encoders/make_mobilenet.py`) and transformers' encoders (`make_encoders.py` beside it).

use std::collections::BTreeMap;
use std::fs;

use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use serde::Deserialize;

use super::super::tensors::{self, HostTensor};
use super::super::weight_file::WeightFile;
use super::*;
use crate::model::tests::gradients_by_name;
use crate::model::{
    CaptionerConfig, DecoderConfig, EncoderStage, MobileNetV2Shape, PatchSource, initialize,
};
use crate::shared::shared;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoders").join(name)
}

// --- MobileNetV2 ---

#[derive(Deserialize)]
struct Recorded {
    cases: Vec<Features>,
    real: Features,
}

#[derive(Deserialize)]
struct Features {
    #[serde(default = "one")]
    width: f64,
    image_height: usize,
    image_width: usize,
    shape: [usize; 4],
    /// Of the flattened features, only one in so many is recorded.
    every: usize,
    features: Vec<f32>,
    /// Of some layers.
    #[serde(default)]
    gradients: BTreeMap<String, Gradients>,
}

/// Of the features' sum, each times a number: about 40 elements of a weight and 20 of a bias.
#[derive(Deserialize)]
struct Gradients {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

fn one() -> f64 {
    1.0
}

fn recorded() -> Recorded {
    serde_json::from_slice(&fs::read(fixture("mobilenet.json")).unwrap()).unwrap()
}

/// The script's `uniform`.
fn uniform(count: usize, salt: u64) -> Vec<f64> {
    let hash = |index: u64| {
        let mut h = (index * 2_654_435_761 + salt * 40_503) & 0xFFFF_FFFF;
        h ^= h >> 15;
        h = (h * 2_246_822_519) & 0xFFFF_FFFF;
        h ^= h >> 13;
        h as f64 / 4_294_967_296.0
    };
    (0..count as u64).map(hash).collect()
}

/// The script's weight of a name and a shape.
fn weight(name: &str, shape: &[usize]) -> HostTensor {
    let salt = name.bytes().zip(1..).map(|(byte, at)| at * u64::from(byte)).sum();
    let drawn = uniform(shape.iter().product(), salt);
    let inputs: usize = shape[1..].iter().product();
    let change = |u: f64| {
        if name.ends_with("running_var") {
            0.5 + u
        } else if name.ends_with("running_mean") {
            0.2 * (2.0 * u - 1.0)
        } else if shape.len() > 1 {
            (2.0 * u - 1.0) * (6.0 / inputs as f64).sqrt()
        } else if name.ends_with("weight") {
            0.6 + 0.8 * u
        } else {
            0.4 * (2.0 * u - 1.0)
        }
    };
    let values = drawn.into_iter().map(|u| change(u) as f32).collect();
    HostTensor { shape: shape.to_vec(), values }
}

/// All weights of torchvision's network by its names, classes too.
fn torchvision(width: f64) -> HostTensors {
    let shape = MobileNetV2Shape::new(width);
    let mut tensors = HostTensors::new();
    let mut add = |name: String, shape: &[usize]| {
        let drawn = weight(&name, shape);
        tensors.insert(name, drawn);
    };
    let mut layer = |conv: String, norm: String, shape: [usize; 4]| {
        add(format!("{conv}.weight"), &shape);
        for part in ["weight", "bias", "running_mean", "running_var"] {
            add(format!("{norm}.{part}"), &shape[..1]);
        }
    };
    layer("features.0.0".into(), "features.0.1".into(), [shape.stem, 3, 3, 3]);
    for (index, block) in shape.blocks.iter().enumerate() {
        let name = |part: String| format!("features.{}.conv.{part}", index + 1);
        let expands = usize::from(block.hidden != block.input);
        if expands == 1 {
            let shape = [block.hidden, block.input, 1, 1];
            layer(name("0.0".into()), name("0.1".into()), shape);
        }
        let depthwise = [block.hidden, 1, 3, 3];
        layer(name(format!("{expands}.0")), name(format!("{expands}.1")), depthwise);
        let project = [block.output, block.hidden, 1, 1];
        layer(name(format!("{}", expands + 1)), name(format!("{}", expands + 2)), project);
    }
    let last = shape.blocks.last().unwrap().output;
    layer("features.18.0".into(), "features.18.1".into(), [shape.channels, last, 1, 1]);
    add("classifier.1.weight".into(), &[10, shape.channels]);
    add("classifier.1.bias".into(), &[10]);
    tensors
}

/// A file of those weights.
fn saved(tensors: &HostTensors) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mobilenet.safetensors");
    crate::checkpoint::tensors::write(&file, tensors, [].into()).unwrap();
    (folder, file)
}

/// A hybrid with this backbone.
fn hybrid(pretrained: &PretrainedEncoder, height: usize, width: usize) -> CaptionerConfig {
    let wanted = EncoderConfig {
        image_height: height,
        image_width: width,
        d_model: 8,
        num_layers: 0,
        num_heads: 2,
        d_ff: 8,
        ..EncoderConfig::default()
    };
    CaptionerConfig {
        encoder: pretrained.config_for(&wanted),
        decoder: DecoderConfig {
            vocab_size: 10,
            max_positions: 8,
            d_model: 8,
            num_layers: 1,
            num_heads: 2,
            d_ff: 8,
            ..DecoderConfig::default()
        },
    }
}

fn pixels(height: usize, width: usize, device: &Device) -> Tensor<4> {
    let drawn = uniform(2 * 3 * height * width, 7);
    let values: Vec<f32> = drawn.into_iter().map(|u| (4.0 * u - 2.0) as f32).collect();
    Tensor::from_data(TensorData::new(values, [2, 3, height, width]), device)
}

#[track_caller]
fn assert_features(found: Tensor<3>, expected: &Features, within: f32) {
    let [batch, channels, rows, cols] = expected.shape;
    assert_eq!(found.dims(), [batch, rows * cols, channels]);
    let found = found.swap_dims(1, 2).try_into_vec_as::<f32>().unwrap();
    let found: Vec<f32> = found.into_iter().step_by(expected.every).collect();
    assert_eq!(found.len(), expected.features.len());
    let scale = expected.features.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    let alive = expected.features.iter().filter(|&&x| x > 0.0 && x < 6.0).count();
    assert!(alive * 20 > found.len(), "{alive} features of {} tell anything", found.len());
    for (index, (a, b)) in found.iter().zip(&expected.features).enumerate() {
        assert!((a - b).abs() <= within * scale, "at {index}: {a}, torchvision {b}");
    }
}

#[test]
fn mobilenet_features_are_those_of_torchvision() {
    for case in recorded().cases {
        let (_folder, file) = saved(&torchvision(case.width));
        let pretrained = load(&file).unwrap();
        assert_eq!(pretrained.config.patches, PatchSource::MobileNetV2 { width: case.width });
        let config = hybrid(&pretrained, case.image_height, case.image_width);
        let device = Device::flex();
        let model = initialize(Captioner::new(&config, &device).unwrap(), 1);
        let model = pretrained.put_into(model).unwrap();
        let features = model.encode_until(
            pixels(case.image_height, case.image_width, &device),
            EncoderStage::Patches,
        );
        assert_features(features, &case, 1e-4);
    }
}

#[test]
fn mobilenet_gradients_are_those_of_torchvision() {
    let case = recorded().cases.swap_remove(0);
    let (_folder, file) = saved(&torchvision(case.width));
    let pretrained = load(&file).unwrap();
    let config = hybrid(&pretrained, case.image_height, case.image_width);
    let device = Device::flex().autodiff();
    let encoder = VisionEncoder::new(&config.encoder, &device).unwrap();
    let mut weights = parameters(&Alone { encoder: encoder.clone() });
    weights.extend(pretrained.tensors);
    let Alone { encoder } = apply(Alone { encoder }, weights, &file).unwrap();
    let features = encoder.patches(pixels(case.image_height, case.image_width, &device));
    let [batch, patches, channels] = features.dims();
    let drawn = uniform(batch * patches * channels, 9);
    let drawn = drawn.into_iter().map(|u| (2.0 * u - 1.0) as f32).collect();
    let drawn = TensorData::new(drawn, [batch, channels, patches]);
    let drawn: Tensor<3> = Tensor::from_data(drawn, &device);
    let loss = (features.swap_dims(1, 2) * drawn).sum();
    let grads = GradientsParams::from_grads(loss.backward(), &encoder);
    let gradients = gradients_by_name(&encoder, grads);
    // 52 convolutions: the first, three a block but for one, the last.
    assert_eq!(gradients.len(), 2 * 52);
    assert_eq!(case.gradients.len(), 13);
    for (layer, expected) in &case.gradients {
        for (part, expected, about) in
            [("weight", &expected.weight, 40), ("bias", &expected.bias, 20)]
        {
            let found = &gradients[&format!("backbone.{layer}.{part}")];
            let every = (found.len() / about).max(1);
            let scale = expected.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
            assert_eq!(found.len().div_ceil(every), expected.len());
            for (a, b) in found.iter().step_by(every).zip(expected) {
                assert!((a - b).abs() < 1e-3 * scale, "{layer}.{part}: {a}, torchvision {b}");
            }
        }
    }
}

#[test]
fn mobilenet_features_of_the_imagenet_weights_are_those_of_torchvision() {
    let Some(file) = shared("weights/mobilenet_v2-b0353104.pth") else { return };
    let case = recorded().real;
    let pretrained = load(&file).unwrap();
    assert_eq!(pretrained.preprocess.mean, [0.485, 0.456, 0.406]);
    let config = hybrid(&pretrained, 224, 224);
    let device = Device::flex();
    let model = initialize(Captioner::new(&config, &device).unwrap(), 1);
    let model = pretrained.put_into(model).unwrap();
    let features = model.encode_until(pixels(224, 224, &device), EncoderStage::Patches);
    assert_features(features, &case, 1e-4);
}

#[test]
fn a_backbone_is_put_into_a_model_of_its_shape_and_the_rest_stays() {
    let (_folder, file) = saved(&torchvision(0.25));
    let pretrained = load(&file).unwrap();
    let device = Device::flex();
    let config = hybrid(&pretrained, 32, 64);
    let model = initialize(Captioner::new(&config, &device).unwrap(), 1);
    let before = parameters(&model);
    let after = parameters(&pretrained.clone().put_into(model).unwrap());
    for (name, tensor) in &before {
        let same = *tensor == after[name];
        assert_eq!(same, !name.starts_with("encoder.backbone."), "{name}");
    }

    let mut other = config.clone();
    other.encoder.patches = PatchSource::MobileNetV2 { width: 0.5 };
    let model = Captioner::new(&other, &device).unwrap();
    let error = pretrained.clone().put_into(model).unwrap_err().to_string();
    assert!(error.contains("`encoder.backbone_width` is 0.25 here, but 0.5"), "{error}");
    other.encoder = EncoderConfig { d_model: 8, num_heads: 2, ..EncoderConfig::default() };
    let model = Captioner::new(&other, &device).unwrap();
    let error = pretrained.put_into(model).unwrap_err().to_string();
    assert!(error.contains("`encoder.patch_size` is 32 here, but 16"), "{error}");
}

#[test]
fn every_tensor_of_a_mobilenet_is_accounted_for() {
    let whole = torchvision(0.25);
    let spoilt = |change: &dyn Fn(&mut HostTensors)| {
        let mut tensors = whole.clone();
        change(&mut tensors);
        let (_folder, file) = saved(&tensors);
        load(&file).unwrap_err()
    };
    let name = "features.3.conv.1.1.running_var";
    let error = spoilt(&|tensors| drop(tensors.remove(name)));
    assert!(matches!(error, CheckpointError::MissingTensor { tensor, .. } if tensor == name));
    let error = spoilt(&|tensors| {
        let more = tensors[name].clone();
        tensors.insert("features.3.conv.9.weight".into(), more);
    });
    assert!(matches!(error, CheckpointError::UnexpectedTensor { tensor, .. }
        if tensor == "features.3.conv.9.weight"));
    let error = spoilt(&|tensors| {
        let tensor = tensors.get_mut(name).unwrap();
        tensor.values.pop();
        tensor.shape[0] -= 1;
    });
    assert!(matches!(error, CheckpointError::TensorShape { tensor, .. } if tensor == name));
    let error = spoilt(&|tensors| tensors.retain(|name, _| name.starts_with("classifier")));
    assert!(error.to_string().contains("not an encoder that is known"), "{error}");
}

// --- Encoders of transformers ---

const FOLDERS: [&str; 9] = [
    "vit",
    "vit-classifier",
    "deit",
    "dinov2",
    "dinov2-registers",
    "siglip",
    "siglip2",
    "clip-vision",
    "clip",
];

fn read(file: &Path) -> HostTensors {
    WeightFile::open(file).unwrap().read_all().unwrap()
}

fn floats<const D: usize>(file: &str, name: &str) -> Tensor<D> {
    let tensor = read(&fixture(file)).remove(name).unwrap();
    let shape: [usize; D] = tensor.shape.try_into().unwrap();
    Tensor::from_data(TensorData::new(tensor.values, shape), &Device::flex())
}

/// A captioner for this encoder, at this size.
fn captioner(pretrained: &PretrainedEncoder, height: usize, width: usize) -> Captioner {
    let wanted = EncoderConfig { image_height: height, image_width: width, ..Default::default() };
    let mut config = hybrid(pretrained, 32, 32);
    config.encoder = pretrained.config_for(&wanted);
    initialize(Captioner::new(&config, &Device::flex()).unwrap(), 1)
}

/// The largest difference over the largest value.
fn apart(ours: Tensor<3>, theirs: Tensor<3>) -> f32 {
    assert_eq!(ours.dims(), theirs.dims());
    let scale = theirs.clone().abs().max().into_scalar::<f32>();
    (ours - theirs).abs().max().into_scalar::<f32>() / scale
}

#[test]
fn encoder_states_are_those_of_transformers() {
    for name in FOLDERS {
        let pretrained = load(&fixture(name)).unwrap();
        let model = captioner(&pretrained, 16, 16);
        let model = pretrained.put_into(model).unwrap();
        let states = model.encode(floats("pixels.safetensors", "pixels"));
        let apart = apart(states, floats(&format!("{name}/expected.safetensors"), "states"));
        assert!(apart < 1e-5, "{name}: {apart}");
    }
}

#[test]
fn states_of_another_image_size_are_those_of_transformers() {
    // Those two resize their positions in other ways (antialiased), which ours are not.
    for name in FOLDERS.into_iter().filter(|name| !["siglip2", "dinov2-registers"].contains(name)) {
        let pretrained = load(&fixture(name)).unwrap();
        let model = captioner(&pretrained, 20, 24);
        let model = pretrained.put_into(model).unwrap();
        let states = model.encode(floats("pixels.safetensors", "wide"));
        let apart = apart(states, floats(&format!("{name}/expected.safetensors"), "resized"));
        assert!(apart < 1e-5, "{name}: {apart}");
    }
}

#[test]
fn the_encoder_of_a_captioner_can_be_taken() {
    let Some(folder) = shared("parity/vit-bert") else { return };
    let pretrained = load(&folder).unwrap();
    let whole = super::super::load(&folder, &Device::flex()).unwrap();
    let config = &whole.model.config().encoder;
    assert_eq!(pretrained.config, *config);
    let model = captioner(&pretrained, config.image_height, config.image_width);
    let taken = parameters(&pretrained.put_into(model).unwrap());
    let theirs = parameters(&whole.model);
    let of_encoder = |name: &str| name.starts_with("encoder.");
    assert!(theirs.iter().any(|(name, _)| of_encoder(name)));
    for (name, tensor) in theirs.iter().filter(|(name, _)| of_encoder(name)) {
        assert_eq!(taken[name], *tensor, "{name}");
    }
}

#[test]
fn the_normalisation_is_that_of_the_folder() {
    let means = FOLDERS.map(|name| load(&fixture(name)).unwrap().preprocess.mean[0]);
    assert_eq!(means[..6], [0.5, 0.5, 0.485, 0.485, 0.485, 0.5]);
    assert_eq!(means[6..], [0.5, 0.481_454_66, 0.481_454_66]);
}

#[test]
fn configs_of_encoders_say_what_the_model_does() {
    let config = |name| load(&fixture(name)).unwrap().config;
    assert!(config("dinov2").layer_scale && !config("vit").layer_scale);
    assert_eq!((config("vit").prefix_tokens, config("deit").prefix_tokens), (1, 2));
    assert_eq!(config("dinov2-registers").prefix_tokens, 4);
    assert_eq!((config("siglip").prefix_tokens, config("siglip2").image_width), (0, 16));
    assert!(config("vit").qkv_bias && !config("vit-classifier").qkv_bias);
    let clip = config("clip");
    assert!(clip.embedding_norm && !clip.patch_bias && !clip.final_norm);
    assert_eq!(clip, config("clip-vision"));
}

fn copied(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture(name).join(file), copy.path().join(file)).unwrap();
    }
    copy
}

#[test]
fn tensors_of_encoders_are_accounted_for_by_their_public_names() {
    for (name, tensor) in [
        ("vit-classifier", "vit.encoder.layer.1.attention.attention.key.weight"),
        ("deit", "encoder.layer.1.layernorm_after.bias"),
        ("dinov2", "encoder.layer.0.layer_scale2.lambda1"),
        ("clip", "vision_model.pre_layrnorm.bias"),
    ] {
        let folder = copied(name);
        let file = folder.path().join("model.safetensors");
        let whole = read(&file);
        let spoilt = |change: &dyn Fn(&mut HostTensors)| {
            let mut tensors = whole.clone();
            change(&mut tensors);
            tensors::write(&file, &tensors, [].into()).unwrap();
            load(folder.path())
        };
        // Without a preprocessor_config.json the family's own is taken.
        let same = spoilt(&|_| ()).unwrap();
        assert_eq!(same.preprocess.mean, load(&fixture(name)).unwrap().preprocess.mean);
        let error = spoilt(&|tensors| drop(tensors.remove(tensor))).unwrap_err();
        assert!(
            matches!(&error, CheckpointError::MissingTensor { tensor: named, .. } if named == tensor),
            "{error}"
        );
        let more = tensor.replace("layer.", "layer.7").replace("pre_layrnorm", "other");
        let error = spoilt(&|tensors| {
            let copy = tensors[tensor].clone();
            tensors.insert(more.clone(), copy);
        });
        let error = error.unwrap_err();
        assert!(
            matches!(&error, CheckpointError::UnexpectedTensor { tensor: named, .. } if *named == more),
            "{error}"
        );
        let error = spoilt(&|tensors| {
            // One row too many.
            let tensor = tensors.get_mut(tensor).unwrap();
            let row = tensor.values.len() / tensor.shape[0];
            tensor.values.extend(vec![0.0; row]);
            tensor.shape[0] += 1;
        });
        let error = error.unwrap_err();
        assert!(
            matches!(&error, CheckpointError::TensorShape { tensor: named, .. } if named == tensor),
            "{error}"
        );
    }
}

#[test]
fn unknown_encoders_are_refused_with_those_there_are() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), r#"{"model_type": "swin"}"#).unwrap();
    let error = load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("`model_type` is \"swin\"") && error.contains("DINOv2"), "{error}");
    let nowhere = load(&folder.path().join("nowhere")).unwrap_err();
    assert!(matches!(nowhere, CheckpointError::NotFound { .. }), "{nowhere}");
}
