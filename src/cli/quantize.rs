//! `slmc quantize`

use super::check_memory;
use super::global::Global;
use super::training::RetrainArgs;
use crate::model::device::device;
use crate::model::scheme::Preset;
use crate::model::spec::ModelSpec;
use crate::quantize::calibration::Source;
use crate::quantize::directory::{Options, QuantizeReport, memory_estimate, quantize_directory};
use crate::quantize::method::Method;
use crate::quantize::policy::{Activations, Keep, assign, widths};
use crate::recipe::Known;
use crate::recipe::target::Target;
use crate::shell::{ExitStatus, Shell};
use crate::train::settings::Settings;
use crate::train::start::context_of;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Round a checkpoint's weights to 8 and 4 bits
///
/// Reads a Hugging Face directory and writes a quantized one: integers, scales, tokenizer, and slmc.json, which says
/// how it was made. Scales are searched to keep what the calibration text shows to matter. `slmc compile` takes the
/// result; `slmc eval` measures it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  slmc quantize models/tales-6m --scheme mixed -o out/mixed\n  slmc quantize models/tales-6m --scheme w4 --keep embedding=w8 --keep 'layers.0.*=w8' -o out/w4"
)]
pub(super) struct Args {
    /// Hugging Face directory: config.json, model.safetensors or its shards, tokenizer.json
    #[arg(value_name = "DIR")]
    model: PathBuf,

    /// Which matrices get how many bits
    ///
    /// w8: every matrix 8 bits. mixed: feed-forward networks 4 bits, everything else 8. w4: linears, token table and
    /// LM head 4 bits; position and type tables, pooler, classifier and MLM transform 8.
    #[arg(long, value_name = "w8|mixed|w4")]
    scheme: Preset,

    /// Give the matrices that a pattern matches another scheme; repeatable, the last match wins
    ///
    /// PATTERN is a glob over names such as layers.3.attn.q, embed.token, head.lm, or one of embedding, attention,
    /// conv (short convolutions), ffn, head. SCHEME is w8 or w4.
    #[arg(long, value_name = "PATTERN=SCHEME")]
    keep: Vec<Keep>,

    /// Give the linears that a pattern matches wider inputs on the device; repeatable, the last match wins
    ///
    /// a8: one scale per token and 8 bits, what every linear has otherwise. a16: 16 bits, as two passes of the same
    /// kernels over the same weights; the weights take no more bytes.
    #[arg(long, value_name = "PATTERN=a8|a16")]
    activations: Vec<Activations>,

    /// How integers and scales are found
    ///
    /// rtn: to nearest on searched scales, without calibration. search: the same with scales that weigh every input by
    /// its mean square over the calibration text. gptq: with the second moments of the inputs, layer by layer, later
    /// matrices making up for errors of earlier ones.
    #[arg(long, value_name = "rtn|search|gptq", default_value = "gptq", conflicts_with = "qat")]
    method: Method,

    /// Move outliers of activations into weights before rounding, where that changes nothing in exact arithmetic
    ///
    /// From norms into the linears that read them, from up into down of gated networks, from value into output; never
    /// where a norm stands after its sum, never into a tied head.
    #[arg(long, conflicts_with = "qat")]
    equalize: bool,

    /// Text to calibrate with: plain text, or JSONL with --field
    ///
    /// Without it a decoder samples from itself, and an encoder uses the text that ships with slmc.
    #[arg(long, value_name = "TEXT")]
    calibration: Option<PathBuf>,

    /// Take half of the calibration from the text and half from what a decoder samples from itself
    #[arg(long, requires = "calibration")]
    mix_self: bool,

    /// Calibrate with about N tokens
    #[arg(long, value_name = "N", default_value = "16384")]
    calibration_tokens: NonZeroUsize,

    /// Key of the text in every line of a JSONL file
    #[arg(long, value_name = "KEY")]
    field: Option<String>,

    /// Target whose packing the reported sizes are for: a name of `slmc targets`, or a target file
    #[arg(long, value_name = "NAME", default_value = "generic")]
    target: String,

    /// Where calibration and training run: flex or ndarray
    #[arg(long, value_name = "NAME", default_value = "flex")]
    device: String,

    /// Train the weights on the grid of their schemes, the checkpoint itself being the teacher
    #[arg(long, requires = "data")]
    qat: bool,

    #[command(flatten)]
    retrain: RetrainArgs,

    /// Directory to write; an existing one is replaced if slmc made it
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,
}

impl Args {
    /// What is wrong as far as configurations tell, and what the output will be.
    pub(super) fn check(&self, global: &Global, known: &Known) -> anyhow::Result<Option<ModelSpec>> {
        let spec = known.at(&self.model);
        if let Some(spec) = spec {
            assign(spec, self.scheme, &self.keep)?;
            widths(spec, &self.activations)?;
        }
        let context = spec.map_or(usize::MAX, |spec| spec.context);
        if self.qat {
            self.retrain.retrain(self.field.clone(), Settings::QAT, global, context).settings.check()?;
        }
        Ok(spec.cloned())
    }

    pub(super) fn run(&self, global: &Global, shell: &Shell) -> anyhow::Result<ExitStatus> {
        shell.result(&self.execute(global, shell)?)?;
        Ok(ExitStatus::Success)
    }

    /// The work, its report handed back.
    pub(super) fn execute(&self, global: &Global, shell: &Shell) -> anyhow::Result<QuantizeReport> {
        self.retrain.check(self.qat, "--qat", self.field.as_deref(), self.calibration.is_some())?;
        let target = Target::named(&self.target)?;
        let device = device(&self.device)?;
        check_memory(global, memory_estimate(&self.model, self.method, self.calibration_tokens.get())?, "quantizing")?;
        let context = context_of(&self.model)?;
        let source = match &self.calibration {
            Some(path) if self.mix_self => {
                Source::Mixed { path: path.clone(), field: self.field.clone(), seed: global.seed }
            }
            Some(path) => Source::File { path: path.clone(), field: self.field.clone() },
            None => Source::Default { seed: global.seed },
        };
        let options = Options {
            model: self.model.clone(),
            out: self.out.clone(),
            preset: self.scheme,
            keeps: self.keep.clone(),
            activations: self.activations.clone(),
            equalize: self.equalize,
            method: self.method,
            source,
            calibration_tokens: self.calibration_tokens.get(),
            target: target.name,
            layout: target.layout,
            qat: self.qat.then(|| self.retrain.retrain(self.field.clone(), Settings::QAT, global, context)),
        };
        shell.status("Quantizing", format_args!("{} to {}", self.model.display(), self.scheme.name()));
        let report = quantize_directory(&options, &device, shell)?;
        shell.status("Wrote", self.out.display());
        Ok(report)
    }
}
