//! The options of `slmc quantize`; their comments are the help.

use crate::model::scheme::Preset;
use crate::quantize::budget::{Bounds, Budget};
use crate::quantize::calibration::CalibrationText;
use crate::quantize::method::Method;
use crate::quantize::policy::{Activations, Keep, SchemeSource};
use crate::stages::arguments::WriteFile;
use crate::stages::arguments::groups::{
    BackendArg, CALIBRATION, CalibrationArgs, MODEL_AND_OUTPUT, ModelArg, NumericsArg, ROUNDING, SCHEMES, TRAINING,
    TargetArg, TextArgs,
};
use crate::stages::arguments::size::Size;
use crate::stages::arguments::training::{RetrainArgs, with_defaults};
use crate::train::settings::Settings;
use anyhow::{bail, ensure};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

/// Round a checkpoint's weights to 8 and 4 bits
///
/// Reads a Hugging Face directory and writes a quantized one: integers, scales, tokenizer, and slmc.json, which says
/// how it was made. Scales and integers are chosen to keep the outputs on the calibration text. `slmc compile` takes
/// the result; `slmc eval` measures it.
#[derive(Debug, clap::Args)]
#[command(
    mut_args(with_defaults(&Settings::QAT)),
    after_help = "\
Examples:
  slmc quantize models/tales-6m --scheme mixed -o out/mixed
  slmc quantize models/tales-6m --scheme auto --budget 4MiB -o out/auto
  slmc quantize models/tales-6m --scheme auto --target cortex-a76 --ram 8MiB -o out/auto
  slmc quantize models/tales-6m --scheme w4 --keep embedding=w8 -o out/w4
  slmc quantize models/tales-6m --sweep --chart out/sweep.svg"
)]
pub struct Args {
    #[command(flatten)]
    pub(super) model: ModelArg,

    #[command(flatten)]
    pub(super) schemes: SchemeArgs,

    #[command(flatten)]
    pub(super) rounding: RoundingArgs,

    #[command(flatten)]
    pub(super) calibration: CalibrationArgs,

    /// Half from the text, half from the model itself
    ///
    /// For decoders: half of the tokens are sampled from the model.
    #[arg(long, requires = "calibration", help_heading = CALIBRATION)]
    pub(super) mix_self: bool,

    /// Calibrate with about N tokens
    #[arg(long, value_name = "N", default_value = "16384", help_heading = CALIBRATION)]
    pub(super) calibration_tokens: NonZeroUsize,

    #[command(flatten)]
    pub(super) text: TextArgs,

    /// Train after gptq, N tokens a calibration token
    ///
    /// Integers, scales and norms are trained on the grid, the checkpoint being the teacher. N tokens per token of the
    /// calibration: over it and, for decoders, up to three times as many tokens that the model samples from itself. 0: no
    /// training. Without it 16 for decoders of up to 32 M parameters, 0 for others.
    #[arg(long, value_name = "N", conflicts_with = "qat", help_heading = TRAINING)]
    pub(super) tune: Option<usize>,

    /// Quantization-aware training on --data
    ///
    /// Trains integers and scales on the grid, from the values that --method has rounded, the checkpoint being the
    /// teacher.
    #[arg(long, requires = "data", help_heading = TRAINING)]
    pub(super) qat: bool,

    #[command(flatten)]
    pub(super) retrain: RetrainArgs,

    #[command(flatten)]
    pub(super) target: TargetArg,

    #[command(flatten)]
    pub(super) backend: BackendArg,

    #[command(flatten)]
    pub(super) numerics: NumericsArg,

    /// Directory to write; replaced if slmc made it
    #[arg(short, long, value_name = "OUT", required_unless_present = "sweep", help_heading = MODEL_AND_OUTPUT)]
    pub(super) out: Option<PathBuf>,
}

/// Which matrix gets how many bits.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = SCHEMES)]
pub(super) struct SchemeArgs {
    /// Bits of every matrix: a preset, or auto within a budget
    ///
    /// w8: every matrix 8 bits. mixed: feed-forward networks 4 bits, everything else 8. w4: linears, token table and LM
    /// head 4 bits; position and type tables, pooler, classifier and MLM transform 8. auto: chosen for every matrix by
    /// measurement, within --budget, --bits-per-weight, --ram or --latency.
    #[arg(long, value_name = "w8|mixed|w4|auto", required_unless_present = "sweep")]
    pub(super) scheme: Option<Scheme>,

    /// Weight budget in bytes, all tensors counted: 3527680, or 4MiB
    ///
    /// For --scheme auto; the bytes are those on the target.
    #[arg(long, value_name = "BYTES", conflicts_with = "bits_per_weight")]
    pub(super) budget: Option<Size>,

    /// Weight budget in bits per parameter, all tensors counted
    ///
    /// For --scheme auto: 8 · bytes / parameters.
    #[arg(long, value_name = "X")]
    pub(super) bits_per_weight: Option<f64>,

    /// Most RAM that the model takes on the target
    ///
    /// For --scheme auto: arena, key-value cache and stack as `compile` plans them at --context, and where the target states
    /// no flash_bytes also the artifact, which is mapped into RAM.
    #[arg(long, value_name = "SIZE")]
    pub(super) ram: Option<Size>,

    /// Most milliseconds of a token on the target
    ///
    /// For --scheme auto, of a decoder: the time in which the target reads the weights of a token, or multiplies them, by the
    /// rates that it states (`slmc targets NAME`). A real device takes longer.
    #[arg(long, value_name = "MS")]
    pub(super) latency: Option<f64>,

    /// Context that --ram and --latency plan for [default: the model's]
    #[arg(long, value_name = "N")]
    pub(super) context: Option<usize>,

    /// Another scheme for the matrices that match PATTERN
    ///
    /// Repeatable, the last match wins. PATTERN is a glob over names such as layers.3.attn.q, embed.token, head.lm, or
    /// one of embedding, attention, conv (short convolutions), ffn, head. SCHEME is w8 or w4; of a token table or LM
    /// head also w8:ROWS+w4, the first ROWS tokens 8 bits and the others 4, since vocabularies begin with their
    /// frequent tokens. w4.g64 and w3.g32 take fewer bytes than w4, and run on the portable kernel alone: for --target
    /// generic.
    #[arg(long, value_name = "PATTERN=SCHEME")]
    pub(super) keep: Vec<Keep>,

    /// Activation width of the linears matching PATTERN
    ///
    /// Repeatable, the last match wins. a8: one scale per token and 8 bits. a16: 16 bits, as two passes of the same
    /// kernels over the same weights; the weights take no more bytes. Without the option `auto` decides for every
    /// matrix; with the other schemes a decoder takes 16 bits throughout where 8 would err by more than 4e-4 of the
    /// outputs' energy on its calibration, or on 256 tokens of a text that ships with slmc. '*=a8' keeps 8.
    #[arg(long, value_name = "PATTERN=a8|a16")]
    pub(super) activations: Vec<Activations>,

    /// Measure the whole frontier of assignments, and write no model
    ///
    /// From 4 bits everywhere to 8 bits everywhere. Prints bytes against cost for the best assignments and the presets,
    /// and the cost of every matrix alone.
    #[arg(long, conflicts_with_all = ["scheme", "budget", "bits_per_weight", "ram", "latency", "context", "activations", "equalize", "exact_f16", "tune", "qat", "out"])]
    pub(super) sweep: bool,

    /// Chart that --sweep draws
    ///
    /// An existing chart of slmc is replaced.
    #[arg(long, value_name = "FILE", requires = "sweep", default_value = "sweep.svg")]
    pub(super) chart: WriteFile,
}

/// How integers are found.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = ROUNDING)]
pub(super) struct RoundingArgs {
    /// Solver: keep, rtn, search or gptq
    ///
    /// keep: the integers of a model that another tool has packed (GPTQ, AWQ, compressed-tensors …), where they fit the
    /// scheme of their matrix; the report says what that loses, and which matrices are rounded as by rtn. rtn: to nearest on searched scales, without calibration. search: the same with scales that weigh every input by
    /// its mean square over the calibration text. gptq: with the second moments of the inputs, layer by layer, later
    /// matrices compensating for the errors of earlier ones.
    #[arg(long, value_name = "METHOD", default_value = "gptq")]
    pub(super) method: Method,

    /// Move activation outliers into weights before rounding
    ///
    /// Where that changes nothing in exact arithmetic: from norms into the linears that read them, from up into down of
    /// gated networks, from value into output; never for post-norm layers, never into a tied head.
    #[arg(long)]
    pub(super) equalize: bool,

    /// Scales that tools with half-precision scales have to the bit
    ///
    /// Row scales are chosen so that their products with all multipliers are IEEE halves: what `slmc export` writes for
    /// llama.cpp and transformers then stands for the same weights, bit for bit. Costs nothing on the device, and little
    /// quality.
    #[arg(long)]
    pub(super) exact_f16: bool,
}

/// Values of `--scheme`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scheme {
    /// One of the assignments.
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
    /// What the options bound an allocation by.
    pub(super) fn bounds(&self) -> Bounds {
        let SchemeArgs { budget, bits_per_weight, ram, latency, context, .. } = self.schemes;
        let budget = budget.map(|size| Budget::Bytes(size.bytes()));
        Bounds {
            budget: budget.or(bits_per_weight.map(Budget::BitsPerWeight)),
            ram: ram.map(Size::bytes),
            latency_ms: latency,
            context,
        }
    }

    /// Where the options take schemes from.
    pub(super) fn scheme_source(&self) -> anyhow::Result<SchemeSource> {
        let (bounds, given) = (self.bounds(), self.bounds().options());
        let Some(scheme) = self.schemes.scheme else {
            bail!("--sweep measures and makes no model; pass --scheme to make one");
        };
        ensure!(
            bounds.context.is_none() || bounds.of_target(),
            "--context is what --ram and --latency plan for; without them the context is chosen by `compile`"
        );
        match (scheme, given.is_empty()) {
            (Scheme::Preset(preset), true) => Ok(SchemeSource::Preset(preset)),
            (Scheme::Auto, false) => Ok(SchemeSource::Auto(bounds)),
            (Scheme::Auto, true) => bail!(
                "--scheme auto chooses within a bound; pass --budget BYTES, --bits-per-weight X, --ram BYTES or --latency MS"
            ),
            (Scheme::Preset(preset), false) => bail!(
                "--budget, --bits-per-weight, --ram and --latency are for --scheme auto; {} takes what it takes",
                preset.name()
            ),
        }
    }

    /// Calibration text.
    pub(super) fn source(&self, seed: u64) -> CalibrationText {
        match &self.calibration.calibration {
            Some(path) if self.mix_self => {
                CalibrationText::Mixed { path: path.to_path_buf(), form: self.text.form(), seed }
            }
            Some(path) => CalibrationText::File { path: path.to_path_buf(), form: self.text.form() },
            None => CalibrationText::Default { seed },
        }
    }
}
