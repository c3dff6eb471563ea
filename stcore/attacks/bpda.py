"""BPDA, backward pass differentiable approximation (Athalye, Carlini and Wagner, 2018), of layers that one names.

A layer that rounds or quantises has no useful gradient, and a gradient attack finds nothing behind it. In the
context of `bpda` its forward is as before, and its backward pass is that of another function, by default of the
identity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from stcore.base import checks
from stcore.core.dispatch import backend_of
from stcore.errors import UsageError
from stcore.protocols import Tensor

Approximation = Callable[[Tensor], Tensor]
"""A differentiable function of a layer's input, whose result has the shape and dtype of the layer's output."""


def bpda(model: Any, layers: Sequence[str] | Mapping[str, Approximation | None]) -> AbstractContextManager[Any]:
    """Context in which the named layers have the backward pass of another function. Yields the model.

        with bpda(model, ["quantise"]):
            stcore.evaluate(model, (x, y), ["autoattack"])

    model: a `torch.nn.Module` or a built `keras.Model`. Its logits are the same bit for bit; afterwards it is as
        before. A step compiled outside the context keeps its gradients, and one compiled inside keeps those.
    layers: names of layers (torch: as in `named_modules`; Keras: `layer.name`) or of types of layers, such as
        Quantise, which stands for all of that type. The backward pass is the identity's, for layers that keep
        their input's shape and dtype. A mapping gives for each name a differentiable function of the layer's
        input, in the model's framework, or None for the identity.

    Raises UsageError for a name that no layer has, a layer that is named twice, a compiled or scripted module and,
    at the first forward, an output that differs in shape or dtype from what the backward pass is taken of.
    """
    if isinstance(layers, str) or not layers:
        raise UsageError(f"layers: expected a list of names of layers; received {layers!r}. Write ['round']")
    named = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers)
    for name, by in named.items():
        if not isinstance(name, str) or not (by is None or callable(by)):
            raise UsageError(
                "layers: expected names, each with a function of the layer's input or None for the identity; "
                f"received {name!r}: {by!r}"
            )
    backend = backend_of(model)
    known: Sequence[tuple[str, Any]] = backend.named_layers(model)
    chosen: dict[int, tuple[str, Any, Approximation | None]] = {}
    for name, by in named.items():
        for layer in _found(name, known):
            if id(layer) in chosen:
                raise UsageError(
                    f"layers: expected each layer once; {chosen[id(layer)][0]} and {name} are the same. Drop one"
                )
            chosen[id(layer)] = name, layer, by
    context: AbstractContextManager[Any] = backend.bpda(model, list(chosen.values()))
    return context


def _found(name: str, known: Sequence[tuple[str, Any]]) -> list[Any]:
    """The layers of this name or, failing that, of this type. Raises UsageError if there are none."""
    found = [layer for its, layer in known if its == name]
    found = found or [layer for _, layer in known if type(layer).__name__ == name]
    if found:
        return found
    kinds = sorted({type(layer).__name__ for _, layer in known})
    meant = checks.did_you_mean(name, [*(its for its, _ in known), *kinds])
    raise UsageError(
        "layers: expected the name of one of the model's layers, or of their types, "
        f"{', '.join(kinds) or 'none'}; received {name!r}{meant}"
    )


def check_output(name: str, expected: tuple[Any, str], received: tuple[Any, str], identity: bool) -> None:
    """Raises UsageError unless a layer's output has the shape and dtype that its backward pass is taken of.

    expected: of the layer's input or, with identity=False, of its approximation.   received: of its output.
    """
    if expected == received:
        return
    (shape, dtype), (other, its) = expected, received
    hint = ". Give a differentiable function of its input for it, {name: function}" if identity else ""
    raise UsageError(
        f"layers: expected {name} to return the shape and dtype of its "
        f"{'input' if identity else 'approximation'}, {tuple(shape)} in {dtype}; received {tuple(other)} in "
        f"{its}{hint}"
    )


def not_one_tensor(name: str, output: Any) -> UsageError:
    """The error about a layer that does not map one tensor to one tensor."""
    return UsageError(f"layers: expected {name} to map one tensor to one; it returned {type(output).__name__}")
