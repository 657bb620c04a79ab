//! The table of a safetensors file.

use std::collections::BTreeMap;
use std::fmt;

use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::{CheckpointError, Entry, Part};

/// Bytes of the longest table that is read: of some 100,000 tensors.
const LONGEST_HEADER: u64 = 1 << 24;

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
    let Table(tensors) =
        serde_json::from_slice(&header).map_err(|error| damaged(error.to_string()))?;
    let mut tensors: Vec<(String, TensorInfo)> = tensors.into_iter().collect();
    tensors.sort_by_key(|(_, tensor)| tensor.data_offsets);
    let data = 8 + length;
    let entries = tensors.iter().map(|(name, tensor)| {
        let entry = Entry {
            part: 0,
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            start: data.saturating_add(tensor.data_offsets.0 as u64),
            strides: None,
        };
        (name.clone(), entry)
    });
    let entries = entries.collect();
    // Checks that sizes, types and offsets fit together, without a gap or an overlap.
    let metadata = Metadata::new(None, tensors).map_err(|error| damaged(error.to_string()))?;
    let expected = data.checked_add(metadata.data_len() as u64);
    if expected != Some(part.length) {
        let says = expected.map_or("more".into(), |expected| expected.to_string());
        let problem = format!("it has {} bytes, and {says} by its header", part.length);
        return Err(damaged(problem));
    }
    Ok(entries)
}

/// The table alone. The library's own type would keep all of a hostile header in memory several times.
struct Table(BTreeMap<String, TensorInfo>);

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = Table;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("tensors by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
                let mut tensors = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else if tensors.insert(name, map.next_value()?).is_some() {
                        return Err(A::Error::custom("a tensor is there twice"));
                    }
                }
                Ok(Table(tensors))
            }
        }
        deserializer.deserialize_map(Tensors)
    }
}
