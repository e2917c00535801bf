"use strict";
// Figures 9 to 12, and the maps of attention heads.

const numbered = (names) => names.map((_, i) => String(i + 1));
const decimals = (values) => values.map((row) => row.map((v) => (v === null ? "" : v.toFixed(2).replace(/^0\./, "."))));

// A square of numbers, one row and column per strategy; rows are named, columns numbered.
function drawSquare(id, names, values, { text = decimals(values), ...trace }) {
  const rows = names.map((name, i) => `${name} ${i + 1}`);
  const labels = { xgap: 1, ygap: 1, text, texttemplate: "%{text}", textfont: { size: 11 } };
  draw(id, [{ type: "heatmap", x: numbered(names), y: rows, z: values, ...labels, ...trace }], {
    height: 90 + 32 * names.length,
    xaxis: { type: "category", side: "top", showgrid: false },
    yaxis: { autorange: "reversed", showgrid: false },
  });
}

function drawMasks({ setting, task }) {
  const { masks } = task;
  document.getElementById("masks").hidden = Boolean(task.heads);
  document.getElementById("masks-shown").hidden = !masks;
  const missing = counted(setting.masks_missing, "cell");
  const [left, none] = [`The masks of ${missing} are not there and are left out.`, "No masks of two strategies are known."];
  say("masks-none", masks ? (setting.masks_missing ? left : "") : none);
  if (!masks) return;
  const amount = offer("amount", masks.amounts.map(({ id, label }) => [id, label]));
  const of = offer("of", [["kept", "kept"], ["pruned", "pruned"]]);
  const statistic = offer("statistic", [["mean", "mean"], ["min", "minimum"]]);
  const matrix = masks.matrices[of][statistic][amount];
  const strategies = masks.strategies[amount];
  drawSquare("matrix-plot", strategies, matrix, {
    colorscale: "Cividis",
    zmin: 0,
    zmax: 1,
    hovertext: matrix.map((row, i) =>
      row.map((_, j) => `${strategies[i]}, ${strategies[j]}<br>${j > i ? "of independent masks" : "IoU"}`),
    ),
    hovertemplate: "%{hovertext}: %{z:.3f}<extra></extra>",
    hoverongaps: false,
  });
  say(
    "matrix-note",
    `Below the diagonal: IoU of the ${of} weights, ${masks.spread[of]}. Above it: what independent masks of the ` +
      "same densities would reach. Over weight matrices; biases are left out.",
  );
  drawLayers(masks, amount, of);
}

function drawLayers({ pairs }, amount, of) {
  document.getElementById("layers-shown").hidden = !pairs.length;
  if (!pairs.length) return;
  const pair = pairs[Number(offer("pair", pairs.map(({ title }, i) => [String(i), title])))];
  const { kinds, chance } = pair.curves[of][amount];
  const layers = chance.map((_, i) => i + 1);
  const { ink } = colors();
  const traces = Object.entries(kinds).map(([kind, { mean, sd }]) => ({
    ...drawn(data.kinds[kind]),
    name: kind,
    x: layers,
    y: mean,
    // An IoU is between 0 and 1, and so is what is drawn of its spread.
    error_y: {
      array: sd.map((value, i) => Math.min(value ?? 0, 1 - mean[i])),
      arrayminus: sd.map((value, i) => Math.min(value ?? 0, mean[i])),
      thickness: 1,
      width: 3,
    },
    hovertemplate: `${kind}, layer %{x}: %{y:.3f}<extra></extra>`,
  }));
  const line = { color: ink, dash: "dash", width: 1.4 };
  traces.push({ name: "independent masks", x: layers, y: chance, mode: "lines", line, hoverinfo: "y+name" });
  const [y0, y1] = pair.printed.map((end, i) => end + (i ? 0.002 : -0.002));
  draw("layers-plot", traces, {
    height: 480,
    xaxis: { title: { text: "layer" }, tickvals: layers },
    yaxis: { title: { text: `IoU of the ${of} weights` }, range: [-0.03, 1.03] },
    showlegend: true,
    shapes: [{ type: "rect", xref: "paper", x0: 0, x1: 1, y0, y1, fillcolor: "#E69F00", opacity: 0.4, line: { width: 0 } }],
  });
  const printed = [...new Set(pair.printed.map((end) => (100 * end).toFixed(0)))].join(" to ");
  say(
    "layers-note",
    `${pair.seeds > 1 ? `Mean of ${counted(pair.seeds, "seed")}, bars: ± 1 standard deviation` : "1 seed: no spread can be shown"}. ` +
      `Orange: the ${printed} % that the paper prints for BERT-base on SST-2.`,
  );
}

function drawHeads({ task }) {
  const { heads } = task;
  document.getElementById("heads").hidden = !heads;
  if (!heads) return;
  const strategy = offer("scored", heads.strategies.map((name) => [name, name]));
  const { scores, removed, seeds } = heads.maps[strategy];
  const there = heads.fractions.filter(({ id }) => id in removed);
  const usual = there.some(({ id }) => id === heads.usual) ? heads.usual : there[0].id;
  const fraction = offer("fraction", there.map(({ id, label }) => [id, label]), usual);
  const { ink, paper } = colors();
  const map = (id, z, title, more) =>
    draw(id, [{ type: "heatmap", z, colorbar: { thickness: 10, title: { text: title, side: "right" } }, ...more }], {
      height: 120 + 24 * z.length,
      xaxis: { title: { text: "head" }, dtick: 1, showgrid: false },
      yaxis: { title: { text: "layer" }, dtick: 1, autorange: "reversed", showgrid: false },
    });
  const place = "layer %{y}, head %{x}: ";
  map("scores-plot", scores, "score", { colorscale: "Cividis", hovertemplate: `${place}%{z:.4g}<extra></extra>` });
  map("removed-plot", removed[fraction], "share of seeds", {
    colorscale: [[0, paper], [1, ink]],
    zmin: 0,
    zmax: 1,
    hovertemplate: `${place}removed in %{z:.0%} of seeds<extra></extra>`,
  });
  say(
    "maps-note",
    `Left: ${strategy}'s scores of the dense model's heads, ${seeds > 1 ? "mean of " : ""}${counted(seeds, "seed")}; the lowest ` +
      "are removed first. Right: the share of seeds in which a head is removed. Both counted from 0.",
  );
  drawAgreement(heads);
}

function drawAgreement({ strategies, correlation, cost, machine }) {
  const { mean, sd, seeds } = correlation;
  const text = mean.map((row, i) => row.map((v, j) => (v === null ? "" : v.toFixed(2) + (sd && i !== j ? `<br>± ${sd[i][j]?.toFixed(2)}` : ""))));
  drawSquare("correlation-plot", strategies, mean, {
    text,
    colorscale: "RdBu",
    zmin: -1,
    zmax: 1,
    hoverinfo: "text+y",
  });
  say("correlation-note", `Spearman's rank correlation of head scores, ${sd ? "mean ± sample standard deviation of " : ""}${counted(seeds, "seed")}.`);
  const traces = cost.map(({ label, x, y, spread }, i) => ({
    ...drawn(data.lines[i % data.lines.length]),
    name: label,
    x,
    y,
    error_y: { array: spread, thickness: 1, width: 3, visible: spread.length > 0 },
    hovertemplate: `${label}, %{x:.3g} % removed: %{y:.1f} %<extra></extra>`,
  }));
  draw("cost-plot", traces, {
    height: 500,
    xaxis: { title: { text: "attention heads removed (%)" } },
    yaxis: { title: { text: "of the dense model's (%)" }, rangemode: "tozero" },
    showlegend: true,
  });
  const measured = `Latency: medians on ${machine}, bars as long as the interquartile range.`;
  say("cost-note", machine ? measured : "No latency has been measured (shrinkbench-bert latency).");
}
