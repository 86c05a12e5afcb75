#!/usr/bin/env python3
"""The quickstart killed at random moments and run again: the artifact must be the same bytes as that of a run that nothing
ended, no finished stage may be made again, and of the stage that was killed at most one group of work: the steps since its last
checkpoint, or what it does before the first. What was repeated is printed.

usage: kills.py SLMC RECIPES WORK [--times 50] [--seed 0] [--checkpoint-every STEPS] [--set K=V]…

SLMC is the program, RECIPES the directory with quickstart.toml, WORK a directory for copies, caches and outputs. Every time
begins with an empty cache of its own. Moments are uniform over the time of the undisturbed run, by the seed. `--set` is
passed on: smaller stages take less time, and with more checkpoints are killed between two of them as often.

`.ci/weekly kills` runs it.
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time

RECIPE = "quickstart"
# Its stages that train, whose checkpoints are asked for, and how many steps a stage that tunes has between two.
TRAINED = ("student", "sparse")
TUNING_CHECKPOINT = 100


class Run:
    """One `slmc run`, its events with the times at which they came."""

    def __init__(self, slmc, directory, settings):
        arguments = [argument for setting in settings for argument in ("--set", setting)]
        command = [slmc, "run", f"recipes/{RECIPE}.toml", "--json", "--progress", "json", *arguments]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLMC_")}
        environment["XDG_CACHE_HOME"] = str(directory / "cache")
        self.begin, self.events = time.monotonic(), []
        self.process = subprocess.Popen(command, cwd=directory, env=environment, start_new_session=True, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stderr:
            self.events.append((time.monotonic(), json.loads(line)))

    def kill(self):
        """Whether it was still there."""
        if self.process.poll() is not None:
            return False
        os.killpg(self.process.pid, signal.SIGKILL)
        self.killed = time.monotonic()
        self.process.wait()
        self.reader.join()
        return True

    def report(self):
        text = self.process.stdout.read()
        self.process.wait()
        self.reader.join()
        if self.process.returncode != 0:
            sys.exit(f"slmc run ended with {self.process.returncode}: {[event for _, event in self.events][-3:]}")
        self.seconds = time.monotonic() - self.begin
        return json.loads(text)

    def stages(self):
        """Numbers and names of the stages that were begun, with the time."""
        return [(at, event["message"]) for at, event in self.events
                if event.get("event") == "status" and event.get("verb") == "Stage"]


def artifacts(directory):
    found = sorted((directory / "out" / RECIPE).glob("*.slm"))
    if not found:
        sys.exit(f"{directory}: no artifact")
    return {path.name: path.read_bytes() for path in found}


def fresh(work, recipes, name):
    directory = work / name
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(recipes, directory / "recipes")
    return directory


def saved(directory):
    """Step of the last checkpoint, and when the newest state of the stage was written, if there is one."""
    step, newest = 0, None
    offset = time.time() - time.monotonic()
    for path in (directory / "out" / RECIPE).glob("*.checkpoint/**/*"):
        about = json.loads(path.read_text()) if path.name == "slmc.json" else {}
        if about.get("schema", "").startswith("slmc.checkpoint/"):
            step = about["step"]
        elif path.suffix != ".safetensors" or path.name == "state.safetensors":
            continue
        written = path.stat().st_mtime - offset
        newest = written if newest is None else max(newest, written)
    return step, newest


def repeated(run, directory):
    """What of the stage that was killed is done again: its name, steps of training, and seconds, among them those of what a
    stage does before it comes to its state."""
    stages = run.stages()
    if not stages:
        return "before the first stage", None, run.killed - run.begin
    begun, name = stages[-1]
    step, newest = saved(directory)
    steps, prepared = None, 0.0
    for at, event in run.events:
        if at < begun or event.get("unit") != "steps":
            continue
        if event["event"] == "begin":
            prepared = prepared or at - begun
            steps = 0 if event["what"] == "training" else None
        elif event["event"] == "advance" and steps is not None:
            steps = event["done"]
        elif event["event"] == "finish":
            steps = None
    seconds = run.killed - begun if newest is None else run.killed - newest + prepared
    return name, None if steps is None else max(0, steps - step), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slmc", type=pathlib.Path)
    parser.add_argument("recipes", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint-every", type=int, default=100)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    arguments = parser.parse_args()
    slmc, recipes = arguments.slmc.resolve(), arguments.recipes.resolve()
    work, every = arguments.work.resolve(), arguments.checkpoint_every
    settings = arguments.settings + [f"stages.{stage}.checkpoint_every={every}" for stage in TRAINED]
    work.mkdir(parents=True, exist_ok=True)

    whole = fresh(work, recipes, "whole")
    run = Run(slmc, whole, settings)
    run.report()
    expected, seconds = artifacts(whole), run.seconds
    print(f"undisturbed: {seconds:.1f} s, {', '.join(expected)}", flush=True)

    moments = random.Random(arguments.seed)
    steps, lost, failed, ended = [], [], [], 0
    for number in range(arguments.times):
        moment = moments.uniform(0, seconds)
        directory = fresh(work, recipes, "killed")
        first = Run(slmc, directory, settings)
        time.sleep(max(0.0, moment - (time.monotonic() - first.begin)))
        if not first.kill():
            ended += 1
            first.report()
            name, count, since = "after its end", None, 0.0
        else:
            name, count, since = repeated(first, directory)
        finished = [name for _, name in first.stages()[:-1]]
        second = Run(slmc, directory, settings)
        report = second.report()
        same = artifacts(directory) == expected
        made = [name for _, name in second.stages()]
        twice = [name for name in finished if name in made]
        states = [stage["status"] for stage in report["stages"]]
        most = every if any(f" {stage} " in name for stage in TRAINED) else TUNING_CHECKPOINT
        if not same or twice or (count or 0) > most:
            failed.append(number)
        if count is not None:
            steps.append(count)
        lost.append(since)
        what = "" if count is None else f"{count} steps, "
        print(f"{number + 1:3}  killed after {moment:6.1f} s in {name}: {what}{since:.1f} s again; then {states.count('cached')} "
              f"stages cached, {states.count('done')} made; {'the same bytes' if same else 'OTHER BYTES'}"
              f"{', MADE TWICE: ' + ', '.join(twice) if twice else ''}", flush=True)
    print(f"{arguments.times} kills, {ended} of them after the end; repeated: "
          f"median {statistics.median(lost):.1f} s, at most {max(lost):.1f} s of {seconds:.1f} s; "
          f"of training and tuning at most {max(steps, default=0)} steps (checkpoints every {every} and {TUNING_CHECKPOINT}), "
          f"median {statistics.median(steps) if steps else 0:.0f} over {len(steps)} kills in training")
    if failed:
        sys.exit(f"failed: {', '.join(str(number + 1) for number in failed)}")


if __name__ == "__main__":
    main()
