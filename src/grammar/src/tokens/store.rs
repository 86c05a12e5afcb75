//! Sets of tokens that states share. A state's tokens are a list where they are few, else a stored set with the ids on which
//! they differ: strings of different bounds, for example, differ in the tokens that close them.

use crate::error::{Limit, Result};
use crate::limits::{Work, check};
use slm_runtime::format::grammar::NO_BITSET;
use slm_runtime::sample::mark;
use std::collections::BTreeMap;

/// Most ids of a list.
const MOST_IDS: usize = 64;
/// Most sets; states beyond have their tokens tried at run time.
const MOST_SETS: usize = 1024;

/// How the section says which tokens a state allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mask {
    /// Every token is tried.
    pub(crate) walk: bool,
    pub(crate) bitset: u16,
    /// Place of the ids.
    pub(crate) list: u32,
    pub(crate) toggles: u8,
    pub(crate) checks: u8,
}

impl Mask {
    pub(crate) const WALK: Mask = Mask { walk: true, bitset: NO_BITSET, list: 0, toggles: 0, checks: 0 };
}

/// The sets and lists of a section.
pub(crate) struct Store {
    pub(crate) sets: Vec<Vec<u32>>,
    pub(crate) ids: Vec<u32>,
    lists: BTreeMap<Vec<u32>, u32>,
}

impl Store {
    /// A store with the set of all tokens that may be used.
    pub(crate) fn new(all: Vec<u32>) -> Self {
        Store { sets: vec![all], ids: Vec::new(), lists: BTreeMap::new() }
    }

    /// The form of these tokens: allowed ones, and ones that are tried. Both ascend.
    pub(crate) fn mask(&mut self, allowed: &[u32], tried: &[u32], work: &mut Work) -> Result<Mask> {
        if tried.len() > MOST_IDS {
            return Ok(Mask::WALK);
        }
        let (bitset, toggled) = if allowed.len() <= MOST_IDS {
            (NO_BITSET, allowed.to_vec())
        } else {
            let words = self.sets[0].len();
            let mut set = vec![0; words];
            allowed.iter().for_each(|&id| mark(&mut set, id));
            work.add(self.sets.len() * words)?;
            let apart = |other: &Vec<u32>| -> usize {
                other.iter().zip(&set).map(|(a, b)| (a ^ b).count_ones() as usize).sum()
            };
            let nearest = self.sets.iter().map(apart).enumerate().min_by_key(|&(number, apart)| (apart, number));
            match nearest {
                // A list that is shorter than a set of its own.
                Some((number, apart)) if apart <= MOST_IDS.min(words) => {
                    let differing = self.sets[number].iter().zip(&set).zip(0u32..).flat_map(|((a, b), word)| {
                        let bits = a ^ b;
                        (0..u32::BITS).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * u32::BITS + bit)
                    });
                    (number as u16, differing.collect())
                }
                _ if self.sets.len() >= MOST_SETS => return Ok(Mask::WALK),
                _ => {
                    self.sets.push(set);
                    check(Limit::Section, self.sets.len() * words * 4, work.limits.section_bytes)?;
                    (self.sets.len() as u16 - 1, Vec::new())
                }
            }
        };
        let list = self.list(&[&toggled[..], tried].concat());
        Ok(Mask { walk: false, bitset, list, toggles: toggled.len() as u8, checks: tried.len() as u8 })
    }

    fn list(&mut self, ids: &[u32]) -> u32 {
        if ids.is_empty() {
            return 0;
        }
        if let Some(&place) = self.lists.get(ids) {
            return place;
        }
        let place = self.ids.len() as u32;
        self.ids.extend(ids);
        self.lists.insert(ids.to_vec(), place);
        place
    }
}
