//! The keys of a GGUF file as the configuration that transformers would have: what stands in neither is what the
//! architecture implies. Every key of the architecture is looked at; what cannot be said in the family's configuration is
//! refused by its own name.

use super::architecture::{Architecture, LAST, Shape};
use super::companions::pooling_type;
use super::container::StoredBlocks;
use super::error::GgufError;
use super::frequencies;
use super::metadata::Metadata;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Rotary base where no key says one.
const ROPE_BASE: f64 = 10_000.0;
/// Most layers, as everywhere in slmc.
const MOST_LAYERS: usize = u16::MAX as usize;
/// Epsilon of DistilBERT's norms, which its configuration cannot say.
const DISTILBERT_EPSILON: f64 = 1e-12;
/// Layers of the Gemma 3 whose scores are scaled by hidden / heads.
const GEMMA_27B_LAYERS: usize = 62;

/// A file of which a configuration is made.
pub(super) struct Described<'f> {
    /// Its architecture.
    pub(super) architecture: &'static Architecture,
    /// Its keys.
    pub(super) metadata: &'f Metadata,
    /// Its tensors.
    pub(super) tensors: &'f BTreeMap<String, StoredBlocks>,
}

impl Described<'_> {
    /// The configuration, in the form of config.json.
    pub(super) fn configuration(&self) -> Result<Map<String, Value>, GgufError> {
        self.check_keys()?;
        let mut config = match self.architecture.shape {
            Shape::Llama => self.llama()?,
            Shape::Qwen2 => self.gated("qwen2", "Qwen2ForCausalLM")?,
            Shape::Qwen3 => self.gated("qwen3", self.qwen3_class()?)?,
            Shape::Gemma3 => self.gemma3()?,
            Shape::Phi3 => self.phi3()?,
            Shape::Gpt2 => self.gpt2()?,
            Shape::Bert => self.bert()?,
            Shape::Lfm2 => self.lfm2()?,
        };
        for (key, token) in [("bos", "bos"), ("eos", "eos"), ("pad", "padding")] {
            if let Some(id) = self.metadata.token(&format!("tokenizer.ggml.{token}_token_id"))? {
                config.insert(format!("{key}_token_id"), json!(id));
            }
        }
        Ok(config)
    }

    fn key(&self, key: &str) -> String {
        self.architecture.key(key)
    }

    fn has(&self, tensor: &str) -> bool {
        self.tensors.contains_key(tensor)
    }

    /// Refuses keys of the architecture that are not known, and known ones that change the computation.
    fn check_keys(&self) -> Result<(), GgufError> {
        let own = format!("{}.", self.architecture.name);
        for full in self.metadata.keys() {
            if full.strip_prefix(&own).is_some_and(|key| !self.architecture.knows(key)) {
                let (file, key) = (self.metadata.file().to_owned(), full.to_owned());
                return Err(GgufError::UnknownKey { file, key, architecture: self.architecture.name });
            }
        }
        for key in ["expert_count", "expert_used_count"] {
            let full = self.key(key);
            if self.metadata.optional_count(&full)?.is_some_and(|count| count > 0) {
                return Err(self.metadata.wrong(&full, "0: slmc has no experts"));
            }
        }
        let encoder = self.architecture.shape == Shape::Bert;
        let causal = self.key("attention.causal");
        if self.metadata.optional_flag(&causal)?.is_some_and(|causal| causal == encoder) {
            return Err(self.metadata.wrong(&causal, if encoder { "false" } else { "true" }));
        }
        pooling_type(self.architecture, self.metadata)?;
        let parallel = self.key("use_parallel_residual");
        if self.metadata.optional_flag(&parallel)? == Some(true) {
            return Err(self.metadata.wrong(&parallel, "false"));
        }
        Ok(())
    }

    fn layers(&self) -> Result<usize, GgufError> {
        let key = self.key("block_count");
        let layers = self.metadata.size(&key)?;
        if layers > MOST_LAYERS {
            return Err(self.metadata.wrong(&key, &format!("at most {MOST_LAYERS}")));
        }
        Ok(layers)
    }

    /// Rows of a table, which must be there.
    fn rows(&self, tensor: &str, columns: usize) -> Result<usize, GgufError> {
        match self.tensors.get(tensor).map(|stored| &stored.shape[..]) {
            Some(&[rows, _]) => Ok(rows),
            _ => {
                let (file, tensor) = (self.metadata.file().to_owned(), tensor.to_owned());
                Err(GgufError::Table { file, tensor, columns })
            }
        }
    }

    /// Rows of the token table, which the number of tokens may not exceed.
    fn vocabulary(&self, hidden: usize) -> Result<usize, GgufError> {
        let rows = self.rows("token_embd.weight", hidden)?;
        let key = self.key("vocab_size");
        if self.metadata.optional_size(&key)?.is_some_and(|stated| stated != rows) {
            return Err(self.metadata.wrong(&key, &format!("{rows}, the rows of `token_embd.weight`")));
        }
        Ok(rows)
    }

    fn hidden(&self) -> Result<usize, GgufError> {
        self.metadata.size(&self.key("embedding_length"))
    }

    fn uniform(&self, key: &str) -> Result<usize, GgufError> {
        let full = self.key(key);
        let value = self.metadata.uniform(&full, self.layers()?)?;
        value.ok_or_else(|| self.metadata.missing(&full, "a number above 0"))
    }

    /// Width of a head: `attention.key_length`, else hidden / heads.
    fn head_dim(&self, heads: usize) -> Result<usize, GgufError> {
        let (key, hidden) = (self.key("attention.key_length"), self.hidden()?);
        let stated = self.metadata.optional_size(&key)?;
        let width = match stated {
            Some(width) => width,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => return Err(self.metadata.missing(&key, "the width of a head")),
        };
        let value = self.key("attention.value_length");
        if self.metadata.optional_size(&value)?.is_some_and(|other| other != width) {
            return Err(self.metadata.wrong(&value, &format!("{width}, the width of keys")));
        }
        if !width.is_multiple_of(2) {
            return Err(self.metadata.wrong(&key, &format!("an even width (it is {width}), for rotary positions")));
        }
        Ok(width)
    }

    /// Refuses rotary settings that no family has: a part of each head, and scalings with keys of their own.
    fn check_rotary(&self, head_dim: usize) -> Result<(), GgufError> {
        let metadata = self.metadata;
        let rotated = self.key("rope.dimension_count");
        if metadata.optional_size(&rotated)?.is_some_and(|width| width != head_dim) {
            return Err(metadata.wrong(&rotated, &format!("{head_dim}, the width of a head: slmc rotates all of it")));
        }
        let kind = self.key("rope.scaling.type");
        let factor = self.key("rope.scaling.factor");
        let scales = metadata.optional_positive(&factor)?.is_some_and(|factor| factor != 1.0);
        match metadata.optional_text(&kind)? {
            None | Some("none") => {}
            Some("linear") if !scales => {}
            Some(_) => {
                return Err(metadata.wrong(&kind, "none; of the scalings slmc knows Llama 3's, which is a tensor here"));
            }
        }
        for key in ["rope.scaling.attn_factor", "rope.scale_linear"] {
            let full = self.key(key);
            if metadata.optional_number(&full)?.is_some_and(|factor| factor != 1.0) {
                return Err(metadata.wrong(&full, "1: slmc has no scaling of this kind"));
            }
        }
        if scales && metadata.value(&kind).is_none() {
            return Err(metadata.wrong(&factor, "1: slmc has no scaling of this kind"));
        }
        let tensors = ["rope_factors_long.weight", "rope_factors_short.weight"];
        if let Some(tensor) = tensors.into_iter().find(|tensor| self.has(tensor)) {
            return Err(GgufError::Frequencies {
                file: metadata.file().to_owned(),
                tensor: tensor.to_owned(),
                problem: "belongs to the longrope scaling, which slmc does not have".to_owned(),
            });
        }
        Ok(())
    }

    /// What decoders with rotary positions and gated networks have in common.
    fn decoder(&self, family: &str, class: &str, epsilon: &str) -> Result<Map<String, Value>, GgufError> {
        let hidden = self.hidden()?;
        let (layers, heads) = (self.layers()?, self.uniform("attention.head_count")?);
        let base = self.metadata.optional_positive(&self.key("rope.freq_base"))?.unwrap_or(ROPE_BASE);
        let mut config = Map::new();
        let mut put = |key: &str, value: Value| config.insert(key.to_owned(), value);
        put("architectures", json!([class]));
        put("model_type", json!(family));
        put("vocab_size", json!(self.vocabulary(hidden)?));
        put("hidden_size", json!(hidden));
        put("intermediate_size", json!(self.uniform("feed_forward_length")?));
        put("num_hidden_layers", json!(layers));
        put("num_attention_heads", json!(heads));
        put("max_position_embeddings", json!(self.metadata.size(&self.key("context_length"))?));
        put(epsilon, json!(self.metadata.positive(&self.key("attention.layer_norm_rms_epsilon"))?));
        put("tie_word_embeddings", json!(!self.has("output.weight")));
        put("rope_theta", json!(base));
        let head_dim = self.head_dim(heads)?;
        self.check_rotary(head_dim)?;
        let scaling = match self.tensors.get(frequencies::TENSOR) {
            Some(stored) => frequencies::scaling(stored, base, head_dim, self.metadata.file())?,
            None => Value::Null,
        };
        put("rope_scaling", scaling);
        Ok(config)
    }

    /// Llama's shape: keys and values of fewer heads, SiLU, heads of any width.
    fn gated(&self, family: &str, class: &str) -> Result<Map<String, Value>, GgufError> {
        let mut config = self.decoder(family, class, "rms_norm_eps")?;
        let heads = self.uniform("attention.head_count")?;
        let key_value = self.metadata.uniform(&self.key("attention.head_count_kv"), self.layers()?)?;
        config.insert("num_key_value_heads".to_owned(), json!(key_value.unwrap_or(heads)));
        config.insert("head_dim".to_owned(), json!(self.head_dim(heads)?));
        config.insert("hidden_act".to_owned(), json!("silu"));
        Ok(config)
    }

    /// The encoder of Qwen3-Embedding, where texts are pooled.
    fn qwen3_class(&self) -> Result<&'static str, GgufError> {
        match pooling_type(self.architecture, self.metadata)? {
            Some(LAST) => Ok("Qwen3Model"),
            _ => Ok("Qwen3ForCausalLM"),
        }
    }

    fn llama(&self) -> Result<Map<String, Value>, GgufError> {
        let mut config = self.gated("llama", "LlamaForCausalLM")?;
        for (key, tensor) in [("attention_bias", "blk.0.attn_q.bias"), ("mlp_bias", "blk.0.ffn_gate.bias")] {
            config.insert(key.to_owned(), json!(self.has(tensor)));
        }
        Ok(config)
    }

    fn gemma3(&self) -> Result<Map<String, Value>, GgufError> {
        let mut config = self.gated("gemma3_text", "Gemma3ForCausalLM")?;
        let (layers, heads) = (self.layers()?, self.uniform("attention.head_count")?);
        let capping = self.key("final_logit_softcapping");
        if self.metadata.optional_number(&capping)?.is_some_and(|cap| cap != 0.0) {
            return Err(self.metadata.wrong(&capping, "0: slmc does not cap logits"));
        }
        let score_width = match layers {
            GEMMA_27B_LAYERS => self.hidden()? / heads,
            _ => self.head_dim(heads)?,
        };
        let window = self.metadata.optional_count(&self.key("attention.sliding_window"))?.filter(|&window| window > 0);
        let local = self.metadata.optional_positive(&self.key("rope.freq_base_swa"))?.unwrap_or(ROPE_BASE);
        let kind = |slides: bool| if slides { "sliding_attention" } else { "full_attention" };
        let kinds: Vec<&str> = match window {
            None => vec![kind(false); layers],
            Some(_) => self.sliding(layers)?.into_iter().map(kind).collect(),
        };
        config.shift_remove("hidden_act");
        config.insert("hidden_activation".to_owned(), json!("gelu_pytorch_tanh"));
        config.insert("query_pre_attn_scalar".to_owned(), json!(score_width));
        config.insert("attention_bias".to_owned(), json!(self.has("blk.0.attn_q.bias")));
        config.insert("sliding_window".to_owned(), json!(window));
        config.insert("rope_local_base_freq".to_owned(), json!(local));
        // In the spelling of transformers 5 as well, which has settings for each kind of layer.
        let settings = |theta: &Value| json!({"rope_type": "default", "rope_theta": theta});
        let parameters =
            json!({"full_attention": settings(&config["rope_theta"]), "sliding_attention": settings(&json!(local))});
        config.insert("rope_parameters".to_owned(), parameters);
        config.insert("layer_types".to_owned(), json!(kinds));
        Ok(config)
    }

    /// Which layers slide: by an array, or all but every n-th, every sixth where no key says n.
    fn sliding(&self, layers: usize) -> Result<Vec<bool>, GgufError> {
        const PATTERN: usize = 6;
        let key = self.key("attention.sliding_window_pattern");
        if let Some(flags) = self.metadata.flags(&key, layers)? {
            return Ok(flags);
        }
        let every = self.metadata.optional_size(&key)?.unwrap_or(PATTERN);
        Ok((1..=layers).map(|number| !number.is_multiple_of(every)).collect())
    }

    fn phi3(&self) -> Result<Map<String, Value>, GgufError> {
        let mut config = self.gated("phi3", "Phi3ForCausalLM")?;
        // The family has heads that share the hidden width.
        config.shift_remove("head_dim");
        let window = self.metadata.optional_count(&self.key("attention.sliding_window"))?.filter(|&window| window > 0);
        config.insert("sliding_window".to_owned(), json!(window));
        Ok(config)
    }

    fn gpt2(&self) -> Result<Map<String, Value>, GgufError> {
        let hidden = self.hidden()?;
        let config = json!({
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "vocab_size": self.vocabulary(hidden)?,
            "n_embd": hidden,
            "n_inner": self.uniform("feed_forward_length")?,
            "n_layer": self.layers()?,
            "n_head": self.uniform("attention.head_count")?,
            "n_positions": self.rows("position_embd.weight", hidden)?,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": self.metadata.positive(&self.key("attention.layer_norm_epsilon"))?,
            "tie_word_embeddings": !self.has("output.weight"),
        });
        Ok(object(config))
    }

    /// BERT, or DistilBERT where there are no token types. Whose positions begin after the padding (RoBERTa) has a table
    /// without those rows here, and is BERT.
    fn bert(&self) -> Result<Map<String, Value>, GgufError> {
        let hidden = self.hidden()?;
        let epsilon_key = self.key("attention.layer_norm_epsilon");
        let epsilon = self.metadata.positive(&epsilon_key)?;
        let (layers, heads) = (self.layers()?, self.uniform("attention.head_count")?);
        let (width, vocabulary) = (self.uniform("feed_forward_length")?, self.vocabulary(hidden)?);
        let positions = self.rows("position_embd.weight", hidden)?;
        if !self.has("token_types.weight") {
            if epsilon != DISTILBERT_EPSILON {
                return Err(self.metadata.wrong(&epsilon_key, "1e-12, which DistilBERT has: there are no token types"));
            }
            return Ok(object(json!({
                "architectures": ["DistilBertModel"],
                "model_type": "distilbert",
                "vocab_size": vocabulary,
                "dim": hidden,
                "hidden_dim": width,
                "n_layers": layers,
                "n_heads": heads,
                "max_position_embeddings": positions,
                "activation": "gelu",
            })));
        }
        let mut config = object(json!({
            "architectures": ["BertModel"],
            "model_type": "bert",
            "vocab_size": vocabulary,
            "hidden_size": hidden,
            "intermediate_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "max_position_embeddings": positions,
            "type_vocab_size": self.rows("token_types.weight", hidden)?,
            "layer_norm_eps": epsilon,
            "hidden_act": "gelu",
        }));
        if self.has("cls.output.weight") {
            let labels = self.metadata.optional_texts(&self.key("classifier.output_labels"))?;
            let count = self.rows("cls.output.weight", hidden)?;
            let name = |id: usize| match &labels {
                Some(labels) => labels.get(id).map(|&label| label.to_owned()),
                None => Some(format!("LABEL_{id}")),
            };
            let names: Option<Map<String, Value>> =
                (0..count).map(|id| Some((id.to_string(), json!(name(id)?)))).collect();
            let names = names.ok_or_else(|| {
                self.metadata.wrong(&self.key("classifier.output_labels"), &format!("names of {count} labels"))
            })?;
            config.insert("architectures".to_owned(), json!(["BertForSequenceClassification"]));
            config.insert("id2label".to_owned(), Value::Object(names));
        }
        Ok(config)
    }

    fn lfm2(&self) -> Result<Map<String, Value>, GgufError> {
        let mut config = self.decoder("lfm2", "Lfm2ForCausalLM", "norm_eps")?;
        let (layers, key) = (self.layers()?, self.key("attention.head_count_kv"));
        let per_layer = self.metadata.counts(&key, layers)?;
        let per_layer = per_layer.ok_or_else(|| self.metadata.missing(&key, "the heads of every layer"))?;
        let mut heads = per_layer.iter().copied().filter(|&heads| heads > 0);
        let first = heads.next().ok_or_else(|| self.metadata.wrong(&key, "a layer that attends"))?;
        if heads.any(|heads| heads != first) {
            return Err(self.metadata.wrong(&key, "the same number in every layer that attends, 0 in the others"));
        }
        let kind = |&heads: &usize| if heads > 0 { "full_attention" } else { "conv" };
        let conv_bias = (0..layers).any(|layer| self.has(&format!("blk.{layer}.shortconv.conv.bias")));
        config.insert("num_key_value_heads".to_owned(), json!(first));
        config.insert("conv_L_cache".to_owned(), json!(self.metadata.size(&self.key("shortconv.l_cache"))?));
        config.insert("conv_bias".to_owned(), json!(conv_bias));
        config.insert("block_auto_adjust_ff_dim".to_owned(), json!(false));
        config.insert("layer_types".to_owned(), json!(per_layer.iter().map(kind).collect::<Vec<_>>()));
        Ok(config)
    }
}

/// The map of a value that was written as one.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
