//! `patchword model export`: a model for other programs.

use std::io::Write;
use std::path::PathBuf;

use burn::tensor::Device;
use clap::{Args, ValueEnum};

use super::Outcome;
use super::console::Console;
use super::error::CliError;
use super::model_args::SourceArgs;
use crate::checkpoint;

/// Write a model as another program reads it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword model export checkpoints/mine mine-for-transformers --to transformers

transformers loads the folder with BlipForConditionalGeneration.from_pretrained where training started \
from a BLIP model, else with VisionEncoderDecoderModel.from_pretrained: a ViT or DeiT with GPT-2, BERT or \
RoBERTa. A model that these classes cannot compute is refused with the key of its config at fault: one \
without a class token (model.encoder.prefix_tokens = 1), with a stem or, as flickr8k, with a backbone.")]
pub(super) struct ExportArgs {
    /// The model: a run's folder, a checkpoint folder, a Hugging Face folder or id
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The folder to write; it must not exist
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// The program that is to read it
    #[arg(long, value_enum)]
    to: Program,
    #[command(flatten)]
    source: SourceArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Program {
    /// Hugging Face transformers
    Transformers,
}

pub(super) fn run(arguments: &ExportArgs, console: &Console) -> Result<Outcome, CliError> {
    let folder = arguments.source.locate(&arguments.model, console)?;
    let checkpoint = checkpoint::load(&folder, &Device::flex())?;
    match arguments.to {
        Program::Transformers => {
            checkpoint::export_to_transformers(&checkpoint, &arguments.output)?;
        }
    }
    writeln!(console.stdout(), "{}", arguments.output.display())?;
    Ok(Outcome::Complete)
}
