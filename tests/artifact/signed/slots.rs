//! Signatures and keys: forms that verify twice, keys of another type, keys that are none, rotation.

use super::*;
use slm_runtime::format::header::SIGNATURE_AREA;
use slm_runtime::format::signature::{SignatureSlot, slots};
use slmc::trust::signing::SigningError;

/// Order of P-256, big-endian.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The file with another content of a slot.
fn with_slot(file: &[u8], number: usize, slot: &SignatureSlot) -> Vec<u8> {
    let mut changed = file.to_vec();
    let at = SIGNATURE_AREA.start + (number - 1) * SignatureSlot::BYTES;
    changed[at..at + SignatureSlot::BYTES].copy_from_slice(&slot.to_bytes());
    changed
}

fn slot_of(file: &[u8], number: usize) -> SignatureSlot {
    slots(file).find(|(found, _)| *found == number).expect("it is signed").1
}

#[test]
fn the_twin_of_an_ecdsa_signature_is_refused() {
    let [_, key] = keys();
    let file = signed_by(&tiny(Family::Llama).bytes, &FIELDS, &[&key]);
    assert_eq!(opened(&file, &[&key], 1), Ok(()));
    let mut slot = slot_of(&file, 1);
    // s becomes n - s.
    let mut borrow = 0;
    for (byte, order) in slot.signature[32..].iter_mut().zip(ORDER).rev() {
        let difference = i16::from(order) - i16::from(*byte) - borrow;
        (*byte, borrow) = (difference.rem_euclid(256) as u8, i16::from(difference < 0));
    }
    let error = opened(&with_slot(&file, 1, &slot), &[&key], 1).expect_err("the twin");
    assert!(matches!(error, TrustError::Signature { slot: 1, .. }) && named(error).contains("higher of two"));
    // What other tools write may be the twin: it is put in place as the lower one.
    let message = ToSign::new(&file, &FIELDS).expect("signed before").message();
    let twin = slmc::trust::Signature::read(Algorithm::P256, &slot.signature).expect("a signature");
    assert!(key.public().verifies(&message, &twin));
    for half in [0..32, 32..64] {
        let mut slot = slot_of(&file, 1);
        slot.signature[half].fill(0);
        assert!(matches!(opened(&with_slot(&file, 1, &slot), &[&key], 1), Err(TrustError::Signature { slot: 1, .. })));
    }
}

#[test]
fn keys_of_other_kinds_and_keys_that_are_none_are_refused() {
    let [ed25519, p256] = keys();
    let file = signed_by(&tiny(Family::Llama).bytes, &FIELDS, &[&ed25519]);
    assert_eq!(opened(&file, &[&ed25519], 1), Ok(()));
    // No key of the firmware has this name.
    let error = opened(&file, &[&p256], 1).expect_err("a stranger's");
    assert!(matches!(error, TrustError::KeyUnknown { .. }) && named(error).contains("not one of the trusted keys"));
    // A slot that gives a known name to another algorithm.
    let slot = SignatureSlot { algorithm: 2, ..slot_of(&file, 1) };
    let error = opened(&with_slot(&file, 1, &slot), &[&ed25519], 1).expect_err("not ECDSA");
    assert!(named(error).contains("another algorithm"));
    // A signature by one key under the name of the other.
    let mut slot = slot_of(&file, 1);
    slot.key_id = p256.public().id();
    slot.algorithm = 2;
    assert!(matches!(
        opened(&with_slot(&file, 1, &slot), &[&ed25519, &p256], 1),
        Err(TrustError::Signature { slot: 1, .. })
    ));
    // A name without a signature.
    slot = SignatureSlot { signature: [0; 64], ..slot_of(&file, 1) };
    assert!(matches!(opened(&with_slot(&file, 1, &slot), &[&ed25519], 1), Err(TrustError::Format(_))));
    slot.signature[7] = 1;
    assert!(matches!(opened(&with_slot(&file, 1, &slot), &[&ed25519], 1), Err(TrustError::Signature { .. })));
    // A signature without a name, and a slot of nobody beside one that holds.
    slot = SignatureSlot { key_id: [0; 32], ..slot_of(&file, 1) };
    assert!(matches!(opened(&with_slot(&file, 1, &slot), &[&ed25519], 1), Err(TrustError::Format(_))));
    slot = SignatureSlot { key_id: [0; 32], signature: [0; 64], ..slot };
    assert!(matches!(opened(&with_slot(&file, 2, &slot), &[&ed25519], 1), Err(TrustError::Format(_))));
    // An unknown algorithm is a later version's.
    slot = SignatureSlot { algorithm: 3, ..slot_of(&file, 1) };
    assert!(matches!(opened(&with_slot(&file, 1, &slot), &[&ed25519], 1), Err(TrustError::Format(_))));
    // Memory that was never written, in place of a key.
    for fill in [0, 0xff] {
        let (bytes, point) = ([fill; 32], [fill; 65]);
        for key in [Key::ed25519(&bytes), Key::p256(&point)] {
            let keys = [key];
            let trust = Trust { keys: &keys, threshold: 1, model_id: None, counter: &0, verifier: &Software };
            let error = ArtifactView::open_signed(&file, &trust, Check::Everything).err();
            assert!(matches!(error, Some(TrustError::Key { index: 0, .. })), "{error:?}");
        }
    }
    // A point of small order, for which signatures of anything can be made: y = 1, the neutral element, R likewise, S = 0.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let keys = [Key::ed25519(&neutral)];
    let mut forged = SignatureSlot { key_id: keys[0].id(&Software), ..slot_of(&file, 1) };
    forged.signature = [0; 64];
    forged.signature[0] = 1;
    let trust = Trust { keys: &keys, threshold: 1, model_id: None, counter: &0, verifier: &Software };
    let error = ArtifactView::open_signed(&with_slot(&file, 1, &forged), &trust, Check::Everything).err();
    assert!(matches!(error, Some(TrustError::Signature { slot: 1, .. })), "{error:?}");
}

#[test]
fn two_slots_are_two_keys() {
    let [old, new] = keys();
    let artifact = tiny(Family::Llama).bytes;
    let both = signed_by(&artifact, &FIELDS, &[&old, &new]);
    // Firmware of before, of after and of between.
    for (keys, threshold) in [(vec![&old], 1), (vec![&new], 1), (vec![&old, &new], 1), (vec![&new, &old], 2)] {
        assert_eq!(opened(&both, &keys, threshold), Ok(()));
    }
    // Order does not matter, and one slot may be empty.
    let (first, second) = (slot_of(&both, 1), slot_of(&both, 2));
    let swapped = with_slot(&with_slot(&both, 1, &second), 2, &first);
    assert_eq!(opened(&swapped, &[&old, &new], 2), Ok(()));
    let empty = SignatureSlot::from_bytes(&[0; SignatureSlot::BYTES]);
    assert_eq!(opened(&with_slot(&both, 1, &empty), &[&new], 1), Ok(()));
    // One key in both counts once.
    let twice = with_slot(&both, 2, &first);
    assert_eq!(opened(&twice, &[&old, &new], 1), Ok(()));
    assert_eq!(opened(&twice, &[&old, &new], 2), Err(TrustError::Threshold { valid: 1, needed: 2 }));
    // A bad signature by a known key is refused though the other suffices.
    let mut bad = second;
    bad.signature[9] ^= 1;
    assert!(matches!(opened(&with_slot(&both, 2, &bad), &[&old, &new], 1), Err(TrustError::Signature { slot: 2, .. })));
    // Without both there is no signature.
    let error = opened(&with_slot(&with_slot(&both, 1, &empty), 2, &empty), &[&old], 1).expect_err("not signed");
    assert!(matches!(error, TrustError::Format(_)));
    assert_eq!(opened(&artifact, &[&old], 1), Err(TrustError::NotSigned));
    // Another counter is another header: the signature in the other slot is gone.
    let to_sign = ToSign::new(&both, &SigningFields { counter: Some(8), ..FIELDS }).expect("it can be signed again");
    assert_eq!(to_sign.dropped(), [1, 2]);
    let signature = old.sign(&to_sign.message()).expect("a key that is here");
    let raised = to_sign.signed(Slot::FIRST, old.public(), &signature).expect("its own");
    assert_eq!(opened(&raised, &[&old], 1), Ok(()));
    assert!(matches!(opened(&raised, &[&new], 1), Err(TrustError::KeyUnknown { .. })));
    // A signature of what was before is not put into it.
    let to_sign = ToSign::new(&both, &SigningFields { counter: Some(9), ..FIELDS }).expect("again");
    let refused = to_sign.signed(Slot::FIRST, old.public(), &signature);
    assert!(matches!(refused, Err(SigningError::OtherSignature { p256: false })));
}

#[test]
fn older_releases_and_other_products_are_refused() {
    let [key, _] = keys();
    let file = signed_by(&tiny(Family::Llama).bytes, &FIELDS, &[&key]);
    let raw = key.public().to_raw();
    let keys = [runtime_key(key.public(), &raw).expect("a key")];
    let open = |counter: u64, model_id| {
        let trust = Trust { keys: &keys, threshold: 1, model_id, counter: &counter, verifier: &Software };
        ArtifactView::open_signed(&file, &trust, Check::Everything).map(|_| ())
    };
    assert_eq!((open(0, None), open(7, Some(MODEL_ID))), (Ok(()), Ok(())));
    assert_eq!(open(8, None), Err(TrustError::Rollback { found: 7, minimum: 8 }));
    assert_eq!(open(u64::MAX, None), Err(TrustError::Rollback { found: 7, minimum: u64::MAX }));
    assert_eq!(open(0, Some([1; 16])), Err(TrustError::ModelId { found: MODEL_ID }));
    // A file that names none is refused by a device that names one.
    let none = signed_by(&tiny(Family::Llama).bytes, &SigningFields { model_id: None, ..FIELDS }, &[&key]);
    assert_eq!(opened(&none, &[&key], 1), Err(TrustError::ModelId { found: [0; 16] }));
    struct Unreadable;
    impl slm_runtime::trust::Counter for Unreadable {
        fn read(&self) -> Option<u64> {
            None
        }
    }
    let trust = Trust { keys: &keys, threshold: 1, model_id: None, counter: &Unreadable, verifier: &Software };
    assert_eq!(ArtifactView::open_signed(&file, &trust, Check::Everything).err(), Some(TrustError::Counter));
}
