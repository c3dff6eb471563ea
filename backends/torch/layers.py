"""The layers of a torch module, for proofs (`stcore.bounds`)."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from stcore.backends.torch.folding import copied
from stcore.bounds.layers import Builder, Layers, same_padding, unsupported
from stcore.errors import UsageError
from stcore.models.torch_builder import GlobalAverage
from stcore.models.torch_layers import Normalization

_RELUS = (torch.relu, torch.relu_, functional.relu, functional.relu_, "relu", "relu_")
_FLATTENS = (torch.flatten, "flatten", torch.reshape, "reshape", "view")
_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
_MEANS = (torch.mean, "mean")
_DROPOUTS = (functional.dropout, functional.dropout2d)
_CONSTANTS: dict[Any, tuple[bool, int]] = {
    **dict.fromkeys((operator.add, torch.add), (True, 1)),
    **dict.fromkeys((operator.sub, torch.sub), (True, -1)),
    **dict.fromkeys((operator.mul, torch.mul), (False, 1)),
    **dict.fromkeys((operator.truediv, torch.div), (False, -1)),
}
"""An operation with a constant → whether it adds, and 1 or −1, the sign or the power that the constant has."""
_COPIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Normalization | GlobalAverage) or super().is_leaf_module(m, module_qualified_name)


def read_layers(model: nn.Module, shape: tuple[int, ...]) -> Layers:
    """The network's layers in EVAL mode, for pixels of this shape, (C, H, W) or (d,).

    Raises UsageError, in the module's names, for a layer that no bound is known for.
    """
    plain = copied(getattr(model, "_orig_mod", model)).cpu()
    for module in plain.modules():
        module.training = False
    try:
        graph = _Tracer().trace(plain)
        traced = fx.GraphModule(plain, graph)
        reader = _Reader(traced, shape)
        with torch.no_grad():
            reader.run(torch.zeros((2, *shape), dtype=reader.dtype))
    except UsageError:
        raise
    except Exception as error:  # tracing runs the module's own code on proxies instead of tensors
        raise UsageError(
            f"model: expected a network without decisions in its forward, whose layers can be listed; received "
            f"{type(model).__name__}: {error}"
        ) from error
    return reader.builder.finish(reader.logits)


class _Reader(fx.Interpreter):
    """Runs the graph on one image, and adds each node's layer."""

    def __init__(self, traced: fx.GraphModule, shape: tuple[int, ...]) -> None:
        super().__init__(traced)
        floats = [tensor.dtype for tensor in traced.state_dict().values() if tensor.is_floating_point()]
        self.dtype = floats[0] if floats else torch.float32
        self.builder = Builder(shape, str(self.dtype).removeprefix("torch."))
        self.logits = 0
        self._numbers: dict[str, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        inputs = [self._numbers[node.name] for node in n.all_input_nodes if node.name in self._numbers]
        if n.op == "placeholder":
            self._numbers[n.name] = 0
        elif n.op == "output":
            (self.logits,) = inputs
        elif isinstance(result, Tensor) and inputs:
            name = str(n.target) if n.op == "call_module" else n.name
            found = self._module(n, name, inputs) if n.op == "call_module" else self._function(n, name, inputs)
            if found is None or self.builder.shape(found) != tuple(result.shape[1:]):
                raise unsupported(name, str(self.fetch_attr(name)) if n.op == "call_module" else _called(n))
            self._numbers[n.name] = found
        return result

    def _module(self, n: fx.Node, name: str, inputs: list[int]) -> int | None:
        """Adds what a module computes; None if it is none that is known."""
        to, value, (at, *_) = self.builder, self.fetch_attr(name), inputs
        shape = to.shape(at)
        match value:
            case nn.Conv2d(padding_mode="zeros", bias=bias):
                return to.conv(
                    at,
                    _array(value.weight),
                    _array(bias),
                    name,
                    stride=_pair(value.stride),
                    padding=_padding(value),
                    dilation=_pair(value.dilation),
                    groups=value.groups,
                )
            case nn.Linear(bias=bias):
                return to.dense(at, _array(value.weight), _array(bias), name)
            case nn.BatchNorm1d() | nn.BatchNorm2d() if value.running_mean is not None:
                mean, variance = _array(value.running_mean), _array(value.running_var)
                gain = np.ones_like(mean) if value.weight is None else _array(value.weight)
                shift = np.zeros_like(mean) if value.bias is None else _array(value.bias)
                return to.batch_norm(at, mean, np.sqrt(variance + value.eps), gain, shift, name)
            case Normalization(mean=mean, std=std):
                return to.normalize(at, _array(mean).reshape(-1), _array(std).reshape(-1), name)
            case nn.ReLU():
                return to.relu(at, name)
            case nn.MaxPool2d(ceil_mode=False, dilation=1 | (1, 1)):
                above, beside = _pair(value.padding)
                padding = (above, above), (beside, beside)
                return to.max_pool(at, _pair(value.kernel_size), _pair(value.stride), padding, name)
            case nn.AvgPool2d(ceil_mode=False, padding=0 | (0, 0), divisor_override=None):
                return to.average_pool(at, _pair(value.kernel_size), _pair(value.stride), name)
            case nn.AdaptiveAvgPool2d(output_size=1 | (1, 1)):
                return to.global_average(at, name, keep=True)
            case GlobalAverage():
                return to.global_average(at, name)
            case nn.Flatten(start_dim=1, end_dim=end) if end in (-1, len(shape)):
                return to.flatten(at, name)
            case _:
                return at if isinstance(value, _COPIES) else None

    def _function(self, n: fx.Node, name: str, inputs: list[int]) -> int | None:
        """Adds what a function or a method computes; None if it is none that is known."""
        to, (at, *others) = self.builder, inputs
        if n.target in _RELUS:
            return to.relu(at, name)
        if n.target in _SUMS and len(others) == 1 and "alpha" not in n.kwargs:
            return to.sum(at, others[0], name)
        if n.target in _FLATTENS and not others:
            return to.flatten(at, name)
        if n.target in _MEANS and len(to.shape(at)) == 3 and _axes(n) == {2, 3}:
            return to.global_average(at, name, keep=bool(n.kwargs.get("keepdim", (*n.args, False, False)[2])))
        if n.target == "contiguous" or (n.target in _DROPOUTS and n.kwargs.get("training") is False):
            return at
        return None if others else self._constant(n, name, at)

    def _constant(self, n: fx.Node, name: str, at: int) -> int | None:
        """Adds an operation with a constant, as a network writes (x − mean) / std; None if it is none."""
        if n.target not in _CONSTANTS or len(n.args) != 2 or n.kwargs:
            return None
        moves, sign = _CONSTANTS[n.target]
        reverse = not (isinstance(n.args[0], fx.Node) and n.args[0].name in self._numbers)
        if reverse and sign < 0:
            return None
        other = n.args[0 if reverse else 1]
        constant = (
            torch.as_tensor(self.env[other] if isinstance(other, fx.Node) else other).detach().double().numpy()
        )
        shape = self.builder.shape(at)
        constant = constant.reshape(constant.shape[-len(shape) :]) if constant.ndim > len(shape) else constant
        zero, one = np.zeros_like(constant), np.ones_like(constant)
        if moves:
            return self.builder.scale(at, one, sign * constant, np.abs(constant), name)
        return self.builder.scale(at, constant if sign > 0 else 1 / constant, zero, zero, name)


def _padding(conv: nn.Conv2d) -> Any:
    """Zeros above and below, left and right."""
    if conv.padding == "valid":
        return (0, 0), (0, 0)
    if conv.padding == "same":
        sizes = zip(conv.kernel_size, _pair(conv.dilation), strict=True)
        return tuple(same_padding(1, apart * (kernel - 1) + 1, 1) for kernel, apart in sizes)
    return tuple((pad, pad) for pad in _pair(conv.padding))


def _axes(n: fx.Node) -> set[int]:
    axes = n.kwargs.get("dim", (*n.args, None)[1])
    return {axis % 4 for axis in axes} if isinstance(axes, list | tuple) else set()


def _called(n: fx.Node) -> str:
    return str(getattr(n.target, "__name__", n.target))


def _array(tensor: Any) -> Any:
    return None if tensor is None else tensor.detach().double().numpy()


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
