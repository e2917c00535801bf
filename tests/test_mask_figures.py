"""Figures 9 to 12: which are drawn, and that what they show is what was counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from results_factory import make_result
from test_overlaps import random_masks, save

from shrinkbench_bert.analysis.overlaps import overlaps
from shrinkbench_bert.analysis.similarity import KINDS, over_tensors, with_iou
from shrinkbench_bert.report import write_report
from shrinkbench_bert.report.aggregate import by_compression
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.report.mask_figures import mask_figures
from shrinkbench_bert.store import ResultStore

PAIR = ("LayerMagWeight", "LayerGradCAMShift")


def fill(
    folder: Path,
    *,
    tasks: tuple[str, ...] = ("sst2",),
    seeds: tuple[int, ...] = (0,),
    strategies: tuple[str, ...] = PAIR,
    keeps: tuple[float, ...] = (0.3, 0.1),
) -> ResultStore:
    store = ResultStore(folder)
    fields = [(t, s, name, keep) for t in tasks for s in seeds for name in strategies for keep in keeps]
    for i, (task, seed, strategy, keep) in enumerate(fields):
        save(store, random_masks(i, keep), task=task, strategy=strategy, seed=seed, keep=keep)
    return store


def draw(store: ResultStore) -> tuple[dict[str, Figure], pd.DataFrame]:
    frame = store.load()
    iou = with_iou(overlaps(store, list(store.results())).counts)
    return dict(mask_figures(iou, Header.of(frame, by_compression(frame)))), iou


def words(figure: Figure) -> str:
    return " ".join([figure.get_suptitle(), figure.get_supxlabel()]).replace("\n", " ")


def test_one_task_and_one_seed(tmp_path: Path) -> None:
    figures, _ = draw(fill(tmp_path))
    assert set(figures) == {"fig9_sst2_kept", "fig9_sst2_pruned", "fig10_sst2"}
    assert "1 seed, no spread is known" in words(figures["fig9_sst2_kept"])
    assert "1 seed: no spread can be shown" in words(figures["fig10_sst2"])


def test_several_tasks_and_seeds(tmp_path: Path) -> None:
    figures, _ = draw(fill(tmp_path, tasks=("sst2", "cola"), seeds=(0, 1)))
    assert set(figures) == {
        *("fig9_sst2_kept", "fig9_sst2_pruned", "fig10_sst2"),
        *("fig9_cola_kept", "fig9_cola_pruned", "fig10_cola", "mask_seeds", "mask_tasks"),
    }
    assert "bars: ± 1 standard deviation" in words(figures["fig10_cola"])
    assert "1 pair of seeds" in words(figures["mask_seeds"])


@pytest.mark.parametrize("of", ["kept", "pruned"])
def test_the_matrices_hold_iou_below_and_chance_above(tmp_path: Path, of: str) -> None:
    figures, iou = draw(fill(tmp_path))
    summary = over_tensors(iou).set_index("amount")
    panels = figures[f"fig9_sst2_{of}"].axes
    for axes, (statistic, amount) in zip(
        panels, [(s, a) for s in ("mean", "min") for a in ("keep-0.3", "keep-0.1")], strict=True
    ):
        (image,) = axes.images
        matrix = np.ma.filled(image.get_array(), np.nan)
        row = summary.loc[amount]
        assert matrix[1, 0] == row[f"{of}_{statistic}"]
        assert matrix[0, 1] == row[f"{of}_chance_{statistic}"]
        assert np.isnan(matrix.diagonal()).all()
        shown = {(text.get_position(), text.get_text(), text.get_style()) for text in axes.texts}
        value, chance = (f"{matrix[i]:.2f}".removeprefix("0") for i in ((1, 0), (0, 1)))
        assert shown == {((0, 1), value, "normal"), ((1, 0), chance, "italic")}


def test_the_layers_show_every_kind_with_its_values(tmp_path: Path) -> None:
    figures, iou = draw(fill(tmp_path))
    axes = figures["fig10_sst2"].axes[0]  # kept, the mildest amount
    part = iou[(iou["amount"] == "keep-0.3") & (iou["layer"] >= 0)].set_index("layer")
    lines = {c.get_label(): c.lines[0] for c in axes.containers}
    assert set(lines) == set(KINDS)
    assert list(lines["query"].get_xdata()) == [1]
    assert list(lines["query"].get_ydata()) == [part.loc[0, "kept"]]
    assert list(lines["output"].get_ydata()) == [part.loc[1, "kept"]]
    (chance,) = (line for line in axes.lines if line.get_label() == "independent masks")
    assert list(chance.get_ydata()) == part["kept_chance"].tolist()


def test_the_papers_range_is_marked_at_the_amounts_that_it_is_of(tmp_path: Path) -> None:
    store = fill(tmp_path, keeps=(0.3, 0.1))
    frame, (_, iou) = store.load(), draw(store)
    iou = iou.assign(n=1000, kept_a=iou["amount"].map({"keep-0.3": 300, "keep-0.1": 150}))
    figure = dict(mask_figures(iou, Header.of(frame, by_compression(frame))))["fig10_sst2"]
    assert "82 to 86 % that the paper prints" in words(figure)
    for mild, hard in (figure.axes[:2], figure.axes[2:]):
        assert not mild.patches
        box = hard.patches[0].get_extents().transformed(hard.transData.inverted())
        assert (box.y0, box.y1) == pytest.approx((0.818, 0.862))
    mild = dict(mask_figures(iou.assign(kept_a=300), Header.of(frame, by_compression(frame))))["fig10_sst2"]
    assert not any(axes.patches for axes in mild.axes)
    assert "that the paper prints" not in words(mild)


def test_the_stability_of_a_mask_by_hand(tmp_path: Path) -> None:
    figures, iou = draw(fill(tmp_path, seeds=(0, 1, 2)))
    pairs = iou[(iou["seed_a"] != iou["seed_b"]) & (iou["strategy_a"] == PAIR[0])]
    expected = over_tensors(pairs).groupby("amount")["kept_mean"].mean()
    lines = {c.get_label(): c.lines[0] for c in figures["mask_seeds"].axes[0].containers}
    assert lines[PAIR[0]].get_ydata().tolist() == pytest.approx([expected["keep-0.3"], expected["keep-0.1"]])


@pytest.mark.parametrize("name", ["fig10_sst2", "mask_seeds"])
def test_the_bar_of_an_iou_ends_where_an_iou_does(tmp_path: Path, name: str) -> None:
    """1, 1 and 0.7 are 0.9 ± 0.173, drawn up to 1; 0, 0 and 0.3 are 0.1 ± 0.173, drawn down to 0."""
    store = fill(tmp_path, seeds=(0, 1, 2), keeps=(0.3,))
    frame, (_, iou) = store.load(), draw(store)
    odd = iou["seed_a"] + iou["seed_b"] == 2
    iou = iou.assign(kept=np.where(odd, 0.7, 1.0), pruned=np.where(odd, 0.3, 0.0))
    figure = dict(mask_figures(iou, Header.of(frame, by_compression(frame))))[name]
    sd = 0.1 * np.sqrt(3)
    for axes, expected in zip(figure.axes, [(0.9 - sd, 1), (0, 0.1 + sd)], strict=True):
        bars = [bar for c in axes.containers for lines in c.lines[2] for bar in lines.get_segments()]
        assert len(bars) == 2
        assert all(bar[:, 1] == pytest.approx(expected) for bar in bars)


def test_the_report_draws_them_and_says_what_it_left_out(tmp_path: Path) -> None:
    store = fill(tmp_path / "results")
    assert write_report(store, tmp_path / "plots").left_out == ""
    drawn = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"fig9_sst2_kept.png", "fig9_sst2_pruned.svg", "fig10_sst2.png"} <= drawn
    store.save(make_result("sst2", "LayerRandom", keep=0.3))
    left_out = write_report(store, tmp_path / "plots").left_out
    assert left_out.startswith("masks of 1 of 5 results are not there, such as those of sst2/LayerRandom")


def test_many_strategies_are_read_by_colour(tmp_path: Path) -> None:
    """Nineteen strategies would make numbers too small to read: they get colours, the paper's numbers."""
    many = (*PAIR, *(f"Layer{letter}" for letter in "ABCDEFGHIJKLMNOPQ"))
    figures, _ = draw(fill(tmp_path, strategies=many, keeps=(0.5, 0.3, 0.2, 0.1)))
    of_the_paper = figures["fig9_sst2_kept"]
    assert "Of 19 strategies those of the paper" in words(of_the_paper)
    assert "white off the diagonal" not in words(of_the_paper)
    assert [axes.get_subplotspec().rowspan.start for axes in of_the_paper.axes] == [0] * 4 + [1] * 4
    names = [label.get_text() for label in of_the_paper.axes[0].get_yticklabels()]
    assert names == ["LayerMagWeight 1", "LayerGradCAMShift 2"]
    assert all(axes.texts for axes in of_the_paper.axes)
    *panels, bar = figures["fig9_sst2_kept_all"].axes
    assert bar.get_ylabel() == "IoU"
    assert [axes.get_title().split(":")[1] for axes in panels] == [" mean over tensors"] * 4 + [
        " min over tensors"
    ] * 4
    assert [axes.get_subplotspec().rowspan.start for axes in panels] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not any(axes.texts for axes in panels)
    assert panels[0].images[0].get_array().shape == (19, 19)


def test_of_many_strategies_the_papers_are_seen_alone(tmp_path: Path) -> None:
    many = (*PAIR, *(f"Layer{letter}" for letter in "ABCDEFGHIJKLMNOPQ"))
    tasks = ("sst2", "cola")
    figures, _ = draw(fill(tmp_path, tasks=tasks, strategies=many, seeds=(0, 1), keeps=(0.3,)))
    for name, drawn in (("mask_seeds", 2), ("mask_tasks", 2), ("mask_seeds_all", 19), ("mask_tasks_all", 19)):
        assert len(figures[name].axes[0].containers) == drawn
        assert ("Of 19 strategies those of the paper" in words(figures[name])) == (drawn == 2)


def test_what_has_no_masks_in_common_is_white(tmp_path: Path) -> None:
    fill(tmp_path, keeps=(0.3, 0.1))
    figures, _ = draw(fill(tmp_path, strategies=("LayerRandom",), keeps=(0.3,)))
    mild, hard, *_ = figures["fig9_sst2_kept"].axes
    assert np.ma.filled(mild.images[0].get_array(), np.nan)[2, 0] > 0
    assert np.isnan(np.ma.filled(hard.images[0].get_array(), np.nan)[2, 0])
    assert "White off the diagonal: the two have no masks" in words(figures["fig9_sst2_kept"])


def test_tasks_of_different_amounts_share_an_axis(tmp_path: Path) -> None:
    fill(tmp_path, tasks=("sst2",), seeds=(0, 1), keeps=(0.3, 0.1))
    store = fill(tmp_path, tasks=("cola",), seeds=(0, 1), keeps=(0.5,))
    figures, iou = draw(store)
    first, second, *_ = figures["mask_seeds"].axes
    assert [label.get_text() for label in figures["mask_seeds"].axes[2].get_xticklabels()] == [
        "50 %",
        "30 %",
        "10 %",
    ]
    own = over_tensors(iou[(iou["seed_a"] != iou["seed_b"]) & (iou["strategy_a"] == PAIR[0])])
    means = own.set_index(["task_a", "amount"])["kept_mean"]
    for axes, title, expected in (
        (first, "SST-2", [np.nan, means["sst2", "keep-0.3"], means["sst2", "keep-0.1"]]),
        (second, "CoLA", [means["cola", "keep-0.5"], np.nan, np.nan]),
    ):
        assert axes.get_title() == title
        lines = {c.get_label(): c.lines[0] for c in axes.containers}
        assert lines[PAIR[0]].get_ydata().tolist() == pytest.approx(expected, nan_ok=True)


def test_the_legend_of_many_strategies_has_room(tmp_path: Path) -> None:
    many = tuple(f"Layer{letter}{letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    figures, _ = draw(fill(tmp_path, strategies=many, seeds=(0, 1), keeps=(0.3,)))
    assert "mask_seeds" not in figures  # none of them is the paper's
    figure = figures["mask_seeds_all"]
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert legend.get_window_extent().y0 > figure._supxlabel.get_window_extent().y1
