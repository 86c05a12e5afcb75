//! Single texts labelled by a classifier, each with how sure it is, and where an artifact left; or asked elsewhere. Of a
//! classifier of tokens every token is labelled; a model of answers finds where a question is answered.

use super::classify::OUT_OF_SCOPE;
use super::error::{EvalError, Side};
use super::forward::Forward;
use super::opened::{OpenedModel, Task};
use super::spans::{self, Span};
use crate::artifact::host::SessionMemory;
use crate::divergence::argmax;
use crate::machine::kernels::kernels_for;
use crate::report::{Align, Report, Table};
use crate::text::tokenizer::Tokenizer;
use serde::Serialize;
use slm_runtime::exits::confidence;
use slm_runtime::session::Session;
use std::ops::Range;

/// One text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Labelled {
    /// As it was given.
    pub text: String,
    /// The likeliest label.
    pub label: String,
    /// Its probability.
    pub confidence: f32,
    /// Layers computed; absent of a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<usize>,
    /// Whether another is to be asked: the probability is below the bound, or the label is `oos`.
    pub ask_elsewhere: bool,
}

/// A token of a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelledToken {
    /// What it stands for.
    pub text: String,
    /// Its first byte in the text.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
    /// The likeliest label.
    pub label: String,
    /// Its probability.
    pub confidence: f32,
}

/// A text whose tokens are labelled.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelledTokens {
    /// As it was given.
    pub text: String,
    /// Without special tokens; fewer than it has where it is longer than the context.
    pub tokens: Vec<LabelledToken>,
}

/// Where a text answers the question.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FoundAnswer {
    /// The text as it was given.
    pub text: String,
    /// The likeliest answer in it; empty where no token of it is read.
    pub answer: String,
    /// Its first byte in the text.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
    /// Its probability.
    pub confidence: f32,
    /// Probability that the text has no answer.
    pub nothing: f32,
}

/// Result of `slmc classify`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelReport {
    /// The bound that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_below: Option<f32>,
    /// In the order of the texts.
    pub answers: Vec<Labelled>,
    /// Likewise, of a classifier of tokens.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<LabelledTokens>,
    /// What was asked, of a model of answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// In the order of the texts, of a model of answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spans: Vec<FoundAnswer>,
}

impl LabelReport {
    /// A table of each text with its tokens.
    fn of_tokens(&self) -> String {
        let table = |one: &LabelledTokens| {
            let mut table = Table::new([
                ("label", Align::Left),
                ("confidence", Align::Right),
                ("bytes", Align::Right),
                ("text", Align::Left),
            ]);
            for token in &one.tokens {
                let (bytes, text) = (format!("{}..{}", token.start, token.end), crate::report::visible(&token.text));
                table.row([token.label.clone(), format!("{:.4}", token.confidence), bytes, text]);
            }
            format!("{}\n{table}", crate::report::visible(&one.text))
        };
        self.tokens.iter().map(table).collect::<Vec<_>>().join("\n")
    }

    fn of_spans(&self) -> String {
        let mut table = Table::new([
            ("answer", Align::Left),
            ("confidence", Align::Right),
            ("no answer", Align::Right),
            ("bytes", Align::Right),
            ("text", Align::Left),
        ]);
        for one in &self.spans {
            let [answer, text] = [&one.answer, &one.text].map(|text| crate::report::visible(text));
            let [confidence, nothing] = [one.confidence, one.nothing].map(|value| format!("{value:.4}"));
            table.row([answer, confidence, nothing, format!("{}..{}", one.start, one.end), text]);
        }
        table.to_string()
    }
}

impl Report for LabelReport {
    const SCHEMA: &'static str = "slmc.classify/1";

    fn text(&self) -> String {
        if !self.tokens.is_empty() {
            return self.of_tokens();
        }
        if !self.spans.is_empty() {
            return self.of_spans();
        }
        let mut table = Table::new([
            ("label", Align::Left),
            ("confidence", Align::Right),
            ("layers", Align::Right),
            ("text", Align::Left),
        ]);
        for one in &self.answers {
            let layers = one.layers.map_or("-".to_owned(), |layers| layers.to_string());
            let label = if one.ask_elsewhere { format!("ask elsewhere ({})", one.label) } else { one.label.clone() };
            let text = crate::report::visible(&one.text);
            table.row([label, format!("{:.4}", one.confidence), layers, text]);
        }
        table.to_string()
    }
}

/// Labels texts one by one, or finds where each answers the question.
///
/// # Errors
/// [`EvalError`]: a model without labels, an option that is not for it, a text that cannot be encoded.
pub fn label(
    model: &OpenedModel,
    tokenizer: &Tokenizer,
    texts: &[String],
    question: Option<&str>,
    route_below: Option<f32>,
) -> Result<LabelReport, EvalError> {
    let output = match model.task {
        Task::Classifier => "labels of texts",
        Task::TokenClassifier => "labels of tokens",
        Task::Answers => "places of answers",
        _ => return Err(EvalError::NotAClassifier),
    };
    if route_below.is_some() && model.task != Task::Classifier {
        return Err(EvalError::BoundUnused { output });
    }
    let empty = LabelReport { route_below, answers: Vec::new(), tokens: Vec::new(), question: None, spans: Vec::new() };
    match (model.task, question) {
        (Task::Answers, Some(question)) => {
            let spans = texts.iter().enumerate().map(|text| find_answer(model, tokenizer, question, text));
            let spans = spans.collect::<Result<_, _>>()?;
            return Ok(LabelReport { question: Some(question.to_owned()), spans, ..empty });
        }
        (Task::Answers, None) => return Err(EvalError::NoQuestion),
        (_, Some(_)) => return Err(EvalError::QuestionUnused { output }),
        (Task::TokenClassifier, None) => {
            let tokens = texts.iter().enumerate().map(|text| label_tokens(model, tokenizer, text));
            return Ok(LabelReport { tokens: tokens.collect::<Result<_, _>>()?, ..empty });
        }
        _ => {}
    }
    let mut answers = Vec::with_capacity(texts.len());
    for (place, text) in texts.iter().enumerate() {
        let (tokens, _) = tokenizer.encode_within(text, model.context)?;
        let (number, sure, layers) = match model.as_artifact() {
            Some(file) => {
                let view = file.view()?;
                let mut memory = SessionMemory::for_artifact(&view);
                let mut session = Session::new(&view, kernels_for(view.layout()), memory.as_mut_slice())?;
                let mut number = 0;
                session.run(&tokens, &mut |_, row| number = argmax(row))?;
                (number, session.confidence(), Some(session.exit_layers()))
            }
            None => {
                let failed = |source| EvalError::Forward { side: Side::Model, first: place, last: place, source };
                let rows = model.logits(&[tokens]).map_err(failed)?;
                let row = rows.first().map_or(&[][..], Vec::as_slice);
                (argmax(row), confidence(row, 1.0), None)
            }
        };
        let label = model.labels.get(number).cloned().unwrap_or_default();
        let ask_elsewhere = route_below.is_some_and(|bound| sure < bound) || label == OUT_OF_SCOPE;
        answers.push(Labelled { text: text.clone(), label, confidence: sure, layers, ask_elsewhere });
    }
    Ok(LabelReport { answers, ..empty })
}

/// The output of one text, (tokens, columns).
fn rows(model: &OpenedModel, place: usize, tokens: Vec<u32>) -> Result<Vec<f32>, EvalError> {
    let failed = |source| EvalError::Forward { side: Side::Model, first: place, last: place, source };
    Ok(model.logits(&[tokens]).map_err(failed)?.into_iter().next().unwrap_or_default())
}

fn label_tokens(
    model: &OpenedModel,
    tokenizer: &Tokenizer,
    (place, text): (usize, &String),
) -> Result<LabelledTokens, EvalError> {
    let encoded = tokenizer.encode_places(text, model.context)?;
    let rows = rows(model, place, encoded.tokens)?;
    let labelled = |(bytes, row): (Option<Range<usize>>, &[f32])| {
        let Range { start, end } = bytes?;
        let label = model.labels.get(argmax(row)).cloned().unwrap_or_default();
        let own = text.get(start..end).unwrap_or_default().to_owned();
        Some(LabelledToken { text: own, start, end, label, confidence: confidence(row, 1.0) })
    };
    let of_tokens = encoded.places.into_iter().zip(rows.chunks_exact(model.labels.len().max(1)));
    Ok(LabelledTokens { text: text.clone(), tokens: of_tokens.filter_map(labelled).collect() })
}

fn find_answer(
    model: &OpenedModel,
    tokenizer: &Tokenizer,
    question: &str,
    (place, text): (usize, &String),
) -> Result<FoundAnswer, EvalError> {
    let encoded = tokenizer.encode_pair(question, text, model.context)?;
    let rows = rows(model, place, encoded.tokens)?;
    let found = spans::best(&rows, text, &encoded.places);
    let Span { bytes, confidence, nothing } = found.unwrap_or(Span { bytes: 0..0, confidence: 0.0, nothing: 1.0 });
    let answer = text.get(bytes.clone()).unwrap_or_default().to_owned();
    Ok(FoundAnswer { text: text.clone(), answer, start: bytes.start, end: bytes.end, confidence, nothing })
}
