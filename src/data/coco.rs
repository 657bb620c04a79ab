//! COCO's captions: `{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}`, a
//! file a split, the split in the file's name. Files made in its likeness also name their images by text, by
//! numbers with a point, by the file's name or not at all.
use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::collect::{Collector, Listed, PlacedCaption};
use super::detect::{DatasetFormat, file_name, json_files, split_in_name};
use super::find::{ImageFinder, name_as_id};
use super::rows::{caption_keys, image_key, shortened};
use super::text_file::{Json, read_json};
use super::{Cost, DataError, LoadOptions, Origin, Position, ProblemKind};

#[derive(Deserialize)]
struct CocoFile {
    images: Vec<Value>,
    annotations: Vec<Value>,
}

/// An image as it is listed.
struct CocoImage {
    origin: Origin,
    name: String,
    captions: Vec<PlacedCaption>,
}

/// What is wrong with an entry.
#[derive(Debug, thiserror::Error)]
enum BadEntry {
    #[error("no file_name (expected id and file_name)")]
    NoName,
    #[error("missing field `{0}` (expected image_id and caption)")]
    Missing(&'static str),
    #[error("{0} is no object (expected one)")]
    NoObject(String),
    #[error("{key} is {value} (expected a number or a text)")]
    BadId { key: &'static str, value: String },
    #[error("caption is {0} (expected a string)")]
    BadCaption(String),
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
    collector.encoding(path, json.converted_from);
    let mut images = Images::default();
    for (index, entry) in std::mem::take(&mut json.value.images).into_iter().enumerate() {
        let origin = Origin::new(&json.path, Position::Entry { list: "images", index });
        images.add(entry, origin, collector);
    }
    let annotations = std::mem::take(&mut json.value.annotations);
    let has_captions = annotations.iter().any(|entry| caption_key(entry.as_object()).is_some());
    if !annotations.is_empty() && !has_captions {
        return Err(DataError::NoCaptions { path: path.to_owned() });
    }
    for (index, entry) in annotations.into_iter().enumerate() {
        let origin = Origin::new(&json.path, Position::Entry { list: "annotations", index });
        add_caption(entry, &origin, &json, &mut images, collector);
    }
    let name = file_name(path);
    let split = split_in_name(&name);
    let subfolders = image_subfolders(&name);
    let mut finder = ImageFinder::beside(path, options);
    collector.looks_in(&finder);
    for CocoImage { origin, name, captions } in images.images {
        let image = finder.find(&subfolders, &name);
        let id = name_as_id(&name);
        collector.add(Listed { id, image, split, captions, origin, grounding: None });
    }
    Ok(())
}

/// The images of a file, and what annotations may call them.
#[derive(Default)]
struct Images {
    images: Vec<CocoImage>,
    by_id: HashMap<String, usize>,
    /// By the whole name, the name without folders, and that without the extension; twice means none.
    by_name: HashMap<String, Option<usize>>,
}

impl Images {
    fn add(&mut self, entry: Value, origin: Origin, collector: &mut Collector) {
        let (id, name) = match image_of(&entry) {
            Ok(image) => image,
            Err(error) => return collector.malformed(&origin, Cost::Image, error.to_string()),
        };
        let place = self.images.len();
        if let Some(id) = id {
            if self.by_id.contains_key(&id) {
                let detail = format!(
                    "image id {id} belongs to an image listed before (expected each id once)"
                );
                collector.problem(ProblemKind::DuplicateImage, &origin, Cost::Image, detail);
                return;
            }
            self.by_id.insert(id, place);
        }
        let id = name_as_id(&name);
        let bare = id.rsplit('/').next().unwrap_or(&id);
        let stem = bare.rsplit_once('.').map_or(bare, |(stem, _)| stem);
        // COCO numbers its files as it does their images: COCO_val2014_000000000139.jpg is image 139.
        let digits = &stem[stem.trim_end_matches(|c: char| c.is_ascii_digit()).len()..];
        let number = if digits.len() >= 6 { digits.trim_start_matches('0') } else { "" };
        let mut names = vec![id.as_str(), bare, stem, number];
        names.sort_unstable();
        names.dedup();
        for name in names.into_iter().filter(|name| !name.is_empty()) {
            let known = self.by_name.entry(name.to_owned()).or_insert(Some(place));
            if *known != Some(place) {
                *known = None;
            }
        }
        self.images.push(CocoImage { origin, name, captions: Vec::new() });
    }

    /// The image with this id, or else the only one that the id names.
    fn get(&mut self, id: &str) -> Option<&mut CocoImage> {
        let place = self.by_id.get(id).copied();
        let place = place.or_else(|| self.by_name.get(id).copied().flatten())?;
        self.images.get_mut(place)
    }
}

fn image_of(entry: &Value) -> Result<(Option<String>, String), BadEntry> {
    let fields =
        entry.as_object().ok_or_else(|| BadEntry::NoObject(shortened(&entry.to_string())))?;
    let id = match fields.get("id").or_else(|| fields.get("image_id")) {
        None | Some(Value::Null) => None,
        Some(id) => Some(id_in("id", id)?),
    };
    let keys: Vec<&str> = fields.keys().map(String::as_str).collect();
    let name = image_key(&keys).and_then(|key| fields.get(key)?.as_str());
    match name.filter(|name| !name.trim().is_empty()) {
        Some(name) => Ok((id, name.to_owned())),
        None => Err(BadEntry::NoName),
    }
}

/// An id as text: `7`, `7.0` and `"7"` are one.
fn id_in(key: &'static str, value: &Value) -> Result<String, BadEntry> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(match number.as_f64() {
            Some(float)
                if !number.is_i64()
                    && !number.is_u64()
                    && float.fract() == 0.0
                    && float.abs() < 1e15 =>
            {
                format!("{float:.0}")
            }
            _ => number.to_string(),
        }),
        other => Err(BadEntry::BadId { key, value: shortened(&other.to_string()) }),
    }
}

fn caption_key(fields: Option<&Map<String, Value>>) -> Option<String> {
    let keys: Vec<&str> = fields?.keys().map(String::as_str).collect();
    caption_keys(&keys).first().map(|key| (*key).to_owned())
}

fn add_caption(
    entry: Value,
    origin: &Origin,
    json: &Json<CocoFile>,
    images: &mut Images,
    collector: &mut Collector,
) {
    let (image_id, texts) = match annotation_of(&entry) {
        Ok(annotation) => annotation,
        Err(error) => return collector.malformed(origin, Cost::Caption, error.to_string()),
    };
    let Some(image) = images.get(&image_id) else {
        let detail =
            format!("image_id {image_id} is not in images (expected the id of one of them)");
        return collector.problem(ProblemKind::UnknownImage, origin, Cost::Caption, detail);
    };
    for text in texts {
        match json.damage(&text) {
            None => image.captions.push((origin.clone(), text)),
            Some(detail) => collector.malformed(origin, Cost::Caption, detail),
        }
    }
}

/// The id of an image and what is said of it.
fn annotation_of(entry: &Value) -> Result<(String, Vec<String>), BadEntry> {
    let fields =
        entry.as_object().ok_or_else(|| BadEntry::NoObject(shortened(&entry.to_string())))?;
    let keys: Vec<&str> = fields.keys().map(String::as_str).collect();
    let id = match fields.get("image_id") {
        Some(id) => id_in("image_id", id)?,
        // Some name the file instead.
        None => image_key(&keys)
            .and_then(|key| fields.get(key)?.as_str())
            .map(name_as_id)
            .ok_or(BadEntry::Missing("image_id"))?,
    };
    let key = caption_key(Some(fields)).ok_or(BadEntry::Missing("caption"))?;
    let text_of = |value: &Value| {
        let text = value.as_str().map(str::to_owned);
        text.ok_or_else(|| BadEntry::BadCaption(shortened(&value.to_string())))
    };
    let texts = match fields.get(&key) {
        Some(Value::Array(texts)) => texts.iter().map(text_of).collect::<Result<_, _>>()?,
        Some(text) => vec![text_of(text)?],
        None => Vec::new(),
    };
    Ok((id, texts))
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
