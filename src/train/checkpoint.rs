//! Resume state of a training run: trained values, both moments and the step, stored beside the output and replaced
//! atomically. A fingerprint of settings and inputs identifies the run it belongs to.

use super::optimizer::Moments;
use super::parameters::{Parameters, TrainedId};
use crate::disk::PROVENANCE_FILE;
use crate::disk::atomic::{self, AtomicError, NewDirectory};
use crate::disk::hash::{hex, sha256};
use crate::disk::tensor_file::{self, NewTensor, TensorFileError};
use safetensors::Dtype;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The checkpoint of another run.
    #[error(
        "{}: is the checkpoint of a run with other settings or inputs; repeat that run to finish it, or remove the \
         directory to start anew",
        path.display()
    )]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
    },
    /// It is damaged.
    #[error("{}: {fault}; remove the directory to start anew", path.display())]
    Damaged {
        /// The checkpoint.
        path: PathBuf,
        /// The fault.
        fault: String,
    },
    /// It cannot be written.
    #[error(transparent)]
    Output(#[from] AtomicError),
    /// Its tensors cannot be written or read.
    #[error(transparent)]
    Tensors(#[from] TensorFileError),
    /// Its state cannot be written.
    #[error("{}: cannot be written; check permissions and free space", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The state of a run after `step` steps.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// Trained values.
    pub parameters: Parameters,
    /// State of the optimizer.
    pub moments: Moments,
    /// One JSON line per step done.
    pub log: Vec<String>,
}

/// Path of the checkpoint of an output.
pub fn path_beside(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".checkpoint");
    out.with_file_name(name)
}

/// Removes the checkpoint of an output, if there is one.
pub fn forget(out: &Path) -> Result<(), AtomicError> {
    atomic::remove_directory(&path_beside(out))
}

/// SHA-256 over settings and inputs of a run.
pub fn fingerprint(run: &Value) -> String {
    hex(&sha256(run.to_string().as_bytes()))
}

const TENSORS: &str = "state.safetensors";
const LOG: &str = "log.jsonl";
const PARTS: [&str; 3] = ["value", "first_moment", "second_moment"];

/// Writes a checkpoint; the previous one stays until this one is complete.
pub fn save(path: &Path, fingerprint: &str, state: &State) -> Result<(), CheckpointError> {
    let directory = NewDirectory::begin(path)?;
    let parts = [&state.parameters, &state.moments.first, &state.moments.second];
    let mut tensors = Vec::new();
    for (part, values) in PARTS.iter().zip(parts) {
        for (id, values) in values {
            tensors.push(NewTensor {
                name: format!("{id}/{part}"),
                dtype: Dtype::F32,
                shape: vec![values.len()],
                bytes: Box::new(move || Cow::Owned(values.iter().flat_map(|value| value.to_le_bytes()).collect())),
            });
        }
    }
    tensor_file::write(&directory.path().join(TENSORS), tensors)?;
    write(&directory, LOG, &state.log.iter().map(|line| format!("{line}\n")).collect::<String>())?;
    let about = json!({"schema": "slmc.checkpoint/1", "fingerprint": fingerprint, "step": state.step});
    write(&directory, PROVENANCE_FILE, &about.to_string())?;
    Ok(directory.commit()?)
}

fn write(directory: &NewDirectory, name: &str, text: &str) -> Result<(), CheckpointError> {
    let failed = |source| CheckpointError::Write { path: directory.path().join(name), source };
    directory.write(name, text).map_err(failed)
}

/// Loads the checkpoint at a path, if it exists and belongs to this run. `shape` has every tensor of the run.
pub fn load(path: &Path, fingerprint: &str, shape: &Parameters) -> Result<Option<State>, CheckpointError> {
    if !path.exists() {
        return Ok(None);
    }
    let damaged = |fault: String| CheckpointError::Damaged { path: path.to_owned(), fault };
    let about = std::fs::read(path.join(PROVENANCE_FILE)).map_err(|error| damaged(error.to_string()))?;
    let about: Value = serde_json::from_slice(&about).map_err(|error| damaged(error.to_string()))?;
    if about["fingerprint"] != fingerprint {
        return Err(CheckpointError::OtherRun { path: path.to_owned() });
    }
    let step = about["step"].as_u64().ok_or_else(|| damaged("has no step".to_owned()))?;
    let stored = tensor_file::read(&path.join(TENSORS))?;
    let mut state = State {
        step,
        parameters: Parameters::new(),
        moments: Moments::default(),
        log: std::fs::read_to_string(path.join(LOG))
            .map_err(|error| damaged(error.to_string()))?
            .lines()
            .map(str::to_owned)
            .collect(),
    };
    for (id, values) in shape {
        let parts = [&mut state.parameters, &mut state.moments.first, &mut state.moments.second];
        for (part, into) in PARTS.iter().zip(parts) {
            into.insert(*id, values_of(&stored, *id, part, values.len()).map_err(damaged)?);
        }
    }
    Ok(Some(state))
}

fn values_of(
    stored: &std::collections::BTreeMap<String, tensor_file::StoredTensor>,
    id: TrainedId,
    part: &str,
    count: usize,
) -> Result<Vec<f32>, String> {
    let name = format!("{id}/{part}");
    let tensor = stored.get(&name).ok_or_else(|| format!("tensor `{name}` is missing"))?;
    let bytes = tensor.bytes.as_slice().chunks_exact(4);
    let values: Vec<f32> = bytes.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    if tensor.dtype != Dtype::F32 || values.iter().any(|value| !value.is_finite()) {
        return Err(format!("tensor `{name}` holds no finite f32 values"));
    }
    if values.len() == count { Ok(values) } else { Err(format!("tensor `{name}` has another size")) }
}
