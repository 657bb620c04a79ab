//! What the CPU does by kernels of ours, where nobody asks for gradients: linear maps and attention of
//! a few rows, which read weights, keys and values in place, GELU, and MobileNetV2's layers. Burn's
//! operations serve everywhere else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, ptr};

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::tensor::{DType, Device, Tensor, TensorData, activation};

use super::attention::KeyValue;
use super::convolution::{self, Filter, Layer, Mix};
use super::kernels::{self, Heads, Order};

/// Rows above which a matrix product made for many rows is the faster one.
const MOST_ROWS: usize = 16;

/// Rows that a matrix product needs to run at full speed.
const FULL_SPEED_ROWS: usize = 512;

/// Images of `patches` each that the encoder takes at once. On the CPU more than that is not faster,
/// and what lies between its layers grows with each.
pub(super) fn images_at_once(device: &Device, patches: usize) -> usize {
    if on_cpu(device) { FULL_SPEED_ROWS.div_ceil(patches.max(1)) } else { usize::MAX }
}

/// `x · weight + bias` of a linear map.
///
/// # Shapes
/// `x`: `[batch, seq, d_input]`; result: `[batch, seq, d_output]`.
pub(super) fn linear(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    let [batch, seq, inputs] = x.dims();
    if !serves(batch * seq, &x.device()) {
        return layer.forward(x);
    }
    let bias = layer.bias.as_ref().map(|bias| bias.val());
    let rows = x.clone().reshape([batch * seq, inputs]);
    match product_on_cpu(&rows, &layer.weight.val(), bias.as_ref()) {
        Some(out) => {
            let [_, outputs] = out.dims();
            out.reshape([batch, seq, outputs])
        }
        None => layer.forward(x),
    }
}

/// `x · weight`; `weight` may be a transposed view.
///
/// # Shapes
/// `x`: `[rows, inputs]`; `weight`: `[inputs, outputs]`; result: `[rows, outputs]`.
pub(super) fn product(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    product_on_cpu(&x, &weight, None).unwrap_or_else(|| x.matmul(weight))
}

/// GELU with the error function, without gradients.
pub(super) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let of_cpu = if on_cpu(&x.device()) { primitive(&x) } else { None };
    let Some(mut values) = of_cpu else { return activation::gelu(x) };
    // The only one who holds it may write in place.
    drop(x);
    if !values.is_contiguous() {
        values = values.to_contiguous();
    }
    kernels::gelu(values.storage_mut());
    Tensor::from_primitive::<Flex>(values)
}

/// GELU with the error function, with gradients: a straight line that touches it at `x`.
pub(super) fn gelu_with_gradients<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let Some(mut values) = primitive(&x.clone().inner()) else { return activation::gelu(x) };
    if !values.is_contiguous() {
        values = values.to_contiguous();
    }
    let offsets = TensorData::new(kernels::gelu_tangents(values.storage_mut()), x.shape());
    let slopes = Tensor::<D>::from_primitive::<Flex>(values);
    x.clone() * slopes.autodiff() + Tensor::from_data(offsets, &x.device())
}

/// A convolution of 1×1, or one of a few values as they follow each other, in f32.
pub(super) fn mix(layer: &Conv2d) -> Option<Mix> {
    let (weight, bias) = weights(layer)?;
    Some(Mix::new(weight.as_slice()?, bias.as_slice()?))
}

/// A depthwise convolution of 3×3, in f32.
pub(super) fn filter(layer: &Conv2d) -> Option<Filter> {
    let (weight, bias) = weights(layer)?;
    Some(Filter::new(weight.as_slice()?, bias.as_slice()?, layer.stride[0]))
}

fn weights(layer: &Conv2d) -> Option<(FloatTensor<Flex>, FloatTensor<Flex>)> {
    let bias = primitive(&layer.bias.as_ref()?.val())?;
    Some((primitive(&layer.weight.val())?.to_contiguous(), bias.to_contiguous()))
}

/// A layer as the kernels read it, which takes as long to make as an image to compute: kept for as
/// long as its weights are the same. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<Mutex<Option<Made>>>);

/// A layer and the weights that it was made of.
type Made = (Vec<FloatTensor<Flex>>, Arc<Layer>);

impl Kept {
    /// The layer that `make` makes of these convolutions, if all are in f32.
    pub(super) fn layer<'a>(
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

/// What the layers make of images, if these are in f32 and on the CPU.
///
/// # Shapes
/// `[batch, channels, rows, cols]`, the result too.
pub(super) fn convolved(
    layers: impl Iterator<Item = Option<Arc<Layer>>>,
    x: &Tensor<4>,
) -> Option<Tensor<4>> {
    let device = x.device();
    let [images, _, rows, cols] = x.dims();
    if !on_cpu(&device) || x.dims().contains(&0) {
        return None;
    }
    let layers: Vec<Arc<Layer>> = layers.collect::<Option<_>>()?;
    let x = match &**layers.first()? {
        Layer::Stem(_) => x.clone(),
        _ => x.clone().permute([0, 2, 3, 1]),
    };
    let x = primitive(&x)?.to_contiguous();
    let (out, [rows, cols]) = convolution::run(&layers, x.as_slice()?, images, [rows, cols]);
    let channels = out.len() / (images * rows * cols);
    let out = TensorData::new(out, [images, rows, cols, channels]);
    Some(Tensor::<4>::from_data(out, &device).permute([0, 3, 1, 2]))
}

fn on_cpu(device: &Device) -> bool {
    !device.is_autodiff() && *device == Device::flex()
}

/// Whether so many rows are for the kernels.
fn serves(rows: usize, device: &Device) -> bool {
    rows <= MOST_ROWS && on_cpu(device)
}

/// The elements of a tensor on the CPU, if they are f32.
fn primitive<const D: usize>(tensor: &Tensor<D>) -> Option<FloatTensor<Flex>> {
    let primitive = tensor.clone().try_into_primitive::<Flex>().ok()?;
    (primitive.dtype() == DType::F32).then_some(primitive)
}

fn product_on_cpu(
    x: &Tensor<2>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
) -> Option<Tensor<2>> {
    let device = x.device();
    let [rows, inputs] = x.dims();
    let [_, outputs] = weight.dims();
    if !serves(rows, &device) {
        return None;
    }
    let x = primitive(x)?.to_contiguous();
    let weight = primitive(weight)?;
    let (weight, order) = match weight.is_contiguous() {
        true => (weight, Order::ByInput),
        false => (weight.transpose(0, 1), Order::ByOutput),
    };
    let bias = match bias {
        Some(bias) => Some(primitive(bias)?.to_contiguous()),
        None => None,
    };
    let bias = match &bias {
        Some(bias) => Some(bias.as_slice()?),
        None => None,
    };
    let out = kernels::product(x.as_slice()?, inputs, weight.as_slice()?, order, bias, outputs);
    Some(Tensor::from_data(TensorData::new(out, [rows, outputs]), &device))
}

/// Attention of queries that see every key, if there are few of them and on the CPU.
///
/// # Shapes
/// `query`: `[batch, heads, seq, head_dim]`; result the same.
pub(super) fn attention(query: &Tensor<4>, memory: &KeyValue) -> Option<Tensor<4>> {
    let device = query.device();
    let dims = query.dims();
    let [_, _, seq, head_dim] = dims;
    if memory.key.dims()[..2] != dims[..2] || !serves(seq, &device) {
        return None;
    }
    let query = primitive(query)?;
    let (key, value) = (primitive(&memory.key)?, primitive(&memory.value)?);
    let scale = 1.0 / (head_dim as f32).sqrt();
    let out = kernels::attention(
        heads(&query, dims)?,
        heads(&key, memory.key.dims())?,
        heads(&value, memory.value.dims())?,
        scale,
    );
    Some(Tensor::from_data(TensorData::new(out, dims), &device))
}

fn heads(tensor: &FloatTensor<Flex>, dims: [usize; 4]) -> Option<Heads<'_>> {
    let layout = tensor.layout();
    let &[batch, head, row, element] = layout.strides() else { return None };
    if element != 1 && dims[3] > 1 {
        return None;
    }
    let stride = |stride: isize| usize::try_from(stride).ok();
    let strides = [stride(batch)?, stride(head)?, stride(row)?];
    Some(Heads { data: tensor.storage(), offset: layout.start_offset(), strides, dims })
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tensor};

    use super::*;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &Device::flex())
    }

    fn assert_close<const D: usize>(ours: Tensor<D>, theirs: Tensor<D>, what: &str) {
        assert_eq!(ours.dims(), theirs.dims(), "{what}");
        let worst: f32 = (ours - theirs).abs().max().into_scalar();
        assert!(worst < 2e-5, "{what}: off by {worst}");
    }

    #[test]
    fn products_are_those_of_burn() {
        for rows in [1, 2, 3, 7, 16] {
            for (inputs, outputs) in [(1, 1), (5, 37), (64, 384), (67, 385), (768, 1000)] {
                let what = format!("{rows} × {inputs} × {outputs}");
                let (x, bias) = (random([rows, inputs]), random([outputs]));
                for weight in [random([inputs, outputs]), random([outputs, inputs]).transpose()] {
                    let scale = 1.0 / (inputs as f64).sqrt();
                    let theirs = x.clone().matmul(weight.clone()).mul_scalar(scale);
                    let ours = product_on_cpu(&x, &weight, None).expect("served").mul_scalar(scale);
                    assert_close(ours, theirs.clone(), &what);
                    let ours = product_on_cpu(&x, &weight, Some(&bias)).expect("served");
                    let theirs = theirs + bias.clone().mul_scalar(scale).unsqueeze::<2>();
                    assert_close(ours.mul_scalar(scale), theirs, &what);
                }
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        for weight in [random([768, 1000]), random([1000, 768]).transpose()] {
            for rows in [1, 3, 7] {
                let x = random([rows, 768]);
                let on = |threads: usize| {
                    let pool =
                        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    pool.install(|| product_on_cpu(&x, &weight, None).expect("served").into_data())
                };
                assert_eq!(on(1), on(3));
            }
        }
    }

    #[test]
    fn views_that_are_neither_row_by_row_nor_transposed_are_left_to_burn() {
        let weight = random([8, 12]).narrow(1, 2, 6);
        assert!(product_on_cpu(&random([1, 8]), &weight, None).is_none());
        let theirs = random([1, 8]);
        assert_close(product(theirs.clone(), weight.clone()), theirs.matmul(weight), "narrowed");
        assert!(product_on_cpu(&random([17, 8]), &random([8, 8]), None).is_none());
    }

    #[test]
    fn gelu_is_that_of_burn_and_leaves_shared_tensors_alone() {
        for length in [1, 15, 16, 17, 40_000] {
            let x =
                Tensor::<1>::random([length], Distribution::Uniform(-7.0, 7.0), &Device::flex());
            let kept = x.clone();
            assert_close(gelu(x.clone()), activation::gelu(x), "gelu");
            assert_close(
                gelu(kept.clone().narrow(0, length / 2, 1)),
                gelu(kept).narrow(0, length / 2, 1),
                "a view",
            );
        }
        let wide = random([6, 10]);
        let turned = wide.clone().transpose();
        assert_close(gelu(turned.clone()), activation::gelu(turned), "a transposed view");
    }

    #[test]
    fn gelu_and_its_gradient_are_those_of_burn() {
        let device = Device::flex().autodiff();
        for length in [1, 15, 16, 17, 40_000] {
            let range = Distribution::Uniform(-9.0, 9.0);
            let x = Tensor::<1>::random([length], range, &Device::flex());
            let along = Tensor::<1>::random([length], range, &device);
            let of = |gelu: fn(Tensor<1>) -> Tensor<1>| {
                let x = Tensor::from_inner(x.clone()).require_grad();
                let y = gelu(x.clone());
                let gradients = (y.clone() * along.clone()).sum().backward();
                (y.inner(), x.grad(&gradients).unwrap())
            };
            let (ours, theirs) = (of(gelu_with_gradients), of(activation::gelu));
            assert_close(ours.0, theirs.0, "gelu");
            assert_close(ours.1, theirs.1, "its gradient");
        }
        let far = Tensor::<1>::from_floats([1e4, -1e4, f32::INFINITY], &device);
        let far = gelu_with_gradients(far).inner().into_data();
        let far = far.try_to_vec::<f32>().unwrap();
        assert!((far[0] - 1e4).abs() < 1e-2 && far[1].abs() < 1e-3, "{far:?}");
        assert_eq!(far[2], f32::INFINITY);
        let turned = random([6, 10]).autodiff().transpose();
        let (ours, theirs) = (gelu_with_gradients(turned.clone()), activation::gelu(turned));
        assert_close(ours.inner(), theirs.inner(), "a transposed view");
    }

    #[test]
    fn attention_is_that_of_burn_where_keys_lie_apart() {
        for (batch, heads, seq, length, head_dim) in
            [(1, 1, 1, 1, 1), (2, 3, 1, 7, 5), (1, 12, 3, 577, 64), (3, 2, 16, 33, 24)]
        {
            let what = format!("{batch} × {heads} × {seq} × {length} × {head_dim}");
            let query = random([batch, seq, heads, head_dim]).swap_dims(1, 2);
            // As a cache that has room for more.
            let kept = |tensor: Tensor<4>| tensor.narrow(2, 0, length);
            let memory = KeyValue {
                key: kept(random([batch, heads, length + 3, head_dim])),
                value: kept(random([batch, heads, length + 3, head_dim])),
            };
            let ours = attention(&query, &memory).expect("served");
            let scale = 1.0 / (head_dim as f64).sqrt();
            let scores = query.matmul(memory.key.clone().transpose()).mul_scalar(scale);
            let theirs = burn::tensor::activation::softmax(scores, 3).matmul(memory.value.clone());
            assert_close(ours, theirs, &what);
        }
    }
}
