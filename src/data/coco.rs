//! COCO's captions: `{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}`, a
//! file a split, the split in the file's name.
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::collect::{Collector, ImageFinder, Listed, PlacedCaption, name_as_id};
use super::detect::{DatasetFormat, file_name, json_files, split_in_name};
use super::text_file::{Entry, read_json};
use super::{Cost, DataError, LoadOptions, Origin, Position, ProblemKind};

#[derive(Deserialize)]
struct CocoFile {
    images: Vec<Entry<CocoImage>>,
    annotations: Vec<Entry<CocoCaption>>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: ImageId,
    file_name: String,
}

#[derive(Deserialize)]
struct CocoCaption {
    image_id: ImageId,
    caption: String,
}

/// COCO counts its images; data sets made in its likeness also name them.
#[derive(Deserialize, PartialEq, Eq, Hash)]
#[serde(untagged)]
enum ImageId {
    Number(i64),
    Name(String),
}

impl fmt::Display for ImageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Name(name) => write!(formatter, "{name:?}"),
        }
    }
}

pub(super) fn load(
    path: &Path,
    options: &LoadOptions,
    collector: &mut Collector,
) -> Result<(), DataError> {
    if !path.is_dir() {
        return load_file(path, options, collector);
    }
    let files = json_files(path, DatasetFormat::Coco)?;
    if files.is_empty() {
        let expected = "COCO captions_*.json, neither there nor in annotations/";
        return Err(DataError::NoAnnotations { path: path.to_owned(), expected });
    }
    for file in files {
        load_file(&file, options, collector)?;
    }
    Ok(())
}

fn load_file(
    path: &Path,
    options: &LoadOptions,
    collector: &mut Collector,
) -> Result<(), DataError> {
    let expected = "an object with the lists \"images\" and \"annotations\"";
    let mut json = read_json::<CocoFile>(path, expected)?;
    let file: Arc<Path> = path.into();
    let mut images: Vec<(Origin, String, Vec<PlacedCaption>)> = Vec::new();
    let mut by_id = HashMap::new();
    for (index, entry) in std::mem::take(&mut json.value.images).into_iter().enumerate() {
        let origin = Origin::new(&file, Position::Entry { list: "images", index });
        let image = match entry.0 {
            Ok(image) => image,
            Err(detail) => {
                let detail = format!("{detail} (expected id and file_name)");
                collector.malformed(&origin, Cost::Image, detail);
                continue;
            }
        };
        if by_id.contains_key(&image.id) {
            let detail = format!(
                "image id {} belongs to an image listed before (expected each id once)",
                image.id
            );
            collector.problem(ProblemKind::DuplicateImage, &origin, Cost::Image, detail);
            continue;
        }
        by_id.insert(image.id, images.len());
        images.push((origin, image.file_name, Vec::new()));
    }
    for (index, entry) in std::mem::take(&mut json.value.annotations).into_iter().enumerate() {
        let origin = Origin::new(&file, Position::Entry { list: "annotations", index });
        let CocoCaption { image_id, caption } = match entry.0 {
            Ok(annotation) => annotation,
            Err(detail) => {
                let detail = format!("{detail} (expected image_id and caption)");
                collector.malformed(&origin, Cost::Caption, detail);
                continue;
            }
        };
        let image = by_id.get(&image_id).and_then(|&image| images.get_mut(image));
        match (image, json.invalid_utf8(&caption)) {
            (Some((_, _, captions)), None) => captions.push((origin, caption)),
            (Some(_), Some(detail)) => collector.malformed(&origin, Cost::Caption, detail),
            (None, _) => {
                let detail = format!(
                    "image_id {image_id} is not in images (expected the id of one of them)"
                );
                collector.problem(ProblemKind::UnknownImage, &origin, Cost::Caption, detail);
            }
        }
    }
    let name = file_name(path);
    let split = split_in_name(&name);
    let subfolders = image_subfolders(&name);
    let mut finder = ImageFinder::beside(path, options.images.as_deref());
    collector.looks_in(&finder);
    for (origin, file_name, captions) in images {
        let image = finder.find(&subfolders, &file_name).map(Into::into);
        let id = name_as_id(&file_name);
        collector.add(Listed { id, image, split, captions, origin, grounding: None });
    }
    Ok(())
}

/// `captions_val2014.json` speaks of the images in `val2014/`, or simply in `val/`. Looking there first
/// matters where both splits count their images from one.
fn image_subfolders(name: &str) -> Vec<String> {
    let stem = name.split('.').next().unwrap_or(name);
    let stem = stem.strip_prefix("captions_").unwrap_or(stem);
    let mut folders = vec![stem.to_owned()];
    let word = stem.trim_end_matches(|character: char| character.is_ascii_digit());
    folders.push(word.to_owned());
    folders.extend(split_in_name(name).map(|split| split.name().to_owned()));
    folders.retain(|folder| !folder.is_empty());
    folders.dedup();
    folders
}
