//! The last pass: what is left is written, and what is not is counted and quoted.

use super::DataError;
use super::options::{HELD_OUT_FILE, TEXTS_FILE};
use super::passes::{Files, Preparation, TAGS, content};
use super::report::{Amount, Count, DataReport, EXAMPLES, Example, RuleReport};
use super::seen::Seen;
use crate::progress::Progress;
use crate::text::form::TextForm;
use crate::text::stream::Streamed;
use rayon::prelude::*;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

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
pub(super) fn last_pass(
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
            for tag in text.fields.get(TAGS).and_then(Value::as_array).into_iter().flatten() {
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
