//! Files of weights: which tensors they hold is known before any is read, and each is read from disk
//! when it is wanted, so that a model is loaded without a second copy of it in memory.
//!
//! Safetensors, and what `torch.save` writes (zip files, and the stream of before PyTorch 1.6): the
//! pickle in those is read by a machine that knows tensors and containers only and runs nothing. Every
//! length that a file states is held against the file before memory is taken for it.

mod folder;
mod pickle;
mod pytorch;
mod safetensors;
mod zip;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use burn::tensor::{bf16, f16};
use serde_json::{Map, Value};

pub use ::safetensors::Dtype;

use super::tensors::{HostTensor, HostTensors};
use super::{CheckpointError, read_json};

/// The tensors of a file, or of the shards of an index.
#[derive(Debug)]
pub struct WeightFile {
    origin: PathBuf,
    parts: Vec<Part>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    content: Content,
    /// In bytes.
    length: u64,
}

/// Where the bytes of a file are.
#[derive(Debug)]
enum Content {
    /// One reader at a time: it has one position.
    Disk(Mutex<File>),
    /// Within this program.
    Program(&'static [u8]),
}

/// Where a tensor's elements lie. They were found to be within the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Index of the file.
    part: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// The first element, in bytes from the file's beginning.
    start: u64,
    /// Elements from one index to the next along each dimension, where they do not lie row by row.
    strides: Option<Vec<usize>>,
}

impl Entry {
    fn num_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes an element takes. Types of less than a byte are read as bytes, and refused later.
    fn element_size(&self) -> usize {
        self.dtype.bitsize().div_ceil(8)
    }
}

/// Extensions of what `torch.save` writes.
pub const PYTORCH_EXTENSIONS: [&str; 4] = ["bin", "pth", "pt", "ckpt"];

/// Bytes of the longest name of a tensor.
const LONGEST_NAME: usize = 512;

impl WeightFile {
    /// Opens the weights of a folder: `model.safetensors` or `pytorch_model.bin`, or their shards, also
    /// where the names hold a variant such as `fp16`.
    ///
    /// # Errors
    /// There are none, or they are damaged.
    pub fn find(folder: &Path) -> Result<Self, CheckpointError> {
        Self::find_if_there(folder)?.ok_or_else(|| folder::absent(folder))
    }

    /// As [`find`](Self::find), or nothing if there are none.
    ///
    /// # Errors
    /// They are damaged.
    pub fn find_if_there(folder: &Path) -> Result<Option<Self>, CheckpointError> {
        Ok(match folder::find(folder)? {
            None => None,
            Some(folder::Found::File(file)) => Some(Self::open(&file)?),
            Some(folder::Found::Shards(files)) => Some(Self::of_parts(folder, &files)?),
        })
    }

    /// Opens a file of weights, or the shards that an index (`….index.json`) names.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged or cut.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let name = path.to_string_lossy();
        let is_index = name.ends_with(".json") && name.contains(".index.");
        let parts = if is_index { shards(path)? } else { vec![path.to_path_buf()] };
        Self::of_parts(path, &parts)
    }

    fn of_parts(origin: &Path, parts: &[PathBuf]) -> Result<Self, CheckpointError> {
        let (parts_read, tensors) = (Vec::new(), BTreeMap::new());
        let mut weights = Self { origin: origin.into(), parts: parts_read, tensors };
        for part in parts {
            weights.add(Part::open(part)?)?;
        }
        Ok(weights)
    }

    /// The same with the tensors' names as the model itself has them: what `torch.compile`, DataParallel,
    /// FSDP and training scripts put into them is left out.
    pub(super) fn unwrapped(mut self) -> Self {
        let plain = folder::unwrapped(self.names());
        let unique: BTreeSet<&String> = plain.iter().collect();
        if unique.len() == plain.len() {
            let tensors = std::mem::take(&mut self.tensors);
            self.tensors = plain.into_iter().zip(tensors.into_values()).collect();
        }
        self
    }

    /// Weights that are part of this program; `path` only names them in errors.
    ///
    /// # Errors
    /// They are damaged.
    pub fn embedded(path: &Path, bytes: &'static [u8]) -> Result<Self, CheckpointError> {
        let mut weights = Self { origin: path.into(), parts: Vec::new(), tensors: BTreeMap::new() };
        let content = Content::Program(bytes);
        weights.add(Part { path: path.into(), content, length: bytes.len() as u64 })?;
        Ok(weights)
    }

    fn add(&mut self, part: Part) -> Result<(), CheckpointError> {
        let path = part.path.as_path();
        let head = part.bytes(0, part.length.min(1024))?.unwrap_or_default();
        if let Some(error) = CheckpointError::placeholder(path, &head) {
            return Err(error);
        }
        let is = |wanted: &str| path.extension().is_some_and(|extension| extension == wanted);
        let listed = match pytorch::Format::of(&part)? {
            Some(format) => pytorch::list(&part, format)?,
            None if PYTORCH_EXTENSIONS.iter().any(|extension| is(extension)) => {
                let problem = "neither a zip file nor the older form of torch.save".into();
                return Err(CheckpointError::Pickle { file: path.into(), problem });
            }
            None => safetensors::list(&part)?,
        };
        let index = self.parts.len();
        for (name, entry) in listed {
            // Such a name would fill a reader's screen in every error.
            if name.len() > LONGEST_NAME || entry.shape.len() > pickle::MOST_DIMENSIONS {
                let (length, dimensions) = (name.len(), entry.shape.len());
                let problem = format!(
                    "a tensor with a name of {length} bytes and {dimensions} dimensions; expected \
                     up to {LONGEST_NAME} and {}",
                    pickle::MOST_DIMENSIONS
                );
                return Err(CheckpointError::Invalid { file: path.into(), problem });
            }
            self.tensors.insert(name, Entry { part: index, ..entry });
        }
        self.parts.push(part);
        Ok(())
    }

    /// What errors name: the file, or the index of its shards.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor's dimensions, outermost first.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    /// The type of a tensor's elements.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.tensors.get(name).map(|entry| entry.dtype)
    }

    /// Reads a tensor; f16 and bf16 are widened.
    ///
    /// # Errors
    /// There is no such tensor, it is not of floats, or the file cannot be read.
    pub fn read(&self, name: &str) -> Result<HostTensor, CheckpointError> {
        let entry = self.entry(name)?;
        let values = self.floats(name, entry, 0..entry.num_elements())?;
        Ok(HostTensor { shape: entry.shape.clone(), values })
    }

    /// Reads a part of the tensor's first dimension; of a vector, elements.
    ///
    /// # Errors
    /// As [`read`](Self::read), and rows that are not there.
    pub fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, CheckpointError> {
        let entry = self.entry(name)?;
        let num_rows = entry.shape.first().copied().unwrap_or(1);
        if rows.start > rows.end || rows.end > num_rows {
            return Err(CheckpointError::TensorShape {
                file: self.origin.clone(),
                tensor: name.into(),
                found: entry.shape.clone(),
                expected: vec![rows.end],
            });
        }
        let width = entry.num_elements() / num_rows.max(1);
        self.floats(name, entry, rows.start * width..rows.end * width)
    }

    /// Reads every tensor.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_all(&self) -> Result<HostTensors, CheckpointError> {
        self.names().map(|name| Ok((name.to_string(), self.read(name)?))).collect()
    }

    /// A tensor's elements as the file has them, little-endian, row by row.
    ///
    /// # Errors
    /// There is no such tensor, or the file cannot be read.
    pub fn read_bytes(&self, name: &str) -> Result<Vec<u8>, CheckpointError> {
        let entry = self.entry(name)?;
        self.gather(name, entry)
    }

    /// Whether two tensors hold the same bits, as a tied matrix that was saved twice does.
    ///
    /// # Errors
    /// One of them is not there, or the file cannot be read.
    pub fn same(&self, one: &str, other: &str) -> Result<bool, CheckpointError> {
        let (a, b) = (self.entry(one)?, self.entry(other)?);
        if a == b {
            return Ok(true);
        }
        if (a.dtype, &a.shape) != (b.dtype, &b.shape) {
            return Ok(false);
        }
        if a.strides.is_some() || b.strides.is_some() {
            return Ok(self.gather(one, a)? == self.gather(other, b)?);
        }
        let (mut left, mut right) = (vec![0; BLOCK], vec![0; BLOCK]);
        let length = a.num_elements() as u64 * a.element_size() as u64;
        let mut done = 0;
        while done < length {
            let block = BLOCK.min((length - done) as usize);
            self.fill(a, a.start + done, &mut left[..block])?;
            self.fill(b, b.start + done, &mut right[..block])?;
            if left[..block] != right[..block] {
                return Ok(false);
            }
            done += block as u64;
        }
        Ok(true)
    }

    fn entry(&self, name: &str) -> Result<&Entry, CheckpointError> {
        self.tensors.get(name).ok_or_else(|| CheckpointError::MissingTensor {
            file: self.origin.clone(),
            tensor: name.into(),
            shape: Vec::new(),
        })
    }

    /// The file that holds a tensor, for errors.
    fn path(&self, entry: &Entry) -> &Path {
        self.parts.get(entry.part).map_or(&self.origin, |part| &part.path)
    }

    fn fill(&self, entry: &Entry, start: u64, bytes: &mut [u8]) -> Result<(), CheckpointError> {
        match self.parts.get(entry.part) {
            Some(part) => part.fill(start, bytes),
            None => Ok(()),
        }
    }

    /// Elements `range` of those of a tensor, row by row.
    fn floats(
        &self,
        name: &str,
        entry: &Entry,
        range: Range<usize>,
    ) -> Result<Vec<f32>, CheckpointError> {
        if !matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(CheckpointError::TensorType {
                file: self.path(entry).into(),
                tensor: name.into(),
                found: format!("{:?}", entry.dtype),
            });
        }
        let size = entry.element_size();
        if entry.strides.is_some() {
            let bytes = self.gather(name, entry)?;
            let mut values = Vec::with_capacity(range.len());
            let part = bytes.get(range.start * size..range.end * size).unwrap_or_default();
            widen(entry.dtype, part, &mut values);
            return Ok(values);
        }
        let mut values = Vec::with_capacity(range.len());
        // Through a block that stays in the cache: as quick as reading in place, on any machine.
        let mut block = vec![0; BLOCK.min(range.len() * size)];
        let (mut at, end) = (range.start, range.end);
        while at < end {
            let count = (BLOCK / size).min(end - at);
            let bytes = &mut block[..count * size];
            self.fill(entry, entry.start + (at * size) as u64, bytes)?;
            widen(entry.dtype, bytes, &mut values);
            at += count;
        }
        Ok(values)
    }

    /// A tensor's bytes, row by row, wherever its elements lie.
    fn gather(&self, name: &str, entry: &Entry) -> Result<Vec<u8>, CheckpointError> {
        let (size, count) = (entry.element_size(), entry.num_elements());
        let length = self.parts.get(entry.part).map_or(0, |part| part.length);
        let Some(total) = count.checked_mul(size).filter(|&total| total as u64 <= length) else {
            // Only a view that repeats its elements can be so.
            return Err(CheckpointError::Invalid {
                file: self.path(entry).into(),
                problem: format!(
                    "tensor `{name}` {:?} repeats its elements beyond the file's size",
                    entry.shape
                ),
            });
        };
        let Some(strides) = &entry.strides else {
            let mut bytes = vec![0; total];
            self.fill(entry, entry.start, &mut bytes)?;
            return Ok(bytes);
        };
        if count == 0 {
            return Ok(Vec::new());
        }
        let last: usize =
            entry.shape.iter().zip(strides).map(|(size, stride)| (size - 1) * stride).sum();
        let mut span = vec![0; (last + 1) * size];
        self.fill(entry, entry.start, &mut span)?;
        let mut bytes = Vec::with_capacity(total);
        let mut position = vec![0; entry.shape.len()];
        let mut at = 0;
        loop {
            bytes.extend_from_slice(&span[at * size..(at + 1) * size]);
            // The next index, the innermost dimension first.
            let mut dimension = position.len();
            loop {
                let Some(outer) = dimension.checked_sub(1) else { return Ok(bytes) };
                dimension = outer;
                position[dimension] += 1;
                at += strides[dimension];
                if position[dimension] < entry.shape[dimension] {
                    break;
                }
                at -= position[dimension] * strides[dimension];
                position[dimension] = 0;
            }
        }
    }
}

/// Bytes read at a time; divisible by every element's size.
const BLOCK: usize = 1 << 18;

/// Appends floats, which `bytes` holds whole.
fn widen(dtype: Dtype, bytes: &[u8], values: &mut Vec<f32>) {
    let halves = bytes.as_chunks::<2>().0.iter();
    match dtype {
        Dtype::F16 => values.extend(halves.map(|&bytes| f16::from_le_bytes(bytes).to_f32())),
        Dtype::BF16 => values.extend(halves.map(|&bytes| bf16::from_le_bytes(bytes).to_f32())),
        _ => values.extend(bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes))),
    }
}

impl Part {
    fn open(path: &Path) -> Result<Self, CheckpointError> {
        let io = |source| CheckpointError::io(path, source);
        // Before it is opened: a pipe would wait for a writer.
        let information = path.metadata().map_err(io)?;
        if !information.is_file() {
            let problem = "expected a file of weights".into();
            return Err(CheckpointError::Invalid { file: path.into(), problem });
        }
        let content = Content::Disk(Mutex::new(File::open(path).map_err(io)?));
        Ok(Self { path: path.into(), content, length: information.len() })
    }

    fn fill(&self, start: u64, bytes: &mut [u8]) -> Result<(), CheckpointError> {
        let filled = match &self.content {
            Content::Disk(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(bytes))
            }
            Content::Program(content) => {
                let mut cursor = Cursor::new(content);
                cursor.set_position(start);
                cursor.read_exact(bytes)
            }
        };
        filled.map_err(|source| CheckpointError::io(&self.path, source))
    }

    /// `length` bytes from `start`, if the file has them.
    fn bytes(&self, start: u64, length: u64) -> Result<Option<Vec<u8>>, CheckpointError> {
        let within = start.checked_add(length).is_some_and(|end| end <= self.length);
        let Some(length) = usize::try_from(length).ok().filter(|_| within) else {
            return Ok(None);
        };
        let mut bytes = vec![0; length];
        self.fill(start, &mut bytes)?;
        Ok(Some(bytes))
    }
}

/// The files that an index names, in the order of their names.
fn shards(index: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let fields: Map<String, Value> = read_json(index)?;
    let invalid =
        |problem: &str| CheckpointError::Invalid { file: index.into(), problem: problem.into() };
    let Some(Value::Object(map)) = fields.get("weight_map") else {
        return Err(invalid("`weight_map` is missing; expected tensors and their files"));
    };
    let mut names = Vec::new();
    for (tensor, file) in map {
        let problem = || format!("`weight_map`: expected the name of a file for `{tensor:.120}`");
        names.push(file.as_str().ok_or_else(|| invalid(&problem()))?);
    }
    names.sort_unstable();
    names.dedup();
    let folder = index.parent().unwrap_or(Path::new("."));
    let inside = |name: &&str| {
        let mut components = Path::new(name).components();
        matches!(components.next(), Some(std::path::Component::Normal(_)))
            && components.next().is_none()
    };
    if !names.iter().all(inside) {
        return Err(invalid("`weight_map` names a file outside of the folder"));
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

#[cfg(test)]
mod tests;
