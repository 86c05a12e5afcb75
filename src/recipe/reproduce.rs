//! `slmc reproduce`: makes an artifact again from its own provenance and compares the bytes. The provenance has every stage of
//! the chain with its options, seed and inputs by hash ([`crate::stages::invocation`]); the inputs themselves are looked for by
//! their hashes below a directory, or where a recipe has them. Stages run in a directory that goes away, without any cache, and
//! the first whose output has another hash than its reader recorded is named, with the reason as far as it is known.

use super::error::RecipeError;
use super::hashes::Hashes;
use super::reader::{self, Reading};
use super::stage::{Kind, command};
use crate::disk::atomic;
use crate::disk::hash::file_sha256;
use crate::machine::{PORTABLE, numerics_class, tool};
use crate::report::{Align, Report, Table};
use crate::shell::Shell;
use crate::stages::known::Known;
use crate::stages::{self, Faults, Product, RunSettings};
use crate::store::{Chain, Digest, canonical, configuration};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Deepest folder below `--inputs` that is looked into.
const DEPTH: usize = 8;

/// Options of `slmc reproduce`, checked.
#[derive(Clone, Debug, Default)]
pub struct ReproduceOptions {
    /// The artifact.
    pub artifact: PathBuf,
    /// What it says of itself.
    pub provenance: Option<Value>,
    /// Where inputs are looked for by their hashes.
    pub inputs: Option<PathBuf>,
    /// A recipe whose inputs they may be.
    pub recipe: Option<PathBuf>,
    /// Settings of every stage; the seed is the recorded one.
    pub run: RunSettings,
}

/// Why an artifact cannot be made again.
#[derive(Debug, thiserror::Error)]
pub enum ReproduceError {
    /// Nothing in the file says how it was made.
    #[error("{}: carries no provenance; it was compiled with --device-only, and only the whole artifact can be reproduced", path.display())]
    NoProvenance {
        /// The artifact.
        path: PathBuf,
    },
    /// It does not say with which options.
    #[error("{}: its provenance has no options of stage `{stage}`, which an older slmc made ({tool}); make the artifact anew", path.display())]
    NoOptions {
        /// The artifact.
        path: PathBuf,
        /// The stage's subcommand.
        stage: String,
        /// The program that made it.
        tool: String,
    },
    /// A stage whose noise nobody may know.
    #[error(
        "stage {stage} trained with differential privacy: its noise and the hash of its data are recorded nowhere, so that it cannot be \
         made again"
    )]
    Private {
        /// The stage's subcommand.
        stage: String,
    },
    /// An input is not there.
    #[error("the input `{role}` of {stage} with SHA-256 {sha256} is not there; {hint}")]
    NoInput {
        /// The option that reads it.
        role: String,
        /// The stage's subcommand.
        stage: String,
        /// Its hash.
        sha256: String,
        /// What to do.
        hint: String,
    },
    /// A stage does not run.
    #[error("stage {stage} of the artifact's provenance failed")]
    Stage {
        /// The stage's subcommand.
        stage: String,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The directory for the work.
    #[error("no temporary directory can be made")]
    Temporary(#[source] std::io::Error),
    /// A file cannot be read.
    #[error(transparent)]
    Hash(#[from] crate::disk::hash::HashError),
    /// A target file cannot be written.
    #[error(transparent)]
    Write(#[from] crate::disk::atomic::AtomicError),
    /// The recipe cannot be used.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
}

/// Result of `slmc reproduce`.
#[derive(Clone, Debug, Serialize)]
pub struct ReproduceReport {
    /// The artifact.
    pub artifact: PathBuf,
    /// Whether every byte is the same.
    pub same: bool,
    /// In the order in which they ran, up to the first that differs.
    pub stages: Vec<ReproducedStage>,
    /// Why it differs, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// One stage.
#[derive(Clone, Debug, Serialize)]
pub struct ReproducedStage {
    /// Its subcommand.
    pub stage: String,
    /// Hash of the output as it was recorded.
    pub expected: String,
    /// Hash of the output now.
    pub found: String,
    /// Whether they are equal.
    pub same: bool,
    /// Class of the f32 work when it was made; absent where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numerics: Option<String>,
    /// Name and version of the program that made it.
    pub tool: String,
}

impl Report for ReproduceReport {
    const SCHEMA: &'static str = "slmc.reproduce/1";

    fn text(&self) -> String {
        let mut table = Table::new([("stage", Align::Left), ("SHA-256", Align::Left), ("", Align::Left)]);
        for stage in &self.stages {
            let verdict = if stage.same { "same".to_owned() } else { format!("differs: {} now", &stage.found[..16]) };
            table.row([&stage.stage, &stage.expected[..stage.expected.len().min(16)], &verdict]);
        }
        let verdict = match self.same {
            true => format!("{}: every byte is the same", self.artifact.display()),
            false => format!("{}: differs: {}", self.artifact.display(), self.why.as_deref().unwrap_or_default()),
        };
        format!("{table}\n\n{verdict}")
    }
}

/// Makes an artifact again.
///
/// # Errors
/// [`ReproduceError`]: it cannot be made again here. That its bytes differ is a result.
pub fn reproduce(options: &ReproduceOptions, shell: &Shell) -> Result<ReproduceReport, ReproduceError> {
    let no_provenance = || ReproduceError::NoProvenance { path: options.artifact.clone() };
    let record = options.provenance.as_ref().ok_or_else(no_provenance)?;
    let directory = tempfile::tempdir().map_err(ReproduceError::Temporary)?;
    let mut hashes =
        Hashes::remembered(configuration::open(&Default::default()).unwrap_or_else(|_| Chain::default()).local());
    let inputs = known_inputs(options, &mut hashes)?;
    hashes.save();
    let mut again =
        Again { options, shell, directory: directory.path(), inputs, made: BTreeMap::new(), stages: Vec::new() };
    let expected = Digest(file_sha256(&options.artifact)?).to_string();
    let done = again.make(record, &expected)?;
    let stages = again.stages;
    let why = stages.iter().find(|stage| !stage.same).map(why);
    Ok(ReproduceReport { artifact: options.artifact.clone(), same: done.is_some(), stages, why })
}

/// Paths by the hashes of what is there.
fn known_inputs(options: &ReproduceOptions, hashes: &mut Hashes) -> Result<BTreeMap<String, PathBuf>, ReproduceError> {
    let mut paths = Vec::new();
    if let Some(recipe) = &options.recipe {
        let reading = Reading { out: Path::new("out"), run: &options.run, settings: &[], released: None };
        let recipe = reader::read(recipe, &reading).map_err(RecipeError::from)?;
        paths.extend(recipe.reads().map(|(path, _)| path.to_owned()));
    }
    if let Some(inputs) = &options.inputs {
        below(inputs, DEPTH, &mut paths);
    }
    let mut known = BTreeMap::new();
    for path in paths {
        // What cannot be read is not the one that is looked for; if it is, its absence is named.
        if let Ok(content) = hashes.of(&path) {
            known.insert(content.sha256.to_string(), path);
        }
    }
    Ok(known)
}

fn below(path: &Path, depth: usize, paths: &mut Vec<PathBuf>) {
    paths.push(path.to_owned());
    if depth == 0 || !path.is_dir() {
        return;
    }
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for entry in entries {
        let hidden = entry.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden {
            below(&entry, depth - 1, paths);
        }
    }
}

/// Why a stage gave something else.
fn why(stage: &ReproducedStage) -> String {
    let name = &stage.stage;
    match stage.numerics.as_deref() {
        Some(class) if class != PORTABLE && class != numerics_class() => format!(
            "stage {name} was made on a machine of class {class}, this is {}; f32 results of two classes differ in their last bits: \
             repeat it on a machine of class {class}",
            numerics_class()
        ),
        _ if stage.tool != tool() => {
            format!("stage {name} was made by {}, this is {}; repeat it with that version", stage.tool, tool())
        }
        _ => format!(
            "stage {name} gave another output with the same inputs, options, version and class of machine; look for damaged memory or \
             another build of slmc, and report it"
        ),
    }
}

/// The work.
struct Again<'r> {
    options: &'r ReproduceOptions,
    shell: &'r Shell,
    directory: &'r Path,
    /// Paths by hashes.
    inputs: BTreeMap<String, PathBuf>,
    /// What was made, by its record.
    made: BTreeMap<String, PathBuf>,
    stages: Vec<ReproducedStage>,
}

impl Again<'_> {
    /// Makes what a record tells of, everything before it first. `None` where an output, its own or one before, has another
    /// hash; the last of the stages says which.
    fn make(&mut self, record: &Value, expected: &str) -> Result<Option<PathBuf>, ReproduceError> {
        let name = canonical(record);
        if let Some(path) = self.made.get(&name) {
            return Ok(Some(path.clone()));
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let stage = text(&record["stage"]);
        let kind = stages::named(&stage).filter(|_| record["options"].is_object());
        let no_options = || ReproduceError::NoOptions {
            path: self.options.artifact.clone(),
            stage: stage.clone(),
            tool: text(&record["tool"]),
        };
        let kind = kind.ok_or_else(no_options)?;
        if record["privacy"].is_object() {
            return Err(ReproduceError::Private { stage });
        }
        let mut inputs = Vec::new();
        for input in record["inputs"].as_array().into_iter().flatten() {
            let (role, sha256) = (text(&input["role"]), text(&input["sha256"]));
            let before = if stage == "compile" && role == "model" { &record["model"] } else { &input["made"] };
            let path = match before["options"].is_object() {
                true => match self.make(before, &sha256)? {
                    Some(path) => path,
                    None => return Ok(None),
                },
                false => self.input(&stage, &role, &sha256)?,
            };
            inputs.push((role, path));
        }
        let number = self.made.len();
        let name_of =
            if kind.makes() == Product::Artifact { format!("{number}.slm") } else { format!("{number}-{stage}") };
        let out = self.directory.join(name_of);
        self.run(kind, record, &inputs, &out)?;
        let hash = if out.is_dir() { crate::disk::hash::directory_sha256(&out)? } else { file_sha256(&out)? };
        let found = Digest(hash).to_string();
        let same = found == expected;
        self.stages.push(ReproducedStage {
            stage,
            expected: expected.to_owned(),
            found,
            same,
            numerics: record["numerics"].as_str().map(str::to_owned),
            tool: text(&record["tool"]),
        });
        self.made.insert(name, out.clone());
        Ok(same.then_some(out))
    }

    /// An input that no stage makes.
    fn input(&self, stage: &str, role: &str, sha256: &str) -> Result<PathBuf, ReproduceError> {
        let hint = match (&self.options.inputs, &self.options.recipe) {
            (None, None) => "pass --inputs with a directory that has it, or --recipe".to_owned(),
            (Some(inputs), _) => format!("nothing below {} has this hash", inputs.display()),
            (None, Some(recipe)) => format!("nothing that {} reads has this hash", recipe.display()),
        };
        self.inputs.get(sha256).cloned().ok_or_else(|| ReproduceError::NoInput {
            role: role.to_owned(),
            stage: stage.to_owned(),
            sha256: sha256.to_owned(),
            hint,
        })
    }

    fn run(&self, kind: Kind, record: &Value, inputs: &[(String, PathBuf)], out: &Path) -> Result<(), ReproduceError> {
        let failed =
            |source: anyhow::Error| ReproduceError::Stage { stage: kind.name().to_owned(), source: source.into() };
        let command = command(kind);
        let mut arguments: Vec<OsString> = vec![joined("out", out)];
        let mut positional = Vec::new();
        for (flag, value) in record["options"].as_object().into_iter().flatten() {
            let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
            for value in values {
                arguments.push(match value {
                    Value::Bool(_) => format!("--{flag}").into(),
                    // A file that is filled by whoever needs it first.
                    Value::Object(_) => joined(flag, &out.with_extension(flag)),
                    Value::String(text) => format!("--{flag}={text}").into(),
                    other => format!("--{flag}={other}").into(),
                });
            }
        }
        for (role, path) in inputs {
            match command.get_arguments().any(|argument| argument.get_long() == Some(role)) {
                true => arguments.push(joined(role, path)),
                false => positional.push(path.clone().into_os_string()),
            }
        }
        if record["target"].is_object() {
            arguments.push(joined("target", &self.target(&record["target"], out)?));
        }
        arguments.push("--".into());
        arguments.extend(positional);
        let matches = command.try_get_matches_from(arguments).map_err(|error| failed(error.into()))?;
        let seed = record["seed"].as_u64().unwrap_or_default();
        let run = RunSettings { seed, ..self.options.run.clone() };
        let ready =
            kind.resolve(&matches, &run, &Known::OnDisk).checked().map_err(|faults| failed(Faults::first(faults)))?;
        let outcome = ready.run(self.shell).map_err(failed)?;
        match outcome.passed {
            true => Ok(()),
            false => Err(failed(anyhow::anyhow!("{}", outcome.text))),
        }
    }

    /// A target file with what was recorded.
    fn target(&self, content: &Value, out: &Path) -> Result<PathBuf, ReproduceError> {
        let path = out.with_extension("target.toml");
        let text =
            toml::Value::try_from(content).ok().and_then(|content| toml::to_string(&content).ok()).unwrap_or_default();
        atomic::write_file(&path, b"", |out| out.write_all(text.as_bytes()))?;
        Ok(path)
    }
}

fn joined(flag: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(format!("--{flag}="));
    argument.push(path);
    argument
}
