//! The work of `slmc synthesize`: prompts, batches of texts, what is left out, and the file.
//!
//! ```text
//! {"mean_log_probability":…,"tokens":…,"ended":…,"prompt":"…","text":"…"}                     beginnings, with what follows
//! {"mean_log_probability":…,"tokens":…,"ended":…,"prompt":"…","answer":"…","messages":[…]}    questions, with the answer
//! ```

use super::error::SynthesisError;
use super::filter::{Judged, Limits, judge};
use super::need_bytes;
use super::prompts::{self, Given, Prompts};
use super::report::{SynthesisReport, dropped};
use super::state::Batches;
use crate::calibrate::CalibrateError;
use crate::calibrate::continuations::{Continuation, Manner, Prompt, batches, continue_together, together};
use crate::disk::atomic;
use crate::divergence::percentile;
use crate::formats;
use crate::model::companions::{Companion, TOKENIZER_FILE};
use crate::model::forward::FusedWeights;
use crate::model::generation::sampling_json;
use crate::model::spec::ModelKind;
use crate::model::weights::Model;
use crate::progress::Progress;
use crate::stages::StageError;
use crate::stages::provenance::Inputs;
use crate::stages::resume::Resume;
use crate::text::chat_template::{Message, message};
use crate::text::form::TextForm;
use crate::text::tokenizer::Tokenizer;
use crate::text::vocabulary::TextRules;
use crate::text::windows::Choice;
use serde::Serialize;
use serde_json::{Value, json};
use slm_runtime::sample::{Sampling, random_u64};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// First bytes of every file that is written.
pub(super) const MAGIC: &[u8] = b"{\"mean_log_probability\":";

/// Options of `slmc synthesize`, checked.
#[derive(Clone, Debug)]
pub struct SynthesisOptions {
    /// The model that writes.
    pub model: PathBuf,
    /// File to write.
    pub out: PathBuf,
    /// File of prompts.
    pub prompts: Option<PathBuf>,
    /// How its texts are told apart.
    pub form: TextForm,
    /// Whether every prompt is a question.
    pub chat: bool,
    /// System message before it.
    pub system: Option<String>,
    /// Tokens of a text that are given.
    pub prefix: Option<usize>,
    /// Texts to write; one a prompt if absent.
    pub texts: Option<usize>,
    /// Most tokens of a text, its prompt included.
    pub window: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What is left out.
    pub limits: Limits,
    /// Seed of the draws.
    pub seed: u64,
}

/// Writes texts.
///
/// # Errors
/// [`StageError`].
pub fn synthesize(options: &SynthesisOptions, progress: &dyn Progress) -> Result<SynthesisReport, StageError> {
    atomic::check_file(&options.out, MAGIC)?;
    let mut model = formats::open_model(&options.model)?;
    if model.spec.kind != ModelKind::Decoder {
        return Err(SynthesisError::NotADecoder { path: options.model.clone() }.into());
    }
    let mut tokenizer = Tokenizer::of(&model.companions)?;
    tokenizer.check(model.spec.vocabulary)?;
    let of_model = prompts::Model { spec: &model.spec, companions: &model.companions, tokenizer: &tokenizer };
    let Prompts { mut list, too_long, notes } = prompts::read(options, of_model, progress)?;
    let count = options.texts.unwrap_or(list.len());
    Choice::Spread.take(&mut list, count);
    let tokens = (count * options.window) as u64;
    progress.needs("synthesizing", need_bytes(&model.spec, options.window, tokens));
    let resume = Resume::of(&options.out, &identity(options, &model)?);
    let state = Batches::open(&options.out, &resume.fingerprint())?;
    let weights = FusedWeights::of_model(&model)?;
    model.parameters.clear();
    let texts: Vec<Prompt> = (0..count)
        .map(|number| Prompt {
            tokens: list[number % list.len()].tokens.clone(),
            stream: random_u64(options.seed, number as u64),
        })
        .collect();
    let (written, resumed) = write_all(options, &model, &weights, &texts, &state, progress)?;
    drop(weights);
    let report = Finished { options, list: &list, written: &written, tokenizer: &tokenizer }.write(&model)?;
    resume.finished()?;
    Ok(SynthesisReport {
        prompts_too_long: too_long,
        batches_resumed: (resumed > 0).then_some(resumed),
        files_read: notes.into_iter().collect(),
        ..report
    })
}

/// Everything that decides what is written.
fn identity(options: &SynthesisOptions, model: &Model) -> Result<Value, StageError> {
    let inputs = Inputs::default().model("model", &options.model)?.files("prompts", &options.prompts)?;
    let tokenizer = model.companions.find(TOKENIZER_FILE).map(Companion::sha256).transpose()?;
    Ok(json!({
        "tool": env!("CARGO_PKG_VERSION"),
        "inputs": inputs.json(),
        "tokenizer": tokenizer.as_ref().map(crate::disk::hash::hex),
        "opening": model.spec.opening,
        "ends": model.spec.ends,
        "form": format!("{:?}", options.form),
        "chat": options.chat,
        "system": options.system,
        "prefix": options.prefix,
        "texts": options.texts,
        "window": options.window,
        "sampling": sampling_json(&options.sampling),
        "seed": options.seed,
    }))
}

/// Every text in the order of their numbers, and the number of batches that were there.
fn write_all(
    options: &SynthesisOptions,
    model: &Model,
    weights: &FusedWeights,
    texts: &[Prompt],
    state: &Batches,
    progress: &dyn Progress,
) -> Result<(Vec<Continuation>, u64), StageError> {
    let room = |text: &Prompt| options.window - text.tokens.len();
    progress.begin("writing", texts.iter().map(room).sum::<usize>() as u64, "tokens");
    let manner = Manner { sampling: options.sampling, window: options.window };
    let mut written: BTreeMap<usize, Continuation> = BTreeMap::new();
    let mut resumed = 0;
    let order = batches(texts, together(&model.spec, options.window));
    for (number, batch) in order.iter().enumerate() {
        let most: usize = batch.iter().map(|&text| room(&texts[text])).sum();
        let (done, advanced) = match state.load(number, batch.len())? {
            Some(done) => {
                resumed += 1;
                (done, 0)
            }
            None => {
                let prompts: Vec<&Prompt> = batch.iter().map(|&text| &texts[text]).collect();
                let done = continue_together(&model.spec, weights, &prompts, &manner, progress);
                let done = done.map_err(CalibrateError::from)?;
                state.save(number, &done)?;
                let advanced = done.iter().map(|text| text.tokens.len()).sum();
                progress.saved(number as u64 + 1);
                (done, advanced)
            }
        };
        // A text that ended early takes no more.
        progress.advance((most - advanced) as u64);
        written.extend(batch.iter().copied().zip(done));
    }
    progress.finish();
    Ok((written.into_values().collect(), resumed))
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'l> {
    mean_log_probability: f64,
    tokens: usize,
    ended: bool,
    prompt: &'l str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'l str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'l str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<Message>>,
}

/// Tokens as text.
struct Spelling {
    vocabulary: Vec<Vec<u8>>,
    rules: TextRules,
}

impl Spelling {
    /// The text of tokens that may begin and end within a character; `None` where they are no text between.
    fn text(&self, tokens: &[u32]) -> Option<String> {
        let bytes: Vec<u8> = tokens
            .iter()
            .flat_map(|&id| self.vocabulary.get(id as usize).map_or(&[][..], Vec::as_slice))
            .copied()
            .collect();
        let mut rest = self.rules.start_of_text(&bytes);
        // Bytes that continue a character whose beginning is not there.
        while let [0x80..=0xBF, tail @ ..] = rest {
            rest = tail;
        }
        match std::str::from_utf8(rest) {
            Ok(text) => Some(text.to_owned()),
            Err(error) if error.error_len().is_none() => {
                Some(String::from_utf8_lossy(&rest[..error.valid_up_to()]).into_owned())
            }
            Err(_) => None,
        }
    }
}

/// Rounded to six places: more says nothing.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// Texts that are written, not yet judged.
struct Finished<'f> {
    options: &'f SynthesisOptions,
    list: &'f [Given],
    written: &'f [Continuation],
    tokenizer: &'f Tokenizer,
}

impl Finished<'_> {
    /// Judges every text and writes those that are kept.
    fn write(&self, model: &Model) -> Result<SynthesisReport, StageError> {
        let Finished { options, list, written, tokenizer } = *self;
        let spelling =
            Spelling { vocabulary: tokenizer.vocabulary_bytes(model.spec.vocabulary)?, rules: tokenizer.text_rules()? };
        let given = |number: usize| &list[number % list.len()];
        // Of a beginning with what follows, of an answer alone.
        let whole = |number: usize| {
            let own = given(number);
            spelling.text(&[&own.tokens[own.opening..], &written[number].tokens].concat())
        };
        let texts: Vec<Option<String>> = (0..written.len()).map(whole).collect();
        let own: Vec<Option<String>> = written.iter().map(|text| spelling.text(&text.tokens)).collect();
        let judged = |number: usize| Judged {
            written: &written[number],
            prompt: number % list.len(),
            // A piece of a text may begin within a character; the whole one is what counts.
            text: texts[number].as_ref().and(own[number].as_deref().or(texts[number].as_deref())),
        };
        let judged: Vec<Judged<'_>> = (0..written.len()).map(judged).collect();
        let reasons = judge(&judged, &options.limits);
        let left_out = dropped(&reasons, &texts);
        let kept: Vec<usize> = (0..written.len()).filter(|&text| reasons[text].is_none()).collect();
        if kept.is_empty() {
            let reasons: Vec<String> =
                left_out.iter().map(|dropped| format!("{}: {}", dropped.reason, dropped.texts)).collect();
            return Err(SynthesisError::NothingLeft { texts: written.len(), reasons: reasons.join(", ") }.into());
        }
        atomic::write_file(&options.out, MAGIC, |file| {
            for &number in &kept {
                let text = texts[number].as_deref().unwrap_or_default();
                let line = self.line(given(number), &written[number], text, &spelling);
                writeln!(file, "{line}")?;
            }
            Ok(())
        })?;
        let means: Vec<f64> = written.iter().map(Continuation::mean_log_probability).collect();
        let point = |share| percentile(&means, share).map_or(0.0, rounded);
        let tokens = |texts: &mut dyn Iterator<Item = usize>| texts.map(|text| written[text].tokens.len() as u64).sum();
        Ok(SynthesisReport {
            prompts: list.len() as u64,
            prompts_too_long: 0,
            texts: written.len() as u64,
            kept: kept.len() as u64,
            tokens: tokens(&mut kept.iter().copied()),
            tokens_written: tokens(&mut (0..written.len())),
            ended: written.iter().filter(|text| text.end.is_some()).count() as u64,
            mean_log_probability: rounded(kept.iter().map(|&text| means[text]).sum::<f64>() / kept.len() as f64),
            log_probability_points: [0.05, 0.25, 0.5, 0.75, 0.95].map(point),
            dropped: left_out,
            batches_resumed: None,
            files_read: Vec::new(),
        })
    }

    fn line(&self, given: &Given, written: &Continuation, text: &str, spelling: &Spelling) -> String {
        let beginning = spelling.text(&given.tokens[given.opening..]).unwrap_or_default();
        let content = |message: &Message| message.get("content").and_then(Value::as_str).unwrap_or_default().to_owned();
        let question = given.messages.as_ref().and_then(|messages| messages.last()).map(content);
        let answer = text.trim();
        let messages = given
            .messages
            .as_ref()
            .map(|messages| messages.iter().cloned().chain([message("assistant", answer)]).collect::<Vec<Message>>());
        let line = Line {
            mean_log_probability: rounded(written.mean_log_probability()),
            tokens: written.tokens.len(),
            ended: written.end.is_some(),
            prompt: question.as_deref().unwrap_or(&beginning),
            text: messages.is_none().then_some(text),
            answer: messages.is_some().then_some(answer),
            messages,
        };
        json!(line).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_text_between_whole_characters() {
        let vocabulary = [&b" a"[..], "é".as_bytes(), &[0xC3], &[0xA9], &[0xFF]].map(<[u8]>::to_vec).to_vec();
        let text = |strip_leading_space: bool, tokens: &[u32]| {
            Spelling { vocabulary: vocabulary.clone(), rules: TextRules { strip_leading_space } }.text(tokens)
        };
        assert_eq!(text(true, &[0, 1]).as_deref(), Some("aé"));
        assert_eq!(text(false, &[3, 0, 2, 3]).as_deref(), Some(" aé"));
        assert_eq!(text(false, &[0, 2]).as_deref(), Some(" a"));
        assert_eq!(text(false, &[0, 4, 0]), None);
        assert_eq!(text(false, &[0, 2, 0]), None);
    }
}
