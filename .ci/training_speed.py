#!/usr/bin/env python3
"""The f32 work of slmc beside PyTorch (eager, f32) on the same shapes, one after the other; a table of ratios.

usage: training_speed.py SLMC SHARED MODELS WORK [--threads 2] [--rounds 2] [--rows llama,teacher,smollm2,minilm,forward]

SLMC is the program, SHARED the directory with bench/torch_train.py, models/tales-6m and data, MODELS one with smollm2/hf and
minilm, WORK a directory for what is trained. A step of slmc is the difference of a long and a short run divided by the steps
between them; PyTorch's the median of its steps after the first. Both sides train on batches of the same shape; the classifier
on texts of the same file, a batch padded to its longest on both sides. The best of the rounds counts on either side.

Times of another machine compare after scaling by the printed rate of torch.matmul, 2048³ in f32.

Needs torch and transformers. `.ci/weekly torch` runs it.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 4096, "hidden_size": 288,
    "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 6,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0,
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
}
SMOLLM2 = ("--hidden 576 --ffn 1536 --heads 9 --kv-heads 3 --layers 30 --vocab 49152 --tied --batch 2 --seq 256").split()


def measured(command):
    """Standard output, seconds by the clock, and peak bytes of a command."""
    begin = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit status {status}")
    return output.decode(), time.perf_counter() - begin, usage.ru_maxrss * 1024


def ours(slmc, command, tokens, threads):
    """Seconds a step, and peak bytes of the longer run."""
    runs = []
    for count in tokens:
        output, seconds, peak = measured([slmc, "-q", *command, "--tokens", count, "--threads", threads, "--json"])
        runs.append((json.loads(output)["steps"], seconds, peak))
    (few, short, _), (many, long, peak) = runs
    return (long - short) / (many - few), peak


def theirs(script, options, threads):
    output, _, peak = measured([sys.executable, script, *options, "--threads", threads])
    batch, length = (int(options[options.index(name) + 1]) for name in ("--batch", "--seq"))
    return batch * length / json.loads(output)["tokens_per_s"], peak


def classifier(minilm, data, threads, steps=24):
    """Seconds a step of a BERT classifier in PyTorch: run by this script in a process of its own."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rows = [json.loads(line) for line in open(data, encoding="utf-8")]
    labels = {label: index for index, label in enumerate(sorted({row["label"] for row in rows}))}
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    model = AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=len(labels))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1)
    order = torch.randperm(len(rows))
    # What tokenizes is not part of a step, as it is not of slmc's.
    batches = []
    for step in range(steps):
        chosen = [rows[index] for index in order[step * 64:(step + 1) * 64]]
        inputs = tokenizer([row["text"] for row in chosen], padding=True, truncation=True, max_length=64, return_tensors="pt")
        batches.append((inputs, torch.tensor([labels[row["label"]] for row in chosen])))
    times = []
    for inputs, targets in batches:
        begin = time.perf_counter()
        model(**inputs, labels=targets).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - begin)
    print(json.dumps({"seconds": statistics.median(times[1:])}))


def matmul_rate(threads):
    import torch

    torch.set_num_threads(threads)
    left, right = torch.rand(2048, 2048), torch.rand(2048, 2048)
    best = min(timed(lambda: left @ right) for _ in range(8))
    return 2 * 2048**3 / best / 1e9


def timed(run):
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser()
    for name in ("slmc", "shared", "models", "work"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rows", default="llama,teacher,smollm2,minilm,forward")
    parser.add_argument("--classifier", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    shared, models, work, threads = arguments.shared, arguments.models, arguments.work, arguments.threads
    intents = shared / "data/clinc150/train.jsonl"
    if arguments.classifier:
        return classifier(models / "minilm", intents, threads)

    work.mkdir(parents=True, exist_ok=True)
    config = work / "config.json"
    config.write_text(json.dumps(LLAMA))
    script, text = shared / "bench/torch_train.py", work / "text.txt"
    text.write_bytes((shared / "data/tales-train.txt").read_bytes()[:4_000_000])
    slmc, out = arguments.slmc, work / "out"
    causal = ["--data", text, "--window", 257, "--pieces", 1, "-o", out]
    fresh = ["train", config, "--tokenizer", shared / "models/tales-6m", "--batch", 8, *causal]
    step = 8 * 256
    teacher = work / "teacher"
    small = ["--hidden", "288", "--ffn", "768", "--heads", "6", "--layers", "6", "--vocab", "4096", "--batch", "8", "--seq", "256"]
    smollm2 = models / "smollm2/hf"

    def forward():
        times = []
        for windows in (4, 20):
            times.append(measured([slmc, "-q", "eval", smollm2, "--data", text, "--window", 256, "--max-windows", windows,
                                   "--threads", threads, "--json"])[1:])
        return (times[1][0] - times[0][0]) / 16, times[1][1]

    def torch_classifier():
        command = [sys.executable, __file__, slmc, shared, models, work, "--threads", threads, "--classifier"]
        output, _, peak = measured(command)
        return json.loads(output)["seconds"], peak

    cases = {
        "llama": ("training step, Llama of 8.3 M, 8 x 256",
                  lambda: ours(slmc, fresh, (4 * step, 28 * step), threads),
                  lambda: theirs(script, [*small, "--steps", "24"], threads)),
        "teacher": ("the same with a teacher",
                    lambda: ours(slmc, ["distill", "--student", config, "--teacher", teacher, "--ce", 1, "--kl", 1, "--hidden", 0.5,
                                        "--hidden-loss", "raw", "--batch", 8, *causal], (4 * step, 24 * step), threads),
                    lambda: theirs(script, [*small, "--steps", "20", "--distill"], threads)),
        "smollm2": ("training step, SmolLM2-135M, 2 x 256",
                    lambda: ours(slmc, ["train", smollm2, "--batch", 2, *causal], (2 * 512, 12 * 512), threads),
                    lambda: theirs(script, [*SMOLLM2, "--steps", "10"], threads)),
        "minilm": ("fine-tuning step, all-MiniLM-L6-v2, 64 texts",
                   lambda: ours(slmc, ["train", models / "minilm", "--task", "classify", "--data", intents, "--batch", 64,
                                       "--window", 64, "--pieces", 1, "-o", out], (2_000, 26_000), threads),
                   torch_classifier),
        "forward": ("f32 forward, SmolLM2-135M, a window of 256",
                    forward,
                    lambda: theirs(script, [*SMOLLM2[:-4], "--batch", "1", "--seq", "256", "--steps", "16", "--forward"], threads)),
    }
    chosen = arguments.rows.split(",")
    if "teacher" in chosen and not teacher.exists():
        measured([slmc, "-q", *fresh[:-1], teacher, "--tokens", step])
    print(f"torch.matmul of 2048³ in f32, {threads} threads: {matmul_rate(threads):.0f} GFLOPS\n")
    print("| | slmc, s | PyTorch, s | PyTorch / slmc | peak MiB, slmc | PyTorch |\n|---|---|---|---|---|---|")
    for name in chosen:
        title, left, right = cases[name]
        rounds = [(left(), right()) for _ in range(arguments.rounds)]
        mine, peer = (min(side) for side in zip(*rounds))
        peaks = [max(round[side][1] for round in rounds) / 2**20 for side in (0, 1)]
        print(f"| {title} | {mine[0]:.3f} | {peer[0]:.3f} | {peer[0] / mine[0]:.2f} | {peaks[0]:,.0f} | {peaks[1]:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
