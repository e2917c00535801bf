"""The ledger and its verdicts, on samples whose answer is known."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from results_factory import make_result
from scipy import stats
from typer.testing import CliRunner

from shrinkbench_bert import cli
from shrinkbench_bert.analysis.losses import DENSE, Sample
from shrinkbench_bert.analysis.one_batch import beside_one_batch
from shrinkbench_bert.analysis.overlaps import overlaps
from shrinkbench_bert.grid import Cell
from shrinkbench_bert.protocol import Protocol
from shrinkbench_bert.report.claims import _TESTS, decide_claims, heads, masks, performance
from shrinkbench_bert.report.claims.finding import Evidence, Finding
from shrinkbench_bert.report.claims.ledger import (
    Alike,
    Batches,
    Better,
    Depth,
    Falls,
    Negligible,
    NoBetter,
    Overlap,
    Plateau,
    Share,
    load_ledger,
)
from shrinkbench_bert.report.claims.rendering import markdown, plain
from shrinkbench_bert.report.labels import TIMES
from shrinkbench_bert.store import Result, ResultStore
from shrinkbench_bert.strategy import strategy_names
from shrinkbench_bert.tasks import TASKS
from shrinkbench_bert.timings import Latency, Timing

NO_IOU = pd.DataFrame()


def make_sample(
    means: dict[str, float],
    *,
    keep: float = 0.361,
    task: str = "stsb",
    seeds: int = 3,
    noise: float = 0.05,
    baseline: float = 2.0,
    majority: float = 0.5,
) -> Sample:
    """Losses around `means`, the same for every seed but for a little; the dense model loses 0.5."""
    rng = np.random.default_rng(0)
    losses = {
        name: {seed: mean + noise * rng.normal(size=200) for seed in range(seeds)}
        for name, mean in {DENSE: 0.5, **means}.items()
    }
    shares = {name: dict.fromkeys(range(seeds), majority) for name in losses}
    known = np.full(200, baseline)
    return Sample(
        task, TASKS[task].metric, f"keep-{keep}", keep, losses, baseline, shares, majority_losses=known
    )


def evidence(*found: Sample, iou: pd.DataFrame = NO_IOU) -> Evidence:
    return Evidence(list(found), iou)


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


class TestLedger:
    def test_every_strategy_it_names_is_registered(self) -> None:
        known = set(strategy_names())
        for claim in load_ledger():
            tree = claim.test.model_dump()
            names = [*tree.get("strategies", []), *tree.get("better", []), *tree.get("worse", [])]
            names += [name for pair in tree.get("pairs", []) for name in pair]
            names += [tree[key] for key in ("strategy", "candidate", "reference") if key in tree]
            assert names or claim.test.kind == "falls", claim.id
            assert set(names) <= known, claim.id

    def test_a_claim_of_some_tasks_is_held_against_these_alone(self, tmp_path: Path) -> None:
        """The paper's overlap of masks, and its layers ahead of global magnitude, are of SST-2."""
        results = [
            make_result(task, strategy, keep=keep, seed=seed)
            for task in ("sst2", "stsb")
            for strategy in ("LayerMagWeight", "GlobalMagWeight")
            for keep in (0.361, 0.147)
            for seed in range(3)
        ]
        for chosen, task in ((results, "SST-2"), ([r for r in results if r.cell.task == "stsb"], "")):
            found = {
                claim.id: own for claim, own in decide_claims(chosen, overlaps(ResultStore(tmp_path), []))
            }
            assert only(found["layer-beats-global"]).task == task
        assert only(found["layer-beats-global"]).why == "no results of SST-2"
        assert only(found["alike-at-2"]).task == "STS-B"

    def test_every_task_it_names_is_known(self) -> None:
        assert {task for claim in load_ledger() for task in claim.tasks} == {"sst2", "cola"}

    def test_every_claim_has_a_test_and_a_name_of_its_own(self) -> None:
        claims = load_ledger()
        assert {claim.test.kind for claim in claims} == set(_TESTS)
        assert len({claim.id for claim in claims}) == len(claims) >= 15


class TestAlike:
    test = Alike(kind="alike", keep=0.361, margin=0.1, strategies=["A", "B", "C"])

    @pytest.mark.parametrize(
        ("means", "verdict"),
        [
            ({"A": 1.0, "B": 1.01, "C": 1.02}, "supported"),
            ({"A": 1.0, "B": 1.0, "C": 1.5}, "contradicted"),  # the margin is a tenth of 2 - 0.5
        ],
    )
    def test_with_little_noise(self, means: dict[str, float], verdict: str) -> None:
        assert only(performance.alike(self.test, evidence(make_sample(means)))).verdict == verdict

    def test_one_that_all_differ_from_is_named(self) -> None:
        found = only(performance.alike(self.test, evidence(make_sample({"A": 1.0, "B": 1.0, "C": 1.5}))))
        assert found.why == "2 of 3 pairs differ by more than the margin, all with C"

    def test_with_much_noise_nothing_is_known(self) -> None:
        found = performance.alike(self.test, evidence(make_sample({"A": 1.0, "B": 1.0}, noise=3)))
        assert only(found).verdict == "not decidable"

    def test_the_pair_that_decides_is_shown_with_its_n(self) -> None:
        found = only(performance.alike(self.test, evidence(make_sample({"A": 1.0, "B": 1.1, "C": 1.5}))))
        assert found.ours.startswith("at 36.1 % kept, farthest apart: A minus C -0.5")
        assert "margin 0.15" in found.ours
        assert found.n == "3 seeds, 200 examples"

    def test_a_larger_difference_that_is_less_sure_is_not_the_one_shown(self) -> None:
        sample = make_sample({"A": 1.0, "B": 1.5, "C": 1.0})
        for seed, more in enumerate((0.25, 0.5, 0.84)):  # 0.53 on average
            sample.losses["C"][seed] += more
        found = only(performance.alike(self.test, evidence(sample)))
        assert found.ours.startswith("at 36.1 % kept, farthest apart: A minus B -0.5")

    def test_a_difference_that_is_hardly_beyond_the_margin_is_corrected_for_their_number(self) -> None:
        """One of three pairs, its interval just beyond: by itself it would contradict."""
        sample = make_sample({"A": 1.0, "B": 1.0, "C": 1.0}, noise=0)
        step = np.resize([-0.2, 0.2], 200)
        for seed in range(3):
            sample.losses["B"][seed] = sample.losses["A"][seed] + 0.18 + step
        found = performance.alike(self.test, evidence(sample))
        beyond = stats.ttest_1samp(0.18 + step, 0.15).pvalue
        assert 0.05 / 2 < beyond < 0.05  # there are two such pairs: with A, and with C
        assert only(found).verdict == "not decidable"

    def test_where_the_dense_model_gains_nothing_there_is_no_margin(self) -> None:
        """Models that are the same do not differ by more than a margin of less than nothing."""
        sample = make_sample({"A": 0.5, "B": 0.5, "C": 0.5}, noise=0, baseline=0.4)
        found = only(performance.alike(self.test, evidence(sample)))
        assert found.verdict == "not decidable"
        assert "whether the dense model gains anything is not known" in found.why
        assert found.ours.endswith("margin unknown")

    def test_one_seed_decides_nothing(self) -> None:
        found = only(performance.alike(self.test, evidence(make_sample({"A": 1.0, "B": 1.5}, seeds=1))))
        assert found.verdict == "not decidable"
        assert found.why == "one seed only"

    @pytest.mark.parametrize(
        ("b", "c", "verdict", "why"),
        [
            (1.5, 1.0, "contradicted", "1 of 1 pairs differ by more than the margin"),
            (1.0, 1.5, "not decidable", "only 1 of 3 pairs have enough results"),
        ],
    )
    def test_pairs_of_one_seed_decide_nothing(self, b: float, c: float, verdict: str, why: str) -> None:
        """A and B have three seeds each, C has one."""
        sample = make_sample({"A": 1.0, "B": b, "C": c})
        sample.losses["C"] = {0: sample.losses["C"][0]}
        found = only(performance.alike(self.test, evidence(sample)))
        assert (found.verdict, found.why, found.n) == (verdict, why, "3 seeds, 200 examples")
        assert found.ours.startswith("at 36.1 % kept, farthest apart: A minus B")

    def test_some_of_the_strategies_are_not_all(self) -> None:
        found = only(performance.alike(self.test, evidence(make_sample({"A": 1.0, "B": 1.01}))))
        assert (found.verdict, found.why) == ("not decidable", "only 1 of 3 pairs have enough results")

    def test_nothing_to_compare(self) -> None:
        for found in (
            evidence(),
            evidence(make_sample({"A": 1.0})),
            evidence(make_sample({"A": 1, "B": 1}, keep=0.1)),
        ):
            assert only(performance.alike(self.test, found)).verdict == "not decidable"


class TestBetter:
    test = Better(kind="better", keep=[0.361, 0.147], better=["A", "B"], worse=["C"])

    @pytest.mark.parametrize(
        ("first", "second", "verdict"),
        [
            ({"A": 1.0, "B": 1.2, "C": 1.5}, {"A": 1.0, "B": 1.2, "C": 1.5}, "supported"),
            ({"A": 1.0, "B": 1.2, "C": 1.5}, {"A": 1.0, "B": 1.2, "C": 0.5}, "contradicted"),
            ({"A": 1.0, "B": 1.2, "C": 1.5}, {"A": 1.0, "B": 1.2, "C": 1.1}, "not decidable"),
        ],
    )
    def test_verdicts(self, first: dict[str, float], second: dict[str, float], verdict: str) -> None:
        found = performance.better(
            self.test, evidence(make_sample(first), make_sample(second, keep=0.147, noise=0.3))
        )
        assert only(found).verdict == verdict

    def test_two_amounts_near_one_of_the_claims_are_not_both_of_them(self) -> None:
        """Of 15 and 14 % the first is nearer to 14.7 %, and 36.1 % has nothing."""
        samples = [make_sample({"A": 1.0, "B": 1.0, "C": 1.5}, keep=keep) for keep in (0.15, 0.14)]
        found = only(performance.better(self.test, evidence(*samples)))
        assert (found.verdict, found.why) == ("not decidable", "only 1 of 2 amounts have enough results")
        assert found.ours.startswith("advantage at 15 % kept: ")
        assert "14 %" not in found.ours

    def test_the_advantage_is_worse_minus_better(self) -> None:
        found = only(
            performance.better(self.test, evidence(make_sample({"A": 1.0, "B": 1.2, "C": 1.5}, noise=0)))
        )
        assert found.ours == "advantage at 36.1 % kept: 0.400 MSE [0.400, 0.400]"
        assert (found.verdict, found.why) == ("not decidable", "only 1 of 2 amounts have enough results")

    def test_a_worse_one_does_not_hide_behind_one_that_is_lost(self) -> None:
        """The mean of C and D is far from A and B; C is not."""
        means = {"A": 1.0, "B": 1.2, "C": 1.1, "D": 9.0}
        both = [make_sample(means, keep=keep, noise=0) for keep in self.test.keep]
        found = only(performance.better(self.test.model_copy(update={"worse": ["C", "D"]}), evidence(*both)))
        assert found.verdict == "not decidable"
        assert found.ours.startswith(
            "advantage at 36.1 % kept over C: 0.000 MSE [0.000, 0.000], "
            "at 36.1 % kept over D: 7.900 MSE [7.900, 7.900], at 14.7 % kept over C: "
        )

    def test_accuracy_is_worded_in_points(self) -> None:
        sample = make_sample({"A": 0.1, "B": 0.1, "C": 0.2}, task="sst2", noise=0)
        assert "10.0 points [10.0, 10.0]" in only(performance.better(self.test, evidence(sample))).ours

    def test_a_missing_strategy_is_named(self) -> None:
        found = only(performance.better(self.test, evidence(make_sample({"A": 1.0, "B": 1.0}))))
        assert found.verdict == "not decidable"
        assert "no results of A, B, C at 36.1 % and 14.7 % kept" in found.why

    def test_each_task_is_found_on_its_own(self) -> None:
        means = {"A": 0.1, "B": 0.1, "C": 0.2}
        both = [make_sample(means, task=t, keep=k) for t in ("sst2", "stsb") for k in self.test.keep]
        found = performance.better(self.test, evidence(*both))
        assert [f.task for f in found] == ["SST-2", "STS-B"]


class TestNoBetter:
    test = NoBetter(kind="no_better", keep=[0.361], margin=0.1, candidate="A", reference="B")

    @pytest.mark.parametrize(
        ("a", "b", "noise", "verdict"),
        [
            (1.0, 1.0, 0.05, "supported"),
            (1.5, 1.0, 0.05, "supported"),
            (1.0, 1.5, 0.05, "contradicted"),
            (1.0, 1.0, 3.0, "not decidable"),
        ],
    )
    def test_verdicts(self, a: float, b: float, noise: float, verdict: str) -> None:
        found = performance.no_better(self.test, evidence(make_sample({"A": a, "B": b}, noise=noise)))
        assert only(found).verdict == verdict


class TestBatches:
    test = Batches(kind="batches", keep=[0.361], strategies=["A"])

    def found(self, many: float, one: float) -> Finding:
        merged = beside_one_batch([make_sample({"A": many})], [make_sample({"A": one})])
        return only(performance.batches(self.test, evidence(*merged)))

    def test_many_batches_against_one(self) -> None:
        assert self.found(many=1.0, one=1.9).verdict == "supported"
        assert self.found(many=1.9, one=1.0).verdict == "contradicted"

    def test_another_amount_is_no_counterpart(self) -> None:
        (alone,) = beside_one_batch([make_sample({"A": 1.0})], [make_sample({"A": 1.9}, keep=0.147)])
        assert alone.strategies == ["A"]

    def test_what_is_missing_is_said(self) -> None:
        found = only(performance.batches(self.test, evidence(make_sample({"A": 1}))))
        assert "the same cells scored on one batch" in found.why


class TestPlateau:
    test = Plateau(kind="plateau", keep=[0.041], margin=0.01, strategies=["A", "B"])

    def at(self, mean: float, noise: float = 0.0) -> Finding:
        sample = make_sample(
            {"A": 0.3, "B": mean}, keep=0.041, task="cola", baseline=0.3, noise=noise, majority=1
        )
        return only(performance.plateau(self.test, evidence(sample)))

    def test_verdicts(self) -> None:
        assert self.at(0.3).verdict == "supported"
        assert self.at(0.25).verdict == "contradicted"
        assert self.at(0.3, noise=1).verdict == "not decidable"

    def test_a_model_that_answers_the_majority_is_there_whatever_is_drawn(self) -> None:
        """Its errors are the majority's, though 200 examples alone know a share of 0.3 to 6 points."""
        wrong = np.arange(200) < 60
        sample = make_sample({"A": 0.3, "B": 0.3}, keep=0.041, task="cola", baseline=0.3, majority=1)
        losses = {name: dict.fromkeys(range(3), wrong * 1.0) for name in ("A", "B")}
        found = replace(sample, losses=losses, majority_losses=wrong * 1.0)
        assert only(performance.plateau(self.test, evidence(found))).verdict == "supported"

    def test_some_of_the_strategies_are_not_all(self) -> None:
        sample = make_sample({"A": 0.3}, keep=0.041, task="cola", baseline=0.3, noise=0, majority=1)
        found = only(performance.plateau(self.test, evidence(sample)))
        assert found.verdict == "not decidable"
        assert "only 1 of 2" in found.why

    def test_the_majority_class_is_named(self) -> None:
        found = self.at(0.25)
        assert "majority class (70.0 %): B at 4.1 % kept by 5.0 points" in found.ours
        assert "100% of the models give every example one answer" in found.ours


class TestShare:
    test = Share(kind="share", keep_at_most=0.2, share=0.8, strategy="A")

    @pytest.mark.parametrize(
        ("mean", "verdict"), [(0.6, "supported"), (1.5, "contradicted"), (0.8, "not decidable")]
    )
    def test_verdicts(self, mean: float, verdict: str) -> None:
        """Of 2 - 0.5 gained by the dense model, 0.6 retains 93 %, 1.5 retains 33 %, 0.8 just 80 %."""
        samples = [make_sample({"A": 1.9}, keep=0.041), make_sample({"A": mean}, keep=0.147)]
        assert only(performance.share(self.test, evidence(*samples))).verdict == verdict

    def test_of_nothing_gained_there_is_no_share(self) -> None:
        found = only(
            performance.share(self.test, evidence(make_sample({"A": 1.0}, keep=0.147, baseline=0.4)))
        )
        assert (found.verdict, found.ours) == ("not decidable", "\N{EN DASH}")

    def test_a_gain_that_is_not_clear_of_0_is_no_whole_to_have_a_share_of(self) -> None:
        sample = make_sample({"A": 1.0}, keep=0.147, noise=3, baseline=0.6)
        found = only(performance.share(self.test, evidence(sample)))
        assert found.verdict == "not decidable"
        assert "whether the dense model gains" in found.why
        assert "[" not in found.ours

    def test_the_share_by_hand(self) -> None:
        found = only(performance.share(self.test, evidence(make_sample({"A": 1.1}, keep=0.147, noise=0))))
        assert found.ours == "A at 14.7 % kept: 60% [60%, 60%]"

    def test_the_interval_is_fiellers(self) -> None:
        """Seeds alone vary: of 2 - own and 2 - dense, three pairs; the roots of Fieller's quadratic."""
        gains = np.array([[0.9, 1.2, 1.0], [1.4, 1.6, 1.5]])
        losses = {
            name: {seed: np.full(50, 2 - gain) for seed, gain in enumerate(own)}
            for name, own in zip(("A", DENSE), gains, strict=True)
        }
        sample = replace(make_sample({"A": 1.0}, keep=0.147), losses=losses)
        (x, y), (v, w), t2 = gains.mean(axis=1), gains.var(axis=1, ddof=1) / 3, stats.t.ppf(0.975, 2) ** 2
        both = np.cov(*gains)[0, 1] / 3
        low, high = sorted(np.roots([y**2 - t2 * w, -2 * (x * y - t2 * both), x**2 - t2 * v]))
        found = only(performance.share(self.test, evidence(sample)))
        ends = [int(end) / 100 for end in re.findall(r"(-?\d+)%", found.ours)]
        assert ends == pytest.approx([x / y, low, high], abs=0.021)  # 4,000 draws
        assert found.verdict == "not decidable"


def make_iou(values: dict[int, list[float]], pair: tuple[str, str] = ("A", "B")) -> pd.DataFrame:
    """One tensor per layer, by seed; a tenth kept."""
    rows = [
        {
            **{"task_a": "sst2", "task_b": "sst2", "strategy_a": pair[0], "strategy_b": pair[1]},
            "amount": "keep-0.1",
            **{"seed_a": seed, "seed_b": seed, "n": 1000, "kept_a": 100, "kept_b": 100, "layer": layer},
            **{"kept": value, "kept_chance": 0.05, "pruned": value, "pruned_chance": 0.8},
        }
        for seed, of_layers in values.items()
        for layer, value in enumerate(of_layers)
    ]
    return pd.DataFrame(rows)


class TestOverlap:
    test = Overlap(kind="overlap", of="kept", keep=[0.1], low=0.8, high=0.9, pairs=[("B", "A")])

    @pytest.mark.parametrize(
        ("values", "verdict"),
        [
            ({0: [0.85, 0.86], 1: [0.85, 0.86]}, "supported"),
            ({0: [0.5, 0.5], 1: [0.51, 0.5]}, "contradicted"),
            ({0: [0.95, 0.95], 1: [0.96, 0.95]}, "contradicted"),
            ({0: [0.85, 0.85], 1: [0.95, 0.95]}, "not decidable"),
            ({0: [0.85, 0.85]}, "not decidable"),
        ],
    )
    def test_verdicts(self, values: dict[int, list[float]], verdict: str) -> None:
        assert only(masks.overlap(self.test, evidence(iou=make_iou(values)))).verdict == verdict

    def test_the_last_layer_may_be_left_out(self) -> None:
        iou = make_iou({0: [0.85, 0.85, 0.1], 1: [0.85, 0.85, 0.1]})
        assert only(masks.overlap(self.test, evidence(iou=iou))).verdict == "contradicted"
        without = self.test.model_copy(update={"last_layer": False})
        assert only(masks.overlap(without, evidence(iou=iou))).verdict == "supported"

    def test_other_pairs_and_no_masks_at_all(self) -> None:
        for iou in (make_iou({0: [0.85]}, ("A", "C")), NO_IOU):
            assert "no results of masks" in only(masks.overlap(self.test, evidence(iou=iou))).why

    @pytest.mark.parametrize("values", [[0.85, 0.86], [0.95, 0.96]], ids=["within", "outside"])
    def test_one_of_two_amounts_is_not_both(self, values: list[float]) -> None:
        """The mean over both may lie elsewhere, on either side of an end of the range."""
        both = self.test.model_copy(update={"keep": [0.1, 0.05]})
        found = only(masks.overlap(both, evidence(iou=make_iou({0: values, 1: values}))))
        assert (found.verdict, found.why) == (
            "not decidable",
            "only 1 of 2 pairs at these amounts have enough results",
        )

    def test_two_amounts_near_one_of_the_claims_are_not_both_of_them(self) -> None:
        both = self.test.model_copy(update={"keep": [0.1, 0.05]})
        iou = make_iou({0: [0.85, 0.86], 1: [0.85, 0.86]})
        near = iou.assign(amount="keep-0.095", kept_a=95, kept_b=95)
        found = only(masks.overlap(both, evidence(iou=pd.concat([iou, near]))))
        assert (found.verdict, found.why) == (
            "not decidable",
            "only 1 of 2 pairs at these amounts have enough results",
        )

    def test_the_interval_is_students(self) -> None:
        # Means 0.84 and 0.86: 0.85 -+ 12.706 * 0.01.
        assert masks.interval([0.84, 0.86]) == pytest.approx((0.85, 0.85 - 0.12706, 0.85 + 0.12706), abs=1e-5)


class TestDepth:
    test = Depth(kind="depth", of="pruned", keep=[0.1], pairs=[("A", "B")])

    @pytest.mark.parametrize(
        ("values", "verdict"),
        [
            ({0: [0.9, 0.8, 0.7], 1: [0.91, 0.8, 0.7]}, "supported"),
            ({0: [0.7, 0.8, 0.9], 1: [0.71, 0.8, 0.9]}, "contradicted"),
            ({0: [0.7, 0.8, 0.9], 1: [0.9, 0.8, 0.7]}, "not decidable"),
            ({0: [0.9, 0.8, 0.7]}, "not decidable"),
        ],
    )
    def test_verdicts(self, values: dict[int, list[float]], verdict: str) -> None:
        assert only(masks.depth(self.test, evidence(iou=make_iou(values)))).verdict == verdict

    def test_the_slope_by_hand(self) -> None:
        iou = make_iou({0: [0.9, 0.8, 0.7], 1: [0.9, 0.8, 0.7]})
        assert only(masks.depth(self.test, evidence(iou=iou))).ours.startswith(
            "change of IoU per layer -0.1000"
        )


def of_heads(means: dict[str, float], heads: float = 0.5, noise: float = 0.0, dense: float = 0.2) -> Sample:
    """0-1 losses in all but their values, which are around `means`."""
    sample = make_sample({DENSE: dense, **means}, task="sst2", noise=noise)
    return replace(sample, amount=f"heads-{heads}", heads=heads)


class TestNegligible:
    test = Negligible(kind="negligible", heads=0.5, margin=0.01, strategies=["A"])

    @pytest.mark.parametrize(
        ("means", "noise", "verdict"),
        [
            ({"A": 0.2}, 0.0, "supported"),
            ({"A": 0.22}, 0.0, "contradicted"),  # two points, for certain
            (
                {"A": 0.205},
                0.0,
                "contradicted",
            ),  # half a point, for certain; no spread
            ({"A": 0.19}, 0.01, "supported"),
            ({"A": 0.205}, 0.01, "contradicted"),  # beyond an interval of 0.1 points or so
            ({"A": 0.205}, 1.0, "not decidable"),  # within it, but it may cost ten points
            ({"A": 0.9}, 0.1, "contradicted"),
        ],
    )
    def test_verdicts(self, means: dict[str, float], noise: float, verdict: str) -> None:
        assert only(heads.negligible(self.test, evidence(of_heads(means, noise=noise)))).verdict == verdict

    def test_one_finding_per_strategy_that_is_there(self) -> None:
        test = self.test.model_copy(update={"strategies": ["A", "B", "C"]})
        found = heads.negligible(test, evidence(of_heads({"A": 0.2, "C": 0.3}), of_heads({"A": 0.9}, 0.9)))
        assert [(f.ours.split(" at ")[0], f.verdict) for f in found] == [
            ("A", "supported"),
            ("C", "contradicted"),
        ]
        assert found[1].ours == "C at 50 % of the heads removed: costs 10.0 points [10.0, 10.0]"
        assert found[1].n == "3 seeds, 200 examples"

    def test_the_dense_model_is_that_of_the_strategys_seeds(self) -> None:
        sample = of_heads({"A": 0.205})
        sample.losses[DENSE][2] = sample.losses[DENSE][2] + 0.6  # a third seed that is far off
        del sample.losses["A"][2]
        assert only(heads.negligible(self.test, evidence(sample))).verdict == "contradicted"

    def test_a_regression_has_no_points(self) -> None:
        sample = replace(of_heads({"A": 0.2}), task="stsb")
        assert only(heads.negligible(self.test, evidence(sample))).task == ""

    def test_weights_are_no_heads(self) -> None:
        assert only(heads.negligible(self.test, evidence(make_sample({"A": 0.5}, keep=0.5)))).task == ""


class TestBetterWithoutHeads:
    test = Better(kind="better", heads=[0.3, 0.5], better=["A"], worse=["B"])

    def test_at_every_fraction(self) -> None:
        found = [of_heads({"A": 0.2, "B": 0.3}, fraction) for fraction in (0.3, 0.5, 0.9)]
        finding = only(performance.better(self.test, evidence(*found)))
        assert finding.verdict == "supported"
        assert finding.ours.startswith("advantage at 30 % of the heads removed: 10.0 points")
        assert "90 %" not in finding.ours

    def test_a_fraction_without_results(self) -> None:
        finding = only(performance.better(self.test, evidence(of_heads({"A": 0.2, "B": 0.3}, 0.3))))
        assert (finding.verdict, finding.why) == ("not decidable", "only 1 of 2 amounts have enough results")


class TestFalls:
    def test_multiply_adds_by_hand(self) -> None:
        found = replace(evidence(), multiply_adds={0.5: 0.8, 0.25: 0.9})
        finding = only(heads.falls(Falls(kind="falls", of="multiply_adds"), found))
        assert finding.verdict == "supported"
        # 0.1 less in the first quarter and in the second: 0.04 per tenth.
        expected = "80.0 % of the dense model's with 50 % of the heads removed; from fraction to fraction"
        assert finding.ours == f"{expected} -0.040 to -0.040 per tenth of the heads (counted)"
        found = replace(evidence(), multiply_adds={0.25: 0.9, 0.5: 0.9})
        assert only(heads.falls(Falls(kind="falls", of="multiply_adds"), found)).verdict == "contradicted"

    @pytest.mark.parametrize(
        ("small", "large", "verdict"),
        [
            ([9.0, 8.0, 7.0, 6.0], [90.0, 81.0, 69.0, 60.0], "supported"),
            ([11.0, 12.0, 13.0, 14.0], [90.0, 80.0, 70.0, 60.0], "contradicted"),
            ([9.0, 11.0, 9.0, 11.0], [90.0, 80.0, 70.0, 60.0], "not decidable"),
        ],
    )
    def test_latency(self, small: list[float], large: list[float], verdict: str) -> None:
        fractions = [0.1, 0.2, 0.3, 0.4]
        found = [
            make_latency(heads, {(1, 32): (10.0, a), (32, 128): (100.0, b)})
            for heads, a, b in zip(fractions, small, large, strict=True)
        ]
        finding = only(heads.falls(Falls(kind="falls", of="latency"), replace(evidence(), latencies=found)))
        assert finding.verdict == verdict
        slope = stats.linregress(fractions, [b / 100 for b in large]).slope
        assert f"32 {TIMES} 128: {slope / 10:+.3f}" in finding.ours
        assert finding.n == "4 fractions"

    @pytest.mark.parametrize("of", ["multiply_adds", "latency"])
    def test_nothing_measured(self, of: str) -> None:
        assert only(heads.falls(Falls(kind="falls", of=of), evidence())).verdict == "not decidable"


def make_latency(heads: float, medians: dict[tuple[int, int], tuple[float, float]]) -> Latency:
    """Medians of the dense model and of the one without the heads, by batch size and length."""
    timings = [
        Timing(variant=variant, batch=batch, length=length, median=median, iqr=0.1, runs=9)
        for (batch, length), both in medians.items()
        for variant, median in zip(("dense", "removed"), both, strict=True)
    ]
    return Latency(
        model="m",
        layers=None,
        heads=heads,
        removed={},
        parameters={},
        multiply_adds={},
        sequence_length=128,
        timings=timings,
        threads=1,
        device="cpu",
        processor="p",
        versions={},
        started="now",
        git_revision=None,
    )


class TestCommand:
    def test_a_grid_is_held_against_the_claims_about_what_it_prunes(self, tmp_path) -> None:
        result = make_result()
        cell = Cell(task="sst2", strategy="HeadEntropy", heads=0.5)
        of_heads = result.model_copy(update={"cell": cell, "masks": None})
        weights, about_heads = (
            {claim.id for claim, _ in decide_claims([one], overlaps(ResultStore(tmp_path), [one]))}
            for one in (result, of_heads)
        )
        assert "pareto" in weights
        assert "half-of-the-heads" in about_heads
        assert weights.isdisjoint(about_heads)
        assert len(weights | about_heads) == len(load_ledger())

    def test_the_codes_baseline_is_not_plain_gradients(self, tmp_path) -> None:
        """Under `released` LayerMagGrad is |g| of one batch: the claim about |w g| is not about it."""
        results = [
            make_result(strategy=strategy, keep=keep, seed=seed, after_retraining={"accuracy": accuracy})
            for strategy, accuracy in (("LayerGradCAMShift", 0.9), ("LayerMagGrad", 0.6))
            for keep in (0.361, 0.147, 0.087, 0.041)
            for seed in (0, 1)
        ]

        def verdict(of: list[Result]) -> str:
            decided = decide_claims(of, overlaps(ResultStore(tmp_path), of))
            ((finding,),) = (found for claim, found in decided if claim.id == "cam-cut-is-no-better")
            return f"{finding.verdict}: {finding.why}"

        assert verdict(results) == "contradicted: at an amount it is better"
        released = {"protocol": Protocol.named("released")}
        cells = [result.cell.model_copy(update=released) for result in results]
        same = [r.model_copy(update={"cell": cell}) for r, cell in zip(results, cells, strict=True)]
        assert verdict(same) == "not decidable: no results of protocol.layer_mag_grad = 'weight*gradient'"

    def test_every_claim_is_printed_with_a_verdict(self, tmp_path) -> None:
        store = ResultStore(tmp_path / "hand")
        for strategy in ("LayerGradCAMShift", "LayerMagGrad"):
            for seed in (0, 1):
                store.save(make_result("stsb", strategy, keep=0.361, seed=seed))
        done = CliRunner().invoke(cli.app, ["claims", str(store.folder)])
        assert done.exit_code == 0, done.output
        for claim in load_ledger():
            assert (f"{claim.id} (" in done.output) != claim.of_heads
        assert "NOT DECIDABLE: only 1 of 4 amounts have enough results" in done.output

    def test_no_results_is_the_users_error(self, tmp_path, monkeypatch, capsys) -> None:
        monkeypatch.setattr("sys.argv", ["shrinkbench-bert", "claims", str(tmp_path)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 2
        assert "no results in" in capsys.readouterr().err

    def test_both_renderings_count_the_verdicts(self) -> None:
        claim = load_ledger()[0]
        findings = [Finding("STS-B", "1 [0, 2]", "3 seeds", "supported", "why | so")]
        assert "1 claims, 1 findings: 1 supported, 0 contradicted, 0 not decidable." in plain(
            [(claim, findings)]
        )
        text = markdown([(claim, findings)], ["grid a_b"])
        assert r"why \| so" in text
        assert r"grid a\_b" in text
