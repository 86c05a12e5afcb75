//! Classifiers of tokens over words that were labelled. A word's label is that of its first token: the one with the largest
//! output, the first of equals; further tokens, special ones and words that were cut are not judged.
//!
//! ```text
//! accuracy = words with the right label / words
//! ```

use super::classify::label_id;
use super::error::EvalError;
use super::forward::Forward;
use super::outputs::{Pair, Rows};
use super::subject::{Subject, number_row};
use super::sums::Sums;
use crate::divergence::{Sample, argmax, divergence, mean_and_error};
use crate::progress::Progress;
use crate::report::{Report, Table, grouped};
use crate::text::records::Label;
use crate::text::tokenizer::Encoded;
use serde::Serialize;

/// Words as tokens, with their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordExample {
    /// Line of its file, from 1.
    pub line: usize,
    /// The first token of a word has its number.
    pub encoded: Encoded<usize>,
    /// By word.
    pub labels: Vec<Label>,
}

/// Metrics over labelled words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokensMetrics {
    /// Tokens of all texts, special tokens included.
    pub tokens: u64,
    /// Texts.
    pub windows: u64,
    /// Words that were judged.
    pub labelled: u64,
    /// Over them.
    pub accuracy: f64,
    /// Accuracy of the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference_accuracy: Option<f64>,
    /// Mean over words of KL(reference ‖ model) between the distributions over labels, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kld_mean: Option<f64>,
    /// Its standard error, texts as the independent samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kld_stderr: Option<f64>,
    /// Share of words to which both give the same label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top1_agreement: Option<f64>,
    /// SHA-256 of the model's outputs: little-endian f32, texts in order.
    pub logits_sha256: String,
    /// The same word by word.
    pub sums: Sums,
}

/// Evaluates `model`, whose output columns are `labels` in order, and compares it with `reference` if there is one.
///
/// # Errors
/// [`EvalError`]: no words, a label that the model does not have, a failing or damaged model.
pub fn evaluate(
    model: &dyn Forward,
    reference: Option<&dyn Forward>,
    examples: &[WordExample],
    labels: &[String],
    progress: &dyn Progress,
) -> Result<TokensMetrics, EvalError> {
    let width = model.output_width();
    if width != labels.len() {
        return Err(EvalError::LabelCount { width, labels: labels.len() });
    }
    let truth: Vec<Vec<(usize, usize)>> =
        examples.iter().map(|example| judged(example, labels)).collect::<Result<_, _>>()?;
    if truth.iter().all(Vec::is_empty) {
        return Err(EvalError::Nothing { with: " with labelled words" });
    }
    let sequences: Vec<Vec<u32>> = examples.iter().map(|example| example.encoded.tokens.clone()).collect();
    let (rows, work) = (Rows::PerToken, ("labelling", "texts"));
    let pair = Pair { model, reference, shared: None, rows, reference_rows: rows, columns: "labels", work };
    let (mut sums, mut samples) = (Sums::default(), Vec::new());
    let logits_sha256 = pair.watched(&sequences, progress, |text, output, other| {
        let row = |output: &[f32], place: usize| -> Vec<f32> { output[place * width..][..width].to_vec() };
        let mut sum = 0.0;
        for &(place, label) in &truth[text] {
            let given = row(output, place);
            sums.counts.push(1);
            sums.correct.push(u64::from(argmax(&given) == label));
            if let Some(other) = other {
                let expected = row(other, place);
                sums.reference_correct.push(u64::from(argmax(&expected) == label));
                sums.agreeing.push(u64::from(argmax(&expected) == argmax(&given)));
                let apart = divergence(&expected, &given);
                sums.kld.push(apart);
                sum += apart;
            }
        }
        samples.push(Sample { sum, count: truth[text].len() });
        Ok(())
    })?;
    samples.retain(|sample| sample.count > 0);
    let (kld_mean, kld_stderr) = mean_and_error(&samples);
    let share = |column: &[u64]| column.iter().sum::<u64>() as f64 / sums.counts.len() as f64;
    Ok(TokensMetrics {
        tokens: sequences.iter().map(|tokens| tokens.len() as u64).sum(),
        windows: examples.len() as u64,
        labelled: sums.counts.len() as u64,
        accuracy: share(&sums.correct),
        reference_accuracy: reference.map(|_| share(&sums.reference_correct)),
        kld_mean: reference.map(|_| kld_mean),
        kld_stderr: reference.and(kld_stderr),
        top1_agreement: reference.map(|_| share(&sums.agreeing)),
        logits_sha256,
        sums,
    })
}

/// The first token of every word that is there, with the number of the word's label.
fn judged(example: &WordExample, labels: &[String]) -> Result<Vec<(usize, usize)>, EvalError> {
    let numbers = example.labels.iter().map(|label| label_id(example.line, label, labels));
    let numbers = numbers.collect::<Result<Vec<usize>, _>>()?;
    let places = example.encoded.places.iter().enumerate();
    Ok(places.filter_map(|(place, word)| Some((place, *numbers.get((*word)?)?))).collect())
}

/// Result of `slmc eval --task tokens`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "task", rename = "tokens")]
pub struct TokensReport {
    /// Quality.
    #[serde(flatten)]
    pub metrics: TokensMetrics,
    /// Sizes.
    #[serde(flatten)]
    pub subject: Subject,
}

impl Report for TokensReport {
    const SCHEMA: &'static str = super::SCHEMA;

    fn text(&self) -> String {
        let metrics = &self.metrics;
        let mut table = Table::pairs();
        table.row(["tokens", &grouped(metrics.tokens)]).row(["texts", &grouped(metrics.windows)]);
        table.row(["labelled", &grouped(metrics.labelled)]);
        number_row(&mut table, "accuracy", Some(metrics.accuracy), 4);
        number_row(&mut table, "reference_accuracy", metrics.reference_accuracy, 4);
        number_row(&mut table, "kld_mean", metrics.kld_mean, 6);
        number_row(&mut table, "kld_stderr", metrics.kld_stderr, 6);
        number_row(&mut table, "top1_agreement", metrics.top1_agreement, 5);
        self.subject.rows(&mut table);
        format!("{table}\nlogits_sha256  {}", metrics.logits_sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::super::outputs::testing::Table as Model;
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn words_are_judged_by_their_first_tokens() {
        let labels = ["O", "B-PER"].map(str::to_owned);
        let model = Model::per_token(&[&[1.0, 0.0], &[0.0, 1.0]]);
        // Special, word 0 of two tokens, word 1, special.
        let encoded =
            Encoded { tokens: vec![0, 1, 0, 0, 0], places: vec![None, Some(0), None, Some(1), None], cut: false };
        let example = |names: [&str; 2]| WordExample {
            line: 3,
            encoded: encoded.clone(),
            labels: names.iter().map(|name| Label::Name((*name).to_owned())).collect(),
        };
        let found =
            evaluate(&model, Some(&model), &[example(["B-PER", "B-PER"])], &labels, &Silent).expect("evaluates");
        assert_eq!((found.labelled, found.accuracy, found.top1_agreement), (2, 0.5, Some(1.0)));
        let error = evaluate(&model, None, &[example(["O", "B-ORG"])], &labels, &Silent).expect_err("unknown");
        assert_eq!(error.to_string(), "line 3: the model's config has no label `B-ORG`; expected one of O, B-PER");
    }
}
