//! Why a model cannot be opened, read or written, in any format. Every message names the file, the tensor or the key, the
//! value found and the one expected, and the remedy.

use super::adapter::error::AdapterError;
use super::export::ExportError;
use super::found::NotAModel;
use super::gguf::GgufError;
use super::onnx::OnnxError;
use super::packed::error::PackedError;
use crate::disk::atomic::AtomicError;
use crate::disk::tensor_file::TensorFileError;
use crate::disk::{ConfigError, DenseType, TensorError};
use crate::model::id::ParameterId;
use crate::model::quantized::QuantizedError;
use crate::model::weights::ModelError;
use std::path::PathBuf;

/// Why a model cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum ModelFormatError {
    /// The path that should hold a model is something else.
    #[error("{}: {problem}", path.display())]
    NotAModel {
        /// The path that was passed.
        path: PathBuf,
        /// What it is.
        problem: NotAModel,
    },
    /// Another tool's quantization, or an adapter.
    #[error("{}: the weights are {kind} ({found}), which slmc does not read; pass the model they were made from, or load them with transformers, call `dequantize()` where the method has it, and save that with `save_pretrained`", path.display())]
    Foreign {
        /// Where it is said, or the directory.
        path: PathBuf,
        /// What they are.
        kind: String,
        /// By what that is told.
        found: String,
    },
    /// Packed weights whose configuration does not say how.
    #[error("{}: the weights are {kind} ({found}), and config.json has no `quantization_config` that says how; fetch the config.json that belongs to them", path.display())]
    Unstated {
        /// The directory.
        path: PathBuf,
        /// What they are.
        kind: String,
        /// By what that is told.
        found: String,
    },
    /// An adapter is refused.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// A format does not hold the model.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// Packed weights of another tool are refused.
    #[error(transparent)]
    Packed(#[from] PackedError),
    /// The configuration, the index or slmc.json is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A GGUF file is refused.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// An ONNX model of slmc's is refused.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// A weight file is refused, or could not be written.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// Values are refused.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// Quantized values are refused.
    #[error(transparent)]
    Quantized(#[from] QuantizedError),
    /// The model in memory does not have it, or has it in another form.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The output path is refused, or the file system failed.
    #[error(transparent)]
    Output(#[from] AtomicError),
    /// No weights in a format slmc reads.
    #[error("{}: neither model.safetensors nor model.safetensors.index.json is there; save the model with transformers as safetensors", path.display())]
    NoWeights {
        /// The directory.
        path: PathBuf,
    },
    /// The index names a shard outside the directory.
    #[error("{}: tensor `{tensor}` is in shard `{shard}`, expected a plain file name in the same directory", index.display())]
    ShardName {
        /// The index.
        index: PathBuf,
        /// The tensor.
        tensor: String,
        /// The name in the index.
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
        /// The type in the file.
        found: String,
        /// The types that are accepted.
        expected: String,
    },
    /// A file that travels with the model could not be copied.
    #[error("{}: cannot be copied to the output; check that it can be read, and the free space of the output", file.display())]
    Companion {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A tensor the configuration calls for is not there.
    #[error("{}: tensor `{tensor}` is missing, expected shape {expected:?} by config.json; {}", path.display(), instead(tensor, others))]
    Missing {
        /// The directory.
        path: PathBuf,
        /// As the files would spell it.
        tensor: String,
        /// Its shape by the configuration.
        expected: Vec<usize>,
        /// Tensors that are there and have no place.
        others: Vec<String>,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{}: tensor `{tensor}` has shape {found:?}, expected {expected:?} by config.json; the two do not belong together", file.display())]
    Shape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// By the configuration.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A tensor has no place in the model.
    #[error("{}: tensor `{tensor}` has no place in {family} with this config.json; slmc drops nothing silently: correct the configuration or remove the tensor", file.display())]
    Extra {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The family.
        family: &'static str,
    },
    /// A tied tensor is stored a second time with other values.
    #[error("{}: tensor `{tensor}` differs from `{original}`, which config.json ties it to; set tie_word_embeddings to false or remove the tensor", file.display())]
    Untied {
        /// The file.
        file: PathBuf,
        /// The second copy.
        tensor: String,
        /// The parameter.
        original: String,
    },
    /// A parameter the specification calls for is absent from the model in memory.
    #[error("parameter `{0}` is missing from the model to write")]
    MissingParameter(ParameterId),
    /// A parameter that no checkpoint of the family has.
    #[error("`{id}` has no place in a checkpoint of {family}; write the model as a quantized directory")]
    NoName {
        /// The parameter.
        id: ParameterId,
        /// The family.
        family: &'static str,
    },
    /// A value is beyond the numbers of the data type that is asked for.
    #[error("`{id}` has the value {value}, which is beyond the numbers of {dtype}; write the model as bf16 or f32")]
    TooLarge {
        /// The parameter.
        id: ParameterId,
        /// The value.
        value: f32,
        /// The data type.
        dtype: DenseType,
    },
    /// A model without integers is not a quantized model.
    #[error("no matrix is quantized; write the model as a dense directory")]
    NothingQuantized,
}

/// What may be wrong where a tensor is missing, by those that have no place.
fn instead(tensor: &str, others: &[String]) -> String {
    match others {
        [] if tensor == "lm_head.weight" => {
            "the checkpoint is incomplete, or its head is the token table: then set tie_word_embeddings to true"
                .to_owned()
        }
        [] => "the checkpoint is incomplete, or its configuration is another model's".to_owned(),
        [only] => {
            format!("tensor `{only}` is there and has no place: its name, or the configuration, is another model's")
        }
        [first, rest @ ..] => format!(
            "tensor `{first}` and {} others are there and have no place: their names, or the configuration, are another model's",
            rest.len()
        ),
    }
}
