//! Signatures of the standards and of Wycheproof through the path that artifacts take: the form, then the verifier.

use super::verifier::check_form;
use super::*;
use crate::format::signature::SignatureAlgorithm;
use crate::sha256::Engine;
use std::string::String;
use std::vec::Vec;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|two| u8::from_str_radix(core::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

/// What a slot with this signature would be answered, for a message in two pieces.
fn verified(key: &Key<'_>, message: &[u8], signature: &[u8; 64]) -> Result<Verdict, &'static str> {
    check_form(key.algorithm(), signature)?;
    let (first, second) = message.split_at(message.len() / 3);
    Ok(Software.verify(key, &[first, second], signature))
}

#[test]
fn names_are_digests_of_the_public_key_info() {
    // `openssl pkey -pubout -outform DER | sha256sum` of the keys of RFC 8032, 7.1, TEST 1 and RFC 6979, A.2.5.
    let ed25519: [u8; 32] =
        bytes("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").try_into().unwrap();
    let mut point = std::vec![4];
    point.extend(bytes("60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6"));
    point.extend(bytes("7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299"));
    let point: [u8; 65] = point.try_into().unwrap();
    let hex = |digest: [u8; 32]| digest.iter().map(|byte| std::format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(Key::ed25519(&ed25519).id(&Software)), ED25519_ID);
    assert_eq!(hex(Key::p256(&point).id(&Software)), P256_ID);
}

const ED25519_ID: &str = "06e3fd8fda29bb60ab59557de61edb0aecdb231134be30e75b455f8e1b792fa9";
const P256_ID: &str = "5a7a78cca4a0f420d9bc62bb669c3c2759e39f723d3ae10dcbe0f0815a07ecd4";

#[test]
fn keys_that_were_never_written_are_not_keys() {
    let refused = |key: Key<'_>| key.check().is_err();
    assert!(refused(Key::ed25519(&[0; 32])) && refused(Key::ed25519(&[0xff; 32])));
    assert!(refused(Key::p256(&[0; 65])) && refused(Key::p256(&[0xff; 65])) && refused(Key::p256(&[2; 65])));
    assert!(!refused(Key::ed25519(&[7; 32])) && !refused(Key::p256(&[4; 65])));
}

#[cfg(feature = "ed25519")]
#[test]
fn ed25519_of_rfc_8032() {
    let vectors = [
        (
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe2465
             5141438e7a100b",
        ),
        (
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d
             291612bb0c00",
        ),
        (
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027
             beceea1ec40a",
        ),
    ];
    for (key, message, signature) in vectors {
        let key: [u8; 32] = bytes(key).try_into().unwrap();
        let mut signature: [u8; 64] = bytes(signature).try_into().unwrap();
        let (key, message) = (Key::ed25519(&key), bytes(message));
        assert_eq!(verified(&key, &message, &signature), Ok(Verdict::Valid));
        assert_eq!(verified(&key, b"another message", &signature), Ok(Verdict::Invalid));
        // S + L, another form of the same signature.
        let order = bytes("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
        let mut carry = 0;
        for (byte, add) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            (*byte, carry) = (sum as u8, sum >> 8);
        }
        assert!(verified(&key, &message, &signature).is_err());
    }
}

#[cfg(feature = "p256")]
#[test]
fn p256_of_rfc_6979() {
    let mut point = [4; 65];
    point[1..33].copy_from_slice(&bytes("60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6"));
    point[33..].copy_from_slice(&bytes("7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299"));
    let key = Key::p256(&point);
    // "test" has the lower s of the two that verify, "sample" the higher.
    let test: [u8; 64] = bytes(
        "F1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367
         019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083",
    )
    .try_into()
    .unwrap();
    let sample: [u8; 64] = bytes(
        "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716
         F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
    )
    .try_into()
    .unwrap();
    assert_eq!(verified(&key, b"test", &test), Ok(Verdict::Valid));
    assert_eq!(verified(&key, b"tess", &test), Ok(Verdict::Invalid));
    assert_eq!(Software.verify(&key, &[b"sample"], &sample), Verdict::Valid);
    assert_eq!(
        verified(&key, b"sample", &sample),
        Err("is the higher of two that verify: s is above half of the order")
    );
}

#[cfg(feature = "ed25519")]
#[test]
fn ed25519_of_wycheproof() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
    let mut counts = [0, 0];
    for group in &set.test_groups {
        let key: [u8; 32] = group.key.pk.to_vec().try_into().unwrap();
        for test in &group.tests {
            let signature: Result<[u8; 64], _> = test.sig.to_vec().try_into();
            let found = signature
                .is_ok_and(|signature| verified(&Key::ed25519(&key), &test.msg, &signature) == Ok(Verdict::Valid));
            assert_eq!(found, !test.result.must_fail(), "{}: {}", test.tc_id, test.comment);
            counts[usize::from(found)] += 1;
        }
    }
    assert!(counts[0] > 40 && counts[1] > 60, "{counts:?}");
}

#[cfg(feature = "p256")]
#[test]
fn p256_of_wycheproof() {
    use wycheproof::ecdsa::{TestName, TestSet};
    let set = TestSet::load(TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let (mut counts, mut twins) = ([0, 0], 0);
    for group in &set.test_groups {
        let Ok(point) = <[u8; 65]>::try_from(group.key.key.to_vec()) else { panic!("a point has 65 bytes") };
        let key = Key::p256(&point);
        for test in &group.tests {
            let Ok(signature) = <[u8; 64]>::try_from(test.sig.to_vec()) else {
                assert!(test.result.must_fail(), "{}: {}", test.tc_id, test.comment);
                continue;
            };
            let found = verified(&key, &test.msg, &signature);
            // The crate takes both signatures that verify; the higher one is refused by its form alone.
            let twin = found.is_err_and(|fault| fault.contains("higher of two"));
            let holds = found == Ok(Verdict::Valid)
                || twin && Software.verify(&key, &[&test.msg], &signature) == Verdict::Valid;
            assert_eq!(holds, !test.result.must_fail(), "{}: {}", test.tc_id, test.comment);
            counts[usize::from(holds)] += 1;
            twins += u32::from(twin && holds);
        }
    }
    assert!(counts[0] > 20 && counts[1] > 100 && twins > 20, "{counts:?} {twins}");
}

/// Hardware that lacks an algorithm, and hardware whose digests are wrong.
struct Broken;

impl Engine for Broken {
    fn digest(&self, _: &[&[u8]]) -> [u8; 32] {
        [0; 32]
    }
}

impl Verifier for Broken {
    fn verify(&self, _: &Key<'_>, _: &[&[u8]], _: &[u8; 64]) -> Verdict {
        Verdict::Unable
    }
}

#[test]
fn a_policy_that_trusts_nobody_is_refused_before_the_file_is_read() {
    let (one, two) = ([7; 32], [8; 32]);
    let (keys, zeros) = ([Key::ed25519(&one), Key::ed25519(&two)], [Key::ed25519(&one), Key::ed25519(&[0; 32])]);
    let check = |keys: &[Key<'_>], threshold, model_id| {
        let trust = Trust { keys, threshold, model_id, counter: &0, verifier: &Broken };
        trust.check_page(b"").unwrap_err()
    };
    assert!(matches!(check(&[], 1, None), TrustError::Policy(_)));
    assert!(matches!(check(&keys, 0, None), TrustError::Policy(_)));
    assert!(matches!(check(&keys, 3, None), TrustError::Policy(_)));
    assert!(matches!(check(&keys[..1], 2, None), TrustError::Policy(_)));
    assert!(matches!(check(&keys, 1, Some([0; 16])), TrustError::Policy(_)));
    assert!(matches!(check(&zeros, 1, None), TrustError::Key { index: 1, .. }));
    assert!(matches!(check(&keys, 2, None), TrustError::Format(_)));
    for error in [check(&zeros, 1, None), TrustError::Unable(SignatureAlgorithm::EcdsaP256), TrustError::NotSigned] {
        assert!(std::format!("{error}").len() > 10);
    }
}
