//! A model's parameters by name: given to it one after the other, every one accounted for, and written
//! as safetensors.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData, bf16, f16};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::CheckpointError;
use super::weight_file::{Dtype, WeightFile};
use crate::model::{
    MapParameters, ParameterPath, VisitParameters, map_parameters, visit_parameters,
};

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
    let mut collector = Collector(HostTensors::new());
    visit_parameters(module, &mut collector);
    collector.0
}

struct Collector(HostTensors);

impl VisitParameters for Collector {
    fn visit<const D: usize>(&mut self, path: &ParameterPath, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let shape = tensor.dims().to_vec();
        let values = tensor.into_data_as::<f32>().into_vec_f32();
        self.0.insert(path.dotted(), HostTensor { shape, values });
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

/// Where the parameters of a module come from.
pub trait ParameterSource {
    /// The names of the parameters there are.
    fn names(&self) -> Vec<String>;

    /// A parameter's dimensions, known before it is read.
    fn shape(&self, parameter: &str) -> Option<Vec<usize>>;

    /// Reads the elements of some parameters, each row by row.
    ///
    /// # Errors
    /// The first that cannot be read.
    fn take(&mut self, parameters: &[String]) -> Result<Vec<Vec<f32>>, CheckpointError>;

    /// For errors: the tensor that a parameter of shape `found` is made of, its own shape, and the one
    /// it would need for the parameter to be of shape `expected`.
    fn public(
        &self,
        parameter: &str,
        found: Vec<usize>,
        expected: Vec<usize>,
    ) -> (String, Vec<usize>, Vec<usize>) {
        (parameter.into(), found, expected)
    }
}

impl ParameterSource for HostTensors {
    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }

    fn shape(&self, parameter: &str) -> Option<Vec<usize>> {
        self.get(parameter).map(|tensor| tensor.shape.clone())
    }

    fn take(&mut self, parameters: &[String]) -> Result<Vec<Vec<f32>>, CheckpointError> {
        let values = |name| self.remove(name).map(|tensor| tensor.values).unwrap_or_default();
        Ok(parameters.iter().map(values).collect())
    }
}

impl ParameterSource for WeightFile {
    fn names(&self) -> Vec<String> {
        let today = |name: &str| match name {
            FORMER_PREFIX_TOKENS => PREFIX_TOKENS.into(),
            name => name.into(),
        };
        WeightFile::names(self).map(today).collect()
    }

    fn shape(&self, parameter: &str) -> Option<Vec<usize>> {
        WeightFile::shape(self, stored(self, parameter)).map(<[usize]>::to_vec)
    }

    fn take(&mut self, parameters: &[String]) -> Result<Vec<Vec<f32>>, CheckpointError> {
        side_by_side(parameters, |name| Ok(self.read(stored(self, name))?.values))
    }
}

const PREFIX_TOKENS: &str = "encoder.prefix_tokens";
/// What files of earlier versions call them.
const FORMER_PREFIX_TOKENS: &str = "encoder.class_token";

/// The name that a file of ours, of any version, has for a parameter.
fn stored<'a>(file: &WeightFile, parameter: &'a str) -> &'a str {
    match parameter {
        PREFIX_TOKENS if WeightFile::shape(file, PREFIX_TOKENS).is_none() => FORMER_PREFIX_TOKENS,
        name => name,
    }
}

/// Reads parameters on threads: most of the time goes into taking memory that is new.
pub(super) fn side_by_side(
    parameters: &[String],
    read: impl Fn(&str) -> Result<Vec<f32>, CheckpointError> + Sync,
) -> Result<Vec<Vec<f32>>, CheckpointError> {
    let read: Vec<_> = parameters.par_iter().map(|name| read(name)).collect();
    read.into_iter().collect()
}

/// Elements that are read together.
const READ_TOGETHER: usize = 1 << 23;

/// Gives every parameter of `module` its tensor of `source`. Names and shapes are compared before any
/// is read, and a parameter's initial values are never made.
///
/// # Errors
/// A tensor that is missing, left over, of another shape or cannot be read, by name; `origin` is the
/// file named.
pub fn apply<M: Module>(
    module: M,
    source: impl ParameterSource,
    origin: &Path,
) -> Result<M, CheckpointError> {
    let left = source.names().into_iter().collect();
    let order = VecDeque::new();
    let mut check = Check { source: &source, left, order, origin, error: None };
    visit_parameters(&module, &mut check);
    if let Some(error) = check.error {
        return Err(error);
    }
    if let Some(name) = check.left.first() {
        return Err(CheckpointError::UnexpectedTensor {
            file: origin.into(),
            tensor: name.clone(),
            others: check.left.len() - 1,
        });
    }
    let (left, read) = (check.order, VecDeque::new());
    let mut loader = Loader { source, left, read, error: None };
    let module = map_parameters(module, &mut loader);
    match loader.error {
        Some(error) => Err(error),
        None => Ok(module),
    }
}

/// Compares names and shapes.
struct Check<'a, S> {
    source: &'a S,
    left: BTreeSet<String>,
    /// Names and numbers of elements of the module's parameters.
    order: VecDeque<(String, usize)>,
    origin: &'a Path,
    error: Option<CheckpointError>,
}

impl<S: ParameterSource> VisitParameters for Check<'_, S> {
    fn visit<const D: usize>(&mut self, path: &ParameterPath, param: &Param<Tensor<D>>) {
        if self.error.is_some() {
            return;
        }
        let tensor = path.dotted();
        let expected: Vec<usize> = param.lazy_shape().dims::<D>().to_vec();
        let file = self.origin.to_path_buf();
        self.left.remove(&tensor);
        match self.source.shape(&tensor) {
            None => {
                self.error = Some(CheckpointError::MissingTensor { file, tensor, shape: expected });
            }
            Some(found) if found != expected => {
                let (tensor, found, expected) = self.source.public(&tensor, found, expected);
                self.error = Some(CheckpointError::TensorShape { file, tensor, found, expected });
            }
            Some(_) => self.order.push_back((tensor, expected.iter().product())),
        }
    }
}

/// Reads what was found to fit.
struct Loader<S> {
    source: S,
    /// Names and numbers of elements of what is to be read.
    left: VecDeque<(String, usize)>,
    /// What was read and is still to be put in its place.
    read: VecDeque<Vec<f32>>,
    error: Option<CheckpointError>,
}

impl<S: ParameterSource> Loader<S> {
    fn next(&mut self) -> Result<Vec<f32>, CheckpointError> {
        if self.read.is_empty() {
            let (mut names, mut sum) = (Vec::new(), 0);
            while sum < READ_TOGETHER
                && let Some((name, elements)) = self.left.pop_front()
            {
                names.push(name);
                sum += elements;
            }
            self.read = self.source.take(&names)?.into();
        }
        // The check has seen every parameter that comes by.
        Ok(self.read.pop_front().unwrap_or_default())
    }
}

impl<S: ParameterSource> MapParameters for Loader<S> {
    fn map<const D: usize>(
        &mut self,
        _path: &ParameterPath,
        param: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return param;
        }
        let shape: [usize; D] = param.lazy_shape().dims();
        match self.next() {
            Ok(values) => {
                let (id, device) = (param.id, param.lazy_device());
                let tensor = Tensor::from_data(TensorData::new(values, shape), &device);
                param.transform_for_load(tensor, id)
            }
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}

/// Floats in the form that weights are saved in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SavedType {
    /// 4 bytes.
    F32,
    /// 2 bytes; up to 65504, about 3 digits.
    F16,
    /// 2 bytes; the range of f32, about 2 digits.
    Bf16,
}

impl SavedType {
    /// As safetensors names it.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
        }
    }

    /// The bytes of `values`, little-endian; none where one is beyond the range.
    pub fn encode(self, values: &[f32]) -> Option<Vec<u8>> {
        Some(match self {
            Self::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Bf16 => {
                values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect()
            }
            Self::F16 => {
                let mut bytes = Vec::with_capacity(values.len() * 2);
                for &value in values {
                    let narrow = f16::from_f32(value);
                    if narrow.is_infinite() && value.is_finite() {
                        return None;
                    }
                    bytes.extend(narrow.to_le_bytes());
                }
                bytes
            }
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
    write_as(path, tensors, SavedType::F32, metadata)
}

/// Writes tensors as safetensors with string metadata.
///
/// # Errors
/// The file that could not be written, or the tensor with a value that `saved` cannot hold.
pub fn write_as(
    path: &Path,
    tensors: &HostTensors,
    saved: SavedType,
    metadata: BTreeMap<String, String>,
) -> Result<(), CheckpointError> {
    let table = tensors
        .iter()
        .map(|(name, tensor)| TableEntry {
            name: name.clone(),
            dtype: saved.dtype(),
            shape: tensor.shape.clone(),
        })
        .collect::<Vec<_>>();
    write_each(path, &table, metadata, |name| {
        let values = tensors.get(name).map(|tensor| tensor.values.as_slice()).unwrap_or_default();
        saved.encode(values).ok_or_else(|| beyond_f16(path, name))
    })
}

/// The error of a weight that f16 cannot hold.
pub(super) fn beyond_f16(file: &Path, tensor: &str) -> CheckpointError {
    CheckpointError::Invalid {
        file: file.into(),
        problem: format!("tensor `{tensor}` holds values beyond 65504, the most of f16; use bf16"),
    }
}

/// A tensor that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEntry {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its dimensions, outermost first.
    pub shape: Vec<usize>,
}

/// Writes a safetensors file whose tensors `bytes` makes one after the other, so that no more than one
/// is in memory.
///
/// # Errors
/// The file that could not be written, or an error of `bytes`.
pub fn write_each(
    path: &Path,
    table: &[TableEntry],
    metadata: BTreeMap<String, String>,
    mut bytes: impl FnMut(&str) -> Result<Vec<u8>, CheckpointError>,
) -> Result<(), CheckpointError> {
    // Wide elements first, so that all are aligned; readers expect it of this format.
    let mut table: Vec<&TableEntry> = table.iter().collect();
    table.sort_by(|a, b| (b.dtype.bitsize(), &a.name).cmp(&(a.dtype.bitsize(), &b.name)));
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), json!(metadata));
    }
    let mut end = 0;
    for entry in &table {
        let begin = end;
        end += entry.shape.iter().product::<usize>() * entry.dtype.bitsize() / 8;
        let value =
            json!({ "dtype": entry.dtype, "shape": entry.shape, "data_offsets": [begin, end] });
        header.insert(entry.name.clone(), value);
    }
    let mut header = Value::Object(header).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let io = |source| CheckpointError::io(path, source);
    let mut file = BufWriter::new(File::create(path).map_err(io)?);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
    file.write_all(header.as_bytes()).map_err(io)?;
    for entry in table {
        file.write_all(&bytes(&entry.name)?).map_err(io)?;
    }
    file.into_inner().map_err(|error| io(error.into_error())).map(drop)
}
