"""`compare`: verdicts and tolerances worked out by hand, and what may not be compared."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from results_factory import make_result

from shrinkbench_bert import Protocol, Recipe, Result, ResultStore, UserError, cli
from shrinkbench_bert.report.aggregate import long_form
from shrinkbench_bert.report.comparison import Comparison, Move, compare
from shrinkbench_bert.report.comparison_table import describe_comparison

A, B = "LayerMagWeight", "LayerGradCAMShift"
MAKE_COMPARABLE = "run both with the same settings, data and weights"

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """`save("name", results)`: a folder of results, each in its grid's own."""

    def make(name: str, results: Sequence[Result]) -> Path:
        for result in results:
            ResultStore(tmp_path / name).grid(result.grid).save(result)
        return tmp_path / name

    return make


@pytest.fixture
def table(tmp_path: Path) -> Save:
    """`table("name", results)`: their long.csv."""

    def make(name: str, results: Sequence[Result]) -> Path:
        path = tmp_path / f"{name}.csv"
        long_form(pd.DataFrame([r.row() for r in results])).to_csv(path, index=False)
        return path

    return make


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run `shrinkbench-bert compare`: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["shrinkbench-bert", "compare", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        found = capsys.readouterr()
        return int(stopped.value.code or 0), found.out, found.err

    return run


def after(accuracy: float | None, **fields: Any) -> Result:
    return make_result(after_retraining={"accuracy": accuracy}, **fields)


def tolerant(results: Sequence[Result], **tolerance: float) -> list[Result]:
    return [result.model_copy(update={"tolerance": tolerance}) for result in results]


def with_cell(result: Result, **fields: Any) -> Result:
    return result.model_copy(update={"cell": result.cell.model_copy(update=fields)})


def with_fingerprint(result: Result, **fields: str) -> Result:
    return result.model_copy(update={"fingerprints": result.fingerprints.model_copy(update=fields)})


def with_kept(result: Result, kept: int) -> Result:
    size = result.size.model_copy(update={"kept": kept, "keep": kept / result.size.prunable})
    return result.model_copy(update={"size": size})


def only(comparison: Comparison) -> Move:
    (move,) = comparison.moves
    return move


class TestVerdicts:
    def test_equal_results_are_unchanged(self, save: Save) -> None:
        results = [make_result(task, keep=k) for task in ("sst2", "stsb") for k in (0.5, 0.1)]
        found = compare(save("old", results), save("new", results))
        assert (found.moves, found.compared, found.unchanged) == ([], 4, 4)

    @pytest.mark.parametrize(
        ("task", "metric", "old", "new", "verdict"),
        [
            ("sst2", "accuracy", 0.80, 0.79, "worse"),
            ("sst2", "accuracy", 0.80, 0.81, "better"),
            ("cola", "mcc", 0.2, -0.1, "worse"),
            ("stsb", "mse", 0.9, 1.0, "worse"),
            ("stsb", "mse", 0.9, 0.8, "better"),
            ("stsb", "pearson", 0.7, 0.6, "worse"),
            ("stsb", "spearman", 0.7, 0.8, "better"),
            # Undefined where there was a number.
            ("stsb", "pearson", 0.7, None, "worse"),
            ("stsb", "pearson", None, 0.0, "better"),
            ("stsb", "pearson", -0.4, None, "worse"),
        ],
    )
    @pytest.mark.parametrize("stage", ["dense", "before_retraining", "after_retraining"])
    def test_by_the_metrics_own_direction(
        self, save: Save, stage: str, task: str, metric: str, old: float, new: float, verdict: str
    ) -> None:
        left, right = (make_result(task, **{stage: {metric: value}}) for value in (old, new))
        found = compare(save("old", [left]), save("new", [right]))
        move = only(found)
        assert (move.verdict, move.quantity) == (verdict, (stage, metric))
        assert (found.compared, found.unchanged) == (1, 0)

    def test_undefined_on_both_sides_is_unchanged(self, save: Save) -> None:
        result = make_result("stsb", after_retraining={"pearson": None})
        assert not compare(save("old", [result]), save("new", [result])).moves

    @pytest.mark.parametrize("kept", [1_587_599, 1_587_601])
    def test_another_number_of_kept_weights_is_worse_either_way(self, save: Save, kept: int) -> None:
        result = make_result(keep=0.147)  # of 10.8 million: 1,587,600
        left, right = tolerant([result, with_kept(result, kept)], accuracy=1.0)
        move = only(compare(save("old", [left]), save("new", [right])))
        assert (move.verdict, move.quantity) == ("worse", ("size", "kept"))
        assert move.size == kept - 1_587_600

    def test_a_cell_that_is_gone_and_one_that_is_new(self, save: Save) -> None:
        gone, both, new = (make_result(strategy=s) for s in (A, B, "LayerRandom"))
        found = compare(save("old", [gone, both]), save("new", [both, new]))
        assert [(m.verdict, m.key.strategy, m.quantity) for m in found.moves] == [
            ("missing", A, None),
            ("new", "LayerRandom", None),
        ]
        assert (found.compared, found.unchanged) == (1, 1)

    def test_another_seed_or_amount_is_another_cell(self, save: Save) -> None:
        old = [make_result(keep=0.147, seed=0)]
        for other in (make_result(keep=0.147, seed=1), make_result(keep=0.361, seed=0)):
            found = compare(save("old", old), save(f"new{other.cell}", [other]))
            assert [m.verdict for m in found.moves] == ["missing", "new"]

    def test_a_dense_model_is_told_once_however_many_cells_share_it(self, save: Save) -> None:
        old, new = (
            [
                make_result(strategy=s, keep=k, seed=seed, dense={"accuracy": dense - 0.1 * seed})
                for s in (A, B)
                for k in (0.361, 0.147)
                for seed in (0, 1)
            ]
            for dense in (0.9, 0.4)
        )
        found = compare(save("old", old), save("new", new))
        assert [(m.verdict, m.key.strategy, m.key.amount) for m in found.moves] == [
            ("worse", "dense", "")
        ] * 2
        assert {m.key.seed for m in found.moves} == {0, 1}

    def test_the_worst_comes_first(self, save: Save) -> None:
        def grid(*accuracies: float, **mse: float) -> list[Result]:
            cells = [after(a, seed=i) for i, a in enumerate(accuracies)]
            return tolerant([*cells, make_result("stsb", after_retraining=mse)], accuracy=0.01, mse=0.5)

        old = [*grid(0.8, 0.8, 0.8, mse=1.0), make_result(strategy=B)]
        new = [*grid(0.6, 0.9, 0.7, mse=3.0), make_result(strategy="LayerRandom")]
        found = compare(save("old", old), save("new", new))
        # In tolerances: 20, 10 and, although it is the largest number, 4.
        assert [(m.verdict, m.key.task, m.key.seed) for m in found.moves] == [
            ("missing", "sst2", 0),
            ("worse", "sst2", 0),
            ("worse", "sst2", 2),
            ("worse", "stsb", 0),
            ("better", "sst2", 1),
            ("new", "sst2", 0),
        ]


class TestTolerance:
    SEEDS = (0.7, 0.8, 0.9)  # sample standard deviation 0.1

    def moves(self, save: Save, old: Sequence[Result], new: Sequence[Result], **given: float) -> list[Move]:
        return compare(save("old", old), save("new", new), given).moves

    @pytest.mark.parametrize(("new", "verdicts"), [(0.9 - 0.19, []), (0.9 - 0.21, ["worse"])])
    def test_two_deviations_over_the_baselines_seeds(
        self, save: Save, new: float, verdicts: list[str]
    ) -> None:
        old = [after(a, seed=i) for i, a in enumerate(self.SEEDS)]
        moves = self.moves(save, old, [*old[:2], after(new, seed=2)])
        assert [m.verdict for m in moves] == verdicts
        for move in moves:
            assert move.tolerance is not None
            assert move.tolerance.source == "2 sd over seeds"
            assert move.tolerance.move == pytest.approx(0.2)

    def test_the_spread_is_of_one_strategy_and_amount(self, save: Save) -> None:
        old = [after(a, seed=i) for i, a in enumerate(self.SEEDS)]
        old += [after(0.5, seed=i, strategy=B) for i in range(3)]
        new = [*old[:3], *(after(0.499, seed=i, strategy=B) for i in range(3))]
        assert [m.key.strategy for m in self.moves(save, old, new)] == [B, B, B]

    def test_one_seed_is_compared_exactly(self, save: Save) -> None:
        (move,) = self.moves(save, [after(0.8)], [after(0.8 - 1e-9)])
        assert move.tolerance is not None
        assert (move.tolerance.move, move.tolerance.source) == (0.0, "exact")

    def test_the_grids_goes_before_the_spread(self, save: Save) -> None:
        old = tolerant([after(a, seed=i) for i, a in enumerate(self.SEEDS)], accuracy=0.05)
        (move,) = self.moves(save, old, [*old[:2], after(0.84, seed=2)])
        assert move.tolerance is not None
        assert (move.tolerance.move, move.tolerance.source) == (0.05, "grid")

    def test_it_is_the_baselines_grids_not_the_candidates(self, save: Save) -> None:
        assert len(self.moves(save, [after(0.8)], tolerant([after(0.7)], accuracy=0.5))) == 1

    @pytest.mark.parametrize(("given", "verdicts"), [(0.2, []), (0.01, ["worse"])])
    def test_what_is_asked_for_goes_before_all(self, save: Save, given: float, verdicts: list[str]) -> None:
        old = tolerant([after(0.8)], accuracy=0.05)
        moves = self.moves(save, old, [after(0.78 if verdicts else 0.7)], accuracy=given)
        assert [m.verdict for m in moves] == verdicts
        assert all(m.tolerance and m.tolerance.source == "option" for m in moves)

    def test_of_one_metric_says_nothing_about_another(self, save: Save) -> None:
        old = tolerant([make_result("stsb")], mse=1.0)
        new = [make_result("stsb", after_retraining={"mse": 1.2, "pearson": 0.74})]
        (move,) = self.moves(save, old, new)
        assert move.quantity == ("after_retraining", "pearson")

    # Each is the tolerance in decimals, and a little more in binary.
    @pytest.mark.parametrize(("old", "new", "given"), [(0.85, 0.83, 0.02), (0.8, 0.7, 0.1), (0.3, 0.4, 0.1)])
    def test_a_move_as_large_as_the_tolerance_is_inside(
        self, save: Save, old: float, new: float, given: float
    ) -> None:
        assert not self.moves(save, [after(old)], [after(new)], accuracy=given)

    def test_undefined_is_beyond_every_tolerance(self, save: Save) -> None:
        old, new = (make_result("stsb", after_retraining={"pearson": p}) for p in (0.7, None))
        assert [m.verdict for m in self.moves(save, [old], [new], pearson=1e9)] == ["worse"]


class TestComparable:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda r: with_fingerprint(r, data="0a1"), "data: baseline 'data', candidate '0a1'"),
            (lambda r: with_fingerprint(r, model="0a1"), "model: baseline 'model', candidate '0a1'"),
            (lambda r: with_cell(r, layers=3), "layers: baseline None, candidate 3"),
            (
                lambda r: with_cell(r, protocol=Protocol(rewind="none")),
                "protocol.rewind: baseline 'initial', candidate 'none'",
            ),
            (
                lambda r: with_cell(r, recipe=Recipe(lr=1e-3)),
                "recipe.lr: baseline 2e-05, candidate 0.001",
            ),
        ],
        ids=["data", "model", "layers", "protocol", "recipe"],
    )
    def test_a_field_that_differs_is_named_with_both_values(
        self, save: Save, command: Callable[..., Any], change: Callable[[Result], Result], said: str
    ) -> None:
        old = [make_result(), make_result(strategy=B)]
        code, out, error = command(save("old", old), save("new", [old[0], change(old[1])]))
        assert (code, out) == (2, "")
        assert error == f"error: not comparable: {said} (sst2); {MAKE_COMPARABLE}\n"

    def test_every_field_that_differs_is_named_once(self, save: Save) -> None:
        old = [make_result(task, s) for task in ("sst2", "stsb") for s in (A, B)]
        new = [with_cell(r, recipe=Recipe(lr=1e-3, batch_size=8)) for r in old]
        with pytest.raises(UserError) as error:
            compare(save("old", old), save("new", new))
        assert str(error.value) == (
            "not comparable: recipe.batch_size: baseline 16, candidate 8 (sst2, stsb); "
            f"recipe.lr: baseline 2e-05, candidate 0.001 (sst2, stsb); {MAKE_COMPARABLE}"
        )

    def test_heads_ranked_or_removed_in_another_way(self, save: Save) -> None:
        old = with_cell(make_result(), keep=None, heads=0.5)
        new = with_cell(old, head_scope="layer", head_rounds=3)
        with pytest.raises(UserError) as error:
            compare(save("old", [old]), save("new", [new]))
        assert str(error.value) == (
            "not comparable: head_rounds: baseline None, candidate 3 (sst2); "
            f"head_scope: baseline None, candidate 'layer' (sst2); {MAKE_COMPARABLE}"
        )

    def test_names_of_equal_things_may_differ(self, save: Save) -> None:
        old, new = make_result(), make_result(source="elsewhere/glue", model="another/name", grid="mine")
        assert not compare(save("old", [old]), save("new", [new])).moves

    def test_a_formula_may_change_and_a_note_says_so(self, save: Save, command: Callable[..., Any]) -> None:
        old = [make_result(), make_result(strategy=B)]
        new = [with_fingerprint(old[0], strategy="0123456789abcdef"), old[1]]
        code, out, _ = command(save("old", old), save("new", new))
        assert code == 0
        assert f"note: the formula of {A} changed, strategy to 0123456789ab\n" in out
        assert B not in out


class TestFolders:
    def test_cells_of_several_grids_are_told_apart(self, save: Save) -> None:
        old = [after(0.8, grid="one"), after(0.6, grid="two")]
        new = [after(0.8, grid="one"), after(0.5, grid="two")]
        move = only(compare(save("old", old), save("new", new)))
        assert (move.verdict, move.key.grid) == ("worse", "two")
        assert "two" in describe_comparison(compare(save("old", old), save("new", new)))

    def test_a_grid_may_have_another_name(self, save: Save) -> None:
        move = only(compare(save("old", [after(0.8, grid="a")]), save("new", [after(0.7, grid="b")])))
        assert (move.verdict, move.key.grid) == ("worse", "")

    def test_a_grids_own_folder_does_as_well(self, save: Save) -> None:
        old, new = save("old", [after(0.8)]), save("new", [after(0.7)])
        assert compare(old / "hand", new).moves == compare(old, new / "hand").moves != []


class TestTables:
    def test_equal_ones_are_unchanged(self, table: Save) -> None:
        results = [make_result(t, s, seed=i) for t in ("sst2", "stsb") for s in (A, B) for i in (0, 1)]
        found = compare(table("old", results), table("new", results))
        assert (found.moves, found.compared, found.unchanged) == ([], 4, 4)

    def test_means_are_compared_without_seeds(self, table: Save) -> None:
        old, new = ([after(a, seed=i) for i, a in enumerate(seeds)] for seeds in ((0.7, 0.9), (0.3, 0.5)))
        move = only(compare(table("old", old), table("new", new)))
        assert (move.verdict, move.key.seed) == ("worse", None)
        assert move.size == pytest.approx(-0.4)
        assert move.tolerance is not None
        assert move.tolerance.move == pytest.approx(2 * 0.02**0.5)  # sd of 0.7 and 0.9: sqrt(0.02)

    @pytest.mark.parametrize("which", ["old", "new", "none"])
    def test_a_folder_is_averaged_where_the_other_is_a_table(
        self, save: Save, table: Save, which: str
    ) -> None:
        old = tolerant([after(a, seed=i) for i, a in enumerate((0.7, 0.9))], accuracy=0.01)
        new = [after(a, seed=i) for i, a in enumerate((0.6, 0.9))]
        left, right = (
            (save if which == name else table)(name, results)
            for name, results in (("old", old), ("new", new))
        )
        found = compare(left, right)
        move = only(found)
        assert (move.verdict, move.key.seed) == ("worse", None)
        assert move.size == pytest.approx(-0.05)
        assert move.tolerance is not None
        assert (move.tolerance.move, move.tolerance.source) == (0.01, "grid")
        assert "0.75 ± 0.21 (n 2)" in describe_comparison(found)

    @pytest.mark.parametrize("lost", ["undefined", "absent"])
    def test_a_seed_less_behind_a_mean_is_worse(self, table: Save, lost: str) -> None:
        old = [make_result("stsb", seed=i) for i in range(3)]
        new = [*old[:2], make_result("stsb", seed=2, after_retraining={"pearson": None})]
        found = compare(table("old", old), table("new", old[:2] if lost == "absent" else new))
        assert {m.verdict for m in found.moves} == {"worse"}
        assert ("after_retraining", "pearson") in {m.quantity for m in found.moves}
        assert len(found.moves) == (1 if lost == "undefined" else 9)

    def test_another_keep_is_worse(self, table: Save) -> None:
        old = make_result(keep=0.147)
        move = only(compare(table("old", [old]), table("new", [with_kept(old, 1_600_000)])))
        assert (move.verdict, move.quantity) == ("worse", ("size", "keep"))

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda r: with_fingerprint(r, data="x"), "data: baseline 'data', candidate 'x'"),
            (lambda r: with_fingerprint(r, model="x"), "model: baseline 'model', candidate 'x'"),
            (lambda r: with_cell(r, layers=3), "layers: baseline None, candidate 3"),
            (
                lambda r: with_cell(r, protocol=Protocol(shift=1.0)),
                "protocol: baseline 'sound', candidate 'sound (shift=1.0)'",
            ),
            (
                lambda r: with_cell(r, recipe=Recipe(holdout=0.2)),
                "recipe.holdout: baseline 0.1, candidate 0.2",
            ),
            (lambda r: with_cell(r, head_scope="layer"), "head_scope: baseline None, candidate 'layer'"),
            (lambda r: with_cell(r, head_rounds=3), "head_rounds: baseline None, candidate 3"),
        ],
        ids=["data", "model", "layers", "protocol", "recipe", "scope", "rounds"],
    )
    def test_they_know_what_they_are_of(
        self, table: Save, change: Callable[[Result], Result], said: str
    ) -> None:
        old = make_result()
        with pytest.raises(UserError) as error:
            compare(table("old", [old]), table("new", [change(old)]))
        assert str(error.value) == f"not comparable: {said} (sst2); {MAKE_COMPARABLE}"


class TestCommand:
    def test_exit_codes(self, save: Save, command: Callable[..., Any]) -> None:
        old = save("old", [after(0.8)])
        for name, value, plain, strict in (("same", 0.8, 0, 0), ("less", 0.7, 1, 1), ("more", 0.9, 0, 1)):
            new = save(name, [after(value)])
            assert command(old, new)[0] == plain
            assert command(old, new, "--fail-on-improvement")[0] == strict

    def test_a_missing_cell_fails_and_a_new_one_does_not(
        self, save: Save, command: Callable[..., Any]
    ) -> None:
        one, two = save("one", [make_result()]), save("two", [make_result(), make_result(strategy=B)])
        assert command(two, one)[0] == 1
        assert command(one, two, "--fail-on-improvement")[0] == 0

    def test_all_that_is_known_of_a_move_is_shown(self, save: Save, command: Callable[..., Any]) -> None:
        old = tolerant([after(0.8125)], accuracy=0.02)
        code, out, _ = command(save("old", old), save("new", [after(0.75)]))
        assert code == 1
        header, _, row, *rest = out.splitlines()
        names = ["verdict", "task", "strategy", "amount", "seed", "stage", "metric"]
        assert header.split() == [*names, "baseline", "candidate", "move", "tolerance", "from"]
        cell = ["worse", "sst2", A, "keep-0.147", "0", "after", "retraining", "accuracy"]
        assert row.split() == [*cell, "0.8125", "0.75", "-0.0625", "0.02", "grid"]
        assert rest == [
            "",
            "tolerance of kept: 0 (exact)",
            "tolerance of accuracy: 0.02 (grid)",
            "1 cell compared, 0 unchanged; 0 missing, 1 worse, 0 better, 0 new",
        ]

    def test_a_tolerance_on_the_command_line(self, save: Save, command: Callable[..., Any]) -> None:
        old, new = save("old", [make_result("cola")]), save("new", [make_result("cola", dense={"mcc": 0.4})])
        assert command(old, new)[0] == 1
        assert command(old, new, "--tolerance", "mcc=0.2", "--tolerance", "accuracy=0")[0] == 0

    @pytest.mark.parametrize(
        ("setting", "said"),
        [
            ("accuracy", "--tolerance 'accuracy': KEY=VALUE is expected"),
            ("acuracy=0.1", "unknown metric 'acuracy': did you mean 'accuracy'?"),
            ("accuracy=-0.1", "tolerance of accuracy = -0.1: a number of 0 or more is expected"),
            ("accuracy=wide", "tolerance of accuracy = 'wide': a number of 0 or more is expected"),
            ("accuracy=nan", "tolerance of accuracy = nan: a number of 0 or more is expected"),
        ],
    )
    def test_a_tolerance_that_is_none(
        self, save: Save, command: Callable[..., Any], setting: str, said: str
    ) -> None:
        folder = save("old", [make_result()])
        code, _, error = command(folder, folder, "--tolerance", setting)
        assert code == 2
        assert said in error

    def test_nothing_to_read(self, save: Save, command: Callable[..., Any], tmp_path: Path) -> None:
        folder = save("old", [make_result()])
        for sides in ((folder, tmp_path / "nowhere"), (tmp_path / "nowhere", folder)):
            code, _, error = command(*sides)
            assert code == 2
            assert "no results in" in error
            assert "nowhere" in error

    @pytest.mark.parametrize("text", ["", "task,mean\nsst2,0.5\n", "{}", "a,b\n1,2,3\n4,5,6,7\n"])
    def test_a_file_that_is_no_long_csv(
        self, save: Save, command: Callable[..., Any], tmp_path: Path, text: str
    ) -> None:
        path = tmp_path / "other.csv"
        path.write_text(text)
        code, _, error = command(path, save("new", [make_result()]))
        assert code == 2
        assert "other.csv" in error
        assert "accepted: the long.csv" in error

    def test_a_cell_that_is_there_twice(self, save: Save, command: Callable[..., Any]) -> None:
        folder = save("old", [make_result()])
        (folder / "copy").mkdir()
        (path,) = folder.rglob("*.json")
        (folder / "copy" / path.name).write_bytes(path.read_bytes())
        code, _, error = command(folder, folder)
        assert code == 2
        assert "two for" in error

    def test_a_table_has_no_place_for_two_grids(
        self, save: Save, table: Save, command: Callable[..., Any]
    ) -> None:
        folder = save("old", [make_result(grid="a"), make_result(grid="b")])
        code, _, error = command(folder, table("new", [make_result()]))
        assert code == 2
        assert "2 values of grid ('a', 'b')" in error


def test_results_without_a_tolerance_are_read_as_before(tmp_path: Path) -> None:
    path = ResultStore(tmp_path).save(make_result())
    tree = json.loads(path.read_text())
    del tree["tolerance"]
    path.write_text(json.dumps(tree))
    assert ResultStore(tmp_path).read(path) == make_result()
