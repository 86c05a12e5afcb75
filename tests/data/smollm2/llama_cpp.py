#!/usr/bin/env python3
"""Compares the greedy answers of `slmc generate` with those of llama.cpp, on the same values.

usage: llama_cpp.py SMOLLM2.gguf REFERENCE.json WORK SLMC

SMOLLM2.gguf is the published file (Q4_1), REFERENCE.json the questions with their prompts' tokens (reference.py), WORK a
directory for the same model with every tensor dequantized to F32, SLMC the program. llama.cpp runs that file with a cache in
f32 and without flash attention, slmc the published one. For each question the first 64 tokens must be equal, up to an end
token; exits with 1 where they are not. `--make-only` writes the F32 file and stops: that part needs gguf and numpy alone.

Needs llama-cpp-python 0.3.36, gguf 0.19.0, numpy. `.ci/weekly llama.cpp` runs it.
"""
import argparse
import ctypes
import json
import pathlib
import subprocess
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


class Peer:
    """llama.cpp, one sequence."""

    def __init__(self, path):
        import llama_cpp
        self.api = llama_cpp
        self.quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = CONTEXT
        params.n_threads = params.n_threads_batch = 2
        params.type_k = params.type_v = 0  # GGML_TYPE_F32
        params.flash_attn_type = 0  # disabled
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def next_token(self, tokens, start):
        batch = self.api.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place], batch.pos[place] = token, start + place
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            batch.logits[place] = place + 1 == len(tokens)
        if self.api.llama_decode(self.context, batch) != 0:
            sys.exit("llama.cpp cannot decode the batch")
        logits = numpy.ctypeslib.as_array(self.api.llama_get_logits_ith(self.context, -1), shape=(self.vocabulary,))
        best = int(logits.argmax())
        self.api.llama_batch_free(batch)
        return best

    def answer(self, prompt, ends):
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        tokens, given, start = [], prompt, 0
        while len(tokens) < NEW_TOKENS:
            token = self.next_token(given, start)
            if token in ends:
                break
            tokens.append(token)
            start, given = start + len(given), [token]
        return tokens


def main():
    parser = argparse.ArgumentParser()
    for name in ("source", "reference", "work", "slmc"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--make-only", action="store_true")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    f32 = arguments.work / "smollm2-f32.gguf"
    make_f32(arguments.source, f32)
    if arguments.make_only:
        return
    peer = Peer(f32)
    inspected = json.loads(subprocess.run([arguments.slmc, "inspect", arguments.source, "--json"], check=True,
                                          capture_output=True).stdout)
    ends, differing = set(inspected["end_tokens"]), []
    for chat in json.loads(arguments.reference.read_text(encoding="utf-8"))["chats"]:
        expected = peer.answer(chat["prompt_tokens"], ends)
        command = [arguments.slmc, "generate", arguments.source, "--chat", chat["question"], "--tokens", str(NEW_TOKENS), "--json"]
        ours = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["tokens"]
        if ours != expected:
            differing.append(f"{chat['question']!r}: slmc {ours}, llama.cpp {expected}")
    if differing:
        sys.exit("\n".join(differing))
    print("the greedy answers are llama.cpp's")


if __name__ == "__main__":
    main()
