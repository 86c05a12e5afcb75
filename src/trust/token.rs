//! Keys on tokens, by PKCS #11: a smart card, an HSM, a key service's module. The secret key never leaves the token; what is
//! signed there is checked here with the public key before it is used. With the feature `pkcs11`.
//!
//! ```text
//! Ed25519  CKM_EDDSA over the message, no parameters      CKM_EC_EDWARDS_KEY_PAIR_GEN
//! P-256    CKM_ECDSA over its SHA-256, r ‖ s              CKM_EC_KEY_PAIR_GEN
//! ```
//!
//! The module is `module-path` of the URI or `SLMC_PKCS11_MODULE`, the PIN where `pin-source` says or in `SLMC_PKCS11_PIN`.

use super::token_uri::{PinPlace, TokenUri};
use super::{Algorithm, KeyPlace, PublicKey, Signature, TrustError};
use crate::disk::hash::sha256;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use std::path::PathBuf;
use std::sync::Mutex;

/// The module of tokens, where a URI does not name it.
const MODULE_VARIABLE: &str = "SLMC_PKCS11_MODULE";
/// The PIN, where a URI does not say where it is.
const PIN_VARIABLE: &str = "SLMC_PKCS11_PIN";

/// OID 1.3.101.112 and OID 1.2.840.10045.3.1.7 in DER, and the printable name of the first curve that PKCS #11 has too.
const ED25519_OID: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];
const ED25519_NAME: &[u8] = b"\x13\x0cedwards25519";
const P256_OID: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// SubjectPublicKeyInfo in DER before the bytes of a key (RFC 8410, RFC 5480).
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A secret key on a token, in a session that is logged in.
pub(super) struct TokenKey {
    name: String,
    session: Mutex<Session>,
    handle: ObjectHandle,
}

impl TokenKey {
    /// Finds the secret key that a URI names, and its public half.
    ///
    /// # Errors
    /// [`TrustError::Key`].
    pub(super) fn open(uri: &TokenUri) -> Result<(Self, PublicKey), TrustError> {
        let session = session(uri, false)?;
        let handle = one(uri, &session, ObjectClass::PRIVATE_KEY)?;
        let public = public_of(uri, &session, handle)?;
        Ok((TokenKey { name: uri.to_string(), session: Mutex::new(session), handle }, public))
    }

    /// Signs a message, and checks the signature.
    ///
    /// # Errors
    /// [`TrustError::Key`]: the token refuses, or what it gave is not this key's signature.
    pub(super) fn sign(&self, message: &[u8], public: &PublicKey) -> Result<Signature, TrustError> {
        let refused = |fault: String| TrustError::Key { place: self.name.clone(), fault };
        let session = self.session.lock().map_err(|_| refused("was left by a thread that failed".to_owned()))?;
        let signed = match public.algorithm() {
            Algorithm::Ed25519 => {
                let pure = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure));
                session.sign(&pure, self.handle, message)
            }
            Algorithm::P256 => session.sign(&Mechanism::Ecdsa, self.handle, &sha256(message)),
        };
        let bytes = signed.map_err(|error| refused(format!("the token does not sign: {}", said(&error))))?;
        Signature::read(public.algorithm(), &bytes).filter(|signature| public.verifies(message, signature)).ok_or_else(
            || refused("the token gave a signature that does not verify with the key's public half".to_owned()),
        )
    }
}

/// The public key that a URI names.
///
/// # Errors
/// [`TrustError::Key`].
pub(super) fn public_key(uri: &TokenUri) -> Result<PublicKey, TrustError> {
    let session = session(uri, false)?;
    let handle = one(uri, &session, ObjectClass::PUBLIC_KEY)?;
    point_of(uri, &session, handle)
}

/// Makes a key on a token, which it never leaves.
///
/// # Errors
/// [`TrustError::Key`]: the URI names no label, a key is there already, or the token refuses.
pub(super) fn generate(uri: &TokenUri, algorithm: Algorithm) -> Result<PublicKey, TrustError> {
    let refused = |fault: &str| key_fault(uri, fault);
    let Some(label) = uri.object.as_ref().map(|label| label.clone().into_bytes()) else {
        return Err(refused("names no label for the new key; write pkcs11:token=…;object=NAME"));
    };
    let session = session(uri, true)?;
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        if !find(uri, &session, class)?.is_empty() {
            return Err(refused("a key of this name is on the token, and keys are never replaced; pass another name"));
        }
    }
    // As tools expect it: both halves have the same CKA_ID, by which they are found together.
    let id = match &uri.id {
        Some(id) => id.clone(),
        None => {
            let mut id = vec![0; 8];
            getrandom::fill(&mut id).map_err(TrustError::Random)?;
            id
        }
    };
    let (mechanism, parameters) = match algorithm {
        Algorithm::Ed25519 => (Mechanism::EccEdwardsKeyPairGen, ED25519_OID.to_vec()),
        Algorithm::P256 => (Mechanism::EccKeyPairGen, P256_OID.to_vec()),
    };
    let common = [Attribute::Token(true), Attribute::Label(label), Attribute::Id(id)];
    let of_public = |parameters: Vec<u8>| {
        let own = [Attribute::Private(false), Attribute::Verify(true), Attribute::EcParams(parameters)];
        common.iter().cloned().chain(own).collect::<Vec<_>>()
    };
    let own =
        [Attribute::Private(true), Attribute::Sensitive(true), Attribute::Extractable(false), Attribute::Sign(true)];
    let secret: Vec<Attribute> = common.iter().cloned().chain(own).collect();
    let made = session.generate_key_pair(&mechanism, &of_public(parameters), &secret);
    // Version 3.0 of the standard lets tokens name the curve in either form.
    let made = match (made, algorithm) {
        (Err(_), Algorithm::Ed25519) => {
            session.generate_key_pair(&mechanism, &of_public(ED25519_NAME.to_vec()), &secret)
        }
        (made, _) => made,
    };
    let (public, _) =
        made.map_err(|error| refused(&format!("the token makes no key of {algorithm}: {}", said(&error))))?;
    point_of(uri, &session, public)
}

fn key_fault(uri: &TokenUri, fault: &str) -> TrustError {
    TrustError::Key { place: uri.to_string(), fault: fault.to_owned() }
}

/// What a token answered, by the name that the standard has for it.
fn said(error: &Error) -> String {
    match error {
        Error::Pkcs11(value, function) => format!("{value:?} from {function:?}"),
        error => error.to_string(),
    }
}

/// A session with the token that a URI names, logged in.
fn session(uri: &TokenUri, writes: bool) -> Result<Session, TrustError> {
    let module = match &uri.module {
        Some(module) => module.clone(),
        None => std::env::var_os(MODULE_VARIABLE).map(PathBuf::from).ok_or_else(|| {
            key_fault(
                uri,
                &format!(
                    "the token's module is not named; add ?module-path=/usr/lib/….so to the key, or set ${MODULE_VARIABLE}"
                ),
            )
        })?,
    };
    let failed = |what: &str, error: &Error| key_fault(uri, &format!("{what} ({}): {}", module.display(), said(error)));
    let context = Pkcs11::new(&module).map_err(|error| failed("the module cannot be loaded", &error))?;
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // Another key of this process has it open.
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(failed("the module does not start", &error)),
    }
    let slot = slot(uri, &context)?;
    let opened = if writes { context.open_rw_session(slot) } else { context.open_ro_session(slot) };
    let session = opened.map_err(|error| failed("no session with the token", &error))?;
    let token = context.get_token_info(slot).map_err(|error| failed("the token does not answer", &error))?;
    if !token.login_required() {
        return Ok(session);
    }
    let pin = pin(uri, token.protected_authentication_path())?;
    match session.login(UserType::User, pin.as_ref()) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
        Err(Error::Pkcs11(RvError::PinIncorrect, _)) => {
            Err(key_fault(uri, "the PIN is not the token's; a token locks itself after some wrong ones"))
        }
        Err(Error::Pkcs11(RvError::PinLocked, _)) => {
            Err(key_fault(uri, "the token is locked: its PIN was wrong too often; its administrator sets another"))
        }
        Err(error) => Err(failed("the token does not let in", &error)),
    }
}

/// The slot of the one token that a URI names.
fn slot(uri: &TokenUri, context: &Pkcs11) -> Result<Slot, TrustError> {
    let slots = context
        .get_slots_with_initialized_token()
        .map_err(|error| key_fault(uri, &format!("the module lists no tokens: {}", said(&error))))?;
    let (mut found, mut labels) = (Vec::new(), Vec::new());
    for slot in slots {
        let Ok(token) = context.get_token_info(slot) else { continue };
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value.trim_end());
        labels.push(token.label().trim_end().to_owned());
        if is(&uri.token, token.label())
            && is(&uri.manufacturer, token.manufacturer_id())
            && is(&uri.serial, token.serial_number())
            && is(&uri.model, token.model())
            && uri.slot.is_none_or(|number| number == slot.id())
        {
            found.push(slot);
        }
    }
    match found.as_slice() {
        [slot] => Ok(*slot),
        [] => {
            let there = if labels.is_empty() {
                "there is none".to_owned()
            } else {
                format!("there are: {}", labels.join(", "))
            };
            Err(key_fault(uri, &format!("no token is of this name; {there}")))
        }
        _ => Err(key_fault(uri, "several tokens are of this name; add serial=… or slot-id=…")),
    }
}

/// The PIN; `None` where the token asks for it itself.
fn pin(uri: &TokenUri, asks_itself: bool) -> Result<Option<AuthPin>, TrustError> {
    let place = match &uri.pin {
        Some(PinPlace::Variable(name)) => KeyPlace::Variable(name.clone()),
        Some(PinPlace::File(path)) => KeyPlace::File(path.clone()),
        None if std::env::var_os(PIN_VARIABLE).is_some() => KeyPlace::Variable(PIN_VARIABLE.to_owned()),
        None if asks_itself => return Ok(None),
        None => {
            let fault = format!(
                "the token needs a PIN; set ${PIN_VARIABLE}, or add ?pin-source=env:NAME or ?pin-source=file:PATH to the key"
            );
            return Err(key_fault(uri, &fault));
        }
    };
    let bytes = match &place {
        KeyPlace::Variable(name) => std::env::var(name)
            .map(|text| zeroize::Zeroizing::new(text.into_bytes()))
            .map_err(|_| place.fault("is not set; put the token's PIN there"))?,
        place => place.bytes()?,
    };
    let text = std::str::from_utf8(bytes.trim_ascii_end()).map_err(|_| place.fault("is not a PIN: it is not UTF-8"))?;
    Ok(Some(AuthPin::new(text.into())))
}

/// The keys of a class that a URI names.
fn find(uri: &TokenUri, session: &Session, class: ObjectClass) -> Result<Vec<ObjectHandle>, TrustError> {
    let mut template = vec![Attribute::Class(class)];
    template.extend(uri.object.as_ref().map(|label| Attribute::Label(label.clone().into_bytes())));
    template.extend(uri.id.as_ref().map(|id| Attribute::Id(id.clone())));
    session
        .find_objects(&template)
        .map_err(|error| key_fault(uri, &format!("the token lists no keys: {}", said(&error))))
}

/// The one key of a class that a URI names.
fn one(uri: &TokenUri, session: &Session, class: ObjectClass) -> Result<ObjectHandle, TrustError> {
    match find(uri, session, class)?.as_slice() {
        [key] => Ok(*key),
        [] => Err(key_fault(uri, "the token has no key of this name; `slmc keygen --token` makes one")),
        several => Err(key_fault(
            uri,
            &format!("{} keys of the token are of this name; add object=NAME or id=%01", several.len()),
        )),
    }
}

/// The public half of a secret key: the object of the same CKA_ID, or what the secret one says of it.
fn public_of(uri: &TokenUri, session: &Session, secret: ObjectHandle) -> Result<PublicKey, TrustError> {
    let mut template = vec![Attribute::Class(ObjectClass::PUBLIC_KEY)];
    let attributes = session.get_attributes(secret, &[AttributeType::Id]).unwrap_or_default();
    match attributes.into_iter().next() {
        Some(Attribute::Id(id)) if !id.is_empty() => template.push(Attribute::Id(id)),
        _ => template.extend(uri.object.as_ref().map(|label| Attribute::Label(label.clone().into_bytes()))),
    }
    match session.find_objects(&template).unwrap_or_default().as_slice() {
        [public] => point_of(uri, session, *public),
        _ => point_of(uri, session, secret),
    }
}

/// The public key that an object has: its point on the curve of its parameters.
fn point_of(uri: &TokenUri, session: &Session, object: ObjectHandle) -> Result<PublicKey, TrustError> {
    let wanted = [AttributeType::KeyType, AttributeType::EcParams, AttributeType::EcPoint];
    let attributes = session.get_attributes(object, &wanted).unwrap_or_default();
    let (mut kind, mut curve, mut point) = (None, Vec::new(), Vec::new());
    for attribute in attributes {
        match attribute {
            Attribute::KeyType(value) => kind = Some(value),
            Attribute::EcParams(value) => curve = value,
            Attribute::EcPoint(value) => point = value,
            _ => {}
        }
    }
    let der = match kind {
        Some(KeyType::EC_EDWARDS) if curve == ED25519_OID || curve == ED25519_NAME => {
            ED25519_PREFIX.iter().copied().chain(without_octet_string(&point, 32).iter().copied()).collect()
        }
        Some(KeyType::EC) if curve == P256_OID => {
            P256_PREFIX.iter().copied().chain(without_octet_string(&point, 65).iter().copied()).collect()
        }
        _ => Vec::new(),
    };
    PublicKey::from_der(&der).ok_or_else(|| {
        key_fault(
            uri,
            "is not a key of Ed25519 or of ECDSA on P-256 whose public half is on the token; slmc signs with these",
        )
    })
}

/// The bytes of a point, which tokens give as they are or in an OCTET STRING.
fn without_octet_string(point: &[u8], bytes: usize) -> &[u8] {
    match point {
        [0x04, length, rest @ ..] if rest.len() == bytes && usize::from(*length) == bytes => rest,
        _ => point,
    }
}
