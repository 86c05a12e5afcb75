//! Records become tokens of which each part is learned or not, with and without templates, and faults are named.

use super::super::testing::companions;
use super::*;

const CHATML: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>\n{% endfor %}\
    {% if add_generation_prompt %}<|assistant|>{% endif %}";
const THINKS: &str = "{% for m in messages %}<|{{ m.role }}|>{% if m.reasoning_content %}<think>{{ m.reasoning_content }}\
    </think>{% endif %}{{ m.content | trim }}</s>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";
const RECORDS: &str = "{\"prompt\": \"2 + 2 + 3 =\", \"reasoning\": \"2 + 2 = 4\", \"answer\": \"7\"}\n\
    {\"prompt\": \"1 + 1 =\", \"reasoning\": null, \"answer\": 2}\n";

fn teacher() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/quickstart/teacher")
}

fn tokenizer() -> Tokenizer {
    Tokenizer::of(&companions(&teacher())).expect("a tokenizer of this repository")
}

fn write(directory: &tempfile::TempDir, content: &str) -> PathBuf {
    let path = directory.path().join("a.jsonl");
    std::fs::write(&path, content).expect("writes");
    path
}

fn find(content: &str, form: &ReasoningForm) -> Result<Option<ReasonedFile>, ReasoningError> {
    find_reasoned(&write(&tempfile::tempdir().expect("a directory"), content), form)
}

fn template(text: &str) -> ChatTemplate {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("chat_template.jinja"), text).expect("writes");
    let config = "{\"eos_token\": \"</s>\"}";
    std::fs::write(directory.path().join("tokenizer_config.json"), config).expect("writes");
    ChatTemplate::of(&companions(directory.path())).expect("readable").expect("a template")
}

fn parts(parts: &[Part]) -> ReasoningForm {
    ReasoningForm { parts: parts.to_vec(), ..ReasoningForm::default() }
}

/// The text of each record and of what is learned of it.
fn learned_of(form: &ReasoningForm, template: Option<&ChatTemplate>) -> Vec<(String, String)> {
    let tokenizer = tokenizer();
    let records = find(RECORDS, form).expect("readable").expect("records");
    let file = records.spoken(form, template, &tokenizer, (&[0], &[1])).expect("tokens");
    let bytes = tokenizer.vocabulary_bytes(tokenizer.vocabulary_size()).expect("bytes");
    let text = |tokens: Vec<u32>| {
        let spelled = tokens.iter().flat_map(|&token| match token {
            0 => b"[".to_vec(),
            1 => b"]".to_vec(),
            token => bytes[token as usize].clone(),
        });
        String::from_utf8(spelled.collect()).expect("whole characters").trim_start().to_owned()
    };
    let of = |spoken: &Spoken| {
        let pairs = || spoken.tokens.iter().copied().zip(spoken.said.iter().copied());
        (text(spoken.tokens.clone()), text(pairs().filter(|pair| pair.1).map(|pair| pair.0).collect()))
    };
    file.conversations.iter().map(of).collect()
}

#[test]
fn without_a_template_lines_follow_each_other() {
    let all = |form: &ReasoningForm| learned_of(form, None);
    let both = all(&ReasoningForm::default());
    assert_eq!(both[0].0, "[2 + 2 + 3 =\n2 + 2 = 4\n7]");
    assert_eq!((both[0].1.as_str(), both[1].1.as_str()), ("2 + 2 = 4\n7]", "2]"));
    assert_eq!(both, all(&parts(&[Part::Answer, Part::Reasoning])));
    assert_eq!(all(&parts(&[Part::Answer]))[0].1, "7]");
    assert_eq!(all(&parts(&[Part::Reasoning]))[0].1, "2 + 2 = 4\n");
    let whole = all(&parts(&[Part::All]));
    assert_eq!(whole[0].0, whole[0].1);
    let without = all(&ReasoningForm { without_reasoning: true, ..ReasoningForm::default() });
    assert_eq!(without[0], ("[2 + 2 + 3 =\n7]".to_owned(), "7]".to_owned()));
}

#[test]
fn a_template_writes_the_reasoning_before_the_answer() {
    for (text, reasoning) in [(CHATML, "2 + 2 = 4\n"), (THINKS, "<think>2 + 2 = 4</think>")] {
        let template = template(text);
        let of = |form: &ReasoningForm| learned_of(form, Some(&template));
        let both = of(&ReasoningForm::default());
        assert_eq!(both[0].0, format!("<|user|>2 + 2 + 3 =]\n<|assistant|>{reasoning}7]\n"));
        assert_eq!((both[0].1.clone(), both[1].1.as_str()), (format!("{reasoning}7]"), "2]"), "{text}");
        assert_eq!(of(&parts(&[Part::Answer]))[0].1, "7]", "{text}");
        assert_eq!(of(&parts(&[Part::Reasoning]))[0].1, reasoning, "{text}");
        let whole = of(&parts(&[Part::All]));
        assert_eq!(whole[0].0, whole[0].1, "{text}");
    }
}

#[test]
fn files_of_texts_are_not_records() {
    assert_eq!(find("{\"text\": \"x\"}\n", &ReasoningForm::default()).expect("readable"), None);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.txt");
    std::fs::write(&path, "x").expect("writes");
    assert_eq!(find_reasoned(&path, &ReasoningForm::default()).expect("readable"), None);
    let error = find_reasoned(&path, &parts(&[Part::Answer])).expect_err("no rows").to_string();
    assert!(error.contains("a.txt: holds no rows, and records with a prompt and an answer were asked for"), "{error}");
}

#[test]
fn faults_are_named_with_row_and_key() {
    let cases = [
        ("{\"text\": \"x\"}\n", "no key `prompt` in row 1; the object has: text"),
        ("{\"prompt\": \"x\"}\n", "no key `answer` in row 1; the object has: prompt"),
        (
            "{\"prompt\": \"x\", \"answer\": \"y\", \"reasoning\": \"z\"}\n{\"prompt\": \"x\", \"answer\": \"y\"}\n",
            "a.jsonl:2: no key `reasoning` in row 2",
        ),
        ("{\"prompt\": \"x\", \"answer\": \" \"}\n", "every row's `answer` is blank, so there is nothing to learn"),
        ("{\"prompt\": \"x\", \"answer\": [1]}\n", "a.jsonl:1: `answer` is an array; expected a text or a number"),
        ("{\"prompt\": \"x\", \"answer\": \"y\"}\n", "no row has a text under `reasoning`, which --loss-on reasoning"),
    ];
    for (content, expected) in cases {
        let error = find(content, &parts(&[Part::Reasoning, Part::Answer])).expect_err(expected).to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let blank = "{\"prompt\": \"x\", \"answer\": \"\"}\n{\"prompt\": \"x\", \"answer\": \"y\"}\n";
    let file = find(blank, &ReasoningForm::default()).expect("readable").expect("records");
    assert_eq!((file.records.len(), file.notes.blank_rows, file.notes.first_blank_row), (1, 1, 1));
    // A template that hides the answer.
    let hides = template(
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content | upper }}{% endfor %}\
        {% if add_generation_prompt %}<|assistant|>{% endif %}",
    );
    let letters = "{\"prompt\": \"x\", \"answer\": \"yes\"}\n";
    let records = find(letters, &ReasoningForm::default()).expect("readable").expect("records");
    let refused = records.spoken(&ReasoningForm::default(), Some(&hides), &tokenizer(), (&[], &[]));
    let error = refused.expect_err("hidden").to_string();
    assert!(error.contains("a.jsonl:1: "), "{error}");
}
