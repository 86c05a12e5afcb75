// The runtime from JavaScript: the functions of slm.h over the memory of the program (`wasm/program.rs`). Used by the page's
// worker, and by node in the tests. Nothing here knows of a page.
//
// Addresses are numbers; the memory grows, so that every access makes its view anew. Behind the program's own memory lie,
// each on 64 bytes: the model (slm_model), the artifact, the session, and scratch that a call gives back when it ends.

const PAGE_BYTES = 65536;
const ALIGNMENT = 64;
const MODEL_BYTES = 320 * 8;
const GRAMMAR_BYTES = 32 * 8;
const GRAMMAR_STATE_BYTES = 19 * 2;
const MAX_SPECIAL_TOKENS = 64;
// Tokens without an alternative that are taken in one go.
const FORCED = 64;
// Tokens of a prompt that are read before others may run.
const PIECE = 64;
// Longest time without giving others a turn, in milliseconds.
const TURN = 16;
// The share of the context that is kept free for an answer, where one may be as long.
const FREE_SHARE = 4;

const OK = 0;
const CONTEXT = 9;
const CAPACITY = 15;

const KINDS = { 1: "decoder", 2: "encoder" };
const OUTPUTS = { 1: "hidden", 2: "next", 3: "masked", 4: "labels", 5: "embedding" };
export const CHAT = { OPEN_USER: 0, OPEN_SYSTEM: 1, SYSTEM_TO_USER: 2, USER_TO_ASSISTANT: 3, ASSISTANT_TO_USER: 4 };
export const ROLE = { SYSTEM: 0, USER: 1, ASSISTANT: 2 };

/** A status of slm.h that is not SLM_OK. */
export class SlmError extends Error {
  constructor(message, status) {
    super(message);
    this.name = "SlmError";
    this.status = status;
  }
}

const encoder = new TextEncoder();
/** A decoder that replaces what is not UTF-8, as slmc does, and keeps a byte order mark. */
const textDecoder = () => new TextDecoder("utf-8", { ignoreBOM: true });

/** The program, and its memory. */
export class Program {
  constructor(instance) {
    this.exports = instance.exports;
    // Where the next reservation begins.
    this.top = this.exports.memory.buffer.byteLength;
  }

  /** Of the bytes of a .wasm file. */
  static async load(bytes) {
    const { instance } = await WebAssembly.instantiate(bytes, {});
    const program = new Program(instance);
    if (program.exports.slm_abi_version() !== 1) throw new SlmError("page and program are of different versions; compile the page again");
    return program;
  }

  get bytes() {
    return this.exports.memory.buffer.byteLength;
  }

  /** Room for some bytes; throws where the browser has no more. */
  reserve(bytes) {
    const start = Math.ceil(this.top / ALIGNMENT) * ALIGNMENT;
    const missing = start + bytes - this.bytes;
    if (missing > 0) {
      try {
        this.exports.memory.grow(Math.ceil(missing / PAGE_BYTES));
      } catch {
        const mebibytes = Math.ceil((start + bytes) / 1048576);
        throw new SlmError(`the browser does not give the ${mebibytes} MiB of memory that this model needs; close other pages, or use a device with more memory`);
      }
    }
    this.top = start + bytes;
    return start;
  }

  /** Gives back what is reserved by `body` when it ends. */
  scratch(body) {
    const top = this.top;
    try {
      return body();
    } finally {
      this.top = top;
    }
  }

  u8(at, length) {
    return new Uint8Array(this.exports.memory.buffer, at, length);
  }

  u32(at, length = 1) {
    return new Uint32Array(this.exports.memory.buffer, at, length);
  }

  f32(at, length = 1) {
    return new Float32Array(this.exports.memory.buffer, at, length);
  }

  /** A copy of some bytes in new room. */
  put(bytes) {
    const at = this.reserve(Math.max(bytes.length, 1));
    this.u8(at, bytes.length).set(bytes);
    return at;
  }

  /** The same of numbers of 32 bits. */
  putWords(words) {
    const at = this.reserve(4 * Math.max(words.length, 1));
    this.u32(at, words.length).set(words);
    return at;
  }

  /** A text that ends with NUL. */
  cString(at) {
    const memory = new Uint8Array(this.exports.memory.buffer);
    return textDecoder().decode(memory.subarray(at, memory.indexOf(0, at)));
  }

  /** SHA-256 of a place in memory, 64 hexadecimal digits. */
  sha256(at, length) {
    return this.scratch(() => {
      const digest = this.reserve(32);
      this.exports.page_sha256(at, length, digest);
      return Array.from(this.u8(digest, 32), (byte) => byte.toString(16).padStart(2, "0")).join("");
    });
  }

  check(status, detail) {
    if (status !== OK) throw new SlmError(detail ?? this.cString(this.exports.slm_message(status) >>> 0), status);
  }
}

/** An opened artifact with one session. */
export class Model {
  /** Opens the artifact that lies at an address, which starts on 64 bytes. */
  constructor(program, artifact, length) {
    this.program = program;
    const { exports } = program;
    this.model = program.reserve(MODEL_BYTES);
    program.u8(this.model, MODEL_BYTES).fill(0);
    const status = exports.slm_open(this.model, artifact, length);
    if (status !== OK) program.check(status, `the artifact is refused: ${this.#message(exports.slm_model_error, this.model)}`);
    this.facts = this.#facts();
    this.artifactBytes = length;
    this.sessionBytes = exports.slm_session_bytes(this.model) >>> 0;
    this.session = 0;
    // What the session has read.
    this.read = [];
    const words = Math.ceil(this.facts.vocabulary / 32);
    this.seen = program.reserve(4 * words);
    this.words = words;
    this.memory = program.reserve(this.sessionBytes);
    this.grammar = this.#openGrammar();
    this.opening = this.#list(exports.slm_opening_tokens);
    this.prefix = this.#list(exports.slm_prefix_tokens, this.facts.context);
    this.ends = new Set(this.#list(exports.slm_end_tokens));
    this.chat = this.#chat();
    this.defaults = this.#defaults();
  }

  /** Whether the golden prompts give the logits of the build machine, bit for bit; throws where they do not. Ends the
   * session's sequence. */
  selfTest() {
    const { program } = this;
    this.session = 0;
    this.read = [];
    program.check(program.exports.slm_self_test(this.model, this.memory, this.sessionBytes));
  }

  /** Tokens of a text, without those that open one; with `specials` as an encoder reads it. */
  encode(text, specials = false) {
    const { program, model } = this;
    const bytes = encoder.encode(text);
    return program.scratch(() => {
      const need = program.exports.slm_encode_bytes(model, bytes.length) >>> 0;
      const [at, memory, count] = [program.put(bytes), program.reserve(need), program.reserve(4)];
      let capacity = bytes.length + 8;
      for (;;) {
        const tokens = program.reserve(4 * capacity);
        const status = program.exports.slm_encode(model, at, bytes.length, specials ? 1 : 0, memory, need, tokens, capacity, count);
        const length = program.u32(count)[0];
        if (status === CAPACITY && length > capacity) {
          capacity = length;
          continue;
        }
        program.check(status);
        return Array.from(program.u32(tokens, length));
      }
    });
  }

  /** The text of a conversation that ends with a question: `turns` are {question, answer}. */
  chatText(system, turns, question) {
    const parts = [];
    let part = CHAT.OPEN_USER;
    if (system) {
      parts.push(this.#frame(CHAT.OPEN_SYSTEM), this.#chatMessage(ROLE.SYSTEM, system));
      part = CHAT.SYSTEM_TO_USER;
    }
    for (const turn of turns) {
      parts.push(this.#frame(part), this.#chatMessage(ROLE.USER, turn.question));
      parts.push(this.#frame(CHAT.USER_TO_ASSISTANT), this.#chatMessage(ROLE.ASSISTANT, turn.answer));
      part = CHAT.ASSISTANT_TO_USER;
    }
    parts.push(this.#frame(part), this.#chatMessage(ROLE.USER, question), this.#frame(CHAT.USER_TO_ASSISTANT));
    return parts.join("");
  }

  /** The prompt of a question after some turns, the oldest of which are left out where the context has no room for them:
   * its tokens, and how many were left out. As `slmc chat` does it. */
  chatPrompt(system, turns, question, most) {
    const { context } = this.facts;
    const free = Math.max(1, Math.min(most, Math.floor(context / FREE_SHARE)));
    for (let dropped = 0; ; dropped++) {
      const tokens = this.encode(this.chatText(system, turns.slice(dropped), question));
      const last = dropped === turns.length;
      if (tokens.length + free <= context || (last && tokens.length <= context)) return { tokens, dropped };
      if (last) throw new SlmError(`the question has ${tokens.length} tokens, more than the context of ${context}; shorten it`, CONTEXT);
    }
  }

  /** Continues a prompt. `choice` has temperature, top_k, top_p, min_p, repetition_penalty; `onText` receives text as it
   * comes and the number of tokens so far, `turn` is awaited now and then and says whether to go on. */
  async generate({ prompt, most, choice, seed, follow, atStart, onText = () => {}, turn = async () => true }) {
    const { program } = this;
    const { context } = this.facts;
    if (prompt.length === 0) throw new SlmError("there is nothing to continue: this model's texts begin with a prompt");
    if (prompt.length > context) throw new SlmError(`the prompt has ${prompt.length} tokens, more than the context of ${context}; shorten it`, CONTEXT);
    const top = program.top;
    try {
      const writing = new Writing(this, { choice, seed, atStart, onText, turn });
      return await (follow && this.grammar ? this.#followed(writing, prompt, most) : this.#free(writing, prompt, most));
    } catch (error) {
      // What the session has read is not known any more.
      this.session = 0;
      this.read = [];
      throw error;
    } finally {
      program.top = top;
    }
  }

  /** The one row of a text: logits of labels, or an embedding. */
  row(text) {
    const { program, facts } = this;
    const tokens = this.encode(text, true);
    if (tokens.length > facts.context) throw new SlmError(`the text has ${tokens.length} tokens, more than the context of ${facts.context}; shorten it`, CONTEXT);
    return program.scratch(() => {
      this.#start();
      program.check(program.exports.slm_reset(this.session));
      const [at, out] = [program.putWords(tokens), program.reserve(4 * facts.output_width)];
      program.check(program.exports.page_run(this.session, at, tokens.length, out, facts.output_width));
      return { tokens, values: Array.from(program.f32(out, facts.output_width)) };
    });
  }

  async #free(writing, prompt, most) {
    const { context } = this.facts;
    writing.reused = this.#recall(prompt);
    writing.see(prompt);
    if (!(await this.#readPieces(writing, prompt.slice(writing.reused)))) return writing.end("stopped");
    while (writing.tokens.length < most) {
      const token = writing.choose(this.#logits());
      if (this.ends.has(token)) return writing.end("end");
      writing.add(token);
      if (!(await writing.going())) return writing.end("stopped");
      // The last token is not read: another may follow it.
      if (writing.tokens.length >= most) break;
      if (this.read.length === context) return writing.end("context");
      this.#step([token]);
    }
    return writing.end("length");
  }

  async #followed(writing, prompt, most) {
    const { program, facts, grammar, words } = this;
    const { exports } = program;
    const [state, run, number, allowed] = [GRAMMAR_STATE_BYTES, 4 * FORCED, 4, 4 * words].map((bytes) => program.reserve(bytes));
    program.check(exports.slm_grammar_start(grammar, state));
    writing.reused = this.#recall(prompt);
    writing.see(prompt);
    let pending = prompt.slice(writing.reused);
    let draws = 0;
    for (;;) {
      const left = Math.max(0, facts.context + 1 - this.read.length - pending.length);
      const room = Math.min(most - writing.tokens.length, left, FORCED);
      program.check(exports.slm_grammar_forced(grammar, state, run, room, number));
      const count = program.u32(number)[0];
      for (const token of Array.from(program.u32(run, count))) {
        writing.add(token);
        pending.push(token);
      }
      writing.forced += count;
      if (!(await writing.going())) return writing.end("stopped");
      if (exports.slm_grammar_complete(grammar, state) === 1) return writing.end("end");
      if (writing.tokens.length >= most) return writing.end("length");
      if (this.read.length + pending.length > facts.context) return writing.end("context");
      if (count === FORCED) continue;
      program.check(exports.slm_grammar_allowed(grammar, state, allowed, words, number));
      if (program.u32(number)[0] === 0) {
        if (exports.slm_grammar_accepts(grammar, state) === 1) return writing.end("end");
        throw new SlmError("the grammar allows no further token");
      }
      // All but the last piece need no logits.
      const last = Math.max(0, pending.length - PIECE);
      if (!(await this.#readPieces(writing, pending.slice(0, last)))) return writing.end("stopped");
      this.#step(pending.slice(last), allowed);
      pending = [];
      const token = writing.choose(this.#logits(), allowed, draws++);
      program.check(exports.slm_grammar_advance(grammar, state, token));
      if (this.ends.has(token)) return writing.end("end");
      pending.push(token);
      writing.add(token);
      if (!(await writing.going())) return writing.end("stopped");
    }
  }

  /** Reads tokens, with turns for others between pieces; whether to go on. */
  async #readPieces(writing, tokens) {
    const begin = performance.now();
    for (let at = 0; at < tokens.length; at += PIECE) {
      if (at > 0 && !(await writing.going())) return false;
      this.#step(tokens.slice(at, at + PIECE));
    }
    writing.promptTokens += tokens.length;
    writing.promptMs += performance.now() - begin;
    return true;
  }

  /** Keeps what was read of a prompt, or takes up what the artifact's sequences begin with; returns how much that is. */
  #recall(prompt) {
    const { exports } = this.program;
    const common = (tokens) => {
      let count = 0;
      while (count < tokens.length && count < prompt.length - 1 && tokens[count] === prompt[count]) count++;
      return count;
    };
    this.#start();
    if (common(this.prefix) > common(this.read)) {
      this.program.scratch(() => this.program.check(exports.slm_restore_prefix(this.session, this.program.reserve(4))));
      this.read = this.prefix.slice();
    }
    const known = common(this.read);
    if (known < this.read.length) {
      if (exports.slm_truncate(this.session, known) !== OK) this.program.check(exports.slm_reset(this.session));
      this.read.length = Math.min(known, exports.slm_positions(this.session) >>> 0);
    }
    return this.read.length;
  }

  #start() {
    if (this.session !== 0) return;
    const { program } = this;
    program.scratch(() => {
      const place = program.reserve(4);
      program.check(program.exports.slm_session_init(place, this.model, this.memory, this.sessionBytes));
      this.session = program.u32(place)[0];
    });
    this.read = [];
  }

  #step(tokens, allowed) {
    const { program, session } = this;
    program.scratch(() => {
      const at = program.putWords(tokens);
      const status = allowed === undefined
        ? program.exports.slm_step(session, at, tokens.length)
        : program.exports.slm_step_allowed(session, at, tokens.length, allowed, this.words);
      if (status !== OK) program.check(status, this.#message(program.exports.slm_session_error, session));
    });
    for (const token of tokens) this.read.push(token);
  }

  /** Where the logits of the last step are, and how many. */
  #logits() {
    const { program } = this;
    return program.scratch(() => {
      const place = program.reserve(8);
      program.check(program.exports.slm_logits(this.session, place, place + 4));
      const [at, count] = program.u32(place, 2);
      return { at, count };
    });
  }

  /** Text that a function writes as snprintf does. */
  #message(write, of) {
    const { program } = this;
    return program.scratch(() => {
      const buffer = program.reserve(400);
      write(of, buffer, 400);
      return program.cString(buffer);
    });
  }

  #facts() {
    const { program } = this;
    return program.scratch(() => {
      const at = program.reserve(40);
      program.check(program.exports.slm_describe(this.model, at));
      const [kind, output, vocabulary, context, output_width, , , has_tokenizer] = program.u32(at, 8);
      return { kind: KINDS[kind], output: OUTPUTS[output], vocabulary, context, output_width, has_tokenizer: has_tokenizer === 1 };
    });
  }

  #list(function_, capacity = MAX_SPECIAL_TOKENS) {
    const { program } = this;
    return program.scratch(() => {
      const [at, count] = [program.reserve(4 * capacity), program.reserve(4)];
      program.check(function_(this.model, at, capacity, count));
      return Array.from(program.u32(at, program.u32(count)[0]));
    });
  }

  /** The artifact's grammar; 0 where it has none. */
  #openGrammar() {
    const { program } = this;
    const at = program.reserve(GRAMMAR_BYTES);
    return program.exports.slm_grammar_open(at, this.model, 0, 0) === OK ? at : 0;
  }

  #chat() {
    const { program } = this;
    return program.scratch(() => {
      const at = program.reserve(12);
      program.check(program.exports.slm_chat_describe(this.model, at));
      const [parts, , has_system] = program.u32(at, 3);
      return parts === 0 ? null : { has_system: has_system === 1 };
    });
  }

  #defaults() {
    const { program } = this;
    if (this.facts.output !== "next") return null;
    return program.scratch(() => {
      const at = program.reserve(20);
      program.check(program.exports.slm_default_choice(this.model, at));
      const [floats, numbers] = [program.f32(at, 5), program.u32(at, 5)];
      return { temperature: floats[0], top_k: numbers[1], top_p: numbers[2] / 65536, min_p: numbers[3] / 65536, repetition_penalty: floats[4] };
    });
  }

  #frame(part) {
    const { program } = this;
    return program.scratch(() => {
      const place = program.reserve(8);
      program.check(program.exports.slm_chat_text(this.model, part, place, place + 4));
      const [at, length] = program.u32(place, 2);
      return textDecoder().decode(program.u8(at, length));
    });
  }

  #chatMessage(role, text) {
    const { program } = this;
    const bytes = encoder.encode(text);
    return program.scratch(() => {
      const [at, place] = [program.put(bytes), program.reserve(8)];
      program.u32(place, 2).set([at, bytes.length]);
      program.check(program.exports.slm_chat_message(this.model, role, place, place + 4));
      const [start, length] = program.u32(place, 2);
      return textDecoder().decode(program.u8(start, length));
    });
  }
}

/** The tokens of an answer as they come, in memory that its caller gives back. */
class Writing {
  constructor(model, { choice, seed, atStart, onText, turn }) {
    const { program } = model;
    const { exports } = program;
    Object.assign(this, { model, onText, turn });
    this.seed = BigInt.asUintN(64, BigInt(seed));
    this.choice = program.reserve(20);
    const [floats, numbers] = [program.f32(this.choice, 5), program.u32(this.choice, 5)];
    floats[0] = choice.temperature;
    numbers[1] = choice.top_k;
    numbers[2] = Math.round(choice.top_p * 65536);
    numbers[3] = Math.round(choice.min_p * 65536);
    floats[4] = choice.repetition_penalty;
    this.token = program.reserve(4);
    this.piece = program.reserve(8);
    this.decoder = program.reserve(8);
    program.check(exports.slm_decode_begin(this.decoder, model.model, atStart ? 1 : 0));
    this.utf8 = textDecoder();
    program.u32(model.seen, model.words).fill(0);
    this.tokens = [];
    this.text = "";
    this.pendingText = "";
    this.reused = 0;
    this.forced = 0;
    this.promptTokens = 0;
    this.promptMs = 0;
    this.firstAt = 0;
    this.waitedMs = 0;
    this.lastTurn = performance.now();
  }

  see(tokens) {
    const seen = this.model.program.u32(this.model.seen, this.model.words);
    for (const token of tokens) seen[token >>> 5] |= 1 << (token & 31);
  }

  /** A token by the logits. */
  choose({ at, count }, allowed, index = this.tokens.length) {
    const { program, seen } = this.model;
    const { exports } = program;
    if (this.firstAt === 0) this.firstAt = performance.now();
    program.check(allowed === undefined
      ? exports.slm_choose(at, count, this.choice, seen, this.seed, BigInt(index), this.token)
      : exports.slm_choose_among(at, count, this.choice, seen, allowed, this.seed, BigInt(index), this.token));
    return program.u32(this.token)[0];
  }

  add(token) {
    const { program } = this.model;
    program.check(program.exports.slm_decode(this.decoder, token, this.piece, this.piece + 4));
    const [at, length] = program.u32(this.piece, 2);
    this.pendingText += this.utf8.decode(program.u8(at, length), { stream: true });
    this.tokens.push(token);
    this.see([token]);
  }

  /** Hands out the text so far, and lets others run where it is time; whether to go on. */
  async going() {
    const begin = performance.now();
    if (begin - this.lastTurn < TURN) return true;
    this.#flush();
    const going = await this.turn();
    this.lastTurn = performance.now();
    if (this.firstAt !== 0) this.waitedMs += this.lastTurn - begin;
    return going;
  }

  #flush() {
    this.text += this.pendingText;
    if (this.pendingText !== "") this.onText(this.pendingText, this.tokens.length);
    this.pendingText = "";
  }

  /** What came of it. */
  end(stop) {
    const decodeMs = this.firstAt === 0 ? 0 : performance.now() - this.firstAt;
    this.pendingText += this.utf8.decode();
    this.#flush();
    const { tokens, text, reused, forced, promptTokens, promptMs } = this;
    return { tokens, text, stop, reused, forced, promptTokens, promptMs, decodeMs: decodeMs - this.waitedMs };
  }
}
