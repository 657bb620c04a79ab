//! A run that is killed and resumed ends in the same bytes as one that was never disturbed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::common::*;
use patchword::train::TrainConfig;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const STEPS: u64 = 40;

/// A run's config file, and where it writes.
struct Run {
    config: PathBuf,
    output: PathBuf,
}

impl Run {
    fn new(folder: &Path, name: &str) -> Self {
        let run = Self {
            config: folder.join(format!("{name}.toml")),
            output: folder.join(name).join("run"),
        };
        let config = tiny_config(&folder.join("shapes"), &run.output);
        write_config(&run.config, &config);
        run
    }

    fn command(&self, extra: &[&str]) -> Command {
        let mut command = patchword();
        command.arg("train").arg(&self.config).args(extra);
        command.stdout(Stdio::null()).stdin(Stdio::null());
        command
    }

    fn start(&self) -> Child {
        self.command(&["--resume"]).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn finish(&self) {
        let ended = run(&mut self.command(&["--resume"]));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    }

    /// The last step that metrics.jsonl tells of.
    fn step(&self) -> u64 {
        let text = fs::read_to_string(self.output.join("metrics.jsonl")).unwrap_or_default();
        text.lines().filter_map(step_of).next_back().unwrap_or(0)
    }

    /// Waits until the run has come to `step`; whether it is still running then.
    fn wait_for(&self, child: &mut Child, step: u64) -> bool {
        let patience = Instant::now() + Duration::from_secs(120);
        while self.step() < step {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(Instant::now() < patience, "step {step} never came");
            sleep(Duration::from_millis(1));
        }
        child.try_wait().unwrap().is_none()
    }

    /// What must be equal to the byte.
    fn result(&self) -> Vec<(&'static str, Vec<u8>)> {
        [
            "best/model.safetensors",
            "last/model.safetensors",
            "last/training/optimizer.safetensors",
            "last/training/weights.safetensors",
            "last/tokenizer.json",
        ]
        .map(|name| (name, fs::read(self.output.join(name)).unwrap()))
        .into()
    }
}

fn step_of(line: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(line).ok()?["step"].as_u64()
}

/// The undisturbed run, made once.
fn undisturbed() -> &'static (tempfile::TempDir, Run) {
    static RUN: OnceLock<(tempfile::TempDir, Run)> = OnceLock::new();
    RUN.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        draw_shapes(&folder.path().join("shapes"), 40);
        let run = Run::new(folder.path(), "undisturbed");
        run.finish();
        (folder, run)
    })
}

#[track_caller]
fn assert_same_as_undisturbed(run: &Run) {
    let (_, calm) = undisturbed();
    for ((name, bytes), (_, expected)) in run.result().iter().zip(calm.result()) {
        assert!(*bytes == expected, "{name} differs from the undisturbed run's");
    }
    // Wherever it was stopped, each step is told of once, in order.
    let text = fs::read_to_string(run.output.join("metrics.jsonl")).unwrap();
    let mut seen = BTreeSet::new();
    let mut last = 0;
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let step = value["step"].as_u64().unwrap();
        assert!(seen.insert((value["kind"].to_string(), step)), "told of twice: {line}");
        assert!(step >= last, "out of order: {line}");
        last = step;
    }
    let steps = seen.iter().filter(|(kind, _)| kind == "\"train\"").count() as u64;
    let validations = seen.iter().filter(|(kind, _)| kind == "\"validation\"").count() as u64;
    assert_eq!((steps, validations), (STEPS, STEPS / 10));
}

#[test]
fn five_kills_at_random_moments_change_nothing() {
    let (folder, _) = undisturbed();
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed of the moments: {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let run = Run::new(folder.path(), "killed");
    let mut moments: Vec<u64> = (0..5).map(|_| rng.random_range(1..STEPS - 1)).collect();
    moments.sort_unstable();
    let mut landed = 0;
    for step in moments {
        let mut child = run.start();
        run.wait_for(&mut child, step);
        // Anywhere in a step, in a checkpoint's writing or between.
        let delay = Duration::from_micros(rng.random_range(0..40_000));
        sleep(delay);
        let running = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        println!("killed {delay:?} after step {step}: {}", if running { "hit" } else { "missed" });
        landed += u32::from(running);
    }
    assert!(landed >= 3, "only {landed} kills hit a running process: make the run longer");
    run.finish();
    assert_same_as_undisturbed(&run);
    // Nor is anything left lying about.
    let left: Vec<String> =
        snapshot(&run.output).into_keys().filter(|name| name.starts_with('.')).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

fn signal_saves_and_resumes(signal: &str, step: u64) {
    let (folder, _) = undisturbed();
    let run = Run::new(folder.path(), &format!("signal-{signal}"));
    let mut child = run.start();
    assert!(run.wait_for(&mut child, step), "the run ended before the signal");
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -{signal} {}", child.id())])
        .status()
        .unwrap();
    assert!(sent.success());
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!(ended.code, 130, "{}", ended.stderr);
    assert!(!ended.is_a_bug(), "{}", ended.stderr);
    assert_eq!(
        ended.lines("stopping: this step is finished and saved").len(),
        1,
        "{}",
        ended.stderr
    );
    let errors = ended.lines("error: ");
    assert_eq!(errors.len(), 1, "{}", ended.stderr);
    let stopped = errors[0]
        .strip_prefix("error: interrupted at step ")
        .and_then(|rest| rest.strip_suffix("; saved"))
        .and_then(|step| step.parse::<u64>().ok());
    let stopped = stopped.unwrap_or_else(|| panic!("{}", ended.stderr));
    let hint = ended.lines("hint: ");
    assert!(
        hint.len() == 1 && hint[0].starts_with("hint: go on with: patchword train "),
        "{hint:?}"
    );
    assert!(hint[0].ends_with("--resume"), "{hint:?}");
    assert!(stopped >= step);
    let state = fs::read_to_string(run.output.join("last/training/state.json")).unwrap();
    assert_eq!(step_of(&state), Some(stopped), "the step it stopped at was not saved");
    run.finish();
    assert_same_as_undisturbed(&run);
}

#[test]
fn sigterm_saves_and_the_run_can_go_on() {
    signal_saves_and_resumes("TERM", 11);
}

#[test]
fn ctrl_c_saves_and_the_run_can_go_on() {
    signal_saves_and_resumes("INT", 17);
}

#[test]
fn a_stop_at_a_step_that_validates_does_not_lose_the_validation() {
    let (folder, _) = undisturbed();
    let run = Run::new(folder.path(), "stopped");
    let config = TrainConfig::read(&run.config, &[]).unwrap();
    for step in [10, 20, 23] {
        train_until(&config, step);
    }
    run.finish();
    assert_same_as_undisturbed(&run);
}

#[test]
fn other_settings_on_resuming_stay_in_the_card() {
    let (folder, _) = undisturbed();
    let run = Run::new(folder.path(), "changed");
    assert_eq!(crate::common::run(&mut run.command(&["--set", "train.max_steps=2"])).code, 0);
    let more = ["--set", "train.max_steps=3", "--set", "schedule.warmup_steps=77", "--resume"];
    let ended = crate::common::run(&mut run.command(&more));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(ended.lines("warning: resumed with another setting: ").len(), 2, "{}", ended.stderr);
    let card = fs::read_to_string(run.output.join("last/README.md")).unwrap();
    let line =
        card.lines().find(|line| line.starts_with("- Resumed at step 2 with other settings: "));
    let line = line.unwrap_or_else(|| panic!("{card}"));
    assert!(
        line.contains("schedule.warmup_steps was ") && line.contains(" and is now 77"),
        "{line}"
    );
    // Of a run that is longer than it is to be nothing is left to do.
    let ended = crate::common::run(&mut run.command(&["--set", "train.max_steps=2", "--resume"]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let said = "finished already: it has taken 3 steps, and the config asks for 2";
    assert_eq!(ended.lines(said).len(), 1, "{}", ended.stderr);
}

#[test]
fn a_folder_with_a_run_in_it_is_not_trained_into_again() {
    let (folder, _) = undisturbed();
    let run = Run::new(folder.path(), "twice");
    let short = ["--set", "train.max_steps=2"];
    assert_eq!(crate::common::run(&mut run.command(&short)).code, 0);
    let before = snapshot(&run.output);
    let ended = crate::common::run(&mut run.command(&short));
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let expected = format!("error: {}: a run is here already, at step 2", run.output.display());
    assert_eq!(ended.lines("error: "), [expected], "{}", ended.stderr);
    assert!(ended.lines("hint: ")[0].contains("--resume"), "{}", ended.stderr);
    // Another seed and another model are no continuation either.
    for (change, word) in
        [("seed=4", "seed"), ("model.encoder.d_ff=48", "model.encoder.d_ff was 32 and is now 48")]
    {
        let other = [&short[..], &["--resume", "--set", change]].concat();
        let ended = crate::common::run(&mut run.command(&other));
        assert_eq!(ended.code, 1, "{change}: {}", ended.stderr);
        let errors = ended.lines("error: ");
        assert_eq!(errors.len(), 1, "{change}: {}", ended.stderr);
        assert!(errors[0].contains("cannot resume") && errors[0].contains(word), "{}", errors[0]);
        assert_eq!(snapshot(&run.output), before, "{change} was refused but wrote");
    }
}

/// A good checkpoint at step 6, then a learning rate that no model survives.
fn blow_up(name: &str, settings: &[&str]) {
    let (folder, _) = undisturbed();
    let good = Run::new(folder.path(), name);
    let ended = run(&mut good.command(&["--set", "train.max_steps=6"]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let last = good.output.join("last");
    let before = snapshot(&last);

    let mut command = good.command(&["--resume", "--set", "train.max_steps=30"]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    let ended = run(&mut command);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(!ended.is_a_bug(), "{}", ended.stderr);
    let errors = ended.lines("error: ");
    assert_eq!(errors.len(), 1, "{}", ended.stderr);
    assert!(errors[0].contains(&last.display().to_string()), "{}", errors[0]);
    assert!(ended.lines("hint: ")[0].contains("schedule.learning_rate"), "{}", ended.stderr);
    assert!(snapshot(&last) == before, "the last good checkpoint was replaced");

    let image = folder.path().join("shapes/train");
    let image = fs::read_dir(image).unwrap().map(|entry| entry.unwrap().path());
    let image = image.filter(|path| path.extension().is_some_and(|e| e == "png")).min().unwrap();
    for model in [&good.output, &last] {
        let ended = run(patchword().arg("caption").arg(&image).arg("--model").arg(model));
        assert_eq!((ended.code, ended.stdout.lines().count()), (0, 1), "{}", ended.stderr);
    }
    // A gentler rate goes on from there.
    let ended = run(&mut good.command(&["--resume", "--set", "train.max_steps=8"]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_names_the_last_good_checkpoint() {
    blow_up("diverged", &["schedule.learning_rate=1e30", "train.checkpoint_every=7"]);
}

#[test]
fn weights_that_are_no_numbers_replace_no_checkpoint() {
    // The loss of step 7 is still sound, but its update is not, and step 7 writes a checkpoint.
    blow_up("overflowed", &["schedule.learning_rate=1e300", "train.checkpoint_every=1"]);
}

#[test]
fn a_validation_that_is_no_number_replaces_no_checkpoint() {
    blow_up("invalid", &["schedule.learning_rate=1e300", "train.validate_every=7"]);
}
