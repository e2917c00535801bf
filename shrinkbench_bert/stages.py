"""What the cells of one (model, task, seed) share: data, initial and dense weights, scores, masks."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from shrinkbench_bert.cache import dense_path, head_scores_path, part_path
from shrinkbench_bert.cost import MultiplyAdds, count_multiply_adds
from shrinkbench_bert.data import Batch, TaskData, load_task, training_batches
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.fingerprints import fingerprints
from shrinkbench_bert.grid import AMOUNTS, Cell
from shrinkbench_bert.head_scoring import HeadScores, score_heads
from shrinkbench_bert.heads import attention_layers
from shrinkbench_bert.masks import Masks, apply_masks, keep_after, make_masks, pack, unpack
from shrinkbench_bert.models import (
    load_model,
    load_tokenizer,
    positions,
    prunable_parameters,
    set_dropout,
)
from shrinkbench_bert.passes import batches_read
from shrinkbench_bert.preflight import cell_keep
from shrinkbench_bert.scoring import Scores, add_scores, score
from shrinkbench_bert.seeding import generator
from shrinkbench_bert.store import Evaluation, ResultStore, Training, remove_leftovers
from shrinkbench_bert.strategy import get_strategy
from shrinkbench_bert.tensor_file import TensorFile, read_tensors, write_tensors
from shrinkbench_bert.training import Moments, evaluate, fine_tune

Progress = Callable[[str], None]
_OF_NO_MATTER = {"source", "strategy", *AMOUNTS, "head_scope", "head_rounds", "prune_rounds", "score_parts"}
"""Fields of a cell that decide neither its dense weights nor, but for their amount and rounds, its masks."""

_log = logging.getLogger(__name__)


def resolve_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `mps` into a device. Raises UserError if it is not there."""
    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.insert(0, "mps")
    if torch.cuda.is_available():
        found.insert(0, "cuda")
    if name == "auto":
        return torch.device(found[0])
    if name not in found:
        raise UserError(f"device = {name!r}: this machine has none (accepted here: auto, {', '.join(found)})")
    return torch.device(name)


def _rounds(cell: Cell) -> list[str]:
    return [] if cell.prune_rounds is None else [f"{cell.prune_rounds} rounds"]


def _facts_are_whole(stored: TensorFile) -> bool:
    """Say whether a file of dense weights, which may be anybody's, tells how they were trained."""
    try:
        Training.model_validate(stored.facts["training"])
        Evaluation.model_validate(stored.facts["evaluation"])
    except (KeyError, TypeError, ValueError):
        return False
    return True


@dataclass
class Dense:
    """The fine-tuned, unpruned model."""

    weights: dict[str, Tensor]
    training: Training
    evaluation: Evaluation
    moments: Moments


class Stages:
    """Does each shared stage once, when it is first asked for, for all `cells`.

    Args:
        cells: of one model, task, seed, recipe and protocol; all that will be asked for.
        device: where the model lives.
        store: keeps packed masks beside its results, and dense weights in its `.cache`, so that an
            interrupted grid carries on without them being made again; None keeps nothing.
        progress: told what is being done.
        dense_of: other stages, whose dense model is this one's too; None fine-tunes its own.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        *,
        device: torch.device | None = None,
        store: ResultStore | None = None,
        progress: Progress = lambda stage: None,
        dense_of: Stages | None = None,
    ) -> None:
        self.cells = cells
        self.cell = cells[0]
        self.device = device or resolve_device("auto")
        self.store = store
        self.progress = progress
        self.dense_of = dense_of
        self.seconds: dict[str, float] = {}
        self.label = str(self.cell)
        self.current = ""
        self._masks: dict[tuple[str, str], Masks] = {}
        self._head_scores: dict[str, HeadScores] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        """Tell the progress, keep the seconds of one stage, and log them with what it is done for."""
        self.progress(name)
        self.current = name
        start = time.perf_counter()
        try:
            yield lambda detail: self.progress(f"{name}, {detail}")
        finally:
            taken = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + taken
            _log.info("%s: %s %.1f s", self.label, name, taken)

    def prepare(self) -> None:
        """Do the shared stages now: the dense weights, and the masks of all cells that share them."""
        _ = self.dense
        if self.cell.heads is not None:
            for cell in self.cells:
                self.head_scores(cell)
            return
        if self.cell.prune_rounds is None and self._without_masks():
            self._score()
        if self.store:
            for part in range(self.cell.score_parts or 0):
                path = part_path(self.store, self.cell, part)
                path.unlink(missing_ok=True)
                remove_leftovers(path)

    def prepare_part(self, part: int) -> None:
        """Do one part of the scoring pass now, and store it, unless the masks are there already."""
        if missing := self._without_masks():
            self._score_part(part, missing)

    @cached_property
    def data(self) -> TaskData:
        """The task's examples, tokenised."""
        recipe = self.cell.recipe
        with self.stage("data"):
            return load_task(
                self.cell.task,
                self.cell.source,
                tokenizer=load_tokenizer(self.cell.model),
                train_examples=recipe.train_examples,
                eval_examples=recipe.eval_examples,
                holdout=recipe.holdout,
                max_length=min(recipe.max_length, positions(self.model)),
            )

    @cached_property
    def model(self) -> PreTrainedModel:
        """The one model in memory; `load` puts the weights that a stage wants into it."""
        cell = self.cell
        model = load_model(cell.model, cell.task, seed=cell.seed, layers=cell.layers)
        if cell.recipe.dropout is not None:
            set_dropout(model, cell.recipe.dropout)
        return model.to(device=self.device)  # type: ignore[call-arg]

    @cached_property
    def initial(self) -> dict[str, Tensor]:
        """The weights before fine-tuning: the checkpoint's, and the head that the seed drew."""
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def load(self, weights: dict[str, Tensor]) -> PreTrainedModel:
        """Put weights into the model and return it."""
        self.model.load_state_dict(weights)
        return self.model

    @cached_property
    def multiply_adds(self) -> MultiplyAdds:
        """Of the dense model."""
        return count_multiply_adds(self.model)

    @cached_property
    def dense(self) -> Dense:
        """Fine-tune the dense model, or take the stored one."""
        if self.dense_of is not None:
            return self.dense_of.dense
        path = self._dense_path()
        depends_on = self._digest()
        stored = read_tensors(path, depends_on) if path else None
        if stored is None or not stored.holds(self.initial, "weights/") or not _facts_are_whole(stored):
            stored = self._fine_tune_dense()
            if path:
                write_tensors(path, stored, depends_on)
        groups: dict[str, dict[str, Tensor]] = {}
        for name, tensor in stored.tensors.items():
            kind, _, rest = name.partition("/")
            groups.setdefault(kind, {})[rest] = tensor.to(self.device)
        moments: Moments = {}
        for kind in groups.keys() - {"weights"}:
            for name, tensor in groups[kind].items():
                moments.setdefault(name, {})[kind] = tensor
        return Dense(
            groups["weights"],
            Training.model_validate(stored.facts["training"]),
            Evaluation.model_validate(stored.facts["evaluation"]),
            moments,
        )

    def _fine_tune_dense(self) -> TensorFile:
        cell, data = self.cell, self.data
        model = self.load(self.initial)
        with self.stage("dense") as report:
            tuned = fine_tune(
                model,
                data,
                cell.recipe,
                cell.protocol,
                epochs=cell.recipe.epochs_dense,
                seed=cell.seed,
                purpose="dense",
                report=report,
            )
            evaluation = evaluate(model, data, data.validation)
        tensors = {f"weights/{name}": tensor for name, tensor in model.state_dict().items()}
        if not cell.protocol.reset_optimizer:
            tensors |= {
                f"{kind}/{name}": tensor
                for name, state in tuned.moments.items()
                for kind, tensor in state.items()
            }
        facts = {"training": tuned.training.model_dump(), "evaluation": evaluation.model_dump()}
        return TensorFile({name: t.clone() for name, t in tensors.items()}, facts)

    def masks(self, cell: Cell) -> Masks:
        """The masks of one cell: stored ones, or from one scoring pass for all cells' strategies."""
        masks = self._read_masks(cell)
        if masks is None:
            self._score()
            masks = self._read_masks(cell)
        assert masks is not None  # they have just been made
        return masks

    def _score(self) -> None:
        """Score with every strategy whose masks are not stored, and make all amounts' masks."""
        missing = self._without_masks()
        parts = self.cell.score_parts
        if parts:
            each = (self._score_part(part, missing) for part in range(parts))
            scores = add_scores(each, self.cell.protocol)
        else:
            scores = self._scores(missing)
        with self.stage("masks"):
            for c in missing:
                masks = make_masks(
                    scores[c.strategy],
                    cell_keep(c, self.model),
                    get_strategy(c.strategy).scope,
                    ties=c.protocol.ties,
                )
                path = self._mask_path(c)
                if path:
                    write_tensors(path, TensorFile(pack(masks), {}), self._digest(c))
                else:
                    self._masks[c.strategy, c.amount] = {n: mask.cpu() for n, mask in masks.items()}

    def next_masks(self, cell: Cell, r: int, weights: dict[str, Tensor], within: Masks) -> Masks:
        """The masks of round r of `cell.prune_rounds`, from a scoring pass of the cell's own.

        Args:
            cell: one of several rounds.
            r: counted from 1; the masks of the last round are stored beside the result.
            weights: that the round before left, or the dense ones.
            within: its masks, in force on the weights that are scored; empty for the first round.
        """
        assert cell.prune_rounds is not None  # other cells' masks come of one pass for all
        strategy = get_strategy(cell.strategy)
        model = self.load(self.initial if strategy.at == "initial" else weights)
        apply_masks(model, within).remove()  # nothing moves the pruned weights while they are scored
        keep = keep_after(cell_keep(cell, model), r, cell.prune_rounds)
        with self.stage("score"):
            scores = self._score_weights(model, [cell.strategy])[cell.strategy]
            masks = make_masks(scores, keep, strategy.scope, ties=cell.protocol.ties, within=within or None)
        path = self._mask_path(cell)
        if path and r == cell.prune_rounds:
            write_tensors(path, TensorFile(pack(masks), {}), self._digest(cell))
        return masks

    def _scores(self, cells: Sequence[Cell], part: tuple[int, int] | None = None) -> dict[str, Scores]:
        """The scores of some cells' strategies, each at the weights that it asks for."""
        _ = self.data  # its seconds are not scoring's
        weights = {"dense": self.dense.weights, "initial": self.initial}
        scores: dict[str, Scores] = {}
        with self.stage("score"):
            for at in weights:
                names = [name for name in _strategies(cells) if get_strategy(name).at == at]
                if names:
                    scores |= self._score_weights(self.load(weights[at]), names, part)
        return scores

    def _score_weights(
        self, model: PreTrainedModel, strategies: Sequence[str], part: tuple[int, int] | None = None
    ) -> dict[str, Scores]:
        cell, batches = self.cell, self._scoring_batches()
        return score(
            model, batches, strategies, task=cell.task, protocol=cell.protocol, seed=cell.seed, part=part
        )

    def _score_part(self, part: int, cells: Sequence[Cell]) -> dict[str, Scores]:
        """One part of the scores for some cells: stored, or made and stored."""
        parts = self.cell.score_parts
        assert parts is not None  # only then there are any
        if not self.store:
            return self._scores(cells, (part, parts))
        path = part_path(self.store, self.cell, part)
        depends_on = self._scores_digest(cells, part)
        stored = read_tensors(path, depends_on)
        expected = self._tensors_of_part(cells, part)
        if stored is None or not stored.holds(expected):
            scores = self._scores(cells, (part, parts))
            tensors = {f"{s}/{name}": value for s, found in scores.items() for name, value in found.items()}
            write_tensors(path, TensorFile(tensors, {}), depends_on)
            return scores
        found: dict[str, Scores] = {}
        for key in expected:
            strategy, _, name = key.partition("/")
            found.setdefault(strategy, {})[name] = stored.tensors[key].to(self.device)
        return found

    def _tensors_of_part(self, cells: Sequence[Cell], part: int) -> dict[str, Tensor]:
        """Tensors of the names, shapes and dtypes that one part of the scores consists of."""
        protocol = self.cell.protocol
        batches = -(-len(self.data.train) // self.cell.recipe.batch_size)
        expected: dict[str, Tensor] = {}
        for strategy in _strategies(cells):
            formula = get_strategy(strategy).under(protocol)
            read = batches_read(formula, protocol)
            if part < (min(read, batches) or 1):  # what needs no data is in part 0
                parameters = prunable_parameters(self.model, protocol)
                expected |= {
                    f"{strategy}/{name}": torch.empty(
                        formula.shape_of_sum(p.shape), dtype=p.dtype, device="meta"
                    )
                    for name, p in parameters.items()
                }
        return expected

    def head_scores(self, cell: Cell) -> HeadScores:
        """The scores of the dense model's heads by one cell's strategy: one pass for all cells' ones."""
        if cell.strategy not in self._head_scores:
            missing = [c for c in self.cells if not self._read_head_scores(c)]
            if missing:
                scores = self.score_heads(self.load(self.dense.weights), _strategies(missing))
                self._head_scores |= scores
                for strategy, c in {c.strategy: c for c in missing if self.store}.items():
                    self._write_head_scores(c, scores[strategy])
        return self._head_scores[cell.strategy]

    def _write_head_scores(self, cell: Cell, scores: HeadScores) -> None:
        assert self.store is not None  # only then they are kept
        values = torch.tensor([scores[place] for place in self._heads()], dtype=torch.float64)
        path = head_scores_path(self.store, cell)
        write_tensors(path, TensorFile({"scores": values}, {}), self._scores_digest([cell]))

    def _read_head_scores(self, cell: Cell) -> bool:
        """Take the stored scores of a cell's strategy, if there are any that fit."""
        if cell.strategy not in self._head_scores and self.store:
            stored = read_tensors(head_scores_path(self.store, cell), self._scores_digest([cell]))
            heads = self._heads()
            if stored is not None and stored.holds({"scores": torch.empty(len(heads), dtype=torch.float64)}):
                values = stored.tensors["scores"].tolist()
                self._head_scores[cell.strategy] = dict(zip(heads, values, strict=True))
        return cell.strategy in self._head_scores

    def _heads(self) -> list[tuple[int, int]]:
        return [(layer.index, head) for layer in attention_layers(self.model) for head in layer.kept]

    def score_heads(self, model: PreTrainedModel, strategies: Sequence[str]) -> dict[str, HeadScores]:
        """Score the heads that a model has, by strategy."""
        batches = self._scoring_batches()
        with self.stage("score"):
            return score_heads(
                model,
                batches,
                strategies,
                task=self.cell.task,
                protocol=self.cell.protocol,
                seed=self.cell.seed,
            )

    def _scoring_batches(self) -> Iterator[Batch]:
        recipe = self.cell.recipe
        return training_batches(
            self.data.train,
            self.data.pad_token_id,
            recipe.batch_size,
            generator(self.cell.seed, "scoring", "order"),
            recipe.group_by_length,
        )

    def _without_masks(self) -> list[Cell]:
        return [cell for cell in self.cells if self._read_masks(cell) is None]

    def _dense_path(self) -> Path | None:
        return dense_path(self.store, self.cell) if self.store else None

    def _mask_path(self, cell: Cell) -> Path | None:
        return self.store.mask_path(cell) if self.store else None

    def _read_masks(self, cell: Cell) -> Masks | None:
        path = self._mask_path(cell)
        if path is None:
            return self._masks.get((cell.strategy, cell.amount))
        stored = read_tensors(path, self._digest(cell))
        parameters = prunable_parameters(self.model, cell.protocol)
        shapes = {name: tuple(p.shape) for name, p in parameters.items()}
        bits = {name: torch.empty(-(-p.numel() // 8), dtype=torch.uint8) for name, p in parameters.items()}
        if stored is None or not stored.holds(bits):
            return None
        return unpack({name: stored.tensors[name] for name in shapes}, shapes)

    def _digest(self, cell: Cell | None = None) -> str:
        """Digest what decides the dense weights, or the masks of a cell."""
        taken = fingerprints(cell or self.cell)
        facts: list[Any] = [
            self.cell.model_dump(mode="json", exclude=_OF_NO_MATTER),
            [taken.data, taken.model],
            [taken.strategy, cell.strategy, cell.amount, *_rounds(cell)] if cell else None,
        ]
        if cell and cell.score_parts:
            facts.append(cell.score_parts)
        return _sha256(facts)

    def _scores_digest(self, cells: Sequence[Cell], part: int | None = None) -> str:
        """Digest what decides the scores of some cells' strategies."""
        formulas = sorted({(cell.strategy, fingerprints(cell).strategy) for cell in cells})
        return _sha256([self._digest(), formulas, part, self.cell.score_parts])


def _strategies(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.strategy for cell in cells))


def _sha256(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
