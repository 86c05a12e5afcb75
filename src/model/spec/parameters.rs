//! The tensors a specification implies: every matrix, bias, norm and kernel with its shape, in forward order.

use super::{Head, LayerSpec, Mixer, Mixture, ModelSpec, Norm, NormKind, NormPlacement, QueryKeyNorm};
use crate::model::graph::Graph;
use crate::model::id::{Class, KeyMapPart, LinearId, NormSite, ParameterId, Part, Role};

impl LayerSpec {
    /// Every norm of the layer with its width, in forward order.
    fn norms(&self, hidden: usize, across: bool) -> Vec<(NormSite, usize)> {
        let added = self.norm_placement.is_on_added();
        let own = self.norm_placement != NormPlacement::Added;
        let first = own && self.norm_placement != NormPlacement::Network;
        let of_network = own && self.norm_placement != NormPlacement::Common;
        let mut out = Vec::new();
        match &self.mixer {
            Mixer::Attention(attention) => {
                out.extend(first.then_some((NormSite::Attention, hidden)));
                match attention.query_key_norm {
                    None => {}
                    Some(QueryKeyNorm::Heads) => {
                        out.extend([(NormSite::Query, attention.head_dim), (NormSite::Key, attention.head_dim)]);
                    }
                    Some(QueryKeyNorm::Together) => {
                        let (queries, keys) = (attention.query_width(), attention.key_width());
                        out.extend([(NormSite::Query, queries), (NormSite::Key, keys)]);
                    }
                }
                out.extend(added.then_some((NormSite::AttentionOutput, hidden)));
            }
            Mixer::Conv(_) => out.push((NormSite::Conv, hidden)),
        }
        out.extend((own && across).then_some((NormSite::Cross, hidden)));
        out.extend(of_network.then_some((NormSite::Ffn, hidden)));
        out.extend(added.then_some((NormSite::FfnOutput, hidden)));
        out
    }
}

/// Scores of a token in [`Head::Answers`]: that an answer starts there, and that it ends there.
const ANSWER_COLUMNS: usize = 2;

/// One tensor a model must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterShape {
    /// Which.
    pub id: ParameterId,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

impl ModelSpec {
    /// Whether the LM head reads the token table.
    pub fn tied_head(&self) -> bool {
        matches!(self.head, Head::LanguageModel { tied: true, .. } | Head::MaskedLanguageModel { tied: true, .. })
    }

    /// The linear that gives the output; `None` where that is the hidden states.
    pub fn last_linear(&self) -> Option<LinearId> {
        match &self.head {
            Head::Hidden => None,
            Head::LanguageModel { .. } | Head::MaskedLanguageModel { .. } => Some(LinearId::global(Role::LmHead)),
            Head::Classifier { .. }
            | Head::LastClassifier { .. }
            | Head::TokenClassifier { .. }
            | Head::Answers { .. } => Some(LinearId::global(Role::Classifier)),
        }
    }

    /// The exit head after `layers` layers: its pooler and its classifier.
    pub fn exit_linears(layers: usize) -> [LinearId; 2] {
        [Role::ExitPooler, Role::ExitClassifier].map(|role| LinearId::layer(layers - 1, role))
    }

    /// Whether a matrix is multiplied with inputs, and not only looked up.
    pub fn multiplies(&self, id: LinearId) -> bool {
        match id.role {
            Role::TokenEmbedding => self.tied_head(),
            Role::EmbeddingProjection => true,
            role => role.class() != Class::Embedding,
        }
    }

    /// The mixture whose experts a matrix is of.
    pub fn mixture(&self, id: LinearId) -> Option<Mixture> {
        let experts = matches!(id.role, Role::Gate | Role::Up | Role::Down);
        self.layers.get(usize::from(id.layer?))?.ffn.mixture.filter(|_| experts)
    }

    /// Of `total` of something that the rows of a matrix have alike, what one token meets: of experts those chosen.
    pub fn met_by_a_token(&self, id: LinearId, total: u64) -> u64 {
        self.mixture(id).map_or(total, |mixture| mixture.active(total))
    }

    /// Largest magnitude of the logits, where they are capped.
    pub fn logit_cap(&self) -> Option<f64> {
        match self.head {
            Head::LanguageModel { cap, .. } => cap,
            _ => None,
        }
    }

    /// Whether the output is one row of labels.
    pub fn is_classifier(&self) -> bool {
        matches!(self.head, Head::Classifier { .. } | Head::LastClassifier { .. })
    }

    /// Columns of the output: vocabulary, labels, start and end, or hidden width.
    pub fn output_width(&self) -> usize {
        match &self.head {
            Head::Hidden => self.hidden,
            Head::LanguageModel { .. } | Head::MaskedLanguageModel { .. } => self.vocabulary,
            Head::Classifier { labels, .. } | Head::LastClassifier { labels } | Head::TokenClassifier { labels } => {
                labels.len()
            }
            Head::Answers { .. } => ANSWER_COLUMNS,
        }
    }

    /// Every key map that a quantized model can have, with its (key_value_heads, head_dim).
    pub fn key_maps(&self) -> Vec<ParameterShape> {
        let layers = self.layers.iter().enumerate();
        let attention = layers.filter_map(|(n, layer)| Some((n, layer.attention()?)));
        let maps = attention.flat_map(|(n, attention)| {
            let shape = vec![attention.key_value_heads, attention.head_dim];
            KeyMapPart::ALL.map(|part| ParameterShape { id: ParameterId::KeyMap(n as u16, part), shape: shape.clone() })
        });
        maps.collect()
    }

    /// Every matrix with its (rows, columns), in forward order; a tied head is not listed apart.
    pub fn matrices(&self) -> Vec<(LinearId, usize, usize)> {
        Graph::new(self).matrices()
    }

    /// Whether the matrix has a bias.
    pub fn has_bias(&self, id: LinearId) -> bool {
        match (id.layer, id.role) {
            (Some(n), role) => {
                let layer = &self.layers[n as usize];
                match (role, &layer.mixer) {
                    (
                        Role::Query | Role::Key | Role::Value | Role::CrossQuery | Role::CrossKey | Role::CrossValue,
                        Mixer::Attention(attention),
                    ) => attention.input_bias,
                    (Role::Output | Role::CrossOutput, Mixer::Attention(attention)) => attention.output_bias,
                    (Role::ConvIn | Role::ConvOut, Mixer::Conv(conv)) => conv.bias,
                    (Role::ExitPooler | Role::ExitClassifier, _) => true,
                    (Role::Router, _) => false,
                    _ => layer.ffn.bias,
                }
            }
            (None, role) => match (role, &self.head) {
                (Role::LmHead, Head::LanguageModel { bias, .. }) => *bias,
                (Role::MlmTransform, Head::MaskedLanguageModel { biases: [dense, _], .. }) => *dense,
                (Role::LmHead, Head::MaskedLanguageModel { biases: [_, last], .. }) => *last,
                (Role::Pooler, Head::Classifier { bias, .. }) => *bias,
                (Role::Classifier, Head::LastClassifier { .. }) => false,
                _ => matches!(role, Role::Classifier | Role::EmbeddingProjection),
            },
        }
    }

    /// Every norm with its place and width: (layer, site, norm, width), in forward order.
    pub fn norms(&self) -> Vec<(Option<u16>, NormSite, Norm, usize)> {
        let hidden = self.hidden;
        let mut out = Vec::new();
        let of_embeddings = |norm| (None, NormSite::Embedding, norm, self.embedding_width);
        out.extend(self.embedding_norm.map(of_embeddings));
        for (n, layer) in self.layers.iter().enumerate() {
            let norms = layer.norms(hidden, self.attends_across(n));
            out.extend(norms.into_iter().map(|(site, width)| (Some(n as u16), site, layer.norm, width)));
        }
        out.extend(self.stacks().and(self.final_norm).map(|norm| (None, NormSite::Encoder, norm, hidden)));
        out.extend(self.final_norm.map(|norm| (None, NormSite::Final, norm, hidden)));
        let of_head = match self.head {
            Head::MaskedLanguageModel { norm, .. } => Some(norm),
            Head::Classifier { norm, .. } => norm,
            _ => None,
        };
        out.extend(of_head.map(|norm| (None, NormSite::MlmTransform, norm, hidden)));
        out
    }

    /// Whether a parameter is the weight of a [`NormKind::RmsOnePlus`] norm, to which artifacts add one.
    pub fn counts_from_one(&self, id: ParameterId) -> bool {
        let ParameterId::Norm(layer, site, Part::Weight) = id else { return false };
        let norm = match (layer, site) {
            (Some(n), _) => self.layers.get(n as usize).map(|layer| layer.norm),
            (None, NormSite::Embedding) => self.embedding_norm,
            (None, NormSite::Final | NormSite::Encoder) => self.final_norm,
            (None, _) => None,
        };
        norm.is_some_and(|norm| norm.kind == NormKind::RmsOnePlus)
    }

    /// Every tensor a checkpoint of this model must hold, with its shape. Key maps are calibration results and not
    /// among them.
    pub fn parameters(&self) -> Vec<ParameterShape> {
        let mut out = Vec::new();
        for (id, rows, columns) in self.matrices() {
            out.push(ParameterShape { id: ParameterId::weight(id), shape: vec![rows, columns] });
            if self.has_bias(id) {
                out.push(ParameterShape { id: ParameterId::bias(id), shape: vec![rows] });
            }
        }
        let head = LinearId::global(Role::LmHead);
        if self.tied_head() && self.has_bias(head) {
            out.push(ParameterShape { id: ParameterId::bias(head), shape: vec![self.vocabulary] });
        }
        for (layer, site, norm, width) in self.norms() {
            out.push(ParameterShape { id: ParameterId::Norm(layer, site, Part::Weight), shape: vec![width] });
            if norm.kind == NormKind::Layer {
                out.push(ParameterShape { id: ParameterId::Norm(layer, site, Part::Bias), shape: vec![width] });
            }
        }
        for (n, layer) in self.layers.iter().enumerate() {
            let Mixer::Conv(conv) = &layer.mixer else { continue };
            let kernel = |part| ParameterId::Kernel(n as u16, part);
            out.push(ParameterShape { id: kernel(Part::Weight), shape: vec![self.hidden, 1, conv.taps] });
            if conv.bias {
                out.push(ParameterShape { id: kernel(Part::Bias), shape: vec![self.hidden] });
            }
        }
        out
    }

    /// Number of weights, a tied tensor once.
    pub fn parameter_count(&self) -> u64 {
        self.parameters().iter().map(|p| p.shape.iter().map(|&n| n as u64).product::<u64>()).sum()
    }
}
