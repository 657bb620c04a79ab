//! Averages of checkpoints: of any, and of a run's last validations.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::*;
use patchword::checkpoint::tensors::{HostTensors, SavedType, write_as};
use patchword::checkpoint::weight_file::WeightFile;
use serde_json::Value;

fn weights(file: &Path) -> HostTensors {
    WeightFile::open(file).unwrap().read_all().unwrap()
}

/// The largest distance of `found` from the mean of `files`, by plain arithmetic.
fn off_the_mean(found: &HostTensors, files: &[HostTensors]) -> f64 {
    let mut worst = 0.0f64;
    for (name, tensor) in found {
        assert!(!tensor.values.is_empty());
        for (at, value) in tensor.values.iter().enumerate() {
            let sum: f64 = files.iter().map(|file| f64::from(file[name].values[at])).sum();
            worst = worst.max((sum / files.len() as f64 - f64::from(*value)).abs());
        }
    }
    worst
}

fn average(checkpoints: &[PathBuf], output: &Path) -> Ended {
    run(patchword().args(["model", "average"]).args(checkpoints).arg("--output").arg(output))
}

/// A run's config with so much to average.
fn config(folder: &Path, name: &str, last: i64) -> toml::Table {
    let mut config = tiny_config(&folder.join("shapes"), &folder.join(name));
    set(&mut config, "train.average_last", last);
    set(&mut config, "train.validate_every", 4);
    set(&mut config, "train.max_steps", 20);
    config
}

fn train(folder: &Path, config: &toml::Table, extra: &[&str]) -> Ended {
    let file = folder.join("run.toml");
    write_config(&file, config);
    run(patchword().arg("train").arg(&file).args(extra))
}

#[test]
fn the_average_of_two_checkpoints_is_their_mean_and_captions() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    train_tiny(folder.path(), 24, 4);
    let (first, second) = (at("run/best"), at("second"));
    copy_folder(&first, &second);
    let mut other = weights(&first.join("model.safetensors"));
    for tensor in other.values_mut() {
        tensor.values.iter_mut().for_each(|value| *value = 0.5 * *value + 0.125);
    }
    write_as(&second.join("model.safetensors"), &other, SavedType::F16, BTreeMap::new()).unwrap();
    // Learned under other noise: that is no other model.
    let config = second.join("config.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    value["model"]["decoder"]["dropout"] = 0.75.into();
    value["generate"]["num_beams"] = 2.into();
    fs::write(&config, value.to_string()).unwrap();

    let ended = average(&[first.clone(), second.clone()], &at("mean"));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let file = at("mean").join("model.safetensors");
    assert_eq!(ended.stdout, format!("{}\n", file.display()));
    let both = [&first, &second].map(|folder| weights(&folder.join("model.safetensors")));
    let mean = weights(&file);
    assert_eq!(mean.len(), both[0].len());
    let off = off_the_mean(&mean, &both);
    assert!(off < 1e-7, "{off}");
    let card = fs::read_to_string(at("mean").join("README.md")).unwrap();
    assert!(card.contains("mean of the weights of 2") && card.contains("second"), "{card}");

    let photo = at("photo.png");
    image::RgbImage::new(16, 16).save(&photo).unwrap();
    let ended = run(patchword().arg("caption").arg(&photo).arg("--model").arg(at("mean")));
    assert_eq!(ended.code, 0, "{}", ended.stderr);

    let ended = average(&[first.clone(), second], &at("mean"));
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("exists already"), "{}", ended.stderr);
    assert_eq!(average(&[first], &at("alone")).code, 2);
}

#[test]
fn what_does_not_fit_together_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    train_tiny(folder.path(), 24, 2);
    let first = at("run/best");
    let refused = |name: &str, change: &dyn Fn(&Path), expected: &[&str]| {
        let other = at(name);
        copy_folder(&first, &other);
        change(&other);
        let ended = average(&[first.clone(), other], &at("mean"));
        assert_eq!(ended.code, 1, "{name}");
        for expected in expected {
            assert!(ended.stderr.contains(expected), "{name}: {}", ended.stderr);
        }
        assert!(!at("mean").exists());
    };
    let edit = |file: PathBuf, change: &dyn Fn(&mut Value)| {
        let mut value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        change(&mut value);
        fs::write(&file, value.to_string()).unwrap();
    };
    refused(
        "config",
        &|folder| {
            edit(folder.join("config.json"), &|config| {
                config["model"]["decoder"]["activation"] = "relu".into();
            });
        },
        &[
            "config/config.json: `model.decoder.activation` is \"relu\", but \"gelu\" in",
            "run/best/config.json",
        ],
    );
    refused(
        "tokenizer",
        &|folder| {
            edit(folder.join("tokenizer.json"), &|tokenizer| {
                tokenizer["model"]["vocab"]["generate"] = 299.into();
            });
        },
        &["tokenizer/tokenizer.json: `model.vocab.generate` is 299, but null in"],
    );
    let change_weights = |folder: &Path, change: &dyn Fn(&mut HostTensors)| {
        let file = folder.join("model.safetensors");
        let mut tensors = weights(&file);
        change(&mut tensors);
        write_as(&file, &tensors, SavedType::F32, BTreeMap::new()).unwrap();
    };
    refused(
        "missing",
        &|folder| {
            change_weights(folder, &|tensors| drop(tensors.remove("decoder.final_norm.gamma")));
        },
        &["missing/model.safetensors: tensor `decoder.final_norm.gamma` of", "is missing"],
    );
    refused(
        "shape",
        &|folder| {
            change_weights(folder, &|tensors| {
                let tensor = tensors.get_mut("decoder.final_norm.gamma").unwrap();
                tensor.shape = vec![2, 8];
            });
        },
        &["tensor `decoder.final_norm.gamma` has shape [2, 8], but [16] in"],
    );
    refused(
        "adapter",
        &|folder| fs::write(folder.join("adapter.safetensors"), "x").unwrap(),
        &["adapter/adapter.safetensors: the mean of adapters"],
    );
}

#[test]
fn a_run_tries_the_mean_of_its_last_validations() {
    let folder = tempfile::tempdir().unwrap();
    draw_shapes(&folder.path().join("shapes"), 40);
    // Chosen by the score too, once.
    for (name, select_by) in [("loss", "loss"), ("cider", "cider")] {
        let mut config = config(folder.path(), name, 3);
        set(&mut config, "train.select_by", select_by);
        let ended = train(folder.path(), &config, &[]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let run = folder.path().join(name);
        let told = "mean of the weights after steps 12, 16, 20: validation loss";
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
        let mut kept: Vec<_> = fs::read_dir(run.join("recent"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        kept.sort();
        assert_eq!(kept, ["12.safetensors", "16.safetensors", "20.safetensors"]);
        let files: Vec<_> =
            kept.iter().map(|name| weights(&run.join("recent").join(name))).collect();
        // What is kept is what is captioned with: the moving averages.
        assert_eq!(files[2], weights(&run.join("last/model.safetensors")));
        let mean = weights(&run.join("average/model.safetensors"));
        assert!(off_the_mean(&mean, &files) < 1e-7);
        let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told = lines.last().unwrap();
        assert_eq!((&told["kind"], &told["step"]), (&"average".into(), &20.into()));
        assert_eq!(told["steps"], serde_json::json!([12, 16, 20]));
        let key = if select_by == "loss" { "loss" } else { "cider" };
        let singles = lines.iter().filter(|line| line["kind"] == "validation");
        let singles: Vec<f64> = singles.map(|line| line[key].as_f64().unwrap()).collect();
        let score = told[key].as_f64().unwrap();
        let is_best = singles.iter().all(|&s| if key == "loss" { score < s } else { score > s });
        eprintln!("{name}: the mean is the best: {is_best}");
        assert_eq!(told["best"], is_best);
        let best = weights(&run.join("best/model.safetensors"));
        assert_eq!(best == mean, is_best);
        assert_eq!(ended.stderr.contains("of the mean of the weights after"), is_best);
    }
}

#[test]
fn a_stopped_run_averages_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    draw_shapes(&folder.path().join("shapes"), 40);
    let ended = train(folder.path(), &config(folder.path(), "whole", 3), &[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let stopped = config(folder.path(), "stopped", 3);
    for step in [3, 8, 14, 19] {
        train_until(&parsed(&stopped), step);
    }
    // A run that was killed after it had gone on from its last checkpoint.
    let recent = folder.path().join("stopped/recent");
    fs::write(recent.join("20.safetensors"), "half a fi").unwrap();
    fs::write(recent.join("400.safetensors"), "of another").unwrap();
    let ended = train(folder.path(), &stopped, &["--resume"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    for file in [
        "average/model.safetensors",
        "best/model.safetensors",
        "last/model.safetensors",
        "recent/12.safetensors",
        "recent/20.safetensors",
    ] {
        let read = |name: &str| fs::read(folder.path().join(name).join(file)).unwrap();
        assert!(read("stopped") == read("whole"), "{file} differs");
    }
    assert!(!recent.join("400.safetensors").exists());
    // And once more nothing happens.
    let ended = train(folder.path(), &stopped, &["--resume"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("finished already"), "{}", ended.stderr);
}

#[test]
fn one_checkpoint_is_nothing_to_average() {
    let folder = tempfile::tempdir().unwrap();
    draw_shapes(&folder.path().join("shapes"), 24);
    let ended = train(folder.path(), &config(folder.path(), "run", 1), &[]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("train.average_last"), "{}", ended.stderr);
    let mut config = config(folder.path(), "run", 3);
    set(&mut config, "train.max_steps", 4);
    let ended = train(folder.path(), &config, &[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(!folder.path().join("run/average").exists());
}
