"""Task metrics and the trivial baselines that every one of them stands beside."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sk

from shrinkbench_bert.tasks import Task

Array = NDArray[np.float64]


def _correlation(kind: Callable[..., object]) -> Callable[[Array, Array], float | None]:
    def correlate(labels: Array, predictions: Array) -> float | None:
        # A constant has no correlation; JSON has no NaN.
        if np.ptp(labels) == 0 or np.ptp(predictions) == 0:
            return None
        return float(kind(labels, predictions).statistic)  # type: ignore[attr-defined]

    return correlate


@dataclass(frozen=True)
class Metric:
    """How a metric is computed, shown and compared."""

    label: str
    compute: Callable[[Array, Array], float | None]
    """(labels, predictions), both of shape (n,), to a number; None where it is undefined."""
    greater_is_better: bool = True


METRICS = {
    "accuracy": Metric("accuracy", lambda y, p: float(sk.accuracy_score(y, p))),
    "mcc": Metric("Matthews correlation", lambda y, p: float(sk.matthews_corrcoef(y, p))),
    "mse": Metric("mean squared error", lambda y, p: float(sk.mean_squared_error(y, p)), False),
    "pearson": Metric("Pearson correlation", _correlation(stats.pearsonr)),
    "spearman": Metric("Spearman correlation", _correlation(stats.spearmanr)),
}


def evaluate_predictions(
    task: Task, labels: Sequence[float], predictions: Sequence[float]
) -> dict[str, float | None]:
    """Compute every metric of the task; both sequences have length n, in the label's unit."""
    y, p = np.asarray(labels, np.float64), np.asarray(predictions, np.float64)
    return {name: METRICS[name].compute(y, p) for name in task.metrics}


def baseline(task: Task, train_labels: Sequence[float], labels: Sequence[float]) -> dict[str, float | None]:
    """Score the constant that a model without input would predict.

    The constant is the majority class, or the mean label, of the training split.
    """
    train = np.asarray(train_labels, np.float64)
    constant = train.mean() if task.regression else float(stats.mode(train).mode)
    return evaluate_predictions(task, labels, [constant] * len(labels))
