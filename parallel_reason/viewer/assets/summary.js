"use strict";
// The first page of a report: the table of runs, the charts, and the list of problems.

function summaryView(index) {
  const rows = index.columns.run.length, verdicts = index.columns.correct.some((value) => value !== null);
  const charts = el("div", { class: "charts" }, el("p", { class: "note" }, "Drawing …"));
  setTimeout(() => drawCharts(charts, index).catch((error) => charts.replaceChildren(el("p", { class: "warning" }, `No charts: ${error}`))), 30);
  return el("div", { class: "summary" },
    el("h1", {}, index.title), el("p", { class: "note" }, `${counted(index.runs.length, "run")}, ${counted(index.problems.length, "problem")}, ${counted(rows, "trace")} · ${index.made}`),
    index.runs.flatMap((run) => run.notes.map((note) => el("p", { class: "warning" }, visible(note)))),
    runTable(index),
    !verdicts && el("p", { class: "note" }, "No verdicts, so no accuracy: report the folder of an evaluation, or name the task with --task."),
    charts, problemList(index));
}

function runTable(index) {
  const names = [...new Set(index.runs.flatMap((run) => run.figures.map((figure) => figure.name)))];
  const help = new Map(index.runs.flatMap((run) => run.figures.map((figure) => [figure.name, figure.help])));
  const cell = (run, name) => {
    const figure = run.figures.find((one) => one.name === name);
    const [value, interval] = figure ? figureText(figure) : ["–", ""];
    return el("td", {}, value, interval && el("span", { class: "interval" }, ` ${interval}`));
  };
  return el("div", { class: "scroll", tabindex: 0, "aria-label": "Figures of the runs" }, el("table", {},
    el("caption", {}, "Intervals are 95%. Point at a heading for its definition."),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "run"), names.map((name) => el("th", { scope: "col", title: help.get(name) }, name)))),
    el("tbody", {}, index.runs.map((run, at) => el("tr", {}, el("th", { scope: "row", title: visible(run.file) },
      el("span", { class: "dot", style: `background:${PALETTE[at % 8]}` }), quoted(run.name, 40)), names.map((name) => cell(run, name)))))));
}

// All rows of each problem, by run: problems[p][run] = rows.
function byProblem(index) {
  index.grouped ??= (() => {
    const grouped = index.problems.map(() => index.runs.map(() => []));
    index.columns.run.forEach((run, row) => grouped[index.columns.problem[row]][run].push(row));
    return grouped;
  })();
  return index.grouped;
}

const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : 0);

function problemList(index) {
  const grouped = byProblem(index), columns = index.columns;
  const every = grouped.map((runs, number) => ({ number, key: index.problems[number], runs, rows: runs.flat() }));
  const share = (rows) => mean(rows.map((row) => (columns.correct[row] ? 1 : 0)));
  const judged = (problem) => problem.rows.some((row) => columns.correct[row] !== null);
  const FILTERS = {
    "all problems": () => true,
    "wrong at least once": (problem) => problem.rows.some((row) => columns.correct[row] === false),
    "never right": (problem) => judged(problem) && !problem.rows.some((row) => columns.correct[row]),
    "runs differ": (problem) => new Set(problem.runs.filter((rows) => rows.length).map(share)).size > 1,
    "malformed fork": (problem) => problem.rows.some((row) => columns.malformed[row] > 0),
    "not finished": (problem) => problem.rows.some((row) => columns.status[row] !== "finished"),
    "no fork": (problem) => problem.rows.some((row) => columns.forks[row] === 0),
  };
  const of = (column) => (problem) => mean(problem.rows.map((row) => columns[column][row]));
  const ORDERS = { "in order": (problem) => problem.number, "least right first": (problem) => share(problem.rows), "longest critical path": (problem) => -of("critical")(problem),
    "most threads": (problem) => -of("threads")(problem), "least acceleration": of("acceleration"), "slowest": (problem) => -of("wall")(problem) };
  const cell = (rows) => {
    if (!rows.length) return el("span", { class: "score none" }, "–");
    const right = rows.filter((row) => columns.correct[row]).length, known = rows.some((row) => columns.correct[row] !== null);
    const sign = right === rows.length ? "✓" : right ? "◐" : "✗";
    return el("span", { class: `score ${known ? (right === rows.length ? "right" : right ? "some" : "wrong") : ""}` },
      known ? `${sign} ${right}/${rows.length}` : counted(rows.length, "trace"), el("small", {}, ` ${count(Math.round(mean(rows.map((row) => columns.critical[row]))))} tok`));
  };
  const list = new List(38, (problem, on) => el("a", { class: on ? "row on" : "row", href: `#p=${problem.number}`, role: "option", "aria-selected": String(on), tabindex: -1 },
    el("span", { class: "number" }, problem.number + 1), el("bdi", { class: "model key" }, oneLine(problem.key, 160)), problem.runs.map(cell)), "Problems: arrow keys move, Enter opens");
  const search = el("input", { type: "search", placeholder: "Search problems  ( / )", id: "search", "aria-label": "Search problems", oninput: () => choose() });
  const select = (name, options) => el("select", { "aria-label": name, onchange: () => choose() }, Object.keys(options).map((option) => el("option", {}, option)));
  const filter = select("Which problems", FILTERS), order = select("Order", ORDERS), total = el("output", {});
  function choose() {
    const wanted = search.value.toLowerCase(), sorted = ORDERS[order.value];
    const found = every.filter((problem) => problem.key.toLowerCase().includes(wanted) && FILTERS[filter.value](problem)).map((problem) => [sorted(problem), problem]);
    found.sort((a, b) => a[0] - b[0] || a[1].number - b[1].number);
    list.set(found.map(([, problem]) => problem));
    total.textContent = `${count(found.length)} of ${count(every.length)}`;
  }
  choose();
  const heads = el("div", { class: "row heads", "aria-hidden": true }, el("span", { class: "number" }, "#"), el("span", { class: "key" }, "problem"), index.runs.map((run) => el("span", { class: "score" }, quoted(run.name, 18))));
  return el("section", { class: "problems" }, el("h2", {}, "Problems"), el("p", { class: "note" }, "Right answers of samples, and the mean critical path in tokens."), el("div", { class: "bar" }, search, filter, order, total), heads, list.element);
}
