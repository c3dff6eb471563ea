"""Recognition of released PyTorch state dicts, and conversion to our names.

A description lists a network's weights; a layout maps them to a repository's names. A state dict belongs to a
network if all names and shapes match in one layout: nothing is guessed. Wrappers of PyTorch (DataParallel,
torch.compile, averaging, a Sequential) are removed first.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UsageError
from stcore.models import normalization
from stcore.models.architectures import ARCHITECTURES, describe
from stcore.models.convert import COUNTER
from stcore.models.description import weight_shapes

Array = NDArray[Any]


@dataclass(frozen=True)
class Released:
    """A released network: the arguments of `build`, its weights by canonical name, and its unused tensors.

    normalize: its pixel normalisation, as `build` takes it.
    """

    model: str
    num_classes: int
    in_channels: int
    weights: dict[str, Array]
    unused: tuple[str, ...]
    normalize: str


def recognise(state: Mapping[str, Array], model: str | None = None) -> Released:
    """The network of a state dict, with its weights in our names.

    model: the network's name; by default the one that fits.
    Raises UsageError, in the state dict's names, if no network or more than one fits.
    """
    bare, normalising = _unwrap(state)
    unused = tuple(name for name in bare if name.startswith(_UNUSED))
    used = {name: array for name, array in bare.items() if name not in unused}
    fits = _fits(used, model)
    best = fits[0]
    if best.mismatches:
        which = best.model if model else f"a known network (the nearest is {best.model})"
        raise UsageError(
            f"file: expected the weights of {which}; received {len(used)} tensors that do not fit: "
            f"{best.problems()}. Give another --model. {_INSTEAD}"
        )
    if len(same := {fit.model for fit in fits if not fit.mismatches}) > 1:
        raise UsageError(f"model: expected one of {', '.join(sorted(same))}, which all fit. Give --model")
    normalize = _normalisation(normalising, best.in_channels)
    weights = {ours: used[theirs] for ours, theirs in best.names.items()}
    if broken := [best.names[ours] for ours, array in weights.items() if not np.isfinite(array).all()]:
        raise UsageError(
            f"file: expected finite weights; received NaN or infinity in {len(broken)} tensors, such as "
            f"{broken[0]}. The training that wrote them had diverged"
        )
    return Released(best.model, best.num_classes, best.in_channels, weights, unused, normalize)


def _fits(state: Mapping[str, Array], model: str | None) -> list["_Fit"]:
    """The match with each network in each layout that it may have, the nearest first."""
    models = [model] if model else [*ARCHITECTURES, _wide_resnet(state)]
    layouts = [(name, layout) for name in models for layout in _LAYOUTS if name.startswith(layout.networks)]
    return sorted((_fit(name, layout, state) for name, layout in layouts), key=_Fit.likeness, reverse=True)


@dataclass(frozen=True)
class _Layout:
    """A repository's names of weights."""

    networks: tuple[str, ...]
    """Prefixes of the names of its networks."""
    block: str
    """Prefix of the names in a block: {stage} counts from 1, {index} from 0."""
    modules: Mapping[str, str]
    """Our module name → its module name, if they differ."""

    def name(self, ours: str) -> str:
        """The repository's name of a weight, from ours."""
        stage, index, module, kind = _PARTS.fullmatch(ours).groups()  # type: ignore[union-attr]
        block = self.block.format(stage=stage, index=int(index or 1) - 1) if stage else ""
        return f"{block}{self.modules.get(module, module)}.{kind}"


class _Ours(_Layout):
    """Our own names."""

    def name(self, ours: str) -> str:
        return ours


# The batch norm that both branches of a block use comes before the block in our names, and inside it in others.
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
_UNUSED = "sub_block1."  # a copy of block1 that the WRN of TRADES and its successors create but never call
_COUNTERS = (COUNTER, "n_averaged")
_MEANS, _DEVIATIONS = ("mean", "mu"), ("std", "sigma")  # buffers of a normalisation layer
_INSTEAD = "Or build the network in PyTorch and give the module itself to stcore.evaluate"


def _unwrap(state: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """The weights without counters and common prefixes, and the tensors that normalise pixels."""
    weights, normalising = {}, {}
    for name, array in state.items():
        last = name.rpartition(".")[2]
        if last in (*_MEANS, *_DEVIATIONS):
            normalising[name] = array
        elif last not in _COUNTERS:
            weights[name] = array
    while wrapper := _wrapper(weights):
        weights = {name.removeprefix(wrapper): array for name, array in weights.items()}
    return weights, normalising


def _wrapper(names: Collection[str]) -> str:
    """What a wrapper put before nine of ten names or more, as a stray tensor may stand beside them; or nothing."""
    first = [before + dot for before, dot, _ in (name.partition(".") for name in names) if dot]
    common, count = Counter(first).most_common(1)[0] if first else ("", 0)
    return common if count >= 0.9 * len(names) else ""


def _normalisation(tensors: Mapping[str, Array], channels: int) -> str:
    """The normalisation by these tensors, as `build` takes it.

    Raises UsageError unless it is a mean and a standard deviation per channel.
    """
    means = [array for name, array in tensors.items() if name.rpartition(".")[2] in _MEANS]
    deviations = [array for name, array in tensors.items() if name.rpartition(".")[2] in _DEVIATIONS]
    if all(not np.any(array) for array in means) and all(np.all(array == 1) for array in deviations):
        return normalization.NONE  # no normalisation, or the identity
    if len(means) == len(deviations) == 1 and all(
        array.size == max(array.shape, default=0) == channels for array in (*means, *deviations)
    ):
        return normalization.text_of(means[0].ravel().tolist(), deviations[0].ravel().tolist())
    received = ", ".join(f"{name} of shape {array.shape}" for name, array in tensors.items())
    raise UsageError(
        f"file: expected a network that normalises pixels, if at all, by a mean and a deviation for each channel; "
        f"received {received}. {_INSTEAD}"
    )


def _wide_resnet(state: Mapping[str, Array]) -> str:
    """The name wrn-D-K, inferred from the first stage."""
    blocks = [name for name in state if re.fullmatch(r"(block1\.layer\.|stage1\.block)\d+\.conv1\.weight", name)]
    width = _length(state, blocks[0], 0) // 16 if blocks else 1
    return f"wrn-{6 * max(1, len(blocks)) + 4}-{max(1, width)}"


def _length(state: Mapping[str, Array], name: str, axis: int) -> int:
    """The length of one axis of a tensor; 1 if there is no such axis, which `_fit` then reports."""
    shape = state[name].shape if name in state else ()
    return max(1, shape[axis]) if len(shape) > axis else 1


@dataclass(frozen=True)
class _Fit:
    """The match of a state dict with a network in one layout."""

    model: str
    num_classes: int
    in_channels: int
    names: Mapping[str, str]  # our name → the layout's
    wrong: Mapping[str, list[str]]  # kind of mismatch → names

    @property
    def mismatches(self) -> int:
        return sum(map(len, self.wrong.values()))

    def likeness(self) -> float:
        """Of all names, the network's and the file's, the share that fit, in [0, 1]; 1 where all do."""
        missing, unexpected, misshapen = (len(names) for names in self.wrong.values())
        return 1 - (missing + unexpected + misshapen) / (len(self.names) + unexpected)

    def problems(self) -> str:
        return "; ".join(
            f"{len(names)} {what}: {', '.join(names[:4])}{', …' if len(names) > 4 else ''}"
            for what, names in self.wrong.items()
            if names
        )


def _fit(model: str, layout: _Layout, state: Mapping[str, Array]) -> _Fit:
    first, *_, last = weight_shapes(describe(model, 1, 1))
    num_classes, in_channels = _length(state, layout.name(last), 0), _length(state, layout.name(first), 1)
    shapes = weight_shapes(describe(model, num_classes, in_channels))
    names = {ours: layout.name(ours) for ours in shapes}
    theirs = {names[ours]: shape for ours, shape in shapes.items()}
    wrong = {
        "missing": [name for name in theirs if name not in state],
        "unexpected": [name for name in state if name not in theirs],
        "of another shape": [
            f"{name} (expected {shape}, received {state[name].shape})"
            for name, shape in theirs.items()
            if name in state and state[name].shape != shape
        ],
    }
    return _Fit(model, num_classes, in_channels, names, wrong)
