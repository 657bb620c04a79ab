//! Maps over the image against an independent implementation (tests/relevance_reference.py), occlusion against
//! photos that are hidden by hand, and the figures of `patchword inspect evaluate`.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use image::{Rgb, RgbImage};
use patchword::caption::CaptionConfig;
use patchword::checkpoint::{self, Checkpoint};
use patchword::inspect::{
    InspectConfig, Inspection, Method, Position, RelevanceConfig, inspect_with,
};
use serde_json::Value;

use crate::common::*;

const MODELS: [&str; 3] = ["ours", "blip", "vit-gpt2"];

fn folder(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/relevance").join(model)
}

/// The photo of the script.
fn photo() -> RgbImage {
    RgbImage::from_fn(12, 8, |x, y| {
        Rgb([0, 1, 2].map(|channel| ((x * 37 + y * 59 + channel * 83 + x * y * 13) % 256) as u8))
    })
}

fn inspected(checkpoint: &Checkpoint, photo: &RgbImage, maps: Vec<RelevanceConfig>) -> Inspection {
    let device = Device::flex();
    let what =
        InspectConfig { text: Some("red dogs run".into()), maps, ..InspectConfig::default() };
    let config = CaptionConfig::new(checkpoint.generate.clone(), &device);
    inspect_with(checkpoint, &device, photo, &what, &config, &mut |_| ()).unwrap()
}

#[test]
fn maps_are_those_of_an_independent_implementation() {
    for model in MODELS {
        let checkpoint = checkpoint::load(&folder(model), &Device::flex()).unwrap();
        let expected = fs::read(folder(model).join("expected.json")).unwrap();
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let expected_maps = expected["maps"].as_array().unwrap();
        assert_eq!(expected_maps.len(), 12);
        let configs = expected_maps.iter().map(|map| RelevanceConfig {
            position: map["position"].as_str().unwrap().parse().unwrap(),
            ..RelevanceConfig::new(map["method"].as_str().unwrap().parse().unwrap())
        });
        let inspection = inspected(&checkpoint, &photo(), configs.collect());
        assert_eq!(inspection.words.len(), 3);
        let sum: f64 = expected["log_probabilities"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_f64)
            .sum();
        assert!((f64::from(inspection.log_probability) - sum).abs() < 1e-4, "{model}");
        let mut largest = 0.0f64;
        for (found, expected) in inspection.maps.iter().zip(expected_maps) {
            let words = expected["words"].as_array().unwrap();
            for (found_word, expected) in found.words.iter().zip(words) {
                let expected: Vec<f64> =
                    expected.as_array().unwrap().iter().filter_map(Value::as_f64).collect();
                let prefix = expected.len() - found_word.map.len();
                assert_eq!(prefix, usize::from(model != "ours"));
                let elsewhere: f64 = expected[..prefix].iter().sum();
                let pairs = found_word.map.iter().zip(&expected[prefix..]);
                let pairs = pairs.chain([(&found_word.elsewhere, &elsewhere)]);
                for (value, expected) in pairs {
                    let apart = (f64::from(*value) - expected).abs();
                    largest = largest.max(apart);
                    assert!(apart < 1e-4, "{model}, {}: {value} is not {expected}", found.config);
                }
            }
        }
        eprintln!("{model}: maps within {largest:.1e}");
    }
}

#[test]
fn occlusion_is_the_fall_when_a_patch_is_hidden() {
    for model in MODELS {
        let mut checkpoint = checkpoint::load(&folder(model), &Device::flex()).unwrap();
        // A mean colour that 8 bits hold, so that both hide alike.
        checkpoint.preprocess.mean = [128.0 / 255.0; 3];
        let one = RelevanceConfig { window: 1, ..RelevanceConfig::new(Method::Occlusion) };
        let whole = inspected(&checkpoint, &photo(), vec![one]);
        for patch in 0..6u32 {
            let mut hidden = photo();
            for (x, y, pixel) in hidden.enumerate_pixels_mut() {
                if y / 4 * 3 + x / 4 == patch {
                    *pixel = Rgb([128; 3]);
                }
            }
            let hidden = inspected(&checkpoint, &hidden, Vec::new());
            let words = whole.words.iter().zip(&whole.maps[0].words);
            for (at, (word, map)) in words.enumerate() {
                let fall = word.probability.ln() - hidden.words[at].probability.ln();
                let found = map.map[patch as usize] * map.total;
                assert!((fall - found).abs() < 1e-4, "{model}, {patch}: {found} {fall}");
            }
        }
    }
}

#[test]
fn positions_of_a_word_differ() {
    let checkpoint = checkpoint::load(&folder("ours"), &Device::flex()).unwrap();
    let at = |position| RelevanceConfig { position, ..RelevanceConfig::new(Method::Attention) };
    let maps = vec![at(Position::Predicting), at(Position::Reading)];
    let inspection = inspected(&checkpoint, &photo(), maps);
    let [predicting, reading] = &inspection.maps[..] else { panic!("two maps") };
    // The step that reads "red" predicts the piece behind it.
    assert_ne!(predicting.words[0].map, reading.words[0].map);
    assert_eq!(
        inspection.phrases.iter().cloned().map(Vec::from_iter).collect::<Vec<_>>(),
        [[0, 1, 2]]
    );
}

/// Scenes of shapes and a checkpoint for them that nobody trained: what is measured of it must lie at chance.
#[test]
fn maps_are_measured_from_the_command_line() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("shapes");
    let drawn = run(patchword().args(["data", "shapes"]).arg(&data).args(["--images", "300"]));
    assert_eq!(drawn.code, 0, "{}", drawn.stderr);
    let model = place.path().join("model");
    fs::create_dir(&model).unwrap();
    for file in ["config.json", "model.safetensors", "preprocessor.json", "tokenizer.json"] {
        fs::copy(folder("ours").join(file), model.join(file)).unwrap();
    }
    let evaluate = |more: &[&str]| {
        let mut command = patchword();
        command.args(["inspect", "evaluate", "--split", "train", "--limit", "6"]);
        command.arg("--model").arg(&model).arg("--data").arg(&data).args(more);
        run(&mut command)
    };
    let ended = evaluate(&["--json", "--deletion-images", "2", "--choose-on", "12"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let found: Value = serde_json::from_str(&ended.stdout).unwrap();
    let methods = found["methods"].as_array().unwrap();
    assert!(methods.len() >= 6, "{methods:?}");
    for map in methods.iter().chain([&found["default"]]) {
        for key in ["method", "pointing", "chance", "grid", "deletion"] {
            assert!(map.get(key).is_some(), "{key}: {map}");
        }
        let share = map["grid"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&share), "{map}");
        assert_eq!(map["grid_chance"], 0.5);
    }
    assert_eq!(methods[0]["name"], "attention, mean of layers and heads");
    assert_eq!(found["default"]["stored"], false);

    let text = evaluate(&[
        "--deletion-images",
        "0",
        "--choose-on",
        "12",
        "--method",
        "gradient",
        "--save-default",
    ]);
    assert_eq!(text.code, 0, "{}", text.stderr);
    assert!(text.stdout.contains("| chance"), "{}", text.stdout);
    let saved: Value =
        serde_json::from_slice(&fs::read(model.join("inspect.json")).unwrap()).unwrap();
    assert_eq!(saved["version"], 1);
    assert!(saved["measured"]["of"].as_u64().unwrap() >= 3, "{saved}");
    let again = evaluate(&["--json", "--deletion-images", "0", "--choose-on", "12"]);
    let again: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(again["default"]["stored"], true);
    assert_eq!(again["default"]["map"], saved["map"]);

    fs::write(
        model.join("inspect.json"),
        r#"{"version": 1, "map": {"method": "attention", "head": 9}}"#,
    )
    .unwrap();
    let broken = evaluate(&["--json"]);
    assert_eq!(broken.code, 1, "{}", broken.stdout);
    assert!(broken.stderr.contains("inspect.json"), "{}", broken.stderr);
    assert!(broken.stderr.contains("head 9: the decoder has heads 0 to 1"), "{}", broken.stderr);

    let shipped =
        run(patchword().args(["inspect", "evaluate", "--save-default", "--data"]).arg(&data));
    assert_eq!(shipped.code, 1, "{}", shipped.stdout);
    assert!(shipped.stderr.contains("folder"), "{}", shipped.stderr);
}
