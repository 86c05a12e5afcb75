//! From a recipe's tables to its stages, gates and sample, with every mistake that can be found without compute.

use super::document::{self, Entry, Node, Table, Value};
use super::gates::{self, Gates};
use super::lock::recipe_sha256;
use super::mistake::{Code, Location, Mistakes, suggestion};
use super::options::{self, Scope, TARGET};
use super::stage::{Choice, Chosen, Input, Kind, RecipeStage, chain, command};
use super::validate;
use crate::formats;
use crate::model::device::{BACKENDS, device};
use crate::model::spec::ModelKind;
use crate::stages::known::{Known, KnownModel, configured};
use crate::stages::{self, Fault, Product, RunSettings, STAGES};
use burn::tensor::Device;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Version of the recipe's schema.
pub(super) const VERSION: &str = "1";
pub(super) const TOP_KEYS: [&str; 7] = ["version", "description", "extends", "model", "stages", "gates", "sample"];
/// Names that no stage can have: the model, and where the quickstart's inputs are unpacked.
pub(super) const RESERVED: [&str; 2] = ["model", "inputs"];
/// Tokens of a sample that does not say how many.
const SAMPLE_TOKENS: usize = 64;

/// A recipe that can be run.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    /// The file's name without its ending.
    pub(super) name: String,
    /// Hash of all that it says, for the lock.
    pub(super) sha256: String,
    /// Where outputs go: OUT/NAME.
    pub(super) out: PathBuf,
    /// `[model]`.
    pub(super) model: Option<(PathBuf, String)>,
    /// In the order in which they run.
    pub(super) stages: Vec<RecipeStage>,
    pub(super) gates: Gates,
    pub(super) sample: Option<Sample>,
}

/// A text to continue with the model and the last artifact.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) prompt: String,
    pub(super) tokens: usize,
    /// Where a directory computes.
    pub(super) device: Device,
}

impl Recipe {
    /// Where something that is read is.
    pub(super) fn path(&self, source: &Input) -> PathBuf {
        match source {
            Input::Model => self.model.as_ref().map(|(path, _)| path.clone()).unwrap_or_default(),
            Input::Stage(stage) => self.stages[*stage].output.clone().unwrap_or_default(),
            Input::Path(path) => path.clone(),
        }
    }
}

/// Reads a recipe whose outputs go below `out`.
pub(super) fn read(path: &Path, out: &Path, run: &RunSettings) -> Result<Recipe, Mistakes> {
    let mut mistakes = Mistakes::default();
    let recipe = document::load(path, &mut mistakes).and_then(|table| {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        Reader { mistakes: &mut mistakes, run }.recipe(name, out, &table)
    });
    mistakes.sort();
    match recipe {
        Some(recipe) if mistakes.is_empty() => Ok(recipe),
        _ => Err(mistakes),
    }
}

/// Checks a recipe without running, hashing or writing anything.
///
/// # Errors
/// Every mistake.
pub fn check(recipe: &Path) -> Result<(), Mistakes> {
    read(recipe, Path::new("out"), &RunSettings::default()).map(|_| ())
}

struct Reader<'r> {
    mistakes: &'r mut Mistakes,
    run: &'r RunSettings,
}

impl Reader<'_> {
    fn recipe(&mut self, name: String, out: &Path, table: &Table) -> Option<Recipe> {
        let out = out.join(&name);
        self.known_keys(table, &TOP_KEYS, &[], "a recipe");
        match table.find("version").map(|entry| &entry.node) {
            Some(Node { value: Value::Integer(version), .. }) if version == VERSION => {}
            Some(node) => {
                let message = "`version` is not 1, the only one that this slmc reads";
                self.mistakes.suggest(&node.place, Code::Version, message, "write version = 1");
            }
            None => {
                self.mistakes.suggest(&table.place, Code::MissingKey, "missing key `version`", "write version = 1");
            }
        }
        if let Some(entry) = table.find("description") {
            entry.node.text("description", self.mistakes);
        }
        let model = table.find("model").and_then(|entry| self.model(entry));
        let declared = match table.find("stages").map(|entry| entry.node.table("stages", self.mistakes)) {
            Some(Some(declared)) if !declared.entries.is_empty() => declared,
            Some(None) => return None,
            _ => {
                let help = "add a table [stages.NAME] with a `kind`";
                self.mistakes.suggest(&table.place, Code::MissingKey, "the recipe has no stages", help);
                return None;
            }
        };
        let (mut stages, tables) = self.stages(declared, &out);
        let read: Vec<_> = stages
            .iter()
            .zip(&tables)
            .map(|(stage, table)| self.options(stage, table, &stages, &model, &out))
            .collect();
        for ((stage, table), (choices, sound)) in stages.iter_mut().zip(&tables).zip(read) {
            stage.choices = choices;
            let before = self.mistakes.count();
            validate::validate(stage, table, &command(stage.kind), self.mistakes);
            stage.sound &= sound && self.mistakes.count() == before;
        }
        let order = self.order(&stages)?;
        let mut stages = reordered(stages, &order);
        let gates = table.find("gates").map(|entry| gates::read(entry, &mut stages, self.mistakes)).unwrap_or_default();
        let sample = table.find("sample").and_then(|entry| self.sample(entry, &model, &stages));
        let recipe = Recipe { name, sha256: recipe_sha256(table), out, model, stages, gates, sample };
        self.check(&recipe, table.find("sample"));
        Some(recipe)
    }

    /// Notes every key that is neither `known` nor an older name.
    fn known_keys(&mut self, table: &Table, known: &[&str], older: &[&str], of: &str) {
        let unknown_here = |key: &str| !known.contains(&key) && !older.contains(&key);
        for entry in table.entries.iter().filter(|entry| unknown_here(&entry.key)) {
            self.mistakes.unknown_key(&entry.place, &entry.key, known.iter().copied(), of);
        }
    }

    fn model(&mut self, entry: &Entry) -> Option<(PathBuf, String)> {
        let table = entry.node.table("model", self.mistakes)?;
        self.known_keys(table, &["path"], &[], "[model]");
        let Some(path) = table.find("path") else {
            self.mistakes.add(&entry.place, Code::MissingKey, "missing key `path` in [model]");
            return None;
        };
        let written = path.node.text("path", self.mistakes)?;
        let full = path.node.place.directory().join(written);
        if !full.exists() {
            let message = format!("{} does not exist", full.display());
            self.mistakes.add(&path.node.place, Code::MissingPath, message);
        } else if full.is_dir() && !formats::contents(&full).configuration {
            let message = format!("{} holds no config.json", full.display());
            self.mistakes.add(&path.node.place, Code::MissingPath, message);
        }
        Some((full, written.to_owned()))
    }

    /// Every stage by name, kind and target, with its table.
    fn stages<'t>(&mut self, declared: &'t Table, out: &Path) -> (Vec<RecipeStage>, Vec<&'t Table>) {
        let (mut stages, mut tables) = (Vec::new(), Vec::new());
        for entry in &declared.entries {
            let Some(table) = entry.node.table(&entry.key, self.mistakes) else { continue };
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if entry.key.is_empty() || !entry.key.bytes().all(plain) || RESERVED.contains(&entry.key.as_str()) {
                let message = format!("`{}` is not the name of a stage", entry.key);
                let help = "letters, digits, - and _, and neither model nor inputs";
                self.mistakes.suggest(&entry.place, Code::BadName, message, help);
            }
            let Some(kind) = self.kind(entry, table) else { continue };
            let before = self.mistakes.count();
            let targets = if kind.makes() == Product::Artifact { self.targets(table) } else { vec![None] };
            for target in &targets {
                let output = match (kind.makes(), target) {
                    (Product::Nothing, _) => None,
                    (Product::Artifact, target) => {
                        let target = target.as_deref().unwrap_or("artifact");
                        Some(out.join(format!("{}.{target}.slm", entry.key)))
                    }
                    (Product::Dense | Product::Quantized, _) => Some(out.join(&entry.key)),
                };
                stages.push(RecipeStage {
                    name: entry.key.clone(),
                    target: target.clone(),
                    one_of_several: targets.len() > 1,
                    kind,
                    place: entry.place.clone(),
                    choices: Vec::new(),
                    sound: self.mistakes.count() == before,
                    output,
                });
                tables.push(table);
            }
        }
        (stages, tables)
    }

    fn kind(&mut self, declared: &Entry, table: &Table) -> Option<Kind> {
        let Some(entry) = table.find("kind") else {
            let kinds = STAGES.map(|kind| kind.name()).join(", ");
            let message = format!("stage `{}` has no `kind`", declared.key);
            self.mistakes.suggest(&declared.place, Code::MissingKey, message, format!("known: {kinds}"));
            return None;
        };
        let text = entry.node.text("kind", self.mistakes)?;
        let kind = stages::named(text);
        if kind.is_none() {
            let names = STAGES.map(|kind| kind.name());
            let help = suggestion(text, names);
            self.mistakes.suggest(&entry.node.place, Code::UnknownValue, format!("unknown kind `{text}`"), help);
        }
        kind
    }

    /// Names of a compile stage's targets; one that is not known is a mistake and stands as `None`.
    fn targets(&mut self, table: &Table) -> Vec<Option<String>> {
        let Some(entry) = table.find(TARGET) else { return vec![None] };
        let items = match &entry.node.value {
            Value::List(items) if items.is_empty() => {
                let (message, help) = ("`target` is an empty list", "name at least one target");
                self.mistakes.suggest(&entry.node.place, Code::MissingKey, message, help);
                return vec![None];
            }
            Value::List(items) => items.iter().collect(),
            _ => vec![&entry.node],
        };
        let mut names: Vec<Option<String>> = Vec::new();
        for item in items {
            let name =
                item.text(TARGET, self.mistakes).and_then(|text| options::target(text, &item.place, self.mistakes));
            let name = name.map(|(name, _)| name);
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            if let Some(name) = &name {
                if !name.bytes().all(plain) {
                    let message = format!(
                        "the target's name `{name}` is to be part of a file's name: letters, digits, -, _ and . only"
                    );
                    self.mistakes.add(&item.place, Code::BadName, message);
                }
                if names.iter().flatten().any(|other| other == name) {
                    self.mistakes.add(&item.place, Code::Conflict, format!("target `{name}` is named twice"));
                }
            }
            names.push(name);
        }
        names
    }

    fn options(
        &mut self,
        stage: &RecipeStage,
        table: &Table,
        stages: &[RecipeStage],
        model: &Option<(PathBuf, String)>,
        out: &Path,
    ) -> (Vec<Choice>, bool) {
        let before = self.mistakes.count();
        let scope = Scope { stages, model: model.as_ref().map(|(path, _)| path.as_path()), out };
        let choices = options::read(stage, table, &command(stage.kind), &scope, self.mistakes);
        (choices, self.mistakes.count() == before)
    }

    /// Each stage after those it waits for, else as written. `None` where some wait for each other.
    fn order(&mut self, stages: &[RecipeStage]) -> Option<Vec<usize>> {
        let (mut order, mut placed) = (Vec::new(), vec![false; stages.len()]);
        while order.len() < stages.len() {
            let ready =
                (0..stages.len()).find(|&stage| !placed[stage] && stages[stage].waits_for().all(|other| placed[other]));
            let Some(stage) = ready else {
                self.cycle(stages, &placed);
                return None;
            };
            placed[stage] = true;
            order.push(stage);
        }
        Some(order)
    }

    /// Names the stages of one cycle among those not placed.
    fn cycle(&mut self, stages: &[RecipeStage], placed: &[bool]) {
        let Some(mut stage) = placed.iter().position(|placed| !placed) else { return };
        let mut path = Vec::new();
        while !path.contains(&stage) {
            path.push(stage);
            // A stage that is not placed waits for one that is not placed.
            stage = stages[stage].waits_for().find(|&other| !placed[other]).unwrap_or(stage);
        }
        let start = path.iter().position(|&other| other == stage).unwrap_or(0);
        let names: Vec<String> = path[start..].iter().chain([&stage]).map(|&stage| stages[stage].label()).collect();
        let message = format!("stages wait for each other: {}", names.join(" needs "));
        self.mistakes.add(&stages[stage].place, Code::Cycle, message);
    }

    fn sample(&mut self, entry: &Entry, model: &Option<(PathBuf, String)>, stages: &[RecipeStage]) -> Option<Sample> {
        let table = entry.node.table("sample", self.mistakes)?;
        self.known_keys(table, &["prompt", "tokens", "backend"], &["device"], "[sample]");
        if model.is_none() && stages.iter().all(|stage| stage.kind.makes() != Product::Artifact) {
            let message = "[sample] has nothing to continue its prompt: no [model], no compile stage";
            self.mistakes.add(&entry.place, Code::NoSample, message);
        }
        let Some(prompt) = table.find("prompt") else {
            self.mistakes.add(&entry.place, Code::MissingKey, "missing key `prompt` in [sample]");
            return None;
        };
        let prompt = prompt.node.text("prompt", self.mistakes)?.to_owned();
        let tokens = match table.find("tokens") {
            None => SAMPLE_TOKENS,
            Some(entry) => match &entry.node.value {
                Value::Integer(text) if text.parse().is_ok_and(|tokens: usize| tokens > 0) => text.parse().ok()?,
                _ => {
                    self.mistakes.add(&entry.node.place, Code::WrongType, "`tokens` is not a whole number above 0");
                    return None;
                }
            },
        };
        // `device` is the older name.
        let (named, older) = (table.find("backend"), table.find("device"));
        if let (Some(_), Some(older)) = (named, older) {
            let message = "`device` is an older name of `backend`, which is given too";
            self.mistakes.suggest(&older.place, Code::Conflict, message, "keep one");
        }
        let given = named.or(older);
        let device = match given {
            None => device(BACKENDS[0]),
            Some(entry) => device(entry.node.text(&entry.key, self.mistakes)?),
        };
        let found = device.map_err(|error| {
            let place = given.map_or(&entry.place, |entry| &entry.node.place);
            self.mistakes.add(place, Code::UnknownValue, chain(&error));
        });
        Some(Sample { prompt, tokens, device: found.ok()? })
    }

    /// Finds every fault that needs no work: each stage whose options can be used is checked in order, and the model
    /// that it would make is handed on.
    fn check(&mut self, recipe: &Recipe, sample: Option<&Entry>) {
        let mut models = BTreeMap::new();
        for stage in recipe.stages.iter().filter(|stage| stage.sound) {
            for choice in &stage.choices {
                let Chosen::Reads { source: source @ (Input::Model | Input::Path(_)), .. } = &choice.value else {
                    continue;
                };
                self.learn(recipe.path(source), &choice.place, &mut models);
            }
            let known = Known::Planned(models);
            let resolved = stage.resolve(self.run, &known, &|source| recipe.path(source));
            models = known.into_planned();
            models.extend(stage.output.clone().zip(resolved.makes.clone()));
            for fault in resolved.checked().err().into_iter().flatten() {
                let (place, message) = described(stage, &fault);
                self.mistakes.add(&place, Code::Impossible, message);
            }
        }
        if let Some(sample) = sample
            && models.values().any(|model| model.spec.kind != ModelKind::Decoder)
        {
            let message = "[sample] continues a text, which an encoder does not";
            self.mistakes.suggest(&sample.place, Code::NoSample, message, "remove [sample]");
        }
    }

    /// Learns the configuration of a model that is there.
    fn learn(&mut self, path: PathBuf, place: &Location, models: &mut BTreeMap<PathBuf, KnownModel>) {
        if models.contains_key(&path) {
            return;
        }
        match configured(&path) {
            Ok(model) => models.extend(model.map(|model| (path, model))),
            Err(error) => self.mistakes.add(place, Code::Impossible, chain(&error)),
        }
    }
}

/// Location and text of a fault: at the option's key, which the message names, or else at the stage.
fn described(stage: &RecipeStage, fault: &Fault) -> (Location, String) {
    let message = chain(fault.error.as_ref());
    let of_option = || stage.choices.iter().filter(|choice| choice.flag == fault.option);
    let quoted = |choice: &&Choice| matches!(&choice.value, Chosen::Text(text) if message.contains(text.as_str()));
    match of_option().find(quoted).or_else(|| of_option().next()) {
        None => (stage.place.clone(), message),
        Some(choice) => {
            let key = choice.flag.replace('-', "_");
            let named = message.contains(&format!("`{key}`")) || message.contains(&format!("--{}", choice.flag));
            let message = if named || choice.positional { message } else { format!("`{key}`: {message}") };
            (choice.place.clone(), message)
        }
    }
}

/// The stages in another order, their references following.
fn reordered(stages: Vec<RecipeStage>, order: &[usize]) -> Vec<RecipeStage> {
    let mut sorted: Vec<RecipeStage> = order.iter().map(|&stage| stages[stage].clone()).collect();
    for choice in sorted.iter_mut().flat_map(|stage| &mut stage.choices) {
        if let Chosen::Reads { source: Input::Stage(stage), .. } = &mut choice.value {
            *stage = order.iter().position(|other| other == stage).unwrap_or(*stage);
        }
    }
    sorted
}
