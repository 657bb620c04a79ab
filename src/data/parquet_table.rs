//! Tables as parquet: Hugging Face's `data/train-00000-of-00001.parquet`, whose rows hold the images, and
//! `metadata.parquet`, whose rows name them. Images are not unpacked: each is read from its page when it is
//! wanted.
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::Type as PhysicalType;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::record::Field;
use parquet::record::reader::RowIter;
use parquet::schema::types::{Type, TypePtr};
use serde_json::{Map, Value};

use super::collect::Collector;
use super::columnar::parquet_files;
use super::detect::{file_name, split_in_name};
use super::find::ImageFinder;
use super::rows::{Row, RowError, add_rows, caption_keys, image_key, row_of};
use super::source::{ImageColumn, ImageSource, is_pointer_file};
use super::{Cost, DataError, LoadOptions, Origin, Position, Split};
use crate::damage;

pub(super) fn load(
    path: &Path,
    options: &LoadOptions,
    collector: &mut Collector,
) -> Result<(), DataError> {
    let files = if path.is_dir() { parquet_files(path) } else { vec![path.to_owned()] };
    if files.is_empty() {
        let expected = "parquet file with images and captions, neither there nor in data/";
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

/// The split that a file's name or a folder above it speaks of.
fn split_of(root: &Path, file: &Path) -> Option<Split> {
    split_in_name(&file_name(file)).or_else(|| {
        let folders = file.strip_prefix(root).ok()?.parent()?.components();
        folders.rev().find_map(|folder| folder.as_os_str().to_string_lossy().parse().ok())
    })
}

/// Whether a parquet file has a column of images and one of captions. A file that cannot be read is taken for
/// one, so that it is named and not passed over.
pub(super) fn is_table(path: &Path) -> bool {
    let Ok(metadata) = metadata(path) else { return true };
    let root = metadata.file_metadata().schema().get_fields();
    let names: Vec<&str> = root.iter().map(|field| field.name()).collect();
    image_field(root).is_some() && !caption_keys(&names).is_empty()
}

/// Whether a parquet file has a column of images or of their names.
pub(super) fn holds_images(path: &Path) -> Result<bool, DataError> {
    Ok(image_field(metadata(path)?.file_metadata().schema().get_fields()).is_some())
}

fn failed(path: &Path, error: &impl ToString) -> DataError {
    if is_pointer_file(path) {
        return DataError::LfsPointer { path: path.to_owned() };
    }
    DataError::Parquet { path: path.to_owned(), detail: error.to_string() }
}

fn metadata(path: &Path) -> Result<ParquetMetaData, DataError> {
    let file =
        File::open(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    guarded(|| ParquetMetaDataReader::new().parse_and_finish(&file))
        .map_err(|error| failed(path, &error))
}

/// What the reader makes of a damaged file may be a panic: it is an error like the others.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    damage::contained(read).unwrap_or_else(|| {
        Err(ParquetError::General("its reader failed on the damaged content".into()))
    })
}

/// The field at the root that holds images or names them.
fn image_field(fields: &[TypePtr]) -> Option<&TypePtr> {
    let names: Vec<&str> = fields.iter().map(|field| field.name()).collect();
    // A struct of bytes and path is Hugging Face's image, whatever it is called.
    fields.iter().find(|field| bytes_in(field).is_some() && field.is_group()).or_else(|| {
        image_key(&names).and_then(|key| fields.iter().find(|field| field.name() == key))
    })
}

/// The path, below the root, of the bytes of an image: `image.bytes`, or a column of bytes.
fn bytes_in(field: &Type) -> Option<Vec<String>> {
    let is_bytes = |field: &Type| {
        field.is_primitive()
            && field.get_physical_type() == PhysicalType::BYTE_ARRAY
            && !is_text(field)
    };
    if field.is_group() {
        let bytes =
            field.get_fields().iter().find(|inner| inner.name() == "bytes" && is_bytes(inner))?;
        return Some(vec![field.name().to_owned(), bytes.name().to_owned()]);
    }
    is_bytes(field).then(|| vec![field.name().to_owned()])
}

fn is_text(field: &Type) -> bool {
    use parquet::basic::{ConvertedType, LogicalType};
    let info = field.get_basic_info();
    info.converted_type() == ConvertedType::UTF8
        || matches!(info.logical_type_ref(), Some(LogicalType::String))
}

/// Reads the rows of a table, all columns but the bytes of images.
pub(super) fn read(path: &Path, collector: &mut Collector) -> Result<Vec<Row>, DataError> {
    let failed = |error: ParquetError| failed(path, &error);
    let file =
        File::open(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    let reader = guarded(|| SerializedFileReader::new(file)).map_err(failed)?;
    let schema = reader.metadata().file_metadata().schema().clone();
    let image = image_field(schema.get_fields()).cloned();
    let bytes_path = image.as_ref().and_then(|field| bytes_in(field));
    let column = match &bytes_path {
        Some(bytes_path) => BytesColumn::new(path, reader.metadata(), bytes_path).map(Arc::new),
        None => None,
    };
    let projection = without_bytes(&schema, bytes_path.as_deref()).map_err(failed)?;
    let shared: Option<Arc<dyn ImageColumn>> = column.clone().map(|column| column as _);
    let file: Arc<Path> = path.into();
    let image_name = image.as_ref().map(|field| field.name());
    let mut rows = Vec::new();
    let mut number = 0;
    for group in 0..reader.num_row_groups() {
        let has_bytes = column.as_ref().is_some_and(|column| column.has_bytes(group));
        let count = u64::try_from(reader.metadata().row_group(group).num_rows()).unwrap_or(0);
        let mut fields = match &projection {
            Some(projection) => {
                guarded(|| read_group(&reader, group, projection)).map_err(failed)?.into_iter()
            }
            None => Vec::new().into_iter(),
        };
        for _ in 0..count {
            let origin = Origin::new(&file, Position::Entry { list: "rows", index: number });
            let fields = fields.next().unwrap_or_default();
            let held = shared.as_ref().filter(|_| has_bytes);
            let held =
                held.map(|column| ImageSource::row(column, &number.to_string(), number as u64));
            let (fields, held) = prefer_image(fields, held, image_name);
            match row_of(fields, held, &origin, collector) {
                Ok(Some(row)) => rows.push(row),
                Ok(None) => collector.pass_over("conversations without an image", path),
                Err(error) => {
                    collector.malformed(&origin, Cost::Image, RowError::to_string(&error))
                }
            }
            number += 1;
        }
    }
    Ok(rows)
}

/// Makes the path within the image the row's name of it; another column may be called as one.
fn prefer_image(
    mut fields: Map<String, Value>,
    held: Option<ImageSource>,
    image: Option<&str>,
) -> (Map<String, Value>, Option<ImageSource>) {
    let path = image.and_then(|image| fields.get(image)?.get("path")?.as_str().map(str::to_owned));
    if let (Some(path), Some(image)) = (path, image) {
        fields.shift_remove(image);
        if !path.is_empty() && !fields.contains_key("file_name") {
            fields.insert("file_name".to_owned(), Value::String(path));
        }
    }
    (fields, held)
}

fn read_group(
    reader: &SerializedFileReader<File>,
    group: usize,
    projection: &Type,
) -> Result<Vec<Map<String, Value>>, ParquetError> {
    let group = reader.get_row_group(group)?;
    let rows = RowIter::from_row_group(Some(projection.clone()), group.as_ref())?;
    rows.map(|row| {
        let row = row?;
        Ok(row.get_column_iter().map(|(name, field)| (name.clone(), value_of(field))).collect())
    })
    .collect()
}

fn value_of(field: &Field) -> Value {
    match field {
        Field::Bool(value) => (*value).into(),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float(value) => (*value).into(),
        Field::Double(value) => (*value).into(),
        Field::Str(text) => text.clone().into(),
        // pandas of old wrote text without saying that it is text.
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).map_or(Value::Null, Into::into),
        Field::Group(row) => Value::Object(
            row.get_column_iter().map(|(name, field)| (name.clone(), value_of(field))).collect(),
        ),
        Field::ListInternal(list) => list.elements().iter().map(value_of).collect(),
        _ => Value::Null,
    }
}

/// The schema without the bytes of images; `None` where nothing else is left.
fn without_bytes(schema: &Type, bytes: Option<&[String]>) -> Result<Option<Type>, ParquetError> {
    let Some(bytes) = bytes else { return Ok(Some(schema.clone())) };
    let mut fields = Vec::new();
    for field in schema.get_fields() {
        if bytes.first().is_none_or(|name| name != field.name()) {
            fields.push(Arc::clone(field));
            continue;
        }
        if field.is_primitive() {
            continue;
        }
        let inner: Vec<TypePtr> = field
            .get_fields()
            .iter()
            .filter(|inner| bytes.get(1).is_none_or(|name| name != inner.name()))
            .cloned()
            .collect();
        if inner.is_empty() {
            continue;
        }
        let info = field.get_basic_info();
        let group = Type::group_type_builder(field.name())
            .with_repetition(info.repetition())
            .with_converted_type(info.converted_type())
            .with_fields(inner)
            .build()?;
        fields.push(Arc::new(group));
    }
    if fields.is_empty() {
        return Ok(None);
    }
    Type::group_type_builder(schema.name()).with_fields(fields).build().map(Some)
}

/// A column with the bytes of images.
#[derive(Debug)]
struct BytesColumn {
    path: PathBuf,
    metadata: Arc<ParquetMetaData>,
    /// Which leaf of the schema.
    leaf: usize,
    /// The first row of each group, and behind the last the number of all.
    starts: Vec<u64>,
}

impl BytesColumn {
    fn new(path: &Path, metadata: &ParquetMetaData, bytes: &[String]) -> Option<Self> {
        let columns = metadata.file_metadata().schema_descr().columns();
        let leaf = columns.iter().position(|column| column.path().parts() == bytes)?;
        let mut starts = vec![0];
        for group in metadata.row_groups() {
            let rows = u64::try_from(group.num_rows()).ok()?;
            starts.push(starts.last()? + rows);
        }
        Some(Self { path: path.to_owned(), metadata: Arc::new(metadata.clone()), leaf, starts })
    }

    /// Whether a row group holds bytes at all: where images are files, all of them are null.
    fn has_bytes(&self, group: usize) -> bool {
        let group = self.metadata.row_group(group);
        let nulls =
            group.column(self.leaf).statistics().and_then(|statistics| statistics.null_count_opt());
        nulls.is_none_or(|nulls| i64::try_from(nulls).is_ok_and(|nulls| nulls < group.num_rows()))
    }

    fn read_row(&self, row: u64) -> Result<Option<ByteArray>, ParquetError> {
        let group = self.starts.partition_point(|&start| start <= row).saturating_sub(1);
        if group >= self.metadata.num_row_groups() {
            return Err(ParquetError::General(format!("there is no row {row}")));
        }
        let skipped = usize::try_from(row - self.starts[group])?;
        let group = self.metadata.row_group(group);
        let chunk = group.column(self.leaf);
        let file = Arc::new(File::open(&self.path)?);
        let rows = usize::try_from(group.num_rows())?;
        let pages = SerializedPageReader::new(file, chunk, rows, None)?;
        let mut reader =
            ColumnReaderImpl::<ByteArrayType>::new(chunk.column_descr_ptr(), Box::new(pages));
        reader.skip_records(skipped)?;
        let (mut values, mut definitions) = (Vec::new(), Vec::new());
        reader.read_records(1, Some(&mut definitions), None, &mut values)?;
        Ok(values.pop())
    }
}

impl ImageColumn for BytesColumn {
    fn container(&self) -> &Path {
        &self.path
    }

    fn read(&self, row: u64) -> io::Result<Vec<u8>> {
        match guarded(|| self.read_row(row)) {
            Ok(Some(bytes)) => Ok(bytes.data().to_vec()),
            Ok(None) => Err(io::Error::new(io::ErrorKind::InvalidData, "the row holds no image")),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}
