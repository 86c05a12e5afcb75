//! Attention of a layer, in one of three ways: by onnxruntime's operator over a cache, by operators of the standard over a
//! cache, or over a whole sequence. Query heads that share a key head are a dimension of their own, so that keys are never
//! repeated.
//!
//! ```text
//! query (batch, key heads, heads / key heads, length, head_dim)    key, value (batch, key heads, keys, head_dim)
//! softmax(query · keyᵀ · scale + mask) · value
//! ```

use super::composer::Composer;
use super::messages::{AttributeProto, DataType};
use crate::formats::error::ModelFormatError;
use crate::model::forward::rotary_values;
use crate::model::id::{LinearId, NormSite, Role};
use crate::model::spec::{AttentionSpec, ModelSpec, RotarySpec};
use std::borrow::Cow;

/// Added to scores that attention must not see. Finite, so that a row with nothing to see is uniform and not NaN.
const HIDDEN_SCORE: f32 = -1e9;

/// What the layers of a graph share.
pub(super) enum Context {
    /// onnxruntime's operator: last positions (batch) and the number of all, as 32-bit integers.
    Grouped {
        /// Number of the last position of each sequence.
        lengths: String,
        /// Positions of the longest.
        total: String,
    },
    /// Operators of the standard, with a cache.
    Cached {
        /// Number of each position, (batch, length).
        positions: String,
        /// Places of the queries among all positions, (length, 1).
        queries: String,
        /// Places of the keys, (keys).
        keys: String,
        /// Whether there is a token, (batch, 1, 1, 1, keys).
        present: String,
    },
    /// A whole sequence at once.
    Whole {
        /// Added to scores, (batch, 1, 1, length).
        mask: String,
    },
}

impl Composer<'_> {
    /// From the normed hidden states of a layer to the input of its output projection.
    pub(super) fn attention(
        &mut self,
        layer: usize,
        input: &str,
        context: &Context,
    ) -> Result<String, ModelFormatError> {
        let Some(spec) = self.spec().layers[layer].attention().copied() else { return Ok(input.to_owned()) };
        let query = self.linear(LinearId::layer(layer, Role::Query), input)?;
        let key = self.linear(LinearId::layer(layer, Role::Key), input)?;
        let value = self.linear(LinearId::layer(layer, Role::Value), input)?;
        match context {
            Context::Grouped { lengths, total } => self.grouped(layer, &spec, [&query, &key, &value], [lengths, total]),
            Context::Cached { .. } => self.cached(layer, &spec, [&query, &key, &value], context),
            Context::Whole { mask } => Ok(self.whole(layer, &spec, [&query, &key, &value], mask)),
        }
    }

    /// By `GroupQueryAttention`, which rotates and keeps the cache.
    fn grouped(
        &mut self,
        layer: usize,
        spec: &AttentionSpec,
        [query, key, value]: [&str; 3],
        [lengths, total]: [&String; 2],
    ) -> Result<String, ModelFormatError> {
        let query = self.normed_heads(layer, spec, query, NormSite::Query, spec.heads)?;
        let key = self.normed_heads(layer, spec, key, NormSite::Key, spec.key_value_heads)?;
        let [past_key, past_value] = ["key", "value"].map(|part| format!("past_key_values.{layer}.{part}"));
        let [present_key, present_value] = ["key", "value"].map(|part| format!("present.{layer}.{part}"));
        let mut attributes = vec![
            AttributeProto::size("num_heads", spec.heads),
            AttributeProto::size("kv_num_heads", spec.key_value_heads),
            AttributeProto::float("scale", spec.score_scale as f32),
            AttributeProto::int("do_rotary", i64::from(spec.rotary.is_some())),
            AttributeProto::int("rotary_interleaved", 0),
        ];
        attributes.extend(spec.window.map(|window| AttributeProto::size("local_window_size", window)));
        let cache = [past_key.as_str(), past_value.as_str(), lengths.as_str(), total.as_str()];
        let mut inputs = [&[query.as_str(), key.as_str(), value][..], &cache].concat();
        let rotation = spec.rotary.map(|rotary| self.rotation(rotary, spec.head_dim));
        inputs.extend(rotation.iter().flatten().map(String::as_str));
        let mixed = format!("layers.{layer}.attn.mixed");
        let outputs = [mixed.as_str(), &present_key, &present_value];
        Ok(self.graph.contrib("GroupQueryAttention", &inputs, &outputs, attributes))
    }

    /// Queries or keys (batch, length, heads · head_dim) with their norm, where they have one.
    fn normed_heads(
        &mut self,
        layer: usize,
        spec: &AttentionSpec,
        rows: &str,
        site: NormSite,
        heads: usize,
    ) -> Result<String, ModelFormatError> {
        if spec.query_key_norm.is_none() {
            return Ok(rows.to_owned());
        }
        let (heads, width) = (heads as i64, spec.head_dim as i64);
        let split = self.graph.reshape(&format!("{rows}.heads"), rows, &[0, 0, heads, width]);
        let normed = self.norm(self.spec().layers[layer].norm, Some(layer as u16), site, &split)?;
        Ok(self.graph.reshape(&format!("{rows}.normed"), &normed, &[0, 0, heads * width]))
    }

    /// Tables of cos and sin, (context, head_dim / 2) each.
    fn rotation(&mut self, rotary: RotarySpec, head_dim: usize) -> [String; 2] {
        let known = self.rotations.iter().position(|known| *known == (rotary, head_dim));
        let index = known.unwrap_or_else(|| {
            self.rotations.push((rotary, head_dim));
            self.rotations.len() - 1
        });
        let context = self.spec().context;
        ["cos", "sin"].map(|part| {
            let make = move || {
                let [cos, sin] = rotary_values(&rotary, head_dim, 0, context);
                let values = if part == "cos" { cos } else { sin };
                Ok(Cow::Owned(values.iter().flat_map(|value| value.to_le_bytes()).collect()))
            };
            let shape = vec![context, head_dim / 2];
            self.graph.initializer(format!("{ROTARY}{index}.{part}"), DataType::Float32, shape, make)
        })
    }

    /// By operators of the standard, over the cache and the input's own positions.
    fn cached(
        &mut self,
        layer: usize,
        spec: &AttentionSpec,
        [query, key, value]: [&str; 3],
        context: &Context,
    ) -> Result<String, ModelFormatError> {
        let Context::Cached { positions, .. } = context else { return Ok(query.to_owned()) };
        let (shared, width) = (spec.key_value_heads as i64, spec.head_dim as i64);
        let together = spec.heads as i64 / shared;
        let norm = self.spec().layers[layer].norm;
        let mut query = self.graph.reshape(&format!("{query}.heads"), query, &[0, 0, shared, together, width]);
        let mut key = self.graph.reshape(&format!("{key}.heads"), key, &[0, 0, shared, width]);
        if spec.query_key_norm.is_some() {
            query = self.norm(norm, Some(layer as u16), NormSite::Query, &query)?;
            key = self.norm(norm, Some(layer as u16), NormSite::Key, &key)?;
        }
        let name = format!("layers.{layer}.attn");
        // Positions next to the width of a head: (batch, key heads, [heads / key heads,] length, head_dim).
        let mut query = self.graph.transpose(&format!("{name}.queries"), &query, &[0, 2, 3, 1, 4]);
        let mut key = self.graph.transpose(&format!("{name}.keys"), &key, &[0, 2, 1, 3]);
        if let Some(rotary) = spec.rotary {
            let tables = self.rotation(rotary, spec.head_dim);
            let [of_keys, of_queries] = [(1, "keys"), (2, "queries")].map(|(count, of)| {
                [&tables[0], &tables[1]].map(|table| {
                    let rows = self.graph.once(&format!("{table}.rows"), |graph, name| {
                        graph.gather(name, table, positions);
                    });
                    let axes: Vec<i64> = (1..=count).collect();
                    self.graph.once(&format!("{table}.{of}"), |graph, name| {
                        graph.unsqueeze(name, &rows, &axes);
                    })
                })
            });
            query = self.rotated(&query, of_queries, spec.head_dim);
            key = self.rotated(&key, of_keys, spec.head_dim);
        }
        let value = self.graph.reshape(&format!("{value}.heads"), value, &[0, 0, shared, width]);
        let value = self.graph.transpose(&format!("{name}.values"), &value, &[0, 2, 1, 3]);
        let [key, value] = [("key", key), ("value", value)].map(|(part, own)| {
            let (past, present) = (format!("past_key_values.{layer}.{part}"), format!("present.{layer}.{part}"));
            self.graph.concat(&present, &[&past, &own], 2)
        });
        let mask = self.mask(spec.window, context);
        let key = self.graph.unsqueeze(&format!("{name}.all_keys"), &key, &[2]);
        let value = self.graph.unsqueeze(&format!("{name}.all_values"), &value, &[2]);
        let mixed = self.mixed(&name, spec, [&query, &key, &value], &mask, &[0, 1, 2, 4, 3]);
        let mixed = self.graph.transpose(&format!("{name}.turned"), &mixed, &[0, 3, 1, 2, 4]);
        Ok(self.graph.reshape(&format!("{name}.mixed"), &mixed, &[0, 0, spec.query_width() as i64]))
    }

    /// softmax(query · keyᵀ · scale + mask) · value; `turned` is the order of the dimensions of keyᵀ.
    fn mixed(
        &mut self,
        name: &str,
        spec: &AttentionSpec,
        [query, key, value]: [&str; 3],
        mask: &str,
        turned: &[i64],
    ) -> String {
        let scale = self.graph.number(spec.score_scale as f32);
        let query = self.graph.node("Mul", &format!("{name}.scaled"), &[query, &scale], Vec::new());
        let key = self.graph.transpose(&format!("{name}.keys_turned"), key, turned);
        let scores = self.graph.node("MatMul", &format!("{name}.scores"), &[&query, &key], Vec::new());
        let scores = self.graph.node("Add", &format!("{name}.masked"), &[&scores, mask], Vec::new());
        let softmax = vec![AttributeProto::int("axis", -1)];
        let weights = self.graph.node("Softmax", &format!("{name}.weights"), &[&scores], softmax);
        self.graph.node("MatMul", &format!("{name}.mixed_heads"), &[&weights, value], Vec::new())
    }

    /// Pairs (i, i + head_dim / 2) of the last dimension, rotated.
    fn rotated(&mut self, rows: &str, [cos, sin]: [String; 2], head_dim: usize) -> String {
        let half = head_dim as i64 / 2;
        let lengths = self.graph.integers(&[half, half]);
        let [a, b] = ["first", "second"].map(|part| format!("{rows}.{part}"));
        self.graph.several("Split", &[rows, &lengths], &[&a, &b], vec![AttributeProto::int("axis", -1)]);
        let mut product = |name: &str, value: &str, factor: &str| {
            self.graph.node("Mul", &format!("{rows}.{name}"), &[value, factor], Vec::new())
        };
        let (a_cos, b_sin) = (product("first_cos", &a, &cos), product("second_sin", &b, &sin));
        let (b_cos, a_sin) = (product("second_cos", &b, &cos), product("first_sin", &a, &sin));
        let first = self.graph.node("Sub", &format!("{rows}.rotated_first"), &[&a_cos, &b_sin], Vec::new());
        let second = self.graph.node("Add", &format!("{rows}.rotated_second"), &[&b_cos, &a_sin], Vec::new());
        self.graph.concat(&format!("{rows}.rotated"), &[&first, &second], -1)
    }

    /// What is added to scores of a decoder, (batch, 1, 1, length, keys): positions after a query, those that its window has
    /// left behind, and padding are not seen.
    fn mask(&mut self, window: Option<usize>, context: &Context) -> String {
        let Context::Cached { queries, keys, present, .. } = context else { return String::new() };
        let name = window.map_or_else(|| "mask.all".to_owned(), |window| format!("mask.window{window}"));
        let [seen_score, hidden_score] = [0.0, HIDDEN_SCORE].map(|score| self.graph.number(score));
        let width = window.map(|window| self.graph.integer(window as i64));
        self.graph.once(&name, |graph, name| {
            let mut seen = graph.node("LessOrEqual", &format!("{name}.before"), &[keys, queries], Vec::new());
            if let Some(width) = width {
                let left = graph.node("Sub", &format!("{name}.left"), &[queries, &width], Vec::new());
                let within = graph.node("Greater", &format!("{name}.within"), &[keys, &left], Vec::new());
                seen = graph.node("And", &format!("{name}.near"), &[&seen, &within], Vec::new());
            }
            let seen = graph.node("And", &format!("{name}.seen"), &[&seen, present], Vec::new());
            graph.node("Where", name, &[&seen, &seen_score, &hidden_score], Vec::new());
        })
    }

    /// Over a whole sequence, every head with keys of its own or shared.
    fn whole(&mut self, layer: usize, spec: &AttentionSpec, [query, key, value]: [&str; 3], mask: &str) -> String {
        let name = format!("layers.{layer}.attn");
        let width = spec.head_dim as i64;
        let [query, key, value] = [(query, spec.heads), (key, spec.key_value_heads), (value, spec.key_value_heads)]
            .map(|(rows, heads)| {
                let heads = self.graph.reshape(&format!("{rows}.heads"), rows, &[0, 0, heads as i64, width]);
                self.graph.transpose(&format!("{rows}.by_heads"), &heads, &[0, 2, 1, 3])
            });
        let mixed = self.mixed(&name, spec, [&query, &key, &value], mask, &[0, 1, 3, 2]);
        let mixed = self.graph.transpose(&format!("{name}.turned"), &mixed, &[0, 2, 1, 3]);
        self.graph.reshape(&format!("{name}.mixed"), &mixed, &[0, 0, spec.query_width() as i64])
    }

    /// What is added to scores of an encoder, (batch, 1, 1, length): padding is not seen.
    pub(super) fn padding_mask(&mut self, attention_mask: &str) -> String {
        let present = self.graph.cast("mask.present", attention_mask, DataType::Bool);
        let present = self.graph.unsqueeze("mask.seen", &present, &[1, 2]);
        let [seen, hidden] = [0.0, HIDDEN_SCORE].map(|score| self.graph.number(score));
        self.graph.node("Where", "mask.all", &[&present, &seen, &hidden], Vec::new())
    }
}

/// What the names of rotary tables begin with.
pub(super) const ROTARY: &str = "rotary.";

/// Whether onnxruntime's operator computes attention of every layer: it rotates heads of a multiple of 16 columns.
pub(super) fn is_grouped(spec: &ModelSpec) -> bool {
    let mut attention = spec.layers.iter().filter_map(|layer| layer.attention());
    attention.all(|of| of.head_dim.is_multiple_of(if of.rotary.is_some() { 16 } else { 8 }))
}
