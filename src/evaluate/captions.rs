//! The captions of a split whose truth is known from references only, and what they are worth.

use burn::tensor::Device;
use serde_json::json;

use super::{EvaluateError, Event, Observer};
use crate::caption::{Caption, CaptionConfig, caption_items};
use crate::checkpoint::Checkpoint;
use crate::data::{ImageRecord, SkippedImage, SkippedImages};
use crate::generate::GenerateConfig;
use crate::image::{DecodeLimits, ImageError};
use crate::metrics::bootstrap::Interval;
use crate::metrics::{CIDER, CorpusScores, NUM_SCORES, ScoredImage};

/// The captions of a split and what they are worth.
#[derive(Debug)]
pub struct Scored {
    /// The scores.
    pub scores: CorpusScores,
    /// Their 95 % intervals.
    pub intervals: [Option<Interval>; NUM_SCORES],
    /// The captions.
    pub captioned: CaptionedSplit,
}

/// The captions of a split's images.
#[derive(Debug, Default)]
pub struct CaptionedSplit {
    /// Those that have a caption.
    pub images: Vec<ScoredImage>,
    /// Of every image, what else is known of its caption, or why it has none.
    pub answers: Vec<Result<Answer, String>>,
}

/// What the model thinks of its caption.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Geometric mean of the words' probabilities, in `[0, 1]`; `None` without words.
    pub confidence: Option<f64>,
    /// Whether it ended because it could not be longer.
    pub cut_off: bool,
}

impl Answer {
    fn of(caption: &Caption, checkpoint: &Checkpoint, decode: &GenerateConfig) -> Self {
        let end = checkpoint.tokenizer.special_tokens().eos;
        let ends = |id: &u32| *id == end || decode.eos_token_ids.contains(id);
        Self {
            confidence: caption.confidence(),
            cut_off: !caption.token_ids.last().is_some_and(ends),
        }
    }
}

/// Images that the best and the worst are shown of.
const EXTREMES: usize = 5;

impl CaptionedSplit {
    /// How many images could not be read.
    pub fn failed(&self) -> usize {
        self.answers.iter().filter(|answer| answer.is_err()).count()
    }

    /// Names and captions.
    pub fn pairs(&self) -> impl Iterator<Item = (String, &String)> {
        self.images.iter().map(|image| (image.id.clone(), &image.caption))
    }

    /// Images with their CIDEr, the best or the worst first.
    fn extremes(&self, scores: &CorpusScores, best: bool) -> Vec<(f64, &ScoredImage)> {
        let ciders = scores.per_image().map(|scores| scores[CIDER]);
        let mut images: Vec<(f64, &ScoredImage)> = ciders.zip(&self.images).collect();
        images.sort_by(|a, b| if best { b.0.total_cmp(&a.0) } else { a.0.total_cmp(&b.0) });
        // None is among the best and among the worst.
        images.truncate(EXTREMES.min((images.len() / 2).max(1)));
        images
    }

    /// The best and the worst captions, a line each.
    pub fn extremes_text(&self, scores: &CorpusScores) -> String {
        let mut text = String::new();
        for (title, best) in [("best", true), ("worst", false)] {
            text.push_str(&format!("{title} by CIDEr:\n"));
            for (cider, ScoredImage { id, caption, references }) in self.extremes(scores, best) {
                let reference = references.first().map_or("", String::as_str);
                text.push_str(&format!("  {cider:.2}  {id}: {caption} | {reference}\n"));
            }
        }
        text
    }

    /// The best or the worst captions.
    pub fn extremes_json(&self, scores: &CorpusScores, best: bool) -> serde_json::Value {
        let extremes = self.extremes(scores, best);
        let each = extremes.iter().map(|(cider, ScoredImage { id, caption, references })| {
            json!({ "path": id, "CIDEr": cider, "caption": caption, "references": references })
        });
        each.collect()
    }
}

/// Captions `records`; of those that are `known` to be unreadable nothing is said again.
///
/// # Errors
/// A failing device.
pub fn caption_split(
    checkpoint: &Checkpoint,
    device: &Device,
    records: &[&ImageRecord],
    known: &SkippedImages,
    config: &CaptionConfig,
    observer: Observer<'_>,
) -> Result<CaptionedSplit, EvaluateError> {
    observer(Event::CaptionImages(records.len()));
    let limits = DecodeLimits::default();
    let read = |record: &mut &ImageRecord| record.image.decode(&limits);
    let mut captioned = CaptionedSplit::default();
    let emit = |record: &ImageRecord, result: Result<Vec<Caption>, ImageError>| {
        let first = result.map_err(|error| error.to_string()).and_then(first_caption);
        let answer = first.map(|caption| {
            let answer = Answer::of(&caption, checkpoint, &config.generate);
            captioned.images.push(ScoredImage {
                id: record.image.path().display().to_string(),
                caption: caption.caption,
                references: record.captions.clone(),
            });
            answer
        });
        match &answer {
            Ok(_) => observer(Event::Image),
            Err(reason) => {
                let (path, reason) = (record.image.path().to_owned(), reason.clone());
                let is_news = known.reason(&path).is_none();
                observer(Event::NoCaption { image: &SkippedImage { path, reason }, is_news });
            }
        }
        captioned.answers.push(answer);
        Ok::<(), EvaluateError>(())
    };
    caption_items(checkpoint, device, records.iter().copied(), &read, config, emit)?;
    observer(Event::Done);
    Ok(captioned)
}

/// The only caption, or that there is none.
pub(super) fn first_caption(captions: Vec<Caption>) -> Result<Caption, String> {
    captions.into_iter().next().ok_or_else(|| "the model gave no caption".into())
}
