"use strict";
// Draws what is chosen, at the start and after every choice.

function show() {
  const labels = data.settings.map(({ label }) => label);
  const chosen = labels.indexOf(offer("setting", labels.map((label) => [label, label])));
  const setting = data.settings[chosen];
  const taskName = offer("task", Object.entries(setting.tasks).map(([name, { title }]) => [name, title]));
  const task = setting.tasks[taskName];
  const metricName = offer("metric", task.metrics.map(({ id, name }) => [id, name]));
  const metric = task.metrics.find(({ id }) => id === metricName);
  const stage = offer("stage", Object.keys(metric.captions).map((name) => [name, name.replace("_", " ")]));
  const axisName = offer("x", task.axes.map(({ id, label }) => [id, label]), task.asked);
  const axis = task.axes.find(({ id }) => id === axisName);
  const shown = { setting, task, taskName, metric, stage, axis };
  say("words", setting.words);
  for (const part of document.querySelectorAll("[data-setting]")) part.hidden = part.dataset.setting !== String(chosen);
  drawCurves(shown);
  drawTable(shown);
  drawMasks(shown);
  drawHeads(shown);
}

document.addEventListener("change", ({ target }) => {
  if (!target.matches("select[name]") || target.closest("#cells")) return;
  choose(target.name, target.value);
  show();
});
addEventListener("hashchange", () => {
  view = new URLSearchParams(location.hash.slice(1));
  tabled = "";
  show();
});
darkMode.addEventListener("change", show);
show();
