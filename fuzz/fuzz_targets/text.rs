//! Text for three tokenizers: byte-level BPE (the quickstart's), sentencepiece-like letters, and word pieces. Host and
//! device cut every text into the same tokens.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slmc::text::tokenizer::Tokenizer;
use std::sync::OnceLock;

const FILES: [&[u8]; 3] = [
    include_bytes!("../../recipes/quickstart/teacher/tokenizer.json"),
    include_bytes!("../tokenizers/letters.json"),
    include_bytes!("../tokenizers/word-pieces.json"),
];

fn tokenizers() -> &'static [(Tokenizer, Vec<u8>)] {
    static TOKENIZERS: OnceLock<Vec<(Tokenizer, Vec<u8>)>> = OnceLock::new();
    TOKENIZERS.get_or_init(|| {
        let read = |bytes: &&[u8]| {
            let host = Tokenizer::from_bytes("tokenizer.json".into(), bytes).expect("it is sound");
            let device = host.device_text().expect("the device has every part of it");
            (host, device)
        };
        FILES.iter().map(read).collect()
    })
}

fuzz_target!(|text: &str| {
    for (host, device) in tokenizers() {
        let expected = host.encode_plain(text).expect("every text can be encoded");
        slmc_fuzz::compare(device, text, &expected);
        let _ = host.decode(&expected);
    }
});
