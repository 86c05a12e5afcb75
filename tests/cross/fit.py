"""Makes the tables of `slmc estimate --detail` from what `run --kernels` has counted.

    fit.py KERNELS.tsv TOKENS.tsv RUSTC SLMC TABLES.json

The cost of a unit of work is `call + first · a + second · b`, by least squares of relative errors over the shapes that were
counted, none below zero. What the executor does around the kernels is what whole tokens of models of several shapes take
beyond their kernels, as a sum over token, layers and heads. Other models are estimated and counted, and both numbers kept.
Tables of devices that were not counted stay as they are. Nothing but Python's own library.
"""

import collections
import json
import os
import subprocess
import sys

# Models whose layers and heads differ; the others check the result.
FITTED = "shape-"
# Tokens are counted over positions 33 to 64.
POSITIONS = (48, 49)
# As in src/compile/detail/calls.rs.
NARROW = 16


def solve(matrix, right):
    """The solution of a small symmetric system by elimination; a free variable is 0."""
    size = len(right)
    rows = [list(row) + [value] for row, value in zip(matrix, right)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(rows[row][column]))
        if abs(rows[pivot][column]) < 1e-12:
            continue
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for row in range(size):
            if row != column:
                factor = rows[row][column] / rows[column][column]
                rows[row] = [a - factor * b for a, b in zip(rows[row], rows[column])]
    return [rows[n][size] / rows[n][n] if abs(rows[n][n]) > 1e-12 else 0.0 for n in range(size)]


def fitted(points, weigh):
    """Least squares of `points`, (numbers, value), without negative coefficients."""
    size = len(points[0][0])
    used = [n for n in range(size) if any(numbers[n] for numbers, _ in points)]
    while True:
        # Columns are scaled, so that the elimination's bound means the same for all.
        scale = {n: max(abs(numbers[n]) for numbers, _ in points) for n in used}
        rows = [([numbers[n] / scale[n] for n in used], value, 1.0 / value**2 if weigh else 1.0) for numbers, value in points]
        matrix = [[sum(w * x[i] * x[j] for x, _, w in rows) for j in range(len(used))] for i in range(len(used))]
        right = [sum(w * x[i] * value for x, value, w in rows) for i in range(len(used))]
        solution = solve(matrix, right)
        worst = min(range(len(used)), key=lambda n: solution[n], default=None)
        if worst is None or solution[worst] >= 0.0:
            break
        del used[worst]
    found = [0.0] * size
    for n, value in zip(used, solution):
        found[n] = round(value / scale[n], 6)
    return found


def costs(units):
    """The three numbers of every unit. Heads that are narrower than a vector are units of their own, whose cost goes by
    positions; the mix of values in the others has a fourth number, by the width of the head, which is a unit too."""
    found = {}
    for unit, points in sorted(units.items()):
        if unit in ("scores", "mix"):
            narrow = [((call, first, 0), cost) for (call, first, second), cost in points if second < NARROW * first]
            found[f"{unit}.narrow"] = fitted(narrow, True)
            points = [(numbers, cost) for numbers, cost in points if numbers[2] >= NARROW * numbers[1]]
        if unit == "mix":
            wide = [((call, first, second, second // first), cost) for (call, first, second), cost in points]
            *found[unit], head = fitted(wide, True)
            found["mix.head"] = [0.0, head, 0.0]
        else:
            found[unit] = fitted(points, True)
    return found


def estimated(slmc, tables, target, artifact):
    """Instructions of a token by tables in a file, with the layers and heads of the artifact."""
    sums = []
    for position in POSITIONS:
        command = [slmc, "-q", "estimate", artifact, "--target", target, "--detail", "--json"]
        answer = json.loads(subprocess.check_output([*command, "--position", str(position), "--instructions", tables]))
        sums.append(answer["instructions_per_token"])
    around = [row for row in answer["work"] if row["unit"] == "executor" and row["layer"] is not None]
    return sum(sums) / len(sums), len(around), sum(row["first"] for row in around)


def main():
    kernels, tokens, rustc, slmc, path = sys.argv[1:]
    counted = collections.defaultdict(lambda: collections.defaultdict(list))
    for line in sorted(set(open(kernels, encoding="utf-8"))):
        device, kernel, triple, isa, layout, flags, unit, first, second, cost = line.rstrip("\n").split("\t")
        counted[device, kernel, triple, isa, layout, flags][unit].append(((1, int(first), int(second)), int(cost)))
    whole = collections.defaultdict(list)
    for line in sorted(set(open(tokens, encoding="utf-8"))):
        device, kernel, artifact, count = line.split()
        whole[device, kernel].append((artifact, int(count)))

    with open(path, encoding="utf-8") as file:
        tables = {(table["device"], table["kernel"]): table for table in json.load(file)}
    for (device, kernel, triple, isa, layout, flags), units in sorted(counted.items()):
        table = {
            "device": device,
            "kernel": kernel,
            "triple": triple,
            "isa": isa,
            "layout": layout,
            "rustc": rustc,
            "flags": flags,
            "costs": costs(units),
            "executor": [0.0, 0.0, 0.0],
            "checks": [],
        }
        # A target that says just this, so that the table is found whatever the program knows.
        scratch = os.path.dirname(kernels)
        target, alone = os.path.join(scratch, "fit-target.toml"), os.path.join(scratch, "fit-tables.json")
        with open(target, "w", encoding="utf-8") as file:
            own = "" if isa == "scalar" else f'isa = "{isa}"\n'
            file.write(
                f'name = "{device}"\ndescription = "for a fit"\ntriple = "{triple}"\n{own}layout = "{layout}"\npage_bytes = 64\n'
            )

        def of(artifact):
            with open(alone, "w", encoding="utf-8") as file:
                json.dump([table], file)
            return estimated(slmc, alone, target, artifact)

        points = []
        for artifact, count in whole[device, kernel]:
            if os.path.basename(artifact).startswith(FITTED):
                inside, layers, heads = of(artifact)
                points.append(((1, layers, heads), count - inside))
        if points:
            table["executor"] = fitted(points, False)
        for artifact, count in whole[device, kernel]:
            name = os.path.basename(artifact).split(".")[0]
            if not name.startswith(FITTED):
                table["checks"].append({"model": name, "counted": count, "estimated": round(of(artifact)[0])})
        for check in table["checks"]:
            error = 100 * (check["estimated"] / check["counted"] - 1)
            print(f"{device} {kernel} {check['model']}: counted {check['counted']}, estimated {check['estimated']}, {error:+.1f} %")
        tables[device, kernel] = table
    rows = [json.dumps(tables[key]) for key in sorted(tables)]
    with open(path, "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(rows) + "\n]\n")


main()
