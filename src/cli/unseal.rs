//! `slmc unseal`

use super::seal::device_keys;
use crate::artifact::host::ArtifactFile;
use crate::disk::atomic;
use crate::report::{Report, Table, grouped};
use crate::seal::age::{Recipient, encrypted};
use crate::seal::sealing::{read_stanza, unseal};
use crate::shell::{ExitStatus, Shell};
use crate::stages::arguments::groups::ArtifactArg;
use anyhow::Context;
use serde::Serialize;
use slm_runtime::format::header::MAGIC;
use std::io::Write;
use std::path::PathBuf;

/// Open the weights of a sealed artifact with a device's key
///
/// What comes out has the tensors' digests of the file that was sealed, and no signature: that was over the cipher.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc unseal sealed.slm --device-key gateway.key -o open.slm
  slmc unseal sealed.slm --device-key newer.key --stanza newer.stanza -o open.slm
  slmc unseal sealed.slm --device-key gateway.key --to-age age1… -o open.slm.age")]
pub(super) struct Args {
    #[command(flatten)]
    artifact: ArtifactArg,

    /// Key of a device: a path, file:PATH or env:VAR
    #[arg(long, value_name = "KEY")]
    device_key: String,

    /// Stanza of the device that travels beside the file
    #[arg(long, value_name = "FILE")]
    stanza: Option<PathBuf>,

    /// Write a copy that `age` opens with this recipient's key, and nothing in the open
    #[arg(long, value_name = "RECIPIENT", value_parser = recipient)]
    to_age: Option<Recipient>,

    /// File to write; replaced if slmc made it
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,
}

/// First bytes of a file of age, by which one is known.
const AGE: &[u8] = b"age-encryption.org/v1\n";

fn recipient(text: &str) -> Result<Recipient, String> {
    Recipient::parse(text).map_err(|error| error.to_string())
}

/// Result of `slmc unseal`.
#[derive(Debug, Serialize)]
struct UnsealReport {
    /// File that was written.
    out: PathBuf,
    /// Tensors whose digests hold.
    tensors: usize,
}

impl Report for UnsealReport {
    const SCHEMA: &'static str = "slmc.unseal/1";

    fn text(&self) -> String {
        let mut table = Table::pairs();
        table.row(["open", &self.out.display().to_string()]);
        table.row(["digests", &format!("{} tensors hold", grouped(self.tensors as u64))]);
        table.to_string()
    }
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let path = &self.artifact.artifact;
        let keys = device_keys(std::slice::from_ref(&self.device_key), shell)?;
        let stanza = self.stanza.as_deref().map(read_stanza).transpose()?;
        let file = ArtifactFile::open(path)?;
        let view = file.view()?;
        let opened = unseal(&view, &keys[0], stanza.as_ref()).with_context(|| path.display().to_string())?;
        match &self.to_age {
            None => atomic::write_file(&self.out, &MAGIC, |out| out.write_all(&opened))?,
            Some(recipient) => {
                let copy = encrypted(&opened, recipient)?;
                atomic::write_file(&self.out, AGE, |out| out.write_all(&copy))?;
            }
        }
        shell.result(&UnsealReport { out: self.out.clone(), tensors: view.tensor_count() })?;
        Ok(ExitStatus::Success)
    }
}
