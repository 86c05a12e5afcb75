//! Which tokens open and end a text, and what is said of files that do not fit.

use super::*;
use crate::model::described::spec_of;
use crate::model::spec::ModelSpec;

fn template(single: Value) -> Value {
    json!({"type": "TemplateProcessing", "single": single, "pair": [],
           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
                              "<t>": {"id": "<t>", "ids": [3, 4], "tokens": ["<t>", "<u>"]}}})
}

fn special(name: &str) -> Value {
    json!({"SpecialToken": {"id": name, "type_id": 0}})
}

fn text() -> Value {
    json!({"Sequence": {"id": "A", "type_id": 0}})
}

/// The configuration of a llama of ten tokens, and these files that come with it.
fn model(config: Value, files: &[(&str, Value)]) -> (Config, Companions) {
    let mut whole = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 10, "hidden_size": 8,
        "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 8,
        "rms_norm_eps": 1e-5, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
    });
    whole.as_object_mut().expect("an object").extend(config.as_object().expect("an object").clone());
    let config = Config::parse(Path::new("m/config.json"), whole.to_string().as_bytes()).expect("an object");
    let mut companions = Companions::of(Path::new("m"));
    files.iter().for_each(|(name, content)| companions.add_bytes(name, content.to_string().into_bytes()));
    (config, companions)
}

fn spec((config, companions): &(Config, Companions)) -> Result<ModelSpec, ConfigError> {
    spec_of(companions, config)
}

fn tokenizer(processor: Value) -> Value {
    json!({"post_processor": processor, "added_tokens": [{"id": 1, "content": "<s>"}, {"id": 2, "content": "</s>"}],
           "model": {"type": "BPE", "vocab": {"<t>": 3, "<u>": 4, "a": 5, "<v>": 6}}})
}

#[test]
fn a_text_opens_as_the_tokenizer_says_and_not_as_the_configuration_does() {
    let byte_level = json!({"type": "ByteLevel", "trim_offsets": true});
    let adds = json!({"add_bos_token": true, "bos_token": "<s>"});
    let object = json!({"add_bos_token": true, "bos_token": {"content": "<v>", "lstrip": false}});
    let sequence = |parts: Value| json!({"type": "Sequence", "processors": parts});
    let cases: [(&str, Value, Option<Value>, &[u32]); 11] = [
        ("no post-processor", Value::Null, None, &[]),
        ("one that adds nothing", byte_level.clone(), None, &[]),
        ("a template of the text alone", template(json!([text()])), None, &[]),
        ("a template", template(json!([special("<s>"), text()])), None, &[1]),
        (
            "two opening tokens and a closing one",
            template(json!([special("<t>"), text(), special("<s>")])),
            None,
            &[3, 4],
        ),
        ("in a sequence", sequence(json!([byte_level, template(json!([special("<s>"), text()]))])), None, &[1]),
        ("roberta", json!({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]}), None, &[1]),
        ("add_bos_token", byte_level, Some(adds.clone()), &[1]),
        ("add_bos_token with a token of the vocabulary", Value::Null, Some(object), &[6]),
        ("the template comes first", template(json!([special("<t>"), text()])), Some(adds), &[3, 4]),
        ("bos_token alone", Value::Null, Some(json!({"add_bos_token": false, "bos_token": "<s>"})), &[]),
    ];
    for (name, processor, config, expected) in cases {
        let mut files = vec![(TOKENIZER_FILE, tokenizer(processor))];
        files.extend(config.map(|config| (TOKENIZER_CONFIG_FILE, config)));
        let model = model(json!({}), &files);
        assert_eq!(spec(&model).expect(name).opening, expected, "{name}");
        let bytes = tokenizer_json(&model.1).expect(name).expect("there is one");
        let written: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(around_text(&written["post_processor"]).expect(name).0, expected, "{name}: as written");
    }
    let without = spec(&model(json!({}), &[])).expect("no tokenizer is needed");
    assert_eq!((without.opening, without.ends), (vec![], vec![2]));
}

#[test]
fn end_tokens_are_the_generation_configurations_first() {
    let cases: [(Option<Value>, Value, &[u32]); 9] = [
        // Ids that the model has no row for are never written.
        (Some(json!({"eos_token_id": [10, 3]})), json!({}), &[3]),
        (Some(json!({"eos_token_id": [32000]})), json!({}), &[2]),
        (None, json!({"eos_token_id": [-1, 2]}), &[2]),
        (None, json!({"eos_token_id": [2, 3, 2]}), &[2, 3]),
        (Some(json!({"eos_token_id": [7, 2]})), json!({}), &[7, 2]),
        (Some(json!({"eos_token_id": 4})), json!({}), &[4]),
        (Some(json!({"eos_token_id": null, "do_sample": true})), json!({}), &[2]),
        (Some(json!({})), json!({"eos_token_id": null}), &[]),
        (Some(json!({"eos_token_id": []})), json!({}), &[2]),
    ];
    for (generation, config, expected) in cases {
        let files: Vec<_> = generation.into_iter().map(|content| (GENERATION_CONFIG_FILE, content)).collect();
        assert_eq!(spec(&model(config, &files)).expect("sound").ends, expected, "{files:?}");
    }
}

#[test]
fn an_absent_end_token_is_that_of_the_class() {
    let (config, companions) = model(json!({}), &[]);
    let mut map = config.map().clone();
    map.remove("eos_token_id");
    let absent = Config::from_map(config.file(), map);
    assert_eq!(spec_of(&companions, &absent).expect("sound").ends, [2]);
}

#[test]
fn tokens_outside_the_vocabulary_are_said() {
    let beyond = json!({"added_tokens": [{"id": 1, "content": "<s>"}, {"id": 10, "content": "<image>"}],
                        "model": {"type": "BPE", "vocab": {"a": 5}}});
    let files =
        [(TOKENIZER_FILE, beyond), (GENERATION_CONFIG_FILE, json!({"eos_token_id": [2, 11], "pad_token_id": null}))];
    let (config, companions) = model(json!({"bos_token_id": 10, "pad_token_id": -1}), &files);
    let said: Vec<String> = notes(&companions, &config, 10).expect("sound").iter().map(ToString::to_string).collect();
    let expected = [
        "m/config.json: `bos_token_id` is 10, outside the vocabulary of 10; it is left out",
        "m/config.json: `pad_token_id` is -1, outside the vocabulary of 10; it is left out",
        "m/generation_config.json: `eos_token_id` has 11, outside the vocabulary of 10; it is left out",
        "m/tokenizer.json: token 10 `<image>` has no row in the model's table of 10; it is left out, and a text that \
         needs it is refused",
    ];
    assert_eq!(said, expected);
}

#[test]
fn what_cannot_be_is_refused_with_file_key_and_remedy() {
    let unknown = template(json!([special("<nowhere>"), text()]));
    let outside = json!({"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 10]});
    let two = json!({"type": "Sequence", "processors": [
        template(json!([special("<s>"), text()])), template(json!([special("<t>"), text()]))]});
    let adds = |token: Value| (TOKENIZER_CONFIG_FILE, json!({"add_bos_token": true, "bos_token": token}));
    let plain = || (TOKENIZER_FILE, tokenizer(Value::Null));
    let moved = json!({"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 4]});
    let absent = json!({"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<none>", 4]});
    let many: Vec<u32> = (0..10).cycle().take(70).collect();
    let cases: [(&str, Vec<(&str, Value)>); 12] = [
        ("adding `<s>` as token 4, expected 1, the id", vec![(TOKENIZER_FILE, tokenizer(moved))]),
        (
            "adding `<none>` as token 4, expected a token that the tokenizer has",
            vec![(TOKENIZER_FILE, tokenizer(absent))],
        ),
        (
            "generation_config.json: `eos_token_id` is 2.5",
            vec![(GENERATION_CONFIG_FILE, json!({"eos_token_id": 2.5, "many": many}))],
        ),
        ("tokenizer.json: `post_processor` is {", vec![(TOKENIZER_FILE, tokenizer(unknown))]),
        ("tokenizer.json: `post_processor` is {", vec![(TOKENIZER_FILE, tokenizer(two))]),
        (
            "`post_processor` is opening with token 10, expected an id below the model's vocabulary of 10",
            vec![(TOKENIZER_FILE, tokenizer(outside))],
        ),
        ("tokenizer.json: not valid JSON", vec![(TOKENIZER_FILE, json!("a text"))]),
        (
            "generation_config.json: `eos_token_id` is [2,\"</s>\"]",
            vec![(GENERATION_CONFIG_FILE, json!({"eos_token_id": [2, "</s>"]}))],
        ),
        ("tokenizer_config.json: `bos_token` is null", vec![plain(), adds(Value::Null)]),
        ("tokenizer_config.json: `bos_token` is `<x>`, expected a token that", vec![plain(), adds(json!("<x>"))]),
        ("`add_bos_token` is \"yes\"", vec![plain(), (TOKENIZER_CONFIG_FILE, json!({"add_bos_token": "yes"}))]),
        ("generation_config.json: `(whole file)` is 3", vec![(GENERATION_CONFIG_FILE, json!(3))]),
    ];
    for (expected, files) in cases {
        let error = spec(&model(json!({}), &files)).expect_err(expected).to_string();
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    }
}

#[test]
fn the_older_file_names_the_opening_token_where_the_newer_does_not() {
    let opening = |config: Value, map: Value| {
        let files =
            [(TOKENIZER_FILE, tokenizer(Value::Null)), (TOKENIZER_CONFIG_FILE, config), (SPECIAL_TOKENS_FILE, map)];
        spec(&model(json!({}), &files)).map(|spec| spec.opening)
    };
    let adds = json!({"add_bos_token": true});
    assert_eq!(opening(adds.clone(), json!({"bos_token": "<s>"})).expect("sound"), [1]);
    assert_eq!(opening(adds.clone(), json!({"bos_token": {"content": "<v>"}})).expect("sound"), [6]);
    let both = json!({"add_bos_token": true, "bos_token": "<s>"});
    assert_eq!(opening(both, json!({"bos_token": "<v>"})).expect("sound"), [1]);
    // A key that is null has no value, whatever the older file says.
    for (config, map) in
        [(adds, json!({})), (json!({"add_bos_token": true, "bos_token": null}), json!({"bos_token": "<s>"}))]
    {
        let error = opening(config, map).expect_err("there is none").to_string();
        assert!(error.contains("tokenizer_config.json: `bos_token` is "), "{error}");
    }
}
