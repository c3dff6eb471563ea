"""Classifier and learner over a PyTorch module: forwards in a mode, gradients, updates."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stcore.backends.torch import compiled, folding, noise, precision, snapshots
from stcore.backends.torch import ops as torch_ops
from stcore.backends.torch.modes import in_copies, in_mode, note_statistics, own_buffers
from stcore.backends.torch.recomputing import checkpointed
from stcore.backends.torch.resident import Resident
from stcore.backends.torch.taps import tapped
from stcore.core.equivalence import same_function
from stcore.data.pixels import unit_interval
from stcore.errors import DIVIDE, HALF, UsageError
from stcore.protocols import Array, Metrics, Mode, Network, Ops, Tap

NUMPY = {torch.float32: np.float32, torch.float64: np.float64}
"""The dtypes that numpy has too."""


def _native(array: Array) -> Array:
    """The array in this machine's byte order, without negative strides, which torch does not know."""
    array = np.asarray(array)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return native if min(native.strides, default=0) >= 0 else native.copy()


def _channels_first(images: Array) -> Array:
    # Transposed in numpy: the tensor is channels last in memory, which convolutions prefer, and not a view.
    # torch.compile would compile again for a view, since the examples that a search finds are none.
    return images.transpose(0, 3, 1, 2) if images.ndim == 4 else images


class TorchClassifier:
    """`stcore.protocols.Classifier` over any `nn.Module` that maps pixels (B, …) to logits (B, C).

    Raises UsageError for a float16 module.
    """

    ops: Ops = torch_ops
    _full_batch = 0

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        first = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
        self.device, self.dtype = first.device, first.dtype
        if self.dtype is torch.float16:
            raise UsageError(HALF)
        if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
            raise UsageError(
                "model: expected weights; received a lazy layer without any. Call the model on a batch once"
            )

    @property
    def _is_compiled(self) -> bool:
        """Whether `torch.compile` returned the model; other models avoid the compiler's slow import."""
        return hasattr(self.model, "_orig_mod")

    def logits(self, x: Tensor, mode: Mode, *, dropout: bool = False) -> Tensor:
        autocast = precision.callers_autocast(self.device.type)
        model = self._compiled_for(x) if self._is_compiled else self.model
        if mode is not Mode.EVAL:
            note_statistics(self.model, x)
        with compiled.keep_saved_tensors(), self._in_mode(mode, dropout), autocast:
            output = model(x)
        return precision.as_logits(output, self.dtype)

    @property
    def static_shapes(self) -> bool:
        """Whether compiled graphs are each of one batch size, which is faster on a GPU."""
        return self.device.type == "cuda"

    def _compiled_for(self, x: Tensor) -> nn.Module:
        """The compiled module; with static shapes the user's own for all but the largest batches so far."""
        if not self.static_shapes:
            torch._dynamo.maybe_mark_dynamic(x, 0)  # one graph for every batch size
            return self.model
        self._full_batch = max(self._full_batch, len(x))
        return self.model if len(x) == self._full_batch else self._module

    def _in_mode(self, mode: Mode, dropout: bool) -> AbstractContextManager[None]:
        """Context of one forward."""
        return in_mode(self.model, mode, dropout)

    def shape(self, x: Any) -> tuple[int | None, ...]:
        if not isinstance(x, Tensor) or x.dtype != self.dtype:
            received = str(x.dtype) if isinstance(x, Tensor) else type(x).__qualname__
            hint = f". {DIVIDE}" if "int" in received else ""
            raise TypeError(f"expected a torch.Tensor of the model's {self.dtype}; received {received}{hint}")
        batch, *rest = x.shape
        return (batch, *rest[1:], rest[0]) if len(rest) == 3 else (batch, *rest)

    def signature(self) -> Hashable:
        return tuple(p.shape for p in self.model.parameters())

    def is_tracing(self, x: Any) -> bool:
        return torch.compiler.is_compiling()

    def on_host(self, x: Any) -> bool:
        return not isinstance(x, Tensor) or x.device.type == "cpu"

    def to_numpy(self, x: Any) -> Array | None:
        if self.is_tracing(x):
            return None
        return torch_ops.to_numpy(x) if isinstance(x, Tensor) else np.asarray(x)

    def same_draws(self) -> AbstractContextManager[None]:
        return nullcontext()  # all modules draw from one generator: to repeat it would repeat dropout too

    def eval_logits(self, x: Tensor) -> Array | None:
        with self._eager():
            return torch_ops.to_numpy(torch_ops.unrecorded(self.logits, x, Mode.EVAL))

    def trial_logits(self, x: Tensor) -> Array | None:
        devices = [self.device] if self.device.type == "cuda" else []
        forward = partial(self.logits, x, Mode.BATCH, dropout=True)
        with self._eager(), torch.random.fork_rng(devices):
            return torch_ops.to_numpy(torch_ops.unrecorded(forward))

    def _eager(self) -> AbstractContextManager[Any]:
        """Context for one forward, which does not justify compiling a graph."""
        return torch.compiler.set_stance("force_eager") if self._is_compiled else nullcontext()

    def pixels(self, array: Array) -> Tensor:
        return self._sent(self._host_tensor(array))

    def _sent(self, tensor: Tensor) -> Tensor:
        """The tensor on the device, without waiting for what a GPU computes."""
        return tensor.to(self.device, non_blocking=self.device.type == "cuda")

    def _host_tensor(self, array: Array) -> Tensor:
        if array.dtype == np.uint8:
            array = unit_interval(array, np.float32 if self.dtype is torch.float32 else np.float64)
        return torch.as_tensor(_native(array), dtype=self.dtype)

    def host_pixels(self, array: Array) -> Array:
        if self.dtype not in NUMPY:
            return torch_ops.to_numpy(self.pixels(array))
        return unit_interval(array, NUMPY[self.dtype])

    def staged(self, array: Array) -> Array | Tensor:
        if self.device.type != "cuda":
            return array
        return self._host_tensor(_channels_first(array)).pin_memory()

    def images(self, array: Array | Tensor) -> Tensor:
        if isinstance(array, Tensor):  # staged
            return self._sent(array)
        return self.pixels(_channels_first(array))

    def host_images(self, x: Tensor | Array) -> Array:
        array = x if isinstance(x, np.ndarray) else torch_ops.to_numpy(x)
        return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array

    def resident(self, images: Array) -> Resident:
        return Resident(images, self.device, self.dtype)

    def labels(self, array: Array) -> Tensor:
        fine = torch.float64 if self.dtype is torch.float64 else torch.float32
        return self._sent(torch.as_tensor(_native(array), dtype=fine if array.dtype.kind == "f" else torch.int64))

    def compile(self, fn: Callable[..., Any], *, rowwise: bool = False) -> Callable[..., Any]:
        return fn  # torch compiles the model instead: make_learner(torch.compile(model), …)

    @contextmanager
    def tapped(self, tap: Tap) -> Iterator[None]:
        with self._eager(), tapped(self._module, tap):
            yield

    def weights(self) -> dict[str, Array]:
        from stcore.models import export_weights

        return export_weights(self.model)

    def load_weights(self, weights: Mapping[str, Array]) -> None:
        from stcore.models import load_weights

        load_weights(self.model, weights)

    def state(self) -> Sequence[Tensor]:
        return [t for t in self.model.state_dict().values() if t.is_floating_point()]

    def blend(self, values: Sequence[Tensor], share: float) -> None:
        own = list(self.state())
        moves = torch._foreach_sub(list(values), own)
        torch._foreach_mul_(moves, share)
        torch._foreach_add_(own, moves)

    def snapshot(self) -> dict[str, Array]:
        return snapshots.model_state(self._module)

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        snapshots.restore_model(self._module, snapshot)

    @property
    def _module(self) -> nn.Module:
        """The user's module, without the wrapper of `torch.compile`."""
        module: nn.Module = getattr(self.model, "_orig_mod", self.model)
        return module

    def copy(self) -> TorchClassifier:
        with torch.inference_mode(False):  # or the copy's tensors would be of no use outside of it
            return TorchClassifier(folding.copied(self._module))

    def folded(self, x: Tensor) -> TorchClassifier:
        with torch.inference_mode(False):
            copies = map(FoldedClassifier, folding.candidates(self.model))
            return next((candidate for candidate in copies if same_function(self, candidate, x)), self)


class FoldedClassifier(TorchClassifier):
    """A classifier of a copy made for EVAL forwards, which no one else has: its modules stay in evaluation mode.

    An EVAL forward sets no modes, which in a network of few operations takes a fifth of the time.
    """

    _is_compiled = False  # `folding.candidates` copies none

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._writers = [module for module in model.modules() if own_buffers(module)]

    def _in_mode(self, mode: Mode, dropout: bool) -> AbstractContextManager[None]:
        if mode is not Mode.EVAL:
            return super()._in_mode(mode, dropout)
        return in_copies(self._writers, own_buffers) if self._writers else nullcontext()


class TorchLearner(TorchClassifier):
    """`stcore.protocols.Learner`: the module with its `torch.optim` optimizer."""

    precision = inner_precision = "fp32"
    """Numeric precision of the outer forwards and of the search's: fp32, tf32 or bf16. All others use fp32."""
    gradient_checkpointing = False
    """Whether these forwards keep only the inputs of their blocks and recompute the other activations."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(model)
        if not isinstance(optimizer, torch.optim.Optimizer) or isinstance(optimizer, torch.optim.LBFGS):
            raise UsageError(
                "optimizer: expected one torch.optim optimizer whose step takes no closure; received "
                f"{type(optimizer).__name__}. Put all weights into one, in groups if their settings differ"
            )
        self.optimizer = optimizer
        self._outer = False

    def noise(
        self, laws: tuple[str, ...], keys: Array, positions: Array, shape: tuple[int, ...]
    ) -> tuple[Tensor, ...]:
        drawn = noise.draw(self.labels(keys), self.labels(positions), laws, shape)
        return tuple(one.to(self.dtype) for one in drawn)

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The optimizer's weights that have gradients now: layers may be unfrozen between two steps."""
        return [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]

    def logits(self, x: Tensor, mode: Mode, *, dropout: bool = False) -> Tensor:
        if self._outer:
            return self.training_logits(self.precision, x, mode, dropout)
        return super().logits(x, mode, dropout=dropout)

    def training_logits(self, in_precision: str, x: Tensor, mode: Mode, dropout: bool) -> Tensor:
        """Logits of one training forward, outer or in the search, in this precision."""
        logits = partial(super().logits, x, mode, dropout=dropout)
        with checkpointed(self.model, mode, dropout) if self.gradient_checkpointing else nullcontext():
            return precision.forward(in_precision, self.device, logits)

    def snapshot(self) -> dict[str, Array]:
        return super().snapshot() | snapshots.optimizer_state(self.optimizer) | snapshots.generator_states()

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        super().restore(snapshot)
        snapshots.restore_optimizer(self.optimizer, snapshot)
        snapshots.restore_generators(snapshot)

    def value_and_grad(
        self, loss: Callable[[], tuple[Tensor, Metrics]]
    ) -> tuple[tuple[Tensor, Metrics], Sequence[Tensor | None]]:
        self.model.zero_grad(set_to_none=True)
        self._outer = True
        try:
            with torch.enable_grad():
                value, metrics = loss()
        finally:
            self._outer = False
        with precision.backward_context(self.precision):
            value.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in self.trainable]  # None: not in the loss, so neither updated nor decayed
        return (value.detach(), {name: m.detach() for name, m in metrics.items()}), gradients

    def summed(self, gradients: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return gradients  # a rank overrides it

    def apply_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self.trainable, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def matrix_weights(self) -> Sequence[Tensor | None]:
        return [p.detach() if p.ndim > 1 else None for p in self.trainable]

    def shift(self, amounts: Sequence[Tensor | None], times: float = 1.0) -> None:
        pairs = [(p, amount) for p, amount in zip(self.trainable, amounts, strict=True) if amount is not None]
        if pairs:
            with torch.no_grad():
                torch._foreach_add_([p for p, _ in pairs], [amount for _, amount in pairs], alpha=times)

    def perturbed(self) -> AbstractContextManager[None]:
        # A module computes with weights, and assigns none: `spectral_norm` keeps the original.
        return nullcontext()

    def searching(self) -> Network:
        plain = self.inner_precision == "fp32" and not self.gradient_checkpointing
        return self if plain else precision.SearchNetwork(self.inner_precision, self.training_logits)

    def regularization_loss(self) -> None:
        """None: a torch module adds nothing to the loss."""

    def set_learning_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
