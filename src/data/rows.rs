//! Rows of a table, whatever file it is in: which key names the image, which hold its captions.
use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::collect::{Collector, Listed, PlacedCaption};
use super::find::{Found, ImageFinder, name_as_id};
use super::source::ImageSource;
use super::{Cost, Origin, ProblemKind, Split};

/// Keys that name an image, the first that is there counts, as [`squashed`].
const IMAGE_KEYS: [&str; 17] = [
    "filename",
    "imagefilename",
    "imagepath",
    "image",
    "images",
    "filenames",
    "filepath",
    "file",
    "imgpath",
    "imagefile",
    "imagename",
    "img",
    "path",
    "photo",
    "picture",
    "imgname",
    "jpg",
];

/// Parts of keys that name another image than the one that is described.
const OTHER_IMAGES: [&str; 10] =
    ["mask", "depth", "cond", "control", "target", "label", "segm", "edge", "pose", "thumb"];

/// Keys that hold captions, the first that is there counts, as [`squashed`]. `text` is Hugging Face's.
const CAPTION_KEYS: [&str; 20] = [
    "text",
    "caption",
    "captions",
    "texts",
    "sentence",
    "sentences",
    "description",
    "descriptions",
    "comment",
    "comments",
    "raw",
    "sentencesraw",
    "captionstr",
    "referencestrs",
    "alttext",
    "txt",
    "conversations",
    "conversation",
    "messages",
    "annotation",
];

/// Keys of a caption within a list of objects.
const INNER_KEYS: [&str; 6] = ["raw", "caption", "text", "sentence", "value", "description"];

/// Keys that hold a split.
const SPLIT_KEYS: [&str; 4] = ["split", "set", "setname", "subset"];

/// A key without case, blanks and signs: `file_name`, `fileName` and `File Name` are one.
pub(super) fn squashed(key: &str) -> String {
    key.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Which of `keys` names the image.
pub(super) fn image_key<'a>(keys: &[&'a str]) -> Option<&'a str> {
    first_of(keys, &IMAGE_KEYS).or_else(|| {
        // `left_file_name`, as Hugging Face lets one call it.
        let named = |key: &&&str| {
            let key = squashed(key);
            key.ends_with("filename") && !OTHER_IMAGES.iter().any(|other| key.contains(other))
        };
        keys.iter().find(named).copied()
    })
}

/// Which of `keys` hold captions: one, or several that are numbered, in their order.
pub(super) fn caption_keys<'a>(keys: &[&'a str]) -> Vec<&'a str> {
    if let Some(key) = first_of(keys, &CAPTION_KEYS) {
        return vec![key];
    }
    let mut numbered: Vec<(u32, &str)> = keys
        .iter()
        .filter_map(|key| {
            let key_squashed = squashed(key);
            let name = key_squashed.trim_end_matches(|c: char| c.is_ascii_digit());
            let number = key_squashed[name.len()..].parse().ok()?;
            CAPTION_KEYS.contains(&name).then_some((number, *key))
        })
        .collect();
    numbered.sort_unstable();
    if !numbered.is_empty() {
        return numbered.into_iter().map(|(_, key)| key).collect();
    }
    let is_caption = |key: &&&str| {
        let key = squashed(key);
        key.ends_with("caption") || key.ends_with("captions")
    };
    keys.iter().find(is_caption).into_iter().copied().collect()
}

fn first_of<'a>(keys: &[&'a str], wanted: &[&str]) -> Option<&'a str> {
    wanted.iter().find_map(|wanted| keys.iter().find(|key| squashed(key) == *wanted).copied())
}

/// The image of a row.
pub(super) enum Picture {
    /// A name, to be looked up.
    Named(String),
    /// The image itself, and the name that the row gives it.
    Held { image: ImageSource, name: String },
}

impl Picture {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Named(name) | Self::Held { name, .. } => name,
        }
    }
}

/// One row: an image with one caption, or with a list of them.
pub(super) struct Row {
    pub picture: Picture,
    pub captions: Vec<PlacedCaption>,
    /// One caption as a plain text, so that further rows may add captions of the same image.
    pub can_grow: bool,
    pub split: Option<Split>,
    pub origin: Origin,
    pub grounding: Option<Value>,
}

/// What is wrong with a row.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum RowError {
    #[error("{0}")]
    Text(#[from] super::text_file::TextError),
    #[error("column {column}: {detail} (expected a JSON object)")]
    Json { column: usize, detail: String },
    #[error("no file_name (expected file_name and text; found {found})", found = Keys(keys))]
    NoImage { keys: Vec<String> },
    #[error("{key} is {value} (expected the name of a file)")]
    NotAName { key: String, value: String },
    #[error("{key} names {count} images (expected one)")]
    SeveralImages { key: String, count: usize },
    #[error("{key} is {value} (expected a string or a list of strings)")]
    NotACaption { key: String, value: String },
    #[error("{value} is no JSON object (expected file_name and text)")]
    NotAnObject { value: String },
}

/// The keys of a row, for people.
struct Keys<'a>(&'a [String]);

impl std::fmt::Display for Keys<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return write!(formatter, "no key");
        }
        write!(formatter, "the keys {}", shortened(&self.0.join(", ")))
    }
}

/// A value short enough for a message.
pub(super) fn shortened(text: &str) -> String {
    const MOST: usize = 120;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Takes an object apart into what we know and what is kept as grounding. `held` is the image, where the
/// row holds it and does not only name it. `None` for a row that has no image and need not: a conversation.
pub(super) fn row_of(
    mut fields: Map<String, Value>,
    held: Option<ImageSource>,
    origin: &Origin,
    collector: &mut Collector,
) -> Result<Option<Row>, RowError> {
    let keys: Vec<String> = fields.keys().cloned().collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let is_conversation = caption_keys(&keys).first().is_some_and(|key| is_conversation(key));
    let picture = match image_key(&keys) {
        Some(key) => {
            let value = fields.shift_remove(key).unwrap_or(Value::Null);
            match (name_in(key, &value), held) {
                (Ok(Some(name)), Some(image)) => Picture::Held { image, name },
                (_, Some(image)) => held_picture(image),
                (Ok(Some(name)), None) => Picture::Named(name),
                (Ok(None), None) if is_conversation => return Ok(None),
                (Ok(None), None) => {
                    return Err(RowError::NotAName {
                        key: key.to_owned(),
                        value: value.to_string(),
                    });
                }
                (Err(error), None) => return Err(error),
            }
        }
        None => match held {
            Some(image) => held_picture(image),
            None if is_conversation => return Ok(None),
            None => {
                return Err(RowError::NoImage {
                    keys: keys.iter().map(|k| (*k).to_owned()).collect(),
                });
            }
        },
    };
    let split_key = first_of(&keys, &SPLIT_KEYS);
    let split = split_key.and_then(|key| fields.get(key)?.as_str()?.parse().ok());
    if let (Some(key), Some(_)) = (split_key, split) {
        fields.shift_remove(key);
    }
    let (captions, is_plain) = captions_in(&mut fields, &keys, origin, collector)?;
    let is_flat = fields.values().all(|value| !value.is_object() && !value.is_array());
    let grounding = if fields.is_empty() { None } else { Some(Value::Object(fields)) };
    let origin = origin.clone();
    Ok(Some(Row { picture, captions, can_grow: is_plain && is_flat, split, origin, grounding }))
}

fn held_picture(image: ImageSource) -> Picture {
    let name = image.path().file_name().map(|name| name.to_string_lossy().into_owned());
    let container = image.container().and_then(Path::file_stem).map(|stem| stem.to_string_lossy());
    let name = match (container, name) {
        (Some(container), Some(name)) => format!("{container}/{name}"),
        (_, name) => name.unwrap_or_default(),
    };
    Picture::Held { image, name }
}

/// The name of an image in a value: a text, a list of one, or an object with a path.
fn name_in(key: &str, value: &Value) -> Result<Option<String>, RowError> {
    match value {
        Value::String(name) if !name.trim().is_empty() => Ok(Some(name.clone())),
        Value::String(_) | Value::Null => Ok(None),
        Value::Array(names) => match names.as_slice() {
            [] => Ok(None),
            [name] => name_in(key, name),
            names => Err(RowError::SeveralImages { key: key.to_owned(), count: names.len() }),
        },
        Value::Object(image) => {
            let keys = ["path", "file_name", "url"];
            let name = keys.iter().find_map(|key| image.get(*key).filter(|name| name.is_string()));
            name.map_or(Ok(None), |name| name_in(key, name))
        }
        other => {
            Err(RowError::NotAName { key: key.to_owned(), value: shortened(&other.to_string()) })
        }
    }
}

fn is_conversation(key: &str) -> bool {
    matches!(squashed(key).as_str(), "conversations" | "conversation" | "messages")
}

/// The captions of a row, and whether it is one in a plain text.
fn captions_in(
    fields: &mut Map<String, Value>,
    keys: &[&str],
    origin: &Origin,
    collector: &mut Collector,
) -> Result<(Vec<PlacedCaption>, bool), RowError> {
    let mut captions = Vec::new();
    let mut is_plain = true;
    let caption_keys = caption_keys(keys);
    for key in &caption_keys {
        let value = fields.shift_remove(*key).unwrap_or(Value::Null);
        is_plain &= value.is_string() && caption_keys.len() == 1;
        let texts = match value {
            Value::Null => Vec::new(),
            Value::Array(turns) if is_conversation(key) => reply(&turns).into_iter().collect(),
            Value::Array(texts) => texts,
            text @ (Value::String(_) | Value::Object(_)) => vec![text],
            other => {
                let value = shortened(&other.to_string());
                return Err(RowError::NotACaption { key: (*key).to_owned(), value });
            }
        };
        for text in texts {
            match plain_text(text) {
                Ok(text) if text.contains(['\0', '\u{fffd}']) => {
                    let detail = format!(
                        "a caption holds what is no text: {:?} (expected UTF-8)",
                        shortened(&text)
                    );
                    collector.malformed(origin, Cost::Caption, detail);
                }
                Ok(text) => captions.push((origin.clone(), text)),
                Err(other) => {
                    let detail = format!(
                        "a caption is {} (expected a string)",
                        shortened(&other.to_string())
                    );
                    collector.malformed(origin, Cost::Caption, detail);
                }
            }
        }
    }
    Ok((captions, is_plain))
}

/// The text of a caption: itself, or in an object, as Karpathy's `{"raw": …}`.
fn plain_text(value: Value) -> Result<String, Value> {
    match value {
        Value::String(text) => Ok(text),
        Value::Object(mut object) => {
            let key = INNER_KEYS.iter().find(|key| object.get(**key).is_some_and(Value::is_string));
            match key.and_then(|key| object.shift_remove(*key)) {
                Some(Value::String(text)) => Ok(text),
                _ => Err(Value::Object(object)),
            }
        }
        other => Err(other),
    }
}

/// What the model says first in a conversation: LLaVA's captions are the replies to a request for one.
fn reply(turns: &[Value]) -> Option<Value> {
    turns.iter().find_map(|turn| {
        let of = |keys: [&str; 2]| keys.iter().find_map(|key| turn.get(*key));
        let speaker = of(["from", "role"])?.as_str()?;
        if !matches!(speaker, "gpt" | "assistant" | "model" | "chatbot") {
            return None;
        }
        match of(["value", "content"])? {
            Value::Array(parts) => parts.iter().find_map(|part| part.get("text")).cloned(),
            text => Some(text.clone()),
        }
    })
}

/// Adds the rows of a table. `prefix` is the part of an id that the table's folder gives, `split` what the
/// table's place says.
pub(super) fn add_rows(
    rows: Vec<Row>,
    prefix: &str,
    split: Option<Split>,
    finder: &mut ImageFinder,
    collector: &mut Collector,
) {
    for row in merge(rows, collector) {
        let Row { picture, captions, origin, grounding, .. } = row;
        let name = name_as_id(picture.name());
        let id = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let split = split.or(row.split).or_else(|| split_of(&id));
        let image = match picture {
            Picture::Named(name) => finder.find(&[], &name),
            Picture::Held { image, .. } => Found::Image(image),
        };
        collector.add(Listed { id, image, split, captions, origin, grounding });
    }
}

/// The split, where the name's first folder is named as one.
fn split_of(name: &str) -> Option<Split> {
    name.split_once('/').and_then(|(folder, _)| folder.parse().ok())
}

/// Joins rows that each give one caption of the same image; a row that repeats a caption is a mistake.
fn merge(rows: Vec<Row>, collector: &mut Collector) -> Vec<Row> {
    let mut merged: Vec<Row> = Vec::with_capacity(rows.len());
    let mut by_name: HashMap<String, usize> = HashMap::new();
    for mut row in rows {
        if matches!(row.picture, Picture::Held { .. }) {
            merged.push(row);
            continue;
        }
        let name = row.picture.name().to_owned();
        let first = by_name.get(&name).and_then(|&first| merged.get_mut(first));
        match first {
            Some(first) if first.can_grow && row.can_grow && first.split == row.split => {
                let is_repeated = row.captions.iter().all(|(_, caption)| {
                    first.captions.iter().any(|(_, known)| known.trim() == caption.trim())
                });
                if is_repeated {
                    let detail = format!(
                        "image {name:?} with this caption is listed already at {} (expected each once)",
                        first.origin
                    );
                    let kind = ProblemKind::DuplicateImage;
                    collector.problem(kind, &row.origin, Cost::Caption, detail);
                } else {
                    first.captions.append(&mut row.captions);
                }
            }
            Some(_) => merged.push(row),
            None => {
                by_name.insert(name, merged.len());
                merged.push(row);
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_many_tables_are_known() {
        assert_eq!(image_key(&["mask_file_name", "file_name", "text"]), Some("file_name"));
        assert_eq!(image_key(&["text", "image_file_name"]), Some("image_file_name"));
        assert_eq!(image_key(&["mask_file_name", "left_file_name"]), Some("left_file_name"));
        assert_eq!(image_key(&["Image Path", "Caption"]), Some("Image Path"));
        assert_eq!(image_key(&["caption", "url"]), None);
        assert_eq!(caption_keys(&["image", "caption"]), ["caption"]);
        assert_eq!(
            caption_keys(&["caption_1", "image", "caption_0", "caption_10"]),
            ["caption_0", "caption_1", "caption_10"]
        );
        assert_eq!(caption_keys(&["image", "blip_caption"]), ["blip_caption"]);
        assert_eq!(caption_keys(&["image_name", " comment_number", " comment"]), [" comment"]);
        assert!(caption_keys(&["image", "label"]).is_empty());
    }
}
