//! Parquet and Arrow, for those who look for data sets: which files are such tables, and what reads them. A
//! build without the feature `columnar` knows them when it sees them, and says that it cannot read them.
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::collect::Collector;
use super::detect::{file_name, is_hidden_entry};
use super::rows::Row;
use super::{DataError, LoadOptions};
#[cfg(feature = "columnar")]
use super::{arrow_table, parquet_table};

/// Folders below the root that are searched.
const DEPTH: usize = 3;

pub(super) fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
}

pub(super) fn is_arrow(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("arrow"))
}

/// The files below a folder that fit, in the order of their names.
pub(super) fn files_below(folder: &Path, fits: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let walk = WalkDir::new(folder).max_depth(DEPTH).follow_links(true).sort_by_file_name();
    let entries =
        walk.into_iter().filter_entry(|entry| !is_hidden_entry(entry)).filter_map(Result::ok);
    let files = entries.filter(|entry| entry.file_type().is_file()).map(|entry| entry.into_path());
    files.filter(|file| fits(file)).collect()
}

/// The parquet files below a folder that hold images and captions.
pub(super) fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let files = files_below(folder, is_parquet);
    #[cfg(feature = "columnar")]
    let files = files.into_iter().filter(|file| parquet_table::is_table(file)).collect();
    files
}

/// The Arrow files below a folder, less what `datasets` keeps of its own computations.
pub(super) fn arrow_files(folder: &Path) -> Vec<PathBuf> {
    files_below(folder, |file| is_arrow(file) && !file_name(file).starts_with("cache-"))
}

pub(super) fn load_parquet(
    path: &Path,
    options: &LoadOptions,
    collector: &mut Collector,
) -> Result<(), DataError> {
    #[cfg(feature = "columnar")]
    return parquet_table::load(path, options, collector);
    #[cfg(not(feature = "columnar"))]
    return not_built(path, options, collector);
}

pub(super) fn load_arrow(
    path: &Path,
    options: &LoadOptions,
    collector: &mut Collector,
) -> Result<(), DataError> {
    #[cfg(feature = "columnar")]
    return arrow_table::load(path, options, collector);
    #[cfg(not(feature = "columnar"))]
    return not_built(path, options, collector);
}

/// The rows of a `metadata.parquet`.
pub(super) fn read_parquet(path: &Path, collector: &mut Collector) -> Result<Vec<Row>, DataError> {
    #[cfg(feature = "columnar")]
    return parquet_table::read(path, collector);
    #[cfg(not(feature = "columnar"))]
    return not_built(path, &LoadOptions::default(), collector).map(|()| Vec::new());
}

#[cfg(not(feature = "columnar"))]
fn not_built(
    path: &Path,
    _options: &LoadOptions,
    _collector: &mut Collector,
) -> Result<(), DataError> {
    Err(DataError::NotBuilt { path: path.to_owned() })
}
