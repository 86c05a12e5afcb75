//! Sentence encoders through the whole program: the pooling of a checkpoint is what a directory and its artifact do, the
//! files travel with the model, the longest text bounds what is read, and files that contradict are refused.

use crate::fixture::{self, Family, Size};
use crate::support::{golden, json as json_line, refused, run, stderr};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Gives a model the files of sentence-transformers: these poolings, set by flags as up to version 5.
pub(crate) fn pools(model: &Path, modes: &[&str], normalize: bool) {
    let module = |index: usize, class: &str, path: &str| json!({"idx": index, "name": index.to_string(), "path": path, "type": format!("sentence_transformers.models.{class}")});
    let mut modules = vec![module(0, "Transformer", ""), module(1, "Pooling", "1_Pooling")];
    if normalize {
        modules.push(module(2, "Normalize", "2_Normalize"));
    }
    let flags = [
        ("cls", "cls_token"),
        ("mean", "mean_tokens"),
        ("max", "max_tokens"),
        ("lasttoken", "lasttoken"),
        ("mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
        ("weightedmean", "weightedmean_tokens"),
    ];
    let flags = flags.map(|(name, flag)| (format!("pooling_mode_{flag}"), json!(modes.contains(&name))));
    write(model, "modules.json", &Value::Array(modules));
    fs::create_dir_all(model.join("1_Pooling")).expect("a directory");
    write(model, "1_Pooling/config.json", &Value::Object(flags.into_iter().collect()));
}

fn write(directory: &Path, name: &str, content: &Value) {
    fs::write(directory.join(name), content.to_string()).expect("writes");
}

/// An encoder `m` and a text.
fn workplace() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fixture::write(&directory.path().join("m"), Family::Bert, Size::SMALL);
    let lines = ["a quick fox.", "the lazy dog, asleep.", "no fox", "rain on the hill and in the den"].join("\n");
    fs::write(directory.path().join("t.txt"), lines).expect("writes");
    directory
}

fn artifact(directory: &Path, model: &str, name: &str) {
    json_line(directory, &format!("quantize {model} --scheme w8 --method rtn -o {name}-w8"));
    json_line(directory, &format!("compile {name}-w8 --target x86-64-v3 -o {name}.slm"));
}

#[test]
fn a_directory_and_its_artifact_pool_as_the_files_say() {
    let workplace = workplace();
    let directory = workplace.path();
    artifact(directory, "m", "plain");
    assert_eq!(json_line(directory, "inspect plain.slm").get("pooling"), None);
    let plain = json_line(directory, "eval plain.slm --data t.txt --reference m");
    assert_eq!(plain.get("pooling"), None);
    let mut digests = vec![plain["logits_sha256"].clone()];
    for (mode, normalize) in [("cls", true), ("mean", false), ("mean", true), ("max", true), ("lasttoken", false)] {
        let name = format!("{mode}-{normalize}");
        pools(&directory.join("m"), &[mode], normalize);
        artifact(directory, "m", &name);
        for travels in ["modules.json", "1_Pooling/config.json"] {
            assert!(directory.join(format!("{name}-w8")).join(travels).is_file(), "{travels}");
        }
        let inspected = json_line(directory, &format!("inspect {name}.slm"));
        assert_eq!((&inspected["pooling"], &inspected["normalized"]), (&json!(mode), &json!(normalize)));
        assert_eq!(inspected["version"], "1.6");
        json_line(directory, &format!("verify {name}.slm"));
        let report = json_line(directory, &format!("eval {name}.slm --data t.txt --reference m"));
        assert_eq!((&report["pooling"], &report["normalized"]), (&json!(mode), &json!(normalize)));
        assert!(report["cosine_mean"].as_f64().expect("a number") > 0.99, "{name}: {report}");
        digests.push(report["logits_sha256"].clone());
        // The directory does in f32 what its artifact does in integers.
        let of_directory = json_line(directory, &format!("eval {name}-w8 --data t.txt --reference m"));
        assert_eq!(of_directory["pooling"], mode);
        assert!(of_directory["cosine_mean"].as_f64().expect("a number") > 0.999, "{of_directory}");
    }
    digests.sort_by_key(Value::to_string);
    digests.dedup();
    assert_eq!(digests.len(), 6, "every pooling gives other bytes");
    // An artifact from before, without pooling, beside a checkpoint that takes the first token.
    pools(&directory.join("m"), &["cls"], true);
    let output = run(directory, "eval plain.slm --data t.txt --reference m");
    let said = stderr(&output);
    assert!(output.status.success() && said.contains("warning: the model's embeddings are the mean taken by this command, the reference's cls, scaled to length one"), "{said}");
}

/// A qwen3 with a tokenizer: a llama, gains for its queries and keys, and another name.
fn qwen3(model: &Path) {
    fixture::write(model, Family::TiedLlama, Size::SMALL);
    let mut config: Value = serde_json::from_slice(&fs::read(model.join("config.json")).expect("reads")).expect("JSON");
    let number = |key: &str| config[key].as_u64().expect("a size") as usize;
    let (layers, head_dim) = (number("num_hidden_layers"), number("hidden_size") / number("num_attention_heads"));
    config["model_type"] = json!("qwen3");
    config["architectures"] = json!(["Qwen3ForCausalLM"]);
    config["head_dim"] = json!(head_dim);
    write(model, "config.json", &config);
    let file = model.join("model.safetensors");
    let bytes = fs::read(&file).expect("reads");
    let gains: Vec<u8> = (0..head_dim).flat_map(|n| (0.8 + 0.05 * n as f32).to_le_bytes()).collect();
    let mut tensors = SafeTensors::deserialize(&bytes).expect("tensors").tensors();
    for (layer, norm) in (0..layers).flat_map(|layer| ["q_norm", "k_norm"].map(|norm| (layer, norm))) {
        let gain = TensorView::new(Dtype::F32, vec![head_dim], &gains).expect("its bytes");
        tensors.push((format!("model.layers.{layer}.self_attn.{norm}.weight"), gain));
    }
    let written = safetensors::serialize(tensors, None).expect("serializes");
    fs::write(file, written).expect("writes");
}

/// A decoder as modules.json makes it: the last token's state, which has seen the whole text.
#[test]
fn a_decoder_makes_sentence_vectors_of_the_last_token() {
    let workplace = workplace();
    let directory = workplace.path();
    qwen3(&directory.join("q"));
    pools(&directory.join("q"), &["lasttoken"], true);
    let inspected = json_line(directory, "inspect q");
    assert_eq!((&inspected["kind"], &inspected["output"]), (&json!("encoder"), &json!("hidden states")));
    artifact(directory, "q", "q");
    let inspected = json_line(directory, "inspect q.slm");
    assert_eq!((&inspected["pooling"], &inspected["normalized"]), (&json!("lasttoken"), &json!(true)));
    json_line(directory, "verify q.slm");
    let report = json_line(directory, "eval q.slm --data t.txt --reference q");
    assert_eq!((&report["pooling"], &report["normalized"]), (&json!("lasttoken"), &json!(true)));
    assert!(report["cosine_mean"].as_f64().expect("a number") > 0.99, "{report}");
    refused(directory, "generate q.slm --prompt fox", "");
    // The mean would hold states of words that the first ones have not seen.
    pools(&directory.join("q"), &["mean"], true);
    refused(directory, "inspect q", "modules.json: `pooling_mode` is `mean`; qwen3 supports lasttoken");
}

/// Gemma 3 as an encoder: positions that see both ways, pooled by their mean; what sentence-transformers may put after it is
/// refused.
#[test]
fn an_encoder_of_gemma_pools_the_mean() {
    let workplace = workplace();
    let directory = workplace.path();
    fixture::write(&directory.join("letters"), Family::TiedLlama, Size::SMALL);
    fs::create_dir_all(directory.join("g")).expect("a directory");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden("gemma3-embedding-padded").join(file), directory.join("g").join(file)).expect("copied");
    }
    fs::copy(directory.join("letters/tokenizer.json"), directory.join("g/tokenizer.json")).expect("copied");
    pools(&directory.join("g"), &["mean"], true);
    let inspected = json_line(directory, "inspect g");
    assert_eq!((&inspected["kind"], &inspected["output"]), (&json!("encoder"), &json!("hidden states")));
    artifact(directory, "g", "g");
    json_line(directory, "verify g.slm");
    let report = json_line(directory, "eval g.slm --data t.txt --reference g");
    assert_eq!((&report["pooling"], &report["normalized"]), (&json!("mean"), &json!(true)));
    assert!(report["cosine_mean"].as_f64().expect("a number") > 0.99, "{report}");
    refused(directory, "generate g.slm --prompt fox", "");
    refused(directory, "export g-w8 --format gguf -o g.gguf", "");
    let file = directory.join("g/modules.json");
    let mut modules: Value = serde_json::from_slice(&fs::read(&file).expect("reads")).expect("JSON");
    modules[2]["type"] = json!("sentence_transformers.models.Dense");
    write(&directory.join("g"), "modules.json", &modules);
    refused(directory, "inspect g", "`[2].type` is `Dense`");
}

/// Mixes are measured as artifacts, by the states of all tokens, whatever becomes of them in the end.
#[test]
fn a_model_that_pools_is_allocated_like_one_that_does_not() {
    let workplace = workplace();
    let directory = workplace.path();
    let quantize =
        |out: &str| json_line(directory, &format!("quantize m --scheme auto --bits-per-weight 9.5 -o {out}"));
    let plain = quantize("plain");
    pools(&directory.join("m"), &["cls"], true);
    let pooled = quantize("pooled");
    assert_eq!(plain["allocation"], pooled["allocation"]);
    assert!(plain["allocation"].is_object(), "{plain}");
}

#[test]
fn the_longest_text_is_cut_to_and_the_context_of_an_artifact() {
    let workplace = workplace();
    let directory = workplace.path();
    pools(&directory.join("m"), &["mean"], true);
    write(&directory.join("m"), "sentence_bert_config.json", &json!({"max_seq_length": 12, "do_lower_case": false}));
    let output = run(directory, "eval m --data t.txt");
    assert!(stderr(&output).contains("t.txt: 2 of 4 are longer than 12 tokens and cut"), "{}", stderr(&output));
    artifact(directory, "m", "a");
    assert_eq!(json_line(directory, "inspect a.slm")["context"], 12);
    assert_eq!(json_line(directory, "inspect m")["text_tokens"], 12);
    assert_eq!(json_line(directory, "estimate m --target generic")["context"], 12);
    json_line(directory, "compile a-w8 --target x86-64-v3 --context 40 -o wide.slm");
    assert_eq!(json_line(directory, "inspect wide.slm")["context"], 40);
    refused(directory, "compile a-w8 --target x86-64-v3 --context 97 -o no.slm", "positions up to 96");
    // As many tokens as the reference reads, whatever the artifact has room for.
    let tokens =
        |file: &str| json_line(directory, &format!("eval {file} --data t.txt --reference m"))["tokens"].clone();
    assert_eq!(tokens("wide.slm"), tokens("a.slm"));
    // Without the file the tokenizer's length counts, as far as there are positions.
    fs::remove_file(directory.join("m/sentence_bert_config.json")).expect("it is there");
    for (longest, expected) in [(30, 30), (512, 96)] {
        write(&directory.join("m"), "tokenizer_config.json", &json!({"model_max_length": longest}));
        assert_eq!(json_line(directory, "inspect m")["text_tokens"], expected);
    }
}

#[test]
fn texts_are_lower_cased_on_host_and_device_where_the_file_says_so() {
    let workplace = workplace();
    let directory = workplace.path();
    let mut tokenizer = fixture::word_pieces();
    tokenizer["normalizer"]["lowercase"] = json!(false);
    write(&directory.join("m"), "tokenizer.json", &tokenizer);
    pools(&directory.join("m"), &["mean"], true);
    let digest = |text: &str, model: &str| {
        fs::write(directory.join("one.txt"), text).expect("writes");
        json_line(directory, &format!("eval {model} --data one.txt"))["logits_sha256"].clone()
    };
    assert_ne!(digest("A Fox", "m"), digest("a fox", "m"));
    write(&directory.join("m"), "sentence_bert_config.json", &json!({"do_lower_case": true}));
    assert_eq!(digest("A Fox", "m"), digest("a fox", "m"));
    artifact(directory, "m", "a");
    assert_eq!(digest("A Fox", "a.slm"), digest("a fox", "a.slm"));
    // The device's tokenizer makes the same tokens as the host's.
    let verified = json_line(directory, "verify a.slm");
    assert!(verified["tokenized_texts"].as_u64() > Some(0), "{verified}");
}

#[test]
fn a_network_in_a_folder_of_its_own_is_found_from_both_directories() {
    let workplace = workplace();
    let directory = workplace.path();
    pools(&directory.join("m"), &["cls"], true);
    write(&directory.join("m"), "sentence_bert_config.json", &json!({"max_seq_length": 20}));
    let flat = json_line(directory, "eval m --data t.txt")["logits_sha256"].clone();
    let network = directory.join("old/0_Transformer");
    fs::create_dir_all(&network).expect("directories");
    for name in ["config.json", "model.safetensors", "tokenizer.json", "sentence_bert_config.json"] {
        fs::rename(directory.join("m").join(name), network.join(name)).expect("moves");
    }
    for name in ["modules.json", "1_Pooling"] {
        fs::rename(directory.join("m").join(name), directory.join("old").join(name)).expect("moves");
    }
    let list = fs::read_to_string(directory.join("old/modules.json")).expect("reads");
    let mut list: Value = serde_json::from_str(&list).expect("JSON");
    list[0]["path"] = json!("0_Transformer");
    write(&directory.join("old"), "modules.json", &list);
    for path in ["old", "old/0_Transformer", "./old/0_Transformer/"] {
        assert_eq!(json_line(directory, &format!("eval {path} --data t.txt"))["logits_sha256"], flat, "{path}");
        let inspected = json_line(directory, &format!("inspect {path}"));
        assert_eq!((&inspected["pooling"], &inspected["text_tokens"]), (&json!("cls"), &json!(20)), "{path}");
    }
    let within = run(&network, "eval . --data ../../t.txt --json");
    assert_eq!(crate::support::one_line(&within)["logits_sha256"], flat);
    // What is written has the network beside its modules, and says so.
    json_line(directory, "quantize old --scheme w8 --method rtn -o w8");
    let written: Value =
        serde_json::from_str(&fs::read_to_string(directory.join("w8/modules.json")).expect("it travels"))
            .expect("JSON");
    assert_eq!((&written[0]["path"], &written[1]["path"]), (&json!(""), &json!("1_Pooling")));
    assert_eq!(json_line(directory, "inspect w8")["pooling"], "cls");
}

#[test]
fn files_that_contradict_are_refused_and_nothing_is_written() {
    let workplace = workplace();
    let directory = workplace.path();
    let model = directory.join("m");
    let commands = ["quantize m --scheme w8 -o out", "eval m --data t.txt", "estimate m --target generic", "inspect m"];
    let all_refused = |expected: &str| {
        for command in commands {
            refused(directory, command, expected);
        }
        assert!(!directory.join("out").exists());
    };
    pools(&model, &["cls", "mean"], true);
    all_refused("m/1_Pooling/config.json: `pooling_mode_cls_token`, `pooling_mode_mean_tokens` is set together");
    pools(&model, &["weightedmean"], true);
    all_refused(
        "m/1_Pooling/config.json: `pooling_mode_weightedmean_tokens` is `true`; slmc supports cls, max, mean, lasttoken",
    );
    pools(&model, &["mean"], true);
    write(&model, "1_Pooling/config.json", &json!({"pooling_mode": "mean", "pooling_mode_cls_token": true}));
    all_refused("`pooling_mode`, `pooling_mode_cls_token` is `mean`, and true");
    write(&model, "1_Pooling/config.json", &json!({"pooling_mode_mean_tokens": true, "word_embedding_dimension": 41}));
    all_refused("`word_embedding_dimension` is 41, expected 40");
    fs::remove_file(model.join("1_Pooling/config.json")).expect("it is there");
    all_refused("m/modules.json: `[1].path` is `1_Pooling`, expected a folder of the model's directory");
    pools(&model, &["mean"], false);
    let dense = json!([
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    ]);
    write(&model, "modules.json", &dense);
    all_refused("m/modules.json: `[2].type` is `Dense`; slmc supports Transformer, Pooling and, after them, Normalize");
    fs::write(model.join("modules.json"), "[{").expect("writes");
    all_refused("m/modules.json: not valid JSON");
    // A decoder that makes sentence vectors.
    fixture::write(&directory.join("m"), Family::TiedLlama, Size::SMALL);
    pools(&model, &["lasttoken"], true);
    all_refused("m/modules.json: `[1].type` is `Pooling`; llama supports next-token logits only");
}

#[test]
fn modules_beside_a_model_with_another_output_are_said_and_left() {
    let directory = tempfile::tempdir().expect("a directory");
    for (family, output) in [(Family::BertMlm, "masked-token logits"), (Family::BertClassifier, "logits of labels")] {
        let model = directory.path().join(family.name());
        fixture::write(&model, family, Size::SMALL);
        pools(&model, &["cls", "mean"], true);
        let said = stderr(&run(directory.path(), &format!("estimate {} --target generic", family.name())));
        assert!(
            said.contains("modules.json is not followed: by `architectures` the model gives ") && said.contains(output),
            "{said}"
        );
    }
}

#[test]
fn a_pooling_without_the_list_of_modules_is_said_not_to_be_followed() {
    let workplace = workplace();
    pools(&workplace.path().join("m"), &["cls"], true);
    fs::remove_file(workplace.path().join("m/modules.json")).expect("it is there");
    let output = run(workplace.path(), "eval m --data t.txt");
    let said = stderr(&output);
    let expected = "warning: m/1_Pooling/config.json is not followed, since modules.json";
    assert!(output.status.success() && said.contains(expected), "{said}");
}

#[test]
fn a_directory_is_listed_file_by_file() {
    let workplace = workplace();
    let directory = workplace.path();
    let entry = |report: &Value, name: &str| -> (bool, String) {
        let files = report["files"].as_array().expect("files");
        let file = files.iter().find(|file| file["name"] == name).unwrap_or_else(|| panic!("{name}: {report}"));
        (file["found"].as_bool().expect("a flag"), file["decides"].as_str().expect("words").to_owned())
    };
    let bare = json_line(directory, "inspect m");
    assert_eq!(
        (&bare["schema"], &bare["kind"], &bare["positions"]),
        (&json!("slmc.inspect-directory/1"), &json!("encoder"), &json!(96))
    );
    let (found, decides) = entry(&bare, "modules.json");
    assert!(!found && decides.contains("`eval` takes their mean"), "{decides}");
    pools(&directory.join("m"), &["cls"], true);
    write(&directory.join("m"), "sentence_bert_config.json", &json!({"max_seq_length": 50, "do_lower_case": true}));
    write(
        &directory.join("m"),
        "config_sentence_transformers.json",
        &json!({"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "query"}),
    );
    let report = json_line(directory, "inspect m");
    assert_eq!(entry(&report, "modules.json"), (true, "one vector of a text: cls, scaled to length one".into()));
    assert_eq!(entry(&report, "1_Pooling/config.json"), (true, "pooling: cls".into()));
    assert_eq!(
        entry(&report, "sentence_bert_config.json"),
        (true, "at most 50 tokens of a text; texts are lower-cased".into())
    );
    assert_eq!(entry(&report, "config_sentence_transformers.json").1, "prompts, none of which slmc adds: query");
    assert_eq!(entry(&report, "tokenizer.json").1, "58 ids, as many as the table has rows");
    assert!(!entry(&report, "generation_config.json").0);
    let note = &report["notes"][0];
    assert!(
        note["warning"] == true
            && note["text"].as_str().expect("words").contains("every text begins with the prompt `query`"),
        "{note}"
    );
    let shown = String::from_utf8(run(directory, "inspect m").stdout).expect("UTF-8");
    for line in [
        "modules.json                       found   one vector of a text: cls",
        "warning: m/config_sentence_transformers.json: by `default_prompt_name`",
    ] {
        assert!(shown.contains(line), "{shown}");
    }

    // A decoder: end tokens, sampling, chat template, padding of the table, ids outside.
    fixture::write(&directory.join("d"), Family::Llama, Size::SMALL);
    write(
        &directory.join("d"),
        "generation_config.json",
        &json!({"eos_token_id": [2, 3, 99], "do_sample": true, "num_beams": 2}),
    );
    write(
        &directory.join("d"),
        "tokenizer_config.json",
        &json!({"bos_token": "<s>", "chat_template": "{{ messages[0]['content'] }}"}),
    );
    let report = json_line(directory, "inspect d");
    assert_eq!(report["end_tokens"], json!([2, 3]));
    assert_eq!((&report["opening_tokens"], &report["chat_templates"]), (&json!([1]), &json!(["default"])));
    assert_eq!((&report["sampling"]["temperature"], &report["sampling"]["top_k"]), (&json!(1.0), &json!(50)));
    assert_eq!(entry(&report, "generation_config.json").1, "end tokens: 2, 3; chosen: temperature 1, top-k 50");
    assert_eq!(entry(&report, "tokenizer.json").1, "32 ids, as many as the table has rows; opening tokens: 1");
    assert_eq!(entry(&report, "tokenizer_config.json").1, "no opening token is added; the chat template");
    assert_eq!(report["notes"].as_array().expect("notes").len(), 2, "{report}");
}
