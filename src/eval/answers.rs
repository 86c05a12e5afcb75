//! Answers that a decoder generates to prompts, greedily, beside the answers that were wanted. Words are runs of
//! letters and digits, lower-cased; every other character that is not a space is a word of its own. Definitions:
//!
//! ```text
//! exact_match = share of answers that are the wanted ones; what of a text is its answer, and when two are the same: [`super::extraction`]
//! token_f1    = mean over answers of 2 · common / (words + wanted words), words counted with their multiplicity
//! bleu4       = BP · exp(mean over n = 1 … 4 of ln pₙ), over the whole corpus (Papineni et al. 2002); for n > 1,
//!               pₙ = (matches + 1) / (n-grams + 1) (Lin and Och 2004), so that few short answers have a score
//!               BP = min(1, exp(1 − wanted words / words))
//! ```

use super::constrained::Follow;
use super::error::EvalError;
use super::extraction::{AnswerIs, Extraction};
use super::generate::{GenerateOptions, Prompt, generate};
use super::opened::OpenedModel;
use super::speculation::Means;
use super::subject::{Subject, number_row};
use super::sums::Sums;
use crate::progress::Progress;
use crate::report::{Report, Table, grouped};
use crate::statistics::Interval;
use serde::Serialize;
use slm_runtime::sample::Sampling;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Longest n-grams that count.
const ORDER: usize = 4;

/// How near answers are to the wanted ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// Share of equal answers, in [0, 1].
    pub exact_match: f64,
    /// Mean over answers, in [0, 1].
    pub token_f1: f64,
    /// BLEU-4 of the corpus, in [0, 1].
    pub bleu4: f64,
}

/// Confidence of the interval of `exact_match`, two-sided.
const CONFIDENCE: f64 = 0.95;

/// A prompt with the answer that is wanted.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Continued as a text, or answered through the chat template.
    pub prompt: Prompt,
    /// The wanted answer.
    pub wanted: String,
}

/// How answers are made and found.
#[derive(Clone, Debug)]
pub struct AnswerOptions {
    /// Most tokens of a generated text.
    pub tokens: usize,
    /// Directory with tokenizer and template for artifacts that carry none.
    pub tokenizer: Option<PathBuf>,
    /// What of it is the answer.
    pub extraction: Extraction,
}

/// Metrics of a decoder over prompts and wanted answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "task", rename = "generate")]
pub struct AnswersReport {
    /// Tokens generated.
    pub tokens: u64,
    /// Prompts.
    pub windows: u64,
    /// Scores of the model.
    #[serde(flatten)]
    pub scores: Scores,
    /// Wilson's interval of `exact_match`, of 95 %.
    pub exact_match_interval: [f64; 2],
    /// What of a generated text is its answer.
    pub answer_is: AnswerIs,
    /// Texts in which no answer was found; they count as wrong.
    pub without_answer: u64,
    /// Scores of the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<Scores>,
    /// Share of prompts to which both give the same text, in [0, 1].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_as_reference: Option<f64>,
    /// Which answers are the wanted ones, prompt by prompt.
    pub sums: Sums,
    /// Sizes.
    #[serde(flatten)]
    pub subject: Subject,
}

impl Report for AnswersReport {
    const SCHEMA: &'static str = super::SCHEMA;

    fn text(&self) -> String {
        let mut table = Table::pairs();
        table.row(["tokens", &grouped(self.tokens)]).row(["prompts", &grouped(self.windows)]);
        number_row(&mut table, "exact_match", Some(self.scores.exact_match), 5);
        let [lower, upper] = self.exact_match_interval;
        table.row(["exact_match, 95 %", &format!("{lower:.5} to {upper:.5}")]);
        if self.without_answer > 0 {
            table.row(["without an answer", &grouped(self.without_answer)]);
        }
        number_row(&mut table, "token_f1", Some(self.scores.token_f1), 5);
        number_row(&mut table, "bleu4", Some(self.scores.bleu4), 5);
        number_row(&mut table, "reference exact_match", self.reference.map(|scores| scores.exact_match), 5);
        number_row(&mut table, "reference token_f1", self.reference.map(|scores| scores.token_f1), 5);
        number_row(&mut table, "reference bleu4", self.reference.map(|scores| scores.bleu4), 5);
        number_row(&mut table, "same_as_reference", self.same_as_reference, 5);
        self.subject.rows(&mut table);
        table.to_string()
    }
}

/// Lets the model, and the reference if there is one, answer every prompt, and compares what they answer with what is wanted.
pub fn evaluate(
    model: &OpenedModel,
    reference: Option<&OpenedModel>,
    asked: &[Asked],
    options: &AnswerOptions,
    progress: &dyn Progress,
) -> Result<AnswersReport, EvalError> {
    progress.begin("generating", asked.len() as u64, "answers");
    let (mut texts, mut others, mut generated) = (Vec::new(), Vec::new(), 0);
    for Asked { prompt, .. } in asked {
        let options = GenerateOptions {
            prompt: prompt.clone(),
            tokens: options.tokens,
            sampling: Sampling::GREEDY,
            seed: 0,
            tokenizer: options.tokenizer.clone(),
            means: Means::default(),
            follow: Follow::default(),
        };
        let (text, count) = answer(model, &options)?;
        generated += count;
        texts.push(text);
        if let Some(reference) = reference {
            others.push(self::answer(reference, &options)?.0);
        }
        progress.advance(1);
    }
    progress.finish();
    let extraction = &options.extraction;
    let same = texts.iter().zip(&others).filter(|(text, other)| text == other).count();
    let found = |texts: &[String]| texts.iter().map(|text| extraction.found(text)).collect::<Vec<_>>();
    let (answers, others) = (found(&texts), found(&others));
    let wanted: Vec<String> = asked.iter().map(|asked| extraction.wanted(&asked.wanted)).collect();
    let correct = equal(&answers, &wanted);
    let interval = Interval::of_share(correct.iter().sum::<u64>() as usize, asked.len(), (1.0 + CONFIDENCE) / 2.0);
    Ok(AnswersReport {
        tokens: generated as u64,
        windows: asked.len() as u64,
        scores: Scores::of(&answers, &wanted),
        exact_match_interval: interval.map_or([0.0, 1.0], |interval| [interval.lower, interval.upper]),
        answer_is: extraction.answer_is,
        without_answer: answers.iter().filter(|answer| answer.is_none()).count() as u64,
        reference: reference.map(|_| Scores::of(&others, &wanted)),
        same_as_reference: reference.map(|_| same as f64 / asked.len().max(1) as f64),
        sums: Sums {
            counts: vec![1; asked.len()],
            correct,
            reference_correct: if reference.is_some() { equal(&others, &wanted) } else { Vec::new() },
            ..Sums::default()
        },
        subject: model.subject.clone(),
    })
}

/// For every answer whether it is the wanted one.
fn equal(answers: &[Option<String>], wanted: &[String]) -> Vec<u64> {
    answers.iter().zip(wanted).map(|(answer, wanted)| u64::from(answer.as_ref() == Some(wanted))).collect()
}

/// The model's answer to the prompt, and its number of tokens.
fn answer(model: &OpenedModel, options: &GenerateOptions) -> Result<(String, usize), EvalError> {
    let (mut bytes, mut first) = (Vec::new(), true);
    let report = generate(model, options, &mut |part| {
        // The first part is the prompt.
        if !std::mem::take(&mut first) {
            bytes.extend_from_slice(part);
        }
        ControlFlow::Continue(())
    })?;
    Ok((String::from_utf8_lossy(&bytes).trim().to_owned(), report.tokens.len()))
}

impl Scores {
    fn of(answers: &[Option<String>], wanted: &[String]) -> Self {
        let count = answers.len().max(1) as f64;
        let of_answer = |answer: &Option<String>| words(answer.as_deref().unwrap_or_default());
        let pairs: Vec<(Vec<String>, Vec<String>)> =
            answers.iter().zip(wanted).map(|(answer, wanted)| (of_answer(answer), words(wanted))).collect();
        Scores {
            exact_match: equal(answers, wanted).iter().sum::<u64>() as f64 / count,
            token_f1: pairs.iter().map(|(answer, wanted)| token_f1(answer, wanted)).sum::<f64>() / count,
            bleu4: bleu(&pairs),
        }
    }
}

fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut inside = false;
    for character in text.chars().flat_map(char::to_lowercase) {
        if character.is_alphanumeric() {
            match words.last_mut() {
                Some(word) if inside => word.push(character),
                _ => words.push(character.to_string()),
            }
        } else if !character.is_whitespace() {
            words.push(character.to_string());
        }
        inside = character.is_alphanumeric();
    }
    words
}

fn grams(words: &[String], order: usize) -> BTreeMap<&[String], usize> {
    let mut counts = BTreeMap::new();
    for gram in words.windows(order) {
        *counts.entry(gram).or_default() += 1;
    }
    counts
}

/// N-grams of `words` that `wanted` has too, each as often as it has it at most.
fn matches(words: &[String], wanted: &[String], order: usize) -> usize {
    let wanted = grams(wanted, order);
    grams(words, order).iter().map(|(gram, &count)| count.min(wanted.get(gram).copied().unwrap_or(0))).sum()
}

fn token_f1(answer: &[String], wanted: &[String]) -> f64 {
    match answer.len() + wanted.len() {
        0 => 1.0,
        total => 2.0 * matches(answer, wanted, 1) as f64 / total as f64,
    }
}

fn bleu(pairs: &[(Vec<String>, Vec<String>)]) -> f64 {
    let total = |side: fn(&(Vec<String>, Vec<String>)) -> usize| pairs.iter().map(side).sum::<usize>() as f64;
    let (length, wanted_length) = (total(|pair| pair.0.len()), total(|pair| pair.1.len()));
    let mut logarithms = 0.0;
    for order in 1..=ORDER {
        let smoothing = if order > 1 { 1.0 } else { 0.0 };
        let found: usize = pairs.iter().map(|(answer, wanted)| matches(answer, wanted, order)).sum();
        let possible: usize = pairs.iter().map(|(answer, _)| (answer.len() + 1).saturating_sub(order)).sum();
        logarithms += libm::log((found as f64 + smoothing) / (possible as f64 + smoothing));
    }
    if length == 0.0 || !logarithms.is_finite() {
        return 0.0;
    }
    libm::exp((1.0 - wanted_length / length).min(0.0)) * libm::exp(logarithms / ORDER as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(answers: &[&str], wanted: &[&str]) -> Scores {
        let wanted: Vec<String> = wanted.iter().map(|&wanted| wanted.to_owned()).collect();
        Scores::of(&answers.iter().map(|&answer| Some(answer.to_owned())).collect::<Vec<_>>(), &wanted)
    }

    #[test]
    fn equal_answers_score_one() {
        let same = scores(&["The cat sat on the mat.", "Yes"], &["The cat sat on the mat.", "Yes"]);
        assert_eq!((same.exact_match, same.token_f1), (1.0, 1.0));
        assert!((same.bleu4 - 1.0).abs() < 1e-12);
        let none = scores(&["", "no"], &["a cat", "yes"]);
        assert_eq!((none.exact_match, none.token_f1, none.bleu4), (0.0, 0.0, 0.0));
    }

    #[test]
    fn scores_are_those_computed_by_hand() {
        // Words: the cat sat | the cat sat down. Common 3 of 3 + 4; p1 = 3/3, p2 = 3/3, p3 = 2/2, p4 = 1/1 with the
        // smoothing; brevity exp(1 − 4/3).
        let short = scores(&["The cat sat"], &["the cat sat down"]);
        assert!((short.token_f1 - 6.0 / 7.0).abs() < 1e-12 && short.exact_match == 0.0);
        assert!((short.bleu4 - (-1.0f64 / 3.0).exp()).abs() < 1e-12);
        // A word counts as often as it is wanted: the the the | the cat: 1 common of 3 + 2.
        let repeated = scores(&["the the the"], &["the cat"]);
        assert!((repeated.token_f1 - 0.4).abs() < 1e-12);
        // p1 = 1/3, p2 = 1/3, p3 = 1/2, p4 = 1/1, no brevity penalty.
        assert!((repeated.bleu4 - (1.0f64 / 3.0 / 3.0 / 2.0).powf(0.25)).abs() < 1e-12);
        assert_eq!(words("It's 3 pm."), ["it", "'", "s", "3", "pm", "."]);
    }
}
