#!/usr/bin/env python3
"""Runs what slmc exports in the tools that it is for, beside slmc itself; exits with 1 where they differ by more than they may.

usage: exports.py SLMC SHARED SMOLLM2 WORK [--windows N]

SLMC is the program, SHARED the folder of shared models and texts, SMOLLM2 the checkpoint of SmolLM2-135M-Instruct, WORK a
folder for what is made. For tales-6m in w8 and w4 and SmolLM2 in w8, rounded plainly with --exact-f16:

- perplexity on windows of 256 tokens: slmc's own of the integers with inputs in f32 (`slmc eval` of the quantized directory),
  llama.cpp's of the GGUF file, transformers' of the compressed-tensors directory, loaded in f32;
- the greedy continuation of five prompts, 48 tokens each, by all three, and by llama.cpp from a GGUF file with the same values
  as halves: its products of Q8_0 and Q4_0 round what goes into them to 8 bits, and texts part where two tokens are near;
- the largest difference of the logits of the compressed-tensors directory and of the safetensors one, both in transformers.

Prints one JSON line a model. Limits: perplexity within 0.5 %, at least four of five texts equal in transformers and in llama.cpp
from halves, logits of the two directories equal where --exact-f16 makes scales halves and tables are f16. Needs torch, transformers, compressed-tensors, tokenizers,
llama-cpp-python and numpy.
"""
import argparse
import ctypes
import json
import math
import pathlib
import subprocess
import sys

import numpy
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

WINDOW, TOKENS, OFF, EQUAL = 256, 48, 0.005, 4
STORIES = ["Once upon a time", "The little dog", "One day, a girl named Lily", "Tom and his mother", "There was a big tree"]
CHATS = ["What is the capital of France?", "Name three primary colors.", "What is the opposite of hot?",
         "Write one sentence about the sea.", "How many days are in a week?"]


def slmc(program, *arguments):
    command = [program, "-q", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def windows(tokenizer, text, most):
    """Windows as `slmc eval` cuts them: the tokens that the tokenizer puts before a text, then the next ones of the text."""
    ids = tokenizer(text.read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"]
    opening = tokenizer("")["input_ids"]
    step = WINDOW - len(opening)
    return [opening + ids[i * step:(i + 1) * step] for i in range(min(most, len(ids) // step))]


def perplexity(logits, sequences):
    loss = count = 0
    for rows, tokens in zip(logits, sequences):
        rows = torch.log_softmax(torch.as_tensor(rows).double(), -1)
        loss -= rows[:-1].gather(1, torch.tensor(tokens[1:])[:, None]).sum().item()
        count += len(tokens) - 1
    return math.exp(loss / count)


class LlamaCpp:
    """A file in llama.cpp, with its cache in f32 and without flash attention."""

    def __init__(self, path):
        import llama_cpp as library
        self.library = library
        self.quiet = library.llama_log_callback(lambda *_: None)
        library.llama_log_set(self.quiet, ctypes.c_void_p(0))
        library.llama_backend_init()
        self.model = library.llama_model_load_from_file(str(path).encode(), library.llama_model_default_params())
        if not self.model:
            sys.exit(f"llama.cpp does not load {path}")
        self.vocabulary = library.llama_model_get_vocab(self.model)
        self.size = library.llama_vocab_n_tokens(self.vocabulary)
        settings = library.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = 512
        settings.n_threads = settings.n_threads_batch = 2
        settings.type_k = settings.type_v = 0
        settings.flash_attn_type = 0
        self.context = library.llama_init_from_model(self.model, settings)

    def logits(self, tokens, first=0):
        library = self.library
        if first == 0:
            library.llama_memory_clear(library.llama_get_memory(self.context), True)
        batch = library.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place], batch.pos[place] = token, first + place
            batch.n_seq_id[place], batch.seq_id[place][0], batch.logits[place] = 1, 0, 1
        assert library.llama_decode(self.context, batch) == 0
        rows = numpy.ctypeslib.as_array(library.llama_get_logits(self.context), shape=(len(tokens), self.size)).copy()
        library.llama_batch_free(batch)
        return rows

    def tokens(self, text, special):
        raw = text.encode()
        room = (self.library.llama_token * (len(raw) + 16))()
        count = self.library.llama_tokenize(self.vocabulary, raw, len(raw), room, len(room), True, special)
        return list(room[:count])

    def greedy(self, tokens):
        out, rows = [], self.logits(tokens)
        while len(out) < TOKENS:
            token = int(rows[-1].argmax())
            if self.library.llama_vocab_is_eog(self.vocabulary, token):
                break
            out.append(token)
            rows = self.logits([token], len(tokens) + len(out) - 1)
        return out


def greedy(model, tokens, ends):
    out = []
    with torch.no_grad():
        while len(out) < TOKENS:
            token = int(model(torch.tensor([tokens + out])).logits[0, -1].argmax())
            if token in ends:
                break
            out.append(token)
    return out


def prompts(tokenizer, directory, chats):
    """Texts as the models are asked: bare, or by the chat template."""
    if not chats:
        return STORIES
    config = json.loads((directory / "tokenizer_config.json").read_text())
    tokenizer.chat_template = config["chat_template"]
    ask = lambda text: [{"role": "user", "content": text}]
    return [tokenizer.apply_chat_template(ask(text), tokenize=False, add_generation_prompt=True) for text in CHATS]


def compared(arguments, name, model, scheme, text, chats):
    work = pathlib.Path(arguments.work) / f"{name}-{scheme}"
    work.mkdir(parents=True, exist_ok=True)
    run = lambda *given: slmc(arguments.slmc, *given)
    run("quantize", model, "--scheme", scheme, "--method", "rtn", "--exact-f16", "--activations", "*=a8", "-o", work / "quantized")
    files = {}
    for kind, out in [("gguf", "model.gguf"), ("compressed-tensors", "packed"), ("safetensors", "dense")]:
        files[kind] = run("export", work / "quantized", "--format", kind, "-o", work / out)
    run("export", work / "dense", "--format", "gguf", "-o", work / "halves.gguf")
    own = run("eval", work / "quantized", "--data", text, "--window", WINDOW, "--windows", "first",
              "--max-windows", arguments.windows)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(model / "tokenizer.json"))
    sequences = windows(tokenizer, text, arguments.windows)
    texts = prompts(tokenizer, model, chats)
    started = [tokenizer(prompt, add_special_tokens=not chats)["input_ids"] for prompt in texts]
    config = json.loads((model / "generation_config.json").read_text())
    ends = config["eos_token_id"] if isinstance(config["eos_token_id"], list) else [config["eos_token_id"]]

    packed = AutoModelForCausalLM.from_pretrained(work / "packed", dtype=torch.float32).eval()
    dense = AutoModelForCausalLM.from_pretrained(work / "dense", dtype=torch.float32).eval()
    with torch.no_grad():
        of_packed = [packed(torch.tensor([tokens])).logits[0] for tokens in sequences]
        of_dense = [dense(torch.tensor([tokens])).logits[0] for tokens in sequences]
    differences = [(a - b).abs().max().item() for a, b in zip(of_packed, of_dense)]
    peer, halves = LlamaCpp(work / "model.gguf"), LlamaCpp(work / "halves.gguf")
    tokenized = sum(peer.tokens(prompt, chats) == tokens for prompt, tokens in zip(texts, started))

    # slmc writes what it would from the dense directory of the same values.
    answers = {"slmc": [], "llama.cpp": [], "llama.cpp, halves": [], "transformers": []}
    for prompt, tokens in zip(texts if not chats else CHATS, started):
        ask = ("--chat", prompt) if chats else ("--prompt", prompt)
        said = run("generate", work / "quantized", *ask, "--temperature", 0, "--tokens", TOKENS)
        answers["slmc"].append(tokenizer.decode(said["tokens"], skip_special_tokens=True))
        answers["llama.cpp"].append(tokenizer.decode(peer.greedy(tokens), skip_special_tokens=True))
        answers["llama.cpp, halves"].append(tokenizer.decode(halves.greedy(tokens), skip_special_tokens=True))
        answers["transformers"].append(tokenizer.decode(greedy(packed, tokens, ends), skip_special_tokens=True))
    def same(ours, theirs):
        return sum(own == other for own, other in zip(ours, theirs))

    found = {
        "model": name,
        "scheme": scheme,
        "windows": len(sequences),
        "slmc": own["perplexity"],
        "transformers": perplexity(of_packed, sequences),
        "llama.cpp": perplexity([peer.logits(tokens) for tokens in sequences], sequences),
        "llama.cpp, halves": perplexity([halves.logits(tokens) for tokens in sequences], sequences),
        "logits_packed_and_dense": max(differences),
        **{f"texts_{tool}": same(answers["slmc"], texts) for tool, texts in answers.items() if tool != "slmc"},
        "prompts_tokenized_alike": tokenized,
        "scale_error": [files["gguf"]["scale_error"], files["compressed-tensors"]["scale_error"]],
        "bytes": {kind: report["file_bytes"] for kind, report in files.items()},
    }
    print(json.dumps(found), flush=True)
    for tool in ["transformers", "llama.cpp", "llama.cpp, halves"]:
        off = abs(found[tool] / found["slmc"] - 1)
        if off > OFF:
            yield f"{name} in {scheme}: perplexity of {tool} is {100 * off:.2f} % off"
        if tool != "llama.cpp" and found[f"texts_{tool}"] < EQUAL:
            for own, other in zip(answers["slmc"], answers[tool]):
                print(json.dumps({"slmc": own, tool: other}), file=sys.stderr)
            yield f"{name} in {scheme}: {tool} gives {found[f'texts_{tool}']} of 5 texts"
    if tokenized != len(texts):
        yield f"{name}: llama.cpp cuts {len(texts) - tokenized} prompts otherwise"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slmc")
    parser.add_argument("shared", type=pathlib.Path)
    parser.add_argument("smollm2", type=pathlib.Path)
    parser.add_argument("work")
    parser.add_argument("--windows", type=int, default=32)
    arguments = parser.parse_args()
    tales, data = arguments.shared / "models" / "tales-6m", arguments.shared / "data"
    wrong = []
    for scheme in ["w8", "w4"]:
        wrong += compared(arguments, "tales-6m", tales, scheme, data / "tales-valid.txt", False)
    wrong += compared(arguments, "smollm2", arguments.smollm2, "w8", data / "stories-valid.txt", True)
    sys.exit("; ".join(wrong) or 0)


main()
