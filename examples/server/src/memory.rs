//! Bytes that start on 64, as the runtime wants them for artifacts, sessions and texts.

use slm_runtime::layout::ALIGNMENT;

/// Zeroed bytes whose first one lies on a multiple of 64.
pub struct Aligned {
    bytes: Vec<u8>,
    length: usize,
}

impl Aligned {
    /// So many bytes; `None` where this machine does not have them. A small artifact can state any size.
    pub fn zeroed(length: u64) -> Option<Self> {
        let length = usize::try_from(length).ok()?;
        let total = length.checked_add(ALIGNMENT)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(total).ok()?;
        bytes.resize(total, 0);
        Some(Aligned { bytes, length })
    }

    /// The bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let start = self.bytes.as_ptr().align_offset(ALIGNMENT);
        &mut self.bytes[start..start + self.length]
    }

    /// The bytes, for as long as the program runs.
    pub fn leak(self) -> &'static mut [u8] {
        let start = self.bytes.as_ptr().align_offset(ALIGNMENT);
        &mut self.bytes.leak()[start..start + self.length]
    }
}
