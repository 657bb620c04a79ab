//! The decoder: what a token may change, caches, samples.

use super::*;

#[test]
fn a_token_changes_no_logits_before_it_by_a_single_bit() {
    let device = Device::flex();
    for config in [tiny(), other()] {
        let model = shaken(&config, 1, &device);
        let memory = model.encode(images(1, &config, &device));
        let sequence = [1u32, 4, 9, 2, 6, 3, 8];
        let before = values(model.decode(ids(&[&sequence], &device), memory.clone()));
        for at in 0..sequence.len() {
            let mut changed = sequence;
            changed[at] = (changed[at] + 5) % VOCAB as u32;
            let after = values(model.decode(ids(&[&changed], &device), memory.clone()));
            assert_eq!(bits(&before[..at * VOCAB]), bits(&after[..at * VOCAB]), "token {at}");
            assert_ne!(before[at * VOCAB..], after[at * VOCAB..], "token {at} has no effect");
        }
    }
}

#[test]
fn padding_on_the_right_changes_nothing_before_it() {
    let device = Device::flex();
    let config = tiny();
    let model = shaken(&config, 2, &device);
    let memory = model.encode(images(1, &config, &device));
    let alone = values(model.decode(ids(&[&[1, 4, 9, 2]], &device), memory.clone()));
    let padded = values(model.decode(ids(&[&[1, 4, 9, 2, 0, 0, 0]], &device), memory.clone()));
    assert_close(&padded[..4 * VOCAB], &alone, 1e-5);
    let other = values(model.decode(ids(&[&[1, 4, 9, 2, 5, 0, 7]], &device), memory));
    assert_eq!(bits(&other[..4 * VOCAB]), bits(&padded[..4 * VOCAB]));
}

#[test]
fn captions_that_share_an_image_equal_captions_of_its_copies() {
    let device = Device::flex();
    for config in [tiny(), other()] {
        let model = shaken(&config, 3, &device);
        let memory = model.encode(images(2, &config, &device));
        let [_, patches, width] = memory.dims();
        let captions: [&[u32]; 6] =
            [&[1, 4, 9], &[1, 2, 3], &[1, 8, 8], &[1, 5, 6], &[1, 3, 0], &[1, 10, 2]];
        let captions = ids(&captions, &device);
        let copies: Tensor<4> = memory.clone().reshape([2, 1, patches, width]);
        let copies = copies.expand([2, 3, patches, width]).reshape([6, patches, width]);
        let folded = values(model.decode(captions.clone(), memory.clone()));
        let repeated = values(model.decode(captions.clone(), copies.clone()));
        assert_close(&folded, &repeated, 1e-5);
        assert_ne!(folded[..3 * VOCAB], folded[9 * VOCAB..12 * VOCAB], "the image has no effect");

        let [mut trace, mut trace_of_copies] = [AttentionTrace::new(), AttentionTrace::new()];
        let logits = model.decode_with_trace(captions.clone(), memory.clone(), &mut trace);
        assert_close(&values(logits), &folded, 1e-5);
        model.decode_with_trace(captions.clone(), copies, &mut trace_of_copies);
        for (one, other) in trace.cross_attention.into_iter().zip(trace_of_copies.cross_attention) {
            assert_close(&values(one.weights), &values(other.weights), 1e-5);
        }

        // Chosen positions are rows of the whole.
        let positions = Tensor::from_data(TensorData::new(vec![17i32, 0, 4], [3]), &device);
        let chosen = values(model.decode_at(captions, memory, positions));
        for (row, at) in chosen.chunks(VOCAB).zip([17, 0, 4]) {
            assert_close(row, &folded[at * VOCAB..(at + 1) * VOCAB], 1e-5);
        }
    }
}

// --- Cached decoding ---

#[test]
fn cached_decoding_equals_teacher_forcing() {
    let device = Device::flex();
    let rows: [&[u32]; 4] = [
        &[1, 4, 9, 2, 6, 3, 8, 8, 10, 5],
        &[1, 2, 2, 7, 0, 5, 1, 9, 3, 3],
        &[3, 10, 6, 2, 4, 4, 4, 0, 1, 2],
        &[5, 0, 7, 1, 9, 8, 2, 6, 6, 1],
    ];
    for config in [tiny(), other()] {
        let model = shaken(&config, 4, &device);
        let memory = model.encode(images(2, &config, &device));
        let whole = values(model.decode(ids(&rows, &device), memory.clone()));
        for bucket in [1, 8] {
            // Tokens fed at each step: one by one; a prompt first; more than one again later on.
            for steps in [vec![1; 10], vec![4, 1, 1, 1, 1, 1, 1], vec![3, 2, 1, 4], vec![10]] {
                let mut cache = model.start(&memory, 2, 16, bucket);
                assert!(cache.is_empty());
                let mut end = 0;
                for added in steps {
                    let fed: Vec<&[u32]> = rows.iter().map(|row| &row[end..end + added]).collect();
                    let logits = values(model.step(ids(&fed, &device), &mut cache));
                    end += added;
                    assert_eq!((cache.len(), cache.capacity()), (end, 16));
                    for (row, logits) in logits.chunks(VOCAB).enumerate() {
                        let at = (row * 10 + end - 1) * VOCAB;
                        assert_close(logits, &whole[at..at + VOCAB], 1e-4);
                    }
                }
            }
        }
    }
}

#[test]
fn greedy_decoding_with_a_cache_chooses_what_recomputation_chooses() {
    let device = Device::flex();
    for config in [tiny(), other()] {
        let model = shaken(&config, 5, &device);
        let memory = model.encode(images(3, &config, &device));
        let end = 0;
        let settings = GenerateConfig::greedy(15);
        let mut recomputed = Vec::new();
        for image in 0..3 {
            let own = memory.clone().narrow(0, image, 1);
            let mut sequence = vec![1u32, 6];
            for _ in 0..settings.max_new_tokens {
                let logits = values(model.decode(ids(&[&sequence], &device), own.clone()));
                let last = &logits[logits.len() - VOCAB..];
                let best = (1..VOCAB).fold(0, |a, b| if last[b] > last[a] { b } else { a });
                sequence.push(best as u32);
                if best == end {
                    break;
                }
            }
            recomputed.push(sequence);
        }
        for bucket in [1, 8] {
            let cached =
                generate_from_memory(&model, &memory, &[1, 6], end as u32, &settings, bucket);
            let cached: Vec<Vec<u32>> = cached.unwrap().into_iter().map(|out| out.ids).collect();
            assert_eq!(cached, recomputed, "bucket {bucket}");
        }
    }
}

#[test]
fn images_that_are_left_go_on_as_if_the_others_were_there() {
    let device = Device::flex();
    let config = tiny();
    let model = shaken(&config, 5, &device);
    let memory = model.encode(images(3, &config, &device));
    let step = |rows: &[u32], cache: &mut DecoderCache| {
        let columns: Vec<&[u32]> = rows.iter().map(std::slice::from_ref).collect();
        values(model.step(ids(&columns, &device), cache))
    };
    let mut all = model.start(&memory, 2, 4, 1);
    let mut fewer = model.start(&memory, 2, 4, 1);
    for cache in [&mut all, &mut fewer] {
        step(&[1, 2, 3, 4, 5, 6], cache);
    }
    assert_eq!(fewer.keep_images(&[0, 2]), 4);
    let expected = step(&[6, 5, 4, 3, 2, 1], &mut all);
    let found = step(&[6, 5, 2, 1], &mut fewer);
    assert_close(&found[..2 * VOCAB], &expected[..2 * VOCAB], 1e-6);
    assert_close(&found[2 * VOCAB..], &expected[4 * VOCAB..], 1e-6);
    assert_eq!(fewer.keep_images(&[1]), 2);
    let expected = step(&[2; 6], &mut all);
    assert_close(&step(&[2; 2], &mut fewer), &expected[4 * VOCAB..], 1e-6);
}

#[test]
fn samples_carry_the_models_own_log_probabilities() {
    let device = Device::flex();
    let config = tiny();
    let model = shaken(&config, 5, &device);
    let memory = model.encode(images(2, &config, &device));
    let plain = GenerateConfig::sampling(3, 8, 9);
    // What the draws are made from is no matter.
    let cut =
        GenerateConfig { temperature: 0.7, top_k: 5, repetition_penalty: 1.2, ..plain.clone() };
    for settings in [plain, cut] {
        let samples = generate_from_memory(&model, &memory, &[1, 6], 0, &settings, 1).unwrap();
        assert_eq!(samples.len(), 6, "three for each of two images");
        assert_ne!(samples[0].ids, samples[1].ids);
        for (index, sample) in samples.iter().enumerate() {
            let own = memory.clone().narrow(0, index / 3, 1);
            let logits = model.decode(ids(&[&sample.ids], &device), own);
            let expected = values(burn::tensor::activation::log_softmax(logits, 2));
            assert_eq!(sample.log_probabilities.len() + 2, sample.ids.len());
            for (at, &found) in sample.log_probabilities.iter().enumerate() {
                let expected = expected[(at + 1) * VOCAB + sample.ids[at + 2] as usize];
                assert!((found - expected).abs() < 1e-4, "{found}, not {expected}");
            }
            let sum: f32 = sample.log_probabilities.iter().sum();
            assert!((sample.score - sum / sample.log_probabilities.len() as f32).abs() < 1e-5);
        }
    }
}

#[test]
fn reordering_a_cache_moves_its_rows() {
    let device = Device::flex();
    let config = tiny();
    let model = shaken(&config, 6, &device);
    let memory = model.encode(images(2, &config, &device));
    let mut cache = model.start(&memory, 2, 8, 1);
    model.step(ids(&[&[1, 4, 9], &[1, 2, 3], &[1, 5, 5], &[1, 7, 0]], &device), &mut cache);
    // The first image's rows change places; both rows of the second go on from its second.
    cache.reorder(&[1, 0, 3, 3]);
    let next: [&[u32]; 4] = [&[6], &[8], &[2], &[10]];
    let moved = values(model.step(ids(&next, &device), &mut cache));
    let whole: [&[u32]; 4] = [&[1, 2, 3, 6], &[1, 4, 9, 8], &[1, 7, 0, 2], &[1, 7, 0, 10]];
    let expected = values(model.decode(ids(&whole, &device), memory).narrow(1, 3, 1));
    assert_close(&moved, &expected, 1e-4);
}

// --- Gradients ---
