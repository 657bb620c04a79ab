//! What the formats have in common: finding image files, weighing each listed image, and splitting
//! by image where the data set does not.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::find::{Found, ImageFinder, clean_path, slashed};
use super::{
    Cost, DataError, Dataset, DatasetFormat, ImageRecord, LoadOptions, Origin, PassedOver, Problem,
    ProblemKind, Split, Uncaptioned,
};

/// A caption as it is in a file, with where it is.
pub(super) type PlacedCaption = (Origin, String);

/// An image as an annotation file lists it.
pub(super) struct Listed {
    /// The name given to it.
    pub id: String,
    /// The image, or why there is none.
    pub image: Found,
    /// The split, where one was named.
    pub split: Option<Split>,
    /// The captions.
    pub captions: Vec<PlacedCaption>,
    /// Where the image is listed.
    pub origin: Origin,
    /// What else is said about it.
    pub grounding: Option<serde_json::Value>,
}

/// Sorts listed images into records and problems.
pub(super) struct Collector {
    dataset: Dataset,
    by_path: HashMap<PathBuf, usize>,
    ids: HashSet<String>,
    num_listed: usize,
    first_listed: String,
    num_found: usize,
    num_outside: usize,
    lists_val: bool,
    num_test_found: usize,
    /// Where in the problems the missing images of the test split stand.
    missing_test: HashSet<usize>,
    looked_in: Vec<String>,
    /// Files that were converted to UTF-8, by what from.
    converted: BTreeMap<&'static str, (usize, String)>,
    /// Files that are no part of the data set, by kind.
    passed_over: BTreeMap<String, (usize, String)>,
}

impl Collector {
    pub(super) fn new(root: &Path, format: DatasetFormat) -> Self {
        Self {
            dataset: Dataset {
                root: root.to_owned(),
                format,
                records: Vec::new(),
                uncaptioned: Vec::new(),
                problems: Vec::new(),
                notes: Vec::new(),
                passed_over: Vec::new(),
            },
            by_path: HashMap::new(),
            ids: HashSet::new(),
            num_listed: 0,
            first_listed: String::new(),
            num_found: 0,
            num_outside: 0,
            converted: BTreeMap::new(),
            passed_over: BTreeMap::new(),
            lists_val: false,
            num_test_found: 0,
            missing_test: HashSet::new(),
            looked_in: Vec::new(),
        }
    }

    pub(super) fn note(&mut self, note: String) {
        self.dataset.notes.push(note);
    }

    /// Remembers where images are looked for, for the case that none is found.
    pub(super) fn looks_in(&mut self, finder: &ImageFinder) {
        for folder in &finder.folders {
            let folder = folder.display().to_string();
            if !self.looked_in.contains(&folder) {
                self.looked_in.push(folder);
            }
        }
    }

    pub(super) fn problem(
        &mut self,
        kind: ProblemKind,
        place: &Origin,
        cost: Cost,
        detail: impl Into<String>,
    ) {
        let (place, detail) = (place.to_string(), detail.into());
        self.dataset.problems.push(Problem { kind, place, detail, cost });
    }

    /// Remembers what a file was encoded in, to be said once for all files.
    pub(super) fn encoding(&mut self, path: &Path, converted_from: Option<&'static str>) {
        if let Some(from) = converted_from {
            let file = path.display().to_string();
            self.converted.entry(from).or_insert((0, file)).0 += 1;
        }
    }

    /// What was found wrong so far.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.dataset.problems
    }

    /// Counts a file that is no part of the data set.
    pub(super) fn pass_over(&mut self, kind: impl Into<String>, path: &Path) {
        let first = || (0, slashed(path.strip_prefix(&self.dataset.root).unwrap_or(path)));
        self.passed_over.entry(kind.into()).or_insert_with(first).0 += 1;
    }

    /// A line or entry that cannot be understood.
    pub(super) fn malformed(&mut self, place: &Origin, cost: Cost, detail: impl Into<String>) {
        self.problem(ProblemKind::MalformedLine, place, cost, detail);
    }

    /// Takes an image in, or says why not.
    pub(super) fn add(&mut self, listed: Listed) {
        let Listed { id, image, split, captions, origin, grounding } = listed;
        if self.num_listed == 0 {
            self.first_listed.clone_from(&id);
        }
        self.num_listed += 1;
        self.lists_val |= split == Some(Split::Val);
        let image = match image {
            Found::Image(image) => image,
            Found::Outside(path) => {
                self.num_outside += 1;
                self.problem(ProblemKind::OutsideImage, &origin, Cost::Image, outside(&id, &path));
                return;
            }
            Found::Missing(reason) => {
                if split == Some(Split::Test) {
                    self.missing_test.insert(self.dataset.problems.len());
                }
                let detail = match reason {
                    Some(reason) => format!("image {id:?} is {reason}"),
                    None => format!("image {id:?} is missing (expected the file in the data set)"),
                };
                self.problem(ProblemKind::MissingImage, &origin, Cost::Image, detail);
                return;
            }
        };
        self.num_found += 1;
        self.num_test_found += usize::from(split == Some(Split::Test));
        let path_key = clean_path(image.path());
        if let Some(first) = self.by_path.get(&path_key) {
            let first = &self.dataset.records[*first];
            let place = &first.origin;
            let (kind, detail) = match split {
                Some(split) if split != first.split => (
                    ProblemKind::TwoSplits,
                    format!(
                        "image {id:?} is in {split} here and in {} at {place} (expected one split \
                         an image; the first is kept)",
                        first.split
                    ),
                ),
                _ => (
                    ProblemKind::DuplicateImage,
                    format!(
                        "image {id:?} is listed already at {place} (expected each image once; the \
                         first is kept)"
                    ),
                ),
            };
            self.problem(kind, &origin, Cost::Image, detail);
            return;
        }
        let num_listed_captions = captions.len();
        let captions = self.clean_captions(&id, captions);
        if captions.is_empty() {
            let detail = match num_listed_captions {
                0 => format!("image {id:?} has no caption (expected at least one)"),
                _ => format!("image {id:?} has only empty captions (expected at least one)"),
            };
            self.problem(ProblemKind::NoCaption, &origin, Cost::Image, detail);
            self.dataset.uncaptioned.push(Uncaptioned { id, image, origin });
            return;
        }
        self.by_path.insert(path_key, self.dataset.records.len());
        let id = self.unique_id(id, image.path());
        let split = split.unwrap_or(Split::Train);
        self.dataset.records.push(ImageRecord { id, image, split, captions, origin, grounding });
    }

    /// Reduces white space, since captions are written one a line in tab-separated tables later, and
    /// names the captions in which nothing else is.
    fn clean_captions(&mut self, id: &str, captions: Vec<PlacedCaption>) -> Vec<String> {
        let mut kept = Vec::with_capacity(captions.len());
        for (origin, caption) in captions {
            let caption = caption.split_whitespace().collect::<Vec<_>>().join(" ");
            if caption.is_empty() {
                let detail = format!("empty caption of image {id:?} (expected a sentence)");
                self.problem(ProblemKind::EmptyCaption, &origin, Cost::Caption, detail);
            } else {
                kept.push(caption);
            }
        }
        kept
    }

    /// Two folders may hold different images of one name.
    fn unique_id(&mut self, id: String, path: &Path) -> String {
        let mut id = if self.ids.contains(&id) {
            slashed(path.strip_prefix(&self.dataset.root).unwrap_or(path))
        } else {
            id
        };
        while !self.ids.insert(id.clone()) {
            id.push('+');
        }
        id
    }

    /// The data set, with a validation split.
    pub(super) fn finish(
        mut self,
        path: &Path,
        options: &LoadOptions,
    ) -> Result<Dataset, DataError> {
        let path = path.to_owned();
        if self.num_listed == 0 && self.dataset.problems.is_empty() {
            return Err(DataError::Empty { path });
        }
        if self.num_listed > 0 && self.num_found == 0 && self.num_outside == 0 {
            return Err(DataError::NoImageFound {
                path,
                count: self.num_listed,
                first: self.first_listed,
                looked_in: self.looked_in,
            });
        }
        self.excuse_withheld_test_split();
        self.tell_encodings();
        self.dataset.passed_over = std::mem::take(&mut self.passed_over)
            .into_iter()
            .map(|(kind, (count, first))| PassedOver { kind, count, first })
            .collect();
        if !self.lists_val {
            self.draw_val_split(options);
        }
        Ok(self.dataset)
    }

    /// Says once what was read as something else than UTF-8.
    fn tell_encodings(&mut self) {
        for (from, (count, first)) in std::mem::take(&mut self.converted) {
            let what = match count {
                1 => format!("{first} is not UTF-8: it was read as {from}"),
                _ => format!(
                    "{count} files are not UTF-8: they were read as {from} (the first: {first})"
                ),
            };
            self.note(what);
        }
    }

    /// Challenges hand out test captions or names without the images; that harms nobody who trains.
    fn excuse_withheld_test_split(&mut self) {
        if self.num_test_found > 0 || self.missing_test.is_empty() {
            return;
        }
        let missing = std::mem::take(&mut self.missing_test);
        let problems = std::mem::take(&mut self.dataset.problems);
        self.dataset.problems = problems
            .into_iter()
            .enumerate()
            .filter(|(index, _)| !missing.contains(index))
            .map(|(_, problem)| problem)
            .collect();
        let count = missing.len();
        self.note(format!(
            "none of the images ({count}) of the test split is here: it is left out"
        ));
    }

    /// Moves a share of the training images into the validation split, each by its own hash, so that
    /// adding images moves none of the others.
    fn draw_val_split(&mut self, options: &LoadOptions) {
        let hash = |record: &ImageRecord| split_hash(&record.id, options.split_seed);
        let train: Vec<usize> = (0..self.dataset.records.len())
            .filter(|&index| self.dataset.records[index].split == Split::Train)
            .collect();
        if options.val_share <= 0.0 || train.len() < 2 {
            return;
        }
        let mut drawn: Vec<usize> = train
            .iter()
            .copied()
            .filter(|&index| unit_interval(hash(&self.dataset.records[index])) < options.val_share)
            .collect();
        // Small data sets would often get no validation image, or no training image.
        let by_hash = |index: &&usize| hash(&self.dataset.records[**index]);
        if drawn.is_empty() {
            drawn.extend(train.iter().min_by_key(by_hash).copied());
        } else if drawn.len() == train.len() {
            let spared = train.iter().max_by_key(by_hash).copied();
            drawn.retain(|&index| Some(index) != spared);
        }
        for &index in &drawn {
            self.dataset.records[index].split = Split::Val;
        }
        self.note(format!(
            "no validation split is named: {} of {} training images were drawn for it, each by itself with \
             a chance of {}, so that it stays where it is when others are added",
            drawn.len(),
            train.len(),
            options.val_share
        ));
    }
}

/// A 64-bit hash of an image's id: FNV-1a over the seed and the id, finished as in SplitMix64.
/// Written out here because a split must never change with a library.
pub(super) fn split_hash(id: &str, seed: u64) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in seed.to_le_bytes().into_iter().chain(id.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The upper 53 bits as a number in `[0, 1)`: exact, hence the same everywhere.
fn unit_interval(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// What is wrong with an image that lies elsewhere.
fn outside(id: &str, path: &Path) -> String {
    format!(
        "image {id:?} leads outside of the data set, to {} (expected a file in it; it can be allowed)",
        path.display()
    )
}
