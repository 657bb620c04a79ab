//! Training that starts from a trained model: all of it, parts of it, or adapters on top.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::common::*;
use safetensors::SafeTensors;

/// A data set and a model that was trained on it for a few steps.
fn trained() -> &'static (tempfile::TempDir, PathBuf) {
    static MODEL: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    MODEL.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (_, output) = train_tiny(folder.path(), 40, 12);
        (folder, output.join("best"))
    })
}

/// A config that starts from the trained model, `steps` long.
fn tuning(output: &Path, steps: i64) -> toml::Table {
    let (folder, model) = trained();
    let mut config = tiny_config(&folder.path().join("shapes"), output);
    for section in ["image", "tokenizer", "model"] {
        config.remove(section);
    }
    set(&mut config, "init", model.to_str().unwrap());
    set(&mut config, "train.max_steps", steps);
    config
}

fn train(config: &toml::Table, extra: &[&str]) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tune.toml");
    write_config(&file, config);
    run(patchword().arg("train").arg(&file).args(extra))
}

fn tensors(file: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter().map(|(name, view)| (name.to_string(), view.data().to_vec())).collect()
}

/// Names of the tensors that differ.
fn changed(before: &Path, after: &Path) -> Vec<String> {
    let (before, after) = (tensors(before), tensors(after));
    assert!(before.keys().eq(after.keys()), "other tensors than before");
    before.into_iter().filter(|(name, bytes)| after[name] != *bytes).map(|(name, _)| name).collect()
}

fn caption(model: &Path) -> String {
    let (folder, _) = trained();
    let ended = run(patchword()
        .arg("caption")
        .arg(folder.path().join("shapes"))
        .args(["--format", "jsonl", "--num-beams", "2", "--model"])
        .arg(model));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.stdout
}

/// The same token ids, and scores within rounding.
#[track_caller]
fn assert_say_the_same(one: &str, other: &str) {
    let read = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        (value["token_ids"].to_string(), value["score"].as_f64().unwrap())
    };
    assert_eq!(one.lines().count(), other.lines().count());
    for ((ids, score), (other_ids, other_score)) in
        one.lines().map(read).zip(other.lines().map(read))
    {
        assert_eq!(ids, other_ids);
        assert!((score - other_score).abs() < 1e-4, "{score} is not {other_score}");
    }
}

#[test]
fn a_run_starts_from_the_weights_tokenizer_and_pixels_of_a_trained_model() {
    let (_, model) = trained();
    let output = tempfile::tempdir().unwrap();
    let mut config = tuning(&output.path().join("run"), 1);
    // A rate so small that the first step changes next to nothing.
    set(&mut config, "schedule.learning_rate", 1e-12);
    set(&mut config, "optimizer.weight_decay", 0.0);
    set(&mut config, "train.validate_every", 1);
    let ended = train(&config, &[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let tuned = output.path().join("run/best");
    for file in ["tokenizer.json", "preprocessor.json"] {
        let read = |folder: &Path| fs::read_to_string(folder.join(file)).unwrap();
        assert_eq!(read(model), read(&tuned), "{file}");
    }
    assert_say_the_same(&caption(model), &caption(&tuned));
}

#[test]
fn frozen_weights_stay_and_the_others_move() {
    let (_, model) = trained();
    let output = tempfile::tempdir().unwrap();
    let mut config = tuning(&output.path().join("run"), 4);
    let patterns = ["encoder.layers.0", "*norm", "decoder.token_embedding"];
    set(&mut config, "train.freeze", patterns.map(String::from).to_vec());
    let ended = train(&config, &[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("trained)"), "{}", ended.stderr);
    let weights = |folder: &Path| folder.join("model.safetensors");
    let moved = changed(&weights(model), &weights(&output.path().join("run/last")));
    let frozen = |name: &String| {
        name.starts_with("encoder.layers.0.")
            || name.contains("norm.")
            || name == "decoder.token_embedding"
    };
    assert!(!moved.iter().any(frozen), "{moved:?}");
    for name in ["encoder.layers.1.attention.query.weight", "decoder.position_embedding"] {
        assert!(moved.iter().any(|moved| moved == name), "{name} did not move: {moved:?}");
    }
}

#[test]
fn adapters_merged_and_apart_say_the_same_and_leave_the_rest_alone() {
    let (_, model) = trained();
    let output = tempfile::tempdir().unwrap();
    let mut captions = Vec::new();
    for (name, merge) in [("merged", true), ("apart", false)] {
        let mut config = tuning(&output.path().join(name), 6);
        set(&mut config, "lora.rank", 2);
        set(&mut config, "lora.merge", merge);
        let ended = train(&config, &[]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let last = output.path().join(name).join("last");
        let weights = last.join("model.safetensors");
        let moved = changed(&model.join("model.safetensors"), &weights);
        if merge {
            // Two encoder layers and one decoder layer with two attentions, two matrices each.
            assert_eq!(moved.len(), 8, "{moved:?}");
            assert!(
                moved.iter().all(
                    |name| name.ends_with("query.weight") || name.ends_with("key_value.weight")
                )
            );
        } else {
            assert!(moved.is_empty(), "{moved:?}");
            assert_eq!(tensors(&last.join("adapter.safetensors")).len(), 16);
        }
        captions.push(caption(&last));
    }
    assert_ne!(captions[0], caption(model), "nothing was learned");
    // Added before or after, floats round differently.
    assert_say_the_same(&captions[0], &captions[1]);
}

#[test]
fn a_tuning_run_resumes_to_the_same_bytes_without_the_model_it_began_with() {
    let output = tempfile::tempdir().unwrap();
    let begun = output.path().join("begun");
    copy_folder(&trained().1, &begun);
    let config = |name: &str, steps: i64| {
        let mut config = tuning(&output.path().join(name), 10);
        set(&mut config, "init", begun.to_str().unwrap());
        set(&mut config, "lora.rank", 2);
        set(&mut config, "train.max_steps", steps);
        config
    };
    let ended = train(&config("whole", 10), &[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let stopped = config("stopped", 10);
    let folder = output.path().join("stopped");
    train_until(&parsed(&stopped), 4);
    fs::remove_dir_all(&begun).unwrap();
    let ended = train(&stopped, &["--resume"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    for file in ["last/model.safetensors", "last/training/weights.safetensors"] {
        let read = |folder: &Path| fs::read(folder.join(file)).unwrap();
        assert!(read(&folder) == read(&output.path().join("whole")), "{file} differs");
    }
}

#[test]
fn settings_that_cannot_be_meant_are_errors_that_name_them() {
    let output = tempfile::tempdir().unwrap();
    let cases: [(&str, toml::Value, &[&str]); 7] = [
        ("model.encoder.d_model", 32.into(), &["`model.encoder.d_model`", "remove it"]),
        ("image.height", 64.into(), &["`image.height`", "remove it"]),
        ("tokenizer.vocab_size", 400.into(), &["`tokenizer.vocab_size`"]),
        ("lora.rank", 0.into(), &["`lora.rank`", "at least 1"]),
        (
            "train.freeze",
            vec!["encodr.layers.0"].into(),
            &["`train.freeze`", "\"encodr.layers.0\""],
        ),
        ("train.freeze", vec!["*"].into(), &["`train.freeze`", "nothing to train"]),
        ("init", "no/such/folder".into(), &["no/such/folder", "no checkpoint"]),
    ];
    for (key, value, expected) in cases {
        let mut config = tuning(&output.path().join("run"), 2);
        set(&mut config, key, value);
        let ended = train(&config, &[]);
        assert_eq!(ended.code, 1, "{key}: {}", ended.stderr);
        for text in expected {
            assert!(ended.stderr.contains(text), "{key}: no {text} in {}", ended.stderr);
        }
        assert!(!output.path().join("run").exists(), "{key}: something was written");
    }
}

/// Public architectures with random weights, where the reference data is.
#[test]
fn public_models_can_be_tuned() {
    let shared = std::env::var_os("PATCHWORD_SHARED").map_or("../shared".into(), PathBuf::from);
    if !shared.join("parity").is_dir() {
        eprintln!("skipped: no reference data at {}", shared.display());
        return;
    }
    let output = tempfile::tempdir().unwrap();
    for name in ["blip", "vit-gpt2", "vit-bert"] {
        let init = shared.join("parity").join(name);
        let mut config = tuning(&output.path().join(name), 3);
        set(&mut config, "init", init.to_str().unwrap());
        set(&mut config, "data.prompt", "a photo of");
        set(&mut config, "train.validate_every", 3);
        set(&mut config, "optimizer.ema_decay", 0.0);
        set(&mut config, "schedule.learning_rate", 1e-4);
        let ended = train(&config, &[]);
        assert_eq!(ended.code, 0, "{name}: {}", ended.stderr);
        // The special tokens are the public model's still.
        let spoken = caption(&output.path().join(name).join("best"));
        let first: serde_json::Value =
            serde_json::from_str(spoken.lines().next().unwrap()).unwrap();
        let public = caption(&init);
        let public: serde_json::Value =
            serde_json::from_str(public.lines().next().unwrap()).unwrap();
        assert_eq!(first["token_ids"][0], public["token_ids"][0], "{name}");
    }
}

/// A run whose whole encoder is frozen.
fn frozen_encoder(output: &Path) -> toml::Table {
    let mut config = tuning(output, 8);
    set(&mut config, "train.freeze_encoder", true);
    config
}

/// A run of a hybrid from scratch, the beginning of whose backbone is frozen.
fn frozen_beginning(output: &Path) -> toml::Table {
    let (folder, _) = trained();
    let mut config = tiny_config(&folder.path().join("shapes"), output);
    set(&mut config, "train.max_steps", 8);
    set(&mut config, "image.height", 32);
    set(&mut config, "image.width", 32);
    set(&mut config, "model.encoder.backbone", "mobilenet_v2");
    set(&mut config, "model.encoder.backbone_width", 0.1);
    set(&mut config, "model.encoder.patch_size", 32);
    set(
        &mut config,
        "train.freeze",
        vec!["encoder.backbone.stem", "encoder.backbone.blocks.[0-8]"],
    );
    set(&mut config, "schedule.backbone_factor", 0.5);
    config
}

/// Runs it, with its features kept or not.
fn unvaried(mut config: toml::Table, features: Option<&Path>) -> Ended {
    set(&mut config, "augment.crop_scale", vec![1.0, 1.0]);
    set(&mut config, "augment.flip", 0.0);
    set(&mut config, "augment.colour_jitter", 0.0);
    let folder = features.map(|folder| folder.to_str().unwrap().to_owned());
    let flags: Vec<&str> = folder.iter().flat_map(|at| ["--cache-features", at]).collect();
    train(&config, &flags)
}

/// Validation losses by step.
fn losses(run: &Path) -> Vec<f64> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["kind"] == "train").map(|l| l["loss"].as_f64().unwrap()).collect()
}

#[test]
fn a_decoder_on_a_trained_encoder_has_the_tokens_of_its_own_captions() {
    let (folder, _) = trained();
    let output = tempfile::tempdir().unwrap();
    let run = output.path().join("run");
    let mut config = tiny_config(&folder.path().join("shapes"), &run);
    let encoder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoders/vit");
    set(&mut config, "init.encoder", encoder.to_str().unwrap());
    set(&mut config, "train.max_steps", 2);
    config["model"].as_table_mut().unwrap().remove("encoder");
    config.remove("image");
    set(&mut config, "image.height", 16);
    set(&mut config, "image.width", 16);
    let ended = train(&config, &[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let json = |file: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(run.join("last").join(file)).unwrap()).unwrap()
    };
    let tokens = json("tokenizer.json")["model"]["vocab"].as_object().unwrap().len();
    assert_eq!(json("config.json")["model"]["decoder"]["vocab_size"], tokens);
}

#[test]
fn kept_features_train_as_the_encoder_would_and_are_computed_once() {
    for run_of in [frozen_encoder, frozen_beginning] {
        let output = tempfile::tempdir().unwrap();
        let features = output.path().join("features");
        let run = |name: &str, features: Option<&Path>| {
            let folder = output.path().join(name);
            let ended = unvaried(run_of(&folder), features);
            assert_eq!(ended.code, 0, "{}", ended.stderr);
            losses(&folder)
        };
        let (plain, kept) = (run("plain", None), run("kept", Some(&features)));
        assert_eq!(plain.len(), 8);
        for (plain, kept) in plain.iter().zip(&kept) {
            // Features are kept with 11 bits.
            assert!((plain - kept).abs() < 2e-3, "{plain} is not {kept}");
        }
        let before = snapshot(&features);
        assert_eq!(before.len(), 1);
        assert_eq!(run("again", Some(&features)), kept);
        assert!(snapshot(&features) == before, "features were computed twice");
    }
}

#[test]
fn a_backbone_learns_behind_its_frozen_beginning() {
    let output = tempfile::tempdir().unwrap();
    let folder = output.path().join("run");
    let ended = unvaried(frozen_beginning(&folder), Some(&output.path().join("features")));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let mut fresh = frozen_beginning(&output.path().join("fresh"));
    set(&mut fresh, "schedule.learning_rate", 1e-12);
    set(&mut fresh, "train.max_steps", 1);
    let ended = unvaried(fresh, None);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let file = |name: &str| output.path().join(name).join("last/model.safetensors");
    let (before, after) = (tensors(&file("fresh")), tensors(&file("run")));
    let moved = |name: &str| before[name] != after[name];
    for still in ["stem.weight", "blocks.0.project.weight", "blocks.8.depthwise.bias"] {
        assert!(!moved(&format!("encoder.backbone.{still}")), "{still} was frozen");
    }
    for learned in ["blocks.9.expand.weight", "blocks.16.depthwise.weight", "head.bias"] {
        assert!(moved(&format!("encoder.backbone.{learned}")), "{learned} did not learn");
    }
}

#[test]
fn features_of_what_is_trained_cannot_be_kept() {
    let output = tempfile::tempdir().unwrap();
    let config = tuning(&output.path().join("run"), 2);
    let folder = output.path().join("features");
    let ended = train(&config, &["--cache-features", folder.to_str().unwrap()]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("`data.cache_features`"), "{}", ended.stderr);
    assert!(ended.stderr.contains("encoder.backbone"), "{}", ended.stderr);
    assert!(!output.path().join("run").exists());
}

#[test]
fn a_run_that_selects_by_cider_scores_captions_and_stops_when_nothing_becomes_better() {
    let output = tempfile::tempdir().unwrap();
    let run = output.path().join("run");
    let mut config = tuning(&run, 40);
    // Nothing is learned, so that the validation before the first step stays the best.
    set(&mut config, "schedule.learning_rate", 1e-12);
    set(&mut config, "optimizer.weight_decay", 0.0);
    set(&mut config, "train.validate_every", 2);
    set(&mut config, "train.select_by", "cider");
    set(&mut config, "train.patience", 2);
    let ended = train(&config, &[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("stopped early, at step 4"), "{}", ended.stderr);
    assert!(ended.stderr.contains("best CIDEr"), "{}", ended.stderr);
    assert!(ended.stderr.contains("before the first step, of the model that"), "{}", ended.stderr);
    let card = fs::read_to_string(run.join("best/README.md")).unwrap();
    assert!(card.contains("before the first step"), "{card}");
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let ciders: Vec<f64> = lines.filter_map(|line| line["cider"].as_f64()).collect();
    assert_eq!(ciders.len(), 3);

    // The same number as `evaluate` finds, which captions on its own.
    let (folder, _) = trained();
    let data = folder.path().join("plain");
    copy_folder(&folder.path().join("shapes"), &data);
    for split in ["train", "validation", "test"] {
        let file = data.join(split).join("metadata.jsonl");
        let text = fs::read_to_string(&file).unwrap().replace("\"scene\"", "\"other\"");
        fs::write(&file, text).unwrap();
    }
    let mut command = patchword();
    command.args(["evaluate", "--json", "--split", "val", "--images", "2", "--model"]);
    let ended = crate::common::run(command.arg(&run).arg("--data").arg(&data));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let evaluation: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let found = evaluation["scores"]["CIDEr"].as_f64().unwrap();
    assert!((found - ciders[0]).abs() < 1e-9, "{found} is not {ciders:?}");
}

#[test]
fn validations_come_before_the_first_step_and_after_every_epoch() {
    let output = tempfile::tempdir().unwrap();
    let run = output.path().join("run");
    let mut config = tuning(&run, 1);
    let settings = config["train"].as_table_mut().unwrap();
    settings.remove("max_steps");
    settings.remove("validate_every");
    set(&mut config, "train.epochs", 2.5);
    set(&mut config, "data.captions_per_image", 5);
    set(&mut config, "generate.num_beams", 2);
    let ended = train(&config, &[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("samples are decoded as [generate] says: 2 beams"));
    let card = fs::read_to_string(run.join("last/README.md")).unwrap();
    assert!(card.contains("validation images (2 beams)"), "{card}");
    let state = fs::read(run.join("last/training/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    let steps = state["step"].as_u64().unwrap();
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let lines: Vec<_> = lines.filter(|line| line["kind"] == "validation").collect();
    let validated: Vec<u64> = lines.iter().map(|line| line["step"].as_u64().unwrap()).collect();
    // An epoch is a part of the steps, rounded up.
    let epoch = |number: u64| (number as f64 * steps as f64 / 2.5).floor() as u64;
    assert_eq!(validated.len(), 4, "{validated:?} of {steps}");
    assert_eq!((validated[0], validated[3]), (0, steps));
    for number in [1, 2] {
        let at = validated[number as usize];
        assert!(at.abs_diff(epoch(number)) <= 1, "{validated:?} of {steps}");
        let passed = lines[number as usize]["epoch"].as_f64().unwrap();
        assert!((number as f64..number as f64 + 0.2).contains(&passed), "{passed}");
    }
}
