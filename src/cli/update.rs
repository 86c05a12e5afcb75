//! `slmc update`

use crate::shell::{ExitStatus, Shell};
use crate::update::{apply::apply, inspect::inspect, pack::pack};
use std::path::PathBuf;

/// Packages that make a device's artifact another one
///
/// A package holds what changed, leaf by leaf: unchanged leaves are named, weights are differences from what the device has.
/// The device makes the new artifact beside the old one and runs it on trial (docs/update.md).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc sign new.slm --key release.pem --counter 2
  slmc update pack shipped.slm new.slm -o new.slmu
  slmc update inspect new.slmu
  slmc update apply shipped.slm new.slmu -o tried.slm")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make the package for devices that run OLD.slm
    ///
    /// NEW.slm needs a chunk list, which `slmc sign` makes, OLD.slm does not. Both are read as devices have them: host parts
    /// are neither compared nor sent.
    Pack {
        /// Artifact that the devices run
        #[arg(value_name = "OLD.slm")]
        old: PathBuf,

        /// Artifact that they are to run
        #[arg(value_name = "NEW.slm")]
        new: PathBuf,

        /// Package to write; replaced if slmc made it
        #[arg(short, long, value_name = "UP.slmu")]
        out: PathBuf,
    },
    /// Make the new artifact from the old one, as a device does
    ///
    /// What is written is the device part, every byte checked by the package's chunk list and by the artifact's digests. Whether
    /// someone signed it is for `slmc verify --key`.
    Apply {
        /// Artifact that the package was made from, or its device part
        #[arg(value_name = "OLD.slm")]
        old: PathBuf,

        /// Package
        #[arg(value_name = "UP.slmu")]
        package: PathBuf,

        /// Artifact to write; replaced if slmc made it
        #[arg(short, long, value_name = "NEW.slm")]
        out: PathBuf,
    },
    /// Show what a package holds, by op
    Inspect {
        /// Package
        #[arg(value_name = "UP.slmu")]
        package: PathBuf,
    },
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        match &self.command {
            Command::Pack { old, new, out } => shell.result(&pack(old, new, out)?)?,
            Command::Apply { old, package, out } => shell.result(&apply(old, package, out)?)?,
            Command::Inspect { package } => shell.result(&inspect(package)?)?,
        }
        Ok(ExitStatus::Success)
    }
}
