//! `patchword inspect evaluate`: whether maps over the image are true, and which is best.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::Outcome;
use super::console::Console;
use super::decode::DecodeArgs;
use super::device::DeviceArgs;
use super::error::CliError;
use super::evaluate::{Shown, load_split};
use super::image_size::ImageSizeArgs;
use super::model_args::ModelArgs;
use crate::caption::CaptionConfig;
use crate::checkpoint::{self, Location};
use crate::data::{DatasetFormat, Split};
use crate::evaluate::Event;
use crate::evaluate::maps::{MapsConfig, evaluate_maps};
use crate::inspect::Method;

/// Measure whether a model's maps over the image are true, and find the best
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword inspect evaluate --model checkpoints/shapes --data datasets/shapes --split test
  patchword inspect evaluate --model checkpoints/mine --data ~/my-photos --save-default
  patchword inspect evaluate --data ~/flickr8k --limit 50 --method occlusion --json

Where boxes are known (scenes of coloured shapes): how often a word's map peaks in the box of what it names, \
how much of the map lies there, and how well the map's shape fits the box. Everywhere: photos of the data \
set are laid side by side and a person's caption of one of them is read; the share of each content word's \
map that lies on its own photo. And deletion and insertion: how fast a word becomes unlikely as the patches \
of its map are taken away, most or least relevant first, against a random order; patches are taken from \
what cross-attention reads, or their pixels are filled from those around them. Each with chance and 95 % \
intervals.

The best of each method is chosen on the validation split, over all layers and heads and over the step that \
predicts a word and the one that reads it. --save-default writes the best of all to inspect.json in the \
model's folder: `patchword inspect` then shows it.")]
pub(super) struct InspectEvaluateArgs {
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
    /// Measure these methods only, besides raw attention: attention, rollout, gradient,
    /// decoder-gradient, grad-cam, residual, occlusion [default: all but occlusion, which is slow]
    #[arg(long = "method", value_name = "METHOD")]
    methods: Vec<Method>,
    /// Measure on the first N images only
    #[arg(long, value_name = "N", default_value_t = default_images())]
    limit: NonZeroUsize,
    /// Of them, those on which deletion and insertion are measured: hundreds of passes each; 0 for none
    #[arg(long, value_name = "N", default_value_t = MapsConfig::default().removal_images)]
    deletion_images: usize,
    /// Images of the validation split on which the best maps are chosen
    #[arg(long, value_name = "N", default_value_t = default_choice())]
    choose_on: NonZeroUsize,
    /// The seed of photos, words and orders
    #[arg(long, value_name = "N", default_value_t = 0)]
    maps_seed: u64,
    /// Write the best map to inspect.json in the model's folder, over one that is there
    #[arg(long)]
    save_default: bool,
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

fn default_images() -> NonZeroUsize {
    NonZeroUsize::new(MapsConfig::default().images).unwrap_or(NonZeroUsize::MIN)
}

fn default_choice() -> NonZeroUsize {
    NonZeroUsize::new(MapsConfig::default().choose_images).unwrap_or(NonZeroUsize::MIN)
}

pub(super) fn run(arguments: &InspectEvaluateArgs, console: &Console) -> Result<Outcome, CliError> {
    let location = arguments.model.locate(console)?;
    let has_folder = matches!(&location, Location::Path(path) if path.is_dir());
    if arguments.save_default && !has_folder {
        return Err(CliError::new("--save-default: this model has no folder of its own")
            .hint("name a checkpoint folder with --model"));
    }
    let (format, share) = (arguments.dataset_format, arguments.val_share);
    let dataset = load_split(&arguments.data, format, share, &location, console)?;
    let device = arguments.device.open(console)?;
    let options = arguments.image_size.load_options();
    let checkpoint = checkpoint::load_with(&location, &device.device, &options)?;
    let generate = arguments.decode.over(&checkpoint, Some(1))?;
    let decode = CaptionConfig { batch_size: 32, ..CaptionConfig::new(generate, &device.device) };
    let config = MapsConfig {
        methods: arguments.methods.clone(),
        images: arguments.limit.get(),
        removal_images: arguments.deletion_images,
        choose_images: arguments.choose_on.get(),
        search: arguments.save_default,
        seed: arguments.maps_seed,
        ..MapsConfig::default()
    };
    let mut shown = Shown::new(console);
    let (device, split) = (&device.device, arguments.split);
    let mut tell = |event: Event<'_>| shown.event(event);
    let found = evaluate_maps(&checkpoint, device, &dataset, split, &config, &decode, &mut tell)?;
    let mut stdout = console.stdout();
    if arguments.json {
        writeln!(stdout, "{:#}", found.to_json())?;
    } else {
        stdout.write_all(found.to_text().as_bytes())?;
    }
    if arguments.save_default {
        let file = found.default.save(&checkpoint.folder)?;
        console.note(format_args!("wrote {}: {}", file.display(), found.default.map));
    }
    Ok(if found.skipped.is_empty() { Outcome::Complete } else { Outcome::SomeInputsFailed })
}
