//! `patchword score`: how good captions are, against what people wrote.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::Outcome;
use super::console::Console;
use super::error::CliError;
use crate::checkpoint::{CheckpointError, atomic};
use crate::data::{DatasetFormat, detect};
use crate::metrics::bootstrap::{BootstrapConfig, Interval};
use crate::metrics::files::{Predictions, References};
use crate::metrics::{
    Comparison, CorpusScores, NUM_SCORES, SCORE_NAMES, ScoreConfig, ScoredImage, score,
};
use crate::plural::counted;

/// Score captions as coco-caption does: BLEU, METEOR, ROUGE-L, CIDEr
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword score --references dataset_flickr8k.json --split val --predictions captions.jsonl
  patchword score --references captions_val2017.json --predictions results.json --json
  patchword score --references refs.json --predictions mine.json --compare theirs.json

References: Karpathy's JSON, COCO captions JSON, {id: [captions]} (pycocoevalcap's too), JSON, JSONL or CSV \
with file_name and caption (or text), Kaggle's captions.txt, Flickr's token files. Predictions: COCO results \
[{image_id, caption}], JSONL or lines of a path, a tab and a caption, as `patchword caption` writes them, {id: \
caption}, and the other forms of references (generated_text and prediction are captions too). Any encoding.

A prediction is for the image of its name; else of its file name, of several the one whose folders fit best; else \
of that without extension; else of its number (42 is COCO_val2014_000000000042.jpg).

CIDEr is coco-caption's, which is CIDEr-D; CIDEr_plain is neither clipped nor penalised for length. \
METEOR without --meteor-data matches exactly and by stem only, and is not coco-caption's.")]
pub(super) struct ScoreArgs {
    /// What people wrote
    #[arg(long, short, value_name = "FILE")]
    references: PathBuf,
    /// The captions to score
    #[arg(long, short, value_name = "FILE")]
    predictions: PathBuf,
    /// Of Karpathy's JSON, the split to score
    #[arg(long, value_name = "SPLIT")]
    split: Option<String>,
    /// Other captions of the same images: the difference of each score, with its p-value
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// METEOR 1.5's jar (paraphrase-en.gz beside it or in data/ there) or what it unpacks to
    #[arg(long, value_name = "PATH")]
    meteor_data: Option<PathBuf>,
    /// The training captions, as references, to tell new captions [default: the other splits' train]
    #[arg(long, value_name = "FILE")]
    training: Option<PathBuf>,
    /// Write each image's scores, one JSON object a line; a file of that name is replaced
    #[arg(long, value_name = "FILE")]
    per_image: Option<PathBuf>,
    /// Captions are tokens separated by spaces already
    #[arg(long)]
    tokenized: bool,
    /// Leave out images that have no prediction
    #[arg(long)]
    allow_missing: bool,
    /// Leave out predictions for no image of the references
    #[arg(long)]
    allow_extra: bool,
    /// Draws of the bootstrap, for intervals and p-values; 0 for none
    #[arg(long, value_name = "N", default_value_t = BootstrapConfig::default().resamples)]
    resamples: usize,
    /// The seed of those draws
    #[arg(long, default_value_t = BootstrapConfig::default().seed)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: ScoreArgs, console: &Console) -> Result<Outcome, CliError> {
    let references = read_references(&arguments.references, arguments.split.as_deref())?;
    if !references.without_captions.is_empty() {
        console
            .warn(format_args!("images without references: {}", Few(&references.without_captions)));
    }
    let mut images = read_predictions(&arguments, &arguments.predictions, &references, console)?;
    let mut others = arguments
        .compare
        .as_ref()
        .map(|path| read_predictions(&arguments, path, &references, console))
        .transpose()?;
    if let Some(others) = &mut others {
        // Only what both have can be compared; without --allow-missing both have all.
        let has = |images: &[ScoredImage]| -> std::collections::HashSet<String> {
            images.iter().map(|image| image.id.clone()).collect()
        };
        let (first, second) = (has(&images), has(others));
        images.retain(|image| second.contains(&image.id));
        others.retain(|image| first.contains(&image.id));
    }
    if images.is_empty() {
        return Err(CliError::new("no image has a prediction"));
    }
    let training = match &arguments.training {
        Some(path) => Some(read_references(path, None)?.into_captions()),
        None => references.training,
    };
    let config = ScoreConfig {
        tokenized: arguments.tokenized,
        meteor_data: arguments.meteor_data.as_deref(),
        training: training.as_deref(),
    };
    let bootstrap = BootstrapConfig { resamples: arguments.resamples, seed: arguments.seed };
    warn_of_few(images.len(), console);
    let scores = score(&images, config)?;
    let intervals = scores.intervals(bootstrap);
    let mut compared = None;
    if let Some(others) = &others {
        let other_scores = score(others, config)?;
        if let Some(comparison) = scores.compare(&other_scores, bootstrap) {
            compared = Some((other_scores, comparison));
        }
    }
    if let Some(path) = &arguments.per_image {
        write_per_image(path, &scores)?;
    }
    let mut stdout = console.stdout();
    if arguments.json {
        let mut value = to_json(&scores, &intervals);
        if let Some((other_scores, comparison)) = &compared {
            value["compare"] = comparison_json(other_scores, comparison);
        }
        writeln!(stdout, "{value:#}")?;
    } else {
        stdout.write_all(to_text(&scores, &intervals, compared.as_ref()).as_bytes())?;
    }
    Ok(Outcome::Complete)
}

/// Reads references; of a folder it is said which file of it to name, or what else to do.
fn read_references(path: &Path, split: Option<&str>) -> Result<References, CliError> {
    References::read(path, split).map_err(|error| {
        let error = CliError::from(error);
        if !path.is_dir() {
            return error;
        }
        let folder = path.display();
        error.hint(match detect(path) {
            Ok(DatasetFormat::Karpathy | DatasetFormat::Coco) => {
                format!("references are one file: name the JSON file of captions in {folder}")
            }
            _ => format!(
                "references are one file: Karpathy's JSON, COCO captions JSON, {{id: [captions]}}, metadata.jsonl \
                 or CSV; \
                 `patchword evaluate --model MODEL --data {folder}` captions the images of a data set \
                 in a folder and scores the captions"
            ),
        })
    })
}

/// The images that the predictions at `path` are for.
fn read_predictions(
    arguments: &ScoreArgs,
    path: &Path,
    references: &References,
    console: &Console,
) -> Result<Vec<ScoredImage>, CliError> {
    let matched = references.bring_together(&Predictions::read(path)?)?;
    let path = path.display();
    let (mut problems, mut flags) = (Vec::new(), Vec::new());
    for (names, allowed, what, flag) in [
        (&matched.missing, arguments.allow_missing, "no caption for", "--allow-missing"),
        (
            &matched.extra,
            arguments.allow_extra,
            "captions for images that have no references:",
            "--allow-extra",
        ),
    ] {
        if names.is_empty() {
            continue;
        }
        let problem = format!("{what} {}", Few(names));
        if allowed {
            console.warn(format_args!("left out: {path}: {problem}"));
        } else {
            problems.push(problem);
            flags.push(flag);
        }
    }
    if problems.is_empty() {
        return Ok(matched.images);
    }
    let leave = if flags.len() == 1 { "leaves" } else { "leave" };
    let leave = format!("{} {leave} them out", flags.join(" and "));
    Err(CliError::new(format_args!("{path}: {}", problems.join("; "))).hint(match matched.split {
        Some(split) if arguments.split.is_none() => {
            format!("all of them are of one split: --split {split}; or {leave}")
        }
        _ => leave,
    }))
}

/// Images below which a CIDEr says little.
const FEW: usize = 100;

/// Says so where there are too few images; shared with `patchword evaluate`.
pub(super) fn warn_of_few(images: usize, console: &Console) {
    if (1..FEW).contains(&images) {
        let images = counted(images, "image");
        console.warn(format_args!(
            "CIDEr of {images} is not comparable with that of more: it weighs each word by how few images have \
             it in their references"
        ));
    }
}

/// The first few of many names, and how many there are.
struct Few<'a>(&'a [String]);

impl fmt::Display for Few<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        let first = &self.0[..self.0.len().min(SHOWN)];
        write!(f, "{}", first.join(", "))?;
        if self.0.len() > SHOWN {
            write!(f, " … ({} in all)", self.0.len())?;
        }
        Ok(())
    }
}

fn scores_json(scores: [f64; NUM_SCORES]) -> Map<String, Value> {
    SCORE_NAMES.iter().zip(scores).map(|(name, score)| ((*name).to_owned(), json!(score))).collect()
}

fn interval_json(interval: Option<Interval>) -> Value {
    interval.map_or(Value::Null, |interval| json!([interval.low, interval.high]))
}

/// Scores with their intervals; shared with `patchword evaluate`.
pub(super) fn to_json(scores: &CorpusScores, intervals: &[Option<Interval>; NUM_SCORES]) -> Value {
    let mut value = scores_json(scores.corpus());
    let cider = value.get("CIDEr").cloned().unwrap_or_default();
    value.insert("CIDEr_D".to_owned(), cider);
    value.insert("METEOR_stages".to_owned(), json!(scores.meteor_stages()));
    value.insert("images".to_owned(), json!(scores.ids.len()));
    let intervals: Map<String, Value> = SCORE_NAMES
        .iter()
        .zip(intervals)
        .map(|(name, interval)| ((*name).to_owned(), interval_json(*interval)))
        .collect();
    value.insert("interval_95".to_owned(), Value::Object(intervals));
    let diversity = &scores.diversity;
    let [distinct_1, distinct_2, distinct_3, distinct_4] = diversity.distinct;
    let diversity = json!({
        "distinct_1": distinct_1,
        "distinct_2": distinct_2,
        "distinct_3": distinct_3,
        "distinct_4": distinct_4,
        "vocabulary": diversity.vocabulary,
        "mean_length": diversity.mean_length,
        "unique": diversity.unique,
        "novel": diversity.novel,
    });
    value.insert("diversity".to_owned(), diversity);
    Value::Object(value)
}

fn comparison_json(other: &CorpusScores, comparison: &[Comparison; NUM_SCORES]) -> Value {
    let mut value = scores_json(other.corpus());
    let differences: Map<String, Value> = SCORE_NAMES
        .iter()
        .zip(comparison)
        .map(|(name, compared)| {
            let compared = json!({
                "difference": compared.difference,
                "interval_95": interval_json(compared.interval),
                "p_value": compared.p_value,
            });
            ((*name).to_owned(), compared)
        })
        .collect();
    value.insert("differences".to_owned(), Value::Object(differences));
    Value::Object(value)
}

/// The same as a table.
pub(super) fn to_text(
    scores: &CorpusScores,
    intervals: &[Option<Interval>; NUM_SCORES],
    compared: Option<&(CorpusScores, [Comparison; NUM_SCORES])>,
) -> String {
    let range = |interval: &Option<Interval>| {
        interval.map_or_else(String::new, |Interval { low, high }| format!("{low:.4} to {high:.4}"))
    };
    let mut text = format!("{:<12} {:>7}  {:<18}", "", "score", "95 % interval");
    if compared.is_some() {
        text.push_str(&format!(" {:>7} {:>8}  {:<19} {}", "other", "gain", "95 % interval", "p"));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    for (place, (name, score)) in SCORE_NAMES.iter().zip(scores.corpus()).enumerate() {
        let mut line = format!("{name:<12} {score:>7.4}  {:<18}", range(&intervals[place]));
        if let Some((other, comparison)) = compared {
            let Comparison { difference, interval, p_value, is_least } = comparison[place];
            let sign = if is_least { "≤ " } else { "" };
            let p_value = p_value.map_or_else(String::new, |p| format!("{sign}{p:.4}"));
            let other = other.corpus()[place];
            line.push_str(&format!(
                " {other:>7.4} {difference:>+8.4}  {:<19} {p_value}",
                range(&interval)
            ));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let diversity = &scores.diversity;
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    text.push_str(&format!(
        "{}; METEOR matches: {}\n\
         captions: {:.1} words, {}, {} of the captions different\n\
         distinct 1- to 4-grams: {}\n",
        counted(scores.ids.len(), "image"),
        scores.meteor_stages(),
        diversity.mean_length,
        counted(diversity.vocabulary, "different word"),
        percent(diversity.unique),
        diversity.distinct.map(percent).join(", "),
    ));
    if compared.is_some() {
        text.push_str("gain: what the other captions score more, with its interval and p-value (paired bootstrap)\n");
    }
    if let Some(novel) = diversity.novel {
        text.push_str(&format!("not among the training captions: {}\n", percent(novel)));
    }
    text
}

fn write_per_image(path: &Path, scores: &CorpusScores) -> Result<(), CheckpointError> {
    let lines = scores.ids.iter().zip(&scores.captions).zip(scores.per_image());
    atomic::write_file(path, |out| {
        for ((id, caption), of_image) in lines {
            let id_and_tokens =
                [("id".to_owned(), json!(id)), ("tokens".to_owned(), json!(caption))];
            let mut line = Map::from_iter(id_and_tokens);
            line.extend(scores_json(of_image));
            writeln!(out, "{}", Value::Object(line))?;
        }
        Ok(())
    })
}
