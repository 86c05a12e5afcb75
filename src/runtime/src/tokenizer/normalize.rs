//! Normalisation of a piece of text: each character by the compiler's map (lower case, accents removed, spaces
//! replaced, decompositions …), marks in canonical order, and characters composed where the tokenizer does. UTF-8
//! throughout, in memory of a stated size.

use super::EncodeError;
use super::characters::{character, character_before};
use crate::format::text::{COMPOSITION_BYTES, ELEMENT_BYTES, ELEMENT_CHARACTER, ELEMENT_LAST, MapAction, MapRecord};
use crate::format::text_tables::{TextTables, number};

/// Hangul syllables are numbered by their jamo: 19 leading, 21 vowels, 27 trailing or none.
const SYLLABLE: u32 = 0xAC00;
const LEADING: u32 = 0x1100;
const VOWEL: u32 = 0x1161;
const TRAILING: u32 = 0x11A7;
const LEADINGS: u32 = 19;
const VOWELS: u32 = 21;
const TRAILINGS: u32 = 28;

impl TextTables<'_> {
    /// The replacement of a character: action, value, and its distance from the first of its range.
    fn map(&self, of: char) -> (MapAction, u32, u32) {
        let (mut low, mut high) = (0, self.record.maps as usize);
        let first = |index: usize| number(self.maps, 2 * index, 4) & 0xFF_FFFF;
        while low < high {
            let middle = (low + high) / 2;
            if first(middle) <= of as u32 {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let record = low.checked_sub(1).and_then(|index| self.maps.get(index * MapRecord::BYTES..));
        let Some(record) = record.filter(|bytes| bytes.len() >= MapRecord::BYTES).map(MapRecord::from_bytes) else {
            return (MapAction::Keep, 0, 0);
        };
        let action = MapAction::from_number((record.first >> 24) as u8).unwrap_or(MapAction::Keep);
        (action, record.value, of as u32 - (record.first & 0xFF_FFFF))
    }

    /// Canonical combining class of a character that the map keeps.
    fn combining_class(&self, of: char) -> u32 {
        match self.map(of) {
            (MapAction::Mark, class, _) => class,
            _ => 0,
        }
    }

    /// The composition of two characters.
    fn compose(&self, first: char, second: char) -> Option<char> {
        let (one, two) = (first as u32, second as u32);
        if let (Some(leading), Some(vowel)) = (one.checked_sub(LEADING), two.checked_sub(VOWEL))
            && leading < LEADINGS
            && vowel < VOWELS
        {
            return char::from_u32(SYLLABLE + (leading * VOWELS + vowel) * TRAILINGS);
        }
        if let (Some(syllable), Some(trailing)) = (one.checked_sub(SYLLABLE), two.checked_sub(TRAILING))
            && syllable < LEADINGS * VOWELS * TRAILINGS
            && syllable.is_multiple_of(TRAILINGS)
            && (1..TRAILINGS).contains(&trailing)
        {
            return char::from_u32(one + trailing);
        }
        let (mut low, mut high) = (0, self.compositions.len() / COMPOSITION_BYTES);
        while low < high {
            let middle = (low + high) / 2;
            let part = |part| number(self.compositions, 3 * middle + part, 3);
            match (part(0), part(1)).cmp(&(one, two)) {
                core::cmp::Ordering::Equal => return char::from_u32(part(2)),
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// Writes the normalised form of `piece` into `out` from byte `start` on and returns where it ends.
    pub(super) fn normalize(&self, piece: &str, out: &mut [u8], start: usize) -> Result<usize, EncodeError> {
        let mut writer = Writer { tables: self, out, end: start, marks: start };
        if !piece.is_empty() {
            for character in core::str::from_utf8(self.prepend).unwrap_or("").chars() {
                writer.push(character, 0)?;
            }
        }
        for character in piece.chars() {
            writer.add(character)?;
        }
        let end = writer.end;
        if self.record.compose == 1 { self.compose_all(out, start, end) } else { Ok(end) }
    }

    /// Composes the decomposed text `out[start..end]` in place: a character composes with the last starter (class 0)
    /// before it, unless a character between them has the same or a higher class.
    fn compose_all(&self, out: &mut [u8], start: usize, end: usize) -> Result<usize, EncodeError> {
        let (mut read, mut write) = (start, start);
        // Position of the last starter, and the class of the last mark after it.
        let (mut starter, mut between): (Option<(usize, char)>, u32) = (None, 0);
        while read < end {
            let Some((next, length)) = character(out, read) else { break };
            read += length;
            let class = self.combining_class(next);
            if let Some((at, first)) = starter
                && (between == 0 || between < class)
                && let Some(composed) = self.compose(first, next)
            {
                let (old, new) = (first.len_utf8(), composed.len_utf8());
                let moved = (write + new).checked_sub(old).filter(|&moved| moved <= read).ok_or(EncodeError::Memory)?;
                out.copy_within(at + old..write, at + new);
                composed.encode_utf8(&mut out[at..at + new]);
                write = moved;
                starter = Some((at, composed));
                continue;
            }
            if class == 0 {
                starter = Some((write, next));
            }
            between = class;
            out.copy_within(read - length..read, write);
            write += length;
        }
        Ok(write)
    }
}

/// Writer of normalised text.
struct Writer<'t, 'o> {
    tables: &'t TextTables<'t>,
    out: &'o mut [u8],
    end: usize,
    /// Start of the marks that the next mark may be reordered with.
    marks: usize,
}

impl Writer<'_, '_> {
    fn push(&mut self, character: char, class: u32) -> Result<(), EncodeError> {
        let length = character.len_utf8();
        let end = self.end + length;
        if end > self.out.len() {
            return Err(EncodeError::Memory);
        }
        let mut at = self.end;
        if class > 0 {
            while let Some((before, start)) = character_before(self.out, at)
                && start >= self.marks
                && self.tables.combining_class(before) > class
            {
                at = start;
            }
            self.out.copy_within(at..self.end, at + length);
        }
        character.encode_utf8(&mut self.out[at..at + length]);
        self.end = end;
        if class == 0 {
            self.marks = end;
        }
        Ok(())
    }

    /// Appends a character by the map.
    fn add(&mut self, of: char) -> Result<(), EncodeError> {
        let (action, value, distance) = self.tables.map(of);
        let shifted = |by: u32| char::from_u32((of as u32).wrapping_add(by)).unwrap_or(of);
        match action {
            MapAction::Keep => self.push(of, 0),
            MapAction::Drop => Ok(()),
            MapAction::Break => {
                self.marks = self.end;
                Ok(())
            }
            MapAction::Single => self.push(char::from_u32(value).unwrap_or(of), 0),
            MapAction::Shift => self.push(shifted(value), 0),
            MapAction::Alternate => self.push(shifted(u32::from(distance.is_multiple_of(2))), 0),
            MapAction::Mark => self.push(of, value),
            MapAction::Isolate => {
                self.push(' ', 0)?;
                self.push(char::from_u32(value).filter(|_| value != 0).unwrap_or(of), 0)?;
                self.push(' ', 0)
            }
            MapAction::Elements => {
                for index in value as usize.. {
                    let element = number(self.tables.elements, index, ELEMENT_BYTES);
                    let Some(character) = char::from_u32(element & ELEMENT_CHARACTER) else { break };
                    self.push(character, self.tables.combining_class(character))?;
                    if element & ELEMENT_LAST != 0 {
                        break;
                    }
                }
                Ok(())
            }
            MapAction::Hangul => {
                let syllable = (of as u32).wrapping_sub(SYLLABLE);
                let letter = |code: u32| char::from_u32(code).unwrap_or(of);
                self.push(letter(LEADING + syllable / (VOWELS * TRAILINGS) % LEADINGS), 0)?;
                self.push(letter(VOWEL + syllable / TRAILINGS % VOWELS), 0)?;
                match syllable % TRAILINGS {
                    0 => Ok(()),
                    trailing => self.push(letter(TRAILING + trailing), 0),
                }
            }
        }
    }
}
