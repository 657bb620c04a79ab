//! `patchword completions`: tab completion for shells.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::console::Console;
use super::error::CliError;
use super::{Cli, Outcome};

/// Print a script that completes patchword's commands and options in your shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword completions bash > ~/.local/share/bash-completion/completions/patchword
  patchword completions zsh > ~/.zfunc/_patchword       (with ~/.zfunc in fpath)
  patchword completions fish > ~/.config/fish/completions/patchword.fish")]
pub(super) struct CompletionsArgs {
    /// The shell to write for
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn run(arguments: CompletionsArgs, console: &Console) -> Result<Outcome, CliError> {
    // clap_complete panics when it cannot write, so it writes where it can.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "patchword", &mut script);
    let mut stdout = console.stdout();
    stdout.write_all(&script)?;
    stdout.flush()?;
    Ok(Outcome::Complete)
}
