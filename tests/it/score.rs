//! `patchword score` as a user meets it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::{Ended, patchword, run};

fn write(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path
}

/// Two images, two references each.
fn references(folder: &Path) -> PathBuf {
    let references = json!({
        "one.jpg": ["A dog runs on the grass.", "The dog is running."],
        "two.jpg": ["Two men sit on a bench.", "Two old men are sitting."],
    });
    write(folder, "references.json", &references.to_string())
}

fn score(references: &Path, predictions: &Path, more: &[&str]) -> Ended {
    let mut command = patchword();
    command.arg("score").arg("--references").arg(references).arg("--predictions").arg(predictions);
    run(command.args(more))
}

fn json_of(ended: &Ended) -> Value {
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn all_formats_of_both_files_give_the_same_scores() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let karpathy = json!({"images": [
        {"filename": "one.jpg", "cocoid": 1, "split": "val", "sentences": [{"raw": "A dog runs on the grass."}, {"raw": "The dog is running."}]},
        {"filename": "two.jpg", "cocoid": 2, "split": "val", "sentences": [{"raw": "Two men sit on a bench."}, {"raw": "Two old men are sitting."}]},
        {"filename": "three.jpg", "cocoid": 3, "split": "train", "sentences": [{"raw": "A dog runs!"}]},
    ]});
    let coco = json!({
        "images": [{"id": 1, "file_name": "one.jpg"}, {"id": 2, "file_name": "two.jpg"}],
        "annotations": [
            {"image_id": 1, "caption": "A dog runs on the grass."}, {"image_id": 2, "caption": "Two men sit on a bench."},
            {"image_id": 1, "caption": "The dog is running."}, {"image_id": 2, "caption": "Two old men are sitting."},
        ],
    });
    let references = [
        (references(folder), None),
        (write(folder, "karpathy.json", &karpathy.to_string()), Some("val")),
        (write(folder, "coco.json", &coco.to_string()), None),
    ];
    let results = json!([{"image_id": 2, "caption": "two men sit"}, {"image_id": 1, "caption": "a dog runs"}]);
    let map = json!({"one": "a dog runs", "two": "two men sit"});
    let lines = "{\"path\": \"photos/two.jpg\", \"caption\": \"two men sit\", \"score\": 1}\n\
                 {\"path\": \"photos/one.jpg\", \"caption\": \"a dog runs\"}\n";
    let predictions = [
        write(folder, "results.json", &results.to_string()),
        write(folder, "map.json", &map.to_string()),
        write(folder, "lines.jsonl", lines),
        write(folder, "lines.tsv", "photos/one.jpg\ta dog runs\nphotos/two.jpg\ttwo men sit\n"),
    ];
    let mut seen: Vec<Value> = Vec::new();
    for (references, split) in &references {
        for predictions in &predictions {
            if references.ends_with("references.json") && predictions.ends_with("results.json") {
                continue;
            }
            let mut more = vec!["--json"];
            more.extend(split.iter().flat_map(|split| ["--split", split]));
            let mut value = json_of(&score(references, predictions, &more));
            // Karpathy's file knows the training captions.
            let novel = value["diversity"]["novel"].take();
            assert_eq!(novel.as_f64(), split.map(|_| 0.5), "{value}");
            seen.push(value);
        }
    }
    assert_eq!(seen.len(), 11);
    assert!(seen.iter().all(|value| *value == seen[0]), "{seen:#?}");
    assert!((seen[0]["Bleu_1"].as_f64().unwrap() - (1.0f64 - 9.0 / 6.0).exp()).abs() < 1e-6);
    assert_eq!(seen[0]["METEOR_stages"], "exact, stem");
    assert_eq!(seen[0]["images"], 2);
    assert!(seen[0]["interval_95"]["CIDEr"][1].is_f64());
}

#[test]
fn missing_and_extra_images_are_named_and_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let references = references(folder);
    let predictions = write(folder, "p.json", r#"{"one.jpg": "a dog runs"}"#);
    let ended = score(&references, &predictions, &[]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("no caption for two.jpg"), "{}", ended.stderr);
    assert!(ended.stderr.contains("hint: --allow-missing"), "{}", ended.stderr);
    let ended = score(&references, &predictions, &["--allow-missing", "--json"]);
    assert_eq!(json_of(&ended)["images"], 1);
    assert!(ended.stderr.contains("two.jpg"), "{}", ended.stderr);

    let all = r#"{"one.jpg": "a dog runs", "two.jpg": "men", "six.jpg": "a", "seven.jpg": "b"}"#;
    let predictions = write(folder, "p.json", all);
    let ended = score(&references, &predictions, &[]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("no references: six.jpg, seven.jpg"), "{}", ended.stderr);
    let ended = score(&references, &predictions, &["--allow-extra", "--json"]);
    assert_eq!(json_of(&ended)["images"], 2);

    // A name that is misspelt is both; and a tab in a path is not the one before the caption.
    let lines = "one.jpg\ta dog runs\nto\to.jpg\tmen\n";
    let ended = score(&references, &write(folder, "p.tsv", lines), &[]);
    assert_eq!(ended.code, 1);
    let expected =
        "no caption for two.jpg; captions for images that have no references: to\\to.jpg";
    assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    assert!(ended.stderr.contains("--allow-missing and --allow-extra leave"), "{}", ended.stderr);
}

#[test]
fn captions_of_one_split_bring_its_name_to_mind() {
    let folder = tempfile::tempdir().unwrap();
    let karpathy = json!({"images": [
        {"filename": "one.jpg", "split": "val", "sentences": [{"raw": "A dog."}]},
        {"filename": "two.jpg", "split": "train", "sentences": [{"raw": "A cat."}]},
        {"filename": "three.jpg", "split": "val", "sentences": [{"raw": "A cow."}]},
    ]});
    let references = write(folder.path(), "karpathy.json", &karpathy.to_string());
    let predictions = write(folder.path(), "p.json", r#"{"one": "a dog", "three": "a cow"}"#);
    let ended = score(&references, &predictions, &[]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("no caption for two.jpg"), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("of one split: --split val; or --allow-missing"),
        "{}",
        ended.stderr
    );
    let ended = score(&references, &predictions, &["--split", "val"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("CIDEr of 2 images is not comparable"), "{}", ended.stderr);
}

#[test]
fn two_captions_for_one_image_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let references = references(folder.path());
    let lines =
        r#"[{"image_id": "a/one.jpg", "caption": "x"}, {"image_id": "b/one.png", "caption": "y"}]"#;
    let ended = score(&references, &write(folder.path(), "p.json", lines), &[]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("as a/one.jpg and as b/one.png"), "{}", ended.stderr);
}

#[test]
fn a_bad_line_is_named_with_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let references = references(folder.path());
    let lines = "{\"path\": \"one.jpg\", \"caption\": \"x\"}\n\n{\"path\": \"two.jpg\"}\n";
    let ended = score(&references, &write(folder.path(), "p.jsonl", lines), &[]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("p.jsonl:3: expected predictions"), "{}", ended.stderr);
    assert!(ended.stderr.contains("missing field `caption`"), "{}", ended.stderr);
    for (content, expected) in [
        ("[]", "holds no captions"),
        ("7", "expected predictions"),
        ("nonsense", "expected predictions"),
    ] {
        let ended = score(&references, &write(folder.path(), "p.json", content), &[]);
        assert_eq!(ended.code, 1);
        assert!(ended.stderr.contains(expected) && !ended.is_a_bug(), "{}", ended.stderr);
    }
    let ended = score(&folder.path().join("none.json"), &references, &[]);
    assert!(
        ended.stderr.contains("cannot read") && ended.stderr.contains("none.json"),
        "{}",
        ended.stderr
    );
}

#[test]
fn an_unknown_split_is_an_error_with_those_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let karpathy =
        r#"{"images": [{"filename": "a.jpg", "split": "train", "sentences": [{"raw": "a"}]}]}"#;
    let references = write(folder.path(), "k.json", karpathy);
    let predictions = write(folder.path(), "p.json", r#"{"a.jpg": "a"}"#);
    let ended = score(&references, &predictions, &["--split", "val"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("split `val` (it has train)"), "{}", ended.stderr);
}

#[test]
fn a_comparison_and_the_scores_of_each_image() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let references = references(folder);
    let better = r#"{"one.jpg": "A dog runs on the grass", "two.jpg": "Two men sit on a bench"}"#;
    let worse = r#"{"one.jpg": "A cat", "two.jpg": "Two men"}"#;
    let (worse, better) = (write(folder, "a.json", worse), write(folder, "b.json", better));
    let per_image = folder.join("images.jsonl");
    let more = ["--compare", better.to_str().unwrap(), "--per-image", per_image.to_str().unwrap()];
    let ended = score(&references, &worse, &[&more[..], &["--json"]].concat());
    let value = json_of(&ended);
    let cider = &value["compare"]["differences"]["CIDEr"];
    assert!(cider["difference"].as_f64().unwrap() > 1.0, "{value:#}");
    assert!(cider["p_value"].as_f64().unwrap() < 0.05, "{value:#}");
    let lines: Vec<Value> = fs::read_to_string(&per_image)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["id"], &lines[0]["tokens"]), (&json!("one.jpg"), &json!("a cat")));
    assert!(lines[1]["Bleu_1"].as_f64().unwrap() > lines[0]["Bleu_1"].as_f64().unwrap());

    let ended = score(&references, &worse, &more);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let line = ended.stdout.lines().find(|line| line.starts_with("CIDEr ")).unwrap();
    assert!(line.contains('+') && line.ends_with("≤ 0.0020"), "{}", ended.stdout);
    assert!(ended.stdout.contains("METEOR matches: exact, stem\n"), "{}", ended.stdout);
}

#[test]
fn meteor_data_that_is_none_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let references = references(folder.path());
    let predictions = write(folder.path(), "p.json", r#"{"one": "a", "two": "b"}"#);
    let empty = folder.path().to_str().unwrap();
    let ended = score(&references, &predictions, &["--meteor-data", empty]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("no paraphrase-en.gz"), "{}", ended.stderr);
    let jar = write(folder.path(), "meteor-1.5.jar", "not a jar");
    write(folder.path(), "paraphrase-en.gz", "");
    let ended = score(&references, &predictions, &["--meteor-data", jar.to_str().unwrap()]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("not a jar"), "{}", ended.stderr);
}

#[test]
fn a_folder_of_references_is_answered_with_what_to_name_instead() {
    let folder = tempfile::tempdir().unwrap();
    let predictions = write(folder.path(), "said.json", &json!({"one.jpg": "a dog"}).to_string());
    let refused = |data: &Path, expected: &[&str]| {
        let ended = score(data, &predictions, &[]);
        assert_eq!(ended.code, 1);
        let hint = ended.lines("hint: references are one file");
        assert_eq!(hint.len(), 1, "{}", ended.stderr);
        for expected in expected {
            assert!(hint[0].contains(expected), "{}", hint[0]);
        }
    };
    let photos = folder.path().join("photos");
    fs::create_dir(&photos).unwrap();
    write(&photos, "one.txt", "A dog runs.");
    image::RgbImage::new(8, 8).save(photos.join("one.png")).unwrap();
    let command = format!("`patchword evaluate --model MODEL --data {}`", photos.display());
    refused(&photos, &["COCO captions JSON", &command]);
    let karpathy = folder.path().join("flickr8k");
    fs::create_dir(&karpathy).unwrap();
    let file =
        json!({"images": [{"filename": "one.jpg", "split": "val", "sentences": [{"raw": "a"}]}]});
    write(&karpathy, "dataset_flickr8k.json", &file.to_string());
    refused(&karpathy, &["name the JSON file of captions in"]);
}

/// Names that break lines, and the ids of COCO's files.
#[test]
fn what_caption_prints_is_scored_whatever_the_names_hold() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["two\nlines.jpg", "tab\tname.jpg", "[1] plain.jpg"];
    let references: serde_json::Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), json!(["a dog runs"]))).collect();
    let references = write(folder.path(), "r.json", &json!(references).to_string());
    let lines = "[1] plain.jpg\ta dog\np/tab\\tname.jpg\ta dog\ntwo\\nlines.jpg\ta dog\n";
    let predictions = write(folder.path(), "p.tsv", lines);
    assert_eq!(json_of(&score(&references, &predictions, &["--json"]))["images"], 3);
}
