//! What the server must answer, computed here in the plainest way: a session of one thread that reads one token after the
//! other, without guesses, without anything kept from one text to the next.

use serde_json::{Value, json};
use slm_runtime::format::artifact::ArtifactView;
use slm_runtime::format::chat_frame::FramePart;
use slm_runtime::format::header::SectionKind;
use slm_runtime::format::spec::Output;
use slm_runtime::grammar::Grammar;
use slm_runtime::kernels::best;
use slm_runtime::layout::ALIGNMENT;
use slm_runtime::sample::{ALL, Sampling, choose_after, choose_among, mark, seen_words};
use slm_runtime::session::Session;
use slm_runtime::tokenizer::Tokenizer;

/// Tokens of the answers that are asked for.
const TOKENS: usize = 48;

/// What a case's answer is.
pub enum Expected {
    /// Text, its tokens, why it ends, and the passes that it takes after the prompt without guesses; `None` where a stop
    /// sequence cuts it.
    Text { text: String, tokens: usize, finish: &'static str, passes: Option<usize> },
    /// Rows of numbers, a text each.
    Rows(Vec<Vec<f32>>),
}

/// A request with its answer.
pub struct Case {
    pub path: &'static str,
    pub body: Value,
    pub prompt_tokens: usize,
    pub expected: Expected,
}

/// Bytes that start on 64.
fn aligned(length: usize) -> &'static mut [u8] {
    let bytes = vec![0; length + ALIGNMENT].leak();
    let start = bytes.as_ptr().align_offset(ALIGNMENT);
    &mut bytes[start..start + length]
}

/// Opens an artifact for as long as the program runs.
pub fn open(path: &str) -> Result<ArtifactView<'static>, String> {
    let content = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let bytes = aligned(content.len());
    bytes.copy_from_slice(&content);
    ArtifactView::open(bytes).map_err(|error| format!("{path}: {error}"))
}

fn encode(view: &ArtifactView<'_>, text: &str, specials: bool) -> Vec<u32> {
    let tokenizer = Tokenizer::of(view).expect("the server has opened it");
    let memory = aligned(tokenizer.required_bytes(text.len()).expect("short texts"));
    let mut tokens = Vec::new();
    tokenizer.encode(text, specials, memory, &mut |token| tokens.push(token)).expect("there is memory");
    tokens
}

/// The one session of all cases; each begins with nothing read.
fn session(view: &ArtifactView<'static>) -> Session<'static, 'static> {
    let memory = aligned(Session::required_bytes(view) as usize);
    Session::new(view, best(view.layout()), memory).expect("the artifact's own plan")
}

/// The text that follows a prompt, its tokens and why it ends.
fn follow(
    view: &ArtifactView<'_>,
    session: &mut Session<'_, '_>,
    prompt: &[u32],
    sampling: &Sampling,
    seed: u64,
    grammar: Option<Grammar<'_>>,
    at_start: bool,
) -> Expected {
    session.reset();
    let mut state = grammar.map(|grammar| grammar.start());
    let mut seen = vec![0; seen_words(view.spec().vocabulary as usize)];
    prompt.iter().for_each(|&token| mark(&mut seen, token));
    let (mut tokens, mut bytes, mut finish) = (0, Vec::new(), "length");
    // Tokens without an alternative are not computed; the prompt gives the first of the others.
    let mut choices = 0usize;
    let mut pending = prompt.to_vec();
    while tokens < TOKENS && session.positions() + pending.len() <= view.spec().context as usize {
        let mut logits: &[f32] = &[];
        for &token in &pending {
            // One by one: the result must not depend on what is read together.
            logits = session.step(&[token]).expect("within the context");
        }
        let token = match (grammar, &mut state) {
            (Some(grammar), Some(state)) => {
                let mut allowed = vec![0; grammar.words()];
                if grammar.is_complete(state) || grammar.allowed(state, &mut allowed) == 0 {
                    finish = "stop";
                    break;
                }
                choices += usize::from(grammar.forced(&mut { *state }, &mut [0]) == 0);
                let token =
                    choose_among(logits, &allowed, &seen, sampling, seed, tokens as u64).expect("one is allowed");
                grammar.advance(state, token).expect("it is allowed");
                token
            }
            _ => {
                choices += 1;
                choose_after(logits, &seen, sampling, seed, tokens as u64)
            }
        };
        if view.end_tokens().contains(token) {
            finish = "stop";
            break;
        }
        let mut piece = view.token_bytes(token);
        if at_start && bytes.is_empty() && view.spec().strip_leading_space == 1 {
            piece = piece.strip_prefix(b" ").unwrap_or(piece);
        }
        bytes.extend_from_slice(piece);
        mark(&mut seen, token);
        tokens += 1;
        pending = vec![token];
    }
    if state.is_some_and(|state| grammar.is_some_and(|grammar| grammar.is_complete(&state))) {
        finish = "stop";
    }
    let passes = Some(choices.saturating_sub(1));
    Expected::Text { text: String::from_utf8_lossy(&bytes).into_owned(), tokens, finish, passes }
}

fn row(session: &mut Session<'_, '_>, tokens: &[u32]) -> Vec<f32> {
    let mut rows: Vec<Vec<f32>> = Vec::new();
    session.reset();
    session.run(tokens, &mut |_, row| rows.push(row.to_vec())).expect("within the context");
    let mean = |column| (rows.iter().map(|row| f64::from(row[column])).sum::<f64>() / rows.len() as f64) as f32;
    (0..rows[0].len()).map(mean).collect()
}

/// Prompts in which a small model of stories finds something to say; several begin alike.
const PROMPTS: [&str; 8] = [
    "Once upon a time",
    "Once upon a time there was a little girl who had a red",
    "The old man looked at the sea and said",
    "One day, a dog found a bone. He took the bone to the",
    "What is the capital of France?",
    "It was a cold night, and the wind",
    "",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 日本",
];

/// Cases for an artifact.
pub fn cases(view: &ArtifactView<'static>, name: &str) -> Vec<Case> {
    match Output::from_number(view.spec().output) {
        Some(Output::LanguageModel) => text_cases(view, name),
        Some(Output::Classifier) => row_cases(view, name, "/v1/classify"),
        _ => row_cases(view, name, "/v1/embeddings"),
    }
}

fn text_cases(view: &ArtifactView<'static>, name: &str) -> Vec<Case> {
    let (mut cases, mut session) = (Vec::new(), session(view));
    let drawn = Sampling { temperature: 0.8, top_p: ALL / 10 * 9, ..Sampling::GREEDY };
    let path = "/v1/completions";
    for (number, text) in PROMPTS.into_iter().enumerate() {
        let prompt: Vec<u32> = view.opening_tokens().iter().chain(encode(view, text, false)).collect();
        if prompt.is_empty() {
            continue;
        }
        let prompt_tokens = prompt.len();
        let greedy = json!({"model": name, "prompt": text, "max_tokens": TOKENS, "temperature": 0, "top_p": 1, "top_k": 0,
            "repetition_penalty": 1, "drafts": number % 2 == 0});
        let expected = follow(view, &mut session, &prompt, &Sampling::GREEDY, 0, None, text.is_empty());
        if let Expected::Text { text: answer, .. } = &expected
            && let Some(stop) = answer.get(answer.len() / 2..).and_then(|rest| rest.get(..3))
        {
            let mut body = greedy.clone();
            body["stop"] = json!([stop, "never written by any model"]);
            let cut = answer.split(stop).next().unwrap_or_default().to_owned();
            let expected = Expected::Text { text: cut, tokens: 0, finish: "stop", passes: None };
            cases.push(Case { path, body, prompt_tokens, expected });
        }
        cases.push(Case { path, body: greedy.clone(), prompt_tokens, expected });
        let mut body = greedy;
        body["temperature"] = json!(0.8);
        body["top_p"] = json!(f64::from(drawn.top_p) / f64::from(ALL));
        body["seed"] = json!(number);
        let expected = follow(view, &mut session, &prompt, &drawn, number as u64, None, text.is_empty());
        cases.push(Case { path, body, prompt_tokens, expected });
        if let Some(grammar) = Grammar::of(view) {
            let expected = follow(view, &mut session, &prompt, &Sampling::GREEDY, 0, Some(grammar), text.is_empty());
            let body = json!({"prompt": text, "max_tokens": TOKENS, "temperature": 0, "repetition_penalty": 1,
                "response_format": {"type": "json_object"}});
            cases.push(Case { path, body, prompt_tokens, expected });
        }
        if let Some(frame) = view.chat_frame() {
            let parts = [frame.text(FramePart::OpenUser), text, frame.text(FramePart::UserToAssistant)];
            let prompt = encode(view, &parts.concat(), false);
            let expected = follow(view, &mut session, &prompt, &Sampling::GREEDY, 0, None, true);
            let body = json!({"model": name, "max_completion_tokens": TOKENS, "temperature": 0, "repetition_penalty": 1,
                "messages": [{"role": "user", "content": text}]});
            cases.push(Case { path: "/v1/chat/completions", body, prompt_tokens: prompt.len(), expected });
        }
    }
    cases
}

fn row_cases(view: &ArtifactView<'static>, name: &str, path: &'static str) -> Vec<Case> {
    let tokens: Vec<Vec<u32>> = PROMPTS.iter().map(|text| encode(view, text, true)).collect();
    let mut session = session(view);
    let rows: Vec<Vec<f32>> = tokens.iter().map(|tokens| row(&mut session, tokens)).collect();
    let case = |input: Value, numbers: std::ops::Range<usize>| {
        let mut body = json!({"model": name, "input": input});
        if path == "/v1/embeddings" {
            body["encoding_format"] = json!("base64");
        }
        let prompt_tokens = tokens[numbers.clone()].iter().map(Vec::len).sum();
        Case { path, body, prompt_tokens, expected: Expected::Rows(rows[numbers].to_vec()) }
    };
    let single = PROMPTS.iter().enumerate().map(|(number, text)| case(json!(text), number..number + 1));
    single.chain([case(json!(PROMPTS[..3]), 0..3)]).collect()
}

/// The labels of a classifier.
pub fn labels(view: &ArtifactView<'_>) -> Vec<String> {
    let named = view.section(SectionKind::Labels).and_then(|bytes| serde_json::from_slice(bytes).ok());
    named.unwrap_or_else(|| (0..view.spec().output_width).map(|label| format!("LABEL_{label}")).collect())
}
