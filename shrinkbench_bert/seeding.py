"""Every random draw of a cell comes from its seed, by name, and from nowhere else."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, *purpose: str | int) -> int:
    """Derive an independent 63-bit seed for one purpose, e.g. `derive(0, "noise", 17)`.

    The value depends on the arguments alone, not on what was drawn before, so a batch or a strategy
    gets the same numbers whichever other ones run beside it.
    """
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Make a CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


@contextmanager
def seeded(seed: int, *purpose: str | int) -> Iterator[None]:
    """Seed torch's global generators for a block (dropout, head init); the old state comes back."""
    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, *purpose))
        yield
