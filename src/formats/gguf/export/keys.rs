//! The keys of a file as they are written, one after the other: string name, u32 type, value. An array is u32 type, u64 count and
//! its elements; a string u64 length and UTF-8.

/// Numbers of the types.
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const FLAG: u32 = 7;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// Keys with their values.
#[derive(Debug, Default)]
pub(in crate::formats::gguf) struct Keys {
    bytes: Vec<u8>,
    count: u64,
}

impl Keys {
    /// How many.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// As they stand in the file.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn begin(&mut self, key: &str, kind: u32) {
        text(&mut self.bytes, key);
        self.bytes.extend_from_slice(&kind.to_le_bytes());
        self.count += 1;
    }

    fn begin_array(&mut self, key: &str, kind: u32, count: usize) {
        self.begin(key, ARRAY);
        self.bytes.extend_from_slice(&kind.to_le_bytes());
        self.bytes.extend_from_slice(&(count as u64).to_le_bytes());
    }

    /// A text.
    pub(in crate::formats::gguf) fn text(&mut self, key: &str, value: &str) {
        self.begin(key, TEXT);
        text(&mut self.bytes, value);
    }

    /// A number from 0 on. Sizes of models are far below 2^32, which their configuration has checked.
    pub(in crate::formats::gguf) fn size(&mut self, key: &str, value: usize) {
        self.begin(key, U32);
        self.bytes.extend_from_slice(&(value as u32).to_le_bytes());
    }

    /// A single-precision number.
    pub(in crate::formats::gguf) fn number(&mut self, key: &str, value: f64) {
        self.begin(key, F32);
        self.bytes.extend_from_slice(&(value as f32).to_le_bytes());
    }

    /// A truth value.
    pub(in crate::formats::gguf) fn flag(&mut self, key: &str, value: bool) {
        self.begin(key, FLAG);
        self.bytes.push(value.into());
    }

    /// Texts.
    pub(in crate::formats::gguf) fn texts<T: AsRef<str>>(&mut self, key: &str, values: &[T]) {
        self.begin_array(key, TEXT, values.len());
        values.iter().for_each(|value| text(&mut self.bytes, value.as_ref()));
    }

    /// Signed integers.
    pub(in crate::formats::gguf) fn integers(&mut self, key: &str, values: &[i32]) {
        self.begin_array(key, I32, values.len());
        values.iter().for_each(|value| self.bytes.extend_from_slice(&value.to_le_bytes()));
    }

    /// Numbers from 0 on.
    pub(in crate::formats::gguf) fn sizes(&mut self, key: &str, values: &[usize]) {
        self.begin_array(key, U32, values.len());
        values.iter().for_each(|&value| self.bytes.extend_from_slice(&(value as u32).to_le_bytes()));
    }

    /// Single-precision numbers.
    pub(in crate::formats::gguf) fn numbers(&mut self, key: &str, values: &[f32]) {
        self.begin_array(key, F32, values.len());
        values.iter().for_each(|value| self.bytes.extend_from_slice(&value.to_le_bytes()));
    }

    /// Truth values.
    pub(in crate::formats::gguf) fn flags(&mut self, key: &str, values: &[bool]) {
        self.begin_array(key, FLAG, values.len());
        self.bytes.extend(values.iter().map(|&value| u8::from(value)));
    }
}

/// A string as the container has it.
pub(super) fn text(bytes: &mut Vec<u8>, value: &str) {
    bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    bytes.extend_from_slice(value.as_bytes());
}
