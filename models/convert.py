"""Weight conversion: any model to named numpy arrays in torch's layout, and back.

The names of our own networks are the same in both frameworks; other models keep the names of their modules or
layers, which fit only the same model. A normalisation layer before the network does not appear in the names.

Each framework provides its tensors as slots by name; exporting reads them all, loading checks them all and then
writes them. No framework is imported: a model's framework is in sys.modules already.
"""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from stcore.errors import UsageError

Array = NDArray[Any]
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class _Slot:
    """A weight: its canonical shape, and functions that read and write it."""

    shape: tuple[int, ...]
    read: Callable[[], Array]
    write: Callable[[Array], None]


def export_weights(model: Any) -> dict[str, Array]:
    """Copies the weights and running statistics of `model` by canonical name, in the model's dtype.

    Convolutions are (out, in, height, width) and linear weights (out, in) in both frameworks. A weight that two
    torch modules share appears twice. Raises UsageError for anything but a torch or Keras model, or for a Keras
    model with two weights of one name.
    """
    return {name: np.array(slot.read(), order="C") for name, slot in _slots(model).items()}


def load_weights(model: Any, weights: Mapping[str, Array]) -> None:
    """Loads `weights`, as `export_weights` returns them, into `model` in place, in the model's dtype.

    A state dict of PyTorch may hold counters of batches too, with which no network computes, and what a wrapper
    (DataParallel, torch.compile, Lightning) put before all names: both are left out.
    Raises UsageError, with nothing changed, for missing, unexpected or misshapen weights.
    """
    slots = _slots(model)
    arrays = {name: np.asarray(array) for name, array in weights.items() if not name.endswith(COUNTER)}
    arrays = _unwrapped(arrays, slots)
    _check(slots, arrays)
    for name, slot in slots.items():
        slot.write(arrays[name])
    for layer in model._flatten_layers() if hasattr(model, "_flatten_layers") else ():
        if hasattr(layer, "finalize_state"):  # such a layer computes with values derived from its weights
            layer.finalize_state()


def trainable_weights(model: Any) -> dict[str, Any]:
    """Its trainable parameters or variables in the framework's order, by the names of `export_weights`.

    Raises UsageError for anything but a `torch.nn.Module` or built `keras.Model`.
    """
    _, torch = _frameworks(model)
    if torch is not None:
        return dict(_plain_module(model).named_parameters())
    names: dict[int, str] = {}
    for path, variable in _keras_variables(without_normalization(model)):
        names[id(variable)] = _keras_name(path, variable)
    weights: dict[str, Any] = {}
    for variable in model.trainable_variables:
        name = names.get(id(variable), variable.path)
        weights[variable.path if name in weights else name] = variable
    return weights


def _unwrapped(arrays: dict[str, Array], slots: Collection[str]) -> dict[str, Array]:
    """The arrays without what stands before all of their names, if the names then fit, and did not before."""
    bare = arrays
    while (
        bare.keys() != set(slots)
        and len({name.partition(".")[0] for name in bare}) == 1
        and all("." in name for name in bare)
    ):
        bare = {name.partition(".")[2]: array for name, array in bare.items()}
    return bare if bare.keys() == set(slots) else arrays


def _check(slots: dict[str, _Slot], arrays: dict[str, Array]) -> None:
    wrong = {
        "missing": [name for name in slots if name not in arrays],
        "unexpected": [name for name in arrays if name not in slots],
        "of another shape": [
            f"{name} (expected {slot.shape}, received {arrays[name].shape})"
            for name, slot in slots.items()
            if name in arrays and arrays[name].shape != slot.shape
        ],
    }
    problems = [
        f"{len(names)} {what}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
        for what, names in wrong.items()
        if names
    ]
    if problems:
        raise UsageError(
            f"expected the {len(slots)} weights of this model, received {len(arrays)} that do not fit: "
            f"{'; '.join(problems)}. Build the model with the name, classes and channels of these weights"
        )


def _slots(model: Any) -> dict[str, _Slot]:
    keras, torch = _frameworks(model)
    return _torch_slots(model, torch) if torch is not None else _keras_slots(model, keras)


def _frameworks(model: Any) -> tuple[Any, Any]:
    """keras for a keras.Model or torch for a torch.nn.Module, and None for the other; UsageError for else."""
    # Keras first: on Keras' torch backend a keras.Model is an nn.Module as well.
    keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
    if keras is not None and isinstance(model, keras.Model):
        return keras, None
    if torch is not None and isinstance(model, torch.nn.Module):
        return None, torch
    raise UsageError(f"expected a torch.nn.Module or a keras.Model, received {type(model).__name__}")


def _plain_module(model: Any) -> Any:
    """The module without torch.compile's wrapper and the normalisation layer before it."""
    from stcore.models.torch_layers import Normalized

    model = getattr(model, "_orig_mod", model)  # torch.compile wraps a module as its child _orig_mod
    return model.network if isinstance(model, Normalized) else model


def _torch_slots(model: Any, torch: Any) -> dict[str, _Slot]:
    def slot(tensor: Any) -> _Slot:  # state_dict's tensors are detached views of the model's own
        return _Slot(
            tuple(tensor.shape),
            lambda: tensor.cpu().numpy(),
            lambda array: tensor.copy_(torch.tensor(array)),
        )

    return {
        name.replace("_orig_mod.", ""): slot(tensor)
        for name, tensor in _plain_module(model).state_dict().items()
        if not name.endswith(COUNTER)
    }


# Canonical name of each Keras variable, and the axes of Keras' and torch's layouts by a kernel's rank.
_NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_KERNELS = {4: ("h w i o", "o i h w"), 2: ("i o", "o i")}


def _keras_slots(model: Any, keras: Any) -> dict[str, _Slot]:
    slots: dict[str, _Slot] = {}
    for path, variable in _keras_variables(without_normalization(model)):
        name = _keras_name(path, variable)
        if name in slots:
            owner = path[-1] if path else model.name
            raise UsageError(
                f"model: expected one weight of each name in a layer; {owner} holds several called "
                f"{variable.name}. Give its layers names of their own"
            )
        slots[name] = _keras_slot(variable, keras)
    return slots


def _keras_name(path: tuple[str, ...], variable: Any) -> str:
    return ".".join([*path, _NAMES.get(variable.name, variable.name)])


def without_normalization(model: Any) -> Any:
    """The Keras network without a normalisation layer before it."""
    import keras

    from stcore.models.keras_layers import Normalization

    match [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]:
        case [Normalization(), keras.Model() as network]:
            return network
    return model


def _keras_variables(layer: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields each weight of a layer or model once, with the path of layer names."""
    seen: set[int] = set()
    for child in layer._flatten_layers(include_self=False, recursive=False):
        for inner_path, variable in _keras_variables(child, (*path, child.name)):
            if id(variable) not in seen:  # two layers may share one
                seen.add(id(variable))
                yield inner_path, variable
    for variable in layer.weights:
        if id(variable) not in seen:
            yield path, variable


def _keras_slot(variable: Any, keras: Any) -> _Slot:
    rank = len(variable.shape)
    same = " ".join(f"axis{i}" for i in range(rank))
    keras_axes, torch_axes = _KERNELS.get(rank, (same, same)) if variable.name == "kernel" else (same, same)
    lengths = dict(zip(keras_axes.split(), variable.shape, strict=True))
    return _Slot(
        tuple(lengths[axis] for axis in torch_axes.split()),
        lambda: rearrange(keras.ops.convert_to_numpy(variable), f"{keras_axes} -> {torch_axes}"),
        lambda array: variable.assign(rearrange(array, f"{torch_axes} -> {keras_axes}")),
    )
