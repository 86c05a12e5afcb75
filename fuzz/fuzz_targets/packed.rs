//! A directory of another tool's integers: config.json, a zero byte, the JSON header of model.safetensors, a zero byte, values
//! that its data repeat. Whatever opens is converted, and handed over as integers.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slmc::formats;
use slmc::model::id::ParameterId;
use slmc::model::scheme::SCHEMES;

fuzz_target!(|bytes: &[u8]| {
    let Some((config, header, values)) = slmc_fuzz::parts(bytes) else { return };
    let directory = slmc_fuzz::directory();
    slmc_fuzz::put(directory, "config.json", config);
    slmc_fuzz::put(directory, "model.safetensors", &slmc_fuzz::tensor_file(header, values));
    let Ok(source) = formats::open(directory) else { return };
    let Ok(model) = source.model() else { return };
    for id in model.parameters.keys().copied().collect::<Vec<ParameterId>>() {
        let _ = model.values_f32(id);
    }
    for (id, ..) in model.spec.matrices() {
        if let (Ok(grid), Ok(integers)) = (source.grid(id), source.integers(id)) {
            assert!(SCHEMES.iter().all(|def| grid.fit(def.scheme).is_err()) || integers.is_some(), "{id}");
        }
    }
    let _ = formats::storage(source.as_ref());
});
