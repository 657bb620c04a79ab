//! `patchword evaluate`: how good a captioner is on a split.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::Outcome;
use super::console::Console;
use super::decode::DecodeArgs;
use super::device::DeviceArgs;
use super::error::{CliError, Context};
use super::image_size::ImageSizeArgs;
use super::model_args::{ModelArgs, megabytes};
use super::model_info::decoding;
use super::progress::Progress;
use super::score::{to_json as scores_as_json, to_text as scores_as_text, warn_of_few};
use crate::caption::CaptionConfig;
use crate::checkpoint::atomic::{self, folder_of};
use crate::checkpoint::{self, Location};
use crate::data::{Dataset, DatasetFormat, ImageRecord, LoadOptions, Split, load};
use crate::evaluate::captions::Scored;
use crate::evaluate::report::Report;
use crate::evaluate::{Event, caption_split, evaluate};
use crate::metrics::bootstrap::BootstrapConfig;
use crate::metrics::{ScoreConfig, score};
use crate::plural::counted;
use crate::train::held_out;

/// How the page shows photos.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum HtmlImages {
    /// Small copies in the page, which then needs no other file.
    #[default]
    Embed,
    /// The photos themselves, by relative links.
    Link,
}

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

/// The data set, split as it was for the model's training, if that was on it; shared with `patchword inspect
/// evaluate`.
pub(super) fn load_split(
    data: &Path,
    format: Option<DatasetFormat>,
    val_share: Option<f64>,
    location: &Location,
    console: &Console,
) -> Result<Dataset, CliError> {
    let usual = LoadOptions::default();
    let checkpoint = match location {
        Location::Path(path) => checkpoint::locate(path).ok(),
        _ => None,
    };
    let held_out = checkpoint.and_then(|folder| held_out(&folder, data));
    let val_share = val_share.or(held_out).unwrap_or(usual.val_share);
    let options = LoadOptions { format, val_share, ..usual };
    let dataset = load(data, &options)?;
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
    let (format, share) = (arguments.dataset_format, arguments.val_share);
    let dataset = load_split(&arguments.data, format, share, &location, console)?;
    let device = arguments.device.open(console)?;
    let options = arguments.image_size.load_options();
    let checkpoint = checkpoint::load_with(&location, &device.device, &options)?;
    let generate = arguments.decode.over(&checkpoint, Some(1))?;
    let config = CaptionConfig { batch_size: 32, ..CaptionConfig::new(generate, &device.device) };
    let (split, device) = (arguments.split, &device.device);
    let most = arguments.images.map_or(usize::MAX, NonZeroUsize::get);
    let mut shown = Shown::new(console);
    let mut tell = |event: Event<'_>| shown.event(event);
    let evaluation = evaluate(&checkpoint, device, &dataset, split, most, &config, &mut tell)?;
    let records: Vec<&ImageRecord> = dataset.records_of(split).take(most).collect();
    let mut scored = None;
    if evaluation.scenes.is_none() {
        let skipped = &evaluation.skipped;
        let captioned = caption_split(&checkpoint, device, &records, skipped, &config, &mut tell)?;
        let training: Vec<String> = dataset
            .records_of(Split::Train)
            .flat_map(|record| record.captions.iter().cloned())
            .collect();
        let settings = ScoreConfig {
            tokenized: false,
            meteor_data: arguments.meteor_data.as_deref(),
            training: (split != Split::Train).then_some(training.as_slice()),
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
        split,
        model: &checkpoint.folder,
        search: config.generate.search(),
        decoding: decoding(&config.generate),
        records: &records,
        evaluation: &evaluation,
        scored: scored.as_ref(),
    };
    if let Some(file) = &arguments.html {
        write_page(&report, file, arguments.html_images, console)?;
    }
    print(&report, arguments.json, console)?;
    let uncaptioned = scored.map_or(0, |scored| scored.captioned.failed());
    Ok(match uncaptioned + evaluation.skipped.len() {
        0 => Outcome::Complete,
        _ => Outcome::SomeInputsFailed,
    })
}

fn print(report: &Report<'_>, as_json: bool, console: &Console) -> Result<(), CliError> {
    let (evaluation, scored) = (report.evaluation, report.scored);
    let mut stdout = console.stdout();
    if as_json {
        let mut value = evaluation.to_json();
        if let Some(Scored { scores, intervals, captioned }) = scored {
            value["scores"] = scores_as_json(scores, intervals);
            value["best"] = captioned.extremes_json(scores, true);
            value["worst"] = captioned.extremes_json(scores, false);
        }
        value["model_card"] = json!(report.card());
        writeln!(stdout, "{value:#}")?;
    } else {
        let mut text = evaluation.to_text();
        if let Some(Scored { scores, intervals, captioned }) = scored {
            text.push_str(&scores_as_text(scores, intervals, None));
            text.push_str(&captioned.extremes_text(scores));
        }
        text.push_str(&format!("for the model card:\n{}", report.card()));
        stdout.write_all(text.as_bytes())?;
    }
    Ok(())
}

fn write_page(
    report: &Report<'_>,
    file: &Path,
    images: HtmlImages,
    console: &Console,
) -> Result<(), CliError> {
    let count = report.records.len();
    let progress = Progress::new(console, "gallery", Some(count as u64), "images");
    let size = report
        .write_page(file, images == HtmlImages::Link, &|| progress.advance(1))
        .context(format_args!("cannot write {}", file.display()))?;
    progress.finish();
    let count = counted(count, "image");
    console.note(format_args!("gallery of {count}: {} ({})", file.display(), megabytes(size)));
    Ok(())
}

/// Says at once that a file cannot be written, and not after an hour of captioning.
fn check_place(file: &Path) -> Result<(), CliError> {
    let problem = if file.is_dir() {
        "it is a folder".to_owned()
    } else if !folder_of(file).is_dir() {
        format!("there is no folder {}", folder_of(file).display())
    } else {
        return Ok(());
    };
    Err(CliError::new(format_args!("cannot write {}: {problem}", file.display())))
}

/// How far an evaluation is, on stderr; shared with `patchword demo`.
pub(super) struct Shown<'a> {
    console: &'a Console,
    progress: Option<Progress>,
}

impl<'a> Shown<'a> {
    pub(super) fn new(console: &'a Console) -> Self {
        Self { console, progress: None }
    }

    pub(super) fn event(&mut self, event: Event<'_>) {
        let bar = |what, count: usize, unit| {
            Some(Progress::new(self.console, what, Some(count as u64), unit))
        };
        match (event, &self.progress) {
            (Event::JudgeScenes(count), _) => self.progress = bar("judge", count, "scenes"),
            (Event::CaptionImages(count), _) => self.progress = bar("caption", count, "images"),
            (Event::Measure { what, images }, _) => self.progress = bar(what, images, "images"),
            (Event::Image, Some(progress)) => progress.advance(1),
            (Event::NoCaption { image, is_news }, Some(progress)) => {
                if is_news {
                    let reason = &image.reason;
                    progress.suspend(|| self.console.warn(format_args!("no caption: {reason}")));
                }
                progress.advance_failed(1);
            }
            (Event::Done, _) => {
                if let Some(progress) = self.progress.take() {
                    progress.finish();
                }
            }
            (Event::LeftOut(image), _) => {
                self.console.warn(format_args!("left out: {}", image.reason));
            }
            (Event::Image | Event::NoCaption { .. }, None) => {}
        }
    }
}

/// Writes names and captions as JSONL.
fn write_captions<'a>(
    file: &Path,
    captions: impl Iterator<Item = (String, &'a String)>,
) -> Result<(), CliError> {
    let written = atomic::write_file(file, |out| {
        for (path, caption) in captions {
            writeln!(out, "{}", json!({ "path": path, "caption": caption }))?;
        }
        Ok(())
    });
    written.context(format_args!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_cannot_be_written_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_place(&folder.path().join("a.html")).is_ok());
        assert!(check_place(Path::new("a.html")).is_ok());
        let error = check_place(&folder.path().join("no/a.html")).unwrap_err();
        assert!(error.message.contains("there is no folder"), "{}", error.message);
        assert!(check_place(folder.path()).unwrap_err().message.ends_with("it is a folder"));
    }
}
