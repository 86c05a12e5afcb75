//! Rotary settings in both spellings: `rope_theta` and `rope_scaling` of transformers 4, `rope_parameters` of 5.

use super::refuse_unless;
use crate::disk::{Config, ConfigError};
use crate::model::spec::{Llama3Scaling, RotarySpec};
use serde_json::{Value, json};

/// The settings all layers share. In both spellings, they must agree; without either, theta is `default_theta`.
pub(super) fn rotary(config: &Config, family: &'static str, default_theta: f64) -> Result<RotarySpec, ConfigError> {
    let top = config.optional_positive("rope_theta")?;
    let theta = top.unwrap_or(default_theta);
    let old = match config.section("rope_scaling")? {
        Some(section) => Some(RotarySpec { theta, scaling: scaling(&section, family)? }),
        None => top.map(|theta| RotarySpec { theta, scaling: None }),
    };
    let new = match config.section("rope_parameters")? {
        None => None,
        Some(section) => Some(settings(&section, family, theta)?),
    };
    match (new, old) {
        (Some(new), Some(old)) if new != old => {
            Err(config.wrong("rope_parameters", "the same settings as rope_theta and rope_scaling; remove either"))
        }
        (Some(rotary), _) | (None, Some(rotary)) => Ok(rotary),
        (None, None) => Ok(RotarySpec { theta, scaling: None }),
    }
}

/// One section of the new spelling.
pub(super) fn settings(section: &Config, family: &'static str, default_theta: f64) -> Result<RotarySpec, ConfigError> {
    Ok(RotarySpec {
        theta: section.optional_positive("rope_theta")?.unwrap_or(default_theta),
        scaling: scaling(section, family)?,
    })
}

/// The rope type of a section, and what belongs to it.
pub(super) fn scaling(section: &Config, family: &'static str) -> Result<Option<Llama3Scaling>, ConfigError> {
    refuse_unless(section, family, &[("partial_rotary_factor", json!(1))])?;
    let key = if section.value("rope_type").is_some() { "rope_type" } else { "type" };
    match section.optional_text(key)? {
        // Settings per kind of layer, without a type of their own.
        None if section.map().values().any(Value::is_object) => {
            let inner = section.map().iter().find(|(_, value)| value.is_object()).map_or("", |(key, _)| key);
            Err(section.unsupported(inner, family, "one setting for all layers"))
        }
        None | Some("default") => Ok(None),
        Some("llama3") => {
            let scaling = Llama3Scaling {
                factor: section.positive("factor")?,
                low_frequency_factor: section.positive("low_freq_factor")?,
                high_frequency_factor: section.positive("high_freq_factor")?,
                original_context: section.size("original_max_position_embeddings")?,
            };
            if scaling.high_frequency_factor <= scaling.low_frequency_factor {
                return Err(section.wrong("high_freq_factor", "a number above low_freq_factor"));
            }
            Ok(Some(scaling))
        }
        Some(_) => Err(section.unsupported(key, family, "default, llama3")),
    }
}
