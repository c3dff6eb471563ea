"""From a network's name to a model with its initial weights, in either framework."""

from contextlib import nullcontext
from typing import Any, Literal

from stcore.errors import UsageError
from stcore.models.architectures import describe
from stcore.models.convert import load_weights
from stcore.models.description import MaxPool, Sequence, leaves
from stcore.models.initialize import initial_weights

DTYPES = ("float32", "float64")


def build(
    name: str,
    backend: Literal["torch", "keras"],
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    seed: int = 0,
    dtype: str = "float32",
    device: Any = None,
) -> Any:
    """A new model: pixels in [0, 1] in, logits (batch, num_classes) out.

    Images are (batch, in_channels, height, width) for torch, which gives an `nn.Module` in training mode, and
    (batch, height, width, in_channels) for Keras, which gives a functional `keras.Model`. `name` is one that
    `describe` knows, `image_size` is (height, width), `dtype` float32 or float64, `device` the framework's
    own (None: torch's CPU, Keras' choice). The initial weights depend on `name`, the counts and `seed`
    alone: both frameworks start from the same numbers, and no global random state is touched.

    Raises UsageError for a name, backend, dtype, size or seed that does not fit, ImportError where the
    framework is missing.
    """
    description = describe(name, num_classes, in_channels)
    if dtype not in DTYPES:
        raise UsageError(f"expected dtype to be one of {', '.join(DTYPES)}, received {dtype!r}")
    least = _smallest_image(description)
    if min(image_size) < least:
        raise UsageError(f"expected images of at least {least}×{least} for {name}, received {image_size}")
    weights = initial_weights(description, seed)

    model: Any
    match backend:
        case "torch":
            import torch

            from stcore.models.torch_builder import build_module

            model = build_module(description, dtype=getattr(torch, dtype), device=device)
        case "keras":
            import keras

            from stcore.models.keras_builder import build_model

            with nullcontext() if device is None else keras.device(device):
                model = build_model(
                    description, image_size=image_size, in_channels=in_channels, name=name, dtype=dtype
                )
        case _:
            raise UsageError(f"expected the backend torch or keras, received {backend!r}")
    load_weights(model, weights)
    return model


def _smallest_image(description: Sequence) -> int:
    """The side below which pooling would leave nothing."""
    least = 1
    for _, leaf in leaves(description):
        least *= leaf.size if isinstance(leaf, MaxPool) else 1
    return least
