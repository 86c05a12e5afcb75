//! The result of `slmc attribute`, as a table and as JSON: input tokens with their shares in each choice, and the attention
//! of every layer and head at the position that chose.

use super::observe::Row;
use super::replacement::Replacement;
use crate::report::{Align, Report, Table, visible};
use crate::text::tokenizer::Tokenizer;
use serde::Serialize;

/// A token that was read.
#[derive(Clone, Debug, Serialize)]
pub struct InputToken {
    /// From 0.
    pub position: usize,
    /// Its id.
    pub id: u32,
    /// What it writes, or the spelling of one that writes nothing.
    pub text: String,
    /// Whether it opens the text, or is marked as special: it is not replaced and has no share.
    pub special: bool,
    /// Whether the model chose it before.
    pub generated: bool,
}

/// What one token did to a choice.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    /// Its position.
    pub position: usize,
    /// ln p with it less ln p with another in its place, in nats.
    pub change: f64,
    /// The change over the sum of all magnitudes; negative where the token spoke against the choice.
    pub share: f64,
}

/// The attention of one head at one position.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Head {
    /// Layer, counted with those that have no attention.
    pub layer: usize,
    /// Query head.
    pub head: usize,
    /// The position that attends.
    pub position: usize,
    /// The first position that it sees.
    pub first: usize,
    /// Weights of the positions from there on, as the runtime has them: 2^24 for the largest score.
    pub weights: Vec<u32>,
    /// Their sum: a weight over it is a share.
    pub total: u64,
}

impl Head {
    pub(super) fn of(row: &Row) -> Self {
        Head {
            layer: row.layer,
            head: row.head,
            position: row.position,
            first: row.first,
            weights: row.weights.clone(),
            total: row.total,
        }
    }

    /// The share of a position, 0 where it is not seen.
    pub fn share(&self, position: usize) -> f64 {
        let weight = position.checked_sub(self.first).and_then(|at| self.weights.get(at));
        weight.map_or(0.0, |&weight| f64::from(weight) / (self.total as f64).max(1.0))
    }

    /// The position with the largest share, the first of equals, with it.
    fn most(&self) -> (usize, f64) {
        let most = self.weights.iter().copied().max().unwrap_or(0);
        let at = self.first + self.weights.iter().position(|&weight| weight == most).unwrap_or(0);
        (at, self.share(at))
    }
}

/// One choice.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    /// Token, or number of the label.
    pub id: u32,
    /// What it writes, or the label's name.
    pub text: String,
    /// The position whose output it is.
    pub position: usize,
    /// In nats.
    pub log_probability: f64,
    /// Its exponential.
    pub probability: f64,
    /// What each token did, special ones left out.
    pub shares: Vec<Share>,
    /// Attention at that position, by layer and head.
    pub attention: Vec<Head>,
}

/// Result of `slmc attribute`.
#[derive(Clone, Debug, Serialize)]
pub struct AttributeReport {
    /// The file.
    pub artifact: String,
    /// `next token` or `label`.
    pub chooses: &'static str,
    /// What computed it; other kernels give the same bits.
    pub kernel: String,
    /// The prompt that the template made, where a conversation was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// What was put in the place of tokens.
    pub replacement: Replacement,
    /// Tokens read.
    pub inputs: Vec<InputToken>,
    /// In order.
    pub choices: Vec<Choice>,
    /// Attention at every position, by position, layer and head; absent unless asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matrices: Option<Vec<Head>>,
    /// What a reader should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Characters of the longest bar.
const BAR: f64 = 20.0;
/// Heads beside each other in a table of the terminal.
const HEADS_BESIDE: usize = 16;

impl Report for AttributeReport {
    const SCHEMA: &'static str = "slmc.attribute/1";

    fn text(&self) -> String {
        let mut facts = Table::pairs();
        facts.row(["artifact", &self.artifact]);
        facts.row(["kernel", &self.kernel]);
        let replacement = &self.replacement;
        facts.row(["replaced by", &format!("{}, {}", shown(&replacement.token), replacement.role.name())]);
        let mut parts = vec![facts.to_string()];
        parts.extend(self.choices.iter().map(|choice| format!("{}\n\n{}", self.shares(choice), attention(choice))));
        parts.extend(self.notes.iter().map(|note| format!("note: {note}")));
        parts.join("\n\n")
    }
}

impl AttributeReport {
    fn shares(&self, choice: &Choice) -> String {
        let mut table = Table::new([
            ("", Align::Right),
            ("token", Align::Left),
            ("change", Align::Right),
            ("share", Align::Right),
            ("", Align::Left),
        ]);
        let largest = choice.shares.iter().map(|share| share.share.abs()).fold(0.0, f64::max);
        for input in self.inputs.iter().filter(|input| self.chooses == "label" || input.position <= choice.position) {
            let (place, token) = (input.position.to_string(), shown(&input.text));
            match choice.shares.iter().find(|share| share.position == input.position) {
                Some(share) => table.row([
                    place,
                    token,
                    format!("{:+.4}", share.change),
                    format!("{:+.1} %", 100.0 * share.share),
                    bar(share.share, largest),
                ]),
                None => table.row([place, token, "-".to_owned(), "-".to_owned(), "special".to_owned()]),
            };
        }
        let Choice { text, probability, log_probability, .. } = choice;
        let chooses = self.chooses;
        format!("{chooses} {} with {:.2} % (ln p {log_probability:.4})\n{table}", shown(text), 100.0 * probability)
    }
}

/// Where each head of each layer looks first at the position that chose.
fn attention(choice: &Choice) -> String {
    let heads = choice.attention.iter().map(|head| head.head + 1).max().unwrap_or(0);
    let mut out =
        format!("attention at position {}: the position with the largest share, by layer and head", choice.position);
    for start in (0..heads).step_by(HEADS_BESIDE) {
        let beside = start..heads.min(start + HEADS_BESIDE);
        let columns = beside.clone().map(|head| (format!("head {head}"), Align::Right));
        let mut table = Table::of([("layer".to_owned(), Align::Right)].into_iter().chain(columns).collect());
        for layer in choice.attention.chunk_by(|a, b| a.layer == b.layer) {
            let cells = layer.iter().filter(|head| beside.contains(&head.head)).map(|head| {
                let (position, share) = head.most();
                format!("{position}: {:.0} %", 100.0 * share)
            });
            table.row(std::iter::once(layer[0].layer.to_string()).chain(cells));
        }
        out = format!("{out}\n{table}");
    }
    out
}

/// A share as a bar: filled where the token spoke for the choice, light where against it.
fn bar(share: f64, largest: f64) -> String {
    let length = if largest > 0.0 { (share.abs() / largest * BAR).round() as usize } else { 0 };
    if share < 0.0 { "░" } else { "█" }.repeat(length)
}

/// A token as it stands in a table: with quotes, so that its spaces are seen, and on one line.
pub(super) fn shown(text: &str) -> String {
    format!("'{}'", visible(text).replace('\n', "\\n").replace('\t', "\\t"))
}

/// What a token writes; the spelling where it writes nothing.
pub(super) fn text_of(tokenizer: &Tokenizer, vocabulary: &[Vec<u8>], id: u32) -> String {
    match vocabulary.get(id as usize) {
        Some(bytes) if !bytes.is_empty() => String::from_utf8_lossy(bytes).into_owned(),
        _ => tokenizer.spelling(id),
    }
}
