// Runs the device program for WebAssembly:
//
//     node wasm.mjs PROGRAM.wasm logits FILE.slm
//     node wasm.mjs PROGRAM.wasm decode FILE.slm TOKENS
//     node wasm.mjs PROGRAM.wasm further FILE.slm
//     node wasm.mjs PROGRAM.wasm kernels
//
// The artifact and the session's memory lie behind the program's own, each on 64 bytes.
import { readFile } from "node:fs/promises";

const [program, mode, file, tokens] = process.argv.slice(2);
const KERNEL_MEMORY = 3 << 20;
const PAGE = 65536;

const { instance } = await WebAssembly.instantiate(await readFile(program), {});
const device = instance.exports;
let end = device.memory.buffer.byteLength;

function reserve(bytes) {
  const start = Math.ceil(end / 64) * 64;
  end = start + bytes;
  const missing = end - device.memory.buffer.byteLength;
  if (missing > 0) device.memory.grow(Math.ceil(missing / PAGE));
  return start;
}

let code;
if (mode === "kernels") {
  code = device.kernels_equal(reserve(KERNEL_MEMORY), KERNEL_MEMORY);
} else {
  const artifact = await readFile(file);
  const at = reserve(artifact.length);
  new Uint8Array(device.memory.buffer).set(artifact, at);
  const bytes = device[mode === "further" ? "further_bytes" : "required_bytes"](at, artifact.length);
  if (bytes === 0) throw new Error(`${file} is refused`);
  const memory = reserve(bytes);
  code = device[mode](at, artifact.length, memory, bytes, Number(tokens ?? 0));
}
const report = new Uint8Array(device.memory.buffer, device.report_address(), device.report_bytes());
process.stdout.write(new TextDecoder().decode(report));
process.exitCode = code;
