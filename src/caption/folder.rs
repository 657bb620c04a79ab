//! A run over many photos: which of them need a caption ([`Reader`], on the worker threads), and where the
//! captions go ([`Writer`], in the order of the photos). Between the two stands the stage
//! ([`caption_items`](super::caption_items)).

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::image::RgbImage;

use super::Caption;
use super::inputs::{Found, Input, InputError};
use super::manifest::{Entry, Manifest, ManifestError, Stamp, content_hash};
use super::output::{Existing, Output, OutputError, Record, Shaped, Sidecars, name_of};
use super::shape::{Facts, Shaping};
use crate::generate::GenerateError;
use crate::image::{DecodeLimits, ImageError, decode_file};

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
    Image(ImageError),
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
    /// A photo of equal content has them.
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

impl<'a> Reader<'a> {
    /// A reader of one run.
    pub fn new(folder: &'a Folder<'a>) -> Self {
        Self { folder, on_their_way: Mutex::default(), others: AtomicUsize::new(0) }
    }

    fn on_their_way(&self) -> MutexGuard<'_, HashSet<String>> {
        self.on_their_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the photo, if it needs a caption.
    ///
    /// # Errors
    /// Why it does not go to the model.
    pub fn read(&self, item: &mut Item) -> Result<RgbImage, Unread> {
        let input = match item.found.take() {
            Some(Ok(input)) => input,
            Some(Err(error)) => return Err(Unread::Input(error)),
            None => return Err(Unread::NotAsked),
        };
        let read = self.read_input(&input, item);
        item.found = Some(Ok(input));
        read
    }

    fn read_input(&self, input: &Input, item: &mut Item) -> Result<RgbImage, Unread> {
        let Folder { manifest, only_failed, existing, sidecars, hashes, limits, .. } = self.folder;
        if let Some(manifest) = manifest {
            let entry = manifest.entry(input).map_err(Unread::Manifest)?;
            let status = entry.as_ref().map_or("pending", |entry| entry.status.as_str());
            if *only_failed && status != "failed" {
                return Err(Unread::NotAsked);
            }
            let metadata = fs::metadata(&input.path).ok().filter(fs::Metadata::is_file);
            item.stamp = metadata.as_ref().map(Stamp::of);
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
                Some(entry) => {
                    item.hash = content_hash(&input.path);
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
            return decode_file(&input.path, limits).map_err(Unread::Image);
        };
        if item.stamp.is_some() && item.hash.is_none() {
            item.hash = content_hash(&input.path);
        }
        if let Some(hash) = &item.hash {
            let same = manifest.captions_of(hash, hashes.0, hashes.1).map_err(Unread::Manifest)?;
            if let Some(captions) = same {
                return Err(Unread::Known(captions, Known::Equal));
            }
            if !self.on_their_way().insert(hash.clone()) {
                return Err(Unread::Same);
            }
        }
        decode_file(&input.path, limits).map_err(|error| {
            if let Some(hash) = &item.hash {
                self.on_their_way().remove(hash);
            }
            Unread::Image(error)
        })
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
    /// Photos that wait for one of equal content.
    held: VecDeque<(Item, Result<Vec<Caption>, Unread>)>,
    /// Captions of photos that are on their way or held, by content.
    fresh: HashMap<String, Vec<Caption>>,
    tally: Tally,
    observer: Box<dyn FnMut(Outcome<'_>) + 'a>,
}

impl<'a> Writer<'a> {
    /// Writes into `outputs` and the folder's sidecars, and tells `observer` of every photo.
    pub fn new(
        reader: &'a Reader<'a>,
        outputs: Vec<Output>,
        observer: impl FnMut(Outcome<'_>) + 'a,
    ) -> Self {
        let (held, fresh, tally) = (VecDeque::new(), HashMap::new(), Tally::default());
        Self { reader, outputs, held, fresh, tally, observer: Box::new(observer) }
    }

    /// Takes what came of a photo.
    ///
    /// # Errors
    /// What ends the run.
    pub fn take(
        &mut self,
        item: Item,
        result: Result<Vec<Caption>, Unread>,
    ) -> Result<(), FolderError> {
        if let (Some(hash), Ok(captions)) = (&item.hash, &result) {
            self.fresh.insert(hash.clone(), captions.clone());
        }
        self.held.push_back((item, result));
        while let Some((item, result)) = self.held.pop_front() {
            let result = match (result, &item.hash) {
                (Err(Unread::Same), Some(hash)) => {
                    if let Some(captions) = self.fresh.get(hash) {
                        Ok(captions.clone())
                    } else if self.reader.on_their_way().contains(hash) {
                        self.held.push_front((item, Err(Unread::Same)));
                        return Ok(());
                    } else {
                        Err(Unread::Same)
                    }
                }
                (result, _) => result,
            };
            self.settle(&item, result)?;
            if let Some(hash) = &item.hash
                && !self.held.iter().any(|(other, _)| other.hash.as_ref() == Some(hash))
            {
                // The manifest has them from now on.
                self.reader.on_their_way().remove(hash);
                self.fresh.remove(hash);
            }
        }
        Ok(())
    }

    fn settle(
        &mut self,
        item: &Item,
        result: Result<Vec<Caption>, Unread>,
    ) -> Result<(), FolderError> {
        let input = match (&item.found, result) {
            (Some(Ok(input)), result) => match result {
                Ok(captions) => return self.captioned(input, item, captions),
                Err(Unread::Known(captions, known)) => {
                    return self.known(input, item, &captions, known);
                }
                Err(Unread::Manifest(error)) => return Err(error.into()),
                Err(Unread::NotAsked) => return Ok(()),
                Err(Unread::Skipped) => {
                    if let Some(manifest) = self.reader.folder.manifest {
                        manifest.not_done(input, true, "a caption was there")?;
                    }
                    self.tally.skipped += 1;
                    (self.observer)(Outcome::Skipped(input));
                    return Ok(());
                }
                Err(Unread::Image(error)) => (input, error.to_string()),
                Err(Unread::Output(error)) => (input, with_cause(&error)),
                Err(Unread::Input(error)) => (input, error.to_string()),
                Err(Unread::Same) => match self.captions_of_equal(item)? {
                    Some(captions) => return self.known(input, item, &captions, Known::Equal),
                    // The other one is damaged, and so is this one: its own reading names it.
                    None => (input, self.own_error(input)),
                },
            },
            (_, Err(Unread::Input(error))) => {
                self.tally.failed += 1;
                (self.observer)(Outcome::Failed(with_cause(&error)));
                return Ok(());
            }
            _ => return Ok(()),
        };
        let (input, reason) = input;
        self.failed(input, reason)
    }

    /// The captions that a photo of equal content had when it was settled.
    fn captions_of_equal(&self, item: &Item) -> Result<Option<Vec<Shaped>>, ManifestError> {
        let Folder { manifest, hashes, .. } = self.reader.folder;
        match (manifest, &item.hash) {
            (Some(manifest), Some(hash)) => manifest.captions_of(hash, hashes.0, hashes.1),
            _ => Ok(None),
        }
    }

    fn own_error(&self, input: &Input) -> String {
        match decode_file(&input.path, &self.reader.folder.limits) {
            Err(error) => error.to_string(),
            Ok(_) => {
                format!("{}: a photo of equal content has no caption either", input.path.display())
            }
        }
    }

    fn failed(&mut self, input: &Input, reason: String) -> Result<(), FolderError> {
        if let Some(manifest) = self.reader.folder.manifest {
            manifest.not_done(input, false, &reason)?;
        }
        self.tally.failed += 1;
        (self.observer)(Outcome::Failed(reason));
        Ok(())
    }

    fn captioned(
        &mut self,
        input: &Input,
        item: &Item,
        captions: Vec<Caption>,
    ) -> Result<(), FolderError> {
        let Folder { shaping, sidecars, manifest, hashes, model, .. } = self.reader.folder;
        let mut existing = String::new();
        if let Some(sidecars) = sidecars.first() {
            existing = sidecars.existing(input).ok().flatten().unwrap_or_default();
        }
        let facts = facts(&input.path, existing);
        let (mut shaped, mut objection) = (Vec::new(), None);
        for caption in captions {
            match shaping.objection(&caption.caption, caption.confidence()) {
                Some(reason) => objection = objection.or(Some(reason)),
                None => {
                    let text = shaping.apply(&caption.caption, &facts);
                    shaped.push(Shaped { text, caption });
                }
            }
        }
        if shaped.is_empty() {
            let reason = objection.unwrap_or_else(|| "the model gave no caption".into());
            return self.failed(input, format!("{}: {reason}", input.path.display()));
        }
        if let Some(manifest) = manifest {
            manifest.keep(
                input,
                item.stamp.as_ref(),
                item.hash.as_deref(),
                &shaped,
                (model, hashes.0, hashes.1),
            )?;
        }
        if self.write(input, &shaped, false)? {
            self.tally.written += 1;
            self.tally.changed += usize::from(item.is_changed);
            (self.observer)(Outcome::Written(input));
        }
        Ok(())
    }

    fn known(
        &mut self,
        input: &Input,
        item: &Item,
        captions: &[Shaped],
        known: Known,
    ) -> Result<(), FolderError> {
        let Folder { manifest, hashes, model, .. } = self.reader.folder;
        if let (Known::Equal, Some(manifest)) = (known, manifest) {
            let (stamp, hash) = (item.stamp.as_ref(), item.hash.as_deref());
            manifest.keep(input, stamp, hash, captions, (model, hashes.0, hashes.1))?;
        }
        if self.write(input, captions, known == Known::Done)? {
            self.tally.known += 1;
            (self.observer)(Outcome::Known(input));
        }
        Ok(())
    }

    /// Whether all was written. `was_done`: sidecars are written only where they are gone.
    fn write(
        &mut self,
        input: &Input,
        captions: &[Shaped],
        was_done: bool,
    ) -> Result<bool, FolderError> {
        let Folder { sidecars, manifest, model, .. } = self.reader.folder;
        let record = Record { input, captions, model };
        for one in *sidecars {
            let there = was_done && matches!(one.existing(input), Ok(Some(_)));
            match if there { Ok(false) } else { one.write(record) } {
                Ok(_) => {}
                Err(error) if ends_everything(&error.source) => return Err(error.into()),
                Err(error) => {
                    self.failed(input, with_cause(&error))?;
                    return Ok(false);
                }
            }
        }
        for output in &mut self.outputs {
            output.write(record)?;
        }
        if let (Some(manifest), false) = (manifest, was_done) {
            manifest.finish(input)?;
        }
        Ok(true)
    }

    /// Ends the outputs; without their names where the run broke off.
    ///
    /// # Errors
    /// One that cannot be written.
    pub fn finish(self, whole: bool) -> Result<Tally, FolderError> {
        for output in self.outputs {
            output.finish(whole)?;
        }
        Ok(Tally { others: self.reader.others.load(Ordering::Relaxed), ..self.tally })
    }
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

fn facts(path: &Path, existing: String) -> Facts {
    let text = |part: Option<&std::ffi::OsStr>| {
        part.map_or_else(String::new, |part| name_of(Path::new(part)))
    };
    let folder = path.parent().and_then(Path::file_name).map(ToOwned::to_owned).or_else(|| {
        let whole = fs::canonicalize(path).ok()?;
        Some(whole.parent()?.file_name()?.to_owned())
    });
    Facts { name: text(path.file_stem()), folder: text(folder.as_deref()), existing }
}
