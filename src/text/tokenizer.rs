//! A checkpoint's `tokenizer.json`, and the only user of the `tokenizers` crate. Padding and truncation settings of
//! the file are ignored: text becomes exactly its own tokens, and cutting is decided by the caller.

use super::device_text::{self, HostOnly};
use super::vocabulary::{self, DecoderSteps, TextRules};
use crate::disk::ConfigError;
use crate::model::companions::{Companions, TOKENIZER_FILE};
use crate::model::special_tokens::tokenizer_json;
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
            None => Err(TokenizerError::Missing { path }),
        }
    }

    /// From the bytes of a `tokenizer.json`, as an artifact carries them; `path` is what errors call it.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`].
    pub fn from_bytes(path: PathBuf, bytes: &[u8]) -> Result<Self, TokenizerError> {
        let invalid = |message: String| TokenizerError::Invalid { path: path.clone(), message };
        let file: File = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| invalid(error.to_string()))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| invalid(error.to_string()))?;
        let highest = tokenizer.get_vocab(true).into_values().max();
        let Some(highest) = highest else { return Err(invalid("its vocabulary is empty".to_owned())) };
        let decoder = DecoderSteps::from_json(&file.decoder);
        Ok(Tokenizer { path, tokenizer, vocabulary_size: highest as usize + 1, decoder })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One more than the highest id that can be produced. Ids below it may be unused.
    pub fn vocabulary_size(&self) -> usize {
        self.vocabulary_size
    }

    /// The id of a token by its spelling.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// Ids of special tokens, ascending.
    pub fn special_ids(&self) -> Vec<u32> {
        let added = self.tokenizer.get_added_tokens_decoder();
        let mut ids: Vec<u32> = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// Checks that a model of `vocabulary` rows has one for every id. More rows than ids are padding, and a warning.
    ///
    /// # Errors
    /// [`TokenizerError::TooManyTokens`].
    pub fn check(&self, vocabulary: usize) -> Result<Option<TokenizerWarning>, TokenizerError> {
        let (tokenizer, model) = (self.vocabulary_size, vocabulary);
        if tokenizer > model {
            let id = (tokenizer - 1) as u32;
            let token = self.tokenizer.id_to_token(id).unwrap_or_default();
            return Err(TokenizerError::TooManyTokens { path: self.path.clone(), tokenizer, model, id, token });
        }
        Ok((tokenizer < model).then_some(TokenizerWarning::PaddedVocabulary { tokenizer, model }))
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
        Ok(encoding.get_ids().to_vec())
    }

    /// Tokens of the text with the special tokens that the file's post-processor puts around one sequence.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode_with_specials(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.tokenizer.encode_fast(text, true).map_err(|error| self.encode_error(text, error))?;
        Ok(encoding.get_ids().to_vec())
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
        Ok((encoding.get_ids().to_vec(), cut))
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
        device_text::text_section(&self.tokenizer)
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
mod tests {
    use super::super::testing::{companions, shared};
    use super::*;
    use serde_json::json;

    /// A word-piece tokenizer with [CLS] and [SEP], padding and truncation, as sentence encoders have them.
    fn word_piece() -> Tokenizer {
        let special = |id: u32, content: &str| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        };
        let json = json!({
            "version": "1.0",
            "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
            "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                        "pad_type_id": 0, "pad_token": "[PAD]"},
            "added_tokens": [special(0, "[PAD]"), special(1, "[UNK]"), special(2, "[CLS]"), special(3, "[SEP]")],
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                           "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                           {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                                   "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100,
                      "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "book": 4, "a": 5, "table": 6, "##s": 7,
                                ".": 8, "!": 9}}
        });
        Tokenizer::from_bytes("word-piece.json".into(), json.to_string().as_bytes()).expect("valid")
    }

    fn concatenated(tokenizer: &Tokenizer, ids: &[u32]) -> String {
        let table = tokenizer.vocabulary_bytes(tokenizer.vocabulary_size()).expect("a known decoder");
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| table[id as usize].clone()).collect();
        let text = tokenizer.text_rules().expect("a known decoder").start_of_text(&bytes);
        String::from_utf8(text.to_vec()).expect("whole characters")
    }

    #[test]
    fn vocabulary_bytes_spell_what_decode_says() {
        for (model, text) in [
            ("stories260k", "data/stories-valid.txt"),
            ("tales-6m", "data/tales-valid.txt"),
            ("tales-6m", "data/stories-valid.txt"),
            ("stories260k", "data/tales-valid.txt"),
        ] {
            let (Some(directory), Some(text)) = (shared(&format!("models/{model}")), shared(text)) else { return };
            let tokenizer = Tokenizer::of(&companions(&directory)).expect("opens");
            let text = std::fs::read_to_string(text).expect("reads");
            let text: String = text.chars().take(6000).chain("naïve — “quoted” 日本 🦊\tend\n".chars()).collect();
            let ids = tokenizer.encode_plain(&text).expect("encodes");
            let decoded = tokenizer.decode(&ids).expect("decodes");
            assert_eq!(decoded, text, "{model}");
            assert_eq!(concatenated(&tokenizer, &ids), decoded, "{model}");
            let from_the_middle = &ids[ids.len() / 2..ids.len() / 2 + 40];
            assert_eq!(
                concatenated(&tokenizer, from_the_middle),
                tokenizer.decode(from_the_middle).expect("decodes"),
                "{model}"
            );
            let framed = tokenizer.encode_with_specials(&text).expect("encodes");
            assert_eq!(concatenated(&tokenizer, &framed), decoded, "{model}");
        }
    }

    #[test]
    fn word_pieces_are_joined_and_cut_inside_their_special_tokens() {
        let tokenizer = word_piece();
        let ids = tokenizer.encode_with_specials("Book a table. Tables! a book").expect("encodes");
        assert_eq!(ids, [2, 4, 5, 6, 8, 6, 7, 9, 5, 4, 3]);
        assert_eq!(tokenizer.decode(&ids).expect("decodes"), "book a table. tables! a book");
        assert_eq!(concatenated(&tokenizer, &ids), "book a table. tables! a book");
        assert_eq!(tokenizer.encode_plain("a book").expect("encodes"), [5, 4]);
        assert_eq!(tokenizer.encode_within("a book a book", 5).expect("encodes"), (vec![2, 5, 4, 5, 3], true));
        assert_eq!(tokenizer.encode_within("a book a", 5).expect("encodes"), (vec![2, 5, 4, 5, 3], false));
        assert!(matches!(tokenizer.encode_within("a", 2), Err(TokenizerError::NoRoom { specials: 2, .. })));
    }

    #[test]
    fn vocabularies_must_fit_and_padding_is_a_warning() {
        let tokenizer = word_piece();
        assert_eq!(tokenizer.vocabulary_size(), 10);
        assert_eq!(tokenizer.check(10).expect("fits"), None);
        let padded = TokenizerWarning::PaddedVocabulary { tokenizer: 10, model: 16 };
        assert_eq!(tokenizer.check(16).expect("fits"), Some(padded));
        let error = tokenizer.check(9).expect_err("too small").to_string();
        assert!(error.contains("10 ids") && error.contains("vocabulary of 9") && error.contains("`!`"), "{error}");
        let table = tokenizer.vocabulary_bytes(12).expect("a known decoder");
        assert_eq!(table[4], b" book");
        assert_eq!(table[7], b"s");
        assert_eq!(table[8], b".");
        assert!(table[0].is_empty() && table[11].is_empty() && table.len() == 12);
    }

    #[test]
    fn missing_and_damaged_files_say_what_to_do() {
        let directory = tempfile::tempdir().expect("a directory");
        let missing = Tokenizer::of(&companions(directory.path())).err().expect("missing").to_string();
        assert!(missing.contains("tokenizer.json does not exist; copy"), "{missing}");
        std::fs::write(directory.path().join(TOKENIZER_FILE), "{\"model\": 3}").expect("writes");
        let damaged = Tokenizer::of(&companions(directory.path())).err().expect("damaged").to_string();
        assert!(damaged.contains("is not a tokenizer"), "{damaged}");
    }
}
