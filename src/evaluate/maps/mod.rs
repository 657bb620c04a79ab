//! Is a map over the image true? The pointing game where boxes are known, the grid game where they are not,
//! deletion and insertion everywhere; and which map of all is best.
//!
//! No figure proves a map. Pointing asks whether the map lies where a person would point, which the model
//! need not do. Deletion asks whether the model needs what the map shows, in photos that it never learned.

mod boxes;
mod choose;
mod grid;
mod ratio;
mod removal;
mod report;

use burn::tensor::Device;

pub use boxes::BoxScores;
pub use choose::{Choice, Ranked};
pub use grid::GridScores;
pub use ratio::Ratio;
pub use removal::{Agreement, RemovalScores};

use super::captions::first_caption;
use super::scenes::scene_of;
use super::{EvaluateError, Event, Observer};
use crate::caption::{Caption, CaptionConfig, caption_items};
use crate::checkpoint::Checkpoint;
use crate::data::shapes::Scene;
use crate::data::{Dataset, ImageRecord, SkippedImage, SkippedImages, SourceError, Split};
use crate::image::DecodeLimits;
use crate::inspect::{DefaultMap, Measure, Method, RelevanceConfig};
use crate::metrics::bootstrap::BootstrapConfig;

/// What is measured, and on how much.
#[derive(Debug, Clone, PartialEq)]
pub struct MapsConfig {
    /// These methods only, raw attention aside; all but occlusion if empty.
    pub methods: Vec<Method>,
    /// At most so many images of the split.
    pub images: usize,
    /// Of them, at most so many for deletion and insertion, which take hundreds of passes each.
    pub removal_images: usize,
    /// At most so many images of the validation split to choose the best map on.
    pub choose_images: usize,
    /// Seek the best map where the checkpoint names one, too.
    pub search: bool,
    /// Photos drawn together, words and orders follow from it.
    pub seed: u64,
    /// How intervals are drawn.
    pub bootstrap: BootstrapConfig,
}

impl Default for MapsConfig {
    fn default() -> Self {
        Self {
            methods: Vec::new(),
            images: 500,
            removal_images: 40,
            choose_images: 200,
            search: false,
            seed: 0,
            bootstrap: BootstrapConfig::default(),
        }
    }
}

/// What was found of one map.
#[derive(Debug, Clone)]
pub struct MapScores {
    /// The map.
    pub map: RelevanceConfig,
    /// Against boxes, where the data set has some.
    pub boxes: Option<BoxScores>,
    /// Two photos side by side; none where there are fewer.
    pub pairs: Option<GridScores>,
    /// Four photos.
    pub fours: Option<GridScores>,
    /// Deletion and insertion, by how patches are taken away, as [`crate::inspect::removal::Removal::ALL`].
    pub removal: Option<[RemovalScores; 2]>,
}

impl MapScores {
    fn new(map: &RelevanceConfig) -> Self {
        Self { map: map.clone(), boxes: None, pairs: None, fours: None, removal: None }
    }

    /// What it is ranked by, in `[0, 1]`.
    pub fn merit(&self, by: Measure) -> Option<f64> {
        match by {
            Measure::Pointing => self.boxes.as_ref()?.hits.value(),
            Measure::Grid => {
                let (two, four) = (self.pairs.as_ref()?.own.value()?, self.fours.as_ref());
                Some(match four.and_then(|four| four.own.value()) {
                    Some(four) => (two + four) / 2.0,
                    None => two,
                })
            }
        }
    }
}

/// What was measured of a model's maps.
#[derive(Debug, Clone)]
pub struct MapsEvaluation {
    /// The split that was measured.
    pub split: Split,
    /// Images of it.
    pub images: usize,
    /// Images of it that deletion and insertion were measured on.
    pub removal_images: usize,
    /// What maps were ranked by.
    pub by: Measure,
    /// The map that an inspection shows: what the checkpoint names, else the best found.
    pub default: DefaultMap,
    /// Whether the checkpoint names it.
    pub is_stored: bool,
    /// The best map of each method, raw attention first; the default is among them.
    pub maps: Vec<MapScores>,
    /// Place of the default among them.
    pub default_place: usize,
    /// How the best of each method was chosen.
    pub choice: Choice,
    /// Whether both ways to take patches away rank the maps alike.
    pub agreement: Option<Agreement>,
    /// Images that could not be read.
    pub skipped: SkippedImages,
    /// How intervals are drawn.
    pub bootstrap: BootstrapConfig,
}

/// Raw attention, the mean of layers and heads: what others are compared with.
pub fn raw_attention() -> RelevanceConfig {
    RelevanceConfig::new(Method::Attention)
}

/// The images, the model, and what a caption is decoded by.
struct Setup<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    decode: &'a CaptionConfig,
    seed: u64,
    limits: DecodeLimits,
}

/// An image with what the model says of it.
struct Subject<'a> {
    record: &'a ImageRecord,
    scene: Option<Scene>,
    caption: String,
    /// From the begin token on.
    ids: Vec<u32>,
}

impl Setup<'_> {
    /// Captions `records`.
    fn subjects<'r>(
        &self,
        records: &[&'r ImageRecord],
        skipped: &mut SkippedImages,
        observer: Observer<'_>,
    ) -> Result<Vec<Subject<'r>>, EvaluateError> {
        observer(Event::Measure { what: "caption", images: records.len() });
        let read = |record: &mut &ImageRecord| record.image.decode(&self.limits);
        let mut subjects = Vec::with_capacity(records.len());
        let emit = |record: &'r ImageRecord, captions: Result<Vec<Caption>, SourceError>| {
            observer(Event::Image);
            let captions = captions.map_err(|error| error.to_string());
            match captions.and_then(first_caption) {
                Ok(Caption { caption, token_ids: ids, .. }) => {
                    let scene = scene_of(record);
                    subjects.push(Subject { record, scene, caption, ids });
                }
                Err(reason) => {
                    let path = record.image.path().to_owned();
                    skipped.add(SkippedImage { path, reason });
                }
            }
            Ok::<(), EvaluateError>(())
        };
        let items = records.iter().copied();
        caption_items(self.checkpoint, self.device, items, &read, self.decode, emit)?;
        observer(Event::Done);
        Ok(subjects)
    }
}

/// Measures the maps of a model on a split.
///
/// # Errors
/// A split without images, an `inspect.json` that cannot be used, a failing device.
pub fn evaluate_maps(
    checkpoint: &Checkpoint,
    device: &Device,
    dataset: &Dataset,
    split: Split,
    config: &MapsConfig,
    decode: &CaptionConfig,
    observer: Observer<'_>,
) -> Result<MapsEvaluation, EvaluateError> {
    let records: Vec<&ImageRecord> = dataset.records_of(split).take(config.images).collect();
    if records.is_empty() {
        return Err(EvaluateError::NoImages { root: dataset.root.clone(), split });
    }
    let stored = if config.search { None } else { DefaultMap::stored(checkpoint)? };
    let limits = DecodeLimits::default();
    let setup = Setup { checkpoint, device, decode, seed: config.seed, limits };
    let by = if records.iter().all(|record| scene_of(record).is_some()) {
        Measure::Pointing
    } else {
        Measure::Grid
    };
    let mut skipped = SkippedImages::default();
    let choice =
        choose::choose(&setup, dataset, split, &records, by, config, &mut skipped, observer)?;
    let default = match &stored {
        Some(stored) => stored.clone(),
        None => choice.default_map(dataset, config.bootstrap),
    };
    let mut wanted = choice.best_of_each_method();
    if !wanted.contains(&default.map) {
        wanted.push(default.map.clone());
    }
    let mut maps: Vec<MapScores> = wanted.iter().map(MapScores::new).collect();
    measure(&setup, &records, by, &mut maps, &mut skipped, observer)?;
    let few = &records[..records.len().min(config.removal_images)];
    let removal_images = removal::measure(&setup, few, &mut maps, &mut skipped, observer)?;
    let default_place = wanted.iter().position(|map| *map == default.map).unwrap_or(0);
    let agreement = removal::agreement(&maps);
    for image in skipped.iter() {
        observer(Event::LeftOut(image));
    }
    Ok(MapsEvaluation {
        split,
        images: records.len(),
        removal_images,
        by: choice.by,
        default,
        is_stored: stored.is_some(),
        maps,
        default_place,
        choice,
        agreement,
        skipped,
        bootstrap: config.bootstrap,
    })
}

/// The games: against boxes where they are known, on several photos everywhere.
fn measure(
    setup: &Setup<'_>,
    records: &[&ImageRecord],
    by: Measure,
    maps: &mut [MapScores],
    skipped: &mut SkippedImages,
    observer: Observer<'_>,
) -> Result<(), EvaluateError> {
    if by == Measure::Pointing {
        boxes::measure(setup, records, maps, skipped, observer)?;
    }
    grid::measure(setup, records, maps, skipped, observer)
}
