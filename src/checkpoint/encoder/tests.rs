//! Parity with what others compute with the same weights: torchvision's MobileNetV2
//! (`tests/fixtures/encoders/make_mobilenet.py`).

use std::fs;

use burn::tensor::{Device, Tensor, TensorData};
use serde::Deserialize;

use super::*;
use crate::model::{Backbone, CaptionerConfig, DecoderConfig, MobileNetV2Shape, initialize};
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
    tensors::write(&file, tensors, [].into()).unwrap();
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
        assert_eq!(pretrained.config.backbone, Some(Backbone::MobileNetV2));
        assert_eq!(pretrained.config.backbone_width, case.width);
        let config = hybrid(&pretrained, case.image_height, case.image_width);
        let device = Device::flex();
        let model = initialize(Captioner::new(&config, &device).unwrap(), 1);
        let model = pretrained.put_into(model).unwrap();
        let features = model.patches_frozen(pixels(case.image_height, case.image_width, &device));
        assert_features(features, &case, 1e-4);
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
    let features = model.patches_frozen(pixels(224, 224, &device));
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
    other.encoder.backbone_width = 0.5;
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
