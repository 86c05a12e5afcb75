//! Values of config.json and tensors of the families beside llama and bert: what each refuses, by key, and what it reads
//! in either spelling. The checkpoints are the golden ones, damaged in a copy.

use super::fixture::expect;
use crate::support::golden;
use serde_json::{Value, json};
use slmc::formats::{open_model, open_outline};
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
    let cases: [(&str, &str, Value, &str); 45] = [
        ("mistral", "architectures", json!(["MistralModel"]), "mistral supports MistralForCausalLM"),
        ("mistral", "hidden_act", json!("gelu"), "`hidden_act` is `gelu`; mistral supports silu"),
        ("mistral", "sliding_window", json!(0), "`sliding_window` is 0"),
        ("mistral", "sliding_window", json!("all"), "`sliding_window` is \"all\""),
        ("mistral", "layer_types", json!(["full_attention"]), "`layer_types`"),
        ("mistral", "attention_bias", json!(true), "`attention_bias` is `true`"),
        ("mistral", "rope_parameters", json!({"rope_type": "yarn"}), "`rope_parameters.rope_type` is `yarn`; mistral"),
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
        ("phi3-fused-qkv", "partial_rotary_factor", json!(0.75), "`partial_rotary_factor` is `0.75`"),
        (
            "phi3-fused-qkv",
            "rope_parameters",
            json!({"rope_type": "longrope", "rope_theta": 1e4}),
            "`rope_parameters.rope_type` is `longrope`; phi3 supports default, llama3",
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
            "distilbert-mlm",
            "architectures",
            json!(["DistilBertForQuestionAnswering"]),
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
            "`rope_parameters.full_attention.rope_type` is `linear`",
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
            "lfm2-short-conv",
            "tie_embedding",
            json!(false),
            "`tie_embedding` is false, expected what tie_word_embeddings",
        ),
    ];
    for (name, key, value, expected) in cases {
        let dir = copy(name, |config| config[key] = value.clone());
        match expected {
            // Not read where another key makes it moot.
            "" => drop(open_model(dir.path()).unwrap()),
            _ => expect(dir.path(), &[expected]),
        }
    }
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
