//! `patchword evaluate`: how good a captioner is on a split.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Outcome;
use super::caption::DecodeArgs;
use super::console::Console;
use super::device::DeviceArgs;
use super::error::CliError;
use super::image_size::ImageSizeArgs;
use super::progress::Progress;
use super::train::shape_bucket;
use crate::caption::{CaptionConfig, Prompt};
use crate::checkpoint::{self, Checkpoint};
use crate::data::{
    Dataset, DatasetFormat, ImageRecord, LoadOptions, LoaderConfig, SpecialIds, Split, examples,
    load,
};
use crate::device::Resolved;
use crate::evaluate::scenes::{SceneReport, judge, scene_of};
use crate::image::DecodeLimits;
use crate::train::{Validation, validate};

/// Measure a captioner on a split of a data set
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword evaluate --model checkpoints/mine --data ~/my-photos
  patchword evaluate --model checkpoints/shapes --data datasets/shapes --split test

Prints loss and perplexity of the split's captions. On scenes of coloured shapes, whose truth is
known, also the share of captions in which every object, colour and relation is right, and how often
a word's attention peaks inside its object's box (the decoder layer is chosen on the validation
split).")]
pub(super) struct EvaluateArgs {
    /// The model: a checkpoint folder, or the folder of a training run
    #[arg(long, short, value_name = "DIR")]
    model: PathBuf,
    /// The data set
    #[arg(long, short, value_name = "PATH")]
    data: PathBuf,
    /// Its format, if it is not to be recognised by looking
    #[arg(long, value_name = "FORMAT")]
    dataset_format: Option<DatasetFormat>,
    /// The split: train, val or test
    #[arg(long, default_value = "val")]
    split: Split,
    /// Measure on the first N images only
    #[arg(long, value_name = "N")]
    images: Option<usize>,
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

pub(super) fn run(arguments: EvaluateArgs, console: &Console) -> Result<Outcome, CliError> {
    let options = LoadOptions { format: arguments.dataset_format, ..LoadOptions::default() };
    let dataset = load(&arguments.data, &options)?;
    let device = arguments.device.open(console)?;
    let options = arguments.image_size.load_options();
    let checkpoint = checkpoint::load_with(&arguments.model, &device.device, &options)?;
    let config = CaptionConfig {
        batch_size: 32,
        generate: arguments.decode.over(&checkpoint.generate),
        bucket: shape_bucket(&device),
        workers: 2,
        prompt: Prompt::default(),
    };
    let evaluation = evaluate(
        &checkpoint,
        &device,
        &dataset,
        arguments.split,
        arguments.images.unwrap_or(usize::MAX),
        &config,
        console,
    )?;
    let mut stdout = console.stdout();
    if arguments.json {
        writeln!(stdout, "{:#}", evaluation.to_json())?;
    } else {
        stdout.write_all(evaluation.to_text().as_bytes())?;
    }
    Ok(Outcome::Complete)
}

/// What was measured; shared with `patchword demo`.
pub(super) struct Evaluation {
    split: Split,
    images: usize,
    validation: Validation,
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
    let loader = LoaderConfig {
        batch_size: config.batch_size,
        captions_per_image: 5,
        max_tokens: checkpoint.model.config().decoder.max_positions,
        bucket: config.bucket,
        special: SpecialIds { begin: special.bos, end: special.eos, pad: special.pad },
        preprocess: checkpoint.preprocess.clone(),
        augment: None,
        limits,
        group_by_length: false,
        seed: 0,
        workers: 2,
    };
    let mut of_split = examples(dataset, split, &checkpoint.tokenizer)?;
    of_split.truncate(most);
    let validation = validate(&checkpoint.model, &of_split, &loader, &device.device)?;
    for image in &validation.skipped {
        console.warn(format_args!("left out: {}", image.reason));
    }
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
        let layer = judge(&chosen_on)?.pointing.best_layer();
        let report = judge(&records)?;
        progress.finish();
        scenes = Some(Scenes { report, layer });
    }
    Ok(Evaluation { split, images: records.len(), validation, scenes })
}

impl Evaluation {
    pub(super) fn to_text(&self) -> String {
        let mut text = format!(
            "{} images of {}: loss {:.4} nats a token, perplexity {:.3}\n",
            self.images,
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
