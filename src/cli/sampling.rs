//! How tokens are chosen, for `slmc generate` and `slmc chat`: as the model's makers recommend, unless an option says
//! otherwise.

use crate::model::generation::{in_parts, sampling_words};
use crate::shell::Shell;
use slm_runtime::sample::Sampling;

/// Heading of the options that choose tokens.
pub(super) const SAMPLING: &str = "Sampling";

/// Options of the sampler.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = SAMPLING)]
pub(super) struct SamplingArgs {
    /// 0: likeliest token, 1: as predicted [default: the model's, else 0]
    ///
    /// Between them likelier tokens are drawn more often than the model predicts. Draws follow from --seed. The model's
    /// own settings are those of generation_config.json, which an artifact carries.
    #[arg(long, value_name = "T", value_parser = temperature)]
    temperature: Option<f32>,

    /// Draw from the K likeliest tokens only, 0: all [default: the model's, else 0]
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,

    /// Draw within this share of probability [default: the model's, else 1]
    ///
    /// From the likeliest tokens that together have it.
    #[arg(long, value_name = "P", value_parser = above_zero)]
    top_p: Option<f64>,

    /// Draw tokens at least this share as likely as the likeliest [default: the model's, else 0]
    #[arg(long, value_name = "P", value_parser = share)]
    min_p: Option<f64>,

    /// Makes tokens less likely that the text has, 1: none [default: the model's, else 1]
    ///
    /// Positive logits are divided by it, negative ones multiplied; the prompt counts.
    #[arg(long, value_name = "R", value_parser = penalty)]
    repetition_penalty: Option<f32>,
}

impl SamplingArgs {
    /// As the runtime takes them, over a model's own settings.
    pub(super) fn over(&self, own: &Sampling) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(own.temperature),
            top_k: self.top_k.unwrap_or(own.top_k),
            top_p: self.top_p.map_or(own.top_p, |share| in_parts(share).max(1)),
            min_p: self.min_p.map_or(own.min_p, in_parts),
            repetition_penalty: self.repetition_penalty.unwrap_or(own.repetition_penalty),
        }
    }

    /// Says which settings are used, where they are not the plain choice of the likeliest token.
    pub(super) fn say(&self, own: &Sampling, used: &Sampling, shell: &Shell) {
        if *used == Sampling::GREEDY {
            return;
        }
        match *own == Sampling::GREEDY {
            true => shell.detail("Sampling", sampling_words(used)),
            false if used == own => shell.note(format_args!(
                "tokens are chosen as the model's generation_config.json says: {}; --temperature 0 takes the likeliest",
                sampling_words(used)
            )),
            false => shell.note(format_args!(
                "tokens are chosen by the options over the model's generation_config.json: {}",
                sampling_words(used)
            )),
        }
    }
}

fn number<T: std::str::FromStr>(text: &str, fits: impl Fn(&T) -> bool, expected: &str) -> Result<T, String> {
    let value: T = text.parse().map_err(|_| "not a number".to_owned())?;
    if fits(&value) { Ok(value) } else { Err(format!("expected {expected}")) }
}

fn temperature(text: &str) -> Result<f32, String> {
    let usable = |value: &f32| *value == 0.0 || (0.001..=1000.0).contains(value);
    number(text, usable, "0, or a number from 0.001 to 1000")
}

fn above_zero(text: &str) -> Result<f64, String> {
    number(text, |value: &f64| *value > 0.0 && *value <= 1.0, "a number above 0, up to 1")
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    number(text, |value: &f64| (0.0..=1.0).contains(value), "a number from 0 to 1")
}

fn penalty(text: &str) -> Result<f32, String> {
    number(text, |value: &f32| (0.01..=100.0).contains(value), "a number from 0.01 to 100")
}
