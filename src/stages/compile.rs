//! `slmc compile`: a quantized directory packed into one artifact for a target.

mod drafts;
mod exits;
mod prefix;
mod work;

use super::arguments::groups::{ConstraintArgs, DRAFTS, EXITS, MODEL_AND_OUTPUT, PREFIX, StreamingArgs, TARGET};
use super::arguments::{Artifact, QuantizedModel, ReadFile, TargetName, TextOrChat, TextOrSelf, WriteDirectory, path};
use super::error::StageError;
use super::known::{Known, KnownModel};
use super::limits::check_memory;
use super::prediction::{self, DeviceNeed, Prediction};
use super::stage::{Arithmetic, Faults, Measures, Outcome, Product, Resolved, RunSettings, Stage};
use super::summary::Figures;
use crate::compile::exits::section_bytes;
use crate::compile::fit::{FitError, Limit, Shape, fit, footprint};
use crate::compile::kv::KvFormat;
use crate::compile::sections::{Asked, SectionBytes};
use crate::compile::{ARTIFACT_MAGIC, CompileError, golden_size};
use crate::disk::atomic;
use crate::firmware;
use crate::model::spec::{Head, ModelKind, ModelSpec};
use crate::page;
use crate::quantize::policy::not_sparse;
use crate::shell::Shell;
use crate::target::{Required, Target};
use anyhow::anyhow;
pub use exits::{ExitOptions, ExitsReport, Margin};
use serde_json::Value;
use slm_runtime::format::spec::MAX_CHUNK;
use slm_runtime::speculate::MAX_DRAFTS;
use std::path::PathBuf;
pub use work::{Additions, CompileOptions, CompileReport, compile_directory};

/// Pack a quantized directory into one artifact for a target
///
/// Plans the memory the device needs (arena, key-value cache at the context, stack), checks it and the file against the
/// target's RAM and flash, and runs a few prompts whose logits `slmc verify` and the device's self-test compare with.
/// A model that does not fit is exit code 1, with what would fit.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slmc compile out/mixed --target cortex-m55 --context 256 -o out/mixed.slm
  slmc compile out/w4 --target boards/mine.toml --device-only -o out/w4.slm
  slmc compile out/w4 --target wasm32 --page out/page -o out/w4.slm
  slmc compile out/mixed --target cortex-m55 --context 256 --firmware out/board -o out/mixed.slm
  slmc compile out/w8 --target boards/card.toml --resident auto -o out/w8.slm
  slmc compile out/w4 --target generic --draft out/student.slm --continuations self -o out/w4.slm")]
pub struct Args {
    /// Directory written by `slmc quantize`
    #[arg(value_name = "DIR", help_heading = MODEL_AND_OUTPUT, display_order = 0)]
    model: QuantizedModel,

    /// Device: a name of `slmc targets`, or a target file
    #[arg(long, value_name = "NAME", help_heading = TARGET)]
    target: TargetName,

    /// Context to plan memory for [default: the model's]
    ///
    /// For sentence encoders that is `max_seq_length`, where a file states it.
    #[arg(long, value_name = "N", help_heading = TARGET)]
    context: Option<usize>,

    /// Format of keys and values: v8, v4, v4:FIRST-LAST [default: v8]
    ///
    /// v8: 8 bits. v4: keys in 8 bits, values rotated and in 4, of all layers or of those from FIRST to LAST; judge the loss
    /// with `slmc eval`. Layers with a sliding window hold what the window sees and no more, whatever the format.
    #[arg(long, value_name = "FORMAT", help_heading = TARGET)]
    kv: Option<KvFormat>,

    #[command(flatten)]
    streaming: StreamingArgs,

    #[command(flatten)]
    constraint: ConstraintArgs,

    /// Text that sequences begin with, read once here
    ///
    /// What the model computes for it goes into the file, so that it costs nothing at the start: the bytes of its keys and
    /// values. With `chat` it is what the chat template writes before the first question.
    #[arg(long, value_name = "FILE|chat", help_heading = PREFIX)]
    prefix: Option<TextOrChat>,

    /// System message of --prefix chat [default: the template's own]
    #[arg(long, value_name = "TEXT", requires = "prefix", allow_hyphen_values = true, help_heading = PREFIX)]
    system: Option<String>,

    /// Guess next tokens by what follows them in a text
    ///
    /// A table of frequent continuations goes into the file, at most a 32nd of the weights: tokens of the text, or with
    /// `self` of text that the model writes, as calibration has it. Guesses are confirmed several at a time, which leaves
    /// the output as it is, bit for bit, and makes it faster.
    #[arg(long, value_name = "TEXT|self", help_heading = DRAFTS)]
    continuations: Option<TextOrSelf>,

    /// Guess next tokens by a smaller model
    ///
    /// Its device part goes into the file: an artifact for the same target with the same tokenizer, such as a student of
    /// the model.
    #[arg(long, value_name = "FILE.slm", help_heading = DRAFTS)]
    draft: Option<Artifact>,

    /// Tokens that are guessed and read together [default: 4]
    ///
    /// Memory for their logits is counted in the device's RAM where there is a table or a draft model.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=MAX_DRAFTS as i64), help_heading = DRAFTS)]
    drafts: Option<u8>,

    /// Labelled texts to choose thresholds and temperatures on
    ///
    /// Of a classifier with exit heads: when a text may leave, so that as little is computed as --exit-loss allows. Of every
    /// classifier: the temperature at which its confidence is how often it is right. JSONL, CSV or Parquet, with texts that nothing was
    /// trained on and nothing will be measured on. Without it every text passes all layers.
    #[arg(long, value_name = "FILE", help_heading = EXITS)]
    exit_data: Option<ReadFile>,

    /// Points of accuracy that leaving may cost [default: 1]
    ///
    /// On --exit-data, in hundredths: 0.5 allows 95.5 % where all layers have 96 %. Texts labelled `oos` are not counted, as in `eval`.
    #[arg(long, value_name = "POINTS", requires = "exit_data", help_heading = EXITS)]
    exit_loss: Option<f64>,

    /// Margins of logits to leave at, one for each exit head, in the place of chosen ones
    ///
    /// From 0, which all texts leave at, to 65535; `never` leaves a head out.
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "exit_loss", help_heading = EXITS)]
    exit_margins: Vec<Margin>,

    /// Key of the text in --exit-data [default: text]
    #[arg(long, value_name = "KEY", requires = "exit_data", help_heading = EXITS)]
    exit_field: Option<String>,

    /// Key of its label [default: label]
    #[arg(long, value_name = "KEY", requires = "exit_data", help_heading = EXITS)]
    exit_label: Option<String>,

    /// Leave out tokenizer.json, names, labels, provenance
    ///
    /// That is, the part of the file that only build machines read.
    #[arg(long, help_heading = MODEL_AND_OUTPUT)]
    device_only: bool,

    /// Also write a folder that runs the artifact in a browser
    ///
    /// A page with the runtime as WebAssembly and the artifact in pieces, for --target wasm32. Any static server hands it out;
    /// it verifies itself, streams text, holds a conversation where the model has a chat template, and works without a
    /// connection once it is loaded. A folder that slmc wrote is replaced.
    #[arg(long, value_name = "DIR", help_heading = MODEL_AND_OUTPUT)]
    page: Option<WriteDirectory>,

    /// Folder to write that builds into a program of the device
    ///
    /// With the artifact as an object to link, the header of the C interface, the planned memory as static arrays, a main that
    /// generates, the runtime's sources, CMakeLists, notes for Zephyr, ESP-IDF and PlatformIO. It builds for this machine too. A
    /// folder that slmc wrote is replaced if nobody has changed it.
    #[arg(long, value_name = "DIR", help_heading = MODEL_AND_OUTPUT)]
    firmware: Option<WriteDirectory>,

    /// Artifact to write; an existing artifact is replaced
    #[arg(short, long, value_name = "FILE.slm", help_heading = MODEL_AND_OUTPUT)]
    out: PathBuf,
}

/// What artifacts lack for an encoder-decoder.
const NO_SECOND_STACK: &str = "and artifacts have neither a second stack of layers nor attention across stacks nor numbers added to scores by distance";

/// The kind of stage.
pub struct Compile;

/// Tokens that are guessed together unless a person says otherwise.
const DRAFTED: u8 = 4;
/// Why nothing can follow a grammar.
const NOTHING_TO_CONSTRAIN: &str = "only decoders with logits of the next token follow a grammar; leave it out";
/// Why nothing leaves early.
const NO_EXITS: &str = "the model has no exit heads; train some with `slmc train --exits`, or leave it out";
/// Points of accuracy that leaving may cost unless a person says otherwise.
const EXIT_LOSS: f64 = 1.0;
/// Why nothing can be drafted.
const NOTHING_TO_DRAFT: &str = "only decoders with logits of the next token have drafts; leave it out";

impl Args {
    /// What is asked for beside the model, as far as bytes are known before the work.
    fn asked(&self, spec: &ModelSpec) -> Asked {
        let heads = !spec.exits.is_empty() || self.exit_data.is_some();
        let exits = heads.then(|| section_bytes(spec.exits.len()));
        let (kv, streaming) = (self.kv.unwrap_or_default(), self.streaming.streaming());
        Asked { kv, streaming, exits, ..Asked::default() }
    }

    /// How exits are chosen.
    fn exits(&self) -> ExitOptions {
        ExitOptions {
            data: path(&self.exit_data),
            loss: self.exit_loss.unwrap_or(EXIT_LOSS) / 100.0,
            margins: self.exit_margins.clone(),
            text: self.exit_field.clone(),
            label: self.exit_label.clone(),
        }
    }

    /// Notes what is asked of exit heads that the model does not have, and losses that are none.
    fn check_exits(&self, spec: &ModelSpec, faults: &mut Faults) {
        if let Some(loss) = self.exit_loss.filter(|loss| !(0.0..=100.0).contains(loss)) {
            faults.add("exit-loss", anyhow!("--exit-loss is {loss}; pass points of accuracy, from 0 to 100"));
        }
        if self.exit_data.is_some() && !spec.is_classifier() {
            faults
                .add("exit-data", anyhow!("only classifiers have thresholds and temperatures; leave --exit-data out"));
        }
        let (given, there) = (self.exit_margins.len(), spec.exits.len());
        if self.exit_loss.is_some() && there == 0 {
            faults.add("exit-loss", anyhow!("{NO_EXITS}"));
        } else if given > 0 && there == 0 {
            faults.add("exit-margins", anyhow!("{NO_EXITS}"));
        } else if given > 0 && given != there {
            let after: Vec<String> = spec.exits.iter().map(ToString::to_string).collect();
            let error =
                anyhow!("--exit-margins names {given}, and the model has exits after {} layers", after.join(", "));
            faults.add("exit-margins", error);
        }
    }

    /// Whether anything drafts.
    fn drafting(&self) -> bool {
        self.continuations.is_some() || self.draft.is_some()
    }

    /// The option that asks for it.
    fn drafting_option(&self) -> &'static str {
        if self.draft.is_some() { "draft" } else { "continuations" }
    }

    /// What the artifact will take of the device and of this machine; of the latter as far as the schemes are known.
    fn predicted(&self, model: &KnownModel, target: &Target) -> Prediction {
        let spec = &model.spec;
        let predicted = Prediction {
            peak_memory_bytes: Some(need(spec)),
            work_macs: Some(prediction::moved_macs(spec)),
            ..Prediction::default()
        };
        let (Some(assignment), Some(files)) = (&model.schemes, &model.files) else { return predicted };
        let context = self.context.unwrap_or(spec.text_context());
        let sparsity = model.sparsity.clone().unwrap_or_default();
        let Some(sections) = files.bytes(spec).filter(|_| context > 0 && context <= spec.context) else {
            return predicted;
        };
        let shape = Shape {
            spec,
            assignment,
            sparsity: &sparsity,
            key_maps: true,
            wide_activations: model.wide_activations,
            golden: golden_size(spec, context),
            sections: SectionBytes { asked: self.asked(spec), ..sections },
        };
        let (found, does_not_fit) = match fit(&shape, target, context) {
            Ok((found, _)) => (Some(found), None),
            Err(FitError::DoesNotFit(answer)) => {
                let chunk = if answer.limit == Limit::Ram { 1 } else { MAX_CHUNK };
                (footprint(&shape, target, context, chunk).ok().map(|(found, _)| found), Some(answer.to_string()))
            }
            // Its own fault is found above, or by the work.
            Err(FitError::Size(_) | FitError::Lower(_) | FitError::Residency(_)) => (None, None),
        };
        let device = found.map(|found| DeviceNeed {
            target: target.name.clone(),
            flash_bytes: found.flash_bytes,
            ram_bytes: found.ram_bytes(),
            does_not_fit,
        });
        let host = if self.device_only { 0 } else { files.host_bytes() };
        let output_bytes =
            device.as_ref().filter(|device| device.does_not_fit.is_none()).map(|device| device.flash_bytes + host);
        Prediction { output_bytes, device, ..predicted }
    }

    /// Notes every limit of the target that the model is beyond, whatever its memory.
    fn check_limits(&self, target: &Target, model: &KnownModel, faults: &mut Faults) {
        let Some(max) = &target.max else { return };
        let spec = &model.spec;
        let limits = [
            ("target", "vocabulary", spec.vocabulary, max.vocabulary),
            ("context", "context", self.context.unwrap_or(spec.text_context()), max.context),
            ("target", "layers", spec.layers.len(), max.layers),
        ];
        for (option, name, value, limit) in limits {
            if let Some(limit) = limit.filter(|&limit| value as u64 > limit) {
                let target = &target.name;
                faults.add(option, anyhow!("target {target} takes a {name} of at most {limit}, this is {value}"));
            }
        }
    }
}

/// Memory at the peak: the integers, one byte each, and the packed weights twice: by tensor, and in the file that is emitted.
fn need(spec: &ModelSpec) -> u64 {
    3 * spec.parameter_count() + (64 << 20)
}

/// Notes sparsity that the target insists on, and schemes that it does not run.
fn check_required(target: &Target, model: &KnownModel, faults: &mut Faults) {
    if !model.quantized {
        return;
    }
    let pattern = target.required.as_ref().and_then(Required::pattern);
    if let (Some(pattern), Some(sparsity)) = (pattern, &model.sparsity)
        && let Some(id) = not_sparse(&model.spec, sparsity, pattern)
    {
        let error = anyhow!(
            "target {} runs only feed-forward networks that are {pattern}, and `{id}` is not; prune the dense checkpoint \
             (slmc prune DIR --pattern {pattern} --only ffn), then quantize and compile it again",
            target.name
        );
        faults.add("target", error);
    }
    if let Some(schemes) = &model.schemes {
        faults.check("target", target.check_schemes(schemes));
    }
}

impl Stage for Compile {
    type Args = Args;
    type Options = CompileOptions;
    const NAME: &'static str = "compile";
    const MAKES: Product = Product::Artifact;
    const MAGIC: &'static [u8] = ARTIFACT_MAGIC;
    const REVISION: u32 = 5;
    const ARITHMETIC: Arithmetic = Arithmetic::Exact;
    const MEASURES: Measures = Measures { own: &["weight_bytes", "file_bytes", "ram_bytes", "flash_bytes"], also: &[] };

    fn defaults() -> Value {
        Value::Null
    }

    fn resolve(args: &Args, run: &RunSettings, known: &Known) -> Resolved<CompileOptions> {
        let mut faults = Faults::default();
        let target = faults.check("target", Target::named(&args.target));
        let model = faults.check("model", known.model(&args.model)).flatten();
        if let Some(model) = &model {
            faults.check("model", model.check_one_stack(NO_SECOND_STACK));
        }
        if let Some(model) = &model {
            faults.check("", check_memory(run, need(&model.spec), "compiling"));
        }
        if let (Some(target), Some(model)) = (&target, &model) {
            check_required(target, model, &mut faults);
            args.check_limits(target, model, &mut faults);
            faults.check("kv", args.kv.unwrap_or_default().check(model.spec.layers.len()));
            let talks = matches!(model.spec.head, Head::LanguageModel { .. });
            if let Some(constraint) = args.constraint.constraint().filter(|_| !talks) {
                faults.add(constraint.kind(), anyhow!(NOTHING_TO_CONSTRAIN));
            }
            if args.prefix.is_some() && model.spec.kind != ModelKind::Decoder {
                faults.add("prefix", anyhow!("only decoders continue what they have read; leave it out"));
            }
            args.check_exits(&model.spec, &mut faults);
            if args.drafting() && !matches!(model.spec.head, Head::LanguageModel { .. }) {
                faults.add(args.drafting_option(), anyhow!(NOTHING_TO_DRAFT));
            }
            let limit = model.spec.context;
            if let Some(context) = args.context.filter(|&context| context == 0 || context > limit) {
                faults.add("context", CompileError::Context { context, limit });
            }
        }
        faults.check("out", atomic::check_file(&args.out, ARTIFACT_MAGIC));
        if let Some(directory) = &args.page {
            faults.check("page", atomic::check_directory(directory));
            if let Some(target) = &target {
                faults.check("page", page::check_layout(&target.name, target.layout));
            }
            if let Some(model) = &model {
                faults.check("page", page::check_model(&model.spec));
            }
        }
        if let Some(folder) = &args.firmware {
            faults.check("firmware", firmware::check(folder));
        }
        let predicted = match (&model, &target, known) {
            (Some(model), Some(target), Known::Planned(_)) => args.predicted(model, target),
            _ => Prediction::default(),
        };
        let makes = model.map(|mut model| {
            model.spec.context = args.context.unwrap_or(model.spec.text_context());
            model
        });
        let options = target.map(|target| CompileOptions {
            invocation: run.invocation.clone(),
            model: args.model.to_path_buf(),
            out: args.out.clone(),
            target,
            context: args.context,
            device_only: args.device_only,
            page: path(&args.page),
            firmware: path(&args.firmware),
            additions: Additions {
                continuations: path(&args.continuations),
                draft: path(&args.draft),
                drafts: usize::from(args.drafts.unwrap_or(DRAFTED)),
                kv: args.kv.unwrap_or_default(),
                streaming: args.streaming.streaming(),
                constraint: args.constraint.constraint(),
                prefix: path(&args.prefix),
                exits: args.exits(),
                system: args.system.clone(),
                seed: run.seed,
            },
        });
        Resolved::new(options, makes, faults).predicting(predicted)
    }

    fn run(options: &CompileOptions, shell: &Shell) -> anyhow::Result<Outcome> {
        shell.status("Compiling", format_args!("{} for {}", options.model.display(), options.target.name));
        match compile_directory(options, shell) {
            Ok(report) => {
                shell.status("Wrote", options.out.display());
                if let Some(directory) = &options.page {
                    shell.status("Wrote", directory.display());
                    shell.note(format_args!("to open the page: {}", page::serving(directory)));
                }
                if let Some(folder) = &options.firmware {
                    shell.status("Wrote", folder.display());
                }
                Outcome::passed(&report)
            }
            Err(StageError::Compile(CompileError::DoesNotFit(answer))) => Outcome::failed(answer.as_ref()),
            Err(error) => Err(error.into()),
        }
    }

    fn summary(report: &Figures<'_>) -> Option<String> {
        Some(format!("for {}, RAM {}", report.text("target")?, report.count("ram_bytes")?))
    }
}
