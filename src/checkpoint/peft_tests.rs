//! Adapters that peft wrote (`tests/fixtures/make_adapters.py`) are what peft makes of them.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;

use super::tensors::{self, HostTensors, parameters};
use super::weight_file::WeightFile;
use super::{CheckpointError, load, locate};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

fn weights(model: &Path) -> HostTensors {
    parameters(&load(model, &Device::flex()).unwrap().model)
}

fn error(model: &Path) -> String {
    load(model, &Device::flex()).unwrap_err().to_string()
}

/// The model `base` with the tensors of `changed` in place of its own.
fn with_tensors(base: &str, changed: HostTensors) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&fixture(&format!("parity/{base}")), folder.path());
    let file = folder.path().join("model.safetensors");
    let mut all = WeightFile::open(&file).unwrap().read_all().unwrap();
    all.extend(changed);
    tensors::write(&file, &all, [].into()).unwrap();
    folder
}

const CASES: [(&str, &str); 3] =
    [("blip", "blip"), ("blip-keys", "blip"), ("deit-gpt2", "deit-gpt2")];

#[test]
fn an_adapters_folder_is_the_model_that_peft_makes_of_it() {
    for (name, base) in CASES {
        let folder = fixture(&format!("adapters/{name}"));
        let merged = WeightFile::open(&folder.join("merged.safetensors")).unwrap();
        let expected = with_tensors(base, merged.read_all().unwrap());
        let (ours, theirs) = (weights(&folder), weights(expected.path()));
        let plain = weights(&fixture(&format!("parity/{base}")));
        let mut changed = 0;
        for (parameter, tensor) in &theirs {
            changed += usize::from(*tensor != plain[parameter]);
            for (&a, &b) in tensor.values.iter().zip(&ours[parameter].values) {
                assert!((a - b).abs() < 1e-5, "{name} {parameter}: {b}, peft {a}");
            }
        }
        assert!(changed >= 4, "{name}: {changed}");
    }
}

#[test]
fn an_adapter_within_a_models_folder_is_applied() {
    let folder = tempfile::tempdir().unwrap();
    copy(&fixture("parity/blip"), folder.path());
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(fixture("adapters/blip").join(file), folder.path().join(file)).unwrap();
    }
    assert!(weights(folder.path()) == weights(&fixture("adapters/blip")));
    fs::remove_file(folder.path().join("adapter_model.safetensors")).unwrap();
    let said = error(folder.path());
    assert!(said.contains("adapter_model.safetensors: is not here"), "{said}");
}

#[test]
fn what_an_adapter_asks_for_and_is_not_done_is_refused_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = folder.path().join("adapter");
    copy(&fixture("adapters/blip"), &adapter);
    let config = adapter.join("adapter_config.json");
    let text = fs::read_to_string(&config).unwrap();
    let fields: serde_json::Value = serde_json::from_str(&text).unwrap();
    let with = |key: &str, value: serde_json::Value| {
        let mut fields = fields.clone();
        fields["base_model_name_or_path"] = fixture("parity/blip").to_str().unwrap().into();
        fields[key] = value;
        fs::write(&config, fields.to_string()).unwrap();
        load(&adapter, &Device::flex()).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(with("lora_dropout", 0.1.into()), Ok(()));
    for (key, value, says) in [
        ("peft_type", "LOHA".into(), "`peft_type` is \"LOHA\""),
        ("use_dora", true.into(), "`use_dora` is true"),
        ("bias", "all".into(), "`bias` is \"all\"; expected \"none\""),
        ("init_lora_weights", "pissa".into(), "`init_lora_weights` is \"pissa\""),
        ("modules_to_save", serde_json::json!(["cls"]), "`modules_to_save` is [\"cls\"]"),
        ("lora_alpha", serde_json::Value::Null, "`lora_alpha` is missing"),
        ("alpha_pattern", serde_json::json!({ "(": 1 }), "`alpha_pattern`: `(`"),
        ("base_model_name_or_path", "owner/absent".into(), "is \"owner/absent\""),
        ("base_model_name_or_path", "".into(), "`base_model_name_or_path` is missing"),
    ] {
        let said = with(key, value).unwrap_err();
        assert!(said.contains("adapter_config.json: ") && said.contains(says), "{key}: {said}");
    }
    // A base of the last part of its name, beside the adapter.
    copy(&fixture("parity/blip"), &folder.path().join("blip-base"));
    assert_eq!(with("base_model_name_or_path", "Salesforce/blip-base".into()), Ok(()));

    let file = adapter.join("adapter_model.safetensors");
    let whole = WeightFile::open(&file).unwrap().read_all().unwrap();
    let (name, tensor) = whole.iter().next().map(|(n, t)| (n.clone(), t.clone())).unwrap();
    let mut more = whole.clone();
    for half in ["A", "B"] {
        more.insert(format!("base_model.model.what.lora_{half}.weight"), tensor.clone());
    }
    more.get_mut("base_model.model.what.lora_B.weight").unwrap().shape.reverse();
    tensors::write(&file, &more, [].into()).unwrap();
    let unknown = load(&adapter, &Device::flex()).unwrap_err();
    assert!(
        matches!(&unknown, CheckpointError::UnexpectedTensor { tensor, .. } if tensor.contains("what"))
            || matches!(&unknown, CheckpointError::TensorShape { .. }),
        "{unknown}"
    );
    let mut fewer = whole;
    fewer.remove(&name);
    tensors::write(&file, &fewer, [].into()).unwrap();
    let missing = load(&adapter, &Device::flex()).unwrap_err();
    assert!(matches!(missing, CheckpointError::MissingTensor { .. }), "{missing}");
}

#[test]
fn tensors_are_read_under_the_names_that_they_have_in_memory_and_in_wrappers() {
    let vit = |name: &str| {
        let plain = name.strip_prefix("encoder.encoder.layer.");
        plain.map_or(name.to_string(), |rest| {
            format!("encoder.layers.{rest}")
                .replace("attention.attention.query", "attention.q_proj")
                .replace("attention.attention.key", "attention.k_proj")
                .replace("attention.attention.value", "attention.v_proj")
                .replace("attention.output.dense", "attention.o_proj")
                .replace("intermediate.dense", "mlp.fc1")
                .replace("output.dense", "mlp.fc2")
        })
    };
    let wrapped = |name: &str| format!("_orig_mod.module.{name}");
    let inner = |name: &str| name.replacen("encoder.", "encoder._orig_mod.", 1);
    let ways: [&dyn Fn(&str) -> String; 3] = [&vit, &wrapped, &inner];
    for (way, rename) in ways.into_iter().enumerate() {
        let base = fixture("parity/deit-gpt2");
        let folder = tempfile::tempdir().unwrap();
        copy(&base, folder.path());
        let file = folder.path().join("model.safetensors");
        let all = WeightFile::open(&file).unwrap().read_all().unwrap();
        let renamed: HostTensors =
            all.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect();
        assert!(renamed.keys().ne(all.keys()), "{way}");
        tensors::write(&file, &renamed, [].into()).unwrap();
        assert!(weights(folder.path()) == weights(&base), "{way}");
    }
}

#[test]
fn the_last_checkpoint_of_a_run_of_transformers_is_found_and_a_missing_folder_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["run/checkpoint-90", "run/checkpoint-500", "run/checkpoint-tmp"] {
        fs::create_dir_all(at(name)).unwrap();
        fs::write(at(name).join("config.json"), "{}").unwrap();
    }
    assert_eq!(locate(&at("run")).unwrap(), at("run/checkpoint-500"));
    let said = locate(&at("runn")).unwrap_err().to_string();
    assert!(said.contains("no such folder"), "{said}");
    fs::create_dir_all(at("mine/best")).unwrap();
    fs::write(at("mine/best/config.json"), "{}").unwrap();
    let said = locate(&at("mien")).unwrap_err().to_string();
    assert!(said.contains("no such folder; beside it are `mine`"), "{said}");
    let said = locate(folder.path()).unwrap_err().to_string();
    assert!(said.contains("no checkpoint here"), "{said}");
    // What a trainer left aside is read where it lies.
    fs::rename(at("mine/best"), at("mine/.best.old")).unwrap();
    assert_eq!(locate(&at("mine")).unwrap(), at("mine/.best.old"));
    assert!(at("mine/.best.old").exists() && !at("mine/best").exists());
}
