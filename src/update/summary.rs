//! What a package holds, by op.

use crate::report::{Align, Report, Table, grouped};
use serde::Serialize;
use slm_runtime::update::package::Op;

/// The leaves that one op makes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OpSummary {
    /// `copy`, `raw`, `bitmap`, `delta`.
    pub op: &'static str,
    /// How many.
    pub leaves: u64,
    /// Bytes of the new artifact that they are.
    pub artifact_bytes: u64,
    /// Bytes of the package that their data are.
    pub package_bytes: u64,
}

/// A package.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PackageSummary {
    /// Length.
    pub package_bytes: u64,
    /// Length of the new artifact's device part, which it makes.
    pub device_bytes: u64,
    /// Length of the new artifact, host part included.
    pub file_bytes: u64,
    /// Length of the package by that of the file.
    pub share: f64,
    /// `device_digest` of the artifact that it changes.
    pub base_sha256: String,
    /// `device_digest` of the artifact that it makes.
    pub new_sha256: String,
    /// `security_counter` of the new artifact.
    pub security_counter: u64,
    /// Bytes of a leaf.
    pub leaf_bytes: u64,
    /// Bytes beside the leaves' data: head, priors, header page, chunk list, heads of records.
    pub overhead_bytes: u64,
    /// Memory that a device lends to apply it.
    pub device_memory_bytes: u64,
    /// The leaves, by op; every op has a row.
    pub ops: Vec<OpSummary>,
}

impl PackageSummary {
    /// A row for every op, without leaves yet.
    pub(super) fn no_ops() -> Vec<OpSummary> {
        Op::ALL.iter().map(|op| OpSummary { op: op.name(), ..OpSummary::default() }).collect()
    }

    fn rows(&self) -> String {
        let mut pairs = Table::pairs();
        let share = 100.0 * self.share;
        pairs.row(["package", &format!("{} bytes, {share:.1} % of the file", grouped(self.package_bytes))]);
        let (device, file) = (grouped(self.device_bytes), grouped(self.file_bytes));
        pairs.row(["new artifact", &format!("{device} bytes on the device, {file} with the host part")]);
        pairs.row(["from", &self.base_sha256]);
        pairs.row(["to", &self.new_sha256]);
        pairs.row(["security counter", &self.security_counter.to_string()]);
        pairs.row(["device memory", &format!("{} bytes", grouped(self.device_memory_bytes))]);
        let mut ops = Table::new([
            ("op", Align::Left),
            ("leaves", Align::Right),
            ("bytes made", Align::Right),
            ("bytes sent", Align::Right),
        ]);
        for row in &self.ops {
            let cells = [row.leaves, row.artifact_bytes, row.package_bytes].map(grouped);
            ops.row([row.op, &cells[0], &cells[1], &cells[2]]);
        }
        ops.row(["beside them", "", "", &grouped(self.overhead_bytes)]);
        format!("{pairs}\n\n{ops}")
    }
}

/// Result of `slmc update pack`.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct PackReport(pub PackageSummary);

impl Report for PackReport {
    const SCHEMA: &'static str = "slmc.update.pack/1";

    fn text(&self) -> String {
        self.0.rows()
    }
}

/// Result of `slmc update inspect`.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct InspectReport(pub PackageSummary);

impl Report for InspectReport {
    const SCHEMA: &'static str = "slmc.update.inspect/1";

    fn text(&self) -> String {
        self.0.rows()
    }
}
