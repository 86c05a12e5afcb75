//! The models of evaluation and generation, behind one type: a directory (dense or quantized) run in f32, or an
//! artifact run by the runtime's integers. Both state the little that text and reports need to know of them.

use super::error::EvalError;
use super::forward::{Forward, ForwardError};
use super::outputs::BATCH_BYTES;
use super::pooling::pooled;
use super::subject::{Numerics, Subject};
use crate::artifact::host::{ArtifactFile, run_sequence};
use crate::formats::{self, ModelFormatError};
use crate::model::companions::Companions;
use crate::model::forward::{
    Batch, DenseWeights, Forward as DenseForward, FusedWeights, StoredWeights, Unobserved, WeightSource,
    run_fused_apart,
};
use crate::model::generation;
use crate::model::size::{WeightSize, stored_tensors};
use crate::model::spec::{Embedding, Head, ModelKind, ModelSpec, Stacks};
use crate::model::weights::Model;
use crate::target::Target;
use crate::text::chat_template::ChatTemplate;
use crate::text::tokenizer::{Tokenizer, token_table, token_table_of};
use burn::tensor::Device;
use rayon::prelude::*;
use serde_json::Value;
use slm_numerics::scratch::{forget, give, held_bytes};
use slm_runtime::format::header::SectionKind;
use slm_runtime::format::spec::Output;
use slm_runtime::layout::Layout;
use slm_runtime::sample::Sampling;
use std::path::Path;

/// Tokens that the f32 forward computes at once.
const TOKENS_AT_ONCE: usize = 1024;

/// Output of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Next-token logits.
    LanguageModel,
    /// Masked-token logits.
    MaskedLanguageModel,
    /// Logits of labels.
    Classifier,
    /// Logits of labels of every token.
    TokenClassifier,
    /// Scores of every token, that an answer starts and that it ends there.
    Answers,
    /// Hidden states.
    Hidden,
}

impl Task {
    /// The output of a model with this head.
    pub fn of(head: &Head) -> Self {
        match head {
            Head::Hidden => Task::Hidden,
            Head::LanguageModel { .. } => Task::LanguageModel,
            Head::MaskedLanguageModel { .. } => Task::MaskedLanguageModel,
            Head::Classifier { .. } | Head::LastClassifier { .. } => Task::Classifier,
            Head::TokenClassifier { .. } => Task::TokenClassifier,
            Head::Answers { .. } => Task::Answers,
        }
    }
}

/// A model ready to run.
pub struct OpenedModel {
    /// Whether it continues text.
    pub kind: ModelKind,
    /// Output of the model.
    pub task: Task,
    /// Rows of the token table.
    pub vocabulary: usize,
    /// Most tokens: the positions, or fewer where the files of a directory allow fewer for a text.
    pub context: usize,
    /// How the hidden states of a text become its one row of output; `None` where every token has a row.
    pub embedding: Option<Embedding>,
    /// How tokens are chosen unless a person says otherwise.
    pub sampling: Sampling,
    /// Tokens that stand before a text.
    pub opening: Vec<u32>,
    /// Tokens that end one.
    pub ends: Vec<u32>,
    /// The stacks of an encoder-decoder, whose sequences are pairs; see [`ModelSpec::split`].
    pub stacks: Option<Stacks>,
    /// Names of a classifier's labels.
    pub labels: Vec<String>,
    /// Sizes and arithmetic, for reports.
    pub subject: Subject,
    engine: Engine,
}

/// The engine of a model.
pub(super) enum Engine {
    /// The f32 forward.
    Directory {
        spec: Box<ModelSpec>,
        companions: Companions,
        weights: Box<dyn WeightSource>,
        /// The same weights for fused operations, where the device has them and the weights are dense.
        fused: Option<FusedWeights>,
        /// Boxed, since with the feature `workers` it is large.
        device: Box<Device>,
    },
    /// The runtime.
    Artifact(ArtifactFile),
}

/// The layout of the target that a quantized model was made for, by its provenance: whose packing its sizes are for.
/// `None` where that is not a target of this program, and the bytes of its weights are not known.
fn layout_of(provenance: Option<Value>) -> Option<Layout> {
    let made = provenance?;
    let name = made.pointer("/settings/target")?.as_str()?;
    let target = Target::names().find(|known| *known == name)?;
    Target::named(target).ok().map(|target| target.layout)
}

impl OpenedModel {
    /// Opens a path that [`formats`] recognises as a model that runs in f32 on `device`, any other as an artifact.
    pub fn open(path: &Path, device: &Device) -> Result<Self, EvalError> {
        if formats::is_model(path) {
            let source = formats::open(path)?;
            let model = source.model()?;
            let weights = DenseWeights::new(&model, device)?;
            let fused = FusedWeights::of(&model.spec, &weights);
            Self::run_in_f32(&model, Box::new(weights), fused, layout_of(source.provenance()), device)
        } else {
            Self::artifact(ArtifactFile::open(path)?)
        }
    }

    /// As [`OpenedModel::open`], for generating: a directory's weights stay in the format they are stored in.
    pub fn open_stored(path: &Path, device: &Device) -> Result<Self, EvalError> {
        if formats::is_model(path) {
            let source = formats::open(path)?;
            let model = source.model()?;
            let weights = Box::new(StoredWeights::new(&model, device)?);
            Self::run_in_f32(&model, weights, None, layout_of(source.provenance()), device)
        } else {
            Self::artifact(ArtifactFile::open(path)?)
        }
    }

    /// The grammar that an artifact's outputs follow; `None` where it carries none.
    pub(super) fn grammar(&self) -> Result<Option<Vec<u8>>, EvalError> {
        match &self.engine {
            Engine::Artifact(file) => Ok(file.view()?.section(SectionKind::Grammar).map(<[u8]>::to_vec)),
            Engine::Directory { .. } => Ok(None),
        }
    }

    fn run_in_f32(
        model: &Model,
        weights: Box<dyn WeightSource>,
        fused: Option<FusedWeights>,
        layout: Option<Layout>,
        device: &Device,
    ) -> Result<Self, EvalError> {
        let spec = &model.spec;
        let subject = if model.is_quantized() {
            let key_maps = model.parameters.keys().any(|id| matches!(id, crate::model::id::ParameterId::KeyMap(..)));
            let bytes = match layout {
                None => None,
                Some(layout) => {
                    let (schemes, sparsity) = (model.schemes(), model.sparsity());
                    let tensors = stored_tensors(spec, &schemes, &sparsity, layout, spec.context, key_maps)?;
                    Some(WeightSize::of(spec, &tensors).weight_bytes)
                }
            };
            Subject::new(Numerics::Dequantized, bytes, None, Some(spec.parameter_count()))
        } else {
            Subject::new(Numerics::Float32, None, None, Some(spec.parameter_count()))
        };
        let labels = spec.head.labels().map(<[String]>::to_vec).unwrap_or_default();
        Ok(OpenedModel {
            kind: spec.kind,
            task: Task::of(&spec.head),
            vocabulary: spec.vocabulary,
            context: spec.text_context(),
            embedding: spec.embedding,
            sampling: match spec.kind {
                ModelKind::Decoder | ModelKind::EncoderDecoder(_) => {
                    generation::read(&model.companions).map_err(ModelFormatError::from)?.sampling
                }
                ModelKind::Encoder => Sampling::GREEDY,
            },
            opening: spec.opening.clone(),
            ends: spec.ends.clone(),
            stacks: spec.stacks(),
            labels,
            subject,
            engine: Engine::Directory {
                spec: Box::new(spec.clone()),
                companions: model.companions.clone(),
                weights,
                fused,
                device: Box::new(device.clone()),
            },
        })
    }

    /// An artifact, run by the runtime.
    pub fn artifact(file: ArtifactFile) -> Result<Self, EvalError> {
        let view = file.view()?;
        let spec = *view.spec();
        let labels = match view.section(SectionKind::Labels) {
            Some(bytes) => {
                serde_json::from_slice(bytes).map_err(|_| EvalError::Labels { path: file.path().to_owned() })?
            }
            None => (0..spec.output_width)
                .map(|n| format!("LABEL_{n}"))
                .take_while(|_| [Output::Classifier as u8, Output::TokenClassifier as u8].contains(&spec.output))
                .collect(),
        };
        let size = crate::artifact::inspect::weight_size(&view);
        Ok(OpenedModel {
            kind: if spec.is_decoder() && spec.output == Output::LanguageModel as u8 {
                ModelKind::Decoder
            } else {
                ModelKind::Encoder
            },
            task: match Output::from_number(spec.output) {
                Some(Output::LanguageModel) => Task::LanguageModel,
                Some(Output::MaskedLanguageModel) => Task::MaskedLanguageModel,
                Some(Output::Classifier) => Task::Classifier,
                Some(Output::TokenClassifier) => Task::TokenClassifier,
                Some(Output::Answers) => Task::Answers,
                _ => Task::Hidden,
            },
            vocabulary: spec.vocabulary as usize,
            context: spec.context as usize,
            embedding: crate::artifact::embedding::of(&spec),
            sampling: view.sampling(),
            opening: view.opening_tokens().iter().collect(),
            ends: view.end_tokens().iter().collect(),
            stacks: None,
            labels,
            subject: Subject::new(
                Numerics::Integer,
                Some(size.weight_bytes),
                Some(view.bytes().len() as u64),
                Some(size.parameters),
            ),
            engine: Engine::Artifact(file),
        })
    }

    /// Most tokens of a sequence that begins like this one: the context, and of an encoder-decoder as many after the source.
    pub(super) fn most_tokens(&self, sequence: &[u32]) -> usize {
        self.source_of(sequence).map_or(self.context, |source| source.len() + self.context)
    }

    /// What the encoder of an encoder-decoder reads of a sequence.
    fn source_of<'s>(&self, sequence: &'s [u32]) -> Option<&'s [u32]> {
        match &self.engine {
            Engine::Directory { spec, .. } => spec.split(sequence).map(|(source, _)| source),
            Engine::Artifact(_) => None,
        }
    }

    /// The engine that runs it.
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The artifact, where it is one.
    pub fn as_artifact(&self) -> Option<&ArtifactFile> {
        match &self.engine {
            Engine::Artifact(file) => Some(file),
            Engine::Directory { .. } => None,
        }
    }

    /// Its tokenizer: the directory's, or the one an artifact carries in its host part.
    pub fn tokenizer(&self) -> Result<Tokenizer, EvalError> {
        match &self.engine {
            Engine::Directory { companions, .. } => Ok(Tokenizer::of(companions)?),
            Engine::Artifact(file) => {
                let view = file.view()?;
                let bytes = view
                    .section(SectionKind::Tokenizer)
                    .ok_or_else(|| EvalError::NoTokenizer { path: file.path().to_owned() })?;
                Ok(Tokenizer::from_bytes(file.path().to_owned(), bytes)?)
            }
        }
    }
}

impl OpenedModel {
    /// The tokens of its tokenizer with their ids; `None` where it carries none.
    pub fn token_table(&self) -> Option<Value> {
        match &self.engine {
            Engine::Directory { companions, .. } => token_table(companions),
            Engine::Artifact(file) => token_table_of(file.view().ok()?.section(SectionKind::Tokenizer)?),
        }
    }

    /// The template that makes a prompt of a conversation: that of `directory` where one is given, else the model's
    /// own.
    ///
    /// # Errors
    /// [`EvalError::NoChatTemplate`], [`EvalError::Template`].
    pub fn chat_template(&self, directory: Option<&Path>) -> Result<ChatTemplate, EvalError> {
        let (template, path) = match (directory, &self.engine) {
            (Some(directory), _) => (ChatTemplate::of(&formats::companions(directory)?)?, directory),
            (None, Engine::Directory { companions, .. }) => (ChatTemplate::of(companions)?, companions.origin()),
            (None, Engine::Artifact(file)) => {
                let view = file.view()?;
                let section = view.section(SectionKind::ChatTemplate);
                (section.map(|bytes| ChatTemplate::from_section(file.path(), bytes)).transpose()?, file.path())
            }
        };
        template.ok_or_else(|| EvalError::NoChatTemplate { path: path.to_owned() })
    }
}

/// The tokenizer at a path, in place of a model's own.
///
/// # Errors
/// [`EvalError::Format`], [`EvalError::Tokenizer`].
pub fn tokenizer_at(path: &Path) -> Result<Tokenizer, EvalError> {
    Ok(Tokenizer::of(&formats::companions(path)?)?)
}

impl Forward for OpenedModel {
    fn output_width(&self) -> usize {
        match &self.engine {
            Engine::Directory { spec, .. } => spec.output_width(),
            Engine::Artifact(file) => file.view().map_or(0, |view| view.spec().output_width as usize),
        }
    }

    fn logits(&self, sequences: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ForwardError> {
        let outputs = self.run(sequences)?;
        Ok(match (&self.engine, self.embedding) {
            // The runtime has pooled them.
            (Engine::Artifact(_), _) | (_, None) => outputs,
            (Engine::Directory { spec, .. }, Some(embedding)) => {
                outputs.iter().map(|states| pooled(states, spec.hidden, embedding)).collect()
            }
        })
    }

    fn positions(&self, sequence: &[u32]) -> usize {
        sequence.len() - self.source_of(sequence).map_or(0, <[u32]>::len)
    }

    fn reuse(&self, outputs: Vec<Vec<f32>>) {
        if let (Engine::Directory { fused: Some(_), .. }, None) = (&self.engine, self.embedding) {
            // Where lengths keep changing, outputs find no buffer of their size: no more is held than a batch of two models.
            if held_bytes() > 2 * BATCH_BYTES {
                forget();
            }
            outputs.into_iter().for_each(give);
        }
    }
}

impl OpenedModel {
    /// The outputs of the engine.
    fn run(&self, sequences: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ForwardError> {
        match &self.engine {
            Engine::Directory { spec, fused: Some(weights), .. } => {
                // Sequences of one length go together: no output depends on which.
                let mut out = Vec::with_capacity(sequences.len());
                for alike in sequences.chunk_by(|a, b| a.len() == b.len()) {
                    let at_once = (TOKENS_AT_ONCE / alike.first().map_or(1, Vec::len).max(1)).max(1);
                    // Pairs of one length may have parts of others.
                    let at_once = if spec.stacks().is_some() { 1 } else { at_once };
                    for some in alike.chunks(at_once) {
                        let batch = Batch::new(spec, some.concat(), some.len()).map_err(ForwardError::new)?;
                        let logits = run_fused_apart(spec, weights, &batch);
                        out.extend(logits.map_err(|error| ForwardError::new(format!("{error:?}")))?);
                    }
                }
                Ok(out)
            }
            Engine::Directory { spec, weights, device, .. } => {
                let forward = DenseForward::new(spec, weights.as_ref(), device);
                let run = |tokens: &Vec<u32>| {
                    let batch = Batch::new(spec, tokens.clone(), 1).map_err(ForwardError::new)?;
                    let logits = forward.run(&batch, &mut Unobserved).logits;
                    logits.to_data().try_to_vec::<f32>().map_err(|error| ForwardError::new(format!("{error:?}")))
                };
                sequences.iter().map(run).collect()
            }
            Engine::Artifact(file) => {
                let view = file.view().map_err(ForwardError::new)?;
                let run = |tokens: &Vec<u32>| run_sequence(&view, tokens).map_err(ForwardError::new);
                sequences.par_iter().map(run).collect()
            }
        }
    }
}
