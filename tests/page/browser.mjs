// Pages in headless Chromium, driven over its debugging pipe, by node alone:
//
//     node browser.mjs PLAN.json OUT
//
// PLAN is an array of {name, directory, view: text | chat | labels | similarity, inputs, settings, expected}: `inputs` are
// prompts, questions in turn, texts to classify, or two texts; `expected` what slmc gives for each, tokens, a label or a cosine,
// and null where only the golden prompts say what is right.
// For every page: it loads from a subfolder, verifies itself, answers what slmc answers, asks nobody else, and opens again
// once the server is gone. The first page of the plan is then damaged in every way that a server can damage it, and served so
// that it cannot be kept. Screenshots
// at 390 and 1280 pixels, light and dark, go to OUT; stdout has a line of JSON with what was measured. CHROMIUM names the
// browser, CHROMIUM_FLAGS further options of it.
import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";

const [planFile, out] = process.argv.slice(2);
const PATIENCE = Number(process.env.SLMC_PAGE_SECONDS ?? 240) * 1000;
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".wasm": "application/wasm", ".json": "application/json" };

function check(holds, what) {
  if (!holds) throw new Error(what);
}

/** A static server that knows nothing of pages, as python's is. */
class Server {
  async start(root, port = 0) {
    this.root = root;
    this.requests = [];
    this.server = createServer(async (request, response) => {
      const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
      this.requests.push(path);
      const name = path.endsWith("/") ? `${path}index.html` : path;
      try {
        const body = await readFile(join(this.root, name));
        response.writeHead(200, { "content-type": TYPES[extname(name)] ?? "application/octet-stream" }).end(body);
      } catch {
        response.writeHead(404).end();
      }
    });
    await new Promise((resolve) => this.server.listen(port, "127.0.0.1", resolve));
    this.port = this.server.address().port;
    return `http://localhost:${this.port}`;
  }

  async stop() {
    this.server.closeAllConnections?.();
    await new Promise((resolve) => this.server.close(resolve));
  }
}

/** Chromium behind its debugging pipe: JSON, a NUL after each message. */
class Browser {
  constructor(profile) {
    const root = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
    const flags = ["--headless", ...root, "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--disable-component-update",
      "--disable-sync", "--remote-debugging-pipe", `--user-data-dir=${profile}`, ...(process.env.CHROMIUM_FLAGS ?? "").split(" ").filter(Boolean), "about:blank"];
    this.process = spawn(process.env.CHROMIUM ?? "chromium", flags, { stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"] });
    this.said = "";
    this.process.stderr.on("data", (data) => (this.said += data));
    this.next = 1;
    this.waiting = new Map();
    this.listeners = [];
    let rest = Buffer.alloc(0);
    this.process.stdio[4].on("data", (data) => {
      rest = Buffer.concat([rest, data]);
      for (let end; (end = rest.indexOf(0)) >= 0; rest = rest.subarray(end + 1)) this.#receive(JSON.parse(rest.subarray(0, end).toString()));
    });
    this.process.on("exit", () => {
      for (const { reject } of this.waiting.values()) reject(new Error(`the browser ended: ${this.said.slice(-2000)}`));
    });
  }

  #receive(message) {
    if (message.id === undefined) return this.listeners.forEach((listener) => listener(message));
    const { resolve, reject } = this.waiting.get(message.id) ?? {};
    this.waiting.delete(message.id);
    if (message.error) reject?.(new Error(`${message.error.message} ${message.error.data ?? ""}`));
    else resolve?.(message.result);
  }

  send(method, params = {}, sessionId) {
    const id = this.next++;
    this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  async tab() {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const tab = new Tab(this, sessionId, targetId);
    for (const domain of ["Page", "Runtime", "Network", "Log"]) await tab.send(`${domain}.enable`);
    return tab;
  }

  async close() {
    await Promise.race([this.send("Browser.close").catch(() => {}), sleep(5000)]);
    this.process.kill();
  }
}

class Tab {
  constructor(browser, sessionId, targetId) {
    Object.assign(this, { browser, sessionId, targetId, urls: [], errors: [] });
    browser.listeners.push(({ method, params, sessionId: of }) => {
      if (of !== sessionId) return;
      if (method === "Network.requestWillBeSent") this.urls.push(params.request.url);
      if (method === "Runtime.exceptionThrown") this.errors.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
      if (method === "Log.entryAdded" && params.entry.level === "error") this.errors.push(`${params.entry.text} ${params.entry.url ?? ""}`);
    });
  }

  send(method, params) {
    return this.browser.send(method, params, this.sessionId);
  }

  async evaluate(expression) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
    check(!exceptionDetails, `${expression}: ${exceptionDetails?.exception?.description}`);
    return result.value;
  }

  /** Waits until an expression is true. */
  async until(expression, what) {
    const begin = Date.now();
    while (Date.now() - begin < PATIENCE) {
      if (await this.evaluate(`Boolean(${expression})`).catch(() => false)) return;
      await sleep(50);
    }
    const failure = await this.evaluate("document.getElementById('failure')?.textContent");
    throw new Error(`${what}: not within ${PATIENCE / 1000} s; the page says ${JSON.stringify(failure)}; ${this.errors.join("; ")}`);
  }

  async go(url) {
    await this.send("Page.navigate", { url });
  }

  async ready() {
    await this.until("document.documentElement.dataset.state === 'ready'", "the model is loaded");
    await this.until("document.documentElement.dataset.verified", "the golden prompts have run");
  }

  async press(key) {
    const code = { key, code: key, windowsVirtualKeyCode: { Enter: 13, Tab: 9 }[key] };
    await this.send("Input.dispatchKeyEvent", { type: "keyDown", ...code, text: key === "Enter" ? "\r" : undefined });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", ...code });
  }

  /** Types a text into an element, as a person does. */
  async type(id, text) {
    await this.evaluate(`document.getElementById(${JSON.stringify(id)}).focus(), document.getElementById(${JSON.stringify(id)}).select()`);
    if (text === "") await this.evaluate(`document.getElementById(${JSON.stringify(id)}).value = ""`);
    else await this.send("Input.insertText", { text });
  }

  async set(settings) {
    for (const [id, value] of Object.entries(settings)) {
      await this.evaluate(`document.getElementById(${JSON.stringify(id)}).value = ${JSON.stringify(String(value))}`);
    }
  }

  async idle() {
    await this.until("document.documentElement.dataset.busy === 'no'", "an answer");
  }

  async screenshot(name, width, dark) {
    const height = width < 600 ? 844 : 800;
    await this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: width < 600 ? 2 : 1, mobile: width < 600 });
    await this.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }] });
    await sleep(300);
    const wide = await this.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
    check(wide <= 0, `${name}: the page is ${wide} pixels wider than the window`);
    const { data } = await this.send("Page.captureScreenshot", { format: "png" });
    await writeFile(join(out, `${name}-${width}-${dark ? "dark" : "light"}.png`), Buffer.from(data, "base64"));
  }

  async screenshots(name) {
    for (const width of [390, 1280]) for (const dark of [false, true]) await this.screenshot(name, width, dark);
  }
}

const views = {
  async text(tab, { inputs, expected }) {
    await tab.evaluate("document.querySelector('#views [data-view=text]')?.click()");
    const speeds = [];
    for (const [index, input] of inputs.entries()) {
      await tab.type("prompt", input);
      await tab.press("Enter");
      await tab.idle();
      const said = await tab.evaluate("document.getElementById('output-note').textContent");
      const tokens = await tab.evaluate("document.getElementById('output').dataset.tokens");
      check(tokens === expected[index].join(","), `${input}: the page gives ${tokens}, slmc ${expected[index]}; ${said}`);
      speeds.push(said);
    }
    return speeds;
  },
  async chat(tab, { inputs, expected }) {
    const speeds = [];
    for (const [index, input] of inputs.entries()) {
      await tab.type("question", input);
      await tab.press("Enter");
      await tab.idle();
      const said = await tab.evaluate("[...document.querySelectorAll('.turn .note')].at(-1).textContent");
      const tokens = await tab.evaluate("[...document.querySelectorAll('.answer')].at(-1).dataset.tokens");
      check(tokens === expected[index].join(","), `${input}: the page answers ${tokens}, slmc ${expected[index]}; ${said}`);
      speeds.push(said);
    }
    return speeds;
  },
  async labels(tab, { inputs, expected }) {
    for (const [index, input] of inputs.entries()) {
      await tab.type("labelled", input);
      await tab.press("Enter");
      await tab.idle();
      const first = await tab.evaluate("document.querySelector('#shares .label').textContent");
      check(first !== "" && (expected[index] === null || first === expected[index]), `${input}: the page says ${first}, slmc ${expected[index]}`);
    }
    return [await tab.evaluate("document.getElementById('labels-note').textContent")];
  },
  async similarity(tab, { inputs, expected }) {
    await tab.type("first", inputs[0]);
    await tab.type("second", inputs[1]);
    await tab.press("Enter");
    await tab.idle();
    const value = Number(await tab.evaluate("document.querySelector('#similar .value').textContent"));
    const near = expected[0] === null ? value > -1 && value < 1 : Math.abs(value - expected[0]) < 1e-4;
    check(near, `the page says ${value}, slmc ${expected[0]}`);
    return [await tab.evaluate("document.getElementById('similarity-note').textContent")];
  },
};

/** A page of the plan, from loading to opening without a server. */
async function visit(browser, page, folder) {
  const root = join(folder, page.name);
  await cp(page.directory, join(root, "some folder"), { recursive: true });
  const server = new Server();
  const origin = await server.start(root);
  const url = `${origin}/some%20folder/`;
  const tab = await browser.tab();
  const begin = Date.now();
  await tab.go(url);
  await tab.ready();
  const loadMs = Date.now() - begin;
  check(await tab.evaluate("document.documentElement.dataset.verified") === "yes", `${page.name}: ${await tab.evaluate("document.getElementById('verified').textContent")}`);
  await tab.set(page.settings);
  const speeds = await views[page.view](tab, page);
  await tab.screenshots(page.name);
  const facts = await tab.evaluate("Object.fromEntries([...document.querySelectorAll('footer dt')].map((dt) => [dt.textContent, dt.nextElementSibling.textContent]))");
  const elsewhere = tab.urls.filter((asked) => !asked.startsWith(origin) && !asked.startsWith("data:") && !asked.startsWith("blob:"));
  check(elsewhere.length === 0, `${page.name} asks elsewhere: ${elsewhere}`);
  check(tab.errors.length === 0, `${page.name}: ${tab.errors.join("; ")}`);
  await tab.until("document.documentElement.dataset.offline === 'yes'", "the page is kept");
  const { port } = server;
  await server.stop();
  await tab.go("about:blank");
  await tab.go(url);
  await tab.ready();
  await tab.set(page.settings);
  await views[page.view](tab, page);
  await browser.send("Target.closeTarget", { targetId: tab.targetId });
  return { name: page.name, loadMs, speeds, facts, port };
}

/** What the page says where a server hands out something else than slmc wrote. */
async function damaged(browser, page, folder) {
  const says = async (name, change, expected) => {
    const root = join(folder, `damaged-${name}`);
    await cp(page.directory, root, { recursive: true });
    await change(root);
    const server = new Server();
    const tab = await browser.tab();
    await tab.go(`${await server.start(root)}/`);
    await tab.until("!document.getElementById('failure').hidden", name);
    const said = await tab.evaluate("document.getElementById('failure').textContent");
    check(expected.every((part) => said.includes(part)), `${name}: the page says ${said}`);
    if (name === "damaged") await tab.screenshots("damaged");
    await server.stop();
    await browser.send("Target.closeTarget", { targetId: tab.targetId });
    return said;
  };
  const manifest = JSON.parse(await readFile(join(page.directory, "page.json"), "utf8"));
  const piece = manifest.artifact.pieces[0].file;
  const programs = Object.values(manifest.programs).map(({ file }) => file);
  const rewrite = (name, change) => async (root) => writeFile(join(root, name), change(await readFile(join(root, name))));
  const flip = (bytes) => ((bytes[bytes.length >> 1] ^= 1), bytes);
  const said = [
    await says("missing", (root) => rm(join(root, piece)), [piece, "missing"]),
    await says("damaged", rewrite(piece, flip), [piece, "damaged"]),
    await says("short", rewrite(piece, (bytes) => bytes.subarray(0, -1)), [piece, "damaged"]),
    await says("long", rewrite(piece, (bytes) => Buffer.concat([bytes, bytes])), [piece, "damaged"]),
    await says("with other programs", async (root) => {
      for (const name of programs) await rewrite(name, flip)(root);
    }, [".wasm is not the program that page.json states"]),
    await says("without its list", (root) => rm(join(root, "page.json")), ["page.json", "missing"]),
  ];
  // From a file there is a sentence with the remedy.
  const tab = await browser.tab();
  await tab.go(pathToFileURL(join(page.directory, "index.html")).href);
  await tab.until("!document.getElementById('cannot').hidden", "from a file");
  said.push(await tab.evaluate("document.getElementById('cannot').textContent"));
  check(said.at(-1).includes("python3 -m http.server"), said.at(-1));
  await tab.screenshots("file");
  return said;
}

/** What the page says where the worker that would keep it cannot be installed. */
async function notKept(browser, page, folder) {
  const root = join(folder, "not kept");
  await cp(page.directory, root, { recursive: true });
  // One that the page itself works without.
  await rm(join(root, "icon.svg"));
  const server = new Server();
  const tab = await browser.tab();
  await tab.go(`${await server.start(root)}/`);
  await tab.ready();
  await tab.until("document.documentElement.dataset.offline === 'no'", "the page says that it is not kept");
  const said = await tab.evaluate("document.getElementById('offline').textContent");
  check(said.includes("cannot be kept"), said);
  await server.stop();
  await browser.send("Target.closeTarget", { targetId: tab.targetId });
  return said;
}

const plan = JSON.parse(await readFile(planFile, "utf8"));
await mkdir(out, { recursive: true });
const folder = await mkdtemp(join(tmpdir(), "slmc-page-"));
const browser = new Browser(join(folder, "profile"));
try {
  const { product } = await browser.send("Browser.getVersion");
  const pages = [];
  for (const page of plan) pages.push(await visit(browser, page, folder));
  const faults = [...(await damaged(browser, plan[0], folder)), await notKept(browser, plan[0], folder)];
  process.stdout.write(`${JSON.stringify({ browser: product, pages, faults })}\n`);
} finally {
  await browser.close();
  await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
}
