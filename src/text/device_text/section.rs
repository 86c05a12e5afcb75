//! The bytes of the text section: the record and its tables in the order of docs/format.md, as the runtime reads them.

use super::model::Model;
use super::normalizer::{Maps, Normalization};
use super::splitting::Splitting;
use super::{HostOnly, Spelled, host_only};
use slm_runtime::format::spec::NONE;
use slm_runtime::format::text::{MAX_GROWTH, MAX_SPECIALS, MAX_STRING, TextRecord, TokenModel};

/// A tokenizer, taken apart.
pub(super) struct Parts<'a> {
    pub(super) normalization: &'a Normalization,
    pub(super) splitting: &'a Splitting,
    pub(super) model: &'a Model,
    pub(super) raw: Spelled,
    pub(super) normalized: Spelled,
    pub(super) before: Vec<u32>,
    pub(super) after: Vec<u32>,
}

/// Numbers of 2 to 4 bytes.
struct Numbers {
    bytes: Vec<u8>,
    width: usize,
}

impl Numbers {
    fn push(&mut self, number: u32) {
        self.bytes.extend(&number.to_le_bytes()[..self.width]);
    }
}

/// Most symbols per byte of text.
fn symbol_growth(parts: &Parts<'_>, maps: &Maps) -> u32 {
    if parts.splitting.bytes || parts.normalization.composes() {
        return maps.growth;
    }
    // A character that stays has at most as many symbols as bytes.
    let growth = |(character, left): &(char, Vec<char>)| {
        let symbols: usize = left.iter().map(|&character| parts.model.symbols(character)).sum();
        symbols.div_ceil(character.len_utf8()) as u32
    };
    maps.changed.iter().map(growth).max().unwrap_or(1).max(1)
}

pub(super) fn write(parts: &Parts<'_>) -> Result<Vec<u8>, HostOnly> {
    let Parts { splitting, model, .. } = parts;
    let maps = parts.normalization.maps()?;
    let prefix = splitting.prefix_text.as_str();
    let symbol_growth = if model.kind == TokenModel::WordPieces { 1 } else { symbol_growth(parts, &maps) };
    for (part, found, most) in [
        ("string longer than the device takes", maps.prepend.len().max(model.continuation.len()), MAX_STRING),
        ("string longer than the device takes", prefix.len(), MAX_STRING),
        ("number of special tokens", parts.before.len().max(parts.after.len()), MAX_SPECIALS),
        ("normalizer that lengthens a character by", maps.growth.max(symbol_growth) as usize, MAX_GROWTH),
    ] {
        if found > most as usize {
            return Err(host_only(part, found));
        }
    }
    // A merge's result is its rank and a constant in tokenizers that number tokens as they are made.
    let from = model.merges.first().and_then(|[_, _, rank, merged]| merged.checked_sub(*rank));
    let from = from.filter(|from| model.merges.iter().all(|[_, _, rank, merged]| from + rank == *merged));
    let ids = model.merges.iter().flatten().chain(&model.byte_ids);
    let spelled = parts.raw.iter().chain(&parts.normalized).chain(&model.spellings).map(|(_, id, _)| id);
    let highest = ids.chain(spelled).filter(|&&id| id != NONE).max().copied().unwrap_or(0);
    let width = if highest < 0xFFFF {
        2
    } else if highest < 0xFF_FFFF {
        3
    } else {
        4
    };
    let text_bytes = |spelled: &Spelled| spelled.iter().map(|(text, ..)| text.len() as u32).sum();
    let record = TextRecord {
        model: model.kind as u8,
        symbols: if splitting.bytes { 2 } else { 1 },
        byte_fallback: u8::from(model.byte_fallback),
        fuse_unknown: u8::from(model.fuse_unknown),
        whole_words: u8::from(model.whole_words),
        prefix: splitting.prefix as u8,
        compose: u8::from(parts.normalization.composes()),
        id_bytes: width as u8,
        unknown: model.unknown,
        longest_word: model.longest_word,
        merged_from: from.unwrap_or(NONE),
        text_growth: maps.growth,
        symbol_growth,
        symbol_extra: (maps.prepend.len() + prefix.len()) as u32,
        before: parts.before.len() as u32,
        after: parts.after.len() as u32,
        prepend_bytes: maps.prepend.len() as u32,
        prefix_bytes: prefix.len() as u32,
        continuation_bytes: model.continuation.len() as u32,
        steps: splitting.steps.len() as u32,
        classes: splitting.classes.runs.len() as u32,
        maps: maps.records.len() as u32,
        elements: maps.elements.len() as u32,
        compositions: maps.compositions.len() as u32,
        raw_tokens: parts.raw.len() as u32,
        raw_bytes: text_bytes(&parts.raw),
        normalized_tokens: parts.normalized.len() as u32,
        normalized_bytes: text_bytes(&parts.normalized),
        spellings: model.spellings.len() as u32,
        spelling_bytes: text_bytes(&model.spellings),
        merges: model.merges.len() as u32,
        palette: splitting.classes.palette,
        reserved: [0; 20],
    };
    let mut bytes = record.to_bytes().to_vec();
    bytes.extend(parts.before.iter().chain(&parts.after).flat_map(|id| id.to_le_bytes()));
    bytes.extend(maps.prepend.bytes().chain(prefix.bytes()).chain(model.continuation.bytes()));
    bytes.extend(splitting.steps.iter().flat_map(|step| step.to_bytes()));
    let mut wide = Numbers { bytes, width: 3 };
    splitting.classes.runs.iter().for_each(|&(first, entry)| wide.push(first | u32::from(entry) << 21));
    wide.bytes.extend(maps.records.iter().flat_map(|map| map.to_bytes()));
    maps.elements.iter().chain(maps.compositions.iter().flatten()).for_each(|&character| wide.push(character));
    let mut numbers = Numbers { bytes: wide.bytes, width };
    spellings(&mut numbers, &parts.raw, true);
    spellings(&mut numbers, &parts.normalized, true);
    spellings(&mut numbers, &model.spellings, false);
    model.byte_ids.iter().for_each(|&id| numbers.push(id));
    model.merges.iter().flat_map(|[left, right, ..]| [*left, *right]).for_each(|id| numbers.push(id));
    model.merges.iter().for_each(|[_, _, rank, _]| numbers.push(*rank));
    if from.is_none() {
        model.merges.iter().for_each(|[.., merged]| numbers.push(*merged));
    }
    Ok(numbers.bytes)
}

fn spellings(numbers: &mut Numbers, spelled: &Spelled, flags: bool) {
    if spelled.is_empty() {
        return;
    }
    let mut offset = 0u32;
    numbers.bytes.extend(offset.to_le_bytes());
    for (text, ..) in spelled {
        offset += text.len() as u32;
        numbers.bytes.extend(offset.to_le_bytes());
    }
    spelled.iter().for_each(|(_, id, _)| numbers.push(*id));
    if flags {
        numbers.bytes.extend(spelled.iter().map(|(.., flags)| flags));
    }
    numbers.bytes.extend(spelled.iter().flat_map(|(text, ..)| text));
}
