//! The files that travel with a model unchanged: its tokenizer, its chat templates, how text is generated. Whoever opens
//! a model gives them, be they files of its directory or bytes made from the metadata of one file; tokenizers, templates
//! and special tokens are read from here by the names that transformers gives them, and nobody else looks for files.
//! Nothing is read before it is asked for.

use crate::disk::config::{check_length, read_bounded};
use crate::disk::hash::{Hash, HashError, file_sha256, sha256};
use crate::disk::{Config, ConfigError};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// How the tokenizer is used.
pub const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
/// Special tokens by name, in the older form.
pub const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";
/// How text is generated.
pub const GENERATION_CONFIG_FILE: &str = "generation_config.json";
/// What follows the network in a model of sentence-transformers.
pub const MODULES_FILE: &str = "modules.json";
/// How it pools, in the folder that every version of the package has given to that.
pub const POOLING_FILE: &str = "1_Pooling/config.json";
/// Its prompts and the versions that it was made with.
pub const PROMPTS_FILE: &str = "config_sentence_transformers.json";
/// How its texts are read, by all names that this file has had, the first one that exists.
pub const SENTENCE_FILES: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];
/// The default chat template.
pub const TEMPLATE_FILE: &str = "chat_template.jinja";
/// Chat templates in the older form of processors.
pub const LEGACY_TEMPLATE_FILE: &str = "chat_template.json";
/// Folder of further chat templates, each `NAME.jinja`.
pub const TEMPLATE_FOLDER: &str = "additional_chat_templates";

/// The companions of one model by name; files of a folder are `FOLDER/NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Companions {
    origin: PathBuf,
    files: BTreeMap<String, Companion>,
    /// Files that the model should have, with the reason why it does not.
    absent: BTreeMap<String, String>,
}

/// One file, on disk or in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Companion {
    path: PathBuf,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// At its path.
    File,
    /// In memory.
    Bytes(Arc<[u8]>),
    /// There, and of no use for this reason.
    Unusable(String),
}

impl Companions {
    /// None yet, of the model at `origin`.
    pub fn of(origin: &Path) -> Self {
        Companions { origin: origin.to_owned(), ..Companions::default() }
    }

    /// With a file at a path.
    pub fn add_file(&mut self, name: &str, path: PathBuf) {
        self.files.insert(name.to_owned(), Companion { path, content: Content::File });
    }

    /// With a file in memory.
    pub fn add_bytes(&mut self, name: &str, bytes: impl Into<Arc<[u8]>>) {
        self.add_bytes_of(name, self.place(name), bytes);
    }

    /// With the content of a file at a path that stands for it in messages, changed or not.
    pub fn add_bytes_of(&mut self, name: &str, path: PathBuf, bytes: impl Into<Arc<[u8]>>) {
        self.files.insert(name.to_owned(), Companion { path, content: Content::Bytes(bytes.into()) });
    }

    /// With something that is there and that whoever asks for it cannot have, for `reason`.
    pub fn add_unusable(&mut self, name: &str, reason: &str) {
        let path = self.place(name);
        self.files.insert(name.to_owned(), Companion { path, content: Content::Unusable(reason.to_owned()) });
    }

    /// With a file of another model, if that has it.
    pub fn take(&mut self, other: &Companions, name: &str) {
        if let Some(companion) = other.files.get(name) {
            self.files.insert(name.to_owned(), companion.clone());
            self.absent.remove(name);
        }
    }

    /// Without a file that the model should have, for `reason`.
    pub fn add_absent(&mut self, name: &str, reason: &str) {
        self.absent.insert(name.to_owned(), reason.to_owned());
    }

    /// Why a file is absent, where that is known.
    pub fn why_absent(&self, name: &str) -> Option<&str> {
        self.absent.get(name).map(String::as_str)
    }

    /// The model they belong to: its directory, or its file.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// The path of a name for messages, whether there is such a file or not.
    pub fn place(&self, name: &str) -> PathBuf {
        self.origin.join(name)
    }

    /// The file of a name.
    pub fn find(&self, name: &str) -> Option<&Companion> {
        self.files.get(name)
    }

    /// All of them, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Companion)> {
        self.files.iter().map(|(name, companion)| (name.as_str(), companion))
    }
}

impl Companion {
    /// Its path for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is something to read: a link may lead nowhere.
    pub fn exists(&self) -> bool {
        !matches!(self.content, Content::File) || self.path.exists()
    }

    /// Its length in bytes.
    ///
    /// # Errors
    /// It cannot be read, or is something else than a regular file.
    pub fn length(&self) -> io::Result<u64> {
        match &self.content {
            Content::File => match fs::metadata(&self.path)? {
                metadata if metadata.is_file() => Ok(metadata.len()),
                _ => Err(io::Error::other("not a regular file")),
            },
            Content::Bytes(bytes) => Ok(bytes.len() as u64),
            Content::Unusable(reason) => Err(io::Error::other(reason.clone())),
        }
    }

    /// Its content.
    ///
    /// # Errors
    /// As [`Companion::length`].
    pub fn read(&self) -> io::Result<Cow<'_, [u8]>> {
        self.length()?;
        match &self.content {
            Content::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            _ => Ok(Cow::Owned(fs::read(&self.path)?)),
        }
    }

    /// The first `most` bytes of its content.
    ///
    /// # Errors
    /// As [`Companion::length`].
    pub fn read_at_most(&self, most: usize) -> io::Result<Vec<u8>> {
        self.length()?;
        match &self.content {
            Content::Bytes(bytes) => Ok(bytes[..most.min(bytes.len())].to_vec()),
            _ => {
                let mut bytes = Vec::new();
                File::open(&self.path)?.take(most as u64).read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        }
    }

    /// Its content, if it is not longer than any real configuration or tokenizer.
    ///
    /// # Errors
    /// [`ConfigError::Read`], [`ConfigError::TooLong`].
    pub fn read_bounded(&self) -> Result<Vec<u8>, ConfigError> {
        match &self.content {
            Content::File => read_bounded(&self.path),
            Content::Bytes(bytes) => {
                check_length(&self.path, bytes.len() as u64)?;
                Ok(bytes.to_vec())
            }
            Content::Unusable(reason) => {
                Err(ConfigError::Read { file: self.path.clone(), source: io::Error::other(reason.clone()) })
            }
        }
    }

    /// Its content as a JSON object.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn config(&self) -> Result<Config, ConfigError> {
        Config::parse(&self.path, &self.read_bounded()?)
    }

    /// SHA-256 of its content.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn sha256(&self) -> Result<Hash, HashError> {
        match &self.content {
            Content::Bytes(bytes) => Ok(sha256(bytes)),
            Content::File => file_sha256(&self.path),
            Content::Unusable(reason) => {
                Err(HashError { path: self.path.clone(), source: io::Error::other(reason.clone()) })
            }
        }
    }
}
