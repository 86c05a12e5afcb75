#!/usr/bin/env python3
"""Compares what another tool, or another machine, has just computed with recorded values; exits with 1 on a difference.

    compare.py reference RECORDED NEW   tests/data/smollm2/reference.json: everything equal, but perplexity within 1e-5 of
                                        it and least_margin within 1e-3, since the order of sums depends on the CPU
    compare.py peer RECORDED NEW        tests/data/peers/*.json with the lines of shared/bench/peer_quality.py: bytes equal,
                                        divergence within 2 %, the share of equal first choices within 0.002
    compare.py loss HERE THERE          reports of slmc train: losses within 0.2 %
"""
import json
import math
import sys


def differences(path, recorded, new):
    """Where two JSON values differ, numbers compared by the tolerance of their key."""
    tolerances = {"perplexity": ("relative", 1e-5), "least_margin": ("absolute", 1e-3)}
    key = path.rsplit(".", 1)[-1]
    if isinstance(recorded, dict) and isinstance(new, dict):
        for name in sorted(recorded.keys() | new.keys()):
            if name not in recorded or name not in new:
                yield f"{path}.{name} is in one of the files only"
            else:
                yield from differences(f"{path}.{name}", recorded[name], new[name])
    elif isinstance(recorded, list) and isinstance(new, list) and len(recorded) == len(new):
        for index, (own, other) in enumerate(zip(recorded, new)):
            yield from differences(f"{path}[{index}]", own, other)
    elif key in tolerances and isinstance(recorded, float) and isinstance(new, float):
        kind, tolerance = tolerances[key]
        if not math.isclose(recorded, new, **{"rel_tol" if kind == "relative" else "abs_tol": tolerance}):
            yield f"{path}: recorded {recorded}, now {new}"
    elif recorded != new:
        yield f"{path}: recorded {recorded!r}, now {new!r}"


def reference(recorded, new):
    with open(recorded, encoding="utf-8") as own, open(new, encoding="utf-8") as other:
        yield from differences("reference", json.load(own), json.load(other))


def peer(recorded, new):
    with open(recorded, encoding="utf-8") as file:
        values = json.load(file)["values"]
    with open(new, encoding="utf-8") as file:
        lines = {line["type"]: line for line in map(json.loads, file)}
    for value in values:
        kind = value["type"]
        if kind not in lines:
            yield f"{kind} was not measured"
            continue
        found = lines[kind]
        if found["weight_bytes"] != value["weight_bytes"]:
            yield f"{kind}: recorded {value['weight_bytes']} bytes, now {found['weight_bytes']}"
        if not math.isclose(found["kld_mean"], value["kld_mean"], rel_tol=0.02):
            yield f"{kind}: recorded a divergence of {value['kld_mean']}, now {found['kld_mean']}"
        if not math.isclose(found["top1_agreement"], value["top1_agreement"], abs_tol=0.002, rel_tol=0):
            yield f"{kind}: recorded an agreement of {value['top1_agreement']}, now {found['top1_agreement']}"


def loss(here, there):
    values = []
    for path in (here, there):
        with open(path, encoding="utf-8") as file:
            values.append(json.load(file)["loss"])
    print(f"loss here {values[0]}, there {values[1]}")
    if not math.isclose(*values, rel_tol=0.002):
        yield f"losses differ: {values[0]} here, {values[1]} there"


def main():
    kinds = {"reference": reference, "peer": peer, "loss": loss}
    if len(sys.argv) != 4 or sys.argv[1] not in kinds:
        sys.exit(__doc__)
    found = list(kinds[sys.argv[1]](*sys.argv[2:]))
    for difference in found:
        print(difference, file=sys.stderr)
    if found:
        sys.exit(1)
    print(f"{sys.argv[1]}: as recorded")


if __name__ == "__main__":
    main()
