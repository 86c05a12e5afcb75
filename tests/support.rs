//! Shared by every subject: running the built program, the golden checkpoints of `tests/data/golden`, and the rules for
//! material that is not in the repository. With `SLMC_REQUIRE_SHARED=1`, which CI sets, everything must be there and every
//! test must run; without it, a test or a part of one that cannot run says so on stderr.

use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What is said of a key on a token whose PIN stands in its name: refused for the one or the other.
pub(crate) const TOKEN_REFUSED: &str =
    if cfg!(feature = "pkcs11") { "has its PIN in it" } else { "keys on tokens are not read by this build" };

/// Every golden checkpoint. One that is added must be named here; one that is missing fails every test of the families.
pub(crate) const GOLDEN: [&str; 67] = [
    "bert-answers",
    "bert-classifier",
    "bert-encoder",
    "bert-mlm",
    "bert-mlm-padded",
    "bert-tokens",
    "camembert-mlm",
    "distilbert-answers",
    "distilbert-classifier",
    "distilbert-mlm",
    "electra-classifier",
    "electra-mlm",
    "electra-small-classifier",
    "electra-small-tokens",
    "electra-tokens",
    "gemma2",
    "gemma3-embedding-padded",
    "gemma3-embedding-sliding",
    "gemma3-text",
    "gpt2",
    "gpt2-classifier",
    "gpt2-unprefixed-with-buffers",
    "gpt-neox-parallel",
    "gpt-neox-sequential",
    "granite-multipliers",
    "granitemoe",
    "granitemoe-v5-names",
    "lfm2-short-conv",
    "llama-bf16-sharded",
    "llama-classifier-padded",
    "llama-dynamic",
    "llama-gqa-tied",
    "llama-linear",
    "llama-mha",
    "llama-yarn",
    "llama3-rope-scaling",
    "llama3-v4-config-keys",
    "ministral3-yarn",
    "mistral",
    "mistral-classifier",
    "mistral-sliding-window-8",
    "mobilellm",
    "modernbert-classifier",
    "modernbert-encoder",
    "modernbert-mean-classifier",
    "modernbert-mlm",
    "modernbert-mlm-padded",
    "nomic-bert-classifier",
    "nomic-bert-encoder",
    "nomic-bert-mlm-padded",
    "olmo2",
    "opt",
    "phi",
    "phi3-fused-qkv",
    "phi3-longrope-partial",
    "qwen2-classifier",
    "qwen2-qkv-bias",
    "qwen3-classifier",
    "qwen3-embedding",
    "qwen3-qk-norm",
    "roberta-classifier",
    "roberta-mlm-padded",
    "roberta-tokens",
    "smollm3-no-positions",
    "stablelm-partial-rotary",
    "starcoder2",
    "xlm-roberta-encoder",
];

/// A path in the repository.
pub(crate) fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The folder of a golden checkpoint.
pub(crate) fn golden(name: &str) -> PathBuf {
    assert!(GOLDEN.contains(&name), "{name} is not in the list of golden checkpoints");
    root("tests/data/golden").join(name)
}

/// The folders of all golden checkpoints, in the order of their names. The list in this file and the folders on disk must
/// agree, so that a comparison with nothing cannot pass.
pub(crate) fn golden_folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root("tests/data/golden")).expect("tests/data/golden is part of the repository");
    let mut found: Vec<PathBuf> =
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect();
    found.sort();
    let expected = GOLDEN.map(golden);
    let differing: Vec<&PathBuf> = expected
        .iter()
        .filter(|path| !found.contains(path))
        .chain(found.iter().filter(|path| !expected.contains(path)))
        .collect();
    assert!(differing.is_empty(), "tests/data/golden and the list in tests/support.rs differ: {differing:?}");
    found
}

/// The last part of a path.
pub(crate) fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8")
}

/// A path in the shared material beside the checkout, as [`outside`] gives it.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    outside(root("../shared").join(path))
}

/// A path outside the repository, `None` after [`not_run`] where it is absent.
pub(crate) fn outside(path: PathBuf) -> Option<PathBuf> {
    if !path.exists() {
        not_run(&format!("{} is absent", path.display()));
        return None;
    }
    Some(path)
}

/// Says that the test that calls this, or a part of it, does not run. With `SLMC_REQUIRE_SHARED=1` that fails the test.
pub(crate) fn not_run(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let required = std::env::var_os("SLMC_REQUIRE_SHARED").is_some_and(|value| value == "1");
    assert!(!required, "{test}: {reason}, and SLMC_REQUIRE_SHARED=1 says that everything runs");
    // Straight to the stream and in one piece: `eprintln!` is captured when a test passes.
    let line = format!("not run: {test}: {reason}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

/// The arguments of a command: a line, split at spaces outside single quotes, or a list.
pub(crate) trait Arguments {
    /// One by one.
    fn list(&self) -> Vec<OsString>;
}

impl Arguments for str {
    fn list(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        for (index, part) in self.split('\'').enumerate() {
            if index % 2 == 1 {
                words.push(part.into());
            } else {
                words.extend(part.split_whitespace().map(OsString::from));
            }
        }
        words
    }
}

impl Arguments for String {
    fn list(&self) -> Vec<OsString> {
        self.as_str().list()
    }
}

impl<S: AsRef<OsStr>> Arguments for [S] {
    fn list(&self) -> Vec<OsString> {
        self.iter().map(|argument| argument.as_ref().to_owned()).collect()
    }
}

impl<S: AsRef<OsStr>, const N: usize> Arguments for [S; N] {
    fn list(&self) -> Vec<OsString> {
        self.as_slice().list()
    }
}

/// Where the cache of a test's directory is, once a recipe has run there.
pub(crate) const CACHE: &str = ".slmc/cache";

/// The built program in a directory, its stdin empty.
pub(crate) fn slmc(directory: &Path, arguments: &(impl Arguments + ?Sized)) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slmc"));
    command.current_dir(directory).args(arguments.list()).stdin(Stdio::null());
    // A cache of the test's own: never that of whoever runs the tests.
    command.env("SLMC_CACHE", format!("file:{}", directory.join(CACHE).display()));
    for name in ["SLMC_CACHE_MODE", "SLMC_CACHE_KEY", "SLMC_CACHE_TOKEN", "SLMC_CACHE_USER", "SLMC_CACHE_PASSWORD"] {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end, whatever that is.
pub(crate) fn run(directory: &Path, arguments: &(impl Arguments + ?Sized)) -> Output {
    slmc(directory, arguments).output().expect("the program starts")
}

/// Runs a command that must succeed, and returns its stdout.
pub(crate) fn succeed(directory: &Path, arguments: &(impl Arguments + ?Sized)) -> Vec<u8> {
    ended(directory, arguments, 0).stdout
}

/// Runs a command that must be refused with exit code 2 and this text on stderr.
pub(crate) fn refused(directory: &Path, arguments: &(impl Arguments + ?Sized), expected: &str) {
    let stderr = stderr(&ended(directory, arguments, 2));
    assert!(stderr.contains(expected), "slmc {:?}: expected {expected:?} in {stderr}", arguments.list());
}

/// Requests that must all end with exit code 2, what is expected in the message, and nothing written to `out`.
pub(crate) fn all_refused<'c>(directory: &Path, cases: impl IntoIterator<Item = (&'c str, &'c str)>) {
    let mut wrong = Vec::new();
    for (arguments, expected) in cases {
        let output = run(directory, arguments);
        let message = stderr(&output);
        if output.status.code() != Some(2) || !message.contains(expected) || directory.join("out").exists() {
            wrong.push(format!("{arguments}\nexpected {expected}, exit 2; got {:?}:\n{message}", output.status.code()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The JSON line of a command that must succeed; `--json` is added.
pub(crate) fn json(directory: &Path, arguments: &(impl Arguments + ?Sized)) -> Value {
    json_with_code(directory, arguments, 0)
}

/// The JSON line of a command that must end with `code`; `--json` is added.
pub(crate) fn json_with_code(directory: &Path, arguments: &(impl Arguments + ?Sized), code: i32) -> Value {
    let mut arguments = arguments.list();
    arguments.push("--json".into());
    one_line(&ended(directory, arguments.as_slice(), code))
}

/// Takes out of a report what the stage took, which no run repeats.
pub(crate) fn without_cost(mut report: Value) -> Value {
    let object = report.as_object_mut().expect("a report is an object");
    for key in ["seconds", "peak_memory_bytes"] {
        object.remove(key).expect("every stage says what it took");
    }
    report
}

/// The one JSON line on stdout.
pub(crate) fn one_line(output: &Output) -> Value {
    let text = std::str::from_utf8(&output.stdout).expect("UTF-8");
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(text).expect("one JSON line")
}

/// Its stderr as text.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn ended(directory: &Path, arguments: &(impl Arguments + ?Sized), code: i32) -> Output {
    let output = run(directory, arguments);
    let (arguments, stderr) = (arguments.list(), stderr(&output));
    assert_eq!(output.status.code(), Some(code), "slmc {arguments:?}: {stderr}");
    output
}

/// How every stage of a run ended, by its report.
pub(crate) fn states(report: &Value) -> Vec<&str> {
    report["stages"].as_array().expect("stages").iter().filter_map(|stage| stage["status"].as_str()).collect()
}
