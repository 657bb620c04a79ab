//! `patchword caption`: captions for files and folders of images.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use burn::tensor::FloatDType;
use clap::{Args, ValueEnum};
use serde::Serialize;
use walkdir::WalkDir;

use super::Outcome;
use super::console::Console;
use super::decode::{DECODING, DecodeArgs};
use super::device::DeviceArgs;
use super::error::CliError;
use super::image_size::ImageSizeArgs;
use super::model_args::ModelArgs;
use super::progress::Progress;
use super::train::shape_bucket;
use crate::caption::{Caption, CaptionConfig, Prompt, caption_items};
use crate::checkpoint;
use crate::image::{DecodeLimits, ImageError, decode_file, is_image_path};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The path, a tab and the caption; a line for each caption.
    Text,
    /// A JSON object for each caption: path, caption, token_ids, score, words with their
    /// probabilities, model.
    Jsonl,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Precision {
    /// 4 bytes a weight.
    F32,
    /// 2 bytes a weight, about 3 digits; for GPUs. A CPU is slower with it.
    F16,
}

/// Caption images: files, folders (with everything below), globs, or - for a list on stdin
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword caption photo.jpg
  patchword caption photo.jpg --model checkpoints/mine
  patchword caption ~/photos --model checkpoints/mine > captions.tsv
  patchword caption ~/photos --model checkpoints/mine --format jsonl --num-beams 5
  patchword caption ~/photos --model checkpoints/mine --num-beams 5 --num-captions 3
  patchword caption photo.jpg --model checkpoints/mine --do-sample --top-p 0.9 --seed 7
  find ~/photos -name '*.jpg' | patchword caption - --model checkpoints/mine

Captions go to stdout in the order of the inputs. An image that cannot be read is named on stderr, \
the rest goes on, and the exit code is 3.")]
pub(super) struct CaptionArgs {
    /// Images, folders, globs, or - to read paths from stdin, one a line
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    image_size: ImageSizeArgs,
    /// Images captioned together
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch_size: u16,
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
    #[arg(long, requires = "prompt", help_heading = DECODING)]
    keep_prompt: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    #[serde(flatten)]
    caption: &'a Caption,
    /// As it was named.
    model: &'a str,
}

pub(super) fn run(arguments: CaptionArgs, console: &Console) -> Result<Outcome, CliError> {
    let inputs = expand(&arguments.paths, console)?;
    let location = arguments.model.locate(console)?;
    let device = arguments.device.open(console)?;
    let options = arguments.image_size.load_options();
    let mut checkpoint = checkpoint::load_with(&location, &device.device, &options)?;
    if arguments.dtype == Precision::F16 {
        if !device.device.supports_dtype(FloatDType::F16) {
            let problem = format!("--dtype f16: {} does not compute in f16", device.name);
            return Err(CliError::new(problem).hint("leave it out to compute in f32"));
        }
        checkpoint = checkpoint.into_f16();
    }
    let prompt = Prompt {
        ids: match &arguments.prompt {
            Some(text) => checkpoint.tokenizer.encode(text)?,
            None => Vec::new(),
        },
        keep: arguments.keep_prompt,
    };
    let generate = arguments.decode.over(&checkpoint, arguments.num_captions)?;
    let config = CaptionConfig {
        prompt,
        batch_size: usize::from(arguments.batch_size),
        ..CaptionConfig::new(generate, shape_bucket(&device))
    };
    let limits = DecodeLimits { max_pixels: arguments.max_pixels };
    let read = move |path: &mut PathBuf| decode_file(path, &limits);
    let progress = Progress::new(console, "caption", Some(inputs.paths.len() as u64), "images");
    let mut failed = inputs.failed;
    let model = arguments.model.name();
    let emit = |path: PathBuf, result: Result<Vec<Caption>, ImageError>| -> Result<(), CliError> {
        match &result {
            Ok(captions) => {
                let mut stdout = console.stdout();
                for caption in captions {
                    print(&mut stdout, &path, caption, &model, arguments.format)?;
                }
                progress.advance(1);
            }
            Err(reason) => {
                failed += 1;
                progress.suspend(|| console.warn(format_args!("no caption: {reason}")));
                progress.advance_failed(1);
            }
        }
        Ok(())
    };
    caption_items(&checkpoint, &device.device, inputs.paths.into_iter(), &read, &config, emit)?;
    progress.finish();
    if failed > 0 {
        let inputs = if failed == 1 { "1 input has" } else { &format!("{failed} inputs have") };
        console.note(format_args!("{inputs} no caption"));
        return Ok(Outcome::SomeInputsFailed);
    }
    Ok(Outcome::Complete)
}

fn print(
    out: &mut impl Write,
    path: &Path,
    caption: &Caption,
    model: &str,
    format: Format,
) -> Result<(), CliError> {
    match format {
        // A caption never breaks the line that it stands on.
        Format::Text => {
            let text = caption.caption.replace(['\n', '\r', '\t'], " ");
            writeln!(out, "{}\t{text}", path.display())?;
        }
        Format::Jsonl => {
            let path = path.to_string_lossy();
            serde_json::to_writer(&mut *out, &Line { path: &path, caption, model })?;
            writeln!(out)?;
        }
    }
    Ok(())
}

/// What the arguments name.
pub(super) struct Inputs {
    pub(super) paths: Vec<PathBuf>,
    /// Arguments that name nothing.
    pub(super) failed: usize,
}

/// Expands folders, globs and `-`, in the order given. What names nothing is reported.
pub(super) fn expand(arguments: &[PathBuf], console: &Console) -> Result<Inputs, CliError> {
    let mut inputs = Inputs { paths: Vec::new(), failed: 0 };
    for argument in arguments {
        if argument.as_os_str() == "-" {
            for line in std::io::stdin().lock().lines() {
                let line = line?;
                if !line.trim().is_empty() {
                    inputs.paths.push(PathBuf::from(line.trim_end_matches('\r')));
                }
            }
        } else if argument.is_dir() {
            let before = inputs.paths.len();
            walk(argument, &mut inputs, console);
            if inputs.paths.len() == before {
                console.warn(format_args!("{}: no images in this folder", argument.display()));
                inputs.failed += 1;
            }
        } else if argument.exists() {
            inputs.paths.push(argument.clone());
        } else {
            expand_glob(argument, &mut inputs, console);
        }
    }
    if inputs.paths.is_empty() {
        return Err(CliError::new("no images to caption")
            .hint("name image files, folders, globs in quotes, or - for a list on stdin"));
    }
    Ok(inputs)
}

fn walk(folder: &Path, inputs: &mut Inputs, console: &Console) {
    for entry in WalkDir::new(folder).sort_by_file_name().follow_links(true) {
        match entry {
            Ok(entry) if entry.file_type().is_file() && is_image_path(entry.path()) => {
                inputs.paths.push(entry.into_path());
            }
            Ok(_) => {}
            Err(error) => {
                console.warn(format_args!("{error}"));
                inputs.failed += 1;
            }
        }
    }
}

fn expand_glob(pattern: &Path, inputs: &mut Inputs, console: &Console) {
    let text = pattern.to_string_lossy();
    let is_glob = text.contains(['*', '?', '[']);
    let before = inputs.paths.len();
    if is_glob && let Ok(matches) = glob::glob(&text) {
        for path in matches.filter_map(Result::ok) {
            if path.is_dir() {
                walk(&path, inputs, console);
            } else if is_image_path(&path) {
                inputs.paths.push(path);
            }
        }
    }
    if inputs.paths.len() == before {
        let what = if is_glob { "matches no image" } else { "no such file or folder" };
        console.warn(format_args!("{text}: {what}"));
        inputs.failed += 1;
    }
}
