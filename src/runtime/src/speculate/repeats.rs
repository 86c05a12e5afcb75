//! Drafts from the sequence itself: the longest run of last tokens that stood before, and what followed it there, at its
//! latest place. Free, and right where a text repeats names, code, records or what was asked.

use super::{Drafter, Draws};
use crate::session::SessionError;

/// Longest run that is looked for, and the shortest that counts.
const RUN: (usize, usize) = (6, 4);
/// Positions that are looked through, from the latest on.
const REACH: usize = 4096;

/// Drafts what followed the last tokens before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Repeats;

impl Repeats {
    /// The place after the latest of the longest earlier runs equal to the end of the sequence, and its length.
    fn place(sequence: &[u32]) -> Option<(usize, usize)> {
        let mut found = None;
        let mut longest = RUN.1 - 1;
        let least = sequence.len().saturating_sub(REACH);
        for end in (least.max(1)..sequence.len()).rev() {
            let run = sequence[..end].iter().rev().zip(sequence.iter().rev());
            let equal = run.take(RUN.0).take_while(|(a, b)| a == b).count();
            if equal > longest {
                (longest, found) = (equal, Some((end, equal)));
                if equal == RUN.0 {
                    break;
                }
            }
        }
        found
    }
}

impl Drafter for Repeats {
    fn draft(&mut self, sequence: &[u32], _: &Draws<'_>, drafts: &mut [u32]) -> Result<usize, SessionError> {
        let Some((place, run)) = Repeats::place(sequence) else { return Ok(0) };
        // A short run says little: 2 or 4 drafts, and as many as are asked for after one of the greatest length.
        let count = if run == RUN.0 { drafts.len() } else { drafts.len().min(2 * (run + 1 - RUN.1)) };
        // What follows may run into the end of the sequence, where it goes on with itself.
        let period = sequence.len() - place;
        for (offset, draft) in drafts[..count].iter_mut().enumerate() {
            *draft = sequence[place + offset % period];
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sampling;
    use std::vec;
    use std::vec::Vec;

    fn drafts(sequence: &[u32], most: usize) -> Vec<u32> {
        let mut out = vec![0; most];
        let draws = Draws { sampling: Sampling::GREEDY, seed: 0, index: 0, seen: &[] };
        let count = Repeats.draft(sequence, &draws, &mut out).expect("no session");
        out.truncate(count);
        out
    }

    #[test]
    fn the_longest_run_wins_and_of_equal_ones_the_latest() {
        let two_places = [0, 1, 2, 3, 4, 9, 0, 1, 2, 3, 5, 0, 1, 2, 3];
        assert_eq!(drafts(&two_places, 2), [5, 0], "two places with `0 1 2 3`: the later one");
        let longer = [8, 0, 1, 2, 3, 4, 9, 0, 1, 2, 3, 5, 8, 0, 1, 2, 3];
        assert_eq!(drafts(&longer, 2), [4, 9], "`8 0 1 2 3` is longer");
        assert_eq!(drafts(&[1, 2, 3], 4), [0; 0]);
        assert_eq!(drafts(&[7, 1, 2, 3, 8, 1, 2, 3], 4), [0; 0], "three tokens are no run");
        assert_eq!(drafts(&[1, 2, 3, 4, 5, 6, 9, 1, 2, 3, 4], 8), [5, 6], "a short run foretells little");
        assert_eq!(drafts(&[], 4), [0; 0]);
    }

    #[test]
    fn a_run_goes_on_with_itself() {
        assert_eq!(drafts(&[5, 6, 5, 6, 5, 6, 5, 6], 5), [5, 6, 5, 6, 5]);
        assert_eq!(drafts(&[4; 7], 3), [4, 4, 4]);
    }
}
