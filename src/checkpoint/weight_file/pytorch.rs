//! What `torch.save` writes: a pickle that says how tensors look at storages, and the storages.

use std::collections::HashMap;

use ::safetensors::Dtype;

use super::pickle::{Machine, Storage, Value, View, shortened};
use super::zip::{self, Stored};
use super::{CheckpointError, Entry, Part};

/// How pickle and storages are put into one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// A zip file, from PyTorch 1.6 on.
    Zip,
    /// One behind the other.
    Stream,
}

/// What the first pickle of a stream holds: 0x1950a86a20f9469cfc6c.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Bytes of the longest pickle that is read. That of BLIP's weights has 0.1 MB.
const LONGEST_PICKLE: u64 = 1 << 26;

/// Tensors may look at the same storage, as tied weights do; in all they hold at most this many times
/// the bytes of the file. More would let a small file fill the memory.
const MOST_SHARING: u64 = 4;

/// Keys under which checkpoints of training keep the weights.
const WEIGHTS: [&str; 4] = ["state_dict", "model", "model_state_dict", "module"];

impl Format {
    /// None if the file is none of PyTorch's.
    pub(super) fn of(part: &Part) -> Result<Option<Self>, CheckpointError> {
        let head = part.bytes(0, part.length.min(32))?.unwrap_or_default();
        Ok(match head.as_slice() {
            [b'P', b'K', 3, 4, ..] => Some(Self::Zip),
            [0x80, ..] if head.windows(MAGIC.len()).any(|bytes| bytes == MAGIC) => {
                Some(Self::Stream)
            }
            _ => None,
        })
    }
}

/// Lists the tensors of the file's state dict.
pub(super) fn list(part: &Part, format: Format) -> Result<Vec<(String, Entry)>, CheckpointError> {
    match format {
        Format::Zip => list_zip(part),
        Format::Stream => list_stream(part),
    }
}

fn damaged(part: &Part, problem: &str) -> CheckpointError {
    CheckpointError::Pickle { file: part.path.clone(), problem: problem.into() }
}

fn list_zip(part: &Part) -> Result<Vec<(String, Entry)>, CheckpointError> {
    let damaged = |problem: &str| damaged(part, problem);
    let entries = zip::entries(part, damaged)?;
    let pickles = entries.iter().filter_map(|entry| {
        let root = entry.name.strip_suffix("data.pkl")?;
        (root.is_empty() || root.ends_with('/')).then_some((root, entry))
    });
    let Some((root, pickle)) = pickles.min_by_key(|(root, _)| root.len()) else {
        return Err(damaged("a zip file without `data.pkl`"));
    };
    let entries: HashMap<&str, &Stored> =
        entries.iter().filter_map(|entry| Some((entry.name.strip_prefix(root)?, entry))).collect();
    if let Some(order) = entries.get("byteorder")
        && part.bytes(order.start, order.length.min(16))?.as_deref() != Some(b"little".as_slice())
    {
        return Err(damaged("its numbers are big-endian; save it on another machine"));
    }
    if pickle.length > LONGEST_PICKLE {
        return Err(damaged(&format!("a pickle of {} bytes", pickle.length)));
    }
    let pickle = part.bytes(pickle.start, pickle.length)?.unwrap_or_default();
    let mut machine = Machine::new(&pickle);
    let root = machine.run().map_err(|problem| damaged(&problem))?;
    let place = |storage: &Storage| {
        let entry = entries.get(format!("data/{}", storage.key).as_str())?;
        Some((entry.start, entry.length))
    };
    tensors(part, &machine, root, place)
}

fn list_stream(part: &Part) -> Result<Vec<(String, Entry)>, CheckpointError> {
    let damaged = |problem: &str| damaged(part, problem);
    let head = part.bytes(0, part.length.min(LONGEST_PICKLE))?.unwrap_or_default();
    let mut machine = Machine::new(&head);
    let mut next = || machine.run().map_err(|problem| damaged(&problem));
    // The magic number, the version, and how that machine stored numbers.
    let (_, version, system) = (next()?, next()?, next()?);
    let (root, keys) = (next()?, next()?);
    if version != Value::Int(1001) {
        return Err(damaged("a version other than 1001"));
    }
    let system = dict(&machine, system);
    if system.contains(&("little_endian", Value::Bool(false))) {
        return Err(damaged("its numbers are big-endian; save it on another machine"));
    }
    let mut known: HashMap<&str, &Storage> = HashMap::new();
    for storage in &machine.storages {
        if known.insert(storage.key, storage).is_some_and(|other| other != storage) {
            return Err(damaged(&format!("storage `{}` is of two sizes", shortened(storage.key))));
        }
    }
    let Value::Sequence(keys) = keys else {
        return Err(damaged("no list of storages behind the pickle"));
    };
    // Each is its number of elements and the elements.
    let mut places = HashMap::new();
    let mut at = machine.position() as u64;
    for key in machine.sequence(keys) {
        let Value::Text(key) = *key else { return Err(damaged("a storage without a name")) };
        let of_storage = |what: &str| damaged(&format!("storage `{}` {what}", shortened(key)));
        let Some(storage) = known.get(key) else { return Err(of_storage("belongs to no tensor")) };
        let stated = part.bytes(at, 8)?.and_then(|bytes| bytes.try_into().ok());
        let stated = stated.map(u64::from_le_bytes);
        if stated.is_none_or(|stated| stated != storage.num_elements as u64) {
            return Err(of_storage("is not where it should be"));
        }
        let length = byte_length(storage).filter(|length| *length <= part.length);
        let length = length.ok_or_else(|| of_storage("reaches beyond the end of the file"))?;
        at += 8;
        places.insert(key, (at, length));
        at += length;
        if at > part.length {
            return Err(of_storage("reaches beyond the end of the file"));
        }
    }
    tensors(part, &machine, root, |storage| places.get(storage.key).copied())
}

fn byte_length(storage: &Storage) -> Option<u64> {
    let size = storage.dtype.bitsize().div_ceil(8) as u64;
    (storage.num_elements as u64).checked_mul(size)
}

fn dict<'m, 'a>(machine: &'m Machine<'a>, value: Value) -> &'m [(&'a str, Value<'a>)] {
    match value {
        Value::Dict(index) => machine.dicts.get(index).map_or(&[], Vec::as_slice),
        _ => &[],
    }
}

/// The dict of weights: `root`, or what it keeps under one of the usual keys.
fn state_dict<'m, 'a>(machine: &'m Machine<'a>, root: Value) -> Option<&'m [(&'a str, Value<'a>)]> {
    let mut entries = dict(machine, root);
    // Deeper than this they are never.
    for _ in 0..4 {
        if entries.iter().any(|(_, value)| matches!(value, Value::Tensor(_))) {
            return Some(entries);
        }
        let nested = WEIGHTS.iter().find_map(|key| {
            let value = entries.iter().find(|(name, _)| name == key)?.1;
            Some(dict(machine, value)).filter(|nested| !nested.is_empty())
        });
        entries = nested?;
    }
    None
}

/// The tensors of the weights, each found to be within its storage; `place` gives a storage's first
/// byte and its length.
fn tensors(
    part: &Part,
    machine: &Machine,
    root: Value,
    place: impl Fn(&Storage) -> Option<(u64, u64)>,
) -> Result<Vec<(String, Entry)>, CheckpointError> {
    let Some(entries) = state_dict(machine, root) else {
        let problem = format!("no tensors at its root, nor under `{}`", WEIGHTS.join("` or `"));
        return Err(damaged(part, &problem));
    };
    let mut listed = Vec::new();
    let mut total = 0u64;
    for &(name, value) in entries {
        let Value::Tensor(index) = value else { continue };
        let tensor =
            |problem: &str| damaged(part, &format!("tensor `{}`: {problem}", shortened(name)));
        let view = machine.tensors.get(index).ok_or_else(|| tensor("there is none"))?;
        let storage = machine.storages.get(view.storage);
        let storage = storage.ok_or_else(|| tensor("it has no storage"))?;
        let (start, length) =
            place(storage).ok_or_else(|| tensor("its storage is not in the file"))?;
        if byte_length(storage).is_none_or(|stated| stated > length) {
            return Err(tensor(&format!(
                "its storage holds {length} bytes, not {} elements",
                storage.num_elements
            )));
        }
        let Some(strides) = within(view, storage.num_elements) else {
            return Err(tensor(&format!(
                "shape {:?}, strides {:?} and offset {} are not within its {} elements",
                view.shape, view.strides, view.offset, storage.num_elements
            )));
        };
        let size = storage.dtype.bitsize().div_ceil(8);
        // Only floats are read: positions may well be one number, seen many times.
        if matches!(storage.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            let count: usize = view.shape.iter().product();
            total = total.saturating_add((count as u64).saturating_mul(size as u64));
            if total > MOST_SHARING.saturating_mul(part.length) {
                return Err(tensor(&format!(
                    "shape {:?}: the tensors up to this one repeat their elements to {total} bytes, \
                     in a file of {}",
                    view.shape, part.length
                )));
            }
        }
        let entry = Entry {
            part: 0,
            dtype: storage.dtype,
            shape: view.shape.clone(),
            start: start + (view.offset * size) as u64,
            strides,
        };
        listed.push((name.to_string(), entry));
    }
    Ok(listed)
}

/// The strides of a view that is within its storage: none where it lies row by row.
fn within(view: &View, num_elements: usize) -> Option<Option<Vec<usize>>> {
    let count = view.shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size))?;
    // Of no elements, each size was still multiplied above: none of them is beyond reason.
    if count == 0 {
        return (view.offset <= num_elements).then_some(None);
    }
    let mut last = view.offset;
    let mut row_by_row = true;
    let mut expected = 1;
    for (&size, &stride) in view.shape.iter().zip(&view.strides).rev() {
        last = last.checked_add((size - 1).checked_mul(stride)?)?;
        row_by_row &= size == 1 || stride == expected;
        expected *= size;
    }
    (last < num_elements).then(|| (!row_by_row).then(|| view.strides.clone()))
}
