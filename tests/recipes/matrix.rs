//! Matrices, values of the command line and of the environment, conditions, and stages side by side.

use super::{mistakes, workshop};
use crate::support::{CACHE, json_with_code, one_line, root, run, slmc, states, stderr};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;

/// Three cells over the fixture: one student, three quantized models, six artifacts.
const MATRIX: &str = r#"
version = 1
[model]
path = "model"
[matrix]
scheme = ["w8", "w4"]
seed = [0, 1]
exclude = [{ scheme = "w8", seed = 1 }]

[stages.student]
kind = "distill"
input = "model"
layers = [0]
data = "text.txt"
tokens = 2000
batch = 4
window = 32

[stages.small]
kind = "quantize"
input = "student"
scheme = "${{ matrix.scheme }}"
seed = "${{matrix.seed}}"
method = "search"
calibration_tokens = 256

[stages.artifact]
kind = "compile"
input = "small"
target = ["generic", "cortex-m55"]

[stages.quality]
kind = "eval"
input = "artifact.generic"
reference = "model"
data = "text.txt"
window = 32
max_windows = 16

[gates]
kld_max = 100
file_bytes_max = { stage = "artifact.w4.1.generic", value = 1_000_000 }
"#;

const LABELS: [&str; 13] = [
    "student",
    "small.w8.0",
    "small.w4.0",
    "small.w4.1",
    "artifact.w8.0.generic",
    "artifact.w8.0.cortex-m55",
    "artifact.w4.0.generic",
    "artifact.w4.0.cortex-m55",
    "artifact.w4.1.generic",
    "artifact.w4.1.cortex-m55",
    "quality.w8.0",
    "quality.w4.0",
    "quality.w4.1",
];

fn labels(report: &Value) -> Vec<&str> {
    report["stages"].as_array().expect("stages").iter().filter_map(|stage| stage["stage"].as_str()).collect()
}

fn stage<'r>(report: &'r Value, label: &str) -> &'r Value {
    let stages = report["stages"].as_array().expect("stages");
    stages.iter().find(|stage| stage["stage"] == label).unwrap_or_else(|| panic!("no {label} in {report}"))
}

/// Every artifact by its name.
fn artifacts(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory.join("out/chain")).expect("outputs");
    let entries = entries.map(|entry| entry.expect("an entry").path());
    let artifacts = entries.filter(|path| path.extension().is_some_and(|extension| extension == "slm"));
    artifacts
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("it can be read"))
        })
        .collect()
}

fn with_environment(directory: &Path, line: &str, variables: &[(&str, &str)]) -> Output {
    slmc(directory, line).envs(variables.iter().copied()).output().expect("it starts")
}

#[test]
fn a_matrix_is_planned_and_run_cell_by_cell_with_what_they_share_once() {
    let directory = workshop(MATRIX);
    let path = directory.path();
    let plan = json_with_code(path, "plan chain.toml", 0);
    assert_eq!((labels(&plan), &plan["cells"]), (LABELS.to_vec(), &json!(3)));
    let small = stage(&plan, "small.w4.1");
    assert_eq!(small["cell"], json!({"scheme": "w4", "seed": "1"}));
    assert_eq!((&small["needs"], &small["name"]), (&json!(["student"]), &json!("small")));
    assert_eq!(stage(&plan, "quality.w4.1")["needs"], json!(["artifact.w4.1.generic"]));
    assert_eq!(stage(&plan, "student").get("cell"), None);
    assert!(!path.join("out").exists() && !path.join("chain.lock").exists(), "a plan writes nothing");

    let first = json_with_code(path, "run chain.toml --jobs 3", 0);
    assert_eq!((labels(&first), states(&first)), (LABELS.to_vec(), vec!["done"; 13]));
    let gates = first["gates"].as_array().expect("gates");
    let gated: Vec<&Value> = gates.iter().map(|gate| &gate["stage"]).collect();
    assert_eq!(gated, ["quality.w8.0", "quality.w4.0", "quality.w4.1", "artifact.w4.1.generic"]);
    let lock = fs::read_to_string(path.join("chain.lock")).expect("a lock");
    assert!(lock.contains("\"small.w4.1\" = { key = ") && lock.contains("\nstudent = { key = "), "{lock}");
    let bytes = artifacts(path);
    assert_eq!(bytes.len(), 6);
    assert!(bytes["artifact.w4.0.generic.slm"] != bytes["artifact.w4.1.generic.slm"], "the seed counts");
    assert!(bytes["artifact.w8.0.generic.slm"] != bytes["artifact.w4.0.generic.slm"], "the scheme counts");

    // One after the other: the same bytes, lock and order.
    let serial = workshop(MATRIX);
    let one = json_with_code(serial.path(), "run chain.toml --jobs 1 --threads 1", 0);
    assert_eq!(labels(&one), LABELS);
    assert!(artifacts(serial.path()) == bytes, "the artifacts differ");
    assert_eq!(fs::read_to_string(serial.path().join("chain.lock")).expect("a lock"), lock);

    let second = json_with_code(path, "run chain.toml --locked", 0);
    assert_eq!(states(&second), ["cached"; 13]);
    let made = &stage(&second, "student")["made_in"];
    assert!(made["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{made}");
    let text = String::from_utf8(run(path, "run chain.toml").stdout).expect("UTF-8");
    assert!(text.contains(", cached, made in "), "{text}");
    let plan = run(path, "plan chain.toml");
    let text = String::from_utf8(plan.stdout).expect("UTF-8");
    assert!(text.contains("nothing to do: all 13 results are known"), "{text}");
}

#[test]
fn one_cell_is_a_job_of_its_own() {
    let directory = workshop(MATRIX);
    let path = directory.path();
    let refused = run(path, "run chain.toml --only quality.w4.0");
    assert!(stderr(&refused).contains("run chain.toml --only student"), "{}", stderr(&refused));
    json_with_code(path, "run chain.toml --only student", 0);
    let all = json_with_code(path, "run chain.toml --only small", 0);
    assert_eq!(labels(&all), ["small.w8.0", "small.w4.0", "small.w4.1"]);
    let one = json_with_code(path, "run chain.toml --only artifact.w4.0.generic", 0);
    assert_eq!(labels(&one), ["artifact.w4.0.generic"]);
    let both = json_with_code(path, "run chain.toml --only artifact.w4.1", 0);
    assert_eq!(labels(&both), ["artifact.w4.1.generic", "artifact.w4.1.cortex-m55"]);
    let unknown = stderr(&run(path, "run chain.toml --only small.w4.2"));
    assert!(unknown.contains("the recipe has no stage `small.w4.2`; did you mean `small.w4.0`?"), "{unknown}");
}

#[test]
fn models_targets_and_files_may_be_values() {
    let recipe = r#"version = 1
[model]
path = "${{ matrix.from }}"
[matrix]
include = [{ from = "model", to = "generic" }, { from = "other", to = "boards/mine.toml" }]
[stages.small]
kind = "quantize"
input = "model"
scheme = "w8"
method = "rtn"
[stages.artifact]
kind = "compile"
input = "small"
target = "${{ matrix.to }}"
[stages.quality]
kind = "eval"
input = "artifact"
reference = "model"
data = "text.txt"
window = 32
max_windows = 8
[sample]
prompt = "a cat"
tokens = 3
"#;
    let directory = workshop(recipe);
    let path = directory.path();
    fs::create_dir(path.join("boards")).expect("made");
    let board = "name = 'mine'\ndescription = 'a board'\nlayout = 'r8k4.off8.d16.g32'\npage_bytes = 64\n";
    fs::write(path.join("boards/mine.toml"), board).expect("written");
    crate::fixture::write(&path.join("other"), crate::fixture::Family::TiedLlama, crate::fixture::Size::SMALL);
    let report = json_with_code(path, "run chain.toml", 0);
    let expected = [
        "small.model",
        "small.other",
        "artifact.model.generic",
        "artifact.other.mine",
        "quality.model.generic",
        "quality.other.mine",
    ];
    assert_eq!(labels(&report), expected);
    assert_eq!(artifacts(path).keys().collect::<Vec<_>>(), ["artifact.model.generic.slm", "artifact.other.mine.slm"]);
    let samples: Vec<&Value> = report["samples"].as_array().expect("samples").iter().map(|own| &own["of"]).collect();
    assert_eq!(samples, ["model.model", "model.other", "artifact.model.generic", "artifact.other.mine"]);
    let inputs: Vec<&Value> = report["inputs"].as_array().expect("inputs").iter().map(|own| &own["path"]).collect();
    assert_eq!(inputs, ["model", "other", "text.txt"]);
}

#[test]
fn values_of_the_command_line_stand_over_those_of_the_file() {
    let directory = workshop(MATRIX);
    let path = directory.path();
    let arguments = |line: &str, settings: &[&str]| -> Vec<String> {
        let words = line.split_whitespace().map(str::to_owned);
        words.chain(settings.iter().flat_map(|one| ["--set".to_owned(), (*one).to_owned()])).collect()
    };
    let fewer = ["matrix.scheme=[\"w4\"]", "matrix.exclude=[]", "stages.student.tokens=1000"];
    let report = one_line(&run(path, arguments("run chain.toml --json", &fewer).as_slice()));
    assert_eq!(states(&report), ["done"; 9], "{report}");
    assert_eq!(stage(&report, "student")["report"]["tokens"], json!(992));
    assert!(!path.join("chain.lock").exists(), "a run with --set keeps no lock");
    let wrong = ["stages.small.schem=w4", "stages.smal.scheme=w4", "gates.kld_mx=1", "stages.student.tokens=many"];
    let output = run(path, arguments("plan chain.toml --json", &wrong).as_slice());
    assert_eq!(output.status.code(), Some(2));
    let report = one_line(&output);
    let said: Vec<&str> =
        report["mistakes"].as_array().expect("mistakes").iter().filter_map(|own| own["message"].as_str()).collect();
    let expected = [
        "unknown key `kld_mx`",
        "unknown key `schem`",
        "unknown stage `smal`",
        "`tokens` is a string; expected a number",
    ];
    assert_eq!(said.len(), 4, "{said:?}");
    for expected in expected {
        assert!(said.iter().any(|said| said.contains(expected)), "{said:?}");
    }
    assert!(report["mistakes"].as_array().expect("a list").iter().all(|own| own["file"] == "--set"), "{report}");
    let locked = run(path, arguments("run chain.toml --locked", &fewer).as_slice());
    assert!(stderr(&locked).contains("cannot be used with"), "{}", stderr(&locked));
}

#[test]
fn variables_are_read_where_they_are_named_and_nowhere_else() {
    let recipe = MATRIX
        .replace("tokens = 2000", "tokens = \"env:STUDENT_TOKENS\"")
        .replace("data = \"text.txt\"\ntokens", "data = \"env:STUDENT_TEXT\"\ntokens");
    let directory = workshop(&recipe);
    let path = directory.path();
    let missing = mistakes(path, "plan chain.toml").join("\n");
    assert!(
        missing.contains("the variable `STUDENT_TOKENS` of the environment is not set, or empty; set STUDENT"),
        "{missing}"
    );
    assert!(missing.contains("`STUDENT_TEXT`"), "{missing}");
    let variables = [("STUDENT_TOKENS", "1000"), ("STUDENT_TEXT", "text.txt"), ("MY_SECRET_WORD", "never-to-be-seen")];
    let plan = one_line(&with_environment(path, "plan chain.toml --json", &variables));
    let named: Vec<&Value> = plan["environment"].as_array().expect("a list").iter().map(|own| &own["name"]).collect();
    assert_eq!(named, ["STUDENT_TEXT", "STUDENT_TOKENS"], "{plan}");
    let output = with_environment(path, "run chain.toml --json --only student", &variables);
    assert_eq!(stage(&one_line(&output), "student")["report"]["tokens"], json!(992), "{}", stderr(&output));
    let lock = fs::read_to_string(path.join("chain.lock")).expect("a lock");
    assert!(lock.contains("\"env:STUDENT_TEXT\" = \"sha256:"), "{lock}");
    // The value is in the key, the same written out is the same result.
    let written = recipe.replace("\"env:STUDENT_TOKENS\"", "1000").replace("env:STUDENT_TEXT", "text.txt");
    fs::write(path.join("written.toml"), written).expect("written");
    let same = json_with_code(path, "run written.toml --only student", 0);
    assert_eq!(states(&same), ["cached"], "{same}");
    let other = [("STUDENT_TOKENS", "3000"), ("STUDENT_TEXT", "text.txt")];
    let other = one_line(&with_environment(path, "run chain.toml --json --only student", &other));
    assert_eq!(states(&other), ["done"], "{other}");
    let wrong =
        with_environment(path, "plan chain.toml --json", &[("STUDENT_TOKENS", "some"), ("STUDENT_TEXT", "text.txt")]);
    assert!(stderr(&wrong).contains("`tokens` is `env:STUDENT_TOKENS`"), "{}", stderr(&wrong));
    // What it says is in no mistake: logs are read by others.
    let gone = [("STUDENT_TOKENS", "1000"), ("STUDENT_TEXT", "own-place/none.txt")];
    for line in ["plan chain.toml", "plan chain.toml --json"] {
        let gone = with_environment(path, line, &gone);
        let said = format!("{}{}", String::from_utf8_lossy(&gone.stdout), stderr(&gone));
        assert!(said.contains("env:STUDENT_TEXT does not exist") && !said.contains("own-place"), "{said}");
    }
    // A secret is refused by its name, and what it says is nowhere.
    let secret = MATRIX.replace("layers = [0]", "layers = [0]\nmetrics = \"env:MY_SECRET_WORD\"");
    fs::write(path.join("secret.toml"), secret).expect("written");
    let output = with_environment(path, "run secret.toml --json", &variables);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    assert!(said.contains("looks like a secret") && !said.contains("never-to-be-seen"), "{said}");
    for file in files(path) {
        let content = fs::read(&file).expect("it can be read");
        let found = content.windows(16).any(|window| window == b"never-to-be-seen");
        assert!(!found, "{} holds a secret", file.display());
    }
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

#[test]
fn conditions_leave_stages_out_with_what_reads_them() {
    let condition = "method = \"search\"\nwhen = \"matrix.seed == '0' && !env:SKIP_SMALL\"";
    let directory = workshop(&MATRIX.replace("method = \"search\"", condition));
    let path = directory.path();
    let plan = json_with_code(path, "plan chain.toml", 0);
    let left_out = |plan: &Value| -> Vec<String> {
        let all = plan["left_out"].as_array().expect("a list");
        all.iter().map(|own| format!("{}: {}", own["stage"], own["why"]).replace('"', "")).collect()
    };
    let expected = [
        "small.w4.1: `when` does not hold: matrix.seed == '0'",
        "artifact.w4.1: it reads `small.w4.1`, which is left out",
        "quality.w4.1: it reads `artifact.w4.1`, which is left out",
    ];
    assert_eq!(left_out(&plan), expected);
    assert_eq!(labels(&plan).len(), 9, "{plan}");
    let plan = one_line(&with_environment(path, "plan chain.toml --json", &[("SKIP_SMALL", "1")]));
    assert_eq!((labels(&plan), left_out(&plan).len()), (vec!["student"], 9));
    // The gate on a stage that is left out is left out as well.
    let output = with_environment(path, "run chain.toml --json", &[("SKIP_SMALL", "1")]);
    let report = one_line(&output);
    assert_eq!((&report["gates"], &report["passed"]), (&json!([]), &json!(false)), "{}", stderr(&output));
    assert_eq!((&report["verdict"], report["left_out"].as_array().map(Vec::len)), (&json!("not_judged"), Some(9)));
    // The lock keeps what it had.
    fs::write(
        path.join("late.toml"),
        MATRIX.replace(
            "data = \"text.txt\"\nwindow = 32\nmax",
            "data = \"late.txt\"\nwhen = \"!env:LATE\"\nwindow = 32\nmax",
        ),
    )
    .expect("written");
    fs::copy(path.join("text.txt"), path.join("late.txt")).expect("copied");
    json_with_code(path, "run late.toml", 0);
    let lock = fs::read_to_string(path.join("late.lock")).expect("a lock");
    assert!(lock.contains("\"late.txt\" = ") && lock.contains("\"quality.w4.1\" = "), "{lock}");
    for line in ["run late.toml --json", "run late.toml --json --locked"] {
        let report = one_line(&with_environment(path, line, &[("LATE", "1")]));
        assert_eq!(labels(&report).len(), 10, "{report}");
        assert_eq!(fs::read_to_string(path.join("late.lock")).expect("a lock"), lock);
    }
    let said = stderr(&with_environment(path, "run chain.toml --only small.w8.0", &[("SKIP_SMALL", "1")]));
    assert!(said.contains("it is left out: `when` does not hold: !env:SKIP_SMALL"), "{said}");
}

#[test]
fn a_stage_that_is_left_out_reads_no_variables() {
    let condition = "data = \"env:HELD_OUT\"\nwhen = \"env:HELD_OUT\"\nwindow = 32\nmax";
    let directory = workshop(&MATRIX.replace("data = \"text.txt\"\nwindow = 32\nmax", condition));
    let plan = json_with_code(directory.path(), "plan chain.toml", 0);
    assert_eq!(plan["left_out"][0]["why"], "`when` does not hold: env:HELD_OUT", "{plan}");
    let plan = one_line(&with_environment(directory.path(), "plan chain.toml --json", &[("HELD_OUT", "text.txt")]));
    assert_eq!(plan["left_out"], Value::Null, "{plan}");
}

#[test]
fn cells_that_would_be_called_alike_are_a_mistake() {
    let recipe = "version = 1\n[model]\npath = \"model\"\n[matrix]\na = [\"1.0\", \"1\"]\nb = [\"3\", \"0.3\"]\n\
                  [stages.quality]\nkind = \"eval\"\ninput = \"model\"\ndata = \"text.txt\"\n\
                  when = \"matrix.a != 'x' && matrix.b != 'y'\"\n";
    let directory = workshop(recipe);
    let said = stderr(&run(directory.path(), "plan chain.toml"));
    assert!(said.contains("two cells of stage `quality` would both be called `quality.1.0.3`"), "{said}");
}

#[test]
fn a_failure_stops_what_depends_on_it_and_lets_others_end() {
    // A row far down has no text, which no plan sees: the stage fails when it reads its data.
    let recipe = r#"version = 1
[model]
path = "model"
[stages.bad]
kind = "eval"
input = "model"
data = "bad.jsonl"
field = "text"
window = 32
[stages.good]
kind = "train"
input = "model"
data = "text.txt"
tokens = 60_000
batch = 4
window = 32
[stages.after]
kind = "quantize"
input = "good"
scheme = "w8"
method = "rtn"
"#;
    let directory = workshop(recipe);
    let path = directory.path();
    let rows = "{\"text\": \"the cat sat on the mat\"}\n".repeat(40_000) + "{\"other\": 1}\n";
    fs::write(path.join("bad.jsonl"), rows).expect("written");
    let output = run(path, "run chain.toml --jobs 2");
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("stage `bad` (eval) failed"), "{said}");
    assert!(said.contains("good: 2/3 good (train)"), "lines say which stage they are of: {said}");
    assert!(
        path.join("out/chain/good/model.safetensors").is_file() && !path.join("out/chain/after").exists(),
        "{said}"
    );
    let lock = fs::read_to_string(path.join("chain.lock")).expect("a lock");
    assert!(lock.contains("\ngood = { key = ") && !lock.contains("bad = "), "{lock}");
    fs::write(path.join("chain.toml"), recipe.replace("data = \"bad.jsonl\"\nfield = \"text\"", "data = \"text.txt\""))
        .expect("written");
    let second = json_with_code(path, "run chain.toml --update-lock", 0);
    assert_eq!(stage(&second, "good")["status"], "cached", "{second}");
    assert!(path.join(CACHE).is_dir());
}

#[test]
fn the_recipe_with_a_matrix_runs_at_a_reduced_size() {
    let directory = tempfile::tempdir().expect("a directory");
    let recipe = root("recipes/matrix.toml");
    let fewer = ["matrix.scheme=[\"w8\", \"w4\"]", "stages.small.method=rtn", "stages.quality.max_windows=16"];
    let mut arguments: Vec<String> = vec!["run".into(), recipe.display().to_string(), "--json".into()];
    arguments.extend(fewer.iter().flat_map(|one| ["--set".to_owned(), (*one).to_owned()]));
    let output = run(directory.path(), arguments.as_slice());
    let report = one_line(&output);
    assert_eq!(states(&report), ["done"; 8], "{}", stderr(&output));
    let bytes = |label: &str| stage(&report, label)["report"]["file_bytes"].as_u64().expect("bytes");
    assert!(bytes("artifact.w4.generic") < bytes("artifact.w8.generic"));
    let plan: Vec<String> =
        arguments.iter().map(|word| if word == "run" { "plan".to_owned() } else { word.clone() }).collect();
    let plan = one_line(&slmc(directory.path(), plan.as_slice()).env("SKIP_EVAL", "1").output().expect("it starts"));
    assert_eq!(labels(&plan).len(), 6, "{plan}");
    assert_eq!(plan["left_out"][0]["why"], "`when` does not hold: !env:SKIP_EVAL", "{plan}");
}
