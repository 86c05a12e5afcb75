//! Updates against a simulated device: packages by a plain packer, flash whose writes tear, and power that fails anywhere.

mod coding;
mod cuts;
mod device;
mod hostile;
mod packer;

use super::*;
use crate::format::chunks::Leaves;
use crate::format::header::{
    DEVICE_DIGEST, DIGEST_SHA256, HEADER_BYTES, Header, MAGIC, MAJOR, MINOR_TRUST, SECTION_TABLE_OFFSET,
    SIGNATURE_AREA, SectionKind, SectionRecord,
};
use crate::format::tensor::TensorRecord;
use crate::format::tree::{leaf_digest, root};
use crate::format::verify::device_digest;
use crate::layout::{Layout, Storage, tensor_bytes};
use crate::sample::random_u64;
use crate::sha256::{Digest, Software};
use std::vec;
use std::vec::Vec;

/// Draws of a stream.
struct Draws {
    stream: u64,
    count: u64,
}

impl Draws {
    fn new(stream: u64) -> Self {
        Draws { stream, count: 0 }
    }

    fn number(&mut self) -> u64 {
        self.count += 1;
        random_u64(self.stream, self.count)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.number() as u8).collect()
    }
}

const SHIFT: u8 = 12;

/// Matrices and vectors of every storage; some reach over the edges of leaves.
const TENSORS: [(Storage, u32, u32); 8] = [
    (Storage::F32, 1, 70),
    (Storage::W8, 40, 130),
    (Storage::W4G32, 70, 200),
    (Storage::W8S24, 20, 96),
    (Storage::W4G32S24, 24, 160),
    (Storage::W4G64, 18, 250),
    (Storage::W3G32, 16, 70),
    (Storage::F32, 3, 64),
];

fn tensor_table(layout: Layout) -> (Vec<u8>, usize) {
    let (mut table, mut offset) = (Vec::new(), 0);
    for (storage, rows, columns) in TENSORS {
        let bytes = tensor_bytes(storage, layout, rows as usize, columns as usize).expect("it fits") as u64;
        let record = TensorRecord {
            layer: 0,
            role: 0x11,
            part: 0,
            storage: storage as u8,
            layout: if storage == Storage::F32 { 0 } else { layout as u8 },
            activation_bits: 8,
            sparsity: 0,
            rows,
            columns,
            offset,
            bytes,
            digest: [0; 32],
        };
        table.extend(record.to_bytes());
        offset += bytes;
    }
    (table, offset as usize)
}

/// What an update sees of an artifact: a header page, sections, zeros between them and a chunk list. No model is in it.
fn artifact(layout: Layout, sections: &[(SectionKind, Vec<u8>)], counter: u64) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    let mut table = Vec::new();
    let mut append = |bytes: &mut Vec<u8>, kind: SectionKind, content: &[u8]| {
        bytes.resize(bytes.len().next_multiple_of(64), 0);
        let offset = bytes.len() as u64;
        table.push(SectionRecord { kind: kind as u32, host: 0, offset, bytes: content.len() as u64, reserved: 0 });
        bytes.extend(content);
    };
    for (kind, content) in sections {
        append(&mut bytes, *kind, content);
    }
    let list_bytes: usize = sections.iter().map(|(_, content)| content.len().div_ceil(1 << SHIFT) * 32).sum();
    append(&mut bytes, SectionKind::Chunks, &vec![0; list_bytes]);
    bytes.resize(bytes.len().next_multiple_of(64), 0);
    let mut header = Header::from_bytes(&[0; Header::BYTES]);
    header.magic = MAGIC;
    (header.major, header.minor) = (MAJOR, MINOR_TRUST);
    header.header_bytes = HEADER_BYTES as u32;
    (header.file_bytes, header.device_bytes) = (bytes.len() as u64 + 640, bytes.len() as u64);
    (header.sections, header.page_bytes) = (table.len() as u32, 64);
    (header.layout, header.digest_algorithm, header.cache_format) = (layout as u8, DIGEST_SHA256, 1);
    (header.signature, header.chunk_shift, header.security_counter) = (1, SHIFT, counter);
    // A slot that is not empty: who signed is not looked at here.
    let slot = &mut bytes[SIGNATURE_AREA][..128];
    (slot[0], slot[32], slot[64]) = (1, 1, 1);
    let records: Vec<u8> = table.iter().flat_map(SectionRecord::to_bytes).collect();
    bytes[SECTION_TABLE_OFFSET..][..records.len()].copy_from_slice(&records);
    let leaves: Vec<Digest> = Leaves::of(&bytes, &header)
        .iter()
        .map(|leaf| leaf_digest(&Software, &bytes[leaf.offset as usize..][..leaf.bytes as usize]))
        .collect();
    let list = table.last().expect("the list").offset as usize;
    bytes[list..list + list_bytes].copy_from_slice(leaves.as_flattened());
    header.chunks_root = root(leaves.into_iter(), &Software);
    bytes[..Header::BYTES].copy_from_slice(&header.to_bytes());
    let digest = device_digest(&bytes, &bytes[HEADER_BYTES..]);
    bytes[DEVICE_DIGEST].copy_from_slice(&digest);
    bytes
}

/// Sections of a model that was trained a little after `seed`: most bytes are those of step 0.
fn sections(layout: Layout, seed: u64, step: u64) -> Vec<(SectionKind, Vec<u8>)> {
    let (table, weight_bytes) = tensor_table(layout);
    let mut draws = Draws::new(seed);
    let mut all = vec![
        (SectionKind::Spec, draws.bytes(192)),
        (SectionKind::Tensors, table),
        (SectionKind::Functions, draws.bytes(900)),
        (SectionKind::Weights, draws.bytes(weight_bytes)),
        (SectionKind::Vocabulary, draws.bytes(5000 + 100 * step as usize)),
        (SectionKind::Golden, draws.bytes(100)),
    ];
    let mut draws = Draws::new(seed ^ step << 8);
    if step > 0 {
        for byte in all[3].1.iter_mut().step_by(3) {
            *byte = byte.wrapping_add(draws.below(3) as u8).wrapping_sub(1);
        }
        all[5].1 = draws.bytes(100);
    }
    all
}
