//! The thresholds and temperatures of a classifier's heads, chosen on labelled texts by what the compiled artifact says of
//! them: it is compiled once with heads that nobody leaves at, asked, and compiled again with what was chosen.
//!
//! The temperature of a head is fitted to the texts that leave there, where enough of those are answered wrongly to tell how
//! sure it may be, else to all texts.

use super::work::CompileOptions;
use crate::compile::exits::{Choice, Choosing, Heads, exits_section};
use crate::confidence::{Judged, inverse_temperature};
use crate::divergence::argmax;
use crate::eval::EvalError;
use crate::eval::classify::{Example, OUT_OF_SCOPE, truth_of};
use crate::eval::exits::{HeadRows, head_rows};
use crate::model::size::{StoredTensor, stored_tensors};
use crate::model::spec::ModelSpec;
use crate::model::weights::Model;
use crate::progress::Progress;
use crate::report::Table;
use crate::stages::StageError;
use crate::text::form::TextForm;
use crate::text::records::read_labelled;
use crate::text::tokenizer::Tokenizer;
use crate::train::samples::TEXT_FIELD;
use rayon::prelude::*;
use serde::Serialize;
use slm_runtime::exits::margin;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::exits::NEVER;
use slm_runtime::session::SessionError;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Fixed point of margins.
const ONE: f64 = 65_536.0;
/// Wrong answers among the texts of a head from which on its temperature is fitted to those texts alone.
const ENOUGH_ERRORS: usize = 12;
/// Key of labels.
const LABEL_FIELD: &str = "label";

/// A margin of logits, in 1/65536, or the one that nobody reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Margin(pub u32);

impl FromStr for Margin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Margin(NEVER));
        }
        match text.parse::<f64>() {
            Ok(value) if (0.0..=65_535.0).contains(&value) => Ok(Margin((value * ONE) as u32)),
            _ => Err(format!("`{text}` is not a margin; pass a number from 0 to 65535, or `never`")),
        }
    }
}

impl fmt::Display for Margin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == NEVER { f.write_str("never") } else { write!(f, "{}", f64::from(self.0) / ONE) }
    }
}

/// How thresholds and temperatures are chosen.
#[derive(Clone, Debug, Default)]
pub struct ExitOptions {
    /// Labelled texts.
    pub data: Option<PathBuf>,
    /// Share of accuracy that leaving may cost.
    pub loss: f64,
    /// Thresholds in the place of chosen ones.
    pub margins: Vec<Margin>,
    /// Key of the text.
    pub text: Option<String>,
    /// Key of the label.
    pub label: Option<String>,
}

/// One head of the report.
#[derive(Clone, Debug, Serialize)]
pub struct ChosenHead {
    /// Layers before it.
    pub layers: usize,
    /// Margin of logits from which on a text leaves; absent of the last head, and where none leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// T of its confidence.
    pub temperature: f64,
    /// Share of the texts that leave here; absent without texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
}

/// What was chosen.
#[derive(Clone, Debug, Serialize)]
pub struct ExitsReport {
    /// Labelled texts that it was chosen on; absent where there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub texts: Option<usize>,
    /// Accuracy on them with all layers, texts labelled `oos` aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_accuracy: Option<f64>,
    /// With leaving.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Layers computed, mean over texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_layers: Option<f64>,
    /// The heads, ascending.
    pub heads: Vec<ChosenHead>,
}

impl ExitsReport {
    /// Rows of the report.
    pub fn rows(&self, table: &mut Table) {
        if let (Some(texts), Some(layers)) = (self.texts, self.mean_layers) {
            let accuracy = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
            let (with, all) = (accuracy(self.accuracy), accuracy(self.full_accuracy));
            table.row(["exits", &format!("{layers:.3} layers, accuracy {with} of {all}, on {texts} texts")]);
        }
        let last = self.heads.len() - 1;
        for (number, head) in self.heads.iter().enumerate() {
            let leaves = match head.margin {
                Some(margin) => format!("margin from {margin:.3}"),
                None if number == last => "the others".to_owned(),
                None => "none leaves".to_owned(),
            };
            let share = head.share.map_or(String::new(), |share| format!(", {:.1} % of texts", 100.0 * share));
            let name = format!("  after {}", head.layers);
            table.row([name, format!("{leaves}{share}, T {:.3}", head.temperature)]);
        }
    }
}

/// The section before anything is known of texts: the margins that were given, else heads that nobody leaves at; `None` of a
/// model without exit heads.
pub(super) fn first_section(options: &CompileOptions, spec: &ModelSpec) -> Option<Vec<u8>> {
    let asked = &options.additions.exits;
    let needed = !spec.exits.is_empty() || asked.data.is_some();
    let temperatures = vec![1.0; spec.exits.len() + 1];
    needed.then(|| exits_section(&spec.exits, spec.layers.len(), &thresholds(asked, spec), &temperatures))
}

fn thresholds(asked: &ExitOptions, spec: &ModelSpec) -> Vec<u32> {
    match asked.margins.is_empty() {
        true => vec![NEVER; spec.exits.len()],
        false => asked.margins.iter().map(|margin| margin.0).collect(),
    }
}

/// What is chosen on the texts that are given, with its section; `view` is the artifact with the first section. `None` where
/// there is no text.
pub(super) fn chosen(
    options: &CompileOptions,
    model: &Model,
    view: &ArtifactView<'_>,
    tokenizer: &Tokenizer,
    progress: &dyn Progress,
) -> Result<Option<(Vec<u8>, ExitsReport)>, StageError> {
    let (asked, spec) = (&options.additions.exits, &model.spec);
    let labels = spec.head.labels().filter(|_| spec.is_classifier());
    let (Some(path), Some(labels)) = (&asked.data, labels) else { return Ok(None) };
    let failed = |source| StageError::Eval { path: path.clone(), source };
    let form = TextForm { field: asked.text.clone(), separator: None };
    let label_key = asked.label.as_deref().unwrap_or(LABEL_FIELD);
    let read = read_labelled(path, &form, TEXT_FIELD, label_key)?;
    let mut examples = Vec::with_capacity(read.records.len());
    for record in read.records {
        let (tokens, _) = tokenizer.encode_within(&record.text, view.spec().context as usize)?;
        examples.push(Example { line: record.line, tokens, label: record.label });
    }
    let truth = truth_of(&examples, labels).map_err(failed)?;
    progress.begin("choosing exits", examples.len() as u64, "texts");
    let one = |example: &Example| {
        let rows = head_rows(view, &example.tokens);
        progress.advance(1);
        rows
    };
    let rows = examples.par_iter().map(one).collect::<Result<Vec<HeadRows>, SessionError>>();
    progress.finish();
    let rows = rows.map_err(|error| failed(EvalError::Session(error)))?;
    let oos = labels.iter().position(|label| label == OUT_OF_SCOPE);
    let texts: Vec<Heads> = rows.iter().zip(&truth).map(|(rows, &truth)| heads(rows, truth, oos)).collect();
    let tokens = examples.iter().map(|example| example.tokens.len()).sum::<usize>() as f64 / examples.len() as f64;
    let choosing = Choosing {
        exits: &spec.exits,
        layers: spec.layers.len(),
        head_cost: head_cost(options, model, tokens)?,
        texts: &texts,
    };
    let choice = match asked.margins.is_empty() {
        true => choosing.choose(asked.loss),
        false => choosing.judged(thresholds(asked, spec)),
    };
    let temperatures = temperatures(&choice, &texts, &rows, &truth);
    let section = exits_section(&spec.exits, spec.layers.len(), &choice.thresholds, &temperatures);
    Ok(Some((section, report(&choosing, &choice, &temperatures))))
}

/// What the heads say of a text.
fn heads(rows: &HeadRows, truth: usize, oos: Option<usize>) -> Heads {
    let (last, exits) = rows.split_last().map_or((None, &rows[..]), |(last, exits)| (Some(last), exits));
    Heads {
        exits: exits.iter().map(|(_, row)| (margin(row), argmax(row) == truth)).collect(),
        right: last.is_some_and(|(_, row)| argmax(row) == truth),
        counted: Some(truth) != oos,
    }
}

/// Multiply-accumulates of an exit head over those of a mean layer at `tokens` tokens.
fn head_cost(options: &CompileOptions, model: &Model, tokens: f64) -> Result<f64, StageError> {
    let spec = &model.spec;
    let stored = stored_tensors(
        spec,
        &model.schemes(),
        &model.sparsity(),
        options.target.layout,
        options.context.unwrap_or(spec.text_context()),
        false,
    )?;
    let of = |exit: bool| {
        let is_exit = |tensor: &&StoredTensor| {
            let role = tensor.key.role as u8;
            if exit { (0x30..0x40).contains(&role) } else { (0x10..0x30).contains(&role) }
        };
        stored.iter().filter(is_exit).map(|tensor| tensor.macs_per_token(spec)).sum::<u64>() as f64
    };
    let layer = of(false) / spec.layers.len().max(1) as f64 * tokens;
    Ok(if spec.exits.is_empty() || layer == 0.0 { 0.0 } else { of(true) / spec.exits.len() as f64 / layer })
}

/// 1 / T of every head.
fn temperatures(choice: &Choice, texts: &[Heads], rows: &[HeadRows], truth: &[usize]) -> Vec<f32> {
    let heads = choice.thresholds.len() + 1;
    let of_head = |head: usize| {
        let judged = |text: usize| Judged { logits: &rows[text][head].1, truth: truth[text] };
        let here: Vec<usize> =
            (0..texts.len()).filter(|&text| Choosing::leaves(&choice.thresholds, &texts[text]) == head).collect();
        let wrong = |text: &&usize| argmax(&rows[**text][head].1) != truth[**text];
        let own = here.iter().filter(wrong).count() >= ENOUGH_ERRORS;
        let all = || (0..texts.len()).map(judged).collect();
        let taken: Vec<Judged<'_>> = if own { here.into_iter().map(judged).collect() } else { all() };
        inverse_temperature(&taken)
    };
    (0..heads).map(of_head).collect()
}

fn report(choosing: &Choosing<'_>, choice: &Choice, temperatures: &[f32]) -> ExitsReport {
    let texts = choosing.texts;
    let counted = texts.iter().filter(|text| text.counted).count();
    let share = |errors: usize| (counted > 0).then(|| 1.0 - errors as f64 / counted as f64);
    let full = texts.iter().filter(|text| text.counted && !text.right).count();
    let after = choosing.exits.iter().copied().chain([choosing.layers]);
    let heads = after.zip(temperatures).enumerate().map(|(head, (layers, inverse))| {
        let here = texts.iter().filter(|text| Choosing::leaves(&choice.thresholds, text) == head).count();
        ChosenHead {
            layers,
            margin: margin_of(choice.thresholds.get(head).copied()),
            temperature: 1.0 / f64::from(*inverse),
            share: Some(here as f64 / texts.len() as f64),
        }
    });
    ExitsReport {
        texts: Some(texts.len()),
        full_accuracy: share(full),
        accuracy: share(choice.errors),
        mean_layers: Some(choice.layers),
        heads: heads.collect(),
    }
}

fn margin_of(threshold: Option<u32>) -> Option<f64> {
    threshold.filter(|&threshold| threshold != NEVER).map(|threshold| f64::from(threshold) / ONE)
}

/// What an artifact without labelled texts has; `None` of a model without exit heads.
pub(super) fn unjudged(view: &ArtifactView<'_>) -> Option<ExitsReport> {
    let last = view.spec().layers;
    let heads: Vec<ChosenHead> = view
        .heads()
        .map(|head| ChosenHead {
            layers: head.layers as usize,
            margin: margin_of(Some(head.threshold).filter(|_| head.layers < last)),
            temperature: 1.0 / f64::from(head.inverse_temperature),
            share: None,
        })
        .collect();
    let nothing = ExitsReport { texts: None, full_accuracy: None, accuracy: None, mean_layers: None, heads };
    (!nothing.heads.is_empty()).then_some(nothing)
}
