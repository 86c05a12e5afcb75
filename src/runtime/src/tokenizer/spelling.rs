//! Lookup of tokens by spelling, in a table sorted by bytes.

use crate::format::text_tables::{Spellings, number};

impl Spellings<'_> {
    /// Token of entry `index`.
    pub(super) fn id(&self, index: usize) -> u32 {
        number(self.ids, index, self.id_bytes)
    }

    /// Flags of entry `index`.
    pub(super) fn flags(&self, index: usize) -> u8 {
        self.flags.get(index).copied().unwrap_or(0)
    }

    /// The first of entries `low..high` for which the monotone condition `holds` is true; `high` if there is none.
    fn first(&self, low: usize, high: usize, holds: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (low, high);
        while low < high {
            let middle = (low + high) / 2;
            if holds(self.text(middle)) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }

    /// The token with exactly this spelling.
    pub(super) fn find(&self, spelling: &[u8]) -> Option<u32> {
        let index = self.first(0, self.count, |text| text >= spelling);
        (index < self.count && self.text(index) == spelling).then(|| self.id(index))
    }

    /// The entry with the longest spelling that is `prefix` followed by a prefix of `rest`, and the length of the
    /// latter; at least one byte.
    pub(super) fn longest(&self, prefix: &[u8], rest: &[u8]) -> Option<(usize, usize)> {
        let begins = |text: &[u8]| text.get(..prefix.len()).unwrap_or(text) >= prefix;
        let mut low = self.first(0, self.count, begins);
        let mut high = self.first(low, self.count, |text| text.get(..prefix.len()) != Some(prefix));
        let mut best = None;
        // Entries low..high begin with the prefix and the first bytes of the rest, the shortest first.
        for (at, &byte) in rest.iter().enumerate() {
            let place = prefix.len() + at;
            low = self.first(low, high, |text| text.get(place).is_some_and(|&other| other >= byte));
            high = self.first(low, high, |text| text.get(place).is_none_or(|&other| other > byte));
            if low >= high {
                break;
            }
            if self.text(low).len() == place + 1 {
                best = Some((low, at + 1));
            }
        }
        best
    }
}
