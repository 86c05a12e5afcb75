//! `slmc man`

use crate::disk::atomic;
use crate::report::{Report, grouped};
use crate::shell::{ExitStatus, Shell};
use anyhow::Context;
use clap::Command;
use clap_mangen::Man;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

/// First bytes of every page, by which a file is known that may be replaced.
const MAGIC: &[u8] = b".ie ";

/// Print the manual page, or write those of all subcommands
///
/// They are made from the same texts as the help. Without DIR the page of the program alone goes to stdout.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc man | man -l -
  slmc man -o ~/.local/share/man/man1")]
pub(super) struct Args {
    /// Directory to write slmc.1, slmc-quantize.1, … to
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Result of `slmc man`.
#[derive(Debug, Serialize)]
struct Pages {
    /// The files written.
    files: Vec<PathBuf>,
    /// The page of the program, where no directory was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<String>,
}

impl Report for Pages {
    const SCHEMA: &'static str = "slmc.man/1";

    fn text(&self) -> String {
        match &self.page {
            Some(page) => page.trim_end().to_owned(),
            None => format!("{} pages", grouped(self.files.len() as u64)),
        }
    }
}

/// A command and those below it, by the names of their pages.
fn pages(command: &Command, all: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages(below, all)?;
    }
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render(&mut page)?;
    all.push((man.get_filename(), page));
    Ok(())
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let mut command = super::definition().disable_help_subcommand(true);
        command.build();
        let Some(directory) = &self.out else {
            let mut page = Vec::new();
            Man::new(command).render(&mut page)?;
            shell.result(&Pages { files: Vec::new(), page: Some(String::from_utf8(page)?) })?;
            return Ok(ExitStatus::Success);
        };
        let mut all = Vec::new();
        pages(&command, &mut all)?;
        std::fs::create_dir_all(directory).with_context(|| format!("{}: cannot be made", directory.display()))?;
        let files: Vec<PathBuf> = all.iter().map(|(name, _)| directory.join(name)).collect();
        for path in &files {
            atomic::check_file(path, MAGIC)?;
        }
        for (path, (_, page)) in files.iter().zip(&all) {
            atomic::write_file(path, MAGIC, |file| file.write_all(page))?;
        }
        shell.result(&Pages { files, page: None })?;
        Ok(ExitStatus::Success)
    }
}
