//! Tests across the parts: pictures against scenes, captions against the checker, files on disk.
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::grammar::{colour_of, colour_word, shape_of, shape_word};
use super::*;

fn difficulties() -> [ShapesConfig; 2] {
    [ShapesConfig::default(), ShapesConfig::hard()]
}

fn object(shape: Shape, colour: Colour, size: Size, bbox: [u32; 4]) -> SceneObject {
    SceneObject { shape, colour, size, bbox }
}

/// A small red circle above a large blue square, a large green star to the right of both.
fn known_scene() -> Scene {
    Scene {
        width: 64,
        height: 64,
        objects: vec![
            object(Shape::Circle, Colour::Red, Size::Small, [8, 4, 18, 14]),
            object(Shape::Square, Colour::Blue, Size::Large, [4, 30, 26, 52]),
            object(Shape::Star, Colour::Green, Size::Large, [38, 16, 60, 38]),
        ],
        seed: 7,
    }
}

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// FNV-1a over the names and contents of all files in the folder but its README, in the order of
/// their names.
fn hash_folder(root: &Path) -> u64 {
    let mut files: Vec<_> = walkdir::WalkDir::new(root)
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file() && entry.file_name() != "README.md")
        .map(|entry| entry.into_path())
        .map(|path| {
            let parts = path.strip_prefix(root).unwrap().iter();
            (parts.map(|part| part.to_str().unwrap()).collect::<Vec<_>>().join("/"), path)
        })
        .collect();
    files.sort();
    files.iter().fold(0xcbf2_9ce4_8422_2325, |hash, (name, path)| {
        fnv(fnv(hash, name.as_bytes()), &fs::read(path).unwrap())
    })
}

#[test]
fn bytes_are_the_same_everywhere() {
    // If one of these changes, every published figure on the data set is void: bump FORMAT.
    let expected = [NORMAL_HASH, HARD_HASH];
    for (config, expected) in difficulties().into_iter().zip(expected) {
        let folder = tempfile::tempdir().unwrap();
        let config = ShapesConfig { images: 40, seed: 11, ..config };
        generate(folder.path(), &config, &|_| {}).unwrap();
        let hash = hash_folder(folder.path());
        assert_eq!(hash, expected, "{hash:#018x}");
    }
}

const NORMAL_HASH: u64 = 0xec67_a581_cdd7_ae51;
const HARD_HASH: u64 = 0xa1f5_d9de_5d4f_8454;

#[test]
fn captions_check_as_correct_and_agree_in_their_grounding() {
    for config in difficulties() {
        for index in 0..500 {
            let scene = Scene::compose(&config, index);
            let captions = captions(&scene, &config, index);
            assert_eq!(captions.len(), CAPTIONS_PER_IMAGE);
            for caption in captions {
                let verdict = check_caption(&caption.text, &scene);
                assert!(verdict.correct && verdict.complete, "{}: {verdict:?}", caption.text);
                assert_eq!(grounded_words(&caption.text, &scene), caption.words);
                assert_eq!(caption.words.len(), 2 * scene.objects.len());
                let words: Vec<&str> = caption.text.split_whitespace().collect();
                for grounded in &caption.words {
                    let object = &scene.objects[grounded.object];
                    assert_eq!(words[grounded.index].trim_end_matches(','), grounded.word);
                    assert_eq!(grounded.bbox, object.bbox);
                    assert!(
                        colour_of(&grounded.word) == Some(object.colour)
                            || shape_of(&grounded.word) == Some(object.shape)
                    );
                }
                let plain = |c: char| c.is_ascii_lowercase() || c == ' ' || c == ',';
                assert!(caption.text.chars().all(plain), "{}", caption.text);
            }
        }
    }
}

#[test]
fn five_captions_are_nearly_always_different() {
    let config = ShapesConfig::default();
    let repeated = (0..500)
        .filter(|&index| {
            let captions = captions(&Scene::compose(&config, index), &config, index);
            let texts: BTreeSet<_> = captions.iter().map(|caption| &caption.text).collect();
            texts.len() < captions.len()
        })
        .count();
    assert_eq!(repeated, 0);
}

/// The caption with the word at `index` replaced; a comma after it stays.
fn replace_word(caption: &str, index: usize, word: &str) -> String {
    let mut words: Vec<String> = caption.split_whitespace().map(str::to_owned).collect();
    let comma = if words[index].ends_with(',') { "," } else { "" };
    words[index] = format!("{word}{comma}");
    words.join(" ")
}

fn assert_wrong(caption: &str, scene: &Scene) {
    let verdict = check_caption(caption, scene);
    assert!(verdict.parsed, "{caption}: {verdict:?}");
    assert!(!verdict.correct && !verdict.complete, "{caption} passes for {scene:?}");
    assert!(!verdict.errors.is_empty());
    assert!(grounded_words(caption, scene).is_empty());
}

#[test]
fn mutated_captions_are_wrong() {
    let mut flipped_captions = 0;
    for config in difficulties() {
        for index in 0..300 {
            let scene = Scene::compose(&config, index);
            let absent = |colour: Colour, shape: Shape| {
                !scene.objects.iter().any(|object| object.colour == colour && object.shape == shape)
            };
            for caption in captions(&scene, &config, index) {
                for grounded in &caption.words {
                    let object = &scene.objects[grounded.object];
                    let is_colour = colour_of(&grounded.word).is_some();
                    let others: Vec<&str> = if is_colour {
                        let absent = |&colour: &Colour| absent(colour, object.shape);
                        Colour::ALL.into_iter().filter(absent).map(colour_word).collect()
                    } else {
                        let absent = |&shape: &Shape| absent(object.colour, shape);
                        Shape::ALL.into_iter().filter(absent).map(shape_word).collect()
                    };
                    for other in others {
                        let mutated = replace_word(&caption.text, grounded.index, other);
                        assert_wrong(&mutated, &scene);
                    }
                }
                let flips = [
                    ("above", "below"),
                    ("over", "under"),
                    ("below", "above"),
                    ("under", "over"),
                    ("left", "right"),
                    ("right", "left"),
                    ("top", "bottom"),
                    ("lower", "upper"),
                ];
                for (position, word) in caption.text.split(' ').enumerate() {
                    if let Some((_, flipped)) = flips.iter().find(|(from, _)| *from == word) {
                        assert_wrong(&replace_word(&caption.text, position, flipped), &scene);
                        flipped_captions += 1;
                    }
                }
                for (colour, shape) in [(Colour::Red, Shape::Circle), (Colour::Blue, Shape::Cross)]
                {
                    let (colour, shape) = (colour_word(colour), shape_word(shape));
                    assert_wrong(&format!("{} and a {colour} {shape}", caption.text), &scene);
                }
            }
        }
    }
    assert!(flipped_captions > 1000);
}

#[test]
fn free_variations_are_read() {
    let scene = known_scene();
    for caption in [
        "A red circle above a blue square.",
        "the red disk is above the large blue box",
        "there are a red circle , a blue square and a green star",
        "a red circle and a green star",
        "a green star on the right",
        "a green star to the right of a blue square, which is below a red circle",
        "a blue square below a small red circle to the left of a green star",
        "a blue square below a red circle and to the left of a big green star",
        "a blue square with a red circle over it and a green star to its right",
        "a photo of a red circle in the top left corner of the image",
        "a red little circle on the left of a green star",
        "a red circle on top of a blue square",
    ] {
        let verdict = check_caption(caption, &scene);
        assert!(verdict.correct, "{caption}: {verdict:?}");
    }
}

#[test]
fn false_captions_are_wrong() {
    let scene = known_scene();
    for caption in [
        "a large red circle",
        "a circle",
        "a blue circle above a red square",
        "a red circle below a blue square",
        "a red circle to the right of a blue square and a green star",
        "a blue square with a red circle below it",
        "a green star to the left of a blue square",
        "a red circle and a red circle",
        "a green star on the left",
        "a red circle in the middle",
        "a red circle, a blue square, a green star and a red circle",
    ] {
        assert_wrong(caption, &scene);
    }
}

#[test]
fn what_is_not_of_the_grammar_is_unparsed() {
    let scene = known_scene();
    for caption in [
        "",
        "   ",
        ".",
        "a",
        "red",
        "a red",
        "a red circle above",
        "a red circle and",
        "a red circle and and a blue square",
        "a red blue circle",
        "a small large red circle",
        "a red circle a blue square",
        "a red banana",
        "a red circle above it",
        "a dog runs on the beach",
        "a red circle above a blue square above",
        "a red circle is",
        "of of of",
    ] {
        let verdict = check_caption(caption, &scene);
        assert!(!verdict.parsed && !verdict.correct, "{caption:?}: {verdict:?}");
        assert_eq!(verdict.errors.len(), 1);
        assert!(grounded_words(caption, &scene).is_empty());
    }
}

#[test]
fn words_of_a_relation_point_at_both_of_its_objects() {
    let mut seen = BTreeSet::new();
    for config in difficulties() {
        for index in 0..60 {
            let scene = Scene::compose(&config, index);
            for caption in captions(&scene, &config, index) {
                let words: Vec<&str> = caption.text.split_whitespace().collect();
                for related in related_words(&caption.text, &scene) {
                    let written = words[related.index].trim_end_matches(',').to_lowercase();
                    assert_eq!(written, related.word);
                    let [one, other] = related.boxes;
                    assert_ne!(one, other, "{}", caption.text);
                    let horizontal = ["left", "right"].contains(&related.word.as_str());
                    let apart = match horizontal {
                        true => one[0].abs_diff(other[0]),
                        false => one[1].abs_diff(other[1]),
                    };
                    assert!(apart > 0, "{}: {}", caption.text, related.word);
                    seen.insert(related.word);
                }
            }
        }
    }
    for word in ["above", "below", "left", "right"] {
        assert!(seen.contains(word), "{seen:?}");
    }
    assert!(["of", "the", "its", "side"].iter().all(|word| !seen.contains(*word)), "{seen:?}");
}

#[test]
fn like_objects_are_told_apart_by_a_relation_or_left_out() {
    let mut scene = known_scene();
    scene.objects[2] = object(Shape::Circle, Colour::Red, Size::Small, [40, 44, 50, 54]);
    assert!(grounded_words("a red circle", &scene).is_empty());
    let words = grounded_words("a red circle above a blue square", &scene);
    let objects: Vec<_> = words.iter().map(|word| (word.word.as_str(), word.object)).collect();
    assert_eq!(objects, [("red", 0), ("circle", 0), ("blue", 1), ("square", 1)]);
    let words = grounded_words("a red circle and a blue square", &scene);
    assert_eq!(words.iter().map(|word| word.object).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn a_partial_caption_is_correct_but_not_complete() {
    let verdict = check_caption("a red circle above a blue square", &known_scene());
    assert!(verdict.correct && !verdict.complete);
    assert_eq!(verdict.objects_named, 2);
}

#[test]
fn boxes_are_tight() {
    for config in difficulties() {
        for index in 0..200 {
            let scene = Scene::compose(&config, index);
            let whole = draw(&scene, &config);
            for number in 0..scene.objects.len() {
                let mut without = scene.clone();
                let taken = without.objects.remove(number);
                let without = draw(&without, &config);
                let [mut x0, mut y0, mut x1, mut y1] = [u32::MAX, u32::MAX, 0, 0];
                for (x, y, pixel) in whole.enumerate_pixels() {
                    if pixel != without.get_pixel(x, y) {
                        (x0, y0, x1, y1) = (x0.min(x), y0.min(y), x1.max(x + 1), y1.max(y + 1));
                    }
                }
                let inside = [x0, y0].iter().zip(&taken.bbox).all(|(seen, bound)| seen >= bound)
                    && [x1, y1].iter().zip(&taken.bbox[2..]).all(|(seen, bound)| seen <= bound);
                let spare: u32 = [x0, y0, x1, y1]
                    .iter()
                    .zip(&taken.bbox)
                    .map(|(seen, bound)| seen.abs_diff(*bound))
                    .sum();
                // The tip of a star or diamond may mix too little colour in to be seen.
                assert!(inside && spare <= 2, "{index}: {taken:?} but {x0} {y0} {x1} {y1}");
            }
        }
    }
}

#[test]
fn objects_keep_apart_and_differ() {
    for config in difficulties() {
        let mut counts = [0; 3];
        for index in 0..1000 {
            let scene = Scene::compose(&config, index);
            counts[scene.objects.len() - 1] += 1;
            for (number, one) in scene.objects.iter().enumerate() {
                let [low, high] = one.size.extent();
                let extent = one.bbox[2] - one.bbox[0];
                assert!((low..=high).contains(&extent) && extent == one.bbox[3] - one.bbox[1]);
                assert!(one.bbox[2] < 64 && one.bbox[3] < 64);
                for (earlier, other) in scene.objects[..number].iter().enumerate() {
                    assert!((one.colour, one.shape) != (other.colour, other.shape));
                    let gap = (0..2)
                        .map(|axis| {
                            let [low, high] =
                                [one, other].map(|o| [o.bbox[axis], o.bbox[axis + 2]]);
                            low[0].max(high[0]) as i64 - low[1].min(high[1]) as i64
                        })
                        .max();
                    assert!(gap >= Some(i64::from(config.gap)));
                    let clear = |&relation: &Relation| {
                        scene.relation_is_clear(number, relation, earlier)
                            && scene.relation_is_clear(earlier, relation.inverse(), number)
                    };
                    assert!(Relation::ALL.iter().any(clear));
                }
            }
        }
        assert!(counts.iter().all(|&count| count > 200), "{counts:?}");
    }
}

#[test]
fn splits_have_their_share() {
    let counts = |images, validation_images, test_images| {
        let config =
            ShapesConfig { images, validation_images, test_images, ..ShapesConfig::default() };
        let SplitCounts { train, validation, test } = config.split_counts();
        (train, validation, test)
    };
    assert_eq!(counts(8000, None, None), (7000, 500, 500));
    assert_eq!(counts(20_000, None, None), (18_000, 1000, 1000));
    assert_eq!(counts(100, None, None), (90, 5, 5));
    assert_eq!(counts(3, None, None), (1, 1, 1));
    assert_eq!(counts(100, Some(0), Some(30)), (70, 0, 30));
}

#[test]
fn settings_out_of_range_are_named() {
    let normal = ShapesConfig::default;
    for (key, config) in [
        ("image_size", ShapesConfig { image_size: 31, ..normal() }),
        ("images", ShapesConfig { images: 2, ..normal() }),
        ("images", ShapesConfig { images: 100, test_images: Some(100), ..normal() }),
        ("images", ShapesConfig { test_images: Some(usize::MAX), ..normal() }),
        ("max_objects", ShapesConfig { max_objects: 4, ..normal() }),
        ("num_colours", ShapesConfig { num_colours: 12, ..normal() }),
        ("num_colours", ShapesConfig { num_colours: 1, num_shapes: 2, ..normal() }),
        ("num_shapes", ShapesConfig { num_shapes: 0, ..normal() }),
        ("gap", ShapesConfig { gap: 0, ..normal() }),
        ("noise", ShapesConfig { noise: 61, ..normal() }),
        ("distractors", ShapesConfig { distractors: 51, ..normal() }),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let error = generate(&folder.path().join("out"), &config, &|_| {}).unwrap_err();
        assert!(
            matches!(&error, ShapesError::Config { key: named, .. } if *named == key),
            "{error}"
        );
        assert!(!folder.path().join("out").exists());
    }
}

#[test]
fn extreme_settings_draw() {
    for config in [
        ShapesConfig { image_size: 32, gap: 8, ..ShapesConfig::hard() },
        ShapesConfig { image_size: 33, num_sizes: 1, gap: 8, ..ShapesConfig::default() },
        ShapesConfig { image_size: 257, texture: 60, noise: 60, ..ShapesConfig::hard() },
        ShapesConfig { num_colours: 1, num_shapes: 3, texture: 0, noise: 0, ..Default::default() },
    ] {
        config.validate().unwrap();
        for index in 0..30 {
            let scene = Scene::compose(&config, index);
            let image = draw(&scene, &config);
            assert_eq!(image.dimensions(), (config.image_size, config.image_size));
            for caption in captions(&scene, &config, index) {
                let verdict = check_caption(&caption.text, &scene);
                assert!(verdict.complete, "{}: {verdict:?} {scene:?}", caption.text);
            }
        }
    }
}

#[test]
fn rows_carry_scene_captions_and_boxes() {
    let folder = tempfile::tempdir().unwrap();
    let config = ShapesConfig { images: 60, ..ShapesConfig::default() };
    let seen = std::sync::atomic::AtomicUsize::new(0);
    let summary = generate(folder.path(), &config, &|done| {
        seen.fetch_max(done, std::sync::atomic::Ordering::Relaxed);
    })
    .unwrap();
    let expected = Summary { train: 54, validation: 3, test: 3, captions: 300, reused: false };
    assert_eq!(summary, expected);
    assert_eq!(seen.into_inner(), 60);
    let mut index = 0;
    for (split, count) in [("train", 54), ("validation", 3), ("test", 3)] {
        let text = fs::read_to_string(folder.path().join(split).join("metadata.jsonl")).unwrap();
        assert_eq!(text.lines().count(), count);
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let scene = Scene::from_json(&row["scene"]).unwrap();
            assert_eq!(scene, Scene::compose(&config, index));
            let image = folder.path().join(split).join(row["file_name"].as_str().unwrap());
            assert_eq!(image::open(image).unwrap().to_rgb8(), draw(&scene, &config));
            for (caption, words) in captions(&scene, &config, index).iter().zip(0..) {
                assert_eq!(row["text"][words], caption.text);
                let words: Vec<GroundedWord> =
                    serde_json::from_value(row["words"][words].clone()).unwrap();
                assert_eq!(words, caption.words);
            }
            index += 1;
        }
    }
    assert!(!folder.path().join(".partial").exists());
}

#[test]
fn a_complete_folder_is_kept_and_a_damaged_one_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let config = ShapesConfig { images: 20, ..ShapesConfig::default() };
    let run = |config: &ShapesConfig| generate(folder.path(), config, &|_| {}).map(|s| s.reused);
    assert!(!run(&config).unwrap());
    let hash = hash_folder(folder.path());
    assert!(run(&config).unwrap());
    fs::remove_file(folder.path().join("train/000003.png")).unwrap();
    assert!(!run(&config).unwrap());
    assert_eq!(hash_folder(folder.path()), hash);
    // Another seed replaces it, and leaves no image of the larger set behind.
    let smaller = ShapesConfig { images: 10, seed: 2, ..config.clone() };
    assert!(!run(&smaller).unwrap());
    assert_eq!(fs::read_dir(folder.path().join("train")).unwrap().count(), 9);
    // A run that was killed while writing: recipe and some images in the staging folder only.
    fs::remove_dir_all(folder.path().join("train")).unwrap();
    fs::create_dir(folder.path().join(".partial")).unwrap();
    fs::rename(folder.path().join("shapes.json"), folder.path().join(".partial/shapes.json"))
        .unwrap();
    fs::write(folder.path().join(".partial/000000.png"), b"cut").unwrap();
    assert!(!run(&config).unwrap());
    assert_eq!(hash_folder(folder.path()), hash);
}

#[test]
fn folders_of_others_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = ShapesConfig { images: 10, ..ShapesConfig::default() };
    let notes = folder.path().join("notes.txt");
    fs::write(&notes, "mine").unwrap();
    let error = generate(folder.path(), &config, &|_| {}).unwrap_err();
    assert!(error.to_string().contains("notes.txt"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let error = generate(&notes, &config, &|_| {}).unwrap_err();
    assert!(matches!(error, ShapesError::NotAFolder { .. }), "{error}");
    // A foreign file in a split folder of ours would be lost with it.
    let ours = folder.path().join("ours");
    generate(&ours, &config, &|_| {}).unwrap();
    fs::write(ours.join("test/holiday.jpg"), b"jpg").unwrap();
    let other = ShapesConfig { seed: 9, ..config };
    let error = generate(&ours, &other, &|_| {}).unwrap_err();
    assert!(error.to_string().contains("holiday.jpg"), "{error}");
    assert!(ours.join("shapes.json").exists());
}

#[test]
fn wrong_scenes_are_refused_with_the_field_named() {
    let right = serde_json::to_value(known_scene()).unwrap();
    assert_eq!(Scene::from_json(&right).unwrap(), known_scene());
    let mut without = right.clone();
    without.as_object_mut().unwrap().remove("width");
    assert!(Scene::from_json(&without).unwrap_err().to_string().contains("width"));
    let mut unknown = right.clone();
    unknown["objects"][0]["colour"] = "mauve".into();
    assert!(Scene::from_json(&unknown).unwrap_err().to_string().contains("mauve"));
    let mut outside = right;
    outside["objects"][1]["box"] = serde_json::json!([60, 0, 70, 10]);
    assert!(Scene::from_json(&outside).unwrap_err().to_string().contains("70"));
}

/// Draws 36 scenes on one sheet, and prints their captions, to be looked at.
#[test]
#[ignore = "writes pictures to look at, into the folder of the environment's SHAPES_SHEET"]
fn contact_sheet() {
    let Some(folder) = std::env::var_os("SHAPES_SHEET") else { return };
    for (name, config) in ["normal", "hard"].into_iter().zip(difficulties()) {
        const TIMES: u32 = 3;
        let tile = config.image_size * TIMES + 4;
        let mut sheet = image::RgbImage::from_pixel(6 * tile, 6 * tile, image::Rgb([255; 3]));
        for index in 0..36u32 {
            let scene = Scene::compose(&config, index.into());
            let picture = draw(&scene, &config);
            let (left, top) = (index % 6 * tile, index / 6 * tile);
            for (x, y, pixel) in picture.enumerate_pixels() {
                for (i, j) in (0..TIMES * TIMES).map(|k| (k % TIMES, k / TIMES)) {
                    sheet.put_pixel(left + x * TIMES + i, top + y * TIMES + j, *pixel);
                }
            }
            eprintln!("{name} {index}");
            for caption in captions(&scene, &config, index.into()) {
                eprintln!("    {}", caption.text);
            }
        }
        sheet.save(Path::new(&folder).join(format!("{name}.png"))).unwrap();
    }
}
