"""Instructions that a WebAssembly engine executes to decode tokens: wasmtime's fuel, one unit for nearly every instruction.

    wasm_count.py PROGRAM.wasm FILE.slm TOKENS
    wasm_count.py PROGRAM.wasm work TABLE UNITS

The second counts single kernels of a table by its number: every unit of the list that `hosted units` prints, one line each:
kernel, layout, the unit with its numbers, and the cost of a call.
"""

import sys

import wasmtime

PAGE = 65536


def started(program: str):
    config = wasmtime.Config()
    config.consume_fuel = True
    engine = wasmtime.Engine(config)
    store = wasmtime.Store(engine)
    store.set_fuel(1 << 62)
    device = wasmtime.Instance(store, wasmtime.Module.from_file(engine, program), []).exports(store)
    return store, device


def work(program: str, table: int, units: str) -> int:
    store, device = started(program)
    memory = device["memory"]
    size = device["work_bytes"](store)
    start = (memory.data_len(store) + 63) // 64 * 64
    memory.grow(store, (size + 63) // PAGE + 1)

    def cost(unit: int, calls: int) -> int:
        before = store.get_fuel()
        if device["work"](store, start, size, table, unit, calls) != 0:
            raise SystemExit(f"unit {unit} of table {table} fails")
        return before - store.get_fuel()

    with open(units, encoding="utf-8") as file:
        for line in file:
            unit, name, first, second = line.split()
            call = (cost(int(unit), 3) - cost(int(unit), 1)) // 2
            at, length = device["report_address"](store), device["report_bytes"](store)
            words = bytes(memory.read(store, at, at + length)).decode().split()
            print(words[1], words[3], name, first, second, call)
    return 0


def main() -> int:
    if sys.argv[2] == "work":
        return work(sys.argv[1], int(sys.argv[3]), sys.argv[4])
    program, path, tokens = sys.argv[1:]
    store, device = started(program)
    memory = device["memory"]
    end = memory.data_len(store)

    def reserve(size: int) -> int:
        nonlocal end
        start = (end + 63) // 64 * 64
        end = start + size
        missing = end - memory.data_len(store)
        if missing > 0:
            memory.grow(store, (missing + PAGE - 1) // PAGE)
        return start

    with open(path, "rb") as file:
        artifact = file.read()
    at = reserve(len(artifact))
    memory.write(store, artifact, at)
    size = device["required_bytes"](store, at, len(artifact))
    session = reserve(size)
    before = store.get_fuel()
    code = device["decode"](store, at, len(artifact), session, size, int(tokens))
    print(f"instructions {before - store.get_fuel()}")
    return code


sys.exit(main())
