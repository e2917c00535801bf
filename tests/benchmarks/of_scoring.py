"""What scores cost, in forward and backward passes and in memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator

import naive
import torch
from measuring import Row, ratios, seconds
from setting import CLEAN, PAPER, SMOOTHED, Setting

from shrinkbench_bert import score
from shrinkbench_bert.models import prunable_parameters
from shrinkbench_bert.scoring import untouched

ETA = 10


def rows(setting: Setting, rounds: int) -> Iterator[Row]:
    """Sharing passes, against the bare passes, and against strategy by strategy."""
    model = setting.model().eval()
    batches = setting.grouped(8)
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
    few = batches[:2]
    bare_eta = _bare(model, few * ETA, setting)

    def smoothed() -> None:
        score(model, few, SMOOTHED, task=setting.task, eta=ETA)

    found, _, _ = ratios(smoothed, bare_eta, rounds)
    yield Row(
        f"scoring: all smoothed strategies together, eta = {ETA}",
        "the eta bare passes that it needs",
        found,
        1.1,
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
    ours, theirs = setting.grouped(8), setting.random_order(8)
    clean = [name for name in PAPER if name in CLEAN]

    def of_ours() -> float:
        per_clean = seconds(lambda: score(model, ours, clean, task=setting.task)) / len(ours)
        per_smooth = seconds(lambda: score(model, ours[:2], SMOOTHED, task=setting.task, eta=ETA)) / 2
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
        note="from the measured seconds of a batch of each kind",
    )


def memory(setting: Setting) -> Row:
    """Peak memory by number of strategies, each count in a process of its own."""
    peaks = {}
    for strategies in ([], CLEAN[1:2], CLEAN[1:], [*CLEAN[1:], *SMOOTHED]):
        command = [sys.executable, __file__, setting.source, json.dumps(strategies)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[len(strategies)] = json.loads(done.stdout.splitlines()[-1])
    accumulator, model = peaks[0]["accumulator"], peaks[0]["model"]
    most = max(peaks)
    own = {k: found["peak"] - peaks[0]["peak"] for k, found in peaks.items() if k}
    return Row(
        f"peak memory of scoring: {most} strategies over bare passes",
        "one accumulator per strategy",
        [own[most] / (most * accumulator)],
        1.25,
        note=f"accumulator {accumulator / 1e6:.0f} MB, model {model / 1e6:.0f} MB; by number of strategies: "
        + ", ".join(f"{k}: {value / 1e6:.0f} MB" for k, value in own.items()),
    )


def _peak(source: str, strategies: list[str]) -> None:
    setting = Setting(source)
    model = setting.model().eval()
    batches = setting.grouped(3)
    _bare(model, batches, setting)()
    if strategies:
        score(model, batches, strategies, task=setting.task, eta=2)
    sizes = [p.numel() * 4 for p in model.parameters()]
    prunable = sum(p.numel() * 4 for p in prunable_parameters(model, setting.protocol).values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak": peak, "accumulator": prunable, "model": sum(sizes)}))


if __name__ == "__main__":
    _peak(sys.argv[1], json.loads(sys.argv[2]))
