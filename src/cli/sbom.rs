//! `slmc sbom`

use crate::attest::{Results, SbomOptions, sbom};
use crate::shell::{ExitStatus, Shell};
use clap::ValueEnum;
use std::path::PathBuf;

/// List what an artifact is made of, as CycloneDX
///
/// The model with its architecture, limits and measured quality; every model, data set and file that it was made from, by hash;
/// slmc as the tool. It comes from the provenance that the artifact carries. What slmc cannot know is listed as missing, and
/// options fill in what you know (docs/attest.md).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc sbom out/mixed.slm --format cyclonedx --supplier 'Example GmbH' --licence Apache-2.0
  slmc sbom out/mine/artifact.slm --format cyclonedx --result run.json -o release/model.cdx.json")]
pub(super) struct Args {
    /// Artifact written by `slmc compile`, its host part included
    #[arg(value_name = "FILE.slm")]
    artifact: PathBuf,

    /// Format of the list
    #[arg(long, value_name = "FORMAT", value_enum)]
    format: Format,

    /// Result of the run that made the artifact, for measured quality and names of inputs
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,

    /// Who supplies the artifact
    #[arg(long, value_name = "NAME")]
    supplier: Option<String>,

    /// Its licence, as an SPDX expression
    #[arg(long, visible_alias = "license", value_name = "EXPRESSION")]
    licence: Option<String>,

    /// Its version
    #[arg(long, value_name = "TEXT")]
    model_version: Option<String>,

    /// When the list is made, YYYY-MM-DDThh:mm:ssZ
    #[arg(long, value_name = "TIME")]
    timestamp: Option<String>,

    /// File to write [default: FILE.slm.cdx.json]
    #[arg(short, long, value_name = "OUT")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// CycloneDX 1.6, JSON
    Cyclonedx,
    /// SPDX: not written, since its AI profile demands a release time, supplier, download address and licences for every model
    Spdx,
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        if let Format::Spdx = self.format {
            anyhow::bail!(
                "--format spdx: the AI profile of SPDX 3.0 demands release time, supplier, download address and licences of every \
                 model, which slmc does not know and does not make up; pass --format cyclonedx"
            );
        }
        let report = sbom(&SbomOptions {
            artifact: self.artifact.clone(),
            results: self.result.as_deref().map(Results::read).transpose()?,
            supplier: self.supplier.clone(),
            licence: self.licence.clone(),
            version: self.model_version.clone(),
            timestamp: self.timestamp.clone(),
            out: self.out.clone(),
        })?;
        shell.result(&report)?;
        Ok(ExitStatus::Success)
    }
}
