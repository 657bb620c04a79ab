//! The stage itself: items are read by worker threads, put into batches in their own order, captioned by a
//! thread for each device, and handed back in order. Every queue is bounded. Knows nothing of files.
//!
//! ```text
//! items ─▶ [read, resize] × workers ─▶ in order: admit, batch ─▶ [encode, decode tokens] × devices ─▶ emit, in order
//! ```
//!
//! Which photos share a batch follows from their order and not from what was read first, since the last
//! digits of a probability depend on what lies beside it in a product. A photo that is slow to read holds
//! up neither the other readers nor, as long as photos before it are left, the model.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ::image::RgbImage;
use burn::tensor::Device;

use super::bounds::{Closer, Permits, Window, lock};
use super::{Caption, CaptionConfig, Filling, ModelInput, caption_inputs};
use crate::checkpoint::Checkpoint;
use crate::generate::GenerateError;

/// Batches, for each device, that are read ahead of it.
const BATCHES_AHEAD: usize = 4;
/// Items of a group, most of which need no caption.
const MOST_ITEMS: usize = 1024;
/// Images of the first batch, so that something is seen soon.
const FIRST_BATCH: usize = 4;
/// How long an eager batch that is not full waits for a photo that is being read.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long it waits where none is being read.
const IDLE_PATIENCE: Duration = Duration::from_millis(20);

/// A model on a device.
#[derive(Clone, Copy)]
pub struct Replica<'a> {
    /// The model, whose weights lie on the device.
    pub checkpoint: &'a Checkpoint,
    /// The device.
    pub device: &'a Device,
}

/// Where photos come from: how one is read from an item.
pub trait Source: Sync {
    /// What is handed through.
    type Item: Send;
    /// Why an item gives no photo.
    type Unread: Send;

    /// Reads the photo, on one of several threads. May leave in the item what it learns of it.
    ///
    /// # Errors
    /// Why there is none.
    fn read(&self, item: &mut Self::Item) -> Result<RgbImage, Self::Unread>;

    /// Whether a photo that was read shall be captioned: asked in the order of the items, by one thread.
    ///
    /// # Errors
    /// Why not.
    fn admit(&self, _item: &mut Self::Item) -> Result<(), Self::Unread> {
        Ok(())
    }

    /// No item is wanted any more: where the items wait for something to happen, they end now.
    fn close(&self) {}
}

/// Items in their order, each with its captions or with why it has none.
pub type Batch<Item, Unread> = Vec<(Item, Result<Vec<Caption>, Unread>)>;

/// Captions `items`, reading a photo from each with `read` on worker threads ahead of the model, and
/// hands each item back to `emit` with its captions (`num_captions`, of beams the best first) or with
/// what `read` said instead of a photo, in the order of the items. `read` may leave in the item what it
/// learns of it. `items` is run through on a thread of its own, no further ahead than a few batches.
///
/// # Errors
/// A decoding configuration out of range, a failing device, or what `emit` returns. No item is read any
/// more then.
pub fn caption_items<Item: Send, Unread: Send, E: From<GenerateError>>(
    checkpoint: &Checkpoint,
    device: &Device,
    items: impl Iterator<Item = Item> + Send,
    read: &(dyn Fn(&mut Item) -> Result<RgbImage, Unread> + Sync),
    config: &CaptionConfig,
    mut emit: impl FnMut(Item, Result<Vec<Caption>, Unread>) -> Result<(), E>,
) -> Result<(), E> {
    struct Closure<'a, Item, Unread>(&'a (dyn Fn(&mut Item) -> Result<RgbImage, Unread> + Sync));
    impl<Item: Send, Unread: Send> Source for Closure<'_, Item, Unread> {
        type Item = Item;
        type Unread = Unread;

        fn read(&self, item: &mut Item) -> Result<RgbImage, Unread> {
            (self.0)(item)
        }
    }
    let replicas = [Replica { checkpoint, device }];
    caption_batches(&replicas, items, &Closure(read), config, |batch| {
        batch.into_iter().try_for_each(|(item, result)| emit(item, result))
    })
}

/// As [`caption_items`], on every one of `replicas` (at least one, of one model), and hands items back as
/// they were batched: the photos of one batch at once, with the items between them.
///
/// # Errors
/// As [`caption_items`].
pub fn caption_batches<S: Source, E: From<GenerateError>>(
    replicas: &[Replica<'_>],
    items: impl Iterator<Item = S::Item> + Send,
    source: &S,
    config: &CaptionConfig,
    mut emit: impl FnMut(Batch<S::Item, S::Unread>) -> Result<(), E>,
) -> Result<(), E> {
    let Some(Replica { checkpoint, .. }) = replicas.first().copied() else { return Ok(()) };
    config.generate.validate(checkpoint.model.config().decoder.vocab_size)?;
    let (workers, batch_size) = (config.workers.max(1), config.batch_size.max(1));
    let permits = Permits::new((BATCHES_AHEAD * replicas.len()) * batch_size + workers);
    let window = Window::new(2 * MOST_ITEMS + permits.count());
    let under_way = AtomicUsize::new(0);
    let closer = Closer { window: &window, permits: &permits };
    thread::scope(|scope| {
        let (give, take) = sync_channel::<(usize, S::Item)>(workers);
        let (read_one, ready) = sync_channel(workers);
        let (give_group, groups) = sync_channel(replicas.len());
        let (finished, results) = sync_channel(replicas.len());
        let take = Arc::new(Mutex::new(take));
        for _ in 0..workers {
            let (take, read_one) = (take.clone(), read_one.clone());
            let (permits, preprocess) = (&permits, &checkpoint.preprocess);
            scope.spawn(move || {
                let _guard = closer.on_panic();
                while let Some((index, mut item)) = next_to_read(&take, permits) {
                    let input = source.read(&mut item);
                    let input = input.map(|photo| ModelInput::new(preprocess, &photo));
                    if input.is_err() {
                        permits.give_back(1);
                    }
                    if read_one.send(ReadItem { index, item, input }).is_err() {
                        return;
                    }
                }
            });
        }
        drop((take, read_one));
        let (window, permits, under_way) = (&window, &permits, &under_way);
        scope.spawn(move || {
            let _guard = closer.on_panic();
            for (index, item) in items.enumerate() {
                under_way.fetch_add(1, Ordering::SeqCst);
                if !window.wait_for(index) || give.send((index, item)).is_err() {
                    return;
                }
            }
        });
        scope.spawn(move || {
            let _guard = closer.on_panic();
            Batcher::new(source, config, permits, give_group).run(&ready, under_way);
        });
        let groups = Arc::new(Mutex::new(groups));
        for replica in replicas {
            let (groups, finished) = (groups.clone(), finished.clone());
            scope.spawn(move || {
                let _guard = closer.on_panic();
                caption_groups(*replica, config, &groups, permits, &finished);
            });
        }
        drop((groups, finished));
        let result = emit_in_order(results, window, &mut emit);
        closer.close();
        source.close();
        result
    })
}

/// An item that a worker is done with.
struct ReadItem<Item, Unread> {
    index: usize,
    item: Item,
    input: Result<ModelInput, Unread>,
}

type ReadOf<S> = ReadItem<<S as Source>::Item, <S as Source>::Unread>;

/// Items in their order, and the photos of those that have one: a batch.
struct Group<Item, Unread> {
    number: usize,
    items: Vec<(Item, Result<(), Unread>)>,
    inputs: Vec<ModelInput>,
}

/// A group that is captioned, or an error that ends everything.
type Finished<Item, Unread> = Result<(usize, Batch<Item, Unread>), GenerateError>;

/// The next item with a permit for its photo. Permits are given in the order of the items, so the oldest
/// item never waits for one that a younger item holds.
fn next_to_read<T>(queue: &Mutex<Receiver<T>>, permits: &Permits) -> Option<T> {
    // The lock is held while waiting only, and not while the photo is read.
    let queue = lock(queue);
    let item = queue.recv().ok()?;
    permits.take().then_some(item)
}

/// Puts what is read, in whatever order it comes, into groups in the order of the items.
struct Batcher<'a, S: Source> {
    source: &'a S,
    permits: &'a Permits,
    give: SyncSender<Group<S::Item, S::Unread>>,
    /// Photos of a full batch.
    most: usize,
    /// Photos that the next batch has.
    wanted: usize,
    is_eager: bool,
    group: Group<S::Item, S::Unread>,
}

/// Nobody takes groups any more.
struct Gone;

impl<'a, S: Source> Batcher<'a, S> {
    fn new(
        source: &'a S,
        config: &CaptionConfig,
        permits: &'a Permits,
        give: SyncSender<Group<S::Item, S::Unread>>,
    ) -> Self {
        let most = config.batch_size.max(1);
        let is_eager = config.filling == Filling::Eager;
        let wanted = if is_eager { most.min(FIRST_BATCH) } else { most };
        let group = Group { number: 0, items: Vec::new(), inputs: Vec::new() };
        Self { source, permits, give, most, wanted, is_eager, group }
    }

    fn run(mut self, ready: &Receiver<ReadOf<S>>, under_way: &AtomicUsize) {
        let (mut waiting, mut next) = (BTreeMap::new(), 0);
        loop {
            while let Some((item, input)) = waiting.remove(&next) {
                next += 1;
                if self.add(item, input).is_err() {
                    return;
                }
            }
            match self.receive(ready, under_way) {
                Ok(Some(ReadItem { index, item, input })) => {
                    under_way.fetch_sub(1, Ordering::SeqCst);
                    waiting.insert(index, (item, input));
                }
                Ok(None) => {
                    if self.send().is_err() {
                        return;
                    }
                }
                // All is read.
                Err(Gone) => {
                    let _ = self.send();
                    return;
                }
            }
        }
    }

    /// The next item that is read; `None` if the group shall go as it is.
    fn receive(
        &self,
        ready: &Receiver<ReadOf<S>>,
        under_way: &AtomicUsize,
    ) -> Result<Option<ReadOf<S>>, Gone> {
        match ready.try_recv() {
            Ok(read) => return Ok(Some(read)),
            Err(TryRecvError::Disconnected) => return Err(Gone),
            Err(TryRecvError::Empty) => {}
        }
        // Items that need no caption wait for nothing.
        if self.group.inputs.is_empty() && !self.group.items.is_empty() {
            return Ok(None);
        }
        if self.group.items.is_empty() || !self.is_eager {
            return ready.recv().map(Some).map_err(|_| Gone);
        }
        let is_idle = under_way.load(Ordering::SeqCst) == 0;
        match ready.recv_timeout(if is_idle { IDLE_PATIENCE } else { PATIENCE }) {
            Ok(read) => Ok(Some(read)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Gone),
        }
    }

    fn add(&mut self, mut item: S::Item, input: Result<ModelInput, S::Unread>) -> Result<(), Gone> {
        let admitted = match input {
            Ok(input) => match self.source.admit(&mut item) {
                Ok(()) => {
                    self.group.inputs.push(input);
                    Ok(())
                }
                Err(unread) => {
                    self.permits.give_back(1);
                    Err(unread)
                }
            },
            Err(unread) => Err(unread),
        };
        self.group.items.push((item, admitted));
        let Group { items, inputs, .. } = &self.group;
        if inputs.len() >= self.wanted {
            if self.is_eager {
                self.wanted = (2 * self.wanted).min(self.most);
            }
            return self.send();
        }
        if items.len() >= MOST_ITEMS { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Gone> {
        if self.group.items.is_empty() {
            return Ok(());
        }
        let number = self.group.number + 1;
        let next = Group { number, items: Vec::new(), inputs: Vec::new() };
        self.give.send(std::mem::replace(&mut self.group, next)).map_err(|_| Gone)
    }
}

/// Captions groups on one device, as long as there are any.
fn caption_groups<Item, Unread>(
    Replica { checkpoint, device }: Replica<'_>,
    config: &CaptionConfig,
    groups: &Mutex<Receiver<Group<Item, Unread>>>,
    permits: &Permits,
    finished: &SyncSender<Finished<Item, Unread>>,
) {
    let next = || lock(groups).recv().ok();
    while let Some(Group { number, items, inputs }) = next() {
        let captions = match caption_inputs(checkpoint, device, &inputs, config) {
            Ok(captions) => captions,
            Err(error) => {
                // Whoever would have read it has left with an error of its own.
                let _ = finished.send(Err(error));
                return;
            }
        };
        permits.give_back(inputs.len());
        let mut captions = captions.into_iter();
        let each = items.into_iter().map(|(item, admitted)| {
            let result = admitted.map(|()| captions.next().unwrap_or_default());
            (item, result)
        });
        if finished.send(Ok((number, each.collect()))).is_err() {
            return;
        }
    }
}

fn emit_in_order<Item, Unread, E: From<GenerateError>>(
    results: Receiver<Finished<Item, Unread>>,
    window: &Window,
    emit: &mut impl FnMut(Batch<Item, Unread>) -> Result<(), E>,
) -> Result<(), E> {
    let (mut waiting, mut next) = (BTreeMap::new(), 0);
    for result in results {
        let (number, batch) = result?;
        waiting.insert(number, batch);
        while let Some(batch) = waiting.remove(&next) {
            let count = batch.len();
            emit(batch)?;
            next += 1;
            window.advance(count);
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "stage_tests.rs"]
mod tests;
