//! The report of the texts that a model wrote.

use super::filter::Reason;
use crate::report::{Report, Table, grouped};
use crate::text::file::{ReadNotes, rows_of_files};
use serde::Serialize;

/// Result of `slmc synthesize`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SynthesisReport {
    /// Prompts that texts were written from.
    pub prompts: u64,
    /// Prompts left out, since they fill the window.
    pub prompts_too_long: u64,
    /// Texts written.
    pub texts: u64,
    /// Texts kept.
    pub kept: u64,
    /// Tokens written in the texts kept, prompts not counted.
    pub tokens: u64,
    /// Tokens written in all.
    pub tokens_written: u64,
    /// Texts that the model ended itself.
    pub ended: u64,
    /// Mean over the texts kept of the mean log-probability a token.
    pub mean_log_probability: f64,
    /// The 5, 25, 50, 75 and 95 % points of it over all texts written.
    pub log_probability_points: [f64; 5],
    /// Texts left out, by reason.
    pub dropped: Vec<Dropped>,
    /// Batches that a killed run had finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batches_resumed: Option<u64>,
    /// The file of the prompts, and the changes of reading it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files_read: Vec<ReadNotes>,
}

/// Texts left out for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dropped {
    /// Name of the reason.
    pub reason: &'static str,
    /// How many.
    pub texts: u64,
    /// The beginning of the first; absent where it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example: Option<String>,
}

/// Characters of an example.
const EXAMPLE: usize = 60;

/// Counts what was left out, with the first text of each reason.
pub(super) fn dropped(reasons: &[Option<Reason>], texts: &[Option<String>]) -> Vec<Dropped> {
    let of = |reason: Reason| {
        let mut those = (0..reasons.len()).filter(|&text| reasons[text] == Some(reason));
        let first = those.next()?;
        let example = texts[first].as_ref().map(|text| {
            let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
            line.chars().take(EXAMPLE).collect()
        });
        Some(Dropped { reason: reason.name(), texts: 1 + those.count() as u64, example })
    };
    Reason::ALL.into_iter().filter_map(of).collect()
}

impl Report for SynthesisReport {
    const SCHEMA: &'static str = "slmc.synthesize/1";

    fn text(&self) -> String {
        let mut table = Table::pairs();
        table.row(["prompts", &grouped(self.prompts)]);
        if self.prompts_too_long > 0 {
            table.row(["prompts too long", &grouped(self.prompts_too_long)]);
        }
        table.row(["texts", &grouped(self.texts)]).row(["kept", &grouped(self.kept)]);
        table.row(["tokens", &grouped(self.tokens)]).row(["ended", &grouped(self.ended)]);
        table.row(["mean_log_probability", &format!("{:.4}", self.mean_log_probability)]);
        let points: Vec<String> = self.log_probability_points.iter().map(|point| format!("{point:.2}")).collect();
        table.row(["5, 25, 50, 75, 95 % of all", &points.join(", ")]);
        for Dropped { reason, texts, example } in &self.dropped {
            let example = example.as_ref().map(|example| format!(", such as: {example}")).unwrap_or_default();
            table.row([&format!("left out: {reason}"), &format!("{}{example}", grouped(*texts))]);
        }
        rows_of_files(&self.files_read, &mut table);
        table.to_string()
    }
}
