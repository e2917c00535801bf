"use strict";
// The cells of one task and metric, one row each: sorted by its heads, filtered by words.

let table = null;
let tabled = "";

function drawTable({ setting, task, taskName, metric }) {
  const wanted = [setting.label, taskName, metric.id].join();
  if (wanted === tabled) return;
  tabled = wanted;
  table?.destroy();
  const host = document.getElementById("cells-table");
  host.replaceChildren();
  const text = DataTable.render.text();
  const numeric = (form) => (value, type) => (type === "display" ? (value === null ? "undefined" : form(value)) : value);
  const percent = numeric((value) => value.toFixed(1));
  const value = numeric((found) => number(metric, found));
  const columns = [
    { data: "strategy", title: "strategy", render: text },
    { data: { _: "amount", sort: "asked", type: "asked" }, title: "amount", render: text },
    { data: "seed", title: "seed", type: "num" },
    { data: "keep", title: "kept (%)", type: "num", render: percent },
    { data: "compression", title: "compression", type: "num", render: numeric((found) => found.toFixed(2)) },
    { data: "multiply_adds", title: "multiply-adds (%)", type: "num", render: percent },
    { data: "dense", title: "dense", type: "num", render: value },
    { data: "before_retraining", title: "before retraining", type: "num", render: value },
    { data: "after_retraining", title: "after retraining", type: "num", render: value },
    { data: "file", title: "result file", render: text },
  ];
  const [sorted, direction] = (view.get("sort") ?? "").split(".");
  const place = columns.findIndex(({ title }) => title === sorted);
  table = new DataTable(host, {
    data: rowsOf(setting, task, taskName, metric),
    columns,
    order: place < 0 ? [] : [[place, direction === "desc" ? "desc" : "asc"]],
    search: { search: view.get("find") ?? "" },
    pageLength: 25,
    autoWidth: false,
    deferRender: true,
    language: { search: "filter", lengthMenu: "_MENU_ rows", info: "_START_ to _END_ of _TOTAL_ cells" },
  });
  table.on("search", () => choose("find", table.search()));
  table.on("order", () => {
    const [first] = table.order();
    choose("sort", first?.[1] ? `${columns[first[0]].title}.${first[1]}` : "");
  });
  say("cells-note", `${task.title}: ${metric.label}; every word of the filter must occur in a row.`);
}

function rowsOf(setting, task, taskName, metric) {
  const { cells } = task;
  return cells.seed.map((seed, i) => {
    const strategy = task.lines[cells.strategy[i]].strategy;
    const row = { strategy, seed, file: `${setting.place}${taskName}/${strategy}/${cells.amount[i]}_seed${seed}.json` };
    for (const name of ["amount", "asked", "keep", "compression", "multiply_adds"]) row[name] = cells[name][i];
    for (const [stage, values] of Object.entries(cells.metrics[metric.id])) row[stage] = values[i];
    return row;
  });
}
