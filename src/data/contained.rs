//! The photos within an archive or a table, for those who want no data set of them: one after the other, each
//! with its name and the captions that are there.
use std::path::Path;

use super::DataError;
use super::columnar::{is_arrow, is_parquet, photos_of_table};
use super::source::ImageSource;
use super::webdataset::{self, is_shard};

/// A photo that lies in an archive or a table, or is named by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainedPhoto {
    /// The photo. Its path is that of the archive with the member's name; of a table with the name that the
    /// row gives it, or else with the row's number, from 0 on.
    pub image: ImageSource,
    /// The captions beside it.
    pub captions: Vec<String>,
    /// Whether another photo has its name but for the extension.
    pub shares_stem: bool,
}

/// Why there is no photo.
#[derive(Debug, thiserror::Error)]
pub enum ContainedError {
    /// An archive or table that cannot be read, or not to its end.
    #[error(transparent)]
    Container(#[from] DataError),
    /// A row without a photo.
    #[error("{place}: {detail}")]
    Entry {
        /// The file and the row.
        place: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A row that names a photo outside of the table's folder.
    #[error("{place}: {file} lies outside of the table's folder, and is not read unasked")]
    Outside {
        /// The file and the row.
        place: String,
        /// What it names.
        file: String,
    },
    /// A table of something else.
    #[error(
        "{file}: no column of images (expected a struct of bytes and path, or bytes, or paths)"
    )]
    NoImages {
        /// The table.
        file: String,
    },
}

/// Whether a file is, by its name, an archive or a table that photos may lie in: `.tar`, `.tar.gz`, `.tgz`,
/// `.parquet`, `.arrow`.
pub fn is_container(path: &Path) -> bool {
    is_shard(path) || is_parquet(path) || is_arrow(path)
}

/// Hands every photo of an archive or a table to `each`, or why there is none, until it returns `false`. Images
/// are not read. `allow_outside`: a table may name files that do not lie below its folder.
pub fn photos_in(
    path: &Path,
    allow_outside: bool,
    each: &mut dyn FnMut(Result<ContainedPhoto, ContainedError>) -> bool,
) {
    if !is_shard(path) {
        return photos_of_table(path, allow_outside, each);
    }
    if let Err(error) = webdataset::photos(path, &mut |photo| each(Ok(photo))) {
        each(Err(error.into()));
    }
}
