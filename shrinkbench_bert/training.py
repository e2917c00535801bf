"""The one fine-tuning loop, dense and masked."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from shrinkbench_bert import objective
from shrinkbench_bert.data import Split, TaskData, evaluation_batches, training_batches
from shrinkbench_bert.grid import Recipe
from shrinkbench_bert.masks import AppliedMasks
from shrinkbench_bert.metrics import METRICS, evaluate_predictions
from shrinkbench_bert.packing import pack_numbers
from shrinkbench_bert.protocol import Protocol
from shrinkbench_bert.seeding import generator, seeded
from shrinkbench_bert.store import Epoch, Evaluation, Training
from shrinkbench_bert.vocabulary import used_rows_only

EVALUATION_BATCH = 64

Moments = dict[str, dict[str, Tensor]]
"""Adam's state by parameter name."""
Report = Callable[[str], None]


class Diverged(ArithmeticError):
    """The training loss, a weight or a prediction is no longer a finite number."""


@dataclass
class FineTuned:
    """What a fine-tuning leaves behind, besides the weights in the model."""

    training: Training
    moments: Moments


def evaluate(model: PreTrainedModel, data: TaskData, split: Split) -> Evaluation:
    """Evaluate the model on a split, every example once, dropout off.

    Raises:
        Diverged: a prediction is no finite number.
    """
    predictions = torch.empty(len(split))
    model.eval()
    with torch.inference_mode():
        for indices, batch in evaluation_batches(split, data.pad_token_id, EVALUATION_BATCH):
            del batch["labels"]
            logits = model(**{key: value.to(model.device) for key, value in batch.items()}).logits
            predicted = objective.predict(data.task, logits).float()
            # The largest of NaNs has an index like any other.
            predictions[indices] = predicted.where(logits.isfinite().all(dim=-1), math.nan).cpu()
    if not predictions.isfinite().all():
        raise Diverged(f"a prediction of {data.task.name} is no longer finite: lower recipe.lr")
    values = predictions.tolist()
    return Evaluation(
        n=len(split),
        metrics=evaluate_predictions(data.task, split.labels, values),
        predictions=pack_numbers(values),
    )


def fine_tune(
    model: PreTrainedModel,
    data: TaskData,
    recipe: Recipe,
    protocol: Protocol,
    *,
    epochs: int,
    seed: int,
    purpose: str,
    masks: AppliedMasks | None = None,
    moments: Moments | None = None,
    report: Report = lambda progress: None,
) -> FineTuned:
    """Fine-tune in place and leave the best epoch's weights in the model.

    Args:
        model: trained where it is; every parameter moves, pruned ones excepted.
        data: `train` is learnt; `holdout` or `validation` chooses the epoch, as the protocol says.
        recipe: batch size, learning rate and so on.
        protocol: `optimizer`, `betas` and `selection`.
        epochs: passes over `data.train`.
        seed: of data order and dropout.
        purpose: which training of the cell this is, so that each draws its own numbers.
        masks: kept in force throughout.
        moments: the optimiser's state to start from; None for a fresh one.
        report: told "epoch 2/3" as it goes.

    Raises:
        Diverged: the loss, a weight or a prediction became NaN or infinite.
    """
    steps = epochs * math.ceil(len(data.train) / recipe.batch_size)
    split = {"holdout": data.holdout, "validation": data.validation, "last": None}[protocol.selection]
    shuffle = generator(seed, purpose, "order")
    history: list[Epoch] = []
    best = _Best(data.task.metric_for_best_model(recipe.metric_for_best_model))
    with seeded(seed, purpose, "dropout"), used_rows_only(model, data.token_ids), _without_denormals():
        optimizer = _optimizer(model, recipe, protocol)
        if moments is not None:
            _restore(optimizer, model, moments)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _rate(recipe, steps))
        for epoch in range(1, epochs + 1):
            report(f"epoch {epoch}/{epochs}")
            loss = _one_epoch(model, data, recipe, optimizer, scheduler, shuffle)
            if masks:
                masks.enforce()
            if not all(torch.isfinite(p).all() for p in model.parameters()):
                raise Diverged(f"a weight of {data.task.name} is no longer finite: lower recipe.lr")
            selection = evaluate(model, data, split).without_predictions() if split else None
            history.append(Epoch(loss=loss, selection=selection))
            best.offer(epoch, selection, model)
        best.restore(model)
        moments = _moments(optimizer, model)
    return FineTuned(Training(epochs=history, best_epoch=best.epoch), moments)


@contextmanager
def _without_denormals() -> Iterator[None]:
    """Take numbers below 1e-38 for 0: a tenth of a step's time goes to them, in Adam's squared gradients.

    There they are added to an epsilon of 1e-8, so that no weight depends on them.
    """
    flushed = bool(torch.tensor(1e-39) * 1 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)


def _one_epoch(
    model: PreTrainedModel,
    data: TaskData,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    shuffle: torch.Generator,
) -> float:
    total = torch.zeros((), device=model.device)
    steps = 0
    model.train()
    for batch in training_batches(
        data.train, data.pad_token_id, recipe.batch_size, shuffle, recipe.group_by_length
    ):
        batch = {key: value.to(model.device) for key, value in batch.items()}
        labels = batch.pop("labels")
        loss = objective.loss(data.task, model(**batch).logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
        total += loss.detach()
        steps += 1
    mean = float(total) / steps
    if not math.isfinite(mean):
        raise Diverged(f"the training loss of {data.task.name} became {mean}: lower recipe.lr")
    return mean


def _optimizer(model: PreTrainedModel, recipe: Recipe, protocol: Protocol) -> torch.optim.Optimizer:
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[protocol.optimizer]
    return kind(
        model.parameters(),
        lr=recipe.lr,
        betas=protocol.betas,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def _rate(recipe: Recipe, steps: int) -> Callable[[int], float]:
    """Learning rate by step, as a fraction of `recipe.lr`: linear warmup, then constant or to 0."""
    warmup = round(recipe.warmup * steps)

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if recipe.schedule == "constant":
            return 1.0
        return max(0.0, (steps - step) / max(1, steps - warmup))

    return rate


def _moments(optimizer: torch.optim.Optimizer, model: PreTrainedModel) -> Moments:
    return {name: dict(optimizer.state[p]) for name, p in model.named_parameters() if p in optimizer.state}


def _restore(optimizer: torch.optim.Optimizer, model: PreTrainedModel, moments: Moments) -> None:
    for name, parameter in model.named_parameters():
        if name in moments:
            optimizer.state[parameter] = {k: v.clone() for k, v in moments[name].items()}


class _Best:
    """Remembers the best epoch's weights: the earliest of equal ones; an undefined value is the worst."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.epoch = 0
        self.weights: dict[str, Tensor] | None = None
        self._value = -math.inf

    def offer(self, epoch: int, selection: Evaluation | None, model: PreTrainedModel) -> None:
        if selection is None:  # the protocol takes the last epoch
            self.epoch = epoch
            return
        value = selection.metrics[self.metric]
        if value is None:  # the correlation of a constant
            value = -math.inf
        elif not METRICS[self.metric].greater_is_better:
            value = -value
        if self.weights is None or value > self._value:
            self.epoch, self._value = epoch, value
            self.weights = {name: p.detach().clone() for name, p in model.state_dict().items()}

    def restore(self, model: PreTrainedModel) -> None:
        if self.weights is not None:
            model.load_state_dict(self.weights)
