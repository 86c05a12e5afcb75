//! Choosing a token from logits with integers only: the same choice on every target. Greedy ties go to the lowest id;
//! sampling draws from a counter-based generator (SplitMix64) over fixed-point weights 2^-z in Q24.

use crate::numerics::{LOG2E_Q15, exp2_q24, round};

/// Sampling parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 selects the largest logit.
    pub temperature: f32,
    /// Keeps the k largest, ties with the k-th included; 0 keeps all.
    pub top_k: u32,
    /// Keeps the likeliest tokens whose weights reach this share, in 1/65536; 65536 keeps all.
    pub top_p: u32,
}

impl Sampling {
    /// The largest logit.
    pub const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 65_536 };
}

/// Draw number `index` of the stream `seed`: SplitMix64 as a counter.
pub fn random_u64(seed: u64, index: u64) -> u64 {
    let mut x = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Largest distinguished z, in log2 units of Q15.
const Z_MAX: u32 = 1 << 21;

/// The token for draw `index` of stream `seed`; 0 for empty logits.
pub fn choose(logits: &[f32], sampling: &Sampling, seed: u64, index: u64) -> u32 {
    let mut best = 0;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = id;
        }
    }
    if sampling.temperature == 0.0 || logits.is_empty() {
        return best as u32;
    }
    let top = logits[best];
    let factor = LOG2E_Q15 as f32 / sampling.temperature;
    // Distance of a token below the largest logit.
    let depth = |logit: f32| round(((top - logit) * factor).min(Z_MAX as f32)) as u32;
    let weight_to = |cut: u32| -> u64 {
        logits.iter().map(|&logit| depth(logit)).filter(|&z| z <= cut).map(|z| u64::from(exp2_q24(z))).sum()
    };
    let mut cut = Z_MAX;
    if sampling.top_k > 0 && (sampling.top_k as usize) < logits.len() {
        let kept = |cut: u32| logits.iter().filter(|&&logit| depth(logit) <= cut).count() as u64;
        cut = smallest_cut(cut, |cut| kept(cut) >= u64::from(sampling.top_k));
    }
    if sampling.top_p < 65_536 {
        let need = (u128::from(weight_to(cut)) * u128::from(sampling.top_p)).div_ceil(65_536);
        cut = smallest_cut(cut, |cut| u128::from(weight_to(cut)) >= need);
    }
    let target = ((u128::from(random_u64(seed, index)) * u128::from(weight_to(cut))) >> 64) as u64;
    let mut running = 0;
    for (id, &logit) in logits.iter().enumerate() {
        let z = depth(logit);
        if z <= cut {
            running += u64::from(exp2_q24(z));
            if running > target {
                return id as u32;
            }
        }
    }
    best as u32
}

/// The smallest cut in [0, most] for which a monotone condition holds; it holds for `most`.
fn smallest_cut(most: u32, holds: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}
