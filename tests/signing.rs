//! `slmc keygen`, `sign` and `verify` as people and CI use them, with openssl as the other party: it signs what slmc writes,
//! and verifies what slmc signs.

use crate::fixture::{self, Family, Size, compiled, quantized};
use crate::support::{TOKEN_REFUSED, json, json_with_code, refused, run, slmc, stderr, succeed};
use serde_json::{Value, json};
use slm_runtime::format::header::HEADER_BYTES;
use slm_runtime::format::signature::{SignatureAlgorithm, signed_bytes, slots};
use slm_runtime::layout::Layout;
use slmc::model::scheme::Preset;
use slmc::target::Target;
use slmc::trust::{Algorithm, Signature};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const UUID: &str = "6f1d2c3b-0a4e-4c5d-9e8f-001122334455";

/// A directory with an artifact, and keys of both algorithms by openssl and by slmc.
fn bench() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let model = quantized(Family::TiedLlama, Size::SMALL, Preset::W8);
    let device = Target { page_bytes: 64, ..Target::unlimited("tiny", Layout::R8K4Offset8) };
    fs::write(directory.path().join("a.slm"), compiled(&model, &device, None).bytes).expect("writes");
    let at = directory.path();
    openssl(at, &["genpkey", "-algorithm", "ed25519", "-out", "ed.pem"]);
    openssl(at, &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "p256.pem"]);
    for key in ["ed", "p256"] {
        openssl(at, &["pkey", "-in", &format!("{key}.pem"), "-pubout", "-out", &format!("{key}.pub")]);
    }
    succeed(at, &["keygen", "-o", "own"]);
    #[cfg(unix)]
    for key in ["ed.pem", "p256.pem"] {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(at.join(key), fs::Permissions::from_mode(0o600)).expect("its owner may");
    }
    directory
}

/// The openssl program, which the tests need: Debian has it in `openssl`.
fn openssl_output(directory: &Path, arguments: &[&str]) -> Output {
    let output = Command::new("openssl").args(arguments).current_dir(directory).output();
    output.unwrap_or_else(|error| panic!("openssl is needed, of the package of this name: {error}"))
}

fn openssl(directory: &Path, arguments: &[&str]) {
    let output = openssl_output(directory, arguments);
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether openssl takes a signature of the bytes in `message` for a key's own.
fn openssl_verifies(directory: &Path, algorithm: Algorithm, key: &str, message: &str, signature: &str) -> bool {
    let arguments: &[&str] = match algorithm {
        Algorithm::Ed25519 => {
            &["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", key, "-sigfile", signature, "-in", message]
        }
        Algorithm::P256 => &["dgst", "-sha256", "-verify", key, "-signature", signature, message],
    };
    openssl_output(directory, arguments).status.success()
}

fn key_id(directory: &Path, public: &str) -> String {
    openssl(directory, &["pkey", "-pubin", "-in", public, "-outform", "DER", "-out", "key.der"]);
    let der = fs::read(directory.join("key.der")).expect("written");
    let digest = slm_runtime::sha256::Sha256::digest(&der);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn openssl_verifies_what_slmc_signs() {
    let directory = bench();
    let at = directory.path();
    for (key, algorithm) in [("ed", Algorithm::Ed25519), ("p256", Algorithm::P256)] {
        succeed(at, &["sign", "a.slm", "--key", &format!("{key}.pem"), "-o", "signed.slm"]);
        let file = fs::read(at.join("signed.slm")).expect("written");
        let (_, slot) = slots(&file).next().expect("signed");
        let expected = SignatureAlgorithm::from_number(slot.algorithm).map(SignatureAlgorithm::name);
        assert_eq!(expected, Some(algorithm.to_string().as_str()));
        let hex: String = slot.key_id.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, key_id(at, &format!("{key}.pub")));
        let message = signed_bytes(&file[..HEADER_BYTES]).concat();
        fs::write(at.join("message"), &message).expect("writes");
        let signature = Signature::from_bytes(algorithm, slot.signature).to_standard();
        fs::write(at.join("sig"), signature).expect("writes");
        let public = format!("{key}.pub");
        assert!(openssl_verifies(at, algorithm, &public, "message", "sig"), "{key}");
        // It is no rubber stamp.
        fs::write(at.join("other"), [&message[..100], &[message[100] ^ 1], &message[101..]].concat()).expect("writes");
        assert!(!openssl_verifies(at, algorithm, &public, "other", "sig"), "{key}");
    }
}

#[test]
fn slmc_takes_what_openssl_signs() {
    let directory = bench();
    let at = directory.path();
    let fields = ["--counter", "3", "--model-id", UUID, "--chunk-bytes", "4096"];
    let report = json(at, &[&["sign", "a.slm", "--to-sign", "header.bin"][..], &fields].concat()[..]);
    assert_eq!((&report["out"], &report["security_counter"]), (&json!("header.bin"), &json!(3)));
    let before = fs::read(at.join("a.slm")).expect("there");
    openssl(at, &["dgst", "-sha256", "-sign", "p256.pem", "-out", "p256.sig", "header.bin"]);
    openssl(at, &["pkeyutl", "-sign", "-rawin", "-inkey", "ed.pem", "-in", "header.bin", "-out", "ed.sig"]);
    for key in ["p256", "ed"] {
        let (signature, public) = (format!("{key}.sig"), format!("{key}.pub"));
        let put = ["sign", "a.slm", "--signature", &signature, "--public-key", &public, "-o", "signed.slm"];
        let report = json(at, &[&put[..], &fields].concat()[..]);
        assert_eq!((&report["slot"], &report["key_id"]), (&json!(1), &json!(key_id(at, &public))));
        let held = json(at, &["verify", "signed.slm", "--key", &public, "--min-counter", "3", "--model-id", UUID]);
        assert_eq!(held["signed"]["signatures"][0]["checked"], json!(true));
        // Without the values that the bytes to sign had, it is a signature of something else.
        refused(at, &put, "sign what --to-sign writes with the same --counter");
        // Nor is it another key's.
        let (other, wrong) = (if key == "ed" { "p256.pub" } else { "ed.pub" }, "-o");
        let crossed = ["sign", "a.slm", "--signature", &signature, "--public-key", other, wrong, "no.slm"];
        assert_eq!(run(at, &[&crossed[..], &fields].concat()[..]).status.code(), Some(2));
        assert!(!at.join("no.slm").exists());
    }
    assert_eq!(fs::read(at.join("a.slm")).expect("there"), before, "--to-sign and -o leave the file as it is");
    fs::write(at.join("short.sig"), [1; 63]).expect("writes");
    refused(at, &["sign", "a.slm", "--signature", "short.sig", "--public-key", "ed.pub"], "is not 64 bytes of Ed25519");
}

#[test]
fn verify_says_what_it_checked() {
    let directory = bench();
    let at = directory.path();
    // Unsigned: nothing is said of signatures, and a key is refused.
    let plain = json(at, &["verify", "a.slm"]);
    assert!(plain.get("signed").is_none());
    refused(at, &["verify", "a.slm", "--key", "own.pub"], "the artifact is not signed");
    // In place, and again by another key into the other slot.
    let golden = plain["golden_sha256"].clone();
    succeed(at, &["sign", "a.slm", "--key", "own.pem", "--counter", "4"]);
    let secret = fs::read_to_string(at.join("p256.pem")).expect("there");
    let mut sign = slmc(at, &["sign", "a.slm", "--key", "env:RELEASE_KEY", "--slot", "2"]);
    let output = sign.env("RELEASE_KEY", &secret).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("PRIVATE"));
    let (own, p256) = (key_id(at, "own.pub"), key_id(at, "p256.pub"));
    let unchecked = json(at, &["verify", "a.slm"]);
    assert_eq!(unchecked["golden_sha256"], golden);
    let of = |report: &Value, n: usize| {
        let signature = &report["signed"]["signatures"][n];
        (signature["key_id"].clone(), signature["checked"].clone())
    };
    assert_eq!((of(&unchecked, 0), of(&unchecked, 1)), ((json!(own), json!(false)), (json!(p256), json!(false))));
    let text = String::from_utf8(succeed(at, &["verify", "a.slm"])).expect("UTF-8");
    assert!(text.contains(&format!("signed by {own}, not checked")) && !text.contains("trusted"), "{text}");
    let text = String::from_utf8(succeed(at, &["verify", "a.slm", "--key", "own.pub"])).expect("UTF-8");
    assert!(text.contains(&format!("signed by {own}, and the signature holds")), "{text}");
    assert!(text.contains(&format!("signed by {p256}, not checked")), "{text}");
    // What is asked for and missed is exit code 1, with the report.
    let both = ["verify", "a.slm", "--key", "own.pub", "--key", "p256.pub", "--threshold", "2"];
    assert_eq!(json(at, &both)["signed"]["missed"], json!([]));
    for (arguments, missed) in [
        (&["--key", "own.pub", "--key", "ed.pub", "--threshold", "2"][..], "1 of the keys signed it"),
        (&["--key", "own.pub", "--min-counter", "5"], "security_counter 4 is below --min-counter 5"),
        (&["--key", "own.pub", "--model-id", UUID], "model_id is none, and --model-id asks for 6f1d2c3b"),
    ] {
        let report = json_with_code(at, &[&["verify", "a.slm"], arguments].concat()[..], 1);
        let found = report["signed"]["missed"][0].as_str().expect("a text");
        assert!(found.starts_with(missed), "{found}");
    }
    // A key that nobody signed with, a policy that cannot hold, an option without its key: exit code 2.
    refused(at, &["verify", "a.slm", "--key", "ed.pub"], "not one of the trusted keys");
    refused(at, &["verify", "a.slm", "--key", "own.pub", "--threshold", "2"], "needs as many different keys");
    let twice = ["verify", "a.slm", "--key", "own.pub", "--key", "own.pub", "--threshold", "2"];
    refused(at, &twice, "needs as many different keys");
    refused(at, &["verify", "a.slm", "--min-counter", "2"], "--key");
    refused(at, &["verify", "a.slm", "--key", "own.pem"], "needs the public one");
    // Changed after it was signed, with digests made right: the signature says so.
    let mut file = fs::read(at.join("a.slm")).expect("there");
    file[48] = 9;
    let device = u64::from_le_bytes(file[24..32].try_into().expect("8 bytes")) as usize;
    let host = slm_runtime::format::verify::host_digest(&file, &file[device..]);
    file[128..160].copy_from_slice(&host);
    let digest = slm_runtime::format::verify::device_digest(&file, &file[HEADER_BYTES..device]);
    file[96..128].copy_from_slice(&digest);
    fs::write(at.join("forged.slm"), file).expect("writes");
    assert_eq!(json(at, &["verify", "forged.slm"])["signed"]["security_counter"], json!(9), "not checked");
    refused(at, &["verify", "forged.slm", "--key", "own.pub"], "the signature in slot 1 does not hold");
}

#[test]
fn sign_refuses_what_it_cannot_do() {
    let directory = bench();
    let at = directory.path();
    let before = fs::read(at.join("a.slm")).expect("there");
    refused(at, &["sign", "a.slm"], "--key");
    refused(at, &["sign", "a.slm", "--key", "own.pem", "--to-sign", "x"], "cannot be used with");
    refused(at, &["sign", "a.slm", "--signature", "x"], "--public-key");
    refused(at, &["sign", "a.slm", "--key", "own.pub"], "needs the secret one");
    refused(at, &["sign", "a.slm", "--key", "none.pem"], "none.pem: cannot be read");
    refused(at, &["sign", "a.slm", "--key", "pkcs11:token=release?pin-value=1"], TOKEN_REFUSED);
    refused(at, &["sign", "a.slm", "--key", "own.pem", "--slot", "3"], "there are two, 1 and 2");
    refused(at, &["sign", "a.slm", "--key", "own.pem", "--chunk-bytes", "2048"], "not a power of two from 4096");
    refused(at, &["sign", "a.slm", "--key", "own.pem", "--model-id", "zebra"], "is not a UUID");
    refused(at, &["sign", "own.pub", "--key", "own.pem"], "own.pub");
    fs::write(at.join("mine.txt"), "mine").expect("writes");
    refused(at, &["sign", "a.slm", "--key", "own.pem", "-o", "mine.txt"], "was not made by slmc");
    refused(at, &["sign", "a.slm", "--to-sign", "mine.txt"], "was not made by slmc");
    let mut damaged = before.clone();
    damaged[5000] ^= 1;
    fs::write(at.join("damaged.slm"), damaged).expect("writes");
    refused(at, &["sign", "damaged.slm", "--key", "own.pem"], "damaged.slm");
    assert_eq!(fs::read(at.join("a.slm")).expect("there"), before, "nothing of this wrote to the artifact");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(at.join("own.pem"), fs::Permissions::from_mode(0o644)).expect("its owner may");
        let output = run(at, &["sign", "a.slm", "--key", "own.pem"]);
        assert_eq!((output.status.code(), stderr(&output).contains("others can read")), (Some(0), true));
    }
}

/// A model, quantized, compiled, measured and signed with a key of the environment.
const RECIPE: &str = r#"
version = 1
[model]
path = "model"

[stages.small]
kind = "quantize"
input = "model"
scheme = "w8"
method = "rtn"

[stages.artifact]
kind = "compile"
input = "small"
target = "generic"

[gates]
file_bytes_max = 1_000_000

[sign]
key = "env:SLMC_SIGN_KEY"
counter = 5
model_id = "6f1d2c3b-0a4e-4c5d-9e8f-001122334455"
chunk_bytes = 4096
"#;

#[test]
fn a_recipe_signs_what_passes_its_gates() {
    let directory = fixture::workshop("r.toml", RECIPE);
    let at = directory.path();
    succeed(at, &["keygen", "-o", "own"]);
    let secret = fs::read_to_string(at.join("own.pem")).expect("there");
    let with_key = |recipe: &str, code: i32| -> Value {
        let output = slmc(at, &["run", recipe, "--json"]).env("SLMC_SIGN_KEY", &secret).output().expect("it starts");
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        crate::support::one_line(&output)
    };
    let plan = json(at, &["run", "r.toml", "--plan"]);
    assert_eq!((&plan["keys"][0]["place"], &plan["keys"][0]["there"]), (&json!("$SLMC_SIGN_KEY"), &json!(false)));
    // The key is asked for before anything runs.
    refused(at, &["run", "r.toml"], "$SLMC_SIGN_KEY: is not set");
    assert!(!at.join("out/r/small").exists());
    let report = with_key("r.toml", 0);
    let signed = Path::new("out/r/artifact.generic.signed.slm");
    assert_eq!((&report["signed"][0]["stage"], &report["signed"][0]["output"]), (&json!("artifact"), &json!(signed)));
    let first = fs::read(at.join(signed)).expect("written");
    let file = signed.display().to_string();
    let verify = ["verify", &file, "--key", "own.pub", "--min-counter", "5", "--model-id", UUID];
    assert_eq!(json(at, &verify)["signed"]["chunk_bytes"], json!(4096));
    // From the cache: the same file. What the stage made is not signed, and the key is in nothing that is written.
    fs::remove_file(at.join(signed)).expect("written before");
    assert_eq!(with_key("r.toml", 0)["stages"][1]["status"], json!("cached"));
    assert!(fs::read(at.join(signed)).expect("written again") == first);
    assert!(json(at, &["verify", "out/r/artifact.generic.slm"]).get("signed").is_none());
    let part = secret.lines().nth(1).expect("PEM");
    let mut folders = vec![at.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("reads") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name != "own.pem") {
                let bytes = fs::read(&path).expect("reads");
                assert!(!bytes.windows(part.len()).any(|window| window == part.as_bytes()), "{}", path.display());
            }
        }
    }
    // A gate that is missed: nothing is signed.
    fs::remove_file(at.join(signed)).expect("written before");
    fs::write(at.join("r.toml"), RECIPE.replace("1_000_000", "1000")).expect("writes");
    assert!(with_key("r.toml", 1).get("signed").is_none());
    assert!(!at.join(signed).exists());
    // Mistakes are named before anything runs.
    for (change, with, said) in [
        ("counter = 5", "counter = -1", "`counter` is not a whole number"),
        ("chunk_bytes = 4096", "chunk_bytes = 5000", "not a power of two from 4096"),
        ("6f1d2c3b-", "zebra-", "is not a UUID"),
        ("counter = 5", "stages = [\"small\"]", "no stage `small` makes an artifact"),
        ("counter = 5", "slots = 2", "slots"),
        ("env:SLMC_SIGN_KEY", "pkcs11:token=a?pin-value=1", TOKEN_REFUSED),
        ("key = ", "# key = ", "missing key `key` in [sign]"),
    ] {
        fs::write(at.join("r.toml"), RECIPE.replace(change, with)).expect("writes");
        refused(at, &["run", "r.toml", "--plan"], said);
    }
}
