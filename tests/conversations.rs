//! Conversations: files of messages, `slmc chat` on lines of stdin, and the chat frame in an artifact's device part, from
//! which the C example makes the same prompts and gets the same answers, token by token.

use crate::c_interface;
use crate::support::{json, json_with_code, refused, root, run, slmc, stderr, without_cost};
use serde_json::{Value, json};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::chat_frame::{FramePart, Role};
use slmc::eval::Forward;
use slmc::eval::opened::OpenedModel;
use slmc::model::device::device;
use slmc::text::conversations::{Spoken, read_conversations};
use slmc::text::tokenizer::Tokenizer;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// ChatML with the special tokens of the quickstart's teacher.
pub(crate) const TEMPLATE: &str = "{% for message in messages %}{{ '<s>' + message['role'] + '\n' + message['content'] + '</s>\n' }}\
    {% endfor %}{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}";
/// The same for two roles, with trimmed texts.
const TRIMMED: &str = "{% for message in messages %}{% if message.role == 'system' %}\
    {{ raise_exception('no system messages here') }}{% endif %}{{ '<s>' + message.role + '\n' + message.content | trim }}\
    {{ '</s>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}";

const QUESTIONS: [&str; 4] =
    ["Once upon a time there was a fox.", "And then?", " 12 naïve  geese, \"he\" said ", "Why?"];

/// The quickstart's teacher with a template, as `m` and as `a.slm`.
pub(crate) fn workplace(template: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let model = directory.path().join("m");
    fs::create_dir(&model).expect("a directory");
    for entry in fs::read_dir(root("recipes/quickstart/teacher")).expect("a model of this repository") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), model.join(entry.file_name())).expect("copies");
    }
    fs::write(model.join("chat_template.jinja"), template).expect("writes");
    json(directory.path(), "quantize m --scheme w8 --method rtn -o w8");
    json(directory.path(), "compile w8 --target x86-64-v3 -o a.slm");
    directory
}

fn chat(directory: &Path, arguments: &str, input: &str) -> Output {
    let mut command = slmc(directory, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

/// The answers of `slmc chat --json`.
fn turns(directory: &Path, arguments: &str, input: &str) -> Vec<Value> {
    let output = chat(directory, &format!("{arguments} --json"), input);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

fn lines(questions: &[&str]) -> String {
    questions.iter().map(|question| format!("{question}\n")).collect()
}

/// What `slmc generate --messages` answers after these questions and answers.
fn answered(directory: &Path, system: Option<&str>, questions: &[&str], turns: &[Value], tokens: usize) -> Value {
    let mut messages = Vec::from_iter(system.map(|system| json!({"role": "system", "content": system})));
    for (question, turn) in questions.iter().zip(turns) {
        messages.push(json!({"role": "user", "content": question}));
        messages.push(json!({"role": "assistant", "content": turn["text"]}));
    }
    messages.pop();
    fs::write(directory.join("messages.json"), json!(messages).to_string()).expect("writes");
    json(directory, &format!("generate a.slm --messages messages.json --tokens {tokens}"))
}

#[test]
fn a_chat_answers_as_generate_does_and_reads_nothing_twice() {
    let workplace = workplace(TEMPLATE);
    let directory = workplace.path();
    let all = turns(directory, "chat a.slm --tokens 12", &lines(&QUESTIONS));
    assert_eq!(all.len(), QUESTIONS.len());
    for (number, turn) in all.iter().enumerate() {
        assert_eq!((&turn["schema"], &turn["turn"]), (&json!("slmc.chat/1"), &json!(number + 1)));
        let expected = answered(directory, None, &QUESTIONS[..=number], &all[..=number], 12);
        for key in ["tokens", "text", "stop", "prompt_tokens"] {
            assert_eq!(turn[key], expected[key], "{key} of turn {number}");
        }
    }
    assert_eq!(all[0]["reused_tokens"], 0);
    let reused = |turn: &Value| turn["reused_tokens"].as_u64().expect("a number");
    assert!(all[1..].iter().any(|turn| reused(turn) > 0), "{all:?}");

    // A system message, a new one in the middle, and a new conversation.
    let input = "/system Be brief.\nWho?\n/reset\n\n/system\n//Who?\n/quit\nWho?\n";
    let changed = turns(directory, "chat a.slm --tokens 6 --system 'Be long.'", input);
    assert_eq!(changed.len(), 2, "{changed:?}");
    assert_eq!((&changed[0]["turn"], &changed[1]["turn"]), (&json!(1), &json!(1)));
    for (turn, system, question) in [(&changed[0], Some("Be brief."), "Who?"), (&changed[1], None, "/Who?")] {
        assert_eq!(turn["tokens"], answered(directory, system, &[question], std::slice::from_ref(turn), 6)["tokens"]);
    }
    // Text: the answers and nothing else on stdout.
    let shown = chat(directory, "chat a.slm --tokens 12", &lines(&QUESTIONS));
    let texts: String = all.iter().map(|turn| format!("{}\n", turn["text"].as_str().expect("a text"))).collect();
    assert_eq!(String::from_utf8_lossy(&shown.stdout), texts);
    let unknown = chat(directory, "chat a.slm --tokens 1", "/forget\n");
    assert!(stderr(&unknown).contains("`/forget` is not a command: /reset"), "{}", stderr(&unknown));
    // A directory talks too.
    assert_eq!(turns(directory, "chat m --tokens 3", "Who?\nWhy?\n").len(), 2);
}

#[test]
fn a_full_context_drops_the_oldest_turns_and_says_so() {
    let workplace = workplace(TEMPLATE);
    let directory = workplace.path();
    json(directory, "compile w8 --target x86-64-v3 --context 120 -o a.slm");
    let questions = ["The first question is about a fox.", "The second one is about geese.", "The third?", "The last?"];
    let all = turns(directory, "chat a.slm --tokens 20 --system 'Be brief.'", &lines(&questions));
    let dropped: Vec<&str> =
        all.iter().flat_map(|turn| turn["dropped"].as_array().expect("a list")).filter_map(Value::as_str).collect();
    assert!(!dropped.is_empty() && dropped.len() < 4, "{all:?}");
    assert_eq!(dropped, questions[..dropped.len()]);
    for turn in &all {
        assert!(turn["prompt_tokens"].as_u64().expect("a number") <= 100, "{turn}");
    }
    // What is left is what the model was asked, after the system message.
    let last = &all[3];
    let kept = &questions[dropped.len()..];
    assert_eq!(last["tokens"], answered(directory, Some("Be brief."), kept, &all[dropped.len()..], 20)["tokens"]);
    let said = chat(directory, "chat a.slm --tokens 20 --system 'Be brief.'", &lines(&questions));
    let note = "the context of 120 tokens is full: dropped the oldest of the conversation, `The first question is";
    assert!(stderr(&said).contains(note), "{}", stderr(&said));
    // A question for which there is no room at all.
    let long = chat(directory, "chat a.slm", &"a long question ".repeat(60));
    assert_eq!(long.status.code(), Some(2));
    assert!(stderr(&long).contains("the context holds 120"), "{}", stderr(&long));
}

#[test]
fn the_c_example_answers_as_the_host_does() {
    for (template, system) in [(TEMPLATE, None), (TEMPLATE, Some("You are a fox.")), (TRIMMED, None)] {
        let workplace = workplace(template);
        let directory = workplace.path();
        let file = directory.join("a.slm");
        let device = directory.join("device.slm");
        json(directory, "compile w8 --target x86-64-v3 --device-only -o device.slm");
        let of_system = system.map_or_else(String::new, |system| format!("--system '{system}'"));
        let host = turns(directory, &format!("chat a.slm --tokens 16 {of_system}"), &lines(&QUESTIONS));
        let ids = |turn: &Value| {
            let tokens = turn["tokens"].as_array().expect("tokens");
            tokens.iter().map(|id| format!("{id}\n")).chain(["\n".to_owned()]).collect::<String>()
        };
        let expected: String = host.iter().map(ids).collect();
        for program in c_interface::builds("src/runtime/examples/chat.c", directory) {
            for artifact in [&file, &device] {
                let mut command = Command::new(&program);
                command.arg("--ids").args(system.iter().flat_map(|system| ["--system", system]));
                command.arg(artifact).arg("16").args(QUESTIONS);
                assert_eq!(c_interface::stdout_of(&mut command), expected, "{system:?}");
            }
        }
        for program in c_interface::builds("tests/c/calls.c", directory) {
            c_interface::stdout_of(Command::new(program).arg(&file));
        }
        frame_is_that_of_the_template(directory, &fs::read(&file).expect("reads"), template == TRIMMED);
    }
}

/// The frame with the messages is what the template writes, and its tokens are those of the host.
fn frame_is_that_of_the_template(directory: &Path, bytes: &[u8], trimmed: bool) {
    let view = ArtifactView::open(bytes).expect("it is sound");
    let frame = view.chat_frame().expect("a frame");
    assert_eq!((frame.has_system(), frame.has_tokens()), (!trimmed, true));
    assert_eq!(Role::ALL.map(|role| frame.trims(role)), [false, trimmed, trimmed]);
    let tokenizer = fs::read(directory.join("m/tokenizer.json")).expect("reads");
    let tokenizer = Tokenizer::from_bytes("tokenizer.json".into(), &tokenizer).expect("a tokenizer");
    let mut text = frame.text(FramePart::OpenUser).to_owned();
    let mut tokens: Vec<u32> = frame.tokens(FramePart::OpenUser).iter().collect();
    let said = ["Who?", "A fox.", "7 geese\nand a 日本"];
    for (index, said) in said.into_iter().enumerate() {
        let after = [FramePart::UserToAssistant, FramePart::AssistantToUser][index % 2];
        text += said;
        tokens.extend(tokenizer.encode_plain(said).expect("encodes"));
        text += frame.text(after);
        tokens.extend(frame.tokens(after).iter());
    }
    assert_eq!(tokens, tokenizer.encode_plain(&text).expect("encodes"));
    let roles = ["user", "assistant", "user"];
    let messages = roles.iter().zip(said).map(|(role, said)| json!({"role": role, "content": said}));
    fs::write(directory.join("messages.json"), json!({"messages": messages.collect::<Vec<_>>()}).to_string())
        .expect("writes");
    let rendered = json(directory, "generate m --messages messages.json --tokens 1");
    assert_eq!((&rendered["prompt"], &rendered["prompt_tokens"]), (&json!(text), &json!(tokens.len())));
}

/// Rows of conversations with answers of different lengths.
fn rows(count: usize, longest: usize) -> String {
    let row = |number: usize| {
        let messages = json!([{"role": "user", "content": format!("Question {number}?")},
            {"role": "assistant", "content": "It is a fox.".repeat(1 + number % longest)},
            {"role": "user", "content": "And then?"}, {"role": "assistant", "content": "The end."}]);
        format!("{}\n", json!({"id": number, "messages": messages}))
    };
    (0..count).map(row).collect()
}

#[test]
fn only_answers_are_learned() {
    let workplace = workplace(TEMPLATE);
    let directory = workplace.path();
    fs::write(directory.join("talk.jsonl"), rows(3, 3)).expect("writes");
    let said = |template: &str| {
        fs::write(directory.join("m/chat_template.jinja"), template).expect("writes");
        let source = slmc::formats::open(&directory.join("m")).expect("opens");
        let companions = source.model().expect("a model").companions;
        let tokenizer = Tokenizer::of(&companions).expect("a tokenizer");
        let path = directory.join("talk.jsonl");
        let spoken =
            read_conversations(&path, None, &companions, &tokenizer, &[1]).expect("reads").expect("conversations");
        let vocabulary = tokenizer.vocabulary_bytes(1024).expect("bytes");
        let text = |tokens: Vec<u32>| {
            let spelled = |token: u32| if token == 1 { b"</s>".to_vec() } else { vocabulary[token as usize].clone() };
            String::from_utf8(tokens.into_iter().flat_map(spelled).collect()).expect("UTF-8")
        };
        let learned = |spoken: &Spoken| {
            let said = spoken.tokens.iter().zip(&spoken.said);
            text(said.filter(|(_, said)| **said).map(|(token, _)| *token).collect())
        };
        spoken.conversations.iter().map(learned).collect::<Vec<_>>()
    };
    let expected = [1, 2, 3].map(|times| format!("{}</s>The end.</s>", "It is a fox.".repeat(times)));
    // By prefixes, up to the end token; by marks, exactly what is marked.
    assert_eq!(said(TEMPLATE), expected);
    let marked = TEMPLATE.replace(
        "{{ '<s>' + message['role'] + '\n' + message['content'] + '</s>\n' }}",
        "{{ '<s>' + message['role'] + '\n' }}{% if message.role == 'assistant' %}{% generation %}{{ message.content }}\
         {{ '</s>' }}{% endgeneration %}{% else %}{{ message.content + '</s>' }}{% endif %}{{ '\n' }}",
    );
    assert!(marked.contains("endgeneration"));
    assert_eq!(said(&marked), expected);
    let inner = marked.replace("{{ '</s>' }}{% endgeneration %}", "{% endgeneration %}{{ '</s>' }}");
    assert_eq!(said(&inner), [1, 2, 3].map(|times| format!("{}The end.", "It is a fox.".repeat(times))));
}

#[test]
fn models_are_calibrated_and_trained_with_conversations() {
    let workplace = workplace(TEMPLATE);
    let directory = workplace.path();
    fs::write(directory.join("talk.jsonl"), rows(24, 1)).expect("writes");
    let few = "--tokens 3000 --window 64 --batch 4 -q";
    json(directory, &format!("train m --data talk.jsonl --learning-rate 3e-3 {few} -o trained"));
    let asked = |model: &str| {
        let messages = json!([{"role": "user", "content": "Question 3?"}]);
        fs::write(directory.join("messages.json"), messages.to_string()).expect("writes");
        json(directory, &format!("generate {model} --messages messages.json --tokens 24"))
    };
    let answer = asked("trained");
    assert!(answer["text"].as_str().expect("a text").starts_with("It is a fox."), "{answer}");
    assert_eq!(answer["stop"], "end", "{answer}");
    json(
        directory,
        &format!("distill --teacher trained --layers 0,2,4 --data talk.jsonl --field messages {few} -o small"),
    );
    let calibrated = json(directory, "quantize m --scheme w8 --calibration talk.jsonl --calibration-tokens 600 -o c8");
    assert!(calibrated.to_string().contains("talk.jsonl"), "{calibrated}");
    // Every fault with its row; nothing is written.
    for (content, expected) in [
        (
            "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n{\"text\": 1}\n{\"messages\": [{\"role\": 3}]}\n",
            "bad.jsonl:2: no key `messages`; 3: message 1: `role` is a number, expected a text; message 1: no `content`",
        ),
        ("{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n", "no conversation has an answer"),
        ("{\"messages\": 3}\n", "--field"),
    ] {
        fs::write(directory.join("bad.jsonl"), content).expect("writes");
        refused(directory, &format!("train m --data bad.jsonl {few} -o bad"), expected);
    }
    fs::write(directory.join("m/chat_template.jinja"), TRIMMED).expect("writes");
    let refusing =
        "{\"messages\": [{\"role\": \"system\", \"content\": \"x\"}, {\"role\": \"assistant\", \"content\": \"y\"}]}";
    fs::write(directory.join("bad.jsonl"), refusing).expect("writes");
    refused(directory, &format!("train m --data bad.jsonl {few} -o bad"), "bad.jsonl:1: ");
    refused(directory, "quantize m --scheme w8 --calibration bad.jsonl -o bad", "no system messages here");
    fs::remove_file(directory.join("m/chat_template.jinja")).expect("it is there");
    refused(directory, &format!("train m --data talk.jsonl {few} -o bad"), "has no chat template; add the");
    assert!(!directory.join("bad").exists());
}

#[test]
fn evaluation_measures_what_the_assistant_says() {
    let workplace = workplace(TEMPLATE);
    let directory = workplace.path();
    fs::write(directory.join("talk.jsonl"), rows(9, 3)).expect("writes");
    let model = slmc::formats::open_model(&directory.join("m")).expect("opens");
    let tokenizer = Tokenizer::of(&model.companions).expect("a tokenizer");
    let file = read_conversations(&directory.join("talk.jsonl"), None, &model.companions, &tokenizer, &model.spec.ends);
    let spoken = file.expect("reads").expect("conversations").conversations;
    // By hand: the mean of −ln p over the tokens of the assistant, each given all before it.
    let opened = OpenedModel::open(&directory.join("m"), &device("flex").expect("a backend")).expect("opens");
    let sequences: Vec<Vec<u32>> = spoken.iter().map(|spoken| spoken.tokens.clone()).collect();
    let (mut sum, mut count) = (0.0, 0);
    for (spoken, logits) in spoken.iter().zip(opened.logits(&sequences).expect("runs")) {
        for place in (1..spoken.tokens.len()).filter(|&place| spoken.said[place]) {
            let row = &logits[(place - 1) * opened.vocabulary..place * opened.vocabulary];
            let all: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
            sum += all.ln() - f64::from(row[spoken.tokens[place] as usize]);
            count += 1;
        }
    }
    let measured = json(directory, "eval m --data talk.jsonl");
    assert_eq!(
        (&measured["tokens"], &measured["windows"], &measured["answers_only"]),
        (&json!(count), &json!(9), &json!(true))
    );
    let perplexity = measured["perplexity"].as_f64().expect("a number");
    assert!((perplexity.ln() - sum / f64::from(count)).abs() < 1e-6, "{perplexity} {}", (sum / f64::from(count)).exp());

    // The artifact, whose template is its own, and one for a device, whose template is the reference's.
    json(directory, "compile w8 --target x86-64-v3 --device-only -o device.slm");
    let artifact = json(directory, "eval a.slm --data talk.jsonl --reference m");
    let device = json(directory, "eval device.slm --data talk.jsonl --reference m");
    for key in ["tokens", "perplexity", "kld_mean", "logits_sha256"] {
        assert_eq!(artifact[key], device[key], "{key}");
    }
    assert_eq!(
        (&artifact["tokens"], &artifact["reference_perplexity"]),
        (&measured["tokens"], &measured["perplexity"])
    );
    assert!(artifact["kld_mean"].as_f64().is_some_and(|kld| kld > 0.0 && kld < 0.05), "{artifact}");
    refused(directory, "eval device.slm --data talk.jsonl", "pass the directory it was made from (--tokenizer DIR)");
    // Cut conversations are counted, and those in which nothing is left to judge.
    let cut = json(directory, "eval m --data talk.jsonl --window 24");
    let read = &cut["files_read"][0];
    assert_eq!((&read["records"], &read["cut"], &read["cut_to"]), (&json!(9), &json!(9), &json!(24)), "{cut}");
    assert_eq!(cut["windows"].as_u64(), read["without_answer"].as_u64().map(|without| 9 - without));
    refused(
        directory,
        "eval m --data talk.jsonl --window 3",
        "no conversation has an answer of the assistant within 3 tokens",
    );
    let shown = run(directory, "eval m --data talk.jsonl");
    assert!(String::from_utf8_lossy(&shown.stdout).starts_with("tokens of answers  "));
}

#[test]
fn conversations_in_tables_are_those_of_lines() {
    let workplace = workplace(TEMPLATE);
    let directory = workplace.path();
    let table = root("tests/data/parquet/conversations.parquet");
    fs::copy(table, directory.join("talk.parquet")).expect("copies");
    // As tests/data/parquet/make.py says them.
    let row = |number: usize| {
        json!({"messages": match number {
            2 => json!([]),
            4 => Value::Null,
            _ => json!([{"role": "user", "content": format!("Question {number}?")},
                {"role": "assistant", "content": "It is a fox.".repeat(1 + number % 3)}]),
        }})
    };
    let rows: Vec<Value> = (0..12).map(row).collect();
    fs::write(directory.join("talk.jsonl"), rows.iter().map(|row| format!("{row}\n")).collect::<String>())
        .expect("writes");
    fs::write(directory.join("talk.json"), serde_json::to_string_pretty(&rows).expect("JSON")).expect("writes");
    let measured = |name: &str, options: &str| {
        let mut report = without_cost(json(directory, &format!("eval m --data {name} {options}")));
        report["files_read"][0].as_object_mut().expect("an object").remove("file");
        report
    };
    let lines = measured("talk.jsonl", "");
    assert_eq!((&lines["windows"], &lines["files_read"][0]["blank_rows"]), (&json!(10), &json!(2)), "{lines}");
    assert_eq!(lines["files_read"][0]["first_blank_row"], 3);
    for (name, options) in [("talk.json", ""), ("talk.parquet", ""), ("talk.parquet", "--field messages")] {
        assert_eq!(measured(name, options), lines, "{name}");
    }
    // Texts of the same table are documents.
    let texts = json(directory, "eval m --data talk.parquet --field text --window 32");
    assert_eq!((&texts["files_read"][0]["records"], &texts["answers_only"]), (&json!(11), &Value::Null), "{texts}");
    let trained = |name: &str| {
        json(directory, &format!("train m --data {name} --tokens 500 --window 64 --batch 4 -o {name}.out"));
        fs::read(directory.join(format!("{name}.out/model.safetensors"))).expect("reads")
    };
    assert!(trained("talk.parquet") == trained("talk.jsonl"));
    json(directory, "quantize m --scheme w4 --method search --calibration talk.parquet -o calibrated");
}

#[test]
fn a_template_that_is_no_frame_is_named() {
    let workplace = workplace(&TEMPLATE.replace("message['content']", "message['content'] | upper"));
    let directory = workplace.path();
    let reason = "the text of the user's message does not stand in it once and as it is";
    let compiled = json(directory, "compile w8 --target x86-64-v3 -o a.slm");
    assert_eq!(compiled["chat_frame"], json!({"not_fixed": reason}));
    assert_eq!(json(directory, "inspect a.slm")["chat_frame"], json!({"not_fixed": reason}));
    let shown = run(directory, "inspect a.slm");
    let row = format!("host only, not a fixed frame: {reason}");
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&row));
    let fit = json_with_code(directory, "estimate w8 --target x86-64-v3", 0);
    assert_eq!(fit["schemes"][0]["flash_bytes"], compiled["flash_bytes"]);
    for program in c_interface::builds("src/runtime/examples/chat.c", directory) {
        let output = Command::new(program).arg(directory.join("a.slm")).args(["3", "Who?"]).output().expect("starts");
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("no chat frame"), "{}", stderr(&output));
    }
    // With a frame, the estimate knows its bytes.
    fs::write(directory.join("w8/chat_template.jinja"), TEMPLATE).expect("writes");
    let compiled = json(directory, "compile w8 --target x86-64-v3 -o a.slm");
    assert_eq!(compiled["chat_frame"]["system"], true, "{compiled}");
    assert_eq!(json(directory, "inspect a.slm")["version"], "1.5");
    let fit = json_with_code(directory, "estimate w8 --target x86-64-v3", 0);
    assert_eq!(fit["schemes"][0]["flash_bytes"], compiled["flash_bytes"]);
}

#[test]
fn files_of_messages_are_judged_before_the_model_runs() {
    let workplace = workplace(TRIMMED);
    let directory = workplace.path();
    for (content, expected) in [
        (r#"[{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]"#, "no system messages here"),
        (
            r#"[{"rol": "user", "content": "x"}, {"role": "user"}]"#,
            "message 1: no `role` (it has: rol, content); message 2",
        ),
        (r#"{"message": []}"#, "messages.json: an object without `messages`"),
        (r#"[{"role": "user", "content": "x"}"#, "messages.json: not JSON"),
    ] {
        fs::write(directory.join("messages.json"), content).expect("writes");
        refused(directory, "generate a.slm --messages messages.json", expected);
    }
    refused(directory, "generate a.slm --messages nowhere.json", "cannot read nowhere.json");
    refused(directory, "generate a.slm --messages messages.json --chat x", "cannot be used with");
    let refusing = chat(directory, "chat a.slm --system x", "Who?\n");
    assert_eq!(refusing.status.code(), Some(2));
    assert!(stderr(&refusing).contains("no system messages here") && refusing.stdout.is_empty());
}
