//! What the frozen part of an encoder makes of images, computed once and kept in a file. Knows nothing
//! of models: who computes the features hands them in.
//!
//! The file is named after everything that the features depend on besides the image, and a record after
//! the image's own bytes: other weights, other pixels or another photo under the same name are never
//! mistaken for the old ones. Records are appended whole; one that was cut off by a crash is dropped.
//!
//! ```text
//! 8 bytes   "PWFEAT1\n"
//! 8 bytes   positions and width, u32 each, little endian
//! records   u64 identity of the image, u32 view, u32 checksum, positions × width f16
//! ```

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use burn::tensor::f16;

use super::source::ImageSource;

const MAGIC: &[u8; 8] = b"PWFEAT1\n";
const HEADER: u64 = 16;
const RECORD_HEADER: usize = 16;

/// Why features could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    /// The file could not be read or written.
    #[error("cannot read or write `{}`", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{file}: not a file of features of {positions} × {width}; delete it")]
    Foreign {
        /// The file.
        file: PathBuf,
        /// Positions expected.
        positions: usize,
        /// Width expected.
        width: usize,
    },
    /// There are no features of an image.
    #[error("{image}: no features", image = image.display())]
    Missing {
        /// The image.
        image: PathBuf,
    },
    /// The features of an image are damaged.
    #[error("{file}: the features of {image} are damaged; delete the file", file = file.display(), image = image.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The image.
        image: PathBuf,
    },
}

/// A file of features that is being filled. Other processes that want it wait meanwhile.
#[derive(Debug)]
pub struct FeatureWriter {
    path: PathBuf,
    file: File,
    shape: [usize; 2],
    places: HashMap<(u64, u32), u64>,
    end: u64,
}

impl FeatureWriter {
    /// Opens or makes the file for `key` in `folder`, for features of `[positions, width]`.
    ///
    /// # Errors
    /// A file or folder that cannot be used.
    pub fn open(folder: &Path, key: u64, shape: [usize; 2]) -> Result<Self, FeatureError> {
        let path = folder.join(format!("features-{key:016x}.bin"));
        let io = |source| FeatureError::Io { file: path.clone(), source };
        fs::create_dir_all(folder)
            .map_err(|source| FeatureError::Io { file: folder.into(), source })?;
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        file.lock().map_err(io)?;
        let [positions, width] = shape;
        let mut header = Vec::from(MAGIC);
        header.extend((positions as u32).to_le_bytes());
        header.extend((width as u32).to_le_bytes());
        let length = file.metadata().map_err(io)?.len();
        if length < HEADER {
            file.set_len(0).map_err(io)?;
            file.write_all(&header).map_err(io)?;
        } else {
            let mut found = [0; HEADER as usize];
            file.read_exact(&mut found).map_err(io)?;
            if found != *header {
                return Err(FeatureError::Foreign { file: path, positions, width });
            }
        }
        let mut writer = Self { path, file, shape, places: HashMap::new(), end: HEADER };
        writer.index(length).map_err(|source| writer.io(source))?;
        Ok(writer)
    }

    /// Finds the whole records and forgets the rest.
    fn index(&mut self, length: u64) -> io::Result<()> {
        let size = record_size(self.shape) as u64;
        let mut header = [0; RECORD_HEADER];
        while self.end + size <= length {
            self.file.seek(SeekFrom::Start(self.end))?;
            self.file.read_exact(&mut header)?;
            self.places.insert(identity_of(&header), self.end);
            self.end += size;
        }
        self.file.set_len(self.end)?;
        self.file.seek(SeekFrom::Start(self.end)).map(drop)
    }

    fn io(&self, source: io::Error) -> FeatureError {
        FeatureError::Io { file: self.path.clone(), source }
    }

    /// Whether the features of this view of an image are there.
    pub fn contains(&self, identity: u64, view: u32) -> bool {
        self.places.contains_key(&(identity, view))
    }

    /// Adds the features of a view of an image, row by row.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn append(&mut self, identity: u64, view: u32, values: &[f32]) -> Result<(), FeatureError> {
        let mut data = Vec::with_capacity(2 * values.len());
        data.extend(values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()));
        let mut record = Vec::with_capacity(record_size(self.shape));
        record.extend(identity.to_le_bytes());
        record.extend(view.to_le_bytes());
        record.extend((hash(&data) as u32).to_le_bytes());
        record.extend(data);
        self.file.write_all(&record).map_err(|source| self.io(source))?;
        self.places.insert((identity, view), self.end);
        self.end += record.len() as u64;
        Ok(())
    }

    /// Ends the filling. `identities` tells each image's [`identity`]; `views` is how many there are
    /// of each.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn finish(
        self,
        identities: HashMap<PathBuf, u64>,
        views: u32,
    ) -> Result<Features, FeatureError> {
        self.file.sync_all().map_err(|source| self.io(source))?;
        self.file.unlock().map_err(|source| self.io(source))?;
        let Self { path, file, shape, places, .. } = self;
        Ok(Features { path, shape, views, places, identities, file: Mutex::new(file) })
    }
}

/// Features of images, to be read by any thread.
#[derive(Debug)]
pub struct Features {
    path: PathBuf,
    shape: [usize; 2],
    views: u32,
    places: HashMap<(u64, u32), u64>,
    identities: HashMap<PathBuf, u64>,
    file: Mutex<File>,
}

impl Features {
    /// `[positions, width]` of an image.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Views of each image: 0 is the image as it is, the others are variations.
    pub fn views(&self) -> u32 {
        self.views
    }

    /// The features of a view of an image, row by row.
    ///
    /// # Errors
    /// There are none, or the file is damaged; the message names the image.
    pub fn read(&self, image: &Path, view: u32) -> Result<Vec<f32>, FeatureError> {
        let place = self.identities.get(image).and_then(|&id| self.places.get(&(id, view)));
        let place = *place.ok_or_else(|| FeatureError::Missing { image: image.to_owned() })?;
        let mut record = vec![0; record_size(self.shape)];
        // A reader that panicked has not changed the file.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let read = file.seek(SeekFrom::Start(place)).and_then(|_| file.read_exact(&mut record));
        drop(file);
        read.map_err(|source| FeatureError::Io { file: self.path.clone(), source })?;
        let (header, data) = record.split_at(RECORD_HEADER);
        if (hash(data) as u32).to_le_bytes() != header[12..] {
            return Err(FeatureError::Damaged { file: self.path.clone(), image: image.to_owned() });
        }
        let values = data.as_chunks::<2>().0;
        Ok(values.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect())
    }
}

fn record_size([positions, width]: [usize; 2]) -> usize {
    RECORD_HEADER + 2 * positions * width
}

fn identity_of(header: &[u8; RECORD_HEADER]) -> (u64, u32) {
    let mut identity = [0; 8];
    let mut view = [0; 4];
    identity.copy_from_slice(&header[..8]);
    view.copy_from_slice(&header[8..12]);
    (u64::from_le_bytes(identity), u32::from_le_bytes(view))
}

/// Tells an image from every other by its bytes.
///
/// # Errors
/// A file that cannot be read.
pub fn identity(image: &ImageSource) -> io::Result<u64> {
    Ok(hash(&image.read()?))
}

/// FNV-1a.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(folder: &Path, name: &str, bytes: &[u8]) -> (PathBuf, u64) {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        let identity = identity(&path.as_path().into()).unwrap();
        (path, identity)
    }

    #[test]
    fn features_come_back_and_a_cut_record_is_computed_again() {
        let folder = tempfile::tempdir().unwrap();
        let (one, first) = image(folder.path(), "one.png", b"1");
        let (two, second) = image(folder.path(), "two.png", b"2");
        let mut writer = FeatureWriter::open(folder.path(), 7, [2, 3]).unwrap();
        writer.append(first, 0, &[0.0, 1.0, -2.0, 3.5, 0.25, 6.0]).unwrap();
        writer.append(second, 0, &[1.0; 6]).unwrap();
        let path = writer.path.clone();
        drop(writer);
        let length = fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 1).unwrap();

        let mut writer = FeatureWriter::open(folder.path(), 7, [2, 3]).unwrap();
        assert!(writer.contains(first, 0) && !writer.contains(second, 0));
        writer.append(second, 0, &[2.0; 6]).unwrap();
        let identities = HashMap::from([(one.clone(), first), (two.clone(), second)]);
        let features = writer.finish(identities, 1).unwrap();
        assert_eq!(features.read(&one, 0).unwrap(), [0.0, 1.0, -2.0, 3.5, 0.25, 6.0]);
        assert_eq!(features.read(&two, 0).unwrap(), [2.0; 6]);
        assert!(features.read(&two, 1).unwrap_err().to_string().contains("two.png"));
    }

    #[test]
    fn a_file_of_another_shape_and_a_flipped_bit_are_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let (one, first) = image(folder.path(), "one.png", b"1");
        let mut writer = FeatureWriter::open(folder.path(), 7, [1, 2]).unwrap();
        writer.append(first, 0, &[1.0, 2.0]).unwrap();
        let path = writer.path.clone();
        drop(writer);
        let other = FeatureWriter::open(folder.path(), 7, [2, 2]).unwrap_err();
        assert!(matches!(other, FeatureError::Foreign { .. }), "{other}");
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        let writer = FeatureWriter::open(folder.path(), 7, [1, 2]).unwrap();
        let identities = HashMap::from([(one.clone(), first)]);
        let features = writer.finish(identities, 1).unwrap();
        assert!(features.read(&one, 0).unwrap_err().to_string().contains("damaged"));
    }
}
