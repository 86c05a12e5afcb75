//! The graph of an encoder: whole sequences in, hidden states or logits out, by the names that optimum gives.
//!
//! ```text
//! input_ids, attention_mask, [token_type_ids] (batch, length)
//! last_hidden_state (batch, length, hidden), or logits (batch, length, vocabulary) or (batch, labels)
//! ```

use super::attention::Context;
use super::composer::Composer;
use super::messages::{AttributeProto, DataType, Dimension};
use crate::formats::error::ModelFormatError;
use crate::model::id::{LinearId, NormSite, Role};
use crate::model::spec::{Function, Head, Positions};

const BATCH: Dimension = Dimension::Named("batch_size");
const LENGTH: Dimension = Dimension::Named("sequence_length");

const TOKENS: &str = "input_ids";
const MASK: &str = "attention_mask";
const TYPES: &str = "token_type_ids";

impl Composer<'_> {
    /// The whole graph.
    pub(super) fn encoder(&mut self) -> Result<(), ModelFormatError> {
        let spec = self.spec();
        self.graph.input(TOKENS, DataType::Int64, &[BATCH, LENGTH]);
        self.graph.input(MASK, DataType::Int64, &[BATCH, LENGTH]);
        let mask = self.padding_mask(MASK);
        let mut hidden = self.embedded()?;
        if let Some(norm) = spec.embedding_norm {
            hidden = self.norm(norm, None, NormSite::Embedding, &hidden)?;
        }
        let context = Context::Whole { mask };
        for layer in 0..spec.layers.len() {
            hidden = self.layer(layer, &hidden, &context)?;
        }
        if let Some(norm) = spec.final_norm {
            hidden = self.norm(norm, None, NormSite::Final, &hidden)?;
        }
        self.head(&hidden)
    }

    /// Rows of the tables, added.
    fn embedded(&mut self) -> Result<String, ModelFormatError> {
        let spec = self.spec();
        let mut hidden = self.lookup(LinearId::global(Role::TokenEmbedding), TOKENS)?;
        if spec.embedding_scale != 1.0 {
            let scale = self.graph.number(spec.embedding_scale);
            hidden = self.graph.node("Mul", "embed.scaled", &[&hidden, &scale], Vec::new());
        }
        if spec.token_types > 0 {
            self.graph.input(TYPES, DataType::Int64, &[BATCH, LENGTH]);
            let rows = self.lookup(LinearId::global(Role::TypeEmbedding), TYPES)?;
            hidden = self.sum("embed.typed", &hidden, &rows);
        }
        if spec.positions == Positions::Learned {
            let (nothing, one) = (self.graph.integer(0), self.graph.integer(1));
            let length = self.graph.size_of("positions.length", TOKENS, 1);
            let positions = self.graph.node("Range", "positions.all", &[&nothing, &length, &one], Vec::new());
            let rows = self.lookup(LinearId::global(Role::PositionEmbedding), &positions)?;
            hidden = self.sum("embed.positioned", &hidden, &rows);
        }
        Ok(hidden)
    }

    /// From the last hidden states to the output.
    fn head(&mut self, hidden: &str) -> Result<(), ModelFormatError> {
        let spec = self.spec();
        match &spec.head {
            Head::Hidden => {
                self.graph.output("last_hidden_state", hidden, &[BATCH, LENGTH, Dimension::Fixed(spec.hidden)]);
            }
            Head::LanguageModel { .. } => {
                self.linear_as(LinearId::global(Role::LmHead), hidden, "logits")?;
                self.graph.declare_output("logits", &[BATCH, LENGTH, Dimension::Fixed(spec.vocabulary)]);
            }
            Head::MaskedLanguageModel { activation, norm, .. } => {
                let inner = self.linear(LinearId::global(Role::MlmTransform), hidden)?;
                let inner = self.activate(*activation, &inner, "head.mlm_inner");
                let inner = self.norm(*norm, None, NormSite::MlmTransform, &inner)?;
                self.linear_as(LinearId::global(Role::LmHead), &inner, "logits")?;
                self.graph.declare_output("logits", &[BATCH, LENGTH, Dimension::Fixed(spec.vocabulary)]);
            }
            Head::Classifier { function, labels, .. } => {
                let first = self.graph.integer(0);
                let along = vec![AttributeProto::int("axis", 1)];
                let first = self.graph.node("Gather", "head.first", &[hidden, &first], along);
                let pooled = self.linear(LinearId::global(Role::Pooler), &first)?;
                let pooled = match function {
                    Function::Tanh => self.graph.node("Tanh", "head.pooled", &[&pooled], Vec::new()),
                    Function::Activation(activation) => self.activate(*activation, &pooled, "head.pooled"),
                };
                self.linear_as(LinearId::global(Role::Classifier), &pooled, "logits")?;
                self.graph.declare_output("logits", &[BATCH, Dimension::Fixed(labels.len())]);
            }
            // Refused before.
            Head::LastClassifier { .. } => {}
            Head::TokenClassifier { .. } | Head::Answers { .. } => {
                self.linear_as(LinearId::global(Role::Classifier), hidden, "logits")?;
                self.graph.declare_output("logits", &[BATCH, LENGTH, Dimension::Fixed(spec.output_width())]);
            }
        }
        Ok(())
    }
}
