//! Model families as they are downloaded, against what transformers computes with them: tiny models
//! made by `fixtures/make_parity_more.py`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{assert_caption_is_theirs, copy_folder, patchword, run};
use burn::tensor::{Device, Int, Tensor, TensorData};
use patchword::checkpoint::{self, LoadOptions, Location};
use patchword::image::{DecodeLimits, decode_file};
use safetensors::SafeTensors;
use serde_json::Value;

const CASES: [&str; 5] = ["vit-roberta", "vit-roberta-untied", "deit-gpt2", "deit-bert", "blip"];

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity").join(case)
}

/// Elements and shape of an expected tensor.
fn expected<const D: usize>(case: &str, name: &str) -> (Vec<f32>, [usize; D]) {
    let bytes = fs::read(folder(case).join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    let values: Vec<f32> = match view.dtype() {
        safetensors::Dtype::F32 => {
            let bytes = view.data().as_chunks::<4>().0;
            bytes.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
        }
        _ => {
            let bytes = view.data().as_chunks::<8>().0;
            bytes.iter().map(|&bytes| i64::from_le_bytes(bytes) as f32).collect()
        }
    };
    (values, view.shape().try_into().unwrap())
}

fn tensor<const D: usize>(case: &str, name: &str) -> Tensor<D> {
    let (values, shape) = expected::<D>(case, name);
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// The largest difference over the largest value.
fn apart<const D: usize>(ours: Tensor<D>, theirs: Tensor<D>) -> f32 {
    assert_eq!(ours.dims(), theirs.dims());
    let scale = theirs.clone().abs().max().into_scalar::<f32>();
    (ours - theirs).abs().max().into_scalar::<f32>() / scale
}

/// `photo.png` and its mirror image, as both were given to transformers.
fn photos(into: &Path) -> [PathBuf; 2] {
    let photo = image::open(folder("photo.png")).unwrap().into_rgb8();
    let paths = [into.join("photo.png"), into.join("mirrored.png")];
    photo.save(&paths[0]).unwrap();
    image::imageops::flip_horizontal(&photo).save(&paths[1]).unwrap();
    paths
}

#[test]
fn pixels_are_those_of_transformers() {
    let photo = decode_file(&folder("photo.png"), &DecodeLimits::default()).unwrap();
    for case in CASES {
        let checkpoint = checkpoint::load(&folder(case), &Device::flex()).unwrap();
        let (theirs, _) = expected::<4>(case, "pixels");
        let ours = checkpoint.preprocess.apply(&photo);
        assert_eq!(ours.len(), theirs.len());
        let most = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(most < 1e-6, "{case}: {most}");
    }
}

/// The weights are random and wide, so that rounding grows on its way through the layers: see the
/// parity tests of the three larger models.
#[test]
fn states_and_logits_are_those_of_transformers() {
    for case in CASES {
        let checkpoint = checkpoint::load(&folder(case), &Device::flex()).unwrap();
        let (model, device) = (&checkpoint.model, Device::flex());
        let photo = decode_file(&folder("photo.png"), &DecodeLimits::default()).unwrap();
        let mut pixels = checkpoint.preprocess.apply(&photo);
        let mirrored = image::imageops::flip_horizontal(&photo);
        pixels.extend(checkpoint.preprocess.apply(&mirrored));
        let pixels: Tensor<4> = Tensor::from_data(TensorData::new(pixels, [2, 3, 32, 32]), &device);
        let memory = model.encode(pixels);
        let encoder: Tensor<3> = tensor(case, "encoder");
        let projected = model.config().decoder.memory_projection;
        assert_eq!(projected, case == "deit-bert");
        if !projected {
            let distance = apart(memory.clone(), encoder);
            assert!(distance < 1e-4, "{case}: encoder {distance}");
        }
        let (ids, shape) = expected::<2>(case, "input_ids");
        let ids: Vec<i32> = ids.into_iter().map(|id| id as i32).collect();
        let ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(ids, shape), &device);
        let distance = apart(model.decode(ids, memory), tensor(case, "logits"));
        assert!(distance < 5e-4, "{case}: logits {distance}");
    }
}

#[test]
fn greedy_and_beam_ids_are_those_of_transformers() {
    let scratch = tempfile::tempdir().unwrap();
    let [photo, mirrored] = photos(scratch.path());
    for case in CASES {
        let said: Value =
            serde_json::from_slice(&fs::read(folder(case).join("expected.json")).unwrap()).unwrap();
        let end = checkpoint::load(&folder(case), &Device::flex()).unwrap().tokenizer;
        let end = end.special_tokens().eos;
        for (name, beams) in [("greedy", "1"), ("beam3", "3")] {
            let mut command = patchword();
            command.args(["caption", "--num-beams", beams, "--max-new-tokens", "10", "--model"]);
            command.arg(folder(case)).args(["--format", "jsonl"]).args([&photo, &mirrored]);
            let ended = run(&mut command);
            assert_eq!(ended.code, 0, "{case}: {}", ended.stderr);
            assert_eq!(ended.stdout.lines().count(), 2);
            for (image, line) in ended.stdout.lines().enumerate() {
                let case = format!("{case} {name}");
                assert_caption_is_theirs(line, &said[name], image, end, &case);
            }
        }
    }
}

#[test]
fn positions_are_resized_as_transformers_resizes_them() {
    for case in CASES {
        let larger: Tensor<4> = tensor(case, "larger");
        let [_, _, height, width] = larger.dims();
        let options = LoadOptions { image_size: Some([height, width]) };
        let device = Device::flex();
        let mut resized =
            checkpoint::load_with(&Location::Path(folder(case)), &device, &options).unwrap();
        assert_eq!((resized.preprocess.height, resized.preprocess.width), (height, width));
        let encoder = &resized.model.config().encoder;
        assert_eq!((encoder.image_height, encoder.image_width), (height, width));
        // What is compared is what comes before a projection: take it out.
        if resized.model.config().decoder.memory_projection {
            let untouched = checkpoint::load(&folder(case), &device).unwrap();
            assert_eq!((height, width), (32, 32), "nothing to resize");
            let same = apart(resized.model.encode(larger.clone()), untouched.model.encode(larger));
            assert_eq!(same, 0.0);
            continue;
        }
        let distance = apart(resized.model.encode(larger), tensor(case, "resized"));
        assert!(distance < 1e-4, "{case}: {distance}");
        // And back: a grid of the first size is not resized twice.
        resized = checkpoint::load(&folder(case), &device).unwrap();
        let same = resized.clone().with_image_size([32, 32]).unwrap();
        let pixels: Tensor<4> = tensor(case, "pixels");
        let (a, b) = (resized.model.encode(pixels.clone()), same.model.encode(pixels));
        assert_eq!(apart(a, b), 0.0, "{case}");
    }
}

#[test]
fn another_image_size_is_asked_for_by_a_flag() {
    let scratch = tempfile::tempdir().unwrap();
    let [photo, _] = photos(scratch.path());
    let caption = |size: &str| {
        let mut command = patchword();
        command.arg("caption").arg(&photo).arg("--model").arg(folder("deit-gpt2"));
        run(command.args(["--format", "jsonl", "--image-size", size]))
    };
    let (same, other) = (caption("32"), caption("48x64"));
    assert_eq!((same.code, other.code), (0, 0), "{}{}", same.stderr, other.stderr);
    assert_ne!(same.stdout, other.stdout);
    let wrong = caption("30");
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.contains("positive multiple of patch_size = 8"), "{}", wrong.stderr);
    assert_eq!(caption("large").code, 2);

    let out = scratch.path().join("inspected");
    let mut command = patchword();
    command.arg("inspect").arg(&photo).arg("--model").arg(folder("deit-gpt2"));
    let ended = run(command.arg("--out").arg(&out).args(["--image-size", "48x64"]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let json = fs::read(out.join("attention.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&json["rows"], &json["cols"]), (&6.into(), &8.into()));
    // Two positions are no patch: what they get is elsewhere, and the maps hold the rest.
    for word in json["words"].as_array().unwrap() {
        let map = word["mean"].as_array().unwrap();
        assert_eq!(map.len(), 48);
        let sum: f64 = map.iter().map(|x| x.as_f64().unwrap()).sum();
        let elsewhere = word["elsewhere"].as_f64().unwrap();
        assert!(elsewhere > 1e-3 && (sum + elsewhere - 1.0).abs() < 1e-4, "{sum} {elsewhere}");
    }
}

#[test]
fn blips_own_tokens_have_their_ids() {
    let checkpoint = checkpoint::load(&folder("blip"), &Device::flex()).unwrap();
    let tokenizer = &checkpoint.tokenizer;
    let vocab = tokenizer.vocab_size() as u32;
    assert_eq!(tokenizer.token(vocab - 2).as_deref(), Some("[DEC]"));
    assert_eq!(tokenizer.token(vocab - 1).as_deref(), Some("[ENC]"));
    assert_eq!(tokenizer.special_tokens().bos, vocab - 2);
    let ids = tokenizer.encode("a small red circle").unwrap();
    let mut caption = vec![vocab - 2];
    caption.extend(ids);
    caption.extend([vocab - 1, 3, 0]);
    assert_eq!(tokenizer.decode(&caption), "a small red circle");
}

#[test]
fn a_folder_without_a_tokenizer_says_which_files_it_looked_for() {
    let scratch = tempfile::tempdir().unwrap();
    copy_folder(&folder("vit-roberta"), scratch.path());
    let error = || checkpoint::load(scratch.path(), &Device::flex()).unwrap_err().to_string();
    fs::remove_file(scratch.path().join("merges.txt")).unwrap();
    assert!(error().contains("merges.txt"), "{}", error());
    fs::remove_file(scratch.path().join("vocab.json")).unwrap();
    let said = error();
    assert!(said.contains("tokenizer.json") && said.contains("vocab.txt"), "{said}");
    fs::write(scratch.path().join("vocab.txt"), "[UNK]\na\n").unwrap();
    let map = r#"{"bos_token": 3}"#;
    fs::write(scratch.path().join("special_tokens_map.json"), map).unwrap();
    let said = error();
    assert!(said.contains("special_tokens_map.json") && said.contains("`bos_token`"), "{said}");
}

#[test]
fn a_decoder_that_is_none_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    copy_folder(&folder("vit-roberta"), scratch.path());
    let file = scratch.path().join("config.json");
    let text = fs::read_to_string(&file).unwrap();
    for key in ["is_decoder", "add_cross_attention"] {
        let (yes, no) = (format!("\"{key}\": true"), format!("\"{key}\": false"));
        assert!(text.contains(&yes));
        fs::write(&file, text.replace(&yes, &no)).unwrap();
        let error = checkpoint::load(scratch.path(), &Device::flex()).unwrap_err().to_string();
        assert!(error.contains(&format!("`decoder.{key}` is false; expected true")), "{error}");
    }
    // The first row of the position table that is used is the one behind the padding id.
    let checkpoint = checkpoint::load(&folder("vit-roberta"), &Device::flex()).unwrap();
    let decoder = &checkpoint.model.config().decoder;
    assert_eq!((decoder.position_offset, decoder.max_positions), (2, 24));
}
