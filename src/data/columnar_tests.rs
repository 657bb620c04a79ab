//! Tests on tables as `datasets` and pyarrow write them: `testdata/make_columnar.py` makes them.

use std::path::{Path, PathBuf};

use super::*;
use crate::image::DecodeLimits;

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/data/testdata").join(name)
}

fn read(path: &Path) -> Dataset {
    load(path, &LoadOptions { val_share: 0.0, ..LoadOptions::default() }).unwrap()
}

/// The colour of each image with its captions, in the order of their ids.
fn seen(dataset: &Dataset) -> Vec<([u8; 3], Vec<&str>)> {
    let mut records: Vec<&ImageRecord> = dataset.records.iter().collect();
    records.sort_by_key(|record| COLOURS.iter().position(|colour| *colour == colour_of(record)));
    records
        .into_iter()
        .map(|record| (colour_of(record), record.captions.iter().map(String::as_str).collect()))
        .collect()
}

const COLOURS: [[u8; 3]; 3] = [[250, 20, 30], [30, 240, 40], [20, 30, 250]];

fn colour_of(record: &ImageRecord) -> [u8; 3] {
    let image = record.image.decode(&DecodeLimits::default()).unwrap();
    assert_eq!(image.dimensions(), (8, 6));
    image.get_pixel(3, 3).0
}

#[test]
fn tables_of_lists_are_read_with_their_images() {
    let expected = [
        (COLOURS[0], vec!["a red card", "it is red"]),
        (COLOURS[1], vec!["ein grünes Blatt"]),
        (COLOURS[2], vec!["a blue 🐕", "blue, \"quoted\"", "all blue"]),
    ];
    for (name, format) in
        [("lists.parquet", DatasetFormat::Parquet), ("saved", DatasetFormat::Arrow)]
    {
        let dataset = read(&testdata(name));
        assert_eq!(seen(&dataset), expected, "{name}");
        assert_eq!(detect(&testdata(name)).unwrap(), format);
        assert!(dataset.problems.is_empty(), "{name}: {:?}", dataset.problems);
    }
}

#[test]
fn nulls_dictionaries_and_other_columns_do_no_harm() {
    let mut dataset = read(&testdata("columns.parquet"));
    // The row without an image is named by its number when its image is asked for.
    let empty = dataset.records.pop().unwrap();
    let error = empty.image.decode(&DecodeLimits::default()).unwrap_err().to_string();
    assert!(error.contains("columns.parquet/3") && error.contains("no image"), "{error}");
    let expected = [
        (COLOURS[0], vec!["a red card"]),
        (COLOURS[1], vec!["ein grünes Blatt"]),
        (COLOURS[2], vec!["a blue 🐕"]),
    ];
    assert_eq!(seen(&dataset), expected);
    let splits: Vec<Split> = dataset.records.iter().map(|record| record.split).collect();
    assert_eq!(splits, [Split::Train, Split::Val, Split::Test]);
}

#[test]
fn captions_as_a_dictionary_are_refused_where_they_are_not_undone() {
    let error = load(&testdata("columns.arrow"), &LoadOptions::default()).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("columns.arrow") && said.contains("dictionary"), "{said}");
}

#[test]
fn a_cut_table_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["lists.parquet", "saved/data-00000-of-00002.arrow"] {
        let whole = std::fs::read(testdata(name)).unwrap();
        let path = folder.path().join(Path::new(name).file_name().unwrap());
        for share in [0, 1, 3, 5, 7, 9] {
            std::fs::write(&path, &whole[..whole.len() * share / 10]).unwrap();
            let error = load(&path, &LoadOptions::default()).unwrap_err().to_string();
            assert!(error.contains(&*path.to_string_lossy()), "{error}");
        }
        std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
            .unwrap();
        let error = load(&path, &LoadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("git lfs pull"), "{error}");
    }
}
