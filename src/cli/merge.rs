//! `slmc merge`

use super::global::Global;
use crate::formats::adapter::Weighted;
use crate::shell::{ExitStatus, Shell};
use crate::stages::arguments::groups::{MODEL_AND_OUTPUT, OutArg};
use crate::stages::merge::merge_directory;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Merge LoRA adapters into the model they were trained on
///
/// Reads adapters as PEFT saves them: LoRA, rsLoRA and DoRA with ranks and scales by module, whole modules, tables and
/// added tokens. Writes a dense directory with the data type of the base, tensor by tensor. Several adapters are merged one
/// after the other.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc merge models/base adapters/chat -o out/chat
  slmc merge models/base adapters/chat=0.7 adapters/tone=0.3 -o out/both
  slmc merge models/base.gguf adapters/chat --max-ram 2GiB -o out/chat")]
pub(super) struct Args {
    /// The model that the adapters were trained on
    #[arg(value_name = "BASE", help_heading = MODEL_AND_OUTPUT, display_order = 0)]
    model: PathBuf,

    /// Adapters, each perhaps with a weight: DIR=0.5
    ///
    /// The weight multiplies the change; 1 if not given. An adapter with whole modules has none.
    #[arg(value_name = "ADAPTER[=WEIGHT]", num_args = 1.., required = true, help_heading = MODEL_AND_OUTPUT, display_order = 1)]
    adapters: Vec<Adapter>,

    #[command(flatten)]
    out: OutArg,
}

/// A directory, perhaps with a weight after the last `=`.
#[derive(Clone, Debug)]
struct Adapter(Weighted);

impl FromStr for Adapter {
    type Err = WrongWeight;

    fn from_str(text: &str) -> Result<Self, WrongWeight> {
        let whole = PathBuf::from(text);
        let Some((path, weight)) = text.rsplit_once('=').filter(|_| !whole.exists()) else {
            return Ok(Adapter(Weighted { path: whole, weight: 1.0 }));
        };
        let weight = weight.parse().ok().filter(|weight: &f64| weight.is_finite());
        let weight = weight.ok_or_else(|| WrongWeight(text.to_owned()))?;
        Ok(Adapter(Weighted { path: PathBuf::from(path), weight }))
    }
}

/// A weight that is not a number.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is neither a directory nor DIR=WEIGHT with a number, such as adapters/chat=0.5")]
struct WrongWeight(String);

impl Args {
    /// The model that it reads.
    pub(super) fn model(&self) -> &Path {
        &self.model
    }

    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let adapters: Vec<Weighted> = self.adapters.iter().map(|adapter| adapter.0.clone()).collect();
        let names: Vec<String> = adapters.iter().map(|adapter| adapter.path.display().to_string()).collect();
        shell.status("Merging", format_args!("{} into {}", names.join(" and "), self.model.display()));
        let report = merge_directory(&self.model, &adapters, &self.out.out, &global.run_settings(), shell)?;
        shell.status("Wrote", self.out.out.display());
        shell.result(&report)?;
        Ok(ExitStatus::Success)
    }
}
