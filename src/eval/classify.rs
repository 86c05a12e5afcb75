//! Sequence classifiers. The prediction is the label with the largest output, the first of equals. Texts labelled
//! [`OUT_OF_SCOPE`] are judged apart, since a classifier is asked two things: to name a known intent, and to notice
//! that there is none. Definitions:
//!
//! ```text
//! accuracy   = correct / texts, over texts whose label is not `oos`
//! oos_recall = texts labelled and predicted `oos` / texts labelled `oos`
//! macro_f1   = mean over labels that occur, as a text's or as a prediction, of 2·tp / (2·tp + fp + fn), `oos` included
//! ```

use super::error::EvalError;
use super::exits::ExitsMetrics;
use super::forward::Forward;
use super::outputs::{Pair, Rows};
use super::routing::ConfidenceMetrics;
use super::subject::{Subject, number_row};
use super::sums::Sums;
use crate::divergence::{Sample, argmax, divergence, mean_and_error, percentile};
use crate::progress::Progress;
use crate::report::{Report, Table, grouped};
use crate::text::records::Label;
use serde::Serialize;

/// The label of texts that belong to none of the others.
pub const OUT_OF_SCOPE: &str = "oos";

/// Labels an error lists before it stops.
const LISTED_LABELS: usize = 8;

/// One text, tokenised, with its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Line of its file, from 1.
    pub line: usize,
    /// With special tokens.
    pub tokens: Vec<u32>,
    /// One of the model's labels, by name or number.
    pub label: Label,
}

/// Metrics of a classifier over labelled texts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassifyMetrics {
    /// Tokens of all texts, special tokens included.
    pub tokens: u64,
    /// Texts.
    pub windows: u64,
    /// Over texts that are not `oos`; absent where all are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Over texts that are; absent where none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oos_recall: Option<f64>,
    /// Over all texts.
    pub macro_f1: f64,
    /// Accuracy of the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference_accuracy: Option<f64>,
    /// Mean over texts of KL(reference ‖ model) between the distributions over labels, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kld_mean: Option<f64>,
    /// Its standard error, texts as the independent samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kld_stderr: Option<f64>,
    /// 99th percentile over texts (nearest rank), in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kld_p99: Option<f64>,
    /// Share of texts to which both give the same label, in [0, 1].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top1_agreement: Option<f64>,
    /// SHA-256 of the model's outputs: little-endian f32, texts in order.
    pub logits_sha256: String,
    /// The same text by text.
    pub sums: Sums,
}

/// The number of every example's label.
///
/// # Errors
/// [`EvalError::UnknownLabel`].
pub fn truth_of(examples: &[Example], labels: &[String]) -> Result<Vec<usize>, EvalError> {
    examples.iter().map(|example| label_id(example.line, &example.label, labels)).collect()
}

/// Evaluates `model`, whose output columns are `labels` in order, and compares it with `reference` if there is one;
/// `see` is shown the outputs of every text in order.
///
/// # Errors
/// [`EvalError`]: no texts, a label that the model does not have, a failing or damaged model.
pub fn evaluate(
    model: &dyn Forward,
    reference: Option<&dyn Forward>,
    examples: &[Example],
    labels: &[String],
    progress: &dyn Progress,
    see: &mut dyn FnMut(&[f32]),
) -> Result<ClassifyMetrics, EvalError> {
    let width = model.output_width();
    if width != labels.len() {
        return Err(EvalError::LabelCount { width, labels: labels.len() });
    }
    if examples.is_empty() {
        return Err(EvalError::Nothing { with: " with a label" });
    }
    let truth = truth_of(examples, labels)?;
    let sequences: Vec<Vec<u32>> = examples.iter().map(|example| example.tokens.clone()).collect();
    let (rows, work) = (Rows::One, ("classifying", "texts"));
    let pair = Pair { model, reference, shared: None, rows, reference_rows: rows, columns: "labels", work };
    let (mut predicted, mut expected, mut divergences) = (Vec::new(), Vec::new(), Vec::new());
    let logits_sha256 = pair.watched(&sequences, progress, |_, row, reference| {
        predicted.push(argmax(row));
        see(row);
        if let Some(reference) = reference {
            expected.push(argmax(reference));
            divergences.push(divergence(reference, row));
        }
        Ok(())
    })?;
    let samples: Vec<Sample> = divergences.iter().map(|&sum| Sample { sum, count: 1 }).collect();
    let (kld_mean, kld_stderr) = mean_and_error(&samples);
    let oos = labels.iter().position(|label| label == OUT_OF_SCOPE);
    let known = |predicted: &[usize]| share_correct(&truth, predicted, |label| Some(label) != oos);
    let agreeing = predicted.iter().zip(&expected).filter(|(a, b)| a == b).count();
    let right = |predicted: &[usize]| -> Vec<u64> {
        let pairs = truth.iter().zip(predicted);
        pairs.map(|(&truth, &predicted)| u64::from(Some(truth) != oos && truth == predicted)).collect()
    };
    let sums = Sums {
        counts: vec![1; truth.len()],
        judged: truth.iter().map(|&truth| u64::from(Some(truth) != oos)).collect(),
        correct: right(&predicted),
        reference_correct: if reference.is_some() { right(&expected) } else { Vec::new() },
        agreeing: predicted.iter().zip(&expected).map(|(a, b)| u64::from(a == b)).collect(),
        kld: divergences.clone(),
        ..Sums::default()
    };
    Ok(ClassifyMetrics {
        tokens: sequences.iter().map(|tokens| tokens.len() as u64).sum(),
        windows: examples.len() as u64,
        accuracy: known(&predicted),
        oos_recall: share_correct(&truth, &predicted, |label| Some(label) == oos),
        macro_f1: macro_f1(&truth, &predicted, labels.len()),
        reference_accuracy: reference.and_then(|_| known(&expected)),
        kld_mean: reference.map(|_| kld_mean),
        kld_stderr: reference.and(kld_stderr),
        kld_p99: percentile(&divergences, 0.99),
        top1_agreement: reference.map(|_| agreeing as f64 / examples.len() as f64),
        logits_sha256,
        sums,
    })
}

/// The number of a label of the model, from line `line` of a file.
pub(super) fn label_id(line: usize, label: &Label, labels: &[String]) -> Result<usize, EvalError> {
    label.class(labels).ok_or_else(|| {
        let mut known: Vec<&str> = labels.iter().take(LISTED_LABELS).map(String::as_str).collect();
        if labels.len() > LISTED_LABELS {
            known.push("…");
        }
        EvalError::UnknownLabel { line, label: label.to_string(), known: known.join(", ") }
    })
}

/// Share of correct predictions among the texts whose label is `counted`; `None` where there are none.
fn share_correct(truth: &[usize], predicted: &[usize], counted: impl Fn(usize) -> bool) -> Option<f64> {
    let (mut texts, mut correct) = (0u64, 0u64);
    for (&truth, &predicted) in truth.iter().zip(predicted) {
        if counted(truth) {
            texts += 1;
            correct += u64::from(truth == predicted);
        }
    }
    (texts > 0).then(|| correct as f64 / texts as f64)
}

fn macro_f1(truth: &[usize], predicted: &[usize], labels: usize) -> f64 {
    // Per label: both, and twice-counted occurrences (as truth, as prediction): f1 = 2·both / occurrences.
    let (mut both, mut occurrences) = (vec![0u64; labels], vec![0u64; labels]);
    for (&truth, &predicted) in truth.iter().zip(predicted) {
        occurrences[truth] += 1;
        occurrences[predicted] += 1;
        both[truth] += u64::from(truth == predicted);
    }
    let scores = both.iter().zip(&occurrences).filter(|&(_, &n)| n > 0).map(|(&b, &n)| 2.0 * b as f64 / n as f64);
    let (sum, count) = scores.fold((0.0, 0.0), |(sum, count), score| (sum + score, count + 1.0));
    sum / count
}

/// Result of `slmc eval --task classify`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "task", rename = "classify")]
pub struct ClassifyReport {
    /// Quality.
    #[serde(flatten)]
    pub metrics: ClassifyMetrics,
    /// Where texts leave; absent of a model without exit heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exits: Option<ExitsMetrics>,
    /// How sure it is; absent where the artifact has no temperature and no bound was asked for.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<ConfidenceMetrics>,
    /// Sizes.
    #[serde(flatten)]
    pub subject: Subject,
}

impl Report for ClassifyReport {
    const SCHEMA: &'static str = super::SCHEMA;

    fn text(&self) -> String {
        let metrics = &self.metrics;
        let mut table = Table::pairs();
        table.row(["tokens", &grouped(metrics.tokens)]).row(["texts", &grouped(metrics.windows)]);
        number_row(&mut table, "accuracy", metrics.accuracy, 4);
        number_row(&mut table, "oos_recall", metrics.oos_recall, 4);
        number_row(&mut table, "macro_f1", Some(metrics.macro_f1), 4);
        number_row(&mut table, "reference_accuracy", metrics.reference_accuracy, 4);
        number_row(&mut table, "kld_mean", metrics.kld_mean, 6);
        number_row(&mut table, "kld_stderr", metrics.kld_stderr, 6);
        number_row(&mut table, "kld_p99", metrics.kld_p99, 6);
        number_row(&mut table, "top1_agreement", metrics.top1_agreement, 5);
        self.exits.iter().for_each(|exits| exits.rows(&mut table));
        self.confidence.iter().for_each(|confidence| confidence.rows(&mut table));
        self.subject.rows(&mut table);
        let curve = self.confidence.as_ref().map_or(String::new(), |confidence| format!("\n{}\n", confidence.table()));
        format!("{table}{curve}\nlogits_sha256  {}", metrics.logits_sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::super::outputs::testing::Table as Model;
    use super::*;
    use crate::progress::Silent;

    fn example(line: usize, token: u32, label: &str) -> Example {
        Example { line, tokens: vec![token, 9], label: Label::Name(label.to_owned()) }
    }

    #[test]
    fn known_labels_and_oos_are_judged_apart() {
        let labels = ["alarm", "bank", "oos"].map(str::to_owned);
        // The model gives text n the label n mod 3.
        let model = Model::per_sequence(&[&[1.0, 0.0, 0.0], &[0.0, 1.0, 0.0], &[0.0, 0.0, 1.0]]);
        let examples = [(0, "alarm"), (0, "alarm"), (1, "alarm"), (1, "bank"), (2, "oos"), (0, "oos")]
            .map(|(t, l)| example(1, t, l));
        let metrics = evaluate(&model, Some(&model), &examples, &labels, &Silent, &mut |_| {}).expect("evaluates");
        assert_eq!((metrics.tokens, metrics.windows), (12, 6));
        assert_eq!(metrics.accuracy, Some(0.75));
        assert_eq!(metrics.oos_recall, Some(0.5));
        // alarm: tp 2, fp 1, fn 1; bank: tp 1, fp 1; oos: tp 1, fn 1.
        let by_hand = (4.0 / 6.0 + 2.0 / 3.0 + 2.0 / 3.0) / 3.0;
        assert!((metrics.macro_f1 - by_hand).abs() < 1e-12);
        assert_eq!((metrics.reference_accuracy, metrics.top1_agreement), (Some(0.75), Some(1.0)));
        assert!(metrics.kld_mean.is_some_and(|kld| kld < 1e-15));
    }

    #[test]
    fn unknown_labels_are_named_with_their_line() {
        let labels = ["alarm", "bank"].map(str::to_owned);
        let model = Model::per_sequence(&[&[1.0, 0.0], &[0.0, 1.0]]);
        let examples = [example(1, 0, "alarm"), example(7, 1, "weather")];
        let error = evaluate(&model, None, &examples, &labels, &Silent, &mut |_| {}).expect_err("unknown").to_string();
        assert_eq!(error, "line 7: the model's config has no label `weather`; expected one of alarm, bank");
        let error =
            evaluate(&model, None, &examples, &labels[..1], &Silent, &mut |_| {}).expect_err("too few").to_string();
        assert!(error.contains("2 outputs and its config names 1 labels"), "{error}");
        let metrics = evaluate(&model, None, &examples[..1], &labels, &Silent, &mut |_| {}).expect("evaluates");
        assert_eq!((metrics.oos_recall, metrics.kld_mean, metrics.top1_agreement), (None, None, None));
    }
}
