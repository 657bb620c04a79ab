//! Batches of small images.
use super::*;

/// Images that are one colour each, with captions that are one number each.
fn examples(folder: &std::path::Path, counts: &[usize]) -> Vec<Example> {
    let mut next = 10;
    counts
        .iter()
        .enumerate()
        .map(|(index, &count)| {
            let path = folder.join(format!("{index}.png"));
            let colour = image::Rgb([index as u8 * 20, 0, 0]);
            image::RgbImage::from_pixel(8, 8, colour).save(&path).unwrap();
            let captions = (0..count)
                .map(|length| {
                    next += 1;
                    vec![next; length + 1]
                })
                .collect();
            Example { image: path.into(), captions, has_direction: false }
        })
        .collect()
}

fn config() -> LoaderConfig {
    let preprocess = PreprocessConfig { height: 8, width: 8, ..PreprocessConfig::default() };
    LoaderConfig {
        batch_size: 3,
        captions_per_image: 2,
        augment: Some(AugmentConfig { crop_scale: [0.5, 1.0], ..AugmentConfig::default() }),
        group_by_length: true,
        seed: 7,
        workers: 2,
        ..LoaderConfig::plain(preprocess, SpecialTokens { bos: 1, eos: 2, pad: 0 }, 4)
    }
}

#[test]
fn an_epoch_has_every_caption_once() {
    let folder = tempfile::tempdir().unwrap();
    let examples = examples(folder.path(), &[1, 2, 3, 5, 2, 1, 4]);
    let units = units_per_epoch(&examples, 2);
    assert_eq!(units, 1 + 1 + 2 + 3 + 1 + 1 + 2);
    let mut wanted: Vec<i32> =
        examples.iter().flat_map(|e| &e.captions).map(|c| c[0] as i32).collect();
    // Batches of one: an epoch is a whole number of them.
    let config = LoaderConfig { batch_size: 1, ..config() };
    let mut loader = TrainLoader::new(examples, config, 0);
    for _ in 0..2 {
        let mut seen: Vec<i32> = Vec::new();
        for _ in 0..units {
            let batch = loader.next_batch().unwrap();
            let firsts = batch.inputs.chunks(batch.seq).map(|row| row[1.min(batch.seq - 1)]);
            seen.extend(firsts.filter(|&id| id > 2));
        }
        seen.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(seen, wanted);
    }
}

#[test]
fn the_stream_can_be_entered_anywhere_and_with_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let examples = examples(folder.path(), &[1, 2, 3, 5, 2, 1, 4]);
    let mut whole = TrainLoader::new(examples.clone(), config(), 0);
    let all: Vec<Batch> = (0..9).map(|_| whole.next_batch().unwrap()).collect();
    let one = LoaderConfig { workers: 1, ..config() };
    let mut late = TrainLoader::new(examples, one, 5);
    for expected in &all[5..] {
        let found = late.next_batch().unwrap();
        assert_eq!(found.inputs, expected.inputs);
        assert_eq!(found.encoder_inputs, expected.encoder_inputs);
    }
    assert_ne!(all[0].encoder_inputs, all[1].encoder_inputs);
}

#[test]
fn batches_of_like_lengths_are_no_longer_than_they_must_be() {
    let unit = |example| Unit { example, first: 0, count: 1 };
    let lengths: Vec<usize> = (0..70).map(|index| index * 37 % 70).collect();
    let mut units: Vec<Unit> = (0..lengths.len()).map(unit).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    group_by_length(&mut units, 4, |unit| lengths[unit.example], &mut rng);
    let mut seen: Vec<usize> = units.iter().map(|unit| unit.example).collect();
    // 70 units: a group of 64, whose batches hold neighbours in length, and a rest of 6.
    for batch in units[..64].chunks(4) {
        let length = |unit: &Unit| lengths[unit.example];
        let (least, most) = (batch.iter().map(length).min(), batch.iter().map(length).max());
        assert!(most.unwrap() - least.unwrap() <= 9, "{least:?} to {most:?}");
    }
    let rising = units[..64].is_sorted_by_key(|unit| lengths[unit.example]);
    assert!(!rising, "the batches themselves come in random order");
    seen.sort_unstable();
    assert_eq!(seen, (0..70).collect::<Vec<_>>());
}

#[test]
fn targets_are_the_next_tokens_and_padding_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut examples = examples(folder.path(), &[2]);
    examples[0].captions = vec![vec![11], vec![21, 22, 23, 24, 25]];
    let mut batches = Vec::new();
    let config = LoaderConfig { augment: None, ..config() };
    for_each_batch(&examples, &config, |batch| {
        batches.push(batch);
        Ok::<(), ()>(())
    })
    .unwrap();
    let batch = &batches[0];
    assert_eq!(batch.seq, 4);
    // The second caption is cut to four positions: its last target is its next token.
    assert_eq!(batch.inputs, [1, 11, 0, 0, 1, 21, 22, 23]);
    assert_eq!(batch.positions, [0, 1, 4, 5, 6, 7]);
    assert_eq!(batch.targets, [11, 2, 21, 22, 23, 24]);
    assert_eq!(batch.tokens, 6);
}

#[test]
fn captions_longer_than_the_positions_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut examples = examples(folder.path(), &[2, 1]);
    examples[0].captions = vec![vec![7; 3], vec![7; 4]];
    examples[1].captions = vec![vec![7; 9]];
    let cut = cut_captions(&examples, 4, 1);
    assert_eq!(cut, CutCaptions { count: 2, total: 3, longest: 10 });
    assert_eq!(cut_captions(&examples, 10, 1).count, 0);
}

#[test]
fn a_prompt_stands_in_front_and_is_no_target() {
    let folder = tempfile::tempdir().unwrap();
    let mut examples = examples(folder.path(), &[2]);
    examples[0].captions = vec![vec![11], vec![21, 22]];
    let config = LoaderConfig { augment: None, max_tokens: 9, prompt: vec![7, 8], ..config() };
    for_each_batch(&examples, &config, |batch| {
        assert_eq!(batch.inputs, [1, 7, 8, 11, 0, 1, 7, 8, 21, 22]);
        assert_eq!(batch.positions, [2, 3, 7, 8, 9]);
        assert_eq!(batch.targets, [11, 2, 21, 22, 2]);
        Ok::<(), ()>(())
    })
    .unwrap();
}

#[test]
fn buckets_round_up_without_adding_targets() {
    let folder = tempfile::tempdir().unwrap();
    let examples = examples(folder.path(), &[2]);
    let config = LoaderConfig { bucket: 4, augment: None, ..config() };
    for_each_batch(&examples, &config, |batch| {
        assert_eq!((batch.seq, batch.tokens, batch.positions.len()), (4, 5, 64));
        Ok::<(), ()>(())
    })
    .unwrap();
}

#[test]
fn an_unreadable_image_is_left_out_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let examples = examples(folder.path(), &[1, 1, 1]);
    std::fs::write(examples[1].image.path(), b"not an image").unwrap();
    let config = LoaderConfig { augment: None, ..config() };
    for_each_batch(&examples, &config, |batch| {
        assert_eq!(batch.images, 2);
        assert_eq!(batch.skipped.len(), 1);
        assert_eq!(batch.skipped[0].path, examples[1].image.path());
        Ok::<(), ()>(())
    })
    .unwrap();
}

#[test]
fn captions_with_a_side_are_known() {
    assert!(says_direction("a dog to the Left of a cat"));
    assert!(says_direction("the right-hand side"));
    assert!(!says_direction("a bright light is leftover"));
}
