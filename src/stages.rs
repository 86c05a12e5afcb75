//! The stages: subcommands that take models and make one, or measure it, on a command line and in recipes. A kind of
//! stage is one file here with a [`Stage`], and its row in [`STAGES`]; the work of larger kinds is in a folder of the
//! same name. This is the only room that opens and writes models.

pub mod adapter_output;
pub mod arguments;
pub mod backend;
pub mod checkpoint;
pub mod compile;
pub mod data;
pub mod distill;
mod error;
pub mod eval;
pub mod export;
pub mod import;
pub mod invocation;
pub mod known;
mod limits;
pub mod merge;
pub mod numerics;
pub mod prediction;
pub mod provenance;
pub mod prune;
pub mod quantize;
pub mod resume;
pub mod rounds;
pub mod runner;
pub mod shaping;
pub mod stage;
pub mod summary;
pub mod synthesize;
pub mod texts;
pub mod train;
pub mod training;
pub mod trim;
pub mod watch;

pub use error::StageError;
pub use prediction::{DeviceNeed, Prediction};
pub use stage::{
    AnyStage, Arithmetic, Cost, Fault, Faults, Measures, Outcome, Product, Ready, Resolved, Resumes, RunSettings, Stage,
};

/// Every kind of stage, in the order of a whole chain.
pub static STAGES: [&dyn AnyStage; 12] = [
    &data::Data,
    &import::Import,
    &trim::Trim,
    &synthesize::Synthesize,
    &train::Train,
    &distill::Distill,
    &prune::Prune,
    &quantize::Quantize,
    &compile::Compile,
    &export::Export,
    &eval::Eval,
    &watch::Watch,
];

/// The kind of a name.
pub fn named(name: &str) -> Option<&'static dyn AnyStage> {
    STAGES.into_iter().find(|stage| stage.name() == name)
}
