//! Reading annotation files that people made: byte-order marks, UTF-16, code pages of Windows, line ends of
//! three systems, JSON with a bad entry in the middle.
use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::{DataError, Origin, Position};
use crate::encoding::{self, Decoded};
use crate::{lenient_json, lfs};

/// The most bytes of an annotation file that are read: an archive or a table by mistake is not.
const MAX_LENGTH: u64 = 4 << 30;

/// A text that is no text, or a line that is none; says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TextError {
    #[error("byte {at} is not UTF-8 (expected UTF-8{})", Suggestion(*looks_like))]
    NotUtf8 { at: usize, looks_like: Option<&'static str> },
    #[error("byte {at} is NUL (expected text in UTF-8 or UTF-16)")]
    Nul { at: usize },
}

/// How the text could be made readable.
struct Suggestion(Option<&'static str>);

impl std::fmt::Display for Suggestion {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(name) => {
                write!(
                    formatter,
                    "; if it is {name}: `iconv -f {name} -t UTF-8 OLD >NEW` converts it"
                )
            }
            None => Ok(()),
        }
    }
}

/// The content of an annotation file, as UTF-8 as far as it could be told what it is.
pub(super) struct TextFile {
    /// The file.
    pub path: Arc<Path>,
    bytes: Vec<u8>,
    /// What it was converted from, if it was not UTF-8.
    pub converted_from: Option<&'static str>,
    looks_like: Option<&'static str>,
}

impl TextFile {
    /// Reads the whole file.
    pub(super) fn read(path: &Path) -> Result<Self, DataError> {
        let failed = |source| DataError::Read { path: path.to_owned(), source };
        let metadata = fs::metadata(path).map_err(failed)?;
        if !metadata.is_file() {
            return Err(DataError::NoFile { path: path.to_owned() });
        }
        if metadata.len() > MAX_LENGTH {
            return Err(DataError::TooLong {
                path: path.to_owned(),
                length: metadata.len(),
                limit: MAX_LENGTH,
            });
        }
        let bytes = fs::read(path).map_err(failed)?;
        if lfs::is_pointer(&bytes) {
            return Err(DataError::LfsPointer { path: path.to_owned() });
        }
        Ok(Self::of(path.into(), bytes))
    }

    /// The text in `bytes`, which `path` names.
    pub(super) fn of(path: Arc<Path>, bytes: Vec<u8>) -> Self {
        let Decoded { bytes, converted_from, looks_like } = encoding::decode(bytes);
        Self { path, bytes, converted_from, looks_like }
    }

    /// The bytes, without a byte-order mark.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// `bytes`, which are of this file, as text, or what is wrong with them.
    pub(super) fn text<'a>(&self, bytes: &'a [u8]) -> Result<&'a str, TextError> {
        let text = std::str::from_utf8(bytes).map_err(|error| TextError::NotUtf8 {
            at: error.valid_up_to() + 1,
            looks_like: self.looks_like,
        })?;
        match text.find('\0') {
            Some(at) => Err(TextError::Nul { at: at + 1 }),
            None => Ok(text),
        }
    }

    /// The lines with their numbers, counted from 1, without their line ends; what is wrong with a line that
    /// is no text. A carriage return alone ends a line only in a file that has no line feed at all, as old Mac
    /// programs wrote them: elsewhere it stands inside of a text.
    pub(super) fn lines(&self) -> impl Iterator<Item = (Origin, Result<&str, TextError>)> {
        let end = if self.bytes.contains(&b'\n') { b'\n' } else { b'\r' };
        self.bytes.split(move |&byte| byte == end).enumerate().map(|(index, line)| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            (self.line(index + 1), self.text(line))
        })
    }

    /// As [`Self::lines`], where carriage returns end lines also among line feeds.
    pub(super) fn lines_of_any_system(
        &self,
    ) -> impl Iterator<Item = (Origin, Result<&str, TextError>)> {
        let mut number = 0;
        self.bytes
            .split(|&byte| byte == b'\n')
            .flat_map(|line| {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                line.split(|&byte| byte == b'\r')
            })
            .map(move |line| {
                number += 1;
                (self.line(number), self.text(line))
            })
    }

    /// The place of a line of this file.
    pub(super) fn line(&self, number: usize) -> Origin {
        Origin::new(&self.path, Position::Line(number))
    }
}

/// A parsed JSON file.
pub(super) struct Json<T> {
    /// The file.
    pub path: Arc<Path>,
    /// Its content.
    pub value: T,
    /// Whether something that is no text was read as U+FFFD: bytes that are not UTF-8, or half of a
    /// surrogate pair. A text with that character in it is then not to be trusted.
    has_damaged_text: bool,
    /// What it was converted from, if it was not UTF-8.
    pub converted_from: Option<&'static str>,
}

impl<T> Json<T> {
    /// What is wrong with a text of the file because part of it is no text, if anything.
    pub(super) fn damage(&self, text: &str) -> Option<String> {
        let holds = |what: &str| format!("{text:?} holds {what} (expected UTF-8)");
        if text.contains('\0') {
            return Some(holds("a NUL"));
        }
        (self.has_damaged_text && text.contains('\u{fffd}'))
            .then(|| holds("bytes that are not UTF-8, or half of a surrogate pair"))
    }
}

/// Parses a whole file; `expected` says what it should hold.
pub(super) fn read_json<T: DeserializeOwned>(
    path: &Path,
    expected: &'static str,
) -> Result<Json<T>, DataError> {
    let file = TextFile::read(path)?;
    let text = String::from_utf8_lossy(file.bytes());
    let is_damaged = matches!(text, Cow::Owned(_));
    let (value, is_mended) = lenient_json::parse(&text).map_err(|error| DataError::Json {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
        detail: without_position(&error),
        expected,
    })?;
    Ok(Json {
        path: Arc::clone(&file.path),
        value,
        has_damaged_text: is_damaged || is_mended,
        converted_from: file.converted_from,
    })
}

/// What the parser says, without the position that it appends.
pub(super) fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) if error.line() > 0 => text[..end].to_owned(),
        _ => text,
    }
}

/// An entry of a JSON list that is either what it should be or what is wrong with it, so that one bad
/// entry does not make the file unreadable.
pub(super) struct Entry<T>(pub Result<T, String>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Entry<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(serde_json::from_value(value).map_err(|error| error.to_string())))
    }
}

/// The folder of a file, `.` for a bare name.
pub(super) fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<Result<String, TextError>> {
        let file = TextFile::of(Path::new("x.txt").into(), bytes.to_vec());
        file.lines().map(|(_, line)| line.map(str::to_owned)).collect()
    }

    #[test]
    fn lines_end_as_on_any_system() {
        let ok = |lines: &[&str]| -> Vec<Result<String, TextError>> {
            lines.iter().map(|line| Ok((*line).to_owned())).collect()
        };
        assert_eq!(lines(b"a\nb\r\nc"), ok(&["a", "b", "c"]));
        assert_eq!(lines(b"a\rb"), ok(&["a", "b"]));
        assert_eq!(lines(b"a\rb\nc"), ok(&["a\rb", "c"]));
        let file = TextFile::of(Path::new("x.txt").into(), b"a\rb\nc\r\nd".to_vec());
        let texts: Vec<_> = file.lines_of_any_system().map(|(_, line)| line.unwrap()).collect();
        assert_eq!(texts, ["a", "b", "c", "d"]);
        assert_eq!(lines(b"a\0b\nc"), [Err(TextError::Nul { at: 2 }), Ok("c".to_owned())]);
        assert!(matches!(
            lines(b"d\xc3\xa9j\xc3\xa0\na\xff")[1],
            Err(TextError::NotUtf8 { at: 2, .. })
        ));
    }
}
