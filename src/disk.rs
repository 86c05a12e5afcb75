//! Files on disk: JSON objects, safetensors files, hashes, and atomic writes. `formats` knows which files make up a
//! model, `model` knows the meaning of the tensors.

pub mod atomic;
pub mod config;
mod convert;
pub mod deferred;
pub mod found;
pub mod hash;
pub mod mmap;
pub mod schema;
pub mod tensor;
pub mod tensor_file;

pub use config::{Config, ConfigError};
pub use found::Found;
pub use tensor::{DenseTensor, DenseType, SharedBytes, TensorError};

/// The provenance file, by which slmc recognises its own output directories.
pub const PROVENANCE_FILE: &str = "slmc.json";
