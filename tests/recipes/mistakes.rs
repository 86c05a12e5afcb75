//! Mistakes in recipes: all of them at once, each with its file, line and key, before anything runs.

use super::{CHAIN, mistakes, workshop};
use crate::fixture::{Family, Size, write};
use crate::support::{json_with_code, run, stderr};
use serde_json::json;
use std::fs;

#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let recipe = r#"version = 1
descripton = "x"
[model]
path = "model"
[stages.a]
kind = "quantise"
input = "model"
[stages.b]
kind = "quantize"
input = "modle"
scheme = "w9"
keep = ["embedding=w8", "foo"]
calibration = "none.txt"
max-windows = 3
[stages.c]
kind = "compile"
input = "d"
target = ["generic", "cortex-m5"]
context = "many"
[stages.d]
kind = "distill"
input = "b"
data = ["text.txt", 4]
qat = 1
[stages.e]
kind = "eval"
data = "text.txt"
task = "lmm"
[gates]
kld_mx = 1
cosine_min = 0.5
weight_bytes_max = { stage = "bb", value = 3 }
"#;
    let directory = workshop(recipe);
    let found = mistakes(directory.path(), "run chain.toml");
    let expected = [
        "chain.toml:2: unknown key `descripton`; did you mean `description`?",
        "chain.toml:5: stage `a` (quantize) needs the key `scheme`; write `scheme = w8|mixed|w4|auto`",
        "chain.toml:6: unknown kind `quantise`; did you mean `quantize`?",
        "chain.toml:10: unknown stage `modle`; did you mean `model`?",
        "chain.toml:11: `scheme` is `w9`: unknown scheme",
        "chain.toml:12: `keep` is `foo`: `foo` is not PATTERN=SCHEME",
        "chain.toml:13: none.txt does not exist",
        "chain.toml:14: unknown key `max-windows`; keys of quantize: ",
        "chain.toml:17: stage `c` (compile) takes a quantized model, and `d` (distill) makes a dense model",
        "chain.toml:18: unknown target `cortex-m5`, did you mean `cortex-m4`?",
        "chain.toml:19: `context` is a string; expected a number",
        "chain.toml:20: stage `d` (distill) needs the key `student`",
        "chain.toml:22: stage `d` (distill) takes a dense model, and `b` (quantize) makes a quantized model",
        "chain.toml:23: `data` is an integer; expected a string",
        "chain.toml:24: unknown key `qat`; keys of distill: ",
        "chain.toml:25: stage `e` has no `input`; name a stage, or \"model\"",
        "chain.toml:28: `task` is `lmm`; did you mean `lm`?",
        "chain.toml:30: unknown key `kld_mx`; did you mean `kld_max`?",
        "chain.toml:31: `cosine_min` compares with a reference, and stage `e` has none",
        "chain.toml:32: unknown stage `bb`; did you mean `b`?",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nexpected {expected}");
    }
    assert!(!directory.path().join("out").exists(), "nothing ran");
    let shown = stderr(&run(directory.path(), "run chain.toml"));
    let one = "error[S011]: unknown key `descripton`\n --> chain.toml:2:1\n  |\n2 | descripton = \"x\"\n  | ^^^^^^^^^^\n  |\n  = \
               help: did you mean `description`?\n";
    assert!(
        shown.starts_with("error: the recipe has 20 mistakes; nothing was run\n\n") && shown.contains(one),
        "{shown}"
    );
    let commands = run(directory.path(), "run chain.toml --report github");
    let commands = String::from_utf8(commands.stdout).expect("UTF-8");
    assert_eq!(commands.lines().count(), 10, "{commands}");
    let first =
        "::error file=chain.toml,line=2,col=1,endLine=2,endColumn=11,title=slmc (S011)::unknown key `descripton`%0Adid";
    assert!(commands.starts_with(first) && commands.contains("::error title=slmc::11 more;"), "{commands}");
}

#[test]
fn configurations_tell_what_cannot_be_before_anything_runs() {
    let cases = [
        (
            CHAIN.replace("layers = [0]", "layers = [0, 7]"),
            "chain.toml:9: `layers`: layer 7 is not there: the teacher has layers 0 to 1",
        ),
        (
            CHAIN.replace("layers.0.attn.*=w4", "layers.5.*=w4"),
            "--keep layers.5.*=w4.g32: the pattern matches no matrix",
        ),
        (CHAIN.replace("method =", "only = ['layers.9.*']\nmethod ="), "layers.9.*"),
        (CHAIN.replace("batch = 4", "batch = 4\npieces = 9"), "`pieces` is 9; expected 1 to the batch"),
        (CHAIN.replace("input = \"student\"", "input = \"sparse\""), "stages wait for each other: sparse needs sparse"),
        (CHAIN.replace("reference = \"model\"", "reference = \"other\""), "different vocabularies: 32 and 58"),
        (
            CHAIN.replace("artifact.generic", "artifact"),
            "stage `artifact` makes several artifacts; name one: `artifact.generic`",
        ),
        (
            CHAIN.replace("[gates]", "[gates]\naccuracy_ratio_min = { stage = 'small', value = 1 }"),
            "is not measured by stage `small`",
        ),
        (CHAIN.replace("data = [\"text.txt\"]", ""), "stage `student` (distill) needs the key `data`"),
        (CHAIN.replace("version = 1", "version = 3"), "chain.toml:2: `version` is not 1"),
        ("version = 1".to_owned(), "the recipe has no stages"),
    ];
    for (recipe, expected) in cases {
        let directory = workshop(&recipe);
        write(&directory.path().join("other"), Family::BertMlm, Size::SMALL);
        let found = mistakes(directory.path(), "run chain.toml").join("\n");
        assert!(found.contains(expected), "{found}\nexpected {expected}");
        assert!(!directory.path().join("out").exists(), "{expected}: nothing ran");
    }
}

#[test]
fn what_no_stage_can_do_is_found_in_all_stages_at_once_before_any_runs() {
    let recipe = r#"version = 1
[model]
path = "model"
[stages.fresh]
kind = "train"
input = "model"
data = "text.txt"
tokens = 0
batch = 70_000
learning_rate = -1
kl = 1
window = 4096
backend = "cuda"
[stages.student]
kind = "distill"
input = "model"
layers = [0, 7]
data = "text.txt"
ce = 0
hidden = 0
backend = "tpu"
[stages.sparse]
kind = "prune"
input = "model"
pattern = "2:4"
method = "magnitude"
only = ["layers.0.*"]
warm_up = 0.5
[stages.recovered]
kind = "prune"
input = "model"
pattern = "1:4"
method = "wanda"
most_missed = 1.5
recover = true
data = "self"
warm_up = 2
checkpoint_every = 0
[stages.small]
kind = "quantize"
input = "sparse"
scheme = "mixed"
keep = ["layers.9.*=w8"]
device = "cuda"
[stages.tiny]
kind = "quantize"
input = "sparse"
scheme = "mixed"
[stages.artifact]
kind = "compile"
input = "tiny"
target = ["generic-npu-2to4", "board.toml"]
context = 4096
[stages.quality]
kind = "eval"
input = "artifact.board"
data = "text.txt"
task = "classify"
backend = "cuda"
[sample]
prompt = "a cat"
backend = "gpu"
"#;
    let directory = workshop(recipe);
    let board = "name = 'board'\ndescription = 'w8 alone'\nlayout = 'r8k4.off8.d16.g32'\npage_bytes = 64\n\
                 [required]\nschemes = ['w8']\n[max]\nlayers = 1\n";
    fs::write(directory.path().join("board.toml"), board).expect("written");
    let expected = [
        "8: `tokens` is 0; expected at least 1",
        "9: `batch` is 70000; expected 1 to 65536",
        "10: `learning_rate` is -1; expected a number above 0",
        "11: --kl needs a teacher, and there is none; pass --teacher to `slmc distill`, or leave --kl out",
        "12: `window`: text.txt: a window of 4096 tokens is longer than the model's context of 96; use at most 96",
        "13: `backend`: backend `cuda` is not in this build, which has flex, ndarray; build slmc with `--features cuda`, or take flex",
        "14: `loss` is without any part; expected a weight above 0 for some loss, such as --ce 1",
        "17: `layers`: layer 7 is not there: the teacher has layers 0 to 1",
        "21: `backend`: unknown backend `tpu`; this build has flex, ndarray",
        "22: pruning needs about 67414592 bytes of memory, --max-ram allows 1048576; raise it or take a smaller model",
        "28: --warm-up is an option of training; add --recover --data FILE, or leave it out",
        "29: pruning needs about 67414592 bytes of memory, --max-ram allows 1048576; raise it or take a smaller model",
        "29: training needs about …",
        "34: --most-missed 1.5 is not a share; pass a number between 0 and 1",
        "34: --most-missed needs the outputs, which wanda alone does not look at; add --refit",
        "37: `warm_up` is 2; expected 0 to 1",
        "38: `checkpoint_every` is 0; expected at least 1",
        "39: quantizing needs about 82250718 bytes of memory, --max-ram allows 1048576; raise it or take a smaller model",
        "43: --keep layers.9.*=w8: the pattern matches no matrix of this model; names look like layers.0.ffn.down, aliases are embedding, attention, conv, ffn, head",
        "44: `backend`: backend `cuda` is not in this build, which has flex, ndarray; build slmc with `--features cuda`, or take flex",
        "45: quantizing needs about 82250718 bytes of memory, --max-ram allows 1048576; raise it or take a smaller model",
        "45: tuning after gptq needs about …",
        "49: compiling needs about 67193944 bytes of memory, --max-ram allows 1048576; raise it or take a smaller model",
        "52: `target`: target generic-npu-2to4 runs only feed-forward networks that are 2:4, and `layers.1.ffn.gate` is not; prune the dense checkpoint (slmc prune DIR --pattern 2:4 --only ffn), then quantize and compile it again",
        "52: `target`: target board does not run w4.g32, the scheme of `layers.0.ffn.gate`; quantize it to w8",
        "52: `target`: target board takes a layers of at most 1, this is 2",
        "53: a context of 4096 is not possible: the model knows positions up to 96; pass --context 1 to 96",
        "58: the model gives next-token logits, which --task classify cannot measure; tasks that can: lm, generate",
        "59: `backend`: backend `cuda` is not in this build, which has flex, ndarray; build slmc with `--features cuda`, or take flex",
        "62: unknown backend `gpu`; this build has flex, ndarray",
    ];
    for line in ["run chain.toml --max-ram 1MiB", "run chain.toml --max-ram 1MiB --plan"] {
        let found = mistakes(directory.path(), line);
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            let start = expected.strip_suffix('…').unwrap_or(expected);
            assert!(found.starts_with(&format!("chain.toml:{start}")), "{found}\nexpected {expected}");
        }
        assert!(!directory.path().join("out").exists(), "nothing ran");
    }
}

#[test]
fn the_older_name_of_a_key_counts_but_not_beside_the_name() {
    let known = CHAIN.replace("batch = 4", "batch = 4\ndevice = 'ndarray'");
    let directory = workshop(&known);
    let output = run(directory.path(), "run chain.toml --plan");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let both = CHAIN.replace("batch = 4", "batch = 4\ndevice = 'flex'\nbackend = 'flex'");
    let both = format!("{both}backend = 'flex'\ndevice = 'ndarray'\ntokns = 3\n");
    let directory = workshop(&both);
    let found = mistakes(directory.path(), "run chain.toml");
    let expected = [
        ": `device` is an older name of `backend`, which is given too; keep one",
        ": `device` is an older name of `backend`, which is given too; keep one",
        ": unknown key `tokns`; did you mean `tokens`?",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.ends_with(expected), "{found}\nexpected {expected}");
    }
}

#[test]
fn a_mistake_in_one_stage_hides_none_of_another() {
    let recipe = CHAIN.replace("scheme = \"mixed\"", "scheme = \"w9\"").replace("batch = 4", "batch = 4\npieces = 9");
    let directory = workshop(&recipe);
    let found = mistakes(directory.path(), "run chain.toml");
    let expected =
        ["chain.toml:13: `pieces` is 9; expected 1 to the batch", "chain.toml:25: `scheme` is `w9`: unknown"];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nexpected {expected}");
    }
}

/// One recipe with mistakes of every kind that can stand beside each other.
const MANY: &str = r#"version = 1
[model]
path = "model"
[matrix]
scheme = ["w8", "w4"]
unused = [1, 2]
[stages.fresh]
kind = "zebra"
input = "model"
backend = "flex"
colour = "red"
[stages.student]
kind = "distil"
input = "model"
layers = [0, 7]
data = "gone.txt"
tokens = "many"
[stages.small]
kind = "quantize"
input = "studnt"
scheme = "${{ matrix.sheme }}"
keep = ["embedding"]
[stages.one]
kind = "quantize"
input = "model"
scheme = "${{ matrix.scheme }}"
method = "rtn"
keep = ["layers.9.*=w8"]
when = "maybe"
calibration = "env:NO_SUCH_TEXT"
[stages.artifact]
kind = "compile"
input = "student"
target = "cortex-m5"
[stages.left]
kind = "prune"
input = "right"
pattern = "2:4"
method = "magnitude"
metrics = "log.jsonl"
[stages.right]
kind = "prune"
input = "left"
pattern = "2:4"
method = "wanda"
metrics = "log.jsonl"
refit = true
no_refit = true
[stages."in puts"]
kind = "eval"
input = "model"
data = "text.txt"
max_windows = 2
window = 4096
[gates]
kld_max = 1
accuracy_min = { stage = "small", value = 0.5 }
perplexity_ratio_max = { stage = "in puts", value = 2, against = "gone.slm" }
file_bytes_mx = 3
[sample]
tokens = 5
"#;

#[test]
fn mistakes_of_many_kinds_are_each_reported_with_line_and_remedy() {
    let directory = workshop(MANY);
    let path = directory.path();
    let expected = [
        (6, "S017", "no stage uses `matrix.unused`"),
        (8, "S014", "unknown kind `zebra`"),
        (11, "S011", "unknown key `colour`"),
        (13, "S014", "unknown kind `distil`"),
        (15, "S031", "`layers`: layer 7 is not there: the teacher has layers 0 to 1"),
        (16, "S023", "gone.txt does not exist"),
        (17, "S013", "`tokens` is a string; expected a number"),
        (20, "S020", "unknown stage `studnt`"),
        (21, "S016", "unknown key `matrix.sheme`"),
        (22, "S030", "`keep` is `embedding`"),
        (28, "S031", "--keep layers.9.*=w8: the pattern matches no matrix of this model"),
        (29, "S018", "`when` has a term that is not one: `maybe`"),
        (30, "S026", "the variable `NO_SUCH_TEXT` of the environment is not set, or empty"),
        (33, "S021", "stage `artifact` (compile) takes a quantized model, and `student` (distill) makes a dense model"),
        (34, "S014", "unknown target `cortex-m5`"),
        (35, "S022", "stages wait for each other: left needs right needs left"),
        (40, "S031", "--metrics is an option of training"),
        (46, "S025", "stages `left` and `right` both write out/chain/log.jsonl"),
        (46, "S031", "--metrics is an option of training"),
        (47, "S015", "`refit` and `no_refit` exclude each other"),
        (49, "S024", "`in puts` is not the name of a stage"),
        (54, "S031", "`window`: text.txt: a window of 4096 tokens is longer than the model's context of 96"),
        (56, "S041", "`kld_max` compares with a reference, and stage `in puts` has none"),
        (57, "S040", "`accuracy_min` is not measured by stage `small`"),
        (58, "S023", "gone.slm does not exist, or is not a file"),
        (59, "S011", "unknown key `file_bytes_mx`"),
        (60, "S012", "missing key `prompt` in [sample]"),
    ];
    let report = json_with_code(path, "plan chain.toml", 2);
    let found = report["mistakes"].as_array().expect("mistakes");
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, (line, code, message)) in found.iter().zip(expected) {
        let said = found["message"].as_str().expect("a message");
        assert_eq!(
            (&found["file"], &found["line"], &found["code"]),
            (&json!("chain.toml"), &json!(line), &json!(code)),
            "{found}"
        );
        assert!(said.starts_with(message), "{found}\nexpected {message}");
        assert!(found["help"].as_str().is_some_and(|help| help.len() > 4), "no remedy: {found}");
    }
    let codes: std::collections::BTreeSet<&str> = expected.iter().map(|(_, code, _)| *code).collect();
    assert!(codes.len() >= 10, "{codes:?}");
    assert!(!path.join("out").exists() && !path.join("chain.lock").exists(), "nothing ran");
    let commands = String::from_utf8(run(path, "plan chain.toml --report github").stdout).expect("UTF-8");
    assert!(commands.contains("file=chain.toml,line=6,") && commands.contains("18 more;"), "{commands}");
}

/// A remedy fits the value: it says to drop the quotes only where a number is between them, and names the option.
#[test]
fn remedies_are_of_the_value_that_is_there() {
    let cases = [
        ("batch = 4", "batch = \"four\"", "`batch` is a string; expected a number; write a number, such as 16"),
        ("batch = 4", "batch = \"4\"", "`batch` is a string; expected a number; write it without quotes"),
        (
            "file_bytes_max = 1_000_000",
            "file_bytes_max = \"1MiB\"",
            "write the number of bytes, such as 1_000_000, without a unit",
        ),
        ("[gates]", "[gates]\npower = 0", "`power` is 0; expected a share between 0.5 and 1; leave it out for 0.9"),
        ("kld_max = 100", "kld_max = -0.5", "`kld_max` is -0.5; expected 0 or above"),
        ("value = 0 }", "value = 1.5 }", "`top1_min` is 1.5; expected 0 to 1"),
        ("batch = 4", "batch = -4", "see `slmc explain distill.batch`"),
    ];
    for (old, new, expected) in cases {
        assert!(CHAIN.contains(old), "{old}");
        let directory = workshop(&CHAIN.replacen(old, new, 1));
        let found = mistakes(directory.path(), "plan chain.toml").join("\n");
        assert!(found.contains(expected), "{found}\nexpected {expected}");
    }
}

/// What the first bytes of a file tell is said by a plan, and not an hour into the run.
#[test]
fn files_that_cannot_be_what_a_stage_takes_are_found_by_a_plan() {
    let evaluated = |data: &str| {
        CHAIN
            .replace("reference = \"model\"\ndata = \"text.txt\"", &format!("reference = \"model\"\ndata = \"{data}\""))
    };
    let cases = [
        (evaluated("folder"), "folder is a directory, and a text is needed; name a file of text"),
        (evaluated("nothing.txt"), "nothing.txt is empty; name a file of text"),
        (evaluated("program"), "program is binary or not UTF-8, and a text is needed; name a file of text"),
        (CHAIN.replace("data = [\"text.txt\"]", "data = [\"latin.txt\"]"), "latin.txt is binary or not UTF-8"),
        (
            CHAIN.replace("path = \"model\"", "path = \"program\""),
            "program is no model that slmc reads; name the directory",
        ),
        (
            CHAIN.replace("input = \"small\"", "input = \"model\""),
            "model is not quantized, and artifacts hold integers only; put a quantize stage between",
        ),
    ];
    for (recipe, expected) in cases {
        let directory = workshop(&recipe);
        let path = directory.path();
        fs::create_dir(path.join("folder")).expect("made");
        fs::write(path.join("nothing.txt"), "").expect("written");
        fs::write(path.join("latin.txt"), b"a caf\xe9 by the sea\n").expect("written");
        fs::write(path.join("program"), b"\x7fELF\x02\x01\x01\0\0\0").expect("written");
        let found = mistakes(path, "plan chain.toml").join("\n");
        assert!(found.contains(expected), "{found}\nexpected {expected}");
    }
}
