"""The report: averages worked out by hand, what is drawn and printed, and that it repeats."""

from __future__ import annotations

import colorsys
import itertools
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.colors as mcolors
import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from results_factory import make_result

from shrinkbench_bert import strategy_names
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.report import small_multiples, write_report
from shrinkbench_bert.report.aggregate import by_compression, check_one_grid, long_form
from shrinkbench_bert.report.drawing import draw
from shrinkbench_bert.report.figures import figures
from shrinkbench_bert.report.labels import DASH, TIMES, Header
from shrinkbench_bert.report.layout import tables
from shrinkbench_bert.report.style import HEAD_STYLES, STYLES, Style, style
from shrinkbench_bert.report.tables import latex, markdown, wide
from shrinkbench_bert.store import Result, ResultStore
from shrinkbench_bert.tasks import TASKS

A, B = "LayerMagWeight", "LayerGradCAMShift"


def frame_of(results: list[Result]) -> pd.DataFrame:
    return pd.DataFrame([result.row() for result in results])


def figure_of(results: list[Result], metric: str | None = None, stage: str = "after_retraining") -> Figure:
    frame = frame_of(results)
    points, task = long_form(frame), TASKS[frame["task"].iloc[0]]
    metric = metric or task.metric
    header = Header.of(frame, by_compression(frame))
    return draw(points[points["metric"] == metric], header, task, metric, stage)


def tables_of(results: list[Result]):
    frame = frame_of(results)
    header = Header.of(frame, by_compression(frame))
    return list(tables(long_form(frame), header)), header


def point(points: pd.DataFrame, strategy: str, metric: str, stage: str = "after_retraining"):
    rows = points[(points[["strategy", "metric", "stage"]] == [strategy, metric, stage]).all(axis=1)]
    assert len(rows) == 1
    return rows.iloc[0]


def lines_of(figure: Figure) -> dict[str, Line2D]:
    """The lines with a legend entry, by its text before a colon, in the legend's order."""
    drawn = {str(line.get_label()): line for line in figure.axes[0].lines}
    entries = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    return {entry.split(":")[0]: drawn[entry] for entry in entries}


def bars_of(figure: Figure) -> list[bool]:
    containers = figure.axes[0].containers
    return [c.has_yerr for c in containers if isinstance(c, ErrorbarContainer)]


def words_of(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.axes[0].texts).replace("\n", " ")


def seeds(*accuracies: float) -> list[Result]:
    return [
        make_result(strategy=A, seed=i, after_retraining={"accuracy": accuracy})
        for i, accuracy in enumerate(accuracies)
    ]


# Averages


def test_mean_and_sample_deviation_by_hand():
    row = point(long_form(frame_of(seeds(0.7, 0.8, 0.9))), A, "accuracy")
    assert row["mean"] == pytest.approx(0.8)
    assert row["sd"] == pytest.approx(0.1)  # sqrt((0.01 + 0 + 0.01) / 2)
    assert (row["n_seeds"], row["n_undefined"], row["n_examples"]) == (3, 0, 400)
    assert row["keep"] == pytest.approx(0.147)
    assert row["compression"] == pytest.approx(22.7 / (11.9 + 0.147 * 10.8))


def test_one_seed_has_no_deviation():
    points = long_form(frame_of([make_result()]))
    assert points["sd"].isna().all()
    assert point(points, A, "accuracy")["n_seeds"] == 1


def test_dense_counts_once_per_seed_however_many_cells_share_it():
    dense = {0: 0.9, 1: 0.8}
    results = [
        make_result(strategy=s, keep=k, seed=seed, dense={"accuracy": dense[seed]})
        # One strategy lacks seed 1: a mean over cells would be pulled towards seed 0.
        for s, k, seed in itertools.product((A, B), (0.361, 0.147), (0, 1))
        if (s, seed) != (B, 1)
    ]
    row = point(long_form(frame_of(results)), "dense", "accuracy", "dense")
    assert row["mean"] == pytest.approx(0.85)
    assert row["sd"] == pytest.approx(0.1 / math.sqrt(2))
    assert row["n_seeds"] == 2


def test_undefined_value_is_left_out_and_counted():
    results = [
        make_result("stsb", seed=seed, after_retraining={"pearson": value})
        for seed, value in enumerate((0.5, None, 0.7))
    ]
    row = point(long_form(frame_of(results)), A, "pearson")
    assert row["mean"] == pytest.approx(0.6)
    assert (row["n_seeds"], row["n_undefined"]) == (2, 1)


@pytest.mark.parametrize(
    "other",
    [
        make_result(seed=1, grid="other"),
        make_result(seed=1, source="nyu-mll/glue"),
        make_result(seed=1, protocol="paper"),
        make_result(compression=1.5),
        make_result(),
    ],
)
def test_results_that_may_not_be_averaged_are_refused(other: Result):
    with pytest.raises(UserError, match="results in 'here'"):
        check_one_grid(frame_of([make_result(), other]), "here")


# Styles


@pytest.mark.parametrize(("styles", "of"), [(STYLES, "weights"), (HEAD_STYLES, "heads")])
def test_every_builtin_strategy_has_a_look_that_no_other_has_even_in_grey(styles: dict[str, Style], of: str):
    assert set(strategy_names(of)) <= styles.keys()
    assert len(set(styles.values())) == len(styles)
    assert len({(look.marker, look.filled, look.dash) for look in styles.values()}) == len(styles)


def test_a_global_strategy_is_dashed_and_hollow_and_has_its_layerwise_hue():
    for name, look in STYLES.items():
        assert look.filled != name.startswith("Global")
        own = STYLES.get(name.replace("Global", "Layer"), look)
        hue, layers_hue = (colorsys.rgb_to_hls(*mcolors.to_rgb(each.color))[0] for each in (look, own))
        assert hue == pytest.approx(layers_hue, abs=0.06), name


def test_unknown_strategies_get_a_style_of_their_own():
    unknown = {style(f"Strategy{i}") for i in range(2000)}
    assert len(unknown) > 100
    assert not unknown & set(STYLES.values())
    assert replace(STYLES["LayerGrad"], filled=False) in unknown  # one of 216 would look like it


def test_a_strategy_looks_the_same_in_every_figure():
    alone = lines_of(figure_of([make_result("cola", A)], "mcc"))
    among = lines_of(
        figure_of(
            [make_result(strategy=s, compression=1.5) for s in ("GlobalRandom", "Mine", A, B)],
            stage="before_retraining",
        )
    )
    for line in (alone[A], among[A]):
        assert mcolors.same_color(line.get_color(), style(A).color)
        assert line.get_marker() == style(A).marker
    assert mcolors.same_color(among["Mine"].get_color(), style("Mine").color)


# Figures


def test_lines_lie_where_the_numbers_say():
    results = [
        make_result(strategy=s, keep=k, after_retraining={"accuracy": accuracy})
        for (s, k), accuracy in {
            (A, 0.361): 0.85,
            (A, 0.041): 0.55,
            (B, 0.361): 0.84,
            (B, 0.041): 0.75,
        }.items()
    ]
    figure = figure_of(results)
    lines, axes = lines_of(figure), figure.axes[0]
    assert list(lines[A].get_xdata()) == [0.361, 0.041]
    assert list(lines[A].get_ydata()) == [0.85, 0.55]
    assert set(lines["dense, unpruned"].get_ydata()) == {0.90}
    assert set(lines["majority class"].get_ydata()) == {0.51}
    assert list(lines) == ["dense, unpruned", B, A, "majority class"]  # best first at 4.1 %
    assert axes.get_xscale() == "log"
    assert axes.get_xlim()[0] > axes.get_xlim()[1]
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == [f"36.1 %\n1.44{TIMES}", f"4.1 %\n1.84{TIMES}"]
    assert axes.get_ylabel() == "accuracy (%), higher is better"
    assert "mini-GLUE (synthetic stand-in)" in words_of(figure)


def test_compression_runs_upwards_and_lower_errors_come_first():
    results = [
        make_result("stsb", s, compression=c, after_retraining={"mse": mse})
        for (s, c), mse in {(A, 1.2): 0.6, (A, 1.8): 2.0, (B, 1.2): 0.7, (B, 1.8): 1.5}.items()
    ]
    figure = figure_of(results)
    lines, axes = lines_of(figure), figure.axes[0]
    assert list(lines[B].get_xdata()) == [1.2, 1.8]
    assert list(lines) == ["dense, unpruned", B, A, "mean label"]
    assert axes.get_xscale() == "linear"
    assert axes.get_xlim()[0] < axes.get_xlim()[1]
    assert axes.get_xticklabels()[0].get_text() == f"1.2{TIMES}\n65.0 %"
    assert axes.get_ylabel() == "mean squared error, lower is better"


def test_error_bars_only_with_several_seeds():
    one, three = figure_of(seeds(0.7)), figure_of(seeds(0.7, 0.8, 0.9))
    assert bars_of(one) == [False]
    assert "1 seed: no spread can be shown; 400 validation examples" in words_of(one)
    assert bars_of(three) == [True]
    assert "mean of 3 seeds; bars: ± 1 standard deviation; 400 validation" in words_of(three)
    segment = three.axes[0].collections[-1].get_segments()[0]
    assert [y for _, y in segment] == pytest.approx([0.7, 0.9])


def test_caption_gives_the_range_of_seeds():
    text = words_of(figure_of([*seeds(0.7, 0.8, 0.9), make_result(keep=0.361, n=1500)]))
    assert "mean of 1 to 3 seeds; bars: ± 1 standard deviation (none for 1 seed)" in text
    assert "400 to 1,500 validation examples" in text


def test_strategies_that_tie_at_the_edge_stand_by_the_amount_before():
    """At 4.1 % all three are at the majority class; at 14.7 % B is; at 36.1 % C is the better of A and C."""
    means = {A: (0.7, 0.8, 0.51), B: (0.9, 0.51, 0.51), "LayerRandom": (0.8, 0.8, 0.51)}
    figure = figure_of(
        [
            make_result(strategy=name, keep=keep, after_retraining={"accuracy": accuracy})
            for name, own in means.items()
            for keep, accuracy in zip((0.361, 0.147, 0.041), own, strict=True)
        ]
    )
    order = ["dense, unpruned", "LayerRandom", A, B, "majority class"]
    assert list(lines_of(figure)) == order
    assert "those that tie, by the amount before" in figure.axes[0].get_legend().get_title().get_text()


def test_of_too_many_strategies_the_papers_get_a_figure_of_their_own():
    many = [A, B, *(f"Layer{letter}" for letter in "ABCDEFGHIJKLMNO")]
    frame = frame_of([make_result(strategy=name) for name in many])
    header = Header.of(frame, by_compression(frame))
    drawn = dict(figures(long_form(frame), header))
    assert set(drawn) == {"fig6_sst2", "fig6_sst2_before_retraining", "fig6_sst2_paper"}
    assert set(lines_of(drawn["fig6_sst2_paper"])) == {"dense, unpruned", "majority class", A, B}
    assert "of 17 strategies those of the paper and a random one; fig6_sst2 shows every one" in words_of(
        drawn["fig6_sst2_paper"]
    )
    few = frame[frame["strategy"] != "LayerO"]
    assert "fig6_sst2_paper" not in dict(figures(long_form(few), header))
    own = frame[~frame["strategy"].isin([A, B])].assign(strategy=lambda f: "Own" + f["strategy"])
    assert "fig6_sst2_paper" not in dict(figures(long_form(own), header))


def test_a_cell_not_yet_run_breaks_the_line():
    results = [make_result(strategy=A, keep=keep) for keep in (0.041, 0.361)]
    results += [make_result(strategy=B, keep=keep) for keep in (0.361, 0.147, 0.041)]
    line = lines_of(figure_of(results))[A]
    assert list(line.get_xdata()) == [0.361, 0.147, 0.041]
    assert [math.isnan(y) for y in line.get_ydata()] == [False, True, False]


def test_an_undefined_point_breaks_the_line_and_is_counted():
    results = [
        make_result("stsb", keep=keep, after_retraining={"pearson": value})
        for keep, value in ((0.361, 0.8), (0.147, None), (0.041, 0.3))
    ]
    figure = figure_of(results, "pearson")
    y = list(lines_of(figure)[A].get_ydata())
    assert (y[0], y[2]) == (0.8, 0.3)
    assert math.isnan(y[1])
    assert "1 of 3 results undefined and left out" in words_of(figure)
    assert "mean label" not in lines_of(figure)
    assert "no line for the mean label" in words_of(figure)


def test_a_figure_without_any_value_is_drawn():
    undefined = {"pearson": None}
    figure = figure_of([make_result("stsb", after_retraining=undefined, dense=undefined)], "pearson")
    assert "no result has a value; 400 validation examples; 1 of 1 result" in words_of(figure)


LONG = "AStrategyOfTheUsersWithAVeryLongName"


def crowd(strategies: list[str]) -> Figure:
    return figure_of(
        [
            make_result(strategy=s, keep=k, model="a-hub-user/with-a-long-name-" + "x" * 70)
            for s in strategies
            for k in (0.9, 0.88, 0.87, 0.361, 0.147, 0.087, 0.041)
        ]
    )


def assert_no_overlap(figure: Figure) -> None:
    figure.draw_without_rendering()
    texts = [text for text in (figure._suptitle, figure._supxlabel, figure._supylabel) if text]
    for axes in figure.axes:
        low, high = axes.get_ylim()  # labels beyond it are not drawn
        texts += [text for text in axes.get_yticklabels() if low <= text.get_position()[1] <= high]
        texts += [*axes.texts, *axes.get_xticklabels(), axes.xaxis.label]
        texts += [axes.yaxis.label, *axes.get_legend().get_texts(), axes.get_legend().get_title()]
        assert not axes.get_legend().get_window_extent().overlaps(axes.get_window_extent())
    boxes = [text.get_window_extent() for text in texts if text.get_visible() and text.get_text()]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


def test_no_text_overlaps_another():
    figure = crowd([*list(STYLES)[:15], LONG])
    assert len(figure.axes) == 1
    assert_no_overlap(figure)
    assert sum(label.get_visible() for label in figure.axes[0].get_xticklabels()) == 5


def test_more_strategies_than_one_panel_can_show_are_drawn_score_by_score():
    figure = crowd([*STYLES, LONG])
    assert_no_overlap(figure)
    named = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes]
    assert sorted(itertools.chain(*named)) == sorted([*STYLES, LONG])
    assert ["LayerMagAct", "GlobalMagAct", "LayerMagAct24"] in named
    assert [LONG] in named
    with_ticks = [axes for axes in figure.axes if axes.xaxis.get_tick_params()["labelbottom"]]
    assert len(with_ticks) == 3  # the last of every column


def test_a_panel_has_its_scores_lines_and_the_others_in_grey():
    strategies = list(STYLES)[:17]
    figure = figure_of(
        [
            make_result(
                strategy=s, keep=k, seed=seed, after_retraining={"accuracy": 0.6 + i / 100 + seed / 10}
            )
            for i, s in enumerate(strategies)
            for k in (0.5, 0.041)
            for seed in (0, 1)
        ]
    )
    (axes,) = [
        axes for axes in figure.axes if axes.get_legend().get_texts()[0].get_text() == "LayerMagWeight"
    ]
    drawn = {str(line.get_label()).split(":")[0]: line for line in axes.lines}
    assert list(drawn["LayerMagWeight"].get_ydata()) == pytest.approx([0.65, 0.65])
    assert list(drawn["GlobalMagWeight"].get_ydata()) == pytest.approx([0.66, 0.66])
    assert list(drawn["GlobalMagWeight"].get_xdata()) == [0.5, 0.041]
    assert set(drawn["dense, unpruned"].get_ydata()) == {0.90}
    assert set(drawn["majority class"].get_ydata()) == {0.51}
    grey = [line for line in axes.lines if line.get_color() == small_multiples.OTHERS]
    assert sorted(line.get_ydata()[0] for line in grey) == pytest.approx(
        [0.65 + i / 100 for i in range(2, 16)]
    )
    assert axes.get_xlim()[0] > axes.get_xlim()[1]
    said = figure._supxlabel.get_text().replace("\n", " ")
    assert "Solid black line: dense, unpruned: 90.0. Broken black line: majority class: 51.0." in said
    assert "Mean of 2 seeds. Bars: ± 1 standard deviation. 400 validation examples." in said


def test_the_others_break_and_show_single_points_too():
    strategies = list(STYLES)[:17]
    alone, broken = strategies[:2]
    keeps = {alone: [0.147], broken: [0.5, 0.041]}
    figure = figure_of(
        [make_result(strategy=s, keep=k) for s in strategies for k in keeps.get(s, [0.5, 0.147, 0.041])]
    )
    axes = figure.axes[-1]
    grey = [line for line in axes.lines if line.get_color() == small_multiples.OTHERS]
    drawn = sorted([math.isnan(y) for y in line.get_ydata()] for line in grey)
    assert drawn[-2:] == [[False, True, False], [True, False, True]]
    assert {line.get_marker() for line in grey} == {"."}


def test_what_is_undefined_is_no_reference_line():
    results = [
        make_result("cola", s, dense={"mcc": None}, after_retraining={"mcc": 0.1}) for s in list(STYLES)[:17]
    ]
    said = figure_of(results, "mcc")._supxlabel.get_text().replace("\n", " ")
    assert "Solid black line" not in said
    assert "Broken black line: majority class: 0.000." in said


def test_six_amounts_have_their_labels_in_every_column():
    keeps = (0.5, 0.361, 0.25, 0.147, 0.087, 0.041)
    names = [*list(STYLES)[:17], "AnothersOwn"]
    figure = figure_of([make_result(strategy=s, keep=k) for s in names for k in keeps])
    labelled = [axes for axes in figure.axes if axes.xaxis.get_tick_params()["labelbottom"]]
    assert len(labelled) == 3
    for axes in labelled:
        assert all(label.get_visible() for label in axes.get_xticklabels())


def test_a_single_row_of_panels():
    """Six names a score, the most there can be: eighteen strategies are three scores."""
    kinds, scores = ("Layer", "Global", ""), ("Aa", "Bb", "Cc")
    figure = crowd([f"{kind}{score}{n}" for kind in kinds for score in scores for n in ("", "24")])
    assert len(figure.axes) == 3
    assert_no_overlap(figure)


@pytest.mark.parametrize(
    ("strategies", "together"),
    [
        (["LayerMine", "GlobalMine", "Mine"], [["GlobalMine", "LayerMine", "Mine"]]),
        (["LayerMagWeight24", "GlobalMagWeight"], [["GlobalMagWeight", "LayerMagWeight24"]]),
        (["Layers", "Globality", "HeadRandom"], [["HeadRandom"], ["Globality"], ["Layers"]]),
    ],
)
def test_strategies_of_one_score_are_known_by_their_names(strategies: list[str], together: list[list[str]]):
    assert small_multiples.by_score(strategies) == together


# Tables


def test_tables_mark_the_best_in_both_directions():
    results = [
        make_result(strategy=A, after_retraining={"accuracy": 0.8134}),
        make_result(strategy=B, after_retraining={"accuracy": 0.75}),
        make_result("stsb", A, after_retraining={"mse": 1.5}),
        make_result("stsb", B, after_retraining={"mse": 0.9126}),
    ]
    laid_out, header = tables_of(results)
    text = " ".join(markdown(laid_out, header).split())
    assert f"| strategy | 14.7 % (1.68{TIMES}) |" in text
    assert "| dense | 90.0 | | majority class | 51.0 |" in text
    assert f"| {A} | **81.3** | | {B} | 75.0 |" in text
    assert f"| {A} | 1.500 | | {B} | **0.913** |" in text
    assert "1 seed (n = 1): no spread can be given; 400 validation examples." in text
    tex = latex(laid_out, header)
    assert rf"{A} & \textbf{{81.3}} \\" in tex
    assert rf"{B} & \textbf{{0.913}} \\" in tex
    assert r"strategy & 14.7 \% (1.68$\times$) \\" in tex
    assert tex.count(r"\toprule") == tex.count(r"\bottomrule") == len(laid_out) == 8


def test_equal_as_printed_is_equally_best():
    best = {A: 0.8131, B: 0.8134, "LayerRandom": 0.5, "GlobalRandom": 0.6}
    results = [make_result(strategy=name, after_retraining={"accuracy": best[name]}) for name in best]
    laid_out, _ = tables_of(results)
    assert [laid_out[0].rows[name][0].best for name in (*best, "dense")] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("accuracies", "bold"),
    [([0.53, 0.5303, 0.51], 0), ([0.53, 0.53, 0.51, 0.5], 2), ([0.53], 1), ([0.5] * 2, 0)],
)
def test_what_most_strategies_share_is_no_best(accuracies: list[float], bold: int):
    results = [
        make_result(strategy=f"Layer{letter}", after_retraining={"accuracy": accuracy})
        for letter, accuracy in zip("ABCD", accuracies, strict=False)
    ]
    (table, *_), _ = tables_of(results)
    assert sum(entry.best for entries in table.rows.values() for entry in entries) == bold
    assert table.caption.endswith("none where more than half tie for best.")


def test_entries_of_several_seeds():
    results = [
        *seeds(0.7, 0.8, 0.9),
        make_result(strategy=B, after_retraining={"accuracy": 0.5}),
        make_result(strategy=B, keep=0.361, after_retraining={"accuracy": 0.6}),
    ]
    laid_out, header = tables_of(results)
    table = wide(laid_out).query("stage == 'after_retraining'").set_index("strategy")
    assert list(table.columns) == ["task", "stage", "metric", "seeds", "keep-0.361", "keep-0.147"]
    assert table.loc[A, "keep-0.147"] == "80.0 ± 10.0 (3 seeds)"
    assert table.loc[B, "keep-0.147"] == "50.0 (1 seed)"
    assert table.loc[A, "keep-0.361"] == DASH
    assert "mean ± sample standard deviation over seeds, which 1 seed does not have" in (laid_out[0].caption)
    assert r"80.0 $\pm$ 10.0 (3 seeds)" in latex(laid_out, header)


def test_seeds_that_all_entries_have_are_counted_once():
    laid_out, header = tables_of(seeds(0.7, 0.8, 0.9))
    assert laid_out[0].rows[A][0].text == "80.0 ± 10.0"
    assert "mean ± sample standard deviation over 3 seeds; 400 validation examples" in laid_out[0].caption
    assert set(wide(laid_out)["seeds"]) == {"3 seeds"}
    assert "over 3 seeds" in latex(laid_out, header)


def test_undefined_entries_say_so():
    laid_out, _ = tables_of([make_result("stsb", after_retraining={"pearson": None})])
    table = next(t for t in laid_out if (t.stage, t.metric) == ("after_retraining", "pearson"))
    assert table.rows["mean label"][0].text == table.rows[A][0].text == "undefined"
    assert not table.rows[A][0].best
    assert "1 of 1 result undefined and left out." in table.caption


def test_latex_escapes_what_it_must():
    tex = latex(*tables_of([make_result(source="data/my_glue&co", model="a_b")]))
    assert r"model a\_b, protocol sound, data data/my\_glue\&co" in tex


# The whole


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ResultStore:
    store = ResultStore(tmp_path_factory.mktemp("results") / "hand")
    for task, strategy, seed in itertools.product(TASKS, (A, "Mine"), (0, 1)):
        store.save(make_result(task, strategy, seed=seed))
    return store


@pytest.fixture(scope="module")
def plots(store: ResultStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plots") / "hand"
    assert sorted(write_report(store, folder).paths) == sorted(folder.iterdir())
    return folder


def test_every_file_is_written(plots: Path):
    figures = {
        *("fig6_sst2", "fig6_sst2_before_retraining", "fig7_stsb", "fig7_stsb_before_retraining"),
        *("fig7_stsb_pearson", "fig7_stsb_spearman", "fig8_cola", "fig8_cola_before_retraining"),
        "fig8_cola_mcc",
    }
    tables = {"tables.md", "tables.tex", "tables.csv", "long.csv", "pairs.csv", "evidence.md", "claims.md"}
    expected = {f"{name}.{suffix}" for name in figures for suffix in ("png", "svg")} | tables
    assert {path.name for path in plots.iterdir()} == expected
    assert all(path.stat().st_size > 200 for path in plots.iterdir())


ELSEWHERE = """
import sys
from pathlib import Path
from shrinkbench_bert.report import write_report
from shrinkbench_bert.report.style import style
from shrinkbench_bert.store import ResultStore
write_report(ResultStore(sys.argv[1]), Path(sys.argv[2]))
print(style("Mine"), "torch" in sys.modules)
"""


def test_another_process_draws_the_same_bytes_without_torch(store: ResultStore, plots: Path, tmp_path: Path):
    again = tmp_path / "again"
    command = [sys.executable, "-c", ELSEWHERE, str(store.folder), str(again)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == f"{style('Mine')} False\n"
    for path in plots.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_long_form_on_disk(plots: Path):
    table = pd.read_csv(plots / "long.csv")
    key = ["task", "strategy", "amount", "metric", "stage"]
    assert {*key, "mean", "sd", "n_seeds", "n_examples", "keep", "compression"} <= {*table.columns}
    assert not table.duplicated(key).any()
    # 6 metrics in all; dense and baseline, and two stages of two strategies.
    assert len(table) == 6 * (2 + 2 * 2)


def test_empty_store_is_the_users_error(tmp_path: Path):
    with pytest.raises(UserError, match=r"no results in .*nothing"):
        write_report(ResultStore(tmp_path / "nothing"), tmp_path / "plots")
    assert not (tmp_path / "plots").exists()
