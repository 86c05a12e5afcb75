//! config.json of every family: it becomes a specification, whose bytes can be counted, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slmc::model::families;
use slmc::model::scheme::Preset;

/// Most layers whose parameters are counted one by one.
const LAYERS: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let directory = slmc_fuzz::directory();
    slmc_fuzz::put(directory, "config.json", bytes);
    let Ok(config) = slmc::formats::configuration(directory) else { return };
    let Ok(spec) = families::spec(&config) else { return };
    if spec.layers.len() <= LAYERS {
        let _ = Preset::Mixed.assign(&spec);
    }
});
