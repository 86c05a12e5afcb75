//! Keys that a configuration may leave out. A family's class in transformers has a value for every key, and its files leave
//! keys out: `save_pretrained` those that equal the default of every class, people and older versions others. What a family
//! reads is completed here with the values of its class ([`Family::defaults`]), and with the other names its class has for
//! a key ([`Family::aliases`]); the configuration itself stays as it was read.

use super::Family;
use super::exits::exits;
use crate::disk::{Config, ConfigError};
use crate::model::spec::ModelSpec;
use serde_json::Value;

/// What a class has for a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ClassDefault {
    /// A size that makes the model what it is. Tensors show whether it is right; where there are none, it must be stated.
    Size(u64),
    /// Another number.
    Number(f64),
    /// A number of something, or a token's id.
    Count(u64),
    /// true or false.
    Flag(bool),
    /// A word.
    Text(&'static str),
}

impl ClassDefault {
    fn value(self) -> Value {
        match self {
            ClassDefault::Size(number) | ClassDefault::Count(number) => Value::from(number),
            ClassDefault::Number(number) => Value::from(number),
            ClassDefault::Flag(flag) => Value::from(flag),
            ClassDefault::Text(text) => Value::from(text),
        }
    }
}

impl Family {
    /// What a configuration of the family computes.
    ///
    /// # Errors
    /// What of it slmc does not implement.
    pub fn read(&self, config: &Config) -> Result<ModelSpec, ConfigError> {
        let completed = self.completed(config)?;
        let mut spec = (self.spec)(&completed)?;
        spec.exits = exits(&completed, &spec)?;
        Ok(spec)
    }

    /// The configuration with the values of the class for keys that are absent.
    pub(super) fn completed(&self, config: &Config) -> Result<Config, ConfigError> {
        let mut defaults: Vec<(String, Value)> =
            self.defaults.iter().map(|(key, default)| ((*key).to_owned(), default.value())).collect();
        for (alias, key) in self.aliases {
            let Some(value) = config.map().get(*alias) else { continue };
            if config.map().get(*key).is_some_and(|stated| stated != value) {
                return Err(config.wrong(alias, &format!("what {key} says; remove either")));
            }
            defaults.push(((*key).to_owned(), value.clone()));
        }
        Ok(config.with_defaults(defaults))
    }

    /// Refuses a configuration that leaves a size to the class, where no tensors can show that the size is meant.
    pub(super) fn require_sizes(&self, config: &Config) -> Result<(), ConfigError> {
        for (key, default) in self.defaults {
            let ClassDefault::Size(_) = default else { continue };
            let aliased = self.aliases.iter().any(|(alias, of)| of == key && config.map().contains_key(*alias));
            if !aliased && !config.map().contains_key(*key) {
                return Err(config.missing(key, "the size, since there are no weights that it could be checked with"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FAMILIES, spec};
    use super::*;
    use crate::model::spec::Head;
    use serde_json::json;
    use std::path::Path;

    fn config(value: Value) -> Config {
        Config::parse(Path::new("m/config.json"), value.to_string().as_bytes()).expect("an object")
    }

    /// Sizes of every class of transformers 5.24: vocabulary, width, layers, heads, key heads, head width, network, context,
    /// whether the head is tied, end tokens.
    #[test]
    fn a_model_type_alone_is_the_model_of_its_class() {
        type Sizes = (usize, usize, usize, usize, usize, usize, usize, usize, bool, &'static [u32]);
        let cases: [(&str, Sizes); 29] = [
            ("bert", (30522, 768, 12, 12, 12, 64, 3072, 512, true, &[])),
            // Positions begin after padding's.
            ("camembert", (30522, 768, 12, 12, 12, 64, 3072, 510, true, &[2])),
            ("distilbert", (30522, 768, 6, 12, 12, 64, 3072, 512, true, &[])),
            // As wide as its embeddings, which those of the class are not.
            ("electra", (30522, 256, 12, 4, 4, 64, 1024, 512, true, &[])),
            ("gemma2", (256_000, 2304, 26, 8, 4, 256, 9216, 8192, true, &[1])),
            ("gemma3_text", (262_208, 2304, 26, 8, 4, 256, 9216, 131_072, true, &[1])),
            ("gpt2", (50257, 768, 12, 12, 12, 64, 3072, 1024, true, &[50256])),
            // Heads of 96, of which 24 turn.
            ("gpt_neox", (50432, 6144, 44, 64, 64, 96, 24576, 2048, false, &[2])),
            ("granite", (32000, 4096, 32, 32, 32, 128, 11008, 2048, false, &[2])),
            // Of all eight experts.
            ("granitemoe", (32000, 4096, 32, 32, 32, 128, 88064, 2048, false, &[2])),
            // Two thirds of 12288, a multiple of 256.
            ("lfm2", (65536, 2560, 32, 32, 8, 80, 8192, 128_000, true, &[2])),
            ("llama", (32000, 4096, 32, 32, 32, 128, 11008, 2048, false, &[2])),
            // Up to the positions at which queries get a factor.
            ("ministral3", (131_072, 4096, 34, 32, 8, 128, 14336, 16384, false, &[2])),
            ("mistral", (32000, 4096, 32, 32, 8, 128, 14336, 131_072, false, &[2])),
            ("mobilellm", (32000, 4096, 32, 32, 32, 128, 11008, 2048, false, &[2])),
            ("modernbert", (50368, 768, 22, 12, 12, 64, 1152, 8192, true, &[50282])),
            ("nomic_bert", (30528, 768, 12, 12, 12, 64, 3072, 2048, true, &[])),
            ("olmo2", (50304, 4096, 32, 32, 32, 128, 11008, 2048, false, &[50279])),
            ("opt", (50272, 768, 12, 12, 12, 64, 3072, 2048, true, &[2])),
            // Heads of 64, of which 32 turn.
            ("phi", (51200, 2048, 24, 32, 32, 64, 8192, 2048, false, &[2])),
            ("phi3", (32064, 3072, 32, 32, 32, 96, 8192, 4096, false, &[32000])),
            ("qwen2", (151_936, 4096, 32, 32, 32, 128, 22016, 32768, false, &[])),
            ("qwen3", (151_936, 4096, 32, 32, 32, 128, 22016, 32768, false, &[])),
            ("roberta", (50265, 768, 12, 12, 12, 64, 3072, 510, true, &[2])),
            ("smollm3", (128_256, 2048, 36, 16, 4, 128, 11008, 32768, true, &[128_001])),
            // Heads of 80, of which 20 turn.
            ("stablelm", (50304, 2560, 32, 32, 32, 80, 6912, 4096, false, &[0])),
            ("starcoder2", (49152, 3072, 30, 24, 2, 128, 12288, 4096, true, &[])),
            // Both stacks.
            ("t5", (32128, 512, 12, 8, 8, 64, 2048, 512, true, &[1])),
            ("xlm-roberta", (30522, 768, 12, 12, 12, 64, 3072, 510, true, &[2])),
        ];
        assert_eq!(cases.map(|(name, _)| name), FAMILIES.map(|family| family.model_type));
        for (name, expected) in cases {
            let mut whole = json!({"model_type": name});
            match name {
                "bert" => whole["architectures"] = json!(["BertForMaskedLM"]),
                "distilbert" => whole["architectures"] = json!(["DistilBertForMaskedLM"]),
                "modernbert" => whole["architectures"] = json!(["ModernBertForMaskedLM"]),
                "nomic_bert" => whole["architectures"] = json!(["NomicBertForMaskedLM"]),
                "camembert" => whole["architectures"] = json!(["CamembertForMaskedLM"]),
                "roberta" => whole["architectures"] = json!(["RobertaForMaskedLM"]),
                "xlm-roberta" => whole["architectures"] = json!(["XLMRobertaForMaskedLM"]),
                "electra" => {
                    whole["architectures"] = json!(["ElectraForMaskedLM"]);
                    whole["embedding_size"] = json!(256);
                }
                _ => {}
            }
            let spec = spec(&config(whole)).expect(name);
            let layer = &spec.layers[0];
            let attention = layer.attention().expect("attention");
            let tied = match spec.head {
                Head::LanguageModel { tied, .. } | Head::MaskedLanguageModel { tied, .. } => tied,
                _ => panic!("{name} has no head"),
            };
            let (heads, key_heads) = (attention.heads, attention.key_value_heads);
            let found = (spec.vocabulary, spec.hidden, spec.layers.len(), heads, key_heads, attention.head_dim);
            let (vocabulary, hidden, layers, heads, key_heads, width, network, context, head, ends) = expected;
            assert_eq!(found, (vocabulary, hidden, layers, heads, key_heads, width), "{name}");
            assert_eq!((layer.ffn.width, spec.context, tied), (network, context, head), "{name}");
            assert_eq!(spec.ends, ends, "{name}");
        }
    }

    #[test]
    fn other_names_of_a_key_are_read_and_may_not_contradict() {
        let named = |hidden: Value| {
            let whole = json!({"model_type": "gpt2", "vocab_size": 9, "num_hidden_layers": 2, "num_attention_heads": 2,
                               "max_position_embeddings": 16, "hidden_size": 8, "n_embd": hidden});
            spec(&config(whole))
        };
        let read = named(json!(8)).expect("they agree");
        assert_eq!((read.hidden, read.layers.len(), read.context), (8, 2, 16));
        let error = named(json!(16)).expect_err("they do not").to_string();
        assert_eq!(error, "m/config.json: `hidden_size` is 8, expected what n_embd says; remove either");
    }

    #[test]
    fn sizes_must_be_stated_where_there_are_no_weights() {
        let error = super::super::spec_without_weights(&config(json!({"model_type": "llama", "hidden_size": 8})));
        let error = error.expect_err("no vocabulary").to_string();
        assert!(error.contains("key `vocab_size` is missing") && error.contains("no weights"), "{error}");
    }
}
