//! An audit log: a length of a change, then records. Whatever the bytes, they are a sound log or the first broken record is
//! named. Of a sound log every changed bit is seen, but of the last record, which nothing comes after; and the runtime goes on
//! after it with a record that makes it longer by one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_runtime::audit::{AuditLog, AuditRecord, Event, LogKey};
use slmc::audit::chain::{Chain, Start};
use slmc::audit::keys::SealKeys;
use slmc::audit::seals;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, log)) = bytes.split_first_chunk::<3>() else { return };
    let first = log.first_chunk::<{ AuditRecord::BYTES }>().map(|record| AuditRecord::from_bytes(record));
    // Logs that go on from another file, too.
    let previous = first.filter(|first| first.sequence > 0).map(|first| first.previous);
    let start = Start { previous };
    let chain = match Chain::check(log, start) {
        Ok(chain) => chain,
        Err(broken) => {
            assert!(!broken.to_string().is_empty());
            return;
        }
    };
    let mut keys = SealKeys::of(LogKey::new(&[7; 32]));
    if let Err(broken) = seals::check(&chain, &mut keys, previous.is_some()) {
        assert!(chain.iter().any(|record| record.sequence == broken.record));
    }
    let Some(last) = chain.last() else { return };
    let mut longer = log.to_vec();
    if let Ok(mut runtime) = AuditLog::resume(last, None) {
        let appended = runtime.event(&[3; 32], Event::Opened(1), 9, &mut |record| {
            longer.extend(record);
            true
        });
        if appended.is_ok() {
            let after = Chain::check(&longer, start).expect("it only grew");
            assert_eq!((after.len(), after.head_at(chain.len())), (chain.len() + 1, *runtime.head()));
            // Now what was the last record has one after it.
            let at = usize::from(u16::from_le_bytes([choice[0], choice[1]])) % log.len();
            longer[at] ^= 1 << (choice[2] % 8);
            Chain::check(&longer, start).expect_err("a changed bit is seen");
        }
    }
});
