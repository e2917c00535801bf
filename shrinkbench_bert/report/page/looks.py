"""The look that a strategy has in the figures, in the terms of Plotly and of SVG."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
from matplotlib.colors import to_hex, to_rgb
from matplotlib.markers import MarkerStyle

from shrinkbench_bert.report.style import Style

_SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "v": "triangle-down",
    "<": "triangle-left",
    ">": "triangle-right",
    "D": "diamond",
    "d": "diamond-tall",
    "P": "cross",
    "X": "x",
    "*": "star",
    "p": "pentagon",
    "h": "hexagon",
    "H": "hexagon2",
    "8": "octagon",
}
_WIDTH = 2
"""Pixels of a line; dashes are counted in widths."""
_DARK_BACKGROUND = 0.008
"""Relative luminance of the page's dark background, #14171a."""
_CONTRAST = 4.5
"""Of a line with its background; WCAG 2.2 asks for 3 of graphics."""


def look(own: Style) -> dict[str, Any]:
    """Give colour on white and on black, dash, marker for Plotly, and marker for a legend's SVG."""
    return {
        "color": own.color,
        "dark": on_dark(own.color),
        "dash": ",".join(f"{_WIDTH * length:g}px" for length in own.dash[1]) or "solid",
        "symbol": _SYMBOLS[own.marker] + ("" if own.filled else "-open"),
        "path": _path(own),
        "filled": own.filled,
    }


def on_dark(color: str) -> str:
    """Lighten a colour, hue and saturation kept, until it can be told from a dark background."""
    hue, light, saturation = colorsys.rgb_to_hls(*to_rgb(color))
    while _contrast(found := colorsys.hls_to_rgb(hue, light, saturation)) < _CONTRAST:
        light += 0.01
    return to_hex(found)


def _contrast(rgb: tuple[float, float, float]) -> float:
    """WCAG's contrast ratio with the dark background."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    luminance = sum(part * c for part, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return (luminance + 0.05) / (_DARK_BACKGROUND + 0.05)


def _path(own: Style) -> str:
    """Draw the figures' marker as an SVG path around the origin, about 10 pixels wide."""
    marker = MarkerStyle(own.marker)
    (outline,) = map(np.asarray, marker.get_path().transformed(marker.get_transform()).to_polygons())
    scale = 10 * own.size / 5.4
    return "M" + "L".join(f"{scale * x:.1f} {-scale * y:.1f}" for x, y in outline) + "Z"
