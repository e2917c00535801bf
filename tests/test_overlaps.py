"""Agreement of masks: counts, IoU and chance against brute force; what is kept and when it is believed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from results_factory import make_result

from shrinkbench_bert.analysis.bits import kept_by_both, read_bits
from shrinkbench_bert.analysis.overlaps import FILE, overlaps
from shrinkbench_bert.analysis.similarity import over_tensors, with_iou
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.masks import Masks, mask_iou, pack
from shrinkbench_bert.store import MaskFile, Result, ResultStore
from shrinkbench_bert.tensor_file import TensorFile, tensors_digest, write_tensors

SHAPES = {
    "encoder.layer.0.attention.self.query.weight": (12, 11),
    "encoder.layer.0.attention.self.query.bias": (12,),
    "encoder.layer.1.output.dense.weight": (9, 23),
    "pooler.dense.weight": (5, 5),
}


def random_masks(seed: int, keep: float = 0.3) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=generator) < keep for name, shape in SHAPES.items()}


def save(store: ResultStore, masks: Masks, **fields: object) -> Result:
    bits = pack(masks)
    result = make_result(**fields).model_copy(
        update={"masks": MaskFile(sha256=tensors_digest(bits), shapes=SHAPES)}
    )
    store.save(result)
    write_tensors(store.mask_path(result.cell), TensorFile(bits, {}), "anything")
    return result


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=300))
def test_bits_are_counted_as_booleans_are(pairs: list[tuple[bool, bool]]) -> None:
    a, b = (np.array([pair[i] for pair in pairs], bool) for i in (0, 1))
    assert kept_by_both(np.packbits(a), np.packbits(b)) == int((a & b).sum())


class TestReadBits:
    def test_reads_what_was_packed(self, tmp_path: Path) -> None:
        result = save(ResultStore(tmp_path), random_masks(0))
        found = read_bits(ResultStore(tmp_path).mask_path(result.cell), result.masks.sha256)
        assert found is not None
        for name, mask in random_masks(0).items():
            ones = np.unpackbits(found[name])[: mask.numel()].astype(bool)
            assert (ones == mask.flatten().numpy()).all()

    @pytest.mark.parametrize("content", [None, b"", b"garbage", "cut", "flip"])
    def test_what_is_not_the_file_is_no_mask(self, tmp_path: Path, content: bytes | str | None) -> None:
        store = ResultStore(tmp_path)
        result = save(store, random_masks(0))
        path = store.mask_path(result.cell)
        whole = path.read_bytes()
        if content is None:
            path.unlink()
        elif content == "cut":
            path.write_bytes(whole[:-3])
        elif content == "flip":
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 0x10]))
        else:
            path.write_bytes(content)  # type: ignore[arg-type]
        assert read_bits(path, result.masks.sha256) is None


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    """Two strategies, two seeds, two tasks at one amount, and one of them at another amount."""
    store = ResultStore(tmp_path / "hand")
    seed = 0
    for task in ("sst2", "stsb"):
        for strategy in ("LayerMagWeight", "LayerRandom"):
            for of in (0, 1):
                save(store, random_masks(seed), task=task, strategy=strategy, seed=of, keep=0.3)
                seed += 1
    save(store, random_masks(99, 0.1), task="sst2", strategy="LayerRandom", seed=0, keep=0.1)
    return store


class TestCounts:
    def test_pairs_differ_in_one_thing_only(self, store: ResultStore) -> None:
        counts = overlaps(store, list(store.results())).counts
        assert set(counts["amount"]) == {"keep-0.3"}  # the lone mask has no partner
        pairs = counts.drop_duplicates(["task_a", "strategy_a", "seed_a", "task_b", "strategy_b", "seed_b"])
        differ = sum((pairs[f"{x}_a"] != pairs[f"{x}_b"]).astype(int) for x in ("task", "strategy", "seed"))
        assert (differ == 1).all()
        assert len(pairs) == 12  # the edges of a cube
        assert len(counts) == 12 * len(SHAPES)

    def test_every_count_and_iou_is_that_of_the_masks(self, store: ResultStore) -> None:
        results = list(store.results())
        order = [("sst2", "LayerMagWeight", 0), ("sst2", "LayerMagWeight", 1), ("sst2", "LayerRandom", 0)]
        order += [("sst2", "LayerRandom", 1), ("stsb", "LayerMagWeight", 0), ("stsb", "LayerMagWeight", 1)]
        order += [("stsb", "LayerRandom", 0), ("stsb", "LayerRandom", 1)]
        masks = {key: random_masks(i) for i, key in enumerate(order)}
        for row in with_iou(overlaps(store, results).counts).to_dict("records"):
            one, other = (
                masks[row[f"task_{s}"], row[f"strategy_{s}"], row[f"seed_{s}"]][row["tensor"]] for s in "ab"
            )
            assert (row["n"], row["kept_a"], row["kept_b"]) == (one.numel(), one.sum(), other.sum())
            assert row["both"] == (one & other).sum()
            assert row["kept"] == pytest.approx(mask_iou(one, other, of="kept"))
            assert row["pruned"] == pytest.approx(mask_iou(one, other, of="pruned"))

    def test_counts_outlive_the_masks(self, store: ResultStore) -> None:
        results = list(store.results())
        first = overlaps(store, results)
        assert first.missing == []
        content = (store.folder / FILE).read_bytes()
        for path in store.folder.rglob("*.safetensors"):
            path.unlink()
        again = overlaps(store, results)
        assert again.missing == []
        pd.testing.assert_frame_equal(again.counts, first.counts)
        assert (store.folder / FILE).read_bytes() == content

    def test_counts_of_other_masks_are_not_believed(self, store: ResultStore) -> None:
        overlaps(store, list(store.results()))
        changed = save(store, random_masks(77), task="sst2", strategy="LayerRandom", seed=0, keep=0.3)
        counts = overlaps(store, list(store.results())).counts
        rows = counts[(counts["task_b"] == "sst2") & (counts["strategy_b"] == "LayerRandom")]
        row = rows[(rows["seed_b"] == 0) & (rows["tensor"] == "pooler.dense.weight")].iloc[0]
        assert row["kept_b"] == random_masks(77)["pooler.dense.weight"].sum()
        store.mask_path(changed.cell).unlink()
        save(store, random_masks(78), task="sst2", strategy="LayerRandom", seed=0, keep=0.3)
        store.mask_path(changed.cell).unlink()
        found = overlaps(store, list(store.results()))
        assert [r.cell for r in found.missing] == [changed.cell]
        assert len(found.counts) == (12 - 3) * len(SHAPES)

    @pytest.mark.parametrize(
        "content", ["amount,nothing\nkeep-0.3,1\n", "", "a,b\n1,2\n1,2,3\n", "cut", "text"]
    )
    def test_a_damaged_table_is_named(self, store: ResultStore, content: str) -> None:
        overlaps(store, list(store.results()))
        whole = (store.folder / FILE).read_text()
        spoilt = {"cut": whole[: len(whole) // 2], "text": whole.rpartition(",")[0] + ",x\n"}
        (store.folder / FILE).write_text(spoilt.get(content, content))
        with pytest.raises(UserError) as raised:
            overlaps(store, list(store.results()))
        line = str(raised.value)
        assert "overlaps.csv' is damaged (" in line
        assert "restore it, from git for one; or, where the masks are there, delete it" in line
        assert "\n" not in line

    def test_masks_of_different_models_are_no_pair(self, tmp_path: Path) -> None:
        store = ResultStore(tmp_path)
        save(store, random_masks(0), strategy="LayerRandom")
        other = make_result(strategy="LayerMagWeight")  # has other tensors
        store.save(other)
        found = overlaps(store, list(store.results()))
        assert found.counts.empty
        assert [r.cell for r in found.missing] == [other.cell]


class TestSimilarity:
    def row(self, n: int, a: int, b: int, both: int, name: str = "x.layer.3.ffn.lin1.weight") -> pd.Series:
        counts = pd.DataFrame({"tensor": [name], "n": [n], "kept_a": [a], "kept_b": [b], "both": [both]})
        return with_iou(counts).iloc[0]

    def test_by_hand(self) -> None:
        row = self.row(100, 20, 30, 10)
        assert (row["kept"], row["pruned"]) == (10 / 40, 60 / 90)
        assert row["kept_chance"] == pytest.approx(6 / 44)
        assert row["pruned_chance"] == pytest.approx(56 / 94)
        assert (row["layer"], row["kind"]) == (3, "intermediate")

    @pytest.mark.parametrize("d", [0.041, 0.147, 0.361])
    def test_chance_of_equal_densities_is_the_known_formula(self, d: float) -> None:
        k = round(d * 10**6)
        row = self.row(10**6, k, k, 0)
        assert row["kept_chance"] == pytest.approx(d / (2 - d), rel=1e-4)
        assert row["pruned_chance"] == pytest.approx((1 - d) / (1 + d), rel=1e-4)

    def test_chance_is_what_random_masks_reach(self) -> None:
        one, other = (
            torch.rand(1000, 1000, generator=torch.Generator().manual_seed(s)) < 0.147 for s in (1, 2)
        )
        row = self.row(10**6, int(one.sum()), int(other.sum()), int((one & other).sum()))
        assert row["kept"] == pytest.approx(row["kept_chance"], abs=0.003)
        assert row["pruned"] == pytest.approx(row["pruned_chance"], abs=0.003)

    def test_two_empty_sets_are_equal(self) -> None:
        assert self.row(10, 0, 0, 0)["kept"] == 1
        assert self.row(10, 10, 10, 10)["pruned"] == 1

    @pytest.mark.parametrize(
        ("name", "layer", "kind"),
        [
            ("bert.encoder.layer.0.attention.self.key.weight", 0, "key"),
            ("roberta.encoder.layer.11.attention.output.dense.weight", 11, "attention output"),
            ("electra.encoder.layer.2.output.dense.weight", 2, "output"),
            ("distilbert.transformer.layer.5.attention.v_lin.weight", 5, "value"),
            ("distilbert.transformer.layer.5.ffn.lin2.weight", 5, "output"),
        ],
    )
    def test_places_of_every_architecture(self, name: str, layer: int, kind: str) -> None:
        row = self.row(10, 1, 1, 1, name)
        assert (row["layer"], row["kind"]) == (layer, kind)

    def test_a_pooler_is_outside_the_layers_and_a_bias_is_left_out(self) -> None:
        assert self.row(10, 1, 1, 1, "bert.pooler.dense.weight")["layer"] == -1
        counts = pd.DataFrame({"tensor": ["a.bias"], "n": [4], "kept_a": [1], "kept_b": [1], "both": [1]})
        assert with_iou(counts).empty

    def test_mean_and_min_over_tensors(self, store: ResultStore) -> None:
        iou = with_iou(overlaps(store, list(store.results())).counts)
        pair = iou[(iou["task_a"] == "sst2") & (iou["task_b"] == "stsb") & (iou["seed_a"] == 1)]
        pair = pair[pair["strategy_a"] == "LayerRandom"]
        found = over_tensors(pair)
        assert len(found) == 1
        assert found["kept_mean"].item() == pytest.approx(pair["kept"].mean())
        assert found["kept_min"].item() == pair["kept"].min()
        assert found["pruned_chance_min"].item() == pair["pruned_chance"].min()


def test_results_of_two_models_have_each_their_own_size(tmp_path: Path) -> None:
    """As on a page of a folder that mixes them; the tensors have the same names."""
    store = ResultStore(tmp_path)
    found = []
    for seed, width in ((0, 8), (1, 20)):
        for strategy in ("LayerMagWeight", "LayerMagGrad"):
            masks = {"encoder.layer.0.output.dense.weight": torch.ones(4, width, dtype=torch.bool)}
            bits = pack(masks)
            shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
            result = make_result(strategy=strategy, seed=seed).model_copy(
                update={"masks": MaskFile(sha256=tensors_digest(bits), shapes=shapes)}
            )
            store.save(result)
            write_tensors(store.mask_path(result.cell), TensorFile(bits, {}), "anything")
            found.append(result)
    counts = overlaps(store, found).counts
    assert dict(zip(counts["seed_a"], counts["n"], strict=True)) == {0: 32, 1: 80}
    assert (counts["both"] == counts["n"]).all()
