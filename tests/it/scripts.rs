//! Captions in Devanagari and Japanese go through a tokenizer and come out of a trained model.

use std::fs;
use std::path::Path;

use crate::common::*;
use image::{Rgb, RgbImage};
use patchword::text::{SpecialTokenNames, Tokenizer};

/// Four flat colours with their captions: conjuncts, a nukta, a zero-width joiner and a danda;
/// kanji, kana and full-width punctuation.
const CAPTIONS: [(&str, [u8; 3], &str); 4] = [
    ("red", [220, 30, 30], "एक लाल वर्ग है।"),
    ("green", [30, 180, 40], "हरे रंग का बड़ा क्षेत्र, रक्\u{200d}षा"),
    ("blue", [30, 40, 220], "青い四角形です。"),
    ("yellow", [240, 220, 40], "黄色の「カード」が一枚ある"),
];

fn write_images(folder: &Path) {
    for split in ["train", "val"] {
        fs::create_dir_all(folder.join(split)).unwrap();
        for (name, colour, caption) in CAPTIONS {
            let stem = folder.join(split).join(name);
            RgbImage::from_pixel(20, 20, Rgb(colour)).save(stem.with_extension("png")).unwrap();
            fs::write(stem.with_extension("txt"), format!("{caption}\n")).unwrap();
        }
    }
}

fn train(kind: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (data, output) = (folder.path().join("data"), folder.path().join("run"));
    write_images(&data);
    let mut config = tiny_config(&data, &output);
    for (key, value) in [
        ("data.captions_per_image", 1),
        ("tokenizer.vocab_size", 340),
        ("tokenizer.min_frequency", 1),
        ("model.encoder.num_layers", 1),
        ("model.decoder.d_model", 32),
        ("model.decoder.d_ff", 64),
        ("model.decoder.max_positions", 90),
        ("train.max_steps", 220),
        ("train.validate_every", 220),
        ("train.checkpoint_every", 220),
        ("generate.max_new_tokens", 90),
    ] {
        set(&mut config, key, value);
    }
    for (key, value) in [
        ("schedule.learning_rate", 1e-2),
        ("train.label_smoothing", 0.0),
        ("optimizer.ema_decay", 0.0),
        ("model.encoder.dropout", 0.0),
        ("model.encoder.drop_path", 0.0),
        ("model.decoder.dropout", 0.0),
    ] {
        set(&mut config, key, value);
    }
    set(&mut config, "tokenizer.kind", kind);
    config.remove("augment");
    let file = folder.path().join("config.toml");
    write_config(&file, &config);
    let ended = run(patchword().arg("train").arg(&file));
    assert_eq!(ended.code, 0, "{}", ended.stderr);

    let tokenizer = output.join("best/tokenizer.json");
    let tokenizer = Tokenizer::from_file(&tokenizer, &SpecialTokenNames::default()).unwrap();
    for (_, _, caption) in CAPTIONS {
        let ids = tokenizer.encode(caption).unwrap();
        assert_eq!(tokenizer.decode(&ids), caption);
    }

    for beams in ["1", "3"] {
        let mut command = patchword();
        command.arg("caption").arg(data.join("val")).arg("--model").arg(&output);
        let ended = run(command.args(["--format", "jsonl", "--num-beams", beams]));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let lines: Vec<serde_json::Value> =
            ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 4);
        for line in lines {
            let path = Path::new(line["path"].as_str().unwrap());
            let stem = path.file_stem().unwrap().to_str().unwrap();
            let (_, _, expected) = CAPTIONS.into_iter().find(|(name, ..)| *name == stem).unwrap();
            assert_eq!(line["caption"], expected, "{stem}, {beams} beams");
            // Words are the caption cut up: no character is lost, none broken.
            let words = line["words"].as_array().unwrap();
            let joined: String = words.iter().map(|word| word["word"].as_str().unwrap()).collect();
            let solid = |text: &str| text.replace(char::is_whitespace, "");
            assert_eq!(solid(&joined), solid(expected), "{stem}");
        }
    }

    // A prompt is continued, and shown if that is asked for.
    let (_, _, expected) = CAPTIONS[0];
    let prompt = "एक लाल";
    for (flags, shown) in
        [(&[] as &[&str], &expected[prompt.len() + 1..]), (&["--keep-prompt"], expected)]
    {
        let mut command = patchword();
        command.arg("caption").arg(data.join("val/red.png")).arg("--model").arg(&output);
        let ended = run(command.args(["--num-beams", "1", "--prompt", prompt]).args(flags));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let (_, caption) = ended.stdout.trim_end().split_once('\t').unwrap();
        assert_eq!(caption, shown);
    }
    let mut command = patchword();
    command.arg("caption").arg(data.join("val/red.png")).arg("--model").arg(&output);
    let ended = run(command.args(["--prompt", &prompt.repeat(60)]));
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("prompt"), "{}", ended.stderr);
}

#[test]
fn hindi_and_japanese_come_out_of_a_model_as_they_went_in() {
    train("bpe");
}
