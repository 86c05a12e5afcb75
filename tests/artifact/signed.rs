//! Signed artifacts under attack: every byte changed, every length cut, leaves swapped, signatures in other forms, keys that
//! are none, older releases, other products, and flash that changes while it is read.

mod bytes;
mod fields;
mod slots;
mod stream;

use super::tiny;
use crate::fixture::{Family, Size, compiled, quantized};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::layout::Layout;
use slm_runtime::sha256::Software;
use slm_runtime::trust::{Check, Key, Trust, TrustError};
use slmc::model::scheme::Preset;
use slmc::target::Target;
use slmc::trust::signing::{SigningFields, Slot, ToSign, runtime_key};
use slmc::trust::{Algorithm, SecretKey};

/// The product line of these files.
const MODEL_ID: [u8; 16] = *b"slmc test models";
const FIELDS: SigningFields = SigningFields { counter: Some(7), model_id: Some(MODEL_ID), chunk_shift: Some(12) };

/// A key of each algorithm.
fn keys() -> [SecretKey; 2] {
    [Algorithm::Ed25519, Algorithm::P256].map(|algorithm| SecretKey::generate(algorithm).expect("random bytes"))
}

/// An artifact signed by keys, one in each slot.
fn signed_by(artifact: &[u8], fields: &SigningFields, keys: &[&SecretKey]) -> Vec<u8> {
    let mut bytes = artifact.to_vec();
    for (key, number) in keys.iter().zip(1..) {
        let to_sign = ToSign::new(&bytes, fields).expect("it can be signed");
        assert!(to_sign.dropped().is_empty(), "the second signature is of the same header");
        let signature = key.sign(&to_sign.message()).expect("a key that is here");
        bytes = to_sign.signed(Slot::from_number(number).expect("a slot"), key.public(), &signature).expect("its own");
    }
    bytes
}

/// A file with several leaves in a section.
fn with_leaves() -> Vec<u8> {
    let size = Size { hidden: 64, ffn: 128, layers: 2, heads: 4, context: 32 };
    let model = quantized(Family::TiedLlama, size, Preset::W8);
    compiled(&model, &Target { page_bytes: 64, ..Target::unlimited("tiny", Layout::R4K4) }, None).bytes
}

/// What a device with these keys says of a file.
fn opened(bytes: &[u8], keys: &[&SecretKey], threshold: usize) -> Result<(), TrustError> {
    let raw: Vec<Vec<u8>> = keys.iter().map(|key| key.public().to_raw()).collect();
    let keys: Vec<Key<'_>> = keys.iter().zip(&raw).filter_map(|(key, raw)| runtime_key(key.public(), raw)).collect();
    let trust = Trust { keys: &keys, threshold, model_id: Some(MODEL_ID), counter: &7, verifier: &Software };
    let signed = ArtifactView::open_signed(bytes, &trust, Check::Everything)?;
    assert_eq!(signed.unchecked(), 0);
    signed.artifact().map(|_| ())
}

/// An error that says something, in words.
fn named(error: TrustError) -> String {
    let text = error.to_string();
    assert!(text.len() > 15 && !text.ends_with('.'), "{text}");
    text
}
