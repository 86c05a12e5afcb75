//! A grammar that a model's output follows: an automaton over bytes with a stack of return states, and for each of its
//! states the tokens that may come next. A section of the device part, little-endian, without holes:
//!
//! [`GrammarRecord`], then `classes` u8\[256\], the [`StateRecord`]s, `next` u16\[entries\], `pushes` 2 · u16 each, `bitsets` of
//! ⌈vocabulary / 32⌉ u32 each, `ids` of 2 or 4 bytes each.
//!
//! This file checks the section once and reads its fields; [`crate::grammar`] runs the automaton.

use super::FormatError;
use super::artifact::{ArtifactView, u32_at};
use super::header::SectionKind;
use super::record::record;
use crate::sample::seen_words;

record! {
    /// Sizes of the section's tables.
    GrammarRecord: 32 bytes {
        /// [`GRAMMAR_VERSION`]
        version: u16,
        /// Bytes of a token id: 2 or 4.
        id_bytes: u8,
        /// [`MAX_DEPTH`]
        depth: u8,
        /// Classes of bytes that every state treats alike, 1 to 256.
        classes: u16,
        /// States, 1 to 65534.
        states: u16,
        /// The first state.
        start: u16,
        /// Push records; `states + pushes` is below 65535.
        pushes: u16,
        /// Sets of tokens, at least one: set 0 has every token that a grammar may use.
        bitsets: u16,
        /// Zero.
        reserved: u16,
        /// Entries of `next`.
        entries: u32,
        /// Token ids of all lists.
        ids: u32,
        /// Tokens of the model.
        vocabulary: u32,
        /// Zero.
        reserved_end: [u8; 4],
    }
}

record! {
    /// A state. The tokens that may come next are those of the bitset (none without one) but for the toggled ids, which
    /// change sides, and of the checked ids those that the automaton takes.
    StateRecord: 16 bytes {
        /// Place in `next` of the entry for the first byte class that has one.
        entries: u32,
        /// Place of the toggled ids in `ids`; the checked ones follow.
        list: u32,
        /// A bitset, or [`NO_BITSET`].
        bitset: u16,
        /// The first byte class with an entry; above `last` where none has.
        first: u8,
        /// The last one.
        last: u8,
        /// [`FINAL`], [`WALK`], [`INNER`]
        flags: u8,
        /// Pushes that the shortest way to the end of the state's rule needs.
        depth: u8,
        /// Number of toggled ids.
        toggles: u8,
        /// Number of checked ids.
        checks: u8,
    }
}

/// The only version of the section.
pub const GRAMMAR_VERSION: u16 = 1;
/// Return states that the stack holds.
pub const MAX_DEPTH: usize = 16;
/// The entry of a byte class that a state refuses.
pub const DEAD: u16 = u16::MAX;
/// A state without a bitset.
pub const NO_BITSET: u16 = u16::MAX;
/// Flag: the state ends its rule, so a return may follow, and the text may end where the stack is empty.
pub const FINAL: u8 = 1;
/// Flag: the allowed tokens are not stored; every token of bitset 0 is tried.
pub const WALK: u8 = 2;
/// Flag: no token may end in the state.
pub const INNER: u8 = 4;
/// Bytes of a push record: the next entry and the return state.
pub(crate) const PUSH_BYTES: usize = 4;

/// The tables of a section, in place.
#[derive(Clone, Copy, Debug)]
pub struct GrammarTables<'a> {
    pub(crate) record: GrammarRecord,
    /// (256)
    pub(crate) classes: &'a [u8],
    /// (states) of [`StateRecord`]
    states: &'a [u8],
    /// (entries) of u16
    next: &'a [u8],
    /// (pushes, 2) of u16
    pushes: &'a [u8],
    /// (bitsets, ⌈vocabulary / 32⌉) of u32
    bitsets: &'a [u8],
    /// (ids) of 2 or 4 bytes
    ids: &'a [u8],
}

fn u16_at(bytes: &[u8], index: usize) -> Option<u16> {
    let value = bytes.get(index * 2..index * 2 + 2)?;
    Some(u16::from_le_bytes([value[0], value[1]]))
}

impl<'a> GrammarTables<'a> {
    /// Reads a section and checks everything that the other functions rely on.
    pub fn read(content: &'a [u8], vocabulary: u32) -> Result<Self, FormatError> {
        let fault = |fault| FormatError::section(SectionKind::Grammar, fault);
        if content.len() < GrammarRecord::BYTES {
            return Err(fault("too short"));
        }
        let (head, rest) = content.split_at(GrammarRecord::BYTES);
        let record = GrammarRecord::from_bytes(head);
        if record.version != GRAMMAR_VERSION {
            return Err(fault("of a later version: a newer slmc or slm-runtime is needed"));
        }
        if record.vocabulary != vocabulary {
            return Err(fault("made for another vocabulary"));
        }
        check_record(&record).map_err(fault)?;
        let tables = Self::cut(record, rest).ok_or(fault("length does not match its counts"))?;
        tables.check_automaton().map_err(fault)?;
        tables.check_tokens().map_err(fault)?;
        Ok(tables)
    }

    /// The tables that follow the record; `None` where they do not fill the bytes.
    fn cut(record: GrammarRecord, mut rest: &'a [u8]) -> Option<Self> {
        let mut take = |count: usize, bytes: usize| {
            let (table, after) = rest.split_at_checked(count.checked_mul(bytes)?)?;
            rest = after;
            Some(table)
        };
        let words = seen_words(record.vocabulary as usize);
        let tables = GrammarTables {
            record,
            classes: take(256, 1)?,
            states: take(record.states.into(), StateRecord::BYTES)?,
            next: take(record.entries as usize, 2)?,
            pushes: take(record.pushes.into(), PUSH_BYTES)?,
            bitsets: take(usize::from(record.bitsets).checked_mul(words)?, 4)?,
            ids: take(record.ids as usize, record.id_bytes.into())?,
        };
        rest.is_empty().then_some(tables)
    }

    fn check_automaton(&self) -> Result<(), &'static str> {
        let (states, pushes) = (self.record.states, self.record.pushes);
        if self.classes.iter().any(|&class| u16::from(class) >= self.record.classes) {
            return Err("an unknown class of bytes");
        }
        for index in 0..self.record.entries as usize {
            let next = u16_at(self.next, index).unwrap_or(DEAD);
            if next != DEAD && next >= states + pushes {
                return Err("an entry leads to no state");
            }
        }
        for index in 0..pushes {
            // A push leads to a state or to an earlier push, so that pushes end.
            let (next, back) = self.push(index);
            if next >= states + index || back >= states {
                return Err("a push leads to no state");
            }
        }
        for index in 0..states {
            let state = self.state(index);
            let count = u32::from(state.last).saturating_add(1).saturating_sub(state.first.into());
            if count > 0 && u16::from(state.last) >= self.record.classes {
                return Err("a state has an unknown class of bytes");
            }
            if state.entries.checked_add(count).is_none_or(|end| end > self.record.entries) {
                return Err("a state has entries outside their table");
            }
            if state.flags & !(FINAL | WALK | INNER) != 0 || usize::from(state.depth) > MAX_DEPTH {
                return Err("a state has an unknown flag or depth");
            }
            if state.bitset != NO_BITSET && state.bitset >= self.record.bitsets {
                return Err("a state has an unknown set of tokens");
            }
            let listed = u32::from(state.toggles) + u32::from(state.checks);
            if state.list.checked_add(listed).is_none_or(|end| end > self.record.ids) {
                return Err("a state has tokens outside their table");
            }
        }
        Ok(())
    }

    fn check_tokens(&self) -> Result<(), &'static str> {
        let vocabulary = self.record.vocabulary;
        if (0..self.record.ids as usize).any(|index| self.id(index) >= vocabulary) {
            return Err("a token is outside the vocabulary");
        }
        let used = vocabulary % u32::BITS;
        let last = seen_words(vocabulary as usize) - 1;
        let beyond = |set: u16| used > 0 && self.bitset_word(set, last) >> used != 0;
        if (0..self.record.bitsets).any(beyond) {
            return Err("a set has tokens outside the vocabulary");
        }
        Ok(())
    }

    /// State `index`; one that refuses everything beyond the last.
    pub(crate) fn state(&self, index: u16) -> StateRecord {
        let at = usize::from(index) * StateRecord::BYTES;
        let bytes = self.states.get(at..at + StateRecord::BYTES);
        StateRecord::from_bytes(bytes.unwrap_or(&[0; StateRecord::BYTES]))
    }

    /// The entry of a state for a byte.
    #[inline]
    #[cfg(feature = "grammar")]
    pub(crate) fn entry(&self, state: &StateRecord, byte: u8) -> Option<u16> {
        let class =
            self.classes.get(usize::from(byte)).copied().filter(|class| (state.first..=state.last).contains(class))?;
        u16_at(self.next, state.entries as usize + usize::from(class - state.first)).filter(|&next| next != DEAD)
    }

    /// Push `index`: the next entry and the return state.
    pub(crate) fn push(&self, index: u16) -> (u16, u16) {
        let part = |part| u16_at(self.pushes, usize::from(index) * 2 + part).unwrap_or(DEAD);
        (part(0), part(1))
    }

    /// Word `word` of a set.
    pub(crate) fn bitset_word(&self, set: u16, word: usize) -> u32 {
        let words = seen_words(self.record.vocabulary as usize);
        u32_at(self.bitsets, (usize::from(set) * words + word) * 4).unwrap_or(0)
    }

    /// Whether a set has a token.
    #[cfg(feature = "grammar")]
    pub(crate) fn has(&self, set: u16, token: u32) -> bool {
        token < self.record.vocabulary
            && self.bitset_word(set, (token / u32::BITS) as usize) >> (token % u32::BITS) & 1 == 1
    }

    /// Number `index` of the listed ids.
    pub(crate) fn id(&self, index: usize) -> u32 {
        let number = match self.record.id_bytes {
            2 => u16_at(self.ids, index).map(u32::from),
            _ => u32_at(self.ids, index * 4),
        };
        number.unwrap_or(u32::MAX)
    }

    /// Number of states, for reports.
    pub fn states(&self) -> usize {
        self.record.states.into()
    }
}

fn check_record(record: &GrammarRecord) -> Result<(), &'static str> {
    if record.reserved != 0 || record.reserved_end != [0; 4] {
        return Err("reserved bytes are not zero");
    }
    if usize::from(record.depth) != MAX_DEPTH {
        return Err("another depth of the stack");
    }
    if record.id_bytes != 2 && record.id_bytes != 4 {
        return Err("an unknown size of ids");
    }
    let places = u32::from(record.states) + u32::from(record.pushes);
    if record.states == 0 || places >= DEAD.into() || record.start >= record.states {
        return Err("a number of states or pushes is out of range");
    }
    if !(1..=256).contains(&record.classes) || record.bitsets == 0 || record.bitsets == NO_BITSET {
        return Err("a number of classes or sets is out of range");
    }
    if record.vocabulary == 0 { Err("an empty vocabulary") } else { Ok(()) }
}

/// The bytes of a model's tokens.
#[derive(Clone, Copy, Debug)]
pub struct TokenBytes<'a> {
    /// `vocabulary + 1` offsets, u32 each, then the bytes.
    section: &'a [u8],
    count: u32,
}

impl<'a> TokenBytes<'a> {
    /// The tokens of a vocabulary section (docs/format.md). Tokens whose offsets lie outside it have no bytes.
    pub fn new(section: &'a [u8], count: u32) -> Self {
        TokenBytes { section, count }
    }

    /// Number of tokens.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The bytes of a token; empty for ids outside the vocabulary.
    pub fn of(&self, token: u32) -> &'a [u8] {
        if token >= self.count {
            return &[];
        }
        let at = token as usize * 4;
        let text = (self.count as usize + 1) * 4;
        let bounds = u32_at(self.section, at).zip(u32_at(self.section, at + 4));
        bounds.and_then(|(start, end)| self.section.get(text + start as usize..text + end as usize)).unwrap_or(&[])
    }
}

impl<'a> ArtifactView<'a> {
    /// The bytes of every token.
    pub fn tokens(&self) -> TokenBytes<'a> {
        TokenBytes::new(self.vocabulary, self.spec.vocabulary)
    }

    /// The tables of the artifact's grammar; `None` where it has none. [`crate::grammar::Grammar::of`] runs it.
    pub fn grammar(&self) -> Option<GrammarTables<'a>> {
        let content = self.section(SectionKind::Grammar)?;
        let (head, rest) = content.split_at_checked(GrammarRecord::BYTES)?;
        GrammarTables::cut(GrammarRecord::from_bytes(head), rest)
    }

    /// Checks the section.
    #[cfg(feature = "grammar")]
    pub(super) fn read_grammar(&mut self) -> Result<(), FormatError> {
        let Some(content) = self.single_device_section(SectionKind::Grammar)? else { return Ok(()) };
        GrammarTables::read(content, self.spec.vocabulary).map(|_| ())
    }
}
