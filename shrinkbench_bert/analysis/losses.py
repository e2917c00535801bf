"""What each model lost on each example: the raw material of every paired comparison."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shrinkbench_bert.errors import UserError
from shrinkbench_bert.metrics import METRICS
from shrinkbench_bert.packing import unpack_numbers
from shrinkbench_bert.store import Evaluation, Result
from shrinkbench_bert.tasks import TASKS

Array = NDArray[np.float64]
DENSE = "dense"


@dataclass(frozen=True)
class Sample:
    """All that was evaluated of one task at one amount, after retraining, on the same examples."""

    task: str
    amount: str
    keep: float
    """Fraction of the prunable weights kept, as asked for or as reached."""
    losses: dict[str, dict[int, Array]]
    """By strategy (and `dense`) and seed, per example, shape (examples,): 0 or 1 for a classification
    (1 = wrong), the squared error for a regression. Its mean is 1 - accuracy, or the MSE."""
    baseline: float
    """Mean loss of the majority class, or of the mean label."""
    majority: dict[str, dict[int, float]]
    """For a classification, by strategy and seed: the share of examples given their most frequent
    prediction; 1.0 says that the model answers the same to everything."""
    heads: float | None = None
    """Fraction of the attention heads removed; None where weights were pruned."""
    majority_losses: Array | None = None
    """Of the majority class, per example; None for a regression."""

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

    @property
    def dense_advantage(self) -> float:
        """How much less the dense model loses than the baseline does, on average."""
        return self.baseline - float(np.mean([loss.mean() for loss in self.losses[DENSE].values()]))


def samples(results: Iterable[Result]) -> list[Sample]:
    """Sort results into samples, tasks in their table's order, amounts from the mildest to the hardest.

    Raises UserError if predictions are damaged, or if the results of a task are of different examples.
    """
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        groups[result.cell.task, result.cell.amount].append(result)
    order = list(TASKS)
    found = [_sample(group) for group in groups.values()]
    return sorted(found, key=lambda sample: (order.index(sample.task), -sample.keep))


def _sample(results: list[Result]) -> Sample:
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
            wrong = predictions != labels
            losses[name][cell.seed] = (predictions - labels) ** 2 if task.regression else wrong * 1.0
            if not task.regression:
                most = np.unique(predictions, return_counts=True)[1].max()
                majority[name][cell.seed] = float(most / len(labels))
    baseline = _loss(first.baseline, task.metric)
    keeps = [r.cell.keep or r.size.keep for r in results]
    return Sample(
        task.name,
        first.cell.amount,
        float(np.median(keeps)),
        dict(losses),
        baseline,
        dict(majority),
        first.cell.heads,
        None if task.regression else _majority_losses(_labels(first), baseline),
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
    assert value is not None  # accuracy and MSE are always defined
    return 1 - value if METRICS[metric].greater_is_better else value
