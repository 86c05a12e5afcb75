//! What nothing is stated about, and what does not hold: by name, with exit code 2, and nothing written.

use super::{ARTIFACT, PARTS, RECIPE, SECRET, attested, with_key, workshop};
use crate::support::{TOKEN_REFUSED, json, json_with_code, refused, run, slmc, stderr};
use serde_json::json;
use std::fs;
use std::path::Path;

/// A command with the key in the environment that must be refused.
fn refused_with_key(directory: &Path, line: &str, expected: &str) {
    let output = slmc(directory, line).env("SLMC_ATTEST_KEY", SECRET).output().expect("it starts");
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "slmc {line}: {said}");
    assert!(said.contains(expected), "slmc {line}: expected {expected:?} in {said}");
}

#[test]
fn artifacts_and_results_that_do_not_belong_together_are_named() {
    let directory = workshop(RECIPE);
    let path = directory.path();
    let report = with_key(path, "run r.toml", 0);
    fs::write(path.join("run.json"), report.to_string()).expect("written");
    json(path, "compile out/r/small --target generic --context 16 -o other.slm");
    json(path, "compile out/r/small --target generic --device-only -o device.slm");
    let bytes = fs::read(path.join(ARTIFACT)).expect("the artifact");
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    fs::write(path.join("damaged.slm"), damaged).expect("written");
    fs::write(path.join("cut.slm"), &bytes[..bytes.len() - 1]).expect("written");
    let foreign = json!({"schema": "slmc.eval/1"});
    let older = report.to_string().replace("slmc.run/2", "slmc.run/1");
    for (name, text) in
        [("eval.json", foreign.to_string()), ("older.json", older), ("cut.json", report.to_string()[..100].to_owned())]
    {
        fs::write(path.join(name), text).expect("written");
    }
    let key = "--key env:SLMC_ATTEST_KEY -o none";
    for (line, expected) in [
        (format!("attest other.slm --result run.json {key}"), "no stage of this run made a file with SHA-256"),
        ("sbom other.slm --format cyclonedx --result run.json -o none/a".to_owned(), "are not those of other.slm"),
        (format!("attest device.slm {key}"), "device.slm: carries no provenance"),
        (format!("attest damaged.slm {key}"), "damaged.slm"),
        (format!("attest cut.slm {key}"), "cut.slm"),
        (format!("attest text.txt {key}"), "text.txt"),
        (format!("attest absent.slm {key}"), "absent.slm: cannot be read"),
        (format!("attest {ARTIFACT} --result eval.json {key}"), "eval.json: missing field"),
        (format!("attest {ARTIFACT} --result older.json {key}"), "is of the form `slmc.run/1`"),
        (format!("attest {ARTIFACT} --result cut.json {key}"), "cut.json: EOF while parsing"),
        (format!("attest {ARTIFACT} --result absent.json {key}"), "absent.json: cannot be read"),
        (format!("attest {ARTIFACT} --recipe absent.toml {key}"), "absent.toml: cannot be read"),
        (format!("attest {ARTIFACT} --builder-id laptop {key}"), "--builder-id `laptop` is not a URI"),
        (format!("attest {ARTIFACT} --finished-on today {key}"), "--finished-on `today` is not a time"),
        (
            format!("sbom {ARTIFACT} --format cyclonedx --timestamp today -o none/a"),
            "--timestamp `today` is not a time",
        ),
        (format!("sbom {ARTIFACT} --format spdx -o none/a"), "--format spdx: the AI profile of SPDX 3.0 demands"),
    ] {
        refused_with_key(path, &line, expected);
        assert!(!path.join("none").exists(), "{line} wrote something");
    }
    // A file of a person is not replaced, and none of the others written.
    fs::create_dir(path.join("mine")).expect("made");
    fs::write(path.join("mine/artifact.generic.slm.intoto.jsonl"), "notes").expect("written");
    let line = format!("attest {ARTIFACT} --key env:SLMC_ATTEST_KEY -o mine");
    refused_with_key(path, &line, "exists and was not made by slmc");
    assert_eq!(fs::read_dir(path.join("mine")).expect("there").count(), 1);
    refused(path, &format!("attest {ARTIFACT}"), "--key");
    let shown = run(path, &["attest", ARTIFACT, "--key", SECRET]);
    let said = stderr(&shown);
    assert!(shown.status.code() == Some(2) && said.contains("is given as the key itself"), "{said}");
    assert!(!said.contains(super::SECRET_PART), "{said}");
}

#[test]
fn predicates_alone_need_no_key() {
    let directory = workshop(RECIPE);
    let path = directory.path();
    let report = with_key(path, "run r.toml", 0);
    fs::write(path.join("run.json"), report.to_string()).expect("written");
    let line = format!("attest {ARTIFACT} --predicate-only --result run.json --recipe r.toml -o bare");
    let said = json(path, &line);
    assert!(said.get("key_id").is_none() && said.get("builder_id").is_none(), "{said}");
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path.join("bare").join(name)).expect("written")).expect("JSON")
    };
    let tests = super::statement(&attested(path, PARTS[1]));
    assert_eq!(read("artifact.generic.slm.tests.json"), tests["predicate"]);
    assert_eq!(
        read("artifact.generic.slm.provenance.json")["runDetails"]["builder"]["id"],
        "slmc:attest/v1#builder-not-named"
    );
    let text = run(path, &line);
    assert!(stderr(&text).contains("is not signed; signing changes the file"), "{}", stderr(&text));
    let of_actions = slmc(path, &format!("{line} --json"))
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_SERVER_URL", "https://github.com")
        .env("GITHUB_WORKFLOW_REF", "a/b/.github/workflows/c.yml@refs/heads/main")
        .output()
        .expect("it starts");
    assert!(of_actions.status.success());
    let id = &read("artifact.generic.slm.provenance.json")["runDetails"]["builder"]["id"];
    assert_eq!(id, "https://github.com/a/b/.github/workflows/c.yml@refs/heads/main");
}

#[test]
fn mistakes_of_the_table_are_named_and_no_key_is_shown() {
    let before = RECIPE.split_once("[attest]").expect("a table").0;
    let inline = SECRET.replace('\n', "\\n");
    let cases = [
        ("[attest]\nbuilder_id = 'a:b'", "missing key `key` in [attest]"),
        ("[attest]\nkey = 3", "`key` in [attest] is not a string"),
        ("[attest]\nkey = 'env:A'\nbuilder = 'a:b'", "unknown key `builder`"),
        ("[attest]\nkey = 'env:A'\nsbom = 'yes'", "`sbom` is not true or false"),
        ("[attest]\nkey = 'env:A'\nsupplier = 'B'", "a list of materials that is not written"),
        ("[attest]\nkey = 'env:A'\nstages = ['quality']", "no stage `quality` makes an artifact"),
        ("[attest]\nkey = 'env:A'\nstages = 'artifact'", "`stages` is not a list of stages"),
        ("[attest]\nkey = 'pkcs11:token=a?pin-value=1'", TOKEN_REFUSED),
        (&format!("[attest]\nkey = \"{inline}\""), "is given as the key itself"),
        (&format!("[attest]\nkey = '''{SECRET}'''"), "is given as the key itself"),
        ("attest = 1", "`attest` is 1; expected a table"),
    ];
    let directory = workshop("");
    let path = directory.path();
    for (table, expected) in cases {
        let text = if table.starts_with('[') { format!("{before}{table}\n") } else { format!("{table}\n{before}") };
        fs::write(path.join("r.toml"), text).expect("written");
        for line in ["run r.toml --plan", "run r.toml --plan --json"] {
            let output = run(path, line);
            let said = format!("{}{}", stderr(&output), String::from_utf8_lossy(&output.stdout));
            assert_eq!(output.status.code(), Some(2), "{table}: {said}");
            assert!(said.contains(expected) || expected.contains("is 1"), "{table}: {said}");
            assert!(!said.contains(super::SECRET_PART), "{said}");
        }
    }
    let nothing = "version = 1\n[model]\npath = 'model'\n[stages.small]\nkind = 'quantize'\ninput = 'model'\nscheme = 'w8'\n\
                   [attest]\nkey = 'env:A'\n";
    fs::write(path.join("r.toml"), nothing).expect("written");
    refused(path, "run r.toml --plan", "has nothing to attest");
    // A key of the wrong kind stops the run before its first stage.
    fs::write(path.join("r.toml"), RECIPE).expect("written");
    json_with_code(path, "keygen -o ed", 0);
    let ed25519 = fs::read_to_string(path.join("ed.pem")).expect("written");
    let output = slmc(path, "run r.toml").env("SLMC_ATTEST_KEY", ed25519).output().expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("attestations are signed with ECDSA P-256") && !path.join("out/r/small").exists());
}
