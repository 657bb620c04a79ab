//! Low-rank adapters in a file beside the weights that they adapt (`adapter.safetensors`), added to them
//! when a checkpoint is read.
//!
//! For a matrix `X` of `[in, out]` the file holds `X.lora.a`, `[in, rank]`, and `X.lora.b`,
//! `[rank, out]`, the scale `alpha / rank` within `b`: the model's matrix is `X + a·b`. Its metadata say
//! `rank` and `alpha`.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};

use super::tensors::{self, HostTensor, HostTensors};
use super::weight_file::WeightFile;
use super::{CheckpointError, Contents, peft, transformers};
use crate::model::{Captioner, MapParameters, ParameterPath, map_parameters};

/// The file's name.
pub const FILE: &str = "adapter.safetensors";

/// Whether a parameter of this name is part of an adapter.
pub fn belongs_to_one(name: &str) -> bool {
    name.ends_with(".lora.a") || name.ends_with(".lora.b")
}

/// Writes adapters into a checkpoint folder; of a model that transformers has a class for, in peft's form
/// too, whose config names `base` as what it adapts.
///
/// # Errors
/// The file that could not be written.
pub fn write(
    folder: &Path,
    adapters: &HostTensors,
    (rank, alpha): (usize, f64),
    contents: &Contents,
    base: Option<&Path>,
) -> Result<(), CheckpointError> {
    let scale = alpha / rank as f64;
    let scaled = adapters.iter().map(|(name, tensor)| {
        let factor = if name.ends_with(".b") { scale as f32 } else { 1.0 };
        let values = tensor.values.iter().map(|value| value * factor).collect();
        (name.clone(), HostTensor { shape: tensor.shape.clone(), values })
    });
    let metadata = [("rank", rank.to_string()), ("alpha", alpha.to_string())];
    let metadata: BTreeMap<String, String> =
        metadata.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
    let scaled: HostTensors = scaled.collect();
    if let Some(modules) = transformers::public_factors(&scaled, contents) {
        peft::write(folder, &modules, base)?;
    }
    tensors::write(&folder.join(FILE), &scaled, metadata)
}

/// Adds the adapters beside a checkpoint's weights, if there are any, to `model`.
///
/// # Errors
/// A file that cannot be read, or an adapter of another shape than what it adapts, by name.
pub fn add(folder: &Path, model: Captioner) -> Result<Captioner, CheckpointError> {
    let file = folder.join(FILE);
    if !file.is_file() {
        return Ok(model);
    }
    add_factors(model, WeightFile::open(&file)?.read_all()?, &file)
}

/// Adds low-rank factors, `X.lora.a` and `X.lora.b`, to what they adapt; `file` is what errors name.
///
/// # Errors
/// A factor of another shape than what it adapts, or of nothing in the model, by name.
pub(super) fn add_factors(
    model: Captioner,
    adapters: HostTensors,
    file: &Path,
) -> Result<Captioner, CheckpointError> {
    let mut mapper = Add { adapters, file, error: None };
    let model = map_parameters(model, &mut mapper);
    if let Some(error) = mapper.error {
        return Err(error);
    }
    match mapper.adapters.keys().next() {
        None => Ok(model),
        Some(tensor) => Err(CheckpointError::UnexpectedTensor {
            tensor: tensor.clone(),
            others: mapper.adapters.len() - 1,
            file: file.into(),
        }),
    }
}

struct Add<'a> {
    adapters: HostTensors,
    file: &'a Path,
    error: Option<CheckpointError>,
}

impl Add<'_> {
    /// `a·b` for the parameter at `path`, whose shape is `dims`.
    fn product(&mut self, path: &str, dims: &[usize], device: &Device) -> Option<Tensor<2>> {
        let mut factor = |name: &str, shape: &dyn Fn(usize) -> [usize; 2]| {
            let tensor = format!("{path}.lora.{name}");
            let HostTensor { shape: found, values } = self.adapters.remove(&tensor)?;
            let rank = if name == "a" { found.last() } else { found.first() };
            let expected = shape(rank.copied().unwrap_or_default());
            if found != expected {
                self.error = Some(CheckpointError::TensorShape {
                    file: self.file.into(),
                    tensor,
                    found,
                    expected: expected.into(),
                });
                return None;
            }
            Some((Tensor::<2>::from_data(TensorData::new(values, expected), device), expected))
        };
        let &[input, output] = dims else { return None };
        let (a, [_, rank]) = factor("a", &|rank| [input, rank])?;
        let (b, _) = factor("b", &|_| [rank, output])?;
        Some(a.matmul(b))
    }
}

impl MapParameters for Add<'_> {
    fn map<const D: usize>(
        &mut self,
        path: &ParameterPath,
        param: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        let dims: [usize; D] = param.lazy_shape().dims();
        match self.product(&path.dotted(), &dims, &param.lazy_device()) {
            Some(product) => param.map(|tensor| tensor + product.reshape(dims)),
            None => param,
        }
    }
}
