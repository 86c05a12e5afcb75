//! The table of frequent continuations: of a text's runs of one to three tokens those after which one token is likely, with
//! that token, as [`slm_runtime::speculate::Continuations`] reads them. A run is kept for the tokens of the text that it
//! foretells and a shorter run does not, per byte that it takes.

use slm_runtime::speculate::MOST_TOKENS;

/// Fewest times that a continuation was seen.
const LEAST_COUNT: usize = 2;
/// Smallest share of a run's continuations that are the likeliest: below it a guess costs more than it gives.
const LEAST_SHARE: f64 = 1.0 / 3.0;
/// Most bytes of a table: a 32nd of the weights, within these bounds.
const LEAST_BYTES: usize = 16 << 10;
const MOST_BYTES: usize = 1 << 20;

/// Most bytes of a table beside weights of this size.
pub fn most_bytes(weight_bytes: u64) -> usize {
    usize::try_from(weight_bytes / 32).unwrap_or(MOST_BYTES).clamp(LEAST_BYTES, MOST_BYTES)
}

/// A run of tokens and what follows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    /// Tokens of the run, then the one that follows.
    tokens: Vec<u32>,
    /// How often it does, beyond what a shorter run foretells.
    gain: usize,
}

/// The section for the tokens of some texts, of at most `most_bytes`; `None` where nothing is frequent.
pub fn continuations_section(texts: &[Vec<u32>], vocabulary: usize, most_bytes: usize) -> Option<Vec<u8>> {
    let token_bytes = if vocabulary <= 1 << 16 { 2 } else { 4 };
    let mut shorter: Vec<Run> = Vec::new();
    let mut runs: Vec<Run> = Vec::new();
    for length in 1..=MOST_TOKENS {
        let found = frequent(texts, length, &shorter);
        runs.extend(found.iter().filter(|run| run.gain > 0).cloned());
        shorter = found;
    }
    // The most foretold tokens per byte first; ties by the run itself, so that the order is that of any machine.
    runs.sort_by(|a, b| {
        let worth = |run: &Run, other: &Run| run.gain * other.tokens.len();
        worth(b, a).cmp(&worth(a, b)).then_with(|| a.tokens.cmp(&b.tokens))
    });
    let mut left = most_bytes.saturating_sub(4 * (1 + MOST_TOKENS));
    runs.retain(|run| {
        let bytes = run.tokens.len() * token_bytes;
        let fits = bytes <= left;
        left -= if fits { bytes } else { 0 };
        fits
    });
    if runs.is_empty() {
        return None;
    }
    runs.sort_by(|a, b| (a.tokens.len(), &a.tokens).cmp(&(b.tokens.len(), &b.tokens)));
    let mut section = (token_bytes as u32).to_le_bytes().to_vec();
    for length in 1..=MOST_TOKENS {
        let count = runs.iter().filter(|run| run.tokens.len() == length + 1).count() as u32;
        section.extend(count.to_le_bytes());
    }
    for token in runs.iter().flat_map(|run| &run.tokens) {
        section.extend(&token.to_le_bytes()[..token_bytes]);
    }
    Some(section)
}

/// Runs of `length` tokens, ascending, with their likeliest continuation; of equally likely ones the lowest. `shorter` has
/// those of one token less.
fn frequent(texts: &[Vec<u32>], length: usize, shorter: &[Run]) -> Vec<Run> {
    let mut windows: Vec<&[u32]> = texts.iter().flat_map(|text| text.windows(length + 1)).collect();
    windows.sort_unstable();
    let mut runs = Vec::new();
    for group in windows.chunk_by(|a, b| a[..length] == b[..length]) {
        let counts = || group.chunk_by(|a, b| a == b).map(|same| (same[0][length], same.len()));
        let (mut next, mut count) = (0, 0);
        for (token, seen) in counts() {
            if seen > count {
                (next, count) = (token, seen);
            }
        }
        if count < LEAST_COUNT || (count as f64) < LEAST_SHARE * group.len() as f64 {
            continue;
        }
        let run = &group[0][..length];
        let known = shorter.binary_search_by(|other| other.tokens[..length - 1].cmp(&run[1..])).ok();
        let told = known.filter(|_| length > 1).map(|index| shorter[index].tokens[length - 1]);
        let told = told.map_or(0, |told| counts().find(|(token, _)| *token == told).map_or(0, |(_, seen)| seen));
        runs.push(Run { tokens: run.iter().copied().chain([next]).collect(), gain: count - told });
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use slm_runtime::speculate::Continuations;

    fn table(texts: &[&[u32]], most_bytes: usize) -> Option<Vec<u8>> {
        let texts: Vec<Vec<u32>> = texts.iter().map(|text| text.to_vec()).collect();
        continuations_section(&texts, 100, most_bytes)
    }

    #[test]
    fn frequent_runs_are_foretold_and_rare_ones_are_not() {
        let section = table(&[&[1, 2, 3, 1, 2, 3, 1, 2, 4, 9]], 1 << 16).expect("there are frequent runs");
        let read = Continuations::read(&section, 100).expect("sound");
        assert_eq!(read.after(&[1]), Some(2));
        assert_eq!(read.after(&[2]), Some(3));
        assert_eq!(read.after(&[4]), None, "seen once");
        assert_eq!(read.after(&[50]), None);
    }

    #[test]
    fn a_longer_run_is_kept_where_it_says_more() {
        // After 5 come 6 and 7 alike; which one, the token before says.
        let text: Vec<u32> = [[1, 5, 6], [2, 5, 7]].iter().cycle().take(40).flatten().copied().collect();
        let section = table(&[&text], 1 << 16).expect("there are frequent runs");
        let read = Continuations::read(&section, 100).expect("sound");
        assert_eq!((read.after(&[1, 5]), read.after(&[2, 5])), (Some(6), Some(7)));
        // 6 is always followed by 2: the run of two tokens adds nothing.
        assert_eq!(read.after(&[6]), Some(2));
        let records = |index: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| section[4 * index + byte]));
        assert!(records(3) == 0, "{} runs of three tokens", records(3));
    }

    #[test]
    fn a_table_keeps_to_its_bytes_with_the_most_frequent_first() {
        let mut text: Vec<u32> = (0..60).flat_map(|n| [n, n + 30, n]).collect();
        text.extend([90, 91].repeat(50));
        for most in [20, 24, 64, 400] {
            let Some(section) = table(&[&text, &text], most) else { continue };
            assert!(section.len() <= most, "{} bytes of {most}", section.len());
            let read = Continuations::read(&section, 100).expect("sound");
            assert_eq!(read.after(&[90]), Some(91), "{most} bytes");
        }
        assert_eq!(table(&[&[1, 2, 3]], 1 << 16), None);
        assert_eq!(table(&[], 1 << 16), None);
    }
}
