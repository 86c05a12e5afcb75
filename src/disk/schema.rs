//! Parses TOML into closed types, with errors for the author of the file: the line, the key, and for an unknown name
//! the nearest known one. Types say `#[serde(deny_unknown_fields)]`, and the list of known names is the one in serde's
//! own error, so that no second list can drift from the type.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

/// A fault of a TOML text, with its line. The caller adds the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct SchemaError {
    /// From 1.
    pub line: usize,
    /// The value found and the values expected.
    pub message: String,
}

/// Parses a TOML text into a closed type.
///
/// # Errors
/// [`SchemaError`] for text that is not TOML, unknown or missing keys and values of the wrong kind.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, SchemaError> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let line = 1 + text.as_bytes()[..start].iter().filter(|&&byte| byte == b'\n').count();
        SchemaError { line, message: explained(error.message()) }
    })
}

/// Serde's message, with a suggestion where it rejects a name: "unknown field `x`, expected one of `y`, `z`".
fn explained(message: &str) -> String {
    let message = message.trim_end().replace('\n', "; ");
    let Some((what, rest)) = message
        .strip_prefix("unknown field ")
        .map(|rest| ("key", rest))
        .or_else(|| message.strip_prefix("unknown variant ").map(|rest| ("value", rest)))
    else {
        return message.replace("missing field", "missing key");
    };
    let quoted: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    let Some((found, known)) = quoted.split_first() else { return message };
    match nearest(found, known.iter().copied()) {
        Some(name) => format!("unknown {what} `{found}`; did you mean `{name}`?"),
        None => format!("unknown {what} `{found}`; known: {}", known.join(", ")),
    }
}

/// The known name nearest to `name`, if near enough to be meant: at most a third of its characters, or one, inserted,
/// deleted, replaced or exchanged with its neighbour. The first of equals.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (name.chars().count() / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    for candidate in known {
        let distance = edits(name, candidate);
        if distance <= most && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Levenshtein distance in characters, two neighbours exchanged counting as one edit.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // rows[i][j]: edits from the first i characters of `a` to the first j of `b`.
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &y) in b.iter().enumerate() {
            let replaced = rows[i][j] + usize::from(x != y);
            let mut least = replaced.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// Message for a number that is not positive.
const NEVER_ZERO: &str = "is not a positive number; leave the key out where the number is unknown";

/// A number of the file that cannot be 0: for `deserialize_with`.
pub(crate) fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let number = i64::deserialize(deserializer)?;
    match u64::try_from(number) {
        Ok(number) if number > 0 => Ok(Some(number)),
        _ => Err(D::Error::custom(format!("{number} {NEVER_ZERO}"))),
    }
}

/// Likewise for a rate, which must be finite too.
pub(crate) fn positive_rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let number = f64::deserialize(deserializer)?;
    if number.is_finite() && number > 0.0 {
        return Ok(Some(number));
    }
    Err(D::Error::custom(format!("{number} {NEVER_ZERO}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Train,
        Quantize,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Sample {
        kind: Kind,
        scheme: Option<String>,
        table: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Inner {
        clip: bool,
    }

    #[test]
    fn errors_name_the_line_and_the_nearest_name() {
        let cases = [
            ("kind = 'train'\n\nscheem = 'w4'", 3, "unknown key `scheem`; did you mean `scheme`?"),
            ("kind = 'train'\nx = 1", 2, "unknown key `x`; known: kind, scheme, table"),
            ("kind = 'quantise'", 1, "unknown value `quantise`; did you mean `quantize`?"),
            ("kind = 'train'\n[table]\nclipp = true", 3, "unknown key `clipp`; did you mean `clip`?"),
            ("scheme = 'w4'", 1, "missing key `kind`"),
            ("kind = 'train'\nscheme = 4", 2, "invalid type: integer `4`, expected a string"),
        ];
        for (text, line, message) in cases {
            let error = parse::<Sample>(text).expect_err(text);
            assert_eq!(error, SchemaError { line, message: message.to_owned() });
        }
        assert_eq!(parse::<Sample>("kind = 'train'\nscheme = = 1").expect_err("not TOML").line, 2);
    }

    #[test]
    fn distances_are_edits() {
        assert_eq!((edits("kitten", "sitting"), edits("", "ab"), edits("same", "same")), (3, 2, 0));
        assert_eq!(nearest("cortex-m5", ["cortex-m4", "cortex-m55", "generic"]), Some("cortex-m4"));
        assert_eq!((edits("modle", "model"), edits("ab", "ba")), (1, 1));
        assert_eq!(nearest("zebra", ["cortex-m4", "generic"]), None);
    }
}
