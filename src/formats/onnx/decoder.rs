//! The graph of a decoder: the next tokens of each sequence in, logits of every one of them out, with the keys and values of
//! all positions so far. Names are those that optimum gives and onnxruntime-genai looks for.
//!
//! ```text
//! input_ids (batch, length)    attention_mask (batch, past + length)
//! past_key_values.N.key|value (batch, key heads, past, head_dim)
//! logits (batch, length, vocabulary)    present.N.key|value (batch, key heads, past + length, head_dim)
//! ```

use super::attention::{Context, is_grouped};
use super::composer::Composer;
use super::messages::{AttributeProto, DataType, Dimension};
use super::variant::Operators;
use crate::formats::error::ModelFormatError;
use crate::model::id::{LinearId, NormSite, Role};
use crate::model::spec::Positions;

/// Dimensions by their names.
const BATCH: Dimension = Dimension::Named("batch_size");
const LENGTH: Dimension = Dimension::Named("sequence_length");
const PAST: Dimension = Dimension::Named("past_sequence_length");
const TOTAL: Dimension = Dimension::Named("total_sequence_length");

const TOKENS: &str = "input_ids";
const MASK: &str = "attention_mask";

impl Composer<'_> {
    /// The whole graph.
    pub(super) fn decoder(&mut self) -> Result<(), ModelFormatError> {
        let spec = self.spec();
        self.graph.input(TOKENS, DataType::Int64, &[BATCH, LENGTH]);
        self.graph.input(MASK, DataType::Int64, &[BATCH, TOTAL]);
        self.caches();
        let context = self.context();
        let mut hidden = self.lookup(LinearId::global(Role::TokenEmbedding), TOKENS)?;
        if spec.embedding_scale != 1.0 {
            let scale = self.graph.number(spec.embedding_scale);
            hidden = self.graph.node("Mul", "embed.scaled", &[&hidden, &scale], Vec::new());
        }
        if spec.positions == Positions::Learned {
            let positions = self.positions();
            let rows = self.lookup(LinearId::global(Role::PositionEmbedding), &positions)?;
            hidden = self.sum("embed.positioned", &hidden, &rows);
        }
        if let Some(norm) = spec.embedding_norm {
            hidden = self.norm(norm, None, NormSite::Embedding, &hidden)?;
        }
        for layer in 0..spec.layers.len() {
            hidden = self.layer(layer, &hidden, &context)?;
        }
        if let Some(norm) = spec.final_norm {
            hidden = self.norm(norm, None, NormSite::Final, &hidden)?;
        }
        self.linear_as(LinearId::global(Role::LmHead), &hidden, "logits")?;
        self.graph.declare_output("logits", &[BATCH, LENGTH, Dimension::Fixed(spec.vocabulary)]);
        for (layer, part, shape) in self.cache_shapes(TOTAL) {
            self.graph.declare_output(&format!("present.{layer}.{part}"), &shape);
        }
        Ok(())
    }

    fn caches(&mut self) {
        for (layer, part, shape) in self.cache_shapes(PAST) {
            self.graph.input(&format!("past_key_values.{layer}.{part}"), DataType::Float32, &shape);
        }
    }

    /// Keys and values of every layer.
    fn cache_shapes(&self, length: Dimension) -> Vec<(usize, &'static str, [Dimension; 4])> {
        let layers = self.spec().layers.iter().enumerate();
        let attention = layers.filter_map(|(n, layer)| Some((n, layer.attention()?)));
        let shapes = attention.flat_map(|(n, attention)| {
            let [heads, width] = [attention.key_value_heads, attention.head_dim].map(Dimension::Fixed);
            ["key", "value"].map(|part| (n, part, [BATCH, heads, length, width]))
        });
        shapes.collect()
    }

    fn context(&mut self) -> Context {
        let total = self.graph.size_of("positions.total", MASK, 1);
        match self.operators == Operators::OnnxRuntime && is_grouped(self.spec()) {
            true => {
                let (axis, one) = (self.graph.integers(&[1]), self.graph.integer(1));
                let rows = vec![AttributeProto::int("keepdims", 0)];
                let count = self.graph.node("ReduceSum", "positions.count", &[MASK, &axis], rows);
                let last = self.graph.node("Sub", "positions.last", &[&count, &one], Vec::new());
                Context::Grouped {
                    lengths: self.graph.cast("positions.lengths", &last, DataType::Int32),
                    total: self.graph.cast("positions.all", &total, DataType::Int32),
                }
            }
            false => {
                let (nothing, one) = (self.graph.integer(0), self.graph.integer(1));
                let length = self.graph.size_of("positions.length", TOKENS, 1);
                let start = self.graph.node("Sub", "positions.start", &[&total, &length], Vec::new());
                let keys = self.graph.node("Range", "positions.keys", &[&nothing, &total, &one], Vec::new());
                let queries = self.graph.node("Range", "positions.queries", &[&start, &total, &one], Vec::new());
                let queries = self.graph.unsqueeze("positions.query_rows", &queries, &[1]);
                let present = self.graph.cast("positions.tokens", MASK, DataType::Bool);
                let present = self.graph.unsqueeze("positions.present", &present, &[1, 2, 3]);
                Context::Cached { positions: self.positions(), queries, keys, present }
            }
        }
    }

    /// The number of each position, (batch, length): how many tokens are before it in the mask, whatever the padding.
    fn positions(&mut self) -> String {
        let (nothing, one) = (self.graph.integer(0), self.graph.integer(1));
        let (axis, last) = (self.graph.integers(&[1]), self.graph.integers(&[i64::MAX]));
        self.graph.once("positions.numbers", |graph, name| {
            let length = graph.size_of("positions.own", TOKENS, 1);
            let counted = graph.node("CumSum", "positions.counted", &[MASK, &one], Vec::new());
            let before = graph.node("Sub", "positions.before", &[&counted, &one], Vec::new());
            // Padding before the first token has none.
            let before = graph.node("Max", "positions.bounded", &[&before, &nothing], Vec::new());
            let from_end = graph.node("Neg", "positions.from_end", &[&length], Vec::new());
            let from_end = graph.unsqueeze("positions.own_start", &from_end, &[0]);
            graph.node("Slice", name, &[&before, &from_end, &last, &axis], Vec::new());
        })
    }
}
