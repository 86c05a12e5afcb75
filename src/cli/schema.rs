//! `slmc schema`

use crate::recipe::schema::{Document, SchemaReport};
use crate::shell::{ExitStatus, Shell};

/// Print the JSON Schema of recipes, of target files, or of the report of a run
///
/// Draft 7, for editors and for programs that read reports. An editor that knows TOML schemas completes and checks the keys
/// of a recipe that begins with the line `#:schema ./recipe.schema.json`. The same schemas are in docs/schema/.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc schema recipe > recipe.schema.json
  slmc schema report")]
pub(super) struct Args {
    /// What it describes: recipe, target, report
    #[arg(value_name = "WHAT", value_enum, hide_possible_values = true)]
    document: Document,
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        shell.result(&SchemaReport::of(self.document))?;
        Ok(ExitStatus::Success)
    }
}
