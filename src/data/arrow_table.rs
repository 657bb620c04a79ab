//! Tables as Arrow IPC: what `save_to_disk` of Hugging Face's `datasets` writes, and what lies in its cache.
//! Only the text and the places of the images are read; the images stay where they are.
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use arrow_ipc::{Field, RecordBatch, Type, root_as_message};
use serde_json::{Map, Value};

use super::collect::Collector;
use super::columnar::arrow_files;
use super::detect::{file_name, split_in_name};
use super::find::ImageFinder;
use super::rows::{Row, add_rows, caption_keys, row_of};
use super::source::{ImageSource, is_pointer_file};
use super::{Cost, DataError, LoadOptions, Origin, Position, Split};

/// The most bytes of a message's description.
const MAX_METADATA: u32 = 256 << 20;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
enum ArrowError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("damaged: {0}")]
    Damaged(&'static str),
    #[error("{0}, which is not read (expected what `datasets` writes with save_to_disk)")]
    Unsupported(&'static str),
}

pub(super) fn load(
    path: &Path,
    options: &LoadOptions,
    collector: &mut Collector,
) -> Result<(), DataError> {
    let files = if path.is_dir() { arrow_files(path) } else { vec![path.to_owned()] };
    if files.is_empty() {
        let expected = ".arrow file, as `datasets` writes them with save_to_disk";
        return Err(DataError::NoAnnotations { path: path.to_owned(), expected });
    }
    for file in files {
        let rows = read(&file, collector)?;
        let mut finder = ImageFinder::beside(&file, options);
        collector.looks_in(&finder);
        add_rows(rows, "", split_of(path, &file), &mut finder, collector);
    }
    Ok(())
}

fn split_of(root: &Path, file: &Path) -> Option<Split> {
    let folders = file.strip_prefix(root).ok().and_then(Path::parent);
    let mut folders = folders.map(Path::components).into_iter().flatten().rev();
    folders
        .find_map(|folder| folder.as_os_str().to_string_lossy().parse().ok())
        .or_else(|| split_in_name(&file_name(file)))
        .or_else(|| {
            // The folder of one split of a saved DatasetDict.
            let folder = std::fs::canonicalize(file).ok()?;
            folder.parent()?.file_name()?.to_str()?.parse().ok()
        })
}

pub(super) fn read(path: &Path, collector: &mut Collector) -> Result<Vec<Row>, DataError> {
    let mut rows = Vec::new();
    let result = Reader::open(path).and_then(|mut reader| {
        while let Some(batch) = reader.next_batch()? {
            for index in 0..batch.length {
                let origin =
                    Origin::new(&reader.path, Position::Entry { list: "rows", index: reader.rows });
                let (fields, held) = reader.row(&batch, index)?;
                reader.rows += 1;
                match row_of(fields, held, &origin, collector) {
                    Ok(Some(row)) => rows.push(row),
                    Ok(None) => collector.pass_over("conversations without an image", path),
                    Err(error) => collector.malformed(&origin, Cost::Image, error.to_string()),
                }
            }
        }
        Ok(())
    });
    match result {
        Ok(()) => Ok(rows),
        Err(_) if is_pointer_file(path) => Err(DataError::LfsPointer { path: path.to_owned() }),
        Err(ArrowError::Io(source)) => Err(DataError::Read { path: path.to_owned(), source }),
        Err(error) => Err(DataError::Arrow { path: path.to_owned(), detail: error.to_string() }),
    }
}

/// What a column holds, as far as it matters.
#[derive(Debug, Clone)]
enum Kind {
    Text {
        is_large: bool,
    },
    Bytes {
        is_large: bool,
    },
    List {
        is_large: bool,
        items: Box<Kind>,
    },
    FixedList {
        items: Box<Kind>,
    },
    Struct(Vec<(String, Kind)>),
    /// Whatever has so many buffers.
    Other {
        buffers: usize,
    },
}

/// A column of a batch.
enum Column {
    Text {
        valid: Validity,
        ends: Vec<u64>,
        text: Vec<u8>,
    },
    /// Images: where each begins and ends in the file.
    Bytes {
        valid: Validity,
        ends: Vec<u64>,
        start: u64,
    },
    List {
        valid: Validity,
        ends: Vec<u64>,
        items: Box<Column>,
    },
    Struct {
        valid: Validity,
        fields: Vec<(String, Column)>,
    },
    Other,
}

/// Which rows are not null.
struct Validity(Option<Vec<u8>>);

impl Validity {
    fn holds(&self, row: usize) -> bool {
        match &self.0 {
            None => true,
            Some(bits) => bits.get(row / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1),
        }
    }
}

struct Batch {
    length: usize,
    columns: Vec<(String, Column)>,
}

struct Reader {
    path: Arc<Path>,
    file: File,
    length: u64,
    /// Where the next message begins.
    next: u64,
    schema: Vec<(String, Kind)>,
    rows: usize,
}

/// The metadata of a message, and where its body begins and ends.
type Message = (Vec<u8>, (u64, u64));

impl Reader {
    fn open(path: &Path) -> Result<Self, ArrowError> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut magic = [0; 8];
        let read = file.read(&mut magic)?;
        // Arrow's file format is its stream within a frame.
        let next = if read == 8 && magic.starts_with(b"ARROW1") { 8 } else { 0 };
        let mut reader =
            Self { path: path.into(), file, length, next, schema: Vec::new(), rows: 0 };
        let Some((metadata, _)) = reader.message()? else {
            return Err(ArrowError::Damaged("it holds no schema"));
        };
        let message = root_as_message(&metadata)
            .map_err(|_| ArrowError::Damaged("its schema is no Arrow"))?;
        let schema = message
            .header_as_schema()
            .ok_or(ArrowError::Damaged("it does not begin with a schema"))?;
        if schema.endianness() != arrow_ipc::Endianness::Little {
            return Err(ArrowError::Unsupported("a big-endian table"));
        }
        for field in schema.fields().iter().flatten() {
            let name = field.name().unwrap_or_default();
            if field.dictionary().is_some() && !caption_keys(&[name]).is_empty() {
                return Err(ArrowError::Unsupported("a table whose captions are a dictionary"));
            }
            reader.schema.push((name.to_owned(), kind_of(&field, 0)?));
        }
        Ok(reader)
    }

    /// The description of the next message and the place of its body; `None` at the end.
    fn message(&mut self) -> Result<Option<Message>, ArrowError> {
        let word = |reader: &mut Self, at: u64| -> Result<Option<u32>, ArrowError> {
            if at.saturating_add(4) > reader.length {
                return Ok(None);
            }
            let bytes = reader.bytes(at, 4)?;
            Ok(bytes.as_slice().try_into().ok().map(u32::from_le_bytes))
        };
        let Some(mut size) = word(self, self.next)? else { return Ok(None) };
        let mut start = self.next + 4;
        if size == u32::MAX {
            let Some(next) = word(self, start)? else { return Ok(None) };
            (size, start) = (next, start + 4);
        }
        if size == 0 {
            return Ok(None);
        }
        if size > MAX_METADATA || start + u64::from(size) > self.length {
            return Err(ArrowError::Damaged("it ends within a message"));
        }
        let metadata = self.bytes(start, u64::from(size))?;
        let message =
            root_as_message(&metadata).map_err(|_| ArrowError::Damaged("a message is no Arrow"))?;
        let body = start + u64::from(size);
        let body_length = u64::try_from(message.bodyLength()).unwrap_or(u64::MAX);
        if body.saturating_add(body_length) > self.length {
            return Err(ArrowError::Damaged("it ends within a batch: it was cut short"));
        }
        self.next = body + body_length;
        Ok(Some((metadata, (body, body_length))))
    }

    fn bytes(&mut self, offset: u64, length: u64) -> Result<Vec<u8>, ArrowError> {
        self.file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        (&mut self.file).take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length {
            return Err(ArrowError::Damaged("it ends too soon"));
        }
        Ok(bytes)
    }

    fn next_batch(&mut self) -> Result<Option<Batch>, ArrowError> {
        loop {
            let Some((metadata, body)) = self.message()? else { return Ok(None) };
            let message = root_as_message(&metadata)
                .map_err(|_| ArrowError::Damaged("a message is no Arrow"))?;
            // Dictionaries belong to columns that are not read.
            let Some(batch) = message.header_as_record_batch() else { continue };
            return self.batch(&batch, body).map(Some);
        }
    }

    fn batch(&mut self, batch: &RecordBatch<'_>, body: (u64, u64)) -> Result<Batch, ArrowError> {
        if batch.compression().is_some() {
            return Err(ArrowError::Unsupported("a compressed table"));
        }
        let length = usize::try_from(batch.length())
            .map_err(|_| ArrowError::Damaged("a batch has a negative length"))?;
        let mut parts = Parts {
            nodes: batch.nodes().iter().flatten().map(|n| (n.length(), n.null_count())).collect(),
            buffers: batch.buffers().iter().flatten().map(|b| (b.offset(), b.length())).collect(),
            body,
        };
        parts.nodes.reverse();
        parts.buffers.reverse();
        let mut columns = Vec::new();
        for (name, kind) in self.schema.clone() {
            columns.push((name, self.column(&kind, &mut parts)?));
        }
        Ok(Batch { length, columns })
    }

    fn column(&mut self, kind: &Kind, parts: &mut Parts) -> Result<Column, ArrowError> {
        let (length, nulls) =
            parts.nodes.pop().ok_or(ArrowError::Damaged("a column has no description"))?;
        let length = usize::try_from(length)
            .map_err(|_| ArrowError::Damaged("a column has a negative length"))?;
        if let Kind::Other { buffers } = kind {
            for _ in 0..*buffers {
                parts.buffer()?;
            }
            return Ok(Column::Other);
        }
        let (at, size) = parts.buffer()?;
        let valid = match nulls {
            0 => Validity(None),
            _ => Validity(Some(self.bytes(at, size)?)),
        };
        Ok(match kind {
            Kind::Text { is_large } => {
                let ends = self.ends(parts, length, *is_large)?;
                let (at, size) = parts.buffer()?;
                Column::Text { valid, ends, text: self.bytes(at, size)? }
            }
            Kind::Bytes { is_large } => {
                let ends = self.ends(parts, length, *is_large)?;
                let (start, size) = parts.buffer()?;
                if ends.last().is_some_and(|&end| end > size) {
                    return Err(ArrowError::Damaged("an image ends behind its column"));
                }
                Column::Bytes { valid, ends, start }
            }
            Kind::List { is_large, items } => {
                let ends = self.ends(parts, length, *is_large)?;
                Column::List { valid, ends, items: Box::new(self.column(items, parts)?) }
            }
            Kind::FixedList { items } => {
                self.column(items, parts)?;
                Column::Other
            }
            Kind::Struct(fields) => {
                let mut columns = Vec::new();
                for (name, kind) in fields {
                    columns.push((name.clone(), self.column(kind, parts)?));
                }
                Column::Struct { valid, fields: columns }
            }
            Kind::Other { .. } => Column::Other,
        })
    }

    /// Where each row ends, and before it where the first begins. Ends that go back are an error.
    fn ends(
        &mut self,
        parts: &mut Parts,
        length: usize,
        is_large: bool,
    ) -> Result<Vec<u64>, ArrowError> {
        let (at, size) = parts.buffer()?;
        let width = if is_large { 8 } else { 4 };
        let wanted = (length as u64).saturating_add(1).saturating_mul(width);
        // A column without a row may leave out its only end.
        if length == 0 && size < width {
            return Ok(vec![0]);
        }
        if wanted > size {
            return Err(ArrowError::Damaged("a column is shorter than its batch"));
        }
        let bytes = self.bytes(at, wanted)?;
        let ends: Vec<u64> = if is_large {
            bytes.as_chunks::<8>().0.iter().map(|end| u64::from_le_bytes(*end)).collect()
        } else {
            bytes.as_chunks::<4>().0.iter().map(|end| u64::from(u32::from_le_bytes(*end))).collect()
        };
        if !ends.is_sorted() {
            return Err(ArrowError::Damaged("a row ends before it begins"));
        }
        Ok(ends)
    }

    /// A row as keys and values, and the image that it holds.
    fn row(
        &self,
        batch: &Batch,
        index: usize,
    ) -> Result<(Map<String, Value>, Option<ImageSource>), ArrowError> {
        let mut fields = Map::new();
        let mut held = None;
        for (name, column) in &batch.columns {
            let image = image_in(column, index);
            if let (Some((start, end)), true) = (image, held.is_none()) {
                let row = self.rows.to_string();
                held = Some(ImageSource::span(&self.path, &row, start, end - start));
            }
            let value = value_in(column, index)?;
            match value.get("path").and_then(Value::as_str) {
                Some(path) if image.is_some() && !fields.contains_key("file_name") => {
                    fields.insert("file_name".to_owned(), path.into());
                }
                _ if image.is_some() => {}
                _ => {
                    fields.insert(name.clone(), value);
                }
            }
        }
        Ok((fields, held))
    }
}

/// The descriptions of columns and their buffers, the next one last.
struct Parts {
    nodes: Vec<(i64, i64)>,
    buffers: Vec<(i64, i64)>,
    body: (u64, u64),
}

impl Parts {
    /// The place of the next buffer in the file.
    fn buffer(&mut self) -> Result<(u64, u64), ArrowError> {
        let damaged = ArrowError::Damaged("a column lies outside of its batch");
        let (offset, length) =
            self.buffers.pop().ok_or(ArrowError::Damaged("a column has no content"))?;
        let (Ok(offset), Ok(length)) = (u64::try_from(offset), u64::try_from(length)) else {
            return Err(damaged);
        };
        match offset.checked_add(length) {
            Some(end) if end <= self.body.1 => Ok((self.body.0 + offset, length)),
            _ => Err(damaged),
        }
    }
}

fn kind_of(field: &Field<'_>, depth: usize) -> Result<Kind, ArrowError> {
    if depth > 8 {
        return Err(ArrowError::Unsupported("a table nested so deep"));
    }
    if field.dictionary().is_some() {
        return Ok(Kind::Other { buffers: 2 });
    }
    let children = || field.children().iter().flatten().collect::<Vec<_>>();
    let items = || -> Result<Box<Kind>, ArrowError> {
        let children = children();
        let item = children.first().ok_or(ArrowError::Damaged("a list has no type"))?;
        kind_of(item, depth + 1).map(Box::new)
    };
    Ok(match field.type_type() {
        Type::Utf8 => Kind::Text { is_large: false },
        Type::LargeUtf8 => Kind::Text { is_large: true },
        Type::Binary => Kind::Bytes { is_large: false },
        Type::LargeBinary => Kind::Bytes { is_large: true },
        Type::List | Type::Map => Kind::List { is_large: false, items: items()? },
        Type::LargeList => Kind::List { is_large: true, items: items()? },
        Type::FixedSizeList => Kind::FixedList { items: items()? },
        Type::Struct_ => {
            let mut fields = Vec::new();
            for child in children() {
                let name = child.name().unwrap_or_default().to_owned();
                fields.push((name, kind_of(&child, depth + 1)?));
            }
            Kind::Struct(fields)
        }
        Type::Null => Kind::Other { buffers: 0 },
        Type::Union | Type::RunEndEncoded | Type::ListView | Type::LargeListView => {
            return Err(ArrowError::Unsupported("a table with unions or views"));
        }
        Type::Utf8View | Type::BinaryView => {
            return Err(ArrowError::Unsupported("a table with views of text"));
        }
        _ => Kind::Other { buffers: 2 },
    })
}

/// Begin and end of the image in a row of a column: of bytes, or of bytes and path.
fn image_in(column: &Column, row: usize) -> Option<(u64, u64)> {
    match column {
        Column::Bytes { valid, ends, start } if valid.holds(row) => {
            let (begin, end) = (ends.get(row)?, ends.get(row + 1)?);
            (end > begin).then(|| (start + begin, start + end))
        }
        Column::Struct { valid, fields } if valid.holds(row) => {
            let bytes = fields.iter().find(|(name, _)| name == "bytes")?;
            image_in(&bytes.1, row)
        }
        _ => None,
    }
}

fn value_in(column: &Column, row: usize) -> Result<Value, ArrowError> {
    Ok(match column {
        Column::Text { valid, ends, text } if valid.holds(row) => {
            let range = ends.get(row).zip(ends.get(row + 1));
            let range = range.and_then(|(begin, end)| {
                Some(usize::try_from(*begin).ok()?..usize::try_from(*end).ok()?)
            });
            let bytes = range
                .and_then(|range| text.get(range))
                .ok_or(ArrowError::Damaged("a text ends behind its column"))?;
            String::from_utf8_lossy(bytes).into_owned().into()
        }
        Column::List { valid, ends, items } if valid.holds(row) => {
            let (Some(&begin), Some(&end)) = (ends.get(row), ends.get(row + 1)) else {
                return Ok(Value::Null);
            };
            let mut values = Vec::new();
            for item in begin..end {
                let item = usize::try_from(item)
                    .map_err(|_| ArrowError::Damaged("a list ends behind its column"))?;
                // A list that says that it is longer than its column ends the reading.
                if !has_row(items, item) {
                    return Err(ArrowError::Damaged("a list ends behind its column"));
                }
                values.push(value_in(items, item)?);
            }
            Value::Array(values)
        }
        Column::Struct { valid, fields } if valid.holds(row) => {
            let mut object = Map::new();
            for (name, column) in fields {
                object.insert(name.clone(), value_in(column, row)?);
            }
            Value::Object(object)
        }
        _ => Value::Null,
    })
}

/// Whether a column that knows its length has this row.
fn has_row(column: &Column, row: usize) -> bool {
    match column {
        Column::Text { ends, .. } | Column::Bytes { ends, .. } | Column::List { ends, .. } => {
            row + 1 < ends.len()
        }
        Column::Struct { fields, .. } => {
            !fields.is_empty() && fields.iter().all(|(_, column)| has_row(column, row))
        }
        Column::Other => row < 1 << 16,
    }
}
