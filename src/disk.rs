//! Directories as they are on disk: config.json, safetensors files and their shards, hashes, and writes that are all or
//! nothing. Knows tensors by the names the files spell; what they mean is the business of `model`.

pub mod atomic;
pub mod config;
mod convert;
pub mod directory;
pub mod hash;
pub mod mmap;
pub mod schema;
pub mod tensor;
pub mod tensor_file;

pub use config::{Config, ConfigError};
pub use directory::{Directory, DirectoryError};
pub use tensor::{DenseTensor, DenseType, TensorError};

/// File with the configuration of a model.
pub const CONFIG_FILE: &str = "config.json";
/// File with all tensors.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// File that says which shard holds which tensor, where the weights are split.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// File by which slmc recognises a directory that it made: the provenance.
pub const PROVENANCE_FILE: &str = "slmc.json";
/// Folder that travels with a model unchanged, where present: chat templates by name.
pub const COMPANION_FOLDER: &str = "additional_chat_templates";
/// Files that travel with a model unchanged, where present.
pub const COMPANION_FILES: [&str; 11] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];
