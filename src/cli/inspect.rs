//! `patchword inspect`: which region of the image each word came from.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use image::{ImageFormat, RgbImage};

use super::Outcome;
use super::console::Console;
use super::decode::DecodeArgs;
use super::device::DeviceArgs;
use super::error::{CliError, Context};
use super::image_size::ImageSizeArgs;
use super::model_args::ModelArgs;
use crate::caption::CaptionConfig;
use crate::checkpoint::{self, atomic};
use crate::image::{DecodeLimits, decode_file};
use crate::inspect::sheet::{LEAST_CEILING, Region, Sheet, SheetPanel, SheetStyle, render};
use crate::inspect::{Inspection, inspect};

/// Show which region of an image each word of its caption came from
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword inspect photo.jpg --out inspected
  patchword inspect photo.jpg --model checkpoints/mine --out inspected
  patchword inspect photo.jpg --model checkpoints/mine --out a-dog --text 'a dog on a beach'

DIR gets sheet.png (the photo, then one panel a word with the cross-attention over it) and \
attention.json (each word's map: mean, and every layer and head apart). Attention shows where the \
model looked when it chose a word; it is a clue to why, not a proof.")]
pub(super) struct InspectArgs {
    /// The image
    image: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// Where to write
    #[arg(long, short, value_name = "DIR")]
    out: PathBuf,
    /// Replace the files of an inspection that is there already
    #[arg(long)]
    overwrite: bool,
    /// Inspect this caption instead of the model's own
    #[arg(long, value_name = "CAPTION")]
    text: Option<String>,
    /// Show this decoder layer on the sheet (from 0) instead of the mean of all
    #[arg(long, value_name = "N")]
    layer: Option<usize>,
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

/// The files that are written.
const SHEET: &str = "sheet.png";
const ATTENTION: &str = "attention.json";

pub(super) fn run(arguments: InspectArgs, console: &Console) -> Result<Outcome, CliError> {
    for file in [SHEET, ATTENTION].map(|name| arguments.out.join(name)) {
        if file.exists() && !arguments.overwrite {
            return Err(CliError::new(format_args!(
                "{}: exists already; name another place",
                file.display()
            ))
            .hint("--overwrite replaces what an inspection before wrote"));
        }
    }
    if arguments.image.is_dir() {
        return Err(CliError::new(format_args!(
            "{}: a folder; expected one image",
            arguments.image.display()
        ))
        .hint("`patchword caption` takes folders"));
    }
    let photo = decode_file(&arguments.image, &DecodeLimits::of_pixels(arguments.max_pixels))?;
    let location = arguments.model.locate(console)?;
    let device = arguments.device.open(console)?;
    let options = arguments.image_size.load_options();
    let checkpoint = checkpoint::load_with(&location, &device.device, &options)?;
    let layers = checkpoint.model.config().decoder.num_layers;
    if let Some(layer) = arguments.layer
        && layer >= layers
    {
        return Err(CliError::usage(format_args!(
            "--layer {layer}: the decoder has layers 0 to {}",
            layers - 1
        )));
    }
    let generate = arguments.decode.over(&checkpoint, Some(1))?;
    let config = CaptionConfig::new(generate, &device.device);
    let text = arguments.text.as_deref();
    if text.is_some_and(|text| text.trim().is_empty()) {
        return Err(CliError::usage("--text: a caption without words")
            .hint("leave --text out to see the model's own caption"));
    }
    let inspection = inspect(&checkpoint, &device.device, &photo, text, &config)?;
    write(&arguments.out, &photo, &inspection, arguments.layer)?;
    let mut stdout = console.stdout();
    writeln!(stdout, "{}", inspection.caption)?;
    console.note(format_args!(
        "wrote {} and {}",
        arguments.out.join(SHEET).display(),
        arguments.out.join(ATTENTION).display()
    ));
    Ok(Outcome::Complete)
}

/// Writes `sheet.png` and `attention.json`, over those that are there; shared with `patchword demo`.
pub(super) fn write(
    folder: &Path,
    photo: &RgbImage,
    inspection: &Inspection,
    layer: Option<usize>,
) -> Result<(), CliError> {
    fs::create_dir_all(folder).context(format_args!("{}: cannot be made", folder.display()))?;
    let json = folder.join(ATTENTION);
    atomic::replace_file(&json, &serde_json::to_vec(inspection)?)?;
    let panels = inspection
        .words
        .iter()
        .map(|word| SheetPanel {
            title: word.word.clone(),
            note: format!("p {:.2}", word.probability),
            heat: match layer {
                Some(layer) => word.layer_mean(layer),
                None => word.mean.clone(),
            },
        })
        .collect();
    let sheet = Sheet {
        photo,
        region: region(inspection.region),
        rows: inspection.rows,
        cols: inspection.cols,
        caption: &heading(inspection),
        footer: &footer(layer),
        panels,
    };
    let png = folder.join(SHEET);
    let mut bytes = Cursor::new(Vec::new());
    render(&sheet, &SheetStyle::default()).write_to(&mut bytes, ImageFormat::Png)?;
    Ok(atomic::replace_file(&png, bytes.get_ref())?)
}

/// The caption, and whose it is where it is not the model's.
fn heading(inspection: &Inspection) -> String {
    match inspection.generated {
        true => inspection.caption.clone(),
        false => format!("{} (given, not generated)", inspection.caption),
    }
}

/// What is drawn, and how to read it.
fn footer(layer: Option<usize>) -> String {
    let what = match layer {
        Some(layer) => format!("cross-attention of decoder layer {layer}, mean of heads"),
        None => "cross-attention, mean of layers and heads".to_string(),
    };
    format!(
        "p: the word's probability. max: the largest share of attention on one patch, and how many times that \
         is what each would have if the word looked everywhere alike; it has the hottest colour where it is at \
         least {LEAST_CEILING}×. A clue to what the word rests on, not a proof.\n{what}; patchword {}",
        env!("CARGO_PKG_VERSION")
    )
}

fn region([x0, y0, x1, y1]: [f32; 4]) -> Region {
    Region { x0, y0, x1, y1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_says_whose_the_caption_is_and_how_to_read_it() {
        let inspection = |generated| Inspection {
            caption: "a dog".into(),
            generated,
            log_probability: -1.0,
            rows: 1,
            cols: 1,
            region: [0.0, 0.0, 1.0, 1.0],
            words: Vec::new(),
            maps: Vec::new(),
            phrases: Vec::new(),
        };
        assert_eq!(heading(&inspection(true)), "a dog");
        assert_eq!(heading(&inspection(false)), "a dog (given, not generated)");
        for (layer, what) in [(None, "mean of layers"), (Some(2), "decoder layer 2")] {
            let footer = footer(layer);
            assert!(footer.contains("at least 3×") && footer.contains(what), "{footer}");
        }
    }
}
