//! A package read without the artifact that it changes: its head, the new header page, the chunk list by its root, and every
//! record by op. Whether the data make the leaves is seen when it is applied.

use super::UpdateError;
use super::summary::{InspectReport, PackageSummary};
use crate::disk::hash::hex;
use crate::disk::mmap::MappedFile;
use slm_runtime::format::chunks::ChunkList;
use slm_runtime::format::tree::root;
use slm_runtime::sha256::Software;
use slm_runtime::update::UpdateError as Fault;
use slm_runtime::update::geometry::Geometry;
use slm_runtime::update::package::{Head, Op, RecordHead};
use slm_runtime::update::required_bytes;
use std::path::Path;

/// Reads a package.
///
/// # Errors
/// The file cannot be read, or is not a sound package.
pub fn inspect(path: &Path) -> Result<InspectReport, UpdateError> {
    let file = MappedFile::open(path).map_err(|source| UpdateError::Read { path: path.to_owned(), source })?;
    let package = |error| UpdateError::Package { path: path.to_owned(), error };
    summary(file.bytes()).map(InspectReport).map_err(package)
}

/// What the bytes of a package hold.
///
/// # Errors
/// It is not sound.
pub fn summary(bytes: &[u8]) -> Result<PackageSummary, Fault> {
    let length = bytes.len() as u64;
    let start = bytes.first_chunk().ok_or(Fault::Length { expected: Head::BYTES as u64, actual: length })?;
    let head = Head::read(start, length)?;
    // `Head::read` has compared these places with the length.
    let at = |offset: u64| bytes.get(offset as usize..).unwrap_or_default();
    let page = at(head.page_start()).first_chunk().ok_or(Fault::Package("the header page"))?;
    let geometry = Geometry::read(page, None)?;
    let header = geometry.header();
    let require = |holds: bool, field| if holds { Ok(()) } else { Err(Fault::Package(field)) };
    require(header.chunk_shift == head.chunk_shift, "`chunk_shift`")?;
    require(geometry.leaves() == head.leaves, "`leaves`")?;
    geometry.chunk_list()?;
    let list = &bytes[head.list_start() as usize..head.records_start() as usize];
    if root(ChunkList::new(list).iter(), &Software) != header.chunks_root {
        return Err(Fault::ChunkList);
    }
    let mut rest = at(head.records_start());
    let mut ops = PackageSummary::no_ops();
    for index in geometry.order() {
        let record = rest.first_chunk::<{ RecordHead::BYTES }>().ok_or(Fault::Package("a record"))?;
        let record = RecordHead::from_bytes(record);
        let op = Op::from_number(record.op).ok_or(Fault::Package("an op"))?;
        rest = rest[RecordHead::BYTES..].get(record.bytes as usize..).ok_or(Fault::Package("a record's length"))?;
        let row = &mut ops[op as usize];
        row.leaves += 1;
        row.artifact_bytes += geometry.leaf(index).map_or(0, |leaf| u64::from(leaf.bytes));
        row.package_bytes += u64::from(record.bytes);
    }
    require(rest.is_empty(), "the last record")?;
    Ok(PackageSummary {
        package_bytes: length,
        device_bytes: header.device_bytes,
        file_bytes: header.file_bytes,
        share: length as f64 / header.file_bytes as f64,
        base_sha256: hex(&head.base),
        new_sha256: hex(&header.device_digest),
        security_counter: header.security_counter,
        leaf_bytes: geometry.leaf_bytes() as u64,
        overhead_bytes: length - ops.iter().map(|row| row.package_bytes).sum::<u64>(),
        device_memory_bytes: required_bytes(&mut &*bytes)? as u64,
        ops,
    })
}
