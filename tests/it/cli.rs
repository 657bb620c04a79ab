//! The program as a user meets it: exit codes, what goes to stdout and what to stderr.

use std::process::{Command, Output};

/// Runs patchword in an environment where nothing of the machine's own settings counts.
fn patchword(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patchword"));
    command.args(arguments);
    // Without a runtime folder the Vulkan loader complains on stderr.
    command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    for name in ["PATCHWORD_DEVICE", "NO_COLOR", "RUST_BACKTRACE", "RAYON_NUM_THREADS"] {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = patchword(arguments).output().unwrap();
    let code = status.code().expect("patchword was killed by a signal");
    (code, String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn devices_lists_flex_and_says_what_auto_takes() {
    let (code, stdout, stderr) = run(&["devices"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.starts_with("DEVICE"), "{stdout}");
    assert!(stdout.lines().any(|line| line.starts_with("flex ")), "{stdout}");
    assert!(stdout.lines().last().unwrap().starts_with("auto takes "), "{stdout}");
}

#[test]
fn devices_as_json_has_exactly_one_that_auto_takes() {
    let (code, stdout, _) = run(&["devices", "--json"]);
    assert_eq!(code, 0);
    let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let devices = value["devices"].as_array().unwrap();
    let auto: Vec<_> = devices.iter().filter(|device| device["auto"] == true).collect();
    assert_eq!(auto.len(), 1, "{stdout}");
    assert_eq!(auto[0]["device"], value["auto"]["device"]);
}

#[test]
fn a_device_can_be_tried() {
    let (code, stdout, stderr) = run(&["devices", "--device", "cpu"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.starts_with("flex is flex (CPU, "), "{stdout}");
}

#[test]
fn an_unknown_device_is_a_usage_error_with_the_right_names() {
    let (code, stdout, stderr) = run(&["devices", "--device", "flx"]);
    assert_eq!(code, 2);
    assert_eq!(stdout, "");
    assert!(stderr.contains("unknown device `flx`: this build has auto, flex"), "{stderr}");
    assert!(stderr.contains("hint: did you mean `flex`?"), "{stderr}");
}

#[test]
fn a_device_that_is_not_there_is_one_error_with_a_hint() {
    if !cfg!(feature = "wgpu") {
        eprintln!("skipped: this build has no wgpu");
        return;
    }
    let (code, stdout, stderr) = run(&["devices", "--device", "wgpu:999"]);
    assert_eq!(code, 1);
    assert_eq!(stdout, "");
    assert!(stderr.contains("error: there is no `wgpu:999`: this machine has "), "{stderr}");
    assert!(stderr.lines().last().unwrap().starts_with("hint: "), "{stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("internal error"), "{stderr}");
}

#[test]
fn a_device_not_compiled_in_says_how_to_build_it() {
    if cfg!(feature = "cuda") {
        eprintln!("skipped: this build has CUDA");
        return;
    }
    let (code, _, stderr) = run(&["devices", "--device", "cuda"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("--features cuda"), "{stderr}");
}

#[test]
fn completions_are_written_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (code, stdout, stderr) = run(&["completions", shell]);
        assert_eq!((code, stderr.as_str()), (0, ""), "{shell}");
        assert!(stdout.contains("devices") && stdout.contains("completions"), "{shell}: {stdout}");
    }
    assert_eq!(run(&["completions", "csh"]).0, 2);
}

#[test]
fn wrong_arguments_are_exit_code_2_and_help_is_0() {
    let (code, stdout, stderr) = run(&["device"]);
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("devices"), "the closest name is missing: {stderr}");
    assert_eq!(run(&[]).0, 2);
    assert_eq!(run(&["devices", "--nonsense"]).0, 2);
    assert_eq!(run(&["--help"]).0, 0);
    let (code, stdout, _) = run(&["devices", "--help"]);
    assert_eq!(code, 0);
    assert!(stdout.contains("Examples:"), "{stdout}");
    let (code, stdout, _) = run(&["--version"]);
    assert_eq!((code, stdout), (0, format!("patchword {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_closed_stdout_is_a_silent_success() {
    let lists: [&[&str]; 4] =
        [&["devices"], &["devices", "--json"], &["completions", "bash"], &["--help"]];
    for arguments in lists {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = patchword(arguments).stdout(writer).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn color_is_used_only_when_asked_for_in_a_pipe() {
    let words = ["devices", "--device", "wgpu:999"];
    assert!(!run(&words).2.contains('\u{1b}'));
    let (_, _, stderr) = run(&["--color", "always", "devices", "--nonsense"]);
    assert!(stderr.contains('\u{1b}'), "{stderr:?}");
    if cfg!(feature = "wgpu") {
        let (_, _, stderr) = run(&[&words[..], &["--color=always"]].concat());
        assert!(stderr.contains('\u{1b}'), "{stderr:?}");
    }
}

#[test]
fn names_do_not_steer_the_terminal_and_do_not_break_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad\u{1b}]0;owned\u{7}\u{202e}.png");
    // Not every file system takes such names; what is not there is named all the same.
    let _ = std::fs::write(&path, "notpng");
    let missing = folder.path().join("two\nlines.png");
    let arguments = [path.to_str().unwrap(), missing.to_str().unwrap()];
    let (code, stdout, stderr) = run(&[&["caption"][..], &arguments].concat());
    assert_ne!(code, 0);
    assert!(!stderr.chars().any(|c| c.is_control() && c != '\n'), "{stderr:?}");
    assert!(stderr.contains("bad\\u{1b}]0;owned\\u{7}\\u{202e}.png"), "{stderr}");
    assert!(stderr.contains("two\\nlines.png") && stdout.is_empty(), "{stderr}");
    assert!(stderr.lines().all(|line| !line.is_empty()), "{stderr}");

    let long = "x".repeat(100_000);
    let (_, _, stderr) = run(&["score", "--references", &long, "--predictions", &long]);
    assert!(stderr.len() < 4000, "{} bytes", stderr.len());
}

#[test]
fn wrong_flags_are_answered_with_the_right_ones_and_help_is_a_command() {
    for (arguments, expected) in [
        (
            &["train", "c.toml", "--caption-extension", ".txt"][..],
            "tip: captions beside the photos",
        ),
        (&["train", "c.toml", "--lr", "1e-4"], "tip: --set schedule.learning_rate=VALUE"),
        (&["inspect", "photo.jpg", "--output", "x"], "tip: --out FOLDER"),
        (&["caption", "photo.jpg", "--num-beam", "3"], "--num-beams"),
    ] {
        let (code, _, stderr) = run(arguments);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
    let (code, stdout, _) = run(&["help", "caption"]);
    assert_eq!(code, 0);
    assert_eq!(stdout, run(&["caption", "--help"]).1);
    assert_eq!(run(&["help", "model", "info"]).1, run(&["model", "info", "--help"]).1);
}
