//! Which maps `patchword inspect` computes: the flags that choose them.

use clap::{ArgAction, Args};

use super::error::CliError;
use crate::checkpoint::Checkpoint;
use crate::inspect::{DefaultMap, Method, Pool, Position, RelevanceConfig};

/// Which maps are computed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Maps")]
pub(super) struct MapArgs {
    /// How the maps are computed, the first shown first; give it again for more: attention, rollout,
    /// gradient, decoder-gradient, grad-cam, residual, occlusion (slow: it encodes the photo once for each
    /// place that it hides) [default: the model's best first, then all but occlusion]
    #[arg(long, value_name = "METHOD", value_delimiter = ',', hide_possible_values = true)]
    method: Vec<Method>,
    /// Of attention, grad-cam and residual: this decoder layer (from 0) instead of all
    #[arg(long, value_name = "N")]
    layer: Option<usize>,
    /// Of the same: this head (from 0) instead of all
    #[arg(long, value_name = "N")]
    head: Option<usize>,
    /// Of the same: how layers and heads become one map, mean or max [default: mean]
    #[arg(long, value_name = "HOW")]
    pool: Option<Pool>,
    /// The step of the decoder that stands for a word: predicting (that writes it) or reading (that
    /// reads it) [default: predicting]
    #[arg(long, value_name = "STEP")]
    position: Option<Position>,
    /// Of occlusion: the side, in patches, of the square that is hidden
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = window)]
    window: usize,
    /// Leave out what hiding a word's region, blurring the photo and taking it away do to the word: an
    /// encoding for each word, and two
    #[arg(long, action = ArgAction::SetTrue)]
    no_evidence: bool,
}

fn window(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(side @ 1..=1024) => Ok(side),
        _ => Err("expected patches, 1 or more".into()),
    }
}

impl MapArgs {
    /// Whether to measure what changes each word's probability.
    pub(super) fn evidence(&self) -> bool {
        !self.no_evidence
    }

    /// The maps for a model, and how far each was found to be faithful.
    pub(super) fn of(
        &self,
        checkpoint: &Checkpoint,
    ) -> Result<(Vec<RelevanceConfig>, Vec<Option<String>>), CliError> {
        let decoder = &checkpoint.model.config().decoder;
        let (layers, heads) = (decoder.num_layers, decoder.num_heads);
        for (flag, found, count) in [("layer", self.layer, layers), ("head", self.head, heads)] {
            if let Some(found) = found.filter(|found| *found >= count) {
                return Err(CliError::usage(format_args!(
                    "--{flag} {found}: the decoder has {flag}s 0 to {}",
                    count.saturating_sub(1)
                )));
            }
        }
        let default = DefaultMap::of(checkpoint)?;
        let chooses = self.layer.is_some() || self.head.is_some() || self.pool.is_some();
        let maps = match self.method.is_empty() {
            false => self.method.iter().map(|method| self.map(*method)).collect(),
            true => self.usual(&default, chooses),
        };
        if let Some(map) =
            maps.iter().find(|map: &&RelevanceConfig| chooses && !map.method.has_heads())
            && !self.method.is_empty()
        {
            return Err(CliError::usage(format_args!(
                "--method {}: reads all layers and heads; --layer, --head and --pool choose among them",
                map.method
            ))
            .hint("they go with attention, grad-cam and residual"));
        }
        let faithful = maps.iter().map(|map| default.faithful(map)).collect();
        Ok((maps, faithful))
    }

    fn map(&self, method: Method) -> RelevanceConfig {
        let usual = RelevanceConfig::new(method);
        RelevanceConfig {
            layer: self.layer,
            head: self.head,
            pool: self.pool.unwrap_or(usual.pool),
            position: self.position.unwrap_or(usual.position),
            window: self.window,
            ..usual
        }
    }

    /// What a page shows where nobody names a method: the best first, then the best of each other method.
    fn usual(&self, default: &DefaultMap, chooses: bool) -> Vec<RelevanceConfig> {
        let first = match chooses {
            true => self.map(Method::Attention),
            false => default.map.clone(),
        };
        let mut maps: Vec<RelevanceConfig> = vec![first];
        for method in Method::ALL.into_iter().filter(|method| *method != Method::Occlusion) {
            let raw = RelevanceConfig::new(method);
            let known = default.methods.iter().find(|found| found.map.method == method);
            maps.push(known.map_or_else(|| raw.clone(), |found| found.map.clone()));
            // Raw attention is what everybody knows: it is shown besides a choice of its heads.
            if method == Method::Attention {
                maps.push(raw);
            }
        }
        if let Some(position) = self.position {
            maps.iter_mut().for_each(|map| map.position = position);
        }
        let mut unlike: Vec<RelevanceConfig> = Vec::new();
        for map in maps {
            if !unlike.contains(&map) {
                unlike.push(map);
            }
        }
        unlike
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::MethodMerit;

    fn arguments() -> MapArgs {
        MapArgs {
            method: Vec::new(),
            layer: None,
            head: None,
            pool: None,
            position: None,
            window: 3,
            no_evidence: false,
        }
    }

    #[test]
    fn a_page_shows_the_best_first_and_no_map_twice() {
        let raw = RelevanceConfig::new(Method::Attention);
        let plain = arguments().usual(&DefaultMap::new(raw.clone(), None), false);
        assert_eq!(plain.len(), Method::ALL.len() - 1);
        assert_eq!(plain[0], raw);
        let head = RelevanceConfig { head: Some(1), ..raw.clone() };
        let best = RelevanceConfig { layer: Some(2), ..RelevanceConfig::new(Method::GradCam) };
        let merit = |map: &RelevanceConfig| MethodMerit { map: map.clone(), value: 0.5 };
        let methods = vec![merit(&best), merit(&head)];
        let default = DefaultMap { methods, ..DefaultMap::new(best.clone(), None) };
        let maps = arguments().usual(&default, false);
        assert_eq!(maps[..3], [best, head, raw]);
        assert!(maps.iter().all(|map| map.method != Method::Occlusion));
        let chosen = MapArgs { layer: Some(1), ..arguments() }.usual(&default, true);
        assert_eq!((chosen[0].method, chosen[0].layer), (Method::Attention, Some(1)));
    }
}
