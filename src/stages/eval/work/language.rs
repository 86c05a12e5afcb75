//! Predictions of tokens: of windows of a text, of what the assistant says in conversations, of what is written of a source, and of
//! hidden tokens.

use super::{Done, Measured, Work};
use crate::eval::Forward;
use crate::eval::lm::{self, LmReport, MlmReport, Targets, next_tokens};
use crate::model::spec::Stacks;
use crate::stages::StageError;
use crate::text::conversations::{Conversations, Spoken, find_conversations};
use crate::text::documents::read_documents;
use crate::text::file::ReadNotes;
use crate::text::form::TextForm;
use crate::text::masking::Masking;
use crate::text::reasoning::find_reasoned;
use crate::text::records::TextError;
use crate::text::windows::{check_window, decoder_windows};
use crate::train::samples::{SamplesError, no_pairs};
use slm_runtime::sample::random_u64;

impl Work<'_> {
    pub(super) fn language_model(&self) -> Done {
        let Work { options, model, tokenizer, progress, .. } = *self;
        if let Some(stacks) = model.stacks {
            return self.pairs(stacks);
        }
        if let Some(conversations) = find_conversations(&options.data, options.form.field.as_deref())? {
            return self.conversations(conversations);
        }
        let documents = read_documents(&options.data, &options.form)?;
        let tokens = documents.tokens(tokenizer, &model.ends, progress)?;
        let cut = decoder_windows(&tokens, &model.opening, self.context(), options.window, usize::MAX);
        let mut windows = cut.map_err(|source| self.bad_window(source))?;
        options.windows.take(&mut windows, options.max_windows);
        let metrics = lm::evaluate_targets(self.models(), &windows, &next_tokens(&windows), progress)
            .map_err(|source| self.failed(source))?;
        let report = LmReport { metrics, answers_only: false, subject: model.subject.clone() };
        Ok((Measured::Lm(report), documents.notes))
    }

    /// Every token of the assistant, given those of the conversation before it.
    fn conversations(&self, conversations: Conversations) -> Done {
        let Work { options, model, tokenizer, progress, .. } = *self;
        if let Some(separator) = &options.form.separator {
            let (path, separator) = (options.data.clone(), separator.to_string());
            return Err(TextError::SeparatorOfRows { path, separator }.into());
        }
        check_window(&[], self.context(), options.window).map_err(|source| self.bad_window(source))?;
        let template = model.chat_template(self.directory().as_deref())?;
        let mut file = conversations.spoken(&template, tokenizer, &model.ends)?;
        let mut spoken = file.within(options.window);
        if spoken.is_empty() {
            return Err(SamplesError::NoAnswers { path: options.data.clone(), window: options.window }.into());
        }
        file.notes.warn(progress);
        options.windows.take(&mut spoken, options.max_windows);
        self.said(spoken, file.notes)
    }

    /// What is written of every source, given the source and what is written before it.
    fn pairs(&self, stacks: Stacks) -> Done {
        let Work { options, model, tokenizer, progress, .. } = *self;
        let found = match options.form == TextForm::default() {
            true => find_reasoned(&options.data, &options.records).map_err(SamplesError::from)?,
            false => None,
        };
        let records = found.ok_or_else(|| no_pairs(&options.data, "the model", &options.records))?;
        let pairs = records.pairs(&options.records, tokenizer, (stacks.start, &model.ends));
        let mut file = pairs.map_err(SamplesError::from)?;
        let lengths = |tokens: &[u32]| {
            let written = model.positions(tokens);
            Some((tokens.len() - written, written))
        };
        let mut spoken = file.fitting(lengths, self.context(), options.window);
        if spoken.is_empty() {
            return Err(SamplesError::NoAnswers { path: options.data.clone(), window: options.window }.into());
        }
        file.notes.warn(progress);
        options.windows.take(&mut spoken, options.max_windows);
        self.said(spoken, file.notes)
    }

    /// Predictions of what is said in sequences.
    fn said(&self, spoken: Vec<Spoken>, notes: ReadNotes) -> Done {
        let Work { model, progress, .. } = *self;
        let targets = |spoken: &Spoken| -> Targets {
            // An encoder gives no rows.
            let source = spoken.tokens.len() - model.positions(&spoken.tokens);
            let places = (1..spoken.tokens.len()).filter(|&place| spoken.said[place]);
            places.map(|place| (place - 1 - source, spoken.tokens[place])).collect()
        };
        let targets: Vec<Targets> = spoken.iter().map(targets).collect();
        let sequences: Vec<Vec<u32>> = spoken.into_iter().map(|spoken| spoken.tokens).collect();
        let metrics = lm::evaluate_targets(self.models(), &sequences, &targets, progress)
            .map_err(|source| self.failed(source))?;
        let report = LmReport { metrics, answers_only: true, subject: model.subject.clone() };
        Ok((Measured::Lm(report), notes))
    }

    pub(super) fn masked(&self) -> Done {
        let Work { options, model, tokenizer, progress, .. } = *self;
        let masking = Masking::of(tokenizer, model.vocabulary).ok_or(StageError::NoMask)?;
        let (mut sequences, notes) = self.sequences()?;
        let hide = |(n, tokens): (usize, &mut Vec<u32>)| masking.hide(tokens, random_u64(options.seed, n as u64));
        let targets: Vec<Targets> = sequences.iter_mut().enumerate().map(hide).collect();
        let metrics = lm::evaluate_targets(self.models(), &sequences, &targets, progress)
            .map_err(|source| self.failed(source))?;
        Ok((Measured::Mlm(MlmReport { metrics, subject: model.subject.clone() }), notes))
    }
}
