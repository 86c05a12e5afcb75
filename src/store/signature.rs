//! Signatures of entries: Ed25519 (RFC 8032) over what an entry says (the layout is in `entry`), so that whoever may read a
//! cache cannot write into it unseen. Secret keys are PKCS#8 PEM, public ones SubjectPublicKeyInfo PEM, as openssl writes
//! both:
//!
//! ```text
//! openssl genpkey -algorithm ed25519 -out ci.pem      openssl pkey -in ci.pem -pubout -out ci.pub
//! ```
//!
//! A key is named by the SHA-256 of its SubjectPublicKeyInfo in DER.

use super::{Digest, Entry, StoreError};
use ct_codecs::{Base64, Decoder, Encoder};
use ed25519_compact::{KeyPair, PublicKey};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A signature in an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signature {
    /// Name of the key.
    key_id: Digest,
    /// Base64 of 64 bytes.
    ed25519: String,
}

/// Where a key is: `env:NAME`, `file:PATH`, or a path relative to `base`.
enum Place {
    Variable(String),
    File(PathBuf),
}

impl Place {
    fn of(text: &str, base: &Path) -> Self {
        match (text.strip_prefix("env://").or(text.strip_prefix("env:")), text.strip_prefix("file:")) {
            (Some(name), _) => Place::Variable(name.to_owned()),
            (None, Some(path)) => Place::File(base.join(path)),
            (None, None) => Place::File(base.join(text)),
        }
    }

    fn name(&self) -> String {
        match self {
            Place::Variable(name) => format!("${name}"),
            Place::File(path) => path.display().to_string(),
        }
    }

    fn fault(&self, fault: impl Into<String>) -> StoreError {
        StoreError::Key { place: self.name(), fault: fault.into() }
    }

    fn text(&self) -> Result<String, StoreError> {
        match self {
            Place::Variable(name) => {
                std::env::var(name).map_err(|_| self.fault("is not set; put the PEM text of the key there"))
            }
            Place::File(path) => {
                std::fs::read_to_string(path).map_err(|error| self.fault(format!("cannot be read: {error}")))
            }
        }
    }
}

/// A secret key that signs entries. Never shown.
pub struct Signer {
    pair: KeyPair,
    id: Digest,
    /// For the warning about rights; `None` where there is nothing to warn of.
    readable: Option<String>,
}

impl Signer {
    /// The key at `env:NAME`, `file:PATH` or a path.
    ///
    /// # Errors
    /// [`StoreError::Key`].
    pub fn read(text: &str) -> Result<Self, StoreError> {
        let place = Place::of(text, Path::new(""));
        let pair = KeyPair::from_pem(&place.text()?).map_err(|_| {
            place.fault(
                "is not a secret Ed25519 key in PKCS#8 PEM; make one: openssl genpkey -algorithm ed25519 -out KEY.pem",
            )
        })?;
        let readable = match &place {
            Place::File(path) if others_read(path) => Some(place.name()),
            _ => None,
        };
        Ok(Signer { id: id_of(&pair.pk), pair, readable })
    }

    /// The file, where others than its owner can read it.
    pub fn readable_by_others(&self) -> Option<&str> {
        self.readable.as_deref()
    }

    /// Signs an entry.
    pub(super) fn sign(&self, entry: &mut Entry) {
        entry.signature = None;
        let signature = self.pair.sk.sign(entry.message(), None);
        entry.signature = Some(Signature {
            key_id: self.id,
            ed25519: Base64::encode_to_string(signature.as_ref()).unwrap_or_default(),
        });
    }
}

#[cfg(unix)]
fn others_read(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn others_read(_path: &Path) -> bool {
    false
}

fn id_of(key: &PublicKey) -> Digest {
    Digest::of(&key.to_der())
}

/// Public keys, of which one must have signed an entry; empty where nothing is asked.
#[derive(Default)]
pub struct Trusted(Vec<(Digest, PublicKey)>);

impl Trusted {
    /// Reads keys; paths are relative to `base`.
    ///
    /// # Errors
    /// [`StoreError::Key`].
    pub fn read(places: &[String], base: &Path) -> Result<Self, StoreError> {
        let mut keys = Vec::new();
        for text in places {
            let place = Place::of(text, base);
            let key =
                PublicKey::from_pem(&place.text()?).ok().filter(|key| key.validate().is_ok()).ok_or_else(|| {
                    place.fault("is not a public Ed25519 key in SPKI PEM; openssl pkey -in KEY.pem -pubout writes one")
                })?;
            keys.push((id_of(&key), key));
        }
        Ok(Trusted(keys))
    }

    /// Whether any key is trusted; without one, no signature is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks the signature of an entry.
    ///
    /// # Errors
    /// The fault.
    pub(super) fn check(&self, entry: &Entry) -> Result<(), String> {
        if self.is_empty() {
            return Ok(());
        }
        let Some(signature) = &entry.signature else {
            return Err("is not signed, and only entries of trusted keys are used".to_owned());
        };
        let Some((_, key)) = self.0.iter().find(|(id, _)| *id == signature.key_id) else {
            return Err(format!("is signed by the key {}, which is not trusted", signature.key_id));
        };
        let mut bytes = [0; 64];
        let decoded = Base64::decode(&mut bytes, &signature.ed25519, None).ok().filter(|bytes| bytes.len() == 64);
        let signed = decoded.and_then(|bytes| ed25519_compact::Signature::from_slice(bytes).ok());
        match signed.is_some_and(|signed| key.verify(entry.message(), &signed).is_ok()) {
            true => Ok(()),
            false => Err(format!("has a wrong signature of the key {}", signature.key_id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Blob;
    use crate::store::entry::{About, EntryFile, SCHEMA};
    use serde_json::json;

    /// The first key of RFC 8032, section 7.1, in the encodings of openssl 3.0.
    const SECRET: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";

    fn entry() -> Entry {
        let blob = Blob { digest: Digest::of(b"a"), size: 1 };
        let about = About {
            schema: SCHEMA.to_owned(),
            key: json!({"kind": "compile"}),
            kind: "compile".to_owned(),
            report: json!({}),
            seconds: 0.25,
            peak_memory_bytes: Some(1),
            made_by: "slmc 0".to_owned(),
            numerics: None,
            whole: Default::default(),
        };
        Entry::new(vec![EntryFile { path: "output".to_owned(), digest: blob.digest, pieces: vec![blob] }], about)
    }

    #[test]
    fn every_part_of_an_entry_is_signed() {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in [("ci.pem", SECRET), ("ci.pub", PUBLIC)] {
            std::fs::write(directory.path().join(name), text).expect("written");
        }
        let signer = Signer::read(&format!("file:{}", directory.path().join("ci.pem").display())).expect("a key");
        let trusted = Trusted::read(&["ci.pub".to_owned()], directory.path()).expect("a key");
        let mut entry = entry();
        assert!(trusted.check(&entry).is_err_and(|fault| fault.contains("is not signed")));
        assert_eq!(Trusted::default().check(&entry), Ok(()));
        signer.sign(&mut entry);
        assert_eq!(trusted.check(&entry), Ok(()));
        let key = crate::store::entry::digest_of(&entry.about.key);
        assert_eq!(trusted.check(&Entry::decode(&key, &entry.encode()).expect("sound")), Ok(()));
        let changes: [fn(&mut Entry); 4] = [
            |entry| entry.files[0].pieces[0].size += 1,
            |entry| entry.files[0].pieces[0].digest = Digest::of(b"b"),
            |entry| entry.about.kind = "eval".to_owned(),
            |entry| {
                let about = About { report: json!({"kld_mean": 0}), ..entry.about.clone() };
                let signature = entry.signature.take();
                *entry = Entry::new(entry.files.clone(), about);
                entry.signature = signature;
            },
        ];
        for change in changes {
            let mut other = entry.clone();
            change(&mut other);
            assert!(trusted.check(&other).is_err_and(|fault| fault.contains("wrong signature")));
        }
        let own = KeyPair::from_seed(ed25519_compact::Seed::new([7; 32]));
        Signer { id: id_of(&own.pk), pair: own, readable: None }.sign(&mut entry);
        assert!(trusted.check(&entry).is_err_and(|fault| fault.contains("not trusted")));
    }

    #[test]
    fn keys_that_are_none_are_named_and_not_shown() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ci.pem");
        std::fs::write(&path, PUBLIC).expect("written");
        let error = Signer::read(&path.display().to_string()).err().expect("a public key").to_string();
        assert!(error.contains("ci.pem") && error.contains("PKCS#8") && !error.contains("MCow"), "{error}");
        assert!(Signer::read("env:SLMC_NO_SUCH_VARIABLE").err().expect("none").to_string().contains("$SLMC_NO_SUCH"));
        std::fs::write(&path, SECRET).expect("written");
        assert!(Trusted::read(&["ci.pem".to_owned()], directory.path()).is_err());
    }
}
