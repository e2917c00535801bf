"""Grids that remove attention heads: what is stored, that it repeats, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_grid import write_grid

from shrinkbench_bert import Experiment, Grid, Result, ResultStore, UserError, run_grid
from shrinkbench_bert import head_experiment as head_experiment_module
from shrinkbench_bert import stages as stages_module
from shrinkbench_bert.grid import Cell
from shrinkbench_bert.planning import describe_plan
from shrinkbench_bert.runner import make_plan
from shrinkbench_bert.work import Outcome, Site, Workbench

# The tiny checkpoint: 2 layers of 2 heads, hidden size 16, 24 in between, 128 tokens counted.
A_HEAD = 3 * (8 * 16 + 8) + 16 * 8
NAMES = ["HeadAttention", "HeadGradient", "HeadRandom"]


@pytest.fixture(scope="module")
def file(tiny_checkpoint: Path, tiny_glue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rest = f"""
        tasks = ["sst2"]
        strategies = {json.dumps(NAMES)}
        heads = [0.25, 0.5]
        [protocol]
        rewind = "none"
        [recipe]
        epochs_dense = 1
        epochs_retrain = 1
        lr = 1e-2
    """
    return write_grid(tmp_path_factory.mktemp("grids"), tiny_checkpoint, tiny_glue, rest)


@pytest.fixture(scope="module")
def finished(file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """The grid's results, and how often heads were scored and models fine-tuned."""
    folder, calls = tmp_path_factory.mktemp("results") / "tiny", {"score_heads": 0, "fine_tune": 0}
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((stages_module, "score_heads"), (head_experiment_module, "fine_tune")):
            original = getattr(module, name)

            def counting(*args: Any, name: str = name, original: Any = original, **kwargs: Any) -> Any:
                calls[name] += 1
                return original(*args, **kwargs)

            patch.setattr(module, name, counting)
        run_grid(Grid.from_toml(file), ResultStore(folder))
    return folder, calls


def stored(folder: Path) -> dict[tuple[str, float], Result]:
    return {(r.cell.strategy, r.cell.heads): r for r in ResultStore(folder).results()}  # type: ignore[misc]


def changed(file: Path, folder: Path, **changes: Any) -> dict[tuple[str, float], Result]:
    run_grid(Grid.from_toml(file, changes), ResultStore(folder))
    return stored(folder)


def equal(a: Result, b: Result) -> bool:
    """Up to provenance."""
    return a.model_copy(update={"provenance": b.provenance}) == b


class TestWhatIsStored:
    def test_one_file_per_cell_and_one_pass_for_all(self, finished: tuple[Path, dict[str, int]]) -> None:
        folder, calls = finished
        names = {str(path.relative_to(folder)) for path in folder.glob("*/*/*.json")}
        assert names == {f"sst2/{n}/heads-{a}_seed0.json" for n in NAMES for a in (0.25, 0.5)}
        assert calls == {"score_heads": 1, "fine_tune": 6}
        assert not list(folder.glob("sst2/*/*.safetensors"))

    def test_the_heads_are_the_lowest_and_as_many_as_asked_for(self, finished) -> None:
        for (_, fraction), result in stored(finished[0]).items():
            heads = result.heads
            assert heads is not None
            assert heads.total == [2, 2]
            gone = {(i, h) for i, listed in heads.removed.items() for h in listed}
            values = {(i, h): heads.scores[i][h] for i in range(2) for h in range(2)}
            assert len(gone) == 4 * fraction
            assert max(values[place] for place in gone) <= min(values[p] for p in values.keys() - gone)
            assert result.masks is None
            assert "masks" not in json.loads(result.to_json())

    def test_sizes_are_those_of_the_smaller_model(self, finished) -> None:
        for (_, fraction), result in stored(finished[0]).items():
            size, n = result.size, int(4 * fraction)
            assert size.prunable - size.kept == n * A_HEAD
            assert size.keep == size.kept / size.prunable
            assert size.compression == size.total / (size.total - n * A_HEAD)
            # Per head: four projections of 16 x 8 for 128 tokens, and two products of 128 x 128 x 8.
            saved = n * (4 * 16 * 8 * 128 + 2 * 128 * 128 * 8)
            assert size.multiply_adds - size.multiply_adds_kept == saved

    def test_stages_are_shared_and_predictions_kept(self, finished) -> None:
        results = list(stored(finished[0]).values())
        assert len({r.dense.predictions for r in results}) == 1
        assert all(r.after_retraining.predictions for r in results)
        assert all(r.retraining.best_epoch == 1 for r in results)

    def test_a_row_names_the_amount(self, finished) -> None:
        frame = ResultStore(finished[0]).load()
        assert sorted(set(frame["requested_heads"])) == [0.25, 0.5]
        assert frame["requested_keep"].isna().all()

    def test_nothing_is_run_again(self, file: Path, finished) -> None:
        plan = make_plan(Grid.from_toml(file), ResultStore(finished[0]))
        assert (len(plan.done), len(plan.missing)) == (6, 0)

    def test_the_scores_are_made_once_and_kept_for_other_processes(
        self, file: Path, finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        grid, store = Grid.from_toml(file), ResultStore(tmp_path)
        cells = list(grid.cells())
        assert Workbench(Site("tiny", tmp_path)).share(cells, wait=False) is Outcome.STORED
        monkeypatch.setattr(stages_module, "score_heads", None)  # nobody scores from here on
        for cell in cells:  # as workers do it: one at a time
            assert Workbench(Site("tiny", tmp_path)).run(cell, [cell], wait=False) is Outcome.STORED
        assert all(
            equal(result, stored(finished[0])[place]) for place, result in stored(store.folder).items()
        )

    def test_a_lone_experiment_gives_the_same(self, file: Path, finished) -> None:
        cell = next(cell for cell in Grid.from_toml(file).cells() if cell.strategy == "HeadGradient")
        result = Experiment(cell, device="cpu").run()
        assert equal(result.model_copy(update={"grid": "tiny"}), stored(finished[0])["HeadGradient", 0.25])


class TestOptions:
    def test_a_share_of_every_layer(self, file: Path, tmp_path: Path) -> None:
        for result in changed(file, tmp_path, head_scope="layer", heads=[0.5]).values():
            assert result.heads is not None
            assert {i: len(heads) for i, heads in result.heads.removed.items()} == {0: 1, 1: 1}

    def test_rounds_reach_the_same_fraction(self, file: Path, finished, tmp_path: Path) -> None:
        one_shot = stored(finished[0])
        for place, result in changed(file, tmp_path, head_rounds=2, heads=[0.5]).items():
            assert result.size.kept == one_shot[place].size.kept
            assert result.heads is not None
            assert result.heads.scores == one_shot[place].heads.scores  # type: ignore[union-attr]
            assert len(result.retraining.epochs) == 2
            assert result.retraining.best_epoch == 2
            assert result.digest != one_shot[place].digest

    def test_rewinding_starts_from_the_pretrained_weights(self, file: Path, finished, tmp_path: Path) -> None:
        rewound = changed(file, tmp_path, strategies=["HeadGradient"], **{"protocol.rewind": "initial"})
        for place, result in rewound.items():
            other = stored(finished[0])[place]
            assert result.before_retraining == other.before_retraining
            assert result.retraining.epochs[0].loss != other.retraining.epochs[0].loss

    def test_all_heads_of_a_layer_and_none_at_all(self, file: Path, tmp_path: Path) -> None:
        results = changed(file, tmp_path, strategies=["HeadMagnitude"], heads=[0.0, 0.75])
        assert results["HeadMagnitude", 0.0].size.keep == 1
        assert results["HeadMagnitude", 0.0].before_retraining == results["HeadMagnitude", 0.0].dense
        removed = results["HeadMagnitude", 0.75].heads.removed  # type: ignore[union-attr]
        assert [0, 1] in removed.values()

    def test_the_usual_options_are_no_part_of_a_digest(self) -> None:
        plain = Cell(task="sst2", strategy="HeadRandom", heads=0.5)
        assert (
            Cell(task="sst2", strategy="HeadRandom", heads=0.5, head_scope="global", head_rounds=1) == plain
        )
        assert "head_scope" not in plain.model_dump(exclude_none=True)

    def test_the_plan_counts_heads(self, file: Path, tmp_path: Path) -> None:
        text = describe_plan(make_plan(Grid.from_toml(file), ResultStore(tmp_path)))
        assert "3 strategies x 2 amounts x 1 seeds = 6 cells" in text
        assert "1 of 4" in text


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"strategies": ["LayerRandom"]}, "'LayerRandom' scores weights: give keep or compression"),
            ({"heads": [], "keep": [0.5]}, "'HeadAttention' scores attention heads: give heads"),
            ({"keep": [0.5]}, "either keep, or compression, or heads"),
            ({"heads": []}, "either keep, or compression, or heads"),
            ({"heads": [1.0]}, "heads.0 = 1.0"),
            ({"heads": [-0.1]}, "heads.0 = -0.1"),
            ({"heads": [0.5, 0.5]}, "heads = .*twice"),
            ({"head_rounds": 0}, "head_rounds = 0"),
            ({"head_scope": "both"}, "head_scope = 'both'"),
            ({"score_parts": 2}, "score_parts: heads, and weights pruned in rounds, are scored in one go"),
            ({"score_parts": 0}, "score_parts = 0"),
            (
                {"heads": [], "keep": [0.5], "strategies": ["LayerRandom"], "head_rounds": 2},
                "they need heads",
            ),
        ],
    )
    def test_in_a_grid(self, file: Path, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            Grid.from_toml(file, changes)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"strategy": "LayerRandom", "heads": 0.5}, "scores weights"),
            ({"strategy": "HeadRandom", "keep": 0.5}, "scores attention heads"),
            ({"strategy": "HeadRandom", "heads": 1.0}, "heads = 1.0"),
            ({"strategy": "HeadRandom"}, "give either keep"),
            ({"strategy": "LayerRandom", "keep": 0.5, "head_scope": "layer"}, "need an amount of heads"),
            ({"strategy": "HeadRandom", "heads": 0.5, "protocol": "released"}, "reset_optimizer = false"),
        ],
    )
    def test_in_an_experiment(
        self, tiny_checkpoint: Path, tiny_glue: Path, fields: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            Experiment(task="sst2", source=str(tiny_glue), model=str(tiny_checkpoint), **fields)

    def test_an_architecture_that_cannot_be_cut(self, file: Path, tiny_glue: Path, tmp_path: Path) -> None:
        from transformers import AutoModel, BertTokenizer, MPNetConfig

        config = MPNetConfig(vocab_size=99, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
        AutoModel.from_config(config).save_pretrained(tmp_path / "mpnet")
        BertTokenizer(vocab={"[UNK]": 0, "[PAD]": 1}).save_pretrained(tmp_path / "mpnet")
        with pytest.raises(UserError, match=r"'mpnet'.*cannot be cut \(accepted: .*bert, distilbert"):
            make_plan(Grid.from_toml(file, {"model": str(tmp_path / "mpnet")}), ResultStore(tmp_path / "r"))
