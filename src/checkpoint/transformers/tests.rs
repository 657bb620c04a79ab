//! Parity with what transformers computes for small random models of the public architectures. The
//! cases were made with `python3 make_parity.py OUT --photos DIR --captions FILE`, which lies beside
//! them; they are skipped, and said to be, where they are absent.

use std::fs;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Int, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, SafeTensors};

use super::super::tensors::HostTensors;
use super::super::{CheckpointError, load};
use super::*;
use crate::generate::{EarlyStopping, GenerateConfig, generate_from_memory};
use crate::image::{DecodeLimits, decode_file};
use crate::model::AttentionTrace;
use crate::shared::shared;

const CASES: [&str; 3] = ["blip", "vit-gpt2", "vit-bert"];

pub(super) struct Case {
    pub name: &'static str,
    folder: PathBuf,
    pub checkpoint: Checkpoint,
    expected: Vec<u8>,
    said: Value,
}

pub(super) fn cases() -> Vec<Case> {
    let case = |name| {
        let folder = shared(&format!("parity/{name}"))?;
        let checkpoint = load(&folder, &Device::flex()).unwrap();
        let expected = fs::read(folder.join("expected.safetensors")).unwrap();
        let said = fs::read(folder.join("expected.json")).unwrap();
        let said = serde_json::from_slice(&said).unwrap();
        Some(Case { name, folder, checkpoint, expected, said })
    };
    CASES.into_iter().filter_map(case).collect()
}

impl Case {
    fn floats<const D: usize>(&self, name: &str) -> Tensor<D> {
        let file = SafeTensors::deserialize(&self.expected).unwrap();
        let view = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::F32);
        let bytes = view.data().as_chunks::<4>().0;
        let values: Vec<f32> = bytes.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        let shape: [usize; D] = view.shape().try_into().unwrap();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    fn ids(&self) -> (Vec<i64>, [usize; 2]) {
        let file = SafeTensors::deserialize(&self.expected).unwrap();
        let view = file.tensor("input_ids").unwrap();
        let bytes = view.data().as_chunks::<8>().0;
        let values = bytes.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect();
        (values, view.shape().try_into().unwrap())
    }

    pub fn memory(&self) -> Tensor<3> {
        self.checkpoint.model.encode(self.floats("pixel_values"))
    }
}

/// The largest difference over the largest value.
fn apart<const D: usize>(ours: Tensor<D>, theirs: Tensor<D>) -> f32 {
    assert_eq!(ours.dims(), theirs.dims());
    let scale = theirs.clone().abs().max().into_scalar::<f32>();
    (ours - theirs).abs().max().into_scalar::<f32>() / scale
}

#[test]
fn encoder_states_are_those_of_transformers() {
    for case in cases() {
        // What is compared is what cross-attention reads; a projection comes after it.
        if !case.checkpoint.model.config().decoder.memory_projection {
            let apart = apart(case.memory(), case.floats("encoder"));
            eprintln!("{}: encoder {apart:.1e}", case.name);
            assert!(apart < 1e-4, "{}: {apart}", case.name);
        }
    }
}

#[test]
fn logits_attention_and_loss_are_those_of_transformers() {
    for case in cases() {
        let (ids, [batch, seq]) = case.ids();
        let data = TensorData::new(ids.clone(), [batch, seq]);
        let input: Tensor<2, Int> = Tensor::from_data(data, &Device::flex());
        let mut trace = AttentionTrace::new();
        let model = &case.checkpoint.model;
        let logits = model.decode_with_trace(input, case.memory(), &mut trace);
        let expected: Tensor<3> = case.floats("logits");
        let distance = apart(logits.clone(), expected);
        eprintln!("{}: logits {distance:.1e}", case.name);
        assert!(distance < 5e-4, "{}: logits {distance}", case.name);
        for (layer, weights) in trace.cross_attention.into_iter().enumerate() {
            let expected: Tensor<4> = case.floats(&format!("cross_attention.{layer}"));
            let distance = (weights.weights - expected).abs().max().into_scalar::<f32>();
            eprintln!("{}: attention of layer {layer} {distance:.1e}", case.name);
            assert!(distance < 2e-3, "{}: attention of layer {layer} {distance}", case.name);
        }
        let vocab = logits.dims()[2];
        let rows = batch * (seq - 1);
        let logits = logits.narrow(1, 0, seq - 1).reshape([rows, vocab]);
        let next = |row: usize| ids[row * seq + 1..(row + 1) * seq].iter().copied();
        let targets: Vec<i64> = (0..batch).flat_map(next).collect();
        let targets: Tensor<2, Int> =
            Tensor::from_data(TensorData::new(targets, [rows, 1]), &Device::flex());
        let picked = log_softmax(logits, 1).gather(1, targets);
        let loss = -picked.mean().into_scalar::<f32>();
        let expected = case.floats::<1>("loss").into_scalar::<f32>();
        eprintln!("{}: loss {:.1e}", case.name, (loss - expected).abs() / expected);
        assert!((loss - expected).abs() < 1e-4 * expected, "{}: {loss} {expected}", case.name);
    }
}

#[test]
fn greedy_and_beam_ids_and_scores_are_those_of_transformers() {
    for case in cases() {
        let special = case.checkpoint.tokenizer.special_tokens();
        assert_eq!(case.said["start"], special.bos, "{}", case.name);
        let with = |num_beams| GenerateConfig {
            num_beams,
            max_new_tokens: 16,
            ..case.checkpoint.generate.clone()
        };
        let ways = [
            ("greedy", with(1)),
            ("beam3", with(3)),
            (
                "beam4_ngram2_lp2",
                GenerateConfig {
                    no_repeat_ngram_size: 2,
                    length_penalty: 2.0,
                    early_stopping: EarlyStopping::AtOnce,
                    ..with(4)
                },
            ),
            (
                "greedy_min10_rp13",
                GenerateConfig { min_new_tokens: 10, repetition_penalty: 1.3, ..with(1) },
            ),
            ("beam3_min10", GenerateConfig { min_new_tokens: 10, ..with(3) }),
        ];
        for (name, config) in ways {
            let model = &case.checkpoint.model;
            let (prompt, end) = ([special.bos], special.eos);
            let said =
                generate_from_memory(model, &case.memory(), &prompt, end, &config, 1).unwrap();
            let expected = case.said[name]["ids"].as_array().unwrap();
            for (image, (ours, theirs)) in said.iter().zip(expected).enumerate() {
                let mut theirs: Vec<u32> = serde_json::from_value(theirs.clone()).unwrap();
                // A row that ended early is filled up.
                if let Some(at) = theirs[1..].iter().position(|&id| id == end) {
                    theirs.truncate(at + 2);
                }
                assert_eq!(ours.ids, theirs, "{} {name}, image {image}", case.name);
                if let Some(score) = case.said[name]["scores"][image].as_f64() {
                    let distance = (f64::from(ours.score) - score).abs();
                    eprintln!("{} {name}: score {distance:.1e}", case.name);
                    assert!(distance < 1e-4, "{} {name}: {} {score}", case.name, ours.score);
                }
            }
        }
    }
}

#[test]
fn a_prompt_is_continued_as_by_transformers() {
    for case in cases() {
        let Some(text) = case.said["prompted"]["prompt"].as_str() else { continue };
        let tokenizer = &case.checkpoint.tokenizer;
        let special = tokenizer.special_tokens();
        let mut prompt = vec![special.bos];
        prompt.extend(tokenizer.encode(text).unwrap());
        let config = GenerateConfig::greedy(16);
        let (model, end) = (&case.checkpoint.model, special.eos);
        let said = generate_from_memory(model, &case.memory(), &prompt, end, &config, 1).unwrap();
        let expected = case.said["prompted"]["ids"].as_array().unwrap();
        for (ours, theirs) in said.iter().zip(expected) {
            let mut theirs: Vec<u32> = serde_json::from_value(theirs.clone()).unwrap();
            if let Some(at) = theirs.iter().position(|&id| id == end) {
                theirs.truncate(at + 1);
            }
            assert_eq!(ours.ids, theirs, "{}", case.name);
        }
    }
}

#[test]
fn pixels_are_those_of_transformers() {
    for case in cases() {
        let expected: Tensor<4> = case.floats("pixel_values");
        let [_, channels, height, width] = expected.dims();
        for (image, name) in ["a.png", "b.png"].into_iter().enumerate() {
            let photo = case.folder.join("..").join(name);
            let photo = decode_file(&photo, &DecodeLimits::default()).unwrap();
            let ours = case.checkpoint.preprocess.apply(&photo);
            let theirs = expected.clone().narrow(0, image, 1).into_data();
            assert_eq!(ours.len(), channels * height * width);
            let step = 1.0 / 255.0 / case.checkpoint.preprocess.std[0].min(0.25);
            let most = ours.iter().zip(theirs.iter::<f32>()).map(|(a, b)| (a - b).abs());
            let most = most.fold(0.0, f32::max);
            assert!(most <= step * 1.01, "{}: {most}", case.name);
        }
    }
}

/// These models amplify rounding: f32 results of transformers are up to 3e-3 from what exact weights
/// give, so that agreement closer than that is chance. Ours must be no farther off than theirs.
#[test]
fn states_and_logits_are_as_exact_as_those_of_transformers() {
    struct Widen;
    impl ModuleMapper for Widen {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.cast(DType::F64))
        }
    }
    fn far(x: Tensor<3>, exact: &Tensor<3>) -> f64 {
        let difference = (x.cast(DType::F64) - exact.clone()).abs().max();
        difference.into_data().iter::<f64>().next().unwrap()
    }
    for case in cases() {
        let model = &case.checkpoint.model;
        let wide = model.clone().map(&mut Widen);
        let exact_memory = wide.encode(case.floats::<4>("pixel_values").cast(DType::F64));
        let (ids, shape) = case.ids();
        let ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(ids, shape), &Device::flex());
        let exact_logits = wide.decode(ids.clone(), exact_memory.clone());
        let ours = far(model.decode(ids, case.memory()), &exact_logits);
        let theirs = far(case.floats("logits"), &exact_logits);
        eprintln!("{}: logits from exact ones {ours:.1e}, {theirs:.1e}", case.name);
        assert!(ours < 3.0 * theirs + 1e-5, "{}: logits {ours:e}, {theirs:e}", case.name);
        if !model.config().decoder.memory_projection {
            let ours = far(case.memory(), &exact_memory);
            let theirs = far(case.floats("encoder"), &exact_memory);
            assert!(ours < 3.0 * theirs + 1e-5, "{}: encoder {ours:e}, {theirs:e}", case.name);
        }
    }
}

/// A copy of a case whose files can be spoilt.
pub(super) fn copy(name: &str) -> Option<tempfile::TempDir> {
    let folder = shared(&format!("parity/{name}"))?;
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        fs::write(copy.path().join(entry.file_name()), fs::read(entry.path()).unwrap()).unwrap();
    }
    Some(copy)
}

pub(super) fn error_of(folder: &Path) -> String {
    load(folder, &Device::flex()).unwrap_err().to_string()
}

#[test]
fn unknown_architectures_are_refused_with_those_there_are() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), r#"{"model_type": "git"}"#).unwrap();
    let error = error_of(folder.path());
    assert!(error.contains("config.json"), "{error}");
    assert!(error.contains("`model_type` is \"git\""), "{error}");
    assert!(error.contains("BlipForConditionalGeneration"), "{error}");
}

#[test]
fn every_tensor_is_accounted_for_by_its_public_name() {
    let Some(folder) = copy("vit-gpt2") else { return };
    let file = folder.path().join("model.safetensors");
    let whole = WeightFile::open(&file).unwrap().read_all().unwrap();
    let spoilt = |change: &dyn Fn(&mut HostTensors)| {
        let mut tensors = whole.clone();
        change(&mut tensors);
        tensors::write(&file, &tensors, [].into()).unwrap();
        load(folder.path(), &Device::flex())
    };
    let name = "decoder.transformer.h.1.attn.c_attn.weight";
    let missing = spoilt(&|tensors| drop(tensors.remove(name)));
    assert!(
        matches!(missing, Err(CheckpointError::MissingTensor { tensor, .. }) if tensor == name)
    );
    let unknown = spoilt(&|tensors| {
        let other = tensors[name].clone();
        tensors.insert("decoder.transformer.h.7.what".into(), other);
    });
    assert!(matches!(unknown, Err(CheckpointError::UnexpectedTensor { tensor, .. })
        if tensor == "decoder.transformer.h.7.what"));
    let misshapen = spoilt(&|tensors| {
        let bias = tensors.get_mut("encoder.layernorm.bias").unwrap();
        bias.shape = vec![63];
        bias.values.pop();
    });
    assert!(matches!(misshapen, Err(CheckpointError::TensorShape { tensor, .. })
        if tensor == "encoder.layernorm.bias"));
}

#[test]
fn an_untied_head_has_its_own_matrix_and_a_tied_one_may_be_there_twice() {
    let Some(folder) = copy("vit-gpt2") else { return };
    let file = folder.path().join("model.safetensors");
    let mut tensors = WeightFile::open(&file).unwrap().read_all().unwrap();
    let mut head = tensors["decoder.transformer.wte.weight"].clone();
    let mut heads = |head: &tensors::HostTensor| {
        tensors.insert("decoder.lm_head.weight".into(), head.clone());
        tensors::write(&file, &tensors, [].into()).unwrap();
        load(folder.path(), &Device::flex()).unwrap().model.config().decoder.head
    };
    assert_eq!(heads(&head), crate::model::HeadKind::Tied);
    head.values[0] += 1.0;
    assert_eq!(heads(&head), crate::model::HeadKind::Untied);
}

#[test]
fn shards_are_read_through_their_index() {
    let Some(folder) = copy("blip") else { return };
    let file = folder.path().join("model.safetensors");
    let whole = WeightFile::open(&file).unwrap().read_all().unwrap();
    fs::remove_file(&file).unwrap();
    fs::remove_file(folder.path().join("pytorch_model.bin")).unwrap();
    let error = error_of(folder.path());
    assert!(error.contains("model.safetensors"), "{error}");
    let mut map = Map::new();
    let mut shards = [HostTensors::new(), HostTensors::new()];
    for (index, (name, tensor)) in whole.into_iter().enumerate() {
        shards[index % 2].insert(name.clone(), tensor);
        map.insert(name, format!("model-{}.safetensors", index % 2).into());
    }
    for (index, shard) in shards.iter().enumerate() {
        let file = folder.path().join(format!("model-{index}.safetensors"));
        tensors::write(&file, shard, [].into()).unwrap();
    }
    let index = serde_json::json!({ "weight_map": map }).to_string();
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    load(folder.path(), &Device::flex()).unwrap();
}

fn weights(model: &Path) -> HostTensors {
    tensors::parameters(&load(model, &Device::flex()).unwrap().model)
}

#[test]
fn a_pickle_gives_the_weights_that_safetensors_gives_whole_or_in_shards() {
    let Some(folder) = copy("blip") else { return };
    let at = |name: &str| folder.path().join(name);
    let expected = weights(folder.path());
    fs::remove_file(at("model.safetensors")).unwrap();
    assert_eq!(weights(folder.path()), expected);
    let mut all = WeightFile::open(&at("pytorch_model.bin")).unwrap().read_all().unwrap();
    fs::remove_file(at("pytorch_model.bin")).unwrap();
    let text = all.split_off("text_decoder.cls.predictions.bias");
    fs::write(at("pytorch_model-1.bin"), stream(&all, None)).unwrap();
    fs::write(at("pytorch_model-2.bin"), stream(&text, None)).unwrap();
    let map: Map<String, Value> = [(&all, 1), (&text, 2)]
        .into_iter()
        .flat_map(|(part, index)| {
            part.keys().map(move |name| (name.clone(), format!("pytorch_model-{index}.bin").into()))
        })
        .collect();
    let index = serde_json::json!({ "weight_map": map }).to_string();
    fs::write(at("pytorch_model.bin.index.json"), index).unwrap();
    assert_eq!(weights(folder.path()), expected);
}

#[test]
fn half_precision_files_are_widened() {
    let Some(folder) = copy("vit-bert") else { return };
    let file = folder.path().join("model.safetensors");
    let expected = weights(folder.path());
    let whole = WeightFile::open(&file).unwrap().read_all().unwrap();
    for (saved, error) in [(tensors::SavedType::F16, 1024.0), (tensors::SavedType::Bf16, 128.0)] {
        tensors::write_as(&file, &whole, saved, [].into()).unwrap();
        let narrow = weights(folder.path());
        for (name, tensor) in &expected {
            for (&was, &is) in tensor.values.iter().zip(&narrow[name].values) {
                // Positions are a sum of two tensors.
                let most = was.abs().max(1.0) / error;
                assert!((was - is).abs() <= most, "{name}: {was} {is}");
            }
        }
    }
}

/// Such a file as PyTorch wrote before 1.6, its tensors in a dict at `key` or at the root.
fn stream(tensors: &HostTensors, key: Option<&str>) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        out.push(b'X');
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
    }
    fn int(out: &mut Vec<u8>, value: usize) {
        out.push(b'J');
        out.extend((value as i32).to_le_bytes());
    }
    let mut out = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec();
    out.extend(b"\x80\x02M\xe9\x03.\x80\x02}.\x80\x02}");
    if let Some(key) = key {
        text(&mut out, key);
        out.push(b'}');
    }
    for (index, (name, tensor)) in tensors.iter().enumerate() {
        text(&mut out, name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(b"ctorch\nFloatStorage\n");
        text(&mut out, &index.to_string());
        text(&mut out, "cpu");
        int(&mut out, tensor.values.len());
        out.extend(b"NtQK\0(");
        tensor.shape.iter().for_each(|&size| int(&mut out, size));
        out.extend(b"t(");
        for dimension in 0..tensor.shape.len() {
            int(&mut out, tensor.shape[dimension + 1..].iter().product());
        }
        out.extend(b"t\x89}tRs");
    }
    if key.is_some() {
        out.push(b's');
    }
    out.extend(b".\x80\x02](");
    (0..tensors.len()).for_each(|index| text(&mut out, &index.to_string()));
    out.extend(b"e.");
    for tensor in tensors.values() {
        out.extend((tensor.values.len() as u64).to_le_bytes());
        tensor.values.iter().for_each(|value| out.extend(value.to_le_bytes()));
    }
    out
}

/// The tensors of BLIP under the names of its own repository.
fn original_names(tensors: HostTensors) -> HostTensors {
    let renamed = tensors.into_iter().map(|(name, tensor)| {
        // In this order, or a shorter name would spoil a longer one.
        let name = [
            ("vision_model.embeddings.class_embedding", "visual_encoder.cls_token"),
            ("vision_model.embeddings.position_embedding", "visual_encoder.pos_embed"),
            ("vision_model.embeddings.patch_embedding", "visual_encoder.patch_embed.proj"),
            ("vision_model.encoder.layers", "visual_encoder.blocks"),
            ("vision_model.post_layernorm", "visual_encoder.norm"),
            ("self_attn.projection", "attn.proj"),
            ("self_attn", "attn"),
            ("layer_norm", "norm"),
        ]
        .iter()
        .fold(name, |name, (theirs, original)| match name.starts_with("text") {
            true => name,
            false => name.replace(theirs, original),
        });
        (name, tensor)
    });
    renamed.collect()
}

#[test]
fn flipped_tables_are_errors_that_name_the_file_or_still_loads() {
    let Some(folder) = copy("blip") else { return };
    let at = |name: &str| folder.path().join(name);
    let public = WeightFile::open(&at("model.safetensors")).unwrap().read_all().unwrap();
    fs::write(at("original.pth"), stream(&original_names(public), Some("model"))).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut refused = 0;
    // Where each says what it holds: a pickle in a zip file comes first, as a table does.
    for (name, structure) in
        [("original.pth", 16_000), ("model.safetensors", 9_000), ("pytorch_model.bin", 12_000)]
    {
        let model = if name == "original.pth" { at(name) } else { folder.path().to_path_buf() };
        let whole = fs::read(at(name)).unwrap();
        for _ in 0..70 {
            let mut bytes = whole.clone();
            bytes[rng.random_range(0..structure)] ^= 1 << rng.random_range(0..8);
            fs::write(at(name), bytes).unwrap();
            if let Err(error) = load(&model, &Device::flex()) {
                assert!(error.to_string().contains(name), "{error}");
                refused += 1;
            }
        }
        // The folder's next form is read only when this one is gone.
        fs::remove_file(at(name)).unwrap();
    }
    assert!(refused > 150, "{refused}");
}

#[test]
fn the_blip_repositorys_own_file_gives_the_weights_that_its_folder_gives() {
    let Some(folder) = copy("blip") else { return };
    let expected = weights(folder.path());
    let public = WeightFile::open(&folder.path().join("model.safetensors")).unwrap();
    let original = original_names(public.read_all().unwrap());
    let file = folder.path().join("model_base_caption.pth");
    fs::write(&file, stream(&original, Some("model"))).unwrap();
    let checkpoint = load(&file, &Device::flex()).unwrap();
    assert_eq!(tensors::parameters(&checkpoint.model), expected);
    let whole = load(folder.path(), &Device::flex()).unwrap();
    assert_eq!(checkpoint.preprocess, whole.preprocess);
    assert_eq!(checkpoint.tokenizer.special_tokens(), whole.tokenizer.special_tokens());
    let (ours, theirs) = (checkpoint.model.config(), whole.model.config());
    assert_eq!(ours.encoder.num_layers, theirs.encoder.num_layers);
    assert_eq!(ours.decoder.vocab_size, theirs.decoder.vocab_size);

    // Such files have 64 channels a head, and another epsilon: with these the folder says the same.
    let config = folder.path().join("config.json");
    let mut fields: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    for section in ["vision_config", "text_config"] {
        let heads = fields[section]["hidden_size"].as_u64().unwrap() / 64;
        fields[section]["num_attention_heads"] = heads.max(1).into();
    }
    fields["vision_config"]["layer_norm_eps"] = 1e-6.into();
    fs::write(&config, fields.to_string()).unwrap();
    let whole = load(folder.path(), &Device::flex()).unwrap();
    assert_eq!(checkpoint.model.config(), whole.model.config());
    let captions = |checkpoint: &Checkpoint| {
        let encoder = &checkpoint.model.config().encoder;
        let size = [2, 3, encoder.image_height, encoder.image_width];
        let noise = burn::tensor::Distribution::Normal(0.0, 1.0);
        Device::flex().seed(4);
        let memory = checkpoint.model.encode(Tensor::random(size, noise, &Device::flex()));
        let special = checkpoint.tokenizer.special_tokens();
        let config = &checkpoint.generate;
        let config = GenerateConfig { num_beams: 3, max_new_tokens: 12, ..config.clone() };
        let (model, prompt) = (&checkpoint.model, [special.bos]);
        generate_from_memory(model, &memory, &prompt, special.eos, &config, 1).unwrap()
    };
    let (ours, theirs) = (captions(&checkpoint), captions(&whole));
    assert_ne!(ours[0].ids, ours[1].ids);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours.ids, theirs.ids);
    }

    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let error = error_of(&file);
    assert!(error.contains("tokenizer.json") && error.contains("bert-base-uncased"), "{error}");
    let error = error_of(&folder.path().join("model.safetensors"));
    assert!(error.contains("name the folder"), "{error}");
}
