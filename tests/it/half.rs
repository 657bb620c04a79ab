//! Weights in f16: the same captions, within what half precision leaves.

use std::path::{Path, PathBuf};

use crate::common::{patchword, run};
use burn::tensor::{DType, Device, Distribution, Int, Tensor};
use patchword::checkpoint::{self, Checkpoint};
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity").join(name)
}

fn logits(checkpoint: &Checkpoint) -> Tensor<3> {
    let device = Device::flex();
    device.seed(3);
    let encoder = &checkpoint.model.config().encoder;
    let size = [2, 3, encoder.image_height, encoder.image_width];
    let pixels = Tensor::random(size, Distribution::Normal(0.0, 1.0), &device);
    let memory = checkpoint.model.encode(pixels);
    let ids = Tensor::<2, Int>::from_data([[1, 7, 20, 9], [1, 30, 8, 60]], &device);
    checkpoint.model.decode(ids, memory)
}

#[test]
fn logits_are_those_of_f32_to_three_digits() {
    // Post-norm and pre-norm, with and without a projection. Their weights are random and wide, which
    // makes of the last digit of f16, 5e-4, many times that.
    for case in ["blip", "deit-gpt2", "deit-bert", "vit-roberta"] {
        let checkpoint = checkpoint::load(&fixture(case), &Device::flex()).unwrap();
        let exact = logits(&checkpoint);
        let half = logits(&checkpoint.into_f16());
        assert_eq!(half.dtype(), DType::F16);
        let scale = exact.clone().abs().max().into_scalar::<f32>();
        let apart = (half.cast(DType::F32) - exact).abs().max().into_scalar::<f32>() / scale;
        eprintln!("{case}: {apart:.1e}");
        assert!(apart > 0.0 && apart < 0.1, "{case}: {apart}");
    }
}

#[test]
fn captions_in_f16_are_those_of_f32() {
    let caption = |dtype: &str, beams: &str| {
        let mut command = patchword();
        command.arg("caption").arg(fixture("photo.png")).args(["--device", "flex"]);
        command.args(["--format", "jsonl", "--num-beams", beams, "--max-new-tokens", "8"]);
        let ended = run(command.args(["--dtype", dtype, "--model"]).arg(fixture("deit-gpt2")));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        serde_json::from_str::<Value>(&ended.stdout).unwrap()
    };
    for beams in ["1", "3"] {
        let (half, exact) = (caption("f16", beams), caption("f32", beams));
        assert_eq!(half["token_ids"], exact["token_ids"]);
        let apart = half["score"].as_f64().unwrap() - exact["score"].as_f64().unwrap();
        assert!(apart != 0.0 && apart.abs() < 0.05, "{apart}");
    }
}
