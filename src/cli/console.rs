//! Where messages go, and how much and how colourfully is said.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal, StdoutLock, Write};

use clap::ValueEnum;
use clap::builder::styling::{AnsiColor, Style};

use crate::escape::visible;

/// When to colour messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless the environment has `NO_COLOR` or `TERM=dumb`.
    #[default]
    Auto,
    /// Even into a file or a pipe.
    Always,
    /// Not at all.
    Never,
}

impl ColorChoice {
    /// Finds `--color` in arguments that are yet to be parsed. What it does not understand is
    /// [`ColorChoice::Auto`]: the parser complains later.
    pub(super) fn from_raw_arguments(arguments: &[OsString]) -> Self {
        let texts: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
        let before_separator = texts.iter().position(|text| *text == "--").unwrap_or(texts.len());
        let value =
            texts[..before_separator].iter().enumerate().rev().find_map(|(place, text)| match text
                .strip_prefix("--color=")
            {
                Some(value) => Some(value),
                None if *text == "--color" => texts.get(place + 1).copied(),
                None => None,
            });
        value.and_then(|value| Self::from_str(value, false).ok()).unwrap_or_default()
    }

    pub(super) fn for_clap(self) -> clap::ColorChoice {
        match self {
            Self::Auto => clap::ColorChoice::Auto,
            Self::Always => clap::ColorChoice::Always,
            Self::Never => clap::ColorChoice::Never,
        }
    }

    /// Whether `stream` is coloured, which is a terminal or is not.
    fn colors(self, is_terminal: bool) -> bool {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => is_terminal && !is_set("NO_COLOR") && !is_dumb,
        }
    }
}

/// What a command talks through: stdout for what was asked for, stderr for the rest.
#[derive(Debug, Clone)]
pub struct Console {
    quiet: bool,
    verbosity: u8,
    has_color: bool,
    color: ColorChoice,
    is_terminal: bool,
}

impl Console {
    /// A console for this process. `verbosity` counts the `-v`.
    pub fn new(quiet: bool, verbosity: u8, color: ColorChoice) -> Self {
        let is_terminal = io::stderr().is_terminal();
        Self { quiet, verbosity, has_color: color.colors(is_terminal), color, is_terminal }
    }

    /// A console that says errors only, for tests.
    pub fn silent() -> Self {
        Self {
            quiet: true,
            verbosity: 0,
            has_color: false,
            color: ColorChoice::Never,
            is_terminal: false,
        }
    }

    /// Whether `--quiet` was given.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// How many `-v` were given.
    pub fn verbosity(&self) -> u8 {
        self.verbosity
    }

    /// Whether stderr is a terminal, where a line can be redrawn.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Whether what goes to stdout may be coloured.
    pub(super) fn colours_stdout(&self) -> bool {
        self.color.colors(io::stdout().is_terminal())
    }

    /// Stdout, locked. Write with `writeln!` and `?`: a reader that went away is then a silent
    /// success (`println!` would panic).
    pub fn stdout(&self) -> StdoutLock<'static> {
        io::stdout().lock()
    }

    /// Says on stderr what is worth knowing, below an empty line if the text begins with a line break.
    /// Nothing with `--quiet`.
    pub fn note(&self, text: impl fmt::Display) {
        if !self.quiet {
            let text = text.to_string();
            self.error_line(if text.starts_with('\n') { "\n" } else { "" }, text);
        }
    }

    /// Says a detail on stderr, with `-v` only.
    pub fn detail(&self, text: impl fmt::Display) {
        if self.verbosity > 0 {
            self.note(text);
        }
    }

    /// Says on stderr that something went wrong that does not stop the command, also with
    /// `--quiet`.
    pub fn warn(&self, text: impl fmt::Display) {
        let label = self.paint("warning:", AnsiColor::Yellow);
        self.error_line(&format!("{label} "), text);
    }

    /// `text`, bold and in `color` where messages are coloured.
    pub(super) fn paint(&self, text: &str, color: AnsiColor) -> String {
        if !self.has_color {
            return text.to_string();
        }
        let style = Style::new().bold().fg_color(Some(color.into()));
        format!("{style}{text}{style:#}")
    }

    /// Writes a line to stderr: a label of ours, which may be coloured, and a text, which may quote what
    /// others wrote and is shown so that a terminal does not obey it. A stderr that is gone is no reason
    /// to stop working.
    pub(super) fn error_line(&self, label: &str, text: impl fmt::Display) {
        let text = visible(&text.to_string());
        let _ = writeln!(io::stderr().lock(), "{label}{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(words: &str) -> ColorChoice {
        let arguments: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        ColorChoice::from_raw_arguments(&arguments)
    }

    #[test]
    fn color_is_found_before_parsing() {
        assert_eq!(choice("patchword devices"), ColorChoice::Auto);
        assert_eq!(choice("patchword --color never devices"), ColorChoice::Never);
        assert_eq!(choice("patchword --color=always devices"), ColorChoice::Always);
        assert_eq!(choice("patchword --color sometimes devices"), ColorChoice::Auto);
        assert_eq!(choice("patchword caption -- --color=always"), ColorChoice::Auto);
        assert_eq!(choice("patchword --color"), ColorChoice::Auto);
    }

    #[test]
    fn paint_is_plain_without_color() {
        assert_eq!(Console::silent().paint("error:", AnsiColor::Red), "error:");
        let colorful = Console::new(true, 0, ColorChoice::Always);
        let painted = colorful.paint("error:", AnsiColor::Red);
        assert!(painted.contains("error:") && painted.starts_with('\u{1b}'), "{painted:?}");
    }
}
