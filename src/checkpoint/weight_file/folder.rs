//! Where weights lie in a folder: the names that transformers, accelerate and PyTorch give their files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::CheckpointError;

/// What the names of the weights' files begin with and end in, the best first.
const FORMS: [(&str, &str); 2] = [("model", "safetensors"), ("pytorch_model", "bin")];

/// Weights of other programs, for errors.
const OF_OTHERS: [(&str, &str); 4] = [
    ("tf_model.h5", "TensorFlow"),
    ("flax_model.msgpack", "Flax"),
    ("model.onnx", "ONNX"),
    ("model.gguf", "GGUF"),
];

/// The weights of a folder.
pub(super) enum Found {
    /// A file, or the index of shards.
    File(PathBuf),
    /// All shards of a set that no index names.
    Shards(Vec<PathBuf>),
}

/// Looks for the weights: one file or an index, as they are usually named or with a variant in the name
/// (`model.fp16.safetensors`, `model.safetensors.index.fp16.json`), or shards without an index.
///
/// # Errors
/// The folder cannot be read, or shards are missing.
pub(super) fn find(folder: &Path) -> Result<Option<Found>, CheckpointError> {
    for (stem, extension) in FORMS {
        let plain = [format!("{stem}.{extension}"), format!("{stem}.{extension}.index.json")];
        let plain = plain.map(|name| folder.join(name));
        if let Some(file) = plain.into_iter().find(|file| file.is_file()) {
            return Ok(Some(Found::File(file)));
        }
    }
    let names = files(folder)?;
    for (stem, extension) in FORMS {
        let variant = |name: &&String| {
            let whole = between(name, &format!("{stem}."), &format!(".{extension}"));
            let index = between(name, &format!("{stem}.{extension}.index."), ".json");
            whole.or(index).is_some_and(is_variant)
        };
        // By name, so that fp16 comes before fp32: smaller, and as it was meant to be used.
        if let Some(name) = names.iter().find(variant) {
            return Ok(Some(Found::File(folder.join(name))));
        }
        if let Some(shards) = shards(folder, &names, stem, extension)? {
            return Ok(Some(Found::Shards(shards)));
        }
    }
    Ok(None)
}

/// Why there are no weights, as far as the names of the folder's files tell.
pub(super) fn absent(folder: &Path) -> CheckpointError {
    let names = files(folder).unwrap_or_default();
    let foreign = OF_OTHERS.iter().find(|(name, _)| names.iter().any(|other| other == name));
    let is_weights = |name: &&String| {
        name.ends_with(".safetensors")
            || super::PYTORCH_EXTENSIONS.iter().any(|end| name.ends_with(&format!(".{end}")))
    };
    let found = match (foreign, names.iter().find(is_weights)) {
        (Some((name, program)), _) => format!("; `{name}` is for {program}, which is not read"),
        (None, Some(name)) => format!("; if `{name:.100}` holds the weights, rename it"),
        (None, None) => String::new(),
    };
    CheckpointError::Invalid {
        file: folder.join("model.safetensors"),
        problem: format!("is not here, nor pytorch_model.bin, nor an index of their shards{found}"),
    }
}

fn files(folder: &Path) -> Result<Vec<String>, CheckpointError> {
    let entries = fs::read_dir(folder).map_err(|source| CheckpointError::io(folder, source))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

fn between<'a>(name: &'a str, before: &str, behind: &str) -> Option<&'a str> {
    name.strip_prefix(before)?.strip_suffix(behind)
}

fn is_variant(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `model-00001-of-00002.safetensors`, …, with or without a variant, where all of one set are there.
fn shards(
    folder: &Path,
    names: &[String],
    stem: &str,
    extension: &str,
) -> Result<Option<Vec<PathBuf>>, CheckpointError> {
    // By what stands before the number and by how many there should be.
    let mut sets: BTreeMap<(&str, usize), BTreeMap<usize, &str>> = BTreeMap::new();
    for name in names {
        let Some(rest) = name.strip_suffix(extension).and_then(|rest| rest.strip_suffix('.'))
        else {
            continue;
        };
        let Some((rest, count)) = rest.rsplit_once("-of-") else { continue };
        let Some((set, number)) = rest.rsplit_once('-') else { continue };
        let variant = set.strip_prefix(stem).map(|rest| rest.strip_prefix('.').unwrap_or(rest));
        if !variant.is_some_and(|variant| variant.is_empty() || is_variant(variant)) {
            continue;
        }
        if let (Ok(number), Ok(count)) = (number.parse(), count.parse()) {
            sets.entry((set, count)).or_default().insert(number, name);
        }
    }
    let Some(((_, count), found)) = sets.into_iter().next() else { return Ok(None) };
    if found.len() != count || !found.keys().copied().eq(1..=count) {
        let file = folder.join(found.values().next().copied().unwrap_or_default());
        let problem = format!("is one of {count} shards, of which {} are here", found.len());
        return Err(CheckpointError::Invalid { file, problem });
    }
    Ok(Some(found.values().map(|name| folder.join(name)).collect()))
}

/// The components that wrappers of a model add to its tensors' names: `torch.compile`, FSDP, and
/// activation checkpointing.
const WRAPPERS: [&str; 3] = ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."];

/// What DataParallel, Lightning and training scripts of their own put before every name.
const PREFIXES: [&str; 3] = ["module.", "model.", "net."];

/// The names of tensors as the model itself has them: without those of wrappers, and without what every
/// name begins with.
pub(super) fn unwrapped<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut plain: Vec<String> = names
        .map(|name| WRAPPERS.iter().fold(name.to_string(), |name, part| name.replace(part, "")))
        .collect();
    while let Some(prefix) = PREFIXES
        .iter()
        .find(|prefix| !plain.is_empty() && plain.iter().all(|name| name.starts_with(**prefix)))
    {
        plain.iter_mut().for_each(|name| *name = name.split_off(prefix.len()));
    }
    plain
}
