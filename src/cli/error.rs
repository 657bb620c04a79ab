//! Errors as a user reads them: what failed, the causes below it, and what to do.

use std::error::Error;
use std::fmt;
use std::io;

use clap::builder::styling::AnsiColor;

use super::console::Console;
use crate::checkpoint::CheckpointError;
use crate::data::DataError;
use crate::device::DeviceError;
use crate::hub::HubError;
use crate::image::ImageError;
use crate::metrics::files::ScoreFileError;
use crate::train::{TrainConfigError, TrainError};

/// The exit code of a command that failed.
pub const EXIT_FAILED: u8 = 1;
/// The exit code for arguments that make no sense, the same that clap uses.
pub const EXIT_USAGE: u8 = 2;

/// The exit code of a command that was interrupted, as of a program that SIGINT ends.
pub const EXIT_INTERRUPTED: u8 = 130;

/// A failure on its way to the user.
///
/// Every error of the library becomes one with `?`. [`Context::context`] adds what was being done,
/// [`CliError::hint`] what to do about it.
#[derive(Debug)]
pub struct CliError {
    /// What failed: one line, without a full stop.
    pub message: String,
    /// The error it came from: its causes, and itself unless the message is its own, are printed below.
    pub source: Option<Box<dyn Error + Send + Sync>>,
    /// Whether `message` is what `source` says.
    pub(super) speaks_for_source: bool,
    /// What the user can do about it.
    pub hint: Option<String>,
    /// The exit code, [`EXIT_FAILED`] unless said otherwise.
    pub code: u8,
}

impl CliError {
    /// A failure with nothing below it.
    pub fn new(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            source: None,
            speaks_for_source: false,
            hint: None,
            code: EXIT_FAILED,
        }
    }

    /// Arguments that each are well-formed but make no sense together: exit code 2.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { code: EXIT_USAGE, ..Self::new(message) }
    }

    /// The same with a hint, instead of the one it has.
    pub fn hint(self, hint: impl fmt::Display) -> Self {
        Self { hint: Some(hint.to_string()), ..self }
    }

    /// The same with another exit code.
    pub fn code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// Whether this is a reader of our output that went away.
    pub fn is_broken_pipe(&self) -> bool {
        self.causes().any(|cause| {
            let error = cause.downcast_ref::<io::Error>();
            error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        })
    }

    /// Prints the error, its causes and its hint on stderr.
    pub fn print(&self, console: &Console) {
        let error = console.paint("error:", AnsiColor::Red);
        console.error_line(&format!("{error} "), &self.message);
        for cause in self.cause_lines() {
            console.error_line("  caused by: ", cause);
        }
        if let Some(hint) = &self.hint {
            let label = console.paint("hint:", AnsiColor::Cyan);
            console.error_line(&format!("{label} "), hint);
        }
    }

    /// The error and its causes in a line, for one of many.
    pub(super) fn in_a_line(&self) -> String {
        let mut parts = vec![self.message.clone()];
        parts.extend(self.cause_lines());
        parts.join(": ")
    }

    fn causes(&self) -> impl Iterator<Item = &(dyn Error + 'static)> {
        let first = self.source.as_deref().map(|source| source as &(dyn Error + 'static));
        std::iter::successors(first, |&cause| cause.source())
    }

    /// The causes as text.
    fn cause_lines(&self) -> Vec<String> {
        self.causes().skip(usize::from(self.speaks_for_source)).map(ToString::to_string).collect()
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for CliError {
    fn from(error: E) -> Self {
        // Kept whole as the source, so that a caller can still tell what it was.
        let code = match (&error as &dyn Error).downcast_ref::<TrainError>() {
            Some(TrainError::StoppedEarly { .. }) => EXIT_INTERRUPTED,
            _ => EXIT_FAILED,
        };
        Self {
            message: error.to_string(),
            hint: known_hint(&error),
            source: Some(Box::new(error)),
            speaks_for_source: true,
            code,
        }
    }
}

/// Says what was being done when an error came up.
pub trait Context<T> {
    /// Puts `message` above the error, which becomes its cause.
    ///
    /// # Errors
    /// The error of `self`, with the message.
    fn context(self, message: impl fmt::Display) -> Result<T, CliError>;
}

impl<T, E: Error + Send + Sync + 'static> Context<T> for Result<T, E> {
    fn context(self, message: impl fmt::Display) -> Result<T, CliError> {
        self.map_err(|error| CliError {
            message: message.to_string(),
            speaks_for_source: false,
            ..CliError::from(error)
        })
    }
}

/// What the user can do about an error of the library, wherever it is in the chain.
fn known_hint(error: &(dyn Error + 'static)) -> Option<String> {
    std::iter::successors(Some(error), |&cause| cause.source()).find_map(|cause| {
        None.or_else(|| cause.downcast_ref::<DeviceError>().and_then(DeviceError::hint))
            .or_else(|| cause.downcast_ref::<ImageError>().and_then(image_hint))
            .or_else(|| cause.downcast_ref::<HubError>().and_then(HubError::hint))
            .or_else(|| cause.downcast_ref::<TrainError>().and_then(train_hint))
            .or_else(|| cause.downcast_ref::<TrainConfigError>().and_then(config_hint))
            .or_else(|| cause.downcast_ref::<CheckpointError>().and_then(checkpoint_hint))
            .or_else(|| cause.downcast_ref::<ScoreFileError>().and_then(score_hint))
            .or_else(|| cause.downcast_ref::<DataError>().and_then(data_hint))
    })
}

fn data_hint(error: &DataError) -> Option<String> {
    let hint = match error {
        DataError::Unrecognised { .. } => "--dataset-format names a format",
        DataError::NoImageFound { .. } => {
            "the folder of the images is named by data.images in a config, by --images of data check"
        }
        DataError::TooManyBad { .. } => {
            "`patchword data check` lists them all; --allow-bad goes on without them"
        }
        _ => return None,
    };
    Some(hint.into())
}

fn image_hint(error: &ImageError) -> Option<String> {
    match error {
        ImageError::TooLarge { width, height, .. } => {
            let pixels = u64::from(*width) * u64::from(*height);
            Some(format!("if the file is to be trusted, raise it with --max-pixels {pixels}"))
        }
        _ => None,
    }
}

fn train_hint(error: &TrainError) -> Option<String> {
    let hint = match error {
        TrainError::Config(error) => return config_hint(error),
        TrainError::Checkpoint(CheckpointError::NotFound { .. }) => {
            "name what training starts from as `init` in the config or with --set init=MODEL: a checkpoint, \
             a model id (owner/name), or `flickr8k`, which ships"
        }
        TrainError::Checkpoint(error) => return checkpoint_hint(error),
        TrainError::RunExists { .. } => "--resume goes on with it; --output names another folder",
        TrainError::NotARun { .. } => "name a new or an empty folder with --output",
        TrainError::InUse { .. } => "wait for it, or name another folder with --output",
        TrainError::RunDamaged { .. } => {
            "put it back and --resume, or train into another folder with --output"
        }
        TrainError::Data(DataError::NotFound { .. }) => {
            "name the data set with --data, or as `data.path` in the config"
        }
        TrainError::Data(error) => return data_hint(error),
        TrainError::StoppedEarly { .. } => "go on with the same command",
        TrainError::CannotResume { .. } => {
            "give what it began with (--set KEY=VALUE), or train into another folder with --output"
        }
        TrainError::NotFinite { .. } => {
            "lower schedule.learning_rate or raise schedule.warmup_steps, and --resume"
        }
        TrainError::TooManyBad { .. } => {
            "`patchword data check` names every bad image; --allow-bad trains on"
        }
        _ => return None,
    };
    Some(hint.into())
}

fn config_hint(error: &TrainConfigError) -> Option<String> {
    match error {
        TrainConfigError::Toml { suggestion: Some(known), .. } => {
            Some(format!("did you mean `{known}`?"))
        }
        _ => None,
    }
}

fn score_hint(error: &ScoreFileError) -> Option<String> {
    match error {
        ScoreFileError::Twice { .. } => Some(
            "keep one caption for each image: `patchword caption` writes one if you leave out \
             --num-captions"
                .into(),
        ),
        _ => None,
    }
}

fn checkpoint_hint(error: &CheckpointError) -> Option<String> {
    match error {
        CheckpointError::NotFound { .. } => Some(
            "`flickr8k` is the one that ships; `patchword train` makes one, `patchword demo` a small \
             one in minutes; a model id, owner/name, downloads one"
                .into(),
        ),
        CheckpointError::NotForTransformers { .. } => Some(
            "patchword runs the model as it is (`patchword caption --model`), and `patchword model \
             convert` writes its weights as safetensors for code of your own; for transformers, train \
             with model.encoder.prefix_tokens = 1 and neither stem nor backbone, or fine-tune a public \
             model (configs/finetune-blip.toml)"
                .into(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("config.toml cannot be read")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("line 3: expected a number")]
    struct Inner;

    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    struct Wrapper(Outer);

    fn lines(error: &CliError) -> (String, Vec<String>) {
        (error.message.clone(), error.cause_lines())
    }

    #[test]
    fn an_error_becomes_a_message_and_its_causes() {
        let error = CliError::from(Outer(Inner));
        assert_eq!(
            lines(&error),
            ("config.toml cannot be read".into(), vec!["line 3: expected a number".into()])
        );
        assert_eq!(lines(&CliError::from(Wrapper(Outer(Inner)))), lines(&error));
        assert_eq!(error.code, EXIT_FAILED);
        assert_eq!(error.hint, None);
    }

    #[test]
    fn context_goes_above_the_error() {
        let error = Err::<(), _>(Inner).context("cannot train").unwrap_err();
        assert_eq!(
            lines(&error),
            ("cannot train".into(), vec!["line 3: expected a number".into()])
        );
    }

    #[test]
    fn the_hint_of_a_library_error_comes_along() {
        let error = "flx".parse::<crate::device::DeviceRequest>().unwrap_err();
        let hint = CliError::from(error).hint;
        assert_eq!(hint.as_deref(), Some("did you mean `flex`?"));
        let own = CliError::usage("no").hint("say yes");
        assert_eq!((own.code, own.hint.as_deref()), (EXIT_USAGE, Some("say yes")));
    }

    #[test]
    fn a_broken_pipe_is_seen_through_layers() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(CliError::from(broken()).is_broken_pipe());
        assert!(Err::<(), _>(broken()).context("printing").unwrap_err().is_broken_pipe());
        assert!(!CliError::from(io::Error::from(io::ErrorKind::NotFound)).is_broken_pipe());
    }
}
