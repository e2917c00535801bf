"""Calling a formula: whatever goes wrong within it is told with the strategy's name."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from shrinkbench_bert.errors import UserError
from shrinkbench_bert.strategy import HeadSignal, Signal, Strategy


def call_score(strategy: Strategy, shown: Signal | HeadSignal, tensors: Sequence[Tensor], of: str) -> Any:
    """Give what `strategy.score(shown)` returns.

    Args:
        strategy: whose formula is called.
        shown: what it is shown.
        tensors: of `shown`; other strategies are shown them too.
        of: what is scored, in words.

    Raises:
        UserError: the formula raised something, or changed one of `tensors` in place.
    """
    name = type(strategy).__name__
    versions = [tensor._version for tensor in tensors]
    try:
        value = strategy.score(shown)
    except UserError as error:
        raise UserError(f"strategy {name!r}: {error}") from error
    except Exception as error:
        raise UserError(
            f"strategy {name!r}: score() of {of} raised {type(error).__name__}: {error}"
        ) from error
    if versions != [tensor._version for tensor in tensors]:
        raise UserError(f"strategy {name!r}: score() of {of} changes a signal in place; copy it first")
    return value
