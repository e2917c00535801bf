"""What the cells of one (model, task, seed) share: data, initial and dense weights, scores, masks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedModel

from shrinkbench_bert.cost import MultiplyAdds, count_multiply_adds
from shrinkbench_bert.data import Batch, TaskData, load_task, training_batches
from shrinkbench_bert.device import resolve_device
from shrinkbench_bert.errors import UserError
from shrinkbench_bert.fingerprints import fingerprints
from shrinkbench_bert.grid import Cell
from shrinkbench_bert.head_scoring import HeadScores, score_heads
from shrinkbench_bert.heads import attention_layers
from shrinkbench_bert.masks import Masks, apply_masks, keep_after, make_masks
from shrinkbench_bert.models import (
    load_digested,
    load_tokenizer,
    positions,
    prunable_parameters,
    set_dropout,
)
from shrinkbench_bert.passes import batches_read
from shrinkbench_bert.preflight import cell_keep
from shrinkbench_bert.scoring import Scores, add_scores, dtype_of_sums, score
from shrinkbench_bert.seeding import generator
from shrinkbench_bert.stage_files import StageFiles
from shrinkbench_bert.store import Evaluation, ResultStore, Training
from shrinkbench_bert.strategy import get_strategy
from shrinkbench_bert.tensor_file import TensorFile
from shrinkbench_bert.training import Moments, evaluate, fine_tune

Progress = Callable[[str], None]

_log = logging.getLogger(__name__)


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
        self.files = StageFiles(store, cells[0]) if store else None
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
        self.prepare_masks()

    def prepare_masks(self) -> None:
        """Make the masks of all cells that share them now, and the dense weights only if these need them."""
        if self.cell.prune_rounds is None and self._without_masks():
            self._make_masks()
        if self.files:
            self.files.remove_parts()

    def prepare_part(self, part: int) -> None:
        """Do one part of the scoring pass now, and store it, unless the masks are there already."""
        if missing := self._without_masks():
            self._part_of_scores(part, missing)

    @cached_property
    def data(self) -> TaskData:
        """The task's examples, tokenised."""
        recipe = self.cell.recipe
        with self.stage("data"):
            data = load_task(
                self.cell.task,
                self.cell.source,
                tokenizer=load_tokenizer(self.cell.model),
                train_examples=recipe.train_examples,
                eval_examples=recipe.eval_examples,
                holdout=recipe.holdout,
                max_length=min(recipe.max_length, positions(self.model)),
            )
        self._check_unchanged("source", self.cell.source, data.fingerprint, fingerprints(self.cell).data)
        return data

    @cached_property
    def model(self) -> PreTrainedModel:
        """The one model in memory; `load` puts the weights that a stage wants into it."""
        cell = self.cell
        model, found = load_digested(cell.model, cell.task, seed=cell.seed, layers=cell.layers)
        self._check_unchanged("model", cell.model, found, fingerprints(cell).model)
        if cell.recipe.dropout is not None:
            set_dropout(model, cell.recipe.dropout)
        return model.to(device=self.device)  # type: ignore[call-arg]

    @staticmethod
    def _check_unchanged(field: str, name: str, found: str, taken: str) -> None:
        """Results carry the fingerprint that this process took first: they must be of that."""
        if found != taken:
            raise UserError(f"{field} {name!r} has changed since this process first read it: start it again")

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
        stored = self.files.read_dense(self.initial) if self.files else None
        if stored is None:
            stored = self._fine_tune_dense()
            if self.files:
                self.files.write_dense(stored)
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
            self._make_masks()
            masks = self._read_masks(cell)
        assert masks is not None  # they have just been made
        return masks

    def _make_masks(self) -> None:
        """Score with every strategy whose masks are not stored, and make all amounts' masks."""
        missing = self._without_masks()
        parts = self.cell.score_parts
        if parts:
            each = (self._part_of_scores(part, missing) for part in range(parts))
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
                self._keep_masks(c, masks)

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
        if self.files and r == cell.prune_rounds:
            self.files.write_masks(cell, masks)
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

    def _part_of_scores(self, part: int, cells: Sequence[Cell]) -> dict[str, Scores]:
        """One part of the scores for some cells: stored, or made and stored."""
        parts = self.cell.score_parts
        assert parts is not None  # only then there are any
        if not self.files:
            return self._scores(cells, (part, parts))
        stored = self.files.read_part(part, cells, self._tensors_of_part(cells, part))
        if stored is None:
            scores = self._scores(cells, (part, parts))
            tensors = {f"{s}/{name}": value for s, found in scores.items() for name, value in found.items()}
            self.files.write_part(part, cells, tensors)
            return scores
        found: dict[str, Scores] = {}
        for key, value in stored.items():
            strategy, _, name = key.partition("/")
            found.setdefault(strategy, {})[name] = value.to(self.device)
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
                        formula.shape_of_sum(p.shape), dtype=dtype_of_sums(p), device="meta"
                    )
                    for name, p in parameters.items()
                }
        return expected

    def head_scores(self, cell: Cell) -> HeadScores:
        """The scores of the dense model's heads by one cell's strategy: one pass for all cells' ones."""
        if cell.strategy not in self._head_scores:
            missing = [c for c in self.cells if not self._take_head_scores(c)]
            if missing:
                scores = self.score_heads(self.load(self.dense.weights), _strategies(missing))
                self._head_scores |= scores
                if self.files:
                    for c in {c.strategy: c for c in missing}.values():
                        self.files.write_head_scores(c, self._heads(), scores[c.strategy])
        return self._head_scores[cell.strategy]

    def _take_head_scores(self, cell: Cell) -> bool:
        """Take the stored scores of a cell's strategy; say whether there are any that fit."""
        if cell.strategy not in self._head_scores and self.files:
            stored = self.files.read_head_scores(cell, self._heads())
            if stored is not None:
                self._head_scores[cell.strategy] = stored
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

    def _read_masks(self, cell: Cell) -> Masks | None:
        if not self.files:
            return self._masks.get((cell.strategy, cell.amount))
        parameters = prunable_parameters(self.model, cell.protocol)
        return self.files.read_masks(cell, {name: tuple(p.shape) for name, p in parameters.items()})

    def _keep_masks(self, cell: Cell, masks: Masks) -> None:
        if self.files:
            self.files.write_masks(cell, masks)
        else:
            self._masks[cell.strategy, cell.amount] = {n: mask.cpu() for n, mask in masks.items()}


def _strategies(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.strategy for cell in cells))
