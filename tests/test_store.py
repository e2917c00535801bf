"""The store: what is written can be read, is written whole or not at all, and says what it depends on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from results_factory import make_result

from shrinkbench_bert.errors import UserError
from shrinkbench_bert.grid import Cell, Recipe
from shrinkbench_bert.protocol import Protocol
from shrinkbench_bert.store import (
    Fingerprints,
    Result,
    ResultStore,
    Training,
    differences,
    digest,
    write_atomically,
)

CELL = Cell(task="sst2", strategy="LayerMagWeight", keep=0.5)
TAKEN = Fingerprints(data="d", model="m", strategy="s")


class TestJson:
    @pytest.mark.parametrize("task", ["sst2", "stsb", "cola"])
    def test_a_result_survives_the_round_trip(self, task: str, tmp_path: Path) -> None:
        result = make_result(task, keep=1 / 3, seed=7, protocol="released")
        store = ResultStore(tmp_path)
        assert store.read(store.save(result)) == result

    def test_floats_keep_every_digit(self, tmp_path: Path) -> None:
        value = 0.1 + 0.2  # 0.30000000000000004
        result = make_result(dense={"accuracy": value})
        text = result.to_json()
        assert json.loads(text)["dense"]["metrics"]["accuracy"] == value
        assert "0.30000000000000004" in text

    def test_it_is_json_for_every_reader(self) -> None:
        tree = json.loads(make_result("stsb").to_json(), parse_constant=pytest.fail)  # no NaN, no Infinity
        assert tree["baseline"]["metrics"]["pearson"] is None
        assert tree["schema_version"] == 2

    def test_no_infinite_number_is_written(self) -> None:
        with pytest.raises(ValueError, match="JSON"):
            make_result(dense={"accuracy": float("nan")}).to_json()

    def test_the_provenance_comes_last(self) -> None:
        assert list(json.loads(make_result().to_json()))[-1] == "provenance"

    def test_equal_results_are_equal_to_the_byte(self) -> None:
        assert make_result(keep=0.25).to_json() == make_result(keep=0.25).to_json()

    def test_the_path_is_one_that_a_person_can_read(self, tmp_path: Path) -> None:
        result = make_result("stsb", "LayerGradCAMShift", compression=3.5, seed=2)
        path = ResultStore(tmp_path).grid("mine").save(result)
        assert path == tmp_path / "mine" / "stsb" / "LayerGradCAMShift" / "compression-3.5_seed2.json"

    def test_everything_that_the_issue_asks_for_is_there(self) -> None:
        tree = json.loads(make_result().to_json())
        assert tree["cell"].keys() >= {"task", "model", "strategy", "keep", "compression", "seed"}
        assert tree["cell"]["recipe"].keys() == Recipe.model_fields.keys()
        assert tree["cell"]["protocol"].keys() == Protocol.model_fields.keys()
        for stage in ("baseline", "dense", "before_retraining", "after_retraining"):
            assert tree[stage].keys() == {"n", "metrics", "predictions"}
        size = {"keep", "compression", "prunable_compression", "total", "prunable", "kept", "density"}
        assert tree["size"].keys() >= size | {"multiply_adds", "multiply_adds_kept"}
        assert tree["fingerprints"].keys() == {"data", "model", "strategy"}
        provenance = {"versions", "processor", "device", "dtype", "git_revision", "started", "seconds"}
        assert tree["provenance"].keys() >= provenance


class TestRows:
    def test_columns_of_a_classification(self) -> None:
        row = make_result("cola", "LayerRandom", keep=0.147, seed=3, n=123).row()
        assert row["task"] == "cola"
        assert (row["strategy"], row["amount"], row["seed"]) == ("LayerRandom", "keep-0.147", 3)
        assert (row["requested_keep"], row["requested_compression"]) == (0.147, None)
        assert (row["grid"], row["model"], row["source"]) == ("hand", "minilm", "mini-glue")
        assert (row["protocol"], row["n"]) == ("sound", 123)
        assert (row["dense_accuracy"], row["dense_mcc"]) == (0.80, 0.5)
        assert (row["after_retraining_accuracy"], row["before_retraining_mcc"]) == (0.72, 0.0)
        assert row["baseline_accuracy"] == 0.69
        # 0.147 of 10.8 million is 1,587,600.
        assert row["keep"] == pytest.approx(1_587_600 / 10_800_000, rel=1e-12)
        assert row["compression"] == pytest.approx(22_700_000 / (11_900_000 + 1_587_600), rel=1e-12)

    def test_columns_of_a_regression(self) -> None:
        row = make_result("stsb").row()
        assert row["after_retraining_mse"] == 0.9
        assert row["baseline_pearson"] is None
        assert "dense_accuracy" not in row

    def test_load_gives_one_row_per_result(self, tmp_path: Path) -> None:
        store = ResultStore(tmp_path)
        wanted = set()
        for grid in ("a", "b"):
            for task in ("sst2", "stsb"):
                for seed in (0, 1):
                    store.grid(grid).save(make_result(task, seed=seed, grid=grid))
                    wanted.add((grid, task, seed))
        frame = store.load()
        assert set(frame[["grid", "task", "seed"]].itertuples(index=False, name=None)) == wanted
        assert len(frame) == len(wanted) == 8
        assert frame.loc[frame["task"] == "sst2", "dense_mse"].isna().all()
        assert frame.loc[frame["task"] == "stsb", "dense_mse"].eq(0.5).all()
        assert len(store.grid("b").load()) == 4

    def test_an_empty_folder_is_an_empty_frame_and_no_folder_is_refused(self, tmp_path: Path) -> None:
        assert ResultStore(tmp_path).load().empty
        (tmp_path / "file").write_text("")
        for name in ("nowhere", "file"):
            with pytest.raises(UserError, match=f"results '.*/{name}': no such folder"):
                ResultStore(tmp_path / name).load()
            assert not list(ResultStore(tmp_path / name).results())  # nothing has run yet

    def test_in_the_order_of_paths_whatever_the_order_of_writing(self, tmp_path: Path) -> None:
        names = ["LayerRandom", "GlobalRandom", "LayerMagGrad"]
        for name in names:
            ResultStore(tmp_path).save(make_result(strategy=name))
        found = [result.cell.strategy for result in ResultStore(tmp_path).results()]
        assert found == sorted(names)

    def test_caches_and_temporaries_are_no_results(self, tmp_path: Path) -> None:
        path = ResultStore(tmp_path).grid("g").save(make_result())
        (tmp_path / "g" / ".cache").mkdir()
        (tmp_path / "g" / ".cache" / "facts.json").write_text("{}")
        path.with_name(f".{path.name}.abc.json").write_text("{")
        assert len(ResultStore(tmp_path).load()) == 1

    def test_a_damaged_result_is_named(self, tmp_path: Path) -> None:
        path = ResultStore(tmp_path).save(make_result())
        path.write_text(path.read_text()[:-10])
        with pytest.raises(UserError, match="not valid JSON") as caught:
            ResultStore(tmp_path).load()
        assert str(path) in str(caught.value)


class TestAtomicWriting:
    def files(self, folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    def test_it_replaces(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "folder" / "file"
        for content in (b"one", b"two"):
            write_atomically(path, content)
            assert self.files(path.parent) == {"file": content}

    @pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
    def test_a_failed_write_leaves_the_old_file_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
    ) -> None:
        path = tmp_path / "file"
        write_atomically(path, b"old")

        def fail(*_: Any) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with pytest.raises(type(error)):
                write_atomically(path, b"new")
        assert self.files(tmp_path) == {"file": b"old"}

    def test_the_new_content_is_whole_before_it_is_seen(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"old")
        replace, seen = os.replace, []

        def watch(source: Any, target: Any) -> None:
            seen.append((path.read_bytes(), Path(source).read_bytes(), Path(source).parent))
            replace(source, target)

        monkeypatch.setattr(os, "replace", watch)
        write_atomically(path, b"new")
        assert seen == [(b"old", b"new", tmp_path)]  # the same folder: a rename, never a copy

    def test_saving_a_result_is_atomic(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = ResultStore(tmp_path)
        path = store.save(make_result(dense={"accuracy": 0.5}))
        before = path.read_bytes()

        def fail(*_: Any) -> None:
            raise OSError

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError):  # noqa: PT011
            store.save(make_result(dense={"accuracy": 0.75}))
        assert self.files(path.parent) == {path.name: before}


class TestDigest:
    def test_it_is_a_sha256_and_repeats(self) -> None:
        found = digest(CELL, TAKEN)
        assert len(found) == 64
        assert set(found) <= set("0123456789abcdef")
        assert digest(CELL.model_copy(), TAKEN.model_copy()) == found

    def test_where_the_data_came_from_does_not_matter(self) -> None:
        assert digest(CELL.model_copy(update={"source": "nyu-mll/glue"}), TAKEN) == digest(CELL, TAKEN)

    def test_everything_else_does(self) -> None:
        cells = [
            CELL,
            *(
                CELL.model_copy(update=update)
                for update in (
                    {"task": "cola"},
                    {"model": "other"},
                    {"layers": 3},
                    {"strategy": "LayerRandom"},
                    {"keep": 0.25},
                    {"keep": None, "compression": 2.0},
                    {"seed": 1},
                    {"protocol": Protocol.named("paper")},
                )
            ),
        ]
        taken = [TAKEN.model_copy(update={field: "x"}) for field in Fingerprints.model_fields]
        digests = [digest(cell, TAKEN) for cell in cells] + [digest(CELL, other) for other in taken]
        assert len(set(digests)) == len(digests) == 12

    @pytest.mark.parametrize("field", Recipe.model_fields)
    @pytest.mark.filterwarnings("ignore:Pydantic serializer")
    def test_every_field_of_the_recipe_does(self, field: str) -> None:
        cell = CELL.model_copy(update={"recipe": Recipe().model_copy(update={field: "other"})})
        assert digest(cell, TAKEN) != digest(CELL, TAKEN)

    @pytest.mark.parametrize("field", Protocol.model_fields)
    @pytest.mark.filterwarnings("ignore:Pydantic serializer")
    def test_every_field_of_the_protocol_does(self, field: str) -> None:
        cell = CELL.model_copy(update={"protocol": Protocol().model_copy(update={field: "other"})})
        assert digest(cell, TAKEN) != digest(CELL, TAKEN)

    def test_two_ways_to_say_the_same_are_the_same(self) -> None:
        named = CELL.model_copy(update={"protocol": Protocol.named("sound", eta=10)})
        assert digest(named, TAKEN) == digest(CELL, TAKEN)

    def test_measurements_do_not_enter(self) -> None:
        one, other = make_result(dense={"accuracy": 0.1}), make_result(dense={"accuracy": 0.9}, n=7)
        assert one.digest == other.digest


class TestDifferences:
    def stored(self) -> Result:
        return make_result(keep=0.5)

    def test_there_are_none(self) -> None:
        stored = self.stored()
        assert differences(stored, stored.cell, stored.fingerprints) == []

    def test_each_field_is_named_with_both_values(self) -> None:
        stored = self.stored()
        cell = stored.cell.model_copy(
            update={
                "seed": 4,
                "recipe": Recipe(lr=1e-3, epochs_dense=9),
                "protocol": Protocol.named("sound", eta=3),
            }
        )
        taken = stored.fingerprints.model_copy(update={"strategy": "edited"})
        assert differences(stored, cell, taken) == [
            "protocol.eta: stored 10, now 3",
            "recipe.epochs_dense: stored 3, now 9",
            "recipe.lr: stored 2e-05, now 0.001",
            "seed: stored 0, now 4",
            "sha256.strategy: stored 'strategy', now 'edited'",
        ]


class TestReading:
    def test_an_unknown_field_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "result.json"
        path.write_text(json.dumps({**json.loads(make_result().to_json()), "extra": 1}))
        with pytest.raises(UserError, match="extra"):
            ResultStore(tmp_path).read(path)

    def test_results_cannot_be_changed_in_place(self) -> None:
        result = make_result()
        with pytest.raises(ValueError, match="frozen"):
            result.retraining = Training(epochs=[], best_epoch=3)
