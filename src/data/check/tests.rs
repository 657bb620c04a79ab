//! Counts, copies and bad images of small data sets.
use std::fs;

use super::super::{LoadOptions, load};
use super::*;

/// Reads the size from a text file `WIDTHxHEIGHT…`, so that the tests need no decoder.
fn probe(image: &ImageSource) -> Result<(u32, u32), Box<dyn Error + Send + Sync>> {
    let text = fs::read_to_string(image.path())?;
    let mut numbers = text.split(['x', ' ']);
    let mut number = || numbers.next().and_then(|number| number.parse().ok());
    number().zip(number()).ok_or_else(|| "not an image".into())
}

fn imagefolder(rows: &[(&str, &str, &str)]) -> (tempfile::TempDir, Dataset) {
    let folder = tempfile::tempdir().unwrap();
    let mut metadata = String::new();
    for (name, content, caption) in rows {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        let row = serde_json::json!({"file_name": name, "text": caption});
        metadata.push_str(&format!("{row}\n"));
    }
    fs::write(folder.path().join("metadata.jsonl"), metadata).unwrap();
    let dataset = load(folder.path(), &LoadOptions::default()).unwrap();
    (folder, dataset)
}

#[test]
fn counts_what_is_there() {
    let (_folder, dataset) = imagefolder(&[
        ("train/a.png", "10x20 a", "A dog's ball, a dog."),
        ("train/b.png", "10x20 b", "A DOG"),
        ("val/c.png", "30x5 c", "कुत्ता भागता है।"),
    ]);
    let report = check(&dataset, &probe, &|_| {});
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.images, report.captions), (3, 3));
    let splits: Vec<_> = report.splits.iter().map(|s| (s.split, s.images)).collect();
    assert_eq!(splits, [(Split::Train, 2), (Split::Val, 1)]);
    // a, dog's, ball, dog and three Hindi words, whose signs must not cut them.
    assert_eq!((report.vocabulary, report.frequent_words), (7, 0));
    let Spread { min, mean, p95, max } = report.caption_words;
    assert_eq!((min, p95, max), (2, 5, 5));
    assert!((mean - 10.0 / 3.0).abs() < 1e-12);
    let sizes = report.image_sizes.unwrap();
    assert_eq!((sizes.min_width, sizes.max_width), (10, 30));
    assert_eq!((sizes.min_height, sizes.max_height), (5, 20));
    assert_eq!((sizes.most_common, sizes.num_most_common), ((10, 20), 2));
}

/// The report, and the most images that were said to be done.
fn counted(dataset: &Dataset) -> (CheckReport, usize) {
    let last = AtomicUsize::new(0);
    let report = check(dataset, &probe, &|done| {
        last.fetch_max(done, Ordering::Relaxed);
    });
    (report, last.into_inner())
}

#[test]
fn names_unreadable_images_and_goes_on() {
    let (folder, dataset) = imagefolder(&[
        ("train/a.png", "broken", "a dog"),
        ("val/b.png", "1x1", "a cat"),
        ("train/c.png", "broken", "a cow"),
    ]);
    let (report, last) = counted(&dataset);
    assert_eq!(last, 3);
    let found: Vec<String> = report.problems.iter().map(Problem::to_string).collect();
    let place = folder.path().join("metadata.jsonl");
    let place = place.display();
    // Equal files that are no images are not called copies as well.
    assert_eq!(
        found,
        [
            format!("{place}:1: image \"train/a.png\" cannot be read: not an image"),
            format!("{place}:3: image \"train/c.png\" cannot be read: not an image"),
        ]
    );
    assert!(report.notes.is_empty(), "{:?}", report.notes);
    assert!(!report.is_clean());
}

#[test]
fn an_image_without_a_caption_is_decoded_too() {
    let (_folder, dataset) = imagefolder(&[
        ("train/a.png", "1x1", "a dog"),
        ("train/b.png", "broken", " "),
        ("train/c.png", "1x2", ""),
    ]);
    let (report, last) = counted(&dataset);
    assert_eq!((last, dataset.num_images()), (3, 3));
    let unreadable: Vec<_> = report
        .problems
        .iter()
        .filter(|problem| problem.kind == ProblemKind::UnreadableImage)
        .collect();
    assert_eq!(unreadable.len(), 1, "{report}");
    assert!(unreadable[0].detail.contains("\"train/b.png\" cannot be read: not an image"));
    assert_eq!(unreadable[0].cost, Cost::Nothing);
    assert_eq!(report.images, 1);
}

#[test]
fn copies_leak_between_splits_but_not_within_one() {
    let (folder, dataset) = imagefolder(&[
        ("train/a.png", "1x1 same", "a dog"),
        ("train/b.png", "1x1 same", "a cat"),
        ("train/c.png", "1x1 else", "a cow"),
        ("val/d.png", "1x1 same", "a pig"),
    ]);
    let report = check(&dataset, &probe, &|_| {});
    assert_eq!(report.problems.len(), 1, "{report}");
    assert_eq!(report.problems[0].kind, ProblemKind::TwoSplits);
    let place = format!("{}:4", folder.path().join("metadata.jsonl").display());
    assert_eq!(report.problems[0].place, place);
    assert_eq!(report.notes.len(), 1);
    assert!(report.notes[0].contains("\"train/b.png\" equals \"train/a.png\""));
}

#[test]
fn writes_a_table_and_json() {
    let (_folder, dataset) =
        imagefolder(&[("train/a.png", "1x2", "a dog"), ("val/b.png", "bad", "a cat")]);
    let report = check(&dataset, &probe, &|_| {});
    let text = report.to_string();
    for expected in [
        "images             2\n",
        "  train            1 image,  1 caption\n",
        "vocabulary         3 words, 0 of them seen 5 times or more\n",
        "image size         1×2 pixels, all of them\n",
        "problems           1\n\nunreadable image (1):\n  ",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    let json = report.to_json();
    assert_eq!(json["clean"], false);
    assert_eq!(json["format"], "imagefolder");
    assert_eq!(json["splits"][0]["split"], "train");
    assert_eq!(json["problems"][0]["kind"], "unreadable_image");
    assert_eq!(json["root"], dataset.root.to_string_lossy().as_ref());
}

#[test]
fn spreads_are_of_sorted_counts() {
    let spread = Spread::of((1..=100).rev().collect());
    assert_eq!((spread.min, spread.p95, spread.max), (1, 95, 100));
    assert_eq!(Spread::of(vec![7]).p95, 7);
    assert_eq!(Spread::of(Vec::new()), Spread::default());
}
