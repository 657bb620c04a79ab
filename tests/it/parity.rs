//! `patchword caption` on the three parity cases, whose files lie beside a developer's checkout: the
//! ids and scores that transformers gives, from safetensors and from PyTorch's own files.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{assert_caption_is_theirs, copy_folder, patchword, run};
use serde_json::Value;

/// Flags, and the name of what transformers said with the same settings.
const WAYS: [(&str, &[&str]); 3] = [
    ("greedy", &["--num-beams", "1"]),
    ("beam3", &["--num-beams", "3"]),
    (
        "beam4_ngram2_lp2",
        &[
            "--num-beams",
            "4",
            "--no-repeat-ngram-size",
            "2",
            "--length-penalty",
            "2.0",
            "--early-stopping",
        ],
    ),
];

fn assert_says_what_transformers_says(cases: &Path, model: &Path, end: u32) {
    let said = fs::read(model.join("expected.json")).unwrap();
    let said: Value = serde_json::from_slice(&said).unwrap();
    for (name, flags) in WAYS {
        let mut command = patchword();
        command.arg("caption").args([cases.join("a.png"), cases.join("b.png")]);
        command.args(["--max-new-tokens", "16", "--format", "jsonl", "--device", "flex"]);
        let ended = run(command.args(flags).arg("--model").arg(model));
        let case = format!("{} {name}", model.display());
        assert_eq!(ended.code, 0, "{case}: {}", ended.stderr);
        assert_eq!(ended.stdout.lines().count(), 2, "{case}");
        for (image, line) in ended.stdout.lines().enumerate() {
            assert_caption_is_theirs(line, &said[name], image, end, &case);
        }
    }
}

#[test]
fn captions_are_those_of_transformers() {
    let shared = std::env::var_os("PATCHWORD_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let cases = shared.join("parity");
    for (case, end) in [("blip", 3), ("vit-gpt2", 0), ("vit-bert", 3)] {
        let folder = cases.join(case);
        if !folder.is_dir() {
            eprintln!("skipped: {} is not here", folder.display());
            continue;
        }
        assert_says_what_transformers_says(&cases, &folder, end);
        if folder.join("pytorch_model.bin").is_file() {
            let copy = tempfile::tempdir().unwrap();
            copy_folder(&folder, copy.path());
            fs::remove_file(copy.path().join("model.safetensors")).unwrap();
            assert_says_what_transformers_says(&cases, copy.path(), end);
        }
    }
}
