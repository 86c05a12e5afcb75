//! A safetensors file: 8 bytes with the length of a JSON header, the header, then the tensors back to back without
//! holes. Reading maps the file and touches the header only; the safetensors crate validates the header, and a rejected
//! one is examined again here to name the tensor. Writing orders tensors by data type and name, so equal content gives
//! equal bytes.

use super::found::{Found, SNIFFED_BYTES};
use super::mmap::MappedFile;
use super::shared_bytes::SharedBytes;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of the length in front of the header.
const LENGTH_BYTES: usize = 8;
/// Longest header the format allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Why a safetensors file is rejected, or was not written.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// The file cannot be opened or mapped.
    #[error("{}: cannot be read", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is something else.
    #[error("{}: {found}", file.display())]
    Found {
        /// The file.
        file: PathBuf,
        /// What it is.
        found: Found,
    },
    /// The file cannot be written.
    #[error("{}: cannot be written; check permissions and free space", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file ends too early, or is longer than its header says.
    #[error("{}: {what} takes {expected} bytes, got {found}; the file is truncated or damaged, fetch it again", file.display())]
    Length {
        /// The file.
        file: PathBuf,
        /// The part that is too short or too long.
        what: &'static str,
        /// Bytes it needs.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The header violates the format.
    #[error("{}: not a valid safetensors header ({problem}); the file is damaged, fetch it again", file.display())]
    Header {
        /// The file.
        file: PathBuf,
        /// The fault.
        problem: String,
    },
    /// The header describes a tensor wrongly.
    #[error("{}: tensor `{tensor}` {problem}; the file is damaged, fetch it again", file.display())]
    Tensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The fault.
        problem: String,
    },
}

/// A tensor as a file describes it, of any data type.
#[derive(Clone, Debug)]
pub struct StoredTensor {
    /// Format of the values.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// The values; not read yet.
    pub bytes: SharedBytes,
    /// File that holds them.
    pub file: PathBuf,
}

/// Reads the header of a file and checks that every tensor lies within the file.
pub fn read(path: &Path) -> Result<BTreeMap<String, StoredTensor>, TensorFileError> {
    let (file, metadata, start) = open(path)?;
    let mut tensors = BTreeMap::new();
    for name in metadata.offset_keys() {
        let info = metadata.info(&name);
        let stored = info.and_then(|info| {
            let (from, to) = info.data_offsets;
            let bytes = SharedBytes::mapped(&file, start.checked_add(from)?..start.checked_add(to)?)?;
            Some(StoredTensor { dtype: info.dtype, shape: info.shape.clone(), bytes, file: path.to_owned() })
        });
        match stored {
            Some(stored) => tensors.insert(name, stored),
            None => {
                let problem = "does not lie within the file".to_owned();
                return Err(TensorFileError::Tensor { file: path.to_owned(), tensor: name, problem });
            }
        };
    }
    Ok(tensors)
}

/// What the header of a file says beside its tensors, by key.
pub fn metadata(path: &Path) -> Result<BTreeMap<String, String>, TensorFileError> {
    let (_, metadata, _) = open(path)?;
    let stated = metadata.metadata().iter().flatten();
    Ok(stated.map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// A file with its header, and where its data begin.
fn open(path: &Path) -> Result<(Arc<MappedFile>, Metadata, usize), TensorFileError> {
    let something_else = |found| TensorFileError::Found { file: path.to_owned(), found };
    let file = MappedFile::open(path).map_err(|source| match Found::dangling_link(path) {
        Some(found) => something_else(found),
        None => TensorFileError::Read { file: path.to_owned(), source },
    })?;
    let length_error = |what, expected, found| {
        Err(TensorFileError::Length { file: path.to_owned(), what, expected, found: found as u64 })
    };
    let bytes = file.bytes();
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return length_error("the length of the header", LENGTH_BYTES as u64, bytes.len());
    };
    let header_bytes = u64::from_le_bytes(*length);
    if header_bytes > MAX_HEADER_BYTES {
        if let Some(found) = Found::by_bytes(&bytes[..bytes.len().min(SNIFFED_BYTES)]) {
            return Err(something_else(found));
        }
        let problem = format!("its length is {header_bytes}, expected at most {MAX_HEADER_BYTES}");
        return Err(TensorFileError::Header { file: path.to_owned(), problem });
    }
    let Some((header, data)) = rest.split_at_checked(header_bytes as usize) else {
        return length_error("the header", header_bytes, rest.len());
    };
    let metadata: Metadata = serde_json::from_slice(header).map_err(|error| refused(path, header, &error))?;
    if metadata.data_len() != data.len() {
        return length_error("the data of all tensors", metadata.data_len() as u64, data.len());
    }
    let start = bytes.len() - data.len();
    Ok((file, metadata, start))
}

/// The error for a header that the safetensors crate rejects, with the tensor at fault where there is one.
fn refused(path: &Path, header: &[u8], error: &serde_json::Error) -> TensorFileError {
    let file = path.to_owned();
    match serde_json::from_slice::<BTreeMap<String, Value>>(header) {
        Err(error) => TensorFileError::Header { file, problem: format!("invalid JSON: {error}") },
        Ok(entries) => match blame(&entries) {
            Some((tensor, problem)) => TensorFileError::Tensor { file, tensor, problem },
            None => TensorFileError::Header { file, problem: error.to_string() },
        },
    }
}

/// The first tensor of a header that breaks the format, and how.
fn blame(entries: &BTreeMap<String, Value>) -> Option<(String, String)> {
    let mut ranges = Vec::new();
    for (name, entry) in entries.iter().filter(|(name, _)| *name != "__metadata__") {
        let info: TensorInfo = match TensorInfo::deserialize(entry) {
            Ok(info) => info,
            Err(error) => return Some((name.clone(), format!("has an invalid description: {error}"))),
        };
        let (from, to) = info.data_offsets;
        let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |bits, &dimension| bits.checked_mul(dimension));
        let stored = to.checked_sub(from);
        match (bits, stored) {
            (Some(bits), Some(stored)) if bits == stored.saturating_mul(8) => ranges.push((from, to, name)),
            (Some(bits), Some(stored)) => {
                let problem =
                    format!("of {} {:?} takes {} bytes, got {stored}", info.dtype, info.shape, bits.div_ceil(8));
                return Some((name.clone(), problem));
            }
            (None, _) => return Some((name.clone(), format!("has the impossible shape {:?}", info.shape))),
            (_, None) => return Some((name.clone(), format!("ends at {to}, before its start at {from}"))),
        }
    }
    ranges.sort();
    let mut end = 0;
    for (from, to, name) in ranges {
        if from != end {
            return Some((name.clone(), format!("starts at byte {from}, expected {end}")));
        }
        end = to;
    }
    None
}

/// A tensor to write: its description, and a closure that gives its bytes.
pub struct NewTensor<'a> {
    /// Name in the file.
    pub name: String,
    /// Format of the values.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// The bytes, little-endian and row-major; called once.
    pub bytes: Box<dyn Fn() -> Cow<'a, [u8]> + 'a>,
}

/// Writes a file with these tensors, one in memory at a time. The bytes depend on the tensors only, not on their order.
/// The file is not atomic by itself: `path` is in a [`super::atomic::NewDirectory`].
#[expect(clippy::disallowed_methods, reason = "the directory it is in is put in place whole")]
pub fn write(path: &Path, mut tensors: Vec<NewTensor<'_>>) -> Result<(), TensorFileError> {
    // Larger element types first, which keeps every tensor aligned to its element.
    tensors.sort_by(|a, b| b.dtype.bitsize().cmp(&a.dtype.bitsize()).then_with(|| a.name.cmp(&b.name)));
    let invalid = |problem: String| TensorFileError::Header { file: path.to_owned(), problem };
    let mut offset = 0;
    let mut infos = Vec::with_capacity(tensors.len());
    for tensor in &tensors {
        let bytes = tensor.shape.iter().product::<usize>() * tensor.dtype.bitsize() / 8;
        let data_offsets = (offset, offset + bytes);
        infos
            .push((tensor.name.clone(), TensorInfo { dtype: tensor.dtype, shape: tensor.shape.clone(), data_offsets }));
        offset += bytes;
    }
    // transformers refuses a file that does not name the framework whose layout it uses.
    let origin = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(origin), infos).map_err(|error| invalid(error.to_string()))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| invalid(error.to_string()))?;
    header.resize(header.len().next_multiple_of(LENGTH_BYTES), b' ');

    let written = || -> std::io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for tensor in &tensors {
            out.write_all(&(tensor.bytes)())?;
        }
        out.into_inner()?.sync_all()
    };
    written().map_err(|source| TensorFileError::Write { file: path.to_owned(), source })
}
