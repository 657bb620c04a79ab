//! Tables as JSON: an object a line, a list of objects as BLIP and LLaVA have it, or an object whose keys
//! are the images.
use std::path::Path;

use serde_json::{Map, Value};

use super::collect::Collector;
use super::rows::{Row, RowError, caption_keys, image_key, row_of, shortened};
use super::text_file::{TextFile, without_position};
use super::{Cost, DataError, Origin, Position};
use crate::image::is_image_path;
use crate::lenient_json;

/// Keys of an object that wrap the list of rows.
const WRAPPERS: [&str; 5] = ["data", "annotations", "images", "rows", "samples"];

/// Whether an entry is a row: it has an image, and a caption or a conversation.
pub(super) fn is_row(entry: &Value) -> bool {
    let Some(fields) = entry.as_object() else { return false };
    let keys: Vec<&str> = fields.keys().map(String::as_str).collect();
    image_key(&keys).is_some() && !caption_keys(&keys).is_empty()
}

/// Whether the beginning of a JSON file is that of a table. One object alone is that of one image, as other
/// programs write them, unless the file `has_lines` of objects.
pub(super) fn is_table(beginning: &str, has_lines: bool) -> bool {
    let text = beginning.trim_start();
    if let Some(list) = text.strip_prefix('[') {
        return first_object(list).is_some_and(|(row, _)| is_row(&row));
    }
    let wrapped = WRAPPERS.iter().find_map(|key| {
        let (_, list) = text.split_once(&format!("\"{key}\""))?;
        first_object(list.trim_start().strip_prefix(':')?.trim_start().strip_prefix('[')?)
    });
    let is_wrapped = wrapped.is_some_and(|(row, _)| is_row(&row));
    is_wrapped
        || begins_as_mapping(text)
        || first_object(text).is_some_and(|(row, rest)| {
            is_row(&row) && (has_lines || rest.trim_start().starts_with('{'))
        })
}

/// The object that a text begins with, if all of it is there, and the rest of the text.
fn first_object(text: &str) -> Option<(Value, &str)> {
    let text = text.trim_start();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = values.next()?.ok().filter(Value::is_object)?;
    Some((value, text.get(values.byte_offset()..).unwrap_or_default()))
}

/// Whether an object that maps names of images to captions begins: `{"a.jpg": "a dog"}`.
fn begins_as_mapping(text: &str) -> bool {
    let name = text.strip_prefix('{').and_then(|text| text.trim_start().strip_prefix('"'));
    name.and_then(|text| text.split_once('"'))
        .is_some_and(|(name, _)| name.len() < 4096 && is_image_path(Path::new(name)))
}

/// Reads an object a line; a file that holds one list is read as that.
pub(super) fn read_lines(path: &Path, collector: &mut Collector) -> Result<Vec<Row>, DataError> {
    let file = TextFile::read(path)?;
    collector.encoding(path, file.converted_from);
    let first = file.bytes().iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'[') {
        let text = String::from_utf8_lossy(file.bytes());
        if let Ok((Value::Array(entries), _)) = lenient_json::parse(&text) {
            return Ok(rows_of(entries, &file, "", collector));
        }
    }
    let mut rows = Vec::new();
    for (origin, text) in file.lines() {
        let row = match text {
            Ok(text) if text.trim().is_empty() => continue,
            Ok(text) => {
                parse_object(text).and_then(|fields| row_of(fields, None, &origin, collector))
            }
            Err(error) => Err(error.into()),
        };
        add(row, &origin, &file, &mut rows, collector);
    }
    Ok(rows)
}

fn add(
    row: Result<Option<Row>, RowError>,
    origin: &Origin,
    file: &TextFile,
    rows: &mut Vec<Row>,
    collector: &mut Collector,
) {
    match row {
        Ok(Some(row)) => rows.push(row),
        Ok(None) => collector.pass_over("conversations without an image", &file.path),
        Err(error) => collector.malformed(origin, Cost::Image, error.to_string()),
    }
}

fn parse_object(line: &str) -> Result<Map<String, Value>, RowError> {
    let (value, _) = lenient_json::parse(line).map_err(|error| RowError::Json {
        column: error.column(),
        detail: without_position(&error),
    })?;
    match value {
        Value::Object(fields) => Ok(fields),
        Value::Array(values) => as_pair(values),
        other => Err(RowError::NotAnObject { value: shortened(&other.to_string()) }),
    }
}

/// The row that `["a.jpg", "a dog"]` is.
fn as_pair(values: Vec<Value>) -> Result<Map<String, Value>, RowError> {
    let is_pair = values.len() >= 2 && values.iter().all(Value::is_string);
    let mut values = values.into_iter();
    match (values.next(), is_pair) {
        (Some(name), true) => {
            let fields = [("file_name".to_owned(), name), ("text".to_owned(), values.collect())];
            Ok(fields.into_iter().collect())
        }
        (first, _) => {
            let value = Value::Array(first.into_iter().chain(values).collect());
            Err(RowError::NotAnObject { value: shortened(&value.to_string()) })
        }
    }
}

/// Reads a JSON file: a list of objects, an object with such a list, or one that maps images to captions.
/// A file of several objects is read line by line.
pub(super) fn read_file(path: &Path, collector: &mut Collector) -> Result<Vec<Row>, DataError> {
    let file = TextFile::read(path)?;
    let text = String::from_utf8_lossy(file.bytes());
    let parsed = lenient_json::parse::<Value>(&text);
    drop(text);
    let value = match parsed {
        Ok((value, _)) => value,
        Err(error) if error.to_string().contains("trailing characters") => {
            return read_lines(path, collector);
        }
        Err(error) => {
            return Err(DataError::Json {
                path: path.to_owned(),
                line: error.line(),
                column: error.column(),
                detail: without_position(&error),
                expected: "a list of objects with an image and a caption",
            });
        }
    };
    collector.encoding(path, file.converted_from);
    let mut object = match value {
        Value::Array(entries) => return Ok(rows_of(entries, &file, "", collector)),
        Value::Object(object) => object,
        _ => return Err(DataError::Empty { path: path.to_owned() }),
    };
    for key in WRAPPERS {
        if object.get(key).and_then(Value::as_array).is_some_and(|list| list.iter().any(is_row))
            && let Some(Value::Array(entries)) = object.shift_remove(key)
        {
            return Ok(rows_of(entries, &file, key, collector));
        }
    }
    let entries = object.into_iter().map(|(name, value)| {
        let mut fields = match value {
            Value::Object(fields) => fields,
            captions => Map::from_iter([("text".to_owned(), captions)]),
        };
        fields.insert("file_name".to_owned(), Value::String(name));
        Value::Object(fields)
    });
    Ok(rows_of(entries.collect(), &file, "", collector))
}

fn rows_of(
    entries: Vec<Value>,
    file: &TextFile,
    list: &'static str,
    collector: &mut Collector,
) -> Vec<Row> {
    let mut rows = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate() {
        let origin = Origin::new(&file.path, Position::Entry { list, index });
        let row = match entry {
            Value::Object(fields) => Ok(fields),
            Value::Array(values) => as_pair(values),
            other => Err(RowError::NotAnObject { value: shortened(&other.to_string()) }),
        };
        let row = row.and_then(|fields| row_of(fields, None, &origin, collector));
        add(row, &origin, file, &mut rows, collector);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_images_are_told_from_other_json() {
        for text in [
            r#"[{"image": "a.jpg", "caption": ["a dog"]}, {"ima"#,
            r#"[{"id": "1", "image": "a.jpg", "conversations": [{"from": "gpt", "value": "x"}]}]"#,
            r#"{"a.jpg": "a dog", "b.jp"#,
            r#"{"photos/a.jpg": {"caption": "a dog"}}"#,
            r#"{"version": 1, "data": [{"image_path": "a.jpg", "caption_str": "a"}, {"#,
            "{\"file_name\": \"a.jpg\", \"text\": \"a\"}\n{\"file_name\"",
        ] {
            assert!(is_table(text, false), "{text}");
        }
        for text in [
            r#"[{"image_id": 1, "caption": "a"}]"#,
            r#"{"url": "http://x/a.jpg", "caption": "a", "key": "0", "status": "success"}"#,
            r#"{"features": {"image": {}}}"#,
            r#"{"file_name": "a.jpg", "caption": "a dog"}"#,
            "[1, 2]",
            "",
        ] {
            assert!(!is_table(text, false), "{text}");
        }
        assert!(is_table(r#"{"file_name": "a.jpg", "caption": "a dog"}"#, true));
    }
}
