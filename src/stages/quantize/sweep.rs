//! The work of `slmc quantize --sweep`: the frontier of a directory's assignments, measured and drawn.

use super::options::QuantizeOptions;
use crate::allocate::database::database;
use crate::allocate::items::Items;
use crate::allocate::sweep::{Sweep, SweepReport};
use crate::calibrate::collect;
use crate::disk::atomic;
use crate::formats;
use crate::progress::Progress;
use crate::quantize::calibration;
use crate::report::chart::CHART_MAGIC;
use crate::stages::StageError;
use crate::stages::runner::Compiled;
use burn::tensor::Device;
use std::io::Write;
use std::path::Path;

/// Measures the whole frontier of a directory's assignments and draws it; no model is written.
///
/// # Errors
/// [`StageError`].
pub fn sweep_directory(
    options: &QuantizeOptions,
    chart: &Path,
    device: &Device,
    progress: &dyn Progress,
) -> Result<SweepReport, StageError> {
    atomic::check_file(chart, CHART_MAGIC)?;
    let input = formats::open(&options.model)?;
    let model = input.model()?;
    if model.is_quantized() {
        return Err(StageError::AlreadyQuantized { path: options.model.clone() });
    }
    let sparsity = input.recorded_sparsity()?;
    let items = Items::of(&model.spec, &options.keeps, &sparsity, options.target.layout, &|_| 0)?;
    model.check_sparsity(&sparsity)?;
    let calibration = calibration::calibration(&model, &options.source, options.calibration_tokens, progress)?;
    let sequences = &calibration.sequences;
    let statistics = collect(&model, sequences, device, progress)?;
    let database =
        database(&model, &items.items, &sparsity, (options.method, options.scales()), sequences, device, progress)?;
    let sweep = Sweep {
        items: &items,
        database: &database,
        sparsity: &sparsity,
        source: &options.source,
        calibration: &calibration,
        statistics: &statistics,
        seed: options.seed,
        target: (&options.target.name, options.target.layout),
        runner: &Compiled,
        device,
    };
    let report = sweep.run(&model, options.method.name(), progress)?;
    atomic::write_file(chart, CHART_MAGIC, |file| file.write_all(report.chart().svg().as_bytes()))?;
    Ok(report)
}
