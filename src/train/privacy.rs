//! Training with differential privacy (DP-SGD, Abadi et al. 2016): what one sample can change of the trained values is bounded and
//! hidden in noise.
//!
//! ```text
//! S  every sample of the data by itself with probability q = batch / samples
//! g  (Σ over S of gᵢ · min(1, C / ‖gᵢ‖) + N(0, σ² C²)) / batch        gᵢ by all trained values
//! ```
//!
//! then AdamW on g. Of samples with one target each the sum is made from one backward pass over many (`samplewise.rs`); of others one
//! sample after the other. σ is the least with which the accountant gives the ε that was asked for over the whole run. Samples and noise
//! come from [`randomness`], which no seed decides, so that two runs differ and a resumed run draws anew.

pub mod accountant;
pub mod randomness;
pub(super) mod samplewise;

use super::data::Samples;
use super::optimizer::{Gradients, global_norm};
use crate::report::Table;
use accountant::{MOST_NOISE, Mechanism, noise_for};
use randomness::Randomness;
use rayon::prelude::*;
use serde::Serialize;

/// Elements of one task.
const BLOCK: usize = 1 << 14;

/// Privacy as it is asked for. Its JSON is part of a run's fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PrivacySettings {
    /// ε of the whole run.
    pub epsilon: f64,
    /// δ of the whole run.
    pub delta: f64,
    /// Largest norm of a sample's gradient.
    pub clip: f64,
    /// Key of samples and noise, for tests; with it nothing is private.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_seed: Option<u64>,
}

/// Why a run cannot be private as it is asked for.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PrivacyError {
    /// A number that is out of range.
    #[error("--{option} is {found}; expected {expected}")]
    Setting {
        /// The option.
        option: &'static str,
        /// Given.
        found: f64,
        /// The rule.
        expected: &'static str,
    },
    /// A batch that is larger than the data.
    #[error(
        "--batch is {batch} and the data has {samples} samples: every step would see all of them more than once; take at most {samples}"
    )]
    Batch {
        /// Asked for.
        batch: usize,
        /// There are.
        samples: usize,
    },
    /// A δ that would let single samples be published.
    #[error(
        "--dp-delta {delta} is not below 1 / {samples}, one over the number of samples: publishing a sample outright would be private by it; \
         take {} or less", 0.1 / *samples as f64
    )]
    Delta {
        /// Asked for.
        delta: f64,
        /// There are.
        samples: usize,
    },
    /// No noise gives this ε.
    #[error(
        "epsilon {epsilon} at delta {delta} cannot be reached in {steps} steps of {batch} of {samples} samples: noise of {MOST_NOISE} \
         times the clip would still spend {least:.3}; reachable with noise of at most 4 times the clip is {useful:.3}. Ask for that, \
         train on fewer --tokens, or with a smaller --batch"
    )]
    Unreachable {
        /// Asked for.
        epsilon: f64,
        /// Asked for.
        delta: f64,
        /// What the run has.
        steps: u64,
        /// Samples of a step, on average.
        batch: usize,
        /// There are.
        samples: usize,
        /// What the largest noise spends.
        least: f64,
        /// What usable noise spends.
        useful: f64,
    },
    /// The operating system has no random numbers.
    #[error(transparent)]
    Randomness(#[from] randomness::NoRandomness),
}

impl PrivacySettings {
    /// Checks what can be checked without the data.
    ///
    /// # Errors
    /// [`PrivacyError::Setting`].
    pub fn check(&self) -> Result<(), PrivacyError> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let rules = [
            ("dp-epsilon", self.epsilon, positive(self.epsilon), "a number above 0"),
            ("dp-delta", self.delta, positive(self.delta) && self.delta < 1.0, "a number between 0 and 1"),
            ("dp-clip", self.clip, positive(self.clip), "a number above 0"),
        ];
        match rules.into_iter().find(|(.., holds, _)| !holds) {
            Some((option, found, _, expected)) => Err(PrivacyError::Setting { option, found, expected }),
            None => Ok(()),
        }
    }
}

/// What a private run has spent, for its report and its provenance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrivacyReport {
    /// ε, by the accountant.
    pub epsilon: f64,
    /// δ
    pub delta: f64,
    /// Noise over the clip, σ.
    pub noise: f64,
    /// Largest norm of a sample's gradient, C.
    pub clip: f64,
    /// Probability of a sample to be in a step, q.
    pub sample_rate: f64,
    /// Steps.
    pub steps: u64,
    /// How ε was counted, with the order that gave it.
    pub accountant: String,
    /// Where samples and noise came from.
    pub randomness: String,
}

impl PrivacyReport {
    /// As rows of a report.
    pub fn rows(&self, table: &mut Table) {
        table.row(["epsilon", &format!("{:.3}", self.epsilon)]);
        table.row(["delta", &self.delta.to_string()]);
        table.row(["noise over clip", &format!("{:.4}", self.noise)]);
        table.row(["clip", &self.clip.to_string()]);
        table.row(["sample rate", &format!("{:.5}", self.sample_rate)]);
        table.row(["accountant", &self.accountant]);
        table.row(["random numbers", &self.randomness]);
    }
}

/// A private run.
#[derive(Clone, Debug)]
pub struct Private {
    settings: PrivacySettings,
    batch: usize,
    mechanism: Mechanism,
    randomness: Randomness,
}

impl Private {
    /// Finds the noise for a run of `steps` steps, with `batch` samples each on average.
    ///
    /// # Errors
    /// [`PrivacyError`] where the settings cannot be reached.
    pub fn new(settings: PrivacySettings, samples: usize, batch: usize, steps: u64) -> Result<Self, PrivacyError> {
        settings.check()?;
        let PrivacySettings { epsilon, delta, .. } = settings;
        if batch > samples {
            return Err(PrivacyError::Batch { batch, samples });
        }
        if delta * samples as f64 >= 1.0 {
            return Err(PrivacyError::Delta { delta, samples });
        }
        let rate = batch as f64 / samples as f64;
        let Some(sigma) = noise_for(epsilon, delta, rate, steps) else {
            let spends = |sigma: f64| Mechanism { rate, sigma, steps }.spent(delta).epsilon;
            let (least, useful) = (spends(MOST_NOISE), spends(4.0));
            return Err(PrivacyError::Unreachable { epsilon, delta, steps, batch, samples, least, useful });
        };
        let randomness = Randomness::new(settings.test_seed)?;
        Ok(Private { settings, batch, mechanism: Mechanism { rate, sigma, steps }, randomness })
    }

    /// The samples of a step.
    pub fn draw(&self, samples: &Samples, step: u64) -> Vec<usize> {
        self.randomness.draw(samples.len(), self.mechanism.rate, step)
    }

    /// What a sample's gradient of this norm is multiplied by.
    pub(super) fn factor(&self, norm: f64) -> f32 {
        if norm > self.settings.clip { (self.settings.clip / norm) as f32 } else { 1.0 }
    }

    /// Adds one sample's gradients to a sum, scaled down to the clip where their norm is above it.
    pub(super) fn add_clipped(&self, sum: &mut Gradients, gradients: &Gradients) {
        let factor = self.factor(global_norm(gradients));
        for (id, sum) in sum {
            // A tensor that the loss does not reach adds nothing.
            let Some(values) = gradients.get(id) else { continue };
            sum.par_chunks_mut(BLOCK).zip(values.par_chunks(BLOCK)).for_each(|(sum, values)| {
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
            });
        }
    }

    /// The gradients of a step, from the sum over its samples: with noise, over the batch.
    pub(super) fn finish(&self, sum: &mut Gradients, step: u64) {
        self.randomness.add_noise(sum, self.mechanism.sigma * self.settings.clip, step);
        let share = (1.0 / self.batch as f64) as f32;
        for values in sum.values_mut() {
            values.par_chunks_mut(BLOCK).for_each(|values| values.iter_mut().for_each(|value| *value *= share));
        }
    }

    /// What the whole run spends.
    pub fn report(&self) -> PrivacyReport {
        let PrivacySettings { delta, clip, test_seed, .. } = self.settings;
        let Mechanism { rate, sigma, steps } = self.mechanism;
        let spent = self.mechanism.spent(delta);
        PrivacyReport {
            epsilon: spent.epsilon,
            delta,
            noise: sigma,
            clip,
            sample_rate: rate,
            steps,
            accountant: format!("rdp, order {} of 2 to 256", spent.order),
            randomness: match test_seed {
                Some(seed) => format!("the test seed {seed}: nothing is private"),
                None => "the operating system".to_owned(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{LinearId, ParameterId, Role};
    use crate::train::parameters::TrainedId;

    const SETTINGS: PrivacySettings = PrivacySettings { epsilon: 8.0, delta: 1e-5, clip: 1.0, test_seed: Some(1) };

    fn gradients(values: &[f32]) -> Gradients {
        Gradients::from([(TrainedId::Parameter(ParameterId::weight(LinearId::global(Role::LmHead))), values.to_vec())])
    }

    fn only(gradients: &Gradients) -> Vec<f32> {
        gradients.values().next().expect("one tensor").clone()
    }

    #[test]
    fn samples_are_clipped_one_by_one() {
        let private = Private::new(SETTINGS, 1_000, 10, 100).expect("it can be reached");
        let mut sum = gradients(&[0.0, 0.0]);
        private.add_clipped(&mut sum, &gradients(&[3.0, 4.0]));
        assert_eq!(only(&sum), [0.6, 0.8]);
        private.add_clipped(&mut sum, &gradients(&[0.5, 0.0]));
        assert_eq!(only(&sum), [1.1, 0.8]);
    }

    #[test]
    fn an_empty_step_is_noise_over_the_batch() {
        let private = Private::new(SETTINGS, 1_000, 10, 100).expect("it can be reached");
        let mut sum = gradients(&vec![0.0; 10_000]);
        private.finish(&mut sum, 3);
        let square: f64 = only(&sum).iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / 10_000.0;
        let expected = (private.report().noise / 10.0).powi(2);
        assert!((square / expected - 1.0).abs() < 0.05, "{square}, {expected}");
    }

    #[test]
    fn what_is_reported_is_what_was_asked_for() {
        let report = Private::new(SETTINGS, 1_000, 10, 100).expect("it can be reached").report();
        assert!(report.epsilon <= 8.0 && report.epsilon > 7.999, "{report:?}");
        assert_eq!((report.sample_rate, report.steps), (0.01, 100));
        assert!(report.randomness.contains("nothing is private"));
    }

    #[test]
    fn what_cannot_be_reached_is_refused_with_what_can() {
        let text = |settings: PrivacySettings, samples, batch| {
            Private::new(settings, samples, batch, 100).expect_err("it is refused").to_string()
        };
        let batch = text(SETTINGS, 5, 10);
        assert!(batch.contains("take at most 5"), "{batch}");
        let delta = text(PrivacySettings { delta: 1e-3, ..SETTINGS }, 1_000, 10);
        assert!(delta.contains("0.0001 or less"), "{delta}");
        let epsilon = text(PrivacySettings { epsilon: 0.001, ..SETTINGS }, 1_000, 10);
        assert!(epsilon.contains("cannot be reached in 100 steps of 10 of 1000 samples"), "{epsilon}");
        assert!(epsilon.contains("is 0.") && epsilon.contains("--tokens"), "{epsilon}");
        let setting = text(PrivacySettings { epsilon: -1.0, ..SETTINGS }, 1_000, 10);
        assert!(setting.contains("--dp-epsilon is -1"), "{setting}");
    }
}
