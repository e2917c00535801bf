"""One cell of head pruning: score the heads, remove the worst for real, evaluate, fine-tune again."""

import copy

from shrinkbench_bert import cost
from shrinkbench_bert.grid import Cell
from shrinkbench_bert.head_scoring import HeadScores, heads_to_remove
from shrinkbench_bert.heads import attention_layers, remove_heads, removed_heads
from shrinkbench_bert.pruned import Pruned, joined
from shrinkbench_bert.stages import Stages
from shrinkbench_bert.store import Heads, Training
from shrinkbench_bert.training import evaluate, fine_tune


def prune_heads(cell: Cell, stages: Stages) -> Pruned:
    """Prune the dense model's heads in one round, or in several.

    With several rounds each removes an equal share, fine-tunes, and scores what is left anew for the
    next; "before retraining" is then the model after the last removal.

    Raises:
        UserError: the strategy breaks its contract.
        Diverged: a training loss is no longer finite.
    """
    assert cell.heads is not None  # only such cells come here
    data, initial = stages.data, stages.initial
    rounds = cell.head_rounds or 1
    dense_scores = scores = stages.head_scores(cell)
    model = copy.deepcopy(stages.load(stages.dense.weights))
    total = [layer.total for layer in attention_layers(model)]
    trained: list[Training] = []

    for r in range(1, rounds + 1):
        if r > 1:
            scores = stages.score_heads(model, [cell.strategy])[cell.strategy]
        fraction = cell.heads if r == rounds else cell.heads * r / rounds  # 0.35 * 3 / 3 is not 0.35
        chosen = heads_to_remove(scores, total, fraction, cell.head_scope or "global")
        remove_heads(model, chosen)
        if r == rounds:
            with stages.stage("before"):
                before = evaluate(model, data, data.validation)

        if cell.protocol.rewind == "initial":
            rewound = copy.deepcopy(stages.load(initial))
            remove_heads(rewound, removed_heads(model))
            model = rewound
        with stages.stage("retrain") as report:
            trained.append(
                fine_tune(
                    model,
                    data,
                    cell.recipe,
                    cell.protocol,
                    epochs=cell.recipe.epochs_retrain,
                    seed=cell.seed,
                    purpose="retrain" if r == 1 else f"retrain {r}",
                    report=report,
                ).training
            )
    with stages.stage("evaluate"):
        after = evaluate(model, data, data.validation)

    return Pruned(
        before,
        after,
        joined(trained),
        cost.size_without_heads(stages.model, model, stages.multiply_adds, cell.protocol),
        heads=Heads(total=total, removed=removed_heads(model), scores=_by_layer(dense_scores, total)),
    )


def _by_layer(scores: HeadScores, total: list[int]) -> list[list[float]]:
    return [[scores[layer, head] for head in range(heads)] for layer, heads in enumerate(total)]
