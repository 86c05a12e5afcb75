//! A target file (docs/targets.md): whatever the text, it is a target or it is refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slmc::target::Target;

fuzz_target!(|text: &str| {
    if let Ok(target) = Target::parse("fuzz.toml", text) {
        let _ = target.usable_ram_bytes();
        assert!(!target.name.is_empty());
    }
});
