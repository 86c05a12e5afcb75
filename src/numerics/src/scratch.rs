//! Memory that outlives the operation that needed it: taken, used and given back, so that a step does not ask the system for
//! the same pages again and again. What it holds when taken is what its last user left there. Buffers come back that were never
//! taken, since a tensor does not say where its memory is from; so training gives what nobody took for a while back to the
//! system ([`settle`]), and all of it when it ends.

use crate::product::Value;
use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

/// Where working memory begins, so that no vector crosses two cache lines.
const ALIGNMENT_BYTES: usize = 64;

/// Least values of a buffer.
const LEAST: usize = 1 << 8;

/// Unused buffers of one size.
#[derive(Debug)]
struct Shelf<T> {
    buffers: Vec<Vec<T>>,
    /// The fewest there were since [`settle`].
    fewest: usize,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Shelf { buffers: Vec::new(), fewest: 0 }
    }
}

impl<T> Shelf<T> {
    fn take(&mut self) -> Option<Vec<T>> {
        let buffer = self.buffers.pop();
        self.fewest = self.fewest.min(self.buffers.len());
        buffer
    }

    /// Lets go of what nobody has needed.
    fn settle(&mut self) {
        self.buffers.truncate(self.buffers.len() - self.fewest);
        self.fewest = self.buffers.len();
    }
}

/// Buffers that nobody uses, by the values they have room for.
#[derive(Debug)]
pub struct Unused<T> {
    /// Those whose values were handed out and came back, as long as they were used.
    values: BTreeMap<usize, Shelf<T>>,
    /// Working memory, as long as it has room for, so that none of it is filled again.
    working: BTreeMap<usize, Vec<Vec<T>>>,
}

impl<T> Unused<T> {
    pub(crate) const fn new() -> Self {
        Unused { values: BTreeMap::new(), working: BTreeMap::new() }
    }
}

/// `count` rounded up to one of eight sizes an octave, so that batches of all lengths find each other's buffers.
fn size(count: usize) -> usize {
    let count = count.max(LEAST);
    count.next_multiple_of(1 << (count.ilog2() - 3))
}

fn unused<T: Value>() -> MutexGuard<'static, Unused<T>> {
    T::unused().lock().unwrap_or_else(PoisonError::into_inner)
}

/// `count` values, whatever they are, in the smallest unused buffer that has room and is not twice as large.
pub fn take<T: Value>(count: usize) -> Vec<T> {
    let size = size(count);
    let found = unused::<T>().values.range_mut(size..2 * size).find_map(|(_, shelf)| shelf.take());
    let mut buffer = found.unwrap_or_else(|| Vec::with_capacity(size));
    buffer.resize(count, T::ZERO);
    buffer
}

/// Gives a buffer back.
pub fn give<T: Value>(buffer: Vec<T>) {
    if buffer.capacity() >= LEAST {
        unused().values.entry(buffer.capacity()).or_default().buffers.push(buffer);
    }
}

/// Bytes of the unused buffers of values that were handed out.
pub fn held_bytes() -> usize {
    fn held<T: Value>() -> usize {
        unused::<T>().values.iter().map(|(room, shelf)| room * shelf.buffers.len() * size_of::<T>()).sum()
    }
    held::<f32>() + held::<f64>()
}

/// Gives the buffers that nobody has needed since the last time back to the system.
pub fn settle() {
    fn settle<T: Value>() {
        let mut unused = unused::<T>();
        unused.values.values_mut().for_each(Shelf::settle);
        unused.values.retain(|_, shelf| !shelf.buffers.is_empty());
    }
    settle::<f32>();
    settle::<f64>();
}

/// Gives every unused buffer back to the system.
pub fn forget() {
    *unused::<f32>() = Unused::new();
    *unused::<f64>() = Unused::new();
}

/// Working memory, given back when dropped.
#[derive(Debug)]
pub struct Scratch<T: Value = f32> {
    memory: Vec<T>,
    first: usize,
    count: usize,
}

impl<T: Value> Scratch<T> {
    /// `count` values, whatever they are.
    pub fn take(count: usize) -> Self {
        let spare = ALIGNMENT_BYTES / size_of::<T>();
        let size = size(count + spare);
        let found = unused::<T>().working.range_mut(size..2 * size).find_map(|(_, buffers)| buffers.pop());
        let memory = found.unwrap_or_else(|| vec![T::ZERO; size]);
        let first = memory.as_ptr().align_offset(ALIGNMENT_BYTES).min(spare);
        Scratch { memory, first, count }
    }

    /// The values.
    pub fn values(&mut self) -> &mut [T] {
        &mut self.memory[self.first..][..self.count]
    }
}

impl<T: Value> Drop for Scratch<T> {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        unused().working.entry(memory.len()).or_default().push(memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_room_and_are_few() {
        let sizes: std::collections::BTreeSet<usize> = (1..100_000).map(size).collect();
        for count in 1..100_000 {
            assert!(size(count) >= count && size(count) <= (count + count / 8).max(LEAST), "{count}: {}", size(count));
        }
        // Eight an octave between 2⁸ and 2¹⁷.
        assert!(sizes.len() <= 8 * 9 + 1, "{}", sizes.len());
        assert!(sizes.iter().all(|&one| size(one) == one));
    }

    #[test]
    fn memory_has_what_was_asked_for() {
        for count in [0, 1, 255, 256, 257, 5000] {
            let mut scratch = Scratch::<f32>::take(count);
            assert_eq!(scratch.values().len(), count);
            assert_eq!(scratch.values().as_ptr().align_offset(ALIGNMENT_BYTES), 0);
            let values = take::<f64>(count);
            assert_eq!(values.len(), count);
            give(values);
        }
    }

    #[test]
    fn what_is_given_back_is_held_by_its_room() {
        // More than anything beside it takes.
        let values: Vec<f64> = take(5_000_000);
        let room = values.capacity() * size_of::<f64>();
        give(values);
        assert!(held_bytes() >= room);
    }

    #[test]
    fn what_nobody_takes_is_let_go() {
        // A size that no other test has.
        let room = 3 << 20;
        let held = || unused::<f64>().values.get(&room).map_or(0, |shelf| shelf.buffers.len());
        for step in 0..100 {
            // Two come back for each that is taken.
            let buffer = take::<f64>(room);
            give(buffer);
            give(vec![0.0f64; room]);
            if step % 10 == 9 {
                settle();
            }
            assert!(held() <= 21, "step {step}: {}", held());
        }
        settle();
        settle();
        assert_eq!(held(), 0);
    }
}
