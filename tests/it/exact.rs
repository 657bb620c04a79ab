//! Public architectures in f64 against what transformers computes in f64: random weights amplify
//! rounding so far that in f32 the two could differ in a detail and still look alike.
//! `fixtures/make_parity_exact.py` made the values.

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use patchword::checkpoint;
use patchword::model::AttentionTrace;
use safetensors::{Dtype, SafeTensors};

/// The largest difference allowed, as a share of the largest value; of attention weights, as it is.
const TOLERANCE: f64 = 1e-9;

/// The same where there are token types: they are added to the positions when a model is read, in f32.
const WITH_TOKEN_TYPES: f64 = 1e-5;

struct Widen;

impl ModuleMapper for Widen {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(DType::F64))
    }
}

/// Elements and shape of a tensor of one of a case's files.
fn values(file: &Path, name: &str) -> (Vec<f64>, Vec<usize>) {
    let bytes = fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    let (narrow, wide) = (view.data().as_chunks::<4>().0, view.data().as_chunks::<8>().0);
    let values = match view.dtype() {
        Dtype::F32 => narrow.iter().map(|&bytes| f32::from_le_bytes(bytes).into()).collect(),
        Dtype::F64 => wide.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect(),
        Dtype::I64 => wide.iter().map(|&bytes| i64::from_le_bytes(bytes) as f64).collect(),
        other => panic!("{name} is of {other:?}"),
    };
    (values, view.shape().to_vec())
}

/// The largest difference, and the largest of `expected`.
fn apart<const D: usize>(found: Tensor<D>, expected: &[f64]) -> (f64, f64) {
    assert_eq!(found.dtype(), DType::F64);
    let found: Vec<f64> = found.into_data().iter::<f64>().collect();
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected);
    let most = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(found.iter().all(|value| value.is_finite()));
    (most, expected.iter().fold(0.0, |most, one| f64::max(most, one.abs())))
}

fn check(folder: &Path) {
    let (given, exact) = (folder.join("expected.safetensors"), folder.join("exact.safetensors"));
    let device = Device::flex();
    let model = checkpoint::load(folder, &device).unwrap().model.map(&mut Widen);
    let bytes = fs::read(&given).unwrap();
    let names = SafeTensors::deserialize(&bytes).unwrap();
    let pixels = if names.tensor("pixels").is_ok() { "pixels" } else { "pixel_values" };
    let (pixels, shape) = values(&given, pixels);
    let [_, channels, height, width] = shape[..] else { panic!("{shape:?}") };
    let one = pixels[..channels * height * width].to_vec();
    let pixels = TensorData::new(one, [1, channels, height, width]);
    let pixels = Tensor::<4>::from_data(pixels, (&device, DType::F64));
    let (ids, shape) = values(&given, "input_ids");
    let seq = shape[1];
    let ids: Vec<i64> = ids[..seq].iter().map(|&id| id as i64).collect();
    let input: Tensor<2, Int> = Tensor::from_data(TensorData::new(ids.clone(), [1, seq]), &device);

    let memory = model.encode(pixels);
    let mut report = Vec::new();
    if !model.config().decoder.memory_projection {
        let (most, scale) = apart(memory.clone(), &values(&exact, "encoder").0);
        report.push(("encoder".to_string(), most / scale));
    }
    let (most, scale) =
        apart(model.decode(input.clone(), memory.clone()), &values(&exact, "logits").0);
    report.push(("logits".to_string(), most / scale));
    let mut trace = AttentionTrace::new();
    let logits = model.decode_with_trace(input, memory, &mut trace);
    for (layer, weights) in trace.cross_attention.into_iter().enumerate() {
        let name = format!("cross_attention.{layer}");
        report.push((name.clone(), apart(weights.weights, &values(&exact, &name).0).0));
    }
    let vocab = logits.dims()[2];
    let logits = logits.narrow(1, 0, seq - 1).reshape([seq - 1, vocab]);
    let next = TensorData::new(ids[1..].to_vec(), [seq - 1, 1]);
    let picked = log_softmax(logits, 1).gather(1, Tensor::from_data(next, &device));
    let (most, scale) = apart(-picked.mean(), &values(&exact, "loss").0);
    report.push(("loss".to_string(), most / scale));

    let name = folder.file_name().unwrap().to_string_lossy();
    let token_types = ["bert", "roberta"].iter().any(|family| name.contains(family));
    let tolerance = if token_types { WITH_TOKEN_TYPES } else { TOLERANCE };
    for (what, distance) in &report {
        eprintln!("{name}: {what} {distance:.1e}");
    }
    for (what, distance) in report {
        assert!(distance <= tolerance, "{name}: {what} {distance:e}");
    }
}

#[test]
fn every_family_computes_what_transformers_computes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity");
    let mut folders: Vec<PathBuf> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("exact.safetensors").is_file());
    folders.sort();
    assert!(folders.len() >= 5, "{folders:?}");
    for folder in folders {
        check(&folder);
    }
}
