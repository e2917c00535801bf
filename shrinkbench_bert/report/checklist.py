"""Twelve points that make results on pruning comparable, each with the function that looks for it.

The points are those of Blalock, Gonzalez Ortiz, Frankle and Guttag, 'What is the State of Neural Network
Pruning?', MLSys 2020, arXiv:2003.03033. Never imports torch.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from shrinkbench_bert.metrics import METRICS
from shrinkbench_bert.report.figures import figure_name
from shrinkbench_bert.report.folder import Pair
from shrinkbench_bert.report.labels import (
    counted,
    is_percent,
    metric_label,
    model_label,
    number,
    source_label,
)
from shrinkbench_bert.report.style import order
from shrinkbench_bert.store import Evaluation, Result

PAIRS = 3
OPERATING_POINTS = 5
SEEDS = 3
"""Ours: the paper asks for several and gives no number."""
BASELINES = ("LayerRandom", "GlobalRandom", "LayerMagWeight", "GlobalMagWeight")
HEAD_BASELINES = ("HeadRandom", "HeadMagnitude")
"""Of attention heads, for which the grid says whether all are ranked together or layer by layer."""


@dataclass(frozen=True)
class Finding:
    """Whether a point is met, why, and by which files."""

    met: bool
    why: str
    files: list[Path]
    """Results, relative to their folder, or figures: those that meet the point, or that fall short."""
    pair: str = ""
    """The dataset-model pair of which it holds; empty for all of them together."""


Check = Callable[[list[Pair]], list[Finding]]


@dataclass(frozen=True)
class Point:
    """One point of the checklist; met if all that is found of it is."""

    title: str
    place: str
    """Where the paper asks for it; empty where it does not say so in these words."""
    check: Check


def _in_each(check: Callable[[Pair], Finding]) -> Check:
    """Ask the same of every dataset-model pair."""
    return lambda pairs: [replace(check(pair), pair=pair.name) for pair in pairs]


# What was pruned, and on what it was measured


def architecture(pair: Pair) -> Finding:
    """Name the model, how many of its layers are used, and the digest of the checkpoint it starts from."""

    def words(result: Result) -> str:
        layers = result.cell.layers
        model = model_label(result.cell.model, layers) + ("" if layers else " (all layers)")
        digest = _digest(result.fingerprints.model)
        return f"{model}, checkpoint {digest}, {result.size.prunable:,} prunable parameters"

    return _identified(pair, lambda result: result.fingerprints.model, words)


def dataset(pair: Pair) -> Finding:
    """Name the source, and the digest of the examples."""
    return _identified(
        pair,
        lambda result: result.fingerprints.data,
        lambda result: f"{source_label(result.cell.source)}, examples {_digest(result.fingerprints.data)}",
    )


def _digest(sha256: str) -> str:
    return f"sha256 {sha256[:12]}"


def _identified(pair: Pair, digest: Callable[[Result], str], words: Callable[[Result], str]) -> Finding:
    if nameless := pair.files(lambda result: not digest(result)):
        return Finding(False, f"no digest in {counted(len(nameless), 'file')}", nameless)
    # By digest: a hub id and a folder may name the same thing.
    found = {digest(result): words(result) for result in pair.results}
    if len(found) > 1:
        return Finding(False, f"{len(found)} side by side: {'; '.join(found.values())}", pair.odd(digest))
    (why,) = found.values()
    return Finding(True, why, pair.files())


def split(pair: Pair) -> Finding:
    """Name the splits, their sizes and what was left out, and the split that chose the epoch."""
    if wrong := pair.files(lambda result: not _sizes_agree(result)):
        return Finding(False, f"n is not the size of the split in {counted(len(wrong), 'file')}", wrong)
    found = sorted({_splits(result) for result in pair.results})
    if len(found) > 1:
        return Finding(False, f"{len(found)} side by side: {' / '.join(found)}", pair.odd(_splits))
    return Finding(True, found[0], pair.files())


def _splits(result: Result) -> str:
    data, recipe = result.data, result.cell.recipe
    chosen = {
        "holdout": f"epoch chosen{_by(recipe.metric_for_best_model)} on {data.holdout:,} held out of train",
        "validation": f"epoch chosen{_by(recipe.metric_for_best_model)} on validation itself, which flatters",
        "last": "last epoch taken",
    }
    asked = {"eval_examples": recipe.eval_examples, "train_examples": recipe.train_examples}
    subset = [f"{field} = {n}" for field, n in asked.items() if n]
    return "; ".join(
        [
            f"reported: validation, n = {data.validation:,}",
            f"trained on {data.train:,}",
            chosen[result.cell.protocol.selection],
            f"subsets: {', '.join(subset)}" if subset else "no subsets",
        ]
    )


def _by(metric: str | None) -> str:
    return f" by {METRICS[metric].label}" if metric else ""


def _sizes_agree(result: Result) -> bool:
    data = result.data
    reported = {evaluation.n for evaluation in _evaluations(result)}
    chooser = {"holdout": data.holdout, "validation": data.validation, "last": None}
    epochs = [*result.dense_training.epochs, *result.retraining.epochs]
    selected = {epoch.selection.n if epoch.selection else None for epoch in epochs}
    return reported == {data.validation} and selected <= {chooser[result.cell.protocol.selection]}


def _evaluations(result: Result) -> list[Evaluation]:
    return [result.baseline, result.dense, result.before_retraining, result.after_retraining]


def metric(pair: Pair) -> Finding:
    """Name the metrics with their direction; every evaluation has all of them."""
    names = pair.task.metrics
    if wrong := pair.files(lambda result: any(set(e.metrics) != set(names) for e in _evaluations(result))):
        why = f"an evaluation with other metrics than {', '.join(names)} in {counted(len(wrong), 'file')}"
        return Finding(False, why, wrong)
    return Finding(True, "; ".join(map(metric_label, names)), pair.files())


def several_pairs(pairs: list[Pair]) -> list[Finding]:
    """Count datasets with models; a task of one source is a dataset, whatever part of it was used."""
    sources: dict[tuple[str, str], str] = {}
    found: dict[tuple[str, str, str], str] = {}
    for result in (result for pair in pairs for result in pair.results):
        cell, digests = result.cell, result.fingerprints
        # The same examples from the hub and from a folder are one dataset.
        source = source_label(sources.setdefault((cell.task, digests.data), cell.source))
        found[cell.task, source, digests.model] = f"{source} with {model_label(cell.model, cell.layers)}"
    tasks = defaultdict[str, list[str]](list)
    for (task, _, _), words in found.items():
        tasks[words].append(task)
    why = "; ".join(f"{', '.join(own)} of {words}" for words, own in tasks.items())
    files = [path for pair in pairs for path in pair.files()]
    return [Finding(len(found) >= PAIRS, f"{counted(len(found), 'pair')}: {why}", files)]


# What was reported


def compression_and_speedup(pair: Pair) -> Finding:
    """Both, and equal to what the counts of parameters and of multiply-adds give."""
    if wrong := pair.files(lambda result: not _counts_agree(result)):
        why = f"the counts give another compression or speed-up in {counted(len(wrong), 'file')}"
        return Finding(False, why, wrong)
    compressions, speedups = (
        _span([getattr(result.size, name) for result in pair.results], "{:.2f}".format)
        for name in ("compression", "theoretical_speedup")
    )
    why = f"compression of the whole model {compressions}; theoretical speed-up {speedups}"
    return Finding(True, why, pair.files())


def _counts_agree(result: Result) -> bool:
    size = result.size
    left = size.total - size.prunable + size.kept
    return math.isclose(size.compression * left, size.total, rel_tol=1e-6) and math.isclose(
        size.theoretical_speedup * size.multiply_adds_kept, size.multiply_adds, rel_tol=1e-6
    )


def raw_metrics(pair: Pair) -> Finding:
    """The metric itself and not its change, with the unpruned model as the control."""
    name, spans = pair.task.metric, []
    for model, stage in (("unpruned", "dense"), ("pruned and retrained", "after_retraining")):
        values = {one.path: getattr(one.result, stage).metrics.get(name) for one in pair.stored}
        if absent := [path for path, value in values.items() if value is None]:
            return Finding(False, f"no {name} of the {model} model in {counted(len(absent), 'file')}", absent)
        spans.append(f"{model} {_metric_span(name, values.values())}")
    return Finding(True, f"{metric_label(name)}: {', '.join(spans)}", pair.files())


def operating_points(pair: Pair) -> Finding:
    """Enough amounts of every strategy to see a curve; the unpruned model is none of them."""
    amounts = defaultdict[str, set[str]](set)
    for result in pair.results:
        amounts[result.cell.strategy].add(result.cell.amount)
    few = {name for name, own in amounts.items() if len(own) < OPERATING_POINTS}
    shown = few or set(amounts)
    whose = "every strategy" if shown == set(amounts) else ", ".join(order(shown))
    points = _span([len(amounts[name]) for name in shown])
    why = f"amounts: {points} for {whose}" + (f", where {OPERATING_POINTS} are asked for" if few else "")
    return Finding(not few, why, pair.files(lambda result: result.cell.strategy in shown))


def several_seeds(pair: Pair) -> Finding:
    """Enough seeds of every strategy and amount for a mean and a sample standard deviation."""
    name = pair.task.metric
    means: dict[tuple[str, str], list[float]] = {}
    for result in pair.results:
        values = means.setdefault((result.cell.strategy, result.cell.amount), [])
        if (value := result.after_retraining.metrics.get(name)) is not None:
            values.append(value)
    short = {point for point, values in means.items() if len(values) < SEEDS}
    shown = short or set(means)
    deviations = [statistics.stdev(values) for values in means.values() if len(values) > 1]
    n = _span([len(means[point]) for point in shown])
    why = f"n = {n} for {len(shown)} of {len(means)} means (strategy, amount)"
    why += f", where {SEEDS} seeds are asked for" if short else ""
    unit = " (%)" if is_percent(name) else ""
    why += f"; sd of {name}{unit} {_metric_span(name, deviations)}" if deviations else "; no sd"
    files = pair.files(lambda result: (result.cell.strategy, result.cell.amount) in shown)
    return Finding(not short, why, files)


# Against what it was compared, and how fairly


def baselines(pair: Pair) -> Finding:
    """Random and magnitude pruning, of weights each layer-wise and global, wherever another was run."""
    wanted = BASELINES if pair.results[0].cell.heads is None else HEAD_BASELINES
    run = defaultdict[str, set[tuple[str, int]]](set)
    for result in pair.results:
        run[result.cell.strategy].add((result.cell.amount, result.cell.seed))
    asked = set.union(*run.values())
    lacking = {name: len(asked - run[name]) for name in wanted if asked - run[name]}
    gaps = [f"{name} lacks {n} of {len(asked)} cells (amount, seed)" for name, n in lacking.items()]
    why = "; ".join(gaps) or f"{', '.join(wanted)}: each in all {len(asked)} cells (amount, seed)"
    return Finding(not gaps, why, pair.files(lambda result: result.cell.strategy in wanted))


def same_conditions(pair: Pair) -> Finding:
    """One dense model, one order of the data and one budget for all strategies of a seed.

    The order shows in the loss of every epoch of dense training; retraining takes its own from the seed.
    """
    faults, files, compared = [], list[Path](), list[int]()
    for seed, part in pair.by_seed().items():
        strategies = {result.cell.strategy for result in part.results}
        compared.append(len(strategies))
        if len(strategies) == 1:
            faults.append(f"seed {seed}: nothing to compare {strategies.pop()} with")
            files += part.files()
        elif odd := _odd_conditions(part):
            fields = sorted(set().union(*odd.values()))
            faults.append(f"seed {seed}: another {', '.join(fields)} in {counted(len(odd), 'file')}")
            files += odd
    if faults:
        return Finding(False, "; ".join(faults), files)
    why = f"equal for {_span(compared)} strategies in {counted(len(compared), 'seed')}: dense evaluation, "
    why += "dense training (and so the order of its data), data, model, recipe, protocol, epochs"
    return Finding(True, why, pair.files())


def _odd_conditions(part: Pair) -> dict[Path, set[str]]:
    """The fields in which a file is not as most others are, by file."""
    conditions = {one.path: _conditions(one.result) for one in part.stored}
    usual = {
        field: statistics.mode(own[field] for own in conditions.values())
        for field in next(iter(conditions.values()))
    }
    odd = {path: {field for field in own if own[field] != usual[field]} for path, own in conditions.items()}
    return {path: fields for path, fields in odd.items() if fields}


def _conditions(result: Result) -> dict[str, str]:
    """What all strategies must have in common, by the name of its field."""
    cell = result.cell
    return {
        "dense": result.dense.model_dump_json(),
        "dense_training": result.dense_training.model_dump_json(),
        "data": result.data.model_dump_json(),
        "fingerprints.data": result.fingerprints.data,
        "fingerprints.model": result.fingerprints.model,
        "retraining.epochs": str(len(result.retraining.epochs)),
        **{f"recipe.{field}": repr(value) for field, value in cell.recipe},
        **{f"protocol.{field}": repr(value) for field, value in cell.protocol},
    }


def curves(pair: Pair) -> Finding:
    """The figure of the task's metric against the amount, as the report draws it."""
    name = figure_name(pair.task, pair.task.metric)
    drawn = [path for suffix in (".png", ".svg") if (path := pair.figures / f"{name}{suffix}").is_file()]
    if not drawn:
        return Finding(False, f"no {name}.png or {name}.svg in {pair.figures}: draw it with `report`", [])
    if len({result.cell.amount for result in pair.results}) == 1:
        return Finding(False, "a single amount is a point and no curve", drawn)
    return Finding(True, f"{pair.task.metric} after retraining against the amount", drawn)


def _metric_span(name: str, values: Collection[float]) -> str:
    return _span(values, lambda value: number(name, value))


def _span(values: Collection[float], form: Callable[[float], str] = str) -> str:
    low, high = (form(end(values)) for end in (min, max))
    return low if low == high else f"{low} to {high}"


POINTS = (
    Point("architecture identified", "§6", _in_each(architecture)),
    Point("dataset identified", "§6", _in_each(dataset)),
    Point("split identified", "", _in_each(split)),
    Point("metric identified", "§6", _in_each(metric)),
    Point(f"at least {PAIRS} dataset-model pairs", "§6", several_pairs),
    Point("compression and theoretical speed-up", "§6", _in_each(compression_and_speedup)),
    Point("raw metrics with the unpruned control", "§6", _in_each(raw_metrics)),
    Point(f"at least {OPERATING_POINTS} operating points", "§6", _in_each(operating_points)),
    Point("several seeds, mean and deviation", "§6", _in_each(several_seeds)),
    Point("random and magnitude baselines, global and layer-wise", "app. B", _in_each(baselines)),
    Point("same dense model, data order and budget for all", "§6", _in_each(same_conditions)),
    Point("trade-off curves", "§6", _in_each(curves)),
)
