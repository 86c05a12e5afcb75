//! Every elementary operation against the vectors of the numerics definition (`tests/data/numerics`), bit for bit.
//! Compiled into the runtime's unit tests, since some of the operations are private to the crate.

mod attention;
mod choice;
mod digests;
mod elementary;
mod matrix;
pub(crate) mod packer;

use core::fmt::{Debug, Display};
use std::format;
use std::string::String;
use std::sync::OnceLock;
use std::vec::Vec;

use serde_json::Value;

use crate::sample::random_u64;
use crate::sha256::Sha256;

/// A part of `vectors.json`, `pointer` as in RFC 6901.
fn section(pointer: &str) -> &'static Value {
    static FILE: OnceLock<Value> = OnceLock::new();
    let read = || {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/numerics/vectors.json");
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        serde_json::from_slice(&bytes).expect("vectors.json is JSON")
    };
    FILE.get_or_init(read).pointer(pointer).unwrap_or_else(|| panic!("vectors.json has no {pointer}"))
}

/// The numbers of a list of any depth, in order.
fn numbers(value: &Value) -> Vec<i64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        _ => [value.as_i64().unwrap_or_else(|| panic!("{value} is not an integer"))].into(),
    }
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap_or_else(|| panic!("{value} is not a size")) as usize
}

/// Bit patterns of a list of any depth, in order.
fn bits(value: &Value) -> Vec<u32> {
    numbers(value).into_iter().map(|bits| u32::try_from(bits).expect("a bit pattern")).collect()
}

/// f32 from their bit patterns, or from the stream that generates them.
fn floats(value: &Value) -> Vec<f32> {
    if value.is_array() {
        return bits(value).into_iter().map(f32::from_bits).collect();
    }
    let count: i64 = numbers(&value["shape"]).iter().product();
    generated(value["seed"].as_u64().expect("a seed"), count as usize, number(&value["shift"]) as u32)
}

/// Element i is ((u >> 40) - 2^23) · 2^-shift with u the draw i of a stream.
fn generated(seed: u64, count: usize, shift: u32) -> Vec<f32> {
    let step = f32::from_bits((127 - shift) << 23);
    (0..count as u64).map(|index| ((random_u64(seed, index) >> 40) as i64 - (1 << 23)) as f32 * step).collect()
}

/// f32 as stored in an artifact.
fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn to_bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The differences over all cases of an operation.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    /// One value.
    fn value<T: PartialEq + Debug>(&mut self, case: impl Display, actual: T, expected: T) {
        if actual != expected {
            self.0.push(format!("{case}: expected {expected:?}, got {actual:?}"));
        }
    }

    /// A list; reports the first difference.
    fn list<T: PartialEq + Debug>(&mut self, case: impl Display, actual: &[T], expected: &[T]) {
        if actual.len() != expected.len() {
            self.0.push(format!("{case}: expected {} values, got {}", expected.len(), actual.len()));
            return;
        }
        let mut differing = actual.iter().zip(expected).enumerate().filter(|(_, (a, e))| a != e);
        if let Some((index, (actual, expected))) = differing.next() {
            let more = differing.count();
            self.0.push(format!("{case}: at {index} expected {expected:?}, got {actual:?}; {more} more differ"));
        }
    }

    /// f32, compared as bit patterns.
    fn floats(&mut self, case: impl Display, actual: &[f32], expected: &Value) {
        self.list(case, &to_bits(actual), &bits(expected));
    }

    /// f32, compared by the digest of their bytes.
    fn digest(&mut self, case: impl Display, actual: &[f32], expected: &Value) {
        self.value(case, sha256_hex(&little_endian(actual)).as_str(), expected.as_str().expect("a digest"));
    }

    fn none(self) {
        assert!(self.0.is_empty(), "{} differences:\n{}", self.0.len(), self.0.join("\n"));
    }
}

/// The operations that the modules here test; a new operation of the definition must be added.
#[test]
fn every_operation_has_a_test() {
    let operations = section("/ops");
    let mut names: Vec<&str> = operations.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    let tested = [
        "attend",
        "attend_zero_values",
        "choose",
        "curves",
        "exp2_q24",
        "key_map",
        "largest_accumulators",
        "matrix w4.g32",
        "matrix w8",
        "norm",
        "quantize",
        "quantize_fails",
        "random_u64",
        "rotary",
        "sentence_pooling",
        "tanh",
    ];
    assert_eq!(names, tested);
}
