//! tokenizer.json: it is read or refused. Where the device has every part of it, the tables are sound, and host and
//! device cut the same texts into the same tokens.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slmc::text::tokenizer::Tokenizer;

fuzz_target!(|bytes: &[u8]| {
    let Ok(host) = Tokenizer::from_bytes("fuzz.json".into(), bytes) else { return };
    let vocabulary = host.vocabulary_size();
    let _ = host.text_rules();
    let _ = host.vocabulary_bytes(vocabulary.min(1024));
    let _ = host.decode(&[0, 1, 2, u32::MAX]);
    let device = host.device_text();
    for text in ["", "the quick  brown fox.\n", "<s>naïve</s> 日本 \u{301}\u{1f600} [MASK] 12345"] {
        let expected = host.encode_plain(text);
        if let (Ok(device), Ok(expected)) = (&device, expected) {
            slmc_fuzz::compare(device, text, &expected);
        }
    }
});
