//! `patchword evaluate`: how good a captioner is on a split.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::Outcome;
use super::console::Console;
use super::decode::DecodeArgs;
use super::device::DeviceArgs;
use super::error::{CliError, Context};
use super::image_size::ImageSizeArgs;
use super::model_args::ModelArgs;
use super::progress::Progress;
use super::report::{HtmlImages, Report, check_place};
use super::score::{to_json as scores_as_json, to_text as scores_as_text, warn_of_few};
use crate::caption::{Caption, CaptionConfig, Captioned, Prompt, caption_all};
use crate::checkpoint::{self, Checkpoint, Location};
use crate::data::{
    Dataset, DatasetFormat, ImageRecord, ImageSource, LoadOptions, LoaderConfig, SkippedImages,
    Split, examples, load,
};
use crate::device::{Resolved, length_bucket};
use crate::evaluate::scenes::{SceneReport, judge, scene_of};
use crate::generate::GenerateConfig;
use crate::image::DecodeLimits;
use crate::metrics::bootstrap::{BootstrapConfig, Interval};
use crate::metrics::{CIDER, CorpusScores, NUM_SCORES, ScoreConfig, ScoredImage, score};
use crate::model::EncoderStage;
use crate::plural::counted;
use crate::train::{Validation, held_out, validate};

/// Measure a captioner on a split of a data set
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword evaluate --model checkpoints/mine --data ~/my-photos
  patchword evaluate --model checkpoints/mine --data ~/my-photos --html captions.html
  patchword evaluate --model checkpoints/shapes --data datasets/shapes --split test

Prints loss and perplexity of the split's captions; then captions its images and scores that as \
`patchword score` does, with the best and the worst of them and a table for the model card. --html writes \
a page of all images with captions, references and scores, to sort, search and filter. On scenes of \
coloured shapes, whose truth is known, it is the share of captions in which every object, colour and \
relation is right instead, and how often a word's attention peaks inside its object's box (the decoder \
layer is chosen on the validation split).")]
pub(super) struct EvaluateArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The data set
    #[arg(long, short, value_name = "PATH")]
    data: PathBuf,
    /// Its format, if it is not to be recognised by looking
    #[arg(long, value_name = "FORMAT")]
    dataset_format: Option<DatasetFormat>,
    /// The split: train, val or test
    #[arg(long, default_value = "val")]
    split: Split,
    /// Share of the images that is `val` where the data set has no split of its own [default: what
    /// the model's run held out, if it was trained on this data set, else 0.05]
    #[arg(long, value_name = "SHARE")]
    val_share: Option<f64>,
    /// Measure on the first N images only
    #[arg(long, value_name = "N")]
    images: Option<NonZeroUsize>,
    /// Write the captions, for `patchword score --predictions`, one JSON object a line; as with
    /// --html, a file of that name is replaced
    #[arg(long, value_name = "FILE")]
    captions: Option<PathBuf>,
    /// Write a page of all images with captions, references and scores: one file for any browser
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// In that page, small copies of the photos, or relative links to the photos themselves
    #[arg(long, value_name = "HOW", value_enum, default_value_t, requires = "html")]
    html_images: HtmlImages,
    /// METEOR 1.5's jar (paraphrase-en.gz beside it or in data/ there) or what it unpacks to
    #[arg(long, value_name = "PATH")]
    meteor_data: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    image_size: ImageSizeArgs,
    #[command(flatten)]
    decode: DecodeArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Validation scenes on which the layer for pointing is chosen.
const SCENES_TO_CHOOSE_ON: usize = 200;

/// The data set, split as it was for the model's training, if that was on it.
fn load_split(
    arguments: &EvaluateArgs,
    location: &Location,
    console: &Console,
) -> Result<Dataset, CliError> {
    let usual = LoadOptions::default();
    let checkpoint = match location {
        Location::Path(path) => checkpoint::locate(path).ok(),
        _ => None,
    };
    let held_out = checkpoint.and_then(|folder| held_out(&folder, &arguments.data));
    let val_share = arguments.val_share.or(held_out).unwrap_or(usual.val_share);
    let options = LoadOptions { format: arguments.dataset_format, val_share, ..usual };
    let dataset = load(&arguments.data, &options)?;
    if let Some(held_out) = held_out.filter(|&held_out| held_out != val_share) {
        console.warn(format_args!(
            "--val-share is {val_share}, but the model's run held out {held_out} of these images: what is \
             measured is not what it has not seen, unless the data set has a split of its own"
        ));
    }
    Ok(dataset)
}

pub(super) fn run(arguments: EvaluateArgs, console: &Console) -> Result<Outcome, CliError> {
    for file in arguments.captions.iter().chain(&arguments.html) {
        check_place(file)?;
    }
    let location = arguments.model.locate(console)?;
    let dataset = load_split(&arguments, &location, console)?;
    let device = arguments.device.open(console)?;
    let options = arguments.image_size.load_options();
    let checkpoint = checkpoint::load_with(&location, &device.device, &options)?;
    let config = CaptionConfig {
        batch_size: 32,
        generate: arguments.decode.over(&checkpoint, Some(1))?,
        bucket: length_bucket(&device.device),
        workers: 2,
        prompt: Prompt::default(),
    };
    let most = arguments.images.map_or(usize::MAX, NonZeroUsize::get);
    let evaluation =
        evaluate(&checkpoint, &device, &dataset, arguments.split, most, &config, console)?;
    let records = dataset.records_of(arguments.split).take(most);
    let records: Vec<&ImageRecord> = records.collect();
    let mut scored = None;
    if evaluation.scenes.is_none() {
        let captioned =
            caption_split(&checkpoint, &device, &records, &evaluation.skipped, &config, console)?;
        let training: Vec<String> = dataset
            .records_of(Split::Train)
            .flat_map(|record| record.captions.iter().cloned())
            .collect();
        let settings = ScoreConfig {
            tokenized: false,
            meteor_data: arguments.meteor_data.as_deref(),
            training: (arguments.split != Split::Train).then_some(training.as_slice()),
        };
        // Hours of captioning outlive a METEOR that cannot be computed.
        if let Some(file) = &arguments.captions {
            write_captions(file, captioned.pairs())?;
        }
        warn_of_few(captioned.images.len(), console);
        let scores = score(&captioned.images, settings)?;
        let intervals = scores.intervals(BootstrapConfig::default());
        scored = Some(Scored { scores, intervals, captioned });
    } else if let (Some(file), Some(scenes)) = (&arguments.captions, &evaluation.scenes) {
        let judged = scenes.report.captions.iter();
        write_captions(file, judged.map(|one| (one.path.display().to_string(), &one.caption)))?;
    }
    let report = Report {
        data: &arguments.data,
        root: &dataset.root,
        split: arguments.split,
        model: &checkpoint.folder,
        decode: &config.generate,
        records: &records,
        evaluation: &evaluation,
        scored: scored.as_ref(),
    };
    if let Some(file) = &arguments.html {
        report.write_page(file, arguments.html_images, console)?;
    }
    let mut stdout = console.stdout();
    if arguments.json {
        let mut value = evaluation.to_json();
        if let Some(Scored { scores, intervals, captioned }) = &scored {
            value["scores"] = scores_as_json(scores, intervals);
            value["best"] = captioned.extremes_json(scores, true);
            value["worst"] = captioned.extremes_json(scores, false);
        }
        value["model_card"] = json!(report.card());
        writeln!(stdout, "{value:#}")?;
    } else {
        let mut text = evaluation.to_text();
        if let Some(Scored { scores, intervals, captioned }) = &scored {
            text.push_str(&scores_as_text(scores, intervals, None));
            text.push_str(&captioned.extremes_text(scores));
        }
        text.push_str(&format!("for the model card:\n{}", report.card()));
        stdout.write_all(text.as_bytes())?;
    }
    let uncaptioned = scored.map_or(0, |scored| scored.captioned.failed());
    Ok(match uncaptioned + evaluation.skipped.len() {
        0 => Outcome::Complete,
        _ => Outcome::SomeInputsFailed,
    })
}

/// The captions of a split and what they are worth; shared with what reports them.
pub(super) struct Scored {
    pub(super) scores: CorpusScores,
    pub(super) intervals: [Option<Interval>; NUM_SCORES],
    pub(super) captioned: CaptionedSplit,
}

/// The captions of a split's images.
pub(super) struct CaptionedSplit {
    /// Those that have a caption.
    pub(super) images: Vec<ScoredImage>,
    /// Of every image, what else is known of its caption, or why it has none.
    pub(super) answers: Vec<Result<Answer, String>>,
}

/// What the model thinks of its caption.
pub(super) struct Answer {
    /// Geometric mean of the words' probabilities, in `[0, 1]`; `None` without words.
    pub(super) confidence: Option<f64>,
    /// Whether it ended because it could not be longer.
    pub(super) cut_off: bool,
}

impl Answer {
    fn of(caption: &Caption, checkpoint: &Checkpoint, decode: &GenerateConfig) -> Self {
        let logarithms = caption.words.iter().map(|word| f64::from(word.probability).ln());
        let mean = logarithms.sum::<f64>() / caption.words.len() as f64;
        let end = checkpoint.tokenizer.special_tokens().eos;
        let ends = |id: &u32| *id == end || decode.eos_token_ids.contains(id);
        Self {
            confidence: Some(mean.exp()).filter(|confidence| confidence.is_finite()),
            cut_off: !caption.token_ids.last().is_some_and(ends),
        }
    }
}

/// Images that the best and the worst are shown of.
const EXTREMES: usize = 5;

impl CaptionedSplit {
    /// How many images could not be read.
    pub(super) fn failed(&self) -> usize {
        self.answers.iter().filter(|answer| answer.is_err()).count()
    }

    /// Names and captions.
    fn pairs(&self) -> impl Iterator<Item = (String, &String)> {
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

    fn extremes_text(&self, scores: &CorpusScores) -> String {
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

    fn extremes_json(&self, scores: &CorpusScores, best: bool) -> serde_json::Value {
        let extremes = self.extremes(scores, best);
        let each = extremes.iter().map(|(cider, ScoredImage { id, caption, references })| {
            json!({ "path": id, "CIDEr": cider, "caption": caption, "references": references })
        });
        each.collect()
    }
}

/// Captions `records`; of those that are `known` to be unreadable nothing is said again.
fn caption_split(
    checkpoint: &Checkpoint,
    device: &Resolved,
    records: &[&ImageRecord],
    known: &SkippedImages,
    config: &CaptionConfig,
    console: &Console,
) -> Result<CaptionedSplit, CliError> {
    let progress = Progress::new(console, "caption", Some(records.len() as u64), "images");
    let limits = DecodeLimits::default();
    // Captioning goes by paths; of a table or an archive they lead into it.
    let sources: HashMap<&Path, &ImageSource> =
        records.iter().map(|record| (record.image.path(), &record.image)).collect();
    let read = |path: &PathBuf| match sources.get(path.as_path()) {
        Some(source) => source.decode(&limits).map_err(|error| error.to_string()),
        None => Err(format!("{}: not an image of the data set", path.display())),
    };
    let mut captioned = CaptionedSplit { images: Vec::new(), answers: Vec::new() };
    let mut place = 0;
    let emit = |result: Captioned| -> Result<(), CliError> {
        let record = records[place];
        place += 1;
        let answer = result.first().map(|caption| {
            let answer = Answer::of(&caption, checkpoint, &config.generate);
            captioned.images.push(ScoredImage {
                id: record.image.path().display().to_string(),
                caption: caption.caption,
                references: record.captions.clone(),
            });
            answer
        });
        match &answer {
            Ok(_) => progress.advance(1),
            Err(reason) => {
                if known.reason(record.image.path()).is_none() {
                    progress.suspend(|| console.warn(format_args!("no caption: {reason}")));
                }
                progress.advance_failed(1);
            }
        }
        captioned.answers.push(answer);
        Ok(())
    };
    let paths: Vec<PathBuf> = records.iter().map(|record| record.image.path().to_owned()).collect();
    caption_all(checkpoint, &device.device, paths.into_iter(), &read, config, emit)?;
    progress.finish();
    Ok(captioned)
}

/// Writes names and captions as JSONL.
fn write_captions<'a>(
    file: &Path,
    captions: impl Iterator<Item = (String, &'a String)>,
) -> Result<(), CliError> {
    let written = File::create(file).and_then(|created| {
        let mut writer = BufWriter::new(created);
        for (path, caption) in captions {
            writeln!(writer, "{}", json!({ "path": path, "caption": caption }))?;
        }
        writer.flush()
    });
    written.context(format_args!("cannot write {}", file.display()))
}

/// What was measured; shared with `patchword demo`.
pub(super) struct Evaluation {
    split: Split,
    /// Images that could be read.
    images: usize,
    pub(super) validation: Validation,
    /// Images that could not be read, those that only the layer was to be chosen on too.
    skipped: SkippedImages,
    pub(super) scenes: Option<Scenes>,
}

/// What was measured on scenes of known truth.
pub(super) struct Scenes {
    pub(super) report: SceneReport,
    /// The layer chosen on the validation split.
    pub(super) layer: usize,
}

/// Measures `split`, at most `most` images of it.
pub(super) fn evaluate(
    checkpoint: &Checkpoint,
    device: &Resolved,
    dataset: &Dataset,
    split: Split,
    most: usize,
    config: &CaptionConfig,
    console: &Console,
) -> Result<Evaluation, CliError> {
    let records: Vec<&ImageRecord> = dataset.records_of(split).take(most).collect();
    if records.is_empty() {
        return Err(CliError::new(format_args!(
            "{}: no images in the {} split",
            dataset.root.display(),
            split.name()
        )));
    }
    let limits = DecodeLimits::default();
    let special = checkpoint.tokenizer.special_tokens();
    let max_tokens = checkpoint.model.config().decoder.max_positions;
    let loader = LoaderConfig {
        batch_size: config.batch_size,
        captions_per_image: 5,
        bucket: config.bucket,
        limits,
        workers: 2,
        ..LoaderConfig::plain(checkpoint.preprocess.clone(), special, max_tokens)
    };
    let mut of_split = examples(dataset, split, &checkpoint.tokenizer)?;
    of_split.truncate(most);
    let validation =
        validate(&checkpoint.model, &of_split, &loader, EncoderStage::Pixels, &device.device)?;
    let images = records.len() - validation.skipped.len();
    let mut skipped = validation.skipped.clone();
    let mut scenes = None;
    if records.iter().all(|record| scene_of(record).is_some()) {
        let chosen_on: Vec<&ImageRecord> =
            dataset.records_of(Split::Val).take(SCENES_TO_CHOOSE_ON).collect();
        let total = (records.len() + chosen_on.len()) as u64;
        let progress = Progress::new(console, "judge", Some(total), "scenes");
        let judge = |records: &[&ImageRecord]| {
            judge(checkpoint, &device.device, records, config, &limits, &mut || {
                progress.advance(1);
            })
        };
        let chosen = judge(&chosen_on)?;
        let layer = chosen.pointing.best_layer();
        let report = judge(&records)?;
        progress.finish();
        for image in chosen.skipped.iter().chain(report.skipped.iter()) {
            skipped.add(image.clone());
        }
        scenes = Some(Scenes { report, layer });
    }
    for image in skipped.iter() {
        console.warn(format_args!("left out: {}", image.reason));
    }
    Ok(Evaluation { split, images, validation, skipped, scenes })
}

impl Evaluation {
    pub(super) fn to_text(&self) -> String {
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

    fn to_json(&self) -> serde_json::Value {
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
