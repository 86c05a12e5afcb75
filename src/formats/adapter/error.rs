//! Why an adapter cannot be merged: the file and the tensor or key, what was found, what was expected and what to do.

use crate::model::id::ParameterId;
use std::path::PathBuf;

/// Why an adapter cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The base is not at hand.
    #[error("{}: holds an adapter{}, and the model it changes is not there; pass that model with --base DIR", path.display(), of(base.as_ref()))]
    NoBase {
        /// The adapter.
        path: PathBuf,
        /// The base by the adapter's own word.
        base: Option<String>,
    },
    /// A base, and nothing that stands on it.
    #[error("--base {} names the model that an adapter changes, and {}; leave it out, or pass the directory of an adapter", base.display(), none(models))]
    NoAdapter {
        /// The base.
        base: PathBuf,
        /// What is read.
        models: Vec<PathBuf>,
    },
    /// Its weights are not in a format that is read.
    #[error("{}: adapter_model.safetensors is not there{}; load the adapter with PEFT and save it with `save_pretrained`", path.display(), if *pickled { ", but adapter_model.bin, which can run code when it is read" } else { "" })]
    NoWeights {
        /// The adapter.
        path: PathBuf,
        /// Whether the older form is there.
        pickled: bool,
    },
    /// It is something else, or nothing.
    #[error("{}: holds no adapter_config.json; pass the directory of an adapter as PEFT saves it", path.display())]
    NotAnAdapter {
        /// The path.
        path: PathBuf,
    },
    /// It has no tensors.
    #[error("{}: holds no tensor, so that the adapter changes nothing; it is incomplete, fetch it again", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
    /// A tensor that the base has no place for.
    #[error("{}: tensor `{tensor}` has no place in the base {}{}; it was trained on another model: pass that one with --base DIR", file.display(), base.display(), near(nearest.as_ref()))]
    NoPlace {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The base.
        base: PathBuf,
        /// A module of the base with a like name.
        nearest: Option<String>,
    },
    /// A module of the base that files hold in another order than slmc, or without a factor.
    #[error("{}: changes `{module}`, which slmc holds in another order than the files of {family}, or with a factor that they keep apart; merge it with PEFT's `merge_and_unload` and pass the result", file.display())]
    Rearranged {
        /// The file.
        file: PathBuf,
        /// The module.
        module: String,
        /// The family of the base.
        family: &'static str,
    },
    /// A matrix with a trained adapter that cannot be written in the files' order.
    #[error(
        "an adapter of `{module}` cannot be written: slmc holds it in another order than the files of {family}, or with a factor that they keep apart; write the merged model with --lora-output merged"
    )]
    Unwritten {
        /// The module.
        module: String,
        /// The family of the base.
        family: &'static str,
    },
    /// A tensor whose name says nothing that is known.
    #[error("{}: tensor `{tensor}` is no part of a LoRA adapter that slmc knows; merge it with PEFT's `merge_and_unload` and pass the result", file.display())]
    Unknown {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// Two tensors belong together and one is not there.
    #[error("{}: tensor `{tensor}` is missing, which belongs to `{beside}`; the adapter is incomplete, fetch it again", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The one that is there.
        beside: String,
    },
    /// A module that the configuration names has no tensors.
    #[error("{}: `{key}` names `{module}`, and {} has no tensor of such a module; the adapter is incomplete, fetch it again", file.display(), weights.display())]
    Untrained {
        /// The configuration.
        file: PathBuf,
        /// The key.
        key: &'static str,
        /// The module.
        module: String,
        /// The file of the weights.
        weights: PathBuf,
    },
    /// A tensor of another shape than the base or the configuration gives it.
    #[error("{}: tensor `{tensor}` has shape {found:?}, expected {expected}; the adapter was trained on another model or with another configuration: pass the base it belongs to with --base DIR", file.display())]
    Shape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// By base and configuration.
        expected: String,
    },
    /// A table changes its number of rows and another tensor that has as many does not.
    #[error("{}: the adapter changes the number of tokens, so that `{parameter}` needs shape {expected:?}, and the base's has {found:?}; save the adapter with `save_embedding_layers=True`", file.display())]
    Rows {
        /// The file.
        file: PathBuf,
        /// The parameter.
        parameter: ParameterId,
        /// The shape in the base.
        found: Vec<usize>,
        /// By the adapter's table.
        expected: Vec<usize>,
    },
    /// An index of a token outside of the table.
    #[error("{}: token {index} is beyond the {rows} rows of the table `{tensor}`; the adapter was trained on another model: pass that one with --base DIR", file.display())]
    Token {
        /// The configuration.
        file: PathBuf,
        /// The table.
        tensor: String,
        /// The token.
        index: u64,
        /// Rows of the table.
        rows: usize,
    },
    /// The adapter's tokenizer has tokens without a row.
    #[error("{}: token {id} `{token}` has no row in the table of {rows}, nor does the adapter bring one; save it again with `save_embedding_layers=True`", file.display())]
    NoRow {
        /// The tokenizer.
        file: PathBuf,
        /// The token.
        id: u64,
        /// Its spelling.
        token: String,
        /// Rows of the table.
        rows: usize,
    },
    /// Something of an adapter cannot be done with a weight, or after another adapter.
    #[error("{}: tensor `{tensor}` replaces a whole tensor of the base, {problem}", file.display())]
    Replaced {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Why that is not possible.
        problem: &'static str,
    },
    /// A pattern of the configuration.
    #[error("{}: `{key}`: the pattern `{pattern}` is not a regular expression that slmc can read; write the names of modules in its place", file.display())]
    Pattern {
        /// The configuration.
        file: PathBuf,
        /// The key.
        key: &'static str,
        /// The pattern.
        pattern: String,
    },
    /// The base holds integers of slmc's.
    #[error("{}: `{tensor}` is quantized by slmc; merge adapters into the model it was made from, then quantize", base.display())]
    Quantized {
        /// The base.
        base: PathBuf,
        /// The matrix.
        tensor: String,
    },
}

fn none(models: &[PathBuf]) -> String {
    match models {
        [] => "no model is read here".to_owned(),
        [one] => format!("{} is not an adapter", one.display()),
        several => {
            let names: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
            format!("none of {} is an adapter", names.join(", "))
        }
    }
}

fn of(base: Option<&String>) -> String {
    base.map_or_else(String::new, |base| format!(" of `{base}`"))
}

fn near(module: Option<&String>) -> String {
    module.map_or_else(String::new, |module| format!(", whose modules have names like `{module}`"))
}
