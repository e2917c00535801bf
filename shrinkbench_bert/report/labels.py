"""How numbers, amounts, stages and samples are worded, in figures and tables alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from shrinkbench_bert.analysis.paired import LEVEL
from shrinkbench_bert.metrics import METRICS
from shrinkbench_bert.tasks import Task

MINI_GLUE = "mini-GLUE (synthetic stand-in)"
TIMES = "\N{MULTIPLICATION SIGN}"
DASH = "\N{EN DASH}"
_PERCENT = {"accuracy"}


@dataclass(frozen=True)
class Header:
    """What all results of one grid have in common, and how their amounts were given."""

    grid: str
    model: str
    layers: int | None
    source: str
    protocol: str
    by_compression: bool
    scope: str | None = None
    """Of heads: `layer`, or None."""
    rounds: int | None = None
    """In which it was pruned; None for one shot."""

    @classmethod
    def of(cls, frame: pd.DataFrame, by_compression: bool) -> Self:
        """Read it from the first row of a checked frame."""
        row: dict[Any, Any] = frame.iloc[0].to_dict()
        found = {key: value for key, value in row.items() if not pd.isna(value)}
        layers, rounds = (
            None if value is None else int(value)
            for value in (found.get("layers"), found.get("prune_rounds", found.get("head_rounds")))
        )
        return cls(
            row["grid"],
            row["model"],
            layers,
            row["source"],
            row["protocol"],
            by_compression,
            found.get("head_scope"),
            rounds,
        )

    def parts(self) -> list[str]:
        """Say it in words, one phrase each."""
        return [
            f"grid {self.grid}" if self.grid else "no grid",
            f"model {model_label(self.model, self.layers)}",
            f"protocol {self.protocol}",
            f"data {source_label(self.source)}",
            *(["the same share of every layer"] if self.scope else []),
            *([f"pruned in {self.rounds} rounds"] if self.rounds else []),
        ]

    def amount(self, requested: float) -> str:
        """Word an amount: `14.7 %` kept, or `3.5×` compression."""
        return f"{requested:.6g}{TIMES}" if self.by_compression else f"{100 * requested:.6g} %"

    def requested(self, points: pd.DataFrame) -> list[float]:
        """List the amounts of some points, from the mildest to the hardest."""
        return sorted(points["requested"].dropna().unique(), reverse=not self.by_compression)

    def reached(self, points: pd.DataFrame) -> str:
        """Word the other measure of the points of one amount; a range where strategies differ."""
        if self.by_compression:
            return _span(*(f"{100 * k:.1f}" for k in _ends(points["keep"]))) + " %"
        return _span(*(f"{c:.2f}" for c in _ends(points["compression"]))) + TIMES

    @property
    def amounts(self) -> str:
        """What `amount` is."""
        return "compression of the whole model" if self.by_compression else "prunable weights kept"

    @property
    def other_amounts(self) -> str:
        """What `reached` is."""
        return "prunable weights kept" if self.by_compression else "compression of the whole model"


def model_label(model: str, layers: int | None) -> str:
    """Name a model and how much of it is used: `minilm (first 3 layers)`."""
    return _short(model) + (f" (first {counted(layers, 'layer')})" if layers else "")


def source_label(source: str) -> str:
    """Name where data comes from; of mini-GLUE also that it is synthetic."""
    return MINI_GLUE if _short(source) == "mini-glue" else _short(source)


def machine_label(device: str, processor: str) -> str:
    """Name what computed: the processor, or the GPU."""
    return processor if device == "cpu" else device


def is_percent(metric: str) -> bool:
    """Whether a metric is shown as a percentage."""
    return metric in _PERCENT


def number(metric: str, value: float) -> str:
    """Print a value or a standard deviation of a metric: 81.3 (percent) or 0.523."""
    return f"{100 * value:z.1f}" if is_percent(metric) else f"{value:z.3f}"


def difference(metric: str, value: float, low: float, high: float) -> str:
    """Print a difference of a metric with its sign and its interval: +1.2 [-0.3, 2.7] (percent)."""
    shown, low_end, high_end = (number(metric, one) for one in (value, low, high))
    return f"{'' if shown.startswith('-') else '+'}{shown} [{low_end}, {high_end}]"


def metric_label(metric: str) -> str:
    """Name a metric with its unit and direction."""
    unit = " (%)" if is_percent(metric) else ""
    better = "higher" if METRICS[metric].greater_is_better else "lower"
    return f"{METRICS[metric].label}{unit}, {better} is better"


def stage_label(stage: str) -> str:
    """Name a stage in words: `after retraining`."""
    return stage.replace("_", " ")


def baseline_label(task: Task) -> str:
    """Name what a model without input would predict."""
    return "mean label" if task.regression else "majority class"


def counted(n: int, noun: str) -> str:
    """Count things: `1 seed`, `1,500 examples`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def seeds(points: pd.DataFrame) -> tuple[int, int]:
    """Fewest and most seeds behind the points that have a value; (0, 0) if none has."""
    n = points.loc[points["n_seeds"] > 0, "n_seeds"]
    return (int(n.min()), int(n.max())) if len(n) else (0, 0)


def seeds_label(points: pd.DataFrame) -> str:
    """Word the number of seeds: `3 seeds`, `1 to 3 seeds`."""
    fewest, most = seeds(points)
    return counted(most, "seed") if fewest == most else f"{fewest} to {most} seeds"


def examples_label(points: pd.DataFrame) -> str:
    """Word the number of examples: `1,500 validation examples`."""
    fewest, most = (int(n) for n in _ends(points["n_examples"]))
    text = counted(most, "validation example")
    return text if fewest == most else f"{fewest:,} to {text}"


def matrices_label(points: pd.DataFrame) -> str:
    """Word over how many `tensors` an IoU is averaged: `36 to 37 weight matrices`."""
    return f"{between(points['tensors'], '{:.0f}'.format)} weight matrices"


def between(values: pd.Series[float], word: Callable[[float], str]) -> str:
    """Word the smallest and the largest of some values: `36 to 37`, or `37` where they read the same."""
    low, high = (word(end) for end in _ends(values))
    return low if low == high else f"{low} to {high}"


def undefined_label(points: pd.DataFrame) -> str:
    """Word how many results have no value; empty if all have one."""
    undefined = int(points["n_undefined"].sum())
    total = undefined + int(points["n_seeds"].sum())
    return f"{undefined} of {counted(total, 'result')} undefined and left out" if undefined else ""


def sentence(phrases: Iterable[str]) -> str:
    """Make one sentence of phrases."""
    return f"{'; '.join(phrases)}."


def sentences(found: Iterable[str]) -> str:
    """Make a sentence of each; empty ones are left out."""
    return " ".join(f"{one[0].upper()}{one[1:]}." for one in found if one)


def asterisk(family: str) -> str:
    """Say what an asterisk beside a difference means; `family`: the tests that p is corrected for."""
    return (
        "asterisk: the two differ (paired bootstrap over examples and seeds, variances over seeds moderated, "
        f"Student's t; p < {LEVEL} after Holm's correction for {family})"
    )


ONE_SEED = (
    "one seed: the intervals are of the examples alone; another seed may do otherwise, so that nothing has "
    "an asterisk there"
)


def figure_title(task: Task, metric: str, stage: str) -> str:
    """Name a figure: `SST-2: accuracy after retraining`."""
    return f"{task.title}: {METRICS[metric].label} {stage_label(stage)}"


def task_title(task: Task, metric: str) -> str:
    """Name a task, and the metric if it is not the task's first: `CoLA by Matthews correlation`."""
    return task.title + ("" if metric == task.metric else f" by {METRICS[metric].label}")


def caption(points: pd.DataFrame, task: Task, stage: str, *, dodged: bool = False) -> list[str]:
    """Word what stands behind the points: seeds, error bars, examples, what is left out.

    `dodged`: whether the markers of one amount are set apart.
    """
    lines = points[points["stage"] == stage]
    fewest, most = seeds(lines)
    if most > 1:
        bars = " (none for 1 seed)" if fewest == 1 else ""
        phrases = [f"mean of {seeds_label(lines)}", f"bars: ± 1 standard deviation{bars}"]
    elif most == 1:
        phrases = ["1 seed: no spread can be shown"]
    else:
        phrases = ["no result has a value"]
    phrases.append(examples_label(lines))
    references = points[points["stage"].isin(["dense", "baseline"])]
    if references["n_seeds"].gt(1).any():
        phrases.append("grey bands: the same for the horizontal lines")
    if undefined := undefined_label(lines):
        phrases.append(undefined)
    if references.loc[references["stage"] == "baseline", "mean"].isna().all():
        phrases.append(f"no line for the {baseline_label(task)}, for which it is undefined")
    if dodged and lines["strategy"].nunique() > 1:
        phrases.append("markers of one amount are set side by side")
    return phrases


def loss(metric: str, value: float) -> str:
    """Word a difference of losses: MSE and MCC as they are, accuracy in points."""
    return f"{number(metric, value)} {_unit(metric)}"


def margin(metric: str, value: float) -> str:
    """Word a margin of losses by two significant digits, so that none reads as 0 that is not."""
    return f"{100 * value if is_percent(metric) else value:.2g} {_unit(metric)}"


def loss_interval(metric: str, value: float, low: float, high: float) -> str:
    """Word a difference of losses with its interval."""
    scale, digits = (100, 1) if is_percent(metric) else (1, 3)
    return f"{loss(metric, value)}{brackets(scale * low, scale * high, digits)}"


def _unit(metric: str) -> str:
    return "points" if is_percent(metric) else metric.upper()


def brackets(low: float, high: float, digits: int = 3) -> str:
    """Word an interval; empty where there is none."""
    return "" if np.isnan(low) else f" [{low:z.{digits}f}, {high:z.{digits}f}]"


def _ends(values: pd.Series[float]) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low}{DASH}{high}"


def _short(name: str) -> str:
    # A folder's last name tells it apart; a hub id is short enough to stand whole.
    return name if name.count("/") <= 1 else name.rstrip("/").rsplit("/", 1)[-1]
