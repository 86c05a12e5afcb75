"""Instructions that a WebAssembly engine executes to decode tokens: wasmtime's fuel, one unit for nearly every instruction.

    wasm_count.py PROGRAM.wasm FILE.slm TOKENS
"""

import sys

import wasmtime

PAGE = 65536


def main() -> int:
    program, path, tokens = sys.argv[1:]
    config = wasmtime.Config()
    config.consume_fuel = True
    engine = wasmtime.Engine(config)
    store = wasmtime.Store(engine)
    store.set_fuel(1 << 62)
    device = wasmtime.Instance(store, wasmtime.Module.from_file(engine, program), []).exports(store)
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
