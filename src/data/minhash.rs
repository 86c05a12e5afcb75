//! MinHash: how alike two texts are, from a few numbers of each.
//!
//! ```text
//! shingles      every five words in a row, in small letters, punctuation left out; all words of a shorter text as one
//! h(s)          64 bits of a shingle
//! signature[i]  min over shingles of (aᵢ · h(s) + bᵢ) mod 2⁶⁴, its upper 32 bits;  aᵢ odd,  i = 0 … 127
//! estimate      share of equal places: E = Jaccard(A, B) = |A ∩ B| / |A ∪ B|,  standard error √(J (1 − J) / 128) ≤ 0.044
//! ```
//!
//! Texts are compared where they agree in all 8 places of one of 16 bands: with probability 1 − (1 − J⁸)¹⁶, which is 0.61 at
//! J = 0.7, 0.95 at 0.8 and 0.9999 at 0.9.

use slm_runtime::sample::random_u64;
use std::sync::LazyLock;

/// Words of a shingle.
const WORDS: usize = 5;
/// Places of a signature.
pub const HASHES: usize = 128;
/// Bands of a signature.
pub const BANDS: usize = 16;
/// Places of a band.
const ROWS: usize = HASHES / BANDS;
/// Where the multipliers are drawn: never changed, so that reports of different days can be compared.
const STREAM: u64 = 0x6D69_6E68_6173_6800;

/// (aᵢ, bᵢ)
static MAPS: LazyLock<Vec<(u64, u64)>> = LazyLock::new(|| {
    let map = |index: u64| (random_u64(STREAM, 2 * index) | 1, random_u64(STREAM, 2 * index + 1));
    (0..HASHES as u64).map(map).collect()
});

/// The signature of a text.
pub type Signature = [u32; HASHES];

/// 64 bits of some bytes: FNV-1a, then mixed so that every bit depends on all of them.
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3));
    random_u64(fnv, 0)
}

/// The hashes of a text's shingles, ascending, each once.
pub fn shingles(text: &str) -> Vec<u64> {
    let words: Vec<u64> = text
        .split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| hash(word.to_lowercase().as_bytes()))
        .collect();
    // A shingle is its words in their order.
    let joined = |words: &[u64]| words.iter().fold(STREAM, |hash, word| random_u64(hash ^ word, 1));
    let mut shingles: Vec<u64> = match words.len() {
        0 => vec![hash(text.as_bytes())],
        1..WORDS => vec![joined(&words)],
        _ => words.windows(WORDS).map(joined).collect(),
    };
    shingles.sort_unstable();
    shingles.dedup();
    shingles
}

/// The signature of a text's shingles.
pub fn signature(shingles: &[u64]) -> Signature {
    let mut signature = [u64::MAX; HASHES];
    for &shingle in shingles {
        for (least, (a, b)) in signature.iter_mut().zip(MAPS.iter()) {
            *least = (*least).min(a.wrapping_mul(shingle).wrapping_add(*b));
        }
    }
    signature.map(|least| (least >> 32) as u32)
}

/// The share of equal places.
pub fn similarity(a: &Signature, b: &Signature) -> f64 {
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / HASHES as f64
}

/// The hash of one band.
pub fn band(signature: &Signature, band: usize) -> u64 {
    signature[band * ROWS..(band + 1) * ROWS]
        .iter()
        .fold(band as u64, |hash, part| random_u64(hash ^ u64::from(*part), 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn jaccard(a: &[u64], b: &[u64]) -> f64 {
        let both = a.iter().filter(|shingle| b.binary_search(shingle).is_ok()).count();
        both as f64 / (a.len() + b.len() - both) as f64
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

        #[test]
        fn the_estimate_is_within_five_standard_errors(
            seed in any::<u64>(), shared in 1usize..400, own in 0usize..200, other in 0usize..200,
        ) {
            let draw = |from: usize, count: usize| -> Vec<u64> {
                (from..from + count).map(|index| random_u64(seed, index as u64)).collect()
            };
            let sorted = |mut hashes: Vec<u64>| { hashes.sort_unstable(); hashes };
            let a = sorted([draw(0, shared), draw(1000, own)].concat());
            let b = sorted([draw(0, shared), draw(2000, other)].concat());
            let exact = jaccard(&a, &b);
            let estimate = similarity(&signature(&a), &signature(&b));
            let error = (exact * (1.0 - exact) / HASHES as f64).sqrt();
            prop_assert!((estimate - exact).abs() <= 5.0 * error + 1e-9, "{estimate} for {exact}");
        }
    }

    #[test]
    fn shingles_are_five_words_whatever_stands_between() {
        assert_eq!(shingles("One, two three four five six").len(), 2);
        assert_eq!(shingles("one two\nTHREE four -- five six!"), shingles("One, two three four five six"));
        assert_eq!((shingles("a b").len(), shingles("!?").len()), (1, 1));
        assert_ne!(shingles("a b"), shingles("b a"));
        assert_ne!(shingles("!?"), shingles("?!"));
        let text: String = (0..60).map(|n| format!("word{n} ")).collect();
        let changed = text.replace("word30 ", "other ");
        let exact = jaccard(&shingles(&text), &shingles(&changed));
        assert!((exact - 51.0 / 61.0).abs() < 1e-12, "{exact}");
    }
}
