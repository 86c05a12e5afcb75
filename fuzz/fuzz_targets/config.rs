//! config.json of every family: it becomes a specification, whose bytes can be counted, or an error. The same bytes stand
//! for the files beside it that say how tokens are chosen and how a text becomes one vector.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slmc::model::companions::{Companions, GENERATION_CONFIG_FILE, MODULES_FILE, PROMPTS_FILE, SENTENCE_FILES};
use slmc::model::scheme::Preset;
use slmc::model::{families, generation, sentence};

/// Most layers whose parameters are counted one by one.
const LAYERS: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let directory = slmc_fuzz::directory();
    let mut companions = Companions::of(directory);
    for name in [GENERATION_CONFIG_FILE, MODULES_FILE, "1_Pooling/config.json", SENTENCE_FILES[0], PROMPTS_FILE] {
        companions.add_bytes(name, bytes);
        let _ = (sentence::read(&companions, 8), sentence::lower_cases(&companions), generation::read(&companions));
    }
    slmc_fuzz::put(directory, "config.json", bytes);
    let Ok(config) = slmc::formats::configuration(directory) else { return };
    let Ok(spec) = families::spec(&config) else { return };
    if spec.layers.len() <= LAYERS {
        let _ = Preset::Mixed.assign(&spec);
    }
});
