"""Building of models by name, with their initial weights, in either framework."""

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
    """Builds a model that maps pixels in [0, 1] to logits (batch, num_classes).

    For torch the model is an `nn.Module` in training mode on images (batch, in_channels, height, width), for Keras
    a functional `keras.Model` on images (batch, height, width, in_channels).

    name: one that `describe` accepts, `timm:NAME`, `keras.applications:NAME` or `package.module:factory`, which
        may return any network of its framework.
    image_size: (height, width).   dtype: float32 or float64.   device: of the framework (None: torch's CPU, or the
        choice of Keras).   normalize: normalisation of the pixels inside the model, see `normalization.parse`.
    seed: of the initial weights, which depend only on `name`, the counts and `seed`; our own networks start from
        the same numbers in both frameworks. Global random states are restored.
    pretrained: use the weights that the library publishes, which may be downloaded; the head is new if the number
        of classes differs. Their normalisation is not applied by default: see `pretrained_normalization`.

    Raises UsageError for a name, backend, dtype, size or seed that does not fit, DataError for weights that cannot
    be downloaded, ImportError if the framework is missing.
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
    if origin.is_third_party(name):
        rest = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size, "seed": seed}
        return _build_third_party(name, backend, dtype, device, normalize=layer, pretrained=pretrained, **rest)
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


def _build_third_party(name: str, backend: str, dtype: str, device: Any, **rest: Any) -> Any:
    """Builds a network of a library or a factory."""
    if backend == "torch":
        import torch

        from stcore.models.torch_origin import build_module

        return build_module(name, dtype=getattr(torch, dtype), device=device, **rest)
    import keras

    from stcore.models.keras_origin import build_model

    with nullcontext() if device is None else keras.device(device):
        return build_model(name, dtype=dtype, **rest)


def pretrained_normalization(name: str) -> str:
    """The normalisation with which a library's published weights were trained, as `normalize` takes it.

    Raises UsageError for a network without published weights, or if the library is missing.
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
    """The smallest side in pixels that survives the pooling."""
    least = 1
    for _, leaf in leaves(description):
        least *= leaf.size if isinstance(leaf, MaxPool) else 1
    return least
