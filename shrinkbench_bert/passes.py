"""How far a strategy reads when it scores, and what that costs: batches, and passes over them."""

from __future__ import annotations

from collections.abc import Iterable

from shrinkbench_bert.protocol import Protocol
from shrinkbench_bert.strategy import Need, Strategy, get_strategy

FORWARD_ALONE = 1 / 3
"""What a forward costs, where a forward and its backward cost 1."""


def batches_read(strategy: Strategy, protocol: Protocol) -> int:
    """Say how many batches a strategy reads at most; 0 if it needs no data."""
    if not strategy.needs:
        return 0
    if strategy.first_batch_only:
        return 1
    if strategy.smooth or Need.PATH_GRADIENT in strategy.needs:  # eta passes per batch
        return protocol.smooth_batches
    return protocol.clean_batches


def scoring_passes(names: Iterable[str], protocol: Protocol, batches: int) -> float:
    """Count the forward and backward passes over one batch that scoring costs.

    Strategies share the passes of one kind at the same weights; a forward alone counts as a third.

    Args:
        names: of strategies that score together.
        protocol: how many batches they read, and `eta`.
        batches: that there are.
    """
    costs: dict[tuple[str, str], float] = {}
    for strategy in (get_strategy(name).under(protocol) for name in names):
        read = min(batches, batches_read(strategy, protocol))
        for need, (kind, cost) in _kinds(strategy, protocol).items():
            if need in strategy.needs:
                costs[strategy.at, kind] = max(costs.get((strategy.at, kind), 0.0), read * cost)
    return sum(costs.values())


def _kinds(strategy: Strategy, protocol: Protocol) -> dict[Need, tuple[str, float]]:
    """The kind of pass that each signal is measured in, and what it costs per batch."""
    eta = float(protocol.eta)
    observed = ("noisy", eta if protocol.noise_std > 0 else 1.0) if strategy.smooth else ("clean", 1.0)
    return {
        Need.GRADIENT: observed,
        Need.ACTIVATION: observed,
        Need.ATTENTION: ("clean", FORWARD_ALONE),
        Need.SQUARED_INPUT: ("inputs", FORWARD_ALONE),
        Need.SQUARED_GRADIENT: ("examples", 1.0),
        Need.PATH_GRADIENT: ("path", eta),
        Need.RESCALED_GRADIENT: ("rescaled", 1.0),
    }
