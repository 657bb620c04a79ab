//! Weights in another form: PyTorch's files as safetensors, f32 as f16 or bf16 and back. Tensors keep
//! their names, and pass through memory one at a time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::files::Files;
use super::tensors::{SavedType, TableEntry, beyond_f16, write_each};
use super::weight_file::{Dtype, PYTORCH_EXTENSIONS, WeightFile};
use super::{CheckpointError, Location, adapter, atomic, peft, write_json};

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// The file of weights.
    pub file: PathBuf,
    /// How many tensors it has.
    pub num_tensors: usize,
    /// Its size.
    pub bytes: u64,
}

/// Converts a folder with weights, all its other files copied, the captioner that ships, or a file of
/// weights; floats become `saved`, or stay as they are. `output` must not exist.
///
/// # Errors
/// The file that could not be read or written, or a tensor with values that f16 cannot hold.
pub fn convert(
    input: &Path,
    output: &Path,
    saved: Option<SavedType>,
) -> Result<Converted, CheckpointError> {
    let invalid = |file: &Path, problem: &str| {
        Err(CheckpointError::Invalid { file: file.into(), problem: problem.into() })
    };
    atomic::ensure_absent(output)?;
    if input.is_file() {
        if output.extension().is_none_or(|extension| extension != "safetensors") {
            return invalid(output, "expected a name that ends in .safetensors");
        }
        let weights = WeightFile::open(input)?;
        let mut num_tensors = 0;
        atomic::replace_file_by(output, |fresh| {
            num_tensors = write(&weights, fresh, saved, "pt")?;
            Ok(())
        })?;
        return converted(output, num_tensors);
    }
    let files = Location::named(input).files()?;
    if files.hold(output) {
        return invalid(output, "lies within the folder that is to be converted");
    }
    if let Some(name) = [adapter::FILE, peft::CONFIG].into_iter().find(|name| files.has(name)) {
        let problem =
            "an adapter apart from the weights is not converted; merge it into them first";
        return invalid(&files.path(name), problem);
    }
    let weights = files.any_weights()?;
    let mut num_tensors = 0;
    atomic::create_folder(output, |fresh| {
        let format = copy_rest(&files, fresh, saved)?;
        num_tensors = write(&weights, &fresh.join("model.safetensors"), saved, &format)?;
        Ok::<(), CheckpointError>(())
    })?;
    converted(&output.join("model.safetensors"), num_tensors)
}

pub(super) fn converted(file: &Path, num_tensors: usize) -> Result<Converted, CheckpointError> {
    let information = fs::metadata(file).map_err(|source| CheckpointError::io(file, source))?;
    Ok(Converted { file: file.into(), num_tensors, bytes: information.len() })
}

fn write(
    weights: &WeightFile,
    file: &Path,
    saved: Option<SavedType>,
    format: &str,
) -> Result<usize, CheckpointError> {
    let is_float = |dtype| matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
    let wanted = |dtype| saved.filter(|saved| is_float(dtype) && saved.dtype() != dtype);
    let mut table = Vec::new();
    for name in weights.names() {
        let (Some(dtype), Some(shape)) = (weights.dtype(name), weights.shape(name)) else {
            continue;
        };
        let dtype = wanted(dtype).map_or(dtype, SavedType::dtype);
        table.push(TableEntry { name: name.into(), dtype, shape: shape.to_vec() });
    }
    let metadata = BTreeMap::from([("format".to_string(), format.to_string())]);
    write_each(file, &table, metadata, |name| match weights.dtype(name).and_then(wanted) {
        Some(saved) => saved
            .encode(&weights.read(name)?.values)
            .ok_or_else(|| beyond_f16(weights.origin(), name)),
        None => weights.read_bytes(name),
    })?;
    Ok(table.len())
}

/// Copies the files that hold no weights, and says whose format they are. What resuming a
/// training needs belongs to the weights as they were, and stays behind.
pub(super) fn copy_rest(
    files: &Files,
    fresh: &Path,
    saved: Option<SavedType>,
) -> Result<String, CheckpointError> {
    let mut format = "pt".to_string();
    for (name, _) in files.list()? {
        if holds_weights(Path::new(&name)) {
            continue;
        }
        let target = fresh.join(&name);
        if name == "config.json" {
            let mut config: Map<String, Value> = files.read_json(&name)?;
            if let Some(Value::String(named)) = config.get("format") {
                format = named.clone();
            }
            if let Some(saved) = saved {
                name_type(&mut config, saved);
            }
            write_json(&target, &config)?;
        } else {
            files.copy(&name, &target)?;
        }
    }
    Ok(format)
}

fn holds_weights(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let of_others = ["safetensors", "h5", "msgpack", "onnx", "gguf"];
    let index = path.to_string_lossy().ends_with(".index.json");
    index || of_others.contains(&extension) || PYTORCH_EXTENSIONS.contains(&extension)
}

/// transformers' configs say which type the weights have, in the sections for encoder and decoder too.
fn name_type(config: &mut Map<String, Value>, saved: SavedType) {
    let name = match saved {
        SavedType::F32 => "float32",
        SavedType::F16 => "float16",
        SavedType::Bf16 => "bfloat16",
    };
    for (key, value) in config.iter_mut() {
        match value {
            Value::String(_) if key == "dtype" || key == "torch_dtype" => *value = name.into(),
            Value::Object(section) => name_type(section, saved),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::checkpoint::load;
    use crate::checkpoint::tensors::{HostTensors, parameters};
    use crate::shared::shared;

    fn weights(model: &Path) -> HostTensors {
        parameters(&load(model, &Device::flex()).unwrap().model)
    }

    #[test]
    fn a_converted_folder_captions_as_before_to_the_precision_asked_for() {
        let Some(source) = shared("parity/blip") else { return };
        let folder = tempfile::tempdir().unwrap();
        let pickle = folder.path().join("pickle");
        fs::create_dir(&pickle).unwrap();
        for entry in fs::read_dir(&source).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "safetensors") {
                fs::write(pickle.join(path.file_name().unwrap()), fs::read(&path).unwrap())
                    .unwrap();
            }
        }
        let before = weights(&source);
        let at = |name: &str| folder.path().join(name);
        let plain = convert(&pickle, &at("plain"), None).unwrap();
        assert_eq!(plain.file, at("plain").join("model.safetensors"));
        assert_eq!(weights(&at("plain")), before);
        assert!(!at("plain").join("pytorch_model.bin").exists());

        let half = convert(&pickle, &at("half"), Some(SavedType::F16)).unwrap();
        assert!(half.bytes < plain.bytes * 11 / 20, "{} {}", half.bytes, plain.bytes);
        let config = fs::read_to_string(at("half").join("config.json")).unwrap();
        assert!(config.contains("\"dtype\": \"float16\""), "{config}");
        let narrow = weights(&at("half"));
        for (name, tensor) in &before {
            for (&was, &is) in tensor.values.iter().zip(&narrow[name].values) {
                assert!((was - is).abs() <= was.abs() / 1024.0 + 1e-7, "{name}: {was} {is}");
            }
        }
        // And back: as wide as before, no more exact.
        convert(&at("half"), &at("wide"), Some(SavedType::F32)).unwrap();
        assert_eq!(weights(&at("wide")), narrow);

        let again = convert(&pickle, &at("half"), None).unwrap_err().to_string();
        assert!(again.contains("half: exists already"), "{again}");
        let within = convert(&pickle, &pickle.join("out"), None).unwrap_err().to_string();
        assert!(within.contains("lies within"), "{within}");
    }

    #[test]
    fn a_file_is_converted_by_itself_and_values_beyond_f16_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let testdata = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/checkpoint/weight_file/testdata/zip.pth");
        let wrong = convert(&testdata, &at("a.bin"), None).unwrap_err().to_string();
        assert!(wrong.contains("a.bin: expected a name that ends in .safetensors"), "{wrong}");
        let out = at("a.safetensors");
        assert_eq!(convert(&testdata, &out, None).unwrap().num_tensors, 11);
        let (before, after) =
            (WeightFile::open(&testdata).unwrap(), WeightFile::open(&out).unwrap());
        for name in before.names() {
            assert_eq!(before.shape(name), after.shape(name));
            assert_eq!(before.dtype(name), after.dtype(name));
            assert_eq!(before.read_bytes(name).unwrap(), after.read_bytes(name).unwrap());
        }
        // What the format's own library makes of it.
        let bytes = fs::read(&out).unwrap();
        let library = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(library.tensor("transposed").unwrap().shape(), [3, 2]);

        let large = at("large.safetensors");
        let tensor = super::super::tensors::HostTensor { shape: vec![2], values: vec![1.0, 1e5] };
        let tensors = HostTensors::from([("big".to_string(), tensor)]);
        super::super::tensors::write(&large, &tensors, BTreeMap::new()).unwrap();
        let said = convert(&large, &at("f16.safetensors"), Some(SavedType::F16)).unwrap_err();
        assert!(said.to_string().contains("tensor `big` holds values beyond 65504"), "{said}");
        assert!(!at("f16.safetensors").exists());
        convert(&large, &at("bf16.safetensors"), Some(SavedType::Bf16)).unwrap();
    }
}
