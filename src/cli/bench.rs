//! `slmc bench`

use super::global::Global;
use crate::artifact::host::ArtifactFile;
use crate::bench::shape::{Shape, Weights};
use crate::bench::{Options, bench, shape_artifact};
use crate::model::scheme::{Preset, QuantScheme};
use crate::model::transform::NmPattern;
use crate::shell::{ExitStatus, Shell};
use anyhow::bail;
use clap::builder::PossibleValuesParser;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Measure how fast this machine runs an artifact
///
/// Reads a prompt (prefill, with the logits of its last position), then decodes token by token, several rounds over. The
/// rates are those of the best round, the percentiles those of all decoded tokens. The share of the read bandwidth is
/// that of what as many threads reach who only read the same weights.
///
/// With --shape, the artifact has random weights in the shape of a well-known model, since speed does not depend on
/// their values: 15m as stories15M, 135m as SmolLM2-135M (embedding and head tied), 1.1b as TinyLlama-1.1B. It is kept
/// in .slmc/cache/bench/ for the next time.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc bench out/mixed.slm
  slmc bench --shape 135m --scheme w4 --threads 2 --json
  slmc bench --shape 15m --scheme w4 --prefill 16 --decode 8 --rounds 20    latency of short prompts")]
pub(super) struct Args {
    /// Artifact
    #[arg(value_name = "FILE.slm", required_unless_present = "shape", conflicts_with = "shape")]
    artifact: Option<PathBuf>,

    /// Random weights of this shape in the place of an artifact
    #[arg(long, value_name = "SHAPE", value_parser = PossibleValuesParser::new(Shape::ALL.map(|shape| shape.name)))]
    shape: Option<String>,

    /// How the random weights are stored: w8, mixed (feed-forward networks w4), w4
    #[arg(long, value_name = "SCHEME", default_value = "w4", requires = "shape", hide_possible_values = true)]
    scheme: Preset,

    /// How the random head and token embedding are stored: w8, w4, or w8:ROWS+w4
    #[arg(long, value_name = "SCHEME", default_value = "w8", requires = "shape")]
    head: QuantScheme,

    /// Pattern of the random weights of every linear but the head: 2:4
    #[arg(long, value_name = "N:M", requires = "shape")]
    sparsity: Option<NmPattern>,

    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value = "256")]
    prefill: NonZeroUsize,

    /// Tokens to decode after it; 0 for an encoder
    #[arg(long, value_name = "N", default_value_t = 64)]
    decode: usize,

    /// Times to do both
    #[arg(long, value_name = "N", default_value = "3")]
    rounds: NonZeroUsize,

    /// Copy the weights into huge pages first, and do not read them from the file's own pages
    #[arg(long)]
    huge_pages: bool,
}

impl Args {
    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let options = Options {
            prefill: self.prefill,
            decode: self.decode,
            rounds: self.rounds,
            huge_pages: self.huge_pages,
            threads: global.threads.unwrap_or(cores),
        };
        let file = match (&self.artifact, self.shape.as_deref().and_then(Shape::named)) {
            (Some(path), _) => ArtifactFile::open(path)?,
            (None, Some(shape)) => {
                let two_of_four = match self.sparsity {
                    None => false,
                    Some(pattern) if pattern.is_two_of_four() => true,
                    Some(pattern) => bail!("--sparsity {pattern}: artifacts compress 2:4 alone; pass --sparsity 2:4"),
                };
                let weights = Weights { preset: self.scheme, head: self.head, two_of_four };
                shape_artifact(&shape, weights, self.prefill.get().saturating_add(self.decode), shell)?
            }
            (None, None) => bail!("pass an artifact, or --shape"),
        };
        shell.status("Measuring", file.path().display());
        shell.result(&bench(file, &options, shell)?)?;
        Ok(ExitStatus::Success)
    }
}
