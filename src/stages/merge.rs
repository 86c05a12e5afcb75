//! `slmc merge`: a base and its adapters become one dense directory, tensor by tensor.

use super::error::StageError;
use super::import;
use super::invocation::Invocation;
use super::limits::check_memory;
use super::provenance::{Inputs, of_weights};
use super::stage::{RunSettings, check_output};
use crate::disk::atomic;
use crate::formats::adapter::{AdapterSource, AdapterSummary, Weighted};
use crate::formats::{self, ModelSink, ModelSource, hugging_face};
use crate::machine::PORTABLE;
use crate::progress::Progress;
use crate::report::{Align, Report, Table, grouped};
use crate::text::tokenizer::Tokenizer;
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Result of `slmc merge`.
#[derive(Clone, Debug, Serialize)]
pub struct MergeReport {
    /// The directory of the base.
    pub base: PathBuf,
    /// Its format, as messages call it.
    pub format: &'static str,
    /// What each adapter changes.
    pub adapters: Vec<AdapterSummary>,
    /// Tensors that are not the base's.
    pub changed: usize,
    /// All tensors of the model.
    pub tensors: usize,
    /// Rows of the token table.
    pub vocabulary: usize,
    /// Directory that was written.
    pub out: PathBuf,
}

impl Report for MergeReport {
    const SCHEMA: &'static str = "slmc.merge/1";

    fn text(&self) -> String {
        let mut table = Table::new([
            ("adapter", Align::Left),
            ("weight", Align::Right),
            ("modules", Align::Right),
            ("ranks", Align::Left),
            ("whole tensors", Align::Right),
        ]);
        for adapter in &self.adapters {
            let ranks: Vec<String> = adapter.ranks.iter().map(ToString::to_string).collect();
            let ranks = format!("{}{}", ranks.join(", "), if adapter.dora { ", DoRA" } else { "" });
            let path = adapter.path.display().to_string();
            let (weight, modules) = (adapter.weight.to_string(), adapter.modules.to_string());
            table.row([path.as_str(), &weight, &modules, &ranks, &adapter.replaced.to_string()]);
        }
        let mut sums = Table::pairs();
        sums.row(["base", &format!("{}, {}", self.base.display(), self.format)]);
        sums.row(["changed tensors", &format!("{} of {}", self.changed, self.tensors)]);
        sums.row(["vocabulary", &grouped(self.vocabulary as u64)]);
        sums.row(["output", &self.out.display().to_string()]);
        format!("{table}\n\n{sums}")
    }
}

/// Merges adapters into a base, in their order, and writes the result.
///
/// # Errors
/// [`StageError`], or more memory than `run` allows; nothing is written then.
pub fn merge_directory(
    base: &Path,
    adapters: &[Weighted],
    out: &Path,
    run: &RunSettings,
    progress: &dyn Progress,
) -> anyhow::Result<MergeReport> {
    atomic::check_directory(out).map_err(StageError::from)?;
    let read: Vec<&Path> = std::iter::once(base).chain(adapters.iter().map(|adapter| adapter.path.as_path())).collect();
    check_output(Some(out), &read)?;
    let source = AdapterSource::open(formats::open(base)?, adapters)?;
    // As `import`, with the adapters in f32 beside the tensor that is made.
    let need = import::memory_estimate(&source.outline().spec) + source.held_bytes();
    check_memory(run, need, "merging")?;
    progress.needs("merging", need);
    Ok(merged(&source, base, adapters, out)?)
}

/// The work of [`merge_directory`].
fn merged(source: &AdapterSource, base: &Path, adapters: &[Weighted], out: &Path) -> Result<MergeReport, StageError> {
    let model = source.model()?;
    // Whole tensors of an adapter may have fewer rows than the base: those of padding, not of its tokens.
    if let Ok(mut tokenizer) = Tokenizer::of(&model.companions) {
        tokenizer.check(model.spec.vocabulary)?;
    }
    let sparsity = source.recorded_sparsity()?;
    let report = MergeReport {
        base: base.to_owned(),
        format: formats::name(base),
        adapters: source.summaries().to_vec(),
        changed: source.changed(),
        tensors: model.parameters.len(),
        vocabulary: model.spec.vocabulary,
        out: out.to_owned(),
    };
    let mut inputs = Inputs::default().model("base", base)?;
    for adapter in adapters {
        inputs = inputs.files("adapter", &AdapterSource::files(&adapter.path))?;
    }
    let settings = json!({
        "base": base.file_name().map(|name| name.to_string_lossy()),
        "adapters": adapters.iter().map(|adapter| json!({
            "name": adapter.path.file_name().map(|name| name.to_string_lossy()),
            "weight": adapter.weight,
        })).collect::<Vec<_>>(),
    });
    let metrics = json!({"changed_tensors": report.changed});
    // Not a stage of recipes: its settings are the whole command.
    let settings = (settings, &Invocation::default());
    let provenance = of_weights(("merge", PORTABLE), &inputs, settings, &sparsity, metrics);
    hugging_face::Directory(out).write(&model, &provenance)?;
    Ok(report)
}
