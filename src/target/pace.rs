//! How long a device takes for a token, by the rates that its file states: the time in which weights can be read, or
//! multiplied. A real device takes longer.

use super::{MacsPerCycle, Target};
use crate::model::size::StoredTensor;
use crate::model::spec::ModelSpec;
use slm_runtime::kernels::VectorStorage;

/// Picoseconds of a second.
const PICOSECONDS: f64 = 1e12;
/// Picoseconds of a millisecond.
pub const PER_MILLISECOND: f64 = 1e9;
/// Longest time of a tensor, 19 minutes: rates may be any number above 0, and sums over thousands of tensors stay below 2⁶³.
const LONGEST: u64 = 1 << 50;

impl MacsPerCycle {
    /// The rate of a storage, where it is stated.
    pub fn of(self, storage: VectorStorage) -> Option<f64> {
        match storage {
            VectorStorage::W8 | VectorStorage::W8S24 => self.w8,
            VectorStorage::W4G32 | VectorStorage::W4G32S24 => self.w4,
        }
    }
}

/// The rates of a device by which tensors have a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    bytes_per_s: Option<f64>,
    macs_per_cycle: Option<MacsPerCycle>,
    /// All cores together.
    cycles_per_s: f64,
}

impl Target {
    /// Its rates; `None` where they do not give a time to weights of 8 and of 4 bits.
    pub fn pace(&self) -> Option<Pace> {
        let multiplies =
            self.macs_per_cycle.filter(|rates| rates.w8.is_some() && rates.w4.is_some()).zip(self.clock_hz);
        let bytes_per_s = self.flash_bandwidth_bytes_per_s.map(|bytes| bytes as f64);
        (bytes_per_s.is_some() || multiplies.is_some()).then(|| Pace {
            bytes_per_s,
            macs_per_cycle: multiplies.map(|(rates, _)| rates),
            cycles_per_s: self.clock_hz.unwrap_or(0) as f64 * self.cores.unwrap_or(1) as f64,
        })
    }
}

impl Pace {
    /// The time of one token with a tensor, in picoseconds: to read it or to multiply it, whichever is longer; `passes` times
    /// where its inputs are wider than 8 bits.
    pub fn picoseconds(&self, spec: &ModelSpec, tensor: &StoredTensor, passes: u64) -> u64 {
        let reading = self.bytes_per_s.map(|rate| tensor.bytes_per_token(spec) as f64 / rate);
        let rate = self.macs_per_cycle.zip(VectorStorage::of(tensor.storage)).and_then(|(rates, of)| rates.of(of));
        let multiplying = rate.map(|rate| tensor.macs_per_token(spec) as f64 / rate / self.cycles_per_s);
        let seconds = reading.unwrap_or(0.0).max(multiplying.unwrap_or(0.0));
        passes.saturating_mul((seconds * PICOSECONDS).ceil() as u64).min(LONGEST)
    }
}
