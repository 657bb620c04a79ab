//! The table of a safetensors file.

use safetensors::tensor::Metadata;

use super::{CheckpointError, Entry, Part};

/// What the library accepts, too.
const LONGEST_HEADER: u64 = 100_000_000;

/// Lists the tensors; they were found to lie one behind the other, up to the file's end.
pub(super) fn list(part: &Part) -> Result<Vec<(String, Entry)>, CheckpointError> {
    let damaged = |problem: String| CheckpointError::Tensors { file: part.path.clone(), problem };
    let Some(length) = part.bytes(0, 8)?.and_then(|bytes| bytes.try_into().ok()) else {
        return Err(damaged(format!("it has {} bytes", part.length)));
    };
    let length = u64::from_le_bytes(length);
    let header = match length <= LONGEST_HEADER {
        true => part.bytes(8, length)?,
        false => None,
    };
    let Some(header) = header else {
        let problem = format!("a header of {length} bytes in a file of {}", part.length);
        return Err(damaged(problem));
    };
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| damaged(error.to_string()))?;
    let expected = (8 + length).checked_add(metadata.data_len() as u64);
    if expected != Some(part.length) {
        let says = expected.map_or("more".into(), |expected| expected.to_string());
        let problem = format!("it has {} bytes, and {says} by its header", part.length);
        return Err(damaged(problem));
    }
    let entry = |(name, tensor): (String, &safetensors::tensor::TensorInfo)| {
        let entry = Entry {
            part: 0,
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            start: 8 + length + tensor.data_offsets.0 as u64,
            strides: None,
        };
        (name, entry)
    };
    Ok(metadata.tensors().into_iter().map(entry).collect())
}
