//! What is stated of artifacts: attestations of a recipe's run and of a command agree, openssl verifies them, keys are in
//! nothing that is written, and what is not of this artifact is refused by name.

mod foreign;
mod refusals;

use crate::fixture;
use crate::support::{json, json_with_code, run, slmc, stderr, succeed};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A key made for these tests; `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`.
const SECRET: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgqvf0fPCWzxRNsq55
ZEmcnXTHlsJUGJGwA51rTn8LyNChRANCAARcytrpyF8E81Fw/TQFR7pYQysCmEXT
VqyNoRd8PSrtZrBA8/zO+g4xcEDUUZwnAhYZoB929rsb+xZP2OMnqBoV
-----END PRIVATE KEY-----
";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEXMra6chfBPNRcP00BUe6WEMrAphF
01asjaEXfD0q7WawQPP8zvoOMXBA1FGcJwIWGaAfdva7G/sWT9jjJ6gaFQ==
-----END PUBLIC KEY-----
";
/// A part of the secret that is in nothing public.
const SECRET_PART: &str = "qvf0fPCWzxRNsq55";

/// A model, quantized, compiled, measured and attested with a key of the environment.
const RECIPE: &str = r#"
version = 1
[model]
path = "model"

[stages.small]
kind = "quantize"
input = "model"
scheme = "w8"
method = "rtn"
calibration = "text.txt"

[stages.artifact]
kind = "compile"
input = "small"

[stages.quality]
kind = "eval"
input = "artifact"
reference = "model"
data = "text.txt"
window = 32
max_windows = 16

[gates]
kld_max = 100
file_bytes_max = 1_000_000

[attest]
key = "env:SLMC_ATTEST_KEY"
builder_id = "https://ci.example.com/release"
sbom = true
supplier = "Example GmbH"
"#;

/// Where the run of the recipe puts its artifact.
const ARTIFACT: &str = "out/r/artifact.slm";

fn workshop(recipe: &str) -> tempfile::TempDir {
    let directory = fixture::workshop("r.toml", recipe);
    fs::write(directory.path().join("key.pub"), PUBLIC).expect("written");
    directory
}

/// A command with the key in the environment; its report.
fn with_key(directory: &Path, line: &str, code: i32) -> Value {
    let output = slmc(directory, &format!("{line} --json")).env("SLMC_ATTEST_KEY", SECRET).output().expect("it starts");
    assert_eq!(output.status.code(), Some(code), "slmc {line}: {}", stderr(&output));
    let line = String::from_utf8(output.stdout).expect("UTF-8");
    serde_json::from_str(&line).expect("one JSON line")
}

/// The attestations of an artifact by the last part of their names.
fn attested(directory: &Path, part: &str) -> PathBuf {
    directory.join(format!("{ARTIFACT}.{part}"))
}

/// The statement in a bundle.
fn statement(bundle: &Path) -> Value {
    let bundle: Value = serde_json::from_slice(&fs::read(bundle).expect("a bundle")).expect("JSON");
    let payload = bundle["dsseEnvelope"]["payload"].as_str().expect("a payload");
    let payload = data_encoding::BASE64.decode(payload.as_bytes()).expect("base64");
    serde_json::from_slice(&payload).expect("a statement")
}

const PARTS: [&str; 4] = ["provenance.sigstore.json", "tests.sigstore.json", "intoto.jsonl", "cdx.json"];

#[test]
fn a_run_states_what_a_command_states() {
    let directory = workshop(RECIPE);
    let path = directory.path();
    let plan = json_with_code(path, "run r.toml --plan", 0);
    let key = json!([{"place": "$SLMC_ATTEST_KEY", "there": false, "what_for": plan["keys"][0]["what_for"]}]);
    assert_eq!(plan["keys"], key);
    let environment = plan["environment"].as_array().expect("a list");
    let variable = environment.iter().find(|own| own["name"] == "SLMC_ATTEST_KEY").expect("it is named");
    assert_eq!((&variable["set"], &variable["secret"]), (&json!(false), &json!(true)));
    // Before any work.
    let without = run(path, "run r.toml");
    assert_eq!(without.status.code(), Some(2));
    let said = stderr(&without);
    assert!(said.contains("$SLMC_ATTEST_KEY: is not set") && !path.join("out/r/small").exists(), "{said}");

    let report = with_key(path, "run r.toml", 0);
    let files: Vec<PathBuf> = PARTS.iter().map(|part| attested(Path::new(""), part)).collect();
    let mut named: Vec<PathBuf> = serde_json::from_value(report["attestations"].clone()).expect("paths");
    named.sort();
    let mut expected = files.clone();
    expected.sort();
    assert_eq!(named, expected);
    let content = || files.iter().map(|file| fs::read(path.join(file)).expect("written")).collect::<Vec<_>>();
    let first = content();
    // A run that has every result, and one on one thread that has none.
    with_key(path, "run r.toml", 0);
    assert!(content() == first, "the same artifact attested twice");
    with_key(path, "run r.toml --force --threads 1", 0);
    assert!(content() == first, "the same artifact made and attested twice");

    // The command, from the result as it was written down.
    fs::write(path.join("run.json"), report.to_string()).expect("written");
    let line = format!(
        "attest {ARTIFACT} --key env:SLMC_ATTEST_KEY --result run.json --recipe r.toml --builder-id \
         https://ci.example.com/release -o again"
    );
    let said = with_key(path, &line, 0);
    assert_eq!((&said["gates"], &said["signed"]), (&json!("PASSED"), &json!(false)));
    for (part, file) in PARTS.iter().zip(&first).take(3) {
        let again = fs::read(path.join(format!("again/artifact.slm.{part}"))).expect("written");
        assert!(again == *file, "{part}: {}", String::from_utf8_lossy(&again));
    }
    succeed(
        path,
        &format!("sbom {ARTIFACT} --format cyclonedx --result run.json --supplier 'Example GmbH' -o again.json"),
    );
    assert!(fs::read(path.join("again.json")).expect("written") == first[3]);

    let provenance = statement(&attested(path, PARTS[0]));
    let sha256 = report["stages"][1]["sha256"].as_str().expect("a hash");
    assert_eq!(provenance["subject"][0], json!({"name": "artifact.slm", "digest": {"sha256": sha256}}));
    let definition = &provenance["predicate"]["buildDefinition"];
    assert_eq!(definition["externalParameters"]["recipe"], json!({"name": "r", "file": "r.toml", "overrides": []}));
    let stages = definition["externalParameters"]["stages"].as_array().expect("stages");
    assert_eq!(
        stages.iter().map(|stage| stage["stage"].as_str()).collect::<Vec<_>>(),
        [Some("quantize"), Some("compile")]
    );
    let inputs = definition["resolvedDependencies"].as_array().expect("inputs");
    let named: Vec<(&Value, &Value)> =
        inputs.iter().map(|input| (&input["name"], &input["annotations"]["path"])).collect();
    let expected = [
        (json!("quantize/model"), json!("model")),
        (json!("quantize/calibration"), json!("text.txt")),
        (json!("r.toml"), Value::Null),
    ];
    assert_eq!(named, expected.iter().map(|(name, path)| (name, path)).collect::<Vec<_>>());
    assert!(definition["internalParameters"]["stages"][0]["numerics"].is_string());
    // What a device has of it is a subject too.
    let device = json(path, &format!("inspect {ARTIFACT}"))["flash_bytes"].as_u64().expect("a length") as usize;
    let bytes = fs::read(path.join(ARTIFACT)).expect("the artifact");
    let digest = slmc::disk::hash::hex(&slmc::disk::hash::sha256(&bytes[..device]));
    assert_eq!(provenance["subject"][1]["digest"]["sha256"], json!(digest));

    let tests = statement(&attested(path, PARTS[1]));
    assert_eq!(tests["predicate"]["result"], "PASSED");
    assert_eq!(tests["predicate"]["passedTests"], json!(["quality/kld_max", "artifact/file_bytes_max"]));
    let measured = &tests["predicate"]["configuration"][0]["annotations"]["quality/kld_max"];
    assert!(measured["value"].is_number() && measured["atMost"] == json!(100.0), "{tests}");
    let text = format!("{provenance}{tests}");
    for of_machine in ["threads", "cpu_features", "avx", "AVX", "finishedOn", "startedOn"] {
        assert!(!text.contains(of_machine), "{of_machine} in {text}");
    }
}

#[test]
fn missed_gates_are_stated_as_failed() {
    let directory = workshop(&RECIPE.replace("kld_max = 100", "kld_max = 1e-12"));
    let path = directory.path();
    with_key(path, "run r.toml", 1);
    let tests = statement(&attested(path, PARTS[1]));
    assert_eq!(tests["predicate"]["result"], "FAILED");
    assert_eq!(tests["predicate"]["failedTests"], json!(["quality/kld_max"]));
    // Undecided, and counted as held.
    let value =
        tests["predicate"]["configuration"][0]["annotations"]["quality/kld_max"]["value"].as_f64().expect("a value");
    let undecided = RECIPE.replace("kld_max = 100", &format!("undecided = \"pass\"\nkld_max = {value}"));
    fs::write(path.join("r.toml"), undecided).expect("written");
    with_key(path, "run r.toml", 0);
    let tests = statement(&attested(path, PARTS[1]));
    assert_eq!(
        (&tests["predicate"]["result"], &tests["predicate"]["warnedTests"]),
        (&json!("WARNED"), &json!(["quality/kld_max"]))
    );
    // One stage alone attests nothing, and needs no key.
    let alone = json_with_code(path, "run r.toml --only artifact", 0);
    assert!(alone.get("attestations").is_none());
}

#[test]
fn keys_are_in_nothing_that_is_written() {
    let directory = workshop(RECIPE);
    let path = directory.path();
    fs::write(path.join("key.pem"), SECRET).expect("written");
    let from_file = RECIPE.replace("env:SLMC_ATTEST_KEY", "key.pem");
    fs::write(path.join("f.toml"), &from_file).expect("written");
    let mut said = Vec::new();
    for line in [
        "run r.toml -v",
        "run r.toml -v --plan",
        "run r.toml -v --json --report markdown=a.md --report html=a.html",
        "run f.toml -v",
        "plan r.toml --emit github",
    ] {
        let output = slmc(path, line).env("SLMC_ATTEST_KEY", SECRET).output().expect("it starts");
        assert_eq!(output.status.code(), Some(0), "{line}: {}", stderr(&output));
        said.extend([output.stdout, output.stderr]);
    }
    let workflow = String::from_utf8(said[said.len() - 2].clone()).expect("UTF-8");
    assert!(workflow.contains("SLMC_ATTEST_KEY: ${{ secrets.SLMC_ATTEST_KEY }}"), "{workflow}");
    let warned =
        said.iter().any(|text| String::from_utf8_lossy(text).contains("key.pem: others can read this secret key"));
    assert!(warned || cfg!(not(unix)));
    fs::remove_file(path.join("key.pem")).expect("removed");
    let mut files = Vec::new();
    below(path, &mut files);
    assert!(files.len() > 20, "caches, locks, outputs and reports: {files:?}");
    said.extend(files.iter().map(|file| fs::read(file).expect("it can be read")));
    for text in said {
        let found = text.windows(SECRET_PART.len()).any(|part| part == SECRET_PART.as_bytes());
        assert!(!found, "{}", String::from_utf8_lossy(&text[..text.len().min(400)]));
    }
}

fn below(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { below(&path, files) } else { files.push(path) }
    }
}

#[test]
fn materials_name_what_is_known_and_what_is_not() {
    let directory = workshop(RECIPE);
    let path = directory.path();
    with_key(path, "run r.toml", 0);
    let document: Value = serde_json::from_slice(&fs::read(attested(path, PARTS[3])).expect("written")).expect("JSON");
    assert_eq!((&document["bomFormat"], &document["specVersion"]), (&json!("CycloneDX"), &json!("1.6")));
    let model = &document["metadata"]["component"];
    assert_eq!(document["metadata"]["supplier"]["name"], "Example GmbH");
    assert_eq!(model["modelCard"]["modelParameters"]["task"], "text-generation");
    assert_eq!(model["pedigree"]["ancestors"][0]["name"], "model");
    let metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"].as_array().expect("metrics");
    assert!(
        metrics.iter().any(|metric| metric["type"] == "kld" && metric["confidenceInterval"].is_object()),
        "{metrics:?}"
    );
    let components = document["components"].as_array().expect("components");
    let kinds: Vec<(&Value, &Value)> = components.iter().map(|one| (&one["type"], &one["name"])).collect();
    let text = (json!("data"), json!("text.txt"));
    assert_eq!(kinds, [(&json!("machine-learning-model"), &json!("model")), (&text.0, &text.1)]);
    let missing = |document: &Value| {
        let properties = document["metadata"]["properties"].as_array().cloned().expect("properties");
        properties.iter().map(|one| one["value"].as_str().expect("words").to_owned()).collect::<Vec<_>>().join("\n")
    };
    let with = missing(&document);
    assert!(with.contains("licence of the artifact") && !with.contains("--supplier"), "{with}");
    let report = json(path, &format!("sbom {ARTIFACT} --format cyclonedx -o bare.json"));
    let bare: Value = serde_json::from_slice(&fs::read(path.join("bare.json")).expect("written")).expect("JSON");
    assert!(missing(&bare).contains("--supplier") && missing(&bare).contains("measured quality"));
    assert_eq!(report["missing"].as_array().map(Vec::len), Some(missing(&bare).lines().count()));
    let given = "--licence Apache-2.0 --model-version 1.2 --timestamp 2026-11-30T09:30:00Z";
    json(path, &format!("sbom {ARTIFACT} --format cyclonedx {given} -o given.json"));
    let given: Value = serde_json::from_slice(&fs::read(path.join("given.json")).expect("written")).expect("JSON");
    assert_eq!(given["metadata"]["component"]["licenses"], json!([{"expression": "Apache-2.0"}]));
    assert_eq!(given["metadata"]["timestamp"], "2026-11-30T09:30:00Z");
}
