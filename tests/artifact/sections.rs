//! An artifact taken apart into its sections and put together again with every digest recomputed, so that a change is
//! stopped by the checks of the structure or not at all.

use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::{
    DEVICE_DIGEST, HEADER_BYTES, HOST_DIGEST, Header, SECTION_TABLE_OFFSET, SIGNATURE_AREA, SectionKind, SectionRecord,
};
use slm_runtime::format::spec::{LayerRecord, ModelRecord};
use slm_runtime::format::tensor::{TensorRecord, digest_tree};
use slm_runtime::format::verify::{device_digest, host_digest};
use slm_runtime::layout::{ALIGNMENT, Layout, Storage, tensor_bytes};
use slm_runtime::plan::Plan;
use slm_runtime::sha256::Sha256;

/// Sections by their place in the file.
pub(super) const SPEC: usize = 0;
pub(super) const TENSORS: usize = 1;
pub(super) const WEIGHTS: usize = 3;

#[derive(Clone)]
pub(super) struct Sections {
    pub(super) header: Vec<u8>,
    /// Kind, host, content.
    pub(super) all: Vec<(u32, u32, Vec<u8>)>,
}

impl Sections {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let view = ArtifactView::open(bytes).expect("it is sound");
        let content = |record: &SectionRecord| bytes[record.offset as usize..][..record.bytes as usize].to_vec();
        let all = view.section_records().map(|record| (record.kind, record.host, content(&record))).collect();
        Sections { header: bytes[..HEADER_BYTES].to_vec(), all }
    }

    /// The file with these sections, (kind, host, content), after those of the device, or at the end.
    pub(super) fn with(mut self, sections: &[(u32, u32, &[u8])]) -> Vec<u8> {
        for &(kind, host, content) in sections {
            let of_device = self.all.iter().filter(|(_, host, _)| *host == 0).count();
            let at = if host == 1 { self.all.len() } else { of_device };
            self.all.insert(at, (kind, host, content.to_vec()));
        }
        self.file(|_| {})
    }

    /// Makes the planned memory what the specification says, as far as there is a plan.
    pub(super) fn plan_again(&mut self) {
        let spec = &mut self.all[SPEC].2;
        if spec.len() < ModelRecord::BYTES {
            return;
        }
        let mut model = ModelRecord::from_bytes(spec);
        let layers: Vec<LayerRecord> =
            spec[ModelRecord::BYTES..].chunks_exact(LayerRecord::BYTES).map(LayerRecord::from_bytes).collect();
        if let Some(plan) = Plan::new(&model, layers.into_iter()) {
            (model.arena_bytes, model.cache_bytes) = (plan.arena_bytes, plan.cache_bytes);
            spec[..ModelRecord::BYTES].copy_from_slice(&model.to_bytes());
        }
    }

    /// Makes sizes and offsets of the tensor table, and the weights themselves, what shapes and layouts say, for
    /// tensors of at most `most` bytes.
    pub(super) fn tile_again(&mut self, most: usize) {
        let old = std::mem::take(&mut self.all[WEIGHTS].2);
        let (mut weights, mut from) = (Vec::new(), 0);
        for bytes in self.all[TENSORS].2.chunks_exact_mut(TensorRecord::BYTES) {
            let mut record = TensorRecord::from_bytes(bytes);
            let length = record.bytes.min(old.len() as u64) as usize;
            let mut content = old.get(from..from + length).unwrap_or_default().to_vec();
            from += length;
            let layout = Layout::from_id(record.layout).unwrap_or(Layout::R4K4);
            let size = Storage::from_id(record.storage)
                .and_then(|storage| tensor_bytes(storage, layout, record.rows as usize, record.columns as usize));
            if let Some(size) = size.filter(|&size| size <= most) {
                content.resize(size, 0x11);
                record.bytes = size as u64;
            }
            record.offset = weights.len() as u64;
            weights.extend(content);
            bytes.copy_from_slice(&record.to_bytes());
        }
        self.all[WEIGHTS].2 = weights;
    }

    /// Makes every tensor's digest, as far as the table points at weights.
    fn digest_tensors(&mut self) {
        let weights = std::mem::take(&mut self.all[WEIGHTS].2);
        for bytes in self.all[TENSORS].2.chunks_exact_mut(TensorRecord::BYTES) {
            let mut record = TensorRecord::from_bytes(bytes);
            let end = record.offset.saturating_add(record.bytes).min(weights.len() as u64) as usize;
            let start = (record.offset as usize).min(end);
            record.digest = Sha256::digest(&weights[start..end]);
            bytes.copy_from_slice(&record.to_bytes());
        }
        self.all[WEIGHTS].2 = weights;
    }

    /// The file, with all digests right. `patch` changes the header and the section table before they are digested.
    pub(super) fn file(mut self, patch: impl FnOnce(&mut [u8])) -> Vec<u8> {
        self.digest_tensors();
        let mut header = Header::from_bytes(&self.header);
        let mut bytes = self.header;
        bytes[SECTION_TABLE_OFFSET..SIGNATURE_AREA.start].fill(0);
        let pad = |bytes: &mut Vec<u8>, alignment: usize| bytes.resize(bytes.len().next_multiple_of(alignment), 0);
        let mut device_bytes = None;
        for (index, (kind, host, content)) in self.all.iter().enumerate() {
            if *host == 1 && device_bytes.is_none() {
                pad(&mut bytes, ALIGNMENT);
                device_bytes = Some(bytes.len());
            }
            let weights = *kind == SectionKind::Weights as u32;
            pad(&mut bytes, if weights { header.page_bytes as usize } else { ALIGNMENT });
            let record = SectionRecord {
                kind: *kind,
                host: *host,
                offset: bytes.len() as u64,
                bytes: content.len() as u64,
                reserved: 0,
            };
            bytes.extend_from_slice(content);
            bytes[SECTION_TABLE_OFFSET + index * SectionRecord::BYTES..][..SectionRecord::BYTES]
                .copy_from_slice(&record.to_bytes());
        }
        pad(&mut bytes, ALIGNMENT);
        let device_bytes = device_bytes.unwrap_or(bytes.len());
        (header.file_bytes, header.device_bytes) = (bytes.len() as u64, device_bytes as u64);
        header.sections = self.all.len() as u32;
        let table = &self.all[TENSORS].2;
        header.weights_root =
            digest_tree(table.chunks_exact(TensorRecord::BYTES).map(|record| TensorRecord::from_bytes(record).digest));
        bytes[..Header::BYTES].copy_from_slice(&header.to_bytes());
        patch(&mut bytes[..HEADER_BYTES]);
        let host = host_digest(&bytes, &bytes[device_bytes..]);
        bytes[HOST_DIGEST].copy_from_slice(&host);
        let device = device_digest(&bytes, &bytes[HEADER_BYTES..device_bytes]);
        bytes[DEVICE_DIGEST].copy_from_slice(&device);
        bytes
    }
}
