// The worker of a page in node in place of a browser, with a folder in place of a server:
//
//     node worker.mjs DIR
//
// DIR is a page of a model with a chat template. Two views ask at once, are stopped while they wait and while they are
// answered; the server then hands out other programs than page.json states. stdout has a line of JSON: how each file was asked
// for, and what the worker says of the programs.
import { readFile } from "node:fs/promises";
import { join } from "node:path";

const [directory] = process.argv.slice(2);
const ORIGIN = "http://localhost/";

function check(holds, what) {
  if (!holds) throw new Error(what);
}

const module = (source) => `data:text/javascript;base64,${Buffer.from(source).toString("base64")}`;
const manifest = JSON.parse(await readFile(join(directory, "page.json"), "utf8"));
const programs = Object.values(manifest.programs).map(({ file }) => file);

// An answer that never comes is a fault, and no reason to wait.
setTimeout(() => check(false, "no answer within 120 s"), 120_000).unref();

// What the server hands out in place of a file, and how files were asked for.
const handed = new Map();
const asked = new Map();
globalThis.fetch = async (url, { cache = "default" } = {}) => {
  const name = url.slice(ORIGIN.length);
  asked.set(name, cache);
  return new Response(handed.get(name) ?? (await readFile(join(directory, name))));
};
// Time that passes so fast that others have a turn after every token.
let now = 0;
Object.defineProperty(globalThis, "performance", { value: { now: () => (now += 20) } });

let count = 0;
/** A worker that is opened: what it says, and how it is told something. */
async function begin() {
  const [messages, waiting, hears] = [[], new Map(), { text() {} }];
  const opened = new Promise((resolve) => waiting.set(undefined, resolve));
  globalThis.onmessage = null;
  globalThis.postMessage = (message) => {
    messages.push(message);
    if (message.type === "text") hears.text();
    if (["ready", "done", "failed"].includes(message.type)) waiting.get(message.id)?.(message);
  };
  const library = module(await readFile(join(directory, "slm.js")));
  const source = (await readFile(join(directory, "worker.js"), "utf8"))
    .replace('"./slm.js"', JSON.stringify(library))
    .replaceAll("import.meta.url", JSON.stringify(`${ORIGIN}worker.js`));
  await import(module(`${source}// ${count++}`));
  const tell = (data) => globalThis.onmessage({ data });
  const ask = (message) => {
    const id = count++;
    const answer = new Promise((resolve) => waiting.set(id, resolve));
    tell({ ...message, id });
    return { id, answer };
  };
  tell({ type: "open" });
  return { messages, hears, tell, ask, ready: await opened };
}

const { messages, hears, tell, ask, ready } = await begin();
check(ready.type === "ready" && ready.failure === null, JSON.stringify(ready));
const choice = { temperature: 0.9, top_k: 0, top_p: 1, min_p: 0, repetition_penalty: 1.1 };
const settings = { most: 40, choice, seed: "3", follow: true };
const chat = { type: "ask", view: "chat", system: "Be brief.", turns: [], question: "Who is the fox?", settings };
const text = { type: "continue", view: "text", text: "Once upon a time", settings };
const tokens = async ({ answer }) => (await answer).result.tokens.join();
const alone = [await tokens(ask(chat)), await tokens(ask(text))];
check(alone[0] !== alone[1] && alone.every((answer) => answer.split(",").length > 10), `${alone}`);

// Both at once, each first.
for (const [first, second, expected] of [[chat, text, alone], [text, chat, [...alone].reverse()]]) {
  messages.length = 0;
  const both = [ask(first), ask(second)];
  const given = [await tokens(both[0]), await tokens(both[1])];
  check(given.join(" ") === expected.join(" "), `at once ${given.join(" ")}, alone ${expected.join(" ")}`);
  const order = messages.filter(({ type }) => type === "text").map(({ id }) => id);
  check(order.lastIndexOf(both[0].id) < order.indexOf(both[1].id), `the answers alternate: ${order}`);
}

/** Both at once, and a stop of one of them, after the first text or before anything is answered. */
async function stop(view, late) {
  const both = [ask(chat), ask(text)];
  const end = () => {
    hears.text = () => {};
    tell({ type: "stop", view });
  };
  if (late) hears.text = end;
  else end();
  return Promise.all(both.map(async ({ answer }) => (await answer).result));
}
for (const late of [false, true]) {
  for (const [index, view] of ["chat", "text"].entries()) {
    const results = await stop(view, late);
    const [stopped, other] = [results[index], results[1 - index]];
    check(stopped.stop === "stopped" && stopped.tokens.length < 10, `${view} is not stopped: ${JSON.stringify(stopped)}`);
    check(other.tokens.join() === alone[1 - index], `a stop of ${view} changes the other answer: ${JSON.stringify(other)}`);
  }
}
// A stop is for what was asked before it.
check(await tokens(ask(chat)) === alone[0], "a stop ends a later answer");

const faults = [];
const flip = (bytes) => ((bytes[bytes.length >> 1] ^= 1), bytes);
const { crypto } = globalThis;
for (const change of [flip, (bytes) => bytes.subarray(0, -1)]) {
  for (const own of [crypto, undefined]) {
    Object.defineProperty(globalThis, "crypto", { value: own, configurable: true });
    for (const name of programs) handed.set(name, change(await readFile(join(directory, name))));
    faults.push((await begin()).ready.message);
  }
}
handed.clear();
Object.defineProperty(globalThis, "crypto", { value: undefined, configurable: true });
check((await begin()).ready.type === "ready", "without the browser's digests a page does not open");
process.stdout.write(`${JSON.stringify({ asked: Object.fromEntries(asked), faults })}\n`, () => process.exit(0));
