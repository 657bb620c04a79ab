//! Training whose captions weigh as much as the image's other captions agree with them.

mod common;

use std::fs;
use std::path::Path;

use common::*;

fn config(folder: &Path, name: &str, consensus: f64) -> toml::Table {
    let mut config = tiny_config(&folder.join("shapes"), &folder.join(name));
    set(&mut config, "train.max_steps", 10);
    set(&mut config, "train.consensus", consensus);
    config
}

fn train(folder: &Path, config: &toml::Table) -> Ended {
    let file = folder.join("run.toml");
    write_config(&file, config);
    run(patchword().arg("train").arg(&file).arg("--resume"))
}

/// The losses of a kind, one a line of metrics.
fn losses(run: &Path, kind: &str) -> Vec<f64> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["kind"] == kind).map(|line| line["loss"].as_f64().unwrap()).collect()
}

#[test]
fn weighted_captions_change_what_is_learned_and_not_how_a_run_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    draw_shapes(&folder.join("shapes"), 40);
    for (name, consensus) in [("plain", 0.0), ("whole", 1.0)] {
        let ended = train(folder, &config(folder, name, consensus));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    }
    // The same batches and the same weights at first, and another mean over the captions.
    let (plain, weighted) =
        (losses(&folder.join("plain"), "train"), losses(&folder.join("whole"), "train"));
    assert_eq!((plain.len(), weighted.len()), (10, 10));
    let apart = (plain[0] - weighted[0]).abs();
    assert!(apart > 1e-4 && apart < 0.2 * plain[0], "{} and {}", plain[0], weighted[0]);

    let stopped = config(folder, "stopped", 1.0);
    train_until(&parsed(&stopped), 5);
    let ended = train(folder, &stopped);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(!ended.stderr.contains("train.consensus"), "{}", ended.stderr);
    for file in ["last/model.safetensors", "last/training/optimizer.safetensors"] {
        let read = |name: &str| fs::read(folder.join(name).join(file)).unwrap();
        assert!(read("stopped") == read("whole"), "{file} differs");
        assert!(read("plain") != read("whole"), "{file} is the same");
    }

    // Another weighting is another run, and is named.
    let other = config(folder, "other", 1.0);
    train_until(&parsed(&other), 5);
    let ended = train(folder, &config(folder, "other", 0.0));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let change = "train.consensus was 1.0 and is now 0.0";
    assert!(ended.stderr.contains(change), "{}", ended.stderr);
}

#[test]
fn validation_weighs_all_captions_alike() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    draw_shapes(&folder.join("shapes"), 40);
    // Nothing is learned: what differs could only be how it is measured.
    let validated = [("plain", 0.0), ("weighted", 3.0)].map(|(name, consensus)| {
        let mut config = config(folder, name, consensus);
        set(&mut config, "schedule.learning_rate", 1e-30);
        set(&mut config, "train.max_steps", 2);
        let ended = train(folder, &config);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        losses(&folder.join(name), "validation")
    });
    assert_eq!(validated[0].len(), 1);
    assert_eq!(validated[0], validated[1]);
}
