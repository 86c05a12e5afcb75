//! `slmc sbom`: the materials of an artifact as one file of another tool's format, and what is missing in it.

use super::record::Record;
use super::results::Results;
use super::subject::Subject;
use super::write::beside;
use super::{AttestError, cyclonedx, provenance};
use crate::disk::atomic;
use crate::disk::hash::hex;
use crate::report::{Report, Table};
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

/// What a person knows and slmc does not.
#[derive(Clone, Debug, Default)]
pub struct SbomOptions {
    /// The artifact.
    pub artifact: PathBuf,
    /// The result of the run that made it.
    pub results: Option<Results>,
    /// Who supplies it.
    pub supplier: Option<String>,
    /// Its licence, as an SPDX expression.
    pub licence: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// When the list was made, `YYYY-MM-DDThh:mm:ssZ`.
    pub timestamp: Option<String>,
    /// File to write; beside the artifact if absent.
    pub out: Option<PathBuf>,
}

/// The file that was written.
#[derive(Clone, Debug, Serialize)]
pub struct SbomReport {
    /// The artifact.
    pub artifact: PathBuf,
    /// The file.
    pub out: PathBuf,
    /// Its SHA-256 is in it.
    pub sha256: String,
    /// Materials beside the artifact itself.
    pub components: usize,
    /// What slmc does not know, in words.
    pub missing: Vec<String>,
}

impl Report for SbomReport {
    const SCHEMA: &'static str = "slmc.sbom/1";

    fn text(&self) -> String {
        let mut table = Table::pairs();
        table.row(["artifact", &self.artifact.display().to_string()]);
        table.row(["written", &self.out.display().to_string()]);
        table.row(["components", &self.components.to_string()]);
        for (number, missing) in self.missing.iter().enumerate() {
            table.row([if number == 0 { "missing" } else { "" }, missing]);
        }
        table.to_string()
    }
}

/// Writes the materials of an artifact.
///
/// # Errors
/// [`AttestError`].
pub fn sbom(options: &SbomOptions) -> Result<SbomReport, AttestError> {
    if let Some(time) = options.timestamp.as_ref().filter(|time| !provenance::is_time(time)) {
        let fault = "is not a time; expected YYYY-MM-DDThh:mm:ssZ, such as 2026-11-30T09:30:00Z";
        return Err(AttestError::Option { option: "--timestamp", value: time.clone(), fault });
    }
    let subject = Subject::open(&options.artifact)?;
    let record = Record::of(&subject.provenance, &subject.path, options.results.as_ref())?;
    let missing = missing(options, &record);
    let gates = match &options.results {
        Some(results) => results.gates_of(&subject)?,
        None => Vec::new(),
    };
    let document = cyclonedx::document(&subject, &record, &gates, options, &missing);
    let out = options.out.clone().unwrap_or_else(|| beside(&options.artifact, None, "cdx.json"));
    let text = format!("{document}\n");
    atomic::write_file(&out, cyclonedx::MAGIC, |file| file.write_all(text.as_bytes()))?;
    Ok(SbomReport {
        artifact: options.artifact.clone(),
        out,
        sha256: hex(&subject.sha256),
        components: record.dependencies.len(),
        missing,
    })
}

/// What neither the artifact nor the options say.
fn missing(options: &SbomOptions, record: &Record) -> Vec<String> {
    let mut missing = Vec::new();
    for (given, what) in [
        (options.supplier.is_some(), "supplier (--supplier)"),
        (options.licence.is_some(), "licence of the artifact (--licence)"),
        (options.version.is_some(), "version of the artifact (--model-version)"),
        (options.timestamp.is_some(), "time at which the list was made (--timestamp)"),
        (options.results.is_some(), "measured quality and names of inputs (--result)"),
    ] {
        if !given {
            missing.push(what.to_owned());
        }
    }
    for dependency in &record.dependencies {
        let name = dependency.path.as_deref().map_or_else(|| format!("SHA-256 {}", &dependency.sha256), str::to_owned);
        missing.push(format!("supplier, version and licence of {}/{} ({name})", dependency.stage, dependency.role));
    }
    missing.extend(record.withheld.iter().map(|what| format!("hash of {what}: withheld by a private training")));
    missing.push("how the models that it is made from were trained, and on what".to_owned());
    missing.push("intended use, known risks and biases".to_owned());
    missing.push("the program and the device that run it".to_owned());
    missing
}
