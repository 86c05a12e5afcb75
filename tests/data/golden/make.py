#!/usr/bin/env python3
"""Makes the golden checkpoints of this folder anew, or compares them with a fresh run.

    make.py           writes every folder
    make.py --check   compares: the stored weights and tokens bit for bit, the computed values within 1e-5 of the largest
                      magnitude, since the order of their sums depends on the CPU; exits with 1 on a difference

README.md names the versions that the committed files were made with and says what each folder is for.
"""
import json
import os
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import recorded  # noqa: E402

LAYERS, VOCABULARY, CONTEXT, LABELS = 3, 96, 128, 7
SEQUENCES, LENGTH, PADDED_LENGTH = 2, 24, 15
TOLERANCE = 1e-5

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
# A width that no group of 32 weights divides, and head widths that are not hidden / heads where a family allows them.
NARROW = {"hidden_size": 40, "intermediate_size": 72}
WIDE = {"hidden_size": 64, "intermediate_size": 160}

COMMON = {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "num_hidden_layers": LAYERS,
          "num_attention_heads": 4, "pad_token_id": 0}
DECODER = {**COMMON, **NARROW, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2,
           "tie_word_embeddings": False}
LLAMA3 = {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
GPT2 = {"vocab_size": VOCABULARY, "n_positions": CONTEXT, "n_embd": 40, "n_layer": LAYERS, "n_head": 4,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
BERT = {**COMMON, **NARROW, "type_vocab_size": 2}
DISTILBERT = {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "dim": 40, "hidden_dim": 72,
              "n_layers": LAYERS, "n_heads": 4, "pad_token_id": 0}
DISTILBERT_FEW = {**DISTILBERT, "n_layers": 2, "hidden_dim": 56}
# What stands between a question and the text that it is about.
SEPARATOR = 2
GEMMA = {**DECODER, "head_dim": 12, "sliding_window": 16, "tie_word_embeddings": True,
         "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
# Caps that many scores and logits come near to.
GEMMA2 = {**DECODER, "num_hidden_layers": 2, "intermediate_size": 56, "head_dim": 12, "sliding_window": 16,
          "tie_word_embeddings": True, "query_pre_attn_scalar": 20, "attn_logit_softcapping": 0.6,
          "final_logit_softcapping": 3.0}
# Half of the window, to either side, is the whole context.
GEMMA3_ENCODER = {**GEMMA, "num_hidden_layers": 2, "intermediate_size": 56, "sliding_window": 2 * CONTEXT,
                  "layer_types": ["sliding_attention", "full_attention"], "use_bidirectional_attention": True}
LFM2 = {**DECODER, "layer_types": ["conv", "full_attention", "conv"], "conv_L_cache": 3,
        "block_auto_adjust_ff_dim": False, "tie_word_embeddings": True}
QWEN = {**DECODER, "tie_word_embeddings": True}
# Families that need little to show what is their own: two layers.
FEW = {"num_hidden_layers": 2, "intermediate_size": 56}
SMALL = {**DECODER, **FEW}
# The first position is the one after padding's.
ROBERTA = {**BERT, **FEW, "type_vocab_size": 1, "pad_token_id": 1, "max_position_embeddings": CONTEXT + 2}
ELECTRA = {**BERT, **FEW, "embedding_size": BERT["hidden_size"]}
# A window of three tokens on each side, but in every third layer.
MODERNBERT = {**COMMON, **NARROW, "intermediate_size": 56, "num_hidden_layers": 4, "local_attention": 7,
              "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
BIASES = {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True, "decoder_bias": False}
NOMIC = {**BERT, **FEW}
SMOLLM3 = {**SMALL, "num_hidden_layers": 4, "use_sliding_window": True, "sliding_window": 8}
GRANITE = {**SMALL, "embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.4,
           "logits_scaling": 4.0, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}
# Experts of the least width that slmc stacks, of which a token has three.
GRANITE_MOE = {**GRANITE, "hidden_size": 48, "intermediate_size": 64, "num_local_experts": 5, "num_experts_per_tok": 3}
GRANITE_MOE.pop("mlp_bias")
YARN = {"rope_theta": 10000.0, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
MINISTRAL3 = {**SMALL, "head_dim": 16, "max_position_embeddings": 2 * CONTEXT,
              "rope_parameters": {**YARN, "factor": 16.0, "original_max_position_embeddings": CONTEXT, "mscale": 1.0,
                                  "mscale_all_dim": 0.5, "beta_fast": 8.0, "beta_slow": 0.5,
                                  "llama_4_scaling_beta": 0.1}}
# Heads of 16 turn 12 elements; the short list is that of contexts up to the original one.
LONGROPE = {**SMALL, "hidden_size": 64, "max_position_embeddings": 2 * CONTEXT, "sliding_window": None,
            "original_max_position_embeddings": CONTEXT,
            "rope_parameters": {"rope_theta": 10000.0, "rope_type": "longrope", "partial_rotary_factor": 0.75,
                                "original_max_position_embeddings": CONTEXT,
                                "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5],
                                "long_factor": [1.0, 1.5, 2.5, 4.0, 8.0, 16.0]}}
NEOX = {**COMMON, **NARROW, **FEW, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False}
# Two of a head's ten elements turn.
PHI = {**SMALL, "num_key_value_heads": 4, "partial_rotary_factor": 0.2}
OPT = {**COMMON, "num_hidden_layers": 2, "hidden_size": 40, "ffn_dim": 56, "bos_token_id": 1, "eos_token_id": 2}


def rotary(**settings):
    """Llama with rotary settings."""
    return {**SMALL, "rope_parameters": {"rope_theta": 10000.0, **settings}}


# folder: (class of configuration, class of model, configuration, type of the stored weights)
CHECKPOINTS = {
    "bert-classifier": ("BertConfig", "BertForSequenceClassification", {**BERT, "num_labels": LABELS}, F32),
    "bert-encoder": ("BertConfig", "BertModel", BERT, F16),
    "bert-mlm": ("BertConfig", "BertForMaskedLM", BERT, F32),
    "bert-mlm-padded": ("BertConfig", "BertForMaskedLM", BERT, F16),
    "distilbert-mlm": ("DistilBertConfig", "DistilBertForMaskedLM", DISTILBERT, F16),
    "gemma3-text": ("Gemma3TextConfig", "Gemma3ForCausalLM", GEMMA, F32),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", GPT2, F32),
    "gpt2-unprefixed-with-buffers": ("GPT2Config", "GPT2LMHeadModel", GPT2, F16),
    "lfm2-short-conv": ("Lfm2Config", "Lfm2ForCausalLM", LFM2, BF16),
    "llama-bf16-sharded": ("LlamaConfig", "LlamaForCausalLM", DECODER, BF16),
    "llama-gqa-tied": ("LlamaConfig", "LlamaForCausalLM", {**DECODER, "tie_word_embeddings": True}, F32),
    "llama-mha": ("LlamaConfig", "LlamaForCausalLM", {**DECODER, **WIDE, "num_key_value_heads": 4}, F16),
    "llama3-rope-scaling": ("LlamaConfig", "LlamaForCausalLM", {**DECODER, "rope_parameters": LLAMA3}, BF16),
    "llama3-v4-config-keys": ("LlamaConfig", "LlamaForCausalLM", {**DECODER, "rope_parameters": LLAMA3}, F16),
    "mistral": ("MistralConfig", "MistralForCausalLM", {**DECODER, "sliding_window": None}, BF16),
    "mistral-sliding-window-8": ("MistralConfig", "MistralForCausalLM", {**DECODER, "sliding_window": 8}, F16),
    "phi3-fused-qkv": ("Phi3Config", "Phi3ForCausalLM", {**DECODER, "sliding_window": None}, BF16),
    "qwen2-qkv-bias": ("Qwen2Config", "Qwen2ForCausalLM", QWEN, F16),
    "qwen3-qk-norm": ("Qwen3Config", "Qwen3ForCausalLM", {**QWEN, "head_dim": 16}, BF16),
    # The place in this list is the seed: what is new comes last.
    "camembert-mlm": ("CamembertConfig", "CamembertForMaskedLM", ROBERTA, F16),
    "distilbert-classifier": ("DistilBertConfig", "DistilBertForSequenceClassification",
                              {**DISTILBERT, "n_layers": 2, "hidden_dim": 56, "num_labels": LABELS}, F16),
    "electra-classifier": ("ElectraConfig", "ElectraForSequenceClassification", {**ELECTRA, "num_labels": LABELS}, F16),
    "electra-mlm": ("ElectraConfig", "ElectraForMaskedLM", ELECTRA, F16),
    "granite-multipliers": ("GraniteConfig", "GraniteForCausalLM", GRANITE, F16),
    "llama-dynamic": ("LlamaConfig", "LlamaForCausalLM", rotary(rope_type="dynamic", factor=4.0), BF16),
    "llama-linear": ("LlamaConfig", "LlamaForCausalLM", rotary(rope_type="linear", factor=2.5), BF16),
    "llama-yarn": ("LlamaConfig", "LlamaForCausalLM", rotary(**YARN), BF16),
    "ministral3-yarn": ("Ministral3Config", "Ministral3ForCausalLM", MINISTRAL3, BF16),
    "mobilellm": ("LlamaConfig", "LlamaForCausalLM", {**SMALL, "tie_word_embeddings": True}, F16),
    "opt": ("OPTConfig", "OPTForCausalLM", OPT, F16),
    "phi3-longrope-partial": ("Phi3Config", "Phi3ForCausalLM", LONGROPE, BF16),
    "roberta-classifier": ("RobertaConfig", "RobertaForSequenceClassification", {**ROBERTA, "num_labels": LABELS}, F16),
    "roberta-mlm-padded": ("RobertaConfig", "RobertaForMaskedLM", ROBERTA, F16),
    "smollm3-no-positions": ("SmolLM3Config", "SmolLM3ForCausalLM", SMOLLM3, BF16),
    "stablelm-partial-rotary": ("StableLmConfig", "StableLmForCausalLM", {**SMALL, "use_qkv_bias": True}, F16),
    "starcoder2": ("Starcoder2Config", "Starcoder2ForCausalLM", {**SMALL, "sliding_window": 16}, F16),
    "xlm-roberta-encoder": ("XLMRobertaConfig", "XLMRobertaModel", ROBERTA, F16),
    "gpt-neox-parallel": ("GPTNeoXConfig", "GPTNeoXForCausalLM", NEOX, F16),
    "gpt-neox-sequential": ("GPTNeoXConfig", "GPTNeoXForCausalLM", {**NEOX, "use_parallel_residual": False}, F16),
    "olmo2": ("Olmo2Config", "Olmo2ForCausalLM", SMALL, BF16),
    "qwen3-embedding": ("Qwen3Config", "Qwen3Model", {**QWEN, **FEW, "head_dim": 16}, BF16),
    "phi": ("PhiConfig", "PhiForCausalLM", PHI, F16),
    "gpt2-classifier": ("GPT2Config", "GPT2ForSequenceClassification", {**GPT2, "n_layer": 2, "num_labels": LABELS}, F16),
    "llama-classifier-padded": ("LlamaConfig", "LlamaForSequenceClassification", {**SMALL, "num_labels": LABELS}, F16),
    "mistral-classifier": ("MistralConfig", "MistralForSequenceClassification",
                           {**SMALL, "sliding_window": 8, "num_labels": LABELS}, BF16),
    "qwen2-classifier": ("Qwen2Config", "Qwen2ForSequenceClassification", {**QWEN, **FEW, "num_labels": LABELS}, F16),
    "qwen3-classifier": ("Qwen3Config", "Qwen3ForSequenceClassification",
                         {**QWEN, **FEW, "head_dim": 16, "num_labels": LABELS}, BF16),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", GEMMA2, F32),
    "gemma3-embedding-padded": ("Gemma3TextConfig", "Gemma3TextModel", GEMMA3_ENCODER, F32),
    "bert-answers": ("BertConfig", "BertForQuestionAnswering", {**BERT, **FEW, "sep_token_id": SEPARATOR}, F16),
    "bert-tokens": ("BertConfig", "BertForTokenClassification", {**BERT, **FEW, "num_labels": LABELS}, F16),
    "distilbert-answers": ("DistilBertConfig", "DistilBertForQuestionAnswering", DISTILBERT_FEW, F16),
    "electra-tokens": ("ElectraConfig", "ElectraForTokenClassification", {**ELECTRA, "num_labels": LABELS}, F16),
    "roberta-tokens": ("RobertaConfig", "RobertaForTokenClassification", {**ROBERTA, "num_labels": LABELS}, F16),
    "electra-small-tokens": ("ElectraConfig", "ElectraForTokenClassification",
                             {**ELECTRA, "embedding_size": 24, "num_labels": LABELS}, F16),
    "electra-small-classifier": ("ElectraConfig", "ElectraForSequenceClassification",
                                 {**ELECTRA, "embedding_size": 24, "num_labels": LABELS}, F16),
    "modernbert-mlm": ("ModernBertConfig", "ModernBertForMaskedLM", MODERNBERT, F16),
    "modernbert-mlm-padded": ("ModernBertConfig", "ModernBertForMaskedLM", {**MODERNBERT, **BIASES}, F16),
    "modernbert-encoder": ("ModernBertConfig", "ModernBertModel", MODERNBERT, F16),
    "modernbert-classifier": ("ModernBertConfig", "ModernBertForSequenceClassification",
                              {**MODERNBERT, "num_labels": LABELS}, F16),
    "modernbert-mean-classifier": ("ModernBertConfig", "ModernBertForSequenceClassification",
                                   {**MODERNBERT, "num_labels": LABELS, "classifier_pooling": "mean"}, F16),
    "nomic-bert-encoder": ("NomicBertConfig", "NomicBertModel", NOMIC, F16),
    "nomic-bert-mlm-padded": ("NomicBertConfig", "NomicBertForMaskedLM", NOMIC, F16),
    "nomic-bert-classifier": ("NomicBertConfig", "NomicBertForSequenceClassification",
                              {**NOMIC, "num_labels": LABELS}, F16),
    "gemma3-embedding-sliding": ("Gemma3TextConfig", "Gemma3TextModel", {**GEMMA3_ENCODER, "sliding_window": 7}, F32),
    "granitemoe": ("GraniteMoeConfig", "GraniteMoeForCausalLM", GRANITE_MOE, F16),
    "granitemoe-v5-names": ("GraniteMoeConfig", "GraniteMoeForCausalLM", {**GRANITE_MOE, "num_hidden_layers": 1}, F16),
}
# Encoder-decoders, in the folder golden-pairs beside this one. Few buckets and a short distance, so that every class is met.
T5 = {"vocab_size": VOCABULARY, "d_model": 40, "d_kv": 12, "d_ff": 56, "num_heads": 4, "num_layers": 2,
      "num_decoder_layers": 3, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20,
      "n_positions": CONTEXT, "decoder_start_token_id": 0}
PAIRS = {
    "t5": ("T5Config", "T5ForConditionalGeneration", T5, F16),
    "t5-gated-untied": ("T5Config", "T5ForConditionalGeneration",
                        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, F16),
}
# What stands before the place in the list of pairs in a seed.
PAIRS_SEED = 1001
TARGET_LENGTH = 19
PADDED = {"bert-mlm-padded": 0, "roberta-mlm-padded": 1, "llama-classifier-padded": 0, "gemma3-embedding-padded": 0,
          "modernbert-mlm-padded": 0, "nomic-bert-mlm-padded": 0}


def randomise(model, generator, dtype):
    """Random values of every parameter, norms and biases included, so that one that is forgotten shows; rounded to the
    stored type, in which the f32 model computes too."""
    gain = 0.0 if model.config.model_type in ("gemma2", "gemma3_text") else 1.0  # its norms multiply by 1 + weight
    for name, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if name.endswith("bias"):
            values = 0.2 * values
        elif parameter.dim() == 1:
            values = gain + 0.2 * values
        elif "embed" in name or "wte" in name or "wpe" in name:
            values = 0.2 * values
        elif "experts" in name:
            values = 0.1 * values
        elif parameter.dim() == 3:  # a short convolution's kernel
            values = 0.4 * values
        else:
            values = 0.1 * values
        parameter.data.copy_(values.to(dtype).float())


def computed(model, generator, padding):
    """Tokens, and the values that transformers computes from them in f32."""
    tokens = torch.randint(3, VOCABULARY, (SEQUENCES, LENGTH), generator=generator)
    mask = torch.ones_like(tokens)
    if padding is not None:
        tokens[1, PADDED_LENGTH:] = padding
        mask[1, PADDED_LENGTH:] = 0
    types = {}
    if model.config.model_type == "bert" and hasattr(model, "qa_outputs"):
        tokens[:, 7] = SEPARATOR
        types["token_type_ids"] = (torch.arange(LENGTH) > 7).long().expand_as(tokens)
    with torch.no_grad():
        output = model(input_ids=tokens, attention_mask=mask, output_hidden_states=True, **types)
    states = list(output.hidden_states)
    if model.config.model_type in ("granite", "granitemoe"):  # slmc divides before the head, where the norm has its gain
        states[-1] = states[-1] / model.config.logits_scaling
    golden = {"input_ids": tokens.int(), "hidden_states": torch.stack(states)}
    if padding is not None:
        golden["attention_mask"] = mask.int()
    if "logits" in output:
        golden["logits"] = output.logits
    elif "start_logits" in output:
        golden["logits"] = torch.stack([output.start_logits, output.end_logits], dim=-1)
    else:
        golden["last_hidden_state"] = output.last_hidden_state
    return {name: tensor.contiguous() for name, tensor in golden.items()}


def computed_pairs(model, generator):
    """Sources, the second of which is padded, what is written of them so far, and what transformers computes."""
    sources = torch.randint(3, VOCABULARY, (SEQUENCES, LENGTH), generator=generator)
    targets = torch.randint(3, VOCABULARY, (SEQUENCES, TARGET_LENGTH), generator=generator)
    targets[:, 0] = model.config.decoder_start_token_id
    sources[1, PADDED_LENGTH:] = model.config.pad_token_id
    mask = torch.ones_like(sources)
    mask[1, PADDED_LENGTH:] = 0
    with torch.no_grad():
        output = model(input_ids=sources, attention_mask=mask, decoder_input_ids=targets, output_hidden_states=True)
    decoder = list(output.decoder_hidden_states)
    if model.config.scale_decoder_outputs:  # slmc scales before the head, where the norm has its gain
        decoder[-1] = decoder[-1] * model.config.d_model ** -0.5
    golden = {"input_ids": sources.int(), "attention_mask": mask.int(), "decoder_input_ids": targets.int(),
              "encoder_hidden_states": torch.stack(output.encoder_hidden_states),
              "decoder_hidden_states": torch.stack(decoder), "logits": output.logits}
    return {name: tensor.contiguous() for name, tensor in golden.items()}


def make_pairs(name, folder):
    config_class, model_class, values, dtype = PAIRS[name]
    generator = torch.Generator().manual_seed(PAIRS_SEED + list(PAIRS).index(name))
    config = getattr(transformers, config_class)(**values)
    config._attn_implementation = "eager"
    model = getattr(transformers, model_class)(config).eval().float()
    tied = values.get("tie_word_embeddings", True)
    if not tied:  # the class ties what it makes anew
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    randomise(model, generator, dtype)
    golden = computed_pairs(model, generator)
    tensors = {name: tensor.contiguous() for name, tensor in model.to(dtype).state_dict().items()
               if not name.endswith("embed_tokens.weight") and (name != "lm_head.weight" or not tied)}
    save_file(tensors, os.path.join(folder, "model.safetensors"), {"format": "pt"})
    model.config.dtype = dtype
    model.config.architectures = [model_class]
    model.config.save_pretrained(folder)
    if not tied:
        rewrite_config(folder, untied)
    save_file(golden, os.path.join(folder, "golden.safetensors"))
    loaded = getattr(transformers, model_class).from_pretrained(folder, dtype=F32, attn_implementation="eager").eval()
    with torch.no_grad():
        again = loaded(input_ids=golden["input_ids"].long(), attention_mask=golden["attention_mask"],
                       decoder_input_ids=golden["decoder_input_ids"].long()).logits
    assert torch.allclose(again, golden["logits"], atol=1e-5), name


def untied(config):
    """As the published checkpoints of version 1.1 say it."""
    config.pop("scale_decoder_outputs", None)
    config["tie_word_embeddings"] = False


def rewrite_tensors(folder, edit):
    path = os.path.join(folder, "model.safetensors")
    save_file(edit(load_file(path)), path, {"format": "pt"})


def rewrite_config(folder, edit):
    path = os.path.join(folder, "config.json")
    with open(path) as file:
        config = json.load(file)
    edit(config)
    with open(path, "w") as file:
        file.write(json.dumps(config, indent=2) + "\n")


def unprefixed_with_buffers(tensors):
    """Names without `transformer.`, and the causal masks that old checkpoints carry."""
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    for layer in range(LAYERS):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(CONTEXT, CONTEXT, dtype=F16).tril().view(1, 1, CONTEXT, CONTEXT)
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-10000.0, dtype=F16)
    return tensors


def names_of_5(tensors):
    """The matrices of experts as transformers 5 calls them in memory, and some files."""
    return {name.replace("input_linear.weight", "experts.gate_up_proj").replace("output_linear.weight", "experts.down_proj")
            .replace("router.layer.weight", "router.weight"): tensor for name, tensor in tensors.items()}


def spelling_of_4(config):
    """rope_theta and rope_scaling, torch_dtype."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.0"


def mobilellm(config):
    """Llama under another name, as the code beside its checkpoints has it."""
    del config["tie_word_embeddings"]
    config.update(model_type="mobilellm", architectures=["MobileLLMForCausalLM"], share_embedding=True,
                  layer_sharing=False)


def make(name, folder):
    config_class, model_class, values, dtype = CHECKPOINTS[name]
    generator = torch.Generator().manual_seed(1 + list(CHECKPOINTS).index(name))
    config = getattr(transformers, config_class)(**values)
    config._attn_implementation = "eager"
    model = getattr(transformers, model_class)(config).eval().float()
    randomise(model, generator, dtype)
    golden = computed(model, generator, PADDED.get(name))
    shards = {"max_shard_size": "60KB"} if name == "llama-bf16-sharded" else {}
    model.to(dtype).save_pretrained(folder, **shards)
    if name == "gpt2-unprefixed-with-buffers":
        rewrite_tensors(folder, unprefixed_with_buffers)
    if name == "granitemoe-v5-names":
        rewrite_tensors(folder, names_of_5)
    if name == "mobilellm":
        rewrite_config(folder, mobilellm)
    if name == "llama3-v4-config-keys":
        rewrite_config(folder, spelling_of_4)
    save_file(golden, os.path.join(folder, "golden.safetensors"))


def main():
    check = recorded.arguments(__doc__).parse_args().check
    here = os.path.dirname(os.path.abspath(__file__))
    near = {"golden.safetensors": TOLERANCE}.get
    found = recorded.each(here, CHECKPOINTS, make, check, near, ["transformers_version"])
    pairs = os.path.join(here, os.pardir, "golden-pairs")
    found += recorded.each(pairs, PAIRS, make_pairs, check, near, ["transformers_version"])
    return recorded.ended(f"{len(CHECKPOINTS) + len(PAIRS)} checkpoints", found, check)


if __name__ == "__main__":
    sys.exit(main())
