//! `slmc inspect` of a model in any format: how its weights are stored; every file that may stand beside them, whether it is
//! there, and what it decides: tokens that open and end a text, how tokens are chosen, the chat template, how a text becomes
//! one vector. The decisions are those of the other commands, by the same functions.

use crate::disk::PROVENANCE_FILE;
use crate::formats::{self, ModelFormatError, StorageRow};
use crate::model::companions::{
    Companion, Companions, GENERATION_CONFIG_FILE, LEGACY_TEMPLATE_FILE, MODULES_FILE, PROMPTS_FILE, SENTENCE_FILES,
    SPECIAL_TOKENS_FILE, TEMPLATE_FILE, TEMPLATE_FOLDER, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE,
};
use crate::model::generation::{self, sampling_json, sampling_words};
use crate::model::sentence;
use crate::model::spec::{Head, ModelKind, ModelSpec};
use crate::model::weights::Outline;
use crate::report::{Align, Report, Table, grouped};
use crate::text::chat_template::ChatTemplate;
use crate::text::tokenizer::Tokenizer;
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

/// One file that may be there.
#[derive(Clone, Debug, Serialize)]
pub struct FileSummary {
    /// Its name; of a file in a folder with the folder's.
    pub name: String,
    /// Whether it is there.
    pub found: bool,
    /// What follows from it, or from its absence.
    pub decides: String,
}

/// Something that was found and decided.
#[derive(Clone, Debug, Serialize)]
pub struct NoteSummary {
    /// Whether something was left out that a person may miss.
    pub warning: bool,
    /// In words.
    pub text: String,
}

/// Result of `slmc inspect` of a directory.
#[derive(Clone, Debug, Serialize)]
pub struct CheckpointReport {
    /// The format, as messages call it.
    pub format: &'static str,
    /// `model_type`.
    pub family: &'static str,
    /// `decoder` or `encoder`.
    pub kind: &'static str,
    /// Next-token logits, masked-token logits, logits of labels, or hidden states.
    pub output: &'static str,
    /// Layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Rows of the token table.
    pub vocabulary: usize,
    /// Most positions.
    pub positions: usize,
    /// Weights by their shapes, a tied tensor once.
    pub parameters: u64,
    /// Tokens that stand before a decoder's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opening_tokens: Option<Vec<u32>>,
    /// Tokens that end one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_tokens: Option<Vec<u32>>,
    /// How a decoder's tokens are chosen: temperature, top_k, top_p, min_p, repetition_penalty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Value>,
    /// Names of a decoder's chat templates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_templates: Option<Vec<String>>,
    /// How hidden states become one vector: `cls`, `mean`, `max` or `lasttoken`; absent where no file says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooling: Option<&'static str>,
    /// Whether that vector is scaled to length one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalized: Option<bool>,
    /// Most tokens of a text: the default context of an artifact.
    pub text_tokens: usize,
    /// One more than the highest id of the tokenizer; absent where it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer_ids: Option<usize>,
    /// How its tensors are stored, and what is exact; empty where the configuration says it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stored: Vec<StorageRow>,
    /// Every file that may be there.
    pub files: Vec<FileSummary>,
    /// What was found and decided beside that.
    pub notes: Vec<NoteSummary>,
}

impl Report for CheckpointReport {
    const SCHEMA: &'static str = "slmc.inspect-directory/1";

    fn text(&self) -> String {
        let mut facts = Table::pairs();
        facts.row(["format", self.format]);
        let model = format!(
            "{} {}, {} layers of {}, {} parameters, {} positions",
            self.family,
            self.kind,
            self.layers,
            self.hidden,
            grouped(self.parameters),
            grouped(self.positions as u64)
        );
        facts.row(["model", &model]);
        facts.row(["output", self.output]);
        let mut files = Table::new([("file", Align::Left), ("", Align::Left), ("decides", Align::Left)]);
        for file in &self.files {
            files.row([file.name.as_str(), if file.found { "found" } else { "absent" }, &file.decides]);
        }
        let notes: String = self
            .notes
            .iter()
            .map(|note| format!("\n{}: {}", if note.warning { "warning" } else { "note" }, note.text))
            .collect();
        let notes = if notes.is_empty() { notes } else { format!("\n{notes}") };
        let stored = StorageRow::table(&self.stored).map_or_else(String::new, |table| format!("{table}\n\n"));
        format!("{facts}\n\n{stored}{files}{notes}")
    }
}

/// Reads the files of the model at a path; of the weights only their headers.
///
/// # Errors
/// [`ModelFormatError`]: what the other commands refuse, too.
pub fn inspect(path: &Path) -> Result<CheckpointReport, ModelFormatError> {
    let source = formats::open(path)?;
    let outline = source.outline();
    let (spec, companions) = (&outline.spec, &outline.companions);
    let decoder = spec.kind == ModelKind::Decoder;
    let writes = spec.kind != ModelKind::Encoder;
    let sampling = writes.then(|| generation::read(companions)).transpose()?.map(|read| read.sampling);
    let template = decoder.then(|| ChatTemplate::of(companions)).transpose();
    let tokenizer = Tokenizer::of(companions);
    let found = Found { outline, template: &template, tokenizer: tokenizer.as_ref() };
    let names = |template: &ChatTemplate| template.names().map(str::to_owned).collect();
    Ok(CheckpointReport {
        format: formats::name(path),
        family: spec.family,
        kind: match spec.kind {
            ModelKind::Decoder => "decoder",
            ModelKind::Encoder => "encoder",
            ModelKind::EncoderDecoder(_) => "encoder-decoder",
        },
        output: spec.head.output(),
        layers: spec.layers.len(),
        hidden: spec.hidden,
        vocabulary: spec.vocabulary,
        positions: spec.context,
        parameters: spec.parameter_count(),
        opening_tokens: decoder.then(|| spec.opening.clone()),
        end_tokens: writes.then(|| spec.ends.clone()),
        sampling: sampling.as_ref().map(sampling_json),
        chat_templates: match &template {
            Ok(Some(template)) => Some(template.as_ref().map_or_else(Vec::new, names)),
            _ => None,
        },
        pooling: spec.embedding.map(|embedding| embedding.pooling.name()),
        normalized: spec.embedding.map(|embedding| embedding.normalize),
        text_tokens: spec.text_context(),
        tokenizer_ids: tokenizer.as_ref().ok().map(Tokenizer::vocabulary_size),
        stored: formats::storage(source.as_ref())?,
        files: found.files()?,
        notes: outline
            .notes
            .iter()
            .map(|note| NoteSummary { warning: note.is_warning(), text: note.to_string() })
            .collect(),
    })
}

/// The files of a model with what was read from them.
struct Found<'a, E, T> {
    outline: &'a Outline,
    template: &'a Result<Option<Option<ChatTemplate>>, E>,
    tokenizer: Result<&'a Tokenizer, T>,
}

/// Token ids in words.
fn list(ids: &[u32]) -> String {
    match ids {
        [] => "none".to_owned(),
        ids => ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", "),
    }
}

impl<E: std::fmt::Display, T: std::fmt::Display> Found<'_, E, T> {
    fn spec(&self) -> &ModelSpec {
        &self.outline.spec
    }

    fn companions(&self) -> &Companions {
        &self.outline.companions
    }

    fn decoder(&self) -> bool {
        self.spec().kind == ModelKind::Decoder
    }

    /// Every file in the order in which they are read.
    fn files(&self) -> Result<Vec<FileSummary>, ModelFormatError> {
        let spec = self.spec();
        let file = |name: &str, found, decides: String| FileSummary { name: name.to_owned(), found, decides };
        let model = format!("{}, vocabulary {}", spec.family, grouped(spec.vocabulary as u64));
        let mut files = vec![file(
            self.outline.config.file().file_name().and_then(|name| name.to_str()).unwrap_or("config.json"),
            true,
            model,
        )];
        let known: Vec<&str> = [TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE, GENERATION_CONFIG_FILE]
            .into_iter()
            .chain([TEMPLATE_FILE, LEGACY_TEMPLATE_FILE, MODULES_FILE, SENTENCE_FILES[0], PROMPTS_FILE])
            .collect();
        for name in known {
            let found = self.companions().find(name).is_some();
            let decides = if found { self.there(name)? } else { self.absent(name) };
            files.push(file(name, found, decides));
            if name == MODULES_FILE {
                let of_modules = self.companions().iter().filter(|(name, _)| name.ends_with("/config.json"));
                files.extend(of_modules.map(|(name, companion)| file(name, true, self.module(name, companion))));
            }
        }
        for (name, _) in self.companions().iter() {
            if !files.iter().any(|file| file.name == name) {
                files.push(file(name, true, self.there(name)?));
            }
        }
        let made = self.outline.path.join(PROVENANCE_FILE).is_file();
        let how = if made { "how slmc made the model; which weights are sparse" } else { "not made by slmc" };
        files.push(file(PROVENANCE_FILE, made, how.to_owned()));
        Ok(files)
    }

    /// What a file decides that is there.
    fn there(&self, name: &str) -> Result<String, ModelFormatError> {
        let spec = self.spec();
        Ok(match name {
            TOKENIZER_FILE => match &self.tokenizer {
                Ok(tokenizer) => self.tokenizer(tokenizer.vocabulary_size()),
                Err(error) => format!("cannot be used: {error}"),
            },
            TOKENIZER_CONFIG_FILE => self.tokenizer_config()?,
            SPECIAL_TOKENS_FILE => format!("special tokens that {TOKENIZER_CONFIG_FILE} does not name"),
            GENERATION_CONFIG_FILE if self.decoder() => {
                let generation = generation::read(self.companions())?;
                let ends = if self.generation_ends()? { list(&spec.ends) } else { "by config.json".to_owned() };
                format!("end tokens: {ends}; chosen: {}", sampling_words(&generation.sampling))
            }
            GENERATION_CONFIG_FILE => "nothing: encoders do not continue text".to_owned(),
            TEMPLATE_FILE | LEGACY_TEMPLATE_FILE => self.template(name),
            MODULES_FILE => match spec.embedding {
                Some(embedding) => format!("one vector of a text: {embedding}"),
                None => format!("nothing: the model gives {}", self.output()),
            },
            PROMPTS_FILE => self.prompts()?,
            "added_tokens.json" | "vocab.txt" | "vocab.json" | "merges.txt" | "tokenizer.model" => {
                format!("nothing: {TOKENIZER_FILE} has it all")
            }
            name if SENTENCE_FILES.contains(&name) => self.sentence()?,
            name if name.starts_with(TEMPLATE_FOLDER) => self.template(name),
            _ => "nothing; it travels with the model".to_owned(),
        })
    }

    /// What follows where a file is absent.
    fn absent(&self, name: &str) -> String {
        let hidden = self.spec().head == Head::Hidden;
        let said = match name {
            TOKENIZER_FILE => "no text can be read; `compile` needs it",
            TOKENIZER_CONFIG_FILE => "nothing is missing: the tokenizer says what opens a text",
            SPECIAL_TOKENS_FILE => "nothing is missing: it is the older form of tokenizer_config.json",
            GENERATION_CONFIG_FILE if self.decoder() => {
                return format!("end tokens by config.json: {}; chosen: the likeliest token", list(&self.spec().ends));
            }
            TEMPLATE_FILE if self.decoder() => match self.template {
                Ok(Some(Some(_))) => "nothing is missing: the chat template is elsewhere",
                _ => "no chat template: the model cannot be asked, only continued",
            },
            MODULES_FILE if hidden => {
                "no pooling: an artifact gives a state for every token, and `eval` takes their mean, scaled to length one"
            }
            name if hidden && name == SENTENCE_FILES[0] => {
                return format!("at most {} tokens of a text", grouped(self.spec().text_context() as u64));
            }
            PROMPTS_FILE if hidden => "nothing is missing: no prompts",
            _ => "nothing is missing: a model of this kind does without",
        };
        said.to_owned()
    }

    fn output(&self) -> &'static str {
        self.spec().head.output()
    }

    fn tokenizer(&self, ids: usize) -> String {
        let (rows, spec) = (self.spec().vocabulary, self.spec());
        let fit = match rows.cmp(&ids) {
            std::cmp::Ordering::Equal => "as many as the table has rows".to_owned(),
            std::cmp::Ordering::Greater => {
                format!("the table's last {} rows are padding", grouped((rows - ids) as u64))
            }
            std::cmp::Ordering::Less => format!("{} of them without a row", grouped((ids - rows) as u64)),
        };
        let opening = if self.decoder() { format!("; opening tokens: {}", list(&spec.opening)) } else { String::new() };
        format!("{} ids, {fit}{opening}", grouped(ids as u64))
    }

    fn tokenizer_config(&self) -> Result<String, ModelFormatError> {
        let Some(config) = self.companions().find(TOKENIZER_CONFIG_FILE).map(Companion::config).transpose()? else {
            return Ok(String::new());
        };
        let mut said = Vec::new();
        if self.decoder() {
            let adds = config.flag_or("add_bos_token", false)?;
            said.push(if adds {
                "an opening token is added".to_owned()
            } else {
                "no opening token is added".to_owned()
            });
            if self.decides_template(TOKENIZER_CONFIG_FILE) {
                said.push("the chat template".to_owned());
            }
        } else if let Some(longest) = config.value("model_max_length").and_then(Value::as_u64) {
            let stated = sentence::states_longest_text(self.companions())?;
            let by = if self.spec().embedding.is_none() || stated { ", not followed" } else { "" };
            said.push(format!("`model_max_length` is {longest}{by}"));
        }
        Ok(if said.is_empty() { "nothing that the tokenizer does not say".to_owned() } else { said.join("; ") })
    }

    fn generation_ends(&self) -> Result<bool, ModelFormatError> {
        let Some(companion) = self.companions().find(GENERATION_CONFIG_FILE) else { return Ok(false) };
        Ok(!companion.config()?.tokens("eos_token_id", self.spec().vocabulary)?.is_empty())
    }

    fn decides_template(&self, name: &str) -> bool {
        let Ok(Some(Some(template))) = self.template else { return false };
        self.companions().find(name).is_some_and(|companion| companion.path() == template.path())
            || template.path() == self.companions().origin()
    }

    fn template(&self, name: &str) -> String {
        match self.template {
            Ok(None) => "nothing: nobody asks an encoder".to_owned(),
            Ok(Some(_)) if self.decides_template(name) => "the chat template".to_owned(),
            Ok(Some(_)) => "nothing: another file has the chat template".to_owned(),
            Err(error) => format!("cannot be used: {error}"),
        }
    }

    fn module(&self, name: &str, companion: &Companion) -> String {
        let Some(embedding) = self.spec().embedding else { return "nothing: modules.json is not followed".to_owned() };
        let pools = companion.config().is_ok_and(|config| {
            config.map().keys().any(|key| key.starts_with("pooling_mode") || key.ends_with("embedding_dimension"))
        });
        match pools {
            true => format!("pooling: {}", embedding.pooling.name()),
            false if name.contains("Normalize") => "scaling to length one".to_owned(),
            false => "nothing further".to_owned(),
        }
    }

    fn sentence(&self) -> Result<String, ModelFormatError> {
        let spec = self.spec();
        if spec.head != Head::Hidden {
            return Ok(format!("nothing: the model gives {}", self.output()));
        }
        let lower = if sentence::lower_cases(self.companions())? { "; texts are lower-cased" } else { "" };
        Ok(format!("at most {} tokens of a text{lower}", grouped(spec.text_context() as u64)))
    }

    fn prompts(&self) -> Result<String, ModelFormatError> {
        let config = self.companions().find(PROMPTS_FILE).map(Companion::config).transpose()?;
        let section = match &config {
            Some(config) => config.section("prompts")?,
            None => None,
        };
        let named = section.iter().flat_map(|section| section.map().iter());
        let names: Vec<&str> = named
            .filter(|(_, prompt)| prompt.as_str().is_some_and(|prompt| !prompt.is_empty()))
            .map(|(name, _)| name.as_str())
            .collect();
        Ok(match names.as_slice() {
            [] => "no prompts".to_owned(),
            names => format!("prompts, none of which slmc adds: {}", names.join(", ")),
        })
    }
}
