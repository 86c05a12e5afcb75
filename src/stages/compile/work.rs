//! The work of `slmc compile`: a quantized directory in, one artifact out, with the bytes it takes of the device.

use super::drafts::asked_sections;
use super::exits::{ExitOptions, ExitsReport, chosen, first_section, unjudged};
use super::prefix::prefix_tokens;
use crate::artifact::chat::{ChatSummary, NOT_FIXED};
use crate::artifact::text::{HOST_ONLY, TokenizerSummary};
use crate::compile::emit::sampling_section;
use crate::compile::fit::Footprint;
use crate::compile::kv::KvFormat;
use crate::compile::residency::Streaming;
use crate::compile::{ARTIFACT_MAGIC, CompileError, Compiled, HostSections, TextSection, check_quantized, compile};
use crate::disk::atomic;
use crate::disk::hash::hex;
use crate::firmware::{self, BEGINNING, FirmwareReport};
use crate::formats::{self, ModelFormatError, ModelSource};
use crate::model::generation;
use crate::model::size::WeightSize;
use crate::model::spec::ModelKind;
use crate::model::special_tokens::tokenizer_json;
use crate::model::weights::Model;
use crate::page::{NewPage, Page, PageReport};
use crate::progress::Progress;
use crate::report::{Report, Table, grouped};
use crate::stages::StageError;
use crate::stages::arguments::{CHAT, OWN_SAMPLES};
use crate::stages::invocation::Invocation;
use crate::stages::provenance::{Inputs, provenance};
use crate::target::Target;
use crate::text::chat_template::{ChatFrame, ChatTemplate};
use crate::text::constraint::Constraint;
use crate::text::tokenizer::{Tokenizer, TokenizerError};
use serde::Serialize;
use serde_json::{Value, json};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::header::SectionKind;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What a person asks for beside the model.
#[derive(Clone, Debug, Default)]
pub struct Additions {
    /// The text whose frequent continuations are guessed, or the word for what the model writes.
    pub continuations: Option<PathBuf>,
    /// The artifact of the model that drafts.
    pub draft: Option<PathBuf>,
    /// Tokens that are drafted together, where anything drafts.
    pub drafts: usize,
    /// How keys and values are kept.
    pub kv: KvFormat,
    /// How weights are streamed, where they are.
    pub streaming: Option<Streaming>,
    /// What outputs follow.
    pub constraint: Option<Constraint>,
    /// The text that sequences begin with, or the word for what the chat template begins with.
    pub prefix: Option<PathBuf>,
    /// The system message of that.
    pub system: Option<String>,
    /// How a classifier's exits are chosen.
    pub exits: ExitOptions,
    /// Seed of what the model writes.
    pub seed: u64,
}

/// Options of `slmc compile`, checked.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// Quantized directory.
    pub model: PathBuf,
    /// Artifact to write.
    pub out: PathBuf,
    /// Target device.
    pub target: Target,
    /// Positions; the model's maximum if absent.
    pub context: Option<usize>,
    /// Whether the file ends after the device part.
    pub device_only: bool,
    /// Directory of a page that runs it.
    pub page: Option<PathBuf>,
    /// The folder to write that builds into firmware.
    pub firmware: Option<PathBuf>,
    /// What a person asks for beside the model.
    pub additions: Additions,
    /// The command, for the provenance.
    pub invocation: Invocation,
}

/// Result of `slmc compile`.
#[derive(Clone, Debug, Serialize)]
pub struct CompileReport {
    /// Target.
    pub target: String,
    /// Layout of its weights.
    pub layout: &'static str,
    /// Flash and RAM that it takes.
    #[serde(flatten)]
    pub footprint: Footprint,
    /// Arena, cache and stack.
    pub ram_bytes: u64,
    /// Flash the device has for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flash_limit_bytes: Option<u64>,
    /// RAM the device has for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ram_limit_bytes: Option<u64>,
    /// Length of the file.
    pub file_bytes: u64,
    /// Weights.
    #[serde(flatten)]
    pub size: WeightSize,
    /// Who turns text into tokens.
    pub tokenizer: TokenizerSummary,
    /// Who makes the prompt of a conversation; absent without a chat template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_frame: Option<ChatSummary>,
    /// How hidden states become one row of output: `cls`, `mean`, `max` or `lasttoken`; absent where every token has a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooling: Option<&'static str>,
    /// Whether that row is scaled to length one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalized: Option<bool>,
    /// Bytes of the grammar; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grammar_bytes: Option<u64>,
    /// Bytes of the table of frequent continuations; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continuations_bytes: Option<u64>,
    /// Bytes of the draft model; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft_bytes: Option<u64>,
    /// Tokens that are read already; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_tokens: Option<usize>,
    /// The page that runs it; absent where none was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<PageReport>,
    /// The folder that builds into firmware; absent where none was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<FirmwareReport>,
    /// Thresholds and temperatures of a classifier's heads; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exits: Option<ExitsReport>,
    /// Digest of the golden logits.
    pub golden_sha256: String,
}

impl Report for CompileReport {
    const SCHEMA: &'static str = "slmc.compile/1";

    fn text(&self) -> String {
        let of = |limit: Option<u64>| limit.map_or(String::new(), |limit| format!(" of {}", grouped(limit)));
        let footprint = &self.footprint;
        let mut table = Table::pairs();
        table.row(["target", &format!("{} ({})", self.target, self.layout)]);
        table.row(["flash_bytes", &format!("{}{}", grouped(footprint.flash_bytes), of(self.flash_limit_bytes))]);
        table.row(["ram_bytes", &format!("{}{}", grouped(self.ram_bytes), of(self.ram_limit_bytes))]);
        table.row(["  arena", &grouped(footprint.arena_bytes)]);
        table.row([
            "  key-value cache",
            &format!("{} at a context of {}", grouped(footprint.cache_bytes), footprint.context),
        ]);
        table.row(["  stack", &grouped(footprint.stack_bytes)]);
        if let Some(streaming) = &footprint.streaming {
            table.row(["  file without weights", &grouped(streaming.image_bytes)]);
            table.row(["  resident weights", &grouped(streaming.resident_bytes)]);
            table.row(["  buffers", &format!("2 × {}", grouped(streaming.buffer_bytes))]);
        }
        if footprint.drafting_bytes > 0 {
            table.row(["  drafts", &grouped(footprint.drafting_bytes)]);
        }
        if let Some(streaming) = &footprint.streaming {
            table.row(["read a token", &format!("{} bytes", grouped(streaming.bytes_per_token))]);
        }
        if let Some(bytes) = self.grammar_bytes {
            table.row(["grammar", &format!("{} bytes", grouped(bytes))]);
        }
        if let Some(bytes) = self.continuations_bytes {
            table.row(["continuations", &format!("{} bytes", grouped(bytes))]);
        }
        if let Some(tokens) = self.prefix_tokens {
            table.row(["prefix", &format!("{} tokens, read already", grouped(tokens as u64))]);
        }
        if let Some(bytes) = self.draft_bytes {
            table.row(["draft model", &format!("{} bytes", grouped(bytes))]);
        }
        if let Some(page) = &self.page {
            table.row(["page", &page.words()]);
        }
        self.exits.iter().for_each(|exits| exits.rows(&mut table));
        table.row(["chunk", &format!("{} tokens together", footprint.chunk)]);
        table.row(["weight_bytes", &grouped(self.size.weight_bytes)]);
        table.row(["bits_per_weight", &format!("{:.3}", self.size.bits_per_weight)]);
        table.row(["file_bytes", &grouped(self.file_bytes)]);
        self.tokenizer.rows(&mut table);
        self.chat_frame.iter().for_each(|chat| chat.rows(&mut table));
        if let (Some(pooling), Some(normalized)) = (self.pooling, self.normalized) {
            table.row([
                "pooling",
                &format!("{pooling}, {}", if normalized { "scaled to length one" } else { "not scaled" }),
            ]);
        }
        self.firmware.iter().for_each(|firmware| firmware.rows(&mut table));
        format!("{table}\ngolden_sha256  {}", self.golden_sha256)
    }
}

/// Compiles a quantized directory into an artifact; nothing is written unless it fits.
pub fn compile_directory(options: &CompileOptions, progress: &dyn Progress) -> Result<CompileReport, StageError> {
    atomic::check_file(&options.out, ARTIFACT_MAGIC)?;
    options.page.iter().try_for_each(|directory| atomic::check_directory(directory))?;
    if let Some(folder) = &options.firmware {
        firmware::check(folder)?;
    }
    let input = formats::open(&options.model)?;
    let model = input.model()?;
    // Before the tokenizer is asked for: this is the mistake to name first.
    check_quantized(&model)?;
    let mut tokenizer = Tokenizer::of(&model.companions)?;
    if let Some(warning) = tokenizer.check(model.spec.vocabulary)? {
        progress.warn(&warning);
    }
    let tables = tokenizer.device_text();
    let host_only = tables.as_ref().err().map(ToString::to_string);
    // Encoders of sentences may carry a template of the model they were made from; nobody asks them.
    let template = match model.spec.kind {
        ModelKind::Decoder => ChatTemplate::usable(&model.companions)?,
        ModelKind::Encoder | ModelKind::EncoderDecoder(_) => None,
    };
    let frame = template.as_ref().map(ChatFrame::of);
    let not_fixed = frame.as_ref().and_then(|frame| frame.as_ref().err()).map(ToString::to_string);
    let frame = frame.and_then(Result::ok).map(|frame| frame.with_tokens(&tokenizer, model.spec.vocabulary));
    let vocabulary = tokenizer.vocabulary_bytes(model.spec.vocabulary)?;
    let mut asked = asked_sections(options, &model, &vocabulary, progress)?;
    if let Some(constraint) = &options.additions.constraint {
        let compiled = constraint.compile(&tokenizer, &vocabulary, &model.spec.ends)?;
        compiled.notes.iter().for_each(|note| progress.warn(note));
        asked.grammar = Some(compiled.section);
    }
    asked.prefix = prefix_tokens(options, &model, &tokenizer, template.as_ref())?;
    asked.exits = first_section(options, &model.spec);
    let mut text = TextSection {
        asked,
        vocabulary,
        strip_leading_space: tokenizer.text_rules()?.strip_leading_space,
        tables: tables.ok(),
        chat_frame: frame.transpose()?.map(|frame| frame.to_section()),
        sampling: sampling(&model)?,
    };
    let made = made(options, input.as_ref(), host_only.as_deref(), not_fixed.as_deref())?;
    let host = HostSections {
        tokenizer: tokenizer_json(&model.companions).map_err(TokenizerError::from)?,
        provenance: Some(made.to_string().into_bytes()),
        chat_template: template.map(|template| template.to_section()),
    };
    let mut compiled = compile(&model, &options.target, options.context, &text, &host, progress)?;
    let view = ArtifactView::open(&compiled.bytes).map_err(CompileError::Emitted)?;
    let mut exits = unjudged(&view);
    if let Some((section, report)) = chosen(options, &model, &view, &tokenizer, progress)? {
        text.asked.exits = Some(section);
        exits = Some(report);
        compiled = compile(&model, &options.target, options.context, &text, &host, progress)?;
    }
    let view = ArtifactView::open(&compiled.bytes).map_err(CompileError::Emitted)?;
    let page = options.page.as_deref().map(|directory| {
        let page = Page {
            name: &name(&options.out),
            summary: summary(&model, &compiled),
            spec: &model.spec,
            artifact: &compiled.bytes,
            device_bytes: compiled.footprint.flash_bytes as usize,
            host_only: host_only.as_deref(),
            provenance: &made,
        };
        NewPage::begin(&page, directory)
    });
    let page = page.transpose()?;
    let text_summary = TokenizerSummary::of(&view, host_only);
    let chat_frame = ChatSummary::of(&view, not_fixed);
    let bytes = if options.device_only {
        &compiled.bytes[..compiled.footprint.flash_bytes as usize]
    } else {
        &compiled.bytes[..]
    };
    // Whole before the artifact is written, in its place after it.
    let folder = match &options.firmware {
        Some(folder) => Some(firmware_folder(folder, options, &compiled, &model, &tokenizer, made)?),
        None => None,
    };
    atomic::write_file(&options.out, ARTIFACT_MAGIC, |out| out.write_all(bytes))?;
    let page = page.map(NewPage::commit).transpose()?;
    let firmware = folder.map(firmware::Pending::commit).transpose()?;
    Ok(CompileReport {
        target: options.target.name.clone(),
        layout: options.target.layout.name(),
        footprint: compiled.footprint,
        ram_bytes: compiled.footprint.ram_bytes(),
        flash_limit_bytes: match compiled.footprint.streaming {
            Some(_) => options.target.storage_bytes.or(options.target.flash_bytes),
            None => options.target.flash_bytes,
        },
        ram_limit_bytes: options.target.usable_ram_bytes(),
        file_bytes: bytes.len() as u64,
        size: compiled.size,
        tokenizer: text_summary,
        chat_frame,
        pooling: model.spec.embedding.map(|embedding| embedding.pooling.name()),
        normalized: model.spec.embedding.map(|embedding| embedding.normalize),
        grammar_bytes: view.section(SectionKind::Grammar).map(|section| section.len() as u64),
        continuations_bytes: view.section(SectionKind::Continuations).map(|section| section.len() as u64),
        draft_bytes: view.section(SectionKind::Draft).map(|section| section.len() as u64),
        prefix_tokens: view.prefix().map(|prefix| prefix.tokens.len()),
        page,
        firmware,
        exits,
        golden_sha256: hex(&compiled.golden),
    })
}

/// The name of an artifact, for people.
fn name(file: &Path) -> String {
    file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy().into_owned()
}

/// What a model is, in a line.
fn summary(model: &Model, compiled: &Compiled) -> String {
    let WeightSize { parameters, bits_per_weight, .. } = &compiled.size;
    let parameters = match *parameters {
        count if count < 10_000_000 => format!("{:.2} M", count as f64 / 1e6),
        count => format!("{:.0} M", count as f64 / 1e6),
    };
    let kind = match model.spec.kind {
        ModelKind::Decoder => "A decoder",
        ModelKind::Encoder => "An encoder",
        ModelKind::EncoderDecoder(_) => "An encoder-decoder",
    };
    let context = grouped(compiled.footprint.context as u64);
    format!("{kind} of {parameters} parameters at {bits_per_weight:.2} bits each, for {context} tokens")
}

/// The folder that builds into firmware, of the artifact's device part.
fn firmware_folder(
    folder: &Path,
    options: &CompileOptions,
    compiled: &Compiled,
    model: &Model,
    tokenizer: &Tokenizer,
    made: Value,
) -> Result<firmware::Pending, StageError> {
    let device = &compiled.bytes[..compiled.footprint.flash_bytes as usize];
    let view = ArtifactView::open(device).map_err(CompileError::Emitted)?;
    let labels = model.spec.head.labels().unwrap_or_default();
    let prompt_tokens = match view.text() {
        Some(_) => Vec::new(),
        None if model.spec.kind == ModelKind::Decoder => {
            [model.spec.opening.clone(), tokenizer.encode_plain(BEGINNING)?].concat()
        }
        None => tokenizer.encode_with_specials(BEGINNING)?,
    };
    let content = firmware::Content {
        view: &view,
        target: &options.target,
        footprint: compiled.footprint,
        labels,
        prompt_tokens: &prompt_tokens,
    };
    Ok(firmware::write(folder, &content, made)?)
}

/// The section with the defaults of sampling, where a model draws tokens.
fn sampling(model: &Model) -> Result<Option<Vec<u8>>, StageError> {
    Ok(match model.spec.kind {
        ModelKind::Decoder => {
            let generation = generation::read(&model.companions).map_err(ModelFormatError::from)?;
            sampling_section(&generation.sampling)
        }
        ModelKind::Encoder | ModelKind::EncoderDecoder(_) => None,
    })
}

fn made(
    options: &CompileOptions,
    input: &dyn ModelSource,
    host_only: Option<&str>,
    not_fixed: Option<&str>,
) -> Result<Value, StageError> {
    let mut settings = json!({
        "target": options.target.name,
        "context": options.context,
        "tokenizer": host_only.map_or_else(|| "device".to_owned(), |part| format!("{HOST_ONLY}{part}")),
    });
    if let Some(reason) = not_fixed {
        settings["chat_frame"] = json!(format!("{NOT_FIXED}{reason}"));
    }
    if options.additions.kv != KvFormat::Int8 {
        settings["kv"] = json!(options.additions.kv.to_string());
    }
    if let Some(Streaming { resident, buffer_bytes }) = options.additions.streaming {
        settings["streaming"] = json!({ "resident": resident.to_string(), "buffer_bytes": buffer_bytes });
    }
    if let Some(constraint) = &options.additions.constraint {
        settings["follows"] = json!(constraint.kind());
        if let Constraint::Expression(expression) = constraint {
            settings["regex"] = json!(expression);
        }
    }
    if let Some(prefix) = &options.additions.prefix {
        let of_template = prefix == Path::new(CHAT);
        settings["prefix"] = json!({ "chat": of_template, "system": options.additions.system });
    }
    let mut inputs = Inputs::default().model("model", &options.model)?;
    let exits = &options.additions.exits;
    if !exits.margins.is_empty() {
        settings["exit_margins"] = json!(exits.margins.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
    if let Some(data) = &exits.data {
        if exits.margins.is_empty() {
            settings["exit_loss"] = json!(exits.loss);
        }
        inputs = inputs.files("exit_data", [data])?;
    }
    if let Some(path) = options.additions.constraint.as_ref().and_then(Constraint::path) {
        inputs = inputs.files("grammar", [path])?;
    }
    if let Some(prefix) = options.additions.prefix.iter().find(|prefix| *prefix != Path::new(CHAT)) {
        inputs = inputs.files("prefix", [prefix])?;
    }
    if let Some(source) = &options.additions.continuations {
        let own = source == Path::new(OWN_SAMPLES);
        settings["continuations"] = json!({ "own_samples": own });
        if !own {
            inputs = inputs.files("continuations", [source])?;
        }
    }
    if let Some(draft) = &options.additions.draft {
        settings["drafts"] = json!(options.additions.drafts);
        inputs = inputs.files("draft", [draft])?;
    }
    let mut made = provenance("compile", &inputs, settings, &options.invocation);
    made["model"] = json!(input.provenance());
    Ok(made)
}
