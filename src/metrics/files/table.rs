//! Names and captions in rows: CSV with any separator, Flickr's token files, and the lines that
//! `patchword caption` prints.

use std::path::Path;

use super::records::{NAMES, Record, caption_rank};
use super::{RecordFault, ScoreFileError};
use crate::escape::unescape;
use crate::quoting;

/// The records of a table; `None` where the text is none.
pub(super) fn read(path: &Path, text: &str) -> Result<Option<Vec<Record>>, ScoreFileError> {
    let lines = || text.lines().filter(|line| !line.trim().is_empty());
    let Some(first) = lines().next() else { return Ok(None) };
    if let Some(columns) = SEPARATORS.iter().find_map(|separator| Columns::of(first, *separator)) {
        return columns.read(path, text).map(Some);
    }
    if lines().all(|line| line.contains('\t')) {
        let numbered = lines().all(|line| token_line(line).is_some());
        let records = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let records = records.filter_map(|(index, line)| {
            let (name, caption) = match numbered {
                true => token_line(line).map(|(name, caption)| (name.into(), caption.into()))?,
                // Who does not escape tabs may have one in a path, but not in a caption.
                false => {
                    line.rsplit_once('\t').map(|(name, caption)| (field(name), field(caption)))?
                }
            };
            let mut record = one(path, index + 1, name, caption);
            // Nor does such a program escape what parts the folders of Windows.
            let raw = line.rsplit_once('\t').map_or(line, |(name, _)| name);
            if !numbered && record.names[0] != raw {
                record.names.push(raw.to_owned());
            }
            Some(record)
        });
        return Ok(Some(records.collect()));
    }
    // Without a header a line begins with the name of a file.
    let files = |line: &str| {
        let (name, caption) = line.split_once(',')?;
        let extension = Path::new(name.trim().trim_matches('"')).extension()?;
        ["jpg", "jpeg", "png", "webp"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
            .then(|| (name.trim().trim_matches('"').to_owned(), unquoted(caption)))
    };
    let rows: Option<Vec<(String, String)>> = lines().map(files).collect();
    Ok(rows.map(|rows| {
        rows.into_iter()
            .zip(1..)
            .map(|((name, caption), line)| one(path, line, name, caption))
            .collect()
    }))
}

const SEPARATORS: [u8; 4] = [b'\t', b',', b';', b'|'];

fn one(path: &Path, line: usize, name: String, caption: String) -> Record {
    let place = format!("{}:{line}", path.display());
    Record { names: vec![name], captions: vec![caption], place, ..Record::default() }
}

/// A field as `patchword caption` wrote it. Bytes that are no text are what they are in a message.
fn field(text: &str) -> String {
    String::from_utf8_lossy(&unescape(text)).into_owned()
}

/// A line of Flickr8k's and Flickr30k's token files: `name.jpg#0`, a tab and a caption.
fn token_line(line: &str) -> Option<(&str, &str)> {
    let (name, caption) = line.split_once('\t')?;
    let (name, number) = name.rsplit_once('#')?;
    let is_number = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    (is_number && name.contains('.')).then_some((name, caption))
}

fn unquoted(field: &str) -> String {
    let field = field.trim();
    match field.strip_prefix('"').and_then(|field| field.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => field.to_owned(),
    }
}

/// What the header of a table says.
struct Columns {
    separator: u8,
    names: Vec<usize>,
    captions: Vec<usize>,
    split: Option<usize>,
    /// How many columns there are.
    width: usize,
}

impl Columns {
    /// `None` where the line has no column of names or none of captions.
    fn of(header: &str, separator: u8) -> Option<Self> {
        let titles: Vec<String> = header
            .split(char::from(separator))
            .map(|title| unquoted(title).trim().to_lowercase())
            .collect();
        let place = |name: &&str| titles.iter().position(|title| title == *name);
        let names: Vec<usize> = NAMES.iter().filter_map(place).collect();
        let ranks =
            || titles.iter().enumerate().filter_map(|(at, title)| Some((caption_rank(title)?, at)));
        let best = ranks().map(|(rank, _)| rank).min()?;
        let captions = ranks().filter(|(rank, _)| *rank == best).map(|(_, at)| at).collect();
        let (split, width) = (place(&"split"), titles.len());
        (!names.is_empty()).then_some(Self { separator, names, captions, split, width })
    }

    fn read(&self, path: &Path, text: &str) -> Result<Vec<Record>, ScoreFileError> {
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(self.separator)
            .quoting(quoting::encloses_fields(self.separator, text.as_bytes()))
            .flexible(true)
            .from_reader(text.as_bytes());
        let mut records = Vec::new();
        for row in reader.records() {
            let row = row.map_err(|error| ScoreFileError::Table {
                place: path.display().to_string(),
                source: error,
            })?;
            let line = row.position().map_or(0, csv::Position::line);
            let place = format!("{}:{line}", path.display());
            let cell = |at: usize| row.get(at).map(str::trim).filter(|cell| !cell.is_empty());
            let names: Vec<String> =
                self.names.iter().filter_map(|at| cell(*at)).map(str::to_owned).collect();
            let mut captions: Vec<String> = self
                .captions
                .iter()
                .filter_map(|at| row.get(*at))
                .map(|cell| cell.trim().to_owned())
                .collect();
            // A caption at the end of a row may hold separators that nobody quoted.
            if row.len() > self.width
                && self.captions.last() == Some(&(self.width - 1))
                && let Some(last) = captions.last_mut()
            {
                let separator = char::from(self.separator).to_string();
                let parts: Vec<&str> = row.iter().skip(self.width - 1).collect();
                *last = parts.join(&separator).trim().to_owned();
            }
            if captions.is_empty() {
                captions.extend(row.iter().next_back().and_then(numbered_caption));
            }
            // Of several columns some may be empty; the only one is a caption without words.
            if captions.len() > 1 {
                captions.retain(|caption| !caption.is_empty());
            }
            if names.is_empty() || captions.is_empty() {
                let expected = "a table of names and captions";
                let source = RecordFault::Row(row.iter().map(str::to_owned).collect());
                return Err(ScoreFileError::Record { place, expected, source });
            }
            let split = self.split.and_then(cell).unwrap_or_default().to_owned();
            records.push(Record { names, captions, split, place });
        }
        Ok(records)
    }
}

/// The caption of a row that lacks the separator before it, as one of Flickr30k's `results.csv` does
/// (`name.jpg| 4   A dog runs .`).
fn numbered_caption(cell: &str) -> Option<String> {
    let (number, caption) = cell.trim().split_once(char::is_whitespace)?;
    let is_number = number.bytes().all(|digit| digit.is_ascii_digit());
    (is_number && !caption.trim().is_empty()).then(|| caption.trim().to_owned())
}
