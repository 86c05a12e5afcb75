//! Tokenizers and tables that do not fit exactly: tokens without a row, special ids outside, padding, byte order marks.

use super::{edit_json, edit_tensors};
use crate::fixture::{self, Family, LETTERS, Size};
use crate::support::{json, refused, run, stderr, succeed};
use serde_json::json;
use slmc::formats::open_model;
use std::fs;
use std::path::Path;

/// Pads the token table of a tied llama to `rows`, with zeros.
fn pad(directory: &Path, rows: usize) {
    edit_tensors(directory, |tensors| {
        let table = tensors.get_mut("model.embed_tokens.weight").expect("there is one");
        let row = table.bytes.len() / table.shape[0];
        table.bytes.resize(row * rows, 0);
        table.shape[0] = rows;
    });
    edit_json(directory, "config.json", |config| config["vocab_size"] = json!(rows));
}

#[test]
fn tokens_without_a_row_are_left_out_and_said() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("plain"), Family::TiedLlama, Size::SMALL);
    fixture::write(&path.join("m"), Family::TiedLlama, Size::SMALL);
    // As Gemma 3's tokenizer has a token for images, which its models of text have no row for.
    edit_json(&path.join("m"), "tokenizer.json", |tokenizer| {
        let added = tokenizer["added_tokens"].as_array_mut().expect("a list");
        let mut image = added[0].clone();
        (image["id"], image["content"]) = (json!(LETTERS), json!("<image>"));
        added.push(image);
    });
    let said = format!("token {LETTERS} `<image>` has no row in the model's table of {LETTERS}");
    let tokens = |model: &str| json(path, &format!("generate {model} --prompt 'a cat' --tokens 6"))["tokens"].clone();
    assert_eq!(tokens("m"), tokens("plain"));
    let output = run(path, "quantize m --scheme w8 --method rtn -o q -q");
    assert!(output.status.success() && stderr(&output).contains(&said), "{}", stderr(&output));
    succeed(path, "quantize plain --scheme w8 --method rtn -o plain-q -q");
    for (model, artifact) in [("q", "a.slm"), ("plain-q", "plain.slm")] {
        succeed(path, &format!("compile {model} --target generic -o {artifact} -q"));
    }
    assert_eq!(tokens("a.slm"), tokens("plain.slm"));
    succeed(path, "verify a.slm");
    for model in ["m", "a.slm"] {
        refused(path, &format!("generate {model} --prompt 'a <image> cat'"), &format!("token {LETTERS} `<image>`"));
    }
    // A vocabulary beyond the table is another model's.
    edit_json(&path.join("m"), "tokenizer.json", |tokenizer| {
        tokenizer["model"]["vocab"]["zz"] = json!(LETTERS);
        tokenizer["added_tokens"].as_array_mut().expect("a list").last_mut().expect("the image")["id"] =
            json!(LETTERS + 1);
    });
    refused(path, "generate m --prompt a", "use the tokenizer.json that belongs to this model");
}

#[test]
fn special_ids_outside_the_vocabulary_are_a_warning() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("m"), Family::Llama, Size::SMALL);
    edit_json(&path.join("m"), "config.json", |config| {
        (config["eos_token_id"], config["pad_token_id"]) = (json!([2, 128_009]), json!(-1));
    });
    fs::write(path.join("m/generation_config.json"), r#"{"eos_token_id": [128001, 3]}"#).expect("writes");
    let output = run(path, "generate m --prompt a --tokens 2");
    assert!(output.status.success(), "{}", stderr(&output));
    for expected in [
        "config.json: `eos_token_id` has 128009, outside the vocabulary of 32; it is left out",
        "config.json: `pad_token_id` is -1, outside",
        "generation_config.json: `eos_token_id` has 128001, outside",
    ] {
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
    assert_eq!(open_model(&path.join("m")).expect("opens").spec.ends, [3]);
}

#[test]
fn distillation_between_padded_tables_compares_the_tokens_that_both_have() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    for (name, rows) in [("teacher", 48), ("student", 40), ("plain-teacher", LETTERS), ("plain-student", LETTERS)] {
        fixture::write(&path.join(name), Family::TiedLlama, Size::SMALL);
        // A teacher equal to its student would leave rounding alone to learn from.
        if name.ends_with("teacher") {
            edit_tensors(&path.join(name), |tensors| {
                let table = tensors.get_mut("model.embed_tokens.weight").expect("there is one");
                table.bytes.rotate_right(4 * table.shape[1]);
            });
        }
        if rows != LETTERS {
            pad(&path.join(name), rows);
        }
    }
    fs::write(path.join("text.txt"), "the cat sat on the mat. a dog ran by and sang. ".repeat(60)).expect("writes");
    let distill = |teacher: &str, student: &str, out: &str| {
        let settings = "--data text.txt --window 32 --batch 4 --tokens 600 --ce 0 --kl 1 --hidden 0";
        json(path, &format!("distill --teacher {teacher} --student {student} {settings} -o {out}"))
    };
    let (padded, plain) = (distill("teacher", "student", "out"), distill("plain-teacher", "plain-student", "plain"));
    assert_eq!(open_model(&path.join("out")).expect("opens").spec.vocabulary, 40);
    // Padding takes no part: the two are trained alike.
    let loss = |report: &serde_json::Value| report["loss"].as_f64().expect("a number");
    let (padded, plain) = (loss(&padded), loss(&plain));
    assert!((padded - plain).abs() < 1e-3 * plain, "{padded} {plain}");
    // Other tokens at the same ids are another vocabulary.
    edit_json(&path.join("student"), "tokenizer.json", |tokenizer| {
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().expect("an object");
        (vocabulary["a"], vocabulary["b"]) = (vocabulary["b"].clone(), vocabulary["a"].clone());
    });
    refused(
        path,
        "distill --teacher teacher --student student --data text.txt -o no",
        "different vocabularies: 40 and 48",
    );
}

#[test]
fn evaluation_between_padded_tables_compares_the_tokens_that_both_have() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    for (name, rows) in [("m", 40), ("reference", 48), ("plain", LETTERS), ("plain-reference", LETTERS)] {
        fixture::write(&path.join(name), Family::TiedLlama, Size::SMALL);
        if name.ends_with("reference") {
            edit_tensors(&path.join(name), |tensors| {
                let table = tensors.get_mut("model.embed_tokens.weight").expect("there is one");
                table.bytes.rotate_right(4 * table.shape[1]);
            });
        }
        if rows != LETTERS {
            pad(&path.join(name), rows);
        }
    }
    for name in ["m", "plain"] {
        succeed(path, &format!("quantize {name} --scheme w8 --method rtn -o {name}-q -q"));
        succeed(path, &format!("compile {name}-q --target generic -o {name}.slm -q"));
        succeed(path, &format!("compile {name}-q --target generic --device-only -o {name}-device.slm -q"));
    }
    fs::write(path.join("text.txt"), "the cat sat on the mat. a dog ran by and sang. ".repeat(60)).expect("writes");
    let measured = |model: &str, reference: &str| {
        json(path, &format!("eval {model} --reference {reference} --data text.txt --window 32 --max-windows 8"))
    };
    let near = |a: &serde_json::Value, b: &serde_json::Value, key: &str| {
        let (a, b) = (a[key].as_f64().expect("a number"), b[key].as_f64().expect("a number"));
        assert!((a - b).abs() <= 1e-4 * a.abs().max(b.abs()), "{key}: {a} {b}");
    };
    for (padded, plain) in [("m", "plain"), ("m.slm", "plain.slm"), ("m-device.slm", "plain-device.slm")] {
        let (padded, plain) = (measured(padded, "reference"), measured(plain, "plain-reference"));
        ["kld_mean", "kld_p99", "top1_agreement"].into_iter().for_each(|key| near(&padded, &plain, key));
        // Perplexity is over a model's whole table, with a reference or without.
        assert!(padded["perplexity"].as_f64() > plain["perplexity"].as_f64(), "{padded} {plain}");
    }
    let alone = json(path, "eval m --data text.txt --window 32 --max-windows 8");
    let beside = measured("m", "reference");
    for key in ["perplexity", "logits_sha256"] {
        assert_eq!(alone[key], beside[key], "{key}");
    }
    // In a recipe it is known before anything runs whether it can be.
    let recipe = |reference: &str| {
        format!(
            "version = 1\n[stages.e]\nkind = 'eval'\ninput = 'model'\nreference = '{reference}'\ndata = 'text.txt'\n\
            window = 32\n[model]\npath = 'm'\n"
        )
    };
    fs::write(path.join("r.toml"), recipe("reference")).expect("writes");
    succeed(path, "run r.toml --plan");
    // Other tokens at the same ids are another vocabulary.
    edit_json(&path.join("reference"), "tokenizer.json", |tokenizer| {
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().expect("an object");
        (vocabulary["a"], vocabulary["b"]) = (vocabulary["b"].clone(), vocabulary["a"].clone());
    });
    for model in ["m", "m.slm"] {
        refused(
            path,
            &format!("eval {model} --reference reference --data text.txt"),
            "differ in vocabulary: 40 and 48; pass the checkpoint the model was made from",
        );
    }
    refused(path, "run r.toml --plan", "different vocabularies: 40 and 48");
}

#[test]
fn a_byte_order_mark_before_any_json_is_skipped() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fixture::write(&path.join("m"), Family::Llama, Size::SMALL);
    let model = path.join("m");
    fs::write(model.join("generation_config.json"), r#"{"eos_token_id": [2, 3]}"#).expect("writes");
    fs::write(model.join("tokenizer_config.json"), r#"{"add_bos_token": false}"#).expect("writes");
    fs::write(model.join("special_tokens_map.json"), r#"{"bos_token": "<s>"}"#).expect("writes");
    fs::write(model.join("chat_template.json"), r#"{"chat_template": "{{ messages[0].content }}"}"#).expect("writes");
    let generate = "generate m --prompt 'a cat' --tokens 6";
    let chat = "generate m --chat cat --tokens 6";
    let before = (json(path, generate)["tokens"].clone(), json(path, chat)["tokens"].clone());
    for entry in fs::read_dir(&model).expect("a directory") {
        let file = entry.expect("an entry").path();
        if file.extension().is_some_and(|extension| extension == "json") {
            let text = [b"\xEF\xBB\xBF".as_slice(), &fs::read(&file).expect("reads")].concat();
            fs::write(file, text).expect("writes");
        }
    }
    assert_eq!((json(path, generate)["tokens"].clone(), json(path, chat)["tokens"].clone()), before);
    assert_eq!(open_model(&model).expect("opens").spec.ends, [2, 3]);
    succeed(path, "quantize m --scheme w8 --method rtn -o q -q");
    succeed(path, "compile q --target generic -o a.slm -q");
    succeed(path, "verify a.slm");
}
