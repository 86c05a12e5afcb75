//! Memory that outlives the operation that needed it: taken, used and given back, so that a step does not ask the system for
//! the same pages again and again. What it holds when taken is what its last user left there. Training gives all of it back
//! to the system when it ends.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers that nobody uses.
static UNUSED: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());
/// Where working memory begins, so that no vector crosses two cache lines.
const ALIGNMENT_BYTES: usize = 64;

fn unused() -> MutexGuard<'static, Vec<Vec<f32>>> {
    UNUSED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `count` floats of any value, in the smallest unused buffer that has room and is not much larger.
pub fn take(count: usize) -> Vec<f32> {
    let mut buffers = unused();
    let fits = |buffer: &&Vec<f32>| buffer.capacity() >= count && buffer.capacity() / 2 <= count.max(1 << 12);
    let smallest = buffers.iter().filter(fits).map(Vec::capacity).min();
    let found = buffers.iter().position(|buffer| Some(buffer.capacity()) == smallest);
    let buffer = found.map(|index| buffers.swap_remove(index));
    drop(buffers);
    match buffer {
        Some(mut buffer) => {
            buffer.resize(count, 0.0);
            buffer
        }
        None => vec![0.0; count],
    }
}

/// Gives a buffer back.
pub fn give(buffer: Vec<f32>) {
    if buffer.capacity() > 0 {
        unused().push(buffer);
    }
}

/// Gives every unused buffer back to the system.
pub fn forget() {
    unused().clear();
}

/// Working memory, given back when dropped.
#[derive(Debug)]
pub struct Scratch {
    memory: Vec<f32>,
    first: usize,
    count: usize,
}

impl Scratch {
    /// `count` floats of any value.
    pub fn take(count: usize) -> Self {
        let spare = ALIGNMENT_BYTES / size_of::<f32>();
        let memory = take(count + spare);
        let first = memory.as_ptr().align_offset(ALIGNMENT_BYTES).min(spare);
        Scratch { memory, first, count }
    }

    /// The floats.
    pub fn values(&mut self) -> &mut [f32] {
        &mut self.memory[self.first..][..self.count]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.memory));
    }
}
