//! Captions as a Parquet table, a row for each: written group by group, so that memory stays flat.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::writer::ColumnWriterImpl;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, FloatType};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::Record;

/// Rows of a group.
const GROUP: usize = 10_000;

/// Columns of a table of captions.
const SCHEMA: &str = "message captions {
    required binary path (UTF8);
    required binary caption (UTF8);
    optional double confidence;
    required float score;
    required group words (LIST) {
        repeated group list {
            required group element { required binary word (UTF8); required float probability; }
        }
    }
    required binary model (UTF8);
    optional binary path_bytes;
}";

/// Columns of Hugging Face's `metadata.parquet`.
const METADATA: &str = "message metadata {
    required binary file_name (UTF8);
    required binary text (UTF8);
}";

/// A table that is being written.
pub(super) struct ParquetTable {
    file: SerializedFileWriter<BufWriter<File>>,
    is_metadata: bool,
    rows: Rows,
}

/// The columns of rows that are not written yet.
#[derive(Default)]
struct Rows {
    paths: Vec<ByteArray>,
    captions: Vec<ByteArray>,
    confidences: Optional<f64>,
    scores: Vec<f32>,
    words: Vec<ByteArray>,
    probabilities: Vec<f32>,
    /// Of each word: 1, of a caption without words 0; and whether a word goes on a list (1) or begins one.
    word_levels: (Vec<i16>, Vec<i16>),
    models: Vec<ByteArray>,
    path_bytes: Optional<ByteArray>,
}

/// A column with gaps.
struct Optional<T> {
    values: Vec<T>,
    levels: Vec<i16>,
}

impl<T> Default for Optional<T> {
    fn default() -> Self {
        Self { values: Vec::new(), levels: Vec::new() }
    }
}

impl<T> Optional<T> {
    fn push(&mut self, value: Option<T>) {
        self.levels.push(i16::from(value.is_some()));
        self.values.extend(value);
    }
}

impl ParquetTable {
    /// `is_metadata`: the two columns of Hugging Face's `metadata.parquet`.
    pub(super) fn new(file: File, is_metadata: bool) -> io::Result<Self> {
        let schema = parse_message_type(if is_metadata { METADATA } else { SCHEMA });
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let file = schema.and_then(|schema| {
            let (schema, properties) = (Arc::new(schema), Arc::new(properties));
            SerializedFileWriter::new(BufWriter::new(file), schema, properties)
        });
        Ok(Self { file: file.map_err(as_io)?, is_metadata, rows: Rows::default() })
    }

    /// Adds a row for each caption; of metadata for the first. `name` is what it calls the photo.
    pub(super) fn write(&mut self, record: Record<'_>, name: &str) -> io::Result<()> {
        let most = if self.is_metadata { 1 } else { usize::MAX };
        for shaped in record.captions.iter().take(most) {
            let rows = &mut self.rows;
            rows.paths.push(name.into());
            rows.captions.push(shaped.text.as_str().into());
            if self.is_metadata {
                continue;
            }
            rows.confidences.push(shaped.caption.confidence());
            rows.scores.push(shaped.caption.score);
            let (definitions, repetitions) = &mut rows.word_levels;
            for (index, word) in shaped.caption.words.iter().enumerate() {
                rows.words.push(word.word.as_str().into());
                rows.probabilities.push(word.probability);
                definitions.push(1);
                repetitions.push(i16::from(index > 0));
            }
            if shaped.caption.words.is_empty() {
                definitions.push(0);
                repetitions.push(0);
            }
            rows.models.push(record.model.into());
            rows.path_bytes.push(bytes_of(&record.input.path));
        }
        if self.rows.paths.len() >= GROUP { self.write_group() } else { Ok(()) }
    }

    fn write_group(&mut self) -> io::Result<()> {
        let rows = std::mem::take(&mut self.rows);
        if rows.paths.is_empty() {
            return Ok(());
        }
        let is_metadata = self.is_metadata;
        let written = self.file.next_row_group().and_then(|mut group| {
            let group_ref = &mut group;
            column::<ByteArrayType>(group_ref, &rows.paths, None, None)?;
            column::<ByteArrayType>(group_ref, &rows.captions, None, None)?;
            if !is_metadata {
                let Optional { values, levels } = &rows.confidences;
                column::<DoubleType>(group_ref, values, Some(levels), None)?;
                column::<FloatType>(group_ref, &rows.scores, None, None)?;
                let (definitions, repetitions) = &rows.word_levels;
                let levels = (Some(definitions.as_slice()), Some(repetitions.as_slice()));
                column::<ByteArrayType>(group_ref, &rows.words, levels.0, levels.1)?;
                column::<FloatType>(group_ref, &rows.probabilities, levels.0, levels.1)?;
                column::<ByteArrayType>(group_ref, &rows.models, None, None)?;
                let Optional { values, levels } = &rows.path_bytes;
                column::<ByteArrayType>(group_ref, values, Some(levels), None)?;
            }
            group.close().map(drop)
        });
        written.map_err(as_io)
    }

    /// Writes what is left, and the table's end.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.write_group()?;
        let mut out = self.file.into_inner().map_err(as_io)?;
        io::Write::flush(&mut out)
    }
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, BufWriter<File>>,
    values: &[T::T],
    definitions: Option<&[i16]>,
    repetitions: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let missing = || ParquetError::General("a column too many".into());
    let mut column = group.next_column()?.ok_or_else(missing)?;
    let typed: &mut ColumnWriterImpl<'_, T> = column.typed::<T>();
    typed.write_batch(values, definitions, repetitions)?;
    column.close()
}

/// The bytes of a path that is no text.
fn bytes_of(path: &Path) -> Option<ByteArray> {
    let bytes = path.as_os_str().as_encoded_bytes();
    path.to_str().is_none().then(|| bytes.to_vec().into())
}

/// What the disk said, where that is the cause: a full one ends a run.
fn as_io(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(source) => io::Error::other(source),
        },
        error => io::Error::other(error),
    }
}
