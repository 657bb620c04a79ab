//! What `patchword inspect` writes: the page, the numbers, the picture; and what a terminal shows.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{ImageFormat, RgbImage};

use super::error::{CliError, Context};
use crate::checkpoint::atomic;
use crate::image::thumbnail;
use crate::inspect::Inspection;
use crate::inspect::attention_file::AttentionFile;
use crate::inspect::colour::ColourMap;
use crate::inspect::gallery::{self, Entry};
use crate::inspect::npz::{self, Array};
use crate::inspect::page::{self, PHOTO_SIDE, Page, Reading};
use crate::inspect::sheet::{Region, Sheet, SheetPanel, SheetStyle, render};
use crate::inspect::terminal::{self, TerminalMap, TerminalSheet};

const PAGE: &str = "index.html";
/// Of the first model and of the one it is compared with.
const SHEETS: [&str; 2] = ["sheet.png", "sheet-b.png"];
const ATTENTION: [&str; 2] = ["attention.json", "attention-b.json"];
const ARRAYS: [&str; 2] = ["attention.npz", "attention-b.npz"];

/// What is written of an image.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Files {
    /// The arrays too.
    pub npz: bool,
    /// Of two models.
    pub compared: bool,
    /// All words large.
    pub all_words: bool,
}

/// An image with what each model read in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inspected<'a> {
    /// Its file name.
    pub name: &'a str,
    pub photo: &'a RgbImage,
    /// One, or two that are compared.
    pub readings: &'a [Reading<'a>],
}

/// That nothing is lost which is there already: of one image, or the page of many.
pub(super) fn refuse_what_is_there(out: &Path, many: bool, files: &Files) -> Result<(), CliError> {
    let of_each = [&SHEETS, &ATTENTION, &ARRAYS];
    let kinds = if files.npz { 3 } else { 2 };
    let models = if files.compared { 2 } else { 1 };
    let names = of_each[..kinds].iter().flat_map(|names| &names[..models]);
    let names = std::iter::once(&PAGE).chain(names.filter(|_| !many));
    match names.map(|name| out.join(name)).find(|file| fs::symlink_metadata(file).is_ok()) {
        None => Ok(()),
        Some(file) => Err(CliError::new(format_args!(
            "{}: exists already; name another place",
            file.display()
        ))
        .hint("--overwrite replaces what an inspection before wrote")),
    }
}

/// Writes the files of one image into `folder`, over those that are there; the files.
pub(super) fn write(
    folder: &Path,
    inspected: &Inspected<'_>,
    files: &Files,
    back: Option<&str>,
) -> Result<Vec<PathBuf>, CliError> {
    make_folder(folder)?;
    let Inspected { name, photo, readings } = *inspected;
    let mut written = Vec::new();
    let mut write = |name: &str, bytes: &[u8]| -> Result<(), CliError> {
        let file = folder.join(name);
        atomic::replace_file(&file, bytes)?;
        written.push(file);
        Ok(())
    };
    let jpeg = thumbnail(photo, PHOTO_SIDE)?.jpeg;
    let page = Page {
        image: name,
        jpeg: &jpeg,
        size: [photo.width(), photo.height()],
        readings,
        only_content: !files.all_words,
        back,
    };
    write(PAGE, page::render(&page).as_bytes())?;
    for (at, reading) in readings.iter().enumerate() {
        let Reading { model, hash, inspection, faithful } = reading;
        let file = AttentionFile::new(inspection, [model, hash], name, photo.dimensions());
        write(ATTENTION[at], &serde_json::to_vec(&file)?)?;
        if files.npz {
            let mut bytes = Vec::new();
            npz::write(&arrays(inspection), &mut bytes)?;
            write(ARRAYS[at], &bytes)?;
        }
        let faithful = faithful.first().and_then(Option::as_deref);
        let sheet = sheet(photo, inspection, [model, name], faithful, files.all_words)?;
        write(SHEETS[at], &sheet)?;
    }
    Ok(written)
}

fn make_folder(folder: &Path) -> Result<(), CliError> {
    fs::create_dir_all(folder).context(format_args!("{}: cannot be made", folder.display()))
}

/// The page that links those of many images; the file.
pub(super) fn gallery(
    folder: &Path,
    entries: &[Entry],
    models: &[String],
    failed: usize,
) -> Result<PathBuf, CliError> {
    make_folder(folder)?;
    let file = folder.join(PAGE);
    atomic::replace_file(&file, gallery::render(entries, models, failed).as_bytes())?;
    Ok(file)
}

/// Every map, layer and head.
fn arrays(inspection: &Inspection) -> Vec<Array> {
    let Inspection { rows, cols, words, maps, .. } = inspection;
    let layers = words.first().map_or(0, |word| word.layers.len());
    let heads = words.first().and_then(|word| word.layers.first()).map_or(0, Vec::len);
    let (grid, count) = ([*rows, *cols], words.len());
    let cells = words.iter().flat_map(|word| word.layers.iter().flatten().flatten().copied());
    let of_maps = maps.iter().flat_map(|map| map.words.iter());
    let names: Vec<String> = maps.iter().map(|map| map.config.to_string()).collect();
    vec![
        Array::text("words", words.iter().map(|word| word.word.as_str())),
        Array::text("methods", names.iter().map(String::as_str)),
        Array::f32("cross_attention", &[count, layers, heads, grid[0], grid[1]], cells),
        Array::f32("cross_attention_elsewhere", &[count], words.iter().map(|word| word.elsewhere)),
        Array::f32(
            "maps",
            &[maps.len(), count, grid[0], grid[1]],
            of_maps.clone().flat_map(|word| word.map.iter().copied()),
        ),
        Array::f32("maps_elsewhere", &[maps.len(), count], of_maps.map(|word| word.elsewhere)),
        Array::f32(
            "self_attention",
            &[count, count],
            words.iter().flat_map(|word| word.to_words.iter().copied()),
        ),
        Array::f32("probabilities", &[count], words.iter().map(|word| word.probability)),
        Array::f32("region", &[4], inspection.region.into_iter()),
    ]
}

/// The sheet as PNG.
fn sheet(
    photo: &RgbImage,
    inspection: &Inspection,
    [model, file]: [&str; 2],
    faithful: Option<&str>,
    all_words: bool,
) -> Result<Vec<u8>, CliError> {
    let [x0, y0, x1, y1] = inspection.region;
    let sheet = Sheet {
        photo,
        region: Region { x0, y0, x1, y1 },
        rows: inspection.rows,
        cols: inspection.cols,
        caption: &heading(inspection),
        footer: &footer(inspection, model, file, faithful),
        panels: panels(inspection, all_words),
    };
    let mut bytes = Cursor::new(Vec::new());
    render(&sheet, &SheetStyle::default()).write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}

fn panels(inspection: &Inspection, all_words: bool) -> Vec<SheetPanel> {
    let first = inspection.maps.first();
    let each = inspection.words.iter().enumerate().map(|(at, word)| {
        let of_map = first.and_then(|map| map.words.get(at));
        let small = !all_words && !word.content;
        SheetPanel {
            title: word.word.clone(),
            note: match small {
                true => String::new(),
                false => {
                    note(word.probability, word.evidence.as_ref().and_then(|seen| seen.hidden))
                }
            },
            heat: of_map.map_or_else(|| word.mean.clone(), |map| map.map.clone()),
            small,
        }
    });
    each.collect()
}

/// The probability of a word, and what hiding its region makes of it.
fn note(probability: f32, hidden: Option<f32>) -> String {
    match hidden {
        Some(hidden) => format!("p {probability:.2}, hidden {hidden:.2}"),
        None => format!("p {probability:.2}"),
    }
}

/// The caption, and whose it is where it is not the model's.
fn heading(inspection: &Inspection) -> String {
    match inspection.generated {
        true => inspection.caption.clone(),
        false => format!("{} (given, not generated)", inspection.caption),
    }
}

/// What is drawn, and how to read it.
fn footer(inspection: &Inspection, model: &str, file: &str, faithful: Option<&str>) -> String {
    let map = inspection.maps.first();
    let what = map.map_or_else(|| "cross-attention".into(), |map| map.config.to_string());
    let mut elsewhere = map.map_or(0.0, |map| {
        map.words.iter().map(|word| word.elsewhere.abs()).sum::<f32>()
            / map.words.len().max(1) as f32
    });
    if elsewhere < 5e-4 {
        elsewhere = 0.0;
    }
    let off = match elsewhere {
        0.0 => String::new(),
        share => format!(
            " {:.1} % of the maps fall on class or register tokens, which lie nowhere on the image.",
            100.0 * share
        ),
    };
    let hidden = match inspection.words.iter().any(|word| word.evidence.is_some()) {
        true => {
            " hidden: the same with the map's region hidden; where it hardly falls, do not believe the map."
        }
        false => "",
    };
    let faithful = faithful.map(|text| format!(" ({text})")).unwrap_or_default();
    format!(
        "p: the word's probability.{hidden} One scale for all words; n× even: the peak against what each patch would have \
         if the word looked everywhere alike.{off} A clue to what the word rests on, not a proof.\n{what}{faithful}; \
         {file}; model {model}; patchword {}",
        env!("CARGO_PKG_VERSION")
    )
}

/// The maps as text.
pub(super) fn terminal(
    photo: &RgbImage,
    inspection: &Inspection,
    all_words: bool,
    columns: usize,
    colour: bool,
) -> String {
    let Some(map) = inspection.maps.first() else { return String::new() };
    let shown = inspection.words.iter().zip(&map.words);
    let maps = shown.filter(|(word, _)| all_words || word.content).map(|(word, map)| TerminalMap {
        title: word.word.clone(),
        note: note(word.probability, word.evidence.as_ref().and_then(|seen| seen.hidden)),
        map: map.map.clone(),
    });
    let sheet = TerminalSheet {
        photo,
        region: inspection.region,
        rows: inspection.rows,
        cols: inspection.cols,
        maps: maps.collect(),
    };
    let colours = colour.then(ColourMap::default);
    format!("{}{}\n", terminal::render(&sheet, columns, colours), map.config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::{Method, Relevance, RelevanceConfig, WordRelevance};

    #[test]
    fn a_sheet_says_whose_the_caption_is_and_how_to_read_it() {
        let inspection = |generated, elsewhere| Inspection {
            caption: "a dog".into(),
            generated,
            log_probability: -1.0,
            rows: 1,
            cols: 1,
            region: [0.0, 0.0, 1.0, 1.0],
            words: Vec::new(),
            maps: vec![Relevance {
                config: RelevanceConfig::new(Method::Attention),
                rows: 1,
                cols: 1,
                words: vec![WordRelevance { map: vec![1.0 - elsewhere], elsewhere, total: 1.0 }],
            }],
            phrases: Vec::new(),
        };
        assert_eq!(heading(&inspection(true, 0.0)), "a dog");
        assert_eq!(heading(&inspection(false, 0.0)), "a dog (given, not generated)");
        let said = footer(&inspection(true, 0.125), "mine", "dog.jpg", Some("points at 91 %"));
        for part in [
            "12.5 % of the maps fall on class",
            "dog.jpg; model mine",
            "(points at 91 %)",
            "not a proof",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let said = footer(&inspection(true, 0.0), "mine", "dog.jpg", None);
        assert!(!said.contains("class") && said.contains("mean of layers and heads"), "{said}");
        assert_eq!(note(0.654, Some(0.14)), "p 0.65, hidden 0.14");
    }
}
