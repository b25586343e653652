"use strict";
// Where the reader is: the summary, a problem with one trace or two side by side, or the one trace of a page.
// The place is in the address after #, so that back and forward work and a place can be kept.

const main = document.getElementById("main");
const SCHEMES = ["light", "dark"];

function place() {
  const given = new URLSearchParams(location.hash.slice(1));
  const number = (name) => (given.has(name) ? Number(given.get(name)) : null);
  return { p: number("p"), a: number("a"), b: number("b") };
}

function go(to) {
  const parts = Object.entries(to).filter(([, value]) => value !== null && value !== undefined).map(([name, value]) => `${name}=${value}`);
  location.hash = parts.join("&");
}

function rowName(index, row) {
  const columns = index.columns, verdict = { true: "✓", false: "✗" }[columns.correct[row]] ?? "";
  return `${oneLine(index.runs[columns.run[row]].name, 30)} · sample ${columns.sample[row]} ${verdict} · ${count(columns.critical[row])} of ${counted(columns.sampled[row], "token")}`;
}

// Which trace of a problem is shown; ``none`` is what stands for no trace.
function choice(index, rows, row, name, none, choose) {
  return el("select", { "aria-label": name, onchange: (event) => choose(event.target.value === "" ? null : Number(event.target.value)) },
    none && el("option", { value: "" }, none), rows.map((one) => el("option", { value: one, selected: one === row }, rowName(index, one))));
}

function pane(row) {
  const box = el("div", { class: "pane" });
  loadTrace(row).then((trace) => box.append(traceView(trace)));
  return box;
}

function problemView(index, at) {
  const runs = byProblem(index)[at.p], rows = runs.flat();
  const others = runs.filter((list) => list.length);
  const a = rows.includes(at.a) ? at.a : rows[0];
  const b = at.b === -1 ? null : rows.includes(at.b) ? at.b : others.length > 1 && at.a === null ? others[1][0] : null;
  const step = (by, text, name) => el("a", { href: `#p=${(at.p + by + index.problems.length) % index.problems.length}`, "aria-label": name, title: name, id: by < 0 ? "previous" : "next" }, text);
  return el("div", { class: "problem" },
    el("nav", { class: "bar" }, el("a", { href: "#", id: "up" }, "↑ all problems"), step(-1, "← p", "Previous problem (p)"), step(1, "n →", "Next problem (n)"), el("span", { class: "note" }, `problem ${count(at.p + 1)} of ${count(index.problems.length)}`)),
    el("h2", {}, quoted(index.problems[at.p], 160)),
    el("div", { class: "bar choices" },
      choice(index, rows, a, "First trace", null, (row) => go({ p: at.p, a: row, b: b ?? -1 })),
      rows.length > 1 && choice(index, rows, b, "Second trace", "side by side with …", (row) => go({ p: at.p, a, b: row ?? -1 }))),
    el("div", { class: b === null ? "panes" : "panes two" }, pane(a), b !== null && pane(b)));
}

function show() {
  const index = store.index, at = place();
  if (index.single) loadTrace(0).then((trace) => main.replaceChildren(traceView(trace)));
  else main.replaceChildren(at.p !== null && index.problems[at.p] !== undefined ? problemView(index, at) : summaryView(index));
  if (!index.single) { scrollTo(0, 0); main.focus({ preventScroll: true }); }
}

function toggleScheme() {
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.scheme = (root.dataset.scheme ?? SCHEMES[Number(dark)]) === "dark" ? "light" : "dark";
  if (document.querySelector(".charts")) show();
}

const help = el("dialog", { class: "help", "aria-label": "Keys" }, el("h2", {}, "Keys"), el("dl", {},
  [["/", "search the problems"], ["↑ ↓ Enter", "move in a list, open"], ["n, p", "next, previous problem"], ["u", "up to the summary"], ["t", "to the timeline"],
    ["↑ ↓", "in the timeline: another thread"], ["← →", "in the timeline: fold, unfold, parent, child"], ["Enter", "in the timeline: read the thread"], ["+ −", "in the timeline: zoom"], ["d", "dark or light"], ["?", "these keys"]]
    .map(([key, what]) => [el("dt", {}, key), el("dd", {}, what)])), el("form", { method: "dialog" }, el("button", {}, "Close")));

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input[type=search], select") || event.ctrlKey || event.metaKey || event.altKey) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const lanes = document.activeElement.closest(".trace")?.lanes ?? document.querySelector(".trace")?.lanes;
  const click = (id) => document.getElementById(id)?.click();
  const act = { "/": () => document.getElementById("search")?.focus(), n: () => click("next"), p: () => click("previous"), u: () => click("up"), t: () => lanes?.box.focus(),
    d: toggleScheme, "?": () => help.showModal(), "+": () => lanes?.zoomBy(2), "-": () => lanes?.zoomBy(0.5) }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

const tools = el("div", { class: "tools" }, el("button", { onclick: toggleScheme, "aria-label": "Dark or light", title: "Dark or light (d)" }, "◐"), el("button", { onclick: () => help.showModal(), "aria-label": "Keys", title: "Keys (?)" }, "?"));
document.body.append(tools, help);
addEventListener("hashchange", show);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (document.querySelector(".charts")) show(); });
loadIndex().then(show).catch((error) => main.replaceChildren(el("p", { class: "warning" }, `This page cannot be unpacked: ${error}. It needs a browser of 2023 or later.`)));
