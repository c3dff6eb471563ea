"""Where a network loses its gradient: the first layer behind which it is no longer zero."""

from __future__ import annotations

from collections.abc import Callable

from stcore.audit.subject import Subject
from stcore.protocols import Array, Mode, Ops, Tensor

Loss = Callable[[Ops, Tensor, Tensor], Tensor]
"""Logits (B, C) and labels (B,) → a value per example (B,)."""

_FEW = 8  # images that show the place


def where_lost(subject: Subject, rows: Array, loss: Loss) -> str:
    """The place behind which these images' loss has a gradient, in words; empty if it is unknown.

    Adds a zero to whatever a layer takes and returns, and differentiates with respect to the zeros.
    rows: of images whose loss has a zero gradient.
    """
    model, ops = subject.classifier, subject.classifier.ops
    x, y = model.images(subject.images[rows[:_FEW]]), model.labels(subject.labels[rows[:_FEW]])
    places: list[tuple[str, str]] = []
    zeros: list[Tensor] = []

    def note(layer: str, side: str, tensor: Tensor) -> Tensor:
        places.append((layer, side))
        zeros.append(tensor - tensor)
        return tensor

    def shifted(*shifts: Tensor) -> Tensor:
        rest = iter(shifts)
        with model.tapped(lambda layer, side, tensor: tensor + next(rest)):
            return loss(ops, model.logits(x, Mode.EVAL), y)

    def gradients() -> tuple[Tensor, ...]:
        value, pullback = ops.vjp(shifted, *zeros)
        return pullback(ops.ones_like(value))

    with model.tapped(note):
        ops.unrecorded(lambda: model.logits(x, Mode.EVAL))
    if not places:
        return ""
    return _in_words(places, [bool((ops.to_numpy(each) != 0).any()) for each in ops.unrecorded(gradients)])


def _in_words(places: list[tuple[str, str]], sees: list[bool]) -> str:
    """places: the sides of all layers, in the order of the forward.   sees: where the gradient is not zero."""
    if True not in sees:
        return "lost behind the logits, in the loss"
    first = sees.index(True)
    layer, side = places[first]
    if layer and side == "output":
        return f"lost in the layer {layer}"
    if layer:
        return f"lost before the layer {layer}, outside of any layer"
    inner = [name for name, _ in places[:first] if name]
    return f"lost behind the layer {inner[-1]}, outside of any layer" if inner else "lost outside of any layer"
