//! The calibration text: one the user names, text the model samples from itself (decoders), or the text
//! that ships with slmc (encoders). Reports name which it was.

use super::error::CalibrationError;
use crate::calibrate::samples::sample;
use crate::model::spec::ModelKind;
use crate::model::weights::Model;
use crate::progress::{Progress, Silent};
use crate::text::conversations::read_conversations;
use crate::text::documents::read_documents;
use crate::text::file::ReadNotes;
use crate::text::form::TextForm;
use crate::text::records::{Record, Records, read_records};
use crate::text::tokenizer::{Tokenizer, TokenizerError};
use crate::text::windows::{decoder_windows, encoder_sequences};
use std::path::{Path, PathBuf};

/// Tokens a decoder samples from itself, and most tokens read from a text.
pub const CALIBRATION_TOKENS: usize = 16_384;
/// Longest calibration sequence.
pub const WINDOW: usize = 256;
/// Fewest sequences that say anything.
pub const LEAST_SEQUENCES: usize = 4;
/// Texts for encoders, one a line, written for this project.
pub const ENCODER_TEXT: &str = include_str!("../../calibration/encoders.txt");

/// Where calibration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CalibrationText {
    /// A file: plain text, or JSONL with a field.
    File {
        /// The file.
        path: PathBuf,
        /// How its texts are told apart.
        form: TextForm,
    },
    /// Half of a file, half of the model's own samples.
    Mixed {
        /// The file.
        path: PathBuf,
        /// How its texts are told apart.
        form: TextForm,
        /// Seed of the samples.
        seed: u64,
    },
    /// The model's own samples at temperature 1 (decoders), or the shipped text (encoders).
    Default {
        /// Seed of the samples.
        seed: u64,
    },
}

/// Sequences to calibrate with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    /// Token ids, each run on its own; those of a text before those that the model sampled from itself.
    pub sequences: Vec<Vec<u32>>,
    /// How many of them the model sampled from itself.
    pub sampled: usize,
    /// Their source, for reports.
    pub description: String,
    /// The file they come from, and the changes of reading it.
    pub files_read: Vec<ReadNotes>,
}

impl Calibration {
    /// Tokens in all.
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(Vec::len).sum()
    }
}

/// Sequences for a dense model, of about `tokens` tokens.
pub fn calibration(
    model: &Model,
    source: &CalibrationText,
    tokens: usize,
    progress: &dyn Progress,
) -> Result<Calibration, CalibrationError> {
    if model.spec.stacks().is_some() {
        return Err(CalibrationError::EncoderDecoder { family: model.spec.family });
    }
    match source {
        CalibrationText::File { path, form } => from_file(model, path, form, tokens, progress),
        CalibrationText::Mixed { .. } if model.spec.kind == ModelKind::Encoder => Err(CalibrationError::Encoder),
        CalibrationText::Mixed { path, form, seed } => {
            let text = from_file(model, path, form, tokens / 2, progress).map_err(|error| match error {
                CalibrationError::TooFewTokens { needed, window, .. } => {
                    CalibrationError::TooFewTokens { tokens, needed: 2 * needed, window }
                }
                error => error,
            })?;
            let own = sample_itself(model, *seed, tokens - tokens / 2, progress)?;
            Ok(Calibration {
                sequences: text.sequences.into_iter().chain(own.sequences).collect(),
                sampled: own.sampled,
                description: format!("{}, and {}", text.description, own.description),
                files_read: text.files_read,
            })
        }
        CalibrationText::Default { seed } if model.spec.kind == ModelKind::Decoder => {
            sample_itself(model, *seed, tokens, progress)
        }
        CalibrationText::Default { .. } => {
            let shipped = "calibration/encoders.txt, shipped with slmc";
            encode(model, shipped_records(), shipped, tokens)
        }
    }
}

/// Streams of the samples that measure begin here, away from those of calibration and training.
const HELD_OUT_STREAM: u64 = 1 << 33;

/// At most `count` sequences to measure on, from the same source and after the part that `used` took. A source without
/// any more gives `used` itself, and the description says so.
pub fn held_out(
    model: &Model,
    source: &CalibrationText,
    used: &Calibration,
    count: usize,
    progress: &dyn Progress,
) -> Result<Calibration, CalibrationError> {
    let window = WINDOW.min(model.spec.context);
    let taken = used.sequences.len() - used.sampled;
    let own =
        |count: usize, seed: &u64| sample(model, count * window, window, seed.wrapping_add(HELD_OUT_STREAM), progress);
    let text = |count: usize, path: &PathBuf, form: &TextForm| -> Result<Vec<Vec<u32>>, CalibrationError> {
        let (sequences, _) = decoder_text(model, path, form, taken + count, &Silent)?;
        Ok(sequences.into_iter().skip(taken).take(count).collect())
    };
    let description = used.description.clone();
    let sequences = match (source, model.spec.kind) {
        (CalibrationText::Default { seed }, ModelKind::Decoder) => own(count, seed)?,
        (CalibrationText::File { path, form }, ModelKind::Decoder) => text(count, path, form)?,
        (CalibrationText::Mixed { path, form, seed }, ModelKind::Decoder) => {
            [text(count / 2, path, form)?, own(count - count / 2, seed)?].concat()
        }
        (_, ModelKind::EncoderDecoder(_)) => {
            return Err(CalibrationError::EncoderDecoder { family: model.spec.family });
        }
        (source, ModelKind::Encoder) => {
            let records = match source {
                CalibrationText::File { path, form } | CalibrationText::Mixed { path, form, .. } => {
                    read_records(path, form)?.records
                }
                CalibrationText::Default { .. } => shipped_records(),
            };
            let left = records.into_iter().skip(taken).take(count).collect();
            encode(model, left, "", usize::MAX)?.sequences
        }
    };
    if sequences.len() < LEAST_SEQUENCES {
        let sequences = used.sequences.iter().take(count).cloned().collect();
        let description = format!("{description}, the calibration text itself: it has no more");
        return Ok(Calibration { sequences, description, ..Calibration::default() });
    }
    let description = format!("{description}, after what was calibrated with");
    Ok(Calibration { sequences, description, ..Calibration::default() })
}

/// At most `count` sequences that no user chose: a decoder's own samples, the shipped text for an encoder.
///
/// # Errors
/// [`CalibrationError`].
pub fn independent_text(
    model: &Model,
    count: usize,
    progress: &dyn Progress,
) -> Result<Vec<Vec<u32>>, CalibrationError> {
    match model.spec.kind {
        ModelKind::EncoderDecoder(_) => Err(CalibrationError::EncoderDecoder { family: model.spec.family }),
        ModelKind::Decoder => {
            let window = WINDOW.min(model.spec.context);
            Ok(sample(model, count * window, window, HELD_OUT_STREAM, progress)?)
        }
        ModelKind::Encoder => {
            let records = shipped_records().into_iter().take(count).collect();
            Ok(encode(model, records, "", usize::MAX)?.sequences)
        }
    }
}

/// At most `count` tokens of the shipped text for a decoder, which opens as a text does; `None` without a tokenizer.
///
/// # Errors
/// [`CalibrationError::Tokenizer`].
pub fn sample_of_shipped_text(model: &Model, count: usize) -> Result<Option<Vec<u32>>, CalibrationError> {
    let mut tokenizer = match Tokenizer::of(&model.companions) {
        Ok(tokenizer) => tokenizer,
        Err(TokenizerError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    tokenizer.check(model.spec.vocabulary)?;
    let mut tokens = model.spec.opening.clone();
    for record in shipped_records() {
        if tokens.len() >= count {
            break;
        }
        tokens.extend(tokenizer.encode_plain(&format!("{}\n", record.text))?);
    }
    tokens.truncate(count.min(model.spec.context));
    Ok(Some(tokens))
}

/// The text for encoders.
fn shipped_records() -> Vec<Record> {
    let lines = ENCODER_TEXT.lines().enumerate().filter(|(_, line)| !line.is_empty());
    lines.map(|(line, text)| Record { line: line + 1, text: text.to_owned() }).collect()
}

fn from_file(
    model: &Model,
    path: &Path,
    form: &TextForm,
    wanted: usize,
    progress: &dyn Progress,
) -> Result<Calibration, CalibrationError> {
    let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    let calibration = match model.spec.kind {
        ModelKind::EncoderDecoder(_) => {
            return Err(CalibrationError::EncoderDecoder { family: model.spec.family });
        }
        ModelKind::Decoder => {
            let window = WINDOW.min(model.spec.context);
            let (mut sequences, notes) = decoder_text(model, path, form, (wanted / window).max(1), progress)?;
            keep_tokens(&mut sequences, wanted);
            Calibration { sequences, description: name, files_read: vec![notes], ..Calibration::default() }
        }
        ModelKind::Encoder => {
            let Records { records, notes } = read_records(path, form)?;
            notes.warn(progress);
            Calibration { files_read: vec![notes], ..encode(model, records, &name, wanted)? }
        }
    };
    let (found, needed) = (calibration.sequences.len(), LEAST_SEQUENCES);
    if found < needed {
        let window = WINDOW.min(model.spec.context);
        if model.spec.kind == ModelKind::Decoder && wanted < needed * window {
            return Err(CalibrationError::TooFewTokens { tokens: wanted, needed, window });
        }
        let tokens = calibration.tokens();
        return Err(CalibrationError::TooLittle { path: path.to_owned(), found, tokens, needed });
    }
    Ok(calibration)
}

/// A decoder's sequences: at most `windows` windows of a text, or all conversations of a file, each cut into sequences of a
/// window's length; with the changes of reading the file.
fn decoder_text(
    model: &Model,
    path: &Path,
    form: &TextForm,
    windows: usize,
    progress: &dyn Progress,
) -> Result<(Vec<Vec<u32>>, ReadNotes), CalibrationError> {
    let spec = &model.spec;
    let window = WINDOW.min(spec.context);
    let mut tokenizer = Tokenizer::of(&model.companions)?;
    tokenizer.check(spec.vocabulary)?;
    let field = form.field.as_deref();
    if let Some(file) = read_conversations(path, field, &model.companions, &tokenizer, &spec.ends)? {
        file.notes.warn(progress);
        let pieces = file.conversations.iter().flat_map(|spoken| spoken.tokens.chunks(window));
        return Ok((pieces.filter(|piece| piece.len() > 1).map(<[u32]>::to_vec).collect(), file.notes));
    }
    let documents = read_documents(path, form)?;
    let tokens = documents.tokens(&tokenizer, &spec.ends, progress)?;
    let cut = decoder_windows(&tokens, &spec.opening, spec.context, window, windows);
    let cut = cut.map_err(|source| CalibrationError::Window { path: path.to_owned(), source })?;
    Ok((cut, documents.notes))
}

/// Leaves out the sequences after those with the first `wanted` tokens.
fn keep_tokens(sequences: &mut Vec<Vec<u32>>, wanted: usize) {
    let mut left = wanted;
    sequences.retain(|sequence| {
        let keep = left > 0;
        left = left.saturating_sub(sequence.len());
        keep
    });
}

/// An encoder's sequences, up to the number of calibration tokens.
fn encode(model: &Model, records: Vec<Record>, name: &str, wanted: usize) -> Result<Calibration, CalibrationError> {
    let mut tokenizer = Tokenizer::of(&model.companions)?;
    tokenizer.check(model.spec.vocabulary)?;
    let mut sequences = encoder_sequences(&tokenizer, &records, WINDOW.min(model.spec.context))?.tokens;
    keep_tokens(&mut sequences, wanted);
    Ok(Calibration { sequences, description: name.to_owned(), ..Calibration::default() })
}

/// The model's own samples as calibration.
fn sample_itself(
    model: &Model,
    seed: u64,
    tokens: usize,
    progress: &dyn Progress,
) -> Result<Calibration, CalibrationError> {
    let sequences = sample(model, tokens, WINDOW.min(model.spec.context), seed, progress)?;
    let description = format!("sampled from the model itself, seed {seed}");
    Ok(Calibration { sampled: sequences.len(), sequences, description, files_read: Vec::new() })
}
