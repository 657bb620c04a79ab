//! The command line: arguments, messages, progress bars and exit codes.
//!
//! One file per subcommand, named as the command. Each holds its clap arguments and a function
//! `run(arguments, &Console) -> Result<Outcome, CliError>`; to add one, write the file, then add its
//! `mod` line, its variant in `Command` and its arm in `dispatch`.
//!
//! What is asked for goes to stdout, everything else to stderr. Exit codes: see [`Outcome`] and
//! [`error::CliError`].

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

mod bench;
mod caption;
mod caption_inputs;
mod caption_manifest;
mod caption_merge;
mod caption_outputs;
mod caption_run;
mod caption_serve;
mod caption_watch;
mod completions;
pub mod console;
mod data;
mod decode;
mod demo;
pub mod device;
mod devices;
pub mod error;
mod evaluate;
mod image_size;
mod inspect;
mod inspect_evaluate;
mod inspect_maps;
mod inspect_outputs;
mod model;
mod model_args;
mod model_average;
mod model_convert;
mod model_export;
mod model_info;
mod model_pull;
mod panic;
pub mod progress;
mod score;
mod stop;
mod suggest;
mod train;
mod train_progress;

use console::{ColorChoice, Console};
use error::CliError;

/// Train an image captioner, caption folders of images with it, and see which region of an image
/// each word came from.
#[derive(Debug, Parser)]
#[command(
    name = "patchword",
    version,
    about,
    long_about = None,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Start with `patchword devices`; `patchword COMMAND --help` explains a command and shows \
                  examples."
)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// What every subcommand takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Messages")]
struct GlobalArgs {
    /// Print errors and warnings only: no progress, no notes.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Print more: -v for details, -vv for what only a developer wants.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Colour messages [auto: on a terminal where NO_COLOR is not set].
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t)]
    color: ColorChoice,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::TrainArgs),
    Caption(caption::CaptionArgs),
    Inspect(inspect::InspectArgs),
    Evaluate(evaluate::EvaluateArgs),
    Score(score::ScoreArgs),
    Data(data::DataArgs),
    Model(model::ModelCommandArgs),
    Demo(demo::DemoArgs),
    Bench(bench::BenchArgs),
    Devices(devices::DevicesArgs),
    Completions(completions::CompletionsArgs),
}

fn dispatch(command: Command, console: &Console) -> Result<Outcome, CliError> {
    match command {
        Command::Train(arguments) => train::run(arguments, console),
        Command::Caption(arguments) => caption::run(arguments, console),
        Command::Inspect(arguments) => inspect::run(arguments, console),
        Command::Evaluate(arguments) => evaluate::run(arguments, console),
        Command::Score(arguments) => score::run(arguments, console),
        Command::Demo(arguments) => demo::run(arguments, console),
        Command::Data(arguments) => data::run(arguments, console),
        Command::Model(arguments) => model::run(arguments, console),
        Command::Bench(arguments) => bench::run(arguments, console),
        Command::Devices(arguments) => devices::run(arguments, console),
        Command::Completions(arguments) => completions::run(arguments, console),
    }
}

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything asked for was done: exit code 0.
    Complete,
    /// The command finished, but some inputs failed and were reported: exit code 3.
    SomeInputsFailed,
}

impl Outcome {
    fn exit_code(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::SomeInputsFailed => 3,
        }
    }
}

/// Runs the program on this process's arguments and returns its exit code.
///
/// 0: done. 1: failed, with an error on stderr. 2: the arguments were wrong. 3: finished, but some
/// inputs failed. 130: interrupted.
pub fn run() -> ExitCode {
    panic::install_hook();
    ExitCode::from(panic::guard(|| run_with(std::env::args_os().collect())))
}

fn run_with(arguments: Vec<OsString>) -> u8 {
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // It fails when the reader is gone, who then wants no help text either.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let GlobalArgs { quiet, verbose, color } = cli.global;
    panic::show_backtraces(verbose > 0);
    let console = Console::new(quiet, verbose, color);
    match dispatch(cli.command, &console) {
        Ok(outcome) => outcome.exit_code(),
        // The reader (as in `patchword devices | head -1`) has all it wanted.
        Err(error) if error.is_broken_pipe() => 0,
        Err(error) => {
            error.print(&console);
            error.code
        }
    }
}

fn parse(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let arguments = decode::join_values(arguments);
    // clap colours its own errors, so it must know before it has parsed anything.
    let color = ColorChoice::from_raw_arguments(&arguments);
    let command = Cli::command();
    let named =
        |argument: &OsString| command.find_subcommand(argument).map(clap::Command::get_name);
    let word = arguments.iter().skip(1).find_map(named).unwrap_or_default().to_owned();
    let matches = command.color(color.for_clap()).try_get_matches_from(arguments);
    let matches = matches.map_err(|mut error| {
        suggest::add_tip(&mut error, &word);
        error
    })?;
    Cli::from_arg_matches(&matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Result<Cli, clap::Error> {
        parse(words.split(' ').map(OsString::from).collect())
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_has_an_about_text_and_examples() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{} has no about text", command.get_name());
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains("Examples:"), "{} has no examples", command.get_name());
        }
    }

    /// All commands below `command`, by their names.
    fn all_below(command: &clap::Command, name: &str) -> Vec<(String, clap::Command)> {
        let each = command.get_subcommands().flat_map(|inner| {
            let name = format!("{name} {}", inner.get_name());
            [vec![(name.clone(), inner.clone())], all_below(inner, &name)].concat()
        });
        each.collect()
    }

    #[test]
    fn help_fits_a_terminal_and_a_file() {
        let commands = all_below(&Cli::command(), "patchword");
        assert!(commands.len() > 15, "{commands:?}");
        for (name, command) in commands {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            // Lines that are broken by hand break a second time where there is less room.
            for paragraph in after.split("\n\n").filter(|text| !text.starts_with("Examples:")) {
                assert!(!paragraph.contains('\n'), "{name}: {paragraph}");
            }
            // As clap has it for a file; an example must fit.
            let help = command.term_width(100).render_long_help().to_string();
            for line in help.lines() {
                assert!(line.chars().count() <= 100, "{name}: {line}");
            }
            assert!(
                after.lines().all(|line| !line.starts_with("  ") || line.len() <= 100),
                "{after}"
            );
        }
    }

    #[test]
    fn global_flags_stand_before_and_after_the_subcommand() {
        assert_eq!(parse_words("patchword -vv devices").unwrap().global.verbose, 2);
        assert!(parse_words("patchword devices --quiet").unwrap().global.quiet);
        assert!(parse_words("patchword devices -q -v").is_err());
        let cli = parse_words("patchword devices --color never").unwrap();
        assert_eq!(cli.global.color, ColorChoice::Never);
    }
}
