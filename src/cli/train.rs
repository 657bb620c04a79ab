//! `patchword train`: train a captioner as a config says.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::Outcome;
use super::console::Console;
use super::device::DeviceArgs;
use super::error::{CliError, EXIT_INTERRUPTED};
use super::model_args::SourceArgs;
use super::progress::Progress;
use super::stop;
use crate::data::DatasetFormat;
use crate::device::{Resolved, length_bucket};
use crate::plural::counted;
use crate::train::{Event, Observer, Plan, Start, TrainConfig, Validation, has_run, train};

/// Train a captioner on your own images
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword train configs/shapes.toml
  patchword train configs/flickr8k.toml --data ~/flickr8k --dry-run
  patchword train configs/flickr8k.toml --data ~/my-photos --output checkpoints/mine \\
      --set train.epochs=20 --set schedule.learning_rate=5e-4
  patchword train configs/flickr8k.toml --data ~/my-photos --output checkpoints/mine --resume

Ctrl-C saves and stops; --resume goes on as if nothing had happened. The run's folder holds best/ \
and last/ (either is a --model), metrics.jsonl, curve.svg; with train.average_last also average/ (a \
--model too) and recent/, what it is the mean of.")]
pub(super) struct TrainArgs {
    /// The config, a TOML file
    config: PathBuf,
    /// The data set, instead of data.path
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Its format, if it is not to be recognised by looking
    #[arg(long, value_name = "FORMAT")]
    dataset_format: Option<DatasetFormat>,
    /// The run's folder, instead of output
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Change a value of the config; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Go on from the last checkpoint of the run's folder; start if there is none
    #[arg(long)]
    resume: bool,
    /// Train even if more than 5 % of the records are bad
    #[arg(long)]
    allow_bad: bool,
    /// Keep what the frozen part of the encoder makes of each image in this folder, so that it is
    /// computed once
    #[arg(long, value_name = "DIR")]
    cache_features: Option<PathBuf>,
    /// Print the resolved config, model size, steps and memory, and stop
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn run(arguments: TrainArgs, console: &Console) -> Result<Outcome, CliError> {
    let mut config = TrainConfig::read(&arguments.config, &arguments.settings)?;
    if let Some(data) = arguments.data {
        config.data.path = data;
    }
    if let Some(output) = arguments.output {
        config.output = output;
    }
    if arguments.dataset_format.is_some() {
        config.data.format = arguments.dataset_format;
    }
    config.data.allow_bad |= arguments.allow_bad;
    if arguments.cache_features.is_some() {
        config.data.cache_features = arguments.cache_features;
    }
    // A run that goes on has what it needs of the model that it began with.
    let goes_on = arguments.resume && has_run(&config.output);
    if let Some(name) = config.init.name()
        && (arguments.dry_run || !goes_on)
    {
        let source = SourceArgs { revision: None, offline: false };
        config.init.located = Some(source.locate(name, console)?);
    }
    if arguments.dry_run {
        let plan = Plan::new(&config, &arguments.config, &Start::new(&config)?)?;
        return describe(&plan, console);
    }
    config.validate(&arguments.config)?;
    let device = arguments.device.open(console)?;
    stop::listen(console);
    if arguments.resume && !goes_on {
        let output = config.output.display();
        console.note(format_args!("{output}: no run to resume; training begins"));
    }
    run_training(&config, &arguments.config, &device, arguments.resume, console)
}

/// Trains and reports; shared with `patchword demo`.
pub(super) fn run_training(
    config: &TrainConfig,
    file: &std::path::Path,
    device: &Resolved,
    resume: bool,
    console: &Console,
) -> Result<Outcome, CliError> {
    let mut reporter = Reporter { console, features: None, progress: None, message: String::new() };
    let outcome =
        train(config, file, &device.device, length_bucket(&device.device), resume, &mut reporter);
    if let Some(progress) = &reporter.progress {
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
            .hint("go on with the same command and --resume"));
    }
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

fn describe(plan: &Plan, console: &Console) -> Result<Outcome, CliError> {
    let mut stdout = console.stdout();
    let config = toml::to_string_pretty(&plan.config)?;
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    writeln!(stdout, "{config}")?;
    for warning in plan.warnings() {
        console.warn(warning);
    }
    writeln!(stdout, "# parameters: {}", parameters(plan))?;
    writeln!(
        stdout,
        "# images: {} to train on, {} to validate on",
        plan.train.len(),
        plan.val.len()
    )?;
    writeln!(stdout, "# steps: {} ({:.1} an epoch)", plan.steps, plan.steps_per_epoch)?;
    writeln!(
        stdout,
        "# memory: about {:.2} GB for weights and optimizer, {:.2} GB for activations",
        gigabytes(plan.memory.state),
        gigabytes(plan.memory.activations)
    )?;
    Ok(Outcome::Complete)
}

/// How many there are, and how many of them are learned where some are not.
fn parameters(plan: &Plan) -> String {
    let millions = |count: usize| format!("{:.2} M", count as f64 / 1e6);
    if plan.trained_parameters == plan.parameters {
        return millions(plan.parameters);
    }
    format!("{} ({} trained)", millions(plan.parameters), millions(plan.trained_parameters))
}

/// Draws the bar and writes what is worth a line.
struct Reporter<'a> {
    console: &'a Console,
    features: Option<Progress>,
    progress: Option<Progress>,
    message: String,
}

impl Reporter<'_> {
    fn say(&self, text: String) {
        match &self.progress {
            Some(progress) => progress.suspend(|| self.console.note(&text)),
            None => self.console.note(&text),
        }
    }
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
            Event::Started { plan, step, images: [train, val], changed, other_init, lost_best } => {
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
                    counted(*train, "image"),
                    val,
                    counted(plan.steps, "step"),
                    plan.steps_per_epoch
                ));
                if plan.config.train.samples > 0 && *step < plan.steps {
                    let search = plan.generate.search();
                    self.say(format!("samples are decoded as [generate] says: {search}"));
                }
                for warning in plan.warnings() {
                    self.console.warn(warning);
                }
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
                for setting in *changed {
                    self.console.warn(format_args!(
                        "resumed with another setting: {setting}; to go on with the same run, give \
                         the same config and --set"
                    ));
                }
                if *step >= plan.steps {
                    let (taken, asked) = (counted(*step, "step"), plan.steps);
                    self.say(match *step == asked {
                        true => format!("finished already, after {taken}: nothing to do"),
                        false => format!(
                            "finished already: it has taken {taken}, and the config asks for {asked}"
                        ),
                    });
                    return;
                }
                if *step > 0 {
                    self.say(format!("resuming at step {step}"));
                }
                let images = plan.images_before(plan.steps);
                let progress = Progress::new(self.console, "train", Some(images), "images");
                progress.start_at(plan.images_before(*step));
                self.progress = Some(progress);
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
