//! The report of `slmc data`: what was read, taken out by which rule, and written, with a few examples of each rule.

use crate::report::{Align, Report, Table, grouped, visible};
use crate::text::file::{ReadNotes, rows_of_files};
use serde::Serialize;

/// Examples of a rule.
pub const EXAMPLES: usize = 3;
/// Characters of an example.
const EXAMPLE_CHARACTERS: usize = 80;

/// Texts and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Texts.
    pub texts: u64,
    /// Bytes of text.
    pub bytes: u64,
}

/// What one rule took out.
#[derive(Clone, Debug, Serialize)]
pub struct RuleReport {
    /// The option of the rule, or what it is.
    pub rule: &'static str,
    /// How much.
    #[serde(flatten)]
    pub taken: Amount,
    /// The first ones.
    pub examples: Vec<Example>,
}

/// One text that was taken out.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    /// Name of its file.
    pub file: String,
    /// Line or row, from 1.
    pub line: usize,
    /// Its beginning.
    pub text: String,
}

impl Example {
    /// The beginning of a text.
    pub fn of(file: &str, line: usize, text: &str) -> Self {
        let beginning: String = text.chars().take(EXAMPLE_CHARACTERS).collect();
        let more = if beginning.len() < text.len() { "…" } else { "" };
        Example { file: file.to_owned(), line, text: visible(&format!("{beginning}{more}").replace('\n', " ")) }
    }
}

/// How often something was found in what is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// A tag, a kind, or a value.
    pub name: String,
    /// Texts, or places for what was scrubbed.
    pub count: u64,
}

/// Result of `slmc data`.
#[derive(Clone, Debug, Serialize)]
pub struct DataReport {
    /// All texts that are not blank.
    pub read: Amount,
    /// Written to data.jsonl, copies counted.
    pub kept: Amount,
    /// Written to held-out.jsonl.
    pub held_out: Amount,
    /// Rules that took something out.
    pub rules: Vec<RuleReport>,
    /// Clusters of near duplicates of two texts or more, as they were before any was taken out.
    pub clusters: u64,
    /// Texts too short to be scored by the model; they stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unscored: Option<u64>,
    /// What was replaced.
    pub scrubbed: Vec<Count>,
    /// Texts of each tag.
    pub tags: Vec<Count>,
    /// Texts of each value that weights and balance are over.
    pub values: Vec<Count>,
    /// Bytes of memory that each text took while duplicates were looked for.
    pub bytes_per_text: u64,
    /// Changes and omissions of reading.
    pub files_read: Vec<ReadNotes>,
}

/// Values that the text of a report lists.
const LISTED: usize = 20;

impl Report for DataReport {
    const SCHEMA: &'static str = "slmc.data/1";

    fn text(&self) -> String {
        let mut table = Table::new([("", Align::Left), ("texts", Align::Right), ("bytes", Align::Right)]);
        let mut row = |name: &str, amount: Amount| {
            table.row([name, &grouped(amount.texts), &grouped(amount.bytes)]);
        };
        row("read", self.read);
        for rule in &self.rules {
            row(&format!("- {}", rule.rule), rule.taken);
        }
        row("kept", self.kept);
        if self.held_out.texts > 0 {
            row("held out", self.held_out);
        }
        let mut parts = vec![table.to_string()];
        let lists = [("scrubbed", &self.scrubbed), ("tag", &self.tags), ("value", &self.values)];
        for (name, counts) in lists.into_iter().filter(|(_, counts)| !counts.is_empty()) {
            let mut table = Table::new([(name, Align::Left), ("count", Align::Right)]);
            for count in counts.iter().take(LISTED) {
                table.row([visible(&count.name).as_str(), &grouped(count.count)]);
            }
            if counts.len() > LISTED {
                table.row([format!("and {} more", counts.len() - LISTED)]);
            }
            parts.push(table.to_string());
        }
        let mut examples = Table::new([("taken out by", Align::Left), ("where", Align::Left), ("text", Align::Left)]);
        for rule in &self.rules {
            for example in &rule.examples {
                examples.row([rule.rule, &format!("{}:{}", visible(&example.file), example.line), &example.text]);
            }
        }
        if !examples.is_empty() {
            parts.push(examples.to_string());
        }
        let mut notes = Table::pairs();
        rows_of_files(&self.files_read, &mut notes);
        if let Some(unscored) = self.unscored.filter(|unscored| *unscored > 0) {
            notes.row(["unscored", &format!("{} texts have nothing to predict and stay", grouped(unscored))]);
        }
        if !notes.is_empty() {
            parts.push(notes.to_string());
        }
        parts.join("\n\n")
    }
}
