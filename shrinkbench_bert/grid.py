"""The grid file as typed, validated values: Recipe, Cell, Grid."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from shrinkbench_bert.errors import UserError, describe, unknown
from shrinkbench_bert.plugins import load_plugin
from shrinkbench_bert.protocol import Protocol
from shrinkbench_bert.strategy import get_strategy
from shrinkbench_bert.tasks import get_task, known_metric

Keep = Annotated[float, Field(gt=0, le=1)]
GRID_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Compression = Annotated[float, Field(ge=1)]
HeadFraction = Annotated[float, Field(ge=0, lt=1)]


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):  # True would be seed 1
        raise ValueError("Input should be a valid integer")
    return value


Seed = Annotated[NonNegativeInt, BeforeValidator(_no_truth_value)]
ByName = BeforeValidator(lambda value: Protocol.named(value) if isinstance(value, str) else value)
"""Takes the name of a protocol for the protocol."""

AMOUNTS = ("keep", "compression", "heads")
"""Fields of which a cell and a grid have exactly one."""
_IN_ONE_GO = "score_parts: heads, and weights pruned in rounds, are scored in one go: leave it out"


class Recipe(BaseModel):
    """Training hyperparameters, for dense fine-tuning and for retraining under a mask."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs_dense: PositiveInt = 3
    epochs_retrain: NonNegativeInt = 3
    batch_size: PositiveInt = 16
    lr: PositiveFloat = 2e-5
    weight_decay: NonNegativeFloat = 0.0
    schedule: Literal["constant", "linear"] = Field("linear", description="of the learning rate")
    warmup: float = Field(0.06, ge=0, lt=1, description="fraction of the steps, linear")
    max_length: int = Field(128, ge=8, description="tokens; longer inputs are cut")
    group_by_length: bool = Field(True, description="batches of similar length, less padding")
    train_examples: PositiveInt | None = Field(None, description="a fixed random subset; None: all")
    eval_examples: PositiveInt | None = Field(None, description="likewise, of the validation split")
    holdout: float = Field(0.1, gt=0, lt=1, description="fraction of train that chooses the epoch")
    dropout: float | None = Field(None, ge=0, lt=1, description="None: as the checkpoint says")
    metric_for_best_model: str | None = Field(
        None, description="of the task, chooses the epoch; None: its first"
    )


class Cell(BaseModel):
    """One (task, model, strategy, amount, seed) with all that decides its result."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    task: str
    source: str = Field("mini-glue", min_length=1)
    model: str = Field("minilm", min_length=1)
    layers: PositiveInt | None = Field(None, description="use the first layers only; None: all")
    strategy: str
    keep: Keep | None = None
    compression: Compression | None = None
    heads: HeadFraction | None = Field(None, description="fraction of the attention heads removed")
    # None for what is usual: what is not set is no part of a digest.
    head_scope: Literal["layer"] | None = Field(None, description="None: all heads are ranked together")
    head_rounds: int | None = Field(None, ge=2, description="None: all heads are removed at once")
    score_parts: int | None = Field(None, ge=2, description="None: the scoring pass is summed up in one go")
    prune_rounds: int | None = Field(None, ge=2, description="None: all weights are pruned at once")
    seed: Seed = 0
    recipe: Recipe = Recipe()
    protocol: Annotated[Protocol, ByName] = Protocol()

    @field_validator("task")
    @classmethod
    def _known_task(cls, name: str) -> str:
        return get_task(name).name

    @field_validator("strategy")
    @classmethod
    def _no_path(cls, name: str) -> str:
        """It names a folder; which strategies there are is not asked here, so that results can be read."""
        if not re.fullmatch(GRID_NAME, name):
            raise UserError(
                f"unknown strategy {name!r}: a name of letters, digits, '.', '_', '-' is expected"
            )
        return name

    @field_validator("recipe")
    @classmethod
    def _own_metric_is_unset(cls, recipe: Recipe, info: ValidationInfo) -> Recipe:
        if recipe.metric_for_best_model is None or "task" not in info.data:
            return recipe
        task = get_task(info.data["task"])
        metric = task.metric_for_best_model(recipe.metric_for_best_model)
        return recipe.model_copy(update={"metric_for_best_model": None if metric == task.metric else metric})

    @field_validator("head_scope", "head_rounds", "prune_rounds", "score_parts", mode="before")
    @classmethod
    def _usual_is_unset(cls, value: Any) -> Any:
        return None if value in ("global", 1) else value

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        if sum(amount is not None for amount in (self.keep, self.compression, self.heads)) != 1:
            raise UserError(
                "amount: give either keep (0 to 1), or compression (1 or more), or heads (0 to below 1)"
            )
        if self.heads is None and (self.head_scope or self.head_rounds):
            raise UserError("head_scope and head_rounds: they need an amount of heads")
        if self.heads is not None and self.prune_rounds:
            raise UserError("prune_rounds: it needs keep or compression; heads have head_rounds")
        if self.score_parts and (self.heads is not None or self.prune_rounds):
            raise UserError(_IN_ONE_GO)
        return self

    @property
    def amount(self) -> str:
        """The amount as it stands in file names: `keep-0.147`, `compression-3.5` or `heads-0.5`."""
        kind, value = next((kind, getattr(self, kind)) for kind in AMOUNTS if getattr(self, kind) is not None)
        # repr, not `:g`: two amounts never share a path.
        return f"{kind}-{repr(value).removesuffix('.0')}"

    @property
    def path(self) -> Path:
        """Where its result lies within the grid's folder."""
        return Path(self.task, self.strategy, f"{self.amount}_seed{self.seed}.json")

    def __str__(self) -> str:
        return f"{self.task}/{self.strategy}/{self.amount}_seed{self.seed}"


class Grid(BaseModel):
    """A grid of cells that share a model, a source, a protocol and, per task, a recipe.

    Raises:
        UserError: unknown fields, names or values, no amounts or several kinds of them, an entry that stands
            there twice, a plugin that cannot be loaded, and a compression beyond the ceiling of a model
            that is on this machine (for others `plan` and `run` check it first).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(pattern=GRID_NAME)
    description: str = ""
    source: str = Field("mini-glue", min_length=1, description="hub id, folder, or mini-glue")
    model: str = Field("minilm", min_length=1, description="hub id, folder, or minilm")
    layers: PositiveInt | None = None
    tasks: list[str] = Field(min_length=1)
    strategies: list[str] = Field(min_length=1)
    keep: list[Keep] = []
    compression: list[Compression] = []
    heads: list[HeadFraction] = Field([], description="fractions of the attention heads removed")
    head_scope: Literal["global", "layer"] = Field("global", description="heads are ranked over all layers")
    head_rounds: PositiveInt = Field(1, description="score, remove and fine-tune so many times")
    score_parts: PositiveInt = Field(
        1, description="parts of the scoring pass that workers can share; sums differ in their last digits"
    )
    prune_rounds: PositiveInt = Field(1, description="score, mask and retrain so many times")
    seeds: list[Seed] = Field([0], min_length=1)
    protocol: Annotated[Protocol, ByName] = Protocol()
    recipe: Recipe = Recipe()
    task_recipes: dict[str, Recipe] = {}
    plugins: list[str] = Field([], description="files or packages that register strategies")
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    tolerance: dict[str, NonNegativeFloat] = Field(
        {}, description="by metric: the absolute move that `compare` accepts; no part of a cell"
    )

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise UserError(describe(error)) from error
        self._check()

    @field_validator("plugins")
    @classmethod
    def _absolute(cls, plugins: list[str]) -> list[str]:
        """So that other processes find them too."""
        return [str(Path(plugin).resolve()) if plugin.endswith(".py") else plugin for plugin in plugins]

    @field_validator("tolerance")
    @classmethod
    def _known_metrics(cls, tolerance: dict[str, float]) -> dict[str, float]:
        return {known_metric(name): move for name, move in tolerance.items()}

    @classmethod
    def from_toml(cls, path: str | Path, overrides: dict[str, Any] | None = None) -> Self:
        """Read and check a grid file.

        `overrides` maps dotted keys (`recipe.lr`) to values that replace the file's; plugins are
        looked for beside the file. Raises UserError for a file that is not TOML, and as a Grid does.
        """
        path = Path(path)
        return cls.from_table(read_table(path, overrides), path)

    @classmethod
    def from_table(cls, table: dict[str, Any], path: Path) -> Self:
        """Check what stands in the grid file `path`, as `read_table` reads it. Raises as `from_toml` does."""
        try:
            return cls._from_table({"name": path.stem, **table}, path.parent)
        except UserError as error:
            raise UserError(f"grid {str(path)!r}: {error}") from error

    @classmethod
    def _from_table(cls, table: dict[str, Any], folder: Path) -> Self:
        for key in table:
            if key not in cls.model_fields or key == "task_recipes":
                raise unknown("grid key", key, set(cls.model_fields) - {"task_recipes"})
        recipe = dict(_table(table, "recipe"))
        per_task = {key: recipe.pop(key) for key in list(recipe) if isinstance(recipe[key], dict)}
        for key in (*recipe, *(key for task in per_task.values() for key in task)):
            if key not in Recipe.model_fields:
                raise unknown("recipe key", key, Recipe.model_fields)
        protocol = table.get("protocol", "sound")
        if isinstance(protocol, dict):
            choices = dict(protocol)
            protocol = Protocol.named(choices.pop("base", "sound"), **choices)
        else:
            protocol = Protocol.named(protocol)
        return cls(
            **{
                **table,
                "protocol": protocol,
                "recipe": recipe,
                "task_recipes": {name: {**recipe, **own} for name, own in per_task.items()},
                "plugins": _beside(folder, table.get("plugins", [])),
            }
        )

    def _check(self) -> None:
        if sum(bool(getattr(self, kind)) for kind in AMOUNTS) != 1:
            raise UserError("give either keep, or compression, or heads: a list of amounts")
        if not self.heads and (self.head_scope, self.head_rounds) != ("global", 1):
            raise UserError("head_scope and head_rounds: they need heads, a list of amounts")
        if self.heads and self.prune_rounds != 1:
            raise UserError("prune_rounds: it needs keep or compression; heads have head_rounds")
        if self.score_parts > 1 and (self.heads or self.prune_rounds > 1):
            raise UserError(_IN_ONE_GO)
        for field in ("tasks", "strategies", *AMOUNTS, "seeds"):
            values = getattr(self, field)
            if len(set(values)) < len(values):
                raise UserError(f"{field} = {values}: an entry stands there twice; name each once")
        for plugin in self.plugins:
            load_plugin(plugin, Path())
        for strategy in self.strategies:
            check_amount(strategy, by_heads=bool(self.heads))
        for task in self.task_recipes:
            get_task(task)
        for task in self.tasks:
            recipe = self.task_recipes.get(task, self.recipe)
            get_task(task).metric_for_best_model(recipe.metric_for_best_model)
        if self.compression:
            # Imported here so that reading stored results needs no torch.
            from shrinkbench_bert.models import check_compressions

            check_compressions(self.model, self.tasks, self.compression, self.protocol, layers=self.layers)

    def cells(self) -> Iterator[Cell]:
        """Yield every cell: cells that share a dense model stand next to each other."""
        amounts: list[dict[str, Any]] = [{kind: amount} for kind in AMOUNTS for amount in getattr(self, kind)]
        if self.heads:
            amounts = [
                {**amount, "head_scope": self.head_scope, "head_rounds": self.head_rounds}
                for amount in amounts
            ]
        for task in self.tasks:
            for seed in self.seeds:
                for strategy in self.strategies:
                    for amount in amounts:
                        yield Cell(
                            task=task,
                            source=self.source,
                            model=self.model,
                            layers=self.layers,
                            strategy=strategy,
                            seed=seed,
                            recipe=self.task_recipes.get(task, self.recipe),
                            protocol=self.protocol,
                            prune_rounds=self.prune_rounds,
                            score_parts=self.score_parts,
                            **amount,
                        )


def read_table(path: Path, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read a grid file unchecked, with `overrides` in it. Raises UserError for a file that is not TOML."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"grid {str(path)!r}: {error.strerror or error}; give the path of a grid file"
        ) from error
    except ValueError as error:
        raise UserError(f"grid {str(path)!r} is not TOML: {error}") from error
    for key, value in (overrides or {}).items():
        override(table, key, value)
    return table


def check_amount(strategy: str, *, by_heads: bool) -> None:
    """Raise UserError unless the amount is of what the strategy scores: attention heads, or weights."""
    if get_strategy(strategy).scope == "heads" and not by_heads:
        raise UserError(f"strategy {strategy!r} scores attention heads: give heads, not keep or compression")
    if get_strategy(strategy).scope != "heads" and by_heads:
        raise UserError(f"strategy {strategy!r} scores weights: give keep or compression, not heads")


def _beside(folder: Path, plugins: Any) -> Any:
    """Plugins that are files, with the folder in front; what is no list of names is refused later."""
    if not isinstance(plugins, list):
        return plugins
    return [str(folder / p) if isinstance(p, str) and p.endswith(".py") else p for p in plugins]


def _table(table: dict[str, Any], key: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise UserError(f"{key} = {value!r}: a table is expected, as in [{key}]")
    return value


def override(table: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of a grid file's table. Raises UserError where a part of it is no table."""
    *parents, last = key.split(".")
    for parent in parents:
        inner = table.setdefault(parent, {})
        if parent == "protocol" and isinstance(inner, str):
            inner = table["protocol"] = {"base": inner}
        if not isinstance(inner, dict):
            raise UserError(
                f"--set {key}: {parent!r} is no table, so nothing in it can be set; set {parent} itself"
            )
        table = inner
    table[last] = value
