//! `patchword bench` as a user runs it, on models that take no time.

use std::process::Command;

fn bench(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patchword"));
    command.arg("bench").args(arguments).args(["--device", "flex"]);
    for name in ["PATCHWORD_DEVICE", "NO_COLOR", "RUST_BACKTRACE", "RAYON_NUM_THREADS"] {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    let code = output.status.code().expect("patchword was killed by a signal");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (code, text(output.stdout), text(output.stderr))
}

/// A config whose steps take milliseconds.
fn tiny(folder: &std::path::Path) -> String {
    let file = folder.join("tiny.toml");
    let text = "
[image]
height = 32
width = 32
resize = \"squash\"
filter = \"bicubic\"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
[data]
captions_per_image = 2
[tokenizer]
vocab_size = 300
[model.encoder]
patch_size = 8
d_model = 16
num_layers = 1
num_heads = 2
d_ff = 32
[model.decoder]
max_positions = 24
d_model = 16
num_layers = 1
num_heads = 2
d_ff = 32
[train]
batch_size = 4
[generate]
max_new_tokens = 12
";
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_string()
}

#[test]
fn training_is_measured_without_any_file_of_data() {
    let folder = tempfile::tempdir().unwrap();
    let config = tiny(folder.path());
    let arguments = ["train", "--config", &config, "--steps", "3", "--tokens", "6", "--json"];
    let (code, stdout, stderr) = bench(&arguments);
    assert_eq!(code, 0, "{stderr}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let number = |key: &str| report[key].as_f64().unwrap_or_else(|| panic!("{key}: {stdout}"));
    assert_eq!(number("steps"), 3.0);
    assert_eq!(number("images_per_step"), 4.0);
    assert_eq!(number("tokens_per_step"), 4.0 * 2.0 * 6.0);
    let step = &report["step_seconds"];
    let of = |key: &str| step[key].as_f64().unwrap();
    assert!(0.0 < of("min") && of("min") <= of("median") && of("median") <= of("max"), "{stdout}");
    assert!(number("matmul_flops_per_second") > number("flops_per_second"), "{stdout}");
    assert!(number("loss") > 4.0 && number("loss") < 7.0, "near ln 300 = 5.7: {stdout}");
    assert!(report["data_wait_share"].is_null());
    assert_eq!(report["peak_memory_bytes"].is_null(), !cfg!(target_os = "linux"));
    assert!(!folder.path().join("unused").exists());
}

#[test]
fn accumulated_batches_count_as_one_step() {
    let folder = tempfile::tempdir().unwrap();
    let config = tiny(folder.path());
    let setting = "train.accumulation=3";
    let (code, stdout, stderr) =
        bench(&["train", "--config", &config, "--steps", "1", "--set", setting, "--json"]);
    assert_eq!(code, 0, "{stderr}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["images_per_step"], 12.0);
}

#[test]
fn data_of_ones_own_shows_the_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let config = tiny(folder.path());
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let drawn = Command::new(env!("CARGO_BIN_EXE_patchword"))
        .args(["data", "shapes", data, "--images", "40", "--image-size", "32", "--quiet"])
        .status()
        .unwrap();
    assert!(drawn.success());
    let (code, stdout, stderr) =
        bench(&["train", "--config", &config, "--data", data, "--steps", "2"]);
    assert_eq!(code, 0, "{stderr}");
    let line = stdout.lines().find(|line| line.starts_with("waiting for data")).unwrap();
    assert!(line.ends_with("% of the time"), "{line}");
    assert!(stdout.contains("GFLOP/s (1024³, f32): the step reaches "), "{stdout}");
}

#[test]
fn captions_are_measured_to_their_full_length() {
    let folder = tempfile::tempdir().unwrap();
    let config = tiny(folder.path());
    let common = ["caption", "--config", &config, "--images", "3", "--batch-size", "2"];
    for beams in ["1", "3"] {
        let more = ["--num-beams", beams, "--new-tokens", "5", "--json"];
        let (code, stdout, stderr) = bench(&[&common[..], &more[..]].concat());
        assert_eq!(code, 0, "{stderr}");
        let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(report["images"], 4, "batches are full");
        for key in ["read", "preprocess", "encode", "token"] {
            assert!(report[format!("{key}_seconds")].as_f64().unwrap() > 0.0, "{key}: {stdout}");
        }
    }
    let (code, stdout, _) = bench(&[&common[..], &["--new-tokens", "5"][..]].concat());
    assert_eq!(code, 0);
    assert!(stdout.contains("a token of the whole batch"), "{stdout}");
}

#[test]
fn what_cannot_be_measured_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = tiny(folder.path());
    let (code, _, stderr) = bench(&["train", "--config", &config, "--tokens", "25"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("`tokens`: 25; expected 1 to 24"), "{stderr}");
    let (code, _, stderr) = bench(&["caption", "--config", &config, "--new-tokens", "40"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("max_new_tokens"), "{stderr}");
    let (code, _, _) = bench(&["train", "--steps", "0"]);
    assert_eq!(code, 2);
}
