//! Every strategy against a mock model whose probabilities are written down.

use std::collections::HashMap;

use super::*;

const END: u32 = 0;

/// A model of next-token probabilities keyed by what was decoded after the begin token.
pub(super) struct Mock {
    pub table: HashMap<Vec<u32>, Vec<f32>>,
    vocab: usize,
    fed: Vec<Vec<u32>>,
    steps: usize,
    /// Rows an image; 0: all are kept.
    of_image: usize,
    /// Rows that were fed, one by one.
    rows: usize,
}

impl Mock {
    pub fn new(vocab: usize, rows: usize, table: &[(&[u32], &[f32])]) -> Self {
        let table = table.iter().map(|(key, row)| (key.to_vec(), row.to_vec())).collect();
        Self { table, vocab, fed: vec![Vec::new(); rows], steps: 0, of_image: 0, rows: 0 }
    }
}

impl StepModel for Mock {
    fn vocab_size(&self) -> usize {
        self.vocab
    }

    fn step(&mut self, ids: &[u32], seq: usize) -> Result<Vec<f32>, GenerateError> {
        self.steps += 1;
        self.rows += self.fed.len();
        assert_eq!(ids.len(), self.fed.len() * seq);
        let mut logits = Vec::new();
        for (row, new) in self.fed.iter_mut().zip(ids.chunks(seq)) {
            row.extend(new);
            let uniform = vec![1.0 / self.vocab as f32; self.vocab];
            let probabilities = self.table.get(&row[1..]).cloned().unwrap_or(uniform);
            // Any constant may be added to logits.
            logits.extend(probabilities.iter().map(|p: &f32| p.ln() + 3.0));
        }
        Ok(logits)
    }

    fn reorder(&mut self, rows: &[usize]) {
        self.fed = rows.iter().map(|&row| self.fed[row].clone()).collect();
    }

    fn keep_images(&mut self, images: &[usize]) -> bool {
        let rows = images.iter().flat_map(|i| i * self.of_image..(i + 1) * self.of_image);
        let rows: Vec<usize> = rows.collect();
        if self.of_image > 0 {
            self.reorder(&rows);
        }
        self.of_image > 0
    }
}

fn close(a: f32, b: f32) {
    assert!((a - b).abs() < 1e-5, "{a} is not {b}");
}

#[test]
fn greedy_follows_the_best_token_and_stops_at_the_end() {
    let mut model = Mock::new(
        4,
        1,
        &[
            (&[], &[0.1, 0.2, 0.6, 0.1]),
            (&[2], &[0.2, 0.5, 0.2, 0.1]),
            (&[2, 1], &[0.9, 0.05, 0.03, 0.02]),
        ],
    );
    let out = generate(&mut model, 0..1, &[3], END, &GenerateConfig::greedy(10)).unwrap();
    assert_eq!(out[0].ids, [3, 2, 1, END]);
    close(out[0].score, (0.6f32.ln() + 0.5f32.ln() + 0.9f32.ln()) / 3.0);
    close(out[0].log_probabilities[1], 0.5f32.ln());
    assert_eq!(model.steps, 3, "nothing is decoded after the end");
}

#[test]
fn images_that_are_done_are_dropped_and_nothing_else_changes() {
    for (beams, captions) in [(1, 1), (1, 3), (3, 2)] {
        let sampling = GenerateConfig::sampling(captions, 12, 5);
        let config = GenerateConfig { num_beams: beams, ..sampling };
        let of_image = config.rows_per_image();
        let decode = |dropping: bool| {
            let mut model = Mock::new(6, 10 * of_image, &[]);
            model.of_image = if dropping { of_image } else { 0 };
            let out = generate(&mut model, 0..10, &[3], END, &config).unwrap();
            (out, model.rows)
        };
        let ((kept, all_rows), (dropped, fewer_rows)) = (decode(false), decode(true));
        assert_eq!(kept, dropped);
        assert!(4 * fewer_rows < 3 * all_rows, "{fewer_rows} of {all_rows} rows were fed");
    }
}

#[test]
fn greedy_breaks_ties_by_the_smaller_id_and_stops_at_the_limit() {
    let mut model = Mock::new(4, 1, &[(&[], &[0.1, 0.4, 0.4, 0.1]), (&[1], &[0.1, 0.1, 0.4, 0.4])]);
    let out = generate(&mut model, 0..1, &[3], END, &GenerateConfig::greedy(2)).unwrap();
    assert_eq!(out[0].ids, [3, 1, 2]);
}

#[test]
fn rows_of_a_greedy_batch_end_by_themselves() {
    // Row 0 ends at once; row 1 goes on with what row 0 never sees.
    struct Two(Mock);
    impl StepModel for Two {
        fn vocab_size(&self) -> usize {
            3
        }
        fn step(&mut self, ids: &[u32], seq: usize) -> Result<Vec<f32>, GenerateError> {
            let mut logits = self.0.step(ids, seq)?;
            if self.0.steps == 1 {
                logits[0..3].copy_from_slice(&[5.0, 0.0, 0.0]);
            }
            Ok(logits)
        }
        fn reorder(&mut self, rows: &[usize]) {
            self.0.reorder(rows);
        }
    }
    let mut model = Two(Mock::new(
        3,
        2,
        &[(&[], &[0.1, 0.8, 0.1]), (&[1], &[0.1, 0.1, 0.8]), (&[1, 2], &[0.9, 0.05, 0.05])],
    ));
    let out = generate(&mut model, 0..2, &[1], END, &GenerateConfig::greedy(5)).unwrap();
    assert_eq!(out[0].ids, [1, END]);
    assert_eq!(out[1].ids, [1, 1, 2, END]);
}

/// The garden path: the best first token leads to a worse sentence.
fn garden() -> Vec<(&'static [u32], &'static [f32])> {
    vec![
        (&[], &[0.01, 0.54, 0.44, 0.01]),
        (&[1], &[0.1, 0.3, 0.3, 0.3]),
        (&[2], &[0.02, 0.02, 0.02, 0.94]),
        (&[2, 3], &[0.97, 0.01, 0.01, 0.01]),
        (&[1, 1], &[0.97, 0.01, 0.01, 0.01]),
        (&[1, 2], &[0.97, 0.01, 0.01, 0.01]),
        (&[1, 3], &[0.97, 0.01, 0.01, 0.01]),
    ]
}

#[test]
fn beams_find_what_greedy_misses() {
    let config = GenerateConfig { num_beams: 2, max_new_tokens: 6, ..Default::default() };
    let mut model = Mock::new(4, 2, &garden());
    let out = generate(&mut model, 0..1, &[3], END, &config).unwrap();
    assert_eq!(out[0].ids, [3, 2, 3, END]);
    close(out[0].score, (0.44f32.ln() + 0.94f32.ln() + 0.97f32.ln()) / 3.0);
    let mut model = Mock::new(4, 1, &garden());
    let out = generate(&mut model, 0..1, &[3], END, &GenerateConfig::greedy(6)).unwrap();
    assert_eq!(out[0].ids, [3, 1, 1, END]);
}

#[test]
fn the_length_penalty_divides_by_the_length_to_its_power() {
    // Ending at once has p = 0.4; going on for two tokens has p = 0.6 × 0.5 = 0.3.
    let table: Vec<(&[u32], &[f32])> =
        vec![(&[], &[0.4, 0.5999, 0.0001]), (&[1], &[0.5, 0.2499, 0.2501])];
    let decode = |penalty: f32| {
        let config = GenerateConfig {
            num_beams: 2,
            max_new_tokens: 2,
            length_penalty: penalty,
            ..GenerateConfig::default()
        };
        let mut model = Mock::new(4, 2, &table.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>());
        model.vocab = 4;
        model.table.values_mut().for_each(|row| row.push(1e-9));
        generate(&mut model, 0..1, &[2], END, &config).unwrap().remove(0)
    };
    let short = decode(0.0);
    assert_eq!(short.ids, [2, END]);
    close(short.score, 0.4f32.ln());
    let long = decode(2.0);
    assert_eq!(long.ids, [2, 1, END]);
    close(long.score, (0.5999f32.ln() + 0.5f32.ln()) / 4.0);
}

#[test]
fn beams_that_finish_early_wait_unless_told_to_stop() {
    // Two hypotheses finish within two steps, but a longer one is better by far per token.
    let table: Vec<(&[u32], &[f32])> = vec![
        (&[], &[0.3, 0.4, 0.3]),
        (&[1], &[0.34, 0.33, 0.33]),
        (&[2], &[0.01, 0.01, 0.98]),
        (&[1, 1], &[0.98, 0.01, 0.01]),
        (&[2, 2], &[0.98, 0.01, 0.01]),
    ];
    let decode = |early_stopping| {
        let mut wide: Vec<(Vec<u32>, Vec<f32>)> =
            table.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
        wide.iter_mut().for_each(|(_, row)| row.push(1e-9));
        let wide: Vec<(&[u32], &[f32])> =
            wide.iter().map(|(k, v)| (k.as_slice(), v.as_slice())).collect();
        let mut model = Mock::new(4, 2, &wide);
        let config = GenerateConfig {
            num_beams: 2,
            max_new_tokens: 5,
            early_stopping,
            ..GenerateConfig::default()
        };
        (generate(&mut model, 0..1, &[3], END, &config).unwrap().remove(0), model.steps)
    };
    let (patient, patient_steps) = decode(EarlyStopping::Heuristic);
    assert_eq!(patient.ids, [3, 2, 2, END]);
    let (_, hasty_steps) = decode(EarlyStopping::AtOnce);
    assert!(hasty_steps <= patient_steps);
}

#[test]
fn equal_scores_go_to_the_earlier_beam_and_the_smaller_id() {
    let mut model = Mock::new(6, 2, &[(&[], &[0.0001, 0.2499, 0.2499, 0.2499, 0.25, 0.0002])]);
    let config = GenerateConfig { num_beams: 2, max_new_tokens: 1, ..Default::default() };
    let out = generate(&mut model, 0..1, &[5], END, &config).unwrap();
    assert_eq!(out[0].ids, [5, 4]);
    let mut model = Mock::new(6, 2, &[(&[], &[0.01, 0.24, 0.25, 0.25, 0.25, 0.0])]);
    let out = generate(&mut model, 0..1, &[5], END, &config).unwrap();
    assert_eq!(out[0].ids, [5, 2]);
}

#[test]
fn configurations_out_of_range_are_named() {
    let mut model = Mock::new(4, 1, &[]);
    for (config, key) in [
        (GenerateConfig { num_beams: 0, ..Default::default() }, "num_beams"),
        (GenerateConfig { num_beams: 3, ..Default::default() }, "num_beams"),
        (GenerateConfig { num_captions: 0, ..GenerateConfig::greedy(3) }, "num_captions"),
        (GenerateConfig { num_captions: 3, num_beams: 2, ..Default::default() }, "num_captions"),
        (GenerateConfig { num_captions: 2, ..GenerateConfig::greedy(3) }, "num_captions"),
        (GenerateConfig { temperature: 0.0, ..GenerateConfig::greedy(3) }, "temperature"),
        (GenerateConfig { top_p: 0.0, ..GenerateConfig::greedy(3) }, "top_p"),
        (GenerateConfig { top_p: 1.1, ..GenerateConfig::greedy(3) }, "top_p"),
        (GenerateConfig { max_length: Some(1), ..GenerateConfig::greedy(3) }, "max_length"),
        (
            GenerateConfig { forced_bos_token_id: Some(4), ..GenerateConfig::greedy(3) },
            "forced_bos_token_id",
        ),
        (
            GenerateConfig { bad_words_ids: vec![vec![]], ..GenerateConfig::greedy(3) },
            "bad_words_ids",
        ),
        (
            GenerateConfig { max_new_tokens: 0, num_beams: 1, ..Default::default() },
            "max_new_tokens",
        ),
        (
            GenerateConfig { length_penalty: f32::NAN, num_beams: 1, ..Default::default() },
            "length_penalty",
        ),
    ] {
        let error = generate(&mut model, 0..1, &[1], END, &config).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn a_prompt_as_long_as_a_caption_may_be_is_an_error() {
    let mut model = Mock::new(4, 1, &[]);
    let config = GenerateConfig { max_length: Some(3), ..GenerateConfig::greedy(9) };
    let error = generate(&mut model, 0..1, &[1, 2, 3], END, &config).unwrap_err().to_string();
    assert!(error.contains("max_length"), "{error}");
    let said = generate(&mut model, 0..1, &[1, 2], END, &config).unwrap();
    assert_eq!(said[0].ids.len(), 3);
    let error = generate(&mut model, 0..1, &[], END, &config).unwrap_err().to_string();
    assert!(error.contains("prompt"), "{error}");
}

#[test]
fn old_settings_can_be_read_and_early_stopping_is_a_flag_or_never() {
    let old = r#"{"num_beams": 2, "max_new_tokens": 9, "length_penalty": 1.0, "early_stopping": true,
        "min_new_tokens": 0, "no_repeat_ngram_size": 0, "repetition_penalty": 1.0}"#;
    let config: GenerateConfig = serde_json::from_str(old).unwrap();
    assert_eq!(config.early_stopping, EarlyStopping::AtOnce);
    assert_eq!((config.do_sample, config.top_k, config.top_p), (false, 0, 1.0));
    for name in ["true", "false", "\"never\""] {
        let json = format!("{{\"early_stopping\":{name}}}");
        let config: GenerateConfig = serde_json::from_str(&json).unwrap();
        assert!(serde_json::to_string(&config).unwrap().contains(&json[1..json.len() - 1]));
        assert_eq!(name.trim_matches('"').parse(), Ok(config.early_stopping));
    }
    assert!(serde_json::from_str::<GenerateConfig>(r#"{"early_stopping": "always"}"#).is_err());
    let toml: GenerateConfig = toml::from_str("early_stopping = 'never'\nseed = 3").unwrap();
    assert_eq!((toml.early_stopping, toml.seed), (EarlyStopping::Never, 3));
}

#[test]
fn logits_that_are_no_numbers_are_an_error() {
    let mut model = Mock::new(4, 1, &[(&[], &[f32::NAN, 0.1, 0.1, 0.1])]);
    for config in [GenerateConfig::greedy(3), GenerateConfig::sampling(1, 3, 0)] {
        let error = generate(&mut model, 0..1, &[1], END, &config).unwrap_err();
        assert!(error.to_string().contains("not finite"), "{error}");
        model.fed = vec![Vec::new()];
    }
}

#[test]
fn captions_end_where_everything_is_forbidden() {
    // Four tokens, none of which may come twice, and one that never ends.
    let step: &[f32] = &[0.4, 0.3, 0.2, 0.1];
    for (num_beams, do_sample) in [(1, false), (2, false), (1, true), (2, true)] {
        let config = GenerateConfig {
            num_beams,
            do_sample,
            max_new_tokens: 8,
            min_new_tokens: 8,
            no_repeat_ngram_size: 1,
            ..GenerateConfig::default()
        };
        let mut model = Mock::new(4, num_beams, &[(&[], step)]);
        let said = generate(&mut model, 0..1, &[0], 3, &config).unwrap();
        assert_eq!(said.len(), 1, "{num_beams} beams");
        assert!(said[0].ids.len() <= 9);
    }
}
