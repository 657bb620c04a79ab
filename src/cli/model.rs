//! `patchword model`: what can be done with a model besides captioning.

use clap::{Args, Subcommand};

use super::Outcome;
use super::console::Console;
use super::error::CliError;
use super::model_average::{self, AverageArgs};
use super::model_convert::{self, ConvertArgs};
use super::model_export::{self, ExportArgs};
use super::model_info::{self, InfoArgs};
use super::model_pull::{self, PullArgs};

/// Download a public model, see what a model is, convert or average weights, export it
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  patchword model pull Salesforce/blip-image-captioning-base
  patchword model info Salesforce/blip-image-captioning-base
  patchword model info checkpoints/mine --json
  patchword model convert blip blip-f16 --dtype f16
  patchword model average runs/seed-1 runs/seed-2 --output averaged
  patchword model export checkpoints/mine mine-for-transformers --to transformers"
)]
pub(super) struct ModelCommandArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    Pull(PullArgs),
    Info(InfoArgs),
    Convert(ConvertArgs),
    Average(AverageArgs),
    Export(ExportArgs),
}

pub(super) fn run(arguments: ModelCommandArgs, console: &Console) -> Result<Outcome, CliError> {
    match arguments.command {
        ModelCommand::Pull(arguments) => model_pull::run(&arguments, console),
        ModelCommand::Info(arguments) => model_info::run(&arguments, console),
        ModelCommand::Convert(arguments) => model_convert::run(&arguments, console),
        ModelCommand::Average(arguments) => model_average::run(&arguments, console),
        ModelCommand::Export(arguments) => model_export::run(&arguments, console),
    }
}
