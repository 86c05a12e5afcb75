//! A classifier's exit heads on labelled texts: where texts leave, how accurate the answers are there, how many layers that
//! takes and how much time, beside every text through all layers. Definitions:
//!
//! ```text
//! mean_layers = mean over texts of the layers computed
//! accuracies  over texts whose label is not `oos`, as in classify.rs
//! speed       = Σ seconds with all layers / Σ seconds with leaving, text by text, each the least of several runs in turn; the same
//!               of the reference, where that is an artifact
//! ```

use super::classify::{Example, OUT_OF_SCOPE};
use super::error::EvalError;
use crate::artifact::host::SessionMemory;
use crate::confidence::Answer;
use crate::divergence::argmax;
use crate::machine::kernels::kernels_for;
use crate::progress::Progress;
use crate::report::Table;
use rayon::prelude::*;
use serde::Serialize;
use slm_runtime::exits::{confidence, margin};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::exits::NEVER;
use slm_runtime::session::{Leaving, Session, SessionError};
use std::time::Instant;

/// Texts that are timed, spread over all.
const TIMED_TEXTS: usize = 512;
/// Runs of each, of which the fastest counts.
const TIMED_RUNS: usize = 3;
/// Fixed point of margins.
const MARGIN_ONE: f64 = 65_536.0;

/// Logits of a text's heads, ascending, each with the layers before it.
pub type HeadRows = Vec<(usize, Vec<f32>)>;

/// Every head's logits for one text.
///
/// # Errors
/// The session's.
pub fn head_rows(view: &ArtifactView<'_>, tokens: &[u32]) -> Result<HeadRows, SessionError> {
    let mut memory = SessionMemory::for_artifact(view);
    let mut session = Session::new(view, kernels_for(view.layout()), memory.as_mut_slice())?;
    let mut rows = Vec::with_capacity(view.heads().len().max(1));
    session.run_heads(tokens, &mut |layers, row| rows.push((layers, row.to_vec())))?;
    Ok(rows)
}

/// One text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Left {
    /// Layers computed.
    pub layers: usize,
    /// The label there.
    pub label: usize,
    /// Its probability at the temperature of the head.
    pub confidence: f32,
    /// The label of the last head.
    pub last_label: usize,
}

impl Left {
    /// Where a text leaves, of the logits of its heads.
    pub fn of(view: &ArtifactView<'_>, rows: &HeadRows) -> Left {
        let last_label = rows.last().map_or(0, |(_, row)| argmax(row));
        let mut left = Left { layers: 0, label: last_label, confidence: 0.0, last_label };
        for (layers, row) in rows {
            let head = view.head_after(*layers);
            let (bound, scale) = head.map_or((0, 1.0), |head| (head.threshold, head.inverse_temperature));
            left = Left { layers: *layers, label: argmax(row), confidence: confidence(row, scale), last_label };
            if bound != NEVER && margin(row) >= bound {
                break;
            }
        }
        left
    }
}

/// Where every text leaves.
///
/// # Errors
/// [`EvalError`]: a text that does not run.
pub fn leave(view: &ArtifactView<'_>, examples: &[Example]) -> Result<Vec<Left>, EvalError> {
    let one = |example: &Example| Ok(Left::of(view, &head_rows(view, &example.tokens)?));
    examples.par_iter().map(one).collect::<Result<_, SessionError>>().map_err(EvalError::Session)
}

/// One head.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeadMetrics {
    /// Layers before it.
    pub layers: usize,
    /// Margin of logits from which on a text leaves; absent of the last head, and where none leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// T of its confidence.
    pub temperature: f64,
    /// Share of all texts that leave here.
    pub share: f64,
    /// Accuracy over those; absent where none has a known label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
}

/// What leaving early does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExitsMetrics {
    /// Layers of the model.
    pub layers: usize,
    /// Layers computed, mean over texts.
    pub mean_layers: f64,
    /// Accuracy with all layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_accuracy: Option<f64>,
    /// How many times as fast texts are classified one by one, on this machine now.
    pub exit_speed: f64,
    /// The same beside the reference, where that is an artifact too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference_speed: Option<f64>,
    /// The heads, ascending.
    pub heads: Vec<HeadMetrics>,
}

/// The numbers of texts that have left, and how fast that is beside a reference; `truth` are their labels and `labels` all names.
///
/// # Errors
/// [`EvalError`]: a text that does not run.
pub fn measure(
    (view, reference): (&ArtifactView<'_>, Option<&ArtifactView<'_>>),
    examples: &[Example],
    left: &[Left],
    (truth, labels): (&[usize], &[String]),
    progress: &dyn Progress,
) -> Result<ExitsMetrics, EvalError> {
    let oos = labels.iter().position(|label| label == OUT_OF_SCOPE);
    let share_right = |chosen: &dyn Fn(&Left) -> Option<usize>| {
        let known = left.iter().zip(truth).filter(|(_, truth)| Some(**truth) != oos);
        let judged = known.filter_map(|(left, &truth)| Some(chosen(left)? == truth));
        let (mut texts, mut right) = (0u64, 0u64);
        for is_right in judged {
            texts += 1;
            right += u64::from(is_right);
        }
        (texts > 0).then(|| right as f64 / texts as f64)
    };
    let count = left.len().max(1) as f64;
    let heads = view.heads().map(|head| {
        let here = |one: &Left| one.layers == head.layers as usize;
        HeadMetrics {
            layers: head.layers as usize,
            margin: (head.layers < view.spec().layers && head.threshold != NEVER)
                .then(|| f64::from(head.threshold) / MARGIN_ONE),
            temperature: 1.0 / f64::from(head.inverse_temperature),
            share: left.iter().filter(|one| here(one)).count() as f64 / count,
            accuracy: share_right(&|one| here(one).then_some(one.label)),
        }
    });
    let mut seconds = seconds(view, reference, examples, progress).map_err(EvalError::Session)?;
    // No clock is fine enough to see nothing at all.
    seconds[1] = seconds[1].max(f64::MIN_POSITIVE);
    Ok(ExitsMetrics {
        layers: view.spec().layers as usize,
        mean_layers: left.iter().map(|one| one.layers).sum::<usize>() as f64 / count,
        full_accuracy: share_right(&|one| Some(one.last_label)),
        heads: heads.collect(),
        exit_speed: seconds[0] / seconds[1],
        reference_speed: reference.map(|_| seconds[2] / seconds[1]),
    })
}

/// Seconds with all layers, with leaving, and of the reference, on one thread.
fn seconds(
    view: &ArtifactView<'_>,
    reference: Option<&ArtifactView<'_>>,
    examples: &[Example],
    progress: &dyn Progress,
) -> Result<[f64; 3], SessionError> {
    let timed = examples.len().min(TIMED_TEXTS);
    let other = reference.unwrap_or(view);
    let (mut memory, mut of_other) = (SessionMemory::for_artifact(view), SessionMemory::for_artifact(other));
    let mut session = Session::new(view, kernels_for(view.layout()), memory.as_mut_slice())?;
    let mut beside = Session::new(other, kernels_for(other.layout()), of_other.as_mut_slice())?;
    let kinds = if reference.is_some() { 3 } else { 2 };
    let mut sums = [0.0; 3];
    progress.begin("timing", timed as u64, "texts");
    for text in 0..timed {
        let tokens = &examples[text * examples.len() / timed].tokens;
        let mut least = [f64::INFINITY; 3];
        for run in 0..TIMED_RUNS {
            for turn in 0..kinds {
                // Which goes first changes, so that none has the caches of another.
                let kind = (turn + run + text) % kinds;
                session.set_leaving([Leaving::Never, Leaving::ByThreshold, Leaving::Never][kind]);
                let chosen = if kind == 2 { &mut beside } else { &mut session };
                let started = Instant::now();
                chosen.run(tokens, &mut |_, _| {})?;
                least[kind] = f64::min(least[kind], started.elapsed().as_secs_f64());
            }
        }
        sums.iter_mut().zip(least).take(kinds).for_each(|(sum, least)| *sum += least);
        progress.advance(1);
    }
    progress.finish();
    Ok(sums)
}

/// The answers of texts that have left, for what is kept of them.
pub fn answers(left: &[Left], truth: &[usize], labels: &[String]) -> Vec<Answer> {
    let oos = labels.iter().position(|label| label == OUT_OF_SCOPE);
    let answer = |(left, &truth): (&Left, &usize)| Answer {
        confidence: left.confidence,
        right: left.label == truth,
        elsewhere: Some(left.label) == oos,
    };
    left.iter().zip(truth).map(answer).collect()
}

impl ExitsMetrics {
    /// Rows of the report.
    pub fn rows(&self, table: &mut Table) {
        let head = |head: &HeadMetrics| {
            let leaves = match head.margin {
                Some(margin) => format!("margin from {margin:.2}"),
                None if head.layers == self.layers => "the others".to_owned(),
                None => "none leaves".to_owned(),
            };
            let accuracy = head.accuracy.map_or("-".to_owned(), |accuracy| format!("{accuracy:.4}"));
            format!("{:.1} % of texts, accuracy {accuracy}, {leaves}, T {:.3}", 100.0 * head.share, head.temperature)
        };
        table.row(["mean_layers", &format!("{:.3} of {}", self.mean_layers, self.layers)]);
        if let Some(accuracy) = self.full_accuracy {
            table.row(["full_accuracy", &format!("{accuracy:.4}")]);
        }
        table.row(["exit_speed", &format!("{:.2} times", self.exit_speed)]);
        if let Some(speed) = self.reference_speed {
            table.row(["reference_speed", &format!("{speed:.2} times as fast as the reference")]);
        }
        for one in &self.heads {
            table.row([&format!("  after {}", one.layers), &head(one)]);
        }
    }
}
