//! New keys on disk:
//!
//! ```text
//! NAME.pem  PKCS#8 PEM, mode 0600     NAME.pub  SubjectPublicKeyInfo PEM     NAME.key  32 bytes of a device, mode 0600
//! ```
//!
//! A key that is there is never replaced: what it signed would no longer verify, what it sealed no longer open.

use super::{Algorithm, DeviceKey, PublicKey, SecretKey, TrustError};
use crate::disk::atomic::{self, Readers};
use crate::disk::hash::hex;
use crate::report::Report;
use serde::Serialize;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What a new key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// Signatures.
    Signing(Algorithm),
    /// Sealed weights.
    Device,
}

/// A key that was made.
#[derive(Debug, Serialize)]
pub struct KeygenReport {
    /// `ed25519`, `p256` or `device`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The secret file, or the name of the key on a token.
    secret: PathBuf,
    /// Whether the secret key is on a token.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    on_token: bool,
    /// The public file; a device's key has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    public: Option<PathBuf>,
    /// SHA-256 of the SubjectPublicKeyInfo in DER.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
}

impl Report for KeygenReport {
    const SCHEMA: &'static str = "slmc.keygen/1";

    fn text(&self) -> String {
        let place = self.secret.display();
        let mut lines = vec![match self.on_token {
            true => format!("secret  {place}  (it never leaves the token)"),
            false => format!("secret  {place}  (keep it out of version control and of images)"),
        }];
        lines.extend(self.public.iter().map(|public| format!("public  {}", public.display())));
        lines.extend(self.key_id.iter().map(|key_id| format!("key id  {key_id}")));
        lines.join("\n")
    }
}

/// Makes a key and writes it beside `name`.
///
/// # Errors
/// [`TrustError`]; then neither file is there that was not before.
pub fn keygen(kind: KeyType, name: &Path) -> Result<KeygenReport, TrustError> {
    match kind {
        KeyType::Device => {
            let secret = with_extension(name, "key");
            absent(&secret)?;
            write(&secret, DeviceKey::generate()?.bytes(), true)?;
            Ok(KeygenReport { kind: "device", secret, on_token: false, public: None, key_id: None })
        }
        KeyType::Signing(algorithm) => {
            let (secret, public) = (with_extension(name, "pem"), with_extension(name, "pub"));
            absent(&secret)?;
            absent(&public)?;
            let key = SecretKey::generate(algorithm)?;
            write(&public, key.public().to_pem().as_bytes(), false)?;
            // A key that was made here has its bytes here.
            let pem = key.to_pem().unwrap_or_default();
            if let Err(error) = write(&secret, pem.as_bytes(), true) {
                let _ = std::fs::remove_file(&public);
                return Err(error);
            }
            Ok(report(algorithm, secret, false, public, key.public()))
        }
    }
}

/// Makes a key on a token, and writes its public half as `NAME.pub`.
///
/// # Errors
/// [`TrustError`]. Where the public half cannot be written, the key is on the token all the same, and the error says so.
#[cfg(feature = "pkcs11")]
pub fn keygen_on_token(
    uri: &super::token_uri::TokenUri,
    algorithm: Algorithm,
    name: &Path,
) -> Result<KeygenReport, TrustError> {
    let public = with_extension(name, "pub");
    absent(&public)?;
    let key = super::token::generate(uri, algorithm)?;
    write(&public, key.to_pem().as_bytes(), false)?;
    Ok(report(algorithm, uri.to_string().into(), true, public, &key))
}

fn report(algorithm: Algorithm, secret: PathBuf, on_token: bool, public: PathBuf, key: &PublicKey) -> KeygenReport {
    let kind = match algorithm {
        Algorithm::Ed25519 => "ed25519",
        Algorithm::P256 => "p256",
    };
    KeygenReport { kind, secret, on_token, public: Some(public), key_id: Some(hex(&key.id())) }
}

/// `NAME.EXTENSION`, also where the name has dots.
fn with_extension(name: &Path, extension: &str) -> PathBuf {
    let mut text = OsString::from(name);
    text.push(".");
    text.push(extension);
    text.into()
}

fn absent(path: &Path) -> Result<(), TrustError> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Err(TrustError::KeyExists { path: path.to_owned() }),
        Err(_) => Ok(()),
    }
}

/// Writes a file that is not there; a secret one belongs to its owner alone before it holds anything.
fn write(path: &Path, content: &[u8], secret: bool) -> Result<(), TrustError> {
    let never = b"a key is never replaced";
    let readers = if secret { Readers::Owner } else { Readers::All };
    atomic::write_file_for(readers, path, never, |out| out.write_all(content)).map_err(|error| match error {
        atomic::AtomicError::Foreign { path } => TrustError::KeyExists { path },
        error => TrustError::Write(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_keys_are_read_again_and_never_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        for (algorithm, kind) in [(Algorithm::Ed25519, "ed25519"), (Algorithm::P256, "p256")] {
            let name = directory.path().join(format!("release.{kind}"));
            let report = keygen(KeyType::Signing(algorithm), &name).expect("written");
            let secret = SecretKey::read(&report.secret.display().to_string()).expect("a key");
            assert_eq!((report.kind, secret.algorithm(), secret.warning()), (kind, algorithm, None));
            let public = PublicKey::read(&format!("release.{kind}.pub"), directory.path()).expect("a key");
            assert_eq!(report.key_id, Some(hex(&public.id())));
            assert!(public.verifies(b"message", &secret.sign(b"message").expect("a key that is here")));
            let before = std::fs::read(&report.secret).expect("there");
            for gone in ["pem", "pub"] {
                let path = with_extension(&name, gone);
                let kept = std::fs::read(&path).expect("there");
                std::fs::remove_file(&path).expect("removed");
                let error = keygen(KeyType::Signing(algorithm), &name).expect_err("one is there").to_string();
                assert!(error.contains("never replaced") && !path.exists(), "{error}");
                std::fs::write(&path, kept).expect("written");
            }
            assert_eq!(std::fs::read(&report.secret).expect("there"), before);
        }
        let name = directory.path().join("gateway");
        let report = keygen(KeyType::Device, &name).expect("written");
        assert_eq!(std::fs::read(&report.secret).expect("there").len(), 32);
        assert!(keygen(KeyType::Device, &name).is_err());
        assert!(DeviceKey::read(&report.secret.display().to_string()).expect("a key").warning().is_none());
    }
}
