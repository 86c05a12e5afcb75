//! One round of federated averaging (McMahan et al. 2017): models that several clients trained from the same start become one.
//!
//! ```text
//! uᵢ = wᵢ − w₀                                        the update of client i, with share sᵢ = tokensᵢ / Σ tokens
//! w  = w₀ + Σ sᵢ · min(1, C / ‖uᵢ‖) · uᵢ + N(0, (z · C · max s)²)
//! ```
//!
//! Sums in f64, clients in their order. ‖uᵢ‖ is over all parameters. With z the noise is z times the most that one client can
//! change, from the generator of private training; a parameter that no client changed stays as it is.

use super::optimizer::Gradients;
use super::parameters::TrainedId;
use super::privacy::randomness::{NoRandomness, Randomness};
use crate::model::id::ParameterId;
use crate::model::weights::{Model, ModelError};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Elements of one task.
const BLOCK: usize = 1 << 14;

/// How updates are averaged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Averaging {
    /// Largest norm of an update, C.
    pub clip: Option<f64>,
    /// Noise over the most that one client can change, z.
    pub noise: Option<f64>,
}

/// Why nothing is averaged.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// The values cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The operating system has no random numbers.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// An update that is not finite.
    #[error("the update of client {client} is not finite in {parameter}; leave that client out")]
    NotFinite {
        /// Counted from 1, in the order in which they were given.
        client: usize,
        /// The parameter.
        parameter: ParameterId,
    },
}

/// The average.
pub struct Averaged {
    /// Every value.
    pub values: BTreeMap<ParameterId, Vec<f32>>,
    /// ‖uᵢ‖ of every client.
    pub norms: Vec<f64>,
    /// Norm of the averaged update, without noise.
    pub norm: f64,
    /// Standard deviation of the noise.
    pub deviation: f64,
}

fn difference(client: &Model, start: &[f32], id: ParameterId) -> Result<Vec<f64>, ModelError> {
    let values = client.values_f32(id)?;
    Ok(values.iter().zip(start).map(|(value, start)| f64::from(*value) - f64::from(*start)).collect())
}

fn square(values: &[f64]) -> f64 {
    let blocks: Vec<f64> =
        values.par_chunks(BLOCK).map(|block| block.iter().map(|value| value * value).sum()).collect();
    blocks.iter().sum()
}

/// Averages the updates of `clients`, all of the start's shapes, with `shares` that add to 1.
///
/// # Errors
/// [`RoundError`].
pub fn average(
    start: &Model,
    clients: &[Model],
    shares: &[f64],
    averaging: &Averaging,
) -> Result<Averaged, RoundError> {
    let ids: Vec<ParameterId> = start.spec.parameters().iter().map(|parameter| parameter.id).collect();
    let mut squares = vec![0.0; clients.len()];
    for id in &ids {
        let values = start.values_f32(*id)?;
        for (number, (client, square_of)) in clients.iter().zip(&mut squares).enumerate() {
            let own = square(&difference(client, &values, *id)?);
            if !own.is_finite() {
                return Err(RoundError::NotFinite { client: number + 1, parameter: *id });
            }
            *square_of += own;
        }
    }
    let norms: Vec<f64> = squares.into_iter().map(f64::sqrt).collect();
    let factor = |(share, norm): (&f64, &f64)| match averaging.clip {
        Some(clip) if *norm > clip => share * clip / norm,
        _ => *share,
    };
    let factors: Vec<f64> = shares.iter().zip(&norms).map(factor).collect();
    let largest = shares.iter().fold(0.0f64, |most, share| most.max(*share));
    let deviation = averaging.noise.unwrap_or(0.0) * averaging.clip.unwrap_or(0.0) * largest;
    let randomness = if deviation > 0.0 { Some(Randomness::new(None)?) } else { None };
    let (mut all, mut norm) = (BTreeMap::new(), 0.0);
    for (number, id) in ids.into_iter().enumerate() {
        let values = start.values_f32(id)?;
        let mut update = vec![0.0f64; values.len()];
        let mut changed = false;
        for (client, factor) in clients.iter().zip(&factors) {
            let own = difference(client, &values, id)?;
            changed |= own.iter().any(|value| *value != 0.0);
            update.iter_mut().zip(own).for_each(|(update, own)| *update += factor * own);
        }
        norm += square(&update);
        if let Some(randomness) = randomness.as_ref().filter(|_| changed) {
            // The step of its stream is the parameter's number.
            let key = TrainedId::Parameter(id);
            let mut noise = Gradients::from([(key, vec![0.0; update.len()])]);
            randomness.add_noise(&mut noise, deviation, number as u64);
            let noise = noise.remove(&key).unwrap_or_default();
            update.iter_mut().zip(noise).for_each(|(update, noise)| *update += f64::from(noise));
        }
        let averaged = values.iter().zip(&update).map(|(value, update)| (f64::from(*value) + update) as f32);
        all.insert(id, averaged.collect());
    }
    Ok(Averaged { values: all, norms, norm: norm.sqrt(), deviation })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DenseTensor;
    use crate::formats::open_model;
    use crate::model::weights::Parameter;

    fn start() -> Model {
        open_model(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/golden/llama-gqa-tied").as_ref()).expect("a model")
    }

    /// The start with `by` added to every value of its norms.
    fn moved(by: f32) -> Model {
        let mut model = start();
        for parameter in model.spec.parameters() {
            if let ParameterId::Norm(..) = parameter.id {
                let values: Vec<f32> =
                    model.values_f32(parameter.id).expect("values").iter().map(|value| value + by).collect();
                let tensor = DenseTensor::from_f32(parameter.shape, &values).expect("its shape");
                model.parameters.insert(parameter.id, Parameter::Dense(tensor));
            }
        }
        model
    }

    /// What was added to the first norm, and the largest change of a matrix.
    fn change(averaged: &Averaged) -> (f64, f64) {
        let start = start();
        let (mut of_norms, mut of_matrices) = (Vec::new(), 0.0f64);
        for (id, values) in &averaged.values {
            let before = start.values_f32(*id).expect("values");
            let changes = values.iter().zip(&before).map(|(value, before)| f64::from(value - before));
            match id {
                ParameterId::Norm(..) => of_norms.extend(changes),
                _ => of_matrices = changes.fold(of_matrices, |most, change| most.max(change.abs())),
            }
        }
        (of_norms.iter().sum::<f64>() / of_norms.len() as f64, of_matrices)
    }

    #[test]
    fn updates_are_weighted_and_clipped() {
        let clients = [moved(0.25), moved(-0.5)];
        let plain = average(&start(), &clients, &[0.75, 0.25], &Averaging::default()).expect("it can be averaged");
        let (of_norms, of_matrices) = change(&plain);
        assert!((of_norms - (0.75 * 0.25 - 0.25 * 0.5)).abs() < 1e-4 && of_matrices == 0.0, "{of_norms}");
        assert!((plain.norms[1] / plain.norms[0] - 2.0).abs() < 1e-3, "{:?}", plain.norms);
        // Both are cut to the shorter one: the second counts half.
        let averaging = Averaging { clip: Some(plain.norms[0]), noise: None };
        let clipped = average(&start(), &clients, &[0.75, 0.25], &averaging).expect("it can be averaged");
        assert!((change(&clipped).0 - (0.75 - 0.25) * 0.25).abs() < 1e-4);
    }

    #[test]
    fn noise_is_for_what_was_trained_and_another_every_time() {
        let clients = [moved(0.25), moved(0.25)];
        let averaging = Averaging { clip: Some(1.0), noise: Some(0.5) };
        let once = average(&start(), &clients, &[0.5, 0.5], &averaging).expect("it can be averaged");
        let again = average(&start(), &clients, &[0.5, 0.5], &averaging).expect("it can be averaged");
        assert_eq!((once.deviation, change(&once).1), (0.25, 0.0));
        assert!(once.values != again.values);
    }
}
