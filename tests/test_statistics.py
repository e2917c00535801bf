"""Paired comparisons, corrections and ranks, against scipy, brute force and known answers."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from results_factory import make_result
from scipy import stats
from sklearn.metrics import matthews_corrcoef

from shrinkbench_bert.analysis.losses import _LOSSES, Sample, comparable_metrics, samples, samples_by_metric
from shrinkbench_bert.analysis.paired import Difference, bootstrap_means, difference, holm, paired_differences
from shrinkbench_bert.analysis.pairs import all_pairs
from shrinkbench_bert.analysis.ranks import mean_ranks
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.packing import pack_numbers
from shrinkbench_bert.report.evidence import markdown
from shrinkbench_bert.report.labels import Header
from shrinkbench_bert.store import Evaluation, Result
from shrinkbench_bert.tasks import TASKS

RNG = np.random.default_rng


class TestDifference:
    def two(self, seeds: int = 1, examples: int = 400, effect: float = 0.1) -> np.ndarray:
        rng = RNG(1)
        shared = rng.exponential(size=(1, 1, examples))
        return shared + rng.normal(size=(2, seeds, examples)) + np.array([effect, 0]).reshape(2, 1, 1)

    def test_with_one_seed_it_is_the_paired_t_test(self) -> None:
        losses = self.two()
        found = difference(losses, [1, -1])
        exact = stats.ttest_rel(losses[0, 0], losses[1, 0])
        interval = exact.confidence_interval(0.95)
        assert found.mean == pytest.approx(np.mean(losses[0] - losses[1]))
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.01)
        assert (found.seeds, found.examples, found.p) == (1, 400, 1)  # another seed may do otherwise

    def test_with_one_seed_it_agrees_with_scipys_paired_bootstrap(self) -> None:
        a, b = self.two()[:, 0]
        found = difference(self.two(), [1, -1])
        scipys = stats.bootstrap(
            (a, b), lambda x, y, axis: (x - y).mean(axis), paired=True, method="percentile", rng=0
        ).confidence_interval
        assert (found.low, found.high) == pytest.approx((scipys.low, scipys.high), abs=0.02)

    def test_for_accuracy_it_agrees_with_mcnemars_exact_test(self) -> None:
        """200 examples, 40 that only the first gets wrong, 20 that only the second does; seeds agree."""
        losses = np.zeros((2, 2, 200))
        losses[0, :, :40] = losses[1, :, 40:60] = 1
        exact = stats.binomtest(20, 60).pvalue
        assert difference(losses, [1, -1]).p == pytest.approx(exact, rel=0.5)
        assert difference(losses, [1, -1]).mean == pytest.approx(0.1)

    def test_the_bootstrap_has_the_variance_that_theory_gives(self) -> None:
        """Examples and seeds drawn anew: the sum of both sources, each unbiased."""
        rng = RNG(2)
        losses = rng.normal(size=(1, 4, 1)) + rng.normal(size=(1, 1, 300)) * 10
        of_seeds = losses[0].mean(axis=1).var(ddof=1) / 4
        of_examples = losses[0].mean(axis=0).var() / 300
        assert bootstrap_means(losses)[0].var() == pytest.approx(of_seeds + of_examples, rel=0.1)

    def test_the_same_is_drawn_for_every_strategy(self) -> None:
        losses = np.repeat(RNG(3).normal(size=(1, 3, 50)), 2, axis=0)
        first, second = bootstrap_means(losses)
        assert (first == second).all()

    @pytest.mark.parametrize("seeds", [1, 3])
    def test_no_difference_at_all(self, seeds: int) -> None:
        losses = np.repeat(RNG(4).normal(size=(1, seeds, 50)), 2, axis=0)
        found = difference(losses, [1, -1])
        assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)

    def test_losses_that_vary_where_no_margin_does(self) -> None:
        """Seeds and examples have even means, but one seed is drawn, and its examples do vary."""
        found = difference(np.array([[[1.0, 0, 0], [0, 1, 0]], [[0.0, 1, 0], [1, 0, 0]]]), [1, -1])
        assert found.mean == 0
        # Three are drawn of 1, -1, 0: the mean's variance is 2/9. 12.706 is Student's t of one degree.
        assert found.high == pytest.approx(12.706 * math.sqrt(2) / 3, rel=0.05)
        assert found.low == -found.high
        assert found.p == 1

    def test_a_constant_difference_is_certain(self) -> None:
        found = difference(np.array([[[1.0, 1, 1]] * 2, [[0.0, 0, 0]] * 2]), [1, -1])
        assert (found.mean, found.low, found.high, found.p) == (1, 1, 1, 0)

    @pytest.mark.parametrize(("of_seeds", "of_examples"), [(1.0, 0.1), (0.05, 1.0), (0.1, 1.5)])
    def test_three_seeds_cover_as_often_as_promised(self, of_seeds: float, of_examples: float) -> None:
        """400 studies with a random effect of the seed, whose true difference is 0."""
        rng, covered = RNG(5), 0
        for _ in range(400):
            paired = of_seeds * rng.normal(size=(3, 1)) + of_examples * rng.normal(size=(3, 100))
            found = difference(np.stack([paired, np.zeros_like(paired)]), [1, -1])
            covered += found.low <= 0 <= found.high
        # Two standard errors of a share of 0.95 in 400 are 0.022.
        assert covered / 400 >= 0.928

    @pytest.mark.parametrize(("seeds", "lowest"), [(2, 0.86), (3, 0.9), (5, 0.9)])
    def test_where_seeds_and_examples_have_effects_of_their_own(self, seeds: int, lowest: float) -> None:
        """600 studies, seeds with four times the variance of examples: with two of them it is too narrow."""
        rng, covered = RNG(8), 0
        for _ in range(600):
            paired = 2 * rng.normal(size=(seeds, 1)) * math.sqrt(seeds) + 10 * rng.normal(size=(1, 100))
            found = difference(paired[None], [1])
            covered += found.low <= 0 <= found.high
        assert lowest <= covered / 600 <= 0.98

    def test_a_margin_by_hand(self) -> None:
        """One seed's mean is 0, the other's 2, whatever the example: 1 with an error of 1, one degree."""
        found = difference(np.array([[[0.0] * 4, [2.0] * 4]]), [1])
        assert (found.mean, found.freedom) == (1, 1)
        assert found.error == pytest.approx(1, rel=0.05)
        # Student's t of one degree is Cauchy's distribution.
        for margin in (0.0, 0.25):
            exact = 1 - 2 / math.pi * math.atan((1 - margin) / found.error)
            assert found.p_beyond(margin) == pytest.approx(exact)
        assert found.p_beyond(0) == found.p
        assert found.p_beyond(1) == found.p_beyond(3) == 1

    def test_within_and_below_by_hand(self) -> None:
        """Of a mean of -1 with an error of 0.5 and 4 degrees of freedom."""
        d = Difference(-1.0, -2.4, 0.4, 0.1, seeds=5, examples=10, error=0.5, freedom=4)
        t = stats.t(4)
        assert d.p_within(2.5) == pytest.approx(2 * t.sf(1.5 / 0.5))
        assert d.p_within(1.0) == d.p_within(0.2) == 1
        assert d.p_below(0.5) == pytest.approx(2 * t.sf(1.5 / 0.5))
        assert d.p_below(-1.5) == 1
        reach = t.ppf(0.975) * 0.5  # as far as a 95 % interval by that error
        assert d.p_within(1 + reach) == d.p_below(-1 + reach) == pytest.approx(0.05)
        alone = replace(d, seeds=1)
        assert alone.p_within(9) == alone.p_below(9) == 1
        sure = replace(d, error=0.0)
        assert sure.p_within(1.5) == sure.p_below(0.5) == 0

    def test_a_contrast_weighs_groups(self) -> None:
        losses = np.array([[[4.0, 6]], [[1.0, 1]], [[2.0, 2]]])
        assert difference(losses, [1, -0.5, -0.5]).mean == 5 - 1.5


class TestFamily:
    def of_seeds(self, *means: float, examples: int = 50) -> np.ndarray:
        return np.array(means)[:, None] + np.zeros((1, examples))

    def test_a_variance_is_moderated_by_the_others_by_hand(self) -> None:
        """Variances over three seeds of 0, 1 and 4, two degrees each; the others' mean counts as two more."""
        family = [self.of_seeds(3, 3, 3.0), self.of_seeds(1, 0, -1.0), self.of_seeds(2, 0, -2.0)]
        family[0] += np.resize([1e-3, -1e-3], 50)  # so that examples vary, and it is not certain
        found = paired_differences(family)
        # (2 * 0 + 2 * (1 + 4) / 2) / 4, (2 * 1 + 2 * (0 + 4) / 2) / 4, (2 * 4 + 2 * (0 + 1) / 2) / 4
        for own, variance in zip(found, (1.25, 1.5, 2.25), strict=True):
            assert own.error == pytest.approx(math.sqrt(variance / 3), rel=0.03)
            assert own.freedom == pytest.approx(4, abs=0.01)
            assert own.p == pytest.approx(2 * stats.t.sf(abs(own.mean) / own.error, own.freedom))

    def test_few_others_lend_no_more_than_they_have(self) -> None:
        """With two seeds one other has one degree of freedom."""
        first, second = paired_differences([self.of_seeds(0, 2.0), self.of_seeds(0, 4.0)])
        assert first.freedom == second.freedom == 2
        assert first.error == pytest.approx(math.sqrt((2 + 8) / 2 / 2), rel=0.05)

    def test_neither_one_seed_nor_a_certain_difference_tells_of_the_spread_of_others(self) -> None:
        several = RNG(9).normal(size=(3, 50))
        alone = paired_differences([several])
        rest = [RNG(10).normal(size=(1, 50)), np.zeros((3, 50))]
        assert paired_differences([several, *rest])[0] == alone[0]

    def test_of_one_seed_it_is_known_by_its_examples_alone(self) -> None:
        one = RNG(10).normal(size=(1, 50))
        assert paired_differences([one, RNG(9).normal(size=(3, 50))])[0] == difference(one[None], [1])

    def test_an_interval_is_of_the_pair_alone(self) -> None:
        family = [RNG(i).normal(size=(3, 50)) for i in range(3)]
        for own, paired in zip(paired_differences(family), family, strict=True):
            alone = difference(paired[None], [1])
            assert (own.low, own.high) == (alone.low, alone.high)

    def test_of_no_members(self) -> None:
        assert paired_differences([]) == []

    @pytest.mark.parametrize("strategies", [4, 12])
    @pytest.mark.parametrize("uneven", [0.0, 1.0])
    def test_of_strategies_that_are_all_alike_hardly_any_two_differ(
        self, strategies: int, uneven: float
    ) -> None:
        """150 studies with three seeds; by themselves up to three in ten would find a difference."""
        rng, wrong = RNG(13), 0
        for _ in range(150):
            spread = np.exp(uneven * rng.normal(size=(strategies, 1, 1)) / 2)
            seeds = spread * rng.normal(size=(strategies, 3, 1))
            losses = seeds + 4 * rng.normal(size=(strategies, 1, 100))
            family = [losses[i] - losses[j] for i, j in combinations(range(strategies), 2)]
            p = [found.p for found in paired_differences(family)]
            wrong += min(holm(p)) < 0.05
        # Two standard errors of a share of 0.05 in 150 are 0.036.
        assert wrong / 150 <= 0.086


class TestHolm:
    def test_by_hand(self) -> None:
        # Sorted: 0.01*4, 0.02*3, 0.03*2, 0.04*1, each at least the one before.
        assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])

    def test_never_above_one(self) -> None:
        assert holm([0.5, 0.9]) == [1.0, 1.0]

    def test_one_test_needs_no_correction(self) -> None:
        assert holm([0.03]) == [0.03]


def with_predictions(result: Result, labels: list[float], predictions: list[float]) -> Result:
    evaluation = Evaluation(
        n=len(labels), metrics=result.after_retraining.metrics, predictions=pack_numbers(predictions)
    )
    update = {"labels": pack_numbers(labels), "after_retraining": evaluation, "dense": evaluation}
    return result.model_copy(update=update)


class TestLosses:
    def test_a_classification_loses_one_per_error(self) -> None:
        result = with_predictions(make_result("sst2"), [0, 1, 1, 0], [0, 0, 1, 0])
        (sample,) = samples([result])
        assert sample.losses["LayerMagWeight"][0].tolist() == [0, 1, 0, 0]
        assert sample.losses["dense"][0].tolist() == [0, 1, 0, 0]
        assert sample.majority["LayerMagWeight"][0] == 0.75
        assert sample.baseline == pytest.approx(1 - 0.51)

    def test_a_gain_of_the_dense_model_is_one_only_if_it_is_clear_of_0(self) -> None:
        """Three wrong of 100 beside 0.49, and then 45 of 100, whose interval holds 0.49."""
        for wrong, gain in ((3, 0.49 - 0.03), (45, 0.0)):
            result = with_predictions(make_result("sst2"), [1] * 100, [0] * wrong + [1] * (100 - wrong))
            (sample,) = samples([result])
            assert sample.dense_gain == pytest.approx(gain)

    @pytest.mark.parametrize(("accuracy", "losses"), [(0.75, [0, 0, 1, 0]), (0.25, [1, 1, 0, 1])])
    def test_the_majority_class_is_that_of_train(self, accuracy: float, losses: list[int]) -> None:
        """It has the baseline's accuracy, and need not be the majority of what is evaluated."""
        result = make_result("sst2", baseline={"accuracy": accuracy})
        (sample,) = samples([with_predictions(result, [0, 0, 1, 0], [0, 1, 1, 0])])
        assert sample.majority_losses is not None
        assert sample.majority_losses.tolist() == losses

    def test_a_regression_loses_the_squared_error(self) -> None:
        (sample,) = samples([with_predictions(make_result("stsb"), [0, 5, 2.5], [1, 3, 2.5])])
        assert sample.losses["LayerMagWeight"][0].tolist() == [1, 4, 0]
        assert sample.baseline == 2.25
        assert sample.majority_losses is None

    def test_samples_stand_by_task_and_amount(self) -> None:
        results = [make_result(task, keep=keep) for task in ("cola", "sst2") for keep in (0.1, 0.4)]
        found = [(s.task, s.amount) for s in samples(results)]
        assert found == [
            ("sst2", "keep-0.4"),
            ("sst2", "keep-0.1"),
            ("cola", "keep-0.4"),
            ("cola", "keep-0.1"),
        ]

    def test_only_common_seeds_are_stacked(self) -> None:
        results = [make_result(strategy="LayerRandom", seed=s) for s in (0, 1, 2)]
        results += [make_result(strategy="LayerMagWeight", seed=s) for s in (2, 1, 5)]
        (sample,) = samples(results)
        assert sample.seeds(sample.strategies) == [1, 2]
        assert sample.stack(sample.strategies).shape == (2, 2, 400)

    def test_other_examples_are_not_compared(self) -> None:
        other = make_result(seed=1)
        other = other.model_copy(
            update={"fingerprints": other.fingerprints.model_copy(update={"data": "other"})}
        )
        with pytest.raises(UserError, match=r"seed1.*not those of.*seed0"):
            samples([make_result(), other])

    def test_predictions_that_were_not_stored_are_named(self) -> None:
        bare = make_result().dense.without_predictions()
        with pytest.raises(UserError, match="predictions were not stored"):
            samples([make_result().model_copy(update={"after_retraining": bare})])


def shares_of_mcc(labels: list[float], predictions: list[float]) -> np.ndarray:
    result = with_predictions(make_result("cola"), labels, predictions)
    own, by_mcc = samples_by_metric([result])
    assert (own.metric, by_mcc.metric) == ("accuracy", "mcc")
    assert by_mcc.majority_losses is None
    return by_mcc.losses["LayerMagWeight"][0]


class TestSharesOfAMetric:
    @pytest.mark.parametrize("task", TASKS)
    def test_the_metric_that_papers_plot_has_them(self, task: str) -> None:
        assert comparable_metrics([make_result(task)])[0] == TASKS[task].metric

    def test_others_may_have_them_too(self) -> None:
        assert comparable_metrics([make_result("cola")]) == ["accuracy", "mcc"]
        assert comparable_metrics([make_result("stsb")]) == ["mse"]

    def test_what_an_older_result_lacks_is_left_out(self) -> None:
        results = [make_result("cola"), make_result("cola", seed=1, baseline={"mcc": None})]
        assert {sample.metric for sample in samples_by_metric(results)} == {"accuracy"}

    def test_four_examples_by_hand(self) -> None:
        """MCC = 1/sqrt(3). With z standardised, each has zx zy - MCC / 2 (zx^2 + zy^2 - 2) of it."""
        found = shares_of_mcc([0, 0, 1, 1], [0, 0, 1, 0])
        assert found == pytest.approx(1 - np.array([4 / 3, 4 / 3, 2, -2 / 3]) / math.sqrt(3))

    @pytest.mark.parametrize("classes", [2, 3])
    def test_the_mean_is_that_of_scikit_learn(self, classes: int) -> None:
        rng = RNG(11)
        labels = rng.integers(0, classes, 200)
        predictions = np.where(rng.random(200) < 0.6, labels, rng.integers(0, classes, 200))
        found = shares_of_mcc(labels.tolist(), predictions.tolist())
        assert 1 - found.mean() == pytest.approx(matthews_corrcoef(labels, predictions))

    def test_a_constant_has_none(self) -> None:
        assert shares_of_mcc([0, 1, 1, 0], [1, 1, 1, 1]).tolist() == [1, 1, 1, 1]

    def test_the_error_of_a_difference_is_that_of_a_plain_bootstrap(self) -> None:
        """Two models of one kind, as uneven as CoLA's classes: scipy draws examples and computes MCC anew."""
        rng = RNG(12)
        labels = (rng.random(1000) < 0.7) * 1.0
        a, b = (np.where(rng.random(1000) < right, labels, 1 - labels) for right in (0.75, 0.7))

        def apart(i: np.ndarray) -> float:
            return float(matthews_corrcoef(labels[i], a[i]) - matthews_corrcoef(labels[i], b[i]))

        plain = stats.bootstrap(
            (np.arange(1000),), apart, vectorized=False, n_resamples=1500, method="percentile", rng=0
        )
        found = difference(
            np.array([[shares_of_mcc(labels.tolist(), own.tolist())] for own in (b, a)]), [1, -1]
        )
        assert found.mean == pytest.approx(apart(np.arange(1000)))
        reach = stats.t.ppf(0.975, 999) * plain.standard_error
        assert found.high - found.mean == pytest.approx(reach, rel=0.06)

    @pytest.mark.parametrize("shift", [0.8, 1.6, 2.2])
    def test_three_seeds_cover_a_difference(self, shift: float) -> None:
        """400 studies of two models alike, whose true difference is 0: they answer 80 to 99 % alike."""
        rng, covered = RNG(7), 0
        for _ in range(400):
            labels = (rng.random(500) < 0.7) * 1.0
            shared = rng.normal(size=500)
            strength = 0.3 + 0.15 * rng.normal(size=(2, 3, 1))
            margins = strength * (2 * labels - 1) + 0.6 * shared + 0.8 * rng.normal(size=(2, 3, 500))
            predictions = (margins > -shift) * 1.0
            losses = [[_LOSSES["mcc"](labels, own) for own in model] for model in predictions]
            found = difference(np.array(losses), [1, -1])
            covered += found.low <= 0 <= found.high
        assert covered / 400 >= 0.928

    def test_one_seed_tells_nothing_of_a_nearly_constant_model(self) -> None:
        """Two answers of the smaller class, both wrong, come about by luck in every other such model."""
        labels = [1.0] * 70 + [0.0] * 30
        results = []
        for strategy, predictions in (("A", [1.0] * 100), ("B", [0.0] * 2 + [1.0] * 98)):
            result = make_result("cola")
            cell = result.cell.model_copy(update={"strategy": strategy})
            results.append(with_predictions(result.model_copy(update={"cell": cell}), labels, predictions))
        pairs = all_pairs(samples_by_metric(results)).set_index("metric")
        assert pairs.loc["mcc", "difference"] < 0
        assert pairs.loc["mcc", ["p", "p_holm"]].tolist() == [1, 1]
        assert pairs.loc["accuracy", ["p", "p_holm"]].tolist() == [1, 1]


class TestPairs:
    def test_every_pair_once_with_its_correction(self) -> None:
        rng, results = RNG(6), []
        labels = rng.integers(0, 2, 300).astype(float)
        for i, strategy in enumerate(("A", "B", "C")):
            wrong = rng.random(300) < 0.1 + 0.2 * i
            result = make_result(n=300).model_copy()
            cell = result.cell.model_copy(update={"strategy": strategy})
            result = with_predictions(result, labels.tolist(), np.where(wrong, 1 - labels, labels).tolist())
            results.append(result.model_copy(update={"cell": cell}))
        found = all_pairs(samples(results))
        assert list(zip(found["a"], found["b"], strict=True)) == [("A", "B"), ("A", "C"), ("B", "C")]
        assert (found["difference"] < 0).all()
        assert found["p_holm"].tolist() == pytest.approx(holm(found["p"].tolist()))
        assert (found["p_holm"] >= found["p"]).all()

    def test_without_a_common_seed_there_is_none(self) -> None:
        results = [make_result(strategy="LayerRandom"), make_result(strategy="LayerMagWeight", seed=1)]
        assert all_pairs(samples(results)).empty


def sample(task: str, means: dict[str, float]) -> Sample:
    losses = {name: {0: np.array([mean])} for name, mean in means.items()}
    return Sample(task, TASKS[task].metric, "keep-0.1", 0.1, losses, 1.0, {})


def test_each_metric_has_a_best_strategy_of_its_own() -> None:
    """Always the majority is right more often, 70 of 100; the other one, right 50 + 18 times, has the MCC."""
    labels, results = [1.0] * 70 + [0.0] * 30, []
    answers = {
        "LayerMagWeight": [1.0] * 100,
        "LayerMagGrad": [1.0] * 50 + [0.0] * 20 + [0.0] * 18 + [1.0] * 12,
    }
    for strategy, predictions in answers.items():
        for seed in range(3):
            result = make_result("cola", strategy, seed=seed)
            results.append(with_predictions(result, labels, predictions))
    frame = pd.DataFrame([result.row() for result in results])
    found = samples_by_metric(results)
    text = markdown(found, all_pairs(found), Header.of(frame, by_compression=False))
    by_accuracy, by_mcc = (part.split("\n## ")[0] for part in text.split("\n## CoLA")[1:])
    assert "| LayerMagWeight | **70.0** " in by_accuracy
    assert "| LayerMagGrad   | -2.0 " in by_accuracy
    assert by_mcc.startswith(" by Matthews correlation\n")
    mcc = (50 * 18 - 12 * 20) / math.sqrt(62 * 70 * 30 * 38)
    assert f"| LayerMagGrad   | **{mcc:.3f}** " in by_mcc
    assert f"| LayerMagWeight | -{mcc:.3f} " in by_mcc
    ranks = text.split("\n## Ranks")[1]
    assert "mean over 1 block " in ranks
    assert "| LayerMagWeight | 1.00 " in ranks


class TestRanks:
    def test_by_hand_with_a_tie(self) -> None:
        found = mean_ranks(
            [sample("sst2", {"A": 0.1, "B": 0.2, "C": 0.3}), sample("stsb", {"A": 0.5, "B": 0.1, "C": 0.5})]
        )
        expected = pd.DataFrame({"strategy": ["B", "A", "C"], "mean_rank": [1.5, 1.75, 2.75]})
        pd.testing.assert_frame_equal(found[["strategy", "mean_rank"]], expected)
        assert found["blocks"].tolist() == [2, 2, 2]
        assert (found["low"] <= found["mean_rank"]).all()
        assert (found["high"] >= found["mean_rank"]).all()
        assert found.loc[0, ["low", "high"]].tolist() == [1, 2]

    def test_only_strategies_that_every_block_has(self) -> None:
        found = mean_ranks([sample("sst2", {"A": 0.1, "B": 0.2}), sample("stsb", {"A": 0.5})])
        assert found["strategy"].tolist() == ["A"]

    def test_a_block_without_a_common_seed_has_no_ranks(self) -> None:
        apart = sample("stsb", {"A": 0.5, "B": 0.1})
        apart.losses["B"] = {1: apart.losses["B"][0]}
        found = mean_ranks([sample("sst2", {"A": 0.1, "B": 0.2}), apart])
        assert found["strategy"].tolist() == ["A", "B"]
        assert found["blocks"].tolist() == [1, 1]
        assert mean_ranks([apart]).empty

    def test_nothing_in_common(self) -> None:
        assert mean_ranks([]).empty
        assert len(mean_ranks([sample("sst2", {"A": 0.1}), sample("stsb", {"B": 0.5})])) == 1

    def test_a_block_of_few_strategies_takes_no_ranks_from_the_others(self) -> None:
        whole = [sample(task, {"A": 0.1, "B": 0.2, "C": 0.3}) for task in ("sst2", "stsb")]
        found = mean_ranks([*whole, sample("cola", {"A": 0.1})])
        assert found["strategy"].tolist() == ["A", "B", "C"]
        assert found["blocks"].tolist() == [2, 2, 2]

    def test_what_has_no_ranks_is_named(self) -> None:
        results = [
            make_result(task, strategy)
            for task, strategies in (("sst2", "MagWeight MagGrad Random"), ("cola", "MagWeight"))
            for strategy in (f"Layer{name}" for name in strategies.split())
        ]
        frame = pd.DataFrame([result.row() for result in results])
        found = samples(results)
        text = markdown(found, all_pairs(found), Header.of(frame, by_compression=False))
        assert "Without ranks, as results are missing: CoLA at 14.7 %.\n" in text
