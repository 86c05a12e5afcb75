//! The zero-copy reader. [`ArtifactView::open`] checks the whole structure; afterwards the view only returns slices,
//! which cannot run past the end. It does not allocate. [`super::verify`] checks the digests.

use super::FormatError;
use super::chat_frame::ChatFrame;
use super::header::{self, Header, SectionKind, SectionRecord};
#[cfg(feature = "snapshots")]
use super::prefix::Prefix;
#[cfg(feature = "streaming")]
use super::residency::Residency;
use super::sections::NEEDED_COUNT;
use super::spec::{LayerRecord, ModelRecord};
use super::special_tokens::TokenList;
use super::tensor::{NO_LAYER, TensorKey, TensorPart, TensorRecord, TensorRole};
use super::text_tables::TextTables;
use crate::kernels::Width;
use crate::layout::{Layout, Storage, TileShape};
use crate::numerics::F32Bytes;
use crate::sample::Sampling;
#[cfg(feature = "speculation")]
use crate::speculate::Continuations;
use core::ops::Range;

/// An artifact with a valid structure.
#[derive(Clone, Copy, Debug)]
pub struct ArtifactView<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) header: Header,
    pub(super) spec: ModelRecord,
    pub(super) layers: &'a [u8],
    pub(super) tensors: &'a [u8],
    pub(super) functions: &'a [u8],
    pub(super) weights: &'a [u8],
    pub(super) vocabulary: &'a [u8],
    pub(super) golden: &'a [u8],
    pub(super) exits: &'a [u8],
    pub(super) text: Option<TextTables<'a>>,
    pub(super) opening: TokenList<'a>,
    pub(super) ends: TokenList<'a>,
    pub(super) chat_frame: Option<ChatFrame<'a>>,
    pub(super) sampling: Sampling,
    #[cfg(feature = "speculation")]
    pub(super) continuations: Option<Continuations<'a>>,
    #[cfg(feature = "speculation")]
    pub(super) draft: Option<&'a [u8]>,
    #[cfg(feature = "snapshots")]
    pub(super) prefix: Option<Prefix<'a>>,
    /// Whether the weights are in cipher.
    #[cfg(feature = "seal")]
    pub(super) sealed: bool,
    #[cfg(feature = "streaming")]
    pub(super) residency: Option<Residency<'a>>,
    /// The part of the file that `bytes` leaves out: the weights, of which `weights` has the resident ones.
    #[cfg(feature = "streaming")]
    pub(super) absent: Option<Absent>,
}

/// A part of a file that is not in memory.
#[cfg(feature = "streaming")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Absent {
    /// Its first byte.
    pub(crate) start: u64,
    /// The byte after it.
    pub(crate) end: u64,
}

/// A quantized matrix in place.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// All tiles.
    pub bytes: &'a [u8],
    /// Their shape.
    pub shape: TileShape,
    /// Output dimension, unpadded.
    pub rows: usize,
    /// Input dimension, unpadded.
    pub columns: usize,
    /// Width of the activations it is multiplied with.
    pub width: Width,
}

impl Matrix<'_> {
    /// The rows of a range of tiles, without padding rows.
    #[inline]
    pub fn rows_of(&self, tiles: &Range<usize>) -> Range<usize> {
        let rows = self.shape.layout.rows();
        (tiles.start * rows).min(self.rows)..(tiles.end * rows).min(self.rows)
    }

    /// The rows of one of `experts` whose matrices are stacked: whole tiles, by the checks of the reader.
    #[cfg(feature = "mixtures")]
    pub(crate) fn of_expert(self, expert: usize, experts: usize) -> Self {
        let tiles = self.shape.tiles / experts;
        let bytes = tiles * self.shape.stride;
        let shape = TileShape { tiles, ..self.shape };
        Matrix { bytes: &self.bytes[expert * bytes..][..bytes], shape, rows: self.rows / experts, ..self }
    }
}

/// A quantized matrix that may be split into two parts with different storages. Both parts number rows and tiles as the
/// whole matrix does, so that their results have the same destination.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The first rows, or all.
    pub first: Matrix<'a>,
    /// The rows after them. Its bytes begin where its tile 0 would be, within those of `first`; they are its own from
    /// its first tile on.
    pub rest: Option<Matrix<'a>>,
}

impl<'a> Parts<'a> {
    /// The part with a row.
    #[inline]
    pub fn of_row(&self, row: usize) -> &Matrix<'a> {
        self.rest.as_ref().filter(|_| row >= self.first.rows).unwrap_or(&self.first)
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let value = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes([value[0], value[1], value[2], value[3]]))
}

impl<'a> ArtifactView<'a> {
    /// Checks the structure of an artifact: the whole file, or its device part alone.
    pub fn open(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let header = super::page::read_page(bytes, bytes.len() as u64)?;
        let mut view = ArtifactView::of_page(bytes, header);
        view.read_all()?;
        Ok(view)
    }

    /// Checks the structure of a device part without its weights, of which the resident ones are in memory of their own.
    #[cfg(feature = "streaming")]
    pub(crate) fn open_image(image: &'a [u8], absent: Absent, resident: &'a [u8]) -> Result<Self, FormatError> {
        let header = super::page::read_page(image, image.len() as u64 + (absent.end - absent.start))?;
        let mut view = ArtifactView::of_page(image, header);
        view.absent = Some(absent);
        view.weights = resident;
        view.read_all()?;
        Ok(view)
    }

    /// A view of which the header alone has been read.
    fn of_page(bytes: &'a [u8], header: Header) -> Self {
        let empty = [&bytes[..0]; NEEDED_COUNT];
        ArtifactView {
            bytes,
            header,
            spec: ModelRecord::from_bytes(&[0; ModelRecord::BYTES]),
            layers: empty[0],
            tensors: empty[1],
            functions: empty[2],
            weights: empty[3],
            vocabulary: empty[4],
            golden: empty[5],
            exits: &bytes[..0],
            text: None,
            opening: TokenList::default(),
            ends: TokenList::default(),
            chat_frame: None,
            sampling: Sampling::GREEDY,
            #[cfg(feature = "speculation")]
            continuations: None,
            #[cfg(feature = "speculation")]
            draft: None,
            #[cfg(feature = "snapshots")]
            prefix: None,
            #[cfg(feature = "seal")]
            sealed: header.encryption != 0,
            #[cfg(feature = "streaming")]
            residency: None,
            #[cfg(feature = "streaming")]
            absent: None,
        }
    }

    fn read_all(&mut self) -> Result<(), FormatError> {
        self.read_sections()?;
        self.check_spec()?;
        self.read_special_tokens()?;
        self.read_chat_frame()?;
        self.read_sampling()?;
        self.read_exits()?;
        self.check_functions()?;
        self.check_tensors()?;
        self.check_vocabulary()?;
        #[cfg(feature = "grammar")]
        self.read_grammar()?;
        self.check_golden()?;
        self.read_text()?;
        #[cfg(feature = "speculation")]
        self.read_drafts()?;
        #[cfg(feature = "snapshots")]
        self.read_prefix()?;
        #[cfg(feature = "streaming")]
        self.read_residency()?;
        self.refuse_what_is_lacking()
    }

    /// Where a byte of the file lies in `bytes`; of what is absent, where it would begin.
    pub(super) fn located(&self, offset: u64) -> u64 {
        #[cfg(feature = "streaming")]
        if let Some(Absent { start, end }) = self.absent {
            return offset.min(start) + offset.saturating_sub(end);
        }
        offset
    }

    /// Bytes of the file, or of its device part, those that are absent included.
    fn length(&self) -> u64 {
        let here = self.bytes.len() as u64;
        #[cfg(feature = "streaming")]
        if let Some(Absent { start, end }) = self.absent {
            return here + (end - start);
        }
        here
    }

    /// Bytes of the weights section; those of its record where they are not here.
    pub(super) fn weights_bytes(&self) -> Option<u64> {
        #[cfg(feature = "streaming")]
        if self.absent.is_some() {
            let weights = SectionKind::Weights as u32;
            return self.section_records().find(|record| record.kind == weights).map(|record| record.bytes);
        }
        Some(self.weights.len() as u64)
    }

    /// The part of the file that is not in memory.
    #[cfg(feature = "streaming")]
    pub(crate) fn absent(&self) -> Option<Absent> {
        self.absent
    }

    /// The same with the resident weights.
    #[cfg(feature = "streaming")]
    pub(crate) fn with_resident(self, resident: &'a [u8]) -> Self {
        ArtifactView { weights: resident, ..self }
    }

    /// Whether weights are absent, and a session reads them when it needs them.
    #[cfg(feature = "streaming")]
    pub fn is_streamed(&self) -> bool {
        self.absent.is_some()
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Every byte.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether the host part was cut off: the file ends after its device part.
    pub fn device_only(&self) -> bool {
        self.length() < self.header.file_bytes
    }

    /// Sizes of the model and its planned memory.
    pub fn spec(&self) -> &ModelRecord {
        &self.spec
    }

    /// Layer `index`.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn layer(&self, index: usize) -> LayerRecord {
        LayerRecord::from_bytes(&self.layers[index * LayerRecord::BYTES..])
    }

    /// Layout of quantized tensors.
    pub fn layout(&self) -> Layout {
        Layout::from_id(self.header.layout).unwrap_or(Layout::R8K4Offset8)
    }

    /// Name of the target.
    pub fn target(&self) -> &str {
        let end = self.header.target.iter().position(|&b| b == 0).unwrap_or(self.header.target.len());
        core::str::from_utf8(&self.header.target[..end]).unwrap_or("")
    }

    /// Number of tensors.
    pub fn tensor_count(&self) -> usize {
        self.tensors.len() / TensorRecord::BYTES
    }

    /// Record `index` of the tensor table.
    ///
    /// # Panics
    /// If there is no such record.
    pub fn tensor_record(&self, index: usize) -> TensorRecord {
        TensorRecord::from_bytes(&self.tensors[index * TensorRecord::BYTES..])
    }

    /// Key of record `index`.
    ///
    /// # Panics
    /// If there is no such record.
    pub fn tensor_key(&self, index: usize) -> Option<TensorKey> {
        key_of(&self.tensor_record(index))
    }

    /// The record of a tensor and its bytes; for a split matrix, those of the first part.
    pub fn tensor(&self, key: TensorKey) -> Option<(TensorRecord, &'a [u8])> {
        let record = self.tensor_record(self.first_record(key)?);
        Some((record, self.tensor_bytes(&record)?))
    }

    /// The first record of a tensor.
    pub(crate) fn first_record(&self, key: TensorKey) -> Option<usize> {
        let (mut low, mut high) = (0, self.tensor_count());
        while low < high {
            let middle = (low + high) / 2;
            if self.tensor_key(middle)?.rank() < key.rank() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (low < self.tensor_count() && self.tensor_key(low) == Some(key)).then_some(low)
    }

    /// The next record, if it is the second part of the same tensor.
    pub(crate) fn second_part(&self, index: usize) -> Option<TensorRecord> {
        let next = index.checked_add(1).filter(|&next| next < self.tensor_count())?;
        (self.tensor_key(next) == self.tensor_key(index)).then(|| self.tensor_record(next))
    }

    /// Number of records before those of a layer; with the layer count, before those that follow the layers.
    pub(crate) fn records_before(&self, layer: usize) -> usize {
        let after = layer >= self.spec.layers as usize;
        let rank = if after { 2 << 48 } else { 1 << 48 | (layer as u64) << 16 };
        let before = |index: &usize| self.tensor_key(*index).is_some_and(|key| key.rank() < rank);
        (0..self.tensor_count()).take_while(before).count()
    }

    /// Of `total` of something that the rows of a tensor have alike, what one token meets: of a mixture's experts those chosen.
    pub fn met_by_a_token(&self, record: &TensorRecord, total: u64) -> u64 {
        if !self.is_of_experts(record) {
            return total;
        }
        let layer = self.layer(usize::from(record.layer));
        total / u64::from(layer.experts) * u64::from(layer.chosen)
    }

    /// Whether a tensor has the stacked matrices of a mixture's experts.
    pub(crate) fn is_of_experts(&self, record: &TensorRecord) -> bool {
        let roles = [TensorRole::Gate as u8, TensorRole::Up as u8, TensorRole::Down as u8];
        record.layer != NO_LAYER && roles.contains(&record.role) && self.layer(usize::from(record.layer)).is_mixture()
    }

    /// The first record of a tensor within a range of records.
    pub(crate) fn record_among(&self, records: Range<usize>, key: TensorKey) -> Option<usize> {
        let [low, high] = key.layer.to_le_bytes();
        let start = [low, high, key.role as u8, key.part as u8];
        let bytes = self.tensors.get(records.start * TensorRecord::BYTES..records.end * TensorRecord::BYTES)?;
        let found = bytes.chunks_exact(TensorRecord::BYTES).position(|record| record.starts_with(&start))?;
        Some(records.start + found)
    }

    /// Bytes of a tensor, padding included; `None` where it is streamed.
    pub fn tensor_bytes(&self, record: &TensorRecord) -> Option<&'a [u8]> {
        let start = usize::try_from(self.tensor_start(record)?).ok()?;
        self.weights.get(start..start.checked_add(usize::try_from(record.bytes).ok()?)?)
    }

    /// Where a tensor begins in the weights that are here.
    fn tensor_start(&self, record: &TensorRecord) -> Option<u64> {
        #[cfg(feature = "streaming")]
        if self.absent.is_some() {
            return self.residency?.place(self.record_at(record.offset)?);
        }
        Some(record.offset)
    }

    /// The record of the tensor that begins at an offset of the weights section.
    #[cfg(feature = "streaming")]
    pub(crate) fn record_at(&self, offset: u64) -> Option<usize> {
        let (mut low, mut high) = (0, self.tensor_count());
        while low < high {
            let middle = (low + high) / 2;
            if self.tensor_record(middle).offset < offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (low < self.tensor_count() && self.tensor_record(low).offset == offset).then_some(low)
    }

    /// A quantized matrix in one part; a split one is an error.
    pub fn matrix(&self, key: TensorKey) -> Result<Matrix<'a>, FormatError> {
        let parts = self.parts(key)?;
        if parts.rest.is_some() { Err(FormatError::TensorShape(key)) } else { Ok(parts.first) }
    }

    /// A quantized matrix in one part or two.
    pub fn parts(&self, key: TensorKey) -> Result<Parts<'a>, FormatError> {
        self.parts_of(key, self.first_record(key).ok_or(FormatError::MissingTensor(key))?)
    }

    /// The matrix that begins with a record.
    pub(crate) fn parts_of(&self, key: TensorKey, index: usize) -> Result<Parts<'a>, FormatError> {
        let wrong = FormatError::TensorShape(key);
        let record = self.tensor_record(index);
        let bytes = self.tensor_bytes(&record).ok_or(wrong)?;
        let first = self.matrix_of(key, &record, bytes)?;
        let Some(second) = self.second_part(index) else { return Ok(Parts { first, rest: None }) };
        // The second part as if it began with row 0: its tiles are not longer than those of the first, so the bytes
        // before its own exist.
        let rows = first.rows + second.rows as usize;
        let whole = self.matrix_of(key, &TensorRecord { rows: rows as u32, ..second }, bytes)?;
        let before = first.shape.tiles * whole.shape.stride;
        let offset = self.tensor_start(&second).and_then(|start| usize::try_from(start).ok()).ok_or(wrong)?;
        let start = offset.checked_sub(before).ok_or(wrong)?;
        let bytes = self.weights.get(start..start + whole.shape.bytes()).ok_or(wrong)?;
        Ok(Parts { first, rest: Some(Matrix { bytes, ..whole }) })
    }

    /// The matrix of a record.
    pub(crate) fn matrix_of(
        &self,
        key: TensorKey,
        record: &TensorRecord,
        bytes: &'a [u8],
    ) -> Result<Matrix<'a>, FormatError> {
        let (rows, columns) = (record.rows as usize, record.columns as usize);
        let shape = Storage::from_id(record.storage)
            .zip(Layout::from_id(record.layout))
            .and_then(|(storage, layout)| TileShape::new(storage, layout, rows, columns))
            .ok_or(FormatError::TensorShape(key))?;
        // Lookup tables have no activation width.
        let width = Width::from_number(record.activation_bits).unwrap_or(Width::Bits8);
        Ok(Matrix { bytes, shape, rows, columns, width })
    }

    /// An f32 tensor.
    pub fn vector(&self, key: TensorKey) -> Result<F32Bytes<'a>, FormatError> {
        self.optional_vector(key)?.ok_or(FormatError::MissingTensor(key))
    }

    /// An f32 tensor that may be absent.
    pub fn optional_vector(&self, key: TensorKey) -> Result<Option<F32Bytes<'a>>, FormatError> {
        let Some((record, bytes)) = self.tensor(key) else { return Ok(None) };
        self.vector_of(key, &record, bytes).map(Some)
    }

    /// The f32 tensor of a record.
    pub(crate) fn vector_of(
        &self,
        key: TensorKey,
        record: &TensorRecord,
        bytes: &'a [u8],
    ) -> Result<F32Bytes<'a>, FormatError> {
        if record.storage != Storage::F32 as u8 {
            return Err(FormatError::TensorShape(key));
        }
        Ok(F32Bytes::new(bytes).slice(0, record.rows as usize * record.columns as usize))
    }

    /// Bytes of a section; `None` where it is absent or cut off with the host part.
    pub fn section(&self, kind: SectionKind) -> Option<&'a [u8]> {
        let record = self.section_records().find(|record| record.kind == kind as u32)?;
        #[cfg(feature = "streaming")]
        if self.absent.is_some() && kind == SectionKind::Weights {
            return None;
        }
        let (start, end) = (self.located(record.offset), self.located(record.offset + record.bytes));
        self.bytes.get(start as usize..end as usize)
    }

    /// The section table.
    pub fn section_records(&self) -> impl Iterator<Item = SectionRecord> + 'a {
        let table = &self.bytes[header::SECTION_TABLE_OFFSET..];
        table.chunks_exact(SectionRecord::BYTES).take(self.header.sections as usize).map(SectionRecord::from_bytes)
    }

    /// The bytes of a token; empty for ids outside the vocabulary.
    pub fn token_bytes(&self, token: u32) -> &'a [u8] {
        self.tokens().of(token)
    }

    /// The tables that turn text into tokens; `None` where the tokenizer stays on the host.
    pub fn text(&self) -> Option<&TextTables<'a>> {
        self.text.as_ref()
    }

    /// Digest of the logits of all golden prompts.
    pub fn golden_digest(&self) -> [u8; 32] {
        let mut digest = [0; 32];
        digest.copy_from_slice(&self.golden[4..GOLDEN_HEADER_BYTES]);
        digest
    }

    /// The golden prompts' tokens, little-endian u32.
    pub fn golden_prompts(&self) -> impl Iterator<Item = &'a [u8]> + 'a {
        let golden = self.golden;
        let mut at = GOLDEN_HEADER_BYTES;
        core::iter::from_fn(move || {
            let length = u32_at(golden, at)? as usize;
            let prompt = golden.get(at + 4..at + 4 + length * 4)?;
            at += 4 + length * 4;
            Some(prompt)
        })
    }
}

/// Number of prompts, then the digest of their logits.
pub const GOLDEN_HEADER_BYTES: usize = 4 + 32;

pub(super) fn key_of(record: &TensorRecord) -> Option<TensorKey> {
    let (role, part) = (TensorRole::from_number(record.role)?, TensorPart::from_number(record.part)?);
    (role.in_layer() == (record.layer != NO_LAYER)).then_some(TensorKey { layer: record.layer, role, part })
}
