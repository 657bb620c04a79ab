//! Flickr8k's own files: captions as `name.jpg#0<TAB>caption`, and a list of image names for each
//! split.
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::collect::{Collector, ImageFinder, Listed, PlacedCaption, name_as_id};
use super::detect::{file_name, list_folder};
use super::text_file::{lines, read_bytes};
use super::{Cost, DataError, LoadOptions, Origin, Position, Split};

/// The captions of each image, in the order of their first lines.
#[derive(Default)]
struct Captions {
    by_name: HashMap<String, usize>,
    images: Vec<(String, Origin, Vec<PlacedCaption>)>,
}

pub(super) fn load(
    path: &Path,
    options: &LoadOptions,
    collector: &mut Collector,
) -> Result<(), DataError> {
    let file = if path.is_dir() {
        token_file(path)?.ok_or_else(|| DataError::NoAnnotations {
            path: path.to_owned(),
            expected: "Flickr8k.token.txt",
        })?
    } else {
        path.to_owned()
    };
    let mut captions = read_captions(&file, collector)?;
    let mut finder = ImageFinder::beside(&file, options.images.as_deref());
    collector.looks_in(&finder);
    let lists = split_lists(&file)?;
    if lists.is_empty() {
        for (name, origin, captions) in captions.images {
            let image = finder.find(&[], &name).map(Into::into);
            let id = name_as_id(&name);
            collector.add(Listed { id, image, split: None, captions, origin, grounding: None });
        }
        return Ok(());
    }
    // The lists decide what belongs to the data set: the real token file also has captions of images
    // in none of them, and of one that never existed.
    for (split, list) in lists {
        let bytes = read_bytes(&list)?;
        let list: Arc<Path> = list.into();
        for (line, text) in lines(&bytes) {
            let origin = Origin::new(&list, Position::Line(line));
            let name = match text {
                Ok(text) => text.trim(),
                Err(detail) => {
                    collector.malformed(&origin, Cost::Image, detail);
                    continue;
                }
            };
            if name.is_empty() {
                continue;
            }
            let image = captions.by_name.get(name).and_then(|&at| captions.images.get_mut(at));
            // Copied, since an image in two lists must not look as if it had no captions.
            let captions = image.map(|(_, _, captions)| captions.clone()).unwrap_or_default();
            let (id, image) = (name_as_id(name), finder.find(&[], name).map(Into::into));
            let split = Some(split);
            collector.add(Listed { id, image, split, captions, origin, grounding: None });
        }
    }
    Ok(())
}

fn read_captions(file: &Path, collector: &mut Collector) -> Result<Captions, DataError> {
    let bytes = read_bytes(file)?;
    let file: Arc<Path> = file.into();
    let mut captions = Captions::default();
    for (line, text) in lines(&bytes) {
        let origin = Origin::new(&file, Position::Line(line));
        let (name, caption) = match text.and_then(parse_line) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => continue,
            Err(detail) => {
                collector.malformed(&origin, Cost::Caption, detail);
                continue;
            }
        };
        let at = match captions.by_name.get(name) {
            Some(&at) => at,
            None => {
                captions.by_name.insert(name.to_owned(), captions.images.len());
                captions.images.push((name.to_owned(), origin.clone(), Vec::new()));
                captions.images.len() - 1
            }
        };
        if let Some((_, _, of_image)) = captions.images.get_mut(at) {
            of_image.push((origin, caption.to_owned()));
        }
    }
    Ok(captions)
}

/// The image's name and the caption, nothing for a blank line, or what is wrong.
fn parse_line(line: &str) -> Result<Option<(&str, &str)>, String> {
    const EXPECTED: &str = "(expected name#number, a tab and a caption)";
    if line.trim().is_empty() {
        return Ok(None);
    }
    let (key, caption) = line.split_once('\t').ok_or_else(|| format!("no tab {EXPECTED}"))?;
    let (name, number) =
        key.rsplit_once('#').ok_or_else(|| format!("no # in {key:?} {EXPECTED}"))?;
    if name.trim().is_empty() {
        return Err(format!("no image name in {key:?} {EXPECTED}"));
    }
    if number.trim().parse::<u32>().is_err() {
        return Err(format!("{number:?} is no caption number {EXPECTED}"));
    }
    Ok(Some((name.trim(), caption)))
}

/// Whether a file name, in lower case, is that of a token file (also Flickr30k's).
pub(super) fn is_token_name(name: &str) -> bool {
    name.ends_with(".token.txt") || name.ends_with(".token")
}

/// The folder's token file. The archive also holds the captions in lemmas, which nobody wants to
/// learn to say.
pub(super) fn token_file(folder: &Path) -> Result<Option<PathBuf>, DataError> {
    let files = list_folder(folder)?;
    Ok(files.into_iter().find(|file| {
        let name = file_name(file).to_ascii_lowercase();
        is_token_name(&name) && !name.contains("lemma")
    }))
}

/// The split lists beside a token file, in the order of the splits.
fn split_lists(token_file: &Path) -> Result<Vec<(Split, PathBuf)>, DataError> {
    let folder = match token_file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut lists = Vec::new();
    for file in list_folder(folder)? {
        let name = file_name(&file).to_ascii_lowercase();
        let Some(stem) = name.strip_suffix("images.txt") else { continue };
        let word = stem.rsplit(|character: char| !character.is_ascii_alphabetic()).next();
        if let Some(Ok(split)) = word.map(str::parse::<Split>) {
            lists.push((split, file));
        }
    }
    lists.sort();
    Ok(lists)
}
