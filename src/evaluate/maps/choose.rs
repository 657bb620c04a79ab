//! Which map is best: every method, layer and head on the validation split.

use super::{EvaluateError, MapScores, MapsConfig, Setup, measure, raw_attention};
use crate::data::{Dataset, ImageRecord, SkippedImages, Split};
use crate::evaluate::{Observer, report::dataset_name};
use crate::inspect::{DefaultMap, Measure, Measured, Method, MethodMerit, RelevanceConfig};
use crate::metrics::bootstrap::BootstrapConfig;

/// A map with what it is ranked by.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// The map.
    pub map: RelevanceConfig,
    /// What it is ranked by, in `[0, 1]`.
    pub merit: f64,
}

/// Maps, the best first.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The split that they were ranked on.
    pub split: Split,
    /// Images of it.
    pub images: usize,
    /// What they were ranked by.
    pub by: Measure,
    /// The maps, the best first.
    pub ranking: Vec<Ranked>,
    scores: Vec<MapScores>,
}

impl Choice {
    /// Raw attention, then the best of each method, the best method first; of methods that could not be
    /// ranked the plainest map.
    pub fn best_of_each_method(&self) -> Vec<RelevanceConfig> {
        let mut best = vec![raw_attention()];
        let mut methods = Vec::new();
        let ranked = self.ranking.iter().map(|ranked| &ranked.map);
        for map in ranked.chain(self.scores.iter().map(|scores| &scores.map)) {
            if !methods.contains(&map.method) {
                methods.push(map.method);
                if !best.contains(map) {
                    best.push(map.clone());
                }
            }
        }
        best
    }

    /// The best, with how good it is.
    pub fn default_map(&self, data: &Dataset, bootstrap: BootstrapConfig) -> DefaultMap {
        let Some(best) = self.ranking.first() else {
            return DefaultMap::new(raw_attention(), None);
        };
        let scores = |map: &RelevanceConfig| self.scores.iter().find(|scores| scores.map == *map);
        let attention = scores(&raw_attention()).and_then(|raw| raw.merit(self.by));
        let (chance, interval) = match (self.by, scores(&best.map)) {
            (Measure::Pointing, Some(MapScores { boxes: Some(boxes), .. })) => {
                (boxes.chance.value().unwrap_or(0.0), boxes.hits.interval(bootstrap))
            }
            (Measure::Grid, Some(MapScores { fours: Some(_), .. })) => (0.375, None),
            _ => (0.5, None),
        };
        let measured = Measured {
            data: dataset_name(&data.root),
            split: self.split.name().into(),
            images: self.images,
            by: self.by,
            value: best.merit,
            interval: interval.map(|interval| [interval.low, interval.high]),
            attention: attention.unwrap_or(0.0),
            chance,
            of: self.ranking.len(),
        };
        let mut methods: Vec<MethodMerit> = Vec::new();
        for Ranked { map, merit } in &self.ranking {
            if methods.iter().all(|known| known.map.method != map.method) {
                methods.push(MethodMerit { map: map.clone(), value: *merit });
            }
        }
        DefaultMap { methods, ..DefaultMap::new(best.map.clone(), Some(measured)) }
    }
}

/// Ranks the maps on the validation split, or on `records` of `split` where the data set has none.
#[expect(clippy::too_many_arguments, reason = "called once")]
pub(super) fn choose(
    setup: &Setup<'_>,
    dataset: &Dataset,
    split: Split,
    records: &[&ImageRecord],
    by: Measure,
    config: &MapsConfig,
    skipped: &mut SkippedImages,
    observer: Observer<'_>,
) -> Result<Choice, EvaluateError> {
    let decoder = &setup.checkpoint.model.config().decoder;
    let mut wanted = RelevanceConfig::candidates(decoder);
    if !config.methods.is_empty() {
        wanted.retain(|map| config.methods.contains(&map.method) || *map == raw_attention());
    }
    if config.methods.contains(&Method::Occlusion) {
        let windows = [1, 2, 3].into_iter();
        wanted.extend(
            windows.map(|window| RelevanceConfig {
                window,
                ..RelevanceConfig::new(Method::Occlusion)
            }),
        );
    }
    let validation: Vec<&ImageRecord> = dataset.records_of(Split::Val).collect();
    let (split, records) = match validation.is_empty() {
        true => (split, records),
        false => (Split::Val, validation.as_slice()),
    };
    let records = &records[..records.len().min(config.choose_images)];
    let mut scores: Vec<MapScores> = wanted.iter().map(MapScores::new).collect();
    measure(setup, records, by, &mut scores, skipped, observer)?;
    let ranked = |by: Measure| -> Vec<Ranked> {
        let one = |one: &MapScores| Some(Ranked { map: one.map.clone(), merit: one.merit(by)? });
        scores.iter().filter_map(one).collect()
    };
    let (mut by, mut ranking) = (by, ranked(by));
    if ranking.is_empty() {
        // No caption is right, so that no word has a box.
        by = Measure::Grid;
        ranking = ranked(by);
    }
    // Of equals the plainer one, which comes first.
    ranking.sort_by(|a, b| b.merit.total_cmp(&a.merit));
    Ok(Choice { split, images: records.len(), by, ranking, scores })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::Pool;

    #[test]
    fn the_best_of_each_method_follow_raw_attention() {
        let ranked = |method, pool, merit| Ranked {
            map: RelevanceConfig { pool, ..RelevanceConfig::new(method) },
            merit,
        };
        let choice = Choice {
            split: Split::Val,
            images: 1,
            by: Measure::Grid,
            ranking: vec![
                ranked(Method::Gradient, Pool::Mean, 0.9),
                ranked(Method::Attention, Pool::Max, 0.8),
                ranked(Method::Attention, Pool::Mean, 0.7),
                ranked(Method::Rollout, Pool::Mean, 0.6),
            ],
            scores: Vec::new(),
        };
        let best: Vec<String> =
            choice.best_of_each_method().iter().map(ToString::to_string).collect();
        assert_eq!(
            best,
            [
                "attention, mean of layers and heads",
                "gradient",
                "attention, max of layers and heads",
                "rollout"
            ]
        );
    }
}
