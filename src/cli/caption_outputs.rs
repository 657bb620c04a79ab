//! Where `patchword caption` puts captions, and how they are shaped.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::error::CliError;
use crate::caption::inputs::Input;
use crate::caption::output::{
    DEFAULT_LANGUAGE, Existing, Format, Output, SidecarConfig, SidecarKind, Sidecars, Style,
};
use crate::caption::shape::Shaping;
use crate::checkpoint::atomic::folder_of;

/// How captions are written into a stream or a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FormatName {
    /// The path, a tab and the caption; a line for each caption.
    Text,
    /// A JSON object for each caption: path, caption, token_ids, score, words with their
    /// probabilities, model.
    Jsonl,
    /// path, caption, confidence; a row for each caption.
    Csv,
    /// Hugging Face's metadata.jsonl: file_name, text.
    Metadata,
    /// COCO's results: image_id, caption.
    Coco,
    /// path, caption, confidence, score, words with their probabilities, model; files only.
    #[cfg(feature = "columnar")]
    Parquet,
}

impl FormatName {
    fn format(self) -> Format {
        match self {
            Self::Text => Format::Text,
            Self::Jsonl => Format::Jsonl,
            Self::Csv => Format::Csv,
            Self::Metadata => Format::Metadata,
            Self::Coco => Format::Coco,
            #[cfg(feature = "columnar")]
            Self::Parquet => Format::Parquet,
        }
    }
}

/// A file beside each photo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sidecar {
    /// photo.txt with the caption.
    Txt,
    /// photo.caption with the caption.
    Caption,
    /// photo.json with the captions, their words' probabilities and the model.
    Json,
    /// photo.jpg.xmp with the caption as dc:description, as digiKam, darktable and exiftool read it; all else
    /// in such a file stays.
    Xmp,
}

/// How XMP files are called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum XmpName {
    /// photo.jpg.xmp, as darktable and digiKam have it.
    #[default]
    Full,
    /// photo.xmp, as Lightroom has it.
    Stem,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum ExistingName {
    /// Leave the photo as it is.
    #[default]
    Skip,
    /// Replace the caption.
    Overwrite,
    /// Add the new caption behind it.
    Append,
    /// Add the new caption before it.
    Prepend,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Outputs")]
pub(super) struct OutputArgs {
    /// Write captions into a file, in the format that its name asks for (.jsonl .csv .tsv .txt .parquet,
    /// .json for COCO's results, metadata.jsonl and metadata.parquet for Hugging Face); - is stdout; may be
    /// given several times
    #[arg(long = "output", short, value_name = "FILE")]
    outputs: Vec<PathBuf>,
    /// How to print, and how to write files whose names ask for nothing [default: text]
    #[arg(long, value_enum)]
    format: Option<FormatName>,
    /// Write the probability of each word too: in text and CSV as a further column, in metadata and COCO's
    /// results as `words`; JSON lines and Parquet have them in any case
    #[arg(long)]
    per_word: bool,
    /// CSV as spreadsheets open it: with a byte order mark, and an apostrophe before what they would run as
    /// a formula (=, +, -, @)
    #[arg(long)]
    excel: bool,
    /// Write a file beside each photo; may be given several times. Of a.jpg and a.png the files are
    /// a.jpg.txt and a.png.txt
    #[arg(long, value_enum, value_name = "KIND")]
    write: Vec<Sidecar>,
    /// The same as --write txt, with another extension
    #[arg(long, value_name = "EXTENSION")]
    caption_extension: Option<String>,
    /// Write the caption into the photo, as its XMP's dc:description: JPEG, PNG and WebP; no pixel and no
    /// other metadata changes. With --write-to into copies
    #[arg(long)]
    embed: bool,
    /// What language an XMP's description is said to be in: x-default is for everybody
    #[arg(long, value_name = "LANG", default_value = DEFAULT_LANGUAGE, value_parser = language)]
    xmp_language: String,
    /// How XMP files are called
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    xmp_name: XmpName,
    /// Those files in this folder instead, in the tree that the photos are in
    #[arg(long, value_name = "DIR")]
    write_to: Option<PathBuf>,
    /// What becomes of captions that are there
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    existing: ExistingName,
    /// The same as --existing overwrite; files of --output are replaced too
    #[arg(long, conflicts_with = "existing")]
    overwrite: bool,
    /// Between a caption that is there and the new one
    #[arg(long, value_name = "TEXT", default_value = ", ")]
    separator: String,
    /// Keep in this SQLite file what became of each photo: the same command then goes on where it was
    #[arg(long, value_name = "FILE")]
    pub(super) manifest: Option<PathBuf>,
    /// Of the manifest's photos only those that failed
    #[arg(long, requires = "manifest")]
    pub(super) retry_failed: bool,
}

impl OutputArgs {
    /// Says at once what cannot be written, and not after hours of captioning.
    pub(super) fn check(&self) -> Result<(), CliError> {
        let is_added = [ExistingName::Append, ExistingName::Prepend].contains(&self.existing);
        if self.write.contains(&Sidecar::Json) && is_added {
            return Err(CliError::usage("--write json: a JSON file takes no caption more")
                .hint("leave --existing append and prepend to --write txt, caption or xmp"));
        }
        if self.write_to.is_some() && !self.has_sidecars() {
            return Err(CliError::usage("--write-to: nothing is written there")
                .hint("add --write txt, caption, json or xmp, or --embed"));
        }
        if let Some(extension) = &self.caption_extension
            && (extension.contains(['/', '\\']) || extension.trim_matches('.').is_empty())
        {
            return Err(CliError::usage(format_args!(
                "--caption-extension {extension:?}: no extension"
            ))
            .hint("as in --caption-extension .txt"));
        }
        #[cfg(feature = "columnar")]
        if self.format == Some(FormatName::Parquet) && self.goes_to_stdout() {
            return Err(CliError::usage("--format parquet: stdout is no place for a table")
                .hint("write it into a file, as with --output captions.parquet"));
        }
        let mut seen: Vec<&Path> = Vec::new();
        for file in self.files() {
            if Format::of_name(file).is_none() && self.format.is_none() {
                return Err(CliError::usage(format_args!(
                    "--output {}: a name that asks for no format",
                    file.display()
                ))
                .hint("end it with .jsonl, .csv, .tsv, .txt, .json or .parquet, or add --format"));
            }
            if seen.contains(&file) {
                return Err(CliError::usage(format_args!(
                    "--output {}: named twice",
                    file.display()
                )));
            }
            check_place(file, self.overwrite || self.manifest.is_some())?;
            seen.push(file);
        }
        Ok(())
    }

    #[cfg(feature = "columnar")]
    fn goes_to_stdout(&self) -> bool {
        let is_stdout = |file: &PathBuf| file.as_os_str() == "-";
        self.outputs.iter().any(is_stdout) || (self.outputs.is_empty() && !self.has_sidecars())
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        self.outputs.iter().map(PathBuf::as_path).filter(|file| file.as_os_str() != "-")
    }

    fn has_sidecars(&self) -> bool {
        !self.write.is_empty() || self.caption_extension.is_some() || self.embed
    }

    /// That the captions of photos in archives and tables have a place to go to.
    pub(super) fn check_input(&self, input: &Input) -> Result<(), CliError> {
        match input.container() {
            Some(container) if self.has_sidecars() && self.write_to.is_none() => {
                Err(CliError::usage(format_args!(
                    "{}: nothing is written beside the photos in an archive or a table",
                    container.display()
                ))
                .hint("add --write-to DIR, or write one file of all captions with --output FILE"))
            }
            _ => Ok(()),
        }
    }

    /// Opens the outputs: `stdout` where nothing else is asked for.
    pub(super) fn open(&self, stdout: Box<dyn Write>) -> Result<Vec<Output>, CliError> {
        let mut stdout = Some(stdout);
        let usual = self.format.map_or(Format::Text, FormatName::format);
        let style = Style { per_word: self.per_word, for_spreadsheets: self.excel };
        let mut outputs = Vec::new();
        for file in &self.outputs {
            let output = match file.as_os_str() == "-" {
                // A second one: `-o -` twice.
                true => {
                    let stdout = stdout.take().unwrap_or_else(|| Box::new(io::stdout()));
                    Output::stream(stdout, usual)
                }
                false => Output::file(file, self.format_of(file))?,
            };
            outputs.push(output.styled(style));
        }
        if self.outputs.is_empty() && !self.has_sidecars() {
            outputs.extend(stdout.map(|stdout| Output::stream(stdout, usual).styled(style)));
        }
        Ok(outputs)
    }

    fn format_of(&self, file: &Path) -> Format {
        let asked = self.format.map(FormatName::format);
        Format::of_name(file).or(asked).unwrap_or(Format::Text)
    }

    /// The files beside photos.
    pub(super) fn sidecars(&self) -> Vec<Sidecars> {
        let text = |extension: &str| SidecarKind::Text {
            extension: extension.trim_start_matches('.').to_owned(),
        };
        let language = || self.xmp_language.clone();
        let own = self.caption_extension.iter().map(|extension| text(extension));
        let kinds = self.write.iter().map(|kind| match kind {
            Sidecar::Txt => text("txt"),
            Sidecar::Caption => text("caption"),
            Sidecar::Json => SidecarKind::Json,
            Sidecar::Xmp => {
                SidecarKind::Xmp { language: language(), of_stem: self.xmp_name == XmpName::Stem }
            }
        });
        // The photo itself comes last: a manifest takes one whose caption is in it for done.
        let embedded = self.embed.then(|| SidecarKind::Embedded { language: language() });
        let configs = own.chain(kinds).chain(embedded).map(|kind| SidecarConfig {
            kind,
            write_to: self.write_to.clone(),
            existing: self.existing(),
            separator: self.separator.clone(),
        });
        let mut all: Vec<SidecarConfig> = Vec::new();
        for one in configs {
            if !all.contains(&one) {
                all.push(one);
            }
        }
        all.into_iter().map(Sidecars::new).collect()
    }

    /// What becomes of captions that are there.
    pub(super) fn existing(&self) -> Existing {
        match self.existing {
            _ if self.overwrite => Existing::Overwrite,
            ExistingName::Skip => Existing::Skip,
            ExistingName::Overwrite => Existing::Overwrite,
            ExistingName::Append => Existing::Append,
            ExistingName::Prepend => Existing::Prepend,
        }
    }
}

/// A language tag of RFC 5646, as far as its letters go.
fn language(text: &str) -> Result<String, String> {
    let is_part = |part: &str| {
        (1..=8).contains(&part.len()) && part.chars().all(|c| c.is_ascii_alphanumeric())
    };
    match text.split('-').all(is_part) {
        true => Ok(text.to_owned()),
        false => Err("expected a language, as en, de-AT or x-default".into()),
    }
}

/// That a file can be written, and replaces nothing unasked.
pub(super) fn check_place(file: &Path, may_replace: bool) -> Result<(), CliError> {
    let problem = if file.is_dir() {
        "it is a folder".to_owned()
    } else if file.exists() && !file.is_file() {
        "it is no regular file".to_owned()
    } else if !folder_of(file).is_dir() {
        format!("there is no folder {}", folder_of(file).display())
    } else if file.exists() && !may_replace {
        let problem =
            format_args!("cannot write {}: it exists already", file.display()).to_string();
        return Err(CliError::new(problem).hint("--overwrite replaces it"));
    } else {
        return Ok(());
    };
    Err(CliError::new(format_args!("cannot write {}: {problem}", file.display())))
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Shaping")]
pub(super) struct ShapingArgs {
    /// Cut this beginning off, in upper and lower case; may be given several times
    #[arg(long, value_name = "TEXT")]
    strip_lead: Vec<String>,
    /// Leave punctuation out
    #[arg(long)]
    strip_punctuation: bool,
    /// In lower case
    #[arg(long)]
    lowercase: bool,
    /// The first N words only
    #[arg(long, value_name = "N")]
    max_words: Option<usize>,
    /// A word before each caption, with a comma: --trigger ohwx gives "ohwx, a dog runs"
    #[arg(long, value_name = "WORD")]
    trigger: Option<String>,
    /// A caption of these parts: {trigger} {caption} {name} {folder} {existing} {tags}; tags are those of
    /// photo.tags or photo.txt
    #[arg(long, value_name = "TEXT")]
    template: Option<String>,
    /// Before each caption, to the letter
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    prefix: String,
    /// After each caption, to the letter
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    suffix: String,
    /// Give no caption that says this word; of several captions the others; may be given several times
    #[arg(long, value_name = "WORD")]
    forbid: Vec<String>,
    /// Give no caption that does not say this word; may be given several times
    #[arg(long, value_name = "WORD")]
    require: Vec<String>,
    /// Give no caption that the model is less sure of, 0 to 1: the geometric mean of its words'
    /// probabilities
    #[arg(long, value_name = "P")]
    min_confidence: Option<f64>,
    /// Give such captions all the same, with this before them, as "[?] "
    #[arg(long, value_name = "TEXT", requires = "min_confidence")]
    mark: Option<String>,
}

impl ShapingArgs {
    pub(super) fn shaping(&self) -> Result<Shaping, CliError> {
        let shaping = Shaping {
            strip_lead: self.strip_lead.clone(),
            strip_punctuation: self.strip_punctuation,
            lowercase: self.lowercase,
            max_words: self.max_words,
            trigger: self.trigger.clone(),
            template: self.template.clone(),
            prefix: self.prefix.clone(),
            suffix: self.suffix.clone(),
            forbid: self.forbid.clone(),
            require: self.require.clone(),
            min_confidence: self.min_confidence,
            mark: self.mark.clone(),
        };
        shaping.validate().map_err(|error| {
            CliError::usage(format_args!("--template: {error}"))
                .hint("as in --template \"{trigger}, {caption}\"")
        })?;
        if let Some(least) = self.min_confidence.filter(|least| !(0.0..=1.0).contains(least)) {
            return Err(CliError::usage(format_args!("--min-confidence {least}: expected 0 to 1")));
        }
        Ok(shaping)
    }
}
