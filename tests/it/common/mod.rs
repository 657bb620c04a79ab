//! What the tests of the whole program share: running it, small data sets, small configs.

// Each test binary uses its own part of this.
#![allow(dead_code)]

pub mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use patchword::train::{Event, Observer, TrainConfig, train};

/// The program on the CPU, in an environment where nothing of the machine's own settings counts.
pub fn patchword() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patchword"));
    for name in ["NO_COLOR", "RUST_BACKTRACE", "RAYON_NUM_THREADS"] {
        command.env_remove(name);
    }
    command.env("PATCHWORD_DEVICE", "flex");
    command
}

/// Stands for the exit code of a process that a signal ended.
const SIGNALLED: i32 = -1;

/// How a run of the program ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code.
    pub code: i32,
    /// What was asked for.
    pub stdout: String,
    /// Everything else.
    pub stderr: String,
}

impl Ended {
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        let (stdout, mut stderr) = (text(output.stdout), text(output.stderr));
        let code = output.status.code().unwrap_or_else(|| {
            stderr.push_str(&format!("ended by {}", output.status));
            SIGNALLED
        });
        Self { code, stdout, stderr }
    }

    /// Lines of stderr that begin with `prefix`.
    pub fn lines(&self, prefix: &str) -> Vec<&str> {
        self.stderr.lines().filter(|line| line.starts_with(prefix)).collect()
    }

    /// Whether the program itself failed, rather than its input.
    pub fn is_a_bug(&self) -> bool {
        self.code == 101
            || self.code == SIGNALLED
            || ["panicked", "internal error", "RUST_BACKTRACE"]
                .iter()
                .any(|word| self.stderr.contains(word))
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Ended {
    Ended::of(command.output().expect("patchword starts"))
}

/// Draws a shapes data set into `folder`.
pub fn draw_shapes(folder: &Path, images: usize) {
    let images = images.to_string();
    let mut command = patchword();
    command.args(["data", "shapes", "--image-size", "32", "--images", &images]).arg(folder);
    let ended = run(&mut command);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

/// A config whose model is tiny, with dropout, augmentation and averaging on.
pub fn tiny_config(data: &Path, output: &Path) -> toml::Table {
    let text = format!(
        r#"
        seed = 3
        output = {output:?}
        data = {{ path = {data:?}, captions_per_image = 2, workers = 2 }}
        image = {{ height = 16, width = 16, resize = "squash", filter = "bilinear", mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }}
        augment = {{ crop_scale = [0.5, 1.0], flip = 0.5, colour_jitter = 0.2 }}
        tokenizer = {{ vocab_size = 300, min_frequency = 2 }}
        optimizer = {{ ema_decay = 0.9 }}
        schedule = {{ learning_rate = 5e-3, warmup_steps = 4 }}
        generate = {{ num_beams = 1, max_new_tokens = 6 }}

        [model.encoder]
        patch_size = 8
        d_model = 16
        num_layers = 2
        num_heads = 2
        d_ff = 32
        dropout = 0.1
        drop_path = 0.2

        [model.decoder]
        max_positions = 48
        d_model = 16
        num_layers = 1
        num_heads = 2
        d_ff = 32
        dropout = 0.2

        [train]
        max_steps = 40
        batch_size = 4
        validate_every = 10
        validation_images = 2
        checkpoint_every = 3
        log_every = 1
        samples = 1
        "#
    );
    text.parse().expect("the config of the tests is TOML")
}

/// Puts `value` at a dotted `key` of a config.
pub fn set(config: &mut toml::Table, key: &str, value: impl Into<toml::Value>) {
    let (sections, last) = key.rsplit_once('.').unwrap_or(("", key));
    let mut place = config;
    for section in sections.split('.').filter(|section| !section.is_empty()) {
        let next = place.entry(section).or_insert_with(|| toml::Table::new().into());
        place = next.as_table_mut().expect("a section");
    }
    place.insert(last.into(), value.into());
}

/// Writes a config.
pub fn write_config(file: &Path, config: &toml::Table) {
    fs::write(file, toml::to_string(config).expect("a config is TOML")).expect("config written");
}

/// Every file below `folder` with its bytes.
/// A run's marker is left out: it names the process that trained last.
pub fn snapshot(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    walkdir::WalkDir::new(folder)
        .into_iter()
        .map(|entry| entry.expect("folder is readable"))
        .filter(|entry| entry.file_type().is_file() && entry.file_name() != ".patchword-run")
        .map(|entry| {
            let name = entry.path().strip_prefix(folder).expect("below").display().to_string();
            (name, fs::read(entry.path()).expect("file is readable"))
        })
        .collect()
}

/// Copies a folder with everything below it.
pub fn copy_folder(from: &Path, to: &Path) {
    for (name, bytes) in snapshot(from) {
        let target = to.join(name);
        fs::create_dir_all(target.parent().expect("has a parent")).expect("folder made");
        fs::write(target, bytes).expect("file written");
    }
}

/// Asks for a stop at one step.
struct StopAt {
    step: u64,
    now: u64,
}

impl Observer for StopAt {
    fn event(&mut self, event: &Event) {
        if let Event::Step { step, .. } = event {
            self.now = *step;
        }
    }

    fn stop_requested(&self) -> bool {
        self.now == self.step
    }
}

/// Trains in this process, going on where the run was, until `step` steps are taken and saved.
pub fn train_until(config: &TrainConfig, step: u64) {
    let device = burn::tensor::Device::flex();
    let mut observer = StopAt { step, now: 0 };
    let file = Path::new("run.toml");
    let outcome = train(config, file, &device, 1, true, &mut observer).expect("trains");
    assert_eq!((outcome.step, outcome.interrupted), (step, true));
}

/// That a line of JSONL has the ids and, if there is one, the score that transformers gave for `image`:
/// `said` holds `ids` and `scores` of all images.
pub fn assert_caption_is_theirs(
    line: &str,
    said: &serde_json::Value,
    image: usize,
    end: u32,
    case: &str,
) {
    let ours: serde_json::Value = serde_json::from_str(line).unwrap();
    let mut ids: Vec<u32> = serde_json::from_value(said["ids"][image].clone()).unwrap();
    // A row that ended early is filled up.
    if let Some(at) = ids[1..].iter().position(|&id| id == end) {
        ids.truncate(at + 2);
    }
    assert_eq!(ours["token_ids"], serde_json::json!(ids), "{case}, image {image}");
    if let Some(score) = said["scores"][image].as_f64() {
        let distance = (ours["score"].as_f64().unwrap() - score).abs();
        assert!(distance < 1e-4, "{case}, image {image}: {distance}");
    }
}

/// A config as the library has it.
pub fn parsed(config: &toml::Table) -> TrainConfig {
    let text = toml::to_string(config).expect("a config is TOML");
    TrainConfig::parse(&text, Path::new("run.toml"), &[]).expect("a good config")
}

/// Draws `shapes` of so many images into `folder`, and trains on them for so many steps: the config's
/// file and the run's folder.
pub fn train_tiny(folder: &Path, images: usize, steps: i64) -> (PathBuf, PathBuf) {
    let (data, file, output) =
        (folder.join("shapes"), folder.join("config.toml"), folder.join("run"));
    draw_shapes(&data, images);
    let mut config = tiny_config(&data, &output);
    set(&mut config, "train.max_steps", steps);
    write_config(&file, &config);
    let ended = run(patchword().arg("train").arg(&file));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    (file, output)
}

/// An error with its causes, on one line, as the program says it.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}
