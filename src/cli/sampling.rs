//! How tokens are chosen, for `slmc generate` and `slmc chat`.

use slm_runtime::sample::Sampling;

/// Heading of the options that choose tokens.
pub(super) const SAMPLING: &str = "Sampling";

/// Options of the sampler.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = SAMPLING)]
pub(super) struct SamplingArgs {
    /// 0: likeliest token, 1: as predicted
    ///
    /// Between them likelier tokens are drawn more often than the model predicts. Draws follow from --seed.
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = temperature)]
    temperature: f32,

    /// Draw from the K likeliest tokens only [default: all]
    #[arg(long, value_name = "K", default_value_t = 0, hide_default_value = true)]
    top_k: u32,

    /// Draw within this share of probability
    ///
    /// From the likeliest tokens that together have it.
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = share)]
    top_p: f64,
}

impl SamplingArgs {
    /// As the runtime takes them.
    pub(super) fn sampling(&self) -> Sampling {
        let top_p = (self.top_p * 65_536.0).round() as u32;
        Sampling { temperature: self.temperature, top_k: self.top_k, top_p }
    }
}

fn temperature(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| "not a number".to_owned())?;
    let usable = value == 0.0 || (0.001..=1000.0).contains(&value);
    if usable { Ok(value) } else { Err("expected 0, or a number from 0.001 to 1000".to_owned()) }
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if value > 0.0 && value <= 1.0 { Ok(value) } else { Err("expected a number above 0, up to 1".to_owned()) }
}
