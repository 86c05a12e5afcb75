//! Memory that outlives the operation that needed it: taken, used and given back, so that a step does not ask the system for
//! the same pages again and again. What it holds when taken is what its last user left there. Training gives all of it back
//! to the system when it ends.

use crate::product::Value;
use std::sync::{MutexGuard, PoisonError};

/// Where working memory begins, so that no vector crosses two cache lines.
const ALIGNMENT_BYTES: usize = 64;

/// Buffers that nobody uses.
#[derive(Debug)]
pub struct Unused<T>(Vec<Vec<T>>);

impl<T> Unused<T> {
    pub(crate) const fn new() -> Self {
        Unused(Vec::new())
    }
}

fn unused<T: Value>() -> MutexGuard<'static, Unused<T>> {
    T::unused().lock().unwrap_or_else(PoisonError::into_inner)
}

/// `count` values, whatever they are, in the smallest unused buffer that has room and is not much larger.
pub fn take<T: Value>(count: usize) -> Vec<T> {
    let mut unused = unused::<T>();
    let buffers = &mut unused.0;
    let fits = |buffer: &&Vec<T>| buffer.capacity() >= count && buffer.capacity() / 2 <= count.max(1 << 12);
    let smallest = buffers.iter().filter(fits).map(Vec::capacity).min();
    let found = buffers.iter().position(|buffer| Some(buffer.capacity()) == smallest);
    let buffer = found.map(|index| buffers.swap_remove(index));
    drop(unused);
    match buffer {
        Some(mut buffer) => {
            buffer.resize(count, T::ZERO);
            buffer
        }
        None => vec![T::ZERO; count],
    }
}

/// Gives a buffer back.
pub fn give<T: Value>(buffer: Vec<T>) {
    if buffer.capacity() > 0 {
        unused().0.push(buffer);
    }
}

/// Gives every unused buffer back to the system.
pub fn forget() {
    unused::<f32>().0.clear();
    unused::<f64>().0.clear();
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
        let memory: Vec<T> = take(count + spare);
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
        give(std::mem::take(&mut self.memory));
    }
}
