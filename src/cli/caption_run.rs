//! How `patchword caption` goes through its inputs: the walk, the walk ahead that counts, and the way from
//! the stage to the outputs with the bar beside it.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::mpsc::{IntoIter, SyncSender, sync_channel};
use std::thread;

use super::console::Console;
use super::error::CliError;
use super::progress::Progress;
use super::stop;
use crate::caption::folder::{
    Folder, FolderError, Item, Outcome as OfPhoto, Reader, Tally, Writer,
};
use crate::caption::inputs::{Found, Input, InputConfig, Named, find};
use crate::caption::manifest::Manifest;
use crate::caption::output::Output;
use crate::caption::shard::{Census, RunFacts, Shard};
use crate::caption::{CaptionConfig, Replica, Source, caption_batches};

/// What is looked for, and which share of it is ours.
#[derive(Clone)]
pub(super) struct Search {
    /// Without a share: photos of other shares are counted as well.
    pub(super) config: InputConfig,
    pub(super) shard: Option<Shard>,
}

/// A photo with its place among all, those of other shares too.
pub(super) type Placed = (usize, Found);

impl Search {
    pub(super) fn of(config: InputConfig) -> Self {
        let shard = config.shard;
        Self { config: InputConfig { shard: None, ..config }, shard }
    }

    /// Hands every photo of our share to `each` until it returns `false`. What there was, if the end was
    /// reached.
    fn walk(&self, named: Vec<Named>, each: &mut dyn FnMut(Placed) -> bool) -> Option<RunFacts> {
        let mut census = Census::default();
        let mut is_whole = true;
        find(named, &self.config, &mut |found| {
            let place = usize::try_from(census.photos).unwrap_or(usize::MAX);
            if let Ok(input) = &found {
                census.add(&input.path);
                if self.shard.is_some_and(|shard| !shard.takes(&input.relative)) {
                    return true;
                }
            }
            is_whole = each((place, found));
            is_whole
        });
        is_whole.then_some(RunFacts { shard: self.shard.unwrap_or(Shard::ALL), census })
    }
}

/// Photos as they are found, by a thread of its own that is never far ahead.
pub(super) struct Photos {
    found: IntoIter<Placed>,
    /// Those met before there was a photo, and the first one.
    first: Vec<Placed>,
    facts: std::sync::mpsc::Receiver<RunFacts>,
}

impl Photos {
    /// Waits for the first photo: without one no model is loaded.
    pub(super) fn find(
        named: Vec<Named>,
        search: Search,
        console: &Console,
    ) -> Result<Self, CliError> {
        let (give, take) = sync_channel(64);
        let (tell, facts) = sync_channel(1);
        thread::spawn(move || Self::send_all(named, &search, &give, &tell));
        let mut found = take.into_iter();
        let mut first = Vec::new();
        for one in found.by_ref() {
            let is_photo = one.1.is_ok();
            first.push(one);
            if is_photo {
                return Ok(Self { found, first, facts });
            }
        }
        for error in first.into_iter().filter_map(|(_, found)| found.err()) {
            console.warn(error);
        }
        Err(CliError::new("no images to caption")
            .hint("name image files, folders, globs in quotes, or - for a list on stdin"))
    }

    fn send_all(
        named: Vec<Named>,
        search: &Search,
        give: &SyncSender<Placed>,
        tell: &SyncSender<RunFacts>,
    ) {
        let facts = search.walk(named, &mut |placed| give.send(placed).is_ok());
        if let Some(facts) = facts {
            // Whoever would have noted them has stopped.
            let _ = tell.send(facts);
        }
    }

    /// The first photo.
    pub(super) fn first(&self) -> Option<&Input> {
        self.first.iter().find_map(|(_, found)| found.as_ref().ok())
    }

    fn take(&mut self) -> impl Iterator<Item = Placed> {
        std::mem::take(&mut self.first).into_iter().chain(self.found.by_ref())
    }
}

/// Walks the inputs a second time, far ahead: how many there are, and what the manifest has to expect.
pub(super) fn expect(
    named: Vec<Named>,
    search: &Search,
    manifest: Option<&Manifest>,
    progress: &Progress,
) {
    const AT_A_TIME: usize = 1000;
    let (mut count, mut some) = (0, Vec::new());
    let facts = search.walk(named, &mut |(place, found)| {
        if let Ok(input) = found {
            some.push((place, input));
            count += 1;
        }
        if some.len() >= AT_A_TIME {
            note(manifest, &mut some);
        }
        !stop::requested()
    });
    note(manifest, &mut some);
    if let Some(facts) = facts {
        progress.set_length(count);
        if let Some(manifest) = manifest {
            let _ = manifest.note_fact(RunFacts::NAME, &facts);
        }
    }
}

/// The run itself meets a manifest that fails.
fn note(manifest: Option<&Manifest>, some: &mut Vec<(usize, Input)>) {
    if let Some(manifest) = manifest {
        let _ = manifest.expect(some);
    }
    some.clear();
}

/// What a run goes through, and says to.
pub(super) struct Run<'a> {
    pub(super) replicas: &'a [Replica<'a>],
    pub(super) decoding: &'a CaptionConfig,
    pub(super) folder: &'a Folder<'a>,
    pub(super) progress: &'a Progress,
    pub(super) console: &'a Console,
    /// Whether files of captions are whole where a stop was asked for.
    pub(super) ends_by_stop: bool,
}

impl Run<'_> {
    /// Captions all that is found.
    pub(super) fn over(
        &self,
        photos: &mut Photos,
        outputs: Vec<Output>,
    ) -> Result<Tally, CliError> {
        let reader = Reader::new(self.folder);
        let tally = self.caption(photos.take(), &reader, &reader, outputs)?;
        if let (Some(manifest), Ok(facts)) = (self.folder.manifest, photos.facts.try_recv()) {
            manifest.note_fact(RunFacts::NAME, &facts)?;
        }
        Ok(tally)
    }

    /// Captions what `placed` gives, reading photos by `source`, which is `reader` or asks it.
    pub(super) fn caption<S: Source<Item = Item, Unread = crate::caption::folder::Unread>>(
        &self,
        placed: impl Iterator<Item = Placed> + Send,
        source: &S,
        reader: &Reader<'_>,
        outputs: Vec<Output>,
    ) -> Result<Tally, CliError> {
        let Self { replicas, decoding, folder, progress, console, .. } = self;
        let mut written = 0;
        let observer = |outcome: OfPhoto<'_>| match outcome {
            OfPhoto::Failed(reason) => {
                progress.suspend(|| console.warn(format_args!("no caption: {reason}")));
                progress.advance_failed(1);
            }
            OfPhoto::Written(_) => {
                written += 1;
                progress.set_message(format!("{written} written"));
                progress.advance(1);
            }
            OfPhoto::Known(_) => progress.advance(1),
            OfPhoto::Skipped(_) => progress.advance_skipped(1),
        };
        let mut writer = Writer::new(reader, outputs, observer);
        let items = placed.take_while(|_| !stop::requested()).map(|(place, found)| {
            if let (Some(manifest), Ok(input)) = (folder.manifest, &found) {
                // What a second walk, if there is one, says again.
                let _ = manifest.expect(&[(place, input.clone())]);
            }
            Item::from(found)
        });
        let emit = |batch| writer.take(batch);
        let ended = caption_batches::<_, FolderError>(replicas, items, source, decoding, emit);
        let is_whole = self.ends_by_stop || !stop::requested();
        let tally = writer.finish(ended.is_ok() && is_whole);
        ended?;
        Ok(tally?)
    }
}

/// Stdout below a bar: a terminal that shows both shows whole lines.
pub(super) struct BelowTheBar(Arc<Progress>);

impl BelowTheBar {
    /// Stdout: below the bar where both are seen, else as it is.
    pub(super) fn stdout(progress: &Arc<Progress>, console: &Console) -> Box<dyn Write> {
        if io::stdout().is_terminal() {
            return Box::new(Self(Arc::clone(progress)));
        }
        Box::new(console.stdout())
    }
}

impl Write for BelowTheBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stdout().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.suspend(|| io::stdout().flush())
    }
}
