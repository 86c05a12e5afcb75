//! The result of `slmc targets`: the targets as a table, and of a single one where its numbers are from.

use super::Target;
use crate::report::{Align, Report, Table, grouped};
use serde::Serialize;

/// Result of `slmc targets`.
#[derive(Clone, Debug, Serialize)]
pub struct TargetsReport {
    /// The targets.
    pub targets: Vec<Target>,
}

impl Report for TargetsReport {
    const SCHEMA: &'static str = "slmc.targets/1";

    fn text(&self) -> String {
        let mut table = Table::new([
            ("target", Align::Left),
            ("layout", Align::Left),
            ("flash", Align::Right),
            ("RAM", Align::Right),
            ("description", Align::Left),
        ]);
        let bytes = |limit: Option<u64>| limit.map_or_else(|| "-".to_owned(), grouped);
        for target in &self.targets {
            table.row([
                target.name.as_str(),
                target.layout.name(),
                &bytes(target.flash_bytes),
                &bytes(target.usable_ram_bytes()),
                &target.description,
            ]);
        }
        let mut text = table.to_string();
        if let [target] = &self.targets[..] {
            let mut sources = Table::new([("number", Align::Left), ("source", Align::Left)]);
            for (key, source) in &target.sources {
                sources.row([key, source]);
            }
            if !sources.is_empty() {
                text = format!("{text}\n\n{sources}");
            }
        }
        text
    }
}
