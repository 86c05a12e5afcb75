//! `slmc oms`

use crate::shell::{ExitStatus, Shell};
use crate::trust::{PublicKey, SecretKey, oms};
use std::path::{Path, PathBuf};

/// Sign the directory of a release as the OpenSSF specifies it, or check it
///
/// One signature over every file below a directory, in a Sigstore bundle: `model_signing verify key` and slmc check it. Keys are of
/// ECDSA P-256, since the specification has no Ed25519. Sign the artifacts in the directory first: that changes them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc oms sign release/ --key release.pem -o release.sig
  slmc oms verify release/ --signature release.sig --key release.pub")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Sign every file below a directory
    ///
    /// Links are refused, since what they lead to would not be signed. Files of git are left out, and the signature itself where
    /// it lies in the directory.
    #[command(after_help = "\
Example:
  slmc oms sign release/ --key env:SLMC_RELEASE_KEY -o release.sig")]
    Sign {
        /// Directory of the release
        #[arg(value_name = "DIR")]
        directory: PathBuf,

        /// Secret key of ECDSA P-256: a path, file:PATH, env:VAR or pkcs11:…
        // A key that is passed itself begins with hyphens: it must not come back in a message about an unknown option.
        #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
        key: String,

        /// Signature to write; replaced if it is one
        #[arg(short, long, value_name = "SIG")]
        out: PathBuf,
    },
    /// Check that every file below a directory is the one that was signed, and that none is missing or more
    #[command(after_help = "\
Example:
  slmc oms verify release/ --signature release.sig --key release.pub")]
    Verify {
        /// Directory of the release
        #[arg(value_name = "DIR")]
        directory: PathBuf,

        /// Its signature
        #[arg(long, value_name = "SIG")]
        signature: PathBuf,

        /// Public key in SPKI PEM: a path, file:PATH or env:VAR; one of several must have signed
        #[arg(long, value_name = "PUB", required = true)]
        key: Vec<String>,
    },
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        match &self.command {
            Command::Sign { directory, key, out } => {
                let key = SecretKey::read(key)?;
                if let Some(warning) = key.warning() {
                    shell.warn(warning);
                }
                shell.result(&oms::sign(directory, out, &key)?)?;
            }
            Command::Verify { directory, signature, key } => {
                let keys: Vec<PublicKey> =
                    key.iter().map(|text| PublicKey::read(text, Path::new(""))).collect::<Result<_, _>>()?;
                shell.result(&oms::verify(directory, signature, &keys)?)?;
            }
        }
        Ok(ExitStatus::Success)
    }
}
