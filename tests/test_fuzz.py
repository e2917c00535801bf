"""Files from strangers: whatever lies there, a reader reads it, refuses it in words, or has it rebuilt."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from results_factory import make_result

from shrinkbench_bert import Cell, Grid, Result, ResultStore, UserError
from shrinkbench_bert.tensor_file import TensorFile, read_tensors, write_tensors

TRIES = pytest.mark.parametrize("tries", [60, pytest.param(2_000, marks=pytest.mark.faults)])

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just("../../outside")
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def fuzz(inputs: SearchStrategy[Any], tries: int, check: Callable[[Any], None]) -> None:
    """Call `check` on so many inputs."""
    quiet = list(HealthCheck)
    settings(max_examples=tries, deadline=None, database=None, suppress_health_check=quiet)(
        given(inputs)(check)
    )()


def paths_of(tree: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [here, *(path for key, value in items for path in paths_of(value, (*here, key)))]


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The tree with another value at a place."""
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = replaced(tree[path[0]], path[1:], value)
    return copy


def damaged(whole: bytes) -> SearchStrategy[bytes]:
    """A file with some bytes changed, cut short, or made longer."""
    places = st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=4)

    def change(changes: list[tuple[int, int]], end: int, more: bytes) -> bytes:
        found = bytearray(whole)
        for place, value in changes:
            found[place] = value
        return bytes(found[:end]) + more

    return st.builds(change, places, st.integers(0, len(whole)) | st.just(len(whole)), st.binary(max_size=9))


class TestGrids:
    VALID = (
        'tasks = ["sst2"]\nstrategies = ["LayerRandom"]\nkeep = [0.5]\nseeds = [0]\nprotocol = "sound"\n'
        'source = "mini-glue"\nplugins = []\n[recipe]\nlr = 1e-3\nepochs_dense = 1\n[recipe.stsb]\nlr = 1.0\n'
    )

    @TRIES
    def test_bytes(self, tmp_path: Path, tries: int) -> None:
        path = tmp_path / "grid.toml"

        def check(content: bytes) -> None:
            path.write_bytes(content)
            try:
                grid = Grid.from_toml(path)
            except UserError:
                return
            for cell in grid.cells():
                assert ".." not in cell.path.parts

        fuzz(st.binary(max_size=200) | damaged(self.VALID.encode()), tries, check)

    @pytest.mark.parametrize("tries", [20, pytest.param(500, marks=pytest.mark.faults)])
    def test_values(self, tmp_path: Path, tries: int) -> None:
        path = tmp_path / "grid.toml"
        path.write_text(self.VALID)
        keys = st.sampled_from([*Grid.model_fields, "recipe.lr", "recipe.stsb", "protocol.eta", "x", "a.b"])

        def check(override: tuple[str, Any]) -> None:
            key, value = override
            # Whatever Python file or package it names would be imported: that is what plugins are.
            try:
                Grid.from_toml(path, {key: [] if key == "plugins" else value})
            except UserError:
                return

        fuzz(st.tuples(keys, TREES), tries, check)


class TestResults:
    @TRIES
    def test_bytes(self, tmp_path: Path, tries: int) -> None:
        whole = make_result().to_json().encode()
        fuzz(st.binary(max_size=200) | damaged(whole), tries, lambda text: self.read(tmp_path, text))

    @TRIES
    def test_values(self, tmp_path: Path, tries: int) -> None:
        tree = json.loads(make_result().to_json())

        def check(change: tuple[tuple[Any, ...], Any]) -> None:
            self.read(tmp_path, json.dumps(replaced(tree, *change)).encode())

        fuzz(st.tuples(st.sampled_from(paths_of(tree)), TREES), tries, check)

    def read(self, folder: Path, text: bytes) -> None:
        store = ResultStore(folder)
        path = folder / "result.json"
        path.write_bytes(text)
        try:
            result = store.read(path)
        except UserError:
            return
        assert isinstance(result, Result)
        assert ".." not in store.path(result.cell).relative_to(folder).parts
        assert result.row()

    @pytest.mark.parametrize("name", ["../../outside", "/etc/x", "a/b", "..", ".hidden", "", "x\n", "a\\b"])
    def test_a_strategy_is_no_path(self, name: str) -> None:
        with pytest.raises(ValueError, match="strategy"):
            Cell(task="sst2", strategy=name, keep=0.5)

    @pytest.mark.parametrize(
        "text", ["[" * 200_000, '{"a":' * 200_000, '{"schema_version": ' + "9" * 10_000 + "}"]
    )
    def test_deep_or_long(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "result.json"
        path.write_text(text)
        with pytest.raises(UserError, match="result"):
            ResultStore(tmp_path).read(path)

    def test_oversized(self, tmp_path: Path) -> None:
        path = tmp_path / "result.json"
        with path.open("wb") as file:
            file.truncate(1 << 40)  # a hole: no disk is used
        with pytest.raises(UserError, match="at most"):
            ResultStore(tmp_path).read(path)


class TestTensorFiles:
    TENSORS = {"a": torch.arange(6, dtype=torch.uint8), "b": torch.tensor([[0.5, -1.0]])}  # noqa: RUF012

    @TRIES
    def test_bytes(self, tmp_path: Path, tries: int) -> None:
        path = tmp_path / "file.safetensors"
        write_tensors(path, TensorFile(self.TENSORS, {"n": 3}), "digest")
        whole = path.read_bytes()

        def check(content: bytes) -> None:
            path.write_bytes(content)
            found = read_tensors(path, "digest")
            if found is not None:  # a change of what is neither values nor facts
                assert found.facts == {"n": 3}
                assert found.tensors.keys() == self.TENSORS.keys()
                assert all(torch.equal(found.tensors[name], t) for name, t in self.TENSORS.items())
                assert found.holds(self.TENSORS)

        fuzz(st.binary(max_size=200) | damaged(whole), tries, check)

    @TRIES
    def test_headers(self, tmp_path: Path, tries: int) -> None:
        """Headers that lie about their own length, about dtypes, shapes and offsets."""
        path = tmp_path / "file.safetensors"
        dtypes = st.sampled_from(["F32", "U8", "I64", "BOOL", "F64", "X9", ""])
        entry = st.fixed_dictionaries(
            {
                "dtype": dtypes,
                "shape": st.lists(st.integers(-1, 2**63), max_size=3),
                "data_offsets": st.lists(st.integers(0, 2**63), min_size=2, max_size=2),
            }
        )
        metadata = st.dictionaries(
            st.sampled_from(["depends_on", "sha256", "facts", "facts_sha256"]), st.text(max_size=8) | TREES
        )
        headers = st.fixed_dictionaries({"a": entry | TREES, "__metadata__": metadata})

        def check(drawn: tuple[Any, int, bytes]) -> None:
            header, lie, data = drawn
            text = json.dumps(header).encode()
            path.write_bytes(struct.pack("<Q", max(0, min(len(text) + lie, 2**64 - 1))) + text + data)
            assert read_tensors(path, "digest") is None

        lies = st.just(0) | st.integers(-9, 9) | st.just(2**63)
        fuzz(st.tuples(headers, lies, st.binary(max_size=64)), tries, check)

    @pytest.mark.parametrize(
        "tensors",
        [
            {},
            {"a": torch.zeros(6, dtype=torch.uint8)},
            {"a": torch.zeros(6), "b": torch.zeros(1, 2)},
            {"a": torch.zeros(6, dtype=torch.uint8), "b": torch.zeros(2, 1)},
        ],
    )
    def test_other_shapes_and_dtypes_do_not_hold(self, tensors: dict[str, torch.Tensor]) -> None:
        assert TensorFile(self.TENSORS, {}).holds(self.TENSORS)
        assert not TensorFile(tensors, {}).holds(self.TENSORS)
