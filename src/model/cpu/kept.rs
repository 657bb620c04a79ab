//! Weights in the order in which kernels read them, kept for as long as they are the same.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, ptr};

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::nn::conv::Conv2d;

use super::convolution::Layer;
use super::weights;

/// A layer as the kernels read it, which takes as long to make as an image to compute: kept for as
/// long as its weights are the same. Clones share it.
#[derive(Clone, Default)]
pub(in crate::model) struct Kept(Arc<Mutex<Option<Made>>>);

/// A layer and the weights that it was made of.
type Made = (Vec<FloatTensor<Flex>>, Arc<Layer>);

impl Kept {
    /// The layer that `make` makes of these convolutions, if all are in f32.
    pub(in crate::model) fn layer<'a>(
        &self,
        convolutions: impl Iterator<Item = &'a Conv2d>,
        make: impl FnOnce() -> Option<Layer>,
    ) -> Option<Arc<Layer>> {
        let weights: Option<Vec<_>> = convolutions.map(weights).collect();
        let weights: Vec<_> =
            weights?.into_iter().flat_map(|(weight, bias)| [weight, bias]).collect();
        if let Some((of, layer)) = &*self.lock()
            && of.len() == weights.len()
            && of.iter().zip(&weights).all(|(of, weight)| is_same(of, weight))
        {
            return Some(layer.clone());
        }
        // Without the lock: what waits for threads of the pool must hold none.
        let layer = Arc::new(make()?);
        *self.lock() = Some((weights, layer.clone()));
        Some(layer)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Made>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

/// Whether two tensors are views of the same elements. As long as both are there nobody writes to
/// these, for Burn writes in place only where a tensor has no other holder.
fn is_same(left: &FloatTensor<Flex>, right: &FloatTensor<Flex>) -> bool {
    ptr::eq(left.storage::<f32>(), right.storage::<f32>()) && left.layout() == right.layout()
}
