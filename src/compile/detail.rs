//! `slmc estimate --detail`: instructions of one token of an artifact on a target, by class and by layer. The work is what the
//! executor calls (`calls.rs`), the costs are measured on emulators (`costs.rs`), and the sum is an estimate: it says nothing
//! of caches, of memory that keeps a processor waiting, or of how many instructions a cycle has.

mod calls;
mod costs;

pub use costs::{Check, Costs};

use crate::artifact::host::{ArtifactError, ArtifactFile};
use crate::report::{Align, Report, Table, grouped};
use crate::target::Target;
use calls::{Call, Class, calls};
use serde::Serialize;
use slm_runtime::format::FormatError;
use slm_runtime::session::SessionError;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why instructions cannot be estimated.
#[derive(Debug, thiserror::Error)]
pub enum DetailError {
    /// The artifact cannot be used.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// Its tensors cannot be found.
    #[error("the artifact cannot be laid out: {0}; compile it again")]
    Format(#[from] FormatError),
    /// The runtime refuses it.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A part without costs.
    #[error(
        "{what}: no instructions are measured for it; `tests/cross/run --count` counts whole tokens of any artifact"
    )]
    Unmeasured {
        /// The part.
        what: &'static str,
    },
    /// A unit without costs.
    #[error(
        "`{unit}` has no measured cost in the table of {device}; `tests/cross/run --kernels` measures those of docs/devices.md"
    )]
    NoCost {
        /// The unit.
        unit: String,
        /// The table's device.
        device: String,
    },
    /// A target without a table.
    #[error(
        "target {target} has no table of measured instructions: none for {isa} of {triple}; known: {known}; see docs/devices.md, \
         or pass a table of your own with --instructions"
    )]
    NoTable {
        /// The target.
        target: String,
        /// Kernels that the artifact would run with.
        isa: String,
        /// Its platform.
        triple: String,
        /// What there is.
        known: String,
    },
    /// A product whose matrix is in no tensor: a defect.
    #[error("a product of the executor has no tensor, which is a defect of slmc; please report it with the artifact")]
    Unnamed,
    /// The position is outside.
    #[error("position {position} is outside the context of {context}; pass --position 0 to {last}", last = context - 1)]
    Position {
        /// As asked.
        position: usize,
        /// Positions planned for.
        context: usize,
    },
    /// The tables cannot be read.
    #[error("cannot read the instruction tables {}; check the path", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The tables are not tables.
    #[error("{name}: not instruction tables as tests/cross/run --kernels writes them")]
    Form {
        /// Whose.
        name: String,
        /// The reason.
        source: serde_json::Error,
    },
}

/// Instructions of a class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassRow {
    /// The class.
    pub class: &'static str,
    /// Instructions.
    pub instructions: u64,
}

/// Instructions of a layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerRow {
    /// Number; `None` stands for embedding, head and choice.
    pub layer: Option<usize>,
    /// All of it.
    pub instructions: u64,
    /// By class.
    pub classes: Vec<ClassRow>,
}

/// Calls of one unit in one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkRow {
    /// Layer.
    pub layer: Option<usize>,
    /// Unit.
    pub unit: String,
    /// Number of calls.
    pub calls: u64,
    /// Sum of the first numbers: rows, elements or positions.
    pub first: u64,
    /// Sum of the second: multiply-accumulates.
    pub second: u64,
    /// Instructions.
    pub instructions: u64,
}

/// Result of `slmc estimate --detail`.
#[derive(Clone, Debug, Serialize)]
pub struct DetailReport {
    /// The numbers are an estimate, whatever reads them.
    pub estimate: bool,
    /// The file.
    pub artifact: String,
    /// Target.
    pub target: String,
    /// Emulated device whose costs these are.
    pub measured_on: String,
    /// Kernels.
    pub kernel: String,
    /// Compiler of the measured code.
    pub rustc: String,
    /// Position of the token.
    pub position: usize,
    /// All of it.
    pub instructions_per_token: u64,
    /// By class.
    pub classes: Vec<ClassRow>,
    /// By layer.
    pub layers: Vec<LayerRow>,
    /// By layer and unit.
    pub work: Vec<WorkRow>,
    /// Whole tokens of other models, counted and estimated when the table was made.
    pub checks: Vec<Check>,
    /// Clock that the target states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_hz: Option<u64>,
    /// Tokens per second of one core, if every instruction took one cycle and no memory kept it waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_s_at_one_instruction_a_cycle: Option<f64>,
}

/// Estimates the token at a position of an artifact, in the middle of its context where none is given.
///
/// # Errors
/// [`DetailError`].
pub fn detail(
    path: &Path,
    target: &Target,
    position: Option<usize>,
    tables: Option<&Path>,
) -> Result<DetailReport, DetailError> {
    let file = ArtifactFile::open(path)?;
    let view = file.view()?;
    let context = view.spec().context as usize;
    let position = position.unwrap_or(context / 2);
    if position >= context {
        return Err(DetailError::Position { position, context });
    }
    let tables = costs::tables(tables)?;
    let costs = costs::find(&tables, target, view.layout())?;
    let mut work: BTreeMap<(Option<usize>, Class, String), WorkRow> = BTreeMap::new();
    let mut exact: BTreeMap<(Option<usize>, Class, String), f64> = BTreeMap::new();
    for Call { layer, class, unit, first, second } in calls(&view, position)? {
        let cost = costs.of(&unit, first, second)?;
        let key = (layer, class, unit.clone());
        let row =
            work.entry(key.clone()).or_insert(WorkRow { layer, unit, calls: 0, first: 0, second: 0, instructions: 0 });
        row.calls += 1;
        row.first += first;
        row.second += second;
        *exact.entry(key).or_default() += cost;
    }
    let [token, of_layer, of_head] = costs.executor;
    let mut around = |layer: Option<usize>, calls: u64, heads: u64, cost: f64| {
        let key = (layer, Class::Executor, "executor".to_owned());
        work.insert(
            key.clone(),
            WorkRow { layer, unit: key.2.clone(), calls, first: heads, second: 0, instructions: 0 },
        );
        exact.insert(key, cost);
    };
    around(None, 1, 0, token);
    for index in 0..view.spec().layers as usize {
        let heads = u64::from(view.layer(index).heads);
        around(Some(index), 1, heads, of_layer + of_head * heads as f64);
    }
    // Rounded once, so that every sum of the report is the sum of what it shows.
    for (key, row) in &mut work {
        row.instructions = exact[key].max(0.0).round() as u64;
    }
    let sum_by = |chosen: &dyn Fn(Option<usize>) -> bool| -> Vec<ClassRow> {
        let mut classes: BTreeMap<Class, u64> = BTreeMap::new();
        for ((_, class, _), row) in work.iter().filter(|((layer, ..), _)| chosen(*layer)) {
            *classes.entry(*class).or_default() += row.instructions;
        }
        classes.into_iter().map(|(class, instructions)| ClassRow { class: class.name(), instructions }).collect()
    };
    let layer = |layer: Option<usize>| {
        let classes = sum_by(&|own| own == layer);
        LayerRow { layer, instructions: classes.iter().map(|row| row.instructions).sum(), classes }
    };
    let layers: Vec<LayerRow> =
        (0..view.spec().layers as usize).map(|index| layer(Some(index))).chain([layer(None)]).collect();
    let instructions_per_token = work.values().map(|row| row.instructions).sum();
    Ok(DetailReport {
        estimate: true,
        artifact: path.display().to_string(),
        target: target.name.clone(),
        measured_on: costs.device.clone(),
        kernel: costs.kernel.clone(),
        rustc: costs.rustc.clone(),
        position,
        instructions_per_token,
        classes: sum_by(&|_| true),
        layers,
        work: work.into_values().collect(),
        checks: costs.checks.clone(),
        clock_hz: target.clock_hz,
        tokens_per_s_at_one_instruction_a_cycle: target
            .clock_hz
            .map(|clock| clock as f64 / (instructions_per_token as f64).max(1.0)),
    })
}

impl Report for DetailReport {
    const SCHEMA: &'static str = "slmc.estimate-detail/1";

    fn text(&self) -> String {
        let mut facts = Table::pairs();
        facts.row(["artifact", &self.artifact]);
        facts.row(["target", &self.target]);
        facts.row(["costs", &format!("{} kernels on an emulated {}, {}", self.kernel, self.measured_on, self.rustc)]);
        facts.row(["token", &format!("at position {}", self.position)]);
        facts.row(["instructions", &format!("{} (estimate)", grouped(self.instructions_per_token))]);
        if let (Some(clock), Some(rate)) = (self.clock_hz, self.tokens_per_s_at_one_instruction_a_cycle) {
            let assumed =
                format!("{rate:.1} if each took one cycle of {} Hz and no memory kept it waiting", grouped(clock));
            facts.row(["tokens/s", &assumed]);
        }
        if let Some(worst) = self.checks.iter().max_by(|a, b| a.error().abs().total_cmp(&b.error().abs())) {
            let text = format!(
                "at most {:.1} % off over {} models whose tokens were counted ({})",
                100.0 * worst.error().abs(),
                self.checks.len(),
                worst.model
            );
            facts.row(["checked", &text]);
        }
        let columns = || [("instructions", Align::Right), ("share", Align::Right)];
        let share = |instructions: u64| {
            format!("{:.1} %", 100.0 * instructions as f64 / (self.instructions_per_token as f64).max(1.0))
        };
        let [instructions, part] = columns();
        let mut classes = Table::new([("class", Align::Left), instructions, part]);
        for row in &self.classes {
            classes.row([row.class.to_owned(), grouped(row.instructions), share(row.instructions)]);
        }
        let mut layers = Table::new([("layer", Align::Left), instructions, part]);
        for alike in self.layers.chunk_by(|a, b| a.layer.is_some() && b.layer.is_some() && a.classes == b.classes) {
            let (first, last) = (&alike[0], &alike[alike.len() - 1]);
            let name = match (first.layer, last.layer) {
                (Some(first), Some(last)) if last > first => format!("{first} to {last}, each"),
                (Some(layer), _) => layer.to_string(),
                (None, _) => "embedding, head, choice".to_owned(),
            };
            layers.row([name, grouped(first.instructions), share(first.instructions)]);
        }
        format!("{facts}\n\n{classes}\n\n{layers}")
    }
}
