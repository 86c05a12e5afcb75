//! What `--lora-output adapter` writes of a run of `slmc train` and `slmc distill`: the adapters alone, which stand on the directory that
//! the run started from.

use super::StageError;
use super::arguments::scope::LoraOutput;
use super::training::{Start, TrainOptions};
use crate::formats::ModelFormatError;
use crate::formats::adapter::NewAdapter;
use crate::formats::adapter::error::AdapterError;
use crate::model::companions::Companions;
use crate::model::families::{FAMILIES, Family};
use crate::model::id::{LinearId, ParameterId, Part};
use crate::model::spec::{Head, ModelSpec};
use crate::model::weights::Model;
use crate::train::parameters::{Parameters, TrainedId};
use crate::train::scope::Scope;
use std::collections::BTreeMap;

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

/// Refuses to write adapters of modules that slmc holds otherwise than the files do, where `scope` has some.
///
/// # Errors
/// [`AdapterError::Unwritten`].
pub fn check_modules(options: &TrainOptions, spec: &ModelSpec, scope: &Scope) -> Result<(), StageError> {
    match options.lora_output {
        LoraOutput::Merged => Ok(()),
        LoraOutput::Adapter => Ok(check_stored(spec, scope).map_err(ModelFormatError::from)?),
    }
}

/// Every stored tensor is held as the files have it, with all matrices in it, or has no adapter.
fn check_stored(spec: &ModelSpec, scope: &Scope) -> Result<(), AdapterError> {
    const TABLE: &[Family] = &FAMILIES;
    let Some(family) = TABLE.iter().find(|family| family.model_type == spec.family) else { return Ok(()) };
    let prefix = if matches!(spec.head, Head::Hidden) { "" } else { family.prefixes.first().copied().unwrap_or("") };
    // Whether a tensor is as it is stored, and whether it has an adapter.
    let mut tensors: BTreeMap<String, (bool, bool)> = BTreeMap::new();
    for parameter in spec.parameters() {
        let Some(source) = family.tensor(spec, parameter.id) else { continue };
        let Some(name) = source.names(prefix).into_iter().next() else { continue };
        let adapted = matches!(parameter.id, ParameterId::Linear(id, Part::Weight) if scope.adapter(id).is_some());
        let (as_stored, has_adapter) = tensors.entry(name).or_insert((true, false));
        *as_stored &= source.is_as_stored();
        *has_adapter |= adapted;
    }
    match tensors.into_iter().find(|(_, (as_stored, has_adapter))| *has_adapter && !as_stored) {
        None => Ok(()),
        Some((name, _)) => {
            let module = name.rsplit_once('.').map_or(name.as_str(), |(module, _)| module).to_owned();
            Err(AdapterError::Unwritten { module, family: family.model_type })
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::open_model;
    use crate::model::transform::Sparsity;
    use crate::train::scope::{LoraSettings, ScopeSettings};
    use std::path::Path;

    fn check(golden: &str, targets: &[&str]) -> Result<(), String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(golden);
        let spec = open_model(&folder).expect("a golden checkpoint opens").spec;
        let targets = targets.iter().map(|target| (*target).to_owned()).collect();
        let lora = Some(LoraSettings { rank: 2, alpha: 4.0, targets });
        let settings = ScopeSettings { train_only: Vec::new(), lora };
        let scope = settings.of(&spec, &Sparsity::new()).expect("it has such matrices");
        check_stored(&spec, &scope).map_err(|error| error.to_string())
    }

    #[test]
    fn a_module_that_slmc_holds_otherwise_is_named() {
        for (golden, targets, module) in [
            ("granite-multipliers", &[][..], "model.layers.0.mlp.down_proj"),
            ("granite-multipliers", &["layers.1.attn.o"], "model.layers.1.self_attn.o_proj"),
            ("gpt-neox-parallel", &["attention"], "gpt_neox.layers.0.attention.query_key_value"),
            ("gpt-neox-parallel", &["layers.0.attn.v"], "gpt_neox.layers.0.attention.query_key_value"),
            ("stablelm-partial-rotary", &["attention"], "model.layers.0.self_attn.k_proj"),
        ] {
            let error = check(golden, targets).expect_err("it is held in another order, or with a factor");
            let named = format!("an adapter of `{module}` cannot be written");
            assert!(error.starts_with(&named) && error.ends_with("--lora-output merged"), "{error}");
        }
    }

    #[test]
    fn adapters_of_other_modules_are_written() {
        for (golden, targets) in [
            ("granite-multipliers", &["layers.*.attn.q"][..]),
            ("gpt-neox-parallel", &["ffn"]),
            ("stablelm-partial-rotary", &["layers.*.attn.v", "ffn"]),
            ("phi3-fused-qkv", &[]),
            ("gpt2", &[]),
            ("bert-encoder", &[]),
        ] {
            assert_eq!(check(golden, targets), Ok(()), "{golden} {targets:?}");
        }
    }
}
