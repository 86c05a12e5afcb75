//! Bundles that open, and those that must not.

use super::*;
use crate::disk::hash::sha256;
use crate::trust::Algorithm;
use crate::trust::statement::Resource;

fn statement(content: &[u8]) -> Statement {
    let predicate = json!({"result": "PASSED"});
    Statement::new(vec![Resource::file("a.slm", &sha256(content))], "https://example.com/test/v1", predicate)
}

fn key() -> SecretKey {
    SecretKey::generate(Algorithm::P256).expect("a key")
}

fn bundle(content: &[u8], key: &SecretKey) -> String {
    sign(&statement(content), key, ("hint".to_owned(), "hint".to_owned())).expect("it signs").1
}

/// What checking a file says.
fn checked(text: impl AsRef<[u8]>, keys: &[PublicKey], content: &[u8]) -> Result<usize, String> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.sigstore.json");
    std::fs::write(&path, text).expect("written");
    check(&path, keys, &sha256(content)).map(|found| found.len()).map_err(|error| error.to_string())
}

#[test]
fn a_bundle_holds_for_its_artifact_and_its_key() {
    let (key, other) = (key(), key());
    let keys = [other.public().clone(), key.public().clone()];
    let text = bundle(b"artifact", &key);
    assert!(text.as_bytes().starts_with(MAGIC) && text.ends_with("}\n"));
    assert_eq!(checked(&text, &keys, b"artifact"), Ok(1));
    let another = checked(&text, &keys, b"other").expect_err("another artifact");
    assert!(another.contains("a.sigstore.json: is about a.slm, and not about a file with SHA-256"), "{another}");
    let foreign = checked(&text, &keys[..1], b"artifact").expect_err("another key");
    assert!(foreign.contains("not signed by this key"), "{foreign}");
    assert!(checked(&text, &[], b"artifact").expect_err("no key").contains("pass --key"));

    let envelopes = [read_one(&text), read_one(&text)];
    let joined = lines(&envelopes);
    assert!(joined.as_bytes().starts_with(LINES_MAGIC));
    assert_eq!(checked(&joined, &keys, b"artifact"), Ok(2));
    let with_foreign =
        format!("{joined}{}", lines(&[read_one(&bundle(b"artifact", &SecretKey::generate(Algorithm::P256).unwrap()))]));
    assert!(checked(&with_foreign, &keys, b"artifact").expect_err("one is foreign").contains("a.sigstore.json:3:"));
}

fn read_one(text: &str) -> Envelope {
    envelopes(text.as_bytes()).expect("a bundle").remove(0).1
}

#[test]
fn bundles_of_others_and_damage_are_named() {
    let key = key();
    let keys = [key.public().clone()];
    let text = bundle(b"artifact", &key);
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let changed = |change: fn(&mut Value)| {
        let mut value = value.clone();
        change(&mut value);
        value.to_string()
    };
    let cases = [
        (changed(|b| b["mediaType"] = json!("text/plain")), "media type `text/plain`"),
        (changed(|b| drop(b.as_object_mut().unwrap().remove("mediaType"))), "no `mediaType`"),
        (changed(|b| drop(b.as_object_mut().unwrap().remove("dsseEnvelope"))), "without a `dsseEnvelope`"),
        (changed(|b| b["messageSignature"] = json!({})), "signs a file's digest"),
        (changed(|b| b["verificationMaterial"] = json!({"certificate": {"rawBytes": "AA=="}})), "cosign verifies it"),
        (changed(|b| b["dsseEnvelope"]["signatures"] = json!([])), "has 0 signatures"),
        (changed(|b| b["dsseEnvelope"]["payload"] = json!("!")), "the payload of the envelope is not base64"),
        (
            changed(|b| b["dsseEnvelope"]["signatures"][0]["sig"] = json!("!")),
            "a signature of the envelope is not base64",
        ),
        (changed(|b| b["dsseEnvelope"]["payload"] = json!("e30=")), "was changed after it was signed"),
        (changed(|b| b["dsseEnvelope"]["payloadType"] = json!("a/b")), "was changed after it was signed"),
        (changed(|b| b["dsseEnvelope"] = json!([])), "is not a Sigstore bundle with an envelope"),
        (String::new(), "is empty"),
        ("{\n".to_owned(), ":1: is not JSON"),
        ("[]".to_owned(), "is not a Sigstore bundle"),
        ("\"a\"".to_owned(), "is not a Sigstore bundle"),
    ];
    for (text, expected) in cases {
        let error = checked(&text, &keys, b"artifact").expect_err(expected);
        assert!(error.contains("a.sigstore.json") && error.contains(expected), "{expected}: {error}");
    }
    assert!(checked([0xff, 0xfe], &keys, b"artifact").expect_err("not UTF-8").contains("UTF-8"));
}

#[test]
fn every_character_of_a_bundle_counts_or_says_nothing() {
    let key = key();
    let keys = [key.public().clone()];
    let text = bundle(b"artifact", &key);
    let envelope = text.find("dsseEnvelope").expect("there") + "dsseEnvelope\":".len();
    let mut held = 0;
    for index in 0..text.len() {
        assert!(checked(&text[..index], &keys, b"artifact").is_err() || index + 1 == text.len(), "cut at {index}");
        let mut bytes = text.clone().into_bytes();
        bytes[index] ^= 1;
        held += usize::from(checked(&bytes, &keys, b"artifact").is_ok() && index > envelope);
    }
    // The hint in the envelope, of which nothing is concluded, and the name of its key; blanks at the end.
    assert!(held <= "\"keyid\":\"hint\"".len() + 1, "{held} changed characters of the envelope were not seen");
}

#[test]
fn what_was_signed_must_be_a_statement() {
    let key = key();
    let keys = [key.public().clone()];
    let other = json!({"_type": "https://in-toto.io/Statement/v0.1", "subject": [], "predicateType": "a"});
    let empty = json!({"_type": "https://in-toto.io/Statement/v1", "subject": [], "predicateType": "a"});
    let nameless =
        json!({"_type": "https://in-toto.io/Statement/v1", "subject": [{"name": "a"}], "predicateType": "a"});
    for (kind, payload, expected) in [
        (PAYLOAD_TYPE, "not JSON".to_owned(), "not an in-toto statement"),
        (PAYLOAD_TYPE, other.to_string(), "Statement/v0.1"),
        (PAYLOAD_TYPE, empty.to_string(), "names no subject"),
        (PAYLOAD_TYPE, nameless.to_string(), "names no subject"),
        ("text/plain", empty.to_string(), "of type `text/plain`"),
    ] {
        let envelope = Envelope::sign(kind, payload.as_bytes(), &key, String::new()).expect("a key that is here");
        let error = checked(of_envelope(&envelope, String::new()), &keys, b"artifact").expect_err(expected);
        assert!(error.contains(expected), "{expected}: {error}");
    }
}
