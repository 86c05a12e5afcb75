//! A student of two and two layers that learns a table of commands in two languages from nothing: 2,000 of all commands that the
//! grammar makes, 200 others held out. German moves the particle of a verb to the end and wants articles by gender and case, so
//! that a translation is neither word by word nor in one order.

use crate::support::{json, refused, succeed};
use serde_json::{Value, json as value};
use slm_runtime::sample::random_u64;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// English; German verb and its particle.
const VERBS: [(&str, &str, &str); 5] = [
    ("turn on", "schalte", "ein"),
    ("turn off", "schalte", "aus"),
    ("check", "prüfe", ""),
    ("close", "mache", "zu"),
    ("open", "mache", "auf"),
];
/// English; German accusative.
const THINGS: [(&str, &str); 8] = [
    ("the lamp", "die Lampe"),
    ("the oven", "den Ofen"),
    ("the window", "das Fenster"),
    ("the blind", "den Rollladen"),
    ("the door", "die Tür"),
    ("the radio", "das Radio"),
    ("the fan", "den Lüfter"),
    ("both valves", "beide Ventile"),
];
const PLACES: [(&str, &str); 7] = [
    ("", ""),
    ("in the kitchen", "in der Küche"),
    ("in the cellar", "im Keller"),
    ("in the bedroom", "im Schlafzimmer"),
    ("upstairs", "oben"),
    ("on the balcony", "auf dem Balkon"),
    ("in the garage", "in der Garage"),
];
const TIMES: [(&str, &str); 8] = [
    ("", ""),
    ("now", "jetzt"),
    ("at six", "um sechs"),
    ("at nine", "um neun"),
    ("in the evening", "am Abend"),
    ("tomorrow morning", "morgen früh"),
    ("in ten minutes", "in zehn Minuten"),
    ("every day", "jeden Tag"),
];

const TRAINED: usize = 2000;
const HELD_OUT: usize = 200;

/// A text of the parts that are there.
fn joined(parts: &[&str]) -> String {
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" ")
}

/// Every command in both languages, in an order of its own: the verb's particle stands last, the time before the place.
fn commands() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (verb, stem, particle) in VERBS {
        for (thing, object) in THINGS {
            for (place, ort) in PLACES {
                for (time, zeit) in TIMES {
                    all.push((joined(&[verb, thing, place, time]), joined(&[stem, object, zeit, ort, particle])));
                }
            }
        }
    }
    let key = |index: usize| random_u64(11, index as u64);
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by_key(|&index| key(index));
    order.into_iter().map(|index| all[index].clone()).collect()
}

/// A Unigram tokenizer of whole words and single characters, as T5's files have it.
fn tokenizer(pairs: &[(String, String)]) -> Value {
    let words: BTreeSet<&str> = pairs.iter().flat_map(|(a, b)| a.split(' ').chain(b.split(' '))).collect();
    let letters: BTreeSet<char> = words.iter().flat_map(|word| word.chars()).collect();
    let mut pieces = vec![value!(["<pad>", 0.0]), value!(["</s>", 0.0]), value!(["<unk>", 0.0]), value!(["▁", -9.0])];
    pieces.extend(letters.iter().map(|letter| value!([letter.to_string(), -9.0])));
    pieces.extend(words.iter().filter(|word| word.chars().count() > 1).map(|word| value!([format!("▁{word}"), -2.0])));
    let special = |id: u32, content: &str| {
        value!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
    };
    let metaspace = value!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    value!({
        "version": "1.0",
        "added_tokens": [special(0, "<pad>"), special(1, "</s>"), special(2, "<unk>")],
        "normalizer": {"type": "NFKC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace.clone()]},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": pieces, "byte_fallback": false},
    })
}

fn rows(path: &Path, pairs: &[(String, String)]) {
    let row = |(prompt, answer): &(String, String)| value!({"prompt": prompt, "answer": answer}).to_string() + "\n";
    fs::write(path, pairs.iter().map(row).collect::<String>()).unwrap();
}

/// A student's configuration with its tokenizer, and the rows.
pub(super) fn prepare(directory: &Path) -> Vec<(String, String)> {
    let pairs = commands();
    let tokenizer = tokenizer(&pairs);
    let student = directory.join("student");
    fs::create_dir(&student).unwrap();
    let config = value!({
        "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 64, "d_kv": 16, "d_ff": 128,
        "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4, "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false,
        "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "n_positions": 64,
        "vocab_size": tokenizer["model"]["vocab"].as_array().unwrap().len(),
    });
    fs::write(student.join("config.json"), config.to_string()).unwrap();
    fs::write(student.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    rows(&directory.join("train.jsonl"), &pairs[..TRAINED]);
    rows(&directory.join("held.jsonl"), &pairs[TRAINED..TRAINED + HELD_OUT]);
    pairs
}

#[test]
fn a_student_of_two_and_two_layers_translates_held_out_commands() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = prepare(dir.path());
    let train = "train student --data train.jsonl --tokens 450000 --batch 64 --pieces 1 --learning-rate 0.004 -o out";
    succeed(dir.path(), train);
    let measured = json(dir.path(), "eval out --data held.jsonl --task generate");
    assert_eq!(measured["windows"], HELD_OUT);
    let exact = measured["exact_match"].as_f64().unwrap();
    assert!(exact >= 0.95, "{exact} of the held-out commands are translated exactly");
    let perplexity = json(dir.path(), "eval out --data held.jsonl")["perplexity"].as_f64().unwrap();
    assert!(perplexity < 1.05, "{perplexity}");
    let generated = json(dir.path(), &["generate", "out", "--prompt", &pairs[0].0][..]);
    assert_eq!((generated["text"].as_str(), generated["stop"].as_str()), (Some(pairs[0].1.as_str()), Some("end")));
    // A smaller student learns what the first says.
    let config = fs::read_to_string(dir.path().join("student/config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    (config["num_layers"], config["num_decoder_layers"], config["d_ff"]) = (value!(1), value!(1), value!(96));
    fs::create_dir(dir.path().join("small")).unwrap();
    fs::write(dir.path().join("small/config.json"), config.to_string()).unwrap();
    let distill = "distill --teacher out --student small --data train.jsonl --tokens 150000 --batch 64 --pieces 1 \
                   --learning-rate 0.004 -o distilled";
    succeed(dir.path(), distill);
    let compared = json(dir.path(), "eval distilled --reference out --data held.jsonl");
    let divergence = compared["kld_mean"].as_f64().unwrap();
    assert!(divergence < 0.2, "{divergence}");
    refused(dir.path(), "generate out --chat hello", "holds no conversation");
    refused(dir.path(), "chat out", "holds no conversation");
}
