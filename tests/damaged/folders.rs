//! Model folders whose JSON is damaged, or made to do harm: each is an error that names file and key, or
//! still a load, and never a panic, a hang or much memory.

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::capped::{ALLOCATOR, alone};
use crate::common::{copy_folder, patchword, run, with_causes};
use burn::tensor::Device;
use patchword::checkpoint::{self, Checkpoint};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// The models are of 0.1 MB.
const MOST: usize = 32 << 20;

fn copy(case: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity");
    copy_folder(&root.join(case), folder.path());
    folder
}

/// Loads within [`MOST`] bytes and a minute.
fn load(folder: &Path) -> Result<Checkpoint, String> {
    ALLOCATOR.set_limit(ALLOCATOR.allocated() + MOST).expect("the limit is above what there is");
    let (folder, (sender, receiver)) = (folder.to_path_buf(), mpsc::channel());
    thread::spawn(move || {
        let _ = sender.send(checkpoint::load(&folder, &Device::flex()));
    });
    let loaded = receiver.recv_timeout(Duration::from_secs(60)).expect("neither hangs nor panics");
    ALLOCATOR.set_limit(usize::MAX).expect("no limit");
    loaded.map_err(|error| {
        let said = with_causes(&error);
        assert!(said.len() < 1000, "more than a reader wants: {said}");
        said
    })
}

/// Sets what is at `path`, keys with dots between, in a file of `folder`.
fn set(folder: &Path, file: &str, path: &str, value: Value) {
    let file = folder.join(file);
    let mut root: Value = match fs::read(&file) {
        Ok(text) => serde_json::from_slice(&text).unwrap(),
        Err(_) => json!({}),
    };
    let mut at = &mut root;
    for key in path.split('.') {
        at = at.as_object_mut().unwrap().entry(key).or_insert(json!({}));
    }
    *at = value;
    fs::write(file, root.to_string()).unwrap();
}

#[test]
fn sizes_beyond_reason_are_refused_by_their_key() {
    let _alone = alone();
    let billion = json!(1_000_000_000u64);
    let trillion = json!(1_000_000_000_000u64);
    let most = json!(u64::MAX);
    let config = "config.json";
    let cases = [
        ("blip", "vision_config.hidden_size", billion.clone(), config),
        ("blip", "vision_config.hidden_size", json!(65536), "model.safetensors"),
        ("blip", "vision_config.num_hidden_layers", json!(1_000_000), config),
        ("blip", "vision_config.num_hidden_layers", json!(1000), "model.safetensors"),
        ("blip", "vision_config.intermediate_size", most.clone(), config),
        ("blip", "vision_config.num_attention_heads", most.clone(), config),
        ("blip", "vision_config.patch_size", most.clone(), config),
        ("blip", "vision_config.image_size", billion.clone(), config),
        ("blip", "vision_config.image_size", most.clone(), config),
        ("blip", "text_config.vocab_size", trillion.clone(), config),
        ("blip", "text_config.vocab_size", json!(4_000_000), "model.safetensors"),
        ("blip", "text_config.max_position_embeddings", trillion.clone(), config),
        ("blip", "text_config.num_hidden_layers", most.clone(), config),
        ("blip", "text_config.bos_token_id", billion.clone(), config),
        ("blip", "text_config.sep_token_id", billion.clone(), config),
        ("vit-roberta", "decoder.pad_token_id", trillion, config),
        ("deit-gpt2", "decoder.n_embd", billion, config),
        ("deit-gpt2", "encoder.image_size", json!([most, most]), config),
        ("deit-gpt2", "model_type", json!("x".repeat(100_000)), config),
        ("deit-gpt2", "decoder", json!("x".repeat(100_000)), config),
    ];
    for (case, key, value, named) in cases {
        let folder = copy(case);
        set(folder.path(), config, key, value.clone());
        let said = load(folder.path()).map(drop).unwrap_err();
        assert!(said.contains(named), "{key}: {said}");
    }
}

#[test]
fn decoding_beyond_reason_is_refused_by_its_key() {
    let _alone = alone();
    let billion = json!(1_000_000_000u64);
    for (key, named) in [
        ("decoder_start_token_id", "`decoder_start_token_id` is 1000000000"),
        ("eos_token_id", "`eos_token_id` is 1000000000"),
        ("num_beams", "`num_beams`: 1000000000"),
        ("num_return_sequences", "`num_captions`: 1000000000"),
        ("min_new_tokens", "`min_new_tokens`: 1000000000"),
    ] {
        let folder = copy("deit-gpt2");
        set(folder.path(), "generation_config.json", "do_sample", json!(true));
        set(folder.path(), "generation_config.json", key, billion.clone());
        let said = load(folder.path()).map(drop).unwrap_err();
        assert!(said.contains("generation_config.json"), "{key}: {said}");
        assert!(said.contains(named), "{key}: {said}");
    }
    // A token that only fills batches up may have been added to the tokenizer and not to the model.
    let folder = copy("deit-gpt2");
    for file in ["generation_config.json", "config.json"] {
        set(folder.path(), file, "pad_token_id", billion.clone());
    }
    let special = load(folder.path()).unwrap().tokenizer.special_tokens();
    assert_eq!(special.pad, special.eos);
}

#[test]
fn a_tokenizer_is_not_believed() {
    let _alone = alone();
    let folder = copy("deit-gpt2");
    let whole = load(folder.path()).unwrap().tokenizer.to_json().unwrap();
    let file = "tokenizer.json";
    let replace =
        json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(1000)});
    let growing = json!([replace, replace, replace, replace]);
    let cases = [
        ("normalizer", json!({"type": "Sequence", "normalizers": growing}), "times as long"),
        ("decoder", json!({"type": "Sequence", "decoders": growing}), "times as long"),
        (
            "normalizer",
            json!({"type": "Precompiled", "precompiled_charsmap": "/////w=="}),
            "Precompiled",
        ),
        (
            "normalizer",
            json!({"type": "Precompiled", "precompiled_charsmap": "BAAAAAEAAAA="}),
            "Precompiled",
        ),
        ("model.continuing_subword_prefix", json!("x".repeat(1000)), "makes no token"),
        ("model.merges", json!([["a", "nothing"]]), "makes no token"),
        ("model.vocab.zzz", json!(u32::MAX), "belongs to another model"),
        ("model.vocab.zzz", json!(1u64 << 40), "not a tokenizer"),
    ];
    for (key, value, words) in cases {
        fs::write(folder.path().join(file), &whole).unwrap();
        set(folder.path(), file, key, value);
        let said = load(folder.path()).map(drop).unwrap_err();
        assert!(said.contains(file) && said.contains(words), "{key}: {said}");
    }
    for text in ["", "null", "[]", "\0\0", &"{\"a\":".repeat(100_000), &whole[..whole.len() / 2]] {
        fs::write(folder.path().join(file), text).unwrap();
        let said = load(folder.path()).map(drop).unwrap_err();
        assert!(said.contains(file), "{said}");
    }
    // What is asked for in batches does not matter to captions.
    for (key, value) in [
        (
            "padding",
            json!({"strategy": {"Fixed": 1u64 << 40}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "!"}),
        ),
        (
            "truncation",
            json!({"max_length": 0, "strategy": "LongestFirst", "stride": 5, "direction": "Right"}),
        ),
    ] {
        fs::write(folder.path().join(file), &whole).unwrap();
        set(folder.path(), file, key, value);
        let ids = load(folder.path()).unwrap().tokenizer.encode("a small red circle").unwrap();
        assert!((4..40).contains(&ids.len()), "{key}: {ids:?}");
    }
}

#[test]
fn an_index_names_files_beside_it() {
    let _alone = alone();
    let folder = copy("blip");
    let at = |name: &str| folder.path().join(name);
    fs::rename(at("model.safetensors"), at("shard.safetensors")).unwrap();
    fs::create_dir(at("folder")).unwrap();
    let name = "model.safetensors.index.json";
    let load_with = |map: Value| {
        fs::write(at(name), json!({ "weight_map": map }).to_string()).unwrap();
        load(folder.path()).map(drop)
    };
    assert_eq!(load_with(json!({"a": "shard.safetensors", "b": "shard.safetensors"})), Ok(()));
    for outside in [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        ".",
        "",
        "folder/shard.safetensors",
        "./shard.safetensors",
    ] {
        let said = load_with(json!({ "a": outside })).unwrap_err();
        assert!(said.contains(name) && said.contains("outside of the folder"), "{outside}: {said}");
    }
    for (file, words) in [
        ("elsewhere.safetensors", "elsewhere.safetensors"),
        ("folder", "expected a file of weights"),
        // An index is no shard, itself least of all.
        (name, "not a whole safetensors file"),
    ] {
        let said = load_with(json!({"a": "shard.safetensors", "b": file})).unwrap_err();
        assert!(said.contains(file) && said.contains(words), "{file}: {said}");
    }
    for value in [json!(5), json!(null), json!(["shard.safetensors"])] {
        let said = load_with(json!({"a": "shard.safetensors", "b.c": value})).unwrap_err();
        assert!(said.contains(name) && said.contains("`b.c`"), "{said}");
    }
    let many: Map<String, Value> =
        (0..10_000).map(|n| (format!("tensor.{n}"), format!("shard-{n}").into())).collect();
    let said = load_with(Value::Object(many)).unwrap_err();
    assert!(said.contains("shard-0"), "{said}");
}

/// What gives bytes without end, or waits for someone to write them.
#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_read() {
    let _alone = alone();
    let pipe = |path: &Path| {
        std::process::Command::new("mkfifo").arg(path).status().is_ok_and(|status| status.success())
    };
    let endless = |path: &Path| std::os::unix::fs::symlink("/dev/zero", path).is_ok();
    for file in ["config.json", "preprocessor_config.json", "model.safetensors", "vocab.txt"] {
        for make in [&pipe as &dyn Fn(&Path) -> bool, &endless] {
            let folder = copy("blip");
            fs::remove_file(folder.path().join(file)).unwrap();
            if make(&folder.path().join(file)) {
                assert!(load(folder.path()).is_err(), "{file}");
            }
        }
    }
    let folder = copy("blip");
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let index = json!({"weight_map": {"a": "shard"}}).to_string();
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    if pipe(&folder.path().join("shard")) {
        let said = load(folder.path()).map(drop).unwrap_err();
        assert!(said.contains("expected a file of weights"), "{said}");
    }
}

/// As a user meets it: one error, no talk of a bug.
#[test]
fn the_program_says_it_in_one_line() {
    let _alone = alone();
    let folder = copy("deit-gpt2");
    let photo = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/photo.png");
    let whole = load(folder.path()).unwrap().tokenizer.to_json().unwrap();
    fs::write(folder.path().join("tokenizer.json"), &whole).unwrap();
    for (file, key, value) in [
        ("generation_config.json", "decoder_start_token_id", json!(600)),
        ("tokenizer.json", "model.continuing_subword_prefix", json!("##")),
        (
            "tokenizer.json",
            "normalizer",
            json!({"type": "Precompiled", "precompiled_charsmap": ""}),
        ),
    ] {
        let before = fs::read(folder.path().join(file)).unwrap();
        set(folder.path(), file, key, value);
        let ended = run(patchword().arg("caption").arg(&photo).arg("--model").arg(folder.path()));
        assert!(!ended.is_a_bug(), "{ended:#?}");
        assert_eq!((ended.code, ended.lines("error: ").len()), (1, 1), "{ended:#?}");
        assert!(ended.stderr.contains(file), "{ended:#?}");
        fs::write(folder.path().join(file), before).unwrap();
    }
}
