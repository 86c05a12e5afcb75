//! `slmc completions`

use crate::report::Report;
use crate::shell::{ExitStatus, Shell};
use clap_complete::{Shell as Program, generate};
use serde::Serialize;

/// Print completions for a shell
///
/// bash:        slmc completions bash > ~/.local/share/bash-completion/completions/slmc
///
/// zsh:         slmc completions zsh > ~/.zfunc/_slmc, where ~/.zfunc is in $fpath
///
/// fish:        slmc completions fish > ~/.config/fish/completions/slmc.fish
///
/// powershell:  slmc completions powershell >> $PROFILE
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc completions bash")]
pub(super) struct Args {
    /// bash, zsh, fish, powershell or elvish
    #[arg(value_name = "SHELL", value_enum, hide_possible_values = true)]
    shell: Program,
}

/// Result of `slmc completions`.
#[derive(Debug, Serialize)]
struct Completions {
    /// The shell.
    shell: String,
    /// What it is to read.
    script: String,
}

impl Report for Completions {
    const SCHEMA: &'static str = "slmc.completions/1";

    fn text(&self) -> String {
        self.script.trim_end().to_owned()
    }
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let mut command = super::definition();
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        generate(self.shell, &mut command, name, &mut script);
        let script = String::from_utf8(script)?;
        shell.result(&Completions { shell: self.shell.to_string(), script })?;
        Ok(ExitStatus::Success)
    }
}
