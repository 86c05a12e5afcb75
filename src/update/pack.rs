//! A package from two artifacts: for every leaf of the new one the op with the fewest bytes, in the device's order. Op 3 is
//! coded twice: once to count how often each context sees a 1, which becomes the package's priors, then with them.

use super::UpdateError;
use super::inspect::summary;
use super::memory::Artifacts;
use super::summary::PackReport;
use crate::artifact::host::ArtifactFile;
use crate::disk::atomic;
use rayon::prelude::*;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::chunks::Leaf;
use slm_runtime::format::header::{HEADER_BYTES, SectionKind};
use slm_runtime::format::tree::leaf_digest;
use slm_runtime::sha256::{Digest, Software};
use slm_runtime::update::Slot;
use slm_runtime::update::coder::{Encoder, Tally};
use slm_runtime::update::contexts::{Contexts, Probabilities};
use slm_runtime::update::delta::code_leaf;
use slm_runtime::update::geometry::Geometry;
use slm_runtime::update::package::{Head, MAGIC, Op, RecordHead, VERSION};
use slm_runtime::update::surroundings::Surroundings;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Makes a package and writes it.
///
/// # Errors
/// An artifact is not sound, a device that runs the old one would refuse the new one, or the output cannot be written.
pub fn pack(old: &Path, new: &Path, out: &Path) -> Result<PackReport, UpdateError> {
    atomic::check_file(out, &MAGIC)?;
    let (old_file, new_file) = (ArtifactFile::open(old)?, ArtifactFile::open(new)?);
    let views = [old_file.view()?, new_file.view()?];
    check(&views, [old, new])?;
    let geometry = |error| UpdateError::Geometry { path: new.to_owned(), error };
    let bytes = package(&views[0], &views[1]).map_err(geometry)?;
    let report = summary(&bytes).map_err(|error| UpdateError::Package { path: out.to_owned(), error })?;
    atomic::write_file(out, &MAGIC, |file| file.write_all(&bytes))?;
    Ok(PackReport(report))
}

/// Whether a device that runs the old artifact could take the new one.
fn check([old, new]: &[ArtifactView<'_>; 2], paths: [&Path; 2]) -> Result<(), UpdateError> {
    let (before, after) = (old.header(), new.header());
    let [old_path, new_path] = paths.map(Path::to_owned);
    if after.chunk_shift == 0 {
        return Err(UpdateError::NoChunkList { path: new_path });
    }
    if before.device_digest == after.device_digest {
        return Err(UpdateError::Same { old: old_path, new: new_path });
    }
    let refused = |reason| Err(UpdateError::Refused { old: old_path, new: new_path, reason });
    if before.layout != after.layout {
        let (before, after) = (old.target(), new.target());
        return refused(format!("it is compiled for {after}, not for {before}; compile it for the same target"));
    }
    if before.model_id != [0; 16] && before.model_id != after.model_id {
        return refused("its model id is another; sign it with the same --model-id".to_owned());
    }
    if after.security_counter < before.security_counter {
        let (before, after) = (before.security_counter, after.security_counter);
        return refused(format!("its security counter, {after}, is below {before}; sign it with --counter {before}"));
    }
    Ok(())
}

/// The package that makes the device part of `new` from `old`.
///
/// # Errors
/// A header page that an update cannot use, or a new artifact without a chunk list.
pub fn package(old: &ArtifactView<'_>, new: &ArtifactView<'_>) -> Result<Vec<u8>, slm_runtime::update::UpdateError> {
    let missing = slm_runtime::update::UpdateError::Place("chunks");
    let (old_page, new_page) = (old.bytes().first_chunk().ok_or(missing)?, new.bytes().first_chunk().ok_or(missing)?);
    let geometry = Geometry::read(new_page, None)?;
    let shift = geometry.header().chunk_shift;
    let packer = Packer {
        bytes: Artifacts { old: old.bytes(), new: new.bytes() },
        base: Geometry::read(old_page, Some(shift))?,
        new: geometry,
    };
    let list = new.section(SectionKind::Chunks).ok_or(missing)?;
    let known = packer.known_leaves();
    let order: Vec<u32> = packer.new.order().collect();
    let copies: Vec<Option<u32>> = order.par_iter().map(|&index| packer.copy_of(index, &known)).collect();
    let priors = packer.priors(&order, &copies);
    let records = |priors: &Probabilities| -> Vec<u8> {
        let records: Vec<Vec<u8>> =
            order.par_iter().zip(&copies).map(|(&index, copy)| packer.record(index, *copy, priors)).collect();
        records.concat()
    };
    // Where little changed, priors cost more than they save.
    let (with, without) = (records(&priors), records(&Contexts::EVEN));
    let priors = if with.len() + Contexts::BYTES < without.len() { priors.as_flattened() } else { &[] };
    let records = if priors.is_empty() { without } else { with };
    let mut head = Head {
        magic: MAGIC,
        version: VERSION,
        leaves: packer.new.leaves(),
        package_bytes: 0,
        chunk_shift: shift,
        reserved: [0; 3],
        prior_bytes: priors.len() as u32,
        base: old.header().device_digest,
    };
    head.package_bytes = head.records_start() + records.len() as u64;
    Ok([&head.to_bytes(), priors, &new_page[..HEADER_BYTES], list, &records].concat())
}

struct Packer<'a> {
    bytes: Artifacts<'a>,
    base: Geometry<'a>,
    new: Geometry<'a>,
}

impl<'a> Packer<'a> {
    fn content(&self, leaf: &Leaf) -> &'a [u8] {
        &self.bytes.new[leaf.offset as usize..][..leaf.bytes as usize]
    }

    fn old_content(&self, leaf: &Leaf) -> &'a [u8] {
        &self.bytes.old[leaf.offset as usize..][..leaf.bytes as usize]
    }

    /// The first leaf of the base with each content.
    fn known_leaves(&self) -> BTreeMap<Digest, u32> {
        let indices: Vec<u32> = (0..self.base.leaves()).rev().collect();
        let digest = |&index: &u32| Some((leaf_digest(&Software, self.old_content(&self.base.leaf(index)?)), index));
        indices.par_iter().filter_map(digest).collect::<Vec<_>>().into_iter().collect()
    }

    fn copy_of(&self, index: u32, known: &BTreeMap<Digest, u32>) -> Option<u32> {
        let leaf = self.new.leaf(index)?;
        let old = *known.get(&leaf_digest(&Software, self.content(&leaf)))?;
        // Equal digests are equal bytes.
        self.base.leaf(old).filter(|old| old.bytes == leaf.bytes).map(|_| old)
    }

    /// The leaf and the leaf of the base at the same place of the same section.
    fn pair(&self, index: u32) -> Option<(Leaf, u32, Leaf)> {
        let leaf = self.new.leaf(index)?;
        let old = self.base.leaf_of(leaf.kind, leaf.within)?;
        Some((leaf, old, self.base.leaf(old)?))
    }

    /// Priors that suit every leaf that is not copied.
    fn priors(&self, order: &[u32], copies: &[Option<u32>]) -> Probabilities {
        type Counts = Box<[[u32; 2]; Contexts::COUNT]>;
        let none = || Counts::new([[0; 2]; Contexts::COUNT]);
        let tally = |mut counts: Counts, (&index, copy): (&u32, &Option<u32>)| {
            if let (None, Some((leaf, _, old))) = (copy, self.pair(index)) {
                let mut flash = self.bytes;
                let mut around = Surroundings::new(&mut flash, Slot::A, (&self.new, &leaf), (&self.base, &old));
                let mut content = self.content(&leaf).to_vec();
                let mut even = Contexts::EVEN;
                code_leaf(&mut Tally { counts: &mut counts }, &mut Contexts::new(&mut even), &mut content, &mut around);
            }
            counts
        };
        let add = |mut sum: Counts, other: Counts| {
            for (sum, other) in sum.as_flattened_mut().iter_mut().zip(other.as_flattened()) {
                *sum = sum.saturating_add(*other);
            }
            sum
        };
        let counts = order.par_iter().zip(copies).fold(none, tally).reduce(none, add);
        Contexts::priors(&counts)
    }

    /// The record of a leaf: the op with the fewest bytes, of equals the first.
    fn record(&self, index: u32, copy: Option<u32>, priors: &Probabilities) -> Vec<u8> {
        let leaf = self.new.leaf(index);
        let content = leaf.map_or(&[][..], |leaf| self.content(&leaf));
        if let Some(old) = copy {
            return record(Op::Copy, old, &[]);
        }
        let mut best = record(Op::Raw, 0, content);
        let Some((leaf, old, from)) = self.pair(index) else { return best };
        if from.bytes == leaf.bytes {
            let bitmap = record(Op::Bitmap, old, &bitmap(self.old_content(&from), content));
            best = if bitmap.len() < best.len() { bitmap } else { best };
        }
        let delta = record(Op::Delta, old, &self.delta(&leaf, &from, priors));
        if delta.len() < best.len() { delta } else { best }
    }

    fn delta(&self, leaf: &Leaf, from: &Leaf, priors: &Probabilities) -> Vec<u8> {
        let mut coded = Vec::new();
        let mut flash = self.bytes;
        let mut around = Surroundings::new(&mut flash, Slot::A, (&self.new, leaf), (&self.base, from));
        let mut probabilities = *priors;
        let mut encoder = Encoder::new(|byte| coded.push(byte));
        code_leaf(&mut encoder, &mut Contexts::new(&mut probabilities), &mut self.content(leaf).to_vec(), &mut around);
        encoder.finish();
        // A decoder takes zeros after the end.
        let length = coded.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        coded.truncate(length);
        coded
    }
}

fn record(op: Op, old: u32, data: &[u8]) -> Vec<u8> {
    let head = RecordHead { op: op as u8, old, bytes: data.len() as u32 };
    [&head.to_bytes()[..], data].concat()
}

/// For every eight bytes a byte that says which of them changed, and what these became.
fn bitmap(old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (old, new) in old.chunks(8).zip(new.chunks(8)) {
        let changed = || old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new);
        out.push(changed().fold(0, |bits, (n, _)| bits | 1 << n));
        out.extend(changed().map(|(_, (_, new))| new));
    }
    out
}
