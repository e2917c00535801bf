"""Processes killed, disks full, two runs at once: what is stored stays, and the same command carries on."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tiny_grid import CELLS, Contents, contents, forked, litter, logged, printed, running, write_grid

from shrinkbench_bert import UserError
from shrinkbench_bert.locks import hold
from shrinkbench_bert.tensor_file import TensorFile, read_tensors, write_tensors


@pytest.fixture(scope="module")
def grid(tiny_checkpoint: Path, tiny_glue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_grid(tmp_path_factory.mktemp("grid"), tiny_checkpoint, tiny_glue)


@pytest.fixture(scope="module")
def undisturbed(grid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    loaded = forked(print)  # what each process starts with
    loaded.join()
    results = tmp_path_factory.mktemp("undisturbed") / "results"
    (results.parent / "started").touch()
    assert len(finish(grid, results)) == CELLS
    return results / "tiny"


@pytest.fixture(scope="module")
def whole(undisturbed: Path) -> float:
    """Seconds that the whole grid took, from the start of its process to its last file."""
    log = next(undisturbed.parent.parent.glob("results-*.stderr")).stat()
    return log.st_mtime - (undisturbed.parent.parent / "started").stat().st_mtime


def finish(grid: Path, results: Path, code: int = 0) -> Contents:
    """Run the grid to its end."""
    process = running(grid, results)
    process.join(300)
    assert process.exitcode == code, printed(results)
    return contents(results / "tiny")


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


class TestKilled:
    """SIGKILL of the main process, at moments drawn over the time that the whole grid takes."""

    @pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.faults)])
    def test_at_random_moments(
        self, grid: Path, undisturbed: Path, whole: float, tmp_path: Path, kills: int
    ) -> None:
        expected, moments = contents(undisturbed), random.Random(kills)
        results, killed, finished = tmp_path / "0", 0, 0
        while killed < kills:
            fresh, start = not results.exists(), time.monotonic()
            process = running(grid, results)
            process.join(moments.uniform(0, whole))
            process.kill()
            process.join()
            if process.exitcode == -signal.SIGKILL:
                killed += 1
            else:
                assert process.exitcode == 0
                assert contents(results / "tiny") == expected
                assert litter(results / "tiny") == []
                finished += 1
                if fresh:  # the machine may be quicker now than it was
                    whole = min(whole, time.monotonic() - start)
                results = tmp_path / str(finished)
            # What is there is whole and right, at every moment.
            assert contents(results / "tiny").items() <= expected.items()
        assert finish(grid, results) == expected
        assert litter(results / "tiny") == []

    def test_while_it_writes(self, grid: Path, undisturbed: Path, tmp_path: Path) -> None:
        """What a killed process had not finished writing is never read, and goes with the next run."""
        folder = tmp_path / "results" / "tiny"
        for name in ("sst2/LayerRandom/.keep-0.1_seed0.json.x", ".cache/sst2/.dense_seed0.safetensors.x"):
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_bytes(b"{")
        for lock in ("sst2/shared_seed0.lock", "sst2/LayerRandom/keep-0.1_seed0.lock"):
            (folder / ".cache" / "locks" / lock).parent.mkdir(parents=True, exist_ok=True)
            (folder / ".cache" / "locks" / lock).write_text("")
        assert finish(grid, tmp_path / "results") == contents(undisturbed)
        assert litter(folder) == []


class TestStopped:
    def test_ctrl_c(self, grid: Path, undisturbed: Path, tmp_path: Path) -> None:
        for attempt in range(10):  # on a busy machine a run may be done before the signal comes
            results = tmp_path / f"results{attempt}"
            process = running(grid, results)
            wait_for(lambda folder=results / "tiny": bool(contents(folder)))
            os.kill(process.pid or 0, signal.SIGINT)
            process.join(60)
            if process.exitcode != 0:
                break
        assert process.exitcode == 130
        stored = contents(results / "tiny")
        text = printed(results)
        assert "Traceback" not in text
        assert f"{len(stored)} of {CELLS} cells are in {results / 'tiny'}" in text
        assert stored.items() <= contents(undisturbed).items()
        assert litter(results / "tiny") == []
        assert finish(grid, results) == contents(undisturbed)

    def test_a_file_system_without_locks_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A mere file in the place of a lock would be broken by whoever finds it old."""

        def absent(*_: object) -> None:
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(fcntl, "flock", absent)
        with pytest.raises(UserError, match="its file system has no locks"), hold(tmp_path / "a", wait=True):
            pytest.fail("it holds no lock")

    @pytest.mark.parametrize("step", ["write_text", "unlink"])
    def test_ctrl_c_beside_a_lock_leaves_no_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        """While it is taken, and while it is let go: the step is done, then the run stops."""
        path, usual = tmp_path / "a.lock", getattr(Path, step)

        def interrupted(self: Path, *arguments: object, **options: object) -> object:
            os.kill(os.getpid(), signal.SIGINT)
            return usual(self, *arguments, **options)

        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(Path, step, interrupted)
                with pytest.raises(KeyboardInterrupt), hold(path, wait=False):
                    assert step == "unlink", "the run has stopped before"
        finally:
            signal.signal(signal.SIGINT, before)
        assert not path.exists()


class TestTwoRunsAtOnce:
    @pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.faults)])
    def test_on_one_folder(self, grid: Path, undisturbed: Path, tmp_path: Path, rounds: int) -> None:
        for i in range(rounds):
            results = tmp_path / str(i)
            both = [running(grid, results), running(grid, results, "--set", "tasks=['sst2', 'stsb']")]
            for process in both:
                process.join(300)
                assert process.exitcode == 0, printed(results)
            assert contents(results / "tiny") == contents(undisturbed)
            assert litter(results / "tiny") == []
            work = Counter(line.split("] ")[1].rsplit(" ", 2)[0] for line in logged(results))
            once = {name: n for name, n in work.items() if name.endswith((": dense", ": score", ": retrain"))}
            assert len(once) == 2 + 2 + CELLS
            assert set(once.values()) == {1}, "work was doubled"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


class TestFullDisk:
    @pytest.mark.faults
    def test_a_small_file_system(
        self, grid: Path, undisturbed: Path, tmp_path: Path, small_disk: Path
    ) -> None:
        process = running(grid, small_disk / "results", "--log-file", str(tmp_path / "log"))
        process.join(120)
        assert process.exitcode == 1
        folder = small_disk / "results" / "tiny"
        stored = contents(folder)
        assert len(stored) < CELLS
        assert stored.items() <= contents(undisturbed).items()
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        assert finish(grid, small_disk / "results") == contents(undisturbed)
        assert litter(folder) == []

    @pytest.mark.parametrize("limit", [8_000, pytest.param(20_000, marks=pytest.mark.faults)])
    def test_a_quota(self, grid: Path, undisturbed: Path, tmp_path: Path, limit: int) -> None:
        """No file may grow beyond a limit that some of the run's files need."""
        process = running(grid, tmp_path / "results", limit=limit)
        process.join(120)
        assert process.exitcode == 1
        text = printed(tmp_path / "results")
        assert "File too large" in text
        assert "Traceback" not in text
        assert contents(tmp_path / "results" / "tiny").items() <= contents(undisturbed).items()
        assert finish(grid, tmp_path / "results") == contents(undisturbed)
        assert litter(tmp_path / "results" / "tiny") == []


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda text: text[: len(text) // 2],
    "emptied": lambda text: b"",
    "garbage": lambda text: bytes(reversed(text)),
    "newer": lambda text: re.sub(rb'"schema_version": \d+', b'"schema_version": 99', text),
}


def forge(path: Path, hostile: str) -> None:
    """Give a cache entry other content under valid digests, as one who knows the format could."""
    with safe_open(path, framework="pt") as file:
        depends_on = file.metadata()["depends_on"]
    whole = read_tensors(path, depends_on)
    assert whole is not None
    name = sorted(whole.tensors)[0]
    tensors, facts = dict(whole.tensors), dict(whole.facts)
    if hostile == "shape":
        tensors[name] = tensors[name].reshape(-1)[:1]
    elif hostile == "dtype":
        tensors[name] = tensors[name].to(torch.int32)
    elif hostile == "missing":
        del tensors[name]
    elif hostile == "strategy":
        of_one = name.partition("/")[0] + "/"
        tensors = {other: value for other, value in tensors.items() if not other.startswith(of_one)}
    else:
        facts = {"training": ["?"], "evaluation": None}
    write_tensors(path, TensorFile(tensors, facts), depends_on)


class TestDamagedFiles:
    @pytest.mark.faults  # test_bad_input refuses more of them, within one process
    @pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
    def test_a_result_is_named_and_left_alone(
        self, grid: Path, undisturbed: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
    ) -> None:
        folder = tmp_path / "results" / "tiny"
        shutil.copytree(undisturbed, folder)
        path = folder / "sst2" / "LayerRandom" / "keep-0.1_seed0.json"
        path.write_bytes(damage(path.read_bytes()))
        damaged = path.read_bytes()
        process = running(grid, tmp_path / "results")
        process.join(120)
        assert process.exitcode == 2
        assert str(path) in printed(tmp_path / "results")
        assert path.read_bytes() == damaged
        path.unlink()
        assert finish(grid, tmp_path / "results") == contents(undisturbed)

    @pytest.mark.faults
    @pytest.mark.parametrize("hostile", ["shape", "dtype", "missing", "facts"])
    def test_a_cache_entry_with_valid_digests_and_wrong_content(
        self, grid: Path, undisturbed: Path, tmp_path: Path, hostile: str
    ) -> None:
        """It is made again; likewise a part of the scores, see `test_executors`."""
        folder = tmp_path / "results" / "tiny"
        shutil.copytree(undisturbed, folder)
        cell = folder / "sst2" / "LayerRandom" / "keep-0.1_seed0.json"
        cell.unlink()
        for path in (
            folder / ".cache" / "sst2" / "dense_seed0.safetensors",
            cell.with_suffix(".safetensors"),
        ):
            forge(path, hostile)
        assert finish(grid, tmp_path / "results") == contents(undisturbed)

    def test_a_fact_changed_in_the_dense_file(self, grid: Path, undisturbed: Path, tmp_path: Path) -> None:
        folder = tmp_path / "results" / "tiny"
        shutil.copytree(undisturbed, folder)
        path = folder / ".cache" / "sst2" / "dense_seed0.safetensors"
        assert b'\\"n\\": 24' in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(b'\\"n\\": 24', b'\\"n\\": 25'))
        (folder / "sst2" / "LayerRandom" / "keep-0.1_seed0.json").unlink()
        assert finish(grid, tmp_path / "results") == contents(undisturbed)
        assert b'\\"n\\": 24' in path.read_bytes()
