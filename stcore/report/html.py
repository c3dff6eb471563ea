"""HTML rendering: one file that loads nothing from a network and runs no script."""

from __future__ import annotations

import base64
from functools import cache
from importlib.resources import files
from typing import Any

from stcore.base.version import __version__
from stcore.figures import style
from stcore.report.blocks import Document, Picture


def html(document: Document) -> str:
    """The HTML page of a report."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("stcore.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.jinja")
    return page.render(document=document, css=_css(), version=__version__, sources=sources)


def sources(picture: Picture) -> dict[str, Any]:
    """The figure on a light and a dark background as data URLs, and its size in CSS pixels."""
    light, dark = picture.draw(False), picture.draw(True)
    width, height = (round(96 * inches) for inches in light.get_size_inches())
    return {
        "light": _data_url(style.svg(light)),
        "dark": _data_url(style.svg(dark)),
        "width": width,
        "height": height,
    }


def _data_url(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


@cache
def _css() -> str:
    return (files("stcore.report") / "report.css").read_text(encoding="utf-8")
