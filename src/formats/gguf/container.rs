//! The container of GGUF, versions 2 and 3, little-endian, every part right after the one before:
//!
//! ```text
//! "GGUF", u32 version, u64 tensors, u64 keys,
//! keys:    string name, u32 type, value
//! tensors: string name, u32 n, n × u64 dimensions (the fastest first), u32 block type, u64 offset of the data
//! zeros to the next multiple of `general.alignment` (32), then the data
//! ```
//!
//! A string is a u64 number of bytes, and UTF-8. Offsets count from the start of the data; each must be where the tensor
//! before it ends, rounded up to the alignment. Reading looks at everything but the data, which stays mapped. A file may
//! be one of several ([`super::split`]).

use super::block::{self, BlockType};
use super::error::GgufError;
use super::metadata::{Array, Metadata, Value};
use crate::disk::SharedBytes;
use crate::disk::found::Found;
use crate::disk::mmap::MappedFile;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// First bytes of a file.
pub const MAGIC: &[u8; 4] = b"GGUF";
/// Alignment where no key says another.
pub(super) const ALIGNMENT: u64 = 32;
/// Most bytes of a tensor's name, which ggml keeps in 64 with a zero.
const MAX_NAME: usize = 63;
/// Most dimensions.
const MAX_DIMENSIONS: u32 = 4;

/// An opened file.
#[derive(Debug)]
pub(super) struct Container {
    /// Its keys.
    pub(super) metadata: Metadata,
    /// Its tensors by name.
    pub(super) tensors: BTreeMap<String, StoredBlocks>,
}

/// A tensor as its file describes it.
#[derive(Clone, Debug)]
pub(super) struct StoredBlocks {
    /// Dimensions, outermost first.
    pub(super) shape: Vec<usize>,
    /// How rows are stored.
    pub(super) kind: BlockType,
    /// The rows; not read yet.
    pub(super) bytes: SharedBytes,
    /// File that holds them.
    pub(super) file: Arc<MappedFile>,
}

impl Container {
    /// Reads everything but the data, and checks that every tensor lies in the file.
    pub(super) fn open(path: &Path) -> Result<Self, GgufError> {
        let file = MappedFile::open(path).map_err(|source| match Found::dangling_link(path) {
            Some(found) => GgufError::Found { file: path.to_owned(), found },
            None => GgufError::Read { file: path.to_owned(), source },
        })?;
        let mut reader = Reader { file: &file, at: 0 };
        let (tensors, keys) = reader.begin()?;
        let metadata = reader.metadata(keys)?;
        let infos = reader.infos(tensors)?;
        let data = reader.data_start(&metadata)?;
        let tensors = place(&file, infos, data, alignment(&metadata)?)?;
        Ok(Container { metadata, tensors })
    }
}

/// What a tensor's description says.
struct Info {
    name: String,
    shape: Vec<usize>,
    kind: BlockType,
    bytes: u64,
    offset: u64,
}

fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    const KEY: &str = "general.alignment";
    let stated = metadata.optional_size(KEY)?;
    match stated.map(|alignment| alignment as u64) {
        None => Ok(ALIGNMENT),
        Some(alignment) if alignment.is_power_of_two() => Ok(alignment),
        Some(_) => Err(metadata.wrong(KEY, "a power of two")),
    }
}

/// The tensors with their bytes, each right after the one before it.
fn place(
    file: &Arc<MappedFile>,
    infos: Vec<Info>,
    start: u64,
    alignment: u64,
) -> Result<BTreeMap<String, StoredBlocks>, GgufError> {
    let mut tensors = BTreeMap::new();
    let mut expected = 0u64;
    for Info { name, shape, kind, bytes, offset } in infos {
        let wrong = |problem: String| GgufError::tensor(file.path(), &name, problem);
        if offset != expected {
            let problem = format!(
                "starts at byte {offset} of the data, expected {expected}: tensors follow each other, each at a multiple of \
                 {alignment}"
            );
            return Err(wrong(problem));
        }
        let end = offset.checked_add(bytes);
        expected = end
            .and_then(|end| end.checked_next_multiple_of(alignment))
            .ok_or_else(|| wrong(format!("takes {bytes} bytes, which no file holds")))?;
        let range = start.checked_add(offset).zip(end.and_then(|end| start.checked_add(end)));
        let (from, to) = range.ok_or_else(|| wrong(format!("takes {bytes} bytes, which no file holds")))?;
        let length = file.bytes().len() as u64;
        let within = |from: u64, to: u64| Some(usize::try_from(from).ok()?..usize::try_from(to).ok()?);
        let bytes = within(from, to).and_then(|range| SharedBytes::mapped(file, range));
        let Some(bytes) = bytes else {
            return Err(GgufError::Truncated { file: file.path().to_owned(), tensor: name, end: to, length });
        };
        tensors.insert(name, StoredBlocks { shape, kind, bytes, file: Arc::clone(file) });
    }
    Ok(tensors)
}

/// Reads one part after the other.
struct Reader<'f> {
    file: &'f Arc<MappedFile>,
    at: usize,
}

impl Reader<'_> {
    fn damaged(&self, problem: impl Into<String>) -> GgufError {
        GgufError::Damaged { file: self.file.path().to_owned(), problem: problem.into() }
    }

    /// The next bytes.
    fn take(&mut self, length: u64, what: &str) -> Result<&[u8], GgufError> {
        let range = self.range(length, what)?;
        Ok(&self.file.bytes()[range])
    }

    /// Where the next bytes stand.
    fn range(&mut self, length: u64, what: &str) -> Result<Range<usize>, GgufError> {
        let left = self.file.bytes().len() - self.at;
        match usize::try_from(length) {
            Ok(length) if length <= left => {
                self.at += length;
                Ok(self.at - length..self.at)
            }
            _ => Err(self.damaged(format!("{what} takes {length} bytes, of which {left} are left"))),
        }
    }

    fn number<const BYTES: usize>(&mut self, what: &str) -> Result<[u8; BYTES], GgufError> {
        let mut number = [0; BYTES];
        number.copy_from_slice(self.take(BYTES as u64, what)?);
        Ok(number)
    }

    fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.number(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.number(what)?))
    }

    fn string(&mut self, what: &str) -> Result<String, GgufError> {
        let length = self.u64(what)?;
        let text = std::str::from_utf8(self.take(length, what)?).map(str::to_owned);
        text.map_err(|_| self.damaged(format!("{what} is not UTF-8")))
    }

    /// Magic, version, the numbers of tensors and of keys.
    fn begin(&mut self) -> Result<(u64, u64), GgufError> {
        if self.take(MAGIC.len() as u64, "the first word")? != MAGIC {
            return Err(self.damaged("it does not begin with `GGUF`"));
        }
        let version = self.u32("the version")?;
        if !matches!(version, 2 | 3) {
            return Err(GgufError::Version { file: self.file.path().to_owned(), version });
        }
        Ok((self.u64("the number of tensors")?, self.u64("the number of keys")?))
    }

    fn metadata(&mut self, keys: u64) -> Result<Metadata, GgufError> {
        let mut values = BTreeMap::new();
        for number in 0..keys {
            let key = self.string("the name of a key")?;
            if key.is_empty() {
                return Err(self.damaged(format!("key {number} has no name")));
            }
            let kind = self.u32("the type of a value")?;
            let value = self.value(&key, kind)?;
            if values.insert(key.clone(), value).is_some() {
                return Err(self.damaged(format!("key `{key}` stands there twice")));
            }
        }
        Ok(Metadata::new(self.file.path(), values))
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<Value, GgufError> {
        let what = format!("the value of `{key}`");
        Ok(match kind {
            0 => Value::Unsigned(u8::from_le_bytes(self.number(&what)?).into()),
            1 => Value::Signed(i8::from_le_bytes(self.number(&what)?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.number(&what)?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.number(&what)?).into()),
            4 => Value::Unsigned(self.u32(&what)?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.number(&what)?).into()),
            6 => Value::Single(f32::from_le_bytes(self.number(&what)?)),
            7 => match self.number::<1>(&what)? {
                [0] => Value::Flag(false),
                [1] => Value::Flag(true),
                [other] => return Err(self.damaged(format!("`{key}` is a truth value of {other}, expected 0 or 1"))),
            },
            8 => Value::Text(self.string(&what)?),
            9 => Value::Array(self.array(key)?),
            10 => Value::Unsigned(self.u64(&what)?),
            11 => Value::Signed(i64::from_le_bytes(self.number(&what)?)),
            12 => Value::Double(f64::from_le_bytes(self.number(&what)?)),
            other => return Err(self.damaged(format!("`{key}` has a value of type {other}, expected 0 to 12"))),
        })
    }

    /// An array, whose elements are passed over: they are taken apart when they are asked for.
    fn array(&mut self, key: &str) -> Result<Array, GgufError> {
        let what = format!("the array `{key}`");
        let (kind, count) = (self.u32(&what)?, self.u64(&what)?);
        let width = match kind {
            0 | 1 | 7 => Some(1),
            2 | 3 => Some(2),
            4..=6 => Some(4),
            10..=12 => Some(8),
            8 => None,
            9 => return Err(self.damaged(format!("`{key}` is an array of arrays"))),
            other => return Err(self.damaged(format!("`{key}` is an array of type {other}, expected 0 to 12"))),
        };
        let start = self.at;
        match width {
            Some(width) => {
                let length = count.checked_mul(width);
                let length = length.ok_or_else(|| self.damaged(format!("`{key}` has {count} elements")))?;
                self.range(length, &what)?;
            }
            None => {
                for _ in 0..count {
                    let length = self.u64(&what)?;
                    self.range(length, &what)?;
                }
            }
        }
        // Each element takes a byte at least, so the count fits.
        Ok(Array { kind, count: count as usize, file: Arc::clone(self.file), range: start..self.at })
    }

    fn infos(&mut self, tensors: u64) -> Result<Vec<Info>, GgufError> {
        let (mut infos, mut names) = (Vec::new(), BTreeSet::new());
        for _ in 0..tensors {
            let info = self.info()?;
            if !names.insert(info.name.clone()) {
                return Err(GgufError::tensor(self.file.path(), &info.name, "stands there twice"));
            }
            infos.push(info);
        }
        Ok(infos)
    }

    fn info(&mut self) -> Result<Info, GgufError> {
        let name = self.string("the name of a tensor")?;
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(self.damaged(format!("a tensor's name has {} bytes, expected 1 to {MAX_NAME}", name.len())));
        }
        let path = self.file.path().to_owned();
        let wrong = |problem: String| GgufError::tensor(&path, &name, problem);
        let what = format!("the description of `{name}`");
        let dimensions = self.u32(&what)?;
        if dimensions == 0 || dimensions > MAX_DIMENSIONS {
            return Err(wrong(format!("has {dimensions} dimensions, expected 1 to {MAX_DIMENSIONS}")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(self.u64(&what)?);
        }
        let (id, offset) = (self.u32(&what)?, self.u64(&what)?);
        let Some(kind) = BlockType::of(id) else {
            return Err(GgufError::BlockType { file: path, tensor: name, found: block::name_of(id) });
        };
        let impossible = || wrong(format!("has the impossible shape {shape:?}"));
        let columns = usize::try_from(shape[0]).map_err(|_| impossible())?;
        let Some(row) = kind.row_bytes(columns) else {
            let problem =
                format!("has rows of {columns} values, which blocks of {} do not divide ({kind})", kind.values());
            return Err(wrong(problem));
        };
        let values = shape.iter().try_fold(1u64, |product, &n| product.checked_mul(n)).filter(|&product| product > 0);
        let values = values.ok_or_else(impossible)?;
        let bytes = (values / shape[0]).checked_mul(row as u64).ok_or_else(impossible)?;
        let outermost_first = shape.iter().rev().map(|&n| usize::try_from(n).map_err(|_| impossible()));
        let shape = outermost_first.collect::<Result<Vec<usize>, _>>()?;
        Ok(Info { name, shape, kind, bytes, offset })
    }

    /// Where the data begins.
    fn data_start(&self, metadata: &Metadata) -> Result<u64, GgufError> {
        let start = (self.at as u64).checked_next_multiple_of(alignment(metadata)?);
        start.ok_or_else(|| metadata.wrong("general.alignment", "a power of two"))
    }
}
