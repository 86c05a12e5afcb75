//! Signed artifacts in memory. Order: header page (signature, product line, counter), the chunk list by its root, every
//! section but the weights by its leaves, the structure, then the leaves of the weights: at once ([`Check::Everything`]), or
//! each before its first use ([`Check::AllButWeights`]). Both hold against changes before the check; memory that changes
//! afterwards is for [`super::stream`].

use super::{Trust, TrustError, Verifier};
use crate::format::FormatError;
use crate::format::artifact::ArtifactView;
use crate::format::chunks::{ChunkList, Leaves, Records, check_list};
use crate::format::header::{HEADER_BYTES, Header, SectionKind};
use crate::format::tree::{leaf_digest, root};
use core::ops::Range;

/// How much of a file is checked when it is opened.
#[derive(Debug)]
pub enum Check<'c> {
    /// All of it.
    Everything,
    /// All but the weights, whose leaves are checked by [`Signed::verify_leaves`] before they are used. The bitmap says
    /// which have been; it has [`bitmap_bytes`].
    AllButWeights(&'c mut [u8]),
}

/// Bytes of the bitmap of a file's weights: a bit for each of their leaves.
pub fn bitmap_bytes(bytes: &[u8]) -> usize {
    if bytes.len() < HEADER_BYTES {
        return 0;
    }
    let leaves = Leaves::of(bytes, &Header::from_bytes(bytes)).of_section(SectionKind::Weights as u32);
    usize::try_from((leaves.end - leaves.start).div_ceil(8)).unwrap_or(usize::MAX)
}

/// A signed artifact whose signature holds, and all of whose bytes but perhaps the weights are the signed ones.
pub struct Signed<'a, 'c> {
    view: ArtifactView<'a>,
    checker: LeafChecker<'a>,
    verifier: &'c dyn Verifier,
    weights: Range<u64>,
    /// Bit n: leaf n of the weights has been checked. Empty where all have been.
    seen: &'c mut [u8],
    unchecked: u64,
}

impl core::fmt::Debug for Signed<'_, '_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Signed").field("view", &self.view).field("unchecked", &self.unchecked).finish_non_exhaustive()
    }
}

impl<'a> ArtifactView<'a> {
    /// Opens an artifact that a holder of trusted keys signed: the whole file, or its device part alone. The host part,
    /// which no device uses, is not checked.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn open_signed<'c>(bytes: &'a [u8], trust: &Trust<'c>, check: Check<'c>) -> Result<Signed<'a, 'c>, TrustError> {
        let header = trust.check_page_of(bytes, bytes.len() as u64)?;
        let checker = LeafChecker::new(bytes, &header, trust.verifier)?;
        let weights = checker.leaves.of_section(SectionKind::Weights as u32);
        if weights.is_empty() {
            return Err(TrustError::no_weights());
        }
        checker.check(0..weights.start, trust.verifier)?;
        checker.check(weights.end..checker.leaves.count(), trust.verifier)?;
        let mut signed = Signed {
            view: ArtifactView::open(bytes)?,
            checker,
            verifier: trust.verifier,
            unchecked: weights.end - weights.start,
            weights: weights.clone(),
            seen: &mut [],
        };
        match check {
            Check::Everything => {
                checker.check(weights, trust.verifier)?;
                signed.unchecked = 0;
            }
            Check::AllButWeights(seen) => {
                let (needed, given) = (signed.unchecked.div_ceil(8), seen.len());
                if (given as u64) < needed {
                    return Err(TrustError::Memory { needed, given });
                }
                // What the caller's memory held before is nothing that was checked.
                seen.fill(0);
                signed.seen = seen;
            }
        }
        Ok(signed)
    }
}

/// Opens a signed artifact and checks every byte of its device part, as [`ArtifactView::open_signed`] with
/// [`Check::Everything`] does: for programs that need nothing else, in less code. All leaves are checked before the structure
/// is looked at.
///
/// # Errors
/// Why it is refused.
pub fn open_whole<'a>(bytes: &'a [u8], trust: &Trust<'_>) -> Result<ArtifactView<'a>, TrustError> {
    let header = trust.check_page_of(bytes, bytes.len() as u64)?;
    let checker = LeafChecker::new(bytes, &header, trust.verifier)?;
    checker.check(0..checker.leaves.count(), trust.verifier)?;
    Ok(ArtifactView::open(bytes)?)
}

impl<'a, 'c> Signed<'a, 'c> {
    /// A file that was opened before, with the bitmap and the count of then.
    #[cfg(any(test, feature = "c-api"))]
    pub(crate) fn again(
        view: ArtifactView<'a>,
        verifier: &'c dyn Verifier,
        seen: &'c mut [u8],
        unchecked: u64,
    ) -> Result<Self, TrustError> {
        if view.header().signature == 0 {
            return Err(TrustError::NotSigned);
        }
        let checker = LeafChecker::again(view.bytes(), view.header())?;
        let weights = checker.leaves.of_section(SectionKind::Weights as u32);
        let (needed, given) = ((weights.end - weights.start).div_ceil(8), seen.len());
        if unchecked > 0 && (given as u64) < needed {
            return Err(TrustError::Memory { needed, given });
        }
        let seen = if unchecked > 0 { seen } else { &mut [] };
        Ok(Signed { view, checker, verifier, weights, seen, unchecked })
    }

    /// The artifact, all of whose bytes have been checked.
    ///
    /// # Errors
    /// Leaves of the weights have not been checked yet.
    pub fn artifact(&self) -> Result<&ArtifactView<'a>, TrustError> {
        match self.unchecked {
            0 => Ok(&self.view),
            leaves => Err(TrustError::Unchecked { leaves }),
        }
    }

    /// The artifact before its weights have been checked: specification, tokenizer, grammar and all else may be used, the
    /// bytes of tensors only after [`Signed::verify_leaves`] of [`Signed::leaves_holding`] them.
    pub fn before_weights(&self) -> &ArtifactView<'a> {
        &self.view
    }

    /// Numbers of the leaves of the weights.
    pub fn weight_leaves(&self) -> Range<u64> {
        self.weights.clone()
    }

    /// Numbers of the leaves that hold some bytes of the weights, as offsets of tensor records count them.
    pub fn leaves_holding(&self, bytes: &Range<u64>) -> Range<u64> {
        self.checker.leaves.holding(SectionKind::Weights as u32, bytes)
    }

    /// A leaf by its number.
    #[cfg(feature = "seal")]
    pub(crate) fn leaf(&self, number: u64) -> Option<crate::format::chunks::Leaf> {
        self.checker.leaves.get(number)
    }

    /// Leaves of the weights that have not been checked.
    pub fn unchecked(&self) -> u64 {
        self.unchecked
    }

    /// Checks leaves of the weights, those of them that have not been.
    ///
    /// # Errors
    /// One of them is not what was signed, or there is no such leaf.
    pub fn verify_leaves(&mut self, range: Range<u64>) -> Result<(), TrustError> {
        if range.start < self.weights.start || range.end > self.weights.end || range.start > range.end {
            return Err(TrustError::Range);
        }
        for leaf in range {
            let bit = leaf - self.weights.start;
            let Some(byte) = self.seen.get_mut((bit / 8) as usize) else { break };
            let mask = 1 << (bit % 8);
            if *byte & mask == 0 {
                self.checker.check(leaf..leaf + 1, self.verifier)?;
                *byte |= mask;
                self.unchecked -= 1;
            }
        }
        Ok(())
    }
}

/// Compares leaves of a file in memory with its chunk list, whose root holds.
#[derive(Clone, Copy)]
pub(crate) struct LeafChecker<'a> {
    bytes: &'a [u8],
    leaves: Leaves<'a>,
    list: ChunkList<'a>,
}

impl<'a> LeafChecker<'a> {
    /// Finds the chunk list of a file whose page has been checked, and compares its root.
    fn new(bytes: &'a [u8], header: &Header, verifier: &dyn Verifier) -> Result<Self, TrustError> {
        check_list(bytes, header)?;
        let checker = LeafChecker::again(bytes, header)?;
        if root(checker.list.iter(), verifier) != header.chunks_root {
            return Err(FormatError::Digest("chunk list").into());
        }
        Ok(checker)
    }

    /// The list of a file whose root was compared before.
    fn again(bytes: &'a [u8], header: &Header) -> Result<Self, TrustError> {
        let list = list_of(bytes, header).and_then(|range| bytes.get(range));
        let list = ChunkList::new(list.ok_or(TrustError::outside(SectionKind::Chunks as u32))?);
        Ok(LeafChecker { bytes, leaves: Leaves::of(bytes, header), list })
    }

    #[inline(never)]
    fn check(&self, range: Range<u64>, verifier: &dyn Verifier) -> Result<(), TrustError> {
        for number in range {
            let Some((leaf, expected)) = self.leaves.get(number).zip(self.list.get(number)) else {
                return Err(TrustError::Range);
            };
            let start = usize::try_from(leaf.offset).unwrap_or(usize::MAX);
            let bytes = self.bytes.get(start..).and_then(|rest| rest.get(..leaf.bytes as usize));
            let Some(bytes) = bytes else { return Err(TrustError::outside(leaf.kind)) };
            if leaf_digest(verifier, bytes) != *expected {
                return Err(TrustError::Leaf { leaf: number, section: leaf.kind });
            }
        }
        Ok(())
    }
}

/// Where the chunk list of a file is, by its section table.
pub(super) fn list_of(page: &[u8], header: &Header) -> Option<Range<usize>> {
    let list = Records::of(page, header).find(|record| record.kind == SectionKind::Chunks as u32)?;
    let end = list.offset.checked_add(list.bytes).filter(|&end| end <= header.device_bytes)?;
    Some(usize::try_from(list.offset).ok()?..usize::try_from(end).ok()?)
}
