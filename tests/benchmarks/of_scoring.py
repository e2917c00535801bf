"""What scores cost, in forward and backward passes."""

from __future__ import annotations

from collections.abc import Iterator

import naive
import torch
from measuring import Row, ratios, seconds
from setting import CLEAN, PAPER, SMOOTHED, Setting

from shrinkbench_bert import score
from shrinkbench_bert.models import prunable_parameters
from shrinkbench_bert.scoring import untouched

ETA = 10
BATCHES = 24
NOISY_BATCHES = 6
"""The first batch of a pass costs more, and a thousand clean and a hundred noisy ones are scored."""
TOGETHER = {"eta": ETA, "tokens_at_once": 4096}


def rows(setting: Setting, rounds: int) -> Iterator[Row]:
    """Sharing passes, against the bare passes, and against strategy by strategy."""
    model = setting.model().eval()
    batches = setting.grouped(BATCHES)
    bare = _bare(model, batches, setting)

    def clean() -> None:
        score(model, batches, CLEAN, task=setting.task)

    found, _, _ = ratios(clean, bare, rounds)
    yield Row(
        "scoring: all clean-gradient strategies together",
        "the same bare forward and backward passes",
        found,
        1.15,
        note=f"{len(CLEAN)} strategies, {len(batches)} batches of {setting.batch_size}",
    )
    few = batches[:NOISY_BATCHES]
    bare_eta = _bare(model, few * ETA, setting)

    for how, overrides, bound in (
        ("passes together", TOGETHER, 1.1),
        ("pass by pass", {"eta": ETA}, None),
    ):

        def smoothed(overrides: dict[str, int] = overrides) -> None:
            score(model, few, SMOOTHED, task=setting.task, **overrides)

        found, _, _ = ratios(smoothed, bare_eta, rounds)
        yield Row(
            f"scoring: all smoothed strategies together, eta = {ETA}, {how}",
            "the eta bare passes that it needs",
            found,
            bound,
            note=f"{len(SMOOTHED)} strategies, {len(few)} batches",
        )
    yield _all_eight(setting, rounds)


def _bare(model, batches, setting):  # type: ignore[no-untyped-def]
    """Forward and backward for the prunable parameters, nothing done with the gradients."""
    parameters = list(prunable_parameters(model, setting.protocol).values())

    def passes() -> None:
        with untouched(model, prunable_parameters(model, setting.protocol)):
            for batch in batches:
                torch.autograd.grad(naive.loss_of(model, batch), parameters)

    return passes


def _all_eight(setting: Setting, rounds: int) -> Row:
    """1,000 clean and 100 smoothed batches, from the measured cost of a batch of each kind."""
    model = setting.model().eval()
    ours, theirs = setting.grouped(BATCHES), setting.random_order(8)
    clean = [name for name in PAPER if name in CLEAN]

    def of_ours() -> float:
        per_clean = seconds(lambda: score(model, ours, clean, task=setting.task)) / len(ours)
        few = ours[:NOISY_BATCHES]
        noisy = seconds(lambda: score(model, few, SMOOTHED, task=setting.task, **TOGETHER))
        per_smooth = noisy / len(few)
        return 1000 * per_clean + 100 * per_smooth

    def of_theirs() -> float:
        total = 0.0
        for name in clean:
            total += 1000 * seconds(lambda name=name: naive.scores(model, theirs, name)) / len(theirs)
        for name in SMOOTHED:
            total += 100 * seconds(lambda name=name: naive.scores(model, theirs[:2], name)) / 2
        return total

    of_ours()
    return Row(
        "scoring: all eight paper strategies, 1,000 clean and 100 smoothed batches",
        "strategy by strategy, every parameter's gradient, padded batches in random order",
        [of_theirs() / of_ours() for _ in range(rounds)],
        8,
        "at least",
        note="from the measured seconds of a batch of each kind; noisy passes together",
    )
