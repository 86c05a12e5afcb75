// The page's worker: fetches the program and the pieces of the artifact, checks them, and answers what the page asks, so that
// the page itself never waits. Pieces that are sound go into the browser's cache, from which the next visit takes them, also
// without a connection (service-worker.js has the other files).
import { Model, Program } from "./slm.js";

const here = (name) => new URL(name, import.meta.url).href;
// One cache of pieces for each folder that a page is served from; service-worker.js knows the name too.
const PIECES = `slmc pieces ${new URL("./", import.meta.url).pathname}`;

// The programs, the fastest first, each with the code of a function that only browsers of its kind take: `i8x16.popcnt`, and
// `i16x8.relaxed_dot_i8x16_i7x16_s`. All give the same bits.
const PROGRAMS = [
  ["relaxed", [65, 0, 253, 15, 65, 0, 253, 15, 253, 146, 2]],
  ["simd", [65, 0, 253, 15, 253, 98]],
];

/** The kind of program that this browser takes. */
function kind() {
  for (const [name, code] of PROGRAMS) {
    const body = [0, ...code, 11];
    // A module with one function () -> v128.
    const module = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, body.length + 2, 1, body.length, ...body];
    if (WebAssembly.validate(Uint8Array.from(module))) return name;
  }
  return "scalar";
}

// Without asking the server, a browser may take files of a folder that has been replaced.
const FRESH = { cache: "no-cache" };

let model;
// Views whose answer ends, while it is computed or as soon as its turn comes.
const stopped = new Set();
// Messages wait while an answer is computed; this port lets them through.
const turns = new MessageChannel();
let resume = () => {};
turns.port1.onmessage = () => resume();
const turn = (view) => new Promise((resolve) => {
  resume = () => resolve(!stopped.has(view));
  turns.port2.postMessage(0);
});

/** A file of the page; says which one cannot be had, and why. */
async function fetched(name, options) {
  let response;
  try {
    response = await fetch(here(name), options);
  } catch {
    throw new Error(`${name} cannot be fetched: there is no connection to the server that this page came from, and the browser has not kept the file`);
  }
  if (!response.ok) {
    throw new Error(`${name} is missing on the server (HTTP ${response.status}); upload the folder as \`slmc compile --page\` wrote it`);
  }
  return response;
}

const hexadecimal = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** A program of page.json, which must have the bytes that are stated there. */
async function programOf(stated) {
  const bytes = new Uint8Array(await (await fetched(stated.file, FRESH)).arrayBuffer());
  const sound = (digest) => {
    if (digest !== stated.sha256) throw new Error(`${stated.file} is not the program that page.json states; upload the whole folder again, .wasm as binary files`);
  };
  if (bytes.length !== stated.bytes) sound(null);
  // Browsers have digests for pages from https and from localhost only; elsewhere the program makes its own.
  const { subtle } = globalThis.crypto ?? {};
  if (subtle) sound(hexadecimal(new Uint8Array(await subtle.digest("SHA-256", bytes))));
  const program = await Program.load(bytes).catch((error) => {
    // The browser takes programs of this kind, or another would have been chosen.
    if (!subtle && error instanceof WebAssembly.CompileError) sound(null);
    throw error;
  });
  if (!subtle) sound(program.scratch(() => program.sha256(program.put(bytes), bytes.length)));
  return program;
}

/** The store of pieces; null where the browser has none for this page. */
const store = async () => (typeof caches === "undefined" ? null : caches.open(PIECES).catch(() => null));

/** Reads a response into the program's memory; whether it has the bytes that the piece should have. */
async function into(program, at, piece, response, progress) {
  let filled = 0;
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return filled === piece.bytes && program.sha256(at, piece.bytes) === piece.sha256;
    if (filled + value.length > piece.bytes) {
      await reader.cancel();
      return false;
    }
    program.u8(at + filled, value.length).set(value);
    filled += value.length;
    progress(filled);
  }
}

/** The artifact in the program's memory, each piece checked; its address, and whether all pieces are kept for later. */
async function load(program, artifact) {
  const at = program.reserve(artifact.bytes);
  const kept = await store();
  let [loaded, all] = [0, kept !== null];
  for (const piece of artifact.pieces) {
    const progress = (filled) => postMessage({ type: "progress", loaded: loaded + filled, total: artifact.bytes });
    const url = here(piece.file);
    const known = await kept?.match(url);
    if (!known || !(await into(program, at + loaded, piece, known, progress))) {
      await kept?.delete(url);
      if (!(await into(program, at + loaded, piece, await fetched(piece.file, { cache: "no-store" }), progress))) {
        throw new Error(`${piece.file} is damaged: its bytes are not those that \`slmc compile --page\` wrote; upload it again, as a binary file`);
      }
      // A store that is full keeps nothing; the page works without.
      const copy = new Response(program.u8(at + loaded, piece.bytes).slice(), { headers: { "content-type": "application/octet-stream" } });
      await kept?.put(url, copy).catch(() => (all = false));
    }
    loaded += piece.bytes;
  }
  if (program.sha256(at, artifact.bytes) !== artifact.sha256) {
    throw new Error("the pieces together are not the artifact that page.json states; upload the whole folder again");
  }
  return { at, kept: all };
}

/** Opens the artifact in the fastest program that gives the logits of the build machine: one of a browser that computes
 * an instruction otherwise than WebAssembly says is left for the next. */
async function open() {
  const manifest = await (await fetched("page.json", FRESH)).json();
  const kinds = [...PROGRAMS.map(([name]) => name), "scalar"];
  let [place, before, kept] = [kinds.indexOf(kind()), null, false];
  for (;;) {
    const name = kinds[place];
    const program = await programOf(manifest.programs[name]);
    postMessage({ type: "manifest", manifest, kind: name, slower: before !== null });
    let at;
    if (before === null) {
      ({ at, kept } = await load(program, manifest.artifact));
    } else {
      at = program.reserve(manifest.artifact.bytes);
      program.u8(at, manifest.artifact.bytes).set(before.program.u8(before.at, manifest.artifact.bytes));
    }
    postMessage({ type: "checking" });
    model = new Model(program, at, manifest.artifact.bytes);
    let failure = null;
    try {
      model.selfTest();
    } catch (error) {
      failure = error.message;
    }
    if (failure !== null && place + 1 < kinds.length) {
      [place, before] = [place + 1, { program, at }];
      continue;
    }
    const { facts, chat, defaults } = model;
    return postMessage({ type: "ready", facts, chat, defaults, kept, grammar: model.grammar !== 0, memory: memory(), failure });
  }
}

const memory = () => ({ program: model.program.bytes, artifact: model.artifactBytes, session: model.sessionBytes });

const answers = {
  /** Continues a text. */
  async continue({ id, view, text, settings }) {
    const prompt = [...model.opening, ...model.encode(text)];
    return generate(id, view, prompt, settings, text === "");
  },
  /** Answers a question after some turns. */
  async ask({ id, view, system, turns, question, settings }) {
    const { tokens, dropped } = model.chatPrompt(system, turns, question, settings.most);
    return { ...(await generate(id, view, tokens, settings, true)), dropped };
  },
  /** Rows of texts: logits of labels, or embeddings. */
  async rows({ texts }) {
    const begin = performance.now();
    const rows = texts.map((text) => model.row(text));
    return { rows, ms: performance.now() - begin };
  },
};

function generate(id, view, prompt, settings, atStart) {
  const onText = (text, count) => postMessage({ type: "text", id, text, count });
  return model.generate({ ...settings, prompt, atStart, onText, turn: () => turn(view) });
}

async function handle(data) {
  try {
    if (data.type === "open") return await open();
    const result = await answers[data.type](data);
    postMessage({ type: "done", id: data.id, result, memory: memory() });
  } catch (error) {
    postMessage({ type: "failed", id: data.id, message: error.message });
  }
}

// There is one session: while an answer is computed, the next question waits. A stop does not; it is for the view that says
// it, which has one answer at a time.
let queue = Promise.resolve();
onmessage = ({ data }) => {
  if (data.type === "stop") {
    stopped.add(data.view);
    return;
  }
  stopped.delete(data.view);
  queue = queue.then(() => handle(data));
};
