//! Attestations on disk, beside the artifact or in a directory:
//!
//! ```text
//! FILE.provenance.sigstore.json, FILE.tests.sigstore.json     a bundle each
//! FILE.intoto.jsonl                                           the envelopes of both
//! FILE.provenance.json, FILE.tests.json                       the predicates alone, for whoever signs them
//! ```
//!
//! All of them are made before the first is written.

use super::results::Results;
use super::subject::Subject;
use super::{AttestError, Builder, gates, provenance, record::Record};
use crate::disk::atomic;
use crate::disk::hash::{file_sha256, hex};
use crate::report::{Align, Report, Table};
use crate::trust::statement::{Resource, Statement};
use crate::trust::{Algorithm, SecretKey, TrustError, bundle, dsse};
use serde::Serialize;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What is attested, and how.
#[derive(Clone, Debug, Default)]
pub struct AttestOptions {
    /// The artifact.
    pub artifact: PathBuf,
    /// The result of the run that made it.
    pub results: Option<Results>,
    /// The recipe of that run.
    pub recipe: Option<PathBuf>,
    /// Who builds.
    pub builder: Builder,
    /// Directory of the outputs; that of the artifact if absent.
    pub out: Option<PathBuf>,
}

/// What was stated.
#[derive(Clone, Debug, Serialize)]
pub struct AttestReport {
    /// The artifact.
    pub artifact: PathBuf,
    /// Its SHA-256.
    pub sha256: String,
    /// Whether its header page is signed; signing changes the file, so that what is said here no longer is about it.
    pub signed: bool,
    /// Who builds; absent where nobody is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub builder_id: Option<String>,
    /// The key; absent where nothing is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// PASSED, WARNED or FAILED; absent where there are no gates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gates: Option<String>,
    /// What was written.
    pub files: Vec<AttestedFile>,
}

/// A file that was written.
#[derive(Clone, Debug, Serialize)]
pub struct AttestedFile {
    /// Its path.
    pub path: PathBuf,
    /// What is stated in it; absent of a file of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicate_type: Option<&'static str>,
}

impl Report for AttestReport {
    const SCHEMA: &'static str = "slmc.attest/1";

    fn text(&self) -> String {
        let mut facts = Table::pairs();
        facts.row(["artifact", &self.artifact.display().to_string()]);
        facts.row(["sha256", &self.sha256]);
        facts.row(["builder", self.builder_id.as_deref().unwrap_or("not named")]);
        facts.row(["key id", self.key_id.as_deref().unwrap_or("not signed: predicates alone")]);
        facts.row(["gates", self.gates.as_deref().unwrap_or("none stated")]);
        let mut files = Table::new([("file", Align::Left), ("predicate", Align::Left)]);
        for AttestedFile { path, predicate_type } in &self.files {
            files.row([&path.display().to_string(), predicate_type.unwrap_or("all of them, one a line")]);
        }
        format!("{facts}\n\n{files}")
    }
}

/// One file before it is written.
struct Output {
    path: PathBuf,
    magic: &'static [u8],
    text: String,
    predicate_type: Option<&'static str>,
}

/// `FILE.PART` in the artifact's directory, or in another.
pub(super) fn beside(artifact: &Path, out: Option<&Path>, part: &str) -> PathBuf {
    let mut name = artifact.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(part);
    match out {
        Some(directory) => directory.join(name),
        None => artifact.with_file_name(name),
    }
}

/// States what an artifact says of itself and what its run measured; signed by a key, or the predicates alone.
///
/// # Errors
/// [`AttestError`]; then nothing is written that was not there, but for what a full disk cuts off.
pub fn attest(options: &AttestOptions, key: Option<&SecretKey>) -> Result<AttestReport, AttestError> {
    key.map_or(Ok(()), check_key)?;
    let subject = Subject::open(&options.artifact)?;
    let results = options.results.as_ref();
    let record = Record::of(&subject.provenance, &subject.path, results)?;
    let recipe = options.recipe.as_deref().map(recipe).transpose()?;
    let mut said = vec![(
        "provenance",
        provenance::PREDICATE,
        provenance::predicate(&record, results, recipe.as_ref(), &options.builder)?,
    )];
    let mut verdict = None;
    if let Some(results) = results
        && let Some(predicate) = gates::predicate(&subject, results, recipe.as_ref())?
    {
        verdict = predicate["result"].as_str().map(str::to_owned);
        said.push(("tests", gates::PREDICATE, predicate));
    }
    let place = |part: &str| beside(&options.artifact, options.out.as_deref(), part);
    let outputs = match key {
        Some(key) => signed(&subject, said, key, &place)?,
        None => said
            .into_iter()
            .map(|(part, predicate_type, predicate)| Output {
                path: place(&format!("{part}.json")),
                magic: if part == "tests" { b"{\"result\":" } else { b"{\"buildDefinition\":" },
                text: format!("{predicate}\n"),
                predicate_type: Some(predicate_type),
            })
            .collect(),
    };
    write(&outputs)?;
    Ok(AttestReport {
        artifact: options.artifact.clone(),
        sha256: hex(&subject.sha256),
        signed: subject.signed,
        builder_id: options.builder.id.clone(),
        key_id: key.map(|key| hex(&key.public().id())),
        gates: verdict,
        files: outputs
            .into_iter()
            .map(|Output { path, predicate_type, .. }| AttestedFile { path, predicate_type })
            .collect(),
    })
}

/// Refuses a key that the readers of attestations do not take.
///
/// # Errors
/// [`TrustError::Algorithm`].
pub fn check_key(key: &SecretKey) -> Result<(), AttestError> {
    match key.algorithm() {
        Algorithm::P256 => Ok(()),
        found => Err(TrustError::Algorithm { found, what: "attestations" }.into()),
    }
}

/// A recipe by its name and hash.
fn recipe(path: &Path) -> Result<Resource, AttestError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Resource::file(name, &file_sha256(path)?))
}

/// A bundle for every statement, and the envelopes of all.
fn signed(
    subject: &Subject,
    said: Vec<(&str, &'static str, Value)>,
    key: &SecretKey,
    place: &dyn Fn(&str) -> PathBuf,
) -> Result<Vec<Output>, TrustError> {
    // As cosign names a key.
    let name = dsse::encode(&key.public().id());
    let mut outputs = Vec::new();
    let mut envelopes = Vec::new();
    for (part, predicate_type, predicate) in said {
        let statement = Statement::new(subject.resources(), predicate_type, predicate);
        let (envelope, text) = bundle::sign(&statement, key, (name.clone(), name.clone()))?;
        envelopes.push(envelope);
        outputs.push(Output {
            path: place(&format!("{part}.sigstore.json")),
            magic: bundle::MAGIC,
            text,
            predicate_type: Some(predicate_type),
        });
    }
    outputs.push(Output {
        path: place("intoto.jsonl"),
        magic: bundle::LINES_MAGIC,
        text: bundle::lines(&envelopes),
        predicate_type: None,
    });
    Ok(outputs)
}

/// Puts all in place, each whole; none where one may not be replaced.
fn write(outputs: &[Output]) -> Result<(), AttestError> {
    for Output { path, magic, .. } in outputs {
        atomic::check_file(path, magic)?;
    }
    for Output { path, magic, text, .. } in outputs {
        atomic::write_file(path, magic, |out| out.write_all(text.as_bytes()))?;
    }
    Ok(())
}
