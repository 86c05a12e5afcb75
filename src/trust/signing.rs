//! An artifact signed: the chunk list made and put behind the device sections, the host part moved behind it, the trust
//! fields of the header set, both digests computed again, and a signature put into a slot (docs/format.md, Signature).
//!
//! ```text
//! before:  page │ device sections │          │ host sections
//! after:   page │ device sections │ chunks   │ host sections      page = header ‖ section table ‖ … ‖ signature area
//! ```
//!
//! Order: leaves, root, host digest, device digest, signature. Where neither the header nor the list changes, as for a
//! second signature, the page is what was signed before, and the other slot keeps its signature.

use super::{Algorithm, PublicKey, Signature};
use slm_runtime::format::FormatError;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::chunks::{CHUNK_SHIFTS, DEFAULT_CHUNK_SHIFT, Leaves};
use slm_runtime::format::header::{
    DEVICE_DIGEST, HEADER_BYTES, HOST_DIGEST, Header, MAX_SECTIONS, MINOR_TRUST, SECTION_TABLE_OFFSET, SIGNATURE_AREA,
    SectionKind, SectionRecord,
};
use slm_runtime::format::signature::{SLOTS, SignatureAlgorithm, SignatureSlot, signed_bytes, slots};
use slm_runtime::format::tree::{leaf_digest, root};
use slm_runtime::format::verify::{device_digest, host_digest};
use slm_runtime::layout::ALIGNMENT;
use slm_runtime::sha256::{Digest, Software};
use slm_runtime::streaming::least_buffer;
use slm_runtime::trust::{self, Check, Key, Trust};

/// Why an artifact cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// Not a sound artifact.
    #[error("{0}")]
    Format(FormatError),
    /// The host part was cut off, and its digest is in the header.
    #[error(
        "the host part was cut off, and the header that is signed has its digest; sign the whole file, whose device part \
         keeps the signature"
    )]
    DeviceOnly,
    /// Weights in cipher have a tag for each of their leaves.
    #[error(
        "the weights are sealed in leaves of {} bytes, each with a tag: seal the file with --chunk-bytes, or leave it out here",
        1u64 << shift
    )]
    SealedLeaves {
        /// log2 of a leaf's bytes.
        shift: u8,
    },
    /// A streamed artifact's buffers are smaller than its leaves need.
    #[error(
        "the artifact is planned for buffers of {planned} bytes, and with leaves of {} they need {needed}: pass smaller \
         --chunk-bytes, or compile it with --stream-buffer {needed}",
        1u64 << shift
    )]
    StreamBuffers {
        /// Bytes planned.
        planned: u64,
        /// Bytes needed.
        needed: u64,
        /// log2 of a leaf's bytes.
        shift: u8,
    },
    /// No room in the section table.
    #[error("the file has {MAX_SECTIONS} sections, and the list of chunks would be one more than a file can have")]
    Sections,
    /// The signature is not one.
    #[error(
        "the signature is not 64 bytes of Ed25519, or DER or 64 bytes of ECDSA P-256: pass what the key's owner made of \
         the bytes that --to-sign wrote"
    )]
    NotASignature,
    /// The signature is of something else.
    #[error(
        "the signature is not of this key over this header{}; sign what --to-sign writes with the same --counter, --model-id \
         and --chunk-bytes", if *.p256 { " (ECDSA with SHA-256)" } else { " (Ed25519, not Ed25519ph)" }
    )]
    OtherSignature {
        /// Whether the key is one of ECDSA P-256.
        p256: bool,
    },
    /// The file that was made does not verify: a defect.
    #[error("the signed file does not verify, which is a defect of slmc, please report it: {0}")]
    Defect(trust::TrustError),
}

/// Whether the buffers of a streamed artifact take its tiles with all leaves that they are in.
fn check_buffers(view: &ArtifactView<'_>, shift: u8) -> Result<(), SigningError> {
    let Some(residency) = view.residency() else { return Ok(()) };
    let planned = u64::from(residency.record.buffer_bytes);
    let needed = view.largest_streamed_tile().map_or(0, |tile| least_buffer(tile, 1 << shift));
    if needed > planned { Err(SigningError::StreamBuffers { planned, needed, shift }) } else { Ok(()) }
}

impl From<FormatError> for SigningError {
    fn from(error: FormatError) -> Self {
        SigningError::Format(error)
    }
}

/// What is written into the header beside a signature; absent values stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigningFields {
    /// `security_counter`.
    pub counter: Option<u64>,
    /// `model_id`.
    pub model_id: Option<[u8; 16]>,
    /// `chunk_shift`.
    pub chunk_shift: Option<u8>,
}

/// `chunk_shift` for a number of bytes in digits.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_chunk_bytes(text: &str) -> Result<u8, String> {
    let bytes = text.parse::<u32>().ok().filter(|bytes| bytes.is_power_of_two());
    let shift = bytes.map(|bytes| bytes.ilog2() as u8).filter(|shift| CHUNK_SHIFTS.contains(shift));
    shift.ok_or_else(|| format!("`{text}` is not a power of two from 4096 to 1048576"))
}

/// Number of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u8);

impl Slot {
    /// The first.
    pub const FIRST: Slot = Slot(1);

    /// Slot 1 or 2.
    pub fn from_number(number: u8) -> Option<Self> {
        (1..=SLOTS as u8).contains(&number).then_some(Slot(number))
    }

    /// Its number, from 1.
    pub fn number(self) -> u8 {
        self.0
    }

    fn place(self) -> std::ops::Range<usize> {
        let start = SIGNATURE_AREA.start + usize::from(self.0 - 1) * SignatureSlot::BYTES;
        start..start + SignatureSlot::BYTES
    }
}

/// An artifact complete but for the signature.
#[derive(Debug)]
pub struct ToSign {
    bytes: Vec<u8>,
    /// Slots whose signature was of another header, and is gone.
    dropped: Vec<u8>,
}

impl ToSign {
    /// Makes an artifact ready for a signature. Digests of `artifact` are not compared: the caller has.
    ///
    /// # Errors
    /// [`SigningError`].
    pub fn new(artifact: &[u8], fields: &SigningFields) -> Result<Self, SigningError> {
        let view = ArtifactView::open(artifact)?;
        let old = view.header();
        let kept = match (old.chunk_shift, view.residency()) {
            (0, None) => DEFAULT_CHUNK_SHIFT,
            // What the buffers of a streamed artifact are planned for.
            (0, Some(_)) => *CHUNK_SHIFTS.start(),
            (shift, _) => shift,
        };
        let header = Header {
            minor: old.minor.max(MINOR_TRUST),
            signature: 1,
            chunk_shift: fields.chunk_shift.unwrap_or(kept),
            security_counter: fields.counter.unwrap_or(old.security_counter),
            model_id: fields.model_id.unwrap_or(old.model_id),
            ..*old
        };
        if header == *old {
            return Ok(ToSign { bytes: artifact.to_vec(), dropped: Vec::new() });
        }
        if view.device_only() {
            return Err(SigningError::DeviceOnly);
        }
        if view.is_sealed() && header.chunk_shift != old.chunk_shift {
            return Err(SigningError::SealedLeaves { shift: old.chunk_shift });
        }
        check_buffers(&view, header.chunk_shift)?;
        debug_assert!(CHUNK_SHIFTS.contains(&header.chunk_shift), "an option is checked when it is read");
        let dropped = slots(artifact).map(|(slot, _)| slot as u8).filter(|_| old.signature != 0).collect();
        Ok(ToSign { bytes: with_list(artifact, &view, header)?, dropped })
    }

    /// The bytes that a signature is over.
    pub fn message(&self) -> Vec<u8> {
        signed_bytes(&self.bytes[..HEADER_BYTES]).concat()
    }

    /// The header.
    pub fn header(&self) -> Header {
        Header::from_bytes(&self.bytes)
    }

    /// Number of leaves that the list names.
    pub fn leaves(&self) -> u64 {
        Leaves::of(&self.bytes, &self.header()).count()
    }

    /// Slots whose signature was of another header, and is gone.
    pub fn dropped(&self) -> &[u8] {
        &self.dropped
    }

    /// The signed artifact.
    ///
    /// # Errors
    /// [`SigningError::OtherSignature`].
    pub fn signed(mut self, slot: Slot, key: &PublicKey, signature: &Signature) -> Result<Vec<u8>, SigningError> {
        if !key.verifies(&self.message(), signature) {
            return Err(SigningError::OtherSignature { p256: key.algorithm() == Algorithm::P256 });
        }
        let record = SignatureSlot {
            algorithm: algorithm(key) as u8,
            reserved: [0; 31],
            key_id: id_of(key),
            signature: signature.to_bytes(),
        };
        self.bytes[slot.place()].copy_from_slice(&record.to_bytes());
        let raw = key.to_raw();
        let keys: Vec<Key<'_>> = runtime_key(key, &raw).into_iter().collect();
        let trust = Trust { keys: &keys, threshold: 1, model_id: None, counter: &0, verifier: &Software };
        ArtifactView::open_signed(&self.bytes, &trust, Check::Everything).map_err(SigningError::Defect)?;
        Ok(self.bytes)
    }
}

/// The algorithm of a key, as artifacts number it.
pub fn algorithm(key: &PublicKey) -> SignatureAlgorithm {
    match key.algorithm() {
        Algorithm::Ed25519 => SignatureAlgorithm::Ed25519,
        Algorithm::P256 => SignatureAlgorithm::EcdsaP256,
    }
}

/// A key for the runtime, of its bytes ([`PublicKey::to_raw`]).
pub fn runtime_key<'k>(key: &PublicKey, raw: &'k [u8]) -> Option<Key<'k>> {
    Key::from_bytes(algorithm(key), raw)
}

/// The name of a key in a slot.
pub fn id_of(key: &PublicKey) -> Digest {
    key.id()
}

/// The file with a chunk list for the header's leaves, digests included, the signature area empty.
fn with_list(artifact: &[u8], view: &ArtifactView<'_>, mut header: Header) -> Result<Vec<u8>, SigningError> {
    let records: Vec<SectionRecord> = view.section_records().collect();
    let is_list = |record: &SectionRecord| record.kind == SectionKind::Chunks as u32;
    let device = records.iter().filter(|record| record.host == 0 && !is_list(record));
    let mut table: Vec<SectionRecord> = device.copied().collect();
    let mut bytes = vec![0; HEADER_BYTES];
    let device_end = table.last().map_or(HEADER_BYTES as u64, |last| last.offset + last.bytes) as usize;
    bytes.extend_from_slice(&artifact[HEADER_BYTES..device_end]);
    pad(&mut bytes);
    // Leaves are those of the device sections that the table has by now.
    header.sections = table.len() as u32;
    let list = chunk_list(&bytes, &page(&header, &table), &header);
    let offset = bytes.len() as u64;
    table.push(SectionRecord { kind: SectionKind::Chunks as u32, host: 0, offset, bytes: 0, reserved: 0 });
    if let Some(last) = table.last_mut() {
        last.bytes = (list.len() * size_of::<Digest>()) as u64;
    }
    bytes.extend(list.iter().flatten());
    pad(&mut bytes);
    header.device_bytes = bytes.len() as u64;
    for record in records.iter().filter(|record| record.host == 1) {
        let content = &artifact[record.offset as usize..(record.offset + record.bytes) as usize];
        table.push(SectionRecord { offset: bytes.len() as u64, ..*record });
        bytes.extend_from_slice(content);
        pad(&mut bytes);
    }
    if table.len() > MAX_SECTIONS {
        return Err(SigningError::Sections);
    }
    header.file_bytes = bytes.len() as u64;
    header.sections = table.len() as u32;
    header.chunks_root = root(list.iter().copied(), &Software);
    (header.host_digest, header.device_digest) = ([0; 32], [0; 32]);
    bytes[..HEADER_BYTES].copy_from_slice(&page(&header, &table));
    let device_bytes = header.device_bytes as usize;
    // The device digest covers the host digest, so it comes last.
    let host = host_digest(&bytes, &bytes[device_bytes..]);
    bytes[HOST_DIGEST].copy_from_slice(&host);
    let device = device_digest(&bytes, &bytes[HEADER_BYTES..device_bytes]);
    bytes[DEVICE_DIGEST].copy_from_slice(&device);
    Ok(bytes)
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}

/// A header page with an empty signature area.
fn page(header: &Header, table: &[SectionRecord]) -> Vec<u8> {
    let mut page = header.to_bytes().to_vec();
    debug_assert_eq!(page.len(), SECTION_TABLE_OFFSET);
    page.extend(table.iter().take(MAX_SECTIONS).flat_map(SectionRecord::to_bytes));
    page.resize(HEADER_BYTES, 0);
    page
}

/// The digests of the leaves of a file whose device sections are in place.
fn chunk_list(bytes: &[u8], page: &[u8], header: &Header) -> Vec<Digest> {
    use rayon::prelude::*;
    let leaves: Vec<_> = Leaves::of(page, header).iter().collect();
    leaves
        .par_iter()
        .map(|leaf| leaf_digest(&Software, &bytes[leaf.offset as usize..][..leaf.bytes as usize]))
        .collect()
}
