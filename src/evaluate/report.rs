//! What `patchword evaluate` measured, for others to read: a page of all images, and lines for the
//! model card.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Evaluation;
use super::captions::Scored;
use super::gallery::{self, Column, Entry, Page, Picture, Score};
use super::scenes::{JudgedCaption, SceneReport, Scenes};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::atomic::{self, folder_of};
use crate::data::{ImageRecord, ImageSource, Split};
use crate::image::{DecodeLimits, thumbnail};
use crate::metrics::bootstrap::Interval;
use crate::metrics::{CIDER, NUM_SCORES};
use crate::plural::counted;

/// Pixels on the longer side of a photo in the page.
const LONGEST_SIDE: u32 = 256;

const BLEU_4: usize = 3;
const METEOR: usize = 4;
const ROUGE_L: usize = 5;

/// The scores as the page names them, those first that are looked at first.
const NAMES: [(usize, &str); NUM_SCORES] = [
    (CIDER, "CIDEr"),
    (BLEU_4, "BLEU-4"),
    (METEOR, "METEOR"),
    (ROUGE_L, "ROUGE-L"),
    (0, "BLEU-1"),
    (1, "BLEU-2"),
    (2, "BLEU-3"),
    (7, "CIDEr, plain"),
];

/// The scores that stand at each image.
const OF_IMAGE: [(usize, Column); 4] = [
    (
        CIDER,
        column(
            "cider",
            "CIDEr",
            "CIDEr of this caption (CIDEr-D, 0 to 10); the bar is full at 2",
            2.0,
        ),
    ),
    (
        BLEU_4,
        column(
            "bleu-4",
            "BLEU-4",
            "BLEU-4 of this caption alone: 0 without four words in a row that a reference has",
            1.0,
        ),
    ),
    (METEOR, column("meteor", "METEOR", "METEOR of this caption", 1.0)),
    (ROUGE_L, column("rouge-l", "ROUGE-L", "ROUGE-L of this caption", 1.0)),
];
const CONFIDENCE: Column = column(
    "confidence",
    "confidence",
    "geometric mean of the probabilities that the model gave the words of its caption",
    1.0,
);
const ERRORS: Column =
    Column { digits: 0, ..column("errors", "errors", "what is wrong with the caption", 0.0) };

const fn column(key: &'static str, name: &'static str, note: &'static str, full: f64) -> Column {
    Column { key, name, note, full, digits: 2 }
}

/// What was measured, and on what.
pub struct Report<'a> {
    /// The data set as it was named.
    pub data: &'a Path,
    /// The data set's folder.
    pub root: &'a Path,
    /// The split.
    pub split: Split,
    /// The model's folder.
    pub model: &'a Path,
    /// How captions were found, in two or three words.
    pub search: String,
    /// How captions were found: all settings that are not as usual.
    pub decoding: String,
    /// The split's images.
    pub records: &'a [&'a ImageRecord],
    /// What was measured.
    pub evaluation: &'a Evaluation,
    /// Scores, where the truth is known from captions only.
    pub scored: Option<&'a Scored>,
}

impl Report<'_> {
    /// A Markdown table of one row.
    pub fn card(&self) -> String {
        let mut cells = vec![
            ("data", dataset_name(self.data)),
            ("split", self.split.name().to_owned()),
            ("images", self.num_captioned().to_string()),
            ("decoding", self.search.clone()),
        ];
        if let Some(Scored { scores, intervals, .. }) = self.scored {
            let corpus = scores.corpus();
            let meteor =
                if scores.complete_meteor { "METEOR" } else { "METEOR (exact and stem only)" };
            let cider = match intervals[CIDER] {
                Some(Interval { low, high }) => {
                    format!("{:.3} ({low:.3} to {high:.3})", corpus[CIDER])
                }
                None => format!("{:.3}", corpus[CIDER]),
            };
            cells.push(("CIDEr (95 % interval)", cider));
            for (name, place) in [("BLEU-4", BLEU_4), ("ROUGE-L", ROUGE_L), (meteor, METEOR)] {
                cells.push((name, format!("{:.3}", corpus[place])));
            }
        }
        if let Some(scenes) = &self.evaluation.scenes {
            let report = &scenes.report;
            let pointing = report.pointing.share(scenes.layer);
            cells.push(("all right", percent(report.correct, report.scenes)));
            cells.push(("attention inside the box", format!("{:.1} %", 100.0 * pointing)));
        }
        let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let cell = |text: &str| text.replace('|', "\\|").replace(char::is_control, " ");
        let names = cells.iter().map(|(name, _)| cell(name)).collect();
        let values = cells.iter().map(|(_, value)| cell(value)).collect();
        format!("{}|{}\n{}", row(names), "---|".repeat(cells.len()), row(values))
    }

    /// Writes the page, over one that is there, with small copies of the photos or (`linked`) relative links
    /// to them; `progress` is told after each image. The file's size in bytes.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_page(
        &self,
        file: &Path,
        linked: bool,
        progress: &(dyn Fn() + Sync),
    ) -> Result<u64, CheckpointError> {
        let (page, entries) = (self.page(linked), self.entries());
        let folder = fs::canonicalize(folder_of(file))
            .map_err(|source| CheckpointError::io(file, source))?;
        let picture = |place: usize| {
            progress();
            match (self.records.get(place), entries.get(place).map(|entry| entry.caption)) {
                // Its caption says why.
                (_, Some(Err(_))) | (None, _) => Picture::Lost("no picture".into()),
                (Some(record), _) if linked && record.image.container().is_none() => {
                    match fs::canonicalize(record.image.path()) {
                        Ok(photo) => Picture::Link(gallery::link(&folder, &photo)),
                        Err(error) => Picture::Lost(error.to_string()),
                    }
                }
                (Some(record), _) => embedded(&record.image),
            }
        };
        atomic::write_file(file, |mut out| gallery::write(&page, &entries, picture, &mut out))?;
        Ok(fs::metadata(file).map_or(0, |metadata| metadata.len()))
    }

    /// Images that have a caption.
    fn num_captioned(&self) -> usize {
        match (self.scored, &self.evaluation.scenes) {
            (Some(scored), _) => scored.captioned.images.len(),
            (None, Some(scenes)) => scenes.report.captions.len(),
            (None, None) => 0,
        }
    }

    fn page(&self, linked: bool) -> Page {
        let (data, model) = (dataset_name(self.data), model_name(self.model));
        let validation = &self.evaluation.validation;
        let mut facts = vec![
            ("model".to_owned(), model.clone()),
            ("data".to_owned(), format!("{data}, {}", self.split.name())),
            ("images".to_owned(), self.records.len().to_string()),
            ("decoding".to_owned(), self.decoding.clone()),
            (
                "loss".to_owned(),
                format!(
                    "{:.4} nats a token, perplexity {:.3}",
                    validation.loss,
                    validation.perplexity()
                ),
            ),
        ];
        let (mut scores, mut columns) = (Vec::new(), Vec::new());
        if let Some(scored) = self.scored {
            let failed = scored.captioned.failed();
            if failed > 0 {
                facts.push(("without a caption".to_owned(), failed.to_string()));
            }
            facts.push(("METEOR matches".to_owned(), scored.scores.meteor_stages().to_owned()));
            facts.push(("captions".to_owned(), diversity_of(scored)));
            let corpus = scored.scores.corpus();
            scores = NAMES
                .iter()
                .map(|(place, name)| Score {
                    name: (*name).to_owned(),
                    value: format!("{:.3}", corpus[*place]),
                    below: scored.intervals[*place]
                        .map_or_else(String::new, |Interval { low, high }| {
                            format!("{low:.3} to {high:.3} (95 %)")
                        }),
                })
                .collect();
            columns = OF_IMAGE.iter().map(|(_, column)| column.clone()).collect();
            columns.push(CONFIDENCE);
        }
        if let Some(scenes) = &self.evaluation.scenes {
            let SceneReport { scenes: all, correct, complete, pointing, .. } = &scenes.report;
            let score = |name: &str, value: String, below: String| Score {
                name: name.to_owned(),
                value,
                below,
            };
            scores = vec![
                score(
                    "all right",
                    percent(*correct, *all),
                    format!("{correct} of {}", counted(*all, "caption")),
                ),
                score("… and nothing left out", percent(*complete, *all), String::new()),
                score(
                    "attention inside the box",
                    format!("{:.1} %", 100.0 * pointing.share(scenes.layer)),
                    format!("chance {:.1} %", 100.0 * pointing.chance_share()),
                ),
            ];
            columns.push(ERRORS);
        }
        let title = format!("{model} on {data}, {}", self.split.name());
        Page { title, scores, facts, columns, linked }
    }

    /// All images in the order of the data set.
    fn entries(&self) -> Vec<Entry<'_>> {
        let of_record = |record: &&ImageRecord| {
            let path = record.image.path();
            path.strip_prefix(self.root).unwrap_or(path).display().to_string()
        };
        if let Some(Scored { scores, captioned, .. }) = self.scored {
            let mut scored = captioned.images.iter().zip(scores.per_image());
            let each = self.records.iter().zip(&captioned.answers).map(|(record, answer)| {
                let (caption, values, remarks) =
                    match (answer, answer.is_ok().then(|| scored.next())) {
                        (Ok(answer), Some(Some((image, scores)))) => {
                            let mut values: Vec<Option<f64>> =
                                OF_IMAGE.iter().map(|(place, _)| Some(scores[*place])).collect();
                            values.push(answer.confidence);
                            let caption = image.caption.as_str();
                            (Ok(caption), values, remarks(caption, answer.cut_off))
                        }
                        (Err(reason), _) => (Err(reason.as_str()), Vec::new(), Vec::new()),
                        (Ok(_), _) => (Err("it was not scored"), Vec::new(), Vec::new()),
                    };
                let (name, references) = (of_record(record), record.captions.as_slice());
                Entry { name, caption, references, values, remarks }
            });
            return each.collect();
        }
        let Some(Scenes { report, .. }) = &self.evaluation.scenes else { return Vec::new() };
        let judged: HashMap<&Path, &JudgedCaption> =
            report.captions.iter().map(|judged| (judged.path.as_path(), judged)).collect();
        let each = self.records.iter().map(|record| {
            let path = record.image.path();
            let (caption, values, remarks) = match judged.get(path) {
                Some(JudgedCaption { caption, errors, .. }) => {
                    (Ok(caption.as_str()), vec![Some(errors.len() as f64)], errors.clone())
                }
                None => {
                    let reason = report.skipped.reason(path).unwrap_or("it was not judged");
                    (Err(reason), Vec::new(), Vec::new())
                }
            };
            let (name, references) = (of_record(record), record.captions.as_slice());
            Entry { name, caption, references, values, remarks }
        });
        each.collect()
    }
}

fn embedded(photo: &ImageSource) -> Picture {
    let small = photo
        .decode(&DecodeLimits::default())
        .map_err(|error| error.to_string())
        .and_then(|image| thumbnail(&image, LONGEST_SIDE).map_err(|error| error.to_string()));
    small.map_or_else(Picture::Lost, Picture::Embedded)
}

/// What a reader should look at.
fn remarks(caption: &str, cut_off: bool) -> Vec<String> {
    let words: Vec<&str> = caption.split_whitespace().collect();
    let mut seen = HashSet::new();
    let mut remarks = Vec::new();
    if words.windows(3).any(|three| !seen.insert(three)) {
        remarks.push("repeats itself".to_owned());
    }
    if cut_off {
        remarks.push("cut off: the longest that it may be".to_owned());
    }
    remarks
}

fn diversity_of(scored: &Scored) -> String {
    let diversity = &scored.scores.diversity;
    let mut text = format!(
        "{:.1} words on average, {}; {:.1} % different captions",
        diversity.mean_length,
        counted(diversity.vocabulary, "different word"),
        100.0 * diversity.unique
    );
    if let Some(novel) = diversity.novel {
        text.push_str(&format!(", {:.1} % not among the training captions", 100.0 * novel));
    }
    text
}

fn percent(part: usize, all: usize) -> String {
    format!("{:.1} %", 100.0 * part as f64 / all.max(1) as f64)
}

/// The last part of the data set's path, also where it was named `.`.
pub(super) fn dataset_name(data: &Path) -> String {
    let whole = || fs::canonicalize(data).unwrap_or_else(|_| PathBuf::from(data));
    let name =
        data.file_name().map(ToOwned::to_owned).or_else(|| Some(whole().file_name()?.into()));
    name.map_or_else(|| data.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// A public model's id, or the last part of a folder, with the run's where it is one's `best` or
/// `last`.
fn model_name(folder: &Path) -> String {
    let whole = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let mut parts: Vec<String> =
        whole.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if let Some(id) = parts.iter().rev().find_map(|part| part.strip_prefix("models--")) {
        return id.replacen("--", "/", 1);
    }
    let last = parts.pop().unwrap_or_default();
    match parts.pop() {
        Some(run) if ["best", "last"].contains(&last.as_str()) => format!("{run}/{last}"),
        _ => last,
    }
}

impl Evaluation {
    /// What was measured, in a few lines.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} of {}: loss {:.4} nats a token, perplexity {:.3}\n",
            counted(self.images, "image"),
            self.split.name(),
            self.validation.loss,
            self.validation.perplexity()
        );
        if let Some(Scenes { report, layer }) = &self.scenes {
            let percent = |count: usize| 100.0 * count as f64 / report.scenes.max(1) as f64;
            let pointing = &report.pointing;
            text.push_str(&format!(
                "captions with every object, colour and relation right: {:.1} % ({} of {})\n\
                 … and that leave no object of the scene out: {:.1} %\n\
                 attention peaks inside the object's box: {:.1} % of {} words (decoder layer {layer}; \
                 chance {:.1} %)\n",
                percent(report.correct),
                report.correct,
                report.scenes,
                percent(report.complete),
                100.0 * pointing.share(*layer),
                pointing.words,
                100.0 * pointing.chance_share(),
            ));
        }
        text
    }

    /// What was measured, for programs.
    pub fn to_json(&self) -> serde_json::Value {
        let mut value = json!({
            "split": self.split.name(),
            "images": self.images,
            "loss": self.validation.loss,
            "perplexity": self.validation.perplexity(),
        });
        if let Some(Scenes { report, layer }) = &self.scenes {
            let pointing = &report.pointing;
            let layers: Vec<f64> =
                (0..pointing.hits.len()).map(|layer| pointing.share(layer)).collect();
            let wrong: Vec<_> = report
                .captions
                .iter()
                .filter(|judged| !judged.errors.is_empty())
                .map(|judged| json!({"path": judged.path, "caption": judged.caption, "errors": judged.errors}))
                .collect();
            value["scenes"] = json!({
                "correct": report.correct,
                "complete": report.complete,
                "parsed": report.parsed,
                "pointing": {
                    "words": pointing.words,
                    "layer": layer,
                    "share": pointing.share(*layer),
                    "share_by_layer": layers,
                    "chance": pointing.chance_share(),
                },
                "wrong": wrong,
            });
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::SCORE_NAMES;

    #[test]
    fn scores_bear_their_own_names() {
        let alike = |name: &str| name.to_lowercase().replace(['_', '-', ' ', ','], "");
        let mut places: Vec<usize> = NAMES.iter().map(|(place, _)| *place).collect();
        for (place, name) in NAMES {
            assert_eq!(alike(name), alike(SCORE_NAMES[place]));
        }
        places.sort_unstable();
        assert_eq!(places, (0..NUM_SCORES).collect::<Vec<_>>());
        for (place, column) in OF_IMAGE {
            assert_eq!(alike(column.name), alike(SCORE_NAMES[place]));
            assert_eq!(column.key, column.name.to_lowercase());
        }
    }

    #[test]
    fn models_are_called_by_what_people_call_them() {
        let name = |path: &str| model_name(Path::new(path));
        assert_eq!(name("/nowhere/runs/mine/best"), "mine/best");
        assert_eq!(name("/nowhere/runs/mine"), "mine");
        assert_eq!(name("/nowhere/hub/models--a--b-c/snapshots/0123"), "a/b-c");
        assert_eq!(dataset_name(Path::new("/nowhere/flickr8k/")), "flickr8k");
        assert!(!dataset_name(Path::new(".")).starts_with('.'));
    }

    #[test]
    fn a_caption_that_goes_round_is_noticed() {
        assert!(remarks("a man in a red shirt and a red hat", false).is_empty());
        assert_eq!(remarks("a red shirt and a red shirt", false), ["repeats itself"]);
        assert_eq!(remarks("a red", true).len(), 1);
    }
}
