//! The tasks of models with an output for every token: labels of words, and answers that stand in texts.

use super::{Done, Measured, Work};
use crate::eval::spans::{self, QuestionExample, SpansReport};
use crate::eval::token_labels::{self, TokensReport, WordExample};
use crate::text::annotated::{read_questions, read_words};
use crate::text::records::Records;

impl Work<'_> {
    /// Words with a label each.
    pub(super) fn tokens(&self) -> Done {
        let Work { options, model, tokenizer, progress, .. } = *self;
        let Records { mut records, mut notes } = read_words(&options.data, &options.form, &options.label_field)?;
        options.windows.take(&mut records, options.max_windows);
        let (mut examples, mut truncated) = (Vec::new(), 0);
        for record in records {
            let encoded = tokenizer.encode_words(&record.words, self.context())?;
            truncated += usize::from(encoded.cut);
            examples.push(WordExample { line: record.line, encoded, labels: record.labels });
        }
        notes.count_cut(truncated, self.context());
        notes.warn(progress);
        let metrics = token_labels::evaluate(model, self.against(), &examples, &model.labels, progress)
            .map_err(|source| self.failed(source))?;
        Ok((Measured::Tokens(TokensReport { metrics, subject: model.subject.clone() }), notes))
    }

    /// Questions about texts, with the answers that stand in them.
    pub(super) fn spans(&self) -> Done {
        let Work { options, model, tokenizer, progress, .. } = *self;
        let Records { mut records, mut notes } = read_questions(&options.data, &options.form, &options.label_field)?;
        options.windows.take(&mut records, options.max_windows);
        let (mut examples, mut truncated) = (Vec::new(), 0);
        for record in records {
            let encoded = tokenizer.encode_pair(&record.question, &record.text, self.context())?;
            truncated += usize::from(encoded.cut);
            examples.push(QuestionExample { encoded, text: record.text, answers: record.answers });
        }
        notes.count_cut(truncated, self.context());
        notes.warn(progress);
        let metrics =
            spans::evaluate(model, self.against(), &examples, progress).map_err(|source| self.failed(source))?;
        Ok((Measured::Spans(SpansReport { metrics, subject: model.subject.clone() }), notes))
    }
}
