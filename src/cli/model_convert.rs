//! `patchword model convert`: weights in another form.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Outcome;
use super::console::Console;
use super::error::CliError;
use crate::checkpoint::convert::convert;
use crate::checkpoint::tensors::SavedType;
use crate::plural::counted;

/// Write a model's weights as safetensors, in the precision asked for
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword model convert blip blip-f16 --dtype f16
  patchword model convert checkpoints/mine mine-bf16 --dtype bf16
  patchword model convert flickr8k the-captioner-that-ships
  patchword model convert model_base_caption_capfilt_large.pth original.safetensors

Reads safetensors and what torch.save writes, whole or in shards; nothing in a pickle is run. Of a \
folder, the other files come along, except for what only resuming a training needs. Weights in 2 bytes \
take half the space on disk, and as much memory as before once they are loaded.")]
pub(super) struct ConvertArgs {
    /// A checkpoint folder, a Hugging Face folder, a file of weights, or flickr8k
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The folder or (.safetensors) file to write; it must not exist
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// What floats are written as [default: as they are]
    #[arg(long, value_enum, value_name = "TYPE")]
    dtype: Option<FloatType>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FloatType {
    /// 4 bytes
    F32,
    /// 2 bytes: up to 65504, about 3 digits
    F16,
    /// 2 bytes: the range of f32, about 2 digits
    Bf16,
}

pub(super) fn run(arguments: &ConvertArgs, console: &Console) -> Result<Outcome, CliError> {
    let saved = arguments.dtype.map(|dtype| match dtype {
        FloatType::F32 => SavedType::F32,
        FloatType::F16 => SavedType::F16,
        FloatType::Bf16 => SavedType::Bf16,
    });
    let converted = convert(&arguments.input, &arguments.output, saved)?;
    let megabytes = converted.bytes as f64 / 1e6;
    let tensors = counted(converted.num_tensors, "tensor");
    console.note(format_args!("{tensors}, {megabytes:.1} MB"));
    writeln!(console.stdout(), "{}", converted.file.display())?;
    Ok(Outcome::Complete)
}
