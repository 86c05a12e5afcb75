//! Ciphers against the vectors of Wycheproof, nonces against the construction of age, stanzas that were changed.

use super::keys::FILE_KEY_BYTES;
use super::*;
use crate::hmac::hkdf;
use std::vec::Vec;
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

const KEY: [u8; 32] = [0x42; 32];
const SALT: [u8; 16] = [9; 16];
const FILE_KEY: [u8; FILE_KEY_BYTES] = [3; FILE_KEY_BYTES];
const CIPHERS: [SealCipher; 2] = [SealCipher::ChaCha20Poly1305, SealCipher::Aes256Gcm];

/// Vectors with this construction's sizes and without further data.
#[test]
fn the_vectors_of_wycheproof() {
    for (cipher, name) in [(CIPHERS[0], TestName::ChaCha20Poly1305), (CIPHERS[1], TestName::AesGcm)] {
        let set = TestSet::load(name).expect("the vectors are in the crate");
        let (mut valid, mut invalid) = (0, 0);
        let groups = set.test_groups.iter();
        for group in groups.filter(|group| (group.key_size, group.nonce_size, group.tag_size) == (256, 96, 128)) {
            for test in group.tests.iter().filter(|test| test.aad.is_empty()) {
                let (key, nonce) = (test.key[..].try_into().expect("32"), test.nonce[..].try_into().expect("12"));
                let tag: [u8; TAG_BYTES] = test.tag[..].try_into().expect("16");
                let mut bytes = test.ct.to_vec();
                let opening = SoftwareCipher.open(cipher, &key, &nonce, &mut bytes, &tag);
                match test.result {
                    TestResult::Invalid => {
                        assert_eq!(opening, Opening::Wrong, "{name:?} {}", test.tc_id);
                        invalid += 1;
                    }
                    TestResult::Valid | TestResult::Acceptable => {
                        assert_eq!((opening, &bytes[..]), (Opening::Open, &test.pt[..]), "{name:?} {}", test.tc_id);
                        let mut bytes = test.pt.to_vec();
                        assert_eq!(SoftwareCipher.close(cipher, &key, &nonce, &mut bytes), Some(tag));
                        assert_eq!(bytes, test.ct[..]);
                        // A vector whose tag has another bit is one that must not open: those of ChaCha20 in the set have further
                        // data, which this construction has not.
                        for bit in 0..8 * TAG_BYTES {
                            let (mut other, mut bytes) = (tag, test.ct.to_vec());
                            other[bit / 8] ^= 1 << (bit % 8);
                            let opening = SoftwareCipher.open(cipher, &key, &nonce, &mut bytes, &other);
                            assert_eq!(opening, Opening::Wrong, "{name:?} {} bit {bit}", test.tc_id);
                        }
                        valid += 1;
                    }
                }
            }
        }
        assert!(valid > 20 && (invalid > 20 || name == TestName::ChaCha20Poly1305), "{name:?}: {valid}, {invalid}");
    }
}

#[test]
fn leaves_have_the_nonces_of_age() {
    for cipher in CIPHERS {
        let payload = hkdf(&FILE_KEY, &SALT, b"payload");
        for leaves in [1, 2, 300] {
            let mut file_key = FILE_KEY;
            let key = FileKey::new(cipher, &mut file_key, &SALT, leaves);
            assert_eq!(file_key, [0; FILE_KEY_BYTES], "the file key is wiped");
            let last = leaves - 1;
            for leaf in [0, 1, 255, 256, last].into_iter().filter(|leaf| *leaf < leaves) {
                let mut nonce = [0; 12];
                nonce[9..11].copy_from_slice(&(leaf as u16).to_be_bytes());
                nonce[11] = u8::from(leaf == last);
                let mut bytes = *b"some weights";
                let tag = key.close(leaf, &mut bytes).expect("the cipher is there");
                assert_eq!(SoftwareCipher.open(cipher, &payload, &nonce, &mut bytes, &tag), Opening::Open);
                assert_eq!(&bytes, b"some weights");
            }
            assert_eq!(key.close(leaves, &mut [0; 4]), None);
            assert_eq!(key.open(&SoftwareCipher, leaves, &mut [0; 4], &[0; TAG_BYTES]), Err(SealError::Range));
        }
    }
}

/// Every leaf of a file and every place of it has a nonce of its own.
#[test]
fn a_leaf_opens_in_its_own_place_alone() {
    let closed = |leaves: u64, leaf: u64| {
        let key = FileKey::new(CIPHERS[0], &mut FILE_KEY.clone(), &SALT, leaves);
        let mut bytes = [7; 50];
        (key.close(leaf, &mut bytes).expect("closes"), bytes)
    };
    for (leaves, leaf) in [(3, 0), (3, 1), (3, 2), (2, 1)] {
        let (tag, bytes) = closed(leaves, leaf);
        for (other_leaves, other) in [(3, 0), (3, 1), (3, 2), (2, 1), (4, 2)] {
            let key = FileKey::new(CIPHERS[0], &mut FILE_KEY.clone(), &SALT, other_leaves);
            let mut open = bytes;
            let found = key.open(&SoftwareCipher, other, &mut open, &tag);
            let same_nonce = (leaf, leaf + 1 == leaves) == (other, other + 1 == other_leaves);
            assert_eq!(found.is_ok(), same_nonce, "leaf {leaf} of {leaves} as {other} of {other_leaves}");
            assert_eq!(open, if same_nonce { [7; 50] } else { [0; 50] }, "what does not open is zeros");
        }
    }
}

#[test]
fn stanzas_are_of_one_device_one_file_and_one_cipher() {
    let device = DeviceKey::new(&KEY);
    let other = DeviceKey::new(&[0x43; 32]);
    assert_ne!(device.id(), other.id());
    for cipher in CIPHERS {
        let stanza = device.stanza(cipher, &FILE_KEY, &SALT).expect("the cipher is there");
        let opens = |key: &DeviceKey<'_>, cipher, stanza: &[u8; STANZA_BYTES], salt: &[u8; 16]| match key
            .file_key(cipher, stanza, salt)
        {
            StanzaKey::Opened(found) => {
                assert_eq!(found, FILE_KEY);
                "opened"
            }
            StanzaKey::NotMine => "not mine",
            StanzaKey::Wrong => "wrong",
            StanzaKey::Unable => "unable",
        };
        assert_eq!(opens(&device, cipher, &stanza, &SALT), "opened");
        assert_eq!(opens(&other, cipher, &stanza, &SALT), "not mine");
        assert_eq!(opens(&device, cipher, &stanza, &[8; 16]), "wrong", "of another file");
        let another = if cipher == CIPHERS[0] { CIPHERS[1] } else { CIPHERS[0] };
        assert_eq!(opens(&device, another, &stanza, &SALT), "wrong", "of another cipher");
        for at in 0..8 * STANZA_BYTES {
            let mut changed = stanza;
            changed[at / 8] ^= 1 << (at % 8);
            let expected = if at < 8 * 16 { "not mine" } else { "wrong" };
            assert_eq!(opens(&device, cipher, &changed, &SALT), expected, "bit {at}");
        }
    }
}

#[test]
fn a_seal_is_read_whole_or_refused() {
    let stanza = DeviceKey::new(&KEY).stanza(CIPHERS[0], &FILE_KEY, &SALT).expect("closes");
    let mut section: Vec<u8> = SALT.to_vec();
    section.extend(2u32.to_le_bytes());
    section.extend([0; 12]);
    section.extend([stanza, [1; STANZA_BYTES]].as_flattened());
    section.extend([[4; TAG_BYTES], [5; TAG_BYTES], [6; TAG_BYTES]].as_flattened());
    let read =
        |section: &[u8], leaves| crate::format::seal::Seal::read(section, leaves).map(|seal| seal.stanzas().len());
    assert_eq!(read(&section, 3), Ok(2));
    let seal = crate::format::seal::Seal::read(&section, 3).expect("sound");
    assert_eq!((seal.tag(0), seal.tag(2), seal.tag(3)), (Some(&[4; 16]), Some(&[6; 16]), None));
    assert_eq!(crate::format::seal::Seal::tag_offset(2, 1), Some(32 + 96 + 16));
    for leaves in [0, 2, 4, u64::MAX] {
        assert!(read(&section, leaves).is_err());
    }
    for length in 0..section.len() {
        assert!(read(&section[..length], 3).is_err(), "{length} bytes");
    }
    for at in 16..32 {
        let mut changed = section.clone();
        changed[at] ^= 0x40;
        assert!(read(&changed, 3).is_err(), "byte {at}");
    }
}
