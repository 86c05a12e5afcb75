//! The options of training with differential privacy.

use super::groups::PRIVACY;
use crate::stages::stage::Faults;
use crate::train::privacy::{PrivacyError, PrivacySettings};
use anyhow::anyhow;

/// Differential privacy of the training data.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = PRIVACY)]
pub struct PrivacyArgs {
    /// Hide every sample behind noise: epsilon of the run
    ///
    /// DP-SGD. Gradients are clipped sample by sample, and as much noise is added as lets the whole run spend EPSILON at
    /// --dp-delta. Samples are drawn each by itself, --batch of them on average, and the random numbers are not those of
    /// --seed: two runs differ. docs/privacy.md says what is protected.
    #[arg(long, value_name = "EPSILON", requires = "dp_delta")]
    dp_epsilon: Option<f64>,

    /// Delta of the run: well below 1 over the number of samples
    #[arg(long, value_name = "DELTA", requires = "dp_epsilon")]
    dp_delta: Option<f64>,

    /// Largest norm of one sample's gradient [default: 0.1]
    #[arg(long, value_name = "NORM", requires = "dp_epsilon")]
    dp_clip: Option<f64>,

    /// Random numbers of a test: nothing is private with it
    #[arg(long, value_name = "N", requires = "dp_epsilon", hide = true)]
    dp_test_seed: Option<u64>,
}

/// Clip where nothing is said: below the norms of most samples, so that noise is small beside what is left.
const CLIP: f64 = 0.1;

impl PrivacyArgs {
    /// As the library takes it.
    pub fn privacy(&self) -> Option<PrivacySettings> {
        let (epsilon, delta) = (self.dp_epsilon?, self.dp_delta?);
        Some(PrivacySettings { epsilon, delta, clip: self.dp_clip.unwrap_or(CLIP), test_seed: self.dp_test_seed })
    }

    /// The first option that is given.
    pub fn given(&self) -> Option<&'static str> {
        self.dp_epsilon.map(|_| "dp-epsilon")
    }

    /// Notes impossible settings, and options of training that mean nothing beside these.
    pub fn check(&self, (pieces, clip): (bool, bool), faults: &mut Faults) {
        let Some(settings) = self.privacy() else { return };
        if let Err(error) = settings.check() {
            let option = match &error {
                PrivacyError::Setting { option, .. } => option,
                _ => "dp-epsilon",
            };
            faults.add(option, error);
        }
        if pieces {
            let error =
                anyhow!("--pieces cuts a step, and with --dp-epsilon every sample is a piece of its own; leave it out");
            faults.add("pieces", error);
        }
        if clip {
            let error = anyhow!(
                "--clip is for the gradient of a step, which with --dp-epsilon is noise for the most part; pass --dp-clip"
            );
            faults.add("clip", error);
        }
    }
}
