//! Compiles a quantized model into an artifact for one device: pack, plan memory, check that it fits, run the golden
//! prompts with the runtime, emit. The output is a pure function of the inputs: the same inputs give the same bytes.

pub mod continuations;
pub mod detail;
pub mod emit;
pub mod estimate;
pub mod exits;
pub mod fit;
pub mod kv;
pub mod lower;
pub mod pack;
pub mod residency;
pub mod sections;
pub mod tables;

use crate::artifact::host::SessionMemory;
use crate::machine::kernels::kernels_for;
use crate::model::id::{LinearId, ParameterId, Part, Role};
use crate::model::quantized::QuantizedError;
use crate::model::scheme::Assignment;
use crate::model::size::{StoredTensor, WeightSize, stored_tensors};
use crate::model::spec::ModelSpec;
use crate::model::transform::Sparsity;
use crate::model::weights::{Model, ModelError, Parameter};
use crate::progress::Progress;
use crate::target::Target;
use fit::{DoesNotFit, FitError, Footprint, Shape};
use kv::KvFormat;
use residency::Streaming;
use sections::{Asked, SectionBytes};
use slm_runtime::format::FormatError;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::{MAGIC, SectionKind};
use slm_runtime::layout::Storage;
use slm_runtime::sample::random_u64;
use slm_runtime::self_test::{MAX_GOLDEN_TOKENS, golden_digest};
use slm_runtime::session::{Session, SessionError, SnapshotError};

/// First bytes of an artifact, by which a file is recognised as slmc's own output.
pub const ARTIFACT_MAGIC: &[u8] = &MAGIC;

/// Lengths of the golden prompts, where the context allows.
const GOLDEN_LENGTHS: [usize; 3] = [1, 7, 24];

/// Content of the artifact's text sections.
#[derive(Clone, Debug, Default)]
pub struct TextSection {
    /// Bytes of every token of the model's vocabulary.
    pub vocabulary: Vec<Vec<u8>>,
    /// Whether decoding drops one leading space.
    pub strip_leading_space: bool,
    /// The device's tokenizer tables; absent where the tokenizer only runs on a host.
    pub tables: Option<Vec<u8>>,
    /// The fixed texts around a conversation's messages; absent without a chat template, or with one that is not a fixed
    /// frame.
    pub chat_frame: Option<Vec<u8>>,
    /// How tokens are chosen unless a program says otherwise; absent where the likeliest is taken.
    pub sampling: Option<Vec<u8>>,
    /// What a person asks for beside the model.
    pub asked: AskedSections,
}

/// Sections of the device part that a person asks for.
#[derive(Clone, Debug, Default)]
pub struct AskedSections {
    /// The grammar that outputs follow.
    pub grammar: Option<Vec<u8>>,
    /// The table of frequent continuations.
    pub continuations: Option<Vec<u8>>,
    /// The device part of a draft model.
    pub draft: Option<Vec<u8>>,
    /// Tokens that sequences begin with, which are read before.
    pub prefix: Vec<u32>,
    /// Thresholds and temperatures of a classifier's heads.
    pub exits: Option<Vec<u8>>,
    /// Tokens that are drafted together.
    pub drafts: usize,
    /// Memory of a session of the draft model.
    pub draft_memory: u64,
    /// How keys and values are kept.
    pub kv: KvFormat,
    /// How weights are streamed, where they are.
    pub streaming: Option<Streaming>,
}

impl AskedSections {
    fn bytes(&self) -> Asked {
        let length = |section: &Option<Vec<u8>>| section.as_ref().map(|section| section.len() as u64);
        Asked {
            grammar: length(&self.grammar),
            continuations: length(&self.continuations),
            draft: length(&self.draft),
            prefix_tokens: self.prefix.len(),
            exits: length(&self.exits),
            drafts: self.drafts,
            draft_memory: self.draft_memory,
            kv: self.kv,
            streaming: self.streaming,
        }
    }

    /// The sections that are there, in file order.
    fn sections(&self) -> Vec<(SectionKind, &[u8])> {
        let sections = [
            (SectionKind::Grammar, &self.grammar),
            (SectionKind::Continuations, &self.continuations),
            (SectionKind::Draft, &self.draft),
            (SectionKind::Exits, &self.exits),
        ];
        sections.into_iter().filter_map(|(kind, section)| Some((kind, section.as_deref()?))).collect()
    }
}

/// Sections of the host part, which devices do not read; absent ones are omitted.
#[derive(Clone, Debug, Default)]
pub struct HostSections {
    /// tokenizer.json.
    pub tokenizer: Option<Vec<u8>>,
    /// Provenance of the artifact, JSON.
    pub provenance: Option<Vec<u8>>,
    /// The chat template, which renders a conversation as a prompt.
    pub chat_template: Option<Vec<u8>>,
}

/// A compiled model.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The artifact.
    pub bytes: Vec<u8>,
    /// Flash and RAM it takes on the device.
    pub footprint: Footprint,
    /// Its weights.
    pub size: WeightSize,
    /// Digest of the golden logits.
    pub golden: [u8; 32],
}

/// Why a model was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The directory holds floating-point weights.
    #[error(
        "{}: `{id}` is not quantized; artifacts hold integers only: run `slmc quantize` first",
        directory.display()
    )]
    Dense {
        /// The model.
        directory: std::path::PathBuf,
        /// The first matrix that is not.
        id: ParameterId,
    },
    /// The context is 0 or longer than the model's.
    #[error(
        "a context of {context} is not possible: the model knows positions up to {limit}; pass --context 1 to {limit}"
    )]
    Context {
        /// Asked for.
        context: usize,
        /// The model's maximum.
        limit: usize,
    },
    /// The vocabulary has another number of entries than the model.
    #[error("the vocabulary has {actual} entries, the model {expected}")]
    Vocabulary {
        /// Entries of the model's vocabulary.
        expected: usize,
        /// Entries given.
        actual: usize,
    },
    /// The name does not fit the header.
    #[error("the target's name `{0}` is longer than 32 bytes")]
    TargetName(String),
    /// Sizes.
    #[error(transparent)]
    Fit(FitError),
    /// The model does not fit the device.
    #[error(transparent)]
    DoesNotFit(Box<DoesNotFit>),
    /// Weights.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A quantized matrix violates its scheme.
    #[error(transparent)]
    Quantized(#[from] QuantizedError),
    /// The emitted artifact does not read back: a defect of slmc.
    #[error("the artifact does not read back, which is a defect of slmc: {0}")]
    Emitted(FormatError),
    /// An artifact cannot draft for the model.
    #[error("{}: cannot draft for this model: {reason}", path.display())]
    Draft {
        /// The artifact.
        path: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No token of the text follows another often enough.
    #[error(
        "{text}: no token follows another often enough to be guessed; pass a longer text, or leave --continuations out"
    )]
    NothingFrequent {
        /// The text.
        text: String,
    },
    /// What sequences begin with does not run.
    #[error("--prefix: {0}")]
    Prefix(SessionError),
    /// It cannot be kept: a defect of slmc.
    #[error("the prefix cannot be kept, which is a defect of slmc: {0}")]
    Snapshot(SnapshotError),
    /// The text that sequences begin with is of another kind.
    #[error("{text}: {reason}")]
    PrefixText {
        /// The file, or the word for the template.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// The golden prompts did not run.
    #[error("the golden prompts do not run: {0}")]
    Golden(SessionError),
}

impl From<FitError> for CompileError {
    fn from(error: FitError) -> Self {
        match error {
            FitError::DoesNotFit(answer) => CompileError::DoesNotFit(answer),
            other => CompileError::Fit(other),
        }
    }
}

/// Compiles a quantized model for a device; `context` positions, by default as many as the model reads of a text.
pub fn compile(
    model: &Model,
    device: &Target,
    context: Option<usize>,
    text: &TextSection,
    host: &HostSections,
    progress: &dyn Progress,
) -> Result<Compiled, CompileError> {
    let spec = &model.spec;
    let limit = spec.context;
    let context = context.unwrap_or(spec.text_context());
    if context == 0 || context > limit {
        return Err(CompileError::Context { context, limit });
    }
    if text.vocabulary.len() != spec.vocabulary {
        return Err(CompileError::Vocabulary { expected: spec.vocabulary, actual: text.vocabulary.len() });
    }
    if device.name.len() > emit::TARGET_NAME_BYTES {
        return Err(CompileError::TargetName(device.name.clone()));
    }
    let (assignment, sparsity): (Assignment, Sparsity) = (model.schemes(), model.sparsity());
    check_quantized(model)?;
    let widths = model.activations();
    let key_maps = model.parameters.keys().any(|id| matches!(id, ParameterId::KeyMap(..)));
    let prompts = golden_prompts(spec.vocabulary, context, &spec.opening);
    let shape = Shape {
        spec,
        assignment: &assignment,
        sparsity: &sparsity,
        key_maps,
        wide_activations: !widths.is_empty(),
        golden: golden_size(spec, context),
        sections: SectionBytes {
            vocabulary: text.vocabulary.iter().map(|token| token.len() as u64).sum(),
            text: text.tables.as_ref().map(|tables| tables.len() as u64),
            chat_frame: text.chat_frame.as_ref().map(|frame| frame.len() as u64),
            sampling: text.sampling.as_ref().map(|sampling| sampling.len() as u64),
            asked: text.asked.bytes(),
        },
    };
    let (footprint, mut lowered) = fit::fit(&shape, device, context)?;
    lowered.model.strip_leading_space = u8::from(text.strip_leading_space);
    let mut tensors = stored_tensors(spec, &assignment, &sparsity, device.layout, context, key_maps)
        .map_err(|error| CompileError::Fit(error.into()))?;
    for tensor in &mut tensors {
        if let ParameterId::Linear(id, Part::Weight) = tensor.id
            && let Some(width) = widths.get(&id)
        {
            tensor.activation_bits = *width as u8;
        }
    }
    progress.begin("packing weights", tensors.len() as u64, "tensors");
    let weights = tensors.iter().map(|tensor| {
        let bytes = tensor_bytes(model, device, tensor);
        progress.advance(1);
        bytes
    });
    let weights = weights.collect::<Result<Vec<_>, _>>()?;
    progress.finish();
    let host = host_sections(model, &tensors, host);
    let special_tokens = emit::special_tokens_section(&spec.opening, &spec.ends);
    let emit = |asked: &[(SectionKind, &[u8])]| {
        let extras = emit::Extras {
            vocabulary: &text.vocabulary,
            prompts: &prompts,
            text: text.tables.as_deref(),
            special_tokens: special_tokens.as_deref(),
            chat_frame: text.chat_frame.as_deref(),
            sampling: text.sampling.as_deref(),
            asked,
            host: &host,
        };
        emit::draft(&device.name, device.layout, device.page_bytes as u32, &lowered, &tensors, &weights, &extras)
    };
    let mut asked = text.asked.sections();
    let mut draft = emit(&asked);
    let prefix = prefix_section(draft.bytes(), &text.asked.prefix)?;
    if let Some(section) = &prefix {
        asked.push((SectionKind::Prefix, section));
        draft = emit(&asked);
    }
    let residency = match (text.asked.streaming, footprint.streaming) {
        (Some(asked), Some(found)) => {
            let budget = (found.budget_bytes, asked.buffer_bytes);
            let plan = residency::plan(&tensors, device.layout, spec, &lowered, budget).map_err(FitError::from)?;
            Some(plan.to_section())
        }
        _ => None,
    };
    if let Some(section) = &residency {
        asked.push((SectionKind::Residency, section));
        draft = emit(&asked);
    }
    let view = ArtifactView::open(draft.bytes()).map_err(CompileError::Emitted)?;
    let mut memory = SessionMemory::for_artifact(&view);
    let golden =
        golden_digest(&view, kernels_for(view.layout()), memory.as_mut_slice()).map_err(CompileError::Golden)?;
    let bytes = draft.finish(golden);
    Ok(Compiled { bytes, footprint, size: WeightSize::of(spec, &tensors), golden })
}

/// The section with tokens that are read before: the artifact without it reads them, and its session is kept.
fn prefix_section(artifact: &[u8], tokens: &[u32]) -> Result<Option<Vec<u8>>, CompileError> {
    if tokens.is_empty() {
        return Ok(None);
    }
    let view = ArtifactView::open(artifact).map_err(CompileError::Emitted)?;
    let mut memory = SessionMemory::for_artifact(&view);
    let mut session =
        Session::new(&view, kernels_for(view.layout()), memory.as_mut_slice()).map_err(CompileError::Prefix)?;
    session.read(tokens).map_err(CompileError::Prefix)?;
    let mut snapshot = vec![0; session.snapshot_bytes() as usize];
    session.save_prefix(&mut snapshot).map_err(CompileError::Snapshot)?;
    let numbers = std::iter::once(tokens.len() as u32).chain(tokens.iter().copied());
    Ok(Some(numbers.flat_map(u32::to_le_bytes).chain(snapshot).collect()))
}

/// Checks that every matrix of a model is quantized; the error names the first that is not.
pub fn check_quantized(model: &Model) -> Result<(), CompileError> {
    let schemes = model.schemes();
    match model.spec.matrices().into_iter().find(|(id, ..)| !schemes.contains_key(id)) {
        Some((id, ..)) => Err(CompileError::Dense { directory: model.path.clone(), id: ParameterId::weight(id) }),
        None => Ok(()),
    }
}

/// A tensor's bytes in the artifact, padded.
fn tensor_bytes(model: &Model, device: &Target, tensor: &StoredTensor) -> Result<Vec<u8>, CompileError> {
    if tensor.storage == Storage::F32 {
        let mut values = model.values_f32(tensor.id)?;
        if model.spec.counts_from_one(tensor.id) {
            values.iter_mut().for_each(|value| *value += 1.0);
        }
        let mut bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        bytes.resize(tensor.bytes as usize, 0);
        return Ok(bytes);
    }
    let dense = || CompileError::Dense { directory: model.path.clone(), id: tensor.id };
    let Some(Parameter::Quantized(matrix)) = model.parameters.get(&tensor.id) else { return Err(dense()) };
    if let (Some(pattern), ParameterId::Linear(id, _)) = (matrix.sparsity, tensor.id) {
        // Packing drops the weights outside the pattern.
        pattern.check(id, matrix.values.view()).map_err(QuantizedError::from)?;
    }
    let packed = if let (ParameterId::Linear(id @ LinearId { role: Role::Down, .. }, _), true) =
        (tensor.id, tensor.rows > matrix.rows())
    {
        let experts = model.spec.mixture(id).map_or(1, |mixture| mixture.experts);
        pack::pack(&matrix.stacked(experts), device.layout)
    } else if tensor.rows == matrix.rows() {
        pack::pack(matrix, device.layout)
    } else {
        // One part of a split, or the position table of a shorter context: the rows that can be reached.
        let scheme = matrix.scheme.of_row(tensor.first_row);
        pack::pack(&matrix.part(tensor.first_row..tensor.first_row + tensor.rows, scheme), device.layout)
    };
    packed.ok_or_else(dense)
}

/// Prompts that begin as texts do and then wander through the vocabulary, the same for every build.
fn golden_prompts(vocabulary: usize, context: usize, opening: &[u32]) -> Vec<Vec<u32>> {
    let mut draws = 0;
    let mut prompts = Vec::new();
    for length in GOLDEN_LENGTHS {
        let length = length.min(context).min(MAX_GOLDEN_TOKENS);
        let mut prompt: Vec<u32> = opening.iter().take(length).copied().collect();
        while prompt.len() < length {
            prompt.push((random_u64(0, draws) % vocabulary as u64) as u32);
            draws += 1;
        }
        prompts.push(prompt);
    }
    prompts
}

/// Tokens of all golden prompts, and how many prompts.
pub fn golden_size(spec: &ModelSpec, context: usize) -> (u64, u64) {
    let prompts = golden_prompts(spec.vocabulary, context, &spec.opening);
    (prompts.iter().map(|prompt| prompt.len() as u64).sum(), prompts.len() as u64)
}

fn host_sections(model: &Model, tensors: &[StoredTensor], host: &HostSections) -> Vec<(SectionKind, Vec<u8>)> {
    let mut sections = Vec::new();
    sections.extend(host.tokenizer.clone().map(|bytes| (SectionKind::Tokenizer, bytes)));
    let names: String = tensors.iter().map(|tensor| format!("{}\n", tensor.id)).collect();
    sections.push((SectionKind::Names, names.into_bytes()));
    sections.extend(host.provenance.clone().map(|bytes| (SectionKind::Provenance, bytes)));
    if let Some(labels) = model.spec.head.labels() {
        let labels = serde_json::Value::from(labels.to_vec()).to_string();
        sections.push((SectionKind::Labels, labels.into_bytes()));
    }
    sections.extend(host.chat_template.clone().map(|bytes| (SectionKind::ChatTemplate, bytes)));
    sections
}
