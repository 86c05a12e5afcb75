//! The bytes of an artifact: sections in order, zeros between them, digests last. Parts and alignments of sections come
//! from the table that the reader in slm-runtime checks by, `slm_runtime::format::sections`.

use super::lower::Lowered;
use crate::model::size::StoredTensor;
use crate::text::vocabulary::vocabulary_section;
use slm_runtime::format::header::{
    DEVICE_DIGEST, DIGEST_SHA256, HEADER_BYTES, HOST_DIGEST, Header, MAGIC, MAJOR, MINOR, MINOR_CHAT_FRAME,
    MINOR_DRAFTS, MINOR_EXITS, MINOR_FAMILIES, MINOR_HEADS, MINOR_MIXTURES, MINOR_POOLING, MINOR_SPLIT,
    MINOR_STREAMING, SECTION_TABLE_OFFSET, SectionKind, SectionRecord,
};
use slm_runtime::format::sampling::SamplingRecord;
use slm_runtime::format::sections::{alignment, section_of};
use slm_runtime::format::spec::{
    Block, CacheFormat, CurveId, LayerRecord, NormKind, NormPlacement, Output, QueryKeyNorm,
};
use slm_runtime::format::tensor::{TensorRecord, digest_tree};
use slm_runtime::format::verify::{device_digest, host_digest};
use slm_runtime::layout::{ALIGNMENT, Layout, Storage};
use slm_runtime::sample::Sampling;
use slm_runtime::sha256::{Digest, Sha256};

/// Longest name of a target, in bytes.
pub const TARGET_NAME_BYTES: usize = 32;

/// Content of the file other than the model's records and weights.
pub struct Extras<'a> {
    /// Bytes of every token.
    pub vocabulary: &'a [Vec<u8>],
    /// Prompts of the golden vectors.
    pub prompts: &'a [Vec<u32>],
    /// Tables that turn text into tokens.
    pub text: Option<&'a [u8]>,
    /// Tokens that open and end a text, where either are more than one.
    pub special_tokens: Option<&'a [u8]>,
    /// The fixed texts around a conversation's messages.
    pub chat_frame: Option<&'a [u8]>,
    /// How tokens are chosen unless a program says otherwise, where that is not the likeliest.
    pub sampling: Option<&'a [u8]>,
    /// Further sections of the device part, in order.
    pub asked: &'a [(SectionKind, &'a [u8])],
    /// Sections of the host part, in order.
    pub host: &'a [(SectionKind, Vec<u8>)],
}

/// An artifact under construction: complete except for the golden digest and the file's own digests.
pub struct Draft {
    bytes: Vec<u8>,
    golden_offset: usize,
    device_bytes: usize,
}

/// Lays out every section. `weights` are the tensors' bytes in the order of `tensors`, padded to their stated sizes.
pub fn draft(
    target: &str,
    layout: Layout,
    page_bytes: u32,
    lowered: &Lowered,
    tensors: &[StoredTensor],
    weights: &[Vec<u8>],
    extras: &Extras<'_>,
) -> Draft {
    let mut file = File { bytes: vec![0; HEADER_BYTES], sections: Vec::new(), page_bytes };
    let mut spec = lowered.model.to_bytes().to_vec();
    spec.extend(lowered.layers.iter().flat_map(|layer| layer.to_bytes()));
    file.section(SectionKind::Spec, [spec.as_slice()]);
    let records = tensor_records(layout, tensors, weights);
    let table: Vec<u8> = records.iter().flat_map(TensorRecord::to_bytes).collect();
    file.section(SectionKind::Tensors, [table.as_slice()]);
    file.section(SectionKind::Functions, [lowered.functions.as_slice()]);
    file.section(SectionKind::Weights, weights.iter().map(Vec::as_slice));
    file.section(SectionKind::Vocabulary, [vocabulary_section(extras.vocabulary).as_slice()]);
    file.section(SectionKind::Golden, [golden_section(extras.prompts).as_slice()]);
    let golden_offset = file.sections.last().map_or(0, |record| record.offset as usize);
    if let Some(text) = extras.text {
        file.section(SectionKind::Text, [text]);
    }
    if let Some(special_tokens) = extras.special_tokens {
        file.section(SectionKind::SpecialTokens, [special_tokens]);
    }
    if let Some(frame) = extras.chat_frame {
        file.section(SectionKind::ChatFrame, [frame]);
    }
    if let Some(sampling) = extras.sampling {
        file.section(SectionKind::Sampling, [sampling]);
    }
    for (kind, content) in extras.asked {
        file.section(*kind, [*content]);
    }
    file.pad(ALIGNMENT);
    let device_bytes = file.bytes.len();
    for (kind, content) in extras.host {
        file.section(*kind, [content.as_slice()]);
    }
    file.pad(ALIGNMENT);
    let mut name = [0; TARGET_NAME_BYTES];
    let length = target.len().min(TARGET_NAME_BYTES);
    name[..length].copy_from_slice(&target.as_bytes()[..length]);
    let header = Header {
        magic: MAGIC,
        major: MAJOR,
        minor: minor(lowered, tensors, extras),
        header_bytes: HEADER_BYTES as u32,
        file_bytes: file.bytes.len() as u64,
        device_bytes: device_bytes as u64,
        sections: file.sections.len() as u32,
        page_bytes,
        layout: layout as u8,
        digest_algorithm: DIGEST_SHA256,
        cache_format: CacheFormat::Int8 as u8,
        weight_residency: 0,
        signature: 0,
        encryption: 0,
        chunk_shift: 0,
        reserved: 0,
        security_counter: 0,
        reserved_trust: [0; 8],
        target: name,
        device_digest: [0; 32],
        host_digest: [0; 32],
        weights_root: digest_tree(records.iter().map(|record| record.digest)),
        chunks_root: [0; 32],
        model_id: [0; 16],
        reserved_end: [0; 16],
    };
    file.bytes[..Header::BYTES].copy_from_slice(&header.to_bytes());
    for (index, record) in file.sections.iter().enumerate() {
        let at = SECTION_TABLE_OFFSET + index * SectionRecord::BYTES;
        file.bytes[at..at + SectionRecord::BYTES].copy_from_slice(&record.to_bytes());
    }
    Draft { bytes: file.bytes, golden_offset, device_bytes }
}

impl Draft {
    /// The bytes so far: structurally valid, so that the golden prompts can be run.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes the golden digest and the file's digests.
    pub fn finish(mut self, golden: Digest) -> Vec<u8> {
        self.bytes[self.golden_offset + 4..self.golden_offset + 36].copy_from_slice(&golden);
        // The device digest covers the host digest, so it comes last.
        let host = host_digest(&self.bytes, &self.bytes[self.device_bytes..]);
        self.bytes[HOST_DIGEST].copy_from_slice(&host);
        let device = device_digest(&self.bytes, &self.bytes[HEADER_BYTES..self.device_bytes]);
        self.bytes[DEVICE_DIGEST].copy_from_slice(&device);
        self.bytes
    }
}

/// Sections written one after the other.
struct File {
    bytes: Vec<u8>,
    sections: Vec<SectionRecord>,
    page_bytes: u32,
}

impl File {
    fn pad(&mut self, alignment: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(alignment), 0);
    }

    fn section<'b>(&mut self, kind: SectionKind, parts: impl IntoIterator<Item = &'b [u8]>) {
        self.pad(alignment(kind as u32, self.page_bytes) as usize);
        let offset = self.bytes.len();
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        let bytes = (self.bytes.len() - offset) as u64;
        let host = section_of(kind as u32).is_some_and(|section| section.host);
        let record =
            SectionRecord { kind: kind as u32, host: u32::from(host), offset: offset as u64, bytes, reserved: 0 };
        self.sections.push(record);
    }
}

/// Whether a model has what only the families of a later version have, see [`MINOR_FAMILIES`].
fn of_later_families(lowered: &Lowered) -> bool {
    let (relu, of_head) = (CurveId::Relu as u8, lowered.model.head_activation);
    let pooled = lowered.model.output == Output::Classifier as u8 && of_head != 0;
    let placements = [NormPlacement::Beside as u8, NormPlacement::Added as u8];
    let of_layer = |layer: &LayerRecord| {
        layer.activation == relu
            || placements.contains(&layer.norm_placement)
            || (layer.block == Block::Attention as u8 && layer.query_key_norm == QueryKeyNorm::Together as u8)
    };
    pooled || of_head == relu || lowered.layers.iter().any(of_layer)
}

/// Whether a model has what needs [`MINOR_HEADS`].
fn of_later_heads(lowered: &Lowered) -> bool {
    let model = &lowered.model;
    let of_layer = |layer: &LayerRecord| {
        let placements = [NormPlacement::Common as u8, NormPlacement::Network as u8];
        placements.contains(&layer.norm_placement)
            || layer.norm == NormKind::LayerUnbiased as u8
            || layer.score_cap.to_bits() != 0
            || (!model.is_decoder() && layer.window > 0)
    };
    let of_tokens = [Output::TokenClassifier as u8, Output::Answers as u8].contains(&model.output);
    let of_last = model.is_decoder() && model.output == Output::Classifier as u8;
    let of_model = model.embedding_width != 0 || model.head_norm != 0 || model.classifies_mean();
    let capped = model.logit_cap.to_bits() != 0;
    of_tokens || of_last || of_model || capped || lowered.layers.iter().any(of_layer)
}

/// The lowest minor version of the format that knows all that a file holds.
fn minor(lowered: &Lowered, tensors: &[StoredTensor], extras: &Extras<'_>) -> u16 {
    let of_tensor = |tensor: &StoredTensor| {
        let of_part = if tensor.first_row > 0 { MINOR_SPLIT } else { MINOR };
        tensor.storage.def().minor.max(of_part)
    };
    let further = [
        (extras.chat_frame.is_some(), MINOR_CHAT_FRAME),
        (lowered.model.pooling().is_some() || extras.sampling.is_some(), MINOR_POOLING),
        (of_later_families(lowered), MINOR_FAMILIES),
        (of_later_heads(lowered), MINOR_HEADS),
        (lowered.layers.iter().any(LayerRecord::is_mixture), MINOR_MIXTURES),
        (extras.asked.iter().any(|(kind, _)| *kind == SectionKind::Residency), MINOR_STREAMING),
        (extras.asked.iter().any(|(kind, _)| *kind == SectionKind::Exits), MINOR_EXITS),
        (!extras.asked.is_empty() || lowered.layers.iter().any(|layer| layer.cache_format != 0), MINOR_DRAFTS),
    ];
    let further = further.into_iter().filter(|(there, _)| *there).map(|(_, minor)| minor);
    tensors.iter().map(of_tensor).chain(further).max().unwrap_or(MINOR)
}

fn tensor_records(layout: Layout, tensors: &[StoredTensor], weights: &[Vec<u8>]) -> Vec<TensorRecord> {
    let mut offset = 0;
    let record = |(tensor, bytes): (&StoredTensor, &Vec<u8>)| {
        let quantized = tensor.storage != Storage::F32;
        let record = TensorRecord {
            layer: tensor.key.layer,
            role: tensor.key.role as u8,
            part: tensor.key.part as u8,
            storage: tensor.storage as u8,
            layout: if quantized { layout as u8 } else { 0 },
            activation_bits: tensor.activation_bits,
            sparsity: u8::from(tensor.storage.is_sparse()),
            rows: tensor.rows as u32,
            columns: tensor.columns as u32,
            offset,
            bytes: tensor.bytes,
            digest: Sha256::digest(bytes),
        };
        offset += tensor.bytes;
        record
    };
    tensors.iter().zip(weights).map(record).collect()
}

/// The sampling section; `None` where the likeliest token is taken.
pub fn sampling_section(sampling: &Sampling) -> Option<Vec<u8>> {
    (*sampling != Sampling::GREEDY).then(|| SamplingRecord::from(sampling).to_bytes().to_vec())
}

/// The special-tokens section; `None` where the model record's `bos` and `eos` suffice.
pub fn special_tokens_section(opening: &[u32], ends: &[u32]) -> Option<Vec<u8>> {
    if opening.len() <= 1 && ends.len() <= 1 {
        return None;
    }
    let counts = [opening.len() as u32, ends.len() as u32];
    Some(counts.iter().chain(opening).chain(ends).flat_map(|number| number.to_le_bytes()).collect())
}

fn golden_section(prompts: &[Vec<u32>]) -> Vec<u8> {
    let mut bytes = (prompts.len() as u32).to_le_bytes().to_vec();
    bytes.extend([0; 32]);
    for prompt in prompts {
        bytes.extend((prompt.len() as u32).to_le_bytes());
        bytes.extend(prompt.iter().flat_map(|token| token.to_le_bytes()));
    }
    bytes
}
