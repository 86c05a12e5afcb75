//! Choosing a token from logits with integers only: the same choice on every target. Greedy ties go to the lowest id;
//! sampling draws from a counter-based generator (SplitMix64) over fixed-point weights 2^-z in Q24. Logits of tokens that
//! the sequence has are divided or multiplied by a penalty before, one f32 operation each. Where only some tokens are
//! allowed, the others are left out before anything else, as if their logits were not there.

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
    /// Keeps tokens whose weight is at least this share of the largest, in 1/65536; 0 keeps all.
    pub min_p: u32,
    /// Divides positive logits of tokens that the sequence has, and multiplies negative ones; 1 changes none.
    pub repetition_penalty: f32,
}

/// The whole, for shares in 1/65536.
pub const ALL: u32 = 65_536;

impl Sampling {
    /// The largest logit.
    pub const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: 0, top_p: ALL, min_p: 0, repetition_penalty: 1.0 };

    /// Whether every parameter is in the range of docs/numerics.md.
    pub fn is_valid(&self) -> bool {
        let temperate = self.temperature == 0.0 || (0.001..=1000.0).contains(&self.temperature);
        let shares = (1..=ALL).contains(&self.top_p) && self.min_p <= ALL;
        temperate && shares && (0.01..=100.0).contains(&self.repetition_penalty)
    }
}

/// Words of the sets of tokens that [`choose_after`] and [`choose_among`] take, for a vocabulary of this size.
pub const fn seen_words(vocabulary: usize) -> usize {
    vocabulary.div_ceil(u32::BITS as usize)
}

/// Adds a token to a set: token t is bit t % 32 of word t / 32. Tokens beyond the set are left out.
pub fn mark(seen: &mut [u32], token: u32) {
    if let Some(word) = seen.get_mut((token / u32::BITS) as usize) {
        *word |= 1 << (token % u32::BITS);
    }
}

fn is_marked(seen: &[u32], token: usize) -> bool {
    const BITS: usize = u32::BITS as usize;
    seen.get(token / BITS).is_some_and(|word| word >> (token % BITS) & 1 == 1)
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

/// The token for draw `index` of stream `seed`; 0 for empty logits. Nothing was seen before: a repetition penalty changes
/// nothing.
pub fn choose(logits: &[f32], sampling: &Sampling, seed: u64, index: u64) -> u32 {
    pick(|| logits.iter().copied().enumerate(), sampling, seed, index).unwrap_or(0)
}

/// As [`choose`], after a sequence with the tokens of the set `seen`, which [`mark`] made.
pub fn choose_after(logits: &[f32], seen: &[u32], sampling: &Sampling, seed: u64, index: u64) -> u32 {
    if sampling.repetition_penalty == 1.0 {
        return choose(logits, sampling, seed, index);
    }
    let all = || logits.iter().copied().enumerate().map(penalised(seen, sampling));
    pick(all, sampling, seed, index).unwrap_or(0)
}

/// As [`choose_after`], among the tokens of the set `allowed`; `None` where it has none of the logits' tokens. The draw is
/// that of the allowed logits alone, in the order of their ids. Draws are counted: a token without an alternative that was
/// not drawn takes no `index`.
pub fn choose_among(
    logits: &[f32],
    allowed: &[u32],
    seen: &[u32],
    sampling: &Sampling,
    seed: u64,
    index: u64,
) -> Option<u32> {
    let all = || members(allowed).filter_map(|id| Some((id, *logits.get(id)?)));
    if sampling.repetition_penalty == 1.0 {
        return pick(all, sampling, seed, index);
    }
    pick(|| all().map(penalised(seen, sampling)), sampling, seed, index)
}

/// The tokens of a set, ascending.
fn members(set: &[u32]) -> impl Iterator<Item = usize> {
    let with_bits = |word: u32| Some(word).filter(|&word| word != 0);
    set.iter().enumerate().flat_map(move |(index, &word)| {
        let rest = core::iter::successors(with_bits(word), move |word| with_bits(word & (word - 1)));
        rest.map(move |word| index * u32::BITS as usize + word.trailing_zeros() as usize)
    })
}

/// Whether a set has a token of a range.
pub(crate) fn has_any(set: &[u32], range: core::ops::Range<usize>) -> bool {
    const BITS: usize = u32::BITS as usize;
    let in_word = |word: usize| {
        let (start, end) = (range.start.saturating_sub(word * BITS), (range.end - word * BITS).min(BITS));
        let bits = u32::MAX >> (BITS - (end - start)) << start;
        set.get(word).is_some_and(|word| word & bits != 0)
    };
    !range.is_empty() && (range.start / BITS..=(range.end - 1) / BITS).any(in_word)
}

/// Changes a logit with its id by the penalty where the set `seen` has it.
fn penalised(seen: &[u32], sampling: &Sampling) -> impl Fn((usize, f32)) -> (usize, f32) {
    let penalty = sampling.repetition_penalty;
    move |(id, logit)| match is_marked(seen, id) {
        false => (id, logit),
        true if logit > 0.0 => (id, logit / penalty),
        true => (id, logit * penalty),
    }
}

/// The choice among the logits that `logits` gives with their ids, the same every time; `None` of none.
fn pick<I: Iterator<Item = (usize, f32)>>(
    logits: impl Fn() -> I,
    sampling: &Sampling,
    seed: u64,
    index: u64,
) -> Option<u32> {
    let (mut best, mut top) = (None, f32::NEG_INFINITY);
    let mut count = 0;
    for (id, logit) in logits() {
        if logit > top || best.is_none() {
            (best, top) = (Some(id as u32), logit);
        }
        count += 1;
    }
    if sampling.temperature == 0.0 || count == 0 {
        return best;
    }
    let factor = LOG2E_Q15 as f32 / sampling.temperature;
    // Distance of a token below the largest logit.
    let depth = |logit: f32| round(((top - logit) * factor).min(Z_MAX as f32)) as u32;
    let depths = || logits().map(|(_, logit)| depth(logit));
    let weight_to = |cut: u32| -> u64 { depths().filter(|&z| z <= cut).map(|z| u64::from(exp2_q24(z))).sum() };
    let mut cut = Z_MAX;
    if sampling.top_k > 0 && (sampling.top_k as usize) < count {
        let kept = |cut: u32| depths().filter(|&z| z <= cut).count() as u64;
        cut = smallest_cut(cut, |cut| kept(cut) >= u64::from(sampling.top_k));
    }
    if sampling.top_p < ALL {
        let need = (u128::from(weight_to(cut)) * u128::from(sampling.top_p)).div_ceil(u128::from(ALL));
        cut = smallest_cut(cut, |cut| u128::from(weight_to(cut)) >= need);
    }
    // The largest weight is 2^24.
    let least = u64::from(sampling.min_p) << 8;
    let weight = |logit: f32| -> u64 {
        let z = depth(logit);
        let weight = u64::from(exp2_q24(z));
        if z <= cut && weight >= least { weight } else { 0 }
    };
    let total: u64 = logits().map(|(_, logit)| weight(logit)).sum();
    let target = ((u128::from(random_u64(seed, index)) * u128::from(total)) >> 64) as u64;
    let mut running = 0;
    for (id, logit) in logits() {
        running += weight(logit);
        if running > target {
            return Some(id as u32);
        }
    }
    best
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
