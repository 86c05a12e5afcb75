//! Projections between hidden states of different widths, by least squares: of every compared pair the P that makes h_s P the
//! nearest to h_t over some tokens. Training starts from them.

use super::ShrinkError;
use super::least_squares::Residuals;
use crate::calibrate::batches::{Batches, with_values};
use crate::model::forward::{DenseWeights, StagedForward};
use crate::model::spec::Head;
use crate::model::weights::Model;
use burn::tensor::{Device, Tensor};
use ndarray::Array2;
use slm_numerics::product::{Left, Matrix, Output, Right, multiply};

/// Tokens that projections are fitted on, about.
const TOKENS: usize = 10_000;

/// A projection (student width, teacher width), row-major, for every pair of hidden states (student, teacher), counted from
/// the embedding output. None where the widths are one.
///
/// # Errors
/// [`ShrinkError`].
pub fn projections(
    teacher: &Model,
    student: &Model,
    pairs: &[(usize, usize)],
    sequences: &[Vec<u32>],
    device: &Device,
) -> Result<Vec<Vec<f32>>, ShrinkError> {
    let (own, other) = (student.spec.hidden, teacher.spec.hidden);
    if own == other {
        return Ok(Vec::new());
    }
    let mut tokens = 0;
    let few: Vec<Vec<u32>> = sequences
        .iter()
        .take_while(|sequence| {
            let before = tokens;
            tokens += sequence.len();
            before < TOKENS
        })
        .cloned()
        .collect();
    let (of_teacher, of_student) = (states(teacher, &few, device)?, states(student, &few, device)?);
    pairs.iter().map(|&(at, of)| fit(&of_student[at], &of_teacher[of], own, other)).collect()
}

/// Hidden states by number, batch by batch; the last are finished, as transformers counts.
fn states(model: &Model, sequences: &[Vec<u32>], device: &Device) -> Result<Vec<Vec<Tensor<3>>>, ShrinkError> {
    let weights = DenseWeights::new(model, device)?;
    let forward = StagedForward::new(&model.spec, &weights, device);
    let batches = Batches::new(&model.spec, sequences, &forward)?;
    let layers = model.spec.layers.len();
    let mut states = vec![Vec::new(); layers + 1];
    for batch in &batches.batches {
        let mut hidden = forward.embed(batch);
        for (layer, states) in states[..layers].iter_mut().enumerate() {
            states.push(hidden.clone());
            hidden = forward.block(layer, hidden, batches.context(batch));
        }
        // The head of a language model reads every finished state; other heads have no norm before them.
        let language = matches!(model.spec.head, Head::LanguageModel { .. });
        states[layers].push(if language { forward.head_input(hidden) } else { hidden });
    }
    Ok(states)
}

fn fit(student: &[Tensor<3>], teacher: &[Tensor<3>], own: usize, other: usize) -> Result<Vec<f32>, ShrinkError> {
    let mut gram = Array2::<f64>::zeros((own, own));
    let mut crossed = vec![0.0f64; other * own];
    let mut block = vec![0.0f32; own.max(other) * own];
    for (student, teacher) in student.iter().zip(teacher) {
        with_values(student, |student| {
            with_values(teacher, |teacher| {
                let right = || Right::Rows(Matrix::new(student, own));
                let part = &mut block[..own * own];
                multiply(Output::over(part, own), Left::Columns(Matrix::new(student, own)), right());
                gram.iter_mut().zip(part.iter()).for_each(|(sum, value)| *sum += f64::from(*value));
                let part = &mut block[..other * own];
                multiply(Output::over(part, own), Left::Columns(Matrix::new(teacher, other)), right());
                crossed.iter_mut().zip(part.iter()).for_each(|(sum, value)| *sum += f64::from(*value));
            })
        })??;
    }
    // The rows of Pᵀ; a state that is zero throughout has none, and its projection nothing to learn from.
    let solved = Residuals::of(gram, crossed).solve().map_or_else(|| vec![0.0; other * own], |(rows, _)| rows);
    Ok((0..own * other).map(|index| solved[index % other * own + index / other] as f32).collect())
}
