//! An artifact whose weights the device cannot address: everything comes through a reader, into memory of exactly the planned
//! size.

use core::fmt::Write;

use slm_runtime::kernels::best;
use slm_runtime::sample::random_u64;
use slm_runtime::self_test::golden_digest_by;
use slm_runtime::session::Session;
use slm_runtime::sha256::{Sha256, Software};
use slm_runtime::streaming::{Check, OpenError, Reader, Sizes, Streamed, TwoBuffers, sizes};

use crate::{Failure, SEQUENCE, line, update};

/// Bytes of a header page.
const PAGE_BYTES: usize = 4096;

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Failure::Open(error)
    }
}

/// What an artifact states of its memory; the page is read into the first bytes of `memory`.
#[inline(never)]
pub fn needs(reader: &mut dyn Reader, memory: &mut [u8]) -> Result<Sizes, Failure> {
    Ok(sizes(reader, &mut memory[..PAGE_BYTES])?)
}

/// Golden prompts, and a sequence read in two ways, as [`crate::logits`] does.
#[inline(never)]
pub fn streamed(out: &mut dyn Write, mut reader: impl Reader, memory: &mut [u8]) -> Result<(), Failure> {
    let sizes = needs(&mut reader, memory)?;
    let (resident, rest) = memory.split_at_mut(sizes.memory_bytes() as usize);
    let (first, rest) = rest.split_at_mut(sizes.buffer_bytes as usize);
    let (second, own) = rest.split_at_mut(sizes.buffer_bytes as usize);
    let mut storage = TwoBuffers::new(reader, [first, second]);
    let artifact = Streamed::open(&mut storage, resident, &Software, Check::Structure)?;
    artifact.verify(&mut storage)?;
    let view = artifact.artifact();
    let kernels = best(view.layout());
    writeln!(out, "target {} {}", view.target(), view.layout().name())?;
    writeln!(out, "kernel {}", kernels.name)?;
    let mut session = Session::streamed(&artifact, kernels, &mut storage, own)?;
    let golden = golden_digest_by(&mut session)?;
    line(out, "golden", &golden)?;
    if golden != view.golden_digest() {
        return Err(Failure::Golden);
    }
    let tokens: [u32; SEQUENCE] =
        core::array::from_fn(|index| (random_u64(7, index as u64) % u64::from(view.spec().vocabulary)) as u32);
    let (mut together, mut single) = (Sha256::new(), Sha256::new());
    session.reset();
    session.run(&tokens, &mut |_, row| update(&mut together, row))?;
    session.reset();
    let before = session.traffic();
    for token in tokens {
        update(&mut single, session.step(&[token])?);
    }
    let read = session.traffic().bytes - before.bytes;
    let digest = together.finish();
    line(out, "logits", &digest)?;
    writeln!(out, "read-per-token {}", read / SEQUENCE as u64)?;
    writeln!(out, "file {}", view.header().device_bytes)?;
    writeln!(out, "image {}", sizes.image_bytes)?;
    writeln!(out, "resident {}", sizes.resident_bytes)?;
    writeln!(out, "buffer {}", sizes.buffer_bytes)?;
    writeln!(out, "session {}", sizes.session_bytes)?;
    if digest == single.finish() { Ok(()) } else { Err(Failure::Chunks) }
}
