//! The options of `slmc quantize`; their comments are the help.

use crate::model::scheme::Preset;
use crate::quantize::budget::Budget;
use crate::quantize::calibration::CalibrationText;
use crate::quantize::method::Method;
use crate::quantize::policy::{Activations, Keep, Mix};
use crate::stages::arguments::size::Size;
use crate::stages::arguments::training::RetrainArgs;
use crate::stages::arguments::{DenseModel, ReadFile, TargetName, WriteFile};
use anyhow::bail;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

/// Round a checkpoint's weights to 8 and 4 bits
///
/// Reads a Hugging Face directory and writes a quantized one: integers, scales, tokenizer, and slmc.json, which says
/// how it was made. Scales are searched to keep what the calibration text shows to matter. `slmc compile` takes the
/// result; `slmc eval` measures it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  slmc quantize models/tales-6m --scheme mixed -o out/mixed\n  slmc quantize models/tales-6m --scheme w4 --keep embedding=w8 --keep 'layers.0.*=w8' -o out/w4"
)]
pub struct Args {
    /// Hugging Face directory: config.json, model.safetensors or its shards, tokenizer.json
    #[arg(value_name = "DIR")]
    pub(super) model: DenseModel,

    /// Which matrices get how many bits
    ///
    /// w8: every matrix 8 bits. mixed: feed-forward networks 4 bits, everything else 8. w4: linears, token table and
    /// LM head 4 bits; position and type tables, pooler, classifier and MLM transform 8. auto: chosen for every matrix
    /// by measurement, within --budget or --bits-per-weight.
    #[arg(long, value_name = "w8|mixed|w4|auto", required_unless_present = "sweep")]
    pub(super) scheme: Option<Scheme>,

    /// Most bytes that weights may take on the target, everything counted: 3527680, or 4MiB
    #[arg(long, value_name = "BYTES", conflicts_with = "bits_per_weight")]
    pub(super) budget: Option<Size>,

    /// The same per parameter: 8 · bytes / parameters
    #[arg(long, value_name = "X")]
    pub(super) bits_per_weight: Option<f64>,

    /// Measure the whole frontier, from 4 bits everywhere to 8 bits everywhere, and write no model
    ///
    /// Prints bytes against cost for the best mixes and the named ones, and what every matrix costs alone.
    #[arg(long, conflicts_with_all = ["scheme", "budget", "bits_per_weight", "qat", "out"])]
    pub(super) sweep: bool,

    /// Where --sweep draws the frontier; an existing chart of slmc is replaced
    #[arg(long, value_name = "FILE", requires = "sweep", default_value = "sweep.svg")]
    pub(super) chart: WriteFile,

    /// Give the matrices that a pattern matches another scheme; repeatable, the last match wins
    ///
    /// PATTERN is a glob over names such as layers.3.attn.q, embed.token, head.lm, or one of embedding, attention,
    /// conv (short convolutions), ffn, head. SCHEME is w8 or w4; of a token table or LM head also w8:ROWS+w4, the first
    /// ROWS tokens 8 bits and the others 4, since vocabularies begin with their frequent tokens. w4.g64 and w3.g32 take fewer
    /// bytes than w4, and run on the portable kernel alone: for --target generic.
    #[arg(long, value_name = "PATTERN=SCHEME")]
    pub(super) keep: Vec<Keep>,

    /// Give the linears that a pattern matches wider inputs on the device; repeatable, the last match wins
    ///
    /// a8: one scale per token and 8 bits. a16: 16 bits, as two passes of the same kernels over the same weights; the
    /// weights take no more bytes. Without the option `auto` decides for every matrix; with the other schemes a decoder
    /// takes 16 bits throughout where 8 would err by more than 4e-4 of the outputs' energy on its calibration, or on 256
    /// tokens of a text that ships with slmc. '*=a8' keeps 8.
    #[arg(long, value_name = "PATTERN=a8|a16")]
    pub(super) activations: Vec<Activations>,

    /// How integers and scales are found
    ///
    /// rtn: to nearest on searched scales, without calibration. search: the same with scales that weigh every input by
    /// its mean square over the calibration text. gptq: with the second moments of the inputs, layer by layer, later
    /// matrices making up for errors of earlier ones.
    #[arg(long, value_name = "rtn|search|gptq", default_value = "gptq")]
    pub(super) method: Method,

    /// Move outliers of activations into weights before rounding, where that changes nothing in exact arithmetic
    ///
    /// From norms into the linears that read them, from up into down of gated networks, from value into output; never
    /// where a norm stands after its sum, never into a tied head.
    #[arg(long)]
    pub(super) equalize: bool,

    /// Text to calibrate with: plain text, or JSONL with --field
    ///
    /// Without it a decoder samples from itself, and an encoder uses the text that ships with slmc.
    #[arg(long, value_name = "TEXT")]
    pub(super) calibration: Option<ReadFile>,

    /// Take half of the calibration from the text and half from what a decoder samples from itself
    #[arg(long, requires = "calibration")]
    pub(super) mix_self: bool,

    /// Calibrate with about N tokens
    #[arg(long, value_name = "N", default_value = "16384")]
    pub(super) calibration_tokens: NonZeroUsize,

    /// Key of the text in every line of a JSONL file
    #[arg(long, value_name = "KEY")]
    pub(super) field: Option<String>,

    /// Target whose packing the reported sizes are for: a name of `slmc targets`, or a target file
    #[arg(long, value_name = "NAME", default_value = "generic")]
    pub(super) target: TargetName,

    /// Where calibration and training run: flex or ndarray
    #[arg(long, value_name = "NAME", default_value = "flex")]
    pub(super) device: String,

    /// After gptq, train integers, scales and norms on the grid, the checkpoint being the teacher
    ///
    /// N tokens per token of the calibration: over it and, for decoders, three times as many tokens that the model samples
    /// from itself. 0: not at all. Without it 16 for decoders of up to 32 M parameters, 0 for others.
    #[arg(long, value_name = "N", conflicts_with = "qat")]
    pub(super) tune: Option<usize>,

    /// Train integers and scales on the grid, from what --method has rounded, the checkpoint itself being the teacher
    #[arg(long, requires = "data")]
    pub(super) qat: bool,

    #[command(flatten)]
    pub(super) retrain: RetrainArgs,

    /// Directory to write; an existing one is replaced if slmc made it
    #[arg(short, long, value_name = "OUT", required_unless_present = "sweep")]
    pub(super) out: Option<PathBuf>,
}

/// What `--scheme` takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scheme {
    /// One of the mixes.
    Preset(Preset),
    /// Chosen by measurement.
    Auto,
}

impl FromStr for Scheme {
    type Err = UnknownScheme;

    fn from_str(text: &str) -> Result<Self, UnknownScheme> {
        if text == "auto" {
            return Ok(Scheme::Auto);
        }
        text.parse().map(Scheme::Preset).map_err(|_| UnknownScheme(text.to_owned()))
    }
}

/// A string that names no scheme.
#[derive(Debug, thiserror::Error)]
#[error("unknown scheme `{0}`; known: w8, mixed, w4, auto")]
pub(super) struct UnknownScheme(String);

impl Args {
    /// The mix that the options ask for.
    pub(super) fn mix(&self) -> anyhow::Result<Mix> {
        let budget = self.budget.map(|size| Budget::Bytes(size.bytes()));
        let Some(scheme) = self.scheme else {
            bail!("--sweep measures and makes no model; pass --scheme to make one");
        };
        match (scheme, budget.or(self.bits_per_weight.map(Budget::BitsPerWeight))) {
            (Scheme::Preset(preset), None) => Ok(Mix::Preset(preset)),
            (Scheme::Auto, Some(budget)) => Ok(Mix::Auto(budget)),
            (Scheme::Auto, None) => {
                bail!("--scheme auto chooses within a budget; pass --budget BYTES or --bits-per-weight X")
            }
            (Scheme::Preset(preset), Some(_)) => bail!(
                "--budget and --bits-per-weight are for --scheme auto; {} takes the bytes it takes",
                preset.name()
            ),
        }
    }

    /// What to calibrate with.
    pub(super) fn source(&self, seed: u64) -> CalibrationText {
        let field = self.field.clone();
        match &self.calibration {
            Some(path) if self.mix_self => CalibrationText::Mixed { path: path.to_path_buf(), field, seed },
            Some(path) => CalibrationText::File { path: path.to_path_buf(), field },
            None => CalibrationText::Default { seed },
        }
    }
}
