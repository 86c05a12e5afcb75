//! Logs that were tampered with: which record is named, for every byte, every record and every length.

use super::*;
use slm_runtime::audit::{AuditLog, Event, LogKey, Outcome};
use slm_runtime::sample::Sampling;

const RECORDS: usize = 9;

/// A log with inferences, events and two seals.
fn log() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut append = |record: &[u8; BYTES]| {
        bytes.extend(record);
        true
    };
    let mut log = AuditLog::new(Some(LogKey::new(&[5; 32])));
    log.event(&[1; 32], Event::Opened(0), 5, &mut append).expect("written");
    for round in 0..RECORDS as u32 - 3 {
        let mut exchange = log.exchange(&Sampling::GREEDY, 0);
        exchange.input(&[round, 2]);
        exchange.output(&[round]);
        log.inference(&[1; 32], exchange, Outcome::default(), 6, &mut append).expect("written");
        if round == 2 {
            log.seal(7, &mut append).expect("written");
        }
    }
    log.seal(8, &mut append).expect("written");
    assert_eq!(bytes.len(), RECORDS * BYTES);
    bytes
}

fn broken(bytes: &[u8]) -> Broken {
    Chain::check(bytes, Start::default()).expect_err("it is broken")
}

fn record(index: usize) -> std::ops::Range<usize> {
    index * BYTES..(index + 1) * BYTES
}

#[test]
fn every_changed_byte_is_named_with_its_record() {
    let sound = log();
    assert_eq!(Chain::check(&sound, Start::default()).expect("sound").len(), RECORDS);
    for at in 0..sound.len() {
        let index = at / BYTES;
        for flip in [1, 0x80, 0xff] {
            let mut bytes = sound.clone();
            bytes[at] ^= flip;
            match Chain::check(&bytes, Start::default()) {
                Err(found) if index + 1 < RECORDS => assert_eq!(found.record, index as u64, "byte {at}: {found}"),
                // `previous` of the last record, which no other record confirms.
                Err(found) => assert!(found.record as usize + 2 > index, "byte {at}: {found}"),
                // In the last record, only bytes that neither the chain nor the kind fixes: seals and heads are for those.
                Ok(chain) => {
                    assert_eq!(index + 1, RECORDS, "byte {at} of record {index} is not seen");
                    assert_ne!(
                        chain.head_at(RECORDS - 1),
                        chained(sound[record(RECORDS - 1)].first_chunk().expect("a record"))
                    );
                }
            }
        }
    }
}

#[test]
fn dropped_moved_doubled_and_foreign_records_are_named() {
    let sound = log();
    for index in 0..RECORDS - 1 {
        let mut bytes = sound.clone();
        bytes.drain(record(index));
        assert_eq!(broken(&bytes), Broken { record: index as u64, fault: Fault::Missing { to: index as u64 } });
        let mut bytes = sound.clone();
        let last = bytes[record(index)].to_vec();
        bytes.splice(record(index).start..record(index).start, last);
        let second = Broken { record: index as u64 + 1, fault: Fault::Place { found: index as u64 } };
        assert_eq!(broken(&bytes), second);
        for other in index + 1..RECORDS {
            let mut bytes = sound.clone();
            let (first, second) = (sound[record(index)].to_vec(), sound[record(other)].to_vec());
            bytes[record(index)].copy_from_slice(&second);
            bytes[record(other)].copy_from_slice(&first);
            let found = broken(&bytes);
            assert_eq!(found.record, index as u64, "{index} and {other}: {found}");
        }
    }
    let mut bytes = sound.clone();
    bytes.drain(record(2).start..record(5).end);
    assert_eq!(broken(&bytes), Broken { record: 2, fault: Fault::Missing { to: 5 } });
    // A record that is sound by itself, put in the place of another.
    let mut bytes = sound.clone();
    let forged = AuditRecord { tokens_out: 9, ..AuditRecord::from_bytes(&sound[record(3)]) };
    bytes[record(3)].copy_from_slice(&forged.to_bytes());
    assert_eq!(broken(&bytes), Broken { record: 3, fault: Fault::Changed });
    let renumbered = AuditRecord { sequence: 7, ..AuditRecord::from_bytes(&sound[record(3)]) };
    bytes[record(3)].copy_from_slice(&renumbered.to_bytes());
    assert_eq!(broken(&bytes), Broken { record: 3, fault: Fault::Number { found: 7 } });
}

#[test]
fn every_cut_is_named_or_is_a_whole_log() {
    let sound = log();
    for length in 0..sound.len() {
        let found = Chain::check(&sound[..length], Start::default());
        match length % BYTES {
            0 => assert_eq!(found.expect("whole records").len(), length / BYTES),
            bytes => {
                let expected = Broken { record: (length / BYTES) as u64, fault: Fault::Cut { bytes } };
                assert_eq!(found.expect_err("cut"), expected);
            }
        }
    }
}

#[test]
fn a_log_goes_on_from_the_head_of_another_file() {
    let sound = log();
    let (first, second) = sound.split_at(record(4).start);
    let head = Chain::check(first, Start::default()).expect("sound").head_at(3);
    let chain = Chain::check(second, Start { previous: Some(head) }).expect("goes on");
    assert_eq!((chain.first(), chain.len()), (4, RECORDS - 4));
    assert_eq!(broken(second), Broken { record: 0, fault: Fault::Missing { to: 3 } });
    let other = Chain::check(second, Start { previous: Some([1; 32]) }).expect_err("another head");
    assert_eq!(other, Broken { record: 4, fault: Fault::NotFirst });
    let mut bytes = second.to_vec();
    bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(Chain::check(&bytes, Start { previous: Some(head) }).is_err());
}
