//! Reads references and predictions, and brings them together.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use thiserror::Error;

use self::names::{Match, Names};
use self::records::{Content, Record};
use super::corpus::ScoredImage;
use crate::lfs;

mod names;
mod records;
mod table;

/// Why references or predictions could not be read or do not fit.
#[derive(Debug, Error)]
pub enum ScoreFileError {
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file, or a line of it, is not the JSON it should be.
    #[error("{place}: expected {expected}")]
    Json {
        /// The file, with the line where it has lines.
        place: String,
        /// What it should hold.
        expected: &'static str,
        /// Where it fails.
        source: serde_json::Error,
    },
    /// An entry of a file lacks what it should have.
    #[error("{place}: expected {expected}")]
    Record {
        /// The file, with the line or the number of the entry.
        place: String,
        /// What it should hold.
        expected: &'static str,
        /// What it lacks, or holds instead.
        source: RecordFault,
    },
    /// A table cannot be parsed.
    #[error("{place}: expected a table")]
    Table {
        /// The file.
        place: String,
        /// Where it fails.
        source: csv::Error,
    },
    /// A file is JSON of another kind.
    #[error("{path}: expected {expected}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// A Git LFS pointer stands in place of the file.
    #[error("{}: {}", path.display(), lfs::REMEDY)]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A split was asked for that the references do not have.
    #[error("{path} has no images in the split `{split}` (it has {known})")]
    Split {
        /// The references.
        path: PathBuf,
        /// The split.
        split: String,
        /// The splits there are.
        known: String,
    },
    /// There is nothing to score.
    #[error("{path} holds no captions")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Two predictions are for one image.
    #[error(
        "{path} has two captions for image {id}, where one is expected: as {first} and as {second}"
    )]
    Twice {
        /// The predictions.
        path: PathBuf,
        /// The image, as the references name it.
        id: String,
        /// The one prediction's name.
        first: String,
        /// The other's.
        second: String,
    },
    /// A prediction's name fits several images.
    #[error("{path}: {name} could be any of several images of the references ({candidates})")]
    Ambiguous {
        /// The predictions.
        path: PathBuf,
        /// The prediction's name.
        name: String,
        /// Images that it fits.
        candidates: String,
    },
}

/// What an entry lacks, or holds instead.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordFault {
    /// A key is missing.
    #[error("missing field `{0}`")]
    Missing(&'static str),
    /// No key names an image.
    #[error("no name of an image (keys for it: path, file_name, image_id, image, id and others)")]
    NoName,
    /// A row of a table lacks a name or a caption.
    #[error("a row needs a name and a caption; found {0:?}")]
    Row(Vec<String>),
    /// An image has none.
    #[error("no caption for {0}")]
    NoCaption(String),
    /// Something else stands where captions should.
    #[error("`{key}`: expected a caption or a list of captions, found {found}")]
    NotCaptions {
        /// The key.
        key: String,
        /// What it holds.
        found: String,
    },
    /// Something else stands where an object should.
    #[error("expected an object, found {0}")]
    NotAnObject(String),
}

const REFERENCE_FORMATS: &str = "references as Karpathy's JSON, COCO captions JSON, {id: [captions]}, JSON or JSONL of \
     objects with file_name and caption (or text), a table with such columns, or a Flickr token file";
const PREDICTION_FORMATS: &str = "predictions as COCO results [{image_id, caption}], JSONL with path and caption (or text, \
     generated_text), {id: caption}, a table with such columns, or lines of a path, a tab and a caption";

/// The references of the images to be scored.
#[derive(Debug, Clone, Default)]
pub struct References {
    images: Vec<ReferenceImage>,
    /// The captions of the file's training split, where a split was chosen and it has one.
    pub training: Option<Vec<String>>,
    /// Images without any reference, which cannot be scored.
    pub without_captions: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct ReferenceImage {
    /// The name to show first.
    names: Vec<String>,
    captions: Vec<String>,
    /// The split, where the file names one.
    split: String,
}

impl ReferenceImage {
    fn id(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }
}

/// The names of an image, any of which may be meant, and its caption.
type Prediction = (Vec<String>, String);

/// Predictions by name, in the order of the file.
#[derive(Debug, Clone, Default)]
pub struct Predictions {
    path: PathBuf,
    /// The names of the image, the one to show first, with its caption.
    captions: Vec<(Vec<String>, String)>,
}

/// Predictions and references brought together.
#[derive(Debug, Clone, Default)]
pub struct Matched {
    /// Images with a prediction, in the references' order.
    pub images: Vec<ScoredImage>,
    /// Images without.
    pub missing: Vec<String>,
    /// Predictions for no image of the references.
    pub extra: Vec<String>,
    /// The split that all of the images with a prediction are of, where the references have several.
    pub split: Option<String>,
}

/// The records of a file in any of its forms.
fn records(path: &Path, expected: &'static str) -> Result<Vec<Record>, ScoreFileError> {
    let value = match records::read(path, expected)? {
        Content::Records(records) => return Ok(records),
        Content::Json(value) => value,
    };
    let wrong = |entry: Option<usize>, source: RecordFault| {
        let file = path.display();
        let place = match entry {
            Some(entry) => format!("{file}, entry {}", entry + 1),
            None => file.to_string(),
        };
        ScoreFileError::Record { place, expected, source }
    };
    let list = |values: Vec<Value>| {
        let mut found = Vec::with_capacity(values.len());
        for (entry, value) in values.into_iter().enumerate() {
            let place = format!("{}, entry {}", path.display(), entry + 1);
            records::of_entry(value, &mut found, &place)
                .map_err(|fault| wrong(Some(entry), fault))?;
        }
        Ok(found)
    };
    let mut fields = match value {
        Value::Array(values) => return list(values),
        Value::Object(fields) => fields,
        _ => return Err(ScoreFileError::Format { path: path.to_owned(), expected }),
    };
    let has_list = |key: &str| {
        let values = fields.get(key).and_then(Value::as_array);
        values.is_some_and(|values| values.first().is_none_or(Value::is_object))
    };
    let first_image = fields.get("images").and_then(|images| images.get(0));
    if first_image.is_some_and(|image| image.get("sentences").is_some()) {
        return karpathy(&fields).map_err(|(entry, fault)| wrong(Some(entry), fault));
    }
    if has_list("annotations") {
        return coco(&fields).map_err(|(entry, fault)| wrong(Some(entry), fault));
    }
    // The list of a file that says something of itself first.
    let wrapped = ["predictions", "results", "data"].into_iter().find(|key| has_list(key));
    if let Some(Value::Array(values)) = wrapped.and_then(|key| fields.shift_remove(key)) {
        return list(values);
    }
    let place = path.display().to_string();
    if records::is_record(&fields) {
        let record = records::record(&fields, &place).map_err(|fault| wrong(None, fault))?;
        return Ok(vec![record]);
    }
    records::by_name(&fields, &place).map_err(|fault| wrong(None, fault))
}

/// The entry at fault, and what is wrong with it.
type Fault = (usize, RecordFault);

fn objects<'a>(
    fields: &'a Map<String, Value>,
    key: &'static str,
) -> impl Iterator<Item = Result<(usize, &'a Map<String, Value>), Fault>> {
    let values = fields.get(key).and_then(Value::as_array).into_iter().flatten().enumerate();
    values.map(move |(entry, value)| match value.as_object() {
        Some(object) => Ok((entry, object)),
        None => Err((entry, RecordFault::NotAnObject(format!("{value} in `{key}`")))),
    })
}

/// Karpathy's file: images with their split and sentences.
fn karpathy(fields: &Map<String, Value>) -> Result<Vec<Record>, Fault> {
    let mut records = Vec::new();
    for image in objects(fields, "images") {
        let (entry, image) = image?;
        // `filepath` is the folder of many images.
        let names: Vec<String> = ["filename", "file_name", "cocoid"]
            .iter()
            .filter_map(|key| image.get(*key).and_then(records::id))
            .collect();
        if names.is_empty() {
            return Err((entry, RecordFault::Missing("filename")));
        }
        let sentences = image.get("sentences").unwrap_or(&Value::Null);
        records.push(Record {
            names,
            captions: records::captions("sentences", sentences).map_err(|fault| (entry, fault))?,
            split: image.get("split").and_then(Value::as_str).unwrap_or_default().into(),
            ..Record::default()
        });
    }
    Ok(records)
}

/// COCO's file: images and, apart, captions.
fn coco(fields: &Map<String, Value>) -> Result<Vec<Record>, Fault> {
    let mut records: Vec<Record> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for image in objects(fields, "images") {
        let (entry, image) = image?;
        let id = image.get("id").and_then(records::id);
        let id = id.ok_or((entry, RecordFault::Missing("id")))?;
        let file = image.get("file_name").and_then(records::id);
        places.entry(id.clone()).or_insert_with(|| {
            let names = [id].into_iter().chain(file).collect();
            records.push(Record { names, ..Record::default() });
            records.len() - 1
        });
    }
    for annotation in objects(fields, "annotations") {
        let (entry, annotation) = annotation?;
        let id = annotation.get("image_id").and_then(records::id);
        let id = id.ok_or((entry, RecordFault::Missing("image_id")))?;
        let place = *places.entry(id.clone()).or_insert_with(|| {
            records.push(Record { names: vec![id], ..Record::default() });
            records.len() - 1
        });
        let caption = annotation.get("caption");
        let caption = caption.ok_or((entry, RecordFault::Missing("caption")))?;
        let captions = records::captions("caption", caption).map_err(|fault| (entry, fault))?;
        records[place].captions.extend(captions);
    }
    Ok(records)
}

impl References {
    /// Reads references: Karpathy's JSON, COCO captions JSON, an object of captions by image, JSON, JSONL or
    /// a table with a caption or several in an entry, or a token file of Flickr8k or Flickr30k. Of a file
    /// that names splits, `split` alone, if given.
    ///
    /// # Errors
    ///
    /// See [`ScoreFileError`].
    pub fn read(path: &Path, split: Option<&str>) -> Result<Self, ScoreFileError> {
        let mut all: Vec<ReferenceImage> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for Record { names, captions, split, .. } in records(path, REFERENCE_FORMATS)? {
            let Some(name) = names.first() else { continue };
            match places.get(name) {
                Some(place) => all[*place].captions.extend(captions),
                None => {
                    places.insert(name.clone(), all.len());
                    all.push(ReferenceImage { names, captions, split });
                }
            }
        }
        let mut references = Self::default();
        let mut known: Vec<String> = all.iter().map(|image| image.split.clone()).collect();
        known.sort_unstable();
        known.dedup();
        known.retain(|split| !split.is_empty());
        if let Some(split) = split.filter(|_| !known.is_empty()) {
            let mut training = Vec::new();
            all.retain_mut(|image| {
                if image.split != split && matches!(image.split.as_str(), "train" | "restval") {
                    training.append(&mut image.captions);
                }
                image.split == split
            });
            references.training = (!training.is_empty()).then_some(training);
            if all.is_empty() {
                return Err(ScoreFileError::Split {
                    path: path.to_owned(),
                    split: split.to_owned(),
                    known: known.join(", "),
                });
            }
        }
        let (images, without): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|image| !image.captions.is_empty());
        references.images = images;
        references.without_captions =
            without.into_iter().map(|image| image.id().to_owned()).collect();
        if references.images.is_empty() {
            return Err(ScoreFileError::Empty { path: path.to_owned() });
        }
        Ok(references)
    }

    /// All captions of all images: the training captions, where the file is one of those.
    pub fn into_captions(self) -> Vec<String> {
        self.images.into_iter().flat_map(|image| image.captions).collect()
    }

    /// Finds each prediction's image: by its name, in whatever form its letters are; else by the name of its
    /// file, of several the one whose folders are most alike; else by that without extension; else by its
    /// number (42, 42.0, 000000000042.jpg and COCO_val2014_000000000042.jpg are the same).
    ///
    /// # Errors
    ///
    /// Two predictions are for one image, or a prediction's name fits several.
    pub fn bring_together(&self, predictions: &Predictions) -> Result<Matched, ScoreFileError> {
        let (captions, extra) = self.captions_by_image(predictions)?;
        let mut matched = Matched { extra, ..Matched::default() };
        let splits = self.images.iter().map(|image| image.split.as_str());
        let said = splits.clone().zip(&captions).filter(|(_, caption)| caption.is_some());
        let of_said: HashSet<&str> = said.map(|(split, _)| split).collect();
        if of_said.len() == 1 && splits.clone().any(|split| !of_said.contains(split)) {
            matched.split = of_said.into_iter().next().map(str::to_owned);
        }
        for (image, caption) in self.images.iter().zip(captions) {
            match caption {
                None => matched.missing.push(image.id().to_owned()),
                Some(caption) => matched.images.push(ScoredImage {
                    id: image.id().to_owned(),
                    caption: caption.to_owned(),
                    references: image.captions.clone(),
                }),
            }
        }
        Ok(matched)
    }

    /// The caption for each image, and the names of predictions for none.
    fn captions_by_image<'a>(
        &self,
        predictions: &'a Predictions,
    ) -> Result<(Vec<Option<&'a str>>, Vec<String>), ScoreFileError> {
        let names = Names::of(
            self.images.iter().map(|image| image.names.iter().map(String::as_str).collect()),
        );
        let mut found: Vec<(Match, usize, &Prediction)> = Vec::new();
        let mut extra = Vec::new();
        for prediction in &predictions.captions {
            let candidates = prediction.0.iter().filter_map(|name| names.find(name));
            match candidates.min_by_key(|(how, places)| (places.len() > 1, *how)) {
                None => extra.push(shown(prediction)),
                Some((how, places)) if places.len() == 1 => {
                    found.push((how, places[0], prediction));
                }
                Some((_, places)) => {
                    let first = places.iter().take(3).map(|place| self.images[*place].id());
                    return Err(ScoreFileError::Ambiguous {
                        path: predictions.path.clone(),
                        name: shown(prediction),
                        candidates: first.collect::<Vec<_>>().join(", "),
                    });
                }
            }
        }
        // An image is the prediction's that has its name before it is one's that is only like it.
        found.sort_by_key(|(how, ..)| *how);
        let mut taken: Vec<Option<(Match, &Prediction)>> = vec![None; self.images.len()];
        for (how, place, prediction) in found {
            match taken[place] {
                None => taken[place] = Some((how, prediction)),
                Some((Match::Whole, _)) if how > Match::Whole => extra.push(shown(prediction)),
                Some((_, first)) => {
                    return Err(ScoreFileError::Twice {
                        path: predictions.path.clone(),
                        id: self.images[place].id().to_owned(),
                        first: shown(first),
                        second: shown(prediction),
                    });
                }
            }
        }
        let captions = taken.into_iter().map(|taken| taken.map(|(_, (_, text))| text.as_str()));
        Ok((captions.collect(), extra))
    }
}

/// How a prediction is named in messages.
fn shown((names, _): &(Vec<String>, String)) -> String {
    names.first().cloned().unwrap_or_default()
}

impl Predictions {
    /// Reads predictions: COCO results, what `patchword caption` writes (`path<TAB>caption`, or JSONL),
    /// an object of captions by image, pycocoevalcap's too, JSON, JSONL or a table with names and captions.
    ///
    /// # Errors
    ///
    /// See [`ScoreFileError`].
    pub fn read(path: &Path) -> Result<Self, ScoreFileError> {
        let mut captions = Vec::new();
        for Record { names, captions: said, place, .. } in records(path, PREDICTION_FORMATS)? {
            if said.is_empty() {
                let source = RecordFault::NoCaption(names.join(", "));
                let place = if place.is_empty() { path.display().to_string() } else { place };
                return Err(ScoreFileError::Record { place, expected: PREDICTION_FORMATS, source });
            }
            captions.extend(said.into_iter().map(|caption| (names.clone(), caption)));
        }
        if captions.is_empty() {
            return Err(ScoreFileError::Empty { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), captions })
    }
}

#[cfg(test)]
mod tests;
