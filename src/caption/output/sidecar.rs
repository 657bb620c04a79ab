//! A file with its caption beside each photo, or at the same place of another folder.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use super::{OutputError, Record, embed, name_of, xmp};
use crate::caption::inputs::Input;
use crate::checkpoint::CheckpointError;
use crate::checkpoint::atomic::replace_file;
use crate::image::is_image_path;

/// What becomes of a caption that is there already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Existing {
    /// The photo is not captioned.
    #[default]
    Skip,
    /// It is replaced.
    Overwrite,
    /// The new one goes behind it.
    Append,
    /// The new one goes before it.
    Prepend,
}

/// What is written beside a photo, or into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SidecarKind {
    /// The caption alone.
    Text {
        /// `txt` for `photo.txt`.
        extension: String,
    },
    /// `photo.json`: an object with all that is known.
    Json,
    /// The description (`dc:description`) in an XMP file, whose other properties stay.
    Xmp {
        /// The language that the caption is said to be in; `x-default` is for everybody.
        language: String,
        /// `photo.xmp`, as Adobe calls it, in place of `photo.jpg.xmp`.
        of_stem: bool,
    },
    /// The description in the XMP of the photo itself: JPEG, PNG and WebP. No other byte changes.
    Embedded {
        /// The language that the caption is said to be in.
        language: String,
    },
}

/// How sidecars are called and written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SidecarConfig {
    /// What is written.
    pub kind: SidecarKind,
    /// The folder that holds them, in the tree that the photos are in; `None`: beside the photos. Captions
    /// are then embedded into copies of the photos there.
    pub write_to: Option<PathBuf>,
    /// What becomes of those that are there.
    pub existing: Existing,
    /// Between an existing caption and a new one.
    pub separator: String,
}

/// The images of a folder by the stem of their names.
type Stems = HashMap<OsString, usize>;

/// Where sidecars are and what is in them; shared among threads.
#[derive(Debug)]
pub struct Sidecars {
    config: SidecarConfig,
    /// Of the folder that was looked at last.
    stems: Mutex<(PathBuf, Stems)>,
}

impl Sidecars {
    /// Sidecars of one kind.
    pub fn new(config: SidecarConfig) -> Self {
        Self { config, stems: Mutex::default() }
    }

    /// Where the caption of a photo goes: `photo.txt`; `photo.jpg.txt` where a `photo.png` lies beside it.
    pub fn place(&self, input: &Input) -> PathBuf {
        let place = match &self.config.write_to {
            Some(folder) => folder.join(&input.relative),
            None => input.path.clone(),
        };
        let (extension, is_whole) = match &self.config.kind {
            SidecarKind::Text { extension } => (extension.as_str(), false),
            SidecarKind::Json => ("json", false),
            SidecarKind::Xmp { of_stem, .. } => ("xmp", !of_stem),
            SidecarKind::Embedded { .. } => return place,
        };
        let shares_stem = match &input.contained {
            Some(contained) => contained.shares_stem,
            None => self.shares_its_stem(&input.path),
        };
        if is_whole || shares_stem {
            return with_ending(&place, extension);
        }
        place.with_extension(extension)
    }

    /// Whether photos themselves are written.
    pub fn changes_photos(&self) -> bool {
        matches!(self.config.kind, SidecarKind::Embedded { .. }) && self.config.write_to.is_none()
    }

    fn shares_its_stem(&self, photo: &Path) -> bool {
        let folder = photo.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let mut known = self.stems.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != folder {
            *known = (folder.to_owned(), stems(folder));
        }
        let count = photo.file_stem().and_then(|stem| known.1.get(stem));
        count.is_some_and(|&count| count > 1)
    }

    /// The caption that is there, without white space around it; `None` if there is none or an empty one.
    ///
    /// # Errors
    /// The file is there and cannot be read, or is none that a caption can be put into; a photo in an archive
    /// has nothing beside it.
    pub fn existing(&self, input: &Input) -> Result<Option<String>, OutputError> {
        let file = self.place(input);
        self.existing_in(&file, input).map_err(|source| OutputError { file, source })
    }

    fn existing_in(&self, file: &Path, input: &Input) -> io::Result<Option<String>> {
        if !input.is_file() && self.config.write_to.is_none() {
            return Err(io::Error::other(
                "it lies in an archive or a table, which stays as it is; name a folder to write to",
            ));
        }
        let bytes = read_regular(file)?;
        let text = match (&self.config.kind, bytes) {
            (SidecarKind::Embedded { language }, bytes) => {
                let photo = bytes.map_or_else(|| input.read(), Ok)?;
                let packet = embed::packets(&photo).map_err(io::Error::other)?;
                let described = |packet: Option<Vec<u8>>| {
                    let packet = packet.unwrap_or_default();
                    xmp::description(&packet, language).map_err(io::Error::other)
                };
                match described(packet.main)? {
                    Some(text) => Some(text),
                    None => described(packet.extended)?,
                }
            }
            (_, None) => None,
            (SidecarKind::Xmp { language, .. }, Some(bytes)) => {
                xmp::description(&bytes, language).map_err(io::Error::other)?
            }
            (_, Some(bytes)) => Some(plain(&bytes)),
        };
        Ok(text.filter(|text| !text.is_empty()))
    }

    /// Whether the photo needs no caption.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn is_done(&self, input: &Input) -> Result<bool, OutputError> {
        Ok(self.config.existing == Existing::Skip && self.existing(input)?.is_some())
    }

    /// Writes the caption, as a temporary file that is renamed. Whether it was written: not where one is
    /// there that is kept, or holds it already.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, record: Record<'_>) -> Result<bool, OutputError> {
        let Some(best) = record.captions.first() else { return Ok(false) };
        let file = self.place(record.input);
        let existing = self.existing(record.input)?;
        let (text, separator) = (&best.text, &self.config.separator);
        let text = match (existing, self.config.existing) {
            (Some(_), Existing::Skip) => return Ok(false),
            // Written before a run broke off.
            (Some(old), Existing::Append) if old.ends_with(text.as_str()) => return Ok(false),
            (Some(old), Existing::Prepend) if old.starts_with(text.as_str()) => return Ok(false),
            (Some(old), Existing::Append) => format!("{old}{separator}{text}"),
            (Some(old), Existing::Prepend) => format!("{text}{separator}{old}"),
            _ => text.clone(),
        };
        let content = self.content(record, &file, &text);
        let content = content.map_err(|source| OutputError { file: file.clone(), source })?;
        // A link is followed, so that what it leads to is replaced and not the link.
        let target = fs::canonicalize(&file).unwrap_or_else(|_| file.clone());
        if let Some(folder) = target.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder)
                .map_err(|source| OutputError { file: file.clone(), source })?;
        }
        replace_file(&target, &content).map_err(|error| {
            let source = match error {
                CheckpointError::Io { source, .. } => source,
                other => io::Error::other(other.to_string()),
            };
            OutputError { file, source }
        })?;
        Ok(true)
    }

    fn content(&self, record: Record<'_>, file: &Path, text: &str) -> io::Result<Vec<u8>> {
        match &self.config.kind {
            SidecarKind::Text { .. } => Ok(format!("{text}\n").into_bytes()),
            SidecarKind::Json => Ok(as_json(record).into_bytes()),
            SidecarKind::Xmp { language, .. } => {
                let old = read_regular(file)?;
                let packet = xmp::with_description(old.as_deref(), language, text);
                packet.map(String::into_bytes).map_err(io::Error::other)
            }
            SidecarKind::Embedded { language } => {
                let photo = read_regular(file)?.map_or_else(|| record.input.read(), Ok)?;
                let embed::Packets { main, extended } =
                    embed::packets(&photo).map_err(io::Error::other)?;
                // What stands there would contradict what is written here.
                let extended = extended.unwrap_or_default();
                let is_there =
                    xmp::description(&extended, xmp::DEFAULT_LANGUAGE).map_err(io::Error::other)?;
                if is_there.is_some() {
                    return Err(io::Error::other(
                        "its description lies in extended XMP, which is not written here",
                    ));
                }
                let packet = xmp::with_description(main.as_deref(), language, text);
                let packet = packet.map_err(io::Error::other)?;
                embed::with_packet(&photo, &packet).map_err(io::Error::other)
            }
        }
    }
}

/// The caption that lies beside a photo, whoever wrote it: in its archive or table, or in `photo.txt`,
/// `photo.caption` or `photo.jpg.txt`.
pub(in crate::caption) fn caption_beside(input: &Input) -> Option<String> {
    if !input.is_file() {
        return input.caption_beside();
    }
    text_beside(&input.path, &["txt", "caption"])
}

/// The tags that lie beside a photo, with commas between them: in `photo.tags`, or in `photo.txt` as taggers
/// for Stable Diffusion and gallery-dl write them, one a line or with commas. In an archive or a table the
/// caption there.
pub(in crate::caption) fn tags_beside(input: &Input) -> Option<String> {
    let text = match input.is_file() {
        true => text_beside(&input.path, &["tags", "txt"])?,
        false => input.caption_beside()?,
    };
    let tags = text.split(['\n', ',']).map(str::trim).filter(|tag| !tag.is_empty());
    Some(tags.collect::<Vec<_>>().join(", ")).filter(|tags| !tags.is_empty())
}

fn text_beside(photo: &Path, extensions: &[&str]) -> Option<String> {
    let names = extensions
        .iter()
        .flat_map(|extension| [photo.with_extension(extension), with_ending(photo, extension)]);
    let mut texts = names.filter_map(|file| read_regular(&file).ok().flatten());
    texts.find_map(|bytes| Some(plain(&bytes)).filter(|text| !text.is_empty()))
}

/// The most bytes of a file that is read whole.
const MAX_FILE: u64 = 1 << 30;

/// `None` of what is not there.
fn read_regular(file: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(file) {
        Ok(metadata) if !metadata.is_file() => {
            Err(io::Error::other("it is there, and no regular file"))
        }
        Ok(metadata) if metadata.len() > MAX_FILE => {
            Err(io::Error::other(format!("it has {} bytes", metadata.len())))
        }
        Ok(_) => fs::read(file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_start_matches('\u{FEFF}').trim().to_owned()
}

fn with_ending(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(extension);
    path.with_file_name(name)
}

fn as_json(record: Record<'_>) -> String {
    let captions: Vec<_> = record
        .captions
        .iter()
        .map(|shaped| {
            let caption = &shaped.caption;
            json!({
                "caption": shaped.text,
                "confidence": caption.confidence(),
                "score": caption.score,
                "words": caption.words,
            })
        })
        .collect();
    let name = record.input.path.file_name().map(|name| name_of(Path::new(name)));
    let value = json!({
        "file_name": name,
        "caption": record.captions.first().map(|shaped| &shaped.text),
        "captions": captions,
        "model": record.model,
    });
    format!("{value:#}\n")
}

fn stems(folder: &Path) -> Stems {
    let mut stems = Stems::new();
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    for name in entries.map(|entry| entry.file_name()) {
        if is_image_path(Path::new(&name))
            && let Some(stem) = Path::new(&name).file_stem().map(OsStr::to_owned)
        {
            *stems.entry(stem).or_default() += 1;
        }
    }
    stems
}

#[cfg(test)]
mod tests {
    use super::super::Shaped;
    use super::*;
    use crate::caption::Caption;

    fn sidecars(existing: Existing, write_to: Option<PathBuf>) -> Sidecars {
        let (kind, separator) = (SidecarKind::Text { extension: "txt".into() }, ", ".to_owned());
        Sidecars::new(SidecarConfig { kind, write_to, existing, separator })
    }

    fn write(sidecars: &Sidecars, input: &Input, text: &str) -> bool {
        let caption =
            Caption { caption: text.into(), token_ids: Vec::new(), score: 0.0, words: Vec::new() };
        let captions = [Shaped { text: text.into(), caption }];
        sidecars.write(Record { input, captions: &captions, model: "m" }).unwrap()
    }

    #[test]
    fn captions_that_are_there_are_kept_unless_told_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| Input::file(folder.path().join(name), name);
        let photo = at("a.b.jpg");
        fs::write(&photo.path, "").unwrap();
        let text = || fs::read_to_string(folder.path().join("a.b.txt")).unwrap();
        let skip = sidecars(Existing::Skip, None);
        assert!(!skip.is_done(&photo).unwrap());
        assert!(write(&skip, &photo, "a dog"));
        assert!(skip.is_done(&photo).unwrap() && !write(&skip, &photo, "a cat"));
        for _ in 0..2 {
            write(&sidecars(Existing::Append, None), &photo, "a cat");
            assert_eq!(text(), "a dog, a cat\n");
        }
        write(&sidecars(Existing::Prepend, None), &photo, "a cow");
        assert_eq!(text(), "a cow, a dog, a cat\n");
        write(&sidecars(Existing::Overwrite, None), &photo, "a sheep");
        assert_eq!(text(), "a sheep\n");
        // An empty file holds no caption.
        fs::write(folder.path().join("a.b.txt"), "\n").unwrap();
        assert!(!skip.is_done(&photo).unwrap());
        fs::remove_file(folder.path().join("a.b.txt")).unwrap();
        fs::create_dir(folder.path().join("a.b.txt")).unwrap();
        assert!(skip.is_done(&photo).is_err());
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[test]
    fn photos_of_one_stem_have_a_sidecar_each_and_trees_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("s")).unwrap();
        for name in ["s/a.jpg", "s/a.png", "s/b.jpg"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let at = |name: &str| Input::file(folder.path().join(name), name);
        let out = folder.path().join("out");
        let there = sidecars(Existing::Skip, Some(out.clone()));
        assert_eq!(there.place(&at("s/a.jpg")), out.join("s/a.jpg.txt"));
        assert_eq!(there.place(&at("s/a.png")), out.join("s/a.png.txt"));
        assert!(write(&there, &at("s/b.jpg"), "a dog"));
        assert_eq!(fs::read_to_string(out.join("s/b.txt")).unwrap(), "a dog\n");
    }
}
