"""A Keras model as a PyTorch module, for tools that only support PyTorch. Differentiates pixels, not weights."""

from __future__ import annotations

from typing import Any

import keras

from stcore.backends.keras.engine import native
from stcore.backends.keras.learner import KerasClassifier
from stcore.errors import UsageError
from stcore.protocols import Mode, Tensor

try:
    import torch
except ImportError as error:
    raise UsageError("bridge: torch not installed; in the repository: pip install '.[torch]'") from error


class KerasBridge(torch.nn.Module):
    """Maps images (B, C, H, W), or flat (B, d), to logits (B, classes) with running statistics.

    Logits and gradients have the images' device and dtype; Keras computes in the model's dtype. Every forward
    reads the current weights, so the bridge follows a model in training. It has no parameters of its own.
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self._classifier = KerasClassifier(model)
        self._logits = native.compile(self._frozen)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = _Crossing.apply(images, self)  # type: ignore[no-untyped-call]
        return logits

    def _frozen(self, x: Tensor) -> Tensor:
        """Logits with constant weights: a traced function's backward pass would differentiate variables too."""
        ops, model = self._classifier.ops, self._classifier.model
        weights = [(variable, ops.stop_gradient(variable.value)) for variable in model.variables]
        with keras.StatelessScope(weights, initialize_variables=False):
            return self._classifier.logits(x, Mode.EVAL)


class _Crossing(torch.autograd.Function):
    """Autograd function from torch to Keras: values and gradients pass through the host."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, bridge: KerasBridge) -> torch.Tensor:
        classifier = bridge._classifier
        x = classifier.pixels(_channels_last(images).cpu().numpy())
        if not ctx.needs_input_grad[0]:
            return _like(images, classifier.ops.to_numpy(bridge._logits(x)))
        # The tape lives as long as the forward, like torch's own graph, so several backward passes work.
        logits, ctx.pullback = classifier.ops.vjp(bridge._logits, x)
        ctx.bridge = bridge
        return _like(images, classifier.ops.to_numpy(logits))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        classifier = ctx.bridge._classifier
        (to_pixels,) = ctx.pullback(classifier.pixels(gradient.cpu().numpy()))
        return _channels_first(_like(gradient, classifier.ops.to_numpy(to_pixels))), None


def _channels_last(images: torch.Tensor) -> torch.Tensor:
    return images.detach().permute(0, 2, 3, 1) if images.ndim == 4 else images.detach()


def _channels_first(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 3, 1, 2).contiguous() if images.ndim == 4 else images


def _like(tensor: torch.Tensor, array: Any) -> torch.Tensor:
    return torch.as_tensor(array, dtype=tensor.dtype, device=tensor.device)
