//! A checkpoint's `tokenizer.json`, and the only user of the `tokenizers` crate. Padding and truncation settings of
//! the file are ignored: text becomes exactly its own tokens, and cutting is decided by the caller.

mod places;

use super::device_text::{self, HostOnly};
use super::vocabulary::{self, DecoderSteps, TextRules};
use crate::disk::ConfigError;
use crate::disk::found::without_byte_order_mark;
use crate::model::companions::{Companions, TOKENIZER_FILE};
use crate::model::special_tokens::tokenizer_json;
pub use places::Encoded;
use rayon::prelude::*;
use std::fmt;
use std::path::{Path, PathBuf};
use tokenizers::{PostProcessor, TruncationDirection};

/// Why text could not become tokens, or tokens text.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The model comes without a `tokenizer.json`.
    #[error(
        "{} does not exist; copy the tokenizer.json of the checkpoint there (a sentencepiece `tokenizer.model` is \
         converted by transformers' `AutoTokenizer.from_pretrained(…).save_pretrained(…)`)",
        path.display()
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The tokenizer of a model in another format cannot be rebuilt.
    #[error(
        "{}: the tokenizer cannot be rebuilt: {reason}; pass --tokenizer DIR (to `slmc import`, where a command has none), a directory with the model's tokenizer.json",
        path.display()
    )]
    NotRebuilt {
        /// The model.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file or tokenizer_config.json cannot be read, or the two disagree.
    #[error(transparent)]
    Files(#[from] ConfigError),
    /// The file is not a tokenizer that the `tokenizers` crate knows.
    #[error(
        "{} is not a tokenizer: {message}; expected the file that transformers' `save_pretrained` writes",
        path.display()
    )]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        message: String,
    },
    /// Tokenization of a text failed.
    #[error("the tokenizer {} cannot encode a text of {bytes} bytes: {message}", path.display())]
    Encode {
        /// The tokenizer.
        path: PathBuf,
        /// Length of the text.
        bytes: usize,
        /// The tokenizer's words.
        message: String,
    },
    /// Decoding failed.
    #[error("the tokenizer {} cannot decode {tokens} tokens: {message}", path.display())]
    Decode {
        /// The tokenizer.
        path: PathBuf,
        /// Number of tokens.
        tokens: usize,
        /// The tokenizer's words.
        message: String,
    },
    /// The tokenizer can produce ids for which the model has no row.
    #[error(
        "the tokenizer {} has {tokenizer} ids and the model a vocabulary of {model} (highest token: {id} `{token}`); \
         use the tokenizer.json that belongs to this model",
        path.display()
    )]
    TooManyTokens {
        /// The tokenizer.
        path: PathBuf,
        /// Its ids.
        tokenizer: usize,
        /// Rows of the model's token table.
        model: usize,
        /// The highest id.
        id: u32,
        /// Its token.
        token: String,
    },
    /// A text has a token for which the model has no row.
    #[error(
        "a text needs token {id} `{token}` of {}, for which the model's table of {rows} rows has none; take it out of the text",
        path.display()
    )]
    NoRow {
        /// The tokenizer.
        path: PathBuf,
        /// The token.
        id: u32,
        /// Its spelling.
        token: String,
        /// Rows of the model's token table.
        rows: usize,
    },
    /// The special tokens alone fill the context.
    #[error(
        "a context of {context} positions holds nothing beside the {specials} special tokens of {}; use a longer one",
        path.display()
    )]
    NoRoom {
        /// The tokenizer.
        path: PathBuf,
        /// Most tokens of a sequence.
        context: usize,
        /// Special tokens around every text.
        specials: usize,
    },
    /// A question and the special tokens fill the context.
    #[error("the question of {question} tokens leaves nothing of a context of {context} for the text; shorten it")]
    LongQuestion {
        /// Tokens of the question and the special tokens.
        question: usize,
        /// Most tokens of a sequence.
        context: usize,
    },
    /// The decoder is none that a table of bytes can stand for.
    #[error(
        "the decoder of {} cannot become a table of bytes per token: {found}; known: ByteLevel, WordPiece, Metaspace, \
         and Replace, ByteFallback, Fuse, Strip in a Sequence",
        path.display()
    )]
    UnsupportedDecoder {
        /// The tokenizer.
        path: PathBuf,
        /// What it has.
        found: String,
    },
}

/// Something about a tokenizer that is allowed and should be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerWarning {
    /// The model's token table has rows that no token uses.
    PaddedVocabulary {
        /// Ids of the tokenizer.
        tokenizer: usize,
        /// Rows of the table.
        model: usize,
    },
}

impl fmt::Display for TokenizerWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenizerWarning::PaddedVocabulary { tokenizer, model } => write!(
                f,
                "the model's vocabulary of {model} has {} rows beyond the tokenizer's {tokenizer} ids; they are \
                 kept as padding and decode to nothing",
                model - tokenizer
            ),
        }
    }
}

/// The tokens of a model's tokenizer with their ids, as its file has them: equal tables give every text the same ids.
/// `None` where there is none that can be read.
pub fn token_table(companions: &Companions) -> Option<serde_json::Value> {
    token_table_of(&companions.find(TOKENIZER_FILE)?.read().ok()?)
}

/// As [`token_table`], from the bytes of a `tokenizer.json`.
pub fn token_table_of(bytes: &[u8]) -> Option<serde_json::Value> {
    let json: serde_json::Value = serde_json::from_slice(without_byte_order_mark(bytes)).ok()?;
    json.pointer("/model/vocab").cloned()
}

/// The part of the file that slmc reads itself.
#[derive(serde::Deserialize)]
struct File {
    #[serde(default)]
    decoder: serde_json::Value,
}

/// An opened `tokenizer.json`.
pub struct Tokenizer {
    path: PathBuf,
    tokenizer: tokenizers::Tokenizer,
    vocabulary_size: usize,
    /// Rows of the model's token table, where [`Tokenizer::check`] was told: no id beyond them is given.
    rows: Option<usize>,
    decoder: Result<DecoderSteps, String>,
}

impl Tokenizer {
    /// The tokenizer among a model's companions, with the opening token that tokenizer_config.json may add to it.
    ///
    /// # Errors
    /// [`TokenizerError::Missing`], [`TokenizerError::Files`] or [`TokenizerError::Invalid`].
    pub fn of(companions: &Companions) -> Result<Self, TokenizerError> {
        let path = companions
            .find(TOKENIZER_FILE)
            .map_or_else(|| companions.place(TOKENIZER_FILE), |file| file.path().to_owned());
        match tokenizer_json(companions)? {
            Some(bytes) => Tokenizer::from_bytes(path, &bytes),
            None => Err(match companions.why_absent(TOKENIZER_FILE) {
                Some(reason) => {
                    TokenizerError::NotRebuilt { path: companions.origin().to_owned(), reason: reason.to_owned() }
                }
                None => TokenizerError::Missing { path },
            }),
        }
    }

    /// From the bytes of a `tokenizer.json`, as an artifact carries them; `path` is what errors call it.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`].
    pub fn from_bytes(path: PathBuf, bytes: &[u8]) -> Result<Self, TokenizerError> {
        let invalid = |message: String| TokenizerError::Invalid { path: path.clone(), message };
        let bytes = without_byte_order_mark(bytes);
        let file: File = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| invalid(error.to_string()))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| invalid(error.to_string()))?;
        let highest = tokenizer.get_vocab(true).into_values().max();
        let Some(highest) = highest else { return Err(invalid("its vocabulary is empty".to_owned())) };
        let decoder = DecoderSteps::from_json(&file.decoder);
        Ok(Tokenizer { path, tokenizer, vocabulary_size: highest as usize + 1, rows: None, decoder })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One more than the highest id that can be produced. Ids below it may be unused.
    pub fn vocabulary_size(&self) -> usize {
        self.rows.map_or(self.vocabulary_size, |rows| rows.min(self.vocabulary_size))
    }

    /// The id of a token by its spelling, where the model has a row for it.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token).filter(|&id| self.rows.is_none_or(|rows| (id as usize) < rows))
    }

    /// Ids of special tokens, ascending.
    pub fn special_ids(&self) -> Vec<u32> {
        let added = self.tokenizer.get_added_tokens_decoder();
        let mut ids: Vec<u32> = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// Checks that a model of `vocabulary` rows has one for every id, and holds to it. More rows than ids are padding, and a
    /// warning. Added tokens beyond the rows (Gemma's for images, in a model of text) are left out: a text that needs one is an
    /// error. A vocabulary beyond the rows is another model's.
    ///
    /// # Errors
    /// [`TokenizerError::TooManyTokens`].
    pub fn check(&mut self, vocabulary: usize) -> Result<Option<TokenizerWarning>, TokenizerError> {
        let (tokenizer, model) = (self.vocabulary_size, vocabulary);
        if tokenizer > model {
            let added = self.tokenizer.get_added_tokens_decoder();
            let beyond = (model..tokenizer).filter_map(|id| u32::try_from(id).ok());
            let mut own = beyond.filter(|id| !added.contains_key(id));
            if let Some((id, token)) =
                own.rfind(|&id| self.tokenizer.id_to_token(id).is_some()).map(|id| (id, self.spelling(id)))
            {
                return Err(TokenizerError::TooManyTokens { path: self.path.clone(), tokenizer, model, id, token });
            }
        }
        self.rows = Some(model);
        Ok((tokenizer < model).then_some(TokenizerWarning::PaddedVocabulary { tokenizer, model }))
    }

    /// The spelling of a token in the file; empty where it has none.
    pub fn spelling(&self, id: u32) -> String {
        self.tokenizer.id_to_token(id).unwrap_or_default()
    }

    /// The ids, each of which has a row.
    fn with_rows(&self, ids: &[u32]) -> Result<Vec<u32>, TokenizerError> {
        match (self.rows, ids.iter().find(|&&id| self.rows.is_some_and(|rows| id as usize >= rows))) {
            (Some(rows), Some(&id)) => {
                Err(TokenizerError::NoRow { path: self.path.clone(), id, token: self.spelling(id), rows })
            }
            _ => Ok(ids.to_vec()),
        }
    }

    fn encode_error(&self, text: &str, error: tokenizers::Error) -> TokenizerError {
        TokenizerError::Encode { path: self.path.clone(), bytes: text.len(), message: error.to_string() }
    }

    /// Tokens of the text alone, without BOS or other special tokens around it.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|error| self.encode_error(text, error))?;
        self.with_rows(encoding.get_ids())
    }

    /// Likewise, with the byte of the text at which each begins.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`], [`TokenizerError::NoRow`].
    pub fn encode_placed(&self, text: &str) -> Result<(Vec<u32>, Vec<usize>), TokenizerError> {
        let encoding = self.tokenizer.encode(text, false).map_err(|error| self.encode_error(text, error))?;
        let places = encoding.get_offsets().iter().map(|&(start, _)| start).collect();
        Ok((self.with_rows(encoding.get_ids())?, places))
    }

    /// Tokens of the text with the special tokens that the file's post-processor puts around one sequence.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode_with_specials(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.tokenizer.encode_fast(text, true).map_err(|error| self.encode_error(text, error))?;
        self.with_rows(encoding.get_ids())
    }

    /// Like [`Tokenizer::encode_with_specials`], cut at the end of the text so that text and special tokens together
    /// are at most `context` tokens. The flag says whether anything was cut.
    ///
    /// # Errors
    /// [`TokenizerError::NoRoom`], [`TokenizerError::Encode`].
    pub fn encode_within(&self, text: &str, context: usize) -> Result<(Vec<u32>, bool), TokenizerError> {
        let specials = self.tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        if context <= specials {
            return Err(TokenizerError::NoRoom { path: self.path.clone(), context, specials });
        }
        let failed = |error| self.encode_error(text, error);
        let mut encoding = self.tokenizer.encode_fast(text, false).map_err(failed)?;
        let cut = encoding.len() > context - specials;
        encoding.truncate(context - specials, 0, TruncationDirection::Right);
        let encoding = self.tokenizer.post_process(encoding, None, true).map_err(failed)?;
        Ok((self.with_rows(encoding.get_ids())?, cut))
    }

    /// Text of the tokens, special tokens left out.
    ///
    /// # Errors
    /// [`TokenizerError::Decode`].
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.tokenizer.decode(ids, true).map_err(|error| TokenizerError::Decode {
            path: self.path.clone(),
            tokens: ids.len(),
            message: error.to_string(),
        })
    }

    /// For each id below `model_vocabulary`, the bytes that a device without a tokenizer writes for it. Special tokens
    /// and padding rows write nothing. Tokens are bytes, not text: one character may be spread over several.
    ///
    /// # Errors
    /// [`TokenizerError::UnsupportedDecoder`].
    pub fn vocabulary_bytes(&self, model_vocabulary: usize) -> Result<Vec<Vec<u8>>, TokenizerError> {
        let steps = self.decoder_steps()?;
        let alphabet = vocabulary::byte_alphabet();
        let added = self.tokenizer.get_added_tokens_decoder();
        let bytes = |id: u32| match self.tokenizer.id_to_token(id) {
            Some(token) if !added.get(&id).is_some_and(|token| token.special) => steps.token_bytes(&token, &alphabet),
            _ => Vec::new(),
        };
        let ids = (0..model_vocabulary).into_par_iter();
        Ok(ids.map(|id| u32::try_from(id).map_or_else(|_| Vec::new(), bytes)).collect())
    }

    /// The tables with which the runtime turns text into the tokens that this tokenizer gives.
    ///
    /// # Errors
    /// [`HostOnly`], naming the part that the runtime has no code for.
    pub fn device_text(&self) -> Result<Vec<u8>, HostOnly> {
        device_text::text_section(&self.tokenizer, self.rows)
    }

    /// What decoding does beyond writing one token's bytes after the other.
    ///
    /// # Errors
    /// [`TokenizerError::UnsupportedDecoder`].
    pub fn text_rules(&self) -> Result<TextRules, TokenizerError> {
        Ok(self.decoder_steps()?.rules())
    }

    fn decoder_steps(&self) -> Result<&DecoderSteps, TokenizerError> {
        self.decoder
            .as_ref()
            .map_err(|found| TokenizerError::UnsupportedDecoder { path: self.path.clone(), found: found.clone() })
    }
}

#[cfg(test)]
mod tests;
