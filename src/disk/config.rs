//! A JSON object read from a file, with accessors whose errors name the file and the key. Nested objects are opened as
//! sections whose keys display with dots: `rope_parameters.rope_type`. A key that is `null` counts as absent, as
//! transformers treats it. What stands for an absent key can be given beside the object
//! ([`Config::with_defaults`]): it is read like a key of the file and never written. A byte order mark before the object
//! is skipped.

use super::found::{Found, without_byte_order_mark};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Largest size a configuration may state: token ids and dimensions are 32-bit in every format slmc writes.
pub const MAX_SIZE: usize = i32::MAX as usize;

/// Longest JSON file that is read, in bytes: far above any real configuration or shard index.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Why a configuration is rejected.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is something else.
    #[error("{}: {found}", file.display())]
    Found {
        /// The file.
        file: PathBuf,
        /// What it is.
        found: Found,
    },
    /// The file is too long for a configuration.
    #[error("{}: {bytes} bytes, expected at most {MAX_FILE_BYTES}; it is not a configuration", file.display())]
    TooLong {
        /// The file.
        file: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// The file is not JSON.
    #[error("{}: not valid JSON, {}", file.display(), json_remedy(source))]
    Json {
        /// The file.
        file: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A required key is absent.
    #[error("{}: key `{key}` is missing, expected {expected}", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// The values it may have.
        expected: &'static str,
    },
    /// A value has the wrong type or is out of range.
    #[error("{}: `{key}` is {found}, expected {expected}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The key; `(whole file)` for the document.
        key: String,
        /// The value found, as JSON.
        found: String,
        /// The values accepted.
        expected: String,
    },
    /// A layer that a configuration with fewer layers cannot represent unchanged.
    #[error(
        "{}: layer {layer} would have another window, rotation or kind as layer {place} of a model with fewer layers \
         under `{key}`; keep a run of layers from layer 0 on, or all of them",
        file.display()
    )]
    Layer {
        /// The file.
        file: PathBuf,
        /// The key of the number of layers.
        key: &'static str,
        /// Its number now.
        layer: usize,
        /// Its number among the kept ones.
        place: usize,
    },
    /// Heads whose width a configuration cannot state.
    #[error(
        "{}: {family} has no key for the width of a head, its heads share the hidden width: {heads} heads of {head_dim} \
         make a hidden width of {}, not of {hidden}; ask for both together",
        file.display(),
        heads * head_dim
    )]
    HeadWidth {
        /// The file.
        file: PathBuf,
        /// `model_type`.
        family: &'static str,
        /// Heads asked for.
        heads: usize,
        /// Width of one.
        head_dim: usize,
        /// Hidden width asked for.
        hidden: usize,
    },
    /// A valid value that slmc does not implement.
    #[error("{}: `{key}` is `{value}`; {subject} supports {supported}", file.display())]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// The value found.
        value: String,
        /// The part that does not support it: a family, or slmc.
        subject: &'static str,
        /// The supported values.
        supported: String,
    },
}

/// A JSON object with the path of its file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    file: PathBuf,
    /// Keys leading to this section, each followed by a dot.
    prefix: String,
    map: Map<String, Value>,
    /// What stands for keys that are absent from `map`.
    defaults: Map<String, Value>,
}

impl Config {
    /// Reads any JSON object.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        Self::parse(file, &read_bounded(file)?)
    }

    /// Parses a JSON object; errors name `file`.
    pub fn parse(file: &Path, text: &[u8]) -> Result<Self, ConfigError> {
        match json(file, text)? {
            Value::Object(map) => Ok(Self::from_map(file, map)),
            other => Err(ConfigError::Value {
                file: file.to_owned(),
                key: "(whole file)".to_owned(),
                found: brief(&other),
                expected: "a JSON object".to_owned(),
            }),
        }
    }

    /// An object made in memory; errors name `file`.
    pub fn from_map(file: &Path, map: Map<String, Value>) -> Self {
        Config { file: file.to_owned(), prefix: String::new(), map, defaults: Map::new() }
    }

    /// The same object, with these values where a key is absent. A key that is null stays so.
    pub fn with_defaults(&self, defaults: impl IntoIterator<Item = (String, Value)>) -> Self {
        let mut config = self.clone();
        config.defaults.extend(defaults);
        config
    }

    /// The file errors name.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The object, keys in the order of the file.
    pub fn map(&self) -> &Map<String, Value> {
        &self.map
    }

    /// The value of a key, or its default; `None` where it is null, or absent without a default.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.map.get(key).or_else(|| self.defaults.get(key)).filter(|value| !value.is_null())
    }

    /// The object under a key, as a section of its own.
    pub fn section(&self, key: &str) -> Result<Option<Config>, ConfigError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                let prefix = format!("{}{key}.", self.prefix);
                Ok(Some(Config { file: self.file.clone(), prefix, map: map.clone(), defaults: Map::new() }))
            }
            Some(_) => Err(self.wrong(key, "an object")),
        }
    }

    /// An integer from 1 to [`MAX_SIZE`].
    pub fn size(&self, key: &str) -> Result<usize, ConfigError> {
        self.optional_size(key)?.ok_or_else(|| self.missing(key, "a positive integer"))
    }

    /// An integer from 1 to [`MAX_SIZE`], where present.
    pub fn optional_size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_u64().and_then(|size| usize::try_from(size).ok()) {
            Some(size) if (1..=MAX_SIZE).contains(&size) => Ok(Some(size)),
            _ => Err(self.wrong(key, &format!("an integer from 1 to {MAX_SIZE}"))),
        }
    }

    /// true or false.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        match self.value(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(key, "true or false")),
        }
    }

    /// true or false, which must be there or have a default; null is the default too.
    pub fn flag(&self, key: &str) -> Result<bool, ConfigError> {
        match self.value(key).or_else(|| self.defaults.get(key)) {
            None => Err(self.missing(key, "true or false")),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(key, "true or false")),
        }
    }

    /// A string.
    pub fn text(&self, key: &str) -> Result<&str, ConfigError> {
        self.optional_text(key)?.ok_or_else(|| self.missing(key, "a string"))
    }

    /// A string, where present.
    pub fn optional_text(&self, key: &str) -> Result<Option<&str>, ConfigError> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.wrong(key, "a string")),
        }
    }

    /// A finite number above 0.
    pub fn positive(&self, key: &str) -> Result<f64, ConfigError> {
        self.optional_positive(key)?.ok_or_else(|| self.missing(key, "a number above 0"))
    }

    /// A finite number above 0, where present.
    pub fn optional_positive(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if number.is_finite() && number > 0.0 => Ok(Some(number)),
            _ => Err(self.wrong(key, "a finite number above 0")),
        }
    }

    /// The token ids below `vocabulary` among those of a key: one integer or a list; absent is none. Other ids stand for
    /// tokens that the model cannot have, see [`Config::tokens_outside`].
    pub fn tokens(&self, key: &str, vocabulary: usize) -> Result<Vec<u32>, ConfigError> {
        let known = |id: &i64| u32::try_from(*id).ok().filter(|&id| (id as usize) < vocabulary);
        Ok(self.token_list(key)?.iter().filter_map(known).collect())
    }

    /// The token ids of a key that are in the file and not below `vocabulary`.
    pub fn tokens_outside(&self, key: &str, vocabulary: usize) -> Result<Vec<i64>, ConfigError> {
        if !self.map.contains_key(key) {
            return Ok(Vec::new());
        }
        let outside = |id: &i64| usize::try_from(*id).map_or(true, |id| id >= vocabulary);
        Ok(self.token_list(key)?.into_iter().filter(outside).collect())
    }

    fn token_list(&self, key: &str) -> Result<Vec<i64>, ConfigError> {
        let ids = match self.value(key) {
            None => Some(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(Value::as_i64).collect(),
            Some(value) => value.as_i64().map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.wrong(key, "a token id, or a list of them"))
    }

    /// The error for an absent key.
    pub fn missing(&self, key: &str, expected: &'static str) -> ConfigError {
        ConfigError::Missing { file: self.file.clone(), key: self.full(key), expected }
    }

    /// The error for a value of the wrong type or range.
    pub fn wrong(&self, key: &str, expected: &str) -> ConfigError {
        ConfigError::Value {
            file: self.file.clone(),
            key: self.full(key),
            found: self.found(key),
            expected: expected.to_owned(),
        }
    }

    fn found(&self, key: &str) -> String {
        match (self.map.get(key), self.defaults.get(key)) {
            (Some(value), _) => brief(value),
            (None, Some(value)) => format!("absent, which stands for {}", brief(value)),
            (None, None) => "absent".to_owned(),
        }
    }

    /// The error for a value outside a closed list.
    pub fn unsupported(&self, key: &str, subject: &'static str, supported: &str) -> ConfigError {
        let value = match self.map.get(key) {
            Some(Value::String(text)) => text.clone(),
            _ => self.found(key),
        };
        ConfigError::Unsupported {
            file: self.file.clone(),
            key: self.full(key),
            value,
            subject,
            supported: supported.to_owned(),
        }
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

/// The bytes of a file, if it is not longer than any real configuration.
pub(crate) fn read_bounded(file: &Path) -> Result<Vec<u8>, ConfigError> {
    let failed = |source| match Found::dangling_link(file) {
        Some(found) => ConfigError::Found { file: file.to_owned(), found },
        None => ConfigError::Read { file: file.to_owned(), source },
    };
    check_length(file, std::fs::metadata(file).map_err(failed)?.len())?;
    std::fs::read(file).map_err(failed)
}

/// Rejects a length above that of any real configuration.
pub(crate) fn check_length(file: &Path, bytes: u64) -> Result<(), ConfigError> {
    match bytes > MAX_FILE_BYTES {
        true => Err(ConfigError::TooLong { file: file.to_owned(), bytes }),
        false => Ok(()),
    }
}

/// The value of a JSON file by its text, or what the file is instead.
pub(crate) fn json<T: DeserializeOwned>(file: &Path, text: &[u8]) -> Result<T, ConfigError> {
    serde_json::from_slice(without_byte_order_mark(text)).map_err(|source| match Found::by_bytes(text) {
        Some(found) => ConfigError::Found { file: file.to_owned(), found },
        None => ConfigError::Json { file: file.to_owned(), source },
    })
}

/// What may be done about a text that is not JSON.
pub(crate) fn json_remedy(error: &serde_json::Error) -> &'static str {
    if error.is_eof() {
        "perhaps truncated; fetch it again"
    } else {
        "which has no NaN, no Infinity, no comments and no comma after the last value; correct it, or fetch it again"
    }
}

/// A value as JSON, cut so that a message stays readable.
pub(crate) fn brief(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = value.to_string();
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST).chain("…".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(value: Value) -> Config {
        let Value::Object(map) = value else { panic!("the test passes an object") };
        Config::from_map(Path::new("m/config.json"), map)
    }

    #[test]
    fn errors_name_file_and_key() {
        let config = config(json!({
            "zero": 0, "huge": 4294967296u64, "text": "x", "nothing": null, "negative": -1.0,
            "rope": {"kind": "foo"}, "ids": [1, 99], "fraction": 1.5,
        }));
        let section = config.section("rope").unwrap().unwrap();
        let cases = [
            (config.size("absent").unwrap_err(), "m/config.json: key `absent` is missing, expected a positive integer"),
            (config.size("nothing").unwrap_err(), "key `nothing` is missing"),
            (config.size("zero").unwrap_err(), "`zero` is 0, expected an integer from 1 to 2147483647"),
            (config.size("huge").unwrap_err(), "`huge` is 4294967296"),
            (config.size("fraction").unwrap_err(), "`fraction` is 1.5"),
            (config.size("text").unwrap_err(), "`text` is \"x\""),
            (config.flag_or("zero", true).unwrap_err(), "`zero` is 0, expected true or false"),
            (config.positive("negative").unwrap_err(), "`negative` is -1.0, expected a finite number above 0"),
            (config.tokens("fraction", 50).unwrap_err(), "`fraction` is 1.5, expected a token id, or a list of them"),
            (
                section.unsupported("kind", "llama", "default, llama3"),
                "`rope.kind` is `foo`; llama supports default, llama3",
            ),
        ];
        for (error, expected) in cases {
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert_eq!(config.tokens("ids", 100).unwrap(), [1, 99]);
        assert_eq!(config.tokens("nothing", 100).unwrap(), [0; 0]);
        assert_eq!((config.tokens("ids", 50).unwrap(), config.tokens_outside("ids", 50).unwrap()), (vec![1], vec![99]));
    }

    #[test]
    fn defaults_stand_for_absent_keys_and_are_not_written() {
        let plain = config(json!({"null": null, "stated": 3}));
        let config = plain.with_defaults(["null", "stated", "absent"].map(|key| (key.to_owned(), json!(7))));
        assert_eq!(config.optional_size("null").unwrap(), None);
        assert_eq!((config.size("stated").unwrap(), config.size("absent").unwrap()), (3, 7));
        assert_eq!(config.map(), plain.map());
        assert_eq!(
            config.wrong("absent", "less").to_string(),
            "m/config.json: `absent` is absent, which stands for 7, expected less"
        );
    }

    #[test]
    fn a_mark_before_the_text_is_skipped_and_other_files_are_named() {
        let file = Path::new("m/config.json");
        assert_eq!(Config::parse(file, b"\xEF\xBB\xBF{\"a\": 1}").unwrap().size("a").unwrap(), 1);
        for (text, expected) in [
            (
                &b"version https://git-lfs.github.com/spec/v1\nsize 5\n"[..],
                "a Git LFS pointer, not the file of 5 bytes",
            ),
            (b"<html><body>Sign in", "a web page"),
            (b"", "empty"),
            (b"{\"a\": ", "not valid JSON, perhaps truncated"),
            (b"{\"a\": NaN}", "not valid JSON, which has no NaN"),
            (b"{\"a\": 1,}", "not valid JSON, which has no NaN"),
        ] {
            let error = Config::parse(file, text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("m/config.json: {expected}")), "{error}");
        }
    }
}
