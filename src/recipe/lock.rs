//! The lock file beside a recipe: every input by hash, and what each stage gave, for every class of machine that has run it.
//! It goes under version control; a later run with other inputs is refused and says which, and with `--locked` a run with
//! anything else that is another.
//!
//! ```toml
//! version = 2
//! tool = "slmc 0.1.0"
//! recipe = "sha256:…"            # its stages, gates and sample with what it extends
//!
//! [inputs]                       # paths relative to the recipe, directories without their slmc.json
//! "quickstart/teacher" = "sha256:…"
//!
//! [stages.x86-64-v3]             # one line a stage, so that merges work
//! small = { key = "sha256:…", output = "sha256:…" }
//! ```
//!
//! The key is that of a released version ([`super::key`]): development builds of one revision share it.

use super::document::{Table, Value};
use super::environment;
use super::error::{INPUTS_ALONE, RecipeError};
use super::hashes::Hashes;
use super::reader::Recipe;
use super::released;
use super::stage::Chosen;
use crate::disk::atomic::{self, AtomicError};
use crate::disk::hash::HashError;
use crate::disk::schema;
use crate::machine::{numerics_class, tool};
use crate::store::{Digest, canonical};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

const HEADER: &str = "# Inputs and results of the recipe beside this file, as `slmc run` found them. Keep it under version control;\n\
                      # after a change of inputs that is meant, `slmc run RECIPE --update-lock` writes it anew.\n";
const VERSION: u32 = 2;
const PREFIX: &str = "sha256:";

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lock {
    version: u32,
    /// Name and version of what wrote it last.
    tool: String,
    /// Hash of the resolved recipe.
    recipe: String,
    /// Hashes by paths relative to the recipe.
    #[serde(default)]
    inputs: BTreeMap<String, String>,
    /// By class of machine, then by stage.
    #[serde(default)]
    stages: BTreeMap<String, BTreeMap<String, LockedStage>>,
}

/// A stage as it ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LockedStage {
    key: String,
    /// Absent where the stage has no output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<String>,
}

/// A result that a lock names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Released {
    /// The stage's key.
    pub(super) key: Digest,
    /// Its output; absent where it has none.
    pub(super) output: Option<Digest>,
}

/// Version alone, of a lock of any version.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Where the lock of a recipe is.
pub(super) fn beside(recipe: &Path) -> PathBuf {
    recipe.with_extension("lock")
}

/// The hash of a recipe with what it extends, whatever its layout and comments.
pub(super) fn recipe_sha256(table: &Table) -> String {
    fn value(node: &Value) -> Json {
        match node {
            Value::Text(text) => json!(text),
            Value::Integer(text) | Value::Number(text) => json!({"number": text}),
            Value::Boolean(value) => json!(value),
            Value::List(items) => items.iter().map(|item| value(&item.value)).collect(),
            Value::Table(table) => fields(table),
            // Only what is written is hashed: nothing is resolved yet.
            Value::Date | Value::Variable { .. } | Value::Unresolved => Json::Null,
        }
    }
    fn fields(table: &Table) -> Json {
        Json::Object(
            table.entries.iter().map(|entry| (entry.key.replace('-', "_"), value(&entry.node.value))).collect(),
        )
    }
    let mut recipe = fields(table);
    if let Some(recipe) = recipe.as_object_mut() {
        // Where the rest of it came from, and what people read, decide nothing.
        recipe.remove("extends");
        recipe.remove("description");
    }
    hashed(&Digest::of(canonical(&recipe).as_bytes()))
}

fn hashed(digest: &Digest) -> String {
    format!("{PREFIX}{digest}")
}

impl LockedStage {
    fn released(&self) -> Option<Released> {
        let output = match &self.output {
            Some(output) => Some(bare(output).parse().ok()?),
            None => None,
        };
        Some(Released { key: bare(&self.key).parse().ok()?, output })
    }

    /// From a key and an output.
    pub(super) fn of(key: &Digest, output: Option<&Digest>) -> Self {
        LockedStage { key: hashed(key), output: output.map(hashed) }
    }
}

impl Lock {
    /// The lock of a recipe as its inputs are now, without any stage.
    pub(super) fn of(recipe: &Recipe, file: &Path, hashes: &mut Hashes) -> Result<Lock, HashError> {
        let base = file.parent().unwrap_or(Path::new(""));
        let mut inputs = BTreeMap::new();
        let mut add = |path: &Path, written: &str| -> Result<(), HashError> {
            // What a variable of the environment names is another path on every machine.
            let relative = path.strip_prefix(base).ok().and_then(Path::to_str);
            let relative = relative.filter(|_| !written.starts_with(environment::PREFIX));
            let name = relative.unwrap_or(written).replace('\\', "/");
            inputs.insert(name, hashed(&hashes.of(path)?.sha256));
            Ok(())
        };
        // What changes from day to day, and what another lock names, is not an input that is held.
        let changing = recipe.changing();
        for (path, written) in recipe.reads() {
            if !changing.contains(path) && !released::is_lock(written) {
                add(path, written)?;
            }
        }
        for choice in recipe.stages.iter().flat_map(|stage| &stage.choices) {
            // A target by its name is part of the program.
            if let Chosen::Target { argument, .. } = &choice.value
                && Path::new(argument).is_file()
            {
                add(Path::new(argument), argument)?;
            }
        }
        let recipe = recipe.sha256.clone();
        Ok(Lock { version: VERSION, tool: tool(), recipe, inputs, stages: BTreeMap::new() })
    }

    /// The lock in a file, if there is one.
    pub(super) fn read(path: &Path) -> Result<Option<Lock>, RecipeError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RecipeError::LockRead { path: path.to_owned(), source }),
        };
        if let Ok(Versioned { version }) = toml::from_str(&text)
            && version != VERSION
        {
            return Err(RecipeError::LockVersion { path: path.to_owned(), found: version, known: VERSION });
        }
        let parsed =
            schema::parse(&text).map_err(|source| RecipeError::LockSchema { path: path.to_owned(), source })?;
        Ok(Some(parsed))
    }

    /// Takes over inputs that only another lock has.
    pub(super) fn keep_inputs_of(&mut self, stored: &Lock) {
        for (name, hash) in &stored.inputs {
            self.inputs.entry(name.clone()).or_insert_with(|| hash.clone());
        }
    }

    /// Takes over what another lock says about stages that the recipe still has.
    pub(super) fn with_stages_of(mut self, stored: &Lock, has: &dyn Fn(&str) -> bool) -> Self {
        self.stages = stored.stages.clone();
        for stages in self.stages.values_mut() {
            stages.retain(|label, _| has(label));
        }
        self.stages.retain(|_, stages| !stages.is_empty());
        self
    }

    /// Whether both are of the same recipe, as it is written.
    pub(super) fn is_of(&self, other: &Lock) -> bool {
        self.recipe == other.recipe
    }

    /// Labels of all stages with results, each once.
    pub(super) fn labels(&self) -> impl Iterator<Item = &String> {
        let labels: BTreeSet<&String> = self.stages.values().flat_map(BTreeMap::keys).collect();
        labels.into_iter()
    }

    /// Refuses the lock of another recipe, in which no stage has the name of one of this recipe.
    pub(super) fn check_recipe(&self, stored: &Lock, names: &[&str], path: &Path) -> Result<(), RecipeError> {
        let labels: BTreeSet<&str> =
            stored.stages.values().flat_map(|stages| stages.keys().map(String::as_str)).collect();
        // A cell or a target may have been added to a stage.
        let is_of = |label: &str, name: &str| {
            label.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let common = labels.iter().any(|label| names.iter().any(|name| is_of(label, name)));
        if common || labels.is_empty() || names.is_empty() || self.recipe == stored.recipe {
            return Ok(());
        }
        let stages = labels.into_iter().collect::<Vec<_>>().join(", ");
        Err(RecipeError::LockOfAnother { path: path.to_owned(), stages })
    }

    /// Refuses inputs that are others than the stored lock has, naming each.
    pub(super) fn check_inputs(&self, stored: &Lock, path: &Path) -> Result<(), RecipeError> {
        let difference = |(name, hash): (&String, &String)| {
            let other = stored.inputs.get(name).filter(|other| *other != hash)?;
            Some(format!("`{name}` has SHA-256 {}, expected {}", bare(hash), bare(other)))
        };
        let differences: Vec<String> = self.inputs.iter().filter_map(difference).collect();
        if differences.is_empty() {
            return Ok(());
        }
        Err(RecipeError::LockDiffers { path: path.to_owned(), difference: differences.join("; ") })
    }

    /// Refuses anything that a run would write into the stored lock, as far as it is known before any stage. `has_results`
    /// says whether any stage of the recipe has a result that locks hold.
    pub(super) fn check_locked(&self, stored: &Lock, path: &Path, has_results: bool) -> Result<(), RecipeError> {
        self.check_inputs(stored, path)?;
        let only = |of: &Lock, other: &Lock| -> String {
            let names = of.inputs.keys().filter(|name| !other.inputs.contains_key(*name));
            names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        };
        let (new, gone) = (only(self, stored), only(stored, self));
        let fault = if !new.is_empty() {
            format!("knows nothing of {new}")
        } else if !gone.is_empty() {
            format!("names {gone}, which the recipe does not read")
        } else if self.recipe != stored.recipe {
            "was written for another recipe: stages, gates or sample were changed since".to_owned()
        } else if !has_results {
            return Ok(());
        } else if stored.stages.is_empty() {
            INPUTS_ALONE.to_owned()
        } else if !stored.stages.contains_key(numerics_class()) {
            let classes: Vec<&str> = stored.stages.keys().map(String::as_str).collect();
            let known = classes.join(", ");
            format!("has no results for {}, the class of this machine; it has: {known}", numerics_class())
        } else {
            return Ok(());
        };
        Err(RecipeError::Locked { path: path.to_owned(), fault })
    }

    /// Refuses a stage whose key, or whose output once it is there, is another.
    pub(super) fn check_stage(
        &self,
        path: &Path,
        label: &str,
        key: &Digest,
        output: Option<Option<&Digest>>,
    ) -> Result<(), RecipeError> {
        let class = numerics_class();
        let fault = match self.stages.get(class).and_then(|stages| stages.get(label)) {
            None => format!("has no result of stage `{label}` for {class}"),
            Some(stored) if stored.key != hashed(key) => {
                let by = if self.tool == tool() {
                    String::new()
                } else {
                    format!("; it was written by {}, this is {}", self.tool, tool())
                };
                format!("has the key {} for stage `{label}`, which is {key} now{by}", bare(&stored.key))
            }
            Some(stored) => match output {
                Some(output) if stored.output != output.map(hashed) => format!(
                    "has the output {} of stage `{label}`, which gave {} now",
                    stored.output.as_deref().map_or("none", bare),
                    output.map_or_else(|| "none".to_owned(), ToString::to_string)
                ),
                _ => return Ok(()),
            },
        };
        Err(RecipeError::Locked { path: path.to_owned(), fault })
    }

    /// What to say of an output that is another under the same key: something that no key knows has decided it.
    pub(super) fn changed_output(&self, label: &str, key: &Digest, output: Option<&Digest>) -> Option<String> {
        let stored = self.stages.get(numerics_class()).and_then(|stages| stages.get(label))?;
        if stored.key != hashed(key) || stored.output == output.map(hashed) {
            return None;
        }
        let before = stored.output.as_deref().map_or("none", bare);
        let now = output.map_or_else(|| "none".to_owned(), ToString::to_string);
        Some(format!("stage `{label}` has the key that it had and another output: {before} in the lock, {now} now"))
    }

    /// Name and version of the program that wrote it last.
    pub(super) fn tool(&self) -> &str {
        &self.tool
    }

    /// The classes of machines, each with its results by the names of stages. What is not a hash is left out.
    pub(super) fn classes(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = (&str, Released)>)> {
        self.stages.iter().map(|(class, stages)| {
            let results = stages.iter().filter_map(|(label, stage)| Some((label.as_str(), stage.released()?)));
            (class.as_str(), results)
        })
    }

    /// The result of a stage on a class of machines, if there is one; that of another class where this one has none, as of
    /// an artifact, which is the same on all.
    pub(super) fn released(&self, class: &str, label: &str) -> Option<Released> {
        let own = self.stages.get(class).and_then(|stages| stages.get(label));
        let any = || self.stages.values().find_map(|stages| stages.get(label));
        own.or_else(any)?.released()
    }

    /// Records a stage of this machine.
    pub(super) fn record(&mut self, label: &str, stage: LockedStage) {
        self.stages.entry(numerics_class().to_owned()).or_default().insert(label.to_owned(), stage);
    }

    /// The result of a stage of this machine is what another lock has, or none.
    pub(super) fn keep_result_of(&mut self, other: Option<&Lock>, label: &str) {
        let class = numerics_class();
        match other.and_then(|other| other.stages.get(class)?.get(label)).cloned() {
            Some(result) => self.record(label, result),
            None => {
                if let Some(stages) = self.stages.get_mut(class) {
                    stages.remove(label);
                }
            }
        }
        self.stages.retain(|_, stages| !stages.is_empty());
    }

    /// Writes it.
    pub(super) fn write(&self, path: &Path) -> Result<(), AtomicError> {
        let text = self.text();
        atomic::write_file(path, b"", |out| out.write_all(text.as_bytes()))
    }

    /// One fact a line.
    fn text(&self) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let mut text = format!(
            "{HEADER}version = {}\ntool = {}\nrecipe = {}\n\n[inputs]\n",
            self.version,
            quoted(&self.tool),
            quoted(&self.recipe)
        );
        for (name, hash) in &self.inputs {
            let _ = writeln!(text, "{} = {}", quoted(name), quoted(hash));
        }
        for (class, stages) in &self.stages {
            let _ = writeln!(text, "\n[stages.{class}]");
            for (label, LockedStage { key, output }) in stages {
                let label = if label.contains('.') { quoted(label) } else { label.clone() };
                let output = output.as_ref().map(|output| format!(", output = {}", quoted(output))).unwrap_or_default();
                let _ = writeln!(text, "{label} = {{ key = {}{output} }}", quoted(key));
            }
        }
        text
    }
}

fn bare(hash: &str) -> &str {
    hash.strip_prefix(PREFIX).unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(inputs: &[(&str, &str)]) -> Lock {
        let inputs = inputs.iter().map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned())).collect();
        Lock { version: VERSION, tool: tool(), recipe: "sha256:r".to_owned(), inputs, stages: BTreeMap::new() }
    }

    fn said(result: Result<(), RecipeError>) -> String {
        result.expect_err("it differs").to_string()
    }

    #[test]
    fn a_difference_names_the_input() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        assert!(Lock::read(&path).unwrap().is_none());
        let mut first = lock(&[("m", "sha256:1"), ("a b/\"x\".txt", "sha256:2")]);
        first.record("artifact.cortex-m55", LockedStage::of(&Digest::of(b"k"), Some(&Digest::of(b"o"))));
        first.record("quality", LockedStage::of(&Digest::of(b"q"), None));
        first.write(&path).unwrap();
        let stored = Lock::read(&path).unwrap().expect("it was written");
        assert_eq!(stored, first);
        let changed = lock(&[("m", "sha256:1"), ("a b/\"x\".txt", "sha256:3")]);
        let expected = "`a b/\"x\".txt` has SHA-256 3, expected 2";
        assert!(said(changed.check_inputs(&stored, &path)).contains(expected));
        let error = said(changed.check_inputs(&stored, &path));
        assert!(error.contains("--update-lock"), "{error}");
        // What is new or gone is refused only where nothing may change.
        let fewer = lock(&[("m", "sha256:1")]);
        assert!(fewer.check_inputs(&stored, &path).is_ok());
        assert!(said(fewer.check_locked(&stored, &path, true)).contains("which the recipe does not read"));
        assert!(said(first.check_locked(&fewer, &path, true)).contains("knows nothing of `a b/\"x\".txt`"));
        let other = Lock { recipe: "sha256:s".to_owned(), ..first.clone() };
        assert!(said(other.check_locked(&stored, &path, true)).contains("another recipe"));
        assert!(first.check_locked(&stored, &path, true).is_ok());
        let mut elsewhere = stored.clone();
        elsewhere.stages = BTreeMap::from([("riscv64".to_owned(), BTreeMap::new())]);
        let error = said(first.check_locked(&elsewhere, &path, true));
        assert!(error.contains(numerics_class()) && error.contains("it has: riscv64"), "{error}");
        // A recipe that only watches has no results that could be held.
        assert!(first.check_locked(&elsewhere, &path, false).is_ok());
        // All inputs that differ are named at once.
        let both = lock(&[("m", "sha256:4"), ("a b/\"x\".txt", "sha256:5")]);
        let error = said(both.check_inputs(&stored, &path));
        assert!(error.contains("`m` has SHA-256 4, expected 1") && error.contains("SHA-256 5, expected 2"), "{error}");
    }

    #[test]
    fn the_lock_of_another_recipe_is_known_by_its_stages() {
        let path = Path::new("a.lock");
        let (key, output) = (Digest::of(b"k"), Digest::of(b"o"));
        let mut stored = lock(&[]);
        stored.record("small", LockedStage::of(&key, Some(&output)));
        let own = Lock { recipe: "sha256:s".to_owned(), ..lock(&[]) };
        assert!(own.check_recipe(&stored, &["smaller", "artifact"], path).is_err());
        assert!(own.check_recipe(&stored, &["small", "artifact"], path).is_ok());
        assert!(lock(&[]).check_recipe(&stored, &["smaller"], path).is_ok(), "the same recipe");
        let mut cells = lock(&[]);
        cells.record("small.w8", LockedStage::of(&key, None));
        assert!(own.check_recipe(&cells, &["small"], path).is_ok());
        // The same key with another output is worth a word, another key is not.
        assert!(stored.changed_output("small", &key, Some(&output)).is_none());
        assert!(stored.changed_output("small", &output, Some(&key)).is_none());
        assert!(stored.changed_output("small", &key, Some(&key)).is_some_and(|said| said.contains("stage `small`")));
    }

    #[test]
    fn stages_are_held_to_key_and_output() {
        let path = Path::new("a.lock");
        let (key, output) = (Digest::of(b"k"), Digest::of(b"o"));
        let mut stored = lock(&[]);
        stored.record("small", LockedStage::of(&key, Some(&output)));
        assert!(stored.check_stage(path, "small", &key, None).is_ok());
        assert!(stored.check_stage(path, "small", &key, Some(Some(&output))).is_ok());
        assert!(said(stored.check_stage(path, "small", &output, None)).contains("has the key"));
        assert!(said(stored.check_stage(path, "small", &key, Some(Some(&key)))).contains("which gave"));
        assert!(said(stored.check_stage(path, "other", &key, None)).contains("no result of stage `other`"));
        stored.tool = "slmc 9".to_owned();
        assert!(stored.check_stage(path, "small", &key, None).is_ok(), "another version alone is no difference");
        assert!(said(stored.check_stage(path, "small", &output, None)).contains("written by slmc 9"));
    }

    #[test]
    fn older_locks_and_other_files_are_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        std::fs::write(&path, "version = 1\ntool = 'slmc 0.1.0'\ncpu_features = []\n").unwrap();
        let error = Lock::read(&path).unwrap_err().to_string();
        assert!(error.contains("a.lock") && error.contains("version 1") && error.contains("--update-lock"), "{error}");
        std::fs::write(&path, "version = 2\ntoll = 'x'\n").unwrap();
        assert!(matches!(Lock::read(&path), Err(RecipeError::LockSchema { .. })));
    }
}
