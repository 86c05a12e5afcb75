//! The report of `slmc trim`: what stays, how it covers the data, and what it saves.

use crate::report::{Align, Report, Table, grouped};
use crate::text::trimming::Coverage;
use serde::Serialize;

/// Result of `slmc trim`.
#[derive(Clone, Debug, Serialize)]
pub struct TrimReport {
    /// Rows of the token table before.
    pub vocabulary_before: usize,
    /// Likewise after.
    pub vocabulary_after: usize,
    /// Special and added tokens.
    pub special: usize,
    /// Tokens of one byte.
    pub bytes: usize,
    /// Tokens of one character, where bytes do not spell them.
    pub characters: usize,
    /// How the data is spelled before and after; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// Weights before, a tied table once.
    pub parameters_before: u64,
    /// Likewise after.
    pub parameters_after: u64,
    /// Bytes of the weights before, as they are written.
    pub weight_bytes_before: u64,
    /// Likewise after.
    pub weight_bytes_after: u64,
}

impl Report for TrimReport {
    const SCHEMA: &'static str = "slmc.trim/1";

    fn text(&self) -> String {
        let mut table =
            Table::new([("", Align::Left), ("before", Align::Right), ("after", Align::Right), ("", Align::Left)]);
        let mut row = |name: &str, before: String, after: String, note: &str| {
            table.row([name, &before, &after, note]);
        };
        let count = |count: usize| grouped(count as u64);
        row("vocabulary", count(self.vocabulary_before), count(self.vocabulary_after), "");
        row("parameters", grouped(self.parameters_before), grouped(self.parameters_after), "");
        row("weight bytes", grouped(self.weight_bytes_before), grouped(self.weight_bytes_after), "");
        if let Some(coverage) = &self.coverage {
            let percent = |share: f64| format!("{:.3} %", 100.0 * share);
            row("tokens of the data", grouped(coverage.tokens_before), grouped(coverage.tokens_after), "");
            let per_byte = |tokens: u64| format!("{:.4}", tokens as f64 / coverage.text_bytes.max(1) as f64);
            row("tokens per byte", per_byte(coverage.tokens_before), per_byte(coverage.tokens_after), "");
            row("tokens kept", String::new(), percent(coverage.kept), "of the data's tokens before");
            if let (Some(before), Some(after)) = (coverage.bytes_before, coverage.bytes_after) {
                row("byte by byte", percent(before), percent(after), "of the data's bytes");
            }
            if let (Some(before), Some(after)) = (coverage.unknown_before, coverage.unknown_after) {
                row("unknown", percent(before), percent(after), "of the data's tokens");
            }
        }
        format!(
            "{table}\n\nalways kept: {} special tokens, {} bytes, {} characters",
            count(self.special),
            count(self.bytes),
            count(self.characters)
        )
    }
}
