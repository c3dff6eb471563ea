"""The optimizers of a run: torch's own."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from stcore.core import optimizers
from stcore.errors import UsageError
from stcore.models import trainable_weights


def _without_compiler(kind: Any) -> Any:
    """The optimizer without what concerns torch.compile, whose import takes more than a second of each start."""
    names = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    own = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), {**own, "step": torch.no_grad()(inspect.unwrap(kind.step))})


SGD, AdamW = _without_compiler(torch.optim.SGD), _without_compiler(torch.optim.AdamW)


def make_optimizer(model: nn.Module, settings: optimizers.SGD | optimizers.AdamW) -> torch.optim.Optimizer:
    """The optimizer of all weights but those to freeze, which need no gradients any more.

    All tensors of one rate and decay are updated in one call.
    """
    weights = trainable_weights(model)
    groups: dict[optimizers.Update, list[nn.Parameter]] = {}
    for name, update in settings.updates({name: weight.shape for name, weight in weights.items()}).items():
        if update is None:
            weights[name].requires_grad_(False)
        else:
            groups.setdefault(update, []).append(weights[name])
    given = [
        {"params": members, "lr": settings.learning_rate * share, "share": share, "weight_decay": decay}
        for (share, decay), members in groups.items()
    ]
    made: torch.optim.Optimizer
    if isinstance(settings, optimizers.AdamW):
        made = AdamW(given, betas=settings.betas, eps=optimizers.ADAM_EPSILON, foreach=True)
    else:
        made = SGD(given, lr=0.0, momentum=settings.momentum, nesterov=settings.nesterov, foreach=True)
    return made


def rate_of(optimizer: Any, model: nn.Module) -> float:
    """The learning rate of an optimizer that the user made. Raises UsageError if it cannot train this model.

    It is that of the first group, to which the others' keep their ratio.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UsageError(
            f"optimizer: expected a name or a torch.optim optimizer; received {type(optimizer).__qualname__}"
        )
    own = {id(weight) for weight in model.parameters()}
    if not all(id(weight) in own for group in optimizer.param_groups for weight in group["params"]):
        raise UsageError("optimizer: expected one of the model's weights; received weights that it does not have")
    rate = float(optimizer.param_groups[0]["lr"])
    for group in optimizer.param_groups:
        group.setdefault("share", float(group["lr"]) / rate if rate else 1.0)
    return rate
