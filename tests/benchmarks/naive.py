"""The ways that we are compared with: the released code's, the plain loop, the library's Trainer."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable

import torch
from datasets import Dataset
from setting import Setting
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DataCollatorWithPadding, PreTrainedModel, Trainer, TrainingArguments

from shrinkbench_bert import load_tokenizer
from shrinkbench_bert.data import Batch, collate

ETA = 10
SHIFT = 10.0


def loss_of(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Cross-entropy of one batch."""
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    return F.cross_entropy(model(**inputs).logits, batch["labels"].long())


def train(model: PreTrainedModel, setting: Setting, masks: dict[str, Tensor] | None = None) -> None:
    """One epoch: random order, every parameter under a plain AdamW, the loss read at each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    parameters = dict(model.named_parameters())
    model.train()
    order = torch.randperm(len(setting.data.train)).tolist()
    for start in range(0, len(order), setting.batch_size):
        rows = order[start : start + setting.batch_size]
        loss = loss_of(model, collate(setting.data.train, rows, setting.data.pad_token_id))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        for name, mask in (masks or {}).items():
            parameters[name].data.mul_(mask)


def train_with_trainer(model: PreTrainedModel, setting: Setting) -> None:
    """One epoch of the library's Trainer with its default settings."""
    split = setting.data.train
    rows = [
        {**encoded, "labels": int(label)} for encoded, label in zip(split.encoded, split.labels, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=setting.batch_size,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            logging_strategy="no",
        )
        tokenizer = load_tokenizer(setting.model_name)
        collator = DataCollatorWithPadding(tokenizer)
        Trainer(model, arguments, train_dataset=Dataset.from_list(rows), data_collator=collator).train()


def scores(model: PreTrainedModel, batches: Iterable[Batch], strategy: str) -> dict[str, Tensor]:
    """Score with one strategy alone, as the released code does: every parameter gets its gradient, and the
    activations, where the formula has any, a forward of their own."""
    cam, smooth = "CAM" in strategy, "Smooth" in strategy
    shift = SHIFT if "Shift" in strategy else 0.0
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    parameters = {name: p for name, p in model.named_parameters() if "embeddings" not in name}
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    model.eval()
    for batch in batches:
        means = _activations(model, batch, linears) if cam else {}
        mean_gradient = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for _ in range(ETA if smooth else 1):
            handles = [m.register_forward_hook(_noise) for m in linears.values()] if smooth else []
            model.zero_grad()
            loss_of(model, batch).backward()
            for handle in handles:
                handle.remove()
            for name, parameter in parameters.items():
                if parameter.grad is not None:
                    mean_gradient[name] += parameter.grad / (ETA if smooth else 1)
        for name, parameter in parameters.items():
            value = parameter.detach() * mean_gradient[name]
            mean = means.get(name.rpartition(".")[0])
            if mean is not None:
                value = value * (mean.view(-1, *[1] * (value.dim() - 1)) + shift)
            total[name] += value.abs()
    return total


def _noise(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return output + 0.1 * torch.randn_like(output)


def _activations(model: PreTrainedModel, batch: Batch, linears: dict[str, nn.Linear]) -> dict[str, Tensor]:
    means: dict[str, Tensor] = {}

    def record(name: str, output: Tensor) -> None:
        means[name] = output.flatten(0, -2).mean(0)

    handles = [
        m.register_forward_hook(lambda module, inputs, output, name=name: record(name, output))
        for name, m in linears.items()
    ]
    with torch.no_grad():
        loss_of(model, batch)
    for handle in handles:
        handle.remove()
    return means
