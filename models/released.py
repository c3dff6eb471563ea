"""State dicts that others released, in our names.

A description says which weights a network has; a layout says what a repository calls each of them. A state dict
is of a network where its names and shapes are all of the network's, in one layout: nothing is guessed. What
PyTorch users wrap a network in (DataParallel, torch.compile, averaging, a Sequential) is taken off first.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UsageError
from stcore.models import normalization
from stcore.models.architectures import ARCHITECTURES, describe
from stcore.models.description import weight_shapes

Array = NDArray[Any]


@dataclass(frozen=True)
class Released:
    """A released network: what to `build`, its weights by canonical name, and the tensors it never uses.

    normalize: what it does to the pixels first, as `build` takes it.
    """

    model: str
    num_classes: int
    in_channels: int
    weights: dict[str, Array]
    unused: tuple[str, ...]
    normalize: str


def recognise(state: Mapping[str, Array], model: str | None = None) -> Released:
    """The network that a state dict is of, with its weights in our names.

    `model` names the network; by default it is the one that fits. UsageError says what does not fit, in the
    names of the state dict.
    """
    bare, normalising = _unwrap(state)
    unused = tuple(name for name in bare if name.startswith(_UNUSED))
    left = {name: array for name, array in bare.items() if name not in unused}
    models = [model] if model else [*ARCHITECTURES, _wide_resnet(left)]
    layouts = [(name, layout) for name in models for layout in _LAYOUTS if name.startswith(layout.networks)]
    fits = sorted((_fit(name, layout, left) for name, layout in layouts), key=lambda fit: fit.wrong)
    best = fits[0]
    if best.wrong:
        which = best.model if model else f"a known network (the nearest is {best.model})"
        raise UsageError(
            f"file: expected the weights of {which}; received {len(left)} tensors that do not fit: "
            f"{best.problems()}. Give another --model. {_INSTEAD}"
        )
    if len(same := {fit.model for fit in fits if not fit.wrong}) > 1:
        raise UsageError(f"model: expected one of {', '.join(sorted(same))}, which all fit. Give --model")
    normalize = _normalisation(normalising, best.in_channels)
    weights = {ours: left[theirs] for ours, theirs in best.names.items()}
    return Released(best.model, best.num_classes, best.in_channels, weights, unused, normalize)


@dataclass(frozen=True)
class _Layout:
    networks: tuple[str, ...]
    """How the names of those that go by it begin."""
    block: str
    """What stands before the names of a block: {stage} counts from 1, {index} from 0."""
    modules: Mapping[str, str]
    """What it calls a module otherwise than we do."""

    def name(self, ours: str) -> str:
        """Its name of the weight that we call `ours`."""
        stage, index, module, kind = _PARTS.fullmatch(ours).groups()  # type: ignore[union-attr]
        block = self.block.format(stage=stage, index=int(index or 1) - 1) if stage else ""
        return f"{block}{self.modules.get(module, module)}.{kind}"


class _Ours(_Layout):
    def name(self, ours: str) -> str:
        return ours


# The batch norm that both branches of a block see stands before the block here, and in it everywhere else.
_PARTS = re.compile(r"(?:stage(\d+)\.(?:block(\d+)\.)?)?(.+)\.(\w+)")
_SHORTCUT = {"shortcut.conv": "shortcut.0", "shortcut.bn": "shortcut.1"}
_DOWNSAMPLE = {"shortcut.conv": "downsample.0", "shortcut.bn": "downsample.1"}
_WIDE, _RESIDUAL = ("wrn-",), ("resnet", "preact-resnet")
_LAYOUTS = (
    # the WRN of TRADES, MART, AWP, RST, GAIRAT, ST and RobustBench
    _Layout(_WIDE, "block{stage}.layer.{index}.", {"bn": "bn1", "linear": "fc", "shortcut.conv": "convShortcut"}),
    # the ResNets and PreActResNets of the same, and their variants
    _Layout(_RESIDUAL, "layer{stage}.{index}.", _SHORTCUT),
    _Layout(_RESIDUAL, "layer{stage}.{index}.", _SHORTCUT | {"linear": "fc"}),
    _Layout(_RESIDUAL, "layer{stage}.{index}.", _DOWNSAMPLE | {"linear": "fc"}),
    _Ours(("",), "", {}),
)
_UNUSED = "sub_block1."  # the copy of block1 that TRADES' WRN and its heirs make and never call
_COUNTERS = ("num_batches_tracked", "n_averaged")
_MEANS, _DEVIATIONS = ("mean", "mu"), ("std", "sigma")  # of a layer before the network
_INSTEAD = "Or build the network in PyTorch and give the module itself to stcore.evaluate"


def _unwrap(state: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Without counters and what stands before every name; and apart from it the tensors that normalise pixels."""
    kept, found = {}, {}
    for name, array in state.items():
        last = name.rpartition(".")[2]
        if last in (*_MEANS, *_DEVIATIONS):
            found[name] = array
        elif last not in _COUNTERS:
            kept[name] = array
    while len({name.partition(".")[0] for name in kept}) == 1 and all("." in name for name in kept):
        kept = {name.partition(".")[2]: array for name, array in kept.items()}
    return kept, found


def _normalisation(found: Mapping[str, Array], channels: int) -> str:
    """What tensors of these names do to the pixels, as `build` takes it; UsageError where that is not said by a
    mean and a deviation for each channel."""
    means = [array for name, array in found.items() if name.rpartition(".")[2] in _MEANS]
    deviations = [array for name, array in found.items() if name.rpartition(".")[2] in _DEVIATIONS]
    if all(not np.any(array) for array in means) and all(np.all(array == 1) for array in deviations):
        return normalization.NONE  # there is none, or it does nothing
    if len(means) == len(deviations) == 1 and all(
        array.size == max(array.shape, default=0) == channels for array in (*means, *deviations)
    ):
        return normalization.text_of(means[0].ravel().tolist(), deviations[0].ravel().tolist())
    said = ", ".join(f"{name} of shape {array.shape}" for name, array in found.items())
    raise UsageError(
        f"file: expected a network that normalises pixels, if at all, by a mean and a deviation for each channel; "
        f"received {said}. {_INSTEAD}"
    )


def _wide_resnet(state: Mapping[str, Array]) -> str:
    """The wrn-D-K whose first stage this would be."""
    blocks = [name for name in state if re.fullmatch(r"(block1\.layer\.|stage1\.block)\d+\.conv1\.weight", name)]
    width = _length(state, blocks[0], 0) // 16 if blocks else 1
    return f"wrn-{6 * max(1, len(blocks)) + 4}-{max(1, width)}"


def _length(state: Mapping[str, Array], name: str, axis: int) -> int:
    """Of one axis of a tensor; 1 where there is no such axis, as will be said."""
    shape = state[name].shape if name in state else ()
    return max(1, shape[axis]) if len(shape) > axis else 1


@dataclass(frozen=True)
class _Fit:
    """How a state dict fits a network in one layout."""

    model: str
    num_classes: int
    in_channels: int
    names: Mapping[str, str]
    wrongs: Mapping[str, list[str]]

    @property
    def wrong(self) -> int:
        return sum(map(len, self.wrongs.values()))

    def problems(self) -> str:
        return "; ".join(
            f"{len(names)} {what}: {', '.join(names[:4])}{', …' if len(names) > 4 else ''}"
            for what, names in self.wrongs.items()
            if names
        )


def _fit(model: str, layout: _Layout, state: Mapping[str, Array]) -> _Fit:
    first, *_, last = weight_shapes(describe(model, 1, 1))
    num_classes, in_channels = _length(state, layout.name(last), 0), _length(state, layout.name(first), 1)
    shapes = weight_shapes(describe(model, num_classes, in_channels))
    names = {ours: layout.name(ours) for ours in shapes}
    theirs = {names[ours]: shape for ours, shape in shapes.items()}
    wrongs = {
        "missing": [name for name in theirs if name not in state],
        "unexpected": [name for name in state if name not in theirs],
        "of another shape": [
            f"{name} (expected {shape}, received {state[name].shape})"
            for name, shape in theirs.items()
            if name in state and state[name].shape != shape
        ],
    }
    return _Fit(model, num_classes, in_channels, names, wrongs)
