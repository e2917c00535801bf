"""What each model lost on each example: the raw material of every paired comparison."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shrinkbench_bert.analysis.paired import difference
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.metrics import METRICS
from shrinkbench_bert.packing import unpack_numbers
from shrinkbench_bert.store import Evaluation, Result
from shrinkbench_bert.tasks import TASKS

Array = NDArray[np.float64]
DENSE = "dense"


def _wrong(labels: Array, predictions: Array) -> Array:
    return (predictions != labels) * 1.0


def _squared_error(labels: Array, predictions: Array) -> Array:
    return (predictions - labels) ** 2


def _from_perfect_correlation(labels: Array, predictions: Array) -> Array:
    """Share 1 - MCC out among the examples: its value plus the influence of each on it, which sum to 0.

    To first order the mean of these numbers has the sampling error of the coefficient itself (the
    infinitesimal jackknife: Jaeckel 1972; Efron 1982, chapter 6). MCC is that of one-hot x and y, 0 for a
    constant: cov(x, y) / sqrt(cov(x, x) cov(y, y)) (Gorodkin 2004).
    """
    classes = np.union1d(labels, predictions)
    x, y = ((values[:, None] == classes) * 1.0 for values in (labels, predictions))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    xy, xx, yy = (np.sum(product, axis=1) for product in (x * y, x * x, y * y))
    spread = np.sqrt(xx.mean() * yy.mean())
    if spread == 0:
        return np.ones(len(labels))
    mcc = xy.mean() / spread
    return 1 - xy / spread + mcc / 2 * (xx / xx.mean() + yy / yy.mean() - 2)


_LOSSES: dict[str, Callable[[Array, Array], Array]] = {
    "accuracy": _wrong,
    "mse": _squared_error,
    "mcc": _from_perfect_correlation,
}
"""By metric: from labels and predictions, both (examples,), to what each example costs, (examples,)."""


@dataclass(frozen=True)
class Sample:
    """What was evaluated of one task at one amount by one metric, after retraining, on the same examples."""

    task: str
    metric: str
    amount: str
    keep: float
    """Fraction of the prunable weights kept, as asked for or as reached."""
    losses: dict[str, dict[int, Array]]
    """By strategy (and `dense`) and seed, per example, shape (examples,): 1 = wrong and 0 for accuracy, the
    squared error for MSE, a share of 1 - MCC. Its mean is 1 - accuracy, the MSE, or 1 - MCC."""
    baseline: float
    """Mean loss of the majority class, or of the mean label."""
    majority: dict[str, dict[int, float]]
    """For a classification, by strategy and seed: the share of examples given their most frequent
    prediction; 1.0 says that the model answers the same to everything."""
    heads: float | None = None
    """Fraction of the attention heads removed; None where weights were pruned."""
    majority_losses: Array | None = None
    """Of the majority class, per example; None but for accuracy."""

    @property
    def strategies(self) -> list[str]:
        """All but the dense model."""
        return [name for name in self.losses if name != DENSE]

    def seeds(self, names: Iterable[str]) -> list[int]:
        """Seeds that all of these have."""
        return sorted(set.intersection(*(set(self.losses[name]) for name in names)))

    def stack(self, names: list[str]) -> Array:
        """Losses on the seeds that all have: (strategies, seeds, examples)."""
        seeds = self.seeds(names)
        return np.array([[self.losses[name][seed] for seed in seeds] for name in names])

    def paired(self, a: str, b: str) -> Array:
        """Losses of `a` minus those of `b` on the seeds that both have: (seeds, examples)."""
        own, other = self.stack([a, b])
        return own - other

    @property
    def dense_gain(self) -> float:
        """How much less the dense model loses than the baseline; 0 where the 95 % interval of it holds 0.

        The baseline is taken as known.
        """
        gain = difference(self.baseline - self.stack([DENSE]), [1])
        return gain.mean if gain.low > 0 else 0.0


def samples(results: Iterable[Result]) -> list[Sample]:
    """Sort results into samples by their task's metric: tasks in their table's order, mildest amounts first.

    Raises UserError if predictions are damaged, or if the results of a task are of different examples.
    """
    return _samples(results, lambda group: [TASKS[group[0].cell.task].metric])


def samples_by_metric(results: Iterable[Result]) -> list[Sample]:
    """Sort results into samples by each of `comparable_metrics`. Order and errors as those of `samples`."""
    return _samples(results, comparable_metrics)


def comparable_metrics(results: Sequence[Result]) -> list[str]:
    """List the metrics that all these results of one task have and that every example has a share of.

    The task's own, which papers plot, comes first.
    """
    return [
        metric
        for metric in TASKS[results[0].cell.task].metrics
        if metric in _LOSSES and all(r.baseline.metrics.get(metric) is not None for r in results)
    ]


def _samples(results: Iterable[Result], metrics: Callable[[list[Result]], list[str]]) -> list[Sample]:
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        groups[result.cell.task, result.cell.amount].append(result)
    order = list(TASKS)
    found = [_sample(group, metric) for group in groups.values() for metric in metrics(group)]
    return sorted(found, key=lambda s: (order.index(s.task), TASKS[s.task].metrics.index(s.metric), -s.keep))


def _sample(results: list[Result], metric: str) -> Sample:
    first = results[0]
    task = TASKS[first.cell.task]
    losses: dict[str, dict[int, Array]] = defaultdict(dict)
    majority: dict[str, dict[int, float]] = defaultdict(dict)
    for result in results:
        if result.fingerprints.data != first.fingerprints.data:
            raise UserError(
                f"{result.cell}: its examples are not those of {first.cell} (fingerprints.data differ): "
                "they cannot be compared example by example; keep them in folders of their own"
            )
        cell, labels = result.cell, _labels(result)
        for name, evaluation in ((cell.strategy, result.after_retraining), (DENSE, result.dense)):
            predictions = _predictions(evaluation, str(cell))
            losses[name][cell.seed] = _LOSSES[metric](labels, predictions)
            if not task.regression:
                most = np.unique(predictions, return_counts=True)[1].max()
                majority[name][cell.seed] = float(most / len(labels))
    baseline = _loss(first.baseline, metric)
    keeps = [r.cell.keep or r.size.keep for r in results]
    return Sample(
        task.name,
        metric,
        first.cell.amount,
        float(np.median(keeps)),
        dict(losses),
        baseline,
        dict(majority),
        first.cell.heads,
        _majority_losses(_labels(first), baseline) if metric == "accuracy" else None,
    )


def _labels(result: Result) -> Array:
    return unpack_numbers(result.labels, result.after_retraining.n)


def _majority_losses(labels: Array, baseline: float) -> Array:
    """What the majority class of train loses: that is the class which loses as much as the baseline."""
    wrong = [(labels != label) * 1.0 for label in np.unique(labels)]
    return min(wrong, key=lambda losses: abs(float(losses.mean()) - baseline))


def _predictions(evaluation: Evaluation, cell: str) -> Array:
    if evaluation.predictions is None:
        raise UserError(
            f"{cell}: its predictions were not stored; move the result away and run the grid again"
        )
    return unpack_numbers(evaluation.predictions, evaluation.n)


def _loss(evaluation: Evaluation, metric: str) -> float:
    value = evaluation.metrics[metric]
    assert value is not None  # accuracy, MSE and MCC are always defined
    return 1 - value if METRICS[metric].greater_is_better else value
