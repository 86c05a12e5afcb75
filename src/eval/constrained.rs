//! A continuation that follows a grammar: of the tokens that it allows the sampler chooses one, tokens without an
//! alternative are taken without a choice and read together, and of the head only the rows of allowed tokens are computed.

use super::continuation::{Added, Choice, Continuation, Writing, check_prompt};
use super::error::EvalError;
use super::generate::Stop;
use super::opened::OpenedModel;
use crate::text::constraint::Constraint;
use crate::text::tokenizer::Tokenizer;
use crate::text::vocabulary::vocabulary_section;
use serde::Serialize;
use slm_runtime::format::grammar::{GrammarTables, TokenBytes};
use slm_runtime::format::special_tokens::TokenList;
use slm_runtime::grammar::Grammar;
use slm_runtime::sample::choose_among;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Instant;

/// Tokens that are taken without a choice at once, at most.
const FORCED: usize = 64;

/// What outputs follow.
#[derive(Clone, Debug, Default)]
pub enum Follow {
    /// The grammar of the artifact, where it carries one.
    #[default]
    Own,
    /// Nothing.
    Free,
    /// This one.
    Constraint(Constraint),
}

/// What a grammar did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FollowedReport {
    /// Whether the text is complete: it follows the grammar to its end.
    pub complete: bool,
    /// Tokens that were the only ones possible, and not computed.
    pub forced: usize,
}

/// A grammar with all it refers to, for a model.
#[derive(Clone, Debug)]
pub struct Followed {
    section: Vec<u8>,
    /// Offsets of the tokens' bytes, then the bytes.
    tokens: Vec<u8>,
    ends: Vec<u8>,
    count: u32,
    /// What its author should know.
    pub notes: Vec<String>,
}

impl Followed {
    /// The grammar that outputs follow; `None` where they are free. `vocabulary` has the bytes of every token.
    ///
    /// # Errors
    /// A grammar that is refused.
    pub fn of(
        model: &OpenedModel,
        tokenizer: &Tokenizer,
        vocabulary: &[Vec<u8>],
        follow: &Follow,
    ) -> Result<Option<Followed>, EvalError> {
        let (section, notes) = match follow {
            Follow::Free => return Ok(None),
            Follow::Own => match model.grammar()? {
                Some(section) => (section, Vec::new()),
                None => return Ok(None),
            },
            Follow::Constraint(constraint) => {
                let compiled = constraint.compile(tokenizer, vocabulary, &model.ends)?;
                (compiled.section, compiled.notes)
            }
        };
        let ends = model.ends.iter().flat_map(|token| token.to_le_bytes()).collect();
        let (tokens, count) = (vocabulary_section(vocabulary), vocabulary.len() as u32);
        Ok(Some(Followed { section, tokens, ends, count, notes }))
    }

    fn grammar(&self) -> Result<Grammar<'_>, EvalError> {
        let tables = GrammarTables::read(&self.section, self.count).map_err(EvalError::Grammar)?;
        Ok(Grammar::new(tables, TokenBytes::new(&self.tokens, self.count), TokenList::new(&self.ends)))
    }
}

impl Continuation<'_, '_> {
    /// As [`Continuation::go_on`], by a grammar that begins with the first token added.
    pub(super) fn go_on_by(
        &mut self,
        followed: &Followed,
        prompt: &[u32],
        choice: &Choice,
        emit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(Added, FollowedReport), EvalError> {
        check_prompt(prompt, self.model)?;
        let grammar = followed.grammar()?;
        let (mut state, mut words) = (grammar.start(), vec![0; grammar.words()]);
        let reused = self.recall(prompt)?;
        let mut pending = prompt[reused..].to_vec();
        let mut report = FollowedReport::default();
        let context = self.model.most_tokens(prompt);
        let vocabulary = Rc::clone(&self.vocabulary);
        // The grammar is of all bytes: a space that the text begins with is one that it asks for.
        let mut writing = Writing::new(self.model, &vocabulary, None, choice, emit);
        writing.added.reused = reused;
        writing.see(prompt);
        let (mut start, mut drawn) = (None, 0);
        writing.added.stop = loop {
            // The last token that is said need not be read, so it may be one more than the context.
            let left = (context + 1).saturating_sub(self.read.len() + pending.len());
            let room = choice.tokens.saturating_sub(writing.added.tokens.len()).min(left).min(FORCED);
            let mut run = [0; FORCED];
            let count = grammar.forced(&mut state, &mut run[..room]);
            let mut closed = false;
            for &token in &run[..count] {
                closed |= writing.add(token).is_break();
            }
            report.forced += count;
            pending.extend(&run[..count]);
            if closed {
                break Stop::Closed;
            }
            if grammar.is_complete(&state) {
                break Stop::End;
            }
            if writing.added.tokens.len() >= choice.tokens {
                break Stop::Length;
            }
            if self.read.len() + pending.len() > context {
                break Stop::Context;
            }
            if count == FORCED {
                continue;
            }
            if grammar.allowed(&state, &mut words) == 0 {
                // The text may end, and the model has no token that says so.
                break if grammar.is_accepting(&state) { Stop::End } else { return Err(EvalError::GrammarStuck) };
            }
            let logits = self.step_allowed(&pending, &words)?;
            start.get_or_insert_with(Instant::now);
            pending.clear();
            let seen = writing.seen();
            let token = choose_among(&logits, &words, seen, &choice.sampling, choice.seed, drawn);
            let token = token.ok_or(EvalError::GrammarStuck)?;
            drawn += 1;
            grammar.advance(&mut state, token).map_err(|_| EvalError::GrammarStuck)?;
            if self.model.ends.contains(&token) {
                break Stop::End;
            }
            pending.push(token);
            if writing.add(token).is_break() {
                break Stop::Closed;
            }
        };
        report.complete = grammar.is_accepting(&state);
        let mut added = writing.added;
        if let Some(start) = start.filter(|_| added.tokens.len() > 1) {
            added.tokens_per_s = (added.tokens.len() - 1) as f64 / start.elapsed().as_secs_f64();
        }
        Ok((added, report))
    }
}
