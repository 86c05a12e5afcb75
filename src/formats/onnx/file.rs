//! The file of a graph: its messages, then its tensors, written one by one. Tensors are in the file itself, or in one beside
//! it:
//!
//! ```text
//! model.onnx        ModelProto without graph; 7: GraphProto without initializers, then 5: TensorProto for each initializer
//! model.onnx.data   the tensors of 1024 bytes and more, each at a multiple of 4096; zeros between them
//! ```
//!
//! A message may not be longer than 2 GiB. A file of its own lets a program map the weights instead of copying them.

use super::builder::{GraphBuilder, Initializer};
use super::messages::{
    EXTERNAL, GRAPH, GraphProto, INITIALIZER, ModelProto, RAW_DATA, StringStringEntryProto, TensorProto,
};
use crate::disk::tensor_file::TensorFileError;
use crate::formats::error::ModelFormatError;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// The graph.
pub(super) const MODEL_FILE: &str = "model.onnx";
/// Its tensors, where they are apart.
pub(super) const DATA_FILE: &str = "model.onnx.data";

/// Most bytes of tensors that are in the file of the graph unless they are wanted apart: half of what a message may have.
const MOST_INSIDE: usize = 1 << 30;
/// Tensors of fewer bytes stay in the graph: programs read shapes and axes before they look for other files.
const LEAST_APART: usize = 1024;
/// Every tensor apart begins at a multiple of this, so that it can be mapped.
const ALIGNMENT: u64 = 4096;

/// Writes a graph into a directory that nobody sees yet. `model` is everything but the graph.
pub(super) fn write(
    directory: &Path,
    model: &ModelProto,
    name: &str,
    graph: GraphBuilder<'_>,
    apart: bool,
) -> Result<(), ModelFormatError> {
    let GraphBuilder { nodes, initializers, inputs, outputs, .. } = graph;
    let whole: usize = initializers.iter().map(Initializer::bytes).sum();
    let apart = apart || whole > MOST_INSIDE;
    let graph =
        GraphProto { node: nodes, name: name.to_owned(), input: inputs, output: outputs, ..GraphProto::default() };
    let mut offset = 0;
    let headers: Vec<TensorProto> =
        initializers.iter().map(|initializer| header(initializer, apart, &mut offset)).collect();
    let mut file = Output::create(directory.join(MODEL_FILE))?;
    file.put(&model.encode_to_vec())?;
    let lengths: Vec<usize> =
        headers.iter().zip(&initializers).map(|(header, tensor)| length(header, tensor)).collect();
    let length: usize =
        graph.encoded_len() + lengths.iter().map(|&length| field_length(INITIALIZER, length)).sum::<usize>();
    file.field(GRAPH, length)?;
    file.put(&graph.encode_to_vec())?;
    for ((header, tensor), length) in headers.iter().zip(&initializers).zip(lengths) {
        file.field(INITIALIZER, length)?;
        file.put(&header.encode_to_vec())?;
        if !is_apart(header) {
            file.field(RAW_DATA, tensor.bytes())?;
            file.tensor(tensor)?;
        }
    }
    file.finish()?;
    if headers.iter().any(is_apart) {
        let mut file = Output::create(directory.join(DATA_FILE))?;
        for (header, tensor) in headers.iter().zip(&initializers).filter(|(header, _)| is_apart(header)) {
            debug_assert_eq!(header.name, tensor.name);
            file.pad(ALIGNMENT)?;
            file.tensor(tensor)?;
        }
        file.finish()?;
    }
    Ok(())
}

fn is_apart(header: &TensorProto) -> bool {
    header.data_location == Some(EXTERNAL)
}

/// A tensor without its bytes; `offset` is the end of what is apart.
fn header(tensor: &Initializer<'_>, apart: bool, offset: &mut u64) -> TensorProto {
    let dims = tensor.shape.iter().map(|&size| size as i64).collect();
    let header =
        TensorProto { dims, data_type: tensor.data_type.number(), name: tensor.name.clone(), ..TensorProto::default() };
    if !apart || tensor.bytes() < LEAST_APART {
        return header;
    }
    *offset = offset.next_multiple_of(ALIGNMENT);
    let external_data = vec![
        StringStringEntryProto::new("location", DATA_FILE.to_owned()),
        StringStringEntryProto::new("offset", offset.to_string()),
        StringStringEntryProto::new("length", tensor.bytes().to_string()),
    ];
    *offset += tensor.bytes() as u64;
    TensorProto { external_data, data_location: Some(EXTERNAL), ..header }
}

/// Bytes of a tensor's message.
fn length(header: &TensorProto, tensor: &Initializer<'_>) -> usize {
    let inside = if is_apart(header) { 0 } else { field_length(RAW_DATA, tensor.bytes()) };
    header.encoded_len() + inside
}

/// Bytes of a field with so many bytes: its key takes one, as its number is below 16.
fn field_length(number: u32, length: usize) -> usize {
    debug_assert!(number < 16);
    1 + encoded_len_varint(length as u64) + length
}

/// A file that is written from its beginning to its end.
struct Output {
    path: PathBuf,
    file: BufWriter<File>,
    written: u64,
}

impl Output {
    #[expect(clippy::disallowed_methods, reason = "the directory it is in is put in place whole")]
    fn create(path: PathBuf) -> Result<Self, ModelFormatError> {
        let file = File::create(&path).map_err(|source| failed(&path, source))?;
        Ok(Output { path, file: BufWriter::with_capacity(1 << 20, file), written: 0 })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ModelFormatError> {
        self.written += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|source| failed(&self.path, source))
    }

    /// Key and length of a field with bytes.
    fn field(&mut self, number: u32, length: usize) -> Result<(), ModelFormatError> {
        let mut start = Vec::new();
        encode_key(number, WireType::LengthDelimited, &mut start);
        encode_varint(length as u64, &mut start);
        self.put(&start)
    }

    fn tensor(&mut self, tensor: &Initializer<'_>) -> Result<(), ModelFormatError> {
        let bytes = (tensor.make)()?;
        assert_eq!(bytes.len(), tensor.bytes(), "`{}` is made with the bytes of its shape", tensor.name);
        self.put(&bytes)
    }

    fn pad(&mut self, to: u64) -> Result<(), ModelFormatError> {
        let missing = self.written.next_multiple_of(to) - self.written;
        self.put(&vec![0; missing as usize])
    }

    fn finish(self) -> Result<(), ModelFormatError> {
        let synced = self.file.into_inner().map_err(|error| error.into_error()).and_then(|file| file.sync_all());
        synced.map_err(|source| failed(&self.path, source))
    }
}

fn failed(path: &Path, source: io::Error) -> ModelFormatError {
    TensorFileError::Write { file: path.to_owned(), source }.into()
}
