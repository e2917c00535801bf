"""The choices on which the DeepCuts paper, its released code and sound practice differ."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, ValidationError

from shrinkbench_bert.errors import UserError, describe, unknown

ProtocolName = Literal["paper", "released", "sound"]
Beta = Annotated[float, Field(ge=0, lt=1)]
"""How much of a running mean Adam keeps at a step."""


class Protocol(BaseModel):
    """One value for every choice; the defaults are the `sound` ones.

    Take one with `Protocol.named("paper", shift=1.0)`: a named set, any field of it overridden.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: ProtocolName = "sound"

    # Which batches are scored, and how gradients are taken.
    clean_batches: PositiveInt = Field(1000, description="batches scored without noise, at most")
    smooth_batches: PositiveInt = Field(100, description="batches scored with noise, at most")
    eta: PositiveInt = Field(10, description="noisy passes averaged per batch (eq. 9)")
    noise_std: NonNegativeFloat = Field(0.1, description="standard deviation of the noise (eq. 8)")
    tokens_at_once: PositiveInt | None = Field(
        None,
        description="noisy passes go through the model together, up to so many tokens, padding counted; "
        "null: pass by pass. The noise is drawn in another order, so the scores are another sample",
    )
    noise_on: Literal["prunable", "all"] = Field("prunable", description="Linears that get noise")
    dropout: Literal["off", "gradients"] = Field("off", description="where dropout stays on")
    regression_loss: Literal["mean", "sum"] = Field("mean", description="STS-B's loss for scores")

    # What the formulas mean.
    shift: NonNegativeFloat = Field(10.0, description="lambda of eq. 5, added to the activation")
    layer_mag_grad: Literal["weight*gradient", "gradient"] = Field(
        "weight*gradient", description="what LayerMagGrad ranks"
    )
    mag_grad_batches: Literal["all", "first"] = Field(
        "all", description="batches that LayerMagGrad and GlobalMagGrad see"
    )
    padding: Literal["out", "in"] = Field("out", description="padding in the mean activation")
    pooler_activation: Literal["unit", "scalar"] = Field(
        "unit", description="mean activation of the pooler: per unit, or one number"
    )

    # What is pruned, and what happens then.
    pooler: Literal["prunable", "excluded"] = "prunable"
    ties: Literal["exact", "kept"] = Field(
        "exact", description="exactly k kept, or every score that equals the threshold as well"
    )
    rewind: Literal["initial", "none"] = Field(
        "initial", description="weights before retraining: pre-fine-tuning, or the dense ones"
    )
    optimizer: Literal["adamw", "adam"] = "adamw"
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    reset_optimizer: bool = Field(True, description="fresh optimiser state after pruning")
    selection: Literal["holdout", "validation", "last"] = Field(
        "holdout", description="split on which the best epoch is chosen, or the last epoch"
    )

    @classmethod
    def named(cls, protocol: "str | Protocol" = "sound", **overrides: Any) -> Self:
        """Take a named set of choices with some fields overridden.

        Raises UserError for an unknown name or field.
        """
        if isinstance(protocol, Protocol):
            base = protocol.model_dump()
        elif isinstance(protocol, str) and protocol in _NAMED:
            base = {"name": protocol, **_NAMED[protocol]}
        else:
            raise unknown("protocol", protocol, _NAMED)
        for field in overrides:
            if field not in cls.model_fields or field == "name":
                raise unknown("protocol field", field, set(cls.model_fields) - {"name"})
        try:
            return cls(**{**base, **overrides})
        except ValidationError as error:
            raise UserError(f"protocol: {describe(error)}") from error

    @property
    def label(self) -> str:
        """The name, with the fields that differ from the named set: `sound (eta=5)`."""
        named = Protocol.named(self.name)
        own = [f"{key}={value}" for key, value in self if value != getattr(named, key)]
        return f"{self.name} ({', '.join(own)})" if own else self.name


_NAMED: dict[str, dict[str, Any]] = {
    "sound": {},
    "paper": {
        "noise_on": "all",
        "padding": "in",
        "pooler": "excluded",
        "optimizer": "adam",
        "selection": "validation",
    },
    "released": {
        "noise_std": 0.001,
        "noise_on": "all",
        "dropout": "gradients",
        "regression_loss": "sum",
        "layer_mag_grad": "gradient",
        "mag_grad_batches": "first",
        "padding": "in",
        "pooler_activation": "scalar",
        "ties": "kept",
        "optimizer": "adam",
        "betas": (0.9, 0.99),
        "reset_optimizer": False,
        "selection": "last",
    },
}
