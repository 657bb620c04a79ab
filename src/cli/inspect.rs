//! `patchword inspect`: which region of an image each word of its caption came from.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use image::RgbImage;

use super::Outcome;
use super::caption_inputs::InputArgs;
use super::console::Console;
use super::decode::DecodeArgs;
use super::device::DeviceArgs;
use super::error::{CliError, Context, EXIT_INTERRUPTED};
use super::image_size::ImageSizeArgs;
use super::inspect_evaluate::{self, InspectEvaluateArgs};
use super::inspect_maps::MapArgs;
use super::inspect_outputs::{self as outputs, Files, Inspected};
use super::model_args::ModelArgs;
use super::progress::Progress;
use super::stop;
use crate::caption::inputs::{Input, find};
use crate::caption::{CaptionConfig, weights_hash};
use crate::checkpoint::{self, Checkpoint, Location};
use crate::device::Resolved;
use crate::escape::escape;
use crate::image::{DecodeLimits, thumbnail};
use crate::inspect::gallery::{self, Entry};
use crate::inspect::page::Reading;
use crate::inspect::sheet::{SheetStyle, letters_without_font};
use crate::inspect::{InspectConfig, InspectError, Inspection, inspect_with};

/// Show which region of an image each word of its caption came from, and how far to believe it
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    subcommand_help_heading = "Measure maps (a folder of such a name is reached as ./evaluate)",
    after_help = "\
Examples:
  patchword inspect photo.jpg --out inspected
  patchword inspect ~/photos --model checkpoints/mine --out inspected
  patchword inspect photo.jpg --out a-dog --text 'a dog on a beach'
  patchword inspect photo.jpg --out both --compare Salesforce/blip-image-captioning-base
  patchword inspect photo.jpg --out inspected --method gradient --method occlusion --npz
  patchword inspect photo.jpg --terminal

DIR gets index.html (a page to explore: it needs no network), attention.json (every map as numbers; with \
--npz also attention.npz), and sheet.png (a picture to send). Of a folder or of several images each gets a \
folder of its own in DIR, and index.html links them; an image that cannot be read is named on stderr, the \
rest goes on, and the exit code is 3.

A map is a clue to what a word rests on, not a proof. What checks it is on the page too: how likely the \
word stays when its region is hidden, when the photo is blurred, and without a photo."
)]
pub(super) struct InspectArgs {
    #[command(subcommand)]
    command: Option<InspectCommand>,
    #[command(flatten)]
    inputs: InputArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// A second model, read side by side with the first
    #[arg(long, value_name = "DIR|ID")]
    compare: Option<PathBuf>,
    /// Where to write
    #[arg(long, short, value_name = "DIR", required_unless_present = "terminal")]
    out: Option<PathBuf>,
    /// Replace the files of an inspection that is there already
    #[arg(long)]
    overwrite: bool,
    /// Write attention.npz too: every layer and head, for NumPy
    #[arg(long, requires = "out")]
    npz: bool,
    /// Show the maps in the terminal
    #[arg(long)]
    terminal: bool,
    /// Inspect this caption instead of the model's own
    #[arg(long, value_name = "CAPTION")]
    text: Option<String>,
    /// Which words are large on the page and the sheet, and are shown in the terminal
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = Words::Content)]
    words: Words,
    #[command(flatten)]
    maps: MapArgs,
    #[command(flatten)]
    image_size: ImageSizeArgs,
    /// Largest image decoded, in pixels
    #[arg(long, value_name = "N", default_value_t = DecodeLimits::default().max_pixels)]
    max_pixels: u64,
    #[command(flatten)]
    decode: DecodeArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Debug, Subcommand)]
enum InspectCommand {
    Evaluate(InspectEvaluateArgs),
}

/// Which words stand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Words {
    /// Those that may be seen: nouns, adjectives, verbs.
    Content,
    /// All, articles and prepositions too.
    All,
}

const STOPPING: &str =
    "stopping: the image that is under way is finished first; Ctrl-C again stops at once";

/// A model that is ready, and what is asked of it.
struct Model {
    name: String,
    hash: String,
    what: InspectConfig,
    /// How far each map was found to be faithful.
    faithful: Vec<Option<String>>,
    checkpoint: Checkpoint,
    config: CaptionConfig,
}

pub(super) fn run(arguments: InspectArgs, console: &Console) -> Result<Outcome, CliError> {
    if let Some(InspectCommand::Evaluate(arguments)) = &arguments.command {
        return inspect_evaluate::run(arguments, console);
    }
    if arguments.text.as_deref().is_some_and(|text| text.trim().is_empty()) {
        return Err(CliError::usage("--text: a caption without words")
            .hint("leave --text out to see the model's own caption"));
    }
    let many = arguments.inputs.one_file().is_none();
    if let (Some(out), false) = (&arguments.out, arguments.overwrite) {
        outputs::refuse_what_is_there(out, many, &arguments.files())?;
    }
    let (inputs, mut failed) = match arguments.inputs.one_file() {
        Some(path) => (vec![Input::file(path, path)], 0),
        None => images(&arguments, console)?,
    };
    // Before a model is loaded: a photo that cannot be read ends the command at once.
    let first = match many {
        false => Some(inputs[0].decode(&limits(&arguments))?),
        true => None,
    };
    let device = arguments.device.open(console)?;
    let models = models(&arguments, &device, console)?;
    let session = Session {
        arguments: &arguments,
        models: &models,
        device: &device,
        console,
        has_warned: Cell::new(false),
    };
    if let Some(photo) = first {
        session.image(&inputs[0], &photo, arguments.out.as_deref(), None, None)?;
        return Ok(Outcome::Complete);
    }
    stop::listen_and_say(console, STOPPING);
    failed += session.gallery(&inputs, failed)?;
    if stop::requested() {
        return Err(CliError::new("interrupted").code(EXIT_INTERRUPTED));
    }
    Ok(if failed > 0 { Outcome::SomeInputsFailed } else { Outcome::Complete })
}

fn limits(arguments: &InspectArgs) -> DecodeLimits {
    DecodeLimits::of_pixels(arguments.max_pixels)
}

impl InspectArgs {
    fn files(&self) -> Files {
        Files {
            npz: self.npz,
            compared: self.compare.is_some(),
            all_words: self.words == Words::All,
        }
    }
}

/// The images that are named, and how many names name none.
fn images(arguments: &InspectArgs, console: &Console) -> Result<(Vec<Input>, usize), CliError> {
    let config = arguments.inputs.config(console)?;
    // What was written before is no input.
    let out = arguments.out.as_deref().and_then(|out| fs::canonicalize(out).ok());
    let is_ours = |path: &Path| match (&out, fs::canonicalize(path)) {
        (Some(out), Ok(path)) => path.starts_with(out),
        _ => false,
    };
    let (mut inputs, mut failed) = (Vec::new(), 0);
    find(arguments.inputs.named()?, &config, &mut |found| {
        match found {
            Ok(input) if is_ours(&input.path) => {}
            Ok(input) => inputs.push(input),
            Err(error) => {
                failed += 1;
                console.warn(error);
            }
        }
        true
    });
    match inputs.is_empty() {
        false => Ok((inputs, failed)),
        true => Err(CliError::new("no images to inspect")
            .hint("name image files, folders, globs in quotes, or - for a list on stdin")),
    }
}

fn models(
    arguments: &InspectArgs,
    device: &Resolved,
    console: &Console,
) -> Result<Vec<Model>, CliError> {
    let mut models =
        vec![model(arguments, arguments.model.name(), &arguments.model.locate(console)?, device)?];
    if let Some(other) = &arguments.compare {
        let location = arguments.model.locate_another(other, console)?;
        models.push(model(arguments, other.display().to_string(), &location, device)?);
    }
    Ok(models)
}

fn model(
    arguments: &InspectArgs,
    name: String,
    location: &Location,
    device: &Resolved,
) -> Result<Model, CliError> {
    let options = arguments.image_size.load_options();
    let checkpoint = checkpoint::load_with(location, &device.device, &options)?;
    let (maps, faithful) = arguments.maps.of(&checkpoint)?;
    let generate = arguments.decode.over(&checkpoint, Some(1))?;
    let config = CaptionConfig::new(generate, &device.device);
    let hash = weights_hash(&checkpoint).context(format_args!("{name}: cannot be read"))?;
    let text = arguments.text.clone();
    let what = InspectConfig { text, maps, evidence: arguments.maps.evidence() };
    Ok(Model { name, hash, what, faithful, checkpoint, config })
}

/// All that one image after the other is inspected with.
struct Session<'a> {
    arguments: &'a InspectArgs,
    models: &'a [Model],
    device: &'a Resolved,
    console: &'a Console,
    /// Whether letters without a font were named.
    has_warned: Cell<bool>,
}

impl Session<'_> {
    /// Every image in a folder of its own, and the page that links them; how many images failed besides
    /// `failed`.
    fn gallery(&self, inputs: &[Input], before: usize) -> Result<usize, CliError> {
        let progress = Progress::new(self.console, "inspect", Some(inputs.len() as u64), "images");
        let (mut entries, mut failed, mut taken) = (Vec::new(), 0, HashSet::new());
        for input in inputs {
            if stop::requested() {
                break;
            }
            let name = input.relative.display().to_string();
            let folder = gallery::folder_name(&name, &mut taken);
            match self.entry(input, name, folder, &progress) {
                Ok(entry) => {
                    entries.push(entry);
                    progress.advance(1);
                }
                // A disk that is full, a reader that went away: the next image would fare no better.
                Err(Failure::Run(error)) => return Err(error),
                Err(Failure::Image(error)) => {
                    failed += 1;
                    let reason = error.in_a_line();
                    progress.suspend(|| self.console.warn(format_args!("not inspected: {reason}")));
                    progress.advance_failed(1);
                }
            }
        }
        progress.finish();
        if let Some(out) = &self.arguments.out
            && !entries.is_empty()
        {
            let names: Vec<String> = self.models.iter().map(|model| model.name.clone()).collect();
            let page = outputs::gallery(out, &entries, &names, before + failed)?;
            self.console.note(format_args!("wrote {}", page.display()));
        }
        self.console.note(format_args!("{} inspected, {} failed", entries.len(), before + failed));
        Ok(failed)
    }

    fn entry(
        &self,
        input: &Input,
        image: String,
        folder: String,
        progress: &Progress,
    ) -> Result<Entry, Failure> {
        let photo =
            input.decode(&limits(self.arguments)).map_err(|error| Failure::Image(error.into()))?;
        let place = self.arguments.out.as_ref().map(|out| out.join(&folder));
        let captions =
            self.image(input, &photo, place.as_deref(), Some("../index.html"), Some(progress))?;
        let jpeg = thumbnail(&photo, gallery::THUMBNAIL_SIDE)
            .map_err(|error| Failure::Image(error.into()))?
            .jpeg;
        Ok(Entry { image, folder, captions, jpeg })
    }

    /// Inspects one image, writes what was asked for into `out`, and says the captions.
    fn image(
        &self,
        input: &Input,
        photo: &RgbImage,
        out: Option<&Path>,
        back: Option<&str>,
        progress: Option<&Progress>,
    ) -> Result<Vec<String>, Failure> {
        let mut inspections = Vec::new();
        for model in self.models {
            let seen = self.inspect(photo, model, progress.is_none());
            inspections.push(seen.map_err(|error| match error {
                InspectError::Device(_) => Failure::Run(error.into()),
                error => Failure::Image(error.into()),
            })?);
        }
        let each = self.models.iter().zip(&inspections).map(|(model, inspection)| Reading {
            model: &model.name,
            hash: &model.hash,
            inspection,
            faithful: model.faithful.clone(),
        });
        let readings: Vec<Reading<'_>> = each.collect();
        let name = input.path.file_name().unwrap_or(input.path.as_os_str()).to_string_lossy();
        let inspected = Inspected { name: &name, photo, readings: &readings };
        if let Some(out) = out {
            self.say_what_has_no_font(&inspected, progress);
            let files = outputs::write(out, &inspected, &self.arguments.files(), back)?;
            if progress.is_none() {
                let files: Vec<String> =
                    files.iter().map(|file| file.display().to_string()).collect();
                self.console.note(format_args!("wrote {}", files.join(", ")));
            }
        }
        let say = || self.say(input, &inspected, progress.is_some());
        match progress {
            Some(progress) => progress.suspend(say)?,
            None => say()?,
        }
        drop(readings);
        Ok(inspections.into_iter().map(|inspection| inspection.caption).collect())
    }

    fn inspect(
        &self,
        photo: &RgbImage,
        model: &Model,
        alone: bool,
    ) -> Result<Inspection, InspectError> {
        // One image takes seconds where its maps encode it many times over: that is what the bar counts.
        let progress = alone.then(|| Progress::new(self.console, "inspect", None, "encodings"));
        let seen = inspect_with(
            &model.checkpoint,
            &self.device.device,
            photo,
            &model.what,
            &model.config,
            &mut |count| {
                if let Some(progress) = &progress {
                    progress.advance(count as u64);
                }
            },
        );
        if let Some(progress) = progress {
            progress.clear();
        }
        seen
    }

    /// Once a run: the page has the letters that the sheet lacks.
    fn say_what_has_no_font(&self, inspected: &Inspected<'_>, progress: Option<&Progress>) {
        let captions = inspected.readings.iter().map(|reading| reading.inspection.caption.as_str());
        let text: String = captions.chain([inspected.name]).collect();
        let missing = letters_without_font(&text, &SheetStyle::default());
        if missing.is_empty() || self.has_warned.replace(true) {
            return;
        }
        let letters: Vec<String> =
            missing.iter().take(8).map(|letter| format!("U+{:04X}", u32::from(*letter))).collect();
        let say = || {
            self.console.note(format_args!(
                "sheet.png: no font of this machine has {}: boxes stand for them (Noto fonts have most); \
                 index.html has every letter that the browser has",
                letters.join(", ")
            ));
        };
        match progress {
            Some(progress) => progress.suspend(say),
            None => say(),
        }
    }

    /// The captions on stdout, and the maps where the terminal shows them.
    fn say(&self, input: &Input, inspected: &Inspected<'_>, many: bool) -> Result<(), CliError> {
        let mut stdout = self.console.stdout();
        let path = escape(input.path.as_os_str().as_encoded_bytes());
        for Reading { model, inspection, .. } in inspected.readings {
            let caption = escape(inspection.caption.as_bytes());
            let model = escape(model.as_bytes());
            match (many, inspected.readings.len()) {
                (false, 1) => writeln!(stdout, "{caption}")?,
                (false, _) => writeln!(stdout, "{model}\t{caption}")?,
                (true, 1) => writeln!(stdout, "{path}\t{caption}")?,
                (true, _) => writeln!(stdout, "{path}\t{model}\t{caption}")?,
            }
            if self.arguments.terminal {
                let (width, colour) = (terminal_width(), self.console.colours_stdout());
                let all = self.arguments.words == Words::All;
                let text = outputs::terminal(inspected.photo, inspection, all, width, colour);
                stdout.write_all(text.as_bytes())?;
            }
        }
        Ok(())
    }
}

/// Columns of the terminal; 100 where there is none.
fn terminal_width() -> usize {
    let size = io::stdout().is_terminal().then(terminal_size::terminal_size).flatten();
    size.map_or(100, |(width, _)| usize::from(width.0).max(20))
}

/// What failed: an image, or the whole run.
enum Failure {
    Image(CliError),
    Run(CliError),
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Self {
        Self::Run(error)
    }
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Image(error) | Failure::Run(error) => error,
        }
    }
}
