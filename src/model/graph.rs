//! A model's linears as data: which of them read one input, and where that input comes from. Everything that walks matrices by
//! their inputs (calibration layer by layer, equalisation, allocation, the list of matrices itself, lowering) reads it
//! from here; only the two executors (the f32 forward, the runtime's session) know the layers a second time.
//!
//! ```text
//! input → linears that read it → (function, product, norm) → the next input, or a sum into the residual stream
//! ```

use super::id::{LinearId, NormSite, Role};
use super::spec::{
    AttentionSpec, ClassifierState, FfnSpec, Function, Head, LayerSpec, Mixer, ModelSpec, NormKind, NormPlacement,
    Positions,
};

/// A matrix that is multiplied with an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// Its name.
    pub id: LinearId,
    /// The matrix that holds its weight: the token table of a tied head, otherwise its own.
    pub weight: LinearId,
    /// Width of its output.
    pub rows: usize,
    /// Whether its output is added to the residual stream.
    pub into_residual: bool,
}

/// The origin of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The hidden states themselves, which the residual sum reads too, or a norm that another input is as well.
    Residual,
    /// A norm with weights of its own, which nothing else reads.
    Norm {
        /// Its layer; `None` outside of them.
        layer: Option<u16>,
        /// Where it stands.
        site: NormSite,
        /// Whether it has an offset.
        kind: NormKind,
    },
    /// Means of values over positions, head by head.
    Mean {
        /// The linear of the values.
        of: LinearId,
        /// Width of a head.
        head_dim: usize,
        /// Query heads that read the values of one key head.
        shared: usize,
    },
    /// The output of a linear times a gate, and times the shares of experts.
    Gated {
        /// The linear that the gate multiplies.
        of: LinearId,
    },
    /// A gated convolution over positions.
    Convolution,
    /// The function of one linear's output.
    Function,
}

impl Origin {
    /// The channel of the origin (a row of the linear, an element of the norm) by the input's column.
    pub fn channel(self, column: usize) -> usize {
        match self {
            Origin::Mean { head_dim, shared, .. } => column / head_dim / shared * head_dim + column % head_dim,
            _ => column,
        }
    }
}

/// An input with everything that reads it, in the order of the forward; at least one linear.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// The linears.
    pub readers: Vec<Linear>,
    /// Columns of each.
    pub width: usize,
    /// Its origin.
    pub origin: Origin,
    /// The function on its way.
    pub function: Option<Function>,
}

impl Input {
    /// Names of the linears.
    pub fn ids(&self) -> Vec<LinearId> {
        self.readers.iter().map(|linear| linear.id).collect()
    }

    fn new(readers: Vec<Linear>, width: usize, origin: Origin) -> Self {
        Input { readers, width, origin, function: None }
    }

    fn after(self, function: Function) -> Self {
        Input { function: Some(function), ..self }
    }
}

/// A table, which is looked up row by row; or what projects the sum of such rows, whose input nothing else reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub id: LinearId,
    /// Its rows.
    pub rows: usize,
    /// Its columns.
    pub columns: usize,
}

/// All inputs of a model in the order of the forward.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// Tables of the embeddings, and their projection.
    pub tables: Vec<Table>,
    /// By layer, those of its exit head last.
    pub layers: Vec<Vec<Input>>,
    /// Inputs of the head.
    pub head: Vec<Input>,
}

impl Graph {
    /// The graph of a specification.
    pub fn new(spec: &ModelSpec) -> Self {
        Graph {
            tables: tables(spec),
            layers: spec.layers.iter().enumerate().map(|(n, layer)| layer_inputs(spec, layer, n)).collect(),
            head: head_inputs(spec),
        }
    }

    /// Every input.
    pub fn inputs(&self) -> impl Iterator<Item = &Input> {
        self.layers.iter().flatten().chain(&self.head)
    }

    /// Every linear.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.inputs().flat_map(|input| &input.readers)
    }

    /// Names of the matrices that share an input, tables alone; a tied head is not listed apart.
    pub fn groups(&self) -> Vec<Vec<LinearId>> {
        let tables = self.tables.iter().map(|table| vec![table.id]);
        tables.chain(self.inputs().map(own_matrices)).filter(|ids| !ids.is_empty()).collect()
    }

    /// Every matrix with its (rows, columns); a tied head is not listed apart.
    pub fn matrices(&self) -> Vec<(LinearId, usize, usize)> {
        let tables = self.tables.iter().map(|table| (table.id, table.rows, table.columns));
        let linears = self.inputs().flat_map(|input| input.readers.iter().map(|linear| (linear, input.width)));
        let own = linears.filter(|(linear, _)| linear.weight == linear.id);
        tables.chain(own.map(|(linear, columns)| (linear.id, linear.rows, columns))).collect()
    }
}

/// Names of the readers that are matrices of their own.
pub fn own_matrices(input: &Input) -> Vec<LinearId> {
    input.readers.iter().filter(|linear| linear.weight == linear.id).map(|linear| linear.id).collect()
}

fn tables(spec: &ModelSpec) -> Vec<Table> {
    let columns = spec.embedding_width;
    let table = |role, rows| Table { id: LinearId::global(role), rows, columns };
    let mut out = vec![table(Role::TokenEmbedding, spec.vocabulary)];
    out.extend((spec.positions == Positions::Learned).then(|| table(Role::PositionEmbedding, spec.context)));
    out.extend((spec.token_types > 0).then(|| table(Role::TypeEmbedding, spec.token_types)));
    out.extend(spec.projects_embeddings().then(|| table(Role::EmbeddingProjection, spec.hidden)));
    if let Positions::Buckets(buckets) = spec.positions {
        let heads = spec.layers.iter().find_map(LayerSpec::attention).map_or(0, |attention| attention.heads);
        let of_stack = |role| Table { columns: heads, ..table(role, buckets.count) };
        out.extend([Role::EncoderBias, Role::DecoderBias].map(of_stack));
    }
    out
}

/// A linear whose output goes to the next input.
fn linear(id: LinearId, rows: usize) -> Linear {
    Linear { id, weight: id, rows, into_residual: false }
}

/// A linear whose output is added to the residual stream.
fn last(id: LinearId, rows: usize) -> Linear {
    Linear { into_residual: true, ..linear(id, rows) }
}

fn layer_inputs(spec: &ModelSpec, layer: &LayerSpec, n: usize) -> Vec<Input> {
    let hidden = spec.hidden;
    let before = |site| match site {
        // One norm for both is the mixer's.
        NormSite::Ffn => layer.norm_placement.is_before_network() && layer.norm_placement != NormPlacement::Common,
        _ => layer.norm_placement.is_before_mixer() && layer.norm_placement != NormPlacement::Common,
    };
    let normed = |site| match before(site) {
        true => Origin::Norm { layer: Some(n as u16), site, kind: layer.norm.kind },
        false => Origin::Residual,
    };
    let mut out = match &layer.mixer {
        Mixer::Attention(attention) => attention_inputs(attention, n, hidden, normed(NormSite::Attention)),
        Mixer::Conv(_) => {
            let [input, output] = [Role::ConvIn, Role::ConvOut].map(|role| LinearId::layer(n, role));
            vec![
                Input::new(vec![linear(input, 3 * hidden)], hidden, normed(NormSite::Conv)),
                Input::new(vec![last(output, hidden)], hidden, Origin::Convolution),
            ]
        }
    };
    if let (true, Some(attention)) = (spec.attends_across(n), layer.attention()) {
        out.extend(cross_inputs(attention, n, hidden, normed(NormSite::Cross)));
    }
    out.extend(ffn_inputs(&layer.ffn, n, hidden, normed(NormSite::Ffn)));
    if spec.exits.contains(&(n + 1)) {
        out.extend(exit_inputs(spec, n));
    }
    out
}

/// Inputs of the exit head after layer `n`: a classifier's head once more, on the layer's own output.
fn exit_inputs(spec: &ModelSpec, n: usize) -> Vec<Input> {
    let Head::Classifier { function, labels, .. } = &spec.head else { return Vec::new() };
    let one = |role, rows, origin| Input::new(vec![linear(LinearId::layer(n, role), rows)], spec.hidden, origin);
    let last = one(Role::ExitClassifier, labels.len(), Origin::Function).after(*function);
    vec![one(Role::ExitPooler, spec.hidden, Origin::Residual), last]
}

fn attention_inputs(attention: &AttentionSpec, n: usize, hidden: usize, origin: Origin) -> Vec<Input> {
    let [query, key, value, output] =
        [Role::Query, Role::Key, Role::Value, Role::Output].map(|role| LinearId::layer(n, role));
    let (queries, keys) = (attention.query_width(), attention.key_width());
    let (head_dim, shared) = (attention.head_dim, attention.heads / attention.key_value_heads);
    vec![
        Input::new(vec![linear(query, queries), linear(key, keys), linear(value, keys)], hidden, origin),
        Input::new(vec![last(output, hidden)], queries, Origin::Mean { of: value, head_dim, shared }),
    ]
}

/// Attention to the encoder's states, which the layers of the decoder all read: nothing of theirs can be folded into a layer.
fn cross_inputs(attention: &AttentionSpec, n: usize, hidden: usize, origin: Origin) -> [Input; 3] {
    let [query, key, value, output] =
        [Role::CrossQuery, Role::CrossKey, Role::CrossValue, Role::CrossOutput].map(|role| LinearId::layer(n, role));
    let (queries, keys) = (attention.query_width(), attention.key_width());
    let (head_dim, shared) = (attention.head_dim, attention.heads / attention.key_value_heads);
    [
        Input::new(vec![linear(query, queries)], hidden, origin),
        Input::new(vec![linear(key, keys), linear(value, keys)], hidden, Origin::Residual),
        Input::new(vec![last(output, hidden)], queries, Origin::Mean { of: value, head_dim, shared }),
    ]
}

fn ffn_inputs(ffn: &FfnSpec, n: usize, hidden: usize, origin: Origin) -> [Input; 2] {
    let [gate, up, down] = [Role::Gate, Role::Up, Role::Down].map(|role| LinearId::layer(n, role));
    let mut readers = vec![linear(up, ffn.width)];
    let mut inner = Origin::Function;
    if ffn.gated {
        readers.insert(0, linear(gate, ffn.width));
        inner = Origin::Gated { of: up };
    }
    if let Some(mixture) = ffn.mixture {
        readers.insert(0, linear(LinearId::layer(n, Role::Router), mixture.experts));
    }
    let inner = Input::new(vec![last(down, hidden)], ffn.width, inner);
    [Input::new(readers, hidden, origin), inner.after(Function::Activation(ffn.activation))]
}

fn head_inputs(spec: &ModelSpec) -> Vec<Input> {
    let hidden = spec.hidden;
    let finished = match spec.final_norm {
        Some(norm) => Origin::Norm { layer: None, site: NormSite::Final, kind: norm.kind },
        None => Origin::Residual,
    };
    let one = |role, rows, origin| Input::new(vec![linear(LinearId::global(role), rows)], hidden, origin);
    let language = |tied: bool, origin| {
        let mut input = one(Role::LmHead, spec.vocabulary, origin);
        if tied {
            input.readers[0].weight = LinearId::global(Role::TokenEmbedding);
        }
        input
    };
    match &spec.head {
        Head::Hidden => Vec::new(),
        Head::LanguageModel { tied, .. } => vec![language(*tied, finished)],
        Head::MaskedLanguageModel { activation, norm, tied, .. } => {
            let origin = Origin::Norm { layer: None, site: NormSite::MlmTransform, kind: norm.kind };
            let last = language(*tied, origin).after(Function::Activation(*activation));
            vec![one(Role::MlmTransform, hidden, finished), last]
        }
        Head::LastClassifier { labels } => vec![one(Role::Classifier, labels.len(), finished)],
        Head::Classifier { state, function, norm, labels, .. } => {
            let origin = match norm {
                Some(norm) => Origin::Norm { layer: None, site: NormSite::MlmTransform, kind: norm.kind },
                None => Origin::Function,
            };
            let last = one(Role::Classifier, labels.len(), origin).after(*function);
            // A mean of normed states has the norm's channels, and none of its single values.
            let pooled = match state {
                ClassifierState::First => finished,
                ClassifierState::Mean => Origin::Residual,
            };
            vec![one(Role::Pooler, hidden, pooled), last]
        }
        Head::TokenClassifier { .. } | Head::Answers { .. } => {
            vec![one(Role::Classifier, spec.output_width(), finished)]
        }
    }
}
