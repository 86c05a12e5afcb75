//! A directory that slmc exported: config.json, a zero byte, and model.onnx; a model whose values and integers are read, or an
//! error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slmc::formats::open;
use slmc::model::id::{ParameterId, Part};

fuzz_target!(|bytes: &[u8]| {
    let Some(at) = bytes.iter().position(|&byte| byte == 0) else { return };
    let directory = slmc_fuzz::directory();
    slmc_fuzz::put(directory, "config.json", &bytes[..at]);
    slmc_fuzz::put(directory, "model.onnx", &bytes[at + 1..]);
    let Ok(source) = open(directory) else { return };
    for id in source.outline().parameters() {
        if let ParameterId::Linear(linear, Part::Weight) = id {
            let _ = (source.grid(linear), source.integers(linear));
        }
    }
    let Ok(model) = source.model() else { return };
    for id in model.parameters.keys().copied().collect::<Vec<ParameterId>>() {
        let _ = model.values_f32(id);
    }
});
