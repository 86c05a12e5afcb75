//! What is held of the texts, from the first pass on: of each an [`Entry`], and until duplicates are known its signature.

use super::DataError;
use super::duplicates::clusters;
use super::minhash::{Signature, shingles, signature};
use super::options::{DataOptions, FieldWeight};
use super::passes::{Files, Preparation, content, value_of};
use super::report::Amount;
use crate::progress::Progress;
use crate::text::file::ReadNotes;
use crate::text::stream::Streamed;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};

/// Most values that weights are over.
const MOST_VALUES: usize = 1 << 16;
/// What takes texts out beside the rules of [`super::filters::Limits`], by name.
const EXACT: &str = "exact duplicate";
const NEAR: &str = "near duplicate";

/// What is held of a text: 48 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) content: [u8; 16],
    /// Why it is taken out.
    pub(super) rule: Option<&'static str>,
    /// The first text of its cluster.
    pub(super) cluster: u32,
    /// Its file and value, by number.
    pub(super) group: u32,
    /// How often it is written.
    pub(super) copies: u32,
    pub(super) held_out: bool,
}

/// All that the first pass leaves.
pub(super) struct Seen {
    pub(super) entries: Vec<Entry>,
    /// Signatures of texts that no rule took out, with their places.
    pub(super) signatures: Vec<Signature>,
    pub(super) places: Vec<u32>,
    /// (file, value of every field) by number.
    pub(super) groups: BTreeMap<(usize, Vec<Option<String>>), u32>,
    /// Fields of the first text.
    pub(super) known: Vec<String>,
    pub(super) read: Amount,
    pub(super) notes: Vec<ReadNotes>,
}

/// What is made of a text in the first pass.
struct Examined {
    content: [u8; 16],
    rule: Option<&'static str>,
    signature: Option<Box<Signature>>,
    values: Vec<Option<String>>,
    bytes: u64,
}

/// Reads every text once.
pub(super) fn first_pass(
    options: &DataOptions,
    files: &Files<'_>,
    preparation: &Preparation,
    fields: &[String],
    progress: &dyn Progress,
) -> Result<Seen, DataError> {
    let mut seen = Seen {
        entries: Vec::new(),
        signatures: Vec::new(),
        places: Vec::new(),
        groups: BTreeMap::new(),
        known: Vec::new(),
        read: Amount::default(),
        notes: Vec::new(),
    };
    let mut first_of: HashMap<[u8; 16], u32> = HashMap::new();
    let examine = |text: Streamed| {
        let bytes = text.text.len() as u64;
        let (text, _) = preparation.prepare(text);
        let rule = options.limits.broken_by(&text.text);
        let near = rule.is_none() && options.similarity < 1.0;
        Examined {
            content: content(&text.text),
            rule,
            signature: near.then(|| Box::new(signature(&shingles(&text.text)))),
            values: fields.iter().map(|field| value_of(&text, field)).collect(),
            bytes,
        }
    };
    let notes = files.each_batch("reading texts", progress, |file, batch| {
        if let (true, Some(first)) = (seen.entries.is_empty(), batch.first()) {
            let (first, _) = preparation.prepare(first.clone());
            seen.known = first.fields.keys().cloned().collect();
        }
        let examined: Vec<Examined> = batch.into_par_iter().map(examine).collect();
        for text in examined {
            let place = u32::try_from(seen.entries.len()).ok().filter(|place| *place < u32::MAX);
            let place = place.ok_or(DataError::ManyTexts { most: u64::from(u32::MAX) })?;
            seen.read = Amount { texts: seen.read.texts + 1, bytes: seen.read.bytes + text.bytes };
            let groups = seen.groups.len() as u32;
            let group = *seen.groups.entry((file, text.values)).or_insert(groups);
            if seen.groups.len() > MOST_VALUES {
                return Err(DataError::ManyValues { field: fields.join(", "), most: MOST_VALUES });
            }
            let mut entry =
                Entry { content: text.content, rule: text.rule, cluster: place, group, copies: 1, held_out: false };
            if entry.rule.is_none() {
                entry.cluster = *first_of.entry(entry.content).or_insert(place);
                if let (true, Some(signature)) = (entry.cluster == place, text.signature) {
                    seen.signatures.push(*signature);
                    seen.places.push(place);
                }
            }
            seen.entries.push(entry);
        }
        Ok(())
    })?;
    seen.notes = notes;
    seen.notes.iter().for_each(|notes| notes.warn(progress));
    Ok(seen)
}

/// Refuses fields and values that no text has.
pub(super) fn check_fields(options: &DataOptions, fields: &[String], seen: &Seen) -> Result<(), DataError> {
    let values = |number: usize| -> Vec<&String> {
        let mut values: Vec<&String> = seen.groups.keys().filter_map(|(_, values)| values[number].as_ref()).collect();
        values.sort_unstable();
        values.dedup();
        values
    };
    for (number, field) in fields.iter().enumerate() {
        if values(number).is_empty() {
            let option = if options.balance.as_ref() == Some(field) { "--balance" } else { "--weights" };
            let known = if seen.known.is_empty() { "none".to_owned() } else { seen.known.join(", ") };
            return Err(DataError::NoField { field: field.clone(), option, known });
        }
    }
    for FieldWeight { field, value, .. } in &options.weights {
        let number = fields.iter().position(|other| other == field).unwrap_or_default();
        let known = values(number);
        if !known.contains(&value) {
            let known: Vec<&str> = known.into_iter().take(10).map(String::as_str).collect();
            return Err(DataError::NoValue { field: field.clone(), value: value.clone(), known: known.join(", ") });
        }
    }
    Ok(())
}

/// Joins clusters and takes out all of each but the first text; how many have more than one.
pub(super) fn find_duplicates(options: &DataOptions, seen: &mut Seen) -> u64 {
    for (number, first) in clusters(&seen.signatures, options.similarity).into_iter().enumerate() {
        seen.entries[seen.places[number] as usize].cluster = seen.places[first as usize];
    }
    let mut sizes: BTreeMap<u32, u64> = BTreeMap::new();
    for place in 0..seen.entries.len() {
        let Entry { cluster, rule, .. } = seen.entries[place];
        if rule.is_some() {
            continue;
        }
        // The first text of equal ones may have been joined with an earlier one since.
        let joined = seen.entries[cluster as usize].cluster;
        let exact = seen.entries[cluster as usize].content == seen.entries[place].content;
        let entry = &mut seen.entries[place];
        entry.cluster = joined;
        *sizes.entry(joined).or_default() += 1;
        if !options.keep_duplicates && joined as usize != place {
            entry.rule = Some(if exact && cluster as usize != place { EXACT } else { NEAR });
        }
    }
    sizes.values().filter(|size| **size > 1).count() as u64
}

/// Memory of each text at the most.
pub(super) fn bytes_per_text(seen: &Seen) -> u64 {
    // An entry, a place in the table of contents (a key, a number and its slot), and of each signature the place and its
    // part of the band that is being sorted.
    let fixed = (size_of::<Entry>() + 2 * (16 + 4)) as u64;
    let near = (size_of::<Signature>() + 4 + 16) as u64;
    fixed + if seen.signatures.is_empty() { 0 } else { near }
}
