"""What the make.py of these folders share: folders are written anew, or compared with a fresh run.

Files of a committed folder and of one that was made now are the same where JSON says the same, but for keys that `ignored` names,
and tensors are equal bit for bit, but for f32 ones to which `near(file)` gives a tolerance: a share of the largest magnitude.
"""
import argparse
import json
import os
import shutil
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file


def arguments(description):
    """The parser of a make.py, which `--check` compares by."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    return parser


def write_json(path, value):
    with open(path, "w") as file:
        file.write(json.dumps(value, indent=2) + "\n")


def read_json(path, ignored=()):
    with open(path) as file:
        value = json.load(file)
    return {key: entry for key, entry in value.items() if key not in ignored}


def same(a, b, tolerance):
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if tolerance is None or a.dtype != torch.float32:
        return torch.equal(a, b)
    return bool((a - b).abs().max() <= tolerance * a.abs().max())


def differences(name, committed, made, near=lambda file: None, ignored=()):
    """Differences between a committed folder and one that was made now."""
    for file in sorted(set(os.listdir(committed)) | set(os.listdir(made))):
        paths = [os.path.join(folder, file) for folder in (committed, made)]
        if not all(map(os.path.exists, paths)):
            yield f"{name}/{file} is in one of them only"
        elif not file.endswith(".safetensors"):
            if read_json(paths[0], ignored) != read_json(paths[1], ignored):
                yield f"{name}/{file} differs"
        else:
            old, new = map(load_file, paths)
            if old.keys() != new.keys():
                yield f"{name}/{file} holds other tensors"
                continue
            for tensor in old:
                if not same(old[tensor], new[tensor], near(file)):
                    yield f"{name}/{file}: {tensor} differs"


def each(here, names, make, check, near=lambda file: None, ignored=()):
    """Makes every folder by `make(name, folder)`; the differences from the committed ones, which are replaced otherwise."""
    transformers.logging.set_verbosity_error()
    torch.use_deterministic_algorithms(True)
    found = []
    for name in names:
        committed = os.path.join(here, name)
        with tempfile.TemporaryDirectory() as folder:
            make(name, folder)
            if check:
                found += differences(name, committed, folder, near, ignored)
                continue
            shutil.rmtree(committed, ignore_errors=True)
            shutil.copytree(folder, committed)
            print(name, sum(os.path.getsize(os.path.join(committed, file)) for file in os.listdir(committed)))
    return found


def ended(what, found, check, **versions):
    """Says what was found; the exit code."""
    for difference in found:
        print(difference, file=sys.stderr)
    if check:
        versions = {"torch": torch.__version__, "transformers": transformers.__version__, **versions}
        print(f"{what} compared, {len(found)} differences; " + ", ".join(map(" ".join, versions.items())))
    return 1 if found else 0
