//! What a plan finds in the texts and the tokenizer of a stage, before models are made: a model without a tokenizer,
//! conversations without a chat template, rows without the keys that are read, a text that does not fill one window. A short
//! file is read as the work reads it; of a long one the first row tells.

use super::error::StageError;
use super::eval::{PROMPT, find_questions};
use super::known::KnownModel;
use super::stage::Faults;
use crate::formats;
use crate::model::companions::{Companions, TOKENIZER_FILE};
use crate::model::spec::{ModelKind, ModelSpec};
use crate::progress::Silent;
use crate::quantize::error::CalibrationError;
use crate::text::annotated::{read_questions, read_words};
use crate::text::conversations::{check_template, find_conversations};
use crate::text::documents::read_documents;
use crate::text::form::TextForm;
use crate::text::reasoning::{ReasoningForm, find_reasoned};
use crate::text::records::{TextError, check_first_row, read_labelled, read_records};
use crate::text::rows::row_format;
use crate::text::stream::TextStream;
use crate::text::tokenizer::Tokenizer;
use crate::text::windows::WindowError;
use crate::train::samples::{SamplesError, TEXT_FIELD, check_labels, no_pairs};
use std::path::{Path, PathBuf};

/// Longer files are not read in a plan.
const LONGEST_READ: u64 = 1 << 20;
/// A text with more bytes for every token of a window fills it.
const MOST_BYTES_A_TOKEN: usize = 16;

/// The texts of a stage, and the models whose tokens they become.
pub struct Texts<'t> {
    /// The model, where a plan knows it.
    pub model: Option<&'t KnownModel>,
    /// Where its tokenizer is, if that is not the model's.
    pub tokenizer: Option<&'t Path>,
    /// Where it is looked for last: the reference or the teacher.
    pub other: Option<&'t KnownModel>,
    /// The option that names the files.
    pub option: &'static str,
    /// How they are read.
    pub reads: Reads<'t>,
}

/// How a stage reads its texts.
#[derive(Clone, Copy)]
pub enum Reads<'t> {
    /// As one text, cut into windows of so many tokens, of which there must be so many; or as conversations.
    Windows(&'t TextForm, usize, usize),
    /// Likewise, or as records with a prompt and an answer.
    Samples(&'t TextForm, &'t ReasoningForm, usize),
    /// One by one.
    Records(&'t TextForm),
    /// With labels: the key of the text where the form names none, and that of the label.
    Labelled(&'t TextForm, &'static str, &'t str),
    /// As records with a prompt and an answer, or with the key of the answer as a label.
    Questions(&'t TextForm, &'t ReasoningForm, &'t str),
    /// As records with a prompt and an answer alone.
    Pairs(&'t ReasoningForm),
    /// As words with a label each, under this key.
    Words(&'t TextForm, &'t str),
    /// As questions about texts, with their answers under this key.
    Answers(&'t TextForm, &'t str),
}

impl Texts<'_> {
    /// Notes what is wrong with files; those that an earlier stage makes are looked at when they are there.
    pub fn check<'f, P: AsRef<Path> + ?Sized + 'f>(&self, files: impl IntoIterator<Item = &'f P>, faults: &mut Faults) {
        let Some(model) = self.model else { return };
        let files: Vec<&Path> = files.into_iter().map(AsRef::as_ref).collect();
        if files.is_empty() {
            return;
        }
        let companions = self.companions(model);
        let tokenizer = companions.iter().find(|companions| companions.find(TOKENIZER_FILE).is_some());
        if let (Some(first), None) = (companions.first(), tokenizer) {
            faults.check(if self.tokenizer.is_some() { "tokenizer" } else { "model" }, Tokenizer::of(first));
        }
        if let (Some(_), Some(companions)) = (self.tokenizer, tokenizer) {
            // One of another model may have more tokens than the table has rows.
            let checked = Tokenizer::of(companions).and_then(|mut own| own.check(model.spec.vocabulary));
            faults.check("tokenizer", checked);
        }
        for file in files.into_iter().filter(|file| file.is_file()) {
            if let (Some(companions), ModelKind::Decoder) = (companions.first(), model.spec.kind) {
                faults.check(self.option, check_template(file, self.field(), companions));
            }
            match is_short(file) {
                true => faults.check(self.option, self.read(file, (&model.spec, tokenizer))),
                false => faults.check(self.option, check_first_row(file, &self.keys()).map_err(StageError::from)),
            };
        }
    }

    /// Tokenizer and templates of the places where they are looked for.
    fn companions(&self, model: &KnownModel) -> Vec<Companions> {
        let own = |model: &KnownModel| model.files.as_ref().map(|files| files.path().to_owned());
        let places = match self.tokenizer {
            Some(place) => vec![place.to_owned()],
            None => own(model).into_iter().chain(self.other.and_then(own)).collect(),
        };
        let there = places.iter().filter(|place| place.exists());
        there.filter_map(|place| formats::companions(place).ok()).collect()
    }

    fn form(&self) -> Option<&TextForm> {
        match self.reads {
            Reads::Windows(form, ..)
            | Reads::Samples(form, ..)
            | Reads::Records(form)
            | Reads::Labelled(form, ..)
            | Reads::Questions(form, ..)
            | Reads::Words(form, _)
            | Reads::Answers(form, _) => Some(form),
            Reads::Pairs(_) => None,
        }
    }

    fn field(&self) -> Option<&str> {
        self.form().and_then(|form| form.field.as_deref())
    }

    /// Keys that every row must have.
    fn keys(&self) -> Vec<&str> {
        match self.reads {
            Reads::Labelled(form, text, label) => vec![form.field.as_deref().unwrap_or(text), label],
            _ => self.field().into_iter().collect(),
        }
    }

    /// Reads a short file.
    fn read(&self, file: &Path, model: (&ModelSpec, Option<&Companions>)) -> Result<(), StageError> {
        match self.reads {
            Reads::Windows(form, window, least) => windows(file, form, (window, least), model),
            Reads::Samples(form, records, window) => {
                let reasoned = match *form == TextForm::default() || records.is_asked() {
                    true => find_reasoned(file, records).map_err(SamplesError::from)?.is_some(),
                    false => false,
                };
                if reasoned { Ok(()) } else { windows(file, form, (window, 1), model) }
            }
            Reads::Records(form) => Ok(read_records(file, form).map(drop)?),
            Reads::Labelled(form, text, label) => {
                let records = read_labelled(file, form, text, label)?.records;
                // A bare encoder is given the labels of the data.
                match model.0.head.labels() {
                    Some(known) => Ok(check_labels(file, &records, known)?),
                    None => Ok(()),
                }
            }
            Reads::Questions(form, records, label) => match find_questions(file, form, records, label)? {
                Some(_) => Ok(()),
                None => Ok(read_labelled(file, form, PROMPT, label).map(drop)?),
            },
            Reads::Words(form, label) => Ok(read_words(file, form, label).map(drop)?),
            Reads::Answers(form, label) => Ok(read_questions(file, form, label).map(drop)?),
            Reads::Pairs(records) => match find_reasoned(file, records).map_err(SamplesError::from)? {
                Some(_) => Ok(()),
                None => Err(no_pairs(file, model.0.family, records).into()),
            },
        }
    }
}

/// Notes what a plan sees in files whose texts are read one after the other: all of a short one, the first of a long one.
pub fn check_stream<'f>(
    option: &'static str,
    files: impl IntoIterator<Item = &'f PathBuf>,
    form: &TextForm,
    faults: &mut Faults,
) {
    for file in files.into_iter().filter(|file| file.is_file()) {
        let rows = form.field.is_some() || row_format(file).is_some();
        if !is_short(file) {
            let key = form.field.as_deref().unwrap_or(TEXT_FIELD);
            faults.check(option, if rows { check_first_row(file, &[key]) } else { Ok(()) });
            continue;
        }
        let read = TextStream::open(file, form)
            .and_then(|mut texts| texts.try_fold(0usize, |count, text| text.map(|_| count + 1)));
        if faults.check(option, read) == Some(0) {
            faults.add(option, TextError::Empty { path: file.clone() });
        }
    }
}

fn is_short(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.len() <= LONGEST_READ)
}

/// Whether a text fills as many windows as are needed. Conversations are left to the work.
fn windows(
    file: &Path,
    form: &TextForm,
    (window, least): (usize, usize),
    (spec, companions): (&ModelSpec, Option<&Companions>),
) -> Result<(), StageError> {
    if find_conversations(file, form.field.as_deref())?.is_some() {
        return Ok(());
    }
    let documents = read_documents(file, form)?;
    // Longer windows than the model's context are a fault of their own.
    let needed = window.min(spec.context).saturating_sub(spec.opening.len()).max(1);
    let bytes: usize = documents.texts.iter().map(String::len).sum();
    let plenty = needed.saturating_mul(least).saturating_mul(MOST_BYTES_A_TOKEN);
    let Some(companions) = companions.filter(|_| bytes < plenty) else { return Ok(()) };
    let mut tokenizer = Tokenizer::of(companions)?;
    tokenizer.check(spec.vocabulary)?;
    let tokens = documents.tokens(&tokenizer, &spec.ends, &Silent)?.len();
    let path = file.to_owned();
    match tokens / needed {
        0 => Err(StageError::Window { path, source: WindowError::TooLittleText { tokens, needed } }),
        found if found < least => Err(CalibrationError::TooLittle { path, found, tokens, needed: least }.into()),
        _ => Ok(()),
    }
}
