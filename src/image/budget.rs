//! How much memory decoding may take, shared by all that decode at the same time. Knows bytes, and
//! nothing of images.

use std::fs;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// A number of bytes that all decoding together may take. A clone shares the same bytes.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: u64,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug)]
struct Queue {
    free: u64,
    /// Who comes next is let in next: a large image is not passed by small ones for ever.
    next_ticket: u64,
    serving: u64,
}

/// The most that the default takes, however much memory there is: enough for one image of
/// [`DecodeLimits`](super::DecodeLimits)' default size in most formats.
const MOST: u64 = 1 << 30;
/// The least: an ordinary photo must go in.
const LEAST: u64 = 64 << 20;

impl MemoryBudget {
    /// A budget of its own, of this many bytes.
    pub fn of_bytes(total: u64) -> Self {
        let queue = Mutex::new(Queue { free: total, next_ticket: 0, serving: 0 });
        Self(Arc::new(Shared { total, queue, changed: Condvar::new() }))
    }

    /// All its bytes.
    pub fn total(&self) -> u64 {
        self.0.total
    }

    /// Takes `bytes`, which go back when the reservation is dropped. Waits while others hold them.
    /// `None` where there never are that many. Who waits must hold no reservation of the same budget.
    pub(super) fn reserve(&self, bytes: u64) -> Option<Reservation> {
        if bytes > self.0.total {
            return None;
        }
        let mut queue = self.0.lock();
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        while queue.serving != ticket || queue.free < bytes {
            queue = self.0.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.serving += 1;
        queue.free -= bytes;
        drop(queue);
        self.0.changed.notify_all();
        Some(Reservation { budget: self.clone(), bytes })
    }
}

impl Default for MemoryBudget {
    /// One budget for the whole process: a quarter of the memory that the machine, its control group
    /// and its limits allow, between 64 MiB and 1 GiB.
    fn default() -> Self {
        static MACHINE: OnceLock<MemoryBudget> = OnceLock::new();
        MACHINE.get_or_init(|| Self::of_bytes((memory_allowed() / 4).clamp(LEAST, MOST))).clone()
    }
}

impl PartialEq for MemoryBudget {
    fn eq(&self, other: &Self) -> bool {
        self.0.total == other.0.total
    }
}

impl Eq for MemoryBudget {}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Numbers are whole between any two statements, so a panic elsewhere spoils nothing.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes taken from a [`MemoryBudget`].
#[derive(Debug)]
pub(super) struct Reservation {
    budget: MemoryBudget,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.0.lock().free += self.bytes;
        self.budget.0.changed.notify_all();
    }
}

/// The smallest of what the machine has and what is allowed. Where nothing is known (not Linux), the
/// most that the default could use.
fn memory_allowed() -> u64 {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    [
        kilobytes_after(&read("/proc/meminfo"), "MemTotal:"),
        // Control groups, version 2 and 1.
        read("/sys/fs/cgroup/memory.max").trim().parse().ok(),
        read("/sys/fs/cgroup/memory/memory.limit_in_bytes").trim().parse().ok(),
        soft_limit(&read("/proc/self/limits"), "Max address space"),
        soft_limit(&read("/proc/self/limits"), "Max data size"),
    ]
    .into_iter()
    .flatten()
    .min()
    .unwrap_or(4 * MOST)
}

fn kilobytes_after(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// `unlimited` is no number.
fn soft_limit(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn more_than_there_is_is_never_to_be_had() {
        let budget = MemoryBudget::of_bytes(100);
        assert!(budget.reserve(101).is_none());
        let all = budget.reserve(100).unwrap();
        drop(all);
        assert!(budget.reserve(100).is_some());
    }

    #[test]
    fn threads_together_never_hold_more_than_the_budget() {
        let budget = MemoryBudget::of_bytes(100);
        let held = AtomicU64::new(0);
        thread::scope(|scope| {
            for thread in 0..8u64 {
                let (budget, held) = (budget.clone(), &held);
                scope.spawn(move || {
                    for step in 0..50 {
                        let bytes = (thread * 37 + step * 11) % 100 + 1;
                        let reservation = budget.reserve(bytes).unwrap();
                        let before = held.fetch_add(bytes, Ordering::SeqCst);
                        assert!(before + bytes <= 100, "{before} + {bytes}");
                        thread::yield_now();
                        held.fetch_sub(bytes, Ordering::SeqCst);
                        drop(reservation);
                    }
                });
            }
        });
        assert!(budget.reserve(100).is_some());
    }

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max data size             unlimited            unlimited            bytes     \n\
                      Max address space         1536000000           unlimited            bytes     \n";
        assert_eq!(soft_limit(limits, "Max address space"), Some(1_536_000_000));
        assert_eq!(soft_limit(limits, "Max data size"), None);
        let meminfo = "MemTotal:       24100352 kB\nMemFree:        1 kB\n";
        assert_eq!(kilobytes_after(meminfo, "MemTotal:"), Some(24_100_352 * 1024));
        let total = MemoryBudget::default().total();
        assert!((LEAST..=MOST).contains(&total), "{total}");
    }
}
