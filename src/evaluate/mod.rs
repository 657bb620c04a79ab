//! How good a captioner is on a split: loss ([`evaluate`]), captions and their scores ([`caption_split`],
//! [`captions::Scored`]), scene accuracy and attention pointing ([`scenes`]), whether its maps are true
//! ([`maps`]); what a reader is told of it ([`report`]), and a page that shows every image with its caption
//! ([`gallery`]).

pub mod captions;
pub mod gallery;
pub mod maps;
pub mod report;
pub mod scenes;

use std::path::PathBuf;

use burn::tensor::Device;

use crate::caption::CaptionConfig;
use crate::checkpoint::Checkpoint;
use crate::data::{
    Dataset, ImageRecord, LoaderConfig, SkippedImage, SkippedImages, Split, examples,
};
use crate::generate::GenerateError;
use crate::image::DecodeLimits;
use crate::inspect::InspectError;
use crate::model::EncoderStage;
use crate::text::TextError;
use crate::train::{TrainError, Validation, validate};
pub use captions::caption_split;
use scenes::{Scenes, judge, scene_of};

/// Why an evaluation failed.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// A caption could not be decoded.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// Attention could not be read.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The loss could not be computed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A caption of the data set could not be encoded.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The split has no image.
    #[error("{}: no images in the {} split", root.display(), split.name())]
    NoImages {
        /// The data set's folder.
        root: PathBuf,
        /// The split asked for.
        split: Split,
    },
}

/// What an evaluation tells while it runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// So many scenes are captioned next and compared with what is in them.
    JudgeScenes(usize),
    /// So many images are captioned next.
    CaptionImages(usize),
    /// Something is measured on so many images next.
    Measure {
        /// What, in a word or two.
        what: &'static str,
        /// How many.
        images: usize,
    },
    /// An image is done with.
    Image,
    /// An image has no caption.
    NoCaption {
        /// Which, and why.
        image: &'a SkippedImage,
        /// Whether it was not said before that it cannot be read.
        is_news: bool,
    },
    /// The part that was announced is done with.
    Done,
    /// An image could not be read and counts in no figure.
    LeftOut(&'a SkippedImage),
}

/// Who is told.
pub type Observer<'a> = &'a mut dyn FnMut(Event<'_>);

/// What was measured without references: loss, and scenes of known truth.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// The split that was measured.
    pub split: Split,
    /// Images that could be read.
    pub images: usize,
    /// The loss.
    pub validation: Validation,
    /// Images that could not be read, those that only the layer was to be chosen on too.
    pub skipped: SkippedImages,
    /// Where the data set is one of drawn scenes.
    pub scenes: Option<Scenes>,
}

/// Validation scenes on which the layer for pointing is chosen.
const SCENES_TO_CHOOSE_ON: usize = 200;

/// Measures `split`, at most `most` images of it.
///
/// # Errors
/// A split without images, a failing device.
pub fn evaluate(
    checkpoint: &Checkpoint,
    device: &Device,
    dataset: &Dataset,
    split: Split,
    most: usize,
    config: &CaptionConfig,
    observer: Observer<'_>,
) -> Result<Evaluation, EvaluateError> {
    let records: Vec<&ImageRecord> = dataset.records_of(split).take(most).collect();
    if records.is_empty() {
        return Err(EvaluateError::NoImages { root: dataset.root.clone(), split });
    }
    let limits = DecodeLimits::default();
    let special = checkpoint.tokenizer.special_tokens();
    let max_tokens = checkpoint.model.config().decoder.max_positions;
    let loader = LoaderConfig {
        batch_size: config.batch_size,
        captions_per_image: 5,
        bucket: config.bucket,
        limits: limits.clone(),
        workers: config.workers,
        ..LoaderConfig::plain(checkpoint.preprocess.clone(), special, max_tokens)
    };
    let mut of_split = examples(dataset, split, &checkpoint.tokenizer)?;
    of_split.truncate(most);
    let validation = validate(&checkpoint.model, &of_split, &loader, EncoderStage::Pixels, device)?;
    let images = records.len() - validation.skipped.len();
    let mut skipped = validation.skipped.clone();
    let mut scenes = None;
    if records.iter().all(|record| scene_of(record).is_some()) {
        let chosen_on: Vec<&ImageRecord> =
            dataset.records_of(Split::Val).take(SCENES_TO_CHOOSE_ON).collect();
        observer(Event::JudgeScenes(records.len() + chosen_on.len()));
        let mut judge = |records: &[&ImageRecord]| {
            judge(checkpoint, device, records, config, &limits, &mut || observer(Event::Image))
        };
        let chosen = judge(&chosen_on)?;
        let layer = chosen.pointing.best_layer();
        let report = judge(&records)?;
        observer(Event::Done);
        for image in chosen.skipped.iter().chain(report.skipped.iter()) {
            skipped.add(image.clone());
        }
        scenes = Some(Scenes { report, layer });
    }
    for image in skipped.iter() {
        observer(Event::LeftOut(image));
    }
    Ok(Evaluation { split, images, validation, skipped, scenes })
}
