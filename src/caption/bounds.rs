//! What keeps a pipeline's threads from running ahead of each other: how far items may be ahead of what is
//! handed back ([`Window`]), and how many photos may be held at a time ([`Permits`]).

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// No code of ours panics while it holds one of these locks.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that threads wait for, until it is closed.
struct Gate {
    /// The number, and whether nobody shall wait any more.
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    fn new(number: usize) -> Self {
        Self { state: Mutex::new((number, false)), changed: Condvar::new() }
    }

    /// Waits until `is_met`, then changes the number. Whether it was met before the gate closed.
    fn wait(&self, is_met: impl Fn(usize) -> bool, change: impl FnOnce(&mut usize)) -> bool {
        let mut state = lock(&self.state);
        while !state.1 && !is_met(state.0) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.1 {
            change(&mut state.0);
        }
        !state.1
    }

    fn add(&self, count: usize) {
        lock(&self.state).0 += count;
        self.changed.notify_all();
    }

    fn close(&self) {
        lock(&self.state).1 = true;
        self.changed.notify_all();
    }
}

/// How far items may be ahead of what is handed back.
pub(super) struct Window {
    size: usize,
    emitted: Gate,
}

impl Window {
    pub(super) fn new(size: usize) -> Self {
        Self { size, emitted: Gate::new(0) }
    }

    /// Waits until the item may be read; whether it still shall.
    pub(super) fn wait_for(&self, index: usize) -> bool {
        self.emitted.wait(|emitted| index < emitted + self.size, |_| ())
    }

    /// So many items more are handed back.
    pub(super) fn advance(&self, count: usize) {
        self.emitted.add(count);
    }
}

/// How many photos may be held at a time.
pub(super) struct Permits {
    count: usize,
    free: Gate,
}

impl Permits {
    pub(super) fn new(count: usize) -> Self {
        Self { count, free: Gate::new(count) }
    }

    /// All of them.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Waits for one; whether there still are any.
    pub(super) fn take(&self) -> bool {
        self.free.wait(|free| free > 0, |free| *free -= 1)
    }

    pub(super) fn give_back(&self, count: usize) {
        self.free.add(count);
    }
}

/// Lets every thread go that waits.
#[derive(Clone, Copy)]
pub(super) struct Closer<'a> {
    pub(super) window: &'a Window,
    pub(super) permits: &'a Permits,
}

impl<'a> Closer<'a> {
    pub(super) fn close(self) {
        self.window.emitted.close();
        self.permits.free.close();
    }

    /// Closes if this thread panics: what the others wait for then never comes.
    pub(super) fn on_panic(self) -> OnPanic<'a> {
        OnPanic(self)
    }
}

pub(super) struct OnPanic<'a>(Closer<'a>);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.close();
        }
    }
}
