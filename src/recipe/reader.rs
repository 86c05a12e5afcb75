//! From a recipe's tables to its stages, gates and sample, with every mistake that can be found without compute.

use super::attest::{self, Attest};
use super::check;
use super::declared::declared;
use super::document::{self, Entry, Node, Table, Value};
use super::environment::Environment;
use super::expand::{self, Expanded, Expansion, LeftOut};
use super::gates::{self, Gates};
use super::lock::recipe_sha256;
use super::matrix::{self, Cell, Matrix};
use super::mistake::{Code, Mistakes};
use super::options::{self, Scope};
use super::overrides::{self, Setting};
use super::released::{self, Artifacts};
use super::sign::{self, Sign};
use super::stage::{Choice, Chosen, Input, KindIs, RecipeStage, chain, command};
use super::validate;
use crate::formats;
use crate::model::device::{BACKENDS, device};
use crate::stages::{Prediction, Product, RunSettings};
use burn::tensor::Device;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Version of the recipe's schema.
pub(super) const VERSION: &str = "1";
pub(super) const TOP_KEYS: [&str; 10] =
    ["version", "description", "extends", "model", "matrix", "stages", "gates", "sign", "attest", "sample"];
/// Tokens of a sample that does not say how many.
const SAMPLE_TOKENS: usize = 64;

/// A recipe that can be run.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    /// The file's name without its ending.
    pub(super) name: String,
    /// Hash of all that the file says, with what it extends and without what a command line sets, for the lock.
    pub(super) sha256: String,
    /// Where outputs go: OUT/NAME.
    pub(super) out: PathBuf,
    /// `[model]`, once for every cell in which it is another.
    pub(super) models: Vec<Model>,
    /// Those of every cell, in the order in which they run.
    pub(super) stages: Vec<RecipeStage>,
    /// Stages that conditions leave out.
    pub(super) left_out: Vec<LeftOut>,
    /// Variables of the environment that it names, and whether they are set.
    pub(super) variables: BTreeMap<String, bool>,
    /// How many cells its matrix has.
    pub(super) cells: Option<usize>,
    pub(super) gates: Gates,
    pub(super) sign: Option<Sign>,
    pub(super) attest: Option<Attest>,
    pub(super) sample: Option<Sample>,
    /// What each stage will take, as far as that can be told.
    pub(super) predictions: Vec<Prediction>,
}

/// `[model]` of a cell.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) path: PathBuf,
    /// As the recipe names it.
    pub(super) written: String,
    pub(super) cell: Cell,
}

impl Model {
    /// Name for people: `model`, and that of its cell.
    pub(super) fn label(&self) -> String {
        expand::label("model", &self.cell)
    }
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
            Input::Model(model) => self.models[*model].path.clone(),
            Input::Stage(stage) => self.stages[*stage].output.clone().unwrap_or_default(),
            Input::File(stage, file) => self.stages[*stage].output.clone().unwrap_or_default().join(file),
            Input::Path(path) => path.clone(),
        }
    }

    /// The model of a stage's cell.
    pub(super) fn model_of(&self, stage: &RecipeStage) -> Option<&Model> {
        self.models.iter().find(|model| model.cell.is_part_of(&stage.cell)).or_else(|| self.models.first())
    }

    /// Files that are other ones from day to day, such as logs.
    pub(super) fn changing(&self) -> BTreeSet<PathBuf> {
        let of_stage = |stage: &RecipeStage| {
            let path = |choice: &Choice| match &choice.value {
                Chosen::Reads { source: Input::Path(path), .. } if stage.changes(choice) => Some(path.clone()),
                _ => None,
            };
            stage.choices.iter().filter_map(path).collect::<Vec<_>>()
        };
        self.stages.iter().flat_map(of_stage).collect()
    }

    /// Whether the lock holds a stage to its result: not one that reads what changes from day to day, nor one that reads what a
    /// lock names.
    pub(super) fn is_held(&self, stage: usize) -> bool {
        let stage = &self.stages[stage];
        stage.choices.iter().all(|choice| match &choice.value {
            Chosen::Reads { written, .. } => !stage.changes(choice) && !released::is_lock(written),
            _ => true,
        })
    }

    /// Everything on disk that stages read, by the names that the recipe has for it.
    pub(super) fn reads(&self) -> impl Iterator<Item = (&Path, &str)> {
        let of_stages = self.stages.iter().flat_map(|stage| &stage.choices).filter_map(|choice| match &choice.value {
            Chosen::Reads { source: Input::Path(path), written } => Some((path.as_path(), written.as_str())),
            _ => None,
        });
        self.models.iter().map(|model| (model.path.as_path(), model.written.as_str())).chain(of_stages)
    }
}

/// What decides how a recipe is read, beside its files.
#[derive(Clone, Copy)]
pub(super) struct Reading<'r> {
    /// Directory below which outputs go.
    pub(super) out: &'r Path,
    /// Settings of every stage.
    pub(super) run: &'r RunSettings,
    /// Values of the command line.
    pub(super) settings: &'r [Setting],
    /// Artifacts that locks name; without them nothing counts as released.
    pub(super) released: Option<&'r Artifacts<'r>>,
}

/// Reads a recipe.
pub(super) fn read(path: &Path, reading: &Reading<'_>) -> Result<Recipe, Mistakes> {
    let mut mistakes = Mistakes::default();
    let variable = |name: &str| std::env::var(name).ok();
    let recipe = document::load(path, &mut mistakes).and_then(|mut table| {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let sha256 = recipe_sha256(&table);
        overrides::apply(reading.settings, &mut table, &mut mistakes);
        let environment = Environment::new(&variable);
        let mut reader = Reader { mistakes: &mut mistakes, environment, reading };
        reader.recipe(name, sha256, &table)
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
pub fn check_recipe(recipe: &Path) -> Result<(), Mistakes> {
    let run = RunSettings::default();
    read(recipe, &Reading { out: Path::new("out"), run: &run, settings: &[], released: None }).map(|_| ())
}

struct Reader<'r> {
    mistakes: &'r mut Mistakes,
    environment: Environment<'r>,
    reading: &'r Reading<'r>,
}

impl Reader<'_> {
    fn recipe(&mut self, name: String, sha256: String, table: &Table) -> Option<Recipe> {
        let out = self.reading.out.join(&name);
        self.known_keys(table, &TOP_KEYS, &[], "a recipe");
        self.version(table);
        if let Some(entry) = table.find("description") {
            entry.node.text("description", self.mistakes);
        }
        let matrix = match table.find("matrix") {
            Some(entry) => matrix::read(entry, &mut self.environment, self.mistakes),
            None => Matrix::default(),
        };
        let declared_stages = match table.find("stages").map(|entry| entry.node.table("stages", self.mistakes)) {
            Some(Some(declared)) if !declared.entries.is_empty() => declared,
            Some(None) => return None,
            _ => {
                let help = "add a table [stages.NAME] with a `kind`";
                self.mistakes.suggest(&table.place, Code::MissingKey, "the recipe has no stages", help);
                return None;
            }
        };
        let model = table.find("model");
        let expansion = expand::expand(model, declared_stages, &matrix, &mut self.environment, self.mistakes);
        let Expansion { stages: expanded, models, left_out } = expansion;
        let models: Vec<Model> = models.iter().filter_map(|model| self.model(model)).collect();
        let (mut stages, tables) = declared(&expanded, &out, self.mistakes);
        let scope = Scope { stages: &stages, models: &models, has_model: model.is_some(), out: &out };
        let read: Vec<_> = stages
            .iter()
            .zip(&tables)
            .map(|(stage, table)| {
                let before = self.mistakes.count();
                let read = options::read(stage, table, &scope, self.mistakes);
                (read, self.mistakes.count() == before)
            })
            .collect();
        for ((stage, table), (read, sound)) in stages.iter_mut().zip(&tables).zip(read) {
            (stage.choices, stage.dropped) = (read.choices, read.dropped);
            let before = self.mistakes.count();
            if stage.kind_is != KindIs::Guessed {
                validate::validate(stage, table, &command(stage.kind), self.mistakes);
            }
            stage.sound &= sound && self.mistakes.count() == before && stage.dropped.is_empty();
        }
        self.paths_are_their_own(&stages);
        let order = self.order(&stages);
        let mut stages = reordered(stages, &order);
        let gates = match table.find("gates") {
            Some(entry) => self.gates(entry, &mut stages, &left_out),
            None => Gates::default(),
        };
        let sign =
            table.find("sign").and_then(|entry| sign::read(entry, &stages, &mut self.environment, self.mistakes));
        let attest =
            table.find("attest").and_then(|entry| attest::read(entry, &stages, &mut self.environment, self.mistakes));
        let sample = table.find("sample").and_then(|entry| self.sample(entry, model.is_some(), &stages));
        let mut recipe = Recipe {
            name,
            sha256,
            out,
            models,
            stages,
            left_out,
            variables: BTreeMap::new(),
            cells: matrix.is_there().then_some(matrix.cells.len()),
            gates,
            sign,
            attest,
            sample,
            predictions: Vec::new(),
        };
        recipe.predictions = check::check(&recipe, table.find("sample"), self.reading.run, self.mistakes);
        recipe.variables = std::mem::take(&mut self.environment.named);
        Some(recipe)
    }

    fn version(&mut self, table: &Table) {
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
    }

    /// Notes every key that is neither `known` nor an older name.
    fn known_keys(&mut self, table: &Table, known: &[&str], older: &[&str], of: &str) {
        let unknown_here = |key: &str| !known.contains(&key) && !older.contains(&key);
        for entry in table.entries.iter().filter(|entry| unknown_here(&entry.key)) {
            self.mistakes.unknown_key(&entry.place, &entry.key, known.iter().copied(), of);
        }
    }

    fn model(&mut self, model: &Expanded) -> Option<Model> {
        let Expanded { table, place, cell, .. } = model;
        self.known_keys(table, &["path"], &[], "[model]");
        let Some(path) = table.find("path") else {
            let help = "write path = \"DIR\", a checkpoint or a configuration";
            self.mistakes.suggest(place, Code::MissingKey, "missing key `path` in [model]", help);
            return None;
        };
        let written = path.node.text("path", self.mistakes)?;
        let full = path.node.place.directory().join(written);
        if !full.exists() {
            let message = format!("{} does not exist", full.display());
            self.mistakes.add(&path.node.place, Code::MissingPath, message);
        } else if full.is_dir() && !formats::contents(&full).configuration {
            let message = format!("{} holds no config.json", full.display());
            let help = "name the directory of a checkpoint, a configuration or a GGUF file";
            self.mistakes.suggest(&path.node.place, Code::MissingPath, message, help);
        }
        let written = match &path.node.value {
            Value::Variable { name, .. } => format!("env:{name}"),
            _ => written.to_owned(),
        };
        Some(Model { path: full, written, cell: cell.clone() })
    }

    /// Notes outputs and files beside them that two stages would write.
    fn paths_are_their_own(&mut self, stages: &[RecipeStage]) {
        let mut taken: BTreeMap<PathBuf, String> = BTreeMap::new();
        for stage in stages {
            let written = stage.choices.iter().filter_map(|choice| match &choice.value {
                Chosen::Writes(path) => Some((path, &choice.place)),
                _ => None,
            });
            for (path, place) in stage.output.iter().map(|output| (output, &stage.place)).chain(written) {
                if let Some(other) = taken.insert(path.clone(), stage.label()) {
                    let message = format!("stages `{other}` and `{}` both write {}", stage.label(), path.display());
                    let help =
                        "give them names of their own, in a matrix with a placeholder: \"${{ matrix.KEY }}.jsonl\"";
                    self.mistakes.suggest(place, Code::SamePath, message, help);
                }
            }
        }
    }

    /// Each stage after those it waits for, else as written; where some wait for each other, they stay as written.
    fn order(&mut self, stages: &[RecipeStage]) -> Vec<usize> {
        let (mut order, mut placed) = (Vec::new(), vec![false; stages.len()]);
        while order.len() < stages.len() {
            let ready =
                (0..stages.len()).find(|&stage| !placed[stage] && stages[stage].waits_for().all(|other| placed[other]));
            let next = match ready {
                Some(stage) => stage,
                None => self.cycle(stages, &placed),
            };
            placed[next] = true;
            order.push(next);
        }
        order
    }

    /// Names the stages of one cycle among those not placed, and gives one of them.
    fn cycle(&mut self, stages: &[RecipeStage], placed: &[bool]) -> usize {
        let mut stage = placed.iter().position(|placed| !placed).unwrap_or(0);
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
        stage
    }

    fn gates(&mut self, entry: &Entry, stages: &mut Vec<RecipeStage>, left_out: &[LeftOut]) -> Gates {
        let mut entry = entry.clone();
        if let Value::Table(table) = &mut entry.node.value {
            expand::without_cells(table, &mut self.environment, self.mistakes);
        }
        gates::read(&entry, stages, left_out, self.reading.released, self.mistakes)
    }

    fn sample(&mut self, entry: &Entry, has_model: bool, stages: &[RecipeStage]) -> Option<Sample> {
        let mut table = entry.node.table("sample", self.mistakes)?.clone();
        expand::without_cells(&mut table, &mut self.environment, self.mistakes);
        self.known_keys(&table, &["prompt", "tokens", "backend"], &["device"], "[sample]");
        if !has_model && stages.iter().all(|stage| stage.kind.makes() != Product::Artifact) {
            let message = "[sample] has nothing to continue its prompt: no [model], no compile stage";
            self.mistakes.suggest(&entry.place, Code::NoSample, message, "remove [sample]");
        }
        let Some(prompt) = table.find("prompt") else {
            let help = "write prompt = \"TEXT\"";
            self.mistakes.suggest(&entry.place, Code::MissingKey, "missing key `prompt` in [sample]", help);
            return None;
        };
        let prompt = prompt.node.text("prompt", self.mistakes)?.to_owned();
        let tokens = match table.find("tokens") {
            None => SAMPLE_TOKENS,
            Some(entry) => match &entry.node.value {
                Value::Integer(text) | Value::Variable { text, .. }
                    if text.parse().is_ok_and(|tokens: usize| tokens > 0) =>
                {
                    text.parse().ok()?
                }
                Value::Unresolved => return None,
                _ => {
                    let message = "`tokens` is not a whole number above 0";
                    self.mistakes.suggest(&entry.node.place, Code::WrongType, message, "write tokens = 64");
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
}

/// The stages in another order, their references following.
fn reordered(stages: Vec<RecipeStage>, order: &[usize]) -> Vec<RecipeStage> {
    let mut sorted: Vec<RecipeStage> = order.iter().map(|&stage| stages[stage].clone()).collect();
    for choice in sorted.iter_mut().flat_map(|stage| &mut stage.choices) {
        if let Chosen::Reads { source: Input::Stage(stage) | Input::File(stage, _), .. } = &mut choice.value {
            *stage = order.iter().position(|other| other == stage).unwrap_or(*stage);
        }
    }
    sorted
}
