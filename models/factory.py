"""From a network's name to a model with its initial weights, in either framework."""

from contextlib import nullcontext
from typing import Any, Literal

from stcore.base.checks import did_you_mean
from stcore.errors import UsageError
from stcore.models import normalization, origin
from stcore.models.architectures import describe
from stcore.models.convert import load_weights
from stcore.models.description import MaxPool, Sequence, leaves, sequence
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
    normalize: str = "none",
    pretrained: bool = False,
) -> Any:
    """A new model: pixels in [0, 1] in, logits (batch, num_classes) out.

    Images are (batch, in_channels, height, width) for torch, which gives an `nn.Module` in training mode, and
    (batch, height, width, in_channels) for Keras, which gives a functional `keras.Model`. `name` is one that
    `describe` knows, `timm:NAME`, `keras.applications:NAME` or `package.module:factory`, whose network may be any
    of its framework; `image_size` is (height, width), `dtype` float32 or float64, `device` the framework's
    own (None: torch's CPU, Keras' choice), `normalize` what the model does to the pixels first: see
    `normalization.parse`. The initial weights depend on `name`, the counts and `seed` alone; of our own networks
    both frameworks start from the same numbers. Global random states are as before afterwards.

    pretrained: the weights that the library publishes, which may be downloaded; its head is fresh where the
    classes are others. What they were trained with is `pretrained_normalization`, which is not put in by itself.

    Raises UsageError for a name, backend, dtype, size or seed that does not fit, DataError for weights that cannot
    be had, ImportError where the framework is missing.
    """
    if backend not in ("torch", "keras"):
        hint = did_you_mean(backend, ("torch", "keras"))
        raise UsageError(f"expected the backend torch or keras, received {backend!r}{hint}")
    origin.check_name(name, backend)
    layer = normalization.parse(normalize, in_channels)
    if dtype not in DTYPES:
        raise UsageError(
            f"expected dtype to be one of {', '.join(DTYPES)}, received {dtype!r}{did_you_mean(dtype, DTYPES)}"
        )
    if origin.split(name) is not None:
        rest = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size, "seed": seed}
        return _elsewhere(name, backend, dtype, device, normalize=layer, pretrained=pretrained, **rest)
    description = describe(name, num_classes, in_channels)
    least = _smallest_image(description)
    if min(image_size) < least:
        raise UsageError(f"expected images of at least {least}×{least} for {name}, received {image_size}")
    weights = initial_weights(description, seed)
    if layer is not None:
        description = sequence(("normalize", layer), *description.steps)

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
    load_weights(model, weights)
    return model


def _elsewhere(name: str, backend: str, dtype: str, device: Any, **rest: Any) -> Any:
    """Somebody else's network."""
    if backend == "torch":
        import torch

        from stcore.models.torch_origin import build_module

        return build_module(name, dtype=getattr(torch, dtype), device=device, **rest)
    import keras

    from stcore.models.keras_origin import build_model

    with nullcontext() if device is None else keras.device(device):
        return build_model(name, dtype=dtype, **rest)


def pretrained_normalization(name: str) -> str:
    """The normalisation that the published weights of a library's network were trained with, for `normalize`.

    UsageError for a network that nobody publishes weights of, or where the library is missing.
    """
    from stcore.core.dispatch import load_backend

    source = (origin.split(name) or ("", ""))[0]
    if source not in origin.LIBRARIES:
        raise UsageError(f"pretrained: expected timm:NAME or keras.applications:NAME; received {name!r}")
    load_backend(origin.LIBRARIES[source])
    if source == "timm":
        from stcore.models import torch_origin as library
    else:
        from stcore.models import keras_applications as library  # type: ignore[no-redef]
    return library.pretrained_normalization(name)


def _smallest_image(description: Sequence) -> int:
    """The side below which pooling would leave nothing."""
    least = 1
    for _, leaf in leaves(description):
        least *= leaf.size if isinstance(leaf, MaxPool) else 1
    return least
