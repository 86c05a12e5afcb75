//! `slmc keygen`

use crate::shell::{ExitStatus, Shell};
use crate::trust::Algorithm;
use crate::trust::keygen::{KeyType, keygen};
use std::path::PathBuf;

/// Make a key that signs artifacts, or one that opens sealed weights
///
/// A signing key is two files: NAME.pem, the secret key in PKCS#8 PEM that its owner alone can read, and NAME.pub, the public key
/// in SPKI PEM; openssl reads both. A device's key is NAME.key, 32 random bytes. A file that is there is never replaced.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc keygen -o release
  slmc keygen --type p256 -o release
  slmc keygen --type device -o gateway-0017")]
pub(super) struct Args {
    /// What the key is for [default: ed25519]
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    kind: Option<Kind>,

    /// Name of the files, without their extension
    #[arg(short, long, value_name = "NAME")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Kind {
    /// Ed25519: signs artifacts for devices, with the least code there
    Ed25519,
    /// ECDSA P-256: signs artifacts, attestations and directories of releases; what key services and tokens have too
    P256,
    /// 32 random bytes: opens sealed weights
    Device,
}

impl Args {
    pub(super) fn run(&self, shell: &Shell) -> anyhow::Result<ExitStatus> {
        let kind = match self.kind.unwrap_or(Kind::Ed25519) {
            Kind::Ed25519 => KeyType::Signing(Algorithm::Ed25519),
            Kind::P256 => KeyType::Signing(Algorithm::P256),
            Kind::Device => KeyType::Device,
        };
        shell.result(&keygen(kind, &self.out)?)?;
        Ok(ExitStatus::Success)
    }
}
