//! The work of `slmc data`. Of each text [`Entry`] is held, and until duplicates are known its signature; texts are read
//! again when they are needed.

use super::duplicates::clusters;
use super::filters::Limits;
use super::minhash::{Signature, shingles, signature};
use super::passes::{Files, Preparation, content, value_of};
use super::quality::{Scorer, extremes};
use super::report::{Amount, Count, DataReport, EXAMPLES, Example, RuleReport};
use super::sampling::{self, Chosen};
use super::scrub::Kind;
use super::tags::Tags;
use super::{DataError, passes};
use crate::progress::Progress;
use crate::report::grouped;
use crate::text::file::ReadNotes;
use crate::text::form::TextForm;
use crate::text::stream::Streamed;
use burn::tensor::Device;
use rayon::prelude::*;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The texts that are kept.
pub const TEXTS_FILE: &str = "data.jsonl";
/// The texts that are held out.
pub const HELD_OUT_FILE: &str = "held-out.jsonl";

/// Options of `slmc data`, checked.
#[derive(Clone, Debug)]
pub struct DataOptions {
    /// The files, in the order in which they are read.
    pub files: Vec<PathBuf>,
    /// How often the texts of each file are written; 1 for files beyond the end.
    pub file_weights: Vec<f64>,
    /// How the texts of a file are told apart.
    pub form: TextForm,
    /// The rules.
    pub limits: Limits,
    /// How alike near duplicates are; 1 looks for exact ones only.
    pub similarity: f64,
    /// Whether duplicates stay, on one side of the split.
    pub keep_duplicates: bool,
    /// What is scrubbed.
    pub scrub: Vec<Kind>,
    /// A file of tags.
    pub tags: Option<PathBuf>,
    /// Scores by a model.
    pub quality: Option<QualityOptions>,
    /// The field whose values become equally frequent.
    pub balance: Option<String>,
    /// Weights of values.
    pub weights: Vec<FieldWeight>,
    /// Share of texts that are held out.
    pub held_out: f64,
    /// Where choices start.
    pub seed: u64,
}

/// Scores by a model.
#[derive(Clone, Debug)]
pub struct QualityOptions {
    /// The model.
    pub model: PathBuf,
    /// Its device.
    pub device: Device,
    /// Share of the texts with the worst scores that are left out.
    pub drop_worst: f64,
    /// Likewise with the best.
    pub drop_best: f64,
    /// Tokens of a text that are looked at.
    pub tokens: usize,
}

/// A weight of one value of a field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldWeight {
    /// The field.
    pub field: String,
    /// Its value.
    pub value: String,
    /// How often each text with it is written.
    pub weight: f64,
}

/// Most values that weights are over.
const MOST_VALUES: usize = 1 << 16;
/// What takes texts out beside the rules of [`Limits`], by name.
const EXACT: &str = "exact duplicate";
const NEAR: &str = "near duplicate";
const WORST: &str = "drop-worst";
const BEST: &str = "drop-best";
const SAMPLED: &str = "weights";

/// What is held of a text: 48 bytes.
#[derive(Clone, Copy, Debug)]
struct Entry {
    content: [u8; 16],
    /// Why it is taken out.
    rule: Option<&'static str>,
    /// The first text of its cluster.
    cluster: u32,
    /// Its file and value, by number.
    group: u32,
    /// How often it is written.
    copies: u32,
    held_out: bool,
}

/// All that the first pass leaves.
struct Seen {
    entries: Vec<Entry>,
    /// Signatures of texts that no rule took out, with their places.
    signatures: Vec<Signature>,
    places: Vec<u32>,
    /// (file, value of every field) by number.
    groups: BTreeMap<(usize, Vec<Option<String>>), u32>,
    /// Fields of the first text.
    known: Vec<String>,
    read: Amount,
    notes: Vec<ReadNotes>,
}

/// What is made of a text in the first pass.
struct Examined {
    content: [u8; 16],
    rule: Option<&'static str>,
    signature: Option<Box<Signature>>,
    values: Vec<Option<String>>,
    bytes: u64,
}

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

fn first_pass(
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
fn check_fields(options: &DataOptions, fields: &[String], seen: &Seen) -> Result<(), DataError> {
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
fn find_duplicates(options: &DataOptions, seen: &mut Seen) -> u64 {
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

fn bytes_per_text(seen: &Seen) -> u64 {
    // An entry, a place in the table of contents (a key, a number and its slot), and of each signature the place and its
    // part of the band that is being sorted.
    let fixed = (size_of::<Entry>() + 2 * (16 + 4)) as u64;
    let near = (size_of::<Signature>() + 4 + 16) as u64;
    fixed + if seen.signatures.is_empty() { 0 } else { near }
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

/// Splits, and chooses by weights what is written how often.
fn choose(options: &DataOptions, fields: &[String], seen: &mut Seen) -> Result<(), DataError> {
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
        let clusters: std::collections::BTreeSet<u32> = texts.iter().map(|text| text.cluster).collect();
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
        for own in &options.weights {
            let number = fields.iter().position(|field| *field == own.field);
            if number.is_some_and(|number| values[number].as_ref() == Some(&own.value)) {
                weight *= own.weight;
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

/// A file of the output.
struct Output {
    path: PathBuf,
    out: BufWriter<File>,
    amount: Amount,
}

impl Output {
    fn create(directory: &Path, name: &str) -> Result<Self, DataError> {
        let path = directory.join(name);
        let file = File::create_new(&path).map_err(|source| DataError::Write { path: path.clone(), source })?;
        Ok(Output { path, out: BufWriter::with_capacity(1 << 20, file), amount: Amount::default() })
    }

    fn row(&mut self, row: &str, bytes: u64, copies: u32) -> Result<(), DataError> {
        for _ in 0..copies {
            writeln!(self.out, "{row}").map_err(|source| DataError::Write { path: self.path.clone(), source })?;
        }
        self.amount.texts += u64::from(copies);
        self.amount.bytes += bytes * u64::from(copies);
        Ok(())
    }

    fn finish(self) -> Result<Amount, DataError> {
        let failed = |source| DataError::Write { path: self.path.clone(), source };
        let file = self.out.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        Ok(self.amount)
    }
}

/// Writes what is left, and counts and quotes what is not.
fn last_pass(
    files: &Files<'_>,
    preparation: &Preparation,
    seen: &Seen,
    directory: &Path,
    splits: bool,
    progress: &dyn Progress,
) -> Result<DataReport, DataError> {
    let mut kept = Output::create(directory, TEXTS_FILE)?;
    let mut held_out = if splits { Some(Output::create(directory, HELD_OUT_FILE)?) } else { None };
    let mut rules: Vec<RuleReport> = Vec::new();
    let mut scrubbed = vec![0; preparation.kinds.len()];
    let mut tags: BTreeMap<String, u64> = BTreeMap::new();
    let mut place = 0;
    files.each_batch("writing texts", progress, |file, batch| {
        let prepared: Vec<_> = batch
            .into_par_iter()
            .map(|text| {
                let bytes = text.text.len() as u64;
                let (text, counts) = preparation.prepare(text);
                (content(&text.text), bytes, text, counts)
            })
            .collect();
        for (content, read_bytes, text, counts) in prepared {
            let entry = seen.entries.get(place).filter(|entry| entry.content == content);
            let entry = entry.ok_or_else(|| DataError::Changed { path: files.paths[file].clone() })?;
            place += 1;
            if let Some(rule) = entry.rule {
                taken(&mut rules, rule, read_bytes, || Example::of(&files.name(file), text.line, &text.text));
                continue;
            }
            scrubbed.iter_mut().zip(&counts).for_each(|(sum, count)| *sum += count);
            for tag in text.fields.get(passes::TAGS).and_then(Value::as_array).into_iter().flatten() {
                *tags.entry(tag.as_str().unwrap_or_default().to_owned()).or_default() += 1;
            }
            let bytes = text.text.len() as u64;
            let row = row(files.form, text);
            match held_out.as_mut().filter(|_| entry.held_out) {
                Some(held_out) => held_out.row(&row, bytes, 1)?,
                None => kept.row(&row, bytes, entry.copies)?,
            }
        }
        Ok(())
    })?;
    if let (true, Some(last)) = (place < seen.entries.len(), files.paths.last()) {
        return Err(DataError::Changed { path: last.clone() });
    }
    let kinds = preparation.kinds.iter().map(|kind| kind.name().to_owned());
    let count = |(name, count): (String, u64)| Count { name, count };
    // Of all texts the greatest loss first.
    rules.sort_by(|a, b| b.taken.texts.cmp(&a.taken.texts).then(a.rule.cmp(b.rule)));
    Ok(DataReport {
        read: seen.read,
        kept: kept.finish()?,
        held_out: held_out.map(Output::finish).transpose()?.unwrap_or_default(),
        rules,
        clusters: 0,
        unscored: None,
        scrubbed: kinds.zip(scrubbed).map(count).collect(),
        tags: tags.into_iter().map(count).collect(),
        values: Vec::new(),
        bytes_per_text: 0,
        files_read: Vec::new(),
    })
}

fn taken(rules: &mut Vec<RuleReport>, rule: &'static str, bytes: u64, example: impl FnOnce() -> Example) {
    let place = rules.iter().position(|other| other.rule == rule).unwrap_or_else(|| {
        rules.push(RuleReport { rule, taken: Amount::default(), examples: Vec::new() });
        rules.len() - 1
    });
    let of_rule = &mut rules[place];
    of_rule.taken.texts += 1;
    of_rule.taken.bytes += bytes;
    if of_rule.examples.len() < EXAMPLES {
        of_rule.examples.push(example());
    }
}

/// A row of JSONL: the text first, then the other fields in their order.
fn row(form: &TextForm, text: Streamed) -> String {
    let key = form.field.clone().unwrap_or_else(|| "text".to_owned());
    let mut row = Map::from_iter([(key, Value::String(text.text))]);
    row.extend(text.fields);
    Value::Object(row).to_string()
}
