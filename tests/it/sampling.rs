//! Sampling and several captions an image, as a user of `patchword caption` meets them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::*;
use serde_json::Value;

/// A tiny model, hardly trained, and a folder of images of which one is broken.
struct Setting {
    folder: tempfile::TempDir,
}

impl Setting {
    fn new(generate: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        draw_shapes(&data, 12);
        let mut config = tiny_config(&data, &folder.path().join("run"));
        for key in ["max_steps", "validate_every", "checkpoint_every"] {
            set(&mut config, &format!("train.{key}"), 2);
        }
        set(&mut config, "generate", generate.parse::<toml::Table>().unwrap());
        let file = folder.path().join("config.toml");
        write_config(&file, &config);
        let ended = run(patchword().arg("train").arg(&file));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let photos = folder.path().join("photos");
        fs::create_dir(&photos).unwrap();
        for (index, image) in images(&data).into_iter().take(5).enumerate() {
            fs::copy(image, photos.join(format!("{index}.png"))).unwrap();
        }
        fs::write(photos.join("1b.png"), "no image").unwrap();
        Self { folder }
    }

    fn caption(&self, flags: &str) -> Ended {
        let mut command = patchword();
        command.arg("caption").arg(self.folder.path().join("photos"));
        command.arg("--model").arg(self.folder.path().join("run"));
        run(command.args(flags.split_whitespace()))
    }

    /// Captions of the five images; one line a caption.
    fn lines(&self, flags: &str) -> Vec<String> {
        let ended = self.caption(flags);
        assert_eq!(ended.code, 3, "{}", ended.stderr);
        ended.stdout.lines().map(str::to_owned).collect()
    }

    fn usage_error(&self, flags: &str) -> String {
        let ended = self.caption(flags);
        assert_eq!(ended.code, 2, "{flags}: {}", ended.stderr);
        assert_eq!(ended.stdout, "");
        ended.stderr
    }
}

fn images(data: &Path) -> Vec<PathBuf> {
    let files = walkdir::WalkDir::new(data).sort_by_file_name().into_iter();
    let files = files.map(|entry| entry.unwrap().into_path());
    files.filter(|path| path.extension().is_some_and(|it| it == "png")).collect()
}

#[test]
fn samples_follow_from_the_seed_and_not_from_the_batch() {
    let setting = Setting::new("num_beams = 3\nmax_new_tokens = 8");
    let sampled = setting.lines("--do-sample --seed 7 --format jsonl");
    assert_eq!(sampled.len(), 5);
    for batch in ["--batch-size 1", "--batch-size 2", "--batch-size 4"] {
        let again = setting.lines(&format!("--do-sample --seed 7 --format jsonl {batch}"));
        assert_eq!(ids(&again), ids(&sampled), "{batch}");
    }
    assert_ne!(ids(&setting.lines("--do-sample --seed 8 --format jsonl")), ids(&sampled));
    // A caption that is one of several is the same as the only one.
    let three = setting.lines("--do-sample --seed 7 --num-captions 3 --format jsonl");
    assert_eq!(three.len(), 15);
    let first: Vec<String> = three.iter().step_by(3).cloned().collect();
    assert_eq!(ids(&first), ids(&sampled));
    // One token to choose from is greedy.
    let greedy = setting.lines("--num-beams 1 --format jsonl");
    assert_eq!(ids(&setting.lines("--do-sample --top-k 1 --format jsonl")), ids(&greedy));
    assert_eq!(ids(&setting.lines("--do-sample --top-p 0.0001 --format jsonl")), ids(&greedy));
    // Beam sampling, if it is asked for.
    let beams = setting.lines("--do-sample --num-beams 3 --num-captions 2 --format jsonl");
    assert_eq!(beams.len(), 10);
}

fn ids(lines: &[String]) -> Vec<Value> {
    let parse = |line: &String| serde_json::from_str::<Value>(line).unwrap()["token_ids"].clone();
    lines.iter().map(parse).collect()
}

#[test]
fn each_of_several_captions_has_a_line_the_best_first() {
    let setting = Setting::new("num_beams = 3\nmax_new_tokens = 8\nearly_stopping = 'never'");
    let one = setting.lines("--format jsonl");
    let three = setting.lines("--num-captions 3 --format jsonl");
    assert_eq!(three.len(), 15);
    for (index, lines) in three.chunks(3).enumerate() {
        let lines: Vec<Value> =
            lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let best: Value = serde_json::from_str(&one[index]).unwrap();
        assert_eq!(best, lines[0], "the only caption is the best of several");
        let keys: Vec<&String> = best.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["path", "caption", "token_ids", "score", "words", "model"]);
        for pair in lines.windows(2) {
            assert_eq!(pair[0]["path"], pair[1]["path"]);
            assert_ne!(pair[0]["token_ids"], pair[1]["token_ids"]);
            assert!(pair[0]["score"].as_f64() >= pair[1]["score"].as_f64());
        }
    }
    let text = setting.lines("--num-captions 2");
    assert_eq!(text.len(), 10);
    let path = |line: &String| line.split_once('\t').unwrap().0.to_owned();
    assert!(text.chunks(2).all(|pair| path(&pair[0]) == path(&pair[1])));
    assert_eq!(setting.lines("--length-penalty -1").len(), 5);
    // With and without a value, with and without `=`.
    for flag in ["", "=true", " true", "=never", " never", "=false"] {
        assert_eq!(setting.lines(&format!("--early-stopping{flag}")).len(), 5, "{flag}");
    }
}

#[test]
fn settings_of_the_config_are_the_models_own_and_flags_change_them() {
    let setting = Setting::new(
        "num_beams = 1\nmax_new_tokens = 8\ndo_sample = true\nnum_captions = 2\nseed = 3",
    );
    let own = setting.lines("");
    assert_eq!(own.len(), 10);
    assert_eq!(own, setting.lines("--seed 3"));
    assert_ne!(own, setting.lines("--seed 4"));
    assert_ne!(own, setting.lines("--temperature 5"));
    let greedy = setting.lines("--do-sample false --num-captions 1");
    assert_eq!(greedy.len(), 5);
}

#[test]
fn what_does_not_go_together_is_a_usage_error_with_a_hint() {
    let setting = Setting::new("num_beams = 1\nmax_new_tokens = 4");
    let error = setting.usage_error("--num-captions 2");
    assert!(error.contains("greedy") && error.contains("--do-sample"), "{error}");
    let error = setting.usage_error("--num-captions 4 --num-beams 3");
    assert!(error.contains("3 beams") && error.contains("--num-beams 4"), "{error}");
    for flag in ["--top-p 0.9", "--top-k 5", "--temperature 0.5", "--seed 1"] {
        let error = setting.usage_error(flag);
        let name = flag.split(' ').next().unwrap();
        assert!(error.contains(name) && error.contains("add --do-sample"), "{error}");
    }
    for (flags, named) in [
        ("--do-sample --top-p 1.5", "top_p"),
        ("--do-sample --temperature 0", "temperature"),
        ("--do-sample --num-captions 0", "num_captions"),
        ("--early-stopping=always", "never"),
        ("--num-beams 0", "num_beams"),
        ("--min-new-tokens 9", "min_new_tokens"),
    ] {
        let error = setting.usage_error(flags);
        assert!(error.contains(named), "{flags}: {error}");
    }
}
