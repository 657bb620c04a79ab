//! What a training run shows while it goes on, and what it says at its end; shared by `patchword train` and
//! `patchword demo`.

use std::path::Path;

use super::Outcome;
use super::console::Console;
use super::error::{CliError, EXIT_INTERRUPTED};
use super::progress::Progress;
use super::stop;
use super::train::parameters;
use crate::device::{Resolved, length_bucket};
use crate::plural::counted;
use crate::train::{Event, InitConfig, Observer, Plan, Sample, TrainConfig, Validation, train};

/// Trains and reports; shared with `patchword demo`.
pub(super) fn run_training(
    config: &TrainConfig,
    file: &Path,
    device: &Resolved,
    resume: bool,
    console: &Console,
) -> Result<Outcome, CliError> {
    let mut reporter = Reporter {
        console,
        features: None,
        progress: None,
        message: String::new(),
        before: Vec::new(),
        after: Vec::new(),
    };
    let outcome =
        train(config, file, &device.device, length_bucket(&device.device), resume, &mut reporter);
    for progress in reporter.progress.iter().chain(&reporter.features) {
        progress.finish();
    }
    let outcome = outcome?;
    if let Some((loss, step)) = outcome.best {
        let folder = config.output.join("best");
        let whose = match outcome.best_average.as_slice() {
            [] if step == 0 => {
                "before the first step, of the model that training began with".into()
            }
            [] => format!("at step {step}"),
            steps => format!("of the {}", mean_of(steps)),
        };
        match outcome.best_cider {
            Some(cider) => console.note(format_args!(
                "best CIDEr {cider:.4} (validation loss {loss:.4}) {whose}: {}",
                folder.display()
            )),
            None => console.note(format_args!(
                "best validation loss {loss:.4} (perplexity {:.2}) {whose}: {}",
                loss.exp(),
                folder.display()
            )),
        }
    }
    if outcome.stopped_early {
        console.note(format_args!(
            "stopped early, at step {}: nothing better in {} (train.patience)",
            outcome.step,
            counted(config.train.patience, "validation")
        ));
    }
    console.note(format_args!(
        "the device waited for data {:.1} % of the time",
        100.0 * outcome.data_wait_share
    ));
    if outcome.interrupted {
        return Err(CliError::new(format_args!("interrupted at step {}; saved", outcome.step))
            .code(EXIT_INTERRUPTED)
            .hint(format_args!("go on with: {}", command_that_resumes())));
    }
    reporter.compare_captions();
    match outcome.skipped {
        0 => Ok(Outcome::Complete),
        skipped => {
            let were = if skipped == 1 { "was" } else { "were" };
            let skipped = counted(skipped, "image");
            console.warn(format_args!("{skipped} could not be read and {were} left out"));
            Ok(Outcome::SomeInputsFailed)
        }
    }
}

/// Draws the bar and writes what is worth a line.
struct Reporter<'a> {
    console: &'a Console,
    features: Option<Progress>,
    progress: Option<Progress>,
    message: String,
    /// What the model said of some validation images at first.
    before: Vec<Sample>,
    /// What the best one so far says of them.
    after: Vec<Sample>,
}

impl Reporter<'_> {
    fn say(&self, text: String) {
        match &self.progress {
            Some(progress) => progress.suspend(|| self.console.note(&text)),
            None => self.console.note(&text),
        }
    }

    /// What training has made of captions, where there is something to compare.
    fn compare_captions(&self) {
        if self.before.is_empty() || self.after.is_empty() {
            return;
        }
        self.console.note("captions of validation images, before and after:");
        for before in &self.before {
            let Some(after) = self.after.iter().find(|after| after.path == before.path) else {
                continue;
            };
            let name = before.path.file_name().unwrap_or_default().to_string_lossy();
            self.console.note(format_args!("  {name}"));
            self.console.note(format_args!("    before: {}", before.caption));
            self.console.note(format_args!("    after:  {}", after.caption));
        }
    }

    /// What the run is of.
    fn note_plan(&self, plan: &Plan, step: u64, [train, val]: [usize; 2]) {
        for problem in plan.problems.iter().take(20) {
            self.console.warn(problem);
        }
        if plan.problems.len() > 20 {
            let more = counted(plan.problems.len() - 20, "more problem");
            self.console.warn(format_args!("… and {more}"));
        }
        self.say(format!(
            "{} parameters, {} to train on, {} to validate on, {} ({:.1} an epoch)",
            parameters(plan),
            counted(train, "image"),
            val,
            counted(plan.steps, "step"),
            plan.steps_per_epoch
        ));
        if plan.config.train.samples > 0 && step < plan.steps {
            let search = plan.generate.search();
            self.say(format!("samples are decoded as [generate] says: {search}"));
        }
        for warning in plan.warnings() {
            self.console.warn(warning);
        }
    }

    /// What is not as the run that is resumed had it.
    fn warn_of_changes(
        &self,
        plan: &Plan,
        changed: &[String],
        other_init: Option<&InitConfig>,
        lost_best: Option<u64>,
    ) {
        if let Some(init) = other_init {
            self.console.warn(format_args!(
                "init is {init}, but the run began with {}, and goes on from there; to begin \
                 anew, train into another folder with --output",
                plan.config.init
            ));
        }
        if let Some(step) = lost_best {
            self.console.warn(format_args!(
                "{} is gone, the best checkpoint, of step {step}: the next validation's becomes \
                 the best",
                plan.config.output.join("best").display()
            ));
        }
        for setting in changed {
            self.console.warn(format_args!(
                "resumed with another setting: {setting}; to go on with the same run, give \
                 the same config and --set"
            ));
        }
    }

    /// Draws the bar, if there are steps to take.
    fn begin(&mut self, plan: &Plan, step: u64) {
        if step >= plan.steps {
            let (taken, asked) = (counted(step, "step"), plan.steps);
            self.say(match step == asked {
                true => format!("finished already, after {taken}: nothing to do"),
                false => format!(
                    "finished already: it has taken {taken}, and the config asks for {asked}"
                ),
            });
            return;
        }
        if step > 0 {
            self.say(format!("resuming at step {step}"));
        }
        let images = plan.images_before(plan.steps);
        let progress = Progress::new(self.console, "train", Some(images), "images");
        progress.start_at(plan.images_before(step));
        self.progress = Some(progress);
    }
}

/// This process's command, to be given again: what was begun goes on.
fn command_that_resumes() -> String {
    let mut words: Vec<String> = std::env::args().map(|argument| quoted(&argument)).collect();
    if let Some(program) = words.first_mut() {
        *program = "patchword".into();
    }
    // The demo goes on by itself.
    let is_train = words.iter().any(|word| word == "train");
    if is_train && !words.iter().any(|word| word == "--resume") {
        words.push("--resume".into());
    }
    words.join(" ")
}

/// `word` as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// What a validation found.
fn scores(validation: &Validation, cider: Option<f64>, best: bool) -> String {
    format!(
        "validation loss {:.4}, perplexity {:.2}{}{}",
        validation.loss,
        validation.perplexity(),
        cider.map_or_else(String::new, |cider| format!(", CIDEr {cider:.4}")),
        if best { " (best)" } else { "" }
    )
}

fn mean_of(steps: &[u64]) -> String {
    let steps: Vec<String> = steps.iter().map(u64::to_string).collect();
    format!("mean of the weights after steps {}", steps.join(", "))
}

impl Observer for Reporter<'_> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Features { new, done, total } => {
                let start =
                    || Progress::new(self.console, "features", Some(*total as u64), "images");
                let progress = self.features.get_or_insert_with(start);
                progress.advance(*new as u64);
                if done == total {
                    progress.finish();
                }
            }
            Event::Started { plan, step, images, changed, other_init, lost_best } => {
                self.note_plan(plan, *step, *images);
                self.warn_of_changes(plan, changed, *other_init, *lost_best);
                self.begin(plan, *step);
            }
            Event::Step { step, epoch, loss, reward, learning_rate, images } => {
                match (loss, reward) {
                    (_, Some(reward)) => self.message = format!("reward {reward:.3}, "),
                    (Some(loss), None) => self.message = format!("loss {loss:.3}, "),
                    (None, None) => {}
                }
                if let Some(progress) = &self.progress {
                    progress.set_message(format!(
                        "step {step}, epoch {epoch:.2}, {}lr {learning_rate:.1e}",
                        self.message
                    ));
                    progress.advance(*images);
                }
            }
            Event::Validated { step, validation, cider, best, samples } => {
                let when = match step {
                    0 => "before the first step".into(),
                    _ => format!("step {step}"),
                };
                self.say(format!("{when}: {}", scores(validation, *cider, *best)));
                if self.before.is_empty() {
                    self.before = samples.to_vec();
                } else if *best {
                    self.after = samples.to_vec();
                }
                for sample in *samples {
                    let name = sample.path.file_name().unwrap_or_default().to_string_lossy();
                    self.say(format!("  {name}: {}", sample.caption));
                }
            }
            Event::Averaged { steps, validation, cider, best } => {
                self.say(format!("{}: {}", mean_of(steps), scores(validation, *cider, *best)));
            }
            Event::Saved { step, folder } => {
                if self.console.verbosity() > 0 {
                    self.say(format!("step {step}: saved {}", folder.display()));
                }
            }
            Event::Skipped(image) => {
                let warn = || self.console.warn(format_args!("left out: {}", image.reason));
                match &self.progress {
                    Some(progress) => progress.suspend(warn),
                    None => warn(),
                }
            }
        }
    }

    fn stop_requested(&self) -> bool {
        stop::requested()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_is_quoted() {
        for (word, expected) in [
            ("--set", "--set"),
            ("train.lr=1e-4", "train.lr=1e-4"),
            ("my photos", "'my photos'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
            ("$HOME", "'$HOME'"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
