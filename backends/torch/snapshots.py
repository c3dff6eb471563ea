"""All that a module's next step depends on, as host arrays and back, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from stcore.backends.torch.ops import to_numpy
from stcore.base.snapshots import check_snapshot, part
from stcore.protocols import Array


def of_model(model: nn.Module) -> dict[str, Array]:
    """Parameters and buffers by name."""
    return {f"model/{name}": to_numpy(tensor) for name, tensor in model.state_dict().items()}


def into_model(model: nn.Module, snapshot: Mapping[str, Array]) -> None:
    """UsageError, and nothing changed, unless it fits."""
    own, theirs = model.state_dict(), part(snapshot, "model/")
    check_snapshot(theirs, {name: tuple(tensor.shape) for name, tensor in own.items()})
    for name, tensor in own.items():  # detached views of the model's own
        tensor.copy_(torch.as_tensor(theirs[name]))


def of_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Array]:
    """Its tensors by parameter and name; what it has none of yet is left out."""
    return {
        f"optimizer/{place}/{name}": to_numpy(value)
        for place, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def into_optimizer(optimizer: torch.optim.Optimizer, snapshot: Mapping[str, Array]) -> None:
    """Puts what `of_optimizer` gave in the place of what it holds."""
    parameters = _parameters(optimizer)
    optimizer.state.clear()
    for key, array in part(snapshot, "optimizer/").items():
        place, _, name = key.partition("/")
        parameter = parameters[int(place)]
        optimizer.state[parameter][name] = _like(parameter, torch.as_tensor(array))


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """In the parameter's memory layout, where it is shaped like it: the same sums in the same order."""
    alike = value.shape == parameter.shape
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value) if alike else value.clone()


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def of_generators() -> dict[str, Array]:
    """The states of the generators that layers such as dropout draw from."""
    states = {"random/cpu": to_numpy(torch.get_rng_state())}
    if torch.cuda.is_available():
        states |= {f"random/cuda:{n}": to_numpy(s) for n, s in enumerate(torch.cuda.get_rng_state_all())}
    return states


def into_generators(snapshot: Mapping[str, Array]) -> None:
    """Those of devices that are not here are left out."""
    torch.set_rng_state(torch.as_tensor(snapshot["random/cpu"]))
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if (state := snapshot.get(f"random/cuda:{number}")) is not None:
            torch.cuda.set_rng_state(torch.as_tensor(state), number)
