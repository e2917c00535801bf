"""The command line: run, status, plan, report, ablate, claims, checklist, compare, latency, strategies."""

from __future__ import annotations

import inspect
import re
import sys
import tomllib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tabulate import tabulate

from shrinkbench_bert.errors import UserError, unknown
from shrinkbench_bert.grid import GRID_NAME, Grid
from shrinkbench_bert.logs import logging_to
from shrinkbench_bert.outputs import check_file, check_folder
from shrinkbench_bert.store import LATENCY_FOLDER, ResultStore
from shrinkbench_bert.tasks import TASKS

if TYPE_CHECKING:
    from shrinkbench_bert.executors.base import Executor
    from shrinkbench_bert.failures import FailedCell

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # joins the lines of a paragraph
    help="Prune BERT-like encoders with many strategies, and compare what is left of their accuracy."
    "\n\nStart with: shrinkbench-bert run quick, then: shrinkbench-bert report quick. Bad input exits "
    "with 2, and one line says what is accepted.",
)


def _experiments() -> Path:
    return Path(str(resources.files("shrinkbench_bert.experiments")))


def _ablations() -> Path:
    return _experiments() / "ablations"


def _names(folder: Path) -> list[str]:
    """The grids, or the ablations, that come along."""
    return sorted(path.stem for path in folder.glob("*.toml"))


GridArgument = Annotated[
    str,
    typer.Argument(
        metavar="GRID",
        help=f"A TOML file, or the name of a grid that comes along: {', '.join(_names(_experiments()))}.",
    ),
]
ResultsOption = Annotated[
    Path,
    typer.Option(
        "--results", metavar="DIR", help="Where results are stored; each grid has a folder of its name in it."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a value of the grid, e.g. --set 'seeds=[0,1,2]' --set recipe.lr=3e-5 "
        "--set source=path/to/glue --set protocol=paper. May be given several times.",
    ),
]


@app.command()
def run(
    grid: GridArgument,
    results: ResultsOption = Path("results"),
    set_: SetOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Run cells in N processes on this machine.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run cells on a Dask cluster that is there: tcp://HOST:PORT."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Threads of torch in each process; another number can move the last digits of results.",
        ),
    ] = None,
    log_file: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Append one line per stage, with its seconds, to this file."),
    ] = None,
) -> None:
    """Run the cells of a grid that are not stored yet.

    Every cell is stored as soon as it is done: stop at any time, and the same command carries on.
    Bad input is found before any training starts, and exits with 2. A cell whose loss diverges is
    recorded as failed, the others go on, and the exit code is 1; the next run tries it again.
    """
    from shrinkbench_bert.runner import run_grid

    loaded = _load(grid, set_ or [])
    store = ResultStore(results).grid(loaded.name)
    executor = _executor(workers, scheduler, threads)
    try:
        with logging_to(log_file):
            plan = run_grid(loaded, store, executor)
    except KeyboardInterrupt:
        cells = list(loaded.cells())
        done = sum(store.path(cell).exists() for cell in cells)
        typer.echo(
            "stopped; every finished cell is stored, and the same command carries on: "
            f"{done} of {len(cells)} cells are in {store.folder}",
            err=True,
        )
        raise typer.Exit(130) from None
    ran = len(plan.missing) - len(plan.failed)
    typer.echo(f"{ran} cells run, {len(plan.done)} were there; results in {store.folder}")
    _stop_for(plan.failed)


@app.command()
def status(grid: GridArgument, results: ResultsOption = Path("results"), set_: SetOption = None) -> None:
    """Show how far a grid is, running or stopped: done, running where, failed, left, time left."""
    from shrinkbench_bert.status import describe_status, grid_status

    loaded = _load(grid, set_ or [])
    typer.echo(describe_status(grid_status(loaded, ResultStore(results).grid(loaded.name))))


@app.command()
def plan(grid: GridArgument, results: ResultsOption = Path("results"), set_: SetOption = None) -> None:
    """Show what a grid would do: cells, how many are done, parameters, amounts, estimated time."""
    from shrinkbench_bert.planning import describe_plan
    from shrinkbench_bert.runner import make_plan

    loaded = _load(grid, set_ or [])
    typer.echo(describe_plan(make_plan(loaded, ResultStore(results).grid(loaded.name), elsewhere=True)))


@app.command()
def report(
    grid: Annotated[
        str,
        typer.Argument(
            metavar="GRID",
            help="A TOML file, or the name of a grid that comes along, such as: quick; with --html also a "
            "folder of results, or one with several grids below it.",
        ),
    ],
    results: ResultsOption = Path("results"),
    plots: Annotated[
        Path, typer.Option("--plots", metavar="DIR", help="Where figures and tables go.")
    ] = Path("plots"),
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Write one interactive page here, and no figures and tables. It opens from disk.",
        ),
    ] = None,
) -> None:
    """Draw a grid's figures and tables from its stored results alone, or with --html one page of them."""
    if html is not None:
        _write_page(grid, results, plots, html)
        return
    from shrinkbench_bert.report import write_report

    name = _name(grid, results)
    check_folder("--plots", plots / name)
    written = write_report(ResultStore(results).grid(name), plots / name)
    figures = [path for path in written.paths if path.suffix == ".png"]
    tables = [path for path in written.paths if path.suffix not in (".png", ".svg")]
    typer.echo(f"{len(figures)} figures (PNG and SVG) and {len(tables)} tables in {plots / name}:")
    for path in [*figures, *tables]:
        typer.echo(f"  {path}")
    if written.left_out:
        typer.echo(f"left out: {written.left_out}", err=True)


def _write_page(grid: str, results: Path, plots: Path, path: Path) -> None:
    from shrinkbench_bert.report.page import write_page

    check_file("--html", path)
    folder = _results_folder(grid, results)
    cells = write_page(folder, plots, path)
    typer.echo(f"page of {cells} cells of {folder}: {path}")


@app.command()
def ablate(
    ablation: Annotated[
        str,
        typer.Argument(
            metavar="ABLATION",
            help="A TOML file, a grid with a knob, or the name of an ablation that comes along: "
            f"{', '.join(_names(_ablations()))}.",
        ),
    ],
    results: ResultsOption = Path("results"),
    plots: Annotated[
        Path, typer.Option("--plots", metavar="DIR", help="Where figures and tables go.")
    ] = Path("plots"),
    set_: SetOption = None,
    masks_only: Annotated[
        bool,
        typer.Option("--masks-only", help="Compare masks alone and retrain nothing, which is far quicker."),
    ] = False,
) -> None:
    """Turn one knob of a grid: run it at every value, and draw the metric and the masks against it.

    Every value is a grid of its own, NAME-VALUE in the results folder; the same command carries on where
    it was stopped, and draws anew what is there.
    """
    from shrinkbench_bert.ablation import Ablation
    from shrinkbench_bert.ablation_run import run_ablation
    from shrinkbench_bert.analysis.knob import Varied
    from shrinkbench_bert.report.knob import write_ablation
    from shrinkbench_bert.report.labels import Header

    path = _find(ablation, "ablation", _ablations())
    loaded = Ablation.from_toml(path, dict(_parse(setting) for setting in set_ or []))
    base, knob = loaded.base, loaded.knob
    check_folder("--plots", plots / base.name)
    found = run_ablation(loaded, ResultStore(results), masks_only=masks_only)
    varied = Varied(knob.field, list(loaded.grids), knob.reference_label, knob.is_number)
    protocol = base.protocol.label + (" but for what a value names" if knob.field == "protocol" else "")
    header = Header(base.name, base.model, base.layers, base.source, protocol, bool(base.compression))
    written = write_ablation(found.points, found.differences, varied, header, plots / base.name)
    typer.echo(f"figures and tables in {plots / base.name}:")
    for file in written:
        typer.echo(f"  {file}")
    _stop_for(found.failed)


@app.command()
def claims(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS...",
            help="A grid's folder of results, such as results/quick; further ones only serve the claim that "
            "compares it with the same strategies scored on one batch.",
        ),
    ],
) -> None:
    """Hold the papers' claims against results: the statistic, its interval, and a verdict for each."""
    from shrinkbench_bert.analysis.overlaps import overlaps
    from shrinkbench_bert.report import read_grid
    from shrinkbench_bert.report.claims import decide_claims
    from shrinkbench_bert.report.claims.rendering import plain
    from shrinkbench_bert.timings import load_latencies

    stores = [ResultStore(folder) for folder in results]
    of_grid, *others = [read_grid(store)[0] for store in stores]
    found = overlaps(stores[0], of_grid)
    one_batch = [result for other in others for result in other]
    typer.echo(plain(decide_claims(of_grid, found, one_batch, load_latencies(stores[0]))))


@app.command()
def checklist(
    results: Annotated[
        Path,
        typer.Argument(metavar="RESULTS", help="A grid's results, or a folder with several grids below it."),
    ],
    plots: Annotated[
        Path, typer.Option("--plots", metavar="DIR", help="Where the grids' figures are, as `report` has it.")
    ] = Path("plots"),
) -> None:
    """Hold results against twelve points that make pruning results comparable.

    Says of each point whether it is met, why, and by which files; exits with 0 either way.
    The points are those of 'What is the State of Neural Network Pruning?', Blalock et al. 2020.
    """
    from shrinkbench_bert.report.checklist_table import describe_checklist

    typer.echo(describe_checklist(results, plots))


@app.command()
def study(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS...",
            help="Grids' folders of results, each with tasks that the others do not have.",
        ),
    ],
    page: Annotated[Path, typer.Option(metavar="FILE", help="The Markdown file that is written.")],
    one_batch: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RESULTS",
            help="A folder of the same strategies run with protocol.clean_batches=1 and "
            "protocol.smooth_batches=1. May be given several times.",
        ),
    ] = None,
    plots: Annotated[
        Path, typer.Option("--plots", metavar="DIR", help="Where the grids' figures are, as `report` has it.")
    ] = Path("plots"),
) -> None:
    """Write one page over several grids: what drives the gain, the papers' claims, what is left open.

    Draws the figures of what each ingredient of a score is worth; those of each grid are `report`'s.
    """
    from shrinkbench_bert.report.study import write_study

    check_file("--page", page)
    for folder in results:
        check_folder("--plots", plots / folder.resolve().name)
    for path in write_study(results, one_batch or [], plots, page):
        typer.echo(f"  {path}")


@app.command()
def compare(
    baseline: Annotated[
        Path,
        typer.Argument(
            metavar="BASELINE",
            help="What is held to be right: a grid's folder of results, such as results/reference/check, a "
            "folder with several grids below it, or a long.csv that `report` wrote.",
        ),
    ],
    candidate: Annotated[
        Path,
        typer.Argument(
            metavar="CANDIDATE", help="What is compared with it: likewise a folder or a long.csv."
        ),
    ],
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=VALUE",
            help="Accept an absolute move, e.g. --tolerance accuracy=0.02, whatever the grid says. May be "
            "given several times.",
        ),
    ] = None,
    fail_on_improvement: Annotated[
        bool,
        typer.Option(
            "--fail-on-improvement",
            help="Exit with 1 for a better number too: from unchanged code it is a fault, such as a mask "
            "that leaks.",
        ),
    ] = False,
) -> None:
    """Compare results with a baseline: show what moved beyond its tolerance, worst first.

    A metric's tolerance is the baseline grid's; without one, two standard deviations over the baseline's
    seeds; with one seed, 0. Exits with 0 if nothing is worse, 1 if something is or a cell is missing, and
    2 if the two are not comparable: other data, weights, layers, protocol or recipe.
    """
    from shrinkbench_bert.report.comparison import compare as compare_results
    from shrinkbench_bert.report.comparison_table import describe_comparison

    accepted = dict(_parse(setting, "--tolerance") for setting in tolerance or [])
    comparison = compare_results(baseline, candidate, accepted)
    typer.echo(describe_comparison(comparison))
    if comparison.has("missing", "worse") or (fail_on_improvement and comparison.has("better")):
        raise typer.Exit(1)


@app.command()
def latency(
    grid: GridArgument,
    results: ResultsOption = Path("results"),
    set_: SetOption = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Threads of torch; its own choice if left out.")
    ] = None,
) -> None:
    """Measure what a grid's pruning saves in time: removed heads, or weights kept in sparse rows.

    For every amount that has not been measured yet; about half a minute each. Nothing else should run on
    the machine meanwhile.
    """
    from shrinkbench_bert.latency import measure_grid

    loaded = _load(grid, set_ or [])
    store = ResultStore(results).grid(loaded.name)
    measured, there = measure_grid(
        loaded, store, threads=threads, progress=lambda what: typer.echo(what, err=True)
    )
    typer.echo(f"{measured} amounts measured, {there} were there; in {store.folder / LATENCY_FOLDER}")


@app.command()
def strategies(
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLUGIN",
            help="A file, such as my_strategy.py, or a package that registers more of them. May be given "
            "several times.",
        ),
    ] = None,
) -> None:
    """List the registered strategies: name, scope, what they need, and their equation."""
    from shrinkbench_bert.plugins import load_plugin
    from shrinkbench_bert.strategy import Need, get_strategy, strategy_names

    for name in plugin or []:
        load_plugin(name, Path())
    rows = []
    for name in strategy_names():
        cls = get_strategy(name)
        needs = [need.name.lower() for need in Need if need in cls.needs and need.name]
        rows.append(
            {
                "name": name,
                "scope": cls.scope,
                "needs": ", ".join(needs) or "weights only",
                "smoothed": "yes" if cls.smooth else "",
                "equation": inspect.getdoc(cls),
            }
        )
    typer.echo(tabulate(rows, headers="keys", tablefmt="simple"))


def _stop_for(failed: list[FailedCell]) -> None:
    """Exit with 1 if there is a failed cell."""
    if failed:
        typer.echo(f"{len(failed)} cells failed; the same command tries them again:", err=True)
        for failure in failed:
            typer.echo(f"  {failure}", err=True)
        raise typer.Exit(1)


def _executor(workers: int | None, scheduler: str | None, threads: int | None) -> Executor:
    if workers is None and scheduler is None:
        from shrinkbench_bert.executors.in_process import InProcess

        return InProcess(threads)
    if workers is not None and scheduler is not None:
        raise UserError(f"--workers {workers} --scheduler {scheduler}: give one of them")
    from shrinkbench_bert.executors.cluster import Cluster, LocalWorkers

    return LocalWorkers(workers, threads) if workers is not None else Cluster(str(scheduler), threads)


def _load(grid: str, settings: list[str]) -> Grid:
    return Grid.from_toml(_find(grid), dict(_parse(setting) for setting in settings))


def _find(name: str, kind: str = "grid", folder: Path | None = None) -> Path:
    """Find a grid file, or one that comes along, in `folder`, by its name."""
    path = Path(name)
    if path.is_file() or path.suffix == ".toml":
        return path
    folder = folder or _experiments()
    packaged = folder / f"{name}.toml"
    if not packaged.is_file():
        raise UserError(f"no {kind} {name!r}: give a .toml file, or one of {', '.join(_names(folder))}")
    return packaged


def _name(grid: str, results: Path) -> str:
    """The name under which a grid's results are stored, or would be if it were run."""
    path = Path(grid)
    if path.suffix == ".toml":
        try:
            grid = str(tomllib.loads(path.read_text(encoding="utf-8")).get("name", path.stem))
        except (OSError, ValueError) as error:
            raise UserError(f"grid {str(path)!r}: {error}; give a .toml file, or a grid's name") from error
    if not re.fullmatch(GRID_NAME, grid):
        raise UserError(f"no grid {grid!r}: give a .toml file, or a name of letters, digits, '.', '_', '-'")
    if path.suffix != ".toml" and not (results / grid).is_dir() and grid not in _names(_experiments()):
        raise UserError(f"no folder {str(results / grid)!r}: {unknown('grid', grid, _known(results))}")
    return grid


def _known(results: Path) -> set[str]:
    """The grids that come along, and those that have a folder of results."""
    with_results = (path.parent.name for path in results.glob("*/*") if path.name in TASKS)
    return {*_names(_experiments()), *with_results}


def _results_folder(grid: str, results: Path) -> Path:
    """The folder of a grid's results by its name, or else the folder that is given instead of a name."""
    is_stored = re.fullmatch(GRID_NAME, grid) and (results / grid).is_dir()
    return Path(grid) if Path(grid).is_dir() and not is_stored else results / _name(grid, results)


_EXAMPLES = {"--set": "recipe.lr=3e-5", "--tolerance": "accuracy=0.02"}


def _parse(setting: str, option: str = "--set") -> tuple[str, Any]:
    """Read `key=value`; the value is TOML where it can be, and a string otherwise."""
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise UserError(f"{option} {setting!r}: KEY=VALUE is expected, as in {option} {_EXAMPLES[option]}")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def main() -> None:
    """Run the command line; a user's error becomes one line and exit code 2, a full disk or the like 1."""
    try:
        app()
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        typer.echo(f"error: {error}; finished cells are stored, and the same command carries on", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
