//! Logged requests as texts: those of a file, or those of an audit log's answered questions, whose texts are rows of another
//! file with the numbers of their records. The chain of such a log is checked; seals, heads and answers are `slmc audit`'s.

use super::WatchOptions;
use crate::audit::AuditError;
use crate::audit::chain::{LogFile, is_log};
use crate::progress::Progress;
use crate::stages::StageError;
use crate::text::records::{Label, Record, Records, read_labelled, read_records};
use slm_runtime::audit::{AuditRecord, Kind};
use std::collections::BTreeMap;
use std::path::Path;

/// Key of a record's number.
const SEQUENCE: &str = "sequence";
/// Key of the text where none is named.
const TEXT: &str = "text";

/// The texts of a log, in the order of its records.
pub(super) fn read(options: &WatchOptions, progress: &dyn Progress) -> Result<Records<Record>, StageError> {
    let log = &options.log;
    match (is_log(log), &options.log_texts) {
        (false, None) => Ok(read_records(log, &options.log_form)?),
        (true, None) => Err(StageError::LogTexts { path: log.clone() }),
        (false, Some(_)) => Err(StageError::NotALog { path: log.clone() }),
        (true, Some(texts)) => joined(log, texts, options, progress),
    }
}

fn joined(
    log: &Path,
    texts: &Path,
    options: &WatchOptions,
    progress: &dyn Progress,
) -> Result<Records<Record>, StageError> {
    let file = LogFile::open(log)?;
    let chain = file.chain(log, file.start())?;
    let rows = read_labelled(texts, &options.log_form, TEXT, SEQUENCE)?;
    let answered = |record: &AuditRecord| record.kind == Kind::Inference as u8 && record.status & 0xff == 0;
    let fault = |line, fault| StageError::LogRow { path: texts.to_owned(), line, fault };
    let mut by_number: BTreeMap<u64, Record> = BTreeMap::new();
    for row in rows.records {
        let Label::Id(sequence) = row.label else {
            return Err(fault(row.line, format!("`{SEQUENCE}` is a text, expected the number of a record")));
        };
        let place = sequence.checked_sub(chain.first()).and_then(|place| usize::try_from(place).ok());
        let record = place.filter(|place| *place < chain.len()).map(|place| chain.get(place));
        if !record.is_some_and(|record| answered(&record)) {
            return Err(fault(row.line, format!("record {sequence} of {} is not an answered question", log.display())));
        }
        if let Some(other) = by_number.insert(sequence, Record { line: row.line, text: row.text }) {
            return Err(fault(row.line, format!("record {sequence} has a text already, line {}", other.line)));
        }
    }
    let asked = chain.iter().filter(answered).count();
    if by_number.is_empty() {
        return Err(AuditError::Empty { path: log.to_owned() }.into());
    }
    let without = asked - by_number.len();
    if without > 0 {
        let questions = if without == 1 { "question has" } else { "questions have" };
        progress.warn(&format_args!("{}: {without} of {asked} {questions} no text; left out", log.display()));
    }
    let (records, mut notes) = (by_number.into_values().collect::<Vec<Record>>(), rows.notes);
    notes.records = records.len() as u64;
    Ok(Records { records, notes })
}
