//! Every format from a tiny fixture, every kind of problem with its place.
use std::fs;
use std::path::Path;
use std::time::Instant;

use tempfile::TempDir;

use super::*;

/// A folder with the given files; names ending in `/` are folders.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        write(folder.path(), name, content.as_bytes());
    }
    folder
}

fn write(folder: &Path, name: &str, content: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn read(folder: &TempDir) -> Dataset {
    load(folder.path(), &LoadOptions::default()).unwrap()
}

/// The options that leave every image without a named split in the training split.
fn no_val() -> LoadOptions {
    LoadOptions { val_share: 0.0, ..LoadOptions::default() }
}

/// Each record as `id split: caption | caption`.
fn shown(dataset: &Dataset) -> Vec<String> {
    let show = |record: &ImageRecord| {
        format!("{} {}: {}", record.id, record.split, record.captions.join(" | "))
    };
    dataset.records.iter().map(show).collect()
}

/// Each problem as its kind and its place, the latter without the folder.
fn problems(folder: &TempDir, dataset: &Dataset) -> Vec<(ProblemKind, String)> {
    let prefix = format!("{}{}", folder.path().display(), std::path::MAIN_SEPARATOR);
    let place = |problem: &Problem| problem.place.replace(&prefix, "").replace('\\', "/");
    dataset.problems.iter().map(|problem| (problem.kind, place(problem))).collect()
}

fn as_pairs(expected: &[(ProblemKind, &str)]) -> Vec<(ProblemKind, String)> {
    expected.iter().map(|(kind, place)| (*kind, (*place).to_owned())).collect()
}

const KARPATHY: &str = r#"{"dataset": "x", "images": [
 {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "A dog ."}, {"raw": " Two\n dogs "}]},
 {"filename": "b.jpg", "filepath": "val2014", "split": "restval", "sentences": [{"raw": "b"}]},
 {"filename": "c.jpg", "split": "val", "sentences": [{"raw": "c"}]},
 {"filename": "d.jpg", "split": "test", "sentences": [{"raw": "d"}]}]}"#;

#[test]
fn karpathy_reads_splits_folders_and_sentences() {
    let folder = folder(&[
        ("dataset_x.json", KARPATHY),
        ("images/a.jpg", ""),
        ("images/val2014/b.jpg", ""),
        ("images/c.jpg", ""),
        ("images/d.jpg", ""),
    ]);
    assert_eq!(detect(folder.path()).unwrap(), DatasetFormat::Karpathy);
    let dataset = read(&folder);
    assert_eq!(
        shown(&dataset),
        [
            "a.jpg train: A dog . | Two dogs",
            "val2014/b.jpg train: b",
            "c.jpg val: c",
            "d.jpg test: d"
        ]
    );
    assert!(dataset.problems.is_empty() && dataset.notes.is_empty());
    assert_eq!(dataset.records[1].image.path(), folder.path().join("images/val2014/b.jpg"));
    assert_eq!(dataset.records_of(Split::Train).count(), 2);
    // The file itself, and its images elsewhere.
    let elsewhere = tempfile::tempdir().unwrap();
    for name in ["a.jpg", "b.jpg", "c.jpg", "d.jpg"] {
        write(elsewhere.path(), name, b"");
    }
    let images = Some(elsewhere.path().to_owned());
    let options = LoadOptions { images, ..LoadOptions::default() };
    let dataset = load(&folder.path().join("dataset_x.json"), &options).unwrap();
    assert_eq!(dataset.records[0].image.path(), elsewhere.path().join("a.jpg"));
    assert_eq!(dataset.root, folder.path());
}

#[test]
fn karpathy_names_every_bad_entry() {
    let json = r#"{"images": [
        {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "a"}, {"raw": " "}, {"tokens": []}]},
        {"filename": 7, "split": "train"},
        {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "a"}]},
        {"filename": "./a.jpg", "split": "val", "sentences": [{"raw": "a"}]},
        {"filename": "b.jpg", "split": "holdout", "sentences": [{"raw": "a"}]},
        {"filename": "c.jpg", "split": "val", "sentences": []},
        {"filename": "gone.jpg", "split": "val", "sentences": [{"raw": "a"}]},
        {"filename": "c.jpg", "split": "val", "sentences": [{"raw": ""}]}]}"#;
    let folder = folder(&[("dataset_x.json", json), ("a.jpg", ""), ("b.jpg", ""), ("c.jpg", "")]);
    let dataset = read(&folder);
    assert_eq!(shown(&dataset), ["a.jpg train: a"]);
    use ProblemKind::*;
    let expected = as_pairs(&[
        (MalformedLine, "dataset_x.json:images[0].sentences[2]"),
        (EmptyCaption, "dataset_x.json:images[0].sentences[1]"),
        (MalformedLine, "dataset_x.json:images[1]"),
        (DuplicateImage, "dataset_x.json:images[2]"),
        (TwoSplits, "dataset_x.json:images[3]"),
        (MalformedLine, "dataset_x.json:images[4]"),
        (NoCaption, "dataset_x.json:images[5]"),
        (MissingImage, "dataset_x.json:images[6]"),
        (EmptyCaption, "dataset_x.json:images[7].sentences[0]"),
        (NoCaption, "dataset_x.json:images[7]"),
    ]);
    assert_eq!(problems(&folder, &dataset), expected);
    assert!(dataset.problems[5].detail.contains("holdout"), "{}", dataset.problems[5]);
}

#[test]
fn karpathy_excuses_only_a_wholly_absent_test_split() {
    let folder = folder(&[("dataset_x.json", KARPATHY), ("a.jpg", ""), ("val2014/b.jpg", "")]);
    let dataset = read(&folder);
    let expected = as_pairs(&[(ProblemKind::MissingImage, "dataset_x.json:images[2]")]);
    assert_eq!(problems(&folder, &dataset), expected);
    assert!(dataset.notes[0].contains("none of the images (1) of the test split"));
    let empty = self::folder(&[("dataset_x.json", KARPATHY)]);
    let error = load(empty.path(), &LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("none of its images (4) was found") && error.contains("a.jpg"));
}

#[test]
fn broken_json_is_an_error_with_line_and_column() {
    let folder = folder(&[("dataset_x.json", &KARPATHY[..120])]);
    let error = load(folder.path(), &LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("dataset_x.json:2:"), "{error}");
    assert!(error.contains("EOF while parsing"), "{error}");
    assert!(!error.contains("at line"), "{error}");
}

#[test]
fn json_with_bytes_that_are_not_utf8_loses_only_these_captions() {
    let mut json = b"\xef\xbb\xbf".to_vec();
    json.extend_from_slice(KARPATHY.replace("Two", "Tw@").as_bytes());
    for byte in json.iter_mut().filter(|byte| **byte == b'@') {
        *byte = 0xff;
    }
    let folder = folder(&[("a.jpg", ""), ("val2014/b.jpg", ""), ("c.jpg", ""), ("d.jpg", "")]);
    write(folder.path(), "dataset_x.json", &json);
    let dataset = read(&folder);
    assert_eq!(shown(&dataset)[0], "a.jpg train: A dog .");
    let place = "dataset_x.json:images[0].sentences[1]";
    assert_eq!(problems(&folder, &dataset), as_pairs(&[(ProblemKind::MalformedLine, place)]));
}

#[test]
fn coco_reads_a_file_a_split_and_prefers_its_folder() {
    let json = |caption: &str| {
        format!(
            r#"{{"info": {{}}, "images": [{{"id": 1, "file_name": "1.jpg"}}, {{"id": "x", "file_name": "2.jpg"}}],
            "annotations": [{{"image_id": "x", "id": 5, "caption": "two {caption}"}},
            {{"image_id": 1, "id": 6, "caption": "one {caption}"}}, {{"image_id": 1, "id": 7, "caption": "uno"}}]}}"#
        )
    };
    let folder = folder(&[
        ("annotations/captions_train2014.json", &json("train")),
        ("annotations/captions_val2014.json", &json("val")),
        ("annotations/instances_val2014.json", r#"{"annotations": [{"image_id": 1}]}"#),
        ("train2014/1.jpg", ""),
        ("train2014/2.jpg", ""),
        ("val2014/1.jpg", ""),
        ("val2014/2.jpg", ""),
    ]);
    assert_eq!(detect(folder.path()).unwrap(), DatasetFormat::Coco);
    let dataset = read(&folder);
    assert_eq!(
        shown(&dataset),
        [
            "1.jpg train: one train | uno",
            "2.jpg train: two train",
            "val2014/1.jpg val: one val | uno",
            "val2014/2.jpg val: two val"
        ]
    );
    assert_eq!(dataset.records[2].image.path(), folder.path().join("val2014/1.jpg"));
    assert!(dataset.problems.is_empty(), "{:?}", dataset.problems);
}

#[test]
fn coco_names_every_bad_entry() {
    let json = r#"{"images": [{"id": 1, "file_name": "1.jpg"}, {"id": 1, "file_name": "2.jpg"},
        {"file_name": "3.jpg"}, {"id": 4, "file_name": "4.jpg"}],
        "annotations": [{"image_id": 1, "caption": "one"}, {"image_id": 9, "caption": "nine"},
        {"image_id": 1}, {"image_id": 1, "caption": "\n"}]}"#;
    let folder = folder(&[("captions_val.json", json), ("images/1.jpg", "")]);
    let dataset = read(&folder);
    assert_eq!(shown(&dataset), ["1.jpg val: one"]);
    use ProblemKind::*;
    let expected = as_pairs(&[
        (DuplicateImage, "captions_val.json:images[1]"),
        (UnknownImage, "captions_val.json:annotations[1]"),
        (MalformedLine, "captions_val.json:annotations[2]"),
        (EmptyCaption, "captions_val.json:annotations[3]"),
        (MissingImage, "captions_val.json:images[2]"),
        (MissingImage, "captions_val.json:images[3]"),
    ]);
    assert_eq!(problems(&folder, &dataset), expected);
}

#[test]
fn flickr8k_lets_the_lists_decide() {
    let tokens = "a.jpg#0\tA dog .\r\na.jpg#1\tdogs\r\nb.jpg#0\tb\r\nc.jpg#0\tc\r\n\
                  odd.jpg.1#0\tnever existed\r\n";
    let folder = folder(&[
        ("Flickr8k.token.txt", tokens),
        ("Flickr8k.lemma.token.txt", "a.jpg#0\tdog\n"),
        ("Flickr_8k.trainImages.txt", "a.jpg\r\nb.jpg\r\n"),
        ("Flickr_8k.devImages.txt", "c.jpg"),
        ("Flickr_8k.testImages.txt", "held.jpg\nback.jpg\n"),
        ("Flicker8k_Dataset/a.jpg", ""),
        ("Flicker8k_Dataset/b.jpg", ""),
        ("Flicker8k_Dataset/c.jpg", ""),
    ]);
    assert_eq!(detect(folder.path()).unwrap(), DatasetFormat::Flickr8k);
    let dataset = read(&folder);
    let expected = ["a.jpg train: A dog . | dogs", "b.jpg train: b", "c.jpg val: c"];
    assert_eq!(shown(&dataset), expected);
    assert!(dataset.problems.is_empty(), "{:?}", dataset.problems);
    assert_eq!(dataset.notes.len(), 1);
}

#[test]
fn flickr8k_names_every_bad_line() {
    let mut tokens =
        b"a.jpg#0\ta\nno tab\na.jpg\tno number\na.jpg#x\tbad number\na.jpg#1\t \n".to_vec();
    tokens.extend_from_slice(b"a.jpg#2\t\xff\n\n#3\tno name\n");
    let folder = folder(&[
        ("Flickr_8k.trainImages.txt", "a.jpg\na.jpg\nsilent.jpg\ngone.jpg\n"),
        ("Flickr_8k.devImages.txt", "a.jpg\n"),
        ("a.jpg", ""),
        ("silent.jpg", ""),
    ]);
    write(folder.path(), "Flickr8k.token.txt", &tokens);
    let dataset = read(&folder);
    use ProblemKind::*;
    let expected = as_pairs(&[
        (MalformedLine, "Flickr8k.token.txt:2"),
        (MalformedLine, "Flickr8k.token.txt:3"),
        (MalformedLine, "Flickr8k.token.txt:4"),
        (MalformedLine, "Flickr8k.token.txt:6"),
        (MalformedLine, "Flickr8k.token.txt:8"),
        (EmptyCaption, "Flickr8k.token.txt:5"),
        (DuplicateImage, "Flickr_8k.trainImages.txt:2"),
        (NoCaption, "Flickr_8k.trainImages.txt:3"),
        (MissingImage, "Flickr_8k.trainImages.txt:4"),
        (TwoSplits, "Flickr_8k.devImages.txt:1"),
    ]);
    assert_eq!(problems(&folder, &dataset), expected);
    let text = dataset.problems[0].to_string();
    let tail = "Flickr8k.token.txt:2: no tab (expected name#number, a tab and a caption)";
    assert!(text.ends_with(tail), "{text}");
}

#[test]
fn imagefolder_reads_jsonl_in_split_folders_with_grounding() {
    let folder = folder(&[
        (
            "train/metadata.jsonl",
            "\u{feff}{\"file_name\": \"a.png\", \"text\": [\"one\", \"two\"], \"boxes\": {\"z\": 1, \"b\": [2]}}\r\n\r\n\
             {\"file_name\": \"sub\\\\b.png\", \"text\": \"b\"}\r\n",
        ),
        ("validation/metadata.jsonl", "{\"file_name\": \"a.png\", \"text\": \"कुत्ता और 犬\"}"),
        ("test/stray.png", ""),
        ("train/a.png", ""),
        ("train/sub/b.png", ""),
        ("validation/a.png", ""),
    ]);
    assert_eq!(detect(folder.path()).unwrap(), DatasetFormat::Imagefolder);
    let dataset = read(&folder);
    assert_eq!(
        shown(&dataset),
        [
            "train/a.png train: one | two",
            "train/sub/b.png train: b",
            "validation/a.png val: कुत्ता और 犬"
        ]
    );
    let grounding = dataset.records[0].grounding.as_ref().unwrap().to_string();
    assert_eq!(grounding, r#"{"boxes":{"z":1,"b":[2]}}"#);
    assert_eq!(dataset.records[1].grounding, None);
    let expected = as_pairs(&[(ProblemKind::MissingCaptionFile, "test")]);
    assert_eq!(problems(&folder, &dataset), expected);
}

#[test]
fn imagefolder_reads_root_metadata_with_splits_in_names_or_rows() {
    let rows = r#"{"file_name": "train/a.png", "text": "a"}
{"file_name": "test/b.png", "text": "b"}
{"file_name": "c.png", "text": "c", "split": "dev"}
{"file_name": "train/a.png", "text": "again"}"#;
    let folder =
        folder(&[("metadata.jsonl", rows), ("train/a.png", ""), ("test/b.png", ""), ("c.png", "")]);
    let dataset = read(&folder);
    let expected = ["train/a.png train: a | again", "test/b.png test: b", "c.png val: c"];
    assert_eq!(shown(&dataset), expected);
    assert!(dataset.problems.is_empty(), "{:?}", dataset.problems);
    assert_eq!(dataset.records[2].grounding, None);
}

#[test]
fn imagefolder_names_every_bad_row() {
    let mut rows = br#"{"file_name": "a.png", "text": "a"}
{"file_name": "a.png", "text": "a"
{"text": "nameless"}
{"file_name": "b.png", "text": 3}
{"file_name": "b.png", "text": ["b", 4, ""]}
{"file_name": "a.png", "text": "a"}
{"file_name": "b.png", "text": ["again"]}
{"file_name": "gone.png", "text": "gone"}
{"file_name": "c.png"}
[1]
"#
    .to_vec();
    rows.extend_from_slice(b"{\"file_name\": \"c.png\", \"text\": \"\xe4\"}\n");
    let folder = folder(&[("a.png", ""), ("b.png", ""), ("c.png", "")]);
    write(folder.path(), "metadata.jsonl", &rows);
    let dataset = load(folder.path(), &no_val()).unwrap();
    assert_eq!(shown(&dataset), ["a.png train: a", "b.png train: b"]);
    use ProblemKind::*;
    let expected = as_pairs(&[
        (MalformedLine, "metadata.jsonl:2"),
        (MalformedLine, "metadata.jsonl:3"),
        (MalformedLine, "metadata.jsonl:4"),
        (MalformedLine, "metadata.jsonl:5"),
        (MalformedLine, "metadata.jsonl:10"),
        (MalformedLine, "metadata.jsonl:11"),
        (DuplicateImage, "metadata.jsonl:6"),
        (EmptyCaption, "metadata.jsonl:5"),
        (DuplicateImage, "metadata.jsonl:7"),
        (MissingImage, "metadata.jsonl:8"),
        (NoCaption, "metadata.jsonl:9"),
    ]);
    assert_eq!(problems(&folder, &dataset), expected);
}

#[test]
fn imagefolder_reads_csv_with_quotes_and_repeated_rows() {
    let csv = "\u{feff}file_name,text,width\r\na.png,\"a \"\"big\"\", red\r\ndog\",3\r\n\r\n\
               b.png,b,3\r\na.png,another,3\r\nb.png,b,3\r\nb.png,short\r\n,nameless,3\r\n";
    let mut csv = csv.as_bytes().to_vec();
    csv.extend_from_slice(b"c.png,\xff,3\r\nd.png,\"never closed,3\r\ne.png,e,3\r\n");
    let folder = folder(&[("a.png", ""), ("b.png", ""), ("c.png", ""), ("d.png", "")]);
    write(folder.path(), "metadata.csv", &csv);
    let dataset = load(folder.path(), &no_val()).unwrap();
    assert_eq!(shown(&dataset), ["a.png train: a \"big\", red dog | another", "b.png train: b"]);
    use ProblemKind::*;
    let expected = as_pairs(&[
        (MalformedLine, "metadata.csv:8"),
        (MalformedLine, "metadata.csv:9"),
        (MalformedLine, "metadata.csv:10"),
        (MalformedLine, "metadata.csv:11"),
        (DuplicateImage, "metadata.csv:7"),
    ]);
    assert_eq!(problems(&folder, &dataset), expected);
    assert_eq!(dataset.records[1].origin.position, Position::Line(5));
    let headless = self::folder(&[("metadata.csv", "name,text\na.png,a\n"), ("a.png", "")]);
    let error = load(headless.path(), &no_val()).unwrap_err().to_string();
    assert!(error.contains("metadata.csv:1: no column \"file_name\""), "{error}");
}

#[test]
fn sidecar_reads_captions_beside_images_below() {
    let folder = folder(&[
        ("a.jpg", ""),
        ("a.txt", "\u{feff}one\r\n\r\ntwo\r\n"),
        ("val/b.PNG", ""),
        ("val/b.caption", "b"),
        ("deep/er/c.webp", ""),
        ("deep/er/c.txt", "c"),
        ("README.txt", "about"),
        ("._a.jpg", "junk"),
    ]);
    assert_eq!(detect(folder.path()).unwrap(), DatasetFormat::Sidecar);
    let dataset = read(&folder);
    let expected = ["a.jpg train: one | two", "deep/er/c.webp train: c", "val/b.PNG val: b"];
    assert_eq!(shown(&dataset), expected);
    assert!(dataset.problems.is_empty(), "{:?}", dataset.problems);
}

#[test]
fn sidecar_names_every_bad_image_and_file() {
    let folder = folder(&[
        ("a.jpg", ""),
        ("a.txt", "a"),
        ("blank.jpg", ""),
        ("blank.txt", "\n \n"),
        ("mixed.jpg", ""),
        ("orphan.txt", "no image"),
        ("silent.jpg", ""),
    ]);
    write(folder.path(), "mixed.txt", b"good\nb\xffd\n");
    let dataset = load(folder.path(), &no_val()).unwrap();
    assert_eq!(shown(&dataset), ["a.jpg train: a", "mixed.jpg train: good"]);
    use ProblemKind::*;
    let expected = as_pairs(&[
        (EmptyCaption, "blank.txt:1"),
        (NoCaption, "blank.txt"),
        (MalformedLine, "mixed.txt:2"),
        (NoCaption, "silent.jpg"),
        (MissingImage, "orphan.txt"),
    ]);
    assert_eq!(problems(&folder, &dataset), expected);
}

#[test]
fn detection_prefers_says_so_and_explains_failure() {
    let two = folder(&[
        ("dataset_x.json", KARPATHY),
        ("dataset_info.json", "{\"features\": {}}"),
        ("Flickr8k.token.txt", "a.jpg#0\ta\n"),
        ("a.jpg", ""),
    ]);
    let dataset = read(&two);
    assert_eq!(dataset.format, DatasetFormat::Karpathy);
    assert!(dataset.notes[0].contains("could also be read as flickr8k"), "{:?}", dataset.notes);
    let options = LoadOptions { format: Some(DatasetFormat::Flickr8k), ..no_val() };
    assert_eq!(load(two.path(), &options).unwrap().format, DatasetFormat::Flickr8k);
    let token_file = two.path().join("Flickr8k.token.txt");
    assert_eq!(detect(&token_file).unwrap(), DatasetFormat::Flickr8k);
    let options = LoadOptions { format: Some(DatasetFormat::Coco), ..no_val() };
    let error = load(two.path(), &options).unwrap_err().to_string();
    assert!(error.contains("holds no COCO captions"), "{error}");

    let several = folder(&[("dataset_x.json", KARPATHY), ("dataset_y.json", KARPATHY)]);
    let error = load(several.path(), &no_val()).unwrap_err().to_string();
    assert!(error.contains("dataset_x.json, dataset_y.json"), "{error}");

    let message = |folder: &TempDir| detect(folder.path()).unwrap_err().to_string();
    assert!(message(&folder(&[])).contains("the folder is empty"));
    assert!(message(&folder(&[("a.jpg", "")])).contains("images but no captions"));
    assert!(message(&folder(&[("notes.md", "")])).contains("it holds notes.md"));
    let error = detect(Path::new("no/such/place")).unwrap_err().to_string();
    assert!(error.contains("no/such/place: no such file or folder"), "{error}");
    let options = LoadOptions { val_share: f64::NAN, ..no_val() };
    assert!(matches!(load(two.path(), &options), Err(DataError::ValShare { .. })));
    for format in DatasetFormat::ALL {
        assert_eq!(format.name().parse(), Ok(format));
        assert_eq!(serde_json::to_value(format).unwrap(), format.name());
    }
}

#[test]
fn the_drawn_validation_split_is_fixed_and_by_image() {
    // Written down once: a change here would mix training and validation images of resumed runs.
    assert_eq!(collect::split_hash("", 0), HASH_OF_NOTHING);
    assert_eq!(collect::split_hash("images/a.jpg", 7), HASH_OF_A);
    let files = |range: std::ops::Range<usize>| {
        let folder = tempfile::tempdir().unwrap();
        for index in range {
            write(folder.path(), &format!("{index:03}.jpg"), b"");
            write(folder.path(), &format!("{index:03}.txt"), b"one\ntwo\n");
        }
        folder
    };
    let drawn = |folder: &TempDir, options: &LoadOptions| -> Vec<String> {
        let dataset = load(folder.path(), options).unwrap();
        dataset.records_of(Split::Val).map(|record| record.id.clone()).collect()
    };
    let all = files(0..200);
    let default = LoadOptions::default();
    let ids = drawn(&all, &default);
    assert_eq!(ids, VAL_OF_200);
    // Images that come or go move no others.
    let half = drawn(&files(0..100), &default);
    let of_half: Vec<String> = ids.iter().filter(|id| id.as_str() < "100").cloned().collect();
    assert_eq!(half, of_half);
    assert_ne!(drawn(&all, &LoadOptions { split_seed: 1, ..default.clone() }), ids);
    assert_eq!(drawn(&all, &no_val()), Vec::<String>::new());
    // Never an empty split from two images or more.
    let two = files(0..2);
    assert_eq!(drawn(&two, &default).len(), 1);
    assert_eq!(drawn(&two, &LoadOptions { val_share: 0.999_999, ..default }).len(), 1);
}

const HASH_OF_NOTHING: u64 = 0x813f_0174_a236_7c13;
const HASH_OF_A: u64 = 0xf01e_8c6d_ea78_883c;
const VAL_OF_200: [&str; 9] = [
    "020.jpg", "049.jpg", "069.jpg", "096.jpg", "111.jpg", "116.jpg", "145.jpg", "156.jpg",
    "158.jpg",
];

#[test]
fn more_than_five_percent_bad_is_refused_unless_allowed() {
    let rows = |num_missing: usize| {
        let folder = tempfile::tempdir().unwrap();
        let mut metadata = String::new();
        for index in 0..100 {
            metadata.push_str(&format!("{{\"file_name\": \"{index}.png\", \"text\": \"x\"}}\n"));
            if index >= num_missing {
                write(folder.path(), &format!("{index}.png"), b"");
            }
        }
        write(folder.path(), "metadata.jsonl", metadata.as_bytes());
        load(folder.path(), &no_val()).unwrap()
    };
    let five = rows(5);
    assert!((bad_share(&five) - 0.05).abs() < 1e-12);
    ensure_usable(&five, false).unwrap();
    let six = rows(6);
    let error = ensure_usable(&six, false).unwrap_err().to_string();
    assert!(error.contains("6 of 100 records are bad"), "{error}");
    assert!(error.contains("metadata.jsonl:1: image \"0.png\" is missing"), "{error}");
    ensure_usable(&six, true).unwrap();
    // Captions count by themselves: six lost of twenty, and no image.
    let captions = ["x", "x", "x", "", "", ""].map(|text| format!("{text:?}")).join(",");
    let row = format!("{{\"file_name\": \"a.png\", \"text\": [{captions}]}}");
    let folder = folder(&[("metadata.jsonl", &row), ("a.png", "")]);
    let dataset = read(&folder);
    assert!((bad_share(&dataset) - 0.5).abs() < 1e-12);
    let nothing = self::folder(&[("a.jpg", "")]);
    let options = LoadOptions { format: Some(DatasetFormat::Sidecar), ..no_val() };
    let dataset = load(nothing.path(), &options).unwrap();
    let error = ensure_usable(&dataset, true).unwrap_err().to_string();
    assert!(error.contains("no image with a caption can be used"), "{error}");
}

#[test]
fn the_real_flickr8k_loads_clean_both_ways() {
    let Some(folder) = crate::shared::shared("flickr8k") else { return };
    let start = Instant::now();
    let karpathy = load(&folder, &LoadOptions::default()).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("loaded in {seconds:.3} s");
    assert_eq!(karpathy.format, DatasetFormat::Karpathy);
    let format = Some(DatasetFormat::Flickr8k);
    let official = load(&folder, &LoadOptions { format, ..LoadOptions::default() }).unwrap();
    for dataset in [&karpathy, &official] {
        assert_eq!(dataset.records_of(Split::Train).count(), 6_000);
        assert_eq!(dataset.records_of(Split::Val).count(), 1_000);
        assert_eq!(dataset.records_of(Split::Test).count(), 0);
        assert!(dataset.records.iter().all(|record| record.captions.len() == 5));
        assert!(dataset.problems.is_empty(), "{:?}", dataset.problems);
    }
    let report = check(&karpathy, &|image| Ok(::image::image_dimensions(image.path())?), &|_| {});
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.images, report.captions), (7_000, 35_000));
    // Two training images are one picture: worth a note, no more.
    assert!(report.notes.iter().any(|note| note.contains("3050606344_af711c726c.jpg")));
    eprintln!("{report}");
}
