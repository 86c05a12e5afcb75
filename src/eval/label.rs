//! Single texts labelled by a classifier, each with how sure it is, and where an artifact left; or asked elsewhere.

use super::classify::OUT_OF_SCOPE;
use super::error::{EvalError, Side};
use super::forward::Forward;
use super::opened::{OpenedModel, Task};
use crate::artifact::host::SessionMemory;
use crate::divergence::argmax;
use crate::machine::kernels::kernels_for;
use crate::report::{Align, Report, Table};
use crate::text::tokenizer::Tokenizer;
use serde::Serialize;
use slm_runtime::exits::confidence;
use slm_runtime::session::Session;

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

/// Result of `slmc classify`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelReport {
    /// The bound that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_below: Option<f32>,
    /// In the order of the texts.
    pub answers: Vec<Labelled>,
}

impl Report for LabelReport {
    const SCHEMA: &'static str = "slmc.classify/1";

    fn text(&self) -> String {
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

/// Labels texts one by one.
///
/// # Errors
/// [`EvalError`]: a model without labels, a text that cannot be encoded.
pub fn label(
    model: &OpenedModel,
    tokenizer: &Tokenizer,
    texts: &[String],
    route_below: Option<f32>,
) -> Result<LabelReport, EvalError> {
    if model.task != Task::Classifier {
        return Err(EvalError::NotAClassifier);
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
    Ok(LabelReport { route_below, answers })
}
