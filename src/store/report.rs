//! What `slmc cache` says of the store of this machine.

use super::clean::{Cleaned, Listed, Verified};
use crate::report::{Align, Report, Table, grouped};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// Result of `slmc cache list`.
#[derive(Clone, Debug, Serialize)]
pub struct ListReport {
    /// The directory.
    pub cache: PathBuf,
    /// The entry used last first.
    pub entries: Vec<ListedEntry>,
    /// Sum over all entries; a blob that several have counts for each.
    pub bytes: u64,
}

/// One entry.
#[derive(Clone, Debug, Serialize)]
pub struct ListedEntry {
    /// Its name.
    pub key: String,
    /// The stage's subcommand.
    pub kind: String,
    /// Bytes of its outputs.
    pub bytes: u64,
    /// Time that the stage took.
    pub seconds: f64,
    /// Class of the f32 work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numerics: Option<String>,
    /// Name and version of the program.
    pub made_by: String,
    /// Since it was used.
    pub unused_seconds: u64,
    /// Whether it is signed.
    pub signed: bool,
}

impl ListReport {
    /// The report on a store's entries.
    pub fn new(cache: PathBuf, listed: Vec<Listed>) -> Self {
        let bytes = listed.iter().map(|listed| listed.bytes).sum();
        let entry = |Listed { key, about, bytes, unused, signed }: Listed| ListedEntry {
            key: key.to_string(),
            kind: about.kind,
            bytes,
            seconds: about.seconds,
            numerics: about.numerics,
            made_by: about.made_by,
            unused_seconds: unused.as_secs(),
            signed,
        };
        ListReport { cache, entries: listed.into_iter().map(entry).collect(), bytes }
    }
}

/// A time in the largest unit that it fills.
fn age(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

impl Report for ListReport {
    const SCHEMA: &'static str = "slmc.cache.list/1";

    fn text(&self) -> String {
        let right = Align::Right;
        let mut table = Table::new([
            ("key", Align::Left),
            ("kind", Align::Left),
            ("bytes", right),
            ("seconds", right),
            ("class", Align::Left),
            ("unused for", right),
            ("made by", Align::Left),
        ]);
        for entry in &self.entries {
            table.row([
                &entry.key[..16],
                &entry.kind,
                &grouped(entry.bytes),
                &format!("{:.1}", entry.seconds),
                entry.numerics.as_deref().unwrap_or("any"),
                &age(entry.unused_seconds),
                &entry.made_by,
            ]);
        }
        let sum = format!("{}: {} entries, {} bytes", self.cache.display(), self.entries.len(), grouped(self.bytes));
        if table.is_empty() { sum } else { format!("{table}\n\n{sum}") }
    }
}

/// Result of `slmc cache verify`.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// The directory.
    pub cache: PathBuf,
    /// Entries that are sound.
    pub entries: usize,
    /// Blobs that are what their names say.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were not, and were removed.
    pub removed: Vec<PathBuf>,
    /// Entries without all of their blobs, which were removed or are on a shared cache; a run fetches them or makes them anew.
    pub incomplete: Vec<String>,
}

impl VerifyReport {
    /// The report on a verified store.
    pub fn new(cache: PathBuf, verified: Verified) -> Self {
        let Verified { entries, blobs, bytes, damaged, incomplete } = verified;
        let incomplete = incomplete.iter().map(ToString::to_string).collect();
        VerifyReport { cache, entries, blobs, bytes, removed: damaged, incomplete }
    }

    /// Whether nothing was damaged.
    pub fn sound(&self) -> bool {
        self.removed.is_empty()
    }
}

impl Report for VerifyReport {
    const SCHEMA: &'static str = "slmc.cache.verify/1";

    fn text(&self) -> String {
        let mut lines = vec![format!(
            "{}: {} entries and {} blobs of {} bytes are sound",
            self.cache.display(),
            self.entries - self.incomplete.len(),
            self.blobs,
            grouped(self.bytes)
        )];
        lines.extend(self.removed.iter().map(|path| format!("removed, since damaged: {}", path.display())));
        lines.extend(
            self.incomplete.iter().map(|key| format!("lacks a blob, which the next run fetches or makes anew: {key}")),
        );
        lines.join("\n")
    }
}

/// Result of `slmc cache clean`.
#[derive(Clone, Debug, Serialize)]
pub struct CleanReport {
    /// The directory.
    pub cache: PathBuf,
    /// Entries removed.
    pub entries: usize,
    /// Blobs removed.
    pub blobs: usize,
    /// Bytes of these.
    pub bytes: u64,
}

impl CleanReport {
    /// The report on a cleaned store.
    pub fn new(cache: PathBuf, Cleaned { entries, blobs, bytes }: Cleaned) -> Self {
        CleanReport { cache, entries, blobs, bytes }
    }
}

impl Report for CleanReport {
    const SCHEMA: &'static str = "slmc.cache.clean/1";

    fn text(&self) -> String {
        let CleanReport { cache, entries, blobs, bytes } = self;
        format!("{}: removed {entries} entries and {blobs} blobs of {} bytes", cache.display(), grouped(*bytes))
    }
}

/// A length of time as people write it: `30d`, `12h`, `90min`, `45s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age(pub Duration);

/// Text that is not a length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a length of time; write a whole number with d, h, min or s: 30d")]
pub struct NotAnAge(String);

impl std::str::FromStr for Age {
    type Err = NotAnAge;

    fn from_str(text: &str) -> Result<Self, NotAnAge> {
        let units = [("min", 60), ("d", 86_400), ("h", 3600), ("s", 1)];
        let age = units.iter().find_map(|(unit, seconds)| {
            let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
            Some(Age(Duration::from_secs(number.checked_mul(*seconds)?)))
        });
        age.ok_or_else(|| NotAnAge(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_units() {
        for (text, seconds) in [("30d", 2_592_000), ("12h", 43_200), ("90min", 5400), ("45s", 45)] {
            assert_eq!(text.parse(), Ok(Age(Duration::from_secs(seconds))));
        }
        for wrong in ["30", "d", "-1d", "3w", "999999999999999999d"] {
            assert!(wrong.parse::<Age>().is_err(), "{wrong}");
        }
    }
}
