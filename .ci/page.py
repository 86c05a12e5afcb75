#!/usr/bin/env python3
"""Pages in Chromium beside slmc: python3 .ci/page.py SLMC SHARED SMOLLM2 MINILM OUT

Compiles pages of stories260k, tales-6m, SmolLM2 (w4, with its chat template), MiniLM (similarity) and a classifier trained on
it for a moment (labels), has tests/page/browser.mjs open each, and prints tokens per second of the page and of `slmc generate
--threads 1`, both without drafts and the best of several. Fails where a token differs, a page asks another server, does not open
again without its server, or names no damaged piece; or where SmolLM2 is slower than SLMC_PAGE_RATIO (0.4) of slmc's own speed.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

SLMC, SHARED, SMOLLM2, MINILM, OUT = sys.argv[1], *(Path(argument) for argument in sys.argv[2:6])
HERE = Path(__file__).resolve().parent.parent
TOKENS = 120
PROMPTS = ["Once upon a time", "The naïve fox said: “12 geese, please” — ", "She looked at the river and"]
QUESTIONS = ["What is the capital of France?", "And of Spain?", "Write a sentence about the sea."]
TEXTS = ["A man is playing a guitar.", "Someone plays music on a guitar."]


def slmc(*arguments, stdin=None):
    command = [SLMC, "-q", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def reports(*arguments, stdin=None):
    return [json.loads(line) for line in slmc(*arguments, "--json", stdin=stdin).splitlines()]


def page(name, model, scheme, *further):
    """A page of a model, and its artifact."""
    quantized, directory, artifact = OUT / f"{name}-q", OUT / f"{name}-page", OUT / f"{name}.slm"
    slmc("quantize", model, "--scheme", scheme, "--method", "rtn", "-o", quantized)
    slmc("compile", quantized, "--target", "wasm32", *further, "--page", directory, "-o", artifact)
    return directory, artifact


def generated(artifact, prompt):
    choice = ["--temperature", "0", "--tokens", TOKENS, "--threads", "1", "--drafts", "0"]
    return reports("generate", artifact, "--prompt", prompt, *choice)[0]


def written(said):
    """Tokens per second of a page's line."""
    return float(re.search(r"([\d,.]+) tokens/s written", said)[1].replace(",", ""))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    plan, native = [], {}
    greedy = {"temperature": 0, "top_k": 0, "top_p": 1, "min_p": 0, "repetition_penalty": 1, "seed": 0, "most": TOKENS}
    for name, model, context in (
        ("stories260k", SHARED / "models/stories260k", 512),
        ("tales-6m", SHARED / "models/tales-6m", 512),
        ("smollm2", SMOLLM2, 1024),
    ):
        directory, artifact = page(name, model, "w4", "--context", context)
        runs = [[generated(artifact, prompt) for prompt in PROMPTS] for _ in range(2)]
        native[name] = max(report["tokens_per_s"] for run in runs for report in run)
        expected = [report["tokens"] for report in runs[0]]
        plan.append({"name": name, "directory": str(directory), "view": "text", "inputs": PROMPTS, "settings": greedy, "expected": expected})
    turns = reports("chat", artifact, "--temperature", "0", "--tokens", TOKENS, "--drafts", "0", stdin="\n".join(QUESTIONS))
    plan.append({**plan[-1], "name": "smollm2-chat", "view": "chat", "inputs": QUESTIONS, "expected": [turn["tokens"] for turn in turns]})

    directory, artifact = page("minilm", MINILM, "w8", "--context", "128")
    plan.append({"name": "minilm", "directory": str(directory), "view": "similarity", "inputs": TEXTS, "settings": {}, "expected": [None]})
    trained, rows = OUT / "classifier", SHARED / "data/clinc150/train.jsonl"
    training = ["--tokens", "4096", "--batch", "16", "--window", "64"]
    slmc("train", MINILM, "--task", "classify", "--data", rows, *training, "-o", trained)
    directory, artifact = page("labels", trained, "w8", "--context", "128")
    plan.append({"name": "labels", "directory": str(directory), "view": "labels", "inputs": TEXTS, "settings": {}, "expected": [None, None]})

    (OUT / "plan.json").write_text(json.dumps(plan))
    browser = ["node", HERE / "tests/page/browser.mjs", OUT / "plan.json", OUT / "screenshots"]
    done = subprocess.run(browser, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit("a page failed")
    result = json.loads(done.stdout)
    print(result["browser"])
    # Once more, since the machine may have been busy before.
    for name in native:
        native[name] = max(native[name], *(generated(OUT / f"{name}.slm", prompt)["tokens_per_s"] for prompt in PROMPTS))
    slow = []
    for visited in result["pages"]:
        facts = visited["facts"]
        line = f"{visited['name']}: loaded and verified in {visited['loadMs'] / 1000:.1f} s; memory {facts['Memory']}; {facts['Program']}"
        if visited["name"] in native:
            own, theirs = max(map(written, visited["speeds"])), native[visited["name"]]
            line += f"; {own:,.0f} tokens/s, slmc with one thread {theirs:,.0f}, ratio {own / theirs:.2f}"
            if visited["name"] == "smollm2" and own / theirs < float(os.environ.get("SLMC_PAGE_RATIO", "0.4")):
                slow.append(visited["name"])
        print(line)
    for said in result["faults"]:
        print(f"says: {said}")
    print(f"screenshots in {OUT / 'screenshots'}")
    if slow:
        sys.exit(f"too slow: {', '.join(slow)}")


if __name__ == "__main__":
    main()
