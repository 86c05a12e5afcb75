//! The work of `slmc data`, pass by pass.

use super::DataError;
use super::choice::choose;
use super::options::{DataOptions, QualityOptions};
use super::passes::{Files, Preparation};
use super::quality::{Scorer, extremes};
use super::report::{Count, DataReport};
use super::seen::{Entry, bytes_per_text, check_fields, find_duplicates, first_pass};
use super::tags::Tags;
use super::writing::last_pass;
use crate::progress::Progress;
use std::collections::BTreeMap;
use std::path::Path;

/// What takes out texts by their scores.
const WORST: &str = "drop-worst";
const BEST: &str = "drop-best";

/// Prepares data and writes its files into a directory.
///
/// # Errors
/// [`DataError`].
pub fn prepare(options: &DataOptions, directory: &Path, progress: &dyn Progress) -> Result<DataReport, DataError> {
    let files = Files { paths: &options.files, form: &options.form };
    let tags = options.tags.as_deref().map(Tags::read).transpose()?;
    let preparation = Preparation { kinds: options.scrub.clone(), tags };
    let scorer = options.quality.as_ref().map(|own| Scorer::open(&own.model, own.tokens, &own.device)).transpose()?;
    let fields = fields(options);
    let mut seen = first_pass(options, &files, &preparation, &fields, progress)?;
    check_fields(options, &fields, &seen)?;
    let clusters = find_duplicates(options, &mut seen);
    let bytes_per_text = bytes_per_text(&seen);
    (seen.signatures, seen.places) = (Vec::new(), Vec::new());
    let unscored = match (&scorer, &options.quality) {
        (Some(scorer), Some(own)) => Some(score(scorer, own, &files, &preparation, &mut seen.entries, progress)?),
        _ => None,
    };
    choose(options, &fields, &mut seen)?;
    let mut report = last_pass(&files, &preparation, &seen, directory, options.held_out > 0.0, progress)?;
    let value = |((_, values), group): (&(usize, Vec<Option<String>>), &u32)| {
        let name = values.iter().map(|value| value.as_deref().unwrap_or("(none)")).collect::<Vec<_>>().join(", ");
        let of_group =
            seen.entries.iter().filter(|entry| entry.group == *group && entry.rule.is_none() && !entry.held_out);
        (name, of_group.map(|entry| u64::from(entry.copies)).sum::<u64>())
    };
    if !fields.is_empty() {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (name, count) in seen.groups.iter().map(value) {
            *counts.entry(name).or_default() += count;
        }
        report.values = counts.into_iter().map(|(name, count)| Count { name, count }).collect();
    }
    Ok(DataReport { clusters, unscored, bytes_per_text, files_read: seen.notes, ..report })
}

/// The fields that weights and balance are over, each once.
fn fields(options: &DataOptions) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    for field in options.balance.iter().chain(options.weights.iter().map(|weight| &weight.field)) {
        if !fields.contains(field) {
            fields.push(field.clone());
        }
    }
    fields
}

/// Scores what is left, and takes out the extremes; how many texts have no score.
fn score(
    scorer: &Scorer,
    own: &QualityOptions,
    files: &Files<'_>,
    preparation: &Preparation,
    entries: &mut [Entry],
    progress: &dyn Progress,
) -> Result<u64, DataError> {
    let (mut place, mut scores, mut unscored) = (0, Vec::new(), 0);
    files.each_batch("scoring texts", progress, |_, batch| {
        let first = place;
        place += batch.len();
        let (mut places, mut texts) = (Vec::new(), Vec::new());
        for (number, text) in batch.into_iter().enumerate() {
            if entries.get(first + number).is_some_and(|entry| entry.rule.is_none()) {
                places.push(first + number);
                texts.push(preparation.prepare(text).0.text);
            }
        }
        for (place, score) in places.into_iter().zip(scorer.scores(&texts)?) {
            match score {
                Some(score) => scores.push((place, score)),
                None => unscored += 1,
            }
        }
        Ok(())
    })?;
    let (worst, best) = extremes(&scores, own.drop_worst, own.drop_best);
    for (places, rule) in [(worst, WORST), (best, BEST)] {
        places.into_iter().for_each(|place| entries[place].rule = Some(rule));
    }
    Ok(unscored)
}
