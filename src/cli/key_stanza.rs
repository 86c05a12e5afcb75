//! `slmc key-stanza`

use super::seal::device_keys;
use crate::artifact::host::ArtifactFile;
use crate::report::{Report, Table};
use crate::seal::sealing::{further_stanza, write_stanza};
use crate::shell::{ExitStatus, Shell};
use crate::stages::arguments::groups::ArtifactArg;
use anyhow::Context;
use serde::Serialize;
use slm_runtime::seal::DeviceKey;
use std::path::PathBuf;

/// Let a further device open a sealed artifact, by 48 bytes beside it
///
/// The stanza is outside the signature: the file stays as it was signed, one for a whole fleet, and a wrong stanza only fails.
/// A key that opens the file already is needed, since a stanza holds the key of the file.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  slmc key-stanza sealed.slm --owner-key gateway.key --device-key newer.key -o newer.stanza")]
pub(super) struct Args {
    #[command(flatten)]
    artifact: ArtifactArg,

    /// Key that opens the file: a path, file:PATH or env:VAR
    #[arg(long, value_name = "KEY")]
    owner_key: String,

    /// Key of the further device: a path, file:PATH or env:VAR
    #[arg(long, value_name = "KEY")]
    device_key: String,

    /// File to write, 48 bytes
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,
}

/// Result of `slmc key-stanza`.
#[derive(Debug, Serialize)]
struct StanzaReport {
    /// File that was written.
    out: PathBuf,
    /// Name of the device's key.
    key_id: String,
}

impl Report for StanzaReport {
    const SCHEMA: &'static str = "slmc.key-stanza/1";

    fn text(&self) -> String {
        let mut table = Table::pairs();
        table.row(["stanza", &self.out.display().to_string()]);
        table.row(["key id", &self.key_id]);
        table.to_string()
    }
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let path = &self.artifact.artifact;
        let keys = device_keys(&[self.owner_key.clone(), self.device_key.clone()], shell)?;
        let [owner, device] = &keys[..] else { unreachable!("two were read") };
        let file = ArtifactFile::open(path)?;
        let stanza = further_stanza(&file.view()?, owner, device).with_context(|| path.display().to_string())?;
        write_stanza(&self.out, &stanza)?;
        let id = DeviceKey::new(device.bytes()).id();
        let key_id = id.iter().map(|byte| format!("{byte:02x}")).collect();
        shell.result(&StanzaReport { out: self.out.clone(), key_id })?;
        Ok(ExitStatus::Success)
    }
}
