//! `patchword evaluate` on a data set of which only captions are known.

use std::fs;
use std::path::Path;

use crate::common::*;
use serde_json::{Map, Value, json};

#[test]
fn a_split_is_captioned_and_scored_as_score_does() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("shapes");
    draw_shapes(&data, 60);
    // Without what is known of the scenes these are photos like any other.
    for split in ["train", "validation", "test"] {
        let file = data.join(split).join("metadata.jsonl");
        let text = fs::read_to_string(&file).unwrap();
        let plain = text.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            format!("{}\n", json!({"file_name": line["file_name"], "text": line["text"]}))
        });
        fs::write(&file, plain.collect::<String>()).unwrap();
    }
    let output = folder.path().join("run");
    let mut config = tiny_config(&data, &output);
    set(&mut config, "train.max_steps", 10);
    let file = folder.path().join("run.toml");
    write_config(&file, &config);
    let ended = run(patchword().arg("train").arg(&file));
    assert_eq!(ended.code, 0, "{}", ended.stderr);

    let captions = folder.path().join("captions.jsonl");
    let mut command = patchword();
    command.arg("evaluate").arg("--model").arg(&output).arg("--data").arg(&data);
    command.args(["--split", "test", "--json", "--captions"]).arg(&captions);
    let ended = run(&mut command);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let evaluation: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(evaluation["perplexity"].as_f64().unwrap() > 1.0);
    assert_eq!(
        evaluation["worst"].as_array().unwrap().len(),
        evaluation["best"].as_array().unwrap().len()
    );

    let references = folder.path().join("references.json");
    let text = fs::read_to_string(data.join("test/metadata.jsonl")).unwrap();
    let all: Map<String, Value> = text
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            (line["file_name"].as_str().unwrap().to_owned(), line["text"].clone())
        })
        .collect();
    fs::write(&references, Value::Object(all).to_string()).unwrap();
    let mut command = patchword();
    command.arg("score").arg("--references").arg(&references).arg("--predictions").arg(&captions);
    let ended = run(command.arg("--json"));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let score: Value = serde_json::from_str(&ended.stdout).unwrap();
    for name in ["Bleu_4", "ROUGE_L", "CIDEr", "METEOR", "images"] {
        assert_eq!(evaluation["scores"][name], score[name], "{name}");
    }
    assert_eq!(evaluation["scores"]["interval_95"], score["interval_95"]);
}

#[test]
fn a_split_that_is_drawn_is_as_large_as_in_training() {
    let folder = tempfile::tempdir().unwrap();
    let (data, output) = (folder.path().join("data"), folder.path().join("run"));
    fs::create_dir(&data).unwrap();
    for index in 0..30u8 {
        let image = image::RgbImage::from_pixel(16, 16, image::Rgb([index * 8, 40, 200]));
        image.save(data.join(format!("{index}.png"))).unwrap();
        fs::write(data.join(format!("{index}.txt")), format!("colour number {index}\n")).unwrap();
    }
    let mut config = tiny_config(&data, &output);
    set(&mut config, "data.captions_per_image", 1);
    set(&mut config, "data.val_share", 0.4);
    set(&mut config, "train.validation_images", 0);
    set(&mut config, "train.max_steps", 2);
    let file = folder.path().join("run.toml");
    write_config(&file, &config);
    let ended = run(patchword().arg("train").arg(&file));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let images = |data: &Path, more: &[&str]| {
        let mut command = patchword();
        command.args(["evaluate", "--json", "--model"]).arg(&output).arg("--data").arg(data);
        let measured = run(command.args(more));
        assert_eq!(measured.code, 0, "{}", measured.stderr);
        let evaluation: Value = serde_json::from_str(&measured.stdout).unwrap();
        (evaluation["images"].as_u64().unwrap(), measured.stderr)
    };
    let (drawn, said) = images(&data, &[]);
    assert!(ended.stderr.contains(&format!("{drawn} to validate on")), "{}", ended.stderr);
    assert!(!said.contains("--val-share"), "{said}");
    // Another share is the user's to ask for, but not to take for what the model has not seen.
    let (other, said) = images(&data, &["--val-share", "0.1"]);
    assert!(other < drawn && said.contains("held out 0.4"), "{other}, {said}");
    // Of other images the run knows nothing.
    let copy = folder.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(&data).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let (of_copy, said) = images(&copy, &[]);
    assert!(of_copy < drawn && !said.contains("held out"), "{of_copy}, {said}");
}
