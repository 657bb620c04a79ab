//! What a run tells of itself while it goes on, and how it ended.

use std::path::{Path, PathBuf};

use super::init::InitConfig;
use super::plan::Plan;
use super::validate::Validation;
use crate::data::SkippedImage;

/// What happens in a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// Everything is ready; steps begin.
    Started {
        /// The plan.
        plan: &'a Plan,
        /// Steps that were taken before.
        step: u64,
        /// Images to train on and to validate on, less those that are known to be unreadable.
        images: [usize; 2],
        /// Settings that differ from those of the steps before: `key was … and is now …`.
        changed: &'a [String],
        /// What the config says the run begins with, if that is not what it did begin with, which stays.
        other_init: Option<&'a InitConfig>,
        /// The step of the best checkpoint that was, if it is gone: the next validation's becomes the best.
        lost_best: Option<u64>,
    },
    /// The features of some images are there.
    Features {
        /// Images since the last event.
        new: usize,
        /// Images done.
        done: usize,
        /// Images in all.
        total: usize,
    },
    /// A step was taken.
    Step {
        /// Steps taken.
        step: u64,
        /// Epochs seen.
        epoch: f64,
        /// Mean training loss since the last line of metrics, in nats a token.
        loss: Option<f64>,
        /// Mean CIDEr-D of sampled captions since then, where that is what is trained on.
        reward: Option<f64>,
        /// Learning rate of the step.
        learning_rate: f64,
        /// Images drawn since the last event, unreadable ones too.
        images: u64,
    },
    /// A validation was made.
    Validated {
        /// Steps taken.
        step: u64,
        /// Its result.
        validation: &'a Validation,
        /// CIDEr of captions, where the best checkpoint is chosen by it.
        cider: Option<f64>,
        /// Whether it is the best so far.
        best: bool,
        /// Captions of some validation images.
        samples: &'a [Sample],
    },
    /// At the end, the mean of the last validations' weights was validated.
    Averaged {
        /// The steps whose weights it is the mean of.
        steps: &'a [u64],
        /// Its result.
        validation: &'a Validation,
        /// CIDEr of captions, where the best checkpoint is chosen by it.
        cider: Option<f64>,
        /// Whether it is the best of the run.
        best: bool,
    },
    /// A checkpoint was written.
    Saved {
        /// Steps taken.
        step: u64,
        /// Its folder.
        folder: &'a Path,
    },
    /// An image could not be read and was left out; told once an image.
    Skipped(&'a SkippedImage),
}

/// A caption of a validation image.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The image.
    pub path: PathBuf,
    /// What the model says.
    pub caption: String,
}

/// Hears of events; may ask for a stop.
pub trait Observer {
    /// Something happened.
    fn event(&mut self, event: &Event);
    /// Asked after every step: save and stop?
    fn stop_requested(&self) -> bool {
        false
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Steps taken in all.
    pub step: u64,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// Validation loss of the best checkpoint, and its step.
    pub best: Option<(f64, u64)>,
    /// Its CIDEr, where it was chosen by that.
    pub best_cider: Option<f64>,
    /// The steps whose weights it is the mean of, if it is one.
    pub best_average: Vec<u64>,
    /// Whether it ended before its last step because nothing became better.
    pub stopped_early: bool,
    /// Share of the time that the device waited for data.
    pub data_wait_share: f64,
    /// Images left out because they could not be read.
    pub skipped: usize,
}
