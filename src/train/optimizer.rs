//! AdamW with a global-norm clip and an exponential moving average of the weights.
//!
//! On the CPU each parameter is updated by one pass over host memory; elsewhere by tensor operations
//! that never wait for the device. Both compute the same numbers (tested).

use std::collections::BTreeMap;

use burn::module::{Module, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::checkpoint::tensors::{HostTensor, HostTensors};
use crate::model::{
    MapParameters, ParameterPath, ParameterRole, VisitParameters, map_parameters, visit_parameters,
};

/// AdamW (Loshchilov & Hutter 2019, <https://arxiv.org/abs/1711.05101>); defaults are PyTorch's
/// except for weight decay and beta 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Decay rate of the first moment, in `[0, 1)`.
    pub beta_1: f64,
    /// Decay rate of the second moment, in `[0, 1)`.
    pub beta_2: f64,
    /// Added to the root of the second moment; positive.
    pub epsilon: f64,
    /// Decoupled weight decay of matrices; biases, norms and embeddings have none.
    pub weight_decay: f64,
    /// Largest global norm of the gradients; 0 = no clipping.
    pub clip_norm: f64,
    /// Decay of the moving average of weights that is evaluated and saved; 0 = none. Warmed up as
    /// `min(ema_decay, (1 + step) / (10 + step))`.
    pub ema_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            beta_1: 0.9,
            beta_2: 0.98,
            epsilon: 1e-8,
            weight_decay: 0.05,
            clip_norm: 1.0,
            ema_decay: 0.0,
        }
    }
}

/// Moments of one parameter, flat.
#[derive(Debug, Clone)]
struct Slot {
    first: Tensor<1>,
    second: Tensor<1>,
    average: Option<Tensor<1>>,
}

/// The optimizer and its state.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    slots: BTreeMap<String, Slot>,
    steps: u64,
}

/// Numbers of one update, the same for every parameter.
#[derive(Clone, Copy)]
struct Update {
    beta_1: f32,
    beta_2: f32,
    epsilon: f32,
    decay: f32,
    /// Learning rate over the first moment's bias correction.
    rate: f32,
    /// One over the root of the second moment's bias correction.
    second_scale: f32,
    ema: f32,
}

impl AdamW {
    /// An optimizer that has taken no step.
    pub fn new(config: &AdamWConfig) -> Self {
        Self { config: config.clone(), slots: BTreeMap::new(), steps: 0 }
    }

    /// Updates every parameter that has a gradient; returns the model and, where it was at hand
    /// without waiting, the global norm of the gradients before clipping.
    ///
    /// `rate_of` gives the learning rate of a parameter by its path.
    pub fn step<M: Module>(
        &mut self,
        model: M,
        grads: GradientsParams,
        rate_of: &dyn Fn(&str) -> f64,
    ) -> (M, Option<f64>) {
        self.steps += 1;
        let device = model.devices().first().cloned().unwrap_or_else(Device::flex);
        let on_host = device == Device::flex();
        let mut taken = Gradients { grads, flat: BTreeMap::new() };
        visit_parameters(&model, &mut taken);
        let (scale, norm) = if on_host {
            let norm = taken.host_norm();
            let clip = self.config.clip_norm;
            let scale = if clip > 0.0 && norm > clip { clip / norm } else { 1.0 };
            (Scale::Host(scale as f32), Some(norm))
        } else {
            (taken.device_scale(self.config.clip_norm), None)
        };
        let mut mapper = Stepper { grads: taken.flat, scale, rate_of, optimizer: self };
        (map_parameters(model, &mut mapper), norm)
    }

    fn update(&self, role: ParameterRole, rate: f64) -> Update {
        let AdamWConfig { beta_1, beta_2, epsilon, weight_decay, ema_decay, .. } = self.config;
        let steps = self.steps as f64;
        let decayed = matches!(
            role,
            ParameterRole::Matrix
                | ParameterRole::Convolution
                | ParameterRole::AdapterA
                | ParameterRole::AdapterB
        );
        Update {
            beta_1: beta_1 as f32,
            beta_2: beta_2 as f32,
            epsilon: epsilon as f32,
            decay: if decayed { (1.0 - rate * weight_decay) as f32 } else { 1.0 },
            rate: (rate / (1.0 - beta_1.powf(steps))) as f32,
            second_scale: (1.0 / (1.0 - beta_2.powf(steps)).sqrt()) as f32,
            ema: ema_decay.min((1.0 + steps) / (10.0 + steps)) as f32,
        }
    }

    /// The model with averaged weights, if an average is kept.
    pub fn averaged<M: Module>(&self, model: M) -> M {
        if self.config.ema_decay == 0.0 {
            return model;
        }
        map_parameters(model, &mut Averaged { slots: &self.slots })
    }

    /// Moments (and averages) by name, for a checkpoint: `first.PATH`, `second.PATH`,
    /// `average.PATH`.
    pub fn state(&self) -> HostTensors {
        let mut tensors = HostTensors::new();
        let mut put = |name: String, tensor: &Tensor<1>| {
            let shape = tensor.dims().to_vec();
            let values = tensor.clone().try_into_vec_as::<f32>().unwrap_or_default();
            tensors.insert(name, HostTensor { shape, values });
        };
        for (path, slot) in &self.slots {
            put(format!("first.{path}"), &slot.first);
            put(format!("second.{path}"), &slot.second);
            if let Some(average) = &slot.average {
                put(format!("average.{path}"), average);
            }
        }
        tensors
    }

    /// Restores what [`Self::state`] gave after `steps` steps. Tensors that belong to no whole slot
    /// are returned by name.
    pub fn restore(&mut self, tensors: HostTensors, steps: u64, device: &Device) -> Vec<String> {
        let device = device.clone().inner();
        let mut firsts = BTreeMap::new();
        let mut seconds = BTreeMap::new();
        let mut averages = BTreeMap::new();
        let mut left_over = Vec::new();
        for (name, host) in tensors {
            let length = host.values.len();
            let tensor = Tensor::<1>::from_data(TensorData::new(host.values, [length]), &device);
            match name.split_once('.') {
                Some(("first", path)) => drop(firsts.insert(path.to_string(), tensor)),
                Some(("second", path)) => drop(seconds.insert(path.to_string(), tensor)),
                Some(("average", path)) => drop(averages.insert(path.to_string(), tensor)),
                _ => left_over.push(name),
            }
        }
        self.steps = steps;
        self.slots.clear();
        for (path, first) in firsts {
            match seconds.remove(&path) {
                Some(second) => {
                    let average = averages.remove(&path);
                    self.slots.insert(path, Slot { first, second, average });
                }
                None => left_over.push(format!("first.{path}")),
            }
        }
        left_over.extend(seconds.into_keys().map(|path| format!("second.{path}")));
        left_over.extend(averages.into_keys().map(|path| format!("average.{path}")));
        left_over
    }
}

/// What gradients are multiplied by.
#[allow(clippy::large_enum_variant, reason = "one a step, never in a collection")]
enum Scale {
    Host(f32),
    /// One element, on the device.
    Device(Tensor<1>),
}

/// Takes every gradient out of its container, flat and by path.
struct Gradients {
    grads: GradientsParams,
    flat: BTreeMap<String, Tensor<1>>,
}

impl VisitParameters for Gradients {
    fn visit<const D: usize>(&mut self, path: &ParameterPath, param: &Param<Tensor<D>>) {
        let id: ParamId = param.id;
        if let Some(grad) = self.grads.remove::<D>(id) {
            let length = grad.dims().iter().product::<usize>();
            self.flat.insert(path.dotted(), grad.reshape([length]));
        }
    }
}

impl Gradients {
    /// Global norm, summed in f64 in a fixed order. Leaves the gradients in place.
    fn host_norm(&mut self) -> f64 {
        let mut sum = 0.0;
        for grad in self.flat.values_mut() {
            grad.inplace(|grad| {
                let data = grad.into_data();
                if let Ok(values) = data.as_slice::<f32>() {
                    // Chunks of fixed size: the order of additions does not depend on threads.
                    let parts: Vec<f64> = values
                        .par_chunks(1 << 14)
                        .map(|chunk| chunk.iter().map(|&g| f64::from(g) * f64::from(g)).sum())
                        .collect();
                    sum += parts.iter().sum::<f64>();
                }
                Tensor::from_data(data, &Device::flex())
            });
        }
        sum.sqrt()
    }

    fn device_scale(&self, clip: f64) -> Scale {
        if clip == 0.0 || self.flat.is_empty() {
            return Scale::Host(1.0);
        }
        let squares = self.flat.values().map(|grad| grad.clone().square().sum()).collect();
        let norm = Tensor::cat(squares, 0).sum().sqrt();
        Scale::Device(norm.add_scalar(1e-12).recip().mul_scalar(clip).clamp_max(1.0))
    }
}

struct Stepper<'a> {
    grads: BTreeMap<String, Tensor<1>>,
    scale: Scale,
    rate_of: &'a dyn Fn(&str) -> f64,
    optimizer: &'a mut AdamW,
}

impl MapParameters for Stepper<'_> {
    fn map<const D: usize>(
        &mut self,
        path: &ParameterPath,
        param: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        let role = path.role(D);
        let path = path.dotted();
        let Some(grad) = self.grads.remove(&path) else { return param };
        let update = self.optimizer.update(role, (self.rate_of)(&path));
        let slot = self.optimizer.slots.remove(&path);
        let keeps_average = self.optimizer.config.ema_decay > 0.0;
        let mut kept = None;
        let param = param.map(|tensor| {
            let dims = tensor.dims();
            let inner = tensor.inner();
            let length: usize = dims.iter().product();
            let flat = inner.reshape([length]);
            let slot = slot.unwrap_or_else(|| Slot {
                first: flat.zeros_like(),
                second: flat.zeros_like(),
                average: keeps_average.then(|| flat.clone()),
            });
            let (flat, slot) = match &self.scale {
                Scale::Host(scale) if flat.device() == Device::flex() => {
                    update_on_host(flat, grad, slot, update, *scale)
                }
                Scale::Host(scale) => update_on_device(flat, grad.mul_scalar(*scale), slot, update),
                Scale::Device(scale) => update_on_device(flat, grad * scale.clone(), slot, update),
            };
            kept = Some(slot);
            Tensor::from_inner(flat.reshape(dims)).require_grad()
        });
        if let Some(slot) = kept {
            self.optimizer.slots.insert(path, slot);
        }
        param
    }
}

fn update_on_device(
    tensor: Tensor<1>,
    grad: Tensor<1>,
    slot: Slot,
    update: Update,
) -> (Tensor<1>, Slot) {
    let first = slot.first * update.beta_1 + grad.clone() * (1.0 - update.beta_1);
    let second = slot.second * update.beta_2 + grad.square() * (1.0 - update.beta_2);
    let root = second.clone().sqrt() * update.second_scale + update.epsilon;
    let tensor = tensor * update.decay - first.clone() / root * update.rate;
    let average =
        slot.average.map(|average| average * update.ema + tensor.clone() * (1.0 - update.ema));
    (tensor, Slot { first, second, average })
}

/// The same in one pass over memory, in place where nobody else holds it.
fn update_on_host(
    tensor: Tensor<1>,
    grad: Tensor<1>,
    slot: Slot,
    update: Update,
    scale: f32,
) -> (Tensor<1>, Slot) {
    let device = tensor.device();
    let mut tensor = tensor.into_data();
    let grad = grad.into_data();
    let mut first = slot.first.into_data();
    let mut second = slot.second.into_data();
    let mut average = slot.average.map(Tensor::into_data);
    const CHUNK: usize = 1 << 14;
    if let (Ok(w), Ok(g), Ok(m), Ok(v)) = (
        tensor.as_mut_slice::<f32>(),
        grad.as_slice::<f32>(),
        first.as_mut_slice::<f32>(),
        second.as_mut_slice::<f32>(),
    ) {
        w.par_chunks_mut(CHUNK)
            .zip(g.par_chunks(CHUNK))
            .zip(m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK)))
            .for_each(|((w, g), (m, v))| {
                for (((w, g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
                    let g = g * scale;
                    *m = *m * update.beta_1 + g * (1.0 - update.beta_1);
                    *v = *v * update.beta_2 + g * g * (1.0 - update.beta_2);
                    let root = v.sqrt() * update.second_scale + update.epsilon;
                    *w = *w * update.decay - *m / root * update.rate;
                }
            });
        if let Some(Ok(average)) = average.as_mut().map(|data| data.as_mut_slice::<f32>()) {
            average.par_chunks_mut(CHUNK).zip(w.par_chunks(CHUNK)).for_each(|(average, w)| {
                for (average, w) in average.iter_mut().zip(w) {
                    *average = *average * update.ema + w * (1.0 - update.ema);
                }
            });
        }
    }
    let back = |data: TensorData| Tensor::from_data(data, &device);
    let slot = Slot { first: back(first), second: back(second), average: average.map(back) };
    (back(tensor), slot)
}

struct Averaged<'a> {
    slots: &'a BTreeMap<String, Slot>,
}

impl MapParameters for Averaged<'_> {
    fn map<const D: usize>(
        &mut self,
        path: &ParameterPath,
        param: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        let slot = self.slots.get(&path.dotted());
        let Some(average) = slot.and_then(|slot| slot.average.clone()) else { return param };
        param.map(|tensor| {
            let dims = tensor.dims();
            let average = average.reshape(dims);
            // A model for inference lives on the plain device, one in training on autodiff's.
            if tensor.device().is_autodiff() { Tensor::from_inner(average) } else { average }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(values: [f32; 4]) -> Slot {
        let device = Device::flex();
        Slot {
            first: Tensor::from_floats(values, &device),
            second: Tensor::from_floats(values.map(|v| v * v), &device),
            average: Some(Tensor::from_floats(values, &device)),
        }
    }

    fn values(tensor: &Tensor<1>) -> Vec<f32> {
        tensor.clone().try_into_vec_as::<f32>().unwrap()
    }

    #[test]
    fn host_and_device_updates_agree() {
        let device = Device::flex();
        let mut optimizer = AdamW::new(&AdamWConfig { ema_decay: 0.9, ..Default::default() });
        optimizer.steps = 3;
        let update = optimizer.update(ParameterRole::Matrix, 0.01);
        let weights = Tensor::from_floats([0.5, -1.0, 2.0, 0.0], &device);
        let grad = Tensor::from_floats([0.1, -0.2, 0.3, 4.0], &device);
        let start = slot([0.01, 0.02, -0.03, 0.5]);
        let (host, host_slot) =
            update_on_host(weights.clone(), grad.clone(), start.clone(), update, 0.5);
        let (on_device, device_slot) = update_on_device(weights, grad * 0.5, start, update);
        for (a, b) in [
            (&host, &on_device),
            (&host_slot.first, &device_slot.first),
            (&host_slot.second, &device_slot.second),
            (host_slot.average.as_ref().unwrap(), device_slot.average.as_ref().unwrap()),
        ] {
            for (a, b) in values(a).iter().zip(values(b)) {
                assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{a} is not {b}");
            }
        }
    }

    /// torch 2: `p = torch.tensor([1., -2.])`, AdamW(lr=.1, betas=(.9,.98), eps=1e-8,
    /// weight_decay=.05), gradients [.5, -.25] then [-.1, .3], worked by hand from the paper.
    #[test]
    fn two_steps_match_the_paper() {
        let mut optimizer = AdamW::new(&AdamWConfig { clip_norm: 0.0, ..Default::default() });
        let device = Device::flex();
        let mut weights = Tensor::<1>::from_floats([1.0, -2.0], &device);
        let mut slot =
            Slot { first: weights.zeros_like(), second: weights.zeros_like(), average: None };
        let mut expected = [1.0f64, -2.0];
        let (mut m, mut v) = ([0.0f64; 2], [0.0f64; 2]);
        for (step, grad) in [[0.5f64, -0.25], [-0.1, 0.3]].into_iter().enumerate() {
            optimizer.steps += 1;
            let update = optimizer.update(ParameterRole::Matrix, 0.1);
            let flat = Tensor::from_floats(grad.map(|g| g as f32), &device);
            (weights, slot) = update_on_host(weights, flat, slot, update, 1.0);
            let t = step as i32 + 1;
            for i in 0..2 {
                m[i] = 0.9 * m[i] + 0.1 * grad[i];
                v[i] = 0.98 * v[i] + 0.02 * grad[i] * grad[i];
                let m_hat = m[i] / (1.0 - 0.9f64.powi(t));
                let v_hat = v[i] / (1.0 - 0.98f64.powi(t));
                expected[i] -= 0.1 * 0.05 * expected[i];
                expected[i] -= 0.1 * m_hat / (v_hat.sqrt() + 1e-8);
            }
        }
        for (found, expected) in values(&weights).iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn biases_norms_and_embeddings_do_not_decay() {
        let optimizer = AdamW::new(&AdamWConfig::default());
        let decay = |name: &str, rank: usize| {
            optimizer.update(ParameterPath::from(name).role(rank), 0.1).decay
        };
        assert!(decay("decoder.layers.0.query.weight", 2) < 1.0);
        assert!(decay("decoder.layers.0.query.weight.lora.a", 2) < 1.0);
        assert_eq!(decay("decoder.token_embedding", 2), 1.0);
        assert_eq!(decay("encoder.prefix_tokens", 2), 1.0);
        assert_eq!(decay("x.query.bias", 1), 1.0);
    }
}
