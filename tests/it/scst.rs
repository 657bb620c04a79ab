//! Training on the score, after training on captions.

use std::fs;
use std::path::Path;

use crate::common::*;
use serde_json::Value;

/// A config of `captions` steps on captions and `score` steps on the score.
fn config(folder: &Path, name: &str, captions: i64, score: i64) -> toml::Table {
    let mut config = tiny_config(&folder.join("shapes"), &folder.join(name));
    set(&mut config, "train.max_steps", captions);
    set(&mut config, "train.validate_every", 1000);
    set(&mut config, "phase.scst.max_steps", score);
    set(&mut config, "phase.scst.batch_size", 4);
    set(&mut config, "phase.scst.samples", 4);
    set(&mut config, "phase.scst.learning_rate", 1e-3);
    config
}

fn train(folder: &Path, config: &toml::Table, extra: &[&str]) -> Ended {
    let file = folder.join("run.toml");
    write_config(&file, config);
    run(patchword().arg("train").arg(&file).args(extra))
}

fn rewards(run: &Path) -> Vec<f64> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|line| line["reward"].as_f64()).collect()
}

#[test]
fn sampled_captions_score_higher_and_higher() {
    let folder = tempfile::tempdir().unwrap();
    draw_shapes(&folder.path().join("shapes"), 60);
    for baseline in ["mean", "greedy"] {
        let mut config = config(folder.path(), baseline, 120, 80);
        set(&mut config, "phase.scst.baseline", baseline);
        set(&mut config, "generate.max_new_tokens", 16);
        let ended = train(folder.path(), &config, &[]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let rewards = rewards(&folder.path().join(baseline));
        assert_eq!(rewards.len(), 80);
        let mean = |rewards: &[f64]| rewards.iter().sum::<f64>() / rewards.len() as f64;
        let (first, last) = (mean(&rewards[..20]), mean(&rewards[60..]));
        eprintln!("{baseline}: {first:.4} to {last:.4}");
        assert!(last > 1.2 * first, "{baseline}: from {first} to {last}");
    }
}

#[test]
fn a_run_stopped_in_either_phase_resumes_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    draw_shapes(&folder.path().join("shapes"), 40);
    let ended = train(folder.path(), &config(folder.path(), "whole", 8, 8), &[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let stopped = config(folder.path(), "stopped", 8, 8);
    for step in [5, 8, 11] {
        train_until(&parsed(&stopped), step);
    }
    let ended = train(folder.path(), &stopped, &["--resume"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    for file in ["last/model.safetensors", "last/training/optimizer.safetensors"] {
        let read = |name: &str| fs::read(folder.path().join(name).join(file)).unwrap();
        assert!(read("stopped") == read("whole"), "{file} differs");
    }
}

#[test]
fn a_finished_captioner_goes_on_with_the_score_alone() {
    let folder = tempfile::tempdir().unwrap();
    draw_shapes(&folder.path().join("shapes"), 40);
    let ended = train(folder.path(), &config(folder.path(), "captions", 8, 1), &[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("select_by"), "{}", ended.stderr);
    let mut second = config(folder.path(), "score", 0, 3);
    for section in ["image", "tokenizer", "model"] {
        second.remove(section);
    }
    set(&mut second, "init.model", folder.path().join("captions/last").to_str().unwrap());
    set(&mut second, "train.select_by", "cider");
    let ended = train(folder.path(), &second, &[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(!ended.stderr.contains("select_by"), "{}", ended.stderr);
    assert_eq!(rewards(&folder.path().join("score")).len(), 3);
    // Without such a phase there would be nothing to do.
    second.remove("phase");
    let ended = train(folder.path(), &second, &["--output", "elsewhere"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("train.max_steps"), "{}", ended.stderr);
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let folder = tempfile::tempdir().unwrap();
    draw_shapes(&folder.path().join("shapes"), 40);
    let cases: [(&str, toml::Value); 4] = [
        ("phase.scst.samples", 1.into()),
        ("phase.scst.learning_rate", (-1.0).into()),
        ("phase.scst.batch_size", 0.into()),
        ("phase.scst.baseline", "median".into()),
    ];
    for (key, value) in cases {
        let mut config = config(folder.path(), "run", 2, 2);
        set(&mut config, key, value);
        let ended = train(folder.path(), &config, &[]);
        assert_eq!(ended.code, 1, "{key}");
        let last = key.rsplit('.').next().unwrap();
        assert!(ended.stderr.contains(last), "{key}: {}", ended.stderr);
    }
}
