//! The stage itself: items are read by worker threads, captioned in batches by a thread of its own, and
//! handed back in order. Every queue is bounded. Knows nothing of files.
//!
//! ```text
//! items ─▶ [read, resize] × workers ─▶ batch ─▶ encode, decode tokens ─▶ emit, in the order of the items
//! ```
//!
//! A photo that is slow to read holds up neither the other readers nor the model, only its own result
//! and, in the hands of the emitter, those behind it.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use ::image::RgbImage;
use burn::tensor::Device;

use super::{Caption, CaptionConfig, ModelInput, caption_inputs};
use crate::checkpoint::Checkpoint;
use crate::generate::GenerateError;

/// Batches that items may be ahead of the oldest one that is not handed back yet.
const BATCHES_AHEAD: usize = 8;
/// Images of the first batch, so that something is seen soon.
const FIRST_BATCH: usize = 4;
/// How long a batch that is not full waits for another image.
const PATIENCE: Duration = Duration::from_millis(200);

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
    config.generate.validate(checkpoint.model.config().decoder.vocab_size)?;
    let (workers, batch_size) = (config.workers.max(1), config.batch_size.max(1));
    let window = Window::new(BATCHES_AHEAD * batch_size + workers);
    thread::scope(|scope| {
        let (give, take) = sync_channel::<(usize, Item)>(workers);
        let take = std::sync::Arc::new(Mutex::new(take));
        let (read_one, ready) = sync_channel(batch_size);
        let (captioned, results) = sync_channel(2 * batch_size);
        for _ in 0..workers {
            let (take, read_one) = (take.clone(), read_one.clone());
            scope.spawn(move || {
                // Taken out before the photo is read: the lock is held while waiting only.
                while let Some((index, mut item)) = next(&take) {
                    let input = read(&mut item)
                        .map(|photo| ModelInput::new(&checkpoint.preprocess, &photo));
                    if read_one.send(ReadItem { index, item, input }).is_err() {
                        return;
                    }
                }
            });
        }
        drop((take, read_one));
        let window = &window;
        scope.spawn(move || {
            for (index, item) in items.enumerate() {
                if !window.wait_for(index) || give.send((index, item)).is_err() {
                    return;
                }
            }
        });
        scope.spawn(move || caption_ready(checkpoint, device, config, &ready, &captioned));
        let result = emit_in_order(results, window, &mut emit);
        window.close();
        result
    })
}

/// An item that a worker is done with.
struct ReadItem<Item, Unread> {
    index: usize,
    item: Item,
    input: Result<ModelInput, Unread>,
}

/// An item with its captions, or an error that ends everything.
type Finished<Item, Unread> = Result<(usize, Item, Result<Vec<Caption>, Unread>), GenerateError>;

fn next<T>(queue: &Mutex<Receiver<T>>) -> Option<T> {
    lock(queue).recv().ok()
}

/// No code of ours panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes what is read as it comes, in whatever order, and captions it in batches.
fn caption_ready<Item, Unread>(
    checkpoint: &Checkpoint,
    device: &Device,
    config: &CaptionConfig,
    ready: &Receiver<ReadItem<Item, Unread>>,
    captioned: &SyncSender<Finished<Item, Unread>>,
) {
    let mut wanted = config.batch_size.clamp(1, FIRST_BATCH);
    let (mut items, mut inputs) = (Vec::new(), Vec::new());
    let mut is_open = true;
    while is_open {
        let received = match items.is_empty() {
            true => ready.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => ready.recv_timeout(PATIENCE),
        };
        match received {
            Ok(ReadItem { index, item, input: Ok(input) }) => {
                items.push((index, item));
                inputs.push(input);
                if items.len() < wanted {
                    continue;
                }
                wanted = (2 * wanted).min(config.batch_size.max(1));
            }
            Ok(ReadItem { index, item, input: Err(unread) }) => {
                if captioned.send(Ok((index, item, Err(unread)))).is_err() {
                    return;
                }
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => is_open = false,
        }
        let captions = match caption_inputs(checkpoint, device, &inputs, config) {
            Ok(captions) => captions,
            Err(error) => {
                // Whoever would have read it has left with an error of its own.
                let _ = captioned.send(Err(error));
                return;
            }
        };
        inputs.clear();
        for ((index, item), captions) in items.drain(..).zip(captions) {
            if captioned.send(Ok((index, item, Ok(captions)))).is_err() {
                return;
            }
        }
    }
}

fn emit_in_order<Item, Unread, E: From<GenerateError>>(
    results: Receiver<Finished<Item, Unread>>,
    window: &Window,
    emit: &mut impl FnMut(Item, Result<Vec<Caption>, Unread>) -> Result<(), E>,
) -> Result<(), E> {
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    for result in results {
        let (index, item, result) = result?;
        waiting.insert(index, (item, result));
        while let Some((item, result)) = waiting.remove(&next) {
            emit(item, result)?;
            next += 1;
            window.advance();
        }
    }
    Ok(())
}

/// How far items may be ahead of what is handed back.
struct Window {
    size: usize,
    state: Mutex<WindowState>,
    moved: Condvar,
}

struct WindowState {
    emitted: usize,
    is_closed: bool,
}

impl Window {
    fn new(size: usize) -> Self {
        let state = Mutex::new(WindowState { emitted: 0, is_closed: false });
        Self { size, state, moved: Condvar::new() }
    }

    /// Waits until the item may be read; whether it still shall.
    fn wait_for(&self, index: usize) -> bool {
        let mut state = lock(&self.state);
        while !state.is_closed && index >= state.emitted + self.size {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.is_closed
    }

    fn advance(&self) {
        lock(&self.state).emitted += 1;
        self.moved.notify_all();
    }

    fn close(&self) {
        lock(&self.state).is_closed = true;
        self.moved.notify_all();
    }
}
