//! What `--lora-output adapter` writes of a run of `slmc train` and `slmc distill`: the adapters alone, which stand on the directory that
//! the run started from.

use super::StageError;
use super::arguments::scope::LoraOutput;
use super::training::{Start, TrainOptions};
use crate::formats::adapter::NewAdapter;
use crate::model::companions::Companions;
use crate::model::id::LinearId;
use crate::model::weights::Model;
use crate::train::parameters::{Parameters, TrainedId};
use crate::train::scope::Scope;

/// Refuses to write adapters that have no base to stand on.
///
/// # Errors
/// [`StageError::NoBase`].
pub fn check_adapter(options: &TrainOptions, has_weights: bool, gains_classifier: bool) -> Result<(), StageError> {
    let problem = match &options.start {
        _ if options.lora_output == LoraOutput::Merged => return Ok(()),
        Start::Cut(_) | Start::CutTo(..) => "a student cut out of the teacher, which is no directory",
        Start::Layers(_) => "some layers of the teacher, which are no directory",
        Start::Path(_) if gains_classifier => "an encoder that is given its classifier here",
        Start::Path(_) if !has_weights => "a configuration without weights",
        Start::Path(_) => return Ok(()),
    };
    Err(StageError::NoBase(problem))
}

/// The adapters of a finished run, where they are to be written and not merged: `model` has them merged.
pub(super) fn new_adapter<'w>(
    options: &'w TrainOptions,
    scope: &'w Scope,
    (model, companions): (&'w Model, &'w Companions),
    adapters: &'w Parameters,
) -> Option<NewAdapter<'w>> {
    let (LoraOutput::Adapter, Some(lora), Start::Path(base)) =
        (options.lora_output, &options.scope.lora, &options.start)
    else {
        return None;
    };
    let pair = |id: &LinearId| {
        let (a, b) = (adapters.get(&TrainedId::AdapterA(*id))?, adapters.get(&TrainedId::AdapterB(*id))?);
        Some((*id, [a.as_slice(), b.as_slice()]))
    };
    Some(NewAdapter {
        base,
        model,
        rank: lora.rank,
        alpha: lora.alpha,
        pairs: scope.adapters().keys().filter_map(pair).collect(),
        whole: scope.whole()?,
        companions: options.tokenizer.as_ref().map(|_| companions),
    })
}
