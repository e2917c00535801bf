"""One cell, as the papers' procedure: fine-tune, score, prune, rewind, fine-tune again, evaluate."""

from datetime import UTC, datetime
from typing import Any

from shrinkbench_bert import cost
from shrinkbench_bert.device import resolve_device
from shrinkbench_bert.errors import UserError, describe
from shrinkbench_bert.fingerprints import fingerprints
from shrinkbench_bert.grid import Cell
from shrinkbench_bert.head_experiment import prune_heads
from shrinkbench_bert.masks import Masks, apply_masks, pack
from shrinkbench_bert.metrics import baseline
from shrinkbench_bert.packing import pack_numbers
from shrinkbench_bert.preflight import check_cells
from shrinkbench_bert.provenance import provenance
from shrinkbench_bert.pruned import Pruned, joined
from shrinkbench_bert.stages import Stages
from shrinkbench_bert.store import Data, Evaluation, MaskFile, Result, Training, digest
from shrinkbench_bert.tensor_file import tensors_digest
from shrinkbench_bert.training import evaluate, fine_tune


class Experiment:
    """Runs one cell.

        Experiment(task="sst2", strategy="LayerGradCAMShift", keep=0.147, seed=0).run()

    Args:
        cell: the cell; or give its fields by name.
        stages: what it shares with other cells; its own if left out.
        device: `auto`, `cpu`, `cuda` or `mps`, where there are no stages given.
        **fields: of `Cell`.

    Raises:
        UserError: a field is missing, unknown, out of range or beside a whole cell, the compression is out
            of reach, the strategy breaks its contract on a made-up batch, or the device is not there.
    """

    def __init__(
        self,
        cell: Cell | None = None,
        *,
        stages: Stages | None = None,
        device: str = "auto",
        **fields: Any,
    ) -> None:
        if cell is not None and fields:
            raise UserError(f"experiment: {', '.join(fields)}: give a cell or its fields, not both")
        try:
            self.cell = cell or Cell(**fields)
        except ValueError as error:
            raise UserError(f"experiment: {describe(error)}") from error
        self.fingerprints = fingerprints(self.cell)
        if stages is None:
            check_cells([self.cell])
            stages = Stages([self.cell], device=resolve_device(device))
        self.stages = stages

    def run(self) -> Result:
        """Run the cell from its seed.

        Raises:
            UserError: the strategy breaks its contract.
            Diverged: a training loss is no longer finite.
        """
        cell, stages = self.cell, self.stages
        started = datetime.now(UTC)
        data = stages.data

        dense = stages.dense
        pruned = (prune_weights if cell.heads is None else prune_heads)(cell, stages)

        # Shared stages are counted in the first cell that follows them in this process.
        seconds, stages.seconds = stages.seconds, {}
        return Result(
            digest=digest(cell, self.fingerprints),
            cell=cell,
            fingerprints=self.fingerprints,
            data=Data(train=len(data.train), holdout=len(data.holdout), validation=len(data.validation)),
            baseline=Evaluation(
                n=len(data.validation),
                metrics=baseline(data.task, data.train.labels, data.validation.labels),
            ),
            dense=dense.evaluation,
            before_retraining=pruned.before_retraining,
            after_retraining=pruned.after_retraining,
            dense_training=dense.training,
            retraining=pruned.retraining,
            size=pruned.size,
            labels=pack_numbers(data.validation.labels),
            masks=pruned.masks,
            heads=pruned.heads,
            provenance=provenance(started, seconds, stages.model.device, stages.model.dtype),
        )


def prune_weights(cell: Cell, stages: Stages) -> Pruned:
    """Mask weights: score, mask, evaluate, rewind, fine-tune under the mask, evaluate.

    With several rounds each masks more, rewinds and fine-tunes, and scores what is left anew for the
    next; "before retraining" is then the model after the last masking.
    """
    data, initial = stages.data, stages.initial
    rounds = cell.prune_rounds or 1
    dense = stages.dense
    weights, moments = dense.weights, dense.moments
    masks: Masks = {}
    trained: list[Training] = []

    for r in range(1, rounds + 1):
        masks = stages.masks(cell) if rounds == 1 else stages.next_masks(cell, r, weights, masks)
        if r == rounds:
            with stages.stage("before"), apply_masks(stages.load(weights), masks):
                before = evaluate(stages.model, data, data.validation)

        ticket = stages.load(initial if cell.protocol.rewind == "initial" else weights)
        with stages.stage("retrain") as report, apply_masks(ticket, masks) as applied:
            retrained = fine_tune(
                ticket,
                data,
                cell.recipe,
                cell.protocol,
                epochs=cell.recipe.epochs_retrain,
                seed=cell.seed,
                purpose="retrain" if r == 1 else f"retrain {r}",
                masks=applied,
                moments=None if cell.protocol.reset_optimizer else moments,
                report=report,
            )
        trained.append(retrained.training)
        if r < rounds:
            weights = {name: tensor.clone() for name, tensor in ticket.state_dict().items()}
            moments = retrained.moments

    with stages.stage("evaluate"):
        after = evaluate(ticket, data, data.validation)

    return Pruned(
        before,
        after,
        joined(trained),
        cost.size(ticket, masks, stages.multiply_adds),
        masks=MaskFile(
            sha256=tensors_digest(pack(masks)),
            shapes={name: tuple(mask.shape) for name, mask in masks.items()},
        ),
    )
