"""What one batch says about the parameters: gradients and mean activations, noisy ones where asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shrinkbench_bert import objective
from shrinkbench_bert.blocks import rows_of
from shrinkbench_bert.data import Batch
from shrinkbench_bert.hooks import in_place
from shrinkbench_bert.models import prunable_linears, prunable_parameters
from shrinkbench_bert.protocol import Protocol
from shrinkbench_bert.strategy import Need, Signal, Strategy
from shrinkbench_bert.tasks import Task


@dataclass(frozen=True)
class Signals:
    """What one batch says about one parameter; a strategy is shown only what it declares."""

    weight: Tensor
    gradient: Tensor | None = None
    activation: Tensor | None = None
    more: dict[Need, Tensor] = field(default_factory=dict)
    """What `signals.measure` measures."""

    @property
    def tensors(self) -> list[Tensor]:
        """All that there are."""
        shown = (self.weight, self.gradient, self.activation, *self.more.values())
        return [tensor for tensor in shown if tensor is not None]

    def rows(self, rows: slice) -> Signals:
        """What is said about some rows of the parameter."""
        w = self.weight
        return Signals(
            w[rows],
            None if self.gradient is None else rows_of(self.gradient, rows, w),
            None if self.activation is None else rows_of(self.activation, rows, w),
            {need: rows_of(value, rows, w) for need, value in self.more.items()},
        )

    def shown_to(self, strategy: Strategy, name: str, random: torch.Generator) -> Signal:
        """Leave out what `needs` does not name."""
        return Signal(
            name,
            self.weight,
            random,
            gradient=self.gradient if Need.GRADIENT in strategy.needs else None,
            activation=self.activation if Need.ACTIVATION in strategy.needs else None,
            **{str(need.name).lower(): value for need, value in self.more.items() if need in strategy.needs},
        )


def observe(
    model: PreTrainedModel, batch: Batch, task: Task, protocol: Protocol, *, noisy: bool
) -> dict[str, Signals]:
    """Measure one batch's gradients and mean activations, averaged over eta passes if noisy.

    Returns one Signals per prunable parameter. Activations are the Linears' outputs before noise is
    added to them. Where the protocol keeps dropout on for gradients, they come from a pass of their
    own, without dropout and noise.
    """
    linears = prunable_linears(model, protocol)
    parameters = prunable_parameters(model, protocol)
    passes = protocol.eta if noisy and protocol.noise_std > 0 else 1
    together = _together(passes, batch["input_ids"].numel(), protocol.tokens_at_once)
    rounds = passes // together
    dropout = protocol.dropout == "gradients"
    once = {key: value for key, value in batch.items() if key != "labels"}
    inputs = {key: torch.cat([value] * together) for key, value in once.items()} if together > 1 else once
    activations = _MeanActivations(linears, once if dropout else inputs, protocol)
    with ExitStack() as hooks:
        if not dropout:
            hooks.enter_context(activations.recording())
        if noisy:
            hooks.enter_context(_noise(model, linears, protocol))
        gradients = hooks.enter_context(_mean_gradients(parameters, rounds))
        model.train(dropout)
        for _ in range(rounds):
            each = model(**inputs).logits.chunk(together)
            labels, reduction = batch["labels"], protocol.regression_loss
            torch.stack(
                [objective.loss(task, logits, labels, reduction) for logits in each]
            ).mean().backward()
    model.eval()
    if dropout:
        with activations.recording(), torch.no_grad():
            model(**once)

    signals = {}
    for name, parameter in parameters.items():
        activation = activations.mean(name.rpartition(".")[0])
        shape = (-1,) + (1,) * (parameter.dim() - 1)
        signals[name] = Signals(
            parameter.detach(),
            gradients[name] if name in gradients else torch.zeros_like(parameter.detach()),
            activation.view(shape) if activation.dim() else activation,
        )
    return signals


@contextmanager
def _mean_gradients(parameters: Mapping[str, nn.Parameter], passes: int) -> Iterator[dict[str, Tensor]]:
    """Mean over backward passes, added up as each gradient comes: a second set of them is never held.

    Parameters that no loss reaches are left out.
    """
    means: dict[str, Tensor] = {}

    def take(name: str, parameter: Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None  # the hook is called when it is there
        if passes == 1:
            means[name] = gradient
        elif name in means:
            means[name].add_(gradient, alpha=1 / passes)
        else:
            means[name] = gradient.mul_(1 / passes)

    handles = [
        p.register_post_accumulate_grad_hook(lambda p, name=name: take(name, p))
        for name, p in parameters.items()
    ]
    with in_place(handles):
        yield means


def _together(passes: int, tokens: int, at_once: int | None) -> int:
    """How many noisy passes over a batch go through the model at once: few large products cost less."""
    fitting = [n for n in range(1, passes + 1) if passes % n == 0 and n * tokens <= (at_once or 0)]
    return max(fitting, default=1)


class _MeanActivations:
    """Mean output of each Linear over sequences and tokens (the inner sums of eq. 5)."""

    def __init__(
        self, linears: Mapping[str, nn.Linear], inputs: Mapping[str, Tensor], protocol: Protocol
    ) -> None:
        self.linears = linears
        self.protocol = protocol
        attention_mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
        tokens = attention_mask if protocol.padding == "out" else torch.ones_like(attention_mask)
        self.weights = tokens / tokens.sum()  # (batch, length), summing to 1
        self.sums: dict[str, Tensor] = {}
        self.calls: dict[str, int] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        handles = [
            linear.register_forward_hook(lambda m, i, output, name=name: self._record(name, output))
            for name, linear in self.linears.items()
        ]
        with in_place(handles):
            yield

    @torch.no_grad()
    def _record(self, name: str, output: Tensor) -> None:
        if output.dim() == 3:  # (batch, length, out)
            mean = torch.einsum("bt,bto->o", self.weights.to(output), output)
        else:  # the pooler's (batch, out)
            mean = output.mean(0)
            if self.protocol.pooler_activation == "scalar":
                mean = mean.mean()
        self.sums[name] = self.sums.get(name, torch.zeros_like(mean)) + mean
        self.calls[name] = self.calls.get(name, 0) + 1

    def mean(self, name: str) -> Tensor:
        return self.sums[name] / self.calls[name]


@contextmanager
def _noise(model: nn.Module, linears: Mapping[str, nn.Linear], protocol: Protocol) -> Iterator[None]:
    """Add z ~ N(0, noise_std^2) to Linear outputs: y = (w x + b) + z (eq. 8)."""
    every = [m for m in model.modules() if isinstance(m, nn.Linear)]
    handles = [
        linear.register_forward_hook(
            lambda module, inputs, output: torch.randn_like(output).mul_(protocol.noise_std).add_(output)
        )
        for linear in (every if protocol.noise_on == "all" else linears.values())
    ]
    with in_place(handles):
        yield
