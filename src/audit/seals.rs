//! The seals of a log: what they vouch for, how much comes after the last of them, and which of a secret key's are not there. Every
//! start of a device leaves out one number of its key, and notes in the log that the artifact was opened. More are missing where
//! whoever took the device over has cut off what was sealed, and sealed on with the key that was there.

use super::chain::{Broken, Chain};
use super::keys::SealKeys;
use super::report::Finding;
use serde::Serialize;
use slm_runtime::audit::{Kind, SealKind};

/// What seals vouch for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Seals {
    /// Seals that there are.
    pub seals: usize,
    /// Seals that a given key holds: all of them, or none where no key was given.
    pub checked: usize,
    /// Records up to the last seal that was checked, itself included.
    pub sealed_records: usize,
    /// Records after it, which whoever holds the file can write anew.
    pub unsealed_records: usize,
    /// Numbers of a secret key that no seal has: as many as there were starts in between, or it is a finding.
    pub left_out_seals: u64,
}

/// Checks the seals of a log, where keys are given; seals that are missing are findings. A log that goes on from an earlier file,
/// as `goes_on` says, begins with any number of a key.
///
/// # Errors
/// The first seal that does not hold.
pub fn check(chain: &Chain<'_>, keys: &mut SealKeys, goes_on: bool) -> Result<(Seals, Vec<Finding>), Broken> {
    let (mut found, mut findings) = (Seals::default(), Vec::new());
    // Starts since the last seal by a secret key.
    let (mut starts, mut first) = (0, true);
    for (index, record) in chain.iter().enumerate() {
        starts += u64::from(record.kind == Kind::Opened as u8);
        if record.kind != Kind::Seal as u8 {
            continue;
        }
        found.seals += 1;
        if keys.is_empty() {
            continue;
        }
        let skipped = keys.check(&record).map_err(|fault| Broken { record: record.sequence, fault })?;
        found.checked += 1;
        found.sealed_records = index + 1;
        if record.status != SealKind::Hmac as u16 {
            continue;
        }
        let skipped = if first && goes_on { 0 } else { u64::from(skipped) };
        found.left_out_seals += skipped;
        if skipped > starts {
            let fault = format!(
                "{skipped} seals of this key are missing before it, and {starts} starts were noted: what they sealed was cut off, \
                 or starts were not noted"
            );
            findings.push(Finding { record: record.sequence, about: "seal", fault });
        }
        (starts, first) = (0, false);
    }
    found.unsealed_records = chain.len() - found.sealed_records;
    Ok((found, findings))
}

#[cfg(test)]
mod tests {
    use super::super::chain::Start;
    use super::*;
    use slm_runtime::audit::{AuditLog, AuditRecord, Event, LogKey};

    /// Starts with a key, and so many seals, each after a note.
    fn sealed(log: &mut AuditLog, bytes: &mut Vec<u8>, seals: usize, noted: bool) {
        let mut append = |record: &[u8; AuditRecord::BYTES]| {
            bytes.extend(record);
            true
        };
        if noted {
            log.event(&[5; 32], Event::Opened(0), 0, &mut append).expect("appended");
        }
        for _ in 0..seals {
            log.event(&[0; 32], Event::Note(1, [9; 32]), 0, &mut append).expect("appended");
            log.seal(0, &mut append).expect("sealed");
        }
    }

    /// Numbers of a key without seals, and findings.
    fn missing(bytes: &[u8]) -> (u64, Vec<Finding>) {
        let chain = Chain::check(bytes, Start::default()).expect("a sound chain");
        let (seals, findings) =
            check(&chain, &mut SealKeys::of(LogKey::new(&[7; 32])), false).expect("seals that hold");
        assert_eq!(seals.checked, seals.seals);
        (seals.left_out_seals, findings)
    }

    fn last(bytes: &[u8]) -> &[u8; AuditRecord::BYTES] {
        bytes.last_chunk().expect("a record")
    }

    #[test]
    fn a_start_leaves_out_one_number_and_a_cut_is_found() {
        let (mut log, mut bytes) = (AuditLog::new(Some(LogKey::new(&[7; 32]))), Vec::new());
        sealed(&mut log, &mut bytes, 2, true);
        assert_eq!(missing(&bytes), (0, Vec::new()));
        // The power goes, and the device goes on with what it had kept of its key.
        let restored = LogKey::restore(&log.key().expect("a key").save());
        let mut log = AuditLog::resume(last(&bytes), Some(restored)).expect("it goes on");
        sealed(&mut log, &mut bytes, 2, true);
        assert_eq!(missing(&bytes), (1, Vec::new()));
        // Somebody takes the device over, cuts all but the first seal, and seals on with the key that is there.
        let taken = LogKey::restore(&log.key().expect("a key").save());
        let mut cut = bytes[..3 * AuditRecord::BYTES].to_vec();
        let mut log = AuditLog::resume(last(&cut), Some(taken)).expect("it goes on");
        sealed(&mut log, &mut cut, 1, true);
        let (left_out, findings) = missing(&cut);
        assert_eq!((left_out, findings.len()), (5, 1));
        assert!(findings[0].about == "seal" && findings[0].fault.contains("5 seals of this key"), "{findings:?}");
    }
}
