//! Deletion and insertion: how fast a word becomes unlikely as the patches of its map are taken away, the most
//! relevant first or the least, against a random order.
//!
//! Photos into which the most relevant patches are inserted are those from which the least relevant are
//! deleted: one curve serves both names.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::ratio::Ratio;
use super::{EvaluateError, Event, MapScores, Observer, Setup, Subject};
use crate::data::{ImageRecord, SkippedImage, SkippedImages};
use crate::inspect::removal::{Question, Removal, area, order, random_order};
use crate::inspect::{InspectConfig, RelevanceConfig, View};
use crate::metrics::rank::kendall_tau;

/// Words of an image that are asked about.
const WORDS: usize = 2;

/// A map in deletion and insertion. Areas are mean probabilities of a word over the shares of patches that
/// are taken away.
#[derive(Debug, Clone, Default)]
pub struct RemovalScores {
    /// The most relevant patches first: lower is better.
    pub deletion: Ratio,
    /// The least relevant first: higher is better.
    pub insertion: Ratio,
    /// In an order drawn at random, the same for every map.
    pub random: Ratio,
    /// Insertion minus deletion, which is 0 for a map that says nothing.
    pub gap: Ratio,
}

/// Whether two ways to take patches away rank maps alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    /// Kendall's τ of the gaps, in `[-1, 1]`.
    pub tau: f64,
    /// Maps that were ranked.
    pub maps: usize,
}

/// Of maps that were measured in both ways.
pub(super) fn agreement(maps: &[MapScores]) -> Option<Agreement> {
    let gaps = |way: usize| -> Option<Vec<f64>> {
        maps.iter().map(|map| map.removal.as_ref()?[way].gap.value()).collect()
    };
    let (one, other) = (gaps(0)?, gaps(1)?);
    Some(Agreement { tau: kendall_tau(&one, &other)?, maps: maps.len() })
}

/// Measures each map on `records`; how many of them could be used.
pub(super) fn measure(
    setup: &Setup<'_>,
    records: &[&ImageRecord],
    maps: &mut [MapScores],
    skipped: &mut SkippedImages,
    observer: Observer<'_>,
) -> Result<usize, EvaluateError> {
    if records.is_empty() {
        return Ok(0);
    }
    let subjects = setup.subjects(records, skipped, observer)?;
    for map in maps.iter_mut() {
        map.removal = Some(Default::default());
    }
    observer(Event::Measure { what: "delete", images: subjects.len() });
    let mut used = 0;
    for (number, subject) in subjects.iter().enumerate() {
        match subject.record.image.decode(&setup.limits) {
            Ok(photo) => {
                let view = View::new(setup.checkpoint, setup.device, &photo, &configs(maps));
                ask(setup, &view, subject, number as u64, maps)?;
                used += 1;
            }
            Err(error) => {
                let path = subject.record.image.path().to_owned();
                skipped.add(SkippedImage { path, reason: error.to_string() });
            }
        }
        observer(Event::Image);
    }
    observer(Event::Done);
    Ok(used)
}

fn configs(maps: &[MapScores]) -> Vec<RelevanceConfig> {
    maps.iter().map(|map| map.map.clone()).collect()
}

fn ask(
    setup: &Setup<'_>,
    view: &View<'_>,
    subject: &Subject<'_>,
    number: u64,
    maps: &mut [MapScores],
) -> Result<(), EvaluateError> {
    let what = InspectConfig { maps: configs(maps), ..InspectConfig::default() };
    let inspection = view.read(&subject.ids, &what, &mut |_| ())?;
    let mut random = ChaCha8Rng::seed_from_u64(setup.seed);
    random.set_stream(number);
    let mut words: Vec<usize> =
        (0..inspection.words.len()).filter(|&at| inspection.words[at].content).collect();
    words.shuffle(&mut random);
    words.truncate(WORDS);
    let steps = view.steps(&subject.ids);
    let patches = inspection.rows * inspection.cols;
    let mut questions = Vec::new();
    for &word in &words {
        let mut put = |order| questions.push(Question { steps: steps[word].clone(), order });
        put(random_order(patches, random.random()));
        for map in &inspection.maps {
            let map = &map.words[word].map;
            put(order(map, true));
            put(order(map, false));
        }
    }
    for (way, removal) in Removal::ALL.into_iter().enumerate() {
        let curves = view.curves(&subject.ids, &questions, removal, &mut |_| ())?;
        let areas: Vec<f64> = curves.iter().map(area).collect();
        let a_word = 1 + 2 * inspection.maps.len();
        for (place, map) in maps.iter_mut().enumerate() {
            let Some(scores) = &mut map.removal else { continue };
            let sum = |at: usize| -> f64 { areas.chunks(a_word).map(|areas| areas[at]).sum() };
            let (random, deletion, insertion) = (sum(0), sum(1 + 2 * place), sum(2 + 2 * place));
            scores[way].random.push(random, words.len());
            scores[way].deletion.push(deletion, words.len());
            scores[way].insertion.push(insertion, words.len());
            scores[way].gap.push(insertion - deletion, words.len());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::maps::raw_attention;

    #[test]
    fn ways_agree_where_they_rank_alike() {
        let with = |memory: f64, pixels: f64| {
            let scores = |gap: f64| {
                let mut scores = RemovalScores::default();
                scores.gap.push(gap, 1);
                scores
            };
            let mut map = MapScores::new(&raw_attention());
            map.removal = Some([scores(memory), scores(pixels)]);
            map
        };
        let alike = [with(0.1, 0.3), with(0.2, 0.4), with(0.0, -0.1)];
        assert_eq!(agreement(&alike), Some(Agreement { tau: 1.0, maps: 3 }));
        assert!(agreement(&[with(0.1, 0.3), with(0.2, 0.2)]).unwrap().tau < 0.0);
        assert_eq!(agreement(&[MapScores::new(&raw_attention())]), None);
    }
}
