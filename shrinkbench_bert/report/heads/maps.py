"""Which heads each score prefers: heat maps of layer x head, and how far the scores agree."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from scipy.stats import spearmanr

from shrinkbench_bert.report import labels
from shrinkbench_bert.report.canvas import RC
from shrinkbench_bert.report.heads.header import HeadsHeader, nearest_to_paper
from shrinkbench_bert.report.heads.panels import SMALL, entitle, new_figure
from shrinkbench_bert.report.style import order
from shrinkbench_bert.store import Result
from shrinkbench_bert.tasks import Task

Array = NDArray[np.float64]


def draw_maps(results: list[Result], header: HeadsHeader, task: Task) -> Figure:
    """Draw each strategy's scores, and how often it removes each head at the fraction nearest to 50 %."""
    names = order(result.cell.strategy for result in results)
    fraction = nearest_to_paper({r.cell.heads for r in results if r.cell.heads is not None})
    scores = {name: head_scores(results, name) for name in names}
    layers, heads = next(iter(scores.values())).shape[1:]
    with mpl.rc_context({**RC, "axes.grid": False}):
        figure = new_figure(7.2, (0.62 + 0.135 * layers) * len(names) + 0.7)
        panels = figure.subplots(len(names), 2, squeeze=False, sharex=True, sharey=True)
        for (left, right), name in zip(panels, names, strict=True):
            mean = scores[name].mean(0)
            low, high = mean.min(), mean.max()
            shown = (mean - low) / (high - low) if high > low else np.full_like(mean, 0.5)
            scored = _map(left, shown, "cividis")
            left.set_title(f"{name}: {low:.3g} to {high:.3g}", fontsize=SMALL + 0.5, loc="left")
            removed = _map(right, removed_share(results, name, fraction, (layers, heads)), "Greys")
            right.set_title(f"removed at {header.amount(fraction)}", fontsize=SMALL + 0.5, loc="left")
            left.set_ylabel("layer", fontsize=SMALL)
        for axes in panels[-1]:
            axes.set_xlabel("head", fontsize=SMALL)
        bars = (
            (scored, 0, "score, from the strategy's lowest to its highest", ["lowest", "highest"]),
            (removed, 1, "seeds in which the head is removed", ["none", "all"]),
        )
        for image, column, label, ends in bars:
            bar = figure.colorbar(image, ax=panels[:, column], location="bottom", aspect=40)
            bar.set_ticks([0, 1], labels=ends)
            bar.set_label(label, fontsize=SMALL)
        seeds = max(len(scores[name]) for name in names)
        of = f"{'mean of ' if seeds > 1 else ''}{labels.counted(seeds, 'seed')}"
        note = (
            f"Scores of the dense model, {of}; the lowest are removed first. "
            f"{labels.counted(layers, 'layer')} of {labels.counted(heads, 'head')}, both counted from 0."
        )
        entitle(figure, f"{task.title}: head scores, and what goes first", header, note)
    return figure


def _map(axes: Axes, values: Array, colors: str) -> AxesImage:
    image = axes.imshow(values, cmap=colors, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    layers, heads = values.shape
    axes.set_xticks(range(heads))
    axes.set_yticks(range(layers))
    axes.tick_params(length=0, labelsize=SMALL - 1.5)
    return image


def head_scores(results: list[Result], strategy: str) -> Array:
    """(seeds, layers, heads); one result of each seed, as all amounts share their scores."""
    by_seed = _scores_by_seed(results, strategy)
    return np.asarray([by_seed[seed] for seed in sorted(by_seed)])


def _scores_by_seed(results: list[Result], strategy: str) -> dict[int, Array]:
    return {
        r.cell.seed: np.asarray(r.heads.scores, np.float64)
        for r in results
        if r.cell.strategy == strategy and r.heads
    }


def removed_share(results: list[Result], strategy: str, fraction: float, shape: tuple[int, int]) -> Array:
    """The share of seeds in which each head is removed: (layers, heads)."""
    chosen = [
        r.heads.removed
        for r in results
        if r.heads and r.cell.strategy == strategy and r.cell.heads == fraction
    ]
    share = np.zeros(shape)
    for removed in chosen:
        for layer, listed in removed.items():
            share[layer, listed] += 1 / len(chosen)
    return share


def correlations(results: list[Result]) -> tuple[list[str], Array]:
    """Correlate (Spearman) the head scores of every two strategies, of each seed that all have.

    Returns their names, and (seeds, names, names).
    """
    names = order(result.cell.strategy for result in results)
    scores = {name: _scores_by_seed(results, name) for name in names}
    seeds = sorted(set.intersection(*(set(of_strategy) for of_strategy in scores.values())))
    each = np.ones((len(seeds), len(names), len(names)))
    for k, seed in enumerate(seeds):
        for i, a in enumerate(names):
            for j, b in enumerate(names):
                if i != j:
                    each[k, i, j] = spearmanr(scores[a][seed].ravel(), scores[b][seed].ravel()).statistic
    return names, each


def draw_correlation(results: list[Result], header: HeadsHeader, task: Task) -> Figure | None:
    """Draw Spearman's rank correlation between the head scores of every two strategies.

    Returns None if there is no seed that all strategies have.
    """
    names, each = correlations(results)
    seeds = len(each)
    if not seeds:
        return None
    with mpl.rc_context({**RC, "axes.grid": False}):
        size = 0.78 * len(names)
        figure = new_figure(size + 2.2, size + 1.0)
        axes = figure.subplots()
        mean = each.mean(0)
        image = axes.imshow(mean, cmap="RdBu_r", vmin=-1, vmax=1)
        for i in range(len(names)):
            for j in range(len(names)):
                text = f"{mean[i, j]:z.2f}"
                if seeds > 1 and i != j:
                    text += f"\n\N{PLUS-MINUS SIGN} {each[:, i, j].std(ddof=1):.2f}"
                axes.text(
                    j,
                    i,
                    text,
                    ha="center",
                    va="center",
                    fontsize=SMALL,
                    color="white" if abs(mean[i, j]) > 0.6 else "black",
                )
        axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0)
        figure.colorbar(image, ax=axes, shrink=0.75, label="Spearman's rank correlation")
        heads = head_scores(results, names[0])[0].size
        spread = "mean \N{PLUS-MINUS SIGN} sample standard deviation of " if seeds > 1 else ""
        note = f"Scores of the dense model's {heads} heads; {spread}{labels.counted(seeds, 'seed')}."
        entitle(figure, f"{task.title}: how far the head scores agree", header, note)
    return figure
