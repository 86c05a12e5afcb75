//! Weights closed and opened. A file key and a salt are drawn for every sealing; each device's key closes the file key in a
//! stanza of its own, so one file serves a fleet.

use super::SealingError;
use super::layout::{Content, assembled, sections};
use crate::disk::atomic;
use crate::trust::DeviceKey as StoredKey;
use rayon::prelude::*;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::chunks::{DEFAULT_CHUNK_SHIFT, Leaves};
use slm_runtime::format::header::{Header, MINOR_TRUST, SectionKind};
use slm_runtime::format::seal::{MAX_STANZAS, SEAL_HEADER_BYTES, STANZA_BYTES, Seal, SealCipher, TAG_BYTES};
use slm_runtime::layout::ALIGNMENT;
use slm_runtime::seal::keys::FILE_KEY_BYTES;
use slm_runtime::seal::{DeviceKey, FileKey, KeySource, SealError, SoftwareCipher, StanzaKey};
use std::borrow::Cow;
use std::io::Write;
use std::ops::Deref;
use std::path::Path;
use zeroize::Zeroizing;

/// A sealed artifact, still to be signed.
pub struct Sealed {
    /// The file.
    pub bytes: Vec<u8>,
    /// Leaves of the weights, each with a tag.
    pub leaves: u64,
    /// Whether the file before was signed: that signature is gone.
    pub unsigned: bool,
}

/// Closes the weights of an artifact for devices' keys.
///
/// # Errors
/// [`SealingError`].
pub fn seal(
    artifact: &ArtifactView<'_>,
    cipher: SealCipher,
    keys: &[StoredKey],
    chunk_shift: Option<u8>,
) -> Result<Sealed, SealingError> {
    let mut file_key = Zeroizing::new([0; FILE_KEY_BYTES]);
    let mut salt = [0; 16];
    getrandom::fill(&mut *file_key).map_err(SealingError::Random)?;
    getrandom::fill(&mut salt).map_err(SealingError::Random)?;
    seal_with(artifact, cipher, keys, chunk_shift, (&file_key, salt))
}

/// [`seal`] with a file key and a salt, neither of which has sealed anything.
fn seal_with(
    artifact: &ArtifactView<'_>,
    cipher: SealCipher,
    keys: &[StoredKey],
    chunk_shift: Option<u8>,
    (file_key, salt): (&Zeroizing<[u8; FILE_KEY_BYTES]>, [u8; 16]),
) -> Result<Sealed, SealingError> {
    let old = artifact.header();
    if artifact.is_sealed() {
        return Err(SealingError::Sealed);
    }
    if artifact.device_only() {
        return Err(SealingError::DeviceOnly);
    }
    if artifact.section(SectionKind::Draft).is_some() {
        return Err(SealingError::Draft);
    }
    let mut section = stanzas(cipher, keys, file_key, salt)?;
    let kept = if old.chunk_shift == 0 { DEFAULT_CHUNK_SHIFT } else { old.chunk_shift };
    let header = Header {
        minor: old.minor.max(MINOR_TRUST),
        signature: 0,
        security_counter: 0,
        model_id: [0; 16],
        encryption: cipher as u8,
        chunk_shift: chunk_shift.unwrap_or(kept),
        ..*old
    };
    let mut sections = sections(artifact);
    let weights = weights_of(&mut sections);
    let leaf = 1usize << header.chunk_shift;
    let leaves = weights.len().div_ceil(leaf) as u64;
    let key = FileKey::new(cipher, &mut file_key.clone(), &salt, leaves);
    let close = |(index, bytes): (usize, &mut [u8])| key.close(index as u64, bytes).ok_or(SealError::Unable(cipher));
    let tags = weights.to_mut().par_chunks_mut(leaf).enumerate().map(close).collect::<Result<Vec<_>, _>>()?;
    section.extend(tags.as_flattened());
    let place = sections.iter().position(|section| section.host).unwrap_or(sections.len());
    sections.insert(place, Content { kind: SectionKind::Seal as u32, host: false, bytes: Cow::Owned(section) });
    Ok(Sealed { bytes: assembled(header, &sections)?, leaves, unsigned: old.signature != 0 })
}

/// The start of a seal: salt and stanzas.
fn stanzas(
    cipher: SealCipher,
    keys: &[StoredKey],
    file_key: &[u8; FILE_KEY_BYTES],
    salt: [u8; 16],
) -> Result<Vec<u8>, SealingError> {
    if keys.is_empty() {
        return Err(SealingError::NoKeys);
    }
    if keys.len() > MAX_STANZAS as usize {
        return Err(SealingError::Keys { keys: keys.len() });
    }
    let mut ids: Vec<_> = keys.iter().map(|key| DeviceKey::new(key.bytes()).id()).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(SealingError::SameKeys);
    }
    let mut section = vec![0; SEAL_HEADER_BYTES];
    section[..16].copy_from_slice(&salt);
    section[16..20].copy_from_slice(&(keys.len() as u32).to_le_bytes());
    for key in keys {
        let stanza = DeviceKey::new(key.bytes()).stanza(cipher, file_key, &salt);
        section.extend(stanza.ok_or(SealError::Unable(cipher))?);
    }
    Ok(section)
}

fn weights_of<'s, 'a>(sections: &'s mut [Content<'a>]) -> &'s mut Cow<'a, [u8]> {
    let found = sections.iter_mut().find(|section| section.kind == SectionKind::Weights as u32);
    &mut found.expect("an artifact that opened has weights").bytes
}

/// The key of a sealed artifact, by a device's key, and a stanza beside the file where its own are of other devices.
///
/// # Errors
/// It is not sealed, or the key opens no stanza.
pub fn file_key(
    artifact: &ArtifactView<'_>,
    device: &StoredKey,
    beside: Option<&[u8; STANZA_BYTES]>,
) -> Result<FileKey, SealingError> {
    let (seal, cipher) = artifact.seal().zip(artifact.seal_cipher()).ok_or(SealError::NotSealed)?;
    let leaves = Leaves::of(artifact.bytes(), artifact.header()).of_section(SectionKind::Weights as u32);
    Ok(FileKey::find(&DeviceKey::new(device.bytes()), cipher, &seal, beside, leaves.end - leaves.start)?)
}

/// The weights of a sealed artifact, opened in memory that starts on 64 bytes.
///
/// # Errors
/// It is not sealed, the key opens no stanza, or a leaf is not what was sealed.
pub fn weights(
    artifact: &ArtifactView<'_>,
    device: &StoredKey,
    beside: Option<&[u8; STANZA_BYTES]>,
) -> Result<OpenWeights, SealingError> {
    let key = file_key(artifact, device, beside)?;
    let seal = artifact.seal().ok_or(SealError::NotSealed)?;
    let stored = artifact.section(SectionKind::Weights).unwrap_or_default();
    let mut weights = OpenWeights::new(stored);
    opened(&key, &seal, artifact.header().chunk_shift, weights.bytes_mut())?;
    Ok(weights)
}

/// Opens every leaf in its place.
fn opened(key: &FileKey, seal: &Seal<'_>, chunk_shift: u8, weights: &mut [u8]) -> Result<(), SealError> {
    weights.par_chunks_mut(1 << chunk_shift).enumerate().try_for_each(|(index, bytes)| {
        let tag: &[u8; TAG_BYTES] = seal.tag(index as u64).ok_or(SealError::Range)?;
        key.open(&SoftwareCipher, index as u64, bytes, tag)
    })
}

/// Weights in memory, from 64 bytes on.
pub struct OpenWeights {
    memory: Vec<u8>,
    start: usize,
}

impl OpenWeights {
    fn new(stored: &[u8]) -> Self {
        let mut memory = vec![0; stored.len() + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        memory.truncate(start + stored.len());
        memory[start..].copy_from_slice(stored);
        OpenWeights { memory, start }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..]
    }
}

impl Deref for OpenWeights {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..]
    }
}

/// Opens the weights of an artifact: the file as it was before it was sealed, with its chunk list and without a signature.
/// Digests of tensors are compared, so that what comes out is what was compiled.
///
/// # Errors
/// [`SealingError`].
pub fn unseal(
    artifact: &ArtifactView<'_>,
    device: &StoredKey,
    beside: Option<&[u8; STANZA_BYTES]>,
) -> Result<Vec<u8>, SealingError> {
    let key = file_key(artifact, device, beside)?;
    if artifact.device_only() {
        return Err(SealingError::DeviceOnly);
    }
    let seal = artifact.seal().ok_or(SealError::NotSealed)?;
    let old = artifact.header();
    let header = Header { encryption: 0, signature: 0, security_counter: 0, model_id: [0; 16], ..*old };
    let mut sections = sections(artifact);
    sections.retain(|section| section.kind != SectionKind::Seal as u32);
    opened(&key, &seal, old.chunk_shift, weights_of(&mut sections).to_mut())?;
    let bytes = assembled(header, &sections)?;
    ArtifactView::open(&bytes)?.verify_tensors().map_err(SealingError::Opened)?;
    Ok(bytes)
}

/// A stanza by which a further device opens a sealed artifact, made by one that does.
///
/// # Errors
/// The one that should does not.
pub fn further_stanza(
    artifact: &ArtifactView<'_>,
    owner: &StoredKey,
    device: &StoredKey,
) -> Result<[u8; STANZA_BYTES], SealingError> {
    let (seal, cipher) = artifact.seal().zip(artifact.seal_cipher()).ok_or(SealError::NotSealed)?;
    let owner = DeviceKey::new(owner.bytes());
    let mut wrong = false;
    for stanza in seal.stanzas() {
        match owner.file_key(cipher, stanza, seal.salt) {
            StanzaKey::Opened(file_key) => {
                let file_key = Zeroizing::new(file_key);
                let stanza = DeviceKey::new(device.bytes()).stanza(cipher, &file_key, seal.salt);
                return Ok(stanza.ok_or(SealError::Unable(cipher))?);
            }
            StanzaKey::NotMine => {}
            StanzaKey::Wrong => wrong = true,
            StanzaKey::Unable => return Err(SealError::Unable(cipher).into()),
        }
    }
    let error = if wrong { SealError::Stanza } else { SealError::NoStanza { stanzas: seal.stanzas().len() } };
    Err(error.into())
}

/// Reads a stanza that travels beside a file.
///
/// # Errors
/// It cannot be read, or is something else.
pub fn read_stanza(path: &Path) -> Result<[u8; STANZA_BYTES], SealingError> {
    let read = |source| SealingError::Read { path: path.to_owned(), source };
    let bytes = std::fs::read(path).map_err(read)?;
    let found = bytes.len();
    bytes.try_into().map_err(|_| SealingError::Stanza { path: path.to_owned(), found })
}

/// Writes a stanza where nothing is: its bytes do not tell whose it is, so none is replaced.
///
/// # Errors
/// Something else is there, or it cannot be written.
pub fn write_stanza(path: &Path, stanza: &[u8; STANZA_BYTES]) -> Result<(), SealingError> {
    if std::fs::symlink_metadata(path).is_ok() {
        return Err(SealingError::StanzaExists { path: path.to_owned() });
    }
    Ok(atomic::write_file(path, b"", |out| out.write_all(stanza))?)
}
