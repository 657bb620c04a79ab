//! The training loop: loss, optimizer, schedule, exact resume, reports.

mod builtin;
mod card;
mod config;
mod config_file;
pub mod curve;
mod event;
mod features;
mod folder;
mod gradients;
mod init;
mod learner;
mod loss;
mod metrics;
mod optimizer;
mod plan;
mod run;
mod schedule;
mod score;
mod scst;
mod shares;
mod state;
mod trained;
mod validate;

use std::path::PathBuf;

pub use builtin::{BUILT_IN, BuiltIn};
pub use config::{
    DataConfig, LoopConfig, SelectBy, TokenizerSection, TrainConfig, TrainConfigError,
};
pub(crate) use config_file::in_a_section as known_setting;
pub use event::{Event, Observer, Outcome, Sample};
pub use folder::{ensure_trainable, has_run};
pub use gradients::{Gradients, Regularization, forward_loss};
pub use init::{InitConfig, Start};
pub use learner::{Learner, TimeEstimate};
pub use loss::cross_entropy;
pub use optimizer::{AdamW, AdamWConfig};
pub use plan::{MemoryEstimate, Plan};
pub use run::train;
pub use schedule::ScheduleConfig;
pub use scst::{Baseline, ScstConfig};
pub use state::held_out;
pub use trained::{LoraConfig, Trained};
pub use validate::{Validation, validate};

use crate::checkpoint::CheckpointError;
use crate::data::{DataError, MAX_BAD_SHARE};
use crate::generate::GenerateError;
use crate::model::ConfigError;
use crate::text::TextError;

fn describe_process(process: Option<u32>) -> String {
    process.map_or_else(|| "another process".into(), |process| format!("process {process}"))
}

/// Why a training run stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The config cannot be used.
    #[error(transparent)]
    Config(#[from] TrainConfigError),
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The tokenizer cannot be trained or read.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The model cannot be built.
    #[error("model.{0}")]
    Model(ConfigError),
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A sample caption could not be decoded.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A split that is needed has no images.
    #[error("{path}: no usable images with captions in the {split} split")]
    EmptySplit {
        /// The data set.
        path: PathBuf,
        /// `train` or `val`.
        split: &'static str,
    },
    /// The run's folder already holds a run.
    #[error("{folder}: a run is here already, at step {step}")]
    RunExists {
        /// The run's folder.
        folder: PathBuf,
        /// How far it came.
        step: u64,
    },
    /// The folder holds other things than a run, which training would write over or mix with.
    #[error("{folder}: no run is here, but {found}; nothing was changed")]
    NotARun {
        /// The folder that was to be the run's.
        folder: PathBuf,
        /// What is there.
        found: String,
    },
    /// Another process trains into the folder.
    #[error("{folder} is in use: {} is training into it", describe_process(*process))]
    InUse {
        /// The run's folder.
        folder: PathBuf,
        /// The process, where it could be told.
        process: Option<u32>,
    },
    /// A part of a run is gone, without which it cannot go on; the rest would be overwritten by a new run.
    #[error("{missing} is missing, but {left} is that of a run; nothing was changed")]
    RunDamaged {
        /// The file or folder.
        missing: PathBuf,
        /// What is left.
        left: PathBuf,
    },
    /// A run cannot go on with what it was given.
    #[error("{folder}: cannot resume: {problem}")]
    CannotResume {
        /// The checkpoint.
        folder: PathBuf,
        /// What differs or is damaged.
        problem: String,
    },
    /// The loss is not a number.
    #[error("the loss is {loss} at step {step}; {last_good}")]
    NotFinite {
        /// The step.
        step: u64,
        /// The loss.
        loss: f64,
        /// Where the last good checkpoint is.
        last_good: String,
    },
    /// Too many images turned out to be unreadable.
    #[error(
        "{bad} of {seen} images cannot be read, more than the {:.0} % that may be left out; the first: {first}",
        100.0 * MAX_BAD_SHARE
    )]
    TooManyBad {
        /// Unreadable images.
        bad: usize,
        /// Images tried.
        seen: usize,
        /// The first of them with its reason.
        first: String,
    },
    /// A stop was asked for before the first step.
    #[error("interrupted before the first step: the features of {done} of {total} images are kept")]
    StoppedEarly {
        /// Images whose features are kept.
        done: usize,
        /// Images in all.
        total: usize,
    },
    /// Features could not be kept.
    #[error(transparent)]
    Features(#[from] crate::data::FeatureError),
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
    /// The system gives no more threads.
    #[error("cannot start threads for train.data_parallel: {0}")]
    Threads(String),
    /// The threads that decode images have died.
    #[error("the threads that decode images have stopped")]
    LoaderDied,
}

// By hand: its text is within this one's, so it is no cause below it.
impl From<ConfigError> for TrainError {
    fn from(error: ConfigError) -> Self {
        Self::Model(error)
    }
}
