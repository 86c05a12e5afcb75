//! `slmc keygen`

use crate::shell::{ExitStatus, Shell};
#[cfg(feature = "pkcs11")]
use crate::trust::keygen::keygen_on_token;
use crate::trust::keygen::{KeyType, KeygenReport, keygen};
use crate::trust::{Algorithm, KeyPlace};
use anyhow::bail;
use std::path::{Path, PathBuf};

/// Make a key that signs artifacts, or one that opens sealed weights
///
/// A signing key is two files: NAME.pem, the secret key in PKCS#8 PEM that its owner alone can read, and NAME.pub, the public key
/// in SPKI PEM; openssl reads both. A device's key is NAME.key, 32 random bytes. A file that is there is never replaced. With
/// --token the secret key is made on a token (PKCS #11) and never leaves it; NAME.pub is all that is written.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc keygen -o release
  slmc keygen --type p256 -o release
  slmc keygen --type device -o gateway-0017
  slmc keygen --type p256 --token 'pkcs11:token=release;object=models?pin-source=env:PIN' -o release")]
pub(super) struct Args {
    /// What the key is for [default: ed25519]
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    kind: Option<Kind>,

    /// Name of the key on a token, as RFC 7512 has it: pkcs11:token=LABEL;object=NAME
    ///
    /// Its module is ?module-path=FILE or SLMC_PKCS11_MODULE; its PIN ?pin-source=env:NAME, ?pin-source=file:PATH or
    /// SLMC_PKCS11_PIN. Needs a build with the feature `pkcs11`.
    #[arg(long, value_name = "URI")]
    token: Option<String>,

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
        let Some(token) = &self.token else {
            shell.result(&keygen(kind, &self.out)?)?;
            return Ok(ExitStatus::Success);
        };
        let KeyType::Signing(algorithm) = kind else {
            bail!("a device's key is 32 bytes that the device holds, not a key of a token; leave out --token");
        };
        let place = KeyPlace::of(token, Path::new(""))?;
        shell.result(&on_token(&place, algorithm, &self.out)?)?;
        Ok(ExitStatus::Success)
    }
}

#[cfg(feature = "pkcs11")]
fn on_token(place: &KeyPlace, algorithm: Algorithm, out: &Path) -> anyhow::Result<KeygenReport> {
    let KeyPlace::Token(uri) = place else { bail!(NOT_A_TOKEN) };
    Ok(keygen_on_token(uri, algorithm, out)?)
}

/// Without the feature `pkcs11` no place is a token's: [`KeyPlace::of`] has refused them by the feature's name.
#[cfg(not(feature = "pkcs11"))]
fn on_token(_: &KeyPlace, _: Algorithm, _: &Path) -> anyhow::Result<KeygenReport> {
    bail!(NOT_A_TOKEN)
}

const NOT_A_TOKEN: &str = "--token names a key on a token: pkcs11:token=LABEL;object=NAME";
