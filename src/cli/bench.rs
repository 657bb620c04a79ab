//! `patchword bench`: how fast this machine trains and captions.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Map, Value};

use super::Outcome;
use super::console::Console;
use super::device::DeviceArgs;
use super::error::CliError;
use super::model_args::SourceArgs;
use super::train::locate_init;
use crate::bench::{
    BenchData, CaptionBench, CaptionReport, Machine, TrainBench, TrainReport, bench_caption,
    bench_train,
};
use crate::checkpoint;
use crate::device::length_bucket;
use crate::model::{Captioner, initialize};
use crate::plural::counted;
use crate::train::TrainConfig;

/// Measure the speed and memory of training and captioning on this machine
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  patchword bench train
  patchword bench train --config configs/flickr8k.toml --data ~/flickr8k --steps 30
  patchword bench caption --model checkpoints/mine --num-beams 3"
)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    Train(BenchTrainArgs),
    Caption(BenchCaptionArgs),
}

/// Time training steps: images and tokens a second, waiting for data, peak memory, and how close
/// they come to the device's own matrix product
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword bench train
  patchword bench train --json --steps 30
  patchword bench train --config configs/flickr8k.toml --data ~/flickr8k

Without --data, batches are random numbers in the config's shapes, so that nothing is read. Without \
--config, the model has 26.7 M parameters (ViT of 6 layers, decoder of 4, 8 images of 224 pixels a \
step). The share of the matrix product counts the multiplications that the model needs, three \
forward passes a step, and nothing else.")]
struct BenchTrainArgs {
    /// A training config, a TOML file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Read batches of this data set, to see whether the device waits for them
    #[arg(long, value_name = "PATH", conflicts_with = "tokens")]
    data: Option<PathBuf>,
    /// Steps that are timed
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Steps before them that are not
    #[arg(long, value_name = "N", default_value_t = 2)]
    warmup: u32,
    /// Tokens of a random caption
    #[arg(long, value_name = "N", default_value_t = 24)]
    tokens: usize,
    /// Change a value of the config; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Time captioning stage by stage: load, read, preprocess, encode, decode, and peak memory
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword bench caption
  patchword bench caption --model checkpoints/mine --num-beams 3 --new-tokens 30
  patchword bench caption --config configs/vit-base.toml --images 4 --batch-size 1 --json

The photo is made up, and every caption runs to --new-tokens: what is measured does not depend on \
what the model says. Without --model, the model is the config's with random weights.")]
struct BenchCaptionArgs {
    /// The model: a checkpoint folder, the folder of a training run, a Hugging Face folder, or a
    /// Hugging Face id (owner/name), which is downloaded once
    #[arg(long, short, value_name = "DIR|ID", conflicts_with = "config")]
    model: Option<PathBuf>,
    #[command(flatten)]
    source: SourceArgs,
    /// The model of a training config, with random weights
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Images captioned
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
    /// Images captioned together
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch_size: u16,
    /// Beams an image; 1 is greedy
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    num_beams: u16,
    /// Tokens decoded for each image
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    new_tokens: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// The config travels in the binary, so that the measurement is the same everywhere.
const DEFAULT: (&str, &str) = ("configs/bench.toml", include_str!("../../configs/bench.toml"));

pub(super) fn run(arguments: BenchArgs, console: &Console) -> Result<Outcome, CliError> {
    match arguments.command {
        BenchCommand::Train(arguments) => run_train(&arguments, console),
        BenchCommand::Caption(arguments) => run_caption(&arguments, console),
    }
}

/// The config named, or the one that is built in, with the name to call it by in errors.
fn read_config(
    file: Option<&Path>,
    settings: &[String],
) -> Result<(TrainConfig, PathBuf), CliError> {
    let name = file.unwrap_or(Path::new(DEFAULT.0)).to_path_buf();
    match file {
        Some(file) => Ok(TrainConfig::named(file, settings)?),
        None => Ok((TrainConfig::parse(DEFAULT.1, &name, settings)?, name)),
    }
}

fn run_train(arguments: &BenchTrainArgs, console: &Console) -> Result<Outcome, CliError> {
    let (mut config, name) = read_config(arguments.config.as_deref(), &arguments.settings)?;
    let data = match &arguments.data {
        Some(path) => {
            config.data.path.clone_from(path);
            BenchData::Config
        }
        None => BenchData::Synthetic { tokens: arguments.tokens },
    };
    locate_init(&mut config, console)?;
    let device = arguments.device.open(console)?;
    let bench = TrainBench {
        steps: arguments.steps as usize,
        warmup: arguments.warmup as usize,
        data,
        bucket: length_bucket(&device.device),
    };
    let mut each = |seconds: f64, counts: bool| {
        let label = if counts { "step" } else { "warm-up" };
        console.detail(format_args!("{label}: {seconds:.3} s"));
    };
    let report = bench_train(&config, &name, &device.device, &bench, &mut each)?;
    let machine = Machine::measure(&device.device)?;
    if arguments.json {
        let report = WithMachine { report, machine };
        return print_json(&device.name, &name.display().to_string(), &report, console);
    }
    console.stdout().write_all(train_text(&device.name, &report, &machine).as_bytes())?;
    Ok(Outcome::Complete)
}

fn run_caption(arguments: &BenchCaptionArgs, console: &Console) -> Result<Outcome, CliError> {
    let folder = arguments.model.as_ref().map(|model| arguments.source.locate(model, console));
    let folder = folder.transpose()?;
    let device = arguments.device.open(console)?;
    let bench = CaptionBench {
        images: arguments.images as usize,
        batch_size: usize::from(arguments.batch_size),
        num_beams: usize::from(arguments.num_beams),
        new_tokens: usize::from(arguments.new_tokens),
        bucket: length_bucket(&device.device),
    };
    let start = Instant::now();
    let (model, preprocess, begin, name) = match &folder {
        Some(folder) => {
            let checkpoint = checkpoint::load(folder, &device.device)?;
            let begin = checkpoint.tokenizer.special_tokens().bos;
            (checkpoint.model, checkpoint.preprocess, begin, folder.display().to_string())
        }
        None => {
            let (mut config, name) = read_config(arguments.config.as_deref(), &[])?;
            if config.tokenizer.file.is_none() {
                config.model.decoder.vocab_size = config.tokenizer.vocab_size;
            }
            config.image.validate()?;
            let model = initialize(Captioner::new(&config.model, &device.device)?, config.seed);
            (model, config.image, 0, name.display().to_string())
        }
    };
    let loaded = start.elapsed().as_secs_f64();
    let report = bench_caption(&model, &preprocess, begin, loaded, &device.device, &bench)?;
    if arguments.json {
        return print_json(&device.name, &name, &report, console);
    }
    console.stdout().write_all(caption_text(&device.name, &report).as_bytes())?;
    Ok(Outcome::Complete)
}

/// What was measured, and of what machine.
#[derive(Serialize)]
struct WithMachine {
    #[serde(flatten)]
    report: TrainReport,
    machine: Machine,
}

/// The report with the device and the model before it.
fn print_json(
    device: &str,
    model: &str,
    report: &impl serde::Serialize,
    console: &Console,
) -> Result<Outcome, CliError> {
    let mut object = Map::new();
    object.insert("device".into(), device.into());
    object.insert("model".into(), model.into());
    object.insert("threads".into(), crate::device::num_cpu_threads().into());
    if let Value::Object(fields) = serde_json::to_value(report)? {
        object.extend(fields);
    }
    writeln!(console.stdout(), "{:#}", Value::Object(object))?;
    Ok(Outcome::Complete)
}

fn train_text(device: &str, report: &TrainReport, machine: &Machine) -> String {
    let waiting = match report.data_wait_share {
        Some(share) => format!("{:.1} % of the time", 100.0 * share),
        None => "random batches: nothing to wait for".into(),
    };
    let TrainReport { steps, warmup, step_seconds: step, .. } = report;
    let steps = counted(*steps, "step");
    rows(&[
        ("device", device.into()),
        ("parameters", format!("{:.2} M", report.parameters as f64 / 1e6)),
        (
            "step",
            format!(
                "{:.1} images, {:.0} tokens, {:.1} GFLOP",
                report.images_per_step,
                report.tokens_per_step,
                report.flops_per_step / 1e9
            ),
        ),
        (
            "step time",
            format!(
                "{:.3} s median, {:.3} to {:.3} s ({steps} after {warmup})",
                step.median, step.min, step.max
            ),
        ),
        ("images", format!("{:.2} /s", report.images_per_second)),
        ("tokens", format!("{:.1} /s", report.tokens_per_second)),
        ("waiting for data", waiting),
        ("reached", format!("{:.1} GFLOP/s", report.flops_per_second / 1e9)),
        (
            "matrix product",
            format!(
                "{:.1} GFLOP/s (1024³, f32): the step reaches {:.0} % of it",
                report.matmul_flops_per_second / 1e9,
                100.0 * report.share_of_matmul
            ),
        ),
        ("peak memory", memory(report.peak_memory_bytes)),
        ("last loss", format!("{:.4}", report.loss)),
    ]) + &machine_text(machine)
}

fn caption_text(device: &str, report: &CaptionReport) -> String {
    let milliseconds = |seconds: f64| format!("{:.2} ms", 1e3 * seconds);
    rows(&[
        ("device", device.into()),
        (
            "images",
            format!(
                "{} in batches of {}, {}, {} each",
                report.images,
                report.batch_size,
                counted(report.num_beams, "beam"),
                counted(report.new_tokens, "token")
            ),
        ),
        ("load the model", format!("{:.2} s", report.load_seconds)),
        ("read a JPEG", format!("{} an image, one thread", milliseconds(report.read_seconds))),
        ("preprocess", format!("{} an image, one thread", milliseconds(report.preprocess_seconds))),
        (
            "encode",
            format!(
                "{} an image, {:.0} % of the fastest product",
                milliseconds(report.encode_seconds),
                100.0 * report.encode_share
            ),
        ),
        (
            "decode",
            format!(
                "{} a token of the whole batch, {:.0} % of what memory and products allow",
                milliseconds(report.token_seconds),
                100.0 * report.decode_share
            ),
        ),
        ("speed", format!("{:.2} images/s, one stage after the other", report.images_per_second)),
        ("peak memory", memory(report.peak_memory_bytes)),
    ]) + &machine_text(&report.machine)
}

/// What the machine is and can do at best.
fn machine_text(machine: &Machine) -> String {
    let products = machine.products.iter().map(|product| {
        let [rows, inputs, outputs] = product.shape;
        format!("{:.1} ({rows}×{inputs}×{outputs})", product.flops_per_second / 1e9)
    });
    rows(&[
        ("CPU", machine.cpu.clone()),
        (
            "instructions",
            format!("{} (found: {})", machine.instructions_used, machine.instruction_sets),
        ),
        ("products", format!("{} GFLOP/s", products.collect::<Vec<_>>().join(", "))),
        ("copy", format!("{:.1} GB/s, one thread", machine.copy_bytes_per_second / 1e9)),
    ])
}

fn memory(bytes: Option<u64>) -> String {
    match bytes {
        Some(bytes) => format!("{:.2} GB (host)", bytes as f64 / 1e9),
        None => "unknown".into(),
    }
}

fn rows(rows: &[(&str, String)]) -> String {
    rows.iter().map(|(label, value)| format!("{label:<17} {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HeadKind;

    #[test]
    fn the_config_in_the_binary_is_the_shape_that_is_compared() {
        let (config, _) = read_config(None, &[]).unwrap();
        assert_eq!(config.model.decoder.head, HeadKind::Untied);
        assert!(config.model.decoder.head_bias);
        let device = burn::tensor::Device::flex();
        let model = Captioner::new(&config.model, &device).unwrap();
        let parameters = burn::module::Module::num_params(&model);
        assert_eq!((parameters as f64 / 1e5).round(), 267.0, "{parameters}");
    }

    #[test]
    fn what_is_not_known_is_said_to_be_unknown() {
        assert_eq!(memory(None), "unknown");
        assert_eq!(memory(Some(1_500_000_000)), "1.50 GB (host)");
    }
}
