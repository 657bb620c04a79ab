//! Reads references and predictions, and brings them together.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::corpus::ScoredImage;

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
    /// A file is JSON of another kind.
    #[error("{path}: expected {expected}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
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

const REFERENCE_FORMATS: &str =
    "references as Karpathy's JSON, COCO captions JSON or {id: [captions]}";
const PREDICTION_FORMATS: &str = "predictions as COCO results [{image_id, caption}], JSONL with path and caption, {id: caption}, or lines of a path, a tab and a caption";

/// The references of the images to be scored.
#[derive(Debug, Clone, Default)]
pub struct References {
    path: PathBuf,
    images: Vec<ReferenceImage>,
    /// The captions of the file's training split, where a split was chosen and it has one.
    pub training: Option<Vec<String>>,
    /// Images without any reference, which cannot be scored.
    pub without_captions: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct ReferenceImage {
    id: String,
    /// Other names: of the file, without folder, without extension; a number.
    aliases: Vec<String>,
    captions: Vec<String>,
    /// The split, where the file names one.
    split: String,
}

/// Predictions by name, in the order of the file.
#[derive(Debug, Clone, Default)]
pub struct Predictions {
    path: PathBuf,
    captions: Vec<(String, String)>,
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

#[derive(Deserialize)]
struct KarpathyFile {
    images: Vec<KarpathyImage>,
}

#[derive(Deserialize)]
struct KarpathyImage {
    filename: String,
    #[serde(default)]
    split: String,
    #[serde(default)]
    cocoid: Option<u64>,
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Sentence {
    raw: String,
}

#[derive(Deserialize)]
struct CocoFile {
    #[serde(default)]
    images: Vec<CocoImage>,
    annotations: Vec<CocoAnnotation>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: Id,
    #[serde(default)]
    file_name: Option<String>,
}

#[derive(Deserialize)]
struct CocoAnnotation {
    image_id: Id,
    caption: String,
}

#[derive(Deserialize)]
struct JsonLine {
    #[serde(alias = "image_id", alias = "file_name", alias = "image", alias = "id")]
    path: Id,
    caption: String,
}

/// A name, given as text or as a number.
#[derive(Deserialize, Clone, PartialEq, Eq, Hash)]
#[serde(untagged)]
enum Id {
    Number(u64),
    Text(String),
}

impl Id {
    fn into_text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

impl References {
    /// Reads references: Karpathy's JSON (of it `split` alone, if given), COCO captions JSON, or an object
    /// of lists of captions.
    ///
    /// # Errors
    ///
    /// See [`ScoreFileError`].
    pub fn read(path: &Path, split: Option<&str>) -> Result<Self, ScoreFileError> {
        let value = read_json(path, REFERENCE_FORMATS)?;
        let wrong =
            || ScoreFileError::Format { path: path.to_owned(), expected: REFERENCE_FORMATS };
        let has = |key: &str| value.get(key).is_some_and(Value::is_array);
        let first_has =
            |key: &str| value["images"].get(0).is_some_and(|image| image.get(key).is_some());
        let mut references = if has("images") && first_has("sentences") {
            Self::from_karpathy(path, split, parse(path, value, REFERENCE_FORMATS)?)?
        } else if has("annotations") {
            Self::from_coco(parse(path, value, REFERENCE_FORMATS)?)
        } else {
            let map = value.as_object().ok_or_else(wrong)?;
            let mut images = Vec::with_capacity(map.len());
            for (id, captions) in map {
                let captions = match captions {
                    Value::String(caption) => vec![caption.clone()],
                    Value::Array(captions) => {
                        let texts =
                            captions.iter().map(|caption| caption.as_str().map(str::to_owned));
                        texts.collect::<Option<_>>().ok_or_else(wrong)?
                    }
                    _ => return Err(wrong()),
                };
                images.push(ReferenceImage {
                    id: id.clone(),
                    captions,
                    ..ReferenceImage::default()
                });
            }
            Self { images, ..Self::default() }
        };
        path.clone_into(&mut references.path);
        let (images, without): (Vec<_>, Vec<_>) =
            references.images.into_iter().partition(|image| !image.captions.is_empty());
        references.images = images;
        references.without_captions = without.into_iter().map(|image| image.id).collect();
        if references.images.is_empty() {
            return Err(ScoreFileError::Empty { path: path.to_owned() });
        }
        Ok(references)
    }

    fn from_karpathy(
        path: &Path,
        split: Option<&str>,
        file: KarpathyFile,
    ) -> Result<Self, ScoreFileError> {
        let mut references = Self::default();
        let mut training = Vec::new();
        let mut known: Vec<String> = Vec::new();
        for image in file.images {
            let captions: Vec<String> =
                image.sentences.into_iter().map(|sentence| sentence.raw).collect();
            if !known.contains(&image.split) {
                known.push(image.split.clone());
            }
            if split.is_some_and(|split| split != image.split) {
                if matches!(image.split.as_str(), "train" | "restval") {
                    training.extend(captions);
                }
                continue;
            }
            references.images.push(ReferenceImage {
                id: image.filename,
                aliases: image.cocoid.iter().map(u64::to_string).collect(),
                captions,
                split: image.split,
            });
        }
        if let (Some(split), true) = (split, references.images.is_empty()) {
            let known = known.join(", ");
            return Err(ScoreFileError::Split {
                path: path.to_owned(),
                split: split.to_owned(),
                known,
            });
        }
        references.training = (!training.is_empty()).then_some(training);
        Ok(references)
    }

    fn from_coco(file: CocoFile) -> Self {
        let mut images = Vec::new();
        let mut places = HashMap::new();
        for image in file.images {
            places.insert(image.id.clone(), images.len());
            let aliases = image.file_name.into_iter().collect();
            let id = image.id.into_text();
            images.push(ReferenceImage { id, aliases, ..ReferenceImage::default() });
        }
        for annotation in file.annotations {
            let place = *places.entry(annotation.image_id.clone()).or_insert(images.len());
            if place == images.len() {
                let id = annotation.image_id.into_text();
                images.push(ReferenceImage { id, ..ReferenceImage::default() });
            }
            images[place].captions.push(annotation.caption);
        }
        Self { images, ..Self::default() }
    }

    /// All captions of all images: the training captions, where the file is one of those.
    pub fn into_captions(self) -> Vec<String> {
        self.images.into_iter().flat_map(|image| image.captions).collect()
    }

    /// Finds each prediction's image: by its name, else by the name of its file, else by that without
    /// extension.
    ///
    /// # Errors
    ///
    /// Two predictions are for one image, or a prediction's name fits several.
    pub fn bring_together(&self, predictions: &Predictions) -> Result<Matched, ScoreFileError> {
        let names = Names::of(&self.images);
        let mut captions: Vec<Option<(&str, &str)>> = vec![None; self.images.len()];
        let mut extra = Vec::new();
        for (name, caption) in &predictions.captions {
            let place = match names.find(name) {
                [] => {
                    extra.push(name.clone());
                    continue;
                }
                [place] => *place,
                several => {
                    let first = several.iter().take(3).filter_map(|place| self.images.get(*place));
                    let first: Vec<&str> = first.map(|image| image.id.as_str()).collect();
                    return Err(ScoreFileError::Ambiguous {
                        path: predictions.path.clone(),
                        name: name.clone(),
                        candidates: first.join(", "),
                    });
                }
            };
            if let Some((first, _)) = captions[place] {
                return Err(ScoreFileError::Twice {
                    path: predictions.path.clone(),
                    id: self.images[place].id.clone(),
                    first: first.to_owned(),
                    second: name.clone(),
                });
            }
            captions[place] = Some((name, caption));
        }
        let mut matched = Matched { extra, ..Matched::default() };
        let splits = self.images.iter().map(|image| image.split.as_str());
        let said = splits.clone().zip(&captions).filter(|(_, caption)| caption.is_some());
        let of_said: HashSet<&str> = said.map(|(split, _)| split).collect();
        if of_said.len() == 1 && splits.clone().any(|split| !of_said.contains(split)) {
            matched.split = of_said.into_iter().next().map(str::to_owned);
        }
        for (image, caption) in self.images.iter().zip(captions) {
            match caption {
                None => matched.missing.push(image.id.clone()),
                Some((_, caption)) => matched.images.push(ScoredImage {
                    id: image.id.clone(),
                    caption: caption.to_owned(),
                    references: image.captions.clone(),
                }),
            }
        }
        Ok(matched)
    }
}

/// Images by their names, from the most to the least exact.
struct Names {
    levels: [HashMap<String, Vec<usize>>; 3],
}

impl Names {
    fn of(images: &[ReferenceImage]) -> Self {
        let mut levels: [HashMap<String, Vec<usize>>; 3] = Default::default();
        for (place, image) in images.iter().enumerate() {
            let names = std::iter::once(&image.id).chain(&image.aliases);
            let mut seen = HashSet::new();
            for (level, name) in names.flat_map(|name| Self::forms(name).into_iter().enumerate()) {
                if seen.insert((level, name.to_owned())) {
                    levels[level].entry(name.to_owned()).or_default().push(place);
                }
            }
        }
        Self { levels }
    }

    /// The name, without its folder, and without its extension too.
    fn forms(name: &str) -> [&str; 3] {
        let file = name.rsplit(['/', '\\']).next().unwrap_or(name);
        let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
        [name, file, if stem.is_empty() { file } else { stem }]
    }

    fn find(&self, name: &str) -> &[usize] {
        let found = Self::forms(name)
            .into_iter()
            .zip(&self.levels)
            .find_map(|(form, level)| level.get(form));
        found.map_or(&[], Vec::as_slice)
    }
}

impl Predictions {
    /// Reads predictions: COCO results, what `patchword caption` writes (`path<TAB>caption`, or JSONL), or an object
    /// of captions.
    ///
    /// # Errors
    ///
    /// See [`ScoreFileError`].
    pub fn read(path: &Path) -> Result<Self, ScoreFileError> {
        let text = read_text(path)?;
        let wrong =
            || ScoreFileError::Format { path: path.to_owned(), expected: PREDICTION_FORMATS };
        let mut captions = Vec::new();
        let whole = serde_json::from_str::<Value>(&text);
        let one_line = |value: &Value| {
            let is_text = |key: &str| value.get(key).is_some_and(Value::is_string);
            is_text("caption") && is_text("path")
        };
        match whole {
            Ok(value @ Value::Array(_)) => {
                for line in parse::<Vec<JsonLine>>(path, value, PREDICTION_FORMATS)? {
                    captions.push((line.path.into_text(), line.caption));
                }
            }
            Ok(Value::Object(map)) if !one_line(&Value::Object(map.clone())) => {
                for (id, caption) in map {
                    let caption = match &caption {
                        Value::String(caption) => Some(caption.as_str()),
                        Value::Array(only) if only.len() == 1 => only[0].as_str(),
                        _ => None,
                    };
                    captions.push((id, caption.ok_or_else(wrong)?.to_owned()));
                }
            }
            Err(_) if is_tab_separated(&text) => {
                // A path may hold a tab, a caption does not.
                let lines = text.lines().filter_map(|line| line.rsplit_once('\t'));
                captions.extend(lines.map(|(id, caption)| (id.to_owned(), caption.to_owned())));
            }
            Err(error) if !text.trim_start().starts_with('{') => {
                let place = path.display().to_string();
                return Err(ScoreFileError::Json {
                    place,
                    expected: PREDICTION_FORMATS,
                    source: error,
                });
            }
            _ => {
                for (index, line) in text.lines().enumerate() {
                    if line.trim().is_empty() {
                        continue;
                    }
                    let line: JsonLine =
                        serde_json::from_str(line).map_err(|source| ScoreFileError::Json {
                            place: format!("{}:{}", path.display(), index + 1),
                            expected: PREDICTION_FORMATS,
                            source,
                        })?;
                    captions.push((line.path.into_text(), line.caption));
                }
            }
        }
        if captions.is_empty() {
            return Err(ScoreFileError::Empty { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), captions })
    }
}

/// Whether every line is a path, a tab and a caption, as `patchword caption` prints them.
fn is_tab_separated(text: &str) -> bool {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty()).peekable();
    let is_json = text.trim_start().starts_with(['{', '[']);
    !is_json && lines.peek().is_some() && lines.all(|line| line.contains('\t'))
}

fn read_text(path: &Path) -> Result<String, ScoreFileError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ScoreFileError::Read { path: path.to_owned(), source })?;
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}

fn read_json(path: &Path, expected: &'static str) -> Result<Value, ScoreFileError> {
    serde_json::from_str(&read_text(path)?).map_err(|source| ScoreFileError::Json {
        place: path.display().to_string(),
        expected,
        source,
    })
}

fn parse<T: serde::de::DeserializeOwned>(
    path: &Path,
    value: Value,
    expected: &'static str,
) -> Result<T, ScoreFileError> {
    serde_json::from_value(value).map_err(|source| ScoreFileError::Json {
        place: path.display().to_string(),
        expected,
        source,
    })
}
