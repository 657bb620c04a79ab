//! Captions into files: one format each ([`Output`]), and a file beside each photo ([`Sidecars`]). Knows no
//! model.

mod sidecar;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use serde_json::json;

use super::inputs::Input;
use super::{Caption, WordProbability};
use crate::escape::{escape, escape_path};

pub use sidecar::{Existing, SidecarConfig, Sidecars};

/// A caption and how it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Shaped {
    /// As it is written.
    pub text: String,
    /// As the model said it.
    pub caption: Caption,
}

/// A photo and its captions.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The photo.
    pub input: &'a Input,
    /// At least one, the best first.
    pub captions: &'a [Shaped],
    /// The model as it was named.
    pub model: &'a str,
}

const CSV_HEADER: &[u8] = b"path,caption,confidence\n";

/// What a file of captions looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Path, tab, caption; a line for each caption.
    Text,
    /// A JSON object for each caption: path, caption, token_ids, score, words with their probabilities,
    /// model.
    Jsonl,
    /// path, caption, confidence; a row for each caption.
    Csv,
    /// Hugging Face's `metadata.jsonl`: file_name (from the folder that the file lies in) and text.
    Metadata,
    /// COCO's results: a JSON list of image_id and caption.
    Coco,
}

impl Format {
    /// The format that a file's name asks for.
    pub fn of_name(file: &Path) -> Option<Self> {
        let name = file.file_name()?.to_str()?.to_lowercase();
        let (_, extension) = name.rsplit_once('.')?;
        match extension {
            _ if name == "metadata.jsonl" => Some(Self::Metadata),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "csv" => Some(Self::Csv),
            "json" => Some(Self::Coco),
            "tsv" | "txt" => Some(Self::Text),
            _ => None,
        }
    }
}

/// A file of captions that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot be written", file.display())]
pub struct OutputError {
    /// The file.
    pub file: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Captions in one format, written as they come: to a stream, or to `FILE.partial`, which is called
/// `FILE` when all is written.
pub struct Output {
    format: Format,
    out: Box<dyn Write>,
    file: Option<PathBuf>,
    /// The file's folder, from which `metadata.jsonl` names photos.
    folder: PathBuf,
    count: usize,
}

impl Output {
    /// Into a stream.
    pub fn stream(out: Box<dyn Write>, format: Format) -> Self {
        Self { format, out, file: None, folder: PathBuf::new(), count: 0 }
    }

    /// Into a file.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn file(file: &Path, format: Format) -> Result<Self, OutputError> {
        let failed = |source| OutputError { file: file.to_owned(), source };
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = fs::canonicalize(parent.unwrap_or(Path::new("."))).map_err(failed)?;
        let out = File::create(partial(file)).map_err(failed)?;
        let out: Box<dyn Write> = Box::new(BufWriter::new(out));
        Ok(Self { format, out, file: Some(file.to_owned()), folder, count: 0 })
    }

    /// Writes a photo's captions.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&mut self, record: Record<'_>) -> Result<(), OutputError> {
        let mut bytes = Vec::new();
        let path = &record.input.path;
        match self.format {
            Format::Text => {
                for shaped in record.captions {
                    bytes.extend(field(path));
                    let text = escape(shaped.text.as_bytes());
                    bytes.extend(format!("\t{text}\n").into_bytes());
                }
            }
            Format::Jsonl => {
                for shaped in record.captions {
                    bytes.extend(json_line(record, shaped).to_string().into_bytes());
                    bytes.push(b'\n');
                }
            }
            Format::Csv => {
                if self.count == 0 {
                    bytes.extend_from_slice(CSV_HEADER);
                }
                let mut writer = csv::Writer::from_writer(&mut bytes);
                for shaped in record.captions {
                    let confidence = shaped.caption.confidence();
                    let confidence = confidence.map_or_else(String::new, |p| format!("{p:.4}"));
                    // Into memory.
                    let _ = writer.write_record([&name_of(path), &shaped.text, &confidence]);
                }
                drop(writer);
            }
            Format::Metadata => {
                if let Some(shaped) = record.captions.first() {
                    let name = from_folder(&self.folder, path);
                    let line = json!({ "file_name": name, "text": shaped.text });
                    bytes.extend(format!("{line}\n").into_bytes());
                }
            }
            Format::Coco => {
                if let Some(shaped) = record.captions.first() {
                    let before = if self.count == 0 { "[\n" } else { ",\n" };
                    let line = json!({ "image_id": image_id(path), "caption": shaped.text });
                    bytes.extend(format!("{before}{line}").into_bytes());
                }
            }
        }
        self.count += 1;
        self.put(&bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        let written = self.out.write_all(bytes);
        written.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> OutputError {
        OutputError { file: self.file.clone().unwrap_or_else(|| "stdout".into()), source }
    }

    /// Ends the file, and gives it its name if it is `whole`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self, whole: bool) -> Result<(), OutputError> {
        if self.format == Format::Csv && self.count == 0 {
            self.put(CSV_HEADER)?;
        }
        if self.format == Format::Coco {
            let end: &[u8] = if self.count == 0 { b"[]\n" } else { b"\n]\n" };
            self.put(end)?;
        }
        let flushed = self.out.flush();
        flushed.map_err(|source| self.failed(source))?;
        let Some(file) = &self.file else { return Ok(()) };
        let partial = partial(file);
        let synced = File::open(&partial).and_then(|written| written.sync_all());
        let named = synced.and_then(|()| if whole { fs::rename(&partial, file) } else { Ok(()) });
        named.map_err(|source| self.failed(source))
    }
}

/// Where a file is until it is whole.
fn partial(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    file.with_file_name(name)
}

/// A path as a field of a line: its own bytes, but for those that would break the line or steer a
/// terminal, which are escaped as [`crate::escape`] has it.
fn field(path: &Path) -> Vec<u8> {
    let mut field = Vec::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        field.extend_from_slice(escape_path(Path::new(chunk.valid())).as_bytes());
        field.extend_from_slice(chunk.invalid());
    }
    field
}

/// A path as text that tells any two paths apart: as it is, or escaped where it is no UTF-8.
pub(crate) fn name_of(path: &Path) -> String {
    path.to_str().map_or_else(|| escape_path(path), str::to_owned)
}

fn json_line(record: Record<'_>, shaped: &Shaped) -> serde_json::Value {
    #[derive(Serialize)]
    struct Line<'a> {
        path: String,
        caption: &'a str,
        token_ids: &'a [u32],
        score: f32,
        words: &'a [WordProbability],
        model: &'a str,
        /// Of a path that is no UTF-8.
        #[serde(skip_serializing_if = "Option::is_none")]
        path_base64: Option<String>,
    }
    let (path, Caption { token_ids, score, words, .. }) = (&record.input.path, &shaped.caption);
    let bytes = path.as_os_str().as_encoded_bytes();
    let line = Line {
        path: name_of(path),
        caption: &shaped.text,
        token_ids,
        score: *score,
        words,
        model: record.model,
        path_base64: path.to_str().is_none().then(|| BASE64_STANDARD.encode(bytes)),
    };
    serde_json::to_value(line).unwrap_or_default()
}

/// The number that COCO's file names end with, else the file's name.
fn image_id(path: &Path) -> serde_json::Value {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let digits = stem.rsplit_once('_').filter(|_| stem.starts_with("COCO_"));
    let digits = digits.map_or(stem.as_str(), |(_, digits)| digits);
    match digits.parse::<u64>() {
        Ok(number) if digits.chars().all(|c| c.is_ascii_digit()) => number.into(),
        _ => path.file_name().map_or_else(String::new, |name| name_of(Path::new(name))).into(),
    }
}

/// How a file in `folder`, which is absolute, names `path`.
fn from_folder(folder: &Path, path: &Path) -> String {
    let Ok(real) = fs::canonicalize(path) else { return name_of(path) };
    let common = folder.components().zip(real.components()).take_while(|(a, b)| a == b).count();
    let up = folder.components().skip(common).map(|_| Component::ParentDir);
    let relative: PathBuf = up.chain(real.components().skip(common)).collect();
    name_of(&relative)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaped(text: &str) -> Shaped {
        let words = vec![WordProbability { word: "dog".into(), probability: 0.25 }];
        let caption = Caption { caption: "x".into(), token_ids: vec![1, 2], score: -0.5, words };
        Shaped { text: text.into(), caption }
    }

    fn written(format: Format, name: &str, photos: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        let mut output = Output::file(&file, format).unwrap();
        for photo in photos {
            fs::create_dir_all(folder.path().join(photo).parent().unwrap()).unwrap();
            fs::write(folder.path().join(photo), "").unwrap();
            let input = Input { path: folder.path().join(photo), relative: photo.into() };
            let captions = [shaped("a \"dog\",\nwell")];
            output.write(Record { input: &input, captions: &captions, model: "m" }).unwrap();
        }
        assert!(!file.exists());
        output.finish(true).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        text.replace(&folder.path().display().to_string(), "DIR")
    }

    #[test]
    fn formats_are_those_of_their_readers() {
        let photos = ["a.jpg", "b/COCO_val2014_000000391895.jpg"];
        assert_eq!(
            written(Format::Csv, "x.csv", &photos[..1]),
            "path,caption,confidence\nDIR/a.jpg,\"a \"\"dog\"\",\nwell\",0.2500\n"
        );
        assert_eq!(written(Format::Text, "x.tsv", &photos[..1]), "DIR/a.jpg\ta \"dog\",\\nwell\n");
        let metadata = written(Format::Metadata, "metadata.jsonl", &photos);
        let second: serde_json::Value =
            serde_json::from_str(metadata.lines().nth(1).unwrap()).unwrap();
        assert_eq!(second["file_name"], "b/COCO_val2014_000000391895.jpg");
        let coco: serde_json::Value =
            serde_json::from_str(&written(Format::Coco, "x.json", &photos)).unwrap();
        assert_eq!((&coco[0]["image_id"], &coco[1]["image_id"]), (&json!("a.jpg"), &json!(391895)));
        assert_eq!(written(Format::Coco, "x.json", &[]), "[]\n");
        assert_eq!(Format::of_name(Path::new("d/Metadata.jsonl")), Some(Format::Metadata));
        assert_eq!(Format::of_name(Path::new("x.parquet")), None);
    }

    #[test]
    fn a_path_never_breaks_its_line() {
        assert_eq!(field(Path::new("two\nlines\t\u{1b}.jpg")), b"two\\nlines\\t\\x1B.jpg");
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            let path = Path::new(std::ffi::OsStr::from_bytes(b"caf\xE9.jpg"));
            assert_eq!(field(path), b"caf\xE9.jpg");
            assert_eq!(name_of(path), "caf\\xE9.jpg");
        }
    }
}
