//! A run over many photos: which of them need a caption ([`Reader`], on the worker threads), and where the
//! captions go ([`Writer`], in the order of the photos). Between the two stands the stage
//! ([`caption_batches`](super::caption_batches)).

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::image::RgbImage;

use super::inputs::{Found, Input, InputError};
use super::manifest::{Entry, Keeping, Manifest, ManifestError, Settled, Stamp};
use super::output::{
    Existing, Output, OutputError, Record, Shaped, Sidecars, caption_beside, name_of, tags_beside,
};
use super::shape::{Facts, Shaping};
use super::{Batch, Caption, Source};
use crate::data::SourceError;
use crate::generate::GenerateError;
use crate::image::DecodeLimits;

/// What ends a run.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Captions cannot be decoded.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// Captions cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The manifest fails.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// What a run is told once.
pub struct Folder<'a> {
    /// How captions are shaped.
    pub shaping: &'a Shaping,
    /// Files beside the photos.
    pub sidecars: &'a [Sidecars],
    /// What becomes of captions that are there.
    pub existing: Existing,
    /// What was done before, if that is kept.
    pub manifest: Option<&'a Manifest>,
    /// Only photos that failed before.
    pub only_failed: bool,
    /// The model as it was named.
    pub model: &'a str,
    /// Hashes of the model and of the settings.
    pub hashes: (&'a str, &'a str),
    /// What a photo may ask for.
    pub limits: DecodeLimits,
}

/// A photo on its way.
pub struct Item {
    found: Option<Found>,
    stamp: Option<Stamp>,
    hash: Option<String>,
    /// Whether it was captioned when it looked otherwise.
    is_changed: bool,
}

impl Item {
    /// The photo, if there is one.
    pub fn input(&self) -> Option<&Input> {
        self.found.as_ref()?.as_ref().ok()
    }
}

impl From<Found> for Item {
    fn from(found: Found) -> Self {
        Self { found: Some(found), stamp: None, hash: None, is_changed: false }
    }
}

/// Why a photo does not go to the model.
pub enum Unread {
    /// There is none.
    Input(InputError),
    /// It cannot be read.
    Image(SourceError),
    /// Where its caption belongs there is something in the way.
    Output(OutputError),
    /// The manifest fails.
    Manifest(ManifestError),
    /// It has a caption.
    Skipped,
    /// It is none of those asked for.
    NotAsked,
    /// It was captioned before.
    Known(Vec<Shaped>, Known),
    /// A photo of equal content is on its way to the model.
    Same,
}

/// Where captions are known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The photo is done.
    Done,
    /// They were decoded, and perhaps not written where they belong when the run broke off.
    Kept,
    /// A photo of equal content has them, perhaps since a moment ago.
    Equal,
}

/// Says which photos need a caption, and reads them; shared among threads.
pub struct Reader<'a> {
    folder: &'a Folder<'a>,
    /// Hashes of photos on their way to the model.
    on_their_way: Mutex<HashSet<String>>,
    /// Photos whose captions of another model or other settings are kept.
    others: AtomicUsize,
}

impl Source for Reader<'_> {
    type Item = Item;
    type Unread = Unread;

    fn read(&self, item: &mut Item) -> Result<RgbImage, Unread> {
        let input = match item.found.take() {
            Some(Ok(input)) => input,
            Some(Err(error)) => return Err(Unread::Input(error)),
            None => return Err(Unread::NotAsked),
        };
        let read = self.read_input(&input, item);
        item.found = Some(Ok(input));
        read
    }

    /// Not where a photo of equal content is on its way to the model, or came from there since this one was
    /// read.
    fn admit(&self, item: &mut Item) -> Result<(), Unread> {
        let Folder { manifest, hashes, .. } = self.folder;
        let (Some(manifest), Some(hash)) = (manifest, &item.hash) else { return Ok(()) };
        if !self.on_their_way().insert(hash.clone()) {
            return Err(Unread::Same);
        }
        // The manifest keeps captions before their photo is no longer on its way.
        let same = manifest.captions_of(hash, hashes.0, hashes.1);
        if !matches!(same, Ok(None)) {
            self.on_their_way().remove(hash);
        }
        match same {
            Ok(None) => Ok(()),
            Ok(Some(captions)) => Err(Unread::Known(captions, Known::Equal)),
            Err(error) => Err(Unread::Manifest(error)),
        }
    }
}

impl<'a> Reader<'a> {
    /// A reader of one run.
    pub fn new(folder: &'a Folder<'a>) -> Self {
        Self { folder, on_their_way: Mutex::default(), others: AtomicUsize::new(0) }
    }

    /// Photos whose captions of another model or other settings were kept.
    pub fn others(&self) -> usize {
        self.others.load(Ordering::Relaxed)
    }

    fn on_their_way(&self) -> MutexGuard<'_, HashSet<String>> {
        self.on_their_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_input(&self, input: &Input, item: &mut Item) -> Result<RgbImage, Unread> {
        let Folder { manifest, only_failed, existing, sidecars, hashes, limits, .. } = self.folder;
        if let Some(manifest) = manifest {
            let entry = manifest.entry(input).map_err(Unread::Manifest)?;
            let status = entry.as_ref().map_or("pending", |entry| entry.status.as_str());
            if *only_failed && status != "failed" {
                return Err(Unread::NotAsked);
            }
            item.stamp = input.metadata().as_ref().map(Stamp::of);
            let before = entry.filter(|entry| !entry.captions.is_empty());
            let is_current =
                |entry: &Entry| item.stamp.as_ref().is_some_and(|stamp| entry.is_current(stamp));
            match before {
                Some(entry) if is_current(&entry) => {
                    let is_of_this_run = entry.hashes() == (Some(hashes.0), Some(hashes.1));
                    // A caption of another model or other settings is kept, unless told otherwise.
                    if is_of_this_run || *existing != Existing::Overwrite {
                        self.others.fetch_add(usize::from(!is_of_this_run), Ordering::Relaxed);
                        let known = if entry.is_done() { Known::Done } else { Known::Kept };
                        return Err(Unread::Known(entry.captions, known));
                    }
                }
                // Its caption was written into it.
                Some(entry) if self.has_embedded(input, &entry) => {
                    return Err(Unread::Known(entry.captions, Known::Kept));
                }
                Some(entry) => {
                    item.hash = input.content_hash();
                    item.is_changed = item.hash.is_some() && item.hash != entry.hash;
                }
                None => {}
            }
        }
        if !sidecars.is_empty() {
            let mut all = true;
            for one in *sidecars {
                all &= one.is_done(input).map_err(Unread::Output)?;
            }
            if all {
                return Err(Unread::Skipped);
            }
        }
        let Some(manifest) = manifest else {
            return input.decode(limits).map_err(Unread::Image);
        };
        if item.stamp.is_some() && item.hash.is_none() {
            item.hash = input.content_hash();
        }
        if let Some(hash) = &item.hash {
            let same = manifest.captions_of(hash, hashes.0, hashes.1).map_err(Unread::Manifest)?;
            if let Some(captions) = same {
                return Err(Unread::Known(captions, Known::Equal));
            }
        }
        input.decode(limits).map_err(Unread::Image)
    }

    /// Whether the photo looks otherwise than it did because its caption was written into it, which a run
    /// that broke off may not have noted.
    fn has_embedded(&self, input: &Input, entry: &Entry) -> bool {
        let Some(text) = entry.captions.first().map(|shaped| shaped.text.trim()) else {
            return false;
        };
        let is_kept = !entry.is_done() || self.folder.existing != Existing::Overwrite;
        let mut embedded = self.folder.sidecars.iter().filter(|one| one.changes_photos());
        is_kept
            && embedded.any(|one| one.existing(input).is_ok_and(|it| it.as_deref() == Some(text)))
    }
}

/// What became of a photo.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// It has a caption now.
    Written(&'a Input),
    /// It was captioned by a run before.
    Known(&'a Input),
    /// It has a caption that is kept.
    Skipped(&'a Input),
    /// It has none: why, with its name.
    Failed(String),
}

/// How many photos ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Captioned.
    pub written: usize,
    /// Captioned by a run before.
    pub known: usize,
    /// With a caption of their own.
    pub skipped: usize,
    /// Without one.
    pub failed: usize,
    /// Of those written, photos that had changed since they were captioned.
    pub changed: usize,
    /// Of those known, captions of another model or other settings, which are kept.
    pub others: usize,
}

/// Writes captions where they belong, in the order of the photos.
pub struct Writer<'a> {
    reader: &'a Reader<'a>,
    outputs: Vec<Output>,
    tally: Tally,
    /// Photos whose captions could not be written, one after the other.
    unwritten: usize,
    observer: Box<dyn FnMut(Outcome<'_>) + 'a>,
}

/// Photos, one after the other, whose captions cannot be written before the run ends: all the others would
/// fare the same.
const MOST_UNWRITTEN: usize = 20;

/// What is known of a photo before anything is written.
enum Fate {
    /// Captions, and where they are from; `None`: from the model.
    Captions(Vec<Shaped>, Option<Known>),
    Skipped,
    NotAsked,
    Failed(String),
}

impl<'a> Writer<'a> {
    /// Writes into `outputs` and the folder's sidecars, and tells `observer` of every photo.
    pub fn new(
        reader: &'a Reader<'a>,
        outputs: Vec<Output>,
        observer: impl FnMut(Outcome<'_>) + 'a,
    ) -> Self {
        let (tally, observer) = (Tally::default(), Box::new(observer));
        Self { reader, outputs, tally, unwritten: 0, observer }
    }

    /// Takes what came of photos. Of a batch the manifest has all captions or none, before any is written
    /// elsewhere.
    ///
    /// # Errors
    /// What ends the run.
    pub fn take(&mut self, batch: Batch<Item, Unread>) -> Result<(), FolderError> {
        let Folder { manifest, hashes, model, .. } = self.reader.folder;
        let mut fresh: HashMap<String, Vec<Caption>> = HashMap::new();
        let mut fates = Vec::with_capacity(batch.len());
        for (item, result) in batch {
            if let (Some(hash), Ok(captions)) = (&item.hash, &result) {
                fresh.insert(hash.clone(), captions.clone());
            }
            let fate = self.fate(&item, result, &fresh)?;
            fates.push((item, fate));
        }
        if let Some(manifest) = manifest {
            let kept: Vec<Keeping<'_>> = fates.iter().filter_map(as_keeping).collect();
            manifest.keep(&kept, (model, hashes.0, hashes.1))?;
        }
        // The manifest has them from now on.
        let mut on_their_way = self.reader.on_their_way();
        for hash in fresh.keys() {
            on_their_way.remove(hash);
        }
        drop(on_their_way);
        let mut settled = Vec::new();
        let written: Result<(), FolderError> = fates.iter().try_for_each(|(item, fate)| {
            let Some(input) = item.input() else { return Ok(()) };
            if let Some(outcome) = self.settle(input, item, fate)? {
                settled.push((input, outcome));
            }
            Ok(())
        });
        // Also where one ends the run: those before it are done.
        let noted = manifest.map_or(Ok(()), |manifest| manifest.settle(&settled));
        written?;
        Ok(noted?)
    }

    /// What is to become of a photo. `fresh`: captions of this batch by the photo's content.
    fn fate(
        &mut self,
        item: &Item,
        result: Result<Vec<Caption>, Unread>,
        fresh: &HashMap<String, Vec<Caption>>,
    ) -> Result<Fate, FolderError> {
        let Some(input) = item.input() else {
            if let Err(Unread::Input(error)) = result {
                self.tally.failed += 1;
                (self.observer)(Outcome::Failed(with_cause(&error)));
            }
            return Ok(Fate::NotAsked);
        };
        Ok(match result {
            Ok(captions) => self.shaped(input, captions, None),
            Err(Unread::Known(captions, Known::Equal)) => self.of_equal(input, captions),
            Err(Unread::Known(captions, known)) => Fate::Captions(captions, Some(known)),
            Err(Unread::Same) => {
                let hash = item.hash.as_deref().unwrap_or_default();
                match (fresh.get(hash), self.captions_of_equal(hash)?) {
                    (Some(captions), _) => self.shaped(input, captions.clone(), Some(Known::Equal)),
                    (None, Some(captions)) => self.of_equal(input, captions),
                    (None, None) => Fate::Failed(format!(
                        "{}: a photo of equal content has no caption either",
                        input.path.display()
                    )),
                }
            }
            Err(Unread::Manifest(error)) => return Err(error.into()),
            Err(Unread::NotAsked) => Fate::NotAsked,
            Err(Unread::Skipped) => Fate::Skipped,
            Err(Unread::Image(error)) => Fate::Failed(error.to_string()),
            Err(Unread::Output(error)) => Fate::Failed(with_cause(&error)),
            Err(Unread::Input(error)) => Fate::Failed(with_cause(&error)),
        })
    }

    /// The captions that a photo of equal content had when it was settled.
    fn captions_of_equal(&self, hash: &str) -> Result<Option<Vec<Shaped>>, ManifestError> {
        let Folder { manifest, hashes, .. } = self.reader.folder;
        match manifest {
            Some(manifest) => manifest.captions_of(hash, hashes.0, hashes.1),
            None => Ok(None),
        }
    }

    /// What the model said of another photo, shaped for this one.
    fn of_equal(&self, input: &Input, captions: Vec<Shaped>) -> Fate {
        let captions = captions.into_iter().map(|shaped| shaped.caption).collect();
        self.shaped(input, captions, Some(Known::Equal))
    }

    fn shaped(&self, input: &Input, captions: Vec<Caption>, known: Option<Known>) -> Fate {
        let Folder { shaping, sidecars, .. } = self.reader.folder;
        let facts = facts(input, sidecars);
        let (mut shaped, mut objection) = (Vec::new(), None);
        for caption in captions {
            match shaping.objection(&caption.caption, caption.confidence()) {
                Some(reason) => objection = objection.or(Some(reason)),
                None => {
                    let text = shaping.apply(&caption.caption, &facts);
                    let text = shaping.marked(text, caption.confidence());
                    shaped.push(Shaped { text, caption });
                }
            }
        }
        if shaped.is_empty() {
            let reason = objection.unwrap_or_else(|| "the model gave no caption".into());
            return Fate::Failed(format!("{}: {reason}", input.path.display()));
        }
        Fate::Captions(shaped, known)
    }

    /// Writes what there is to write; what the manifest has to note.
    fn settle(
        &mut self,
        input: &Input,
        item: &Item,
        fate: &Fate,
    ) -> Result<Option<Settled>, FolderError> {
        match fate {
            Fate::NotAsked => Ok(None),
            Fate::Skipped => {
                self.tally.skipped += 1;
                (self.observer)(Outcome::Skipped(input));
                Ok(Some(Settled::Skipped("a caption was there".into())))
            }
            Fate::Failed(reason) => {
                self.failed(reason.clone());
                Ok(Some(Settled::Failed(reason.clone())))
            }
            Fate::Captions(captions, known) => {
                let was_done = *known == Some(Known::Done);
                if let Err(error) = self.write(input, captions, was_done)? {
                    let reason = with_cause(&error);
                    self.unwritten += 1;
                    if self.unwritten >= MOST_UNWRITTEN {
                        return Err(error.into());
                    }
                    self.failed(reason.clone());
                    return Ok(Some(Settled::Unwritten(reason)));
                }
                self.unwritten = 0;
                if matches!(known, Some(Known::Done | Known::Kept)) {
                    self.tally.known += 1;
                    (self.observer)(Outcome::Known(input));
                } else {
                    self.tally.written += 1;
                    self.tally.changed += usize::from(item.is_changed);
                    (self.observer)(Outcome::Written(input));
                }
                Ok((!was_done).then_some(Settled::Done))
            }
        }
    }

    fn failed(&mut self, reason: String) {
        self.tally.failed += 1;
        (self.observer)(Outcome::Failed(reason));
    }

    /// The inner error is one of this photo alone. `was_done`: sidecars are written only where they are
    /// gone.
    fn write(
        &mut self,
        input: &Input,
        captions: &[Shaped],
        was_done: bool,
    ) -> Result<Result<(), OutputError>, FolderError> {
        let Folder { sidecars, model, manifest, .. } = self.reader.folder;
        let record = Record { input, captions, model };
        for one in *sidecars {
            let there = was_done && matches!(one.existing(input), Ok(Some(_)));
            match if there { Ok(false) } else { one.write(record) } {
                Ok(_) => {}
                Err(error) if ends_everything(&error.source) => return Err(error.into()),
                Err(error) => return Ok(Err(error)),
            }
        }
        for output in &mut self.outputs {
            output.write(record)?;
        }
        if let (Some(manifest), true) = (manifest, sidecars.iter().any(Sidecars::changes_photos))
            && let Some(metadata) = input.metadata()
        {
            // It has other bytes now, and is the photo that was captioned.
            manifest.restamp(input, &Stamp::of(&metadata))?;
        }
        Ok(Ok(()))
    }

    /// Ends the outputs; without their names where the run broke off.
    ///
    /// # Errors
    /// One that cannot be written.
    pub fn finish(self, whole: bool) -> Result<Tally, FolderError> {
        for output in self.outputs {
            output.finish(whole)?;
        }
        Ok(Tally { others: self.reader.others(), ..self.tally })
    }
}

/// What the manifest keeps of a photo that has captions which it does not have yet.
fn as_keeping((item, fate): &(Item, Fate)) -> Option<Keeping<'_>> {
    let Fate::Captions(captions, None | Some(Known::Equal)) = fate else { return None };
    let (stamp, hash) = (item.stamp.as_ref(), item.hash.as_deref());
    Some(Keeping { input: item.input()?, stamp, hash, captions })
}

/// No other photo would fare better.
fn ends_everything(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn facts(input: &Input, sidecars: &[Sidecars]) -> Facts {
    let path = &input.path;
    let existing = sidecars.first().and_then(|sidecars| sidecars.existing(input).ok().flatten());
    let existing = existing.or_else(|| caption_beside(input)).unwrap_or_default();
    let tags = tags_beside(input).unwrap_or_default();
    let text = |part: Option<&std::ffi::OsStr>| {
        part.map_or_else(String::new, |part| name_of(Path::new(part)))
    };
    let folder = path.parent().and_then(Path::file_name).map(ToOwned::to_owned).or_else(|| {
        let whole = fs::canonicalize(path).ok()?;
        Some(whole.parent()?.file_name()?.to_owned())
    });
    Facts { name: text(path.file_stem()), folder: text(folder.as_deref()), existing, tags }
}
