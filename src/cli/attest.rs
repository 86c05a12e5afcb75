//! `slmc attest`

use crate::attest::{AttestOptions, Builder, Results, attest};
use crate::shell::{ExitStatus, Shell};
use crate::trust::SecretKey;
use std::path::PathBuf;

/// State how an artifact was made and which gates it passed, signed
///
/// Writes SLSA provenance and, with the result of its run, an in-toto test result as Sigstore bundles beside the artifact, and the
/// envelopes of both as FILE.slm.intoto.jsonl. cosign, sigstore-js and `slmc verify --bundle` verify them offline with the public key.
/// Everything comes from the provenance that the artifact carries; there is no time in it unless you pass one, so that the same
/// artifact attested twice gives the same bytes. docs/attest.md describes every field. Sign the artifact first: that changes it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc keygen --type p256 -o release
  slmc attest out/mixed.slm --key release.pem --builder-id https://ci.example.com/release
  slmc run mine.toml --report json=run.json
  slmc attest out/mine/artifact.slm --key env:SLMC_ATTEST_KEY --result run.json --recipe mine.toml
  slmc attest out/mixed.slm --predicate-only")]
pub(super) struct Args {
    /// Artifact written by `slmc compile`, its host part included
    #[arg(value_name = "FILE.slm")]
    artifact: PathBuf,

    /// Secret key of ECDSA P-256: a path, file:PATH, env:VAR or pkcs11:…
    // A key that is passed itself begins with hyphens: it must not come back in a message about an unknown option.
    #[arg(long, value_name = "KEY", required_unless_present = "predicate_only", allow_hyphen_values = true)]
    key: Option<String>,

    /// Result of the run that made the artifact, for its gates
    ///
    /// As `slmc run --json` and `slmc run --report json=FILE` write it. The run must have made this file.
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,

    /// Recipe of that run, to be named by its hash
    #[arg(long, value_name = "RECIPE")]
    recipe: Option<PathBuf>,

    /// URI that names who builds [default: in GitHub Actions the workflow, else not named]
    #[arg(long, value_name = "URI")]
    builder_id: Option<String>,

    /// Name of this build, such as the address of its log
    #[arg(long, value_name = "TEXT")]
    invocation_id: Option<String>,

    /// When the build ended, YYYY-MM-DDThh:mm:ssZ
    #[arg(long, value_name = "TIME")]
    finished_on: Option<String>,

    /// Write the predicates alone, for a service that signs them
    #[arg(long, conflicts_with = "key")]
    predicate_only: bool,

    /// Directory for the files [default: that of the artifact]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let builder = Builder {
            id: self.builder_id.clone(),
            invocation_id: self.invocation_id.clone(),
            finished_on: self.finished_on.clone(),
        };
        let options = AttestOptions {
            artifact: self.artifact.clone(),
            results: self.result.as_deref().map(Results::read).transpose()?,
            recipe: self.recipe.clone(),
            builder: builder.checked(&|name| std::env::var(name).ok())?,
            out: self.out.clone(),
        };
        let key = self.key.as_deref().map(SecretKey::read).transpose()?;
        if let Some(warning) = key.as_ref().and_then(SecretKey::warning) {
            shell.warn(warning);
        }
        let report = attest(&options, key.as_ref())?;
        if !report.signed {
            shell.warn(format_args!(
                "{}: is not signed; signing changes the file, and what was stated is then about another",
                report.artifact.display()
            ));
        }
        shell.result(&report)?;
        Ok(ExitStatus::Success)
    }
}
