//! What every emulated device does with an artifact, in words that `tests/cross/run` compares between devices: lines
//! `name value`. The program around it brings the artifact, memory of exactly the planned size, and a place to write to. What it
//! does is in functions that are not inlined, so that none has the stack of another.

#![no_std]

pub mod equality;
pub mod further;
#[cfg(feature = "streaming")]
pub mod streamed;
#[cfg(feature = "trusted")]
pub mod trusted;
pub mod work;

use core::fmt::{self, Write};

use slm_runtime::format::FormatError;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::kernels::best;
use slm_runtime::sample::{Sampling, choose, random_u64};
use slm_runtime::self_test::golden_digest;
use slm_runtime::session::{Session, SessionError};
use slm_runtime::sha256::{Digest, Sha256};

/// Why a device's answer does not count.
#[derive(Debug)]
pub enum Failure {
    /// The artifact is refused.
    Format(FormatError),
    /// The session stopped.
    Session(SessionError),
    /// The golden prompts give other logits than the build machine's.
    Golden,
    /// Cutting the same tokens in another way gives other logits.
    Chunks,
    /// Drafts change the tokens.
    Speculation,
    /// A sequence taken back or taken up goes on in another way.
    Snapshot,
    /// The grammar's section is broken, or its vocabulary larger than this program's.
    Grammar,
    /// The artifact cannot be streamed.
    #[cfg(feature = "streaming")]
    Open(slm_runtime::streaming::OpenError),
    /// Kernels that differ from the scalar ones.
    Kernels(usize),
    /// What is signed, sealed, logged or updated comes to something else.
    #[cfg(feature = "trusted")]
    Trust(&'static str),
    /// The report cannot be written.
    Report,
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Self {
        Failure::Format(error)
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        Failure::Session(error)
    }
}

impl From<fmt::Error> for Failure {
    fn from(_: fmt::Error) -> Self {
        Failure::Report
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Format(error) => write!(f, "{error}"),
            Failure::Session(error) => write!(f, "{error}"),
            Failure::Golden => f.write_str("the golden prompts give other logits than on the build machine"),
            Failure::Chunks => f.write_str("tokens read one by one give other logits than read together"),
            Failure::Speculation => f.write_str("passes of several tokens give other tokens than one after another"),
            Failure::Snapshot => f.write_str("a sequence taken back, or up from a snapshot, goes on in another way"),
            Failure::Grammar => f.write_str("the grammar allows no token, or has more tokens than this program's sets"),
            #[cfg(feature = "streaming")]
            Failure::Open(error) => write!(f, "{error}"),
            Failure::Kernels(count) => write!(f, "{count} products differ from the scalar kernels"),
            #[cfg(feature = "trusted")]
            Failure::Trust(what) => write!(f, "it does not hold: {what}"),
            Failure::Report => f.write_str("the report cannot be written"),
        }
    }
}

/// Bytes of memory a session of the artifact needs.
#[inline(never)]
pub fn required_bytes(artifact: &[u8]) -> Result<usize, Failure> {
    Ok(Session::required_bytes(&ArtifactView::open(artifact)?) as usize)
}

/// Tokens of the sequence whose logits are hashed: more than one group of positions, fewer than any context here.
const SEQUENCE: usize = 40;

/// Integrity of the artifact, its golden prompts, and a sequence read in two ways.
#[inline(never)]
pub fn logits(out: &mut dyn Write, artifact: &[u8], memory: &mut [u8]) -> Result<(), Failure> {
    let view = ArtifactView::open(artifact)?;
    view.verify_digests()?;
    let kernels = best(view.layout());
    writeln!(out, "target {} {}", view.target(), view.layout().name())?;
    writeln!(out, "kernel {}", kernels.name)?;
    writeln!(out, "memory {}", memory.len())?;
    let golden = golden_digest(&view, kernels, memory)?;
    line(out, "golden", &golden)?;
    if golden != view.golden_digest() {
        return Err(Failure::Golden);
    }
    let tokens: [u32; SEQUENCE] =
        core::array::from_fn(|index| (random_u64(7, index as u64) % u64::from(view.spec().vocabulary)) as u32);
    let mut session = Session::new(&view, kernels, memory)?;
    let (mut together, mut single) = (Sha256::new(), Sha256::new());
    session.run(&tokens, &mut |_, row| update(&mut together, row))?;
    session.reset();
    for token in tokens {
        update(&mut single, session.step(&[token])?);
    }
    let digest = together.finish();
    line(out, "logits", &digest)?;
    if digest == single.finish() { Ok(()) } else { Err(Failure::Chunks) }
}

/// Greedy generation of `count` tokens after two that are read together: work for a counter of instructions.
#[inline(never)]
pub fn decode(out: &mut dyn Write, artifact: &[u8], memory: &mut [u8], count: usize) -> Result<(), Failure> {
    let view = ArtifactView::open(artifact)?;
    let kernels = best(view.layout());
    let mut session = Session::new(&view, kernels, memory)?;
    let mut token = choose(session.step(&[1, 2])?, &Sampling::GREEDY, 0, 0);
    for _ in 1..count {
        token = choose(session.step(&[token])?, &Sampling::GREEDY, 0, 0);
    }
    writeln!(out, "kernel {}", kernels.name)?;
    writeln!(out, "last-token {token}")?;
    Ok(())
}

fn update(hash: &mut Sha256, row: &[f32]) {
    for value in row {
        hash.update(&value.to_le_bytes());
    }
}

fn line(out: &mut dyn Write, name: &str, digest: &Digest) -> fmt::Result {
    write!(out, "{name} ")?;
    digest.iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
    writeln!(out)
}
