//! Variables of the environment that a recipe names: `"env:NAME"` in the place of a value, and in the conditions of stages.
//! Only what is named is read. What a variable says becomes part of keys, provenance and reports, so names that look like
//! those of secrets are refused.

use super::document::Value;
use super::mistake::{Code, Location, Mistakes};
use std::collections::BTreeMap;

/// What stands before a name.
pub(super) const PREFIX: &str = "env:";
/// Words between `_` that names of secrets have.
const SECRET_WORDS: [&str; 6] = ["KEY", "APIKEY", "TOKEN", "PASS", "PRIVATE", "PAT"];
/// Parts that no other names have.
const SECRET_PARTS: [&str; 5] = ["SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL"];

/// The environment, as far as a recipe has asked for it.
pub(super) struct Environment<'e> {
    variable: &'e dyn Fn(&str) -> Option<String>,
    /// Names that were asked for, and whether they are set.
    pub(super) named: BTreeMap<String, bool>,
}

/// The name of the variable that a text stands for.
pub(super) fn name(text: &str) -> Option<&str> {
    text.strip_prefix(PREFIX)
}

/// Whether a name can be one.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|character: char| character.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl<'e> Environment<'e> {
    /// By a function from names to values.
    pub(super) fn new(variable: &'e dyn Fn(&str) -> Option<String>) -> Self {
        Environment { variable, named: BTreeMap::new() }
    }

    /// What a variable says; empty is as if it were not set.
    pub(super) fn get(&mut self, name: &str) -> Option<String> {
        let value = (self.variable)(name).filter(|value| !value.is_empty());
        self.named.insert(name.to_owned(), value.is_some());
        value
    }

    /// Whether a name may be used; a mistake where not.
    pub(super) fn may_be_named(name: &str, place: &Location, mistakes: &mut Mistakes) -> bool {
        if !is_name(name) {
            let message = format!("`{PREFIX}{name}` does not name a variable of the environment");
            mistakes.suggest(place, Code::Variable, message, "write env:NAME; letters, digits and _");
            return false;
        }
        let upper = name.to_ascii_uppercase();
        let word = |word: &str| SECRET_WORDS.contains(&word);
        if upper.split('_').any(word) || SECRET_PARTS.iter().any(|part| upper.contains(part)) {
            let message = format!(
                "`{PREFIX}{name}` looks like a secret, and values of recipes go into keys, provenance and reports"
            );
            let help = "recipes need no secrets: those of caches are read where they are used (docs/cache.md); rename it if it is none";
            mistakes.suggest(place, Code::Variable, message, help);
            return false;
        }
        true
    }

    /// The value of a variable in the place of a text.
    pub(super) fn value(&mut self, name: &str, place: &Location, mistakes: &mut Mistakes) -> Value {
        if !Self::may_be_named(name, place, mistakes) {
            return Value::Unresolved;
        }
        match self.get(name) {
            Some(text) => {
                mistakes.hide(name, &text);
                Value::Variable { name: name.to_owned(), text }
            }
            None => {
                let message = format!("the variable `{name}` of the environment is not set, or empty");
                mistakes.suggest(place, Code::Variable, message, format!("set {name}, or write a value in its place"));
                Value::Unresolved
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn names_of_secrets_are_refused() {
        let refused = |name: &str| {
            let mut mistakes = Mistakes::default();
            !Environment::may_be_named(name, &Location::start(Path::new("a"), String::new()), &mut mistakes)
        };
        for name in
            ["HF_TOKEN", "token", "API_KEY", "AWS_SECRET_ACCESS_KEY", "DBPASSWORD", "MY_SECRETS", "", "1A", "A-B"]
        {
            assert!(refused(name), "{name}");
        }
        for name in ["TRAIN_TOKENS", "MONKEY_DIR", "KEYS", "DATA", "_x1", "COMPASS"] {
            assert!(!refused(name), "{name}");
        }
    }
}
