"use strict";
// The timeline: a lane a thread, children below their parent, in seconds or in steps of one token.
// Only the rows on screen are drawn, so that a trace of thousands of threads scrolls as a small one does.

const ROW = 24, HEAD = 26, SPARE = 12;
const KIND = { d: "decoding", q: "queued", w: "waiting" };

class Lanes {
  constructor(trace, onSelect) {
    this.trace = trace;
    this.onSelect = onSelect;
    this.folded = new Set();
    this.zoom = 1;
    this.selected = 0;
    const end = Math.max(...trace.threads.map((thread) => thread.t[1]));
    this.timed = end > 0;
    this.clock = this.timed ? "seconds" : "steps";
    this.box = el("div", { class: "lanes", tabindex: 0, role: "tree", "aria-label": "Threads of the trace: arrow keys move, Enter reads",
      onkeydown: (event) => this.key(event), onscroll: () => this.redraw() });
    this.sheet = el("div", { class: "sheet" });
    this.box.append(this.sheet);
    this.element = el("section", { class: "timeline" }, this.bar(), this.box);
    new ResizeObserver(() => this.redraw()).observe(this.box);
    this.order();
  }

  bar() {
    const clock = el("select", { "aria-label": "Clock", onchange: (event) => { this.clock = event.target.value; this.redraw(true); } },
      this.timed && el("option", { value: "seconds" }, "seconds"), el("option", { value: "steps" }, "token steps"));
    const button = (text, name, act) => el("button", { "aria-label": name, title: name, onclick: act }, text);
    const key = (kind, text) => el("span", { class: "key" }, svg("svg", { width: 22, height: 12, "aria-hidden": true }, patterns(),
      kind === "prefix" ? svg("line", { class: "prefix", x1: 0, x2: 22, y1: 6, y2: 6 }) : svg("rect", { class: `ph ${kind}`, width: 22, height: 10 }),
      kind === "critical" && svg("rect", { class: "mark", y: 8, width: 22, height: 4 })), text);
    return el("div", { class: "bar" },
      clock, button("−", "Zoom out", () => this.zoomBy(0.5)), button("+", "Zoom in", () => this.zoomBy(2)),
      key("queued", "queued"), key("decoding", "decoding"), key("waiting", "waiting"), key("critical", "critical path"), key("prefix", "shared prefix"));
  }

  zoomBy(factor) {
    const middle = (this.box.scrollLeft + this.box.clientWidth / 2) / this.box.scrollWidth;
    this.zoom = Math.min(64, Math.max(1, this.zoom * factor));
    this.redraw(true);
    this.box.scrollLeft = middle * this.box.scrollWidth - this.box.clientWidth / 2;
  }

  // When thread n starts and ends, on the clock that is shown.
  start(n) { const thread = this.trace.threads[n]; return this.clock === "seconds" ? thread.t[0] : thread.k[0]; }
  end(n) { const thread = this.trace.threads[n]; return this.clock === "seconds" ? thread.t[1] : thread.k[thread.k.length - 1]; }

  phases(n) {
    const thread = this.trace.threads[n];
    if (this.clock === "seconds") return thread.ph;
    const found = [];
    let clock = thread.k[0];
    thread.s.forEach((span, at) => {
      const begins = thread.k[at + 1];
      if (begins > clock) found.push(["w", clock, begins, null]);
      clock = begins;
      if (span.o !== "s") return;
      if (length(span)) found.push(["d", clock, clock + length(span), at]);
      clock += length(span);
    });
    if (this.end(n) > clock) found.push(["w", clock, this.end(n), null]);
    return found;
  }

  when(value) { return this.clock === "seconds" ? seconds(value) : `step ${count(value)}`; }

  // Rows from top to bottom: children right below their parent, siblings by their true start.
  order() {
    const threads = this.trace.threads;
    this.children = threads.map(() => []);
    threads.forEach((thread, n) => { if (thread.p !== null) this.children[thread.p].push(n); });
    for (const list of this.children) list.sort((a, b) => threads[a].t[0] - threads[b].t[0] || a - b);
    this.rows = [];
    const below = [0];
    while (below.length) {
      const n = below.pop();
      this.rows.push(n);
      if (!this.folded.has(n)) below.push(...[...this.children[n]].reverse());
    }
    this.rowOf = new Map(this.rows.map((n, row) => [n, row]));
    this.redraw(true);
  }

  redraw(all = false) {
    if (all) this.drawn = null;
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    const wide = this.box.clientWidth;
    if (!wide) return;
    const gutter = wide < 520 ? 104 : 168;
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - SPARE);
    const last = Math.min(this.rows.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + SPARE);
    const state = [first, last, wide, this.zoom, this.clock, this.selected, this.rows.length].join();
    if (this.drawn === state) return;
    this.drawn = state;
    this.first = first;
    this.last = last;
    const width = Math.max(60, (wide - gutter - 14) * this.zoom);
    const until = Math.max(...this.trace.threads.map((_, n) => this.end(n))) || 1;
    this.x = (time) => (time / until) * (width - 8) + 2;
    this.sheet.style.cssText = `height:${this.rows.length * ROW + HEAD + 8}px;width:${gutter + width}px`;
    const names = el("div", { class: "names", style: `width:${gutter}px;height:${this.rows.length * ROW + HEAD}px` },
      this.rows.slice(first, last).map((n, at) => this.name(n, first + at)));
    this.sheet.replaceChildren(names, this.axis(gutter, width, until), this.chart(gutter, width));
    this.box.setAttribute("aria-activedescendant", `${this.id()}-${this.selected}`);
  }

  id() { return (this.prefix ??= `t${Lanes.made = (Lanes.made ?? 0) + 1}`); }

  name(n, row) {
    const thread = this.trace.threads[n];
    const depth = thread.l.split(".").length - 1;
    const parent = this.children[n].length > 0;
    return el("div", { class: `name${n === this.selected ? " on" : ""}`, id: `${this.id()}-${n}`, role: "treeitem", "aria-level": depth + 1,
        "aria-selected": String(n === this.selected), "aria-expanded": parent ? String(!this.folded.has(n)) : null,
        style: `top:${row * ROW + HEAD}px;padding-left:${4 + Math.min(depth, 6) * 10}px`, onclick: () => this.select(n, true) },
      parent ? el("span", { class: "caret", onclick: (event) => { event.stopPropagation(); this.fold(n); } }, this.folded.has(n) ? "▸" : "▾") : el("span", { class: "caret" }),
      el("span", { class: `sign st-${thread.st}`, title: `${thread.st}: ${visible(thread.why)}` }, SIGNS[thread.st]),
      el("span", { class: "label" }, thread.l), el("span", { class: "tokens" }, count(thread.n)));
  }

  axis(gutter, width, until) {
    const step = niceStep(until / Math.max(2, width / 90));
    const ticks = [];
    for (let at = 0; at <= until; at += step) {
      const text = this.clock === "seconds" ? `${Number(at.toPrecision(6))} s` : count(at);
      ticks.push(el("span", { style: `left:${this.x(at)}px` }, text));
    }
    return el("div", { class: "axis", style: `left:${gutter}px;width:${width}px` }, ticks);
  }

  chart(gutter, width) {
    const top = this.first * ROW, height = (this.last - this.first) * ROW;
    const y = (row) => row * ROW - top + ROW / 2;
    const drawing = svg("svg", { class: "chart", width, height, style: `left:${gutter}px;top:${top + HEAD}px`, "aria-hidden": true,
      onclick: (event) => this.select(this.rows[this.first + Math.floor((event.clientY - drawing.getBoundingClientRect().top) / ROW)], true) }, patterns());
    const marks = [];
    for (let row = this.first; row < this.last; row++) marks.push(...this.lane(this.rows[row], y(row), width, row % 2));
    drawing.append(...marks, ...this.links(y, height));
    return drawing;
  }

  lane(n, y, width, odd) {
    const thread = this.trace.threads[n], start = this.x(this.start(n));
    const drawn = [svg("rect", { class: n === this.selected ? "lane on" : odd ? "lane odd" : "lane", y: y - ROW / 2, width, height: ROW })];
    if (thread.p !== null && this.shares(n)) drawn.push(svg("line", { class: "prefix", x1: this.x(0), x2: start, y1: y, y2: y }, svg("title", {}, "shared prefix: what its parent had seen")));
    for (const [kind, from, to, span] of this.phases(n)) {
      const x = this.x(from), wide = Math.max(1, this.x(to) - x);
      const own = span === null ? null : thread.s[span];
      const what = `${thread.l} ${KIND[kind]}, ${this.when(from)} to ${this.when(to)}${own ? `, ${counted(length(own), "token")}` : ""}${own?.c ? ", on the critical path" : ""}`;
      drawn.push(svg("rect", { class: `ph ${KIND[kind]}`, x, y: y - 7, width: wide, height: kind === "w" ? 8 : 13, transform: kind === "w" ? "translate(0 3)" : null }, svg("title", {}, what)));
      if (own?.c) drawn.push(svg("rect", { class: "mark", x, y: y + 5, width: wide, height: 4 }));
    }
    return drawn;
  }

  shares(n) {
    const parent = this.trace.threads[this.trace.threads[n].p];
    return !parent.f.find((fork) => fork.to.includes(n)).alone;
  }

  // Forks go down from the parent to its children, joins come back up; one line a fork, a tick a child.
  links(y, height) {
    const drawn = [];
    const inside = (value) => Math.min(height + ROW, Math.max(-ROW, value));
    this.trace.threads.forEach((thread, n) => {
      if (!this.rowOf.has(n) || this.folded.has(n)) return;
      for (const fork of thread.f) {
        if (!fork.to.length) continue;
        const rows = fork.to.map((child) => this.rowOf.get(child));
        const from = y(this.rowOf.get(n)), to = y(Math.max(...rows));
        if (from > height + ROW || to < -ROW) continue;
        const [forked, joined] = this.forkTimes(thread, fork);
        const left = this.x(forked), right = this.x(joined);
        drawn.push(svg("path", { class: "link fork", d: `M${left} ${inside(from + 6)}V${inside(to)}` }, svg("title", {}, `fork into ${counted(fork.to.length, "thread")} at ${this.when(forked)}`)));
        if (!fork.beside) drawn.push(svg("path", { class: "link join", d: `M${right} ${inside(to)}V${inside(from + 7)}m-3 5l3-5l3 5` }, svg("title", {}, `join by ${fork.rule} at ${this.when(joined)}`)));
        for (const child of fork.to) {
          const at = y(this.rowOf.get(child));
          if (at < -ROW || at > height + ROW) continue;
          drawn.push(svg("path", { class: "link fork", d: `M${left} ${at}H${Math.max(left + 3, this.x(this.start(child)))}` }));
          if (!fork.beside) drawn.push(svg("path", { class: "link join", d: `M${this.x(this.end(child))} ${at}H${right}` }));
        }
      }
    });
    return drawn;
  }

  forkTimes(thread, fork) {
    if (this.clock === "seconds") return fork.t;
    return [this.trace.threads[fork.to[0]].k[0], thread.k[1 + (fork.joined ?? fork.at)]];
  }

  fold(n, on = !this.folded.has(n)) {
    if (!this.children[n].length) return;
    if (on) this.folded.add(n); else this.folded.delete(n);
    this.order();
    if (!this.rowOf.has(this.selected)) this.select(n);
  }

  select(n, tell = true) {
    if (n === undefined) return;
    for (let up = this.trace.threads[n].p; up !== null; up = this.trace.threads[up].p) if (this.folded.has(up)) { this.folded.delete(up); this.order(); }
    this.selected = n;
    const top = this.rowOf.get(n) * ROW;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + ROW + HEAD + 16 > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + ROW + HEAD + 16 - this.box.clientHeight;
    this.redraw(true);
    if (tell) this.onSelect(n);
  }

  key(event) {
    const row = this.rowOf.get(this.selected), page = Math.floor(this.box.clientHeight / ROW) - 2;
    const to = { ArrowDown: row + 1, ArrowUp: row - 1, PageDown: row + page, PageUp: row - page, Home: 0, End: this.rows.length - 1 }[event.key];
    if (to !== undefined) this.select(this.rows[Math.min(this.rows.length - 1, Math.max(0, to))]);
    else if (event.key === "ArrowLeft") { if (this.children[this.selected].length && !this.folded.has(this.selected)) this.fold(this.selected, true); else this.select(this.trace.threads[this.selected].p ?? 0); }
    else if (event.key === "ArrowRight") { if (this.folded.has(this.selected)) this.fold(this.selected, false); else this.select(this.children[this.selected][0]); }
    else if (event.key === "Enter") this.element.dispatchEvent(new CustomEvent("read", { bubbles: true }));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least || 1));
  return [1, 2, 5, 10].map((n) => n * power).find((step) => step >= least);
}

// Told apart without colour too: decoding is plain, queueing hatched, waiting dotted.
function patterns() {
  return svg("defs", {},
    svg("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      svg("rect", { class: "hatch-ground", width: 6, height: 6 }), svg("rect", { class: "hatch-line", width: 3, height: 6 })),
    svg("pattern", { id: "dots", width: 6, height: 6, patternUnits: "userSpaceOnUse" },
      svg("rect", { class: "dots-ground", width: 6, height: 6 }), svg("circle", { class: "dots-dot", cx: 3, cy: 3, r: 1.3 })));
}
