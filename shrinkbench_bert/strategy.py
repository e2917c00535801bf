"""What a strategy is: a named class whose `score` is an equation over the signals it is shown."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Flag, auto
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, get_args

from shrinkbench_bert.errors import UserError, unknown
from shrinkbench_bert.protocol import Protocol

if TYPE_CHECKING:
    from torch import Generator, Tensor

At = Literal["dense", "initial"]
Scope = Literal["layer", "global", "2:4", "heads"]


class Need(Flag):
    """What a strategy wants to be shown besides the weights; it is measured only if asked for."""

    NOTHING = 0
    GRADIENT = auto()
    ACTIVATION = auto()
    ATTENTION = auto()
    SQUARED_INPUT = auto()
    SQUARED_GRADIENT = auto()
    PATH_GRADIENT = auto()
    RESCALED_GRADIENT = auto()


class Signal:
    """What a strategy sees of one prunable parameter, for one batch of data.

    Every tensor broadcasts against `weight`, so one formula serves weights and biases.
    """

    def __init__(
        self,
        name: str,
        weight: Tensor,
        generator: Generator,
        *,
        gradient: Tensor | None = None,
        activation: Tensor | None = None,
        squared_input: Tensor | None = None,
        squared_gradient: Tensor | None = None,
        path_gradient: Tensor | None = None,
        rescaled_gradient: Tensor | None = None,
    ) -> None:
        self.name = name
        """The parameter's name in `model.named_parameters()`."""
        self.weight = weight
        """The parameter: (out, in) for a weight, (out,) for a bias."""
        self.generator = generator
        """A CPU generator seeded by seed, strategy and parameter: each batch sees the same numbers."""
        self._gradient = gradient
        self._activation = activation
        self._squared_input = squared_input
        self._squared_gradient = squared_gradient
        self._path_gradient = path_gradient
        self._rescaled_gradient = rescaled_gradient

    @property
    def gradient(self) -> Tensor:
        """dL/dw of this batch, the shape of `weight`; for a smoothed strategy the mean of eta passes."""
        return _declared(self._gradient, Need.GRADIENT)

    @property
    def activation(self) -> Tensor:
        """Mean output of the parameter's Linear over the batch's tokens: (out, 1), or (out,) for a bias."""
        return _declared(self._activation, Need.ACTIVATION)

    @property
    def squared_input(self) -> Tensor:
        """Sum over the batch's tokens of x^2, x the parameter's input: (1, in).

        A bias is a weight on an input of 1: its sum is the number of tokens, a scalar.
        """
        return _declared(self._squared_input, Need.SQUARED_INPUT)

    @property
    def squared_gradient(self) -> Tensor:
        """Sum over the batch's examples of (dL/dw)^2, L the example's own loss; the shape of `weight`."""
        return _declared(self._squared_gradient, Need.SQUARED_GRADIENT)

    @property
    def path_gradient(self) -> Tensor:
        """Mean of dL/dw at eta midpoints of the path from 0 to all prunable w; the shape of `weight`."""
        return _declared(self._path_gradient, Need.PATH_GRADIENT)

    @property
    def rescaled_gradient(self) -> Tensor:
        """dL/dw by DeepLIFT's rescale rule at the activation functions; the shape of `weight`."""
        return _declared(self._rescaled_gradient, Need.RESCALED_GRADIENT)


@dataclass(frozen=True)
class HeadWeights:
    """The slices of one layer's projections that belong to each head, with their biases."""

    query: Tensor
    key: Tensor
    value: Tensor
    """(heads, size, hidden + 1): each row is followed by its bias, 0 where there is none."""
    output: Tensor
    """(heads, hidden, size): the columns that read the head; the bias belongs to no head."""


class HeadSignal:
    """What a head strategy sees of one layer's heads, for one batch of data.

    Heads are those that are still there, in order.
    """

    def __init__(
        self,
        layer: int,
        weights: HeadWeights,
        generator: Generator,
        *,
        attendable: Tensor | None = None,
        attention: Tensor | None = None,
        gradient: Tensor | None = None,
    ) -> None:
        self.layer = layer
        """Counted from 0."""
        self.weights = weights
        """Each head's slices of the four projections."""
        self.generator = generator
        """A CPU generator seeded by seed, strategy and layer: each batch sees the same numbers."""
        self._attendable = attendable
        self._attention = attention
        self._gradient = gradient

    @property
    def attendable(self) -> Tensor:
        """True for every token but padding, special tokens included: (batch, tokens)."""
        return _declared(self._attendable, Need.ATTENTION)

    @property
    def attention(self) -> Tensor:
        """Attention weights: (batch, heads, queries, keys). Rows sum to 1; padding keys have 0."""
        return _declared(self._attention, Need.ATTENTION)

    @property
    def gradient(self) -> Tensor:
        """dL/d gate of each sequence's own loss, at a gate of 1 on the head's output: (batch, heads)."""
        return _declared(self._gradient, Need.GRADIENT)


def _declared(signal: Tensor | None, need: Need) -> Tensor:
    if signal is None:
        raise UserError(
            f"score() reads the {need.name.lower()}, which `needs` does not name: "  # type: ignore[union-attr]
            f"add Need.{need.name}"
        )
    return signal


class Strategy(ABC):
    """Importance of every prunable parameter, or attention head; the larger, the longer it is kept.

    A subclass gives `scope`, `needs` and `score`. A class attribute named like a field of `Protocol`
    (for example `shift`) takes its value from the cell's protocol, and must have that field's default.
    """

    scope: ClassVar[Scope]
    """Rank scores within each tensor ("layer"), over all of them ("global"), within every four
    neighbours ("2:4"), or of heads ("heads")."""
    needs: ClassVar[Need] = Need.NOTHING
    smooth: ClassVar[bool] = False
    """Average signals over `eta` passes with noise added to the Linears' outputs (eqs. 8 and 9)."""
    at: ClassVar[At] = "dense"
    """The weights that a grid scores: the fine-tuned ones, or those before fine-tuning."""
    terms: ClassVar[int] = 1
    """Numbers per weight that `score` gives; several are stacked, (terms, *shape), and `finish` makes one."""

    @abstractmethod
    def score(self, s: Any) -> Tensor:
        """Score one parameter on one batch: a `Signal` in, a tensor of `s.weight`'s shape out.

        Scores are summed over batches. A strategy that needs no data is called once. The score depends
        on the signal alone: a formula may be called twice for one batch, and a formula of pointwise
        operations for a few rows of a parameter at a time. For attention heads see `HeadStrategy`.
        """

    def finish(self, total: Tensor) -> Tensor:
        """Turn one parameter's sum over batches into its score; as it is unless overridden.

        `total` has the parameter's shape, or that of several `terms`, (terms, *shape); the score has
        the parameter's.
        """
        return total

    @classmethod
    def shape_of_sum(cls, parameter: Sequence[int]) -> tuple[int, ...]:
        """Give the shape of what `score` returns and `finish` is given, by that of the parameter."""
        return (cls.terms, *parameter) if cls.terms > 1 else tuple(parameter)

    @classmethod
    def under(cls, protocol: Protocol) -> Strategy:
        """Make an instance whose attributes follow the protocol."""
        strategy = cls()
        for field, value in protocol:
            if field != "name" and hasattr(cls, field):
                setattr(strategy, field, value)
        return strategy

    @property
    def first_batch_only(self) -> bool:
        """Whether only the first batch is scored."""
        return False


class LayerStrategy(Strategy):
    """A strategy that keeps the same fraction of every tensor."""

    scope: ClassVar[Scope] = "layer"


class GlobalStrategy(Strategy):
    """A strategy that ranks all prunable parameters together."""

    scope: ClassVar[Scope] = "global"


class TwoOfFourStrategy(Strategy):
    """A strategy that keeps two of every four neighbours in a row, which hardware can skip.

    A bias is one row. Its only amount is keep = 0.5, and rows are multiples of four long.
    """

    scope: ClassVar[Scope] = "2:4"


class HeadStrategy(Strategy):
    """A strategy that ranks attention heads. The grid says whether over all layers or in each."""

    scope: ClassVar[Scope] = "heads"

    @abstractmethod
    def score(self, s: HeadSignal) -> Tensor:
        """Score one layer's heads on one batch: (heads,), the mean over the batch's sequences.

        More numbers per head, (heads, m), are for a strategy whose `overall` makes one of them. The
        mean over all sequences is taken. A strategy that needs no data is called once.
        """

    def overall(self, scores: list[Tensor]) -> list[Tensor]:
        """Turn the means of all layers into scores, (heads,) each; as they are unless overridden."""
        return scores


_REGISTRY: dict[str, type[Strategy]] = {}
S = TypeVar("S", bound=type[Strategy])


def register_strategy(cls: S) -> S:
    """Register a strategy under its class name; one that a notebook defines again takes its own place.

    Raises UserError if another class has that name, or if the class cannot be a strategy; it says why.
    """
    known = _REGISTRY.get(cls.__name__)
    if known is not None and not (_is_of_a_session(cls) and _is_of_a_session(known)):
        raise UserError(
            f"strategy {cls.__name__!r} of {cls.__module__} has the name of one in {known.__module__}: "
            "give it another name"
        )
    _check(cls)
    _REGISTRY[cls.__name__] = cls
    return cls


def _check(cls: type[Strategy]) -> None:
    """Refuse a class that cannot be a strategy, and say why."""
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", cls.__name__):
        raise UserError(
            f"strategy {cls.__name__!r}: files are named by it: begin with a letter, and go on with letters, "
            "digits and '_'"
        )
    if cls.__module__ == ABC.__module__:
        raise UserError(
            f"strategy {cls.__name__!r}: made by type(), it has lost its module, where its code is looked "
            'for: add "__module__": __name__ to its attributes'
        )
    if getattr(cls, "scope", None) not in get_args(Scope):
        raise UserError(
            f"strategy {cls.__name__!r}: derive it from LayerStrategy or GlobalStrategy, or, for attention "
            "heads, from HeadStrategy"
        )
    if not isinstance(cls.needs, Need):
        raise UserError(
            f"strategy {cls.__name__!r}: needs = {cls.needs!r}: a Need is expected, such as Need.GRADIENT | "
            "Need.ACTIVATION"
        )
    if not isinstance(cls.smooth, bool):
        raise UserError(f"strategy {cls.__name__!r}: smooth = {cls.smooth!r}: True or False is expected")
    if cls.smooth and cls.needs & ~(Need.GRADIENT | Need.ACTIVATION):
        raise UserError(
            f"strategy {cls.__name__!r}: smooth = True averages the gradient and the activation alone"
        )
    if cls.at not in get_args(At):
        raise UserError(f"strategy {cls.__name__!r}: at = {cls.at!r} (accepted: {', '.join(get_args(At))})")
    own_finish = cls.finish is not Strategy.finish
    if cls.scope == "heads" and (cls.smooth or cls.at != "dense" or own_finish or cls.terms != 1):
        raise UserError(
            f"strategy {cls.__name__!r}: heads are scored at the dense weights and without noise; leave out "
            "at, smooth, terms and finish (there is overall)"
        )
    if not isinstance(cls.terms, int) or (cls.terms != 1 and (cls.terms < 1 or not own_finish)):
        raise UserError(
            f"strategy {cls.__name__!r}: terms = {cls.terms!r}: 1 is accepted, or more with a "
            "finish(self, total) that makes one score of them"
        )
    for field, value in Protocol():
        if field != "name" and getattr(cls, field, value) != value:
            raise UserError(
                f"strategy {cls.__name__!r}: {field} = {getattr(cls, field)!r}: the protocol's {field} takes "
                f"its place, so give it the protocol's default, {value!r}, or another name"
            )
    if inspect.isabstract(cls):
        raise UserError(f"strategy {cls.__name__!r}: define score(self, s)")
    try:
        inspect.signature(cls).bind()
    except TypeError as error:
        raise UserError(
            f"strategy {cls.__name__!r}: __init__ gets no arguments here ({error}); use class attributes"
        ) from error


def _is_of_a_session(cls: type) -> bool:
    """Whether a class was typed into a notebook or a console, where cells are run again."""
    return cls.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__")


@cache
def _load_builtin() -> None:
    package = importlib.import_module("shrinkbench_bert.strategies")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def get_strategy(name: str) -> type[Strategy]:
    """Look a strategy class up. Raises UserError that suggests the nearest name."""
    _load_builtin()
    if name not in _REGISTRY:
        raise unknown("strategy", name, _REGISTRY)
    return _REGISTRY[name]


def strategy_names(of: Literal["weights", "heads"] | None = None) -> list[str]:
    """List the registered names in alphabetical order: all, or those that score one sort of thing."""
    _load_builtin()
    return sorted(
        name for name, cls in _REGISTRY.items() if of is None or (cls.scope == "heads") == (of == "heads")
    )


def unregister(module: str) -> None:
    """Forget the strategies that a module registered."""
    for name in [name for name, cls in _REGISTRY.items() if cls.__module__ == module]:
        del _REGISTRY[name]
