//! Kernels with gradients, as operations of Burn's autodiff.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{DType, Tensor, TensorData};

use super::attention_gradients::{Forward, gradients};
use super::{attention, is_cpu, of_heads};
use crate::model::attention::KeyValue;

/// [`super::attention`] with gradients, if it is on the CPU and in f32.
///
/// # Shapes
/// As there.
pub(in crate::model) fn attention_with_gradients(
    query: &Tensor<4>,
    memory: &KeyValue,
    causal: bool,
) -> Option<Tensor<3>> {
    let dims = query.dims();
    let [batch, heads, seq, head_dim] = dims;
    let [_, _, length, _] = memory.key.dims();
    let device = query.device();
    if !device.is_autodiff() || !is_cpu(&device) || memory.key.dims()[..2] != dims[..2] {
        return None;
    }
    if [batch, heads, seq, head_dim, length].contains(&0) || (causal && seq > length) {
        return None;
    }
    let of = |tensor: &Tensor<4>| tensor.clone().try_into_primitive::<Autodiff<Flex>>().ok();
    let (query, key, value) = (of(query)?, of(&memory.key)?, of(&memory.value)?);
    let scale = 1.0 / (head_dim as f32).sqrt();
    let kept = Kept {
        query: rows_whole(query.primitive())?,
        key: rows_whole(key.primitive())?,
        value: rows_whole(value.primitive())?,
        dims: [dims, memory.key.dims()],
        scale,
        causal,
        out: Vec::new(),
        logarithms: Vec::new(),
    };
    let (out, logarithms) = attention::attention(
        of_heads(&kept.query, dims)?,
        of_heads(&kept.key, kept.dims[1])?,
        of_heads(&kept.value, kept.dims[1])?,
        scale,
        causal,
    );
    let shape = [batch, seq, heads * head_dim];
    let result = flex(out.clone(), shape)?;
    let nodes = [query.node(), key.node(), value.node()];
    let result = match Attend.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(Kept { out, logarithms, ..kept }, result),
        OpsKind::UnTracked(prep) => prep.finish(result),
    };
    Some(Tensor::from_primitive::<Autodiff<Flex>>(result))
}

/// The same with the elements of a row side by side, if it is of f32.
fn rows_whole(tensor: &FloatTensor<Flex>) -> Option<FloatTensor<Flex>> {
    if tensor.dtype() != DType::F32 {
        return None;
    }
    let whole = tensor.layout().strides().last() == Some(&1);
    Some(if whole { tensor.clone() } else { tensor.to_contiguous() })
}

fn flex<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Option<FloatTensor<Flex>> {
    let data = TensorData::new(values, shape);
    Tensor::<D>::from_data(data, &burn::tensor::Device::flex()).try_into_primitive::<Flex>().ok()
}

#[derive(Debug)]
struct Attend;

/// What the backward pass reads.
#[derive(Clone, Debug)]
struct Kept {
    query: FloatTensor<Flex>,
    key: FloatTensor<Flex>,
    value: FloatTensor<Flex>,
    /// Of queries and of keys.
    dims: [[usize; 4]; 2],
    scale: f32,
    causal: bool,
    out: Vec<f32>,
    logarithms: Vec<f32>,
}

impl Kept {
    fn gradients(&self, of_out: &FloatTensor<Flex>) -> Option<[FloatTensor<Flex>; 3]> {
        let [of_query, of_key] = self.dims;
        let forward = Forward {
            query: of_heads(&self.query, of_query)?,
            key: of_heads(&self.key, of_key)?,
            value: of_heads(&self.value, of_key)?,
            scale: self.scale,
            causal: self.causal,
            out: &self.out,
            logarithms: &self.logarithms,
        };
        let [query, key, value] = gradients(forward, of_out.to_contiguous().as_slice()?);
        Some([flex(query, of_query)?, flex(key, of_key)?, flex(value, of_key)?])
    }
}

impl Backward<Flex, 3> for Attend {
    type State = Kept;

    fn backward(self, ops: Ops<Kept, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let of_out = grads.consume::<Flex>(&ops.node);
        // The forward pass made the same views of the same tensors, so there are gradients.
        let Some(gradients) = ops.state.gradients(&of_out) else { return };
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<Flex>(parent.id, gradient);
            }
        }
    }
}
