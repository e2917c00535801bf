"""mini-GLUE: three small tasks of GLUE's shape, generated from a seed by rules that can be read.

A stand-in for trying the machinery, never evidence about a pruning method. See docs/mini-glue.md.
"""

import os
import random
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from shrinkbench_bert.mini_glue import acceptability, sentiment, similarity

__all__ = ["GENERATOR_VERSION", "Draw", "Row", "generate", "materialise"]

GENERATOR_VERSION = 2  # part of the cache folder's name: raise it with every change of the rows
N_TRAIN, N_VALIDATION = 2000, 400

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")
Row = dict[str, Any]

TASKS: dict[str, Callable[["Draw"], list[Row]]] = {
    "sst2": sentiment.rows,
    "cola": acceptability.rows,
    "stsb": similarity.rows,
}
TEXT_COLUMNS = ("sentence", "sentence1", "sentence2")
COLUMN_TYPES = {
    "sst2": {"sentence": pa.string(), "label": pa.int64(), "idx": pa.int32()},
    "cola": {"sentence": pa.string(), "label": pa.int64(), "idx": pa.int32()},
    "stsb": {
        "sentence1": pa.string(),
        "sentence2": pa.string(),
        "label": pa.float32(),
        "idx": pa.int32(),
    },
}


class Draw:
    """Random choices for one split. An entry that starts with `~` is kept for validation."""

    def __init__(self, rng: random.Random, split: Split) -> None:
        self.rng, self.split = rng, split

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.rng.random() < probability

    def pick(self, entries: str | Sequence[str], avoid: Sequence[str] = (), held_out: float = 0.15) -> str:
        """One entry not in `avoid`; in validation a held-out one with chance `held_out`.

        `entries` is a sequence, or one string that separates them by commas.
        """
        entries = entries.split(", ") if isinstance(entries, str) else entries
        unseen = self.split == "validation" and self.chance(held_out)
        pool = [e for e in entries if e.startswith("~") == unseen and e.strip("~") not in avoid]
        pool = pool or [e for e in entries if not e.startswith("~") and e not in avoid]
        return self.rng.choice(pool).strip("~")


def generate(
    seed: int = 0, n_train: int = N_TRAIN, n_validation: int = N_VALIDATION
) -> dict[str, dict[Split, list[Row]]]:
    """`{task: {split: rows}}`; no sentence occurs twice, within a split or across them."""
    sizes: dict[Split, int] = {"train": n_train, "validation": n_validation}
    data: dict[str, dict[Split, list[Row]]] = {}
    for task, rows in TASKS.items():
        seen: set[str] = set()
        data[task] = {}
        for split, size in sizes.items():
            rng = random.Random(f"mini-glue {task} {split} {seed}")
            data[task][split] = _fresh_rows(Draw(rng, split), rows, size, seen)
    return data


def _fresh_rows(draw: Draw, rows: Callable[[Draw], list[Row]], size: int, seen: set[str]) -> list[Row]:
    kept: list[Row] = []
    while len(kept) < size:
        batch = rows(draw)
        texts = [row[column] for row in batch for column in TEXT_COLUMNS if column in row]
        if seen.isdisjoint(texts) and len(kept) + len(batch) <= size + 1:
            seen.update(texts)
            kept += batch
    kept = kept[:size]
    draw.rng.shuffle(kept)  # so that the first n rows are as mixed as the whole
    return [{**row, "idx": i} for i, row in enumerate(kept)]


def materialise(folder: Path | None = None, seed: int = 0) -> Path:
    """The folder that `datasets.load_dataset(folder, task)` reads, written if it is not there yet.

    Without `folder`, one in the user's cache. It appears all at once or not at all, so that two
    processes may ask for it together.
    """
    path = folder or _cache_folder(seed)
    if _is_complete(path, seed):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    try:
        _write(draft, seed)
        draft.rename(path)
    except OSError as error:
        if not _is_complete(path, seed):  # else another process was quicker: the same bytes
            raise FileExistsError(
                f"cannot put mini-GLUE (version {GENERATOR_VERSION}, seed {seed}) at {path}: "
                f"{error}; name another folder or remove what is there"
            ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return path


def _cache_folder(seed: int) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "shrinkbench-bert" / f"mini-glue-{GENERATOR_VERSION}-seed{seed}"


def _parquet(folder: Path, task: str, split: Split) -> Path:
    return folder / task / f"{split}-00000-of-00001.parquet"


def _is_complete(folder: Path, seed: int) -> bool:
    readme = folder / "README.md"
    return (
        readme.is_file()
        and readme.read_text(encoding="utf-8") == _readme(seed)
        and all(_parquet(folder, task, split).is_file() for task in TASKS for split in SPLITS)
    )


def _write(folder: Path, seed: int) -> None:
    for task, splits in generate(seed).items():
        (folder / task).mkdir(parents=True)
        for split, rows in splits.items():
            table = pa.Table.from_pylist(rows, schema=pa.schema(COLUMN_TYPES[task]))
            pq.write_table(table, _parquet(folder, task, split))
    (folder / "README.md").write_text(_readme(seed), encoding="utf-8")


def _readme(seed: int) -> str:
    configs = "\n".join(
        f"- config_name: {task}\n  data_files:\n"
        + "\n".join(f"  - {{split: {split}, path: {task}/{split}-*}}" for split in SPLITS)
        for task in TASKS
    )
    return (
        f"---\nlanguage: en\npretty_name: mini-GLUE\nconfigs:\n{configs}\n---\n"
        f"# mini-GLUE, generator version {GENERATOR_VERSION}, seed {seed}\n\n"
        "Generated by shrinkbench_bert.mini_glue: a stand-in for trying the machinery, "
        "never evidence.\n"
    )
