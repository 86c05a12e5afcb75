//! Granite's mixtures (3.x, a400m and a800m): Granite whose feed-forward networks are gated experts, of which every token has
//! those with the highest scores. Files stack the matrices of the experts, gate and up in one tensor.

use super::class_defaults::ClassDefault;
use super::expert_order::ExpertOrder;
use super::{Family, TensorName, decoder, granite, refuse_unless, require_architecture};
use crate::disk::{Config, ConfigError};
use crate::model::id::{LinearId, ParameterId, Part, Role};
use crate::model::spec::{Activation, FfnSpec, LayerSpec, Mixture, ModelSpec};
use serde_json::{Value, json};
use slm_runtime::format::spec::{EXPERT_STEP, MAX_CHOSEN, MAX_DIMENSION, MAX_EXPERTS};

const NAME: &str = "granitemoe";
const ARCHITECTURE: &str = "GraniteMoeForCausalLM";
/// Experts begin where a group of weights does, in every scheme.
const WIDTH_STEP: usize = 64;
/// Rows of an expert's last matrix, which begin with a tile.
const HIDDEN_STEP: usize = EXPERT_STEP;

/// What the class has for keys that are absent: the configuration of transformers 5.24.
const DEFAULTS: [(&str, ClassDefault); 17] = [
    ("vocab_size", ClassDefault::Size(32000)),
    ("hidden_size", ClassDefault::Size(4096)),
    ("num_hidden_layers", ClassDefault::Size(32)),
    ("num_attention_heads", ClassDefault::Size(32)),
    ("intermediate_size", ClassDefault::Size(11008)),
    ("hidden_act", ClassDefault::Text("silu")),
    ("max_position_embeddings", ClassDefault::Count(2048)),
    ("rms_norm_eps", ClassDefault::Number(1e-6)),
    ("attention_bias", ClassDefault::Flag(false)),
    ("embedding_multiplier", ClassDefault::Number(1.0)),
    ("attention_multiplier", ClassDefault::Number(1.0)),
    ("residual_multiplier", ClassDefault::Number(1.0)),
    ("logits_scaling", ClassDefault::Number(1.0)),
    ("eos_token_id", ClassDefault::Count(2)),
    ("tie_word_embeddings", ClassDefault::Flag(false)),
    ("num_local_experts", ClassDefault::Size(8)),
    ("num_experts_per_tok", ClassDefault::Size(2)),
];

pub(super) const FAMILY: Family = Family { source, ..decoder::family(NAME, &[(&[], ARCHITECTURE)], &DEFAULTS, spec) };

fn spec(config: &Config) -> Result<ModelSpec, ConfigError> {
    require_architecture(config, NAME, ARCHITECTURE)?;
    // A network that every token has, beside the experts, is another family's.
    refuse_unless(config, NAME, &[("shared_intermediate_size", Value::Null), ("mlp_bias", json!(false))])?;
    let spec = granite::factored(config, NAME, false)?;
    let (experts, chosen) = (config.size("num_local_experts")?, config.size("num_experts_per_tok")?);
    if experts > usize::from(MAX_EXPERTS) {
        return Err(config.wrong("num_local_experts", &format!("at most {MAX_EXPERTS}")));
    }
    let most = experts.min(usize::from(MAX_CHOSEN));
    if chosen > most {
        return Err(config.wrong("num_experts_per_tok", &format!("at most {most}, with {experts} experts")));
    }
    if !spec.hidden.is_multiple_of(HIDDEN_STEP) {
        return Err(config.wrong("hidden_size", &format!("a multiple of {HIDDEN_STEP}")));
    }
    let width = config.size("intermediate_size")?;
    if !width.is_multiple_of(WIDTH_STEP) {
        return Err(config.wrong("intermediate_size", &format!("a multiple of {WIDTH_STEP}, the width of an expert")));
    }
    let widest = MAX_DIMENSION as usize / experts;
    if width.max(spec.hidden) > widest {
        let expected = format!("at most {widest} with {experts} experts, as hidden_size");
        return Err(config.wrong("intermediate_size", &expected));
    }
    let ffn = FfnSpec {
        mixture: Some(Mixture { experts, chosen }),
        ..FfnSpec::plain(experts * width, true, Activation::Silu)
    };
    let layers = spec.layers.iter().map(|&layer| LayerSpec { ffn, ..layer }).collect();
    Ok(ModelSpec { layers, ..spec })
}

fn source(spec: &ModelSpec, id: ParameterId) -> Option<TensorName> {
    let ParameterId::Linear(LinearId { layer: Some(layer), role }, Part::Weight) = id else {
        return granite::source(spec, id);
    };
    let ffn = &spec.layers.get(layer as usize)?.ffn;
    let experts = ffn.mixture?.experts;
    // The second name is that of transformers 5.
    let named = |name: &str, current: &str| TensorName {
        legacy_name: Some(format!("layers.{layer}.block_sparse_moe.{current}")),
        ..TensorName::prefixed(format!("layers.{layer}.block_sparse_moe.{name}.weight"))
    };
    let first = if role == Role::Up { ffn.width } else { 0 };
    let inner = || named("input_linear", "experts.gate_up_proj").fused(first, 2 * ffn.width);
    Some(match role {
        Role::Router => named("router.layer", "router.weight"),
        Role::Gate | Role::Up => inner().by_experts(ExpertOrder::of_rows(experts)),
        Role::Down => {
            let down = named("output_linear", "experts.down_proj").by_experts(ExpertOrder::of_columns(experts));
            down.times(spec.stored.residual)
        }
        _ => return granite::source(spec, id),
    })
}
