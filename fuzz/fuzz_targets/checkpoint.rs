//! A model directory: config.json, a zero byte, and the JSON header of model.safetensors, whose data are zeros. Every
//! family's names and shapes, and the quantized directory's, are matched with what the header lists.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slmc::formats::{open_model, open_outline};
use slmc::model::id::ParameterId;

/// Most bytes of tensors.
const DATA: usize = 1 << 18;

fuzz_target!(|bytes: &[u8]| {
    let Some(at) = bytes.iter().position(|&byte| byte == 0) else { return };
    let (config, header) = (&bytes[..at], &bytes[at + 1..]);
    let data = data_bytes(header).min(DATA);
    let file = [&(header.len() as u64).to_le_bytes(), header, &vec![0; data]].concat();
    let directory = slmc_fuzz::directory();
    slmc_fuzz::put(directory, "config.json", config);
    slmc_fuzz::put(directory, "model.safetensors", &file);
    if open_outline(directory).is_err() {
        return;
    }
    let Ok(model) = open_model(directory) else { return };
    for id in model.parameters.keys().copied().collect::<Vec<ParameterId>>() {
        let _ = model.values_f32(id);
    }
});

/// The largest number that stands before a `]`: where the last tensor ends, in a header that is sound.
fn data_bytes(header: &[u8]) -> usize {
    let mut largest = 0;
    let mut number: Option<usize> = None;
    for &byte in header {
        match byte {
            b'0'..=b'9' => {
                let digit = usize::from(byte - b'0');
                number = Some(number.unwrap_or(0).saturating_mul(10).saturating_add(digit));
            }
            b']' => largest = largest.max(number.take().unwrap_or(0)),
            _ => number = None,
        }
    }
    largest
}
