//! Samples against probabilities that are written down.

use super::tests::Mock;
use super::*;

const END: u32 = 0;

/// Next to each other, so that top-k and top-p have something to cut.
const PROBABILITIES: [f32; 8] = [0.02, 0.30, 0.05, 0.20, 0.03, 0.15, 0.15, 0.10];

/// How often each token came first in `draws` samples, a multiple of a thousand.
fn frequencies(config: &GenerateConfig, draws: usize) -> Vec<f64> {
    let mut counts = vec![0.0; 8];
    for part in 0..draws as u64 / 1000 {
        let config =
            GenerateConfig { num_captions: 1000, seed: config.seed + part, ..config.clone() };
        let mut model = Mock::new(8, 1000, &[(&[], &PROBABILITIES)]);
        let samples = generate(&mut model, 0..1, &[7], END, &config).unwrap();
        assert_eq!(samples.len(), 1000);
        for sample in samples {
            counts[sample.ids[1] as usize] += 1.0 / draws as f64;
            // The model's own, whatever the draw was made from.
            let expected = PROBABILITIES[sample.ids[1] as usize].ln();
            assert!((sample.log_probabilities[0] - expected).abs() < 1e-5);
        }
    }
    counts
}

/// Twenty thousand draws are within five standard deviations of the probabilities.
fn assert_distribution(config: &GenerateConfig, expected: [f64; 8]) {
    let total: f64 = expected.iter().sum();
    let draws = 20_000;
    for (id, (found, expected)) in frequencies(config, draws).iter().zip(expected).enumerate() {
        let expected = expected / total;
        let deviation = (expected * (1.0 - expected) / draws as f64).sqrt();
        let distance = (found - expected).abs();
        assert!(distance <= 5.0 * deviation, "token {id}: {found}, not {expected}: {config:?}");
    }
}

fn once() -> GenerateConfig {
    GenerateConfig::sampling(1, 1, 11)
}

#[test]
fn samples_come_as_often_as_they_are_likely() {
    assert_distribution(&once(), PROBABILITIES.map(f64::from));
}

#[test]
fn temperature_is_a_power_of_the_probabilities() {
    for temperature in [0.5f32, 2.0] {
        let config = GenerateConfig { temperature, ..once() };
        let power = 1.0 / f64::from(temperature);
        assert_distribution(&config, PROBABILITIES.map(|p| f64::from(p).powf(power)));
    }
}

#[test]
fn top_k_and_top_p_leave_the_likeliest_in_their_proportions() {
    let top_k = GenerateConfig { top_k: 2, ..once() };
    assert_distribution(&top_k, [0.0, 0.30, 0.0, 0.20, 0.0, 0.0, 0.0, 0.0]);
    // A tie with the last of them stays, as in transformers.
    let tied = GenerateConfig { top_k: 3, ..once() };
    assert_distribution(&tied, [0.0, 0.30, 0.0, 0.20, 0.0, 0.15, 0.15, 0.0]);
    let top_p = GenerateConfig { top_p: 0.85, ..once() };
    assert_distribution(&top_p, [0.0, 0.30, 0.0, 0.20, 0.0, 0.15, 0.15, 0.10]);
    // 0.5 is reached by two; the warmer distribution needs more.
    let top_p = GenerateConfig { top_p: 0.45, ..once() };
    assert_distribution(&top_p, [0.0, 0.30, 0.0, 0.20, 0.0, 0.0, 0.0, 0.0]);
    let both = GenerateConfig { top_k: 4, top_p: 0.6, temperature: 1e6, ..once() };
    let counts = frequencies(&both, 2000);
    assert_eq!(counts.iter().filter(|&&count| count > 0.0).count(), 3, "{counts:?}");
}

#[test]
fn a_temperature_near_zero_is_greedy() {
    let cold = GenerateConfig { temperature: 1e-4, ..once() };
    assert!(frequencies(&cold, 1000)[1] > 0.999);
}

#[test]
fn constraints_come_before_the_draw() {
    let config = GenerateConfig { suppress_tokens: vec![1, 3], min_new_tokens: 1, ..once() };
    assert_distribution(&config, [0.0, 0.0, 0.05, 0.0, 0.03, 0.15, 0.15, 0.10]);
}

/// A model whose next token depends on the last alone, so that rows may be sampled beside any others.
fn chain(rows: usize) -> Mock {
    let mut model = Mock::new(8, rows, &[]);
    let ids: Vec<Vec<u32>> = (0..8).map(|id| vec![id]).collect();
    for (shift, id) in ids.into_iter().enumerate() {
        let mut row = PROBABILITIES.to_vec();
        row.rotate_left(shift);
        model.table.insert(id, row);
    }
    model
}

#[test]
fn an_images_samples_follow_from_seed_and_numbers_alone() {
    let ids = |images: std::ops::Range<u64>, num_captions: usize, seed: u64, beams: usize| {
        let config = GenerateConfig {
            num_beams: beams,
            num_captions,
            top_k: 6,
            ..GenerateConfig::sampling(num_captions, 6, seed)
        };
        let rows = (images.end - images.start) as usize * config.rows_per_image();
        let out = generate(&mut chain(rows), images, &[7], END, &config).unwrap();
        out.into_iter().map(|one| one.ids).collect::<Vec<_>>()
    };
    let together = ids(0..5, 3, 1, 1);
    assert_eq!(together, ids(0..5, 3, 1, 1));
    assert_ne!(together, ids(0..5, 3, 2, 1));
    // Image by image, and with fewer samples.
    for image in 0..5 {
        let at = 3 * image as usize;
        assert_eq!(together[at..at + 3], ids(image..image + 1, 3, 1, 1));
        assert_eq!(together[at..at + 1], ids(image..image + 1, 1, 1, 1));
    }
    let mut different = together.clone();
    different.sort();
    different.dedup();
    assert!(different.len() > 10, "{together:?}");
    // Beam sampling too.
    let beams = ids(0..4, 2, 1, 3);
    assert_eq!(beams.len(), 8);
    assert_eq!(beams[4..], ids(2..4, 2, 1, 3));
    assert_ne!(beams, ids(0..4, 2, 2, 3));
}

#[test]
fn drawing_several_puts_none_back() {
    let scores: Vec<f32> = PROBABILITIES.iter().map(|p| p.ln()).collect();
    let mut draws = sample::Draws::new(1, 2, 3);
    let (mut first, mut second) = ([0.0; 8], [0.0; 8]);
    let rounds = 20_000;
    for _ in 0..rounds {
        let drawn = draws.several(&scores, 2);
        assert_ne!(drawn[0], drawn[1]);
        first[drawn[0]] += 1.0 / f64::from(rounds);
        second[drawn[1]] += 1.0 / f64::from(rounds);
    }
    for id in 0..8 {
        let p = |id: usize| f64::from(PROBABILITIES[id]);
        let after: f64 =
            (0..8).filter(|&other| other != id).map(|other| p(other) / (1.0 - p(other))).sum();
        for (found, expected) in [(first[id], p(id)), (second[id], p(id) * after)] {
            let deviation = (expected * (1.0 - expected) / f64::from(rounds)).sqrt();
            assert!((found - expected).abs() < 5.0 * deviation, "{id}: {found} {expected}");
        }
    }
    assert_eq!(draws.several(&scores, 20).len(), 8);
    assert!(draws.several(&[f32::NEG_INFINITY; 3], 2).is_empty());
}

#[test]
fn beam_sampling_draws_hypotheses_and_returns_the_best_first() {
    let config =
        GenerateConfig { num_beams: 2, num_captions: 2, ..GenerateConfig::sampling(2, 1, 4) };
    let mut seen = std::collections::BTreeMap::new();
    let images = 4000;
    let mut model = Mock::new(8, 2 * images, &[(&[], &PROBABILITIES)]);
    let out = generate(&mut model, 0..images as u64, &[7], END, &config).unwrap();
    for pair in out.chunks(2) {
        assert_ne!(pair[0].ids, pair[1].ids);
        assert!(pair[0].score >= pair[1].score);
        let p = PROBABILITIES[pair[0].ids[1] as usize];
        assert!((pair[0].score - p.ln()).abs() < 1e-5);
        *seen.entry(pair[0].ids[1]).or_insert(0) += 1;
    }
    // Token 1 is the likeliest: it is first of the two wherever it was drawn at all.
    let p = |id: usize| f64::from(PROBABILITIES[id]);
    let expected: f64 =
        p(1) + (0..8).filter(|&id| id != 1).map(|id| p(id) * p(1) / (1.0 - p(id))).sum::<f64>();
    let found = f64::from(seen[&1]) / images as f64;
    assert!((found - expected).abs() < 0.04, "{found}, not {expected}");
}

/// The nucleus is found in parts of the vocabulary; the whole of it sorted says what it is.
#[test]
fn the_nucleus_of_a_large_vocabulary_is_what_sorting_all_of_it_gives() {
    for (spread, mass) in [(0.0f32, 0.5f32), (1e-3, 0.9), (1e-3, 0.01), (0.05, 0.95), (1.0, 0.999)]
    {
        // Far from sorted, with ties.
        let scores: Vec<f32> = (0..5000u32)
            .map(|id| -spread * (id.wrapping_mul(2_654_435_761) >> 20) as f32)
            .collect();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        let weights: Vec<f64> = order.iter().map(|&id| f64::from(scores[id]).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut gone = 0.0;
        let removed = weights.iter().take_while(|weight| {
            gone += **weight / total;
            gone < 1.0 - f64::from(mass) - 1e-6
        });
        let removed = removed.count();
        let mut warped = scores.clone();
        sample::warp(&mut warped, 1, &GenerateConfig { top_p: mass, ..once() });
        let kept = warped.iter().filter(|score| score.is_finite()).count();
        // Rounding may decide about one.
        assert!((scores.len() - removed).abs_diff(kept) <= 1, "{kept}, {removed} removed");
        assert!(order[removed + 1..].iter().all(|&id| warped[id] == scores[id]));
    }
}
