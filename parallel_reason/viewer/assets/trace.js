"use strict";
// One trace: what it is, its timeline, and the text of the thread that is chosen there.

function traceView(trace) {
  const words = new Words(trace, (n) => lanes.select(n));
  const lanes = new Lanes(trace, (n) => words.show(n));
  const root = trace.threads[0];
  const facts = el("details", { class: "facts-of" }, el("summary", {}, "How it was made, and what it came to"),
    el("dl", {}, Object.entries(trace.facts).map(([name, value]) => [el("dt", {}, name), el("dd", {}, quoted(value, 400))])));
  const long = trace.prompt.length > 300 || trace.prompt.includes("\n");
  const prompt = long ? el("details", {}, el("summary", {}, quoted(trace.prompt, 160)), el("pre", {}, el("bdi", {}, visible(trace.prompt)), cutNote(trace.cut[0]))) : quoted(trace.prompt, 300);
  const answer = trace.answer === null ? el("em", {}, "none: ", quoted(root.why, 160))
    : trace.answer.length > 300 ? el("details", {}, el("summary", {}, quoted(trace.answer, 160)), el("pre", {}, el("bdi", {}, visible(trace.answer)), cutNote(trace.cut[1])))
    : quoted(trace.answer, 300);
  const view = el("article", { class: "trace", onread: () => words.box.focus() },
    el("dl", { class: "what" }, el("dt", {}, "prompt"), el("dd", {}, prompt), el("dt", {}, "answer"), el("dd", {}, answer, " ", verdictChip(trace.correct), " ", statusChip(root.st, root.why))),
    trace.errors.map((error) => el("p", { class: "warning" }, quoted(error, 400))),
    facts, lanes.element, words.element);
  words.show(0);
  view.lanes = lanes;
  return view;
}

function cutNote(left) {
  return left ? el("em", { class: "cut" }, ` [${counted(left, "character")} left out of this page]`) : null;
}
