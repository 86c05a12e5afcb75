//! The writer against the layout: fields at their offsets, the chain, seals, keys that move on and restarts.

use super::*;
use crate::audit::key::SAVED_KEY_BYTES;
use crate::hmac::{Hmac, hkdf};
use crate::sha256::Sha256;
use std::vec::Vec;

const ROOT: [u8; 32] = [7; 32];
const ARTIFACT: Digest = [0xa5; 32];

struct Fixed;

impl Signer for Fixed {
    fn kind(&self) -> SealKind {
        SealKind::Ed25519
    }

    fn key_id(&self) -> Digest {
        [3; 32]
    }

    fn sign(&mut self, message: &[u8]) -> Option<[u8; 64]> {
        assert!(message.starts_with(b"slm log seal v1") && message.len() == 63);
        Some([9; 64])
    }
}

fn one_exchange(log: &AuditLog) -> Exchange {
    let mut exchange = log.exchange(&Sampling::GREEDY, 5);
    exchange.input(&[1, 2]);
    exchange.input(&[70_000]);
    exchange.output(&(0..40).collect::<Vec<u32>>());
    exchange
}

/// A log of every kind of record.
fn written(key: Option<LogKey>) -> (AuditLog, Vec<[u8; 160]>) {
    let (mut log, mut records) = (AuditLog::new(key), Vec::new());
    let mut append = |record: &[u8; 160]| {
        records.push(*record);
        true
    };
    log.event(&ARTIFACT, Event::Opened(0), 10, &mut append).unwrap();
    let exchange = one_exchange(&log);
    let outcome = Outcome { end: End::Model, ..Outcome::default() };
    log.inference(&ARTIFACT, exchange, outcome, 11, &mut append).unwrap();
    log.event(&ARTIFACT, Event::Update(2, [1; 32]), 12, &mut append).unwrap();
    log.event(&ZEROS, Event::Note(1, [2; 32]), 0, &mut append).unwrap();
    log.seal_by(&mut Fixed, 13, &mut append).unwrap();
    if log.key().is_some() {
        log.seal(14, &mut append).unwrap();
        log.seal(15, &mut append).unwrap();
    }
    (log, records)
}

#[test]
fn records_are_laid_out_and_chained_as_stated() {
    let (log, records) = written(None);
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record[..5], *b"SLML\x01");
        assert_eq!(record[8..16], (index as u64).to_le_bytes());
        let previous =
            index.checked_sub(1).map_or([0; 32], |before| Sha256::digest(&[&[0][..], &records[before]].concat()));
        assert_eq!(record[128..], previous);
        assert_eq!(AuditRecord::from_bytes(record).fault(), None);
    }
    assert_eq!(records.iter().map(|record| record[5]).collect::<Vec<u8>>(), [2, 1, 3, 5, 4]);
    let inference = &records[1];
    assert_eq!(inference[6..8], 0x0100u16.to_le_bytes());
    assert_eq!(inference[16..24], 11u64.to_le_bytes());
    assert_eq!((inference[24], inference[28]), (3, 40));
    assert_eq!(inference[32..64], ARTIFACT);
    let greedy = [0f32.to_le_bytes(), 0u32.to_le_bytes(), 65_536u32.to_le_bytes(), [0; 4], 1f32.to_le_bytes()].concat();
    let asked = [greedy, 5u64.to_le_bytes().to_vec(), [1u32, 2, 70_000].map(u32::to_le_bytes).concat()].concat();
    assert_eq!(inference[64..96], Sha256::digest(&asked));
    let answered: Vec<u8> = (0..40u32).flat_map(u32::to_le_bytes).collect();
    assert_eq!(inference[96..128], Sha256::digest(&answered));
    assert_eq!(records[4][64..128], [9; 64]);
    assert_eq!(*log.head(), Sha256::digest(&[&[0][..], &records[4]].concat()));
    assert_eq!(log.sequence(), Some(5));
}

#[test]
fn a_key_keys_digests_and_moves_on_with_every_seal() {
    let (log, records) = written(Some(LogKey::new(&ROOT)));
    let inference = AuditRecord::from_bytes(&records[1]);
    let digests = hkdf(&ROOT, &[], b"slm log digest key v1");
    let answered: Vec<u8> = (0..40u32).flat_map(u32::to_le_bytes).collect();
    assert!(inference.keyed() && inference.output == Hmac::digest(&digests, &answered));
    let first = hkdf(&ROOT, &[], b"slm log seal key v1");
    let second = hkdf(&first, &[], b"slm log next key v1");
    for (number, key) in [first, second].into_iter().enumerate() {
        let seal = AuditRecord::from_bytes(&records[5 + number]);
        assert_eq!((seal.status, seal.tokens_in, seal.output), (3, number as u32, ZEROS));
        assert_eq!(seal.artifact, hkdf(&ROOT, &[], b"slm log key id v1"));
        let message = [
            &b"slm log seal v1"[..],
            &seal.sequence.to_le_bytes(),
            &(14 + number as u64).to_le_bytes(),
            &records[4 + number].iter().fold(Vec::from([0]), |mut all, byte| {
                all.push(*byte);
                all
            }),
        ];
        let previous = Sha256::digest(message[3]);
        let signed = [message[0], message[1], message[2], &previous].concat();
        assert_eq!(seal.input, Hmac::digest(&key, &signed));
    }
    assert_eq!(log.key().map(LogKey::number), Some(2));
    // What is kept has no key of a seal that was made.
    let saved: [u8; SAVED_KEY_BYTES] = log.key().unwrap().save();
    for used in [first, second] {
        assert!(!saved.windows(32).any(|window| window == used));
    }
    let restored = LogKey::restore(&saved);
    assert_eq!((restored.number(), restored.name()), (3, log.key().unwrap().name()));
    let mut on = LogKey::new(&ROOT);
    (0..3).for_each(|_| on.advance());
    assert_eq!(on.save(), restored.save());
}

#[test]
fn a_log_goes_on_after_a_restart_and_after_a_failed_write() {
    let (mut log, records) = written(None);
    let last = records.last().unwrap();
    let mut resumed = AuditLog::resume(last, None).unwrap();
    assert_eq!((resumed.sequence(), resumed.head()), (log.sequence(), log.head()));
    let exchange = one_exchange(&log);
    let failed = log.inference(&ARTIFACT, exchange, Outcome::default(), 20, &mut |_| false);
    assert_eq!(failed, Err(AuditError::Append));
    let mut both = Vec::new();
    for log in [&mut log, &mut resumed] {
        let exchange = one_exchange(log);
        let mut append = |record: &[u8; 160]| {
            both.push(*record);
            true
        };
        log.inference(&ARTIFACT, exchange, Outcome::default(), 21, &mut append).unwrap();
    }
    assert_eq!(both[0], both[1]);
    assert_eq!(log.seal(22, &mut |_| true), Err(AuditError::NoKey));
    let mut broken = *last;
    broken[4] = 2;
    assert_eq!(AuditLog::resume(&broken, None).err(), Some(AuditError::Last("version")));
    // No record follows the last number there is.
    let full = AuditRecord { sequence: u64::MAX, ..AuditRecord::from_bytes(last) };
    let mut log = AuditLog::resume(&full.to_bytes(), None).unwrap();
    assert_eq!(log.event(&ARTIFACT, Event::Opened(0), 1, &mut |_| true), Err(AuditError::Full));
}

#[test]
fn a_seal_that_was_not_written_uses_its_key_up() {
    let mut log = AuditLog::new(Some(LogKey::new(&ROOT)));
    assert_eq!(log.seal(1, &mut |_| false), Err(AuditError::Append));
    let mut found = None;
    log.seal(2, &mut |record| {
        found = Some(AuditRecord::from_bytes(record));
        true
    })
    .unwrap();
    let seal = found.unwrap();
    assert_eq!((seal.sequence, seal.tokens_in), (0, 1));
}

#[test]
fn fields_that_no_writer_writes_are_named() {
    let (_, records) = written(Some(LogKey::new(&ROOT)));
    let of = |index: usize| AuditRecord::from_bytes(&records[index]);
    let [opened, inference, update, note, signed, sealed] = [of(0), of(1), of(2), of(3), of(4), of(5)];
    let cases = [
        (AuditRecord { magic: *b"SLMC", ..opened }, "magic"),
        (AuditRecord { version: 0, ..opened }, "version"),
        (AuditRecord { kind: 0, ..opened }, "kind"),
        (AuditRecord { kind: 6, ..opened }, "kind"),
        (AuditRecord { status: 0x100, ..opened }, "status"),
        (AuditRecord { tokens_in: 1, ..opened }, "tokens in"),
        (AuditRecord { tokens_out: 1, ..update }, "tokens out"),
        (AuditRecord { input: [1; 32], ..opened }, "input"),
        (AuditRecord { output: [1; 32], ..note }, "output"),
        (AuditRecord { output: [1; 32], ..update }, "output"),
        (AuditRecord { status: inference.status | 5 << 8, ..inference }, "status"),
        (AuditRecord { status: inference.status | 3 << 11, ..inference }, "status"),
        (AuditRecord { status: inference.status | 1 << 13, ..inference }, "status"),
        (AuditRecord { status: 0, ..signed }, "status"),
        (AuditRecord { status: 4, ..signed }, "status"),
        (AuditRecord { tokens_in: 1, ..signed }, "tokens in"),
        (AuditRecord { output: [1; 32], ..sealed }, "output"),
    ];
    for (record, field) in cases {
        assert_eq!(record.fault(), Some(field), "{record:?}");
    }
}
