//! The captioner that ships, as a user meets it: no `--model`, any folder, one program.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::*;
use serde_json::Value;

fn in_source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The photos that ship, in order.
fn photos() -> Vec<String> {
    let entries = fs::read_dir(in_source("datasets/photos")).expect("the photos ship");
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut photos: Vec<String> = names.filter(|name| name.ends_with(".jpg")).collect();
    photos.sort();
    photos
}

/// File names with their captions, from `path<TAB>caption`.
fn captions(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(|line| line.split_once('\t').expect("a path, a tab, a caption"));
    lines
        .map(|(path, caption)| {
            (path.rsplit(['/', '\\']).next().unwrap().to_string(), caption.to_string())
        })
        .collect()
}

#[test]
fn photos_are_captioned_without_a_model_from_any_folder() {
    let away = tempfile::tempdir().unwrap();
    // A folder of its name that is no checkpoint (Flickr8k itself, say) changes nothing.
    fs::create_dir(away.path().join("flickr8k")).unwrap();
    let caption = |arguments: &[&str]| {
        let mut command = patchword();
        command.arg("caption").arg(in_source("datasets/photos")).args(arguments);
        run(command.current_dir(away.path()))
    };
    let ended = caption(&[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let captioned = captions(&ended.stdout);
    let names: Vec<&str> = captioned.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.len() >= 8, "{names:?}");
    assert_eq!(names, photos());
    assert!(captioned.iter().all(|(_, caption)| !caption.trim().is_empty()), "{captioned:?}");
    let notes = ended.lines("model: flickr8k, ");
    assert_eq!(notes.len(), 1, "{}", ended.stderr);
    for words in ["Flickr8k", "for research", "--model Salesforce/blip-image-captioning-base"] {
        assert!(notes[0].contains(words), "{words}: {}", notes[0]);
    }

    let quiet = caption(&["--quiet"]);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""));
    assert_eq!(quiet.stdout, ended.stdout);

    // By its name it is the same model, and does not introduce itself to who knows it.
    let named = caption(&["--model", "flickr8k", "--format", "jsonl"]);
    assert_eq!(named.code, 0, "{}", named.stderr);
    assert!(!named.stderr.contains("model: "), "{}", named.stderr);
    for (line, (name, caption)) in named.stdout.lines().zip(&captioned) {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["model"], "flickr8k");
        assert_eq!(line["caption"], caption.as_str());
        assert!(line["path"].as_str().unwrap().ends_with(name), "{line}");
    }
    let unnamed = caption(&["--format", "jsonl"]);
    assert_eq!(unnamed.stdout, named.stdout);
}

/// Made by `cargo run --release --locked -- caption datasets/photos --quiet > tests/fixtures/shipped.tsv`
/// from the weights that ship; to be made anew with them.
#[test]
fn the_captions_are_those_of_the_weights() {
    let golden = include_str!("../fixtures/shipped.tsv");
    let ended = run(patchword().arg("caption").arg(in_source("datasets/photos")));
    let (expected, found) = (captions(golden), captions(&ended.stdout));
    assert_eq!(expected.len(), found.len());
    let differ = expected.iter().zip(&found).filter(|(one, other)| one != other);
    let differ: Vec<_> = differ.collect();
    // Two beams may be so close that another processor's rounding swaps them.
    assert!(differ.len() <= 1, "{differ:#?}");
}

#[test]
fn it_can_be_inspected_described_copied_and_trained_on() {
    let away = tempfile::tempdir().unwrap();
    let at = |name: &str| away.path().join(name);
    let here = |arguments: &[&str]| run(patchword().args(arguments).current_dir(away.path()));
    let photo = in_source("datasets/photos").join(&photos()[0]);
    let photo = photo.to_str().unwrap();

    let ended = here(&["inspect", photo, "--out", "inspected"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(ended.lines("model: flickr8k, ").len(), 1, "{}", ended.stderr);
    assert!(at("inspected/sheet.png").is_file());
    // Nothing that is there is lost.
    let again = here(&["inspect", photo, "--out", "inspected", "--text", "a dog"]);
    assert_eq!(again.code, 1, "{}", again.stderr);
    assert!(again.stderr.contains("exists already"), "{}", again.stderr);
    assert!(again.stderr.contains("hint: --overwrite"), "{}", again.stderr);
    let sheet = fs::read(at("inspected/sheet.png")).unwrap();
    let over = ["inspect", photo, "--out", "inspected", "--text", "a dog", "--overwrite"];
    assert_eq!(here(&over).code, 0);
    assert!(fs::read(at("inspected/sheet.png")).unwrap() != sheet, "the old sheet is there still");

    let by_default = here(&["model", "info"]);
    let by_name = here(&["model", "info", "flickr8k"]);
    assert_eq!((by_default.code, by_name.code), (0, 0), "{}", by_default.stderr);
    assert_eq!(by_default.stdout, by_name.stdout);
    let encoder = "MobileNetV2, whose grid of features is the patches, then 1 layer, width 256";
    for words in ["part of this program", "F16", "research only", encoder, "9×9 patches of 32×32"]
    {
        assert!(by_name.stdout.contains(words), "{words}: {}", by_name.stdout);
    }

    // A copy holds the same files, and captions alike.
    let ended = here(&["model", "convert", "flickr8k", "copy"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (copy, source) = (snapshot(&at("copy")), snapshot(&in_source("checkpoints/flickr8k")));
    for (name, bytes) in &copy {
        let text = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        match name.as_str() {
            "config.json" => assert_eq!(text(bytes), text(&source[name]), "{name}"),
            _ => assert!(*bytes == source[name], "{name}"),
        }
    }
    assert_eq!(copy.len(), 6, "{:?}", copy.keys());
    let shipped = here(&["caption", photo]);
    let copied = here(&["caption", photo, "--model", "copy"]);
    assert_eq!(copied.stdout, shipped.stdout, "{}", copied.stderr);

    // Its mean with its copy is itself.
    let ended = here(&["model", "average", "flickr8k", "copy", "--output", "mean"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(here(&["caption", photo, "--model", "mean"]).stdout, shipped.stdout);

    // A checkpoint of its name that is there is meant by the name, but not taken by default.
    let (_, output) = train_tiny(away.path(), 12, 2);
    fs::rename(output, at("flickr8k")).unwrap();
    let own = here(&["model", "info", "flickr8k"]);
    assert_eq!(own.code, 0, "{}", own.stderr);
    assert!(!own.stdout.contains("part of this program"), "{}", own.stdout);
    assert_eq!(here(&["model", "info"]).stdout, by_default.stdout);
    assert_eq!(here(&["caption", photo]).stdout, shipped.stdout);
    fs::rename(at("flickr8k"), at("other")).unwrap();

    let config = "init = \"flickr8k\"\noutput = \"tuned\"\n[data]\npath = \"shapes\"\n[train]\nmax_steps = 1\n\
                  batch_size = 2\nvalidation_images = 2\n";
    fs::write(at("tune.toml"), config).unwrap();
    let ended = here(&["train", "tune.toml"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let ended = here(&["caption", photo, "--model", "tuned", "--format", "jsonl"]);
    let line: Value = serde_json::from_str(ended.stdout.trim()).unwrap();
    assert_eq!(line["model"], "tuned");
    // What is made of its weights is for research, too.
    let tuned = here(&["model", "info", "tuned"]);
    assert!(tuned.stdout.contains("research only"), "{}", tuned.stdout);
    let card = fs::read_to_string(at("tuned/best/README.md")).unwrap();
    assert!(card.contains("began with `flickr8k`, whose licence holds: research only"), "{card}");
}

#[test]
fn a_revision_needs_a_model() {
    let ended = run(patchword().args(["caption", "photo.jpg", "--revision", "main"]));
    assert_eq!(ended.code, 2, "{}", ended.stderr);
}

/// A caption that is given back is the caption that was said: the tokens and their log-probability.
#[test]
fn its_own_captions_are_as_likely_when_they_are_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let inspect = |photo: &str, text: Option<&str>| -> Value {
        let out = folder.path().join(format!("{photo}-{}", text.is_some()));
        let mut command = patchword();
        command.arg("inspect").arg(in_source("datasets/photos").join(photo));
        command.arg("--out").arg(&out).args(text.iter().flat_map(|text| ["--text", text]));
        let ended = run(&mut command);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        serde_json::from_slice(&fs::read(out.join("attention.json")).unwrap()).unwrap()
    };
    for photo in photos().iter().take(4) {
        let said = inspect(photo, None);
        let caption = said["caption"].as_str().unwrap();
        assert!(caption.ends_with(|last: char| last.is_ascii_punctuation()), "{caption}");
        let given = inspect(photo, Some(caption));
        let apart =
            said["log_probability"].as_f64().unwrap() - given["log_probability"].as_f64().unwrap();
        assert!(apart.abs() < 1e-3, "{photo}: {caption}: {said} {given}");
        let tokens = |value: &Value| -> Vec<Value> {
            let words = value["words"].as_array().unwrap();
            words.iter().map(|word| word["token_ids"].clone()).collect()
        };
        assert_eq!(tokens(&said), tokens(&given), "{photo}");
    }
}
