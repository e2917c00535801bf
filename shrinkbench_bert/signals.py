"""Signals that few strategies ask for: each is measured in passes of its own, and only if one does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel
from transformers.activations import ACT2CLS

from shrinkbench_bert import objective
from shrinkbench_bert.data import Batch
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.hooks import in_place
from shrinkbench_bert.models import encoder, prunable_linears, prunable_parameters
from shrinkbench_bert.protocol import Protocol
from shrinkbench_bert.seeding import seeded
from shrinkbench_bert.strategy import Need
from shrinkbench_bert.tasks import Task

Values = dict[str, Tensor]
"""One signal of every prunable parameter, by name."""
Measure = Callable[[PreTrainedModel, Batch, Task, Protocol], Values]

# nn.Modules by the names that a checkpoint's configuration may give; some stand beside their arguments.
_ACTIVATION_FUNCTIONS: tuple[Any, ...] = tuple(
    kind[0] if isinstance(kind, tuple) else kind for kind in ACT2CLS.values()
)
_NEAR_0 = 1e-6


def measure(
    needs: Need, model: PreTrainedModel, batch: Batch, task: Task, protocol: Protocol, seed: int, index: int
) -> dict[Need, Values]:
    """Measure what `needs` names, but for gradient and activation, on one batch.

    Args:
        needs: of all strategies that see the batch.
        model: in eval mode, its prunable parameters asking for gradients; left as it was.
        batch: on the model's device.
        task: decides the loss.
        protocol: `eta`, `padding`, `regression_loss`, and where dropout stays on.
        seed: of dropout.
        index: of the batch.

    Raises:
        UserError: a rescaled gradient of a model whose activation functions are no modules.
    """
    found: dict[Need, Values] = {}
    for need, measured in _MEASURES.items():
        if need in needs:
            with seeded(seed, "scoring", str(need.name), index):
                found[need] = measured(model, batch, task, protocol)
    return found


def squared_inputs(model: PreTrainedModel, batch: Batch, task: Task, protocol: Protocol) -> Values:
    """Sum over tokens of each input feature's square: (1, in); for a bias the number of tokens."""
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
    tokens = mask if protocol.padding == "out" else torch.ones_like(mask)
    linears, sums = prunable_linears(model, protocol), dict[str, Tensor]()
    with _calls(linears) as calls, torch.no_grad():
        model(**_inputs(batch))
        for name, x, _ in calls:
            weights = tokens if x.dim() == 3 else tokens.new_ones(len(x), 1)  # the pooler reads one token
            squares = torch.einsum("bt,bti->i", weights.to(x), _by_token(x).square())
            for key, value in ((f"{name}.weight", squares[None]), (f"{name}.bias", weights.sum().to(x))):
                sums[key] = sums[key] + value if key in sums else value
    return {name: sums[name] for name in prunable_parameters(model, protocol)}


def squared_gradients(model: PreTrainedModel, batch: Batch, task: Task, protocol: Protocol) -> Values:
    """Sum over examples of the squared gradient of each one's own loss, from a single backward pass.

    A Linear's gradient on one example is the sum over tokens of delta x^T, delta: dL/d output.
    """
    linears, parameters = prunable_linears(model, protocol), prunable_parameters(model, protocol)
    with _dropout(model, protocol), _calls(linears) as calls:
        logits = model(**_inputs(batch)).logits
        loss = objective.loss(task, logits, batch["labels"], "sum")
        if not task.regression:  # cross-entropy is always the mean
            loss = loss * len(logits)
        deltas = torch.autograd.grad(loss, [output for *_, output in calls], materialize_grads=True)
    seen: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)  # a Linear may be called several times
    for (name, x, _), delta in zip(calls, map(_by_token, deltas), strict=True):
        seen[name].append((_by_token(x.detach()), delta))
    found: Values = {}
    for name, own in seen.items():  # one at a time: it takes a whole gradient for each example
        weight = sum(torch.einsum("bto,bti->boi", delta, x) for x, delta in own)
        found[f"{name}.weight"] = torch.as_tensor(weight).square().sum(0)
        found[f"{name}.bias"] = torch.as_tensor(sum(delta.sum(1) for _, delta in own)).square().sum(0)
    return {name: found[name] for name in parameters}


def path_gradients(model: PreTrainedModel, batch: Batch, task: Task, protocol: Protocol) -> Values:
    """Mean of dL/dw at alpha w, alpha = (k - 1/2) / eta for k = 1 to eta, all prunable w moving together.

    The integral of the straight path from 0 to w by the midpoint rule (Sundararajan et al. 2017).
    """
    parameters = prunable_parameters(model, protocol)
    totals = {name: torch.zeros_like(p) for name, p in parameters.items()}
    with _dropout(model, protocol):
        for k in range(1, protocol.eta + 1):
            alpha = (k - 0.5) / protocol.eta
            point = {name: (alpha * p.detach()).requires_grad_() for name, p in parameters.items()}
            logits = functional_call(model, point, kwargs=_inputs(batch)).logits
            for name, gradient in _gradients(logits, point, batch, task, protocol).items():
                totals[name].add_(gradient, alpha=1 / protocol.eta)
    return totals


def rescaled_gradients(model: PreTrainedModel, batch: Batch, task: Task, protocol: Protocol) -> Values:
    """dL/dw with DeepLIFT's rescale multiplier in place of each activation function's derivative.

    The reference is the model whose prunable weights are all 0. Before a GELU (or the pooler's tanh)
    stands a prunable Linear, whose output is 0 there, so that the multiplier is (f(x) - f(0)) / x.
    All else (softmax, products, LayerNorm, the head, the loss) has no such rule and keeps its gradient.
    """
    parents = [encoder(model)]
    if protocol.pooler == "prunable":  # ALBERT's tanh stands beside it
        beside = (getattr(model.base_model, name, None) for name in ("pooler", "pooler_activation"))
        parents += [module for module in beside if isinstance(module, nn.Module)]
    functions = [m for parent in parents for m in parent.modules() if isinstance(m, _ACTIVATION_FUNCTIONS)]
    if not functions:
        raise UserError(
            f"{type(model).__name__} has no activation function that is a module: no rescaled gradient"
        )
    parameters = prunable_parameters(model, protocol)
    rescaling = (function.register_forward_hook(_rescale) for function in functions)
    with in_place(rescaling), _dropout(model, protocol):
        return _gradients(model(**_inputs(batch)).logits, parameters, batch, task, protocol)


_MEASURES: dict[Need, Measure] = {
    Need.SQUARED_INPUT: squared_inputs,
    Need.SQUARED_GRADIENT: squared_gradients,
    Need.PATH_GRADIENT: path_gradients,
    Need.RESCALED_GRADIENT: rescaled_gradients,
}


def _rescale(function: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """Give the same output, whose derivative is (f(x) - f(0)) / x; near 0 it is f'(x)."""
    (x,) = inputs
    near = x.abs() < _NEAR_0
    at_0 = function.forward(torch.zeros_like(x))  # forward: calling it would come back here
    multiplier = ((output - at_0) / torch.where(near, 1, x)).detach()
    return torch.where(near, output, output.detach() + multiplier * (x - x.detach()))


def _gradients(
    logits: Tensor, parameters: Mapping[str, Tensor], batch: Batch, task: Task, protocol: Protocol
) -> Values:
    loss = objective.loss(task, logits, batch["labels"], protocol.regression_loss)
    found = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
    return dict(zip(parameters, found, strict=True))


def _inputs(batch: Batch) -> Batch:
    return {key: value for key, value in batch.items() if key != "labels"}


def _by_token(values: Tensor) -> Tensor:
    """(batch, tokens, features); the pooler's (batch, features) as of one token."""
    return values if values.dim() == 3 else values[:, None]


@contextmanager
def _calls(linears: Mapping[str, nn.Linear]) -> Iterator[list[tuple[str, Tensor, Tensor]]]:
    """Record each Linear's name, input and output, in the order of the calls."""
    calls: list[tuple[str, Tensor, Tensor]] = []

    def record(name: str, inputs: tuple[Tensor], output: Tensor) -> None:
        calls.append((name, inputs[0], output))

    handles = [
        linear.register_forward_hook(lambda module, inputs, output, name=name: record(name, inputs, output))
        for name, linear in linears.items()
    ]
    with in_place(handles):
        yield calls


@contextmanager
def _dropout(model: nn.Module, protocol: Protocol) -> Iterator[None]:
    """Keep dropout on for a gradient where the protocol does."""
    model.train(protocol.dropout == "gradients")
    try:
        yield
    finally:
        model.eval()
