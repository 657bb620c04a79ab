//! Which format a folder or file holds, told by looking.
use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use walkdir::DirEntry;

use super::housekeeping::is_housekeeping;
use super::{DataError, Split, flickr8k, imagefolder, sidecar};
use super::{columnar, table, webdataset};
use crate::image::is_image_path;

/// The formats of captioning data sets that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatasetFormat {
    /// Karpathy's `dataset_*.json`: images with splits and sentences.
    Karpathy,
    /// COCO's `captions_*.json` beside folders of images.
    Coco,
    /// Flickr8k's token file and split lists.
    Flickr8k,
    /// Hugging Face's imagefolder: `metadata.jsonl`, `.csv` or `.parquet` with `file_name` and `text`.
    Imagefolder,
    /// Parquet with the images in it, as on the Hugging Face Hub.
    Parquet,
    /// Arrow, as `save_to_disk` of Hugging Face's `datasets` writes it.
    Arrow,
    /// Tar shards of images and captions.
    Webdataset,
    /// Another table of images and captions: CSV, JSON lines or a JSON list.
    Table,
    /// Images, each with a `.txt` or `.caption` file of the same stem.
    Sidecar,
}

impl DatasetFormat {
    /// Every format, in the order in which [`detect`] prefers them.
    pub const ALL: [Self; 9] = [
        Self::Karpathy,
        Self::Coco,
        Self::Flickr8k,
        Self::Imagefolder,
        Self::Parquet,
        Self::Arrow,
        Self::Webdataset,
        Self::Table,
        Self::Sidecar,
    ];

    /// The name in lower case, as on the command line and in configs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Karpathy => "karpathy",
            Self::Coco => "coco",
            Self::Flickr8k => "flickr8k",
            Self::Imagefolder => "imagefolder",
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
            Self::Webdataset => "webdataset",
            Self::Table => "table",
            Self::Sidecar => "sidecar",
        }
    }
}

impl fmt::Display for DatasetFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for DatasetFormat {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        let text = text.trim();
        let known = Self::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(text));
        known.ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}

/// A name that no format has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown data set format {0:?} (expected one of {names})",
    names = DatasetFormat::ALL.map(DatasetFormat::name).join(", ")
)]
pub struct UnknownFormat(pub String);

/// Recognises the data set at `path`, a folder or an annotation file. Of several formats in one
/// folder the first of [`DatasetFormat::ALL`] is taken.
///
/// # Errors
/// [`DataError::NotFound`], [`DataError::Unrecognised`] (saying what was seen) and
/// [`DataError::Read`].
pub fn detect(path: &Path) -> Result<DatasetFormat, DataError> {
    detect_all(path).map(|(format, _)| format)
}

/// The preferred format, and the others that the folder could be read as.
pub(super) fn detect_all(path: &Path) -> Result<(DatasetFormat, Vec<DatasetFormat>), DataError> {
    if path.is_dir() {
        return detect_folder(path);
    }
    if !path.exists() {
        return Err(DataError::NotFound { path: path.to_owned() });
    }
    match detect_file(path)? {
        Some(format) => Ok((format, Vec::new())),
        None => Err(DataError::Unrecognised {
            path: path.to_owned(),
            seen: "its name and content fit no annotation file".to_owned(),
        }),
    }
}

fn detect_folder(path: &Path) -> Result<(DatasetFormat, Vec<DatasetFormat>), DataError> {
    let mut found = Vec::new();
    if !json_files(path, DatasetFormat::Karpathy)?.is_empty() {
        found.push(DatasetFormat::Karpathy);
    }
    if !json_files(path, DatasetFormat::Coco)?.is_empty() {
        found.push(DatasetFormat::Coco);
    }
    if flickr8k::token_file(path)?.is_some() {
        found.push(DatasetFormat::Flickr8k);
    }
    if !imagefolder::tables(path)?.is_empty() {
        found.push(DatasetFormat::Imagefolder);
    }
    if !columnar::parquet_files(path).is_empty() {
        found.push(DatasetFormat::Parquet);
    }
    if !columnar::arrow_files(path).is_empty() {
        found.push(DatasetFormat::Arrow);
    }
    if !webdataset::shards(path).is_empty() {
        found.push(DatasetFormat::Webdataset);
    }
    if !table::tables(path)?.is_empty() {
        found.push(DatasetFormat::Table);
    }
    // Text files beside images are common, so they count only where nothing better is there.
    if found.is_empty() && sidecar::has_pair(path) {
        found.push(DatasetFormat::Sidecar);
    }
    let mut found = found.into_iter();
    match found.next() {
        Some(first) => Ok((first, found.collect())),
        None => Err(DataError::Unrecognised { path: path.to_owned(), seen: describe(path)? }),
    }
}

/// What a folder holds, in a few words, for the one who expected a data set there.
fn describe(path: &Path) -> Result<String, DataError> {
    let files = list_folder(path)?;
    if files.is_empty() {
        return Ok("the folder is empty".to_owned());
    }
    if sidecar::has_image(path) {
        return Ok(describe_images(path, &files));
    }
    let names: Vec<String> = files.iter().take(3).map(|file| file_name(file)).collect();
    let more = if files.len() > names.len() { ", …" } else { "" };
    Ok(format!("it holds {}{more}", names.join(", ")))
}

/// What a folder of images holds beside them, of which captions could be meant to be read.
fn describe_images(path: &Path, files: &[PathBuf]) -> String {
    let is_candidate = |file: &&PathBuf| {
        let extension =
            file.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        let extension = extension.unwrap_or_default();
        ["csv", "tsv", "json", "jsonl", "txt", "xlsx", "xml", "zip", "db"]
            .contains(&extension.as_str())
    };
    let names: Vec<String> =
        files.iter().filter(is_candidate).take(3).map(|file| file_name(file)).collect();
    if !names.is_empty() {
        return format!(
            "it holds images, and no captions were found for them in {} (a table needs columns such as \
             file_name and text)",
            names.join(", ")
        );
    }
    let folders: Vec<String> = files
        .iter()
        .filter(|file| file.is_dir() && sidecar::has_image(file))
        .take(3)
        .map(|file| file_name(file))
        .collect();
    match folders.is_empty() || files.iter().any(|file| is_image_path(file)) || path.is_file() {
        true => "it holds images but no captions".to_owned(),
        false => format!(
            "it holds images in folders ({}) but no captions: the name of a folder is a class, and none",
            folders.join(", ")
        ),
    }
}

fn detect_file(path: &Path) -> Result<Option<DatasetFormat>, DataError> {
    let name = file_name(path).to_ascii_lowercase();
    if imagefolder::TABLE_NAMES.contains(&name.as_str()) {
        return Ok(Some(DatasetFormat::Imagefolder));
    }
    if columnar::is_parquet(path) {
        return Ok(Some(DatasetFormat::Parquet));
    }
    if columnar::is_arrow(path) {
        return Ok(Some(DatasetFormat::Arrow));
    }
    if webdataset::is_shard(path) {
        return Ok(Some(DatasetFormat::Webdataset));
    }
    if name.ends_with(".json") {
        let format = sniff_json(path)?;
        return Ok(format.or_else(|| table::is_table(path).then_some(DatasetFormat::Table)));
    }
    if flickr8k::is_token_name(&name) {
        return Ok(Some(DatasetFormat::Flickr8k));
    }
    // Tables are also kept under other names than metadata.jsonl; a bad one is named when it is read.
    Ok(match name.rsplit_once('.') {
        Some((_, "jsonl" | "ndjson" | "csv" | "tsv")) => Some(DatasetFormat::Table),
        _ => table::is_table(path).then_some(DatasetFormat::Table),
    })
}

/// The JSON files of `folder`, and for COCO of its `annotations/`, that hold captions of `format`.
pub(super) fn json_files(folder: &Path, format: DatasetFormat) -> Result<Vec<PathBuf>, DataError> {
    let mut files = list_folder(folder)?;
    let annotations = folder.join("annotations");
    if format == DatasetFormat::Coco && annotations.is_dir() {
        files.extend(list_folder(&annotations)?);
    }
    let mut matching = Vec::new();
    for file in files {
        let is_json = file_name(&file).to_ascii_lowercase().ends_with(".json");
        if is_json && file.is_file() && sniff_json(&file)? == Some(format) {
            matching.push(file);
        }
    }
    Ok(matching)
}

/// How much of either end of a JSON file is looked at. COCO's files run to a hundred megabytes.
const SNIFFED_BYTES: u64 = 64 * 1024;

/// Tells Karpathy's JSON from COCO's by the keys near both ends of the file, so that other JSON files
/// that lie about in data sets (`dataset_info.json`, `instances_val2014.json`) are let be.
pub(super) fn sniff_json(path: &Path) -> Result<Option<DatasetFormat>, DataError> {
    let failed = |source| DataError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut ends = Vec::new();
    file.by_ref().take(SNIFFED_BYTES).read_to_end(&mut ends).map_err(failed)?;
    if length > SNIFFED_BYTES {
        file.seek(SeekFrom::Start(length.saturating_sub(SNIFFED_BYTES))).map_err(failed)?;
        file.take(SNIFFED_BYTES).read_to_end(&mut ends).map_err(failed)?;
    }
    let text = String::from_utf8_lossy(&ends);
    // A list at the top is a list of results, made by a captioner, not a data set.
    let is_object = text.trim_start_matches('\u{feff}').trim_start().starts_with('{');
    if !is_object {
        return Ok(None);
    }
    let name = file_name(path).to_ascii_lowercase();
    Ok(if text.contains("\"sentences\"") && text.contains("\"filename\"") {
        Some(DatasetFormat::Karpathy)
    } else if text.contains("\"annotations\"")
        && (name.starts_with("captions_")
            || (text.contains("\"image_id\"") && text.contains("\"caption\"")))
    {
        Some(DatasetFormat::Coco)
    } else {
        None
    })
}

/// Whether an entry of a walk is housekeeping, below the folder that the walk began with.
pub(super) fn is_hidden_entry(entry: &DirEntry) -> bool {
    entry.depth() > 0 && is_housekeeping(entry.file_name(), entry.file_type().is_dir())
}

/// The entries of a folder in the order of their names, housekeeping left out.
pub(super) fn list_folder(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let failed = |source| DataError::Read { path: path.to_owned(), source };
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_housekeeping(&entry.file_name(), is_folder) {
            entries.push(entry.path());
        }
    }
    entries.sort();
    Ok(entries)
}

/// The last part of a path as text.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The split that a file or folder name speaks of, as in `captions_val2014.json`.
pub(super) fn split_in_name(name: &str) -> Option<Split> {
    let stem = name.split('.').next().unwrap_or(name);
    stem.split(|character: char| !character.is_ascii_alphabetic())
        .find_map(|word| word.parse().ok())
}
