//! Karpathy's JSON: `{"images": [{"filename", "filepath"?, "split", "sentences": [{"raw"}]}]}`.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::collect::{Collector, Listed};
use super::detect::{DatasetFormat, file_name, json_files};
use super::find::{ImageFinder, name_as_id};
use super::text_file::{Entry, read_json};
use super::{Cost, DataError, LoadOptions, Origin, Position, Split};

#[derive(Deserialize)]
struct KarpathyFile {
    images: Vec<Entry<KarpathyImage>>,
}

#[derive(Deserialize)]
struct KarpathyImage {
    filename: String,
    /// COCO's folder, as `val2014`.
    #[serde(default)]
    filepath: Option<String>,
    split: String,
    #[serde(default)]
    sentences: Vec<Entry<Sentence>>,
}

#[derive(Deserialize)]
struct Sentence {
    raw: String,
}

pub(super) fn load(
    path: &Path,
    options: &LoadOptions,
    collector: &mut Collector,
) -> Result<(), DataError> {
    let file = annotation_file(path)?;
    let mut json = read_json::<KarpathyFile>(&file, "an object with a list \"images\"")?;
    let mut finder = ImageFinder::beside(&file, options);
    collector.looks_in(&finder);
    collector.encoding(&file, json.converted_from);
    let file: Arc<Path> = file.into();
    for (index, entry) in std::mem::take(&mut json.value.images).into_iter().enumerate() {
        let origin = Origin::new(&file, Position::Entry { list: "images", index });
        let image = match entry.0 {
            Ok(image) => image,
            Err(detail) => {
                let detail = format!("{detail} (expected filename, split and sentences)");
                collector.malformed(&origin, Cost::Image, detail);
                continue;
            }
        };
        let split = match image.split.parse::<Split>() {
            Ok(split) => split,
            Err(error) => {
                collector.malformed(&origin, Cost::Image, error.to_string());
                continue;
            }
        };
        let mut captions = Vec::with_capacity(image.sentences.len());
        for (inner_index, sentence) in image.sentences.into_iter().enumerate() {
            let position = Position::InnerEntry {
                list: "images",
                index,
                inner_list: "sentences",
                inner_index,
            };
            let origin = Origin::new(&file, position);
            match sentence.0 {
                Ok(Sentence { raw }) => match json.damage(&raw) {
                    Some(detail) => collector.malformed(&origin, Cost::Caption, detail),
                    None => captions.push((origin, raw)),
                },
                Err(detail) => {
                    let detail = format!("{detail} (expected the sentence as \"raw\")");
                    collector.malformed(&origin, Cost::Caption, detail);
                }
            }
        }
        let folder = image.filepath.filter(|folder| !folder.is_empty());
        let (id, folders) = match folder {
            Some(folder) => (format!("{folder}/{}", image.filename), vec![folder]),
            None => (image.filename.clone(), Vec::new()),
        };
        let image = finder.find(&folders, &image.filename);
        let split = Some(split);
        let id = name_as_id(&id);
        collector.add(Listed { id, image, split, captions, origin, grounding: None });
    }
    Ok(())
}

fn annotation_file(path: &Path) -> Result<PathBuf, DataError> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let mut files = json_files(path, DatasetFormat::Karpathy)?;
    match files.len() {
        0 | 1 => files.pop().ok_or_else(|| DataError::NoAnnotations {
            path: path.to_owned(),
            expected: "Karpathy dataset_*.json with images and sentences",
        }),
        _ => Err(DataError::Ambiguous {
            path: path.to_owned(),
            files: files.iter().map(|file| file_name(file)).collect(),
        }),
    }
}
