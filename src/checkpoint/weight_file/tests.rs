use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::shared::shared;

/// Files that Python wrote; `make_testdata.py` lies beside them.
fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/checkpoint/weight_file/testdata").join(name)
}

fn error(path: &Path) -> String {
    WeightFile::open(path).unwrap_err().to_string()
}

#[test]
fn every_form_of_torch_save_gives_the_tensors_that_were_saved() {
    for name in ["zip.pth", "protocol4.pth", "stream.pth"] {
        let file = WeightFile::open(&testdata(name)).unwrap();
        let names: Vec<&str> = file.names().collect();
        let expected = [
            "a",
            "brain",
            "empty",
            "expanded",
            "half",
            "ids",
            "parameter",
            "scalar",
            "tied",
            "transposed",
            "window",
        ];
        assert_eq!(names, expected, "{name}");
        let tensor = |name: &str| {
            let HostTensor { shape, values } = file.read(name).unwrap();
            (shape, values)
        };
        let counted = vec![0.5, 1.5, 2.5, 3.5, 4.5, 5.5];
        assert_eq!(tensor("a"), (vec![2, 3], counted.clone()), "{name}");
        assert_eq!(tensor("tied"), (vec![2, 3], counted), "{name}");
        assert_eq!(tensor("transposed"), (vec![3, 2], vec![0.5, 3.5, 1.5, 4.5, 2.5, 5.5]));
        assert_eq!(tensor("window"), (vec![2, 2], vec![6.0, 8.0, 11.0, 13.0]), "{name}");
        assert_eq!(tensor("half"), (vec![3], vec![1.5, -2.0, 65504.0]), "{name}");
        assert_eq!(tensor("brain"), (vec![3], vec![1.5, -2.0, 3.0]), "{name}");
        assert_eq!(tensor("scalar"), (vec![], vec![2.5]), "{name}");
        assert_eq!(tensor("empty"), (vec![0, 4], vec![]), "{name}");
        assert_eq!(tensor("expanded"), (vec![3, 2], vec![7.0; 6]), "{name}");
        assert_eq!(tensor("parameter"), (vec![2], vec![4.0, 5.0]), "{name}");
        let ids: Vec<u8> = [0i64, 1, 2].iter().flat_map(|id| id.to_le_bytes()).collect();
        assert_eq!((file.dtype("ids"), file.read_bytes("ids").unwrap()), (Some(Dtype::I64), ids));
        let refused = file.read("ids").unwrap_err().to_string();
        assert!(refused.contains("`ids` is I64"), "{refused}");
        assert_eq!(file.read_rows("a", 1..2).unwrap(), [3.5, 4.5, 5.5], "{name}");
        assert_eq!(file.read_rows("transposed", 1..3).unwrap(), [1.5, 4.5, 2.5, 5.5], "{name}");
        assert!(file.read_rows("a", 1..3).is_err(), "{name}");
        assert!(file.same("a", "tied").unwrap() && !file.same("a", "transposed").unwrap());
        assert!(matches!(file.read("b"), Err(CheckpointError::MissingTensor { tensor, .. })
            if tensor == "b"));
    }
    let module = WeightFile::open(&testdata("module.bin")).unwrap();
    assert_eq!(module.read("weight").unwrap().values, [1.0, 2.0]);
    assert_eq!(module.read("bias").unwrap().values, [3.0]);
}

#[test]
fn torchvisions_own_file_is_read() {
    let Some(path) = shared("weights/mobilenet_v2-b0353104.pth") else { return };
    let file = WeightFile::open(&path).unwrap();
    assert_eq!(file.names().count(), 314);
    let first = file.read("features.0.0.weight").unwrap();
    assert_eq!(first.shape, [32, 3, 3, 3]);
    assert_eq!(first.values[..2], [0.013_185_34, -0.004_321_294_4]);
    let sum = |name: &str| {
        file.read(name).unwrap().values.iter().map(|&value| f64::from(value)).sum::<f64>()
    };
    // As torch.load(..., weights_only=True) sums them.
    assert!((sum("features.0.0.weight") + 0.773_071_634).abs() < 1e-8);
    assert!((sum("features.18.0.weight") + 98.1451).abs() < 1e-3);
    assert_eq!(file.shape("classifier.1.weight"), Some(&[1000, 1280][..]));
}

#[test]
fn a_pickle_that_asks_for_more_is_refused_and_not_run() {
    for name in ["command.bin", "command_stream.bin"] {
        let said = error(&testdata(name));
        assert!(said.contains(name) && said.contains("`posix.system`"), "{said}");
    }
    let said = error(&testdata("whole_module.bin"));
    assert!(said.contains("`torch.nn.modules.linear.Linear`"), "{said}");
}

#[test]
fn what_is_no_file_of_weights_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let file = folder.path().join(name);
        fs::write(&file, bytes).unwrap();
        file
    };
    let pointer = write("pytorch_model.bin", b"version https://git-lfs.github.com/spec/v1\n");
    let said = error(&pointer);
    assert!(said.contains("pytorch_model.bin") && said.contains("Git LFS"), "{said}");
    let page = write("page.safetensors", b"\n<!DOCTYPE html>\n<html>");
    assert!(error(&page).contains("page.safetensors: a web page"), "{}", error(&page));
    let other = write("weights.bin", b"no weights");
    assert!(error(&other).contains("torch.save"));
    assert!(error(&write("model.safetensors", b"{}")).contains("it has 2 bytes"));
    let outside = write("model.safetensors.index.json", br#"{"weight_map": {"a": "../b"}}"#);
    assert!(error(&outside).contains("outside of the folder"));
    let nowhere = write("other.index.json", br#"{"weight_map": {"a": ".."}}"#);
    assert!(error(&nowhere).contains("outside of the folder"));
    let absent = write("third.index.json", br#"{"weight_map": {"a": "absent.safetensors"}}"#);
    assert!(error(&absent).contains("absent.safetensors"));
}

#[test]
fn weights_are_found_under_every_usual_name() {
    let one = testdata("zip.pth");
    let names = |files: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            fs::copy(&one, folder.path().join(file)).unwrap();
        }
        let found = WeightFile::find(folder.path()).map_err(|error| error.to_string());
        found.map(|found| {
            let names = found.parts.iter().map(|part| part.path.file_name().unwrap().to_owned());
            names.map(|name| name.into_string().unwrap()).collect::<Vec<_>>()
        })
    };
    for name in [
        "model.safetensors",
        "pytorch_model.bin",
        "model.fp16.safetensors",
        "pytorch_model.bf16.bin",
    ] {
        assert_eq!(names(&[name]), Ok(vec![name.to_string()]));
    }
    assert_eq!(
        names(&["model.fp16.safetensors", "model.safetensors"]),
        Ok(vec!["model.safetensors".to_string()])
    );
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    assert_eq!(names(&shards), Ok(shards.map(String::from).to_vec()));
    let cut = names(&shards[..1]).unwrap_err();
    assert!(cut.contains("is one of 2 shards, of which 1 are here"), "{cut}");
    let shards = ["pytorch_model.fp16-00001-of-00001.bin"];
    assert_eq!(names(&shards), Ok(shards.map(String::from).to_vec()));
    let foreign = names(&["tf_model.h5"]).unwrap_err();
    assert!(foreign.contains("`tf_model.h5` is for TensorFlow"), "{foreign}");
    let other = names(&["best.pth"]).unwrap_err();
    assert!(other.contains("`best.pth`"), "{other}");
}

#[test]
fn an_index_of_a_variant_is_an_index() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(testdata("zip.pth"), folder.path().join("model.fp16-00001-of-00001.safetensors"))
        .unwrap();
    let index = r#"{"weight_map": {"a": "model.fp16-00001-of-00001.safetensors"}}"#;
    fs::write(folder.path().join("model.safetensors.index.fp16.json"), index).unwrap();
    let found = WeightFile::find(folder.path()).unwrap();
    assert!(found.origin().ends_with("model.safetensors.index.fp16.json") && found.contains("a"));
}

#[test]
fn what_wrappers_put_into_names_is_left_out() {
    let plain = |names: &[&str]| folder::unwrapped(names.iter().copied());
    assert_eq!(plain(&["module.a.b", "module.c"]), ["a.b", "c"]);
    assert_eq!(plain(&["_orig_mod.module.a", "_orig_mod.module.b"]), ["a", "b"]);
    assert_eq!(plain(&["module.model.encoder._orig_mod.x"]), ["encoder.x"]);
    assert_eq!(plain(&["encoder._fsdp_wrapped_module.a", "b"]), ["encoder.a", "b"]);
    // Not what only some begin with.
    assert_eq!(plain(&["model.a", "b"]), ["model.a", "b"]);
    assert_eq!(plain(&[]), Vec::<String>::new());
}
