//! Keys of logs. Seals are made by a signing key (PKCS#8 PEM), or by the 32 secret bytes of a log, which also key its
//! digests; they are checked by the public half of the one, or by the other.

use super::AuditError;
use super::chain::{Digest, Fault};
use crate::disk::hash::hex;
use crate::trust::{Algorithm, DeviceKey, KeyWarning, PublicKey, SecretKey, Signature};
use slm_runtime::audit::{AuditRecord, LogKey, SealKind, Signer};
use slm_runtime::hmac::equal;
use std::path::Path;

/// Most steps that a secret key moves on from one seal of a log to the next: each takes microseconds, and a number that no key
/// has reached must not cost hours.
const MOST_STEPS: u32 = 1 << 20;

/// A key that checks seals.
enum CheckingKey {
    Public(PublicKey),
    /// At the number of the last seal that it checked.
    Secret {
        key: LogKey,
        used: bool,
    },
}

/// Keys that check the seals of a log, in its order.
#[derive(Default)]
pub struct SealKeys {
    keys: Vec<CheckingKey>,
    warnings: Vec<KeyWarning>,
}

impl SealKeys {
    /// Reads keys: public ones in PEM, or the secret bytes of logs.
    ///
    /// # Errors
    /// A place that holds neither.
    pub fn read(places: &[String]) -> Result<Self, AuditError> {
        let mut keys = SealKeys::default();
        for place in places {
            let public = match PublicKey::read(place, Path::new("")) {
                Ok(key) => {
                    keys.keys.push(CheckingKey::Public(key));
                    continue;
                }
                Err(error) => error,
            };
            let secret = DeviceKey::read(place).map_err(|secret| AuditError::NeitherKey {
                place: place.clone(),
                public: public.to_string(),
                secret: secret.to_string(),
            })?;
            keys.warnings.extend(secret.warning().cloned());
            keys.keys.push(CheckingKey::Secret { key: LogKey::new(secret.bytes()), used: false });
        }
        Ok(keys)
    }

    /// The secret key of a log alone.
    pub fn of(key: LogKey) -> Self {
        SealKeys { keys: vec![CheckingKey::Secret { key, used: false }], warnings: Vec::new() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What to warn of before they are used.
    pub fn warnings(&self) -> &[KeyWarning] {
        &self.warnings
    }

    /// The keys of digests, of those that have one.
    pub fn digest_keys(&self) -> impl Iterator<Item = &Digest> {
        self.keys.iter().filter_map(|key| match key {
            CheckingKey::Public(_) => None,
            CheckingKey::Secret { key, .. } => Some(key.digests()),
        })
    }

    /// Checks a seal; those of a log come in its order. Returns how many steps of a secret key have no seal between this one and
    /// the one before it, or the key's first.
    ///
    /// # Errors
    /// The fault.
    pub fn check(&mut self, seal: &AuditRecord) -> Result<u32, Fault> {
        let unknown = || Fault::SealKey { id: hex(&seal.artifact) };
        let kind = SealKind::from_number(seal.status as u8).ok_or(Fault::Field("status"))?;
        let message = seal.seal_message();
        for key in &mut self.keys {
            match key {
                CheckingKey::Public(key) if key.id() == seal.artifact => {
                    let mut bytes = [0; 64];
                    bytes[..32].copy_from_slice(&seal.input);
                    bytes[32..].copy_from_slice(&seal.output);
                    let expected = match key.algorithm() {
                        Algorithm::Ed25519 => SealKind::Ed25519,
                        Algorithm::P256 => SealKind::EcdsaP256,
                    };
                    if kind != expected {
                        return Err(Fault::Seal("names another algorithm than its key's"));
                    }
                    // Secure elements write either twin of an ECDSA signature: both vouch for the same.
                    let holds =
                        Signature::read(key.algorithm(), &bytes).is_some_and(|read| key.verifies(&message, &read));
                    return if holds { Ok(0) } else { Err(Fault::Seal("is not its key's signature")) };
                }
                CheckingKey::Secret { key, used } if *key.name() == seal.artifact => {
                    if kind != SealKind::Hmac {
                        return Err(Fault::Seal("names another algorithm than its key's"));
                    }
                    let number = seal.tokens_in;
                    let next = u64::from(key.number()) + u64::from(*used);
                    let Some(skipped) = u64::from(number).checked_sub(next) else {
                        return Err(Fault::Seal("is by a key that had moved on before"));
                    };
                    if number.saturating_sub(key.number()) > MOST_STEPS {
                        return Err(Fault::Seal(
                            "is by a key that would have moved on more than 1,048,576 times at once",
                        ));
                    }
                    while key.number() < number {
                        key.advance();
                    }
                    *used = true;
                    let holds = equal(&key.seal(&message), &seal.input);
                    return if holds { Ok(skipped as u32) } else { Err(Fault::Seal("is not its key's")) };
                }
                _ => {}
            }
        }
        Err(unknown())
    }
}

/// A key that seals a log on this machine.
pub enum SealingKey {
    /// Seals that are signatures.
    Signing(Box<SecretKey>),
    /// Seals by the secret bytes of the log.
    Secret(DeviceKey),
}

impl SealingKey {
    /// Reads a key: a secret one in PKCS#8 PEM, or the secret bytes of a log.
    ///
    /// # Errors
    /// A place that holds neither.
    pub fn read(place: &str) -> Result<Self, AuditError> {
        let signing = match SecretKey::read(place) {
            Ok(key) => return Ok(SealingKey::Signing(Box::new(key))),
            Err(error) => error,
        };
        match DeviceKey::read(place) {
            Ok(key) => Ok(SealingKey::Secret(key)),
            Err(_) => Err(signing.into()),
        }
    }

    /// What to warn of before it is used.
    pub fn warning(&self) -> Option<&KeyWarning> {
        match self {
            SealingKey::Signing(key) => key.warning(),
            SealingKey::Secret(key) => key.warning(),
        }
    }
}

impl Signer for &SecretKey {
    fn kind(&self) -> SealKind {
        match self.algorithm() {
            Algorithm::Ed25519 => SealKind::Ed25519,
            Algorithm::P256 => SealKind::EcdsaP256,
        }
    }

    fn key_id(&self) -> Digest {
        self.public().id()
    }

    fn sign(&mut self, message: &[u8]) -> Option<[u8; 64]> {
        SecretKey::sign(self, message).ok().map(|signature| signature.to_bytes())
    }
}
