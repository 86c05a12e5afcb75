//! An entry of a cache of stage results (docs/cache.md): whatever the bytes, they are an entry whose files lead nowhere but into the
//! output, or they are refused; an entry that is written again is the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slmc::store::Entry;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entry) = Entry::parse(bytes) {
        for file in &entry.files {
            assert!(!file.path.split('/').any(|part| matches!(part, "" | "." | "..")), "{}", file.path);
        }
        let _ = (entry.output(), entry.rest());
        assert_eq!(Entry::parse(&entry.encode()), Ok(entry));
    }
});
