"""One squeeze-training step in plain PyTorch with the forward passes of the authors' code: 34 for K = 10.

The natural images pass once without gradient. Every inner step passes natural, collaborative and adversarial
images with gradient, and the loss takes three passes. Written from the published description, for comparison only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


def track(model: nn.Module, on: bool) -> None:
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.track_running_stats = on


def divergence(upper: Tensor, lower: Tensor) -> Tensor:
    log_u, log_l = F.log_softmax(upper, 1), F.log_softmax(lower, 1)
    halves = F.kl_div(log_u, log_l.exp().detach(), reduction="batchmean") + F.kl_div(
        log_l, log_u.exp().detach(), reduction="batchmean"
    )
    return 0.5 * halves


def select(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The rows with the least and the most confidence in y, (B,) each, of logits (3, B, C)."""
    confidence = F.log_softmax(logits, 2)[:, torch.arange(len(y)), y]
    return confidence.argmin(0), confidence.argmax(0)


def find_pair(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    noise: tuple[Tensor, Tensor],
    epsilon: float,
    step_size: float,
    steps: int,
) -> tuple[Tensor, Tensor]:
    rows = torch.arange(len(y))
    track(model, False)
    with torch.no_grad():
        model(x)
    adversarial, collaborative = x + 1e-3 * noise[0], x + 1e-3 * noise[1]
    for _ in range(steps):
        points = [p.detach().requires_grad_() for p in (x, adversarial, collaborative)]
        logits = torch.stack([model(p) for p in points])
        upper, lower = select(logits.detach(), y)
        loss = divergence(logits[upper, rows], logits[lower, rows])
        gradients = torch.stack(torch.autograd.grad(loss, points))
        stacked = torch.stack(points).detach()
        moved = [stacked[who, rows] + step_size * gradients[who, rows].sign() for who in (upper, lower)]
        adversarial, collaborative = (
            torch.min(torch.max(m, x - epsilon), x + epsilon).clamp(0.0, 1.0) for m in moved
        )
    track(model, True)
    return adversarial, collaborative


def step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    noise: tuple[Tensor, Tensor],
    *,
    epsilon: float = 8 / 255,
    step_size: float = 2 / 255,
    steps: int = 10,
    beta: float = 6.0,
) -> Tensor:
    """One optimizer update; returns the loss."""
    model.train()
    adversarial, collaborative = find_pair(model, x, y, noise, epsilon, step_size, steps)
    rows = torch.arange(len(y))
    track(model, False)
    z_collaborative = model(collaborative)
    track(model, True)
    z_natural = model(x)
    z_adversarial = model(adversarial)
    logits = torch.stack([z_natural, z_adversarial, z_collaborative])
    upper, lower = select(logits.detach(), y)
    loss = F.cross_entropy(z_natural, y) + beta * divergence(logits[upper, rows], logits[lower, rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()
