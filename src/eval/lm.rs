//! Language models: perplexity, and how far a model's predictions are from a reference's, over the positions that have
//! a target. In a causal window every position but the last predicts the token after it; in a masked sequence the
//! hidden positions predict the tokens that were there. With p the reference's and q the model's distribution at a
//! position:
//!
//! ```text
//! perplexity = exp(mean of −ln q(target))
//! kld        = KL(p ‖ q) = Σ p · (ln p − ln q), in nats, in f64
//! top-1      = whether argmax p = argmax q, the lower token of equals
//! ```

use super::error::EvalError;
use super::forward::Forward;
use super::outputs::{Pair, Rows};
use super::subject::{Subject, number_row};
use super::sums::Sums;
use crate::divergence::{Sample, argmax, divergence, mean_and_error, nll, percentile};
use crate::progress::Progress;
use crate::report::{Report, Table, grouped};
use rayon::prelude::*;
use serde::Serialize;

/// Metrics of a model over windows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LmMetrics {
    /// Positions with a target, over all windows.
    pub tokens: u64,
    /// Windows, or conversations.
    pub windows: u64,
    /// Perplexity of the model.
    pub perplexity: f64,
    /// Perplexity of the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference_perplexity: Option<f64>,
    /// Mean over positions, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kld_mean: Option<f64>,
    /// Standard error of `kld_mean` with windows as the independent samples, since positions of one window are not
    /// independent; absent for a single window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kld_stderr: Option<f64>,
    /// 99th percentile over positions (nearest rank), in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kld_p99: Option<f64>,
    /// Share of positions at which both rank the same token first, in [0, 1].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top1_agreement: Option<f64>,
    /// SHA-256 of the model's logits: little-endian f32, every position of every window in order.
    pub logits_sha256: String,
    /// The same window by window.
    pub sums: Sums,
}

/// Positions of a sequence, from 0, with the token that each is to predict.
pub type Targets = Vec<(usize, u32)>;

/// One position.
struct Position {
    nll: f64,
    compared: Option<Compared>,
}

/// One position beside the reference.
struct Compared {
    nll: f64,
    divergence: f64,
    agrees: bool,
}

/// A model, and what it is compared with.
#[derive(Clone, Copy)]
pub struct Models<'a> {
    /// The one that is judged.
    pub model: &'a dyn Forward,
    /// The one it is compared with.
    pub reference: Option<&'a dyn Forward>,
    /// How many tokens both have, the first of their tables, where these are padded to different sizes: the distributions
    /// over these are compared. Perplexities are always over a model's whole table.
    pub shared: Option<usize>,
}

/// Evaluates `model`, and compares it with `reference` if there is one, over windows of at least two tokens each. The
/// outputs of one batch of windows are held at a time.
///
/// # Errors
/// [`EvalError`]: nothing to evaluate, a failing or damaged model, models of different vocabularies.
pub fn evaluate(
    model: &dyn Forward,
    reference: Option<&dyn Forward>,
    windows: &[Vec<u32>],
    progress: &dyn Progress,
) -> Result<LmMetrics, EvalError> {
    if windows.is_empty() || windows.iter().any(|window| window.len() < 2) {
        return Err(EvalError::Nothing { with: " of two tokens or more, and none shorter" });
    }
    evaluate_targets(Models { model, reference, shared: None }, windows, &next_tokens(windows), progress)
}

/// The targets of causal windows: every token but the first.
pub fn next_tokens(windows: &[Vec<u32>]) -> Vec<Targets> {
    windows.iter().map(|window| window.iter().skip(1).copied().enumerate().collect()).collect()
}

/// [`evaluate`] with sequences some of whose positions have targets: a masked model's hidden tokens, or the answers of
/// conversations.
///
/// # Errors
/// [`EvalError`]: no target at all, a failing or damaged model, models of different vocabularies.
pub fn evaluate_targets(
    models: Models<'_>,
    windows: &[Vec<u32>],
    targets: &[Targets],
    progress: &dyn Progress,
) -> Result<LmMetrics, EvalError> {
    if targets.iter().all(Vec::is_empty) {
        return Err(EvalError::Nothing { with: " with a token to predict" });
    }
    let Models { model, reference, shared } = models;
    let width = model.output_width();
    let other = reference.map_or(width, Forward::output_width);
    let (rows, work) = (Rows::PerToken, ("evaluating", "windows"));
    let pair = Pair { model, reference, shared, rows, reference_rows: rows, columns: "tokens", work };
    let (mut losses, mut reference_losses, mut samples) = (0.0, 0.0, Vec::new());
    let (mut divergences, mut agreeing, mut tokens, mut sums) = (Vec::new(), 0u64, 0u64, Sums::default());
    let logits_sha256 = pair.watched(windows, progress, |n, logits, reference| {
        let least = width.min(other);
        let mut tokens_of = targets[n].iter().map(|&(_, token)| token).chain(windows[n].iter().copied());
        if let Some(token) = tokens_of.find(|&token| token as usize >= least) {
            return Err(EvalError::TokenOutside { token, sequence: n, width: least });
        }
        // Positions are computed in any order and summed in theirs, so the sums do not depend on the threads.
        let mut sample = Sample::default();
        let (mut own, mut others, mut same) = (0.0, 0.0, 0u64);
        let reference = reference.map(|reference| Logits { values: reference, width: other });
        for position in positions(&targets[n], Logits { values: logits, width }, reference, shared) {
            tokens += 1;
            losses += position.nll;
            own += position.nll;
            if let Some(compared) = position.compared {
                reference_losses += compared.nll;
                divergences.push(compared.divergence);
                agreeing += u64::from(compared.agrees);
                (others, same) = (others + compared.nll, same + u64::from(compared.agrees));
                sample.sum += compared.divergence;
                sample.count += 1;
            }
        }
        samples.push(sample);
        sums.counts.push(targets[n].len() as u64);
        sums.nll.push(own);
        if reference.is_some() {
            sums.reference_nll.push(others);
            sums.kld.push(sample.sum);
            sums.agreeing.push(same);
        }
        Ok(())
    })?;
    let count = tokens as f64;
    let (kld_mean, kld_stderr) = mean_and_error(&samples);
    Ok(LmMetrics {
        tokens,
        windows: windows.len() as u64,
        perplexity: libm::exp(losses / count),
        reference_perplexity: reference.map(|_| libm::exp(reference_losses / count)),
        kld_mean: reference.map(|_| kld_mean),
        kld_stderr: reference.and(kld_stderr),
        kld_p99: percentile(&divergences, 0.99),
        top1_agreement: reference.map(|_| agreeing as f64 / count),
        logits_sha256,
        sums,
    })
}

/// The outputs of one model for a sequence: (positions, width).
#[derive(Clone, Copy)]
struct Logits<'l> {
    values: &'l [f32],
    width: usize,
}

impl<'l> Logits<'l> {
    fn row(self, n: usize) -> &'l [f32] {
        &self.values[n * self.width..(n + 1) * self.width]
    }
}

/// Every position that has a target; `shared` columns are compared, or all.
fn positions(
    targets: &[(usize, u32)],
    logits: Logits<'_>,
    reference: Option<Logits<'_>>,
    shared: Option<usize>,
) -> Vec<Position> {
    let shared = shared.unwrap_or(logits.width);
    targets
        .par_iter()
        .map(|&(n, target)| {
            let (target, row) = (target as usize, logits.row(n));
            let compared = reference.map(|reference| {
                let other = reference.row(n);
                let (ours, theirs) = (&row[..shared], &other[..shared]);
                Compared {
                    nll: nll(other, target),
                    divergence: divergence(theirs, ours),
                    agrees: argmax(theirs) == argmax(ours),
                }
            });
            Position { nll: nll(row, target), compared }
        })
        .collect()
}

/// Result of `slmc eval --task lm`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "task", rename = "lm")]
pub struct LmReport {
    /// Quality.
    #[serde(flatten)]
    pub metrics: LmMetrics,
    /// Whether the data are conversations, and only tokens of the assistant count.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub answers_only: bool,
    /// Sizes.
    #[serde(flatten)]
    pub subject: Subject,
}

/// Result of `slmc eval --task mlm`: the same, over hidden tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "task", rename = "mlm")]
pub struct MlmReport {
    /// Quality.
    #[serde(flatten)]
    pub metrics: LmMetrics,
    /// Sizes.
    #[serde(flatten)]
    pub subject: Subject,
}

impl Report for MlmReport {
    const SCHEMA: &'static str = super::SCHEMA;

    fn text(&self) -> String {
        self.metrics.text(&self.subject, false)
    }
}

impl Report for LmReport {
    const SCHEMA: &'static str = super::SCHEMA;

    fn text(&self) -> String {
        self.metrics.text(&self.subject, self.answers_only)
    }
}

impl LmMetrics {
    fn text(&self, subject: &Subject, answers_only: bool) -> String {
        let metrics = self;
        let mut table = Table::pairs();
        let (tokens, windows) =
            if answers_only { ("tokens of answers", "conversations") } else { ("tokens", "windows") };
        table.row([tokens, &grouped(metrics.tokens)]).row([windows, &grouped(metrics.windows)]);
        number_row(&mut table, "perplexity", Some(metrics.perplexity), 4);
        number_row(&mut table, "reference_perplexity", metrics.reference_perplexity, 4);
        number_row(&mut table, "kld_mean", metrics.kld_mean, 6);
        number_row(&mut table, "kld_stderr", metrics.kld_stderr, 6);
        number_row(&mut table, "kld_p99", metrics.kld_p99, 6);
        number_row(&mut table, "top1_agreement", metrics.top1_agreement, 5);
        subject.rows(&mut table);
        format!("{table}\nlogits_sha256  {}", metrics.logits_sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::super::outputs::testing::Table as Model;
    use super::super::subject::Numerics;
    use super::*;
    use crate::progress::Silent;
    use crate::report::json_line;

    /// Logits ln(weights): the softmax is weights / Σ weights.
    fn logarithms(rows: &[[f32; 2]]) -> Model {
        let rows: Vec<Vec<f32>> = rows.iter().map(|row| row.iter().map(|weight| weight.ln()).collect()).collect();
        Model { rows, one: false }
    }

    fn close(found: Option<f64>, expected: f64) -> bool {
        found.is_some_and(|found| (found - expected).abs() < 1e-6)
    }

    #[test]
    fn means_leave_the_last_position_out() {
        // After token 0 the model says (1/4, 3/4), the reference (1/2, 1/2); after token 1 both say (3/4, 1/4).
        let (model, reference) = (logarithms(&[[1.0, 3.0], [3.0, 1.0]]), logarithms(&[[1.0, 1.0], [3.0, 1.0]]));
        // Targets: 1 after 0, 0 after 1; then 0 after 0, 0 after 0.
        let windows = vec![vec![0, 1, 0], vec![0, 0, 0]];
        let metrics = evaluate(&model, Some(&reference), &windows, &Silent).expect("evaluates");
        assert_eq!((metrics.tokens, metrics.windows), (4, 2));
        let loss = -(0.75f64.ln() + 0.75f64.ln() + 0.25f64.ln() + 0.25f64.ln()) / 4.0;
        assert!(close(Some(metrics.perplexity), loss.exp()));
        let loss = -(0.5f64.ln() + 0.75f64.ln() + 0.5f64.ln() + 0.5f64.ln()) / 4.0;
        assert!(close(metrics.reference_perplexity, loss.exp()));
        let kld = 0.5 * (0.5f64 / 0.25).ln() + 0.5 * (0.5f64 / 0.75).ln();
        assert!(close(metrics.kld_mean, 0.75 * kld) && close(metrics.kld_p99, kld));
        // Window means kld/2 and kld: standard error is half their difference.
        assert!(close(metrics.kld_stderr, 0.25 * kld));
        assert_eq!((&metrics.sums.counts, &metrics.sums.agreeing), (&vec![2, 2], &vec![1, 0]));
        assert!(close(Some(metrics.sums.kld[0]), kld) && close(Some(metrics.sums.kld[1]), 2.0 * kld));
        assert!(close(Some(metrics.sums.nll.iter().sum::<f64>() / 4.0), metrics.perplexity.ln()));
        // At token 0 the reference's equals count for the lower token, and the model prefers token 1.
        assert_eq!(metrics.top1_agreement, Some(0.25));
    }

    #[test]
    fn without_a_reference_its_fields_are_absent() {
        let model = logarithms(&[[1.0, 3.0], [3.0, 1.0]]);
        let metrics = evaluate(&model, None, &[vec![0, 1]], &Silent).expect("evaluates");
        let subject = Subject::new(Numerics::Integer, Some(100), None, Some(200));
        let line = json_line(&LmReport { metrics, answers_only: false, subject }).expect("serialises");
        let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let keys: Vec<&String> = json.as_object().expect("an object").keys().collect();
        assert_eq!(
            keys,
            [
                "schema",
                "task",
                "tokens",
                "windows",
                "perplexity",
                "logits_sha256",
                "sums",
                "numerics",
                "weight_bytes",
                "parameters",
                "bits_per_weight"
            ]
        );
        assert_eq!((json["schema"].as_str(), json["task"].as_str()), (Some("slmc.eval/1"), Some("lm")));
        assert_eq!(json["bits_per_weight"], 4.0);
    }

    #[test]
    fn a_model_against_itself_has_no_divergence() {
        let model = logarithms(&[[1.0, 3.0], [3.0, 1.0]]);
        let metrics = evaluate(&model, Some(&model), &[vec![0, 1, 1], vec![1, 0, 0]], &Silent).expect("evaluates");
        assert!(metrics.kld_mean.is_some_and(|kld| kld < 1e-15));
        assert_eq!(metrics.top1_agreement, Some(1.0));
        assert_eq!(Some(metrics.perplexity), metrics.reference_perplexity);
    }

    #[test]
    fn only_shared_tokens_are_compared() {
        let reference = logarithms(&[[1.0, 1.0], [3.0, 1.0]]);
        let narrow = logarithms(&[[1.0, 3.0], [3.0, 1.0]]);
        // The same with a row of padding that takes half of every distribution.
        let padded = |row: &Vec<f32>| [&row[..], &[row.iter().map(|logit| logit.exp()).sum::<f32>().ln()]].concat();
        let wide = Model { rows: narrow.rows.iter().map(padded).collect(), one: false };
        let windows = [vec![0, 1, 0], vec![0, 0, 0]];
        let judge = |model, shared| {
            let models = Models { model, reference: Some(&reference), shared };
            evaluate_targets(models, &windows, &next_tokens(&windows), &Silent)
        };
        let (narrow, wide) = (judge(&narrow, None).expect("evaluates"), judge(&wide, Some(2)).expect("evaluates"));
        assert!(close(wide.kld_mean, narrow.kld_mean.expect("a reference")));
        assert_eq!(
            (wide.top1_agreement, wide.reference_perplexity),
            (narrow.top1_agreement, narrow.reference_perplexity)
        );
        // Perplexity is the model's own, padding included.
        assert!((wide.perplexity - 2.0 * narrow.perplexity).abs() < 1e-6);
        assert!(matches!(judge(&reference, Some(3)), Err(EvalError::WidthsDiffer { .. })));
    }

    #[test]
    fn short_windows_and_foreign_tokens_are_refused() {
        let model = logarithms(&[[1.0, 3.0], [3.0, 1.0], [1.0, 1.0]]);
        assert!(matches!(evaluate(&model, None, &[], &Silent), Err(EvalError::Nothing { .. })));
        assert!(matches!(evaluate(&model, None, &[vec![1]], &Silent), Err(EvalError::Nothing { .. })));
        let outside = evaluate(&model, None, &[vec![0, 2]], &Silent);
        assert!(matches!(outside, Err(EvalError::TokenOutside { token: 2, sequence: 0, width: 2 })));
    }
}
