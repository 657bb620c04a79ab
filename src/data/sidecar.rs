//! A folder of images, each with its captions in a text file of the same stem beside it, one caption a
//! line.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walkdir::{DirEntry, WalkDir};

use super::collect::{Collector, ImageFinder, Listed, PlacedCaption, slashed};
use super::text_file::{lines, read_bytes};
use super::{Cost, DataError, LoadOptions, Origin, Position, ProblemKind, Split};
use crate::image::is_image_path;

/// The caption files' extensions; the first that is there counts.
const CAPTION_EXTENSIONS: [&str; 3] = ["txt", "caption", "TXT"];

/// Stems, in lower case, of text files that accompany a data set and are no captions.
const ACCOMPANYING: [&str; 10] = [
    "readme",
    "license",
    "licence",
    "notice",
    "credits",
    "attribution",
    "changelog",
    "requirements",
    "classes",
    "labels",
];

pub(super) fn load(
    path: &Path,
    options: &LoadOptions,
    collector: &mut Collector,
) -> Result<(), DataError> {
    if !path.is_dir() {
        let expected = "images with .txt or .caption files, since it is not a folder";
        return Err(DataError::NoAnnotations { path: path.to_owned(), expected });
    }
    let images_root = options.images.as_deref().unwrap_or(path);
    collector.looks_in(&ImageFinder::in_folders(vec![images_root.to_owned()]));
    let mut used = BTreeSet::new();
    for image in files(images_root, collector).into_iter().filter(|file| is_image_path(file)) {
        let relative = image.strip_prefix(images_root).unwrap_or(&image).to_owned();
        let split = split_of(&relative);
        let caption_file = caption_file(&image).or_else(|| caption_file(&path.join(&relative)));
        let file: Arc<Path> = caption_file.as_deref().unwrap_or(&image).into();
        let captions = match &caption_file {
            Some(caption_file) => read_captions(caption_file, &file, collector),
            None => Ok(Vec::new()),
        };
        used.extend(caption_file);
        let id = slashed(&relative);
        let origin = Origin::new(&file, Position::File);
        match captions {
            Ok(captions) => {
                let image = Some(image.into());
                collector.add(Listed { id, image, split, captions, origin, grounding: None });
            }
            Err(error) => collector.malformed(&origin, Cost::Image, chain(&error)),
        }
    }
    report_orphans(path, &used, collector);
    Ok(())
}

/// The captions of a file. Blank lines between them are let be, but a file with nothing else holds an
/// empty caption.
fn read_captions(
    path: &Path,
    file: &Arc<Path>,
    collector: &mut Collector,
) -> Result<Vec<PlacedCaption>, DataError> {
    let bytes = read_bytes(path)?;
    let mut captions = Vec::new();
    let mut is_malformed = false;
    for (line, text) in lines(&bytes) {
        let origin = Origin::new(file, Position::Line(line));
        match text {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => captions.push((origin, text.to_owned())),
            Err(detail) => {
                is_malformed = true;
                collector.malformed(&origin, Cost::Caption, detail);
            }
        }
    }
    if captions.is_empty() && !is_malformed {
        captions.push((Origin::new(file, Position::Line(1)), String::new()));
    }
    Ok(captions)
}

/// Names the caption files that belong to no image.
fn report_orphans(path: &Path, used: &BTreeSet<PathBuf>, collector: &mut Collector) {
    for file in files(path, collector) {
        let stem = file.file_stem().map(|stem| stem.to_string_lossy().to_ascii_lowercase());
        let is_caption_file = CAPTION_EXTENSIONS.iter().any(|extension| has(&file, extension));
        let is_accompanying = stem.is_some_and(|stem| ACCOMPANYING.contains(&stem.as_str()));
        let is_superseded = has(&file, CAPTION_EXTENSIONS[1])
            && used.contains(&file.with_extension(CAPTION_EXTENSIONS[0]));
        if is_caption_file && !is_accompanying && !is_superseded && !used.contains(&file) {
            let origin = Origin::new(&file.into(), Position::File);
            let detail = "captions without an image (expected one of the same stem beside them)";
            collector.problem(ProblemKind::MissingImage, &origin, Cost::Image, detail);
        }
    }
}

fn has(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|found| found == extension)
}

fn caption_file(image: &Path) -> Option<PathBuf> {
    let candidates = CAPTION_EXTENSIONS.iter().map(|extension| image.with_extension(extension));
    candidates.into_iter().find(|candidate| candidate.is_file())
}

/// The split, where the first folder is named as one.
fn split_of(relative: &Path) -> Option<Split> {
    let mut components = relative.components();
    let first = components.next()?;
    components.next()?;
    first.as_os_str().to_str()?.parse().ok()
}

fn is_visible(entry: &DirEntry) -> bool {
    entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with('.')
}

fn walk(path: &Path) -> impl Iterator<Item = walkdir::Result<DirEntry>> {
    let walk = WalkDir::new(path).follow_links(true).sort_by_file_name();
    walk.into_iter().filter_entry(is_visible)
}

/// Every visible file below `path` in a fixed order; folders that cannot be read become problems.
fn files(path: &Path, collector: &mut Collector) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in walk(path) {
        match entry {
            Ok(entry) if entry.file_type().is_file() => files.push(entry.into_path()),
            Ok(_) => {}
            Err(error) => {
                let place: Arc<Path> = error.path().unwrap_or(path).into();
                let origin = Origin::new(&place, Position::File);
                let kind = ProblemKind::MissingCaptionFile;
                collector.problem(kind, &origin, Cost::Image, error.to_string());
            }
        }
    }
    files
}

/// The error with its causes, as problems are one line of text.
fn chain(error: &DataError) -> String {
    match error {
        DataError::Read { source, .. } => format!("cannot be read: {source}"),
        other => other.to_string(),
    }
}

/// Whether some image below `path` has a caption file beside it.
pub(super) fn has_pair(path: &Path) -> bool {
    images_below(path).any(|image| caption_file(&image).is_some())
}

/// Whether there is an image below `path`.
pub(super) fn has_image(path: &Path) -> bool {
    images_below(path).next().is_some()
}

fn images_below(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = walk(path).filter_map(Result::ok).filter(|entry| entry.file_type().is_file());
    entries.map(DirEntry::into_path).filter(|path| is_image_path(path))
}
