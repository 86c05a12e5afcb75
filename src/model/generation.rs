//! How tokens are chosen unless a person says otherwise: the settings of generation_config.json with the meaning that they
//! have in transformers 5.24. Without `do_sample` the likeliest token is taken, whatever the temperature; with it, an absent
//! `top_k` is 50. The penalty on repetition counts in both cases. What slmc's sampler does not do is named.

use super::companions::{Companion, Companions, GENERATION_CONFIG_FILE};
use super::notes::Note;
use crate::disk::config::brief;
use crate::disk::{Config, ConfigError};
use serde_json::{Value, json};
use slm_runtime::sample::{ALL, Sampling};

/// `top_k` of transformers where tokens are drawn and the file does not say.
const TOP_K: u32 = 50;

/// Keys that change which tokens come out and that slmc does not follow, each with the values that change nothing; null
/// is one for all.
const NOT_FOLLOWED: [(&str, &[f64]); 24] = [
    ("num_beams", &[1.0]),
    ("num_beam_groups", &[1.0]),
    ("penalty_alpha", &[0.0]),
    ("typical_p", &[1.0]),
    ("top_h", &[]),
    ("epsilon_cutoff", &[0.0]),
    ("eta_cutoff", &[0.0]),
    ("no_repeat_ngram_size", &[0.0]),
    ("bad_words_ids", &[]),
    ("suppress_tokens", &[]),
    ("begin_suppress_tokens", &[]),
    ("forced_bos_token_id", &[]),
    ("forced_eos_token_id", &[]),
    ("min_length", &[0.0]),
    ("min_new_tokens", &[0.0]),
    ("sequence_bias", &[]),
    ("exponential_decay_length_penalty", &[]),
    ("guidance_scale", &[1.0]),
    ("stop_strings", &[]),
    ("max_time", &[]),
    ("dola_layers", &[]),
    ("watermarking_config", &[]),
    ("presence_penalty", &[0.0]),
    ("frequency_penalty", &[0.0]),
];
/// Those of them that only count where tokens are drawn.
const OF_DRAWS: [&str; 4] = ["typical_p", "top_h", "epsilon_cutoff", "eta_cutoff"];

/// What generation_config.json says of choosing tokens.
#[derive(Clone, Debug)]
pub struct Generation {
    /// As the sampler takes it.
    pub sampling: Sampling,
    /// The settings that are not followed.
    pub notes: Vec<Note>,
}

/// Reads the file; a model without it has the likeliest token taken.
///
/// # Errors
/// [`ConfigError`], naming the file and the key.
pub fn read(companions: &Companions) -> Result<Generation, ConfigError> {
    let Some(config) = companions.find(GENERATION_CONFIG_FILE).map(Companion::config).transpose()? else {
        return Ok(Generation { sampling: Sampling::GREEDY, notes: Vec::new() });
    };
    let draws = config.flag_or("do_sample", false)?;
    let penalty = number(&config, "repetition_penalty", 1.0, |value| (0.01..=100.0).contains(&value), "0.01 to 100")?;
    let drawn = drawn(&config)?;
    let base = if draws { drawn } else { Sampling::GREEDY };
    let followed = |key: &str| !draws && OF_DRAWS.contains(&key);
    let unused = NOT_FOLLOWED.iter().filter(|(key, neutral)| !followed(key) && !is_neutral(&config, key, neutral));
    let notes = unused.map(|(key, _)| Note::NotFollowed {
        file: config.file().to_owned(),
        key,
        value: config.value(key).map(brief).unwrap_or_default(),
    });
    let notes = notes.collect();
    Ok(Generation { sampling: Sampling { repetition_penalty: penalty as f32, ..base }, notes })
}

/// The parameters of a draw. They are checked where nothing is drawn, too.
fn drawn(config: &Config) -> Result<Sampling, ConfigError> {
    let temperate = |value: f64| value == 0.0 || (0.001..=1000.0).contains(&value);
    let share = |value: f64| (0.0..=1.0).contains(&value);
    let temperature = number(config, "temperature", 1.0, temperate, "0, or 0.001 to 1000")? as f32;
    let top_p = number(config, "top_p", 1.0, share, "0 to 1")?;
    let min_p = number(config, "min_p", 0.0, share, "0 to 1")?;
    let top_k = match config.value("top_k") {
        None => TOP_K,
        Some(value) => value
            .as_u64()
            .and_then(|k| u32::try_from(k).ok())
            .ok_or_else(|| config.wrong("top_k", "an integer of at least 0"))?,
    };
    if temperature == 0.0 {
        return Ok(Sampling::GREEDY);
    }
    // A share of nothing still has the likeliest token.
    let top_p = in_parts(top_p).max(1);
    Ok(Sampling { temperature, top_k, top_p, min_p: in_parts(min_p), repetition_penalty: 1.0 })
}

/// A share in 1/65536.
pub fn in_parts(share: f64) -> u32 {
    (share * f64::from(ALL)).round() as u32
}

fn number(
    config: &Config,
    key: &str,
    absent: f64,
    fits: impl Fn(f64) -> bool,
    range: &str,
) -> Result<f64, ConfigError> {
    let Some(value) = config.value(key) else { return Ok(absent) };
    value.as_f64().filter(|&value| fits(value)).ok_or_else(|| config.wrong(key, &format!("a number, {range}")))
}

/// Whether a key is absent or has a value that changes nothing.
fn is_neutral(config: &Config, key: &str, neutral: &[f64]) -> bool {
    match config.value(key) {
        None | Some(Value::Bool(false)) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(value) => value.as_f64().is_some_and(|value| neutral.contains(&value)),
    }
}

/// The parameters of a choice for reports.
pub fn sampling_json(sampling: &Sampling) -> Value {
    let share = |parts: u32| (f64::from(parts) / f64::from(ALL) * 1e6).round() / 1e6;
    // The shortest decimal of the f32, as the file has it.
    let short = |value: f32| value.to_string().parse::<f64>().unwrap_or(f64::from(value));
    json!({
        "temperature": short(sampling.temperature),
        "top_k": sampling.top_k,
        "top_p": share(sampling.top_p),
        "min_p": share(sampling.min_p),
        "repetition_penalty": short(sampling.repetition_penalty),
    })
}

/// The parameters of a choice in words: those that change something.
pub fn sampling_words(sampling: &Sampling) -> String {
    let share = |parts: u32| format!("{}", (f64::from(parts) / f64::from(ALL) * 1e4).round() / 1e4);
    let mut words = Vec::new();
    if sampling.temperature == 0.0 {
        words.push("the likeliest token".to_owned());
    } else {
        words.push(format!("temperature {}", sampling.temperature));
        let of = [
            (sampling.top_k > 0, format!("top-k {}", sampling.top_k)),
            (sampling.top_p < ALL, format!("top-p {}", share(sampling.top_p))),
            (sampling.min_p > 0, format!("min-p {}", share(sampling.min_p))),
        ];
        words.extend(of.into_iter().filter(|(counts, _)| *counts).map(|(_, word)| word));
    }
    if sampling.repetition_penalty != 1.0 {
        words.push(format!("repetition penalty {}", sampling.repetition_penalty));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests;
