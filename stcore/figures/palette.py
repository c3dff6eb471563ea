"""Palette: the colour, marker and line style of every curve, the same in all figures."""

from __future__ import annotations

from itertools import cycle
from typing import Any, NamedTuple

LIGHT = ("#ffffff", "#1a1a1a", "#dddddd")
"""Background, ink, grid."""
DARK = ("#16191d", "#e6e6e6", "#3a3f45")

BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, GREY = "#56B4E9", "#CC79A7", "#808080"


class CurveStyle(NamedTuple):
    """A curve's colour, marker and line style."""

    colour: str
    marker: str
    line: Any

    @property
    def plot(self) -> dict[str, Any]:
        """The style as keywords of `Axes.plot`."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.line}


ROLE_STYLES = {
    "natural": CurveStyle(BLUE, "o", "-"),
    "adversarial": CurveStyle(VERMILLION, "^", "--"),
    "collaborative": CurveStyle(GREEN, "s", "-."),
}
"""Styles of natural, adversarial and collaborative examples."""

METHOD_STYLES = {
    "standard": CurveStyle(GREY, "o", ":"),
    "at": CurveStyle(ORANGE, "^", "--"),
    "trades": CurveStyle(VERMILLION, "s", "-."),
    "st": CurveStyle(BLUE, "D", "-"),
    "mart": CurveStyle(PURPLE, "v", (0, (4, 1, 1, 1, 1, 1))),
    "collaborative": CurveStyle(GREEN, "P", (0, (3, 1))),
    "at2": CurveStyle(ORANGE, "<", ":"),
    "trades2": CurveStyle(VERMILLION, "X", ":"),
    "mart2": CurveStyle(PURPLE, ">", ":"),
    "gairat": CurveStyle(SKY, "h", "--"),
    "gair-rst": CurveStyle(SKY, "p", "-."),
    "bat": CurveStyle(GREEN, "*", "-"),
    "e-at": CurveStyle(VERMILLION, "d", (0, (3, 1))),
    "fast-st": CurveStyle(BLUE, "d", "--"),
    "n-fgsm": CurveStyle(GREY, "^", "-"),
    "fgsm-rs": CurveStyle(GREY, "v", "--"),
    "fgsm-consistency": CurveStyle(GREY, "p", ":"),
}
"""Styles of networks, by the method that trained them."""

_COLOURS, _LINES, _MARKERS = (SKY, PURPLE, GREEN, ORANGE, BLUE, GREY, VERMILLION), ("--", ":", "-."), "dvP^X"
_SPARE = [  # consecutive styles differ in colour, marker and line
    CurveStyle(colour, marker, line)
    for colour, marker, line, _ in zip(cycle(_COLOURS), cycle(_MARKERS), cycle(_LINES), range(105), strict=False)
]


def method_styles(methods: list[str | None]) -> list[CurveStyle]:
    """A style per network: its method's, or a spare one if that is taken or the method is unknown."""
    found: list[CurveStyle] = []
    spare = cycle(_SPARE)
    for method in methods:
        style = METHOD_STYLES.get(method or "")
        found.append(style if style is not None and style not in found else next(spare))
    return found
