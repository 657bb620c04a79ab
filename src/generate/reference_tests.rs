//! What transformers' own processors and warpers do to the same scores, from
//! `tests/fixtures/generation.json` (`make_generation.py` beside it wrote it and says how).

use serde::Deserialize;

use super::constraints::constrain;
use super::sample::warp;
use super::*;

#[derive(Deserialize)]
struct Reference {
    warpers: Vec<Case>,
    constraints: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    config: GenerateConfig,
    #[serde(default)]
    keep: usize,
    #[serde(default)]
    ids: Vec<u32>,
    scores: Vec<Option<f32>>,
    expected: Vec<Option<f32>>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("../../tests/fixtures/generation.json")).unwrap()
}

/// JSON has no infinity.
fn finite(scores: &[Option<f32>]) -> Vec<f32> {
    scores.iter().map(|score| score.unwrap_or(f32::NEG_INFINITY)).collect()
}

#[test]
fn warpers_do_what_those_of_transformers_do() {
    let cases = reference().warpers;
    assert!(cases.len() > 40);
    for case in cases {
        let mut scores = finite(&case.scores);
        warp(&mut scores, case.keep, &case.config);
        assert_eq!(scores, finite(&case.expected), "{:?}, keep {}", case.config, case.keep);
    }
}

#[test]
fn constraints_do_what_those_of_transformers_do() {
    let cases = reference().constraints;
    assert!(cases.len() > 40);
    let mut changed = 0;
    for case in cases {
        let mut scores = finite(&case.scores);
        constrain(&mut scores, &case.ids, case.ids.len() - 1, &[3], &case.config);
        assert_eq!(scores, finite(&case.expected), "{:?} after {:?}", case.config, case.ids);
        changed += usize::from(case.scores != case.expected);
    }
    assert!(changed > 20, "{changed}");
}
