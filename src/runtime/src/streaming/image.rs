//! What is read before a session begins: the device part without its weights, and the resident tensors. Everything is read
//! into the caller's memory and checked there; nothing of it is used before all of it holds.

use super::load::{check_leaves_fit, load_image, load_resident};
use super::read::{all_came, read_all};
use super::{Check, ReadError, Reader, Storage};
use crate::format::FormatError;
use crate::format::artifact::{Absent, ArtifactView};
use crate::format::header::{DEVICE_DIGEST, HEADER_BYTES, Header, SECTION_TABLE_OFFSET, SectionKind, SectionRecord};
use crate::format::page::read_page;
use crate::format::residency::{Residency, ResidencyRecord};
use crate::format::spec::ModelRecord;
use crate::layout::ALIGNMENT;
use crate::sha256::{Engine, Sha256};
#[cfg(feature = "signed")]
use crate::trust::{Trust, TrustError};

/// Why an artifact cannot be streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Its structure is not sound.
    Format(FormatError),
    /// Bytes did not come, or are not the right ones.
    Read(ReadError),
    /// It is not what a holder of the firmware's keys signed.
    #[cfg(feature = "signed")]
    Trust(TrustError),
    /// The artifact has no plan for it.
    NoPlan,
    /// The weights are in cipher.
    Sealed,
    /// The memory is too small.
    Memory {
        /// Bytes needed.
        needed: u64,
        /// Bytes given.
        given: u64,
    },
    /// The planned buffers are too small for the file's leaves.
    Leaves {
        /// Bytes that a buffer would have.
        needed: u64,
        /// Bytes planned.
        planned: u64,
    },
}

impl From<FormatError> for OpenError {
    fn from(error: FormatError) -> Self {
        OpenError::Format(error)
    }
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        OpenError::Read(error)
    }
}

#[cfg(feature = "signed")]
impl From<TrustError> for OpenError {
    fn from(error: TrustError) -> Self {
        OpenError::Trust(error)
    }
}

impl core::fmt::Display for OpenError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use OpenError as E;
        match self {
            E::Format(error) => write!(f, "{error}"),
            E::Read(error) => write!(f, "{error}"),
            #[cfg(feature = "signed")]
            E::Trust(error) => write!(f, "{error}"),
            E::NoPlan => f.write_str("the artifact has no plan for streaming; `slmc compile --resident` makes one"),
            E::Sealed => f.write_str("the weights are sealed, and sealed weights are not streamed"),
            E::Memory { needed, given } => write!(f, "expected {needed} bytes of memory, got {given}"),
            E::Leaves { needed, planned } => write!(
                f,
                "the buffers are planned with {planned} bytes each, the leaves of the signature need {needed}: \
                 `slmc compile --stream-buffer {needed}`, or sign with smaller leaves"
            ),
        }
    }
}

impl core::error::Error for OpenError {}

/// The memory that a streamed artifact needs, as its header page states it; [`Streamed::open`] checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The device part without the weights, padded to 64.
    pub image_bytes: u64,
    /// The resident tensors.
    pub resident_bytes: u64,
    /// Each of the two buffers.
    pub buffer_bytes: u64,
    /// Arena and cache of a session of one worker.
    pub session_bytes: u64,
}

impl Sizes {
    /// Memory for [`Streamed::open`].
    pub fn memory_bytes(&self) -> u64 {
        self.image_bytes.saturating_add(self.resident_bytes)
    }

    /// All of it but the stack.
    pub fn ram_bytes(&self) -> u64 {
        self.memory_bytes().saturating_add(2 * self.buffer_bytes).saturating_add(self.session_bytes)
    }
}

/// Where things are in the file.
pub(super) struct Geometry {
    pub(super) header: Header,
    pub(super) absent: Absent,
    weights: SectionRecord,
    residency: SectionRecord,
    spec: SectionRecord,
}

impl Geometry {
    /// By a header page whose fields hold. The table of sections may lie: what it says is bounded here, and checked when
    /// the image is opened.
    fn of(page: &[u8], header: Header) -> Result<Self, OpenError> {
        if header.encryption != 0 {
            return Err(OpenError::Sealed);
        }
        // Room to add without overflow: nobody has compared this with the length of a file.
        if header.device_bytes > 1 << 62 {
            return Err(FormatError::Header("device_bytes").into());
        }
        let table = page[SECTION_TABLE_OFFSET..].chunks_exact(SectionRecord::BYTES).take(header.sections as usize);
        let find = |kind: SectionKind| {
            let mut records = table.clone().map(SectionRecord::from_bytes);
            records.find(|record| record.kind == kind as u32 && record.host == 0)
        };
        let missing = |kind| FormatError::section(kind, "missing or out of order");
        let end_of = |record: &SectionRecord| record.offset.checked_add(record.bytes);
        let inside = |kind, record: SectionRecord| {
            let end = end_of(&record).filter(|&end| end <= header.device_bytes);
            end.filter(|_| record.offset >= HEADER_BYTES as u64)
                .map(|_| record)
                .ok_or(FormatError::section(kind, "runs past the end of its part"))
        };
        let residency = inside(SectionKind::Residency, find(SectionKind::Residency).ok_or(OpenError::NoPlan)?)?;
        let needed = |kind| inside(kind, find(kind).ok_or(missing(kind))?);
        let (spec, functions) = (needed(SectionKind::Spec)?, needed(SectionKind::Functions)?);
        let weights = needed(SectionKind::Weights)?;
        let start = (functions.offset + functions.bytes).next_multiple_of(ALIGNMENT as u64);
        let end = weights.offset + weights.bytes;
        if start > weights.offset {
            return Err(missing(SectionKind::Weights).into());
        }
        Ok(Geometry { header, absent: Absent { start, end }, weights, residency, spec })
    }

    fn image_bytes(&self) -> u64 {
        (self.header.device_bytes - (self.absent.end - self.absent.start)).next_multiple_of(ALIGNMENT as u64)
    }

    /// The bytes of the image, without the padding after it.
    fn image_length(&self) -> u64 {
        self.header.device_bytes - (self.absent.end - self.absent.start)
    }

    /// Where a part of the file that is not absent lies in the image.
    pub(super) fn place(&self, start: u64, end: u64) -> Option<core::ops::Range<usize>> {
        let Absent { start: from, end: to } = self.absent;
        let shift = if end <= from { 0 } else { to - from };
        if end > from && start < to {
            return None;
        }
        Some(usize::try_from(start - shift).ok()?..usize::try_from(end - shift).ok()?)
    }
}

fn page_header(reader: &mut (impl Reader + ?Sized), page: &mut [u8]) -> Result<Header, OpenError> {
    let given = page.len() as u64;
    let page = page.get_mut(..HEADER_BYTES).ok_or(OpenError::Memory { needed: HEADER_BYTES as u64, given })?;
    read_all(reader, 0, page)?;
    Ok(Header::from_bytes(page))
}

/// Reads the header page into memory of 4096 bytes, and what the artifact states of the memory that it needs.
///
/// # Errors
/// Why the file is refused.
pub fn sizes(reader: &mut (impl Reader + ?Sized), page: &mut [u8]) -> Result<Sizes, OpenError> {
    let device_bytes = page_header(reader, page)?.device_bytes;
    let header = read_page(&page[..HEADER_BYTES], device_bytes)?;
    let geometry = Geometry::of(&page[..HEADER_BYTES], header)?;
    let record = residency_record(reader, &geometry)?;
    let mut model = [0; ModelRecord::BYTES];
    if geometry.spec.bytes < ModelRecord::BYTES as u64 {
        return Err(FormatError::section(SectionKind::Spec, "too short").into());
    }
    read_all(reader, geometry.spec.offset, &mut model)?;
    let model = ModelRecord::from_bytes(&model);
    Ok(Sizes {
        image_bytes: geometry.image_bytes(),
        resident_bytes: record.resident_bytes,
        buffer_bytes: record.buffer_bytes.into(),
        session_bytes: model.arena_bytes.saturating_add(model.cache_bytes),
    })
}

/// The plan's fixed fields, as far as memory goes by them before the section is checked.
fn residency_record(reader: &mut (impl Reader + ?Sized), geometry: &Geometry) -> Result<ResidencyRecord, OpenError> {
    let mut record = [0; ResidencyRecord::BYTES];
    let section = &geometry.residency;
    if section.bytes < record.len() as u64 {
        return Err(FormatError::section(SectionKind::Residency, "too short").into());
    }
    read_all(reader, section.offset, &mut record)?;
    let record = ResidencyRecord::from_bytes(&record);
    if record.resident_bytes > geometry.weights.bytes {
        let fault = "the resident tensors have other bytes than it states";
        return Err(FormatError::section(SectionKind::Residency, fault).into());
    }
    Ok(record)
}

/// An artifact whose resident part is in memory and holds.
#[derive(Debug)]
pub struct Streamed<'m> {
    view: ArtifactView<'m>,
    residency: Residency<'m>,
    weights: u64,
    check: Check,
}

impl<'m> Streamed<'m> {
    /// Reads the resident part of a file into memory that starts on 64 bytes and has [`Sizes::memory_bytes`] or more. Leaves
    /// of a file with a chunk list are compared with it, here and whenever they are read again; whether the list is that of
    /// a signature is for [`Streamed::open_signed`] to say.
    ///
    /// # Errors
    /// Why the file is refused; where the memory is too small, how much is needed.
    pub fn open(
        storage: &mut dyn Storage,
        memory: &'m mut [u8],
        engine: &dyn Engine,
        check: Check,
    ) -> Result<Self, OpenError> {
        let device_bytes = page_header(storage, memory)?.device_bytes;
        let header = read_page(&memory[..HEADER_BYTES], device_bytes)?;
        Streamed::load(storage, memory, header, engine, check)
    }

    /// The same of a file that a holder of trusted keys signed.
    ///
    /// # Errors
    /// As for [`Streamed::open`], or the signature does not hold.
    #[cfg(feature = "signed")]
    pub fn open_signed(
        storage: &mut dyn Storage,
        memory: &'m mut [u8],
        trust: &Trust<'_>,
        check: Check,
    ) -> Result<Self, OpenError> {
        page_header(storage, memory)?;
        let header = trust.check_page(&memory[..HEADER_BYTES])?;
        let engine = Borrowed(trust.verifier);
        Streamed::load(storage, memory, header, &engine, check)
    }

    fn load(
        storage: &mut dyn Storage,
        memory: &'m mut [u8],
        header: Header,
        engine: &dyn Engine,
        check: Check,
    ) -> Result<Self, OpenError> {
        let geometry = Geometry::of(&memory[..HEADER_BYTES], header)?;
        let record = residency_record(storage, &geometry)?;
        let needed = geometry.image_bytes().saturating_add(record.resident_bytes);
        let given = memory.len() as u64;
        let small = OpenError::Memory { needed, given };
        if needed > given {
            return Err(small);
        }
        let (image, rest) = memory.split_at_mut(usize::try_from(geometry.image_bytes()).map_err(|_| small)?);
        let resident = &mut rest[..usize::try_from(record.resident_bytes).map_err(|_| small)?];
        image[HEADER_BYTES..].fill(0);
        load_image(storage, image, &geometry, engine)?;
        let image: &'m [u8] = &image[..usize::try_from(geometry.image_length()).map_err(|_| small)?];
        let view = ArtifactView::open_image(image, geometry.absent, &[])?;
        let residency = view.residency().ok_or(OpenError::NoPlan)?;
        if residency.record != record {
            return Err(FormatError::section(SectionKind::Residency, "was read in two ways").into());
        }
        check_leaves_fit(&view, &residency)?;
        load_resident(storage, resident, &view, &residency, engine)?;
        let view = view.with_resident(resident);
        if check == Check::Tensors {
            for index in 0..view.tensor_count() {
                let record = view.tensor_record(index);
                let Some(bytes) = view.tensor_bytes(&record) else { continue };
                if engine.digest(&[bytes]) != record.digest {
                    return Err(tensor_fault(&view, index).into());
                }
            }
        }
        view.verify_weights_root()?;
        Ok(Streamed { view, residency, weights: geometry.weights.offset, check })
    }

    /// The artifact: specification, tokenizer, grammar and all else but the streamed weights.
    pub fn artifact(&self) -> &ArtifactView<'m> {
        &self.view
    }

    /// What stays in RAM.
    pub fn residency(&self) -> &Residency<'m> {
        &self.residency
    }

    /// Which bytes its sessions compare with digests.
    pub fn check(&self) -> Check {
        self.check
    }

    /// Reads the whole device part once, through the first buffer, and compares its digest and that of every tensor. What
    /// the storage returns afterwards is not covered.
    ///
    /// # Errors
    /// What does not match, or cannot be read.
    pub fn verify(&self, storage: &mut dyn Storage) -> Result<(), OpenError> {
        let view = &self.view;
        let (page, header) = (view.bytes(), view.header());
        let absent = view.absent().ok_or(OpenError::NoPlan)?;
        let mut device = Sha256::new();
        device.update(&page[..DEVICE_DIGEST.start]);
        device.update(&[0; 32]);
        let signatures = crate::format::header::SIGNATURE_AREA;
        device.update(&page[DEVICE_DIGEST.end..signatures.start]);
        signatures.for_each(|_| device.update(&[0]));
        let before = absent.start as usize;
        device.update(&page[HEADER_BYTES..before]);
        let piece = (self.residency.record.buffer_bytes as usize).max(ALIGNMENT);
        let mut spare = [0; ALIGNMENT];
        let (mut at, mut tensor, mut hash) = (absent.start, 0, Sha256::new());
        while at < absent.end {
            // Up to the end of what is hashed together: padding before the weights, or a tensor.
            let end = match view.tensor_count() {
                count if at >= self.weights && tensor < count => {
                    let record = view.tensor_record(tensor);
                    self.weights + record.offset + record.bytes
                }
                _ => self.weights,
            };
            let count = (end - at).min(piece as u64) as usize;
            let bytes = match self.residency.record.buffer_bytes {
                0 => {
                    let bytes = &mut spare[..count];
                    read_all(storage, at, bytes)?;
                    bytes
                }
                _ => {
                    all_came(storage.fill(0, at, count), at, count as u64)?;
                    storage.buffer(0).get_mut(..count).ok_or(ReadError::Failed { offset: at })?
                }
            };
            device.update(bytes);
            if at < self.weights {
                if bytes.iter().any(|&byte| byte != 0) {
                    return Err(FormatError::Padding(at).into());
                }
            } else {
                hash.update(bytes);
            }
            at += count as u64;
            if at == end && at > self.weights {
                let digest = core::mem::take(&mut hash).finish();
                if digest != view.tensor_record(tensor).digest {
                    return Err(tensor_fault(view, tensor).into());
                }
                tensor += 1;
            }
        }
        device.update(&page[before..]);
        if device.finish() != header.device_digest {
            return Err(FormatError::Digest("device part").into());
        }
        Ok(view.verify_weights_root()?)
    }
}

fn tensor_fault(view: &ArtifactView<'_>, index: usize) -> FormatError {
    let fault = FormatError::Tensor(index as u32, "digest does not match");
    view.tensor_key(index).map_or(fault, FormatError::TensorDigest)
}

/// A verifier as what computes digests.
#[cfg(feature = "signed")]
struct Borrowed<'t>(&'t dyn crate::trust::Verifier);

#[cfg(feature = "signed")]
impl Engine for Borrowed<'_> {
    fn digest(&self, pieces: &[&[u8]]) -> crate::sha256::Digest {
        self.0.digest(pieces)
    }
}
