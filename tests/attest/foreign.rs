//! openssl, which Debian has, reads slmc's keys, verifies its envelopes, and its own keys and signatures are read. It must be
//! there. What needs other tools is in `.ci/weekly trust`.

use super::{ARTIFACT, PARTS, RECIPE, attested, with_key, workshop};
use crate::support::{TOKEN_REFUSED, json, refused, succeed};
use data_encoding::BASE64;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs openssl, which must succeed; its stdout.
fn openssl(directory: &Path, line: &str) -> Vec<u8> {
    let output = Command::new("openssl")
        .args(line.split_whitespace())
        .current_dir(directory)
        .output()
        .expect("openssl is installed: `apt-get install openssl`");
    assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn refuses(directory: &Path, line: &str) -> bool {
    let output = Command::new("openssl").args(line.split_whitespace()).current_dir(directory).output();
    !output.expect("openssl is installed").status.success()
}

#[test]
fn openssl_reads_the_keys_that_are_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    for kind in ["ed25519", "p256"] {
        let report = json(path, &format!("keygen --type {kind} -o {kind}"));
        openssl(path, &format!("pkey -in {kind}.pem -check -noout"));
        let public = openssl(path, &format!("pkey -in {kind}.pem -pubout"));
        assert!(public == fs::read(path.join(format!("{kind}.pub"))).expect("written"), "{kind}");
        let der = openssl(path, &format!("pkey -pubin -in {kind}.pub -outform DER"));
        assert_eq!(report["key_id"], slmc::disk::hash::hex(&slmc::disk::hash::sha256(&der)));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(path.join(format!("{kind}.pem"))).expect("written").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        refused(path, &format!("keygen --type {kind} -o {kind}"), "keys are never replaced");
    }
    json(path, "keygen --type device -o gateway");
    assert_eq!(fs::read(path.join("gateway.key")).expect("written").len(), 32);
    refused(path, "keygen --type device -o gateway", "keys are never replaced");
    assert!(!succeed(path, "keygen -o default").is_empty());
    openssl(path, "pkey -in default.pem -noout");
}

#[test]
fn openssl_verifies_what_is_attested() {
    let directory = workshop(RECIPE);
    let path = directory.path();
    with_key(path, "run r.toml", 0);
    for part in &PARTS[..2] {
        let bundle: Value = serde_json::from_slice(&fs::read(attested(path, part)).expect("written")).expect("JSON");
        let envelope = &bundle["dsseEnvelope"];
        let decoded = |value: &Value| BASE64.decode(value.as_str().expect("text").as_bytes()).expect("base64");
        let (body, kind) = (decoded(&envelope["payload"]), envelope["payloadType"].as_str().expect("a type"));
        let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), body.len()).into_bytes();
        message.extend_from_slice(&body);
        fs::write(path.join("message"), &message).expect("written");
        fs::write(path.join("signature"), decoded(&envelope["signatures"][0]["sig"])).expect("written");
        let verify = "dgst -sha256 -verify key.pub -signature signature message";
        assert_eq!(openssl(path, verify), b"Verified OK\n");
        message[40] ^= 1;
        fs::write(path.join("message"), &message).expect("written");
        assert!(refuses(path, verify));
    }
}

#[test]
fn bundles_hold_for_their_artifact_alone() {
    let directory = workshop(RECIPE);
    let path = directory.path();
    with_key(path, "run r.toml", 0);
    json(path, "keygen --type p256 -o other");
    json(path, "compile out/r/small --target generic --context 16 -o other.slm");
    let bundles: Vec<String> = PARTS[..3].iter().map(|part| format!("{ARTIFACT}.{part}")).collect();
    let all = bundles.iter().map(|bundle| format!(" --bundle {bundle}")).collect::<String>();
    let report = json(path, &format!("verify {ARTIFACT} --bundle-key other.pub --bundle-key key.pub{all}"));
    let attested = report["attestations"].as_array().expect("attestations");
    assert_eq!(attested.len(), 4);
    assert_eq!((&attested[1]["result"], &attested[3]["file"]), (&"PASSED".into(), &format!("{}:2", bundles[2]).into()));
    for bundle in &bundles {
        let one = format!("--bundle {bundle} --bundle-key");
        refused(
            path,
            &format!("verify other.slm {one} key.pub"),
            "is about artifact.generic.slm, artifact.generic.slm (device part), and not about",
        );
        refused(path, &format!("verify {ARTIFACT} {one} other.pub"), "not signed by this key");
        refused(path, &format!("verify {ARTIFACT} --bundle {bundle}"), "pass --key");
    }
    refused(path, &format!("verify {ARTIFACT} --bundle r.toml --bundle-key key.pub"), "r.toml:2: is not JSON");
    refused(path, &format!("verify {ARTIFACT} --bundle absent --bundle-key key.pub"), "absent: cannot be read");
    // Signing changes the file.
    json(path, &format!("sign {ARTIFACT} --key other.pem -o signed.slm"));
    refused(
        path,
        &format!("verify signed.slm --bundle {} --bundle-key key.pub", bundles[0]),
        "the artifact was changed since",
    );
    let said = json(path, "attest signed.slm --key other.pem");
    assert_eq!(said["signed"], true);
    json(path, "verify signed.slm --key other.pub --bundle signed.slm.intoto.jsonl");
    // What failed is a result, and no refusal.
    let missed = RECIPE.replace("kld_max = 100", "kld_max = 1e-12");
    fs::write(path.join("r.toml"), missed).expect("written");
    with_key(path, "run r.toml", 1);
    let line = format!("verify {ARTIFACT} --bundle {} --bundle-key key.pub", bundles[1]);
    assert_eq!(crate::support::json_with_code(path, &line, 1)["attestations"][0]["result"], "FAILED");
}

#[test]
fn keys_of_openssl_attest() {
    let directory = workshop(RECIPE);
    let path = directory.path();
    with_key(path, "run r.toml", 0);
    openssl(path, "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out own.pem");
    openssl(path, "pkey -in own.pem -pubout -out own.pub");
    json(path, &format!("attest {ARTIFACT} --key file:own.pem -o own"));
    openssl(path, "genpkey -algorithm ed25519 -out ed.pem");
    openssl(path, "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out wide.pem");
    openssl(path, "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem");
    for (key, expected) in [
        ("ed.pem", "the key is one of Ed25519, and attestations are signed with ECDSA P-256"),
        ("wide.pem", "wide.pem: is not a key of Ed25519 or of ECDSA on P-256"),
        ("rsa.pem", "rsa.pem: is not a key of Ed25519 or of ECDSA on P-256"),
        ("own.pub", "own.pub: is a public key, and this needs the secret one"),
        ("r.toml", "r.toml: is not a key in PEM"),
        ("absent.pem", "absent.pem: cannot be read"),
        ("pkcs11:token=a?pin-value=1", TOKEN_REFUSED),
    ] {
        refused(path, &format!("attest {ARTIFACT} --key {key} -o none"), expected);
    }
    assert!(!path.join("none").exists());
}

#[test]
fn a_directory_is_signed_as_a_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    json(path, "keygen --type p256 -o release");
    json(path, "keygen --type ed25519 -o device");
    fs::create_dir_all(path.join("dir/docs")).expect("made");
    fs::write(path.join("dir/a.slm"), "artifact").expect("written");
    fs::write(path.join("dir/docs/b.md"), "text").expect("written");
    refused(path, "oms sign dir --key device.pem -o dir.sig", "Ed25519, and directories (OpenSSF model signing)");
    refused(path, "oms sign dir/a.slm --key release.pem -o dir.sig", "is not a directory");
    assert!(!path.join("dir.sig").exists());
    assert_eq!(json(path, "oms sign dir --key release.pem -o dir.sig")["files"], 2);
    json(path, "oms verify dir --signature dir.sig --key device.pub --key release.pub");
    refused(path, "oms verify dir --signature dir.sig --key device.pub", "not signed by this key");
    fs::write(path.join("dir/docs/b.md"), "other").expect("written");
    refused(path, "oms verify dir --signature dir.sig --key release.pub", "docs/b.md: is not the file that was signed");
    refused(path, "oms verify dir --signature release.pub --key release.pub", "release.pub");
}
