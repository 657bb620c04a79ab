//! A photo that is to be captioned: a file, or a member of an archive or a row of a table. Knows how to read it.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::image::RgbImage;

use crate::data::{ContainedPhoto, ImageSource, SourceError};
use crate::image::DecodeLimits;

/// A photo to caption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The file, as it was named or below the folder that was; of a photo in an archive or a table the path of
    /// that with its name in it.
    pub path: PathBuf,
    /// Its path within the folder that was named; else its name, in an archive with the archive's before it.
    pub relative: PathBuf,
    /// Where it is, if it is no file of its own.
    pub contained: Option<Arc<ContainedPhoto>>,
}

impl Input {
    /// A file.
    pub fn file(path: impl Into<PathBuf>, relative: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), relative: relative.into(), contained: None }
    }

    /// A photo in an archive or a table.
    pub fn contained(photo: ContainedPhoto, relative: PathBuf) -> Self {
        let path = photo.image.path().to_owned();
        Self { path, relative, contained: Some(Arc::new(photo)) }
    }

    /// The caption that lies beside it in its archive or table; several as lines.
    pub fn caption_beside(&self) -> Option<String> {
        let captions = self.contained.as_ref()?.captions.iter().map(|caption| caption.trim());
        let captions: Vec<&str> = captions.filter(|caption| !caption.is_empty()).collect();
        (!captions.is_empty()).then(|| captions.join("\n"))
    }

    /// Of the file that it is or that it lies in; `None` of anything that is no regular file.
    pub fn metadata(&self) -> Option<Metadata> {
        let source = self.contained.as_ref().map(|contained| &contained.image);
        let file = source.and_then(|source| source.container()).unwrap_or(&self.path);
        fs::metadata(file).ok().filter(Metadata::is_file)
    }

    /// The encoded bytes.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match &self.contained {
            Some(contained) => contained.image.read(),
            None => fs::read(&self.path),
        }
    }

    /// The photo as upright 8-bit RGB.
    ///
    /// # Errors
    /// Why it cannot be read; the message names it.
    pub fn decode(&self, limits: &DecodeLimits) -> Result<RgbImage, SourceError> {
        match &self.contained {
            Some(contained) => contained.image.decode(limits),
            None => ImageSource::file(&self.path).decode(limits),
        }
    }

    /// BLAKE3 of the encoded bytes, in hexadecimal; `None` of what cannot be read or is no regular file.
    pub fn content_hash(&self) -> Option<String> {
        let metadata = self.metadata()?;
        let mut hasher = blake3::Hasher::new();
        if self.contained.is_some() {
            hasher.update(&self.read().ok()?);
        } else {
            hasher.update_reader(File::open(&self.path).ok()?).ok()?;
            // A file that is being written has no content yet.
            if hasher.count() != metadata.len() {
                return None;
            }
        }
        Some(hasher.finalize().to_hex().to_string())
    }

    /// Whether it is a file of its own, and no part of another.
    pub fn is_file(&self) -> bool {
        self.contained.is_none()
    }

    /// The archive or table that it lies in.
    pub fn container(&self) -> Option<&Path> {
        self.contained.as_ref()?.image.container()
    }
}
