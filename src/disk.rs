//! Files as they are on disk: JSON objects, safetensors files, hashes, and writes that are all or nothing. Which files make
//! a model is the business of `formats`, what its tensors mean that of `model`.

pub mod atomic;
pub mod config;
mod convert;
pub mod found;
pub mod hash;
pub mod mmap;
pub mod schema;
pub mod tensor;
pub mod tensor_file;

pub use config::{Config, ConfigError};
pub use found::Found;
pub use tensor::{DenseTensor, DenseType, TensorError};

/// File by which slmc recognises a directory that it made: the provenance.
pub const PROVENANCE_FILE: &str = "slmc.json";
