//! The caller's pointers: checked, then used as references and slices.

use super::Status;
use core::ffi::c_char;
use core::fmt::Write;

/// Checks a pointer to one or several values.
pub(super) fn check_pointer<T>(pointer: *const T, count: usize) -> Result<(), Status> {
    if pointer.is_null() {
        return Err(Status::Null);
    }
    if !pointer.is_aligned() {
        return Err(Status::Alignment);
    }
    let bytes = count.checked_mul(size_of::<T>()).ok_or(Status::Argument)?;
    let end = (pointer as usize).checked_add(bytes);
    if bytes > isize::MAX as usize || end.is_none() { Err(Status::Argument) } else { Ok(()) }
}

/// The caller's array; a null pointer to no elements is empty.
///
/// # Safety
/// `pointer` has `count` values that nothing writes while the result lives.
#[expect(unsafe_code, reason = "arrays of the caller")]
pub(super) unsafe fn array<'c, T>(pointer: *const T, count: usize) -> Result<&'c [T], Status> {
    if count == 0 {
        return Ok(&[]);
    }
    check_pointer(pointer, count)?;
    // SAFETY: checked above; the caller guarantees that the values exist and stay unchanged.
    Ok(unsafe { core::slice::from_raw_parts(pointer, count) })
}

/// The caller's array to write to.
///
/// # Safety
/// `pointer` has `count` values that nothing else reads or writes while the result lives.
#[expect(unsafe_code, reason = "arrays of the caller")]
pub(super) unsafe fn array_mut<'c, T>(pointer: *mut T, count: usize) -> Result<&'c mut [T], Status> {
    if count == 0 {
        return Ok(&mut []);
    }
    check_pointer(pointer, count)?;
    // SAFETY: checked above; the caller guarantees that the values exist and are borrowed only here.
    Ok(unsafe { core::slice::from_raw_parts_mut(pointer, count) })
}

/// A value of the caller to write to.
///
/// # Safety
/// As for [`array_mut`] of one value.
#[expect(unsafe_code, reason = "values of the caller")]
pub(super) unsafe fn place<'c, T>(pointer: *mut T) -> Result<&'c mut T, Status> {
    check_pointer(pointer, 1)?;
    // SAFETY: checked above; the caller guarantees that the value exists and is borrowed only here.
    Ok(unsafe { &mut *pointer })
}

/// Text truncated to a caller's buffer, and its whole length.
struct Cut<'c> {
    buffer: &'c mut [u8],
    length: usize,
}

impl Write for Cut<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for &byte in text.as_bytes() {
            // The last byte is for the NUL.
            if self.length + 1 < self.buffer.len() {
                self.buffer[self.length] = byte;
            }
            self.length += 1;
        }
        Ok(())
    }
}

/// Writes an error as `snprintf` does: truncated to the buffer, with a NUL; returns the whole length.
///
/// # Safety
/// `buffer` is null or has `capacity` bytes.
#[expect(unsafe_code, reason = "arrays of the caller")]
pub(super) unsafe fn write_error(
    error: Option<&dyn core::fmt::Display>,
    buffer: *mut c_char,
    capacity: usize,
) -> usize {
    // SAFETY: as the caller says.
    let buffer = unsafe { array_mut(buffer.cast::<u8>(), if buffer.is_null() { 0 } else { capacity }) };
    let mut cut = Cut { buffer: buffer.unwrap_or_default(), length: 0 };
    if let Some(error) = error {
        let _ = write!(cut, "{error}");
    }
    if let Some(last) = cut.buffer.len().checked_sub(1) {
        cut.buffer[cut.length.min(last)] = 0;
    }
    cut.length
}
