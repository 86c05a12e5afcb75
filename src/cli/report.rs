//! `slmc report`

use super::cache::CacheArgs;
use super::global::Global;
use crate::recipe::{HistoryRequest, history};
use crate::shell::{ExitStatus, Shell};
use anyhow::bail;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Compare runs over time, or list the artifacts of a run
///
/// Reads the reports that `slmc run --report json=FILE` wrote, and locks, whose results are looked up in the cache. Runs
/// stand in the order in which they are named, those of a directory in the order of their files' names: a report has no
/// date, since the same run gives the same bytes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc report reports/
  slmc report yesterday.lock recipes/llama.lock --report html=history.html
  slmc report reports/ --table --instructions artifact.cortex-m4=1154170")]
pub(super) struct Args {
    /// Directory of reports, report or lock
    #[arg(value_name = "DIR|LOCK|REPORT", required = true)]
    runs: Vec<PathBuf>,

    /// One row for every artifact of the last run of each recipe
    ///
    /// Precision, parameters, bytes, RAM, latency, accuracy. Latency is measured here where the artifact is on disk and made
    /// for this kind of machine; for devices it is the count of --instructions. Power is not measured.
    #[arg(long)]
    table: bool,

    /// Instructions per token of a device, as tests/cross/run --count prints them
    ///
    /// STAGE is the stage, the stage and its target, or the target: artifact.cortex-m4.
    #[arg(long, value_name = "STAGE=N", requires = "table", value_parser = count)]
    instructions: Vec<(String, u64)>,

    /// Write it in another format too: text, json, markdown or html
    ///
    /// KIND=FILE, as often as needed; a file that something else wrote is not replaced.
    #[arg(long, value_name = "KIND=FILE", value_parser = str::parse::<HistoryRequest>, conflicts_with = "table")]
    report: Vec<HistoryRequest>,

    #[command(flatten)]
    cache: CacheArgs,
}

fn count(text: &str) -> Result<(String, u64), String> {
    let parsed = text.rsplit_once('=').and_then(|(name, count)| Some((name.to_owned(), count.parse().ok()?)));
    parsed.filter(|(name, _): &(String, u64)| !name.is_empty()).ok_or_else(|| format!("`{text}` is not STAGE=N"))
}

impl Args {
    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let report = history(&self.runs, &self.cache.options(), shell)?;
        if !self.table {
            report.write(&self.report)?;
            shell.result(&report)?;
            return Ok(ExitStatus::Success);
        }
        let instructions: BTreeMap<String, u64> = self.instructions.iter().cloned().collect();
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let table = report.table(&instructions, global.threads.unwrap_or(cores), shell);
        if table.rows.is_empty() {
            bail!("none of these runs has an artifact whose report is known");
        }
        let is_unknown = |name: &str| !table.rows.iter().any(|row| row.is_called(name));
        if let Some((name, _)) = self.instructions.iter().find(|(name, _)| is_unknown(name)) {
            bail!("--instructions {name}=…: no artifact is called so, nor its target");
        }
        shell.result(&table)?;
        Ok(ExitStatus::Success)
    }
}
