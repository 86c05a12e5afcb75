//! Bit allocation: which items of a model get which scheme, so that the weights stay within a budget of bytes and the
//! model changes least. The cost of every item alone is predicted from one pass of gradients ([`fisher`]) and measured
//! ([`probe`]); the knapsack ([`knapsack`]) takes the best sum within the budget; the assignment is run whole and improved by
//! swaps ([`improve`]). Everything is decided by the inputs and the seed, for any number of threads.

pub mod database;
pub mod error;
pub mod fisher;
mod gradients;
pub mod improve;
pub mod items;
pub mod knapsack;
pub mod limits;
pub mod plan;
pub mod probe;
pub mod report;
pub mod sweep;
pub mod widths;

use crate::divergence::{Sample, mean_and_error};
use crate::model::weights::Model;
use crate::progress::Progress;
use crate::quantize::calibration::Calibration;
use burn::tensor::Device;
use database::Database;
use error::AllocationError;
use items::{Coding, Item, Items};
use knapsack::{Choice, Frontier};
use limits::{Limits, largest_bytes};
use probe::{Probe, Samples};
use report::{AllocationReport, CodingReport, Cost, ItemReport, rank_correlation};

/// Costs of items alone.
pub struct Sensitivities {
    /// From gradients, `[item][coding]`.
    pub predicted: Vec<Vec<f64>>,
    /// By running them, `[item][coding]`. The largest coding is not run: it costs next to nothing, and its prediction
    /// stands.
    pub measured: Vec<Vec<Option<Cost>>>,
}

impl Sensitivities {
    /// The costs that the knapsack adds up.
    pub fn costs(&self) -> Vec<Vec<f64>> {
        let of_coding = |(measured, predicted): (&Option<Cost>, &f64)| measured.map_or(*predicted, |cost| cost.mean);
        let items = self.measured.iter().zip(&self.predicted);
        items.map(|(measured, predicted)| measured.iter().zip(predicted).map(of_coding).collect()).collect()
    }

    /// The best selection of every number of bytes; bytes are of the items alone.
    pub fn frontier(&self, items: &Items) -> Frontier {
        let choices = |(item, costs): (&Item, Vec<f64>)| -> Vec<Choice> {
            let choice = |(coding, cost): (&Coding, f64)| Choice { bytes: coding.bytes, time: coding.time, cost };
            item.codings.iter().zip(costs).map(choice).collect()
        };
        Frontier::new(&items.items.iter().zip(self.costs()).map(choices).collect::<Vec<_>>())
    }

    /// Whether predictions order items in their smallest codings as measurements do.
    pub fn rank_correlation(&self) -> Option<f64> {
        let last = self
            .predicted
            .iter()
            .zip(&self.measured)
            .filter_map(|(predicted, measured)| Some((*predicted.last()?, (*measured.last()?)?.mean)));
        rank_correlation(&last.collect::<Vec<_>>())
    }

    /// Every item with its codings.
    pub fn reports(&self, items: &Items, selection: &[usize]) -> Vec<ItemReport> {
        let of_item = |(n, item): (usize, &Item)| ItemReport {
            name: item.name.clone(),
            chosen: item.codings[selection[n]].scheme.to_string(),
            codings: (0..item.codings.len())
                .map(|coding| CodingReport {
                    scheme: item.codings[coding].scheme.to_string(),
                    bytes: item.codings[coding].bytes,
                    predicted: self.predicted[n][coding],
                    measured: self.measured[n][coding],
                })
                .collect(),
        };
        items.items.iter().enumerate().map(of_item).collect()
    }
}

/// Mean and error of samples.
pub fn cost(samples: &[Sample]) -> Cost {
    let (mean, stderr) = mean_and_error(samples);
    Cost { mean, stderr }
}

/// The inputs of an allocation.
pub struct Allocator<'a> {
    /// Dense.
    pub model: &'a Model,
    /// Items of the model.
    pub items: &'a Items,
    /// The text that gradients are taken over.
    pub calibration: &'a Calibration,
    /// The probe of the model, over text it was not calibrated on where there is any.
    pub probe: &'a Probe<'a>,
    /// Name of that text.
    pub measured_on: &'a str,
    /// Every matrix in every coding.
    pub database: &'a Database,
    /// Seed of label draws.
    pub seed: u64,
    /// Where the f32 model runs.
    pub device: &'a Device,
}

impl Allocator<'_> {
    /// Predicts and measures.
    pub fn sensitivities(&self, progress: &dyn Progress) -> Result<Sensitivities, AllocationError> {
        let Allocator { model, database, device, .. } = self;
        let items = &self.items.items;
        let sequences = &self.calibration.sequences;
        let predicted = fisher::predict(model, items, database, sequences, self.seed, device, progress)?;
        let measured = self.probe.alone(items, database, progress)?;
        let of_item =
            |item: &Vec<Samples>| [None].into_iter().chain(item.iter().map(|found| Some(cost(found)))).collect();
        let measured = measured.iter().map(of_item).collect();
        Ok(Sensitivities { predicted, measured })
    }

    /// Chooses a scheme for every matrix within limits that something keeps.
    ///
    /// # Errors
    /// [`AllocationError::Both`] where bytes and time can be kept, but not together.
    pub fn allocate(
        &self,
        limits: &Limits,
        progress: &dyn Progress,
    ) -> Result<(Vec<usize>, AllocationReport), AllocationError> {
        let Allocator { items, probe, database, .. } = *self;
        let sensitivities = self.sensitivities(progress)?;
        let costs = sensitivities.costs();
        let bytes = limits.bytes.saturating_sub(items.fixed_bytes);
        let time = limits.time.map_or(u64::MAX, |time| time.saturating_sub(items.fixed_time));
        let selection = sensitivities.frontier(items).best_within(bytes, time).ok_or(AllocationError::Both)?;
        let added_up = selection.iter().enumerate().map(|(item, &coding)| costs[item][coding]).sum();
        progress.begin("measuring the assignment", 1, "assignments");
        let samples = probe.assignment(&items.items, &selection, database, probe.all())?;
        progress.finish();
        let knapsack = cost(&samples);
        let improved = improve::improve(probe, items, database, &costs, limits, selection, samples, progress)?;
        let report = AllocationReport {
            budget_bytes: limits.bytes,
            chosen_bytes: items.bytes(&improved.selection),
            smallest_bytes: items.smallest_bytes(),
            largest_bytes: largest_bytes(items),
            unit: probe.unit(),
            measured_on: self.measured_on.to_owned(),
            measured_tokens: probe.tokens(),
            measured_sequences: probe.sequences(),
            rank_correlation: sensitivities.rank_correlation(),
            added_up,
            knapsack,
            swaps: improved.swaps,
            trials: improved.trials as u64,
            improved: cost(&improved.samples),
            activations: None,
            artifact: None,
            plan: None,
            items: sensitivities.reports(items, &improved.selection),
        };
        Ok((improved.selection, report))
    }
}
