//! The device program for machines with an operating system:
//!
//! ```text
//! hosted logits  FILE.slm
//! hosted decode  FILE.slm TOKENS
//! hosted further FILE.slm
//! hosted kernels
//! hosted units
//! hosted work    TABLE
//! ```

use std::fmt::{self, Write};
use std::process::ExitCode;

use check::Failure;

const ALIGNMENT: usize = 64;

/// Standard output as [`fmt::Write`].
struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        print!("{text}");
        Ok(())
    }
}

/// Exactly `bytes` bytes of zeroed memory that starts on 64.
fn with_memory<T>(bytes: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut memory = vec![0; bytes + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    work(&mut memory[start..start + bytes])
}

fn perform(words: &[&str]) -> Result<(), Failure> {
    let out = &mut Console;
    let read = |path: &str| std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    match *words {
        ["logits", path] => {
            let artifact = read(path);
            let required = check::required_bytes(&artifact)?;
            with_memory(required, |memory| check::logits(out, &artifact, memory))
        }
        ["decode", path, tokens] => {
            let (artifact, tokens) = (read(path), tokens.parse().expect("a number of tokens"));
            let required = check::required_bytes(&artifact)?;
            with_memory(required, |memory| check::decode(out, &artifact, memory, tokens))
        }
        ["further", path] => {
            let artifact = read(path);
            let required = check::further::further_bytes(&artifact)?;
            with_memory(required, |memory| check::further::further(out, &artifact, memory))
        }
        ["kernels"] => with_memory(3 << 20, |memory| check::equality::compare(out, memory)),
        ["units"] => check::work::list(out),
        ["work", table] => {
            let table = table.parse().expect("a number of a table");
            with_memory(check::work::BYTES, |memory| check::work::all(out, memory, table))
        }
        _ => {
            panic!("usage: hosted logits FILE.slm | decode FILE.slm TOKENS | further FILE.slm | kernels | units | work")
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match perform(&words.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            println!("failed {failure}");
            ExitCode::FAILURE
        }
    }
}
