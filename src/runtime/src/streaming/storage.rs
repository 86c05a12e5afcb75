//! What brings the bytes. A [`Reader`] reads and returns; [`TwoBuffers`] makes storage of it. Where reading goes on by itself,
//! by DMA or in a thread, the caller implements [`Storage`]: it owns both buffers, so that no borrow lasts while they are
//! filled.

/// Why bytes did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The storage failed.
    Failed,
    /// It did not answer in the time that the caller gives it.
    Late,
}

/// What reads a file. It is asked from the thread that calls the session.
pub trait Reader: Send {
    /// Fills a buffer with the bytes from an offset of the file, and returns how many there were: fewer than the buffer has
    /// are an error of the caller of this function.
    ///
    /// # Errors
    /// Why there are none.
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Fault>;
}

impl Reader for &[u8] {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Fault> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

impl<R: Reader + ?Sized> Reader for &mut R {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Fault> {
        (**self).read(offset, buffer)
    }
}

/// A file behind two buffers, 0 and 1. At most one of them is being filled at a time, and the other one is not touched
/// meanwhile.
pub trait Storage: Reader {
    /// A buffer that is not being filled.
    fn buffer(&mut self, number: usize) -> &mut [u8];

    /// Fills the start of a buffer with `bytes` bytes from an offset of the file, and returns how many there were.
    ///
    /// # Errors
    /// Why there are none.
    fn fill(&mut self, number: usize, offset: u64, bytes: usize) -> Result<usize, Fault>;

    /// Begins what [`Storage::fill`] does and returns; [`Storage::finish`] follows before anything else of this buffer or a
    /// further fill. False where the storage does not read ahead, which nothing depends on but the time.
    fn begin(&mut self, number: usize, offset: u64, bytes: usize) -> bool {
        let _ = (number, offset, bytes);
        false
    }

    /// Waits for what [`Storage::begin`] began, and returns how many bytes there were.
    ///
    /// # Errors
    /// Why there are none; [`Fault::Late`] where the caller waits no longer.
    fn finish(&mut self, number: usize) -> Result<usize, Fault> {
        let _ = number;
        Err(Fault::Failed)
    }
}

/// A reader with two buffers, which are filled when they are needed.
#[derive(Debug)]
pub struct TwoBuffers<'m, R> {
    reader: R,
    buffers: [&'m mut [u8]; 2],
}

impl<'m, R: Reader> TwoBuffers<'m, R> {
    /// Each buffer has at least the bytes of [`super::Sizes::buffer_bytes`], and should start on 64.
    pub fn new(reader: R, buffers: [&'m mut [u8]; 2]) -> Self {
        TwoBuffers { reader, buffers }
    }
}

impl<R: Reader> Reader for TwoBuffers<'_, R> {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Fault> {
        self.reader.read(offset, buffer)
    }
}

impl<R: Reader> Storage for TwoBuffers<'_, R> {
    fn buffer(&mut self, number: usize) -> &mut [u8] {
        self.buffers[number & 1]
    }

    fn fill(&mut self, number: usize, offset: u64, bytes: usize) -> Result<usize, Fault> {
        let buffer = self.buffers[number & 1].get_mut(..bytes).ok_or(Fault::Failed)?;
        self.reader.read(offset, buffer)
    }
}
