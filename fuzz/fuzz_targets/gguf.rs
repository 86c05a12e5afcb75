//! A GGUF file: container, keys, tokenizer and tensors; a model whose values are read, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slmc::formats::{companions, open_model, open_outline};
use slmc::model::id::ParameterId;
use slmc::text::tokenizer::Tokenizer;

fuzz_target!(|bytes: &[u8]| {
    let directory = slmc_fuzz::directory();
    slmc_fuzz::put(directory, "model.gguf", bytes);
    let path = directory.join("model.gguf");
    if let Ok(companions) = companions(&path)
        && let Ok(tokenizer) = Tokenizer::of(&companions)
    {
        let _ = tokenizer.encode_with_specials("a quick brown fox.");
    }
    if open_outline(&path).is_err() {
        return;
    }
    let Ok(model) = open_model(&path) else { return };
    for id in model.parameters.keys().copied().collect::<Vec<ParameterId>>() {
        let _ = model.values_f32(id);
    }
});
