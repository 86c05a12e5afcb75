//! Hiding tokens of a sequence for a masked language model to name (Devlin et al. 2019): about 15 % of those that are not
//! special, of which 80 % become the mask, 10 % a random token, and 10 % stay as they are. Every draw is a function of the
//! stream's number and the place, so that a sequence is hidden alike whatever stands beside it.

use super::tokenizer::Tokenizer;
use slm_runtime::sample::random_u64;

const HIDDEN_PERCENT: u64 = 15;
const MASK_PERCENT: u64 = 80;
const RANDOM_PERCENT: u64 = 10;

/// What hides tokens of one vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masking {
    /// The id that stands for a hidden token.
    pub mask: u32,
    /// Ids that are never hidden.
    pub special: Vec<u32>,
    /// Random tokens are below.
    pub vocabulary: u64,
}

impl Masking {
    /// The masking of a tokenizer's `[MASK]` or `<mask>`; `None` where it has neither.
    pub fn of(tokenizer: &Tokenizer, vocabulary: usize) -> Option<Self> {
        let mask = tokenizer.token_id("[MASK]").or(tokenizer.token_id("<mask>"))?;
        Some(Masking { mask, special: tokenizer.special_ids(), vocabulary: vocabulary as u64 })
    }

    /// Hides tokens, at least one where any may be, and returns their places and ids.
    pub fn hide(&self, tokens: &mut [u32], stream: u64) -> Vec<(usize, u32)> {
        let may: Vec<usize> = (0..tokens.len()).filter(|&place| !self.special.contains(&tokens[place])).collect();
        let mut places: Vec<usize> =
            may.iter().copied().filter(|&place| random_u64(stream, 3 * place as u64) % 100 < HIDDEN_PERCENT).collect();
        if places.is_empty() && !may.is_empty() {
            places.push(may[(random_u64(stream, u64::MAX) % may.len() as u64) as usize]);
        }
        let hide = |place: usize| {
            let target = tokens[place];
            let draw = random_u64(stream, 3 * place as u64 + 1) % 100;
            if draw < MASK_PERCENT {
                tokens[place] = self.mask;
            } else if draw < MASK_PERCENT + RANDOM_PERCENT {
                tokens[place] = (random_u64(stream, 3 * place as u64 + 2) % self.vocabulary) as u32;
            }
            (place, target)
        };
        places.into_iter().map(hide).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_tokens_are_targets_and_special_ones_stay() {
        let masking = Masking { mask: 3, special: vec![1, 2], vocabulary: 100 };
        let (mut hidden, mut masked) = (0, 0);
        for stream in 0..200 {
            let original: Vec<u32> = [vec![1], (10..40).collect(), vec![2]].concat();
            let mut tokens = original.clone();
            let targets = masking.hide(&mut tokens, stream);
            assert!(!targets.is_empty() && tokens[0] == 1 && tokens[31] == 2);
            assert!(targets.iter().all(|&(place, target)| original[place] == target));
            hidden += targets.len();
            masked += tokens.iter().filter(|&&token| token == 3).count();
        }
        let (share, mask_share) = (hidden as f64 / 6000.0, masked as f64 / hidden as f64);
        assert!((0.12..0.18).contains(&share) && (0.74..0.86).contains(&mask_share), "{share} {mask_share}");
    }
}
