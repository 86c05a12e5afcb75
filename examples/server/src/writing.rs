//! The tokens of an answer as they come: chosen, noted, and handed out as text, until the text ends, is long enough, or
//! nobody reads it any more.

use crate::model::Model;
use crate::text::Text;
use crate::worker::{Event, Generate};
use slm_runtime::sample::{choose_after, mark, seen_words};
use slm_runtime::text::TextDecoder;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// Why there are no more tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The model ended the text, or a stop sequence did.
    Stop,
    /// As many as were asked for, or as the context holds.
    Length,
    /// The client went away, or the server is stopping.
    Gone,
}

/// An answer under way.
pub struct Writing<'w> {
    model: &'w Model,
    request: &'w Generate,
    reply: &'w UnboundedSender<Event>,
    halted: &'w AtomicBool,
    /// The ids added.
    pub tokens: Vec<u32>,
    /// The set of the sequence's tokens, prompt included.
    pub seen: Vec<u32>,
    /// Why the last token was the last.
    pub end: End,
    text: Text,
    decoder: TextDecoder<'static>,
    times: Times,
}

/// When the first token came, and the last.
#[derive(Default)]
struct Times(Option<(Instant, Instant)>);

impl Times {
    /// A token was added.
    fn added(&mut self, now: Instant) {
        self.0 = Some((self.0.map_or(now, |(first, _)| first), now));
    }

    /// The text ended. The token that ends it is not among those added, so that its time is not theirs; where it is the first,
    /// it is what was waited for.
    fn ended(&mut self, now: Instant) {
        self.0.get_or_insert((now, now));
    }

    /// From the first to the last.
    fn rest(&self) -> Duration {
        self.0.map_or(Duration::ZERO, |(first, last)| last - first)
    }
}

impl<'w> Writing<'w> {
    /// An answer without tokens.
    pub fn new(
        model: &'w Model,
        request: &'w Generate,
        reply: &'w UnboundedSender<Event>,
        halted: &'w AtomicBool,
    ) -> Self {
        let mut seen = vec![0; seen_words(model.view.spec().vocabulary as usize)];
        request.prompt.iter().for_each(|&token| mark(&mut seen, token));
        let (text, decoder) = (Text::new(&request.stop), TextDecoder::new(&model.view));
        let (tokens, end) = (Vec::new(), End::Length);
        Writing { model, request, reply, halted, tokens, seen, end, text, decoder, times: Times::default() }
    }

    /// Whether nobody waits for more.
    pub fn is_gone(&self) -> bool {
        self.reply.is_closed() || self.halted.load(Ordering::Relaxed)
    }

    /// Chooses the next token by its logits; `None` where it is the last, or ends the text.
    pub fn choose(&mut self, logits: &[f32]) -> Option<u32> {
        let Generate { sampling, seed, most, .. } = self.request;
        let token = choose_after(logits, &self.seen, sampling, *seed, self.tokens.len() as u64);
        if self.model.view.end_tokens().contains(token) {
            self.stop();
            return None;
        }
        (self.add(token) && self.tokens.len() < *most).then_some(token)
    }

    /// The model ended the text.
    pub fn stop(&mut self) -> End {
        self.times.ended(Instant::now());
        self.end = End::Stop;
        self.end
    }

    /// Adds a token; `false` where it is the last.
    pub fn add(&mut self, token: u32) -> bool {
        self.times.added(Instant::now());
        self.tokens.push(token);
        mark(&mut self.seen, token);
        let bytes = match self.request.at_start {
            true => self.decoder.next(token),
            false => self.model.view.token_bytes(token),
        };
        let (text, stopped) = self.text.push(bytes);
        self.send(text);
        if stopped {
            self.end = End::Stop;
        } else if self.is_gone() {
            self.end = End::Gone;
        }
        !stopped && self.end != End::Gone
    }

    /// Hands out what was held back.
    pub fn close(&mut self) {
        let text = self.text.end();
        self.send(text);
    }

    /// When the first token came, and how long the others took.
    pub fn times(&self) -> (Option<Instant>, Duration) {
        (self.times.0.map(|(first, _)| first), self.times.rest())
    }

    fn send(&self, text: String) {
        if !text.is_empty() {
            // Whoever does not listen any more is noticed by `is_gone`.
            let _ = self.reply.send(Event::Text(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_takes_no_time_from_the_tokens_before() {
        let (begin, step) = (Instant::now(), Duration::from_millis(10));
        for count in 1..5 {
            let mut times = Times::default();
            (0..count).for_each(|token| times.added(begin + token * step));
            times.ended(begin + count * step);
            assert_eq!((times.0.map(|(first, _)| first), times.rest()), (Some(begin), (count - 1) * step));
        }
    }

    #[test]
    fn an_end_alone_is_what_was_waited_for() {
        let (now, mut times) = (Instant::now(), Times::default());
        times.ended(now);
        assert_eq!((times.0, times.rest()), (Some((now, now)), Duration::ZERO));
    }
}
