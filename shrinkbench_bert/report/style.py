"""One look per strategy name: the same in every figure of every grid."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

Dash = tuple[int, tuple[float, ...]]

SOLID: Dash = (0, ())
DASHED: Dash = (0, (3.6, 1.6))
LONG_DASHED: Dash = (0, (9, 1.4))
DASH_DOT: Dash = (0, (5, 1.4, 1.2, 1.4))
LONG_DASH_DOT: Dash = (0, (11, 1.4, 1.2, 1.4))
DOTTED: Dash = (0, (1.2, 1.6))
PAIRED: Dash = (0, (5, 1, 5, 5))


@dataclass(frozen=True)
class Style:
    """Colour, marker and dash of one strategy; any two of them tell it from the others in grey."""

    color: str
    marker: str
    dash: Dash
    filled: bool = True
    """Whether the marker is; a global strategy's is hollow."""

    @property
    def size(self) -> float:
        """Width of the marker in points: those of little ink are drawn larger."""
        return _SIZES.get(self.marker, 5.4)


_SIZES = {"*": 9.0, "P": 7.2, "X": 7.2, "p": 7.2, "h": 6.6, "^": 6.4, "v": 6.4, "<": 6.4, ">": 6.4}


# Hue says the family (first Okabe and Ito's palette, safe for the colour-blind), shade and marker the
# member, dash the variant: global is dashed, smoothed has long dashes, shifted has dots between
# dashes, two of four has pairs of dashes, random is dotted. Marker, filled or hollow, and dash tell any
# two apart without the colour.
STYLES = {
    "LayerMagWeight": Style("#0072B2", "o", SOLID),
    "GlobalMagWeight": Style("#56B4E9", "s", DASHED, filled=False),
    "LayerMagGrad": Style("#D55E00", "^", SOLID),
    "GlobalMagGrad": Style("#E69F00", "v", DASHED, filled=False),
    "LayerGradCAM": Style("#009E73", "D", SOLID),
    "LayerGradCAMShift": Style("#005A43", "P", DASH_DOT),
    "GlobalGradCAM": Style("#009E73", "H", DASHED, filled=False),
    "GlobalGradCAMShift": Style("#005A43", "8", DASHED, filled=False),
    "LayerSmoothGrad": Style("#CC79A7", "*", LONG_DASHED),
    "LayerSmoothGradCAM": Style("#A0286E", "X", LONG_DASHED),
    "LayerSmoothGradCAMShift": Style("#4B1D5C", "p", LONG_DASH_DOT),
    "GlobalSmoothGrad": Style("#CC79A7", "*", DASHED, filled=False),
    "GlobalSmoothGradCAM": Style("#A0286E", "X", DASHED, filled=False),
    "GlobalSmoothGradCAMShift": Style("#4B1D5C", "p", DASHED, filled=False),
    "LayerMagAct": Style("#8C6D1F", "h", SOLID),
    "GlobalMagAct": Style("#8C6D1F", "d", DASHED, filled=False),
    "LayerMagWeight24": Style("#0072B2", "s", PAIRED),
    "LayerMagAct24": Style("#8C6D1F", "d", PAIRED),
    "GlobalLamp": Style("#1F2F8F", "o", DASHED, filled=False),
    "LayerSnip": Style("#B2182B", ">", SOLID),
    "GlobalSnip": Style("#B2182B", ">", DASHED, filled=False),
    "LayerMovement": Style("#7A7FF0", "<", SOLID),
    "GlobalMovement": Style("#7A7FF0", "<", DASHED, filled=False),
    "LayerEmpiricalFisher": Style("#00A3B5", "s", SOLID),
    "GlobalEmpiricalFisher": Style("#00A3B5", "D", DASHED, filled=False),
    "LayerIntegratedGradients": Style("#7CA81B", "P", SOLID),
    "GlobalIntegratedGradients": Style("#7CA81B", "P", DASHED, filled=False),
    "LayerDeepLift": Style("#E8837E", "v", SOLID),
    "GlobalDeepLift": Style("#E8837E", "^", DASHED, filled=False),
    "LayerMeanRank": Style("#C51B8A", "d", SOLID),
    "LayerRandom": Style("#555555", ">", DOTTED),
    "GlobalRandom": Style("#999999", "<", DOTTED, filled=False),
    "LayerGrad": Style("#999933", "X", (0, (2.2, 1))),
    "LayerUnweightedGradCAM": Style("#661100", "P", (0, (1.2, 1, 1.2, 3))),
}
# Never in one figure with the others, so that looks may come again. Attention metrics are blue and green.
HEAD_STYLES = {
    "HeadEntropy": Style("#0072B2", "o", SOLID),
    "HeadSparsity": Style("#56B4E9", "s", LONG_DASHED),
    "HeadDistribution": Style("#009E73", "D", SOLID),
    "HeadAttention": Style("#005A43", "P", DASH_DOT),
    "HeadGradient": Style("#D55E00", "^", SOLID),
    "HeadMagnitude": Style("#A0286E", "*", LONG_DASHED),
    "HeadRandom": Style("#555555", ">", DOTTED),
}
_KNOWN = STYLES | HEAD_STYLES

_OTHER_COLORS = ("#332288", "#999933", "#661100", "#44AA99", "#B2182B", "#7A5195")
_OTHER_MARKERS = ("o", "s", "^", "v", "D", "P", "X", "*", "h")
_OTHER_DASHES: tuple[Dash, ...] = (
    (0, (6, 1.4, 1.2, 1.4, 1.2, 1.4)),
    (0, (2.2, 1)),
    (0, (7, 1.4, 2.6, 1.4)),
    (0, (1.2, 1, 1.2, 3)),
)


def style(strategy: str) -> Style:
    """Look a strategy's style up; an unknown name gets one that follows from the name alone.

    No known strategy looks like an unknown one.
    """
    if strategy in _KNOWN:
        return _KNOWN[strategy]
    rest, color = divmod(zlib.crc32(strategy.encode()), len(_OTHER_COLORS))
    rest, marker = divmod(rest, len(_OTHER_MARKERS))
    dash = rest % len(_OTHER_DASHES)
    look = Style(_OTHER_COLORS[color], _OTHER_MARKERS[marker], _OTHER_DASHES[dash])
    return look if look not in STYLES.values() else replace(look, filled=False)


def order(strategies: Iterable[str]) -> list[str]:
    """Order names for tables: known ones as they stand above, then the others alphabetically."""
    names = set(strategies)
    return [name for name in _KNOWN if name in names] + sorted(names - _KNOWN.keys())


def side_by_side(n: int, step: float) -> list[float]:
    """Give the places of n things that lie `step` apart, their middle at 0."""
    return [(i - (n - 1) / 2) * step for i in range(n)]
