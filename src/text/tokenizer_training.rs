//! `slmc tokenizer train`: a byte-level BPE tokenizer from text, by the tokenizers library. Ids 0, 1 and 2 are `<s>`,
//! `</s>` and `<pad>`; every byte has a token, so there is no unknown text. Its post-processor opens every text with `<s>`.

use super::documents::read_documents;
use super::form::TextForm;
use super::records::TextError;
use crate::disk::PROVENANCE_FILE;
use crate::disk::atomic::{AtomicError, NewDirectory};
use crate::model::companions::{TOKENIZER_CONFIG_FILE, TOKENIZER_FILE};
use crate::report::{Report, Table, grouped};
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl,
};

/// The tokens every trained tokenizer begins with.
const SPECIAL: [&str; 3] = ["<s>", "</s>", "<pad>"];

/// Why there is no tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// The text cannot be read.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] AtomicError),
    /// Fewer than the bytes and the special tokens.
    #[error("a vocabulary of {vocabulary} is too small; 256 bytes and {special} special tokens need {least}")]
    TooSmall {
        /// Asked for.
        vocabulary: usize,
        /// Special tokens.
        special: usize,
        /// The smallest.
        least: usize,
    },
    /// The tokenizer library failed.
    #[error("the tokenizer cannot be trained: {0}")]
    Library(String),
    /// A file of the output.
    #[error("{}: cannot be written; check permissions and free space", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Result of `slmc tokenizer train`.
#[derive(Clone, Debug, Serialize)]
pub struct TokenizerReport {
    /// Tokens.
    pub vocabulary: usize,
    /// Bytes of text trained on.
    pub text_bytes: u64,
    /// Bytes of that text per token.
    pub bytes_per_token: f64,
}

impl Report for TokenizerReport {
    const SCHEMA: &'static str = "slmc.tokenizer/1";

    fn text(&self) -> String {
        let mut table = Table::pairs();
        table.row(["vocabulary", &grouped(self.vocabulary as u64)]);
        table.row(["text_bytes", &grouped(self.text_bytes)]);
        table.row(["bytes_per_token", &format!("{:.3}", self.bytes_per_token)]);
        table.to_string()
    }
}

/// Trains on files and writes a directory with tokenizer.json.
pub fn train(files: &[PathBuf], vocabulary: usize, out: &Path) -> Result<TokenizerReport, TrainingError> {
    let least = 256 + SPECIAL.len();
    if vocabulary < least {
        return Err(TrainingError::TooSmall { vocabulary, special: SPECIAL.len(), least });
    }
    let documents =
        files.iter().map(|file| read_documents(file, &TextForm::default())).collect::<Result<Vec<_>, _>>()?;
    let texts: Vec<&String> = documents.iter().flat_map(|documents| &documents.texts).collect();
    let library = |error: tokenizers::Error| TrainingError::Library(error.to_string());
    let mut trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(vocabulary)
        .special_tokens(SPECIAL.iter().map(|token| AddedToken::from(*token, true)).collect())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let byte_level = ByteLevel::new(false, true, true);
    let mut tokenizer: TokenizerImpl<
        BPE,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    > = TokenizerImpl::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(byte_level)).with_decoder(Some(byte_level));
    tokenizer.train(&mut trainer, texts.iter().flat_map(|text| text.lines())).map_err(library)?;
    let opening = tokenizer.token_to_id(SPECIAL[0]).unwrap_or_default();
    let template = TemplateProcessing::builder()
        .try_single(format!("{} $A", SPECIAL[0]))
        .and_then(|builder| builder.try_pair(format!("{} $A $B", SPECIAL[0])))
        .map_err(TrainingError::Library)?
        .special_tokens(vec![(SPECIAL[0], opening)])
        .build()
        .map_err(|error| TrainingError::Library(error.to_string()))?;
    tokenizer.with_post_processor(Some(template));
    let mut tokens = 0;
    for text in &texts {
        tokens += tokenizer.encode(text.as_str(), false).map_err(library)?.len();
    }
    let text_bytes = texts.iter().map(|text| text.len() as u64).sum::<u64>();
    let directory = NewDirectory::begin(out)?;
    let write = |name: &str, content: String| {
        let failed = |source| TrainingError::Write { path: directory.path().join(name), source };
        directory.write(name, content).map_err(failed)
    };
    write(TOKENIZER_FILE, tokenizer.to_string(true).map_err(library)?)?;
    let config = json!({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"});
    write(TOKENIZER_CONFIG_FILE, format!("{config:#}\n"))?;
    let provenance = json!({
        "schema": "slmc.provenance/1",
        "tool": crate::machine::tool(),
        "stage": "tokenizer",
        "settings": {"vocabulary": vocabulary},
    });
    write(PROVENANCE_FILE, format!("{provenance:#}\n"))?;
    let vocabulary = tokenizer.get_vocab_size(true);
    directory.commit()?;
    Ok(TokenizerReport { vocabulary, text_bytes, bytes_per_token: text_bytes as f64 / tokens.max(1) as f64 })
}
