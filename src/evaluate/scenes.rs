//! Captions of drawn scenes against the truth: is every object, colour and relation right, and does
//! the attention of a word lie on its object?

use std::path::PathBuf;

use burn::tensor::Device;

use super::EvaluateError;
use super::captions::first_caption;
use crate::caption::{Caption, CaptionConfig, caption_items};
use crate::checkpoint::Checkpoint;
use crate::data::shapes::{Scene, check_caption, grounded_words};
use crate::data::{ImageRecord, ImageSource, SkippedImage, SkippedImages};
use crate::image::{DecodeLimits, ImageError};
use crate::inspect::pointing::{chance, inside, peak};
use crate::inspect::{Inspection, inspect_tokens};

/// What was measured on scenes of known truth.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenes {
    /// The captions against the truth.
    pub report: SceneReport,
    /// The decoder layer whose attention points best, chosen on the validation split.
    pub layer: usize,
}

/// Captions of scenes, judged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SceneReport {
    /// Scenes captioned.
    pub scenes: usize,
    /// Captions in which everything that is said is true.
    pub correct: usize,
    /// Captions that the checker can parse.
    pub parsed: usize,
    /// Correct captions that name every object.
    pub complete: usize,
    /// The pointing game over the words of correct captions.
    pub pointing: Pointing,
    /// Each caption: image, text, and what is wrong with it.
    pub captions: Vec<JudgedCaption>,
    /// Images that could not be read, and are not among the scenes.
    pub skipped: SkippedImages,
}

/// One caption and its verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedCaption {
    /// The image.
    pub path: PathBuf,
    /// What the model said.
    pub caption: String,
    /// What is wrong; empty if nothing.
    pub errors: Vec<String>,
}

/// Hits of the pointing game for each decoder layer (mean of its heads).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pointing {
    /// Object and colour words looked at.
    pub words: usize,
    /// For each layer, words whose strongest patch lies in their object's box.
    pub hits: Vec<usize>,
    /// Sum over words of the share of patches whose centre lies in the box.
    pub chance: f64,
}

impl Pointing {
    /// The layer with most hits.
    pub fn best_layer(&self) -> usize {
        let most = self.hits.iter().max();
        self.hits.iter().position(|hits| Some(hits) == most).unwrap_or(0)
    }

    /// Share of words whose maximum in `layer` lies in the box, in `[0, 1]`.
    pub fn share(&self, layer: usize) -> f64 {
        self.hits.get(layer).copied().unwrap_or(0) as f64 / self.words.max(1) as f64
    }

    /// The share that random patches would reach, in `[0, 1]`.
    pub fn chance_share(&self) -> f64 {
        self.chance / self.words.max(1) as f64
    }

    fn add(&mut self, inspection: &Inspection, scene: &Scene) {
        let layers = inspection.words.first().map_or(0, |word| word.layers.len());
        self.hits.resize(layers, 0);
        let places = Places::new(inspection);
        let (rows, cols, region) = (inspection.rows, inspection.cols, inspection.region);
        for grounded in grounded_words(&inspection.caption, scene) {
            let Some(word) = places.of(grounded.index).map(|at| &inspection.words[at]) else {
                continue;
            };
            let bbox = grounded.bbox.map(|edge| edge as f32);
            self.words += 1;
            self.chance += chance(rows, cols, region, bbox);
            for (layer, hits) in self.hits.iter_mut().enumerate() {
                let map = word.layer_mean(layer);
                *hits += usize::from(inside(peak(&map, rows, cols, region), bbox));
            }
        }
    }
}

/// Where the words of a caption, split at white space, are among those of its inspection. The two may be
/// split at other places: they meet at letters.
pub(super) struct Places {
    inspected: Vec<usize>,
    written: Vec<usize>,
}

impl Places {
    pub(super) fn new(inspection: &Inspection) -> Self {
        Self {
            inspected: starts(inspection.words.iter().map(|word| word.word.as_str())),
            written: starts(inspection.caption.split_whitespace()),
        }
    }

    /// Of the word at `index` of the caption.
    pub(super) fn of(&self, index: usize) -> Option<usize> {
        let start = *self.written.get(index)?;
        self.inspected.partition_point(|&other| other <= start).checked_sub(1)
    }
}

/// The number of non-blank characters before each word.
fn starts<'a>(words: impl Iterator<Item = &'a str>) -> Vec<usize> {
    words
        .scan(0, |count, word| {
            let start = *count;
            *count += word.chars().filter(|c| !c.is_whitespace()).count();
            Some(start)
        })
        .collect()
}

/// The scene that a record of the shapes data set carries.
pub fn scene_of(record: &ImageRecord) -> Option<Scene> {
    Scene::from_json(record.grounding.as_ref()?.get("scene")?).ok()
}

/// Captions every record that carries a scene and judges what is said. `progress` is told after each
/// image.
///
/// # Errors
/// A failing device.
pub fn judge(
    checkpoint: &Checkpoint,
    device: &Device,
    records: &[&ImageRecord],
    config: &CaptionConfig,
    limits: &DecodeLimits,
    progress: &mut dyn FnMut(),
) -> Result<SceneReport, EvaluateError> {
    let scenes =
        records.iter().filter_map(|record| Some((record.image.clone(), scene_of(record)?)));
    let mut report = SceneReport::default();
    let read = |(image, _): &mut (ImageSource, Scene)| image.decode(limits);
    let judge_one = |(image, scene): (ImageSource, Scene),
                     captions: Result<Vec<Caption>, ImageError>|
     -> Result<(), EvaluateError> {
        progress();
        let path = image.path().to_owned();
        let captions = captions.map_err(|error| error.to_string());
        let judged = captions.and_then(first_caption).and_then(|caption| {
            let verdict = check_caption(&caption.caption, &scene);
            // Decoded again, since photos are not kept once they are captioned.
            let photo = verdict.correct.then(|| image.decode(limits)).transpose();
            Ok((caption, verdict, photo.map_err(|error| error.to_string())?))
        });
        let (caption, verdict, photo) = match judged {
            Ok(judged) => judged,
            Err(reason) => {
                report.skipped.add(SkippedImage { path, reason });
                return Ok(());
            }
        };
        if let Some(photo) = photo {
            let inspection = inspect_tokens(checkpoint, device, &photo, &caption.token_ids)?;
            report.pointing.add(&inspection, &scene);
        }
        report.scenes += 1;
        report.correct += usize::from(verdict.correct);
        report.parsed += usize::from(verdict.parsed);
        report.complete += usize::from(verdict.complete);
        report.captions.push(JudgedCaption {
            path,
            caption: caption.caption,
            errors: verdict.errors,
        });
        Ok(())
    };
    caption_items(checkpoint, device, scenes, &read, config, judge_one)?;
    Ok(report)
}
