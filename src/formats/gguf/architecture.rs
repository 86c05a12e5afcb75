//! The architectures of GGUF that map onto families of slmc, as one table for both ways: how the rows of queries and keys are
//! ordered, how norms are written, what is fused, which keys there may be. A key of the architecture that is not listed is refused, since it may stand
//! for another computation.

/// Order of the rows of query and key matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowOrder {
    /// As the family has them: element i of a head is rotated with i + d/2.
    Stored,
    /// Pairs side by side: row 2t + s of a head of `head` rows is row s·d/2 + t of the family, s 0 or 1.
    Interleaved {
        /// Rows of a head.
        head: usize,
    },
}

impl RowOrder {
    /// The stored row that is row `row` of the family.
    pub(super) fn stored(self, row: usize) -> usize {
        match self {
            RowOrder::Stored => row,
            RowOrder::Interleaved { head } => {
                let (first, of_head) = (row - row % head, row % head);
                first + 2 * (of_head % (head / 2)) + of_head / (head / 2)
            }
        }
    }

    /// The row of the family that a stored row is: what [`RowOrder::stored`] undoes.
    pub(super) fn of_family(self, stored: usize) -> usize {
        match self {
            RowOrder::Stored => stored,
            RowOrder::Interleaved { head } => {
                let (first, of_head) = (stored - stored % head, stored % head);
                first + of_head / 2 + of_head % 2 * (head / 2)
            }
        }
    }
}

/// An architecture.
#[derive(Debug)]
pub(super) struct Architecture {
    /// `general.architecture`, which also begins its keys.
    pub(super) name: &'static str,
    /// `model_type` of the models that are written in it.
    pub(super) families: &'static [&'static str],
    /// The reader of its keys.
    pub(super) shape: Shape,
    /// Whether rows of queries and keys are interleaved.
    pub(super) interleaved: bool,
    /// Whether weights of RMS norms are written with one added.
    pub(super) norms_from_one: bool,
    /// Whether queries, keys and values are one tensor.
    pub(super) fuses_attention: bool,
    /// Whether gate and up are one tensor.
    pub(super) fuses_gate: bool,
    /// Whether it has [`super::frequencies::TENSOR`].
    pub(super) scales_frequencies: bool,
    /// Name of the norm after the last layer.
    pub(super) final_norm: &'static str,
    /// Values of [`POOLING`] that its models have; a causal decoder has seen the whole text at its last token alone.
    pub(super) poolings: &'static [usize],
    /// Keys beyond [`COMMON_KEYS`].
    pub(super) keys: &'static [&'static str],
}

/// Key of how the hidden states of a text become one row; absent or [`NOT_POOLED`] of decoders with a head.
pub(super) const POOLING: &str = "pooling_type";
/// Every token keeps its state.
pub(super) const NOT_POOLED: usize = 0;
/// The mean of all.
pub(super) const MEAN: usize = 1;
/// The state of the first token.
pub(super) const FIRST: usize = 2;
/// The state of the last token.
pub(super) const LAST: usize = 3;
/// The scores of a classifier.
pub(super) const RANK: usize = 4;

/// Which configuration an architecture has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Llama,
    Qwen2,
    Qwen3,
    Gemma3,
    Phi3,
    Gpt2,
    Bert,
    Lfm2,
}

/// Keys that any architecture may have.
const COMMON_KEYS: [&str; 23] = [
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.causal",
    "rope.freq_base",
    "rope.dimension_count",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.finetuned",
    "expert_count",
    "expert_used_count",
    "tensor_data_layout",
    "use_parallel_residual",
    POOLING,
];

const RMS: &str = "attention.layer_norm_rms_epsilon";
const LAYER: &str = "attention.layer_norm_epsilon";

const PLAIN: Architecture = Architecture {
    name: "llama",
    families: &["llama", "mistral"],
    shape: Shape::Llama,
    interleaved: false,
    norms_from_one: false,
    fuses_attention: false,
    fuses_gate: false,
    scales_frequencies: false,
    final_norm: "output_norm",
    poolings: &[NOT_POOLED],
    keys: &[RMS],
};

/// Every architecture that is read and written.
pub(super) const ARCHITECTURES: [Architecture; 8] = [
    Architecture { interleaved: true, scales_frequencies: true, ..PLAIN },
    Architecture { name: "qwen2", families: &["qwen2"], shape: Shape::Qwen2, ..PLAIN },
    Architecture { name: "qwen3", families: &["qwen3"], shape: Shape::Qwen3, poolings: &[NOT_POOLED, LAST], ..PLAIN },
    Architecture {
        name: "gemma3",
        families: &["gemma3_text"],
        shape: Shape::Gemma3,
        norms_from_one: true,
        keys: &[
            RMS,
            "attention.sliding_window",
            "attention.sliding_window_pattern",
            "rope.freq_base_swa",
            "final_logit_softcapping",
        ],
        ..PLAIN
    },
    Architecture {
        name: "phi3",
        families: &["phi3"],
        shape: Shape::Phi3,
        fuses_attention: true,
        fuses_gate: true,
        keys: &[RMS, "attention.sliding_window"],
        ..PLAIN
    },
    Architecture {
        name: "gpt2",
        families: &["gpt2"],
        shape: Shape::Gpt2,
        fuses_attention: true,
        keys: &[LAYER],
        ..PLAIN
    },
    Architecture {
        name: "bert",
        families: &["bert", "distilbert"],
        shape: Shape::Bert,
        poolings: &[NOT_POOLED, MEAN, FIRST, LAST, RANK],
        keys: &[LAYER, "classifier.output_labels"],
        ..PLAIN
    },
    Architecture {
        name: "lfm2",
        families: &["lfm2"],
        shape: Shape::Lfm2,
        final_norm: "token_embd_norm",
        keys: &[RMS, "shortconv.l_cache"],
        ..PLAIN
    },
];

impl Architecture {
    /// The architecture of a name.
    pub(super) fn named(name: &str) -> Option<&'static Architecture> {
        const TABLE: &[Architecture] = &ARCHITECTURES;
        TABLE.iter().find(|architecture| architecture.name == name)
    }

    /// The architecture that models of a family are written in.
    pub(super) fn of_family(family: &str) -> Option<&'static Architecture> {
        const TABLE: &[Architecture] = &ARCHITECTURES;
        TABLE.iter().find(|architecture| architecture.families.contains(&family))
    }

    /// Every family that is written.
    pub(super) fn families() -> String {
        ARCHITECTURES.iter().flat_map(|architecture| architecture.families).copied().collect::<Vec<_>>().join(", ")
    }

    /// Their names.
    pub(super) fn names() -> String {
        ARCHITECTURES.iter().map(|architecture| architecture.name).collect::<Vec<_>>().join(", ")
    }

    /// The full name of a key.
    pub(super) fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    /// Whether a key of the architecture, without its name, is known.
    pub(super) fn knows(&self, key: &str) -> bool {
        COMMON_KEYS.contains(&key) || self.keys.contains(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The formula of the writer: reshape (heads, 2, d/2, …), swap the two, flatten.
    #[test]
    fn interleaved_rows_are_those_that_the_writer_swapped() {
        let (heads, head) = (3, 8);
        let mut written = Vec::new();
        for h in 0..heads {
            for t in 0..head / 2 {
                for s in 0..2 {
                    written.push(h * head + s * (head / 2) + t);
                }
            }
        }
        let order = RowOrder::Interleaved { head };
        let read: Vec<usize> = (0..heads * head).map(|row| written[order.stored(row)]).collect();
        assert_eq!(read, (0..heads * head).collect::<Vec<_>>());
        assert_eq!((0..heads * head).map(|stored| order.of_family(stored)).collect::<Vec<_>>(), written);
    }
}
