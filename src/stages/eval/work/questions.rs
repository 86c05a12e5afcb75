//! Answers that a model writes to questions: labelled prompts, or records with a prompt and an answer.

use super::{Done, Measured, Work};
use crate::eval::EvalError;
use crate::eval::answers::{self, AnswerOptions, Asked};
use crate::eval::extraction::{AnswerIs, Extraction};
use crate::eval::generate::Prompt;
use crate::stages::StageError;
use crate::text::chat_template::{Conversation, Moment};
use crate::text::file::ReadNotes;
use crate::text::form::TextForm;
use crate::text::reasoning::{ReasonedFile, ReasoningForm, find_reasoned};
use crate::text::records::{LabelledRecord, has_key};
use crate::train::samples::SamplesError;
use std::path::Path;

/// The key of a question where none is named.
pub(in crate::stages) const PROMPT: &str = "prompt";

impl Work<'_> {
    pub(super) fn generate(&self) -> Done {
        let Work { options, model, reference, progress, .. } = *self;
        let directory = self.directory();
        let found = find_questions(&options.data, &options.form, &options.records, &options.label_field)?;
        let (asked, notes, reasoned) = match found {
            Some(records) => self.questions(records, directory.as_deref())?,
            None => {
                let (records, notes) = self.labelled(PROMPT)?;
                let of = |record: LabelledRecord| Asked {
                    prompt: Prompt::Text(record.text),
                    wanted: record.label.to_string(),
                };
                (records.into_iter().map(of).collect(), notes, false)
            }
        };
        notes.warn(progress);
        let own = if reasoned { AnswerIs::Line } else { AnswerIs::Whole };
        let extraction =
            Extraction { answer_is: options.answer_is.unwrap_or(own), after: options.answer_after.clone() };
        let how = AnswerOptions { tokens: options.answer_tokens, tokenizer: directory, extraction };
        let report = answers::evaluate(model, reference, &asked, &how, progress)?;
        Ok((Measured::Answers(report), notes))
    }

    /// As training on these records has it: through the chat template, where there is one, else with the line break before the
    /// answer, which a grammar of the answer has no place for. And whether any has a reasoning.
    fn questions(
        &self,
        mut file: ReasonedFile,
        directory: Option<&Path>,
    ) -> Result<(Vec<Asked>, ReadNotes, bool), StageError> {
        let Work { options, model, .. } = *self;
        options.windows.take(&mut file.records, options.max_windows);
        let template = match model.chat_template(directory) {
            Ok(_) => true,
            Err(EvalError::NoChatTemplate { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        let template = template && model.stacks.is_none();
        let prompt = |text: String| match template {
            true => Prompt::Chat(Conversation { moment: Some(Moment::from_unix(0)), ..Conversation::ask(None, &text) }),
            false if model.stacks.is_some() => Prompt::Text(text),
            false => Prompt::Text(text + "\n"),
        };
        let reasoned = file.records.iter().any(|record| record.reasoning.is_some());
        let notes = file.notes().clone();
        let asked =
            file.records.into_iter().map(|record| Asked { prompt: prompt(record.prompt), wanted: record.answer });
        Ok((asked.collect(), notes, reasoned))
    }
}

/// The records with a prompt and an answer of a file, where their keys are named, or where it holds such and no labels, and no
/// text is named.
pub(in crate::stages) fn find_questions(
    file: &Path,
    form: &TextForm,
    records: &ReasoningForm,
    label: &str,
) -> Result<Option<ReasonedFile>, StageError> {
    if !records.is_asked() && (*form != TextForm::default() || has_key(file, label)?) {
        return Ok(None);
    }
    Ok(find_reasoned(file, records).map_err(SamplesError::from)?)
}
