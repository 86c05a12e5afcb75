//! The content of an artifact: sizes and multiply-accumulates by class, tensor by tensor, as the file states them.

use crate::artifact::chat::{ChatSummary, not_fixed};
use crate::artifact::embedding;
use crate::artifact::host::{ArtifactError, ArtifactFile};
use crate::artifact::sealed::SealSummary;
use crate::artifact::text::{TokenizerSummary, host_only};
use crate::disk::hash::hex;
use crate::model::generation::{sampling_json, sampling_words};
use crate::model::id::Class;
use crate::model::size::{WeightSize, parameter_id};
use crate::report::{Align, Report, Table, grouped};
use crate::trust::policy::SignedReport;
use serde::Serialize;
use serde_json::Value;
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::SectionKind;
use slm_runtime::format::spec::LayerRecord;
use slm_runtime::format::tensor::{TensorPart, TensorRecord, TensorRole};
use slm_runtime::layout::Storage;
use std::collections::BTreeMap;
use std::path::Path;

/// One tensor of an artifact.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorSummary {
    /// Name, from the host part, or by its key where the file has none.
    pub name: String,
    /// `w8`, `w4.g32`, `w8.2:4`, `w4.g32.2:4`, `f32`.
    pub storage: &'static str,
    /// Outer dimension.
    pub rows: u32,
    /// Inner dimension.
    pub columns: u32,
    /// Padding included.
    pub bytes: u64,
}

/// Bytes, parameters and work of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ClassSummary {
    /// In the file.
    pub bytes: u64,
    /// Unpadded.
    pub parameters: u64,
    /// Those that one token meets: of a mixture's experts the chosen ones.
    #[serde(skip)]
    pub active_parameters: u64,
    /// Bytes of them.
    #[serde(skip)]
    pub active_bytes: u64,
    /// Multiply-accumulates per token as if no weight were zero; a table that is only looked up has none, of experts those count
    /// that a token has.
    pub macs_per_token: u64,
    /// The same of the weights that are stored: half of a 2:4 matrix.
    pub sparse_macs_per_token: u64,
}

/// The experts of a model's mixtures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ExpertsSummary {
    /// In the layer that has the most.
    pub experts: u16,
    /// Those that a token has there.
    pub chosen: u16,
    /// Parameters of the whole model that one token meets.
    pub active_parameters: u64,
    /// Their bytes, of tables all rows.
    pub active_bytes: u64,
}

impl ExpertsSummary {
    fn of(view: &ArtifactView<'_>, classes: &[(&'static str, ClassSummary)]) -> Option<Self> {
        let layers = (0..view.spec().layers as usize).map(|index| view.layer(index));
        let most = layers.filter(LayerRecord::is_mixture).max_by_key(|layer| layer.experts)?;
        Some(ExpertsSummary {
            experts: most.experts,
            chosen: most.chosen,
            active_parameters: classes.iter().map(|(_, sum)| sum.active_parameters).sum(),
            active_bytes: classes.iter().map(|(_, sum)| sum.active_bytes).sum(),
        })
    }
}

/// The class a tensor's bytes count under; norms, biases, key maps and the kernels of convolutions are `other`.
fn class_of(record: &TensorRecord) -> &'static str {
    if record.storage == Storage::F32 as u8 || record.part != TensorPart::Weight as u8 {
        return "other";
    }
    match record.role {
        0x00..0x10 => Class::Embedding.name(),
        0x10..0x18 => Class::Attention.name(),
        0x18..0x20 => Class::Conv.name(),
        0x20..0x30 => Class::Ffn.name(),
        0x30..0x40 => Class::Exit.name(),
        _ => Class::Head.name(),
    }
}

/// Every record of the tensor table.
fn records<'a>(view: &'a ArtifactView<'_>) -> impl Iterator<Item = TensorRecord> + 'a {
    (0..view.tensor_count()).map(|index| view.tensor_record(index))
}

fn parameters(record: &TensorRecord) -> u64 {
    u64::from(record.rows) * u64::from(record.columns)
}

/// Whether a tensor is a key map: a calibration result, not a parameter of the model.
fn is_key_map(record: &TensorRecord) -> bool {
    record.part >= TensorPart::KeyMean as u8
}

/// Sums by class, in forward order, then `other`.
pub fn classes(view: &ArtifactView<'_>) -> Vec<(&'static str, ClassSummary)> {
    let mut sums: BTreeMap<&'static str, ClassSummary> = BTreeMap::new();
    let tied = view.spec().has_tied_head();
    for record in records(view) {
        let class = class_of(&record);
        let sum = sums.entry(class).or_default();
        sum.bytes += record.bytes;
        sum.active_bytes += view.met_by_a_token(&record, record.bytes);
        if !is_key_map(&record) {
            sum.parameters += parameters(&record);
            sum.active_parameters += view.met_by_a_token(&record, parameters(&record));
        }
        let macs = view.met_by_a_token(&record, parameters(&record));
        let stored = if Storage::from_id(record.storage).is_some_and(Storage::is_sparse) { macs / 2 } else { macs };
        let kernel = record.role == TensorRole::ConvKernel as u8 && record.part == TensorPart::Weight as u8;
        let multiplied = match class {
            "attention" | "conv" | "ffn" | "exit" | "head" => Some(class),
            _ if kernel => Some(Class::Conv.name()),
            "embedding" if record.role == TensorRole::EmbedProjection as u8 => Some(class),
            _ if tied && record.role == TensorRole::EmbedToken as u8 => Some(Class::Head.name()),
            _ => None,
        };
        if let Some(class) = multiplied {
            let sum = sums.entry(class).or_default();
            sum.macs_per_token += macs;
            sum.sparse_macs_per_token += stored;
        }
    }
    let names = Class::ALL.map(Class::name).into_iter().chain(["other"]);
    names.filter_map(|name| sums.get(name).map(|sum| (name, *sum))).collect()
}

/// The sizes reports state, from the file alone; equal to the sizes that [`WeightSize::of`] counted when it was
/// compiled, but for positions beyond the planned context.
pub fn weight_size(view: &ArtifactView<'_>) -> WeightSize {
    let classes = classes(view);
    let weight_bytes: u64 = classes.iter().map(|(_, sum)| sum.bytes).sum();
    let parameters: u64 = classes.iter().map(|(_, sum)| sum.parameters).sum();
    WeightSize {
        weight_bytes,
        parameters,
        bits_per_weight: 8.0 * weight_bytes as f64 / parameters as f64,
        bytes_by_class: classes.iter().map(|(name, sum)| (*name, sum.bytes)).collect(),
    }
}

/// Every tensor in table order; `names` are the lines of the names section.
pub fn tensors(view: &ArtifactView<'_>, names: Option<&str>) -> Vec<TensorSummary> {
    let mut names = names.map(str::lines);
    let summary = |(index, record): (usize, TensorRecord)| TensorSummary {
        name: names
            .as_mut()
            .and_then(Iterator::next)
            .map(str::to_owned)
            .or_else(|| Some(parameter_id(view.tensor_key(index)?)?.to_string()))
            .unwrap_or_default(),
        storage: Storage::from_id(record.storage).map_or("unknown", Storage::name),
        rows: record.rows,
        columns: record.columns,
        bytes: record.bytes,
    };
    records(view).enumerate().map(summary).collect()
}

/// Result of `slmc inspect`.
#[derive(Clone, Debug, Serialize)]
pub struct InspectReport {
    /// Format version.
    pub version: String,
    /// Target it was compiled for.
    pub target: String,
    /// Layout of its weights.
    pub layout: &'static str,
    /// `decoder` or `encoder`.
    pub kind: &'static str,
    /// Layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Rows of the token table.
    pub vocabulary: u32,
    /// Positions planned for.
    pub context: u32,
    /// Tokens that go through a layer together.
    pub chunk: u32,
    /// Length of the file.
    pub file_bytes: u64,
    /// The part of the file that a device needs.
    pub flash_bytes: u64,
    /// Activations and scratch.
    pub arena_bytes: u64,
    /// Keys and values at the context.
    pub cache_bytes: u64,
    /// Bound on the stack.
    pub stack_bytes: u64,
    /// Arena, cache and stack.
    pub ram_bytes: u64,
    /// Weights.
    #[serde(flatten)]
    pub size: WeightSize,
    /// Experts of mixtures, where there are some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experts: Option<ExpertsSummary>,
    /// Multiply-accumulates per token in linears and head, of experts in those that a token has; attention over the cache comes on
    /// top.
    pub macs_per_token: u64,
    /// The same of the weights that are stored: half of every 2:4 matrix.
    pub sparse_macs_per_token: u64,
    /// Sums by class.
    pub classes: BTreeMap<&'static str, ClassSummary>,
    /// Golden prompts.
    pub golden_prompts: usize,
    /// Digest of their logits.
    pub golden_sha256: String,
    /// Who turns text into tokens.
    pub tokenizer: TokenizerSummary,
    /// Tokens that stand before a text.
    pub opening_tokens: Vec<u32>,
    /// Tokens that end one.
    pub end_tokens: Vec<u32>,
    /// How a decoder's tokens are chosen unless a program says otherwise: temperature, top_k, top_p, min_p,
    /// repetition_penalty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Value>,
    /// The same in words.
    #[serde(skip)]
    sampling_words: String,
    /// How hidden states become one row of output: `cls`, `mean`, `max` or `lasttoken`; absent where every token has a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooling: Option<&'static str>,
    /// Whether that row is scaled to length one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalized: Option<bool>,
    /// Whether the host part has a chat template.
    pub chat_template: bool,
    /// Who makes the prompt of a conversation; absent where nobody can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_frame: Option<ChatSummary>,
    /// Who signed it, by the names of their keys, its counter and its product line; absent where nobody did. Nothing of it is
    /// checked here: `slmc verify --key` does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignedReport>,
    /// How its weights are closed; absent where they are open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seal: Option<SealSummary>,
    /// How it was made; absent in a device-only file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<serde_json::Value>,
    /// Every tensor.
    pub tensors: Vec<TensorSummary>,
}

impl Report for InspectReport {
    const SCHEMA: &'static str = "slmc.inspect/1";

    fn text(&self) -> String {
        let mut facts = Table::pairs();
        facts.row(["format", &self.version]);
        facts.row(["target", &format!("{} ({})", self.target, self.layout)]);
        let model = format!(
            "{}, {} layers of {}, vocabulary {}, context {}",
            self.kind,
            self.layers,
            self.hidden,
            grouped(self.vocabulary.into()),
            self.context
        );
        facts.row(["model", &model]);
        facts.row(["file_bytes", &grouped(self.file_bytes)]);
        facts.row(["flash_bytes", &grouped(self.flash_bytes)]);
        facts.row(["ram_bytes", &grouped(self.ram_bytes)]);
        facts.row(["  arena", &grouped(self.arena_bytes)]);
        facts.row(["  key-value cache", &grouped(self.cache_bytes)]);
        facts.row(["  stack", &grouped(self.stack_bytes)]);
        if let Some(experts) = &self.experts {
            let ExpertsSummary { experts, chosen, active_parameters, active_bytes } = *experts;
            facts.row(["experts", &format!("{experts}, of which a token has {chosen}")]);
            let (parameters, bytes) = (grouped(active_parameters), grouped(active_bytes));
            facts.row(["  active", &format!("{parameters} parameters, {bytes} bytes")]);
        }
        facts.row(["bits_per_weight", &format!("{:.3}", self.size.bits_per_weight)]);
        self.tokenizer.rows(&mut facts);
        if self.kind == "decoder" {
            facts.row(["opening_tokens", &list(&self.opening_tokens)]);
            facts.row(["end_tokens", &list(&self.end_tokens)]);
            facts.row(["sampling", &self.sampling_words]);
            facts.row(["chat_template", if self.chat_template { "in the host part" } else { "none" }]);
            self.chat_frame.iter().for_each(|chat| chat.rows(&mut facts));
        }
        if let (Some(pooling), Some(normalized)) = (self.pooling, self.normalized) {
            let scaled = if normalized { "scaled to length one" } else { "not scaled" };
            facts.row(["pooling", &format!("{pooling}, {scaled}")]);
        }
        self.signed.iter().for_each(|signed| signed.rows(&mut facts));
        self.seal.iter().for_each(|seal| seal.rows(&mut facts));
        let right = Align::Right;
        let mut classes = Table::new([
            ("class", Align::Left),
            ("bytes", right),
            ("parameters", right),
            ("MACs per token, dense", right),
            ("sparse", right),
        ]);
        let mut row = |name: &str, numbers: [u64; 4]| {
            classes.row([name.to_owned()].into_iter().chain(numbers.map(grouped)));
        };
        for (name, sum) in &self.classes {
            row(name, [sum.bytes, sum.parameters, sum.macs_per_token, sum.sparse_macs_per_token]);
        }
        let (bytes, parameters) = (self.size.weight_bytes, self.size.parameters);
        row("all", [bytes, parameters, self.macs_per_token, self.sparse_macs_per_token]);
        let mut tensors =
            Table::new([("tensor", Align::Left), ("storage", Align::Left), ("shape", right), ("bytes", right)]);
        for tensor in &self.tensors {
            let shape = format!("{} x {}", tensor.rows, tensor.columns);
            tensors.row([tensor.name.as_str(), tensor.storage, &shape, &grouped(tensor.bytes)]);
        }
        format!("{facts}\n\n{classes}\n\n{tensors}\n\ngolden_sha256  {}", self.golden_sha256)
    }
}

/// Token ids joined by commas.
fn list(tokens: &[u32]) -> String {
    if tokens.is_empty() {
        return "none".to_owned();
    }
    tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

/// Reads an artifact's tables.
pub fn inspect(path: &Path) -> Result<InspectReport, ArtifactError> {
    let file = ArtifactFile::open(path)?;
    let view = file.view()?;
    let (spec, header) = (view.spec(), view.header());
    let classes = classes(&view);
    let embedding = embedding::of(spec);
    let names = view.section(SectionKind::Names).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let provenance: Option<serde_json::Value> =
        view.section(SectionKind::Provenance).and_then(|bytes| serde_json::from_slice(bytes).ok());
    Ok(InspectReport {
        version: format!("{}.{}", header.major, header.minor),
        target: view.target().to_owned(),
        layout: view.layout().name(),
        kind: if spec.is_decoder() { "decoder" } else { "encoder" },
        layers: spec.layers,
        hidden: spec.hidden,
        vocabulary: spec.vocabulary,
        context: spec.context,
        chunk: spec.chunk,
        file_bytes: view.bytes().len() as u64,
        flash_bytes: header.device_bytes,
        arena_bytes: spec.arena_bytes,
        cache_bytes: spec.cache_bytes,
        stack_bytes: spec.stack_bytes,
        ram_bytes: spec.arena_bytes + spec.cache_bytes + spec.stack_bytes,
        size: weight_size(&view),
        experts: ExpertsSummary::of(&view, &classes),
        macs_per_token: classes.iter().map(|(_, sum)| sum.macs_per_token).sum(),
        sparse_macs_per_token: classes.iter().map(|(_, sum)| sum.sparse_macs_per_token).sum(),
        classes: classes.into_iter().collect(),
        golden_prompts: view.golden_prompts().count(),
        golden_sha256: hex(&view.golden_digest()),
        tokenizer: TokenizerSummary::of(&view, host_only(provenance.as_ref())),
        opening_tokens: view.opening_tokens().iter().collect(),
        end_tokens: view.end_tokens().iter().collect(),
        sampling: spec.is_decoder().then(|| sampling_json(&view.sampling())),
        sampling_words: sampling_words(&view.sampling()),
        pooling: embedding.map(|embedding| embedding.pooling.name()),
        normalized: embedding.map(|embedding| embedding.normalize),
        chat_template: view.section(SectionKind::ChatTemplate).is_some(),
        chat_frame: ChatSummary::of(&view, not_fixed(provenance.as_ref())),
        // Without keys nothing is refused.
        signed: SignedReport::of(&view, None).ok().flatten(),
        seal: SealSummary::of(&view),
        provenance,
        tensors: tensors(&view, names),
    })
}
