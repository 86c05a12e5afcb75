//! The files of sentence-transformers: layouts of old and new versions, contradictions, what is refused by name, and any
//! bytes in their place.

use super::*;
use crate::model::companions::{PROMPTS_FILE, TOKENIZER_CONFIG_FILE};
use proptest::prelude::*;
use serde_json::json;

fn companions(files: &[(&str, Value)]) -> Companions {
    let mut companions = Companions::of(Path::new("m"));
    files.iter().for_each(|(name, content)| companions.add_bytes(name, content.to_string().into_bytes()));
    companions
}

fn listing(classes: &[&str]) -> Value {
    let module = |(index, class): (usize, &&str)| {
        let path = if index == 0 { String::new() } else { format!("{index}_{class}") };
        json!({"idx": index, "name": index.to_string(), "path": path, "type": format!("sentence_transformers.models.{class}")})
    };
    Value::Array(classes.iter().enumerate().map(module).collect())
}

fn with_pooling(config: Value) -> Result<Sentence, ConfigError> {
    read(&companions(&[(MODULES_FILE, listing(&["Transformer", "Pooling"])), (POOLING_FILE, config)]), 8)
}

/// The five flags of version 2 to 5, one of them true.
fn flags(set: &[&str]) -> Value {
    let all = POOLINGS.iter().map(|(_, flag, _)| ((*flag).to_owned(), json!(set.contains(flag))));
    Value::Object(all.chain([("word_embedding_dimension".to_owned(), json!(8))]).collect())
}

#[test]
fn poolings_of_old_and_new_files_are_read() {
    for (config, pooling) in [
        (flags(&["pooling_mode_cls_token"]), Pooling::First),
        (flags(&["pooling_mode_mean_tokens"]), Pooling::Mean),
        (flags(&["pooling_mode_max_tokens"]), Pooling::Maximum),
        (flags(&["pooling_mode_lasttoken"]), Pooling::Last),
        // Without a flag the mean is taken; a flag that is absent is not set.
        (flags(&[]), Pooling::Mean),
        (json!({}), Pooling::Mean),
        (json!({"pooling_mode_cls_token": true}), Pooling::First),
        (json!({"pooling_mode": "cls", "embedding_dimension": 8, "include_prompt": true}), Pooling::First),
        (json!({"pooling_mode": ["max"]}), Pooling::Maximum),
        (
            json!({"pooling_mode": "lasttoken", "pooling_mode_lasttoken": true, "pooling_mode_cls_token": false}),
            Pooling::Last,
        ),
    ] {
        let sentence = with_pooling(config.clone()).unwrap_or_else(|error| panic!("{config}: {error}"));
        assert_eq!(sentence.embedding, Some(Embedding { pooling, normalize: false }), "{config}");
        assert!(sentence.notes.is_empty() && sentence.longest_text.is_none(), "{config}");
    }
    for class in ["models", "base.modules", "sentence_transformer.modules"] {
        let listing = listing(&["Transformer", "Pooling", "Normalize"]).to_string().replace("models", class);
        let listing: Value = serde_json::from_str(&listing).expect("JSON");
        let files = [(MODULES_FILE, listing), (POOLING_FILE, json!({"pooling_mode": "mean"}))];
        let embedding = read(&companions(&files), 8).expect("sound").embedding;
        assert_eq!(embedding, Some(Embedding { pooling: Pooling::Mean, normalize: true }), "{class}");
    }
    assert_eq!(read(&Companions::of(Path::new("m")), 8).expect("no files").embedding, None);
}

#[test]
fn poolings_that_contradict_or_are_not_done_are_refused_by_file_and_key() {
    let together = "`pooling_mode_cls_token`, `pooling_mode_mean_tokens` is set together, expected one of cls, max";
    for (config, expected) in [
        (flags(&["pooling_mode_cls_token", "pooling_mode_mean_tokens"]), together),
        (json!({"pooling_mode": ["cls", "mean"]}), "`pooling_mode` is set together, expected one of"),
        (
            json!({"pooling_mode": "mean", "pooling_mode_cls_token": true}),
            "`pooling_mode`, `pooling_mode_cls_token` is `mean`, and true, expected the same pooling in both",
        ),
        (
            flags(&["pooling_mode_mean_sqrt_len_tokens"]),
            "`pooling_mode_mean_sqrt_len_tokens` is `true`; slmc supports cls, max, mean, lasttoken",
        ),
        (flags(&["pooling_mode_weightedmean_tokens"]), "`pooling_mode_weightedmean_tokens` is `true`; slmc supports"),
        (json!({"pooling_mode": "weightedmean"}), "`pooling_mode` is `weightedmean`; slmc supports"),
        (json!({"pooling_mode": "median"}), "`pooling_mode` is `median`; slmc supports"),
        (json!({"pooling_mode": []}), "`pooling_mode` is [], expected one of"),
        (json!({"pooling_mode": 3}), "`pooling_mode` is 3, expected one of"),
        (json!({"pooling_mode_of_tomorrow": true}), "`pooling_mode_of_tomorrow` is `true`; slmc supports"),
        (json!({"pooling_mode_cls_token": "yes"}), "`pooling_mode_cls_token` is \"yes\", expected true or false"),
        (json!({"word_embedding_dimension": 16}), "`word_embedding_dimension` is 16, expected 8, the width"),
        (json!({"embedding_dimension": 0}), "`embedding_dimension` is 0"),
        (json!({"include_prompt": "no"}), "`include_prompt` is \"no\""),
        (json!([]), "`(whole file)` is []"),
    ] {
        let error = with_pooling(config).expect_err(expected).to_string();
        assert!(
            error.starts_with("m/1_Pooling/config.json: ") && error.contains(expected),
            "expected {expected}: {error}"
        );
    }
}

#[test]
fn modules_that_slmc_does_not_do_are_refused_by_name() {
    let pooling = (POOLING_FILE, json!({"pooling_mode": "mean"}));
    for (listing, expected) in [
        (
            listing(&["Transformer", "Pooling", "Dense", "Normalize"]),
            "`[2].type` is `Dense`; slmc supports Transformer, Pooling",
        ),
        (listing(&["Transformer", "Normalize", "Pooling"]), "`[1].type` is `Normalize`"),
        (listing(&["Transformer", "Pooling", "Pooling"]), "`[2].type` is `Pooling`"),
        (listing(&["WordEmbeddings", "Pooling"]), "`[0].type` is `WordEmbeddings`"),
        (listing(&["CLIPModel"]), "`[0].type` is `CLIPModel`"),
        (listing(&["Transformer"]), "is a list of 1 without Pooling"),
        (
            json!([{"idx": 0, "type": "custom_st.Transformer", "path": ""}]),
            "`[0].type` is `custom_st.Transformer`; slmc",
        ),
        (json!([{"idx": 0, "path": ""}]), "`[0].type` is absent, expected the name of a class"),
        (json!([{"type": 3}]), "`[0].type` is 3"),
        (json!([{"type": "sentence_transformers.models.Transformer", "path": 1}]), "`[0].path` is 1"),
        (json!([]), "`(whole file)` is [], expected a list of modules"),
        (json!({"a": 1}), "`(whole file)` is {\"a\":1}"),
        (json!(["Transformer"]), "`[0].type` is absent"),
    ] {
        let error = read(&companions(&[(MODULES_FILE, listing), pooling.clone()]), 8).expect_err(expected).to_string();
        assert!(error.starts_with("m/modules.json: ") && error.contains(expected), "expected {expected}: {error}");
    }
    let alone = companions(&[(MODULES_FILE, listing(&["Transformer", "Pooling"]))]);
    let error = read(&alone, 8).expect_err("the folder is not there").to_string();
    assert!(error.contains("`[1].path` is `1_Pooling`, expected a folder"), "{error}");
    let other = ("2_Normalize/config.json", json!({"module_input_name": "token_embeddings"}));
    let files = [(MODULES_FILE, listing(&["Transformer", "Pooling", "Normalize"])), pooling, other];
    let error = read(&companions(&files), 8).expect_err("another vector").to_string();
    assert!(error.contains("2_Normalize/config.json: `module_input_name` is `token_embeddings`"), "{error}");
    let error = refuse_decoder(&companions(&files), "qwen3").expect_err("a decoder").to_string();
    assert!(error.contains("modules.json: `[1].type` is `Pooling`; qwen3 supports next-token logits only"), "{error}");
}

#[test]
fn folders_are_those_of_the_directory_wherever_the_file_says_they_were() {
    for path in
        ["1_Pooling", "./1_Pooling/", "/home/someone/model/1_Pooling", "../1_Pooling", "C:\\models\\m\\1_Pooling"]
    {
        let mut listing = listing(&["Transformer", "Pooling"]);
        listing[1]["path"] = json!(path);
        let files = [(MODULES_FILE, listing), (POOLING_FILE, json!({"pooling_mode": "cls"}))];
        let sentence = read(&companions(&files), 8).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(sentence.embedding.map(|embedding| embedding.pooling), Some(Pooling::First), "{path}");
        let moved = path.starts_with(['/', 'C']) || path.starts_with("..");
        let said: Vec<String> = sentence.notes.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), usize::from(moved), "{path}: {said:?}");
        assert!(!moved || said[0].contains("the folder `1_Pooling` of the model's directory was read"), "{said:?}");
    }
}

#[test]
fn the_longest_text_and_prompts_are_those_of_their_files() {
    let longest =
        |files: &[(&str, Value)]| read(&companions(files), 8).map(|read| read.longest_text.map(NonZeroUsize::get));
    let modules = [(MODULES_FILE, listing(&["Transformer", "Pooling"])), (POOLING_FILE, json!({}))];
    let with = |file: (&'static str, Value)| [&modules[..], &[file]].concat();
    let tokenizer = (TOKENIZER_CONFIG_FILE, json!({"model_max_length": 512}));
    assert_eq!(longest(&modules).expect("sound"), None);
    assert_eq!(longest(&with((SENTENCE_FILES[0], json!({"max_seq_length": 128})))).expect("sound"), Some(128));
    assert_eq!(longest(&with((SENTENCE_FILES[1], json!({"max_seq_length": 64})))).expect("sound"), Some(64));
    assert_eq!(longest(&with((SENTENCE_FILES[0], json!({"max_seq_length": null})))).expect("sound"), None);
    assert_eq!(longest(&with(tokenizer.clone())).expect("sound"), Some(512));
    assert_eq!(longest(&[tokenizer]).expect("sound"), None, "it does not bound texts of a model without modules");
    let huge = json!({"model_max_length": 1e30});
    assert_eq!(longest(&with((TOKENIZER_CONFIG_FILE, huge))).expect("sound"), None);
    for (content, expected) in [
        (json!({"max_seq_length": 0}), "`max_seq_length` is 0"),
        (json!({"max_seq_length": "long"}), "`max_seq_length` is \"long\""),
        (
            json!({"transformer_task": "fill-mask"}),
            "`transformer_task` is `fill-mask`; slmc supports feature-extraction",
        ),
        (
            json!({"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}}),
            "`modality_config.text.method_output_name` is `pooler_output`",
        ),
    ] {
        let error = longest(&with((SENTENCE_FILES[0], content))).expect_err(expected).to_string();
        assert!(error.contains("m/sentence_bert_config.json: ") && error.contains(expected), "{error}");
    }
    let lowers = |content| lower_cases(&companions(&[(SENTENCE_FILES[2], content)])).expect("sound");
    assert!(lowers(json!({"do_lower_case": true})) && !lowers(json!({})));

    let notes = |content: Value| read(&companions(&with((PROMPTS_FILE, content))), 8).map(|read| read.notes);
    let prompts = json!({"query": "query: ", "document": ""});
    for (default, said) in [(json!("query"), 1), (json!("document"), 0), (Value::Null, 0)] {
        let found = notes(json!({"prompts": prompts, "default_prompt_name": default})).expect("sound");
        assert_eq!(found.len(), said, "{default}");
        assert!(
            found
                .iter()
                .all(|note| note.is_warning() && note.to_string().contains("`query`, \"query: \"; slmc adds none"))
        );
    }
    let error = notes(json!({"prompts": prompts, "default_prompt_name": "other"})).expect_err("no such prompt");
    assert!(error.to_string().contains("`default_prompt_name` is \"other\""), "{error}");
    let excluded = with_pooling(json!({"include_prompt": false})).expect("sound").notes;
    assert!(excluded.iter().any(|note| note.is_warning() && note.to_string().contains("`include_prompt` is false")));
}

/// A JSON value of any shape over the keys and words that the reader looks for.
fn any_value() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "cls",
        "mean",
        "Transformer",
        "sentence_transformers.models.Pooling",
        "sentence_transformers.models.Transformer",
        "1_Pooling",
        "..",
        "/",
        "",
        "sentence_transformers.",
        "\u{0}",
        "é/",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(json!(8)),
        word.prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "type",
        "path",
        "idx",
        "pooling_mode",
        "pooling_mode_cls_token",
        "pooling_mode_mean_tokens",
        "include_prompt",
        "word_embedding_dimension",
        "max_seq_length",
        "do_lower_case",
        "prompts",
        "default_prompt_name",
        "modality_config",
    ]);
    leaf.prop_recursive(3, 24, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((key.clone(), inner), 0..6).prop_map(|pairs| Value::Object(
                pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            )),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_file_makes_the_reader_panic(listed in any_value(), pooling in any_value(), settings in any_value(), sound: bool) {
        let listed = if sound { listing(&["Transformer", "Pooling", "Normalize"]) } else { listed };
        let files = [
            (MODULES_FILE, listed), (POOLING_FILE, pooling), (SENTENCE_FILES[0], settings.clone()), (PROMPTS_FILE, settings),
        ];
        let companions = companions(&files);
        if let Err(error) = read(&companions, 8) {
            prop_assert!(error.to_string().starts_with("m/"), "{}", error);
        }
        let _ = lower_cases(&companions);
        let _ = refuse_decoder(&companions, "llama");
    }
}
