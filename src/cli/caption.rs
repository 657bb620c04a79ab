//! `patchword caption`: captions for files and folders of images.

use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;

use burn::tensor::FloatDType;
use clap::{ArgAction, Args, Subcommand, ValueEnum};

use super::Outcome;
use super::caption_inputs::InputArgs;
use super::caption_manifest::{self, ExportArgs, StatusArgs};
use super::caption_outputs::{OutputArgs, ShapingArgs};
use super::console::Console;
use super::decode::{DECODING, DecodeArgs};
use super::device::DeviceArgs;
use super::error::{CliError, EXIT_INTERRUPTED};
use super::image_size::ImageSizeArgs;
use super::model_args::ModelArgs;
use super::progress::Progress;
use super::stop;
use crate::caption::folder::{
    Folder, FolderError, Item, Outcome as OfPhoto, Reader, Tally, Writer,
};
use crate::caption::inputs::{Found, InputConfig, Named, find};
use crate::caption::manifest::Manifest;
use crate::caption::output::Output;
use crate::caption::{CaptionConfig, Prompt, caption_items, settings_hash, weights_hash};
use crate::checkpoint::{self, Checkpoint};
use crate::device::Resolved;
use crate::image::DecodeLimits;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Precision {
    /// 4 bytes a weight.
    F32,
    /// 2 bytes a weight, about 3 digits; for GPUs. A CPU is slower with it.
    F16,
}

/// Caption images: files, folders (with everything below), globs, or - for a list on stdin
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    subcommand_help_heading = "Manifests (a folder of such a name is reached as ./status)",
    after_help = "\
Examples:
  patchword caption photo.jpg
  patchword caption ~/photos > captions.tsv
  patchword caption ~/photos --write txt --trigger ohwx
  patchword caption ~/photos -o alt.csv -o captions.jsonl --manifest run.db
  patchword caption ~/photos --write txt --write-to captions --existing overwrite
  patchword caption ~/photos --model checkpoints/mine --num-beams 5 --num-captions 3
  patchword caption photo.jpg --do-sample --top-p 0.9 --seed 7
  find ~/photos -name '*.jpg' -print0 | patchword caption - -0
  patchword caption status run.db

Captions go to stdout, or where --output and --write say, in the order of the inputs. An image that \
cannot be read is named on stderr, the rest goes on, and the exit code is 3. With --manifest a run that \
broke off goes on where it was, with the same command."
)]
pub(super) struct CaptionArgs {
    #[command(subcommand)]
    command: Option<CaptionCommand>,
    #[command(flatten)]
    inputs: InputArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    outputs: OutputArgs,
    #[command(flatten)]
    shaping: ShapingArgs,
    #[command(flatten)]
    image_size: ImageSizeArgs,
    /// Images captioned together [default: 16]
    #[arg(long, value_name = "N|auto", default_value = "auto", hide_default_value = true, value_parser = batch_size)]
    batch_size: BatchSize,
    /// Threads that read images [default: 1 or 2 beside a CPU, up to 8 beside a GPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Largest image decoded, in pixels
    #[arg(long, value_name = "N", default_value_t = DecodeLimits::default().max_pixels)]
    max_pixels: u64,
    /// What the weights are held and multiplied in
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = Precision::F32)]
    dtype: Precision,
    #[command(flatten)]
    decode: DecodeArgs,
    /// Captions an image: the best of the beams, or samples; a line each [default: the model's]
    #[arg(long, value_name = "N", help_heading = DECODING)]
    num_captions: Option<usize>,
    /// Begin every caption with this text, which is then left out of what is printed
    #[arg(long, value_name = "TEXT", help_heading = DECODING)]
    prompt: Option<String>,
    /// Print the prompt with the caption
    #[arg(long, requires = "prompt", action = ArgAction::SetTrue, help_heading = DECODING)]
    keep_prompt: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Debug, Subcommand)]
enum CaptionCommand {
    Status(StatusArgs),
    Export(ExportArgs),
}

/// `None`: what is right for the device.
#[derive(Debug, Clone, Copy)]
struct BatchSize(Option<usize>);

const STOPPING: &str =
    "stopping: photos that are under way are captioned first; Ctrl-C again stops at once";

fn batch_size(text: &str) -> Result<BatchSize, String> {
    match text.parse() {
        _ if text == "auto" => Ok(BatchSize(None)),
        Ok(size @ 1..=4096) => Ok(BatchSize(Some(size))),
        _ => Err("expected a number from 1 to 4096, or auto".into()),
    }
}

pub(super) fn run(arguments: CaptionArgs, console: &Console) -> Result<Outcome, CliError> {
    match arguments.command {
        Some(CaptionCommand::Status(arguments)) => caption_manifest::status(&arguments, console),
        Some(CaptionCommand::Export(arguments)) => caption_manifest::export(&arguments, console),
        None => caption(arguments, console),
    }
}

fn caption(arguments: CaptionArgs, console: &Console) -> Result<Outcome, CliError> {
    let shaping = arguments.shaping.shaping()?;
    arguments.outputs.check()?;
    let config = arguments.inputs.config(console)?;
    let manifest = arguments.outputs.manifest.as_deref().map(Manifest::open).transpose()?;
    let (named, again) = (arguments.inputs.named()?, arguments.inputs.named_again());
    let mut photos = Photos::find(named, config.clone(), console)?;
    let location = arguments.model.locate(console)?;
    let device = arguments.device.open(console)?;
    let options = arguments.image_size.load_options();
    let checkpoint = checkpoint::load_with(&location, &device.device, &options)?;
    let checkpoint = in_precision(checkpoint, arguments.dtype, &device)?;
    let decoding = caption_config(&arguments, &checkpoint, &device)?;
    let (model, settings) = match manifest {
        Some(_) => (weights_hash(&checkpoint)?, settings_hash(&checkpoint, &decoding)),
        None => Default::default(),
    };
    if let Some(manifest) = &manifest {
        manifest.name_settings(&settings.0, &settings.1)?;
    }
    let (sidecars, outputs) = (arguments.outputs.sidecars(), arguments.outputs.open(console)?);
    let folder = Folder {
        shaping: &shaping,
        sidecars: &sidecars,
        existing: arguments.outputs.existing(),
        manifest: manifest.as_ref(),
        only_failed: arguments.outputs.retry_failed,
        model: &arguments.model.name(),
        hashes: (&model, &settings.0),
        limits: DecodeLimits::of_pixels(arguments.max_pixels).for_input(&checkpoint.preprocess),
    };
    stop::listen_and_say(console, STOPPING);
    let progress = Progress::new(console, "caption", None, "images");
    let tally = thread::scope(|scope| {
        // Walks the inputs a second time, far ahead: how many there are, and what the manifest has to expect.
        scope.spawn(|| {
            if let Some(named) = again {
                expect(named, &config, folder.manifest, &progress);
            }
        });
        caption_photos(
            &checkpoint,
            &device,
            &decoding,
            &folder,
            &mut photos,
            outputs,
            &progress,
            console,
        )
    })?;
    progress.finish();
    close(&arguments.outputs, tally, photos.stopped(), console)
}

fn in_precision(
    checkpoint: Checkpoint,
    dtype: Precision,
    device: &Resolved,
) -> Result<Checkpoint, CliError> {
    if dtype == Precision::F32 {
        return Ok(checkpoint);
    }
    if !device.device.supports_dtype(FloatDType::F16) {
        let problem = format!("--dtype f16: {} does not compute in f16", device.name);
        return Err(CliError::new(problem).hint("leave it out to compute in f32"));
    }
    Ok(checkpoint.into_f16())
}

fn caption_config(
    arguments: &CaptionArgs,
    checkpoint: &Checkpoint,
    device: &Resolved,
) -> Result<CaptionConfig, CliError> {
    let ids = match &arguments.prompt {
        Some(text) => checkpoint.tokenizer.encode(text)?,
        None => Vec::new(),
    };
    let generate = arguments.decode.over(checkpoint, arguments.num_captions)?;
    let usual = CaptionConfig::new(generate, &device.device);
    Ok(CaptionConfig {
        prompt: Prompt { ids, keep: arguments.keep_prompt },
        batch_size: arguments.batch_size.0.unwrap_or(usual.batch_size),
        workers: arguments.workers.map_or(usual.workers, usize::from),
        ..usual
    })
}

/// Photos as they are found, by a thread of its own that is never far ahead.
struct Photos {
    found: std::sync::mpsc::IntoIter<Found>,
    /// Those met before there was a photo, and the first one.
    first: Vec<Found>,
}

impl Photos {
    /// Waits for the first photo: without one no model is loaded.
    fn find(named: Vec<Named>, config: InputConfig, console: &Console) -> Result<Self, CliError> {
        let (give, take) = sync_channel(64);
        thread::spawn(move || find(named, &config, &mut |found| give.send(found).is_ok()));
        let mut found = take.into_iter();
        let mut first = Vec::new();
        for one in found.by_ref() {
            let is_photo = one.is_ok();
            first.push(one);
            if is_photo {
                return Ok(Self { found, first });
            }
        }
        for error in first.into_iter().filter_map(Result::err) {
            console.warn(error);
        }
        Err(CliError::new("no images to caption")
            .hint("name image files, folders, globs in quotes, or - for a list on stdin"))
    }

    fn stopped(&self) -> bool {
        stop::requested()
    }
}

fn expect(
    named: Vec<Named>,
    config: &InputConfig,
    manifest: Option<&Manifest>,
    progress: &Progress,
) {
    const AT_A_TIME: usize = 1000;
    let (mut count, mut some) = (0, Vec::new());
    find(named, config, &mut |found| {
        if let Ok(input) = found {
            some.push(input);
        }
        if some.len() >= AT_A_TIME {
            note(manifest, &mut count, &mut some);
        }
        !stop::requested()
    });
    note(manifest, &mut count, &mut some);
    if !stop::requested() {
        progress.set_length(count as u64);
    }
}

/// The run itself meets a manifest that fails.
fn note(
    manifest: Option<&Manifest>,
    count: &mut usize,
    some: &mut Vec<crate::caption::inputs::Input>,
) {
    if let Some(manifest) = manifest {
        let _ = manifest.expect(*count, some);
    }
    *count += some.len();
    some.clear();
}

#[expect(clippy::too_many_arguments, reason = "what a run is made of")]
fn caption_photos(
    checkpoint: &Checkpoint,
    device: &Resolved,
    decoding: &CaptionConfig,
    folder: &Folder<'_>,
    photos: &mut Photos,
    outputs: Vec<Output>,
    progress: &Progress,
    console: &Console,
) -> Result<Tally, CliError> {
    let reader = Reader::new(folder);
    let observer = |outcome: OfPhoto<'_>| match outcome {
        OfPhoto::Failed(reason) => {
            progress.suspend(|| console.warn(format_args!("no caption: {reason}")));
            progress.advance_failed(1);
        }
        OfPhoto::Written(_) | OfPhoto::Known(_) | OfPhoto::Skipped(_) => progress.advance(1),
    };
    let mut writer = Writer::new(&reader, outputs, observer);
    let first = std::mem::take(&mut photos.first);
    let found = first.into_iter().chain(photos.found.by_ref());
    let mut position = 0;
    let items = found.take_while(|_| !stop::requested()).map(|found| {
        if let (Some(manifest), Ok(input)) = (folder.manifest, &found) {
            // What a second walk, if there is one, says again.
            let _ = manifest.expect(position, std::slice::from_ref(input));
            position += 1;
        }
        Item::from(found)
    });
    let read = |item: &mut Item| reader.read(item);
    let emit = |item, result| writer.take(item, result);
    let ended = caption_items::<_, _, FolderError>(
        checkpoint,
        &device.device,
        items,
        &read,
        decoding,
        emit,
    );
    let tally = writer.finish(ended.is_ok() && !stop::requested());
    ended?;
    Ok(tally?)
}

fn close(
    outputs: &OutputArgs,
    tally: Tally,
    stopped: bool,
    console: &Console,
) -> Result<Outcome, CliError> {
    let Tally { written, known, skipped, failed, changed, others } = tally;
    let manifest = outputs.manifest.as_deref().map(Path::display);
    if changed > 0 {
        console.note(format_args!("{changed} of them had changed since they were captioned"));
    }
    if let (1.., Some(manifest)) = (others, manifest) {
        console.note(format_args!(
            "{manifest}: {others} captions are of another model or other settings, and kept; --existing \
             overwrite captions them again"
        ));
    }
    let known = if known > 0 { format!(", {known} known from before") } else { String::new() };
    console.note(format_args!("{written} written{known}, {skipped} skipped, {failed} failed"));
    if stopped {
        return Err(CliError::new("interrupted")
            .hint(match outputs.manifest {
                Some(_) => "the same command goes on from here",
                None => "with --manifest FILE the same command goes on where it was",
            })
            .code(EXIT_INTERRUPTED));
    }
    Ok(if failed > 0 { Outcome::SomeInputsFailed } else { Outcome::Complete })
}
