"""Figs. 2 and 11: images, their perturbations and the resulting examples; a row per image and model."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stcore.analysis.examples import Pictures, Result
from stcore.errors import UsageError
from stcore.figures.style import PAGE, styled
from stcore.protocols import Array
from stcore.results import names

_COLUMNS = [
    "natural",
    "adversarial\nperturbation",
    "adversarial\nexample",
    "collaborative\nperturbation",
    "collaborative\nexample",
]


@styled
def draw(result: Result) -> Figure:
    """Labels each image with its loss and its predicted class, and marks wrong predictions.

    Raises UsageError unless the images have 1 or 3 channels.
    """
    shape = result.models[0].images["natural"].shape
    if len(shape) != 4 or shape[-1] not in (1, 3):
        raise UsageError(f"examples: expected images (N, H, W, C) of 1 or 3 channels to draw; received {shape}")
    count, models = len(result.positions), len(result.models)
    figure = Figure(figsize=(0.72 * PAGE, 1.18 * count * models + 0.6))
    grid = figure.subplots(count * models, len(_COLUMNS), squeeze=False)
    for row, axes in enumerate(grid):
        n, model = row // models, result.models[row % models]
        _row(axes, n, model, result)
    for axes, title in zip(grid[0], _COLUMNS, strict=True):
        axes.set_title(title)
    radius = f"{names.norm(result.settings.norm)} ε = {names.radius(result.settings.epsilon)}"
    figure.supxlabel(
        f"{radius}; perturbations × {result.amplification:.3g} around mid grey; CE: cross-entropy in nats; "
        "✗: wrong class",
        size=7,
    )
    return figure


def _row(axes: list[Axes], n: int, model: Pictures, result: Result) -> None:
    for at, kind in ((0, "natural"), (2, "adversarial"), (4, "collaborative")):
        _picture(axes[at], model.images[kind][n])
        predicted = int(model.predicted[kind][n])
        wrong = "" if predicted == int(result.labels[n]) else " ✗"
        axes[at].set_xlabel(f"CE {model.losses[kind][n]:.2g}\n{result.classes[predicted]}{wrong}", size=7)
        if at:
            _picture(axes[at - 1], 0.5 + result.amplification * model.perturbation(kind)[n])
    label = result.classes[int(result.labels[n])]
    axes[0].set_ylabel(f"{model.name}\nimage {int(result.positions[n])}\n{label}", size=7)


def _picture(axes: Axes, pixels: Array) -> None:
    grey = pixels.shape[-1] == 1
    shown = np.clip(pixels[..., 0] if grey else pixels, 0, 1)
    axes.imshow(shown, cmap="gray" if grey else None, vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
