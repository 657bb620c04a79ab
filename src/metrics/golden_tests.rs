//! Against what pycocoevalcap computes, where its results are at hand.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ptb::tokenize;
use super::{NUM_SCORES, SCORE_NAMES, ScoreConfig, ScoredImage, score};
use crate::shared::shared;

/// The place of METEOR among the scores.
const METEOR: usize = 4;

#[derive(Deserialize)]
struct Golden {
    ids: Vec<String>,
    corpus: HashMap<String, f64>,
    per_image: HashMap<String, Vec<f64>>,
    references_raw: HashMap<String, Vec<String>>,
    hypotheses_raw: HashMap<String, Vec<String>>,
    references_tok: HashMap<String, Vec<String>>,
    hypotheses_tok: HashMap<String, Vec<String>>,
}

fn goldens() -> Vec<(String, Golden)> {
    let Some(folder) = shared("metrics") else { return Vec::new() };
    let mut goldens = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().ends_with(".golden.json") {
            let golden = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            goldens.push((path.display().to_string(), golden));
        }
    }
    goldens
}

impl Golden {
    fn images(&self, tokenized: bool) -> Vec<ScoredImage> {
        let (hypotheses, references) = if tokenized {
            (&self.hypotheses_tok, &self.references_tok)
        } else {
            (&self.hypotheses_raw, &self.references_raw)
        };
        let image = |id: &String| ScoredImage {
            id: id.clone(),
            caption: hypotheses[id][0].clone(),
            references: references[id].clone(),
        };
        self.ids.iter().map(image).collect()
    }
}

#[test]
fn every_caption_of_the_goldens_is_tokenised_as_the_original_does_it() {
    for (name, golden) in goldens() {
        let (mut captions, mut different) = (0, Vec::new());
        for (raw, tokenized) in [
            (&golden.hypotheses_raw, &golden.hypotheses_tok),
            (&golden.references_raw, &golden.references_tok),
        ] {
            for (id, raw) in raw {
                for (raw, expected) in raw.iter().zip(&tokenized[id]) {
                    captions += 1;
                    if tokenize(raw) != *expected {
                        different.push((raw.clone(), expected.clone(), tokenize(raw)));
                    }
                }
            }
        }
        assert!(captions > 0);
        assert!(different.is_empty(), "{name}: {} of {captions}: {different:?}", different.len());
    }
}

#[test]
fn bleu_rouge_and_cider_are_pycocoevalcaps_from_its_tokens_and_from_raw_text() {
    for (name, golden) in goldens() {
        for (tokenized, tolerance) in [(true, 1e-6), (false, 1e-4)] {
            let config = ScoreConfig { tokenized, ..ScoreConfig::default() };
            let scores = score(&golden.images(tokenized), config).unwrap();
            let per_image: Vec<[f64; NUM_SCORES]> = scores.per_image().collect();
            let corpus = scores.corpus();
            for (place, metric) in SCORE_NAMES.iter().enumerate() {
                if matches!(*metric, "METEOR" | "CIDEr_plain") {
                    continue;
                }
                let worst = per_image
                    .iter()
                    .zip(&golden.per_image[*metric])
                    .map(|(own, expected)| (own[place] - expected).abs())
                    .fold(0.0, f64::max);
                assert!(worst <= tolerance, "{name}, {metric}: an image is off by {worst}");
                let off = (corpus[place] - golden.corpus[*metric]).abs();
                assert!(off <= tolerance, "{name}, {metric}: the corpus is off by {off}");
            }
        }
    }
}

/// METEOR's data are not in `shared`: `PATCHWORD_METEOR_DATA` names the jar.
fn meteor_data() -> Option<PathBuf> {
    let data = std::env::var_os("PATCHWORD_METEOR_DATA").map(PathBuf::from);
    if data.is_none() {
        eprintln!("skipped: PATCHWORD_METEOR_DATA is not set");
    }
    data
}

#[test]
fn meteor_with_its_data_is_pycocoevalcaps() {
    let Some(data) = meteor_data() else { return };
    for (name, golden) in goldens() {
        let config =
            ScoreConfig { tokenized: true, meteor_data: Some(data.as_path()), training: None };
        let scores = score(&golden.images(true), config).unwrap();
        let off = (scores.corpus()[METEOR] - golden.corpus["METEOR"]).abs();
        assert!(off < 1e-9, "{name}: the corpus is off by {off}");
        let wrong: Vec<_> = scores
            .ids
            .iter()
            .zip(scores.per_image().map(|own| own[METEOR]).zip(&golden.per_image["METEOR"]))
            .filter(|(_, (own, expected))| (own - **expected).abs() > 1e-9)
            .collect();
        assert!(wrong.is_empty(), "{name}: {} images: {wrong:?}", wrong.len());
    }
}

/// Made by `testdata/make_meteor_pairs.py`, as are the last two columns: METEOR with exact and stem
/// matches alone and our own function words, and METEOR with its data.
fn meteor_pairs_are_the_originals(column: usize, data: Option<&Path>) {
    let mut images = Vec::new();
    let mut expected = Vec::new();
    for (place, line) in include_str!("testdata/meteor_pairs.tsv").lines().enumerate() {
        let columns: Vec<&str> = line.split('\t').collect();
        expected.push(columns[column].parse::<f64>().unwrap());
        images.push(ScoredImage {
            id: place.to_string(),
            caption: columns[0].to_owned(),
            references: columns[1].split("|||").map(str::to_owned).collect(),
        });
    }
    // The last line is of all.
    images.pop();
    assert!(images.len() > 400);
    let config = ScoreConfig { tokenized: true, meteor_data: data, training: None };
    let scores = score(&images, config).unwrap();
    let own = scores.per_image().map(|own| own[METEOR]).chain([scores.corpus()[METEOR]]);
    let wrong: Vec<_> = own
        .zip(&expected)
        .enumerate()
        .filter(|(_, (own, expected))| (own - **expected).abs() > 1e-9)
        .map(|(place, scores)| (images.get(place).map(|image| &image.caption), scores))
        .collect();
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), images.len());
}

#[test]
fn meteor_pairs_by_exact_and_stem_matches_are_the_originals() {
    meteor_pairs_are_the_originals(2, None);
}

#[test]
fn meteor_pairs_with_its_data_are_the_originals() {
    if let Some(data) = meteor_data() {
        meteor_pairs_are_the_originals(3, Some(data.as_path()));
    }
}
