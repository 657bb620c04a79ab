//! `metrics.jsonl`: one JSON object a line, in order of steps.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::curve::{CurvePoint, Panel};
use super::folder::METRICS;
use crate::checkpoint::{CheckpointError, atomic};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(super) enum Metric {
    /// Means since the line before.
    Train {
        step: u64,
        epoch: f64,
        loss: f64,
        learning_rate: f64,
        gradient_norm: Option<f64>,
        images_per_second: f64,
        data_wait_share: f64,
        /// CIDEr-D of sampled captions, where that is what is trained on: `loss` is then not one of
        /// captions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reward: Option<f64>,
    },
    /// A validation.
    Validation {
        step: u64,
        epoch: f64,
        loss: f64,
        perplexity: f64,
        /// The same loss on some training images, as they are and without label smoothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        train_loss: Option<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cider: Option<f64>,
    },
    /// A validation of the mean of the weights after `steps`, at the end.
    Average {
        step: u64,
        steps: Vec<u64>,
        loss: f64,
        perplexity: f64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cider: Option<f64>,
        best: bool,
    },
}

impl Metric {
    fn step(&self) -> u64 {
        match self {
            Self::Train { step, .. }
            | Self::Validation { step, .. }
            | Self::Average { step, .. } => *step,
        }
    }
}

/// The file, and what it holds.
pub(super) struct Metrics {
    file: PathBuf,
    writer: File,
    pub lines: Vec<Metric>,
}

impl Metrics {
    /// Opens the file and forgets what lies after `step`: a run that was killed had gone further
    /// than its last checkpoint.
    pub fn open(folder: &Path, step: u64) -> Result<Self, CheckpointError> {
        fs::create_dir_all(folder).map_err(|source| CheckpointError::io(folder, source))?;
        let file = folder.join(METRICS);
        let text =
            if step == 0 { String::new() } else { fs::read_to_string(&file).unwrap_or_default() };
        // A kill may have cut the last line: what does not parse is dropped.
        let lines: Vec<Metric> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|line: &Metric| line.step() <= step)
            .collect();
        let kept: String = lines.iter().map(to_line).collect();
        atomic::replace_file(&file, kept.as_bytes())?;
        let writer = OpenOptions::new()
            .append(true)
            .open(&file)
            .map_err(|source| CheckpointError::io(&file, source))?;
        Ok(Self { file, writer, lines })
    }

    pub fn push(&mut self, metric: Metric) -> Result<(), CheckpointError> {
        let line = to_line(&metric);
        self.lines.push(metric);
        self.writer
            .write_all(line.as_bytes())
            .map_err(|source| CheckpointError::io(&self.file, source))
    }

    /// Loss over steps; below it the score and the reward, where there are any. `best`: the step of the
    /// checkpoint that is kept, its loss and its score. `objective`: how the training loss differs from that of a
    /// validation.
    pub fn curves(&self, best: Option<(u64, f64, Option<f64>)>, objective: &str) -> Vec<Panel> {
        let mut losses = Panel {
            quantity: "loss",
            unit: ", nats a token",
            objective_is: objective.into(),
            ..Panel::default()
        };
        let mut scores = Panel { quantity: "CIDEr", chosen_by: true, ..Panel::default() };
        for line in &self.lines {
            match *line {
                Metric::Average { .. } => {}
                Metric::Train { step, reward: Some(value), .. } => {
                    scores.objective.push(CurvePoint { step, value });
                }
                Metric::Train { step, loss, .. } => {
                    losses.objective.push(CurvePoint { step, value: loss });
                }
                Metric::Validation { step, loss, train_loss, cider, .. } => {
                    losses.validation.push(CurvePoint { step, value: loss });
                    let train_loss = train_loss.map(|value| CurvePoint { step, value });
                    losses.train.extend(train_loss);
                    let cider = cider.map(|value| CurvePoint { step, value });
                    scores.validation.extend(cider);
                }
            }
        }
        if let Some((step, loss, cider)) = best {
            losses.best = Some(CurvePoint { step, value: loss });
            scores.best = cider.map(|value| CurvePoint { step, value });
        }
        losses.chosen_by = scores.best.is_none();
        let scored = scores.points().next().is_some();
        std::iter::once(losses).chain(scored.then_some(scores)).collect()
    }
}

fn to_line(metric: &Metric) -> String {
    // A value without maps or foreign types always serialises.
    serde_json::to_string(metric).unwrap_or_default() + "\n"
}
