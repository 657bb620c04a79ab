//! What a map over the image is, whatever computed it and whatever draws it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::InspectError;
use crate::model::DecoderConfig;
use crate::text::Word;

/// How relevance is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Cross-attention as it is: where the decoder looked.
    Attention,
    /// Attention rollout (Abnar & Zuidema 2020, <https://arxiv.org/abs/2005.00928>) through the decoder and
    /// the encoder.
    Rollout,
    /// Gradient-weighted relevance through the decoder and the encoder (Chefer et al. 2021,
    /// <https://arxiv.org/abs/2103.15679>, the rules for encoder and decoder). The encoder's part is that of
    /// the whole caption.
    Gradient,
    /// As [`Method::Gradient`], through the decoder only.
    DecoderGradient,
    /// Grad-CAM (Selvaraju et al. 2017, <https://arxiv.org/abs/1610.02391>) on cross-attention, with heads
    /// for channels.
    GradCam,
    /// Cross-attention minus what the words before it explain (the idea of the Token Activation Map, Li et
    /// al. 2025, <https://arxiv.org/abs/2506.23270>, on attention): negative where earlier words looked more.
    Residual,
    /// The fall of the word's log-probability when a part of the photo is hidden: slow, and the yardstick.
    Occlusion,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 7] = [
        Self::Attention,
        Self::Rollout,
        Self::Gradient,
        Self::DecoderGradient,
        Self::GradCam,
        Self::Residual,
        Self::Occlusion,
    ];

    /// The name: lower case, with hyphens.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Rollout => "rollout",
            Self::Gradient => "gradient",
            Self::DecoderGradient => "decoder-gradient",
            Self::GradCam => "grad-cam",
            Self::Residual => "residual",
            Self::Occlusion => "occlusion",
        }
    }

    /// Whether it needs a backward pass.
    pub fn needs_gradients(self) -> bool {
        matches!(self, Self::Gradient | Self::DecoderGradient | Self::GradCam)
    }

    /// Whether one layer or head can be chosen for it.
    pub fn has_heads(self) -> bool {
        matches!(self, Self::Attention | Self::GradCam | Self::Residual)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|method| method.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|method| method.name()).collect();
            format!("unknown method {text:?}; expected {}", names.join(", "))
        })
    }
}

/// Which step of the decoder stands for a word: the state that predicts a word and the one that reads it
/// differ (<https://arxiv.org/abs/2210.10914>).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Position {
    /// The step that predicts the word, at the token before it.
    #[default]
    Predicting,
    /// The step that reads the word, and predicts what comes after it.
    Reading,
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "predicting" => Ok(Self::Predicting),
            "reading" => Ok(Self::Reading),
            _ => Err(format!("unknown position {text:?}; expected predicting or reading")),
        }
    }
}

/// How layers and heads become one map.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// Their mean.
    #[default]
    Mean,
    /// The largest of each patch.
    Max,
}

impl FromStr for Pool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "mean" => Ok(Self::Mean),
            "max" => Ok(Self::Max),
            _ => Err(format!("unknown pooling {text:?}; expected mean or max")),
        }
    }
}

/// A method with its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelevanceConfig {
    /// The method.
    pub method: Method,
    /// This decoder layer, from 0, instead of all; see [`Method::has_heads`].
    #[serde(default)]
    pub layer: Option<usize>,
    /// This head, from 0, instead of all.
    #[serde(default)]
    pub head: Option<usize>,
    /// How layers and heads become one map.
    #[serde(default)]
    pub pool: Pool,
    /// Which step stands for a word.
    #[serde(default)]
    pub position: Position,
    /// Of occlusion: the side, in patches, of the square that is hidden.
    #[serde(default = "usual_window")]
    pub window: usize,
}

fn usual_window() -> usize {
    3
}

impl RelevanceConfig {
    /// A method with its defaults: all layers and heads, their mean, the predicting step.
    pub fn new(method: Method) -> Self {
        Self {
            method,
            layer: None,
            head: None,
            pool: Pool::Mean,
            position: Position::Predicting,
            window: usual_window(),
        }
    }

    /// Every map that is looked at in search of the best: each method with all layers and heads, where it
    /// can with one layer, attention with one head as well, at both steps. Occlusion is not among them: it
    /// takes a pass of the encoder a patch.
    pub fn candidates(decoder: &DecoderConfig) -> Vec<Self> {
        let mut found = Vec::new();
        for position in [Position::Predicting, Position::Reading] {
            for method in Method::ALL.into_iter().filter(|method| *method != Method::Occlusion) {
                let whole = Self { position, ..Self::new(method) };
                found.push(whole.clone());
                if !method.has_heads() {
                    continue;
                }
                if method != Method::GradCam {
                    found.push(Self { pool: Pool::Max, ..whole.clone() });
                }
                for layer in 0..decoder.num_layers {
                    found.push(Self { layer: Some(layer), ..whole.clone() });
                    if method == Method::Attention {
                        let heads = 0..decoder.num_heads;
                        let one =
                            |head| Self { layer: Some(layer), head: Some(head), ..whole.clone() };
                        found.extend(heads.map(one));
                    }
                }
            }
        }
        found
    }

    /// Whether the decoder has the layer and the head.
    ///
    /// # Errors
    /// [`InspectError::Choice`].
    pub fn check(&self, decoder: &DecoderConfig) -> Result<(), InspectError> {
        let (layers, heads) = (decoder.num_layers, decoder.num_heads);
        for (what, found, count) in [("layer", self.layer, layers), ("head", self.head, heads)] {
            if let Some(found) = found.filter(|found| *found >= count) {
                return Err(InspectError::Choice { what, found, count });
            }
        }
        Ok(())
    }

    /// The layers it reads of `count`.
    pub(super) fn layers(&self, count: usize) -> std::ops::Range<usize> {
        self.layer.map_or(0..count, |layer| layer..layer + 1)
    }

    /// The heads it reads of `count`.
    pub(super) fn heads(&self, count: usize) -> std::ops::Range<usize> {
        self.head.map_or(0..count, |head| head..head + 1)
    }
}

impl fmt::Display for RelevanceConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.method)?;
        if self.method.has_heads() {
            let pool = if self.pool == Pool::Max { "max" } else { "mean" };
            match (self.layer, self.head) {
                (None, None) => write!(formatter, ", {pool} of layers and heads")?,
                (Some(layer), None) => write!(formatter, ", layer {layer}, {pool} of heads")?,
                (None, Some(head)) => write!(formatter, ", head {head}, {pool} of layers")?,
                (Some(layer), Some(head)) => write!(formatter, ", layer {layer}, head {head}")?,
            }
        }
        if self.method == Method::Occlusion {
            write!(formatter, ", squares of {0}×{0} patches", self.window)?;
        }
        if self.position == Position::Reading {
            formatter.write_str(", the step that reads the word")?;
        }
        Ok(())
    }
}

/// The map of one word.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WordRelevance {
    /// A value a patch, row by row of the grid. The magnitudes sum to 1 together with `elsewhere`, unless
    /// all are 0.
    pub map: Vec<f32>,
    /// What falls on positions that are no patch (class and register tokens): they lie nowhere on the image.
    pub elsewhere: f32,
    /// What the values were divided by: their sum as the method gave it.
    pub total: f32,
}

impl WordRelevance {
    /// Of values of all positions, those that are no patch first.
    pub(super) fn new(values: &[f32], prefix: usize) -> Self {
        let total: f32 = values.iter().map(|value| value.abs()).sum();
        let by = if total > 0.0 && total.is_finite() { total } else { 1.0 };
        Self {
            map: values[prefix..].iter().map(|value| value / by).collect(),
            elsewhere: values[..prefix].iter().sum::<f32>() / by,
            total,
        }
    }
}

/// Maps over the image, one a word: words × patch grid, signed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Relevance {
    /// How they were computed.
    #[serde(flatten)]
    pub config: RelevanceConfig,
    /// Rows of the grid.
    #[serde(skip)]
    pub rows: usize,
    /// Columns of the grid.
    #[serde(skip)]
    pub cols: usize,
    /// One map a word of the caption, in order.
    pub words: Vec<WordRelevance>,
}

impl Relevance {
    /// The map of several words together, such as a phrase: the mean of theirs.
    pub fn together(&self, words: std::ops::Range<usize>) -> Vec<f32> {
        let count = words.len().max(1) as f32;
        let mut mean = vec![0.0; self.rows * self.cols];
        for word in &self.words[words] {
            mean.iter_mut().zip(&word.map).for_each(|(sum, value)| *sum += value / count);
        }
        mean
    }

    /// Each word's share of relevance within a box of the grid, `[row, col, row, col]`, ends exclusive: which
    /// words rely on it most. Positive relevance counts.
    pub fn words_of_box(&self, [top, left, bottom, right]: [usize; 4]) -> Vec<f32> {
        let inside = |cell: usize| {
            let (row, col) = (cell / self.cols, cell % self.cols);
            (top..bottom).contains(&row) && (left..right).contains(&col)
        };
        let share = |word: &WordRelevance| {
            let values = word.map.iter().enumerate();
            values.filter(|(cell, _)| inside(*cell)).map(|(_, value)| value.max(0.0)).sum()
        };
        self.words.iter().map(share).collect()
    }
}

/// The core of a map: the cells of at least half the peak that hang together with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Core {
    /// The cells.
    pub cells: Vec<usize>,
    /// The smallest box around them in the grid, `[row, col, row, col]`, ends exclusive.
    pub grid_box: [usize; 4],
    /// The share of the map's positive values that lies in the box, in `[0, 1]`.
    pub share: f32,
}

impl Core {
    /// Of a map over `cols` columns; none where nothing is positive.
    pub fn of(map: &[f32], cols: usize) -> Option<Self> {
        let positive = |value: &f32| value.is_finite() && *value > 0.0;
        let (peak, most) = map.iter().enumerate().filter(|(_, value)| positive(value)).fold(
            None,
            |best: Option<(usize, f32)>, (at, &value)| match best {
                Some((_, most)) if most >= value => best,
                _ => Some((at, value)),
            },
        )?;
        let rows = map.len() / cols.max(1);
        let mut taken = vec![false; map.len()];
        taken[peak] = true;
        let mut open = vec![peak];
        let mut cells = Vec::new();
        while let Some(cell) = open.pop() {
            cells.push(cell);
            let (row, col) = (cell / cols, cell % cols);
            let mut visit = |next: usize| {
                if !taken[next] && map[next] >= most / 2.0 {
                    taken[next] = true;
                    open.push(next);
                }
            };
            if row > 0 {
                visit(cell - cols);
            }
            if row + 1 < rows {
                visit(cell + cols);
            }
            if col > 0 {
                visit(cell - 1);
            }
            if col + 1 < cols {
                visit(cell + 1);
            }
        }
        cells.sort_unstable();
        let row = |cell: &usize| cell / cols;
        let col = |cell: &usize| cell % cols;
        let grid_box = [
            cells.iter().map(row).min()?,
            cells.iter().map(col).min()?,
            cells.iter().map(row).max()? + 1,
            cells.iter().map(col).max()? + 1,
        ];
        let [top, left, bottom, right] = grid_box;
        let (mut inside, mut all) = (0.0, 0.0);
        for (cell, value) in map.iter().enumerate().filter(|(_, value)| positive(value)) {
            all += value;
            if (top..bottom).contains(&(cell / cols)) && (left..right).contains(&(cell % cols)) {
                inside += value;
            }
        }
        Some(Self { cells, grid_box, share: inside / all })
    }
}

/// The steps of a word whose outputs are the word's tokens, or with [`Position::Reading`] those that read
/// them, of `seq` steps.
pub(super) fn steps(word: &Word, position: Position, seq: usize) -> Vec<usize> {
    let shift = usize::from(position == Position::Predicting);
    let steps: Vec<usize> =
        word.tokens.clone().map(|at| at - shift).filter(|step| *step < seq).collect();
    // A caption that was cut off ends with a token that no step reads.
    if steps.is_empty() { vec![seq - 1] } else { steps }
}

/// English words that name nothing to be seen.
const LITTLE: [&str; 62] = [
    "a", "an", "the", "of", "in", "on", "at", "to", "by", "with", "from", "and", "or", "as", "is",
    "are", "was", "were", "be", "been", "being", "it", "its", "his", "her", "their", "there",
    "that", "this", "these", "those", "which", "who", "while", "some", "for", "into", "onto", "up",
    "down", "out", "off", "over", "under", "through", "has", "have", "had", "he", "she", "they",
    "them", "him", "one", "very", "other", "another", "each", "not", "near", "next", "behind",
];

/// Whether a word says something that may be seen: no article, preposition or pronoun of English, and no
/// punctuation.
pub fn is_content(word: &str) -> bool {
    word.chars().any(char::is_alphanumeric) && !LITTLE.contains(&word.to_lowercase().as_str())
}

/// Runs of two or more words of content, as in `red circle`.
pub fn phrases<'a>(words: impl Iterator<Item = &'a str>) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (at, word) in words.enumerate().filter(|(_, word)| is_content(word)) {
        match runs.last_mut() {
            Some(run) if run.end == at => run.end = at + 1,
            _ => runs.push(at..at + 1),
        }
        debug_assert!(!word.is_empty());
    }
    runs.retain(|run| run.len() > 1);
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_called_by_their_names() {
        for method in Method::ALL {
            assert_eq!(method.name().parse(), Ok(method));
            let json = serde_json::to_string(&method).unwrap();
            assert_eq!(json, format!("\"{method}\""));
        }
        let error = "cam".parse::<Method>().unwrap_err();
        assert!(error.contains("grad-cam") && error.contains("occlusion"), "{error}");
    }

    #[test]
    fn what_falls_on_no_patch_lies_nowhere_on_the_map() {
        let word = WordRelevance::new(&[3.0, 1.0, -2.0, 0.0, 2.0], 1);
        assert_eq!(word.map, [0.125, -0.25, 0.0, 0.25]);
        assert_eq!((word.elsewhere, word.total), (0.375, 8.0));
        assert_eq!(WordRelevance::new(&[0.0; 3], 1).map, [0.0; 2]);
    }

    #[test]
    fn the_core_hangs_together_with_the_peak() {
        #[rustfmt::skip]
        let map = [
            0.1, 0.0, 0.0, 0.9,
            0.0, 0.6, 1.0, 0.1,
            0.0, 0.5, 0.0, -3.0,
        ];
        let core = Core::of(&map, 4).unwrap();
        // The corner is as hot, but it touches the peak at no side.
        assert_eq!(core.cells, [5, 6, 9]);
        assert_eq!(core.grid_box, [1, 1, 3, 3]);
        assert!((core.share - 2.1 / 3.2).abs() < 1e-6, "{}", core.share);
        assert_eq!(Core::of(&[0.0, -1.0], 2), None);
        assert_eq!(Core::of(&[f32::NAN, 0.0], 2), None);
    }

    #[test]
    fn a_box_ranks_words() {
        let word = |map: [f32; 4]| WordRelevance { map: map.into(), elsewhere: 0.0, total: 1.0 };
        let relevance = Relevance {
            config: RelevanceConfig::new(Method::Attention),
            rows: 2,
            cols: 2,
            words: vec![word([0.7, 0.1, 0.1, 0.1]), word([0.0, -0.5, 0.0, 0.5])],
        };
        assert_eq!(relevance.words_of_box([0, 0, 1, 1]), [0.7, 0.0]);
        assert_eq!(relevance.words_of_box([0, 1, 2, 2]), [0.2, 0.5]);
        let both = relevance.together(0..2);
        assert_eq!(both, [0.35, -0.2, 0.05, 0.3]);
    }

    #[test]
    fn words_of_content_make_phrases() {
        let words = "A red circle is above the large blue square .";
        let runs = phrases(words.split(' '));
        assert_eq!(runs, [1..3, 6..9]);
        assert!(!is_content("The") && !is_content(".") && is_content("कुत्ता") && is_content("dog"));
    }

    #[test]
    fn a_word_has_a_step_that_predicts_it_and_one_that_reads_it() {
        let word = Word { text: "dog".into(), tokens: 2..4 };
        assert_eq!(steps(&word, Position::Predicting, 6), [1, 2]);
        assert_eq!(steps(&word, Position::Reading, 6), [2, 3]);
        assert_eq!(steps(&word, Position::Reading, 3), [2]);
        let last = Word { text: "dog".into(), tokens: 3..4 };
        assert_eq!(steps(&last, Position::Reading, 3), [2]);
    }
}
