#!/usr/bin/env python3
"""Writes reference.json: what transformers computes for SmolLM2-135M-Instruct, in float32 on a CPU.

usage: reference.py HF_DIR TEXT_FILE OUT

HF_DIR is the `hf` directory that shared/models/get-smollm2.sh makes (f16 values of the published Q4_1 file),
TEXT_FILE is shared/data/stories-valid.txt, OUT the file to write.

- chats: for five questions the prompt as the chat template renders it, its tokens, the greedy answer of at most 64
  tokens (`answer` ends with the end token where `ended`; the text leaves special tokens out), and `least_margin`, the
  smallest lead of the best logit over the second in all steps: an implementation whose logits are off by less than
  half of it gives the same answer.
- perplexity: exp of the mean negative log-likelihood over the first 64 windows of 256 consecutive tokens, each on its
  own, without an opening token (this tokenizer adds none), 255 targets in each. Logits are float32; from there float64.
- SHA-256 of tokens is over little-endian u32: of the whole text, and of the 64 * 256 that are evaluated.

One thread, so that every sum has one order. Stops with an error where the tokens are not those of tokenizer.json
(transformers 5 puts the pre-tokenizer of GPT-2 in place of this file's: "a  17" differs, the texts here do not), or
where a cached answer is not the argmax of one pass over the whole sequence.

Made with Python 3.11, transformers 5.24.0, torch 2.15.0, tokenizers 0.23.3 (pip install torch transformers); two minutes.
"""
import hashlib, json, math, pathlib, struct, sys
import tokenizers, torch, transformers

QUESTIONS = ["What is the capital of France?", "What is 17 + 25?", "Write a haiku about rain.",
             "Translate 'good morning' to French.", "Name three colours as a list."]
NEW_TOKENS, WINDOWS, WINDOW = 64, 64, 256


def sha256_of_tokens(ids):
    return hashlib.sha256(struct.pack(f"<{len(ids)}I", *ids)).hexdigest()


def sha256_of_file(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def encode(tokenizer, plain, text):
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if ids != plain.encode(text, add_special_tokens=False).ids:
        sys.exit(f"transformers and tokenizer.json give other tokens for {text[:60]!r}")
    return ids


def chat(model, tokenizer, plain, question):
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False,
                                           add_generation_prompt=True)
    ids = encode(tokenizer, plain, prompt)
    given = torch.tensor([ids])
    # No end tokens are named here: they are those of generation_config.json.
    out = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=NEW_TOKENS, do_sample=False,
                         num_beams=1, repetition_penalty=1.0, return_dict_in_generate=True, output_logits=True)
    answer = out.sequences[0, len(ids):].tolist()
    logits = torch.stack([step[0] for step in out.logits])
    if logits.dtype != torch.float32 or logits.argmax(-1).tolist() != answer:
        sys.exit(f"not the plain greedy answer in float32: {question!r}")
    whole = model(out.sequences).logits[0, len(ids) - 1:-1]
    if whole.argmax(-1).tolist() != answer:
        sys.exit(f"the cached answer is not that of one pass: {question!r}")
    best, second = logits.double().topk(2).values.T
    end = model.generation_config.eos_token_id
    return {"question": question, "prompt": prompt, "prompt_tokens": ids, "answer": answer,
            "text": tokenizer.decode(answer, skip_special_tokens=True),
            "ended": answer[-1] in (end if isinstance(end, list) else [end]),
            "least_margin": (best - second).min().item()}


def perplexity(model, ids):
    nll = 0.0
    for i in range(WINDOWS):
        window = torch.tensor([ids[i * WINDOW:(i + 1) * WINDOW]])
        logits = model(window, use_cache=False).logits[0, :-1]
        assert logits.dtype == torch.float32 and len(logits) == WINDOW - 1
        nll += torch.nn.functional.cross_entropy(logits.double(), window[0, 1:], reduction="sum").item()
    return math.exp(nll / (WINDOWS * (WINDOW - 1)))


def main():
    if len(sys.argv) != 4:
        sys.exit("usage: reference.py HF_DIR TEXT_FILE OUT")
    directory, text_file, out = map(pathlib.Path, sys.argv[1:])
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    plain = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    text = text_file.read_bytes().decode()
    ids = encode(tokenizer, plain, text)
    result = {
        "command": "python3 reference.py HF_DIR stories-valid.txt reference.json",
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0],
                     "tokenizers": tokenizers.__version__},
        "dtype": "float32",
        "inputs": {path.name: sha256_of_file(path)
                   for path in (directory / "model.safetensors", directory / "tokenizer.json", text_file)},
        "new_tokens": NEW_TOKENS,
        "chats": [chat(model, tokenizer, plain, question) for question in QUESTIONS],
        "text": {"tokens": len(ids), "tokens_sha256": sha256_of_tokens(ids), "windows": WINDOWS, "window": WINDOW,
                 "windows_sha256": sha256_of_tokens(ids[:WINDOWS * WINDOW]), "perplexity": perplexity(model, ids)},
    }
    # One line for each list of tokens.
    lists = {}
    for entry in result["chats"]:
        for key in ("prompt_tokens", "answer"):
            lists[mark := f"@{len(lists)}@"] = json.dumps(entry[key])
            entry[key] = mark
    written = json.dumps(result, indent=1, ensure_ascii=False)
    for mark, tokens in lists.items():
        written = written.replace(f'"{mark}"', tokens)
    out.write_text(written + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
