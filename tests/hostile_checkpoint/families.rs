//! Values of config.json and tensors of the families beside llama and bert: what each refuses, by key, and what it reads
//! in either spelling. The checkpoints are the golden ones, damaged in a copy.

use super::fixture::expect;
use crate::support::golden;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use slmc::formats::hugging_face::Directory;
use slmc::formats::{ModelSink, open_model, open_outline};
use slmc::model::spec::{Mixer, ModelSpec};
use std::fs;
use std::path::Path;

/// A copy of a golden checkpoint with another configuration.
fn copy(name: &str, edit: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let source = golden(name);
    let dir = tempfile::tempdir().unwrap();
    fs::copy(source.join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    let mut config = serde_json::from_slice(&fs::read(source.join("config.json")).unwrap()).unwrap();
    edit(&mut config);
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    dir
}

fn spec(dir: &Path) -> ModelSpec {
    open_outline(dir).unwrap().spec
}

#[test]
fn configurations_outside_the_closed_lists_are_refused_by_key() {
    let gemma = "gemma3-text";
    let cases: [(&str, &str, Value, &str); 150] = [
        ("mistral", "architectures", json!(["MistralModel"]), "mistral supports MistralForCausalLM"),
        ("mistral", "hidden_act", json!("gelu"), "`hidden_act` is `gelu`; mistral supports silu"),
        ("mistral", "sliding_window", json!(0), "`sliding_window` is 0"),
        ("mistral", "sliding_window", json!("all"), "`sliding_window` is \"all\""),
        ("mistral", "layer_types", json!(["full_attention"]), "`layer_types`"),
        ("mistral", "attention_bias", json!(true), "`attention_bias` is `true`"),
        ("mistral", "rope_parameters", json!({"rope_type": "ntk"}), "`rope_parameters.rope_type` is `ntk`; mistral"),
        ("mistral", "rope_parameters", json!({"rope_type": "yarn"}), "key `rope_parameters.factor` is missing"),
        ("qwen2-qkv-bias", "layer_types", json!(["full_attention"]), "expected a list of 3 names"),
        (
            "qwen2-qkv-bias",
            "layer_types",
            json!(["full_attention", "full_attention", "linear_attention"]),
            "qwen2 supports full_attention, sliding_attention",
        ),
        (
            "qwen2-qkv-bias",
            "layer_types",
            json!(["full_attention", "sliding_attention", "full_attention"]),
            "full_attention where use_sliding_window is false",
        ),
        ("qwen2-qkv-bias", "max_window_layers", json!(-1), ""),
        ("qwen2-qkv-bias", "use_mrope", json!(true), "`use_mrope` is `true`"),
        ("qwen2-qkv-bias", "num_key_value_heads", json!(3), "`num_key_value_heads` is 3"),
        ("qwen3-qk-norm", "attention_bias", json!(true), "tensor `model.layers.0.self_attn.q_proj.bias` is missing"),
        ("qwen3-qk-norm", "head_dim", json!(31), "`head_dim` is 31, expected an even width"),
        ("qwen3-qk-norm", "hidden_act", json!("relu"), "qwen3 supports silu"),
        (
            "phi3-fused-qkv",
            "partial_rotary_factor",
            json!(0.75),
            "`partial_rotary_factor` is 0.75, expected what rope_parameters.partial_rotary_factor says",
        ),
        (
            "phi3-fused-qkv",
            "rope_parameters",
            json!({"rope_type": "longrope", "rope_theta": 1e4}),
            "`rope_parameters.short_factor` is absent, expected a list of 5 numbers above 0",
        ),
        (
            "phi3-fused-qkv",
            "num_key_value_heads",
            json!(4),
            "`model.layers.0.self_attn.qkv_proj.weight` has shape [80, 40], expected [120, 40]",
        ),
        (
            "phi3-fused-qkv",
            "intermediate_size",
            json!(36),
            "`model.layers.0.mlp.gate_up_proj.weight` has shape [144, 40], expected [72, 40]",
        ),
        ("gpt2", "activation_function", json!("relu"), "gpt2 supports gelu_new, gelu_pytorch_tanh, gelu"),
        ("gpt2", "scale_attn_weights", json!(false), "`scale_attn_weights` is `false`"),
        ("gpt2", "scale_attn_by_inverse_layer_idx", json!(true), "`scale_attn_by_inverse_layer_idx` is `true`"),
        ("gpt2", "add_cross_attention", json!(true), "`add_cross_attention` is `true`"),
        ("gpt2", "n_head", json!(3), "`n_head` is 3, expected a divisor of hidden_size, 40"),
        ("gpt2", "n_inner", json!(128), "`transformer.h.0.mlp.c_fc.weight` has shape [40, 160], expected [40, 128]"),
        ("gpt2", "tie_word_embeddings", json!(false), "tensor `lm_head.weight` is missing, expected shape [96, 40]"),
        ("distilbert-mlm", "activation", json!("relu"), "`activation` is `relu`; distilbert supports gelu"),
        (
            "distilbert-classifier",
            "id2label",
            json!({"0": "a"}),
            "`classifier.weight` has shape [7, 40], expected [1, 40]",
        ),
        (
            "distilbert-mlm",
            "architectures",
            json!(["DistilBertForMultipleChoice"]),
            "distilbert supports DistilBertModel, DistilBertForMaskedLM",
        ),
        ("distilbert-mlm", "n_heads", json!(3), "`n_heads` is 3"),
        (gemma, "attn_logit_softcapping", json!(50.0), "`attn_logit_softcapping` is `50.0`"),
        (gemma, "final_logit_softcapping", json!(30.0), "`final_logit_softcapping` is `30.0`"),
        (gemma, "use_bidirectional_attention", json!(true), "`use_bidirectional_attention` is `true`"),
        (gemma, "hidden_activation", json!("gelu"), "gemma3_text supports gelu_pytorch_tanh"),
        (gemma, "dtype", json!("float64"), "`dtype` is `float64`"),
        (
            gemma,
            "rope_parameters",
            json!({"full_attention": {"rope_type": "linear", "factor": 8.0}, "sliding_attention": {}}),
            "",
        ),
        // The class's base for the layers that are not there.
        (gemma, "rope_parameters", json!({"full_attention": {"rope_type": "default"}}), ""),
        (gemma, "rope_parameters", json!({"rope_theta": 5.0}), "`rope_parameters.rope_theta` is `5.0`"),
        (gemma, "layer_types", json!(["conv", "full_attention", "sliding_attention"]), "`layer_types`"),
        ("lfm2-short-conv", "conv_bias", json!(true), "tensor `model.layers.0.conv.in_proj.bias` is missing"),
        ("lfm2-short-conv", "conv_L_cache", json!(4), "has shape [40, 1, 3], expected [40, 1, 4]"),
        ("lfm2-short-conv", "conv_dim", json!(32), "`conv_dim` is `32`; lfm2 supports hidden_size, 40"),
        ("lfm2-short-conv", "block_auto_adjust_ff_dim", json!(true), "has shape [72, 40], expected [256, 40]"),
        ("lfm2-short-conv", "block_ffn_dim_multiplier", json!(0.0), ""),
        (
            "llama-linear",
            "rope_parameters",
            json!({"rope_type": "linear", "factor": 0}),
            "`rope_parameters.factor` is 0",
        ),
        ("llama-linear", "rope_parameters", json!({"rope_type": "linear"}), "key `rope_parameters.factor` is missing"),
        ("llama-linear", "partial_rotary_factor", json!(0.5), "`partial_rotary_factor` is `0.5`"),
        (
            "llama-yarn",
            "rope_parameters",
            json!({"rope_type": "yarn", "factor": 4.0, "beta_fast": 0.5}),
            "`rope_parameters.beta_fast` is 0.5",
        ),
        (
            "llama-yarn",
            "rope_parameters",
            json!({"rope_type": "yarn", "factor": 4.0, "truncate": 1}),
            "`rope_parameters.truncate` is 1",
        ),
        ("llama-yarn", "rope_scaling", json!({"rope_type": "yarn", "factor": 8.0}), "`rope_parameters`"),
        (
            "phi3-longrope-partial",
            "original_max_position_embeddings",
            json!(64),
            "`original_max_position_embeddings` is 64",
        ),
        (
            "phi3-longrope-partial",
            "partial_rotary_factor",
            json!(0.5),
            "what rope_parameters.partial_rotary_factor says",
        ),
        (
            "phi3-fused-qkv",
            "rope_parameters",
            json!({"partial_rotary_factor": 0.75}),
            "expected a share of 10 that leaves an even width between 2 and 10",
        ),
        ("phi3-longrope-partial", "head_dim", json!(32), "expected a list of 12 numbers above 0"),
        ("roberta-mlm-padded", "max_position_embeddings", json!(128), "has shape [130, 40], expected [128, 40]"),
        (
            "roberta-mlm-padded",
            "max_position_embeddings",
            json!(2),
            "expected more than 2: positions begin after pad_token_id",
        ),
        ("roberta-mlm-padded", "pad_token_id", json!(-1), "`pad_token_id` is -1, expected a token"),
        (
            "roberta-mlm-padded",
            "position_embedding_type",
            json!("relative_key"),
            "`position_embedding_type` is `relative_key`",
        ),
        ("roberta-mlm-padded", "is_decoder", json!(true), "`is_decoder` is `true`"),
        ("roberta-mlm-padded", "architectures", json!(["RobertaForMultipleChoice"]), "roberta supports RobertaModel"),
        ("camembert-mlm", "architectures", json!(["RobertaForMaskedLM"]), "camembert supports CamembertModel"),
        ("bert-tokens", "architectures", json!(["DistilBertForTokenClassification"]), "bert supports BertModel"),
        ("bert-tokens", "architectures", json!(["BertForQuestionAnswering"]), "qa_outputs.weight"),
        ("bert-tokens", "id2label", json!({"0": "O", "1": "B"}), "has shape [7, 40], expected [2, 40]"),
        ("bert-answers", "architectures", json!(["BertForTokenClassification"]), "classifier.weight"),
        ("electra-tokens", "architectures", json!(["BertForTokenClassification"]), "electra supports ElectraModel"),
        ("xlm-roberta-encoder", "architectures", json!(["RobertaModel"]), "xlm-roberta supports XLMRobertaModel"),
        (
            "electra-mlm",
            "embedding_size",
            json!(20),
            "`embedding_size` is `20`; electra supports hidden_size, 40, where",
        ),
        ("electra-tokens", "embedding_size", json!(64), "electra supports at most hidden_size, 40"),
        ("electra-small-tokens", "embedding_size", json!(40), "has shape [96, 24], expected [96, 40]"),
        ("electra-small-tokens", "embedding_size", json!(20), "has shape [96, 24], expected [96, 20]"),
        (
            "modernbert-mlm",
            "architectures",
            json!(["ModernBertForTokenClassification"]),
            "modernbert supports ModernBertModel",
        ),
        ("modernbert-classifier", "classifier_pooling", json!("max"), "modernbert supports cls, mean"),
        ("modernbert-mlm", "hidden_activation", json!("relu"), "`hidden_activation` is `relu`"),
        ("modernbert-mlm", "local_attention", json!(-1), "`local_attention` is -1"),
        ("modernbert-mlm", "layer_types", json!(["full_attention"]), "expected a list of 4 names"),
        ("modernbert-mlm", "rope_parameters", json!({"rope_theta": 1e4}), "a section for each of full_attention and"),
        (
            "modernbert-mlm",
            "rope_parameters",
            json!({"full_attention": {"rope_type": "linear", "factor": 2.0}}),
            "`rope_parameters.full_attention.rope_type` is `linear`",
        ),
        ("modernbert-mlm", "norm_bias", json!(true), "norm.bias"),
        ("modernbert-mlm", "attention_bias", json!(true), "Wqkv.bias"),
        ("modernbert-mlm", "decoder_bias", json!(false), "decoder.bias"),
        ("nomic-bert-encoder", "hidden_act", json!("gelu"), "`hidden_act` is `gelu`"),
        ("nomic-bert-encoder", "prenorm", json!(true), "`prenorm` is `true`"),
        ("nomic-bert-encoder", "qkv_proj_bias", json!(true), "`qkv_proj_bias` is `true`"),
        ("nomic-bert-encoder", "num_experts", json!(8), "`num_experts` is `8`"),
        ("nomic-bert-encoder", "rotary_emb_interleaved", json!(true), "`rotary_emb_interleaved` is `true`"),
        ("nomic-bert-encoder", "rotary_scaling_factor", json!(2.0), "key `max_trained_positions` is missing"),
        ("nomic-bert-encoder", "rotary_emb_base", json!(10000), "what rope_parameters says"),
        ("nomic-bert-encoder", "head_dim", json!(16), "nomic_bert supports hidden_size / num_attention_heads, 10"),
        ("nomic-bert-encoder", "n_embd", json!(48), "remove either"),
        (
            "nomic-bert-encoder",
            "architectures",
            json!(["NomicBertForQuestionAnswering"]),
            "nomic_bert supports NomicBertModel",
        ),
        ("electra-mlm", "architectures", json!(["ElectraForPreTraining"]), "electra supports ElectraModel"),
        ("granite-multipliers", "residual_multiplier", json!(0), "`residual_multiplier` is 0"),
        ("granite-multipliers", "logits_scaling", json!(1e9), "expected a number from 1e-6 to 1e6"),
        ("granite-multipliers", "num_local_experts", json!(8), "`num_local_experts` is `8`"),
        ("granitemoe", "num_experts_per_tok", json!(6), "expected at most 5, with 5 experts"),
        ("granitemoe", "num_experts_per_tok", json!(0), "`num_experts_per_tok` is 0"),
        ("granitemoe", "num_local_experts", json!(2000), "expected at most 1024"),
        ("granitemoe", "num_local_experts", json!(6), "has shape [5, 48], expected [6, 48]"),
        ("granitemoe", "intermediate_size", json!(60), "expected a multiple of 64"),
        ("granitemoe", "intermediate_size", json!(1 << 24), "expected at most 3355443 with 5 experts"),
        ("granitemoe", "hidden_size", json!(40), "expected a multiple of 16"),
        ("granitemoe", "shared_intermediate_size", json!(64), "`shared_intermediate_size` is `64`"),
        ("granitemoe", "architectures", json!(["GraniteMoeSharedForCausalLM"]), "supports GraniteMoeForCausalLM"),
        ("smollm3-no-positions", "no_rope_layers", json!([1, 1]), "expected a list of 4 flags"),
        ("smollm3-no-positions", "no_rope_layers", json!([1, 1, 2, 0]), "expected a list of 4 flags"),
        (
            "smollm3-no-positions",
            "use_sliding_window",
            json!(false),
            "full_attention where use_sliding_window is false",
        ),
        ("starcoder2", "use_bias", json!(false), "tensor `model.layers.0.mlp.c_fc.bias`"),
        ("starcoder2", "hidden_act", json!("relu"), "starcoder2 supports gelu_pytorch_tanh, gelu_new, gelu"),
        ("stablelm-partial-rotary", "use_parallel_residual", json!(true), "`use_parallel_residual` is `true`"),
        ("stablelm-partial-rotary", "qk_layernorm", json!(true), "`qk_layernorm` is `true`"),
        ("stablelm-partial-rotary", "use_qkv_bias", json!(false), "self_attn.k_proj.bias"),
        ("ministral3-yarn", "layer_types", json!(["full_attention", "full_attention"]), "`layer_types`"),
        ("mobilellm", "layer_sharing", json!(true), "`layer_sharing` is `true`"),
        ("mobilellm", "share_embedding", json!(false), "tensor `lm_head.weight` is missing"),
        ("opt", "do_layer_norm_before", json!(false), "`do_layer_norm_before` is `false`"),
        ("opt", "word_embed_proj_dim", json!(20), "`word_embed_proj_dim` is `20`; opt supports hidden_size, 40"),
        ("opt", "activation_function", json!("gelu"), "opt supports relu"),
        ("opt", "max_position_embeddings", json!(130), "has shape [130, 40], expected [132, 40]"),
        ("gpt-neox-parallel", "num_key_value_heads", json!(2), "`num_key_value_heads` is `2`"),
        ("gpt-neox-parallel", "num_attention_heads", json!(3), "`num_attention_heads` is 3, expected a divisor"),
        ("gpt-neox-parallel", "hidden_act", json!("relu"), "gpt_neox supports gelu, gelu_new, gelu_pytorch_tanh"),
        ("gpt-neox-parallel", "attention_bias", json!(false), "attention.dense.bias"),
        ("gpt-neox-parallel", "rotary_pct", json!(0.5), "what rope_parameters.partial_rotary_factor says"),
        (
            "llama-classifier-padded",
            "architectures",
            json!(["LlamaForTokenClassification"]),
            "llama supports LlamaForCausalLM, LlamaForSequenceClassification",
        ),
        (
            "llama-classifier-padded",
            "id2label",
            json!({"0": "a", "1": "b"}),
            "`score.weight` has shape [7, 40], expected [2, 40]",
        ),
        ("llama-classifier-padded", "slmc_exits", json!({"layers": [1]}), "labels by the state of the last token"),
        ("gpt2-classifier", "architectures", json!(["GPT2LMHeadModel"]), "tensor `score.weight`"),
        ("qwen3-classifier", "architectures", json!(["Qwen3Model"]), "tensor `score.weight`"),
        ("gemma2", "attn_logit_softcapping", json!(0), "`attn_logit_softcapping` is 0"),
        ("gemma2", "final_logit_softcapping", json!(1e9), "expected a number from 1e-3 to 1e6, or null"),
        ("gemma2", "use_bidirectional_attention", json!(true), "`use_bidirectional_attention` is `true`"),
        ("gemma2", "layer_types", json!(["full_attention"]), "a list of 2 names"),
        ("gemma3-text", "attn_logit_softcapping", json!(50.0), "`attn_logit_softcapping` is `50.0`"),
        ("gemma2", "hidden_activation", json!("gelu"), "gemma2 supports gelu_pytorch_tanh"),
        (
            "gemma3-embedding-padded",
            "use_bidirectional_attention",
            json!(false),
            "Gemma3TextModel where use_bidirectional_attention is true",
        ),
        ("gemma3-embedding-padded", "architectures", json!(["Gemma3ForCausalLM"]), "true with Gemma3TextModel"),
        ("gemma3-embedding-padded", "architectures", json!(["Gemma3Model"]), "gemma3_text supports Gemma3ForCausalLM"),
        ("gemma3-embedding-padded", "sliding_window", json!(0), "`sliding_window` is 0"),
        ("phi", "qk_layernorm", json!(true), "`qk_layernorm` is `true`"),
        ("phi", "hidden_act", json!("relu"), "phi supports gelu_new, gelu_pytorch_tanh, gelu"),
        ("phi", "partial_rotary_factor", json!(0.5), "what rope_parameters.partial_rotary_factor says"),
        ("phi", "architectures", json!(["PhiForSequenceClassification"]), "phi supports PhiForCausalLM"),
        ("phi", "tie_word_embeddings", json!(true), "lm_head.weight"),
        ("olmo2", "architectures", json!(["Olmo3ForCausalLM"]), "olmo2 supports Olmo2ForCausalLM"),
        ("olmo2", "sliding_window", json!(16), "`sliding_window` is `16`"),
        (
            "olmo2",
            "num_key_value_heads",
            json!(4),
            "`model.layers.0.self_attn.k_proj.weight` has shape [20, 40], expected [40, 40]",
        ),
        (
            "lfm2-short-conv",
            "tie_embedding",
            json!(false),
            "`tie_embedding` is false, expected what tie_word_embeddings",
        ),
    ];
    let mut wrong = Vec::new();
    for (name, key, value, expected) in cases {
        let dir = copy(name, |config| config[key] = value.clone());
        let checked = std::panic::catch_unwind(|| match expected {
            // Not read where another key makes it moot.
            "" => drop(open_model(dir.path()).unwrap()),
            _ => expect(dir.path(), &[expected]),
        });
        wrong.extend(checked.is_err().then(|| format!("{name}: {key} = {value}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The number of its class, which is not that of the tensors.
    for (name, found) in [
        (
            "mistral",
            "`num_key_value_heads` is absent, which stands for 8, expected a divisor of num_attention_heads, 4",
        ),
        ("qwen2-qkv-bias", "which stands for 32"),
        ("qwen3-qk-norm", "which stands for 32"),
        ("gemma3-text", "`model.layers.0.self_attn.k_proj.weight` has shape [24, 40], expected [48, 40]"),
        ("lfm2-short-conv", "which stands for 8"),
    ] {
        let dir = copy(name, |config| drop(config.as_object_mut().unwrap().remove("num_key_value_heads")));
        expect(dir.path(), &[found]);
    }
}

#[test]
fn windows_are_those_of_transformers() {
    let windows = |name: &str, edit: &dyn Fn(&mut Value)| -> Vec<Option<usize>> {
        let dir = copy(name, edit);
        let window = |mixer: &Mixer| if let Mixer::Attention(attention) = mixer { attention.window } else { None };
        spec(dir.path()).layers.iter().map(|layer| window(&layer.mixer)).collect()
    };
    let remove = |config: &mut Value, key: &str| drop(config.as_object_mut().unwrap().remove(key));
    type Edit<'a> = &'a dyn Fn(&mut Value);
    let cases: [(&str, Edit<'_>, [Option<usize>; 3]); 9] = [
        ("mistral-sliding-window-8", &|_| {}, [Some(8); 3]),
        ("mistral-sliding-window-8", &|c| c["sliding_window"] = json!(128), [None; 3]),
        // 4096 by default, which matters only beyond it.
        ("mistral", &|c| remove(c, "sliding_window"), [None; 3]),
        (
            "mistral",
            &|c| {
                remove(c, "sliding_window");
                c["max_position_embeddings"] = json!(8192);
            },
            [Some(4096); 3],
        ),
        (
            "qwen2-qkv-bias",
            &|c| {
                remove(c, "layer_types");
                (c["use_sliding_window"], c["sliding_window"], c["max_window_layers"]) =
                    (json!(true), json!(9), json!(1));
            },
            [None, Some(9), Some(9)],
        ),
        (
            "qwen3-qk-norm",
            &|c| {
                c["layer_types"] = json!(["sliding_attention", "full_attention", "full_attention"]);
                (c["use_sliding_window"], c["sliding_window"]) = (json!(true), json!(9));
            },
            [Some(9), None, None],
        ),
        ("phi3-fused-qkv", &|c| c["sliding_window"] = json!(47), [Some(47); 3]),
        ("gemma3-text", &|_| {}, [Some(16), None, Some(16)]),
        (
            "gemma3-text",
            &|c| {
                remove(c, "layer_types");
                c["sliding_window_pattern"] = json!(3);
            },
            [Some(16), Some(16), None],
        ),
    ];
    for (name, edit, expected) in cases {
        assert_eq!(windows(name, edit), expected, "{name}");
    }
}

#[test]
fn both_spellings_give_the_same_specification() {
    let new = copy("gemma3-text", |_| {});
    let old = copy("gemma3-text", |config| {
        drop(config.as_object_mut().unwrap().remove("rope_parameters"));
        (config["rope_theta"], config["rope_local_base_freq"]) = (json!(1e6), json!(1e4));
        config["torch_dtype"] = config["dtype"].take();
    });
    assert_eq!(spec(new.path()), spec(old.path()));
    // √hidden in the type that the checkpoint computes in, here f32.
    assert_eq!(spec(new.path()).embedding_scale.to_bits(), 40f32.sqrt().to_bits());

    let new = copy("lfm2-short-conv", |_| {});
    let old = copy("lfm2-short-conv", |config| {
        for key in ["rope_parameters", "layer_types", "tie_word_embeddings", "intermediate_size"] {
            drop(config.as_object_mut().unwrap().remove(key));
        }
        (config["full_attn_idxs"], config["theta"], config["rope_theta"]) = (json!([1]), json!(1e6), json!(1e6));
        (config["tie_embedding"], config["conv_dim"], config["block_ff_dim"]) = (json!(true), json!(40), json!(72));
    });
    assert_eq!(spec(new.path()), spec(old.path()));
    // 2/3 of 72 is 48, rounded up to a multiple of 32.
    let adjusted = copy("lfm2-short-conv", |config| {
        (config["block_auto_adjust_ff_dim"], config["block_multiple_of"]) = (json!(true), json!(32));
    });
    expect(adjusted.path(), &["has shape [72, 40], expected [64, 40]"]);

    for name in ["mistral", "qwen2-qkv-bias", "qwen3-qk-norm", "phi3-fused-qkv"] {
        let new = copy(name, |_| {});
        let old = copy(name, |config| {
            config["rope_theta"] = config["rope_parameters"]["rope_theta"].take();
            drop(config.as_object_mut().unwrap().remove("rope_parameters"));
        });
        assert_eq!(spec(new.path()), spec(old.path()), "{name}");
    }
}

#[test]
fn contexts_that_would_need_another_model_are_named() {
    for (name, beyond) in [("phi3-longrope-partial", "long_factor"), ("ministral3-yarn", "llama_4_scaling_beta")] {
        let outline = open_outline(&golden(name)).unwrap();
        assert_eq!(outline.spec.context, 128, "{name}");
        let notes: Vec<String> = outline.notes.iter().map(ToString::to_string).collect();
        let said = notes.iter().any(|note| {
            note.contains("`max_position_embeddings` is 256; beyond the 128 positions") && note.contains(beyond)
        });
        assert!(said, "{name}: {notes:?}");
    }
    // Of an encoder that sees both ways half of the window to either side; the context is whole.
    let narrow = copy("gemma3-embedding-padded", |config| config["sliding_window"] = json!(100));
    let outline = open_outline(narrow.path()).unwrap();
    let windows: Vec<_> = outline.spec.layers.iter().map(|layer| layer.attention().unwrap().window).collect();
    assert_eq!((outline.spec.context, windows), (128, vec![Some(51), None]));
    // All of it is one model where the two contexts are the same.
    let whole = copy("phi3-longrope-partial", |config| {
        config["original_max_position_embeddings"] = json!(256);
        config["rope_parameters"]["original_max_position_embeddings"] = json!(256);
    });
    assert_eq!(spec(whole.path()).context, 256);
}

#[test]
fn heads_that_turn_in_part_and_factors_come_back_as_they_were_stored() {
    for name in [
        "stablelm-partial-rotary",
        "phi3-longrope-partial",
        "gpt-neox-parallel",
        "phi",
        "roberta-classifier",
        "opt",
        "granite-multipliers",
        "granitemoe",
    ] {
        let out = tempfile::tempdir().unwrap();
        let out = out.path().join("out");
        let model = open_model(&golden(name)).unwrap();
        Directory(&out).write(&model, &json!({})).unwrap();
        let read = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
        let (before, after) = (read(&golden(name)), read(&out));
        let (before, after) = (SafeTensors::deserialize(&before).unwrap(), SafeTensors::deserialize(&after).unwrap());
        assert_eq!(before.len(), after.len(), "{name}");
        for (tensor, old) in before.tensors() {
            let new = after.tensor(&tensor).unwrap();
            assert_eq!(old.shape(), new.shape(), "{name}: {tensor}");
            let alike = match name {
                // In f32, a factor there and back.
                "granite-multipliers" | "granitemoe" => {
                    let old =
                        old.data().as_chunks::<2>().0.iter().map(|bytes| half::f16::from_le_bytes(*bytes).to_f32());
                    let new = new.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
                    old.zip(new).all(|(old, new)| (old - new).abs() <= 1e-6 * old.abs())
                }
                // Rows before the first position are not the model's.
                _ if tensor.contains("position") => {
                    let first = 2 * new.shape()[1] * 2;
                    old.data()[first..] == new.data()[first..] && new.data()[..first].iter().all(|byte| *byte == 0)
                }
                _ => old.data() == new.data(),
            };
            assert!(alike, "{name}: {tensor}");
        }
        let again = open_model(&out).unwrap();
        assert_eq!(again.spec, model.spec, "{name}");
    }
}
