//! Rotary settings in both spellings: `rope_theta` and `rope_scaling` of transformers 4, `rope_parameters` of 5. Scalings that
//! depend on the length of a text are read for the lengths at which they do not: `dynamic` is no scaling up to
//! `max_position_embeddings`, `longrope` has one list of divisors up to `original_max_position_embeddings` and another
//! beyond, which would be another model.

use super::decoder::head_dim;
use super::ministral3;
use super::refuse_unless;
use crate::disk::{Config, ConfigError};
use crate::model::spec::{Divisors, Llama3Scaling, RotaryScaling, RotarySpec, YarnScaling};
use serde_json::{Value, json};

const CONTEXT: &str = "max_position_embeddings";
const ORIGINAL: &str = "original_max_position_embeddings";
const SHARE: &str = "partial_rotary_factor";

/// Why a model is read with fewer positions than its configuration states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextLimit {
    /// The key that bounds them.
    pub key: &'static str,
    /// Positions that are read.
    pub context: usize,
    /// Positions that the configuration states.
    pub stated: usize,
    /// The part of the model that changes beyond them.
    pub beyond: &'static str,
}

/// The settings all layers share, of whole heads. In both spellings, they must agree; without either, theta is
/// `default_theta`.
pub(super) fn rotary(config: &Config, family: &'static str, default_theta: f64) -> Result<RotarySpec, ConfigError> {
    refuse_unless(config, family, &[(SHARE, json!(1))])?;
    if let Some(section) = config.section("rope_parameters")? {
        refuse_unless(&section, family, &[(SHARE, json!(1))])?;
    }
    either(config, family, default_theta, 1.0)
}

/// The same of a family whose heads may turn in part; `default_share` is what stands for an absent share.
pub(super) fn partial_rotary(
    config: &Config,
    family: &'static str,
    default_theta: f64,
    default_share: f64,
) -> Result<RotarySpec, ConfigError> {
    let top = config.optional_positive(SHARE)?;
    let section = config.section("rope_parameters")?;
    let inner = section.as_ref().map(|section| section.optional_positive(SHARE)).transpose()?.flatten();
    match (top, inner) {
        (Some(top), Some(inner)) if top != inner => {
            Err(config.wrong(SHARE, "what rope_parameters.partial_rotary_factor says; remove either"))
        }
        (share, other) => either(config, family, default_theta, share.or(other).unwrap_or(default_share)),
    }
}

fn either(config: &Config, family: &'static str, default_theta: f64, share: f64) -> Result<RotarySpec, ConfigError> {
    let top = config.optional_positive("rope_theta")?;
    let theta = top.unwrap_or(default_theta);
    let plain = RotarySpec { turning: turning(config, share)?, ..RotarySpec::plain(theta) };
    let old = match config.section("rope_scaling")? {
        Some(section) => Some(scaled(config, &section, family, plain)?),
        None => top.map(|_| plain),
    };
    let new = match config.section("rope_parameters")? {
        None => None,
        Some(section) => Some(settings(config, &section, family, plain)?),
    };
    match (new, old) {
        (Some(new), Some(old)) if new != old => {
            Err(config.wrong("rope_parameters", "the same settings as rope_theta and rope_scaling; remove either"))
        }
        (Some(rotary), _) | (None, Some(rotary)) => Ok(rotary),
        (None, None) => Ok(plain),
    }
}

/// Elements of a head that turn: ⌊head_dim · share⌋; `None` where all do.
fn turning(config: &Config, share: f64) -> Result<Option<usize>, ConfigError> {
    if share == 1.0 {
        return Ok(None);
    }
    let width = head_dim(config)?;
    let turning = (width as f64 * share) as usize;
    let even = turning.is_multiple_of(2) && width.is_multiple_of(2);
    match turning < width && turning > 0 && even {
        true => Ok(Some(turning)),
        false if turning == width => Ok(None),
        false => {
            Err(config.wrong(SHARE, &format!("a share of {width} that leaves an even width between 2 and {width}")))
        }
    }
}

/// One section of the new spelling, on `plain` but for its theta.
pub(super) fn settings(
    config: &Config,
    section: &Config,
    family: &'static str,
    plain: RotarySpec,
) -> Result<RotarySpec, ConfigError> {
    let theta = section.optional_positive("rope_theta")?.unwrap_or(plain.theta);
    scaled(config, section, family, RotarySpec { theta, ..plain })
}

/// `plain` with what the rope type of a section says.
pub(super) fn scaled(
    config: &Config,
    section: &Config,
    family: &'static str,
    plain: RotarySpec,
) -> Result<RotarySpec, ConfigError> {
    let key = type_key(section);
    let with = |scaling| RotarySpec { scaling: Some(scaling), ..plain };
    match section.optional_text(key)? {
        // Settings per kind of layer, without a type of their own.
        None if section.map().values().any(Value::is_object) => {
            let inner = section.map().iter().find(|(_, value)| value.is_object()).map_or("", |(key, _)| key);
            Err(section.unsupported(inner, family, "one setting for all layers"))
        }
        None | Some("default") => Ok(plain),
        Some("linear") => match section.positive("factor")? {
            1.0 => Ok(plain),
            factor => Ok(with(RotaryScaling::Linear(factor))),
        },
        // The base grows with texts longer than the context, which slmc does not have.
        Some("dynamic") => section.positive("factor").map(|_| plain),
        Some("llama3") => Ok(with(RotaryScaling::Llama3(llama3(section)?))),
        Some("yarn") => yarn(config, section, plain),
        Some("longrope" | "su") => longrope(config, section, plain),
        Some(_) => Err(section.unsupported(key, family, "default, linear, dynamic, llama3, yarn, longrope")),
    }
}

fn type_key(section: &Config) -> &'static str {
    if section.value("rope_type").is_some() { "rope_type" } else { "type" }
}

fn llama3(section: &Config) -> Result<Llama3Scaling, ConfigError> {
    let scaling = Llama3Scaling {
        factor: section.positive("factor")?,
        low_frequency_factor: section.positive("low_freq_factor")?,
        high_frequency_factor: section.positive("high_freq_factor")?,
        original_context: section.size(ORIGINAL)?,
    };
    match scaling.high_frequency_factor > scaling.low_frequency_factor {
        true => Ok(scaling),
        false => Err(section.wrong("high_freq_factor", "a number above low_freq_factor")),
    }
}

/// Positions that the frequencies were first trained for: in the section, or beside it, or all.
fn original(config: &Config, section: &Config) -> Result<usize, ConfigError> {
    match (section.optional_size(ORIGINAL)?, config.optional_size(ORIGINAL)?) {
        (Some(inner), Some(outer)) if inner != outer => {
            Err(config.wrong(ORIGINAL, "what the rotary settings say; remove either"))
        }
        (Some(original), _) | (None, Some(original)) => Ok(original),
        (None, None) => config.size(CONTEXT),
    }
}

/// How much the context was stretched: stated, or by the two contexts.
fn stretch(config: &Config, section: &Config, original: usize) -> Result<f64, ConfigError> {
    match section.optional_positive("factor")? {
        Some(factor) => Ok(factor),
        // Without either, nothing says how far.
        None if section.value(ORIGINAL).is_none() && config.value(ORIGINAL).is_none() => section.positive("factor"),
        None => Ok(config.size(CONTEXT)? as f64 / original as f64),
    }
}

fn yarn(config: &Config, section: &Config, plain: RotarySpec) -> Result<RotarySpec, ConfigError> {
    let original_context = original(config, section)?;
    let factor = stretch(config, section, original_context)?;
    let yarn = YarnScaling {
        factor,
        fast: section.optional_positive("beta_fast")?.unwrap_or(32.0),
        slow: section.optional_positive("beta_slow")?.unwrap_or(1.0),
        truncate: section.flag_or("truncate", true)?,
        original_context,
    };
    if yarn.fast < yarn.slow {
        return Err(section.wrong("beta_fast", "a number above beta_slow"));
    }
    if plain.theta <= 1.0 {
        return Err(section.wrong("rope_theta", "a base above 1, for yarn"));
    }
    // Of scores: a head's width counts with 0.1 · ln of the stretch.
    let of_scores = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * libm::log(factor) + 1.0 };
    // Zero counts as absent in transformers.
    let weight = |key| -> Result<Option<f64>, ConfigError> {
        match section.value(key).and_then(Value::as_f64) {
            Some(0.0) => Ok(None),
            _ => section.optional_positive(key),
        }
    };
    let factor = match (section.optional_positive("attention_factor")?, weight("mscale")?, weight("mscale_all_dim")?) {
        (Some(stated), ..) => stated,
        (None, Some(own), Some(all)) => of_scores(own) / of_scores(all),
        (None, ..) => of_scores(1.0),
    };
    Ok(RotarySpec { scaling: Some(RotaryScaling::Yarn(yarn)), factor, ..plain })
}

/// The divisors of contexts up to the original one; see [`context_limit`].
fn longrope(config: &Config, section: &Config, plain: RotarySpec) -> Result<RotarySpec, ConfigError> {
    let original = original(config, section)?;
    let pairs = plain.turning.map_or_else(|| head_dim(config), Ok)? / 2;
    let list = |key: &str| -> Result<Vec<f64>, ConfigError> {
        let numbers = section.value(key).and_then(Value::as_array).filter(|list| list.len() == pairs);
        let numbers = numbers.and_then(|list| list.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>());
        let positive = |list: &Vec<f64>| list.iter().all(|divisor| *divisor > 0.0 && divisor.is_finite());
        numbers.filter(positive).ok_or_else(|| section.wrong(key, &format!("a list of {pairs} numbers above 0")))
    };
    let short = list("short_factor")?;
    list("long_factor")?;
    let stretch = stretch(config, section, original)?;
    let factor = match section.optional_positive("attention_factor")? {
        Some(stated) => stated,
        None if stretch <= 1.0 || original < 2 => 1.0,
        None => libm::sqrt(1.0 + libm::log(stretch) / libm::log(original as f64)),
    };
    let scaling = short.iter().any(|divisor| *divisor != 1.0).then(|| RotaryScaling::Listed(Divisors::of(&short)));
    Ok(RotarySpec { scaling, factor, ..plain })
}

/// Positions up to which the model is one: fewer than its configuration states where frequencies or scores change beyond.
pub fn context_limit(config: &Config) -> Result<Option<ContextLimit>, ConfigError> {
    let completed =
        (config.optional_text("model_type")? == Some(ministral3::NAME)).then(|| ministral3::with_rotary(config));
    let config = completed.as_ref().unwrap_or(config);
    let section = match config.section("rope_parameters")? {
        Some(section) => Some(section),
        None => config.section("rope_scaling")?,
    };
    let (Some(section), Some(stated)) = (section, config.optional_size(CONTEXT)?) else { return Ok(None) };
    let beyond = match section.optional_text(type_key(&section))? {
        Some("longrope" | "su") => "the frequencies of rotary positions become those of long_factor",
        _ if section.optional_positive("llama_4_scaling_beta")?.is_some() => {
            "queries are multiplied by 1 + llama_4_scaling_beta · ln(1 + ⌊position / original⌋)"
        }
        _ => return Ok(None),
    };
    let context = original(config, &section)?;
    let key = ORIGINAL;
    Ok((context < stated).then_some(ContextLimit { key, context, stated, beyond }))
}

/// Positions of a decoder: `max_position_embeddings`, or what [`context_limit`] leaves of them.
pub(super) fn context(config: &Config) -> Result<usize, ConfigError> {
    match context_limit(config)? {
        Some(limit) => Ok(limit.context),
        None => config.size(CONTEXT),
    }
}
