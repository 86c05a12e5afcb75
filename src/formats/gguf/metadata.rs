//! The keys of a GGUF file with accessors whose errors name the file and the key. Numbers stand there in any width: a
//! reader asks for the meaning, not for the type. A single-precision number is read as the shortest decimal that it is the
//! nearest single to (`1e-5` for 9.9999997e-06), which is what a configuration had before it was written.

use super::error::GgufError;
use crate::disk::config::MAX_SIZE;
use crate::disk::mmap::MappedFile;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The value of a key.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// An integer of an unsigned type.
    Unsigned(u64),
    /// An integer of a signed type.
    Signed(i64),
    /// An f32.
    Single(f32),
    /// An f64.
    Double(f64),
    /// A truth value.
    Flag(bool),
    /// A text.
    Text(String),
    /// Values of one type.
    Array(Array),
}

/// An array, whose elements stay in the file.
#[derive(Clone, Debug)]
pub(super) struct Array {
    /// Type of the elements.
    pub(super) kind: u32,
    /// Their number.
    pub(super) count: usize,
    /// The file.
    pub(super) file: Arc<MappedFile>,
    /// Where they stand; the reader of the container has walked over them.
    pub(super) range: Range<usize>,
}

/// Type of arrays of text.
const TEXT: u32 = 8;

impl Value {
    fn unsigned(&self) -> Option<u64> {
        match self {
            Value::Unsigned(number) => Some(*number),
            Value::Signed(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Value::Unsigned(number) => Some(*number as f64),
            Value::Signed(number) => Some(*number as f64),
            Value::Single(number) => shortest(*number),
            Value::Double(number) => Some(*number),
            _ => None,
        }
    }
}

/// The shortest decimal of a single-precision number.
fn shortest(number: f32) -> Option<f64> {
    number.to_string().parse().ok()
}

impl Array {
    fn bytes(&self) -> &[u8] {
        &self.file.bytes()[self.range.clone()]
    }

    /// The elements as texts, as far as they are texts in UTF-8.
    fn texts(&self) -> Option<Vec<&str>> {
        if self.kind != TEXT {
            return None;
        }
        let (mut texts, mut rest) = (Vec::with_capacity(self.count), self.bytes());
        for _ in 0..self.count {
            let (length, after) = rest.split_first_chunk::<8>()?;
            let (text, after) = after.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
            texts.push(std::str::from_utf8(text).ok()?);
            rest = after;
        }
        Some(texts)
    }

    /// The elements one by one, as long as they are numbers or truth values.
    fn values(&self) -> Option<Vec<Value>> {
        fn read<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> Value) -> Vec<Value> {
            bytes.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)).collect()
        }
        let bytes = self.bytes();
        Some(match self.kind {
            0 => read::<1>(bytes, |byte| Value::Unsigned(byte[0].into())),
            1 => read::<1>(bytes, |byte| Value::Signed(byte[0].cast_signed().into())),
            2 => read(bytes, |bytes| Value::Unsigned(u16::from_le_bytes(bytes).into())),
            3 => read(bytes, |bytes| Value::Signed(i16::from_le_bytes(bytes).into())),
            4 => read(bytes, |bytes| Value::Unsigned(u32::from_le_bytes(bytes).into())),
            5 => read(bytes, |bytes| Value::Signed(i32::from_le_bytes(bytes).into())),
            6 => read(bytes, |bytes| Value::Single(f32::from_le_bytes(bytes))),
            7 => read::<1>(bytes, |byte| Value::Flag(byte[0] != 0)),
            10 => read(bytes, |bytes| Value::Unsigned(u64::from_le_bytes(bytes))),
            11 => read(bytes, |bytes| Value::Signed(i64::from_le_bytes(bytes))),
            12 => read(bytes, |bytes| Value::Double(f64::from_le_bytes(bytes))),
            _ => return None,
        })
    }
}

/// The keys of a file.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    file: PathBuf,
    values: BTreeMap<String, Value>,
}

impl Metadata {
    /// The keys of `file`.
    pub(super) fn new(file: &Path, values: BTreeMap<String, Value>) -> Self {
        Metadata { file: file.to_owned(), values }
    }

    /// The file errors name.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Every key, sorted.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// The value of a key.
    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// The error for an absent key.
    pub(super) fn missing(&self, key: &str, expected: &str) -> GgufError {
        GgufError::MissingKey { file: self.file.clone(), key: key.to_owned(), expected: expected.to_owned() }
    }

    /// The error for a value of another type, or out of range.
    pub(super) fn wrong(&self, key: &str, expected: &str) -> GgufError {
        GgufError::Key {
            file: self.file.clone(),
            key: key.to_owned(),
            found: self.values.get(key).map_or_else(|| "absent".to_owned(), found),
            expected: expected.to_owned(),
        }
    }

    fn read<'v, T>(
        &'v self,
        key: &str,
        expected: &str,
        read: impl Fn(&'v Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.wrong(key, expected)),
        }
    }

    /// An integer from 0 to [`MAX_SIZE`].
    pub(super) fn optional_count(&self, key: &str) -> Result<Option<usize>, GgufError> {
        let count = |value: &Value| usize::try_from(value.unsigned()?).ok().filter(|&count| count <= MAX_SIZE);
        self.read(key, &format!("an integer from 0 to {MAX_SIZE}"), count)
    }

    /// An integer from 1 to [`MAX_SIZE`], where present.
    pub(super) fn optional_size(&self, key: &str) -> Result<Option<usize>, GgufError> {
        match self.optional_count(key)? {
            Some(0) => Err(self.wrong(key, "a number above 0")),
            size => Ok(size),
        }
    }

    /// An integer from 1 to [`MAX_SIZE`].
    pub(super) fn size(&self, key: &str) -> Result<usize, GgufError> {
        self.optional_size(key)?.ok_or_else(|| self.missing(key, "a number above 0"))
    }

    /// An integer from 0 on: one number, or an array of one for each of `layers`.
    pub(super) fn counts(&self, key: &str, layers: usize) -> Result<Option<Vec<usize>>, GgufError> {
        let Some(Value::Array(array)) = self.values.get(key) else {
            return Ok(self.optional_count(key)?.map(|count| vec![count; layers]));
        };
        let count = |value: &Value| usize::try_from(value.unsigned()?).ok().filter(|&count| count <= MAX_SIZE);
        let counts: Option<Vec<usize>> = array.values().and_then(|values| values.iter().map(count).collect());
        match counts.filter(|counts| counts.len() == layers) {
            Some(counts) => Ok(Some(counts)),
            None => Err(self.wrong(key, &format!("a number, or {layers} of them, one for each layer"))),
        }
    }

    /// As [`Metadata::counts`], the same in every layer and above 0.
    pub(super) fn uniform(&self, key: &str, layers: usize) -> Result<Option<usize>, GgufError> {
        let Some(counts) = self.counts(key, layers)? else { return Ok(None) };
        match counts.first() {
            Some(&first) if first > 0 && counts.iter().all(|&count| count == first) => Ok(Some(first)),
            _ => Err(self.wrong(key, "a number above 0, the same in every layer")),
        }
    }

    /// Truth values, one for each of `layers`.
    pub(super) fn flags(&self, key: &str, layers: usize) -> Result<Option<Vec<bool>>, GgufError> {
        let Some(Value::Array(array)) = self.values.get(key) else { return Ok(None) };
        let flag = |value: &Value| match value {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        };
        let flags: Option<Vec<bool>> = array.values().and_then(|values| values.iter().map(flag).collect());
        let flags = flags.filter(|flags| flags.len() == layers);
        flags.map(Some).ok_or_else(|| self.wrong(key, &format!("{layers} truth values, one for each layer")))
    }

    /// A finite number above 0, where present.
    pub(super) fn optional_positive(&self, key: &str) -> Result<Option<f64>, GgufError> {
        let positive = |value: &Value| value.number().filter(|number| number.is_finite() && *number > 0.0);
        self.read(key, "a finite number above 0", positive)
    }

    /// A finite number above 0.
    pub(super) fn positive(&self, key: &str) -> Result<f64, GgufError> {
        self.optional_positive(key)?.ok_or_else(|| self.missing(key, "a number above 0"))
    }

    /// Any number, where present.
    pub(super) fn optional_number(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.read(key, "a number", Value::number)
    }

    /// true or false, where present.
    pub(super) fn optional_flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        let flag = |value: &Value| match value {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        };
        self.read(key, "true or false", flag)
    }

    /// A text, where present.
    pub(super) fn optional_text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "a text")),
        }
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<&str, GgufError> {
        self.optional_text(key)?.ok_or_else(|| self.missing(key, "a text"))
    }

    /// Texts, where present.
    pub(super) fn optional_texts(&self, key: &str) -> Result<Option<Vec<&str>>, GgufError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) => {
                array.texts().map(Some).ok_or_else(|| self.wrong(key, "an array of texts in UTF-8"))
            }
            Some(_) => Err(self.wrong(key, "an array of texts")),
        }
    }

    /// Numbers, where present.
    pub(super) fn optional_numbers(&self, key: &str) -> Result<Option<Vec<f64>>, GgufError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let Value::Array(array) = value else { return Err(self.wrong(key, "an array of numbers")) };
        let exact = |value: &Value| match value {
            // Values to compare, not settings: as they are.
            Value::Single(number) => Some(f64::from(*number)),
            other => other.number(),
        };
        let numbers: Option<Vec<f64>> = array.values().and_then(|values| values.iter().map(exact).collect());
        numbers.map(Some).ok_or_else(|| self.wrong(key, "an array of numbers"))
    }

    /// A token id, where present.
    pub(super) fn token(&self, key: &str) -> Result<Option<u32>, GgufError> {
        let token = |value: &Value| u32::try_from(value.unsigned()?).ok();
        self.read(key, "the id of a token", token)
    }
}

/// A value in words.
fn found(value: &Value) -> String {
    const LONGEST: usize = 60;
    match value {
        Value::Unsigned(number) => number.to_string(),
        Value::Signed(number) => number.to_string(),
        Value::Single(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::Text(text) if text.chars().count() <= LONGEST => format!("{text:?}"),
        Value::Text(text) => format!("{:?}…", text.chars().take(LONGEST).collect::<String>()),
        Value::Array(array) => format!("an array of {}", array.count),
    }
}
