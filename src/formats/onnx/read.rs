//! Models that slmc has exported, read back: config.json, and the tensors of model.onnx under the names of their parameters.
//! The metadata of the file say which matrices are integers and in which layout they stand; the nodes are not looked at. Graphs
//! of other programs are not read: their matrices have lost their names.

use super::builder::CONSTANT;
use super::export::graph_file;
use super::file::DATA_FILE;
use super::layout::{PartLayout, parts};
use super::messages::{DataType, EXTERNAL, ModelProto, TensorProto};
use super::variant::Operators;
use super::{METADATA_SCHEMES, METADATA_VARIANT, OnnxError, PRODUCER, attention::ROTARY};
use crate::disk::mmap::MappedFile;
use crate::disk::tensor::Rows;
use crate::disk::{DenseTensor, DenseType, SharedBytes};
use crate::formats::error::ModelFormatError;
use crate::model::id::{LinearId, ParameterId, Part};
use crate::model::integers::GroupedIntegers;
use crate::model::matrix::from_rows;
use crate::model::quantized::check_shape;
use crate::model::scheme::{Assignment, QuantScheme};
use crate::model::spec::ModelSpec;
use prost::Message;
use prost::bytes::Bytes;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file whose bytes messages share.
struct Shared(Arc<MappedFile>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// A tensor of a file.
struct Stored {
    data_type: i32,
    shape: Vec<usize>,
    bytes: SharedBytes,
}

/// The tensors of an exported model.
pub(super) struct Tensors {
    file: PathBuf,
    tensors: BTreeMap<String, Stored>,
    schemes: Assignment,
    operators: Operators,
}

impl Tensors {
    /// Reads the messages of a file, and looks at no values.
    pub(super) fn open(directory: &Path) -> Result<Self, OnnxError> {
        let file = graph_file(directory);
        let map = mapped(&file)?;
        let model = ModelProto::decode(Bytes::from_owner(Shared(Arc::clone(&map))))
            .map_err(|error| OnnxError::Message { file: file.clone(), problem: error.to_string() })?;
        let wrong = |problem: String| OnnxError::Message { file: file.clone(), problem };
        if model.producer_name != PRODUCER {
            return Err(wrong(format!("it was made by `{}`", model.producer_name)));
        }
        let metadata = |key: &str| {
            let entry = model.metadata_props.iter().find(|entry| entry.key == key);
            entry.map(|entry| entry.value.as_str()).ok_or_else(|| wrong(format!("its metadata lack `{key}`")))
        };
        let variant = metadata(METADATA_VARIANT)?;
        let operators = Operators::of(Some(variant)).ok_or_else(|| wrong(format!("unknown variant `{variant}`")))?;
        let schemes = schemes(metadata(METADATA_SCHEMES)?).map_err(wrong)?;
        let graph = model.graph.ok_or_else(|| wrong("it has no graph".to_owned()))?;
        let apart = graph.initializer.iter().any(|tensor| tensor.data_location == Some(EXTERNAL));
        let data = if apart { Some(mapped(&directory.join(DATA_FILE))?) } else { None };
        let mut tensors = BTreeMap::new();
        for tensor in graph.initializer {
            let of_graph = [CONSTANT, ROTARY].iter().any(|start| tensor.name.starts_with(start));
            if of_graph {
                continue;
            }
            let name = tensor.name.clone();
            let refused = |problem: String| OnnxError::Tensor { file: file.clone(), tensor: name.clone(), problem };
            let stored = stored(tensor, &map, data.as_ref()).map_err(&refused)?;
            if tensors.insert(name.clone(), stored).is_some() {
                return Err(refused("is there twice".to_owned()));
            }
        }
        Ok(Tensors { file, tensors, schemes, operators })
    }

    /// Checks names, types and shapes against the configuration.
    pub(super) fn check(&self, spec: &ModelSpec) -> Result<(), ModelFormatError> {
        let mut expected: BTreeMap<String, (DataType, Vec<usize>)> = BTreeMap::new();
        for parameter in spec.parameters() {
            match self.parts(spec, parameter.id, &parameter.shape)? {
                None => {
                    expected.insert(parameter.id.to_string(), (DataType::Float32, parameter.shape));
                }
                Some(parts) => {
                    for part in parts {
                        expected.insert(part.values_name(), (part.data_type(), part.values_shape()));
                        expected.insert(part.scales_name(), (DataType::Float32, part.scales_shape()));
                    }
                }
            }
        }
        let ids: Vec<LinearId> = spec.matrices().into_iter().map(|(id, ..)| id).collect();
        if let Some(id) = self.schemes.keys().find(|id| !ids.contains(id)) {
            let problem = format!("its metadata give `{id}` a scheme, which config.json has no matrix for");
            return Err(OnnxError::Message { file: self.file.clone(), problem }.into());
        }
        for (name, (data_type, shape)) in &expected {
            let Some(stored) = self.tensors.get(name) else {
                let (path, tensor) = (self.file.clone(), name.clone());
                let others = self.tensors.keys().filter(|name| !expected.contains_key(*name)).cloned().collect();
                return Err(ModelFormatError::Missing { path, tensor, expected: shape.clone(), others });
            };
            let refused =
                |problem: String| OnnxError::Tensor { file: self.file.clone(), tensor: name.clone(), problem };
            if stored.data_type != data_type.number() {
                return Err(refused(format!("is not of type {}", data_type.name())).into());
            }
            if stored.shape != *shape {
                let (file, tensor, expected) = (self.file.clone(), name.clone(), shape.clone());
                return Err(ModelFormatError::Shape { file, tensor, expected, found: stored.shape.clone() });
            }
            let bytes = data_type.bytes(shape.iter().product());
            let found = stored.bytes.as_slice().len();
            if found != bytes {
                return Err(refused(format!("of {shape:?} takes {bytes} bytes, got {found}")).into());
            }
        }
        match self.tensors.keys().find(|name| !expected.contains_key(*name)) {
            Some(tensor) => {
                let (file, tensor) = (self.file.clone(), tensor.clone());
                Err(ModelFormatError::Extra { file, tensor, family: spec.family })
            }
            None => Ok(()),
        }
    }

    /// The parts of a matrix of integers; `None` of other parameters.
    fn parts(
        &self,
        spec: &ModelSpec,
        id: ParameterId,
        shape: &[usize],
    ) -> Result<Option<Vec<PartLayout>>, ModelFormatError> {
        let (ParameterId::Linear(id, Part::Weight), &[rows, columns]) = (id, shape) else { return Ok(None) };
        let Some(&scheme) = self.schemes.get(&id) else { return Ok(None) };
        check_shape(id, scheme, (rows, columns))?;
        Ok(Some(parts(spec, id, scheme, (rows, columns), self.operators)))
    }

    /// A matrix of integers; `None` of one in floating point.
    pub(super) fn matrix(&self, spec: &ModelSpec, id: LinearId) -> Result<Option<StoredMatrix>, ModelFormatError> {
        let shape = spec.matrices().into_iter().find(|(other, ..)| *other == id);
        let Some((_, rows, columns)) = shape else { return Ok(None) };
        let Some(parts) = self.parts(spec, ParameterId::weight(id), &[rows, columns])? else { return Ok(None) };
        let bytes = |name: String| self.tensors.get(&name).map(|stored| stored.bytes.clone());
        let parts = parts.into_iter().filter_map(|part| {
            let [values, scales] = [bytes(part.values_name())?, bytes(part.scales_name())?];
            Some((part, values, scales))
        });
        Ok(Some(StoredMatrix { file: self.file.clone(), rows, columns, parts: parts.collect() }))
    }

    /// A parameter in floating point.
    pub(super) fn dense(&self, id: ParameterId) -> Result<DenseTensor, ModelFormatError> {
        let name = id.to_string();
        let stored = self.tensors.get(&name).ok_or(ModelFormatError::MissingParameter(id))?;
        let tensor = DenseTensor::stored(&name, stored.shape.clone(), DenseType::F32, stored.bytes.clone());
        tensor.check_finite(&name)?;
        Ok(tensor)
    }

    /// Name of the scheme that a parameter had, `float32` of what had none.
    pub(super) fn stored_name(&self, id: ParameterId) -> String {
        match id {
            ParameterId::Linear(id, Part::Weight) => self.schemes.get(&id).map(QuantScheme::to_string),
            _ => None,
        }
        .unwrap_or_else(|| DataType::Float32.name().to_owned())
    }
}

fn mapped(file: &Path) -> Result<Arc<MappedFile>, OnnxError> {
    MappedFile::open(file).map_err(|source| OnnxError::Read { file: file.to_owned(), source })
}

/// The schemes of the metadata.
fn schemes(text: &str) -> Result<Assignment, String> {
    let map: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| format!("`{METADATA_SCHEMES}` of its metadata: {error}"))?;
    let scheme = |(name, value): (&String, &Value)| {
        let id: Option<LinearId> = name.parse().ok();
        let scheme: Option<QuantScheme> = value.as_str().and_then(|text| text.parse().ok());
        id.zip(scheme).ok_or_else(|| format!("`{METADATA_SCHEMES}` of its metadata have `{name}`: {value}"))
    };
    map.iter().map(scheme).collect()
}

/// A tensor with its bytes, which lie in one of two files.
fn stored(tensor: TensorProto, graph: &Arc<MappedFile>, data: Option<&Arc<MappedFile>>) -> Result<Stored, String> {
    let shape: Option<Vec<usize>> = tensor.dims.iter().map(|&size| usize::try_from(size).ok()).collect();
    let shape = shape.filter(|shape| shape.iter().try_fold(1usize, |all, &size| all.checked_mul(size)).is_some());
    let shape = shape.ok_or_else(|| format!("has the impossible shape {:?}", tensor.dims))?;
    let bytes = match (tensor.data_location, data) {
        (Some(EXTERNAL), Some(data)) => apart(&tensor, data)?,
        (Some(EXTERNAL), None) => return Err(format!("is in {DATA_FILE}, which is not there")),
        _ => inside(tensor.raw_data.ok_or("has no raw data")?, graph),
    };
    Ok(Stored { data_type: tensor.data_type, shape, bytes })
}

/// Bytes of a message: a range of the file that it was read from.
fn inside(bytes: Bytes, graph: &Arc<MappedFile>) -> SharedBytes {
    let start = (bytes.as_ptr() as usize).checked_sub(graph.bytes().as_ptr() as usize);
    let range = start.and_then(|start| SharedBytes::mapped(graph, start..start.checked_add(bytes.len())?));
    range.filter(|range| range.as_slice() == bytes).unwrap_or_else(|| SharedBytes::owned(bytes.to_vec()))
}

/// Bytes of the other file.
fn apart(tensor: &TensorProto, data: &Arc<MappedFile>) -> Result<SharedBytes, String> {
    let entry = |key: &str| {
        let entry = tensor.external_data.iter().find(|entry| entry.key == key);
        entry.map(|entry| entry.value.as_str()).ok_or_else(|| format!("does not say its `{key}`"))
    };
    let number = |key: &str| -> Result<usize, String> {
        let text = entry(key)?;
        text.parse().map_err(|_| format!("has the {key} `{text}`, expected a number of bytes"))
    };
    let (location, offset, length) = (entry("location")?, number("offset")?, number("length")?);
    if location != DATA_FILE {
        return Err(format!("is in `{location}`, expected `{DATA_FILE}`"));
    }
    let range = offset.checked_add(length).map(|end| offset..end);
    range
        .and_then(|range| SharedBytes::mapped(data, range))
        .ok_or_else(|| format!("does not lie within {DATA_FILE}: {length} bytes at {offset}"))
}

/// A matrix of integers as a file holds it.
#[derive(Debug)]
pub(super) struct StoredMatrix {
    file: PathBuf,
    rows: usize,
    columns: usize,
    /// Layout, integers, scales.
    parts: Vec<(PartLayout, SharedBytes, SharedBytes)>,
}

impl StoredMatrix {
    /// Part of a row, and its number there.
    fn part(&self, row: usize) -> (&(PartLayout, SharedBytes, SharedBytes), usize) {
        let part = self.parts.iter().find(|(part, ..)| part.rows.contains(&row)).expect("parts have all rows");
        (part, row - part.0.rows.start)
    }

    /// The integers with a scale for every block, or one for a row where no row has more. Of a table in two parts, rows of one
    /// scale repeat it.
    pub(super) fn integers(&self) -> GroupedIntegers {
        let group = self.parts.iter().map(|(part, ..)| part.block()).max().unwrap_or(self.columns);
        let blocks = self.columns.div_ceil(group);
        let mut values = Vec::with_capacity(self.rows * self.columns);
        let mut scales = Vec::with_capacity(self.rows * blocks);
        for row in 0..self.rows {
            let ((part, of_values, of_scales), row) = self.part(row);
            let integer = |column| part.integer(of_values.as_slice(), row, column);
            values.extend((0..self.columns).map(integer));
            scales.extend((0..blocks).map(|block| part.scale(of_scales.as_slice(), row, block)));
        }
        let one = scales.chunks(blocks).all(|row| row.iter().all(|scale| *scale == row[0]));
        let (scales, group) = match one {
            true => (scales.into_iter().step_by(blocks).collect(), self.columns),
            false => (scales, group),
        };
        let per_row = scales.len() / self.rows.max(1);
        GroupedIntegers { values: from_rows(values, self.columns), scales: from_rows(scales, per_row), group }
    }

    /// Refuses scales that are not finite.
    pub(super) fn check(&self, id: LinearId) -> Result<(), OnnxError> {
        for (part, _, scales) in &self.parts {
            let scales = scales.as_slice().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            if let Some((index, scale)) = scales.enumerate().find(|(_, scale)| !scale.is_finite()) {
                let problem = format!("of `{id}`: element {index} is {scale}, expected a finite number");
                return Err(OnnxError::Tensor { file: self.file.clone(), tensor: part.scales_name(), problem });
            }
        }
        Ok(())
    }

    /// The weights that it stands for, made row by row when they are asked for.
    pub(super) fn dense(self, id: LinearId) -> DenseTensor {
        let (name, shape) = (ParameterId::weight(id).to_string(), vec![self.rows, self.columns]);
        DenseTensor::in_rows(&name, shape, DenseType::F32, Arc::new(self))
    }
}

impl Rows for StoredMatrix {
    fn read(&self, row: usize, out: &mut [f32]) {
        let ((part, values, scales), row) = self.part(row);
        let (values, scales, block) = (values.as_slice(), scales.as_slice(), part.block());
        for (column, out) in out.iter_mut().enumerate() {
            *out = f32::from(part.integer(values, row, column)) * part.scale(scales, row, column / block);
        }
    }

    fn file(&self) -> Option<&Path> {
        Some(&self.file)
    }
}
