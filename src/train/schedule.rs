//! The learning rate as a function of the step: nothing to save, nothing to restore.

use serde::{Deserialize, Serialize};

/// Linear warm-up, then a half cosine down to `final_fraction` (Loshchilov & Hutter 2017).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Steps of warm-up.
    pub warmup_steps: u64,
    /// Learning rate of the last step over the highest one, in `[0, 1]`.
    pub final_fraction: f64,
    /// Factor on the learning rate of the encoder's weights.
    pub encoder_factor: f64,
    /// Factor on the learning rate of the encoder's backbone, besides `encoder_factor`.
    pub backbone_factor: f64,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            warmup_steps: 200,
            final_fraction: 0.01,
            encoder_factor: 1.0,
            backbone_factor: 1.0,
        }
    }
}

impl ScheduleConfig {
    /// What the learning rate of the parameter at `path` is multiplied by.
    pub fn factor(&self, path: &str) -> f64 {
        if path.starts_with("encoder.backbone.") {
            self.encoder_factor * self.backbone_factor
        } else if path.starts_with("encoder.") {
            self.encoder_factor
        } else {
            1.0
        }
    }

    /// The learning rate of step `step` (from 0) of `total`.
    pub fn rate(&self, step: u64, total: u64) -> f64 {
        if step < self.warmup_steps {
            return self.learning_rate * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let span = total.saturating_sub(self.warmup_steps).max(1) as f64;
        let progress = ((step - self.warmup_steps) as f64 / span).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        self.learning_rate * (self.final_fraction + (1.0 - self.final_fraction) * cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_then_falls() {
        let schedule = ScheduleConfig {
            learning_rate: 1.0,
            warmup_steps: 10,
            final_fraction: 0.1,
            encoder_factor: 1.0,
            backbone_factor: 1.0,
        };
        assert!((schedule.rate(0, 110) - 0.1).abs() < 1e-12);
        assert!((schedule.rate(9, 110) - 1.0).abs() < 1e-12);
        assert!((schedule.rate(60, 110) - 0.55).abs() < 1e-12);
        assert!((schedule.rate(110, 110) - 0.1).abs() < 1e-12);
        assert!((schedule.rate(500, 110) - 0.1).abs() < 1e-12);
    }
}
