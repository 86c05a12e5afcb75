//! What a worker and its client must have in common, and the credential that a client shows. burn's protocol has its own
//! version and an opaque credential; the rest is said in that.
//!
//! ```text
//! credential   ?;TOKEN                                  for a session that asks who the worker is
//!              slmc/VERSION;CLASS;BACKEND;TOKEN         for one that computes
//! ```
//!
//! The token is compared by its SHA-256, so that the time it takes tells nothing of it.

use crate::disk::hash::sha256;
use crate::machine::numerics_class;
use std::fmt;

/// The variable of the environment that holds the token, unless another is named.
pub const TOKEN_VARIABLE: &str = "SLMC_WORKER_TOKEN";

/// The one backend that workers compute with.
const BACKEND: &str = "flex";
/// What stands in the place of an identity that is not known yet.
const ASKING: &str = "?";

/// What decides the bits of a worker's results, beside the operations that it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Version of slmc.
    pub version: String,
    /// Class of the f32 results of operations that are not slmc's own.
    pub numerics: String,
    /// Backend of the operations.
    pub backend: String,
}

/// One part in which two identities differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// In words.
    pub what: &'static str,
    /// The first's.
    pub own: String,
    /// The other's.
    pub other: String,
    /// A way out.
    pub remedy: &'static str,
}

impl Identity {
    /// The identity of this program on this machine.
    pub fn own() -> Self {
        Identity {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            numerics: numerics_class().to_owned(),
            backend: BACKEND.to_owned(),
        }
    }

    /// As it is sent, by [`fmt::Display`].
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("slmc/")?.split(';').map(str::to_owned);
        let identity = Identity { version: parts.next()?, numerics: parts.next()?, backend: parts.next()? };
        parts.next().is_none().then_some(identity)
    }

    /// The first part in which another differs.
    pub fn difference(&self, other: &Identity) -> Option<Difference> {
        let parts = [
            ("version", &self.version, &other.version, "install the same slmc on both"),
            ("backend", &self.backend, &other.backend, "run the same slmc on both"),
            (
                "numerics class",
                &self.numerics,
                &other.numerics,
                "results would depend on which of them computes a piece; use machines of one class, as `slmc doctor` names it",
            ),
        ];
        let (what, own, other, remedy) = parts.into_iter().find(|(_, own, other, _)| own != other)?;
        Some(Difference { what, own: own.clone(), other: other.clone(), remedy })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slmc/{};{};{}", self.version, self.numerics, self.backend)
    }
}

/// A secret that client and worker share. Shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// From a variable of the environment; `None` where it is not set or empty.
    pub fn from_variable(name: &str) -> Option<Self> {
        std::env::var(name).ok().filter(|token| !token.is_empty()).map(Token)
    }

    /// As given.
    pub fn new(token: impl Into<String>) -> Self {
        Token(token.into())
    }

    /// The credential of a client that asks who the worker is.
    pub fn to_ask(&self) -> String {
        format!("{ASKING};{}", self.0)
    }

    /// The credential of a client that computes.
    pub fn to_compute(&self, identity: &Identity) -> String {
        format!("{identity};{}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Why a worker opens no session, for its own messages: a client is told only that it is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The token is another, or there is none.
    #[error("the wrong token")]
    Token,
    /// What it shows cannot be read.
    #[error("a credential that this slmc does not write")]
    Unreadable,
    /// The client is another.
    #[error("{} {}, and this worker has {}", .0.what, .0.other, .0.own)]
    Differs(Difference),
}

/// Whether a worker opens a session for a credential.
///
/// # Errors
/// [`Refusal`].
pub fn admit(credential: &[u8], own: &Identity, token: &Token) -> Result<(), Refusal> {
    let text = std::str::from_utf8(credential).map_err(|_| Refusal::Unreadable)?;
    // A token may have any characters; what stands before it has three `;` at most.
    let (identity, shown) = match text.strip_prefix(ASKING).and_then(|rest| rest.strip_prefix(';')) {
        Some(shown) => (None, shown),
        None => {
            let end = text.match_indices(';').nth(2).map(|(end, _)| end).ok_or(Refusal::Unreadable)?;
            (Some(&text[..end]), &text[end + 1..])
        }
    };
    if sha256(shown.as_bytes()) != sha256(token.0.as_bytes()) {
        return Err(Refusal::Token);
    }
    let Some(identity) = identity else { return Ok(()) };
    let client = Identity::parse(identity).ok_or(Refusal::Unreadable)?;
    own.difference(&client).map_or(Ok(()), |difference| Err(Refusal::Differs(difference)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(version: &str, numerics: &str) -> Identity {
        Identity { version: version.to_owned(), numerics: numerics.to_owned(), backend: BACKEND.to_owned() }
    }

    #[test]
    fn an_identity_is_read_as_it_is_written() {
        let own = Identity::own();
        assert_eq!(Identity::parse(&own.to_string()), Some(own));
        for text in ["", "slmc/", "slmc/0.1.0;x86-64-v3", "slmc/0.1.0;x86-64-v3;flex;more", "0.1.0;x86-64-v3;flex"] {
            assert_eq!(Identity::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_first_difference_is_named_with_both_values() {
        let (one, other) = (identity("0.1.0", "x86-64-v3"), identity("0.2.0", "x86-64-v4"));
        assert_eq!(one.difference(&one), None);
        let found = one.difference(&other).expect("they differ");
        assert_eq!((found.what, &*found.own, &*found.other), ("version", "0.1.0", "0.2.0"));
        let found = one.difference(&identity("0.1.0", "x86-64-v4")).expect("they differ");
        assert_eq!((found.what, &*found.own, &*found.other), ("numerics class", "x86-64-v3", "x86-64-v4"));
        let cuda = Identity { backend: "cuda".to_owned(), ..one.clone() };
        assert_eq!(one.difference(&cuda).map(|found| found.what), Some("backend"));
    }

    #[test]
    fn a_session_is_opened_for_the_token_and_an_equal_client_alone() {
        let (own, token) = (identity("0.1.0", "x86-64-v3"), Token::new("a;b?c"));
        let of = |credential: String| admit(credential.as_bytes(), &own, &token);
        assert_eq!(of(token.to_ask()), Ok(()));
        assert_eq!(of(token.to_compute(&own)), Ok(()));
        for other in ["", "a;b?", "A;b?c", "a;b?cd"] {
            assert_eq!(of(Token::new(other).to_ask()), Err(Refusal::Token), "{other}");
            assert_eq!(of(Token::new(other).to_compute(&own)), Err(Refusal::Token), "{other}");
        }
        let refused = of(token.to_compute(&identity("0.2.0", "x86-64-v3"))).expect_err("another version");
        assert_eq!(refused.to_string(), "version 0.2.0, and this worker has 0.1.0");
        for text in ["", "a;b?c", "one;two;three;a;b?c"] {
            assert!(of(text.to_owned()).is_err(), "{text}");
        }
        assert_eq!(admit(&[0xff, b';'], &own, &token), Err(Refusal::Unreadable));
    }

    #[test]
    fn a_token_is_shown_nowhere() {
        assert_eq!(format!("{:?}", Token::new("secret")), "Token(..)");
    }
}
