"""The task table. Adding a GLUE-like task is one entry here."""

from dataclasses import dataclass

from shrinkbench_bert.errors import UserError, unknown


@dataclass(frozen=True)
class Task:
    """A GLUE data set with its head and metrics; all of it metadata.

    `classes = 1` means regression: the head is `top * sigmoid(logit)` with a mean squared error;
    more classes mean a softmax with cross-entropy.
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
