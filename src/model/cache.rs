//! Keys and values kept between decoding steps, outside the layers.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::attention::KeyValue;
use super::cpu;

/// Keys and values of every decoder layer: self-attention's grow by what is decoded, into memory
/// allocated once; cross-attention's are computed once per image.
///
/// Several rows (beams) may read the same image: its keys and values are kept once.
#[derive(Debug, Clone)]
pub struct DecoderCache {
    pub(super) layers: Vec<LayerCache>,
    length: usize,
    capacity: usize,
    /// Lengths are rounded up to a multiple of this when read, so that a GPU sees few shapes.
    bucket: usize,
}

#[derive(Debug, Clone)]
pub(super) struct LayerCache {
    /// `[rows, heads, capacity, head_dim]` each.
    own: KeyValue,
    /// `[images, heads, patches, head_dim]` each.
    pub(super) cross: KeyValue,
}

impl DecoderCache {
    /// A cache for at most `capacity` tokens a row and `rows_per_image` rows an image. `cross`
    /// holds each layer's keys and values of the memory, one row an image.
    pub(super) fn new(
        cross: Vec<KeyValue>,
        rows_per_image: usize,
        capacity: usize,
        bucket: usize,
    ) -> Self {
        let layers = cross
            .into_iter()
            .map(|cross| {
                let [images, heads, _, head_dim] = cross.key.dims();
                // Of the same type: backends do not check what is written into it.
                let options = (&cross.key.device(), cross.key.dtype());
                let rows = images * rows_per_image;
                let empty = || Tensor::zeros([rows, heads, capacity, head_dim], options);
                let cross = KeyValue { key: packed(cross.key), value: packed(cross.value) };
                let own = KeyValue { key: empty(), value: empty() };
                LayerCache { own, cross }
            })
            .collect();
        Self { layers, length: 0, capacity, bucket: bucket.max(1) }
    }

    /// Tokens decoded so far.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing has been decoded.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Tokens there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Keys that attention reads after `added` more tokens: the filled length, rounded up to the
    /// bucket.
    pub(super) fn visible(&self, added: usize) -> usize {
        (self.length + added).next_multiple_of(self.bucket).min(self.capacity)
    }

    /// Writes new keys and values of one layer and returns all that are visible.
    pub(super) fn push(&mut self, layer: usize, new: KeyValue, visible: usize) -> KeyValue {
        let [rows, heads, added, head_dim] = new.key.dims();
        let at = [0..rows, 0..heads, self.length..self.length + added, 0..head_dim];
        let own = &mut self.layers[layer].own;
        own.key.inplace(|key| key.slice_assign(at.clone(), new.key));
        own.value.inplace(|value| value.slice_assign(at, new.value));
        KeyValue {
            key: own.key.clone().narrow(2, 0, visible),
            value: own.value.clone().narrow(2, 0, visible),
        }
    }

    /// Marks `added` tokens as decoded, after every layer has pushed them.
    pub(super) fn advance(&mut self, added: usize) {
        self.length += added;
    }

    /// Drops all rows but those of `images`, given by their places; returns how many rows are left.
    pub fn keep_images(&mut self, images: &[usize]) -> usize {
        let mut left = 0;
        for LayerCache { own, cross } in &mut self.layers {
            let of_image = own.key.dims()[0] / cross.key.dims()[0].max(1);
            let rows: Vec<usize> =
                images.iter().flat_map(|image| image * of_image..(image + 1) * of_image).collect();
            left = rows.len();
            for (kept, places) in [(own, rows.as_slice()), (cross, images)] {
                let index = row_index(places, &kept.key.device());
                kept.key.inplace(|key| key.select(0, index.clone()));
                kept.value.inplace(|value| value.select(0, index));
            }
        }
        left
    }

    /// Makes row `i` continue from what row `rows[i]` decoded; both must read the same image.
    pub fn reorder(&mut self, rows: &[usize]) {
        if rows.iter().enumerate().all(|(to, &from)| to == from) {
            return;
        }
        for layer in &mut self.layers {
            layer.own.key.inplace(|key| cpu::reordered(key, rows, self.length));
            layer.own.value.inplace(|value| cpu::reordered(value, rows, self.length));
        }
    }
}

/// The same tensor with its elements in order and side by side: every step reads them.
fn packed(tensor: Tensor<4>) -> Tensor<4> {
    let shape = tensor.dims();
    let all = shape.map(|size| 0..size);
    Tensor::empty(shape, (&tensor.device(), tensor.dtype())).slice_assign(all, tensor)
}

fn row_index(rows: &[usize], device: &Device) -> Tensor<1, Int> {
    let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let length = rows.len();
    Tensor::from_data(TensorData::new(rows, [length]), device)
}
