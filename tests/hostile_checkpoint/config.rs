//! Values of config.json: the closed lists of both families.

use super::fixture::{bert_config, bert_tensors, expect, f32_tensor, llama_config, llama_tensors, write};
use serde_json::{Value, json};
use slmc::formats::open_model;

#[test]
fn configurations_outside_the_closed_lists_are_refused_by_key() {
    let cases = [
        (
            "model_type",
            json!("mamba"),
            "`model_type` is `mamba`; slmc supports bert, camembert, distilbert, electra, gemma2, gemma3_text, gpt2, gpt_neox, granite, granitemoe, lfm2, llama, ministral3, mistral, mobilellm, modernbert, nomic_bert, olmo2, opt, phi, phi3, qwen2, qwen3, roberta, smollm3, stablelm, starcoder2, t5, xlm-roberta",
        ),
        ("model_type", json!(3), "`model_type` is 3, expected a string"),
        (
            "architectures",
            json!(["LlamaForTokenClassification"]),
            "`architectures` is `[\"LlamaForTokenClassification\"]`",
        ),
        ("architectures", json!(["A", "B"]), "`architectures` is [\"A\",\"B\"]"),
        ("hidden_act", json!("foo"), "`hidden_act` is `foo`; llama supports silu"),
        ("hidden_size", json!(0), "`hidden_size` is 0"),
        ("hidden_size", json!(-8), "`hidden_size` is -8"),
        ("hidden_size", json!(8.5), "`hidden_size` is 8.5"),
        ("hidden_size", Value::Null, "key `hidden_size` is missing"),
        ("vocab_size", json!(4294967296u64), "`vocab_size` is 4294967296"),
        ("num_hidden_layers", json!(70000), "`num_hidden_layers` is 70000, expected at most 65535"),
        ("num_attention_heads", json!(3), "`num_attention_heads` is 3, expected a divisor of hidden_size, 8"),
        ("num_key_value_heads", json!(3), "`num_key_value_heads` is 3, expected a divisor of num_attention_heads, 2"),
        ("head_dim", json!(5), "`head_dim` is 5"),
        ("rms_norm_eps", json!(0.0), "`rms_norm_eps` is 0.0"),
        ("rope_theta", json!("big"), "`rope_theta` is \"big\""),
        (
            "rope_scaling",
            json!({"type": "ntk", "factor": 2.0}),
            "`rope_scaling.type` is `ntk`; llama supports default, linear, dynamic, llama3, yarn, longrope",
        ),
        ("rope_scaling", json!({"rope_type": "yarn"}), "key `rope_scaling.factor` is missing"),
        ("rope_scaling", json!({"rope_type": "llama3"}), "key `rope_scaling.factor` is missing"),
        ("rope_parameters", json!({"rope_type": "dynamic"}), "key `rope_parameters.factor` is missing"),
        ("rope_parameters", json!({"rope_type": "default", "rope_theta": 5.0}), "`rope_parameters` is {"),
        ("rope_parameters", json!({"full_attention": {"rope_type": "default"}}), "`rope_parameters.full_attention` is"),
        ("rope_parameters", json!({"partial_rotary_factor": 0.5}), "`rope_parameters.partial_rotary_factor` is `0.5`"),
        ("partial_rotary_factor", json!(0.5), "`partial_rotary_factor` is `0.5`"),
        ("pretraining_tp", json!(2), "`pretraining_tp` is `2`; llama supports 1"),
        ("sliding_window", json!(8), "`sliding_window` is `8`"),
        ("layer_types", json!(["sliding_attention"]), "`layer_types` is `[\"sliding_attention\"]`"),
        ("attention_bias", json!("yes"), "`attention_bias` is \"yes\""),
        ("attention_bias", json!(true), "tensor `model.layers.0.self_attn.q_proj.bias` is missing"),
        ("tie_word_embeddings", json!(1), "`tie_word_embeddings` is 1"),
        ("eos_token_id", json!([2, "</s>"]), "`eos_token_id` is [2,\"</s>\"]"),
        (
            "quantization_config",
            json!({"quant_method": "bitsandbytes"}),
            "`quantization_config.quant_method` is `bitsandbytes`",
        ),
        ("quantization_config", json!({}), "key `quantization_config.quant_method` is missing"),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (key, value, expected) in cases {
        let mut config = llama_config();
        config[key] = value;
        write(dir.path(), &config, &llama_tensors());
        expect(dir.path(), &["config.json", expected][usize::from(expected.starts_with("tensor"))..]);
    }
    for (key, value) in [
        ("architectures", json!([])),
        ("model_type", Value::Null),
        ("layer_types", json!(["full_attention"])),
        ("sliding_window", Value::Null),
        ("partial_rotary_factor", json!(1.0)),
        ("rope_parameters", json!({"rope_type": "default", "rope_theta": 10000})),
        ("rope_scaling", json!({"type": "default"})),
        ("attention_dropout", json!(0.5)),
        ("something_new", json!({"use_cache": true})),
    ] {
        let mut config = llama_config();
        config[key] = value;
        write(dir.path(), &config, &llama_tensors());
        let model = open_model(dir.path()).unwrap();
        assert_eq!((&model.spec.opening[..], &model.spec.ends[..]), (&[][..], &[2, 3][..]), "{key}");
    }
}

#[test]
fn bert_reads_old_spellings_and_refuses_what_it_does_not_compute() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &bert_config(), &bert_tensors());
    // decoder.weight equals the token table and decoder.bias the head's bias, because the builder fills them alike.
    open_model(dir.path()).unwrap();
    let cases = [
        ("hidden_act", json!("relu"), "`hidden_act` is `relu`; bert supports gelu, gelu_new, gelu_pytorch_tanh"),
        ("position_embedding_type", json!("relative_key"), "`position_embedding_type` is `relative_key`"),
        ("is_decoder", json!(true), "`is_decoder` is `true`"),
        ("add_cross_attention", json!(true), "`add_cross_attention` is `true`"),
        (
            "architectures",
            json!(["BertForMultipleChoice"]),
            "`architectures` is `[\"BertForMultipleChoice\"]`; bert supports BertModel",
        ),
        ("num_attention_heads", json!(3), "`num_attention_heads` is 3, expected a divisor of hidden_size, 8"),
        (
            "architectures",
            json!(["BertForSequenceClassification"]),
            "tensor `classifier.weight` is missing, expected shape [2, 8] by config.json; tensor `cls.predictions.bias` and",
        ),
        ("architectures", json!(["BertModel"]), "tensor `cls.predictions.bias` has no place in bert"),
    ];
    for (key, value, expected) in cases {
        let mut config = bert_config();
        config[key] = value;
        write(dir.path(), &config, &bert_tensors());
        expect(dir.path(), &[expected]);
    }
    for labels in
        [json!({"0": "a", "2": "b"}), json!({"x": "a"}), json!({}), json!({"0": ["a"]}), json!({"0": "a", "00": "b"})]
    {
        let mut config = bert_config();
        config["architectures"] = json!(["BertForSequenceClassification"]);
        config["id2label"] = labels;
        write(dir.path(), &config, &bert_tensors());
        expect(dir.path(), &["id2label"]);
    }
    let mut tensors = bert_tensors();
    tensors.get_mut("cls.predictions.decoder.bias").unwrap().2[0] ^= 1;
    write(dir.path(), &bert_config(), &tensors);
    expect(dir.path(), &["`cls.predictions.decoder.bias` differs from `cls.predictions.bias`"]);
    let mut both = bert_tensors();
    both.insert("bert.embeddings.LayerNorm.weight".into(), f32_tensor(&[8]));
    write(dir.path(), &bert_config(), &both);
    expect(dir.path(), &["`bert.embeddings.LayerNorm.gamma` has no place in bert"]);
}
