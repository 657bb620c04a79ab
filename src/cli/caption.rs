//! `patchword caption`: captions for files and folders of images.

use std::io::{self, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use burn::tensor::FloatDType;
use clap::{ArgAction, Args, Subcommand, ValueEnum};

use super::Outcome;
use super::caption_inputs::InputArgs;
use super::caption_manifest::{self, ExportArgs, StatusArgs};
use super::caption_merge::{self, MergeArgs};
use super::caption_outputs::{OutputArgs, ShapingArgs};
use super::caption_run::{BelowTheBar, Photos, Run, Search, expect};
use super::caption_serve::Service;
use super::caption_watch::Watched;
use super::console::Console;
use super::decode::{DECODING, DecodeArgs};
use super::device::DevicesArgs;
use super::error::{CliError, EXIT_INTERRUPTED};
use super::image_size::ImageSizeArgs;
use super::model_args::ModelArgs;
use super::progress::Progress;
use super::stop;
use crate::caption::folder::{Folder, Reader, Tally};
use crate::caption::manifest::Manifest;
use crate::caption::{
    CaptionConfig, Filling, Prompt, Replica, settings_hash, suitable_batch_size, weights_hash,
};
use crate::checkpoint::{self, Checkpoint};
use crate::device::{BackendKind, Resolved};
use crate::image::{DecodeLimits, MemoryBudget};

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
  patchword caption ~/archive --write xmp --manifest run.db
  patchword caption 'shards/{000..099}.tar' -o captions.parquet
  patchword caption ~/photos --model checkpoints/mine --num-beams 5 --num-captions 3
  patchword caption photo.jpg --do-sample --top-p 0.9 --seed 7
  find ~/photos -name '*.jpg' -print0 | patchword caption - -0
  patchword caption status run.db
  patchword caption ~/photos --shard 0/8 --manifest shard-0.db
  patchword caption merge shard-*.db -o run.db

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
    /// Images captioned together; auto takes what suits device, model and memory (-v says what)
    #[arg(long, value_name = "N|auto", default_value = "auto", hide_default_value = true, value_parser = batch_size)]
    batch_size: BatchSize,
    /// Threads that read images [default: 1 or 2 beside a CPU, up to 8 beside a GPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Memory for decoding images, of all readers together, and for what a batch takes: 500M, 2G
    /// [default: a quarter of the machine's, at most 1G]
    #[arg(long, value_name = "SIZE", value_parser = memory_size)]
    max_memory: Option<u64>,
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
    devices: DevicesArgs,
    /// Caption folders, then go on with photos as they appear or change, when they have been written to
    /// their end; Ctrl-C ends it
    #[arg(long, conflicts_with_all = ["files_from", "retry_failed"])]
    watch: bool,
    /// Stay loaded and answer each line of JSON on stdin with a line on stdout, in order: {"image": PATH or
    /// base64, "id": anything} with {"id", "path", "caption", "confidence", "score", "words", "model"}, or
    /// with an "error" in place of the caption
    #[arg(
        long,
        help_heading = "Other programs",
        conflicts_with_all = ["paths", "files_from", "outputs", "format", "write", "caption_extension", "manifest", "shard", "watch"]
    )]
    serve_stdin: bool,
}

#[derive(Debug, Subcommand)]
enum CaptionCommand {
    Status(StatusArgs),
    Export(ExportArgs),
    Merge(MergeArgs),
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

/// Bytes, as in `500M` or `1.5GiB`.
fn memory_size(text: &str) -> Result<u64, String> {
    const LEAST: f64 = 16e6;
    let expected = || "expected a size of 16M or more, as in 500M or 2G".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1024.0 * 1024.0,
        "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(expected()),
    };
    let bytes = digits.trim().parse::<f64>().map_err(|_| expected())? * factor;
    if (LEAST..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err(expected()) }
}

pub(super) fn run(arguments: CaptionArgs, console: &Console) -> Result<Outcome, CliError> {
    match arguments.command {
        Some(CaptionCommand::Status(arguments)) => caption_manifest::status(&arguments, console),
        Some(CaptionCommand::Export(arguments)) => caption_manifest::export(&arguments, console),
        Some(CaptionCommand::Merge(arguments)) => caption_merge::run(&arguments, console),
        None if arguments.serve_stdin => serve(&arguments, console),
        None => caption(arguments, console),
    }
}

fn caption(arguments: CaptionArgs, console: &Console) -> Result<Outcome, CliError> {
    let shaping = arguments.shaping.shaping()?;
    arguments.outputs.check()?;
    let search = Search::of(arguments.inputs.config(console)?);
    let manifest = arguments.outputs.manifest.as_deref().map(Manifest::open).transpose()?;
    let again = arguments.inputs.named_again().filter(|_| !arguments.watch);
    let found = Found::of(&arguments, &search, console)?;
    let captioners = Captioners::load(&arguments, console)?;
    let decoding = captioners.config(&arguments, console)?;
    let checkpoint = captioners.checkpoint();
    let (model, settings) = match manifest {
        Some(_) => (weights_hash(checkpoint)?, settings_hash(checkpoint, &decoding)),
        None => Default::default(),
    };
    if let Some(manifest) = &manifest {
        manifest.name_settings(&settings.0, &settings.1)?;
    }
    let progress = Arc::new(Progress::new(console, "caption", None, "images"));
    let stdout = BelowTheBar::stdout(&progress, console);
    let (sidecars, outputs) = (arguments.outputs.sidecars(), arguments.outputs.open(stdout)?);
    let folder = Folder {
        shaping: &shaping,
        sidecars: &sidecars,
        existing: arguments.outputs.existing(),
        manifest: manifest.as_ref(),
        only_failed: arguments.outputs.retry_failed,
        model: &arguments.model.name(),
        hashes: (&model, &settings.0),
        limits: arguments.limits(checkpoint),
    };
    stop::listen_and_say(console, STOPPING);
    let replicas = captioners.replicas();
    let run = Run {
        replicas: &replicas,
        decoding: &decoding,
        folder: &folder,
        progress: &progress,
        console,
        ends_by_stop: arguments.watch,
    };
    let tally = thread::scope(|scope| {
        scope.spawn(|| {
            if let Some(named) = again {
                expect(named, &search, folder.manifest, &progress);
            }
        });
        match found {
            Found::Once(mut photos) => run.over(&mut photos, outputs),
            Found::Watched(watched) => {
                console.note("watching; Ctrl-C ends it");
                let reader = Reader::new(&folder);
                let source = watched.source(&reader);
                run.caption(watched, &source, &reader, outputs)
            }
        }
    })?;
    progress.finish();
    close(&arguments, tally, stop::requested(), console)
}

/// What there is to caption.
enum Found {
    Once(Photos),
    Watched(Box<Watched>),
}

impl Found {
    fn of(arguments: &CaptionArgs, search: &Search, console: &Console) -> Result<Self, CliError> {
        if arguments.watch {
            let folders = arguments.inputs.folders()?;
            let watched = Watched::new(folders, search.clone())?;
            return Ok(Self::Watched(Box::new(watched)));
        }
        let photos = Photos::find(arguments.inputs.named()?, search.clone(), console)?;
        if let Some(first) = photos.first() {
            arguments.outputs.check_input(first)?;
        }
        Ok(Self::Once(photos))
    }
}

fn serve(arguments: &CaptionArgs, console: &Console) -> Result<Outcome, CliError> {
    let shaping = arguments.shaping.shaping()?;
    let captioners = Captioners::load(arguments, console)?;
    let service = Service {
        replicas: &captioners.replicas(),
        decoding: &captioners.config(arguments, console)?,
        shaping: &shaping,
        model: &arguments.model.name(),
        limits: arguments.limits(captioners.checkpoint()),
    };
    // Whoever gives the lines ends the service by ending them.
    service.serve(BufReader::new(io::stdin()), console.stdout())
}

impl CaptionArgs {
    fn limits(&self, checkpoint: &Checkpoint) -> DecodeLimits {
        let limits = DecodeLimits::of_pixels(self.max_pixels).for_input(&checkpoint.preprocess);
        match self.max_memory {
            Some(bytes) => DecodeLimits { memory: MemoryBudget::of_bytes(bytes), ..limits },
            None => limits,
        }
    }
}

/// The model on every device.
struct Captioners(Vec<(Checkpoint, Resolved)>);

impl Captioners {
    fn load(arguments: &CaptionArgs, console: &Console) -> Result<Self, CliError> {
        let location = arguments.model.locate(console)?;
        let options = arguments.image_size.load_options();
        let each = arguments.devices.open(console)?.into_iter().map(|device| {
            let checkpoint = checkpoint::load_with(&location, &device.device, &options)?;
            Ok((in_precision(checkpoint, arguments.dtype, &device)?, device))
        });
        each.collect::<Result<_, CliError>>().map(Self)
    }

    /// One of them: they are equal.
    fn checkpoint(&self) -> &Checkpoint {
        &self.0[0].0
    }

    fn replicas(&self) -> Vec<Replica<'_>> {
        let each = self.0.iter();
        each.map(|(checkpoint, device)| Replica { checkpoint, device: &device.device }).collect()
    }

    fn config(
        &self,
        arguments: &CaptionArgs,
        console: &Console,
    ) -> Result<CaptionConfig, CliError> {
        let (checkpoint, device) = &self.0[0];
        let ids = match &arguments.prompt {
            Some(text) => checkpoint.tokenizer.encode(text)?,
            None => Vec::new(),
        };
        let generate = arguments.decode.over(checkpoint, arguments.num_captions)?;
        let usual = CaptionConfig::new(generate, &device.device);
        let has_manifest = arguments.outputs.manifest.is_some();
        let mut config = CaptionConfig {
            prompt: Prompt { ids, keep: arguments.keep_prompt },
            workers: arguments.workers.map_or(usual.workers * self.0.len(), usize::from),
            // A watch does not wait for more photos.
            filling: if has_manifest && !arguments.watch { Filling::Full } else { Filling::Eager },
            ..usual
        };
        let is_cpu = device.kind == BackendKind::Flex;
        let memory = arguments.max_memory.map(|bytes| bytes / 2);
        config.batch_size = arguments.batch_size.0.unwrap_or_else(|| {
            let suitable = suitable_batch_size(checkpoint, &config, is_cpu, memory);
            console.detail(&suitable.reason);
            suitable.photos
        });
        Ok(config)
    }
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

fn close(
    CaptionArgs { outputs, watch, .. }: &CaptionArgs,
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
    if stopped && *watch {
        return Err(CliError::new("the watch was ended").code(EXIT_INTERRUPTED));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_memory_are_read_as_people_write_them() {
        assert_eq!(memory_size("500M"), Ok(500 << 20));
        assert_eq!(memory_size("1.5GiB"), Ok(3 << 29));
        assert_eq!(memory_size("20000000"), Ok(20_000_000));
        for text in ["", "G", "2X", "1M", "-1G", "1e30", "nan"] {
            assert!(memory_size(text).is_err(), "{text}");
        }
    }
}
