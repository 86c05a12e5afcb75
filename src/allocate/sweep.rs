//! `slmc quantize --sweep`: the whole frontier, from every matrix in its smallest coding to every matrix in its largest.
//! The knapsack gives the best selection of every number of bytes at once; some of them, evenly spaced, are made,
//! compiled and measured on the runtime's integers, and beside them the presets.

use super::database::Database;
use super::error::AllocationError;
use super::items::Items;
use super::plan::probe;
use super::probe::Samples;
use super::report::{Cost, ItemReport};
use super::{Allocator, cost};
use crate::artifact::runner::ModelRunner;
use crate::calibrate::Statistics;
use crate::model::id::ParameterId;
use crate::model::scheme::{Assignment, Preset, QuantScheme};
use crate::model::size::{SizeError, WeightSize, stored_tensors};
use crate::model::transform::Sparsity;
use crate::model::weights::{Model, Parameter};
use crate::progress::Progress;
use crate::quantize::calibration::{Calibration, CalibrationText};
use crate::quantize::{mark_sparse, with_key_maps};
use crate::report::chart::{Bar, Chart, Point};
use crate::report::{Align, Report, Table, grouped};
use burn::tensor::Device;
use serde::Serialize;
use slm_runtime::layout::Layout;

/// Points of the frontier that are measured.
const POINTS: usize = 13;

/// The inputs of a sweep besides the model.
pub struct Sweep<'a> {
    /// The items that bits are allocated to.
    pub items: &'a Items,
    /// Every matrix in every coding.
    pub database: &'a Database,
    /// Patterns of the model's sparse matrices.
    pub sparsity: &'a Sparsity,
    /// Where the measured text comes from.
    pub source: &'a CalibrationText,
    /// The text that gradients are taken over.
    pub calibration: &'a Calibration,
    /// Statistics of the calibration, for key maps.
    pub statistics: &'a Statistics,
    /// Seed of label draws.
    pub seed: u64,
    /// Name and layout of the target.
    pub target: (&'a str, Layout),
    /// Runs artifacts.
    pub runner: &'a dyn ModelRunner,
    /// Where the f32 model runs.
    pub device: &'a Device,
}

/// One measured assignment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SweepPoint {
    /// `auto`, or the name of a preset.
    pub scheme: &'static str,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// 8 · bytes / parameters.
    pub bits_per_weight: f64,
    /// The costs of its items alone, added up.
    pub added_up: f64,
    /// On the runtime's integers.
    pub artifact: Cost,
    /// Items in 4 bits; one of which some rows are, with its scheme.
    pub four_bits: Vec<String>,
}

/// Result of `slmc quantize --sweep`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SweepReport {
    /// Name of the model's directory.
    pub model: String,
    /// Whose packing the sizes are for.
    pub target: String,
    /// Method of rounding.
    pub method: &'static str,
    /// The calibration text.
    pub calibration: String,
    /// Tokens of that.
    pub calibration_tokens: u64,
    /// The text that costs were measured on.
    pub measured_on: String,
    /// Tokens of that.
    pub measured_tokens: u64,
    /// Unit of costs.
    pub unit: &'static str,
    /// Parameters of the model.
    pub parameters: u64,
    /// Selections on the frontier in all.
    pub frontier: u64,
    /// Measured ones, bytes ascending.
    pub points: Vec<SweepPoint>,
    /// Presets, for comparison.
    #[serde(rename = "mixes")]
    pub presets: Vec<SweepPoint>,
    /// Every item, with the coding it has in the middle of the frontier.
    pub items: Vec<ItemReport>,
}

impl Sweep<'_> {
    /// Predicts, measures and draws up the frontier.
    pub fn run(
        &self,
        model: &Model,
        method: &'static str,
        progress: &dyn Progress,
    ) -> Result<SweepReport, AllocationError> {
        let Sweep { items, database, source, calibration, seed, runner, device, .. } = *self;
        let (probe, measured_on) = probe(model, source, calibration, runner, device, progress)?;
        let allocator =
            Allocator { model, items, calibration, probe: &probe, measured_on: &measured_on, database, seed, device };
        let sensitivities = allocator.sensitivities(progress)?;
        let (costs, frontier) = (sensitivities.costs(), sensitivities.frontier(items));
        let all = frontier.points();
        let (Some(first), Some(last)) = (all.first(), all.last()) else {
            return Err(SizeError::NoScheme(items.items[0].members[0]).into());
        };
        let mut selections: Vec<Vec<usize>> = (0..POINTS as u64)
            .filter_map(|n| frontier.best_within(first.0 + (last.0 - first.0) * n / (POINTS as u64 - 1), u64::MAX))
            .collect();
        selections.dedup();
        let presets: Vec<(&'static str, Vec<usize>)> = Preset::ALL
            .into_iter()
            .filter_map(|preset| Some((preset.name(), self.selection(model, preset)?)))
            .collect();
        progress.begin("measuring the frontier", (selections.len() + presets.len()) as u64, "assignments");
        let parameters = model.spec.parameter_count();
        let measure = |scheme: &'static str, selection: &[usize]| -> Result<SweepPoint, AllocationError> {
            let samples: Samples = probe.artifact(&self.assemble(model, selection)?)?;
            progress.advance(1);
            let weight_bytes = items.bytes(selection);
            let taken = items.items.iter().zip(selection).map(|(item, &coding)| (item, item.codings[coding].scheme));
            let four_bits = taken.filter_map(|(item, scheme)| match scheme {
                QuantScheme::W8 => None,
                QuantScheme::W4G32 => Some(item.name.clone()),
                other => Some(format!("{} in {other}", item.name)),
            });
            Ok(SweepPoint {
                scheme,
                weight_bytes,
                bits_per_weight: 8.0 * weight_bytes as f64 / parameters as f64,
                added_up: selection.iter().enumerate().map(|(item, &coding)| costs[item][coding]).sum(),
                artifact: cost(&samples),
                four_bits: four_bits.collect(),
            })
        };
        let points = selections.iter().map(|selection| measure("auto", selection)).collect::<Result<Vec<_>, _>>()?;
        let named = presets.iter().map(|(name, selection)| measure(name, selection)).collect::<Result<Vec<_>, _>>()?;
        progress.finish();
        let middle = selections[selections.len() / 2].clone();
        let name = model.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Ok(SweepReport {
            model: name,
            target: self.target.0.to_owned(),
            method,
            calibration: calibration.description.clone(),
            calibration_tokens: calibration.tokens() as u64,
            measured_on,
            measured_tokens: probe.tokens(),
            unit: probe.unit(),
            parameters,
            frontier: all.len() as u64,
            points,
            presets: named,
            items: sensitivities.reports(items, &middle),
        })
    }

    /// The selection that a preset is, where every item has its scheme.
    fn selection(&self, model: &Model, preset: Preset) -> Option<Vec<usize>> {
        let wanted: Assignment = preset.assign(&model.spec);
        let items = self.items.items.iter();
        items.map(|item| item.codings.iter().position(|coding| coding.scheme == wanted[&item.members[0]])).collect()
    }

    /// The model with every item in a coding.
    fn assemble(&self, model: &Model, selection: &[usize]) -> Result<Model, AllocationError> {
        let mut quantized = model.clone();
        for (id, scheme) in self.items.assignment(selection) {
            let matrix = self.database.matrix(id, scheme).into_owned();
            quantized.parameters.insert(ParameterId::weight(id), Parameter::Quantized(matrix));
        }
        mark_sparse(&mut quantized, self.sparsity);
        let quantized = with_key_maps(quantized, self.statistics)?;
        debug_assert_eq!(self.items.bytes(selection), self.size(&quantized));
        Ok(quantized)
    }

    fn size(&self, model: &Model) -> u64 {
        let (spec, schemes) = (&model.spec, model.schemes());
        let tensors = stored_tensors(spec, &schemes, self.sparsity, self.target.1, spec.context, true);
        tensors.map_or(0, |tensors| WeightSize::of(spec, &tensors).weight_bytes)
    }
}

impl SweepReport {
    /// The frontier over bytes, and the cost of every item in its smallest coding.
    pub fn chart(&self) -> Chart {
        let point = |point: &SweepPoint, label: bool| Point {
            x: point.weight_bytes as f64,
            y: point.artifact.mean,
            error: point.artifact.stderr,
            label: label.then(|| format!("{}: {:.2} bits", point.scheme, point.bits_per_weight)),
        };
        let bar = |item: &ItemReport| {
            let (first, last) = (item.codings.first()?, item.codings.last()?);
            let measured = last.measured?;
            Some(Bar {
                name: item.name.clone(),
                value: measured.mean,
                tick: Some(last.predicted),
                note: format!("saves {} bytes", grouped(first.bytes - last.bytes)),
            })
        };
        Chart {
            title: format!("{}: bytes against {}", self.model, self.unit),
            subtitle: format!(
                "target {}, {}; on the runtime's integers, {} tokens of {}",
                self.target,
                self.method,
                grouped(self.measured_tokens),
                self.measured_on
            ),
            x_axis: "bytes of weights (line: best assignment of its bytes; orange: presets)".to_owned(),
            y_axis: self.unit.to_owned(),
            line: self.points.iter().map(|found| point(found, false)).collect(),
            others: self.presets.iter().map(|found| point(found, true)).collect(),
            bars_title: format!(
                "Every item alone in its smallest scheme, {}: measured (bar), predicted (tick)",
                self.unit
            ),
            bars: self.items.iter().filter_map(bar).collect(),
        }
    }
}

impl Report for SweepReport {
    const SCHEMA: &'static str = "slmc.sweep/1";

    fn text(&self) -> String {
        let right = Align::Right;
        let mut points = Table::new([
            ("assignment", Align::Left),
            ("bytes", right),
            ("bits", right),
            (self.unit, right),
            ("error", right),
            ("items in 4 bits", right),
        ]);
        let mut rows: Vec<&SweepPoint> = self.points.iter().chain(&self.presets).collect();
        rows.sort_by_key(|point| point.weight_bytes);
        for point in rows {
            points.row([
                point.scheme,
                &grouped(point.weight_bytes),
                &format!("{:.3}", point.bits_per_weight),
                &format!("{:.6}", point.artifact.mean),
                &point.artifact.stderr.map_or_else(|| "-".to_owned(), |error| format!("{error:.6}")),
                &format!("{} of {}", point.four_bits.len(), self.items.len()),
            ]);
        }
        let mut items = Table::new([
            ("item", Align::Left),
            ("smallest saves", right),
            ("costs, predicted", right),
            ("measured", right),
            ("per megabyte saved", right),
        ]);
        for item in &self.items {
            let (Some(first), Some(last)) = (item.codings.first(), item.codings.last()) else { continue };
            let saved = first.bytes - last.bytes;
            let measured = last.measured.map(|cost| cost.mean);
            let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2e}"));
            items.row([
                item.name.as_str(),
                &grouped(saved),
                &number(Some(last.predicted)),
                &number(measured),
                &number(measured.map(|cost| cost / (saved.max(1) as f64 / 1e6))),
            ]);
        }
        let mut sums = Table::pairs();
        sums.row(["calibration", &format!("{}, {} tokens", self.calibration, grouped(self.calibration_tokens))]);
        sums.row(["measured on", &format!("{}, {} tokens", self.measured_on, grouped(self.measured_tokens))]);
        sums.row(["frontier", &format!("{} assignments, {} measured", grouped(self.frontier), self.points.len())]);
        format!("{points}\n\n{items}\n\n{sums}")
    }
}
