//! Recipes: files of stages that people write. Unknown keys are errors with their line and the nearest known name.
//! Recipes are planned and run here, over the table of stages; no stage is known by its name.
//!
//! ```text
//! document  TOML with lines, `extends` merged        options   keys of a stage as options of its subcommand
//! reader    stages, gates, sample; every mistake     plan      what would run; the lock is compared
//! runner    what runs; cache, resume                 gates     limits on the results, and the verdicts
//! key       what decides the result of a stage       hashes    of all that is read, remembered over runs
//! cache     results by key, with their outputs       lock      inputs and results, under version control
//! mistake   mistakes with codes and source lines     reports   the result in other formats, for CI
//! matrix    cells of values                          expand    the stages of every cell
//! overrides values of the command line               environment, condition   variables that are named; `when`
//! declared  stages by name, kind and target          check     what models, data and targets do not allow
//! forecast  how long stages will take                plan_report   what `slmc plan` says
//! explain   codes, gates and options in words        embedded  the quickstart, part of the program
//! schema    JSON Schemas of recipes, targets, reports   history   runs over time, a table of artifacts
//! released  results that a lock names, found again   suggest   limits from the last results
//! emit      a plan as a workflow of another engine   attest   what is stated of artifacts when the gates are judged
//! sign      artifacts signed where every gate holds
//! ```

mod attest;
mod cache;
mod check;
mod condition;
mod declared;
mod document;
pub mod embedded;
pub mod emit;
mod environment;
mod error;
mod expand;
mod explain;
mod forecast;
mod gates;
mod hashes;
mod history;
mod key;
mod lock;
mod matrix;
mod mistake;
mod options;
mod overrides;
mod plan;
mod plan_report;
mod reader;
mod released;
pub mod reports;
mod reproduce;
mod run_report;
mod runner;
pub mod schema;
mod share;
mod sign;
mod stage;
mod suggest;
mod validate;

pub use error::RecipeError;
pub use explain::{Explanation, UnknownTopic, explain};
pub use forecast::Basis;
pub use gates::{Contributor, GateResult, GateVerdict, NotJudged};
pub use history::{
    Course, HistoryError, HistoryFormat, HistoryReport, HistoryRequest, PastRun, PastStage, TableReport, TableRow,
    history,
};
pub use mistake::{Code, Mistakes};
pub use overrides::{Setting, SettingError};
pub use plan::{RunOptions, plan};
pub use plan_report::{Estimate, LeftOutStage, PlanReport, PlannedKey, PlannedStage, Totals, Variable};
pub use reader::check_recipe;
pub use reproduce::{ReproduceError, ReproduceOptions, ReproduceReport, ReproducedStage, reproduce};
pub use run_report::{InputDigest, RunReport, RunVerdict, SampleResult, SignedArtifact, StageResult, Status};
pub use runner::run;
pub use share::{Direction, ShareReport, SharedStage, WhyReport, share, why};
pub use suggest::{SuggestReport, Suggestion, suggest};
