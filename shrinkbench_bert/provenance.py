"""Where, when and with what a result was made."""

import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from shrinkbench_bert.store import Provenance

_PACKAGES = ("shrinkbench-bert", "torch", "transformers", "datasets", "numpy")


def provenance(
    started: datetime, seconds: Mapping[str, float], device: torch.device, dtype: torch.dtype
) -> Provenance:
    """Describe this process, machine and moment; `seconds` are per stage."""
    return Provenance(
        started=started.astimezone(UTC).isoformat(timespec="seconds"),
        seconds={stage: round(value, 3) for stage, value in seconds.items()},
        versions={"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        platform=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        dtype=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        git_revision=_git_revision(),
    )


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor()


@cache
def _git_revision() -> str | None:
    """The harness's own revision, with `-dirty` for uncommitted changes; None outside a checkout of it."""
    try:
        # Installed below a checkout of something else, it is no part of that.
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        return _git("describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
