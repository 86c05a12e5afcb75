#!/usr/bin/env python3
"""Writes llama_cpp.json: the greedy answers of llama.cpp to the questions of reference.json.

usage: llama_cpp.py SMOLLM2.gguf REFERENCE.json WORK OUT.json
       llama_cpp.py --check SMOLLM2.gguf REFERENCE.json WORK RECORDED.json

SMOLLM2.gguf is the published file (Q4_1), REFERENCE.json the questions with their prompts' tokens (reference.py), WORK a
directory for the same model with every tensor dequantized to F32, which llama.cpp runs with a cache in f32 and without flash
attention. An answer ends before its end token or after 64 tokens. With --check nothing is written, and answers that differ
from the recorded ones are named, with exit status 1.

Needs xllamacpp (which brings llama.cpp built), gguf and numpy, in the versions that llama_cpp.json names. `.ci/weekly llama.cpp`
runs it; tests/real_model.rs compares slmc's answers from the published file with it.
"""
import argparse
import importlib.metadata
import json
import os
import pathlib
import sys

import gguf
import numpy

NEW_TOKENS, CONTEXT = 64, 512


def make_f32(source, out):
    """The same file with every tensor in F32."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        writer.add_key_value(name, field.contents(), kind, sub_type=field.types[-1] if len(field.types) > 1 else None)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        shape = [int(size) for size in reversed(tensor.shape)]
        writer.add_tensor(tensor.name, numpy.ascontiguousarray(values.reshape(shape), dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def server(path):
    import xllamacpp
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = params.n_batch = params.n_ubatch = CONTEXT
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return xllamacpp.Server(params)


def answer(peer, prompt, ends):
    """The tokens of a greedy answer, each with its id by n_probs."""
    result = peer.handle_completions({"prompt": prompt, "n_predict": NEW_TOKENS, "temperature": 0, "samplers": ["top_k"], "top_k": 1,
                                      "repeat_penalty": 1.0, "cache_prompt": False, "n_probs": 1})
    tokens = [token["id"] for token in result["choices"][0]["logprobs"]["content"]]
    end = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[:end]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    for name in ("source", "reference", "work", "out"):
        parser.add_argument(name, type=pathlib.Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    f32 = arguments.work / "smollm2-f32.gguf"
    make_f32(arguments.source, f32)
    reference = json.loads(arguments.reference.read_text(encoding="utf-8"))
    ends = {gguf.GGUFReader(arguments.source).fields["tokenizer.ggml.eos_token_id"].contents()}
    peer = server(f32)
    versions = {name: importlib.metadata.version(name) for name in ("xllamacpp", "gguf")}
    chats = [{"question": chat["question"], "answer": answer(peer, chat["prompt_tokens"], ends)} for chat in reference["chats"]]
    made = {"versions": versions, "chats": chats}
    # The server's threads would print while the interpreter ends.
    if arguments.check:
        recorded = json.loads(arguments.out.read_text(encoding="utf-8"))
        differing = [new for new, old in zip(chats, recorded["chats"], strict=True) if new != old]
        print("\n".join(f"differs: {chat}" for chat in differing) or "the recorded answers are llama.cpp's")
        sys.stdout.flush()
        os._exit(1 if differing else 0)
    lines = ",\n".join("  " + json.dumps(chat) for chat in made["chats"])
    arguments.out.write_text(f'{{"versions": {json.dumps(versions)}, "chats": [\n{lines}\n]}}\n', encoding="utf-8")
    os._exit(0)


if __name__ == "__main__":
    main()
