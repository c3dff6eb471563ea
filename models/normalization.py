"""Pixel normalisation as text: `--normalize MEAN/STD`, and the published values."""

from collections.abc import Sequence

from stcore.errors import UsageError
from stcore.models.description import Normalize

NONE = "none"
PUBLISHED = {
    "cifar10": "0.4914,0.4822,0.4465/0.2471,0.2435,0.2616",
    "cifar100": "0.50708,0.48655,0.44092/0.26733,0.25644,0.27615",
    "imagenet": "0.485,0.456,0.406/0.229,0.224,0.225",
    "svhn": "0.5,0.5,0.5/0.5,0.5,0.5",
}
"""Means and standard deviations of training pixels in [0, 1], as in AWP (those of svhn are not statistics)."""


def parse(text: str, channels: int | None = None) -> Normalize | None:
    """The layer of `text`: a published name, or MEAN/STD with a number per channel; None for "none".

    channels: of the images, or None to skip that check.
    Raises UsageError for another text, a std that is not above 0, or another number of channels.
    """
    if text == NONE:
        return None
    parts = [_numbers(part) for part in PUBLISHED.get(text, text).split("/")]
    numbers = [part for part in parts if part]
    if len(parts) != 2 or len(numbers) != 2 or len(numbers[0]) != len(numbers[1]):
        raise UsageError(
            f"normalize: expected none, {', '.join(PUBLISHED)} or MEAN/STD with a number for each channel, such "
            f"as {PUBLISHED['imagenet']}; received {text!r}"
        )
    mean, std = numbers
    if not all(0 < value < float("inf") for value in std) or not all(abs(value) < float("inf") for value in mean):
        raise UsageError(f"normalize: expected finite means, and deviations above 0; received {text!r}")
    if channels is not None and len(mean) != channels:
        raise UsageError(
            f"normalize: expected {channels} means and deviations, one for each channel of the images; received "
            f"{len(mean)}: {text!r}. Give --normalize MEAN/STD, or none"
        )
    return Normalize(mean, std)


def text_of(mean: Sequence[float], std: Sequence[float]) -> str:
    """The text that `parse` reads, with nine digits."""
    return "/".join(",".join(f"{value:.9g}" for value in values) for values in (mean, std))


def canonical(text: str) -> str:
    """The canonical text of a layer: the same for cifar10 and for its numbers."""
    layer = parse(text)
    return NONE if layer is None else text_of(layer.mean, layer.std)


def _numbers(text: str) -> tuple[float, ...] | None:
    """Comma-separated numbers; None if one is invalid."""
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        return None
