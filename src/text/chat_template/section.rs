//! Chat templates in an artifact's host part: one line of JSON, the same bytes for the same templates.
//!
//! ```json
//! {"schema":"slmc.chat_template/1","templates":[{"name":"default","template":"…"}],"tokens":[["bos_token","<s>"]]}
//! ```

use super::{ChatTemplate, ChatTemplateError, MAX_TEMPLATES, MAX_TOKENS, files};
use serde::{Deserialize, Serialize};
use std::path::Path;

const SCHEMA: &str = "slmc.chat_template/1";

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Section {
    schema: String,
    templates: Vec<Template>,
    /// Special tokens by name.
    tokens: Vec<(String, String)>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Template {
    name: String,
    template: String,
}

/// The part that every version has.
#[derive(Deserialize)]
struct Version {
    schema: String,
}

impl ChatTemplate {
    /// From the bytes that [`ChatTemplate::to_section`] made; `path` is the artifact, for errors.
    ///
    /// # Errors
    /// [`ChatTemplateError::Section`], [`ChatTemplateError::Schema`] or [`ChatTemplateError::TooLong`].
    pub fn from_section(path: &Path, bytes: &[u8]) -> Result<Self, ChatTemplateError> {
        let damaged = |message: String| ChatTemplateError::Section { path: path.to_owned(), message };
        let Version { schema } = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if schema != SCHEMA {
            return Err(ChatTemplateError::Schema { path: path.to_owned(), found: schema, known: SCHEMA });
        }
        let section: Section = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if section.templates.is_empty() || section.templates.len() > MAX_TEMPLATES || section.tokens.len() > MAX_TOKENS
        {
            return Err(damaged(format!(
                "{} templates and {} tokens, expected 1 to {MAX_TEMPLATES} and at most {MAX_TOKENS}",
                section.templates.len(),
                section.tokens.len()
            )));
        }
        let named = |Template { name, template }| files::named(path.to_owned(), &name, template);
        let templates = section.templates.into_iter().map(named).collect::<Result<_, _>>()?;
        Ok(ChatTemplate { path: path.to_owned(), templates, tokens: section.tokens })
    }

    /// Templates and special tokens as an artifact carries them.
    pub fn to_section(&self) -> Vec<u8> {
        let template = |named: &super::Named| Template { name: named.name.clone(), template: named.text.clone() };
        let section = Section {
            schema: SCHEMA.to_owned(),
            templates: self.templates.iter().map(template).collect(),
            tokens: self.tokens.clone(),
        };
        // Texts and lists of texts always have a JSON form.
        serde_json::to_vec(&section).unwrap_or_default()
    }
}
