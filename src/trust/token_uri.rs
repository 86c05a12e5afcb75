//! Names of keys on tokens (RFC 7512):
//!
//! ```text
//! pkcs11:token=release;object=models;id=%01%02?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=env:PIN
//! ```
//!
//! Before `?` stands which token and which key: `token`, `manufacturer`, `serial`, `model`, `slot-id`, and `object`, `id`; after it
//! how to reach them. A PIN never stands in a URI (`pin-value`), since other users of a machine see command lines. RFC 7512 has
//! `pin-source` a path; `env:NAME` is slmc's.

use super::{KeyPlace, TrustError};
use std::fmt;
use std::path::{Path, PathBuf};

/// What a name of a key on a token begins with.
pub const SCHEME: &str = "pkcs11:";

const PIN_IN_URI: &str = "has its PIN in it (`pin-value`), where others can read it; name where the PIN is: \
                          ?pin-source=env:NAME or ?pin-source=file:PATH";

/// A name of a key on a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenUri {
    /// Label of the token.
    pub token: Option<String>,
    /// Who made the token.
    pub manufacturer: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// The slot that it is in.
    pub slot: Option<u64>,
    /// Label of the key.
    pub object: Option<String>,
    /// CKA_ID of the key.
    pub id: Option<Vec<u8>>,
    /// The token's module.
    pub module: Option<PathBuf>,
    /// Where the PIN is.
    pub pin: Option<PinPlace>,
    /// The part before `?` as it was written: what messages show.
    shown: String,
}

/// Where a PIN is: a variable or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinPlace {
    /// A variable of the environment.
    Variable(String),
    /// A file.
    File(PathBuf),
}

impl fmt::Display for TokenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl TokenUri {
    /// Reads a URI; paths in it are relative to `base`.
    ///
    /// # Errors
    /// [`TrustError::Key`], which shows nothing after `?`.
    pub fn parse(text: &str, base: &Path) -> Result<Self, TrustError> {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        // A PIN in the wrong place is not shown either.
        let attribute_shown = |attribute: &&str| !attribute.trim_start_matches(SCHEME).starts_with("pin");
        let shown = path.split(';').filter(attribute_shown).collect::<Vec<_>>().join(";");
        let refused = |fault: String| TrustError::Key { place: shown.clone(), fault };
        let attributes = path.strip_prefix(SCHEME).ok_or_else(|| refused(format!("does not begin with {SCHEME}")))?;
        let mut uri = TokenUri { shown: shown.clone(), ..TokenUri::default() };
        for attribute in attributes.split(';').filter(|attribute| !attribute.is_empty()) {
            let (name, value) = pair(attribute).map_err(&refused)?;
            let text = || text_of(name, &value).map_err(&refused);
            match name {
                "token" => set(&mut uri.token, text()?, name).map_err(&refused)?,
                "manufacturer" => set(&mut uri.manufacturer, text()?, name).map_err(&refused)?,
                "serial" => set(&mut uri.serial, text()?, name).map_err(&refused)?,
                "model" => set(&mut uri.model, text()?, name).map_err(&refused)?,
                "slot-id" => {
                    let slot =
                        text()?.parse().map_err(|_| refused("has a `slot-id` that is not a number".to_owned()))?;
                    set(&mut uri.slot, slot, name).map_err(&refused)?;
                }
                "object" => set(&mut uri.object, text()?, name).map_err(&refused)?,
                "id" => set(&mut uri.id, value, name).map_err(&refused)?,
                // The secret half is what signs, the public one what is read to check it: the use says which.
                "type" if matches!(text()?.as_str(), "private" | "public") => {}
                "type" => return Err(refused("has a `type` that is not `private` or `public`".to_owned())),
                "pin-value" => return Err(refused(PIN_IN_URI.to_owned())),
                _ => {
                    return Err(refused(format!(
                        "has the attribute `{name}`, which slmc does not select by; it knows token, manufacturer, serial, model, \
                         slot-id, object, id and type"
                    )));
                }
            }
        }
        for attribute in query.split('&').filter(|attribute| !attribute.is_empty()) {
            let (name, value) = pair(attribute).map_err(&refused)?;
            let text = || text_of(name, &value).map_err(&refused);
            match name {
                "module-path" => set(&mut uri.module, base.join(text()?), name).map_err(&refused)?,
                "pin-source" => {
                    set(&mut uri.pin, pin_place(&text()?, base).map_err(&refused)?, name).map_err(&refused)?
                }
                "pin-value" => return Err(refused(PIN_IN_URI.to_owned())),
                _ => {
                    return Err(refused(format!(
                        "has `{name}` after the question mark, which slmc does not know; it knows module-path and pin-source"
                    )));
                }
            }
        }
        Ok(uri)
    }
}

/// Where the PIN of a `pin-source` is.
fn pin_place(text: &str, base: &Path) -> Result<PinPlace, String> {
    if text.starts_with('|') {
        return Err("has a command for a `pin-source`, which slmc does not run; use env:NAME or file:PATH".to_owned());
    }
    match KeyPlace::of(text, base) {
        Ok(KeyPlace::Variable(name)) => Ok(PinPlace::Variable(name)),
        Ok(KeyPlace::File(path)) => Ok(PinPlace::File(path)),
        _ => Err("has a `pin-source` that is neither env:NAME nor file:PATH".to_owned()),
    }
}

fn set<T>(place: &mut Option<T>, value: T, name: &str) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("has `{name}` twice")),
    }
}

/// The name of an attribute and its value, without percent-encoding.
fn pair(attribute: &str) -> Result<(&str, Vec<u8>), String> {
    let (name, value) = attribute.split_once('=').ok_or("has an attribute without a value")?;
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = digit().zip(digit()).ok_or_else(|| format!("has a `%` in `{name}` without two digits"))?;
        bytes.push((high * 16 + low) as u8);
    }
    Ok((name, bytes))
}

fn text_of(name: &str, value: &[u8]) -> Result<String, String> {
    String::from_utf8(value.to_vec()).map_err(|_| format!("has a `{name}` that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        TokenUri::parse(text, Path::new("/base")).expect_err(text).to_string()
    }

    #[test]
    fn attributes_are_read_as_rfc_7512_has_them() {
        let text = "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;serial=a%3b1;\
                    object=my-key;slot-id=7;type=private;id=%69%95%3E?module-path=lib/p.so&pin-source=file:/etc/token";
        let uri = TokenUri::parse(text, Path::new("/base")).expect("a URI");
        assert_eq!(uri.token.as_deref(), Some("The Software PKCS#11 Softtoken"));
        assert_eq!(uri.manufacturer.as_deref(), Some("Snake Oil, Inc."));
        assert_eq!((uri.model.as_deref(), uri.serial.as_deref()), (Some("1.0"), Some("a;1")));
        assert_eq!((uri.object.as_deref(), uri.slot), (Some("my-key"), Some(7)));
        assert_eq!(uri.id.as_deref(), Some(&[0x69, 0x95, 0x3e][..]));
        assert_eq!(uri.module.as_deref(), Some(Path::new("/base/lib/p.so")));
        assert_eq!(uri.pin, Some(PinPlace::File("/etc/token".into())));
        assert_eq!(uri.to_string(), text.split_once('?').expect("a query").0);
        let variable = TokenUri::parse("pkcs11:?pin-source=env:PIN", Path::new("")).expect("a URI");
        assert_eq!(variable.pin, Some(PinPlace::Variable("PIN".to_owned())));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name_and_no_pin_is_shown() {
        for (text, expected) in [
            ("pkcs11:token=a?pin-value=1234", "`pin-value`"),
            ("pkcs11:token=a;pin-value=1234", "`pin-value`"),
            ("pkcs11:pin-value=1234", "`pin-value`"),
            ("pkcs11:token=a?pin-source=|cat%20pin", "a command"),
            ("pkcs11:token=a?pin-source=pkcs11:b", "neither env:NAME nor file:PATH"),
            ("pkcs11:token=a;token=b", "`token` twice"),
            ("pkcs11:token", "without a value"),
            ("pkcs11:token=%4", "without two digits"),
            ("pkcs11:token=%ff", "not UTF-8"),
            ("pkcs11:slot-id=one", "`slot-id` that is not a number"),
            ("pkcs11:type=cert", "`type`"),
            ("pkcs11:library-version=3", "`library-version`"),
            ("pkcs11:token=a?x-pin=1234", "`x-pin`"),
        ] {
            let error = refused(text);
            assert!(error.contains(expected) && !error.contains("1234"), "{text}: {error}");
        }
    }
}
