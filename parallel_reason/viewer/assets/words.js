"use strict";
// The text of one thread, token by token: who wrote each, how likely it was, and where the thread forked and joined.

const ORIGIN = { p: "prompt", s: "sampled", i: "injected", c: "copied" };
const AT_ONCE = 4000; // tokens that are laid out before a button asks for more

class Words {
  constructor(trace, open) {
    this.trace = trace;
    this.open = open; // what a fork's children are opened with
    this.tip = el("div", { class: "tip", role: "tooltip", hidden: true });
    this.box = el("div", { class: "words", tabindex: 0, "aria-label": "Text of the thread",
      onpointerover: (event) => this.hover(event), onpointerleave: () => { this.tip.hidden = true; } });
    this.shade = el("input", { type: "checkbox", onchange: () => this.box.classList.toggle("shaded", this.shade.checked) });
    this.head = el("header", { class: "thread-head" });
    const key = (kind, text) => el("span", { class: "key" }, el("span", { class: `w ${kind}` }, text));
    this.legend = el("div", { class: "bar" }, el("label", {}, this.shade, " shade unlikely tokens"),
      key("prompt", "prompt"), key("sampled", "sampled"), key("injected", "injected"), key("copied", "copied"),
      el("span", { class: "key" }, el("span", { class: "w sampled control" }, "control")), el("span", { class: "key" }, el("s", { class: "w sampled" }, "taken back")));
    this.element = el("section", { class: "reading" }, this.head, this.legend, this.box, this.tip);
  }

  show(n) {
    const thread = this.trace.threads[n];
    this.tip.hidden = true;
    this.head.replaceChildren(...this.about(n, thread));
    this.box.replaceChildren(...this.prefix(n), ...this.text(n, 0, Infinity));
    this.box.scrollTop = 0;
  }

  about(n, thread) {
    const [queued, running, waiting] = thread.q, [prefilled, cached, recomputed] = thread.pf;
    const facts = [counted(thread.n, "sampled token"), `queued ${seconds(queued)}`, `running ${seconds(running)}`, `waiting ${seconds(waiting)}`,
      `prefilled ${count(prefilled)}, ${count(cached)} cached, ${count(recomputed)} recomputed`];
    return [el("h3", {}, `Thread ${thread.l} `, statusChip(thread.st, thread.why), thread.why && el("span", { class: "why" }, " ended by ", quoted(thread.why, 160))),
      el("p", { class: "facts" }, facts.join(" · ")),
      ...(thread.m ?? []).map(([at, reason]) => el("p", { class: "warning" }, `malformed fork before span ${at}: `, quoted(reason, 300)))];
  }

  // What the thread saw of those above it, muted and folded away.
  prefix(n) {
    const parts = [];
    let tokens = 0;
    for (let child = n, up = this.trace.threads[n].p; up !== null; child = up, up = this.trace.threads[up].p) {
      const fork = this.trace.threads[up].f.find((one) => one.to.includes(child));
      if (fork.alone) break;
      tokens += this.trace.threads[up].s.slice(0, fork.at).reduce((sum, span) => sum + length(span), 0);
      parts.unshift([up, fork.at]);
    }
    if (!parts.length) return [];
    const labels = parts.map(([up]) => this.trace.threads[up].l).join(", ");
    const shown = el("div", { class: "shared" });
    const folded = el("details", { class: "prefix", ontoggle: () => { if (!shown.firstChild) shown.append(...parts.flatMap(([up, at]) => this.text(up, 0, at, false))); } },
      el("summary", {}, `shared prefix: ${counted(tokens, "token")} of ${labels}`), shown);
    return [folded];
  }

  // Spans ``from`` to ``to`` of thread n, and the forks among them.
  text(n, from, to, whole = true) {
    const thread = this.trace.threads[n];
    if (!this.trace.words) return this.without(thread, whole);
    const parts = [];
    let laid = 0;
    for (let at = from; at <= Math.min(to, thread.s.length); at++) {
      if (whole) parts.push(...this.places(thread, at));
      if (at === Math.min(to, thread.s.length)) break;
      if (laid > AT_ONCE && whole) {
        const more = el("button", { class: "more", onclick: () => more.replaceWith(...this.text(n, at, to)) }, `Show ${counted(thread.s.length - at, "more span")}`);
        return [...parts, more];
      }
      parts.push(this.span(n, at, 0));
      laid += thread.s[at].i.length;
    }
    return parts;
  }

  // Joins, forks and malformed forks before span ``at``.
  places(thread, at) {
    const found = [];
    for (const fork of thread.f) {
      if (fork.at === at) found.push(this.forkChip(fork));
      if ((fork.joined ?? fork.at) === at && !fork.beside && fork.to.length) found.push(el("div", { class: "place join" }, `⤴ join by ${fork.rule} · ${seconds(fork.t[1])}`));
    }
    for (const [place, reason] of thread.m ?? []) if (place === at) found.push(el("div", { class: "place warning" }, "⚠ malformed fork: ", quoted(reason, 300)));
    return found;
  }

  forkChip(fork) {
    const button = (child) => el("button", { class: "to", onclick: () => this.open(child) }, this.trace.threads[child].l);
    const first = fork.to.slice(0, 24), rest = fork.to.slice(24);
    const more = rest.length && el("button", { class: "to", onclick: () => more.replaceWith(...rest.map(button)) }, `… ${count(rest.length)} more`);
    return el("div", { class: "place fork" }, `⤵ fork into ${counted(fork.to.length, "thread")}${fork.alone ? ", without the prefix" : ""}${fork.beside ? ", not waited for" : ""} `, first.map(button), more || null);
  }

  span(n, at, from) {
    const span = this.trace.threads[n].s[at];
    const texts = pieces(this.trace, span), control = this.controls(span, texts);
    const box = el("span", { class: `w ${ORIGIN[span.o]}${span.c ? " critical" : ""}`, "data-n": n, "data-at": at, title: span.o === "s" ? null : ORIGIN[span.o] });
    const stop = Math.min(texts.length, from + AT_ONCE);
    for (let i = from; i < stop; i++) {
      const gone = span.g?.some(([first, last]) => first <= i && i < last);
      const token = el(gone ? "s" : "span", { class: control[i] ? "control" : null, "data-i": i }, visible(texts[i]));
      if (span.p && span.p[i] >= 0) token.style.setProperty("--u", (1 - Math.exp(-span.p[i] / 1000)).toFixed(3));
      box.append(token);
    }
    if (stop < texts.length) {
      const more = el("button", { class: "more", onclick: () => more.replaceWith(this.span(n, at, stop)) }, `Show ${counted(texts.length - stop, "more token")}`);
      box.append(more);
    } else if (span.cut) box.append(el("em", { class: "cut" }, ` [${counted(span.cut, "token")} left out of this page]`));
    return box;
  }

  // Which tokens are, or are part of, a control token: by id, and where tags are spelled out, by their text.
  controls(span, texts) {
    const words = this.trace.words, found = span.i.map((id) => words.control.has(id));
    if (!words.tag) return found;
    const joined = texts.join("");
    const ends = [];
    texts.reduce((sum, text, i) => (ends[i] = sum + text.length), 0);
    let i = 0;
    for (const match of joined.matchAll(words.tag)) {
      const last = match.index + match[0].length;
      while (ends[i] <= match.index) i++;
      for (let j = i; j < ends.length && ends[j] - texts[j].length < last; j++) found[j] = true;
    }
    return found;
  }

  // No tokenizer was found: what a trace holds as text.
  without(thread, whole) {
    const note = el("p", { class: "note" }, "No tokenizer was found for this model: give one with --tokenizer to see every token. What the thread sampled:");
    const cut = thread.xc ? el("em", { class: "cut" }, ` [${counted(thread.xc, "character")} left out of this page]`) : null;
    const places = whole ? thread.f.map((fork) => this.forkChip(fork)) : [];
    return [whole ? note : null, el("bdi", { class: "w sampled" }, visible(thread.x ?? "")), cut, ...places].filter(Boolean);
  }

  hover(event) {
    const token = event.target.closest?.("[data-i]"), box = token?.closest("[data-at]");
    if (!box) { this.tip.hidden = true; return; }
    const span = this.trace.threads[box.dataset.n].s[box.dataset.at], i = Number(token.dataset.i);
    const shown = (id) => visible(JSON.stringify(this.trace.words.texts.get(id) ?? "")).slice(0, 60);
    const lines = [`${visible(JSON.stringify(token.textContent)).slice(0, 60)} · id ${span.i[i]} · ${ORIGIN[span.o]}`];
    if (span.p?.[i] >= 0) lines.push(`log-prob ${(-span.p[i] / 1000).toFixed(3)}, probability ${(100 * Math.exp(-span.p[i] / 1000)).toPrecision(3)}%`);
    if (token.tagName === "S") lines.push("taken back: the thread did not see it afterwards");
    if (span.v !== undefined) lines.push(`weights: version ${span.v}`);
    for (const [id, p] of span.top?.[i] ?? []) lines.push(`  ${(100 * Math.exp(-p / 1000)).toFixed(1)}%  ${shown(id)}`);
    this.tip.replaceChildren(...lines.map((line) => el("div", {}, line)));
    this.tip.hidden = false;
    const at = token.getBoundingClientRect(), own = this.tip.getBoundingClientRect();
    this.tip.style.left = `${Math.max(4, Math.min(at.left, innerWidth - own.width - 8))}px`;
    this.tip.style.top = `${at.bottom + own.height + 8 > innerHeight ? at.top - own.height - 6 : at.bottom + 6}px`;
  }
}
