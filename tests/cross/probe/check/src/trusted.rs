//! What trust costs a device: a signed header page, digests of leaves, opened weights, records of the audit log, an update from
//! a package to its confirmation. Each piece of work stands between two marks for a counter of instructions ([`crate::work`])
//! and must come to what the build machine has, or the run fails. Lines `work NAME BYTES`, BYTES being what it is counted over,
//! and `stack BYTES`, what the work took of it.

use core::ffi::CStr;
use core::fmt::Write;
use core::hint::black_box;

use slm_runtime::audit::{AuditLog, LogKey, Outcome};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::{HEADER_BYTES, Header};
use slm_runtime::kernels::best;
use slm_runtime::layout::ALIGNMENT;
use slm_runtime::sample::Sampling;
use slm_runtime::seal::{DeviceKey, SoftwareCipher, Unsealing};
use slm_runtime::session::Session;
use slm_runtime::sha256::{Engine, Software};
use slm_runtime::trust::{Check, Key, Trust, open_whole};
use slm_runtime::update::{
    Device, DeviceFailed, Flash, Protected, RECORD_BYTES, Slot, apply, boot, confirm, install, required_bytes,
};

use crate::Failure;
use crate::work::mark;

/// Bytes that [`trusted`] needs: two slots, a package, an artifact and a session.
pub const BYTES: usize = 3 << 20;
/// Length of a slot, which the artifact fits in.
const SLOT_BYTES: usize = 640 << 10;
const ERASE_BLOCK_BYTES: usize = 4096;
/// What the digest is of, and a question and its answer in tokens.
const HASHED_BYTES: usize = 64 << 10;
const TOKENS: [u32; 64] = [7; 64];

/// What the program around brings.
pub trait Board: Write {
    /// Reads a file of the build machine into memory, and says how long it is.
    fn file(&mut self, name: &CStr, into: &mut [u8]) -> Option<usize>;

    /// Paints the free stack.
    fn paint(&mut self);

    /// Bytes of stack below the caller of [`Board::paint`] that were used since.
    fn stack(&self) -> usize;
}

/// Memory that is given out from its start.
struct Rest<'m>(&'m mut [u8]);

impl<'m> Rest<'m> {
    fn take(&mut self, bytes: usize) -> Result<&'m mut [u8], Failure> {
        let rest = core::mem::take(&mut self.0);
        let skipped = rest.as_ptr().align_offset(ALIGNMENT);
        let (given, rest) = rest
            .get_mut(skipped..)
            .and_then(|rest| rest.split_at_mut_checked(bytes))
            .ok_or(Failure::Trust("memory"))?;
        self.0 = rest;
        Ok(given)
    }

    fn file(&mut self, board: &mut dyn Board, name: &CStr) -> Result<&'m mut [u8], Failure> {
        // On the alignment that the next bytes are given out from.
        self.take(0)?;
        let bytes = board.file(name, self.0).ok_or(Failure::Trust("a file"))?;
        self.take(bytes)
    }
}

/// Work between two marks.
fn counted<R>(board: &mut dyn Board, name: &str, bytes: usize, work: impl FnOnce() -> R) -> Result<R, Failure> {
    writeln!(board, "work {name} {bytes}")?;
    board.paint();
    mark();
    let result = black_box(work());
    mark();
    writeln!(board, "stack {}", board.stack())?;
    Ok(result)
}

fn holds(holds: bool, what: &'static str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::Trust(what)) }
}

/// Does the work of this name.
pub fn trusted(board: &mut dyn Board, name: &str, memory: &mut [u8]) -> Result<(), Failure> {
    let mut rest = Rest(memory);
    let (mut ed25519, mut p256, mut device) = ([0; 32], [0; 65], [0; 32]);
    for (file, bytes) in [(c"ed25519", &mut ed25519[..]), (c"p256", &mut p256[..]), (c"device", &mut device[..])] {
        holds(board.file(file, bytes) == Some(bytes.len()), "a key")?;
    }
    let keys = [Key::ed25519(&ed25519), Key::p256(&p256)];
    let trust = Trust { keys: &keys, threshold: 1, model_id: None, counter: &0u64, verifier: &Software };
    match name {
        "ed25519" | "p256" => {
            let file = rest.file(board, if name == "p256" { c"p256.slm" } else { c"new.slm" })?;
            let header = counted(board, name, HEADER_BYTES, || trust.check_page(&file[..HEADER_BYTES]))?;
            holds(header.is_ok(), "the signature")?;
            file[HEADER_BYTES / 2] ^= 1;
            holds(trust.check_page(&file[..HEADER_BYTES]).is_err(), "a changed page is refused")
        }
        "sha256" => {
            let bytes = rest.take(HASHED_BYTES)?;
            bytes.fill(1);
            let digest = counted(board, name, HASHED_BYTES, || Software.digest(&[bytes]))?;
            holds(digest[..4] == [0x91, 0x6b, 0x14, 0x48], "the digest")
        }
        "whole" => {
            let file = rest.file(board, c"new.slm")?;
            let opened = counted(board, name, file.len(), || open_whole(file, &trust).is_ok())?;
            holds(opened, "the artifact")
        }
        "chacha" | "aes" => {
            let file = rest.file(board, if name == "aes" { c"aes.slm" } else { c"chacha.slm" })?;
            let open = &*rest.file(board, c"new.slm")?;
            let seen = rest.take(64)?;
            let ram = rest.take(open.len())?;
            let trust_error = |_| Failure::Trust("the sealed artifact");
            let signed = ArtifactView::open_signed(file, &trust, Check::AllButWeights(seen)).map_err(trust_error)?;
            let unsealing = Unsealing { keys: &DeviceKey::new(&device), cipher: &SoftwareCipher, stanza: None };
            let open = ArtifactView::open(open)?;
            let bytes = |index| open.tensor_bytes(&open.tensor_record(index)).map_or(0, <[u8]>::len);
            let weights = (0..open.tensor_count()).map(bytes).sum();
            let view = counted(board, name, weights, || signed.unseal(&unsealing, ram))?;
            holds(view.is_ok_and(|view| view.verify_digests().is_ok()), "the weights are those of the open artifact")
        }
        "record" => {
            let mut log = AuditLog::new(Some(LogKey::new(&device)));
            let mut records = 0;
            let mut append = |_: &[u8; 160]| {
                records += 1;
                true
            };
            let written = counted(board, name, 4 * 2 * TOKENS.len(), || {
                let mut exchange = log.exchange(&Sampling::GREEDY, 0);
                exchange.input(&TOKENS);
                exchange.output(&TOKENS);
                log.inference(&[1; 32], exchange, Outcome::default(), 0, &mut append)
            })?;
            let sealed = counted(board, "seal", 0, || log.seal(0, &mut append))?;
            holds(written.is_ok() && sealed.is_ok() && records == 2, "the records")
        }
        "update" => update(board, rest, &trust),
        _ => Err(Failure::Trust("ed25519, p256, sha256, whole, chacha, aes, record or update")),
    }
}

/// Two slots in memory, whose writes go to erased bytes alone.
struct Memory<'m>([&'m mut [u8]; 2]);

impl Flash for Memory<'_> {
    fn slot_bytes(&self) -> u64 {
        SLOT_BYTES as u64
    }

    fn erase_block_bytes(&self) -> u32 {
        ERASE_BLOCK_BYTES as u32
    }

    fn read(&mut self, slot: Slot, offset: u64, into: &mut [u8]) -> Result<(), DeviceFailed> {
        let bytes = self.0[slot as usize].get(offset as usize..).and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(bytes.ok_or(DeviceFailed)?);
        Ok(())
    }

    fn erase(&mut self, slot: Slot, offset: u64) -> Result<(), DeviceFailed> {
        let block = self.0[slot as usize].get_mut(offset as usize..).and_then(|rest| rest.get_mut(..ERASE_BLOCK_BYTES));
        block.ok_or(DeviceFailed)?.fill(0xff);
        Ok(())
    }

    fn write(&mut self, slot: Slot, offset: u64, bytes: &[u8]) -> Result<(), DeviceFailed> {
        let place = self.0[slot as usize].get_mut(offset as usize..).and_then(|rest| rest.get_mut(..bytes.len()));
        let place = place.filter(|place| place.iter().all(|&byte| byte == 0xff)).ok_or(DeviceFailed)?;
        place.copy_from_slice(bytes);
        Ok(())
    }
}

/// Records and counter in memory.
struct Records {
    records: [[u8; RECORD_BYTES]; 2],
    counter: u64,
}

impl Protected for Records {
    fn read_record(&mut self, copy: usize, into: &mut [u8; RECORD_BYTES]) -> Result<(), DeviceFailed> {
        *into = self.records[copy];
        Ok(())
    }

    fn write_record(&mut self, copy: usize, record: &[u8; RECORD_BYTES]) -> Result<(), DeviceFailed> {
        self.records[copy] = *record;
        Ok(())
    }

    fn counter(&mut self) -> Result<u64, DeviceFailed> {
        Ok(self.counter)
    }

    fn advance_counter(&mut self, to: u64) -> Result<(), DeviceFailed> {
        self.counter = to;
        Ok(())
    }
}

/// A package applied, booted, opened by its signature, confirmed by its golden prompts, and once more when nothing is left to do.
fn update(board: &mut dyn Board, mut rest: Rest<'_>, trust: &Trust<'_>) -> Result<(), Failure> {
    let (a, b) = (rest.take(SLOT_BYTES)?, rest.take(SLOT_BYTES)?);
    (a.fill(0xff), b.fill(0xff));
    holds(board.file(c"old.slm", a).is_some(), "the artifact that runs")?;
    let new = rest.file(board, c"new.slm")?;
    let package = rest.file(board, c"package")?;
    let digest = Header::from_bytes(a).device_digest;
    let mut protected = Records { records: [[0; RECORD_BYTES]; 2], counter: 0 };
    let failed = |_| Failure::Trust("the update");
    install(&mut protected, Slot::A, &digest).map_err(failed)?;
    let mut flash = Memory([a, b]);

    let mut package = &*package;
    let workspace = rest.take(required_bytes(&mut package).map_err(failed)?)?;
    writeln!(board, "memory {}", workspace.len())?;
    let new_view = ArtifactView::open(new)?;
    let bytes = new_view.header().device_bytes as usize;
    let mut trusts = |page: &[u8; HEADER_BYTES]| trust.check_page(page).is_ok();
    let applied = counted(board, "apply", bytes, || {
        apply(
            Device { package: &mut package, flash: &mut flash, protected: &mut protected, trust: &mut trusts },
            workspace,
        )
    })?;
    holds(applied.is_ok_and(|applied| applied.slot == Slot::B && applied.bytes == bytes as u64), "the new slot")?;
    holds(flash.0[1][..bytes] == new[..bytes], "the slot has the bytes of the new artifact")?;

    let page: &mut [u8; HEADER_BYTES] = rest.take(HEADER_BYTES)?.try_into().map_err(|_| Failure::Trust("memory"))?;
    let chosen = counted(board, "boot", 0, || boot(&mut flash, &mut protected, &mut trusts, page))?;
    holds(chosen.is_ok_and(|chosen| chosen.trial && chosen.slot == Slot::B), "the trial boots")?;
    let view = open_whole(&flash.0[1][..bytes], trust).map_err(|_| Failure::Trust("the new artifact"))?;
    let memory = rest.take(Session::required_bytes(&view) as usize)?;
    let confirmed = confirm(&mut protected, &view, best(view.layout()), memory, &mut || true);
    holds(confirmed.is_ok_and(|slots| slots.active == Slot::B) && protected.counter == 2, "the confirmation")
}
