//! `slmc bench`

use super::global::Global;
use super::sampling::share;
use crate::artifact::host::ArtifactFile;
use crate::bench::shape::{Shape, Weights};
use crate::bench::{BenchOptions, bench, shape_artifact};
use crate::model::generation::in_parts;
use crate::model::scheme::{Preset, QuantScheme};
use crate::model::transform::NmPattern;
use crate::shell::{ExitStatus, Shell};
use crate::stages::runner::Compiled;
use anyhow::bail;
use clap::builder::PossibleValuesParser;
use slm_runtime::format::spec::MAX_CHUNK;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Measure how fast this machine runs an artifact
///
/// Reads a prompt (prefill, with the logits of its last position), then decodes token by token, in several rounds.
/// Rates are of the best round, percentiles over all decoded tokens. The share of the read bandwidth is relative to a
/// plain read of the weights with the same thread count.
///
/// With --shape the artifact has random weights in the shape of a well-known model, since speed does not depend on
/// their values: 15m as stories15M, 135m as SmolLM2-135M (embedding and head tied), 1.1b as TinyLlama-1.1B. It is kept
/// in .slmc/cache/bench/ for the next time.
#[derive(Debug, clap::Args)]
#[command(
    next_display_order = 1,
    after_help = "\
Examples:
  slmc bench out/mixed.slm
  slmc bench --shape 135m --scheme w4 --threads 2 --json
  slmc bench --shape 15m --prefill 16 --decode 8 --rounds 20"
)]
pub(super) struct Args {
    /// Artifact written by `slmc compile`
    #[arg(
        value_name = "FILE.slm",
        required_unless_present = "shape",
        conflicts_with = "shape",
        help_heading = MODEL,
        display_order = 0
    )]
    artifact: Option<PathBuf>,

    /// Random weights of this shape: 15m, 135m, 1.1b
    #[arg(
        long,
        value_name = "SHAPE",
        value_parser = PossibleValuesParser::new(Shape::ALL.map(|shape| shape.name)),
        hide_possible_values = true,
        help_heading = MODEL
    )]
    shape: Option<String>,

    /// Scheme of its weights: w8, mixed, w4
    ///
    /// mixed: feed-forward networks w4, everything else w8.
    #[arg(
        long,
        value_name = "SCHEME",
        default_value = "w4",
        requires = "shape",
        hide_possible_values = true,
        help_heading = MODEL
    )]
    scheme: Preset,

    /// Scheme of its head and embedding
    ///
    /// w8, w4, or w8:ROWS+w4.
    #[arg(long, value_name = "SCHEME", default_value = "w8", requires = "shape", help_heading = MODEL)]
    head: QuantScheme,

    /// Pattern of its linears, the head aside: 2:4
    #[arg(long, value_name = "N:M", requires = "shape", help_heading = MODEL)]
    sparsity: Option<NmPattern>,

    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value = "256", help_heading = MEASUREMENT)]
    prefill: NonZeroUsize,

    /// Tokens to decode; 0 for an encoder
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = MEASUREMENT)]
    decode: usize,

    /// Rounds of prompt and decoding
    #[arg(long, value_name = "N", default_value = "3", help_heading = MEASUREMENT)]
    rounds: NonZeroUsize,

    /// Measure passes of 1 to K tokens with the logits of each
    ///
    /// As speculative decoding reads them: their time, in times of one token, and beside as many tokens of a prompt.
    #[arg(long, value_name = "K", value_parser = rows, help_heading = MEASUREMENT)]
    rows: Option<NonZeroUsize>,

    /// Measure decoding with drafts of which this share is right
    ///
    /// Each draft is right independently of the others and costs nothing; beside decoding without. Passes are of up to
    /// --rows tokens, else 8.
    #[arg(long, value_name = "SHARE", value_parser = share, help_heading = MEASUREMENT)]
    drafts_right: Option<f64>,

    /// Read the weights from a copy in huge pages
    ///
    /// Instead of the pages that the file has.
    #[arg(long, help_heading = MEASUREMENT)]
    huge_pages: bool,
}

fn rows(text: &str) -> Result<NonZeroUsize, String> {
    let rows = text.parse::<NonZeroUsize>().map_err(|error| error.to_string())?;
    if rows.get() <= MAX_CHUNK {
        Ok(rows)
    } else {
        Err(format!("at most {MAX_CHUNK} tokens go through a layer together"))
    }
}

/// Heading of the options for the model that is run.
const MODEL: &str = "Model";
/// Heading of the options for the measurement.
const MEASUREMENT: &str = "Measurement";

impl Args {
    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let options = BenchOptions {
            prefill: self.prefill,
            decode: self.decode,
            rounds: self.rounds,
            huge_pages: self.huge_pages,
            threads: global.threads.unwrap_or(cores),
            rows: self.rows,
            drafts_right: self.drafts_right.map(in_parts),
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
                shape_artifact(&shape, weights, self.prefill.get().saturating_add(self.decode), &Compiled, shell)?
            }
            (None, None) => bail!("pass an artifact, or --shape"),
        };
        shell.status("Measuring", file.path().display());
        shell.result(&bench(file, &options, shell)?)?;
        Ok(ExitStatus::Success)
    }
}
