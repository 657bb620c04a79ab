//! Parquet and Arrow, for those who look for data sets: which files are such tables, and what reads them. A
//! build without the feature `columnar` knows them when it sees them, and says that it cannot read them.
#[cfg(feature = "columnar")]
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::collect::Collector;
use super::contained::{ContainedError, ContainedPhoto};
use super::detect::{file_name, is_hidden_entry};
#[cfg(feature = "columnar")]
use super::find::{Found, ImageFinder, inner_path};
#[cfg(feature = "columnar")]
use super::rows::Picture;
use super::rows::Row;
#[cfg(feature = "columnar")]
use super::{Cost, DatasetFormat, arrow_table, parquet_table};
use super::{DataError, LoadOptions};

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

/// Hands every photo of a table to `each`, or why there is none, until it returns `false`.
pub(super) fn photos_of_table(
    path: &Path,
    allow_outside: bool,
    each: &mut dyn FnMut(Result<ContainedPhoto, ContainedError>) -> bool,
) {
    #[cfg(feature = "columnar")]
    let given = photos_of_rows(path, allow_outside, each);
    #[cfg(not(feature = "columnar"))]
    let given: Result<(), ContainedError> =
        Err(DataError::NotBuilt { path: path.to_owned() }.into());
    if let Err(error) = given {
        each(Err(error));
    }
}

#[cfg(feature = "columnar")]
fn photos_of_rows(
    path: &Path,
    allow_outside: bool,
    each: &mut dyn FnMut(Result<ContainedPhoto, ContainedError>) -> bool,
) -> Result<(), ContainedError> {
    let mut collector = Collector::new(path, DatasetFormat::Parquet);
    let rows = if is_arrow(path) {
        arrow_table::read(path, &mut collector)?
    } else if parquet_table::holds_images(path)? {
        parquet_table::read(path, &mut collector)?
    } else {
        return Err(ContainedError::NoImages { file: path.display().to_string() });
    };
    // Rows may well be called alike: `image.jpg`, each of them.
    let (mut names, mut stems) = (HashMap::<_, usize>::new(), HashMap::<_, usize>::new());
    for row in &rows {
        let name = inner_path(Path::new(row.picture.name()));
        *stems.entry(name.with_extension("")).or_default() += 1;
        *names.entry(name).or_default() += 1;
    }
    let options = LoadOptions { allow_outside, ..LoadOptions::default() };
    let mut finder = ImageFinder::beside(path, &options);
    for row in rows {
        let captions = row.captions.into_iter().map(|(_, caption)| caption).collect();
        let mut shares_stem = false;
        let found = match row.picture {
            Picture::Held { image, name } => {
                let name = inner_path(Path::new(&name));
                // A number of a row has no extension.
                let is_name = name.extension().is_some() && names.get(&name) == Some(&1);
                shares_stem = is_name && stems.get(&name.with_extension("")) != Some(&1);
                Found::Image(if is_name { image.renamed(&name) } else { image })
            }
            Picture::Named(name) => finder.find(&[], &name),
        };
        let failed =
            |detail: String| ContainedError::Entry { place: row.origin.to_string(), detail };
        let photo = match found {
            Found::Image(image) => Ok(ContainedPhoto { image, captions, shares_stem }),
            Found::Outside(file) => Err(ContainedError::Outside {
                place: row.origin.to_string(),
                file: file.display().to_string(),
            }),
            Found::Missing(why) => {
                Err(failed(why.unwrap_or_else(|| "its image is not there".to_owned())))
            }
        };
        if !each(photo) {
            return Ok(());
        }
    }
    for problem in collector.into_problems() {
        if problem.cost == Cost::Image {
            let (place, detail) = (problem.place, problem.detail);
            each(Err(ContainedError::Entry { place, detail }));
        }
    }
    Ok(())
}

#[cfg(not(feature = "columnar"))]
fn not_built(
    path: &Path,
    _options: &LoadOptions,
    _collector: &mut Collector,
) -> Result<(), DataError> {
    Err(DataError::NotBuilt { path: path.to_owned() })
}
