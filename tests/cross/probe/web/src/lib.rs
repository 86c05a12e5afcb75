//! The device program for WebAssembly: no imports, no allocator. The page (`wasm.mjs`) puts the artifact and room for
//! the session behind the program's own memory, calls one of the functions and reads the report.

#![no_std]

use core::fmt;
use core::slice;

use check::Failure;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

const REPORT_BYTES: usize = 4096;

struct Report {
    text: [u8; REPORT_BYTES],
    length: usize,
}

static mut REPORT: Report = Report { text: [0; REPORT_BYTES], length: 0 };

impl fmt::Write for Report {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.text.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// Runs `work` and appends why it failed; 0 is success.
fn reported(work: impl FnOnce(&mut Report) -> Result<(), Failure>) -> u32 {
    // SAFETY: WebAssembly without threads; the functions here are the only users and do not call one another.
    let report = unsafe { &mut *(&raw mut REPORT) };
    report.length = 0;
    match work(report) {
        Ok(()) => 0,
        Err(failure) => {
            let _ = fmt::write(report, format_args!("failed {failure}\n"));
            1
        }
    }
}

/// The page's bytes.
fn region<'m>(address: usize, bytes: usize) -> &'m mut [u8] {
    // SAFETY: the page passes regions behind the program's own memory that it has made room for and that do not overlap.
    unsafe { slice::from_raw_parts_mut(address as *mut u8, bytes) }
}

/// Where the report of the last call stands.
#[unsafe(no_mangle)]
pub extern "C" fn report_address() -> usize {
    (&raw const REPORT) as usize
}

/// Bytes of the report of the last call.
#[unsafe(no_mangle)]
pub extern "C" fn report_bytes() -> usize {
    // SAFETY: as in `reported`.
    unsafe { (*(&raw const REPORT)).length }
}

/// Bytes a session needs; 0 for an artifact that is refused.
#[unsafe(no_mangle)]
pub extern "C" fn required_bytes(artifact: usize, bytes: usize) -> usize {
    check::required_bytes(region(artifact, bytes)).unwrap_or(0)
}

/// See [`check::logits`].
#[unsafe(no_mangle)]
pub extern "C" fn logits(artifact: usize, bytes: usize, memory: usize, memory_bytes: usize) -> u32 {
    reported(|out| check::logits(out, region(artifact, bytes), region(memory, memory_bytes)))
}

/// See [`check::decode`].
#[unsafe(no_mangle)]
pub extern "C" fn decode(artifact: usize, bytes: usize, memory: usize, memory_bytes: usize, tokens: usize) -> u32 {
    reported(|out| check::decode(out, region(artifact, bytes), region(memory, memory_bytes), tokens))
}

/// Bytes that [`further`] needs; 0 for an artifact that is refused.
#[unsafe(no_mangle)]
pub extern "C" fn further_bytes(artifact: usize, bytes: usize) -> usize {
    check::further::further_bytes(region(artifact, bytes)).unwrap_or(0)
}

/// See [`check::further::further`].
#[unsafe(no_mangle)]
pub extern "C" fn further(artifact: usize, bytes: usize, memory: usize, memory_bytes: usize) -> u32 {
    reported(|out| check::further::further(out, region(artifact, bytes), region(memory, memory_bytes)))
}

/// See [`check::equality::compare`].
#[unsafe(no_mangle)]
pub extern "C" fn kernels_equal(memory: usize, memory_bytes: usize) -> u32 {
    reported(|out| check::equality::compare(out, region(memory, memory_bytes)))
}

/// Bytes that [`work`] needs.
#[unsafe(no_mangle)]
pub extern "C" fn work_bytes() -> usize {
    check::work::BYTES
}

/// See [`check::work::work`].
#[unsafe(no_mangle)]
pub extern "C" fn work(memory: usize, memory_bytes: usize, table: usize, unit: usize, calls: usize) -> u32 {
    reported(|out| check::work::work(out, region(memory, memory_bytes), table, unit, calls))
}
