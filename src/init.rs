//! `slmc init`: a first recipe for a checkpoint, a target and a priority. It looks at the configuration, the headers of the
//! weights, the tokenizer, the chat template and the licence, and writes a recipe that runs as it is, with a reason for every
//! choice. Limits are not guessed: `slmc gates suggest` takes them from the first run.

mod choices;
mod licence;
mod render;

pub use choices::{Choice, Priority};
pub use licence::{Licence, Terms};

use crate::compile::estimate::{EstimateError, Rates, estimate};
use crate::disk::atomic::{self, AtomicError};
use crate::formats::{self, ModelFormatError, adapter};
use crate::model::spec::{ModelKind, ModelSpec};
use crate::recipe::{self, Mistakes};
use crate::report::{Align, Report, Table, grouped, shell, visible};
use crate::target::{Target, TargetError};
use crate::text::chat_template::ChatTemplate;
use crate::text::tokenizer::{Tokenizer, TokenizerError};
use choices::Facts;
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What `slmc init` is asked for.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// The checkpoint.
    pub model: PathBuf,
    /// Name of a target, or its file.
    pub target: String,
    /// What matters most.
    pub priority: Priority,
    /// The recipe to write; NAME.toml in the working directory without it, NAME being the model's.
    pub out: Option<PathBuf>,
    /// Text to measure on.
    pub data: Option<PathBuf>,
    /// JSONL key of that text.
    pub field: Option<String>,
    /// Whether a recipe that is there is replaced.
    pub force: bool,
}

/// Why no recipe is written.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The model cannot be opened.
    #[error(transparent)]
    Model(#[from] ModelFormatError),
    /// It is quantized already.
    #[error("{}: is quantized already; pass the checkpoint that it was made from", path.display())]
    Quantized {
        /// The directory.
        path: PathBuf,
    },
    /// It is an adapter.
    #[error("{}: is a LoRA adapter; merge it first: `slmc merge BASE {} -o DIR`", path.display(), path.display())]
    Adapter {
        /// The directory.
        path: PathBuf,
    },
    /// It has no tokenizer that can be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// There is no such target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Its size cannot be estimated.
    #[error(transparent)]
    Estimate(#[from] EstimateError),
    /// The target runs no preset.
    #[error(
        "target {target} runs none of w8, mixed and w4; write a recipe by hand, with `keep` for the schemes that it runs"
    )]
    NoScheme {
        /// The target.
        target: String,
    },
    /// The text to measure on is not there.
    #[error("{}: does not exist; --data names the text to measure on", path.display())]
    NoData {
        /// The path.
        path: PathBuf,
    },
    /// The text to measure on is a directory.
    #[error("{}: is a directory; --data names one file of text", path.display())]
    DataDirectory {
        /// The path.
        path: PathBuf,
    },
    /// The name does not end in .toml.
    #[error("{}: a recipe's name ends in .toml, since its lock stands beside it", path.display())]
    Name {
        /// The path.
        path: PathBuf,
    },
    /// Something is there.
    #[error("{}: is there already; --force replaces it, -o names another place", path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{}: is not a recipe, and is not replaced; -o names another place", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
    },
    /// The recipe would not run.
    #[error("the recipe would not run on this model, target and text")]
    Refused(#[source] Mistakes),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] AtomicError),
    /// The directory it goes to cannot be used.
    #[error("{}: cannot be used", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
}

/// Result of `slmc init`.
#[derive(Clone, Debug, Serialize)]
pub struct InitReport {
    /// The recipe that was written.
    pub recipe: PathBuf,
    /// The model.
    pub model: PathBuf,
    /// Its `model_type`.
    pub family: &'static str,
    /// Its weights, a tied tensor once.
    pub parameters: u64,
    /// Whether it has a chat template.
    pub chat_template: bool,
    /// Its licence.
    pub licence: Licence,
    /// The target.
    pub target: String,
    /// What mattered most.
    pub priority: Priority,
    /// Whether the artifact will fit the target, by an estimate.
    pub fits: bool,
    /// What was chosen, and why.
    pub choices: Vec<Choice>,
    /// Commands that go on from here.
    pub next: Vec<String>,
}

impl InitReport {
    /// Whether nothing stands in the way: the artifact fits, and with a priority of compliance the licence is clear.
    pub fn passed(&self) -> bool {
        self.fits && (self.priority != Priority::Compliance || self.licence.is_clear())
    }

    /// What a person should know beside the result.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.licence.is_clear() {
            let more = match self.priority {
                Priority::Compliance => "; for compliance this has to be settled before anything else",
                _ => "",
            };
            warnings.push(format!("licence: {}{more}", self.licence.words()));
        }
        if !self.fits {
            warnings.push(format!(
                "the model does not fit {} with any preset, by the estimate; `slmc estimate` says by how much, and a smaller \
                 student or another target helps",
                visible(&self.target)
            ));
        }
        warnings
    }
}

impl Report for InitReport {
    const SCHEMA: &'static str = "slmc.init/1";

    fn text(&self) -> String {
        let mut facts = Table::pairs();
        facts.row(["wrote", &self.recipe.display().to_string()]);
        facts.row(["model", &format!("{}, {} parameters", self.family, grouped(self.parameters))]);
        facts.row(["chat template", if self.chat_template { "yes" } else { "no" }]);
        facts.row(["licence", &self.licence.words()]);
        facts.row(["target", &self.target]);
        facts.row(["priority", &format!("{}: {}", self.priority.name(), self.priority.meaning())]);
        let mut table =
            Table::new([("stage", Align::Left), ("key", Align::Left), ("value", Align::Left), ("why", Align::Left)]);
        for choice in &self.choices {
            table.row([choice.stage, choice.key, &choice.value, &choice.why]);
        }
        let next: Vec<String> = self.next.iter().map(|command| format!("  {command}")).collect();
        visible(&format!("{facts}\n\n{table}\n\nNext:\n{}", next.join("\n")))
    }
}

/// Writes a recipe; nothing is written where it would not pass `slmc run --plan`.
///
/// # Errors
/// [`InitError`].
pub fn init(options: &InitOptions) -> Result<InitReport, InitError> {
    if adapter::is_adapter(&options.model) {
        return Err(InitError::Adapter { path: options.model.clone() });
    }
    let outline = formats::open_outline(&options.model)?;
    if outline.schemes.is_some() {
        return Err(InitError::Quantized { path: options.model.clone() });
    }
    let place = place(options)?;
    if let Some(data) = options.data.as_ref().filter(|data| !data.exists()) {
        return Err(InitError::NoData { path: data.clone() });
    }
    if let Some(data) = options.data.as_ref().filter(|data| data.is_dir()) {
        return Err(InitError::DataDirectory { path: data.clone() });
    }
    let target = Target::named(&options.target)?;
    // Without one nothing can be measured or compiled.
    Tokenizer::of(&outline.companions)?;
    let spec = &outline.spec;
    let chat_template = has_chat_template(&outline.companions, spec);
    let estimate = estimate(&options.model, &target, &Rates::of(&target), None, None)?;
    let facts = Facts { spec, target: &target, estimate: &estimate };
    let choices = facts.choices(options.priority).ok_or_else(|| InitError::NoScheme { target: target.name.clone() })?;
    let licence = Licence::of(&options.model);
    let recipe = render::Recipe {
        place: &place,
        options,
        spec,
        target: &target,
        estimate: &estimate,
        licence: &licence,
        choices: &choices,
        chat_template,
    };
    write(&place, &recipe.text())?;
    let shown = visible(&shell(&place.display().to_string()));
    let mut next = vec![format!("slmc run {shown} --plan"), format!("slmc run {shown}")];
    if options.data.is_some() {
        next.push(format!("slmc gates suggest {shown}"));
    }
    if options.priority == Priority::Compliance {
        next.push(format!("slmc run {shown} --locked"));
        next.push(format!("slmc reproduce {} --recipe {shown}", shell(&recipe.artifact())));
    }
    Ok(InitReport {
        recipe: place,
        model: options.model.clone(),
        family: spec.family,
        parameters: estimate.parameters,
        chat_template,
        licence,
        target: target.name.clone(),
        priority: options.priority,
        fits: choices.fits,
        choices: choices.all,
        next,
    })
}

fn has_chat_template(companions: &crate::model::companions::Companions, spec: &ModelSpec) -> bool {
    spec.kind == ModelKind::Decoder && ChatTemplate::of(companions).ok().flatten().is_some()
}

/// Where the recipe goes; refuses what may not be replaced.
fn place(options: &InitOptions) -> Result<PathBuf, InitError> {
    let path = match &options.out {
        Some(out) => out.clone(),
        None => {
            let full = options.model.canonicalize().unwrap_or_else(|_| options.model.clone());
            let name = if full.is_dir() { full.file_name() } else { full.file_stem() };
            PathBuf::from(format!("{}.toml", name.unwrap_or_default().to_string_lossy()))
        }
    };
    if path.extension().is_none_or(|extension| extension != "toml")
        || path.file_stem().is_none_or(|stem| stem.is_empty())
    {
        return Err(InitError::Name { path });
    }
    if path.symlink_metadata().is_ok() {
        if !options.force {
            return Err(InitError::Exists { path });
        }
        let table = std::fs::read_to_string(&path).ok().and_then(|text| text.parse::<toml::Table>().ok());
        if !table.is_some_and(|table| is_recipe(&table)) {
            return Err(InitError::Foreign { path });
        }
    }
    Ok(path)
}

/// Whether a TOML file is a recipe, and not the settings of something else.
fn is_recipe(table: &toml::Table) -> bool {
    table.get("version").is_some_and(toml::Value::is_integer)
        && (table.contains_key("stages") || table.contains_key("extends"))
}

/// Checks the recipe beside its place and puts it there.
fn write(place: &Path, text: &str) -> Result<(), InitError> {
    let directory = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |source| InitError::Directory { path: directory.to_owned(), source };
    std::fs::create_dir_all(directory).map_err(failed)?;
    // Under the recipe's own name, by which outputs are called; in the directory, from which its paths start.
    let mut trial =
        tempfile::Builder::new().prefix(".slmc-init-").suffix(".toml").tempfile_in(directory).map_err(failed)?;
    trial.write_all(text.as_bytes()).map_err(failed)?;
    recipe::check_recipe(trial.path()).map_err(InitError::Refused)?;
    Ok(atomic::write_file(place, b"", |file| file.write_all(text.as_bytes()))?)
}
