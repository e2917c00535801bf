"""Many cells at once, on Dask workers: local processes, or a cluster that somebody started.

The results folder is shared by all machines: workers read the shared weights and masks from it and store
their results in it, so that a finished cell outlives its worker, the scheduler and the run itself.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from uuid import uuid4

from shrinkbench_bert.errors import UserError
from shrinkbench_bert.failures import FailedCell, record_failure
from shrinkbench_bert.fingerprints import fingerprints
from shrinkbench_bert.grid import Cell
from shrinkbench_bert.locks import hold
from shrinkbench_bert.store import Fingerprints, ResultStore, write_atomically
from shrinkbench_bert.work import Outcome, Progress, Site, Workbench

try:
    import dask.config
    from distributed import Client, Future, KilledWorker, LocalCluster, as_completed
except ImportError as error:
    raise UserError("--workers and --scheduler need Dask: pip install 'shrinkbench-bert[cluster]'") from error

_log = logging.getLogger(__name__)
_LOGGER = "shrinkbench_bert"


class ClusterLost(ConnectionError):
    """The scheduler is gone, and with it what was running; what is stored is stored."""


@dataclass(frozen=True)
class LocalWorkers:
    """Runs cells in `workers` processes on this machine; with several GPUs, each process takes one.

    Each gets `threads` threads of torch; an equal share of the cores that this process may use if left out.
    """

    workers: int
    threads: int | None = None
    elsewhere: bool = False

    def cluster(self) -> LocalCluster:
        """Start the processes; one that dies is started again."""
        with _freed_memory_kept():
            return LocalCluster(
                n_workers=self.workers,
                threads_per_worker=1,
                memory_limit=None,
                dashboard_address="127.0.0.1:0",  # not 8787, which another run may have
                preload=["shrinkbench_bert.executors.local_worker"],
                silence_logs=logging.ERROR,
            )

    def run(
        self, groups: Iterable[list[Cell]], site: Site, progress: Progress
    ) -> Generator[tuple[Cell, Outcome]]:
        """As `Executor.run`."""
        groups = list(groups)
        if not groups:
            return  # processes take seconds to start
        site = replace(site, threads=self.threads or max(1, _cores() // self.workers))
        with (
            self.cluster() as cluster,
            Client(cluster) as client,
        ):
            yield from drive(client, groups, site)


def _cores() -> int:
    """How many cores this process may use: a job of a cluster has some of its machine's."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on a Mac
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _freed_memory_kept() -> AbstractContextManager[object]:
    """Leave the C library's allocator as it is in workers that are started.

    Dask has them give freed memory back at once, and torch asks for it again in every step of a training:
    a quarter of its time.
    """
    environment = dask.config.get("distributed.nanny.pre-spawn-environ")
    kept = {name: value for name, value in environment.items() if name != "MALLOC_TRIM_THRESHOLD_"}
    return dask.config.set({"distributed.nanny.pre-spawn-environ": kept})


@dataclass(frozen=True)
class Cluster:
    """Runs cells on the workers of the Dask scheduler at `address`, e.g. `tcp://10.0.0.1:8786`.

    A grid with `device = "cuda"` runs on workers that offer the resource `GPU`, one cell on each.
    """

    address: str
    threads: int | None = None
    elsewhere: bool = True

    def run(
        self, groups: Iterable[list[Cell]], site: Site, progress: Progress
    ) -> Generator[tuple[Cell, Outcome]]:
        """As `Executor.run`. Raises UserError if there is no such scheduler, or no fitting worker."""
        try:
            client = Client(self.address, timeout=10)
        except (OSError, ValueError) as error:
            raise UserError(
                f"scheduler {self.address!r} cannot be reached: {error} (start one with `dask scheduler` "
                "and give the address that it prints, as tcp://HOST:PORT)"
            ) from error
        with client:
            resources = {"GPU": 1.0} if site.device == "cuda" else {}
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
            if resources and workers and not any("GPU" in worker["resources"] for worker in workers):
                raise UserError(
                    f"scheduler {self.address!r}: none of its {len(workers)} workers offers a GPU: "
                    'start them with --resources "GPU=1"'
                )
            yield from drive(client, groups, site, resources)


class Piece(Enum):
    """What there is to do for cells that share a dense model, in this order."""

    DENSE = "dense weights"
    """On their own only where the scoring pass has parts."""
    PART = "part of the scores"
    SHARED = "shared stages"
    """All that the cells share and that is not there yet."""
    CELL = "cell"


@dataclass(frozen=True)
class Job:
    """One piece of work, for `cells`; CELL has but one."""

    piece: Piece
    cells: tuple[Cell, ...]
    fingerprints: tuple[Fingerprints, ...]
    """Of the cells, where the run was started."""
    folder_id: str
    part: int = 0
    wait: bool = False


def do(site: Site, job: Job) -> Outcome:
    """Do one piece of work in a worker."""
    with _ONE_AT_A_TIME:
        _check_worker(site, job)
        bench = _workbench(site)
        match job.piece:
            case Piece.DENSE:
                return bench.dense(job.cells, wait=job.wait)
            case Piece.PART:
                return bench.score_part(job.cells, job.part, wait=job.wait)
            case Piece.SHARED:
                return bench.share(job.cells, wait=job.wait)
            case Piece.CELL:
                return bench.run(job.cells[0], job.cells, wait=job.wait)


# Torch's random generators are the process's: a worker with several threads still does one thing at a time.
_ONE_AT_A_TIME = threading.Lock()


@lru_cache(maxsize=1)
def _workbench(site: Site) -> Workbench:
    logging.getLogger(_LOGGER).setLevel(logging.INFO)
    return Workbench(site)


def _check_worker(site: Site, job: Job) -> None:
    """Refuse to work on another folder, or with other data, weights or formulas, than was asked for."""
    where = f"worker on {socket.gethostname()}"
    path = site.folder / ".cache" / "folder-id"
    if not path.is_file() or path.read_text() != job.folder_id:
        raise UserError(f"{where}: {str(site.folder)!r} is not the results folder there; it must be shared")
    _workbench(site)  # loads the plugins
    for cell, expected in zip(job.cells, job.fingerprints, strict=True):
        found = fingerprints(cell)
        differing = [name for name, value in expected if getattr(found, name) != value]
        if differing:
            raise UserError(
                f"{where}: {cell}: its {' and '.join(differing)} differ from where the run was started; "
                "give the workers the same data, checkpoint and code"
            )


def drive(
    client: Client,
    groups: Iterable[list[Cell]],
    site: Site,
    resources: dict[str, float] | None = None,
) -> Generator[tuple[Cell, Outcome]]:
    """Hand out work to a client's workers: shared stages first, then the cells that need them.

    A few pieces more than there are workers are out at any time: the scheduler never holds a whole grid,
    and what dies with a worker is little.

    Raises:
        UserError: bad input that only the work itself can find.
        ClusterLost: the scheduler is gone.
    """
    folder_id = _folder_id(ResultStore(site.folder))
    ready = deque(_first_job(cells, folder_id) for cells in groups)
    out: dict[Future[Outcome], Job] = {}
    parts_left: Counter[Cell] = Counter()
    failed: set[Cell] = set()
    room = _Room(client)
    completed = as_completed()
    try:
        with _forwarded_log(client):
            while ready or out:
                while ready and len(out) < room.pieces():
                    job = ready.popleft()
                    if job.piece is Piece.PART and not failed.isdisjoint(job.cells):
                        continue  # another part has failed, and with it all of them
                    future = client.submit(do, site, job, pure=False, resources=resources or None)
                    out[future] = job
                    completed.add(future)
                if not out:
                    continue
                future = next(completed)
                job = out.pop(future)
                outcome = _outcome(future, job, site)
                if outcome is Outcome.BUSY:
                    ready.append(replace(job, wait=True))
                elif job.piece is not Piece.CELL and outcome is Outcome.STORED:
                    ready.extendleft(reversed(_next_jobs(job, parts_left)))
                elif failed.isdisjoint(job.cells):  # two parts of a scoring pass can fail
                    failed.update(job.cells if outcome is Outcome.FAILED else ())
                    yield from ((cell, outcome) for cell in job.cells)
    except OSError as error:
        if client.status == "running":
            raise  # a worker's: its disk is full, say
        raise ClusterLost(f"the scheduler is lost: {error}") from error
    finally:
        if client.status == "running":
            client.cancel(list(out))


class _Room:
    """How many pieces may be out: a few more than there are workers, who come and go."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._asked, self._workers = -math.inf, 0

    def pieces(self) -> int:
        """Ask the scheduler, which takes as long as a small piece of work, once a second at most."""
        if time.monotonic() - self._asked > 1:
            self._asked, self._workers = time.monotonic(), len(self._client.nthreads())
        return 2 * max(1, self._workers) + 2


def _first_job(cells: list[Cell], folder_id: str) -> Job:
    piece = Piece.DENSE if cells[0].score_parts else Piece.SHARED
    return Job(piece, tuple(cells), tuple(map(fingerprints, cells)), folder_id)


def _next_jobs(job: Job, parts_left: Counter[Cell]) -> list[Job]:
    """What can be done now that a job is; `parts_left` counts the parts, by the first cell of a group."""
    job, first = replace(job, wait=False), job.cells[0]
    match job.piece:
        case Piece.DENSE:
            parts = range(first.score_parts or 0)
            parts_left[first] = len(parts)
            return [replace(job, piece=Piece.PART, part=part) for part in parts]
        case Piece.PART:
            parts_left[first] -= 1
            return [] if parts_left[first] else [replace(job, piece=Piece.SHARED)]
        case _:
            each = zip(job.cells, job.fingerprints, strict=True)
            return [replace(job, piece=Piece.CELL, cells=(c,), fingerprints=(taken,)) for c, taken in each]


def _outcome(future: Future[Outcome], job: Job, site: Site) -> Outcome:
    """What came of a job; a job that took several workers down with it has failed."""
    if future.status in ("cancelled", "lost"):
        raise ClusterLost("the scheduler is lost")
    try:
        return future.result()
    except KilledWorker as error:
        for cell in job.cells:
            failure = FailedCell(
                cell=cell,
                stage=job.piece.value,
                cause=f"its worker died, {error.allowed_failures + 1} times: out of memory?",
                provenance=None,
            )
            record_failure(ResultStore(site.folder), failure)
            _log.warning("failed: %s", failure)
        return Outcome.FAILED


def _folder_id(store: ResultStore) -> str:
    """What tells the results folder from another one at the same path of another machine."""
    path = store.folder / ".cache" / "folder-id"
    with hold(path.with_suffix(".lock"), wait=True):
        if not path.exists():
            write_atomically(path, uuid4().hex.encode())
        return path.read_text()


@contextmanager
def _forwarded_log(client: Client) -> Generator[None]:
    """Let the workers' log lines come out of this process's loggers."""
    client.forward_logging(_LOGGER, level=logging.INFO)
    try:
        yield
    finally:
        client.unforward_logging(_LOGGER)
