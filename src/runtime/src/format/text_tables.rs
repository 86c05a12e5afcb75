//! The tables of the text section, with checks of lengths, orders, characters and token ids, so that the tokenizer only
//! does lookups.

use super::FormatError;
use super::artifact::u32_at;
use super::spec::NONE;
use super::text::{
    Behavior, CLASS_BYTES, COMPOSITION_BYTES, ELEMENT_BYTES, ELEMENT_CHARACTER, ELEMENT_LAST, MAX_GROWTH, MAX_SPECIALS,
    MAX_STEPS, MAX_STRING, MapAction, MapRecord, STRIP_LEFT, STRIP_RIGHT, Step, StepRecord, TextRecord,
};

/// A number of `width` bytes, 2 to 4, at entry `index`; all ones read as [`NONE`].
pub(crate) fn number(table: &[u8], index: usize, width: usize) -> u32 {
    let Some(bytes) = index.checked_mul(width).and_then(|at| table.get(at..at + width)) else { return NONE };
    let value = bytes.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte));
    if value == u32::MAX >> (32 - 8 * width) { NONE } else { value }
}

/// Tokens by their spelling, ascending, each spelling once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spellings<'a> {
    pub(crate) count: usize,
    pub(crate) id_bytes: usize,
    pub(crate) offsets: &'a [u8],
    pub(crate) ids: &'a [u8],
    pub(crate) flags: &'a [u8],
    pub(crate) text: &'a [u8],
}

/// The tables of the section.
#[derive(Clone, Copy, Debug)]
pub struct TextTables<'a> {
    /// Its record.
    pub record: TextRecord,
    pub(crate) before: &'a [u8],
    pub(crate) after: &'a [u8],
    pub(crate) prepend: &'a [u8],
    pub(crate) prefix: &'a [u8],
    pub(crate) continuation: &'a [u8],
    pub(crate) steps: &'a [u8],
    pub(crate) classes: &'a [u8],
    pub(crate) maps: &'a [u8],
    pub(crate) elements: &'a [u8],
    pub(crate) compositions: &'a [u8],
    pub(crate) raw: Spellings<'a>,
    pub(crate) normalized: Spellings<'a>,
    pub(crate) spellings: Spellings<'a>,
    pub(crate) byte_ids: &'a [u8],
    pub(crate) pairs: &'a [u8],
    pub(crate) ranks: &'a [u8],
    pub(crate) merged: &'a [u8],
}

/// Takes tables off the front of the section.
struct Cut<'a>(&'a [u8]);

impl<'a> Cut<'a> {
    fn take(&mut self, count: u32, bytes: usize) -> Option<&'a [u8]> {
        let (table, rest) = self.0.split_at_checked((count as usize).checked_mul(bytes)?)?;
        self.0 = rest;
        Some(table)
    }

    fn spellings(&mut self, count: u32, text: u32, id_bytes: usize, flags: bool) -> Option<Spellings<'a>> {
        let offsets = if count == 0 { 0 } else { count.checked_add(1)? };
        Some(Spellings {
            count: count as usize,
            id_bytes,
            offsets: self.take(offsets, 4)?,
            ids: self.take(count, id_bytes)?,
            flags: self.take(if flags { count } else { 0 }, 1)?,
            text: self.take(text, 1)?,
        })
    }
}

impl<'a> TextTables<'a> {
    /// Reads and checks the tables of a section of a model with `vocabulary` tokens. Indices and offsets are checked
    /// here; the tokenizer checks capacities as it writes.
    pub fn read(section: &'a [u8], vocabulary: u32) -> Result<Self, FormatError> {
        let fault = FormatError::Text;
        if section.len() < TextRecord::BYTES {
            return Err(fault("too short"));
        }
        let record = TextRecord::from_bytes(section);
        check_record(&record, vocabulary)?;
        let id_bytes = usize::from(record.id_bytes);
        let mut cut = Cut(&section[TextRecord::BYTES..]);
        let tables = (|| {
            let bytes_known = record.symbols == 2 || record.byte_fallback == 1;
            let stated = if record.merged_from == NONE { record.merges } else { 0 };
            Some(TextTables {
                record,
                before: cut.take(record.before, 4)?,
                after: cut.take(record.after, 4)?,
                prepend: cut.take(record.prepend_bytes, 1)?,
                prefix: cut.take(record.prefix_bytes, 1)?,
                continuation: cut.take(record.continuation_bytes, 1)?,
                steps: cut.take(record.steps, StepRecord::BYTES)?,
                classes: cut.take(record.classes, CLASS_BYTES)?,
                maps: cut.take(record.maps, MapRecord::BYTES)?,
                elements: cut.take(record.elements, ELEMENT_BYTES)?,
                compositions: cut.take(record.compositions, COMPOSITION_BYTES)?,
                raw: cut.spellings(record.raw_tokens, record.raw_bytes, id_bytes, true)?,
                normalized: cut.spellings(record.normalized_tokens, record.normalized_bytes, id_bytes, true)?,
                spellings: cut.spellings(record.spellings, record.spelling_bytes, id_bytes, false)?,
                byte_ids: cut.take(if bytes_known { 256 } else { 0 }, id_bytes)?,
                pairs: cut.take(record.merges, 2 * id_bytes)?,
                ranks: cut.take(record.merges, id_bytes)?,
                merged: cut.take(stated, id_bytes)?,
            })
        })()
        .ok_or(fault("too short for its tables"))?;
        if !cut.0.is_empty() {
            return Err(fault("length does not match its tables"));
        }
        tables.check_strings()?;
        tables.check_characters()?;
        tables.check_tokens(vocabulary)?;
        Ok(tables)
    }

    /// Splitting step `index`.
    pub(crate) fn step(&self, index: usize) -> Option<StepRecord> {
        let bytes = self.steps.get(index * StepRecord::BYTES..)?;
        (bytes.len() >= StepRecord::BYTES).then(|| StepRecord::from_bytes(bytes))
    }

    fn check_strings(&self) -> Result<(), FormatError> {
        let strings = [self.prepend, self.prefix, self.continuation];
        if strings.iter().any(|text| core::str::from_utf8(text).is_err()) {
            return Err(FormatError::Text("a string is not UTF-8"));
        }
        for step in self.steps.chunks_exact(StepRecord::BYTES).map(StepRecord::from_bytes) {
            let legal = match Step::from_number(step.kind) {
                Some(Step::Gpt2) => step.behavior == 0 && step.classes == 0 && step.value == 0,
                Some(Step::Llama3) => step.behavior == 0 && step.classes == 0 && (1..=64).contains(&step.value),
                Some(Step::Classes) => Behavior::from_number(step.behavior).is_some() && step.value == 0,
                Some(Step::Character) => {
                    Behavior::from_number(step.behavior).is_some()
                        && step.classes == 0
                        && char::from_u32(step.value).is_some()
                }
                None => false,
            };
            if !legal || step.reserved != 0 {
                return Err(FormatError::Text("an illegal step"));
            }
        }
        Ok(())
    }

    fn check_characters(&self) -> Result<(), FormatError> {
        let fault = FormatError::Text;
        let character = |value: u32| char::from_u32(value).is_some();
        let mut last = None;
        for index in 0..self.record.classes as usize {
            let first = number(self.classes, index, CLASS_BYTES) & ELEMENT_CHARACTER;
            if first > 0x10_FFFF || last >= Some(first) || (index == 0) != (first == 0) {
                return Err(fault("classes do not ascend"));
            }
            last = Some(first);
        }
        let mut last = None;
        for record in self.maps.chunks_exact(MapRecord::BYTES).map(MapRecord::from_bytes) {
            let first = record.first & 0xFF_FFFF;
            if first > 0x10_FFFF || last >= Some(first) {
                return Err(fault("maps do not ascend"));
            }
            last = Some(first);
            let legal = match MapAction::from_number((record.first >> 24) as u8) {
                Some(MapAction::Single | MapAction::Isolate) => character(record.value),
                Some(MapAction::Elements) => record.value < self.record.elements,
                Some(MapAction::Mark) => (1..=255).contains(&record.value),
                Some(MapAction::Shift) => true,
                Some(_) => record.value == 0,
                None => false,
            };
            if !legal {
                return Err(fault("an illegal map"));
            }
        }
        let mut ends = true;
        for index in 0..self.record.elements as usize {
            let element = number(self.elements, index, ELEMENT_BYTES);
            if !character(element & !ELEMENT_LAST) {
                return Err(fault("an illegal character"));
            }
            ends = element & ELEMENT_LAST != 0;
        }
        if !ends {
            return Err(fault("a list of characters does not end"));
        }
        let mut last = None;
        for index in 0..self.record.compositions as usize {
            let part = |part| number(self.compositions, 3 * index + part, 3);
            if !(0..3).all(|index| character(part(index))) || last >= Some((part(0), part(1))) {
                return Err(fault("compositions do not ascend"));
            }
            last = Some((part(0), part(1)));
        }
        Ok(())
    }

    fn check_tokens(&self, vocabulary: u32) -> Result<(), FormatError> {
        let fault = FormatError::Text;
        let specials =
            self.before.chunks_exact(4).chain(self.after.chunks_exact(4)).filter_map(|bytes| u32_at(bytes, 0));
        if specials.into_iter().any(|id| id >= vocabulary) {
            return Err(fault("a special token is outside the vocabulary"));
        }
        self.raw.check(vocabulary)?;
        self.normalized.check(vocabulary)?;
        self.spellings.check(vocabulary)?;
        if self.raw.flags.iter().chain(self.normalized.flags).any(|&flags| flags > STRIP_LEFT | STRIP_RIGHT) {
            return Err(fault("an illegal flag"));
        }
        let width = usize::from(self.record.id_bytes);
        let known = |id: u32| id < vocabulary;
        let all = |table: &[u8], absent: bool| {
            (0..table.len() / width)
                .map(|index| number(table, index, width))
                .all(|id| known(id) || absent && id == NONE)
        };
        if !all(self.byte_ids, true) || !all(self.pairs, false) || !all(self.merged, false) {
            return Err(fault("a token is outside the vocabulary"));
        }
        let mut last = None;
        for index in 0..self.record.merges as usize {
            let pair = (number(self.pairs, 2 * index, width), number(self.pairs, 2 * index + 1, width));
            if last >= Some(pair) {
                return Err(fault("merges do not ascend"));
            }
            last = Some(pair);
            let rank = number(self.ranks, index, width);
            if rank == NONE || self.record.merged_from != NONE && !known(self.record.merged_from.saturating_add(rank)) {
                return Err(fault("a rank is out of range"));
            }
        }
        Ok(())
    }
}

fn check_record(record: &TextRecord, vocabulary: u32) -> Result<(), FormatError> {
    let known = |id: u32| id == NONE || id < vocabulary;
    let strings = [record.prepend_bytes, record.prefix_bytes, record.continuation_bytes];
    let flags = [record.byte_fallback, record.fuse_unknown, record.whole_words, record.compose];
    let words = match record.model {
        1 => matches!(record.symbols, 1 | 2) && record.longest_word == 0 && record.continuation_bytes == 0,
        2 => record.symbols == 1 && record.unknown != NONE && record.merges == 0 && flags[..3] == [0; 3],
        _ => false,
    };
    let holds = [
        (words, "model"),
        (flags.iter().all(|&flag| flag <= 1), "flags"),
        (record.prefix <= 2 && (record.prefix == 0) == (record.prefix_bytes == 0), "prefix"),
        (matches!(record.id_bytes, 2..=4), "id_bytes"),
        (known(record.unknown), "unknown"),
        (known(record.merged_from), "merged_from"),
        ([record.text_growth, record.symbol_growth].iter().all(|growth| (1..=MAX_GROWTH).contains(growth)), "growth"),
        (record.symbol_extra <= 2 * MAX_STRING, "symbol_extra"),
        (record.before <= MAX_SPECIALS && record.after <= MAX_SPECIALS, "specials"),
        (strings.iter().all(|&bytes| bytes <= MAX_STRING), "strings"),
        (record.steps <= MAX_STEPS, "steps"),
        (record.compose == 1 || record.compositions == 0, "compositions"),
        (record.reserved == [0; 20], "reserved"),
    ];
    match holds.iter().find(|(holds, _)| !holds) {
        Some((_, field)) => Err(FormatError::Text(field)),
        None => Ok(()),
    }
}

impl<'a> Spellings<'a> {
    /// Spelling `index`; empty beyond the last.
    pub(crate) fn text(&self, index: usize) -> &'a [u8] {
        let bounds = u32_at(self.offsets, index * 4).zip(u32_at(self.offsets, index * 4 + 4));
        bounds.and_then(|(start, end)| self.text.get(start as usize..end as usize)).unwrap_or(&[])
    }

    fn check(&self, vocabulary: u32) -> Result<(), FormatError> {
        let fault = FormatError::Text;
        if self.count == 0 {
            return if self.text.is_empty() { Ok(()) } else { Err(fault("spellings of no token")) };
        }
        let end = u32_at(self.offsets, self.count * 4);
        if u32_at(self.offsets, 0) != Some(0) || end != Some(self.text.len() as u32) {
            return Err(fault("spellings do not fill their table"));
        }
        let mut last: &[u8] = &[];
        for index in 0..self.count {
            let (start, end) = (u32_at(self.offsets, index * 4), u32_at(self.offsets, index * 4 + 4));
            if start >= end || end > Some(self.text.len() as u32) || last >= self.text(index) {
                return Err(fault("spellings do not ascend"));
            }
            last = self.text(index);
            if number(self.ids, index, self.id_bytes) >= vocabulary {
                return Err(fault("a token is outside the vocabulary"));
            }
        }
        Ok(())
    }
}
