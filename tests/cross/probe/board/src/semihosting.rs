//! The emulator as console, command line and exit code: Arm semihosting, `bkpt 0xab` with the operation in r0 and its
//! argument in r1.

use core::arch::asm;
use core::fmt;

const OPEN: u32 = 0x01;
const WRITE_TEXT: u32 = 0x04;
const READ: u32 = 0x06;
const SEEK: u32 = 0x0a;
#[cfg(feature = "trusted")]
const LENGTH: u32 = 0x0c;
const COMMAND_LINE: u32 = 0x15;
const EXIT_EXTENDED: u32 = 0x20;
/// Reason of an exit that has a code.
const APPLICATION_EXIT: u32 = 0x2_0026;

fn call(operation: u32, argument: u32) -> u32 {
    let answer;
    // SAFETY: the emulator reads and writes only what the argument of the operation says, which the callers own.
    unsafe { asm!("bkpt 0xab", inout("r0") operation => answer, in("r1") argument) };
    answer
}

/// Text on the emulator's console.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.as_bytes().chunks(63) {
            let mut line = [0u8; 64];
            line[..part.len()].copy_from_slice(part);
            call(WRITE_TEXT, line.as_ptr() as u32);
        }
        Ok(())
    }
}

/// A file of the machine that runs the emulator: storage that the board cannot address.
pub struct File {
    handle: u32,
}

impl File {
    /// A file by its name, which ends with a NUL, for reading.
    pub fn open(name: &core::ffi::CStr) -> Option<File> {
        // The second word is the mode, "rb".
        let block = [name.as_ptr() as u32, 1, name.count_bytes() as u32];
        let handle = call(OPEN, block.as_ptr() as u32);
        (handle != u32::MAX).then_some(File { handle })
    }

    /// Its length.
    #[cfg(feature = "trusted")]
    pub fn bytes(&self) -> usize {
        let block = [self.handle];
        call(LENGTH, block.as_ptr() as u32) as usize
    }
}

impl slm_runtime::streaming::Reader for File {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, slm_runtime::streaming::Fault> {
        let failed = slm_runtime::streaming::Fault::Failed;
        let seek = [self.handle, u32::try_from(offset).map_err(|_| failed)?];
        if call(SEEK, seek.as_ptr() as u32) != 0 {
            return Err(failed);
        }
        let block = [self.handle, buffer.as_mut_ptr() as u32, buffer.len() as u32];
        // The answer is the number of bytes that did not come.
        let missing = call(READ, block.as_ptr() as u32) as usize;
        buffer.len().checked_sub(missing).ok_or(failed)
    }
}

/// What the program was started with; empty where the emulator has none.
pub fn command_line(buffer: &mut [u8; 128]) -> &str {
    let mut block = [buffer.as_mut_ptr() as u32, buffer.len() as u32];
    let failed = call(COMMAND_LINE, block.as_mut_ptr() as u32) != 0;
    // SAFETY: the emulator has replaced the length; a volatile read keeps the compiler from the value it knew.
    let length = unsafe { block.as_ptr().add(1).read_volatile() } as usize;
    if failed { "" } else { core::str::from_utf8(&buffer[..length.min(128)]).unwrap_or("") }
}

/// Ends the emulator with this code.
pub fn exit(code: u32) -> ! {
    let block = [APPLICATION_EXIT, code];
    call(EXIT_EXTENDED, block.as_ptr() as u32);
    loop {}
}
