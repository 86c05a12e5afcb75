//! The tensors of a model directory: model.safetensors, or the shards that model.safetensors.index.json lists, as one
//! table by name. Only headers are read. Where both exist the single file counts, as in transformers.

use super::config::{Config, ConfigError};
use super::tensor::{DenseTensor, DenseType};
use super::tensor_file::{self, StoredTensor, TensorFileError};
use super::{INDEX_FILE, WEIGHTS_FILE};
use safetensors::Dtype;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// Why the tensors of a directory are refused.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// No weights in a format slmc reads.
    #[error("{}: neither model.safetensors nor model.safetensors.index.json is there; save the model with transformers as safetensors", path.display())]
    NoWeights {
        /// The directory.
        path: PathBuf,
    },
    /// A safetensors file is refused.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// The index is refused.
    #[error(transparent)]
    Index(#[from] ConfigError),
    /// The index names a shard outside the directory.
    #[error("{}: tensor `{tensor}` is in shard `{shard}`, expected a plain file name in the same directory", index.display())]
    ShardName {
        /// The index.
        index: PathBuf,
        /// The tensor.
        tensor: String,
        /// What the index says.
        shard: String,
    },
    /// The index names a shard that is not there.
    #[error("{}: shard `{shard}`, which holds `{tensor}`, is missing; fetch it", index.display())]
    MissingShard {
        /// The index.
        index: PathBuf,
        /// The shard.
        shard: String,
        /// The first tensor the index puts there.
        tensor: String,
    },
    /// A tensor is not in the shard the index names.
    #[error("{}: tensor `{tensor}` is expected in shard `{shard}`, got {found}; index and shards do not belong together, fetch both again", index.display())]
    WrongShard {
        /// The index.
        index: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shard the index names.
        shard: String,
        /// Where it is instead.
        found: String,
    },
    /// A shard holds a tensor of which the index knows nothing.
    #[error("{}: tensor `{tensor}` of shard `{shard}` is not in weight_map; index and shards do not belong together, fetch both again", index.display())]
    Unlisted {
        /// The index.
        index: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shard.
        shard: String,
    },
    /// A tensor is not there.
    #[error("{}: tensor `{tensor}` is missing", path.display())]
    Absent {
        /// The directory.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has a data type that its use does not allow.
    #[error("{}: tensor `{tensor}` has data type {found}, expected {expected}; save the model in that type", file.display())]
    DataType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What the file says.
        found: String,
        /// What is accepted.
        expected: String,
    },
}

/// The tensors of a model directory, by the names its files spell.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    tensors: BTreeMap<String, StoredTensor>,
}

impl Directory {
    /// Reads all headers, and checks that shards and index agree. Takes no longer for large weights than for small ones.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let (single, index) = (path.join(WEIGHTS_FILE), path.join(INDEX_FILE));
        let tensors = if single.exists() {
            tensor_file::read(&single)?
        } else if index.exists() {
            open_shards(path, &index)?
        } else {
            return Err(DirectoryError::NoWeights { path: path.to_owned() });
        };
        Ok(Directory { path: path.to_owned(), tensors })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor, sorted by name.
    pub fn tensors(&self) -> &BTreeMap<String, StoredTensor> {
        &self.tensors
    }

    /// One tensor of any type.
    pub fn tensor(&self, name: &str) -> Result<&StoredTensor, DirectoryError> {
        let absent = || DirectoryError::Absent { path: self.path.clone(), tensor: name.to_owned() };
        self.tensors.get(name).ok_or_else(absent)
    }

    /// One floating-point tensor.
    pub fn dense(&self, name: &str) -> Result<DenseTensor, DirectoryError> {
        let stored = self.tensor(name)?;
        let dtype = match stored.dtype {
            Dtype::F32 => DenseType::F32,
            Dtype::F16 => DenseType::F16,
            Dtype::BF16 => DenseType::Bf16,
            _ => return Err(self.data_type(name, stored, "F32, F16 or BF16".to_owned())),
        };
        Ok(DenseTensor::stored(name, stored.shape.clone(), dtype, stored.bytes.clone()))
    }

    /// One tensor of signed bytes.
    pub fn signed_bytes(&self, name: &str) -> Result<Vec<i8>, DirectoryError> {
        let stored = self.expect_type(name, Dtype::I8)?;
        Ok(stored.bytes.as_slice().iter().map(|byte| byte.cast_signed()).collect())
    }

    /// One tensor, which must have this data type.
    pub fn expect_type(&self, name: &str, dtype: Dtype) -> Result<&StoredTensor, DirectoryError> {
        let stored = self.tensor(name)?;
        if stored.dtype == dtype { Ok(stored) } else { Err(self.data_type(name, stored, dtype.to_string())) }
    }

    fn data_type(&self, name: &str, stored: &StoredTensor, expected: String) -> DirectoryError {
        DirectoryError::DataType {
            file: stored.file.clone(),
            tensor: name.to_owned(),
            found: stored.dtype.to_string(),
            expected,
        }
    }
}

/// Reads the shards of an index; the table is exactly its weight_map.
fn open_shards(path: &Path, index: &Path) -> Result<BTreeMap<String, StoredTensor>, DirectoryError> {
    let config = Config::read(index)?;
    let expected = "an object from tensor names to shard files";
    let map = config.section("weight_map")?.ok_or_else(|| config.missing("weight_map", expected))?;
    let mut places = BTreeMap::new();
    let mut shards = BTreeMap::new();
    for (tensor, shard) in map.map() {
        let Value::String(shard) = shard else { return Err(map.wrong(tensor, "the file name of a shard").into()) };
        let mut components = Path::new(shard).components();
        if !matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) {
            let (tensor, shard) = (tensor.clone(), shard.clone());
            return Err(DirectoryError::ShardName { index: index.to_owned(), tensor, shard });
        }
        places.insert(tensor.clone(), shard.clone());
        shards.entry(shard.clone()).or_insert_with(|| tensor.clone());
    }
    let mut files = BTreeMap::new();
    for (shard, tensor) in shards {
        let file = path.join(&shard);
        if !file.exists() {
            return Err(DirectoryError::MissingShard { index: index.to_owned(), shard, tensor });
        }
        files.insert(shard, tensor_file::read(&file)?);
    }
    for (tensor, shard) in &places {
        if !files[shard].contains_key(tensor) {
            let found = match files.iter().find(|(_, tensors)| tensors.contains_key(tensor)) {
                Some((other, _)) => format!("it in `{other}`"),
                None => "it in no shard".to_owned(),
            };
            let (tensor, shard) = (tensor.clone(), shard.clone());
            return Err(DirectoryError::WrongShard { index: index.to_owned(), tensor, shard, found });
        }
    }
    let listed: BTreeSet<(&String, &String)> = places.iter().collect();
    for (shard, tensors) in &files {
        if let Some(tensor) = tensors.keys().find(|tensor| !listed.contains(&(*tensor, shard))) {
            let (tensor, shard) = (tensor.clone(), shard.clone());
            return Err(DirectoryError::Unlisted { index: index.to_owned(), tensor, shard });
        }
    }
    Ok(files.into_values().flatten().collect())
}
