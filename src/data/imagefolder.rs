//! Hugging Face's imagefolder: `metadata.jsonl` or `metadata.csv` with `file_name` and `text`, at the
//! root or in a folder for each split.
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::collect::{Collector, ImageFinder, Listed, PlacedCaption, name_as_id, slashed};
use super::detect::{file_name, list_folder};
use super::text_file::{lines, read_bytes, utf8, without_position};
use super::{Cost, DataError, LoadOptions, Origin, Position, ProblemKind, Split};
use crate::image::is_image_path;

/// The columns that captions are found in; the first that is there counts. `text` is Hugging Face's.
const CAPTION_COLUMNS: [&str; 3] = ["text", "caption", "captions"];

/// A metadata file and the folder of a split that it lies in.
pub(super) struct Table {
    file: PathBuf,
    split: Option<Split>,
}

/// One row: an image with one caption, or with a list of them.
struct Row {
    name: String,
    captions: Vec<PlacedCaption>,
    /// One caption as a plain text, so that further rows may add captions of the same image.
    can_grow: bool,
    split: Option<Split>,
    origin: Origin,
    grounding: Option<Value>,
}

pub(super) fn load(
    path: &Path,
    options: &LoadOptions,
    collector: &mut Collector,
) -> Result<(), DataError> {
    let tables = if path.is_dir() {
        tables(path)?
    } else {
        vec![Table { file: path.to_owned(), split: None }]
    };
    if tables.is_empty() {
        let expected = "metadata.jsonl or metadata.csv, neither there nor in train/, val/ or test/";
        return Err(DataError::NoAnnotations { path: path.to_owned(), expected });
    }
    let in_folders = tables.iter().any(|table| table.split.is_some());
    for table in &tables {
        load_table(table, path, options, collector)?;
    }
    if in_folders && path.is_dir() {
        report_bare_folders(path, &tables, collector)?;
    }
    Ok(())
}

/// The metadata files of a folder: its own, then those of the folders named as splits.
pub(super) fn tables(folder: &Path) -> Result<Vec<Table>, DataError> {
    let mut tables: Vec<Table> =
        table_in(folder).map(|file| Table { file, split: None }).into_iter().collect();
    for (split, folder) in split_folders(folder)? {
        tables.extend(table_in(&folder).map(|file| Table { file, split: Some(split) }));
    }
    Ok(tables)
}

fn table_in(folder: &Path) -> Option<PathBuf> {
    let candidates = ["metadata.jsonl", "metadata.csv"].map(|name| folder.join(name));
    candidates.into_iter().find(|candidate| candidate.is_file())
}

/// The folders named as splits, in the order of the splits.
fn split_folders(folder: &Path) -> Result<Vec<(Split, PathBuf)>, DataError> {
    let entries = list_folder(folder)?.into_iter().filter(|entry| entry.is_dir());
    let mut folders: Vec<(Split, PathBuf)> = entries
        .filter_map(|entry| file_name(&entry).parse().ok().map(|split| (split, entry)))
        .collect();
    folders.sort();
    Ok(folders)
}

/// Names the split folders whose images have no metadata where others have.
fn report_bare_folders(
    path: &Path,
    tables: &[Table],
    collector: &mut Collector,
) -> Result<(), DataError> {
    if tables.iter().any(|table| table.split.is_none()) {
        return Ok(());
    }
    for (_, folder) in split_folders(path)? {
        let is_bare = table_in(&folder).is_none();
        if is_bare && list_folder(&folder)?.iter().any(|file| is_image_path(file)) {
            let detail = "images without metadata.jsonl or metadata.csv (expected one of them)";
            let origin = Origin::new(&folder.into(), Position::File);
            collector.problem(ProblemKind::MissingCaptionFile, &origin, Cost::Nothing, detail);
        }
    }
    Ok(())
}

fn load_table(
    table: &Table,
    path: &Path,
    options: &LoadOptions,
    collector: &mut Collector,
) -> Result<(), DataError> {
    let folder = match table.file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // The part of an id that the folder of a split gives.
    let prefix = match table.split {
        Some(_) => folder.strip_prefix(path).map(slashed).unwrap_or_default(),
        None => String::new(),
    };
    let mut finder = match &options.images {
        Some(images) => ImageFinder::in_folders(vec![images.join(&prefix), images.clone()]),
        None => ImageFinder::in_folders(vec![folder.to_owned()]),
    };
    collector.looks_in(&finder);
    let is_csv = table.file.extension().is_some_and(|extension| extension == "csv");
    let rows = if is_csv {
        read_csv(&table.file, collector)?
    } else {
        read_jsonl(&table.file, collector)?
    };
    for row in merge(rows, collector) {
        let name = name_as_id(&row.name);
        let id = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let split = table.split.or(row.split).or_else(|| split_of(&id));
        let image = finder.find(&[], &row.name).map(Into::into);
        let Row { captions, origin, grounding, .. } = row;
        collector.add(Listed { id, image, split, captions, origin, grounding });
    }
    Ok(())
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
        let first = by_name.get(&row.name).and_then(|&first| merged.get_mut(first));
        match first {
            Some(first) if first.can_grow && row.can_grow && first.split == row.split => {
                let is_repeated = row.captions.iter().all(|(_, caption)| {
                    first.captions.iter().any(|(_, known)| known.trim() == caption.trim())
                });
                if is_repeated {
                    let detail = format!(
                        "image {:?} with this caption is listed already at {} (expected each once)",
                        row.name, first.origin
                    );
                    let kind = ProblemKind::DuplicateImage;
                    collector.problem(kind, &row.origin, Cost::Caption, detail);
                } else {
                    first.captions.append(&mut row.captions);
                }
            }
            Some(_) => merged.push(row),
            None => {
                by_name.insert(row.name.clone(), merged.len());
                merged.push(row);
            }
        }
    }
    merged
}

fn read_jsonl(path: &Path, collector: &mut Collector) -> Result<Vec<Row>, DataError> {
    let bytes = read_bytes(path)?;
    let file: Arc<Path> = path.into();
    let mut rows = Vec::new();
    for (line, text) in lines(&bytes) {
        let origin = Origin::new(&file, Position::Line(line));
        let row = match text {
            Ok(text) if text.trim().is_empty() => continue,
            Ok(text) => parse_object(text).and_then(|fields| row_of(fields, &origin, collector)),
            Err(detail) => Err(detail),
        };
        match row {
            Ok(row) => rows.push(row),
            Err(detail) => collector.malformed(&origin, Cost::Image, detail),
        }
    }
    Ok(rows)
}

fn parse_object(line: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(line).map_err(|error| {
        let detail = without_position(&error);
        format!("column {}: {detail} (expected a JSON object)", error.column())
    })
}

/// Takes an object apart into what we know and what is kept as grounding.
fn row_of(
    mut fields: Map<String, Value>,
    origin: &Origin,
    collector: &mut Collector,
) -> Result<Row, String> {
    let name = match fields.shift_remove("file_name") {
        Some(Value::String(name)) if !name.trim().is_empty() => name,
        Some(other) => return Err(format!("file_name is {other} (expected the name of a file)")),
        None => return Err("no file_name (expected file_name and text)".to_owned()),
    };
    let split = match fields.get("split").and_then(Value::as_str).map(str::parse) {
        Some(Ok(split)) => {
            fields.shift_remove("split");
            Some(split)
        }
        _ => None,
    };
    let column = CAPTION_COLUMNS.into_iter().find(|column| fields.contains_key(*column));
    let texts = column.and_then(|column| fields.shift_remove(column)).unwrap_or(Value::Null);
    let is_plain = texts.is_string();
    let texts = match texts {
        Value::Null => Vec::new(),
        Value::Array(texts) => texts,
        Value::String(_) => vec![texts],
        other => return Err(format!("text is {other} (expected a string or a list of strings)")),
    };
    let mut captions = Vec::with_capacity(texts.len());
    for text in texts {
        match text {
            Value::String(text) => captions.push((origin.clone(), text)),
            other => {
                let detail = format!("a caption is {other} (expected a string)");
                collector.malformed(origin, Cost::Caption, detail);
            }
        }
    }
    let can_grow = is_plain && fields.is_empty();
    let grounding = if fields.is_empty() { None } else { Some(Value::Object(fields)) };
    Ok(Row { name, captions, can_grow, split, origin: origin.clone(), grounding })
}

fn read_csv(path: &Path, collector: &mut Collector) -> Result<Vec<Row>, DataError> {
    let bytes = read_bytes(path)?;
    let file: Arc<Path> = path.into();
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes.as_slice());
    let failed =
        |error: csv::Error| DataError::Read { path: path.to_owned(), source: error.into() };
    let header = reader.byte_headers().map_err(failed)?.clone();
    let columns: Vec<String> =
        header.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
    let position = |name: &str| columns.iter().position(|column| column == name);
    let missing =
        |column| DataError::Column { path: path.to_owned(), column, found: columns.clone() };
    let name_column = position("file_name").ok_or_else(|| missing("file_name"))?;
    let caption_column =
        CAPTION_COLUMNS.into_iter().find_map(position).ok_or_else(|| missing("text"))?;
    let split_column = position("split");
    // The parser closes an open quote silently at the end of the file, having swallowed the rest.
    let is_quote_open = bytes.iter().filter(|&&byte| byte == b'"').count() % 2 == 1;

    let mut rows = Vec::new();
    let mut record = csv::ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(failed)? {
        let line = record.position().map_or(1, |position| first_line(&bytes, position));
        let origin = Origin::new(&file, Position::Line(line));
        let is_last = reader.position().byte() >= bytes.len() as u64;
        if is_quote_open && is_last && record.as_slice().contains(&b'\n') {
            let detail = "a quote opens here and is never closed (expected a closing quote)";
            collector.malformed(&origin, Cost::Image, detail);
            continue;
        }
        if record.len() != columns.len() {
            let detail = format!("{} fields (expected {})", record.len(), columns.len());
            collector.malformed(&origin, Cost::Image, detail);
            continue;
        }
        let field = |column: usize| utf8(record.get(column).unwrap_or_default());
        match (field(name_column), field(caption_column)) {
            (Ok(name), Ok(_)) if name.trim().is_empty() => {
                collector.malformed(&origin, Cost::Image, "no file_name (expected a file's name)");
            }
            (Ok(name), Ok(caption)) => {
                let split = split_column.and_then(|column| field(column).ok()?.parse().ok());
                rows.push(Row {
                    name: name.trim().to_owned(),
                    captions: vec![(origin.clone(), caption.to_owned())],
                    can_grow: true,
                    split,
                    origin,
                    grounding: None,
                });
            }
            (Err(detail), _) | (_, Err(detail)) => {
                collector.malformed(&origin, Cost::Image, detail);
            }
        }
    }
    Ok(rows)
}

/// The line a record starts on: the parser counts the blank lines before it to the record.
fn first_line(bytes: &[u8], position: &csv::Position) -> usize {
    let start = usize::try_from(position.byte()).unwrap_or(usize::MAX);
    let blank = bytes.get(start..).unwrap_or_default();
    let blank = blank.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    usize::try_from(position.line()).unwrap_or(usize::MAX)
        + blank.filter(|&&byte| byte == b'\n').count()
}
