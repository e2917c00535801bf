"""The part of a design that lacks nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def complete_part(there: NDArray[np.bool_]) -> tuple[NDArray[np.intp], ...]:
    """Choose a part without gaps: while there is one, drop the slice that has the largest share of gaps.

    Args:
        there: whether there is a result, by any number of factors, such as (pairs, amounts, seeds).

    Returns:
        What is kept of each axis, as indices; none of any if there is no result at all. Of slices that lack
        as much, the one of the earlier axis goes, and then the earlier one; the last of an axis stays.
    """
    kept = [np.arange(n) for n in there.shape]
    if not there.any():
        return tuple(own[:0] for own in kept)
    while not (part := there[np.ix_(*kept)]).all():
        filled = [np.moveaxis(part, axis, 0).reshape(n, -1).mean(axis=1) for axis, n in enumerate(part.shape)]
        emptiest = [own.min() if len(own) > 1 else np.inf for own in filled]
        axis = int(np.argmin(emptiest))
        kept[axis] = np.delete(kept[axis], filled[axis].argmin())
    return tuple(kept)
