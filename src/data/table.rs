//! Tables of images and captions under names of their own, with the images in the usual places beside them:
//! Kaggle's `captions.txt` and `results.csv`, BLIP's and LLaVA's JSON, JSON lines and any CSV.
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::collect::Collector;
use super::detect::{file_name, list_folder, sniff_json, split_in_name};
use super::find::ImageFinder;
use super::imagefolder::TABLE_NAMES;
use super::rows::add_rows;
use super::text_file::TextFile;
use super::{DataError, LoadOptions};
use super::{csv_table, json_table};

/// How much of a file is looked at to tell whether it is a table.
const SNIFFED_BYTES: u64 = 256 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Csv,
    Lines,
    Json,
}

pub(super) fn load(
    path: &Path,
    options: &LoadOptions,
    collector: &mut Collector,
) -> Result<(), DataError> {
    let files = if path.is_dir() { chosen(path, tables(path)?)? } else { vec![path.to_owned()] };
    if files.is_empty() {
        let expected = "table of images and captions (.csv, .tsv, .jsonl, .json or captions.txt)";
        return Err(DataError::NoAnnotations { path: path.to_owned(), expected });
    }
    for file in files {
        let rows = match kind(&file) {
            Some(Kind::Lines) => json_table::read_lines(&file, collector)?,
            Some(Kind::Json) => json_table::read_file(&file, collector)?,
            _ => csv_table::read(&file, collector)?,
        };
        let mut finder = ImageFinder::beside(&file, options);
        collector.looks_in(&finder);
        let split = split_in_name(&file_name(&file));
        add_rows(rows, "", split, &mut finder, collector);
    }
    Ok(())
}

/// Of several tables those that are of splits, if all are; they are one data set.
fn chosen(folder: &Path, mut files: Vec<PathBuf>) -> Result<Vec<PathBuf>, DataError> {
    let names: Vec<String> = files.iter().map(|file| file_name(file)).collect();
    let is_of_split = |name: &String| split_in_name(name).is_some();
    if names.iter().any(is_of_split) {
        files.retain(|file| is_of_split(&file_name(file)));
    }
    // The same split twice is two forms of one table, or two tables.
    let mut splits: Vec<_> = files.iter().map(|file| split_in_name(&file_name(file))).collect();
    splits.sort();
    splits.dedup();
    if splits.len() == files.len() {
        return Ok(files);
    }
    Err(DataError::Ambiguous { path: folder.to_owned(), files: names })
}

/// The tables in a folder, and in `annotations/` below it.
pub(super) fn tables(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = list_folder(folder)?;
    let annotations = ["annotations", "annotation", "captions"].map(|name| folder.join(name));
    for folder in annotations.iter().filter(|folder| folder.is_dir()) {
        files.extend(list_folder(folder)?);
    }
    files.retain(|file| {
        let name = file_name(file);
        !TABLE_NAMES.contains(&name.as_str()) && file.is_file() && is_table(file)
    });
    Ok(files)
}

fn kind(path: &Path) -> Option<Kind> {
    let name = file_name(path).to_lowercase();
    let extension = name.rsplit_once('.').map(|(_, extension)| extension)?;
    match extension {
        "csv" | "tsv" | "txt" | "tab" | "psv" => Some(Kind::Csv),
        "jsonl" | "ndjson" | "jsonlines" => Some(Kind::Lines),
        "json" => Some(Kind::Json),
        _ => None,
    }
}

/// Whether the file is a table of images and captions, by its beginning.
pub(super) fn is_table(path: &Path) -> bool {
    let Some(kind) = kind(path) else { return false };
    let mut beginning = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(SNIFFED_BYTES).read_to_end(&mut beginning));
    if read.is_err() {
        return false;
    }
    if beginning.len() as u64 == SNIFFED_BYTES {
        // Half of a character or of a UTF-16 unit would make the rest unreadable.
        let whole = beginning.iter().rposition(|&byte| byte == b'\n');
        beginning.truncate(whole.map_or(beginning.len(), |end| end & !1));
    }
    let beginning = TextFile::of(path.into(), beginning);
    let text = || String::from_utf8_lossy(beginning.bytes());
    match kind {
        Kind::Csv => {
            let is_text = file_name(path).to_lowercase().ends_with(".txt");
            csv_table::is_table(&beginning)
                || (!is_text && csv_table::is_headless_table(&beginning))
                || (is_text
                    && is_list_of_captions(path)
                    && csv_table::is_headless_table(&beginning))
        }
        Kind::Lines => json_table::is_table(&text(), true),
        Kind::Json => matches!(sniff_json(path), Ok(None)) && json_table::is_table(&text(), false),
    }
}

/// Whether a text file is called as lists of captions are.
fn is_list_of_captions(path: &Path) -> bool {
    let name = file_name(path).to_lowercase();
    name.starts_with("captions") || name.starts_with("labels") || name.starts_with("metadata")
}
