//! Recipes: files of stages that people write. Unknown keys are errors with their line and the nearest known name.
//! Recipes are planned and run here, over the table of stages; no stage is known by its name.
//!
//! ```text
//! document  TOML with lines, `extends` merged        options   keys of a stage as options of its subcommand
//! reader    stages, gates, sample; every mistake     plan      what would run; the lock is compared
//! runner    what runs; cache, resume                 gates     limits on the results, and the verdicts
//! mistake   mistakes with codes and source lines     reports   the result in other formats, for CI
//! explain   codes, gates and options in words        embedded  the quickstart, part of the program
//! ```

mod cache;
mod document;
pub mod embedded;
mod error;
mod explain;
mod gates;
mod lock;
mod mistake;
mod options;
mod plan;
mod reader;
pub mod reports;
mod run_report;
mod runner;
mod stage;
mod validate;

pub use error::RecipeError;
pub use explain::{Explanation, UnknownTopic, explain};
pub use gates::{Contributor, GateResult, GateVerdict};
pub use mistake::{Code, Mistakes};
pub use plan::{PlanReport, PlannedStage, RunOptions, plan};
pub use run_report::{InputDigest, RunReport, SampleResult, StageResult, Status};
pub use runner::run;
