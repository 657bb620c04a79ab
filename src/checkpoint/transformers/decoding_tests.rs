//! What is decoded by other settings than the parity cases have, against what transformers decodes
//! (`tests/fixtures/make_generation.py` wrote it and says how), and `generation_config.json`.

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::load;
use super::tests::{cases, copy, error_of};
use crate::generate::{EarlyStopping, GenerateConfig, generate_from_memory};

/// One way to decode the two photos of a case.
#[derive(Deserialize)]
struct Way {
    name: String,
    config: GenerateConfig,
    /// Without the begin token.
    prompt: Vec<u32>,
    /// Without the prompt, without padding; a row each sequence.
    ids: Vec<Vec<u32>>,
    scores: Option<Vec<f32>>,
}

#[test]
fn every_strategy_decodes_what_transformers_decodes() {
    let mut all: Map<String, Value> =
        serde_json::from_str(include_str!("../../../tests/fixtures/generation.json")).unwrap();
    for case in cases() {
        let ways: Vec<Way> = serde_json::from_value(all.remove(case.name).unwrap()).unwrap();
        assert!(ways.len() > 20, "{}", case.name);
        let memory = case.memory();
        let special = case.checkpoint.tokenizer.special_tokens();
        for Way { name, config, prompt, ids, scores } in ways {
            let what = format!("{} {name}", case.name);
            let prompt = [vec![special.bos], prompt].concat();
            let model = &case.checkpoint.model;
            let said = generate_from_memory(model, &memory, &prompt, special.eos, &config, 1);
            let said = said.unwrap();
            let ours: Vec<&[u32]> = said.iter().map(|one| &one.ids[prompt.len()..]).collect();
            assert_eq!(ours, ids, "{what}");
            for (one, score) in said.iter().zip(scores.into_iter().flatten()) {
                let distance = (one.score - score).abs();
                // These models amplify rounding, transformers' own as well: see `tests`.
                assert!(distance < 1.5e-3 * score.abs().max(1.0), "{what}: {} {score}", one.score);
            }
        }
    }
}

fn write(folder: &Path, name: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    let file = folder.join(name);
    let mut fields: Map<String, Value> =
        serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    change(&mut fields);
    fs::write(file, Value::Object(fields).to_string()).unwrap();
}

/// Settings added to a `generation_config.json`.
fn with(folder: &Path, settings: Value) {
    write(folder, "generation_config.json", |fields| {
        for (key, value) in settings.as_object().unwrap() {
            fields.insert(key.clone(), value.clone());
        }
    });
}

#[test]
fn generation_config_is_honoured() {
    let Some(folder) = copy("vit-gpt2") else { return };
    let folder = folder.path();
    let read = || load(folder, &Device::flex()).unwrap();
    let plain = read().generate;
    let expected =
        GenerateConfig { num_beams: 1, max_new_tokens: 20, top_k: 50, ..GenerateConfig::default() };
    assert_eq!(plain, expected, "transformers' own defaults");
    with(
        folder,
        json!({
            "num_beams": 4, "num_return_sequences": 2, "max_length": 9, "min_length": 3,
            "early_stopping": "never", "length_penalty": -0.5, "no_repeat_ngram_size": 3,
            "repetition_penalty": 1.5, "do_sample": true, "temperature": 0.5, "top_k": 7,
            "top_p": 0.25, "eos_token_id": [0, 17, 18], "suppress_tokens": [4, 5],
            "begin_suppress_tokens": [6], "bad_words_ids": [[7], [8, 9]],
            "forced_bos_token_id": 10, "forced_eos_token_id": 0, "typical_p": 1.0,
            "num_beam_groups": 1, "diversity_penalty": 0.0, "constraints": null, "guidance_scale": null,
        }),
    );
    let checkpoint = read();
    assert_eq!(checkpoint.tokenizer.special_tokens().eos, 0);
    let expected = GenerateConfig {
        num_beams: 4,
        num_captions: 2,
        max_new_tokens: 8,
        max_length: Some(9),
        min_length: 3,
        length_penalty: -0.5,
        early_stopping: EarlyStopping::Never,
        no_repeat_ngram_size: 3,
        repetition_penalty: 1.5,
        do_sample: true,
        temperature: 0.5,
        top_k: 7,
        top_p: 0.25,
        eos_token_ids: vec![17, 18],
        suppress_tokens: vec![4, 5],
        begin_suppress_tokens: vec![6],
        bad_words_ids: vec![vec![7], vec![8, 9]],
        forced_bos_token_id: Some(10),
        forced_eos_token_ids: vec![0],
        ..GenerateConfig::default()
    };
    assert_eq!(checkpoint.generate, expected);
    // New tokens take precedence over lengths in all.
    with(folder, json!({ "max_new_tokens": 5, "min_new_tokens": 2 }));
    let both = read().generate;
    assert_eq!((both.max_new_tokens, both.max_length), (5, None));
    assert_eq!((both.min_new_tokens, both.min_length), (2, 0));
}

#[test]
fn old_settings_stand_in_the_config_of_the_model_or_of_its_decoder() {
    let Some(folder) = copy("vit-gpt2") else { return };
    let folder = folder.path();
    fs::remove_file(folder.join("generation_config.json")).unwrap();
    write(folder, "config.json", |fields| {
        fields.insert("num_beams".into(), 2.into());
        let decoder = fields["decoder"].as_object_mut().unwrap();
        decoder.insert("max_length".into(), 9.into());
        decoder.insert("num_beams".into(), 5.into());
    });
    let generate = load(folder, &Device::flex()).unwrap().generate;
    assert_eq!((generate.num_beams, generate.max_new_tokens), (2, 8));
}

#[test]
fn what_we_cannot_decode_by_is_refused_by_name() {
    let Some(folder) = copy("blip") else { return };
    let folder = folder.path();
    let file = folder.join("generation_config.json");
    let original = fs::read(&file).unwrap();
    for (settings, key) in [
        (json!({ "num_beam_groups": 2 }), "num_beam_groups"),
        (json!({ "min_p": 0.1 }), "min_p"),
        (json!({ "guidance_scale": 2.0 }), "guidance_scale"),
        (json!({ "stop_strings": ["."] }), "stop_strings"),
        (json!({ "renormalize_logits": true }), "renormalize_logits"),
        (json!({ "sequence_bias": [[[3], -1.0]] }), "sequence_bias"),
        (json!({ "fancy_new_search": 2 }), "fancy_new_search"),
        (json!({ "early_stopping": "always" }), "early_stopping"),
        (json!({ "bad_words_ids": [3] }), "bad_words_ids"),
        (json!({ "suppress_tokens": [-1] }), "suppress_tokens"),
        (json!({ "top_p": 1.5 }), "top_p"),
        (json!({ "num_return_sequences": 2 }), "num_return_sequences"),
    ] {
        fs::write(&file, &original).unwrap();
        with(folder, settings);
        let error = error_of(folder);
        assert!(error.contains("generation_config.json") && error.contains(key), "{key}: {error}");
    }
    // What says how to compute, or sets what is so anyway, is no matter.
    fs::write(&file, original).unwrap();
    with(folder, json!({ "use_cache": false, "temperature": 0.0, "num_beam_groups": 1 }));
    load(folder, &Device::flex()).unwrap();
}
