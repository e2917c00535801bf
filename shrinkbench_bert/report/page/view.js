"use strict";
// The chosen view is in the fragment of the address, so that a link shows it to whoever opens it.

const data = JSON.parse(document.getElementById("data").textContent);
const DASH = "–";
let view = new URLSearchParams(location.hash.slice(1));

function choose(name, value) {
  if (value) view.set(name, value);
  else view.delete(name);
  history.replaceState(null, "", `#${view}`);
}

// Offers [value, label] pairs in a <select>, and chooses what the link asks for, or else the usual one.
function offer(name, options, usual = options[0][0]) {
  const select = document.querySelector(`select[name="${name}"]`);
  select.replaceChildren(...options.map(([value, label]) => new Option(label, value)));
  const asked = view.get(name);
  select.value = options.some(([value]) => value === asked) ? asked : usual;
  select.parentElement.hidden = options.length < 2;
  return select.value;
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function plainTable(heads, rows) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map((row) => element("tr", {}, ...row.map((text) => element("td", {}, text))));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

function say(id, text) {
  document.getElementById(id).textContent = text;
}

function number(metric, value) {
  if (value === null || value === undefined) return "undefined";
  return metric.percent ? (100 * value).toFixed(1) : value.toFixed(3);
}

const counted = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
const digits = (value) => String(Number(value.toPrecision(3)));

// Every plot's frame, in the colours of the page.
const darkMode = matchMedia("(prefers-color-scheme: dark)");

function colors() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  return { ink: of("ink"), soft: of("soft"), line: of("line"), paper: of("paper") };
}

function draw(id, traces, { height = 440, xaxis = {}, yaxis = {}, ...more }) {
  const { ink, line, paper } = colors();
  const axis = { gridcolor: line, zeroline: false, linecolor: line, automargin: true };
  const layout = {
    height,
    margin: { l: 10, r: 12, t: 32, b: 10 },
    paper_bgcolor: paper,
    plot_bgcolor: paper,
    font: { color: ink, family: "system-ui, sans-serif", size: 13 },
    hoverlabel: { bgcolor: paper, bordercolor: line, font: { color: ink }, align: "left" },
    hovermode: "closest",
    showlegend: false,
    legend: { orientation: "h", y: -0.22, yanchor: "top", x: 0 },
    // A finger that drags shall scroll the page.
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    xaxis: { ...axis, ...xaxis, title: { standoff: 10, ...xaxis.title } },
    yaxis: { ...axis, ...yaxis },
    ...more,
  };
  // Named one by one: the usual buttons include one that sends the chart to a service.
  const modeBarButtons = [["toImage", "zoomIn2d", "zoomOut2d", "resetScale2d"]];
  Plotly.react(id, traces, layout, { responsive: true, displaylogo: false, modeBarButtons });
}

// Line, dash and marker of a strategy, or of a kind of tensor.
function drawn(look) {
  const color = darkMode.matches ? look.dark : look.color;
  return {
    mode: "lines+markers",
    line: { color, dash: look.dash, width: 2 },
    marker: { color, symbol: look.symbol, size: 9, line: { width: 1.4, color } },
  };
}
