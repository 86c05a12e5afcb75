//! What `slmc audit` found.

use super::seals::Seals;
use crate::report::{Report, Table, grouped};
use serde::Serialize;
use std::path::PathBuf;

/// Something about a sound log that should not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Number of the record.
    pub record: u64,
    /// `time`, `seal`, `artifact` or `replay`.
    pub about: &'static str,
    /// What was found.
    pub fault: String,
}

/// Records of one artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoggedArtifact {
    /// Its `device_digest`.
    pub device_digest: String,
    /// The file, where it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Records that name it.
    pub records: usize,
}

/// What became of the questions that were asked again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReplaySummary {
    /// Answers that are the logged ones.
    pub same: usize,
    /// Answers that are not; each is a finding.
    pub differing: usize,
    /// Questions that were not asked again, by the reason.
    pub left: Vec<(String, usize)>,
}

/// Result of `slmc audit`.
#[derive(Clone, Debug, Serialize)]
pub struct AuditReport {
    /// The log.
    pub log: PathBuf,
    /// Records, all of them sound and each after the one before it.
    pub records: usize,
    /// Number of the first.
    pub first: u64,
    /// Inferences among them.
    pub inferences: usize,
    /// First and last time that is known; absent where none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<[u64; 2]>,
    /// What stands for the log: the `--head` of a later check.
    pub head: String,
    /// The record that the given head is of; absent where none was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_is_of: Option<u64>,
    /// Seals.
    #[serde(flatten)]
    pub seals: Seals,
    /// Artifacts that records name.
    pub artifacts: Vec<LoggedArtifact>,
    /// Answers computed again; absent without `--replay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplaySummary>,
    /// What should not be.
    pub findings: Vec<Finding>,
    /// Whether there is nothing of that.
    pub passed: bool,
}

impl Report for AuditReport {
    const SCHEMA: &'static str = "slmc.audit/1";

    fn text(&self) -> String {
        let mut facts = Table::pairs();
        let last = self.first.saturating_add(self.records as u64 - 1);
        facts
            .row(["records", &format!("{}, numbers {} to {last}, unbroken", grouped(self.records as u64), self.first)]);
        facts.row(["inferences", &grouped(self.inferences as u64)]);
        if let Some([from, to]) = self.times {
            facts.row(["times", &format!("{from} to {to}")]);
        }
        facts.row(["head", &self.head]);
        if let Some(record) = self.head_is_of {
            let after = last - record;
            let words = match after {
                0 => "the given head is of the last record".to_owned(),
                _ => format!("the given head is of record {record}; {} came after it", grouped(after)),
            };
            facts.row(["", &words]);
        }
        let Seals { seals, checked, unsealed_records, left_out_seals, .. } = self.seals;
        facts.row([
            "seals",
            &match (seals, checked) {
                (0, _) => "none".to_owned(),
                (_, 0) => format!("{}, not checked; --log-key KEY checks them", grouped(seals as u64)),
                _ => format!(
                    "{} hold; {} records came after the last",
                    grouped(seals as u64),
                    grouped(unsealed_records as u64)
                ),
            },
        ]);
        if left_out_seals > 0 {
            let words = format!("{} numbers of the key have no seal; a start leaves out one", grouped(left_out_seals));
            facts.row(["", &words]);
        }
        for artifact in &self.artifacts {
            let name = artifact.file.as_ref().map_or("not given".to_owned(), |file| file.display().to_string());
            let records = grouped(artifact.records as u64);
            facts.row(["artifact", &format!("{} ({name}), {records} records", artifact.device_digest)]);
        }
        if let Some(replay) = &self.replay {
            let (same, differing) = (grouped(replay.same as u64), grouped(replay.differing as u64));
            facts.row(["replayed", &format!("{same} answers are the logged ones, {differing} are not")]);
            for (reason, count) in &replay.left {
                facts.row(["not replayed", &format!("{}: {reason}", grouped(*count as u64))]);
            }
        }
        for finding in &self.findings {
            facts.row([&format!("record {}", finding.record), &finding.fault]);
        }
        facts.to_string()
    }
}
