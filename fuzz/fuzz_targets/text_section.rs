//! The text section of an artifact alone: one byte with the length of a text, the text, and the section. A section that
//! is sound can be tokenized with, in the memory that it asks for and in less, and names no token that the model lacks.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_runtime::format::text_tables::TextTables;
use slm_runtime::layout::ALIGNMENT;
use slm_runtime::tokenizer::Tokenizer;

/// Tokens of the model.
const VOCABULARY: u32 = 64;
/// Most memory that a tokenizer gets.
const MEMORY: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Some((&length, rest)) = bytes.split_first() else { return };
    let Some((text, section)) = rest.split_at_checked(usize::from(length)) else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(tables) = TextTables::read(section, VOCABULARY) else { return };
    let tokenizer = Tokenizer::new(&tables);
    let Some(required) = tokenizer.required_bytes(text.len()).filter(|&bytes| bytes <= MEMORY) else { return };
    let mut memory = vec![0; required + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    for specials in [false, true] {
        let memory = &mut memory[start..start + required];
        // A section may understate how texts grow: that is an error once the memory runs out.
        let _ = tokenizer.encode(text, specials, memory, &mut |token| assert!(token < VOCABULARY));
    }
    let _ = tokenizer.encode(text, true, &mut memory[start..start + required / 2], &mut |_| {});
});
