"""Architectures by name: the networks of the paper and smaller ones, as descriptions.

Structures, parameter counts and weight initialization: methods.md section 5. Each network maps pixels in [0, 1] to
logits; all end in a global average, so any image size that survives the pooling works.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import cast

from stcore.base.checks import did_you_mean
from stcore.base.registry import plug_ins
from stcore.errors import UsageError
from stcore.models.description import (
    BatchNorm,
    BiasLaw,
    Conv,
    ConvLaw,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Node,
    ReLU,
    Residual,
    Sequence,
    SiLU,
    Softplus,
    replaced,
    sequence,
)

Step = tuple[str, Node]
Block = Callable[[int, int, int, int], tuple[Step, ...]]  # (index, channels, width, stride)
STAGES = (64, 128, 256, 512)  # ResNet-18's widths
THIN_STAGES = (16, 32, 64)  # widths of the original CIFAR ResNets, depth 6n + 2


def _head(features: int, num_classes: int, bias_law: BiasLaw = "uniform_fan_in") -> tuple[Step, ...]:
    return ("pool", GlobalAveragePool()), ("linear", Linear(features, num_classes, bias_law))


def _stages(channels: int, widths: tuple[int, ...], blocks: int, block: Block) -> tuple[Step, ...]:
    """A stage of `blocks` blocks per width; each stage except the first begins by halving the image."""
    steps: list[Step] = []
    for number, width in enumerate(widths, start=1):
        stage: list[Step] = []
        for index in range(1, blocks + 1):
            stage += block(index, channels, width, 2 if number > 1 and index == 1 else 1)
            channels = width
        steps.append((f"stage{number}", sequence(*stage)))
    return tuple(steps)


def plain(
    num_classes: int, in_channels: int, *, widths: tuple[int, ...], strides: tuple[int, ...], activation: Node
) -> Sequence:
    """Convolution, batch norm, activation for each width, then the linear classifier."""
    steps: list[Step] = []
    channels = in_channels
    for i, (width, stride) in enumerate(zip(widths, strides, strict=True), start=1):
        conv = Conv(channels, width, stride=stride)
        steps += [(f"conv{i}", conv), (f"bn{i}", BatchNorm(width)), (f"relu{i}", activation)]
        channels = width
    return sequence(*steps, *_head(channels, num_classes))


def resnet(
    num_classes: int, in_channels: int, *, widths: tuple[int, ...], blocks: int, stride: int = 1
) -> Sequence:
    """ResNet for small images (He et al. 2016, section 4.2): 3×3 stem, no max-pool, post-activation blocks.

    stride: of the stem.   The shortcut is a 1×1 convolution and batch norm if the shape changes.
    """
    stem = widths[0]

    def block(index: int, channels: int, width: int, stride: int) -> tuple[Step, ...]:
        body = sequence(
            ("conv1", Conv(channels, width, stride=stride)),
            ("bn1", BatchNorm(width)),
            ("relu1", ReLU()),
            ("conv2", Conv(width, width)),
            ("bn2", BatchNorm(width)),
        )
        shortcut = None
        if stride > 1 or channels != width:
            conv = Conv(channels, width, kernel=1, stride=stride)
            shortcut = sequence(("conv", conv), ("bn", BatchNorm(width)))
        return (f"block{index}", Residual(body, shortcut)), (f"relu{index}", ReLU())

    return sequence(
        ("conv1", Conv(in_channels, stem, stride=stride)),
        ("bn1", BatchNorm(stem)),
        ("relu1", ReLU()),
        *_stages(stem, widths, blocks, block),
        *_head(widths[-1], num_classes),
    )


def small_resnet(num_classes: int, in_channels: int, *, width: int) -> Sequence:
    """A ResNet for small budgets: the stem halves the image, then three stages of two blocks."""
    return resnet(num_classes, in_channels, widths=(width, 2 * width, 4 * width), blocks=2, stride=2)


def preact_resnet(
    num_classes: int,
    in_channels: int,
    *,
    stem: int,
    widths: tuple[int, ...],
    blocks: int,
    law: ConvLaw = "uniform_fan_in",
    bias_law: BiasLaw = "uniform_fan_in",
) -> Sequence:
    """Pre-activation ResNet (He et al. 2016b): blocks of BN-ReLU-conv, a stem without BN, a last BN-ReLU.

    If the shape changes, the first BN-ReLU comes before the block, since both branches use its output, and the
    shortcut is a plain 1×1 convolution.
    """

    def block(index: int, channels: int, width: int, stride: int) -> tuple[Step, ...]:
        activation: tuple[Step, ...] = ("bn1", BatchNorm(channels)), ("relu1", ReLU())
        convolutions: tuple[Step, ...] = (
            ("conv1", Conv(channels, width, stride=stride, law=law)),
            ("bn2", BatchNorm(width)),
            ("relu2", ReLU()),
            ("conv2", Conv(width, width, law=law)),
        )
        if stride == 1 and channels == width:
            return ((f"block{index}", Residual(sequence(*activation, *convolutions))),)
        shortcut = sequence(("conv", Conv(channels, width, kernel=1, stride=stride, law=law)))
        return *activation, (f"block{index}", Residual(sequence(*convolutions), shortcut))

    return sequence(
        ("conv1", Conv(in_channels, stem, law=law)),
        *_stages(stem, widths, blocks, block),
        ("bn", BatchNorm(widths[-1])),
        ("relu", ReLU()),
        *_head(widths[-1], num_classes, bias_law),
    )


def wide_resnet(num_classes: int, in_channels: int, *, depth: int, width: int) -> Sequence:
    """WRN-depth-width (Zagoruyko & Komodakis 2016), depth = 6n + 4, with its own initialization, no dropout."""
    return preact_resnet(
        num_classes,
        in_channels,
        stem=16,
        widths=tuple(width * base for base in THIN_STAGES),
        blocks=(depth - 4) // 6,
        law="normal_fan_out",
        bias_law="zeros",
    )


def vgg16_bn(num_classes: int, in_channels: int) -> Sequence:
    """VGG-16 with batch norm in its usual CIFAR form: 13 convolutions with bias, one linear layer."""
    steps: list[Step] = []
    channels = in_channels
    for number, (width, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
        stage: list[Step] = []
        for i in range(1, depth + 1):
            conv = Conv(channels, width, bias=True)
            stage += [(f"conv{i}", conv), (f"bn{i}", BatchNorm(width)), (f"relu{i}", ReLU())]
            channels = width
        steps.append((f"stage{number}", sequence(*stage, ("pool", MaxPool()))))
    return sequence(*steps, *_head(channels, num_classes))


# Name → builder from the numbers of classes and channels. A new network is one line here.
_tiny = partial(plain, widths=(8, 16), strides=(1, 2))
ARCHITECTURES: dict[str, Callable[[int, int], Sequence]] = {
    "small-cnn": partial(plain, widths=(32, 64, 64), strides=(1, 2, 1), activation=ReLU()),
    "tiny": partial(_tiny, activation=ReLU()),
    "tiny-smooth": partial(_tiny, activation=Softplus()),
    "resnet8": partial(resnet, widths=THIN_STAGES, blocks=1),
    "resnet18": partial(resnet, widths=STAGES, blocks=2),
    "preact-resnet8": partial(preact_resnet, stem=16, widths=THIN_STAGES, blocks=1),
    "preact-resnet18": partial(preact_resnet, stem=64, widths=STAGES, blocks=2),
    "vgg16-bn": vgg16_bn,
}
SILU = "-silu"
"""Suffix of a name that replaces ReLU by SiLU, which improves robust networks (Gowal et al., 2020)."""
WRN_EXAMPLES = ("wrn-10-1", "wrn-28-10", "wrn-34-5", "wrn-34-10")
SMALL_EXAMPLES = ("resnet-s-16", "resnet-s-32", "resnet-s-64", "resnet-s-128")


DEEPEST, WIDEST = 1000, 64
"""Of a WRN, so that a name in a file cannot ask for a network that takes minutes to describe."""
SMALL_WIDTHS = range(8, 257, 8)
"""Of the first stage of resnet-s-W."""


GROUP = "stcore.models"
"""Of the entry points of installed packages' networks."""


def known_names() -> tuple[str, ...]:
    """The names that `describe` accepts, without -silu; of wrn-D-K and resnet-s-W only some."""
    return (*ARCHITECTURES, *SMALL_EXAMPLES, *WRN_EXAMPLES)


def describe(name: str, num_classes: int, in_channels: int = 3) -> Sequence:
    """The description of a network: `name` is one of `known_names()`, wrn-D-K with D = 6n + 4, or resnet-s-W.

    The suffix -silu replaces its ReLUs by SiLUs; everything else stays, the initial weights too.
    Raises UsageError for an unknown name, or counts below 1.
    """
    for what, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value < 1:
            raise UsageError(f"expected {what} of at least 1, received {value}")
    if name.endswith(SILU):
        plain = describe(name.removesuffix(SILU), num_classes, in_channels)
        return cast(Sequence, replaced(plain, ReLU(), SiLU()))
    if name in ARCHITECTURES:
        return ARCHITECTURES[name](num_classes, in_channels)
    if match := re.fullmatch(r"wrn-(\d{1,9})-(\d{1,9})", name):
        depth, width = map(int, match.groups())
        if not 10 <= depth <= DEEPEST or depth % 6 != 4 or not 1 <= width <= WIDEST:
            raise UsageError(
                f"expected wrn-D-K with D = 6n + 4 (10, 16, 22, 28, 34, … up to {DEEPEST}) and K from 1 to "
                f"{WIDEST}, received {name!r}"
            )
        return wide_resnet(num_classes, in_channels, depth=depth, width=width)
    if match := re.fullmatch(r"resnet-s-(\d{1,9})", name):
        if (width := int(match[1])) not in SMALL_WIDTHS:
            raise UsageError(
                f"expected resnet-s-W with W a multiple of {SMALL_WIDTHS.step} from {SMALL_WIDTHS[0]} to "
                f"{SMALL_WIDTHS[-1]}, received {name!r}"
            )
        return small_resnet(num_classes, in_channels, width=width)
    short = ", ".join((*ARCHITECTURES, *plug_ins(GROUP)))
    raise UsageError(
        f"expected a network's name, one of {short}, resnet-s-W (such as resnet-s-64) or "
        f"wrn-D-K with D = 6n + 4 (such as wrn-28-10), received {name!r}"
        + did_you_mean(name, (*known_names(), *plug_ins(GROUP)))
    )
