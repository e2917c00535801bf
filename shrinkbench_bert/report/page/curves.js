"use strict";
// Figures 6 to 8: a metric against the amount of pruning, one line per strategy.

function drawCurves({ setting, task, taskName, metric, stage, axis }) {
  const hidden = new Set((view.get("off") ?? "").split(","));
  const scale = metric.percent ? 100 : 1;
  const at = (point) => point.at[metric.id]?.[stage];
  const lines = task.lines.map(({ strategy, points }) => ({
    strategy,
    points: points.filter((point) => at(point) && point.x[axis.id] !== undefined),
  }));
  const traces = lines.map(({ strategy, points }) => ({
    ...drawn(data.looks[strategy]),
    name: strategy,
    visible: !hidden.has(strategy),
    x: points.map((point) => point.x[axis.id]),
    y: points.map((point) => at(point).mean && scale * at(point).mean),
    error_y: { array: points.map((point) => scale * (at(point).sd ?? 0)), thickness: 1.2, width: 3 },
    error_x: { array: points.map((point) => point.spread[axis.id] ?? 0), thickness: 1.2, width: 3 },
    hovertext: points.map((point) => hover(strategy, point, at(point), metric, axis, taskName)),
    hovertemplate: "%{hovertext}<extra></extra>",
  }));
  const { dense, baseline } = task.references[metric.id];
  const fixed = [
    { ...dense, name: "dense, unpruned", dash: "solid" },
    { ...baseline, name: task.baseline, dash: "7px,4px" },
  ].filter(({ mean }) => mean !== null && mean !== undefined);
  const gap = 0.05 * scale * Math.abs((dense?.mean ?? 0) - (baseline?.mean ?? 0));
  const around = ({ mean }) => [scale * mean - gap, scale * mean + gap];
  const places = lines.flatMap(({ points }) => points.map((point) => point.x[axis.id]));
  const ticks = new Map(places.map((place) => [digits(place), place]));
  draw("curves-plot", traces, {
    xaxis: {
      title: { text: `${axis.label}${axis.scale === "log" ? ", log scale" : ""}` },
      type: axis.scale,
      autorange: axis.falls ? "reversed" : true,
      ...(ticks.size <= 12 && { tickvals: [...ticks.values()], ticktext: [...ticks.keys()] }),
    },
    yaxis: { title: { text: metric.label }, autorangeoptions: { include: fixed.flatMap(around) } },
    shapes: references(fixed, scale),
  });
  drawLegend(lines.map(({ strategy }) => strategy), hidden, fixed, metric);
  say(
    "curves-note",
    `${task.title}, ${metric.name} ${stage.replace("_", " ")}: ${metric.captions[stage]} A point's 95 % interval is a ` +
      "bootstrap's over examples and seeds; with one seed it is of the examples alone.",
  );
  const rows = lines
    .filter(({ strategy }) => !hidden.has(strategy))
    .flatMap(({ strategy, points }) =>
      points.map((point) => [
        strategy,
        point.amount,
        digits(point.x[axis.id]) + axis.unit,
        ...worded(at(point), metric),
        `${setting.place}${files(taskName, strategy, point).join("")}`,
      ]),
    );
  const reference = (value) => [value.name, DASH, DASH, ...worded(value, metric), DASH];
  const heads = ["strategy", "amount", axis.label, "mean", "sd", "95 % interval", "seeds", "examples", "files"];
  document.querySelector("#numbers .scroll").replaceChildren(plainTable(heads, [...fixed.map(reference), ...rows]));
}

function interval(value, metric) {
  return value.interval ? value.interval.map((end) => number(metric, end)).join(" to ") : null;
}

function worded(value, metric) {
  const sd = value.n > 1 ? number(metric, value.sd) : DASH;
  return [number(metric, value.mean), sd, interval(value, metric) ?? DASH, String(value.n), String(value.examples)];
}

// The folder, and the names of the results of all seeds in one word.
function files(taskName, strategy, { key, seeds }) {
  const several = seeds.length > 9 ? "*" : `{${seeds.join(",")}}`;
  const listed = seeds.length === 1 ? seeds[0] : several;
  return [`${taskName}/${strategy}/`, `${key}_seed${listed}.json`];
}

function hover(strategy, point, value, metric, axis, taskName) {
  const spread = value.n > 1 ? ` ± ${number(metric, value.sd)} (sd)` : "";
  const bounds = interval(value, metric);
  return [
    `<b>${strategy}</b>, ${point.amount} (${digits(point.x[axis.id])}${axis.unit})`,
    `mean ${number(metric, value.mean)}${spread}`,
    bounds ? `95 % interval ${bounds}` : "no interval known",
    `n = ${counted(value.n, "seed")}, ${counted(value.examples, "example")}`,
    ...(value.undefined ? [`${value.undefined} undefined and left out`] : []),
    ...files(taskName, strategy, point),
  ].join("<br>");
}

// Horizontal lines of the dense model and of the baseline, with bands of ± 1 sd.
function references(fixed, scale) {
  const { ink } = colors();
  return fixed.flatMap(({ mean, sd, n, dash }) => {
    const across = { xref: "paper", x0: 0, x1: 1, layer: "between" };
    const line = { color: ink, width: 1.2, dash };
    const band = { ...across, type: "rect", y0: scale * (mean - sd), y1: scale * (mean + sd), line: { width: 0 } };
    return [
      { ...across, type: "line", y0: scale * mean, y1: scale * mean, line },
      ...(n > 1 ? [{ ...band, fillcolor: ink, opacity: 0.1 }] : []),
    ];
  });
}

function drawLegend(strategies, hidden, fixed, metric) {
  const { ink } = colors();
  const focused = document.activeElement?.dataset.strategy;
  const set = (names) => {
    choose("off", [...names].filter(Boolean).join(","));
    show();
  };
  const all = element("button", { type: "button", "data-strategy": "*" }, "all");
  all.onclick = () => set([]);
  const none = element("button", { type: "button", "data-strategy": "-" }, "none");
  none.onclick = () => set(strategies);
  const buttons = strategies.map((strategy) => {
    const pressed = String(!hidden.has(strategy));
    const attributes = { type: "button", "aria-pressed": pressed, "data-strategy": strategy };
    const button = element("button", attributes, swatch(data.looks[strategy]), strategy);
    button.onclick = () => set(hidden.has(strategy) ? [...hidden].filter((n) => n !== strategy) : [...hidden, strategy]);
    return button;
  });
  const lines = fixed.map(({ name, mean, dash }) =>
    element("span", {}, swatch({ color: ink, dark: ink, dash }), `${name} ${number(metric, mean)}`),
  );
  const legend = document.querySelector(".legend");
  legend.replaceChildren(...buttons, all, none, ...lines);
  [...legend.children].find((button) => button.dataset.strategy === focused)?.focus();
}

function swatch(look) {
  const color = darkMode.matches ? look.dark : look.color;
  const make = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const svg = make("svg", { viewBox: "-20 -9 40 18", width: 40, height: 18, "aria-hidden": "true" });
  const dash = look.dash === "solid" ? "none" : look.dash.replaceAll("px", "");
  svg.append(make("line", { x1: -20, x2: 20, stroke: color, "stroke-width": 2, "stroke-dasharray": dash }));
  const fill = look.filled ? color : colors().paper;
  if (look.path) svg.append(make("path", { d: look.path, fill, stroke: color, "stroke-width": 1.4 }));
  return svg;
}
