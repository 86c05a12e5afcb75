//! adapter_config.json of a LoRA adapter: rank and scale of every module, and everything that changes how it is merged. What
//! slmc does not merge is refused by key.
//!
//! ```text
//! scale = alpha / r, with use_rslora alpha / √r      r, alpha: of the first pattern whose key fits the module, else of all
//! ```
//!
//! A key K of `rank_pattern` or `alpha_pattern` fits a module whose whole path is matched by `(.*\.)?(K)`.

use super::error::AdapterError;
use crate::disk::{Config, ConfigError};
use crate::formats::error::ModelFormatError;
use regex::Regex;
use serde_json::Value;
use std::path::Path;

/// The configuration of an adapter.
pub(super) const FILE: &str = "adapter_config.json";
const SUBJECT: &str = "merging of adapters";

/// Keys that must be absent, null, false or empty, each with what slmc merges instead.
const REFUSED: [(&str, &str); 10] = [
    ("target_parameters", "adapters of whole modules"),
    ("layer_replication", "adapters of the base's own layers"),
    ("alora_invocation_tokens", "adapters that act on every token"),
    ("use_bdlora", "plain LoRA"),
    ("use_qalora", "plain LoRA"),
    ("arrow_config", "plain LoRA"),
    ("kasa_config", "plain LoRA"),
    ("monteclora_config", "plain LoRA"),
    ("velora_config", "plain LoRA"),
    ("megatron_config", "adapters of a model that is not split"),
];
/// Beginnings of `init_lora_weights` that change the base before training.
const CHANGED_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

/// What an adapter's configuration says.
pub(super) struct Settings {
    config: Config,
    rank: usize,
    alpha: f64,
    ranks: Vec<(Regex, f64)>,
    alphas: Vec<(Regex, f64)>,
    rank_stabilized: bool,
    /// Whether rows are rescaled to a trained length.
    pub(super) dora: bool,
}

impl Settings {
    /// Reads an adapter's directory.
    pub(super) fn read(directory: &Path) -> Result<Settings, ModelFormatError> {
        let config = Config::read(&directory.join(FILE))?;
        if config.text("peft_type")? != "LORA" {
            return Err(config.unsupported("peft_type", SUBJECT, "LORA").into());
        }
        for (key, supported) in REFUSED {
            if config.value(key).is_some_and(filled) {
                return Err(config.unsupported(key, SUBJECT, supported).into());
            }
        }
        if let Some(Value::String(init)) = config.value("init_lora_weights")
            && CHANGED_BASE.iter().any(|changed| init.to_ascii_lowercase().starts_with(changed))
        {
            let supported = "adapters whose base was not changed before training: convert it with PEFT's \
                             `path_initial_model_for_weight_conversion` when it is saved";
            return Err(config.unsupported("init_lora_weights", SUBJECT, supported).into());
        }
        Ok(Settings {
            rank: config.optional_size("r")?.unwrap_or(8),
            alpha: number(&config, "lora_alpha")?.unwrap_or(8.0),
            ranks: patterns(&config, "rank_pattern")?,
            alphas: patterns(&config, "alpha_pattern")?,
            rank_stabilized: config.flag_or("use_rslora", false)?,
            dora: config.flag_or("use_dora", false)?,
            config,
        })
    }

    /// The rank of a module.
    pub(super) fn rank(&self, module: &str) -> usize {
        fitting(&self.ranks, module).map_or(self.rank, |rank| rank as usize)
    }

    /// What B·A of a module is multiplied by, before any weight of the adapter.
    pub(super) fn scale(&self, module: &str) -> f64 {
        let (alpha, rank) = (fitting(&self.alphas, module).unwrap_or(self.alpha), self.rank(module) as f64);
        if self.rank_stabilized { alpha / rank.sqrt() } else { alpha / rank }
    }

    /// The file.
    pub(super) fn file(&self) -> &Path {
        self.config.file()
    }

    /// The base by the adapter's own word.
    pub(super) fn base(&self) -> Option<&str> {
        self.config.value("base_model_name_or_path").and_then(Value::as_str).filter(|base| !base.is_empty())
    }

    /// Modules that a list of the configuration names; a pattern in its place names none.
    pub(super) fn listed(&self, key: &'static str) -> Vec<&str> {
        let list = self.config.value(key).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// The tokens of `trainable_token_indices`, for all tables or for the one that a module is.
    pub(super) fn tokens(&self, module: &str) -> Result<Vec<u64>, ConfigError> {
        const KEY: &str = "trainable_token_indices";
        let list = match self.config.value(KEY) {
            Some(Value::Object(map)) => {
                map.iter().find(|(name, _)| ends_with_module(module, name)).map(|(_, list)| list)
            }
            list => list,
        };
        let tokens = list.and_then(Value::as_array).map(|list| list.iter().map(Value::as_u64).collect());
        tokens
            .flatten()
            .ok_or_else(|| self.config.wrong(KEY, "a list of token ids, or an object from modules to such lists"))
    }

    /// The error for a value of the wrong type or range.
    pub(super) fn wrong(&self, key: &str, expected: &str) -> ConfigError {
        self.config.wrong(key, expected)
    }
}

/// Whether a name is that of a module, or its end after a dot.
pub(super) fn ends_with_module(module: &str, name: &str) -> bool {
    module == name || module.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

/// Whether a value says something.
fn filled(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    }
}

/// A number above 0; alpha may have decimals.
fn number(config: &Config, key: &str) -> Result<Option<f64>, ConfigError> {
    config.optional_positive(key)
}

fn patterns(config: &Config, key: &'static str) -> Result<Vec<(Regex, f64)>, ModelFormatError> {
    let Some(section) = config.section(key)? else { return Ok(Vec::new()) };
    let read = |pattern: &String| {
        let whole = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$")).map_err(|_| AdapterError::Pattern {
            file: config.file().to_owned(),
            key,
            pattern: pattern.clone(),
        })?;
        let value = if key == "rank_pattern" { section.size(pattern)? as f64 } else { section.positive(pattern)? };
        Ok((whole, value))
    };
    section.map().keys().map(read).collect()
}

fn fitting(patterns: &[(Regex, f64)], module: &str) -> Option<f64> {
    patterns.iter().find(|(pattern, _)| pattern.is_match(module)).map(|(_, value)| *value)
}
