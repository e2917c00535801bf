"""Which figures of masks a grid gets."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from shrinkbench_bert.analysis.similarity import SETS
from shrinkbench_bert.report.canvas import RC
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.mask_layers import PAIRS, draw_layers
from shrinkbench_bert.report.mask_matrices import matrices
from shrinkbench_bert.report.mask_stability import stability
from shrinkbench_bert.tasks import TASKS


def mask_figures(iou: pd.DataFrame, header: Header) -> Iterator[tuple[str, Figure]]:
    """Yield (file name without suffix, figure) from `with_iou` of a grid's counts.

    Figures 9 to 12 for every task whose masks are known; the stability of masks over seeds and over
    tasks where there are several.
    """
    same_task = iou["task_a"] == iou["task_b"]
    same_seed = iou["seed_a"] == iou["seed_b"]
    with mpl.rc_context(RC):
        for task in TASKS:
            part = iou[same_task & same_seed & (iou["task_a"] == task)]
            if part.empty:
                continue
            for of in SETS:
                yield from matrices(part, header, task, of)
            for pair in PAIRS:
                names = {pair.a, pair.b}
                own = part[part["strategy_a"].isin(names) & part["strategy_b"].isin(names)]
                if not own.empty:
                    yield f"fig{pair.number}_{task}", draw_layers(own, header, task, pair)
        if not (seeds := iou[same_task & ~same_seed]).empty:
            yield from stability(seeds, header, "seeds")
        if not (tasks := iou[~same_task]).empty:
            yield from stability(tasks, header, "tasks")
