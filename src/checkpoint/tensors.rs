//! Weights as safetensors files: every tensor of the model accounted for, by name.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::CheckpointError;

/// A named f32 tensor on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Elements, row by row.
    pub values: Vec<f32>,
}

/// Tensors by name, in the order of their names.
pub type HostTensors = BTreeMap<String, HostTensor>;

/// Every parameter of a module, named by its path (`decoder.layers.0.cross_attention.query.weight`).
pub fn parameters<M: Module>(module: &M) -> HostTensors {
    let mut collector = Collector { path: Vec::new(), tensors: HostTensors::new() };
    module.visit(&mut collector);
    collector.tensors
}

struct Collector {
    path: Vec<String>,
    tensors: HostTensors,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let shape = tensor.dims().to_vec();
        let values = tensor.into_data_as::<f32>().into_vec_f32();
        self.tensors.insert(self.path.join("."), HostTensor { shape, values });
    }
}

/// Reading a tensor of known type.
trait IntoVecF32 {
    fn into_vec_f32(self) -> Vec<f32>;
}

impl IntoVecF32 for TensorData {
    fn into_vec_f32(self) -> Vec<f32> {
        // The data was converted to f32 just before: this cannot fail.
        self.try_into_vec::<f32>().unwrap_or_default()
    }
}

/// Gives every parameter of `module` its tensor of `tensors`.
///
/// # Errors
/// A tensor that is missing, left over or of another shape, by name; `origin` is the file named.
pub fn apply<M: Module>(
    module: M,
    tensors: HostTensors,
    origin: &Path,
) -> Result<M, CheckpointError> {
    let mut loader = Loader { path: Vec::new(), tensors, origin, error: None };
    let module = module.map(&mut loader);
    if let Some(error) = loader.error {
        return Err(error);
    }
    if let Some(name) = loader.tensors.keys().next() {
        return Err(CheckpointError::UnexpectedTensor {
            file: origin.into(),
            tensor: name.clone(),
            others: loader.tensors.len() - 1,
        });
    }
    Ok(module)
}

struct Loader<'a> {
    path: Vec<String>,
    tensors: HostTensors,
    origin: &'a Path,
    error: Option<CheckpointError>,
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return param;
        }
        let tensor = self.path.join(".");
        let expected: [usize; D] = param.lazy_shape().dims();
        let Some(host) = self.tensors.remove(&tensor) else {
            self.error = Some(CheckpointError::MissingTensor {
                file: self.origin.into(),
                tensor,
                shape: expected.to_vec(),
            });
            return param;
        };
        if host.shape != expected {
            self.error = Some(CheckpointError::TensorShape {
                file: self.origin.into(),
                tensor,
                found: host.shape,
                expected: expected.to_vec(),
            });
            return param;
        }
        let device = param.lazy_device();
        let tracked = param.is_require_grad();
        param.map(|_| {
            Tensor::from_data(TensorData::new(host.values, expected), &device)
                .set_require_grad(tracked)
        })
    }
}

/// Writes tensors as f32 safetensors with string metadata.
///
/// # Errors
/// The file that could not be written.
pub fn write(
    path: &Path,
    tensors: &HostTensors,
    metadata: BTreeMap<String, String>,
) -> Result<(), CheckpointError> {
    let bytes: Vec<(&String, Vec<u8>)> = tensors
        .iter()
        .map(|(name, tensor)| {
            (name, tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect())
        })
        .collect();
    let mut views = Vec::with_capacity(bytes.len());
    for ((name, bytes), tensor) in bytes.iter().zip(tensors.values()) {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)
            .map_err(|error| CheckpointError::tensors(path, error))?;
        views.push((name.as_str(), view));
    }
    let metadata = (!metadata.is_empty()).then(|| metadata.into_iter().collect());
    safetensors::serialize_to_file(views, metadata, path)
        .map_err(|error| CheckpointError::tensors(path, error))
}

/// Reads every tensor of a safetensors file as f32; f16 and bf16 are widened.
///
/// # Errors
/// A file that cannot be read, is damaged or cut, or holds a tensor of another type.
pub fn read(path: &Path) -> Result<HostTensors, CheckpointError> {
    let bytes = fs::read(path).map_err(|source| CheckpointError::io(path, source))?;
    let file =
        SafeTensors::deserialize(&bytes).map_err(|error| CheckpointError::tensors(path, error))?;
    let mut tensors = HostTensors::new();
    for (name, view) in file.iter() {
        let data = view.data();
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => {
                data.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
            }
            Dtype::F16 => data
                .as_chunks::<2>()
                .0
                .iter()
                .map(|&bytes| burn::tensor::f16::from_le_bytes(bytes).to_f32())
                .collect(),
            Dtype::BF16 => data
                .as_chunks::<2>()
                .0
                .iter()
                .map(|&bytes| burn::tensor::bf16::from_le_bytes(bytes).to_f32())
                .collect(),
            other => {
                return Err(CheckpointError::TensorType {
                    file: path.into(),
                    tensor: name.into(),
                    found: format!("{other:?}"),
                });
            }
        };
        tensors.insert(name.into(), HostTensor { shape: view.shape().to_vec(), values });
    }
    Ok(tensors)
}
