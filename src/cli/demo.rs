//! `patchword demo`: everything once, on data that is drawn here.

use std::io::Write;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use clap::Args;

use super::Outcome;
use super::console::Console;
use super::device::DeviceArgs;
use super::error::{CliError, Context};
use super::evaluate::Shown;
use super::inspect_outputs::{Files, Inspected};
use super::train_progress::run_training;
use super::{data, inspect_outputs, stop};
use crate::caption::{CaptionConfig, weights_hash};
use crate::checkpoint::{self, Checkpoint};
use crate::data::shapes::ShapesConfig;
use crate::data::{LoadOptions, Split, load};
use crate::evaluate::evaluate;
use crate::evaluate::scenes::Scenes;
use crate::image::{DecodeLimits, decode_file};
use crate::inspect::page::Reading;
use crate::inspect::{InspectConfig, Method, RelevanceConfig, inspect_with};
use crate::train::TrainConfig;

/// Draw a data set, train a captioner on it, measure it and show where it looks
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword demo
  patchword demo demo-hard --hard

Ten minutes on two CPU cores. Each step prints the command that does it alone. Interrupted, the same \
command goes on where it stopped.")]
pub(super) struct DemoArgs {
    /// Where everything goes
    #[arg(default_value = "demo", value_name = "DIR")]
    out: PathBuf,
    /// The harder scenes and the longer training of configs/shapes-hard.toml
    #[arg(long)]
    hard: bool,
    /// Change a value of the training config; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// The configs travel in the binary, so that the demo runs anywhere.
const NORMAL: (&str, &str) = ("configs/shapes.toml", include_str!("../../configs/shapes.toml"));
const HARD: (&str, &str) =
    ("configs/shapes-hard.toml", include_str!("../../configs/shapes-hard.toml"));

/// Held-out scenes that are judged.
const SCENES: usize = 500;
/// Of them, those whose captions are printed.
const SHOWN: usize = 8;

pub(super) fn run(arguments: DemoArgs, console: &Console) -> Result<Outcome, CliError> {
    let out = &arguments.out;
    let (name, text) = if arguments.hard { HARD } else { NORMAL };
    let shapes = if arguments.hard { ShapesConfig::hard() } else { ShapesConfig::default() };
    let flag = if arguments.hard { " --hard" } else { "" };
    let (data, model) = (out.join("data"), out.join("model"));
    let device = arguments.device.open(console)?;
    stop::listen(console);
    std::fs::create_dir_all(out).context(format_args!("{}: cannot be made", out.display()))?;

    console.note(format_args!(
        "\n[1/4] patchword data shapes {} --images {}{flag}",
        data.display(),
        shapes.images
    ));
    data::draw(&data, &shapes, console)?;

    console.note(format_args!(
        "\n[2/4] patchword train {name} --data {} --output {} --resume",
        data.display(),
        model.display()
    ));
    let mut config = TrainConfig::parse(text, Path::new(name), &arguments.settings)?;
    config.data.path.clone_from(&data);
    config.output.clone_from(&model);
    run_training(&config, Path::new(name), &device, true, console)?;

    console.note(format_args!(
        "\n[3/4] patchword evaluate --model {} --data {} --split test --images {SCENES}",
        model.display(),
        data.display()
    ));
    let dataset = load(&data, &LoadOptions::default())?;
    let checkpoint = checkpoint::load(&model, &device.device)?;
    let generate = checkpoint.generate.clone();
    let decode = CaptionConfig { batch_size: 32, ..CaptionConfig::new(generate, &device.device) };
    let mut shown = Shown::new(console);
    let evaluation = evaluate(
        &checkpoint,
        &device.device,
        &dataset,
        Split::Test,
        SCENES,
        &decode,
        &mut |event| shown.event(event),
    )?;
    let Some(scenes) = &evaluation.scenes else {
        return Err(CliError::new("the scenes just drawn carry no truth"));
    };
    let mut stdout = console.stdout();
    for judged in scenes.report.captions.iter().take(SHOWN) {
        let mark = if judged.errors.is_empty() { "right" } else { "WRONG" };
        writeln!(stdout, "{}\t{}\t{mark}", judged.path.display(), judged.caption)?;
        for error in &judged.errors {
            writeln!(stdout, "\t  {error}")?;
        }
    }
    stdout.write_all(evaluation.to_text().as_bytes())?;

    show_attention(out, &model, &checkpoint, &device.device, scenes, &decode, console)?;
    Ok(Outcome::Complete)
}

/// Inspects the richest scene whose caption is right: it makes the best picture.
fn show_attention(
    out: &Path,
    model: &Path,
    checkpoint: &Checkpoint,
    device: &Device,
    scenes: &Scenes,
    decode: &CaptionConfig,
    console: &Console,
) -> Result<(), CliError> {
    let shown = scenes.report.captions.iter().filter(|judged| judged.errors.is_empty());
    let Some(judged) = shown.take(40).max_by_key(|judged| judged.caption.len()) else {
        return Err(CliError::new("no caption is right: there is nothing worth a picture"));
    };
    let folder = out.join("inspected");
    console.note(format_args!(
        "\n[4/4] patchword inspect {} --model {} --out {} --layer {}",
        judged.path.display(),
        model.display(),
        folder.display(),
        scenes.layer
    ));
    let photo = decode_file(&judged.path, &DecodeLimits::default())?;
    let map =
        RelevanceConfig { layer: Some(scenes.layer), ..RelevanceConfig::new(Method::Attention) };
    let what = InspectConfig { maps: vec![map], evidence: true, text: None };
    let inspection = inspect_with(checkpoint, device, &photo, &what, decode, &mut |_| ())?;
    let hash = weights_hash(checkpoint).context(format_args!("{}", model.display()))?;
    let reading = Reading {
        model: &model.display().to_string(),
        hash: &hash,
        inspection: &inspection,
        faithful: Vec::new(),
    };
    let name = judged.path.file_name().unwrap_or_default().to_string_lossy();
    let inspected = Inspected { name: &name, photo: &photo, readings: &[reading] };
    inspect_outputs::write(&folder, &inspected, &Files::default(), None)?;
    let mut stdout = console.stdout();
    writeln!(stdout, "attention page: {}", folder.join("index.html").display())?;
    writeln!(stdout, "attention sheet: {}", folder.join("sheet.png").display())?;
    Ok(())
}
