"use strict";
// Charts by Plotly, which is unpacked after the page is readable.

const PALETTE = ["#3b6fd4", "#d9822b", "#2b9a66", "#a854b8", "#c2433f", "#6b7280", "#0f8b8d", "#8a6d1f"];
const MARKERS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon"];
const COSTS = ["critical path", "sampled tokens", "wall"];

async function loadPlotly() {
  if (window.Plotly) return;
  const script = document.createElement("script");
  script.textContent = await unpackText("plotly");
  document.head.append(script);
}

function chartLayout(title, x, y) {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink"), line = style.getPropertyValue("--line");
  const axis = (text, more) => ({ title: { text, font: { size: 12 } }, gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true, ...more });
  return { title: { text: title, font: { size: 14 }, x: 0.02, xanchor: "left" }, font: { color: ink, family: "inherit", size: 12 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 48, r: 12, t: 36, b: 50 }, height: 270, showlegend: false, xaxis: axis(x, { rangemode: "tozero" }), yaxis: axis(y), bargap: 0.05, hoverlabel: { align: "left" } };
}

const plain = (name) => oneLine(name, 40).replaceAll("&", "&amp;").replaceAll("<", "&lt;"); // Plotly reads a little HTML

// Accuracy against one cost: a point a run, with both intervals, and the line of runs that no other beats in both.
function pareto(runs, cost) {
  const of = (run, name) => run.figures.find((figure) => figure.name === name);
  const shown = runs.map((run, at) => ({ run, at, x: of(run, cost), y: of(run, "accuracy") })).filter(({ x, y }) => x && x.value !== null && y && y.value !== null);
  if (!shown.length) return null;
  const percent = (value) => 100 * value;
  const bars = (figure, scale) => ({ type: "data", symmetric: false, thickness: 1.2, width: 4,
    array: [figure.high === null ? 0 : scale(figure.high) - scale(figure.value)], arrayminus: [figure.low === null ? 0 : scale(figure.value) - scale(figure.low)] });
  const points = shown.map(({ run, at, x, y }) => ({ type: "scatter", mode: "markers+text", name: plain(run.name), text: [plain(run.name)], textposition: "top center", cliponaxis: false,
    x: [x.value], y: [percent(y.value)], error_x: bars(x, (value) => value), error_y: bars(y, percent), marker: { size: 10, color: PALETTE[at % 8], symbol: MARKERS[at % 8] },
    hovertemplate: `%{y:.1f}% at %{x:,.4~g}<extra>${plain(run.name)}</extra>` }));
  const best = shown.filter((one) => !shown.some((other) => other !== one && other.x.value <= one.x.value && other.y.value >= one.y.value && (other.x.value < one.x.value || other.y.value > one.y.value)))
    .sort((a, b) => a.x.value - b.x.value);
  const front = { type: "scatter", mode: "lines", x: best.map(({ x }) => x.value), y: best.map(({ y }) => percent(y.value)), line: { dash: "dot", width: 1.5, color: "#888" }, hoverinfo: "skip" };
  const unit = cost === "wall" ? "seconds a trace" : "tokens a trace";
  return { data: [front, ...points], layout: chartLayout(`Accuracy against ${cost}`, unit, "accuracy, %") };
}

function histogram(index, column, title, unit) {
  const values = index.columns[column], least = values.reduce((a, b) => Math.min(a, b)), most = values.reduce((a, b) => Math.max(a, b));
  const whole = values.every(Number.isInteger), size = whole ? Math.max(1, Math.ceil((most - least) / 40)) : (most - least) / 40 || 0.1;
  const data = index.runs.map((run, at) => ({ type: "histogram", histnorm: "percent", name: plain(run.name), x: values.filter((_, row) => index.columns.run[row] === at), opacity: index.runs.length > 1 ? 0.6 : 0.9,
    marker: { color: PALETTE[at % 8], pattern: { shape: ["", "/", ".", "x", "-", "|", "\\", "+"][at % 8], fgopacity: 0.5 } }, xbins: { start: whole ? least - 0.5 : least, end: most + size, size },
    hovertemplate: `%{y:.1f}% at %{x}<extra>${plain(run.name)}</extra>` }));
  const layout = { ...chartLayout(title, unit, "% of traces"), barmode: "overlay", showlegend: index.runs.length > 1, legend: { x: 1, xanchor: "right", y: 1, bgcolor: "rgba(0,0,0,0)" } };
  layout.xaxis.rangemode = "normal";
  return { data, layout };
}

async function drawCharts(box, index) {
  await loadPlotly();
  const found = COSTS.map((cost) => [`accuracy against ${cost}`, pareto(index.runs, cost)]);
  found.push(["threads a trace", histogram(index, "threads", "Threads a trace", "threads")], ["acceleration", histogram(index, "acceleration", "Acceleration of each trace", "sampled tokens / critical path")]);
  const shown = found.filter(([, chart]) => chart);
  const places = shown.map(([name]) => el("figure", { class: "chart-box", role: "img", "aria-label": name }));
  box.replaceChildren(...places); // all of them first: each is as wide as the others leave room
  shown.forEach(([, chart], at) => Plotly.newPlot(places[at], chart.data, chart.layout, { displayModeBar: false, responsive: true }));
}
