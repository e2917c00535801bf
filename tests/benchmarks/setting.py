"""What all benchmarks share: the model, the data, and the papers' strategies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from transformers import PreTrainedModel

from shrinkbench_bert import load_model, load_task, load_tokenizer
from shrinkbench_bert.data import Batch, TaskData, collate, training_batches
from shrinkbench_bert.grid import Recipe
from shrinkbench_bert.protocol import Protocol

CLEAN = ["GlobalMagGrad", "LayerMagGrad", "LayerGradCAM", "LayerGradCAMShift"]
SMOOTHED = ["LayerSmoothGrad", "LayerSmoothGradCAM", "LayerSmoothGradCAMShift"]
PAPER = [
    *("GlobalMagWeight", "LayerMagWeight", "LayerMagGrad"),
    *("LayerGradCAM", "LayerGradCAMShift", *SMOOTHED),
]


@dataclass(frozen=True)
class Setting:
    """MiniLM on SST-2 in batches of 16, as the released code was measured."""

    source: str = "mini-glue"
    model_name: str = "minilm"
    task: str = "sst2"
    examples: int = 640
    batch_size: int = 16

    def model(self, **changes: int) -> PreTrainedModel:
        """The pretrained model, anew."""
        return load_model(self.model_name, self.task, **changes)

    @cached_property
    def data(self) -> TaskData:
        """The task."""
        return load_task(
            self.task,
            self.source,
            tokenizer=load_tokenizer(self.model_name),
            train_examples=self.examples,
            eval_examples=200,
        )

    def recipe(self, **changes: object) -> Recipe:
        """One epoch at a constant learning rate."""
        return Recipe(
            epochs_dense=1, epochs_retrain=1, batch_size=self.batch_size, schedule="constant", lr=1e-4
        ).model_copy(update=changes)

    @property
    def protocol(self) -> Protocol:
        """No evaluation in the loop, for the loops compared have none."""
        return Protocol.named("sound", selection="last")

    def grouped(self, n: int) -> list[Batch]:
        """Our batches: shuffled, of similar length."""
        order = torch.Generator().manual_seed(0)
        return list(training_batches(self.data.train, self.data.pad_token_id, self.batch_size, order, True))[
            :n
        ]

    def random_order(self, n: int) -> list[Batch]:
        """The usual batches: shuffled, padded to their longest member."""
        order = torch.randperm(len(self.data.train), generator=torch.Generator().manual_seed(0)).tolist()
        starts = range(0, len(order) - self.batch_size + 1, self.batch_size)
        rows = (order[start : start + self.batch_size] for start in starts)
        return [collate(self.data.train, some, self.data.pad_token_id) for some in rows][:n]
