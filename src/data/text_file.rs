//! Reading annotation files that people made: byte-order marks, Windows line ends, bytes that are
//! not UTF-8, JSON lists with a bad entry in the middle.
use std::borrow::Cow;
use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::DataError;

/// The bytes of a file, without a UTF-8 byte-order mark.
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, DataError> {
    let mut bytes =
        fs::read(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(bytes)
}

/// The lines with their numbers, counted from 1, without their line ends; what is wrong with a line
/// that is not UTF-8.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, Result<&str, String>)> {
    bytes.split(|&byte| byte == b'\n').enumerate().map(|(index, line)| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        (index + 1, utf8(line))
    })
}

/// The bytes as text, or what is wrong with them.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes)
        .map_err(|error| format!("byte {} is not UTF-8 (expected UTF-8)", error.valid_up_to() + 1))
}

/// A parsed JSON file.
pub(super) struct Json<T> {
    /// Its content.
    pub value: T,
    /// Whether bytes that are not UTF-8 were read as U+FFFD. A text with that character in it is
    /// then not to be trusted.
    pub has_invalid_utf8: bool,
}

impl<T> Json<T> {
    /// What is wrong with a text of the file because of bytes that are not UTF-8, if anything.
    pub(super) fn invalid_utf8(&self, text: &str) -> Option<String> {
        (self.has_invalid_utf8 && text.contains('\u{fffd}'))
            .then(|| format!("{text:?} holds bytes that are not UTF-8 (expected UTF-8)"))
    }
}

/// Parses a whole file; `expected` says what it should hold.
pub(super) fn read_json<T: DeserializeOwned>(
    path: &Path,
    expected: &'static str,
) -> Result<Json<T>, DataError> {
    let bytes = read_bytes(path)?;
    let text = String::from_utf8_lossy(&bytes);
    let value = serde_json::from_str(&text).map_err(|error| DataError::Json {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
        detail: without_position(&error),
        expected,
    })?;
    Ok(Json { value, has_invalid_utf8: matches!(text, Cow::Owned(_)) })
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
