//! A folder of images, each with its captions in a text file of the same stem beside it, one caption a
//! line.
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walkdir::{DirEntry, WalkDir};

use super::collect::{Collector, Listed, PlacedCaption};
use super::detect::is_hidden_entry;
use super::find::{Found, ImageFinder, Inside, Listings, slashed};
use super::housekeeping::{is_label_image, kohya_repeats, leftover_file, leftover_image};
use super::text_file::TextFile;
use super::{Cost, DataError, LoadOptions, Origin, Position, ProblemKind, Split};
use crate::image::is_image_path;

/// The caption files' extensions, in any case; the first that is there counts.
const CAPTION_EXTENSIONS: [&str; 2] = ["txt", "caption"];

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
    let roots = vec![images_root.to_owned()];
    collector.looks_in(&ImageFinder::in_folders(roots.clone(), path, options));
    let found = files(images_root, collector);
    let stems: HashSet<PathBuf> = found
        .iter()
        .filter(|file| is_image_path(file) && !is_label_image(file))
        .map(|file| file.with_extension(""))
        .collect();
    let mut folder = Sidecars {
        root: path,
        inside: Inside::new(&[images_root.to_owned(), path.to_owned()], options),
        listings: Listings::default(),
        used: BTreeSet::new(),
        repeats: BTreeMap::new(),
    };
    for image in found.iter().filter(|file| is_image_path(file)) {
        folder.add(image, images_root, &stems, collector);
    }
    folder.note_repeats(collector);
    let others = if images_root == path { found } else { files(path, collector) };
    folder.report_others(others, collector);
    Ok(())
}

/// A folder that is being read.
struct Sidecars<'a> {
    root: &'a Path,
    inside: Inside,
    listings: Listings,
    /// Caption files that belong to an image.
    used: BTreeSet<PathBuf>,
    /// Folders that are named as kohya's trainers want them, with their repeats.
    repeats: BTreeMap<String, u32>,
}

impl Sidecars<'_> {
    fn add(
        &mut self,
        image: &Path,
        images_root: &Path,
        stems: &HashSet<PathBuf>,
        collector: &mut Collector,
    ) {
        let relative = image.strip_prefix(images_root).unwrap_or(image).to_owned();
        let caption_file = match is_label_image(image) {
            true => None,
            false => {
                self.caption_file(image).or_else(|| self.caption_file(&self.root.join(&relative)))
            }
        };
        if caption_file.is_none() {
            let has_photo = |bare: &str| stems.contains(&image.with_file_name(bare));
            if let Some(leftover) = leftover_image(&relative, has_photo) {
                return collector.pass_over(leftover.label(), image);
            }
        }
        for folder in relative.parent().into_iter().flat_map(Path::components) {
            let folder = folder.as_os_str().to_string_lossy();
            if let Some(repeats) = kohya_repeats(&folder) {
                self.repeats.insert(folder.into_owned(), repeats);
            }
        }
        let file: Arc<Path> = caption_file.as_deref().unwrap_or(image).into();
        let captions = match &caption_file {
            Some(file) => read_captions(file, collector),
            None => Ok(Vec::new()),
        };
        self.used.extend(caption_file);
        let origin = Origin::new(&file, Position::File);
        let (id, split) = (slashed(&relative), split_of(&relative));
        match captions {
            Ok(captions) => {
                let image = match self.inside.holds(image) {
                    true => Found::Image(image.into()),
                    false => Found::Outside(image.to_owned()),
                };
                collector.add(Listed { id, image, split, captions, origin, grounding: None });
            }
            Err(error) => collector.malformed(&origin, Cost::Image, chain(&error)),
        }
    }

    /// The caption file of an image: of its stem, or its whole name with another extension behind it.
    fn caption_file(&mut self, image: &Path) -> Option<PathBuf> {
        let folder = image.parent()?;
        let names: Vec<OsString> = caption_names(image).collect();
        let exact = names.iter().map(|name| folder.join(name)).find(|file| file.is_file());
        // Then in the other form of Unicode or in capitals.
        exact.or_else(|| {
            names.iter().find_map(|name| self.listings.resolve(folder, Path::new(name)))
        })
    }

    /// Says that the names of folders that tell kohya's trainers how often to read them mean nothing here.
    fn note_repeats(&self, collector: &mut Collector) {
        if let Some((name, repeats)) = self.repeats.iter().find(|(_, repeats)| **repeats > 1) {
            let more = if self.repeats.len() > 1 { " and others" } else { "" };
            collector.note(format!(
                "folders named as kohya's trainers want them ({name:?}{more}): every image is read once an epoch, \
                 not {repeats} times"
            ));
        }
    }

    /// Names the caption files that belong to no image, and counts what else there is.
    fn report_others(&self, files: Vec<PathBuf>, collector: &mut Collector) {
        for file in files {
            if is_image_path(&file) || self.used.contains(&file) {
                continue;
            }
            let stem = file.file_stem().map(|stem| stem.to_string_lossy().to_ascii_lowercase());
            let is_accompanying = stem.is_some_and(|stem| ACCOMPANYING.contains(&stem.as_str()));
            let is_superseded = has(&file, CAPTION_EXTENSIONS[1])
                && self.used.contains(&file.with_extension(CAPTION_EXTENSIONS[0]));
            if let Some(leftover) = leftover_file(&file) {
                collector.pass_over(leftover.label(), &file);
            } else if is_accompanying || is_superseded {
                collector.pass_over("texts that are no captions", &file);
            } else if CAPTION_EXTENSIONS.iter().any(|extension| has(&file, extension)) {
                let origin = Origin::new(&file.into(), Position::File);
                let detail =
                    "captions without an image (expected one of the same stem beside them)";
                collector.problem(ProblemKind::MissingImage, &origin, Cost::Nothing, detail);
            } else {
                let extension =
                    file.extension().map(|extension| extension.to_string_lossy().to_lowercase());
                let kind = match extension {
                    Some(extension) => format!("other files (.{extension})"),
                    None => "other files".to_owned(),
                };
                collector.pass_over(kind, &file);
            }
        }
    }
}

/// The names that an image's caption file may have.
fn caption_names(image: &Path) -> impl Iterator<Item = OsString> + '_ {
    let of_stem = CAPTION_EXTENSIONS.iter().map(|extension| image.with_extension(extension));
    let of_stem = of_stem.filter_map(|file| file.file_name().map(ToOwned::to_owned));
    let of_whole = CAPTION_EXTENSIONS.iter().filter_map(|extension| {
        let mut name = image.file_name()?.to_owned();
        name.push(".");
        name.push(extension);
        Some(name)
    });
    of_stem.chain(of_whole)
}

/// The captions of a file. Blank lines between them are let be, but a file with nothing else holds an
/// empty caption.
fn read_captions(path: &Path, collector: &mut Collector) -> Result<Vec<PlacedCaption>, DataError> {
    let file = TextFile::read(path)?;
    collector.encoding(path, file.converted_from);
    let mut captions = Vec::new();
    let mut is_malformed = false;
    for (origin, text) in file.lines_of_any_system() {
        match text {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => captions.push((origin, text.to_owned())),
            Err(error) => {
                is_malformed = true;
                collector.malformed(&origin, Cost::Caption, error.to_string());
            }
        }
    }
    if captions.is_empty() && !is_malformed {
        captions.push((file.line(1), String::new()));
    }
    Ok(captions)
}

fn has(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// The split, where the first folder is named as one.
fn split_of(relative: &Path) -> Option<Split> {
    let mut components = relative.components();
    let first = components.next()?;
    components.next()?;
    first.as_os_str().to_str()?.parse().ok()
}

fn walk(path: &Path) -> impl Iterator<Item = walkdir::Result<DirEntry>> {
    let walk = WalkDir::new(path).follow_links(true).sort_by_file_name();
    walk.into_iter().filter_entry(|entry| !is_hidden_entry(entry))
}

/// Every visible file below `path` in a fixed order; folders that cannot be read become problems.
fn files(path: &Path, collector: &mut Collector) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in walk(path) {
        match entry {
            Ok(entry) if entry.file_type().is_file() => files.push(entry.into_path()),
            // Pipes, sockets and devices hold no photos.
            Ok(entry) if !entry.file_type().is_dir() => {
                collector.pass_over("pipes, sockets and devices", entry.path());
            }
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
    let mut listings = Listings::default();
    images_below(path).any(|image| {
        let Some(folder) = image.parent() else { return false };
        caption_names(&image).any(|name| {
            folder.join(&name).is_file() || listings.resolve(folder, Path::new(&name)).is_some()
        })
    })
}

/// Whether there is an image below `path`.
pub(super) fn has_image(path: &Path) -> bool {
    images_below(path).next().is_some()
}

fn images_below(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = walk(path).filter_map(Result::ok).filter(|entry| entry.file_type().is_file());
    entries.map(DirEntry::into_path).filter(|path| is_image_path(path))
}
