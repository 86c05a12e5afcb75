//! The runtime from C: the static library is built, programs are compiled against its header with warnings as errors
//! (and with the address sanitizer where the compiler has one), and run on artifacts that slmc compiled. What the example
//! program generates is what `slmc generate` generates.

use crate::fixture::{self, Family, Size};
use crate::sentences;
use crate::support::{json, not_run, root, shared, succeed};
use serde_json::Value;
use slmc::trust::PublicKey;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Output of a command that has to succeed.
pub(crate) fn stdout_of(command: &mut Command) -> String {
    let output = run(command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The static library, built once, by the command of docs/c-api.md with what verifies signatures.
pub(crate) fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c-api");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["rustc", "--locked", "--offline", "--release", "--package", "slm-runtime"]);
        command
            .args([
                "--features",
                "aes,audit,c-api,chacha,ed25519,p256,std,streaming,update",
                "--crate-type",
                "staticlib",
                "--target-dir",
            ])
            .arg(&target);
        command.current_dir(root("")).env_remove("RUSTFLAGS");
        stdout_of(&mut command);
        target.join("release").join("libslm_runtime.a")
    })
}

pub(crate) fn compiler() -> Command {
    Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()))
}

/// Whether the compiler can link and run a program with the address sanitizer.
fn has_sanitizer(directory: &Path) -> bool {
    let (source, program) = (directory.join("empty.c"), directory.join("empty"));
    fs::write(&source, "int main(void) { return 0; }\n").expect("writes");
    let built = compiler().arg("-fsanitize=address").arg(&source).arg("-o").arg(&program).output();
    built.is_ok_and(|output| output.status.success()) && run(&mut Command::new(program)).status.success()
}

fn compile(source: &str, program: &Path, further: &[&str]) {
    let mut command = compiler();
    command.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-g"]).args(further);
    command.arg("-I").arg(root("src/runtime/include")).arg(root(source)).arg(library());
    command.arg("-o").arg(program).args(["-lpthread", "-ldl", "-lm"]);
    stdout_of(&mut command);
}

/// Every way the programs are compiled.
pub(crate) fn builds(source: &str, directory: &Path) -> Vec<PathBuf> {
    let plain = directory.join("plain");
    compile(source, &plain, &[]);
    let mut programs = vec![plain];
    if has_sanitizer(directory) {
        let sanitized = directory.join("sanitized");
        compile(source, &sanitized, &["-fsanitize=address"]);
        programs.push(sanitized);
    } else {
        not_run("the C compiler has no address sanitizer");
    }
    programs
}

/// An artifact of a dense directory for this machine.
fn artifact(model: &Path, directory: &Path, name: &str) -> PathBuf {
    let (quantized, file) = (format!("{name}-w8"), format!("{name}.slm"));
    let model = std::path::absolute(model).expect("a path").display().to_string();
    // Rounding alone: what is compared does not depend on how good the integers are.
    succeed(directory, &["quantize", &model, "--scheme", "w8", "--method", "rtn", "-o", &quantized]);
    succeed(directory, &["compile", &quantized, "--target", "x86-64-v3", "-o", &file]);
    directory.join(file)
}

/// The report of `slmc generate` for an artifact, and its tokens as the example program prints them.
fn generated(file: &Path, arguments: &[&str]) -> (Value, String) {
    let file = file.display().to_string();
    let report = json(Path::new("."), [&["generate", &file], arguments].concat().as_slice());
    let ids = report["tokens"].as_array().expect("tokens").iter().map(|id| format!("{id}\n")).collect();
    (report, ids)
}

/// Trained models, the one of this repository first.
fn models() -> Vec<(&'static str, PathBuf)> {
    let mut models = vec![("quickstart", root("recipes/quickstart/teacher"))];
    models.extend(shared("models/stories260k").map(|path| ("stories260k", path)));
    models
}

#[test]
fn the_example_generates_what_slmc_generates() {
    let directory = tempfile::tempdir().expect("a directory");
    let programs = builds("src/runtime/examples/generate.c", directory.path());
    for (name, model) in models() {
        let file = artifact(&model, directory.path(), name);
        for (prompt, tokens, temperature, seed) in [
            ("Once upon a time", "64", "0", "0"),
            ("The naïve fox said: \"it's 12\"\n\n  and — ", "40", "0.8", "7"),
            ("", "30", "1.3", "18446744073709551615"),
            ("<s>Max</s>", "600", "0.5", "3"),
        ] {
            let arguments = ["--prompt", prompt, "--tokens", tokens, "--temperature", temperature, "--seed", seed];
            let (report, ids) = generated(&file, &arguments);
            assert!(!ids.is_empty());
            for program in &programs {
                let own = [prompt, tokens, temperature, seed];
                let printed = stdout_of(Command::new(program).arg("--ids").arg(&file).args(own));
                assert_eq!(printed, ids, "{name}: {prompt:?}");
                let text = run(Command::new(program).arg(&file).args(own)).stdout;
                let text = String::from_utf8_lossy(text.strip_suffix(b"\n").expect("a line end")).into_owned();
                assert_eq!(text, report["text"].as_str().expect("a text"), "{name}: {prompt:?}");
            }
        }
        for program in &programs {
            let said = stdout_of(Command::new(program).arg("--self-test").arg(&file));
            assert!(said.contains("the logits are the build machine's"), "{said}");
        }
        refusals(&programs, &file);
    }
}

#[test]
fn streamed_artifacts_give_the_same_tokens() {
    let directory = tempfile::tempdir().expect("a directory");
    let programs = builds("src/runtime/examples/streamed.c", directory.path());
    for (name, model) in models() {
        let whole = artifact(&model, directory.path(), name);
        let quantized = format!("{name}-w8");
        for resident in ["least", "150000"] {
            let file = format!("{name}-{resident}.slm");
            let target = ["--target", "x86-64-v3", "--resident", resident, "-o", &file];
            succeed(directory.path(), [&["compile", &quantized], &target[..]].concat().as_slice());
            let file = directory.path().join(file);
            let prompt = ["--prompt", "Once upon a time", "--tokens", "24", "--temperature", "0"];
            let (report, ids) = generated(&whole, &prompt);
            let (streamed, streamed_ids) = generated(&file, &[&prompt[..], &["--streamed"]].concat());
            assert_eq!(ids, streamed_ids, "{name} {resident}");
            assert!(streamed["streaming"]["read_bytes"].as_u64() > Some(0), "{streamed}");
            // The prompt's tokens, from the device's tokenizer.
            let bytes = fs::read(&file).expect("reads");
            let view = slm_runtime::format::artifact::ArtifactView::open(&bytes).expect("sound");
            let companions = slmc::formats::companions(&directory.path().join(&quantized));
            let tokenizer = slmc::text::tokenizer::Tokenizer::of(&companions.expect("sound"));
            let text = tokenizer.expect("a tokenizer").encode_plain("Once upon a time").expect("it encodes");
            let tokens: Vec<u32> = view.opening_tokens().iter().chain(text).collect();
            assert_eq!(Some(tokens.len() as u64), report["prompt_tokens"].as_u64());
            for program in &programs {
                let arguments = tokens.iter().map(ToString::to_string);
                let said = stdout_of(Command::new(program).arg(&file).arg("24").args(arguments));
                // It knows no end of a text: slmc may stop before.
                assert!(said.starts_with(&ids), "{name} {resident}: {said} {ids}");
                let refused = run(Command::new(program).arg(&whole).args(["1", "1"]));
                let message = String::from_utf8_lossy(&refused.stderr).into_owned();
                assert!(refused.status.code() == Some(2) && message.contains("no plan"), "{message}");
            }
        }
    }
}

#[test]
fn outputs_that_follow_a_grammar_are_those_of_slmc() {
    let directory = tempfile::tempdir().expect("a directory");
    let programs = builds("src/runtime/examples/constrained.c", directory.path());
    let model = root("recipes/quickstart/teacher");
    let model = model.to_str().expect("UTF-8");
    let schema = r#"{"type": "object", "required": ["name", "go", "steps"], "additionalProperties": false, "properties": {
        "name": {"type": "string", "minLength": 3, "maxLength": 8}, "go": {"enum": ["left", "right"]},
        "steps": {"type": "integer", "minimum": 0, "maximum": 40}}}"#;
    fs::write(directory.path().join("schema.json"), schema).expect("writes");
    succeed(directory.path(), &["quantize", model, "--scheme", "w8", "--method", "rtn", "-o", "q"]);
    succeed(directory.path(), "compile q --target x86-64-v3 --json-schema schema.json -o r.slm");
    let file = directory.path().join("r.slm");
    for (temperature, seed) in [("0", "0"), ("1", "1"), ("1", "2")] {
        let (report, _) =
            generated(&file, &["--prompt", "Go", "--temperature", temperature, "--seed", seed, "--tokens", "200"]);
        let said = report["text"].as_str().expect("a text").strip_prefix("Go").expect("the prompt").to_owned();
        for program in &programs {
            let own = stdout_of(Command::new(program).arg(&file).args(["Go", temperature, seed]));
            assert_eq!(own.trim_end_matches('\n'), said, "temperature {temperature}, seed {seed}");
        }
    }
}

/// Compares the tokens that the example generates from an artifact with those of `slmc generate`.
pub(crate) fn generates_as_slmc_does(file: &Path, prompt: &str, tokens: usize) {
    generates_as_slmc_does_with(file, prompt, tokens, &[]);
}

/// Likewise, with these further options of `slmc generate`.
pub(crate) fn generates_as_slmc_does_with(file: &Path, prompt: &str, tokens: usize, options: &[&str]) {
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("generate");
    compile("src/runtime/examples/generate.c", &program, &[]);
    let tokens = tokens.to_string();
    let (_, ids) = generated(file, &[&["--prompt", prompt, "--tokens", &tokens], options].concat());
    assert_eq!(stdout_of(Command::new(&program).arg("--ids").arg(file).args([prompt, &tokens])), ids, "{prompt:?}");
}

/// Files that are not what they were: the program says so and ends with 2.
fn refusals(programs: &[PathBuf], file: &Path) {
    let bytes = fs::read(file).expect("reads");
    let mut changed = bytes.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let broken = file.with_extension("broken");
    let cases: [(&[u8], &[&str], &str); 5] = [
        (&bytes[..bytes.len() / 3], &["a", "3"], "cut short"),
        (&[], &["a", "3"], "the file is empty"),
        (b"{\"not\": \"an artifact\"}", &["a", "3"], "not a .slm artifact"),
        (&changed, &[], "a digest does not match"),
        (&bytes, &["a very long text ".repeat(400).leak(), "3"], "the context is full"),
    ];
    for (content, arguments, said) in cases {
        fs::write(&broken, content).expect("writes");
        for program in programs {
            let mut command = Command::new(program);
            command.args(arguments.is_empty().then_some("--self-test")).arg(&broken).args(arguments);
            let output = run(&mut command);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{said}: {stderr}");
            assert!(stderr.contains(said), "expected {said:?}: {stderr}");
        }
    }
    for program in programs {
        assert_eq!(run(&mut Command::new(program)).status.code(), Some(2));
        assert_eq!(run(Command::new(program).args(["/no/such/file", "a", "3"])).status.code(), Some(2));
    }
}

#[test]
fn calls_are_judged() {
    let directory = tempfile::tempdir().expect("a directory");
    let programs = builds("tests/c/calls.c", directory.path());
    let mut files: Vec<PathBuf> =
        models().into_iter().map(|(name, model)| artifact(&model, directory.path(), name)).collect();
    for family in [Family::Bert, Family::BertClassifier] {
        let model = directory.path().join(family.name());
        fs::create_dir(&model).expect("a directory");
        fixture::write(&model, family, Size::SMALL);
        files.push(artifact(&model, directory.path(), family.name()));
        if family == Family::Bert {
            sentences::pools(&model, &["max"], true);
            files.push(artifact(&model, directory.path(), "bert-max"));
        }
    }
    let model = directory.path().join("draws");
    fs::create_dir(&model).expect("a directory");
    for entry in fs::read_dir(root("recipes/quickstart/teacher")).expect("it is there") {
        let entry = entry.expect("a file");
        fs::copy(entry.path(), model.join(entry.file_name())).expect("copies");
    }
    let generation = serde_json::json!({"do_sample": true, "repetition_penalty": 1.2, "min_p": 0.1});
    fs::write(model.join("generation_config.json"), generation.to_string()).expect("writes");
    files.push(artifact(&model, directory.path(), "draws"));
    for file in &files {
        for program in &programs {
            let looked_at = stdout_of(Command::new(program).arg(file));
            assert!(looked_at.trim().parse::<u32>().expect("a number") > 100, "{looked_at}");
        }
    }
}

#[test]
fn signed_artifacts_are_opened_and_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let programs = builds("tests/c/signed.c", at);
    let file = artifact(&root("recipes/quickstart/teacher"), at, "signed").display().to_string();
    let id: String = b"slmc test models".iter().map(|byte| format!("{byte:02x}")).collect();
    let raw: Vec<PathBuf> = [("ed25519", "1"), ("p256", "2")]
        .map(|(kind, slot)| {
            succeed(at, &["keygen", "--type", kind, "-o", kind]);
            let fields = ["--counter", "7", "--model-id", &id, "--chunk-bytes", "4096", "--slot", slot];
            succeed(at, &[&["sign", &file, "--key", &format!("{kind}.pem")][..], &fields].concat()[..]);
            let key = PublicKey::read(&format!("{kind}.pub"), at).expect("a key");
            fs::write(at.join(kind), key.to_raw()).expect("writes");
            at.join(kind)
        })
        .into();
    for program in &programs {
        let looked_at = stdout_of(Command::new(program).arg(&file).args(&raw));
        assert!(looked_at.trim().parse::<u32>().expect("a number") > 60, "{looked_at}");
    }
}

/// An artifact of some bytes of a model, signed by the key `release.pem` after it was sealed for `device.key`; the raw public
/// key beside it.
fn released(at: &Path) -> String {
    let file = artifact(&root("recipes/quickstart/teacher"), at, "open").display().to_string();
    succeed(at, &["keygen", "-o", "release"]);
    for kind in ["device", "other"] {
        succeed(at, &["keygen", "--type", "device", "-o", kind]);
    }
    let key = PublicKey::read("release.pub", at).expect("a key");
    fs::write(at.join("release.raw"), key.to_raw()).expect("writes");
    file
}

#[test]
fn sealed_artifacts_are_opened_by_their_device() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let file = released(at);
    succeed(at, &["seal", &file, "--device-key", "device.key", "--chunk-bytes", "4096", "-o", "sealed.slm"]);
    succeed(at, &["sign", "sealed.slm", "--key", "release.pem"]);
    succeed(at, &["sign", &file, "--key", "release.pem", "-o", "signed.slm"]);
    let keys = ["--owner-key", "device.key", "--device-key", "other.key"];
    succeed(at, &[&["key-stanza", "sealed.slm"][..], &keys, &["-o", "other.stanza"]].concat()[..]);
    let arguments = ["sealed.slm", "signed.slm", "release.raw", "device.key", "other.key", "other.stanza"];
    for program in &builds("tests/c/sealed.c", at) {
        let looked_at = stdout_of(Command::new(program).args(arguments).current_dir(at));
        assert!(looked_at.trim().parse::<u32>().expect("a number") > 40, "{looked_at}");
    }
    // The example, on what it takes and what it refuses.
    for program in &builds("src/runtime/examples/trusted.c", at) {
        let run = |arguments: &[&str]| run(Command::new(program).args(arguments).current_dir(at));
        let said = run(&["sealed.slm", "release.raw", "device.key"]);
        assert!(said.status.success() && String::from_utf8_lossy(&said.stdout).contains("opened by this device"));
        assert!(run(&["signed.slm", "release.raw"]).status.success());
        for (arguments, expected) in [
            (&["sealed.slm", "release.raw"][..], "the weights are in cipher"),
            (&["sealed.slm", "release.raw", "other.key"], "stanzas is for this device's key"),
            (&["signed.slm", "release.raw", "device.key"], "the weights are not sealed"),
            (&[&file, "release.raw"], "the artifact is not signed"),
            (&["sealed.slm", "other.stanza", "device.key"], "32 or 65 bytes"),
        ] {
            let output = run(arguments);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(2) && stderr.contains(expected), "{expected}: {stderr}");
        }
    }
}

#[test]
fn updates_are_applied_tried_and_confirmed() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let file = released(at);
    let chunk = ["--chunk-bytes", "4096", "--key", "release.pem"];
    succeed(at, &[&["sign", &file, "--counter", "1", "-o", "old.slm"][..], &chunk].concat()[..]);
    let model = root("recipes/quickstart/teacher").display().to_string();
    succeed(at, &["quantize", &model, "--scheme", "w4", "--method", "rtn", "-o", "new-q"]);
    succeed(at, "compile new-q --target x86-64-v3 -o new.slm");
    succeed(at, &[&["sign", "new.slm", "--counter", "2"][..], &chunk].concat()[..]);
    succeed(at, "update pack old.slm new.slm -o new.slmu");
    succeed(at, "update apply old.slm new.slmu -o applied.slm");
    let arguments = ["old.slm", "new.slmu", "applied.slm", "release.raw"];
    for program in &builds("tests/c/update.c", at) {
        let looked_at = stdout_of(Command::new(program).args(arguments).current_dir(at));
        assert!(looked_at.trim().parse::<u32>().expect("a number") > 40, "{looked_at}");
    }
}

#[test]
fn the_header_is_also_cplusplus() {
    let mut command = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()));
    command.args(["-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-x", "c++"]);
    stdout_of(command.arg(root("src/runtime/include/slm.h")));
}
