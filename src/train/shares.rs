//! Work cut into shares that a CPU's cores do side by side.
//!
//! Burn's CPU backend multiplies matrices on all cores and does nearly everything else on one. With
//! shares each core keeps to its own images, and no operation waits for threads.

use std::ops::Range;
use std::thread;

use burn::tensor::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::TrainError;
use crate::device::num_cpu_threads;

/// Threads for each share.
pub(super) struct Shares {
    /// None where there is one share: it is done where it was asked for.
    pools: Vec<ThreadPool>,
}

impl Shares {
    /// Divides the cores among `count` shares; on a GPU there is one.
    pub fn new(count: usize, device: &Device) -> Result<Self, TrainError> {
        let count = if device.clone().inner() == Device::flex() { count } else { 1 };
        let threads = num_cpu_threads().div_ceil(count.max(1));
        let pool = || ThreadPoolBuilder::new().num_threads(threads).build();
        let pools = (0..count).filter(|_| count > 1).map(|_| pool()).collect::<Result<_, _>>();
        Ok(Self { pools: pools.map_err(|error| TrainError::Threads(error.to_string()))? })
    }

    /// How many there are, at least 1.
    pub fn count(&self) -> usize {
        self.pools.len().max(1)
    }

    /// `work` on each of at most [`Self::count`] items with its number; results in the items' order.
    pub fn map<T: Send, R: Send>(
        &self,
        items: Vec<T>,
        work: impl Fn(usize, T) -> R + Sync,
    ) -> Vec<R> {
        let numbered = items.into_iter().enumerate();
        if numbered.len() == 1 || self.pools.is_empty() {
            return numbered.map(|(index, item)| work(index, item)).collect();
        }
        let work = &work;
        thread::scope(|scope| {
            let started: Vec<_> = numbered
                .zip(&self.pools)
                .map(|((index, item), pool)| {
                    scope.spawn(move || pool.install(|| work(index, item)))
                })
                .collect();
            let ended = started.into_iter().map(|share| share.join());
            ended.map(|out| out.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        })
    }
}

/// Cuts `length` things into at most `count` ranges of about the same length, none empty.
pub(super) fn ranges(length: usize, count: usize) -> impl Iterator<Item = Range<usize>> {
    let count = count.min(length);
    (0..count).map(move |i| length * i / count..length * (i + 1) / count)
}
