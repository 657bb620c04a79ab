//! `patchword model`: what can be done with a model besides captioning.

use clap::{Args, Subcommand};

use super::Outcome;
use super::console::Console;
use super::error::CliError;
use super::model_convert::{self, ConvertArgs};

/// Convert a model's weights
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  patchword model convert blip blip-f16 --dtype f16"
)]
pub(super) struct ModelCommandArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    Convert(ConvertArgs),
}

pub(super) fn run(arguments: ModelCommandArgs, console: &Console) -> Result<Outcome, CliError> {
    match arguments.command {
        ModelCommand::Convert(arguments) => model_convert::run(&arguments, console),
    }
}
