"""The reference engine, `pyautoattack`, without its side effects.

It seeds the global generators, leaves gradients in the parameters' `grad` (its FAB calls `backward`), and switches
off the trace function of a debugger or of coverage.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pyautoattack
import torch
from torch import Tensor, nn

from stcore.autoattack.reference import Settings
from stcore.backends.torch.learner import TorchClassifier
from stcore.backends.torch.modes import in_mode
from stcore.protocols import Array, Mode


class Outcome(NamedTuple):
    """adversarial: float32 host images in the layout of the input.   forwards, backwards: images × passes."""

    adversarial: Array
    seconds: float
    forwards: int
    backwards: int
    weight_gradients: bool


class Counted(nn.Module):
    """A module that converts the engine's float32 to its own dtype and counts its passes.

    forwards: images × forward passes.   backwards: images × backward passes to the pixels.
    flat: the module takes (B, d), whereas the engine passes (B, d, 1, 1).
    """

    def __init__(self, model: nn.Module, *, flat: bool = False) -> None:
        super().__init__()
        self.model, self.flat, self.dtype = model, flat, TorchClassifier(model).dtype
        self.forwards = self.backwards = 0

    def forward(self, images: Tensor) -> Tensor:
        self.forwards += len(images)
        if images.requires_grad and torch.is_grad_enabled():
            images = images.view_as(images)  # no hook on the caller's tensor, which it may pass again
            images.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        inputs = images.flatten(1) if self.flat else images
        logits: Tensor = self.model(inputs.to(self.dtype))
        return logits.to(images.dtype)

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def run(
    model: nn.Module,
    images: Array,
    labels: Array,
    settings: Settings,
    classes: int,
    progress: Callable[[str], None] | None,
) -> Outcome:
    """Runs the engine on images (N, H, W, C) or flat (N, d); the settings must fit the model and its `classes`."""
    device, flat = TorchClassifier(model).device, images.ndim == 2
    counted = Counted(model, flat=flat)
    as_images = images[:, :, None, None] if flat else images.transpose(0, 3, 1, 2)
    x = torch.tensor(np.ascontiguousarray(as_images, np.float32), device=device)
    y = torch.tensor(labels, dtype=torch.int64, device=device)
    with _side_effects_undone(counted), _log_to(progress):
        engine = pyautoattack.AutoAttack(
            counted,
            norm=settings.norm.capitalize(),
            eps=settings.epsilon,
            seed=settings.seed,
            version=settings.version,
            device=device,
        )
        if settings.attacks is not None:
            engine.attacks_to_run = list(settings.attacks)
        for targeted in (engine.apgd_targeted, engine.fab):  # the default is nine targets, even for four classes
            targeted.n_target_classes = min(targeted.n_target_classes, classes - 1)
        if settings.queries is not None:
            engine.square.n_queries = settings.queries
        start = time.perf_counter()
        adversarial, _ = engine.run_standard_evaluation(x, y, batch_size=settings.batch_size)
        seconds = time.perf_counter() - start
        weight_gradients = any(p.grad is not None for p in model.parameters())
    host = adversarial.cpu().numpy()
    host = host.reshape(images.shape) if flat else np.ascontiguousarray(host.transpose(0, 2, 3, 1))
    return Outcome(host, seconds, counted.forwards, counted.backwards, weight_gradients)


@contextmanager
def _side_effects_undone(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; restores modes, gradients, random state and trace function."""
    gradients, tracer = [(p, p.grad) for p in model.parameters()], sys.gettrace()
    for parameter, _ in gradients:
        parameter.grad = None  # the engine would add to it in place
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())), in_mode(model, Mode.EVAL, dropout=False):
            yield
    finally:
        sys.settrace(tracer)
        for parameter, gradient in gradients:
            parameter.grad = gradient


@contextmanager
def _log_to(progress: Callable[[str], None] | None) -> Iterator[None]:
    """Sends the engine's log, line by line, to `progress` alone; None leaves it to the caller's logging."""
    if progress is None:
        yield
        return
    logger, handler = logging.getLogger("auto-attack"), logging.Handler()
    before = logger.level, logger.propagate
    handler.emit = lambda record: progress(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
