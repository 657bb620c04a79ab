//! Hugging Face's imagefolder: `metadata.jsonl`, `metadata.csv` or `metadata.parquet` beside the images, at
//! the root, in a folder for each split, below `data/`, or in the folder of a class. Each speaks of the images
//! below its own folder.
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::collect::Collector;
use super::detect::{file_name, is_hidden_entry, list_folder};
use super::find::{ImageFinder, slashed};
use super::rows::add_rows;
use super::text_file::folder_of;
use super::{Cost, DataError, LoadOptions, Origin, Position, ProblemKind, Split};
use super::{columnar, csv_table, json_table};
use crate::image::is_image_path;

/// Names of metadata files; of several in a folder the first counts.
pub(super) const TABLE_NAMES: [&str; 3] = ["metadata.jsonl", "metadata.csv", "metadata.parquet"];

/// Folders below the root that are searched for metadata.
const DEPTH: usize = 4;

/// A metadata file and the split that the folders above it name.
pub(super) struct Table {
    file: PathBuf,
    split: Option<Split>,
}

pub(super) fn load(
    path: &Path,
    options: &LoadOptions,
    collector: &mut Collector,
) -> Result<(), DataError> {
    let tables = if path.is_dir() {
        tables(path)?
    } else {
        vec![Table { file: path.to_owned(), split: None }]
    };
    if tables.is_empty() {
        let expected = "metadata.jsonl, metadata.csv or metadata.parquet, neither there nor in train/, val/, \
                        test/ or data/";
        return Err(DataError::NoAnnotations { path: path.to_owned(), expected });
    }
    let in_folders = tables.iter().any(|table| table.split.is_some());
    for table in &tables {
        load_table(table, path, options, collector)?;
    }
    if in_folders && path.is_dir() {
        report_bare_folders(path, &tables, collector)?;
    }
    Ok(())
}

/// The metadata files of a folder: its own, then those of the folders below in the order of the splits.
pub(super) fn tables(folder: &Path) -> Result<Vec<Table>, DataError> {
    let mut tables = Vec::new();
    let walk = WalkDir::new(folder).max_depth(DEPTH + 1).follow_links(true).sort_by_file_name();
    let mut folders: Vec<PathBuf> = Vec::new();
    for entry in walk.into_iter().filter_entry(|entry| !is_hidden_entry(entry)) {
        // What cannot be listed is named when its images are looked for.
        let Ok(entry) = entry else { continue };
        let is_table = entry.file_type().is_file()
            && entry.file_name().to_str().is_some_and(|name| TABLE_NAMES.contains(&name));
        let above = folder_of(entry.path());
        if is_table && !folders.contains(&above) {
            folders.push(above);
        }
    }
    for above in folders {
        let relative = above.strip_prefix(folder).unwrap_or(&above);
        let mut names = relative.components().map(|part| part.as_os_str().to_string_lossy());
        let split = names.find_map(|name| name.parse().ok());
        let candidates = TABLE_NAMES.map(|name| above.join(name));
        tables.extend(
            candidates.into_iter().find(|file| file.is_file()).map(|file| Table { file, split }),
        );
    }
    tables.sort_by(|left, right| (left.split, &left.file).cmp(&(right.split, &right.file)));
    Ok(tables)
}

/// Names the split folders whose images have no metadata where others have.
fn report_bare_folders(
    path: &Path,
    tables: &[Table],
    collector: &mut Collector,
) -> Result<(), DataError> {
    if tables.iter().any(|table| table.split.is_none()) {
        return Ok(());
    }
    for base in [path.to_owned(), path.join("data")].iter().filter(|base| base.is_dir()) {
        for folder in list_folder(base)?.into_iter().filter(|entry| entry.is_dir()) {
            let is_split = file_name(&folder).parse::<Split>().is_ok();
            let is_bare = !tables.iter().any(|table| table.file.starts_with(&folder));
            if is_split && is_bare && list_folder(&folder)?.iter().any(|file| is_image_path(file)) {
                let detail = "images without metadata.jsonl or metadata.csv (expected one of them)";
                let origin = Origin::new(&folder.into(), Position::File);
                collector.problem(ProblemKind::MissingCaptionFile, &origin, Cost::Nothing, detail);
            }
        }
    }
    Ok(())
}

fn load_table(
    table: &Table,
    path: &Path,
    options: &LoadOptions,
    collector: &mut Collector,
) -> Result<(), DataError> {
    let folder = folder_of(&table.file);
    // The part of an id that the folders above the metadata give.
    let prefix = folder.strip_prefix(path).map(slashed).unwrap_or_default();
    let folders = match &options.images {
        Some(images) => vec![images.join(&prefix), images.clone()],
        None => vec![folder.clone()],
    };
    let root = if path.is_dir() { path.to_owned() } else { folder };
    let mut finder = ImageFinder::in_folders(folders, &root, options);
    collector.looks_in(&finder);
    let extension =
        table.file.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    let rows = match extension.as_deref() {
        Some("jsonl") => json_table::read_lines(&table.file, collector)?,
        Some("parquet") => columnar::read_parquet(&table.file, collector)?,
        _ => csv_table::read(&table.file, collector)?,
    };
    add_rows(rows, &prefix, table.split, &mut finder, collector);
    Ok(())
}
