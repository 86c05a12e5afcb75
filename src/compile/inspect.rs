//! What is in an artifact: sizes and multiply-accumulates by class, tensor by tensor, as the file states them.

use crate::model::id::Class;
use crate::model::size::WeightSize;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::tensor::{TensorPart, TensorRecord, TensorRole};
use slm_runtime::layout::Storage;
use std::collections::BTreeMap;

/// One tensor of an artifact.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct TensorSummary {
    /// Name, from the host part, or the key where the file has none.
    pub name: String,
    /// `w8`, `w4.g32`, `f32`.
    pub storage: &'static str,
    /// Outer dimension.
    pub rows: u32,
    /// Inner dimension.
    pub columns: u32,
    /// Padding included.
    pub bytes: u64,
}

/// Bytes, parameters and work of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct ClassSummary {
    /// In the file.
    pub bytes: u64,
    /// Unpadded.
    pub parameters: u64,
    /// Multiply-accumulates per token; a table that is only looked up has none.
    pub macs_per_token: u64,
}

/// The class a tensor's bytes count under; norms, biases and key maps are `other`.
fn class_of(record: &TensorRecord) -> &'static str {
    if record.storage == Storage::F32 as u8 || record.part != TensorPart::Weight as u8 {
        return "other";
    }
    match record.role {
        0x00..0x10 => Class::Embedding.name(),
        0x10..0x20 => Class::Attention.name(),
        0x20..0x40 => Class::Ffn.name(),
        _ => Class::Head.name(),
    }
}

/// Every record of the tensor table.
fn records<'a>(view: &'a ArtifactView<'_>) -> impl Iterator<Item = TensorRecord> + 'a {
    (0..view.tensor_count()).map(|index| view.tensor_record(index))
}

fn parameters(record: &TensorRecord) -> u64 {
    u64::from(record.rows) * u64::from(record.columns)
}

/// Whether a tensor is a key map: a calibration result, not a parameter of the model.
fn is_key_map(record: &TensorRecord) -> bool {
    record.part >= TensorPart::KeyMean as u8
}

/// Sums by class, in forward order, then `other`.
pub fn classes(view: &ArtifactView<'_>) -> Vec<(&'static str, ClassSummary)> {
    let mut sums: BTreeMap<&'static str, ClassSummary> = BTreeMap::new();
    let tied = view.spec().tied_head == 1;
    for record in records(view) {
        let class = class_of(&record);
        let sum = sums.entry(class).or_default();
        sum.bytes += record.bytes;
        if !is_key_map(&record) {
            sum.parameters += parameters(&record);
        }
        if matches!(class, "attention" | "ffn" | "head") {
            sum.macs_per_token += parameters(&record);
        }
        if tied && record.role == TensorRole::EmbedToken as u8 {
            sums.entry(Class::Head.name()).or_default().macs_per_token += parameters(&record);
        }
    }
    let names = Class::ALL.map(Class::name).into_iter().chain(["other"]);
    names.filter_map(|name| sums.get(name).map(|sum| (name, *sum))).collect()
}

/// The sizes reports state, from the file alone; equal to what [`WeightSize::of`] counted when it was compiled, but for
/// positions beyond the planned context.
pub fn weight_size(view: &ArtifactView<'_>) -> WeightSize {
    let classes = classes(view);
    let weight_bytes: u64 = classes.iter().map(|(_, sum)| sum.bytes).sum();
    let parameters: u64 = classes.iter().map(|(_, sum)| sum.parameters).sum();
    WeightSize {
        weight_bytes,
        parameters,
        bits_per_weight: 8.0 * weight_bytes as f64 / parameters as f64,
        bytes_by_class: classes.iter().map(|(name, sum)| (*name, sum.bytes)).collect(),
    }
}

/// Every tensor in table order; `names` are the lines of the names section.
pub fn tensors(view: &ArtifactView<'_>, names: Option<&str>) -> Vec<TensorSummary> {
    let mut names = names.map(str::lines);
    let summary = |(index, record): (usize, TensorRecord)| TensorSummary {
        name: names
            .as_mut()
            .and_then(Iterator::next)
            .map_or_else(|| format!("{:?}", view.tensor_key(index)), str::to_owned),
        storage: match Storage::from_id(record.storage) {
            Some(Storage::W8) => "w8",
            Some(Storage::W4G32) => "w4.g32",
            _ => "f32",
        },
        rows: record.rows,
        columns: record.columns,
        bytes: record.bytes,
    };
    records(view).enumerate().map(summary).collect()
}
