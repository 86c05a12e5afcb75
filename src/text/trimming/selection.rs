//! Which tokens stay. Special tokens, bytes and characters always do; the rest are those that the text uses, and for a
//! smaller vocabulary the ones used least go first, one by one, each handing its count to the tokens that will spell it: the
//! two parts of its first merge, or the longest pieces. Only a token that no other one is merged from can go, so the kept ones
//! are closed at every step.

use super::vocabulary::{Model, Vocabulary};
use super::{KeptIds, TrimError};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// How many tokens stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Extent {
    /// Those that the text has at least so often.
    MinCount(u64),
    /// At most so many.
    Vocabulary(usize),
    /// As few as make up this share of the text's tokens.
    Coverage(f64),
}

/// Which tokens of single characters stay, where bytes do not spell them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Characters {
    /// Every one, so that no text becomes unknown that was not before.
    #[default]
    All,
    /// Those that the text uses; others become bytes, or the unknown token.
    Used,
}

/// The tokens that stay of a vocabulary whose ids occur `counts` times, with those of `named`, which the model's files name.
///
/// # Errors
/// [`TrimError::TooSmall`].
pub fn select(
    vocabulary: &Vocabulary,
    counts: &[u64],
    named: &BTreeSet<u32>,
    extent: Extent,
    characters: Characters,
) -> Result<KeptIds, TrimError> {
    let count = |id: u32| counts.get(id as usize).copied().unwrap_or(0);
    let mut fixed: BTreeSet<u32> = vocabulary.special.union(&vocabulary.bytes).chain(named).copied().collect();
    fixed.retain(|&id| (id as usize) < vocabulary.rows());
    match characters {
        Characters::All => fixed.extend(&vocabulary.characters),
        Characters::Used => fixed.extend(spelled_by(vocabulary, &count)),
    }
    if let Model::Unigram(lowest) = vocabulary.model {
        fixed.extend(lowest);
    }
    let fixed = closed(vocabulary, fixed);
    let least_count = if let Extent::MinCount(least) = extent { least.max(1) } else { 1 };
    let used = (0..vocabulary.rows() as u32).filter(|&id| count(id) >= least_count);
    let kept = closed(vocabulary, used.chain(fixed.iter().copied()).collect());
    let kept = match extent {
        Extent::MinCount(_) => kept,
        Extent::Vocabulary(size) if fixed.len() > size => {
            return Err(TrimError::TooSmall {
                path: vocabulary.path.clone(),
                asked: size,
                least: fixed.len(),
                all_characters: characters == Characters::All && vocabulary.characters.iter().any(|id| count(*id) == 0),
            });
        }
        Extent::Vocabulary(size) => {
            let mut removal = Removal::new(vocabulary, counts, &fixed, kept);
            while removal.kept.len() > size && removal.next().is_some() {}
            removal.kept
        }
        Extent::Coverage(share) => {
            let total: u64 = counts.iter().sum();
            let mut covered: u64 = kept.iter().map(|&id| count(id)).sum();
            let mut removal = Removal::new(vocabulary, counts, &fixed, kept);
            while let Some(next) = removal.least() {
                covered -= count(next);
                if (covered as f64) < share * total as f64 {
                    break;
                }
                removal.next();
            }
            removal.kept
        }
    };
    Ok(KeptIds::new(vocabulary, kept.into_iter().collect()))
}

/// Tokens of the single characters of every token that is used; for word pieces a character of a word that is taken apart may
/// stand at its beginning or within it.
fn spelled_by(vocabulary: &Vocabulary, count: &impl Fn(u32) -> u64) -> BTreeSet<u32> {
    let prefix = match &vocabulary.model {
        Model::WordPiece(prefix) => prefix.as_str(),
        Model::Bpe(_) | Model::Unigram(_) => "",
    };
    let mut characters = BTreeSet::new();
    for id in (0..vocabulary.rows() as u32).filter(|&id| count(id) > 0) {
        let spelling = vocabulary.spelling(id);
        for character in spelling.strip_prefix(prefix).unwrap_or(spelling).chars() {
            for form in [character.to_string(), format!("{prefix}{character}")] {
                characters.extend(vocabulary.ids.get(&form).filter(|id| vocabulary.characters.contains(id)));
            }
        }
    }
    characters
}

/// With all tokens that these may be merged from.
fn closed(vocabulary: &Vocabulary, mut ids: BTreeSet<u32>) -> BTreeSet<u32> {
    let mut open: Vec<u32> = ids.iter().copied().collect();
    while let Some(id) = open.pop() {
        for &(left, right) in vocabulary.merges_of(id) {
            open.extend([left, right].into_iter().filter(|part| ids.insert(*part)));
        }
    }
    ids
}

/// Tokens going one by one, the least used first; of equal ones the highest id, which was merged last.
struct Removal<'v> {
    vocabulary: &'v Vocabulary,
    fixed: &'v BTreeSet<u32>,
    kept: BTreeSet<u32>,
    /// Occurrences by id, with those of the tokens that are gone and spelled by it.
    counts: Vec<u64>,
    /// Merges of kept tokens that a token is a part of, by id.
    uses: Vec<u32>,
    /// Entries whose count is not that of their token any more are passed over.
    queue: BinaryHeap<(Reverse<u64>, u32)>,
}

impl<'v> Removal<'v> {
    fn new(vocabulary: &'v Vocabulary, counts: &[u64], fixed: &'v BTreeSet<u32>, kept: BTreeSet<u32>) -> Self {
        let mut all = counts.to_vec();
        all.resize(vocabulary.rows(), 0);
        let mut uses = vec![0; vocabulary.rows()];
        for &id in &kept {
            for &(left, right) in vocabulary.merges_of(id) {
                uses[left as usize] += 1;
                uses[right as usize] += 1;
            }
        }
        let mut removal = Removal { vocabulary, fixed, kept, counts: all, uses, queue: BinaryHeap::new() };
        let kept: Vec<u32> = removal.kept.iter().copied().collect();
        kept.into_iter().for_each(|id| removal.offer(id));
        removal
    }

    /// Puts a token into the queue, where it may go.
    fn offer(&mut self, id: u32) {
        if self.uses[id as usize] == 0 && self.kept.contains(&id) && !self.fixed.contains(&id) {
            self.queue.push((Reverse(self.counts[id as usize]), id));
        }
    }

    /// The token that goes next.
    fn least(&mut self) -> Option<u32> {
        while let Some(&(Reverse(count), id)) = self.queue.peek() {
            if self.kept.contains(&id) && self.counts[id as usize] == count {
                return Some(id);
            }
            self.queue.pop();
        }
        None
    }

    /// Removes it.
    fn next(&mut self) -> Option<u32> {
        let id = self.least()?;
        self.queue.pop();
        self.kept.remove(&id);
        for part in self.spelling_of(id) {
            self.counts[part as usize] += self.counts[id as usize];
            self.offer(part);
        }
        for &(left, right) in self.vocabulary.merges_of(id) {
            for part in [left, right] {
                self.uses[part as usize] -= 1;
                self.offer(part);
            }
        }
        Some(id)
    }

    /// The kept tokens that spell one that is gone.
    fn spelling_of(&self, id: u32) -> Vec<u32> {
        match &self.vocabulary.model {
            Model::Bpe(_) => {
                self.vocabulary.merges_of(id).first().map_or_else(Vec::new, |&(left, right)| vec![left, right])
            }
            Model::WordPiece(prefix) => self.pieces(self.vocabulary.spelling(id), prefix),
            Model::Unigram(_) => Vec::new(),
        }
    }

    /// The longest kept pieces of a piece, one after the other; none where they do not spell all of it.
    fn pieces(&self, spelling: &str, prefix: &str) -> Vec<u32> {
        let within = spelling.starts_with(prefix) && spelling.len() > prefix.len();
        let (mut rest, mut pieces) = (if within { &spelling[prefix.len()..] } else { spelling }, Vec::new());
        let mut inside = within;
        while !rest.is_empty() {
            let ends = rest.char_indices().map(|(at, character)| at + character.len_utf8()).rev();
            let longest = ends.into_iter().find_map(|end| {
                let form = if inside { format!("{prefix}{}", &rest[..end]) } else { rest[..end].to_owned() };
                let id = self.vocabulary.ids.get(&form).filter(|id| self.kept.contains(id))?;
                Some((*id, end))
            });
            let Some((id, end)) = longest else { return Vec::new() };
            pieces.push(id);
            (rest, inside) = (&rest[end..], true);
        }
        pieces
    }
}
