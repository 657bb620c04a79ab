//! What a data set is once it is read: records, splits, and the problems found on the way.
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{DataError, DatasetFormat, ImageSource};

/// A name that no split has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown split {0:?} (expected train, restval, val or test)")]
pub struct UnknownSplit(pub String);

/// The part of a data set that an image belongs to, with all of its captions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Learned from.
    Train,
    /// Watched while training: the best checkpoint is chosen by it.
    Val,
    /// Held back for the final figures.
    Test,
}

impl Split {
    /// Every split, in the order in which reports list them.
    pub const ALL: [Self; 3] = [Self::Train, Self::Val, Self::Test];

    /// The name in lower case: `train`, `val` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Split {
    type Err = UnknownSplit;

    /// Reads the names that data sets in the wild use, in any case. `restval` is Karpathy's name for
    /// the rest of COCO's validation images, which everyone trains on.
    fn from_str(text: &str) -> Result<Self, UnknownSplit> {
        match text.trim().to_ascii_lowercase().as_str() {
            "train" | "training" | "restval" => Ok(Self::Train),
            "val" | "valid" | "validation" | "dev" | "eval" => Ok(Self::Val),
            "test" | "testing" => Ok(Self::Test),
            _ => Err(UnknownSplit(text.to_owned())),
        }
    }
}

/// A place inside an annotation file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Position {
    /// The file as a whole.
    File,
    /// A line, counted from 1.
    Line(usize),
    /// An entry of a JSON list, counted from 0, as in `images[3]`.
    Entry {
        /// The list's key.
        list: &'static str,
        /// The entry's index.
        index: usize,
    },
    /// An entry of a list inside an entry, as in `images[3].sentences[1]`.
    InnerEntry {
        /// The outer list's key.
        list: &'static str,
        /// The index in the outer list.
        index: usize,
        /// The inner list's key.
        inner_list: &'static str,
        /// The index in the inner list.
        inner_index: usize,
    },
}

/// The file and the place in it that a record or a caption came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The file, as reached from the path the data set was loaded from.
    pub file: Arc<Path>,
    /// The place in the file.
    pub position: Position,
}

impl Origin {
    /// The place `position` of `file`.
    pub fn new(file: &Arc<Path>, position: Position) -> Self {
        Self { file: Arc::clone(file), position }
    }
}

impl fmt::Display for Origin {
    /// `file:line`, or `file:images[3]` for JSON lists.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match self.position {
            Position::File => write!(formatter, "{file}"),
            Position::Line(line) => write!(formatter, "{file}:{line}"),
            Position::Entry { list, index } => write!(formatter, "{file}:{list}[{index}]"),
            Position::InnerEntry { list, index, inner_list, inner_index } => {
                write!(formatter, "{file}:{list}[{index}].{inner_list}[{inner_index}]")
            }
        }
    }
}

/// An image with its captions.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageRecord {
    /// The name the data set gives the image, with forward slashes; unique in the data set and the
    /// same on every machine.
    pub id: String,
    /// Where the image is. It was there when the data set was loaded; whether it can be decoded is for
    /// [`check`](super::check::check) or the reader to find out.
    pub image: ImageSource,
    /// The split, shared by all captions of the image.
    pub split: Split,
    /// The captions, at least one, none empty, runs of white space reduced to one blank.
    pub captions: Vec<String>,
    /// Where the image was listed.
    pub origin: Origin,
    /// What else the image's row of a `metadata.jsonl` holds, beyond its name, captions and split:
    /// a JSON object. The shapes data keeps the boxes of its objects there.
    pub grounding: Option<serde_json::Value>,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// A listed image is not there.
    MissingImage,
    /// A listed image leads out of the data set.
    OutsideImage,
    /// An image is there but cannot be decoded.
    UnreadableImage,
    /// An image is listed more than once.
    DuplicateImage,
    /// A caption holds nothing but white space.
    EmptyCaption,
    /// An image has no caption.
    NoCaption,
    /// A line or entry cannot be understood.
    MalformedLine,
    /// A caption names an image that the data set does not list.
    UnknownImage,
    /// An image, or a copy of it, sits in two splits.
    TwoSplits,
    /// A folder of images has no caption file where its neighbours have one.
    MissingCaptionFile,
}

impl ProblemKind {
    /// A few words for tables.
    pub fn label(self) -> &'static str {
        match self {
            Self::MissingImage => "missing image",
            Self::OutsideImage => "image outside of the data set",
            Self::UnreadableImage => "unreadable image",
            Self::DuplicateImage => "duplicated image",
            Self::EmptyCaption => "empty caption",
            Self::NoCaption => "image without caption",
            Self::MalformedLine => "malformed line",
            Self::UnknownImage => "caption of an unknown image",
            Self::TwoSplits => "image in two splits",
            Self::MissingCaptionFile => "missing caption file",
        }
    }
}

/// What a problem costs the data set, since what it concerns is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cost {
    /// Nothing: the record is used all the same.
    Nothing,
    /// One caption.
    Caption,
    /// One image or one listing of it, with its captions.
    Image,
}

/// One thing that is wrong with a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What sort of thing.
    pub kind: ProblemKind,
    /// Where: `file:line`, `file:images[3]`, or a file.
    pub place: String,
    /// What exactly, and what was expected.
    pub detail: String,
    /// What is skipped because of it.
    pub cost: Cost,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.detail)
    }
}

/// An image that is there but has no caption, and so is no record.
#[derive(Debug, Clone, PartialEq)]
pub struct Uncaptioned {
    /// The name the data set gives it.
    pub id: String,
    /// Where the image is.
    pub image: ImageSource,
    /// Where it was listed.
    pub origin: Origin,
}

/// Files of one kind that lie in a data set and are no part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PassedOver {
    /// The kind, in the plural.
    pub kind: String,
    /// How many there are.
    pub count: usize,
    /// The first of them.
    pub first: String,
}

/// A data set, read but not decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The folder the data set lies in.
    pub root: PathBuf,
    /// The format it was read as.
    pub format: DatasetFormat,
    /// The usable records, in the order in which the data set lists them.
    pub records: Vec<ImageRecord>,
    /// Images that are there but have no caption.
    pub uncaptioned: Vec<Uncaptioned>,
    /// What had to be skipped or is doubtful.
    pub problems: Vec<Problem>,
    /// What a user should know but need not mend.
    pub notes: Vec<String>,
    /// Files that are no part of the data set, by kind.
    pub passed_over: Vec<PassedOver>,
}

impl Dataset {
    /// The records of one split, in order.
    pub fn records_of(&self, split: Split) -> impl Iterator<Item = &ImageRecord> {
        self.records.iter().filter(move |record| record.split == split)
    }

    /// The number of images that are there, with captions or without.
    pub fn num_images(&self) -> usize {
        self.records.len() + self.uncaptioned.len()
    }

    /// The number of captions of all records.
    pub fn num_captions(&self) -> usize {
        self.records.iter().map(|record| record.captions.len()).sum()
    }
}

/// The largest share of bad records, in `[0, 1]`, that [`ensure_usable`] lets pass.
pub const MAX_BAD_SHARE: f64 = 0.05;

/// The share of the data set that is skipped as bad, in `[0, 1]`: of its images or of its captions,
/// whichever is larger.
pub fn bad_share(dataset: &Dataset) -> f64 {
    let (bad, total) = bad_and_total(dataset);
    if total == 0 { 0.0 } else { bad as f64 / total as f64 }
}

/// Refuses a data set with no usable record, and, unless `allow_bad`, one with more than
/// [`MAX_BAD_SHARE`] of bad records.
///
/// # Errors
/// [`DataError::NothingUsable`] and [`DataError::TooManyBad`], both naming the first problem.
pub fn ensure_usable(dataset: &Dataset, allow_bad: bool) -> Result<(), DataError> {
    let costly = dataset.problems.iter().find(|problem| problem.cost != Cost::Nothing);
    let first = costly.map_or_else(|| "no problem was found".to_owned(), Problem::to_string);
    if dataset.records.is_empty() {
        return Err(DataError::NothingUsable { path: dataset.root.clone(), first });
    }
    let (bad, total) = bad_and_total(dataset);
    if !allow_bad && is_too_many_bad(bad, total) {
        return Err(DataError::TooManyBad { path: dataset.root.clone(), bad, total, first });
    }
    Ok(())
}

/// Whether so many bad ones are more than may be left out.
pub fn is_too_many_bad(bad: usize, total: usize) -> bool {
    bad as f64 > MAX_BAD_SHARE * total as f64
}

/// The bad and all images, or the bad and all captions: the pair with the larger share.
fn bad_and_total(dataset: &Dataset) -> (usize, usize) {
    let lost = |cost: Cost| dataset.problems.iter().filter(|problem| problem.cost == cost).count();
    let (bad_images, bad_captions) = (lost(Cost::Image), lost(Cost::Caption));
    let images = (bad_images, dataset.records.len() + bad_images);
    let captions = (bad_captions, dataset.num_captions() + bad_captions);
    // Cross-multiplied, so that empty data sets need no special case.
    if captions.0 * images.1 > images.0 * captions.1 { captions } else { images }
}
