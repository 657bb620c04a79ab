//! Names and captions of a file, whatever form it has: JSON of any layout, a JSON object a line, a table,
//! the lines that `patchword caption` prints.

use std::path::Path;

use serde_json::{Map, Value};

use super::{RecordFault, ScoreFileError, table};
use crate::{encoding, lenient_json, lfs};

/// What one entry of a file says of one image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// The image's names, the one to show first.
    pub names: Vec<String>,
    /// Its captions; none where the file has no value for them.
    pub captions: Vec<String>,
    /// The split, where the file names one.
    pub split: String,
    /// Where it stands.
    pub place: String,
}

/// A file as JSON of a layout of its own, or as records.
pub(super) enum Content {
    /// One JSON document.
    Json(Value),
    /// Lines, or rows of a table.
    Records(Vec<Record>),
}

/// The keys that name an image, the best first.
pub(super) const NAMES: &[&str] = &[
    "path",
    "file_name",
    "filename",
    "image_name",
    "image_path",
    "image_file_name",
    "filepath",
    "image_file",
    "image_id",
    "image",
    "img",
    "img_id",
    "file",
    "id",
    "key",
    "name",
    "question_id",
];

/// The keys that hold captions, the best first; also with a number behind (`caption_0`).
pub(super) const CAPTIONS: &[&str] = &[
    "caption",
    "captions",
    "generated_text",
    "generated_caption",
    "prediction",
    "predicted_caption",
    "text",
    "comment",
    "sentence",
    "sentences",
    "references",
    "description",
    "raw",
];

/// Reads a file.
pub(super) fn read(path: &Path, expected: &'static str) -> Result<Content, ScoreFileError> {
    let bytes = std::fs::read(path)
        .map_err(|source| ScoreFileError::Read { path: path.to_owned(), source })?;
    if lfs::is_pointer(&bytes) {
        return Err(ScoreFileError::LfsPointer { path: path.to_owned() });
    }
    let mut text = encoding::text(&bytes);
    if text.trim().is_empty() {
        return Err(ScoreFileError::Empty { path: path.to_owned() });
    }
    // Line ends of the first Macs.
    if text.contains('\r') && !text.contains('\n') {
        text = text.replace('\r', "\n").into();
    }
    let json = |line: Option<usize>, source| ScoreFileError::Json {
        place: place(path, line),
        expected,
        source,
    };
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("").trim();
    let whole = lenient_json::parse(&text).map(|(value, _)| value);
    let error = match whole {
        Ok(value @ (Value::Array(_) | Value::Object(_))) => return Ok(Content::Json(value)),
        Ok(_) => {
            let path = path.to_owned();
            return Err(ScoreFileError::Format { path, expected });
        }
        Err(error) => error,
    };
    // A path may begin with a bracket as JSON does; a line of JSON is one.
    if first.starts_with(['{', '[']) && lenient_json::parse::<Value>(first).is_ok() {
        let mut records = Vec::new();
        for (index, line) in text.split('\n').enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let (value, _) =
                lenient_json::parse(line).map_err(|source| json(Some(index + 1), source))?;
            let wrong = |source| ScoreFileError::Record {
                place: place(path, Some(index + 1)),
                expected,
                source,
            };
            of_entry(value, &mut records, &place(path, Some(index + 1))).map_err(wrong)?;
        }
        return Ok(Content::Records(records));
    }
    match table::read(path, &text)? {
        Some(records) => Ok(Content::Records(records)),
        None => Err(json(None, error)),
    }
}

fn place(path: &Path, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("{}:{line}", path.display()),
        None => path.display().to_string(),
    }
}

/// An entry is a record, several, or a name and captions.
pub(super) fn of_entry(
    value: Value,
    records: &mut Vec<Record>,
    place: &str,
) -> Result<(), RecordFault> {
    match value {
        Value::Array(values) if values.first().is_some_and(|first| !first.is_object()) => {
            let mut values = values.into_iter();
            let name = values.next().and_then(|name| id(&name));
            let name = name.ok_or(RecordFault::NoName)?;
            let captions = captions(&name, &Value::Array(values.collect()))?;
            records.push(Record {
                names: vec![name],
                captions,
                place: place.into(),
                ..Record::default()
            });
        }
        Value::Array(values) => {
            for value in values {
                of_entry(value, records, place)?;
            }
        }
        Value::Object(fields) if name_key(&fields).is_none() && !has_caption(&fields) => {
            // An object of captions by name, one a line.
            records.extend(by_name(&fields, place)?);
        }
        Value::Object(fields) => records.push(record(&fields, place)?),
        other => return Err(RecordFault::NotAnObject(other.to_string())),
    }
    Ok(())
}

/// Whether an object is one record rather than captions by name.
pub(super) fn is_record(fields: &Map<String, Value>) -> bool {
    name_key(fields).is_some_and(|key| id(&fields[key]).is_some()) && has_caption(fields)
}

fn name_key(fields: &Map<String, Value>) -> Option<&'static str> {
    NAMES.iter().copied().find(|key| fields.contains_key(*key))
}

fn has_caption(fields: &Map<String, Value>) -> bool {
    fields.keys().any(|key| caption_rank(key).is_some())
}

/// Where a key stands among those of captions; `caption_3` stands where `caption` does.
pub(super) fn caption_rank(key: &str) -> Option<usize> {
    let key = key.trim().to_lowercase();
    let bare = key.trim_end_matches(|last: char| last.is_ascii_digit());
    let bare = bare.strip_suffix(['_', '-']).unwrap_or(bare);
    CAPTIONS.iter().position(|known| *known == key || *known == bare)
}

/// A record from an object with keys for the image and its captions.
///
/// # Errors
/// The key that is missing or holds something else.
pub(super) fn record(fields: &Map<String, Value>, place: &str) -> Result<Record, RecordFault> {
    let names: Vec<String> = NAMES.iter().filter_map(|key| fields.get(*key).and_then(id)).collect();
    if names.is_empty() {
        return Err(RecordFault::NoName);
    }
    let ranked = fields.keys().filter_map(|key| Some((caption_rank(key)?, key)));
    let Some(best) = ranked.clone().map(|(rank, _)| rank).min() else {
        return Err(RecordFault::Missing("caption"));
    };
    let mut found = Vec::new();
    for (_, key) in ranked.filter(|(rank, _)| *rank == best) {
        found.extend(captions(key, &fields[key])?);
    }
    let split = fields.get("split").and_then(Value::as_str).unwrap_or_default();
    Ok(Record { names, captions: found, split: split.into(), place: place.into() })
}

/// Records from an object of captions by name.
pub(super) fn by_name(
    fields: &Map<String, Value>,
    place: &str,
) -> Result<Vec<Record>, RecordFault> {
    let records = fields.iter().map(|(name, value)| {
        let captions = captions(name, value)?;
        Ok(Record { names: vec![name.clone()], captions, place: place.into(), ..Record::default() })
    });
    records.collect()
}

/// The captions of a key: a text, a list of them, or pycocoevalcap's list of objects; null is none.
pub(super) fn captions(key: &str, value: &Value) -> Result<Vec<String>, RecordFault> {
    let wrong = || RecordFault::NotCaptions { key: key.into(), found: value.to_string() };
    match value {
        Value::String(caption) => Ok(vec![caption.clone()]),
        Value::Null => Ok(Vec::new()),
        Value::Array(values) => {
            let lists: Result<Vec<_>, _> =
                values.iter().map(|value| captions(key, value)).collect();
            Ok(lists?.concat())
        }
        Value::Object(fields) => {
            let ranked = fields.keys().filter_map(|key| Some((caption_rank(key)?, key)));
            if let Some((_, key)) = ranked.min() {
                return captions(key, &fields[key]);
            }
            // Karpathy's sentences may have their tokens alone.
            let tokens = fields.get("tokens").and_then(Value::as_array).ok_or_else(wrong)?;
            let words: Vec<&str> = tokens.iter().filter_map(Value::as_str).collect();
            Ok(vec![words.join(" ")])
        }
        Value::Bool(_) | Value::Number(_) => Err(wrong()),
    }
}

/// A name, given as a text or a number; 42 and 42.0 are the same.
pub(super) fn id(value: &Value) -> Option<String> {
    match value {
        Value::String(name) if !name.is_empty() => Some(name.clone()),
        Value::Number(number) => Some(match (number.as_i64(), number.as_f64()) {
            (None, Some(float)) if float.fract() == 0.0 && float.abs() < 1e15 => {
                format!("{float:.0}")
            }
            _ => number.to_string(),
        }),
        _ => None,
    }
}
