//! Which texts are held out, and how often the others are written.

use super::DataError;
use super::options::{DataOptions, FieldWeight};
use super::sampling::{self, Chosen};
use super::seen::{Entry, Seen};
use crate::report::grouped;
use std::collections::{BTreeMap, BTreeSet};

/// What takes out a text that is written no time.
const SAMPLED: &str = "weights";

/// Splits, and chooses by weights what is written how often.
pub(super) fn choose(options: &DataOptions, fields: &[String], seen: &mut Seen) -> Result<(), DataError> {
    let chosen = |entry: &Entry| {
        let [a, b, c, d, e, f, g, h, ..] = entry.content;
        let content = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        Chosen { content, cluster: entry.cluster, group: entry.group }
    };
    let places: Vec<usize> = (0..seen.entries.len()).filter(|&place| seen.entries[place].rule.is_none()).collect();
    if places.is_empty() {
        return Err(nothing_left(seen));
    }
    let texts: Vec<Chosen> = places.iter().map(|&place| chosen(&seen.entries[place])).collect();
    let held = sampling::held_out(&texts, options.held_out, options.seed);
    if options.held_out > 0.0 && !held.contains(&true) {
        let clusters: BTreeSet<u32> = texts.iter().map(|text| text.cluster).collect();
        let (share, clusters) = (options.held_out, clusters.len());
        return Err(DataError::NothingHeldOut { share, texts: texts.len(), clusters });
    }
    for (place, held) in places.iter().zip(held) {
        seen.entries[*place].held_out = held;
    }
    let places: Vec<usize> = places.into_iter().filter(|&place| !seen.entries[place].held_out).collect();
    let texts: Vec<Chosen> = places.iter().map(|&place| chosen(&seen.entries[place])).collect();
    let weights = weights(options, fields, seen, &texts);
    for (place, copies) in places.into_iter().zip(sampling::copies(&texts, &weights, options.seed)) {
        let entry = &mut seen.entries[place];
        entry.copies = copies;
        if copies == 0 {
            entry.rule = Some(SAMPLED);
        }
    }
    match seen.entries.iter().any(|entry| entry.rule.is_none() && !entry.held_out) {
        true => Ok(()),
        false => Err(nothing_left(seen)),
    }
}

/// The weight of every group: of its file, of its values, and what balances it.
fn weights(options: &DataOptions, fields: &[String], seen: &Seen, texts: &[Chosen]) -> BTreeMap<u32, f64> {
    let mut of_group: BTreeMap<u32, u64> = BTreeMap::new();
    texts.iter().for_each(|text| *of_group.entry(text.group).or_default() += 1);
    let balanced = options.balance.as_ref().and_then(|field| fields.iter().position(|other| other == field));
    let mut of_value: BTreeMap<&Option<String>, u64> = BTreeMap::new();
    for ((_, values), group) in &seen.groups {
        if let (Some(number), Some(count)) = (balanced, of_group.get(group)) {
            *of_value.entry(&values[number]).or_default() += count;
        }
    }
    let rarest = of_value.values().copied().min().unwrap_or(1);
    let weight = |((file, values), group): (&(usize, Vec<Option<String>>), &u32)| {
        let mut weight = options.file_weights.get(*file).copied().unwrap_or(1.0);
        for FieldWeight { field, value, weight: own } in &options.weights {
            let number = fields.iter().position(|other| other == field);
            if number.is_some_and(|number| values[number].as_ref() == Some(value)) {
                weight *= own;
            }
        }
        if let Some(count) = balanced.and_then(|number| of_value.get(&values[number])) {
            weight *= rarest as f64 / *count as f64;
        }
        (*group, weight)
    };
    seen.groups.iter().map(weight).collect()
}

fn nothing_left(seen: &Seen) -> DataError {
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    seen.entries.iter().filter_map(|entry| entry.rule).for_each(|rule| *counts.entry(rule).or_default() += 1);
    let mut counts: Vec<(u64, &str)> = counts.into_iter().map(|(rule, count)| (count, rule)).collect();
    counts.sort_by(|a, b| b.cmp(a));
    let held = seen.entries.iter().filter(|entry| entry.rule.is_none() && entry.held_out).count() as u64;
    let held = (held > 0).then(|| format!("{} held out", grouped(held)));
    let rules = counts.into_iter().map(|(count, rule)| format!("{} by {rule}", grouped(count))).chain(held);
    DataError::NothingLeft { read: seen.read.texts, rules: rules.collect::<Vec<_>>().join(", ") }
}
