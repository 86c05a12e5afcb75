//! The wire format of the messages that Bazel's caches hold, as far as slmc has them (Remote Execution API v2,
//! `build/bazel/remote/execution/v2/remote_execution.proto`; proto3 encoding):
//!
//! ```text
//! ActionResult  2 output_files: OutputFile, repeated    4 exit_code: int32    5 stdout_raw: bytes
//!               7 stderr_raw: bytes
//! OutputFile    1 path: string    2 digest: Digest    4 is_executable: bool
//! Digest        1 hash: string, 64 lower-case digits    2 size_bytes: int64
//!
//! field   varint(number << 3 | type)    type 0: varint    type 2: varint length, then as many bytes
//! ```
//!
//! Fields of other numbers are skipped, as proto3 has it.

/// What an ActionResult says here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ActionResult {
    pub(super) output_files: Vec<OutputFile>,
    pub(super) exit_code: u64,
    pub(super) stdout_raw: Vec<u8>,
    pub(super) stderr_raw: Vec<u8>,
}

/// A file of an ActionResult.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OutputFile {
    pub(super) path: String,
    pub(super) hash: String,
    pub(super) size: u64,
}

impl ActionResult {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for file in &self.output_files {
            let (mut digest, mut message) = (Vec::new(), Vec::new());
            bytes(1, file.hash.as_bytes(), &mut digest);
            number(2, file.size, &mut digest);
            bytes(1, file.path.as_bytes(), &mut message);
            bytes(2, &digest, &mut message);
            bytes(2, &message, &mut out);
        }
        number(4, self.exit_code, &mut out);
        bytes(5, &self.stdout_raw, &mut out);
        if !self.stderr_raw.is_empty() {
            bytes(7, &self.stderr_raw, &mut out);
        }
        out
    }

    /// `None` for bytes that are not such a message.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut result = ActionResult::default();
        for field in Fields(bytes) {
            match field? {
                (2, Value::Bytes(bytes)) => result.output_files.push(OutputFile::decode(bytes)?),
                (4, Value::Number(code)) => result.exit_code = code,
                (5, Value::Bytes(bytes)) => result.stdout_raw = bytes.to_vec(),
                (7, Value::Bytes(bytes)) => result.stderr_raw = bytes.to_vec(),
                _ => {}
            }
        }
        Some(result)
    }
}

impl OutputFile {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut file = OutputFile::default();
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(bytes)) => file.path = std::str::from_utf8(bytes).ok()?.to_owned(),
                (2, Value::Bytes(digest)) => {
                    for field in Fields(digest) {
                        match field? {
                            (1, Value::Bytes(bytes)) => file.hash = std::str::from_utf8(bytes).ok()?.to_owned(),
                            (2, Value::Number(size)) => file.size = size,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Some(file)
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A number; 0 is left out, being what an absent field means.
fn number(field: u64, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        varint(field << 3, out);
        varint(value, out);
    }
}

fn bytes(field: u64, value: &[u8], out: &mut Vec<u8>) {
    varint(field << 3 | 2, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// The value of a field.
enum Value<'b> {
    Number(u64),
    Bytes(&'b [u8]),
    /// A value of a type that no field here has.
    Skipped,
}

/// The fields of a message, by their numbers; ends with `None` inside where the bytes are not a message.
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: u64) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Value<'b>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Skipped)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Skipped)?,
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'b> Iterator for Fields<'b> {
    type Item = Option<(u64, Value<'b>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ActionResult {
        let file = |path: &str, size| OutputFile { path: path.to_owned(), hash: "ab".repeat(32), size };
        ActionResult {
            output_files: vec![file("output/a", 300), file("output/b", 0)],
            exit_code: 0,
            stdout_raw: b"{}".to_vec(),
            stderr_raw: b"s".to_vec(),
        }
    }

    /// The bytes by the encoding of proto3, written out; tests/cache/buckets compares with protobuf itself.
    #[test]
    fn encodes_as_protobuf_does() {
        let mut expected = Vec::new();
        for (path, size) in [("output/a", &b"\x10\xac\x02"[..]), ("output/b", b"")] {
            let digest = [&b"\x0a\x40"[..], "ab".repeat(32).as_bytes(), size].concat();
            let message = [b"\x0a\x08", path.as_bytes(), b"\x12", &[digest.len() as u8], &digest].concat();
            expected.extend([b"\x12", &[message.len() as u8][..], &message].concat());
        }
        expected.extend(b"\x2a\x02{}\x3a\x01s");
        assert_eq!(sample().encode(), expected);
        assert_eq!(ActionResult::decode(&expected), Some(sample()));
    }

    #[test]
    fn unknown_fields_are_skipped_and_damage_is_found_without_a_panic() {
        let mut bytes = sample().encode();
        let with_more = [&bytes[..], b"\x98\x06\x01\xa1\x06\0\0\0\0\0\0\0\0\xaa\x06\x01x\xb5\x06\0\0\0\0"].concat();
        assert_eq!(ActionResult::decode(&with_more), Some(sample()));
        for length in 0..bytes.len() {
            drop(ActionResult::decode(&bytes[..length]));
            let before = bytes[length];
            for value in [0, 0x7f, 0x80, 0xff] {
                bytes[length] = value;
                drop(ActionResult::decode(&bytes));
            }
            bytes[length] = before;
        }
        assert_eq!(ActionResult::decode(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), None);
        assert_eq!(ActionResult::decode(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), None);
        assert_eq!(ActionResult::decode(b"\x2a\x05{}"), None);
        assert_eq!(ActionResult::decode(b"\x23"), None);
        assert_eq!(ActionResult::decode(b""), Some(ActionResult::default()));
    }
}
