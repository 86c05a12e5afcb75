//! Whether what a model is asked has changed: logged requests beside reference data, by four quantities of every text.
//!
//! ```text
//! confidence         mean over positions of the largest probability (of a classifier, of its labels)
//! length             tokens
//! out_of_vocabulary  share of tokens that stand in none of the (other) texts of the reference: a request that the reference has
//!                    word for word is compared with its other texts
//! label              the label that a classifier gives
//! ```
//!
//! A quantity is binned by tenths of the reference; [`crate::statistics::shift`] has PSI and KS with their bounds. Bare encoders
//! have no confidence, and only classifiers have labels.

use super::error::EvalError;
use super::forward::Forward;
use super::opened::Task;
use super::outputs::{Pair, Rows};
use super::subject::Subject;
use crate::divergence::{argmax, nll};
use crate::progress::Progress;
use crate::report::{Align, Report, Table, grouped};
use crate::statistics::Interval;
use crate::statistics::shift::{counts, edges, ks, ks_bounds, psi};
use crate::text::file::{ReadNotes, rows_of_files};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Confidence of the bounds in the report; gates judge by their own.
const CONFIDENCE: f64 = 0.95;

/// The quantities of the texts of one file, text by text.
#[derive(Clone, Debug, Default)]
pub struct Quantities {
    /// Empty for bare encoders.
    pub confidence: Vec<f64>,
    /// Tokens.
    pub length: Vec<f64>,
    /// Numbers of labels; empty but for classifiers.
    pub label: Vec<usize>,
}

/// A value with its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bounded {
    /// As measured; of PSI less what chance alone gives.
    pub value: f64,
    /// With 95 % confidence it is not below this.
    pub lower: f64,
    /// Nor above this.
    pub upper: f64,
}

/// Counts of both samples over the same bins.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bins {
    /// Upper ends of all bins but the last; absent of labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<f64>,
    /// Names of labels; absent of other quantities.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Texts of the reference.
    pub reference: Vec<u64>,
    /// Logged requests.
    pub log: Vec<u64>,
}

/// One quantity in both samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shift {
    /// Its name.
    pub quantity: &'static str,
    /// Mean over the reference; absent of labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference_mean: Option<f64>,
    /// Mean over the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_mean: Option<f64>,
    /// Population stability index.
    pub psi: Bounded,
    /// Largest difference of the distributions; absent of labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ks: Option<Bounded>,
    /// What both are computed from.
    pub bins: Bins,
}

/// Result of `slmc watch`, and of `slmc eval --log`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DriftReport {
    /// Texts of the reference.
    pub reference_texts: u64,
    /// Logged requests.
    pub requests: u64,
    /// Every quantity that there is.
    pub shifts: Vec<Shift>,
    /// PSI and KS again, by the names that gates have for them.
    #[serde(flatten)]
    pub figures: BTreeMap<String, f64>,
    /// Sizes.
    #[serde(flatten)]
    pub subject: Subject,
    /// The files, and the changes of reading them.
    pub files_read: Vec<ReadNotes>,
}

impl From<Interval> for Bounded {
    fn from(interval: Interval) -> Self {
        Bounded { value: interval.value, lower: interval.lower, upper: interval.upper }
    }
}

/// What a model makes of texts.
///
/// # Errors
/// A failing or damaged model.
pub fn quantities(
    model: &dyn Forward,
    task: Task,
    sequences: &[Vec<u32>],
    progress: &dyn Progress,
) -> Result<Quantities, EvalError> {
    let width = model.output_width();
    let length = sequences.iter().map(|tokens| tokens.len() as f64).collect();
    let mut found = Quantities { length, ..Quantities::default() };
    let (rows, columns) = match task {
        Task::Hidden | Task::Answers => return Ok(found),
        Task::TokenClassifier => (Rows::PerToken, "labels"),
        Task::Classifier => (Rows::One, "labels"),
        Task::LanguageModel | Task::MaskedLanguageModel => (Rows::PerToken, "tokens"),
    };
    let work = ("scoring", "texts");
    let pair = Pair { model, reference: None, shared: None, rows, reference_rows: rows, columns, work };
    pair.watched(sequences, progress, |_, output, _| {
        // Positions are computed in any order and summed in theirs.
        let largest: Vec<f64> = output.par_chunks(width).map(|row| libm::exp(-nll(row, argmax(row)))).collect();
        found.confidence.push(largest.iter().sum::<f64>() / largest.len().max(1) as f64);
        if task == Task::Classifier {
            found.label.push(argmax(output));
        }
        Ok(())
    })?;
    Ok(found)
}

/// Share of tokens of each text that stand in no text of the reference; of a text that the reference has, in no other one, so
/// that requests which are the reference's own are no news.
fn out_of_vocabulary(texts: &[Vec<u32>], reference: &[Vec<u32>]) -> Vec<f64> {
    let mut holders: BTreeMap<u32, usize> = BTreeMap::new();
    for text in reference {
        let mut tokens = text.clone();
        tokens.sort_unstable();
        tokens.dedup();
        for token in tokens {
            *holders.entry(token).or_default() += 1;
        }
    }
    let own: BTreeSet<&Vec<u32>> = reference.iter().collect();
    let share = |text: &Vec<u32>| {
        let known = usize::from(own.contains(text));
        let outside = text.iter().filter(|token| holders.get(token).is_none_or(|&count| count <= known)).count();
        outside as f64 / text.len().max(1) as f64
    };
    texts.iter().map(share).collect()
}

/// A sample of one quantity: of the reference, and of the log.
type Samples<'s> = (&'s [f64], &'s [f64]);

fn shift(quantity: &'static str, (reference, log): Samples<'_>) -> Option<Shift> {
    let edges = edges(reference);
    let (own, other) = (counts(reference, &edges), counts(log, &edges));
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let sizes = (reference.len() as u64, log.len() as u64);
    Some(Shift {
        quantity,
        reference_mean: Some(mean(reference)),
        log_mean: Some(mean(log)),
        psi: psi(&own, &other, CONFIDENCE)?.into(),
        ks: Some(ks_bounds(ks(reference, log)?, sizes, CONFIDENCE)?.into()),
        bins: Bins { edges, labels: Vec::new(), reference: own, log: other },
    })
}

fn shift_of_labels(labels: &[String], reference: &[usize], log: &[usize]) -> Option<Shift> {
    let counts = |given: &[usize]| {
        let mut counts = vec![0; labels.len()];
        for &label in given {
            counts[label] += 1;
        }
        counts
    };
    let (own, other): (Vec<u64>, Vec<u64>) = (counts(reference), counts(log));
    // Labels that nobody has say nothing.
    let kept: Vec<usize> = (0..labels.len()).filter(|&label| own[label] + other[label] > 0).collect();
    let of = |counts: &[u64]| kept.iter().map(|&label| counts[label]).collect::<Vec<u64>>();
    let bins = Bins {
        edges: Vec::new(),
        labels: kept.iter().map(|&label| labels[label].clone()).collect(),
        reference: of(&own),
        log: of(&other),
    };
    let psi = match psi(&bins.reference, &bins.log, CONFIDENCE) {
        Some(found) => found.into(),
        // One label for all texts of both: nothing changed.
        None => Bounded { value: 0.0, lower: 0.0, upper: 0.0 },
    };
    Some(Shift { quantity: "label", reference_mean: None, log_mean: None, psi, ks: None, bins })
}

/// The texts of a file as tokens, and what a model makes of them.
pub struct Sample<'s> {
    /// As tokens.
    pub tokens: &'s [Vec<u32>],
    /// By the model.
    pub quantities: &'s Quantities,
}

/// Compares a log with the reference.
///
/// # Errors
/// [`EvalError::Nothing`]: no texts.
pub fn compare(
    reference: Sample<'_>,
    log: Sample<'_>,
    labels: &[String],
    subject: Subject,
    files_read: Vec<ReadNotes>,
) -> Result<DriftReport, EvalError> {
    if reference.tokens.is_empty() || log.tokens.is_empty() {
        return Err(EvalError::Nothing { with: "" });
    }
    let (own, other) = (reference.quantities, log.quantities);
    let unknown =
        (out_of_vocabulary(reference.tokens, reference.tokens), out_of_vocabulary(log.tokens, reference.tokens));
    let mut shifts: Vec<Shift> = [
        shift("confidence", (&own.confidence, &other.confidence)),
        shift("length", (&own.length, &other.length)),
        shift("out_of_vocabulary", (&unknown.0, &unknown.1)),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !own.label.is_empty() {
        shifts.extend(shift_of_labels(labels, &own.label, &other.label));
    }
    let mut figures = BTreeMap::new();
    for shift in &shifts {
        figures.insert(format!("{}_psi", shift.quantity), shift.psi.value);
        figures.extend(shift.ks.map(|ks| (format!("{}_ks", shift.quantity), ks.value)));
    }
    let largest = shifts.iter().map(|shift| shift.psi.value).fold(0.0, f64::max);
    figures.insert("psi_max".to_owned(), largest);
    Ok(DriftReport {
        reference_texts: reference.tokens.len() as u64,
        requests: log.tokens.len() as u64,
        shifts,
        figures,
        subject,
        files_read,
    })
}

impl Report for DriftReport {
    const SCHEMA: &'static str = "slmc.drift/1";

    fn text(&self) -> String {
        let right = Align::Right;
        let mut table = Table::new([
            ("quantity", Align::Left),
            ("reference", right),
            ("log", right),
            ("PSI (95 % bounds)", right),
            ("KS (95 % bounds)", right),
        ]);
        let bounded = |value: Bounded| format!("{:.4} ({:.4} to {:.4})", value.value, value.lower, value.upper);
        let mean = |mean: Option<f64>| mean.map_or_else(|| "-".to_owned(), |mean| format!("{mean:.4}"));
        for shift in &self.shifts {
            table.row([
                shift.quantity,
                &mean(shift.reference_mean),
                &mean(shift.log_mean),
                &bounded(shift.psi),
                &shift.ks.map_or_else(|| "-".to_owned(), bounded),
            ]);
        }
        let mut facts = Table::pairs();
        facts.row(["reference_texts", &grouped(self.reference_texts)]);
        facts.row(["requests", &grouped(self.requests)]);
        self.subject.rows(&mut facts);
        rows_of_files(&self.files_read, &mut facts);
        format!("{table}\n\n{facts}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_where_another_text_has_it() {
        let reference = [vec![1, 2, 3], vec![1, 2], vec![1, 9]];
        assert_eq!(out_of_vocabulary(&reference, &reference), [1.0 / 3.0, 0.0, 0.5]);
        let log = [vec![1, 2], vec![7, 1], vec![], vec![1, 2, 3], vec![1, 3]];
        assert_eq!(out_of_vocabulary(&log, &reference), [0.0, 0.5, 0.0, 1.0 / 3.0, 0.0]);
    }

    #[test]
    fn labels_that_nobody_has_are_left_out() {
        let labels = ["a", "b", "c"].map(str::to_owned);
        let found = shift_of_labels(&labels, &[0, 0, 2, 2], &[2, 2, 2, 2]).expect("labels");
        assert_eq!(
            (found.bins.labels.as_slice(), found.bins.reference.as_slice()),
            (&["a".to_owned(), "c".to_owned()][..], &[2, 2][..])
        );
        assert_eq!(shift_of_labels(&labels, &[1], &[1]).expect("labels").psi.upper, 0.0);
    }
}
