//! Captions into files: one format each ([`Output`]), and a file beside each photo ([`Sidecars`]). Knows no
//! model.

mod embed;
#[cfg(feature = "columnar")]
mod parquet_table;
mod sidecar;
mod xmp;

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

pub use sidecar::{Existing, SidecarConfig, SidecarKind, Sidecars};
pub(in crate::caption) use sidecar::{caption_beside, tags_beside};
pub use xmp::DEFAULT_LANGUAGE;

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

/// How captions are put into a format.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// With the probability of each word; JSON lines and Parquet have them in any case.
    pub per_word: bool,
    /// CSV as spreadsheets open it: with a byte order mark, without which Excel takes it for Windows-1252,
    /// and an apostrophe before what they would take for a formula.
    pub for_spreadsheets: bool,
}

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
    /// A Parquet table: path, caption, confidence, score, words with their probabilities, model; as
    /// `metadata.parquet` Hugging Face's file_name and text.
    #[cfg(feature = "columnar")]
    Parquet,
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
            #[cfg(feature = "columnar")]
            "parquet" => Some(Self::Parquet),
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
    style: Style,
    sink: Sink,
    file: Option<PathBuf>,
    /// The file's folder, from which `metadata.jsonl` names photos.
    folder: PathBuf,
    count: usize,
}

/// Where captions go.
enum Sink {
    Stream(Box<dyn Write>),
    #[cfg(feature = "columnar")]
    Table(Box<parquet_table::ParquetTable>),
}

impl Output {
    /// Into a stream. Parquet is for files: a stream of it is JSON lines.
    pub fn stream(out: Box<dyn Write>, format: Format) -> Self {
        #[cfg(feature = "columnar")]
        let format = if format == Format::Parquet { Format::Jsonl } else { format };
        let (style, sink, folder) = (Style::default(), Sink::Stream(out), PathBuf::new());
        Self { format, style, sink, file: None, folder, count: 0 }
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
        let sink = match format {
            #[cfg(feature = "columnar")]
            Format::Parquet => {
                let table = parquet_table::ParquetTable::new(out, is_metadata(file));
                Sink::Table(Box::new(table.map_err(failed)?))
            }
            _ => Sink::Stream(Box::new(BufWriter::new(out))),
        };
        let (file, style) = (Some(file.to_owned()), Style::default());
        Ok(Self { format, style, sink, file, folder, count: 0 })
    }

    /// The same in another style.
    pub fn styled(self, style: Style) -> Self {
        Self { style, ..self }
    }

    /// Writes a photo's captions.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&mut self, record: Record<'_>) -> Result<(), OutputError> {
        #[cfg(feature = "columnar")]
        if let Sink::Table(table) = &mut self.sink {
            let name = match self.file.as_deref().is_some_and(is_metadata) {
                true => from_folder(&self.folder, record.input),
                false => name_of(&record.input.path),
            };
            let written = table.write(record, &name);
            self.count += 1;
            return written.map_err(|source| self.failed(source));
        }
        let bytes = self.bytes(record);
        self.count += 1;
        self.put(&bytes)
    }

    fn bytes(&self, record: Record<'_>) -> Vec<u8> {
        let (mut bytes, path) = (Vec::new(), &record.input.path);
        match self.format {
            Format::Text => {
                for shaped in record.captions {
                    bytes.extend(field(path));
                    let text = escape(shaped.text.as_bytes());
                    let words = match self.style.per_word {
                        true => format!("\t{}", escape(words_in_line(shaped).as_bytes())),
                        false => String::new(),
                    };
                    bytes.extend(format!("\t{text}{words}\n").into_bytes());
                }
            }
            Format::Csv => {
                if self.count == 0 {
                    bytes.extend(self.csv_header());
                }
                self.add_csv(record, &mut bytes);
            }
            Format::Metadata => {
                if let Some(shaped) = record.captions.first() {
                    let name = from_folder(&self.folder, record.input);
                    let mut line = json!({ "file_name": name, "text": shaped.text });
                    self.add_words(shaped, &mut line);
                    bytes.extend(format!("{line}\n").into_bytes());
                }
            }
            Format::Coco => {
                if let Some(shaped) = record.captions.first() {
                    let before = if self.count == 0 { "[\n" } else { ",\n" };
                    let mut line = json!({ "image_id": image_id(path), "caption": shaped.text });
                    self.add_words(shaped, &mut line);
                    bytes.extend(format!("{before}{line}").into_bytes());
                }
            }
            // Parquet is no stream.
            _ => {
                for shaped in record.captions {
                    bytes.extend(json_line(record, shaped).to_string().into_bytes());
                    bytes.push(b'\n');
                }
            }
        }
        bytes
    }

    fn csv_header(&self) -> Vec<u8> {
        let mark = if self.style.for_spreadsheets { "\u{FEFF}" } else { "" };
        let words = if self.style.per_word { ",words" } else { "" };
        format!("{mark}path,caption,confidence{words}\n").into_bytes()
    }

    fn add_csv(&self, record: Record<'_>, bytes: &mut Vec<u8>) {
        let cell = |text: String| match self.style.for_spreadsheets {
            true if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => format!("'{text}"),
            _ => text,
        };
        let mut writer = csv::Writer::from_writer(bytes);
        for shaped in record.captions {
            let confidence = shaped.caption.confidence();
            let confidence = confidence.map_or_else(String::new, |p| format!("{p:.4}"));
            let mut row =
                vec![cell(name_of(&record.input.path)), cell(shaped.text.clone()), confidence];
            if self.style.per_word {
                row.push(json!(shaped.caption.words).to_string());
            }
            // Into memory.
            let _ = writer.write_record(&row);
        }
    }

    fn add_words(&self, shaped: &Shaped, line: &mut serde_json::Value) {
        if self.style.per_word {
            line["words"] = json!(shaped.caption.words);
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        let written = match &mut self.sink {
            Sink::Stream(out) => out.write_all(bytes),
            #[cfg(feature = "columnar")]
            Sink::Table(_) => Ok(()),
        };
        written.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> OutputError {
        failed(self.file.as_deref(), source)
    }

    /// Ends the file, and gives it its name if it is `whole`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self, whole: bool) -> Result<(), OutputError> {
        if self.format == Format::Csv && self.count == 0 {
            let header = self.csv_header();
            self.put(&header)?;
        }
        if self.format == Format::Coco {
            let end: &[u8] = if self.count == 0 { b"[]\n" } else { b"\n]\n" };
            self.put(end)?;
        }
        let Self { sink, file, .. } = self;
        let flushed = match sink {
            Sink::Stream(mut out) => out.flush(),
            #[cfg(feature = "columnar")]
            Sink::Table(table) => table.finish(),
        };
        flushed.map_err(|source| failed(file.as_deref(), source))?;
        let Some(file) = &file else { return Ok(()) };
        let partial = partial(file);
        let synced = File::open(&partial).and_then(|written| written.sync_all());
        let named = synced.and_then(|()| if whole { fs::rename(&partial, file) } else { Ok(()) });
        named.map_err(|source| failed(Some(file), source))
    }
}

fn failed(file: Option<&Path>, source: io::Error) -> OutputError {
    OutputError { file: file.unwrap_or(Path::new("stdout")).to_owned(), source }
}

/// Whether a table is called as Hugging Face has it.
#[cfg(feature = "columnar")]
fn is_metadata(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.eq_ignore_ascii_case("metadata.parquet"))
}

/// Words with their probabilities, for people: `a 0.98 dog 0.71`.
fn words_in_line(shaped: &Shaped) -> String {
    let words = shaped.caption.words.iter();
    words.map(|word| format!("{} {:.2}", word.word, word.probability)).collect::<Vec<_>>().join(" ")
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

/// How a file in `folder`, which is absolute, names a photo; one in an archive by its name there.
fn from_folder(folder: &Path, input: &Input) -> String {
    let Some(real) = fs::canonicalize(&input.path).ok().filter(|_| input.is_file()) else {
        return name_of(&input.relative);
    };
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
            let input = Input::file(folder.path().join(photo), photo);
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
        assert_eq!(Format::of_name(Path::new("x.parquets")), None);
    }

    #[test]
    fn styles_add_what_is_asked_for() {
        let input = Input::file("=1+1.jpg", "=1+1.jpg");
        let line = |format, style| {
            let captions = [shaped("-a dog")];
            let output = Output::stream(Box::new(io::sink()), format).styled(style);
            let bytes = output.bytes(Record { input: &input, captions: &captions, model: "m" });
            String::from_utf8(bytes).unwrap()
        };
        let per_word = Style { per_word: true, ..Style::default() };
        let sheet = Style { for_spreadsheets: true, ..Style::default() };
        assert_eq!(line(Format::Text, per_word), "=1+1.jpg\t-a dog\tdog 0.25\n");
        let words = r#""[{""word"":""dog"",""probability"":0.25}]""#;
        let csv = format!("path,caption,confidence,words\n=1+1.jpg,-a dog,0.2500,{words}\n");
        assert_eq!(line(Format::Csv, per_word), csv);
        let csv = "\u{FEFF}path,caption,confidence\n'=1+1.jpg,'-a dog,0.2500\n";
        assert_eq!(line(Format::Csv, sheet), csv);
        let metadata: serde_json::Value =
            serde_json::from_str(&line(Format::Metadata, per_word)).unwrap();
        assert_eq!(metadata["words"][0]["word"], "dog");
        assert!(line(Format::Coco, Style::default()).ends_with(r#""caption":"-a dog"}"#));
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
