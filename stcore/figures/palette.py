"""Which colour, marker and line stand for what, in every figure alike."""

from __future__ import annotations

from itertools import cycle
from typing import Any, NamedTuple

LIGHT = ("#ffffff", "#1a1a1a", "#dddddd")
"""Ground, ink, grid."""
DARK = ("#16191d", "#e6e6e6", "#3a3f45")

BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, GREY = "#56B4E9", "#CC79A7", "#808080"


class Look(NamedTuple):
    """A curve's colour, marker and line style."""

    colour: str
    marker: str
    line: Any

    @property
    def plot(self) -> dict[str, Any]:
        """As keywords of `Axes.plot`."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.line}


ROLES = {
    "natural": Look(BLUE, "o", "-"),
    "adversarial": Look(VERMILLION, "^", "--"),
    "collaborative": Look(GREEN, "s", "-."),
}
"""Of examples, by what they are."""

METHODS = {
    "standard": Look(GREY, "o", ":"),
    "at": Look(ORANGE, "^", "--"),
    "trades": Look(VERMILLION, "s", "-."),
    "st": Look(BLUE, "D", "-"),
    "mart": Look(PURPLE, "v", (0, (4, 1, 1, 1, 1, 1))),
    "collaborative": Look(GREEN, "P", (0, (3, 1))),
    "at2": Look(ORANGE, "<", ":"),
    "trades2": Look(VERMILLION, "X", ":"),
    "mart2": Look(PURPLE, ">", ":"),
    "gairat": Look(SKY, "h", "--"),
    "gair-rst": Look(SKY, "p", "-."),
    "bat": Look(GREEN, "*", "-"),
}
"""Of networks, by the method that trained them."""

_COLOURS, _LINES, _MARKERS = (SKY, PURPLE, GREEN, ORANGE, BLUE, GREY, VERMILLION), ("--", ":", "-."), "dvP^X"
_SPARE = [  # two that follow each other differ in all three
    Look(colour, marker, line)
    for colour, marker, line, _ in zip(cycle(_COLOURS), cycle(_MARKERS), cycle(_LINES), range(105), strict=False)
]


def looks(methods: list[str | None]) -> list[Look]:
    """One for each of some networks: their method's, and another where it is taken or not known."""
    found: list[Look] = []
    spare = cycle(_SPARE)
    for method in methods:
        look = METHODS.get(method or "")
        found.append(look if look is not None and look not in found else next(spare))
    return found
