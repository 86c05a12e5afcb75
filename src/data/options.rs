//! Options of `slmc data`, as the library takes them, and the names of what it writes.

use super::filters::Limits;
use super::scrub::Kind;
use crate::text::form::TextForm;
use burn::tensor::Device;
use std::path::PathBuf;

/// The texts that are kept.
pub const TEXTS_FILE: &str = "data.jsonl";
/// The texts that are held out.
pub const HELD_OUT_FILE: &str = "held-out.jsonl";

/// Options of `slmc data`, checked.
#[derive(Clone, Debug)]
pub struct DataOptions {
    /// The files, in the order in which they are read.
    pub files: Vec<PathBuf>,
    /// How often the texts of each file are written; 1 for files beyond the end.
    pub file_weights: Vec<f64>,
    /// How the texts of a file are told apart.
    pub form: TextForm,
    /// The rules.
    pub limits: Limits,
    /// How alike near duplicates are; 1 looks for exact ones only.
    pub similarity: f64,
    /// Whether duplicates stay, on one side of the split.
    pub keep_duplicates: bool,
    /// What is scrubbed.
    pub scrub: Vec<Kind>,
    /// A file of tags.
    pub tags: Option<PathBuf>,
    /// Scores by a model.
    pub quality: Option<QualityOptions>,
    /// The field whose values become equally frequent.
    pub balance: Option<String>,
    /// Weights of values.
    pub weights: Vec<FieldWeight>,
    /// Share of texts that are held out.
    pub held_out: f64,
    /// Where choices start.
    pub seed: u64,
}

/// Scores by a model.
#[derive(Clone, Debug)]
pub struct QualityOptions {
    /// The model.
    pub model: PathBuf,
    /// Its device.
    pub device: Device,
    /// Share of the texts with the worst scores that are left out.
    pub drop_worst: f64,
    /// Likewise with the best.
    pub drop_best: f64,
    /// Tokens of a text that are looked at.
    pub tokens: usize,
}

/// A weight of one value of a field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldWeight {
    /// The field.
    pub field: String,
    /// Its value.
    pub value: String,
    /// How often each text with it is written.
    pub weight: f64,
}
