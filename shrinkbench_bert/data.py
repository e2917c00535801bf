"""Loading, splitting, tokenising and batching a GLUE task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import datasets
import torch
from pydantic import ValidationError
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from shrinkbench_bert import mini_glue
from shrinkbench_bert.errors import UserError, describe
from shrinkbench_bert.grid import Recipe
from shrinkbench_bert.hub import hub_reachable
from shrinkbench_bert.seeding import generator
from shrinkbench_bert.tasks import Task, get_task

Batch = dict[str, Tensor]

# Batches that are sorted by length together: enough to group, few enough to stay random.
_POOL = 50


@dataclass(frozen=True)
class Split:
    """Examples of one split: raw columns, and token ids once there is a tokenizer."""

    text: list[tuple[str, ...]]
    labels: list[float]
    encoded: list[dict[str, list[int]]]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Sequence[int]) -> Split:
        """Select examples, in the order of `indices`."""
        return Split(
            [self.text[i] for i in indices],
            [self.labels[i] for i in indices],
            [self.encoded[i] for i in indices] if self.encoded else [],
        )


@dataclass(frozen=True)
class TaskData:
    """A task with its examples; `holdout` is taken out of train and chooses the best epoch."""

    task: Task
    train: Split
    holdout: Split
    validation: Split
    pad_token_id: int

    @property
    def token_ids(self) -> Tensor:
        """Every token id of every split, (n,) int64, each at least once."""
        splits = (self.train, self.holdout, self.validation)
        ids = {i for split in splits for row in split.encoded for i in row["input_ids"]}
        return torch.tensor(sorted(ids | {self.pad_token_id}))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all examples in their order, split by split."""
        digest = hashlib.sha256()
        for split in (self.train, self.holdout, self.validation):
            digest.update(json.dumps([split.text, split.labels]).encode())
        return digest.hexdigest()


def load_task(
    name: str | Task,
    source: str = "mini-glue",
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    train_examples: int | None = None,
    eval_examples: int | None = None,
    holdout: float = 0.1,
    max_length: int = 128,
) -> TaskData:
    """Load a task through `datasets.load_dataset(source, task.name)`.

    Args:
        name: `sst2`, `cola`, `stsb`, or a Task.
        source: a hub id, a folder of the same layout, or `mini-glue`.
        tokenizer: encodes the text; without it only text and labels are there.
        train_examples: a random subset of train, the same for every seed of a grid; None for all.
        eval_examples: likewise of validation.
        holdout: the fraction of the training examples set apart, above 0 and below 1.
        max_length: tokens, 8 or more; longer inputs are cut.

    Raises:
        UserError: an unknown task, a number out of range, no such source, no hub and no local copy, a
            missing split or column, or a label or a text that is none.
    """
    task = get_task(name)
    try:
        sizes = Recipe(
            train_examples=train_examples,
            eval_examples=eval_examples,
            holdout=holdout,
            max_length=max_length,
        )
    except ValidationError as error:
        raise UserError(f"load_task: {describe(error)}") from error
    train, validation = _load(task, source)
    train = _subset(train, sizes.train_examples, "train")
    validation = _subset(validation, sizes.eval_examples, "validation")
    order = torch.randperm(len(train), generator=generator(0, "holdout")).tolist()
    cut = max(1, round(sizes.holdout * len(train)))
    if cut >= len(train):
        raise UserError(
            f"source {source!r}, task {task.name!r}: {len(train)} examples are too few to set "
            f"{sizes.holdout:g} of them apart; raise train_examples"
        )
    train, held_out = train.take(order[cut:]), train.take(order[:cut])
    if tokenizer is None:
        return TaskData(task, train, held_out, validation, pad_token_id=0)
    train, held_out, validation = (
        _encode(split, tokenizer, sizes.max_length) for split in (train, held_out, validation)
    )
    pad = tokenizer.pad_token_id
    return TaskData(task, train, held_out, validation, pad_token_id=0 if pad is None else pad)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            datasets.enable_progress_bars()


def _load(task: Task, source: str) -> tuple[Split, Split]:
    where = f"source {source!r}, task {task.name!r}"
    path = mini_glue.materialise() if source == "mini-glue" else Path(source)
    local = bool(source) and path.is_dir()
    if not local and (not source or source.startswith((".", "/", "~")) or source.count("/") != 1):
        raise UserError(f"{where}: no such folder (accepted: a hub id, a folder, or mini-glue)")
    if not local and not hub_reachable():
        where += " (the hub cannot be reached, looked for a local copy; a folder or mini-glue needs no hub)"
    with TemporaryDirectory() as scratch, _without_progress_bars():
        try:
            # The library caches a folder by its name, whatever lies in it now: give it a new cache.
            raw = datasets.load_dataset(
                str(path.resolve()) if local else source, task.name, cache_dir=scratch if local else None
            )
        except Exception as error:
            raise UserError(f"{where}: {_cause(error)}") from error
        train, validation = (_split(task, where, raw, name) for name in ("train", "validation"))
    return train, validation


def _cause(error: BaseException) -> str:
    """The innermost error on one line: the outer ones only say that something went wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300] or type(error).__name__


def _split(task: Task, where: str, raw: datasets.DatasetDict, name: str) -> Split:
    if name not in raw:
        raise UserError(f"{where}: no split {name!r}; found {', '.join(sorted(raw))}")
    table, where = raw[name], f"{where}, split {name!r}"
    for column in (*task.text, "label"):
        if column not in table.column_names:
            raise UserError(f"{where}: no column {column!r}; found {', '.join(table.column_names)}")
    text = list(zip(*(list(table[column]) for column in task.text), strict=True))
    labels = list(table["label"])
    for i, (row, label) in enumerate(zip(text, labels, strict=True)):
        if not all(isinstance(part, str) for part in row):
            raise UserError(f"{where}, row {i}: {' or '.join(task.text)} = {row!r} is no string")
        if not _is_label(task, label):
            raise UserError(f"{where}, row {i}: label {label!r} is none of {_accepted_labels(task)}")
    return Split(text, [float(label) for label in labels], [])


def _accepted_labels(task: Task) -> str:
    return f"0 to {task.top:g}" if task.regression else f"0 to {task.classes - 1}, whole"


def _is_label(task: Task, label: object) -> bool:
    if isinstance(label, bool) or not isinstance(label, int | float):
        return False
    if task.regression:
        return 0 <= label <= task.top
    return label in range(task.classes)


def _subset(split: Split, size: int | None, name: str) -> Split:
    if size is None or size >= len(split):
        return split
    order = torch.randperm(len(split), generator=generator(0, "subset", name))
    return split.take(order[:size].tolist())


def _encode(split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Split:
    columns = [list(column) for column in zip(*split.text, strict=True)]
    encoded = tokenizer(*columns, truncation=True, max_length=max_length)
    keys = [key for key in ("input_ids", "token_type_ids") if key in encoded]
    rows = [{key: encoded[key][i] for key in keys} for i in range(len(split))]
    return Split(split.text, split.labels, rows)


def collate(split: Split, indices: Sequence[int], pad_token_id: int) -> Batch:
    """Pad examples to the longest of them.

    Returns input_ids, attention_mask and, if the tokenizer gave them, token_type_ids, all (batch,
    length) int64, and labels, (batch,) float32.
    """
    rows = [split.encoded[i] for i in indices]
    length = max(len(row["input_ids"]) for row in rows)
    mask = [[1] * len(row["input_ids"]) + [0] * (length - len(row["input_ids"])) for row in rows]
    batch = {"attention_mask": torch.tensor(mask)}
    for key in rows[0]:
        pad = pad_token_id if key == "input_ids" else 0
        batch[key] = torch.tensor([row[key] + [pad] * (length - len(row[key])) for row in rows])
    batch["labels"] = torch.tensor([split.labels[i] for i in indices])
    return batch


def check_batch(task: Task, batch: object, index: int, *, labelled: bool = True) -> None:
    """Check a batch that a user made. Raises UserError unless it is as `collate` makes them.

    Where its labels are on a GPU, this waits for them. Unless `labelled`, it need not have any.
    """
    where = f"batch {index}"
    if not isinstance(batch, Mapping):
        raise UserError(f"{where} is a {type(batch).__name__}: a dict with input_ids and labels is expected")
    tensors = {key for key, value in batch.items() if isinstance(value, Tensor)}
    if tensors != batch.keys() or not {"input_ids", *(["labels"] if labelled else [])} <= tensors:
        found = ", ".join(f"{key} ({type(value).__name__})" for key, value in batch.items())
        raise UserError(f"{where}: tensors are expected, input_ids and labels among them; found {found}")
    if "labels" not in batch:
        return
    labels, examples = batch["labels"], len(batch["input_ids"])
    if labels.shape != (examples,):
        raise UserError(
            f"{where}: labels have the shape {tuple(labels.shape)}: ({examples},) is expected, one for each "
            "row of input_ids"
        )
    highest = task.top if task.regression else task.classes - 1
    good = (labels >= 0) & (labels <= highest)
    if not task.regression:
        good &= labels == labels.long()
    if not good.all():
        raise UserError(
            f"{where}: label {labels[~good][0].item():g} is none of {_accepted_labels(task)} "
            f"(task {task.name!r})"
        )


def training_batches(
    split: Split,
    pad_token_id: int,
    batch_size: int,
    shuffle: torch.Generator,
    group_by_length: bool,
) -> Iterator[Batch]:
    """Yield one epoch of shuffled batches; grouped by length they carry little padding."""
    order = torch.randperm(len(split), generator=shuffle).tolist()
    if group_by_length:
        pool = _POOL * batch_size
        order = [
            i
            for start in range(0, len(order), pool)
            for i in sorted(order[start : start + pool], key=lambda i: len(split.encoded[i]["input_ids"]))
        ]
    starts = range(0, len(order), batch_size)
    chosen = torch.randperm(len(starts), generator=shuffle).tolist()
    for start in (starts[c] for c in chosen):
        yield collate(split, order[start : start + batch_size], pad_token_id)


def evaluation_batches(split: Split, pad_token_id: int, batch_size: int) -> Iterator[tuple[list[int], Batch]]:
    """Yield every example once, shortest first: its places in the split, and the batch."""
    order = sorted(range(len(split)), key=lambda i: len(split.encoded[i]["input_ids"]))
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        yield indices, collate(split, indices, pad_token_id)
