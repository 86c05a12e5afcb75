//! Keys of the two signature algorithms: Ed25519 (RFC 8032), which devices verify with the least code, and ECDSA on P-256
//! with SHA-256, which key services, tokens and the tools of Sigstore have. Secret keys are PKCS#8 PEM, public ones
//! SubjectPublicKeyInfo PEM, as openssl writes both:
//!
//! ```text
//! openssl genpkey -algorithm ed25519 -out KEY.pem                             openssl pkey -in KEY.pem -pubout -out KEY.pub
//! openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out KEY.pem
//! ```
//!
//! A key is named by the SHA-256 of its SubjectPublicKeyInfo in DER. Signatures are deterministic (RFC 8032, RFC 6979), so
//! the same bytes signed twice by the same key are the same file.

#[cfg(feature = "pkcs11")]
use super::token::{self, TokenKey};
use super::{KeyPlace, Signature, TrustError};
use crate::disk::hash::{Hash, sha256};
use ed25519_compact as ed25519;
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{SigningKey, VerifyingKey};
use p256::pkcs8::der::pem::{self, LineEnding};
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use std::fmt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const SECRET_LABEL: &str = "PRIVATE KEY";
const PUBLIC_LABEL: &str = "PUBLIC KEY";

/// A signature algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519.
    Ed25519,
    /// ECDSA on P-256 with SHA-256.
    P256,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Algorithm::Ed25519 => "Ed25519",
            Algorithm::P256 => "ECDSA P-256",
        })
    }
}

/// What a person should know of a secret key that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyWarning {
    /// Others than the owner of the file can read it.
    ReadByOthers {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for KeyWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KeyWarning::ReadByOthers { path } = self;
        write!(f, "{}: others can read this secret key; chmod 600 it", path.display())
    }
}

/// A key that signs. Never shown; its bytes are wiped when it is dropped.
pub struct SecretKey {
    secret: Secret,
    public: PublicKey,
    warning: Option<KeyWarning>,
}

enum Secret {
    Ed25519(ed25519::SecretKey),
    P256(SigningKey),
    #[cfg(feature = "pkcs11")]
    Token(TokenKey),
}

impl SecretKey {
    /// The key at a place ([`KeyPlace::of`]), relative to the working directory.
    ///
    /// # Errors
    /// [`TrustError::Key`].
    pub fn read(text: &str) -> Result<Self, TrustError> {
        SecretKey::at(&KeyPlace::of(text, Path::new(""))?)
    }

    /// The key at a place.
    ///
    /// # Errors
    /// [`TrustError::Key`].
    pub fn at(place: &KeyPlace) -> Result<Self, TrustError> {
        #[cfg(feature = "pkcs11")]
        if let KeyPlace::Token(uri) = place {
            let (key, public) = TokenKey::open(uri)?;
            return Ok(SecretKey { secret: Secret::Token(key), public, warning: None });
        }
        let der = decoded(place, SECRET_LABEL)?;
        let key = match ed25519::KeyPair::from_der(&der) {
            Ok(pair) => Some(SecretKey::of_ed25519(pair.sk)),
            Err(_) => p256::SecretKey::from_pkcs8_der(&der).ok().map(|key| SecretKey::of_p256(SigningKey::from(key))),
        };
        let key = key.ok_or_else(|| {
            place.fault(
                "is not a key of Ed25519 or of ECDSA on P-256, which are what slmc signs with; make one: slmc keygen -o NAME",
            )
        })?;
        let warning = place.read_by_others().map(|path| KeyWarning::ReadByOthers { path: path.to_owned() });
        Ok(SecretKey { warning, ..key })
    }

    /// A new key, of random bytes from the operating system.
    ///
    /// # Errors
    /// [`TrustError::Random`].
    pub fn generate(algorithm: Algorithm) -> Result<Self, TrustError> {
        loop {
            let mut seed = Zeroizing::new([0; 32]);
            getrandom::fill(&mut *seed).map_err(TrustError::Random)?;
            let key = match algorithm {
                Algorithm::Ed25519 => {
                    let mut copy = ed25519::Seed::new(*seed);
                    let pair = ed25519::KeyPair::try_from_seed(copy);
                    copy.wipe_mut();
                    pair.ok().map(|pair| SecretKey::of_ed25519(pair.sk))
                }
                Algorithm::P256 => SigningKey::from_slice(&*seed).ok().map(SecretKey::of_p256),
            };
            // Zeros and numbers of the group's order or above are not keys: one draw in 2^32.
            if let Some(key) = key {
                return Ok(key);
            }
        }
    }

    fn of_ed25519(secret: ed25519::SecretKey) -> Self {
        let public = PublicKey::of(Point::Ed25519(secret.public_key()));
        SecretKey { secret: Secret::Ed25519(secret), public, warning: None }
    }

    fn of_p256(secret: SigningKey) -> Self {
        let public = PublicKey::of(Point::P256(*secret.verifying_key()));
        SecretKey { secret: Secret::P256(secret), public, warning: None }
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The algorithm it signs with.
    pub fn algorithm(&self) -> Algorithm {
        self.public.algorithm()
    }

    /// What to warn of before it is used.
    pub fn warning(&self) -> Option<&KeyWarning> {
        self.warning.as_ref()
    }

    /// Signs a message.
    ///
    /// # Errors
    /// [`TrustError::Key`]: a token does not sign. Keys whose bytes are here always do.
    pub fn sign(&self, message: &[u8]) -> Result<Signature, TrustError> {
        let bytes = match &self.secret {
            Secret::Ed25519(secret) => *secret.sign(message, None),
            Secret::P256(secret) => {
                let signature: p256::ecdsa::Signature = secret.sign(message);
                signature.normalize_s().to_bytes().into()
            }
            #[cfg(feature = "pkcs11")]
            Secret::Token(key) => return key.sign(message, &self.public),
        };
        Ok(Signature::from_bytes(self.algorithm(), bytes))
    }

    /// PKCS#8 in PEM; `None` for a key on a token, which never leaves it.
    pub fn to_pem(&self) -> Option<Zeroizing<String>> {
        match &self.secret {
            Secret::Ed25519(secret) => Some(Zeroizing::new(secret.to_pem())),
            Secret::P256(secret) => Some(
                p256::SecretKey::from(secret.as_nonzero_scalar())
                    .to_pkcs8_pem(LineEnding::LF)
                    .expect("the lengths of a P-256 key are those of its standard"),
            ),
            #[cfg(feature = "pkcs11")]
            Secret::Token(_) => None,
        }
    }
}

/// A key that verifies.
#[derive(Clone)]
pub struct PublicKey {
    point: Point,
    der: Vec<u8>,
    id: Hash,
}

#[derive(Clone)]
enum Point {
    Ed25519(ed25519::PublicKey),
    P256(VerifyingKey),
}

impl PublicKey {
    /// The key at a place ([`KeyPlace::of`]); paths are relative to `base`.
    ///
    /// # Errors
    /// [`TrustError::Key`].
    pub fn read(text: &str, base: &Path) -> Result<Self, TrustError> {
        let place = KeyPlace::of(text, base)?;
        #[cfg(feature = "pkcs11")]
        if let KeyPlace::Token(uri) = &place {
            return token::public_key(uri);
        }
        let der = decoded(&place, PUBLIC_LABEL)?;
        PublicKey::from_der(&der).ok_or_else(|| {
            place.fault("is not a public key of Ed25519 or of ECDSA on P-256, which are what slmc verifies with")
        })
    }

    /// A SubjectPublicKeyInfo in DER; `None` for anything but a point of either curve that is not of small order.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let ed25519 = ed25519::PublicKey::from_der(der).ok().filter(|key| key.validate().is_ok());
        let point = ed25519.map(Point::Ed25519);
        let point = point.or_else(|| VerifyingKey::from_public_key_der(der).ok().map(Point::P256))?;
        Some(PublicKey::of(point)).filter(|key| key.der == der)
    }

    fn of(point: Point) -> Self {
        let der = match &point {
            Point::Ed25519(key) => key.to_der(),
            Point::P256(key) => {
                let der = key.to_public_key_der().expect("the lengths of a P-256 key are those of its standard");
                der.as_bytes().to_vec()
            }
        };
        PublicKey { id: sha256(&der), point, der }
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self.point {
            Point::Ed25519(_) => Algorithm::Ed25519,
            Point::P256(_) => Algorithm::P256,
        }
    }

    /// The name of the key: SHA-256 of [`PublicKey::to_der`].
    pub fn id(&self) -> Hash {
        self.id
    }

    /// SubjectPublicKeyInfo in DER: 44 bytes for Ed25519, 91 for P-256.
    pub fn to_der(&self) -> &[u8] {
        &self.der
    }

    /// SubjectPublicKeyInfo in PEM, lines of 64 columns with one line feed each, byte for byte as openssl writes it.
    pub fn to_pem(&self) -> String {
        pem::encode_string(PUBLIC_LABEL, LineEnding::LF, &self.der).expect("a key is far below the lengths of PEM")
    }

    /// The key as a device's firmware holds it: 32 bytes of Ed25519, or the 65 of an uncompressed point (SEC 1).
    pub fn to_raw(&self) -> Vec<u8> {
        match &self.point {
            Point::Ed25519(key) => key.to_vec(),
            Point::P256(key) => key.to_sec1_point(false).as_bytes().to_vec(),
        }
    }

    /// Whether a signature is this key's over a message. The higher of two ECDSA twins is not.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        match (&self.point, signature.algorithm()) {
            (Point::Ed25519(key), Algorithm::Ed25519) => {
                key.verify(message, &ed25519::Signature::new(signature.to_bytes())).is_ok()
            }
            (Point::P256(key), Algorithm::P256) => signature.p256().is_some_and(|signature| {
                signature.normalize_s() == signature && key.verify(message, &signature).is_ok()
            }),
            _ => false,
        }
    }
}

/// The content of the one PEM block at a place, which must have a label.
fn decoded(place: &KeyPlace, label: &str) -> Result<Zeroizing<Vec<u8>>, TrustError> {
    let bytes = place.bytes()?;
    let (found, der) = match pem::decode_vec(bytes.trim_ascii()) {
        Ok((found, der)) => (found, Zeroizing::new(der)),
        Err(error) => return Err(place.fault(format!("is not a key in PEM ({error}); {}", expected(label)))),
    };
    if found == label {
        return Ok(der);
    }
    Err(place.fault(match found {
        PUBLIC_LABEL => "is a public key, and this needs the secret one".to_owned(),
        SECRET_LABEL => {
            "is a secret key, and this needs the public one: openssl pkey -in KEY.pem -pubout writes it".to_owned()
        }
        "ENCRYPTED PRIVATE KEY" => {
            "is encrypted with a passphrase, which slmc does not ask for: openssl pkcs8 -in KEY.pem writes it plain, and \
             chmod 600 keeps it"
                .to_owned()
        }
        "EC PRIVATE KEY" => "is a key in SEC 1; openssl pkcs8 -topk8 -nocrypt -in KEY.pem writes PKCS#8".to_owned(),
        other => format!("is a {}; {}", other.to_lowercase(), expected(label)),
    }))
}

fn expected(label: &str) -> &'static str {
    match label {
        SECRET_LABEL => "expected a secret key in PKCS#8 PEM, as `slmc keygen` and `openssl genpkey` write it",
        _ => "expected a public key in SPKI PEM, as `slmc keygen` and `openssl pkey -pubout` write it",
    }
}

#[cfg(test)]
mod tests;
