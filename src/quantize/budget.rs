//! What the weights of a model may take: the bounds on `--scheme auto`. Bytes of weights are one bound; memory and time of a
//! token are others, which hold on a target.
//!
//! ```text
//! bytes = bits per weight · parameters / 8
//! ```

/// Most bytes that weights may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// Most `weight_bytes`.
    Bytes(u64),
    /// 8 · bytes / parameters.
    BitsPerWeight(f64),
}

impl Budget {
    /// In bytes, for a model of so many parameters.
    pub fn bytes(self, parameters: u64) -> u64 {
        match self {
            Budget::Bytes(bytes) => bytes,
            Budget::BitsPerWeight(bits) => (bits * parameters as f64 / 8.0).floor() as u64,
        }
    }
}

/// Everything that bounds an allocation: one of them at least, and what holds of several is that all do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// On the weights.
    pub budget: Option<Budget>,
    /// Most bytes of RAM on the target.
    pub ram: Option<u64>,
    /// Most milliseconds of a token on the target.
    pub latency_ms: Option<f64>,
    /// Positions that the two are planned for; the model's own if absent.
    pub context: Option<usize>,
}

impl Bounds {
    /// Whether the target's plan counts.
    pub fn of_target(&self) -> bool {
        self.ram.is_some() || self.latency_ms.is_some()
    }

    /// The options that are given, for messages.
    pub fn options(&self) -> Vec<&'static str> {
        let given = [
            (matches!(self.budget, Some(Budget::Bytes(_))), "budget"),
            (matches!(self.budget, Some(Budget::BitsPerWeight(_))), "bits-per-weight"),
            (self.ram.is_some(), "ram"),
            (self.latency_ms.is_some(), "latency"),
        ];
        given.into_iter().filter(|(given, _)| *given).map(|(_, option)| option).collect()
    }
}
