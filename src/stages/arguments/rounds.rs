//! The options of a federated round.

use super::DenseModel;
use super::groups::ROUNDS;
use crate::stages::rounds::RoundOptions;
use crate::stages::stage::{Faults, RunSettings};
use anyhow::anyhow;
use std::path::Path;

/// Averages what clients have trained, and trains nothing.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = ROUNDS)]
pub struct RoundArgs {
    /// Average the models that clients trained from MODEL
    ///
    /// Nothing is trained and no --data is read. Every DIR was written by `slmc train MODEL`, the same MODEL to the byte, as
    /// its slmc.json says; others are refused.
    #[arg(long, value_name = "DIR", num_args = 1..)]
    round_from: Vec<DenseModel>,

    /// Weight of each client [default: its tokens]
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "round_from")]
    round_weights: Vec<f64>,

    /// Largest norm of a client's update
    #[arg(long, value_name = "NORM", requires = "round_from")]
    round_clip: Option<f64>,

    /// Noise over the most that one client can change
    ///
    /// Normal, from a cryptographic generator that no seed decides, of this standard deviation times --round-clip times the
    /// largest share of a client.
    #[arg(long, value_name = "FACTOR", requires = "round_clip")]
    round_noise: Option<f64>,
}

impl RoundArgs {
    /// Whether a round is asked for.
    pub fn is_given(&self) -> bool {
        !self.round_from.is_empty()
    }

    /// As the library takes it.
    pub fn options(&self, start: &Path, out: &Path, run: &RunSettings) -> RoundOptions {
        RoundOptions {
            start: start.to_owned(),
            clients: self.round_from.iter().map(|path| path.to_path_buf()).collect(),
            weights: (!self.round_weights.is_empty()).then(|| self.round_weights.clone()),
            clip: self.round_clip,
            noise: self.round_noise,
            out: out.to_owned(),
            invocation: run.invocation.clone(),
        }
    }

    /// Notes impossible numbers, and options of training, of which `given` is one.
    pub fn check(&self, given: Option<&'static str>, faults: &mut Faults) {
        if let Some(given) = given {
            faults.add(
                given,
                anyhow!("--{given} is for training, and --round-from trains nothing; leave one of the two out"),
            );
        }
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if !self.round_weights.is_empty() && self.round_weights.len() != self.round_from.len() {
            let (weights, clients) = (self.round_weights.len(), self.round_from.len());
            faults.add(
                "round-weights",
                anyhow!("--round-weights has {weights} weights for {clients} clients; give one for each"),
            );
        }
        let rules = [
            ("round-weights", self.round_weights.iter().copied().find(|weight| !positive(*weight))),
            ("round-clip", self.round_clip.filter(|clip| !positive(*clip))),
            ("round-noise", self.round_noise.filter(|noise| !positive(*noise))),
        ];
        for (option, found) in rules {
            if let Some(found) = found {
                faults.add(option, anyhow!("--{option} is {found}; expected a number above 0"));
            }
        }
    }
}
