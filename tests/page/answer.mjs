// Answers requests with the very program, pieces and code of a page, in node in place of a browser:
//
//     node answer.mjs DIR KIND < REQUESTS
//
// KIND is a program of page.json: relaxed, simd or scalar (relaxed needs --experimental-wasm-relaxed-simd before node 21).
// REQUESTS is an array of {type: "continue", text, settings}, {type: "converse", system, questions, settings},
// {type: "rows", texts}; the answer is an array of their results, behind the facts of the model and the time of the self-test.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { text as read } from "node:stream/consumers";

const [directory, kind] = process.argv.slice(2);
// Of any name and version of node: a .js file without a package.json is no module for some.
const source = await readFile(join(directory, "slm.js"));
const { Program, Model } = await import(`data:text/javascript;base64,${source.toString("base64")}`);

const manifest = JSON.parse(await readFile(join(directory, "page.json"), "utf8"));
const program = await Program.load(await readFile(join(directory, manifest.programs[kind].file)));
const { artifact } = manifest;
const at = program.reserve(artifact.bytes);
let filled = 0;
for (const piece of artifact.pieces) {
  const bytes = await readFile(join(directory, piece.file));
  program.u8(at + filled, bytes.length).set(bytes);
  if (program.sha256(at + filled, piece.bytes) !== piece.sha256) throw new Error(`${piece.file} is damaged`);
  filled += bytes.length;
}
if (program.sha256(at, artifact.bytes) !== artifact.sha256) throw new Error("not the artifact of page.json");
const model = new Model(program, at, artifact.bytes);
const begin = performance.now();
model.selfTest();
const selfTestMs = performance.now() - begin;

const answers = {
  continue: ({ text, settings }) =>
    model.generate({ ...settings, prompt: [...model.opening, ...model.encode(text)], atStart: text === "" }),
  async converse({ system, questions, settings }) {
    const [turns, results] = [[], []];
    for (const question of questions) {
      const { tokens, dropped } = model.chatPrompt(system, turns, question, settings.most);
      const result = await model.generate({ ...settings, prompt: tokens, atStart: true });
      turns.splice(0, dropped);
      turns.push({ question, answer: result.text });
      results.push({ ...result, dropped });
    }
    return results;
  },
  rows: async ({ texts }) => texts.map((text) => model.row(text)),
};
const results = [];
for (const request of JSON.parse(await read(process.stdin))) results.push(await answers[request.type](request));
const { facts, defaults, chat } = model;
const vectors = program.exports.page_vectors();
process.stdout.write(JSON.stringify({ facts, defaults, chat, vectors, grammar: model.grammar !== 0, selfTestMs, memory: program.bytes, results }));
