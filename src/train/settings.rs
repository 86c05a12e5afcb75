//! Settings of a training run as plain data: the same struct serves flags and recipes, and its JSON is part of the
//! fingerprint by which a killed run is recognised.

use super::loss::schedule::Schedule;
use super::loss::table::{LOSSES, LossKind, LossWeights};
use crate::model::spec::ModelSpec;
use serde::Serialize;

/// Weight of exit heads where nothing is said.
const EXIT_WEIGHT: f64 = 1.0;

/// One training run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// Tokens to train on, padding not counted; the last step is a whole one.
    pub tokens: u64,
    /// Sequences per step.
    pub batch: usize,
    /// Tokens of a sequence, the opening one included.
    pub window: usize,
    /// Micro-batches per step, so that fewer activations are held at once: gradients are summed in their order, so the
    /// result depends on their number but not on threads.
    pub pieces: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Share of the steps over which the rate rises to its peak.
    pub warm_up: f64,
    /// Share of the peak at which the cosine decay ends.
    pub final_rate: f64,
    /// Decoupled weight decay of matrices; norms and biases have none.
    pub weight_decay: f64,
    /// Gradients of larger norm are scaled down to it.
    pub clip: f64,
    /// Seed of every random choice.
    pub seed: u64,
    /// The loss.
    pub loss: LossWeights,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Whether the backward pass computes layers again and keeps their inputs alone: the same bits in less memory, so that
    /// it does not belong to a run's identity.
    #[serde(skip)]
    pub recompute: bool,
}

impl Settings {
    /// Defaults of training without a teacher.
    pub const TRAIN: Settings = Settings {
        tokens: 1_000_000,
        batch: 16,
        window: 256,
        pieces: 4,
        learning_rate: 1e-3,
        warm_up: 0.05,
        final_rate: 0.1,
        weight_decay: 0.1,
        clip: 1.0,
        seed: 0,
        loss: LossWeights::PLAIN,
        checkpoint_every: 100,
        recompute: false,
    };
    /// Defaults of distillation.
    pub const DISTILL: Settings = Settings { loss: LossWeights::DISTILL, ..Settings::TRAIN };
    /// Defaults of sparse recovery: many small steps, which end at nothing.
    pub const RECOVER: Settings = Settings {
        batch: 4,
        pieces: 1,
        learning_rate: 2e-3,
        final_rate: 0.0,
        weight_decay: 0.0,
        loss: LossWeights::RECOVER.with(LossKind::Hidden, 0.5),
        ..Settings::TRAIN
    };
    /// Defaults of quantization-aware training: many small steps, which end at nothing.
    pub const QAT: Settings = Settings {
        tokens: 1_500_000,
        batch: 4,
        pieces: 1,
        learning_rate: 4e-4,
        final_rate: 0.0,
        weight_decay: 0.0,
        loss: LossWeights::RECOVER.with(LossKind::Hidden, 1.0),
        ..Settings::TRAIN
    };
    /// Defaults of tuning on the calibration data after rounding.
    pub const TUNE: Settings = Settings { learning_rate: 1e-3, loss: LossWeights::RECOVER, pieces: 4, ..Settings::QAT };
}

impl Default for Settings {
    fn default() -> Self {
        Settings::TRAIN
    }
}

/// An invalid setting.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("`{key}` is {found}; expected {expected}")]
pub struct SettingError {
    /// Its key.
    pub key: &'static str,
    /// Its value.
    pub found: String,
    /// The rule.
    pub expected: &'static str,
}

impl Settings {
    /// The same for a model: where it has exit heads, they have a weight, and otherwise none.
    pub fn for_model(&self, spec: &ModelSpec) -> Settings {
        let mut settings = self.clone();
        match (spec.exits.is_empty(), settings.loss.uses(LossKind::Exits)) {
            (true, _) => settings.loss.set(LossKind::Exits, Schedule::constant(0.0)),
            (false, false) => settings.loss.set(LossKind::Exits, Schedule::constant(EXIT_WEIGHT)),
            (false, true) => {}
        }
        settings
    }

    /// Checks all settings; the error is the first invalid one.
    pub fn check(&self) -> Result<(), SettingError> {
        self.faults().into_iter().next().map_or(Ok(()), Err)
    }

    /// Every invalid setting.
    pub fn faults(&self) -> Vec<SettingError> {
        let mut faults = Vec::new();
        let mut rule = |holds: bool, key, found: &dyn std::fmt::Display, expected| {
            if !holds {
                faults.push(SettingError { key, found: found.to_string(), expected });
            }
        };
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let weight = |value: f64| value.is_finite() && value >= 0.0;
        rule(self.tokens > 0, "tokens", &self.tokens, "at least 1");
        rule((1..=65_536).contains(&self.batch), "batch", &self.batch, "1 to 65536");
        rule(self.window >= 2, "window", &self.window, "at least 2");
        rule((1..=self.batch).contains(&self.pieces), "pieces", &self.pieces, "1 to the batch");
        rule(positive(self.learning_rate), "learning_rate", &self.learning_rate, "a number above 0");
        rule((0.0..=1.0).contains(&self.warm_up), "warm_up", &self.warm_up, "0 to 1");
        rule((0.0..=1.0).contains(&self.final_rate), "final_rate", &self.final_rate, "0 to 1");
        rule(weight(self.weight_decay), "weight_decay", &self.weight_decay, "0 or more");
        rule(positive(self.clip), "clip", &self.clip, "a number above 0");
        rule(self.checkpoint_every > 0, "checkpoint_every", &self.checkpoint_every, "at least 1");
        let loss = &self.loss;
        for def in &LOSSES {
            let weight = loss.weight(def.kind);
            rule(weight.is_valid(), def.key, &weight, "0 or more");
        }
        rule(positive(loss.temperature), "temperature", &loss.temperature, "a number above 0");
        rule((0.0..1.0).contains(&loss.smoothing), "label_smoothing", &loss.smoothing, "0 to below 1");
        rule(loss.skew > 0.0 && loss.skew < 1.0, "skew", &loss.skew, "between 0 and 1");
        rule(loss.relation_heads != Some(0), "relation_heads", &0, "at least 1");
        rule(
            loss.used().next().is_some(),
            "loss",
            &"without any part",
            "a weight above 0 for some loss, such as --ce 1",
        );
        if let Some(share) = loss.pause(None).filter(|_| loss.used().next().is_some()) {
            let found = format!("without any part {}", since(share));
            rule(false, "loss", &found, "a weight above 0 for some loss at every step, such as --ce 1");
        }
        faults
    }

    /// The learning rate of step `step` of `steps`, from 0: a straight rise, then half a cosine.
    pub fn rate(&self, step: u64, steps: u64) -> f64 {
        let warm = (self.warm_up * steps as f64).ceil();
        let step = step as f64;
        if step < warm {
            return self.learning_rate * (step + 1.0) / warm;
        }
        let progress = (step - warm) / (steps as f64 - warm).max(1.0);
        let cosine = 0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress));
        self.learning_rate * (self.final_rate + (1.0 - self.final_rate) * cosine)
    }
}

/// Since which share of the steps, in words.
pub fn since(share: f64) -> String {
    if share == 0.0 {
        "in the first steps".to_owned()
    } else {
        format!("from {} % of the steps on", (share * 1e4).round() / 1e2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_to_its_peak_and_falls_to_its_share() {
        let settings = Settings { learning_rate: 2.0, warm_up: 0.1, final_rate: 0.25, ..Settings::default() };
        let rates: Vec<f64> = (0..100).map(|step| settings.rate(step, 100)).collect();
        assert_eq!((rates[0], rates[9], rates[10]), (0.2, 2.0, 2.0));
        assert!(rates[10..].windows(2).all(|pair| pair[1] <= pair[0]));
        assert!((rates[99] - 0.5).abs() < 0.01, "{}", rates[99]);
    }

    #[test]
    fn impossible_settings_name_their_key() {
        let mut faded = LossWeights::PLAIN;
        faded.set(LossKind::CrossEntropy, "1@0.5,0@0.6".parse().expect("a schedule"));
        let wrong = [
            (Settings { tokens: 0, ..Settings::default() }, "tokens"),
            (Settings { pieces: 17, ..Settings::default() }, "pieces"),
            (Settings { learning_rate: f64::NAN, ..Settings::default() }, "learning_rate"),
            (Settings { loss: LossWeights::NONE, ..Settings::default() }, "loss"),
            (Settings { loss: faded, ..Settings::default() }, "loss"),
        ];
        for (settings, key) in wrong {
            assert_eq!(settings.check().map_err(|error| error.key), Err(key));
        }
        assert_eq!(Settings::default().check(), Ok(()));
        let fault = Settings { loss: faded, ..Settings::default() }.check().expect_err("steps without a loss");
        assert!(fault.to_string().starts_with("`loss` is without any part from 60 % of the steps on; "), "{fault}");
    }
}
