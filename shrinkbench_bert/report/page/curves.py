"""The curves of figures 6 to 8, on every axis, and the cells behind them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import pandas as pd

from shrinkbench_bert.analysis.losses import DENSE, Sample, comparable_metrics, samples_by_metric
from shrinkbench_bert.analysis.paired import difference
from shrinkbench_bert.metrics import METRICS
from shrinkbench_bert.report import labels
from shrinkbench_bert.report.aggregate import REFERENCES, STAGES
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.page.axes import asked, places_of
from shrinkbench_bert.report.page.numbers import short
from shrinkbench_bert.report.style import order
from shrinkbench_bert.store import Result
from shrinkbench_bert.tasks import TASKS, Task

Point = tuple[str, str, str, str]
"""Metric, strategy (or `dense`), amount, stage."""


def curves(
    results: list[Result], points: pd.DataFrame, latencies: pd.DataFrame, header: Header, task: Task
) -> dict[str, Any]:
    """Collect what the page draws of one task.

    Args:
        results: of the task, in one setting.
        points: rows of the setting's long form, of all its tasks.
        latencies: `heads.summary.latency_frame` of its grid; may be empty.
        header: words its amounts.
        task: to draw.
    """
    points = points[points["task"] == task.name]
    intervals = dict(_intervals(results))
    places, axes = places_of(results, latencies)
    seeds: dict[tuple[str, str], list[int]] = {}
    for result in results:
        seeds.setdefault((result.cell.strategy, result.cell.amount), []).append(result.cell.seed)
    lines: dict[str, dict[str, Any]] = {name: {} for name in order(r.cell.strategy for r in results)}
    references: dict[str, dict[str, Any]] = {metric: {} for metric in task.metrics}
    for row in points.to_dict("records"):
        metric, stage, strategy, amount = row["metric"], row["stage"], row["strategy"], row["amount"]
        value = _value(row, intervals.get((metric, strategy, amount, stage)))
        if stage in REFERENCES:
            references[metric][stage] = value
            continue
        point = lines[strategy].setdefault(
            amount,
            {
                "amount": header.amount(row["requested"]),
                "key": amount,
                "seeds": sorted(seeds[strategy, amount]),
                **places[strategy, amount],
                "at": {},
            },
        )
        point["at"].setdefault(metric, {})[stage] = value
    return {
        "title": task.title,
        "baseline": labels.baseline_label(task),
        "metrics": [_metric(points, task, metric) for metric in task.metrics],
        "axes": [asdict(axis) for axis in axes],
        "asked": asked(results[0]),
        "lines": [{"strategy": name, "points": list(line.values())} for name, line in lines.items()],
        "references": references,
        "cells": _cells(results, list(lines), task),
    }


def _metric(points: pd.DataFrame, task: Task, metric: str) -> dict[str, Any]:
    part = points[points["metric"] == metric]
    return {
        "id": metric,
        "name": METRICS[metric].label,
        "label": labels.metric_label(metric),
        "percent": labels.is_percent(metric),
        "captions": {
            stage: labels.sentence(labels.caption(part, task, stage))
            for stage in STAGES
            if (part["stage"] == stage).any()
        },
    }


def _value(row: dict[Any, Any], interval: tuple[float, float] | None) -> dict[str, Any]:
    return {
        "mean": short(row["mean"]),
        "sd": short(row["sd"]),
        "interval": interval and [short(end) for end in interval],
        "n": row["n_seeds"],
        "undefined": row["n_undefined"],
        "examples": int(row["n_examples"]),
    }


def _intervals(results: list[Result]) -> Iterator[tuple[Point, tuple[float, float]]]:
    """Bound every point of one task, by the bootstrap over examples and seeds of `evidence.md`."""
    for stage in STAGES:
        # A sample is of what was evaluated after retraining; here also of what was before it.
        shown = (r.model_copy(update={"after_retraining": getattr(r, stage)}) for r in results)
        found = samples_by_metric(shown)
        for sample in found:
            for name in sample.strategies:
                yield (sample.metric, name, sample.amount, stage), _bounds(sample, name)
    for metric in comparable_metrics(results):
        most = max((s for s in found if s.metric == metric), key=lambda sample: len(sample.losses[DENSE]))
        yield (metric, DENSE, "", DENSE), _bounds(most, DENSE)


def _bounds(sample: Sample, name: str) -> tuple[float, float]:
    found = difference(sample.stack([name]), [1.0])
    if METRICS[sample.metric].greater_is_better:
        return 1 - found.high, 1 - found.low
    return found.low, found.high


def _cells(results: Iterable[Result], names: list[str], task: Task) -> dict[str, Any]:
    """Columns of numbers, one entry per cell; `strategy` counts the task's lines."""
    columns: dict[str, list[Any]] = {
        name: [] for name in ("strategy", "amount", "asked", "seed", "keep", "compression", "multiply_adds")
    }
    stages = ("dense", *STAGES)
    metrics = {metric: {stage: list[float | None]() for stage in stages} for metric in task.metrics}
    for result in results:
        cell, size = result.cell, result.size
        row = {
            "strategy": names.index(cell.strategy),
            "amount": cell.amount,
            "asked": getattr(cell, asked(result)),
            "seed": cell.seed,
            "keep": short(100 * size.keep),
            "compression": short(size.compression),
            "multiply_adds": short(100 / size.theoretical_speedup),
        }
        for name, value in row.items():
            columns[name].append(value)
        for metric, by_stage in metrics.items():
            for stage, values in by_stage.items():
                values.append(short(getattr(result, stage).metrics.get(metric)))
    return {**columns, "metrics": metrics}


def task_names(results: Iterable[Result]) -> list[str]:
    """List the tasks that some results are of, in their table's order."""
    found = {result.cell.task for result in results}
    return [name for name in TASKS if name in found]
