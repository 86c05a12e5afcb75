//! Files on disk: JSON objects, safetensors files, hashes, and atomic writes. `formats` knows which files make up a
//! model, `model` knows the meaning of the tensors.

pub mod atomic;
pub mod config;
mod convert;
pub mod deferred;
pub mod dense_type;
pub mod found;
pub mod hash;
pub mod mmap;
pub mod schema;
pub mod shared_bytes;
pub mod tensor;
pub mod tensor_file;

pub use config::{Config, ConfigError};
pub use dense_type::DenseType;
pub use found::Found;
pub use shared_bytes::SharedBytes;
pub use tensor::{DenseTensor, TensorError};

/// The provenance file, by which slmc recognises its own output directories.
pub const PROVENANCE_FILE: &str = "slmc.json";
