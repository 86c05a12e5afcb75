//! `[sign]`: artifacts of a run signed for devices, where every stage gave its result and every gate holds.
//!
//! ```text
//! [sign]
//! key = "env:SLMC_SIGN_KEY"          where the secret key is: env:VAR, file:PATH or a path; never the key itself
//! counter = 3                        against rollback; 0 if absent
//! model_id = "6f1d2c3b-…"            the product line
//! chunk_bytes = 4096                 of a leaf; 65536 if absent
//! device_keys = ["env:SLMC_DEVICE"]  keys of devices: the weights are sealed for them before the file is signed
//! cipher = "aes-256-gcm"             of sealed weights; chacha20-poly1305 if absent
//! stages = ["artifact"]              whose artifacts; if absent every one that no other is made from
//! ```
//!
//! FILE.slm becomes FILE.signed.slm beside it: the result of the stage stays what the lock and the cache know, and what a key
//! signs is in neither. `[attest]` is about the signed file, which is what devices get.

use super::attest::{artifacts, key_place};
use super::document::{Entry, Table, Value};
use super::environment::Environment;
use super::error::RecipeError;
use super::expand;
use super::mistake::{Code, Mistakes};
use super::plan_report::PlannedKey;
use super::run_report::{SignedArtifact, Status};
use super::stage::RecipeStage;
use crate::artifact::host::ArtifactFile;
use crate::disk::atomic;
use crate::disk::hash::{file_sha256, hex};
use crate::seal::sealing::seal;
use crate::shell::Shell;
use crate::trust::policy::parse_uuid;
use crate::trust::signing::{SigningFields, Slot, ToSign, parse_chunk_bytes};
use crate::trust::{DeviceKey, KeyPlace, SecretKey};
use slm_runtime::format::header::MAGIC;
use slm_runtime::format::seal::SealCipher;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Keys of the table.
pub(super) const KEYS: [&str; 7] = ["key", "counter", "model_id", "chunk_bytes", "device_keys", "cipher", "stages"];
/// Where the key is unless a recipe says otherwise: nowhere, but this is what messages propose.
const VARIABLE: &str = "SLMC_SIGN_KEY";
/// The same of a device's.
const DEVICE_VARIABLE: &str = "SLMC_DEVICE_KEY";
/// In place of `.slm`.
const EXTENSION: &str = "signed.slm";

/// The table.
#[derive(Clone, Debug)]
pub(super) struct Sign {
    key: KeyPlace,
    fields: SigningFields,
    /// For whom weights are sealed first; `None` where they stay open.
    seal: Option<SealFor>,
    /// Indices of the stages whose artifacts are signed.
    stages: Vec<usize>,
}

/// For whom weights are sealed, and how.
#[derive(Clone, Debug)]
struct SealFor {
    keys: Vec<KeyPlace>,
    cipher: SealCipher,
}

/// Reads the table, the stages being in the order in which they run. `None` where it cannot be used: a mistake is noted.
pub(super) fn read(
    entry: &Entry,
    stages: &[RecipeStage],
    environment: &mut Environment<'_>,
    mistakes: &mut Mistakes,
) -> Option<Sign> {
    let mut table = entry.node.table("sign", mistakes)?.clone();
    for entry in table.entries.iter().filter(|entry| !KEYS.contains(&entry.key.replace('-', "_").as_str())) {
        mistakes.unknown_key(&entry.place, &entry.key, KEYS, "[sign]");
    }
    // `env:` is a place here, whose content is read by nobody but the signer.
    let key = table.take("key");
    let device_keys = table.take("device_keys");
    expand::without_cells(&mut table, environment, mistakes);
    let Some(key) = key else {
        let help = format!("write key = \"env:{VARIABLE}\"; slmc keygen makes one");
        mistakes.suggest(&entry.place, Code::MissingKey, "missing key `key` in [sign]", help);
        return None;
    };
    let key = key_place(&key, &entry.place, "[sign]", VARIABLE, mistakes)?;
    let counter = match table.find("counter").map(|entry| &entry.node) {
        None => None,
        Some(node) => match &node.value {
            Value::Integer(text) | Value::Variable { text, .. } if text.parse::<u64>().is_ok() => text.parse().ok(),
            _ => {
                let message = "`counter` is not a whole number from 0 to 2^64 - 1";
                mistakes.suggest(&node.place, Code::WrongType, message, "write counter = 1");
                return None;
            }
        },
    };
    let model_id = match table.find("model_id") {
        None => None,
        Some(entry) => match parse_uuid(entry.node.text("model_id", mistakes)?) {
            Ok(id) => Some(id),
            Err(fault) => {
                mistakes.add(&entry.node.place, Code::Refused, fault);
                return None;
            }
        },
    };
    let chunk_shift = match table.find("chunk_bytes").map(|entry| &entry.node) {
        None => None,
        Some(node) => {
            let text = match &node.value {
                Value::Integer(text) | Value::Variable { text, .. } => text.as_str(),
                _ => "",
            };
            match parse_chunk_bytes(text) {
                Ok(shift) => Some(shift),
                Err(_) => {
                    let message = "`chunk_bytes` is not a power of two from 4096 to 1048576";
                    mistakes.suggest(&node.place, Code::WrongType, message, "write chunk_bytes = 4096");
                    return None;
                }
            }
        }
    };
    let seal = seal_for(entry, &table, device_keys.as_ref(), mistakes)?;
    let stages = artifacts(entry, &table, stages, "[sign]", mistakes)?;
    Some(Sign { key, fields: SigningFields { counter, model_id, chunk_shift }, seal, stages })
}

/// For whom weights are sealed. The outer `None` stands for a mistake.
fn seal_for(
    entry: &Entry,
    table: &Table,
    device_keys: Option<&Entry>,
    mistakes: &mut Mistakes,
) -> Option<Option<SealFor>> {
    let cipher = table.find("cipher");
    let Some(device_keys) = device_keys else {
        let Some(cipher) = cipher else { return Some(None) };
        let message = "`cipher` is of sealed weights, and there are no `device_keys`";
        mistakes.suggest(&cipher.place, Code::MissingKey, message, "write device_keys = [\"env:SLMC_DEVICE_KEY\"]");
        return None;
    };
    let Value::List(places) = &device_keys.node.value else {
        let message = "`device_keys` is not a list of places";
        mistakes.suggest(&entry.place, Code::WrongType, message, "write device_keys = [\"env:SLMC_DEVICE_KEY\"]");
        return None;
    };
    let mut keys = Vec::new();
    for node in places {
        let key = Entry { key: "device_keys".to_owned(), place: device_keys.place.clone(), node: node.clone() };
        keys.push(key_place(&key, &entry.place, "[sign]", DEVICE_VARIABLE, mistakes)?);
    }
    if keys.is_empty() {
        let message = "`device_keys` is empty, and nobody could open the weights";
        mistakes.suggest(&entry.place, Code::WrongType, message, "name a key, or leave it out");
        return None;
    }
    let cipher = match cipher.map(|entry| (entry, entry.node.text("cipher", mistakes))) {
        None => SealCipher::ChaCha20Poly1305,
        Some((_, Some("chacha20-poly1305"))) => SealCipher::ChaCha20Poly1305,
        Some((_, Some("aes-256-gcm"))) => SealCipher::Aes256Gcm,
        Some((_, None)) => return None,
        Some((entry, Some(_))) => {
            let message = "`cipher` is neither chacha20-poly1305 nor aes-256-gcm";
            mistakes.suggest(&entry.node.place, Code::WrongType, message, "leave it out for chacha20-poly1305");
            return None;
        }
    };
    Some(Some(SealFor { keys, cipher }))
}

impl Sign {
    /// What a plan says of the keys.
    pub(super) fn needs(&self) -> Vec<PlannedKey> {
        let signs = PlannedKey::at(&self.key, "secret key that signs artifacts for devices ([sign])");
        let devices = self.seal.iter().flat_map(|seal| &seal.keys);
        let opens = devices.map(|key| PlannedKey::at(key, "key of a device that weights are sealed for ([sign])"));
        [signs].into_iter().chain(opens).collect()
    }

    /// The keys of devices, none where weights stay open.
    fn devices(&self) -> Result<Vec<DeviceKey>, RecipeError> {
        let places = self.seal.iter().flat_map(|seal| &seal.keys);
        places.map(DeviceKey::at).collect::<Result<_, _>>().map_err(anyhow::Error::from).map_err(RecipeError::Sign)
    }

    /// Reads the key, and looks at those of devices, before anything runs.
    ///
    /// # Errors
    /// [`RecipeError::Sign`].
    pub(super) fn signer(&self, shell: &Shell) -> Result<SecretKey, RecipeError> {
        let key = SecretKey::at(&self.key).map_err(anyhow::Error::from).map_err(RecipeError::Sign)?;
        if let Some(warning) = key.warning() {
            shell.warn(warning);
        }
        self.devices()?.iter().filter_map(DeviceKey::warning).for_each(|warning| shell.warn(warning));
        Ok(key)
    }

    /// Signs the artifacts of a run that passed, and puts the signed files in the place of what was signed; the files that were
    /// written.
    ///
    /// # Errors
    /// [`RecipeError::Sign`].
    pub(super) fn write(
        &self,
        outputs: &mut [(usize, Status, PathBuf)],
        stages: &[RecipeStage],
        key: &SecretKey,
        shell: &Shell,
    ) -> Result<Vec<SignedArtifact>, RecipeError> {
        let mut written = Vec::new();
        for (stage, status, artifact) in outputs {
            if self.stages.contains(stage) && matches!(status, Status::Done | Status::Cached) {
                *artifact = self.sign(artifact, key).map_err(RecipeError::Sign)?;
                shell.status("Signed", artifact.display());
                written.push(SignedArtifact {
                    stage: stages[*stage].label(),
                    output: artifact.clone(),
                    sha256: hex(&file_sha256(artifact)?),
                });
            }
        }
        Ok(written)
    }

    fn sign(&self, artifact: &Path, key: &SecretKey) -> anyhow::Result<PathBuf> {
        use anyhow::Context;
        let named = || artifact.display().to_string();
        let file = ArtifactFile::open(artifact)?;
        let view = file.view()?;
        // Sealed, then signed: the signature is over the cipher.
        let sealed = match &self.seal {
            None => None,
            Some(SealFor { cipher, .. }) => {
                Some(seal(&view, *cipher, &self.devices()?, self.fields.chunk_shift).with_context(named)?.bytes)
            }
        };
        let bytes = sealed.as_deref().unwrap_or(view.bytes());
        let to_sign = ToSign::new(bytes, &self.fields).with_context(named)?;
        let signature = key.sign(&to_sign.message())?;
        let signed = to_sign.signed(Slot::FIRST, key.public(), &signature).with_context(named)?;
        let out = artifact.with_extension(EXTENSION);
        atomic::write_file(&out, &MAGIC, |file| file.write_all(&signed))?;
        Ok(out)
    }
}
