//! Pages of `slmc compile --page`: the programs are what their sources give, and the program, pieces and code of a page give, in
//! node, the tokens, answers, labels and embeddings of slmc; its worker answers one view after the other. `.ci/weekly page` runs
//! pages in Chromium.

use crate::fixture::{self, Family, Size};
use crate::sentences::pools;
use crate::support::{json, not_run, refused, root, run, shared, stderr, succeed};
use serde_json::{Value, json as value};
use slmc::artifact::host::{ArtifactFile, run_sequence};
use slmc::disk::hash::{hex, sha256};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The programs, the fastest first.
const PROGRAMS: [&str; 3] = ["relaxed", "simd", "scalar"];

fn has(command: &str) -> bool {
    Command::new(command).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// What a page answers in node with one of its programs.
fn answers(page: &Path, program: &str, requests: &Value) -> Value {
    // Versions before 21 take relaxed-simd with this option only, which later ones may not know.
    let option = "--experimental-wasm-relaxed-simd";
    let known = Command::new("node").args([option, "--eval", ""]).output().is_ok_and(|output| output.status.success());
    let mut node = Command::new("node")
        .args(known.then_some(option))
        .arg("--no-warnings")
        .arg(root("tests/page/answer.mjs"))
        .arg(page)
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("node starts");
    node.stdin.take().expect("a pipe").write_all(requests.to_string().as_bytes()).expect("writes");
    let output = node.wait_with_output().expect("node ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {stderr}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn digest(bytes: &[u8]) -> String {
    hex(&sha256(bytes))
}

/// Settings of an answer as the page's code takes them.
fn settings(tokens: usize, (temperature, top_k, top_p): (f64, u32, f64), seed: &str) -> Value {
    let choice = value!({
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": 0, "repetition_penalty": 1
    });
    value!({ "most": tokens, "choice": choice, "seed": seed, "follow": true })
}

/// Quantizes a model and compiles it with a page, in `directory`: `q`, `a.slm`, `page`.
fn compiled(directory: &Path, model: &Path, scheme: &str, further: &[&str]) -> Value {
    let model = std::path::absolute(model).expect("a path").display().to_string();
    succeed(directory, &["quantize", &model, "--scheme", scheme, "--method", "rtn", "-o", "q"]);
    let compile = ["compile", "q", "--target", "wasm32", "--page", "page", "-o", "a.slm"];
    json(directory, [&compile, further].concat().as_slice())
}

/// A model `m` in `directory` that has a chat template.
fn with_chat_template(directory: &Path) -> PathBuf {
    let model = directory.join("m");
    fs::create_dir(&model).expect("makes");
    for entry in fs::read_dir(root("recipes/quickstart/teacher")).expect("lists") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, model.join(path.file_name().expect("a name"))).expect("copies");
    }
    fs::copy(root("tests/data/chat_templates/chatml.jinja"), model.join("chat_template.jinja")).expect("copies");
    model
}

#[test]
fn texts_are_continued_as_slmc_continues_them() {
    if !has("node") {
        return not_run("node is absent");
    }
    let models = [Some(root("recipes/quickstart/teacher")), shared("models/stories260k")];
    for (model, scheme) in models.into_iter().flatten().zip(["w4", "mixed"]) {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path();
        compiled(directory, &model, scheme, &[]);
        let cases = [
            ("Once upon a time", 40, (0.0, 0, 1.0), "0"),
            ("The naïve fox said: \"it's 12\"\n\n  and — 狐 ", 30, (0.8, 0, 1.0), "7"),
            ("She said", 30, (1.3, 20, 0.9), "18446744073709551615"),
            // The same once more, from what is read already.
            ("She said", 12, (0.0, 0, 1.0), "0"),
        ];
        let requests: Vec<Value> = cases
            .iter()
            .map(|(text, tokens, choice, seed)| {
                value!({ "type": "continue", "text": text, "settings": settings(*tokens, *choice, seed) })
            })
            .collect();
        for program in PROGRAMS {
            let answered = answers(&directory.join("page"), program, &value!(requests));
            let vectors = PROGRAMS.iter().rev().position(|other| *other == program);
            assert_eq!(answered["vectors"], value!(vectors), "{program} is another program");
            for ((text, tokens, (temperature, top_k, top_p), seed), own) in
                cases.iter().zip(answered["results"].as_array().expect("results"))
            {
                let (tokens, temperature) = (tokens.to_string(), temperature.to_string());
                let (top_k, top_p) = (top_k.to_string(), top_p.to_string());
                let mut command = vec!["generate", "a.slm", "--prompt", text, "--tokens", &tokens, "--seed", seed];
                command.extend(["--temperature", &temperature, "--top-k", &top_k, "--top-p", &top_p]);
                let report = json(directory, command.as_slice());
                assert_eq!(own["tokens"], report["tokens"], "{program}: {text}");
                let said = format!("{text}{}", own["text"].as_str().expect("a text"));
                assert_eq!(said, report["text"].as_str().expect("a text"), "{program}");
            }
        }
    }
}

#[test]
fn conversations_and_grammars_are_those_of_slmc() {
    if !has("node") {
        return not_run("node is absent");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    compiled(directory, &with_chat_template(directory), "w8", &["--context", "160"]);
    // Long enough that the oldest turns are dropped.
    let questions = ["Once upon a time there was a fox.", "And then?", " 7 naïve  geese ", "Who was it?", "Why?"];
    let request = value!([{
        "type": "converse", "system": "Be brief.", "questions": questions, "settings": settings(24, (0.0, 0, 1.0), "0")
    }]);
    fs::write(directory.join("questions.txt"), questions.join("\n")).expect("writes");
    let mut chat = Command::new(env!("CARGO_BIN_EXE_slmc"));
    chat.args(["-q", "chat", "a.slm", "--system", "Be brief.", "--tokens", "24", "--temperature", "0", "--json"]);
    let output =
        chat.current_dir(directory).stdin(fs::File::open(directory.join("questions.txt")).expect("opens")).output();
    let theirs = String::from_utf8(output.expect("runs").stdout).expect("UTF-8");
    let theirs: Vec<Value> = theirs.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(theirs.len(), questions.len());
    assert!(theirs.iter().any(|turn| turn["dropped"] != value!([])), "no turn was dropped: {theirs:?}");
    for program in PROGRAMS {
        let answered = answers(&directory.join("page"), program, &request);
        let own = answered["results"][0].as_array().expect("turns");
        for (own, theirs) in own.iter().zip(&theirs) {
            assert_eq!((&own["tokens"], &own["text"]), (&theirs["tokens"], &theirs["text"]), "{program}");
            assert_eq!(own["dropped"].as_u64(), theirs["dropped"].as_array().map(|turns| turns.len() as u64));
        }
        assert!(own.iter().skip(1).any(|turn| turn["reused"].as_u64() > Some(8)), "nothing is taken from the cache");
    }

    fs::write(directory.join("choices.txt"), "go left\ngo right\nstop here\n").expect("writes");
    let compile = "compile q --target wasm32 --choices choices.txt --page page -o a.slm";
    succeed(directory, compile);
    let request = value!([{ "type": "continue", "text": "Go", "settings": settings(64, (1.0, 0, 1.0), "3") }]);
    let report = json(directory, "generate a.slm --prompt Go --temperature 1 --seed 3");
    let answered = answers(&directory.join("page"), "simd", &request);
    assert_eq!(answered["grammar"], true);
    assert_eq!(answered["results"][0]["tokens"], report["tokens"]);
    assert_eq!(answered["results"][0]["stop"], "end");
}

/// Chat and text of one model share a session: asked at once, each answer is the one it is alone, and a stop ends the answer of
/// its own view. Programs are asked for anew, and are those of page.json.
#[test]
fn a_worker_answers_one_view_after_the_other() {
    if !has("node") {
        return not_run("node is absent");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    compiled(directory, &with_chat_template(directory), "w8", &["--context", "160"]);
    let output = Command::new("node")
        .arg("--no-warnings")
        .arg(root("tests/page/worker.mjs"))
        .arg(directory.join("page"))
        .output()
        .expect("node runs");
    assert!(output.status.success(), "{}", stderr(&output));
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for (file, cache) in said["asked"].as_object().expect("files") {
        assert_eq!(cache, if file.starts_with("piece-") { "no-store" } else { "no-cache" }, "{file}");
    }
    // Changed and cut, with the browser's digests and without.
    let faults = said["faults"].as_array().expect("messages");
    assert_eq!(faults.len(), 4);
    for fault in faults {
        let fault = fault.as_str().expect("a message");
        assert!(fault.contains(".wasm is not the program that page.json states; upload"), "{fault}");
    }
}

#[test]
fn labels_and_embeddings_are_those_of_slmc() {
    if !has("node") {
        return not_run("node is absent");
    }
    for family in [Family::BertClassifier, Family::Bert] {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path();
        fixture::write(&directory.join("m"), family, Size::SMALL);
        if family == Family::Bert {
            pools(&directory.join("m"), &["mean"], true);
        }
        compiled(directory, &directory.join("m"), "w8", &[]);
        let manifest: Value =
            serde_json::from_slice(&fs::read(directory.join("page/page.json")).expect("reads")).expect("JSON");
        assert_eq!(manifest["labels"].as_array().map(Vec::len), (family == Family::BertClassifier).then_some(3));
        let artifact = ArtifactFile::open(&directory.join("a.slm")).expect("opens");
        let view = artifact.view().expect("a view");
        let request = value!([{ "type": "rows", "texts": ["a quick fox.", "the lazy dog, asleep."] }]);
        for program in PROGRAMS {
            let answered = answers(&directory.join("page"), program, &request);
            for row in answered["results"][0].as_array().expect("rows") {
                let numbers = |key: &str| {
                    row[key].as_array().expect("numbers").iter().map(|number| number.as_f64().expect("a number"))
                };
                let tokens: Vec<u32> = numbers("tokens").map(|token| token as u32).collect();
                let own: Vec<f32> = numbers("values").map(|value| value as f32).collect();
                assert!(tokens.len() > 3, "{tokens:?}");
                assert_eq!(own, run_sequence(&view, &tokens).expect("runs"), "{program}");
            }
        }
    }
}

#[test]
fn a_folder_holds_what_it_states_and_nothing_half() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let report = compiled(directory, &root("recipes/quickstart/teacher"), "w8", &[]);
    let page = directory.join("page");
    let names: BTreeSet<String> = fs::read_dir(&page)
        .expect("lists")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    let bytes: u64 = names.iter().map(|name| fs::metadata(page.join(name)).expect("is there").len()).sum();
    assert_eq!(report["page"], value!({ "files": names.len(), "bytes": bytes, "pieces": 1 }));
    let manifest: Value = serde_json::from_slice(&fs::read(page.join("page.json")).expect("reads")).expect("JSON");
    let programs = manifest["programs"].as_object().expect("programs").values();
    for stated in programs.chain(manifest["artifact"]["pieces"].as_array().expect("pieces")) {
        let content = fs::read(page.join(stated["file"].as_str().expect("a name"))).expect("reads");
        assert_eq!(stated["bytes"], content.len());
        assert_eq!(stated["sha256"], digest(&content), "{}", stated["file"]);
    }
    // The service worker names every file but itself and the provenance.
    let worker = fs::read_to_string(page.join("service-worker.js")).expect("reads");
    let line = worker.lines().next().expect("a line").strip_prefix("const PAGE = ").expect("the list");
    let listed: Value = serde_json::from_str(line.strip_suffix(';').expect("its end")).expect("JSON");
    let listed: BTreeSet<String> = ["files", "pieces"]
        .iter()
        .flat_map(|key| {
            listed[key].as_array().expect("names").iter().map(|name| name.as_str().expect("a name").to_owned())
        })
        .chain(["service-worker.js".to_owned(), "slmc.json".to_owned()])
        .collect();
    assert_eq!(listed, names);
    // Nothing leads out of the folder.
    for name in names.iter().filter(|name| name.ends_with(".js") || name.ends_with(".html") || name.ends_with(".css")) {
        let text = fs::read_to_string(page.join(name)).expect("reads");
        let text = text.replace("http://localhost", "");
        assert!(!text.contains("http://") && !text.contains("https://"), "{name} names another server");
    }

    // The same again gives the same bytes, and leaves nothing beside.
    let before: Vec<Vec<u8>> = names.iter().map(|name| fs::read(page.join(name)).expect("reads")).collect();
    let artifact = fs::read(directory.join("a.slm")).expect("reads");
    fs::write(page.join("stale"), "").expect("writes");
    succeed(directory, "compile q --target wasm32 --page page -o a.slm");
    assert!(!page.join("stale").exists());
    let after: Vec<Vec<u8>> = names.iter().map(|name| fs::read(page.join(name)).expect("reads")).collect();
    assert!(before == after && artifact == fs::read(directory.join("a.slm")).expect("reads"));
    // A page changes nothing in the artifact.
    succeed(directory, "compile q --target wasm32 -o alone.slm");
    assert!(artifact == fs::read(directory.join("alone.slm")).expect("reads"));

    fs::create_dir(directory.join("thesis")).expect("makes");
    fs::write(directory.join("thesis/chapter1"), "").expect("writes");
    fs::write(directory.join("notes"), "").expect("writes");
    for (other, said) in [("thesis", "holds no slmc.json"), ("notes", "was not made by slmc")] {
        refused(directory, &["compile", "q", "--target", "wasm32", "--page", other, "-o", "b.slm"], said);
    }
    refused(directory, "compile q --target cortex-a76 --page other -o b.slm", "compile with --target wasm32");
    assert!(!directory.join("b.slm").exists() && !directory.join("other").exists());
    assert_eq!(fs::read_dir(directory.join("thesis")).expect("lists").count(), 1);
}

#[test]
fn what_a_page_cannot_show_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let cases = [(Family::Bert, "the hidden state of every token"), (Family::BertMlm, "logits of masked tokens")];
    for (family, said) in cases {
        fixture::write(&directory.join(family.name()), family, Size::SMALL);
        succeed(directory, &["quantize", family.name(), "--scheme", "w8", "--method", "rtn", "-o", "q"]);
        refused(directory, "compile q --target wasm32 --page page -o a.slm", &format!("{said}; leave out --page"));
    }
    // Neither is there.
    assert!(!directory.join("page").exists() && !directory.join("a.slm").exists());
}

#[test]
fn a_recipe_writes_a_page_and_takes_it_from_its_cache() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    fixture::write(&directory.join("m"), Family::TiedLlama, Size::SMALL);
    let recipe = "version = 1\n[model]\npath = \"m\"\n[stages.small]\nkind = \"quantize\"\ninput = \"model\"\nscheme = \"w8\"\nmethod = \"rtn\"\n\
        [stages.artifact]\nkind = \"compile\"\ninput = \"small\"\ntarget = \"wasm32\"\npage = \"site\"\n";
    fs::write(directory.join("r.toml"), recipe).expect("writes");
    let mut made = Vec::new();
    for _ in 0..2 {
        let output = run(directory, "run r.toml -o out");
        assert!(output.status.success(), "{}", stderr(&output));
        made.push(fs::read(directory.join("out/r/site/page.json")).expect("the page"));
        fs::remove_dir_all(directory.join("out")).expect("removes");
    }
    assert_eq!(made[0], made[1]);
}

/// The committed programs are what `src/page/wasm/build` makes of these sources: byte for byte with the rustc that
/// program.json names, and with another one as far as their answers go.
#[test]
fn the_programs_are_what_their_sources_give() {
    // One that has the target, where the compiler of this test has not (.ci/run).
    let rustc = std::env::var("SLMC_WASM_RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = Command::new(&rustc).arg("--version").output().expect("rustc runs");
    let version = String::from_utf8(version.stdout).expect("UTF-8").trim().to_owned();
    let sysroot = Command::new(&rustc).args(["--print", "sysroot"]).output().expect("rustc runs");
    let sysroot = String::from_utf8(sysroot.stdout).expect("UTF-8").trim().to_owned();
    if !Path::new(&sysroot).join("lib/rustlib/wasm32-unknown-unknown/lib").is_dir() {
        return not_run("rustc has no wasm32-unknown-unknown (rustup target add wasm32-unknown-unknown)");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let built = directory.path().join("built");
    let output = Command::new(root("src/page/wasm/build")).arg(&built).env("RUSTC", &rustc).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stated: Value =
        serde_json::from_slice(&fs::read(root("src/page/data/program.json")).expect("reads")).expect("JSON");
    let same_rustc = stated["rustc"] == version.as_str();
    for program in PROGRAMS {
        let name = format!("{program}.wasm");
        let (own, new) =
            (fs::read(root("src/page/data").join(&name)).expect("reads"), fs::read(built.join(&name)).expect("reads"));
        assert_eq!(stated["programs"][&name], digest(&own), "{name} is not what program.json states");
        assert!(
            !same_rustc || own == new,
            "src/page/data/{name} is not what its sources give: run src/page/wasm/build and commit what it writes"
        );
    }
    if same_rustc {
        return;
    }
    if !has("node") {
        return not_run("node is absent");
    }
    let path = directory.path();
    compiled(path, &root("recipes/quickstart/teacher"), "w4", &[]);
    let request = value!([{ "type": "continue", "text": "Once upon", "settings": settings(60, (0.7, 0, 1.0), "5") }]);
    let tokens =
        || PROGRAMS.map(|program| answers(&path.join("page"), program, &request)["results"][0]["tokens"].clone());
    let before = tokens();
    for program in PROGRAMS {
        let name = format!("{program}.wasm");
        fs::copy(built.join(&name), path.join("page").join(&name)).expect("copies");
    }
    assert_eq!(before, tokens(), "the programs of {version} answer otherwise than those of {}", stated["rustc"]);
}
