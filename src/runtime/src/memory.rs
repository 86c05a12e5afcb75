//! The caller's memory divided into typed regions: the only place that casts bytes to numbers. The memory must start on
//! 64 bytes and have exactly the planned length, so that every region is aligned and the whole is used.

use crate::layout::ALIGNMENT;

/// The remainder of the caller's memory.
pub(crate) struct Memory<'m> {
    rest: &'m mut [u8],
}

/// The memory is not 64-byte aligned.
#[derive(Debug)]
pub(crate) struct Misaligned;

/// Numbers for which every bit pattern is valid.
trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for i8 {}
impl Plain for u32 {}
impl Plain for i32 {}
impl Plain for i64 {}
impl Plain for f32 {}

impl<'m> Memory<'m> {
    pub(crate) fn new(bytes: &'m mut [u8]) -> Result<Self, Misaligned> {
        if !(bytes.as_ptr() as usize).is_multiple_of(ALIGNMENT) {
            return Err(Misaligned);
        }
        Ok(Memory { rest: bytes })
    }

    /// The next region, of `count` numbers; `None` where too little is left.
    fn take<T: Plain>(&mut self, count: usize) -> Option<&'m mut [T]> {
        let bytes = count.checked_mul(size_of::<T>())?;
        let padded = bytes.checked_next_multiple_of(ALIGNMENT)?;
        if padded > self.rest.len() {
            return None;
        }
        let (region, rest) = core::mem::take(&mut self.rest).split_at_mut(padded);
        self.rest = rest;
        #[expect(unsafe_code, reason = "the executor's typed buffers live in memory the caller owns")]
        // SAFETY: `Plain` types have no invalid bit patterns, and `align_to_mut` itself keeps to the type's alignment.
        let (before, numbers, _) = unsafe { region.align_to_mut::<T>() };
        if before.is_empty() { numbers.get_mut(..count) } else { None }
    }

    pub(crate) fn f32s(&mut self, count: usize) -> Option<&'m mut [f32]> {
        self.take(count)
    }

    pub(crate) fn u8s(&mut self, count: usize) -> Option<&'m mut [u8]> {
        self.take(count)
    }

    pub(crate) fn i8s(&mut self, count: usize) -> Option<&'m mut [i8]> {
        self.take(count)
    }

    pub(crate) fn u32s(&mut self, count: usize) -> Option<&'m mut [u32]> {
        self.take(count)
    }

    pub(crate) fn i32s(&mut self, count: usize) -> Option<&'m mut [i32]> {
        self.take(count)
    }

    pub(crate) fn i64s(&mut self, count: usize) -> Option<&'m mut [i64]> {
        self.take(count)
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }
}
