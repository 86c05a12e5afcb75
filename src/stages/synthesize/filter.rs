//! Which of the texts that a model wrote are kept. Each is left out for the first reason that holds, in the order of
//! [`Reason`]; the shares by likelihood are taken of what is left before them.
//!
//! ```text
//! repetition = 1 − distinct runs of four tokens / runs of four tokens, of what was written; 0 for fewer than four
//! ```

use crate::calibrate::continuations::Continuation;
use std::collections::BTreeSet;

/// Tokens of a run.
const RUN: usize = 4;

/// Limits on texts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Smallest mean log-probability a token.
    pub least_log_probability: Option<f64>,
    /// Largest.
    pub most_log_probability: Option<f64>,
    /// Fewest tokens written.
    pub least_tokens: usize,
    /// Largest repetition.
    pub most_repetition: f64,
    /// Whether the model must have ended a text itself.
    pub only_ended: bool,
    /// Share of the texts, the least likely, that is left out.
    pub unlikely: f64,
    /// Likewise of the likeliest.
    pub likely: f64,
}

/// Why a text is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// Its tokens are no UTF-8.
    NotText,
    /// Nothing but space was written.
    Blank,
    /// Too few tokens.
    Short,
    /// Cut by the window.
    NotEnded,
    /// It repeats itself.
    Repetitive,
    /// Another text is the same.
    Duplicate,
    /// Below the least log-probability.
    Improbable,
    /// Above the largest.
    TooProbable,
    /// Among the least likely.
    LeastLikely,
    /// Among the likeliest.
    Likeliest,
}

impl Reason {
    /// Every reason, in their order.
    pub(super) const ALL: [Reason; 10] = [
        Reason::NotText,
        Reason::Blank,
        Reason::Short,
        Reason::NotEnded,
        Reason::Repetitive,
        Reason::Duplicate,
        Reason::Improbable,
        Reason::TooProbable,
        Reason::LeastLikely,
        Reason::Likeliest,
    ];

    /// As reports have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Reason::NotText => "not_text",
            Reason::Blank => "blank",
            Reason::Short => "short",
            Reason::NotEnded => "not_ended",
            Reason::Repetitive => "repetitive",
            Reason::Duplicate => "duplicate",
            Reason::Improbable => "improbable",
            Reason::TooProbable => "too_probable",
            Reason::LeastLikely => "least_likely",
            Reason::Likeliest => "likeliest",
        }
    }
}

/// The share of runs of four tokens that stand earlier in the same text.
pub(super) fn repetition(tokens: &[u32]) -> f64 {
    let runs = tokens.len().saturating_sub(RUN - 1);
    let distinct: BTreeSet<&[u32]> = tokens.windows(RUN).collect();
    if runs == 0 { 0.0 } else { 1.0 - distinct.len() as f64 / runs as f64 }
}

/// A text to judge: what was written, the prompt it is of, and its characters, where they are UTF-8.
pub(super) struct Judged<'j> {
    /// What was written.
    pub(super) written: &'j Continuation,
    /// Number of the prompt.
    pub(super) prompt: usize,
    /// What was written, as text.
    pub(super) text: Option<&'j str>,
}

/// For every text why it is left out; `None` for those that are kept.
pub(super) fn judge(texts: &[Judged<'_>], limits: &Limits) -> Vec<Option<Reason>> {
    let mut met = BTreeSet::new();
    let mut reasons: Vec<Option<Reason>> = texts
        .iter()
        .map(|judged| {
            let Some(text) = judged.text else { return Some(Reason::NotText) };
            let (written, mean) = (judged.written, judged.written.mean_log_probability());
            let holds = [
                (text.trim().is_empty(), Reason::Blank),
                (written.tokens.len() < limits.least_tokens, Reason::Short),
                (limits.only_ended && written.end.is_none(), Reason::NotEnded),
                (repetition(&written.tokens) > limits.most_repetition, Reason::Repetitive),
            ];
            let of_itself = holds.into_iter().find(|(holds, _)| *holds).map(|(_, reason)| reason);
            of_itself
                .or_else(|| (!met.insert((judged.prompt, text))).then_some(Reason::Duplicate))
                .or_else(|| limits.least_log_probability.filter(|least| mean < *least).map(|_| Reason::Improbable))
                .or_else(|| limits.most_log_probability.filter(|most| mean > *most).map(|_| Reason::TooProbable))
        })
        .collect();
    let mut left: Vec<usize> = (0..texts.len()).filter(|&text| reasons[text].is_none()).collect();
    let mean = |text: &usize| texts[*text].written.mean_log_probability();
    left.sort_by(|a, b| mean(a).total_cmp(&mean(b)).then(a.cmp(b)));
    let count = |share: f64| (share * left.len() as f64) as usize;
    let (unlikely, likely) = (count(limits.unlikely), count(limits.likely));
    for &text in &left[..unlikely] {
        reasons[text] = Some(Reason::LeastLikely);
    }
    for &text in &left[left.len() - likely..] {
        reasons[text] = Some(Reason::Likeliest);
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Limits = Limits {
        least_log_probability: None,
        most_log_probability: None,
        least_tokens: 1,
        most_repetition: 1.0,
        only_ended: false,
        unlikely: 0.0,
        likely: 0.0,
    };

    fn written(tokens: &[u32], mean: f64, ended: bool) -> Continuation {
        let count = tokens.len() + usize::from(ended);
        Continuation { tokens: tokens.to_vec(), log_probability: mean * count as f64, end: ended.then_some(0) }
    }

    fn judged(texts: &[(Continuation, usize, Option<&str>)], limits: Limits) -> Vec<Option<Reason>> {
        let texts: Vec<Judged<'_>> =
            texts.iter().map(|(written, prompt, text)| Judged { written, prompt: *prompt, text: *text }).collect();
        judge(&texts, &limits)
    }

    #[test]
    fn repetition_is_the_share_of_runs_met_before() {
        assert_eq!(repetition(&[1, 2, 3]), 0.0);
        assert_eq!(repetition(&[1, 2, 3, 4, 5]), 0.0);
        // 1111 four times: one distinct of four.
        assert_eq!(repetition(&[1; 7]), 0.75);
        // 1234 2341 3412 4123 1234
        assert!((repetition(&[1, 2, 3, 4, 1, 2, 3, 4]) - 0.2).abs() < 1e-12);
    }

    #[test]
    fn every_text_is_left_out_for_its_first_reason() {
        let texts = [
            (written(&[1, 2], -1.0, true), 0, Some("ab")),
            (written(&[1, 2], -1.0, true), 0, Some("ab")),
            (written(&[1, 2], -1.0, true), 1, Some("ab")),
            (written(&[1], -1.0, true), 0, None),
            (written(&[1], -1.0, true), 0, Some(" \n")),
            (written(&[1], -1.0, true), 0, Some("a")),
            (written(&[3, 4], -1.0, false), 0, Some("cd")),
            (written(&[1; 9], -1.0, true), 0, Some("aaaaaaaaa")),
            (written(&[5, 6], -5.0, true), 0, Some("ef")),
            (written(&[7, 8], -0.1, true), 0, Some("gh")),
        ];
        let limits = Limits {
            least_log_probability: Some(-4.0),
            most_log_probability: Some(-0.5),
            least_tokens: 2,
            most_repetition: 0.5,
            only_ended: true,
            ..NONE
        };
        let expected = [
            None,
            Some(Reason::Duplicate),
            None,
            Some(Reason::NotText),
            Some(Reason::Blank),
            Some(Reason::Short),
            Some(Reason::NotEnded),
            Some(Reason::Repetitive),
            Some(Reason::Improbable),
            Some(Reason::TooProbable),
        ];
        assert_eq!(judged(&texts, limits), expected);
        assert!(Reason::ALL.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn shares_are_of_what_is_left() {
        let texts: Vec<_> = (0..10).map(|n| (written(&[n], -f64::from(n), false), n as usize, Some("x"))).collect();
        let limits = Limits { least_log_probability: Some(-7.5), unlikely: 0.25, likely: 0.125, ..NONE };
        let reasons = judged(&texts, limits);
        let of = |reason| (0..10).filter(|&n| reasons[n] == reason).collect::<Vec<usize>>();
        assert_eq!(of(Some(Reason::Improbable)), [8, 9]);
        assert_eq!(of(Some(Reason::LeastLikely)), [6, 7]);
        assert_eq!(of(Some(Reason::Likeliest)), [0]);
        assert_eq!(of(None), [1, 2, 3, 4, 5]);
    }
}
