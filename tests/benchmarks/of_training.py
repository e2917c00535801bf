"""What fine-tuning costs, dense and masked, and what share of the machine it uses."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import naive
import torch
from measuring import Row, ratios, seconds
from setting import Setting
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from shrinkbench_bert.masks import apply_masks, make_masks
from shrinkbench_bert.models import prunable_parameters
from shrinkbench_bert.training import fine_tune

SIZE = 2048
_KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "scaled_dot_product", "_flash"),
    "optimiser": ("adam",),
    "GELU, LayerNorm, dropout, softmax": ("gelu", "layer_norm", "dropout", "bernoulli", "softmax", "tanh"),
}


def rows(setting: Setting, rounds: int) -> Iterator[Row]:
    """One epoch in several ways, on the same examples, with the same batch size."""
    start = setting.model()
    examples = len(setting.data.train)

    def ours() -> None:
        _fine_tune(copy.deepcopy(start), setting)

    for name, theirs, bound in (
        ("the plain fp32 loop in random order", naive.train, 4),
        ("the library's Trainer with its default settings", naive.train_with_trainer, 2),
    ):
        found, slow, fast = ratios(lambda f=theirs: f(copy.deepcopy(start), setting), ours, rounds)
        yield Row(
            "fine-tuning throughput",
            name,
            found,
            bound,
            "at least",
            note=f"{examples / fast:.0f} against {examples / slow:.0f} examples/s",
        )
    scores = {name: p.detach().abs() for name, p in prunable_parameters(start, setting.protocol).items()}
    masks = make_masks(scores, 0.147, "layer")

    def masked() -> None:
        model = copy.deepcopy(start)
        with apply_masks(model, masks) as applied:
            _fine_tune(model, setting, applied)

    found, _, _ = ratios(masked, ours, rounds)
    yield Row("masked fine-tuning, 14.7 % kept", "dense fine-tuning", found, 1.05)
    yield _share_of_the_machine(setting, ours)


def _fine_tune(model, setting, masks=None) -> None:  # type: ignore[no-untyped-def]
    fine_tune(
        model, setting.data, setting.recipe(), setting.protocol, epochs=1, seed=0, purpose="b", masks=masks
    )


def _share_of_the_machine(setting: Setting, ours) -> Row:  # type: ignore[no-untyped-def]
    """Useful work of training over what this machine's matrix products reach, and where the rest goes."""
    a, b = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    a @ b
    rate = 2 * SIZE**3 / min(seconds(lambda: a @ b) for _ in range(5))
    useful = 3 * sum(_forward_flop(setting))  # a backward is two forwards
    taken = [seconds(ours) for _ in range(3)]
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        ours()
    own = {event.key: event.self_cpu_time_total for event in trace.key_averages()}
    total = sum(own.values())
    shares = {
        kind: sum(t for key, t in own.items() if any(part in key.lower() for part in parts)) / total
        for kind, parts in _KINDS.items()
    }
    shares["the rest"] = 1 - sum(shares.values())
    return Row(
        "training's share of the matrix-product rate",
        f"{rate / 1e9:.0f} GFLOP/s in fp32 ({SIZE} x {SIZE})",
        [useful / t / rate for t in taken],
        None,
        note="real tokens only; time goes to " + ", ".join(f"{k} {v:.0%}" for k, v in shares.items()),
        facts=shares,
    )


def _forward_flop(setting: Setting) -> Iterator[int]:
    """FLOP of each training sequence on its own, without padding."""
    model = setting.model().eval()
    model.set_attn_implementation("eager")
    by_length: dict[int, int] = {}
    for row in setting.data.train.encoded:
        length = len(row["input_ids"])
        if length not in by_length:
            ids = torch.zeros((1, length), dtype=torch.long)
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                model(input_ids=ids, attention_mask=torch.ones_like(ids))
            by_length[length] = counter.get_total_flops()
        yield by_length[length]
