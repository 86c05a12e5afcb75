//! A stage's report as a reader of its JSON sees it: numbers and words by their keys, so that a stage taken from the
//! cache shows the same as when it ran.

use crate::report::grouped;
use crate::text::file::ReadNotes;
use serde::Deserialize;
use serde_json::Value;

/// A report.
#[derive(Clone, Copy, Debug)]
pub struct Figures<'r>(pub &'r Value);

impl Figures<'_> {
    /// A number.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.0.get(key)?.as_f64()
    }

    /// A word.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    /// A count, its thousands apart.
    pub fn count(&self, key: &str) -> Option<String> {
        self.0.get(key)?.as_u64().map(grouped)
    }

    /// What was changed or left out of the files that were read: for the work itself, and for training after it.
    pub fn remarks(&self) -> Vec<String> {
        let read = ["/files_read", "/training/files_read"].into_iter().filter_map(|key| self.0.pointer(key));
        let files = read.filter_map(|files| Vec::<ReadNotes>::deserialize(files).ok()).flatten();
        files.flat_map(|notes| notes.remarks().collect::<Vec<_>>()).collect()
    }

    /// Training after a change, if there was any: `, recovered on 4,000 tokens`.
    pub fn retrained(&self, verb: &str) -> String {
        let tokens = self.0.pointer("/training/tokens").and_then(Value::as_u64);
        tokens.map_or_else(String::new, |tokens| format!(", {verb} on {} tokens", grouped(tokens)))
    }
}
