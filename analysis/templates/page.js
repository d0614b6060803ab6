// Draws what the filters choose. Numbers come from the element #data; see analysis/page_data.py.
import DataTable from "datatables";

const data = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const looks = (name) => {
  const own = data.estimators[name];
  return dark.matches ? { ...own, colour: own.bright } : own;
};
const AXES = {
  epoch: { title: "epochs", format: ".4~g" },
  train_seconds: { title: "seconds of training", format: ".4~g" },
  decoder_calls_total: { title: "decoder calls in all", format: ".3~s", log: true },
};
const LINE = 26; // pixels for an estimator's row
const metric = document.getElementById("metric");
const filters = document.getElementById("filters");

const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;
const boxes = [...document.querySelectorAll("input[name=estimator]")];

/** What is chosen now; estimators in the order of the tables. */
function state() {
  const task = chosen("task");
  const names = boxes.filter((box) => box.checked).map((box) => box.value);
  return { task, names, metric: metric.value, axis: chosen("axis"), lines: chosen("lines") };
}

// ---- text ----

/** Text for plotly, which takes some HTML in its labels. */
function plain(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** A number as the tables print it; their formats are like ".3f". */
function number(value, format) {
  if (value === null) return "";
  return Math.abs(value) < 1e6 ? value.toFixed(Number(format.slice(1, -1))) : value.toExponential(1);
}

function withError(value, error, format) {
  return error === null ? number(value, format) : `${number(value, format)} ± ${number(error, format)}`;
}

// ---- charts ----

function layout(extra) {
  const css = getComputedStyle(document.documentElement);
  const [ink, muted, grid, card, line, accent] = ["ink", "muted", "grid", "card", "line", "accent"].map((name) => css.getPropertyValue(`--${name}`));
  const axis = { gridcolor: grid, linecolor: line, zeroline: false, automargin: true, tickfont: { color: muted }, title: { standoff: 8 } };
  const { xaxis, yaxis, ...rest } = extra;
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: ink },
    hoverlabel: { bgcolor: card, bordercolor: line, font: { color: ink }, namelength: -1 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: muted, activecolor: accent },
    margin: { l: 60, r: 16, t: 28, b: 44 },
    xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...rest,
  };
}

function draw(id, traces, extra) {
  Plotly.react(id, traces, layout(extra), {
    displaylogo: false, showSendToCloud: false, plotlyServerURL: "", responsive: true,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: { format: "svg", filename: `${data.name}-${id}` },
  });
}

/** The least and the greatest of numbers, which may be more than a call takes arguments. */
function extent(values) {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

/** What an axis shows of numbers: all of them, and a margin. Plotly's own range has every line drawn across in it. */
function around([low, high]) {
  if (low > high) return undefined;
  const margin = 0.05 * (high - low) || 0.05 * Math.abs(high) || 0.05;
  return [low - margin, high + margin];
}

/** A line across at the accuracy of guessing, where that is in the range. */
function chanceLine(task, column, along, range) {
  if (column !== "accuracy" || task.chance === null || !range || task.chance < range[0] || task.chance > range[1]) return [];
  const [across, other] = along === "x" ? ["x", "y"] : ["y", "x"];
  return [{
    type: "line", line: { color: "#888", width: 1, dash: "dot" },
    [`${across}0`]: task.chance, [`${across}1`]: task.chance,
    [`${other}ref`]: "paper", [`${other}0`]: 0, [`${other}1`]: 1,
  }];
}

/** Means with their errors, and each seed beside; the best on top. */
function drawScores({ task: name, names, metric: column }) {
  const task = data.tasks[name];
  const caption = document.getElementById("scores-caption");
  const shown = names.filter((one) => task.final[one]?.[column]?.[0] != null);
  if (!shown.length) {
    caption.textContent = task.metrics.length ? "None of the chosen estimators has a score." : "No cell of this task has a score.";
    draw("scores", [], { height: 160, xaxis: { visible: false }, yaxis: { visible: false } });
    return;
  }
  const { label, format, better } = data.metrics[column];
  caption.textContent = `Test ${label}: mean ± standard error over seeds, and each seed beside it.` + (better ? ` ${better === "more" ? "More" : "Less"} is better: the best on top.` : "");
  if (shown.some((one) => one in task.lost)) caption.textContent += " ✕ counts runs that failed, diverged or gave no score.";
  const sign = better === "less" ? -1 : 1;
  const ordered = shown.toSorted((a, b) => sign * (task.final[a][column][0] - task.final[b][column][0]));
  const runs = data.cells.filter((cell) => cell[0] === name && cell[COLUMN[column]] !== null);
  const traces = ordered.flatMap((one, row) => {
    const { colour, symbol } = looks(one);
    const [mean, error, count] = task.final[one][column];
    const own = runs.filter((cell) => cell[1] === one);
    return [
      {
        name: plain(one), x: own.map((cell) => cell[COLUMN[column]]), y: own.map(() => row - 0.27), mode: "markers",
        marker: { color: colour, size: 5, opacity: 0.45 }, customdata: own.map((cell) => cell[2]),
        hovertemplate: `%{x:${format}}<extra>%{fullData.name}, seed %{customdata}</extra>`,
      },
      {
        name: plain(one), x: [mean], y: [row], mode: "markers", marker: { color: colour, symbol, size: 10 },
        error_x: { type: "data", array: [error ?? 0], color: colour, thickness: 1.5, width: 4 },
        hovertemplate: `${withError(mean, error, format)}, ${count} seed${count === 1 ? "" : "s"}<extra>%{fullData.name}</extra>`,
      },
    ];
  });
  const { range, annotations } = scoreRange(task, column, ordered, runs);
  draw("scores", traces, {
    height: 90 + LINE * ordered.length, annotations, xaxis: { title: { text: `test ${label}` }, range },
    yaxis: { tickmode: "array", tickvals: ordered.map((_, row) => row), ticktext: ordered.map((one) => plain(one) + (one in task.lost ? ` (${task.lost[one]} ✕)` : "")), range: [-0.7, ordered.length - 0.4], fixedrange: true },
    shapes: chanceLine(task, column, "x", range),
  });
}

/** The range of all scores, or, where the floor lies far outside, that of the others with a note of it. */
function scoreRange(task, column, ordered, runs) {
  const reach = (names) => extent([
    ...names.map((one) => task.final[one][column]).flatMap(([mean, error]) => [mean - (error ?? 0), mean + (error ?? 0)]),
    ...runs.filter((cell) => names.includes(cell[1])).map((cell) => cell[COLUMN[column]]),
  ]);
  const others = ordered.filter((one) => one !== data.floor);
  const floor = ordered.includes(data.floor) ? task.final[data.floor][column][0] : null;
  const [low, high] = reach(others);
  const spread = high - low;
  if (floor === null || others.length < 2 || spread === 0 || (floor > low - 2 * spread && floor < high + 2 * spread)) return { range: around(reach(ordered)) };
  const right = floor > high;
  const text = number(floor, data.metrics[column].format);
  return {
    range: [low - 0.15 * spread, high + 0.15 * spread],
    annotations: [{
      xref: "paper", x: right ? 1 : 0, xanchor: right ? "right" : "left", y: ordered.indexOf(data.floor),
      text: right ? `${text} →` : `← ${text}`, showarrow: false, font: { color: looks(data.floor).colour },
    }],
  };
}

function drawCurves({ task: name, names, metric: chosenMetric, axis, lines }) {
  const task = data.tasks[name];
  const column = task.curveMetrics.includes(chosenMetric) ? chosenMetric : task.curveScore;
  const caption = document.getElementById("curves-caption");
  if (column === null) {
    caption.textContent = "No cell of this task was evaluated in training.";
    draw("curves", [], { height: 160, xaxis: { visible: false }, yaxis: { visible: false } });
    return;
  }
  const { label, format } = data.metrics[column];
  const { title, format: along, log = false } = AXES[axis];
  const parts = [`Validation ${label} against ${title}${log ? ", logarithmic" : ""}.`];
  if (column !== chosenMetric && chosenMetric) parts.unshift(`${data.metrics[chosenMetric].label} is computed on the test split only.`);
  if (lines === "means") parts.push("Bands are standard errors over seeds.");
  else parts.push("Dotted runs diverged." + (task.seedsLeftOut ? ` The last ${task.seedsLeftOut} seeds are left out.` : ""));
  parts.push("Drag to zoom; double-click to come back, and again to see all.");
  caption.textContent = parts.join(" ");
  const curves = lines === "means" ? meanCurves : runCurves;
  const traces = names.flatMap((one) => curves(task, one, { column, axis, log, format, along }));
  const range = lateRange(task, names, column) ?? around(extent(traces.flatMap((trace) => trace.y)));
  draw("curves", traces, {
    height: 460, xaxis: { title: { text: title }, ...(log ? decades(extent(traces.flatMap((trace) => trace.x))) : { type: "linear", rangemode: "tozero" }) },
    yaxis: { title: { text: `validation ${label}` }, range }, shapes: chanceLine(task, column, "y", range),
  });
}

/** A logarithmic axis, with ticks at powers of ten alone where there are enough of them. */
function decades([low, high]) {
  return { type: "log", exponentformat: "power", ...(high >= 100 * low ? { dtick: 1 } : {}) };
}

/** The range after the first tenth of training, the floor left out, where the start dwarfs it. */
function lateRange(task, names, column) {
  const curves = names.filter((one) => one !== data.floor && task.means[one]).map((one) => task.means[one][column]);
  const late = curves.flatMap((curve) => curve.slice(Math.ceil(curve.length / 10))).filter((value) => value !== null);
  const every = curves.flat().filter((value) => value !== null);
  const [low, high] = extent(late);
  const [least, most] = extent(every);
  const spread = high - low;
  if (!(spread > 0) || most - least < 2 * spread) return undefined;
  return [low - 0.1 * spread, high + 0.1 * spread];
}

/** The places of a curve that can be drawn. */
function drawable(curve, { column, axis, log }) {
  return [...curve[column].keys()].filter((i) => curve[column][i] !== null && curve[axis][i] !== null && (!log || curve[axis][i] > 0));
}

function meanCurves(task, name, what) {
  const curve = task.means[name];
  if (!curve) return [];
  const { column, axis, format, along } = what;
  const { colour, symbol, dash } = looks(name);
  const at = drawable(curve, what);
  const pick = (values) => at.map((i) => values[i]);
  const [x, y, error] = [pick(curve[axis]), pick(curve[column]), pick(curve[`${column} error`])];
  const band = {
    x: [...x, ...x.toReversed()], y: [...y.map((v, i) => v + (error[i] ?? 0)), ...y.map((v, i) => v - (error[i] ?? 0)).toReversed()],
    mode: "none", fill: "toself", fillcolor: `${colour}26`, hoverinfo: "skip",
  };
  const line = {
    name: plain(name), x, y, mode: "lines+markers", line: { color: colour, dash, width: 1.8 },
    marker: { symbol, size: 7, maxdisplayed: 12 }, customdata: y.map((v, i) => withError(v, error[i], format)),
    hovertemplate: `%{customdata} at %{x:${along}}<extra>%{fullData.name}</extra>`,
  };
  return error.some((value) => value) ? [band, line] : [line];
}

function runCurves(task, name, what) {
  const { column, axis, format, along } = what;
  const { colour, dash } = looks(name);
  return (task.runs[name] ?? []).map((run) => {
    const at = drawable(run, what);
    return {
      name: plain(name), x: at.map((i) => run[axis][i]), y: at.map((i) => run[column][i]), mode: "lines",
      line: { color: colour, dash: run.diverged ? "dot" : dash, width: 1.2 }, opacity: 0.75,
      hovertemplate: `%{y:${format}} at %{x:${along}}<extra>%{fullData.name}, seed ${run.seed}${run.diverged ? ", diverged" : ""}</extra>`,
    };
  });
}

// ---- tables ----

/** Where a column of the summary stands in a row of data.cells. */
const COLUMN = Object.fromEntries(Object.keys(data.metrics).map((name, i) => [name, 4 + i]));

function link(path) {
  if (path === null) return "";
  const anchor = document.createElement("a");
  anchor.href = path;
  anchor.textContent = "parquet";
  return anchor.outerHTML;
}

/** Numbers of which some are missing: these come last, whichever way a table is sorted. */
const missing = (value) => value === null || value === "";
const byNumber = (sign) => (a, b) => missing(a) - missing(b) || sign * (a - b);
DataTable.type("gaps", { order: { asc: byNumber(1), desc: byNumber(-1) } });

const text = DataTable.render.text();
const status = (value, kind) => (kind === "display" ? `<span class="status ${text.display(value)}">${text.display(value)}</span>` : value);
const cells = new DataTable("#cells", {
  data: data.cells, deferRender: true, pageLength: 25, autoWidth: false, order: [], scrollX: true,
  language: { entries: { _: "cells", 1: "cell" }, infoFiltered: "", emptyTable: "No cell", zeroRecords: "No such cell" },
  columns: [
    { title: "estimator", data: 1, render: text },
    { title: "seed", data: 2 },
    { title: "status", data: 3, render: status },
    ...Object.entries(data.metrics).map(([name, { label, format }]) => ({
      title: label, data: COLUMN[name], name, type: "gaps", className: "number", render: (value, kind) => (kind === "display" ? number(value, format) : value),
    })),
    { title: "file", data: 4 + Object.keys(data.metrics).length, orderable: false, searchable: false, render: (path, kind) => (kind === "display" ? link(path) : path) },
  ],
});

const bare = { paging: false, info: false, autoWidth: false, order: [], layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null } };
const summaries = [...document.querySelectorAll("table.summary")].map((table) => new DataTable(table, { ...bare, columnDefs: [{ targets: "number", type: "gaps" }] }));
if (document.getElementById("unfinished")) {
  const many = document.querySelectorAll("#unfinished tbody tr").length > 25;
  new DataTable("#unfinished", many ? { autoWidth: false, order: [], pageLength: 25 } : bare);
}

function filterTables({ task, names }) {
  const off = new Set(boxes.filter((box) => !box.checked).map((box) => box.value));
  const present = data.cells.filter((cell) => cell[0] === task);
  for (const name of Object.keys(data.metrics)) {
    cells.column(`${name}:name`).visible(present.some((cell) => cell[COLUMN[name]] !== null), false);
  }
  cells.search.fixed("filters", (_, row) => row[0] === task && !off.has(row[1])).columns.adjust().draw();
  for (const table of summaries) {
    table.search.fixed("filters", (_, row, index) => !off.has(table.row(index).node().dataset.name)).draw();
  }
  for (const part of document.querySelectorAll("[data-task], [data-estimator]")) {
    part.hidden = (part.dataset.task ?? task) !== task || off.has(part.dataset.estimator);
  }
  for (const box of boxes) box.parentElement.classList.toggle("absent", !data.tasks[task].final[box.value]);
}

// ---- filters ----

/** The metrics of the chosen task, the present one kept where it has it. */
function offerMetrics() {
  const { metrics, score } = data.tasks[chosen("task")];
  const before = metric.value;
  metric.replaceChildren(...metrics.map((name) => new Option(data.metrics[name].label, name)));
  metric.value = metrics.includes(before) ? before : (score ?? metrics[0] ?? "");
}

function redraw() {
  const now = state();
  drawScores(now);
  drawCurves(now);
}

function update() {
  redraw();
  filterTables(state());
}

function adopt() {
  document.documentElement.classList.toggle("dark", dark.matches); // for DataTables
  redraw();
}

filters.addEventListener("submit", (event) => event.preventDefault());
filters.addEventListener("change", (event) => {
  if (event.target.name === "task") offerMetrics();
  update();
});
for (const radio of document.querySelectorAll(".controls input")) radio.addEventListener("change", redraw);
for (const [id, checked] of [["all", true], ["none", false]]) {
  document.getElementById(id).addEventListener("click", () => {
    for (const box of boxes) box.checked = checked;
    update();
  });
}
dark.addEventListener("change", adopt);
offerMetrics();
adopt();
filterTables(state());
