//! `patchword caption --serve-stdin`: the model stays loaded, a line of JSON in is a line of JSON out.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use ::image::RgbImage;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::Outcome;
use super::error::CliError;
use crate::caption::shape::{Facts, Shaping};
use crate::caption::{Caption, CaptionConfig, Replica, Source, caption_batches};
use crate::generate::GenerateError;
use crate::image::{DecodeLimits, decode_bytes, decode_file};

/// What every line is answered with.
pub(super) struct Service<'a> {
    pub(super) replicas: &'a [Replica<'a>],
    pub(super) decoding: &'a CaptionConfig,
    pub(super) shaping: &'a Shaping,
    pub(super) model: &'a str,
    pub(super) limits: DecodeLimits,
}

/// What ends the service.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Generate(#[from] GenerateError),
    #[error("stdout: cannot be written")]
    Write(#[from] io::Error),
}

/// A line that came in.
pub(super) struct Line {
    /// What stands in the answer: `id` if there was one, `path` if the photo is a file, `line` if nothing
    /// else tells which.
    key: Map<String, Value>,
    photo: Result<Photo, String>,
}

enum Photo {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl Source for Service<'_> {
    type Item = Line;
    type Unread = String;

    fn read(&self, line: &mut Line) -> Result<RgbImage, String> {
        let photo = std::mem::replace(&mut line.photo, Err(String::new()))?;
        let read = match &photo {
            Photo::File(path) => decode_file(path, &self.limits),
            Photo::Bytes(bytes) => decode_bytes(bytes, Path::new("image"), &self.limits),
        };
        line.photo = Ok(match photo {
            Photo::Bytes(_) => Photo::Bytes(Vec::new()),
            file @ Photo::File(_) => file,
        });
        read.map_err(|error| error.to_string())
    }
}

impl Service<'_> {
    /// Answers every line of `input` in order, until it ends.
    pub(super) fn serve(
        &self,
        input: impl BufRead + Send,
        mut out: impl Write,
    ) -> Result<Outcome, CliError> {
        // Base64 takes four characters for three bytes; what stands beside it is short.
        let longest = self.limits.memory.total() / 3 * 4 + (1 << 20);
        let mut unread = None;
        let lines = Lines { input, number: 0, longest, error: &mut unread };
        let mut failed = 0;
        let answered =
            caption_batches::<_, ServeError>(self.replicas, lines, self, self.decoding, |batch| {
                for (line, result) in batch {
                    let answer = self.answer(line, result);
                    failed += usize::from(answer.contains_key("error"));
                    writeln!(out, "{}", Value::Object(answer))?;
                }
                Ok(out.flush()?)
            });
        answered?;
        if let Some(error) = unread {
            return Err(CliError::new(format_args!("stdin: cannot be read further: {error}")));
        }
        Ok(if failed > 0 { Outcome::SomeInputsFailed } else { Outcome::Complete })
    }

    fn answer(&self, line: Line, result: Result<Vec<Caption>, String>) -> Map<String, Value> {
        let mut answer = line.key;
        let captions = match result {
            Ok(captions) => captions,
            Err(error) => {
                answer.insert("error".into(), error.into());
                return answer;
            }
        };
        let facts = match &line.photo {
            Ok(Photo::File(path)) => facts(path),
            _ => Facts {
                name: String::new(),
                folder: String::new(),
                existing: String::new(),
                tags: String::new(),
            },
        };
        let (mut shaped, mut objection) = (Vec::new(), None);
        for caption in &captions {
            match self.shaping.objection(&caption.caption, caption.confidence()) {
                Some(reason) => objection = objection.or(Some(reason)),
                None => shaped.push(json!({
                    "caption": self.shaping.apply(&caption.caption, &facts),
                    "confidence": caption.confidence(),
                    "score": caption.score,
                    "token_ids": caption.token_ids,
                    "words": caption.words,
                })),
            }
        }
        let Some(Value::Object(best)) = shaped.first().cloned() else {
            let reason = objection.unwrap_or_else(|| "the model gave no caption".into());
            answer.insert("error".into(), reason.into());
            return answer;
        };
        answer.extend(best);
        if shaped.len() > 1 {
            answer.insert("captions".into(), shaped.into());
        }
        answer.insert("model".into(), self.model.into());
        answer
    }
}

fn facts(path: &Path) -> Facts {
    let text = |part: Option<&std::ffi::OsStr>| {
        part.map_or_else(String::new, |part| part.to_string_lossy().into_owned())
    };
    let folder = path.parent().and_then(Path::file_name);
    Facts {
        name: text(path.file_stem()),
        folder: text(folder),
        existing: String::new(),
        tags: String::new(),
    }
}

/// Lines as they come.
struct Lines<'a, R> {
    input: R,
    /// Counted from 1.
    number: u64,
    /// Bytes of the longest line that is read.
    longest: u64,
    /// What ended them early.
    error: &'a mut Option<io::Error>,
}

impl<R: BufRead> Iterator for Lines<'_, R> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        loop {
            let mut bytes = Vec::new();
            let mut limited = io::Read::take(&mut self.input, self.longest);
            match limited.read_until(b'\n', &mut bytes) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => {
                    *self.error = Some(error);
                    return None;
                }
            }
            self.number += 1;
            if bytes.len() as u64 >= self.longest && bytes.last() != Some(&b'\n') {
                if let Err(error) = skip_line(&mut self.input) {
                    *self.error = Some(error);
                }
                let problem =
                    format!("longer than {} MB, which --max-memory allows", self.longest >> 20);
                return Some(Line::of(Err(problem), self.number));
            }
            let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
            if !text.trim_ascii().is_empty() {
                let value = serde_json::from_slice(text);
                let value = value.map_err(|error| format!("not a line of JSON: {error}"));
                return Some(Line::of(value, self.number));
            }
        }
    }
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let some = input.fill_buf()?;
        let (used, is_end) = match some.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (some.len(), some.is_empty()),
        };
        input.consume(used);
        if is_end {
            return Ok(());
        }
    }
}

const EXPECTED: &str = "expected {\"image\": a path or base64, \"id\": anything}";

impl Line {
    fn of(value: Result<Value, String>, number: u64) -> Self {
        let mut key = Map::new();
        let photo = value.and_then(|value| match value {
            Value::String(path) => Ok(Photo::named(path)),
            Value::Object(mut object) => {
                if let Some(id) = object.remove("id") {
                    key.insert("id".into(), id);
                }
                photo_of(object)
            }
            _ => Err(EXPECTED.into()),
        });
        if let Ok(Photo::File(path)) = &photo {
            let name = crate::caption::output::name_of(path);
            key.insert("path".into(), name.into());
        }
        if key.is_empty() {
            key.insert("line".into(), number.into());
        }
        Self { key, photo }
    }
}

fn photo_of(mut object: Map<String, Value>) -> Result<Photo, String> {
    // As Hugging Face's image features have it.
    if let Some(Value::Object(inner)) = object.get_mut("image") {
        object = std::mem::take(inner);
    }
    let mut text = |key: &str| match object.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{key}: {EXPECTED}")),
    };
    if let Some(encoded) = text("bytes")? {
        return from_base64(&encoded).map(Photo::Bytes).ok_or("bytes: not base64".into());
    }
    // As --format jsonl writes a path that is no text.
    if let Some(encoded) = text("path_base64")? {
        let bytes = from_base64(&encoded).ok_or("path_base64: not base64")?;
        return crate::caption::inputs::path_of(&bytes)
            .map(Photo::File)
            .ok_or("path_base64: not a path on this system".into());
    }
    match (text("image")?, text("path")?) {
        (Some(image), _) if image.starts_with("data:") => {
            let encoded = image.split_once(";base64,").map(|(_, encoded)| encoded);
            encoded.and_then(from_base64).map(Photo::Bytes).ok_or("image: not base64".into())
        }
        (Some(image), _) => Ok(Photo::named(image)),
        (None, Some(path)) => Ok(Photo::File(path.into())),
        (None, None) => Err(EXPECTED.into()),
    }
}

impl Photo {
    /// A file, or bytes where nothing has the name and it can be nothing else.
    fn named(text: String) -> Self {
        const SHORTEST: usize = 64;
        if text.len() >= SHORTEST
            && Path::new(&text).symlink_metadata().is_err()
            && let Some(bytes) = from_base64(&text)
        {
            return Self::Bytes(bytes);
        }
        Self::File(text.into())
    }
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(text.trim()).ok()
}
