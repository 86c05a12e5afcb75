//! One-shot N:M pruning: in every group of M weights along the input dimension the N of largest score stay, the rest
//! become zero. The score is |w| (magnitude), |w| · √h (Wanda, Sun et al. 2023), h the mean square of the weight's
//! input over calibration text, or the error of removing the weight when later columns compensate for it
//! ([`sparsegpt`]). Channels of feed-forward networks are put into the order that loses least first ([`order`]). The remaining weights can be refitted ([`refit`]), layer by layer ([`layerwise`]). Training
//! recovers the lost quality and `eval` measures it.

pub mod layerwise;
pub mod moving;
pub mod order;
pub mod refit;
pub mod sparsegpt;

use crate::calibrate::{CalibrateError, Statistics};
use crate::model::id::{Class, LinearId, ParameterId, Role};
use crate::model::matrix::{from_rows, into_values, row_major};
use crate::model::pattern::matches;
use crate::model::scheme::QuantScheme;
use crate::model::spec::ModelSpec;
use crate::model::transform::{Mask, MaskError, NmPattern};
use crate::model::weights::{Model, ModelError};
use crate::progress::Progress;
use crate::quantize::search;
use ndarray::{Array2, ArrayView2};
use std::collections::BTreeMap;
use std::str::FromStr;

/// How weights are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// |w|
    Magnitude,
    /// |w| · √h
    Wanda,
    /// |w| / U_jj on weights updated column by column.
    SparseGpt,
}

impl Method {
    /// Every method, simplest first.
    pub const ALL: [Method; 3] = [Method::Magnitude, Method::Wanda, Method::SparseGpt];

    /// `magnitude`, `wanda`, `sparsegpt`.
    pub fn name(self) -> &'static str {
        match self {
            Method::Magnitude => "magnitude",
            Method::Wanda => "wanda",
            Method::SparseGpt => "sparsegpt",
        }
    }
}

/// A string that is not the name of a method.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown method `{0}`; known: magnitude, wanda, sparsegpt")]
pub struct UnknownMethod(pub String);

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(text: &str) -> Result<Self, UnknownMethod> {
        Method::ALL.into_iter().find(|method| method.name() == text).ok_or_else(|| UnknownMethod(text.to_owned()))
    }
}

/// An invalid selection of matrices.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SelectionError {
    /// The pattern selects nothing.
    #[error(
        "--only {pattern}: matches no linear of this model; names look like {example}, aliases are ffn, attention, all"
    )]
    MatchesNothing {
        /// As given.
        pattern: String,
        /// A name that exists.
        example: String,
    },
    /// The pattern only selects lookup tables.
    #[error(
        "--only {pattern}: matches only tables, such as `{id}`, which are looked up row by row and stay dense; select \
         linears: ffn, attention, all"
    )]
    OnlyTables {
        /// As given.
        pattern: String,
        /// The first it matches.
        id: LinearId,
    },
    /// Nothing but what scores experts.
    #[error(
        "--only {pattern}: selects `{id}`, which scores the experts of a mixture and stays dense; prune the experts (--only ffn)"
    )]
    OnlyRouters {
        /// As given.
        pattern: String,
        /// The first it matches.
        id: LinearId,
    },
}

/// The linears that any of the patterns select, in forward order: globs and aliases over names, and `all` for every
/// linear of a layer. Embedding tables and what scores experts are never among them.
///
/// # Errors
/// A pattern that selects no linear.
pub fn select(spec: &ModelSpec, patterns: &[String]) -> Result<Vec<LinearId>, SelectionError> {
    let matrices: Vec<LinearId> = spec.matrices().into_iter().map(|(id, ..)| id).collect();
    let selects = |pattern: &str, id: LinearId| match pattern {
        "all" => id.role.in_layer(),
        _ => matches(pattern, id),
    };
    let table = |id: &LinearId| id.role.class() == Class::Embedding || id.role == Role::Router;
    for pattern in patterns {
        let matched: Vec<LinearId> = matrices.iter().copied().filter(|id| selects(pattern, *id)).collect();
        match matched.first() {
            None => {
                let example = matrices.iter().find(|id| id.role.class() == Class::Ffn).map(ToString::to_string);
                let (pattern, example) = (pattern.clone(), example.unwrap_or_default());
                return Err(SelectionError::MatchesNothing { pattern, example });
            }
            Some(&id) if matched.iter().all(|id| id.role == Role::Router) => {
                return Err(SelectionError::OnlyRouters { pattern: pattern.clone(), id });
            }
            Some(&id) if matched.iter().all(table) => {
                return Err(SelectionError::OnlyTables { pattern: pattern.clone(), id });
            }
            Some(_) => {}
        }
    }
    Ok(matrices.into_iter().filter(|id| !table(id) && patterns.iter().any(|pattern| selects(pattern, *id))).collect())
}

/// Result of pruning one matrix.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct MatrixReport {
    /// Which.
    #[serde(rename = "name", serialize_with = "as_displayed")]
    pub id: LinearId,
    /// Output dimension.
    pub rows: usize,
    /// Input dimension.
    pub columns: usize,
    /// Weights that were zero already.
    pub zeros_before: u64,
    /// Weights that are zero now.
    pub zeros_after: u64,
    /// Share of Σ w² removed.
    pub energy_removed: f64,
    /// Share of Σ h w² removed, h the mean square of the input; absent where inputs were not calibrated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weighted_energy_removed: Option<f64>,
    /// Relative output error over the calibration text, on inputs of the pruned model; present where it was pruned
    /// layer by layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_error: Option<f64>,
    /// Error of the dense matrix in 4 bits (w4.g32, rounded to nearest on scales searched for these inputs), in the
    /// measure of `output_error` where present, else of the energy removed: the baseline for 2:4, since it takes fewer
    /// bits a weight than 2:4 with 8-bit values.
    pub dense_error: f64,
    /// Whether it stayed dense because pruning it would have exceeded the allowed error.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub left_dense: bool,
    /// Deviations from the request, with the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
}

fn as_displayed<S: serde::Serializer>(id: &LinearId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

impl MatrixReport {
    fn new(
        id: LinearId,
        weights: ArrayView2<'_, f32>,
        pruned: ArrayView2<'_, f32>,
        importance: Option<&[f64]>,
    ) -> Self {
        let zero = |weight: &&f32| **weight == 0.0;
        let zeros = |weights| row_major(weights).iter().filter(zero).count() as u64;
        MatrixReport {
            id,
            rows: weights.nrows(),
            columns: weights.ncols(),
            zeros_before: zeros(weights),
            zeros_after: zeros(pruned),
            energy_removed: energy_removed(weights, pruned, None),
            weighted_energy_removed: importance.map(|h| energy_removed(weights, pruned, Some(h))),
            output_error: None,
            dense_error: energy_missed(weights, in_four_bits(weights, importance).view(), importance),
            left_dense: false,
            fallback: None,
        }
    }
}

impl MatrixReport {
    /// Error of pruning, in the measure of `dense_error`.
    pub fn missed(&self) -> f64 {
        self.output_error.or(self.weighted_energy_removed).unwrap_or(self.energy_removed)
    }
}

/// Prunes the `selected` linears of a dense model; with statistics, Wanda scores by them and reports weigh by them.
/// Without statistics every input counts alike, so both methods give the same masks.
///
/// # Errors
/// Columns that the pattern does not divide; weights that cannot be read.
pub fn prune(
    model: Model,
    selected: &[LinearId],
    pattern: NmPattern,
    method: Method,
    statistics: Option<&Statistics>,
    progress: &dyn Progress,
) -> Result<(Model, Vec<MatrixReport>), PruneError> {
    let shapes = check(&model.spec, selected, pattern)?;
    let (mut model, mut reports) = (model, Vec::with_capacity(selected.len()));
    progress.begin("pruning", shapes.len() as u64, "matrices");
    for (id, ..) in shapes {
        let weights = model.matrix(id)?;
        let importance = statistics.and_then(|all| all.linears.get(&id)).map(|stats| stats.mean_square.as_slice());
        let scoring = importance.filter(|_| method == Method::Wanda);
        let mask = Mask::of_largest(id, pattern, scores(weights.view(), scoring).view())?;
        let mut pruned = weights.clone();
        mask.apply(&mut pruned)?;
        reports.push(MatrixReport::new(id, weights.view(), pruned.view(), importance));
        model = model.with_values(BTreeMap::from([(ParameterId::weight(id), into_values(pruned))]))?;
        progress.advance(1);
    }
    progress.finish();
    Ok((model, reports))
}

/// The selected linears with their (rows, columns), all of which the pattern divides.
///
/// # Errors
/// [`MaskError::Columns`] for the first that it does not.
pub fn check(
    spec: &ModelSpec,
    selected: &[LinearId],
    pattern: NmPattern,
) -> Result<Vec<(LinearId, usize, usize)>, MaskError> {
    let shapes: Vec<_> = spec.matrices().into_iter().filter(|(id, ..)| selected.contains(id)).collect();
    shapes.iter().try_for_each(|(id, _, columns)| pattern.check_columns(*id, *columns))?;
    Ok(shapes)
}

/// Why a model cannot be pruned.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The weights cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The pattern does not suit a matrix.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// The calibration run failed.
    #[error(transparent)]
    Calibrate(CalibrateError),
}

/// |w| · √h, or |w| without h.
fn scores(weights: ArrayView2<'_, f32>, importance: Option<&[f64]>) -> Array2<f32> {
    let columns = weights.ncols();
    let roots: Vec<f64> = match importance {
        Some(importance) => importance.iter().map(|h| h.sqrt()).collect(),
        None => vec![1.0; columns],
    };
    let score = |(n, weight): (usize, &f32)| (f64::from(weight.abs()) * roots[n % columns]) as f32;
    from_rows(row_major(weights).iter().enumerate().map(score).collect(), columns)
}

/// Σ h w² over the removed weights, as a share of all; h is 1 without importance.
fn energy_removed(weights: ArrayView2<'_, f32>, pruned: ArrayView2<'_, f32>, importance: Option<&[f64]>) -> f64 {
    let pairs = row_major(weights).iter().zip(row_major(pruned));
    let without = from_rows(pairs.map(|(w, p)| if *p == 0.0 { 0.0 } else { *w }).collect(), weights.ncols());
    energy_missed(weights, without.view(), importance)
}

/// Σ h (w − ŵ)² as a share of Σ h w²; h is 1 without importance.
fn energy_missed(weights: ArrayView2<'_, f32>, changed: ArrayView2<'_, f32>, importance: Option<&[f64]>) -> f64 {
    let columns = weights.ncols();
    let (mut missed, mut all) = (0.0, 0.0);
    for (n, (weight, changed)) in row_major(weights).iter().zip(row_major(changed)).enumerate() {
        let h = importance.map_or(1.0, |h| h[n % columns]);
        missed += h * f64::from(weight - changed).powi(2);
        all += h * f64::from(*weight).powi(2);
    }
    if all > 0.0 { missed / all } else { 0.0 }
}

/// A matrix rounded to w4.g32, dense.
fn in_four_bits(weights: ArrayView2<'_, f32>, importance: Option<&[f64]>) -> Array2<f32> {
    search::quantize_matrix(weights, QuantScheme::W4G32, importance).dequantize()
}

#[cfg(test)]
mod testing {
    use ndarray::{Array2, s};
    use slm_runtime::sample::random_u64;

    /// Even draws from [−½, ½).
    pub(super) fn random(seed: u64, rows: usize, columns: usize) -> Array2<f32> {
        let draw = |n: usize| (random_u64(seed, n as u64) >> 40) as f32 / (1 << 24) as f32 - 0.5;
        Array2::from_shape_fn((rows, columns), |(row, column)| draw(row * columns + column))
    }

    /// Gram matrix of inputs whose neighbouring channels move together.
    pub(super) fn correlated(columns: usize, tokens: usize) -> Array2<f64> {
        let noise = random(9, tokens, columns + 3).mapv(f64::from);
        let inputs = Array2::from_shape_fn((tokens, columns), |(token, j)| noise.slice(s![token, j..j + 4]).sum());
        inputs.t().dot(&inputs)
    }

    /// tr(E G Eᵀ)
    pub(super) fn error(weights: &Array2<f32>, pruned: &Array2<f32>, gram: &Array2<f64>) -> f64 {
        let miss = weights.mapv(f64::from) - pruned.mapv(f64::from);
        (miss.dot(gram) * miss).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn wanda_weighs_inputs_and_magnitude_does_not() {
        let weights = array![[1.0f32, -2.0, 3.0, -4.0], [4.0, 3.0, 2.0, 1.0]];
        let importance = [100.0f64, 0.25, 0.25, 0.25];
        let kept = |importance: Option<&[f64]>| {
            let id = LinearId::layer(0, crate::model::id::Role::Up);
            let scores = scores(weights.view(), importance);
            let mask = Mask::of_largest(id, NmPattern::TWO_OF_FOUR, scores.view()).expect("it divides");
            let mut pruned = weights.clone();
            mask.apply(&mut pruned).expect("as long");
            pruned
        };
        assert_eq!(kept(None), array![[0.0, 0.0, 3.0, -4.0], [4.0, 3.0, 0.0, 0.0]]);
        assert_eq!(kept(Some(&importance)), array![[1.0, 0.0, 0.0, -4.0], [4.0, 3.0, 0.0, 0.0]]);
        let gone = energy_removed(weights.view(), kept(None).view(), None);
        assert!((gone - 10.0 / 60.0).abs() < 1e-12, "{gone}");
        let weighted = energy_removed(weights.view(), kept(Some(&importance)).view(), Some(&importance));
        assert!((weighted - 4.5 / (1700.0 + 0.25 * 43.0)).abs() < 1e-12, "{weighted}");
    }
}
