//! Damaged inputs of every kind: each is one error that names what is wrong and where, and harms
//! nothing else.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::common::*;
use image::{ImageFormat, Rgb, RgbImage};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// A data set, a finished run of two steps and good photos, made once.
struct World {
    folder: tempfile::TempDir,
    data: PathBuf,
    config: PathBuf,
    run: PathBuf,
    good: [PathBuf; 2],
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (config, output) = train_tiny(folder.path(), 24, 2);
        let data = at("shapes");
        let good = [at("good-1.png"), at("good-2.jpg")];
        for path in &good {
            photo().save(path).unwrap();
        }
        World { data, config, run: output, good, folder }
    })
}

/// Something with detail in it, so that files are long enough to cut.
fn photo() -> RgbImage {
    RgbImage::from_fn(40, 30, |x, y| {
        let noise = (x * x * 7919 + y * y * 104_729 + x * y * 31) % 251;
        Rgb([(x * 6) as u8, (y * 8) as u8, noise as u8])
    })
}

fn encoded(format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    photo().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Exit code 1 and one error that names `file` and every one of `words`.
#[track_caller]
fn assert_one_error(ended: &Ended, file: &Path, words: &[&str]) {
    assert!(!ended.is_a_bug(), "{ended:#?}");
    assert_eq!(ended.code, 1, "{ended:#?}");
    assert_eq!(ended.lines("error: ").len(), 1, "{ended:#?}");
    let name = file.display().to_string();
    assert!(ended.stderr.contains(&name), "does not name {name}: {ended:#?}");
    for word in words {
        assert!(ended.stderr.contains(word), "does not say {word:?}: {ended:#?}");
    }
    assert!(ended.stderr.len() < 2000, "more than a reader wants: {}", ended.stderr);
}

fn caption(model: &Path, images: &[PathBuf]) -> Ended {
    run(patchword().arg("caption").args(images).arg("--model").arg(model))
}

// --- Images ---

/// A PNG header that promises `width` x `height` pixels over next to no data.
fn hollow_png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], data: &[u8]| {
        bytes.extend((data.len() as u32).to_be_bytes());
        let body = [kind.as_slice(), data].concat();
        bytes.extend(&body);
        bytes.extend(crc32(&body).to_be_bytes());
    };
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    chunk(b"IHDR", &header);
    // An empty zlib stream.
    chunk(b"IDAT", &[0x78, 0x9c, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01]);
    chunk(b"IEND", &[]);
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

/// Whether an image must fail, must work, or may do either.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    Fails(&'static str),
    Works,
    Either,
}

fn damaged_images() -> Vec<(String, Vec<u8>, Expected)> {
    let mut rng = ChaCha8Rng::seed_from_u64(20);
    let mut images = Vec::new();
    for (format, extension) in
        [(ImageFormat::Jpeg, "jpg"), (ImageFormat::Png, "png"), (ImageFormat::WebP, "webp")]
    {
        let whole = encoded(format);
        assert!(whole.len() > 400, "{extension}: {} bytes", whole.len());
        for index in 0..4 {
            // Never in the last bytes, which some decoders can do without.
            let cut = rng.random_range(4..whole.len() * 9 / 10);
            let name = format!("cut-{index}-{cut}.{extension}");
            images.push((name, whole[..cut].to_vec(), Expected::Fails("")));
        }
        for index in 0..6 {
            let mut bytes = whole.clone();
            let place = rng.random_range(0..bytes.len());
            bytes[place] ^= 1 << rng.random_range(0..8);
            let name = format!("flipped-{index}-{place}.{extension}");
            images.push((name, bytes, Expected::Either));
        }
        images.push((format!("empty.{extension}"), Vec::new(), Expected::Fails("empty")));
        let zeros = Expected::Fails("not an image");
        images.push((format!("zeros.{extension}"), vec![0; 500], zeros));
    }
    let mut put = |name: &str, bytes: Vec<u8>, expected| {
        images.push((name.to_string(), bytes, expected));
    };
    put("text.jpg", b"This is no photo.\n".to_vec(), Expected::Fails("not an image"));
    put("page.png", b"<!DOCTYPE html><html>404</html>".to_vec(), Expected::Fails("not an image"));
    put("huge.png", hollow_png(30_000, 30_000), Expected::Fails("900000000 pixels"));
    put("widest.png", hollow_png(0x7fff_ffff, 0x7fff_ffff), Expected::Fails(""));
    put("flat.png", hollow_png(0, 20), Expected::Fails(""));
    put("hollow.png", hollow_png(64, 64), Expected::Fails(""));
    put("png.jpg", encoded(ImageFormat::Png), Expected::Works);
    put("jpeg.webp", encoded(ImageFormat::Jpeg), Expected::Works);
    put("webp.png", encoded(ImageFormat::WebP), Expected::Works);
    put("png.whatever", encoded(ImageFormat::Png), Expected::Works);
    images
}

#[test]
fn damaged_images_are_named_and_the_good_ones_captioned() {
    let world = world();
    let folder = world.folder.path().join("images");
    fs::create_dir(&folder).unwrap();
    let images = damaged_images();
    assert!(images.len() >= 40);
    let mut paths = vec![world.good[0].clone()];
    for (name, bytes, _) in &images {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        paths.push(path);
    }
    let absent = folder.join("absent.jpg");
    paths.push(absent.clone());
    paths.push(world.good[1].clone());

    let ended = caption(&world.run, &paths);
    assert!(!ended.is_a_bug(), "{ended:#?}");
    assert_eq!(ended.code, 3, "{ended:#?}");
    let captioned = |path: &Path| {
        let start = format!("{}\t", path.display());
        ended.stdout.lines().filter(|line| line.starts_with(&start)).count()
    };
    let complaints = |path: &Path| -> Vec<&str> {
        let name = path.display().to_string();
        ended.stderr.lines().filter(|line| line.contains(&name)).collect()
    };
    let mut failed = Vec::new();
    for (name, _, expected) in &images {
        let path = folder.join(name);
        let (captions, complaints) = (captioned(&path), complaints(&path));
        assert_eq!(captions + complaints.len(), 1, "{name}: {complaints:?}");
        match expected {
            Expected::Works => assert_eq!(captions, 1, "{name}: {complaints:?}"),
            Expected::Fails(word) => {
                assert_eq!(captions, 0, "{name} has a caption");
                assert!(complaints[0].contains(word), "{complaints:?} does not say {word:?}");
            }
            Expected::Either => {}
        }
        if captions == 0 {
            failed.push(path);
        }
    }
    assert_eq!(complaints(&absent).len(), 1, "{ended:#?}");
    for path in &world.good {
        assert_eq!((captioned(path), complaints(path).len()), (1, 0), "{ended:#?}");
    }
    // In the order of the inputs.
    let order: Vec<&str> =
        ended.stdout.lines().filter_map(|line| line.split('\t').next()).collect();
    let expected: Vec<String> = paths
        .iter()
        .filter(|path| captioned(path) == 1)
        .map(|path| path.display().to_string())
        .collect();
    assert_eq!(order, expected);

    // `inspect` looks at one image and fails with it, before it writes anything.
    let out = folder.join("inspected");
    for path in failed.iter().step_by(4) {
        let mut command = patchword();
        command.arg("inspect").arg(path).arg("--model").arg(&world.run).arg("--out").arg(&out);
        assert_one_error(&run(&mut command), path, &[]);
        assert!(!out.exists());
    }
}

#[test]
fn a_folder_of_nothing_but_damaged_images_fails_without_a_caption() {
    let world = world();
    let folder = world.folder.path().join("hopeless");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.jpg"), b"").unwrap();
    fs::write(folder.join("b.png"), b"nothing").unwrap();
    let ended = caption(&world.run, std::slice::from_ref(&folder));
    assert!(!ended.is_a_bug() && ended.code != 0, "{ended:#?}");
    assert_eq!(ended.stdout, "");
    for name in ["a.jpg", "b.png"] {
        let name = folder.join(name).display().to_string();
        assert_eq!(ended.stderr.lines().filter(|line| line.contains(&name)).count(), 1);
    }
}

#[test]
fn damaged_images_among_the_training_images_are_left_out_and_named() {
    let world = world();
    let data = world.folder.path().join("dented");
    copy_folder(&world.data, &data);
    let images: Vec<PathBuf> = fs::read_dir(data.join("train"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "png"))
        .collect();
    let bad = images.iter().min().unwrap();
    let whole = fs::read(bad).unwrap();
    fs::write(bad, &whole[..whole.len() / 2]).unwrap();
    let output = world.folder.path().join("dented-run");
    let mut config = tiny_config(&data, &output);
    set(&mut config, "train.max_steps", 12);
    let file = world.folder.path().join("dented.toml");
    write_config(&file, &config);
    let named = |ended: &Ended| {
        let name = bad.display().to_string();
        assert!(!ended.is_a_bug() && ended.code == 3, "{ended:#?}");
        let lines = ended.stderr.lines().filter(|line| line.contains(&name)).count();
        assert_eq!(lines, 1, "{ended:#?}");
    };
    // One of about twenty may be more than the 5 % that a run forgives.
    let ended = run(patchword().args(["train", "--allow-bad"]).arg(&file));
    named(&ended);
    assert_eq!(caption(&output, &world.good).code, 0);

    // Where features are kept it is known from the start, whether the run ever draws the image.
    let kept = world.folder.path().join("dented-kept");
    set(&mut config, "train.max_steps", 1);
    set(&mut config, "train.batch_size", 1);
    set(&mut config, "train.freeze_encoder", true);
    write_config(&file, &config);
    let mut train = patchword();
    train.args(["train", "--allow-bad"]).arg(&file).arg("--output").arg(&kept);
    let ended = run(train.arg("--cache-features").arg(world.folder.path().join("features")));
    named(&ended);
    let readable = images.len() - 1;
    let says = format!("{readable} images to train on");
    assert!(ended.stderr.contains(&says), "{says}: {ended:#?}");
    let card = fs::read_to_string(kept.join("last/README.md")).unwrap();
    assert!(card.contains(&format!("{readable} training images")), "{card}");

    let mut evaluate = patchword();
    evaluate.args(["evaluate", "--split", "train", "--model"]).arg(&kept).arg("--data").arg(&data);
    let ended = run(&mut evaluate);
    named(&ended);
    let says = format!("{readable} images of train");
    assert!(ended.stdout.contains(&says), "{says}: {ended:#?}");
}

// --- Configs ---

/// A value, given as TOML, at a key; and what the error must say besides the file.
const BAD_VALUES: &[(&str, &str, &[&str])] = &[
    // Wrong types.
    ("seed", "'one'", &["`seed`", "a whole number"]),
    ("seed", "-1", &["-1"]),
    ("output", "3", &["output"]),
    ("data", "'here'", &["`data`", "a section"]),
    ("data.workers", "-1", &["`data.workers`", "a whole number"]),
    ("data.format", "'flicker'", &["flicker"]),
    ("image.mean", "'grey'", &["mean"]),
    ("image.mean", "[0.5, 0.5]", &["`image.mean`"]),
    ("image.resize", "'stretch'", &["stretch", "squash"]),
    ("augment", "'none'", &["augment"]),
    ("tokenizer.kind", "'sentencepiece'", &["sentencepiece", "bpe"]),
    ("model.encoder.d_model", "1.5", &["`model.encoder.d_model`"]),
    ("model.encoder.activation", "'swish'", &["swish", "gelu"]),
    ("model.decoder", "'big'", &["`model.decoder`"]),
    ("train.batch_size", "'many'", &["`train.batch_size`", "a whole number"]),
    ("train.epochs", "true", &["`train.epochs`", "expected a number"]),
    ("generate", "3", &["generate"]),
    // Unknown keys.
    ("train.batchsize", "4", &["batchsize", "did you mean `batch_size`?"]),
    ("modle", "{}", &["modle", "did you mean `model`?"]),
    ("optimizer.beta1", "0.9", &["beta1", "did you mean `beta_1`?"]),
    ("schedule.learning_rte", "0.1", &["did you mean `learning_rate`?"]),
    ("model.encoder.dmodel", "16", &["did you mean `d_model`?"]),
    ("image.widht", "16", &["did you mean `width`?"]),
    ("generate.beams", "3", &["beams", "num_beams"]),
    // Out of range.
    ("train.epochs", "nan", &["train.epochs"]),
    ("train.epochs", "-1.0", &["train.epochs"]),
    ("train.epochs", "0.0", &["train.epochs"]),
    ("train.max_steps", "0", &["train.max_steps"]),
    ("train.batch_size", "0", &["train.batch_size"]),
    ("train.accumulation", "0", &["train.accumulation"]),
    ("train.validate_every", "0", &["train.validate_every"]),
    ("train.checkpoint_every", "0", &["train.checkpoint_every"]),
    ("train.log_every", "0", &["train.log_every"]),
    ("train.label_smoothing", "nan", &["train.label_smoothing"]),
    ("train.label_smoothing", "1.0", &["train.label_smoothing"]),
    ("schedule.learning_rate", "nan", &["schedule.learning_rate"]),
    ("schedule.learning_rate", "0.0", &["schedule.learning_rate"]),
    ("schedule.learning_rate", "-1e-3", &["schedule.learning_rate"]),
    ("schedule.learning_rate", "inf", &["schedule.learning_rate"]),
    ("schedule.final_fraction", "nan", &["schedule.final_fraction"]),
    ("schedule.encoder_factor", "0.0", &["schedule.encoder_factor"]),
    ("optimizer.beta_1", "1.0", &["optimizer.beta_1"]),
    ("optimizer.beta_2", "nan", &["optimizer.beta_2"]),
    ("optimizer.epsilon", "0.0", &["optimizer.epsilon"]),
    ("optimizer.weight_decay", "-0.1", &["optimizer.weight_decay"]),
    ("optimizer.clip_norm", "-1.0", &["optimizer.clip_norm"]),
    ("optimizer.clip_norm", "nan", &["optimizer.clip_norm"]),
    ("train.r_drop", "-1.0", &["train.r_drop"]),
    ("train.r_drop", "nan", &["train.r_drop"]),
    ("optimizer.ema_decay", "1.0", &["optimizer.ema_decay"]),
    ("data.val_share", "0.0", &["data.val_share"]),
    ("data.val_share", "nan", &["data.val_share"]),
    ("data.captions_per_image", "0", &["data.captions_per_image"]),
    ("data.workers", "0", &["data.workers"]),
    ("data.max_pixels", "0", &["data.max_pixels"]),
    ("tokenizer.vocab_size", "0", &["tokenizer.vocab_size"]),
    ("image.height", "0", &["height"]),
    ("image.height", "-8", &["-8"]),
    ("image.width", "17", &["image_width"]),
    ("image.width", "1000000000", &["width"]),
    ("image.mean", "[nan, 0.5, 0.5]", &["mean[0]"]),
    ("image.std", "[0.5, 0.0, 0.5]", &["std[1]"]),
    ("augment.crop_scale", "[0.0, 1.0]", &["crop_scale"]),
    ("augment.crop_ratio", "[nan, 1.0]", &["crop_ratio"]),
    ("augment.flip", "2.0", &["flip"]),
    ("augment.colour_jitter", "nan", &["colour_jitter"]),
    ("model.encoder.patch_size", "0", &["model.encoder.patch_size"]),
    ("model.encoder.stem", "[0]", &["model.encoder.stem"]),
    ("model.encoder.stem", "[8, 8, 8, 8]", &["model.encoder.stem"]),
    ("model.encoder.d_model", "0", &["model.encoder.d_model"]),
    ("model.encoder.num_heads", "3", &["model.encoder.num_heads"]),
    ("model.encoder.num_layers", "0", &["model.encoder.num_layers"]),
    ("model.encoder.num_layers", "1000000000000", &["model.encoder.num_layers"]),
    ("model.encoder.d_ff", "0", &["model.encoder.d_ff"]),
    ("model.encoder.dropout", "1.0", &["model.encoder.dropout"]),
    ("model.encoder.drop_path", "nan", &["model.encoder.drop_path"]),
    ("model.encoder.layer_norm_epsilon", "nan", &["model.encoder.layer_norm_epsilon"]),
    ("model.decoder.max_positions", "1", &["model.decoder.max_positions"]),
    ("model.decoder.max_positions", "1000000000000", &["model.decoder.max_positions"]),
    ("model.decoder.position_offset", "1000000000000", &["model.decoder.position_offset"]),
    ("model.decoder.d_model", "1000000000000", &["model.decoder.d_model"]),
    ("model.decoder.d_ff", "1000000000000", &["model.decoder.d_ff"]),
    ("model.decoder.num_heads", "0", &["model.decoder.num_heads"]),
    ("model.decoder.dropout", "-0.5", &["model.decoder.dropout"]),
    ("generate.num_beams", "0", &["num_beams"]),
    ("generate.max_new_tokens", "0", &["max_new_tokens"]),
    ("generate.max_new_tokens", "49", &["generate.max_new_tokens", "48"]),
    ("generate.length_penalty", "nan", &["length_penalty"]),
];

#[test]
fn bad_config_values_are_named_with_file_and_key() {
    let world = world();
    let before = snapshot(&world.run);
    let file = world.folder.path().join("bad.toml");
    let mut wrong = Vec::new();
    for (index, &(key, value, words)) in BAD_VALUES.iter().enumerate() {
        let mut config = tiny_config(&world.data, &world.run);
        let parsed: toml::Table = format!("value = {value}").parse().unwrap();
        set(&mut config, key, parsed["value"].clone());
        write_config(&file, &config);
        let mut command = patchword();
        command.arg("train").arg(&file);
        // A real run, into a folder that holds one, must get no further than a dry one.
        if index % 5 == 0 {
            command.arg("--resume")
        } else {
            command.arg("--dry-run")
        };
        let ended = run(&mut command);
        let sound = !ended.is_a_bug()
            && ended.code == 1
            && ended.lines("error: ").len() == 1
            && ended.stderr.contains(&file.display().to_string())
            && words.iter().all(|word| ended.stderr.contains(word));
        if !sound {
            wrong.push(format!("{key} = {value}: exit {}\n{}", ended.code, ended.stderr));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), BAD_VALUES.len(), wrong.join("\n"));
    assert!(snapshot(&world.run) == before, "a bad config has changed a finished run");
}

#[test]
fn configs_that_cannot_be_read_are_named_with_their_line() {
    let world = world();
    let whole = fs::read_to_string(&world.config).unwrap();
    let file = world.folder.path().join("unreadable.toml");
    let name = file.display().to_string();
    let dry = || run(patchword().arg("train").arg(&file).arg("--dry-run"));
    let mut cut = whole[..whole.find("max_new_tokens").unwrap() + 10].to_string();
    cut.push('\n');
    for (text, words) in [
        (cut.as_bytes(), [format!("{name}:")]),
        (b"seed = 1\nseed = 2\n", [format!("{name}:2")]),
        (b"seed = 1\n\n[train\n", [format!("{name}:3")]),
        (b"\xff\xfe\x00binary", [name.clone()]),
        (b"", ["output".to_string()]),
        (b"output = \"x\"", ["data.path".to_string()]),
    ] {
        fs::write(&file, text).unwrap();
        assert_one_error(&dry(), &file, &words.each_ref().map(String::as_str));
    }
    fs::remove_file(&file).unwrap();
    assert_one_error(&dry(), &file, &[]);
    // Settings on the command line are named as such.
    for setting in ["train.epochs", "train.epochs=x", "train.epoch=3", "seed.deep=1", "=3"] {
        let mut command = patchword();
        command.arg("train").arg(&world.config).args(["--dry-run", "--set", setting]);
        let ended = run(&mut command);
        assert_one_error(&ended, Path::new(&format!("--set {setting}")), &[]);
    }
    // Data that is not there.
    let absent = world.folder.path().join("absent");
    let mut command = patchword();
    command.arg("train").arg(&world.config).arg("--dry-run").arg("--data").arg(&absent);
    assert_one_error(&run(&mut command), &absent, &[]);
    let broken = world.folder.path().join("broken-tokenizer.json");
    fs::write(&broken, b"{\"model\": ").unwrap();
    let mut command = patchword();
    let setting = format!("tokenizer.file={}", broken.display());
    command.arg("train").arg(&world.config).args(["--dry-run", "--set", &setting]);
    assert_one_error(&run(&mut command), &broken, &[]);
}

// --- Checkpoints ---

/// Captions a good image with a copy of the checkpoint in which one file is other than it was.
fn with_damaged(name: &str, bytes: Option<&[u8]>) -> (Ended, PathBuf) {
    let world = world();
    let folder = tempfile::tempdir_in(world.folder.path()).unwrap();
    let model = folder.path().join("model");
    copy_folder(&world.run.join("best"), &model);
    let file = model.join(name);
    match bytes {
        Some(bytes) => fs::write(&file, bytes).unwrap(),
        None => fs::remove_file(&file).unwrap(),
    }
    let before = snapshot(&model);
    let ended = caption(&model, &world.good[..1]);
    assert!(snapshot(&model) == before, "captioning has changed the checkpoint");
    assert_eq!(ended.stdout, "", "a caption of a damaged checkpoint: {ended:#?}");
    (ended, file)
}

#[test]
fn checkpoints_cut_anywhere_are_named() {
    let world = world();
    let mut rng = ChaCha8Rng::seed_from_u64(30);
    for name in ["config.json", "preprocessor.json", "tokenizer.json", "model.safetensors"] {
        let whole = fs::read(world.run.join("best").join(name)).unwrap();
        let mut cuts = vec![0, 1, whole.len() - 3];
        cuts.extend((0..4).map(|_| rng.random_range(2..whole.len() - 3)));
        for cut in cuts {
            let (ended, file) = with_damaged(name, Some(&whole[..cut]));
            assert_one_error(&ended, &file, &[]);
        }
        let (ended, file) = with_damaged(name, None);
        if name != "config.json" {
            assert_one_error(&ended, &file, &[]);
        } else {
            // Without it the folder is no checkpoint at all.
            assert_one_error(
                &ended,
                file.parent().unwrap(),
                &["no checkpoint here", "config.json"],
            );
        }
    }
}

#[test]
fn bad_values_in_a_checkpoints_json_are_named() {
    let world = world();
    type Change = fn(&mut Value);
    let cases: [(&str, &str, Change); 19] = [
        ("config.json", "format", |v| v["format"] = json!("other")),
        ("config.json", "version", |v| v["version"] = json!(99)),
        ("config.json", "-1", |v| v["version"] = json!(-1)),
        ("config.json", "extra", |v| v["extra"] = json!(1)),
        ("config.json", "d_modle", |v| v["model"]["encoder"]["d_modle"] = json!(16)),
        ("config.json", "decoder.num_heads", |v| v["model"]["decoder"]["num_heads"] = json!(0)),
        ("config.json", "encoder.d_ff", |v| v["model"]["encoder"]["d_ff"] = json!(0)),
        ("config.json", "invalid type", |v| v["model"]["encoder"]["d_model"] = json!("wide")),
        ("config.json", "encoder.num_layers", |v| {
            v["model"]["encoder"]["num_layers"] = json!(1u64 << 60);
        }),
        ("config.json", "decoder.d_ff", |v| v["model"]["decoder"]["d_ff"] = json!(1u64 << 62)),
        ("config.json", "decoder.vocab_size", |v| {
            v["model"]["decoder"]["vocab_size"] = json!(u64::MAX);
        }),
        ("config.json", "num_beams", |v| v["generate"]["num_beams"] = json!(0)),
        ("config.json", "max_new_tokens", |v| v["generate"]["max_new_tokens"] = json!(100_000)),
        ("config.json", "length_penalty", |v| v["generate"]["length_penalty"] = json!("long")),
        ("preprocessor.json", "height", |v| v["height"] = json!(0)),
        ("preprocessor.json", "24", |v| v["width"] = json!(24)),
        ("preprocessor.json", "std[2]", |v| v["std"][2] = json!(0.0)),
        ("preprocessor.json", "crop", |v| v["crop"] = json!(true)),
        ("tokenizer.json", "model", |v| v["model"]["type"] = json!("Telepathy")),
    ];
    for (name, word, change) in cases {
        let text = fs::read_to_string(world.run.join("best").join(name)).unwrap();
        let mut value: Value = serde_json::from_str(&text).unwrap();
        change(&mut value);
        let (ended, file) = with_damaged(name, Some(value.to_string().as_bytes()));
        assert_one_error(&ended, &file, &[word]);
    }
    for (name, bytes) in [
        ("config.json", "[".repeat(100_000)),
        ("tokenizer.json", "{\"a\":".repeat(100_000)),
        ("preprocessor.json", "null".into()),
        ("config.json", "\u{0}".into()),
    ] {
        let (ended, file) = with_damaged(name, Some(bytes.as_bytes()));
        assert_one_error(&ended, &file, &[]);
    }
}

/// A safetensors file with this header and `data` after it.
fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn weights_that_are_not_the_models_are_named_by_tensor() {
    let world = world();
    let whole = fs::read(world.run.join("best/model.safetensors")).unwrap();
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&whole[8..8 + length]).unwrap();
    let data = &whole[8 + length..];
    let edited = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut header = header.clone();
        change(header.as_object_mut().unwrap());
        safetensors(&header.to_string(), data)
    };
    let weight = "decoder.layers.0.feed_forward.hidden.weight";
    let bias = "decoder.layers.0.feed_forward.hidden.bias";
    let file = "model.safetensors";

    let transposed = edited(&|header| header[weight]["shape"] = json!([32, 16]));
    let (ended, path) = with_damaged(file, Some(&transposed));
    assert_one_error(&ended, &path, &[weight, "[32, 16]", "[16, 32]"]);

    let renamed = edited(&|header| {
        let tensor = header.remove(bias).unwrap();
        header.insert("decoder.layers.0.feed_forward.hidden.bais".into(), tensor);
    });
    let (ended, path) = with_damaged(file, Some(&renamed));
    assert_one_error(&ended, &path, &[bias, "missing"]);

    let end = data.len();
    let extra = edited(&|header| {
        let tensor = json!({ "dtype": "F32", "shape": [2], "data_offsets": [end, end + 8] });
        header.insert("zebra".into(), tensor);
    });
    let (ended, path) = with_damaged(file, Some(&[&extra[..], &[0; 8]].concat()));
    assert_one_error(&ended, &path, &["zebra"]);

    let integers = edited(&|header| header[bias]["dtype"] = json!("I32"));
    let (ended, path) = with_damaged(file, Some(&integers));
    assert_one_error(&ended, &path, &[bias, "I32"]);

    // Weights that are no numbers: a whole file, but a model that cannot speak.
    let mut poisoned = whole.clone();
    let values = &mut poisoned[8 + length..];
    values.chunks_exact_mut(4).for_each(|bytes| bytes.copy_from_slice(&f32::NAN.to_le_bytes()));
    let (ended, _) = with_damaged(file, Some(&poisoned));
    assert_one_error(&ended, Path::new("finite"), &[]);
}

#[test]
fn hostile_weights_files_are_refused_without_believing_their_lengths() {
    let tensor = |shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let huge = "[18446744073709551615,18446744073709551615]";
    let cases: [(&str, Vec<u8>); 13] = [
        ("endless header", u64::MAX.to_le_bytes().to_vec()),
        ("long header", [&(1u64 << 40).to_le_bytes()[..], b"{}"].concat()),
        ("header past the end", [&100u64.to_le_bytes()[..], b"{}"].concat()),
        ("empty header", safetensors("", b"")),
        ("no object", safetensors("[]", b"")),
        ("not JSON", safetensors("{\"a\":", b"")),
        ("not UTF-8", [&4u64.to_le_bytes()[..], b"{\xff\xfe}"].concat()),
        ("deep", safetensors(&"[".repeat(50_000), b"")),
        ("shape that overflows", safetensors(&tensor(huge, "[0,8]"), &[0; 8])),
        ("data past the end", safetensors(&tensor("[2]", "[0,8]"), &[0; 4])),
        ("backwards", safetensors(&tensor("[2]", "[8,0]"), &[0; 8])),
        ("negative", safetensors(&tensor("[-2]", "[0,8]"), &[0; 8])),
        ("no tensors", safetensors("{}", b"")),
    ];
    for (what, bytes) in cases {
        let (ended, path) = with_damaged("model.safetensors", Some(&bytes));
        assert!(ended.code == 1, "{what}: {ended:#?}");
        assert_one_error(&ended, &path, &[]);
    }
}

#[test]
fn a_run_with_damaged_state_is_not_resumed_and_not_harmed() {
    let world = world();
    let last = world.run.join("last/training");
    let optimizer = fs::read(last.join("optimizer.safetensors")).unwrap();
    let weights = fs::read(last.join("weights.safetensors")).unwrap();
    let state = fs::read(last.join("state.json")).unwrap();
    let length = u64::from_le_bytes(optimizer[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&optimizer[8..8 + length]).unwrap();
    let name = "second.decoder.layers.0.cross_attention.query.bias";
    let renamed = header.replace(name, "second.decoder.layers.0.cross_attention.query.bais");
    assert_ne!(header, renamed);
    let renamed = safetensors(&renamed, &optimizer[8 + length..]);
    // Two moments that belong to each other, but to no parameter.
    let foreign = header.replace("cross_attention.query.bias", "cross_attention.query.bais");
    let foreign = safetensors(&foreign, &optimizer[8 + length..]);
    // Moments of another size than their parameter, in a file that is sound by itself.
    let mut table: Value = serde_json::from_str(header).unwrap();
    let tensors = table.as_object_mut().unwrap();
    tensors.retain(|name, _| name.ends_with("token_embedding"));
    for (index, (_, tensor)) in tensors.iter_mut().enumerate() {
        let end = index * 8;
        *tensor = json!({ "dtype": "F32", "shape": [2], "data_offsets": [end, end + 8] });
    }
    let small = safetensors(&table.to_string(), &vec![0; 8 * table.as_object().unwrap().len()]);

    let cases: [(&str, &[u8]); 8] = [
        ("state.json", &state[..state.len() / 2]),
        ("state.json", b"{}"),
        ("optimizer.safetensors", &optimizer[..optimizer.len() - 5]),
        ("optimizer.safetensors", b""),
        ("optimizer.safetensors", &renamed),
        ("optimizer.safetensors", &foreign),
        ("optimizer.safetensors", &small),
        ("weights.safetensors", &weights[..weights.len() / 3]),
    ];
    for (index, (name, bytes)) in cases.into_iter().enumerate() {
        let folder = tempfile::tempdir_in(world.folder.path()).unwrap();
        let output = folder.path().join("run");
        copy_folder(&world.run, &output);
        fs::write(output.join("last/training").join(name), bytes).unwrap();
        let before = snapshot(&output);
        let mut command = patchword();
        command.arg("train").arg(&world.config).arg("--output").arg(&output);
        let ended = run(command.args(["--resume", "--set", "train.max_steps=4"]));
        assert_one_error(&ended, Path::new(name), &[]);
        assert!(snapshot(&output) == before, "case {index}, {name}: the run was changed");
    }
}
