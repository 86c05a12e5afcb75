//! The caller's memory, divided for [`super::apply()`].

use super::contexts::{Contexts, Probabilities};
use super::error::UpdateError;
use super::package::Head;
use crate::format::header::HEADER_BYTES;

/// The parts of the memory.
pub(super) struct Workspace<'m> {
    /// The new header page.
    pub(super) page: &'m mut [u8; HEADER_BYTES],
    /// The base's.
    pub(super) base_page: &'m mut [u8; HEADER_BYTES],
    /// A leaf.
    pub(super) leaf: &'m mut [u8],
    /// What the contexts of every leaf begin with.
    pub(super) priors: &'m mut Probabilities,
    /// The contexts.
    pub(super) contexts: &'m mut Probabilities,
    /// A bit for every unit that has to be written.
    pub(super) dirty: &'m mut [u8],
}

impl<'m> Workspace<'m> {
    /// Bytes of all parts.
    pub(super) fn bytes(head: &Head) -> usize {
        2 * HEADER_BYTES + 2 * Contexts::BYTES + (1 << head.chunk_shift.min(20)) + dirty_bytes(head)
    }

    /// Divides the memory.
    pub(super) fn new(memory: &'m mut [u8], head: &Head) -> Result<Self, UpdateError> {
        let needed = Workspace::bytes(head);
        Workspace::split(memory, head).ok_or(UpdateError::Memory { needed })
    }

    fn split(memory: &'m mut [u8], head: &Head) -> Option<Self> {
        let (page, rest) = memory.split_first_chunk_mut()?;
        let (base_page, rest) = rest.split_first_chunk_mut()?;
        let (priors, rest) = probabilities(rest)?;
        let (contexts, rest) = probabilities(rest)?;
        let (leaf, rest) = rest.split_at_mut_checked(1 << head.chunk_shift.min(20))?;
        let dirty = rest.get_mut(..dirty_bytes(head))?;
        Some(Workspace { page, base_page, leaf, priors, contexts, dirty })
    }
}

/// A bit for every leaf, for the chunk list and for the page.
fn dirty_bytes(head: &Head) -> usize {
    (head.leaves as usize + 2).div_ceil(8)
}

fn probabilities(memory: &mut [u8]) -> Option<(&mut Probabilities, &mut [u8])> {
    let (bytes, rest) = memory.split_first_chunk_mut::<{ Contexts::BYTES }>()?;
    let (pairs, _) = bytes.as_chunks_mut();
    Some((pairs.try_into().ok()?, rest))
}
