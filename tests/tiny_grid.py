"""A grid of a dozen quick cells, and processes that run it so that they can be killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

Contents = dict[str, bytes]

TINY = """
    tasks = ["stsb", "sst2"]
    strategies = ["LayerSmoothGradCAM", "GlobalMagGrad", "LayerRandom"]
    keep = [0.5, 0.1]
    [protocol]
    eta = 2
    smooth_batches = 3
    [recipe]
    epochs_dense = 2
    epochs_retrain = 2
    batch_size = 16
    lr = 1e-2
"""
CELLS = 12
FIELD = [
    "GlobalDeepLift",
    "GlobalEmpiricalFisher",
    "GlobalGradCAM",
    "GlobalGradCAMShift",
    "GlobalIntegratedGradients",
    "GlobalLamp",
    "GlobalMagAct",
    "GlobalMovement",
    "GlobalSmoothGrad",
    "GlobalSmoothGradCAM",
    "GlobalSmoothGradCAMShift",
    "GlobalSnip",
    "LayerDeepLift",
    "LayerEmpiricalFisher",
    "LayerIntegratedGradients",
    "LayerMagAct",
    "LayerMagAct24",
    "LayerMagWeight24",
    "LayerMeanRank",
    "LayerMovement",
    "LayerSnip",
]
"""Strategies that run end to end in `test_field_grid.py`."""


def write_grid(folder: Path, checkpoint: Path, glue: Path, rest: str = TINY) -> Path:
    """Write the grid `tiny`; `rest` is all but its source and model, as TOML."""
    path = folder / "tiny.toml"
    path.write_text(f"source = {json.dumps(str(glue))}\nmodel = {json.dumps(str(checkpoint))}\n{rest}")
    return path


def _results(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*/*/*.json") if not p.name.endswith(".failed.json"))


def contents(folder: Path) -> Contents:
    """What must be equal between equal runs: every result up to its last block, the provenance."""
    found = {}
    for path in _results(folder):
        head, mark, tail = path.read_bytes().partition(b'\n "provenance": {')
        assert mark
        assert list(json.loads(path.read_bytes()))[-1] == "provenance"
        assert tail.endswith(b"\n }\n}\n")  # nothing follows it
        found[str(path.relative_to(folder))] = head
    return found


def litter(folder: Path) -> list[str]:
    """Files that are neither results, nor masks, nor the cache of dense weights."""
    known = (*_results(folder), *folder.glob("*/*/*.safetensors"))
    cached = (*folder.glob(".cache/*/dense_seed*.safetensors"), folder / ".cache" / "folder-id")
    files = {path for path in folder.rglob("*") if path.is_file()}
    return sorted(str(path.relative_to(folder)) for path in files - {*known, *cached})


def command(arguments: list[str], limit: int | None = None) -> None:
    """Run the command line in this process; no file may grow beyond `limit` bytes."""
    import torch

    from shrinkbench_bert import cli

    torch.set_num_threads(1)
    # Where the tests are a shell's background job, it is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(f"{arguments[-1]}.stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 2)
    os.dup2(log, 1)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = ["shrinkbench-bert", *arguments]
    cli.main()


def forked(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Start a process that has everything imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["shrinkbench_bert.runner", "shrinkbench_bert.experiment"])
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def running(grid: Path, results: Path, *more: str, limit: int | None = None) -> BaseProcess:
    """Start `run` on the grid; what it prints goes to a file `<log>.stderr` beside its log file."""
    log = results.parent / f"{results.name}-{len(list(results.parent.glob('*.stderr')))}.log"
    arguments = ["run", str(grid), "--results", str(results), *more, "--log-file", str(log)]
    return forked(command, arguments, limit)


def printed(results: Path) -> str:
    """What all runs printed, one after the other."""
    return "".join(path.read_text() for path in sorted(results.parent.glob(f"{results.name}-*.stderr")))


def logged(results: Path) -> list[str]:
    """The lines of all runs' logs, without date and time."""
    logs = sorted(results.parent.glob(f"{results.name}-*.log"))
    return [line.split(" ", 2)[2] for log in logs for line in log.read_text().splitlines()]
