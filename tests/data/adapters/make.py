#!/usr/bin/env python3
"""Makes the adapters of this folder anew, or compares them with a fresh run.

    make.py           writes every folder
    make.py --check   compares the adapters bit for bit, and what PEFT merges them to by hash (DoRA's within 1e-6 of the largest
                      value); exits with 1 on a difference

The bases are the golden checkpoints beside this folder. Every adapter is made by PEFT with random values, saved by it, loaded
onto its base in the base's own data type, and merged by `merge_and_unload`. `expected.json` holds the SHA-256 of every tensor
that is not the base's after that, by the name of the base's files; of DoRA the values are in expected.safetensors.
README.md names the versions.
"""
import hashlib
import os
import sys

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import recorded  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "golden")
CAUSAL, CLASSES = "AutoModelForCausalLM", "AutoModelForSequenceClassification"

# folder: (base, class, LoraConfig, tokens added)
ADAPTERS = {
    "patterns": ("llama-mha", CAUSAL, {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"],
                                       "rank_pattern": {"layers.0.self_attn.q_proj": 4, r".*\.2\..*down_proj": 2},
                                       "alpha_pattern": {"v_proj": 5}}, 0),
    "rank-32": ("llama-mha", CAUSAL, {"r": 32, "lora_alpha": 7, "target_modules": ["k_proj", "gate_proj"]}, 0),
    "rslora-bias": ("qwen2-qkv-bias", CAUSAL, {"r": 16, "lora_alpha": 3, "use_rslora": True, "lora_bias": True,
                                              "target_modules": ["q_proj", "k_proj"]}, 0),
    "dora": ("llama-gqa-tied", CAUSAL, {"r": 4, "lora_alpha": 8, "use_dora": True,
                                        "target_modules": ["q_proj", "down_proj"]}, 0),
    "gpt2-biases": ("gpt2", CAUSAL, {"r": 4, "lora_alpha": 8, "bias": "all", "fan_in_fan_out": True,
                                     "target_modules": ["c_attn", "mlp.c_proj"]}, 0),
    "table": ("llama-gqa-tied", CAUSAL, {"r": 4, "lora_alpha": 8, "target_modules": ["embed_tokens", "o_proj"]}, 0),
    "classifier": ("bert-classifier", CLASSES, {"r": 4, "lora_alpha": 8, "task_type": "SEQ_CLS",
                                                "target_modules": ["query", "value"]}, 0),
    "fused": ("phi3-fused-qkv", CAUSAL, {"r": 4, "lora_alpha": 8, "target_modules": ["qkv_proj", "gate_up_proj"]}, 0),
    "added-tokens": ("llama-mha", CAUSAL, {"r": 4, "lora_alpha": 8, "target_modules": ["o_proj"],
                                           "modules_to_save": ["embed_tokens", "lm_head"]}, 3),
    "token-rows": ("llama-gqa-tied", CAUSAL, {"r": 4, "lora_alpha": 8, "target_modules": ["o_proj"],
                                              "trainable_token_indices": {"embed_tokens": [5, 90, 7]}}, 0),
}
# Adapters of one base merged one after the other, each with a weight.
TOGETHER = ("llama-mha", [("patterns", 0.5), ("rank-32", -0.25)])


def base(source, kind, added=0):
    model = getattr(transformers, kind).from_pretrained(os.path.join(GOLDEN, source), dtype="auto").eval()
    if added:
        model.resize_token_embeddings(model.config.vocab_size + added, mean_resizing=False)
    return model


def stored(source):
    folder = os.path.join(GOLDEN, source)
    files = [file for file in os.listdir(folder) if file.startswith("model") and file.endswith(".safetensors")]
    return {name: tensor for file in files for name, tensor in load_file(os.path.join(folder, file)).items()}


def changed(model, source):
    """The tensors of a merged model that are not the base's."""
    before = stored(source)
    after = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    return {name: tensor.contiguous() for name, tensor in after.items()
            if name in before and not torch.equal(tensor, before[name])
            or name not in before and not (name == "lm_head.weight" and model.config.tie_word_embeddings)}


def hashes(tensors):
    data = {name: tensor.view(torch.uint8).numpy().tobytes() for name, tensor in tensors.items()}
    return {name: hashlib.sha256(data[name]).hexdigest() for name in sorted(data)}


def make(name, folder):
    source, kind, values, added = ADAPTERS[name]
    generator = torch.Generator().manual_seed(1 + list(ADAPTERS).index(name))
    model = peft.get_peft_model(base(source, kind, added), peft.LoraConfig(**values))
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            dora = "magnitude" in parameter_name
            parameter.data = (parameter.data * (1 + 0.1 * noise) if dora else parameter.data + 0.1 * noise).to(parameter.dtype)
    model.peft_config["default"].base_model_name_or_path = f"../golden/{source}"
    model.save_pretrained(folder)
    os.remove(os.path.join(folder, "README.md"))
    merged = peft.PeftModel.from_pretrained(base(source, kind, added), folder).merge_and_unload()
    tensors = changed(merged, source)
    if values.get("use_dora"):
        save_file(tensors, os.path.join(folder, "expected.safetensors"))
    else:
        recorded.write_json(os.path.join(folder, "expected.json"), hashes(tensors))


def together(folder):
    """What PEFT merges several adapters to, by the folder's adapters as they are."""
    source, adapters = TOGETHER
    model = None
    for name, weight in adapters:
        path = os.path.join(folder, name)
        if model is None:
            model = peft.PeftModel.from_pretrained(base(source, CAUSAL), path, adapter_name=name)
        else:
            model.load_adapter(path, adapter_name=name)
        for module in model.modules():
            if isinstance(module, peft.tuners.lora.LoraLayer) and name in module.scaling:
                module.scaling[name] *= weight
    merged = model.merge_and_unload(adapter_names=[name for name, _ in adapters])
    return {"base": source, "adapters": dict(adapters), "tensors": hashes(changed(merged, source))}


def main():
    check = recorded.arguments(__doc__).parse_args().check
    # DoRA's norms are summed in another order on another CPU.
    found = recorded.each(HERE, ADAPTERS, make, check, {"expected.safetensors": 1e-6}.get)
    path, of_several = os.path.join(HERE, "together.json"), together(HERE)
    if not check:
        recorded.write_json(path, of_several)
    elif recorded.read_json(path) != of_several:
        found.append("together.json differs")
    return recorded.ended(f"{len(ADAPTERS)} adapters", found, check, peft=peft.__version__)


if __name__ == "__main__":
    sys.exit(main())
