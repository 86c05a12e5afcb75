#!/usr/bin/env python3
"""Writes gguf.json: what gguf-py dequantizes of the published SmolLM2-135M-Instruct.

usage: dequantize.py SMOLLM2.gguf OUT

values_sha256 is the SHA-256 of one line for each tensor, sorted by the name that transformers gives it: the name, a space,
the SHA-256 of its values (f32, little-endian, rows of queries and keys in the order of transformers), a line break.

Made with Python 3.11, gguf 0.19.0, numpy.
"""
import hashlib
import importlib.metadata
import json
import pathlib
import sys

import gguf
import numpy

NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
HEADS = {"attn_q": 9, "attn_k": 3}


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: dequantize.py SMOLLM2.gguf OUT")
    path, out = map(pathlib.Path, sys.argv[1:])
    digests = {}
    for tensor in gguf.GGUFReader(path).tensors:
        shape = [int(size) for size in reversed(tensor.shape)]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        parts = tensor.name.split(".")
        if parts[0] == "blk":
            name = f"model.layers.{parts[1]}.{NAMES[parts[2]]}.weight"
        else:
            name = {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}[parts[0]]
        if parts[-2] in HEADS:
            heads = HEADS[parts[-2]]
            values = values.reshape(heads, shape[0] // heads // 2, 2, shape[1]).swapaxes(1, 2).reshape(shape)
        digests[name] = hashlib.sha256(numpy.ascontiguousarray(values, dtype="<f4").tobytes()).hexdigest()
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    result = {"command": "python3 dequantize.py smollm2.gguf gguf.json", "versions": {"gguf": importlib.metadata.version("gguf")},
              "inputs": {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}, "tensors": len(digests),
              "values_sha256": hashlib.sha256(lines.encode()).hexdigest()}
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
