//! An artifact put together again from its sections: where they begin, the chunk list over their leaves, the header's
//! digests. The signature area is empty, since what was signed is another page.

use super::SealingError;
use rayon::prelude::*;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::chunks::Leaves;
use slm_runtime::format::header::{
    DEVICE_DIGEST, HEADER_BYTES, HOST_DIGEST, Header, MAX_SECTIONS, SectionKind, SectionRecord,
};
use slm_runtime::format::sections::alignment;
use slm_runtime::format::tree::{leaf_digest, root};
use slm_runtime::format::verify::{device_digest, host_digest};
use slm_runtime::layout::ALIGNMENT;
use slm_runtime::sha256::{Digest, Software};
use std::borrow::Cow;

/// A section and its content.
#[derive(Clone, Debug)]
pub struct Content<'a> {
    /// A [`SectionKind`], or the number of an unknown section.
    pub kind: u32,
    /// Whether it is of the host part.
    pub host: bool,
    /// Its bytes.
    pub bytes: Cow<'a, [u8]>,
}

/// The sections of an artifact, without its chunk list. The file is whole.
pub fn sections<'a>(view: &ArtifactView<'a>) -> Vec<Content<'a>> {
    let records = view.section_records().filter(|record| record.kind != SectionKind::Chunks as u32);
    records
        .map(|record| Content {
            kind: record.kind,
            host: record.host == 1,
            bytes: Cow::Borrowed(&view.bytes()[record.offset as usize..(record.offset + record.bytes) as usize]),
        })
        .collect()
}

/// The file with these sections and the fields of a header that do not follow from them. Where the header has a
/// `chunk_shift`, the chunk list is made.
///
/// # Errors
/// [`SealingError::Sections`].
pub fn assembled(mut header: Header, sections: &[Content<'_>]) -> Result<Vec<u8>, SealingError> {
    let list_too = usize::from(header.chunk_shift != 0);
    if sections.len() + list_too > MAX_SECTIONS {
        return Err(SealingError::Sections);
    }
    let (mut bytes, mut table) = (vec![0; HEADER_BYTES], Vec::new());
    let mut put = |bytes: &mut Vec<u8>, kind: u32, host: bool, content: &[u8]| {
        pad(bytes, alignment(kind, header.page_bytes) as usize);
        let record = SectionRecord {
            kind,
            host: host.into(),
            offset: bytes.len() as u64,
            bytes: content.len() as u64,
            reserved: 0,
        };
        bytes.extend_from_slice(content);
        table.push(record);
        page_of(&table)
    };
    let mut page = Vec::new();
    for section in sections.iter().filter(|section| !section.host) {
        page = put(&mut bytes, section.kind, false, &section.bytes);
    }
    header.sections = sections.iter().filter(|section| !section.host).count() as u32;
    let list: Vec<Digest> = match list_too {
        0 => Vec::new(),
        _ => {
            let leaves: Vec<_> = Leaves::of(&page, &header).iter().collect();
            let digest = |leaf: &slm_runtime::format::chunks::Leaf| {
                leaf_digest(&Software, &bytes[leaf.offset as usize..][..leaf.bytes as usize])
            };
            leaves.par_iter().map(digest).collect()
        }
    };
    if list_too == 1 {
        page = put(&mut bytes, SectionKind::Chunks as u32, false, list.as_flattened());
    }
    pad(&mut bytes, ALIGNMENT);
    header.device_bytes = bytes.len() as u64;
    for section in sections.iter().filter(|section| section.host) {
        page = put(&mut bytes, section.kind, true, &section.bytes);
    }
    pad(&mut bytes, ALIGNMENT);
    header.file_bytes = bytes.len() as u64;
    header.sections = (sections.len() + list_too) as u32;
    header.chunks_root = root(list.iter().copied(), &Software);
    (header.host_digest, header.device_digest) = ([0; 32], [0; 32]);
    page[..Header::BYTES].copy_from_slice(&header.to_bytes());
    bytes[..HEADER_BYTES].copy_from_slice(&page);
    let device_bytes = header.device_bytes as usize;
    // The device digest covers the host digest, so it comes last.
    let host = host_digest(&bytes, &bytes[device_bytes..]);
    bytes[HOST_DIGEST].copy_from_slice(&host);
    let device = device_digest(&bytes, &bytes[HEADER_BYTES..device_bytes]);
    bytes[DEVICE_DIGEST].copy_from_slice(&device);
    Ok(bytes)
}

fn pad(bytes: &mut Vec<u8>, alignment: usize) {
    bytes.resize(bytes.len().next_multiple_of(alignment), 0);
}

/// A header page with this section table, and zeros where the header is.
fn page_of(table: &[SectionRecord]) -> Vec<u8> {
    let mut page = vec![0; Header::BYTES];
    page.extend(table.iter().flat_map(SectionRecord::to_bytes));
    page.resize(HEADER_BYTES, 0);
    page
}
