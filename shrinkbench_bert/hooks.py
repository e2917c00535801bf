"""Torch's hooks, for the length of a block."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch.utils.hooks import RemovableHandle


@contextmanager
def in_place(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Leave hooks where they are for a block, and remove them afterwards, whatever happens in it."""
    handles = list(handles)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
