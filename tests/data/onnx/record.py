#!/usr/bin/env python3
"""Writes recorded.json: the last row of what onnxruntime gives for small exported models.

usage: SLMC_ONNX=DIR cargo test --release --test integration directories_to_record -- --ignored
       record.py DIR recorded.json
       record.py --check DIR recorded.json

Decoders read 40 tokens, encoders 10: token n is (37 n + 5) mod 96. In the variant of standard operators onnxruntime is told to
compute in f32, which it does not do by itself. With --check nothing is written, and rows that differ by more than 1e-4 of their
largest value are named, with exit status 1. Needs onnxruntime
and numpy; onnxruntime-genai is there for its version, which check.py needs.
"""
import importlib.metadata
import json
import pathlib
import sys

import numpy
import onnxruntime

TOLERANCE = 1e-4


def last_row(directory):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = onnxruntime.InferenceSession(str(directory / "model.onnx"), options, providers=["CPUExecutionProvider"])
    inputs = {value.name: value for value in session.get_inputs()}
    caches = {name: numpy.zeros((1, value.shape[1], 0, value.shape[3]), numpy.float32)
              for name, value in inputs.items() if name.startswith("past_key_values.")}
    length = 40 if caches else 10
    tokens = numpy.array([[(37 * n + 5) % 96 for n in range(length)]], numpy.int64)
    given = {"input_ids": tokens, "attention_mask": numpy.ones_like(tokens), "token_type_ids": numpy.zeros_like(tokens)} | caches
    output = session.get_outputs()[0].name
    found = session.run([output], {name: value for name, value in given.items() if name in inputs})[0]
    return found.reshape(-1, found.shape[-1])[-1]


def main():
    check = "--check" in sys.argv
    source, path = [pathlib.Path(argument) for argument in sys.argv[1:] if argument != "--check"]
    found = {directory.name: last_row(directory) for directory in sorted(source.iterdir())}
    if not check:
        values = {name: [float(f"{value:.7g}") for value in row] for name, row in found.items()}
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in values.items())
        names = ("onnxruntime", "onnxruntime-genai")
        versions = json.dumps({name: importlib.metadata.version(name) for name in names})
        path.write_text(f'{{"versions": {versions},\n "command": "record.py DIR recorded.json",\n "values": {{\n{lines}\n}}}}\n',
                        encoding="utf-8")
        return
    recorded = json.loads(path.read_text(encoding="utf-8"))["values"]
    wrong = sorted(recorded.keys() ^ found.keys())
    for name in recorded.keys() & found.keys():
        row = numpy.array(recorded[name])
        if numpy.abs(found[name] - row).max() > TOLERANCE * numpy.abs(row).max():
            wrong.append(name)
    for name in wrong:
        print(f"{name} differs from what is recorded")
    print(f"{len(found)} rows, {len(wrong)} of them other than recorded")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
