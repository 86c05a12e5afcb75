//! Answers that stand in a text, from two scores of every token: that an answer starts there, and that it ends there. Both are
//! softmaxes over the tokens of the text and the first token, which stands for no answer:
//!
//! ```text
//! p(first, last) = start(first) · end(last)   first ≤ last < first + 30
//! p(nothing)     = start(0) · end(0)
//! exact_match    = questions whose likeliest span is, without white space around it, one of the answers / questions
//! ```
//!
//! Where some question of the data has no answer, nothing is given where it is likelier than every span.

use super::error::EvalError;
use super::forward::Forward;
use super::outputs::{Pair, Rows};
use super::subject::{Subject, number_row};
use super::sums::Sums;
use crate::progress::Progress;
use crate::report::{Report, Table, grouped};
use crate::text::tokenizer::Encoded;
use serde::Serialize;
use std::ops::Range;

/// Most tokens of an answer.
const MOST_TOKENS: usize = 30;
/// Scores of a token: start, end.
const COLUMNS: usize = 2;

/// The likeliest span of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Its bytes in the text, without white space around them.
    pub bytes: Range<usize>,
    /// Its probability.
    pub confidence: f32,
    /// Probability that the text has no answer.
    pub nothing: f32,
}

/// The likeliest span of `text` by the scores of its tokens, (tokens, 2); `None` where no token of the text is left.
pub fn best(scores: &[f32], text: &str, places: &[Option<Range<usize>>]) -> Option<Span> {
    let allowed = |index: usize| index == 0 || places[index].is_some();
    let probabilities = |column: usize| -> Vec<f64> {
        let score = |index: usize| f64::from(scores[index * COLUMNS + column]);
        let top = (0..places.len()).filter(|&index| allowed(index)).map(score).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> =
            (0..places.len()).map(|index| if allowed(index) { libm::exp(score(index) - top) } else { 0.0 }).collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect()
    };
    let (start, end) = (probabilities(0), probabilities(1));
    let mut found: Option<(f64, Range<usize>)> = None;
    for (first, from) in places.iter().enumerate().filter_map(|(index, place)| Some((index, place.as_ref()?))) {
        for (last, to) in places.iter().enumerate().skip(first).take(MOST_TOKENS) {
            let Some(to) = to else { continue };
            let together = start[first] * end[last];
            if found.as_ref().is_none_or(|(best, _)| together > *best) {
                found = Some((together, from.start..to.end));
            }
        }
    }
    let nothing = if places.first().is_some_and(Option::is_none) { start[0] * end[0] } else { 0.0 };
    found.map(|(confidence, bytes)| Span {
        bytes: trimmed(text, bytes),
        confidence: confidence as f32,
        nothing: nothing as f32,
    })
}

fn trimmed(text: &str, bytes: Range<usize>) -> Range<usize> {
    let Some(part) = text.get(bytes.clone()) else { return bytes };
    let start = bytes.start + part.len() - part.trim_start().len();
    start..start + part.trim().len()
}

/// A question about a text, as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuestionExample {
    /// Both, with the places of the text's tokens.
    pub encoded: Encoded<Range<usize>>,
    /// The text.
    pub text: String,
    /// Right answers; none where there is none.
    pub answers: Vec<String>,
}

/// Metrics over questions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SpansMetrics {
    /// Tokens of all questions and texts, special tokens included.
    pub tokens: u64,
    /// Questions.
    pub windows: u64,
    /// Questions without an answer.
    pub unanswerable: u64,
    /// Share of answers that are right to the letter.
    pub exact_match: f64,
    /// The reference's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference_exact_match: Option<f64>,
    /// Share of questions to which both give the same answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top1_agreement: Option<f64>,
    /// SHA-256 of the model's outputs: little-endian f32, questions in order.
    pub logits_sha256: String,
    /// The same question by question.
    pub sums: Sums,
}

/// Evaluates `model`, and compares it with `reference` if there is one.
///
/// # Errors
/// [`EvalError`]: no questions, a failing or damaged model.
pub fn evaluate(
    model: &dyn Forward,
    reference: Option<&dyn Forward>,
    examples: &[QuestionExample],
    progress: &dyn Progress,
) -> Result<SpansMetrics, EvalError> {
    if examples.is_empty() {
        return Err(EvalError::Nothing { with: " with a question" });
    }
    let sequences: Vec<Vec<u32>> = examples.iter().map(|example| example.encoded.tokens.clone()).collect();
    let unanswerable = examples.iter().filter(|example| example.answers.is_empty()).count();
    let (rows, work) = (Rows::PerToken, ("answering", "questions"));
    let pair = Pair { model, reference, shared: None, rows, reference_rows: rows, columns: "scores", work };
    let answer = |example: &QuestionExample, scores: &[f32]| {
        let span = best(scores, &example.text, &example.encoded.places);
        let given = span.filter(|span| unanswerable == 0 || span.confidence > span.nothing);
        given.and_then(|span| example.text.get(span.bytes)).unwrap_or("").to_owned()
    };
    let right = |example: &QuestionExample, given: &str| match example.answers.is_empty() {
        true => given.is_empty(),
        false => example.answers.iter().any(|answer| answer.trim() == given),
    };
    let mut sums = Sums { counts: vec![1; examples.len()], ..Sums::default() };
    let logits_sha256 = pair.watched(&sequences, progress, |place, scores, other| {
        let example = &examples[place];
        let given = answer(example, scores);
        sums.correct.push(u64::from(right(example, &given)));
        if let Some(other) = other {
            let expected = answer(example, other);
            sums.reference_correct.push(u64::from(right(example, &expected)));
            sums.agreeing.push(u64::from(expected == given));
        }
        Ok(())
    })?;
    let share = |column: &[u64]| column.iter().sum::<u64>() as f64 / examples.len() as f64;
    Ok(SpansMetrics {
        tokens: sequences.iter().map(|tokens| tokens.len() as u64).sum(),
        windows: examples.len() as u64,
        unanswerable: unanswerable as u64,
        exact_match: share(&sums.correct),
        reference_exact_match: reference.map(|_| share(&sums.reference_correct)),
        top1_agreement: reference.map(|_| share(&sums.agreeing)),
        logits_sha256,
        sums,
    })
}

/// Result of `slmc eval --task spans`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "task", rename = "spans")]
pub struct SpansReport {
    /// Quality.
    #[serde(flatten)]
    pub metrics: SpansMetrics,
    /// Sizes.
    #[serde(flatten)]
    pub subject: Subject,
}

impl Report for SpansReport {
    const SCHEMA: &'static str = super::SCHEMA;

    fn text(&self) -> String {
        let metrics = &self.metrics;
        let mut table = Table::pairs();
        table.row(["tokens", &grouped(metrics.tokens)]).row(["questions", &grouped(metrics.windows)]);
        table.row(["unanswerable", &grouped(metrics.unanswerable)]);
        number_row(&mut table, "exact_match", Some(metrics.exact_match), 4);
        number_row(&mut table, "reference_exact_match", metrics.reference_exact_match, 4);
        number_row(&mut table, "top1_agreement", metrics.top1_agreement, 5);
        self.subject.rows(&mut table);
        format!("{table}\nlogits_sha256  {}", metrics.logits_sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_span_is_found_in_the_text_alone() {
        let places = [None, None, Some(0..3), Some(3..8), None];
        // The separator has the highest scores of all, and is not of the text.
        let scores = [0.0, 0.0, 9.0, 9.0, 1.0, 3.0, 4.0, 2.0, 9.0, 9.0];
        let span = best(&scores, "one two!", &places).expect("a span");
        assert_eq!(span.bytes, 4..8);
        assert!(span.nothing < span.confidence && span.confidence < 1.0);
        // The end before the start is no span.
        let scores = [0.0, 0.0, 0.0, 0.0, 1.0, 9.0, 4.0, 2.0, 0.0, 0.0];
        assert_eq!(best(&scores, "one two!", &places).expect("a span").bytes, 0..3);
        assert_eq!(best(&scores[..4], "", &places[..2]), None);
    }
}
