//! `patchword caption --watch`: photos as they appear, until Ctrl-C.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ::image::RgbImage;
use notify::{Event, EventKind, RecursiveMode, Watcher};

use super::caption_run::{Placed, Search};
use super::error::CliError;
use super::stop;
use crate::caption::Source;
use crate::caption::folder::{Item, Reader, Unread};
use crate::caption::inputs::{Input, InputConfig, Named, find};
use crate::image::is_image_path;

/// How often Ctrl-C and files that are still written are looked at.
const TICK: Duration = Duration::from_millis(100);
/// A file that has been as it is for so long is taken to be whole.
const SETTLED: Duration = Duration::from_millis(800);
/// A file that cannot be read and was written so lately is perhaps still being copied.
const COPYING: Duration = Duration::from_secs(10);
/// Where the system does not say what changes, folders are looked through this often.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// A file as it was when it was looked at last.
type Stamp = (u64, Option<SystemTime>);

/// Photos below some folders: those that are there, then those that appear or change.
pub(super) struct Watched {
    folders: Vec<PathBuf>,
    config: InputConfig,
    events: Receiver<notify::Result<Event>>,
    _watcher: notify::RecommendedWatcher,
    /// Photos that were handed out, as they were then.
    known: HashMap<PathBuf, Stamp>,
    /// Photos that may still be written, and since when they are as they are.
    settling: HashMap<PathBuf, (Input, Stamp, Instant)>,
    /// Handed out next, the last first.
    ready: Vec<Input>,
    again: Again,
    place: usize,
    looked: Instant,
    /// Whether something that was not a photo changed, such as a folder that was moved in.
    must_look: bool,
    ended: Arc<AtomicBool>,
}

/// Photos to look at again, since they could not be read.
type Again = Arc<Mutex<Vec<PathBuf>>>;

impl Watched {
    /// Watches `folders`, from now on.
    pub(super) fn new(folders: Vec<PathBuf>, search: Search) -> Result<Self, CliError> {
        let config = InputConfig { shard: search.shard, ..search.config };
        let (tell, events) = channel();
        let mut watcher = notify::recommended_watcher(move |event| {
            // Whoever listened has stopped.
            let _ = Sender::send(&tell, event);
        })?;
        let mode =
            if config.recursive { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
        for folder in &folders {
            watcher.watch(folder, mode).map_err(|error| {
                CliError::new(format_args!("{}: cannot be watched: {error}", folder.display()))
                    .hint("--watch takes folders")
            })?;
        }
        Ok(Self {
            folders,
            config,
            events,
            _watcher: watcher,
            known: HashMap::new(),
            settling: HashMap::new(),
            ready: Vec::new(),
            again: Again::default(),
            place: 0,
            looked: Instant::now(),
            must_look: true,
            ended: Arc::default(),
        })
    }

    /// How photos are read that may still be being copied.
    pub(super) fn source<'a>(&self, reader: &'a Reader<'a>) -> Patient<'a> {
        Patient { reader, again: Arc::clone(&self.again), ended: Arc::clone(&self.ended) }
    }

    /// Looks for photos that are new or have changed.
    fn look(&mut self) {
        self.must_look = false;
        self.looked = Instant::now();
        let named: Vec<Named> = self.folders.iter().cloned().map(Named::Path).collect();
        let (known, settling) = (&self.known, &mut self.settling);
        let now = Instant::now();
        find(named, &self.config, &mut |found| {
            // A folder without photos has none yet.
            let Ok(input) = found else { return !stop::requested() };
            let Some(stamp) = stamp(&input.path) else { return !stop::requested() };
            if known.get(&input.path) != Some(&stamp) {
                let path = input.path.clone();
                let since = settling.get(&path).filter(|(_, before, _)| *before == stamp);
                let since = since.map_or(now, |(_, _, since)| *since);
                settling.insert(path, (input, stamp, since));
            }
            !stop::requested()
        });
    }

    /// Takes what has not changed for a while.
    fn settle(&mut self) {
        for path in self.again.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if self.known.remove(&path).is_some() {
                self.must_look = true;
            }
        }
        let now = Instant::now();
        let (known, ready) = (&mut self.known, &mut self.ready);
        self.settling.retain(|path, (input, before, since)| {
            match stamp(path) {
                None => return false,
                Some(stamp) if stamp != *before => (*before, *since) = (stamp, now),
                Some(_) => {}
            }
            let is_old = before.1.is_some_and(|time| time.elapsed().is_ok_and(|age| age > COPYING));
            let is_settled = is_old || now.saturating_duration_since(*since) >= SETTLED;
            if is_settled {
                known.insert(path.clone(), *before);
                ready.push(input.clone());
            }
            !is_settled
        });
        ready.sort_by(|a, b| b.path.cmp(&a.path));
    }

    fn wait(&mut self) {
        let mut event = self.events.recv_timeout(TICK);
        loop {
            match event {
                Ok(Ok(event)) => {
                    let is_read = matches!(event.kind, EventKind::Access(_));
                    let matters = |path: &PathBuf| is_image_path(path) || path.is_dir();
                    self.must_look |=
                        event.need_rescan() || (!is_read && event.paths.iter().any(matters));
                }
                // Too much happened to be told.
                Ok(Err(_)) => self.must_look = true,
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(TICK);
                    return;
                }
            }
            event = self.events.try_recv().map_err(|_| RecvTimeoutError::Timeout);
        }
    }
}

impl Iterator for Watched {
    type Item = Placed;

    fn next(&mut self) -> Option<Placed> {
        loop {
            if stop::requested() || self.ended.load(Ordering::SeqCst) {
                return None;
            }
            if let Some(input) = self.ready.pop() {
                self.place += 1;
                return Some((self.place - 1, Ok(input)));
            }
            if self.must_look || self.looked.elapsed() >= LOOK_AGAIN {
                self.look();
            }
            self.settle();
            if self.ready.is_empty() {
                self.wait();
            }
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok()))
}

/// Reads as a [`Reader`] does, but a photo that is gone, or cannot be read and was written a moment ago, is
/// looked at again later and not said to have failed.
pub(super) struct Patient<'a> {
    reader: &'a Reader<'a>,
    again: Again,
    /// Ends the watch, also while nothing happens.
    ended: Arc<AtomicBool>,
}

impl Source for Patient<'_> {
    type Item = Item;
    type Unread = Unread;

    fn read(&self, item: &mut Item) -> Result<RgbImage, Unread> {
        let read = self.reader.read(item);
        if !matches!(read, Err(Unread::Image(_))) {
            return read;
        }
        let Some(path) = item.input().map(|input| input.path.clone()) else { return read };
        let Ok(metadata) = fs::metadata(&path) else { return Err(Unread::NotAsked) };
        let age = metadata.modified().ok().and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age < COPYING) {
            self.again.lock().unwrap_or_else(PoisonError::into_inner).push(path);
            return Err(Unread::NotAsked);
        }
        read
    }

    fn admit(&self, item: &mut Item) -> Result<(), Unread> {
        self.reader.admit(item)
    }

    fn close(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}
