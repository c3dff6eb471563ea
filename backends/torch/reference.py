"""The reference engine, `pyautoattack`, run on a module without its side effects.

What it would leave behind: the global generators seeded, gradients in the parameters' `grad` (its FAB calls
`backward`), a debugger's or coverage's trace function switched off.
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
    """adversarial: host images as they were given, in float32.   forwards, backwards: images × passes."""

    adversarial: Array
    seconds: float
    forwards: int
    backwards: int
    weight_gradients: bool


class Counted(nn.Module):
    """A module in its own dtype behind the engine's float32, counting what is asked of it.

    forwards: images × forwards.   backwards: images × ways back to the pixels.
    flat: the module takes (B, d), where the engine wants (B, d, 1, 1).
    """

    def __init__(self, model: nn.Module, *, flat: bool = False) -> None:
        super().__init__()
        self.model, self.flat, self.dtype = model, flat, TorchClassifier(model).dtype
        self.forwards = self.backwards = 0

    def forward(self, images: Tensor) -> Tensor:
        self.forwards += len(images)
        if images.requires_grad and torch.is_grad_enabled():
            images = images.view_as(images)  # the hook stays off the caller's tensor, which may come again
            images.register_hook(self._passed)  # type: ignore[no-untyped-call]
        given = images.flatten(1) if self.flat else images
        logits: Tensor = self.model(given.to(self.dtype))
        return logits.to(images.dtype)

    def _passed(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def run(
    model: nn.Module,
    images: Array,
    labels: Array,
    settings: Settings,
    classes: int,
    progress: Callable[[str], None] | None,
) -> Outcome:
    """The engine on images (N, H, W, C) or flat (N, d), under settings that fit the model and its `classes`."""
    device, flat = TorchClassifier(model).device, images.ndim == 2
    counted = Counted(model, flat=flat)
    as_images = images[:, :, None, None] if flat else images.transpose(0, 3, 1, 2)
    x = torch.tensor(np.ascontiguousarray(as_images, np.float32), device=device)
    y = torch.tensor(labels, dtype=torch.int64, device=device)
    with _undisturbed(counted), _forwarded(progress):
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
        for targeted in (engine.apgd_targeted, engine.fab):  # it would ask for nine targets of four classes, too
            targeted.n_target_classes = min(targeted.n_target_classes, classes - 1)
        if settings.queries is not None:
            engine.square.n_queries = settings.queries
        begun = time.perf_counter()
        adversarial, _ = engine.run_standard_evaluation(x, y, batch_size=settings.batch_size)
        seconds = time.perf_counter() - begun
        of_weights = any(p.grad is not None for p in model.parameters())
    host = adversarial.cpu().numpy()
    host = host.reshape(images.shape) if flat else np.ascontiguousarray(host.transpose(0, 2, 3, 1))
    return Outcome(host, seconds, counted.forwards, counted.backwards, of_weights)


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; modes, gradients, random state and trace function as before, afterwards."""
    gradients, tracer = [(p, p.grad) for p in model.parameters()], sys.gettrace()
    for parameter, _ in gradients:
        parameter.grad = None  # what is there would be added to in place
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())), in_mode(model, Mode.EVAL, dropout=False):
            yield
    finally:
        sys.settrace(tracer)
        for parameter, gradient in gradients:
            parameter.grad = gradient


@contextmanager
def _forwarded(progress: Callable[[str], None] | None) -> Iterator[None]:
    """The engine's log, line by line, to `progress` alone; without it, wherever the caller's logging sends it."""
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
