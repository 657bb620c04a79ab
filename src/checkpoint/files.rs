//! Where the files of a checkpoint lie: in a folder, or within this program.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::shipped::{self, EmbeddedFiles};
use super::weight_file::WeightFile;
use super::{CheckpointError, WEIGHTS, locate, parse_json, read_whole};

/// A model that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A checkpoint folder, the folder of a run, a Hugging Face folder, or a file of weights.
    Path(PathBuf),
    /// The captioner that ships with this program.
    Shipped,
}

impl Location {
    /// What `name` stands for: a path, or the captioner that ships if it is [`shipped::NAME`] and no
    /// checkpoint is there.
    pub fn named(name: &Path) -> Self {
        let is_its_name = name.as_os_str() == shipped::NAME && shipped::is_here();
        if is_its_name && !name.is_file() && locate(name).is_err() {
            return Self::Shipped;
        }
        Self::Path(name.into())
    }

    /// The files of the folder; of a run, those of its `best`, else its `last`.
    pub(super) fn files(&self) -> Result<Files, CheckpointError> {
        match self {
            Self::Path(path) => Ok(Files::Folder(locate(path)?)),
            Self::Shipped => Ok(Files::Embedded(shipped::FILES)),
        }
    }
}

/// The files of one checkpoint.
#[derive(Debug, Clone)]
pub(super) enum Files {
    Folder(PathBuf),
    Embedded(EmbeddedFiles),
}

impl Files {
    /// What results and errors call the folder.
    pub fn folder(&self) -> &Path {
        match self {
            Self::Folder(folder) => folder,
            Self::Embedded(_) => Path::new(shipped::NAME),
        }
    }

    /// What errors call a file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// The names of the files, in order, with their sizes in bytes. Those of folders in the folder are
    /// left out.
    pub fn list(&self) -> Result<Vec<(String, u64)>, CheckpointError> {
        let folder = match self {
            Self::Folder(folder) => folder,
            Self::Embedded(files) => {
                let each = files.iter().map(|(name, bytes)| (name.to_string(), bytes.len() as u64));
                return Ok(each.collect());
            }
        };
        let io = |source| CheckpointError::io(folder, source);
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            // Links of a cache are as large as what they lead to; one that leads nowhere is no file.
            if let Ok(metadata) = fs::metadata(entry.path())
                && metadata.is_file()
            {
                files.push((entry.file_name().to_string_lossy().into_owned(), metadata.len()));
            }
        }
        files.sort();
        Ok(files)
    }

    /// Whether `path` is the folder or lies within it.
    pub fn hold(&self, path: &Path) -> bool {
        matches!(self, Self::Folder(folder) if path.starts_with(folder))
    }

    /// Whether there is a file of this name.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(name).is_file(),
            Self::Embedded(files) => files.iter().any(|(own, _)| *own == name),
        }
    }

    /// A file's content.
    pub fn read(&self, name: &str) -> Result<Cow<'static, [u8]>, CheckpointError> {
        match self {
            Self::Folder(folder) => Ok(read_whole(&folder.join(name))?.into()),
            Self::Embedded(files) => Ok(Cow::Borrowed(embedded(files, &self.path(name))?)),
        }
    }

    /// Copies a file.
    pub fn copy(&self, name: &str, target: &Path) -> Result<(), CheckpointError> {
        let written = match self {
            Self::Folder(folder) => fs::copy(folder.join(name), target).map(drop),
            Self::Embedded(files) => fs::write(target, embedded(files, &self.path(name))?),
        };
        written.map_err(|source| CheckpointError::io(target, source))
    }

    /// A JSON file's content.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<T, CheckpointError> {
        parse_json(&self.path(name), &self.read(name)?)
    }

    /// The weights, whichever form they are in.
    pub fn any_weights(&self) -> Result<WeightFile, CheckpointError> {
        match self {
            Self::Folder(folder) => WeightFile::find(folder),
            Self::Embedded(_) => self.weights(),
        }
    }

    /// The weights of a checkpoint of ours.
    pub fn weights(&self) -> Result<WeightFile, CheckpointError> {
        let file = self.path(WEIGHTS);
        match self {
            Self::Folder(_) => WeightFile::open(&file),
            Self::Embedded(files) => WeightFile::embedded(&file, embedded(files, &file)?),
        }
    }
}

/// The content of the file that `path` ends in.
fn embedded(files: EmbeddedFiles, path: &Path) -> Result<&'static [u8], CheckpointError> {
    let found = files.iter().find(|(name, _)| path.ends_with(name));
    found
        .map(|(_, bytes)| *bytes)
        .ok_or_else(|| CheckpointError::io(path, std::io::ErrorKind::NotFound.into()))
}
