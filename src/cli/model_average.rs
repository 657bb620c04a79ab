//! `patchword model average`: the mean of several checkpoints' weights.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::Outcome;
use super::console::Console;
use super::error::CliError;
use crate::checkpoint::average::average;
use crate::plural::counted;

/// Write the mean of several checkpoints' weights, often better than any of them
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword model average runs/seed-1 runs/seed-2 --output averaged
  patchword evaluate --model averaged --data ~/flickr8k --split val

They must be of one model: the same tensors, tokenizer and config, but for dropout and how to decode, which \
are the first one's. Weights in 2 bytes are read, f32 is written. While training, `average_last` in [train] \
does it by itself with the last validations' weights.")]
pub(super) struct AverageArgs {
    /// Checkpoint folders, at least two; of a run, its best; `flickr8k`, the captioner that ships
    #[arg(value_name = "CHECKPOINT", required = true, num_args = 2..)]
    checkpoints: Vec<PathBuf>,
    /// The folder to write; it must not exist
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
}

pub(super) fn run(arguments: &AverageArgs, console: &Console) -> Result<Outcome, CliError> {
    let averaged = average(&arguments.checkpoints, &arguments.output)?;
    let megabytes = averaged.bytes as f64 / 1e6;
    let (tensors, count) = (counted(averaged.num_tensors, "tensor"), arguments.checkpoints.len());
    console.note(format_args!("{tensors} of {count} checkpoints, {megabytes:.1} MB"));
    writeln!(console.stdout(), "{}", averaged.file.display())?;
    Ok(Outcome::Complete)
}
