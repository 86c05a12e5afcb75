#!/usr/bin/env python3
"""Runs exported models in onnxruntime and onnxruntime-genai, beside slmc's f32 forward of the same integers.

usage: check.py SLMC SHARED MODELS WORK

SLMC is the program, SHARED the folder of shared models and texts, MODELS the folder with smollm2/hf and minilm (as
tests/data/smollm2/fetch and tests/data/minilm/fetch leave them below target/models), WORK a directory for what is made. A line of JSON
for every export: perplexity of the first windows of 256 tokens beside that of `slmc eval`, and how many of five greedy answers of 40 tokens
are the same text, by onnxruntime with a cache of its own and by onnxruntime-genai. Of the sentence encoder the mean cosine
of embeddings of integers and of floating point beside that of `slmc eval`.

Exits with 1 where a perplexity differs by more than 0.5 %, fewer than four of five texts are equal, or a cosine differs by more than
0.001. `.ci/weekly onnx` runs it. Needs onnxruntime, onnxruntime-genai, numpy and tokenizers.
"""
import importlib.metadata
import json
import pathlib
import shutil
import subprocess
import sys

import numpy
import onnxruntime
import onnxruntime_genai
import tokenizers

WINDOW, NEW_TOKENS = 256, 40
TALES = ["Once upon a time there was a little", "The old man said to his wife", "Tom and Lily went to the park",
         "One day a fox met a", "The king had three sons"]
# model, scheme, variants, windows
CASES = [("tales-6m", "w8", ("onnxruntime", "standard"), 64), ("tales-6m", "w4", ("onnxruntime", "standard"), 64),
         ("smollm2", "w8", ("onnxruntime",), 16)]


def slmc(program, *arguments):
    command = [program, "-q", *map(str, arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {result.returncode}")
    return result.stdout


def made(program, model, scheme, work):
    """The quantized directory of a model, made once: rounded plainly, as both sides have the same integers however they were chosen."""
    out = work / f"{model.parent.name}-{model.name}-{scheme}"
    if not (out / "slmc.json").exists():
        slmc(program, "quantize", model, "--scheme", scheme, "--method", "rtn", "-o", out)
    return out


def exported(program, model, variant, work):
    out = work / f"{model.name}-{variant}"
    if out.exists():
        shutil.rmtree(out)
    slmc(program, "export", model, "--format", "onnx", "--variant", variant, "-o", out)
    return out


def opened(directory):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    # The standard variant is computed by MatMulNBits too, which would round its inputs to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return onnxruntime.InferenceSession(str(directory / "model.onnx"), options, providers=["CPUExecutionProvider"])


class Decoder:
    """A decoder with the cache that it gives."""

    def __init__(self, directory):
        self.session = opened(directory)
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.caches = [value for value in self.session.get_inputs() if value.name.startswith("past_key_values.")]
        self.clear()

    def clear(self):
        self.read = 0
        self.past = {value.name: numpy.zeros((1, value.shape[1], 0, value.shape[3]), numpy.float32) for value in self.caches}

    def logits(self, tokens):
        self.read += len(tokens)
        inputs = {"input_ids": numpy.array([tokens], numpy.int64), "attention_mask": numpy.ones((1, self.read), numpy.int64)}
        found = dict(zip(self.outputs, self.session.run(None, inputs | self.past)))
        self.past = {name: found[name.replace("past_key_values", "present")] for name in self.past}
        return found["logits"][0]

    def answer(self, prompt, ends):
        self.clear()
        out, piece = [], prompt
        while len(out) < NEW_TOKENS:
            token = int(self.logits(piece)[-1].argmax())
            if token in ends:
                break
            out.append(token)
            piece = [token]
        return out


def log_softmax(rows):
    rows = rows.astype(numpy.float64)
    rows = rows - rows.max(-1, keepdims=True)
    return rows - numpy.log(numpy.exp(rows).sum(-1, keepdims=True))


def perplexity(decoder, windows):
    loss = count = 0
    for window in windows:
        decoder.clear()
        rows = log_softmax(decoder.logits(window)[:-1])
        loss -= rows[numpy.arange(len(window) - 1), window[1:]].sum()
        count += len(window) - 1
    return float(numpy.exp(loss / count))


def windows_of(tokenizer, text, most):
    """As slmc cuts a text: the tokens that open one, then the next tokens."""
    opening = tokenizer.encode("").ids
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    step = WINDOW - len(opening)
    return [opening + ids[at:at + step] for at in range(0, len(ids) - step + 1, step)][:most]


def genai(directory, prompts, ends):
    """Greedy answers of onnxruntime-genai."""
    model = onnxruntime_genai.Model(str(directory))
    answers = []
    for prompt in prompts:
        parameters = onnxruntime_genai.GeneratorParams(model)
        parameters.set_search_options(max_length=len(prompt) + NEW_TOKENS, do_sample=False)
        generator = onnxruntime_genai.Generator(model, parameters)
        generator.append_tokens(numpy.array(prompt, numpy.int32))
        while not generator.is_done():
            generator.generate_next_token()
        answer = [int(token) for token in generator.get_sequence(0)[len(prompt):]]
        end = next((place for place, token in enumerate(answer) if token in ends), len(answer))
        answers.append(answer[:end])
    return answers


def decoders(program, shared, models, work):
    for name, scheme, variants, most in CASES:
        model = shared / "models" / name if name == "tales-6m" else models / "smollm2/hf"
        text = shared / "data" / ("tales-valid.txt" if name == "tales-6m" else "stories-valid.txt")
        quantized = made(program, model, scheme, work)
        tokenizer = tokenizers.Tokenizer.from_file(str(quantized / "tokenizer.json"))
        measured = json.loads(slmc(program, "eval", quantized, "--data", text, "--window", WINDOW, "--max-windows", most,
                                   "--windows", "first", "--json"))
        if name == "tales-6m":
            prompts = [tokenizer.encode(prompt).ids for prompt in TALES]
            asked, shown = [("--prompt", prompt) for prompt in TALES], prompts
        else:
            recorded = pathlib.Path(__file__).parent.parent / "smollm2/reference.json"
            chats = json.loads(recorded.read_text(encoding="utf-8"))["chats"]
            prompts = [chat["prompt_tokens"] for chat in chats]
            asked, shown = [("--chat", chat["question"]) for chat in chats], [[] for _ in chats]
        own = [json.loads(slmc(program, "generate", quantized, *ask, "--tokens", NEW_TOKENS, "--temperature", 0,
                               "--repetition-penalty", 1, "--json"))["text"] for ask in asked]
        windows = windows_of(tokenizer, text.read_text(encoding="utf-8"), most)
        for variant in variants:
            directory = exported(program, quantized, variant, work)
            config = json.loads((directory / "genai_config.json").read_text(encoding="utf-8"))["model"]
            ends = set(config.get("eos_token_id", []))
            decoder = Decoder(directory)
            found = perplexity(decoder, windows)
            answers = {"onnxruntime": [decoder.answer(prompt, ends) for prompt in prompts]}
            answers["onnxruntime-genai"] = genai(directory, prompts, ends)
            # The text after --prompt begins with the prompt.
            texts = {peer: [tokenizer.decode(before + answer).strip() for before, answer in zip(shown, of)]
                     for peer, of in answers.items()}
            equal = {peer: sum(found == text.strip() for found, text in zip(of, own)) for peer, of in texts.items()}
            expected = measured["perplexity"]
            held = abs(found / expected - 1) <= 0.005 and min(equal.values()) >= 4
            yield held, {"model": name, "scheme": scheme, "variant": variant, "perplexity": round(found, 4),
                         "slmc_perplexity": round(expected, 4), "windows": len(windows), "equal_texts": equal,
                         "file_bytes": (directory / "model.onnx").stat().st_size}


def embeddings(session, tokenizer, texts, longest):
    rows = []
    for text in texts:
        ids = tokenizer.encode(text).ids[:longest]
        inputs = {"input_ids": numpy.array([ids], numpy.int64), "attention_mask": numpy.ones((1, len(ids)), numpy.int64),
                  "token_type_ids": numpy.zeros((1, len(ids)), numpy.int64)}
        row = session.run(["last_hidden_state"], inputs)[0][0].mean(0)
        rows.append(row / numpy.linalg.norm(row))
    return numpy.array(rows)


def encoder(program, models, work, shared):
    model = models / "minilm"
    quantized = made(program, model, "w8", work)
    lines = (shared / "data/stories-valid.txt").read_text(encoding="utf-8").splitlines()
    texts = [line.strip() for line in lines if len(line.strip()) > 20][:100]
    data = work / "sentences.txt"
    data.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    measured = json.loads(slmc(program, "eval", quantized, "--reference", model, "--data", data, "--json"))
    tokenizer = tokenizers.Tokenizer.from_file(str(quantized / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    floating = exported(program, model, "onnxruntime", work)
    dense = embeddings(opened(floating), tokenizer, texts, 256)
    for variant in ("onnxruntime", "standard"):
        directory = exported(program, quantized, variant, work)
        found = float((embeddings(opened(directory), tokenizer, texts, 256) * dense).sum(-1).mean())
        expected = measured["cosine_mean"]
        yield abs(found - expected) <= 0.001, {"model": "minilm", "scheme": "w8", "variant": variant, "cosine": round(found, 6),
                                               "slmc_cosine": round(expected, 6), "texts": len(texts),
                                               "file_bytes": (directory / "model.onnx").stat().st_size}


def main():
    program = str(pathlib.Path(sys.argv[1]).resolve())
    shared, models, work = map(pathlib.Path, sys.argv[2:5])
    work.mkdir(parents=True, exist_ok=True)
    versions = {name: importlib.metadata.version(name) for name in ("onnxruntime", "onnxruntime-genai")}
    print(json.dumps(versions), flush=True)
    missed = 0
    for cases in (decoders(program, shared, models, work), encoder(program, models, work, shared)):
        for held, line in cases:
            print(json.dumps(line | {"held": held}), flush=True)
            missed += not held
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
