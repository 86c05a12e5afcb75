//! The tensors of a model directory: model.safetensors, or the shards that model.safetensors.index.json lists, as one
//! table by name. Only headers are read. Where both exist the single file counts, as in transformers.

use super::error::ModelFormatError;
use super::found::{check_link, no_weights};
use super::hugging_face::{INDEX_FILE, WEIGHTS_FILE};
use crate::disk::tensor_file::{self, StoredTensor};
use crate::disk::{Config, DenseTensor, DenseType};
use crate::model::matrix::from_rows;
use ndarray::Array2;
use safetensors::Dtype;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// Tensors by name.
pub type Tensors = BTreeMap<String, StoredTensor>;

/// The tensors of a model directory, by the names its files spell.
#[derive(Debug)]
pub struct StoredTensors {
    path: PathBuf,
    tensors: Tensors,
}

impl StoredTensors {
    /// Reads all headers, and checks that shards and index agree. Takes no longer for large weights than for small ones.
    pub fn open(path: &Path) -> Result<Self, ModelFormatError> {
        let (single, index) = (path.join(WEIGHTS_FILE), path.join(INDEX_FILE));
        check_link(&single)?;
        check_link(&index)?;
        let tensors = if single.exists() {
            tensor_file::read(&single)?
        } else if index.exists() {
            open_shards(path, &index)?
        } else {
            let path = path.to_owned();
            return Err(match no_weights(&path) {
                Some(problem) => ModelFormatError::NotAModel { path, problem },
                None => ModelFormatError::NoWeights { path },
            });
        };
        Ok(StoredTensors { path: path.to_owned(), tensors })
    }

    /// The same tensors by other names.
    pub fn renamed<N>(self, rename: impl FnOnce(Tensors) -> (Tensors, N)) -> (Self, N) {
        let (tensors, note) = rename(self.tensors);
        (StoredTensors { path: self.path, tensors }, note)
    }

    /// The same directory with a table that is made of its own.
    pub fn converted<N, E>(self, convert: impl FnOnce(Tensors) -> Result<(Tensors, N), E>) -> Result<(Self, N), E> {
        let (tensors, note) = convert(self.tensors)?;
        Ok((StoredTensors { path: self.path, tensors }, note))
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
    pub fn tensor(&self, name: &str) -> Result<&StoredTensor, ModelFormatError> {
        let absent = || ModelFormatError::Absent { path: self.path.clone(), tensor: name.to_owned() };
        self.tensors.get(name).ok_or_else(absent)
    }

    /// One floating-point tensor.
    pub fn dense(&self, name: &str) -> Result<DenseTensor, ModelFormatError> {
        let stored = self.tensor(name)?;
        let dtype = match stored.dtype {
            Dtype::F32 => DenseType::F32,
            Dtype::F16 => DenseType::F16,
            Dtype::BF16 => DenseType::Bf16,
            _ => return Err(self.data_type(name, stored, "F32, F16 or BF16".to_owned())),
        };
        Ok(DenseTensor::stored(name, stored.shape.clone(), dtype, stored.bytes.clone()))
    }

    /// One tensor of signed bytes, in rows of its last dimension.
    pub fn signed_bytes(&self, name: &str) -> Result<Array2<i8>, ModelFormatError> {
        let stored = self.expect_type(name, Dtype::I8)?;
        let values = stored.bytes.as_slice().iter().map(|byte| byte.cast_signed()).collect();
        Ok(from_rows(values, stored.shape.last().copied().unwrap_or(1)))
    }

    /// One tensor, which must have this data type.
    pub fn expect_type(&self, name: &str, dtype: Dtype) -> Result<&StoredTensor, ModelFormatError> {
        let stored = self.tensor(name)?;
        if stored.dtype == dtype { Ok(stored) } else { Err(self.data_type(name, stored, dtype.to_string())) }
    }

    /// Refuses a tensor of another shape.
    pub fn check_shape(&self, name: &str, expected: &[usize]) -> Result<(), ModelFormatError> {
        let tensor = self.tensor(name)?;
        if tensor.shape == expected {
            return Ok(());
        }
        Err(ModelFormatError::Shape {
            file: tensor.file.clone(),
            tensor: name.to_owned(),
            expected: expected.to_vec(),
            found: tensor.shape.clone(),
        })
    }

    fn data_type(&self, name: &str, stored: &StoredTensor, expected: String) -> ModelFormatError {
        ModelFormatError::DataType {
            file: stored.file.clone(),
            tensor: name.to_owned(),
            found: stored.dtype.to_string(),
            expected,
        }
    }
}

/// Reads the shards of an index; the table is exactly its weight_map.
fn open_shards(path: &Path, index: &Path) -> Result<BTreeMap<String, StoredTensor>, ModelFormatError> {
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
            return Err(ModelFormatError::ShardName { index: index.to_owned(), tensor, shard });
        }
        places.insert(tensor.clone(), shard.clone());
        shards.entry(shard.clone()).or_insert_with(|| tensor.clone());
    }
    let mut files = BTreeMap::new();
    for (shard, tensor) in shards {
        let file = path.join(&shard);
        check_link(&file)?;
        if !file.exists() {
            return Err(ModelFormatError::MissingShard { index: index.to_owned(), shard, tensor });
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
            return Err(ModelFormatError::WrongShard { index: index.to_owned(), tensor, shard, found });
        }
    }
    let listed: BTreeSet<(&String, &String)> = places.iter().collect();
    for (shard, tensors) in &files {
        if let Some(tensor) = tensors.keys().find(|tensor| !listed.contains(&(*tensor, shard))) {
            let (tensor, shard) = (tensor.clone(), shard.clone());
            return Err(ModelFormatError::Unlisted { index: index.to_owned(), tensor, shard });
        }
    }
    Ok(files.into_values().flatten().collect())
}
