"""The ledger of claims as typed data."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Pairs = list[tuple[str, str]]
Set = Literal["kept", "pruned"]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Alike(_Entry):
    """No two of some strategies differ by more than a margin."""

    kind: Literal["alike"]
    keep: float
    margin: float
    strategies: list[str]


class Better(_Entry):
    """Some strategies are, on average, better than each of some others, at each of some amounts."""

    kind: Literal["better"]
    keep: list[float] = []
    heads: list[float] = []
    """Instead of `keep`: fractions of the attention heads removed."""
    better: list[str]
    worse: list[str]


class NoBetter(_Entry):
    """A strategy is significantly better than another one at no amount, and no interval reaches a margin."""

    kind: Literal["no_better"]
    keep: list[float]
    margin: float
    candidate: str
    reference: str


class Batches(_Entry):
    """Smoothed strategies are better when scored on many batches than on one."""

    kind: Literal["batches"]
    keep: list[float]
    strategies: list[str]


class Overlap(_Entry):
    """The mean IoU of some pairs of masks lies in a range."""

    kind: Literal["overlap"]
    of: Set
    keep: list[float]
    low: float
    high: float
    pairs: Pairs
    last_layer: bool = True


class Depth(_Entry):
    """The IoU of some pairs of masks falls from layer to layer."""

    kind: Literal["depth"]
    of: Set
    keep: list[float]
    pairs: Pairs


class Plateau(_Entry):
    """At some amounts every strategy is at the majority class."""

    kind: Literal["plateau"]
    keep: list[float]
    margin: float
    strategies: list[str]


class Share(_Entry):
    """A strategy retains more than a share of what the dense model gains over the baseline."""

    kind: Literal["share"]
    keep_at_most: float
    share: float
    strategy: str


class Negligible(_Entry):
    """Without a fraction of its heads a model is within its own interval, and within a margin."""

    kind: Literal["negligible"]
    heads: float
    margin: float
    """Of accuracy: 0.01 is one point. Regressions are passed over."""
    strategies: list[str]


class Falls(_Entry):
    """A cost falls with the fraction of heads removed."""

    kind: Literal["falls"]
    of: Literal["multiply_adds", "latency"]


Test = Annotated[
    Alike | Better | NoBetter | Batches | Overlap | Depth | Plateau | Share | Negligible | Falls,
    Field(discriminator="kind"),
]


class Claim(_Entry):
    """A claim: where it stands, what it says, and the test that decides it."""

    id: str
    paper: str
    place: str
    gist: str
    test: Test
    tasks: list[str] = []
    """Those that it is made of, if not of every one."""
    protocol: dict[str, str] = {}
    """Fields that results must have been made with: under another value the claim is not about them."""

    @property
    def of_heads(self) -> bool:
        """Whether it is about attention heads, and not about weights."""
        return self.test.kind in ("negligible", "falls") or bool(getattr(self.test, "heads", []))


def load_ledger() -> list[Claim]:
    """Read the ledger that comes along."""
    file = resources.files("shrinkbench_bert.report.claims") / "ledger.toml"
    text = file.read_text(encoding="utf-8")
    return [Claim.model_validate(entry) for entry in tomllib.loads(text)["claim"]]
