//! What the CPU does by kernels of ours: the only room of `model` that knows threads, vector
//! instructions and locks. Its functions take tensors and decide by [`is_cpu`], the one switch, whether
//! a kernel serves; Burn's operations serve everywhere else.

use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation};

use super::attention::KeyValue;
pub(super) use convolution::{Block, Layer, Mix};
pub(super) use differentiable::attention_with_gradients;
pub(crate) use elementwise::log_softmax;
use few_rows::Heads;
use filter::Filter;
pub use instructions::{INSTRUCTIONS_VARIABLE, vector_instructions};
pub(super) use kept::{KeptLayer, KeptPanels};
use product::{Finish, Matrix, Order, Panels, Rows};

mod attention;
mod attention_gradients;
mod convolution;
mod differentiable;
mod elementwise;
mod few_rows;
mod filter;
mod instructions;
mod kept;
mod product;

/// Rows above which a matrix product made for many rows is the faster one.
const MOST_ROWS: usize = 16;

/// Rows from which on ours is the faster one of these: with fewer, putting the matrix in order costs more
/// than what is done on the way out saves, and Burn's serves.
const MANY_ROWS: usize = 256;

/// Rows from which on a matrix that is kept in order is read faster so than as it lies.
const ROWS_OF_PANELS: usize = 6;

/// Elements of the largest matrix that is kept in order beside its weights: decoding many captions at once
/// by a small model would put it in order at each step; large ones would take twice their memory.
const MOST_KEPT: usize = 1 << 20;

/// Rows that a matrix product needs to run at full speed.
const FULL_SPEED_ROWS: usize = 512;

/// Images of `patches` each that the encoder takes at once. On the CPU more than that is not faster,
/// and what lies between its layers grows with each.
pub(super) fn images_at_once(device: &Device, patches: usize) -> usize {
    if on_cpu(device) { FULL_SPEED_ROWS.div_ceil(patches.max(1)) } else { usize::MAX }
}

/// What follows a linear map, in the same pass where a kernel serves.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "passed once a map and never kept")]
pub(super) enum Then {
    /// Nothing.
    Nothing,
    /// GELU with the error function.
    Gelu,
    /// Plus this, of the result's shape.
    Add(Tensor<3>),
}

/// `x · weight + bias` of a linear map.
///
/// # Shapes
/// `x`: `[batch, seq, d_input]`; result: `[batch, seq, d_output]`.
pub(super) fn linear(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    linear_then(layer, None, x, Then::Nothing)
}

/// [`linear`] whose matrix may be kept in order.
///
/// # Shapes
/// As [`linear`].
pub(super) fn linear_kept(layer: &Linear, kept: &KeptPanels, x: Tensor<3>) -> Tensor<3> {
    linear_then(layer, Some(kept), x, Then::Nothing)
}

/// A linear map and what follows it.
///
/// # Shapes
/// As [`linear`].
pub(super) fn linear_then(
    layer: &Linear,
    kept: Option<&KeptPanels>,
    x: Tensor<3>,
    then: Then,
) -> Tensor<3> {
    let [batch, seq, inputs] = x.dims();
    if !on_cpu(&x.device()) {
        return follow(layer.forward(x), then);
    }
    let bias = layer.bias.as_ref().map(|bias| bias.val());
    let rows = x.clone().reshape([batch * seq, inputs]);
    match product_on_cpu(&rows, &layer.weight.val(), bias.as_ref(), kept, &then) {
        Some(out) => {
            let [_, outputs] = out.dims();
            out.reshape([batch, seq, outputs])
        }
        None => follow(layer.forward(x), then),
    }
}

fn follow(x: Tensor<3>, then: Then) -> Tensor<3> {
    match then {
        Then::Nothing => x,
        Then::Gelu => gelu(x),
        Then::Add(other) => other + x,
    }
}

/// `x · weight`; `weight` may be a transposed view, and kept in order.
///
/// # Shapes
/// `x`: `[rows, inputs]`; `weight`: `[inputs, outputs]`; result: `[rows, outputs]`.
pub(super) fn product(x: Tensor<2>, weight: Tensor<2>, kept: &KeptPanels) -> Tensor<2> {
    let served = product_on_cpu(&x, &weight, None, Some(kept), &Then::Nothing);
    served.unwrap_or_else(|| x.matmul(weight))
}

/// `x · weight`.
///
/// # Shapes
/// As [`product`].
pub(crate) fn multiply(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let served = product_on_cpu(&x, &weight, None, None, &Then::Nothing);
    served.unwrap_or_else(|| x.matmul(weight))
}

/// Rows of a cache, `[rows, heads, capacity, head_dim]`, of which `length` are filled: row `i` becomes what
/// row `rows[i]` was.
pub(super) fn reordered(cache: Tensor<4>, rows: &[usize], length: usize) -> Tensor<4> {
    let device = cache.device();
    let [_, heads, capacity, head_dim] = cache.dims();
    let of_cpu = if on_cpu(&device) { primitive(&cache) } else { None };
    if let Some(mut values) = of_cpu.filter(|values| values.as_slice::<f32>().is_some()) {
        // The only one who holds it may write in place.
        drop(cache);
        let line = capacity * head_dim;
        few_rows::reorder(values.storage_mut(), rows, [heads, line, length * head_dim]);
        return Tensor::from_primitive::<Flex>(values);
    }
    let index: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    cache.select(0, Tensor::<1, Int>::from_data(TensorData::new(index, [rows.len()]), &device))
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
    elementwise::gelu(values.storage_mut());
    Tensor::from_primitive::<Flex>(values)
}

/// GELU with the error function, with gradients: a straight line that touches it at `x`.
pub(super) fn gelu_with_gradients<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let Some(mut values) = primitive(&x.clone().inner()) else { return activation::gelu(x) };
    if !values.is_contiguous() {
        values = values.to_contiguous();
    }
    let offsets = TensorData::new(elementwise::gelu_tangents(values.storage_mut()), x.shape());
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

/// Whether tensors of `device` lie in this process's memory and its CPU computes them: with gradients or
/// without.
pub(super) fn is_cpu(device: &Device) -> bool {
    device.clone().inner() == Device::flex()
}

/// Whether the CPU computes, and nobody asks for gradients.
fn on_cpu(device: &Device) -> bool {
    !device.is_autodiff() && is_cpu(device)
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
    kept: Option<&KeptPanels>,
    then: &Then,
) -> Option<Tensor<2>> {
    let device = x.device();
    let [rows, inputs] = x.dims();
    let [_, outputs] = weight.dims();
    let kept = kept
        .filter(|_| (ROWS_OF_PANELS..MANY_ROWS).contains(&rows) && inputs * outputs <= MOST_KEPT);
    if !on_cpu(&device) || (kept.is_none() && (MOST_ROWS + 1..MANY_ROWS).contains(&rows)) {
        return None;
    }
    let x = primitive(x)?.to_contiguous();
    let x = x.as_slice()?;
    let weight = primitive(weight)?;
    let (weight, order) = match weight.is_contiguous() {
        true => (weight, Order::ByInput),
        false => (weight.transpose(0, 1), Order::ByOutput),
    };
    let data = weight.as_slice()?;
    let bias = match bias {
        Some(bias) => Some(primitive(bias)?.to_contiguous()),
        None => None,
    };
    let bias = match &bias {
        Some(bias) => Some(bias.as_slice()?),
        None => None,
    };
    let added = match then {
        Then::Add(other) => Some(primitive(other)?.to_contiguous()),
        _ => None,
    };
    let finish = match (then, &added) {
        (Then::Gelu, _) => Finish::Gelu,
        (_, Some(other)) => Finish::Add(other.as_slice()?),
        _ => Finish::Keep,
    };
    let matrix = Matrix { data, order, inputs, outputs, bias, panels: None };
    let panels = match kept {
        Some(kept) => Some(kept.of(vec![weight.clone()], || Some(Panels::new(&matrix)))?),
        None => None,
    };
    let out = if rows <= MOST_ROWS && panels.is_none() {
        let mut out = few_rows::product(x, inputs, data, order, bias, outputs);
        match finish {
            Finish::Keep => {}
            Finish::Gelu => elementwise::gelu(&mut out),
            Finish::Add(other) => out.iter_mut().zip(other).for_each(|(sum, x)| *sum += x),
        }
        out
    } else {
        let matrix = Matrix { panels: panels.as_deref(), ..matrix };
        product::product(Rows { data: x, stride: inputs }, rows, &matrix, finish)
    };
    Some(Tensor::from_data(TensorData::new(out, [rows, outputs]), &device))
}

/// Attention of queries that see every key, or where it is `causal` those up to their own place counted
/// from the end; none of others' operations if it returns none.
///
/// # Shapes
/// `query`: `[batch, heads, seq, head_dim]`; result: `[batch, seq, heads × head_dim]`.
pub(super) fn attention(query: &Tensor<4>, memory: &KeyValue, causal: bool) -> Option<Tensor<3>> {
    let device = query.device();
    let dims = query.dims();
    let [batch, heads, seq, head_dim] = dims;
    let [_, _, length, _] = memory.key.dims();
    if !on_cpu(&device) || memory.key.dims()[..2] != dims[..2] || (causal && seq > length) {
        return None;
    }
    let query = primitive(query)?;
    let (key, value) = (primitive(&memory.key)?, primitive(&memory.value)?);
    let scale = 1.0 / (head_dim as f32).sqrt();
    let query = of_heads(&query, dims)?;
    let key = of_heads(&key, memory.key.dims())?;
    let value = of_heads(&value, memory.value.dims())?;
    if seq <= MOST_ROWS && !causal {
        let out = few_rows::attention(query, key, value, scale);
        let out = Tensor::<4>::from_data(TensorData::new(out, dims), &device);
        return Some(out.swap_dims(1, 2).reshape([batch, seq, heads * head_dim]));
    }
    let (out, _) = attention::attention(query, key, value, scale, causal);
    Some(Tensor::from_data(TensorData::new(out, [batch, seq, heads * head_dim]), &device))
}

fn of_heads(tensor: &FloatTensor<Flex>, dims: [usize; 4]) -> Option<Heads<'_>> {
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
    use burn::tensor::{Bool, Device, Distribution, Tensor};

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
        for rows in [1, 2, 3, 7, 16, 40, 256, 301] {
            for (inputs, outputs) in [(1, 1), (5, 37), (64, 384), (67, 385), (768, 1000)] {
                let what = format!("{rows} × {inputs} × {outputs}");
                let (x, bias) = (random([rows, inputs]), random([outputs]));
                let added = Then::Add(random([1, rows, outputs]));
                for weight in [random([inputs, outputs]), random([outputs, inputs]).transpose()] {
                    let scale = 1.0 / (inputs as f64).sqrt();
                    let theirs = x.clone().matmul(weight.clone()).mul_scalar(scale);
                    let theirs = theirs + bias.clone().mul_scalar(scale).unsqueeze::<2>();
                    for kept in [None, Some(&KeptPanels::default())] {
                        let of = |bias, then| product_on_cpu(&x, &weight, bias, kept, then);
                        if kept.is_none() && rows == 40 {
                            assert!(of(None, &Then::Nothing).is_none(), "{what}");
                            continue;
                        }
                        let ours = of(Some(&bias), &Then::Nothing).expect("served");
                        assert_close(ours.clone().mul_scalar(scale), theirs.clone(), &what);
                        let sum = of(Some(&bias), &added).expect("served");
                        let Then::Add(added) = &added else { unreachable!() };
                        let expected = ours.clone() + added.clone().reshape([rows, outputs]);
                        assert_close(sum, expected, &what);
                        let gated = of(Some(&bias), &Then::Gelu).expect("served");
                        assert_close(gated, gelu(ours), &what);
                    }
                }
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        for weight in [random([768, 1000]), random([1000, 768]).transpose()] {
            for rows in [1, 3, 7, 300] {
                let x = random([rows, 768]);
                let on = |threads: usize| {
                    let pool =
                        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    pool.install(|| {
                        product_on_cpu(&x, &weight, None, None, &Then::Nothing)
                            .expect("served")
                            .into_data()
                    })
                };
                assert_eq!(on(1), on(3));
            }
        }
    }

    #[test]
    fn views_that_are_neither_row_by_row_nor_transposed_are_left_to_burn() {
        let weight = random([8, 12]).narrow(1, 2, 6);
        let kept = KeptPanels::default();
        for rows in [1, 8] {
            let x = random([rows, 8]);
            assert!(product_on_cpu(&x, &weight, None, Some(&kept), &Then::Nothing).is_none());
            let ours = product(x.clone(), weight.clone(), &kept);
            assert_close(ours, x.matmul(weight.clone()), "narrowed");
        }
    }

    #[test]
    fn a_matrix_that_is_kept_follows_its_weights() {
        let kept = KeptPanels::default();
        let x = random([9, 5]);
        for _ in 0..2 {
            let weight = random([5, 7]);
            for weight in [weight.clone(), weight.mul_scalar(2.0)] {
                let ours = product(x.clone(), weight.clone(), &kept);
                assert_close(ours, x.clone().matmul(weight), "kept");
            }
        }
    }

    #[test]
    fn rows_of_a_cache_change_places_as_by_selecting() {
        let (rows, length) = ([2, 0, 2, 5, 4, 3], 3);
        let cache = random([6, 2, 4, 5]);
        let index = Tensor::<1, Int>::from_data([2, 0, 2, 5, 4, 3], &Device::flex());
        let expected = cache.clone().select(0, index).narrow(2, 0, length);
        let held = cache.clone();
        let ours = reordered(cache, &rows, length).narrow(2, 0, length);
        ours.into_data().assert_eq(&expected.into_data(), true);
        // What others hold stays as it was.
        let first = reordered(held.clone(), &[0, 1, 2, 3, 4, 5], length);
        first.into_data().assert_eq(&held.into_data(), true);
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
        for (batch, heads, seq, length, head_dim) in [
            (1, 1, 1, 1, 1),
            (2, 3, 1, 7, 5),
            (1, 12, 3, 577, 64),
            (3, 2, 16, 33, 24),
            (2, 3, 17, 17, 8),
            (1, 2, 197, 785, 64),
            (2, 2, 49, 60, 33),
        ] {
            let what = format!("{batch} × {heads} × {seq} × {length} × {head_dim}");
            let query = random([batch, seq, heads, head_dim]).swap_dims(1, 2);
            // As a cache that has room for more.
            let kept = |tensor: Tensor<4>| tensor.narrow(2, 0, length);
            let memory = KeyValue {
                key: kept(random([batch, heads, length + 3, head_dim])),
                value: kept(random([batch, heads, length + 3, head_dim])),
            };
            for causal in [false, true] {
                let ours = attention(&query, &memory, causal).expect("served");
                let scale = 1.0 / (head_dim as f64).sqrt();
                let scores = query.clone().matmul(memory.key.clone().transpose());
                let mut scores = scores.mul_scalar(scale);
                if causal {
                    let hidden: Vec<bool> = (0..seq * length)
                        .map(|at| at % length > length - seq + at / length)
                        .collect();
                    let hidden = TensorData::new(hidden, [1, 1, seq, length]);
                    let hidden = Tensor::<4, Bool>::from_data(hidden, &Device::flex());
                    scores = scores.mask_fill(hidden, f32::NEG_INFINITY);
                }
                let weights = activation::softmax(scores, 3);
                let theirs = weights.matmul(memory.value.clone()).swap_dims(1, 2);
                let theirs = theirs.reshape([batch, seq, heads * head_dim]);
                assert_close(ours, theirs, &what);
            }
        }
    }

    #[test]
    fn attention_and_its_gradients_are_those_of_burn() {
        let device = Device::flex().autodiff();
        for (batch, heads, seq, length, head_dim) in
            [(1, 1, 1, 1, 1), (2, 3, 9, 9, 8), (2, 2, 100, 131, 24), (1, 2, 200, 200, 64)]
        {
            let dims = [[batch, seq, heads, head_dim], [batch, length, heads, head_dim]];
            let inputs = [random(dims[0]), random(dims[1]), random(dims[1])];
            let along = random([batch, seq, heads * head_dim]);
            for causal in [false, true] {
                let of = |fused: bool| {
                    let leaves = inputs.clone().map(|x| Tensor::from_inner(x).require_grad());
                    let [query, key, value] = leaves.clone().map(|x| x.swap_dims(1, 2));
                    let memory = KeyValue { key, value };
                    let out = if fused {
                        attention_with_gradients(&query, &memory, causal).expect("served")
                    } else {
                        let scale = 1.0 / (head_dim as f64).sqrt();
                        let mut scores = query.matmul(memory.key.transpose()).mul_scalar(scale);
                        if causal {
                            let hidden: Vec<bool> = (0..seq * length)
                                .map(|at| at % length > length - seq + at / length)
                                .collect();
                            let hidden = TensorData::new(hidden, [1, 1, seq, length]);
                            let hidden = Tensor::<4, Bool>::from_data(hidden, &device);
                            scores = scores.mask_fill(hidden, f32::NEG_INFINITY);
                        }
                        let out = activation::softmax(scores, 3).matmul(memory.value);
                        out.swap_dims(1, 2).reshape([batch, seq, heads * head_dim])
                    };
                    let loss = (out.clone() * Tensor::from_inner(along.clone())).sum();
                    let gradients = loss.backward();
                    (out.inner(), leaves.map(|leaf| leaf.grad(&gradients).expect("tracked")))
                };
                let ((ours, our_gradients), (theirs, their_gradients)) = (of(true), of(false));
                let what = format!("{batch} × {heads} × {seq} × {length} × {head_dim}");
                assert_close(ours, theirs, &what);
                for (ours, theirs) in our_gradients.into_iter().zip(their_gradients) {
                    assert_close(ours, theirs, &format!("gradient of {what}"));
                }
            }
        }
    }

    #[test]
    fn attention_is_the_same_on_any_number_of_threads() {
        let memory = KeyValue { key: random([1, 2, 300, 16]), value: random([1, 2, 300, 16]) };
        let query = random([1, 2, 300, 16]);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| attention(&query, &memory, false).expect("served").into_data())
        };
        assert_eq!(on(1), on(7));
    }
}
