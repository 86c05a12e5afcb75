// The page: starts the worker, shows what it does, and gives the views of views.js what they need of it.
import { views } from "./views.js";

const element = (id) => document.getElementById(id);
const grouped = (number) => number.toLocaleString("en-US");
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 1)} MB`;

let worker;
let next = 0;
const waiting = new Map();

/** Asks the worker; `onText` receives the text of an answer as it comes. */
function ask(message, onText) {
  const id = next++;
  worker.postMessage({ ...message, id });
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject, onText }));
}

/** Ends the answer that a view waits for. */
const stop = (view) => worker.postMessage({ type: "stop", view });

function fail(message) {
  element("loading").hidden = true;
  element("failure").textContent = message;
  element("failure").hidden = false;
}

// ------------------------------------------------------------------------------------------------ what is measured

/** Tokens per second of an answer, as they are shown under it. */
function speed(result) {
  const read = result.promptMs > 0 && result.promptTokens > 0 ? `${rate(result.promptTokens, result.promptMs)} tokens/s read` : "";
  const written = result.tokens.length > 1 && result.decodeMs > 0 ? `${rate(result.tokens.length - 1, result.decodeMs)} tokens/s written` : "";
  return [written, read].filter((part) => part !== "").join(", ");
}

function rate(tokens, ms) {
  const value = (1000 * tokens) / ms;
  return value < 100 ? value.toFixed(1) : grouped(Math.round(value));
}

const STOPS = { context: "the context is full", length: "as many tokens as the settings allow", stopped: "stopped" };

/** What is worth knowing of an answer, in a line. */
function note(result) {
  const count = `${grouped(result.tokens.length)} ${result.tokens.length === 1 ? "token" : "tokens"}`;
  return [count, speed(result), STOPS[result.stop] ?? "", result.seed === undefined ? "" : `seed ${result.seed}`].filter((part) => part !== "").join(" · ");
}

function showMemory(memory) {
  element("memory").textContent =
    `${megabytes(memory.program)}: artifact ${megabytes(memory.artifact)}, session ${megabytes(memory.session)}`;
}

// ------------------------------------------------------------------------------------------------ settings

const NUMBERS = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty"];

function showDefaults(defaults) {
  for (const name of NUMBERS) element(name).value = String(Math.round(defaults[name] * 1e6) / 1e6);
  element("seed").value = "0";
  element("most").value = "";
}

/** The settings as an answer takes them; throws with a sentence for a number that cannot be. */
function settings(most) {
  const choice = {};
  for (const name of [...NUMBERS, "seed", "most"]) {
    const input = element(name);
    if (!input.validity.valid) {
      element("settings").open = true;
      input.focus();
      throw new Error(`${document.querySelector(`label[for="${name}"]`).firstChild.textContent.trim()}: ${input.validationMessage}`);
    }
  }
  for (const name of NUMBERS) choice[name] = Number(element(name).value);
  const random = element("seed").value === "";
  const seed = random ? String(crypto.getRandomValues(new Uint32Array(1))[0]) : element("seed").value;
  return {
    choice,
    seed,
    // Shown where nobody knows it.
    shownSeed: random && choice.temperature > 0 ? seed : undefined,
    most: Number(element("most").value) || most,
    follow: element("follow").checked,
  };
}

// ------------------------------------------------------------------------------------------------ the worker's messages

const KINDS = {
  relaxed: "WebAssembly with 128-bit vectors and products of bytes",
  simd: "WebAssembly with 128-bit vectors",
  scalar: "WebAssembly without vectors, which this browser does not have: several times slower",
};

const said = {
  progress({ loaded, total }) {
    element("progress").value = loaded / total;
    element("loading-text").textContent = `Loading the model: ${megabytes(loaded)} of ${megabytes(total)}`;
  },
  checking() {
    element("loading-text").textContent = "Comparing with the build machine …";
  },
  manifest({ manifest, kind, slower }) {
    said.manifest.content = manifest;
    const { model, artifact, tool } = manifest;
    document.title = model.name;
    element("name").textContent = model.name;
    element("about").textContent = `${model.summary}. Runs in this browser; what you type stays on this device.`;
    element("program").textContent = KINDS[kind] + (slower ? "; this browser gives other results with more of them" : "");
    element("program").dataset.kind = kind;
    element("artifact").textContent = `${megabytes(artifact.bytes)}, SHA-256 ${artifact.sha256.slice(0, 16)}…, ${tool}`;
    element("artifact").title = artifact.sha256;
  },
  ready(message) {
    const manifest = said.manifest.content;
    element("loading").hidden = true;
    element("main").hidden = false;
    element("facts").hidden = false;
    showMemory(message.memory);
    showOffline(message.kept);
    if (message.defaults) {
      element("settings").hidden = false;
      showDefaults(message.defaults);
      element("defaults").onclick = () => showDefaults(message.defaults);
      element("follow-row").hidden = !message.grammar;
      element("system-row").hidden = !message.chat?.has_system;
    } else {
      element("speed").previousElementSibling.hidden = element("speed").hidden = true;
    }
    views({ ...message, labels: manifest.labels }, { ask, stop, settings, note, result: (result) => {
      showMemory(result.memory);
      if (result.tokens) element("speed").textContent = speed(result) || "not measured yet";
    } });
    const { failure } = message;
    element("verified").className = failure === null ? "good" : "bad";
    element("verified").textContent = failure === null
      ? "The logits are those of the build machine, bit for bit."
      : `The golden prompts do not give the logits of the build machine: ${failure}. Answers may differ; please report this with the name of the browser.`;
    document.documentElement.dataset.verified = failure === null ? "yes" : "no";
    document.documentElement.dataset.state = "ready";
  },
  text({ id, text, count }) {
    waiting.get(id)?.onText?.(text, count);
  },
  done({ id, result, memory }) {
    waiting.get(id)?.resolve({ ...result, memory });
    waiting.delete(id);
  },
  failed({ id, message }) {
    if (id === undefined) return fail(message);
    waiting.get(id)?.reject(new Error(message));
    waiting.delete(id);
  },
};

// ------------------------------------------------------------------------------------------------ offline

const NOT_KEPT = "no: this browser does not keep the page";

/** Why the worker that is installed first cannot be, where it cannot: `ready` then waits for ever. */
function installFault({ installing, waiting, active }) {
  return new Promise((resolve) => {
    const check = () => {
      const gone = installing ? installing.state === "redundant" : !waiting && !active;
      if (gone) resolve("no: a file of the page cannot be kept; load the page again, or upload the whole folder again");
    };
    check();
    installing?.addEventListener("statechange", check);
  });
}

/** Registers the worker that serves the page without a connection; null where it will, or why it does not. */
async function register() {
  if (!("serviceWorker" in navigator)) return NOT_KEPT;
  let registration;
  try {
    registration = await navigator.serviceWorker.register("service-worker.js");
    registration.addEventListener("updatefound", () => {
      // The first one is no newer version.
      if (navigator.serviceWorker.controller === null) return;
      const { installing } = registration;
      installing.addEventListener("statechange", () => {
        if (installing.state === "activated") element("newer").hidden = false;
      });
    });
  } catch {
    return NOT_KEPT;
  }
  return Promise.race([navigator.serviceWorker.ready.then(() => null), installFault(registration)]);
}

const registered = register();

async function showOffline(kept) {
  const place = element("offline");
  place.textContent = "…";
  const fault = await registered;
  const opens = fault === null && kept;
  document.documentElement.dataset.offline = opens ? "yes" : "no";
  if (opens) place.textContent = "this page opens without a connection from now on";
  else if (!window.isSecureContext) place.textContent = "no: browsers keep pages from https or localhost only";
  else place.textContent = fault ?? NOT_KEPT;
}

element("reload").onclick = () => location.reload();

// ------------------------------------------------------------------------------------------------ start

if (document.documentElement.className !== "cannot") {
  element("loading").hidden = false;
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => said[data.type](data);
  worker.onerror = (event) => fail(`The page's worker cannot start${event.message ? `: ${event.message}` : ""}. Load the page again, or use a current browser.`);
  worker.postMessage({ type: "open" });
}
