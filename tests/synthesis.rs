//! Text that a model writes: the same bytes for any number of threads and after a kill, filtered and counted, from beginnings,
//! questions and nothing, for a student of another tokenizer; records with reasoning, and their exact answers.

use crate::conversations::TEMPLATE;
use crate::fixture::{self, Family, Size};
use crate::support::{json, json_with_code, refused, root, states, succeed};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// The fixture as `m`, and a text.
fn workplace() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fixture::write(&directory.path().join("m"), Family::TiedLlama, Size::SMALL);
    let text = "the fox ran over the hill and saw a bird in the tree. the bird sang to the fox and the fox sat down. ";
    fs::write(directory.path().join("text.txt"), text.repeat(12)).expect("writes");
    directory
}

fn rows(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("the file is there");
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

fn text<'v>(row: &'v Value, key: &str) -> &'v str {
    row[key].as_str().unwrap_or_else(|| panic!("no text `{key}` in {row}"))
}

#[test]
fn the_same_bytes_for_any_number_of_threads_and_after_a_kill() {
    let workplace = workplace();
    let directory = workplace.path();
    let line = "synthesize m --prompts text.txt --texts 70 --window 24 --prefix 8 --max-repetition 1";
    let report = json(directory, &format!("{line} --threads 1 -o one.jsonl"));
    assert_eq!((&report["schema"], &report["texts"]), (&json!("slmc.synthesize/1"), &json!(70)));
    succeed(directory, &format!("{line} --threads 3 -o three.jsonl"));
    let bytes = |name: &str| fs::read(directory.join(name)).expect("the file is there");
    assert!(bytes("one.jsonl") == bytes("three.jsonl"), "the texts of 1 and 3 threads differ");
    // Two batches: killed after the first, nothing is written yet.
    let stopped = "stopped after step 1, whose state is saved, by --stop-after-step";
    refused(directory, &format!("{line} -o pieces.jsonl --stop-after-step 1"), stopped);
    assert!(
        !directory.join("pieces.jsonl").exists() && directory.join("pieces.jsonl.checkpoint/batch-0.json").exists()
    );
    refused(
        directory,
        &format!("{line} -o pieces.jsonl --temperature 0.5"),
        "is the checkpoint of a run with other settings",
    );
    let resumed = json(directory, &format!("{line} -o pieces.jsonl"));
    assert_eq!(resumed["batches_resumed"], 1);
    assert!(bytes("one.jsonl") == bytes("pieces.jsonl") && !directory.join("pieces.jsonl.checkpoint").exists());
    // Every text goes on from a beginning of the file, and what was written is counted.
    let source = fs::read_to_string(directory.join("text.txt")).expect("a text");
    let kept = rows(&directory.join("one.jsonl"));
    assert_eq!(json!(kept.len()), report["kept"]);
    for row in &kept {
        assert!(source.contains(text(row, "prompt")) && text(row, "text").starts_with(text(row, "prompt")), "{row}");
        assert!(row["mean_log_probability"].as_f64().expect("a number") < 0.0, "{row}");
    }
    let tokens: u64 = kept.iter().filter_map(|row| row["tokens"].as_u64()).sum();
    assert_eq!(json!(tokens), report["tokens"]);
    assert_ne!(bytes("one.jsonl"), {
        succeed(directory, &format!("{line} --seed 6 -o other.jsonl"));
        bytes("other.jsonl")
    });
    // A quantized model writes too.
    succeed(directory, "quantize m --scheme w8 --method rtn -o w8");
    assert_eq!(json(directory, "synthesize w8 --texts 3 --window 12 -o w8.jsonl --max-repetition 1")["texts"], 3);
}

#[test]
fn what_is_left_out_is_counted_with_its_reason() {
    let workplace = workplace();
    let directory = workplace.path();
    let line = "synthesize m --texts 60 --window 40 --seed 1";
    let all = json(directory, &format!("{line} --max-repetition 1 -o all.jsonl"));
    let some = json(directory, &format!("{line} --drop-unlikely 0.2 --drop-likely 0.1 --min-tokens 4 -o some.jsonl"));
    let count = |report: &Value, reason: &str| {
        let dropped = report["dropped"].as_array().expect("a list");
        dropped.iter().find(|dropped| dropped["reason"] == reason).and_then(|dropped| dropped["texts"].as_u64())
    };
    let left: u64 = ["least_likely", "likeliest"].into_iter().filter_map(|reason| count(&some, reason)).sum();
    assert!(left > 0, "{some}");
    let dropped: u64 =
        some["dropped"].as_array().expect("a list").iter().filter_map(|dropped| dropped["texts"].as_u64()).sum();
    assert_eq!(some["kept"].as_u64().expect("a number") + dropped, 60);
    assert_eq!(some["log_probability_points"], all["log_probability_points"]);
    // Those that are kept are lines of the file without limits.
    let whole = fs::read_to_string(directory.join("all.jsonl")).expect("a file");
    let part = fs::read_to_string(directory.join("some.jsonl")).expect("a file");
    assert!(part.lines().all(|line| whole.lines().any(|other| other == line)));
    let bound = -1.5;
    succeed(directory, &format!("{line} --max-repetition 1 --min-log-probability {bound} -o likely.jsonl"));
    let likely = rows(&directory.join("likely.jsonl"));
    let of = |row: &Value| row["mean_log_probability"].as_f64().expect("a number");
    let expected = rows(&directory.join("all.jsonl")).iter().filter(|row| of(row) >= bound).count();
    assert!(likely.len() == expected && likely.iter().all(|row| of(row) >= bound));
    // The likeliest token each time: every text after one prompt is the same.
    fs::write(directory.join("one.jsonl"), "{\"t\": \"the fox\"}\n").expect("writes");
    let teacher = root("recipes/quickstart/teacher");
    let asked = format!("synthesize {} --prompts one.jsonl --field t --texts 60 --window 24", teacher.display());
    let greedy = json(directory, &format!("{asked} --temperature 0 --max-repetition 1 -o greedy.jsonl"));
    assert_eq!((&greedy["kept"], count(&greedy, "duplicate")), (&json!(1), Some(59)));
}

#[test]
fn a_student_of_another_tokenizer_learns_from_the_text() {
    let workplace = workplace();
    let directory = workplace.path();
    succeed(directory, "synthesize m --prompts text.txt --window 32 --prefix 12 --max-repetition 1 -o t.jsonl");
    let config = root("recipes/quickstart/teacher-config");
    let line = format!("train {} --data t.jsonl --field text --window 32 --batch 4", config.display());
    let report = json(directory, &format!("{line} --tokens 500 -o student"));
    assert!(report["loss"].as_f64().expect("a loss") > 0.0);
    // Where predictions are compared the tokens must be the same, and the message names this way.
    let line = format!("distill --teacher m --student {} --data text.txt --tokens 100 -o s", config.display());
    refused(directory, &line, "slmc synthesize TEACHER");
}

#[test]
fn a_student_learns_on_its_own_text_and_goes_on_from_a_kill() {
    let workplace = workplace();
    let directory = workplace.path();
    let line = "distill --teacher m --layers 0 --data text.txt --window 24 --batch 4 --pieces 2 --tokens 1200 --ce 0.5 --kl 1 \
        --hidden 0 --on-policy 0.5 --checkpoint-every 2 -q";
    succeed(directory, &format!("{line} -o whole --metrics whole.jsonl --threads 1"));
    refused(directory, &format!("{line} -o pieces --stop-after-step 6"), "stopped after step 6");
    succeed(directory, &format!("{line} -o pieces --metrics pieces.jsonl --threads 3"));
    let bytes = |name: &str| fs::read(directory.join(name)).expect("the file is there");
    assert!(bytes("whole.jsonl") == bytes("pieces.jsonl"), "the losses differ after going on");
    assert!(bytes("whole/model.safetensors") == bytes("pieces/model.safetensors"), "the weights differ");
    let steps = rows(&directory.join("whole.jsonl"));
    let own: Vec<&Value> = steps.iter().filter(|step| step["on_policy"] == true).collect();
    assert!(own.len() > 2 && own.len() + 2 < steps.len(), "{} of {} steps", own.len(), steps.len());
    // The student's own tokens are no targets; the teacher's distributions are.
    for step in &steps {
        let of_data = step["on_policy"].is_null();
        assert!(step["cross_entropy"].is_number() == of_data && step["divergence"].as_f64() > Some(0.0), "{step}");
    }
    let plain = line.replace("--on-policy 0.5", "--on-policy 0");
    succeed(directory, &format!("{plain} -o plain"));
    assert!(bytes("plain/model.safetensors") != bytes("whole/model.safetensors"), "the share changes nothing");
    // On what the student writes it comes nearer to its teacher.
    let all = line.replace("--on-policy 0.5", "--on-policy 1").replace("--tokens 1200", "--tokens 6000");
    let all = all.replace("--ce 0.5", "--ce 0");
    succeed(directory, &format!("{all} --learning-rate 3e-3 -o all --metrics all.jsonl"));
    let losses: Vec<f64> =
        rows(&directory.join("all.jsonl")).iter().map(|step| step["divergence"].as_f64().expect("a loss")).collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&losses[losses.len() - 5..]) < 0.9 * mean(&losses[..5]), "{losses:?}");
    for (options, expected) in [
        ("--on-policy 2 --kl 1", "--on-policy is 2; expected a share of the steps"),
        ("--on-policy 0.5 --hidden 0", "no loss compares with the teacher"),
        ("--on-policy 0.5 --hidden 0 --kl 1@0.5,0@0.6", "from 60 % of the steps on no loss compares with the teacher"),
        ("--on-policy 0.5 --on-policy-prefix 24", "expected 1 to less than the window of 24 tokens"),
    ] {
        let line = format!("distill --teacher m --layers 0 --data text.txt --window 24 --tokens 100 {options} -o x");
        refused(directory, &line, expected);
    }
}

#[test]
fn questions_go_through_the_chat_template() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    fs::create_dir(directory.join("m")).expect("a directory");
    for entry in fs::read_dir(root("recipes/quickstart/teacher")).expect("a model of this repository") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), directory.join("m").join(entry.file_name())).expect("copies");
    }
    fs::write(directory.join("q.jsonl"), "{\"q\": \"Who came?\"}\n{\"q\": \"Why did the long fox run so far?\"}\n")
        .expect("writes");
    let line = "synthesize m --prompts q.jsonl --field q --chat --window 48 --max-repetition 1";
    refused(directory, &format!("{line} -o a.jsonl"), "has no chat template, and --chat asks through one");
    fs::write(directory.join("m/chat_template.jinja"), TEMPLATE).expect("writes");
    succeed(directory, &format!("{line} --texts 4 --system 'Be brief.' -o a.jsonl"));
    let answers = rows(&directory.join("a.jsonl"));
    assert_eq!(
        answers.iter().map(|row| text(row, "prompt")).collect::<Vec<_>>()[..2],
        ["Who came?", "Why did the long fox run so far?"]
    );
    for row in &answers {
        let roles: Vec<&str> =
            row["messages"].as_array().expect("a list").iter().map(|message| text(message, "role")).collect();
        assert_eq!(roles, ["system", "user", "assistant"]);
        assert_eq!(row["messages"][2]["content"], row["answer"]);
    }
    // What it gives is a file of conversations, which are answered anew up to their last question.
    json(directory, "train m --data a.jsonl --window 48 --batch 2 --tokens 200 -o tuned");
    succeed(directory, "synthesize m --prompts a.jsonl --window 64 --max-repetition 1 -o again.jsonl");
    let again = rows(&directory.join("again.jsonl"));
    assert_eq!(text(&again[0], "prompt"), "Who came?");
    let part = "synthesize m --prompts a.jsonl --window 64 --prefix 4 -o part.jsonl";
    refused(directory, part, "a.jsonl: holds conversations, of which the last question is answered");
    let long = "synthesize m --prompts q.jsonl --field q --chat --window 8 -o b.jsonl";
    refused(directory, long, "every prompt fills the window of 8 tokens");
}

#[test]
fn bad_input_is_named() {
    let workplace = workplace();
    let directory = workplace.path();
    fixture::write(&directory.join("bert"), Family::Bert, Size::SMALL);
    fs::write(directory.join("mine.jsonl"), "{\"text\": \"x\"}\n").expect("writes");
    let text = "synthesize m --prompts text.txt -o x.jsonl --window 32";
    for (line, expected) in [
        ("synthesize m -o x.jsonl".to_owned(), "--texts <N>"),
        ("synthesize bert --texts 2 --window 16 -o x.jsonl".to_owned(), "is an encoder, which writes no text"),
        ("synthesize m --texts 2 --window 16 -o mine.jsonl".to_owned(), "mine.jsonl: exists and was not made by slmc"),
        (format!("{text} --prefix 31"), "a window of 32 tokens has nothing to predict; use at least 33"),
        ("synthesize m --texts 2 --window 500 -o x.jsonl".to_owned(), "longer than the model's context"),
        (format!("{text} --min-log-probability 1"), "--min-log-probability is 1; expected 0 or less"),
        (
            format!("{text} --min-log-probability -1 --max-log-probability -2"),
            "expected less than --max-log-probability -2",
        ),
        (format!("{text} --drop-likely 0.6 --drop-unlikely 0.5"), "nothing would be left"),
        (format!("{text} --temperature=-1"), "--temperature is -1"),
        (format!("{text} --min-log-probability -0.001"), ", improbable: "),
    ] {
        refused(directory, &line, expected);
    }
}

/// A stage that makes a text, and one that is trained on it by its name.
const RECIPE: &str = r#"
version = 1
[model]
path = "model"

[stages.told]
kind = "synthesize"
input = "model"
prompts = "text.txt"
prefix = 8
window = 32
max_repetition = 1

[stages.student]
kind = "train"
input = "model"
data = ["told"]
field = "text"
window = 32
batch = 4
tokens = 500
"#;

#[test]
fn a_recipe_trains_on_what_a_stage_wrote() {
    let directory = fixture::workshop("told.toml", RECIPE);
    let directory = directory.path();
    assert_eq!(json_with_code(directory, "run told.toml --plan", 0)["schema"], "slmc.plan/2");
    let report = json_with_code(directory, "run told.toml", 0);
    assert_eq!(states(&report), ["done"; 2]);
    let written = fs::read(directory.join("out/told/told.jsonl")).expect("the text is there");
    assert_eq!(states(&json_with_code(directory, "run told.toml", 0)), ["cached"; 2]);
    fs::remove_file(directory.join("out/told/told.jsonl")).expect("removes");
    fs::write(directory.join("told.toml"), RECIPE.replace("tokens = 500", "tokens = 600")).expect("writes");
    assert_eq!(states(&json_with_code(directory, "run told.toml", 0)), ["cached", "done"]);
    assert!(fs::read(directory.join("out/told/told.jsonl")).expect("it is in place again") == written);
    // A stage that makes a model is no text.
    fs::write(directory.join("told.toml"), RECIPE.replace("[\"told\"]", "[\"model\"]")).expect("writes");
    refused(directory, "run told.toml", "model is a directory; pass a file");
}

#[test]
fn reasoning_before_the_answer_is_right_where_the_answer_alone_is_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let recipe = root("recipes/chain-of-thought.toml");
    let report =
        json_with_code(directory, &format!("run {} --out out --set stages.direct.tokens=100000", recipe.display()), 0);
    assert_eq!(report["passed"], true);
    let stage = |name: &str| {
        let stages = report["stages"].as_array().expect("stages");
        let stage = stages.iter().find(|stage| stage["stage"] == name).expect(name);
        stage["report"].clone()
    };
    let (direct, reasoned) = (stage("answers-direct"), stage("answers"));
    let exact = |report: &Value| report["exact_match"].as_f64().expect("a share");
    assert!(exact(&reasoned) > 0.9 && exact(&direct) < 0.7, "{direct} {reasoned}");
    assert_eq!((&reasoned["answer_is"], &reasoned["windows"]), (&json!("line"), &json!(96)));
    let bound = |report: &Value, end: usize| report["exact_match_interval"][end].as_f64().expect("a bound");
    assert!(bound(&direct, 1) < bound(&reasoned, 0), "{direct} {reasoned}");
}

#[test]
fn answers_are_found_as_asked() {
    let workplace = workplace();
    let directory = workplace.path();
    fs::write(directory.join("qa.jsonl"), "{\"prompt\": \"the fox\", \"answer\": \"ran\"}\n").expect("writes");
    let line = "eval m --task generate --data qa.jsonl --answer-tokens 6";
    let whole = json(directory, line);
    assert_eq!((&whole["answer_is"], &whole["without_answer"]), (&json!("whole"), &json!(0)));
    let number = json(directory, &format!("{line} --answer-is number"));
    assert_eq!((&number["without_answer"], &number["exact_match"]), (&json!(1), &json!(0.0)));
    let marked = json(directory, &format!("{line} --answer-after '#### '"));
    assert_eq!(marked["without_answer"], 1);
    refused(directory, "eval m --data text.txt --window 16 --answer-is line", "--answer-is is about generated answers");
    refused(directory, &format!("{line} --answer-after ''"), "--answer-after is empty");
}

#[test]
fn records_that_cannot_be_learned_are_named() {
    let workplace = workplace();
    let directory = workplace.path();
    let training = "--window 24 --batch 2 --tokens 100 -o out";
    for (content, options, expected) in [
        ("{\"prompt\": \"a\"}\n", "--loss-on answer", "no key `answer` in row 1"),
        ("{\"prompt\": \"a\", \"answer\": \"\"}\n", "", "every row's `answer` is blank"),
        ("{\"prompt\": \"a\", \"answer\": \"b\"}\n", "--loss-on reasoning", "no row has a text under `reasoning`"),
        ("{\"prompt\": \"a\", \"answer\": \"b\"}\n", "--loss-on answer --field prompt", "leave one out"),
        (
            "{\"prompt\": \"a very long question of many words indeed\", \"answer\": \"b\"}\n",
            "",
            "no conversation has an answer of the assistant within 24 tokens",
        ),
    ] {
        fs::write(directory.join("r.jsonl"), content).expect("writes");
        refused(directory, &format!("train m --data r.jsonl {options} {training}"), expected);
    }
    let good = "{\"q\": \"a fox\", \"why\": \"it ran\", \"a\": \"yes\"}\n".repeat(4);
    fs::write(directory.join("r.jsonl"), good).expect("writes");
    let keys = "--prompt-field q --reasoning-field why --answer-field a";
    let losses = ["answer", "reasoning", "all"].map(|parts| {
        let line =
            format!("train m --data r.jsonl {keys} --loss-on {parts} --window 24 --batch 2 --tokens 10 -o {parts}");
        json(directory, &line)["loss"].as_f64().expect("a loss")
    });
    assert!(losses[0] != losses[1] && losses[1] != losses[2], "{losses:?}");
}
