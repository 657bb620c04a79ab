//! The mean of several checkpoints' weights, which is often better than any of them (Izmailov et al.
//! 2018, <https://arxiv.org/abs/1803.05407>).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::convert::{Converted, converted, copy_rest};
use super::files::Files;
use super::tensors::{HostTensor, HostTensors, SavedType, TableEntry, write_each};
use super::weight_file::{Dtype, WeightFile};
use super::{CheckpointError, Location, adapter, atomic, card};

/// Files that must be the same in all checkpoints, as far as they are there.
const SAME: [&str; 7] = [
    "config.json",
    "preprocessor.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
];

/// Keys of a config that say nothing of what the weights are: how they were saved, the noise of
/// training, how to decode.
const NO_MATTER: [&str; 17] = [
    "dtype",
    "torch_dtype",
    "transformers_version",
    "_name_or_path",
    "dropout",
    "drop_path",
    "drop_path_rate",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "hidden_dropout_prob",
    "activation_dropout",
    "classifier_dropout",
    "attn_pdrop",
    "embd_pdrop",
    "resid_pdrop",
    "summary_first_dropout",
    "generate",
];

/// Writes the mean of the weights of `inputs`, at least two checkpoints of one model: folders (of runs,
/// their best), ours or Hugging Face's, or the captioner that ships, by its name. f16 and bf16 are read,
/// f32 is written; all else is the first one's. `output` must not exist.
///
/// # Errors
/// A key, a tokenizer or a tensor in which two of them differ, by name; a file that cannot be read or
/// written.
pub fn average(inputs: &[PathBuf], output: &Path) -> Result<Converted, CheckpointError> {
    atomic::ensure_absent(output)?;
    let all: Vec<Files> =
        inputs.iter().map(|path| Location::named(path).files()).collect::<Result<_, _>>()?;
    let [first, others @ ..] = all.as_slice() else {
        return Err(invalid(output, "nothing to average; expected at least two checkpoints"));
    };
    if others.is_empty() {
        return Err(invalid(first.folder(), "is the only one; expected at least two checkpoints"));
    }
    for files in &all {
        if files.hold(output) {
            return Err(invalid(output, "lies within a folder that is to be averaged"));
        }
        if files.has(adapter::FILE) {
            return Err(invalid(
                &files.path(adapter::FILE),
                "the mean of adapters is not the mean of what they make of the weights; train with \
                 lora.merge = true",
            ));
        }
    }
    for other in others {
        for name in SAME {
            ensure_same(name, first, other)?;
        }
    }
    let weights: Vec<WeightFile> = all.iter().map(Files::any_weights).collect::<Result<_, _>>()?;
    let mut num_tensors = 0;
    atomic::create_folder(output, |fresh| {
        let format = copy_rest(first, fresh, Some(SavedType::F32))?;
        write_card(fresh, &all)?;
        num_tensors = write_mean(&weights, &fresh.join("model.safetensors"), &format)?;
        Ok::<(), CheckpointError>(())
    })?;
    converted(&output.join("model.safetensors"), num_tensors)
}

/// The mean of the tensors of files that all have the same.
///
/// # Errors
/// A tensor that one of them lacks or has in another shape; a file that cannot be read.
pub fn mean_of_files(files: &[PathBuf]) -> Result<HostTensors, CheckpointError> {
    let files: Vec<WeightFile> =
        files.iter().map(|file| WeightFile::open(file)).collect::<Result<_, _>>()?;
    let names = same_names(&files)?;
    names.into_iter().map(|name| Ok((name.clone(), mean(&files, &name)?))).collect()
}

fn write_mean(files: &[WeightFile], path: &Path, format: &str) -> Result<usize, CheckpointError> {
    let is_float = |name: &str| {
        let dtype = files.first().and_then(|file| file.dtype(name));
        matches!(dtype, Some(Dtype::F32 | Dtype::F16 | Dtype::BF16))
    };
    let mut table = Vec::new();
    for name in same_names(files)? {
        let Some(file) = files.first() else { continue };
        let (Some(dtype), Some(shape)) = (file.dtype(&name), file.shape(&name)) else { continue };
        let dtype = if is_float(&name) { Dtype::F32 } else { dtype };
        table.push(TableEntry { shape: shape.to_vec(), dtype, name });
    }
    let metadata = BTreeMap::from([("format".to_string(), format.to_string())]);
    write_each(path, &table, metadata, |name| {
        if is_float(name) {
            let mean = mean(files, name)?;
            return Ok(mean.values.iter().flat_map(|value| value.to_le_bytes()).collect());
        }
        // Numbers that are no weights, such as positions.
        let mut bytes = None;
        for file in files {
            let own = file.read_bytes(name)?;
            if bytes.get_or_insert_with(|| own.clone()) != &own {
                return Err(invalid(file.origin(), &format!("tensor `{name}` has other numbers")));
            }
        }
        Ok(bytes.unwrap_or_default())
    })?;
    Ok(table.len())
}

/// The tensors' names, once it is known that all files have them in one shape.
fn same_names(files: &[WeightFile]) -> Result<Vec<String>, CheckpointError> {
    let Some((first, others)) = files.split_first() else { return Ok(Vec::new()) };
    for other in others {
        for (one, two) in [(first, other), (other, first)] {
            if let Some(name) = one.names().find(|name| !two.contains(name)) {
                let problem = format!("tensor `{name}` of {} is missing", one.origin().display());
                return Err(invalid(two.origin(), &problem));
            }
        }
        if let Some(name) = first.names().find(|name| first.shape(name) != other.shape(name)) {
            let shape = |file: &WeightFile| file.shape(name).unwrap_or_default().to_vec();
            let problem = format!(
                "tensor `{name}` has shape {:?}, but {:?} in {}",
                shape(other),
                shape(first),
                first.origin().display()
            );
            return Err(invalid(other.origin(), &problem));
        }
    }
    Ok(first.names().map(String::from).collect())
}

/// The mean of one tensor, summed in f64.
fn mean(files: &[WeightFile], name: &str) -> Result<HostTensor, CheckpointError> {
    let mut shape = Vec::new();
    let mut sums: Vec<f64> = Vec::new();
    for file in files {
        let tensor = file.read(name)?;
        shape = tensor.shape;
        sums.resize(tensor.values.len(), 0.0);
        for (sum, value) in sums.iter_mut().zip(tensor.values) {
            *sum += f64::from(value);
        }
    }
    let count = files.len() as f64;
    let values = sums.into_iter().map(|sum| (sum / count) as f32).collect();
    Ok(HostTensor { shape, values })
}

fn ensure_same(name: &str, first: &Files, other: &Files) -> Result<(), CheckpointError> {
    let differs = match (first.has(name), other.has(name)) {
        (false, false) => None,
        (true, false) => Some("is missing, but there is".into()),
        (false, true) => Some("is there, but there is no".into()),
        (true, true) if name.ends_with(".json") => {
            let (one, two): (Value, Value) = (first.read_json(name)?, other.read_json(name)?);
            let ignored: &[&str] = if name == "config.json" { &NO_MATTER } else { &[] };
            difference("", &one, &two, ignored)
        }
        (true, true) => {
            (first.read(name)? != other.read(name)?).then(|| "has other contents than".into())
        }
    };
    match differs {
        Some(differs) => {
            let problem = format!("{differs} {}", first.path(name).display());
            Err(invalid(&other.path(name), &problem))
        }
        None => Ok(()),
    }
}

/// The first key, of those not `ignored`, in which two JSON values differ.
fn difference(key: &str, one: &Value, two: &Value, ignored: &[&str]) -> Option<String> {
    let missing = Value::Null;
    if let (Value::Object(one), Value::Object(two)) = (one, two) {
        let keys = one.keys().chain(two.keys().filter(|key| !one.contains_key(*key)));
        let mut of_keys = keys.filter(|name| !ignored.contains(&name.as_str())).map(|name| {
            let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            let value = |map: &serde_json::Map<String, Value>| map.get(name).cloned();
            let (one, two) = (value(one), value(two));
            let (one, two) = (one.as_ref().unwrap_or(&missing), two.as_ref().unwrap_or(&missing));
            difference(&key, one, two, ignored)
        });
        return of_keys.find_map(|found| found);
    }
    let short = |value: &Value| {
        let text = value.to_string();
        if text.chars().count() <= 40 { text } else { "another value".into() }
    };
    (one != two).then(|| format!("`{key}` is {}, but {} in", short(two), short(one)))
}

/// Puts what this is above the first checkpoint's card.
fn write_card(folder: &Path, inputs: &[Files]) -> Result<(), CheckpointError> {
    let file = folder.join("README.md");
    let first = fs::read_to_string(&file).unwrap_or_default();
    let (head, first) = card::split(&first);
    let mut card = format!("{head}# The mean of the weights of {} checkpoints\n\n", inputs.len());
    for input in inputs {
        let folder = input.folder().display().to_string();
        card.push_str(&format!("- {}\n", card::code(&folder)));
    }
    if !first.trim().is_empty() {
        card.push_str(&format!("\nWhat the card of the first says:\n\n{first}"));
    }
    fs::write(&file, card).map_err(|source| CheckpointError::io(&file, source))
}

fn invalid(file: &Path, problem: &str) -> CheckpointError {
    CheckpointError::Invalid { file: file.into(), problem: problem.into() }
}
