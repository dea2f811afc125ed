"use strict";
// One question: what is chosen becomes an answer; keys do what the buttons say; what is half done is kept.
const form = document.getElementById("question");
const state = document.getElementById("status");
const { mode, item, submission, csrf, base, here, talk } = form.dataset;
const compares = ["compare", "chat", "redteam"].includes(mode);
const count = Number(form.dataset.replies || 0);
const fieldsets = [...form.querySelectorAll("fieldset[data-criterion]")];
let leaving = false;
let turn = Promise.resolve();
let typing = 0;
// active time since the last answer: in front, and somebody did something in the last minute; csrf is the session's
let seconds = Number(sessionStorage.getItem(csrf)) || 0;
addEventListener("pagehide", () => sessionStorage.setItem(csrf, String(seconds)));
let idle = 0;
for (const sign of ["keydown", "pointermove", "pointerdown", "scroll"]) addEventListener(sign, () => { idle = 0; }, { passive: true });
setInterval(() => {
  idle += 1;
  if (document.visibilityState === "visible" && idle <= 60) seconds += 1;
}, 1000);

// letters pasted into what is written, but for those that stand on the page
let pasted = Number(sessionStorage.getItem(`pasted ${item}`)) || 0;
form.addEventListener("paste", (event) => {
  const text = event.clipboardData?.getData("text") || "";
  if (!form.textContent.includes(text)) pasted += text.length;
  sessionStorage.setItem(`pasted ${item}`, String(pasted));
});

const has = (name) => document.getElementById(name) !== null;

function tell(text, bad) {
  if (state.textContent !== text) state.textContent = text;
  state.className = bad ? "problem" : "";
}

async function ask(path, options) {
  const response = await fetch(base + path, options);
  const said = await response.json().catch(() => ({ problem: response.statusText }));
  if (!response.ok) throw new Error(said.problem);
  return said;
}

const send = (path, body) => ask(path, {
  method: "POST",
  headers: { "content-type": "application/json", "x-csrf": csrf },
  body: JSON.stringify(body),
});

function ofPair(value) {
  if (value === "bad") return { ranks: [1, 1], strength: 0, all_bad: true };
  const lean = Number(value) - 4; // below 0 the left one, above 0 the right one is better
  return { ranks: lean === 0 ? [1, 1] : lean < 0 ? [1, 2] : [2, 1], strength: Math.abs(lean), all_bad: false };
}

function ofRanks(fieldset) {
  const bad = fieldset.querySelector("input[type=checkbox]").checked;
  const given = [...fieldset.querySelectorAll("select")].map((select) => Number(select.value));
  if (bad && !given.some(Boolean)) return { ranks: given.map(() => 1), strength: 0, all_bad: true };
  if (!given.every(Boolean)) return null;
  const steps = [...new Set(given)].sort((a, b) => a - b);
  return { ranks: given.map((rank) => steps.indexOf(rank) + 1), strength: 0, all_bad: bad };
}

function choiceOf(fieldset) {
  if (count > 2) return ofRanks(fieldset);
  const chosen = fieldset.querySelector("input:checked");
  return chosen && ofPair(chosen.value);
}

// the answer as far as it goes; what is missing is left out
function gather() {
  if (compares) {
    const said = fieldsets.map((fieldset) => [fieldset.dataset.criterion, choiceOf(fieldset)]);
    return { choices: Object.fromEntries(said.filter(([, choice]) => choice)) };
  }
  if (mode === "safety") {
    const chosen = form.querySelector("input[name=safe]:checked");
    if (!chosen) return {};
    const safe = chosen.value === "1";
    const severity = safe ? 0 : Number(form.elements.severity.value);
    return { safe, category: safe ? "" : form.elements.category.value, severity };
  }
  if (mode === "rate") {
    const chosen = form.querySelector("input[name=rating]:checked");
    return { ...(chosen && { rating: Number(chosen.value) }), comment: form.elements.comment.value };
  }
  return { reply: form.elements.reply.value };
}

function isWhole(answer) {
  if (mode === "rate") return "rating" in answer;
  if (compares) return Object.keys(answer.choices).length === fieldsets.length;
  return mode === "safety" ? "safe" in answer : answer.reply.trim() !== "";
}

// one after the other, so that nothing is pressed in vain while a draft is kept
function once(work) {
  clearTimeout(typing);
  turn = turn.then(async () => {
    if (leaving) return;
    try {
      await work();
    } catch (error) {
      // the same submission can be sent again: it is kept once
      tell(error instanceof TypeError ? form.dataset.offline : error.message, true);
    }
  });
}

const next = (to = here) => {
  leaving = true;
  location.assign(base + to);
};

const say = (sent) => once(async () => {
  const text = form.elements.say.value;
  if (sent && !text.trim()) return tell(form.dataset.incomplete, true);
  await send("/api/say", { mode: talk, text, send: sent });
  if (sent) next();
  else tell(form.dataset.saved, false);
});

const actions = {
  submit: () => once(async () => {
    const answer = gather();
    if (!isWhole(answer)) return tell(form.dataset.incomplete, true);
    await send(form.dataset.submit || "/api/answer", { item: Number(item), submission, mode, answer: { ...answer, seconds, pasted: Math.min(pasted, 100000) } });
    seconds = 0;
    next();
  }),
  skip: () => once(async () => {
    await send("/api/skip", { item: Number(item), submission, seconds, reason: document.getElementById("reason").value });
    seconds = 0;
    next();
  }),
  undo: () => once(async () => {
    next((await send("/api/undo", {})).to);
  }),
  draft: () => once(async () => {
    await send("/api/draft", { item: Number(item), draft: gather() });
    tell(form.dataset.saved, false);
  }),
  send: () => say(true),
  keep: () => say(false),
  end: () => once(async () => {
    next((await send("/api/end", { mode: talk })).to);
  }),
};
for (const [name, act] of Object.entries(actions)) document.getElementById(name)?.addEventListener("click", act);

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", (event) => {
  const keep = has("draft") ? actions.draft : has("keep") && actions.keep;
  if (!keep || event.target.id === "reason") return;
  clearTimeout(typing);
  typing = setTimeout(keep, 800);
});

// the first criterion without an answer, or the one that holds the focus, takes the digits
function current() {
  const held = document.activeElement?.closest("fieldset[data-criterion]");
  return held || fieldsets.find((fieldset) => !choiceOf(fieldset)) || fieldsets.at(-1);
}

function mark() {
  if (fieldsets.length > 1) for (const fieldset of fieldsets) fieldset.classList.toggle("current", fieldset === current());
}

function choose(input) {
  if (!input) return;
  input.checked = input.type === "checkbox" ? !input.checked : true;
  document.activeElement?.blur();
  input.dispatchEvent(new Event("input", { bubbles: true }));
  mark();
}

function rankNext(digit) {
  const selects = [...current().querySelectorAll("select")];
  if (digit === 0) for (const select of selects) select.value = "";
  else if (selects[digit - 1]) selects[digit - 1].value = String(selects.filter((select) => select.value).length + 1);
  form.dispatchEvent(new Event("input", { bubbles: true }));
  mark();
}

function digit(number) {
  if (mode === "safety") choose(form.querySelector(`input[name=safe][value="${2 - number}"]`));
  else if (mode === "rate") choose(form.querySelector(`input[name=rating][value="${number}"]`));
  else if (compares && count > 2) rankNext(number);
  else if (compares) choose(current().querySelector(`input[value="${number}"]`));
}

const keys = {
  Enter: actions.submit,
  Backspace: () => (has("skip") ? actions.skip() : document.getElementById("later")?.click()),
  u: () => has("undo") && actions.undo(),
  e: () => has("end") && actions.end(),
  b: () => compares && choose(current().querySelector("input[value=bad], input[type=checkbox]")),
  g: () => document.getElementById("guidelines")?.toggleAttribute("open"),
  d: () => document.getElementById("differences")?.toggleAttribute("open"),
};

const written = () => (has("send") ? actions.send() : has("submit") && actions.submit());

document.addEventListener("keydown", (event) => {
  const target = event.target;
  const command = event.ctrlKey || event.metaKey;
  if (command && event.key.toLowerCase() === "s") {
    event.preventDefault();
    if (has("draft")) actions.draft();
    if (has("keep")) actions.keep();
    return;
  }
  if (event.key === "Escape") target.blur();
  if (target.matches("textarea, select, button, a, summary, input:not([type=radio], [type=checkbox])")) {
    if (command && event.key === "Enter") written();
    return;
  }
  if (command && event.key === "Enter") return written();
  if (command || event.altKey) return;
  if (/^[0-9]$/.test(event.key)) return digit(Number(event.key));
  const act = keys[event.key] || keys[event.key.toLowerCase()];
  if (!act || (event.key === "Enter" && !mode)) return;
  event.preventDefault();
  act();
});
document.addEventListener("focusin", mark);
mark();

// replies are shown when both are whole: until then the page asks every second
async function wait() {
  try {
    const { waiting, before } = await ask(`/api/talk?mode=${talk}`);
    if (!waiting) return next();
    tell(form.dataset.waiting + (before ? ` (${before})` : ""), false);
  } catch {
    tell(form.dataset.offline, true);
  }
  setTimeout(wait, 1000);
}

// nothing is left: new questions are looked for while somebody is there, who has the one that is found for half an hour
async function look() {
  if (document.visibilityState === "visible" && idle <= 300) {
    try {
      if ((await ask("/api/next")).found) return next();
      tell("", false);
    } catch {
      tell(form.dataset.offline, true);
    }
  }
  setTimeout(look, 3000);
}
if ("waiting" in form.dataset) wait();
else if ("empty" in form.dataset) look();
else form.elements.say?.focus();
