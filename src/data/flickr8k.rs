//! Flickr8k's own files: captions as `name.jpg#0<TAB>caption`, and a list of image names for each
//! split.
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::collect::{Collector, Listed, PlacedCaption};
use super::detect::{file_name, list_folder};
use super::find::{ImageFinder, name_as_id};
use super::text_file::{TextError, TextFile, folder_of};
use super::{Cost, DataError, LoadOptions, Origin, Split};

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
    let mut finder = ImageFinder::beside(&file, options);
    collector.looks_in(&finder);
    let lists = split_lists(&file)?;
    if lists.is_empty() {
        for (name, origin, captions) in captions.images {
            let image = finder.find(&[], &name);
            let id = name_as_id(&name);
            collector.add(Listed { id, image, split: None, captions, origin, grounding: None });
        }
        return Ok(());
    }
    // The lists decide what belongs to the data set: the real token file also has captions of images
    // in none of them, and of one that never existed.
    for (split, list) in lists {
        let list = TextFile::read(&list)?;
        collector.encoding(&list.path, list.converted_from);
        for (origin, text) in list.lines() {
            let name = match text {
                Ok(text) => text.trim(),
                Err(error) => {
                    collector.malformed(&origin, Cost::Image, error.to_string());
                    continue;
                }
            };
            if name.is_empty() {
                continue;
            }
            let image = captions.by_name.get(name).and_then(|&at| captions.images.get_mut(at));
            // Copied, since an image in two lists must not look as if it had no captions.
            let captions = image.map(|(_, _, captions)| captions.clone()).unwrap_or_default();
            let (id, image) = (name_as_id(name), finder.find(&[], name));
            let split = Some(split);
            collector.add(Listed { id, image, split, captions, origin, grounding: None });
        }
    }
    Ok(())
}

fn read_captions(file: &Path, collector: &mut Collector) -> Result<Captions, DataError> {
    let file = TextFile::read(file)?;
    collector.encoding(&file.path, file.converted_from);
    let mut captions = Captions::default();
    for (origin, text) in file.lines() {
        let (name, caption) = match text.map_err(BadLine::Text).and_then(parse_line) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => continue,
            Err(error) => {
                collector.malformed(&origin, Cost::Caption, error.to_string());
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

/// What is wrong with a line.
#[derive(Debug, PartialEq, thiserror::Error)]
enum BadLine {
    #[error(transparent)]
    Text(TextError),
    #[error("no tab {EXPECTED}")]
    NoTab,
    #[error("no # in {0:?} {EXPECTED}")]
    NoHash(String),
    #[error("no image name in {0:?} {EXPECTED}")]
    NoName(String),
    #[error("{0:?} is no caption number {EXPECTED}")]
    NoNumber(String),
}

const EXPECTED: &str = "(expected name#number, a tab and a caption)";

/// The image's name and the caption, nothing for a blank line, or what is wrong.
fn parse_line(line: &str) -> Result<Option<(&str, &str)>, BadLine> {
    if line.trim().is_empty() {
        return Ok(None);
    }
    let (key, caption) = line.split_once('\t').ok_or(BadLine::NoTab)?;
    let (name, number) = key.rsplit_once('#').ok_or_else(|| BadLine::NoHash(key.to_owned()))?;
    if name.trim().is_empty() {
        return Err(BadLine::NoName(key.to_owned()));
    }
    if number.trim().parse::<u32>().is_err() {
        return Err(BadLine::NoNumber(number.to_owned()));
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
    let mut lists = Vec::new();
    for file in list_folder(&folder_of(token_file))? {
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
