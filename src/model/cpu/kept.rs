//! Weights in the order in which kernels read them, kept for as long as they are the same.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, ptr};

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::nn::conv::Conv2d;

use super::convolution::Layer;
use super::product::Panels;
use super::weights;

/// Weights as the kernels read them, which may take as long to put in order as to use once: kept for as
/// long as they are the same. Clones share them.
pub(in crate::model) struct Kept<T>(Arc<Mutex<Option<Made<T>>>>);

/// A layer of a convolutional network.
pub(in crate::model) type KeptLayer = Kept<Layer>;

/// The matrix of a linear map.
pub(in crate::model) type KeptPanels = Kept<Panels>;

/// What was made, and the weights that it was made of.
type Made<T> = (Vec<FloatTensor<Flex>>, Arc<T>);

impl<T> Kept<T> {
    /// What `make` makes of these weights.
    pub(super) fn of(
        &self,
        weights: Vec<FloatTensor<Flex>>,
        make: impl FnOnce() -> Option<T>,
    ) -> Option<Arc<T>> {
        if let Some((of, made)) = &*self.lock()
            && of.len() == weights.len()
            && of.iter().zip(&weights).all(|(of, weight)| is_same(of, weight))
        {
            return Some(made.clone());
        }
        // Without the lock: what waits for threads of the pool must hold none.
        let made = Arc::new(make()?);
        *self.lock() = Some((weights, made.clone()));
        Some(made)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Made<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeptLayer {
    /// The layer that `make` makes of these convolutions, if all are in f32.
    pub(in crate::model) fn layer<'a>(
        &self,
        convolutions: impl Iterator<Item = &'a Conv2d>,
        make: impl FnOnce() -> Option<Layer>,
    ) -> Option<Arc<Layer>> {
        let weights: Option<Vec<_>> = convolutions.map(weights).collect();
        self.of(weights?.into_iter().flat_map(|(weight, bias)| [weight, bias]).collect(), make)
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

/// Whether two tensors are views of the same elements. As long as both are there nobody writes to
/// these, for Burn writes in place only where a tensor has no other holder.
fn is_same(left: &FloatTensor<Flex>, right: &FloatTensor<Flex>) -> bool {
    ptr::eq(left.storage::<f32>(), right.storage::<f32>()) && left.layout() == right.layout()
}
