//! Resume state of GPTQ: beside the output, `OUT.checkpoint` holds one safetensors file for every group of
//! matrices that is done, written whole before the next group begins. A fingerprint of settings and inputs says which
//! run it belongs to; the integers are read back as they were, so a resumed run gives the same bytes.
//!
//! ```text
//! NAME.values, NAME.row_scale, NAME.multiplier   as in a quantized directory
//! NAME.report                                    U8: the matrix's report, JSON
//! NAME.measured                                  F64 (3): its numbers to the last bit, which JSON does not promise
//! ```

use super::MatrixReport;
use crate::disk::PROVENANCE_FILE;
use crate::disk::atomic::NewDirectory;
use crate::disk::tensor_file::{self, NewTensor, StoredTensor};
use crate::model::id::LinearId;
use crate::model::quantized::QuantizedMatrix;
use crate::model::scheme::QuantScheme;
use crate::train::checkpoint::{CheckpointError, path_beside};
use safetensors::Dtype;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A matrix that is done.
pub type Done = (LinearId, QuantizedMatrix, MatrixReport);

/// The groups that an interrupted run has left.
pub struct GptqResume {
    directory: PathBuf,
    /// Groups that were there when the run began.
    pub resumed: usize,
}

impl GptqResume {
    /// The state of the run with this fingerprint that writes `out`; begun where there is none.
    ///
    /// # Errors
    /// A checkpoint of another run, a damaged one, or one that cannot be written.
    pub fn open(out: &Path, fingerprint: &str) -> Result<Self, CheckpointError> {
        let directory = path_beside(out);
        if !directory.exists() {
            let new = NewDirectory::begin(&directory)?;
            let about = json!({"schema": "slmc.quantize-checkpoint/1", "fingerprint": fingerprint});
            let failed = |source| CheckpointError::Write { path: new.path().join(PROVENANCE_FILE), source };
            new.write(PROVENANCE_FILE, about.to_string()).map_err(failed)?;
            new.commit()?;
            return Ok(GptqResume { directory, resumed: 0 });
        }
        let damaged = |fault: String| CheckpointError::Damaged { path: directory.clone(), fault };
        let about = std::fs::read(directory.join(PROVENANCE_FILE)).map_err(|error| damaged(error.to_string()))?;
        let about: Value = serde_json::from_slice(&about).map_err(|error| damaged(error.to_string()))?;
        if about["fingerprint"] != fingerprint {
            return Err(CheckpointError::OtherRun { path: directory });
        }
        let files = std::fs::read_dir(&directory).map_err(|error| damaged(error.to_string()))?;
        let whole = |name: &Path| name.extension().is_some_and(|extension| extension == "safetensors");
        let resumed = files.flatten().filter(|file| whole(&file.path())).count();
        Ok(GptqResume { directory, resumed })
    }

    fn file(&self, ids: &[LinearId]) -> PathBuf {
        self.directory.join(format!("{}.safetensors", ids[0]))
    }

    /// The matrices of a group, if they are done.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`].
    pub fn load(
        &self,
        ids: &[LinearId],
        shapes: &BTreeMap<LinearId, (usize, usize)>,
    ) -> Result<Option<Vec<Done>>, CheckpointError> {
        let file = self.file(ids);
        if !file.exists() {
            return Ok(None);
        }
        let tensors = tensor_file::read(&file)?;
        let read = |id: &LinearId| read_matrix(&tensors, *id, shapes[id]);
        let done: Result<Vec<Done>, String> = ids.iter().map(read).collect();
        done.map(Some).map_err(|fault| CheckpointError::Damaged { path: file, fault })
    }

    /// Writes the matrices of a group.
    ///
    /// # Errors
    /// [`CheckpointError::Write`].
    pub fn save(&self, done: &[(LinearId, &QuantizedMatrix, &MatrixReport)]) -> Result<(), CheckpointError> {
        let ids: Vec<LinearId> = done.iter().map(|(id, ..)| *id).collect();
        let mut tensors = Vec::new();
        for (id, matrix, report) in done {
            let mut add = |part: &str, dtype: Dtype, bytes: Vec<u8>| {
                let shape = vec![bytes.len() * 8 / dtype.bitsize()];
                let bytes = Box::new(move || Cow::Owned(bytes.clone()));
                tensors.push(NewTensor { name: format!("{id}.{part}"), dtype, shape, bytes });
            };
            add("values", Dtype::I8, matrix.values.iter().map(|value| value.cast_unsigned()).collect());
            add("row_scale", Dtype::F32, matrix.row_scale.iter().flat_map(|scale| scale.to_le_bytes()).collect());
            add("multiplier", Dtype::I8, matrix.multiplier.iter().map(|value| value.cast_unsigned()).collect());
            add("report", Dtype::U8, json!(report).to_string().into_bytes());
            let measured = [Some(report.relative_error), report.plain_error, report.activation_error];
            let measured = measured.into_iter().flat_map(|value| value.unwrap_or_default().to_le_bytes());
            add("measured", Dtype::F64, measured.collect());
        }
        let (file, new) = (self.file(&ids), self.file(&ids).with_extension("new"));
        tensor_file::write(&new, tensors)?;
        std::fs::rename(&new, &file).map_err(|source| CheckpointError::Write { path: file, source })
    }
}

fn read_matrix(tensors: &BTreeMap<String, StoredTensor>, id: LinearId, shape: (usize, usize)) -> Result<Done, String> {
    let bytes = |part: &str| {
        let name = format!("{id}.{part}");
        tensors.get(&name).map(|tensor| tensor.bytes.as_slice()).ok_or(format!("tensor `{name}` is missing"))
    };
    let mut report: MatrixReport = serde_json::from_slice(bytes("report")?).map_err(|error| error.to_string())?;
    let measured = bytes("measured")?.chunks_exact(8).map(|b| f64::from_le_bytes(std::array::from_fn(|n| b[n])));
    let [error, plain, activations] = measured.collect::<Vec<f64>>()[..] else {
        return Err(format!("tensor `{id}.measured` has another size"));
    };
    report.relative_error = error;
    report.plain_error = report.plain_error.map(|_| plain);
    report.activation_error = report.activation_error.map(|_| activations);
    let scheme: QuantScheme = report.scheme.parse().map_err(|error| format!("{error}"))?;
    let scales = bytes("row_scale")?.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let integers =
        |part: &str| -> Result<Vec<i8>, String> { Ok(bytes(part)?.iter().map(|value| value.cast_signed()).collect()) };
    let (values, multiplier) = (integers("values")?, integers("multiplier")?);
    let matrix = QuantizedMatrix::checked(id, scheme, shape, values, scales.collect(), multiplier);
    Ok((id, matrix.map_err(|error| error.to_string())?, report))
}
