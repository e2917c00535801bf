"""The one pass over the data that serves all head strategies, and choosing the heads to remove."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shrinkbench_bert import objective
from shrinkbench_bert.calling import call_score
from shrinkbench_bert.data import Batch, check_batch
from shrinkbench_bert.errors import UserError, unknown
from shrinkbench_bert.heads import AttentionLayer, attention_layers, gated_heads
from shrinkbench_bert.hooks import in_place
from shrinkbench_bert.protocol import Protocol
from shrinkbench_bert.scoring import check_names, untouched
from shrinkbench_bert.seeding import generator
from shrinkbench_bert.strategy import HeadSignal, HeadStrategy, HeadWeights, Need, get_strategy
from shrinkbench_bert.tasks import Task, get_task

HeadScores = dict[tuple[int, int], float]
"""Importance by (layer, head), in the numbering before anything was removed."""
HeadScope = Literal["global", "layer"]


def score_heads(
    model: PreTrainedModel,
    batches: Iterable[Batch],
    strategies: Sequence[str],
    *,
    task: str | Task,
    protocol: str | Protocol = "sound",
    seed: int = 0,
) -> dict[str, HeadScores]:
    """Score every attention head that is there with every strategy, in one pass over the batches.

    The pass is made with eager attention, the only one that gives its weights, without dropout, and
    over at most `clean_batches` of the protocol.

    Args:
        model: a sequence classifier, usually the dense (fine-tuned) one. It is left as it was.
        batches: as for `score`; read once, and only if a strategy needs data.
        strategies: registered names of head strategies.
        task: decides the loss.
        protocol: `paper`, `released`, `sound`, or a Protocol.
        seed: of random scores.

    Returns:
        strategy -> (layer, head) -> score, the mean over sequences of the strategy's formula.

    Raises:
        UserError: an unknown name, one name in place of a list, a strategy that scores no heads, no
            batches for one that needs them, a batch or a head of the model that does not fit the task (as
            for `score`), an architecture that has no known heads, a model that gives no attention
            weights, or a strategy whose score has the wrong shape, is NaN, or reads what it did not declare.
    """
    check_names(strategies)
    protocol, task = Protocol.named(protocol), get_task(task)
    layers = attention_layers(model)
    scorers = [_Scorer(name, protocol, seed, layers) for name in strategies]
    for scorer in scorers:
        if not scorer.strategy.needs:
            scorer.add(None, 1)
    with_data = [scorer for scorer in scorers if scorer.strategy.needs]
    needs = Need.NOTHING
    for scorer in with_data:
        needs |= scorer.strategy.needs
    if with_data:
        with untouched(model, {}), _eager(model):
            for i, batch in enumerate(islice(batches, protocol.clean_batches)):
                check_batch(task, batch, i)
                batch = {key: value.to(model.device) for key, value in batch.items()}
                observed = _observe(model, layers, batch, task, needs)
                for scorer in with_data:
                    scorer.add(observed, len(batch["labels"]))
    return {scorer.name: scorer.finish() for scorer in scorers}


def choose_heads(scores: Mapping[tuple[int, int], float], n: int) -> dict[int, list[int]]:
    """Choose the n heads with the lowest scores, ranked over all layers.

    Of equal scores the last heads go first. Returns `{layer: [heads]}`, as `remove_heads` takes it.

    Raises UserError if there are fewer than n heads.
    """
    if not 0 <= n <= len(scores):
        raise UserError(f"{n} heads cannot be chosen of {len(scores)}: choose at most so many")
    ascending = sorted(scores, key=lambda place: (scores[place], -place[0], -place[1]))
    chosen: dict[int, list[int]] = {}
    for layer, head in sorted(ascending[:n]):
        chosen.setdefault(layer, []).append(head)
    return chosen


def heads_to_remove(
    scores: Mapping[tuple[int, int], float], total: Sequence[int], fraction: float, scope: HeadScope
) -> dict[int, list[int]]:
    """Choose so many more heads that `fraction` of the original ones is gone.

    Args:
        scores: of the heads that are there.
        total: heads of each layer before anything was removed.
        fraction: of them, in [0, 1); round(fraction * total) heads, halves up.
        scope: `global` ranks all heads together, `layer` removes that fraction of every layer.

    Raises:
        UserError: a fraction outside [0, 1), or another scope.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"heads = {fraction!r}: a fraction in [0, 1) is expected")
    if scope == "global":
        return choose_heads(scores, _count(fraction, sum(total)) - (sum(total) - len(scores)))
    if scope != "layer":
        raise unknown("head_scope", scope, ("global", "layer"))
    chosen: dict[int, list[int]] = {}
    for layer, heads in enumerate(total):
        of_layer = {place: value for place, value in scores.items() if place[0] == layer}
        chosen |= choose_heads(of_layer, _count(fraction, heads) - (heads - len(of_layer)))
    return chosen


def count_heads_to_remove(fraction: float, total: Sequence[int], scope: HeadScope) -> int:
    """Count the heads that `heads_to_remove` takes in all. Arguments as there."""
    if scope == "global":
        return _count(fraction, sum(total))
    return sum(_count(fraction, heads) for heads in total)


def _count(fraction: float, total: int) -> int:
    return math.floor(fraction * total + 0.5)


class _Observed:
    """What one batch says about every layer's heads."""

    def __init__(self, attendable: Tensor, attention: list[Tensor], gradients: list[Tensor]) -> None:
        self.attendable, self.attention, self.gradients = attendable, attention, gradients


class _Scorer:
    """One strategy and the sums over sequences that it has so far, layer by layer."""

    def __init__(self, name: str, protocol: Protocol, seed: int, layers: list[AttentionLayer]) -> None:
        strategy = get_strategy(name).under(protocol)
        if not isinstance(strategy, HeadStrategy):
            raise UserError(f"strategy {name!r} scores no attention heads, but weights: see score")
        self.name, self.strategy, self.seed, self.layers = name, strategy, seed, layers
        self.weights = [_weights(layer) for layer in layers]
        self.sums: list[Tensor] | None = None
        self.sequences = 0

    @torch.no_grad()
    def add(self, observed: _Observed | None, sequences: int) -> None:
        """Add one batch; None for a strategy that needs no data."""
        values = [self._score(i, observed) * sequences for i in range(len(self.layers))]
        before = self.sums or [torch.zeros_like(value) for value in values]
        self.sums = [total + value for total, value in zip(before, values, strict=True)]
        self.sequences += sequences

    def _score(self, layer: int, observed: _Observed | None) -> Tensor:
        shown: dict[str, Any] = {}
        if observed is not None and Need.ATTENTION in self.strategy.needs:
            shown |= {"attendable": observed.attendable, "attention": observed.attention[layer]}
        if observed is not None and Need.GRADIENT in self.strategy.needs:
            shown["gradient"] = observed.gradients[layer]
        random = generator(self.seed, "score", self.name, layer)
        heads, weights = len(self.layers[layer].kept), self.weights[layer]
        tensors = [weights.query, weights.key, weights.value, weights.output, *shown.values()]
        signal = HeadSignal(layer, weights, random, **shown)
        value = call_score(self.strategy, signal, tensors, f"layer {layer}")
        if not isinstance(value, Tensor) or value.dim() not in (1, 2) or len(value) != heads:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UserError(
                f"strategy {self.name!r}: score() of layer {layer} returned {found}, expected a tensor of "
                f"shape ({heads},)"
            )
        return value.cpu().double()  # MPS has no float64

    def finish(self) -> HeadScores:
        if self.sums is None:
            raise UserError(f"strategy {self.name!r} needs data, and there were no batches: give some")
        where = f"strategy {self.name!r}: overall()"
        try:
            scores = list(self.strategy.overall([total / self.sequences for total in self.sums]))
        except Exception as error:
            raise UserError(f"{where} raised {type(error).__name__}: {error}") from error
        if len(scores) != len(self.layers) or not all(isinstance(values, Tensor) for values in scores):
            raise UserError(f"{where} returned no list of {len(self.layers)} tensors, one for each layer")
        found: HeadScores = {}
        for layer, values in zip(self.layers, scores, strict=True):
            if values.shape != (len(layer.kept),) or not torch.isfinite(values).all():
                raise UserError(
                    f"strategy {self.name!r}: the scores of layer {layer.index} are no {len(layer.kept)} "
                    "finite numbers; does its formula divide by 0?"
                )
            found |= {(layer.index, h): float(v) for h, v in zip(layer.kept, values, strict=True)}
        return found


def _weights(layer: AttentionLayer) -> HeadWeights:
    def rows(linear: nn.Linear) -> Tensor:
        bias: Tensor | None = linear.bias
        column = linear.weight.new_zeros(linear.out_features) if bias is None else bias.detach()
        rows = torch.cat([linear.weight.detach(), column[:, None]], dim=1)
        return rows.view(-1, layer.head_size, rows.shape[1])

    columns = layer.output.weight.detach()  # (hidden, heads * size)
    by_head = columns.view(len(columns), -1, layer.head_size).movedim(1, 0)
    return HeadWeights(rows(layer.query), rows(layer.key), rows(layer.value), by_head)


def _observe(
    model: PreTrainedModel, layers: list[AttentionLayer], batch: Batch, task: Task, needs: Need
) -> _Observed:
    """Measure one batch's attention weights and, if needed, its gradient at a gate on every head."""
    labels = batch["labels"]
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    attendable = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
    gates = {
        layer.index: torch.ones(len(labels), len(layer.kept), device=model.device, requires_grad=True)
        for layer in layers
    }
    with (
        torch.set_grad_enabled(Need.GRADIENT in needs),
        _recorded_attention(layers) as attention,
        gated_heads(model, gates),
    ):
        logits = model(**inputs).logits
    for layer, maps in zip(layers, attention, strict=True):
        if maps is None:
            raise UserError(
                f"{type(model).__name__}: layer {layer.index} gives no attention weights under its attention "
                f"implementation {model.config._attn_implementation!r} (accepted: 'eager')"
            )
    gradients: list[Tensor] = []
    if Need.GRADIENT in needs:
        # The sum of the sequences' own losses: each gate belongs to one sequence.
        loss = objective.loss(task, logits, labels) * len(labels)
        gradients = list(torch.autograd.grad(loss, list(gates.values()), materialize_grads=True))
    return _Observed(attendable, [maps.detach() for maps in attention if maps is not None], gradients)


@contextmanager
def _recorded_attention(layers: list[AttentionLayer]) -> Iterator[list[Tensor | None]]:
    """Note what each layer's attention returns beside its output: its weights, or None."""
    seen: list[Tensor | None] = [None] * len(layers)

    def record(place: int, outputs: Any) -> None:
        seen[place] = outputs[1] if isinstance(outputs, tuple) and len(outputs) > 1 else None

    handles = [
        layer.attention.register_forward_hook(lambda m, i, outputs, place=place: record(place, outputs))
        for place, layer in enumerate(layers)
    ]
    with in_place(handles):
        yield seen


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    """Compute attention where its weights can be seen; the implementation comes back afterwards."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
