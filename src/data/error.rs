//! What makes a data set unusable as a whole.
use std::io;
use std::path::PathBuf;

use super::record::MAX_BAD_SHARE;
use crate::lfs;

/// An error that ends the loading of a data set.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// There is no such path.
    #[error("{}: no such file or folder", path.display())]
    NotFound {
        /// The path asked for.
        path: PathBuf,
    },
    /// The path is no data set that we know.
    #[error(
        "{}: not recognised as a captioning data set: {seen} (expected a Karpathy dataset_*.json, \
         COCO captions_*.json, a Flickr8k token file, metadata.jsonl, .csv or .parquet with images, parquet, \
         Arrow or tar files with images in them, a table of images and captions, or images with .txt or \
         .caption files beside them)",
        path.display()
    )]
    Unrecognised {
        /// The path asked for.
        path: PathBuf,
        /// What was found there.
        seen: String,
    },
    /// A format was named that the folder does not hold.
    #[error("{}: holds no {expected}", path.display())]
    NoAnnotations {
        /// The folder asked for.
        path: PathBuf,
        /// The file that the format needs.
        expected: &'static str,
    },
    /// Several files could be the data set.
    #[error(
        "{}: holds several data sets: {} (give the path of one of these files)",
        path.display(),
        files.join(", ")
    )]
    Ambiguous {
        /// The folder asked for.
        path: PathBuf,
        /// The names of the files in it.
        files: Vec<String>,
    },
    /// The folder given for the images is none.
    #[error("{}: not a folder (expected the folder that holds the images)", path.display())]
    ImagesFolder {
        /// The folder asked for.
        path: PathBuf,
    },
    /// A file or folder cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A JSON file cannot be parsed as a whole.
    #[error("{}:{line}:{column}: {detail} (expected {expected})", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The column, counted from 1.
        column: usize,
        /// What the parser says.
        detail: String,
        /// What the file should hold.
        expected: &'static str,
    },
    /// A CSV file has no usable header.
    #[error(
        "{}:1: no column {column:?} (found the columns {}; expected file_name and text)",
        path.display(),
        found.join(", ")
    )]
    Column {
        /// The file.
        path: PathBuf,
        /// The column that is needed.
        column: &'static str,
        /// The columns that are there.
        found: Vec<String>,
    },
    /// A file is a folder, a pipe or a device.
    #[error("{}: no file (expected one)", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// A file is too long to be one of annotations.
    #[error("{}: {length} bytes (expected a list of captions of at most {limit})", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
        /// The most that is read.
        limit: u64,
    },
    /// A Git LFS pointer stands in place of a file.
    #[error("{}: {}", path.display(), lfs::REMEDY)]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A table of a kind that this build does not read.
    #[error(
        "{}: parquet and Arrow are not read by this build, which lacks the feature `columnar` (expected one with \
         it, or the data set as an imagefolder)",
        path.display()
    )]
    NotBuilt {
        /// The file or folder.
        path: PathBuf,
    },
    /// A parquet file cannot be read.
    #[error("{}: {detail} (expected a parquet file)", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What its reader says.
        detail: String,
    },
    /// An Arrow file cannot be read.
    #[error("{}: {detail}", path.display())]
    Arrow {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Compressed archives hold more than is kept in memory.
    #[error(
        "{}: compressed archives of more than {limit} bytes in all are not held in memory (decompress them: \
         `gunzip` makes a .tar that is read in place)",
        path.display()
    )]
    Decompressed {
        /// The archive at which the limit was reached.
        path: PathBuf,
        /// The most bytes of all.
        limit: u64,
    },
    /// COCO's annotations of another kind: boxes, key points.
    #[error(
        "{}: its annotations hold no captions (expected captions_*.json; instances and key points lie beside it)",
        path.display()
    )]
    NoCaptions {
        /// The file.
        path: PathBuf,
    },
    /// The annotations list no image.
    #[error("{}: lists no image", path.display())]
    Empty {
        /// The path asked for.
        path: PathBuf,
    },
    /// None of the listed images is there.
    #[error(
        "{}: none of its images ({count}) was found; the first is {first:?}, looked for in {}",
        path.display(),
        looked_in.join(", ")
    )]
    NoImageFound {
        /// The path asked for.
        path: PathBuf,
        /// How many images are listed.
        count: usize,
        /// The first of them.
        first: String,
        /// The folders that were tried.
        looked_in: Vec<String>,
    },
    /// Every record is bad.
    #[error("{}: no image with a caption can be used; first problem: {first}", path.display())]
    NothingUsable {
        /// The data set's folder.
        path: PathBuf,
        /// The first problem.
        first: String,
    },
    /// Too many records are bad.
    #[error(
        "{}: {bad} of {total} records are bad, more than {:.0} %; first problem: {first} \
         (a check of the data set lists them all)",
        path.display(),
        100.0 * MAX_BAD_SHARE
    )]
    TooManyBad {
        /// The data set's folder.
        path: PathBuf,
        /// The number of bad images or captions.
        bad: usize,
        /// The number of all images or captions.
        total: usize,
        /// The first problem.
        first: String,
    },
    /// The share of validation images is no share.
    #[error("val_share is {value} (expected at least 0 and less than 1)")]
    ValShare {
        /// The value given.
        value: f64,
    },
}
