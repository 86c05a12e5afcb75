//! The emulator as console, command line and exit code: Arm semihosting, `bkpt 0xab` with the operation in r0 and its
//! argument in r1.

use core::arch::asm;
use core::fmt;

const WRITE_TEXT: u32 = 0x04;
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
