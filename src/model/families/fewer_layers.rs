//! Configurations of models that keep some layers of another: the number of layers, and every key that says something of
//! single layers, so that a kept layer is what it was. A key that counts from the first layer (every sixth, all from the
//! n-th on) is written anew or replaced by a list.

use super::Family;
use super::exits::without_exits;
use crate::disk::{Config, ConfigError};
use serde_json::{Map, Value, json};

/// The configuration with the layers `kept` alone, ascending, under the keys of its family.
///
/// # Errors
/// A refused configuration, and [`ConfigError::Layer`] for a layer that would not be the same.
pub fn with_layers(config: &Config, kept: &[usize]) -> Result<Config, ConfigError> {
    compared(Family::of(config)?, config, kept)
}

fn compared(family: &Family, config: &Config, kept: &[usize]) -> Result<Config, ConfigError> {
    let before = family.read(config)?.layers;
    let fewer = (family.with_layers)(&family.completed(config)?, kept)?;
    let after = family.read(&fewer)?.layers;
    match (0..kept.len()).find(|&place| before.get(kept[place]) != after.get(place)) {
        None => Ok(fewer),
        Some(place) => {
            let (file, key) = (config.file().to_owned(), family.layer_count);
            Err(ConfigError::Layer { file, key, layer: kept[place], place })
        }
    }
}

/// The number of layers under `key` and, where it is stated too, under the name that transformers has for it in every
/// family; `layer_types` with the kept layers' entries; exits are
/// not kept. Families without other keys by layer need nothing else.
pub(super) fn counted(config: &Config, key: &str, kept: &[usize]) -> Map<String, Value> {
    const COMMON: &str = "num_hidden_layers";
    let mut map = config.map().clone();
    map.insert(key.to_owned(), json!(kept.len()));
    without_exits(&mut map);
    if let Some(count) = map.get_mut(COMMON) {
        *count = json!(kept.len());
    }
    if let Some(Value::Array(types)) = map.get_mut("layer_types") {
        *types = kept.iter().filter_map(|&layer| types.get(layer).cloned()).collect();
    }
    map
}

/// [`Family::with_layers`] of families that have nothing by layer but `layer_types`.
pub(super) fn alike(config: &Config, kept: &[usize]) -> Result<Config, ConfigError> {
    Ok(Config::from_map(config.file(), counted(config, Family::of(config)?.layer_count, kept)))
}

#[cfg(test)]
mod tests {
    use super::super::gemma3;
    use super::*;
    use std::path::Path;

    #[test]
    fn a_layer_that_would_be_another_is_refused() {
        let Value::Object(map) = json!({
            "model_type": "gemma3_text", "hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1,
            "head_dim": 4, "intermediate_size": 12, "vocab_size": 10, "max_position_embeddings": 64,
            "num_hidden_layers": 4, "sliding_window": 16, "sliding_window_pattern": 2,
        }) else {
            unreachable!("an object")
        };
        let config = Config::from_map(Path::new("m/config.json"), map);
        // A family that takes over the pattern as it is: layer 2 slides, the second of two does not.
        let careless = Family { with_layers: alike, ..gemma3::FAMILY };
        assert!(compared(&careless, &config, &[0, 1]).is_ok());
        let error = compared(&careless, &config, &[0, 2]).expect_err("the second of two layers attends to everything");
        assert_eq!(
            error.to_string(),
            "m/config.json: layer 2 would have another window, rotation or kind as layer 1 of a model with fewer layers \
             under `num_hidden_layers`; keep a run of layers from layer 0 on, or all of them"
        );
        let fewer = with_layers(&config, &[0, 2]).expect("the family knows better");
        assert_eq!(fewer.map()["layer_types"], json!(["sliding_attention", "sliding_attention"]));
    }
}
