//! The ids that stay, in their order: the new id of a token is its place among them. `trimmed_ids.json` keeps them beside the
//! model, so that another model of the same tokenizer can be trimmed alike:
//!
//! ```text
//! {"schema": "slmc.trimmed_ids/1", "tokenizer": SHA-256 of the table, "rows": 49152, "ids": [0, 1, 2, 17, …]}
//! ```

use super::TrimError;
use super::vocabulary::Vocabulary;
use crate::disk::hash::{hex, sha256};
use crate::disk::{Config, ConfigError};
use serde_json::{Value, json};
use std::path::Path;

/// The file of kept ids in a trimmed directory.
pub const KEPT_IDS_FILE: &str = "trimmed_ids.json";

/// Old ids, ascending; each becomes its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptIds {
    ids: Vec<u32>,
    /// Rows of the table that they are of.
    rows: usize,
    /// SHA-256 of that table, as hexadecimal digits.
    tokenizer: String,
}

impl KeptIds {
    pub(super) fn new(vocabulary: &Vocabulary, ids: Vec<u32>) -> Self {
        KeptIds { ids, rows: vocabulary.rows(), tokenizer: fingerprint(vocabulary) }
    }

    /// Those that another model was trimmed to.
    ///
    /// # Errors
    /// A file that cannot be read or is damaged, [`TrimError::OtherTokenizer`].
    pub fn like(directory: &Path, vocabulary: &Vocabulary) -> Result<Self, TrimError> {
        let path = directory.join(KEPT_IDS_FILE);
        let config = Config::read(&path)?;
        if config.text("tokenizer")? != fingerprint(vocabulary) || config.size("rows")? != vocabulary.rows() {
            return Err(TrimError::OtherTokenizer { ids: path, tokenizer: vocabulary.path.clone() });
        }
        let wrong = || -> ConfigError { config.wrong("ids", "ascending ids below `rows`") };
        let ids = config.value("ids").and_then(Value::as_array).ok_or_else(wrong)?;
        let ids: Option<Vec<u32>> = ids.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect();
        let ids = ids.ok_or_else(wrong)?;
        let sound = ids.windows(2).all(|pair| pair[0] < pair[1])
            && ids.last().is_some_and(|&id| (id as usize) < vocabulary.rows());
        if !sound {
            return Err(wrong().into());
        }
        Ok(KeptIds::new(vocabulary, ids))
    }

    /// Refuses to leave out what the files of a model name.
    ///
    /// # Errors
    /// [`TrimError::NotKept`].
    pub fn check_named(
        &self,
        directory: &Path,
        vocabulary: &Vocabulary,
        named: impl IntoIterator<Item = u32>,
    ) -> Result<(), TrimError> {
        let gone = named.into_iter().chain(vocabulary.special.iter().copied());
        match gone.into_iter().find(|&id| (id as usize) < self.rows && self.new_id(id).is_none()) {
            None => Ok(()),
            Some(id) => Err(TrimError::NotKept {
                ids: directory.join(KEPT_IDS_FILE),
                id,
                token: vocabulary.spelling(id).to_owned(),
            }),
        }
    }

    /// Old ids, ascending.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The new id of an old one.
    pub fn new_id(&self, old: u32) -> Option<u32> {
        self.ids.binary_search(&old).ok().and_then(|place| u32::try_from(place).ok())
    }

    /// The content of [`KEPT_IDS_FILE`].
    pub fn file(&self) -> String {
        let ids = json!({
            "schema": "slmc.trimmed_ids/1",
            "tokenizer": self.tokenizer,
            "rows": self.rows,
            "ids": self.ids,
        });
        format!("{ids}\n")
    }

    /// The ids in few bytes, for provenance: `0-16,18,272-275`.
    pub fn ranges(&self) -> String {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for &id in &self.ids {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == id => *last = id,
                _ => ranges.push((id, id)),
            }
        }
        let shown = |(first, last): (u32, u32)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        ranges.into_iter().map(shown).collect::<Vec<_>>().join(",")
    }
}

/// SHA-256 of the tokens of a table with their ids.
fn fingerprint(vocabulary: &Vocabulary) -> String {
    let tokens: Vec<String> = vocabulary.ids.iter().map(|(token, id)| format!("{id} {token}")).collect();
    hex(&sha256(tokens.join("\n").as_bytes()))
}
