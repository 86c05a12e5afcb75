// What is done with a model: a conversation, a text that is continued, labels of a text, two texts compared.

const element = (id) => document.getElementById(id);
// Most tokens unless the settings say otherwise, as `slmc generate` has them.
const TEXT_TOKENS = 64;
const ANSWER_TOKENS = 512;

/** Shows the views that a model has; `page` is what page.js lends. */
export function views(model, page) {
  const shown = [];
  if (model.facts.output === "next") {
    if (model.chat) shown.push(["chat", "Chat", chat]);
    shown.push(["text", "Text", text]);
  }
  if (model.facts.output === "labels") shown.push(["labels", "Labels", labels]);
  if (model.facts.output === "embedding") shown.push(["similarity", "Similarity", similarity]);
  for (const [, , begin] of shown) begin(model, page);
  const show = (id) => {
    for (const [other] of shown) element(other).hidden = other !== id;
    for (const button of element("views").children) button.setAttribute("aria-pressed", String(button.dataset.view === id));
  };
  if (shown.length > 1) {
    element("views").hidden = false;
    element("views").replaceChildren(...shown.map(([id, name]) => {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", textContent: name, onclick: () => show(id) });
      button.dataset.view = id;
      return button;
    }));
  }
  show(shown[0][0]);
}

// Forms that wait for an answer; the worker gives one after the other.
let waiting = 0;

/** A form that Enter sends, whose areas grow with their text; one answer at a time. */
function sends(form, work) {
  let busy = false;
  const wait = (more) => {
    busy = more > 0;
    waiting += more;
    document.documentElement.dataset.busy = waiting > 0 ? "yes" : "no";
  };
  const submit = form.querySelector("[type=submit]");
  const stop = form.querySelector(".stop");
  const run = async () => {
    if (busy) return;
    wait(1);
    submit.hidden = stop !== null;
    submit.disabled = stop === null;
    if (stop) stop.hidden = false;
    try {
      await work();
    } finally {
      wait(-1);
      submit.hidden = submit.disabled = false;
      if (stop) stop.hidden = true;
    }
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    run();
  };
  for (const area of form.querySelectorAll("textarea")) {
    area.addEventListener("keydown", (event) => {
      // Not the Enter that ends the composition of a character.
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        run();
      }
    });
    area.addEventListener("input", () => grow(area));
  }
}

function grow(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + 2}px`;
}

function item(parent, name, className, content = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = content;
  parent.append(made);
  return made;
}

/** Scrolls to the end of the page, where a person is there already. */
function follow(change) {
  const { scrollHeight } = document.documentElement;
  const atEnd = window.innerHeight + window.scrollY >= scrollHeight - 80;
  change();
  if (atEnd) window.scrollTo(0, document.documentElement.scrollHeight);
}

// ------------------------------------------------------------------------------------------------ conversation

function chat(_, page) {
  let turns = [];
  const [list, question] = [element("turns"), element("question")];
  const stop = () => page.stop("chat");
  element("chat-form").querySelector(".stop").onclick = stop;
  element("forget").onclick = () => {
    stop();
    turns = [];
    list.replaceChildren();
    question.focus();
  };
  sends(element("chat-form"), async () => {
    const asked = question.value;
    if (asked.trim() === "") return;
    const of = turns;
    question.value = "";
    grow(question);
    const turn = item(list, "li", "turn");
    item(turn, "p", "question", asked);
    const answer = item(turn, "p", "answer waiting");
    const note = item(turn, "p", "note");
    window.scrollTo(0, document.documentElement.scrollHeight);
    list.setAttribute("aria-busy", "true");
    try {
      const settings = page.settings(ANSWER_TOKENS);
      const message = { type: "ask", view: "chat", system: element("system").value, turns: of, question: asked, settings };
      const result = await page.ask(message, (part) => follow(() => {
        answer.classList.remove("waiting");
        answer.append(part);
      }));
      of.splice(0, result.dropped);
      of.push({ question: asked, answer: result.text });
      answer.textContent = result.text;
      answer.dataset.tokens = result.tokens.join(",");
      const forgot = result.dropped === 0 ? "" : ` · the context is full: ${result.dropped} of the oldest questions ${result.dropped === 1 ? "is" : "are"} forgotten`;
      follow(() => (note.textContent = page.note({ ...result, seed: settings.shownSeed }) + forgot));
      page.result(result);
    } catch (error) {
      note.classList.add("bad");
      note.textContent = error.message;
      if (question.value === "") question.value = asked;
    } finally {
      answer.classList.remove("waiting");
      list.setAttribute("aria-busy", "false");
    }
  });
  question.focus({ preventScroll: true });
}

// ------------------------------------------------------------------------------------------------ a text

function text(_, page) {
  const [prompt, output, note] = [element("prompt"), element("output"), element("output-note")];
  element("text-form").querySelector(".stop").onclick = () => page.stop("text");
  sends(element("text-form"), async () => {
    const begun = prompt.value;
    note.classList.remove("bad");
    note.textContent = "";
    output.hidden = false;
    output.replaceChildren();
    item(output, "span", "given", begun);
    const added = item(output, "span", "added");
    output.setAttribute("aria-busy", "true");
    try {
      const settings = page.settings(TEXT_TOKENS);
      const message = { type: "continue", view: "text", text: begun, settings };
      const result = await page.ask(message, (part) => follow(() => added.append(part)));
      added.textContent = result.text;
      output.dataset.tokens = result.tokens.join(",");
      note.textContent = page.note({ ...result, seed: settings.shownSeed });
      page.result(result);
    } catch (error) {
      output.hidden = added.textContent === "";
      note.classList.add("bad");
      note.textContent = error.message;
    } finally {
      output.setAttribute("aria-busy", "false");
    }
  });
}

// ------------------------------------------------------------------------------------------------ labels

/** Shares of all, from logits. */
function softmax(values) {
  const top = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

const SHOWN_LABELS = 8;

function labels(model, page) {
  const [list, note] = [element("shares"), element("labels-note")];
  sends(element("labels-form"), async () => {
    note.classList.remove("bad");
    try {
      const { rows, ms, memory } = await page.ask({ type: "rows", texts: [element("labelled").value] });
      const [{ tokens, values }] = rows;
      const order = softmax(values).map((share, label) => ({ share, label })).sort((a, b) => b.share - a.share);
      list.replaceChildren();
      for (const { share, label } of order.slice(0, SHOWN_LABELS)) {
        const row = item(list, "li", "share");
        item(row, "span", "label", model.labels?.[label] ?? `label ${label}`);
        const meter = item(row, "meter", "");
        Object.assign(meter, { min: 0, max: 1, value: share });
        item(row, "span", "value", `${(100 * share).toFixed(1)} %`);
      }
      list.dataset.values = values.join(",");
      const rest = order.length > SHOWN_LABELS ? `the likeliest ${SHOWN_LABELS} of ${order.length} labels · ` : "";
      note.textContent = `${rest}${tokens.length} tokens in ${ms.toFixed(1)} ms`;
      page.result({ memory });
    } catch (error) {
      note.classList.add("bad");
      note.textContent = error.message;
    }
  });
}

// ------------------------------------------------------------------------------------------------ similarity

function similarity(_, page) {
  const [place, note] = [element("similar"), element("similarity-note")];
  sends(element("similarity-form"), async () => {
    note.classList.remove("bad");
    try {
      const { rows, ms, memory } = await page.ask({ type: "rows", texts: [element("first").value, element("second").value] });
      const [a, b] = rows.map(({ values }) => values);
      const dot = (x, y) => x.reduce((sum, value, index) => sum + value * y[index], 0);
      const cosine = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
      place.replaceChildren();
      item(place, "span", "label", "Cosine similarity");
      const meter = item(place, "meter", "");
      Object.assign(meter, { min: -1, max: 1, value: cosine });
      item(place, "strong", "value", cosine.toFixed(4));
      note.textContent = `${a.length} values each · ${rows.map(({ tokens }) => tokens.length).join(" and ")} tokens in ${ms.toFixed(1)} ms`;
      page.result({ memory });
    } catch (error) {
      note.classList.add("bad");
      note.textContent = error.message;
    }
  });
}
