//! `patchword train`: train a captioner as a config says.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::Outcome;
use super::console::Console;
use super::device::DeviceArgs;
use super::error::CliError;
use super::model_args::SourceArgs;
use super::stop;
use super::train_progress::{quoted, run_training};
use crate::data::DatasetFormat;
use crate::device::{Resolved, length_bucket};
use crate::train::{Plan, Start, TimeEstimate, TrainConfig, ensure_trainable, has_run};

/// Train a captioner on your own images
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword train finetune --data ~/my-photos --dry-run
  patchword train finetune --data ~/my-photos --output checkpoints/mine
  patchword train flickr8k --data ~/flickr8k --output checkpoints/scratch \\
      --set train.epochs=20 --set schedule.learning_rate=5e-4
  patchword train finetune --data ~/my-photos --output checkpoints/mine --resume

Ctrl-C saves and stops; --resume goes on as if nothing had happened. The run's folder holds best/ \
and last/ (either is a --model), metrics.jsonl, curve.svg; with train.average_last also average/ (a \
--model too) and recent/, what it is the mean of.")]
pub(super) struct TrainArgs {
    /// The config: a TOML file, or one that is built in (finetune, finetune-blip, flickr8k, vit-base, …)
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
    /// Print the resolved config, model size, steps, memory and time (a step or two is taken), and stop
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn run(arguments: TrainArgs, console: &Console) -> Result<Outcome, CliError> {
    let (mut config, file) = TrainConfig::named(&arguments.config, &arguments.settings)?;
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
    config.expand_home();
    // A run that goes on has what it needs of the model that it began with.
    let goes_on = arguments.resume && has_run(&config.output);
    ensure_trainable(&config.output)?;
    if arguments.dry_run || !goes_on {
        locate_init(&mut config, console)?;
    }
    if arguments.dry_run {
        let start = Start::new(&config)?;
        let plan = Plan::new(&config, &file, &start)?;
        describe(&plan, console)?;
        let device = arguments.device.open(console)?;
        return describe_time(&plan, start, &device, console);
    }
    config.validate(&file)?;
    let device = arguments.device.open(console)?;
    stop::listen(console);
    if arguments.resume && !goes_on {
        let output = config.output.display();
        console.note(format_args!("{output}: no run to resume; training begins"));
    }
    let outcome = run_training(&config, &file, &device, arguments.resume, console)?;
    let (model, data) = (shown(&config.output), shown(&config.data.path));
    console.note(format_args!(
        "next: patchword caption PHOTOS --model {model}\n      patchword evaluate --model {model} --data {data}"
    ));
    Ok(outcome)
}

fn shown(path: &std::path::Path) -> String {
    quoted(&path.display().to_string())
}

/// Finds the model or encoder that training starts from, downloaded if need be.
pub(super) fn locate_init(config: &mut TrainConfig, console: &Console) -> Result<(), CliError> {
    if let Some(name) = config.init.name() {
        let source = SourceArgs { revision: None, offline: false };
        config.init.located = Some(source.locate(name, console)?);
    }
    Ok(())
}

fn describe(plan: &Plan, console: &Console) -> Result<(), CliError> {
    let mut stdout = console.stdout();
    let config = toml::to_string_pretty(&plan.config)?;
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    writeln!(stdout, "{config}")?;
    for warning in plan.warnings().into_iter().chain(plan.too_few()) {
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
    Ok(())
}

/// How long the run takes on `device`, by a step or two.
fn describe_time(
    plan: &Plan,
    start: Start,
    device: &Resolved,
    console: &Console,
) -> Result<Outcome, CliError> {
    console.note("taking a step or two, to see how long the run will take");
    let time = TimeEstimate::measure(plan, start, &device.device, length_bucket(&device.device))?;
    let features = match time.features {
        0.0 => String::new(),
        seconds => format!(", {} for the features, once", duration(seconds)),
    };
    writeln!(
        console.stdout(),
        "# time: about {} on {} ({} a step, {} a validation{features})",
        duration(time.total),
        device.name,
        duration(time.step),
        duration(time.validation)
    )?;
    if plan.steps > plan.caption_steps {
        console.note("the time does not count the phase on the score");
    }
    Ok(Outcome::Complete)
}

/// `0.35 s`, `48 s`, `12 min`, `3.4 h`.
fn duration(seconds: f64) -> String {
    match seconds {
        ..10.0 => format!("{seconds:.2} s"),
        ..100.0 => format!("{seconds:.0} s"),
        ..6000.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// How many there are, and how many of them are learned where some are not.
pub(super) fn parameters(plan: &Plan) -> String {
    let millions = |count: usize| format!("{:.2} M", count as f64 / 1e6);
    if plan.trained_parameters == plan.parameters {
        return millions(plan.parameters);
    }
    format!("{} ({} trained)", millions(plan.parameters), millions(plan.trained_parameters))
}
