//! `[gates]`: limits on the results of a recipe, by the numbers that its stages report, read and checked here;
//! `judge` compares them with what was measured.
//!
//! ```text
//! [gates]
//! confidence = 0.95          of every verdict, one-sided
//! power = 0.9                with which the number of windows that is said to be needed decides
//! undecided = "fail"         or "pass": what a limit between the bounds counts as
//! baseline = "FILE.slm"      the last released artifact, for gates with against = "baseline"; "lock": that of the lock
//! kld_max = 0.05
//! accuracy_drop_max = { value = 0.01, stage = "quality", against = "baseline" }
//! ```
//!
//! A limit holds where it is reached exactly. A bare number is for the last stage that measures the quantity; a gate on
//! a compile stage with several targets is for each artifact. A baseline is measured by a stage of its own, the eval
//! stage of the gate with the other artifact in the place of its model, so that both are judged on the same windows.

mod contributors;
mod definition;
mod drift;
mod judge;
mod not_judged;
mod suggest;
mod verdicts;

pub use contributors::Contributor;
pub use judge::{GateResult, GateVerdict};
pub use not_judged::NotJudged;
pub(super) use suggest::{Suggested, limit_of, suggestible};
pub(super) use verdicts::verdicts;

use super::document::{Entry, Node, Table, Value};
use super::expand::LeftOut;
use super::matrix::Cell;
use super::mistake::{Code, Location, Mistakes, suggestion};
use super::released::{self, Artifacts};
use super::stage::{Chosen, Input, KindIs, RecipeStage};
use crate::stages::Product;
use crate::statistics::{Certainty, LEAST_DRAWS};
use definition::{Against, DEFINITIONS, Definition, Measure};
use std::path::PathBuf;

/// Keys of `[gates]` that are not gates.
pub(super) const SETTINGS: [&str; 4] = ["confidence", "power", "undecided", "baseline"];
/// Keys of a gate that is a table.
const KEYS: [&str; 3] = ["value", "stage", "against"];
/// What `against` says for the artifact that `[gates]` names, and how its stage is called.
const BASELINE: &str = "baseline";
/// What `against` says for the reference of the eval stage.
const REFERENCE: &str = "reference";

/// Every gate by name, with its meaning and what it compares with.
pub(super) fn definitions() -> impl Iterator<Item = (&'static str, String)> {
    DEFINITIONS.iter().map(|definition| (definition.name, definition.explanation()))
}

/// All of `[gates]`.
#[derive(Clone, Debug)]
pub(super) struct Gates {
    /// Confidence, and power of each gate alone.
    pub(super) certainty: Certainty,
    /// Whether a limit between the bounds counts as held.
    pub(super) undecided_passes: bool,
    /// In the order of the file.
    pub(super) all: Vec<Gate>,
    /// Whether the recipe has `[gates]`, with limits or without.
    pub(super) stated: bool,
    /// Those that have no stage in this run.
    pub(super) not_judged: Vec<NotJudged>,
    /// Whether any compares with what the recipe's own lock names: a run must not put what it judges in that place.
    pub(super) by_own_lock: bool,
}

/// One limit on one stage.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gate {
    pub(super) definition: &'static Definition,
    pub(super) limit: f64,
    /// Index of the stage.
    pub(super) stage: usize,
    pub(super) against: Other,
    /// Where it is written.
    pub(super) place: Location,
}

/// What a gate compares with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Other {
    Nothing,
    Reference,
    /// The stage that measures the baseline.
    Baseline {
        stage: usize,
        written: String,
    },
    /// An artifact that is run side by side.
    Artifact {
        source: Input,
        written: String,
    },
    /// The artifact of a lock that has none yet.
    Unreleased {
        written: String,
    },
}

impl Default for Gates {
    fn default() -> Self {
        let certainty = Certainty { confidence: 0.95, power: 0.9 };
        Gates {
            certainty,
            undecided_passes: false,
            all: Vec::new(),
            stated: false,
            not_judged: Vec::new(),
            by_own_lock: false,
        }
    }
}

impl Gate {
    /// Whether its verdict is about samples.
    pub(super) fn is_statistical(&self) -> bool {
        !matches!(self.definition.measure, Measure::Count)
    }
}

/// Reads `[gates]`, the stages being in the order in which they run; stages that measure baselines are added to them. A gate on
/// a stage that its condition leaves out is left out as well.
pub(super) fn read(
    entry: &Entry,
    stages: &mut Vec<RecipeStage>,
    left_out: &[LeftOut],
    artifacts: Option<&Artifacts<'_>>,
    mistakes: &mut Mistakes,
) -> Gates {
    let Some(table) = entry.node.table("gates", mistakes) else { return Gates::default() };
    let gates = Gates { stated: true, ..Gates::default() };
    let mut reader = Reader { written: stages.len(), stages, left_out, artifacts, mistakes, gates, baseline: None };
    reader.settings(table);
    for entry in table.entries.iter().filter(|entry| !SETTINGS.contains(&entry.key.as_str())) {
        match DEFINITIONS.iter().find(|definition| definition.name == entry.key) {
            Some(definition) => {
                reader.gate(entry, definition);
            }
            None => {
                let known = DEFINITIONS.iter().map(|definition| definition.name).chain(SETTINGS);
                reader.mistakes.unknown_key(&entry.place, &entry.key, known, "[gates]");
            }
        }
    }
    let Gates { certainty: Certainty { confidence, power }, all, .. } = &reader.gates;
    // All gates must hold, so each alone has to be surer that a good model passes.
    let statistical = all.iter().filter(|gate| gate.is_statistical()).count().max(1);
    let power = 1.0 - (1.0 - power) / statistical as f64;
    Gates { certainty: Certainty { confidence: *confidence, power }, ..reader.gates }
}

struct Reader<'r> {
    stages: &'r mut Vec<RecipeStage>,
    /// How many stages the recipe itself has.
    written: usize,
    left_out: &'r [LeftOut],
    artifacts: Option<&'r Artifacts<'r>>,
    mistakes: &'r mut Mistakes,
    gates: Gates,
    /// The node that names the baseline.
    baseline: Option<Node>,
}

impl Reader<'_> {
    fn settings(&mut self, table: &Table) {
        for (key, at_least, default, set) in [
            ("confidence", 0.5, 0.95, (|gates, share| gates.certainty.confidence = share) as fn(&mut Gates, f64)),
            ("power", 0.5, 0.9, |gates, share| gates.certainty.power = share),
        ] {
            let Some(entry) = table.find(key) else { continue };
            let Some(share) = entry.node.number(key, self.mistakes) else { continue };
            if share > at_least && share < 1.0 {
                set(&mut self.gates, share);
            } else {
                let message = format!("`{key}` is {share}; expected a share between {at_least} and 1");
                self.mistakes.suggest(&entry.node.place, Code::Refused, message, format!("leave it out for {default}"));
            }
        }
        if let Some(entry) = table.find("undecided")
            && let Some(word) = entry.node.text("undecided", self.mistakes)
        {
            match word {
                "fail" => {}
                "pass" => self.gates.undecided_passes = true,
                _ => {
                    let help = suggestion(word, ["fail", "pass"]);
                    let message = format!("`undecided` is `{word}`");
                    self.mistakes.suggest(&entry.node.place, Code::UnknownValue, message, help);
                }
            }
        }
        self.baseline = table.find(BASELINE).map(|entry| entry.node.clone());
        // Gates that are left out today compare with it on another day.
        let of_gates = table.entries.iter().filter_map(|entry| match &entry.node.value {
            Value::Table(gate) => gate.find("against"),
            _ => None,
        });
        let named = table.find(BASELINE).into_iter().chain(of_gates);
        self.gates.by_own_lock = named.into_iter().any(|entry| match &entry.node.value {
            Value::Text(written) => {
                let base = entry.node.place.directory();
                self.artifacts.is_some_and(|artifacts| artifacts.is_own(written, base))
            }
            _ => false,
        });
    }

    /// `None` where there is a mistake, which is noted.
    fn gate(&mut self, entry: &Entry, definition: &'static Definition) -> Option<()> {
        let Limit { value, stage: wanted, against } = limit(entry, self.mistakes)?;
        if definition.is_ratio() && value <= 0.0 {
            let message = format!("`{}` is {value}; expected a ratio above 0", entry.key);
            self.mistakes.suggest(&entry.node.place, Code::Refused, message, "1 allows what the other has");
            return None;
        }
        if let Some((least, most)) = definition.range()
            && !(least..=most).contains(&value)
        {
            let expected =
                if most == f64::INFINITY { format!("{least} or above") } else { format!("{least} to {most}") };
            let message = format!("`{}` is {value}; expected {expected}", entry.key);
            let help = "the figure is never beyond that, so the gate would always hold, or never";
            self.mistakes.suggest(&entry.node.place, Code::Refused, message, help);
            return None;
        }
        let chosen = self.chosen(entry, definition, wanted)?;
        // Cells of the same stage that are left out.
        let named = chosen.first().map(|&stage| self.stages[stage].name.clone());
        self.leave_out(entry, |other| Some(&other.name) == named.as_ref() && wanted.is_none());
        for stage in chosen {
            let against = self.against(entry, definition, stage, against)?;
            self.check_samples(entry, definition, stage);
            let place = entry.place.clone();
            self.gates.all.push(Gate { definition, limit: value, stage, against, place });
        }
        Some(())
    }

    /// Notes a gate on stages that are left out.
    fn leave_out(&mut self, entry: &Entry, is_meant: impl Fn(&LeftOut) -> bool) {
        for other in self.left_out.iter().filter(|other| is_meant(other)) {
            let (stage, why) = (other.label(), other.why.clone());
            self.gates.not_judged.push(NotJudged::of(entry, stage, why));
        }
    }

    /// Indices of the stages that a gate is for.
    fn chosen(&mut self, entry: &Entry, definition: &Definition, wanted: Option<&Node>) -> Option<Vec<usize>> {
        let stages = &self.stages[..self.written];
        let kinds = definition.kinds().join(", ");
        match wanted {
            Some(node) => {
                let name = node.text("stage", self.mistakes)?;
                let named = |stage: &RecipeStage| stage.is_named(name);
                let chosen: Vec<usize> = (0..stages.len()).filter(|&stage| named(&stages[stage])).collect();
                let name = name.to_owned();
                self.leave_out(entry, |other| other.is_named(&name));
                let (name, stages) = (name.as_str(), &self.stages[..self.written]);
                if chosen.is_empty() && self.left_out.iter().any(|other| other.is_named(name)) {
                    return None;
                }
                if chosen.is_empty() {
                    let help = suggestion(name, stages.iter().map(|stage| stage.name.as_str()));
                    let message = format!("unknown stage `{name}`");
                    self.mistakes.suggest(&node.place, Code::UnknownStage, message, help);
                    return None;
                }
                let unknown = |stage: &RecipeStage| stage.kind_is == KindIs::Guessed;
                if chosen.iter().any(|&stage| unknown(&stages[stage])) {
                    return None;
                }
                if !chosen.iter().all(|&stage| definition.measured_by(&stages[stage])) {
                    let message = format!("`{}` is not measured by stage `{name}`", entry.key);
                    let help = format!("kinds that measure it: {kinds}");
                    self.mistakes.suggest(&node.place, Code::NotMeasured, message, help);
                    return None;
                }
                Some(chosen)
            }
            None => {
                let last = stages.iter().rposition(|stage| definition.belongs_to(stage));
                let last = last.or_else(|| stages.iter().rposition(|stage| definition.measured_by(stage)));
                let Some(last) = last else {
                    // One that is left out may measure it.
                    if !self.left_out.is_empty() {
                        let labels: Vec<String> = self.left_out.iter().map(LeftOut::label).collect();
                        let why = "no stage of this run measures it, and these are left out".to_owned();
                        self.gates.not_judged.push(NotJudged::of(entry, labels.join(", "), why));
                        return None;
                    }
                    let message = format!("`{}` needs a stage that measures it", entry.key);
                    let help = format!("kinds that measure it: {kinds}");
                    self.mistakes.suggest(&entry.place, Code::NotMeasured, message, help);
                    return None;
                };
                Some((0..stages.len()).filter(|&stage| stages[stage].name == stages[last].name).collect())
            }
        }
    }

    /// What the gate compares with on a stage.
    fn against(&mut self, entry: &Entry, definition: &Definition, stage: usize, given: Option<&Node>) -> Option<Other> {
        let has_reference = self.stages[stage].choices.iter().any(|choice| choice.flag == REFERENCE);
        let word = match given {
            Some(node) => Some(node.text("against", self.mistakes)?),
            None => None,
        };
        let refused = |reader: &mut Self, message: String, help: &str| {
            let place = given.map_or(&entry.place, |node| &node.place);
            reader.mistakes.suggest(place, Code::NothingToCompare, message, help);
            None
        };
        let name = &self.stages[stage].name;
        let without = format!("`{}` compares with a reference, and stage `{name}` has none", entry.key);
        if definition.needs_reference() && !has_reference {
            return refused(self, without, "give it a `reference`");
        }
        match (definition.against, word) {
            (Against::Nothing, None) => Some(Other::Nothing),
            (Against::Nothing, Some(_)) => {
                refused(self, format!("`{}` compares with nothing", entry.key), "leave `against` out")
            }
            (Against::Reference, None | Some(REFERENCE)) => Some(Other::Reference),
            (Against::Either, None | Some(REFERENCE)) if has_reference => Some(Other::Reference),
            (Against::Either, None | Some(REFERENCE)) => refused(self, without, "give it a `reference`"),
            (Against::Reference, Some(_)) => refused(
                self,
                format!("`{}` compares with the reference only", entry.key),
                "leave `against` out; kld_ratio_max and top1_drop_max compare with an artifact",
            ),
            (Against::Either | Against::Baseline, word) => {
                match self.artifact(entry, word.filter(|word| *word != BASELINE).and(given), stage)? {
                    (None, written) => Some(Other::Unreleased { written }),
                    (Some(path), written) => {
                        let place = self.place_of(entry, word.filter(|word| *word != BASELINE).and(given));
                        let stage = self.baseline_stage(stage, &(path, written.clone()), place);
                        Some(Other::Baseline { stage, written })
                    }
                }
            }
            (Against::Artifact, word) => {
                let of_stage = |name: &str| {
                    let found = self.stages[..self.written].iter().position(|stage| stage.label() == name);
                    found.filter(|&found| self.stages[found].kind.makes() == Product::Artifact)
                };
                if let Some((name, found)) = word.and_then(|word| Some((word, of_stage(word)?))) {
                    return Some(Other::Artifact { source: Input::Stage(found), written: name.to_owned() });
                }
                match self.artifact(entry, word.filter(|word| *word != BASELINE).and(given), stage)? {
                    (None, written) => Some(Other::Unreleased { written }),
                    (Some(path), written) => Some(Other::Artifact { source: Input::Path(path), written }),
                }
            }
        }
    }

    /// Where the artifact is named.
    fn place_of(&self, entry: &Entry, given: Option<&Node>) -> Location {
        given.or(self.baseline.as_ref()).map_or_else(|| entry.place.clone(), |node| node.place.clone())
    }

    /// The artifact that `given` names, or `[gates] baseline`: its path, and as it is written. No path where it is that of a lock
    /// which has none yet.
    fn artifact(&mut self, entry: &Entry, given: Option<&Node>, stage: usize) -> Option<(Option<PathBuf>, String)> {
        let Some(node) = given.cloned().or_else(|| self.baseline.clone()) else {
            let message = format!("`{}` compares with an artifact, and none is named", entry.key);
            let help = "give it `against = \"FILE.slm\"`, or [gates] a `baseline`: a file, or \"lock\"";
            self.mistakes.suggest(&entry.place, Code::NothingToCompare, message, help);
            return None;
        };
        let written = node.text(BASELINE, self.mistakes)?;
        if released::is_lock(written) {
            return self.released(&node, written, stage).map(|path| (path, written.to_owned()));
        }
        let path = node.place.directory().join(written);
        if !path.is_file() {
            let message = format!("{} does not exist, or is not a file", path.display());
            self.mistakes.suggest(
                &node.place,
                Code::MissingPath,
                message,
                "name an artifact, such as the last release",
            );
            return None;
        }
        Some((Some(path), written.to_owned()))
    }

    /// The artifact that a lock names for the one that a stage makes or measures.
    fn released(&mut self, node: &Node, written: &str, stage: usize) -> Option<Option<PathBuf>> {
        let makes = |stage: &usize| self.stages[*stage].kind.makes() == Product::Artifact;
        let made = Some(stage).filter(makes).or_else(|| self.stages[stage].model_stage().filter(makes));
        let Some(made) = made else {
            let message = format!("stage `{}` measures no artifact of this recipe", self.stages[stage].label());
            let help = "a lock names artifacts of compile stages; name a file in the place of the lock";
            self.mistakes.suggest(&node.place, Code::NothingToCompare, message, help);
            return None;
        };
        let Some(artifacts) = self.artifacts else { return Some(None) };
        match artifacts.find(written, node.place.directory(), &self.stages[made].label()) {
            Ok(found) => Some(found),
            Err(message) => {
                let help =
                    "name the file of an artifact, or share the cache of the machine that made it (docs/cache.md)";
                self.mistakes.suggest(&node.place, Code::NothingToCompare, message, help);
                None
            }
        }
    }

    /// The stage that measures an artifact as another stage measures its own; added where there is none yet.
    fn baseline_stage(&mut self, stage: usize, (path, written): &(PathBuf, String), place: Location) -> usize {
        let mut added = self.stages[stage].clone();
        for choice in added.choices.iter_mut().filter(|choice| choice.positional) {
            choice.place = place.clone();
            choice.value = Chosen::Reads { source: Input::Path(path.clone()), written: written.clone() };
        }
        // The cell is that of the model, which is another one now; stages that measure the same are one.
        added.cell = Cell::default();
        let same = |stage: &RecipeStage| {
            let pairs = || stage.choices.iter().zip(&added.choices);
            stage.choices.len() == added.choices.len() && pairs().all(|(a, b)| a.flag == b.flag && a.value == b.value)
        };
        let prefix = format!("{}.{BASELINE}", added.name);
        let before: Vec<usize> =
            (self.written..self.stages.len()).filter(|&other| self.stages[other].name.starts_with(&prefix)).collect();
        if let Some(&found) = before.iter().find(|&&other| same(&self.stages[other])) {
            return found;
        }
        added.name = if before.is_empty() { prefix } else { format!("{prefix}{}", before.len() + 1) };
        self.stages.push(added);
        self.stages.len() - 1
    }

    /// Notes a stage that takes too few windows for any verdict.
    fn check_samples(&mut self, entry: &Entry, definition: &Definition, stage: usize) {
        if matches!(definition.measure, Measure::Count | Measure::Speed) {
            return;
        }
        let stage = &self.stages[stage];
        let most = stage.choices.iter().find(|choice| choice.flag == "max-windows");
        let Some((choice, Chosen::Text(text))) = most.map(|choice| (choice, &choice.value)) else { return };
        if text.parse().is_ok_and(|most: usize| most < LEAST_DRAWS) {
            let message =
                format!("`{}` cannot be decided on {text} windows or texts of stage `{}`", entry.key, stage.name);
            let help = format!("at least {LEAST_DRAWS} are needed, and 16 or more are better: raise `max_windows`");
            self.mistakes.suggest(&choice.place, Code::TooFewSamples, message, help);
        }
    }
}

/// The parts of a gate as it is written.
struct Limit<'e> {
    value: f64,
    stage: Option<&'e Node>,
    against: Option<&'e Node>,
}

/// A number, or a table with one.
fn limit<'e>(entry: &'e Entry, mistakes: &mut Mistakes) -> Option<Limit<'e>> {
    let Value::Table(table) = &entry.node.value else {
        return Some(Limit { value: entry.node.number(&entry.key, mistakes)?, stage: None, against: None });
    };
    for key in table.entries.iter().filter(|entry| !KEYS.contains(&entry.key.as_str())) {
        mistakes.unknown_key(&key.place, &key.key, KEYS, "a gate");
    }
    let Some(value) = table.find("value") else {
        let message = format!("missing key `value` in `{}`", entry.key);
        mistakes.suggest(&entry.place, Code::MissingKey, message, "write value = LIMIT");
        return None;
    };
    let value = value.node.number("value", mistakes)?;
    let node = |key: &str| table.find(key).map(|entry| &entry.node);
    Some(Limit { value, stage: node("stage"), against: node("against") })
}
