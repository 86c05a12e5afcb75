//! Where templates and special tokens are found.

use super::*;
use crate::text::testing::companions;

struct Model(tempfile::TempDir);

impl Model {
    fn new(files: &[(&str, &str)]) -> Self {
        let model = Model(tempfile::tempdir().expect("a directory"));
        for (name, text) in files {
            let path = model.0.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        model
    }

    fn open(&self) -> Result<Option<ChatTemplate>, ChatTemplateError> {
        ChatTemplate::of(&companions(self.0.path()))
    }

    fn templates(&self) -> Vec<(String, String)> {
        let template = self.open().expect("it opens").expect("it has templates");
        template.templates.into_iter().map(|named| (named.name, named.text)).collect()
    }

    fn error(&self) -> String {
        self.open().expect_err("it is refused").to_string()
    }
}

#[test]
fn files_come_before_the_configuration() {
    let config = ("tokenizer_config.json", r#"{"chat_template": "config"}"#);
    let legacy = ("chat_template.json", r#"{"chat_template": "legacy"}"#);
    let file = ("chat_template.jinja", "file\n");
    let tools = ("additional_chat_templates/tool_use.jinja", "tools");
    let rag = ("additional_chat_templates/rag.jinja", "rag");
    let other = ("additional_chat_templates/README.md", "no template");
    for (files, expected) in [
        (vec![config, legacy], vec![("default", "config")]),
        (vec![legacy], vec![("default", "legacy")]),
        (vec![config, legacy, file], vec![("default", "file\n")]),
        (vec![config, tools, file, rag, other], vec![("default", "file\n"), ("rag", "rag"), ("tool_use", "tools")]),
        (vec![config, tools], vec![("tool_use", "tools")]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        assert_eq!(Model::new(&files).templates(), expected);
    }
    assert!(Model::new(&[("tokenizer_config.json", r#"{"chat_template": null}"#)]).open().expect("it opens").is_none());
    assert!(Model::new(&[]).open().expect("it opens").is_none());
}

#[test]
fn marks_and_line_ends_of_other_platforms_are_not_part_of_a_template() {
    let file = "\u{feff}{% for m in messages %}\r\n{{ m.content }}\r{% endfor %}\r\n";
    let config = serde_json::json!({ "chat_template": file }).to_string();
    for (name, text) in [("chat_template.jinja", file), ("tokenizer_config.json", config.as_str())] {
        let template = Model::new(&[(name, text)]).open().expect("it opens").expect("a template");
        // As Jinja reads it: every line end is a line feed, and the last one is dropped.
        assert_eq!(template.render(&Conversation::ask(None, "a\r\nb")).expect("it renders"), "a\r\nb\n");
        let kept = ChatTemplate::from_section(Path::new("a.slm"), &template.to_section()).expect("it opens");
        assert_eq!(kept.templates[0].text, "{% for m in messages %}\n{{ m.content }}\n{% endfor %}\n");
    }
}

#[test]
fn a_pointer_is_not_a_template() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 5\n";
    let error = Model::new(&[("chat_template.jinja", pointer)]).error();
    assert!(error.contains("chat_template.jinja: a Git LFS pointer, not the file of 5 bytes"), "{error}");
}

#[test]
fn lists_have_names() {
    let list = r#"{"chat_template": [{"name": "default", "template": "a"}, {"name": "rag", "template": "b"},
        {"name": "default", "template": "c"}]}"#;
    let model = Model::new(&[("tokenizer_config.json", list)]);
    assert_eq!(model.templates(), [("rag".to_owned(), "b".to_owned()), ("default".to_owned(), "c".to_owned())]);
    for wrong in ["1", "[1]", r#"[{"name": "a"}]"#, r#"{"a": 1}"#] {
        let error = Model::new(&[("tokenizer_config.json", &format!(r#"{{"chat_template": {wrong}}}"#))]).error();
        assert!(error.contains("tokenizer_config.json: `chat_template` is not a text or a list"), "{error}");
    }
    let error = Model::new(&[("tokenizer_config.json", "{")]).error();
    assert!(error.contains("not valid JSON"), "{error}");
}

#[test]
fn tokens_come_from_both_files() {
    let config = r#"{"chat_template": "", "eos_token": {"content": "</s>", "special": true}, "pad_token": null,
        "image_token": "<image>", "extra_special_tokens": {"audio_token": {"content": "<audio>"}},
        "add_bos_token": true, "bos_token": "<s>", "a_token": 1}"#;
    let map = r#"{"bos_token": "<other>", "unk_token": {"content": "<unk>"}, "pad_token": "<pad>"}"#;
    let model = Model::new(&[("tokenizer_config.json", config), ("special_tokens_map.json", map)]);
    let template = model.open().expect("it opens").expect("a template");
    let tokens: Vec<_> = template.tokens.iter().map(|(name, token)| (name.as_str(), token.as_str())).collect();
    let expected = [
        ("bos_token", "<s>"),
        ("eos_token", "</s>"),
        ("unk_token", "<unk>"),
        ("image_token", "<image>"),
        ("audio_token", "<audio>"),
    ];
    assert_eq!(tokens, expected);
    assert_eq!(template.token("pad_token"), None);
}

#[test]
fn files_that_are_no_templates_are_refused() {
    let long = "x".repeat(MAX_TEMPLATE_BYTES + 1);
    let error = Model::new(&[("chat_template.jinja", &long)]).error();
    assert!(error.contains("a chat template of 262145 bytes; at most 262144 are read"), "{error}");
    let error = Model::new(&[("tokenizer_config.json", &json!({"chat_template": long}).to_string())]).error();
    assert!(error.contains("at most 262144"), "{error}");
    let error = Model::new(&[("chat_template.jinja/inner", "")]).error();
    assert!(error.contains("check that it is a file and readable"), "{error}");
    let model = Model::new(&[]);
    std::fs::write(model.0.path().join("chat_template.jinja"), b"\xff").expect("a file");
    assert!(model.error().contains("not UTF-8"));
    let names: Vec<String> =
        (0..=MAX_TEMPLATES).map(|index| format!("additional_chat_templates/{index}.jinja")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    assert!(Model::new(&files).error().contains("more than 64 chat templates"));
}

#[cfg(unix)]
#[test]
fn links_are_followed_as_in_a_cache_of_downloads() {
    let model = Model::new(&[("blobs/1", "linked")]);
    std::os::unix::fs::symlink("blobs/1", model.0.path().join("chat_template.jinja")).expect("a link");
    assert_eq!(model.templates(), [("default".to_owned(), "linked".to_owned())]);
    std::os::unix::fs::symlink("/dev/zero", model.0.path().join("additional_chat_templates.jinja")).expect("a link");
    std::fs::create_dir(model.0.path().join("additional_chat_templates")).expect("a folder");
    std::os::unix::fs::symlink("/dev/zero", model.0.path().join("additional_chat_templates/x.jinja")).expect("a link");
    assert!(model.error().contains("check that it is a file"));
}
