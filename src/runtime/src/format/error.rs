//! Why an artifact is rejected, down to the section, record or tensor at fault. Plain data: the reader does not
//! allocate.

use super::header::{self, SectionKind};
use super::tensor::TensorKey;

/// The fixed record that holds a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// The header page.
    Header,
    /// The model record.
    Model,
    /// The record of a layer.
    Layer(u32),
}

impl core::fmt::Display for Record {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Record::Header => f.write_str("header"),
            Record::Model => f.write_str("specification"),
            Record::Layer(layer) => write!(f, "specification of layer {layer}"),
        }
    }
}

/// Why an artifact is rejected. Every variant names the part at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// Shorter than the header, or not the length the header states.
    Length {
        /// Bytes the header states (or the header's own size).
        expected: u64,
        /// Bytes given.
        actual: u64,
    },
    /// The first bytes are not the magic of an artifact.
    NotAnArtifact,
    /// Written by a later, incompatible version.
    MajorVersion(u16),
    /// A header field has an unknown value.
    Header(&'static str),
    /// A field has a value that only a later version of the format defines.
    LaterVersion(Record, &'static str),
    /// What the artifact says needs a feature of the runtime that this build lacks.
    Feature(&'static str),
    /// The weights are in cipher, and nothing can be computed with them.
    #[cfg(feature = "seal")]
    Sealed,
    /// Weights are in slow storage, and what was asked for needs them in memory.
    #[cfg(feature = "streaming")]
    Streamed,
    /// A section is missing, misplaced or overlaps.
    Section(u32, &'static str),
    /// A field of the specification is out of range.
    Spec(&'static str),
    /// A field of a layer is out of range.
    Layer(u32, &'static str),
    /// A record of the tensor table is invalid.
    Tensor(u32, &'static str),
    /// The specification needs a tensor that the table lacks.
    MissingTensor(TensorKey),
    /// A tensor's shape differs from the one the specification implies.
    TensorShape(TensorKey),
    /// The functions section is invalid.
    Functions(&'static str),
    /// The vocabulary section is invalid.
    Vocabulary(&'static str),
    /// The text section is invalid.
    Text(&'static str),
    /// The golden vectors are invalid.
    Golden(&'static str),
    /// Bytes between sections are not zero.
    Padding(u64),
    /// A digest does not match: the file was changed or damaged.
    Digest(&'static str),
    /// A tensor's digest does not match.
    TensorDigest(TensorKey),
}

impl core::fmt::Display for FormatError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use FormatError as E;
        match self {
            E::Length { actual: 0, .. } => f.write_str("the file is empty"),
            E::Length { expected, actual } => {
                write!(f, "expected {expected} bytes, got {actual}: the file is cut short or has something appended")
            }
            E::NotAnArtifact => f.write_str("not a .slm artifact: the first bytes are not its magic"),
            E::MajorVersion(version) => {
                write!(f, "format version {version} is not the one this reader knows ({})", header::MAJOR)
            }
            E::Header(field) => write!(f, "header: unknown or illegal value of `{field}`"),
            E::LaterVersion(record, field) => {
                write!(f, "{record}: `{field}` has a value of a later version of the format: ")?;
                f.write_str("a newer slmc or slm-runtime is needed")
            }
            E::Feature(name) => write!(f, "the artifact needs the runtime's feature `{name}`, which this build lacks"),
            #[cfg(feature = "seal")]
            E::Sealed => f.write_str(
                "the weights are sealed: they run only once a device's key has opened them, as `slmc unseal` does",
            ),
            #[cfg(feature = "streaming")]
            E::Streamed => f.write_str("the weights are not in memory: a session of a reader streams them"),
            E::Section(kind, fault) => write!(f, "section {kind:#x}: {fault}"),
            E::Spec(field) => write!(f, "specification: illegal value of `{field}`"),
            E::Layer(layer, field) => write!(f, "specification of layer {layer}: illegal value of `{field}`"),
            E::Tensor(index, fault) => write!(f, "tensor table, record {index}: {fault}"),
            E::MissingTensor(key) => write!(f, "tensor {key} is missing"),
            E::TensorShape(key) => write!(f, "tensor {key} does not have the shape the specification implies"),
            E::Functions(fault) => write!(f, "function tables: {fault}"),
            E::Vocabulary(fault) => write!(f, "vocabulary: {fault}"),
            E::Text(fault) => write!(f, "text section: {fault}"),
            E::Golden(fault) => write!(f, "golden vectors: {fault}"),
            E::Padding(offset) => write!(f, "padding at byte {offset} is not zero"),
            E::Digest(part) => write!(f, "digest of the {part} does not match: the file was changed or damaged"),
            E::TensorDigest(key) => {
                write!(f, "digest of tensor {key} does not match: the file was changed or damaged")
            }
        }
    }
}

impl core::error::Error for FormatError {}

impl FormatError {
    /// A fault of a known section.
    pub(crate) fn section(kind: SectionKind, fault: &'static str) -> Self {
        FormatError::Section(kind as u32, fault)
    }
}
