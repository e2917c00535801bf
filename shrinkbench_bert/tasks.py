"""The task table. Adding a GLUE-like task is one entry here."""

import math
from dataclasses import dataclass

from shrinkbench_bert.errors import UserError, unknown

# What `metrics.METRICS` has; it stands above this module.
_OF_CLASSES = ("accuracy", "mcc")
_OF_NUMBERS = ("mse", "pearson", "spearman")
_BY_EXAMPLE = ("accuracy", "mcc", "mse")
"""Metrics that can be shared out among examples, as every interval asks for."""


@dataclass(frozen=True)
class Task:
    """A GLUE data set with its head and metrics; all of it metadata.

    `classes = 1` means regression: the head is `top * sigmoid(logit)` with a mean squared error;
    more classes mean a softmax with cross-entropy.

    Raises:
        UserError: no class, a text that is not one column or two, a metric that is unknown or does not
            fit the labels, or a top that is no positive number.
    """

    name: str
    """Also the configuration name in `datasets.load_dataset(source, name)`."""
    title: str
    text: tuple[str, ...]
    """Columns fed to the tokenizer: one sentence, or a pair with segment ids."""
    classes: int
    metrics: tuple[str, ...]
    """Names in `metrics.METRICS`; the first is the one the papers plot."""
    figure: str
    """The number of this task's plot in the DeepCuts paper."""
    top: float = 1.0
    """Upper end of a regression label."""

    def __post_init__(self) -> None:
        where = f"task {self.name!r}"
        if not isinstance(self.text, tuple | list) or not 1 <= len(self.text) <= 2:
            raise UserError(f"{where}: text = {self.text!r}: a tuple of one or two column names is expected")
        if isinstance(self.classes, bool) or not isinstance(self.classes, int) or self.classes < 1:
            raise UserError(
                f"{where}: classes = {self.classes!r}: 1, a regression, or a larger whole number is expected"
            )
        if not 0 < self.top < math.inf:
            raise UserError(f"{where}: top = {self.top!r}: a positive number is expected")
        self._check_metrics(where)

    def _check_metrics(self, where: str) -> None:
        # A class is a number as well, but a number is no class.
        accepted = _OF_NUMBERS if self.regression else (*_OF_CLASSES, *_OF_NUMBERS)
        if not isinstance(self.metrics, tuple | list) or not self.metrics:
            raise UserError(f"{where}: metrics = {self.metrics!r}: a tuple of names is expected")
        for metric in self.metrics:
            if metric not in accepted:
                kind = "regression" if self.regression else "classification"
                raise UserError(f"{where}, a {kind}: {unknown('metric', metric, accepted)}")
        first = [name for name in accepted if name in _BY_EXAMPLE]
        if self.metric not in first:
            raise UserError(
                f"{where}: metrics = {self.metrics!r}: the first, which is plotted and compared, has to be "
                f"one of {', '.join(first)}"
            )

    @property
    def metric(self) -> str:
        """The metric that the papers plot."""
        return self.metrics[0]

    def metric_for_best_model(self, name: str | None) -> str:
        """The metric that chooses the best epoch: one of the task's by name, or its first.

        Raises UserError for a metric that the task does not have.
        """
        if name is None:
            return self.metric
        if name not in self.metrics:
            raise UserError(
                f"recipe.metric_for_best_model = {name!r}: task {self.name!r} has {', '.join(self.metrics)}; "
                "that of one task alone goes into [recipe.TASK]"
            )
        return name

    @property
    def regression(self) -> bool:
        """Whether the label is a number rather than a class."""
        return self.classes == 1


TASKS = {
    task.name: task
    for task in (
        Task("sst2", "SST-2", ("sentence",), 2, ("accuracy",), "fig6"),
        Task(
            "stsb",
            "STS-B",
            ("sentence1", "sentence2"),
            1,
            ("mse", "pearson", "spearman"),
            "fig7",
            top=5.0,
        ),
        Task("cola", "CoLA", ("sentence",), 2, ("accuracy", "mcc"), "fig8"),
    )
}


def get_task(name: str | Task) -> Task:
    """Look a task up by name; a Task passes through. Raises UserError for an unknown name."""
    if isinstance(name, Task):
        return name
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]


def known_metric(name: str) -> str:
    """Pass the name of a metric through. Raises UserError for one that no task has."""
    names = {metric for task in TASKS.values() for metric in task.metrics}
    if name not in names:
        raise unknown("metric", name, names)
    return name
