//! model.safetensors as a whole file: whatever the bytes, reading gives tensors that lie within the file, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slmc::formats::stored_tensors::StoredTensors;

fuzz_target!(|bytes: &[u8]| {
    let directory = slmc_fuzz::directory();
    slmc_fuzz::put(directory, "model.safetensors", bytes);
    let Ok(read) = StoredTensors::open(directory) else { return };
    for (name, tensor) in read.tensors() {
        assert!(tensor.bytes.as_slice().len() <= bytes.len());
        if let Ok(dense) = read.dense(name) {
            let _ = dense.check_finite(name);
            let _ = dense.to_f32(name);
        }
        let _ = read.signed_bytes(name);
    }
});
