//! The most bytes that the weights of a model may take: the bound on `--scheme auto`.
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
