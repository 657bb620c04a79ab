//! Captioning data sets: formats, splits, checks, samplers and the loader that decodes ahead.
//!
//! [`load`] recognises a data set, reads its captions and returns a [`Dataset`]: the records that
//! can be used and, by name, everything that cannot. One bad record is a [`Problem`], never an
//! error; [`ensure_usable`] turns too many of them into one. [`check::check`] goes on to decode
//! every image.
use std::path::{Path, PathBuf};

#[cfg(feature = "columnar")]
mod arrow_table;
mod coco;
mod collect;
mod columnar;
mod contained;
mod csv_table;
mod detect;
mod error;
mod features;
mod find;
mod flickr8k;
mod housekeeping;
mod imagefolder;
mod json_table;
mod karpathy;
mod loader;
#[cfg(feature = "columnar")]
mod parquet_table;
mod record;
mod rows;
mod sidecar;
mod skipped;
mod source;
mod table;
mod text_file;
mod webdataset;

pub mod check;
pub mod shapes;

/// Why an image of a data set cannot be read; the message names it.
pub use crate::image::ImageError as SourceError;
pub use check::{CheckReport, check};
pub use contained::{ContainedError, ContainedPhoto, is_container, photos_in};
pub use detect::{DatasetFormat, UnknownFormat, detect};
pub use error::DataError;
pub use features::{FeatureError, FeatureWriter, Features, hash, identity};
pub use housekeeping::is_housekeeping;
pub use loader::{
    Batch, CutCaptions, Example, LoaderConfig, ReadImageError, TrainLoader, cut_captions, examples,
    for_each_batch, mix, says_direction, units_per_epoch,
};
pub use record::{
    Cost, Dataset, ImageRecord, MAX_BAD_SHARE, Origin, PassedOver, Position, Problem, ProblemKind,
    Split, Uncaptioned, UnknownSplit, bad_share, ensure_usable, is_too_many_bad,
};
pub use skipped::{SkippedImage, SkippedImages};
pub use source::ImageSource;

use collect::Collector;

/// How [`load`] reads a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadOptions {
    /// The format; `None` recognises it by looking.
    pub format: Option<DatasetFormat>,
    /// The folder with the images; `None` looks in the usual places beside the captions.
    pub images: Option<PathBuf>,
    /// The share of the training images, in `[0, 1)`, that becomes the validation split of a data
    /// set that names none.
    pub val_share: f64,
    /// Another seed draws another validation split of the same size.
    pub split_seed: u64,
    /// Whether the data set may name images that lie outside of it: by `..`, by absolute paths, or as links.
    pub allow_outside: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { format: None, images: None, val_share: 0.05, split_seed: 0, allow_outside: false }
    }
}

/// Reads the data set at `path`, a folder or its annotation file.
///
/// Images are looked up but not opened. Where the data set names no validation split, images (never
/// single captions) are drawn for it from the training images by a hash of their id, so that the
/// same images are drawn on every machine, whatever else is in the folder.
///
/// # Errors
/// A path that is not there or not recognised, a file that cannot be read or parsed as a whole, a
/// data set with no image at all, or a `val_share` outside `[0, 1)`.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Dataset, DataError> {
    if !(0.0..1.0).contains(&options.val_share) {
        return Err(DataError::ValShare { value: options.val_share });
    }
    if let Some(images) = &options.images
        && !images.is_dir()
    {
        return Err(DataError::ImagesFolder { path: images.clone() });
    }
    let (format, others) = match options.format {
        Some(format) if path.exists() => (format, Vec::new()),
        _ => detect::detect_all(path)?,
    };
    let root = match path.parent() {
        Some(parent) if path.is_file() && parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) if path.is_file() => parent,
        _ => path,
    };
    let mut collector = Collector::new(root, format);
    if !others.is_empty() {
        let names: Vec<&str> = others.iter().map(|other| other.name()).collect();
        collector.note(format!(
            "{}: read as {format}; it could also be read as {}, if that format is named",
            path.display(),
            names.join(", "),
        ));
    }
    match format {
        DatasetFormat::Karpathy => karpathy::load(path, options, &mut collector)?,
        DatasetFormat::Coco => coco::load(path, options, &mut collector)?,
        DatasetFormat::Flickr8k => flickr8k::load(path, options, &mut collector)?,
        DatasetFormat::Imagefolder => imagefolder::load(path, options, &mut collector)?,
        DatasetFormat::Parquet => columnar::load_parquet(path, options, &mut collector)?,
        DatasetFormat::Arrow => columnar::load_arrow(path, options, &mut collector)?,
        DatasetFormat::Webdataset => webdataset::load(path, options, &mut collector)?,
        DatasetFormat::Table => table::load(path, options, &mut collector)?,
        DatasetFormat::Sidecar => sidecar::load(path, options, &mut collector)?,
    }
    collector.finish(path, options)
}

#[cfg(all(test, feature = "columnar"))]
mod columnar_tests;
#[cfg(test)]
mod tests;
