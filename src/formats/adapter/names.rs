//! Names of an adapter's tensors: the path of a module in the base, and which part of its change a tensor is.
//!
//! ```text
//! base_model.model.PATH.lora_A.weight (r, in)           .lora_B.weight (out, r)   .lora_B.bias (out)
//! base_model.model.PATH.lora_embedding_A (r, rows)      .lora_embedding_B (width, r)
//! base_model.model.PATH.lora_magnitude_vector (out)     older: …_vector.weight
//! base_model.model.PATH.token_adapter.trainable_tokens_delta (tokens, width)
//! base_model.model.PATH.base_layer.weight, .bias        the base's own, changed by training or as it was
//! base_model.model.PATH.weight, .bias                   whole modules; older: PATH.modules_to_save.weight
//! ```
//!
//! Old files have the adapter's name, `default`, after the part.

/// What a tensor is to its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Lower rank first: (r, in), of a table (r, rows).
    A,
    /// (out, r), of a table (width, r).
    B,
    /// Added to the bias, scaled.
    BiasB,
    /// As [`Part::A`], of a table.
    TableA,
    /// As [`Part::B`], of a table.
    TableB,
    /// Lengths of rows.
    Magnitude,
    /// Rows in the place of others.
    TokenRows,
    /// A whole weight.
    Weight,
    /// A whole bias.
    Bias,
}

const PREFIX: &str = "base_model.model.";
/// The part after a module's path, and what it is.
const ENDS: [(&str, Part); 15] = [
    ("lora_A.weight", Part::A),
    ("lora_A.default.weight", Part::A),
    ("lora_B.weight", Part::B),
    ("lora_B.default.weight", Part::B),
    ("lora_B.bias", Part::BiasB),
    ("lora_B.default.bias", Part::BiasB),
    ("lora_embedding_A", Part::TableA),
    ("lora_embedding_A.default", Part::TableA),
    ("lora_embedding_B", Part::TableB),
    ("lora_embedding_B.default", Part::TableB),
    ("lora_magnitude_vector", Part::Magnitude),
    ("lora_magnitude_vector.weight", Part::Magnitude),
    ("lora_magnitude_vector.default", Part::Magnitude),
    ("lora_magnitude_vector.default.weight", Part::Magnitude),
    ("token_adapter.trainable_tokens_delta", Part::TokenRows),
];
/// What PEFT puts between a module's path and the names of its own tensors.
const WRAPPERS: [&str; 4] = [".base_layer", ".modules_to_save.default", ".modules_to_save", ".original_module"];

/// Module and part of a tensor; `None` for a name that is neither.
pub(super) fn parse(name: &str) -> Option<(String, Part)> {
    let path = name.strip_prefix(PREFIX).unwrap_or(name);
    for (end, part) in ENDS {
        if let Some(module) = path.strip_suffix(end).and_then(|rest| rest.strip_suffix('.')) {
            return Some((module.to_owned(), part));
        }
    }
    if path.contains(".lora_") || path.contains(".token_adapter") {
        return None;
    }
    let (module, part) = match (path.strip_suffix(".weight"), path.strip_suffix(".bias")) {
        (Some(module), _) => (module, Part::Weight),
        (None, Some(module)) => (module, Part::Bias),
        (None, None) => return None,
    };
    let module = WRAPPERS.iter().find_map(|wrapper| module.strip_suffix(wrapper)).unwrap_or(module);
    Some((module.to_owned(), part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_modules_with_parts() {
        let cases = [
            (
                "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
                "model.layers.0.self_attn.q_proj",
                Part::A,
            ),
            (
                "base_model.model.model.layers.0.mlp.up_proj.lora_B.default.weight",
                "model.layers.0.mlp.up_proj",
                Part::B,
            ),
            ("base_model.model.model.embed_tokens.lora_embedding_B", "model.embed_tokens", Part::TableB),
            ("base_model.model.model.embed_tokens.base_layer.weight", "model.embed_tokens", Part::Weight),
            ("base_model.model.lm_head.weight", "lm_head", Part::Weight),
            ("base_model.model.classifier.modules_to_save.default.bias", "classifier", Part::Bias),
            ("base_model.model.x.lora_magnitude_vector.weight", "x", Part::Magnitude),
            ("base_model.model.e.token_adapter.trainable_tokens_delta", "e", Part::TokenRows),
        ];
        for (name, module, part) in cases {
            assert_eq!(parse(name), Some((module.to_owned(), part)), "{name}");
        }
        for name in ["base_model.model.x.lora_C.weight", "prompt_embeddings", "base_model.model.x.lora_A"] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
