//! Where the bytes of an image are: in a file of its own, or within an archive or a table. Knows how to
//! read them, and nothing of captions.
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::image::RgbImage;

use crate::image::{DecodeLimits, ImageError, decode_bytes, decode_file};
use crate::lfs;

/// An image that can be read, and the name that says which one it is.
///
/// Two sources are equal if their [`path`](Self::path)s are: a path names one image, also where it leads
/// into an archive, and what is sampled, kept or reported for an image goes by it.
#[derive(Debug, Clone)]
pub struct ImageSource {
    path: Arc<Path>,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    /// The file `path`.
    File,
    /// A part of a file.
    Span { container: Arc<Path>, offset: u64, length: u64 },
    /// A part of an archive that was decompressed.
    Memory { container: Arc<Path>, content: Arc<Vec<u8>>, offset: usize, length: usize },
    /// Wherever `column` finds its row.
    #[cfg(feature = "columnar")]
    Row { column: Arc<dyn ImageColumn>, row: u64 },
}

/// A column of a table that holds the bytes of images.
#[cfg(feature = "columnar")]
pub(super) trait ImageColumn: std::fmt::Debug + Send + Sync {
    /// The file that the table is in.
    fn container(&self) -> &Path;

    /// The bytes in a row, counted from 0 in the file.
    fn read(&self, row: u64) -> io::Result<Vec<u8>>;
}

impl ImageSource {
    /// The image file `path`.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into().into(), place: Place::File }
    }

    /// The `length` bytes at `offset` of the file `container`, which it calls `name`.
    pub fn span(container: &Arc<Path>, name: impl AsRef<Path>, offset: u64, length: u64) -> Self {
        let path = container.join(name).into();
        Self { path, place: Place::Span { container: Arc::clone(container), offset, length } }
    }

    /// The bytes `offset..offset + length` of `content`, which is what `container` holds when it is
    /// decompressed.
    pub(super) fn memory(
        container: &Arc<Path>,
        name: impl AsRef<Path>,
        content: &Arc<Vec<u8>>,
        (offset, length): (usize, usize),
    ) -> Self {
        let path = container.join(name).into();
        let (container, content) = (Arc::clone(container), Arc::clone(content));
        Self { path, place: Place::Memory { container, content, offset, length } }
    }

    /// The image in a row of a table.
    #[cfg(feature = "columnar")]
    pub(super) fn row(column: &Arc<dyn ImageColumn>, name: &str, row: u64) -> Self {
        let path = column.container().join(name).into();
        Self { path, place: Place::Row { column: Arc::clone(column), row } }
    }

    /// The same image, called `name` in its archive or table.
    pub(super) fn renamed(self, name: &Path) -> Self {
        match self.container().map(|container| container.join(name)) {
            Some(path) => Self { path: path.into(), ..self },
            None => self,
        }
    }

    /// The image's name: the path of its file, or that of the archive or table with the name within it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The archive or table that the image lies in; `None` for a file of its own.
    pub fn container(&self) -> Option<&Path> {
        match &self.place {
            Place::File => None,
            Place::Span { container, .. } | Place::Memory { container, .. } => Some(container),
            #[cfg(feature = "columnar")]
            Place::Row { column, .. } => Some(column.container()),
        }
    }

    /// The bytes of the image as it is encoded.
    ///
    /// # Errors
    /// A file that cannot be read or is shorter than it was.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match &self.place {
            Place::File => fs::read(&self.path),
            Place::Span { container, offset, length } => {
                let mut file = File::open(container)?;
                file.seek(SeekFrom::Start(*offset))?;
                let mut bytes = Vec::new();
                file.take(*length).read_to_end(&mut bytes)?;
                if (bytes.len() as u64) < *length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(bytes)
            }
            Place::Memory { content, offset, length, .. } => content
                .get(*offset..offset.saturating_add(*length))
                .map(<[u8]>::to_vec)
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into()),
            #[cfg(feature = "columnar")]
            Place::Row { column, row } => column.read(*row),
        }
    }

    /// The number of encoded bytes, where it is known without reading them.
    ///
    /// # Errors
    /// A file that is not there.
    pub fn length(&self) -> io::Result<Option<u64>> {
        match &self.place {
            Place::File => fs::metadata(&self.path).map(|metadata| Some(metadata.len())),
            Place::Span { length, .. } => Ok(Some(*length)),
            Place::Memory { length, .. } => Ok(Some(*length as u64)),
            #[cfg(feature = "columnar")]
            Place::Row { .. } => Ok(None),
        }
    }

    /// The image as upright 8-bit RGB, as [`decode_file`] gives it.
    ///
    /// # Errors
    /// As [`decode_file`].
    pub fn decode(&self, limits: &DecodeLimits) -> Result<RgbImage, ImageError> {
        match &self.place {
            Place::File => decode_file(&self.path, limits),
            _ => {
                let failed = |error| ImageError::Io { path: self.path.to_path_buf(), error };
                decode_bytes(&self.read().map_err(failed)?, &self.path, limits)
            }
        }
    }
}

/// Whether the file is a Git LFS pointer; a file that cannot be read is none.
pub(super) fn is_pointer_file(path: &Path) -> bool {
    let mut head = Vec::new();
    let is_file = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    is_file
        && File::open(path).is_ok_and(|file| file.take(1025).read_to_end(&mut head).is_ok())
        && lfs::is_pointer(&head)
}

impl PartialEq for ImageSource {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for ImageSource {}

impl Hash for ImageSource {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.path.hash(state);
    }
}

impl<P: Into<PathBuf>> From<P> for ImageSource {
    fn from(path: P) -> Self {
        Self::file(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_by_its_offset_and_named_by_its_container() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard.tar");
        fs::write(&path, b"0123456789").unwrap();
        let container: Arc<Path> = path.as_path().into();
        let source = ImageSource::span(&container, "a.jpg", 3, 4);
        assert_eq!(source.read().unwrap(), b"3456");
        assert_eq!(source.path(), path.join("a.jpg"));
        assert_eq!(source.container(), Some(path.as_path()));
        assert_eq!(source.length().unwrap(), Some(4));
        let error = ImageSource::span(&container, "b.jpg", 8, 4).read().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let content = Arc::new(b"abcdef".to_vec());
        let memory = ImageSource::memory(&container, "a.jpg", &content, (1, 2));
        assert_eq!(memory.read().unwrap(), b"bc");
        assert_eq!(memory, source);
        assert!(ImageSource::memory(&container, "a.jpg", &content, (5, 2)).read().is_err());
    }

    #[test]
    fn an_image_that_is_a_pointer_is_named_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
        fs::write(&path, pointer).unwrap();
        let limits = DecodeLimits::default();
        for source in [
            ImageSource::file(&path),
            ImageSource::span(&path.as_path().into(), "x", 0, pointer.len() as u64),
        ] {
            let error = source.decode(&limits).unwrap_err();
            assert!(matches!(error, ImageError::LfsPointer { .. }), "{error}");
            assert!(error.to_string().contains("git lfs pull"), "{error}");
        }
        fs::write(&path, b"not an image").unwrap();
        let error = ImageSource::file(&path).decode(&limits).unwrap_err();
        assert!(matches!(error, ImageError::Unrecognised { .. }), "{error}");
    }
}
