"""Third-party networks in PyTorch: of timm, or from a factory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stcore.base.checks import did_you_mean
from stcore.errors import DataError, UsageError
from stcore.models import normalization, origin
from stcore.models.description import Normalize
from stcore.models.seeded import seeded
from stcore.models.torch_layers import Normalization, Normalized


def build_module(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
    seed: int,
    dtype: torch.dtype,
    device: torch.device | str | None,
    normalize: Normalize | None,
    pretrained: bool,
) -> nn.Module:
    """The network of this name after the normalisation.

    New weights are drawn on the CPU in float32, so they depend on the seed but not on `dtype` and `device`.
    Raises UsageError if there is no such network, DataError for weights that cannot be downloaded.
    """
    with seeded(seed) as number, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(number)  # not torch.manual_seed, which also seeds the accelerators
        if name.startswith("timm:"):
            model = _timm_model(name, num_classes, in_channels, image_size, pretrained)
        else:
            model = origin.call_factory(
                name, num_classes=num_classes, in_channels=in_channels, image_size=image_size
            )
    if not isinstance(model, nn.Module):
        raise UsageError(f"model: expected {name} to return a torch.nn.Module; received {type(model).__name__}")
    if normalize is not None:
        model = Normalized(Normalization(normalize.mean, normalize.std), model)
    return model.to(device=device or "cpu", dtype=dtype)


def pretrained_normalization(name: str) -> str:
    """The normalisation of timm's weights of this name, as `--normalize` takes it."""
    config = _config(name)
    if config is None:
        raise UsageError(f"pretrained: expected a network with published weights; timm has none of {name}")
    return normalization.text_of(config.mean, config.std)


def _timm_model(
    name: str, num_classes: int, in_channels: int, image_size: tuple[int, int], pretrained: bool
) -> nn.Module:
    config, timm = _config(name), _timm()
    size = {"img_size": image_size} if config is not None and config.fixed_input_size else {}
    counts = {"num_classes": num_classes, "in_chans": in_channels}
    try:
        model: nn.Module = timm.create_model(name.partition(":")[2], pretrained=pretrained, **counts, **size)
    except Exception as error:  # no connection, or an unsupported size
        if pretrained:
            raise DataError(f"pretrained: the weights of {name} cannot be had ({error})") from error
        raise UsageError(
            f"model: {name} cannot be built for {image_size[0]}×{image_size[1]} pixels and {in_channels} channels "
            f"({type(error).__name__}: {error})"
        ) from error
    return model


def _config(name: str) -> Any:
    """timm's configuration of a network's published weights; None if there are none."""
    timm, member = _timm(), name.partition(":")[2]
    if not timm.is_model(member):
        hint = did_you_mean(member, timm.list_models(), at_most=3)
        raise UsageError(f"model: expected a network of timm {timm.__version__}; received {member!r}{hint}")
    try:
        return timm.get_pretrained_cfg(member)
    except RuntimeError as error:  # an unknown tag after the dot
        raise UsageError(f"model: {name}: {error}") from error


def _timm() -> Any:
    try:
        try:
            import timm
        except RuntimeError:  # a torchvision built for another torch
            _declare_operators()
            import timm
    except (ImportError, RuntimeError) as error:
        raise UsageError(
            f"model: timm cannot be imported ({error}). In the repository: pip install '.[timm]' (see "
            "docs/models.md)"
        ) from error
    return timm


def _declare_operators() -> None:
    """Names the operators of torchvision's that its import looks for, where its compiled half cannot be loaded.

    timm imports torchvision and calls none of them; whoever does gets torchvision's own error.
    """
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        schema = f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    _DECLARED.append(library)


_DECLARED: list[torch.library.Library] = []
"""What was declared, which would end with the object."""
