//! Models for the tests of this folder: golden checkpoints, their matrices rounded in the simplest way.

use crate::formats::open_model;
use crate::model::id::{LinearId, ParameterId, Part};
use crate::model::quantized::QuantizedMatrix;
use crate::model::scheme::QuantScheme;
use crate::model::spec::ModelSpec;
use crate::model::weights::{Model, Parameter};
use ndarray::Array2;
use std::path::Path;

/// A golden checkpoint.
pub(super) fn golden(name: &str) -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name);
    open_model(&path).expect("golden checkpoints are sound")
}

/// A decoder whose head is the token table, or has a matrix of its own.
pub(super) fn decoder_spec(tied: bool) -> ModelSpec {
    golden(if tied { "llama-gqa-tied" } else { "llama-mha" }).spec
}

/// The model with every matrix in the scheme that a function gives, all rows and groups of a matrix with scales of one size.
pub(super) fn rounded(mut model: Model, scheme: impl Fn(LinearId) -> QuantScheme) -> Model {
    for (id, ..) in model.spec.matrices() {
        let (values, scheme) = (model.matrix(id).expect("finite"), scheme(id));
        let largest = values.iter().fold(0f32, |most, value| most.max(value.abs()));
        let (multiplied, groups) = scheme.multiplier_shape(values.dim());
        let row_scale: Vec<f32> = (0..values.nrows())
            .map(|row| {
                let high = f32::from(scheme.of_row(row).def().range.1);
                let multiplier = if row < scheme.wide_rows(values.nrows()) { 1.0 } else { 3.0 };
                largest / high / multiplier
            })
            .collect();
        let integers = Array2::from_shape_fn(values.dim(), |(row, column)| {
            let high = f32::from(scheme.of_row(row).def().range.1);
            (values[[row, column]] / largest * high).round() as i8
        });
        let matrix = QuantizedMatrix::new(scheme, integers, row_scale, vec![3; multiplied * groups]);
        model.parameters.insert(ParameterId::Linear(id, Part::Weight), Parameter::Quantized(matrix));
    }
    model
}
