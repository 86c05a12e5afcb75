//! Tiny checkpoints that work: random weights of a sensible scale, and a tokenizer over letters, so that every command
//! can run on them without any file from outside. Small enough that an artifact of one is a few kilobytes.

use serde_json::{Value, json};
use slm_runtime::sample::random_u64;
use slmc::calibrate::collect;
use slmc::compile::{AskedSections, Compiled, HostSections, TextSection, compile};
use slmc::disk::DenseTensor;
use slmc::formats::open_model;
use slmc::model::device::device;
use slmc::model::id::{LinearId, ParameterId, Part, Role};
use slmc::model::matrix::view_rows;
use slmc::model::scheme::{Preset, QuantScheme};
use slmc::model::weights::{Model, Parameter};
use slmc::progress::Silent;
use slmc::quantize::search::quantize_matrix;
use slmc::target::Target;
use slmc::text::tokenizer::Tokenizer;
use slmc::train::start::with_exits;
use std::fs;
use std::path::Path;

/// Tokens of [`letters`]: three special ones, the space, a to z, the full stop and the line break.
pub(crate) const LETTERS: usize = 32;
/// Tokens of [`word_pieces`]: four special ones, a to z at the start of a word and within, the full stop and the comma.
pub(crate) const WORD_PIECES: usize = 58;

/// Which model to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Decoder with its own LM head, as many key heads as query heads.
    Llama,
    /// Decoder whose head is the token table, two query heads to a key head.
    TiedLlama,
    /// Sentence encoder.
    Bert,
    /// Masked language model.
    BertMlm,
    /// Sequence classifier of three labels.
    BertClassifier,
}

impl Family {
    pub(crate) const ALL: [Family; 5] =
        [Family::Llama, Family::TiedLlama, Family::Bert, Family::BertMlm, Family::BertClassifier];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::TiedLlama => "llama-tied",
            Family::Bert => "bert",
            Family::BertMlm => "bert-mlm",
            Family::BertClassifier => "bert-classifier",
        }
    }

    pub(crate) fn decoder(self) -> bool {
        matches!(self, Family::Llama | Family::TiedLlama)
    }

    fn config(self, size: Size) -> Value {
        let common = json!({
            "hidden_size": size.hidden, "intermediate_size": size.ffn, "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads, "max_position_embeddings": size.context,
        });
        let own = match self {
            Family::Llama | Family::TiedLlama => json!({
                "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": LETTERS,
                "num_key_value_heads": if self == Family::Llama { size.heads } else { size.heads / 2 },
                "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0,
                "tie_word_embeddings": self == Family::TiedLlama, "bos_token_id": 1, "eos_token_id": 2,
            }),
            Family::Bert | Family::BertMlm | Family::BertClassifier => json!({
                "model_type": "bert", "vocab_size": WORD_PIECES, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
                "hidden_act": "gelu", "id2label": {"0": "no", "1": "yes", "2": "oos"},
                "architectures": [match self {
                    Family::BertMlm => "BertForMaskedLM",
                    Family::BertClassifier => "BertForSequenceClassification",
                    _ => "BertModel",
                }],
            }),
        };
        let (Value::Object(mut config), Value::Object(own)) = (common, own) else { unreachable!("both are objects") };
        config.extend(own);
        Value::Object(config)
    }

    /// Names and shapes of the tensors, vectors with one dimension.
    fn tensors(self, size: Size) -> Vec<(String, Vec<usize>)> {
        let Size { hidden, ffn, layers, heads, context } = size;
        let mut tensors = Vec::new();
        let mut add = |name: String, shape: &[usize]| tensors.push((name, shape.to_vec()));
        if self.decoder() {
            let keys = if self == Family::Llama { hidden } else { hidden / heads * (heads / 2) };
            add("model.embed_tokens.weight".into(), &[LETTERS, hidden]);
            if self == Family::Llama {
                add("lm_head.weight".into(), &[LETTERS, hidden]);
            }
            add("model.norm.weight".into(), &[hidden]);
            for layer in 0..layers {
                let layer = format!("model.layers.{layer}.");
                add(format!("{layer}input_layernorm.weight"), &[hidden]);
                add(format!("{layer}post_attention_layernorm.weight"), &[hidden]);
                for (part, rows) in [("q", hidden), ("k", keys), ("v", keys), ("o", hidden)] {
                    add(format!("{layer}self_attn.{part}_proj.weight"), &[rows, hidden]);
                }
                for (part, rows, columns) in [("gate", ffn, hidden), ("up", ffn, hidden), ("down", hidden, ffn)] {
                    add(format!("{layer}mlp.{part}_proj.weight"), &[rows, columns]);
                }
            }
            return tensors;
        }
        for (table, rows) in [("word", WORD_PIECES), ("position", context), ("token_type", 2)] {
            add(format!("bert.embeddings.{table}_embeddings.weight"), &[rows, hidden]);
        }
        let mut pair = |stem: String, rows: usize, columns: usize| {
            let shape = [rows, columns];
            add(format!("{stem}.weight"), if columns == 0 { &shape[..1] } else { &shape });
            add(format!("{stem}.bias"), &[rows]);
        };
        pair("bert.embeddings.LayerNorm".into(), hidden, 0);
        for layer in 0..layers {
            let layer = format!("bert.encoder.layer.{layer}.");
            for part in ["query", "key", "value"] {
                pair(format!("{layer}attention.self.{part}"), hidden, hidden);
            }
            pair(format!("{layer}attention.output.dense"), hidden, hidden);
            pair(format!("{layer}attention.output.LayerNorm"), hidden, 0);
            pair(format!("{layer}intermediate.dense"), ffn, hidden);
            pair(format!("{layer}output.dense"), hidden, ffn);
            pair(format!("{layer}output.LayerNorm"), hidden, 0);
        }
        match self {
            Family::BertMlm => {
                pair("cls.predictions.transform.dense".into(), hidden, hidden);
                pair("cls.predictions.transform.LayerNorm".into(), hidden, 0);
                add("cls.predictions.bias".into(), &[WORD_PIECES]);
            }
            Family::BertClassifier => {
                pair("bert.pooler.dense".into(), hidden, hidden);
                pair("classifier".into(), 3, hidden);
            }
            _ => {}
        }
        tensors
    }
}

/// Sizes of a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) hidden: usize,
    pub(crate) ffn: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) context: usize,
}

impl Size {
    /// Two layers; widths that are no multiples of 32, so that padding is there.
    pub(crate) const SMALL: Size = Size { hidden: 40, ffn: 72, layers: 2, heads: 4, context: 96 };
    /// As few bytes as every section and tensor takes.
    pub(crate) const TINY: Size = Size { hidden: 8, ffn: 12, layers: 1, heads: 2, context: 16 };
}

/// Writes a checkpoint of the family: config.json, model.safetensors, tokenizer.json.
pub(crate) fn write(directory: &Path, family: Family, size: Size) {
    fs::create_dir_all(directory).expect("the directory can be made");
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (stream, (name, shape)) in family.tensors(size).into_iter().enumerate() {
        let start = data.len();
        let count: usize = shape.iter().product();
        let norm = name.to_lowercase().contains("norm");
        // Matrices around 1.5 / sqrt(columns), gains near 1, biases near 0.
        let (center, spread) = match (norm, shape[..].last()) {
            (true, _) if name.ends_with("weight") => (1.0, 0.2),
            (false, Some(&columns)) if shape.len() == 2 => (0.0, 2.6 / (columns as f64).sqrt()),
            _ => (0.0, 0.1),
        };
        for index in 0..count {
            let unit = (random_u64(stream as u64, index as u64) >> 11) as f64 / (1u64 << 53) as f64;
            data.extend_from_slice(&((center + spread * (2.0 * unit - 1.0)) as f32).to_le_bytes());
        }
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
    fs::write(directory.join("model.safetensors"), file).expect("the weights can be written");
    fs::write(directory.join("config.json"), family.config(size).to_string()).expect("the config can be written");
    let tokenizer = if family.decoder() { letters() } else { word_pieces() };
    fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).expect("the tokenizer can be written");
}

fn vocabulary(tokens: impl IntoIterator<Item = String>) -> Value {
    Value::Object(tokens.into_iter().enumerate().map(|(id, token)| (token, json!(id))).collect())
}

fn special(tokens: &[&str]) -> Value {
    let token = |(id, content): (usize, &&str)| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    Value::Array(tokens.iter().enumerate().map(token).collect())
}

/// A sentencepiece-like tokenizer of one token per letter, which opens a text with `<s>`.
pub(crate) fn letters() -> Value {
    let tokens = ["<unk>", "<s>", "</s>", "▁"].map(str::to_owned).into_iter();
    let tokens = tokens.chain(('a'..='z').chain(['.', '\n']).map(String::from));
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": special(&["<unk>", "<s>", "</s>"]),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": false,
                  "vocab": vocabulary(tokens), "merges": []},
    })
}

/// A BERT-like tokenizer that spells every word.
pub(crate) fn word_pieces() -> Value {
    let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(str::to_owned).into_iter();
    let tokens = tokens.chain(('a'..='z').map(String::from)).chain(('a'..='z').map(|letter| format!("##{letter}")));
    let around = |name: &str, id: usize| (name.to_owned(), json!({"id": name, "ids": [id], "tokens": [name]}));
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": special(&["[PAD]", "[UNK]", "[CLS]", "[SEP]"]),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "[SEP]", "type_id": 0}}], "pair": [
            {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
            {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": Value::Object([around("[CLS]", 2), around("[SEP]", 3)].into_iter().collect())},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": false},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100,
                  "vocab": vocabulary(tokens.chain([".", ","].map(str::to_owned)))},
    })
}

/// The model of a family, opened from a directory of its own that is gone again when this returns: nothing is read
/// from it later, since quantizing reads every value.
pub(crate) fn quantized(family: Family, size: Size, preset: Preset) -> Model {
    quantized_with_exits(family, size, preset, &[])
}

/// The same with exit heads after these numbers of layers, which have the weights of the last head.
pub(crate) fn quantized_with_exits(family: Family, size: Size, preset: Preset, exits: &[usize]) -> Model {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), family, size);
    let mut model = open_model(directory.path()).expect("the fixture is sound");
    if !exits.is_empty() {
        model = with_exits(&model, exits).expect("it can have them");
    }
    let vocabulary = model.spec.vocabulary as u64;
    let length = size.context.min(24) as u64;
    let sequences: Vec<Vec<u32>> = (0..4u64)
        .map(|stream| (0..length).map(|index| (random_u64(99 + stream, index) % vocabulary) as u32).collect())
        .collect();
    let statistics = collect(&model, &sequences, &device("flex").expect("known"), &Silent).expect("it runs");
    let assignment = preset.assign(&model.spec);
    let (quantized, _) =
        slmc::quantize::quantize(&model, &assignment, Some(&statistics), &Silent).expect("it can be quantized");
    // The dense norms are mapped from a file that goes away with the directory; the mapping keeps them.
    quantized
}

/// The model with `rows` random tokens, and the matrices whose rows are tokens in `scheme`.
pub(crate) fn with_tokens(mut model: Model, rows: usize, scheme: QuantScheme) -> Model {
    model.spec.vocabulary = rows;
    for role in [Role::TokenEmbedding, Role::LmHead] {
        let id = LinearId { layer: None, role };
        if let Some(Parameter::Quantized(matrix)) = model.parameters.get_mut(&ParameterId::weight(id)) {
            let unit = |n: usize| (random_u64(role as u64, n as u64) >> 40) as f32 / (1 << 24) as f32 - 0.5;
            let weights: Vec<f32> = (0..rows * matrix.columns()).map(unit).collect();
            *matrix = quantize_matrix(view_rows(&weights, matrix.columns()), scheme, None);
        }
    }
    if let Some(bias) = model.parameters.get_mut(&ParameterId::Linear(LinearId::global(Role::LmHead), Part::Bias)) {
        let values: Vec<f32> = (0..rows).map(|row| row as f32 * 0.01).collect();
        *bias = Parameter::Dense(DenseTensor::from_f32(vec![rows], &values).expect("one value per row"));
    }
    model
}

/// An artifact of a quantized fixture, with a host part; a decoder's turns text into tokens.
pub(crate) fn compiled(model: &Model, device: &Target, context: Option<usize>) -> Compiled {
    compiled_with(model, device, context, AskedSections::default())
}

/// The same with what is asked for beside the model.
pub(crate) fn compiled_with(model: &Model, device: &Target, context: Option<usize>, asked: AskedSections) -> Compiled {
    let letters = (model.spec.vocabulary == LETTERS).then(|| {
        let tokenizer = Tokenizer::from_bytes("letters.json".into(), letters().to_string().as_bytes());
        tokenizer.expect("a tokenizer").device_text().expect("the device has every part of it")
    });
    let text = TextSection {
        vocabulary: (0..model.spec.vocabulary).map(|id| format!(" t{id}").into_bytes()).collect(),
        strip_leading_space: true,
        tables: letters,
        chat_frame: None,
        sampling: None,
        asked,
    };
    let tokenizer =
        if model.spec.kind == slmc::model::spec::ModelKind::Decoder { self::letters() } else { word_pieces() };
    let host = HostSections {
        tokenizer: Some(tokenizer.to_string().into_bytes()),
        provenance: Some(b"{\"stage\":\"compile\"}".to_vec()),
        chat_template: None,
    };
    compile(model, device, context, &text, &host, &Silent).expect("the fixture compiles")
}

/// A directory with a small model, a text and a recipe of this name that reads both.
pub(crate) fn workshop(name: &str, recipe: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    write(&directory.path().join("model"), Family::TiedLlama, Size::SMALL);
    let text = "the cat sat on the mat and the dog ran to the man. ".repeat(60);
    fs::write(directory.path().join("text.txt"), text).expect("the text can be written");
    fs::write(directory.path().join(name), recipe).expect("the recipe can be written");
    directory
}
