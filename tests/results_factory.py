"""Results built by hand, for tests of what reads them."""

from __future__ import annotations

from typing import Any

from shrinkbench_bert.grid import Cell
from shrinkbench_bert.packing import pack_numbers
from shrinkbench_bert.protocol import Protocol
from shrinkbench_bert.store import (
    Data,
    Evaluation,
    Fingerprints,
    MaskFile,
    Provenance,
    Result,
    Size,
    Training,
    digest,
)

Metrics = dict[str, float | None]

TOTAL, PRUNABLE = 22_700_000, 10_800_000
METRICS: dict[str, dict[str, Metrics]] = {
    "sst2": {
        "baseline": {"accuracy": 0.51},
        "dense": {"accuracy": 0.90},
        "before_retraining": {"accuracy": 0.60},
        "after_retraining": {"accuracy": 0.80},
    },
    "stsb": {
        "baseline": {"mse": 2.25, "pearson": None, "spearman": None},
        "dense": {"mse": 0.5, "pearson": 0.88, "spearman": 0.87},
        "before_retraining": {"mse": 3.0, "pearson": 0.1, "spearman": 0.12},
        "after_retraining": {"mse": 0.9, "pearson": 0.75, "spearman": 0.74},
    },
    "cola": {
        "baseline": {"accuracy": 0.69, "mcc": 0.0},
        "dense": {"accuracy": 0.80, "mcc": 0.5},
        "before_retraining": {"accuracy": 0.69, "mcc": 0.0},
        "after_retraining": {"accuracy": 0.72, "mcc": 0.2},
    },
}


def make_size(keep: float) -> Size:
    """A model of MiniLM's size of which the fraction `keep` of the prunable weights is left."""
    kept = round(keep * PRUNABLE)
    return Size(
        keep=kept / PRUNABLE,
        compression=TOTAL / (TOTAL - PRUNABLE + kept),
        prunable_compression=PRUNABLE / max(kept, 1),
        total=TOTAL,
        prunable=PRUNABLE,
        kept=kept,
        density={"encoder.weight": kept / PRUNABLE},
        sequence_length=128,
        multiply_adds=1_000_000,
        multiply_adds_kept=max(round(keep * 1_000_000), 1),
        theoretical_speedup=1 / keep,
    )


def keep_of(compression: float) -> float:
    """The fraction of `make_size`'s prunable weights that a compression leaves."""
    return (TOTAL / compression - (TOTAL - PRUNABLE)) / PRUNABLE


def make_evaluation(n: int, metrics: Metrics) -> Evaluation:
    """An evaluation whose predictions, for labels of 0, have this accuracy or this MSE."""
    accuracy, mse = metrics.get("accuracy"), metrics.get("mse")
    if accuracy is not None:
        wrong = round((1 - accuracy) * n) if 0 <= accuracy <= 1 else 0
        predictions = [1.0] * wrong + [0.0] * (n - wrong)
    else:
        predictions = [(mse or 0.0) ** 0.5] * n
    return Evaluation(n=n, metrics=metrics, predictions=pack_numbers(predictions))


def make_result(
    task: str = "sst2",
    strategy: str = "LayerMagWeight",
    *,
    keep: float | None = None,
    compression: float | None = None,
    seed: int = 0,
    grid: str = "hand",
    source: str = "mini-glue",
    model: str = "minilm",
    protocol: str = "sound",
    n: int = 400,
    **stages: Metrics,
) -> Result:
    """One result; `stages` (`dense`, `after_retraining`...) override some of a task's METRICS."""
    if keep is None and compression is None:
        keep = 0.147
    cell = Cell(
        task=task,
        strategy=strategy,
        keep=keep,
        compression=compression,
        seed=seed,
        source=source,
        model=model,
        protocol=Protocol.named(protocol),
    )
    fingerprints = Fingerprints(data="data", model="model", strategy="strategy")
    evaluations: dict[str, Any] = {
        stage: make_evaluation(n, {**metrics, **stages.get(stage, {})})
        for stage, metrics in METRICS[task].items()
    }
    return Result(
        digest=digest(cell, fingerprints),
        grid=grid,
        cell=cell,
        fingerprints=fingerprints,
        data=Data(train=900, holdout=100, validation=n),
        **evaluations,
        dense_training=Training(epochs=[], best_epoch=0),
        retraining=Training(epochs=[], best_epoch=0),
        size=make_size(keep_of(compression) if keep is None else keep),  # type: ignore[arg-type]
        labels=pack_numbers([0.0] * n),
        masks=MaskFile(sha256="masks", shapes={"encoder.weight": (10_000, 1080)}),
        provenance=Provenance(
            started="2024-01-01T00:00:00+00:00",
            seconds={},
            versions={},
            platform="test",
            processor="test",
            device="cpu",
            dtype="float32",
            threads=1,
            git_revision=None,
        ),
    )
