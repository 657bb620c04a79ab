//! The full check of a data set: decodes every image, finds copies, and counts.
//!
//! Words are what is left of the lower-cased captions between white space and punctuation; in scripts
//! that put no blanks between words (Japanese, Thai) a "word" is a run of text.
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use super::{Dataset, DatasetFormat, ImageRecord, Loss, Origin, Problem, ProblemKind, Split};
use crate::plural::plural;

/// Decodes an image and gives its width and height in pixels, or the reason why it cannot.
pub type Probe<'a> = dyn Fn(&Path) -> Result<(u32, u32), String> + Sync + 'a;

/// A word counts as frequent when the captions hold it this often.
pub const FREQUENT: usize = 5;

/// What [`check`] found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckReport {
    /// The data set's folder.
    pub root: PathBuf,
    /// The format it was read as.
    pub format: DatasetFormat,
    /// Images with captions; unreadable ones are among them.
    pub images: usize,
    /// Captions of these images.
    pub captions: usize,
    /// The counts of each split that has images.
    pub splits: Vec<SplitCount>,
    /// Captions an image.
    pub captions_per_image: Spread,
    /// Words a caption.
    pub caption_words: Spread,
    /// Different words in all captions.
    pub vocabulary: usize,
    /// Words among them that occur [`FREQUENT`] times or more.
    pub frequent_words: usize,
    /// Sizes of the images that could be read; `None` where none could.
    pub image_sizes: Option<ImageSizes>,
    /// Everything that is wrong, by kind and then as found.
    pub problems: Vec<Problem>,
    /// What a user should know but need not mend.
    pub notes: Vec<String>,
}

/// The images and captions of one split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SplitCount {
    /// The split.
    pub split: Split,
    /// Its images.
    pub images: usize,
    /// Their captions.
    pub captions: usize,
}

/// How a count is spread; all zero where there is nothing to count.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Spread {
    /// The smallest.
    pub min: usize,
    /// The mean.
    pub mean: f64,
    /// The smallest count that at least 95 % do not exceed.
    pub p95: usize,
    /// The largest.
    pub max: usize,
}

impl Spread {
    fn of(mut counts: Vec<usize>) -> Self {
        counts.sort_unstable();
        let (Some(&min), Some(&max)) = (counts.first(), counts.last()) else {
            return Self::default();
        };
        let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
        let rank = (counts.len() * 95).div_ceil(100);
        let p95 = counts.get(rank.saturating_sub(1)).copied().unwrap_or(max);
        Self { min, mean, p95, max }
    }
}

/// The sizes of images, in pixels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageSizes {
    /// The smallest width.
    pub min_width: u32,
    /// The largest width.
    pub max_width: u32,
    /// The smallest height.
    pub min_height: u32,
    /// The largest height.
    pub max_height: u32,
    /// The most frequent size, as width and height.
    pub most_common: (u32, u32),
    /// How many images have it.
    pub num_most_common: usize,
    /// The number of different sizes.
    pub num_sizes: usize,
}

impl ImageSizes {
    fn of(sizes: &[(u32, u32)]) -> Option<Self> {
        let mut counts: BTreeMap<(u32, u32), usize> = BTreeMap::new();
        for &size in sizes {
            *counts.entry(size).or_default() += 1;
        }
        // The smaller of two equally frequent sizes, whatever the order of the images.
        let (&most_common, &num_most_common) = counts.iter().rev().max_by_key(|(_, n)| **n)?;
        Some(Self {
            min_width: sizes.iter().map(|size| size.0).min()?,
            max_width: sizes.iter().map(|size| size.0).max()?,
            min_height: sizes.iter().map(|size| size.1).min()?,
            max_height: sizes.iter().map(|size| size.1).max()?,
            most_common,
            num_most_common,
            num_sizes: counts.len(),
        })
    }
}

/// Decodes every image, those without a caption too, through `probe`, in parallel, and takes stock of the captions. `progress` is
/// called from many threads with the number of images done, which need not arrive in order.
pub fn check(
    dataset: &Dataset,
    probe: &Probe<'_>,
    progress: &(dyn Fn(usize) + Sync),
) -> CheckReport {
    let num_done = AtomicUsize::new(0);
    let probe = |path: &Path| {
        let size = probe(path);
        progress(num_done.fetch_add(1, Ordering::Relaxed) + 1);
        size
    };
    let probed: Vec<Result<(u32, u32), String>> =
        dataset.records.par_iter().map(|record| probe(&record.path)).collect();
    let uncaptioned: Vec<_> =
        dataset.uncaptioned.par_iter().map(|image| probe(&image.path)).collect();
    let mut problems = dataset.problems.clone();
    let mut notes = dataset.notes.clone();
    let mut sizes = Vec::with_capacity(probed.len());
    let mut readable = Vec::with_capacity(probed.len());
    for (record, size) in dataset.records.iter().zip(probed) {
        match size {
            Ok(size) => {
                sizes.push(size);
                readable.push(record);
            }
            Err(reason) => {
                problems.push(unreadable(&record.id, &record.origin, &reason, Loss::Image));
            }
        }
    }
    for (image, size) in dataset.uncaptioned.iter().zip(uncaptioned) {
        if let Err(reason) = size {
            // That it has no caption has cost the image already.
            problems.push(unreadable(&image.id, &image.origin, &reason, Loss::Nothing));
        }
    }
    for copies in copies(&readable) {
        report_copies(&copies, &mut problems, &mut notes);
    }
    problems.sort_by_key(|problem| problem.kind);

    let (vocabulary, frequent_words, caption_words) = count_words(&dataset.records);
    CheckReport {
        root: dataset.root.clone(),
        format: dataset.format,
        images: dataset.records.len(),
        captions: dataset.num_captions(),
        splits: Split::ALL
            .into_iter()
            .map(|split| SplitCount {
                split,
                images: dataset.records_of(split).count(),
                captions: dataset.records_of(split).map(|record| record.captions.len()).sum(),
            })
            .filter(|count| count.images > 0)
            .collect(),
        captions_per_image: Spread::of(
            dataset.records.iter().map(|record| record.captions.len()).collect(),
        ),
        caption_words,
        vocabulary,
        frequent_words,
        image_sizes: ImageSizes::of(&sizes),
        problems,
        notes,
    }
}

fn unreadable(id: &str, origin: &Origin, reason: &str, loss: Loss) -> Problem {
    Problem {
        kind: ProblemKind::UnreadableImage,
        place: origin.to_string(),
        detail: format!("image {id:?} cannot be read: {reason}"),
        loss,
    }
}

/// The groups of records whose files are equal byte for byte, in the order of the records. Only files
/// of equal length are read.
fn copies<'a>(records: &[&'a ImageRecord]) -> Vec<Vec<&'a ImageRecord>> {
    let lengths: Vec<Option<u64>> = records
        .par_iter()
        .map(|record| fs::metadata(&record.path).ok().map(|metadata| metadata.len()))
        .collect();
    let mut num_of_length: HashMap<u64, usize> = HashMap::new();
    for &length in lengths.iter().flatten() {
        *num_of_length.entry(length).or_default() += 1;
    }
    let is_shared = |length: &u64| num_of_length.get(length).is_some_and(|&count| count > 1);
    let hashes: Vec<Option<(u64, u64)>> = records
        .par_iter()
        .zip(&lengths)
        .map(|(record, length)| {
            let length = length.filter(is_shared)?;
            fs::read(&record.path).ok().map(|bytes| (length, content_hash(&bytes)))
        })
        .collect();
    let mut at: HashMap<(u64, u64), usize> = HashMap::new();
    let mut groups: Vec<Vec<&ImageRecord>> = Vec::new();
    for (&record, hash) in records.iter().zip(hashes) {
        let Some(hash) = hash else { continue };
        let group = *at.entry(hash).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        // Equal hashes are a hint only: the files are compared.
        let is_copy = groups[group].first().is_none_or(|first| {
            matches!((fs::read(&first.path), fs::read(&record.path)), (Ok(a), Ok(b)) if a == b)
        });
        if is_copy {
            groups[group].push(record);
        }
    }
    groups.retain(|group| group.len() > 1);
    groups
}

/// FNV-1a over words of eight bytes; the file's length tells apart what the padding makes equal.
fn content_hash(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0xcbf2_9ce4_8422_2325, |hash: u64, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let mixed = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3);
        mixed ^ (mixed >> 29)
    })
}

/// A copy within a split only weighs a little more in training; a copy in another split lets the model
/// be judged on what it has seen.
fn report_copies(copies: &[&ImageRecord], problems: &mut Vec<Problem>, notes: &mut Vec<String>) {
    let Some((first, others)) = copies.split_first() else { return };
    for other in others {
        if other.split == first.split {
            notes.push(format!(
                "{}: image {:?} equals {:?} byte for byte (both in {})",
                other.origin, other.id, first.id, first.split
            ));
        } else {
            problems.push(Problem {
                kind: ProblemKind::TwoSplits,
                place: other.origin.to_string(),
                detail: format!(
                    "image {:?} in {} equals {:?} in {} byte for byte (expected each picture in \
                     one split)",
                    other.id, other.split, first.id, first.split
                ),
                loss: Loss::Nothing,
            });
        }
    }
}

/// The number of different words, of frequent ones, and the spread of words a caption.
fn count_words(records: &[ImageRecord]) -> (usize, usize, Spread) {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut lengths = Vec::new();
    for caption in records.iter().flat_map(|record| &record.captions) {
        let lowered = caption.to_lowercase();
        let mut length = 0;
        for word in words(&lowered) {
            length += 1;
            match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(word.to_owned(), 1);
                }
            }
        }
        lengths.push(length);
    }
    let frequent = counts.values().filter(|&&count| count >= FREQUENT).count();
    (counts.len(), frequent, Spread::of(lengths))
}

fn words(lowered: &str) -> impl Iterator<Item = &str> {
    let is_apostrophe = |character| character == '\'' || character == '\u{2019}';
    lowered
        .split(move |character| is_separator(character) && !is_apostrophe(character))
        .map(move |word| word.trim_matches(is_apostrophe))
        .filter(|word| !word.is_empty())
}

/// White space and punctuation. Not "all but letters and digits": the vowel signs and joiners of
/// Indic scripts are neither, yet inside words.
fn is_separator(character: char) -> bool {
    character.is_whitespace()
        || character.is_ascii_punctuation()
        || matches!(character,
            '\u{ab}' | '\u{bb}' | '\u{a1}' | '\u{bf}' | '\u{b7}'   // « » ¡ ¿ ·
            | '\u{964}' | '\u{965}'                                // danda
            | '\u{60c}' | '\u{61b}' | '\u{61f}' | '\u{6d4}'        // Arabic
            | '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205e}'    // general
            | '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{301f}' | '\u{30fb}' // CJK
            | '\u{ff01}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}'    // full width
            | '\u{ff3b}'..='\u{ff40}' | '\u{ff5b}'..='\u{ff65}')
}

impl CheckReport {
    /// Whether nothing is wrong. Notes do not count.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// The report as a JSON object, with the fields of this struct and `clean`.
    pub fn to_json(&self) -> serde_json::Value {
        // Nothing here can fail to serialise but a root that is not UTF-8, which is then left out.
        let root = serde_json::Value::from(self.root.to_string_lossy().into_owned());
        let readable = Self { root: PathBuf::new(), ..self.clone() };
        let mut report = serde_json::to_value(readable).unwrap_or_default();
        if let Some(fields) = report.as_object_mut() {
            fields.insert("root".to_owned(), root);
            fields.insert("clean".to_owned(), self.is_clean().into());
        }
        report
    }

    fn write_counts(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(formatter, "images", grouped(self.images))?;
        line(formatter, "captions", grouped(self.captions))?;
        let width = |count: fn(&SplitCount) -> usize| {
            self.splits.iter().map(|split| grouped(count(split)).len()).max().unwrap_or(0)
        };
        let images_width = width(|split| split.images);
        let captions_width = width(|split| split.captions);
        for split in &self.splits {
            let counts = format!(
                "{:>images_width$} {:<7} {:>captions_width$} {}",
                grouped(split.images),
                plural(&split.images, "image") + ",",
                grouped(split.captions),
                plural(&split.captions, "caption"),
            );
            line(formatter, &format!("  {}", split.split), counts)?;
        }
        let Spread { min, mean, max, .. } = self.captions_per_image;
        line(formatter, "captions an image", format!("min {min}, mean {mean:.1}, max {max}"))?;
        let Spread { min, mean, p95, max } = self.caption_words;
        let words = format!("min {min}, mean {mean:.1}, 95 % up to {p95}, max {max}");
        line(formatter, "words a caption", words)?;
        let vocabulary = format!(
            "{} {}, {} of them seen {FREQUENT} times or more",
            grouped(self.vocabulary),
            plural(&self.vocabulary, "word"),
            grouped(self.frequent_words)
        );
        line(formatter, "vocabulary", vocabulary)
    }
}

/// One line of the report.
fn line(formatter: &mut fmt::Formatter<'_>, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(formatter, "{name:<19}{value}")
}

/// The number with a comma before each group of three digits.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for CheckReport {
    /// An aligned table of the counts, then every problem by kind and every note, one a line.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(formatter, "data set", format!("{} ({})", self.root.display(), self.format))?;
        self.write_counts(formatter)?;
        match &self.image_sizes {
            Some(ImageSizes { num_sizes: 1, most_common: (width, height), .. }) => {
                line(formatter, "image size", format!("{width}×{height} pixels, all of them"))?;
            }
            Some(sizes) => {
                let text = format!(
                    "{}–{} × {}–{} pixels, {} sizes, most often {}×{} ({} {})",
                    sizes.min_width,
                    sizes.max_width,
                    sizes.min_height,
                    sizes.max_height,
                    grouped(sizes.num_sizes),
                    sizes.most_common.0,
                    sizes.most_common.1,
                    grouped(sizes.num_most_common),
                    plural(&sizes.num_most_common, "image")
                );
                line(formatter, "image size", text)?;
            }
            None => line(formatter, "image size", "unknown: no image could be read")?,
        }
        if self.is_clean() {
            line(formatter, "problems", "none")?;
        } else {
            line(formatter, "problems", grouped(self.problems.len()))?;
            for kind_problems in self.problems.chunk_by(|left, right| left.kind == right.kind) {
                let Some(first) = kind_problems.first() else { continue };
                writeln!(
                    formatter,
                    "\n{} ({}):",
                    first.kind.label(),
                    grouped(kind_problems.len())
                )?;
                for problem in kind_problems {
                    writeln!(formatter, "  {problem}")?;
                }
            }
        }
        if !self.notes.is_empty() {
            writeln!(formatter, "\nnotes:")?;
            for note in &self.notes {
                writeln!(formatter, "  {note}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{LoadOptions, load};

    /// Reads the size from a text file `WIDTHxHEIGHT…`, so that the tests need no decoder.
    fn probe(path: &Path) -> Result<(u32, u32), String> {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        let mut numbers = text.split(['x', ' ']);
        let mut number = || numbers.next().and_then(|number| number.parse().ok());
        number().zip(number()).ok_or_else(|| "not an image".to_owned())
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
        assert_eq!(unreadable[0].loss, Loss::Nothing);
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
    fn spreads_and_groups_digits() {
        let spread = Spread::of((1..=100).rev().collect());
        assert_eq!((spread.min, spread.p95, spread.max), (1, 95, 100));
        assert_eq!(Spread::of(vec![7]).p95, 7);
        assert_eq!(Spread::of(Vec::new()), Spread::default());
        let grouped: Vec<String> = [0, 999, 1_000, 35_000, 1_234_567].map(grouped).into();
        assert_eq!(grouped, ["0", "999", "1,000", "35,000", "1,234,567"]);
    }
}
