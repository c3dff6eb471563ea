"""Complete training state of a module as host arrays, restored bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from stcore.backends.torch.ops import to_numpy
from stcore.base.snapshots import check_snapshot, part
from stcore.protocols import Array


def model_state(model: nn.Module) -> dict[str, Array]:
    """Parameters and buffers by name."""
    return {f"model/{name}": to_numpy(tensor) for name, tensor in model.state_dict().items()}


def restore_model(model: nn.Module, snapshot: Mapping[str, Array]) -> None:
    """Restores parameters and buffers. Raises UsageError, with nothing changed, if the snapshot does not fit."""
    tensors, arrays = model.state_dict(), part(snapshot, "model/")
    check_snapshot(arrays, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    for name, tensor in tensors.items():  # detached views of the model's own
        tensor.copy_(torch.as_tensor(arrays[name]))


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Array]:
    """The optimizer's tensors by parameter and name; parameters without state are left out."""
    return {
        f"optimizer/{index}/{name}": to_numpy(value)
        for index, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, snapshot: Mapping[str, Array]) -> None:
    """Replaces the optimizer's state by what `optimizer_state` returned."""
    parameters = _parameters(optimizer)
    optimizer.state.clear()
    for key, array in part(snapshot, "optimizer/").items():
        index, _, name = key.partition("/")
        parameter = parameters[int(index)]
        optimizer.state[parameter][name] = _like(parameter, torch.as_tensor(array))


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """A value of the parameter's shape in its memory layout, so that sums keep their order; others as a copy."""
    same_shape = value.shape == parameter.shape
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value) if same_shape else value.clone()


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def generator_states() -> dict[str, Array]:
    """The states of the random generators that layers such as dropout use."""
    states = {"random/cpu": to_numpy(torch.get_rng_state())}
    if torch.cuda.is_available():
        states |= {f"random/cuda:{n}": to_numpy(s) for n, s in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_generators(snapshot: Mapping[str, Array]) -> None:
    """Restores the generators; states of devices that this machine lacks are ignored."""
    torch.set_rng_state(torch.as_tensor(snapshot["random/cpu"]))
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if (state := snapshot.get(f"random/cuda:{number}")) is not None:
            torch.cuda.set_rng_state(torch.as_tensor(state), number)
