"""What pruning one cell comes to, whatever was pruned."""

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
