//! A kind of stage: a subcommand that takes models and makes one, or measures it. [`Stage`] is the description of a
//! kind in one file of this folder; [`AnyStage`] is the same without types, as the table of kinds, the command line and
//! recipes see it.
//!
//! ```text
//! clap ─> Args ── resolve(args, run, known) ─> Options ── run(options) ─> Outcome
//! ```
//!
//! `resolve` makes every check that needs no work, for the command line, for the plan of a recipe and for its run, and
//! gives every fault at once. `run` takes options only.

mod faults;
mod outcome;

pub use faults::{Fault, Faults, Resolved};
pub use outcome::{Cost, Outcome};

use super::arguments::{Meaning, meaning};
use super::invocation::Invocation;
use super::known::Known;
use super::summary::Figures;
use crate::data::{HELD_OUT_FILE, TEXTS_FILE};
use crate::formats;
use crate::shell::Shell;
use anyhow::Context;
use burn::tensor::Device;
use clap::{ArgMatches, Args};
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};

/// Product of a stage, for others to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// A directory with dense weights.
    Dense,
    /// A directory with integers.
    Quantized,
    /// An artifact, one for every target.
    Artifact,
    /// A file or a directory in the format of another tool.
    Export,
    /// A file of rows with text.
    Text,
    /// A directory with texts.
    Data,
    /// A report alone.
    Nothing,
}

impl Product {
    /// With its article.
    pub fn name(self) -> &'static str {
        match self {
            Product::Dense => "a dense model",
            Product::Quantized => "a quantized model",
            Product::Artifact => "an artifact",
            Product::Export => "an export",
            Product::Text => "a text",
            Product::Data => "data",
            Product::Nothing => "figures, no model",
        }
    }

    /// The files of an output that other stages may read by themselves, as `STAGE/FILE`.
    pub fn files(self) -> &'static [&'static str] {
        match self {
            Product::Data => &[TEXTS_FILE, HELD_OUT_FILE],
            Product::Dense
            | Product::Quantized
            | Product::Artifact
            | Product::Export
            | Product::Text
            | Product::Nothing => &[],
        }
    }
}

/// Whether a stage that is killed leaves a state beside its output to go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumes {
    /// It begins anew.
    Never,
    /// By its options.
    Sometimes,
    /// Always.
    Always,
}

/// Arithmetic that decides the bits of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// f32 on this machine; the bits follow its [`crate::machine::numerics_class`].
    Float,
    /// Integers and single IEEE operations: the same everywhere.
    Exact,
    /// Exact where an artifact is measured by itself, f32 where a directory runs or is compared with.
    ExactOnArtifacts,
}

/// Numbers of a report that gates may limit.
#[derive(Clone, Copy, Debug)]
pub struct Measures {
    /// A gate that names no stage is for the last stage of the kind that has the number here.
    pub own: &'static [&'static str],
    /// Stated as well.
    pub also: &'static [&'static str],
}

impl Measures {
    /// None.
    pub const NONE: Measures = Measures { own: &[], also: &[] };
}

/// Options given once for all stages of a command: the global ones that reach them.
#[derive(Clone, Debug, Default)]
pub struct RunSettings {
    /// Where random choices start.
    pub seed: u64,
    /// Most memory that work may need, in bytes.
    pub max_ram: Option<u64>,
    /// The stage's own command, for its provenance; [`AnyStage::resolve`] fills it in.
    pub invocation: Invocation,
}

/// Checked options of a stage that computes in f32, with the device of its backend.
pub struct OnBackend<O> {
    /// The options.
    pub options: O,
    /// burn's device.
    pub device: Device,
}

/// A kind of stage.
pub trait Stage: Sync + 'static {
    /// The subcommand's options; its doc comments are the help.
    type Args: clap::Args;
    /// Checked options for the work.
    type Options: Sync + 'static;
    /// The subcommand, and the `kind` in a recipe.
    const NAME: &'static str;
    /// Its product.
    const MAKES: Product;
    /// First bytes of the file that it makes, by which one may be replaced; of no use where it makes a directory.
    const MAGIC: &'static [u8] = b"";
    /// The options that a recipe's `input` stands for, where the subcommand has no positional argument: the first that
    /// is not given itself.
    const INPUTS: &'static [&'static str] = &[];
    /// State that it leaves when it is killed.
    const RESUMES: Resumes = Resumes::Never;
    /// Numbers that gates may limit.
    const MEASURES: Measures = Measures::NONE;
    /// Raised with every change of the program that changes a result of this kind, so that no older result is taken for
    /// it; tests/revisions.rs compares what each kind makes of a small model with what is written down.
    const REVISION: u32;
    /// Arithmetic of its results.
    const ARITHMETIC: Arithmetic;

    /// Settings that hold where no option says otherwise, beside those that the options themselves declare: they decide the
    /// result too.
    fn defaults() -> Value;

    /// Checks everything that can be checked without work.
    fn resolve(args: &Self::Args, run: &RunSettings, known: &Known) -> Resolved<Self::Options>;

    /// The work.
    ///
    /// # Errors
    /// The reason why it failed.
    fn run(options: &Self::Options, shell: &Shell) -> anyhow::Result<Outcome>;

    /// Its result in a few words, by its report.
    fn summary(report: &Figures<'_>) -> Option<String>;
}

/// A kind of stage without its types.
pub trait AnyStage: Sync {
    /// [`Stage::NAME`].
    fn name(&self) -> &'static str;
    /// [`Stage::MAKES`].
    fn makes(&self) -> Product;
    /// [`Stage::MAGIC`].
    fn magic(&self) -> &'static [u8];
    /// [`Stage::INPUTS`].
    fn inputs(&self) -> &'static [&'static str];
    /// [`Stage::RESUMES`].
    fn resumes(&self) -> Resumes;
    /// [`Stage::MEASURES`].
    fn measures(&self) -> Measures;
    /// [`Stage::REVISION`].
    fn revision(&self) -> u32;
    /// [`Stage::ARITHMETIC`].
    fn arithmetic(&self) -> Arithmetic;
    /// [`Stage::defaults`].
    fn defaults(&self) -> Value;
    /// The models among its arguments, each once.
    fn models(&self, matches: &ArgMatches) -> Vec<PathBuf>;
    /// A command with the stage's options and help.
    fn augment(&self, command: clap::Command) -> clap::Command;
    /// [`Stage::resolve`], on clap's matches.
    fn resolve(&self, matches: &ArgMatches, run: &RunSettings, known: &Known) -> Resolved<Box<dyn Ready>>;
    /// [`Stage::summary`].
    fn summary(&self, report: &Figures<'_>) -> Option<String>;
}

/// A stage whose options were checked.
pub trait Ready {
    /// [`Stage::run`].
    ///
    /// # Errors
    /// The reason why it failed.
    fn run(&self, shell: &Shell) -> anyhow::Result<Outcome>;
}

struct ReadyStage<S: Stage> {
    options: S::Options,
    /// The models among the arguments.
    models: Vec<PathBuf>,
}

impl<S: Stage> Ready for ReadyStage<S> {
    fn run(&self, shell: &Shell) -> anyhow::Result<Outcome> {
        self.models.iter().for_each(|path| say_notes(path, shell));
        let (outcome, cost) = Cost::of(|| among_threads(|| S::run(&self.options, shell)));
        Ok(Outcome { cost, ..outcome?? })
    }
}

/// Runs a stage on one of as many threads of its own as the program may use. Work that is called from outside of a pool puts
/// its caller to sleep and wakes it again, several microseconds each time, and a training step has hundreds of such calls.
fn among_threads<R: Send>(work: impl FnOnce() -> R + Send) -> anyhow::Result<R> {
    /// As much as a main thread has, and more.
    const STACK_BYTES: usize = 16 << 20;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(rayon::current_num_threads()).stack_size(STACK_BYTES);
    Ok(pool.build().context("threads cannot be made; pass a smaller --threads")?.install(work))
}

/// Says what was found and decided in the files of the model at a path.
pub fn say_notes(path: &Path, shell: &Shell) {
    for note in formats::notes(path) {
        if note.is_warning() { shell.warn(note) } else { shell.note(note) }
    }
}

/// The models among the arguments of a stage, each once.
fn models<S: Stage>(matches: &ArgMatches) -> Vec<PathBuf> {
    let command = S::Args::augment_args(clap::Command::new(S::NAME));
    let mut models = Vec::new();
    for argument in command.get_arguments() {
        if !matches!(meaning(argument), Some(Meaning::Model { .. })) {
            continue;
        }
        for value in matches.get_raw(argument.get_id().as_str()).into_iter().flatten() {
            let path = PathBuf::from(value);
            if !models.contains(&path) {
                models.push(path);
            }
        }
    }
    models
}

/// Refuses an output in the place of a model that is read: it would be replaced.
pub(super) fn check_output<P: AsRef<Path>>(out: Option<&Path>, models: &[P]) -> anyhow::Result<()> {
    let real = |path: &Path| path.canonicalize().ok();
    if let Some(out) = out
        && let Some(place) = real(out)
        && models.iter().any(|model| real(model.as_ref()).as_ref() == Some(&place))
    {
        anyhow::bail!("{}: is the model that is read, and would be replaced; pass another path", out.display());
    }
    Ok(())
}

impl<S: Stage> AnyStage for S {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn makes(&self) -> Product {
        S::MAKES
    }

    fn magic(&self) -> &'static [u8] {
        S::MAGIC
    }

    fn inputs(&self) -> &'static [&'static str] {
        S::INPUTS
    }

    fn resumes(&self) -> Resumes {
        S::RESUMES
    }

    fn measures(&self) -> Measures {
        S::MEASURES
    }

    fn revision(&self) -> u32 {
        S::REVISION
    }

    fn arithmetic(&self) -> Arithmetic {
        S::ARITHMETIC
    }

    fn defaults(&self) -> Value {
        S::defaults()
    }

    fn models(&self, matches: &ArgMatches) -> Vec<PathBuf> {
        models::<S>(matches)
    }

    fn augment(&self, command: clap::Command) -> clap::Command {
        <S::Args as clap::Args>::augment_args(command)
    }

    fn resolve(&self, matches: &ArgMatches, run: &RunSettings, known: &Known) -> Resolved<Box<dyn Ready>> {
        let mut faults = Faults::default();
        match faults.check("", <S::Args as clap::FromArgMatches>::from_arg_matches(matches)) {
            None => Resolved::new(None, None, faults),
            Some(args) => {
                let models = models::<S>(matches);
                let command = S::Args::augment_args(clap::Command::new(S::NAME));
                let run = RunSettings { invocation: Invocation::of(&command, matches, run.seed), ..run.clone() };
                let mut resolved = S::resolve(&args, &run, known);
                let out = matches.try_get_one::<PathBuf>("out").ok().flatten().map(PathBuf::as_path);
                resolved.faults.check("out", check_output(out, &models));
                resolved.map(|options| -> Box<dyn Ready> { Box::new(ReadyStage::<S> { options, models }) })
            }
        }
    }

    fn summary(&self, report: &Figures<'_>) -> Option<String> {
        S::summary(report)
    }
}

/// Kinds are told apart by their names.
impl PartialEq for dyn AnyStage {
    fn eq(&self, other: &dyn AnyStage) -> bool {
        self.name() == other.name()
    }
}

impl fmt::Debug for dyn AnyStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
