"""Results: one JSON file per cell in, one DataFrame row per cell out. Never imports torch."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from shrinkbench_bert.errors import UserError, describe
from shrinkbench_bert.grid import Cell

SCHEMA_VERSION: Literal[2] = 2
# Room for the predictions of ten million examples.
_LARGEST_BYTES = 1 << 28
_AGAIN = "move it away, and its cell is run again"
LATENCY_FOLDER = "latency"
"""Within a grid's folder; its files are no results."""


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Fingerprints(_Block):
    """Digests of what a cell's files and code say, where the cell only names them."""

    data: str
    """SHA-256 of the examples used, their order and their split."""
    model: str
    """SHA-256 of the pretrained weights; of a folder's, with its configuration and tokenizer."""
    strategy: str
    """SHA-256 of the strategy's formula, comments and docstrings left out."""


class Evaluation(_Block):
    """Metrics of one model on one split."""

    n: int
    """Examples."""
    metrics: dict[str, float | None]
    """Values by metric name; null where undefined (the correlation of a constant)."""
    predictions: str | None = None
    """Of every example, in the split's order, packed by `pack_numbers`; null where they are not kept."""

    def without_predictions(self) -> Self:
        """Copy it with the metrics alone."""
        return self.model_copy(update={"predictions": None})


class Epoch(_Block):
    """One epoch of training."""

    loss: float
    """Mean over the epoch's batches of the training loss; a short last one counts as a whole one."""
    selection: Evaluation | None
    """Metrics on the split that chooses the epoch; null where the protocol takes the last one."""


class Training(_Block):
    """A fine-tuning: its epochs and the one whose weights were taken."""

    epochs: list[Epoch]
    best_epoch: int
    """Counted from 1; 0 without any training."""


class Data(_Block):
    """Sizes of the splits used."""

    train: int
    holdout: int
    validation: int


class Size(_Block):
    """What was kept, and the parameters and multiply-adds that this leaves."""

    keep: float
    """Fraction of the prunable parameters kept."""
    compression: float
    """All parameters / (unprunable + kept)."""
    prunable_compression: float
    """Prunable parameters / kept."""
    total: int
    prunable: int
    kept: int
    """Parameters: of the whole model, prunable, and prunable and kept."""
    density: dict[str, float]
    """Fraction kept, per prunable tensor."""
    sequence_length: int
    """Tokens of the one sequence for which multiply-adds are counted."""
    multiply_adds: int
    """Of the dense model."""
    multiply_adds_kept: int
    """In theory, if every pruned weight were skipped; counted, where attention heads were removed."""
    theoretical_speedup: float
    """The ratio of the two."""


class MaskFile(_Block):
    """The packed masks: a safetensors file beside the result, too large for git."""

    sha256: str
    """Of the packed bits; tells whether the file that lies there belongs to this result."""
    shapes: dict[str, tuple[int, ...]]
    """Of the unpacked masks, per prunable tensor."""


class Heads(_Block):
    """Which attention heads were removed, and the scores that chose them."""

    total: list[int]
    """Heads of each layer of the dense model."""
    removed: dict[int, list[int]]
    """Heads by layer, both counted from 0 as in the dense model; layers that lose none are left out."""
    scores: list[list[float]]
    """Of every head of the dense model, layer by layer; the larger, the more important."""


class Provenance(_Block):
    """Where and when; the one block that may differ between equal runs."""

    started: str
    seconds: dict[str, float]
    """Per stage; a shared stage is counted once, by the first result that follows it in its process."""
    versions: dict[str, str]
    platform: str
    processor: str
    device: str
    dtype: str
    threads: int
    git_revision: str | None


class Result(_Block):
    """All that is known of one finished cell."""

    schema_version: Literal[2] = SCHEMA_VERSION
    digest: str
    """Of `cell` and `fingerprints`: with equal digests, what the same machine made is equal."""
    grid: str = ""
    """The grid that it belongs to; empty for a lone experiment."""
    tolerance: dict[str, float] = {}
    """The grid's: by metric, the absolute move that a comparison accepts."""
    cell: Cell
    fingerprints: Fingerprints
    data: Data
    baseline: Evaluation
    """The majority class or the mean label of train."""
    dense: Evaluation
    """The fine-tuned, unpruned model."""
    before_retraining: Evaluation
    """The dense model with the mask applied, and nothing trained since; of several rounds, the model that the
    round before left, with the last mask applied."""
    after_retraining: Evaluation
    """The ticket after fine-tuning under the mask."""
    dense_training: Training
    retraining: Training
    size: Size
    labels: str
    """Of the validation examples, packed by `pack_numbers`, in the order of the predictions."""
    masks: MaskFile | None = None
    """Null where attention heads were removed: `heads` says it all."""
    heads: Heads | None = None
    """Null where weights were masked."""
    provenance: Provenance

    def to_json(self) -> str:
        """Serialise for the store: keys in the schema's order, floats in full."""
        # Only one of the two is there, and the other one is left out.
        absent = {key for key in ("masks", "heads") if getattr(self, key) is None}
        return json.dumps(self.model_dump(mode="json", exclude=absent), indent=1, allow_nan=False) + "\n"

    def row(self) -> dict[str, Any]:
        """Flatten to one row: what `ResultStore.load` and every table and figure read."""
        cell = self.cell
        row: dict[str, Any] = {
            "grid": self.grid,
            "task": cell.task,
            "model": cell.model,
            "layers": cell.layers,
            "source": cell.source,
            "protocol": cell.protocol.label,
            "strategy": cell.strategy,
            "amount": cell.amount,
            "seed": cell.seed,
            "keep": self.size.keep,
            "compression": self.size.compression,
            "theoretical_speedup": self.size.theoretical_speedup,
            "requested_keep": cell.keep,
            "requested_compression": cell.compression,
            "requested_heads": cell.heads,
            "n": self.after_retraining.n,
            "data_sha256": self.fingerprints.data,
            "model_sha256": self.fingerprints.model,
            "formula_sha256": self.fingerprints.strategy,
            "recipe": cell.recipe.model_dump_json(),
            "head_scope": cell.head_scope,
            "head_rounds": cell.head_rounds,
        }
        for stage in ("baseline", "dense", "before_retraining", "after_retraining"):
            for metric, value in getattr(self, stage).metrics.items():
                row[f"{stage}_{metric}"] = value
        if cell.prune_rounds is not None:  # no column where it is not used, as in older tables
            row["prune_rounds"] = cell.prune_rounds
        row |= {f"tolerance_{metric}": move for metric, move in self.tolerance.items()}
        return row


def digest(cell: Cell, fingerprints: Fingerprints) -> str:
    """Digest what decides a result: the cell and what it refers to.

    The source's name is left out: the same examples from the hub and from a folder are the same data.
    So is what is not set, which lets a later version add a field without disowning older results.
    """
    identity = {
        "schema_version": SCHEMA_VERSION,
        "cell": cell.model_dump(mode="json", exclude={"source"}, exclude_none=True),
        "fingerprints": fingerprints.model_dump(mode="json"),
    }
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def differences(stored: Result, cell: Cell, fingerprints: Fingerprints) -> list[str]:
    """Name the fields in which a stored result differs from what is about to run."""
    old = flatten({**stored.cell.model_dump(mode="json"), "sha256": dict(stored.fingerprints)})
    new = flatten({**cell.model_dump(mode="json"), "sha256": dict(fingerprints)})
    return [
        f"{key}: stored {old.get(key)!r}, now {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or the old one, whatever happens meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_leftovers(path: Path) -> None:
    """Remove what `write_atomically` had not finished when its process was killed."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*"):
        leftover.unlink(missing_ok=True)


class ResultStore:
    """A folder of results: `<grid>/<task>/<strategy>/<amount>_seed<k>.json`."""

    def __init__(self, folder: str | Path = "results") -> None:
        self.folder = Path(folder)

    def grid(self, name: str) -> Self:
        """Narrow to one grid's folder."""
        return type(self)(self.folder / name)

    def path(self, cell: Cell) -> Path:
        """Say where the result of a cell of this grid folder lies."""
        return self.folder / cell.path

    def mask_path(self, cell: Cell) -> Path:
        """Say where the packed masks of a cell of this grid folder lie: beside its result."""
        return self.path(cell).with_suffix(".safetensors")

    def save(self, result: Result) -> Path:
        """Write a result atomically and return its path."""
        path = self.path(result.cell)
        write_atomically(path, result.to_json().encode())
        return path

    def read(self, path: Path) -> Result:
        """Read one result. Raises UserError for a file that is no result of a schema known here."""
        try:
            if (size := path.stat().st_size) > _LARGEST_BYTES:
                raise UserError(
                    f"result {str(path)!r}: {size:,} bytes; at most {_LARGEST_BYTES:,} are read; {_AGAIN}"
                )
            tree = json.loads(path.read_text(encoding="utf-8"))
        except UserError:
            raise
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"result {str(path)!r} is not valid JSON: {error}; {_AGAIN}") from error
        version = tree.get("schema_version") if isinstance(tree, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise UserError(
                f"result {str(path)!r}: schema_version {version} is newer than {SCHEMA_VERSION}, "
                "the newest that this version reads: update shrinkbench-bert"
            )
        if isinstance(version, int) and version < SCHEMA_VERSION:
            raise UserError(
                f"result {str(path)!r}: schema_version {version} is older than {SCHEMA_VERSION}, "
                "the only one that this version reads: move the old results away and run the grid again"
            )
        try:
            return Result.model_validate(tree)
        except (ValidationError, UserError) as error:
            raise UserError(f"result {str(path)!r} is no result: {describe(error)}; {_AGAIN}") from error

    def paths(self) -> Iterator[Path]:
        """List the file of every result below the folder, in order."""
        above = len(self.folder.parts)
        for path in sorted(self.folder.rglob("*.json")):
            hidden = any(part.startswith(".") for part in path.parts[above:])
            is_result = not path.name.endswith(".failed.json") and path.parent.name != LATENCY_FOLDER
            if not hidden and is_result:
                yield path

    def results(self) -> Iterator[Result]:
        """Read every result below the folder, in the order of their paths."""
        return map(self.read, self.paths())

    def load(self) -> pd.DataFrame:
        """Load every result below the folder: one row per cell, columns as in `Result.row`.

        Raises UserError for a folder that does not exist, and for a file in it that is no result.
        """
        if not self.folder.is_dir():
            raise UserError(
                f"results {str(self.folder)!r}: no such folder; give one that a run has written, such as "
                "results/quick"
            )
        return pd.DataFrame([result.row() for result in self.results()])
