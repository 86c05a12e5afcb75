//! Whole templates: found, rendered as transformers renders them, refused in words, and bounded.

mod bounds;
mod directories;

use super::*;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The folder of recorded renderings; see the README there.
pub(super) fn recorded(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/chat_templates").join(name)
}

fn recorded_json(name: &str) -> Vec<Value> {
    let text = std::fs::read(recorded(name)).expect("the recorded file");
    serde_json::from_slice(&text).expect("JSON")
}

/// A template of this text, with the special tokens of the recorded renderings.
pub(super) fn template(text: &str) -> ChatTemplate {
    let path = PathBuf::from("model/chat_template.jinja");
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>"), ("pad_token", "<pad>"), ("unk_token", "<unk>")];
    ChatTemplate {
        templates: vec![Named { path: path.clone(), name: DEFAULT.to_owned(), text: text.to_owned() }],
        path,
        tokens: tokens.map(|(name, token)| (name.to_owned(), token.to_owned())).into(),
    }
}

fn conversation(json: &Value) -> Conversation {
    let list = |key: &str| json[key].as_array().cloned();
    let messages = list("messages").unwrap_or_default();
    Conversation {
        messages: messages.iter().filter_map(Value::as_object).cloned().collect(),
        add_generation_prompt: json["add_generation_prompt"] == true,
        tools: list("tools"),
        documents: list("documents"),
        arguments: json["arguments"].as_object().cloned().unwrap_or_default(),
        template: None,
        moment: Moment::parse_date("2026-11-28"),
    }
}

fn render(text: &str) -> Result<String, ChatTemplateError> {
    template(text).render(&Conversation { moment: Moment::parse_date("2026-11-28"), ..Conversation::ask(None, "hi") })
}

#[test]
fn recorded_templates_render_as_jinja_does() {
    let conversations = recorded_json("conversations.json");
    let expected = recorded_json("expected.json");
    assert_eq!(expected.len(), 12 * 4);
    let mut wrong = Vec::new();
    for entry in &expected {
        let text = std::fs::read_to_string(recorded(entry["template"].as_str().expect("a name"))).expect("a template");
        let given = conversations.iter().find(|given| given["name"] == entry["conversation"]).expect("a conversation");
        let rendered = template(&text).render(&conversation(given));
        if rendered.as_deref().ok() != entry["text"].as_str() {
            wrong.push(format!("{} {}: {rendered:?}", entry["template"], entry["conversation"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn smollm2_renders_with_and_without_a_system_message() {
    let text = std::fs::read_to_string(recorded("smollm2.jinja")).expect("the template");
    let question = "What is the capital of France?";
    let asked = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n";
    let default =
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n";
    let mut conversation = Conversation::ask(None, question);
    let rendered = template(&text).render(&conversation).expect("a text");
    assert_eq!(rendered, format!("{default}{asked}<|im_start|>assistant\n"));
    conversation.add_generation_prompt = false;
    conversation.messages.push(message("assistant", "Paris."));
    let rendered = template(&text).render(&conversation).expect("a text");
    assert_eq!(rendered, format!("{default}{asked}<|im_start|>assistant\nParis.<|im_end|>\n"));
    let rendered = template(&text).render(&Conversation::ask(Some("Be brief."), question)).expect("a text");
    let system = "<|im_start|>system\nBe brief.<|im_end|>\n";
    assert_eq!(rendered, format!("{system}{asked}<|im_start|>assistant\n"));
}

/// Functions and filters that the recorded templates do not use; expected values from Jinja set up as there.
#[test]
fn functions_and_filters_are_those_of_transformers() {
    for (text, expected) in [
        ("{{ {'b': 1, 'a': '<é\\u0001\\u007f😀>'}|tojson }}", "{\"b\": 1, \"a\": \"<é\\u0001\u{7f}😀>\"}".to_owned()),
        ("{{ 'é\\u007f😀'|tojson(ensure_ascii=true) }}", r#""\u00e9\u007f\ud83d\ude00""#.to_owned()),
        (
            "{{ [1, {}, [], {'a': [2]}]|tojson(indent=1) }}",
            "[\n 1,\n {},\n [],\n {\n  \"a\": [\n   2\n  ]\n }\n]".to_owned(),
        ),
        ("{{ [1, [2]]|tojson(indent='-', separators=(';', '=')) }}", "[\n-1;\n-[\n--2\n-]\n]".to_owned()),
        (
            "{{ {1: 2.0, none: 1e16, false: 'x', 'a': 1e-5}|tojson }}",
            r#"{"1": 2.0, "null": 1e+16, "false": "x", "a": 1e-05}"#.to_owned(),
        ),
        (
            "{{ {'b': 1, 'a': {'d': 1, 'c': 2}}|tojson(sort_keys=true) }}",
            r#"{"a": {"c": 2, "d": 1}, "b": 1}"#.to_owned(),
        ),
        ("{{ 18446744073709551616|tojson }}", "18446744073709551616".to_owned()),
        ("{{ strftime_now('%d %B %Y, %H:%M') }}", "28 November 2026, 00:00".to_owned()),
        (
            "{{ 1e16 }} {{ 0.1 + 0.2 }} {{ 3.0 }} {{ true }} {{ none }}",
            "1e+16 0.30000000000000004 3.0 True None".to_owned(),
        ),
        (
            "{{ none is iterable }}{{ 'a' is sequence }}{{ messages[1:] is sequence }}{{ {} is sequence }}",
            "FalseTrueTrueTrue".to_owned(),
        ),
        (
            "{{ 'a.b'.removeprefix('a.') }}{{ 'a.b'.removesuffix('.b') }}{{ '{}-{:>3}'.format('x', 7) }}",
            "bax-  7".to_owned(),
        ),
        (
            "{{ tools is none }}{{ documents is none }}{{ missing is defined }}{{ cls_token is defined }}",
            "TrueTrueFalseFalse".to_owned(),
        ),
        ("{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}", "aba".to_owned()),
        ("{% set ns = namespace({'a': 1}, ) %}{% set ns.b = dict(x=ns.a) %}{{ ns.b.x }}", "1".to_owned()),
        ("a\n  {%- generation %}\nb\n  {%- endgeneration %}\nc\n", "abc".to_owned()),
        ("<b>{{ '<b>' ~ '&' }}", "<b><b>&".to_owned()),
        (
            "{{ 1e-05|string }} {{ 1e16 ~ 1e-05 ~ none ~ true ~ missing ~ -1e-05 }} {{ 1e10 * 1e6 ~ 'x' }}",
            "1e-05 1e+161e-05NoneTrue-1e-05 1e+16x".to_owned(),
        ),
        (
            "{{ [1e16, 'a\\u00a0', none, (1e-05,), (), {'a': 1.0, 2: [missing]}] }} \
             {{ {'a': 1e16} ~ '' }}{{ [1e16]|string }}",
            "[1e+16, 'a\\xa0', None, (1e-05,), (), {'a': 1.0, 2: [Undefined]}] {'a': 1e+16}[1e+16]".to_owned(),
        ),
        (
            "{{ [1e16, [1e-05], 'a', 2]|join('|') }} {{ [{'a': 1e16}, {'a': none}]|join(',', attribute='a') }} \
             {{ 'ab'|join(d='-') }}\
             {{ [1e16]|map('string')|join }}",
            "1e+16|[1e-05]|a|2 1e+16,None a-b1e+16".to_owned(),
        ),
        (
            "{{ 'tool_call'.title() }} {{ \"they're O'NEIL\".title() }} {{ 'ǆ ßa ﬁx ΟΔΟΣ'.title() }} \
             {{ 'tool_call'|title }}",
            "Tool_Call They'Re O'Neil ǅ Ssa Fix Οδος Tool_call".to_owned(),
        ),
        (
            "{{ 'A B'.istitle() }}{{ 'AB'.istitle() }}{{ ''.istitle() }}{{ 'aB'.istitle() }}{{ '1 ǅa'.istitle() }}",
            "TrueFalseFalseFalseTrue".to_owned(),
        ),
        (
            "{{ 'a\\r\\nb\\rc\\u2028d\\x0be\\n'.splitlines() }} {{ 'a\\r\\nb\\n\\n'.splitlines(true) }} \
             {{ 'a\\n'.splitlines(keepends=true) }}",
            "['a', 'b', 'c', 'd', 'e'] ['a\\r\\n', 'b\\n', '\\n'] ['a\\n']".to_owned(),
        ),
        (
            "{{ ' a  b\\x1fc '.split() }} {{ ' a  b  c '.split(none, 1) }} {{ 'a,b,c'.split(',', maxsplit=1) }} \
             {{ ','.split(sep=',') }}\
             {{ 'a b'.split(maxsplit=0) }}{{ ' '.split() }}",
            "['a', 'b', 'c'] ['a', 'b  c '] ['a', 'b,c'] ['', '']['a b'][]".to_owned(),
        ),
        (
            "{{ '\\x1f a\\u00a0'.strip() }}|{{ 'xyaxy'.lstrip('yx') }}|{{ 'xyaxy'.rstrip('yx') }}|\
             {{ 'a '.strip('') }}|{{ '\\x1c'.isspace() }}",
            "a|axy|xya|a |True".to_owned(),
        ),
        ("{{ '7'.zfill(3) }}{{ '-7'.zfill(4) }}{{ 'abcd'.zfill(2) }}{{ '+'.zfill(2) }}", "007-007abcd+0".to_owned()),
    ] {
        assert_eq!(render(text).expect(text), expected, "{text}");
    }
}

#[test]
fn errors_name_place_cause_and_remedy() {
    let raised = "the template refuses this conversation: no \u{1b}[31mroles";
    for (text, parts) in [
        ("a\n{{ raise_exception('no \\x1b[31mroles') }}", vec![", line 2: ", &raised.replace('\u{1b}', " ")]),
        (
            "{% macro m() %}\n{{ raise_exception('inner') }}{% endmacro %}{{ m() }}",
            vec![", line 2: ", "conversation: inner;"],
        ),
        ("\n\n{{ messages[0].role ~ nothing.here }}", vec![", line 3: `nothing` is undefined; give it as an argument"]),
        ("{{ lipsum() }}", vec![", line 1: function lipsum is unknown; slmc has those that transformers gives"]),
        ("{{ 'a'|urlize }}", vec![", line 1: filter urlize is unknown"]),
        ("{{ 'a' is strange }}", vec!["test strange is unknown"]),
        ("{{ 'a'.translate() }}", vec!["string has no method named translate"]),
        ("\n{% if %}", vec![", line 2: ", "fix the template"]),
        ("{% include 'other' %}", vec!["unknown statement include"]),
        ("{{ strftime_now('%Q') }}", vec!["strftime_now does not know `%Q` of `%Q`"]),
        ("{{ 'a' + 1 }}", vec!["unsupported types string and number; check that the conversation"]),
        ("{{ 'a'.split('') }}", vec!["`split` at an empty separator"]),
        ("{{ missing|tojson }}", vec!["tojson of an undefined value"]),
        ("{% for x in [1] %}\n{% with %}{% break %}{% endwith %}{% endfor %}", vec![", line 2: `break` inside `with`"]),
    ] {
        let error = render(text).expect_err(text).to_string();
        assert!(error.starts_with("model/chat_template.jinja: chat template `default`"), "{error}");
        for part in parts {
            assert!(error.contains(part), "{text}: {error}");
        }
    }
    let long = render("{{ raise_exception('x' * 100000) }}").expect_err("it is raised").to_string();
    assert!(long.len() < 2000, "{}", long.len());
    let mut conversation = Conversation::ask(None, "hi");
    conversation.arguments.insert("messages".to_owned(), Value::Null);
    let error = template("").render(&conversation).expect_err("it is reserved").to_string();
    assert!(error.contains("`messages` would hide"), "{error}");
}

#[test]
fn sections_carry_templates_and_tokens() {
    let mut original = template("{{ bos_token }}{{ messages[0].content }}");
    original.templates.push(Named { name: "rag".to_owned(), text: "rag".to_owned(), path: original.path.clone() });
    let bytes = original.to_section();
    let text = String::from_utf8(bytes.clone()).expect("text");
    assert!(
        text.starts_with(r#"{"schema":"slmc.chat_template/1","templates":[{"name":"default","template":"{{ bos"#),
        "{text}"
    );
    assert!(text.ends_with(
        r#""tokens":[["bos_token","<s>"],["eos_token","</s>"],["pad_token","<pad>"],["unk_token","<unk>"]]}"#
    ));
    let carried = ChatTemplate::from_section(Path::new("model.slm"), &bytes).expect("a section");
    assert_eq!(carried.to_section(), bytes);
    assert_eq!(carried.names().collect::<Vec<_>>(), ["default", "rag"]);
    assert_eq!(carried.token("eos_token"), Some("</s>"));
    assert_eq!(carried.render(&Conversation::ask(None, "hi")).expect("a text"), "<s>hi");

    let other = text.replace("template/1", "template/2");
    let error = ChatTemplate::from_section(Path::new("model.slm"), other.as_bytes()).expect_err("a later version");
    assert!(matches!(&error, ChatTemplateError::Schema { found, .. } if found == "slmc.chat_template/2"), "{error}");
    let huge = text.replace("rag\"}", &format!("{}\"}}", "x".repeat(MAX_TEMPLATE_BYTES + 1)));
    for damaged in [
        &text[..text.len() - 1],
        "",
        "[]",
        r#"{"schema":"slmc.chat_template/1"}"#,
        &huge,
        r#"{"schema":"slmc.chat_template/1","templates":[],"tokens":[]}"#,
        &text.replace("\"tokens\"", "\"more\":1,\"tokens\""),
    ] {
        let error = ChatTemplate::from_section(Path::new("model.slm"), damaged.as_bytes()).expect_err("damage");
        assert!(error.to_string().starts_with("model.slm: "), "{error}");
    }
}

#[test]
fn a_template_is_chosen_by_name_tools_and_default() {
    let named = |names: &[&str]| {
        let mut chosen = template("");
        let templates = names.iter().map(|name| Named {
            path: chosen.path.clone(),
            name: (*name).to_owned(),
            text: (*name).to_owned(),
        });
        chosen.templates = templates.collect();
        chosen
    };
    let ask = |name: Option<&str>, tools: bool| Conversation {
        template: name.map(str::to_owned),
        tools: tools.then(|| vec![json!({"type": "function"})]),
        ..Conversation::ask(None, "hi")
    };
    let all = ["default", "rag", "tool_use"];
    for (names, name, tools, expected) in [
        (&all[..], None, false, "default"),
        (&all[..], None, true, "tool_use"),
        (&all[..], Some("rag"), true, "rag"),
        (&all[..2], None, true, "default"),
        (&all[1..2], Some("rag"), false, "rag"),
    ] {
        assert_eq!(named(names).render(&ask(name, tools)).expect("a text"), expected);
    }
    for (names, listed) in [(&all[1..], "rag, tool_use"), (&all[1..2], "rag")] {
        let error = named(names).render(&ask(None, false)).expect_err("no default").to_string();
        assert!(error.contains(&format!("({listed}) and none of them is called `default`")), "{error}");
    }
    let error = named(&all).render(&ask(Some("chat"), false)).expect_err("unknown").to_string();
    assert!(error.contains("no chat template `chat`; there are: default, rag, tool_use"), "{error}");
    assert!(named(&all).check(Some("rag")).is_ok());
    assert!(matches!(template("{% if %}").check(None), Err(ChatTemplateError::Syntax { .. })));
}
