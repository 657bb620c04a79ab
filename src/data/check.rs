//! The full check of a data set: decodes every image, finds copies, and counts.
//!
//! Words are what is left of the lower-cased captions between white space and punctuation; in scripts
//! that put no blanks between words (Japanese, Thai) a "word" is a run of text.
use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use super::{
    Cost, Dataset, DatasetFormat, ImageSource, Origin, PassedOver, Problem, ProblemKind, Split,
};

mod copies;
mod report;
mod words;

use copies::{copies, report_copies};
use words::count_words;

/// Decodes an image and gives its width and height in pixels, or the reason why it cannot.
pub type Probe<'a> =
    dyn Fn(&ImageSource) -> Result<(u32, u32), Box<dyn Error + Send + Sync>> + Sync + 'a;

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
    /// Files that are no part of the data set, by kind.
    pub passed_over: Vec<PassedOver>,
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

/// Decodes every image, those without a caption too, through `probe`, in parallel, and takes stock of the
/// captions. `progress` is called from many threads with the number of images done, which need not arrive in
/// order.
pub fn check(
    dataset: &Dataset,
    probe: &Probe<'_>,
    progress: &(dyn Fn(usize) + Sync),
) -> CheckReport {
    let num_done = AtomicUsize::new(0);
    let probe = |image: &ImageSource| {
        let size = probe(image).map_err(|error| error.to_string());
        progress(num_done.fetch_add(1, Ordering::Relaxed) + 1);
        size
    };
    let probed: Vec<Result<(u32, u32), String>> =
        dataset.records.par_iter().map(|record| probe(&record.image)).collect();
    let uncaptioned: Vec<_> =
        dataset.uncaptioned.par_iter().map(|image| probe(&image.image)).collect();
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
                problems.push(unreadable(&record.id, &record.origin, &reason, Cost::Image));
            }
        }
    }
    for (image, size) in dataset.uncaptioned.iter().zip(uncaptioned) {
        if let Err(reason) = size {
            // That it has no caption has cost the image already.
            problems.push(unreadable(&image.id, &image.origin, &reason, Cost::Nothing));
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
        passed_over: dataset.passed_over.clone(),
    }
}

fn unreadable(id: &str, origin: &Origin, reason: &str, cost: Cost) -> Problem {
    Problem {
        kind: ProblemKind::UnreadableImage,
        place: origin.to_string(),
        detail: format!("image {id:?} cannot be read: {reason}"),
        cost,
    }
}

#[cfg(test)]
mod tests;
