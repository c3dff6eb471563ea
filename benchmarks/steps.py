"""Steps to time: one update of a network on random images, as in `stcli train` or in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import plain_torch
import torch

from stcore import models
from stcore.base.noise import sample
from stcore.base.seeding import Stream
from stcore.core.dispatch import load_backend
from stcore.core.objective import Objective, WeightPerturbation, training_step
from stcore.core.optimizers import SGD
from stcore.protocols import Learner


def learner_of(backend: str, model: str, side: int = 32, device: str | None = None, **prepared: Any) -> Learner:
    """A network with its optimizer, prepared as in `stcli train`. prepared: options such as precisions."""
    package = load_backend(backend)
    size = {"num_classes": 10, "image_size": (side, side)}
    network = models.build(model, backend, device=device, **size)  # type: ignore[arg-type]
    learner = package.make_learner(
        network, package.make_optimizer(network, SGD(learning_rate=0.01, momentum=0.9, weight_decay=5e-4))
    )
    return package.prepare_training(learner, prepared.pop("compile", "auto"), **prepared)  # type: ignore[no-any-return]


def plain(
    model: str, size: int, inner_steps: int, *, device: str | None = None, channels_last: bool = False
) -> Callable[[], float]:
    """One update with the released code's forward passes, by default in PyTorch's default memory layout."""
    network = models.build(model, "torch", num_classes=10, device=device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = network.to(memory_format=layout)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    learner = load_backend("torch").make_learner(network, optimizer)
    pixels, labels = images(size)
    x, y = learner.images(pixels).contiguous(memory_format=layout), learner.labels(labels)
    noise = (torch.randn_like(x), torch.randn_like(x))
    return lambda: float(plain_torch.step(network, optimizer, x, y, noise, steps=inner_steps))


def images(size: int, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Random pixels in [0, 1], (size, side, side, 3), and labels of ten classes, (size,)."""
    rng = np.random.default_rng(0)
    return rng.random((size, side, side, 3), np.float32), rng.integers(0, 10, size)


def step_of(
    learner: Learner,
    objective: Objective,
    size: int,
    side: int = 32,
    phase: int = 0,
    perturbation: WeightPerturbation | None = None,
) -> Callable[[], float]:
    """One update, on the same batch each time, that returns its loss."""
    step = learner.compile(lambda x, y, noise: training_step(learner, objective, x, y, noise, phase, perturbation))
    pixels, labels = images(size, side)
    laws = sample(objective.noise_laws, 0, Stream.NOISE, np.arange(size), (side, side, 3))
    x, y, noise = learner.images(pixels), learner.labels(labels), tuple(map(learner.images, laws))
    return lambda: float(learner.ops.to_numpy(step(x, y, noise).loss))
