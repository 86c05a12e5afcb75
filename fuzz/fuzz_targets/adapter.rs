//! An adapter on a golden checkpoint: adapter_config.json, a zero byte, the JSON header of adapter_model.safetensors, a zero
//! byte, values that its data repeat. Whatever opens is merged.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slmc::formats::adapter::{AdapterSource, Weighted};
use slmc::formats::{self, ModelSource};
use slmc::model::id::ParameterId;
use std::path::Path;

/// A decoder with a tied head, which is what most of the seeds were trained on.
const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/golden/llama-gqa-tied");

fuzz_target!(|bytes: &[u8]| {
    let Some((config, header, values)) = slmc_fuzz::parts(bytes) else { return };
    let directory = slmc_fuzz::directory();
    slmc_fuzz::put(directory, "adapter_config.json", config);
    slmc_fuzz::put(directory, "adapter_model.safetensors", &slmc_fuzz::tensor_file(header, values));
    let base = formats::open(Path::new(BASE)).expect("the golden checkpoint is sound");
    let adapter = Weighted { path: directory.to_owned(), weight: 0.5 };
    let Ok(source) = AdapterSource::open(base, &[adapter]) else { return };
    let Ok(model) = source.model() else { return };
    for id in model.parameters.keys().copied().collect::<Vec<ParameterId>>() {
        let _ = model.values_f32(id);
    }
});
