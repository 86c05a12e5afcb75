//! Post-training quantization: the scheme of every matrix ([`policy`], [`crate::allocate`]), the calibration text
//! ([`calibration`]), rounding by rows ([`search`]) and by matrices ([`gptq`]), in their order ([`solver`]), and the key map
//! ([`key_map`]).

pub mod budget;
pub mod calibration;
pub mod calibration_check;
pub mod equalize;
pub mod error;
pub mod gptq;
pub mod input_width;
pub mod keep;
pub mod key_map;
pub mod method;
pub mod policy;
pub mod resume;
pub mod search;
pub mod solver;
pub mod training_data;
pub mod tune;

use crate::calibrate::Statistics;
use crate::calibrate::linear_algebra::LEAST_DAMPING;
use crate::disk::DenseTensor;
use crate::model::id::{KeyMapPart, LinearId, ParameterId, Part, Role};
use crate::model::matrix::row_major;
use crate::model::quantized::QuantizedMatrix;
use crate::model::scheme::{Assignment, Width};
use crate::model::size::scheme_of;
use crate::model::transform::{NmPattern, Sparsity};
use crate::model::weights::{Model, ModelError, Parameter};
use crate::progress::Progress;
use gptq::{Hessian, Rounded};
use key_map::KeyMap;
use method::Method;
use ndarray::ArrayView2;
pub use slm_numerics::rounding::Scales;
use std::collections::BTreeMap;

/// What matrices are rounded to.
#[derive(Clone, Copy, Debug)]
pub struct Grids<'a> {
    /// The scheme of each.
    pub assignment: &'a Assignment,
    /// Row scales that there are.
    pub scales: Scales,
}

/// With any row scale.
impl<'a> From<&'a Assignment> for Grids<'a> {
    fn from(assignment: &'a Assignment) -> Self {
        Grids { assignment, scales: Scales::Any }
    }
}

/// How well one matrix was rounded.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct MatrixReport {
    /// Name.
    pub name: String,
    /// Scheme.
    pub scheme: String,
    /// Σ h (w − ŵ)² / Σ h w², h the mean square of the inputs where they were calibrated; with gptq tr(E H Eᵀ) / tr(W H Wᵀ),
    /// H their second moments and W the weights that were aimed at.
    pub relative_error: f64,
    /// Whether inputs were calibrated; tables of embeddings have none.
    pub calibrated: bool,
    /// How it was rounded.
    pub method: Method,
    /// With gptq, the error of plain rounding in the same measure.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub plain_error: Option<f64>,
    /// Why the matrix was rounded plainly although gptq was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fallback: Option<String>,
    /// With gptq, rows for which plain rounding was better, and stayed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub plain_rows: Option<usize>,
    /// Share of the mean diagonal that was added to the Gram matrix of the inputs, where more than the usual 0.01 was needed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub damping: Option<f64>,
    /// Inputs that calibration never saw other than zero.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dead_inputs: Option<usize>,
    /// Squared error of its outputs by rounding inputs to 8 bits, as a share of the outputs, by calibration.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub activation_error: Option<f64>,
    /// The input that stands out, where 8-bit inputs cost much.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outlier_input: Option<usize>,
    /// Width of its inputs on a device where that is not 8 bits: `a16`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub activations: Option<String>,
    /// Pattern of its zeros, where the input says it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sparsity: Option<String>,
}

/// Above this share of a linear's outputs the error of 8-bit inputs is reported.
const COSTLY_ACTIVATIONS: f64 = 0.01;

/// Marks the matrices that are to be stored as 2:4. Zero weights are zero integers whatever the scale, and the search for
/// scales sees no error in them, so a matrix that was sparse before quantization is so after it.
pub fn mark_sparse(model: &mut Model, sparsity: &Sparsity) {
    for (id, _) in sparsity.iter().filter(|(_, pattern)| pattern.is_two_of_four()) {
        if let Some(Parameter::Quantized(matrix)) = model.parameters.get_mut(&ParameterId::weight(*id)) {
            matrix.sparsity = Some(NmPattern::TWO_OF_FOUR);
        }
    }
}

/// Sets the width of the inputs of linears.
pub fn mark_wide(model: &mut Model, widths: &BTreeMap<LinearId, Width>) {
    for (id, width) in widths {
        if let Some(Parameter::Quantized(matrix)) = model.parameters.get_mut(&ParameterId::weight(*id)) {
            matrix.activations = *width;
        }
    }
}

impl MatrixReport {
    fn new(id: LinearId, weights: ArrayView2<'_, f32>, matrix: &QuantizedMatrix, importance: Option<&[f64]>) -> Self {
        MatrixReport {
            name: id.to_string(),
            scheme: matrix.scheme.to_string(),
            relative_error: relative_error(weights, matrix, importance),
            calibrated: importance.is_some(),
            method: if importance.is_some() { Method::Search } else { Method::Rtn },
            plain_error: None,
            fallback: None,
            plain_rows: None,
            damping: None,
            dead_inputs: None,
            activation_error: None,
            outlier_input: None,
            activations: None,
            sparsity: None,
        }
    }

    /// Anything unusual about it.
    pub fn note(&self) -> Option<String> {
        let damping = self.damping.map(|damping| format!("damped by {damping}"));
        let dead = self.dead_inputs.map(|dead| format!("{dead} inputs always zero"));
        let outlier = self.outlier_input.filter(|_| self.activations.is_none()).map(|input| {
            format!(
                "8-bit inputs cost {:.1} % of its outputs, input {input} stands out: --equalize, or --activations {}=a16",
                100.0 * self.activation_error.unwrap_or_default(),
                self.name
            )
        });
        let notes: Vec<String> = [self.fallback.clone(), damping, dead, outlier].into_iter().flatten().collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    /// The report of a matrix that was solved for.
    fn solved(id: LinearId, weights: ArrayView2<'_, f32>, hessian: &Hessian, rounded: &Rounded) -> Self {
        let rows = rounded.matrix.rows();
        let activation_error = hessian.activation_error(weights);
        let whole = rounded.plain_rows == rows && rounded.plain_error > 0.0;
        MatrixReport {
            name: id.to_string(),
            scheme: rounded.matrix.scheme.to_string(),
            relative_error: rounded.error,
            calibrated: true,
            method: Method::Gptq,
            plain_error: Some(rounded.plain_error),
            fallback: whole.then(|| "rounded plainly, which has the smaller error".to_owned()),
            plain_rows: (rounded.plain_rows > 0).then_some(rounded.plain_rows),
            damping: (hessian.factor.damping > LEAST_DAMPING).then_some(hessian.factor.damping),
            dead_inputs: (!hessian.factor.dead.is_empty()).then_some(hessian.factor.dead.len()),
            activation_error: Some(activation_error),
            outlier_input: (activation_error > COSTLY_ACTIVATIONS).then_some(hessian.loudest),
            activations: None,
            sparsity: None,
        }
    }
}

/// Quantizes every matrix of a dense model by its scheme. With statistics, columns are weighed and keys are mapped.
pub fn quantize<'a>(
    model: &Model,
    grids: impl Into<Grids<'a>>,
    statistics: Option<&Statistics>,
    progress: &dyn Progress,
) -> Result<(Model, BTreeMap<LinearId, MatrixReport>), ModelError> {
    let Grids { assignment, scales } = grids.into();
    let (quantized, reports) = each_matrix(model, progress, |id, weights| -> Result<_, ModelError> {
        let scheme = scheme_of(assignment, id)?;
        let importance = statistics.and_then(|statistics| input_importance(model, statistics, id));
        let matrix = search::quantize_matrix_on(weights, (scheme, scales), importance);
        let report = MatrixReport::new(id, weights, &matrix, importance);
        Ok((matrix, report))
    })?;
    match statistics {
        Some(statistics) => Ok((with_key_maps(quantized, statistics)?, reports)),
        None => Ok((quantized, reports)),
    }
}

/// A dense model with every matrix as a function rounds it, on its own; no key maps.
fn each_matrix<E: From<ModelError>>(
    model: &Model,
    progress: &dyn Progress,
    mut round: impl FnMut(LinearId, ArrayView2<'_, f32>) -> Result<(QuantizedMatrix, MatrixReport), E>,
) -> Result<(Model, BTreeMap<LinearId, MatrixReport>), E> {
    let mut parameters: BTreeMap<ParameterId, Parameter> = model.parameters.clone();
    let mut reports = BTreeMap::new();
    let matrices = model.spec.matrices();
    progress.begin("quantizing", matrices.len() as u64, "matrices");
    for (id, ..) in matrices {
        let weights = model.matrix(id)?;
        let (matrix, report) = round(id, weights.view())?;
        reports.insert(id, report);
        parameters.insert(ParameterId::weight(id), Parameter::Quantized(matrix));
        progress.advance(1);
    }
    progress.finish();
    for id in model.parameters.keys().filter(|id| !matches!(id, ParameterId::Linear(_, Part::Weight))) {
        // Read once: values that are not finite are refused before anything is written.
        model.values_f32(*id)?;
    }
    let quantized = Model {
        spec: model.spec.clone(),
        config: model.config.clone(),
        parameters,
        companions: model.companions.clone(),
        path: model.path.clone(),
    };
    Ok((quantized, reports))
}

/// The model with the key maps that the statistics call for.
pub fn with_key_maps(mut model: Model, statistics: &Statistics) -> Result<Model, ModelError> {
    for (layer, stats) in statistics.keys.iter().enumerate() {
        if model.spec.layers[layer].attention().is_none() {
            continue;
        }
        let map = KeyMap::of(stats);
        for (part, values) in KeyMapPart::ALL.into_iter().zip([&map.mean, &map.balance, &map.inverse]) {
            let tensor = DenseTensor::from_f32(values.shape().to_vec(), row_major(values.view()))?;
            model.parameters.insert(ParameterId::KeyMap(layer as u16, part), Parameter::Dense(tensor));
        }
    }
    Ok(model)
}

/// Mean squares of a matrix's inputs; a tied token table is weighed by the head's.
pub fn input_importance<'s>(model: &Model, statistics: &'s Statistics, id: LinearId) -> Option<&'s [f64]> {
    let source = match id.role {
        Role::TokenEmbedding if model.spec.tied_head() => LinearId::global(Role::LmHead),
        _ => id,
    };
    statistics.linears.get(&source).map(|stats| stats.mean_square.as_slice())
}

fn relative_error(weights: ArrayView2<'_, f32>, matrix: &QuantizedMatrix, importance: Option<&[f64]>) -> f64 {
    let (mut miss, mut size) = (0.0, 0.0);
    for (weights, rounded) in weights.outer_iter().zip(matrix.dequantize().outer_iter()) {
        for (column, (weight, rounded)) in weights.iter().zip(rounded).enumerate() {
            let h = importance.map_or(1.0, |importance| importance[column]);
            miss += h * f64::from(weight - rounded).powi(2);
            size += h * f64::from(*weight).powi(2);
        }
    }
    if size > 0.0 { miss / size } else { 0.0 }
}
