"""The ablation file: a grid and a knob, as one grid for each value of the knob."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from shrinkbench_bert.errors import UserError, describe
from shrinkbench_bert.grid import Grid, override, read_table


class Knob(BaseModel):
    """What an ablation varies: one field, or several at once where a value is a table of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str = Field(description="of the grid, dotted: `protocol.shift`, `recipe.lr`, or `protocol`")
    values: list[Any] = Field(min_length=2)
    reference: Any = Field(None, description="the value that the others are compared with; None: the first")

    @field_validator("field")
    @classmethod
    def _decides_no_cells(cls, field: str) -> str:
        if not re.fullmatch(r"(protocol|recipe)(\.\w+)*", field):
            raise ValueError("a field of the protocol or of the recipe is expected, such as protocol.shift")
        return field

    @field_validator("reference")
    @classmethod
    def _reference_is_a_value(cls, reference: Any, info: ValidationInfo) -> Any:
        values = info.data.get("values", [reference])
        if reference not in values:
            raise ValueError(f"one of values is expected: {values}")
        return values[values.index(reference)]  # as it is written there: 1 is no label of 1.0

    @property
    def is_number(self) -> bool:
        """Whether the values have an order that a line may follow."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)

    @property
    def reference_label(self) -> str:
        """The label of the value that the others are compared with."""
        return self.label(self.values[0] if self.reference is None else self.reference)

    def label(self, value: Any) -> str:
        """Word a value: `0.1`, `in`, or, of a table, `padding=in`."""
        if isinstance(value, dict):
            return ", ".join(f"{key}={self.label(inner)}" for key, inner in value.items())
        return value if isinstance(value, str) else json.dumps(value)

    def settings(self, value: Any) -> dict[str, Any]:
        """What a value sets, by dotted key."""
        if isinstance(value, dict):
            return {f"{self.field}.{key}": inner for key, inner in value.items()}
        return {self.field: value}


@dataclass(frozen=True)
class Ablation:
    """A grid, run once for each value of a knob."""

    base: Grid
    """The file without its knob: what all values have in common."""
    knob: Knob
    grids: dict[str, Grid]
    """Of each value by its label, in the file's order; named `<name>-<value>`."""

    @classmethod
    def from_toml(cls, path: str | Path, overrides: dict[str, Any] | None = None) -> Self:
        """Read and check an ablation file: a grid file with a table `[knob]`.

        `overrides` as for `Grid.from_toml`; they reach the knob, too (`knob.values`). Raises UserError as
        that does, for every value, and for a knob that is none, has a value twice, or whose grids have
        no masks that could be compared.
        """
        path = Path(path)
        table = read_table(path, overrides)
        try:
            knob = Knob.model_validate(table.pop("knob", {}))
        except ValidationError as error:
            raise UserError(f"ablation {str(path)!r}: [knob]: {describe(error)}") from error
        base = Grid.from_table(deepcopy(table), path)
        grids: dict[str, Grid] = {}
        for value in knob.values:
            own, label = deepcopy(table), knob.label(value)
            for key, setting in knob.settings(value).items():
                override(own, key, setting)
            own["name"] = f"{base.name}-{re.sub('[^A-Za-z0-9._]+', '-', label).strip('-')}"
            if own["name"] in {grid.name for grid in grids.values()}:
                raise UserError(f"ablation {str(path)!r}: knob.values: {label} stands there twice")
            grids[label] = Grid.from_table(own, path)
        for grid in (base, *grids.values()):
            if grid.heads or grid.prune_rounds > 1:
                raise UserError(
                    f"ablation {str(path)!r}: the masks of one shot are compared: give keep or compression, "
                    "and no heads or prune_rounds"
                )
        return cls(base, knob, grids)
