//! Where a key is:
//!
//! ```text
//! PATH, file:PATH          a file, relative to the file that names it or to the working directory
//! env:VAR, env://VAR       an environment variable with the text of the key; the second is cosign's spelling
//! pkcs11:…                 a key on a token ([`super::token_uri`]), with the feature `pkcs11`
//! ```
//!
//! A command line holds a place and never a key: other users of the machine can read it.

use super::TrustError;
use super::token_uri::{SCHEME, TokenUri};
use std::io::Read;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longest file that is read as a key: a P-521 key with its comments is a tenth of it.
const LONGEST: u64 = 64 << 10;

/// A place that a key is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// An environment variable.
    Variable(String),
    /// A file.
    File(PathBuf),
    /// A token.
    Token(Box<TokenUri>),
}

impl KeyPlace {
    /// The place that a text names; paths are relative to `base`.
    ///
    /// # Errors
    /// [`TrustError::Key`] for a place of a kind that this build does not read, and for a key in its place, which is not shown.
    pub fn of(text: &str, base: &Path) -> Result<Self, TrustError> {
        let refused = |place: &str, fault: &str| TrustError::Key { place: place.to_owned(), fault: fault.to_owned() };
        if text.contains("-----BEGIN") || text.contains('\n') {
            return Err(refused(
                "the place of a key",
                "is given as the key itself, where others may read it; name a file or env:VAR, and make a new key, since this one \
                 was written down",
            ));
        }
        if text.starts_with(SCHEME) {
            if !cfg!(feature = "pkcs11") {
                return Err(refused(
                    SCHEME,
                    "keys on tokens are not read by this build, which lacks the feature `pkcs11`; use a file or env:VAR, or let \
                     the token sign the bytes that `slmc sign --to-sign` writes",
                ));
            }
            return TokenUri::parse(text, base).map(|uri| KeyPlace::Token(Box::new(uri)));
        }
        Ok(match (text.strip_prefix("env://").or(text.strip_prefix("env:")), text.strip_prefix("file:")) {
            (Some(name), _) => KeyPlace::Variable(name.to_owned()),
            (None, Some(path)) => KeyPlace::File(base.join(path)),
            (None, None) => KeyPlace::File(base.join(text)),
        })
    }

    /// The place in messages.
    pub fn name(&self) -> String {
        match self {
            KeyPlace::Variable(name) => format!("${name}"),
            KeyPlace::File(path) => path.display().to_string(),
            KeyPlace::Token(uri) => uri.to_string(),
        }
    }

    /// An error that names the place.
    pub fn fault(&self, fault: impl Into<String>) -> TrustError {
        TrustError::Key { place: self.name(), fault: fault.into() }
    }

    /// The bytes that are there.
    ///
    /// # Errors
    /// [`TrustError::Key`].
    pub(super) fn bytes(&self) -> Result<Zeroizing<Vec<u8>>, TrustError> {
        match self {
            KeyPlace::Variable(name) => match std::env::var(name) {
                Ok(text) => Ok(Zeroizing::new(text.into_bytes())),
                Err(_) => Err(self.fault("is not set; put the PEM text of the key there")),
            },
            KeyPlace::File(path) => {
                let unread = |error| self.fault(format!("cannot be read: {error}"));
                // The whole room at once, so that no part of a key stays behind in a buffer that grew.
                let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST as usize + 1));
                let file = std::fs::File::open(path).map_err(unread)?;
                file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(unread)?;
                match bytes.len() as u64 > LONGEST {
                    true => Err(self.fault("is longer than any key; pass a file with one key in PEM")),
                    false => Ok(bytes),
                }
            }
            KeyPlace::Token(_) => {
                Err(self.fault("is a key on a token, whose bytes nobody reads; this needs a file or env:VAR"))
            }
        }
    }

    /// The file, where others than its owner can read it.
    pub(super) fn read_by_others(&self) -> Option<&Path> {
        match self {
            KeyPlace::File(path) if others_read(path) => Some(path),
            _ => None,
        }
    }
}

#[cfg(unix)]
fn others_read(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn others_read(_path: &Path) -> bool {
    false
}
