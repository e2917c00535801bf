"""The one pass over the data that serves many strategies at once.

It owns what no strategy should: accumulation, devices, dtypes; `observation` has the hooks and the noise.
Strategies without noise share one forward and backward per batch, smoothed ones share eta noisy ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import reduce
from itertools import islice
from operator import or_
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shrinkbench_bert.blocks import PointwiseOnly, blocks
from shrinkbench_bert.calling import call_score
from shrinkbench_bert.data import Batch, check_batch
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.models import prunable_parameters
from shrinkbench_bert.observation import Signals, observe
from shrinkbench_bert.passes import batches_read
from shrinkbench_bert.protocol import Protocol
from shrinkbench_bert.seeding import generator, seeded
from shrinkbench_bert.signals import measure
from shrinkbench_bert.strategy import Need, Strategy, get_strategy
from shrinkbench_bert.tasks import Task, get_task

Scores = dict[str, Tensor]


def score(
    model: PreTrainedModel,
    batches: Iterable[Batch],
    strategies: Sequence[str],
    *,
    task: str | Task,
    protocol: str | Protocol = "sound",
    seed: int = 0,
    part: tuple[int, int] | None = None,
    **overrides: Any,
) -> dict[str, Scores]:
    """Score every prunable parameter with every strategy, in one pass over the batches.

    Args:
        model: a sequence classifier, usually the dense (fine-tuned) one. It is left as it was.
        batches: dicts with input_ids, labels and, optionally, attention_mask and token_type_ids; read
            once, and only as far as the protocol asks. Scores of inputs alone do without labels.
        strategies: registered names.
        task: decides the loss.
        protocol: `paper`, `released`, `sound`, or a Protocol.
        seed: of noise, dropout and random scores.
        part: (i, n) sums up batches i, i + n, i + 2n, ... alone, for `add_scores` to make scores of the n
            parts. A strategy that none of them concerns is left out; one that needs no data is in part 0.
        **overrides: fields of the protocol, e.g. `eta=5`.

    Returns:
        strategy -> parameter name as in `model.named_parameters()` -> scores of the
        parameter's shape and device, in float32 at least: the sum over batches of the strategy's formula,
        and what its `finish` makes of it.

    Raises:
        UserError: an unknown name, one name in place of a list, no batches for a strategy that needs them,
            a batch without input_ids or labels, a label that is none of the task's, a model whose number
            of outputs is not the task's, a layer without any head, or a strategy whose score has the wrong
            shape, is NaN, or reads a signal that it did not declare.
    """
    check_names(strategies)
    protocol = Protocol.named(protocol, **overrides)
    task = get_task(task)
    parameters = prunable_parameters(model, protocol)
    first, parts = part or (0, 1)
    if not 0 <= first < parts:
        raise UserError(f"part = {part!r}: (i, n) with 0 <= i < n is expected")
    scorers = [_Scorer(name, parameters, protocol, seed) for name in strategies]
    limit = max((scorer.limit for scorer in scorers), default=0)
    empty = next((name for name, p in parameters.items() if not p.numel()), None)
    if limit and empty:
        raise UserError(
            f"{empty!r} is empty: its layer has no head left; score weights before removing heads"
        )
    labelled = any(scorer.strategy.needs & ~Need.SQUARED_INPUT for scorer in scorers)
    with untouched(model, parameters):
        for scorer in scorers:
            if not scorer.strategy.needs and first == 0:
                for name, parameter in parameters.items():
                    _add([scorer], name, Signals(parameter.detach()))
        for i, batch in islice(enumerate(batches), first, limit, parts):
            check_batch(task, batch, i, labelled=labelled)
            batch = {key: value.to(model.device) for key, value in batch.items()}
            for noisy in (False, True):
                sharing = [s for s in scorers if i < s.limit and s.strategy.smooth == noisy]
                if sharing:
                    _score_batch(sharing, model, batch, i, task, protocol, seed, noisy=noisy)
    if part is not None:
        return {scorer.name: scorer.sums for scorer in scorers if scorer.sums}
    return {scorer.name: scorer.finish() for scorer in scorers}


def check_names(strategies: Sequence[str]) -> None:
    """Raise UserError for a name where a list of names is expected: a string is a sequence, too."""
    if isinstance(strategies, str):
        raise UserError(f"strategies = {strategies!r}: a list of names is expected, as in [{strategies!r}]")


def _score_batch(
    scorers: Sequence[_Scorer],
    model: PreTrainedModel,
    batch: Batch,
    index: int,
    task: Task,
    protocol: Protocol,
    seed: int,
    *,
    noisy: bool,
) -> None:
    """Measure what some strategies need of one batch, show it to them, and forget it."""
    needs = reduce(or_, (scorer.strategy.needs for scorer in scorers))
    signals = {name: Signals(p.detach()) for name, p in prunable_parameters(model, protocol).items()}
    if needs & (Need.GRADIENT | Need.ACTIVATION):
        with seeded(seed, "scoring", "noisy" if noisy else "clean", index):
            signals = observe(model, batch, task, protocol, noisy=noisy)
    for need, values in measure(needs, model, batch, task, protocol, seed, index).items():
        for name, value in values.items():
            signals[name].more[need] = value
    for name, signal in signals.items():
        _add(scorers, name, signal)


def add_scores(
    parts: Iterable[Mapping[str, Scores]], protocol: str | Protocol = "sound", **overrides: Any
) -> dict[str, Scores]:
    """Add up the parts of a scoring pass: equal to the whole one but for the order of its sums.

    Args:
        parts: what `score` returned for each part, always in the same order for the same bits. The
            sums are made in the first part's tensors.
        protocol: as for `score`.
        **overrides: likewise.

    Raises:
        UserError: as `score` does of a score that has the wrong shape or is NaN.
    """
    protocol = Protocol.named(protocol, **overrides)
    total: dict[str, Scores] = {}
    for part in parts:
        for strategy, scores in part.items():
            if strategy not in total:
                total[strategy] = scores
                continue
            for name, value in scores.items():
                total[strategy][name] += value
    return {name: _finished(name, get_strategy(name).under(protocol), sums) for name, sums in total.items()}


def dtype_of_sums(parameter: Tensor) -> torch.dtype:
    """At least float32: in bfloat16 a sum stops growing once it is 256 times what is added."""
    return torch.promote_types(parameter.dtype, torch.float32)


class _Scorer:
    """One strategy and the scores it has summed up so far."""

    def __init__(self, name: str, parameters: Mapping[str, Tensor], protocol: Protocol, seed: int) -> None:
        self.name, self.parameters, self.seed = name, parameters, seed
        self.strategy = get_strategy(name).under(protocol)
        if self.strategy.scope == "heads":
            raise UserError(f"strategy {name!r} scores attention heads, not weights: see score_heads")
        self.limit = batches_read(self.strategy, protocol)
        self.sums: Scores = {}
        self.by_blocks: dict[str, bool] = {}
        """Whether a parameter's score may be computed some rows at a time; unknown at first."""
        self.unused = torch.Generator()

    def add(self, name: str, signal: Signals, cut: Sequence[slice]) -> None:
        """Add what one batch says about one parameter, and find out whether it may be `cut` next time."""
        untried = len(cut) > 1 and self.strategy.terms == 1 and name not in self.by_blocks
        watched = PointwiseOnly()
        with watched if untried else nullcontext():
            value = self._value(name, signal)
        if untried and value.any():  # from zeros nothing is learnt
            self.by_blocks[name] = watched.held and self._is_equal_by_blocks(name, signal, cut, value)
        if not self.sums:  # all at once: in between, they would leave gaps in memory
            shape = self.strategy.shape_of_sum
            self.sums = {
                name: p.new_zeros(shape(p.shape), dtype=dtype_of_sums(p))
                for name, p in self.parameters.items()
            }
        self.sums[name] += value

    def add_rows(self, name: str, signal: Signals, rows: slice) -> None:
        """Add what one batch says about some rows, by a formula found to be pointwise and right."""
        value = self.strategy.score(signal.shown_to(self.strategy, name, self.unused))
        self.sums[name][rows].add_(value.to(signal.weight))

    def _is_equal_by_blocks(self, name: str, signal: Signals, cut: Sequence[slice], whole: Tensor) -> bool:
        """A formula may read a shape, or hold a tensor of its own: then its rows are not its whole."""
        try:
            return torch.equal(whole, torch.cat([self._value(name, signal.rows(rows)) for rows in cut]))
        except UserError:
            return False

    def _value(self, name: str, signal: Signals) -> Tensor:
        """What the formula makes of a signal; checked."""
        random = generator(self.seed, "score", self.name, name)
        shown = signal.shown_to(self.strategy, name, random)
        value = call_score(self.strategy, shown, signal.tensors, repr(name))
        expected = self.strategy.shape_of_sum(signal.weight.shape)
        if not isinstance(value, Tensor) or value.shape != expected:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UserError(
                f"strategy {self.name!r}: score() of {name!r} returned {found}, expected a tensor "
                f"of shape {expected}"
            )
        return value.to(signal.weight)

    def finish(self) -> Scores:
        if not self.sums:
            raise UserError(f"strategy {self.name!r} needs data, and there were no batches: give some")
        return _finished(self.name, self.strategy, self.sums)


@torch.no_grad()
def _add(scorers: Sequence[_Scorer], name: str, signal: Signals) -> None:
    """Add what one batch says about one parameter: all pointwise formulas on one block, then on the next."""
    cut = blocks(signal.weight.shape) if signal.weight.is_cpu else []  # a GPU wants few large kernels
    pointwise = [scorer for scorer in scorers if scorer.by_blocks.get(name)]
    for scorer in scorers:
        if scorer not in pointwise:
            scorer.add(name, signal, cut)
    for rows in cut if pointwise else ():
        part = signal.rows(rows)
        for scorer in pointwise:
            scorer.add_rows(name, part, rows)


def _finished(strategy_name: str, strategy: Strategy, sums: Scores) -> Scores:
    scores: Scores = {}
    for name, total in sums.items():
        where = f"strategy {strategy_name!r}: the score of {name!r}"
        try:
            # MPS has no float64, which a formula may want for its ranks or sums.
            value = strategy.finish(total.cpu() if total.is_mps else total)
        except Exception as error:
            raise UserError(f"{where}: finish() raised {type(error).__name__}: {error}") from error
        expected = tuple(total.shape[1:] if strategy.terms > 1 else total.shape)
        if not isinstance(value, Tensor) or value.shape != expected:
            found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise UserError(f"{where}, made by finish(), has {found}, expected {expected}")
        if torch.isnan(value).any():
            raise UserError(f"{where} is NaN; does its formula divide by 0, or take a root or a logarithm?")
        scores[name] = value.to(total.device, value.dtype if value.is_floating_point() else total.dtype)
    return scores


@contextmanager
def untouched(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Ask for the prunable parameters' gradients alone; put gradients, flags and mode back afterwards."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    gradients = [(p, p.grad) for p in parameters.values()]
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.requires_grad_(False)
        for parameter in parameters.values():
            parameter.requires_grad_(True)
            parameter.grad = None
        model.eval()
        with torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for parameter, gradient in gradients:
            parameter.grad = gradient
