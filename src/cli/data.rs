//! `patchword data`: look over a data set, or draw the one that ships by recipe.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Outcome;
use super::console::Console;
use super::error::CliError;
use super::progress::Progress;
use crate::data::shapes::{ShapesConfig, Summary, generate};
use crate::data::{DatasetFormat, ImageSource, LoadOptions, check, load};
use crate::image::DecodeLimits;
use crate::plural::counted;

/// Check a data set, or draw scenes of coloured shapes
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  patchword data check ~/flickr8k
  patchword data check ~/my-photos --dataset-format sidecar --json
  patchword data shapes datasets/shapes"
)]
pub(super) struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    Check(CheckArgs),
    Shapes(ShapesArgs),
}

/// Count images, captions, splits and words, and name every bad image, caption and line
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword data check ~/flickr8k
  patchword data check annotations/captions_val2017.json --images val2017

Every image is decoded. Exit code 3 if anything is wrong.")]
struct CheckArgs {
    /// The data set: a folder, or its annotation file
    path: PathBuf,
    /// Its format, if it is not to be recognised by looking: karpathy, coco, flickr8k, imagefolder,
    /// parquet, arrow, webdataset, table, sidecar
    #[arg(long, value_name = "FORMAT")]
    dataset_format: Option<DatasetFormat>,
    /// The folder of images, if it is elsewhere
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Read images that lie outside of the data set: named by .., by absolute paths, or through links
    #[arg(long)]
    allow_outside: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Largest image decoded, in pixels
    #[arg(long, value_name = "N", default_value_t = DecodeLimits::default().max_pixels)]
    max_pixels: u64,
}

/// Draw scenes of coloured shapes with captions and boxes: a data set with known truth
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword data shapes datasets/shapes
  patchword data shapes datasets/shapes-hard --hard

The same options give the same bytes on every machine. A Hugging Face imagefolder: train/, \
validation/ and test/, each with a metadata.jsonl that also holds the scene and, for every word that \
names an object or its colour, the object's box.")]
struct ShapesArgs {
    /// The folder to write
    out: PathBuf,
    /// Images over all splits [default: 20000, with --hard 40000]
    #[arg(long, value_name = "N")]
    images: Option<usize>,
    /// Seed
    #[arg(long, value_name = "S", default_value_t = ShapesConfig::default().seed)]
    seed: u64,
    /// Width and height of an image in pixels
    #[arg(long, value_name = "N", default_value_t = ShapesConfig::default().image_size)]
    image_size: u32,
    /// More colours, shapes and sizes, objects named in any order and close together, strong texture
    /// and noise
    #[arg(long)]
    hard: bool,
}

pub(super) fn run(arguments: DataArgs, console: &Console) -> Result<Outcome, CliError> {
    match arguments.command {
        DataCommand::Check(arguments) => run_check(&arguments, console),
        DataCommand::Shapes(arguments) => run_shapes(&arguments, console),
    }
}

fn run_check(arguments: &CheckArgs, console: &Console) -> Result<Outcome, CliError> {
    let options = LoadOptions {
        format: arguments.dataset_format,
        images: arguments.images.clone(),
        allow_outside: arguments.allow_outside,
        ..LoadOptions::default()
    };
    let dataset = load(&arguments.path, &options)?;
    let limits = DecodeLimits::of_pixels(arguments.max_pixels);
    let progress = Progress::new(console, "check", Some(dataset.num_images() as u64), "images");
    let probe = |image: &ImageSource| Ok(image.decode(&limits)?.dimensions());
    let report = check(&dataset, &probe, &|_| progress.advance(1));
    progress.finish();
    let mut stdout = console.stdout();
    if arguments.json {
        writeln!(stdout, "{:#}", report.to_json())?;
    } else {
        writeln!(stdout, "{report}")?;
    }
    Ok(if report.is_clean() { Outcome::Complete } else { Outcome::SomeInputsFailed })
}

fn run_shapes(arguments: &ShapesArgs, console: &Console) -> Result<Outcome, CliError> {
    let base = if arguments.hard { ShapesConfig::hard() } else { ShapesConfig::default() };
    let config = ShapesConfig {
        images: arguments.images.unwrap_or(base.images),
        seed: arguments.seed,
        image_size: arguments.image_size,
        ..base
    };
    draw(&arguments.out, &config, console)?;
    Ok(Outcome::Complete)
}

/// Draws a shapes data set, or finds it there; shared with `patchword demo`.
pub(super) fn draw(
    out: &std::path::Path,
    config: &ShapesConfig,
    console: &Console,
) -> Result<Summary, CliError> {
    let progress = Progress::new(console, "draw", Some(config.images as u64), "images");
    let summary = generate(out, config, &|_| progress.advance(1))?;
    progress.finish();
    let what = if summary.reused { "is there already" } else { "written" };
    let scenes = counted(config.images, "scene");
    console.note(format_args!("{}: {scenes}, {what}", out.display()));
    Ok(summary)
}
