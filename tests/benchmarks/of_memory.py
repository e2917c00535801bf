"""What scoring needs of memory at its peak, each time in a process of its own."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from measuring import Row
from setting import CLEAN, SMOOTHED, Setting

from shrinkbench_bert import score
from shrinkbench_bert.models import prunable_parameters

STRATEGIES = [*CLEAN, *SMOOTHED]
MB = 1e6


def rows(setting: Setting) -> Iterator[Row]:
    """Peak over the sizes of the model and of one accumulator per strategy, and the growth per strategy."""
    model = setting.model()
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / MB
    sums = (
        sum(p.numel() * p.element_size() for p in prunable_parameters(model, setting.protocol).values()) / MB
    )
    peaks = {n: _peak(setting, n) for n in (1, len(CLEAN), len(STRATEGIES))}
    most = len(STRATEGIES)
    yield Row(
        f"peak memory of scoring, {most} strategies",
        f"model ({weights:.0f} MB) + one accumulator per strategy ({sums:.0f} MB each)",
        [peaks[most] / (weights + most * sums)],
        1.25,
        note=", ".join(f"{n}: {peak:.0f} MB" for n, peak in peaks.items()) + "; batches of 16, pass by pass",
    )
    yield Row(
        "growth of that peak per strategy",
        "one accumulator",
        [(peaks[most] - peaks[1]) / (most - 1) / sums],
        1.25,
    )


def _peak(setting: Setting, n: int) -> float:
    command = [sys.executable, __file__, setting.source, str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def _memory(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None  # Linux has both
    return int(found[1]) * 1024 / MB


def main() -> None:
    """Print the peak of this process above what it had before the model, in MB."""
    logging.disable(logging.WARNING)
    setting, n = Setting(sys.argv[1]), int(sys.argv[2])
    batches = setting.grouped(4)
    setting.model(layers=1)  # all that loading a model imports
    before = _memory("VmRSS")
    model = setting.model().eval()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    score(model, batches, STRATEGIES[:n], task=setting.task, eta=2)
    print(_memory("VmHWM") - before)


if __name__ == "__main__":
    main()
