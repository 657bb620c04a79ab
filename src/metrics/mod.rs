//! Scores of captions as coco-caption computes them, in one process: BLEU-1 to 4, ROUGE-L, CIDEr, METEOR
//! and the Penn Treebank tokens they rest on; how varied captions are; and how sure each score is.
//!
//! [`score`] does all of it for a set of images; [`files`] reads what people keep captions in. A reward
//! for training is [`CiderD`]: document frequencies fixed once, then one cheap call a caption.
//!
//! This module is a leaf: it knows text and numbers, and only [`files`] and METEOR's data know the disk.

pub mod bleu;
pub mod bootstrap;
pub mod cider;
mod corpus;
pub mod diversity;
pub mod files;
#[cfg(test)]
mod golden_tests;
pub mod meteor;
mod ngrams;
pub mod ptb;
mod ptb_rules;
pub mod rank;
mod rouge;

pub use cider::{CiderD, CiderDOfWords, CiderVector};
pub use corpus::{
    CIDER, Comparison, CorpusScores, NUM_SCORES, SCORE_NAMES, ScoreConfig, ScoredImage, score,
};
pub use ngrams::{MAX_ORDER, Vocabulary};
pub use rouge::rouge_l;
