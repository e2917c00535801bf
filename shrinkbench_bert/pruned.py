"""What pruning one cell comes to, whatever was pruned."""

from collections.abc import Sequence
from dataclasses import dataclass

from shrinkbench_bert.store import Evaluation, Heads, MaskFile, Size, Training


@dataclass(frozen=True)
class Pruned:
    """The blocks of a result that pruning decides; either `masks` or `heads` is there."""

    before_retraining: Evaluation
    after_retraining: Evaluation
    retraining: Training
    size: Size
    masks: MaskFile | None = None
    heads: Heads | None = None


def joined(trainings: Sequence[Training]) -> Training:
    """All rounds' epochs in a row; the one whose weights were taken is of the last round."""
    *earlier, last = trainings
    passed = sum(len(training.epochs) for training in earlier)
    epochs = [epoch for training in trainings for epoch in training.epochs]
    return Training(epochs=epochs, best_epoch=passed + last.best_epoch if last.best_epoch else 0)
