#!/usr/bin/env python3
"""llama.cpp's own drafts from the prompt, with and without: what `slmc generate --drafts` is compared with.

usage: peer_speculation.py MODEL.gguf QUESTION… [--tokens 128] [--drafts 7] [--threads 2] [--rounds 3]

One JSON line a question: tokens, tokens per second of the whole answer without and with drafts (best of the rounds, in
turn), their ratio, and whether the texts are equal. The drafts are those of llama-cpp-python's LlamaPromptLookupDecoding
with its n-grams of two, the only drafts of llama.cpp that this binding has.
Needs: pip install numpy llama-cpp-python (built from source, so that it uses this CPU's instructions)
"""
import argparse
import json
import time

from llama_cpp import Llama
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("questions", nargs="+")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--drafts", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    common = {"model_path": options.model, "n_ctx": 1024, "n_threads": options.threads, "n_threads_batch": options.threads,
              "verbose": False}
    plain = Llama(**common)
    lookup = LlamaPromptLookupDecoding(max_ngram_size=2, num_pred_tokens=options.drafts)
    drafting = Llama(draft_model=lookup, logits_all=True, **common)

    def answer(llama, question):
        llama.reset()
        begin = time.perf_counter()
        found = llama.create_chat_completion([{"role": "user", "content": question}], temperature=0.0, repeat_penalty=1.0,
                                             max_tokens=options.tokens)
        seconds = time.perf_counter() - begin
        return found["choices"][0]["message"]["content"], found["usage"]["completion_tokens"] / seconds, found["usage"]

    for question in options.questions:
        best = [0.0, 0.0]
        texts = [None, None]
        for _ in range(options.rounds):
            for index, llama in enumerate((plain, drafting)):
                texts[index], rate, usage = answer(llama, question)
                best[index] = max(best[index], rate)
        print(json.dumps({"question": question, "tokens": usage["completion_tokens"], "plain": round(best[0], 1),
                          "drafts": round(best[1], 1), "ratio": round(best[1] / best[0], 3), "same_text": texts[0] == texts[1]}),
              flush=True)


if __name__ == "__main__":
    main()
