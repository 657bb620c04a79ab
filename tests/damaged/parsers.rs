//! What people bring as text, table or archive, damaged at random: each parser of ours reads it or says what is
//! wrong, and never panics, hangs or takes much memory.
//!
//! A few mutants of each seed are part of every run. For a long one:
//!
//! ```text
//! PATCHWORD_MUTANTS=20000 cargo test --release --test damaged parsers:: -- --nocapture
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::capped::{ALLOCATOR, alone};
use patchword::checkpoint::weight_file::WeightFile;
use patchword::data::{LoadOptions, load};
use patchword::image::DecodeLimits;
use patchword::metrics::files::{Predictions, References};
use patchword::metrics::ptb;
use patchword::train::TrainConfig;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const MEGABYTE: usize = 1 << 20;

/// What a mutant of a few kilobytes may take, with the libraries' tables.
const MEMORY: usize = 96 * MEGABYTE;

fn mutants() -> usize {
    std::env::var("PATCHWORD_MUTANTS").ok().and_then(|count| count.parse().ok()).unwrap_or(40)
}

/// A damaged copy: bits flipped, bytes of note put in, pieces cut out, doubled or moved, the end cut off.
fn damaged(whole: &[u8], words: &[&[u8]], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..[1, 1, 2, 4, 8][rng.random_range(0..5)] {
        if bytes.is_empty() {
            break;
        }
        let at = rng.random_range(0..bytes.len());
        let end = (at + rng.random_range(1..40)).min(bytes.len());
        match rng.random_range(0..8) {
            0 | 1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => {
                bytes[at] = [0, 0xFF, 0x7F, 0x80, b'\n', b'\r', b'"', b','][rng.random_range(0..8)]
            }
            3 => {
                let number =
                    [[0xFF; 4], [0; 4], [0x7F, 0xFF, 0xFF, 0xFF], [0xFF, 0xFF, 0xFF, 0x7F]];
                let end = (at + 4).min(bytes.len());
                bytes.splice(at..end, number[rng.random_range(0..4)]);
            }
            4 => drop(bytes.drain(at..end)),
            5 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            6 => {
                let word = words[rng.random_range(0..words.len())].to_vec();
                bytes.splice(at..at, word);
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

const WORDS: [&[u8]; 14] = [
    b"NaN",
    b"-Infinity",
    b"\\ud83d",
    b"null",
    b"[[[[[[[[[[[[[[[[",
    b"{}",
    b"1e999",
    b"\xEF\xBB\xBF",
    b"\xFF\xFE",
    b"../../../../etc/passwd",
    b"\x1b[31m",
    b"99999999999999999999",
    b"\t",
    b"\xE2\x80\xA8",
];

/// Gives `read` many damaged copies of `whole` under a limit of memory and time.
fn attack(name: &str, whole: &[u8], mut read: impl FnMut(&[u8])) {
    let _alone = alone();
    let mut rng = ChaCha8Rng::seed_from_u64(whole.len() as u64);
    let count = mutants();
    let begin = Instant::now();
    let mut slowest = Duration::ZERO;
    for index in 0..count {
        let bytes = if index == 0 { whole.to_vec() } else { damaged(whole, &WORDS, &mut rng) };
        let start = Instant::now();
        ALLOCATOR.set_limit(ALLOCATOR.allocated() + MEMORY).expect("above what there is");
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(&bytes)));
        ALLOCATOR.set_limit(usize::MAX).expect("no limit");
        slowest = slowest.max(start.elapsed());
        if outcome.is_err() || start.elapsed() > Duration::from_secs(20) {
            let kept = std::env::temp_dir().join(format!("mutant-{name}-{index}"));
            fs::write(&kept, &bytes).unwrap();
            panic!("{name}: mutant {index} panics or hangs: {}", kept.display());
        }
    }
    eprintln!("{name}: {count} mutants in {:.1?}, the slowest {slowest:.1?}", begin.elapsed());
}

fn repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Reads a data set whose annotation file `name` is damaged, and its images; errors are of one line.
fn attack_data(name: &str, whole: &[u8], files: &[(&str, &[u8])]) {
    let folder = tempfile::tempdir().unwrap();
    for (file, content) in files {
        let file = folder.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    attack(&name.replace('/', "-"), whole, |bytes| {
        fs::write(&path, bytes).unwrap();
        for path in [path.as_path(), folder.path()] {
            match load(path, &LoadOptions::default()) {
                Ok(dataset) => {
                    for record in &dataset.records {
                        assert!(!record.captions.is_empty());
                        let _ = record.image.decode(&DecodeLimits::of_pixels(1 << 20));
                    }
                    for problem in &dataset.problems {
                        assert!(problem.to_string().len() < 4000, "{problem}");
                    }
                }
                Err(error) => assert!(error.to_string().len() < 4000, "{error}"),
            }
        }
    });
}

/// A PNG of a few pixels.
fn image() -> Vec<u8> {
    fs::read(repository("src/image/testdata/palette.png")).unwrap()
}

#[test]
fn lists_of_captions() {
    let image = image();
    let images: Vec<(&str, &[u8])> =
        vec![("a.png", &image), ("b.png", &image), ("images/c.png", &image)];
    for (name, text) in [
        (
            "metadata.jsonl",
            "{\"file_name\": \"a.png\", \"text\": \"a dog\"}\n{\"file_name\": \"b.png\", \"text\": [\"a cat\", \"two cats\"]}\n",
        ),
        (
            "metadata.csv",
            "file_name,text\na.png,\"a dog, brown\"\nb.png,\"a \"\"cat\"\"\"\nb.png,two\n",
        ),
        ("captions.txt", "image,caption\na.png,a dog runs\na.png,\"a dog, again\"\nc.png,a cat\n"),
        (
            "results.csv",
            "image_name| comment_number| comment\na.png| 0| A dog .\na.png| 1| Two\nc.png| 0| x\n",
        ),
        ("Flickr8k.token.txt", "a.png#0\tA dog .\na.png#1\tA brown dog .\nc.png#0\tA cat .\n"),
        (
            "captions_val2017.json",
            "{\"images\": [{\"id\": 1, \"file_name\": \"a.png\"}, {\"id\": 2, \"file_name\": \"b.png\"}], \"annotations\": [{\"id\": 1, \"image_id\": 1, \"caption\": \"a dog\"}, {\"id\": 2, \"image_id\": 2, \"caption\": \"a cat\"}]}",
        ),
        (
            "dataset_flickr8k.json",
            "{\"dataset\": \"x\", \"images\": [{\"filename\": \"a.png\", \"split\": \"train\", \"sentences\": [{\"raw\": \"a dog\", \"tokens\": [\"a\"]}]}, {\"filename\": \"b.png\", \"split\": \"val\", \"sentences\": [{\"raw\": \"a cat\"}]}]}",
        ),
        (
            "llava.json",
            "[{\"id\": \"1\", \"image\": \"a.png\", \"conversations\": [{\"from\": \"human\", \"value\": \"<image>\"}, {\"from\": \"gpt\", \"value\": \"a dog\"}]}]",
        ),
        ("a.txt", "a dog\na brown dog\r\n"),
    ] {
        attack_data(name, text.as_bytes(), &images);
    }
}

#[test]
fn tables_and_archives() {
    let mut tar = tar::Builder::new(Vec::new());
    let image = image();
    for (name, content) in [
        ("0001.png", image.as_slice()),
        ("0001.txt", b"a dog"),
        ("0002.png", &image),
        ("0002.json", b"{\"caption\": \"a cat\"}"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content).unwrap();
    }
    attack_data("train-000000.tar", &tar.into_inner().unwrap(), &[]);
    if cfg!(feature = "columnar") {
        for name in
            ["lists.parquet", "columns.parquet", "columns.arrow", "saved/data-00000-of-00002.arrow"]
        {
            let whole = fs::read(repository("src/data/testdata").join(name)).unwrap();
            attack_data(name, &whole, &[]);
        }
    }
}

#[test]
fn files_to_be_scored() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("r.json", "{\"a.jpg\": [\"a dog\", \"the dog\"], \"b.jpg\": [{\"caption\": \"a cat\"}]}"),
        (
            "r.jsonl",
            "{\"file_name\": \"a.jpg\", \"caption\": \"a dog\"}\n{\"image_id\": 4.0, \"captions\": [\"x\"]}\n",
        ),
        ("r.csv", "image,caption\na.jpg,\"a dog, brown\"\nb.jpg,a cat\n"),
        ("r.tsv", "a\\tb.jpg\ta dog\nb.jpg\ta cat\n"),
        ("r.txt", "a.jpg#0\ta dog\na.jpg#1\tthe dog\n"),
    ] {
        let path = folder.path().join(name);
        attack(name, text.as_bytes(), |bytes| {
            fs::write(&path, bytes).unwrap();
            let (references, predictions) =
                (References::read(&path, None), Predictions::read(&path));
            match (references, predictions) {
                (Ok(references), Ok(predictions)) => drop(references.bring_together(&predictions)),
                (Err(error), _) | (_, Err(error)) => assert!(!error.to_string().is_empty()),
            }
        });
    }
}

#[test]
fn words() {
    let text = "A man's dog (brown) doesn't run... \"Hello\" U.S. $5.00 3/4 e-mail: a@b.co http://x.y/z 🐕 ein—Bär";
    attack("ptb", text.as_bytes(), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let (tokens, caption) = (ptb::ptb_tokens(&text), ptb::tokenize(&text));
        assert!(!caption.contains('\n') && tokens.iter().all(|token| !token.contains('\n')));
    });
}

#[test]
fn configs() {
    for entry in fs::read_dir(repository("configs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let whole = fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        attack(&name, &whole, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            if let Err(error) = TrainConfig::parse(&text, Path::new("x.toml"), &[]) {
                assert!(error.to_string().contains("x.toml"), "{error}");
            }
        });
    }
}

#[test]
fn weights() {
    let folder = tempfile::tempdir().unwrap();
    let testdata = repository("src/checkpoint/weight_file/testdata");
    for entry in fs::read_dir(testdata).unwrap() {
        let seed = entry.unwrap().path();
        let name = seed.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".py")
            || name.ends_with(".md")
            || fs::metadata(&seed).unwrap().len() > 64 << 10
        {
            continue;
        }
        let path = folder.path().join(&name);
        attack(&name, &fs::read(&seed).unwrap(), |bytes| {
            fs::write(&path, bytes).unwrap();
            if let Ok(file) = WeightFile::open(&path) {
                for tensor in file.names() {
                    let _ = file.read_bytes(tensor);
                }
            }
        });
    }
}
