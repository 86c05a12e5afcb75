//! `[attest]`: what is stated of the artifacts of a run, when its gates are judged.
//!
//! ```text
//! [attest]
//! key = "env:SLMC_ATTEST_KEY"        where the secret key is: env:VAR, file:PATH or a path; never the key itself
//! builder_id = "https://…"           who builds; in GitHub Actions its workflow if absent
//! stages = ["signed"]                whose artifacts; if absent every one that no other is made from
//! sbom = true                        FILE.cdx.json too
//! supplier = "…"  licence = "…"  version = "…"      for that
//! ```
//!
//! It is not a stage: gates are judged after the last one, and what a key signs belongs into no cache. A key is read before
//! anything runs, so that a long run does not end at one that is not there.

use super::document::{Entry, Node, Table, Value};
use super::environment::Environment;
use super::error::RecipeError;
use super::expand;
use super::mistake::{Code, Mistakes};
use super::plan_report::PlannedKey;
use super::run_report::{RunReport, Status};
use super::stage::RecipeStage;
use crate::attest::{AttestError, AttestOptions, AttestReport, Builder, Results, SbomOptions, attest, sbom};
use crate::report::json_line;
use crate::shell::Shell;
use crate::stages::Product;
use crate::trust::{KeyPlace, SecretKey};
use std::path::{Path, PathBuf};

/// Keys of the table.
pub(super) const KEYS: [&str; 7] = ["key", "builder_id", "stages", "sbom", "supplier", "licence", "version"];
/// Those that are for the list of materials.
const OF_SBOM: [&str; 3] = ["supplier", "licence", "version"];

/// The table.
#[derive(Clone, Debug)]
pub(super) struct Attest {
    /// Where the key is.
    key: KeyPlace,
    builder_id: Option<String>,
    /// Indices of the stages whose artifacts are attested.
    stages: Vec<usize>,
    sbom: bool,
    supplier: Option<String>,
    licence: Option<String>,
    version: Option<String>,
}

/// Reads the table, the stages being in the order in which they run. `None` where it cannot be used: a mistake is noted.
pub(super) fn read(
    entry: &Entry,
    stages: &[RecipeStage],
    environment: &mut Environment<'_>,
    mistakes: &mut Mistakes,
) -> Option<Attest> {
    let mut table = entry.node.table("attest", mistakes)?.clone();
    for entry in table.entries.iter().filter(|entry| !KEYS.contains(&entry.key.replace('-', "_").as_str())) {
        mistakes.unknown_key(&entry.place, &entry.key, KEYS, "[attest]");
    }
    // `env:` is a place here, whose content is read by nobody but the signer.
    let key = table.take("key");
    expand::without_cells(&mut table, environment, mistakes);
    let Some(key) = key else {
        let help = "write key = \"env:SLMC_ATTEST_KEY\"; slmc keygen --type p256 makes one";
        mistakes.suggest(&entry.place, Code::MissingKey, "missing key `key` in [attest]", help);
        return None;
    };
    let key = key_place(&key, &entry.place, "[attest]", "SLMC_ATTEST_KEY", mistakes)?;
    let text = |name: &str, mistakes: &mut Mistakes| {
        let entry = table.find(name)?;
        entry.node.text(name, mistakes).map(str::to_owned)
    };
    let builder_id = text("builder_id", mistakes);
    let [supplier, licence, version] = OF_SBOM.map(|name| text(name, mistakes));
    let sbom = match table.find("sbom").map(|entry| &entry.node) {
        None => false,
        Some(Node { value: Value::Boolean(value), .. }) => *value,
        Some(node) => {
            mistakes.suggest(&node.place, Code::WrongType, "`sbom` is not true or false", "write sbom = true");
            false
        }
    };
    if !sbom && let Some(entry) = OF_SBOM.iter().find_map(|name| table.find(name)) {
        let message = format!("`{}` says something of a list of materials that is not written", entry.key);
        mistakes.suggest(&entry.place, Code::Conflict, message, "write sbom = true beside it");
    }
    let stages = artifacts(entry, &table, stages, "[attest]", mistakes)?;
    Some(Attest { key, builder_id, stages, sbom, supplier, licence, version })
}

/// Where the key is; what looks like a key is not repeated in the message.
pub(super) fn key_place(
    key: &Entry,
    heading: &super::mistake::Location,
    table: &str,
    variable: &str,
    mistakes: &mut Mistakes,
) -> Option<KeyPlace> {
    let text = match &key.node.value {
        Value::Text(text) => text,
        _ => {
            let message = format!("`key` in {table} is not a string");
            mistakes.suggest(heading, Code::WrongType, message, format!("write key = \"env:{variable}\""));
            return None;
        }
    };
    match KeyPlace::of(text, key.node.place.directory()) {
        Ok(place) => Some(place),
        Err(error) => {
            // Of the heading: the line of the value would be shown.
            mistakes.add(heading, Code::Refused, error.to_string());
            None
        }
    }
}

/// The stages whose artifacts a table is about.
pub(super) fn artifacts(
    entry: &Entry,
    table: &Table,
    stages: &[RecipeStage],
    heading: &str,
    mistakes: &mut Mistakes,
) -> Option<Vec<usize>> {
    let is_artifact = |stage: &usize| stages[*stage].kind.makes() == Product::Artifact;
    let artifacts: Vec<usize> = (0..stages.len()).filter(is_artifact).collect();
    if artifacts.is_empty() {
        let message =
            format!("{heading} has nothing to {}: no stage makes an artifact", heading.trim_matches(['[', ']']));
        let help = format!("remove {heading}, or add a compile stage");
        mistakes.suggest(&entry.place, Code::NothingToCompare, message, help);
        return None;
    }
    let Some(named) = table.find("stages") else {
        let read_by_another = |stage: usize| artifacts.iter().any(|other| stages[*other].model_stage() == Some(stage));
        return Some(artifacts.iter().copied().filter(|stage| !read_by_another(*stage)).collect());
    };
    let Value::List(names) = &named.node.value else {
        let message = "`stages` is not a list of stages";
        mistakes.suggest(&named.node.place, Code::WrongType, message, "write stages = [\"artifact\"]");
        return None;
    };
    let mut chosen = Vec::new();
    for name in names {
        let text = name.text("stages", mistakes)?;
        let meant: Vec<usize> = artifacts.iter().copied().filter(|stage| stages[*stage].is_named(text)).collect();
        if meant.is_empty() {
            let labels: Vec<String> = artifacts.iter().map(|stage| format!("`{}`", stages[*stage].label())).collect();
            let message = format!("no stage `{text}` makes an artifact");
            mistakes.suggest(&name.place, Code::UnknownStage, message, format!("those that do: {}", labels.join(", ")));
        }
        chosen.extend(meant);
    }
    chosen.sort_unstable();
    chosen.dedup();
    Some(chosen)
}

impl Attest {
    /// What a plan says of the key.
    pub(super) fn needs(&self) -> PlannedKey {
        PlannedKey::at(&self.key, "secret key of ECDSA P-256 that signs attestations ([attest])")
    }

    /// Reads the key, and refuses one that cannot sign attestations, and a builder that is none.
    ///
    /// # Errors
    /// [`RecipeError::Attest`].
    pub(super) fn signer(&self, shell: &Shell) -> Result<SecretKey, RecipeError> {
        self.builder()?;
        let key = SecretKey::at(&self.key).map_err(AttestError::from)?;
        crate::attest::check_key(&key)?;
        if let Some(warning) = key.warning() {
            shell.warn(warning);
        }
        Ok(key)
    }

    fn builder(&self) -> Result<Builder, AttestError> {
        Builder { id: self.builder_id.clone(), ..Builder::default() }.checked(&|name| std::env::var(name).ok())
    }

    /// States what there is to say of the artifacts of a run; the files that were written.
    ///
    /// # Errors
    /// [`RecipeError::Attest`].
    pub(super) fn write(
        &self,
        report: &RunReport,
        outputs: &[(usize, Status, PathBuf)],
        recipe: &Path,
        key: &SecretKey,
        shell: &Shell,
    ) -> Result<Vec<PathBuf>, RecipeError> {
        let line = json_line(report).map_err(|error| AttestError::Results {
            path: recipe.to_owned(),
            fault: format!("its result cannot be written down: {error}"),
        })?;
        let results = Results::of(recipe, line.as_bytes())?;
        let mut written = Vec::new();
        for (stage, status, artifact) in outputs {
            if !self.stages.contains(stage) || !matches!(status, Status::Done | Status::Cached) {
                continue;
            }
            let options = AttestOptions {
                artifact: artifact.clone(),
                results: Some(results.clone()),
                recipe: Some(recipe.to_owned()),
                builder: self.builder()?,
                out: None,
            };
            let AttestReport { files, signed, .. } = attest(&options, Some(key))?;
            if !signed {
                let note = "is not signed; signing it later changes it, and what was stated is then about another file";
                shell.note(format_args!("{} {note}", artifact.display()));
            }
            written.extend(files.into_iter().map(|file| file.path));
            if self.sbom {
                written.push(sbom(&self.of_materials(artifact, &results))?.out);
            }
            shell.status("Attested", artifact.display());
        }
        Ok(written)
    }

    fn of_materials(&self, artifact: &Path, results: &Results) -> SbomOptions {
        SbomOptions {
            artifact: artifact.to_owned(),
            results: Some(results.clone()),
            supplier: self.supplier.clone(),
            licence: self.licence.clone(),
            version: self.version.clone(),
            timestamp: None,
            out: None,
        }
    }
}
