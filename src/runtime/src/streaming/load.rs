//! Reads what stays in RAM: the image after its header page, and the resident tensors; leaf by leaf where there is a chunk list,
//! each compared with it before anything of it is used.

#[cfg(feature = "signed")]
use super::ReadError;
use super::image::Geometry;
#[cfg(feature = "signed")]
use super::read::all_came;
use super::read::read_all;
use super::{OpenError, Storage};
use crate::format::FormatError;
use crate::format::artifact::{Absent, ArtifactView};
use crate::format::header::{HEADER_BYTES, SectionKind};
#[cfg(feature = "signed")]
use crate::format::header::{SECTION_TABLE_OFFSET, SectionRecord};
use crate::format::residency::Residency;
use crate::layout::ALIGNMENT;
use crate::sha256::Engine;

/// Reads the image after its header page, leaf by leaf where there is a chunk list.
pub(super) fn load_image(
    storage: &mut dyn Storage,
    image: &mut [u8],
    geometry: &Geometry,
    engine: &dyn Engine,
) -> Result<(), OpenError> {
    #[cfg(feature = "signed")]
    if geometry.header.chunk_shift != 0 {
        return load_leaves(storage, image, geometry, engine);
    }
    let _ = engine;
    let Absent { start, end } = geometry.absent;
    for (from, to) in [(HEADER_BYTES as u64, start), (end, geometry.header.device_bytes)] {
        let place = geometry.place(from, to).and_then(|place| image.get_mut(place));
        read_all(storage, from, place.ok_or(FormatError::Header("device_bytes"))?)?;
    }
    Ok(())
}

#[cfg(feature = "signed")]
fn load_leaves(
    storage: &mut dyn Storage,
    image: &mut [u8],
    geometry: &Geometry,
    engine: &dyn Engine,
) -> Result<(), OpenError> {
    use crate::format::chunks::{ChunkList, Leaves, check_list};
    use crate::format::tree::{leaf_digest, root};
    let header = &geometry.header;
    check_list(&image[..HEADER_BYTES], header)?;
    let outside = |kind: u32| FormatError::Section(kind, "runs past the end of its part");
    let (page, rest) = image.split_at_mut(HEADER_BYTES);
    let leaves = Leaves::of(page, header);
    let place = |start: u64, end: u64| {
        let inside = start >= HEADER_BYTES as u64 && end <= header.device_bytes;
        let place = geometry.place(start, end).filter(|_| inside)?;
        Some(place.start - HEADER_BYTES..place.end - HEADER_BYTES)
    };
    let mut records = page[SECTION_TABLE_OFFSET..].chunks_exact(SectionRecord::BYTES).take(header.sections as usize);
    let list = records.find_map(|record| {
        let record = SectionRecord::from_bytes(record);
        (record.kind == SectionKind::Chunks as u32).then_some(record)
    });
    let list = list.ok_or(outside(SectionKind::Chunks as u32))?;
    let end = list.offset.checked_add(list.bytes);
    let list_place = end.and_then(|end| place(list.offset, end)).filter(|place| place.end <= rest.len());
    let list_place = list_place.ok_or(outside(list.kind))?;
    read_all(storage, list.offset, &mut rest[list_place.clone()])?;
    if root(ChunkList::new(&rest[list_place.clone()]).iter(), engine) != header.chunks_root {
        return Err(FormatError::Digest("chunk list").into());
    }
    // Device sections follow each other, so leaves lie before the list, which is the last of them; a table may lie.
    let (before, list) = rest.split_at_mut(list_place.start);
    let list = ChunkList::new(&list[..list_place.len()]);
    for (number, leaf) in (0u64..).zip(leaves.iter()) {
        if leaf.kind == SectionKind::Weights as u32 {
            continue;
        }
        let end = leaf.offset.checked_add(leaf.bytes.into());
        let bytes = end.and_then(|end| place(leaf.offset, end)).and_then(|place| before.get_mut(place));
        let bytes = bytes.ok_or(outside(leaf.kind))?;
        read_all(storage, leaf.offset, bytes)?;
        if list.get(number) != Some(&leaf_digest(engine, bytes)) {
            bytes.fill(0);
            return Err(ReadError::Leaf { leaf: number }.into());
        }
    }
    Ok(())
}

/// Whether the planned buffers take a tile of every streamed tensor with all of its leaves.
pub(super) fn check_leaves_fit(view: &ArtifactView<'_>, residency: &Residency<'_>) -> Result<(), OpenError> {
    let shift = view.header().chunk_shift;
    if shift == 0 {
        return Ok(());
    }
    let planned = u64::from(residency.record.buffer_bytes);
    let needed = view.largest_streamed_tile().map_or(0, |tile| least_buffer(tile, 1 << shift));
    if needed > planned { Err(OpenError::Leaves { needed, planned }) } else { Ok(()) }
}

/// Bytes of a buffer that takes a tile with all leaves it may be in: tiles begin on 64 bytes.
pub fn least_buffer(tile_bytes: u64, leaf_bytes: u64) -> u64 {
    (tile_bytes + leaf_bytes - ALIGNMENT as u64).div_ceil(leaf_bytes) * leaf_bytes
}

/// Reads the resident tensors, leaf by leaf where there is a chunk list: leaves that are resident in part through the first
/// buffer.
pub(super) fn load_resident(
    storage: &mut dyn Storage,
    resident: &mut [u8],
    view: &ArtifactView<'_>,
    residency: &Residency<'_>,
    engine: &dyn Engine,
) -> Result<(), OpenError> {
    let base = view.section_records().find(|record| record.kind == SectionKind::Weights as u32);
    let base = base.map_or(0, |record| record.offset);
    let mut index = 0;
    while index < view.tensor_count() {
        let first = index;
        while index < view.tensor_count() && residency.place(index).is_some() {
            index += 1;
        }
        let Some(place) = residency.place(first) else {
            index += 1;
            continue;
        };
        let (start, last) = (view.tensor_record(first).offset, view.tensor_record(index - 1));
        let end = last.offset + last.bytes;
        let place = usize::try_from(place).ok();
        let run = place.and_then(|place| resident.get_mut(place..place + (end - start) as usize));
        let run = run.ok_or(FormatError::section(SectionKind::Residency, "is larger than its memory"))?;
        load_run(storage, run, view, (base, start), engine)?;
    }
    Ok(())
}

/// Reads consecutive bytes of the weights section, from `start` on.
fn load_run(
    storage: &mut dyn Storage,
    run: &mut [u8],
    view: &ArtifactView<'_>,
    (base, start): (u64, u64),
    engine: &dyn Engine,
) -> Result<(), OpenError> {
    #[cfg(feature = "signed")]
    if view.header().chunk_shift != 0 {
        return load_run_of_leaves(storage, run, view, (base, start), engine);
    }
    let _ = (view, engine);
    Ok(read_all(storage, base + start, run)?)
}

#[cfg(feature = "signed")]
fn load_run_of_leaves(
    storage: &mut dyn Storage,
    run: &mut [u8],
    view: &ArtifactView<'_>,
    (base, start): (u64, u64),
    engine: &dyn Engine,
) -> Result<(), OpenError> {
    use crate::format::chunks::{ChunkList, Leaves};
    use crate::format::tree::leaf_digest;
    let leaves = Leaves::of(view.bytes(), view.header());
    let list = view.section(SectionKind::Chunks).map(ChunkList::new);
    let end = start + run.len() as u64;
    for number in leaves.holding(SectionKind::Weights as u32, &(start..end)) {
        let Some(leaf) = leaves.get(number) else { continue };
        let (from, to) = (leaf.within.max(start), (leaf.within + u64::from(leaf.bytes)).min(end));
        let place = &mut run[(from - start) as usize..(to - start) as usize];
        let holds = |bytes: &[u8]| list.and_then(|list| list.get(number)) == Some(&leaf_digest(engine, bytes));
        let wrong = ReadError::Leaf { leaf: number };
        if place.len() == leaf.bytes as usize {
            read_all(storage, base + leaf.within, place)?;
            if !holds(place) {
                place.fill(0);
                return Err(wrong.into());
            }
            continue;
        }
        let (needed, given) = (u64::from(leaf.bytes), storage.buffer(0).len() as u64);
        if needed > given {
            return Err(ReadError::Buffers { needed, given }.into());
        }
        let offset = base + leaf.within;
        all_came(storage.fill(0, offset, leaf.bytes as usize), offset, needed)?;
        let bytes = storage.buffer(0).get(..leaf.bytes as usize).ok_or(wrong)?;
        if !holds(bytes) {
            return Err(wrong.into());
        }
        place.copy_from_slice(&bytes[(from - leaf.within) as usize..(to - leaf.within) as usize]);
    }
    Ok(())
}
