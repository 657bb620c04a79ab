//! Tables with a line for each caption: commas, semicolons, tabs or bars between the columns, with a header
//! or, where the first column is file names, without one.
use std::path::Path;

use serde_json::Value;

use super::collect::Collector;
use super::rows::{Picture, Row, caption_keys, image_key, squashed};
use super::text_file::{TextError, TextFile};
use super::{Cost, DataError, Origin};
use crate::image::is_image_path;
use crate::quoting;

/// What may stand between columns, the likeliest first.
const SEPARATORS: [u8; 4] = [b',', b'\t', b';', b'|'];

/// Where the columns are.
struct Layout {
    separator: u8,
    /// Whether quotes enclose fields.
    is_quoted: bool,
    names: Vec<String>,
    image: usize,
    captions: Vec<usize>,
    split: Option<usize>,
    /// Bytes before the rows begin: an instruction to Excel.
    skipped: usize,
    has_header: bool,
}

/// Whether the beginning of a file is that of a table with images and captions.
pub(super) fn is_table(beginning: &TextFile) -> bool {
    layout(beginning).is_ok_and(|layout| layout.has_header)
}

/// Whether the beginning of a file is a table without a header: file names of images, then text.
pub(super) fn is_headless_table(beginning: &TextFile) -> bool {
    layout(beginning).is_ok_and(|layout| !layout.has_header)
}

/// The layout; or the names in the header, of which none is known.
fn layout(file: &TextFile) -> Result<Layout, Vec<String>> {
    let mut skipped = 0;
    let mut bytes = file.bytes();
    if let Some(end) = bytes.iter().position(|&byte| byte == b'\n')
        && bytes.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"sep="))
    {
        skipped = end + 1;
        bytes = &bytes[skipped..];
    }
    let mut best: Option<Vec<String>> = None;
    for separator in SEPARATORS {
        let is_quoted = quoting::encloses_fields(separator, bytes);
        let mut reader = reader(separator, is_quoted, bytes, true);
        let Ok(header) = reader.byte_headers() else { continue };
        let names: Vec<String> =
            header.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
        let keys: Vec<&str> = names.iter().map(String::as_str).collect();
        let place = |key: &str| keys.iter().position(|name| *name == key);
        let captions: Vec<usize> = caption_keys(&keys).into_iter().filter_map(place).collect();
        if let (Some(image), false) = (image_key(&keys).and_then(place), captions.is_empty()) {
            let split = keys.iter().position(|key| squashed(key) == "split");
            return Ok(Layout {
                separator,
                is_quoted,
                names,
                image,
                captions,
                split,
                skipped,
                has_header: true,
            });
        }
        let is_data = names.len() >= 2 && is_image_path(Path::new(numberless(&names[0])));
        if is_data {
            let names: Vec<String> = (1..=names.len()).map(|n| format!("column {n}")).collect();
            let captions = vec![names.len() - 1];
            return Ok(Layout {
                separator,
                is_quoted,
                names,
                image: 0,
                captions,
                split: None,
                skipped,
                has_header: false,
            });
        }
        if best.as_ref().is_none_or(|best| names.len() > best.len()) {
            best = Some(names);
        }
    }
    Err(best.unwrap_or_default())
}

/// The name of an image without the number of its caption: `a.jpg#0`.
fn numberless(name: &str) -> &str {
    match name.rsplit_once('#') {
        Some((name, number)) if number.parse::<u32>().is_ok() => name,
        _ => name,
    }
}

fn reader(separator: u8, is_quoted: bool, bytes: &[u8], has_header: bool) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new()
        .flexible(true)
        .has_headers(has_header)
        .delimiter(separator)
        .quoting(is_quoted)
        .from_reader(bytes)
}

/// Reads every row of a table.
pub(super) fn read(path: &Path, collector: &mut Collector) -> Result<Vec<Row>, DataError> {
    let file = TextFile::read(path)?;
    collector.encoding(path, file.converted_from);
    let layout = layout(&file).map_err(|found| {
        let keys: Vec<&str> = found.iter().map(String::as_str).collect();
        let column = if image_key(&keys).is_none() { "file_name" } else { "text" };
        DataError::Column { path: path.to_owned(), column, found: found.clone() }
    })?;
    let bytes = &file.bytes()[layout.skipped..];
    let failed =
        |error: csv::Error| DataError::Read { path: path.to_owned(), source: error.into() };
    let mut reader = reader(layout.separator, layout.is_quoted, bytes, layout.has_header);
    if layout.has_header {
        reader.byte_headers().map_err(failed)?;
    }
    // The parser closes an open quote silently at the end of the file, having swallowed the rest.
    let is_quote_open =
        layout.is_quoted && bytes.iter().filter(|&&byte| byte == b'"').count() % 2 == 1;
    let lines_before = file.bytes()[..layout.skipped].iter().filter(|&&byte| byte == b'\n').count();
    let mut rows = Vec::new();
    let mut record = csv::ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(failed)? {
        let line = record.position().map_or(1, |position| first_line(bytes, position));
        let origin = file.line(lines_before + line);
        let is_last = reader.position().byte() >= bytes.len() as u64;
        let row = if is_quote_open && is_last && record.as_slice().contains(&b'\n') {
            Err(BadRow::OpenQuote)
        } else {
            row(&record, &layout, &file, &origin)
        };
        match row {
            Ok(row) => rows.push(row),
            Err(error) => collector.malformed(&origin, Cost::Image, error.to_string()),
        }
    }
    Ok(rows)
}

/// What is wrong with a row.
#[derive(Debug, thiserror::Error)]
enum BadRow {
    #[error("a quote opens here and is never closed (expected a closing quote)")]
    OpenQuote,
    #[error("{found} fields (expected {expected})")]
    Fields { found: usize, expected: usize },
    #[error("no file_name (expected a file's name)")]
    NoName,
    #[error(transparent)]
    Text(#[from] TextError),
}

fn row(
    record: &csv::ByteRecord,
    layout: &Layout,
    file: &TextFile,
    origin: &Origin,
) -> Result<Row, BadRow> {
    let expected = layout.names.len();
    // A caption at the end of a row may hold separators that nobody quoted.
    let mut joined = None;
    if record.len() > expected && layout.captions.last() == Some(&(expected - 1)) {
        let parts: Vec<&[u8]> = record.iter().skip(expected - 1).collect();
        joined = Some(parts.join(&layout.separator));
    } else if record.len() != expected {
        return Err(BadRow::Fields { found: record.len(), expected });
    }
    let joined = joined.as_deref().map(|joined| file.text(joined)).transpose()?;
    let field = |column: usize| file.text(record.get(column).unwrap_or_default());
    let name = field(layout.image)?.trim();
    let name = if layout.has_header { name } else { numberless(name) };
    if name.is_empty() {
        return Err(BadRow::NoName);
    }
    let mut captions = Vec::new();
    for &column in &layout.captions {
        let cell = match joined {
            Some(joined) if column + 1 == expected => joined,
            _ => field(column)?,
        };
        let texts = list_in(cell).unwrap_or_else(|| vec![cell.to_owned()]);
        captions.extend(texts.into_iter().map(|text| (origin.clone(), text)));
    }
    // Of several columns the empty ones are captions that there are not.
    if layout.captions.len() > 1 && captions.iter().any(|(_, text)| !text.trim().is_empty()) {
        captions.retain(|(_, text)| !text.trim().is_empty());
    }
    let split = layout.split.and_then(|column| field(column).ok()?.parse().ok());
    let (picture, can_grow) = (Picture::Named(name.to_owned()), layout.captions.len() == 1);
    Ok(Row { picture, captions, can_grow, split, origin: origin.clone(), grounding: None })
}

/// The captions in a cell that holds a list of them, as JSON or as Python prints it.
fn list_in(cell: &str) -> Option<Vec<String>> {
    let cell = cell.trim();
    if !(cell.starts_with("[\"") || cell.starts_with("['")) || !cell.ends_with(']') {
        return None;
    }
    if let Ok(Value::Array(texts)) = serde_json::from_str(cell) {
        return texts.into_iter().map(|text| text.as_str().map(str::to_owned)).collect();
    }
    let mut texts = Vec::new();
    let mut rest = cell.strip_prefix('[')?;
    loop {
        let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        let mut text = String::new();
        let mut characters = rest[1..].char_indices();
        let end = loop {
            match characters.next()? {
                (at, character) if character == quote => break at + 1,
                (_, '\\') => text.push(match characters.next()?.1 {
                    'n' | 't' | 'r' => ' ',
                    other => other,
                }),
                (_, character) => text.push(character),
            }
        };
        texts.push(text);
        // Python parts by commas, NumPy by blanks and line ends.
        rest = rest[end + 1..].trim_start().trim_start_matches(',').trim_start();
        if rest == "]" {
            return Some(texts);
        }
    }
}

/// The line a record starts on: the parser counts the blank lines before it to the record.
fn first_line(bytes: &[u8], position: &csv::Position) -> usize {
    let start = usize::try_from(position.byte()).unwrap_or(usize::MAX);
    let blank = bytes.get(start..).unwrap_or_default();
    let blank = blank.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    usize::try_from(position.line()).unwrap_or(usize::MAX)
        + blank.filter(|&&byte| byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> TextFile {
        TextFile::of(Path::new("x.csv").into(), text.as_bytes().to_vec())
    }

    #[test]
    fn tables_are_told_from_other_text() {
        for text in [
            "image,caption\na.jpg,a dog\n",
            "image_name| comment_number| comment\na.jpg| 0| a dog .\n",
            "filepath\ttitle\tcaption\n",
            "sep=;\r\nfile_name;text\r\n",
            "file_name,split,caption_0,caption_1\n",
            "raw,sentids,split,filename,img_id\n",
        ] {
            assert!(is_table(&of(text)), "{text:?}");
        }
        assert!(is_headless_table(&of("a.jpg,a dog\nb.jpg,a cat\n")));
        assert!(is_headless_table(&of("a.jpg\ta dog\n")));
        for text in ["a dog\na cat\n", "a dog, a cat\n", "image,label\na.jpg,3\n", "", "see a.jpg"]
        {
            assert!(!is_table(&of(text)) && !is_headless_table(&of(text)), "{text:?}");
        }
    }

    #[test]
    fn a_caption_at_the_end_of_a_row_may_hold_separators() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        for (text, expected) in [
            ("image,caption\na.jpg,a dog, brown\n", "a dog, brown"),
            ("image_name| comment_number| comment\na.jpg| 0| a dog | cat .\n", " a dog | cat ."),
            ("image\tcaption\na.jpg\t\"a \"\"big\"\" dog\"\n", "a \"big\" dog"),
            ("image\tcaption\na.jpg\t\"Hello\" says a sign\n", "\"Hello\" says a sign"),
        ] {
            std::fs::write(&path, text).unwrap();
            let mut collector = Collector::new(folder.path(), crate::data::DatasetFormat::Table);
            let rows = read(&path, &mut collector).unwrap();
            let captions: Vec<&str> =
                rows.iter().flat_map(|row| &row.captions).map(|(_, text)| text.as_str()).collect();
            assert_eq!(captions, [expected], "{text:?}");
        }
    }

    #[test]
    fn a_cell_may_hold_a_list() {
        let list = |cell: &str| list_in(cell);
        let two = Some(vec!["it's a dog".to_owned(), "a \"big\" dog".to_owned()]);
        assert_eq!(list(r#"["it's a dog", "a \"big\" dog"]"#), two);
        assert_eq!(list(r#"["it's a dog", 'a "big" dog']"#), two);
        assert_eq!(list("[\"it's a dog\"\n 'a \"big\" dog']"), two);
        assert_eq!(list("[a dog]"), None);
        assert_eq!(list("['a dog"), None);
        assert_eq!(list("a dog"), None);
    }
}
