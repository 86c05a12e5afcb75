//! Dead Simple Signing Envelopes (DSSE 1.0.2): what is signed, and the JSON around it.
//!
//! ```text
//! PAE(type, body) = "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body
//! {"payload": BASE64(body), "payloadType": type, "signatures": [{"sig": BASE64(signature), "keyid": KEYID}]}
//! ```
//!
//! SP is one space, LEN a length in bytes as decimal digits without leading zeros. A signature is over the PAE alone, so a
//! body means nothing under another type. Base64 is written in the standard alphabet and read in it or in the URL-safe
//! one, as the protocol demands; P-256 signatures are ASN.1 DER.

use super::{PublicKey, SecretKey, Signature, TrustError};
use ct_codecs::{Base64, Base64NoPadding, Base64UrlSafe, Base64UrlSafeNoPadding, Decoder, Encoder};
use serde::{Deserialize, Serialize};

/// The bytes that a signature is over.
pub fn pae(payload_type: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// An envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// Base64 of the body.
    pub payload: String,
    /// What the body is.
    pub payload_type: String,
    /// Who signed it.
    pub signatures: Vec<EnvelopeSignature>,
}

/// A signature in an envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvelopeSignature {
    /// Base64 of the signature.
    pub sig: String,
    /// A hint which key it is of; nothing is concluded from it. Absent, null and empty are the same.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub keyid: String,
}

fn null_as_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Envelope {
    /// A signed body.
    ///
    /// # Errors
    /// As for [`SecretKey::sign`].
    pub fn sign(payload_type: &str, body: &[u8], key: &SecretKey, keyid: String) -> Result<Self, TrustError> {
        let signature = key.sign(&pae(payload_type, body))?;
        Ok(Envelope {
            payload: encode(body),
            payload_type: payload_type.to_owned(),
            signatures: vec![EnvelopeSignature { sig: encode(&signature.to_standard()), keyid }],
        })
    }

    /// The body, whoever signed it.
    ///
    /// # Errors
    /// [`TrustError::Envelope`] where it is not base64.
    pub fn body(&self) -> Result<Vec<u8>, TrustError> {
        decode(&self.payload).ok_or_else(|| fault("the payload of the envelope is not base64"))
    }

    /// The body, where one of its signatures is this key's.
    ///
    /// # Errors
    /// [`TrustError::Envelope`].
    pub fn open(&self, key: &PublicKey) -> Result<Vec<u8>, TrustError> {
        let body = self.body()?;
        if self.signatures.is_empty() {
            return Err(fault("the envelope has no signature"));
        }
        let message = pae(&self.payload_type, &body);
        for signature in &self.signatures {
            let bytes = decode(&signature.sig).ok_or_else(|| fault("a signature of the envelope is not base64"))?;
            if Signature::read(key.algorithm(), &bytes).is_some_and(|signature| key.verifies(&message, &signature)) {
                return Ok(body);
            }
        }
        Err(fault("the envelope is not signed by this key, or was changed after it was signed"))
    }
}

fn fault(text: &str) -> TrustError {
    TrustError::Envelope { fault: text.to_owned() }
}

/// Base64 in the standard alphabet, padded.
pub fn encode(bytes: &[u8]) -> String {
    Base64::encode_to_string(bytes).expect("base64 of what is in memory fits into it")
}

/// Base64 in either alphabet, padded or not; `None` for anything else.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let standard = Base64::decode_to_vec(text, None).or_else(|_| Base64NoPadding::decode_to_vec(text, None));
    let url_safe =
        || Base64UrlSafe::decode_to_vec(text, None).or_else(|_| Base64UrlSafeNoPadding::decode_to_vec(text, None));
    standard.or_else(|_| url_safe()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Algorithm;

    #[test]
    fn the_encoding_is_that_of_the_protocol() {
        let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(pae("http://example.com/HelloWorld", b"hello world"), expected);
        assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
        assert_eq!(pae("é", b"1"), "DSSEv1 2 é 1 1".as_bytes());
    }

    #[test]
    fn envelopes_open_for_their_key_alone() {
        for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
            let (key, other) = (SecretKey::generate(algorithm).unwrap(), SecretKey::generate(algorithm).unwrap());
            let body = [b"\xfb\xff?".as_slice(), b"a body"].concat();
            let envelope = Envelope::sign("a/b", &body, &key, "name".to_owned()).unwrap();
            assert_eq!(envelope.open(key.public()).unwrap(), body);
            assert!(envelope.open(other.public()).is_err());
            let url_safe = envelope.payload.replace('+', "-").replace('/', "_");
            assert_ne!(url_safe, envelope.payload);
            let url_safe = Envelope { payload: url_safe, ..envelope.clone() };
            assert_eq!(url_safe.open(key.public()).unwrap(), body);
            let changes: [fn(&mut Envelope); 4] = [
                |envelope| envelope.payload_type.push('c'),
                |envelope| envelope.payload = encode(b"another body"),
                |envelope| envelope.payload.push('!'),
                |envelope| envelope.signatures.clear(),
            ];
            for change in changes {
                let mut changed = envelope.clone();
                change(&mut changed);
                assert!(changed.open(key.public()).is_err());
            }
        }
    }

    #[test]
    fn absent_and_null_names_are_empty() {
        for text in [r#"{"sig":""}"#, r#"{"sig":"","keyid":null}"#, r#"{"sig":"","keyid":""}"#] {
            assert_eq!(serde_json::from_str::<EnvelopeSignature>(text).unwrap().keyid, "");
        }
    }
}
