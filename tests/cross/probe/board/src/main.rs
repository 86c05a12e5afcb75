//! The device program for Cortex-M boards: no operating system, no allocator, no crates. Its command line says what to
//! do and where things are, addresses and sizes in hexadecimal without 0x:
//!
//! ```text
//! logits  ARTIFACT BYTES MEMORY
//! decode  ARTIFACT BYTES MEMORY TOKENS
//! further ARTIFACT BYTES MEMORY
//! streamed MEMORY
//! kernels MEMORY BYTES
//! work    MEMORY TABLE
//! trusted MEMORY WORK      with the feature of this name; WORK is a name (check/src/trusted.rs)
//! ```
//!
//! The artifact is read where it lies; the session gets exactly the planned bytes at MEMORY, the 4 KiB after which are
//! painted before and looked at afterwards. With `streamed` the artifact is nowhere in the board's memory: it is the file
//! `streamed.slm` of the emulator's folder, read by semihosting.

#![no_std]
#![no_main]

mod semihosting;
mod start;

use core::fmt::{self, Write};
use core::slice;

use check::Failure;
use semihosting::{Console, File, command_line, exit};
use slm_runtime::plan::STACK_BYTES;

const GUARD_BYTES: usize = 4096;
const PAGE_BYTES: usize = 4096;
const GUARD: u8 = 0xa7;

fn say(text: fmt::Arguments<'_>) {
    let _ = Console.write_fmt(text);
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say(format_args!("{info}\n"));
    exit(2)
}

/// `bytes` bytes at an address of the board.
fn region<'m>(address: usize, bytes: usize) -> &'m mut [u8] {
    // SAFETY: the command line gives addresses of memory that the board has and that the linker script leaves alone; a
    // wrong one is a fault that ends the run. Regions of one run do not overlap.
    unsafe { slice::from_raw_parts_mut(address as *mut u8, bytes) }
}

fn main() -> ! {
    let mut buffer = [0; 128];
    let mut words = command_line(&mut buffer).split_whitespace().skip_while(|word| !MODES.contains(word));
    let mode = words.next().unwrap_or("");
    #[cfg(feature = "trusted")]
    if mode == "trusted" {
        let memory = usize::from_str_radix(words.next().unwrap_or(""), 16).unwrap_or(0);
        let work = words.next().unwrap_or("");
        end(check::trusted::trusted(&mut Board { used_from: 0 }, work, region(memory, check::trusted::BYTES)));
    }
    let mut numbers = [0; 4];
    for (number, word) in numbers.iter_mut().zip(words) {
        *number = usize::from_str_radix(word, 16).unwrap_or(0);
    }
    end(perform(mode, numbers))
}

fn end(result: Result<(), Failure>) -> ! {
    match result {
        Ok(()) => exit(0),
        Err(failure) => {
            say(format_args!("failed {failure}\n"));
            exit(1)
        }
    }
}

const MODES: [&str; 7] = ["logits", "decode", "further", "streamed", "kernels", "work", "trusted"];

/// Files are those of the emulator's folder.
#[cfg(feature = "trusted")]
struct Board {
    used_from: usize,
}

#[cfg(feature = "trusted")]
impl Write for Board {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        Console.write_str(text)
    }
}

#[cfg(feature = "trusted")]
impl check::trusted::Board for Board {
    fn file(&mut self, name: &core::ffi::CStr, into: &mut [u8]) -> Option<usize> {
        let mut file = File::open(name)?;
        let place = into.get_mut(..file.bytes())?;
        slm_runtime::streaming::Reader::read(&mut file, 0, place).ok()
    }

    fn paint(&mut self) {
        self.used_from = start::paint();
    }

    fn stack(&self) -> usize {
        start::stack_below(self.used_from)
    }
}

fn perform(mode: &str, numbers: [usize; 4]) -> Result<(), Failure> {
    let out = &mut Console;
    match mode {
        "kernels" => check::equality::compare(out, region(numbers[0], numbers[1])),
        "work" => {
            let [memory, table, ..] = numbers;
            check::work::all(out, region(memory, check::work::BYTES), table)
        }
        "logits" | "decode" | "further" => {
            let [artifact, bytes, memory, tokens] = numbers;
            let artifact = &*region(artifact, bytes);
            let required = match mode {
                "further" => check::further::further_bytes(artifact)?,
                _ => check::required_bytes(artifact)?,
            };
            let guard = region(memory + required, GUARD_BYTES);
            guard.fill(GUARD);
            let memory = region(memory, required);
            match mode {
                "logits" => check::logits(out, artifact, memory)?,
                "further" => check::further::further(out, artifact, memory)?,
                _ => check::decode(out, artifact, memory, tokens)?,
            }
            let stack = start::stack_bytes();
            writeln!(out, "stack {stack}")?;
            assert!(guard.iter().all(|&byte| byte == GUARD), "the session wrote behind its memory");
            assert!(stack as u64 <= STACK_BYTES, "the session used more stack than planned, {STACK_BYTES} bytes");
            Ok(())
        }
        "streamed" => {
            let file = || File::open(c"streamed.slm").expect("streamed.slm is in the emulator's folder");
            let planned = check::streamed::needs(&mut file(), region(numbers[0], PAGE_BYTES))?.ram_bytes() as usize;
            let guard = region(numbers[0] + planned, GUARD_BYTES);
            guard.fill(GUARD);
            let memory = region(numbers[0], planned);
            // So that what is never written shows.
            memory.fill(GUARD);
            check::streamed::streamed(out, file(), memory)?;
            let stack = start::stack_bytes();
            let untouched = memory.rchunks(64).take_while(|line| line.iter().all(|&byte| byte == GUARD)).count() * 64;
            writeln!(out, "planned {}", planned as u64 + STACK_BYTES)?;
            writeln!(out, "peak {}", planned - untouched + stack)?;
            writeln!(out, "stack {stack}")?;
            assert!(guard.iter().all(|&byte| byte == GUARD), "the session wrote behind its memory");
            assert!(stack as u64 <= STACK_BYTES, "the session used more stack than planned, {STACK_BYTES} bytes");
            Ok(())
        }
        _ => panic!("usage: logits|decode|further|streamed|kernels|work|trusted, see main.rs"),
    }
}
