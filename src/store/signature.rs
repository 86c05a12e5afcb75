//! Signatures of entries: Ed25519 (RFC 8032) over what an entry says (the layout is in `entry`), so that whoever may read a
//! cache cannot write into it unseen. Where keys are and how they are read is `trust`'s.

use super::{Digest, Entry, StoreError};
use crate::trust::{self, Algorithm, KeyWarning, PublicKey, SecretKey, TrustError};
use ct_codecs::{Base64, Decoder, Encoder};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A signature in an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signature {
    /// Name of the key.
    key_id: Digest,
    /// Base64 of 64 bytes.
    ed25519: String,
}

/// Entries have a place for Ed25519 alone.
fn check_algorithm(text: &str, base: &Path, found: Algorithm) -> Result<(), TrustError> {
    match found {
        Algorithm::Ed25519 => Ok(()),
        other => Err(TrustError::Key {
            place: trust::KeyPlace::of(text, base)?.name(),
            fault: format!(
                "is a key of {other}, and entries of caches are signed with Ed25519; make one: slmc keygen --type ed25519 -o \
                 NAME"
            ),
        }),
    }
}

/// A secret key that signs entries. Never shown.
pub struct Signer(SecretKey);

impl Signer {
    /// The key at `env:NAME`, `file:PATH` or a path.
    ///
    /// # Errors
    /// [`StoreError::Key`].
    pub fn read(text: &str) -> Result<Self, StoreError> {
        let key = SecretKey::read(text)?;
        check_algorithm(text, Path::new(""), key.algorithm())?;
        Ok(Signer(key))
    }

    /// What to warn of before it is used.
    pub fn warning(&self) -> Option<&KeyWarning> {
        self.0.warning()
    }

    /// Signs an entry.
    ///
    /// # Errors
    /// [`StoreError::Key`]: a token does not sign.
    pub(super) fn sign(&self, entry: &mut Entry) -> Result<(), StoreError> {
        entry.signature = None;
        let signature = self.0.sign(&entry.message())?;
        entry.signature = Some(Signature {
            key_id: Digest(self.0.public().id()),
            ed25519: Base64::encode_to_string(signature.to_bytes()).unwrap_or_default(),
        });
        Ok(())
    }
}

/// Public keys, of which one must have signed an entry; empty where nothing is asked.
#[derive(Default)]
pub struct Trusted(Vec<PublicKey>);

impl Trusted {
    /// Reads keys; paths are relative to `base`.
    ///
    /// # Errors
    /// [`StoreError::Key`].
    pub fn read(places: &[String], base: &Path) -> Result<Self, StoreError> {
        let mut keys = Vec::new();
        for text in places {
            let key = PublicKey::read(text, base)?;
            check_algorithm(text, base, key.algorithm())?;
            keys.push(key);
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
        let Some(key) = self.0.iter().find(|key| Digest(key.id()) == signature.key_id) else {
            return Err(format!("is signed by the key {}, which is not trusted", signature.key_id));
        };
        let decoded = Base64::decode_to_vec(&signature.ed25519, None).ok();
        let signed = decoded.and_then(|bytes| trust::Signature::read(Algorithm::Ed25519, &bytes));
        match signed.is_some_and(|signed| key.verifies(&entry.message(), &signed)) {
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
        signer.sign(&mut entry).expect("a key that is here");
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
        Signer(SecretKey::generate(Algorithm::Ed25519).expect("a key")).sign(&mut entry).expect("a key that is here");
        assert!(trusted.check(&entry).is_err_and(|fault| fault.contains("not trusted")));
    }

    #[test]
    fn keys_that_are_none_are_named_and_not_shown() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ci.pem");
        std::fs::write(&path, PUBLIC).expect("written");
        let error = Signer::read(&path.display().to_string()).err().expect("a public key").to_string();
        assert!(error.contains("ci.pem: is a public key") && !error.contains("MCow"), "{error}");
        assert!(Signer::read("env:SLMC_NO_SUCH_VARIABLE").err().expect("none").to_string().contains("$SLMC_NO_SUCH"));
        std::fs::write(&path, SECRET).expect("written");
        assert!(Trusted::read(&["ci.pem".to_owned()], directory.path()).is_err());
        let other = SecretKey::generate(Algorithm::P256).expect("a key");
        std::fs::write(&path, &*other.to_pem().expect("its bytes are here")).expect("written");
        std::fs::write(directory.path().join("ci.pub"), other.public().to_pem()).expect("written");
        let signer = Signer::read(&path.display().to_string()).err().expect("another algorithm").to_string();
        let trusted =
            Trusted::read(&["ci.pub".to_owned()], directory.path()).err().expect("another algorithm").to_string();
        assert!(signer.contains("ci.pem: is a key of ECDSA P-256") && trusted.contains("ci.pub"), "{signer} {trusted}");
    }
}
