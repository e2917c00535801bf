"""Fine-tuning, the data it sees, the metrics it is judged by, what a model costs, and stored tensors."""

from __future__ import annotations

import copy
import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.metrics
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shrinkbench_bert import UserError, load_model, load_task, load_tokenizer, make_masks, training
from shrinkbench_bert.cost import MultiplyAdds, count_multiply_adds, size
from shrinkbench_bert.data import Split, TaskData, collate, evaluation_batches, training_batches
from shrinkbench_bert.grid import Grid, Recipe
from shrinkbench_bert.metrics import baseline, evaluate_predictions
from shrinkbench_bert.models import prunable_parameters
from shrinkbench_bert.objective import loss, predict
from shrinkbench_bert.protocol import Protocol
from shrinkbench_bert.runner import run_grid
from shrinkbench_bert.seeding import derive, generator
from shrinkbench_bert.store import Evaluation, Result, ResultStore
from shrinkbench_bert.tasks import get_task
from shrinkbench_bert.tensor_file import TensorFile, read_tensors, write_tensors
from shrinkbench_bert.training import Diverged, evaluate, fine_tune
from shrinkbench_bert.vocabulary import used_rows_only

LAST = Protocol.named("sound", selection="last")
CONSTANT = Recipe(batch_size=8, lr=1e-3, schedule="constant", warmup=0.0)


@pytest.fixture(params=["sst2", "stsb"])
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def data(task: str, tiny_checkpoint: Path, tiny_glue: Path) -> TaskData:
    return load_task(task, str(tiny_glue), tokenizer=load_tokenizer(str(tiny_checkpoint)))


@pytest.fixture
def model(task: str, make_model) -> PreTrainedModel:
    """In float64 and without dropout, so that another loop can be held against it closely."""
    return make_model("bert", task).double()


# ---- training without the unused vocabulary ------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "electra"])
def test_unused_rows_change_neither_outputs_nor_gradients(make_model, make_batches, kind: str):
    plain = make_model(kind)
    swapped = copy.deepcopy(plain)
    (batch,) = make_batches(plain, n=1)
    labels = batch.pop("labels")
    batch["attention_mask"][:] = 1  # so that the padding's embedding would get a gradient
    expected = plain(**batch).logits
    nn.functional.cross_entropy(expected, labels).backward()
    used = batch["input_ids"].unique()
    with used_rows_only(swapped, batch["input_ids"].flatten().flip(0)):
        embedding = swapped.get_input_embeddings().weight
        assert len(embedding) == len(used) < 99
        logits = swapped(**batch).logits
        nn.functional.cross_entropy(logits, labels).backward()
        assert torch.equal(logits, expected)
        full = plain.get_input_embeddings().weight.grad
        assert torch.equal(embedding.grad, full[used])
        assert full.count_nonzero() == full[used].count_nonzero() > 0
        others = dict(plain.named_parameters())
        for name, p in swapped.named_parameters():
            if "word_embeddings" not in name and p.grad is not None:
                assert torch.equal(p.grad, others[name].grad), name


@pytest.mark.parametrize("fails", [False, True])
def test_the_embedding_comes_back_with_what_was_learnt(make_model, fails: bool):
    model = make_model()
    embedding = model.get_input_embeddings()
    parameter, before = embedding.weight, embedding.weight.detach().clone()
    try:
        with used_rows_only(model, torch.tensor([7, 5, 7])):
            with torch.no_grad():
                embedding.weight += 1
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert embedding.weight is parameter
    assert embedding.padding_idx == 0
    assert not embedding._forward_pre_hooks
    expected = before.clone()
    expected[[0, 5, 7]] += 1  # 0 is the padding, always there
    assert torch.equal(embedding.weight, expected)


# ---- the loop ------------------------------------------------------------------------------------


def plain_loop(
    model: PreTrainedModel,
    data: TaskData,
    recipe: Recipe,
    purposes: list[str],
    optimizer: torch.optim.Optimizer,
    epochs: int,
) -> None:
    """The same batches and nothing else of the engine's: whole vocabulary, rate by hand, loss by hand."""
    per_epoch = math.ceil(len(data.train) / recipe.batch_size)
    for purpose in purposes:
        shuffle, step, steps = generator(3, purpose, "order"), 0, epochs * per_epoch
        warmup = round(recipe.warmup * steps)
        for _ in range(epochs):
            for batch in training_batches(data.train, data.pad_token_id, recipe.batch_size, shuffle, True):
                if step < warmup:
                    rate = (step + 1) / (warmup + 1)
                else:
                    rate = 1 if recipe.schedule == "constant" else (steps - step) / (steps - warmup)
                optimizer.param_groups[0]["lr"] = rate * recipe.lr
                labels = batch.pop("labels")
                logits = model(**batch).logits
                if data.task.regression:
                    value = ((5 / (1 + torch.exp(-logits[:, 0])) - labels) ** 2).mean()
                else:
                    value = -logits.log_softmax(1)[range(len(labels)), labels.long()].mean()
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                step += 1


def assert_same_weights(found: nn.Module, expected: nn.Module, **tolerance: float) -> None:
    others = dict(expected.named_parameters())
    for name, p in found.named_parameters():
        torch.testing.assert_close(p, others[name], **{"rtol": 1e-7, "atol": 1e-9, **tolerance})


@pytest.mark.parametrize(
    ("recipe", "protocol"),
    [
        (Recipe(batch_size=8, lr=1e-3, warmup=0.3), LAST),
        (CONSTANT, LAST),
        (CONSTANT, Protocol.named("released")),
    ],
)
def test_fine_tune_is_a_plain_loop(model, data, recipe: Recipe, protocol: Protocol):
    expected = copy.deepcopy(model)
    kind = torch.optim.AdamW if protocol.optimizer == "adamw" else torch.optim.Adam
    optimizer = kind(expected.parameters(), betas=protocol.betas, weight_decay=0.0)
    plain_loop(expected, data, recipe, ["dense"], optimizer, 2)
    fine_tune(model, data, recipe, protocol, epochs=2, seed=3, purpose="dense")
    assert_same_weights(model, expected)


def test_weight_decay_spares_only_rows_that_no_example_uses(model, data):
    expected, before = copy.deepcopy(model), copy.deepcopy(model)
    recipe = CONSTANT.model_copy(update={"weight_decay": 0.1})
    optimizer = torch.optim.AdamW(expected.parameters(), weight_decay=0.1)
    plain_loop(expected, data, recipe, ["dense"], optimizer, 1)
    fine_tune(model, data, recipe, LAST, epochs=1, seed=3, purpose="dense")
    rows = torch.zeros(99).bool()
    rows[data.token_ids] = True
    found, plain, old = (m.get_input_embeddings().weight for m in (model, expected, before))
    torch.testing.assert_close(found[rows], plain[rows], rtol=1e-7, atol=1e-9)
    assert torch.equal(found[~rows], old[~rows])
    with torch.no_grad():
        plain[~rows] = old[~rows]
    assert_same_weights(model, expected)


def test_the_optimisers_state_is_carried_over(model, data):
    """As one optimiser that goes on; without it Adam starts anew."""
    expected, fresh = copy.deepcopy(model), copy.deepcopy(model)
    optimizer = torch.optim.AdamW(expected.parameters(), weight_decay=0.0)
    plain_loop(expected, data, CONSTANT, ["dense", "retrain"], optimizer, 1)
    for tuned, carried in ((model, True), (fresh, False)):
        dense = fine_tune(tuned, data, CONSTANT, LAST, epochs=1, seed=3, purpose="dense")
        before = {n: {k: v.clone() for k, v in state.items()} for n, state in dense.moments.items()}
        moments = dense.moments if carried else None
        fine_tune(tuned, data, CONSTANT, LAST, epochs=1, seed=3, purpose="retrain", moments=moments)
        for name, state in before.items():  # for the next cell
            assert all(torch.equal(dense.moments[name][kind], value) for kind, value in state.items())
    assert_same_weights(model, expected)
    with pytest.raises(AssertionError):
        assert_same_weights(fresh, expected, rtol=1e-3)


def test_a_seed_decides_the_training(make_model, tiny_checkpoint, tiny_glue):
    data = load_task("sst2", str(tiny_glue), tokenizer=load_tokenizer(str(tiny_checkpoint)))

    def tuned(seed: int, purpose: str = "dense") -> Tensor:
        model = load_model(str(tiny_checkpoint), "sst2")  # with dropout
        fine_tune(model, data, CONSTANT, LAST, epochs=1, seed=seed, purpose=purpose)
        return model.bert.pooler.dense.weight

    first = tuned(0)
    torch.manual_seed(77)
    assert torch.equal(tuned(0), first)
    assert not torch.equal(tuned(1), first)
    assert not torch.equal(tuned(0, "retrain"), first)


def test_no_epoch_changes_nothing(model, data):
    before = copy.deepcopy(model)
    tuned = fine_tune(model, data, CONSTANT, Protocol(), epochs=0, seed=0, purpose="retrain")
    assert tuned.training.best_epoch == 0
    assert tuned.training.epochs == []
    assert_same_weights(model, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("warmup", "schedule", "rates"),
    [
        (0.0, "constant", [1, 1, 1, 1, 1]),
        (0.0, "linear", [1, 4 / 5, 3 / 5, 2 / 5, 1 / 5]),
        (0.4, "linear", [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
        (0.4, "constant", [1 / 3, 2 / 3, 1, 1, 1]),
    ],
)
def test_the_rate_of_five_steps_by_hand(warmup: float, schedule: Any, rates: list[float]):
    rate = training._rate(Recipe(warmup=warmup, schedule=schedule), 5)
    assert [rate(step) for step in range(5)] == pytest.approx(rates)


# ---- the best epoch ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "metrics", "best"),
    [
        ("holdout", {"sst2": [0.5, 0.9, 0.8], "stsb": [3.0, 1.0, 2.0]}, 2),
        ("validation", {"sst2": [0.9, 0.5, 0.8], "stsb": [1.0, 3.0, 2.0]}, 1),
        ("holdout", {"sst2": [0.5, 0.9, 0.9], "stsb": [3.0, 1.0, 1.0]}, 2),  # the earliest of equal ones
        ("last", {"sst2": [], "stsb": []}, 3),
    ],
)
def test_the_best_epochs_weights_are_left(
    model, data, task: str, selection: Any, metrics: dict, best: int, monkeypatch: pytest.MonkeyPatch
):
    values, splits = list(metrics[task]), []

    def scripted(model: PreTrainedModel, data: TaskData, split: Split) -> Evaluation:
        splits.append(split)
        return Evaluation(n=len(split), metrics={data.task.metric: values.pop(0)})

    expected = copy.deepcopy(model)
    fine_tune(expected, data, CONSTANT, LAST, epochs=best, seed=0, purpose="dense")
    monkeypatch.setattr(training, "evaluate", scripted)
    protocol = Protocol.named("sound", selection=selection)
    tuned = fine_tune(model, data, CONSTANT, protocol, epochs=3, seed=0, purpose="dense")
    assert tuned.training.best_epoch == best
    assert len(tuned.training.epochs) == 3
    assert_same_weights(model, expected, rtol=0, atol=0)
    if selection == "last":
        assert splits == []
        assert [epoch.selection for epoch in tuned.training.epochs] == [None] * 3
    else:
        assert len(splits) == 3
        assert all(split is getattr(data, selection) for split in splits)


@pytest.mark.parametrize("task", ["sst2"])  # as many classes as CoLA, which stands in its place
@pytest.mark.parametrize(("metric", "best"), [(None, 1), ("accuracy", 1), ("mcc", 2)])
def test_the_recipes_metric_chooses_the_epoch(
    model, data, metric: str | None, best: int, monkeypatch: pytest.MonkeyPatch
):
    scripted = iter(
        [{"accuracy": 0.9, "mcc": 0.1}, {"accuracy": 0.8, "mcc": 0.3}, {"accuracy": 0.7, "mcc": 0.2}]
    )
    monkeypatch.setattr(
        training, "evaluate", lambda model, data, split: Evaluation(n=len(split), metrics=next(scripted))
    )
    recipe = CONSTANT.model_copy(update={"metric_for_best_model": metric})
    cola = dataclasses.replace(data, task=get_task("cola"))
    tuned = fine_tune(model, cola, recipe, Protocol(), epochs=3, seed=0, purpose="dense")
    assert tuned.training.best_epoch == best


@pytest.mark.parametrize(
    ("values", "best"), [([None, 0.1, None], 2), ([None, None, None], 1), ([-0.2, None, -0.3], 1)]
)
@pytest.mark.parametrize("task", ["stsb"])
def test_the_correlation_of_a_constant_is_the_worst(
    model, data, values: list[float | None], best: int, monkeypatch: pytest.MonkeyPatch
):
    scripted = iter([{"mse": 1.0, "pearson": value} for value in values])
    monkeypatch.setattr(
        training, "evaluate", lambda model, data, split: Evaluation(n=len(split), metrics=next(scripted))
    )
    recipe = CONSTANT.model_copy(update={"metric_for_best_model": "pearson"})
    tuned = fine_tune(model, data, recipe, Protocol(), epochs=3, seed=0, purpose="dense")
    assert tuned.training.best_epoch == best


def test_a_loss_that_is_no_number_stops_the_run(model, data):
    with torch.no_grad():
        model.classifier.bias.fill_(math.nan)
    with pytest.raises(Diverged, match="nan"):
        fine_tune(model, data, CONSTANT, LAST, epochs=1, seed=0, purpose="dense")


@pytest.mark.parametrize("selection", ["last", "holdout"])
def test_a_last_step_that_diverges_stops_the_run_too(model, data, selection: Any):
    """One step of a huge rate: its own loss is still finite, the weights after it are not."""
    recipe = Recipe(batch_size=len(data.train), lr=1e308, warmup=0.0)
    protocol = Protocol.named("sound", selection=selection)
    with pytest.raises(Diverged):
        fine_tune(model, data, recipe, protocol, epochs=1, seed=0, purpose="dense")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_no_numbers_are_not_evaluated(model, data, task: str, value: float):
    """Of classes too: the largest of two NaNs is the first."""
    with torch.no_grad():
        model.classifier.bias[-1] = value
    with pytest.raises(Diverged, match=f"prediction of {task}"):
        evaluate(model, data, data.validation)


# ---- evaluation ----------------------------------------------------------------------------------


def test_evaluate_against_one_example_at_a_time(model, data, task: str):
    model.train()
    found = evaluate(model, data, data.validation)
    labels = np.array(data.validation.labels)
    predictions = []
    for row in data.validation.encoded:
        ids = {key: torch.tensor([value]) for key, value in row.items()}
        logits = model.eval()(**ids).logits[0].detach()
        predictions.append(float(5 / (1 + torch.exp(-logits[0]))) if task == "stsb" else int(logits.argmax()))
    assert found.n == len(labels) == 24
    if task == "stsb":
        assert found.metrics["mse"] == pytest.approx(np.mean((labels - predictions) ** 2), rel=1e-5)
        assert found.metrics["pearson"] == pytest.approx(np.corrcoef(labels, predictions)[0, 1], rel=1e-4)
    else:
        assert found.metrics == {"accuracy": np.mean(labels == predictions)}


def test_losses_and_predictions_by_hand():
    sst2, stsb = get_task("sst2"), get_task("stsb")
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])  # softmax 1/4, 3/4 and 1/2, 1/2
    assert predict(sst2, logits).tolist() == [1, 0]
    for reduction in ("mean", "sum"):  # cross-entropy is always the mean
        found = loss(sst2, logits, torch.tensor([1.0, 0.0]), reduction)
        assert float(found) == pytest.approx((-math.log(3 / 4) - math.log(1 / 2)) / 2)
    logits, labels = torch.tensor([[0.0], [math.log(4)]]), torch.tensor([2.0, 5.0])
    assert predict(stsb, logits).tolist() == pytest.approx([2.5, 4.0])
    assert float(loss(stsb, logits, labels)) == pytest.approx((0.25 + 1) / 2)
    assert float(loss(stsb, logits, labels, "sum")) == pytest.approx(1.25)


# ---- data ----------------------------------------------------------------------------------------


def everything(data: TaskData) -> list[tuple[str, ...]]:
    return data.train.text + data.holdout.text + data.validation.text


def test_holdout_and_train_are_all_of_train(data, task: str, tiny_glue):
    table = pd.read_parquet(tiny_glue / task / "train-00000-of-00001.parquet")
    columns = ["sentence1", "sentence2"] if task == "stsb" else ["sentence"]
    whole = sorted(zip(*(table[c] for c in columns), table["label"].astype(float), strict=True))
    parts = [data.train, data.holdout]
    assert whole == sorted((*t, y) for part in parts for t, y in zip(part.text, part.labels, strict=True))
    assert (len(data.train), len(data.holdout), len(data.validation)) == (43, 5, 24)


def test_a_subset_is_the_same_every_time_and_only_smaller(task: str, tiny_glue):
    small, again = (load_task(task, str(tiny_glue), train_examples=20, eval_examples=7) for _ in range(2))
    whole = load_task(task, str(tiny_glue))
    assert (len(small.train), len(small.holdout), len(small.validation)) == (18, 2, 7)
    assert small.fingerprint == again.fingerprint != whole.fingerprint
    assert set(small.validation.text) <= set(whole.validation.text)
    assert set(small.train.text + small.holdout.text) <= set(whole.train.text + whole.holdout.text)
    more = load_task(task, str(tiny_glue), train_examples=10**6)
    assert more.fingerprint == whole.fingerprint


def test_collate_by_hand():
    encoded = [
        {"input_ids": [2, 9, 3], "token_type_ids": [0, 0, 1]},
        {"input_ids": [2, 3], "token_type_ids": [0, 1]},
        {"input_ids": [2, 8, 8, 3], "token_type_ids": [0, 0, 1, 1]},
    ]
    split = Split([("a",), ("b",), ("c",)], [1.0, 0.0, 2.5], encoded)
    batch = collate(split, [2, 1], pad_token_id=7)
    assert {key: value.tolist() for key, value in batch.items()} == {
        "input_ids": [[2, 8, 8, 3], [2, 3, 7, 7]],
        "attention_mask": [[1, 1, 1, 1], [1, 1, 0, 0]],
        "token_type_ids": [[0, 0, 1, 1], [0, 1, 0, 0]],
        "labels": [2.5, 0.0],
    }
    assert batch["input_ids"].dtype == torch.int64
    assert batch["labels"].dtype == torch.float32


def numbered(n: int) -> Split:
    """Examples of various lengths whose labels are their numbers."""
    rows = [{"input_ids": [2] + [5] * (i * 7 % 11) + [3]} for i in range(n)]
    return Split([(str(i),) for i in range(n)], [float(i) for i in range(n)], rows)


@pytest.mark.parametrize("grouped", [False, True])
def test_an_epoch_holds_every_example_once(grouped: bool):
    def epoch(random: torch.Generator) -> list[list[float]]:
        return [b["labels"].tolist() for b in training_batches(numbered(43), 0, 8, random, grouped)]

    random = generator(0, "order")
    first, second = epoch(random), epoch(random)
    assert sorted(len(batch) for batch in first) == [3, 8, 8, 8, 8, 8]
    for batches in (first, second):
        assert sorted(label for batch in batches for label in batch) == [float(i) for i in range(43)]
    assert first != second
    assert first == epoch(generator(0, "order"))


def test_grouping_by_length_saves_padding():
    def padding(grouped: bool) -> int:
        batches = training_batches(numbered(200), 0, 8, generator(0, "order"), grouped)
        return sum(int((b["attention_mask"] == 0).sum()) for b in batches)

    assert padding(True) < padding(False) / 4


def test_evaluation_batches_hold_every_example_once():
    seen = [
        pair
        for i, b in evaluation_batches(numbered(43), 0, 8)
        for pair in zip(i, b["labels"].tolist(), strict=True)
    ]
    assert sorted(seen) == [(i, float(i)) for i in range(43)]


def test_real_glue_is_read_by_the_same_call(shared_glue):
    data = load_task("cola", str(shared_glue))
    assert len(data.train) + len(data.holdout) == 8551
    assert len(data.validation) == 1043
    assert sum(data.validation.labels) == 719
    found = baseline(data.task, data.train.labels, data.validation.labels)
    assert found == {"accuracy": pytest.approx(719 / 1043), "mcc": 0.0}


def damaged(folder: Path, glue: Path, damage: str) -> None:
    """Copy sst2 with one thing wrong."""
    (folder / "sst2").mkdir()
    (folder / "README.md").write_text((glue / "README.md").read_text())
    for split in ("train", "validation"):
        file = f"sst2/{split}-00000-of-00001.parquet"
        table = pd.read_parquet(glue / file)
        if damage == "column" or (damage == "column in one split" and split == "validation"):
            table = table.rename(columns={"sentence": "text"})
        if damage == "label" and split == "validation":
            table["label"] = [-1] + [0] * (len(table) - 1)
        if damage == "null label":
            table["label"] = [None] + [0.0] * (len(table) - 1)
        if damage == "half a class":
            table["label"] = [0.5] + [0.0] * (len(table) - 1)
        if damage == "null text":
            table.loc[0, "sentence"] = None
        if damage == "split" and split == "validation":
            continue
        table.to_parquet(folder / file, index=False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("split", r"source '.*', task 'sst2'.*validation"),
        ("column", r"source '.*', task 'sst2', split 'train': no column 'sentence'; found text, label"),
        ("column in one split", r"source '.*', task 'sst2'.*'sentence'"),
        ("label", r"source '.*', task 'sst2', split 'validation', row 0: label -1 .*0 to 1"),
        ("half a class", r"task 'sst2', split 'train', row 0: label 0\.5 .*0 to 1"),
        ("null text", r"task 'sst2', split 'train', row 0: sentence .*None"),
        ("null label", r"source '.*', task 'sst2', split 'train'.*label"),
    ],
)
def test_a_damaged_data_set(tiny_glue, tmp_path: Path, damage: str, message: str):
    damaged(tmp_path, tiny_glue, damage)
    with pytest.raises(UserError, match=message) as error:
        load_task("sst2", str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_source_that_is_not_there(tmp_path: Path):
    with pytest.raises(UserError, match="no such folder"):
        load_task("sst2", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"'nobody/nothing'.*the hub cannot be reached"):
        load_task("sst2", "nobody/nothing")


def test_too_few_examples(tiny_glue):
    with pytest.raises(UserError, match="1 examples are too few"):
        load_task("sst2", str(tiny_glue), train_examples=1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"train_examples": 0}, "train_examples = 0: .*greater than 0"),
        ({"eval_examples": -3}, "eval_examples = -3: .*greater than 0"),
        ({"holdout": 0}, "holdout = 0: .*greater than 0"),
        ({"holdout": -1}, "holdout = -1: .*greater than 0"),
        ({"holdout": 1.0}, r"holdout = 1\.0: .*less than 1"),
        ({"holdout": math.nan}, "holdout = nan: .*finite"),
        ({"max_length": 7}, "max_length = 7: .*greater than or equal to 8"),
        ({"max_length": "long"}, "max_length = 'long': .*valid integer"),
    ],
)
def test_a_number_out_of_range_is_refused_as_in_a_grid(setting: dict, message: str):
    with pytest.raises(UserError, match=f"load_task: {message}"):
        load_task("sst2", "/nowhere", **setting)
    with pytest.raises(ValueError, match=next(iter(setting))):
        Recipe(**setting)


# ---- seeds ---------------------------------------------------------------------------------------


def test_seeds_are_pinned():
    """A change here would change every stored result: SHA-256 of '0/noise/17', first 63 bits."""
    import hashlib

    digest = hashlib.sha256(b"0/noise/17").hexdigest()
    assert derive(0, "noise", 17) == int(digest[:16], 16) // 2
    assert derive(0, "noise", 17) != derive(0, "noise", 18) != derive(1, "noise", 18)


# ---- metrics -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_metrics_against_scipy_and_sklearn(seed: int):
    random = np.random.default_rng(seed)
    labels, predictions = random.integers(0, 2, (2, 50))
    assert evaluate_predictions(get_task("cola"), labels, predictions) == {
        "accuracy": pytest.approx((labels == predictions).mean()),
        "mcc": pytest.approx(sklearn.metrics.matthews_corrcoef(labels, predictions)),
    }
    assert evaluate_predictions(get_task("sst2"), labels, predictions).keys() == {"accuracy"}
    labels, predictions = random.uniform(0, 5, (2, 50)).round(1)  # with ties
    assert evaluate_predictions(get_task("stsb"), labels, predictions) == {
        "mse": pytest.approx(((labels - predictions) ** 2).mean()),
        "pearson": pytest.approx(scipy.stats.pearsonr(labels, predictions)[0]),
        "spearman": pytest.approx(scipy.stats.spearmanr(labels, predictions)[0]),
    }


def test_metrics_by_hand():
    # 3 true positives, 1 false positive, 1 false negative, 2 true negatives.
    labels, predictions = [1, 1, 1, 0, 1, 0, 0], [1, 1, 1, 1, 0, 0, 0]
    found = evaluate_predictions(get_task("cola"), labels, predictions)
    assert found["accuracy"] == pytest.approx(5 / 7)
    assert found["mcc"] == pytest.approx((3 * 2 - 1 * 1) / math.sqrt(4 * 4 * 3 * 3))
    found = evaluate_predictions(get_task("stsb"), [0, 1, 2, 5], [0, 1, 4, 3])
    assert found["mse"] == 2.0
    assert found["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))  # ranks 1 2 3 4 and 1 2 4 3


@pytest.mark.parametrize("seed", [0, 1])
def test_a_constant_has_no_correlation(seed: int):
    constant, other = [2.5] * 4, [0.0, 1.0, 2.0, 3.0]
    pair = (constant, other) if seed else (other, constant)
    found = evaluate_predictions(get_task("stsb"), *pair)
    assert found["pearson"] is found["spearman"] is None
    assert found["mse"] == pytest.approx((6.25 + 2.25 + 0.25 + 0.25) / 4)
    assert evaluate_predictions(get_task("cola"), [0, 1, 1], [1, 1, 1])["mcc"] == 0.0


def test_the_baseline_is_trainings_majority_or_mean():
    assert baseline(get_task("cola"), [1, 1, 0], [0, 0, 0, 1]) == {"accuracy": 0.25, "mcc": 0.0}
    assert baseline(get_task("sst2"), [0, 0, 1], [0, 0, 0, 1]) == {"accuracy": 0.75}
    found = baseline(get_task("stsb"), [1.0, 3.0], [0.0, 4.0])  # the mean is 2
    assert found == {"mse": 4.0, "pearson": None, "spearman": None}


# ---- cost ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [10, 40])
def test_multiply_adds_by_hand(make_model, length: int):
    model = make_model()
    model.set_attn_implementation("sdpa")
    linears = length * (4 * 16 * 16 + 2 * 16 * 24)
    attention = 2 * length * length * 16  # queries with keys, weights with values; heads share the 16
    found = count_multiply_adds(model, length)
    assert found.total == 2 * (linears + attention) + 16 * 16 + 16 * 2
    assert found.by_module["bert.encoder.layer.0.intermediate.dense"] == length * 16 * 24
    assert found.by_module["bert.pooler.dense"] == 16 * 16
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_multiply_adds_of_a_model_with_few_positions(make_model, kind: str):
    """The length stays within the positions that a model has (RoBERTa's start behind its padding id)."""
    assert count_multiply_adds(make_model(kind)).total > 0


def test_size_by_hand(make_model):
    model = make_model()
    dense = count_multiply_adds(model, 10)
    masks = {n: torch.ones(p.shape).bool() for n, p in prunable_parameters(model, Protocol()).items()}
    query, bias = "bert.encoder.layer.0.attention.self.query.weight", "bert.encoder.layer.1.output.dense.bias"
    masks[query][:, 4:] = False  # a quarter of 256 stays
    masks[bias][:] = False  # biases cost no multiply-adds
    found = size(model, masks, dense)
    kept = 4064 - 192 - 16
    assert (found.total, found.prunable, found.kept) == (6514, 4064, kept)
    assert found.keep == pytest.approx(kept / 4064)
    assert found.compression == pytest.approx(6514 / (6514 - 208))
    assert found.prunable_compression == pytest.approx(4064 / kept)
    assert (found.density[query], found.density[bias]) == (0.25, 0.0)
    saved = 10 * 256 * 3 // 4
    assert found.multiply_adds_kept == dense.total - saved
    assert found.theoretical_speedup == pytest.approx(dense.total / (dense.total - saved))


def test_size_when_nothing_is_kept(make_model):
    """A keep in (0, 1] may be so low that k rounds to 0."""
    model = make_model()
    scores = {n: p.detach().abs() for n, p in prunable_parameters(model, Protocol()).items()}
    masks = make_masks(scores, 1e-5, "layer")
    with pytest.raises(UserError, match="keep nothing"):
        size(model, masks, MultiplyAdds(128, 1000, {n.removesuffix(".weight"): 10 for n in masks}))


# ---- stored tensors ------------------------------------------------------------------------------

CONTENT = TensorFile(
    {"weights/a": torch.arange(6.0).view(2, 3), "mask": torch.tensor([1, 255]).byte()}, {"n": [1]}
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "dense.safetensors"
    write_tensors(path, CONTENT, "inputs v1")
    return path


def test_what_is_written_is_read(file: Path):
    found = read_tensors(file, "inputs v1")
    assert found is not None
    assert found.facts == {"n": [1]}
    assert found.tensors.keys() == CONTENT.tensors.keys()
    assert all(torch.equal(found.tensors[name], t) for name, t in CONTENT.tensors.items())
    assert [p.name for p in file.parent.iterdir()] == ["dense.safetensors"]


def test_an_outdated_file_is_not_used(file: Path):
    assert read_tensors(file, "inputs v2") is None
    assert read_tensors(file.with_name("absent.safetensors"), "inputs v1") is None


@pytest.mark.parametrize("keep", [0, 4, 8, 50, 0.5, -1])
def test_a_truncated_file_is_not_used(file: Path, keep: float):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(keep * len(whole)) if 0 < keep < 1 else keep])
    assert read_tensors(file, "inputs v1") is None


def test_a_file_with_any_bit_of_its_values_turned_is_not_used(file: Path):
    whole = file.read_bytes()
    values = 6 * 4 + 2
    for position in range(len(whole) - values, len(whole)):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert read_tensors(file, "inputs v1") is None
    file.write_bytes(whole)
    assert read_tensors(file, "inputs v1") is not None


def test_rubbish_is_not_used(file: Path):
    file.write_bytes(b"\xff" * 1000)
    assert read_tensors(file, "inputs v1") is None
    file.write_text("{}")
    assert read_tensors(file, "inputs v1") is None


def test_data_that_changes_while_a_run_reads_it(
    tiny_checkpoint: Path, tiny_glue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second seed's cell would carry the fingerprint of what the first one read."""
    source, save = tmp_path / "glue", ResultStore.save
    shutil.copytree(tiny_glue, source)

    def save_and_edit(store: ResultStore, result: Result) -> Path:
        file = source / "sst2" / "validation-00000-of-00001.parquet"
        table = pd.read_parquet(file)
        table.assign(label=1 - table["label"]).to_parquet(file, index=False)
        return save(store, result)

    monkeypatch.setattr(ResultStore, "save", save_and_edit)
    grid = Grid(
        name="edited",
        tasks=["sst2"],
        source=str(source),
        model=str(tiny_checkpoint),
        strategies=["LayerMagWeight"],
        keep=[0.5],
        seeds=[0, 1],
        recipe={"epochs_dense": 1, "epochs_retrain": 1},
    )
    store = ResultStore(tmp_path / "results").grid("edited")
    with pytest.raises(UserError, match="glue' has changed since this process first read it"):
        run_grid(grid, store)
    assert [path.name for path in store.paths()] == ["keep-0.5_seed0.json"]
