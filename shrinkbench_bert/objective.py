"""What a task's logits mean: its loss and its predictions."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from shrinkbench_bert.errors import UserError
from shrinkbench_bert.tasks import Task


def loss(task: Task, logits: Tensor, labels: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """Cross-entropy, or the squared error of `top * sigmoid(logit)`.

    Args:
        task: decides which.
        logits: (batch, classes), or (batch, 1) for regression.
        labels: (batch,); classes, or numbers from 0 to `task.top`.
        reduction: over the batch, for regression alone; cross-entropy is always the mean.

    Returns:
        A scalar.

    Raises:
        UserError: the logits are of a head for another task.
    """
    if logits.shape[-1] != task.classes:
        raise UserError(
            f"task {task.name!r}: outputs = {logits.shape[-1]} of the model, where {task.classes} is "
            "expected: give a model with the task's head, as load_model makes it"
        )
    if task.regression:
        return F.mse_loss(predict(task, logits), labels.to(logits.dtype), reduction=reduction)
    return F.cross_entropy(logits, labels.long())


def predict(task: Task, logits: Tensor) -> Tensor:
    """Turn (batch, classes) logits into (batch,) classes, or numbers from 0 to `task.top`."""
    if task.regression:
        return task.top * torch.sigmoid(logits.squeeze(-1))
    return logits.argmax(dim=-1)
