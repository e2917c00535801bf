"""The page of a study, section by section."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tabulate import tabulate

from shrinkbench_bert.analysis.losses import DENSE
from shrinkbench_bert.report import labels
from shrinkbench_bert.report.checklist_table import Checked
from shrinkbench_bert.report.claims.rendering import Decided
from shrinkbench_bert.report.claims.rendering import table as claims_table
from shrinkbench_bert.report.contrasts.contrast import load_contrasts
from shrinkbench_bert.report.contrasts.estimates import Estimate
from shrinkbench_bert.report.contrasts.rendering import caption, how_to_read, sentences, table
from shrinkbench_bert.report.figures import figure_name, metric_name
from shrinkbench_bert.report.layout import tables
from shrinkbench_bert.report.study.grids import StudyGrid
from shrinkbench_bert.report.tables import markdown_table
from shrinkbench_bert.store import Result
from shrinkbench_bert.tasks import TASKS

Estimates = dict[tuple[str, str], list[Estimate]]
"""By task and metric."""


def what_was_run(grids: Sequence[StudyGrid], one_batch: Sequence[Result]) -> Iterator[str]:
    """Name data, recipe, amounts and cost of every task, and what was not run."""
    rows = []
    for grid in grids:
        for task in grid.tasks:
            own = grid.of(task)
            first = own[0]
            recipe, data, points = first.cell.recipe, first.data, grid.points[grid.points["task"] == task]
            rows.append(
                [
                    f"{TASKS[task].title}, `{grid.header.grid}`",
                    f"{data.train:,} / {data.holdout:,} / {data.validation:,}",
                    f"{recipe.epochs_dense} + {recipe.epochs_retrain} epochs, lr {recipe.lr:g}",
                    str(len({r.cell.strategy for r in own})),
                    ", ".join(map(grid.header.amount, grid.header.requested(points))),
                    str(len({r.cell.seed for r in own})),
                    f"{len(own):,}",
                    f"{_hours(own):.1f}",
                    _machines(own),
                ]
            )
    headers = ["task, grid", "train / held out / validation", "recipe", "strategies", "amounts", "seeds"]
    headers += ["results", "process hours", "machine"]
    yield tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)
    yield "\n".join(f"- {' · '.join(grid.header.parts())}".replace("_", r"\_") for grid in grids)
    made = {
        ", ".join(
            [*map(" ".join, r.provenance.versions.items()), f"{r.provenance.device} {r.provenance.dtype}"]
        )
        for grid in grids
        for r in grid.results
    }
    kinds = " or ".join(dict.fromkeys(grid.header.amounts for grid in grids))
    yield f"Made with {'; '.join(sorted(made))}. Amounts: {kinds}."
    if one_batch:
        named = ", ".join(dict.fromkeys(TASKS[r.cell.task].title for r in one_batch))
        yield f"Beside them {labels.counted(len(one_batch), 'result')} of {named}, scored on one batch."


def what_drives_the_gain(grids: Sequence[StudyGrid], estimates: Estimates, page: Path) -> Iterator[str]:
    """Show the contrasts of every task: in sentences, as a figure and as a table."""
    if not any(estimates.values()):
        yield "Nothing can be said: no two strategies here differ in one ingredient."
        return
    yield how_to_read()
    for grid in grids:
        for task, metric in grid.compared:
            if found := estimates.get((task, metric)):
                title = labels.task_title(TASKS[task], metric)
                yield f"### {title}: what each ingredient is worth"
                yield "\n".join(f"- {one}".replace("|", r"\|") for one in sentences(found))
                yield _image(
                    f"Advantages on {title}", grid.plots / f"{contrasts_name(task, metric)}.png", page
                )
                yield caption(found)
                yield table(found)


def contrasts_name(task: str, metric: str) -> str:
    """Name the file of a task's contrasts, without its suffix."""
    return f"contrasts_{metric_name(TASKS[task], metric)}"


def every_strategy(grids: Sequence[StudyGrid], page: Path) -> Iterator[str]:
    """Show every strategy at every amount, by each metric that strategies can be compared by."""
    for grid in grids:
        for name, metric in grid.compared:
            task = TASKS[name]
            yield f"### {labels.task_title(task, metric)}: every strategy"
            yield _image(
                f"{task.title} against amounts", grid.plots / f"{figure_name(task, metric)}.png", page
            )
            points = grid.points[(grid.points["task"] == name) & (grid.points["metric"] == metric)]
            (own,) = [t for t in tables(points, grid.header) if t.stage == "after_retraining"]
            yield own.caption
            yield markdown_table(own)
            names = {
                "all tables": "tables.md",
                "against the best, and ranks": "evidence.md",
                "pairs": "pairs.csv",
            }
            links = [f"[{what}]({_link(grid.plots / file, page)})" for what, file in names.items()]
            yield f"More: {', '.join(links)}."


def claims(decided: Decided) -> Iterator[str]:
    """Show the ledger."""
    yield claims_table(decided)


def checklist(checked: Sequence[Checked]) -> Iterator[str]:
    """Show the twelve points of Blalock et al."""
    rows = [[c.title, "met" if c.met else "**not met**", "; ".join(c.reasons)] for c in checked]
    yield f"{sum(c.met for c in checked)} of {len(checked)} points of Blalock et al. (2020) are met."
    yield tabulate(rows, headers=["point", "", "why"], tablefmt="pipe", disable_numparse=True)


def what_cannot_be_concluded(
    grids: Sequence[StudyGrid],
    estimates: Estimates,
    decided: Decided,
    checked: Sequence[Checked],
    missing: Sequence[Result],
) -> Iterator[str]:
    """List what these results leave open, and why."""
    run = [task for grid in grids for task in grid.tasks]
    untried = [task.title for name, task in TASKS.items() if name not in run]
    models = dict.fromkeys(labels.model_label(g.header.model, g.header.layers) for g in grids)
    points = [
        f"Anything of other models, or of other training examples: all results are of {', '.join(models)}, "
        "on one draw of each task."
    ]
    if untried:
        points.append(f"Anything of {', '.join(untried)}: there are no results.")
    points += [_dense(grid, *of) for grid in grids for of in grid.compared]
    points += [one for grid in grids for task in grid.tasks for one in _batches(grid, task)]
    for (task, metric), found in estimates.items():
        title = labels.task_title(TASKS[task], metric)
        unknown = [e for e in found if e.verdict == "inconclusive"]
        if unknown:
            margin = found[0].margin
            beyond = f" beyond ± {labels.margin(metric, margin)}" if margin else ""
            points.append(
                f"{title}, {len(unknown)} of {len(found)} ingredients: shown is neither a "
                f"difference nor that there is none{beyond}."
            )
        lacking = [c for c in load_contrasts() if c.id not in {e.contrast.id for e in found}]
        if lacking and metric == TASKS[task].metric:
            named = "; ".join(c.gist.split(":")[0] for c in lacking)
            points.append(f"{TASKS[task].title}, ingredients without results: {named}.")
    if missing:
        results = labels.counted(len(missing), "result")
        points.append(
            f"Some comparisons of masks: the files of {results} are not there. What was counted before they "
            "went is shown."
        )
    findings = [finding for _, of_claim in decided for finding in of_claim]
    open_ = sum(finding.verdict == "not decidable" for finding in findings)
    if open_:
        points.append(f"{open_} of the {len(findings)} findings on the papers' claims: their table says why.")
    if unmet := sum(not one.met for one in checked):
        points.append(f"{unmet} of the {len(checked)} points of the checklist: its table says why.")
    yield "\n".join(f"- {point}".replace("|", r"\|") for point in points)


def _dense(grid: StudyGrid, task: str, metric: str) -> str:
    """Say what the dense model has to lose."""
    own = grid.points[(grid.points["task"] == task) & (grid.points["metric"] == metric)]
    dense, baseline = (own[own["stage"] == stage].iloc[0] for stage in (DENSE, "baseline"))
    spread = f" ± {labels.number(metric, dense['sd'])}" if dense["n_seeds"] > 1 else ""
    return (
        f"What a better {TASKS[task].title} model would lose. {labels.metric_label(metric).capitalize()}: "
        f"dense {labels.number(metric, dense['mean'])}{spread} "
        f"({labels.counted(int(dense['n_seeds']), 'seed')}), {labels.baseline_label(TASKS[task])} "
        f"{labels.number(metric, baseline['mean'])}."
    )


def _batches(grid: StudyGrid, task: str) -> Iterator[str]:
    """Say where smoothed scores saw fewer batches than the others."""
    first = grid.of(task)[0]
    there = math.ceil(first.data.train / first.cell.recipe.batch_size)
    protocol = first.cell.protocol
    clean, smoothed = (min(there, most) for most in (protocol.clean_batches, protocol.smooth_batches))
    if clean != smoothed:
        yield (
            f"{TASKS[task].title}, noisy passes and passes along the path on equal data: such scores see "
            f"{smoothed} batches, the others {clean}."
        )


def join(blocks: Iterable[str]) -> str:
    """Put paragraphs together."""
    return "\n\n".join(blocks) + "\n"


def _hours(results: Sequence[Result]) -> float:
    return sum(sum(r.provenance.seconds.values()) for r in results) / 3600


def _machines(results: Sequence[Result]) -> str:
    made = {labels.machine_label(r.provenance.device, r.provenance.processor) for r in results}
    return ", ".join(sorted(made))


def _image(text: str, path: Path, page: Path) -> str:
    return f"![{text}]({_link(path, page)})"


def _link(path: Path, page: Path) -> str:
    return Path(os.path.relpath(path, page.parent)).as_posix()
