//! Keys and signatures of openssl 3.0, of RFC 8032 and of RFC 6979; keys of the wrong kind.

use super::*;
use crate::disk::hash::hex;

/// The first key of RFC 8032, section 7.1, in the encodings of openssl 3.0.
const ED25519_SECRET: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
";
const ED25519_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
";

/// openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256; openssl pkey -pubout.
const P256_SECRET: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgqvf0fPCWzxRNsq55
ZEmcnXTHlsJUGJGwA51rTn8LyNChRANCAARcytrpyF8E81Fw/TQFR7pYQysCmEXT
VqyNoRd8PSrtZrBA8/zO+g4xcEDUUZwnAhYZoB929rsb+xZP2OMnqBoV
-----END PRIVATE KEY-----
";
const P256_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEXMra6chfBPNRcP00BUe6WEMrAphF
01asjaEXfD0q7WawQPP8zvoOMXBA1FGcJwIWGaAfdva7G/sWT9jjJ6gaFQ==
-----END PUBLIC KEY-----
";
/// openssl pkey -pubin -outform DER | sha256sum.
const P256_ID: &str = "c6813bde49cd590c976e5b2b8af6382506ce3be605fe143337c00004c29b61ec";
/// openssl dgst -sha256 -sign, over `message`: one with the lower s, one with the higher, one with short integers.
const P256_SIGNATURES: [&str; 3] = [
    "3045022100c75b2e29d706fe2a3fe3d5a1c5a9711d4aa383be80f0c7be5f5f90a36b3e2453022023d2d83c3904868389ee172349defe5ed29e022bcf20\
     c24ba79f82209945900a",
    "3046022100bbf22a94e3d6dc85ac4ca6114cf6dedd23d62613d5ea73e8f516728fb18f9eaa022100a327a26562282dc3c396f7c9e833d56d2a1cd5e8b9\
     8d32912ba3dedca5d1a0f1",
    "3044022001caa7eb327bccbb9a02b65600e03350f0b9427ac4216e2465da5fd9b52017220220365bade6a142547218618a366b34b6301b50e7febbd41d\
     99acb7213b7477620e",
];

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = hexadecimal.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits"));
    digits.map(|pair| u8::from_str_radix(pair, 16).expect("digits")).collect()
}

fn signed(key: &SecretKey, message: &[u8]) -> Signature {
    key.sign(message).expect("a key that is here")
}

/// Keys written where `read` finds them.
struct Written(tempfile::TempDir);

impl Written {
    fn new(name: &str, text: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join(name), text).expect("written");
        Written(directory)
    }

    fn secret(&self, name: &str) -> Result<SecretKey, String> {
        let place = format!("file:{}", self.0.path().join(name).display());
        SecretKey::read(&place).map_err(|error| error.to_string())
    }

    fn public(&self, name: &str) -> Result<PublicKey, String> {
        PublicKey::read(name, self.0.path()).map_err(|error| error.to_string())
    }
}

#[test]
fn keys_of_openssl_are_read_and_written_as_it_does() {
    for (secret, public, algorithm) in
        [(ED25519_SECRET, ED25519_PUBLIC, Algorithm::Ed25519), (P256_SECRET, P256_PUBLIC, Algorithm::P256)]
    {
        let key = Written::new("a.pem", secret).secret("a.pem").expect("a key");
        let other = Written::new("a.pub", public).public("a.pub").expect("a key");
        assert_eq!((key.algorithm(), key.public().id()), (algorithm, other.id()));
        let pem = key.to_pem().expect("its bytes are here");
        assert_eq!((pem.as_str(), other.to_pem().as_str()), (secret, public));
    }
    let public = Written::new("a.pub", P256_PUBLIC).public("a.pub").expect("a key");
    assert_eq!(hex(&public.id()), P256_ID);
    assert_eq!((public.to_der().len(), public.to_raw().len()), (91, 65));
}

#[test]
fn signatures_are_those_of_the_standards() {
    let key = Written::new("a.pem", ED25519_SECRET).secret("a.pem").expect("a key");
    let expected = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155\
                    5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";
    assert_eq!(signed(&key, b"").to_bytes().as_slice(), bytes(expected));

    // RFC 6979, A.2.5, "sample" with SHA-256: its s is the higher one, which is brought down.
    let secret = SigningKey::from_slice(&bytes("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"));
    let key = SecretKey::of_p256(secret.expect("in range"));
    let higher = bytes(
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716\
         f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
    );
    let twin = Signature::from_bytes(Algorithm::P256, higher.clone().try_into().expect("64 bytes"));
    assert_eq!(signed(&key, b"sample"), Signature::read(Algorithm::P256, &higher).expect("a signature"));
    assert_ne!(signed(&key, b"sample"), twin);
    assert!(key.public().verifies(b"sample", &signed(&key, b"sample")));
    assert!(!key.public().verifies(b"sample", &twin));
}

#[test]
fn signatures_of_openssl_verify_over_their_message_alone() {
    let public = Written::new("a.pub", P256_PUBLIC).public("a.pub").expect("a key");
    let other = SecretKey::generate(Algorithm::P256).expect("a key");
    for der in P256_SIGNATURES {
        let signature = Signature::read(Algorithm::P256, &bytes(der)).expect("a signature");
        assert!(public.verifies(b"message", &signature), "{der}");
        assert!(!public.verifies(b"massage", &signature) && !other.public().verifies(b"message", &signature));
        assert_eq!(Signature::read(Algorithm::P256, &signature.to_standard()), Some(signature));
        assert_eq!(Signature::read(Algorithm::P256, &signature.to_bytes()), Some(signature));
        for length in 0..bytes(der).len() {
            // 64 bytes could be r ‖ s.
            let cut = Signature::read(Algorithm::P256, &bytes(der)[..length]);
            assert!(cut.is_none_or(|cut| length == 64 && !public.verifies(b"message", &cut)), "{length}");
        }
    }
    for zeros in [Signature::from_bytes(Algorithm::P256, [0; 64]), Signature::from_bytes(Algorithm::Ed25519, [0; 64])] {
        assert!(!public.verifies(b"message", &zeros));
        assert_eq!(zeros.to_standard(), [0; 64]);
    }
}

#[test]
fn a_key_of_another_kind_is_named_and_not_shown() {
    let encrypted = ED25519_SECRET.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let sec1 = P256_SECRET.replace("PRIVATE KEY", "EC PRIVATE KEY");
    let cut = P256_SECRET.replacen("MIGHAgEA", "MIGHAgEB", 1);
    let secrets = [
        (P256_PUBLIC, "is a public key"),
        (encrypted.as_str(), "encrypted with a passphrase"),
        (sec1.as_str(), "SEC 1"),
        (cut.as_str(), "is not a key of Ed25519"),
        (P384_SECRET, "is not a key of Ed25519"),
        ("", "is not a key in PEM"),
        (&P256_SECRET[..100], "is not a key in PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is a certificate"),
    ];
    for (text, expected) in secrets {
        let error = Written::new("a.pem", text).secret("a.pem").err().expect("not a key");
        assert!(error.contains("a.pem") && error.contains(expected), "{expected}: {error}");
        assert!(!error.contains("qvf0fPCW") && !error.contains("J1hsZ3v"), "{error}");
    }
    let error = Written::new("a.pub", ED25519_SECRET).public("a.pub").err().expect("a secret key");
    assert!(error.contains("is a secret key, and this needs the public one"), "{error}");
    // y² = x³ + … does not hold, a point of small order, and 32 zeros.
    let off_curve = P256_PUBLIC.replace("gaFQ==", "gaFA==");
    let small = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----\n";
    let zeros = small.replace("EAAQAAAA", "EAAAAAAA");
    for text in [off_curve.as_str(), small, zeros.as_str()] {
        assert!(Written::new("a.pub", text).public("a.pub").is_err(), "{text}");
    }
    assert!(SecretKey::read("env:SLMC_NO_SUCH_VARIABLE").err().expect("none").to_string().contains("$SLMC_NO_SUCH"));
    let itself = SecretKey::read(P256_SECRET).err().expect("not a place").to_string();
    assert!(itself.contains("is given as the key itself") && !itself.contains("qvf0fPCW"), "{itself}");
    let token = SecretKey::read("pkcs11:token=a?pin-value=1234").err().expect("no token").to_string();
    let expected =
        if cfg!(feature = "pkcs11") { "has its PIN in it" } else { "tokens are not read by this build, which lacks" };
    assert!(token.contains(expected) && !token.contains("1234"), "{token}");
}

/// The head of a P-384 key, whose curve is another.
const P384_SECRET: &str = "-----BEGIN PRIVATE KEY-----
MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDC5IFJfc+QrfHJaHto6
3ghM79EEecbUr69R3RMBQw2JiF1NsHn0O5wYRjybTbLIMiihZANiAATtMU9K1dls
-----END PRIVATE KEY-----
";

#[cfg(unix)]
#[test]
fn a_file_that_others_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let written = Written::new("a.pem", P256_SECRET);
    for (mode, warned) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
        let path = written.0.path().join("a.pem");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("changed");
        let warning = written.secret("a.pem").expect("a key").warning().map(ToString::to_string);
        assert_eq!(warning.is_some(), warned, "{mode:o}");
        assert!(warning.is_none_or(|text| text.contains("a.pem: others can read this secret key; chmod 600 it")));
    }
}
