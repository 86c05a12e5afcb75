//! The command line: one file per subcommand, each with its options (the help text) and a `run` that opens the
//! files named, calls the library and hands the report to the shell.

mod attest;
mod attribute;
mod audit;
mod bench;
mod cache;
mod chat;
mod classify;
mod completions;
mod diff;
mod doctor;
mod estimate;
mod explain;
mod gates;
mod generate;
pub mod global;
mod init;
mod inspect;
mod key_stanza;
mod keygen;
mod logging;
mod man;
mod merge;
mod oms;
mod plan;
mod prompt;
mod report;
mod reproduce;
mod run;
mod sampling;
mod sbom;
mod schema;
mod seal;
mod sign;
mod speculation;
mod stage;
mod targets;
mod tokenizer;
mod unseal;
mod update;
mod verify;
mod version;
mod worker;

use crate::formats::adapter;
use crate::shell::{ExitStatus, Shell};
use anyhow::{Context, ensure};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use global::Global;
use stage::StageCommand;
use std::path::{Path, PathBuf};

/// Compiles small language models into one file that an edge device runs, bit for bit as proved on the build machine
///
/// The way from a Hugging Face checkpoint to a device:
///
///   slmc quantize DIR --scheme mixed -o QUANTIZED
///   slmc compile QUANTIZED --target cortex-a76 -o MODEL.slm
///   slmc eval MODEL.slm --data TEXT --reference DIR
///
/// Exit codes: 0 a result that passes, 1 a result that does not (it does not fit, a gate is missed), 2 no result.
#[derive(Debug, Parser)]
#[command(name = "slmc", version, verbatim_doc_comment, arg_required_else_help = true, disable_help_flag = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Stage(StageCommand),
    Generate(generate::Args),
    Chat(chat::Args),
    Attribute(attribute::Args),
    Classify(classify::Args),
    Merge(merge::Args),
    Inspect(inspect::Args),
    Verify(verify::Args),
    Audit(audit::Args),
    Seal(seal::Args),
    Unseal(unseal::Args),
    KeyStanza(key_stanza::Args),
    Keygen(keygen::Args),
    Attest(attest::Args),
    Sbom(sbom::Args),
    Oms(oms::Args),
    Sign(sign::Args),
    Bench(bench::Args),
    Estimate(estimate::Args),
    Init(init::Args),
    Plan(plan::Args),
    Run(run::Args),
    Cache(cache::Args),
    Gates(gates::Args),
    Reproduce(reproduce::Args),
    Report(report::Args),
    Diff(diff::Args),
    Explain(explain::Args),
    Schema(schema::Args),
    Tokenizer(tokenizer::Args),
    Targets(targets::Args),
    Update(update::Args),
    Worker(worker::Args),
    Doctor(doctor::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// All of the command line as clap has it, for completions and manual pages.
fn definition() -> clap::Command {
    Cli::command()
}

impl Cli {
    /// The command line of this process; where it is wrong, or asks for help, the program ends.
    pub fn read() -> Self {
        // Not part of the definition: manual pages should be the same wherever they are made.
        let version: &'static str = version::long().leak();
        let matches = definition().long_version(version).get_matches();
        Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Runs the command and says how it ended.
    pub fn run(&self) -> ExitStatus {
        let shell = self.global.shell();
        if let Some(base) = &self.global.base {
            adapter::set_base(base);
        }
        let outcome = self.check_global().and_then(|()| self.set_threads()).and_then(|()| self.dispatch(&shell));
        shell.exit_status(outcome)
    }

    /// Refuses options of all commands that this one has no use for.
    fn check_global(&self) -> anyhow::Result<()> {
        if let Some(models) = self.models() {
            adapter::check_base(models)?;
        }
        let estimates = match &self.command {
            Command::Stage(command) => command.estimates_memory(),
            Command::Merge(_) | Command::Run(_) | Command::Reproduce(_) => true,
            Command::Tokenizer(args) => args.stage().is_some_and(StageCommand::estimates_memory),
            _ => false,
        };
        ensure!(
            estimates || self.global.max_ram.is_none(),
            "--max-ram refuses work whose memory is estimated before: of stages that make a model, `merge`, `run` and \
             `reproduce`; this command estimates none, leave it out"
        );
        Ok(())
    }

    /// The models that the command line names; `None` where a recipe or an artifact names them.
    fn models(&self) -> Option<Vec<PathBuf>> {
        Some(match &self.command {
            Command::Stage(command) => command.models(),
            Command::Generate(args) => vec![args.model().to_owned()],
            Command::Chat(args) => vec![args.model().to_owned()],
            Command::Classify(args) => vec![args.model().to_owned()],
            Command::Merge(args) => vec![args.model().to_owned()],
            Command::Tokenizer(args) => args.stage().map_or_else(Vec::new, StageCommand::models),
            Command::Inspect(args) => vec![args.model().to_owned()],
            Command::Estimate(args) => vec![args.model().to_owned()],
            Command::Diff(args) => args.both().map(Path::to_owned).to_vec(),
            Command::Run(_) | Command::Cache(_) | Command::Reproduce(_) => return None,
            _ => Vec::new(),
        })
    }

    fn dispatch(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let global = &self.global;
        match &self.command {
            Command::Stage(command) => command.run(global, shell),
            Command::Generate(args) => args.run(global, shell),
            Command::Chat(args) => args.run(global, shell),
            Command::Attribute(args) => args.run(shell),
            Command::Classify(args) => args.run(shell),
            Command::Merge(args) => args.run(global, shell),
            Command::Inspect(args) => args.run(shell),
            Command::Verify(args) => args.run(shell),
            Command::Audit(args) => args.run(shell),
            Command::Seal(args) => args.run(shell),
            Command::Unseal(args) => args.run(shell),
            Command::KeyStanza(args) => args.run(shell),
            Command::Keygen(args) => args.run(shell),
            Command::Attest(args) => args.run(shell),
            Command::Sbom(args) => args.run(shell),
            Command::Oms(args) => args.run(shell),
            Command::Sign(args) => args.run(shell),
            Command::Bench(args) => args.run(global, shell),
            Command::Estimate(args) => args.run(shell),
            Command::Init(args) => args.run(shell),
            Command::Plan(args) => args.run(global, shell),
            Command::Run(args) => args.run(global, shell),
            Command::Cache(args) => args.run(global, shell),
            Command::Gates(args) => args.run(global, shell),
            Command::Reproduce(args) => args.run(global, shell),
            Command::Report(args) => args.run(global, shell),
            Command::Diff(args) => args.run(shell),
            Command::Explain(args) => args.run(shell),
            Command::Schema(args) => args.run(shell),
            Command::Tokenizer(args) => args.run(global, shell),
            Command::Targets(args) => args.run(shell),
            Command::Update(args) => args.run(shell),
            Command::Worker(args) => args.run(global, shell),
            Command::Doctor(args) => args.run(global, shell),
            Command::Completions(args) => args.run(shell),
            Command::Man(args) => args.run(shell),
        }
    }

    fn set_threads(&self) -> anyhow::Result<()> {
        let Some(threads) = self.global.threads else { return Ok(()) };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.get());
        pool.build_global().context("the thread pool cannot be made; pass a smaller --threads")
    }
}
